//! Dispatch: which queued invocation starts next, and on which executor.
//!
//! Priorities are strict, functions of one priority take turns, invocations of one function go in
//! order of firing. An executor that has the function loaded goes before one that is near the
//! data, that before one that is merely awake. While every awake executor is busy work waits for
//! one of them, until `forward_delay` has passed: a wake costs more than most functions take.

use pheromone_shm::message::{Dispatch, Ending, NO_DEADLINE, NO_TRIGGER};

use crate::event::{AppId, ExecutorId, Sink};
use crate::limits::SLEEPERS_LOOKED_AT;
use crate::local::app::App;
use crate::local::attempt::Fate;
use crate::local::executor::{ExecutorList, State};
use crate::local::invocation::{Invocation, Place};
use crate::local::judge::Fault;
use crate::local::object::Object;
use crate::local::session::Session;
use crate::local::{Local, Tables, Timer};
use crate::slab::{Ref, Slab};
use crate::timer::TimerId;

/// How an attempt came back.
#[derive(Clone, Copy)]
pub(super) struct Completion<'a> {
    pub(super) status: i32,
    pub(super) ending: Ending,
    pub(super) discarded: u32,
    pub(super) message: &'a [u8],
}

impl Completion<'_> {
    /// Whether the function was there to be run.
    fn has_run(&self) -> bool {
        !matches!(self.ending, Ending::NotLoaded | Ending::InitFailed)
    }

    fn has_failed(&self) -> bool {
        self.status != 0 || !self.has_run()
    }
}

impl Local {
    /// Starts what is queued while an executor can be had for it.
    #[inline(always)]
    pub(super) fn dispatch_ready<S: Sink>(&mut self, app: AppId, sink: &mut S) {
        let of = &self.apps[app];
        if of.ready.is_empty() {
            return;
        }
        let must_wait = if self.fair.is_only(app) {
            of.must_wait()
        } else {
            self.must_share(app, sink) || self.apps[app].must_wait()
        };
        if !must_wait {
            self.dispatch_listed(app, sink);
        }
    }

    fn dispatch_listed<S: Sink>(&mut self, app: AppId, sink: &mut S) {
        loop {
            let of = &mut self.apps[app];
            let Some(function) = of.next_ready() else {
                return;
            };
            if of.is_full() || of.awake.is_empty() && of.pool.busy > 0 {
                break;
            }
            let next = of.functions[usize::from(function)].first;
            let Some(slot) = choose(of, function, self.tables.invocations[next].near) else {
                break;
            };
            self.start(ExecutorId { app, slot }, next, sink);
        }
        self.wait_for_executor(app, sink);
    }

    /// Starts an invocation on an executor, which is the one of its core that may spin from now on.
    pub(super) fn start<S: Sink>(
        &mut self,
        id: ExecutorId,
        started: Ref<Invocation>,
        sink: &mut S,
    ) {
        let app = &mut self.apps[id.app];
        if app.plan.in_place.is_used() {
            let invocation = &self.tables.invocations[started];
            self.grant(id, (invocation.function, invocation.session), sink);
        }
        let app = &mut self.apps[id.app];
        self.tables.start(app, id.slot, started, sink);
        let core = app.executor(id.slot).core;
        self.use_core(id, core, sink);
    }

    /// The open attempt of an executor has come back: its next work goes out first, then the
    /// books of this one are closed.
    #[inline]
    pub(super) fn complete<S: Sink>(
        &mut self,
        id: ExecutorId,
        completion: &Completion<'_>,
        sink: &mut S,
    ) -> Result<(), Fault> {
        let app = &mut self.apps[id.app];
        let executor = app.executor(id.slot);
        let finished = executor.open("Complete")?;
        if executor.offer.is_some() {
            self.leave_offer(id, sink);
            return self.complete(id, completion, sink);
        }
        executor.open = Ref::NONE;
        self.tables.timers.cancel(&mut executor.timer);
        executor.loading = false;
        executor.completed = executor.completed.saturating_add(1);
        let invocation = &self.tables.invocations[finished];
        let function = invocation.function;
        if completion.has_run() {
            executor.set_loaded(function);
        }
        app.stopped_running(function);
        app.stats.discarded_total += u64::from(completion.discarded);
        let mut fate = Fate::Ends;
        if completion.has_failed() {
            fate = self.attempt_returned(finished, id, completion, sink);
        } else if invocation.done.is_some() {
            fate = self.watched_succeeded(finished, id, sink);
        } else if !invocation.closes.is_empty() {
            self.tables
                .close_sources(&mut self.apps[id.app], finished, sink);
        }
        let app = &mut self.apps[id.app];
        if fate == Fate::Ends && self.tables.invocations[finished].line.is_some() {
            self.tables.pass_place(app, finished);
        }
        self.tables.trim_credit(app, id.slot, sink);
        if completion.ending == Ending::Returned {
            self.take_next(id, sink);
        } else {
            if !completion.has_run() {
                self.load_failed(
                    id.app,
                    function,
                    &String::from_utf8_lossy(completion.message),
                );
                self.tell_trouble(id.app, sink);
            }
            self.tell_to_leave(id, sink);
            self.resume_waiting(id.app, sink);
        }

        let app = &mut self.apps[id.app];
        if app.pool.has_failed() && completion.has_run() {
            self.processes_work(id.app, sink);
        }
        let app = &mut self.apps[id.app];
        self.tables.look_at_waiters(app);
        if fate == Fate::RunsAgain {
            self.dispatch_ready(id.app, sink);
            return Ok(());
        }
        let session = self.tables.leave_session(app, finished);
        self.dispatch_ready(id.app, sink);
        let app = &mut self.apps[id.app];
        self.tables.finish(app, finished, sink);
        if let Some(session) = session {
            self.settle(session, sink);
        }
        Ok(())
    }

    /// The next invocation for an executor that has nothing open and is awake; idleness if there
    /// is none. Whatever else is idle has been offered the queue before, so there is no choice.
    #[inline(always)]
    pub(super) fn take_next<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) {
        if self.fair.is_shared() {
            return self.take_next_shared(id, sink);
        }
        let app = &mut self.apps[id.app];
        if app.pool.taken > app.share.executors.max {
            return self.take_next_of_many(id, sink);
        }
        let stays = !app.removing && !app.executor(id.slot).dying;
        match app.next_ready() {
            Some(function) if stays => {
                let next = app.functions[usize::from(function)].first;
                self.start(id, next, sink);
            }
            _ => self.become_free(id, sink),
        }
    }

    /// The same while several apps share: what is queued waits for the end of the step.
    #[cold]
    fn take_next_shared<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) {
        self.fair.note_freed(id);
        self.become_free(id, sink);
        self.resume_waiting(id.app, sink);
    }

    /// The same where there are more processes than may run, since some wait or have waited: those
    /// go before what is queued.
    #[cold]
    fn take_next_of_many<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) {
        self.become_free(id, sink);
        self.resume_waiting(id.app, sink);
        self.dispatch_ready(id.app, sink);
    }

    /// Work is left over: somebody must come for it, now or after `forward_delay`.
    pub(super) fn wait_for_executor<S: Sink>(&mut self, app: AppId, sink: &mut S) {
        let of = &self.apps[app];
        let pool = &of.pool;
        let may_ask = of.may_ask();
        if pool.busy + pool.idle + pool.coming == 0 && !may_ask {
            self.grow(app, sink);
            return;
        }
        if of.forward_timer != TimerId::NONE {
            return;
        }
        let may_grow = self.may_grow(app);
        if !may_grow && self.wants_to_grow(app) {
            // Barred by a pause between starts: this is looked at again when it is over.
            self.grow(app, sink);
        }
        let of = &mut self.apps[app];
        if !of.asleep.is_empty() || may_grow || may_ask || of.has_grants() {
            // Never in this step, in which a delay of nothing would be due for ever.
            let delay_ns = of.spec.limits.forward_delay_ns.max(1);
            let deadline_ns = self.tables.now_ns.saturating_add(delay_ns);
            of.forward_timer = self.tables.timers.arm(deadline_ns, Timer::Forward(app));
        }
    }

    /// Work that has waited `forward_delay` gets a sleeping executor, or the coordinator is told.
    pub(super) fn forward_timer<S: Sink>(&mut self, app: AppId, sink: &mut S) {
        self.apps[app].forward_timer = TimerId::NONE;
        self.start_overdue(app, sink);
    }

    /// Starts what has waited `forward_delay` on an executor that sleeps, or has the coordinator
    /// told. Whoever goes on by itself has had its time.
    pub(super) fn start_overdue<S: Sink>(&mut self, app: AppId, sink: &mut S) {
        if self.tables.overdue(&self.apps[app]).is_some() {
            self.revoke_all(app, sink);
        }
        while !self.apps[app].is_full() {
            let of = &self.apps[app];
            let Some(first) = self.tables.overdue(of) else {
                break;
            };
            match self.tables.sleeper_for(of, first) {
                Some(_) if self.fair.is_shared() => break,
                Some(slot) => self.start(ExecutorId { app, slot }, first, sink),
                None => {
                    if self.may_grow(app) {
                        self.tables.overflow_to_coordinator(app);
                    }
                    break;
                }
            }
        }
        if self.apps[app].may_ask() && self.tables.overdue(&self.apps[app]).is_some() {
            self.tell_wants(app);
        }
        self.dispatch_ready(app, sink);
    }

    /// What an app may start next, and where, in a step whose starts are left to its end.
    pub(super) fn next_start(&mut self, app: AppId) -> Option<(ExecutorId, Ref<Invocation>)> {
        let of = &mut self.apps[app];
        if of.is_full() {
            return None;
        }
        let function = of.next_ready()?;
        let first = of.functions[usize::from(function)].first;
        let freed = self.fair.freed_slot(app);
        let freed = freed.filter(|&slot| of.executor(slot).state == State::Idle);
        let (slot, next) = if let Some(slot) = freed {
            (slot, first)
        } else if of.awake.is_empty() && of.pool.busy > 0 {
            let overdue = self.tables.overdue(of)?;
            (self.tables.sleeper_for(of, overdue)?, overdue)
        } else {
            let near = self.tables.invocations[first].near;
            (choose(of, function, near)?, first)
        };
        Some((ExecutorId { app, slot }, next))
    }
}

impl Tables {
    /// The first that has waited `forward_delay` for an awake executor.
    fn overdue(&self, app: &App) -> Option<Ref<Invocation>> {
        let delay_ns = app.spec.limits.forward_delay_ns;
        app.ready_functions()
            .map(|function| app.functions[usize::from(function)].first)
            .find(|&first| {
                let due_ns = self.invocations[first].queued_ns.saturating_add(delay_ns);
                due_ns <= self.now_ns
            })
    }

    /// The sleeping executor to be woken for an invocation.
    fn sleeper_for(&self, app: &App, woken_for: Ref<Invocation>) -> Option<u16> {
        let invocation = &self.invocations[woken_for];
        let found = best(app, &app.asleep, invocation.function, invocation.near);
        found.map(|(slot, _)| slot)
    }

    /// Starts an invocation on an executor. The message goes first; the books follow.
    #[inline]
    fn start<S: Sink>(&mut self, app: &mut App, slot: u16, started: Ref<Invocation>, sink: &mut S) {
        let id = app.executor_id(slot);
        let invocation = &self.invocations[started];
        let function = invocation.function;
        let session = &self.sessions[invocation.session];
        let objects = &self.objects;
        let dispatch = Dispatch {
            trigger: invocation.trigger,
            attempt: invocation.attempt,
            invocation: invocation.id,
            input_count: invocation.input_count,
            window: invocation
                .window
                .map(|window| (window.start_ns, window.end_ns)),
            ..dispatch_in(app, session, objects, function)
        };
        let inputs = invocation.held.iter().map(|&held| objects[held].input());
        sink.dispatch(id, &dispatch, inputs);
        let kept = [session.request_object, session.headers_object];
        self.unqueue(app, started);
        self.note_start(app, slot, started, kept);
    }

    /// The books of an invocation that an executor has been told to start, or has started. `kept`:
    /// the session's request and its headers.
    #[inline(always)]
    pub(super) fn note_start(
        &mut self,
        app: &mut App,
        slot: u16,
        started: Ref<Invocation>,
        kept @ [request, headers]: [Ref<Object>; 2],
    ) {
        let invocation = &mut self.invocations[started];
        let function = invocation.function;
        invocation.place = Place::Running(slot);
        invocation.request = request;
        invocation.headers = headers;
        for held in kept {
            if held.is_some() {
                self.objects.hold(held);
            }
        }
        let queued_ns = invocation.queued_ns;
        if app.passed_over_ns.is_some() {
            app.note_precedence(function, queued_ns, self.now_ns);
        }
        app.started_running(function);
        app.set_state(slot, State::Busy);
        let executor = app.executor(slot);
        executor.open = started;
        executor.loading = !executor.has_loaded(function);
        let is_loading = executor.loading;
        let plan = &app.plan.functions[usize::from(function)];
        let limit_ns = if is_loading {
            Some(plan.init_timeout_ns)
        } else {
            plan.timeout_ns
        };
        if let Some(limit_ns) = limit_ns {
            self.limit_time(app, slot, limit_ns);
        }
        if self.invocations[started].done.is_some() && !is_loading {
            self.arm_rules(app, started);
        }
    }

    /// Guards what an executor does from now on.
    pub(super) fn limit_time(&mut self, app: &mut App, slot: u16, limit_ns: u64) {
        let deadline_ns = self.now_ns.saturating_add(limit_ns);
        let timer = Timer::Executor(app.executor_id(slot));
        app.executor(slot).timer = self.timers.arm(deadline_ns, timer);
    }

    /// Guards a custom trigger's call from now on.
    pub(super) fn guard_call(&mut self, app: &mut App, slot: u16, limit_ns: u64) {
        let executor = app.executor(slot);
        self.timers.cancel(&mut executor.timer);
        self.limit_time(app, slot, limit_ns);
    }

    /// `Loaded`: the open invocation's function is there and initialized, and runs from now on.
    pub(super) fn loaded(&mut self, app: &mut App, slot: u16) -> Result<(), Fault> {
        let executor = app.executor(slot);
        let open = executor.open("Loaded")?;
        if !std::mem::take(&mut executor.loading) {
            return Err(Fault::LoadedTwice);
        }
        let invocation = &self.invocations[open];
        let function = usize::from(invocation.function);
        executor.set_loaded(invocation.function);
        // One that has been cancelled has the time to stop that it was given then.
        if invocation.session.is_some() {
            self.timers.cancel(&mut executor.timer);
            if let Some(timeout_ns) = app.plan.functions[function].timeout_ns {
                self.limit_time(app, slot, timeout_ns);
            }
            if self.invocations[open].done.is_some() {
                self.arm_rules(app, open);
            }
        }
        app.functions[function].failed_loads = 0;
        Ok(())
    }
}

/// What an executor is told of a function's first attempt with one input, of which it is still to
/// be said what it is called and what has fired it.
#[inline(always)]
pub(super) fn dispatch_in<'a>(
    app: &App,
    session: &Session,
    objects: &'a Slab<Object>,
    function: u16,
) -> Dispatch<'a> {
    let timeout_ns = app.plan.functions[usize::from(function)].timeout_ns;
    let request = session.request_object.some();
    Dispatch {
        function,
        trigger: NO_TRIGGER,
        attempt: 1,
        invocation: 0,
        session: session.id.0,
        deadline_ns: session.deadline_ns,
        timeout_ns: timeout_ns.unwrap_or(NO_DEADLINE),
        input_count: 1,
        request: request.map(|request| objects[request].input()),
        headers: session.headers,
        parallelism: app.spec.executors.max,
        has_caller: session.has_caller,
        window: None,
    }
}

/// The executor for an invocation of a function, where one is awake or none works.
fn choose(app: &App, function: u16, near: Option<u16>) -> Option<u16> {
    let awake = best(app, &app.awake, function, near);
    let loaded = |found: &(u16, u8)| found.1 >= LOADED;
    awake
        .filter(loaded)
        .or_else(|| {
            best(app, &app.asleep, function, near).filter(|found| awake.is_none() || loaded(found))
        })
        .or(awake)
        .map(|(slot, _)| slot)
}

const LOADED: u8 = 4;
const SAME_PROCESS: u8 = 2;
const SAME_CORE: u8 = 1;

/// The best of a list, with its score; the last used of equals.
fn best(app: &App, list: &ExecutorList, function: u16, near: Option<u16>) -> Option<(u16, u8)> {
    let near_core = near.map(|slot| app.executors[usize::from(slot)].core);
    let score = |slot: u16| {
        let executor = &app.executors[usize::from(slot)];
        let mut score = 0;
        if executor.has_loaded(function) {
            score |= LOADED;
        }
        if near == Some(slot) {
            score |= SAME_PROCESS;
        }
        if near_core == Some(executor.core) {
            score |= SAME_CORE;
        }
        score
    };
    let scored = list
        .iter(&app.executors)
        .take(SLEEPERS_LOOKED_AT)
        .map(|slot| (slot, score(slot)));
    scored.reduce(|best, found| if found.1 > best.1 { found } else { best })
}
