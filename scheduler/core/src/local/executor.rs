//! Executors: what each process of an app is doing, as far as the core knows.
//!
//! A slot goes from `Vacant` over `Asked`, `Starting` and, where its region had an owner before,
//! `Adopting` to `Idle` and `Busy`, and by `Leaving` or `Killed` back to `Vacant`. Every change of
//! state goes through [`App::set_state`], which keeps the counts and lists right.

use std::time::Duration;

use pheromone_shm::message::{Extent, NO_DEADLINE, ToExecutor};

use crate::event::{AppId, Cause, Death, ExecutorId, Sink};
use crate::limits::START_TIMEOUT_NS;
use crate::local::app::App;
use crate::local::attempt::Fate;
use crate::local::custom::end_of;
use crate::local::in_place::Grant;
use crate::local::invocation::Invocation;
use crate::local::ledger::Credit;
use crate::local::note::Note;
use crate::local::pool::LastState;
use crate::local::wait::Wait;
use crate::local::{Local, Timer};
use crate::slab::Ref;
use crate::timer::TimerId;

/// What a slot's process is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// There is none.
    #[default]
    Vacant,
    /// Asked for by `Sink::spawn`.
    Asked,
    /// It exists and has not said that it is ready.
    Starting,
    /// It learns what is live in its region.
    Adopting,
    /// It waits for work.
    Idle,
    /// It has an open dispatch.
    Busy,
    /// It has an open dispatch and waits for an object (`wait.rs`).
    Waiting,
    /// A custom trigger's process that has a call open.
    Deciding,
    /// It has been told to leave, or is known to be dead with its ring not yet drained.
    Leaving,
    /// It is being killed; what it says no longer counts.
    Killed,
}

/// What a process that has a dispatch open has to do with the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Disk {
    /// Nothing.
    #[default]
    Idle,
    /// It has announced that what it sends next is to be on disk before it arrives.
    Announced,
    /// It waits for what the node is to tell of the disk.
    Asked,
}

/// Why a process is being killed.
#[derive(Debug)]
pub(super) enum KillReason {
    /// It broke the protocol: the whole sentence.
    Fault(String),
    /// Its function ran too long: the whole sentence.
    TimedOut(String),
    /// It sent nothing in a rerun rule's time and runs again: the whole sentence.
    Overdue(String),
    /// The same, and it runs no more: the whole sentence.
    OutOfReruns(String),
    /// It did not say that it was ready.
    NotReady,
    /// Its invocation was cancelled and did not return, or its app goes, or it did not leave.
    Unwanted,
}

/// One slot.
#[derive(Default)]
pub(super) struct Executor {
    pub(super) state: State,
    pub(super) incarnation: u32,
    /// Index into the executor cores.
    pub(super) core: u16,
    /// It may spin while idle.
    pub(super) may_spin: bool,
    /// Known to be dead: nothing more is dispatched to it.
    pub(super) dying: bool,
    /// This scheduler's: it may have a process.
    pub(super) is_here: bool,
    /// Vacant, and its region is being swept: no process may have it now.
    pub(super) sweeping: bool,
    /// The open dispatch. (One queued behind it would stand beside it here.)
    pub(super) open: Ref<Invocation>,
    /// What it has offered to start after that, and nobody has had to look at.
    pub(super) noted: Option<Note>,
    /// The same, entered.
    pub(super) offer: Ref<Invocation>,
    /// What it may start so.
    pub(super) grant: Grant,
    /// It loads the open invocation's function, which has not been called yet.
    pub(super) loading: bool,
    /// Functions that it has loaded, as bits.
    loaded: Box<[u64]>,
    /// Invocations it has completed.
    pub(super) completed: u32,
    pub(super) credit: Credit,
    /// What it waits for.
    pub(super) wait: Option<Box<Wait>>,
    pub(super) disk: Disk,
    /// Guards its start, its invocation or its leaving, whichever it is at.
    pub(super) timer: TimerId,
    pub(super) idle_since_ns: u64,
    pub(super) kill_reason: Option<KillReason>,
    /// What it adopts, and how much of that it has been told.
    pub(super) adoption: Vec<Extent>,
    pub(super) adopted: usize,
    previous: Option<u16>,
    next: Option<u16>,
}

impl Executor {
    /// A vacant slot of an app with so many functions.
    pub(super) fn new(functions: usize, is_here: bool) -> Self {
        Self {
            is_here,
            loaded: vec![0; functions.div_ceil(64)].into(),
            ..Self::default()
        }
    }

    /// Whether there is a process.
    pub(super) fn is_alive(&self) -> bool {
        !matches!(self.state, State::Vacant | State::Asked)
    }

    /// Whether a process may have this slot.
    pub(super) fn is_vacant(&self) -> bool {
        self.is_here && self.state == State::Vacant && !self.sweeping
    }

    #[inline]
    pub(super) fn has_loaded(&self, function: u16) -> bool {
        self.loaded[usize::from(function) / 64] >> (function % 64) & 1 == 1
    }

    #[inline]
    pub(super) fn set_loaded(&mut self, function: u16) {
        self.loaded[usize::from(function) / 64] |= 1 << (function % 64);
    }
}

/// Slots in order of last use, linked through the executors.
#[derive(Default)]
pub(super) struct ExecutorList {
    first: Option<u16>,
}

impl ExecutorList {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn iter<'a>(&self, executors: &'a [Executor]) -> impl Iterator<Item = u16> + 'a {
        std::iter::successors(self.first, |&slot| executors[usize::from(slot)].next)
    }

    fn push(&mut self, executors: &mut [Executor], slot: u16) {
        let next = self.first.replace(slot);
        if let Some(next) = next {
            executors[usize::from(next)].previous = Some(slot);
        }
        let executor = &mut executors[usize::from(slot)];
        executor.previous = None;
        executor.next = next;
    }

    fn remove(&mut self, executors: &mut [Executor], slot: u16) {
        let executor = &executors[usize::from(slot)];
        let (previous, next) = (executor.previous, executor.next);
        match previous {
            Some(previous) => executors[usize::from(previous)].next = next,
            None => self.first = next,
        }
        if let Some(next) = next {
            executors[usize::from(next)].previous = previous;
        }
    }
}

impl App {
    #[inline]
    pub(super) fn executor(&mut self, slot: u16) -> &mut Executor {
        &mut self.executors[usize::from(slot)]
    }

    fn count(&mut self, state: State) -> Option<&mut u16> {
        match state {
            State::Asked | State::Starting | State::Adopting => Some(&mut self.pool.coming),
            State::Idle => Some(&mut self.pool.idle),
            State::Busy => Some(&mut self.pool.busy),
            State::Waiting => Some(&mut self.pool.waiting),
            State::Vacant | State::Deciding | State::Leaving | State::Killed => None,
        }
    }

    /// Changes a slot's state, its place in the lists, and the counts.
    #[inline]
    pub(super) fn set_state(&mut self, slot: u16, state: State) {
        if self.executor(slot).state != state {
            self.change_state(slot, state);
        }
    }

    fn change_state(&mut self, slot: u16, state: State) {
        if slot >= self.pool_slots {
            // What a custom trigger's process does is nothing to the pool.
            self.executor(slot).state = state;
            return;
        }
        let executor = self.executor(slot);
        let awake = executor.may_spin;
        let before = std::mem::replace(&mut executor.state, state);
        if let Some(count) = self.count(before) {
            *count -= 1;
        }
        if let Some(count) = self.count(state) {
            *count += 1;
        }
        match (before == State::Vacant, state == State::Vacant) {
            (true, false) => self.pool.taken += 1,
            (false, true) => self.pool.taken -= 1,
            _ => {}
        }
        let list = if awake {
            &mut self.awake
        } else {
            &mut self.asleep
        };
        if before == State::Idle {
            list.remove(&mut self.executors, slot);
        }
        if state == State::Idle {
            list.push(&mut self.executors, slot);
        }
    }

    /// Notes whether an executor may spin; an idle one changes lists.
    pub(super) fn set_may_spin(&mut self, slot: u16, permitted: bool) {
        let executor = &mut self.executors[usize::from(slot)];
        let before = std::mem::replace(&mut executor.may_spin, permitted);
        if executor.state != State::Idle || before == permitted {
            return;
        }
        let (from, to) = if permitted {
            (&mut self.asleep, &mut self.awake)
        } else {
            (&mut self.awake, &mut self.asleep)
        };
        from.remove(&mut self.executors, slot);
        to.push(&mut self.executors, slot);
    }
}

impl Local {
    /// A process asked for exists.
    pub(super) fn executor_started<S: Sink>(
        &mut self,
        id: ExecutorId,
        incarnation: u32,
        sink: &mut S,
    ) {
        let Some(app) = self.apps.get_mut(id.app) else {
            sink.kill(id, "its app is gone");
            return;
        };
        let asked = app.executors.get(usize::from(id.slot));
        if asked.is_none_or(|executor| executor.state != State::Asked) {
            return;
        }
        app.set_state(id.slot, State::Starting);
        let executor = app.executor(id.slot);
        executor.incarnation = incarnation;
        executor.dying = false;
        let deadline_ns = self.tables.now_ns.saturating_add(START_TIMEOUT_NS);
        executor.timer = self.tables.timers.arm(deadline_ns, Timer::Executor(id));
        if app.removing {
            self.tell_to_leave(id, sink);
        }
    }

    /// `Ready`, its first message.
    pub(super) fn executor_ready<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) {
        let app = &mut self.apps[id.app];
        if let Some(at) = app.custom_of_slot(id.slot) {
            let executor = app.executor(id.slot);
            self.tables.timers.cancel(&mut executor.timer);
            return self.custom_is_free(id, at, sink);
        }
        self.start_succeeded(id.app, sink);
        let app = &mut self.apps[id.app];
        let executor = app.executor(id.slot);
        self.tables.timers.cancel(&mut executor.timer);
        let had_owner = executor.incarnation > 1;
        app.regions[usize::from(id.slot)].owned = true;
        app.top_up(id.slot, sink);
        if had_owner && !self.start_adoption(id, sink) {
            return;
        }
        self.take_next(id, sink);
    }

    /// An executor without an open dispatch: idle, unless it or its app goes.
    pub(super) fn become_free<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) {
        let app = &mut self.apps[id.app];
        if app.removing {
            self.tell_to_leave(id, sink);
        } else if app.executor(id.slot).dying {
            app.set_state(id.slot, State::Leaving);
        } else if app.has_too_many() {
            self.tell_to_leave(id, sink);
        } else {
            app.executor(id.slot).idle_since_ns = self.tables.now_ns;
            app.set_state(id.slot, State::Idle);
            self.tables.watch_surplus(app);
            let has_others = app.exchange.is_some();
            self.rest(id, sink);
            if has_others {
                self.give(id.app, sink);
            }
        }
    }

    /// Retires a process that has nothing open.
    pub(super) fn tell_to_leave<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) {
        let app = &mut self.apps[id.app];
        let grace_ns = app.spec.limits.cancel_grace_ns;
        app.set_state(id.slot, State::Leaving);
        let executor = app.executor(id.slot);
        self.tables.timers.cancel(&mut executor.timer);
        let deadline_ns = self.tables.now_ns.saturating_add(grace_ns);
        executor.timer = self.tables.timers.arm(deadline_ns, Timer::Executor(id));
        sink.send(id, &ToExecutor::Exit);
    }

    /// Cancels the invocation that an executor runs; kills it if that does not return in time.
    pub(super) fn cancel_running<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) {
        let app = &mut self.apps[id.app];
        let grace_ns = app.spec.limits.cancel_grace_ns;
        let executor = app.executor(id.slot);
        let waits = executor.state == State::Waiting;
        if executor.state != State::Busy && !waits {
            return;
        }
        let cancelled = self.tables.invocations[executor.open].id;
        // First, so that it cannot go on from one that is not told of it to the next.
        self.revoke(id, sink);
        sink.cancel(id, cancelled);
        let executor = self.apps[id.app].executor(id.slot);
        self.tables.timers.cancel(&mut executor.timer);
        let deadline_ns = self.tables.now_ns.saturating_add(grace_ns);
        executor.timer = self.tables.timers.arm(deadline_ns, Timer::Executor(id));
        self.refuse_credit(id, sink);
        if waits {
            self.cancel_wait(id, sink);
        }
    }

    /// The guard of an executor's start, invocation or leaving has run out.
    pub(super) fn executor_timer<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) {
        let app = &self.apps[id.app];
        let executor = &app.executors[usize::from(id.slot)];
        let reason = match executor.state {
            State::Starting | State::Adopting => KillReason::NotReady,
            State::Busy | State::Waiting => {
                let invocation = &self.tables.invocations[executor.open];
                if invocation.session.is_none() {
                    KillReason::Unwanted
                } else {
                    KillReason::TimedOut(self.over_time(app, executor, invocation.function))
                }
            }
            State::Deciding => {
                let at = app.custom_of_slot(id.slot).unwrap_or_default();
                KillReason::TimedOut(app.over_call_time(at))
            }
            State::Leaving => KillReason::Unwanted,
            State::Vacant | State::Asked | State::Idle | State::Killed => return,
        };
        self.kill(id, reason, sink);
    }

    /// What is said of a function that has taken too long to load or to run.
    fn over_time(&self, app: &App, executor: &Executor, function: u16) -> String {
        let name = app.function_name(function);
        let plan = &app.plan.functions[usize::from(function)];
        let (what, limit_ns) = if executor.loading {
            (
                "was not loaded and initialized within its init_timeout",
                plan.init_timeout_ns,
            )
        } else {
            (
                "ran past its timeout",
                plan.timeout_ns.unwrap_or(NO_DEADLINE),
            )
        };
        let limit = Duration::from_nanos(limit_ns);
        format!("function `{name}` {what} of {limit:?} and was killed")
    }

    /// Kills a process. What it says from now on is ignored; what it had open ends with its death.
    pub(super) fn kill<S: Sink>(&mut self, id: ExecutorId, reason: KillReason, sink: &mut S) {
        self.stop_waiting(id, sink);
        self.revoke(id, sink);
        self.take_back(id, sink);
        let app = &mut self.apps[id.app];
        app.set_state(id.slot, State::Killed);
        let executor = app.executor(id.slot);
        self.tables.timers.cancel(&mut executor.timer);
        executor.adoption = Vec::new();
        executor.disk = Disk::Idle;
        let why = match &reason {
            KillReason::Fault(why)
            | KillReason::TimedOut(why)
            | KillReason::Overdue(why)
            | KillReason::OutOfReruns(why) => why,
            KillReason::NotReady => "it did not say that it was ready",
            KillReason::Unwanted => "it did not stop when it was told to",
        };
        sink.kill(id, why);
        executor.kill_reason = Some(reason);
        self.stop_waiting_for_credit(id);
        self.withdraw_spin(id, sink);
    }

    /// Kills a process that broke the protocol, naming it, its function and the rule.
    pub(super) fn fault<S: Sink>(&mut self, id: ExecutorId, rule: &str, sink: &mut S) {
        let app = &mut self.apps[id.app];
        app.stats.faults_total += 1;
        let open = app.executor(id.slot).open;
        let custom = app.custom_of_slot(id.slot);
        let running = match open.some() {
            None if custom.is_some() => {
                let text = custom.map(|at| app.custom_text(at));
                format!(", deciding for {},", text.unwrap_or_default())
            }
            Some(open) => {
                let name = app.function_name(self.tables.invocations[open].function);
                format!(", running function `{name}`,")
            }
            None => String::new(),
        };
        let (name, slot) = (&app.spec.name, id.slot);
        let why = format!("executor {slot} of app `{name}`{running} broke the protocol: it {rule}");
        self.kill(id, KillReason::Fault(why), sink);
    }

    /// A process is dead, and its last messages follow.
    pub(super) fn executor_dying(&mut self, id: ExecutorId, incarnation: u32) {
        let Some(app) = self.apps.get_mut(id.app) else {
            return;
        };
        let Some(executor) = app.executors.get_mut(usize::from(id.slot)) else {
            return;
        };
        if executor.state == State::Vacant || executor.incarnation != incarnation {
            return;
        }
        executor.dying = true;
        if executor.state == State::Idle {
            app.set_state(id.slot, State::Leaving);
        }
    }

    /// A process is dead and all that it said has been heard.
    pub(super) fn executor_died<S: Sink>(
        &mut self,
        id: ExecutorId,
        incarnation: u32,
        death: Death,
        detail: &str,
        sink: &mut S,
    ) {
        let Some(app) = self.apps.get_mut(id.app) else {
            return;
        };
        let Some(executor) = app.executors.get_mut(usize::from(id.slot)) else {
            return;
        };
        let before = executor.state;
        if matches!(before, State::Vacant | State::Asked) || executor.incarnation != incarnation {
            return;
        }
        let open = std::mem::take(&mut executor.open);
        let last = LastState {
            state: before,
            completed: executor.completed,
            loading: executor.loading,
            function: open
                .some()
                .map(|open| self.tables.invocations[open].function),
        };
        let reason = executor.kill_reason.take();
        self.tables.timers.cancel(&mut executor.timer);
        // Who leaves as it was told has not died.
        if before != State::Leaving || death != Death::Exited(0) {
            app.stats.deaths_total += 1;
        }
        self.vacate(id, sink);
        if let Some(at) = self.apps[id.app].custom_of_slot(id.slot) {
            let why = end_of(reason.as_ref(), death, detail);
            return self.custom_ended(id, at, &why, sink);
        }
        self.note_death(id.app, &last, reason.as_ref(), (death, detail));
        self.tell_trouble(id.app, sink);
        let was_killed = reason.is_some();
        if !was_killed && self.apps[id.app].executor(id.slot).offer.is_some() {
            // It has not begun, and has its turn before what was fired after it, which may start
            // when the attempt has failed.
            self.leave_offer(id, sink);
        }
        if open.is_some() {
            self.attempt_died(open, id, reason, (death, detail), sink);
        }
        if was_killed {
            let cause = || Cause::Died(death, detail.to_owned());
            self.offer_died(id, cause, sink);
        }
        self.give_up_if_hopeless(id.app, sink);
        self.give(id.app, sink);
        self.mend_pool(id.app, sink);
        self.resume_waiting(id.app, sink);
        self.dispatch_ready(id.app, sink);
        self.forget_if_empty(id.app, sink);
    }

    /// Empties a slot: its process's credit, permission and unheard releases end with it.
    pub(super) fn vacate<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) {
        self.stop_waiting(id, sink);
        self.stop_waiting_for_credit(id);
        self.withdraw_spin(id, sink);
        let app = &mut self.apps[id.app];
        self.tables.forget_releases(app, id.slot);
        app.regions[usize::from(id.slot)].owned = false;
        app.forget_grant(id.slot);
        app.set_state(id.slot, State::Vacant);
        let executor = app.executor(id.slot);
        self.spinners.leave_core(executor.core);
        let credit = std::mem::take(&mut executor.credit);
        executor.adoption = Vec::new();
        executor.loading = false;
        executor.disk = Disk::Idle;
        executor.loaded.fill(0);
        executor.completed = 0;
        executor.dying = false;
        app.ledger.take_back(credit.left_bytes());
        self.tables.look_at_waiters(app);
    }

    /// An invocation's process died under it.
    fn attempt_died<S: Sink>(
        &mut self,
        open: Ref<Invocation>,
        id: ExecutorId,
        reason: Option<KillReason>,
        (death, detail): (Death, &str),
        sink: &mut S,
    ) {
        let app = &mut self.apps[id.app];
        app.stopped_running(self.tables.invocations[open].function);
        let (cause, is_permanent) = match reason {
            Some(KillReason::Overdue(_)) => return self.overdue_died(open, id, sink),
            Some(KillReason::OutOfReruns(why)) => (Cause::TimedOut(why), true),
            Some(KillReason::Fault(why)) => (Cause::Fault(why), false),
            Some(KillReason::TimedOut(why)) => (Cause::TimedOut(why), false),
            Some(KillReason::NotReady | KillReason::Unwanted) | None => {
                (Cause::Died(death, detail.to_owned()), false)
            }
        };
        if self.attempt_failed(open, id, cause, is_permanent, sink) == Fate::Ends {
            self.end_attempt(open, id.app, sink);
        }
    }

    /// Ends an attempt that no executor runs any more, and with it its invocation, unless others
    /// are under way.
    pub(super) fn end_attempt<S: Sink>(
        &mut self,
        ended: Ref<Invocation>,
        app: AppId,
        sink: &mut S,
    ) {
        let app = &mut self.apps[app];
        let session = self.tables.leave_session(app, ended);
        self.tables.pass_place_later(app, ended);
        self.tables.finish(app, ended, sink);
        if let Some(session) = session {
            self.settle(session, sink);
        }
    }
}
