//! The local scheduler: home of sessions, with the executors that run them and the objects that
//! they make.
//!
//! It takes events, one at a time, and says what follows to a sink. It talks to the coordinator by
//! messages alone. One file for each noun; this one holds them together.

mod across;
mod adopt;
mod afterwards;
mod app;
mod attempt;
mod custom;
mod dead;
mod delayed;
mod dispatch;
mod durable;
mod exchange;
mod executor;
mod fair;
mod follower;
mod handover;
mod in_place;
mod invocation;
mod judge;
mod ledger;
mod lineage;
mod load;
mod message;
mod name;
mod note;
mod numbered;
mod object;
mod plan;
mod pool;
mod report;
mod request;
mod rerun;
mod respond;
mod retain;
mod send;
mod serial;
mod session;
mod settle;
mod spin;
mod starvation;
mod steer;
mod trigger;
mod upstream;
mod verdict;
mod wait;
mod write;

use std::collections::VecDeque;

use across::Foreign;
use afterwards::Afterwards;
use app::{App, Apps};
use attempt::Done;
use delayed::Delayed;
use durable::Root;
use executor::State;
use fair::Fair;
use follower::Follower;
use invocation::Invocation;
use load::Load;
use name::Names;
use numbered::Numbered;
use object::{Attached, Object};
use plan::Match;
use report::Report;
use retain::Retained;
use serial::Lines;
use session::{End, Session};
use spin::Spinners;
use trigger::{State as TriggerState, States};
use write::Write;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use pheromone_shm::message::FromExecutor;

use crate::CoreConfig;
use crate::event::{AppId, DeadLetter, Event, ExecutorId, Part, Sink};
use crate::gather::Gatherer;
use crate::gather::outcome::Outcome;
use crate::level::{Outgoing, ToLocal};
use crate::limits::ID_NUMBERS;
use crate::share::Division;
use crate::slab::{Ref, Slab};
use crate::spec::AppSpec;
use crate::stats::{AppStats, Totals};
use crate::timer::{TimerId, Wheel};

/// Bits of an invocation id below the scheduler's index.
const INVOCATION_BITS: u32 = 56;
const _: () = assert!(1 << INVOCATION_BITS == ID_NUMBERS);

/// What a timer is for.
#[derive(Clone, Copy)]
enum Timer {
    /// A session's deadline.
    Deadline(Ref<Session>),
    /// The guard of what an executor is doing.
    Executor(ExecutorId),
    /// The end of an executor's wait for an object.
    Wait(ExecutorId),
    /// The end of an executor's wait for credit.
    Credit(ExecutorId),
    /// Queued work has waited for an awake executor long enough.
    Forward(AppId),
    /// What an executor has offered may have waited for it long enough.
    Offers(AppId),
    /// What an app wants of other homes is to be looked at again.
    Exchange(AppId),
    /// The pause before another start of a process is over.
    Pool(AppId),
    /// An executor beyond the minimum may have been idle for long enough.
    Surplus(AppId),
    /// The budget of a core's spinner.
    Spin(u16),
    /// The turn of an app that runs nothing has come.
    Turn,
    /// What a trigger has gathered is due: a linger, a window's end.
    Trigger(Ref<TriggerState>),
    /// The pause before a further attempt is over.
    Retry(Ref<Invocation>),
    /// A rerun rule has not been met in time.
    Rerun(Ref<Done>),
    /// An object is to be published.
    Delayed(Ref<Delayed>),
    /// An object has been retained as long as its bucket says.
    Retained(Ref<Retained>),
    /// The time that a custom trigger has asked for.
    Tick(AppId, usize),
    /// The pause before a custom trigger's process is started is over.
    Restart(AppId, usize),
}

/// The local scheduler.
pub(crate) struct Local {
    apps: Apps,
    tables: Tables,
    spinners: Spinners,
    fair: Fair,
}

/// What is there of all apps, and the time. What keeps the books of a single app is a method of
/// these tables that is given the app, so that it need not look it up for every entry; what may
/// concern several apps, or choose among executors, is a method of [`Local`].
struct Tables {
    scheduler_index: u8,
    schedulers: u8,
    /// The node has a place for what is to outlive it.
    keeps_on_disk: bool,
    now_ns: u64,
    last_invocation: u64,
    sessions: Slab<Session>,
    /// Where ids must not be used again by a core to come.
    numbered: Option<Numbered>,
    objects: Slab<Object>,
    invocations: Slab<Invocation>,
    dones: Slab<Done>,
    roots: Slab<Root>,
    names: Names,
    states: States,
    delayed: Slab<Delayed>,
    reports: Slab<Report>,
    writes: Slab<Write>,
    loads: Slab<Load>,
    retained: Slab<Retained>,
    /// What is attached to an object that owns its memory, by its slot.
    attached: HashMap<u32, Attached, FixedState>,
    lines: Lines,
    timers: Wheel<Timer>,
    /// Apps in which somebody waits for credit and something has changed.
    short_of_memory: Vec<AppId>,
    /// Executors whose offers are noted alone, in the order in which they were heard.
    noted: Vec<ExecutorId>,
    /// A publication that waits for its sender's return.
    follower: Option<Follower>,
    /// Left to be done at the end of the step.
    afterwards: VecDeque<Afterwards>,
    /// For coordinators and other local schedulers.
    outgoing: VecDeque<Outgoing>,
    /// Objects that are at home elsewhere.
    foreign: Foreign,
    scratch: Scratch,
    #[cfg(feature = "planted-bugs")]
    planted: Option<crate::planted::Planted>,
}

/// Buffers that are empty between steps.
#[derive(Default)]
struct Scratch {
    matches: Vec<Match>,
    globbed: Vec<usize>,
    parts: Vec<Part>,
    /// Attached objects that are let go of.
    detached: Vec<Ref<Object>>,
    is_detaching: bool,
    outcome: Outcome<Ref<Object>>,
}

impl Local {
    pub(crate) fn new(config: CoreConfig) -> Self {
        Self {
            apps: Apps::default(),
            tables: Tables {
                scheduler_index: config.scheduler_index,
                schedulers: config.schedulers,
                keeps_on_disk: config.keeps_on_disk,
                now_ns: 0,
                last_invocation: (u64::from(config.scheduler_index) << INVOCATION_BITS)
                    + config.first_id % ID_NUMBERS,
                sessions: Slab::new(),
                numbered: Numbered::new(config.first_id),
                objects: Slab::new(),
                invocations: Slab::new(),
                dones: Slab::new(),
                roots: Slab::new(),
                names: Names::new(),
                states: States::new(),
                delayed: Slab::new(),
                reports: Slab::new(),
                writes: Slab::new(),
                loads: Slab::new(),
                retained: Slab::new(),
                attached: HashMap::default(),
                lines: Lines::new(),
                timers: Wheel::new(),
                short_of_memory: Vec::new(),
                noted: Vec::new(),
                follower: None,
                afterwards: VecDeque::new(),
                outgoing: VecDeque::new(),
                foreign: Foreign::default(),
                scratch: Scratch::default(),
                #[cfg(feature = "planted-bugs")]
                planted: None,
            },
            spinners: Spinners::new(&config),
            fair: Fair::new(config.executor_cores),
        }
    }

    /// Switches a mistake on.
    #[cfg(feature = "planted-bugs")]
    pub(crate) fn plant(&mut self, planted: crate::planted::Planted) {
        self.tables.planted = Some(planted);
    }

    /// Takes one message of an executor.
    #[inline(always)]
    pub(crate) fn hear<S: Sink>(
        &mut self,
        executor: ExecutorId,
        message: &FromExecutor<'_>,
        now_ns: u64,
        sink: &mut S,
    ) {
        self.pass_time(now_ns, sink);
        match message {
            FromExecutor::Offer { .. } | FromExecutor::Continue { .. } => {
                if self.tables.follower.is_some() {
                    self.enter_follower();
                }
                self.hear_in_place(executor, message, sink);
            }
            through => self.hear_through(executor, through, sink),
        }
        self.end_step(sink);
    }

    /// Takes one event of its own.
    pub(crate) fn step<S: Sink>(&mut self, event: Event<'_>, now_ns: u64, sink: &mut S) {
        self.pass_time(now_ns, sink);
        self.enter_notes();
        self.rare_event(event, sink);
        self.end_step(sink);
    }

    /// Does what the step has left to be done.
    #[inline(always)]
    fn end_step<S: Sink>(&mut self, sink: &mut S) {
        let tables = &self.tables;
        let is_left = !tables.afterwards.is_empty() || !tables.short_of_memory.is_empty();
        if is_left || self.fair.is_shared() {
            self.enter_notes();
            self.do_what_is_left(sink);
        }
    }

    fn do_what_is_left<S: Sink>(&mut self, sink: &mut S) {
        if !self.tables.afterwards.is_empty() {
            self.do_afterwards(sink);
        }
        if !self.tables.short_of_memory.is_empty() {
            self.serve_credit(sink);
        }
        if self.fair.is_shared() {
            self.share_out(sink);
        }
    }

    /// Takes one message of a coordinator or of another local scheduler.
    pub(crate) fn take<S: Sink>(&mut self, message: ToLocal, now_ns: u64, sink: &mut S) {
        self.pass_time(now_ns, sink);
        self.enter_notes();
        match message {
            ToLocal::Grow { app } => {
                if self.apps.get(app).is_some() {
                    self.grow(app, sink);
                }
            }
            other => self.take_across(other, sink),
        }
        self.end_step(sink);
    }

    #[inline]
    pub(crate) fn has_outgoing(&self) -> bool {
        !self.tables.outgoing.is_empty()
    }

    pub(crate) fn next_outgoing(&mut self) -> Option<Outgoing> {
        self.tables.outgoing.pop_front()
    }

    /// See [`Core::next_timer_ns`](crate::Core::next_timer_ns); `u64::MAX` for never.
    #[inline]
    pub(crate) fn next_timer_ns(&self) -> u64 {
        if self.tables.timers.armed() > 0 {
            self.tables.timers.next_ns()
        } else {
            u64::MAX
        }
    }

    /// What an app is.
    pub(crate) fn spec(&self, app: AppId) -> Option<&AppSpec> {
        self.apps.get(app).map(|app| &*app.spec)
    }

    pub(crate) fn stats(&self, app: AppId) -> Option<AppStats> {
        let app = self.apps.get(app)?;
        let pool = &app.pool;
        let processes = app.executors[..usize::from(app.pool_slots)].iter();
        let unreleased = app.regions.iter().map(|region| region.unreleased_count);
        let noted = self.tables.noted.iter().filter(|id| id.app == app.id);
        let noted = noted.count() + usize::from(self.tables.has_follower(app.id));
        Some(AppStats {
            releases_pending: unreleased.map(u64::from).sum(),
            objects_live: app.stats.objects_live - app.lodgers(),
            used_bytes: app.ledger.used_bytes(),
            credit_bytes: app.ledger.granted_bytes(),
            executors: processes.filter(|e| e.is_alive()).count() as u64,
            executors_idle: u64::from(pool.idle),
            queued: app.stats.queued + app.in_line + app.offers.len() as u64 + noted as u64,
            dead_letters: app.dead.count(),
            dead_letters_bytes: app.dead.held_bytes(),
            ..app.stats
        })
    }

    /// See [`Core::dead_letters`](crate::Core::dead_letters).
    pub(crate) fn dead_letters(&self, app: AppId) -> impl Iterator<Item = DeadLetter<'_>> {
        self.apps
            .get(app)
            .into_iter()
            .flat_map(|app| app.dead.list())
    }

    pub(crate) fn totals(&self) -> Totals {
        let noted = self.tables.noted.len() + usize::from(self.tables.follower.is_some());
        let noted = noted as u64;
        Totals {
            sessions: u64::from(self.tables.sessions.live()),
            objects: u64::from(self.tables.objects.live()) + noted,
            invocations: u64::from(self.tables.invocations.live()) + noted,
            names: u64::from(self.tables.names.live()),
            trigger_states: u64::from(self.tables.states.live()),
            lines: u64::from(self.tables.lines.live()),
            gathered: 0,
            timers: u64::from(self.tables.timers.armed()),
        }
    }

    fn rare_event<S: Sink>(&mut self, event: Event<'_>, sink: &mut S) {
        match event {
            Event::Deploy { app, spec } => self.deploy(app, spec, sink),
            Event::Remove { app } => self.remove(app, sink),
            Event::Request(request) => self.request(&request, sink),
            Event::Retry(retry) => self.retry(&retry, sink),
            Event::DropLetters { app, letter } => self.drop_letters(app, letter, sink),
            Event::HandOver { app } => self.hand_over(app, sink),
            Event::LetterTaken { app, letter } => self.letter_taken(app, letter, sink),
            Event::Adopt { app, letter } => self.adopt_letter(app, letter, sink),
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
            Event::Sweep { executor } => self.sweep(executor, sink),
            Event::Swept { executor } => self.swept(executor, sink),
            Event::ReleaseRoom { executor } => {
                if self.has_region(executor) {
                    let app = &mut self.apps[executor.app];
                    self.tables.flush_releases(app, executor.slot, sink);
                }
            }
            Event::FailureWritten { app, ticket, body } => {
                self.failure_written(app, ticket, body, sink);
            }
            Event::FailureNotWritten { ticket, reason, .. } => {
                self.failure_not_written(ticket, reason, sink);
            }
            Event::Written {
                ticket, outcome, ..
            } => self.written(ticket, outcome, sink),
            Event::Recorded {
                ticket, outcome, ..
            } => self.recorded(ticket, outcome, sink),
            Event::Restore(restored) => self.restore(restored, sink),
            Event::Loaded { app, ticket, found } => self.loaded_from_disk(app, ticket, found, sink),
            Event::Message { .. } | Event::Flush { .. } | Event::Peer { .. } => {
                unreachable!("the core handles these")
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
        self.enter_notes();
        while let Some(timer) = self.tables.timers.pop(self.tables.now_ns) {
            match timer {
                Timer::Deadline(session) => self.end_session(session, &End::TimedOut, sink),
                Timer::Executor(id) => {
                    self.apps[id.app].executor(id.slot).timer = TimerId::NONE;
                    self.executor_timer(id, sink);
                }
                Timer::Wait(id) => self.wait_timer(id, sink),
                Timer::Credit(id) => self.refuse_credit(id, sink),
                Timer::Forward(app) => self.forward_timer(app, sink),
                Timer::Offers(app) => self.offers_timer(app, sink),
                Timer::Exchange(app) => self.exchange_timer(app),
                Timer::Pool(app) => self.pool_timer(app, sink),
                Timer::Surplus(app) => self.surplus_timer(app, sink),
                Timer::Spin(core) => self.spin_timer(core, sink),
                Timer::Turn => self.fair.timer_fired(),
                Timer::Trigger(state) => self.trigger_timer(state, sink),
                Timer::Retry(invocation) => self.retry_timer(invocation, sink),
                Timer::Rerun(done) => self.rerun_timer(done, sink),
                Timer::Delayed(object) => self.delayed_timer(object, sink),
                Timer::Retained(object) => self.retained_timer(object, sink),
                Timer::Tick(app, custom) => self.tick_timer(app, custom),
                Timer::Restart(app, custom) => self.restart_timer(app, custom, sink),
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
        let division = Division::new(&spec, app, self.tables.schedulers);
        let here = self.tables.scheduler_index;
        let share = division
            .share(&spec, here)
            .expect("an app is deployed to schedulers that have a share of it");
        self.apps
            .insert(app, App::new(app, spec, division, share, here));
        self.mend_pool(app, sink);
        self.start_customs(app, sink);
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
        self.tables.forget_letters(&mut self.apps[app], sink);
        self.drop_retained(app, sink);
        for slot in 0..self.apps[app].spec.executor_slots() {
            let id = ExecutorId { app, slot };
            match self.apps[app].executor(slot).state {
                State::Starting | State::Adopting | State::Idle => self.tell_to_leave(id, sink),
                State::Vacant
                | State::Asked
                | State::Busy
                | State::Waiting
                | State::Deciding
                | State::Leaving
                | State::Killed => {}
            }
        }
        self.forget_if_empty(app, sink);
    }

    /// Forgets an app that is being removed once nothing of it is left: no process, no session,
    /// no response that the node may still be reading.
    fn forget_if_empty<S: Sink>(&mut self, app: AppId, sink: &mut S) {
        let of = &mut self.apps[app];
        if !of.removing
            || of.pool.taken > 0
            || of.stats.sessions_open > 0
            || of.lingering > 0
            || of.stats.objects_live > 0
        {
            return;
        }
        if of.has_custom_process() {
            return;
        }
        self.forget_customs(app);
        let of = &mut self.apps[app];
        let slot = of.spec.ingress_slot();
        self.tables.flush_releases(of, slot, sink);
        self.tables.forget_releases(of, slot);
        self.tables.timers.cancel(&mut of.forward_timer);
        self.tables.timers.cancel(&mut of.offers.timer);
        self.tables.forget_exchange(of);
        self.tables.timers.cancel(&mut of.pool.timer);
        self.tables.timers.cancel(&mut of.pool.surplus_timer);
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
