/*
 * unprivileged.c - runs a command as in a container without privileges.
 *
 *     launcher COMMAND [ARGUMENT ...]
 *
 * Started by root it becomes uid and gid 65534 first. New namespaces, mounts and io_uring answer
 * EPERM, clone3 answers ENOSYS (its flags cannot be looked at; the C library falls back to clone),
 * as container runtimes have it. It looks itself whether all that holds, and exits with 125 where
 * it does not.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#elif defined(__riscv) && __riscv_xlen == 64
#define ARCHITECTURE AUDIT_ARCH_RISCV64
#else
#error "name the architecture's AUDIT_ARCH_ here"
#endif

#define NOBODY 65534
#define REFUSED 125

#define NAMESPACES                                                                                 \
    (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID |  \
     CLONE_NEWNET)

#define LOAD(field)                                                                                \
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offsetof(struct seccomp_data, field))
#define ANSWER(error) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (error))
/* A call by its number, refused with EPERM. */
#define REFUSE(call)                                                                               \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (call), 0, 1), ANSWER(EPERM)

static struct sock_filter filter[] = {
    LOAD(arch),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0),
    ANSWER(ENOSYS),
    LOAD(nr),
    REFUSE(SYS_unshare),
    REFUSE(SYS_setns),
    REFUSE(SYS_mount),
    REFUSE(SYS_umount2),
    REFUSE(SYS_pivot_root),
    REFUSE(SYS_io_uring_setup),
    REFUSE(SYS_io_uring_enter),
    REFUSE(SYS_io_uring_register),
    REFUSE(SYS_bpf),
    REFUSE(SYS_perf_event_open),
    REFUSE(SYS_keyctl),
    REFUSE(SYS_userfaultfd),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1),
    ANSWER(ENOSYS),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 3),
    LOAD(args[0]), /* the lower half on a little-endian machine: all flags are there */
    BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, NAMESPACES, 0, 1),
    ANSWER(EPERM),
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
    char parameters[120] = { 0 }; /* struct io_uring_params */

    if (count < 2) {
        fprintf(stderr, "usage: launcher COMMAND [ARGUMENT ...]\n");
        return REFUSED;
    }
    if (geteuid() == 0 &&
        (setgroups(0, NULL) != 0 || setresgid(NOBODY, NOBODY, NOBODY) != 0 ||
         setresuid(NOBODY, NOBODY, NOBODY) != 0))
        return fail("cannot become an ordinary user");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return fail("cannot give up new privileges");
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0)
        return fail("cannot install the filter");
    if (geteuid() == 0 || unshare(CLONE_NEWUSER) == 0 || errno != EPERM ||
        syscall(SYS_io_uring_setup, 1, parameters) != -1 || errno != EPERM ||
        syscall(SYS_clone, CLONE_NEWUSER | CLONE_NEWPID, NULL, NULL, NULL, NULL) != -1 ||
        errno != EPERM) {
        fprintf(stderr, "launcher: what must be refused is not\n");
        return REFUSED;
    }
    execvp(arguments[1], arguments + 1);
    return fail(arguments[1]);
}
