//! A pid namespace, whose first process the zygote is: when it dies, and it dies with the node, the
//! kernel kills everybody else there at once, whatever functions have forked among them.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sched::{CloneFlags, setns, unshare};

/// Where the children of the calling thread are.
const OF_CHILDREN: &str = "/proc/thread-self/ns/pid_for_children";

/// Whether this process may make a pid namespace. It may not make a user namespace for that:
/// functions would have users that nobody outside knows.
pub fn is_allowed() -> bool {
    // In a thread of its own, which takes along what could not be taken back.
    let tries = || around(|| Ok(())).is_ok();
    let thread = std::thread::Builder::new().spawn(tries);
    thread.is_ok_and(|thread| thread.join().unwrap_or(false))
}

/// Does what starts one process, the first of a new pid namespace. This thread itself stays where
/// it is.
///
/// # Errors
/// What the kernel said, or `start`.
pub fn around<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let own = File::open(OF_CHILDREN)?;
    let refused = |error| io::Error::other(format!("making a pid namespace: {error}"));
    unshare(CloneFlags::CLONE_NEWPID).map_err(refused)?;
    let started = start();
    // Else nothing could be started by this thread once the process has ended.
    setns(own, CloneFlags::CLONE_NEWPID).map_err(refused)?;
    started
}

/// The number that a process has here, whatever it has in its own namespace; `None`: it has been
/// reaped.
pub fn pid_here(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    pid_in(&fs::read_to_string(path).ok()?)
}

/// The field `Pid` of a pidfd's information (pidfd_open(2)): -1 for one that is gone, 0 for one
/// that cannot be seen here.
fn pid_in(information: &str) -> Option<i32> {
    let mut lines = information.lines();
    let pid = lines.find_map(|line| line.strip_prefix("Pid:"))?;
    pid.trim().parse().ok().filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::child::Child;

    #[test]
    fn numbers_are_those_of_this_namespace() {
        assert_eq!(pid_in("pos:\t0\nPid:\t17\nNSpid:\t17\t3\n"), Some(17));
        for gone in ["", "pos:\t0\n", "Pid:\t-1\n", "Pid:\t0\n", "Pid:\tx\n"] {
            assert_eq!(pid_in(gone), None);
        }
    }

    #[test]
    fn whoever_is_in_a_namespace_dies_with_its_first_process() {
        if !is_allowed() {
            println!("left out: this process may not make a pid namespace");
            return;
        }
        let (read, write) = rustix::pipe::pipe().unwrap();
        // The daemon has left its parent's session, and holds the pipe until it dies.
        let script = "test $$ = 1 || exit 9; setsid sleep 1000 & sleep 1000";
        let start = || Child::start(Path::new("/bin/sh"), "sh", &["-c", script], &[&write]);
        let child = around(start).unwrap();
        drop(write);
        assert_eq!(pid_here(child.pidfd().as_fd()), Some(child.pid()));
        assert!(!child.is_dead_within(Duration::from_millis(50)));
        child.kill();
        assert!(child.is_dead_within(Duration::from_secs(20)));
        assert_eq!(rustix::io::read(&read, &mut [0; 1]), Ok(0));
        child.reap();
        assert_eq!(pid_here(child.pidfd().as_fd()), None);
        // This thread's own children are where they were.
        let child = Child::start(Path::new("/bin/sh"), "sh", &["-c", "test $$ != 1"], &[]);
        let child = child.unwrap();
        assert!(child.is_dead_within(Duration::from_secs(20)));
        assert_eq!(child.reap().code, Some(0));
    }
}
