//! The local scheduler: home of sessions, with the executors that run them and the objects that
//! they make.
//!
//! It takes events, one at a time, and says what follows to a sink. It talks to the coordinator by
//! messages alone. One file for each noun; this one holds them together.

mod adopt;
mod afterwards;
mod app;
mod attempt;
mod delayed;
mod dispatch;
mod executor;
mod invocation;
mod judge;
mod ledger;
mod message;
mod name;
mod object;
mod plan;
mod pool;
mod request;
mod respond;
mod session;
mod settle;
mod spin;
mod steer;
mod trigger;
mod upstream;

use std::collections::VecDeque;

use afterwards::Afterwards;
use app::{App, Apps};
use delayed::Delayed;
use executor::State;
use invocation::Invocation;
use name::Names;
use object::Object;
use plan::Match;
use session::{End, Session};
use spin::Spinners;
use trigger::{State as TriggerState, States};

use crate::CoreConfig;
use crate::coordinator::{ToCoordinator, ToLocal};
use crate::event::{AppId, Event, ExecutorId, Part, Sink};
use crate::gather::Gatherer;
use crate::gather::outcome::Outcome;
use crate::slab::{Ref, Slab};
use crate::spec::AppSpec;
use crate::stats::{AppStats, Totals};
use crate::timer::{TimerId, Wheel};

/// Bits of an invocation id below the scheduler's index.
const INVOCATION_BITS: u32 = 56;

/// What a timer is for.
#[derive(Clone, Copy)]
enum Timer {
    /// A session's deadline.
    Deadline(Ref<Session>),
    /// The guard of what an executor is doing.
    Executor(ExecutorId),
    /// The end of an executor's wait for credit.
    Credit(ExecutorId),
    /// Queued work has waited for an awake executor long enough.
    Forward(AppId),
    /// The pause before another start of a process is over.
    Pool(AppId),
    /// The budget of a core's spinner.
    Spin(u16),
    /// What a trigger has gathered is due: a linger, a window's end.
    Trigger(Ref<TriggerState>),
    /// The pause before a further attempt is over.
    Retry(Ref<Invocation>),
    /// An object is to be published.
    Delayed(Ref<Delayed>),
}

/// The local scheduler.
pub(crate) struct Local {
    apps: Apps,
    tables: Tables,
    spinners: Spinners,
    /// For the coordinator.
    pub(crate) outgoing: VecDeque<ToCoordinator>,
}

/// What is there of all apps, and the time. What keeps the books of a single app is a method of
/// these tables that is given the app, so that it need not look it up for every entry; what may
/// concern several apps, or choose among executors, is a method of [`Local`].
struct Tables {
    scheduler_index: u8,
    now_ns: u64,
    last_invocation: u64,
    sessions: Slab<Session>,
    objects: Slab<Object>,
    invocations: Slab<Invocation>,
    names: Names,
    states: States,
    delayed: Slab<Delayed>,
    timers: Wheel<Timer>,
    /// Apps in which somebody waits for credit and something has changed.
    short_of_memory: Vec<AppId>,
    /// Left to be done at the end of the step.
    afterwards: VecDeque<Afterwards>,
    scratch: Scratch,
}

/// Buffers that are empty between steps.
#[derive(Default)]
struct Scratch {
    matches: Vec<Match>,
    globbed: Vec<usize>,
    parts: Vec<Part>,
    outcome: Outcome<Ref<Object>>,
}

impl Local {
    pub(crate) fn new(config: CoreConfig) -> Self {
        Self {
            apps: Apps::default(),
            tables: Tables {
                scheduler_index: config.scheduler_index,
                now_ns: 0,
                last_invocation: u64::from(config.scheduler_index) << INVOCATION_BITS,
                sessions: Slab::new(),
                objects: Slab::new(),
                invocations: Slab::new(),
                names: Names::new(),
                states: States::new(),
                delayed: Slab::new(),
                timers: Wheel::new(),
                short_of_memory: Vec::new(),
                afterwards: VecDeque::new(),
                scratch: Scratch::default(),
            },
            spinners: Spinners::new(&config),
            outgoing: VecDeque::new(),
        }
    }

    /// Takes one event of its own.
    #[inline]
    pub(crate) fn step<S: Sink>(&mut self, event: Event<'_>, now_ns: u64, sink: &mut S) {
        self.pass_time(now_ns, sink);
        match event {
            Event::Message { executor, message } => self.message(executor, &message, sink),
            other => self.rare_event(other, sink),
        }
        self.end_step(sink);
    }

    /// Does what the step has left to be done.
    #[inline]
    fn end_step<S: Sink>(&mut self, sink: &mut S) {
        if !self.tables.afterwards.is_empty() {
            self.do_afterwards(sink);
        }
        if !self.tables.short_of_memory.is_empty() {
            self.serve_credit(sink);
        }
    }

    /// Takes one message of the coordinator.
    pub(crate) fn take<S: Sink>(&mut self, message: &ToLocal<'_>, now_ns: u64, sink: &mut S) {
        self.pass_time(now_ns, sink);
        match message {
            ToLocal::Open(request) => self.request(request, sink),
            ToLocal::Grow { app } => {
                if self.apps.get(*app).is_some() {
                    self.grow(*app, sink);
                }
            }
        }
        self.end_step(sink);
    }

    /// See [`Core::next_timer_ns`](crate::Core::next_timer_ns).
    pub(crate) fn next_timer_ns(&self) -> Option<u64> {
        (self.tables.timers.armed() > 0).then(|| self.tables.timers.next_ns())
    }

    pub(crate) fn stats(&self, app: AppId) -> Option<AppStats> {
        let app = self.apps.get(app)?;
        let pool = &app.pool;
        let unreleased = app.regions.iter().map(|region| region.unreleased_count);
        Some(AppStats {
            releases_pending: unreleased.map(u64::from).sum(),
            used_bytes: app.ledger.used_bytes(),
            credit_bytes: app.ledger.granted_bytes(),
            executors: app.executors.iter().filter(|e| e.is_alive()).count() as u64,
            executors_idle: u64::from(pool.idle),
            ..app.stats
        })
    }

    pub(crate) fn totals(&self) -> Totals {
        Totals {
            sessions: u64::from(self.tables.sessions.live()),
            objects: u64::from(self.tables.objects.live()),
            invocations: u64::from(self.tables.invocations.live()),
            names: u64::from(self.tables.names.live()),
            trigger_states: u64::from(self.tables.states.live()),
            timers: u64::from(self.tables.timers.armed()),
        }
    }

    fn rare_event<S: Sink>(&mut self, event: Event<'_>, sink: &mut S) {
        match event {
            Event::Deploy { app, spec } => self.deploy(app, spec, sink),
            Event::Remove { app } => self.remove(app, sink),
            Event::Request(request) => self.request(&request, sink),
            Event::Cancel { session } => {
                if let Some(session) = self.tables.session(session) {
                    self.end_session(session, &End::Cancelled, sink);
                }
            }
            Event::ResponseTaken { request, session } => {
                self.response_taken(request, session, sink);
            }
            Event::ExecutorStarted {
                executor,
                incarnation,
            } => self.executor_started(executor, incarnation, sink),
            Event::SpawnFailed { executor, reason } => self.spawn_failed(executor, reason, sink),
            Event::Message { executor, message } => self.message(executor, &message, sink),
            Event::Garbled { executor, reason } => self.garbled(executor, reason, sink),
            Event::ExecutorDying {
                executor,
                incarnation,
            } => self.executor_dying(executor, incarnation),
            Event::ExecutorDied {
                executor,
                incarnation,
                death,
                detail,
            } => self.executor_died(executor, incarnation, death, detail, sink),
            Event::ReleaseRoom { executor } => {
                if self.has_region(executor) {
                    let app = &mut self.apps[executor.app];
                    self.tables.flush_releases(app, executor.slot, sink);
                }
            }
            Event::Tick => {}
        }
    }

    /// Lets time pass up to `now_ns`: what is due happens before anything else.
    #[inline(always)]
    fn pass_time<S: Sink>(&mut self, now_ns: u64, sink: &mut S) {
        debug_assert!(now_ns >= self.tables.now_ns, "time never goes back");
        self.tables.now_ns = self.tables.now_ns.max(now_ns);
        if self.tables.now_ns >= self.tables.timers.next_ns() {
            self.fire_timers(sink);
        }
    }

    #[cold]
    fn fire_timers<S: Sink>(&mut self, sink: &mut S) {
        while let Some(timer) = self.tables.timers.pop(self.tables.now_ns) {
            match timer {
                Timer::Deadline(session) => self.end_session(session, &End::TimedOut, sink),
                Timer::Executor(id) => {
                    self.apps[id.app].executor(id.slot).timer = TimerId::NONE;
                    self.executor_timer(id, sink);
                }
                Timer::Credit(id) => self.refuse_credit(id, sink),
                Timer::Forward(app) => self.forward_timer(app, sink),
                Timer::Pool(app) => self.pool_timer(app, sink),
                Timer::Spin(core) => self.spin_timer(core, sink),
                Timer::Trigger(state) => self.trigger_timer(state, sink),
                Timer::Retry(invocation) => self.retry_timer(invocation, sink),
                Timer::Delayed(object) => self.delayed_timer(object, sink),
            }
        }
    }

    fn trigger_timer<S: Sink>(&mut self, state: Ref<TriggerState>, sink: &mut S) {
        let now_ns = self.tables.now_ns;
        let session = self.tables.states.get(state).timer_fired();
        let app = self.tables.sessions[session].app;
        self.tables
            .gather(&mut self.apps[app], state, None, sink, |gatherer, out| {
                Gatherer::tick(gatherer, now_ns, out);
            });
        self.dispatch_ready(app, sink);
        self.settle(session, sink);
    }

    fn deploy<S: Sink>(&mut self, app: AppId, spec: Box<AppSpec>, sink: &mut S) {
        if let Err(errors) = spec.validate() {
            panic!("app `{}` was deployed unjudged: {errors:?}", spec.name);
        }
        let unsupported = spec.unsupported();
        assert!(unsupported.is_empty(), "{unsupported:?}");
        self.apps.insert(app, App::new(app, spec));
        self.mend_pool(app, sink);
    }

    fn remove<S: Sink>(&mut self, app: AppId, sink: &mut S) {
        let Some(of) = self.apps.get_mut(app) else {
            return;
        };
        if std::mem::replace(&mut of.removing, true) {
            return;
        }
        let sessions = &self.tables.sessions;
        let is_open = |&session: &Ref<Session>| {
            let session = &sessions[session];
            session.app == app && !session.ended
        };
        let open: Vec<Ref<Session>> = sessions.refs().filter(is_open).collect();
        for session in open {
            self.end_session(session, &End::Cancelled, sink);
        }
        for slot in 0..self.apps[app].spec.executor_slots() {
            let id = ExecutorId { app, slot };
            match self.apps[app].executor(slot).state {
                State::Starting | State::Adopting | State::Idle => self.tell_to_leave(id, sink),
                State::Vacant | State::Asked | State::Busy | State::Leaving | State::Killed => {}
            }
        }
        self.forget_if_empty(app, sink);
    }

    /// Forgets an app that is being removed once nothing of it is left: no process, no session,
    /// no response that the node may still be reading.
    fn forget_if_empty<S: Sink>(&mut self, app: AppId, sink: &mut S) {
        let of = &mut self.apps[app];
        if !of.removing || of.pool.taken > 0 || of.stats.sessions_open > 0 || of.untaken > 0 {
            return;
        }
        debug_assert_eq!(of.stats.objects_live, 0, "objects are held by what is gone");
        let slot = of.spec.ingress_slot();
        self.tables.flush_releases(of, slot, sink);
        self.tables.forget_releases(of, slot);
        self.tables.timers.cancel(&mut of.forward_timer);
        self.tables.timers.cancel(&mut of.pool.timer);
        self.apps.remove(app);
        sink.removed(app);
    }

    fn garbled<S: Sink>(&mut self, id: ExecutorId, reason: &str, sink: &mut S) {
        let Some(app) = self.apps.get(id.app) else {
            return;
        };
        let executor = app.executors.get(usize::from(id.slot));
        if executor.is_some_and(|e| e.is_alive() && e.state != State::Killed) {
            let rule = format!("wrote what is no message: {reason}");
            self.fault(id, &rule, sink);
        }
    }

    fn has_region(&self, owner: ExecutorId) -> bool {
        let app = self.apps.get(owner.app);
        app.is_some_and(|app| usize::from(owner.slot) < app.regions.len())
    }
}
