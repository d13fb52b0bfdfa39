//! Triggers: every object is offered to those it concerns, and each fires or keeps it by itself.
//!
//! `plan.rs` knows which triggers an object concerns, `gather/` when those that keep state fire.
//! Here is that state, one per session and trigger, made when the session first concerns it, and
//! what is done about what a gatherer says: firing, letting go, timers, and whether the session
//! stays open for it.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::event::{Cause, Failure, SessionId, Sink};
use crate::gather::outcome::{Outcome, Window};
use crate::gather::{Arrival, Gatherer, Rule};
use crate::local::afterwards::Afterwards;
use crate::local::app::App;
use crate::local::invocation::Firing;
use crate::local::name::{AutoText, key_text};
use crate::local::object::Object;
use crate::local::plan::Match;
use crate::local::session::Session;
use crate::local::{Tables, Timer};
use crate::slab::{Ref, Slab};
use crate::spec::{AtEnd, Scope};
use crate::timer::TimerId;

/// What a trigger has gathered of a session.
pub(super) struct State {
    session: SessionId,
    of: Ref<Session>,
    pub(super) trigger: u16,
    pub(super) gatherer: Gatherer<Ref<Object>>,
    timer: TimerId,
    /// When that fires.
    due_ns: Option<u64>,
    /// It has something pending, as far as the session has been told.
    is_pending: bool,
    /// It keeps its session open until its timer has fired, or somebody has decided.
    keeps_open: bool,
    /// What its gatherer remembers, as far as the app's names have been told.
    remembered: u64,
    pub(super) next: Ref<State>,
}

impl State {
    pub(super) fn of(&self) -> Ref<Session> {
        self.of
    }

    /// Whether its timer is armed.
    pub(super) fn is_timed(&self) -> bool {
        self.due_ns.is_some()
    }

    /// Its timer has fired. Answers with its session.
    pub(super) fn timer_fired(&mut self) -> Ref<Session> {
        self.timer = TimerId::NONE;
        self.due_ns = None;
        self.of
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            session: SessionId(0),
            of: Ref::NONE,
            trigger: 0,
            gatherer: Gatherer::new(&Rule::Set(0), 0),
            timer: TimerId::NONE,
            due_ns: None,
            is_pending: false,
            keeps_open: false,
            remembered: 0,
            next: Ref::NONE,
        }
    }
}

/// The states of all sessions, found by session and trigger.
pub(super) struct States {
    states: Slab<State>,
    table: HashTable<Ref<State>>,
    hasher: RandomState,
}

impl States {
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

    #[inline]
    pub(super) fn get(&mut self, state: Ref<State>) -> &mut State {
        &mut self.states[state]
    }

    /// The state of a session's trigger, where there is one.
    pub(super) fn find(&self, session: SessionId, trigger: u16) -> Option<Ref<State>> {
        let same = |&state: &Ref<State>| {
            let state = &self.states[state];
            state.session == session && state.trigger == trigger
        };
        self.table.find(self.hash(session, trigger), same).copied()
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = Ref<State>> {
        self.states.refs()
    }

    fn hash(&self, session: SessionId, trigger: u16) -> u64 {
        self.hasher.hash_one((session.0, trigger))
    }

    /// A new state, first on the session's list.
    fn make(&mut self, of: Ref<Session>, session: &mut Session, trigger: u16) -> Ref<State> {
        let hash = self.hash(session.id, trigger);
        let (made, state) = self.states.take();
        state.session = session.id;
        state.of = of;
        state.trigger = trigger;
        state.due_ns = None;
        state.is_pending = false;
        state.keeps_open = false;
        state.remembered = 0;
        state.next = std::mem::replace(&mut session.states, made);
        let (states, hasher) = (&self.states, &self.hasher);
        self.table.insert_unique(hash, made, |&state| {
            let state = &states[state];
            hasher.hash_one((state.session.0, state.trigger))
        });
        made
    }

    fn remove(&mut self, removed: Ref<State>) {
        let state = &self.states[removed];
        let hash = self.hash(state.session, state.trigger);
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
                self.fire_trigger(app, trigger, session, near, &[offered], None);
            }
            return;
        }
        let mut matches = std::mem::take(&mut self.scratch.matches);
        let mut text = AutoText::new();
        let key = key_text(key, &mut text);
        plan.matches(key, &mut self.scratch.globbed, &mut matches);
        let mut across = SmallVec::<[u16; 2]>::new();
        for &found in &matches {
            let plan = &app.plan.triggers[usize::from(found.trigger)];
            if plan.scope == Scope::Bucket && plan.rule.is_some() {
                across.push(found.trigger);
            } else {
                self.apply(app, found, offered, session, near, sink);
            }
        }
        matches.clear();
        self.scratch.matches = matches;
        if !across.is_empty() {
            self.offer_across(app, across, offered, session);
        }
    }

    pub(super) fn apply<S: Sink>(
        &mut self,
        app: &mut App,
        found: Match,
        offered: Ref<Object>,
        session: Ref<Session>,
        near: Option<u16>,
        sink: &mut S,
    ) {
        let Some(rule) = app.plan.triggers[usize::from(found.trigger)].rule else {
            self.fire_trigger(app, found.trigger, session, near, &[offered], None);
            return;
        };
        let state = self.state_of(app, session, found.trigger);
        self.objects.hold(offered);
        let mut text = AutoText::new();
        let mut out = std::mem::take(&mut self.scratch.outcome);
        let input = self.objects[offered].input();
        let arrival = Arrival {
            item: offered,
            position: found.position,
            key: if rule.wants_key() {
                key_text(input.key, &mut text)
            } else {
                b""
            },
            group: input.group,
            now_ns: self.now_ns,
        };
        self.states.get(state).gatherer.offer(&arrival, &mut out);
        self.carry_out(app, state, near, out, sink);
        if let Rule::Hand(_) = rule {
            self.note_object(app, found.trigger, state);
        }
    }

    /// The state of a session's trigger, which is one that gathers; a new one if there is none.
    pub(super) fn state_of(
        &mut self,
        app: &App,
        session: Ref<Session>,
        trigger: u16,
    ) -> Ref<State> {
        let of = &mut self.sessions[session];
        if let Some(found) = self.states.find(of.id, trigger) {
            return found;
        }
        let made = self.states.make(session, of, trigger);
        let rule = app.plan.triggers[usize::from(trigger)].rule.as_ref();
        let rule = rule.expect("only triggers that gather have a state");
        self.states.get(made).gatherer.reset(rule, self.now_ns);
        made
    }

    /// Takes a step of a gatherer and does what follows from it. Whether anything has fired.
    pub(super) fn gather<S: Sink>(
        &mut self,
        app: &mut App,
        state: Ref<State>,
        near: Option<u16>,
        sink: &mut S,
        step: impl FnOnce(&mut Gatherer<Ref<Object>>, &mut Outcome<Ref<Object>>),
    ) -> bool {
        let mut out = std::mem::take(&mut self.scratch.outcome);
        step(&mut self.states.get(state).gatherer, &mut out);
        self.carry_out(app, state, near, out, sink)
    }

    /// Does what follows from a step: firings first, since what is let go may be among their
    /// inputs. Whether anything has fired.
    fn carry_out<S: Sink>(
        &mut self,
        app: &mut App,
        state: Ref<State>,
        near: Option<u16>,
        mut out: Outcome<Ref<Object>>,
        sink: &mut S,
    ) -> bool {
        let State { of, trigger, .. } = *self.states.get(state);
        let mut has_fired = false;
        for volley in out.volleys() {
            has_fired = true;
            self.fire_trigger(app, trigger, of, near, volley.items, volley.window);
            app.stats.early_total += u64::from(volley.early);
            self.cancel_rest(app, of, trigger, volley.items);
        }
        for &(object, complaint) in &out.complaints {
            let text = |tables: &Self, app: &App| {
                let object = tables.objects[object].input();
                let mut room = AutoText::new();
                format!(
                    "object `{}` of bucket `{}` {complaint}",
                    String::from_utf8_lossy(key_text(object.key, &mut room)),
                    app.spec.buckets[usize::from(object.bucket)].name,
                )
            };
            self.error_event(app, of, text, sink);
        }
        app.stats.dropped_total += out.dropped;
        if out.overflow {
            let failure = self.overflow(app, trigger);
            let session = self.sessions[of].id;
            self.afterwards
                .push_back(Afterwards::Fail { session, failure });
        }
        for &object in &out.released {
            self.drop_hold(app, object, sink);
        }
        out.clear();
        self.scratch.outcome = out;
        let at = self.states.get(state);
        let remembered = at.gatherer.remembered();
        app.names = app.names - at.remembered + remembered;
        at.remembered = remembered;
        self.look_after(app, state);
        has_fired
    }

    /// Arms a state's timer, and tells its session whether something is pending and whether it
    /// stays open for that.
    pub(super) fn look_after(&mut self, app: &App, state: Ref<State>) {
        let at = state;
        let state = self.states.get(at);
        let due_ns = state
            .gatherer
            .next_ns()
            .filter(|&due_ns| due_ns != u64::MAX);
        if due_ns != state.due_ns {
            state.due_ns = due_ns;
            self.timers.cancel(&mut state.timer);
            if let Some(due_ns) = due_ns {
                state.timer = self.timers.arm(due_ns, Timer::Trigger(at));
            }
        }
        let is_pending = state.gatherer.is_pending();
        let waits = app.plan.triggers[usize::from(state.trigger)].at_end == AtEnd::Wait;
        let keeps_open = waits && is_pending || state.gatherer.is_unanswered();
        if (is_pending, keeps_open) == (state.is_pending, state.keeps_open) {
            return;
        }
        let session = &mut self.sessions[state.of];
        if is_pending != state.is_pending {
            state.is_pending = is_pending;
            session.count_pending(app, state.trigger, is_pending);
        }
        if keeps_open != state.keeps_open {
            state.keeps_open = keeps_open;
            if keeps_open {
                session.busy += 1;
            } else {
                session.busy -= 1;
            }
        }
    }

    /// A round has fired: the rest of it is cancelled, where its trigger says so.
    fn cancel_rest(
        &mut self,
        app: &App,
        session: Ref<Session>,
        trigger: u16,
        round: &[Ref<Object>],
    ) {
        if app.plan.triggers[usize::from(trigger)]
            .cancel_rest
            .is_empty()
        {
            return;
        }
        let group = round
            .first()
            .map_or(&b""[..], |&object| self.objects[object].input().group);
        self.afterwards.push_back(Afterwards::CancelRest {
            session: self.sessions[session].id,
            trigger,
            group: group.into(),
        });
    }

    pub(super) fn overflow(&self, app: &App, trigger: u16) -> Failure {
        let plan = &app.plan.triggers[usize::from(trigger)];
        let bucket = &app.spec.buckets[usize::from(plan.bucket)];
        let trigger = &bucket.triggers[usize::from(plan.index)];
        let most = app.spec.limits.inputs;
        Failure {
            function: None,
            invocation: 0,
            attempt: 0,
            cause: Cause::Limit(format!(
                "limits.inputs: trigger `{}` of bucket `{}` would fire with more than {most} \
                 objects; gather fewer, or raise the limit",
                trigger.name, bucket.name
            )),
            executor: None,
        }
    }

    /// Frees all states of an ending session.
    pub(super) fn drop_states<S: Sink>(
        &mut self,
        app: &mut App,
        session: Ref<Session>,
        sink: &mut S,
    ) {
        while let Some(at) = self.sessions[session].states.some() {
            self.gather(app, at, None, sink, |gatherer, out| {
                gatherer.drain(out);
                // What goes with its session is not counted as dropped by its trigger.
                out.dropped = 0;
            });
            let state = self.states.get(at);
            self.timers.cancel(&mut state.timer);
            if let Gatherer::Hand(hand) = &state.gatherer
                && hand.owes_word()
            {
                let (trigger, id) = (state.trigger, state.session);
                self.note_gone(app, trigger, id);
            }
            let state = self.states.get(at);
            self.sessions[session].states = state.next;
            self.states.remove(at);
        }
    }

    /// One invocation of each of a trigger's functions, with these inputs.
    #[inline]
    pub(super) fn fire_trigger(
        &mut self,
        app: &mut App,
        trigger: u16,
        session: Ref<Session>,
        near: Option<u16>,
        inputs: &[Ref<Object>],
        window: Option<Window>,
    ) {
        let trigger_at = usize::from(trigger);
        for at in 0..app.plan.triggers[trigger_at].functions.len() {
            let function = app.plan.triggers[trigger_at].functions[at];
            let firing = Firing {
                trigger,
                window,
                near,
                ..Firing::new(session, function)
            };
            self.fire(app, firing, inputs.iter().copied());
        }
    }
}
