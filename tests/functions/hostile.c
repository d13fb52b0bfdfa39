/*
 * hostile.c - functions that attack: their own rings, and the regions of their neighbours.
 */
#define _GNU_SOURCE
#include "check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAPS_MAX 512
#define PATTERN_BYTES ((size_t)256 * 1024)
#define PAGE_BYTES ((size_t)4096)

struct map {
    uintptr_t start, end;
    int writable;
    int shared;
};

static struct map maps[MAPS_MAX];

static int read_maps(void)
{
    FILE *file = fopen("/proc/self/maps", "r");
    char line[512];
    int count = 0;

    if (file == NULL)
        return 0;
    while (count < MAPS_MAX && fgets(line, sizeof line, file) != NULL) {
        unsigned long start, end;
        char mode[5];

        if (sscanf(line, "%lx-%lx %4s", &start, &end, mode) != 3)
            continue;
        maps[count].start = start;
        maps[count].end = end;
        maps[count].writable = mode[1] == 'w';
        maps[count].shared = mode[3] == 's';
        count++;
    }
    fclose(file);
    return count;
}

/* ---------------------------------------------------------------------- faults are survived --- */

static sigjmp_buf after_fault;

static void on_fault(int signal)
{
    siglongjmp(after_fault, signal);
}

static void survive_faults(void)
{
    struct sigaction action;

    memset(&action, 0, sizeof action);
    action.sa_handler = on_fault;
    action.sa_flags = SA_NODEFER;
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
}

/* 1 if the byte could be written. */
static int try_write(volatile char *where)
{
    if (sigsetjmp(after_fault, 1) != 0)
        return 0;
    *where = '!';
    return 1;
}

/* ------------------------------------------------------------- everything that can be written - */

static uint64_t state = 88172645463325252ull;

static uint64_t random_word(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* Random words over every shared mapping that is writable, rings included, again and again. The
 * first pages of a mapping are where its rings are; a region is large and sparse. */
static void scribble(size_t mapping_bytes_max)
{
    const int count = read_maps();

    for (int i = 0; i < count; i++) {
        size_t size = maps[i].end - maps[i].start;

        if (!maps[i].writable || !maps[i].shared)
            continue;
        if (size > mapping_bytes_max)
            size = mapping_bytes_max;
        for (size_t at = 0; at + 8 <= size; at += 8) {
            volatile uint64_t *word = (volatile uint64_t *)(maps[i].start + at);

            if (sigsetjmp(after_fault, 1) != 0)
                break;
            *word = random_word();
        }
    }
}

/* Scribbles and returns as if nothing had happened. */
PHR_FUNCTION(scribbles_once)
{
    state += phr_now_ns(ctx);
    survive_faults();
    scribble((size_t)1 << 20);
    return PHR_OK;
}

/* Scribbles until it is killed. */
PHR_FUNCTION(scribbles_for_ever)
{
    state += phr_now_ns(ctx);
    survive_faults();
    for (;;)
        scribble((size_t)1 << 20);
}

/* One random word of what it can write, between honest messages. */
PHR_FUNCTION(scribbles_a_word)
{
    int count;

    state += phr_now_ns(ctx) * 2654435761u;
    survive_faults();
    count = read_maps();
    for (int i = 0; i < count; i++) {
        volatile uint64_t *word;

        if (!maps[i].writable || !maps[i].shared)
            continue;
        word = (volatile uint64_t *)(maps[i].start + random_word() % 8192 / 8 * 8);
        if ((uintptr_t)word + 8 <= maps[i].end && sigsetjmp(after_fault, 1) == 0)
            *word = random_word();
        OK(phr_put(ctx, "noise", NULL, "x", 1));
    }
    return PHR_OK;
}

static volatile int is_lying;

/* Random words over the small shared mappings, rings among them; the first and the last word of
 * each cache line stay, so that what is in between passes for a message. */
static void *lie(void *argument)
{
    const int count = read_maps();

    while (is_lying) {
        for (int i = 0; i < count; i++) {
            if (!maps[i].writable || !maps[i].shared || maps[i].end - maps[i].start > 1 << 20)
                continue;
            for (uintptr_t line = maps[i].start; line < maps[i].end; line += 64)
                for (uintptr_t word = line + 8; word < line + 56; word += 8)
                    *(volatile uint64_t *)word = random_word();
        }
    }
    return argument;
}

/* Sends honestly while a thread of its own rewrites what is sent. */
PHR_FUNCTION(lies)
{
    pthread_t liar;

    is_lying = 1;
    CHECK(pthread_create(&liar, NULL, lie, NULL) == 0);
    for (int i = 0; i < 100000; i++)
        OK(phr_put(ctx, "noise", NULL, "x", 1));
    is_lying = 0;
    CHECK(pthread_join(liar, NULL) == 0);
    return PHR_OK;
}

PHR_FUNCTION(listens)
{
    (void)ctx;
    return PHR_OK;
}

/* ------------------------------------------------------------------- a neighbour's region ----- */

static char expected_at(size_t i)
{
    return (char)(i * 131 >> 3);
}

/* An object full of a pattern, for `attacks`, which runs in another process: this one does not
 * return before the other has finished. */
PHR_FUNCTION(owns)
{
    phr_object *out = phr_create(ctx, "target", "it", PATTERN_BYTES);
    char *bytes;

    CHECK(out != NULL);
    bytes = (char *)phr_buffer(out);
    for (size_t i = 0; i < PATTERN_BYTES; i++)
        bytes[i] = expected_at(i);
    OK(phr_send(ctx, out));
    while (access("attacked", F_OK) != 0 && !phr_cancelled(ctx))
        usleep(1000);
    return phr_put(ctx, "reports", "owner", NULL, 0);
}

static int is_intact(const phr_object *target)
{
    const char *bytes = (const char *)phr_data(target);

    for (size_t i = 0; i < PATTERN_BYTES; i++)
        if (bytes[i] != expected_at(i))
            return 0;
    return 1;
}

static struct map map_of(const void *address)
{
    const uintptr_t at = (uintptr_t)address;
    const struct map none = { 0, 0, 0, 0 };
    const int count = read_maps();

    for (int i = 0; i < count; i++)
        if (at >= maps[i].start && at < maps[i].end)
            return maps[i];
    return none;
}

/* Every byte in reach of a mapping that an attack has made. */
static void fill(char *start, size_t size)
{
    for (size_t at = 0; at < size; at += PAGE_BYTES)
        if (!try_write(start + at))
            break;
}

/* Maps whatever a descriptor leads to, writable, and writes all over it. 1 if that was possible. */
static int write_through(int fd)
{
    char *mapped = (char *)mmap(NULL, PATTERN_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (mapped == MAP_FAILED)
        return 0;
    fill(mapped, PATTERN_BYTES);
    munmap(mapped, PATTERN_BYTES);
    return 1;
}

/* Opens every entry of a directory of /proc for writing, if it leads to a memfd. */
static int attack_directory(const char *directory)
{
    DIR *entries = opendir(directory);
    const struct dirent *entry;
    int opened = 0;

    if (entries == NULL)
        return 0;
    while ((entry = readdir(entries)) != NULL) {
        char path[512], target[512];
        ssize_t length;
        int fd;

        snprintf(path, sizeof path, "%s/%.200s", directory, entry->d_name);
        length = readlink(path, target, sizeof target - 1);
        if (length <= 0)
            continue;
        target[length] = '\0';
        if (strstr(target, "memfd:") == NULL && strstr(target, "(deleted)") == NULL)
            continue;
        fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0)
            continue;
        opened += write_through(fd);
        close(fd);
    }
    closedir(entries);
    return opened;
}

PHR_FUNCTION(attacks)
{
    const phr_object *target = phr_input(ctx, 0);
    char *victim = (char *)(uintptr_t)phr_data(target);
    phr_object *own = phr_create(ctx, NULL, NULL, PATTERN_BYTES);
    const struct map theirs = map_of(victim);
    struct map ours;
    char *grown;
    int fd;

    CHECK(own != NULL);
    ours = map_of(phr_buffer(own));
    CHECK(theirs.start != 0 && theirs.shared && !theirs.writable);
    CHECK(ours.start != 0 && ours.shared && ours.writable);
    CHECK(getuid() != 0);
    survive_faults();
    CHECK(is_intact(target));

    CHECK(!try_write(victim));
    CHECK(mprotect((void *)theirs.start, PATTERN_BYTES, PROT_READ | PROT_WRITE) != 0);
    CHECK(!try_write(victim));
    CHECK(is_intact(target));

    /* A second look at it through the same mapping, made writable. */
    grown = (char *)mremap((void *)theirs.start, 0, PATTERN_BYTES, MREMAP_MAYMOVE);
    if (grown != MAP_FAILED) {
        CHECK(mprotect(grown, PATTERN_BYTES, PROT_READ | PROT_WRITE) != 0);
        CHECK(!try_write(grown));
    }

    /* Our own mapping, grown over what lies behind its file. */
    grown = (char *)mremap((void *)ours.start, 0, 2 * (ours.end - ours.start), MREMAP_MAYMOVE);
    if (grown != MAP_FAILED)
        fill(grown + (ours.end - ours.start), PATTERN_BYTES);
    CHECK(is_intact(target));

    /* Our own mapping, aimed at another place of its file. */
    for (size_t page = 1; page < (size_t)1 << 34; page <<= 1)
        if (syscall(SYS_remap_file_pages, ours.end - PAGE_BYTES, PAGE_BYTES, 0, page, 0) == 0)
            try_write((char *)(ours.end - PAGE_BYTES));
    CHECK(is_intact(target));

    /* Whatever is still open, and whatever /proc opens again. */
    for (fd = 0; fd < 1024; fd++)
        write_through(fd);
    CHECK(is_intact(target));
    attack_directory("/proc/self/fd");
    CHECK(is_intact(target));
    attack_directory("/proc/self/map_files");
    CHECK(is_intact(target));

    /* Through the memory of the process itself. */
    fd = open("/proc/self/mem", O_RDWR);
    if (fd >= 0) {
        CHECK(pwrite(fd, "!!!!", 4, (off_t)(uintptr_t)victim) != 4);
        close(fd);
    }
    {
        struct iovec from = { (void *)(uintptr_t) "!!!!", 4 }, to = { victim, 4 };

        CHECK(process_vm_writev(getpid(), &from, 1, &to, 1, 0) != 4);
    }
    CHECK(is_intact(target));

    /* The kernel writing for us. */
    fd = open("check.h", O_RDONLY);
    CHECK(fd >= 0);
    CHECK(read(fd, victim, 64) < 0 && errno == EFAULT);
    close(fd);

    /* Punching the hole that only its owner may punch. */
    CHECK(madvise((void *)theirs.start, PATTERN_BYTES, MADV_REMOVE) != 0);
    CHECK(is_intact(target));
    fd = open("attacked", O_WRONLY | O_CREAT, 0666);
    CHECK(fd >= 0);
    close(fd);
    return phr_forward(ctx, target, "reports", "target");
}

/* The object is as it was sent, also in a process that has not touched it. */
PHR_FUNCTION(verifies)
{
    CHECK(is_intact(phr_input_named(ctx, "target")));
    return phr_respond_data(ctx, "intact", 6);
}

/* -------------------------------------------------- no descriptor for whoever listens to us --- */

/* Sends a descriptor into everything that is open here; answers how many times that was taken. */
PHR_FUNCTION(hands_over)
{
    int taken = 0, gift = open("/dev/null", O_RDONLY | O_CLOEXEC);
    char text[16];

    CHECK(gift >= 0);
    for (int fd = 0; fd < 1024; fd++) {
        _Alignas(struct cmsghdr) char space[CMSG_SPACE(sizeof gift)] = { 0 };
        struct iovec bytes = { (void *)(uintptr_t) "x", 1 };
        struct msghdr message = { 0 };
        struct cmsghdr *head;

        message.msg_iov = &bytes;
        message.msg_iovlen = 1;
        message.msg_control = space;
        message.msg_controllen = sizeof space;
        head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof gift);
        memcpy(CMSG_DATA(head), &gift, sizeof gift);
        taken += sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
    }
    close(gift);
    return phr_respond_data(ctx, text, (size_t)snprintf(text, sizeof text, "%d", taken));
}
