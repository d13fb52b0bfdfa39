//! The node's way to one scheduler: the link, the control socket, and what waits to go there.

use std::io;
use std::os::fd::OwnedFd;

use pheromone_scheduler::protocol::{Control, ToScheduler};
use pheromone_shm::control::Garbled;
use pheromone_shm::link::LinkEnd;

use crate::outgoing::Outgoing;

/// One way.
pub struct Way {
    link: LinkEnd,
    control: OwnedFd,
    outgoing: Outgoing,
    /// The scheduler has said that it is ready.
    pub ready: bool,
}

impl Way {
    /// Over which nothing has been said yet.
    pub fn new(link: LinkEnd, control: OwnedFd) -> Self {
        Self {
            link,
            control,
            outgoing: Outgoing::default(),
            ready: false,
        }
    }

    /// Says something, now or when there is room.
    pub fn tell(&mut self, message: &ToScheduler<'_>) {
        self.outgoing.message(message, &mut self.link);
    }

    /// The same of a message that is encoded already.
    pub fn tell_bytes(&mut self, message: &[u8]) {
        self.outgoing.bytes(message, &mut self.link);
    }

    /// Hands descriptors over with a packet.
    ///
    /// # Errors
    /// A packet that can never be sent.
    pub fn tell_with(&mut self, message: &Control, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        self.outgoing.packet(message, descriptors);
        self.flush()
    }

    /// Sends what there is room for.
    ///
    /// # Errors
    /// A packet that can never be sent.
    pub fn flush(&mut self) -> io::Result<()> {
        self.outgoing.flush(&mut self.link, &self.control)
    }

    /// Wakes the scheduler if anything has gone out since it was last woken.
    pub fn wake(&mut self) {
        self.outgoing.wake(&self.link);
    }

    /// How much waits for room.
    pub fn waiting(&self) -> usize {
        self.outgoing.len()
    }

    /// Lets go of all that waits.
    pub fn clear(&mut self) {
        self.outgoing.clear();
    }

    /// Whether the scheduler has said something.
    pub fn has_message(&self) -> bool {
        self.link.has_message()
    }

    /// Takes what it has said next.
    ///
    /// # Errors
    /// [`Garbled`]: a bug at the other end.
    pub fn receive(&mut self, into: &mut Vec<u8>) -> Result<bool, Garbled> {
        self.link.receive(into)
    }
}
