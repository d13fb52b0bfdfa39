//! The pool: how many processes an app has, and when another one is started.
//!
//! `min` are kept; more come on demand up to `max`, and leave when they have been idle for long.
//! Whatever fails, processes are started at a bounded rate. Failed starts, and processes that could
//! not load a function, back off exponentially; those that died in an invocation are replaced
//! almost at once. Who waits is told when nothing can be started, or his function not be loaded.

use std::time::Duration;

use crate::event::{AppId, Cause, Death, ExecutorId, Failure, Sink, Trouble};
use crate::limits::{
    CRASH_PAUSE_NS, FAILURES_TOLD, LOAD_FAILURES_FREE, START_FAILURES_MAX, SURPLUS_IDLE_NS,
    restart_pause_ns,
};
use crate::local::app::{App, PoolState};
use crate::local::executor::{KillReason, State};
use crate::local::session::End;
use crate::local::{Local, Tables, Timer};
use crate::timer::TimerId;

/// What a process was at when it died.
pub(super) struct LastState {
    pub(super) state: State,
    /// Invocations it had completed.
    pub(super) completed: u32,
    /// It was loading the function of its open invocation.
    pub(super) loading: bool,
    /// That of its open invocation.
    pub(super) function: Option<u16>,
}

impl PoolState {
    /// Pause between two starts of processes. One death in an invocation is an accident.
    fn pause_ns(&self) -> u64 {
        match (self.failed_starts, self.failed_loads) {
            (0, failed) if failed > LOAD_FAILURES_FREE => {
                restart_pause_ns(failed - LOAD_FAILURES_FREE)
            }
            (0, _) if self.quick_deaths > 1 => CRASH_PAUSE_NS,
            (failed, _) => restart_pause_ns(failed),
        }
    }

    fn put_off(&mut self, now_ns: u64) {
        self.not_before_ns = self.not_before_ns.max(now_ns + self.pause_ns());
    }

    /// What is wrong, where it has been for a while.
    fn trouble(&self) -> Option<Trouble> {
        let (failures, what) = match (self.failed_starts, self.failed_loads) {
            (0, 0) => (self.quick_deaths, "died without having completed anything"),
            (0, failed) => (failed, "could not load a function"),
            (failed, _) => (failed, "could not be started"),
        };
        if failures < FAILURES_TOLD {
            return None;
        }
        let pause_ns = self.pause_ns();
        let (pause, last) = (Duration::from_nanos(pause_ns), &self.last_failure);
        Some(Trouble {
            failures,
            pause_ns,
            why: format!(
                "{failures} executors in a row {what}, the next is started after {pause:?}: {last}"
            ),
        })
    }
}

impl Local {
    /// Whether there is a slot for another process, and something that it would do.
    pub(super) fn wants_to_grow(&self, app: AppId) -> bool {
        let of = &self.apps[app];
        !of.removing
            && of.pool.taken < of.processes_max()
            && u64::from(of.pool.coming) < of.stats.queued
    }

    /// Whether another process is wanted and could be asked for now.
    pub(super) fn may_grow(&self, app: AppId) -> bool {
        self.wants_to_grow(app) && self.tables.now_ns >= self.apps[app].pool.not_before_ns
    }

    /// Asks for one more process, now or when the pause after failures is over.
    pub(super) fn grow<S: Sink>(&mut self, app: AppId, sink: &mut S) {
        let of = &mut self.apps[app];
        if of.removing || of.pool.taken >= of.processes_max() {
            return;
        }
        if self.tables.now_ns < of.pool.not_before_ns {
            if of.pool.timer == TimerId::NONE {
                of.pool.timer = self
                    .tables
                    .timers
                    .arm(of.pool.not_before_ns, Timer::Pool(app));
            }
            return;
        }
        let vacant = (0u16..)
            .zip(&of.executors[..usize::from(of.pool_slots)])
            .find(|(_, executor)| executor.is_vacant());
        let Some((slot, _)) = vacant else {
            return;
        };
        // While starts fail or processes die young, one at a time.
        of.pool.not_before_ns = self.tables.now_ns + of.pool.pause_ns();
        let core = self.spinners.place();
        of.set_state(slot, State::Asked);
        of.executor(slot).core = core;
        sink.spawn(ExecutorId { app, slot }, core);
    }

    /// Brings the pool up to its minimum, and to one where work is queued.
    pub(super) fn mend_pool<S: Sink>(&mut self, app: AppId, sink: &mut S) {
        loop {
            let of = &self.apps[app];
            let pool = &of.pool;
            let useful = pool.coming + pool.idle + pool.busy;
            let wanted = of.share.executors.min.max(u16::from(of.stats.queued > 0));
            let taken = pool.taken;
            if useful >= wanted {
                return;
            }
            self.grow(app, sink);
            if self.apps[app].pool.taken == taken {
                return;
            }
        }
    }

    /// The pause after failures is over.
    pub(super) fn pool_timer<S: Sink>(&mut self, app: AppId, sink: &mut S) {
        self.apps[app].pool.timer = TimerId::NONE;
        self.mend_pool(app, sink);
        self.dispatch_ready(app, sink);
    }

    /// A process could not be started.
    pub(super) fn spawn_failed<S: Sink>(&mut self, id: ExecutorId, reason: &str, sink: &mut S) {
        let Some(app) = self.apps.get_mut(id.app) else {
            return;
        };
        let asked = app.executors.get(usize::from(id.slot));
        if asked.is_none_or(|executor| executor.state != State::Asked) {
            return;
        }
        self.vacate(id, sink);
        if let Some(at) = self.apps[id.app].custom_of_slot(id.slot) {
            let why = format!("its process could not be started: {reason}");
            return self.custom_ended(id, at, &why, sink);
        }
        self.start_failed(id.app, reason.to_owned());
        self.tell_trouble(id.app, sink);
        self.give_up_if_hopeless(id.app, sink);
        self.give(id.app, sink);
        self.mend_pool(id.app, sink);
        self.dispatch_ready(id.app, sink);
        self.forget_if_empty(id.app, sink);
    }

    /// A process has become ready: that starts have failed before is forgotten.
    pub(super) fn start_succeeded<S: Sink>(&mut self, app: AppId, sink: &mut S) {
        let pool = &mut self.apps[app].pool;
        pool.failed_starts = 0;
        pool.not_before_ns = pool.not_before_ns.min(self.tables.now_ns + pool.pause_ns());
        if pool.failed_loads == 0 && pool.quick_deaths == 0 {
            self.processes_work(app, sink);
        }
    }

    /// A process has completed an invocation: what failed before is forgotten.
    #[cold]
    pub(super) fn processes_work<S: Sink>(&mut self, app: AppId, sink: &mut S) {
        let pool = &mut self.apps[app].pool;
        pool.failed_loads = 0;
        pool.quick_deaths = 0;
        pool.not_before_ns = pool.not_before_ns.min(self.tables.now_ns + pool.pause_ns());
        pool.last_failure.clear();
        if std::mem::take(&mut pool.trouble_told) {
            sink.trouble(app, None);
        }
    }

    /// Tells what is wrong, where it has been for a while.
    pub(super) fn tell_trouble<S: Sink>(&mut self, app: AppId, sink: &mut S) {
        let pool = &mut self.apps[app].pool;
        if let Some(trouble) = pool.trouble() {
            pool.trouble_told = true;
            sink.trouble(app, Some(&trouble));
        }
    }

    /// Takes a death into account for the pace of replacement.
    pub(super) fn note_death(
        &mut self,
        app: AppId,
        last: &LastState,
        reason: Option<&KillReason>,
        (death, detail): (Death, &str),
    ) {
        if matches!(reason, Some(KillReason::Overdue(_))) || last.state == State::Leaving {
            return;
        }
        let how = match (reason, death) {
            (Some(KillReason::Fault(why) | KillReason::TimedOut(why)), _) => why.clone(),
            (Some(_), _) => "did not say that it was ready".to_owned(),
            (None, Death::Exited(code)) => format!("ended with exit({code})"),
            (None, Death::Signaled(signal)) => format!("was ended by signal {signal}"),
            (None, Death::Unknown) => "ended in an unknown way".to_owned(),
        };
        let detail = if detail.is_empty() {
            String::new()
        } else {
            format!(": {detail}")
        };
        let starting = matches!(last.state, State::Starting | State::Adopting);
        if starting || matches!(reason, Some(KillReason::NotReady)) {
            let why = format!("a new process {how} before it was ready{detail}");
            return self.start_failed(app, why);
        }
        let unwanted = matches!(reason, Some(KillReason::Unwanted));
        match last.function {
            Some(function) if last.loading && !unwanted => {
                self.load_failed(app, function, &format!("its process {how}{detail}"));
            }
            running if last.completed == 0 => {
                let of = &mut self.apps[app];
                let who = running.map_or_else(
                    || "an idle executor".to_owned(),
                    |function| format!("the process of function `{}`", of.function_name(function)),
                );
                of.pool.quick_deaths = of.pool.quick_deaths.saturating_add(1);
                of.pool.last_failure = format!("{who} {how}{detail}");
                of.pool.put_off(self.tables.now_ns);
            }
            _ => {}
        }
    }

    /// A process could not load a function, and is gone or goes.
    pub(super) fn load_failed(&mut self, app: AppId, function: u16, why: &str) {
        let of = &mut self.apps[app];
        let failed = &mut of.functions[usize::from(function)].failed_loads;
        *failed = failed.saturating_add(1);
        let name = of.function_name(function);
        of.pool.last_failure = format!("function `{name}` could not be loaded: {why}");
        of.pool.failed_loads = of.pool.failed_loads.saturating_add(1);
        of.pool.put_off(self.tables.now_ns);
    }

    fn start_failed(&mut self, app: AppId, why: String) {
        let now_ns = self.tables.now_ns;
        let pool = &mut self.apps[app].pool;
        pool.failed_starts = pool.failed_starts.saturating_add(1);
        pool.last_failure = why;
        pool.not_before_ns = now_ns + pool.pause_ns();
    }

    /// Those who wait for what will not come are told: all of them where start after start has
    /// failed and no process is there, else those whose function could not be loaded time after
    /// time.
    pub(super) fn give_up_if_hopeless<S: Sink>(&mut self, app: AppId, sink: &mut S) {
        let pool = &self.apps[app].pool;
        let is_alone = pool.idle + pool.busy == 0;
        let hopeless = pool.failed_starts >= START_FAILURES_MAX && is_alone;
        let last = &pool.last_failure;
        let none_starts = format!(
            "no process could be started, {} times in a row: {last}",
            pool.failed_starts
        );
        if !hopeless && pool.failed_loads < START_FAILURES_MAX {
            return;
        }
        for function in 0..self.apps[app].functions.len() {
            let failed_loads = self.apps[app].functions[function].failed_loads;
            if hopeless {
                self.give_up(app, function, &none_starts, sink);
            } else if failed_loads >= START_FAILURES_MAX {
                let last = &self.apps[app].pool.last_failure;
                let why = format!("{failed_loads} times in a row {last}");
                self.give_up(app, function, &why, sink);
            }
        }
    }

    fn give_up<S: Sink>(&mut self, app: AppId, function: usize, why: &str, sink: &mut S) {
        while let Some(first) = self.apps[app].functions[function].first.some() {
            let invocation = &self.tables.invocations[first];
            let session = invocation.session;
            let failure = Failure {
                function: Some(invocation.function),
                invocation: invocation.id,
                attempt: 0,
                cause: Cause::NoExecutor(why.to_owned()),
                executor: None,
            };
            self.end_session(session, &End::Failed(failure), sink);
        }
    }

    /// Executors beyond the minimum that have been idle for long leave, the longest idle first.
    pub(super) fn surplus_timer<S: Sink>(&mut self, app: AppId, sink: &mut S) {
        let now_ns = self.tables.now_ns;
        let of = &mut self.apps[app];
        of.pool.surplus_timer = TimerId::NONE;
        let mut idle: Vec<(u64, u16)> = (0..of.pool_slots)
            .filter(|&slot| of.executors[usize::from(slot)].state == State::Idle)
            .map(|slot| (of.executors[usize::from(slot)].idle_since_ns, slot))
            .collect();
        idle.sort_unstable();
        let mut next_due_ns = None;
        for (since_ns, slot) in idle.into_iter().take(of.surplus().into()) {
            let due_ns = since_ns.saturating_add(SURPLUS_IDLE_NS);
            if due_ns > now_ns {
                next_due_ns = Some(due_ns);
                break;
            }
            self.tell_to_leave(ExecutorId { app, slot }, sink);
        }
        if let Some(due_ns) = next_due_ns {
            let timer = self.tables.timers.arm(due_ns, Timer::Surplus(app));
            self.apps[app].pool.surplus_timer = timer;
        }
    }
}

impl App {
    /// How many of the processes that may work are more than the minimum.
    fn surplus(&self) -> u16 {
        let pool = &self.pool;
        (pool.idle + pool.busy + pool.coming).saturating_sub(self.share.executors.min)
    }
}

impl Tables {
    /// An executor has become idle: should it stay so, and be one too many, it leaves.
    #[inline]
    pub(super) fn watch_surplus(&mut self, app: &mut App) {
        if app.surplus() > 0 && app.pool.surplus_timer == TimerId::NONE {
            let due_ns = self.now_ns.saturating_add(SURPLUS_IDLE_NS);
            app.pool.surplus_timer = self.timers.arm(due_ns, Timer::Surplus(app.id));
        }
    }
}
