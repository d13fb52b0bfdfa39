//! Objects sent with a delay: published when that has passed, and their session open until then.

use pheromone_core::event::ExecutorId;
use pheromone_core::spec::{AppSpec, GroupClose, Keep};
use pheromone_shm::message::{FromExecutor, Key, Target};

use crate::common::app::{app, bucket, function, group, immediate, trigger};
use crate::common::{End, MS, World};

fn spec() -> AppSpec {
    let mut spec = app(&["source", "sink"]);
    spec.functions[0].next = vec![1];
    spec.buckets = vec![bucket("b", Keep::Session, vec![immediate(&[1])])];
    spec
}

fn later(world: &mut World, id: ExecutorId, target: Target, key: &str, delay_ns: u64) {
    let extent = world.allocate(id, 8);
    world.say(
        id,
        FromExecutor::Publish {
            target,
            extent,
            size_bytes: 8,
            key: Key::Named(key.as_bytes()),
            ordinal: 0,
            group: b"",
            delay_ns,
        },
    );
}

#[test]
fn a_delayed_object_is_published_when_its_time_has_come() {
    let mut world = World::new(spec());
    let call = world.call("source");
    let source = world.running("source");
    later(&mut world, source, Target::Bucket(0), "a", 10 * MS);
    later(&mut world, source, Target::Next, "b", 5 * MS);
    assert_eq!(
        world.get_by(source, "b", "a"),
        Err(-2),
        "nobody finds it before"
    );
    world.done(source);
    assert!(world.is_open(call) && world.all_running("sink").is_empty());
    world.pass(5 * MS);
    let sink = world.running("sink");
    assert_eq!(world.keys(sink), ["b"]);
    world.done(sink);
    world.pass(5 * MS - 1);
    assert!(world.is_open(call) && world.all_running("sink").is_empty());
    world.pass(1);
    let sink = world.running("sink");
    assert_eq!(world.keys(sink), ["a"]);
    assert!(world.get_by(sink, "b", "a").is_ok());
    world.done(sink);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn its_identity_is_taken_from_when_it_is_sent() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    later(&mut world, source, Target::Bucket(0), "a", 10 * MS);
    world.put_by(source, "b", "a");
    assert_eq!(world.stats().error_events_total, 1);
    later(&mut world, source, Target::Bucket(0), "a", 10 * MS);
    assert_eq!(world.stats().error_events_total, 2);
    world.done(source);
    world.pass(10 * MS);
    world.run("sink");
    world.assert_empty();
}

#[test]
fn what_is_delayed_goes_with_its_session() {
    let mut world = World::new(spec());
    let call = world.call("source");
    let source = world.running("source");
    for (key, delay_ms) in [("a", 3), ("b", 1), ("c", u64::MAX / MS)] {
        later(&mut world, source, Target::Bucket(0), key, delay_ms * MS);
    }
    world.pass(MS);
    world.run("sink");
    world.cancel(call);
    world.done(source);
    world.pass(100 * MS);
    assert!(world.all_running("sink").is_empty());
    world.assert_empty();
}

#[test]
fn a_barrier_waits_for_what_is_delayed_upstream() {
    let mut spec = spec();
    spec.functions.push(function("reduce"));
    let kind = group(GroupClose::After(1));
    spec.buckets.push(bucket(
        "mapped",
        Keep::Session,
        vec![trigger("after", kind, &[2])],
    ));
    let mut world = World::new(spec);
    let call = world.call("source");
    let source = world.running("source");
    world.put_by(source, "mapped", "x");
    later(&mut world, source, Target::Bucket(0), "a", 10 * MS);
    world.done(source);
    assert!(world.all_running("reduce").is_empty(), "a map is to come");
    world.pass(10 * MS);
    let sink = world.running("sink");
    world.put_by(sink, "mapped", "y");
    world.done(sink);
    let reduce = world.running("reduce");
    assert_eq!(world.keys(reduce), ["x", "y"]);
    world.done(reduce);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn an_automatic_key_is_found_although_its_object_was_on_its_way_at_the_first_question() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    let invocation = world.opened(source).invocation;
    let extent = world.allocate(source, 8);
    world.say(
        source,
        FromExecutor::Publish {
            target: Target::Bucket(0),
            extent,
            size_bytes: 8,
            key: Key::Auto(0),
            ordinal: 0,
            group: b"",
            delay_ns: MS,
        },
    );
    let key = format!("~{invocation}.0");
    assert_eq!(world.get_by(source, "b", &key), Err(-2), "not before");
    world.pass(MS);
    assert!(world.get_by(source, "b", &key).is_ok());
    world.done(source);
    world.run("sink");
    world.assert_empty();
}
