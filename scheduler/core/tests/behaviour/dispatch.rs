//! Which invocation starts next, and where.

use pheromone_core::event::ExecutorId;
use pheromone_core::spec::{AppSpec, Keep, Pool};
use pheromone_core::{CoreConfig, SpinPolicy};
use pheromone_shm::message::Target;

use crate::common::app::{app, bucket, immediate};
use crate::common::{APP, CONFIG, OwnedKey, World};

fn pool(mut spec: AppSpec, min: u16, max: u16) -> AppSpec {
    spec.executors = Pool { min, max };
    spec
}

fn cores(executor_cores: u16, spin: SpinPolicy) -> CoreConfig {
    CoreConfig {
        executor_cores,
        spin,
        ..CONFIG
    }
}

const DELAY_NS: u64 = 50_000;

#[test]
fn more_invocations_than_executors_queue_in_order_of_firing() {
    let mut spec = pool(app(&["source", "f"]), 2, 2);
    spec.buckets = vec![bucket("b", Keep::UntilConsumed, vec![immediate(&[1])])];
    let mut world = World::new(spec);
    world.call("source");
    let source = world.running("source");
    let keys: Vec<String> = (0..100).map(|n| format!("k{n:03}")).collect();
    for key in &keys {
        world.put_by(source, "b", key);
    }
    assert_eq!(world.stats().queued, 99);
    world.done(source);
    let mut order = Vec::new();
    while let Some(&id) = world.all_running("f").first() {
        order.extend(world.keys(id));
        world.done(id);
    }
    order.sort();
    assert_eq!(order, keys, "each once");
    world.assert_empty();
}

#[test]
fn one_function_runs_in_order_of_firing() {
    let mut spec = pool(app(&["source", "f"]), 1, 1);
    spec.buckets = vec![bucket("b", Keep::UntilConsumed, vec![immediate(&[1])])];
    let mut world = World::new(spec);
    world.call("source");
    let id = world.running("source");
    for n in 0..50 {
        world.put_by(id, "b", &format!("k{n}"));
    }
    world.done(id);
    for n in 0..50 {
        assert_eq!(world.keys(id), [format!("k{n}")]);
        world.done(id);
    }
    world.assert_empty();
}

#[test]
fn priorities_are_strict_and_functions_of_one_take_turns() {
    let mut spec = pool(app(&["source", "low", "a", "b", "high"]), 1, 1);
    for (function, priority) in [(1, -8), (4, 7)] {
        spec.functions[function].priority = priority;
    }
    spec.functions[0].next = vec![1, 2, 3, 4];
    let mut world = World::new(spec);
    world.call("source");
    let id = world.running("source");
    for _ in 0..3 {
        world.next_by(id);
    }
    world.done(id);
    let mut order = Vec::new();
    while world.executor(id).open.is_some() {
        order.push(world.opened(id).function);
        world.done(id);
    }
    assert_eq!(order, [4, 4, 4, 2, 3, 2, 3, 2, 3, 1, 1, 1]);
}

#[test]
fn max_concurrency_bounds_what_runs_and_hides_nothing_else() {
    let mut spec = pool(app(&["source", "narrow", "wide"]), 8, 8);
    spec.functions[0].next = vec![1, 2];
    spec.functions[1].max_concurrency = Some(2);
    let mut world = World::new(spec);
    world.call("source");
    let source = world.running("source");
    for _ in 0..4 {
        world.next_by(source);
    }
    assert_eq!(world.all_running("narrow").len(), 2);
    assert_eq!(world.all_running("wide").len(), 4);
    let narrow = world.all_running("narrow")[0];
    world.done(narrow);
    assert_eq!(world.all_running("narrow").len(), 2);
    world.die(
        world.all_running("narrow")[1],
        pheromone_core::event::Death::Signaled(9),
    );
    for function in ["narrow", "wide", "source"] {
        for id in world.all_running(function) {
            assert!(world.opened(id).cancelled);
            world.done(id);
        }
    }
    world.assert_empty();
}

#[test]
fn a_chain_stays_on_the_executor_that_wrote_the_data() {
    let mut spec = pool(app(&["f"]), 2, 2);
    spec.functions[0].next = vec![0];
    let mut world = World::with_config(spec, cores(1, SpinPolicy::Always));
    world.call("f");
    for _ in 0..100 {
        let id = world.running("f");
        world.next_by(id);
        world.done(id);
    }
    let executors = &world.sink.dispatches;
    assert!(executors.iter().all(|(id, _)| *id == executors[0].0));
    world.run("f");
    world.assert_empty();
}

#[test]
fn an_executor_that_has_the_function_loaded_goes_before_one_that_has_not() {
    let mut world = World::new(pool(app(&["f", "g"]), 3, 3));
    world.call("f");
    world.call("g");
    let (f, g) = (world.running("f"), world.running("g"));
    world.done(f);
    world.done(g);
    for _ in 0..3 {
        world.call("f");
        assert_eq!(world.running("f"), f);
        world.done(f);
        world.call("g");
        assert_eq!(world.running("g"), g);
        world.done(g);
    }
}

#[test]
fn work_waits_for_an_awake_executor_before_a_sleeping_one_is_woken() {
    let mut spec = pool(app(&["source", "f"]), 2, 2);
    spec.functions[0].next = vec![1];
    let mut world = World::with_config(spec, cores(1, SpinPolicy::Always));
    world.call("source");
    let source = world.running("source");
    world.next_by(source);
    assert!(world.all_running("f").is_empty(), "the other one sleeps");
    world.pass(DELAY_NS - 1);
    assert!(world.all_running("f").is_empty());
    world.pass(1);
    assert_ne!(world.running("f"), source);
    world.run("f");
    // The one woken spins now, and is given work at once.
    world.next_by(source);
    world.run("f");
    world.done(source);
    world.assert_empty();
}

#[test]
fn where_an_awake_executor_is_free_in_time_nobody_is_woken() {
    let mut spec = pool(app(&["source", "f"]), 2, 2);
    spec.functions[0].next = vec![1];
    let mut world = World::with_config(spec, cores(1, SpinPolicy::Always));
    world.call("source");
    let source = world.running("source");
    world.next_by(source);
    world.pass(DELAY_NS - 1);
    world.done(source);
    assert_eq!(world.running("f"), source);
    world.pass(DELAY_NS * 2);
    world.run("f");
    world.assert_empty();
}

#[test]
fn work_that_is_forwarded_without_delay_does_not_hold_the_step_up() {
    let mut spec = pool(app(&["source", "f"]), 1, 3);
    spec.functions[0].next = vec![1];
    spec.limits.forward_delay_ns = 0;
    let mut world = World::new(spec);
    world.automatic = false;
    while let Some(id) = world.sink.spawns.pop_front() {
        world.start(id);
    }
    world.call("source");
    let source = world.running("source");
    for _ in 0..4 {
        world.next_by(source);
    }
    world.pass(DELAY_NS);
    world.automatic = true;
    world.processes();
    world.done(source);
    while let Some(&id) = world.all_running("f").first() {
        world.done(id);
    }
    world.assert_empty();
}

#[test]
fn when_none_is_awake_one_is_woken_at_once() {
    let spec = pool(app(&["f"]), 2, 2);
    let mut world = World::with_config(spec, cores(1, SpinPolicy::Never));
    world.call("f");
    let first = world.running("f");
    // Now one is awake: the next waits.
    world.call("f");
    assert_eq!(world.all_running("f"), [first]);
    world.pass(DELAY_NS);
    assert_eq!(world.all_running("f").len(), 2);
    world.run("f");
    world.run("f");
    world.assert_empty();
}

#[test]
fn an_executor_that_has_just_finished_takes_the_next_work_under_every_policy() {
    for spin in [
        SpinPolicy::Never,
        SpinPolicy::Budget(20_000),
        SpinPolicy::Always,
    ] {
        let spec = pool(app(&["f"]), 3, 3);
        let mut world = World::with_config(spec, cores(1, spin));
        for _ in 0..4 {
            world.call("f");
        }
        world.pass(DELAY_NS);
        world.pass(DELAY_NS);
        assert_eq!(world.all_running("f").len(), 3);
        let id = world.running("f");
        world.done(id);
        assert!(world.all_running("f").contains(&id));
        while let Some(&id) = world.all_running("f").first() {
            world.done(id);
        }
        world.assert_empty();
    }
}

#[test]
fn at_most_one_executor_of_a_core_may_spin_over_all_apps() {
    let mut world = World::with_config(pool(app(&["f"]), 4, 4), cores(2, SpinPolicy::Always));
    let other = pheromone_core::event::AppId(1);
    world.deploy(other, pool(app(&["f"]), 4, 4));
    let spinners = |world: &World| {
        let executors = world.sink.executors.values();
        executors.filter(|executor| executor.may_spin).count()
    };
    assert_eq!(spinners(&world), 2);
    for _ in 0..4 {
        world.call("f");
        world.pass(DELAY_NS);
    }
    // The recorder checks after each step that no core has two.
    assert_eq!(spinners(&world), 2);
    for id in world.all_running("f") {
        world.done(id);
    }
    assert_eq!(spinners(&world), 2);
}

#[test]
fn a_spinner_keeps_its_permission_while_it_works_and_loses_it_after_its_budget() {
    let mut spec = pool(app(&["f"]), 1, 1);
    spec.functions[0].next = vec![0];
    let mut world = World::with_config(spec, cores(1, SpinPolicy::Budget(20_000)));
    let id = ExecutorId { app: APP, slot: 0 };
    assert!(world.executor(id).may_spin);
    world.call("f");
    for _ in 0..10 {
        world.pass(15_000);
        world.next_by(id);
        world.done(id);
        assert!(world.executor(id).may_spin);
    }
    world.done(id);
    world.pass(19_999);
    assert!(world.executor(id).may_spin);
    world.pass(1);
    assert!(!world.executor(id).may_spin);
    world.pass(DELAY_NS);
    assert_eq!(
        world.core.next_timer_ns(),
        None,
        "an idle core waits for nothing"
    );
    world.call("f");
    assert!(world.executor(id).may_spin);
    world.done(id);
    world.assert_empty();
}

#[test]
fn the_pool_grows_on_demand_up_to_its_maximum() {
    let mut spec = pool(app(&["f"]), 0, 3);
    spec.limits.waiters = 0;
    let mut world = World::new(spec);
    assert_eq!(world.stats().executors, 0);
    world.call("f");
    assert_eq!(world.stats().executors, 1, "the first at once");
    for _ in 0..9 {
        world.call("f");
    }
    assert_eq!(world.stats().executors, 1);
    for grown in [2, 3, 3, 3] {
        world.pass(DELAY_NS);
        assert_eq!(world.stats().executors, grown);
    }
    for _ in 0..10 {
        world.run("f");
    }
    assert_eq!(world.stats().executors_idle, 3);
    world.assert_empty();
}

#[test]
fn executors_are_spread_over_the_cores() {
    let mut world = World::with_config(pool(app(&["f"]), 5, 5), cores(3, SpinPolicy::Always));
    let mut counts = [0; 3];
    for executor in world.sink.executors.values() {
        counts[usize::from(executor.core)] += 1;
    }
    assert_eq!(counts, [2, 2, 1]);
    world.assert_empty();
}

#[test]
fn a_fan_out_of_a_thousand_branches_runs_each_once() {
    let mut spec = pool(app(&["source", "f"]), 4, 4);
    spec.functions[0].calls = vec![1];
    let mut world = World::with_config(spec, cores(2, SpinPolicy::Always));
    let call = world.call("source");
    let source = world.running("source");
    let mut sent = std::collections::HashSet::new();
    for _ in 0..1000 {
        let ordinal = world.executor(source).next_ordinal();
        let key = pheromone_shm::message::Key::Auto(ordinal);
        world.publish(source, Target::Function(1), key, 16);
        sent.insert(ordinal);
    }
    world.done(source);
    while let Some(&id) = world.all_running("f").first() {
        let input = world.opened(id).inputs[0].clone();
        let OwnedKey::Auto(_, ordinal) = input.key else {
            panic!("it is automatic");
        };
        assert!(sent.remove(&ordinal));
        world.done(id);
        world.pass(10_000);
    }
    assert!(sent.is_empty());
    assert!(!world.is_open(call));
    world.assert_empty();
}
