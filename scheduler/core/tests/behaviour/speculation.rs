//! Speculative rerun rules: an attempt beside the original, of each identity the first object, and
//! one success for both.

use std::collections::BTreeSet;

use pheromone_core::event::{Cause, Death, ExecutorId};
use pheromone_core::spec::{AppSpec, Keep, OnFailure, RerunSpec, TriggerKind};
use pheromone_shm::message::{Ending, FromExecutor, Key, Target};

use crate::common::app::{app, bucket, immediate, trigger};
use crate::common::{Call, End, MS, World};

const RULE: RerunSpec = RerunSpec {
    function: 0,
    timeout_ns: 100 * MS,
    attempts: 2,
    speculative: true,
    optional: false,
};

/// `source` is to send into `out`, which fires `sink`.
fn spec() -> AppSpec {
    let mut spec = app(&["source", "sink", "handle"]);
    spec.executors.min = 4;
    spec.executors.max = 4;
    spec.functions[0].backoff.jitter = 0.0;
    spec.buckets = vec![
        bucket("out", Keep::Session, vec![immediate(&[1])]),
        bucket("other", Keep::Session, vec![immediate(&[1])]),
        bucket("failed", Keep::Session, vec![immediate(&[2])]),
    ];
    spec.buckets[0].reruns = vec![RULE];
    spec
}

/// A call of `source` whose first attempt hangs and whose second has been loaded.
fn beside(spec: AppSpec) -> (World, Call, ExecutorId, ExecutorId) {
    let mut world = World::new(spec);
    let call = world.call("source");
    let first = world.running("source");
    world.load("source");
    pass(&mut world, 100 * MS);
    let runs = world.all_running("source");
    let second = *runs.iter().find(|&&id| id != first).expect("a second");
    (world, call, first, second)
}

fn pass(world: &mut World, ns: u64) {
    world.pass(ns);
    world.load("source");
}

#[test]
fn a_second_attempt_runs_beside_the_first_on_another_executor() {
    let (mut world, call, first, second) = beside(spec());
    let (one, two) = (world.opened(first).clone(), world.opened(second).clone());
    assert_eq!((one.attempt, two.attempt), (1, 2));
    assert_eq!(one.invocation, two.invocation);
    assert_eq!(one.inputs, two.inputs);
    assert!(!one.cancelled && world.sink.kills.is_empty());
    assert_eq!(world.stats().reruns_total, 1);
    world.put_by(second, "out", "a");
    world.done(second);
    assert!(world.opened(first).cancelled, "it is wanted no more");
    world.run("sink");
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.done(first);
    assert_eq!(world.stats().invocations_total, 2, "one of each function");
    world.assert_empty();
}

#[test]
fn of_each_identity_the_first_object_wins_whichever_attempt_sends_it() {
    let (mut world, call, first, second) = beside(spec());
    let bucket = Target::Bucket(1);
    for (id, ordinal, name) in [(second, 0, "a"), (first, 0, "a"), (first, 1, "b")] {
        world.publish(id, bucket, Key::Auto(ordinal), 8);
        world.publish(id, bucket, Key::Named(name.as_bytes()), 8);
        world.forward_by(id, 0, Target::Bucket(0), Key::Named(name.as_bytes()));
    }
    assert_eq!(world.stats().error_events_total, 0, "none is a stranger's");
    // A second one by the same attempt is.
    world.publish(first, bucket, Key::Named(b"b"), 8);
    assert_eq!(world.stats().error_events_total, 1);
    world.done(first);
    world.done(second);
    let mut fired = BTreeSet::new();
    while let Some(&id) = world.all_running("sink").first() {
        let open = world.opened(id);
        let seen = (open.inputs[0].bucket, open.inputs[0].key_text());
        assert!(fired.insert(seen), "each fires once");
        world.done(id);
    }
    assert_eq!(fired.len(), 6);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_cancelled_attempt_that_does_not_stop_is_killed_which_is_no_failure() {
    let (mut world, call, first, second) = beside(spec());
    world.put_by(first, "out", "a");
    world.done(first);
    world.run("sink");
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.pass(1_000 * MS);
    assert!(
        !world.sink.executors[&second].runs(0),
        "it is another process"
    );
    assert_eq!(world.stats().error_events_total, 0);
    world.assert_empty();
}

#[test]
fn one_that_fails_leaves_the_other_alone_and_the_last_one_decides() {
    for crashes in [false, true] {
        let (mut world, call, first, second) = beside(spec());
        let fail = |world: &mut World, id| {
            if crashes {
                world.die(id, Death::Signaled(11));
            } else {
                world.complete(id, 5, Ending::Returned, "no");
            }
        };
        fail(&mut world, second);
        assert!(world.is_open(call) && !world.opened(first).cancelled);
        fail(&mut world, first);
        let failure = world.ended(call).failure();
        assert_eq!(failure.attempt, 1, "which failed last");
        world.assert_empty();
    }
}

#[test]
fn one_that_succeeds_without_sending_leaves_it_to_the_other() {
    let (mut world, call, first, second) = beside(spec());
    world.done(first);
    assert!(world.is_open(call) && !world.opened(second).cancelled);
    world.put_by(second, "out", "a");
    world.done(second);
    world.run("sink");
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn past_the_total_all_that_run_are_killed_and_the_invocation_has_failed_once() {
    let mut spec = spec();
    spec.functions[0].on_failure = OnFailure::Bucket(2);
    let (mut world, call, ..) = beside(spec);
    pass(&mut world, 100 * MS);
    assert!(world.all_running("source").is_empty());
    assert_eq!(world.all_running("handle").len(), 1, "it is told of once");
    assert_eq!(world.stats().error_events_total, 1);
    world.run("handle");
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn as_many_run_beside_each_other_as_the_rule_says() {
    let mut spec = spec();
    spec.buckets[0].reruns[0].attempts = 3;
    let (mut world, call, ..) = beside(spec);
    pass(&mut world, 100 * MS);
    let runs = world.all_running("source");
    let mut attempts: Vec<_> = runs.iter().map(|&id| world.opened(id).attempt).collect();
    attempts.sort_unstable();
    assert_eq!(attempts, [1, 2, 3]);
    pass(&mut world, 100 * MS);
    let Cause::TimedOut(why) = &world.ended(call).failure().cause else {
        panic!("they were killed");
    };
    assert!(why.contains("of 3 and was killed"), "{why}");
    world.assert_empty();
}

#[test]
fn a_second_attempt_that_finds_no_executor_waits_and_goes_with_the_success_of_the_first() {
    let mut spec = spec();
    spec.executors.min = 1;
    spec.executors.max = 1;
    let mut world = World::new(spec);
    let call = world.call("source");
    world.load("source");
    world.pass(1_000 * MS);
    assert_eq!(world.stats().queued, 1, "one waits, and no third is begun");
    let source = world.running("source");
    world.put_by(source, "out", "a");
    world.done(source);
    world.run("sink");
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn the_first_answer_stands_whichever_attempt_gives_it() {
    for first_answers in [false, true] {
        let (mut world, call, first, second) = beside(spec());
        let (one, other) = if first_answers {
            (first, second)
        } else {
            (second, first)
        };
        world.respond_by(one);
        world.respond_by(other);
        assert_eq!(world.stats().error_events_total, 0);
        world.put_by(other, "out", "a");
        world.done(other);
        world.done(one);
        world.run("sink");
        assert_eq!(world.ended(call).outcome, End::Responded);
        world.take_response(call);
        world.assert_empty();
    }
}

#[test]
fn a_steering_call_that_both_make_is_one_call_in_whatever_order() {
    let mut spec = spec();
    let kind = TriggerKind::DynamicJoin;
    spec.buckets[1].triggers = vec![trigger("join", kind, &[1])];
    let (mut world, call, first, second) = beside(spec);
    let join = FromExecutor::Join {
        trigger: 1,
        more: false,
        keys: &[],
    };
    for id in [second, first, first, second, second] {
        world.say(id, join);
    }
    world.put_by(first, "out", "a");
    world.done(first);
    let mut fired = 0;
    while let Some(&id) = world.all_running("sink").first() {
        fired += 1;
        world.done(id);
    }
    assert_eq!(fired, 1 + 3, "an object, and the three calls of the second");
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.done(second);
    world.assert_empty();
}

#[test]
fn a_session_that_ends_cancels_both() {
    let (mut world, call, first, second) = beside(spec());
    world.cancel(call);
    assert!(world.opened(first).cancelled && world.opened(second).cancelled);
    world.done(first);
    world.pass(1_000 * MS);
    assert_eq!(world.stats().reruns_total, 1);
    world.assert_empty();
}
