//! Apps share executor time by `weight`: in virtual time, with functions that run as long as a test
//! says, so that shares are exact.

use std::collections::BTreeMap;
use std::iter;

use pheromone_core::event::{AppId, Death, Destination, Event, ExecutorId};
use pheromone_core::spec::{AppSpec, Keep, Pool};
use pheromone_core::{CoreConfig, SpinPolicy};
use pheromone_shm::message::FromExecutor;

use crate::common::{CONFIG, MS, World, app};

const US: u64 = 1_000;
const S: u64 = 1_000_000_000;
const HOUR: u64 = 3_600 * S;

const A: AppId = AppId(0);
const B: AppId = AppId(1);
const C: AppId = AppId(2);

/// SplitMix64: lengths that vary, the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// What runs, since when and until when.
struct Run {
    begun_ns: u64,
    end_ns: u64,
}

/// A world whose functions run for a while.
struct Machine {
    world: World,
    random: Random,
    /// How long the functions of an app run: from, and up to.
    lengths_ns: BTreeMap<AppId, (u64, u64)>,
    running: BTreeMap<ExecutorId, Run>,
    seen: usize,
    used_ns: BTreeMap<AppId, u64>,
    completed: BTreeMap<AppId, u64>,
    busy_most: usize,
}

/// An app with one function, a weight and a pool that is there from the start.
fn weighing(weight: u32, executors: u16) -> AppSpec {
    let mut spec = app::app(&["f"]);
    spec.weight = weight;
    spec.executors = Pool {
        min: executors,
        max: executors,
    };
    spec
}

impl Machine {
    fn new(config: CoreConfig) -> Self {
        Self {
            world: World::empty(config),
            random: Random(7),
            lengths_ns: BTreeMap::new(),
            running: BTreeMap::new(),
            seen: 0,
            used_ns: BTreeMap::new(),
            completed: BTreeMap::new(),
            busy_most: 0,
        }
    }

    /// A machine with so many cores.
    fn with_cores(executor_cores: u16) -> Self {
        Self::new(CoreConfig {
            executor_cores,
            ..CONFIG
        })
    }

    fn deploy(&mut self, app: AppId, spec: AppSpec, lengths_ns: (u64, u64)) {
        self.lengths_ns.insert(app, lengths_ns);
        self.world.deploy(app, spec);
    }

    /// Queues so many calls.
    fn queue(&mut self, app: AppId, calls: u64) {
        for _ in 0..calls {
            let call = Destination::Function(0);
            let id = self.world.request_of(app, call, false);
            self.world.answer_of(id).expect("the call is let in");
            self.look();
        }
    }

    /// Takes note of what has started and what has died.
    fn look(&mut self) {
        let now_ns = self.world.now_ns;
        let executors = &self.world.sink.executors;
        let used_ns = &mut self.used_ns;
        self.running.retain(|id, run| {
            let still = executors.get(id).is_some_and(|at| at.open.is_some());
            if !still {
                *used_ns.entry(id.app).or_default() += now_ns - run.begun_ns;
            }
            still
        });
        for &(id, _) in &self.world.sink.dispatches[self.seen..] {
            let (from_ns, to_ns) = self.lengths_ns[&id.app];
            let length_ns = from_ns + self.random.below(to_ns - from_ns + 1);
            let run = Run {
                begun_ns: now_ns,
                end_ns: now_ns + length_ns,
            };
            if executors.get(&id).is_some_and(|at| at.open.is_some()) {
                self.running.insert(id, run);
            }
        }
        self.seen = self.world.sink.dispatches.len();
        self.load();
        self.busy_most = self.busy_most.max(self.running.len());
    }

    /// What a process runs for the first time is loaded at once.
    fn load(&mut self) {
        let loads = |id: &ExecutorId| {
            let executor = &self.world.sink.executors[id];
            let open = executor.open.as_ref();
            open.is_some_and(|open| !executor.loaded.contains(&open.function))
        };
        let loading: Vec<ExecutorId> = self.running.keys().copied().filter(loads).collect();
        for id in loading {
            self.world.executor(id).has_loaded();
            self.world.say(id, FromExecutor::Loaded);
        }
    }

    /// Time passes up to the next thing that happens, at most up to `end_ns`.
    fn advance(&mut self, end_ns: u64) {
        let next = self.running.iter().min_by_key(|(_, run)| run.end_ns);
        let next = next.map(|(&id, run)| (id, run.end_ns));
        let timer_ns = self.world.core.next_timer_ns().unwrap_or(u64::MAX);
        let return_ns = next.map_or(u64::MAX, |(_, at_ns)| at_ns);
        let until_ns = timer_ns.min(return_ns).min(end_ns);
        self.world.pass(until_ns.saturating_sub(self.world.now_ns));
        self.look();
        if let Some((id, at_ns)) = next
            && at_ns <= self.world.now_ns
            && self.running.contains_key(&id)
        {
            self.finish(id);
        }
    }

    /// A function returns.
    fn finish(&mut self, id: ExecutorId) {
        let run = self.running.remove(&id).expect("it runs");
        *self.used_ns.entry(id.app).or_default() += self.world.now_ns - run.begun_ns;
        *self.completed.entry(id.app).or_default() += 1;
        self.world.done(id);
        self.look();
    }

    fn pass(&mut self, ns: u64) {
        let end_ns = self.world.now_ns + ns;
        while self.world.now_ns < end_ns {
            self.advance(end_ns);
        }
    }

    /// Time passes until nothing is left to be run.
    fn run_out(&mut self) {
        while self.world.core.totals().invocations > 0 {
            let before = (self.world.now_ns, self.world.sink.dispatches.len());
            self.advance(u64::MAX);
            assert!(
                before != (self.world.now_ns, self.world.sink.dispatches.len())
                    || !self.running.is_empty(),
                "something is queued, and nothing will ever start it"
            );
        }
    }

    /// Executor time used, that of what runs included.
    fn used_ns(&self, app: AppId) -> u64 {
        let now_ns = self.world.now_ns;
        let running = self.running.iter().filter(|(id, _)| id.app == app);
        let open_ns: u64 = running.map(|(_, run)| now_ns - run.begun_ns).sum();
        self.used_ns.get(&app).copied().unwrap_or_default() + open_ns
    }

    fn running_of(&self, app: AppId) -> usize {
        self.running.keys().filter(|id| id.app == app).count()
    }

    fn completed(&self, app: AppId) -> u64 {
        self.completed.get(&app).copied().unwrap_or_default()
    }

    /// Each app's part of the executor time that is used while that time passes.
    fn shares_over<const N: usize>(&mut self, apps: [AppId; N], ns: u64) -> [f64; N] {
        let before = apps.map(|app| self.used_ns(app));
        self.pass(ns);
        let used = std::array::from_fn(|at| (self.used_ns(apps[at]) - before[at]) as f64);
        let sum: f64 = used.iter().sum();
        used.map(|used| used / sum)
    }
}

#[track_caller]
fn assert_near<const N: usize>(shares: [f64; N], expected: [f64; N]) {
    let is_near = iter::zip(shares, expected).all(|(is, wanted)| (is - wanted).abs() < 0.02);
    assert!(is_near, "{shares:?} instead of {expected:?}");
}

/// A and B, of weight 1 and 3, with more to do than they ever get done.
fn loaded(config: CoreConfig, executors: u16, lengths_ns: [(u64, u64); 2]) -> Machine {
    let mut machine = Machine::new(config);
    machine.deploy(A, weighing(1, executors), lengths_ns[0]);
    machine.deploy(B, weighing(3, executors), lengths_ns[1]);
    machine.queue(A, 4000);
    machine.queue(B, 4000);
    machine
}

fn one_core(spin: SpinPolicy) -> CoreConfig {
    CoreConfig {
        executor_cores: 1,
        spin,
        ..CONFIG
    }
}

// --------------------------------------------------------------------------------- shares

#[test]
fn weights_of_one_and_three_get_a_quarter_and_three_quarters_whatever_the_pools() {
    let lengths_ns = [(MS, 20 * MS); 2];
    for executors in [1, 2, 3, 4, 7] {
        for spin in [
            SpinPolicy::Always,
            SpinPolicy::Never,
            SpinPolicy::Budget(20 * US),
        ] {
            let mut machine = loaded(one_core(spin), executors, lengths_ns);
            let shares = machine.shares_over([A, B], 2 * S);
            assert_near(shares, [0.25, 0.75]);
        }
    }
}

#[test]
fn time_is_shared_and_not_the_number_of_invocations() {
    let lengths_ns = [(20 * MS, 60 * MS), (MS, 3 * MS)];
    let mut machine = loaded(one_core(SpinPolicy::Always), 4, lengths_ns);
    let shares = machine.shares_over([A, B], 2 * S);
    assert_near(shares, [0.25, 0.75]);
    assert!(machine.completed(B) > 30 * machine.completed(A));
}

#[test]
fn apps_of_equal_weight_get_equal_parts() {
    let mut machine = Machine::with_cores(4);
    for app in [A, B, C] {
        machine.deploy(app, weighing(1, 4), (MS, 10 * MS));
        machine.queue(app, 2000);
    }
    let third = 1.0 / 3.0;
    let shares = machine.shares_over([A, B, C], 4 * S);
    assert_near(shares, [third; 3]);
}

#[test]
fn three_apps_share_by_their_weights_and_the_largest_pool_bounds_them() {
    let mut machine = Machine::with_cores(2);
    for (app, weight, executors) in [(A, 1, 8), (B, 2, 6), (C, 5, 7)] {
        machine.deploy(app, weighing(weight, executors), (MS, 9 * MS));
        machine.queue(app, 6000);
    }
    // Whoever was first had its pool before the others came.
    machine.pass(100 * MS);
    machine.busy_most = 0;
    let shares = machine.shares_over([A, B, C], 2 * S);
    assert_near(shares, [0.125, 0.25, 0.625]);
    // One that runs nothing may start one more.
    assert!(
        (8..=9).contains(&machine.busy_most),
        "{}",
        machine.busy_most
    );
}

#[test]
fn where_there_are_cores_for_all_pools_nobody_is_held_back() {
    let mut machine = Machine::with_cores(8);
    for (app, weight) in [(A, 1), (B, 3)] {
        machine.deploy(app, weighing(weight, 4), (MS, 9 * MS));
        machine.queue(app, 500);
    }
    assert_eq!((machine.running_of(A), machine.running_of(B)), (4, 4));
    let shares = machine.shares_over([A, B], S / 2);
    assert_near(shares, [0.5, 0.5]);
}

#[test]
fn pools_that_grow_on_demand_come_to_share_alike() {
    let mut machine = Machine::with_cores(2);
    for (app, weight) in [(A, 1), (B, 3)] {
        let mut spec = weighing(weight, 4);
        spec.executors.min = 0;
        machine.deploy(app, spec, (MS, 20 * MS));
        machine.queue(app, 4000);
    }
    let shares = machine.shares_over([A, B], 4 * S);
    assert_near(shares, [0.25, 0.75]);
    let executors = |app| {
        machine
            .world
            .core
            .stats(app)
            .expect("it is there")
            .executors
    };
    assert_eq!((executors(A), executors(B)), (4, 4));
}

// --------------------------------------------------------------------- alone and together

#[test]
fn an_app_alone_has_its_whole_pool_whatever_its_weight() {
    let mut machine = Machine::with_cores(1);
    machine.deploy(A, weighing(1, 4), (MS, 20 * MS));
    machine.deploy(B, weighing(1000, 4), (MS, 20 * MS));
    machine.queue(A, 1000);
    machine.pass(S);
    let used_ns = machine.used_ns(A);
    assert!(used_ns > 4 * S - 5 * MS, "{used_ns} ns of four executors");
    assert_eq!(machine.running_of(A), 4);
}

#[test]
fn one_that_comes_back_from_idleness_has_no_credit_and_no_debt() {
    let mut machine = loaded(one_core(SpinPolicy::Always), 4, [(MS, 20 * MS); 2]);
    machine.pass(S);
    // B has done all that it had to do, and is idle for long.
    while machine.world.core.stats(B).expect("it is there").queued > 0 {
        machine.pass(10 * MS);
    }
    machine.pass(2 * S);
    machine.queue(A, 4000);
    assert_eq!(machine.running_of(A), 4, "A has all that there is");
    machine.queue(B, 4000);
    assert_eq!(machine.running_of(B), 1, "B starts at once");
    let soon = machine.shares_over([A, B], 200 * MS);
    assert!(
        soon[0] > 0.15,
        "A gives no time back that B did not want: {soon:?}"
    );
    assert!(soon[1] > 0.55, "B owes nothing either: {soon:?}");
    let shares = machine.shares_over([A, B], 2 * S);
    assert_near(shares, [0.25, 0.75]);
}

#[test]
fn one_that_its_own_pool_bounds_saves_up_nothing_for_a_newcomer() {
    let mut machine = Machine::with_cores(4);
    machine.deploy(A, weighing(1, 4), (MS, 9 * MS));
    machine.deploy(B, weighing(9, 1), (MS, 9 * MS));
    machine.deploy(C, weighing(1, 4), (MS, 9 * MS));
    machine.queue(A, 4000);
    machine.queue(B, 4000);
    let shares = machine.shares_over([A, B], 2 * S);
    assert_near(shares, [0.75, 0.25]);
    machine.queue(C, 4000);
    let shares = machine.shares_over([A, B, C], 200 * MS);
    assert!(
        shares[0] > 0.3,
        "C begins where A is, not where B is: {shares:?}"
    );
}

// ------------------------------------------------------------------------ long functions

#[test]
fn long_functions_of_one_app_do_not_keep_another_from_running() {
    let mut machine = Machine::with_cores(1);
    machine.deploy(A, weighing(1000, 2), (HOUR, HOUR));
    machine.deploy(B, weighing(1, 2), (MS, MS));
    machine.queue(A, 8);
    machine.queue(B, 1);
    assert_eq!(
        machine.running_of(B),
        1,
        "it runs nothing, and starts at once"
    );
    machine.queue(B, 100);
    machine.run_out();
    assert_eq!((machine.completed(A), machine.completed(B)), (8, 101));
}

#[test]
fn a_turn_comes_when_the_long_ones_have_used_their_part_though_nothing_else_happens() {
    let mut machine = Machine::with_cores(1);
    machine.deploy(A, weighing(3, 1), (HOUR, HOUR));
    machine.deploy(B, weighing(1, 1), (10 * MS, 10 * MS));
    machine.queue(A, 2);
    machine.queue(B, 3);
    // B uses 10 ms from the start; A has used three times as much after 30 ms, and so on.
    for (passed_ns, running, completed) in [
        (9 * MS, 1, 0),
        (2 * MS, 0, 1),
        (18 * MS, 0, 1),
        (2 * MS, 1, 1),
        (10 * MS, 0, 2),
        (18 * MS, 0, 2),
        (2 * MS, 1, 2),
    ] {
        machine.pass(passed_ns);
        assert_eq!(
            (machine.running_of(B), machine.completed(B)),
            (running, completed)
        );
        if running == 0 {
            let due_ns = machine
                .world
                .core
                .next_timer_ns()
                .expect("it is waited for");
            assert!(due_ns < machine.world.now_ns + 20 * MS);
        }
    }
    assert_eq!(machine.running_of(A), 1);
}

#[test]
fn an_app_whose_processes_do_not_start_keeps_nobody_waiting() {
    let mut machine = Machine::with_cores(1);
    machine.deploy(A, weighing(1, 2), (MS, 5 * MS));
    machine.world.automatic = false;
    let mut spec = weighing(1_000_000, 2);
    spec.executors.min = 0;
    machine.deploy(B, spec, (MS, 5 * MS));
    machine.queue(B, 5);
    machine.queue(A, 200);
    machine.pass(S);
    assert_eq!(machine.completed(A), 200);
    assert_eq!(machine.completed(B), 0);
    machine.world.automatic = true;
    machine.world.processes();
    machine.look();
    machine.run_out();
    assert_eq!(machine.completed(B), 5);
}

#[test]
fn who_waits_for_an_object_leaves_its_turn_to_others_and_goes_on_without_one() {
    let mut machine = Machine::with_cores(1);
    let mut spec = app::app(&["f", "waits"]);
    spec.functions[1].next = vec![0];
    spec.executors = Pool { min: 1, max: 1 };
    spec.buckets = vec![app::bucket("b", Keep::Session, vec![])];
    machine.deploy(A, spec, (MS, MS));
    machine.deploy(B, weighing(1, 1), (HOUR, HOUR));
    let call = machine.world.call("waits");
    machine.world.load("waits");
    let waiter = machine.world.running("waits");
    machine.world.next_by(waiter);
    let get = FromExecutor::Get {
        bucket: 0,
        timeout_ns: u64::MAX,
        key: b"k",
    };
    machine.world.say(waiter, get);
    machine.look();
    machine.running.remove(&waiter);
    machine.queue(B, 2);
    // Once `f` has ended nobody is left who could publish anything.
    machine.pass(3 * MS);
    assert_eq!(machine.completed(A), 1);
    let answer = machine.world.executor(waiter).take_object_answer();
    assert_eq!(answer, Some(Err(-2)));
    assert_eq!(machine.running_of(B), 1);
    machine.world.done(waiter);
    assert!(!machine.world.is_open(call));
    machine.run_out();
    assert_eq!(machine.completed(B), 2);
    machine.world.assert_empty();
}

// ---------------------------------------------------------------- order, and what is lost

#[test]
fn priorities_of_an_app_stay_strict_while_it_shares() {
    let mut machine = Machine::with_cores(1);
    let mut spec = app::app(&["f", "high", "source"]);
    spec.functions[0].priority = -1;
    spec.functions[1].priority = 1;
    spec.functions[2].next = vec![0, 1];
    spec.executors = Pool { min: 1, max: 1 };
    machine.deploy(A, spec, (MS, 2 * MS));
    machine.deploy(B, weighing(2, 1), (MS, 2 * MS));
    machine.world.call("source");
    let source = machine.world.running("source");
    for _ in 0..20 {
        machine.world.next_by(source);
    }
    machine.look();
    machine.queue(B, 200);
    machine.run_out();
    let of_a = machine
        .world
        .sink
        .dispatches
        .iter()
        .filter(|(id, _)| id.app == A);
    let order: Vec<u16> = of_a.map(|&(_, function)| function).collect();
    let expected: Vec<u16> = [vec![2], vec![1; 20], vec![0; 20]].concat();
    assert_eq!(order, expected);
}

#[test]
fn a_slot_goes_on_whether_its_function_returns_dies_is_killed_or_cancelled() {
    let mut machine = Machine::with_cores(1);
    let mut spec = weighing(1, 1);
    spec.functions[0].timeout_ns = Some(50 * MS);
    machine.deploy(A, spec, (HOUR, HOUR));
    machine.deploy(B, weighing(1, 1), (MS, MS));
    machine.queue(A, 3);
    machine.queue(B, 200);
    let victim = |machine: &Machine| {
        *machine
            .running
            .keys()
            .find(|id| id.app == A)
            .expect("A runs")
    };
    // The first dies by itself.
    machine.pass(5 * MS);
    machine.world.die(victim(&machine), Death::Signaled(11));
    machine.look();
    machine.pass(20 * MS);
    // The second runs past its timeout, and so does the third.
    machine.run_out();
    assert_eq!(machine.completed(B), 200);
    assert_eq!(
        machine
            .world
            .core
            .stats(A)
            .expect("it is there")
            .failed_total,
        3
    );
    machine.world.assert_empty();
}

#[test]
fn an_app_that_is_removed_leaves_its_part_to_the_others() {
    let mut machine = Machine::with_cores(2);
    for (app, weight) in [(A, 1), (B, 8), (C, 1)] {
        machine.deploy(app, weighing(weight, 2), (MS, 9 * MS));
        machine.queue(app, 600);
    }
    machine.pass(200 * MS);
    machine.world.event(Event::Remove { app: B });
    machine.look();
    machine.pass(20 * MS);
    assert_eq!(machine.world.sink.removed, [B]);
    let shares = machine.shares_over([A, C], S);
    assert_near(shares, [0.5, 0.5]);
    machine.run_out();
    assert_eq!((machine.completed(A), machine.completed(C)), (600, 600));
    // The id is free for another app, which shares as it says itself.
    machine.deploy(B, weighing(3, 2), (MS, 9 * MS));
    machine.queue(B, 1000);
    machine.queue(A, 1000);
    let shares = machine.shares_over([A, B], S);
    assert_near(shares, [0.25, 0.75]);
}

#[test]
fn whatever_dies_and_comes_and_goes_all_that_was_queued_finally_runs() {
    for seed in 0..40 {
        let spin = [
            SpinPolicy::Always,
            SpinPolicy::Never,
            SpinPolicy::Budget(20 * US),
        ][seed as usize % 3];
        let mut machine = Machine::new(CoreConfig {
            executor_cores: 1 + (seed % 5) as u16,
            spin,
            ..CONFIG
        });
        machine.random = Random(seed);
        for app in [A, B, C] {
            let mut spec = weighing(1 + machine.random.below(9) as u32, 1);
            spec.executors.min = machine.random.below(2) as u16;
            spec.executors.max = 1 + machine.random.below(5) as u16;
            spec.functions[0].attempts = 1000;
            let longest_ns = [MS / 10, MS, 30 * MS][machine.random.below(3) as usize];
            machine.deploy(app, spec, (US, longest_ns));
        }
        let mut queued = BTreeMap::new();
        for _ in 0..300 {
            let app = AppId(machine.random.below(3) as u16);
            match machine.random.below(8) {
                0 => machine.pass(40 * MS),
                1 | 2 => {
                    let ids: Vec<ExecutorId> =
                        machine.world.sink.executors.keys().copied().collect();
                    if !ids.is_empty() {
                        let id = ids[machine.random.below(ids.len() as u64) as usize];
                        machine.world.die(id, Death::Signaled(9));
                        machine.look();
                    }
                }
                3 | 4 => machine.pass(200 * US),
                _ => {
                    let calls = machine.random.below(20);
                    *queued.entry(app).or_default() += calls;
                    machine.queue(app, calls);
                }
            }
        }
        machine.run_out();
        for (app, calls) in queued {
            assert_eq!(machine.completed(app), calls, "seed {seed}, {app:?}");
        }
        machine.world.assert_empty();
    }
}
