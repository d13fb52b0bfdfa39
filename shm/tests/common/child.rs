//! Processes of a test's own. The tests of executors use this file, too.
#![allow(dead_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// Seconds after which a hanging process ends itself: a watchdog, never a measure of speed.
pub const WATCHDOG_SECONDS: u32 = 300;

/// A process of the test's own; killed when dropped.
pub struct Child(Option<Pid>);

/// Runs something in a process of its own. It ends with status 0, or 101 after a panic.
pub fn in_child(run: impl FnOnce()) -> Child {
    // SAFETY: the child runs test code only and leaves by `_exit`; the C library keeps its own
    // locks consistent over a fork.
    match unsafe { fork() }.expect("a process") {
        ForkResult::Parent { child } => Child(Some(child)),
        ForkResult::Child => {
            nix::unistd::alarm::set(WATCHDOG_SECONDS);
            let ended = catch_unwind(AssertUnwindSafe(run));
            // SAFETY: ends this process at once, as is wanted.
            unsafe { libc::_exit(if ended.is_ok() { 0 } else { 101 }) }
        }
    }
}

impl Child {
    pub fn pid(&self) -> Pid {
        self.0.expect("it has not been waited for")
    }

    /// How it ended.
    pub fn wait(mut self) -> WaitStatus {
        let pid = self.0.take().expect("it has not been waited for");
        waitpid(pid, None).expect("a child of this process")
    }

    /// It ended without a panic.
    pub fn wait_ok(self) {
        let status = self.wait();
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
    }

    /// It ended by this signal.
    pub fn wait_signal(self, signal: Signal) {
        let status = self.wait();
        assert!(
            matches!(status, WaitStatus::Signaled(_, by, _) if by == signal),
            "{status:?}"
        );
    }

    pub fn kill(self) {
        let pid = self.pid();
        kill(pid, Signal::SIGKILL).expect("a child of this process");
        self.wait();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(pid) = self.0.take() {
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, None);
        }
    }
}
