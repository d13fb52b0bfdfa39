//! Ids of sessions that no other core makes, also none that runs before or after this one.
//!
//! A session's id is its slot and generation where nothing outlives the core. Where something does
//! it is a number that is never used again, and the slot is found by it.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::event::SessionId;
use crate::local::session::Session;
use crate::slab::Ref;

/// Sessions by their numbers.
pub(super) struct Numbered {
    next: u64,
    slots: HashMap<SessionId, Ref<Session>, FixedState>,
}

impl Numbered {
    /// Numbers from `first` on; none where that is 0. Even ones: odd ones are given by the node.
    pub(super) fn new(first: u64) -> Option<Self> {
        (first > 0).then(|| Self {
            next: first.next_multiple_of(2),
            slots: HashMap::default(),
        })
    }

    /// The next number.
    pub(super) fn take(&mut self) -> u64 {
        let number = self.next;
        self.next += 2;
        number
    }

    /// A session is found by its id from here on.
    pub(super) fn enter(&mut self, id: SessionId, session: Ref<Session>) {
        self.slots.insert(id, session);
    }

    /// The session of this id.
    pub(super) fn find(&self, id: SessionId) -> Option<Ref<Session>> {
        self.slots.get(&id).copied()
    }

    /// Nothing is left of a session.
    pub(super) fn leave(&mut self, id: SessionId) {
        self.slots.remove(&id);
    }
}
