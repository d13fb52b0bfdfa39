//! Rerun rules: a source that sends nothing into a bucket in time runs again, in place of its
//! attempt or beside it, and what it sends twice counts once.

use pheromone_core::event::{Cause, Death, ExecutorId};
use pheromone_core::spec::{AppSpec, AtEnd, GroupClose, Keep, OnFailure, RerunSpec, TriggerSpec};
use pheromone_shm::message::{Ending, FromExecutor, Key, Target};

use crate::common::app::{app, bucket, by_set, function, group, immediate, trigger};
use crate::common::{Call, End, MS, World};

const RULE: RerunSpec = RerunSpec {
    function: 0,
    timeout_ns: 100 * MS,
    attempts: 3,
    speculative: false,
    optional: false,
};

/// `source` is to send into `out`, which fires `sink`.
fn spec(rule: RerunSpec) -> AppSpec {
    let mut spec = app(&["source", "sink", "handle"]);
    spec.functions[0].backoff.jitter = 0.0;
    spec.functions[0].next = vec![1];
    spec.buckets = vec![
        bucket("out", Keep::Session, vec![immediate(&[1])]),
        bucket("other", Keep::Session, vec![]),
        bucket("failed", Keep::Session, vec![immediate(&[2])]),
    ];
    spec.buckets[0].reruns = vec![rule];
    spec
}

/// A world with its first call of `source`, which is loaded.
fn called(spec: AppSpec) -> (World, Call) {
    let mut world = World::new(spec);
    let call = world.call("source");
    world.load("source");
    (world, call)
}

/// Time passes, and whatever it starts is loaded.
fn pass(world: &mut World, ns: u64) {
    world.pass(ns);
    world.load("source");
}

fn attempt(world: &World, id: ExecutorId) -> u32 {
    world.opened(id).attempt
}

#[test]
fn a_source_that_hangs_is_killed_and_runs_again() {
    let (mut world, call) = called(spec(RULE));
    let source = world.running("source");
    let (invocation, inputs) = {
        let open = world.opened(source);
        (open.invocation, open.inputs.clone())
    };
    pass(&mut world, 100 * MS - 1);
    assert_eq!(attempt(&world, world.running("source")), 1);
    pass(&mut world, 1);
    let again = world.running("source");
    let open = world.opened(again);
    assert_eq!((open.attempt, open.invocation), (2, invocation));
    assert_eq!(open.inputs, inputs, "with the inputs that it had");
    assert_eq!(world.stats().reruns_total, 1);
    assert_eq!(world.stats().error_events_total, 0, "which is no failure");
    world.put_by(again, "out", "a");
    world.done(again);
    world.run("sink");
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_source_that_has_sent_may_take_its_time() {
    let (mut world, call) = called(spec(RULE));
    let source = world.running("source");
    world.put_by(source, "out", "a");
    pass(&mut world, 1_000 * MS);
    assert_eq!(attempt(&world, world.running("source")), 1);
    world.run("sink");
    world.done(source);
    assert_eq!(world.ended(call).outcome, End::Completed);
    assert_eq!(world.stats().reruns_total, 0);
    world.assert_empty();
}

#[test]
fn only_objects_in_its_bucket_meet_a_rule_also_forwarded_and_delayed_ones() {
    for how in 0..4 {
        let (mut world, _) = called(spec(RULE));
        let source = world.running("source");
        let key = Key::Named(b"a");
        match how {
            0 => {
                world.put_by(source, "other", "a");
                world.next_by(source);
                world.run("sink");
            }
            1 => world.forward_by(source, 0, Target::Bucket(0), key),
            _ => {
                let extent = world.allocate(source, 8);
                world.say(
                    source,
                    FromExecutor::Publish {
                        target: Target::Bucket(if how == 2 { 0 } else { 1 }),
                        extent,
                        size_bytes: 8,
                        key,
                        ordinal: 0,
                        group: b"",
                        delay_ns: 300 * MS,
                    },
                );
            }
        }
        pass(&mut world, 200 * MS);
        let is_met = how == 1 || how == 2;
        let source = world.running("source");
        assert_eq!(attempt(&world, source) == 1, is_met, "{how}");
        world.put_by(source, "out", "b");
        world.done(source);
        pass(&mut world, 200 * MS);
        while !world.all_running("sink").is_empty() {
            world.run("sink");
        }
        world.assert_empty();
    }
}

#[test]
fn a_success_of_what_was_never_said_to_be_loaded_does_not_rest_for_ever() {
    let mut world = World::new(spec(RULE));
    let call = world.call("source");
    world.run("source");
    assert!(world.is_open(call), "it owes an object");
    pass(&mut world, 100 * MS);
    let source = world.running("source");
    assert_eq!(attempt(&world, source), 2);
    world.put_by(source, "out", "a");
    world.done(source);
    world.run("sink");
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_source_that_succeeds_without_sending_runs_again_when_its_time_is_over() {
    let (mut world, call) = called(spec(RULE));
    world.run("source");
    assert!(world.is_open(call), "an armed rule keeps it open");
    assert_eq!(world.stats().running + world.stats().queued, 0);
    assert_eq!(world.stats().objects_live, 1, "and the input held");
    pass(&mut world, 100 * MS - 1);
    assert!(world.all_running("source").is_empty());
    pass(&mut world, 1);
    let source = world.running("source");
    assert_eq!(attempt(&world, source), 2);
    world.put_by(source, "out", "a");
    world.done(source);
    world.run("sink");
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn success_without_an_object_meets_an_optional_rule() {
    let rule = RerunSpec {
        optional: true,
        ..RULE
    };
    let (mut world, call) = called(spec(rule));
    world.run("source");
    assert_eq!(world.ended(call).outcome, End::Completed);
    let call = world.call("source");
    pass(&mut world, 100 * MS);
    assert_eq!(attempt(&world, world.running("source")), 2, "it hung");
    world.run("source");
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_source_that_crashes_runs_again_when_its_time_is_over() {
    let (mut world, call) = called(spec(RULE));
    pass(&mut world, 30 * MS);
    let source = world.running("source");
    world.die(source, Death::Signaled(11));
    assert!(world.is_open(call) && world.all_running("source").is_empty());
    pass(&mut world, 70 * MS);
    let source = world.running("source");
    assert_eq!(attempt(&world, source), 2);
    world.put_by(source, "out", "a");
    world.done(source);
    world.run("sink");
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_functions_own_attempts_come_first_and_count_in_the_total() {
    let mut spec = spec(RULE);
    spec.functions[0].attempts = 2;
    let (mut world, call) = called(spec);
    let source = world.running("source");
    world.complete(source, 5, Ending::Returned, "no");
    pass(&mut world, 10 * MS);
    // Its second attempt has failed too, and so none of its own is left.
    let source = world.running("source");
    assert_eq!(attempt(&world, source), 2);
    world.complete(source, 5, Ending::Returned, "no");
    pass(&mut world, 100 * MS);
    let source = world.running("source");
    assert_eq!(attempt(&world, source), 3);
    world.complete(source, 5, Ending::Returned, "still not");
    let failure = world.ended(call).failure();
    assert_eq!(failure.attempt, 3);
    assert!(matches!(&failure.cause, Cause::Returned { status: 5, .. }));
    world.assert_empty();
}

#[test]
fn what_is_permanent_or_past_the_deadline_is_not_waited_for() {
    let (mut first, call) = called(spec(RULE));
    let source = first.running("source");
    first.complete(source, 0x105, Ending::Returned, "never");
    assert_eq!(first.ended(call).failure().attempt, 1);
    first.assert_empty();

    let mut spec = spec(RULE);
    spec.session_timeout_ns = Some(80 * MS);
    let (mut second, call) = called(spec);
    let source = second.running("source");
    second.complete(source, 5, Ending::Returned, "no");
    assert!(!second.is_open(call));
    let call = second.call("source");
    second.run("source");
    second.pass(80 * MS);
    assert_eq!(second.ended(call).outcome, End::TimedOut);
    second.assert_empty();
}

#[test]
fn past_the_total_the_failure_names_the_bucket_and_the_time() {
    for hangs in [false, true] {
        let (mut world, call) = called(spec(RULE));
        for number in 1..=3 {
            let source = world.running("source");
            assert_eq!(attempt(&world, source), number);
            if !hangs {
                world.done(source);
            }
            pass(&mut world, 100 * MS);
        }
        let failure = world.ended(call).failure();
        assert_eq!((failure.function, failure.attempt), (Some(0), 3));
        let why = match &failure.cause {
            Cause::TimedOut(why) if hangs => why,
            Cause::NothingSent(why) if !hangs => why,
            other => panic!("{other:?}"),
        };
        for part in ["`source`", "`out`", "100ms", "attempt 3 of 3"] {
            assert!(why.contains(part), "{why}");
        }
        world.assert_empty();
    }
}

#[test]
fn past_the_total_on_failure_says_what_follows() {
    let rule = RerunSpec {
        attempts: 1,
        ..RULE
    };
    for on_failure in [OnFailure::Continue, OnFailure::Bucket(2)] {
        let mut spec = spec(rule);
        spec.functions[0].on_failure = on_failure;
        let mut world = World::new(spec);
        for hangs in [false, true] {
            let call = world.call("source");
            world.load("source");
            if !hangs {
                world.run("source");
            }
            pass(&mut world, 100 * MS);
            if on_failure != OnFailure::Continue {
                let handle = world.running("handle");
                assert_eq!(world.opened(handle).inputs[0].attached, 1);
                world.done(handle);
            }
            assert_eq!(world.ended(call).outcome, End::Completed);
        }
        assert_eq!(world.stats().error_events_total, 2);
        world.assert_empty();
    }
}

#[test]
fn objects_of_the_attempt_before_count_once() {
    let (mut world, call) = called(spec(RULE));
    let source = world.running("source");
    world.publish(source, Target::Bucket(1), Key::Auto(0), 8);
    pass(&mut world, 100 * MS);
    let again = world.running("source");
    world.publish(again, Target::Bucket(1), Key::Auto(0), 8);
    world.publish(again, Target::Bucket(0), Key::Auto(0), 8);
    world.done(again);
    let before = world.stats();
    world.run("sink");
    assert!(world.all_running("sink").is_empty());
    assert_eq!(before.error_events_total, 0);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

/// `deal` fans out to `source`s, whose objects meet in a set that fires `sink`.
fn fan_in(rule: RerunSpec) -> AppSpec {
    let mut spec = spec(rule);
    spec.executors.min = 3;
    spec.executors.max = 3;
    spec.functions.push(function("deal"));
    spec.functions[3].next = vec![0];
    spec.buckets[0].triggers = vec![by_set(&["p0", "p1", "p2"], &[1])];
    spec
}

/// The published system re-executes one call of a session: in a fan-in a failed worker is not run
/// again, without a limit and without a kill of the original, whose outputs count twice.
#[test]
fn in_a_fan_in_each_worker_that_failed_runs_again_in_place_of_the_first_and_counts_once() {
    let mut world = World::new(fan_in(RULE));
    let call = world.call("deal");
    let deal = world.running("deal");
    for _ in 0..3 {
        world.next_by(deal);
    }
    world.done(deal);
    let workers = world.all_running("source");
    assert_eq!(workers.len(), 3);
    world.load("source");
    // One hangs, one crashes, one sends nothing; each had its own input.
    world.die(workers[1], Death::Signaled(11));
    world.done(workers[2]);
    pass(&mut world, 100 * MS);
    let again = world.all_running("source");
    assert_eq!(again.len(), 3, "all of them run again");
    let mut inputs: Vec<_> = again
        .iter()
        .map(|&id| world.opened(id).inputs[0].key_text())
        .collect();
    inputs.sort();
    inputs.dedup();
    assert_eq!(inputs.len(), 3, "each with its own input");
    assert_eq!(world.stats().running, 3, "none of the originals is left");
    for (number, &id) in again.iter().enumerate() {
        let key = format!("p{number}");
        world.put_by(id, "out", &key);
        world.put_by(id, "out", &key);
        world.done(id);
    }
    assert_eq!(
        world.stats().error_events_total,
        3,
        "each second one is told"
    );
    let sink = world.running("sink");
    assert_eq!(world.keys(sink), ["p0", "p1", "p2"]);
    world.done(sink);
    assert!(world.all_running("sink").is_empty(), "it fires once");
    assert_eq!(world.ended(call).outcome, End::Completed);
    assert_eq!(world.stats().reruns_total, 3);
    world.assert_empty();
}

#[test]
fn a_barrier_waits_for_what_an_armed_rule_may_still_bring() {
    let mut spec = spec(RULE);
    let kind = group(GroupClose::After(0));
    spec.functions[0].next = vec![];
    spec.functions[0].sends = Some(vec![0, 1]);
    spec.functions[1].sends = Some(vec![]);
    spec.functions[2].sends = Some(vec![]);
    spec.buckets[0].triggers = vec![];
    spec.buckets[1].triggers = vec![trigger("after", kind, &[1])];
    let (mut world, call) = called(spec);
    let source = world.running("source");
    world.put_by(source, "other", "x");
    world.done(source);
    assert!(world.all_running("sink").is_empty());
    pass(&mut world, 100 * MS);
    let source = world.running("source");
    world.put_by(source, "out", "met");
    world.put_by(source, "other", "y");
    assert!(world.all_running("sink").is_empty());
    world.done(source);
    let sink = world.running("sink");
    assert_eq!(world.keys(sink), ["x", "y"]);
    world.done(sink);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_source_that_waits_to_run_again_has_not_closed() {
    let mut spec = spec(RULE);
    let kind = group(GroupClose::Sources(1));
    spec.buckets[0].triggers = vec![TriggerSpec {
        at_end: AtEnd::Fail,
        ..trigger("sources", kind, &[1])
    }];
    let (mut world, call) = called(spec);
    let source = world.running("source");
    world.say(source, FromExecutor::CloseSource { trigger: 0 });
    world.done(source);
    pass(&mut world, 100 * MS);
    let source = world.running("source");
    world.put_by(source, "out", "a");
    world.say(source, FromExecutor::CloseSource { trigger: 0 });
    world.done(source);
    let sink = world.running("sink");
    assert_eq!(world.keys(sink), ["a"]);
    world.done(sink);
    assert_eq!(world.stats().error_events_total, 0, "nothing came late");
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn the_time_counts_from_when_the_function_is_loaded() {
    let mut world = World::new(spec(RULE));
    let call = world.call("source");
    world.pass(10_000 * MS);
    assert_eq!(attempt(&world, world.running("source")), 1);
    world.load("source");
    world.pass(100 * MS);
    let again = world.running("source");
    assert_eq!(attempt(&world, again), 2);
    world.put_by(again, "out", "a");
    world.done(again);
    world.run("sink");
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_session_that_ends_takes_its_armed_rules_along() {
    for rests in [false, true] {
        let (mut world, call) = called(spec(RULE));
        let source = world.running("source");
        if rests {
            world.done(source);
        }
        world.cancel(call);
        if !rests {
            world.done(source);
        }
        pass(&mut world, 1_000 * MS);
        assert!(world.all_running("source").is_empty());
        assert_eq!(world.stats().reruns_total, 0);
        world.assert_empty();
        assert_eq!(world.core.totals().timers, 0);
    }
}

#[test]
fn a_serial_source_keeps_its_place_while_it_waits_to_run_again() {
    let mut spec = spec(RULE);
    spec.functions[0].serial_by = Some(pheromone_core::spec::SerialBy::Key);
    let mut world = World::new(spec);
    let calls = [world.call("source"), world.call("source")];
    world.load("source");
    let source = world.running("source");
    world.done(source);
    assert!(world.all_running("source").is_empty(), "alike, and in line");
    pass(&mut world, 100 * MS);
    for _ in 0..2 {
        let source = world.running("source");
        world.put_by(source, "out", "a");
        world.done(source);
        world.run("sink");
    }
    assert!(calls.iter().all(|&call| !world.is_open(call)));
    world.assert_empty();
}

#[test]
fn two_rules_of_one_source_are_met_by_themselves() {
    let mut spec = spec(RULE);
    spec.buckets[1].reruns = vec![RerunSpec {
        timeout_ns: 150 * MS,
        attempts: 2,
        ..RULE
    }];
    let (mut world, call) = called(spec);
    let source = world.running("source");
    world.put_by(source, "out", "a");
    world.run("sink");
    pass(&mut world, 100 * MS);
    assert_eq!(attempt(&world, world.running("source")), 1, "that is met");
    pass(&mut world, 50 * MS);
    let source = world.running("source");
    assert_eq!(attempt(&world, source), 2, "the other is not");
    pass(&mut world, 150 * MS);
    let Cause::TimedOut(why) = &world.ended(call).failure().cause else {
        panic!("it was killed");
    };
    assert!(why.contains("`other`"), "{why}");
    world.assert_empty();
}
