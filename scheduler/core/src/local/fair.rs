//! Fair sharing: whose work starts next while several apps have work ready.
//!
//! As long as at most one app has work ready all this is out of the way: [`Local::dispatch_ready`]
//! asks one question. As soon as a second one has, they share, until at most one has anything to
//! run: what is ready then starts at the end of each step alone, so that whatever frees an executor
//! (a return, a death, a kill, an app's removal) lets the one go whose turn it is.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, 1996) says whose: each app has a virtual time,
//! the executor time that it has used by its `weight`, and the smallest goes first. What still runs
//! counts up to now. An app that comes to have work begins at the virtual time of the last start,
//! so that idleness is no credit.
//!
//! While two or more have work ready no more executors work over all apps than the largest pool
//! among them has, or there are cores for. Two exceptions keep long functions from shutting others
//! out: an app that alone has work ready takes all that it may have, and one that runs nothing
//! starts something beyond that number when its turn has come. Who waits in `phr_get` uses nothing,
//! and goes on without a turn.

use smallvec::SmallVec;

use crate::event::{AppId, ExecutorId, Sink};
use crate::local::app::App;
use crate::local::{Local, Timer};
use crate::timer::TimerId;

/// Nanoseconds of one executor divided by a weight, with [`FRACTION_BITS`] behind the point.
type VirtualTime = u128;

/// So that a weight of a million still tells nanoseconds apart.
const FRACTION_BITS: u32 = 32;

/// Who shares, and how far each has come.
pub(super) struct Fair {
    /// The cores that executors are spread over.
    cores: u32,
    /// While nobody shares: no other app than this one has work that has been left over.
    only: Option<AppId>,
    is_shared: bool,
    /// Those that have something ready, running or waiting in `phr_get`, while they share.
    sharers: Vec<Sharer>,
    /// The largest virtual time at which something has started.
    clock: VirtualTime,
    /// Use is charged up to this time.
    charged_ns: u64,
    /// When the turn of an app that runs nothing has come.
    timer: TimerId,
    /// The executor that has come free in this step, and so is awake.
    freed: Option<ExecutorId>,
}

struct Sharer {
    app: AppId,
    weight: u32,
    executors_max: u32,
    time: VirtualTime,
    /// Executors that work since use was charged last.
    busy: u32,
    /// Something of it could start.
    is_ready: bool,
}

impl Sharer {
    fn new(app: &App) -> Self {
        Self {
            app: app.id,
            weight: app.spec.weight,
            executors_max: app.share.executors.max.into(),
            time: 0,
            busy: 0,
            is_ready: false,
        }
    }

    /// Executor time that takes it so far in virtual time, one executor's.
    fn used_ns(&self, time: VirtualTime) -> u128 {
        (time * u128::from(self.weight)).div_ceil(1 << FRACTION_BITS)
    }

    /// Virtual time that an executor's time comes to.
    fn charge_of(&self, used_ns: u128) -> VirtualTime {
        (used_ns << FRACTION_BITS) / u128::from(self.weight)
    }
}

impl Fair {
    pub(super) fn new(executor_cores: u16) -> Self {
        Self {
            cores: executor_cores.into(),
            only: None,
            is_shared: false,
            sharers: Vec::new(),
            clock: 0,
            charged_ns: 0,
            timer: TimerId::NONE,
            freed: None,
        }
    }

    /// Whether several apps have something to run, so that all starts are left to the end of the
    /// step.
    #[inline(always)]
    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Whether what this app has ready is its own affair: it has been the last to have any.
    #[inline(always)]
    pub(super) fn is_only(&self, app: AppId) -> bool {
        self.only == Some(app)
    }

    /// An executor has come free in this step.
    pub(super) fn note_freed(&mut self, id: ExecutorId) {
        self.freed = Some(id);
    }

    /// The slot of this app that has come free in this step.
    pub(super) fn freed_slot(&self, app: AppId) -> Option<u16> {
        self.freed.filter(|id| id.app == app).map(|id| id.slot)
    }

    pub(super) fn timer_fired(&mut self) {
        self.timer = TimerId::NONE;
    }

    /// What has worked since the last charge is used.
    fn charge(&mut self, now_ns: u64) {
        let passed_ns = u128::from(now_ns - self.charged_ns);
        self.charged_ns = now_ns;
        for sharer in &mut self.sharers {
            sharer.time += sharer.charge_of(passed_ns * u128::from(sharer.busy));
        }
    }

    /// Those whose turn is sooner first; of equals the one that has less of its due running.
    fn sort(&mut self) {
        self.sharers.sort_unstable_by_key(|sharer| {
            let running = sharer.charge_of(sharer.busy.into());
            (sharer.time, running, sharer.app.0)
        });
    }

    /// Whether another executor may work, whosever.
    fn has_room(&self) -> bool {
        let ready = || self.sharers.iter().filter(|sharer| sharer.is_ready);
        let largest = ready().map(|sharer| sharer.executors_max).max();
        let busy: u32 = self.sharers.iter().map(|sharer| sharer.busy).sum();
        ready().count() < 2 || busy < largest.unwrap_or(0).max(self.cores)
    }

    /// How long until all those that go before a sharer, want more and have something running have
    /// used what they are behind; none where it is its turn.
    fn wait_ns(&self, at: usize) -> Option<u64> {
        let time = self.sharers[at].time;
        let before = self.sharers[..at].iter();
        let waits_ns = before
            .filter(|sharer| sharer.is_ready && sharer.busy > 0 && sharer.time < time)
            .map(|sharer| {
                let used_ns = sharer.used_ns(time - sharer.time);
                used_ns.div_ceil(sharer.busy.into())
            });
        waits_ns
            .max()
            .map(|wait_ns| u64::try_from(wait_ns).unwrap_or(u64::MAX))
    }
}

impl Local {
    /// Whether what an app has ready is left to the end of the step, since others have something
    /// ready as well.
    #[cold]
    pub(super) fn must_share<S: Sink>(&mut self, app: AppId, sink: &mut S) -> bool {
        if self.apps[app].next_ready().is_none() {
            return self.fair.is_shared;
        }
        if !self.fair.is_shared {
            let only = self.fair.only.and_then(|only| self.apps.get_mut(only));
            if only.is_none_or(|only| only.next_ready().is_none()) {
                self.fair.only = Some(app);
                return false;
            }
            self.begin_sharing(sink);
        }
        if !self.fair.sharers.iter().any(|sharer| sharer.app == app) {
            self.fair.sharers.push(Sharer::new(&self.apps[app]));
        }
        true
    }

    /// All that has something to run shares from now on, and begins even. Whoever shares asks
    /// before each start.
    fn begin_sharing<S: Sink>(&mut self, sink: &mut S) {
        let apps: SmallVec<[AppId; 8]> = self.apps.iter().map(|app| app.id).collect();
        for app in apps {
            self.revoke_all(app, sink);
        }
        let fair = &mut self.fair;
        fair.is_shared = true;
        fair.only = None;
        fair.clock = 0;
        fair.charged_ns = self.tables.now_ns;
        let active = self
            .apps
            .iter()
            .filter(|app| app.is_at_work() || !app.ready.is_empty());
        fair.sharers.extend(active.map(Sharer::new));
    }

    /// Starts what may start at the end of a step, the one whose turn it is first.
    #[cold]
    pub(super) fn share_out<S: Sink>(&mut self, sink: &mut S) {
        self.fair.charge(self.tables.now_ns);
        self.tables.timers.cancel(&mut self.fair.timer);
        self.look_at_sharers();
        while self.start_next_sharer(sink) {}
        self.fair.freed = None;
        let has_room = self.fair.has_room();
        for at in 0..self.fair.sharers.len() {
            let Sharer { app, is_ready, .. } = self.fair.sharers[at];
            // Where there is room for more it may be a matter of time alone; without, one that has
            // nobody idle must still come to have its processes.
            let of = &self.apps[app];
            let has_slots = !of.is_full() || of.may_ask();
            if is_ready && has_slots && (has_room || of.pool.idle == 0) {
                self.wait_for_executor(app, sink);
            }
        }
        if self.fair.sharers.len() < 2 {
            self.fair.is_shared = false;
            self.fair.only = self.fair.sharers.pop().map(|last| last.app);
            self.tables.timers.cancel(&mut self.fair.timer);
        }
    }

    /// Takes in what the step has changed. Who has nothing to run is forgotten.
    fn look_at_sharers(&mut self) {
        let (apps, clock) = (&mut self.apps, self.fair.clock);
        self.fair.sharers.retain_mut(|sharer| {
            let Some(app) = apps.get_mut(sharer.app) else {
                return false;
            };
            let was_ready = sharer.is_ready;
            sharer.is_ready = app.next_ready().is_some();
            sharer.busy = app.pool.busy.into();
            sharer.executors_max = app.share.executors.max.into();
            if sharer.is_ready && !was_ready {
                sharer.time = sharer.time.max(clock);
            }
            sharer.is_ready || app.is_at_work()
        });
    }

    /// Starts one invocation, if one may start.
    fn start_next_sharer<S: Sink>(&mut self, sink: &mut S) -> bool {
        self.fair.sort();
        let has_room = self.fair.has_room();
        for at in 0..self.fair.sharers.len() {
            let sharer = &self.fair.sharers[at];
            if !sharer.is_ready || !has_room && sharer.busy > 0 {
                continue;
            }
            let Some((id, next)) = self.next_start(sharer.app) else {
                continue;
            };
            if !has_room && let Some(wait_ns) = self.fair.wait_ns(at) {
                let due_ns = self.tables.now_ns.saturating_add(wait_ns);
                self.fair.timer = self.tables.timers.arm(due_ns, Timer::Turn);
                return false;
            }
            self.start(id, next, sink);
            let is_ready = self.apps[id.app].next_ready().is_some();
            let fair = &mut self.fair;
            let sharer = &mut fair.sharers[at];
            fair.clock = fair.clock.max(sharer.time);
            sharer.busy += 1;
            sharer.is_ready = is_ready;
            return true;
        }
        false
    }
}
