//! Large dead objects of an executor that is busy: its memory goes back to the machine without it.
//!
//! An owner takes what it is given back when it creates or sends something, or returns. One that
//! computes for seconds does not, and would keep gigabytes from everybody. So what a busy owner has
//! left in its release ring for a while is withdrawn, the node punches the large extents (this
//! process makes no such call: each punch interrupts every core that has the pages mapped), and the
//! owner is given them afterwards, as holes. From the withdrawal to the node's answer an extent is
//! nobody's; a death of its owner is handled after the answer, so that no successor has it either.

use pheromone_core::event::{AppId, ExecutorId};
use pheromone_shm::control::PUNCHED_PER_SLOT;
use pheromone_shm::limits::PAGE_UNITS;
use pheromone_shm::message::Extent;

use crate::outbox::Outbox;
use crate::peers::Peer;
use crate::protocol::{RELEASES_PER_MESSAGE_MAX, ToNode};

/// Shortest extent that is worth a punch: 64 KiB.
pub const LARGE_UNITS: u32 = 16 * PAGE_UNITS;
/// How long an owner may leave them in its ring: it is busy, and does not come by.
const UNTAKEN_NS: u64 = 10_000_000;

/// What has been taken back from an owner's release ring.
#[derive(Debug, Default)]
pub struct Withdrawn {
    /// Large extents may be in its ring, or wait for room there.
    watched: bool,
    /// What it had taken when it was last looked at.
    taken: u64,
    /// Not worth a punch: given back when it comes by.
    small: Vec<Extent>,
    /// Punched, and without room in its ring until now.
    punched: Vec<Extent>,
    /// With the node.
    under_way: usize,
}

impl Withdrawn {
    /// Whether some of its memory is in the node's hands.
    pub fn is_under_way(&self) -> bool {
        self.under_way > 0
    }

    fn is_over(&self) -> bool {
        !self.watched && self.small.is_empty() && self.punched.is_empty()
    }
}

/// Owners that are looked at.
#[derive(Debug, Default)]
pub struct Reclaim {
    owners: Vec<ExecutorId>,
    /// When they are looked at next; 0: not yet known.
    due_ns: u64,
}

impl Reclaim {
    /// A busy owner is given a large extent back.
    pub fn watch(&mut self, owner: ExecutorId, peer: &mut Peer) {
        if !peer.withdrawn.watched {
            peer.withdrawn.watched = true;
            peer.withdrawn.taken = peer.end.releases_taken().0;
            self.add(owner);
        }
    }

    fn add(&mut self, owner: ExecutorId) {
        if !self.owners.contains(&owner) {
            self.owners.push(owner);
        }
    }

    /// Whether there is anybody to look at.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.owners.is_empty()
    }
}

impl Outbox {
    /// Looks at owners that may have no time, now and then.
    #[cold]
    pub fn reclaim(&mut self, now_ns: u64) {
        if now_ns < self.reclaim.due_ns {
            return;
        }
        let is_first = self.reclaim.due_ns == 0;
        self.reclaim.due_ns = now_ns.saturating_add(UNTAKEN_NS);
        if is_first {
            return;
        }
        for owner in std::mem::take(&mut self.reclaim.owners) {
            self.look_at(owner);
        }
        if self.reclaim.is_idle() {
            self.reclaim.due_ns = 0;
        }
        self.flush();
    }

    fn look_at(&mut self, owner: ExecutorId) {
        let Some(peer) = self.peers.get(owner) else {
            return;
        };
        let (taken, is_left) = peer.end.releases_taken();
        let comes_by = std::mem::replace(&mut peer.withdrawn.taken, taken) != taken;
        let mut large = Vec::new();
        if comes_by || !is_left || !peer.is_busy() {
            // What has come since stays watched, for an owner that comes by for the last time.
            peer.withdrawn.watched &= is_left && peer.is_busy();
            peer.give_withdrawn();
        } else if peer.withdrawn.watched {
            large = peer.withdraw();
        }
        if !peer.withdrawn.is_over() {
            self.reclaim.add(owner);
        }
        self.have_punched(owner, &large);
    }

    fn have_punched(&mut self, owner: ExecutorId, extents: &[Extent]) {
        let Some(peer) = self.peers.get(owner) else {
            return;
        };
        peer.withdrawn.under_way += extents.len();
        let incarnation = peer.incarnation;
        for extents in extents.chunks(RELEASES_PER_MESSAGE_MAX) {
            let pairs = extents.iter();
            let pairs = pairs.map(|extent| (extent.offset_units, extent.len_units));
            self.tell(&ToNode::Punch {
                app: owner.app.0,
                slot: owner.slot,
                incarnation,
                extents: pairs.collect(),
            });
        }
    }

    /// The node has punched: the owner is given these extents as holes. Whether that was the last
    /// of this process's memory in the node's hands.
    pub fn punched(
        &mut self,
        (app, slot): (u16, u16),
        incarnation: u32,
        pairs: &[(u32, u32)],
    ) -> bool {
        let owner = ExecutorId {
            app: AppId(app),
            slot,
        };
        let known = self.peers.get(owner);
        let Some(peer) = known.filter(|peer| peer.incarnation == incarnation) else {
            return false;
        };
        let extents = pairs.iter().map(|&(offset_units, len_units)| Extent {
            offset_units,
            len_units,
        });
        peer.withdrawn.punched.extend(extents);
        peer.withdrawn.under_way = peer.withdrawn.under_way.saturating_sub(pairs.len());
        let is_last = !peer.withdrawn.is_under_way();
        self.reclaim.add(owner);
        is_last
    }
}

impl Peer {
    /// Takes back what is in its release ring; answers with what is worth a punch. There is room in
    /// the ring then for what the core has kept.
    fn withdraw(&mut self) -> Vec<Extent> {
        let (mut whole, mut punched) = (Vec::new(), Vec::new());
        self.end.withdraw_releases(&mut whole, &mut punched);
        self.withdrawn.punched.append(&mut punched);
        let is_large = |extent: &Extent| extent.len_units >= LARGE_UNITS;
        let (large, small): (Vec<Extent>, Vec<Extent>) = whole.into_iter().partition(is_large);
        self.withdrawn.small.extend(small);
        // Moved by ourselves.
        self.withdrawn.taken = self.end.releases_taken().0;
        large
    }

    /// It comes by, or rests, or nothing else is to be given to it: what has been taken back is its
    /// again, as far as there is room.
    fn give_withdrawn(&mut self) {
        let punched = &mut self.withdrawn.punched;
        while !punched.is_empty() {
            let left = punched.len().saturating_sub(PUNCHED_PER_SLOT);
            if !self.end.release_punched(&punched[left..]) {
                return;
            }
            punched.truncate(left);
        }
        while let Some(extent) = self.withdrawn.small.pop() {
            if !self.end.release(extent) {
                self.withdrawn.small.push(extent);
                break;
            }
        }
        self.end.flush_releases();
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use pheromone_core::event::Sink;
    use pheromone_shm::control::{ControlFiles, ExecutorEnd, Released, SchedulerEnd};
    use pheromone_shm::doorbell::{Bell, BellRope};
    use pheromone_shm::link::{Link, LinkEnd, NodeRope};

    use super::*;
    use crate::neighbours::Neighbours;

    const ID: ExecutorId = ExecutorId {
        app: AppId(3),
        slot: 2,
    };
    const LARGE: Extent = Extent {
        offset_units: 1024,
        len_units: LARGE_UNITS,
    };
    const SMALL: Extent = Extent {
        offset_units: 7,
        len_units: LARGE_UNITS - 1,
    };

    struct World {
        outbox: Outbox,
        node: LinkEnd,
        owner: ExecutorEnd,
        now_ns: u64,
    }

    impl World {
        /// An executor that is busy.
        fn new() -> Self {
            let bell = Bell::create().expect("a memfd");
            let rope = BellRope::map(bell.fd()).expect("a mapping");
            let file = Link::create().expect("a memfd");
            let node = Link::node_end(file.as_fd(), rope).expect("a mapping");
            let rope = NodeRope::create().expect("a memfd");
            let rope = NodeRope::map(rope.as_fd()).expect("a mapping");
            let link = Link::scheduler_end(file.as_fd(), rope).expect("a mapping");
            let mut outbox = Outbox::new(link, Neighbours::default(), false);
            let files = ControlFiles::create("test").expect("two memfds");
            let (up, down) = (files.up.as_fd(), files.down.as_fd());
            let end = SchedulerEnd::map(up, down, ID.slot, 1).expect("two mappings");
            let owner = ExecutorEnd::map(up, down, bell.fd(), ID.slot, 1).expect("mappings");
            outbox.peers.insert(ID, end, 1);
            Self {
                outbox,
                node,
                owner,
                now_ns: 1,
            }
        }

        fn release(&mut self, extent: Extent) {
            assert!(self.outbox.release(ID, extent));
            self.outbox.flush();
        }

        /// Time passes until owners are looked at; what is to be punched then.
        fn look(&mut self) -> Vec<(u32, u32)> {
            self.outbox.reclaim(self.now_ns);
            self.now_ns += UNTAKEN_NS;
            self.outbox.reclaim(self.now_ns);
            let (mut bytes, mut asked) = (Vec::new(), Vec::new());
            while self.node.receive(&mut bytes).expect("no garbage") {
                let message = postcard::from_bytes(&bytes).expect("a message");
                if let ToNode::Punch { extents, .. } = message {
                    asked.extend(extents);
                }
            }
            asked
        }

        fn taken(&mut self) -> Vec<Released> {
            let mut taken = Vec::new();
            self.owner.take_releases(|released| taken.push(released));
            taken
        }
    }

    fn given(extent: Extent, punched: bool) -> Released {
        Released { extent, punched }
    }

    #[test]
    fn what_a_busy_owner_leaves_is_punched_and_given_to_it_as_holes() {
        let mut world = World::new();
        world.release(LARGE);
        world.release(SMALL);
        let pair = (LARGE.offset_units, LARGE.len_units);
        assert_eq!(world.look(), [pair]);
        assert_eq!(world.taken(), [], "it is nobody's now");
        let peer = world.outbox.peers.get(ID).expect("it is there");
        assert!(peer.withdrawn.is_under_way());
        assert!(!world.outbox.punched((3, 2), 9, &[pair]), "another process");
        assert!(world.outbox.punched((3, 2), 1, &[pair]), "that was all");
        assert_eq!(world.look(), []);
        assert_eq!(world.taken(), [given(LARGE, true), given(SMALL, false)]);
        assert_eq!(world.look(), []);
        assert!(world.outbox.reclaim.is_idle());
    }

    #[test]
    fn who_comes_by_keeps_its_memory_warm() {
        let mut world = World::new();
        for _ in 0..5 {
            world.release(LARGE);
            assert_eq!(world.taken(), [given(LARGE, false)]);
            world.release(LARGE);
            assert_eq!(world.look(), []);
            assert_eq!(world.taken(), [given(LARGE, false)]);
        }
    }

    #[test]
    fn small_ones_alone_and_owners_at_rest_are_left_alone() {
        let mut world = World::new();
        world.release(SMALL);
        assert!(world.outbox.reclaim.is_idle());
        world.outbox.peers.get(ID).expect("it is there").ready();
        world.release(LARGE);
        assert!(world.outbox.reclaim.is_idle());
    }

    #[test]
    fn a_ring_full_of_small_ones_does_not_keep_large_ones_from_being_punched() {
        let mut world = World::new();
        while world.outbox.release(ID, SMALL) {}
        assert_eq!(world.look(), []);
        // The core tries again.
        world.release(LARGE);
        assert_eq!(world.look(), [(LARGE.offset_units, LARGE.len_units)]);
    }
}
