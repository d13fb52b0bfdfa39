//! The zygote's fork, whose child lives in its app's control group from its first instruction.
//!
//! A process that is moved after its fork is there as well, but the kernel stops every fork and
//! exit of the machine meanwhile, for a grace period: measured, 7 to 11 ms, where all of an
//! executor's start takes 2.5. clone3(2) with CLONE_INTO_CGROUP takes what a fork takes. The C
//! library's fork cannot ask for it; what that does beside the system call in a process with one
//! thread is done here: the child's thread id where the library keeps it, and its list of robust
//! mutexes. Where that is not possible, the child is forked as usual and joins by itself.
//!
//! The child dies at once where one of its group and the zygote's has been killed before, or one
//! more often: the kernel (Linux 6.18) takes it for one that was about to escape.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::unistd::ForkResult;
use rustix::fs::{Mode, OFlags};

/// `CLONE_INTO_CGROUP` of clone(2), which does not fit the library's type for flags.
const INTO_CGROUP: u64 = 1 << 33;

/// What has become of a fork.
pub enum Forked {
    /// This is the zygote, and the child has this process id.
    Parent(i32),
    /// This is the child.
    Child {
        /// It is not in the control group yet: see [`join`].
        joins: bool,
    },
}

/// Forks, into a control group where one is given by its directory.
///
/// # Errors
/// What the kernel said.
///
/// # Safety
/// The process has one thread, or the child does only what a signal handler may do.
pub unsafe fn fork(group: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    if let Some(group) = group {
        // SAFETY: the caller's promise is the same.
        match unsafe { fork_into(group) } {
            Ok(forked) => return Ok(forked),
            Err(error) if !is_unknown(&error) => return Err(error),
            Err(_) => {}
        }
    }
    // SAFETY: the caller's promise is the same.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => Ok(Forked::Child {
            joins: group.is_some(),
        }),
        ForkResult::Parent { child } => Ok(Forked::Parent(child.as_raw())),
    }
}

/// Moves the calling process into the control group whose directory this is.
///
/// # Errors
/// What the kernel said.
pub fn join(group: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let members = rustix::fs::openat(group, "cgroup.procs", flags, Mode::empty())?;
    // Whoever writes 0 means itself.
    rustix::io::write(&members, b"0")?;
    Ok(())
}

/// Whether the kernel, or a filter of a container's, does not know the call or its flag, rather
/// than refusing this fork.
fn is_unknown(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOSYS | libc::EPERM | libc::EINVAL | libc::E2BIG)
    )
}

/// A fork by clone3.
///
/// # Safety
/// As [`fork`].
unsafe fn fork_into(group: BorrowedFd<'_>) -> io::Result<Forked> {
    let Some(thread_id) = thread_id_word() else {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    };
    let robust = robust_list()?;
    // As fork(3) does it: the kernel writes the child's id, in the child, where the library has
    // this thread's.
    let flags = libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID;
    let arguments = libc::clone_args {
        flags: flags as u64 | INTO_CGROUP,
        pidfd: 0,
        child_tid: thread_id as u64,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: group.as_raw_fd() as u64,
    };
    let size = std::mem::size_of::<libc::clone_args>();
    // SAFETY: nothing is shared with the child, which goes on with a copy of this stack, as after
    // fork; the word it writes is the library's own, in its own memory.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size) };
    match pid {
        ..0 => Err(io::Error::last_os_error()),
        0 => {
            set_robust_list(robust);
            Ok(Forked::Child { joins: false })
        }
        // Process ids are far smaller.
        child => Ok(Forked::Parent(child as i32)),
    }
}

/// Where the C library keeps this thread's id: glibc has the kernel clear that word when the thread
/// ends. `None` where the kernel does not tell, or the library uses it for something else.
fn thread_id_word() -> Option<*mut libc::pid_t> {
    let mut word: *mut libc::pid_t = std::ptr::null_mut();
    // SAFETY: the kernel writes one address to where the argument points.
    let told = unsafe { libc::prctl(libc::PR_GET_TID_ADDRESS, &raw mut word) };
    if told != 0 || word.is_null() {
        return None;
    }
    // SAFETY: the word is the library's, and lives as long as this thread, which is the only one.
    let holds = unsafe { word.read_volatile() };
    let own = rustix::thread::gettid().as_raw_nonzero().get();
    (holds == own).then_some(word)
}

/// The head of this thread's list of robust mutexes, which a child does not inherit, and its size.
fn robust_list() -> io::Result<(usize, usize)> {
    let (mut head, mut size) = (0_usize, 0_usize);
    // SAFETY: the kernel writes an address and a size to where the arguments point.
    let told = unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut size) };
    if told < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((head, size))
}

/// Sets what [`robust_list`] gave in the parent. A refusal leaves the thread without such a list,
/// as it began.
fn set_robust_list((head, size): (usize, usize)) {
    if head != 0 {
        // SAFETY: the list is the library's own, at the same address in this copy of its memory.
        let _ = unsafe { libc::syscall(libc::SYS_set_robust_list, head, size) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_keeps_the_threads_id_where_the_kernel_clears_it() {
        if let Some(word) = thread_id_word() {
            assert!(!word.is_null());
        } else {
            println!("not here: executors join their groups after their fork");
        }
        let (head, size) = robust_list().expect("a list, or none");
        assert_eq!(head == 0, size == 0);
    }
}
