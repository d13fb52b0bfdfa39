//! The executors' rings, by app and slot, and the dense list of those that are polled.
//!
//! Only an executor with an open dispatch may publish, so only those are looked at each turn
//! (plus processes that are being set up); the rest are swept now and then. This file never
//! judges what a message means.

use pheromone_core::event::{AppId, ExecutorId};
use pheromone_shm::control::SchedulerEnd;

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
    /// It spins and never sleeps while this is true (`--idle spin`): no fence, no wake.
    pub awake_for_good: bool,
    /// Extents wait to be flushed to its release ring.
    pub releases_waiting: bool,
}

/// All peers of all apps.
#[derive(Default)]
pub struct Peers {
    apps: Vec<Vec<Option<Peer>>>,
    active: Vec<ExecutorId>,
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
            awake_for_good: false,
            releases_waiting: false,
        });
        if !self.active.contains(&id) {
            self.active.push(id);
        }
    }

    /// The process of this slot, if there is one.
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

    /// A dispatch has gone out: the executor may publish, so it is polled.
    pub fn opened(&mut self, id: ExecutorId) {
        let Some(peer) = self.get(id) else { return };
        let was = peer.open;
        if peer.fresh {
            peer.fresh = false;
            peer.open = 1;
        } else {
            peer.open += 1;
        }
        if was == 0 {
            self.active.push(id);
        }
    }

    /// A completion has come in. Whether the executor leaves the polled list is decided by
    /// [`Peers::settle`], after the core has had the chance to dispatch to it again.
    pub fn completed(&mut self, id: ExecutorId) {
        if let Some(peer) = self.get(id) {
            peer.open = peer.open.saturating_sub(1);
        }
    }

    /// Takes the executor at this place of the polled list out of it if nothing of it is open.
    /// True when it was taken out (another one stands in its place).
    pub fn settle(&mut self, at: usize) -> bool {
        let Some(id) = self.active.get(at).copied() else {
            return true;
        };
        if self.get(id).is_some_and(|peer| peer.open > 0) {
            return false;
        }
        self.active.swap_remove(at);
        true
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
