//! Invocations: one run of one function over its inputs, from its firing to its final end.
//!
//! An invocation holds its inputs, and what it gets while it runs, until it is finally ended, also
//! when its session has ended before: a running function may still read them.

use pheromone_shm::message::{NO_TRIGGER, REQUEST_OBJECT, Target};
use smallvec::SmallVec;

use crate::event::Sink;
use crate::gather::outcome::Window;
use crate::limits::BUFFER_ENTRIES_KEPT;
use crate::local::Tables;
use crate::local::app::App;
use crate::local::attempt::Done;
use crate::local::durable::Root;
use crate::local::message::Delivery;
use crate::local::name::Author;
use crate::local::object::Object;
use crate::local::serial::Line;
use crate::local::session::Session;
use crate::slab::Ref;
use crate::timer::TimerId;

/// An invocation.
pub(super) struct Invocation {
    /// The same for all attempts.
    pub(super) id: u64,
    /// The session that waits for it; none once that has ended or need not wait any more.
    pub(super) session: Ref<Session>,
    pub(super) function: u16,
    /// Cause, or `NO_TRIGGER`.
    pub(super) trigger: u16,
    /// From 1.
    pub(super) attempt: u32,
    pub(super) place: Place,
    /// Its inputs, then what `phr_get` gave it.
    pub(super) held: SmallVec<[Ref<Object>; 4]>,
    pub(super) input_count: u32,
    /// The session's request and header block, held while running.
    pub(super) request: Ref<Object>,
    pub(super) headers: Ref<Object>,
    /// A response that is still being listed.
    pub(super) parts: Vec<Ref<Object>>,
    /// `phr_window`.
    pub(super) window: Option<Window>,
    /// Keys of a join that are still being listed, encoded.
    pub(super) join_keys: Vec<u8>,
    /// Sources that it closes if it succeeds.
    pub(super) closes: SmallVec<[u16; 4]>,
    /// What its attempts have done, where there may be further ones.
    pub(super) done: Ref<Done>,
    pub(super) queued_ns: u64,
    /// Slot of the executor that wrote its data.
    pub(super) near: Option<u16>,
    /// It is the first of an external call.
    pub(super) is_call: bool,
    /// What it comes from, in a durable session.
    pub(super) root: Ref<Root>,
    /// The line in which it has a place or waits for one; none where its function is not serial.
    pub(super) line: Ref<Line>,
    pub(super) queue_previous: Ref<Invocation>,
    pub(super) queue_next: Ref<Invocation>,
    pub(super) session_previous: Ref<Invocation>,
    pub(super) session_next: Ref<Invocation>,
}

/// Where an invocation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In its function's queue.
    Queued,
    /// Nowhere, until its firing is on disk.
    Recording,
    /// In its line, until one of those alike has ended.
    InLine,
    /// This executor starts it next, unless it is taken back.
    Offered(u16),
    /// On this executor.
    Running(u16),
    /// Waiting for another attempt.
    Backoff(TimerId),
    /// Waiting until a rerun rule is due.
    Resting,
}

impl Default for Invocation {
    fn default() -> Self {
        Self {
            id: 0,
            session: Ref::NONE,
            function: 0,
            trigger: NO_TRIGGER,
            attempt: 1,
            place: Place::Queued,
            held: SmallVec::new(),
            input_count: 0,
            request: Ref::NONE,
            headers: Ref::NONE,
            parts: Vec::new(),
            window: None,
            join_keys: Vec::new(),
            closes: SmallVec::new(),
            done: Ref::NONE,
            queued_ns: 0,
            near: None,
            is_call: false,
            root: Ref::NONE,
            line: Ref::NONE,
            queue_previous: Ref::NONE,
            queue_next: Ref::NONE,
            session_previous: Ref::NONE,
            session_next: Ref::NONE,
        }
    }
}

impl Invocation {
    /// Is what has fired from here on, for the first time.
    #[inline(always)]
    pub(super) fn begin(&mut self, id: u64, firing: &Firing) {
        self.id = id;
        self.session = firing.session;
        self.function = firing.function;
        self.trigger = firing.trigger;
        self.attempt = 1;
        self.near = firing.near;
        self.is_call = firing.is_call;
        self.root = firing.root;
        self.window = firing.window;
    }

    /// Whether its end concerns nothing but its session and what it holds.
    #[inline(always)]
    pub(super) fn leaves_nothing(&self) -> bool {
        debug_assert!(
            self.line.is_none(),
            "functions that take turns go on for nobody"
        );
        self.closes.is_empty()
            && self.parts.is_empty()
            && self.join_keys.is_empty()
            && self.done.is_none()
            && self.root.is_none()
    }

    /// Whose the identities are that it takes.
    #[inline]
    pub(super) fn author(&self) -> Author {
        Author {
            invocation: self.id,
            attempt: self.attempt,
        }
    }

    /// Where an object goes that it sends from this executor.
    #[inline]
    pub(super) fn delivery(&self, target: Target, slot: u16) -> Delivery {
        Delivery {
            session: self.session,
            target,
            function: self.function,
            near: Some(slot),
            root: self.root,
        }
    }

    /// The object that a message of it names.
    pub(super) fn object(&self, index: u32) -> Option<Ref<Object>> {
        if index == REQUEST_OBJECT {
            return self.request.some();
        }
        self.held.get(index as usize).copied()
    }
}

/// What fires.
#[derive(Clone, Copy)]
pub(super) struct Firing {
    pub(super) session: Ref<Session>,
    pub(super) function: u16,
    pub(super) trigger: u16,
    pub(super) window: Option<Window>,
    pub(super) near: Option<u16>,
    /// It is the first of an external call.
    pub(super) is_call: bool,
    /// What it comes from, in a durable session.
    pub(super) root: Ref<Root>,
}

impl Firing {
    /// Of a function, for no reason yet.
    pub(super) fn new(session: Ref<Session>, function: u16) -> Self {
        Self {
            session,
            function,
            trigger: NO_TRIGGER,
            window: None,
            near: None,
            is_call: false,
            root: Ref::NONE,
        }
    }
}

impl Tables {
    /// Queues an invocation with one input.
    #[inline(always)]
    pub(super) fn fire_one(&mut self, app: &mut App, firing: Firing, input: Ref<Object>) {
        self.fire(app, firing, std::iter::once(input));
    }

    /// Queues an invocation with these inputs, in this order, a hold on each.
    #[inline(always)]
    pub(super) fn fire(
        &mut self,
        app: &mut App,
        firing: Firing,
        inputs: impl Iterator<Item = Ref<Object>>,
    ) {
        if self.sessions[firing.session].durable.is_some() {
            let inputs: SmallVec<[Ref<Object>; 8]> = inputs.collect();
            return self.fire_durably(app, firing, &inputs);
        }
        self.last_invocation += 1;
        let id = self.last_invocation;
        let fired = self.enter(app, firing, id, inputs);
        let plan = &app.plan.functions[usize::from(firing.function)];
        if plan.can_run_again() {
            self.remember(plan, fired);
        }
        self.wait_for_turn(app, fired);
    }

    /// Queues a new invocation, once its turn has come where it has to wait for one.
    #[inline(always)]
    pub(super) fn wait_for_turn(&mut self, app: &mut App, fired: Ref<Invocation>) {
        let function = usize::from(self.invocations[fired].function);
        let is_serial = app.plan.functions[function].serial_by.is_some();
        if !is_serial || self.takes_place(app, fired) {
            self.queue(app, fired);
        }
    }

    /// Enters an invocation, or an attempt of one that runs beside others, into its session.
    #[inline(always)]
    pub(super) fn enter(
        &mut self,
        app: &mut App,
        firing: Firing,
        id: u64,
        inputs: impl Iterator<Item = Ref<Object>>,
    ) -> Ref<Invocation> {
        let (entered, invocation) = self.invocations.take();
        let session = &mut self.sessions[firing.session];
        let next = std::mem::replace(&mut session.invocations, entered);
        session.busy += 1;
        session.firings = session.firings.wrapping_add(1);
        session.count_invocation(app, firing.function, true);

        invocation.begin(id, &firing);
        invocation.request = Ref::NONE;
        invocation.headers = Ref::NONE;
        invocation.session_previous = Ref::NONE;
        invocation.session_next = next;
        for input in inputs {
            self.objects.hold(input);
            invocation.held.push(input);
        }
        invocation.input_count = invocation.held.len() as u32;

        app.stats.calls_waiting += u64::from(firing.is_call);
        self.root_begins(firing.root);
        if next.is_some() {
            self.invocations[next].session_previous = entered;
        }
        entered
    }

    /// Puts an invocation at the end of its function's queue.
    #[inline(always)]
    pub(super) fn queue(&mut self, app: &mut App, queued: Ref<Invocation>) {
        let invocation = &mut self.invocations[queued];
        let index = invocation.function;
        let function = &mut app.functions[usize::from(index)];
        let previous = std::mem::replace(&mut function.last, queued);
        invocation.place = Place::Queued;
        invocation.queued_ns = self.now_ns;
        invocation.queue_previous = previous;
        invocation.queue_next = Ref::NONE;
        app.stats.queued += 1;
        if previous.is_none() {
            function.first = queued;
            app.list(index);
        } else {
            self.invocations[previous].queue_next = queued;
        }
    }

    /// Queues an invocation for a further attempt.
    pub(super) fn queue_again(&mut self, app: &mut App, again: Ref<Invocation>) {
        let invocation = &mut self.invocations[again];
        invocation.near = None;
        invocation.is_call = false;
        self.queue(app, again);
    }

    /// The invocations of a session that are not finally ended.
    pub(super) fn invocations_of(
        &self,
        session: Ref<Session>,
    ) -> impl Iterator<Item = Ref<Invocation>> {
        let first = self.sessions[session].invocations.some();
        std::iter::successors(first, |&at| self.invocations[at].session_next.some())
    }

    /// Takes an invocation out of its function's queue.
    #[inline(always)]
    pub(super) fn unqueue(&mut self, app: &mut App, queued: Ref<Invocation>) {
        let invocation = &self.invocations[queued];
        let (previous, next) = (invocation.queue_previous, invocation.queue_next);
        app.stats.queued -= 1;
        app.stats.calls_waiting -= u64::from(invocation.is_call);
        let function = &mut app.functions[usize::from(invocation.function)];
        if previous.is_none() {
            function.first = next;
        }
        if next.is_none() {
            function.last = previous;
        }
        if previous.is_some() {
            self.invocations[previous].queue_next = next;
        }
        if next.is_some() {
            self.invocations[next].queue_previous = previous;
        }
    }

    /// Takes an invocation off its session's list, where it is on one: the session no longer waits
    /// for it. Answers with that session.
    #[inline]
    pub(super) fn leave_session(
        &mut self,
        app: &App,
        leaving: Ref<Invocation>,
    ) -> Option<Ref<Session>> {
        let invocation = &mut self.invocations[leaving];
        let session = std::mem::take(&mut invocation.session).some()?;
        let (previous, next) = (invocation.session_previous, invocation.session_next);
        let root = std::mem::take(&mut invocation.root);
        let of = &mut self.sessions[session];
        of.busy -= 1;
        of.count_invocation(app, invocation.function, false);
        if previous.is_some() {
            self.invocations[previous].session_next = next;
        } else {
            of.invocations = next;
        }
        if next.is_some() {
            self.invocations[next].session_previous = previous;
        }
        if root.is_some() {
            self.root_ends(root);
        }
        Some(session)
    }

    /// Ends an invocation for good, in whatever way: its holds end and its slot is free.
    #[inline]
    pub(super) fn finish<S: Sink>(
        &mut self,
        app: &mut App,
        finished: Ref<Invocation>,
        sink: &mut S,
    ) {
        app.stats.invocations_total += 1;
        let invocation = &mut self.invocations[finished];
        if !invocation.parts.is_empty() {
            invocation.parts = Vec::new();
        }
        if !invocation.join_keys.is_empty() {
            invocation.join_keys = Vec::new();
        }
        invocation.closes.clear();
        debug_assert!(invocation.line.is_none(), "its place has been passed on");
        if invocation.done.is_some() {
            self.forget(app, finished);
        }
        let invocation = &mut self.invocations[finished];
        let (request, headers) = (invocation.request, invocation.headers);
        let mut held = std::mem::take(&mut invocation.held);
        for &object in &held {
            self.drop_hold(app, object, sink);
        }
        for object in [request, headers] {
            if object.is_some() {
                self.drop_hold(app, object, sink);
            }
        }
        held.clear();
        if held.capacity() <= BUFFER_ENTRIES_KEPT {
            self.invocations[finished].held = held;
        }
        self.invocations.give(finished);
    }
}
