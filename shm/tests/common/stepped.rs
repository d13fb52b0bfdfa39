//! A process that is run one machine instruction at a time. The tests of executors use this file,
//! too.
#![allow(dead_code)]

use nix::sys::ptrace;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitStatus, waitpid};

use super::child::{Child, in_child};

/// A child that is stopped; killed when dropped.
pub struct Stepped(Child);

impl Stepped {
    /// Runs something in a process of its own, up to where it stops itself (`SIGSTOP`).
    pub fn start(run: impl FnOnce()) -> Self {
        let child = in_child(|| {
            ptrace::traceme().expect("a parent that traces");
            run();
            // Tells the tracer that it is over.
            raise(Signal::SIGUSR1).expect("a signal");
        });
        let stepped = Self(child);
        assert_eq!(stepped.stopped(), Signal::SIGSTOP);
        stepped
    }

    /// Lets it run one instruction. False: what it runs is over.
    pub fn step(&mut self) -> bool {
        ptrace::step(self.0.pid(), None).expect("a stopped child");
        match self.stopped() {
            Signal::SIGTRAP => true,
            Signal::SIGUSR1 => false,
            other => panic!("the child stopped by {other}"),
        }
    }

    /// Kills it where it is.
    pub fn kill(self) {
        self.0.kill();
    }

    fn stopped(&self) -> Signal {
        match waitpid(self.0.pid(), None).expect("a child") {
            WaitStatus::Stopped(_, signal) => signal,
            other => panic!("{other:?}"),
        }
    }
}
