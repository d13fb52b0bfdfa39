/*
 * isolation.c - functions that try to get out. Each takes what it needs to know as its input, in
 * words, and answers with the ways that were open to it, a word each: nothing where all were shut.
 */
#define _GNU_SOURCE
#include "check.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* Numbers that older headers lack; the same on every machine. */
#define NR_PIDFD_SEND_SIGNAL 424
#define NR_IO_URING_SETUP 425
#define NR_PIDFD_OPEN 434
#define NR_CLONE3 435
#define NR_PIDFD_GETFD 438
#define NR_PROCESS_MADVISE 440
#define NR_FUTEX_WAITV 449
#define NR_FUTEX_REQUEUE 456

static char report[4096];

static void begin(void)
{
    report[0] = '\0';
}

/* This way was open. */
static void is_open(const char *format, ...)
{
    const size_t length = strlen(report);
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(report + length, sizeof report - length, format, arguments);
    va_end(arguments);
    strncat(report, " ", sizeof report - strlen(report) - 1);
}

#define TRY(name, condition)                                                                       \
    do {                                                                                           \
        if (condition)                                                                             \
            is_open("%s", name);                                                                   \
    } while (0)

static int answer(phr_ctx *ctx)
{
    return phr_respond_data(ctx, report, strlen(report));
}

/* The numbers in the input, as many as there are. */
static int numbers_of(const phr_object *input, long *numbers, int most)
{
    const char *at = (const char *)phr_data(input);
    int count = 0;

    while (count < most) {
        char *end;
        const long number = strtol(at, &end, 10);

        if (end == at)
            break;
        numbers[count++] = number;
        at = end;
    }
    return count;
}

/* ------------------------------------------------------------------------- other processes ---- */

/* In: process ids. All are to die. */
PHR_FUNCTION(kills)
{
    long pids[64];
    const int count = numbers_of(phr_input(ctx, 0), pids, 64);

    begin();
    CHECK(count > 0);
    for (int i = 0; i < count; i++) {
        const pid_t pid = (pid_t)pids[i];
        siginfo_t information;
        int pipes[2], fd;
        struct f_owner_ex owner = { F_OWNER_PID, pid };

        memset(&information, 0, sizeof information);
        information.si_code = SI_QUEUE;
        TRY("kill", kill(pid, SIGKILL) == 0);
        TRY("group", kill(-pid, SIGKILL) == 0);
        TRY("tgkill", syscall(SYS_tgkill, pid, pid, SIGKILL) == 0);
        TRY("tkill", syscall(SYS_tkill, pid, SIGKILL) == 0);
        TRY("sigqueue", syscall(SYS_rt_sigqueueinfo, pid, SIGKILL, &information) == 0);
        fd = (int)syscall(NR_PIDFD_OPEN, pid, 0);
        TRY("pidfd", fd >= 0 && syscall(NR_PIDFD_SEND_SIGNAL, fd, SIGKILL, NULL, 0) == 0);
        /* A descriptor that sends its signal to somebody else. */
        CHECK(pipe2(pipes, O_NONBLOCK) == 0);
        TRY("setown", fcntl(pipes[0], F_SETOWN, pid) == 0);
        TRY("setown_ex", fcntl(pipes[0], F_SETOWN_EX, &owner) == 0);
        TRY("setsig", fcntl(pipes[0], F_SETSIG, SIGKILL) == 0);
        close(pipes[0]);
        close(pipes[1]);
    }
    TRY("own_group", kill(0, SIGKILL) == 0);
    TRY("everybody", kill(-1, SIGKILL) == 0);
    return answer(ctx);
}

/* In: process ids. All are to be looked into, and written. */
PHR_FUNCTION(reads)
{
    static const char *const files[] = { "mem", "maps", "environ", "fd/0", "fd/3", "map_files" };
    long pids[64];
    const int count = numbers_of(phr_input(ctx, 0), pids, 64);
    static char page[4096];

    begin();
    CHECK(count > 0);
    for (int i = 0; i < count; i++) {
        const pid_t pid = (pid_t)pids[i];
        struct iovec here = { page, sizeof page }, there = { page, sizeof page };

        TRY("readv", process_vm_readv(pid, &here, 1, &there, 1, 0) >= 0);
        TRY("writev", process_vm_writev(pid, &here, 1, &there, 1, 0) >= 0);
        /* Not PTRACE_ATTACH, which would stop it. */
        if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0) {
            is_open("ptrace");
            ptrace(PTRACE_DETACH, pid, 0, 0);
        }
        TRY("getfd", syscall(NR_PIDFD_GETFD, (int)syscall(NR_PIDFD_OPEN, pid, 0), 0, 0) >= 0);
        TRY("madvise", syscall(NR_PROCESS_MADVISE, (int)syscall(NR_PIDFD_OPEN, pid, 0), &there, 1,
                               MADV_COLD, 0) >= 0);
        TRY("limits", prlimit(pid, RLIMIT_NOFILE, NULL, (struct rlimit *)page) == 0);
        for (size_t file = 0; file < sizeof files / sizeof *files; file++) {
            char path[64];
            int fd;

            snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, files[file]);
            fd = open(path, O_RDONLY | O_NONBLOCK);
            TRY(files[file], fd >= 0);
            if (fd >= 0)
                close(fd);
        }
    }
    return answer(ctx);
}

/* In: the CPU of the scheduler. */
PHR_FUNCTION(moves)
{
    const long cpu = number_in(phr_input(ctx, 0));
    struct sched_param parameters = { 0 };
    cpu_set_t set;

    begin();
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    TRY("affinity", sched_setaffinity(0, sizeof set, &set) == 0);
    TRY("scheduler", sched_setscheduler(0, SCHED_BATCH, &parameters) == 0);
    TRY("priority", setpriority(PRIO_PROCESS, 0, 1) == 0);
    return answer(ctx);
}

/* ---------------------------------------------------------------------------------- futexes --- */

static volatile int is_waiting;

static void *wait_on(void *word)
{
    while (is_waiting) {
        const struct timespec moment = { 0, 1000000 };

        syscall(SYS_futex, word, FUTEX_WAIT, *(volatile uint32_t *)word, &moment, NULL, 0);
    }
    return NULL;
}

/* Every word in the first line of every shared page that cannot be written: the scheduler sleeps on
 * one of them. Waits on each (which may eat a wake that is meant for one), and tries to take
 * whoever sleeps there elsewhere. */
PHR_FUNCTION(requeues)
{
    static uint32_t own;
    uintptr_t words[64];
    pthread_t waiters[64];
    FILE *file = fopen("/proc/self/maps", "r");
    char line[512];
    int count = 0;

    begin();
    CHECK(file != NULL);
    while (count < 64 && fgets(line, sizeof line, file) != NULL) {
        unsigned long start, end;
        char mode[5];

        /* A node page has one page; a region's or a ring's first words are no futexes. */
        if (sscanf(line, "%lx-%lx %4s", &start, &end, mode) == 3 && mode[1] != 'w' &&
            mode[3] == 's' && end - start <= 0x20000)
            words[count++] = start;
    }
    fclose(file);
    CHECK(count > 0);
    is_waiting = 1;
    for (int i = 0; i < count; i++)
        CHECK(pthread_create(&waiters[i], NULL, wait_on, (void *)words[i]) == 0);
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < count; i++) {
            uint32_t *word = (uint32_t *)words[i];
            const uint32_t seen = *(volatile uint32_t *)word;
            struct futex_waitv_like {
                uint64_t value, address;
                uint32_t flags, reserved;
            } wait = { seen, words[i], 2, 0 };

            TRY("requeue", syscall(SYS_futex, word, FUTEX_REQUEUE, 0, INT32_MAX, &own, 0) >= 0);
            TRY("cmp_requeue",
                syscall(SYS_futex, word, FUTEX_CMP_REQUEUE, 0, INT32_MAX, &own, seen) >= 0);
            TRY("wake_op", syscall(SYS_futex, &own, FUTEX_WAKE_OP, 0, 0, word, 0) >= 0);
            /* An array of no words would be EINVAL. */
            syscall(NR_FUTEX_WAITV, &wait, 1, 0, &(struct timespec){ 0, 0 }, CLOCK_MONOTONIC);
            TRY("waitv", errno != EPERM && errno != ENOSYS);
            TRY("requeue2", syscall(NR_FUTEX_REQUEUE, NULL, 0, 0, 0) < 0 && errno != ENOSYS);
        }
        if (report[0] != '\0')
            break;
        usleep(500);
    }
    is_waiting = 0;
    for (int i = 0; i < count; i++)
        pthread_join(waiters[i], NULL);
    return answer(ctx);
}

/* --------------------------------------------------------------------------- new processes ---- */

static void end_child(pid_t pid)
{
    if (pid == 0)
        _exit(0);
    if (pid > 0)
        waitpid(pid, NULL, 0);
}

PHR_FUNCTION(forks)
{
    static char *arguments[] = { (char *)(uintptr_t) "true", NULL };
    static const uint64_t clone_arguments[8] = { 0, 0, 0, 0, SIGCHLD, 0, 0, 0 };
    pid_t pid = fork();

    begin();
    TRY("fork", pid >= 0);
    end_child(pid);
    pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    TRY("clone", pid >= 0);
    end_child(pid);
    pid = (pid_t)syscall(NR_CLONE3, clone_arguments, sizeof clone_arguments);
    TRY("clone3", pid >= 0);
    end_child(pid);
    if (posix_spawn(&pid, "/bin/true", NULL, NULL, arguments, arguments) == 0) {
        is_open("spawn");
        end_child(pid);
    }
    TRY("system", system("true") == 0);
    /* A program that is not there: ENOENT would mean that one which is would have been started. */
    execv("/nonexistent", arguments);
    TRY("exec", errno != EPERM);
    return answer(ctx);
}

#define THREADS_MAX 6000

static pthread_mutex_t bomb = PTHREAD_MUTEX_INITIALIZER;

static void *linger(void *nothing)
{
    pthread_mutex_lock(&bomb);
    pthread_mutex_unlock(&bomb);
    return nothing;
}

/* As many threads as there can be; answers how many. */
PHR_FUNCTION(bombs)
{
    static pthread_t threads[THREADS_MAX];
    pthread_attr_t attributes;
    char text[16];
    int count = 0;

    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 16384);
    pthread_mutex_lock(&bomb);
    while (count < THREADS_MAX && pthread_create(&threads[count], &attributes, linger, NULL) == 0)
        count++;
    pthread_mutex_unlock(&bomb);
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    return phr_respond_data(ctx, text, (size_t)snprintf(text, sizeof text, "%d", count));
}

/* In: directories of control groups, a line each. Its own is among them. */
PHR_FUNCTION(leaves_its_group)
{
    static const char *const files[] = { "cgroup.procs",  "cgroup.threads",         "cgroup.kill",
                                         "cgroup.freeze", "cgroup.subtree_control", "memory.max",
                                         "pids.max" };
    char text[4096], path[4096 + 64];
    char *next = text;
    const char *directory;

    begin();
    snprintf(text, sizeof text, "%s", (const char *)phr_data(phr_input(ctx, 0)));
    while ((directory = strsep(&next, "\n")) != NULL && directory[0] != '\0') {
        for (size_t file = 0; file < sizeof files / sizeof *files; file++) {
            int fd;

            snprintf(path, sizeof path, "%s/%s", directory, files[file]);
            fd = open(path, O_WRONLY);
            TRY(path, fd >= 0);
            if (fd >= 0 && file == 0)
                TRY("moved", write(fd, "0", 1) == 1);
            if (fd >= 0)
                close(fd);
        }
        snprintf(path, sizeof path, "%s/deeper", directory);
        TRY(path, mkdir(path, 0700) == 0);
    }
    return answer(ctx);
}

/* ----------------------------------------------------------------------------------- memory --- */

#define BLOCK_BYTES ((size_t)1 << 20)
#define BLOCKS_MAX 1024

/* As much memory as there can be, touched; answers how many MiB. */
PHR_FUNCTION(fills)
{
    static char *blocks[BLOCKS_MAX];
    char text[16];
    int count = 0;

    while (count < BLOCKS_MAX && (blocks[count] = (char *)malloc(BLOCK_BYTES)) != NULL)
        memset(blocks[count++], 1, BLOCK_BYTES);
    for (int i = 0; i < count; i++)
        free(blocks[i]);
    return phr_respond_data(ctx, text, (size_t)snprintf(text, sizeof text, "%d", count));
}

/* Memory that a process's limit does not count, and that may outlive it. */
PHR_FUNCTION(hides)
{
    int id;

    begin();
    TRY("memfd", memfd_create("hidden", 0) >= 0);
    TRY("shared", mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0) !=
                      MAP_FAILED);
    id = shmget(IPC_PRIVATE, 4096, 0600);
    if (id >= 0) {
        is_open("shm");
        shmctl(id, IPC_RMID, NULL);
    }
    id = msgget(IPC_PRIVATE, 0600);
    if (id >= 0) {
        is_open("queue");
        msgctl(id, IPC_RMID, NULL);
    }
    return answer(ctx);
}

/* ----------------------------------------------------------------------------- its own cage --- */

PHR_FUNCTION(breaks_out)
{
    static char parameters[256];

    begin();
    TRY("pdeathsig", prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0) == 0);
    TRY("dumpable", prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
    TRY("ptracer", prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0) == 0);
    TRY("setsid", setsid() >= 0 || errno != EPERM);
    TRY("setpgid", setpgid(0, 0) == 0);
    TRY("personality", personality(ADDR_NO_RANDOMIZE) != -1);
    TRY("unshare", unshare(CLONE_NEWUSER) == 0 || errno != EPERM);
    TRY("mount", mount("none", "/tmp", "tmpfs", 0, NULL) == 0);
    TRY("io_uring", syscall(NR_IO_URING_SETUP, 1, parameters) >= 0);
    TRY("keys", syscall(SYS_keyctl, 0, -3, 1) >= 0);
    TRY("userfaultfd", syscall(SYS_userfaultfd, 1) >= 0);
    TRY("perf", syscall(SYS_perf_event_open, parameters, 0, -1, -1, 0) >= 0);
    return answer(ctx);
}

/* In: a port of the node's on loopback, then the path of its socket. */
PHR_FUNCTION(connects)
{
    const char *text = (const char *)phr_data(phr_input(ctx, 0));
    const char *path = strchr(text, ' ');
    struct sockaddr_in port;
    struct sockaddr_un name;
    int pair[2], fd;

    begin();
    CHECK(path != NULL);
    memset(&port, 0, sizeof port);
    port.sin_family = AF_INET;
    port.sin_port = htons((uint16_t)atoi(text));
    port.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    memset(&name, 0, sizeof name);
    name.sun_family = AF_UNIX;
    snprintf(name.sun_path, sizeof name.sun_path, "%s", path + 1);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    TRY("tcp", fd >= 0 && connect(fd, (struct sockaddr *)&port, sizeof port) == 0);
    fd = socket(AF_INET, SOCK_STREAM, 262 /* IPPROTO_MPTCP */);
    TRY("mptcp", fd >= 0 && connect(fd, (struct sockaddr *)&port, sizeof port) == 0);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    TRY("fastopen", fd >= 0 && sendto(fd, "x", 1, MSG_FASTOPEN | MSG_NOSIGNAL,
                                      (struct sockaddr *)&port, sizeof port) >= 0);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    TRY("unix", fd >= 0);
    TRY("node", fd >= 0 && connect(fd, (struct sockaddr *)&name, sizeof name) == 0);
    TRY("netlink", socket(AF_NETLINK, SOCK_RAW, 0) >= 0);
    TRY("datagrams", socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
    /* Between its own threads it may talk as it likes. */
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    close(pair[0]);
    close(pair[1]);
    return answer(ctx);
}

/* In: a file of somebody else's that all can read. */
PHR_FUNCTION(opens)
{
    const char *foreign = (const char *)phr_data(phr_input(ctx, 0));
    int fd;

    begin();
    TRY("foreign", open(foreign, O_RDONLY) >= 0);
    TRY("passwd", open("/etc/passwd", O_RDONLY) >= 0);
    TRY("root", open("/", O_RDONLY | O_DIRECTORY) >= 0);
    TRY("write", open("written", O_WRONLY | O_CREAT, 0666) >= 0);
    TRY("temporary", open("/tmp/phr-isolation-written", O_WRONLY | O_CREAT | O_EXCL, 0666) >= 0);
    unlink("/tmp/phr-isolation-written");
    /* What it was promised. */
    CHECK(open("app.toml", O_RDONLY) >= 0);
    CHECK(open("/dev/urandom", O_RDONLY) >= 0);
    CHECK(open("/dev/null", O_RDWR) >= 0);
    fd = open("kept/mark", O_RDWR | O_CREAT, 0666);
    CHECK(fd >= 0 && write(fd, "x", 1) == 1);
    return answer(ctx);
}

/* ------------------------------------------------------------------------- what must work ----- */

static void *count_up(void *counter)
{
    for (int i = 0; i < 1000; i++)
        __atomic_add_fetch((int *)counter, 1, __ATOMIC_RELAXED);
    return NULL;
}

/* Threads, timers, memory that grows, moves and shrinks, signals to itself, processors counted:
 * what honest functions do. */
PHR_FUNCTION(lives)
{
    pthread_t threads[4];
    char *text = (char *)malloc((size_t)1 << 20);
    int counter = 0;

    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, count_up, &counter) == 0);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(counter == 4000);
    CHECK(text != NULL);
    memset(text, 'x', (size_t)1 << 20);
    text = (char *)realloc(text, (size_t)16 << 20);
    CHECK(text != NULL && text[1000] == 'x');
    free(text);
    signal(SIGUSR1, SIG_IGN);
    CHECK(raise(SIGUSR1) == 0);
    CHECK(kill(getpid(), SIGUSR1) == 0);
    CHECK(sysconf(_SC_NPROCESSORS_ONLN) > 0);
    CHECK(prctl(PR_SET_NAME, "lives", 0, 0, 0) == 0);
    CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
    CHECK(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0);
    return phr_respond_data(ctx, "well", 4);
}

/* Loading runs inside, too. */
static int fork_at_load;

__attribute__((constructor)) static void loads(void)
{
    const pid_t pid = fork();

    end_child(pid);
    fork_at_load = pid >= 0;
}

PHR_INIT(initializes)
{
    static uint64_t nothing[8];

    (void)ctx;
    syscall(NR_IO_URING_SETUP, 1, nothing);
    return PHR_OK;
}

PHR_FUNCTION(initializes)
{
    begin();
    TRY("constructor", fork_at_load);
    return answer(ctx);
}
