//! The pure state machine of sessions, buckets, triggers, objects and dispatch.
//!
//! `step(event, now) -> actions`: everything that decides is here, and nothing here makes a system
//! call, reads a clock, or knows a thread, so that the same code runs under the real loop, under
//! property tests and under a seeded simulation.
//!
//! Two levels, joined by messages: the coordinator (`coordinator.rs`) routes, the
//! local scheduler (`local/`) does the work. Whoever reads on should begin with `event.rs`, the two
//! sides of a step, then `local/message.rs`, what follows from each thing an executor says, and
//! `local/dispatch.rs`, how the next invocation starts.
#![forbid(unsafe_code)]

mod coordinator;
pub mod event;
mod gather;
pub mod limits;
mod local;
mod slab;
pub mod spec;
mod stats;
mod timer;
mod validate;

use coordinator::Coordinator;
use event::{AppId, Event, Sink};
use local::Local;
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

/// The core: a coordinator and a local scheduler with a mailbox between them.
pub struct Core {
    coordinator: Coordinator,
    local: Local,
}

impl Core {
    /// A core without apps.
    pub fn new(config: CoreConfig) -> Self {
        Self {
            coordinator: Coordinator::default(),
            local: Local::new(config),
        }
    }

    /// Takes one event and tells `sink` what follows from it. `now_ns` is CLOCK_MONOTONIC and
    /// never goes back.
    ///
    /// # Panics
    ///
    /// On [`Event::Deploy`] of a spec that [`validate`](spec::AppSpec::validate) or
    /// [`unsupported`](spec::AppSpec::unsupported) has something against, or under an id in use.
    /// On nothing that an executor can say.
    #[inline]
    pub fn step<S: Sink>(&mut self, event: Event<'_>, now_ns: u64, sink: &mut S) {
        match event {
            Event::Request(request) => {
                let routed = self.coordinator.route(request);
                self.local.take(&routed, now_ns, sink);
            }
            own => self.local.step(own, now_ns, sink),
        }
        while let Some(message) = self.local.outgoing.pop_front() {
            let answer = self.coordinator.take(message);
            self.local.take(&answer, now_ns, sink);
        }
    }

    /// Nothing happens by itself before this time: the loop may sleep until then and must say
    /// [`Event::Tick`] after it. `None`: nothing is waited for.
    #[inline]
    pub fn next_timer_ns(&self) -> Option<u64> {
        self.local.next_timer_ns()
    }

    /// Counters of one app; `None` where there is no such app.
    pub fn stats(&self, app: AppId) -> Option<AppStats> {
        self.local.stats(app)
    }

    /// What the whole core holds, for tests of leaks and for operators.
    pub fn totals(&self) -> Totals {
        self.local.totals()
    }
}
