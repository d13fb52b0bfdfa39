//! The pure state machine of sessions, buckets, triggers, objects and dispatch.
//!
//! `step(event, now) -> actions`: everything that decides is here, and nothing here makes a system
//! call, reads a clock, or knows a thread, so that the same code runs under the real loop, under
//! property tests and under a seeded simulation.
//!
//! Two levels, joined by messages (`level.rs`): the coordinator (`coordinator/`) gathers across
//! sessions, the local scheduler (`local/`) does all other work. Whoever reads on should begin with
//! `event.rs`, the two sides of a step, then `local/message.rs`, what follows from each thing an
//! executor says, and `local/dispatch.rs`, how the next invocation starts.
#![forbid(unsafe_code)]

mod coordinator;
pub mod event;
mod gather;
pub mod history;
pub mod identity;
pub mod in_place;
mod level;
pub mod limits;
mod local;
#[cfg(feature = "planted-bugs")]
pub mod planted;
pub mod share;
mod slab;
pub mod spec;
mod stats;
mod timer;
mod validate;

use coordinator::Coordinator;
use event::{AppId, DeadLetter, Event, Sink};
use level::Addressed;
pub use level::PeerMessage;
use local::Local;
pub use stats::{AppStats, Totals};
pub use validate::SpecError;

/// What a core must know of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoreConfig {
    /// Which scheduler this is; it goes into every id that the core makes.
    pub scheduler_index: u8,
    /// How many schedulers there are, this one among them; at least 1.
    pub schedulers: u8,
    /// How many cores executors are spread over; 0 where no pinning is known.
    pub executor_cores: u16,
    /// How long an idle executor may spin.
    pub spin: SpinPolicy,
    /// The node has a place for what is to outlive it: durable objects can be there.
    pub keeps_on_disk: bool,
    /// Where the numbers in ids begin, so that cores before and after this one make none of its
    /// own: below [`ID_NUMBERS`](limits::ID_NUMBERS). 0: what has made ids before is forgotten,
    /// and so are they.
    pub first_id: u64,
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
    index: u8,
    coordinator: Coordinator,
    local: Local,
}

impl Core {
    /// A core without apps.
    pub fn new(config: CoreConfig) -> Self {
        Self {
            index: config.scheduler_index,
            coordinator: Coordinator::new(config.scheduler_index, config.schedulers),
            local: Local::new(config),
        }
    }

    /// Switches a mistake on.
    #[cfg(feature = "planted-bugs")]
    pub fn plant(&mut self, planted: planted::Planted) {
        self.local.plant(planted);
    }

    /// Takes one event and tells `sink` what follows from it. `now_ns` is CLOCK_MONOTONIC and
    /// never goes back.
    ///
    /// # Panics
    ///
    /// On [`Event::Deploy`] of a spec that [`validate`](spec::AppSpec::validate) or
    /// [`unsupported`](spec::AppSpec::unsupported) has something against, or under an id in use,
    /// or of an app that this scheduler has no share of.
    /// On nothing that an executor can say.
    #[inline]
    pub fn step<S: Sink>(&mut self, event: Event<'_>, now_ns: u64, sink: &mut S) {
        if now_ns >= self.coordinator.next_ns() {
            self.coordinator.pass_time(now_ns);
            self.exchange(now_ns, sink);
        }
        match event {
            Event::Message { executor, message } => {
                self.local.hear(executor, &message, now_ns, sink);
            }
            rare => self.rare_event(rare, now_ns, sink),
        }
        if self.local.has_outgoing() || !self.coordinator.outgoing.is_empty() {
            self.exchange(now_ns, sink);
        }
    }

    #[inline(never)]
    fn rare_event<S: Sink>(&mut self, event: Event<'_>, now_ns: u64, sink: &mut S) {
        match event {
            Event::Deploy { app, .. } => {
                self.local.step(event, now_ns, sink);
                let spec = self.local.spec(app).expect("it has just been deployed");
                self.coordinator.deploy(app, spec, now_ns);
            }
            Event::Remove { app } => {
                self.local.step(event, now_ns, sink);
                self.coordinator.forget(app);
            }
            Event::Flush { app } => {
                if self.local.is_quiet(app) {
                    self.coordinator.flush(app, now_ns);
                }
            }
            Event::Peer { message } => self.take(message.0.clone(), now_ns, sink),
            own => self.local.step(own, now_ns, sink),
        }
    }

    /// Delivers what the levels say to each other, and what that leads to.
    #[cold]
    fn exchange<S: Sink>(&mut self, now_ns: u64, sink: &mut S) {
        loop {
            let next = self.local.next_outgoing();
            let Some(next) = next.or_else(|| self.coordinator.outgoing.pop_front()) else {
                return;
            };
            if next.to == self.index {
                self.take(next.message, now_ns, sink);
            } else {
                sink.peer(next.to, &PeerMessage(next.message));
            }
        }
    }

    fn take<S: Sink>(&mut self, message: Addressed, now_ns: u64, sink: &mut S) {
        match message {
            Addressed::Local(message) => self.local.take(message, now_ns, sink),
            Addressed::Coordinator(message) => self.coordinator.take(message, now_ns),
        }
    }

    /// Nothing happens by itself before this time: the loop may sleep until then and must say
    /// [`Event::Tick`] after it. `None`: nothing is waited for.
    #[inline]
    pub fn next_timer_ns(&self) -> Option<u64> {
        let next_ns = self.local.next_timer_ns().min(self.coordinator.next_ns());
        (next_ns != u64::MAX).then_some(next_ns)
    }

    /// Whether nothing of an app goes on here but that objects are pending in triggers that gather
    /// across sessions.
    pub fn is_quiet(&self, app: AppId) -> bool {
        self.local.is_quiet(app)
    }

    /// Counters of one app; `None` where there is no such app.
    pub fn stats(&self, app: AppId) -> Option<AppStats> {
        let of = self.local.stats(app)?;
        let counts = self.coordinator.counts(app);
        Some(AppStats {
            gathered: counts.gathered,
            dropped_total: of.dropped_total + counts.dropped_total,
            early_total: of.early_total + counts.early_total,
            ..of
        })
    }

    /// The dead letters of an app here, the oldest first.
    pub fn dead_letters(&self, app: AppId) -> impl Iterator<Item = DeadLetter<'_>> {
        self.local.dead_letters(app)
    }

    /// What the whole core holds, for tests of leaks and for operators.
    pub fn totals(&self) -> Totals {
        let of = self.local.totals();
        let (gathered, timers) = self.coordinator.totals();
        Totals {
            gathered,
            timers: of.timers + timers,
            ..of
        }
    }
}
