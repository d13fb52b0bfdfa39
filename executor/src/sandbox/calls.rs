//! Which system calls an executor may not make under `standard` and `strict`, as data.
//!
//! What is named here answers EPERM, what the list does not know yet ENOSYS; everything else is
//! the function's own business. The kernel remembers which calls are allowed whatever their
//! arguments and asks the filter for the others only, so that those cost nothing.

use std::collections::BTreeMap;
use std::ops::Range;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

/// The newest call that has been looked at (Linux 6.6). Later ones, and those of the x32 ABI, whose
/// numbers are large, are not there: the C library does without them.
const NEWEST: c_long = libc::SYS_fchmodat2;

/// Refused whatever the arguments.
#[rustfmt::skip]
const NEVER: &[c_long] = &[
    // Other processes: their memory, descriptors and pages. Processes of one app have the same
    // user, and without root all have the node's.
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev,
    libc::SYS_process_madvise, libc::SYS_process_mrelease, libc::SYS_kcmp,
    libc::SYS_pidfd_open, libc::SYS_pidfd_getfd, libc::SYS_pidfd_send_signal, libc::SYS_tkill,
    libc::SYS_move_pages, libc::SYS_migrate_pages,
    // Memory of its own aimed elsewhere in its file.
    libc::SYS_remap_file_pages,
    // Where and how soon it runs: the scheduler's core is the scheduler's.
    libc::SYS_sched_setaffinity, libc::SYS_sched_setscheduler, libc::SYS_sched_setparam,
    libc::SYS_sched_setattr, libc::SYS_setpriority, libc::SYS_ioprio_set,
    // New processes and programs. (clone is among those below; clone3 is not there at all.)
    libc::SYS_execve, libc::SYS_execveat,
    // Leaving the group in which the node finds it; another user, which would forget the wish to
    // die with the zygote.
    libc::SYS_setsid, libc::SYS_setpgid,
    libc::SYS_setuid, libc::SYS_setgid, libc::SYS_setreuid, libc::SYS_setregid,
    libc::SYS_setresuid, libc::SYS_setresgid, libc::SYS_setfsuid, libc::SYS_setfsgid,
    libc::SYS_setgroups, libc::SYS_capset,
    // Sleeping on several words at once, some of them perhaps the scheduler's.
    libc::SYS_futex_waitv,
    // Calls made for it by the kernel, past this filter.
    libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register,
    // Faults answered by programs; programs, and counters, in the kernel; its keys.
    libc::SYS_userfaultfd, libc::SYS_bpf, libc::SYS_perf_event_open,
    libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key,
    // Namespaces and mounts.
    libc::SYS_unshare, libc::SYS_setns, libc::SYS_mount, libc::SYS_umount2,
    libc::SYS_pivot_root, libc::SYS_chroot, libc::SYS_open_tree, libc::SYS_move_mount,
    libc::SYS_fsopen, libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fspick,
    libc::SYS_mount_setattr, libc::SYS_open_by_handle_at, libc::SYS_fanotify_init,
    // Memory that its limit does not count, or that outlives it.
    libc::SYS_memfd_create, libc::SYS_memfd_secret, libc::SYS_shmget, libc::SYS_shmat,
    libc::SYS_msgget, libc::SYS_semget, libc::SYS_mq_open,
    // Being called. (socketpair is among those below.)
    libc::SYS_bind, libc::SYS_listen,
    // The machine itself.
    libc::SYS_reboot, libc::SYS_kexec_load, libc::SYS_init_module, libc::SYS_finit_module,
    libc::SYS_delete_module, libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_acct,
    libc::SYS_syslog, libc::SYS_quotactl, libc::SYS_quotactl_fd, libc::SYS_settimeofday,
    libc::SYS_clock_settime, libc::SYS_clock_adjtime, libc::SYS_adjtimex,
    libc::SYS_sethostname, libc::SYS_setdomainname, libc::SYS_vhangup,
];

/// As above, where the manifest names no ports: sockets lead to the node, and to whoever else
/// trusts this machine or user.
const NEVER_WITHOUT_PORTS: &[c_long] = &[libc::SYS_socket, libc::SYS_connect];

/// As above, where the machine has them.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const NEVER_HERE: &[c_long] = &[
    libc::SYS_fork, libc::SYS_vfork, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt,
    libc::SYS_kexec_file_load,
];
#[cfg(not(target_arch = "x86_64"))]
const NEVER_HERE: &[c_long] = &[];

/// When a call is refused for one of its arguments, of which the lower 32 bits count.
#[derive(Clone, Copy)]
enum When {
    /// It is one of these.
    OneOf(&'static [i32]),
    /// It is none of these.
    NoneOf(&'static [i32]),
    /// Of these bits exactly those are set.
    Bits { of: i32, set: i32 },
    /// It names a process, and not this one.
    Foreign,
}

/// Refused for the value of an argument, which is counted from 0.
#[rustfmt::skip]
const SOMETIMES: &[(c_long, u8, When)] = &[
    // Signals for anybody else.
    (libc::SYS_kill, 0, When::Foreign),
    (libc::SYS_tgkill, 0, When::Foreign),
    (libc::SYS_rt_sigqueueinfo, 0, When::Foreign),
    (libc::SYS_rt_tgsigqueueinfo, 0, When::Foreign),
    // Descriptors that send them: F_SETOWN, F_SETSIG, F_SETOWN_EX; FIOSETOWN, SIOCSPGRP. Typing
    // into a terminal: TIOCSTI, TIOCLINUX.
    (libc::SYS_fcntl, 1, When::OneOf(&[8, 10, 15])),
    (libc::SYS_ioctl, 1, When::OneOf(&[0x8901, 0x8902, 0x5412, 0x541c])),
    // Limits of others; 0 means one's own.
    (libc::SYS_prlimit64, 0, When::Foreign),
    // Processes, as opposed to threads, and namespaces.
    (libc::SYS_clone, 0, When::Bits { of: libc::CLONE_THREAD, set: 0 }),
    (libc::SYS_clone, 0, When::Bits { of: libc::CLONE_NEWNS, set: libc::CLONE_NEWNS }),
    (libc::SYS_clone, 0, When::Bits { of: libc::CLONE_NEWUTS, set: libc::CLONE_NEWUTS }),
    (libc::SYS_clone, 0, When::Bits { of: libc::CLONE_NEWIPC, set: libc::CLONE_NEWIPC }),
    (libc::SYS_clone, 0, When::Bits { of: libc::CLONE_NEWNET, set: libc::CLONE_NEWNET }),
    (libc::SYS_clone, 0, When::Bits { of: libc::CLONE_NEWCGROUP, set: libc::CLONE_NEWCGROUP }),
    // What a process may want of itself: names and timer slack; the rest would take back what the
    // sandbox is made of, the parent-death signal first.
    (libc::SYS_prctl, 0, When::NoneOf(&[
        libc::PR_GET_PDEATHSIG, libc::PR_GET_DUMPABLE, libc::PR_SET_NAME, libc::PR_GET_NAME,
        libc::PR_GET_SECCOMP, libc::PR_CAPBSET_READ, libc::PR_GET_TSC, libc::PR_SET_TIMERSLACK,
        libc::PR_GET_TIMERSLACK, libc::PR_SET_NO_NEW_PRIVS, libc::PR_GET_NO_NEW_PRIVS,
        libc::PR_SET_THP_DISABLE, libc::PR_GET_THP_DISABLE, libc::PR_SET_VMA,
    ])),
    // Words that two processes share are waited on and woken, nothing else: with FUTEX_REQUEUE a
    // mapping that can only be read takes the scheduler's sleep to a word where nobody wakes it.
    (libc::SYS_futex, 1, When::Bits { of: FUTEX_SHARED, set: libc::FUTEX_FD }),
    (libc::SYS_futex, 1, When::Bits { of: FUTEX_SHARED, set: libc::FUTEX_REQUEUE }),
    (libc::SYS_futex, 1, When::Bits { of: FUTEX_SHARED, set: libc::FUTEX_CMP_REQUEUE }),
    (libc::SYS_futex, 1, When::Bits { of: FUTEX_SHARED, set: libc::FUTEX_WAKE_OP }),
    (libc::SYS_futex, 1, When::Bits { of: FUTEX_SHARED, set: libc::FUTEX_LOCK_PI }),
    (libc::SYS_futex, 1, When::Bits { of: FUTEX_SHARED, set: libc::FUTEX_UNLOCK_PI }),
    (libc::SYS_futex, 1, When::Bits { of: FUTEX_SHARED, set: libc::FUTEX_TRYLOCK_PI }),
    (libc::SYS_futex, 1, When::Bits { of: FUTEX_SHARED, set: libc::FUTEX_WAIT_REQUEUE_PI }),
    (libc::SYS_futex, 1, When::Bits { of: FUTEX_SHARED, set: libc::FUTEX_CMP_REQUEUE_PI }),
    (libc::SYS_futex, 1, When::Bits { of: FUTEX_SHARED, set: libc::FUTEX_LOCK_PI2 }),
    // Memory that its limit does not count: shared, and of no file.
    (libc::SYS_mmap, 3, When::Bits { of: SHARED_ANONYMOUS, set: SHARED_ANONYMOUS }),
    // Pages that neighbours use: swapped out, merged, or called broken.
    (libc::SYS_madvise, 2, When::OneOf(&[
        libc::MADV_MERGEABLE, libc::MADV_COLD, libc::MADV_PAGEOUT, libc::MADV_HWPOISON,
        libc::MADV_SOFT_OFFLINE,
    ])),
    // Where the manifest names ports: no families but AF_INET and AF_INET6 (the node's own socket
    // is of AF_UNIX), no protocols but TCP and UDP (ports are kept for TCP alone; MPTCP reaches the
    // same), and no connecting while sending, which is not looked at.
    (libc::SYS_socket, 0, When::NoneOf(&[libc::AF_INET, libc::AF_INET6])),
    (libc::SYS_socket, 2, When::NoneOf(&[0, libc::IPPROTO_TCP, libc::IPPROTO_UDP])),
    (libc::SYS_sendto, 3, When::Bits { of: libc::MSG_FASTOPEN, set: libc::MSG_FASTOPEN }),
    (libc::SYS_sendmsg, 2, When::Bits { of: libc::MSG_FASTOPEN, set: libc::MSG_FASTOPEN }),
    (libc::SYS_sendmmsg, 3, When::Bits { of: libc::MSG_FASTOPEN, set: libc::MSG_FASTOPEN }),
    // A pair of datagram sockets can be sent to others afterwards.
    (libc::SYS_socketpair, 1, When::Bits { of: 0xf, set: libc::SOCK_DGRAM }),
    // Addresses that are easier to guess.
    (libc::SYS_personality, 0, When::NoneOf(&[0, -1])),
];

/// All of an operation on a futex but which clock it means: without FUTEX_PRIVATE_FLAG.
const FUTEX_SHARED: i32 = !libc::FUTEX_CLOCK_REALTIME;
const SHARED_ANONYMOUS: i32 = libc::MAP_SHARED | libc::MAP_ANONYMOUS;

/// The filter of the process `own`, whose app's memory lies in `window`. `connects`: the manifest
/// names ports, which are kept by other means.
///
/// # Errors
/// A machine whose calls have no numbers here.
pub fn filter(
    own: i32,
    window: &Range<u64>,
    connects: bool,
) -> Result<BpfProgram, seccompiler::Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for (call, argument, when) in SOMETIMES {
        let mut add = |conditions: Vec<SeccompCondition>| {
            let rule = SeccompRule::new(conditions)?;
            rules.entry(*call).or_default().push(rule);
            Ok::<_, seccompiler::BackendError>(())
        };
        let is = |operator, value: i32| {
            let value = u64::from(value.cast_unsigned());
            SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, operator, value)
        };
        match *when {
            When::OneOf(values) => {
                for value in values {
                    add(vec![is(SeccompCmpOp::Eq, *value)?])?;
                }
            }
            When::NoneOf(values) => {
                let others = values.iter().map(|value| is(SeccompCmpOp::Ne, *value));
                add(others.collect::<Result<_, _>>()?)?;
            }
            When::Bits { of, set } => {
                let of = u64::from(of.cast_unsigned());
                add(vec![is(SeccompCmpOp::MaskedEq(of), set)?])?;
            }
            When::Foreign if *call == libc::SYS_prlimit64 => {
                add(vec![is(SeccompCmpOp::Ne, own)?, is(SeccompCmpOp::Ne, 0)?])?;
            }
            When::Foreign => add(vec![is(SeccompCmpOp::Ne, own)?])?,
        }
    }
    // The window's mappings stay where and as long as they are; malloc moves its own.
    let address =
        |operator, value| SeccompCondition::new(0, SeccompCmpArgLen::Qword, operator, value);
    let within = vec![
        address(SeccompCmpOp::Ge, window.start)?,
        address(SeccompCmpOp::Lt, window.end)?,
    ];
    rules.insert(libc::SYS_mremap, vec![SeccompRule::new(within)?]);
    for call in NEVER.iter().chain(NEVER_HERE) {
        rules.insert(*call, Vec::new());
    }
    if !connects {
        rules.extend(NEVER_WITHOUT_PORTS.iter().map(|call| (*call, Vec::new())));
    }
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.cast_unsigned()),
        std::env::consts::ARCH.try_into()?,
    )?;
    let mut program = absent().to_vec();
    program.extend(BpfProgram::try_from(filter)?);
    Ok(program)
}

/// Answers that there is no such call: to what is newer than this list, and to clone3, whose flags
/// a filter cannot see, so that the C library falls back to clone.
fn absent() -> [sock_filter; 4] {
    let step = |code: u32, k: u32, jt: u8, jf: u8| sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let number_at = std::mem::offset_of!(libc::seccomp_data, nr) as u32;
    let not_there = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
    [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, number_at, 0, 0),
        step(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            libc::SYS_clone3 as u32,
            1,
            0,
        ),
        step(
            libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K,
            NEWEST as u32,
            0,
            1,
        ),
        step(libc::BPF_RET | libc::BPF_K, not_there, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_compiles_and_is_far_from_the_kernels_limit() {
        let program = filter(1234, &(1 << 40..2 << 40), true).expect("rules that compile");
        // BPF_MAXINSNS is 4096.
        assert!(program.len() < 1024, "{} instructions", program.len());
    }

    #[test]
    fn no_call_is_refused_twice() {
        let always: Vec<_> = NEVER.iter().chain(NEVER_HERE).collect();
        for (at, call) in always.iter().enumerate() {
            assert!(!always[..at].contains(call), "{call} is listed twice");
            assert!(
                SOMETIMES.iter().all(|(other, ..)| other != *call),
                "{call} is in both lists"
            );
            assert!(**call <= NEWEST);
        }
    }
}
