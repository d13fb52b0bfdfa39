/*
 * without_landlock.c - runs a command as on a kernel without Landlock.
 *
 *     launcher COMMAND [ARGUMENT ...]
 *
 * Landlock's system calls answer ENOSYS. It looks itself whether they do, and exits with 125 where
 * they do not.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REFUSED 125

/* The numbers are the same on every architecture; older headers do not have them. */
#define LANDLOCK_FIRST 444
#define LANDLOCK_LAST 446

static struct sock_filter filter[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offsetof(struct seccomp_data, nr)),
    BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, LANDLOCK_FIRST, 0, 2),
    BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, LANDLOCK_LAST, 1, 0),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
};

static int fail(const char *what)
{
    fprintf(stderr, "launcher: %s: %s\n", what, strerror(errno));
    return REFUSED;
}

int main(int count, char **arguments)
{
    const struct sock_fprog program = { sizeof filter / sizeof *filter, filter };

    if (count < 2) {
        fprintf(stderr, "usage: launcher COMMAND [ARGUMENT ...]\n");
        return REFUSED;
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return fail("cannot give up new privileges");
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0)
        return fail("cannot install the filter");
    if (syscall(LANDLOCK_FIRST, NULL, 0, 1) != -1 || errno != ENOSYS) {
        fprintf(stderr, "launcher: Landlock is there\n");
        return REFUSED;
    }
    execvp(arguments[1], arguments + 1);
    return fail(arguments[1]);
}
