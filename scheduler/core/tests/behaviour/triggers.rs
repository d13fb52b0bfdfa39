//! Every object is offered to every trigger of its bucket; what each type does with it.

use pheromone_core::spec::{AppSpec, AtEnd, Keep};
use pheromone_shm::message::{Key, NO_TRIGGER, Target};

use crate::common::app::{app, bucket, by_key, by_pattern, by_set, immediate};
use crate::common::{APP, End, World};

/// `source` publishes into `b`, whose triggers are these; `f` and `g` are there to be triggered.
fn with_triggers(triggers: Vec<pheromone_core::spec::TriggerSpec>) -> AppSpec {
    let mut spec = app(&["source", "f", "g"]);
    spec.executors.min = 8;
    spec.executors.max = 8;
    spec.buckets = vec![bucket("b", Keep::Session, triggers)];
    spec
}

const F: u16 = 1;
const G: u16 = 2;

#[test]
fn immediate_fires_for_each_object_with_that_object() {
    let mut world = World::new(with_triggers(vec![immediate(&[F])]));
    let call = world.call("source");
    let source = world.running("source");
    for key in ["x", "y", "z"] {
        world.put_by(source, "b", key);
    }
    let runs = world.all_running("f");
    let mut keys: Vec<_> = runs.iter().map(|&id| world.keys(id)).collect();
    keys.sort();
    assert_eq!(keys, [["x"], ["y"], ["z"]]);
    for id in runs {
        assert_eq!(world.opened(id).trigger, 0);
        world.done(id);
    }
    world.done(source);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn triggers_of_a_bucket_fire_in_the_manifests_order_each_for_all_its_functions() {
    let mut spec = with_triggers(vec![
        by_key("k", &[G, F]),
        immediate(&[F]),
        by_pattern("k*", &[G]),
        by_set(&["k"], &[F]),
        by_key("other", &[G]),
    ]);
    spec.executors.min = 1;
    spec.executors.max = 1;
    let mut world = World::new(spec);
    world.call("source");
    let source = world.running("source");
    world.put_by(source, "b", "k");
    world.done(source);
    // One executor: each function's queue is in order of firing.
    let mut triggers = vec![Vec::new(), Vec::new()];
    for _ in 0..5 {
        let id = pheromone_core::event::ExecutorId { app: APP, slot: 0 };
        let open = world.opened(id).clone();
        triggers[usize::from(open.function - F)].push(open.trigger);
        world.done(id);
    }
    assert_eq!(triggers, [vec![0, 1, 3], vec![0, 2]]);
    world.assert_empty();
}

#[test]
fn by_name_fires_for_its_key_alone() {
    let mut world = World::new(with_triggers(vec![by_key("yes", &[F])]));
    world.call("source");
    let source = world.running("source");
    world.put_by(source, "b", "no");
    world.put_by(source, "b", "yess");
    world.put_by(source, "b", "yes");
    assert_eq!(world.all_running("f").len(), 1);
    assert_eq!(world.keys(world.running("f")), ["yes"]);
}

#[test]
fn by_name_patterns_are_globs_over_the_whole_key_and_slashes_are_like_others() {
    for (pattern, key, fires) in [
        ("part-*", "part-1", true),
        ("part-*", "xpart-1", false),
        ("*", "a/b", true),
        ("*.txt", "dir/a.txt", true),
        ("?", "é", false),
        ("?", "/", true),
        ("[ab]", "b", true),
        ("{a,b}c", "bc", true),
        ("{a,b}c", "cc", false),
        ("a", "b/a", false),
    ] {
        let mut world = World::new(with_triggers(vec![by_pattern(pattern, &[F])]));
        world.call("source");
        let source = world.running("source");
        world.put_by(source, "b", key);
        assert_eq!(
            !world.all_running("f").is_empty(),
            fires,
            "{pattern} over {key}"
        );
    }
}

#[test]
fn patterns_see_the_text_of_automatic_keys() {
    let mut world = World::new(with_triggers(vec![by_pattern("~*.0", &[F])]));
    world.call("source");
    let source = world.running("source");
    let invocation = world.opened(source).invocation;
    world.auto_by(source, "b");
    world.auto_by(source, "b");
    let runs = world.all_running("f");
    assert_eq!(runs.len(), 1);
    assert_eq!(world.keys(runs[0]), [format!("~{invocation}.0")]);
}

#[test]
fn by_set_fires_once_all_are_there_with_arguments_in_listed_order() {
    let mut world = World::new(with_triggers(vec![by_set(&["c", "a", "b"], &[F, G])]));
    let call = world.call("source");
    let source = world.running("source");
    world.put_by(source, "b", "b");
    world.put_by(source, "b", "stranger");
    world.put_by(source, "b", "c");
    assert!(world.all_running("f").is_empty());
    world.put_by(source, "b", "a");
    for function in ["f", "g"] {
        let id = world.running(function);
        assert_eq!(world.keys(id), ["c", "a", "b"]);
        world.done(id);
    }
    world.done(source);
    assert!(!world.is_open(call));
    world.assert_empty();
}

#[test]
fn by_set_does_not_re_arm_and_a_late_duplicate_changes_nothing() {
    let mut world = World::new(with_triggers(vec![by_set(&["a", "b"], &[F])]));
    let call = world.call("source");
    let source = world.running("source");
    world.put_by(source, "b", "a");
    world.put_by(source, "b", "b");
    world.run("f");
    for key in ["a", "b", "a"] {
        world.put_by(source, "b", key);
    }
    assert!(world.all_running("f").is_empty());
    assert_eq!(world.sink.error_events.len(), 3);
    assert!(
        world.sink.error_events[0]
            .1
            .contains("a second object `a` into bucket `b`")
    );
    world.done(source);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn by_set_that_has_fired_at_the_end_ignores_what_comes_late() {
    let mut set = by_set(&["a", "b"], &[F]);
    set.at_end = AtEnd::Fire;
    let mut world = World::new(with_triggers(vec![set]));
    let call = world.call("source");
    let source = world.running("source");
    world.put_by(source, "b", "a");
    world.done(source);
    let f = world.running("f");
    assert_eq!(world.keys(f), ["a"]);
    world.put_by(f, "b", "b");
    world.done(f);
    assert!(world.all_running("f").is_empty());
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn by_set_keeps_the_sessions_apart() {
    let mut world = World::new(with_triggers(vec![by_set(&["a", "b"], &[F])]));
    let first = world.call("source");
    let second = world.call("source");
    let sources = world.all_running("source");
    world.put_by(sources[0], "b", "a");
    world.put_by(sources[1], "b", "b");
    assert!(world.all_running("f").is_empty());
    world.put_by(sources[1], "b", "a");
    let session = world.opened(sources[1]).session;
    assert_eq!(world.opened(world.running("f")).session, session);
    world.put_by(sources[0], "b", "b");
    assert_eq!(world.all_running("f").len(), 2);
    for id in world.all_running("f").into_iter().chain(sources) {
        world.done(id);
    }
    assert!(!world.is_open(first) && !world.is_open(second));
    world.assert_empty();
}

#[test]
fn a_function_with_a_direct_successor_also_feeds_a_bucket() {
    let mut spec = with_triggers(vec![immediate(&[G])]);
    spec.functions[0].next = vec![F];
    spec.buckets[0].keep = Keep::UntilConsumed;
    let mut world = World::new(spec);
    world.call("source");
    let source = world.running("source");
    world.next_by(source);
    world.put_by(source, "b", "k");
    let f = world.running("f");
    assert_eq!(world.opened(f).trigger, NO_TRIGGER);
    assert_eq!(
        world.opened(f).inputs[0].bucket,
        pheromone_shm::message::NO_BUCKET
    );
    assert_eq!(world.keys(world.running("g")), ["k"]);
    for id in [source, f, world.running("g")] {
        world.done(id);
    }
    world.assert_empty();
}

#[test]
fn a_direct_object_reaches_every_next_function_or_the_one_it_is_for() {
    let mut spec = app(&["source", "f", "g", "h"]);
    spec.executors.min = 6;
    spec.executors.max = 6;
    spec.functions[0].next = vec![1, 2];
    spec.functions[0].calls = vec![3];
    let mut world = World::new(spec);
    world.call("source");
    let source = world.running("source");
    world.next_by(source);
    for function in ["f", "g"] {
        assert_eq!(world.all_running(function).len(), 1);
    }
    world.publish(source, Target::Function(3), Key::Named(b"label"), 8);
    assert_eq!(world.keys(world.running("h")), ["label"]);
    // A label never collides.
    world.publish(source, Target::Function(1), Key::Named(b"label"), 8);
    assert_eq!(world.all_running("f").len(), 2);
    assert!(world.sink.error_events.is_empty());
}

#[test]
fn thousands_of_triggers_on_a_bucket_each_see_their_own() {
    let mut triggers = Vec::new();
    for number in 0..3000 {
        triggers.push(by_key(&format!("key-{number}"), &[F]));
        triggers.push(by_set(&[&format!("set-{number}"), "common"], &[G]));
    }
    let mut world = World::new(with_triggers(triggers));
    let call = world.call("source");
    let source = world.running("source");
    world.put_by(source, "b", "key-2999");
    assert_eq!(world.opened(world.running("f")).trigger, 2 * 2999);
    world.put_by(source, "b", "set-7");
    world.put_by(source, "b", "set-2000");
    world.put_by(source, "b", "common");
    let mut triggers: Vec<u16> = (world.all_running("g").iter())
        .map(|&id| world.opened(id).trigger)
        .collect();
    triggers.sort_unstable();
    assert_eq!(triggers, [2 * 7 + 1, 2 * 2000 + 1]);
    world.run("f");
    world.run("g");
    world.run("g");
    world.done(source);
    let failure = world.ended(call).failure();
    assert!(format!("{:?}", failure.cause).contains("set-set-0-common"));
    world.assert_empty();
}
