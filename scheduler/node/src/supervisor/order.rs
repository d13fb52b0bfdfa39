//! What the supervisor is told, and how.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use rustix::event::EventfdFlags;

use crate::app::Version;
use crate::cgroup::Limits;
use crate::error::NodeError;

/// What the supervisor is told.
pub enum Order {
    /// An app has come; its executors will be asked for.
    AddApp {
        /// Which.
        version: Arc<Version>,
        /// What executors are told of it, encoded, in a memfd.
        program: OwnedFd,
        /// Bytes of it.
        program_bytes: u64,
        /// Read-only descriptors of its regions.
        regions: Vec<OwnedFd>,
        /// What its executors may take together.
        limits: Limits,
    },
    /// Start a process.
    Spawn {
        /// Whose.
        app: u16,
        /// Slot.
        slot: u16,
        /// Which scheduler's it is.
        scheduler: u8,
        /// Number among the executors' cores.
        core: u16,
    },
    /// Kill a process.
    Kill {
        /// Whose.
        app: u16,
        /// Slot.
        slot: u16,
        /// Which process of the slot.
        incarnation: u32,
        /// Why.
        why: String,
    },
    /// Kill all processes of an app.
    KillApp {
        /// Whose.
        app: u16,
        /// Why.
        why: String,
    },
    /// Answer by [`Command::Tail`](crate::gateway::Command::Tail) with an executor's last lines.
    Tail {
        /// Whose.
        app: u16,
        /// Slot.
        slot: u16,
        /// The invocation of interest.
        invocation: u64,
        /// Comes back.
        request: u64,
    },
    /// An app has gone.
    Forget {
        /// Which.
        app: u16,
    },
    /// End everything and leave. Whatever had to be killed is an error.
    Stop {
        /// Told when all is done.
        done: Sender<Result<(), NodeError>>,
    },
}

/// How other threads talk to the supervisor.
#[derive(Clone)]
pub struct SupervisorHandle {
    pub(super) orders: Sender<Order>,
    pub(super) wake: Arc<OwnedFd>,
}

impl SupervisorHandle {
    /// A handle, and what the supervisor takes its orders from.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new() -> io::Result<(Self, Inbox)> {
        let (orders, receiver) = crossbeam_channel::unbounded();
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = Arc::new(rustix::event::eventfd(0, flags)?);
        let inbox = Inbox {
            orders: receiver,
            wake: Arc::clone(&wake),
        };
        Ok((Self { orders, wake }, inbox))
    }

    /// Gives an order. Where the supervisor has left, nothing is left to order.
    pub fn tell(&self, order: Order) {
        if self.orders.send(order).is_ok() {
            // The counter cannot overflow: the reader resets it, and it takes 2^64 orders.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }
}

/// Where orders come in.
pub struct Inbox {
    pub(super) orders: Receiver<Order>,
    pub(super) wake: Arc<OwnedFd>,
}
