//! What the tests of shared memory need: other processes, and random numbers that can be repeated.
#![allow(dead_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use pheromone_shm::control::{ControlFiles, ExecutorEnd, SchedulerEnd};
use pheromone_shm::doorbell::Bell;
use pheromone_shm::file::reopen_read_only;
use pheromone_shm::message::Extent;

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

/// Files of one executor process and the page of its scheduler.
pub struct Control {
    pub files: ControlFiles,
    pub bell: Bell,
    pub colour: u16,
    pub generation: u32,
}

impl Control {
    pub fn new(colour: u16, generation: u32) -> Self {
        Self {
            files: ControlFiles::create("test").expect("memfds"),
            bell: Bell::create().expect("a memfd"),
            colour,
            generation,
        }
    }

    pub fn scheduler(&self) -> SchedulerEnd {
        let (up, down) = (self.files.up.as_fd(), self.files.down.as_fd());
        SchedulerEnd::map(up, down, self.colour, self.generation).expect("mappings")
    }

    /// The executor's end, through descriptors that can write no more than an executor's.
    pub fn executor(&self) -> ExecutorEnd {
        let down = read_only(self.files.down.as_fd());
        let node = read_only(self.bell.fd());
        let up = self.files.up.as_fd();
        ExecutorEnd::map(up, down.as_fd(), node.as_fd(), self.colour, self.generation)
            .expect("mappings")
    }
}

pub fn read_only(file: impl AsFd) -> OwnedFd {
    reopen_read_only(file.as_fd()).expect("a descriptor")
}

pub fn extent(offset_units: u32, len_units: u32) -> Extent {
    Extent {
        offset_units,
        len_units,
    }
}

/// Numbers that look random and are the same in every run (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below this number.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}
