//! Further attempts: when there is one, and how what it does again is kept from happening twice.

use pheromone_core::event::{Cause, Death};
use pheromone_core::spec::{AppSpec, AtEnd, GroupClose, Keep, OnFailure, TriggerKind, TriggerSpec};
use pheromone_shm::message::{Ending, FromExecutor, Key, Target};

use crate::common::app::{app, bucket, group, immediate, trigger};
use crate::common::{End, MS, World};

/// `f` may be tried three times, 10 ms after its first failure; it feeds `g` through `b` and
/// `next`.
fn spec() -> AppSpec {
    let mut spec = app(&["f", "g"]);
    spec.functions[0].attempts = 3;
    spec.functions[0].backoff.jitter = 0.0;
    spec.functions[0].next = vec![1];
    spec.buckets = vec![bucket("b", Keep::Session, vec![immediate(&[1])])];
    spec
}

#[test]
fn a_failed_attempt_is_followed_by_another_after_a_pause_that_doubles() {
    let mut world = World::new(spec());
    let call = world.call("f");
    let first = world.opened(world.running("f")).invocation;
    for (attempt, pause_ns) in [(1, 10 * MS), (2, 20 * MS)] {
        let f = world.running("f");
        assert_eq!(world.opened(f).attempt, attempt);
        assert_eq!(world.opened(f).invocation, first, "one id for all attempts");
        world.complete(f, 3, Ending::Returned, "not yet");
        world.pass(pause_ns - 1);
        assert!(world.all_running("f").is_empty() && world.is_open(call));
        world.pass(1);
    }
    world.run("f");
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn the_last_attempt_fails_the_session_with_its_own_reason() {
    let mut world = World::new(spec());
    let call = world.call("f");
    for message in ["one", "two", "three"] {
        let f = world.running("f");
        world.complete(f, 3, Ending::Returned, message);
        world.pass(1_000 * MS);
    }
    let failure = world.ended(call).failure();
    assert_eq!(failure.attempt, 3);
    let Cause::Returned { message, .. } = &failure.cause else {
        panic!("it returned");
    };
    assert_eq!(message, "three");
    world.assert_empty();
}

#[test]
fn a_permanent_failure_and_one_past_the_deadline_are_not_repeated() {
    let mut world = World::new(spec());
    let call = world.call("f");
    let f = world.running("f");
    world.complete(f, 0x103, Ending::Returned, "never");
    assert_eq!(world.ended(call).failure().attempt, 1);

    let mut spec = spec();
    spec.session_timeout_ns = Some(10 * MS);
    let mut world = World::new(spec);
    let call = world.call("f");
    let f = world.running("f");
    world.pass(MS);
    world.complete(f, 3, Ending::Returned, "too late");
    assert!(
        !world.is_open(call),
        "a pause past the deadline is not waited for"
    );
    world.assert_empty();
}

#[test]
fn what_an_attempt_sends_again_is_absorbed_and_what_it_adds_is_not() {
    let mut world = World::new(spec());
    world.call("f");
    let bucket = Target::Bucket(0);
    let f = world.running("f");
    world.publish(f, bucket, Key::Named(b"named"), 8);
    world.publish(f, bucket, Key::Auto(0), 8);
    world.publish(f, Target::Next, Key::Auto(0), 8);
    world.run("g");
    world.complete(f, 1, Ending::Returned, "");
    for _ in 0..2 {
        world.run("g");
    }
    world.pass(10 * MS);
    let f = world.running("f");
    world.publish(f, bucket, Key::Named(b"named"), 8);
    world.publish(f, bucket, Key::Auto(0), 8);
    world.publish(f, Target::Next, Key::Auto(0), 8);
    assert!(world.all_running("g").is_empty());
    assert_eq!(world.stats().queued, 0, "nothing fires for what was there");
    assert_eq!(world.stats().error_events_total, 0);
    world.publish(f, bucket, Key::Auto(1), 8);
    world.publish(f, Target::Next, Key::Auto(1), 8);
    // The same attempt's second object of a name is nobody's repetition.
    world.publish(f, bucket, Key::Named(b"named"), 8);
    world.publish(f, bucket, Key::Named(b"other"), 8);
    world.publish(f, bucket, Key::Named(b"other"), 8);
    assert_eq!(world.stats().error_events_total, 1);
    world.done(f);
    for _ in 0..3 {
        world.run("g");
    }
    world.assert_empty();
}

#[test]
fn a_crash_is_a_failed_attempt_and_the_next_has_another_process() {
    let mut world = World::new(spec());
    let call = world.call("f");
    let f = world.running("f");
    world.put_by(f, "b", "kept");
    world.die(f, Death::Signaled(11));
    world.run("g");
    world.pass(10 * MS);
    let f = world.running("f");
    assert_eq!(world.opened(f).attempt, 2);
    world.put_by(f, "b", "kept");
    world.done(f);
    assert_eq!(world.ended(call).outcome, End::Completed);
    assert_eq!(world.stats().invocations_total, 2);
    world.assert_empty();
}

#[test]
fn a_session_that_ends_between_two_attempts_ends_both() {
    let mut world = World::new(spec());
    let call = world.call("f");
    let f = world.running("f");
    world.complete(f, 1, Ending::Returned, "");
    world.cancel(call);
    world.pass(1_000 * MS);
    assert!(world.all_running("f").is_empty());
    world.assert_empty();
}

#[test]
fn an_answer_stands_when_a_further_attempt_gives_it_again() {
    let mut world = World::new(spec());
    let call = world.call("f");
    let f = world.running("f");
    world.respond_by(f);
    world.complete(f, 1, Ending::Returned, "");
    world.pass(10 * MS);
    let f = world.running("f");
    world.respond_by(f);
    assert_eq!(world.stats().error_events_total, 0);
    world.done(f);
    assert_eq!(world.ended(call).outcome, End::Responded);
    world.take_response(call);
    world.assert_empty();
}

#[test]
fn with_continue_the_session_goes_on_and_the_failed_one_counts_as_a_closed_source() {
    let mut spec = spec();
    spec.functions[0].attempts = 1;
    spec.functions[0].on_failure = OnFailure::Continue;
    spec.functions[0].sends = Some(vec![0]);
    let kind = group(GroupClose::Sources(2));
    spec.functions[1].next = vec![0];
    spec.buckets[0].triggers = vec![TriggerSpec {
        at_end: AtEnd::Fail,
        ..trigger("t", kind, &[1])
    }];
    let mut world = World::new(spec);
    let call = world.call("g");
    let g = world.running("g");
    world.next_by(g);
    world.next_by(g);
    world.done(g);
    let fs = world.all_running("f");
    world.put_by(fs[0], "b", "a");
    world.say(fs[0], FromExecutor::CloseSource { trigger: 0 });
    world.done(fs[0]);
    assert!(world.all_running("g").is_empty());
    world.complete(fs[1], 9, Ending::Returned, "no");
    let g = world.running("g");
    assert_eq!(world.keys(g), ["a"]);
    assert_eq!(world.stats().error_events_total, 1, "it is told of");
    world.done(g);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn with_continue_and_without_sends_it_closes_what_any_of_its_attempts_had_closed() {
    for second_attempt_closes in [None, Some(0), Some(1)] {
        let mut spec = spec();
        spec.functions[0].attempts = 2;
        spec.functions[0].on_failure = OnFailure::Continue;
        spec.functions[0].next.clear();
        let closing = |name: &str| TriggerSpec {
            at_end: AtEnd::Drop,
            ..trigger(name, group(GroupClose::Sources(1)), &[1])
        };
        spec.buckets[0].triggers = vec![closing("t"), closing("u"), closing("v")];
        let mut world = World::new(spec);
        let call = world.call("f");
        let f = world.running("f");
        world.put_by(f, "b", "a");
        world.say(f, FromExecutor::CloseSource { trigger: 0 });
        world.complete(f, 1, Ending::Returned, "");
        world.pass(10 * MS);
        let f = world.running("f");
        if let Some(trigger) = second_attempt_closes {
            world.say(f, FromExecutor::CloseSource { trigger });
        }
        assert!(world.all_running("g").is_empty(), "it may still succeed");
        world.complete(f, 1, Ending::Returned, "");
        let mut closed = Vec::new();
        while let Some(&g) = world.all_running("g").first() {
            assert_eq!(world.keys(g), ["a"]);
            closed.push(world.opened(g).trigger);
            world.done(g);
        }
        closed.sort_unstable();
        let expected: &[u16] = match second_attempt_closes {
            Some(1) => &[0, 1],
            _ => &[0],
        };
        assert_eq!(closed, expected);
        assert_eq!(world.ended(call).outcome, End::Completed);
        world.assert_empty();
    }
}

#[test]
fn each_function_of_a_firing_has_attempts_of_its_own() {
    let mut spec = app(&["source", "f", "g"]);
    spec.executors.min = 3;
    spec.executors.max = 3;
    for (function, attempts) in [(1, 2), (2, 3)] {
        spec.functions[function].attempts = attempts;
        spec.functions[function].backoff.jitter = 0.0;
    }
    spec.functions[1].on_failure = OnFailure::Continue;
    spec.buckets = vec![bucket("b", Keep::UntilConsumed, vec![immediate(&[1, 2])])];
    let mut world = World::new(spec);
    let call = world.call("source");
    let source = world.running("source");
    world.put_by(source, "b", "k");
    world.done(source);
    let attempt = |world: &World, function| {
        let id = world.running(function);
        assert_eq!(world.keys(id), ["k"]);
        (id, world.opened(id).attempt)
    };
    // `f` fails for good in its second attempt while the first one of `g` still runs.
    let (g, _) = attempt(&world, "g");
    for number in [1, 2] {
        let (f, of_f) = attempt(&world, "f");
        assert_eq!(of_f, number);
        assert_eq!(attempt(&world, "g"), (g, 1));
        world.complete(f, 1, Ending::Returned, "no");
        world.pass(100 * MS);
    }
    for number in [1, 2] {
        let (g, of_g) = attempt(&world, "g");
        assert_eq!(of_g, number);
        world.complete(g, 1, Ending::Returned, "not yet");
        world.pass(100 * MS);
        assert!(world.all_running("f").is_empty());
    }
    let (g, of_g) = attempt(&world, "g");
    assert_eq!(of_g, 3);
    world.done(g);
    assert_eq!(world.ended(call).outcome, End::Completed);
    assert_eq!(world.stats().invocations_total, 3);
    world.assert_empty();
}

#[test]
fn a_steering_call_made_again_is_the_same_call() {
    let mut spec = spec();
    let kind = TriggerKind::Redundant {
        k_of_n: None,
        cancel_rest: vec![],
        expire_ns: None,
    };
    spec.buckets[0].triggers = vec![TriggerSpec {
        at_end: AtEnd::Drop,
        ..trigger("t", kind, &[1])
    }];
    let mut world = World::new(spec);
    world.call("f");
    let steer = FromExecutor::Redundant {
        trigger: 0,
        k: 1,
        n: 2,
    };
    let f = world.running("f");
    world.say(f, steer);
    world.complete(f, 1, Ending::Returned, "");
    world.pass(10 * MS);
    let f = world.running("f");
    world.say(f, steer);
    assert_eq!(world.stats().error_events_total, 0);
    world.put_by(f, "b", "a");
    assert_eq!(world.all_running("g").len(), 1, "one of two is enough");
    world.run("g");
    world.done(f);
    world.assert_empty();
}

#[test]
fn what_is_remembered_for_a_further_attempt_is_bounded_by_the_limit_on_objects() {
    let mut spec = spec();
    spec.limits.objects = 20;
    spec.buckets[0].keep = Keep::UntilConsumed;
    spec.executors.min = 2;
    let mut world = World::new(spec);
    let call = world.call("f");
    let f = world.running("f");
    let mut sent = 0;
    while world.is_open(call) {
        world.publish(f, Target::Bucket(0), Key::Auto(sent), 8);
        sent += 1;
        for g in world.all_running("g") {
            world.done(g);
        }
        assert!(sent <= 30, "nothing bounds it");
    }
    let Cause::Limit(why) = &world.ended(call).failure().cause else {
        panic!("a limit was passed");
    };
    assert!(why.contains("limits.objects"), "{why}");
    world.done(f);
    world.assert_empty();
}
