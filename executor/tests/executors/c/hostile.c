/* Functions that try to write into a neighbour's region. Each publishes what it tried; the test
 * looks whether the neighbour's memory has changed. The input lies in the neighbour's region. */
#define _GNU_SOURCE
#include <pheromone.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static sigjmp_buf back;

static void caught(int number)
{
    siglongjmp(back, number);
}

/* Writes a byte there; 0 when that was possible, else the signal. */
static int poke(volatile char *at)
{
    int stopped;

    signal(SIGSEGV, caught);
    signal(SIGBUS, caught);
    stopped = sigsetjmp(back, 1);
    if (stopped == 0)
        *at = 'X';
    signal(SIGSEGV, SIG_DFL);
    signal(SIGBUS, SIG_DFL);
    return stopped;
}

static int tell(phr_ctx *ctx, const char *what, long result, int error)
{
    char text[200];

    snprintf(text, sizeof text, "%s: %ld (%s)", what, result, strerror(error));
    return phr_put(ctx, "out", NULL, text, strlen(text));
}

/* The configured size of a region. */
static size_t span(phr_ctx *ctx)
{
    return (size_t)strtoull(phr_config(ctx, "span"), NULL, 10);
}

/* A page in the middle of an object of its own, so that nobody else misses it. */
static char *own_page(phr_ctx *ctx)
{
    char *own = (char *)phr_buffer(phr_create(ctx, "out", NULL, 1 << 20));
    return (char *)((uintptr_t)(own + (1 << 19)) / 4096 * 4096);
}

PHR_FUNCTION(hostile_mremap)
{
    size_t bytes = span(ctx);
    char *page = own_page(ctx);
    /* From the own page to three regions further on. */
    char *grown = (char *)mremap(page, 4096, 3 * bytes, MREMAP_MAYMOVE);
    int error = errno;
    size_t at;

    if (grown != (char *)MAP_FAILED)
        for (at = 0; at < 3 * bytes; at += 4096)
            poke(grown + at + 7);
    return tell(ctx, "mremap", grown == (char *)MAP_FAILED, error);
}

PHR_FUNCTION(hostile_remap_file_pages)
{
    char *page = own_page(ctx);
    long result = 0;
    size_t offset;

    for (offset = 0; offset < 4 * span(ctx) / 4096; offset += 16) {
        result = syscall(SYS_remap_file_pages, page, 4096, 0, offset, 0);
        poke(page + 7);
    }
    return tell(ctx, "remap_file_pages", result, errno);
}

PHR_FUNCTION(hostile_mprotect)
{
    char *victim = (char *)phr_data(phr_input(ctx, 0));
    char *page = (char *)((uintptr_t)victim / 4096 * 4096);
    long result = mprotect(page, 4096, PROT_READ | PROT_WRITE);
    int error = errno;

    poke(victim);
    return tell(ctx, "mprotect", result, error);
}

/* Maps whatever is open, writable. */
PHR_FUNCTION(hostile_mmap)
{
    int fd;
    int mapped = 0;

    for (fd = 0; fd < 1024; fd++) {
        char *at = (char *)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (at != (char *)MAP_FAILED) {
            mapped++;
            poke(at);
        }
    }
    return tell(ctx, "mmap", mapped, 0);
}

static int open_all(const char *folder_name, size_t bytes)
{
    DIR *folder = opendir(folder_name);
    struct dirent *entry;
    int opened = 0;

    if (folder == NULL)
        return 0;
    while ((entry = readdir(folder)) != NULL) {
        char path[512];
        int fd;
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", folder_name, entry->d_name);
        fd = open(path, O_RDWR);
        if (fd < 0)
            continue;
        char *at = (char *)mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (at != (char *)MAP_FAILED) {
            size_t offset;
            opened++;
            for (offset = 0; offset < bytes; offset += 64)
                if (poke(at + offset) != 0)
                    break;
        }
        close(fd);
    }
    closedir(folder);
    return opened;
}

PHR_FUNCTION(hostile_proc_fd)
{
    return tell(ctx, "/proc/self/fd", open_all("/proc/self/fd", span(ctx)), 0);
}

/* Opens the files behind every mapping but those of the own region, and of libraries. */
PHR_FUNCTION(hostile_map_files)
{
    uintptr_t own = (uintptr_t)own_page(ctx);
    size_t bytes = span(ctx);
    DIR *folder = opendir("/proc/self/map_files");
    struct dirent *entry;
    int opened = 0;
    int error = errno;

    if (getuid() == 0) /* it would write into the system's libraries */
        return phr_fail(ctx, 1, "root must not run this");
    while (folder != NULL && (entry = readdir(folder)) != NULL) {
        char path[512];
        unsigned long start, end;
        int fd;
        if (sscanf(entry->d_name, "%lx-%lx", &start, &end) != 2 || (start <= own && own < end))
            continue;
        snprintf(path, sizeof path, "/proc/self/map_files/%s", entry->d_name);
        fd = open(path, O_RDWR);
        error = errno;
        if (fd < 0)
            continue;
        char *at = (char *)mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (at != (char *)MAP_FAILED) {
            size_t offset;
            opened++;
            for (offset = 0; offset < bytes; offset += 64)
                if (poke(at + offset) != 0)
                    break;
        }
        close(fd);
    }
    return tell(ctx, "/proc/self/map_files", opened, error);
}

/* Writes through /proc/self/mem, which ignores protections where it may. */
PHR_FUNCTION(hostile_proc_mem)
{
    int fd = open("/proc/self/mem", O_RDWR);
    long result = -1;
    int error = errno;

    if (fd >= 0) {
        result = pwrite(fd, "X", 1, (off_t)(uintptr_t)phr_data(phr_input(ctx, 0)));
        error = errno;
        close(fd);
    }
    return tell(ctx, "/proc/self/mem", result, error);
}

/* Puts other memory where the neighbour's was: only this process sees it. */
PHR_FUNCTION(hostile_mmap_over)
{
    char *victim = (char *)phr_data(phr_input(ctx, 0));
    char *page = (char *)((uintptr_t)victim / 4096 * 4096);
    char *at = (char *)mmap(page, 4096, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

    poke(victim);
    return tell(ctx, "mmap over", at == page, errno);
}
