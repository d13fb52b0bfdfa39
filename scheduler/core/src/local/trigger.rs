//! Triggers: every object is offered to those it concerns, and each fires or keeps it by itself.
//!
//! `plan.rs` knows which triggers an object concerns; here are what they do with it and the state
//! that a set keeps per session, made when its first key comes.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::event::{SessionId, Sink};
use crate::limits::BUFFER_ENTRIES_KEPT;
use crate::local::Tables;
use crate::local::app::App;
use crate::local::invocation::Firing;
use crate::local::name::{AutoText, key_text};
use crate::local::object::Object;
use crate::local::plan::{Action, Match};
use crate::local::session::Session;
use crate::slab::{Ref, Slab};

/// What a `by_set` has seen of a session.
pub(super) struct SetState {
    session: SessionId,
    pub(super) trigger: u16,
    /// It has fired, which it does once.
    pub(super) fired: bool,
    pub(super) missing: u32,
    /// By place in the set; each object is held until the set fires or is dropped.
    pub(super) objects: Vec<Ref<Object>>,
    pub(super) next: Ref<SetState>,
}

impl Default for SetState {
    fn default() -> Self {
        Self {
            session: SessionId(0),
            trigger: 0,
            fired: false,
            missing: 0,
            objects: Vec::new(),
            next: Ref::NONE,
        }
    }
}

/// The states of all sessions' sets, found by session and trigger.
pub(super) struct SetStates {
    states: Slab<SetState>,
    table: HashTable<Ref<SetState>>,
    hasher: RandomState,
}

impl SetStates {
    pub(super) fn new() -> Self {
        Self {
            states: Slab::new(),
            table: HashTable::new(),
            hasher: RandomState::default(),
        }
    }

    pub(super) fn live(&self) -> u32 {
        self.states.live()
    }

    pub(super) fn get(&mut self, state: Ref<SetState>) -> &mut SetState {
        &mut self.states[state]
    }

    /// The state of a session's trigger; a new one, first on the session's list, if there is none.
    fn of(&mut self, session: &mut Session, trigger: u16, keys: u32) -> Ref<SetState> {
        let id = session.id;
        let hash = self.hasher.hash_one((id.0, trigger));
        let same = |&state: &Ref<SetState>| {
            let state = &self.states[state];
            state.session == id && state.trigger == trigger
        };
        if let Some(&found) = self.table.find(hash, same) {
            return found;
        }
        let (made, state) = self.states.take();
        state.session = id;
        state.trigger = trigger;
        state.fired = false;
        state.missing = keys;
        state.objects.clear();
        state.objects.resize(keys as usize, Ref::NONE);
        state.next = std::mem::replace(&mut session.states, made);
        let (states, hasher) = (&self.states, &self.hasher);
        self.table.insert_unique(hash, made, |&state| {
            let state = &states[state];
            hasher.hash_one((state.session.0, state.trigger))
        });
        made
    }

    fn remove(&mut self, removed: Ref<SetState>) {
        let state = &self.states[removed];
        let hash = self.hasher.hash_one((state.session.0, state.trigger));
        let entry = self
            .table
            .find_entry(hash, |&other| other == removed)
            .expect("a state stays in the table until it is removed");
        entry.remove();
        self.states.give(removed);
    }
}

impl Tables {
    /// Offers an object to the triggers of its bucket. `near`: who wrote it.
    #[inline]
    pub(super) fn offer<S: Sink>(
        &mut self,
        app: &mut App,
        offered: Ref<Object>,
        session: Ref<Session>,
        near: Option<u16>,
        sink: &mut S,
    ) {
        let object = &self.objects[offered];
        let bucket = usize::from(object.bucket);
        let key = object.input().key;
        let named = matches!(key, pheromone_shm::message::InputKey::Named(_));
        let plan = &app.plan.buckets[bucket];
        if plan.is_plain(named) {
            for at in 0..plan.every.len() {
                let trigger = app.plan.buckets[bucket].every[at];
                self.fire_trigger(app, trigger, session, near, &[offered]);
            }
            return;
        }
        let mut matches = std::mem::take(&mut self.scratch.matches);
        let mut text = AutoText::new();
        let key = key_text(key, &mut text);
        plan.matches(key, &mut self.scratch.globbed, &mut matches);
        for &found in &matches {
            self.apply(app, found, offered, session, near, sink);
        }
        matches.clear();
        self.scratch.matches = matches;
    }

    fn apply<S: Sink>(
        &mut self,
        app: &mut App,
        found: Match,
        offered: Ref<Object>,
        session: Ref<Session>,
        near: Option<u16>,
        sink: &mut S,
    ) {
        match app.plan.triggers[usize::from(found.trigger)].action {
            Action::Fire => self.fire_trigger(app, found.trigger, session, near, &[offered]),
            Action::Gather { keys } => {
                let of = &mut self.sessions[session];
                let state = self.states.of(of, found.trigger, keys);
                let set = self.states.get(state);
                let place = found.position as usize;
                if set.fired || set.objects[place].is_some() {
                    return;
                }
                self.objects.hold(offered);
                set.objects[place] = offered;
                set.missing -= 1;
                if set.missing == 0 {
                    self.fire_set(app, state, session, near, sink);
                }
            }
        }
    }

    /// Fires a set with what it has, in the listed order.
    pub(super) fn fire_set<S: Sink>(
        &mut self,
        app: &mut App,
        state: Ref<SetState>,
        session: Ref<Session>,
        near: Option<u16>,
        sink: &mut S,
    ) {
        let set = self.states.get(state);
        set.fired = true;
        let trigger = set.trigger;
        let mut objects = std::mem::take(&mut set.objects);
        objects.retain(|object| object.is_some());
        self.fire_trigger(app, trigger, session, near, &objects);
        for &object in &objects {
            self.drop_hold(app, object, sink);
        }
        self.keep_buffer(state, objects);
    }

    /// Drops what a state holds. It is remembered as fired, so that what comes later changes
    /// nothing.
    pub(super) fn drop_set<S: Sink>(&mut self, app: &mut App, state: Ref<SetState>, sink: &mut S) {
        let set = self.states.get(state);
        set.fired = true;
        let objects = std::mem::take(&mut set.objects);
        for object in objects.iter().filter_map(|object| object.some()) {
            self.drop_hold(app, object, sink);
        }
        self.keep_buffer(state, objects);
    }

    fn keep_buffer(&mut self, state: Ref<SetState>, mut buffer: Vec<Ref<Object>>) {
        if buffer.capacity() <= BUFFER_ENTRIES_KEPT {
            buffer.clear();
            self.states.get(state).objects = buffer;
        }
    }

    /// Frees all states of an ending session.
    pub(super) fn drop_states<S: Sink>(
        &mut self,
        app: &mut App,
        session: Ref<Session>,
        sink: &mut S,
    ) {
        while let Some(state) = self.sessions[session].states.some() {
            self.sessions[session].states = self.states.get(state).next;
            self.drop_set(app, state, sink);
            self.states.remove(state);
        }
    }

    /// One invocation of each of a trigger's functions, with these inputs.
    #[inline]
    fn fire_trigger(
        &mut self,
        app: &mut App,
        trigger: u16,
        session: Ref<Session>,
        near: Option<u16>,
        inputs: &[Ref<Object>],
    ) {
        let trigger_at = usize::from(trigger);
        for at in 0..app.plan.triggers[trigger_at].functions.len() {
            let firing = Firing {
                session,
                function: app.plan.triggers[trigger_at].functions[at],
                trigger,
                near,
                is_call: false,
            };
            self.fire(app, firing, inputs.iter().copied());
        }
    }
}
