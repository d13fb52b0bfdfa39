//! Permission to spin: at most one idle executor per core, over all apps.
//!
//! The last executor used on a core has the permission, and keeps it while it runs, so that a
//! chain of invocations changes nothing. Two spinners on a core would take each other's time, and
//! the time of whoever works there.

use crate::event::{ExecutorId, Sink};
use crate::local::executor::State;
use crate::local::{Local, Timer};
use crate::{CoreConfig, SpinPolicy};

/// The cores that executors are spread over.
pub(super) struct Spinners {
    policy: SpinPolicy,
    cores: Vec<CoreState>,
}

#[derive(Clone, Default)]
struct CoreState {
    spinner: Option<ExecutorId>,
    /// Processes placed here.
    executors: u32,
    /// A timer looks after the spinner's budget.
    timed: bool,
}

impl Spinners {
    /// Without known pinning all executors count as being on one core.
    pub(super) fn new(config: &CoreConfig) -> Self {
        Self {
            policy: config.spin,
            cores: vec![CoreState::default(); usize::from(config.executor_cores.max(1))],
        }
    }

    /// A place for a new process: the core with the fewest.
    pub(super) fn place(&mut self) -> u16 {
        let cores = self.cores.iter_mut().zip(0u16..);
        let (core, index) = cores
            .min_by_key(|(core, _)| core.executors)
            .expect("there is at least one core");
        core.executors += 1;
        index
    }

    pub(super) fn leave_core(&mut self, core: u16) {
        self.cores[usize::from(core)].executors -= 1;
    }
}

impl Local {
    /// An executor has been given work: it is the one of its core that may spin afterwards.
    #[inline]
    pub(super) fn use_core<S: Sink>(&mut self, id: ExecutorId, core: u16, sink: &mut S) {
        if self.spinners.cores[usize::from(core)].spinner != Some(id) {
            self.grant_spin(id, core, sink);
        }
    }

    /// An executor is idle: it spins where it may, and its budget begins.
    #[inline]
    pub(super) fn rest<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) {
        let core = self.apps[id.app].executor(id.slot).core;
        let state = &self.spinners.cores[usize::from(core)];
        if state.spinner.is_none() {
            self.grant_spin(id, core, sink);
        }
        let state = &mut self.spinners.cores[usize::from(core)];
        if let SpinPolicy::Budget(budget_ns) = self.spinners.policy
            && state.spinner == Some(id)
            && !state.timed
        {
            state.timed = true;
            let deadline_ns = self.tables.now_ns.saturating_add(budget_ns);
            self.tables.timers.arm(deadline_ns, Timer::Spin(core));
        }
    }

    fn grant_spin<S: Sink>(&mut self, id: ExecutorId, core: u16, sink: &mut S) {
        if self.spinners.policy == SpinPolicy::Never {
            return;
        }
        if let Some(before) = self.spinners.cores[usize::from(core)].spinner {
            self.withdraw_spin(before, sink);
        }
        self.spinners.cores[usize::from(core)].spinner = Some(id);
        self.apps[id.app].set_may_spin(id.slot, true);
        sink.permit_spin(id, true);
    }

    /// Takes the permission back, where the executor has it.
    pub(super) fn withdraw_spin<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) {
        let app = &mut self.apps[id.app];
        let executor = app.executor(id.slot);
        if !executor.may_spin {
            return;
        }
        self.spinners.cores[usize::from(executor.core)].spinner = None;
        app.set_may_spin(id.slot, false);
        sink.permit_spin(id, false);
    }

    /// A spinner's budget may have run out. While it works none is counted.
    pub(super) fn spin_timer<S: Sink>(&mut self, core: u16, sink: &mut S) {
        let state = &mut self.spinners.cores[usize::from(core)];
        state.timed = false;
        let (Some(id), SpinPolicy::Budget(budget_ns)) = (state.spinner, self.spinners.policy)
        else {
            return;
        };
        let executor = self.apps[id.app].executor(id.slot);
        if executor.state != State::Idle {
            return;
        }
        let deadline_ns = executor.idle_since_ns.saturating_add(budget_ns);
        if deadline_ns <= self.tables.now_ns {
            self.withdraw_spin(id, sink);
        } else {
            self.spinners.cores[usize::from(core)].timed = true;
            self.tables.timers.arm(deadline_ns, Timer::Spin(core));
        }
    }
}
