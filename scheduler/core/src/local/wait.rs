//! Waiting in `phr_get`: for an object that somebody of the same session is to publish.
//!
//! Who waits gives its executor slot up, so that another process may run in its place, and keeps
//! its place in `max_concurrency` and in a serial line. It is answered as soon as there is an
//! answer: the object, that the time is over, that nothing is left which could publish it; it goes
//! on once fewer than `executors.max` run, before anything that is queued. So a pool full of
//! waiters stands still only for as long as somebody else can run.

use std::collections::VecDeque;

use pheromone_shm::message::ToExecutor;

use crate::event::{AppId, ExecutorId, Sink};
use crate::local::afterwards::Afterwards;
use crate::local::app::App;
use crate::local::executor::State;
use crate::local::invocation::{Invocation, Place};
use crate::local::message::status;
use crate::local::object::Object;
use crate::local::session::Session;
use crate::local::{Local, Tables, Timer};
use crate::slab::Ref;
use crate::timer::TimerId;

/// What an executor waits for.
pub(super) struct Wait {
    session: Ref<Session>,
    bucket: u16,
    key: Box<[u8]>,
    timer: TimerId,
    /// What it will be told once it may go on: the object, held for it, or why there is none.
    answer: Option<Result<Ref<Object>, i32>>,
}

/// The executors of an app that wait.
#[derive(Default)]
pub(super) struct Waits {
    /// Those without an answer, in the order in which they began to wait.
    unanswered: Vec<u16>,
    /// Those who have one and wait for a slot, in the order of their answers.
    answered: VecDeque<u16>,
}

impl Waits {
    pub(super) fn count(&self) -> usize {
        self.unanswered.len() + self.answered.len()
    }

    /// How many could go on.
    pub(super) fn answered(&self) -> usize {
        self.answered.len()
    }

    /// Whether somebody could go on.
    #[inline]
    pub(super) fn has_answered(&self) -> bool {
        !self.answered.is_empty()
    }

    fn forget(&mut self, slot: u16) {
        self.unanswered.retain(|&other| other != slot);
        self.answered.retain(|&other| other != slot);
    }
}

impl App {
    /// Whether as many executors run as may.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.pool.busy >= self.share.executors.max
    }

    /// As many processes as there may be: another one for each that waits.
    #[inline]
    pub(super) fn processes_max(&self) -> u16 {
        self.share.executors.max + self.pool.waiting
    }
}

impl Local {
    /// An executor waits for an object that is not there; or is told why it does not.
    #[cold]
    pub(super) fn wait<S: Sink>(
        &mut self,
        id: ExecutorId,
        (session, bucket, key): (Ref<Session>, u16, &[u8]),
        timeout_ns: u64,
        sink: &mut S,
    ) -> Result<(), i32> {
        let app = &mut self.apps[id.app];
        if !app.plan.buckets[usize::from(bucket)].keeps {
            // What the bucket does not keep is found by nobody, whenever it comes.
            return Err(status::ENOENT);
        }
        if !app.plan.buckets[usize::from(bucket)].is_durable
            && self.tables.is_gone(session, bucket, key)
        {
            return Err(status::ENOENT);
        }
        if app.waits.count() >= usize::from(app.share.limits.waiters) {
            return Err(status::EAGAIN);
        }
        let timer = match self.tables.now_ns.checked_add(timeout_ns) {
            Some(due_ns) => self.tables.timers.arm(due_ns, Timer::Wait(id)),
            None => TimerId::NONE,
        };
        app.executor(id.slot).wait = Some(Box::new(Wait {
            session,
            bucket,
            key: key.into(),
            timer,
            answer: None,
        }));
        app.waits.unanswered.push(id.slot);
        app.set_state(id.slot, State::Waiting);
        self.tables.sessions[session].waiting += 1;
        self.withdraw_spin(id, sink);
        self.look_at_waits(session);
        self.resume_waiting(id.app, sink);
        self.dispatch_ready(id.app, sink);
        Ok(())
    }

    /// The time of a wait is over.
    pub(super) fn wait_timer<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) {
        let app = &mut self.apps[id.app];
        if let Some(wait) = &mut app.executor(id.slot).wait {
            wait.timer = TimerId::NONE;
        }
        self.tables
            .answer_wait(app, id.slot, Err(status::ETIMEDOUT));
        self.resume_waiting(id.app, sink);
    }

    /// Something of a session has ended, or has come to wait for a place: those of it who wait are
    /// looked at, and go on where that is told them.
    pub(super) fn tell_waits<S: Sink>(&mut self, session: Ref<Session>, sink: &mut S) {
        let of = &self.tables.sessions[session];
        if of.waiting > 0 {
            let app = of.app;
            self.look_at_waits(session);
            self.resume_waiting(app, sink);
        }
    }

    /// Where nothing is left that could publish anything in a session, those of it who wait are
    /// told so.
    fn look_at_waits(&mut self, session: Ref<Session>) {
        let app = &mut self.apps[self.tables.sessions[session].app];
        if self.tables.could_publish(app, session) {
            return;
        }
        for slot in app.waits.unanswered.clone() {
            if app.executor(slot).waits_in(session) {
                self.tables.answer_wait(app, slot, Err(status::ENOENT));
            }
        }
    }

    /// Lets those go on who have an answer, while there are slots.
    #[inline]
    pub(super) fn resume_waiting<S: Sink>(&mut self, app: AppId, sink: &mut S) {
        if self.apps[app].waits.has_answered() {
            self.resume_answered(app, sink);
        }
    }

    #[cold]
    fn resume_answered<S: Sink>(&mut self, app: AppId, sink: &mut S) {
        while !self.apps[app].is_full()
            && let Some(&slot) = self.apps[app].waits.answered.front()
        {
            self.resume(ExecutorId { app, slot }, sink);
        }
        if self.apps[app].waits.has_answered() && self.apps[app].may_ask() {
            self.tell_wants(app);
        }
    }

    /// A waiting executor goes on, with its answer.
    fn resume<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) {
        let app = &mut self.apps[id.app];
        app.waits.forget(id.slot);
        let Some(mut wait) = app.executor(id.slot).wait.take() else {
            return;
        };
        let open = app.executor(id.slot).open;
        let (status, input) = match wait.answer.take() {
            Some(Ok(found)) => {
                // The hold that was taken with the answer becomes the invocation's.
                self.tables.invocations[open].held.push(found);
                (0, Some(self.tables.objects[found].input()))
            }
            Some(Err(status)) => (status, None),
            None => (status::ECANCELED, None),
        };
        sink.send(id, &ToExecutor::Object { status, input });
        app.set_state(id.slot, State::Busy);
        let core = app.executor(id.slot).core;
        self.use_core(id, core, sink);
    }

    /// The invocation of a waiting executor is cancelled: it goes on at once, also where that is
    /// one more than may run, since its time to stop has begun. At its session's deadline it is
    /// the time that is over.
    pub(super) fn cancel_wait<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) {
        let app = &mut self.apps[id.app];
        let tables = &mut self.tables;
        let wait = app.executor(id.slot).wait.as_ref();
        let is_late =
            wait.is_some_and(|wait| tables.now_ns >= tables.sessions[wait.session].deadline_ns);
        let why = if is_late {
            status::ETIMEDOUT
        } else {
            status::ECANCELED
        };
        tables.drop_wait_answer(app, id.slot, Err(why), sink);
        self.resume(id, sink);
    }

    /// A waiting executor is killed: nobody waits any more.
    pub(super) fn stop_waiting<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) {
        let app = &mut self.apps[id.app];
        if app.executor(id.slot).wait.is_none() {
            return;
        }
        self.tables
            .drop_wait_answer(app, id.slot, Err(status::ECANCELED), sink);
        app.waits.forget(id.slot);
        app.executor(id.slot).wait = None;
    }
}

impl Tables {
    /// An object has come into a bucket of a session: whoever waits for it is answered.
    #[cold]
    pub(super) fn answer_waits(&mut self, app: &mut App, session: Ref<Session>, bucket: u16) {
        for slot in app.waits.unanswered.clone() {
            let executor = app.executor(slot);
            let Some(wait) = executor.wait.as_ref().filter(|wait| {
                wait.session == session && wait.bucket == bucket && wait.answer.is_none()
            }) else {
                continue;
            };
            let key = wait.key.clone();
            if let Some(found) = self.find_kept(app, session, bucket, &key) {
                self.objects.hold(found);
                self.answer_wait(app, slot, Ok(found));
                let app = app.id;
                self.afterwards.push_back(Afterwards::Resume { app });
            }
        }
    }

    /// Gives a waiting executor its answer, with a hold of the object; it hears it when it goes on.
    fn answer_wait(&mut self, app: &mut App, slot: u16, answer: Result<Ref<Object>, i32>) {
        let Some(wait) = app.executor(slot).wait.as_mut() else {
            return;
        };
        if wait.answer.is_some() {
            return;
        }
        wait.answer = Some(answer);
        self.timers.cancel(&mut wait.timer);
        self.sessions[wait.session].waiting -= 1;
        app.waits.unanswered.retain(|&other| other != slot);
        app.waits.answered.push_back(slot);
    }

    /// Replaces whatever answer a waiting executor has.
    fn drop_wait_answer<S: Sink>(
        &mut self,
        app: &mut App,
        slot: u16,
        answer: Result<Ref<Object>, i32>,
        sink: &mut S,
    ) {
        self.answer_wait(app, slot, answer);
        let wait = app.executor(slot).wait.as_mut();
        if let Some(Ok(held)) = wait.and_then(|wait| wait.answer.replace(answer)) {
            self.drop_hold(app, held, sink);
        }
    }

    /// Whether an identity is taken, so that nobody can publish it again, and its object is no
    /// longer kept.
    fn is_gone(&self, session: Ref<Session>, bucket: u16, key: &[u8]) -> bool {
        let id = self.sessions[session].id;
        let Some(name) = self.names.find(id, bucket, key) else {
            return false;
        };
        let object = self.names.object(name);
        object.is_none_or(|object| !self.objects[object].is_coming)
    }

    /// Whether something is left in a session that could publish: an invocation that runs or will,
    /// a delayed object, or a timer.
    fn could_publish(&mut self, app: &App, session: Ref<Session>) -> bool {
        let mut live = 0;
        for at in self.invocations_of(session) {
            live += 1;
            let invocation = &self.invocations[at];
            let could = match invocation.place {
                Place::Running(slot) => {
                    !app.executors[usize::from(slot)].waits_in(session) || self.has_armed_rule(at)
                }
                Place::Queued => self.has_room_beside_waiters(app, session, invocation.function),
                Place::InLine => {
                    let width = app.spec.functions[usize::from(invocation.function)].serial_width;
                    let held =
                        self.held_by_waiters(app, session, |waiter| waiter.line == invocation.line);
                    held < width && self.has_room_beside_waiters(app, session, invocation.function)
                }
                Place::Backoff(_) | Place::Resting | Place::Recording | Place::Offered(_) => true,
            };
            if could {
                return true;
            }
        }
        // Whatever else keeps the session open can still lead to something.
        if self.sessions[session].busy > live {
            return true;
        }
        let mut next = self.sessions[session].states;
        while let Some(at) = next.some() {
            let state = self.states.get(at);
            if state.is_timed() {
                return true;
            }
            next = state.next;
        }
        false
    }

    /// Whether a function has a place in `max_concurrency` that no waiter of a session holds.
    fn has_room_beside_waiters(&self, app: &App, session: Ref<Session>, function: u16) -> bool {
        let held = self.held_by_waiters(app, session, |waiter| waiter.function == function);
        held < app.functions[usize::from(function)].running_max
    }

    /// Places of a kind that are held by those of a session who wait without an answer.
    fn held_by_waiters(
        &self,
        app: &App,
        session: Ref<Session>,
        is_held: impl Fn(&Invocation) -> bool,
    ) -> u32 {
        let waiters = app.waits.unanswered.iter();
        let of_session = waiters.filter(|&&slot| {
            let executor = &app.executors[usize::from(slot)];
            executor.waits_in(session) && is_held(&self.invocations[executor.open])
        });
        of_session.count() as u32
    }
}

impl crate::local::executor::Executor {
    /// Whether it waits, without an answer, for an object of this session.
    fn waits_in(&self, session: Ref<Session>) -> bool {
        let wait = self.wait.as_ref();
        wait.is_some_and(|wait| wait.session == session && wait.answer.is_none())
    }
}
