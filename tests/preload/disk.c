/*
 * disk.c - a disk that fails when it is told to: preloaded into a process, it stands between it and
 * the files of one directory.
 *
 * PHR_DISK_DIRECTORY names the directory, PHR_DISK_CONTROL a file of four numbers of 64 bits, which
 * a test may change at any time. Calls that change something there are counted; those from a number
 * on and before another fail. A write that fails has done half of its work before, as a disk may.
 * io_uring is refused, since what goes through it passes nobody here.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PATH_BYTES 4096

/* The numbers in the control file. */
struct control {
    _Atomic uint64_t calls; /* so many have been made */
    _Atomic uint64_t from;  /* the first that fails */
    _Atomic uint64_t until; /* the first after it that does not */
    _Atomic uint64_t error; /* errno of those that fail */
};

static struct control *control;
static char directory[PATH_BYTES];

__attribute__((constructor)) static void start(void)
{
    const char *where = getenv("PHR_DISK_DIRECTORY");
    const char *file = getenv("PHR_DISK_CONTROL");

    if (where == NULL || file == NULL || strlen(where) >= sizeof directory)
        return;
    const int descriptor = (int)syscall(SYS_openat, AT_FDCWD, file, O_RDWR | O_CLOEXEC);
    if (descriptor < 0)
        return;
    void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (mapped == MAP_FAILED)
        return;
    strcpy(directory, where);
    control = mapped;
}

static int is_below(const char *path)
{
    const size_t length = strlen(directory);

    return control != NULL && strncmp(path, directory, length) == 0 &&
           (path[length] == '/' || path[length] == '\0');
}

static int is_file_below(int descriptor)
{
    char link[64], path[PATH_BYTES];

    if (control == NULL)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    const ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = '\0';
    return is_below(path);
}

/* Counts a call; sets errno where it is to fail. */
static int fails(void)
{
    const uint64_t number = atomic_fetch_add(&control->calls, 1);

    if (number < atomic_load(&control->from) || number >= atomic_load(&control->until))
        return 0;
    errno = (int)atomic_load(&control->error);
    return 1;
}

/* The C library's own function of this name. */
#define NEXT(name) (__extension__(__typeof__(&name)) dlsym(RTLD_NEXT, #name))

static ssize_t written(int descriptor, const void *bytes, size_t count, off_t offset)
{
    if (is_file_below(descriptor) && fails()) {
        const int error = errno;
        /* How much it has written is nobody's business. */
        (void)!NEXT(pwrite64)(descriptor, bytes, count / 2, offset);
        errno = error;
        return -1;
    }
    return NEXT(pwrite64)(descriptor, bytes, count, offset);
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t count, off_t offset)
{
    return written(descriptor, bytes, count, offset);
}

ssize_t pwrite(int descriptor, const void *bytes, size_t count, off_t offset)
{
    return written(descriptor, bytes, count, offset);
}

ssize_t write(int descriptor, const void *bytes, size_t count)
{
    if (is_file_below(descriptor) && fails())
        return -1;
    return NEXT(write)(descriptor, bytes, count);
}

int fdatasync(int descriptor)
{
    if (is_file_below(descriptor) && fails())
        return -1;
    return NEXT(fdatasync)(descriptor);
}

int fsync(int descriptor)
{
    if (is_file_below(descriptor) && fails())
        return -1;
    return NEXT(fsync)(descriptor);
}

int ftruncate64(int descriptor, off_t length)
{
    if (is_file_below(descriptor) && fails())
        return -1;
    return NEXT(ftruncate64)(descriptor, length);
}

int rename(const char *from, const char *to)
{
    if (is_below(to) && fails())
        return -1;
    return NEXT(rename)(from, to);
}

int unlink(const char *path)
{
    if (is_below(path) && fails())
        return -1;
    return NEXT(unlink)(path);
}

int open64(const char *path, int flags, ...)
{
    va_list arguments;

    va_start(arguments, flags);
    const unsigned mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, unsigned) : 0;
    va_end(arguments);
    if (is_below(path) && (flags & O_ACCMODE) != O_RDONLY && fails())
        return -1;
    return NEXT(open64)(path, flags, mode);
}

long syscall(long number, ...)
{
    va_list arguments;
    long words[6];

    va_start(arguments, number);
    for (int i = 0; i < 6; i++)
        words[i] = va_arg(arguments, long);
    va_end(arguments);
    if (control != NULL && number == SYS_io_uring_setup) {
        errno = EPERM;
        return -1;
    }
    return NEXT(syscall)(number, words[0], words[1], words[2], words[3], words[4], words[5]);
}
