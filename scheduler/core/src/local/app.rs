//! One deployed version of one app: its plan, queues, executors, regions and ledger.
//!
//! An app is there until nothing of it is left, so whoever holds something of an app may index
//! [`Apps`] by its id.

use std::ops::{Index, IndexMut};

use crate::event::{AppId, ExecutorId};
use crate::limits::{CREDIT_SLICE_BYTES, OBJECT_CHARGE_BYTES_MIN, RESERVE_PART};
use crate::local::custom::Custom;
use crate::local::dead::Dead;
use crate::local::exchange::Exchange;
use crate::local::executor::{Executor, ExecutorList};
use crate::local::in_place::Offers;
use crate::local::invocation::Invocation;
use crate::local::ledger::Ledger;
use crate::local::object::Object;
use crate::local::plan::Plan;
use crate::local::retain::RetainedByName;
use crate::local::starvation::PassedOver;
use crate::local::wait::Waits;
use crate::share::{Division, Share};
use crate::slab::Ref;
use crate::spec::AppSpec;
use crate::stats::AppStats;
use crate::timer::TimerId;

/// Priorities from -8 to 7, each with a list of functions that are ready.
pub(super) const PRIORITIES: usize = 16;

/// The app.
pub(super) struct App {
    pub(super) id: AppId,
    /// The whole app, as every scheduler that has a share of it sees it.
    pub(super) spec: Box<AppSpec>,
    /// What of it is here: the limits that hold here are these.
    pub(super) share: Share,
    pub(super) division: Division,
    /// Where there are other homes.
    pub(super) exchange: Option<Box<Exchange>>,
    pub(super) plan: Plan,
    pub(super) functions: Vec<FunctionState>,
    pub(super) ready: Ready,
    /// Where functions differ in priority.
    pub(super) passed_over_ns: Option<Box<PassedOver>>,
    /// The pool's, then those of custom triggers.
    pub(super) executors: Vec<Executor>,
    /// How many slots are the pool's.
    pub(super) pool_slots: u16,
    pub(super) customs: Vec<Custom>,
    /// Idle executors that spin, and those that sleep; the last used first.
    pub(super) awake: ExecutorList,
    pub(super) asleep: ExecutorList,
    /// By region: executor slots, then ingress.
    pub(super) regions: Vec<Region>,
    pub(super) ledger: Ledger,
    pub(super) pool: PoolState,
    pub(super) waits: Waits,
    pub(super) dead: Dead,
    /// The last to arrive of the retained objects of each name.
    pub(super) retained: RetainedByName,
    /// Of `stats`, `queued` counts here what is in the functions' queues alone.
    pub(super) stats: AppStats,
    /// Invocations that wait in their lines.
    pub(super) in_line: u64,
    pub(super) span_units: u64,
    /// No new sessions; gone when nothing is left.
    pub(super) removing: bool,
    /// Remembered names of its sessions, and what their triggers remember in the same way.
    pub(super) names: u64,
    /// Ended sessions of which something is left.
    pub(super) lingering: u32,
    /// Wakes a sleeper or starts a process for work that has waited too long.
    pub(super) forward_timer: TimerId,
    /// What executors would start by themselves.
    pub(super) offers: Offers,
}

/// What changes of a function.
#[derive(Default)]
pub(super) struct FunctionState {
    pub(super) first: Ref<Invocation>,
    pub(super) last: Ref<Invocation>,
    pub(super) running: u32,
    pub(super) running_max: u32,
    /// Processes in a row that could not load it.
    pub(super) failed_loads: u32,
    priority: u8,
    listed: bool,
    /// The next of its priority's ring of functions that are ready.
    next_ready: u16,
}

impl FunctionState {
    /// Its priority as a place in [`Ready`]: the lower the sooner.
    pub(super) fn class(&self) -> usize {
        self.priority.into()
    }

    fn can_start(&self) -> bool {
        self.first.is_some() && self.running < self.running_max
    }
}

/// Functions with something queued that may start: a ring for each priority, served in turn and
/// linked through the functions' states, whose last one is known here. Entries that no longer can
/// start are passed over when they come up.
#[derive(Default)]
pub(super) struct Ready {
    last: [u16; PRIORITIES],
    occupied: u16,
}

/// Objects whose memory lies in one region.
#[derive(Default)]
pub(super) struct Region {
    /// Those alive.
    pub(super) live: Ref<Object>,
    /// The dead ones whose owner has had no room to be told.
    pub(super) unreleased: Ref<Object>,
    pub(super) unreleased_count: u32,
    /// Whether there is an owner that knows of the live ones.
    pub(super) owned: bool,
}

/// How the pool grows and is mended.
#[derive(Default)]
pub(super) struct PoolState {
    /// Slots with a process, or one asked for.
    pub(super) taken: u16,
    /// Of them those that will be idle by themselves: asked for or starting.
    pub(super) coming: u16,
    pub(super) idle: u16,
    pub(super) busy: u16,
    /// Those that wait for an object, beside whom others may run.
    pub(super) waiting: u16,
    /// Starts that failed in a row.
    pub(super) failed_starts: u32,
    /// Processes in a row that could not load a function.
    pub(super) failed_loads: u32,
    /// Processes in a row that died in an invocation without having completed any.
    pub(super) quick_deaths: u32,
    /// No process is started before this time.
    pub(super) not_before_ns: u64,
    pub(super) timer: TimerId,
    /// Why the last of them failed or died.
    pub(super) last_failure: String,
    /// It has been told that processes fail again and again.
    pub(super) trouble_told: bool,
    /// Looks after executors beyond the minimum that are idle.
    pub(super) surplus_timer: TimerId,
}

impl PoolState {
    /// Whether processes have died or not loaded lately, which one that works makes good.
    #[inline]
    pub(super) fn has_failed(&self) -> bool {
        self.quick_deaths > 0 || self.failed_loads > 0
    }
}

impl App {
    pub(super) fn new(
        id: AppId,
        spec: Box<AppSpec>,
        division: Division,
        share: Share,
        here: u8,
    ) -> Self {
        let plan = Plan::new(&spec);
        let functions: Vec<FunctionState> = spec
            .functions
            .iter()
            .map(|function| FunctionState {
                running_max: function
                    .max_concurrency
                    .map_or(u32::MAX, |most| share.part_of(most.into()) as u32),
                priority: u8::try_from(7 - function.priority).expect("validated: -8..=7"),
                ..FunctionState::default()
            })
            .collect();
        let differ = functions
            .windows(2)
            .any(|two| two[0].priority != two[1].priority);
        let pool_slots = spec.pool_slots();
        let slots = usize::from(spec.executor_slots());
        let mut regions: Vec<Region> = (0..=slots).map(|_| Region::default()).collect();
        regions[slots].owned = true;
        Self {
            id,
            ready: Ready::default(),
            passed_over_ns: differ.then(Box::default),
            functions,
            executors: (0..spec.executor_slots())
                .map(|slot| {
                    let is_here = slot >= pool_slots || share.has_slot(slot);
                    Executor::new(spec.functions.len(), is_here)
                })
                .collect(),
            exchange: Exchange::new(division, &share, here),
            pool_slots,
            customs: Custom::all(&spec),
            awake: ExecutorList::default(),
            asleep: ExecutorList::default(),
            regions,
            ledger: Ledger::new(share.memory_bytes),
            pool: PoolState::default(),
            waits: Waits::default(),
            dead: Dead::default(),
            retained: RetainedByName::default(),
            stats: AppStats::default(),
            in_line: 0,
            span_units: spec.region_span_bytes() / pheromone_shm::message::UNIT_BYTES,
            removing: false,
            names: 0,
            lingering: 0,
            forward_timer: TimerId::NONE,
            offers: Offers::default(),
            plan,
            share,
            division,
            spec,
        }
    }

    /// An executor of this app.
    #[inline]
    pub(super) fn executor_id(&self, slot: u16) -> ExecutorId {
        ExecutorId { app: self.id, slot }
    }

    #[inline]
    pub(super) fn region(&mut self, slot: u16) -> &mut Region {
        &mut self.regions[usize::from(slot)]
    }

    /// How long a session may take whose opener has asked for this.
    pub(super) fn shortened_timeout_ns(&self, asked_ns: Option<u64>) -> Option<u64> {
        match (asked_ns, self.spec.session_timeout_ns) {
            (Some(asked_ns), Some(most_ns)) => Some(asked_ns.min(most_ns)),
            (asked_ns, most_ns) => asked_ns.or(most_ns),
        }
    }

    /// The name of a function, for messages.
    pub(super) fn function_name(&self, function: u16) -> &str {
        &self.spec.functions[usize::from(function)].name
    }

    /// Puts a function on the list of those ready, where it is ready and not on it.
    #[inline]
    pub(super) fn list(&mut self, function: u16) {
        let state = &mut self.functions[usize::from(function)];
        if !state.listed && state.can_start() {
            state.listed = true;
            self.ready.push(&mut self.functions, function);
        }
    }

    /// One more invocation of a function is running, and the turn passes on.
    #[inline]
    pub(super) fn started_running(&mut self, function: u16) {
        self.stats.running += 1;
        self.functions[usize::from(function)].running += 1;
        self.turn(function);
    }

    /// A function has one invocation less running.
    #[inline]
    pub(super) fn stopped_running(&mut self, function: u16) {
        self.stats.running -= 1;
        let state = &mut self.functions[usize::from(function)];
        let was_full = state.running == state.running_max;
        state.running -= 1;
        if was_full {
            self.list(function);
        }
    }

    /// The function whose turn it is.
    #[inline]
    pub(super) fn next_ready(&mut self) -> Option<u16> {
        loop {
            let function = self.ready.first(&self.functions)?;
            let state = &mut self.functions[usize::from(function)];
            if state.can_start() {
                return Some(function);
            }
            state.listed = false;
            self.ready.pop(&mut self.functions);
        }
    }

    /// Passes the turn on from the function that `next_ready` named, after one of its invocations
    /// has started.
    #[inline]
    fn turn(&mut self, function: u16) {
        if self.ready.first(&self.functions) == Some(function) {
            self.ready.pop(&mut self.functions);
            let state = &mut self.functions[usize::from(function)];
            state.listed = state.can_start();
            if state.listed {
                self.ready.push(&mut self.functions, function);
            }
        }
    }

    /// Whether what is queued must wait for an executor that works, and whoever else could be woken
    /// or started for it has been thought of, or is not there.
    #[inline(always)]
    pub(super) fn must_wait(&self) -> bool {
        let waits = self.forward_timer != TimerId::NONE;
        if self.is_full() {
            return waits || !(self.may_ask() || self.has_grants());
        }
        let nobody_else = self.asleep.is_empty()
            && self.pool.taken >= self.processes_max()
            && !(self.may_ask() || self.has_grants());
        self.awake.is_empty() && self.pool.busy > 0 && (nobody_else || waits)
    }

    /// Whether something has begun that has not ended.
    pub(super) fn is_at_work(&self) -> bool {
        self.pool.busy > 0 || self.pool.waiting > 0
    }

    /// Whether there are more processes than may run, since some of them have waited.
    #[inline]
    pub(super) fn has_too_many(&self) -> bool {
        let pool = &self.pool;
        pool.idle + pool.busy + pool.coming > self.share.executors.max
    }

    /// Functions that are ready, those to be served first first.
    pub(super) fn ready_functions(&self) -> impl Iterator<Item = u16> {
        let listed = self.ready.iter(&self.functions);
        listed.filter(|&function| self.functions[usize::from(function)].can_start())
    }

    /// Whether less than a part of the objects, or of the names, is left: the edge refuses then.
    pub(super) fn is_short_of_objects(&self) -> bool {
        let most = u64::from(self.share.limits.objects);
        self.stats.objects_live.max(self.names) >= most - most / RESERVE_PART
    }

    /// Whether so many names more are past the limit on objects, which holds for them too.
    pub(super) fn has_too_many_names(&self, more: u64) -> bool {
        self.names.saturating_add(more) > u64::from(self.share.limits.objects)
    }

    /// Whether the limit on live objects is reached and an executor has more credit than it is kept
    /// supplied with: it has asked for that to make large objects, not more of them.
    pub(super) fn has_too_many_objects(&self, slot: u16) -> bool {
        let credit = &self.executors[usize::from(slot)].credit;
        self.is_out_of_objects() && credit.left_bytes() > CREDIT_SLICE_BYTES
    }

    /// Whether the limit on live objects, or on names, is reached.
    #[inline]
    pub(super) fn is_at_limit(&self) -> bool {
        self.names.max(self.stats.objects_live) >= u64::from(self.share.limits.objects)
    }

    /// Whether the limit on live objects is reached.
    pub(super) fn is_out_of_objects(&self) -> bool {
        self.stats.objects_live >= u64::from(self.share.limits.objects)
    }

    /// Objects that an invocation may hold: as many inputs as it may have, and as many that it gets
    /// while it runs.
    pub(super) fn held_max(&self) -> usize {
        (self.spec.limits.inputs as usize).saturating_mul(2)
    }

    /// Bytes that the objects still allowed would cost at least: credit past this is of no use.
    pub(super) fn objects_left_bytes(&self) -> u64 {
        u64::from(self.share.limits.objects)
            .saturating_sub(self.stats.objects_live)
            .saturating_mul(OBJECT_CHARGE_BYTES_MIN)
    }
}

impl Ready {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    /// Whether functions of a priority are listed.
    pub(super) fn has_class(&self, class: usize) -> bool {
        self.occupied >> class & 1 == 1
    }

    #[inline]
    fn push(&mut self, functions: &mut [FunctionState], pushed: u16) {
        let class = functions[usize::from(pushed)].priority;
        let last = std::mem::replace(&mut self.last[usize::from(class)], pushed);
        let first = if self.occupied >> class & 1 == 1 {
            std::mem::replace(&mut functions[usize::from(last)].next_ready, pushed)
        } else {
            self.occupied |= 1 << class;
            pushed
        };
        functions[usize::from(pushed)].next_ready = first;
    }

    /// The last function of the first priority that has any.
    #[inline]
    fn last_of_first(&self) -> Option<u16> {
        let last = self.last.get(self.occupied.trailing_zeros() as usize);
        last.copied()
    }

    #[inline]
    fn first(&self, functions: &[FunctionState]) -> Option<u16> {
        let last = self.last_of_first()?;
        Some(functions[usize::from(last)].next_ready)
    }

    /// Removes the first.
    #[inline]
    fn pop(&mut self, functions: &mut [FunctionState]) {
        let Some(last) = self.last_of_first() else {
            return;
        };
        let popped = functions[usize::from(last)].next_ready;
        if popped == last {
            self.occupied &= self.occupied - 1;
        } else {
            functions[usize::from(last)].next_ready = functions[usize::from(popped)].next_ready;
        }
    }

    fn iter<'a>(&'a self, functions: &'a [FunctionState]) -> impl Iterator<Item = u16> + 'a {
        let occupied = (0..PRIORITIES).filter(|class| self.occupied >> class & 1 == 1);
        occupied.flat_map(|class| {
            let last = self.last[class];
            let next = |function: u16| functions[usize::from(function)].next_ready;
            std::iter::successors(Some(next(last)), move |&function| {
                (function != last).then(|| next(function))
            })
        })
    }
}

/// The apps, by id.
#[derive(Default)]
pub(super) struct Apps(Vec<Option<Box<App>>>);

impl Apps {
    #[inline]
    pub(super) fn get(&self, id: AppId) -> Option<&App> {
        self.0.get(usize::from(id.0))?.as_deref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: AppId) -> Option<&mut App> {
        self.0.get_mut(usize::from(id.0))?.as_deref_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &App> {
        self.0.iter().flatten().map(|app| &**app)
    }

    pub(super) fn insert(&mut self, id: AppId, app: App) {
        let at = usize::from(id.0);
        if self.0.len() <= at {
            self.0.resize_with(at + 1, || None);
        }
        assert!(self.0[at].is_none(), "an app id names one app at a time");
        self.0[at] = Some(Box::new(app));
    }

    pub(super) fn remove(&mut self, id: AppId) {
        self.0[usize::from(id.0)] = None;
    }
}

impl Index<AppId> for Apps {
    type Output = App;

    #[inline(always)]
    fn index(&self, id: AppId) -> &App {
        self.0[usize::from(id.0)]
            .as_deref()
            .expect("an app stays while anything of it does")
    }
}

impl IndexMut<AppId> for Apps {
    #[inline(always)]
    fn index_mut(&mut self, id: AppId) -> &mut App {
        self.0[usize::from(id.0)]
            .as_deref_mut()
            .expect("an app stays while anything of it does")
    }
}
