//! Sessions: what belongs to one external request, or to one firing of a trigger that gathers
//! across sessions, until it ends in exactly one way.
//!
//! A session is open while invocations of it are queued or running; `settle.rs` decides what
//! follows when none is. Its slot outlives its end only while its response has not been taken, or
//! while it carries tokens that others hold through it (`lineage.rs`).

use pheromone_shm::message::{HeadersRef, NO_DEADLINE};
use smallvec::SmallVec;

use crate::event::{AppId, Failure, Outcome, RequestId, SessionId, Sink};
use crate::limits::{ERROR_EVENTS_TOLD, SESSION_CHARGE_BYTES, SESSION_SLOT_BITS, SESSIONS_MAX};
use crate::local::app::App;
use crate::local::delayed::Delayed;
use crate::local::durable::{Durable, Root};
use crate::local::invocation::Invocation;
use crate::local::lineage::Lineage;
use crate::local::name::Name;
use crate::local::object::Object;
use crate::local::report::Report;
use crate::local::trigger::State;
use crate::local::upstream::After;
use crate::local::write::Write;
use crate::local::{Local, Tables, Timer};
use crate::slab::Ref;
use crate::timer::TimerId;

/// Bits of a session id that hold the generation.
const GENERATION_BITS: u32 = 32;
const _: () = assert!(8 + GENERATION_BITS + SESSION_SLOT_BITS == u64::BITS);

/// A session.
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) app: AppId,
    /// The request that opened it.
    pub(super) request: RequestId,
    pub(super) has_caller: bool,
    /// The invocation that has responded; 0: none.
    pub(super) answered_by: u64,
    /// Ended; only its response is left.
    pub(super) ended: bool,
    /// Its automatic keys can be looked up by their text.
    pub(super) has_auto_names: bool,
    /// What keeps it open, counted: invocations that are not finally ended, timers of triggers that
    /// wait, delayed objects, and reports and objects that are being written.
    pub(super) busy: u32,
    /// Invocations that have been caused in it.
    pub(super) firings: u32,
    error_events: u32,
    /// Invocations of it that wait for an object and have no answer yet.
    pub(super) waiting: u32,
    /// Tokens of it that are with triggers and sessions that its objects went into.
    pub(super) tokens: u64,
    /// Of a session that a trigger has opened.
    pub(super) lineage: Option<Box<Lineage>>,
    /// Triggers, and their buckets, that are to leave its objects out if it ends early.
    pub(super) withdraws: SmallVec<[(u16, u16); 1]>,
    pub(super) deadline_ns: u64,
    deadline: TimerId,
    pub(super) invocations: Ref<Invocation>,
    pub(super) names: Ref<Name>,
    pub(super) states: Ref<State>,
    /// Objects that are to be published later.
    pub(super) delayed: Ref<Delayed>,
    /// Reports of failures that are being written.
    pub(super) reports: Ref<Report>,
    /// Objects that are being written to disk.
    pub(super) writes: Ref<Write>,
    /// What is alive upstream of each group that closes `after` a function.
    pub(super) afters: SmallVec<[After; 2]>,
    /// Objects that its buckets hold.
    pub(super) kept: Ref<Object>,
    /// The request, where the app keeps it.
    pub(super) request_object: Ref<Object>,
    pub(super) headers: Option<HeadersRef>,
    pub(super) headers_object: Ref<Object>,
    /// What makes it durable.
    pub(super) durable: Option<Box<Durable>>,
    /// Waits until its response has been taken.
    pub(super) response_root: Ref<Root>,
    /// Payloads of the response, held until it has been taken.
    pub(super) response: SmallVec<[Ref<Object>; 1]>,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            id: SessionId(0),
            app: AppId(0),
            request: RequestId(0),
            has_caller: false,
            answered_by: 0,
            ended: false,
            has_auto_names: false,
            busy: 0,
            firings: 0,
            error_events: 0,
            waiting: 0,
            tokens: 0,
            lineage: None,
            withdraws: SmallVec::new(),
            deadline_ns: NO_DEADLINE,
            deadline: TimerId::NONE,
            invocations: Ref::NONE,
            names: Ref::NONE,
            states: Ref::NONE,
            delayed: Ref::NONE,
            reports: Ref::NONE,
            writes: Ref::NONE,
            afters: SmallVec::new(),
            kept: Ref::NONE,
            request_object: Ref::NONE,
            headers: None,
            headers_object: Ref::NONE,
            durable: None,
            response_root: Ref::NONE,
            response: SmallVec::new(),
        }
    }
}

impl Session {
    /// Whether nobody in it counts invocations by their functions, waits for objects, or looks
    /// them up by automatic keys.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.afters.is_empty() && self.waiting == 0 && !self.has_auto_names
    }
}

/// How a session ends.
#[derive(Debug)]
pub(super) enum End {
    /// Nothing keeps it open and nothing is pending: responded, completed, or a missing response.
    Quiet,
    Failed(Failure),
    TimedOut,
    Cancelled,
}

impl Local {
    /// Whether another session could be opened, over all apps.
    pub(super) fn has_room_for_session(&self) -> bool {
        self.tables.sessions.has_room(SESSIONS_MAX)
    }

    /// Opens a session; one without a request is a trigger's. `given`: under this id, which
    /// [may be used](Tables::may_number).
    pub(super) fn open_session(
        &mut self,
        app: AppId,
        request: RequestId,
        has_caller: bool,
        timeout_ns: Option<u64>,
        given: Option<SessionId>,
    ) -> Ref<Session> {
        let (opened, _) = self.tables.sessions.take();
        let id = self.tables.new_session_id(opened, given);
        let of = &mut self.apps[app];
        of.stats.sessions_open += 1;
        of.stats.sessions_total += 1;
        of.ledger.charge(SESSION_CHARGE_BYTES);
        let groups = of.plan.afters.len();
        let response = std::mem::take(&mut self.tables.sessions[opened].response);
        let mut afters = std::mem::take(&mut self.tables.sessions[opened].afters);
        afters.clear();
        afters.resize(groups, After::default());
        self.tables.sessions[opened] = Session {
            id,
            app,
            request,
            has_caller,
            response,
            afters,
            ..Session::default()
        };
        if let Some(timeout_ns) = timeout_ns {
            let deadline_ns = self.tables.now_ns.saturating_add(timeout_ns);
            let session = &mut self.tables.sessions[opened];
            session.deadline_ns = deadline_ns;
            session.deadline = self.tables.timers.arm(deadline_ns, Timer::Deadline(opened));
        }
        opened
    }

    /// Ends a session: tells its caller, drops what is queued, cancels what runs, frees the rest.
    pub(super) fn end_session<S: Sink>(&mut self, ending: Ref<Session>, end: &End, sink: &mut S) {
        self.tell_end(ending, end, sink);
        let session = &mut self.tables.sessions[ending];
        session.ended = true;
        self.tables.timers.cancel(&mut session.deadline);
        let root = std::mem::take(&mut session.response_root);
        if root.is_some() {
            self.tables.root_ends(root);
        }
        self.drop_invocations(ending, sink);
        let app = &mut self.apps[self.tables.sessions[ending].app];
        self.tables.drop_states(app, ending, sink);
        self.tables.drop_delayed(app, ending, sink);
        self.tables.drop_reports(app, ending, sink);
        self.tables.leave_writes(ending);
        self.tables.drop_objects(app, ending, sink);
        app.stats.sessions_open -= 1;
        app.ledger.refund(SESSION_CHARGE_BYTES);
        app.lingering += 1;
        self.tables.pass_end_on(app, ending, end);
        self.tables.give_if_done(app, ending);
    }

    fn tell_end<S: Sink>(&mut self, ending: Ref<Session>, end: &End, sink: &mut S) {
        let session = &self.tables.sessions[ending];
        let answered = session.answered_by != 0;
        let app = &mut self.apps[session.app];
        let unanswered;
        let (outcome, total) = match end {
            End::Quiet if answered => (Outcome::Responded, &mut app.stats.responded_total),
            End::Quiet if session.has_caller && app.spec.response_required => {
                unanswered = Failure {
                    function: None,
                    invocation: 0,
                    attempt: 0,
                    cause: crate::event::Cause::NoResponse,
                    executor: None,
                };
                (Outcome::Failed(&unanswered), &mut app.stats.failed_total)
            }
            End::Quiet => (Outcome::Completed, &mut app.stats.completed_total),
            End::Failed(failure) => (Outcome::Failed(failure), &mut app.stats.failed_total),
            End::TimedOut => (Outcome::TimedOut, &mut app.stats.timed_out_total),
            End::Cancelled => (Outcome::Cancelled, &mut app.stats.cancelled_total),
        };
        *total += 1;
        sink.ended(session.app, session.request, session.id, &outcome, answered);
    }

    fn drop_invocations<S: Sink>(&mut self, ending: Ref<Session>, sink: &mut S) {
        while let Some(dropped) = self.tables.sessions[ending].invocations.some() {
            self.cancel_invocation(dropped, sink);
        }
    }

    /// The node has read a response: its payloads are no longer held.
    pub(super) fn response_taken<S: Sink>(
        &mut self,
        request: RequestId,
        id: SessionId,
        sink: &mut S,
    ) {
        let Some(taken) = self.tables.session_or_remains(id) else {
            return;
        };
        let session = &mut self.tables.sessions[taken];
        if session.request != request {
            return;
        }
        let root = std::mem::take(&mut session.response_root);
        let is_empty = session.response.is_empty();
        if root.is_some() {
            self.tables.root_ends(root);
        }
        if is_empty {
            return;
        }
        let session = &self.tables.sessions[taken];
        let app = session.app;
        while let Some(part) = self.tables.sessions[taken].response.pop() {
            self.tables.drop_hold(&mut self.apps[app], part, sink);
        }
        self.tables.give_if_done(&mut self.apps[app], taken);
        self.forget_if_empty(app, sink);
    }

    /// Something is wrong in a session that goes on. The first few are told in words.
    pub(super) fn error_event<S: Sink>(
        &mut self,
        session: Ref<Session>,
        text: impl FnOnce(&Tables, &App) -> String,
        sink: &mut S,
    ) {
        let app = self.tables.sessions[session].app;
        self.tables
            .error_event(&mut self.apps[app], session, text, sink);
    }
}

impl Tables {
    /// As [`Local::error_event`].
    pub(super) fn error_event<S: Sink>(
        &mut self,
        app: &mut App,
        session: Ref<Session>,
        text: impl FnOnce(&Self, &App) -> String,
        sink: &mut S,
    ) {
        let of = &mut self.sessions[session];
        of.error_events = of.error_events.saturating_add(1);
        let (id, told, count) = (of.app, of.id, of.error_events);
        app.stats.error_events_total += 1;
        if count <= ERROR_EVENTS_TOLD {
            sink.error_event(id, told, &text(self, app));
        }
    }

    /// The session of this id, while it is open.
    #[inline]
    pub(super) fn session(&self, id: SessionId) -> Option<Ref<Session>> {
        let found = self.session_or_remains(id)?;
        (!self.sessions[found].ended).then_some(found)
    }

    fn new_session_id(&mut self, opened: Ref<Session>, given: Option<SessionId>) -> SessionId {
        let scheduler = u64::from(self.scheduler_index) << (GENERATION_BITS + SESSION_SLOT_BITS);
        let Some(numbered) = &mut self.numbered else {
            let generation = u64::from(self.sessions.generation(opened));
            let slot = u64::from(opened.slot());
            return SessionId(scheduler | generation << SESSION_SLOT_BITS | slot);
        };
        let id = given.unwrap_or_else(|| SessionId(scheduler | numbered.take()));
        numbered.enter(id, opened);
        id
    }

    /// Whether a session may be opened under an id that is given.
    pub(super) fn may_number(&self, id: SessionId) -> bool {
        let numbered = self.numbered.as_ref();
        let is_free = numbered.is_some_and(|numbered| numbered.find(id).is_none());
        is_free && !id.0.is_multiple_of(2) && crate::level::home(id) == self.scheduler_index
    }

    /// The session of this id, while it is open or something of it is left.
    pub(super) fn session_or_remains(&self, id: SessionId) -> Option<Ref<Session>> {
        if let Some(numbered) = &self.numbered {
            return numbered.find(id);
        }
        let slot = (id.0 & u64::from(SESSIONS_MAX - 1)) as u32;
        let generation = (id.0 >> SESSION_SLOT_BITS) as u32;
        let found = self.sessions.find(slot, generation)?;
        (self.sessions[found].id == id).then_some(found)
    }

    /// Frees the slot of an ended session of which nothing is left.
    pub(super) fn give_if_done(&mut self, app: &mut App, done: Ref<Session>) {
        let session = &self.sessions[done];
        if session.ended && session.response.is_empty() && !session.is_carrying() {
            let id = session.id;
            self.return_carried(done, None);
            if let Some(numbered) = &mut self.numbered {
                numbered.leave(id);
            }
            self.sessions.give(done);
            app.lingering -= 1;
        }
    }

    fn drop_objects<S: Sink>(&mut self, app: &mut App, ending: Ref<Session>, sink: &mut S) {
        let session = &mut self.sessions[ending];
        let mut names = std::mem::take(&mut session.names);
        while names.is_some() {
            app.names -= 1;
            if let Some(object) = self.names.remove_first(&mut names) {
                self.objects[object].name = Ref::NONE;
            }
        }
        while let Some(kept) = self.sessions[ending].kept.some() {
            self.drop_kept(app, kept, ending, sink);
        }
        let session = &mut self.sessions[ending];
        let request = std::mem::take(&mut session.request_object);
        let headers = std::mem::take(&mut session.headers_object);
        #[cfg(feature = "planted-bugs")]
        let request = match self.planted {
            Some(crate::planted::Planted::LeftAtSessionEnd) => Ref::NONE,
            _ => request,
        };
        for object in [request, headers] {
            if object.is_some() {
                self.drop_hold(app, object, sink);
            }
        }
    }

    /// The bucket holds an object until its session ends.
    pub(super) fn keep(&mut self, kept: Ref<Object>, session: Ref<Session>) {
        self.objects.hold(kept);
        let next = std::mem::replace(&mut self.sessions[session].kept, kept);
        if next.is_some() {
            self.objects[next].kept_previous = kept;
        }
        let object = &mut self.objects[kept];
        object.kept = true;
        object.kept_previous = Ref::NONE;
        object.kept_next = next;
    }

    /// The bucket's hold ends.
    pub(super) fn drop_kept<S: Sink>(
        &mut self,
        app: &mut App,
        kept: Ref<Object>,
        session: Ref<Session>,
        sink: &mut S,
    ) {
        let object = &mut self.objects[kept];
        object.kept = false;
        let (previous, next) = (object.kept_previous, object.kept_next);
        if previous.is_some() {
            self.objects[previous].kept_next = next;
        } else {
            self.sessions[session].kept = next;
        }
        if next.is_some() {
            self.objects[next].kept_previous = previous;
        }
        self.drop_hold(app, kept, sink);
    }
}
