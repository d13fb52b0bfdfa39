//! What waits to be told to the scheduler, in order, over the two ways that lead there.
//!
//! Whatever has descriptors goes as a packet over the control socket, and a nudge in the link
//! announces it: the scheduler reads exactly one packet for each nudge and waits for it, so a nudge
//! goes out when, and only when, its packet has.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use pheromone_scheduler::protocol::{Control, ToScheduler};
use pheromone_shm::link::LinkEnd;

use crate::packet::{self, Sent};

/// Messages and packets that have not gone out yet.
#[derive(Default)]
pub struct Outgoing {
    waiting: VecDeque<Item>,
    /// Something has gone into the link since the scheduler was last woken.
    written: bool,
}

enum Item {
    Message(Vec<u8>),
    Packet(Vec<u8>, Vec<OwnedFd>),
}

impl Outgoing {
    /// How much waits.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Lets go of all that waits.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Sends a message, or keeps it until there is room for it and what came before it.
    pub fn message(&mut self, message: &ToScheduler<'_>, link: &mut LinkEnd) {
        self.bytes(&encode(message), link);
    }

    /// The same of a message that is encoded already.
    pub fn bytes(&mut self, bytes: &[u8], link: &mut LinkEnd) {
        if self.waiting.is_empty() && link.try_send(bytes).is_ok() {
            self.written = true;
        } else {
            self.waiting.push_back(Item::Message(bytes.to_vec()));
        }
    }

    /// Puts a packet behind what waits; [`Outgoing::flush`] sends it.
    pub fn packet(&mut self, message: &Control, descriptors: Vec<OwnedFd>) {
        let bytes = postcard::to_allocvec(message).expect("messages of numbers always encode");
        self.waiting.push_back(Item::Packet(bytes, descriptors));
    }

    /// Sends what there is room for.
    ///
    /// # Errors
    /// A packet that can never be sent, for another reason than that the scheduler is gone.
    pub fn flush(&mut self, link: &mut LinkEnd, control: impl AsFd) -> io::Result<()> {
        while let Some(front) = self.waiting.front() {
            match front {
                Item::Message(bytes) => {
                    if link.try_send(bytes).is_err() {
                        return Ok(());
                    }
                    self.waiting.pop_front();
                    self.written = true;
                }
                Item::Packet(bytes, descriptors) => {
                    let borrowed: Vec<BorrowedFd<'_>> =
                        descriptors.iter().map(AsFd::as_fd).collect();
                    match packet::send(control.as_fd(), bytes, &borrowed)? {
                        Sent::Whole => {
                            self.waiting[0] = Item::Message(encode(&ToScheduler::Control));
                        }
                        Sent::NotNow => return Ok(()),
                        // The scheduler is dead, of which the supervisor will tell.
                        Sent::NoPeer => drop(self.waiting.pop_front()),
                    }
                }
            }
        }
        Ok(())
    }

    /// Wakes the scheduler if anything has gone into the link since it was last woken.
    pub fn wake(&mut self, link: &LinkEnd) {
        if std::mem::take(&mut self.written) {
            link.wake_peer_if_asleep();
        }
    }
}

/// A message's bytes.
pub fn encode(message: &ToScheduler<'_>) -> Vec<u8> {
    postcard::to_allocvec(message).expect("numbers and bytes always encode")
}

#[cfg(test)]
mod tests {
    use pheromone_shm::doorbell::{Bell, BellRope};
    use pheromone_shm::link::{Link, NodeRope};

    use super::*;

    const DEPLOY: Control = Control::Deploy {
        app: 7,
        spec_bytes: 0,
    };

    /// Both ends of both ways, without a scheduler.
    struct Ways {
        link: LinkEnd,
        scheduler: LinkEnd,
        control: OwnedFd,
        theirs: Option<OwnedFd>,
    }

    impl Ways {
        fn new() -> Self {
            let bell = Bell::create().unwrap();
            let file = Link::create().unwrap();
            let (control, theirs) = packet::pair().unwrap();
            let rope = NodeRope::map(NodeRope::create().unwrap().as_fd()).unwrap();
            Self {
                link: Link::node_end(file.as_fd(), BellRope::map(bell.fd()).unwrap()).unwrap(),
                scheduler: Link::scheduler_end(file.as_fd(), rope).unwrap(),
                control,
                theirs: Some(theirs),
            }
        }

        /// What has come through the link, as its kinds.
        fn heard(&mut self) -> Vec<&'static str> {
            let (mut bytes, mut heard) = (Vec::new(), Vec::new());
            while self.scheduler.receive(&mut bytes).unwrap() {
                heard.push(match postcard::from_bytes(&bytes).unwrap() {
                    ToScheduler::Control => "nudge",
                    ToScheduler::Remove { .. } => "remove",
                    other => panic!("{other:?}"),
                });
            }
            heard
        }

        fn takes_packet(&self) -> bool {
            let theirs = self.theirs.as_ref().unwrap();
            packet::receive(theirs, &mut [0; 4096]).unwrap().is_some()
        }
    }

    #[test]
    fn a_packet_is_announced_in_its_place_among_the_messages() {
        let mut ways = Ways::new();
        let mut outgoing = Outgoing::default();
        outgoing.packet(&DEPLOY, Vec::new());
        outgoing.message(&ToScheduler::Remove { app: 7 }, &mut ways.link);
        assert_eq!(outgoing.len(), 2);
        outgoing.flush(&mut ways.link, &ways.control).unwrap();
        assert_eq!(outgoing.len(), 0);
        assert_eq!(ways.heard(), ["nudge", "remove"]);
        assert!(ways.takes_packet() && !ways.takes_packet());
    }

    #[test]
    fn a_packet_that_cannot_go_out_now_is_not_announced_and_holds_what_follows() {
        let mut ways = Ways::new();
        while packet::send(&ways.control, &[0; 4096], &[]).unwrap() == Sent::Whole {}
        let mut outgoing = Outgoing::default();
        outgoing.packet(&DEPLOY, Vec::new());
        outgoing.message(&ToScheduler::Remove { app: 7 }, &mut ways.link);
        outgoing.flush(&mut ways.link, &ways.control).unwrap();
        assert_eq!((outgoing.len(), ways.heard().len()), (2, 0));
        while ways.takes_packet() {}
        outgoing.flush(&mut ways.link, &ways.control).unwrap();
        assert_eq!(ways.heard(), ["nudge", "remove"]);
        assert!(ways.takes_packet());
    }

    #[test]
    fn a_packet_that_nobody_will_take_is_not_announced() {
        let mut ways = Ways::new();
        ways.theirs = None;
        let mut outgoing = Outgoing::default();
        outgoing.packet(&DEPLOY, Vec::new());
        outgoing.message(&ToScheduler::Remove { app: 7 }, &mut ways.link);
        outgoing.flush(&mut ways.link, &ways.control).unwrap();
        assert_eq!(outgoing.len(), 0);
        assert_eq!(ways.heard(), ["remove"]);
    }

    #[test]
    fn a_packet_that_can_never_be_sent_is_an_error_and_not_announced() {
        let mut ways = Ways::new();
        let mut outgoing = Outgoing::default();
        let bell = Bell::create().unwrap();
        let copy = || bell.fd().try_clone_to_owned().unwrap();
        outgoing.packet(&DEPLOY, (0..300).map(|_| copy()).collect());
        assert!(outgoing.flush(&mut ways.link, &ways.control).is_err());
        assert!(ways.heard().is_empty());
    }
}
