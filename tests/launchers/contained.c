/*
 * contained.c - runs a command as in a container of the usual kind.
 *
 *     launcher COMMAND [ARGUMENT ...]
 *
 * No namespaces can be made (unshare is EPERM), and clone3 is said not to be there (ENOSYS). It
 * looks itself whether that is so, and exits with 125 where it is not.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REFUSED 125

/* The same on every architecture; older headers do not have it. */
#define NR_CLONE3 435

static struct sock_filter filter[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offsetof(struct seccomp_data, nr)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_unshare, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NR_CLONE3, 0, 1),
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
    if (unshare(CLONE_NEWPID) != -1 || errno != EPERM) {
        fprintf(stderr, "launcher: namespaces can be made\n");
        return REFUSED;
    }
    if (syscall(NR_CLONE3, NULL, 0) != -1 || errno != ENOSYS) {
        fprintf(stderr, "launcher: clone3 is there\n");
        return REFUSED;
    }
    execvp(arguments[1], arguments + 1);
    return fail(arguments[1]);
}
