//! The pool: how many processes an app has, and when another one is started.
//!
//! `min` are kept; more come on demand up to `max`. Whatever fails, processes are started at a
//! bounded rate: failed starts back off exponentially, and processes that die young are replaced
//! no faster than one in a while. When nothing can be started those who wait are told.

use crate::event::{AppId, Cause, Death, ExecutorId, Failure, Sink};
use crate::limits::{START_BACKOFF_NS, START_BACKOFF_NS_MAX, START_FAILURES_MAX};
use crate::local::app::PoolState;
use crate::local::executor::{KillReason, State};
use crate::local::session::End;
use crate::local::{Local, Timer};
use crate::timer::TimerId;

impl PoolState {
    /// Pause between two starts of processes. Failed starts back off exponentially. Processes that
    /// died young took an invocation with them each and so cannot outrun the work; one such death
    /// is an accident.
    fn pause_ns(&self) -> u64 {
        match self.failed_starts {
            0 if self.quick_deaths > 1 => START_BACKOFF_NS,
            0 => 0,
            failed => (START_BACKOFF_NS << (failed - 1).min(16)).min(START_BACKOFF_NS_MAX),
        }
    }
}

impl Local {
    /// Whether there is a slot for another process, and something that it would do.
    pub(super) fn wants_to_grow(&self, app: AppId) -> bool {
        let of = &self.apps[app];
        !of.removing
            && of.pool.taken < of.spec.executors.max
            && u64::from(of.pool.coming) < of.stats.queued
    }

    /// Whether another process is wanted and could be asked for now.
    pub(super) fn may_grow(&self, app: AppId) -> bool {
        self.wants_to_grow(app) && self.tables.now_ns >= self.apps[app].pool.not_before_ns
    }

    /// Asks for one more process, now or when the pause after failures is over.
    pub(super) fn grow<S: Sink>(&mut self, app: AppId, sink: &mut S) {
        let of = &mut self.apps[app];
        if of.removing || of.pool.taken >= of.spec.executors.max {
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
            .zip(&of.executors)
            .find(|(_, executor)| executor.state == State::Vacant);
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
            let wanted = of.spec.executors.min.max(u16::from(of.stats.queued > 0));
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
        self.start_failed(id.app, reason.to_owned());
        self.give_up_if_hopeless(id.app, sink);
        self.mend_pool(id.app, sink);
        self.dispatch_ready(id.app, sink);
        self.forget_if_empty(id.app, sink);
    }

    /// A process has become ready: what failed before is forgotten.
    pub(super) fn start_succeeded(&mut self, app: AppId) {
        let pool = &mut self.apps[app].pool;
        pool.failed_starts = 0;
        pool.last_failure.clear();
        pool.not_before_ns = pool.not_before_ns.min(self.tables.now_ns + pool.pause_ns());
    }

    /// Takes a death into account for the pace of replacement.
    pub(super) fn note_death(
        &mut self,
        app: AppId,
        before: State,
        completed: u32,
        reason: Option<&KillReason>,
        (death, detail): (Death, &str),
    ) {
        let starting = matches!(before, State::Starting | State::Adopting);
        if starting || matches!(reason, Some(KillReason::NotReady)) {
            let how = match (reason, death) {
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
            self.start_failed(
                app,
                format!("a new process {how} before it was ready{detail}"),
            );
        } else if before != State::Leaving && completed == 0 {
            let now_ns = self.tables.now_ns;
            let pool = &mut self.apps[app].pool;
            pool.quick_deaths = pool.quick_deaths.saturating_add(1);
            pool.not_before_ns = pool.not_before_ns.max(now_ns + pool.pause_ns());
        }
    }

    fn start_failed(&mut self, app: AppId, why: String) {
        let now_ns = self.tables.now_ns;
        let pool = &mut self.apps[app].pool;
        pool.failed_starts = pool.failed_starts.saturating_add(1);
        pool.last_failure = why;
        pool.not_before_ns = now_ns + pool.pause_ns();
    }

    /// Where start after start has failed and no process is there, those who wait are told.
    pub(super) fn give_up_if_hopeless<S: Sink>(&mut self, app: AppId, sink: &mut S) {
        let of = &self.apps[app];
        let pool = &of.pool;
        if pool.failed_starts < START_FAILURES_MAX || pool.idle + pool.busy > 0 {
            return;
        }
        let why = format!(
            "no process could be started, {} times in a row: {}",
            pool.failed_starts, pool.last_failure
        );
        for function in 0..of.functions.len() {
            while let Some(first) = self.apps[app].functions[function].first.some() {
                let invocation = &self.tables.invocations[first];
                let session = invocation.session;
                let failure = Failure {
                    function: Some(invocation.function),
                    invocation: invocation.id,
                    attempt: 0,
                    cause: Cause::NoExecutor(why.clone()),
                    executor: None,
                };
                self.end_session(session, &End::Failed(failure), sink);
            }
        }
    }
}
