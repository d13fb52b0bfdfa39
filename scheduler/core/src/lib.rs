//! The pure state machine of sessions, buckets, triggers, objects and dispatch.
//!
//! `step(event, now) -> actions`: everything that decides is here, and nothing here makes a system
//! call, reads a clock, or knows a thread, so that the same code runs under the real loop, under
//! property tests and under a seeded simulation.
#![forbid(unsafe_code)]

pub mod event;
#[allow(dead_code)]
mod limits;
pub mod spec;
mod stats;
mod validate;

use event::{AppId, Event, Sink};
pub use stats::{AppStats, Totals};
pub use validate::SpecError;

/// What a core must know of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoreConfig {
    /// Which scheduler this is; it goes into every id that the core makes.
    pub scheduler_index: u8,
    /// How many cores executors are spread over; 0 where no pinning is known.
    pub executor_cores: u16,
    /// How long an idle executor may spin.
    pub spin: SpinPolicy,
}

/// How long an idle executor may spin before it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpinPolicy {
    /// Not at all.
    Never,
    /// So many nanoseconds.
    Budget(u64),
    /// For as long as it is idle.
    Always,
}

/// The core.
pub struct Core {
    config: CoreConfig,
}

impl Core {
    /// A core without apps.
    pub fn new(config: CoreConfig) -> Self {
        Self { config }
    }

    /// Takes one event and tells `sink` what follows from it. `now_ns` is CLOCK_MONOTONIC and
    /// never goes back.
    pub fn step<S: Sink>(&mut self, event: Event<'_>, now_ns: u64, sink: &mut S) {
        let _ = (event, now_ns, sink, self.config);
    }

    /// Nothing happens by itself before this time: the loop may sleep until then and must say
    /// [`Event::Tick`] after it. `None`: nothing is waited for.
    pub fn next_timer_ns(&self) -> Option<u64> {
        None
    }

    /// Counters of one app; `None` where there is no such app.
    pub fn stats(&self, app: AppId) -> Option<AppStats> {
        let _ = app;
        None
    }

    /// What the whole core holds, for tests of leaks and for operators.
    pub fn totals(&self) -> Totals {
        Totals::default()
    }
}
