//! Invocations: one run of one function over its inputs, from its firing to its final end.
//!
//! An invocation holds its inputs, and what it gets while it runs, until it is finally ended, also
//! when its session has ended before: a running function may still read them.

use pheromone_shm::message::{NO_TRIGGER, REQUEST_OBJECT};
use smallvec::SmallVec;

use crate::event::{AppId, SessionId, Sink};
use crate::limits::BUFFER_ENTRIES_KEPT;
use crate::local::Local;
use crate::local::object::Object;
use crate::local::session::Session;
use crate::slab::Ref;

/// An invocation.
pub(super) struct Invocation {
    /// The same for all attempts.
    pub(super) id: u64,
    pub(super) app: AppId,
    pub(super) session: SessionId,
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
    pub(super) queued_ns: u64,
    /// Slot of the executor that wrote its data.
    pub(super) near: Option<u16>,
    /// It is the first of an external call.
    pub(super) is_call: bool,
    queue_previous: Ref<Invocation>,
    pub(super) queue_next: Ref<Invocation>,
    session_previous: Ref<Invocation>,
    session_next: Ref<Invocation>,
}

/// Where an invocation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In its function's queue.
    Queued,
    /// On this executor.
    Running(u16),
}

impl Default for Invocation {
    fn default() -> Self {
        Self {
            id: 0,
            app: AppId(0),
            session: SessionId(0),
            function: 0,
            trigger: NO_TRIGGER,
            attempt: 1,
            place: Place::Queued,
            held: SmallVec::new(),
            input_count: 0,
            request: Ref::NONE,
            headers: Ref::NONE,
            parts: Vec::new(),
            queued_ns: 0,
            near: None,
            is_call: false,
            queue_previous: Ref::NONE,
            queue_next: Ref::NONE,
            session_previous: Ref::NONE,
            session_next: Ref::NONE,
        }
    }
}

impl Invocation {
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
    pub(super) near: Option<u16>,
    pub(super) is_call: bool,
}

impl Local {
    /// Queues an invocation with one input.
    #[inline]
    pub(super) fn fire_one(&mut self, firing: Firing, input: Ref<Object>) {
        self.fire(firing, std::iter::once(input));
    }

    /// Queues an invocation with these inputs, in this order, a hold on each.
    pub(super) fn fire(&mut self, firing: Firing, inputs: impl Iterator<Item = Ref<Object>>) {
        self.last_invocation += 1;
        let queued = self.invocations.take();
        let session = &mut self.sessions[firing.session];
        let invocation = &mut self.invocations[queued];
        invocation.id = self.last_invocation;
        invocation.app = session.app;
        invocation.session = session.id;
        invocation.function = firing.function;
        invocation.trigger = firing.trigger;
        invocation.attempt = 1;
        invocation.place = Place::Queued;
        invocation.queued_ns = self.now_ns;
        invocation.near = firing.near;
        invocation.is_call = firing.is_call;
        invocation.request = Ref::NONE;
        invocation.headers = Ref::NONE;
        for input in inputs {
            self.objects.hold(input);
            invocation.held.push(input);
        }
        invocation.input_count = invocation.held.len() as u32;
        session.busy += 1;
        let next = std::mem::replace(&mut session.invocations, queued);
        invocation.session_previous = Ref::NONE;
        invocation.session_next = next;
        invocation.queue_next = Ref::NONE;

        let app = &mut self.apps[session.app];
        app.stats.queued += 1;
        app.stats.calls_waiting += u64::from(firing.is_call);
        let function = &mut app.functions[usize::from(firing.function)];
        let previous = std::mem::replace(&mut function.last, queued);
        invocation.queue_previous = previous;
        if previous.is_none() {
            function.first = queued;
            app.list(firing.function);
        } else {
            self.invocations[previous].queue_next = queued;
        }
        if next.is_some() {
            self.invocations[next].session_previous = queued;
        }
    }

    /// Takes an invocation out of its function's queue.
    pub(super) fn unqueue(&mut self, queued: Ref<Invocation>) {
        let invocation = &self.invocations[queued];
        let (previous, next) = (invocation.queue_previous, invocation.queue_next);
        let app = &mut self.apps[invocation.app];
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

    /// Takes an invocation off its session's list: the session no longer waits for it.
    pub(super) fn leave_session(&mut self, leaving: Ref<Invocation>, session: Ref<Session>) {
        let invocation = &self.invocations[leaving];
        let (previous, next) = (invocation.session_previous, invocation.session_next);
        self.sessions[session].busy -= 1;
        if previous.is_some() {
            self.invocations[previous].session_next = next;
        } else {
            self.sessions[session].invocations = next;
        }
        if next.is_some() {
            self.invocations[next].session_previous = previous;
        }
    }

    /// Ends an invocation for good, in whatever way: its holds end and its slot is free.
    pub(super) fn finish<S: Sink>(&mut self, finished: Ref<Invocation>, sink: &mut S) {
        let invocation = &mut self.invocations[finished];
        let (request, headers) = (invocation.request, invocation.headers);
        if !invocation.parts.is_empty() {
            invocation.parts = Vec::new();
        }
        self.apps[invocation.app].stats.invocations_total += 1;
        for at in 0..self.invocations[finished].held.len() {
            let held = self.invocations[finished].held[at];
            self.drop_hold(held, sink);
        }
        for object in [request, headers] {
            if object.is_some() {
                self.drop_hold(object, sink);
            }
        }
        let held = &mut self.invocations[finished].held;
        held.clear();
        if held.capacity() > BUFFER_ENTRIES_KEPT {
            *held = SmallVec::new();
        }
        self.invocations.give(finished);
    }
}
