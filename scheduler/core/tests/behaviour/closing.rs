//! When a `dynamic_group` closes: what a source that dies has closed, and what a group that closes
//! after a function still waits for.

use pheromone_core::event::{Cause, Death, Destination, ExecutorId, Request};
use pheromone_core::spec::{AppSpec, AtEnd, GroupClose, Keep, OnFailure, TriggerSpec};
use pheromone_shm::message::{FromExecutor, Key, Target};

use crate::common::app::{app, bucket, by_set, group, immediate, trigger};
use crate::common::{APP, Call, End, MS, World};

const SINK: u16 = 1;
const WORKER: u16 = 2;

/// Bucket `b` has one group, which starts `sink` with all objects when it closes.
fn spec(close: GroupClose) -> AppSpec {
    let mut spec = app(&["source", "sink", "worker"]);
    let kind = group(close);
    let group = TriggerSpec {
        at_end: AtEnd::Fail,
        ..trigger("t", kind, &[SINK])
    };
    spec.buckets = vec![bucket("b", Keep::Session, vec![group])];
    spec.functions[usize::from(SINK)].sends = Some(vec![]);
    spec
}

/// One source, which may be attempted so often.
fn one_source(attempts: u32, on_failure: OnFailure, sends: Option<Vec<u16>>) -> World {
    let mut spec = spec(GroupClose::Sources(1));
    let source = &mut spec.functions[0];
    source.attempts = attempts;
    source.on_failure = on_failure;
    source.sends = sends;
    World::new(spec)
}

/// The running `source` puts an object.
fn puts(world: &mut World, key: &str) -> ExecutorId {
    let source = world.running("source");
    world.put_by(source, "b", key);
    source
}

fn closes(world: &mut World, source: ExecutorId) {
    world.say(source, FromExecutor::CloseSource { trigger: 0 });
}

fn crashes(world: &mut World, source: ExecutorId) {
    assert!(world.all_running("sink").is_empty(), "it has not returned");
    world.die(source, Death::Signaled(11));
}

/// The group has closed with these objects; nothing is left of the session.
fn ends_with(mut world: World, call: Call, keys: &[&str]) {
    let sink = world.running("sink");
    assert_eq!(world.keys(sink), keys);
    world.done(sink);
    assert!(world.all_running("sink").is_empty(), "it closes once");
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

/// The session has failed, for something that is still missing, and nothing has fired.
fn ends_waiting(mut world: World, call: Call) {
    assert!(world.all_running("sink").is_empty());
    let Cause::Waiting(text) = &world.ended(call).failure().cause else {
        panic!("it was waiting for its source");
    };
    assert!(text.contains("source"), "{text}");
    world.assert_empty();
}

#[test]
fn a_source_that_dies_after_saying_that_it_closes_fails_its_session() {
    let mut world = one_source(1, OnFailure::Fail, None);
    let call = world.call("source");
    let source = puts(&mut world, "a");
    closes(&mut world, source);
    crashes(&mut world, source);
    assert!(world.all_running("sink").is_empty());
    let cause = &world.ended(call).failure().cause;
    assert!(matches!(cause, Cause::Died(Death::Signaled(11), _)));
    world.assert_empty();
}

#[test]
fn what_an_attempt_that_dies_had_closed_a_further_one_has_to_close_again() {
    for closes_again in [true, false] {
        let mut world = one_source(2, OnFailure::Fail, None);
        let call = world.call("source");
        let source = puts(&mut world, "a");
        closes(&mut world, source);
        crashes(&mut world, source);
        world.pass(20 * MS);
        let source = puts(&mut world, "b");
        if closes_again {
            closes(&mut world, source);
        }
        assert!(world.all_running("sink").is_empty());
        world.done(source);
        if closes_again {
            ends_with(world, call, &["a", "b"]);
        } else {
            ends_waiting(world, call);
        }
    }
}

#[test]
fn with_continue_a_source_that_dies_has_closed_what_it_sends_into() {
    for has_closed in [true, false] {
        let mut world = one_source(1, OnFailure::Continue, Some(vec![0]));
        let call = world.call("source");
        let source = puts(&mut world, "a");
        if has_closed {
            closes(&mut world, source);
        }
        crashes(&mut world, source);
        ends_with(world, call, &["a"]);
    }
}

#[test]
fn with_continue_and_without_sends_a_source_that_dies_has_closed_what_it_said() {
    for has_closed in [true, false] {
        let mut world = one_source(1, OnFailure::Continue, None);
        let call = world.call("source");
        let source = puts(&mut world, "a");
        if has_closed {
            closes(&mut world, source);
        }
        crashes(&mut world, source);
        if has_closed {
            ends_with(world, call, &["a"]);
        } else {
            ends_waiting(world, call);
        }
    }
}

/// A put that joins a session.
fn join(world: &mut World, session: Call, bucket: &str, key: &str) {
    let bucket = world.bucket(bucket);
    let destination = Destination::Bucket {
        bucket,
        key: Some(key.as_bytes()),
        group: b"",
    };
    let draft = world.draft(APP, destination);
    let request = world.send(Request {
        session: Some(session.session),
        ..draft
    });
    world.answer_of(request).expect("the session is open");
}

#[test]
fn a_group_waits_for_what_is_pending_until_it_has_led_to_something() {
    let mut spec = spec(GroupClose::After(WORKER));
    let keeper = u16::try_from(spec.functions.len()).expect("few");
    spec.functions.extend(app(&["keeper"]).functions);
    spec.functions[usize::from(keeper)].sends = Some(vec![]);
    let both = by_set(&["x", "y"], &[WORKER]);
    spec.buckets.push(bucket("half", Keep::Session, vec![both]));
    let start = vec![immediate(&[0, keeper])];
    spec.buckets.push(bucket("start", Keep::Session, start));
    let mut world = World::new(spec);
    let call = world.put("start", None);
    let source = puts(&mut world, "a");
    world.put_by(source, "half", "x");
    world.done(source);
    // Only `keeper` is left, which leads nowhere; half a set is pending, which may.
    assert!(world.all_running("sink").is_empty(), "`y` may still come");
    join(&mut world, call, "half", "y");
    let worker = world.running("worker");
    assert_eq!(world.keys(worker), ["x", "y"]);
    world.put_by(worker, "b", "b");
    world.done(worker);
    let sink = world.running("sink");
    assert_eq!(world.keys(sink), ["a", "b"]);
    world.run("keeper");
    ends_with(world, call, &["a", "b"]);
}

#[test]
fn who_calls_a_function_directly_is_upstream_of_it() {
    let mut spec = spec(GroupClose::After(WORKER));
    spec.functions[0].calls = vec![WORKER];
    spec.functions[0].sends = Some(vec![]);
    spec.functions[usize::from(WORKER)].sends = Some(vec![0]);
    let mut world = World::new(spec);
    let call = world.call("source");
    let source = world.running("source");
    for (ordinal, key) in [(0, "a"), (1, "b")] {
        assert!(world.all_running("sink").is_empty(), "it may call again");
        world.publish(source, Target::Function(WORKER), Key::Auto(ordinal), 8);
        let worker = world.running("worker");
        world.put_by(worker, "b", key);
        world.done(worker);
    }
    assert!(world.all_running("sink").is_empty(), "it may call again");
    world.done(source);
    ends_with(world, call, &["a", "b"]);
}
