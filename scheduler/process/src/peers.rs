//! The executors' rings, by app and slot, and the dense list of those that are polled.
//!
//! Only an executor with an open dispatch may publish, so only those are looked at each turn
//! (plus processes that are being set up); the rest are swept now and then. This file never
//! judges what a message means.

use pheromone_core::event::{AppId, ExecutorId};
use pheromone_shm::control::SchedulerEnd;
use pheromone_shm::limits::{RELEASE_SLOTS, WARM_UNITS_MAX};

use crate::reclaim::Withdrawn;

/// Extents that may wait for a sleeping owner: two for each slot of its release ring, which holds
/// six or seven in each.
const RELEASED_EXTENTS_MAX: u32 = 2 * RELEASE_SLOTS as u32;

/// One executor process, as the scheduler sees it.
pub struct Peer {
    /// Its control memory.
    pub end: SchedulerEnd,
    /// Which process of the slot.
    pub incarnation: u32,
    /// Dispatches not yet completed; being set up counts as one.
    open: u32,
    /// No dispatch has been sent to it yet.
    fresh: bool,
    /// Extents of its predecessor that it has yet to ask for.
    unadopted: u32,
    /// It stands in the polled list.
    listed: bool,
    /// Memory given back since its owner was last woken to take it.
    released: Released,
    /// It spins and never sleeps while this is true (`--idle spin`): no fence, no wake.
    pub awake_for_good: bool,
    /// Extents wait to be flushed to its release ring.
    pub releases_waiting: bool,
    /// So much of them that the owner is to be woken for it.
    pub hurries: bool,
    /// The node has been told to kill it: nothing is written to it any more.
    pub given_up: bool,
    /// What has been taken back from its release ring.
    pub withdrawn: Withdrawn,
}

/// Memory given back to an executor that it may not have noticed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Released {
    /// Units in all.
    pub units: u64,
    /// Extents.
    pub extents: u32,
}

/// All peers of all apps.
#[derive(Default)]
pub struct Peers {
    apps: Vec<Vec<Option<Peer>>>,
    active: Vec<ExecutorId>,
}

impl Peer {
    /// A dispatch goes out: the executor may publish. True when it is not polled yet, which the
    /// caller makes good by [`Peers::poll`].
    pub fn opened(&mut self) -> bool {
        if self.fresh {
            self.fresh = false;
            self.open = 1;
        } else {
            self.open += 1;
        }
        !std::mem::replace(&mut self.listed, true)
    }

    /// Whether anything of it is open.
    pub fn is_busy(&self) -> bool {
        self.open > 0
    }

    /// A completion has come in. Whether the executor leaves the polled list is decided by
    /// [`Peers::settle`], after the core has had the chance to dispatch to it again.
    pub fn completed(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// A process is set up: it has nothing to say until it is dispatched to, unless it
    /// [`adopts`](Self::adopts) something.
    pub fn ready(&mut self) {
        if self.fresh {
            self.open = 0;
        }
    }

    /// The process that has just become ready is told to adopt so many extents: it asks for them.
    pub fn adopts(&mut self, extents: u32) {
        self.unadopted = extents;
        if extents > 0 {
            self.open = 1;
        }
    }

    /// It is told of so many of them. With the last it is set up.
    pub fn adopted(&mut self, extents: u32) {
        self.unadopted = self.unadopted.saturating_sub(extents);
        if self.unadopted == 0 {
            self.ready();
        }
    }

    /// Counts an extent given back. True when so much waits that a sleeping owner should take it:
    /// more than an allocator keeps warm, or a third of what its ring holds.
    pub fn has_much_to_take(&mut self, units: u32) -> bool {
        self.released.units += u64::from(units);
        self.released.extents += 1;
        self.released.units > WARM_UNITS_MAX || self.released.extents > RELEASED_EXTENTS_MAX
    }

    /// Wakes the executor, if it sleeps, to take what was given back.
    pub fn hurry(&mut self) {
        self.released = Released::default();
        self.end.wake_if_asleep();
    }
}

impl Peers {
    /// A new process has this slot; the one before is forgotten.
    pub fn insert(&mut self, id: ExecutorId, end: SchedulerEnd, incarnation: u32) {
        let app = usize::from(id.app.0);
        if self.apps.len() <= app {
            self.apps.resize_with(app + 1, Vec::new);
        }
        let slots = &mut self.apps[app];
        let slot = usize::from(id.slot);
        if slots.len() <= slot {
            slots.resize_with(slot + 1, || None);
        }
        slots[slot] = Some(Peer {
            end,
            incarnation,
            open: 1,
            fresh: true,
            unadopted: 0,
            listed: true,
            released: Released::default(),
            awake_for_good: false,
            releases_waiting: false,
            hurries: false,
            given_up: false,
            withdrawn: Withdrawn::default(),
        });
        if !self.active.contains(&id) {
            self.active.push(id);
        }
    }

    /// The process of this slot, if there is one.
    #[inline]
    pub fn get(&mut self, id: ExecutorId) -> Option<&mut Peer> {
        self.apps
            .get_mut(usize::from(id.app.0))?
            .get_mut(usize::from(id.slot))?
            .as_mut()
    }

    /// Forgets a dead process: its control memory is unmapped.
    pub fn remove(&mut self, id: ExecutorId) {
        if let Some(slot) = self
            .apps
            .get_mut(usize::from(id.app.0))
            .and_then(|slots| slots.get_mut(usize::from(id.slot)))
        {
            *slot = None;
        }
        self.active.retain(|active| *active != id);
    }

    /// Forgets an app and all of its processes.
    pub fn remove_app(&mut self, app: AppId) {
        if let Some(slots) = self.apps.get_mut(usize::from(app.0)) {
            slots.clear();
        }
        self.active.retain(|active| active.app != app);
    }

    /// The executor is polled from here on: see [`Peer::opened`].
    pub fn poll(&mut self, id: ExecutorId) {
        self.active.push(id);
    }

    /// Takes the executor at this place of the polled list out of it if nothing of it is open.
    /// True when it was taken out (another one stands in its place).
    pub fn settle(&mut self, at: usize) -> bool {
        let Some(id) = self.active.get(at).copied() else {
            return true;
        };
        if let Some(peer) = self.get(id) {
            if peer.open > 0 {
                return false;
            }
            peer.listed = false;
        }
        self.active.swap_remove(at);
        true
    }

    /// Takes all executors of which nothing is open out of the polled list.
    pub fn settle_all(&mut self) {
        let mut at = 0;
        while at < self.active.len() {
            if !self.settle(at) {
                at += 1;
            }
        }
    }

    /// The polled executor at this place of the list.
    pub fn active(&self, at: usize) -> Option<ExecutorId> {
        self.active.get(at).copied()
    }

    /// Whether any dispatch is open: then a wake that an executor withheld would matter.
    pub fn any_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// Whether any polled executor has a message.
    pub fn any_active_message(&mut self) -> bool {
        (0..self.active.len()).any(|at| {
            let id = self.active[at];
            self.get(id).is_some_and(|peer| peer.end.has_message())
        })
    }

    /// How many executors are polled.
    #[cfg(test)]
    fn active_count(&self) -> usize {
        self.active.len()
    }

    /// Whether there is any executor at all.
    pub fn any(&self) -> bool {
        self.all().next().is_some()
    }

    /// Every executor there is.
    pub fn all(&self) -> impl Iterator<Item = ExecutorId> + '_ {
        self.apps.iter().enumerate().flat_map(|(app, slots)| {
            slots
                .iter()
                .enumerate()
                .filter(|(_, peer)| peer.is_some())
                .map(move |(slot, _)| {
                    // Both fit: they were ids of u16 when they were inserted.
                    ExecutorId {
                        app: AppId(app as u16),
                        slot: slot as u16,
                    }
                })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use pheromone_shm::control::ControlFiles;

    use super::*;

    fn peers_with(id: ExecutorId) -> Peers {
        let files = ControlFiles::create("test").expect("two memfds");
        let end = SchedulerEnd::map(files.up.as_fd(), files.down.as_fd(), 0, 1).expect("two maps");
        let mut peers = Peers::default();
        peers.insert(id, end, 1);
        peers
    }

    fn peer(peers: &mut Peers, id: ExecutorId) -> &mut Peer {
        peers.get(id).expect("it was inserted")
    }

    fn open(peers: &mut Peers, id: ExecutorId) {
        if peer(peers, id).opened() {
            peers.poll(id);
        }
    }

    #[test]
    fn an_executor_that_is_dispatched_to_again_at_once_is_polled_once() {
        let id = ExecutorId {
            app: AppId(0),
            slot: 0,
        };
        let mut peers = peers_with(id);
        for _ in 0..1000 {
            open(&mut peers, id);
            peer(&mut peers, id).completed();
            open(&mut peers, id);
            assert!(!peers.settle(0), "its second dispatch is open");
            peer(&mut peers, id).completed();
        }
        assert_eq!(peers.active_count(), 1);
        assert!(peers.settle(0));
        assert_eq!(peers.active_count(), 0);
        open(&mut peers, id);
        assert_eq!(peers.active_count(), 1);
    }

    #[test]
    fn a_process_that_is_set_up_is_polled_no_more() {
        let id = ExecutorId {
            app: AppId(2),
            slot: 3,
        };
        let mut peers = peers_with(id);
        assert_eq!(peers.active_count(), 1);
        peer(&mut peers, id).ready();
        assert!(peers.settle(0));
        assert!(!peers.any_active() && peers.any());
    }

    #[test]
    fn a_process_that_adopts_is_polled_until_it_knows_everything() {
        let id = ExecutorId {
            app: AppId(2),
            slot: 3,
        };
        for extents in [0, 1, 5] {
            let mut peers = peers_with(id);
            peer(&mut peers, id).ready();
            peer(&mut peers, id).adopts(extents);
            for _ in 0..extents {
                peers.settle_all();
                assert!(peers.any_active());
                peer(&mut peers, id).adopted(1);
            }
            peers.settle_all();
            assert!(!peers.any_active(), "it has nothing to say");
            open(&mut peers, id);
            peers.settle_all();
            assert!(peers.any_active(), "it is dispatched to");
        }
    }
}
