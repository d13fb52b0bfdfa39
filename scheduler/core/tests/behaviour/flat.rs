//! Memory is flat: long chains, many sessions and large fans leave nothing behind.

use pheromone_core::spec::Keep;

use crate::common::app::{app, bucket, by_set, immediate};
use crate::common::{End, World};

#[test]
fn a_chain_of_ten_thousand_hops_keeps_a_constant_number_of_objects() {
    let mut spec = app(&["f"]);
    spec.functions[0].next = vec![0];
    spec.buckets = vec![bucket("side", Keep::UntilConsumed, vec![])];
    let mut world = World::new(spec);
    let call = world.call("f");
    let mut baseline = 0;
    for hop in 0..10_000 {
        let f = world.running("f");
        // It feeds both its `next` and a bucket.
        world.next_by(f);
        world.auto_by(f, "side");
        world.done(f);
        let totals = world.core.totals();
        assert!(
            totals.objects <= 2 && totals.invocations <= 2,
            "hop {hop}: {totals:?}"
        );
        if hop == 10 {
            baseline = world.stats().used_bytes;
        } else if hop > 10 {
            assert_eq!(world.stats().used_bytes, baseline);
        }
    }
    world.run("f");
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn ten_thousand_sessions_open_at_once_leave_nothing() {
    let mut spec = app(&["f", "g"]);
    spec.memory_bytes = 1 << 30;
    spec.functions[0].next = vec![1];
    spec.buckets = vec![bucket("b", Keep::Session, vec![immediate(&[1])])];
    let mut world = World::new(spec);
    let calls: Vec<_> = (0..10_000).map(|_| world.call("f")).collect();
    assert_eq!(world.stats().sessions_open, 10_000);
    while let Some(&f) = world.all_running("f").first() {
        world.put_by(f, "b", "k");
        world.done(f);
        for g in world.all_running("g") {
            world.done(g);
        }
    }
    while let Some(&g) = world.all_running("g").first() {
        world.done(g);
    }
    for call in calls {
        assert_eq!(world.ended(call).outcome, End::Completed);
    }
    world.assert_empty();
}

#[test]
fn ten_thousand_sessions_cancelled_at_once_leave_nothing() {
    let mut world = World::new({
        let mut spec = app(&["f"]);
        spec.session_timeout_ns = Some(1_000_000);
        spec
    });
    for _ in 0..10_000 {
        world.call("f");
    }
    world.pass(1_000_000);
    assert_eq!(world.stats().timed_out_total, 10_000);
    assert_eq!(world.stats().queued, 0);
    for f in world.all_running("f") {
        world.done(f);
    }
    world.assert_empty();
    world.pass(1_000_000_000);
    assert_eq!(world.core.totals().timers, 0);
}

#[test]
fn a_fan_in_of_a_thousand_branches_fires_once_and_leaves_nothing() {
    let keys: Vec<String> = (0..1000).map(|n| format!("part-{n}")).collect();
    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut spec = app(&["split", "map", "merge"]);
    spec.functions[0].calls = vec![1];
    spec.buckets = vec![bucket(
        "parts",
        Keep::UntilConsumed,
        vec![by_set(&names, &[2])],
    )];
    let mut world = World::new(spec);
    for _ in 0..3 {
        let call = world.call("split");
        let split = world.running("split");
        for n in 0..1000 {
            let target = pheromone_shm::message::Target::Function(1);
            world.publish(split, target, pheromone_shm::message::Key::Auto(n), 8);
        }
        world.done(split);
        while let Some(&map) = world.all_running("map").first() {
            let key = world.keys(map)[0].clone();
            let number = key.rsplit('.').next().unwrap().to_owned();
            world.put_by(map, "parts", &format!("part-{number}"));
            world.done(map);
        }
        let merge = world.running("merge");
        assert_eq!(world.keys(merge), keys);
        world.done(merge);
        assert_eq!(world.ended(call).outcome, End::Completed);
        world.assert_empty();
    }
}
