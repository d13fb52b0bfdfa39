//! `on_failure` with a bucket: the session goes on, and what has failed is told of by an object
//! that has the failed invocation's inputs attached.

use pheromone_core::event::{Cause, Death, Event, ExecutorId};
use pheromone_core::spec::{AppSpec, AtEnd, GroupClose, Keep, OnFailure, TriggerSpec};
use pheromone_shm::message::{Ending, FromExecutor, InputKey, Key, NO_BUCKET, Target};

use crate::common::app::{app, batch, bucket, by_pattern, group, immediate, trigger};
use crate::common::{APP, End, FAILURE_BYTES, MS, OwnedKey, Seen, World};

/// `work` runs for each object of `jobs`; what fails of it comes to `handle` through `failed`.
fn spec() -> AppSpec {
    let mut spec = app(&["work", "handle", "split"]);
    spec.functions[0].on_failure = OnFailure::Bucket(1);
    spec.functions[0].backoff.jitter = 0.0;
    spec.buckets = vec![
        bucket("jobs", Keep::UntilConsumed, vec![immediate(&[0])]),
        bucket("failed", Keep::UntilConsumed, vec![immediate(&[1])]),
        bucket("again", Keep::Session, vec![]),
    ];
    spec
}

fn fail(world: &mut World, id: ExecutorId) {
    world.complete(id, 7, Ending::Returned, "no");
}

#[test]
fn a_failed_invocation_is_told_of_by_an_object_with_its_inputs() {
    let mut world = World::new(spec());
    let call = world.put("jobs", Some("a"));
    let work = world.running("work");
    let failed = world.opened(work).clone();
    fail(&mut world, work);
    assert_eq!(world.stats().error_events_total, 1, "it is told of");
    let handle = world.running("handle");
    let seen = world.opened(handle).inputs.clone();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].key_text(), format!("~{}", failed.invocation));
    assert_eq!(seen[0].group, b"work");
    assert_eq!(seen[0].session, call.session.0);
    assert_eq!((seen[0].bucket, seen[0].size_bytes), (1, FAILURE_BYTES));
    assert_eq!(seen[0].attached, 1);
    assert_eq!(world.attached_by(handle, 0, 1), failed.inputs);
    world.done(handle);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn the_node_is_told_what_has_failed_and_how() {
    let mut world = World::new(spec());
    world.writes_failures = false;
    for how in 0..3 {
        let call = world.put("jobs", Some("a"));
        let work = world.running("work");
        let invocation = world.opened(work).invocation;
        match how {
            0 => fail(&mut world, work),
            1 => world.die(work, Death::Signaled(11)),
            _ => world.complete(work, -2, Ending::NotLoaded, "no such file"),
        }
        let (app, _, failure) = world.sink.unwritten[0].clone();
        assert_eq!((app, failure.function), (APP, Some(0)));
        assert_eq!((failure.invocation, failure.attempt), (invocation, 1));
        match (how, failure.cause) {
            (0, Cause::Returned { status: 7, message }) if message == "no" => {}
            (1, Cause::Died(Death::Signaled(11), _)) => {}
            (2, Cause::NotLoaded(_)) => {}
            other => panic!("{other:?}"),
        }
        world.write_failures();
        world.run("handle");
        assert_eq!(world.ended(call).outcome, End::Completed);
    }
    world.assert_empty();
}

#[test]
fn only_the_last_attempt_is_told_of_and_once() {
    let mut spec = spec();
    spec.functions[0].attempts = 3;
    let mut world = World::new(spec);
    let call = world.put("jobs", Some("a"));
    for attempt in 1..=3 {
        assert!(world.all_running("handle").is_empty());
        let work = world.running("work");
        assert_eq!(world.opened(work).attempt, attempt);
        fail(&mut world, work);
        world.pass(1_000 * MS);
    }
    world.run("handle");
    assert_eq!(world.ended(call).outcome, End::Completed);
    assert_eq!(world.stats().error_events_total, 1);
    world.assert_empty();
}

#[test]
fn the_session_is_open_and_the_inputs_are_held_while_the_failure_is_written() {
    let mut world = World::new(spec());
    world.writes_failures = false;
    let call = world.put("jobs", Some("a"));
    let work = world.running("work");
    fail(&mut world, work);
    world.pass(1_000 * MS);
    assert!(world.is_open(call));
    assert_eq!(world.stats().objects_live, 1, "the input");
    world.write_failures();
    assert_eq!(world.stats().objects_live, 2, "and what tells of it");
    world.run("handle");
    assert!(!world.is_open(call));
    world.assert_empty();
}

#[test]
fn a_barrier_waits_for_a_failure_that_can_lead_to_what_it_waits_for() {
    let mut spec = spec();
    let kind = group(GroupClose::After(1));
    spec.functions[0].sends = Some(vec![2]);
    spec.functions[1].sends = Some(vec![2]);
    spec.functions[2].sends = Some(vec![]);
    spec.buckets[2].triggers = vec![trigger("after", kind, &[2])];
    let mut world = World::new(spec);
    world.writes_failures = false;
    let call = world.put("jobs", Some("a"));
    let work = world.running("work");
    world.put_by(work, "again", "x");
    fail(&mut world, work);
    assert!(world.all_running("split").is_empty(), "`handle` is to come");
    world.write_failures();
    let handle = world.running("handle");
    world.put_by(handle, "again", "y");
    assert!(world.all_running("split").is_empty());
    world.done(handle);
    let split = world.running("split");
    assert_eq!(world.keys(split), ["x", "y"]);
    world.done(split);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn what_is_written_for_a_session_that_has_ended_goes_back() {
    let mut world = World::new(spec());
    world.writes_failures = false;
    let call = world.put("jobs", Some("a"));
    let work = world.running("work");
    fail(&mut world, work);
    world.cancel(call);
    world.drop_letters(None);
    assert_eq!(world.stats().objects_live, 0);
    let other = world.put("jobs", Some("b"));
    let work = world.running("work");
    fail(&mut world, work);
    // The first is written last: its ticket is of nobody, whoever uses its slot now.
    world.sink.unwritten.rotate_left(1);
    world.write_failures();
    world.run("handle");
    assert_eq!(world.ended(other).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_failure_that_cannot_be_written_fails_its_session_and_says_why() {
    let mut world = World::new(spec());
    world.writes_failures = false;
    let call = world.put("jobs", Some("a"));
    let work = world.running("work");
    fail(&mut world, work);
    let (app, ticket, _) = world.sink.unwritten.pop_front().expect("one");
    let refusal = Event::FailureNotWritten {
        app,
        ticket,
        reason: "the disk is made of cheese",
    };
    world.event(refusal);
    let failure = world.ended(call).failure();
    let Cause::Limit(why) = &failure.cause else {
        panic!("{failure:?}");
    };
    for part in ["`failed`", "it returned 7: no", "made of cheese"] {
        assert!(why.contains(part), "{why}");
    }
    assert_eq!((failure.function, failure.attempt), (Some(0), 1));
    world.assert_empty();
}

#[test]
fn a_failure_past_the_limit_on_objects_fails_its_session() {
    let mut spec = spec();
    spec.limits.objects = 3;
    let mut world = World::new(spec);
    world.writes_failures = false;
    let call = world.put("jobs", Some("a"));
    let work = world.running("work");
    fail(&mut world, work);
    for key in ["b", "c"] {
        world.put("jobs", Some(key));
    }
    world.write_failures();
    let Cause::Limit(why) = &world.ended(call).failure().cause else {
        panic!("a limit was passed");
    };
    assert!(why.contains("limits.objects"), "{why}");
    for work in world.all_running("work") {
        world.done(work);
    }
    world.assert_empty();
}

#[test]
fn nobody_else_can_send_its_key_and_it_is_found_by_it() {
    let mut spec = spec();
    spec.buckets[1].keep = Keep::Session;
    spec.buckets[1].triggers = vec![by_pattern("~*", &[1])];
    let mut world = World::new(spec);
    let call = world.put("jobs", Some("a"));
    let work = world.running("work");
    let key = format!("~{}", world.opened(work).invocation);
    fail(&mut world, work);
    let handle = world.running("handle");
    let found = world.get_by(handle, "failed", &key).expect("it is kept");
    assert_eq!(found, world.opened(handle).inputs[0]);
    assert_eq!(world.get_by(handle, "failed", "~1x"), Err(-2));
    // By its number among what is held: the inputs, then what was found.
    assert_eq!(world.attached_by(handle, 1, 1).len(), 1);
    world.publish(handle, Target::Bucket(1), Key::Named(key.as_bytes()), 8);
    assert_eq!(world.stats().faults_total, 1, "it begins with `~`");
    assert!(!world.is_open(call));
    world.assert_empty();
}

#[test]
fn what_is_attached_can_be_forwarded_and_answered_with() {
    let mut world = World::new(spec());
    let call = world.call("split");
    let split = world.running("split");
    world.put_by(split, "jobs", "a");
    world.done(split);
    let work = world.running("work");
    fail(&mut world, work);
    let handle = world.running("handle");
    let attached = world.attached_by(handle, 0, 1);
    // The input is number 0, what is attached to it number 1.
    world.forward_by(handle, 1, Target::Bucket(2), Key::Named(b"x"));
    let found = world.get_by(handle, "again", "x").expect("it is there");
    assert_eq!(found.part(), attached[0].part());
    world.say(
        handle,
        FromExecutor::RespondParts {
            more: false,
            http_status: 200,
            content_type: b"",
            objects: &1u32.to_le_bytes(),
        },
    );
    world.done(handle);
    assert_eq!(world.ended(call).outcome, End::Responded);
    let response = &world.sink.responses[&call.session];
    assert_eq!(response.parts, [attached[0].part()]);
    world.take_response(call);
    world.assert_empty();
}

#[test]
fn a_forwarded_failure_keeps_what_is_attached() {
    let mut spec = spec();
    spec.buckets[2].triggers = vec![immediate(&[2])];
    let mut world = World::new(spec);
    let call = world.put("jobs", Some("a"));
    let work = world.running("work");
    let input = world.opened(work).inputs.clone();
    fail(&mut world, work);
    let handle = world.running("handle");
    world.forward_by(handle, 0, Target::Bucket(2), Key::Auto(0));
    world.done(handle);
    let split = world.running("split");
    assert_eq!(world.opened(split).inputs[0].attached, 1);
    assert_eq!(world.attached_by(split, 0, 1), input);
    world.done(split);
    assert!(!world.is_open(call));
    world.assert_empty();
}

/// A spec whose `work` takes all objects of `jobs` at once.
fn batches(count: u32) -> AppSpec {
    let mut spec = spec();
    let kind = batch(count, None);
    spec.buckets[0].triggers = vec![TriggerSpec {
        at_end: AtEnd::Fire,
        ..trigger("batch", kind, &[0])
    }];
    spec
}

fn fail_with_inputs(world: &mut World, count: u32) -> ExecutorId {
    world.call("split");
    let split = world.running("split");
    for number in 0..count {
        world.put_by(split, "jobs", &number.to_string());
    }
    let work = world.running("work");
    fail(world, work);
    world.done(split);
    world.running("handle")
}

#[test]
fn many_attached_objects_come_in_order_and_a_few_at_a_time() {
    let mut world = World::new(batches(250));
    let handle = fail_with_inputs(&mut world, 250);
    let attached = world.attached_by(handle, 0, 250);
    let keys: Vec<String> = attached.iter().map(Seen::key_text).collect();
    let expected: Vec<String> = (0..250).map(|number: u32| number.to_string()).collect();
    assert_eq!(keys, expected);
    // Each joins what is held as it comes: the input first, then these.
    world.forward_by(handle, 250, Target::Bucket(2), Key::Named(b"last"));
    let last = world.get_by(handle, "again", "last").expect("forwarded");
    assert_eq!(last.part(), attached[249].part());
    world.done(handle);
    world.assert_empty();
}

#[test]
fn no_more_is_given_than_an_invocation_may_hold() {
    let mut spec = batches(3);
    spec.limits.inputs = 3;
    let mut world = World::new(spec);
    let handle = fail_with_inputs(&mut world, 3);
    assert_eq!(world.attached_by(handle, 0, 3).len(), 3);
    assert_eq!(world.attached_by(handle, 0, 3).len(), 2, "6 in all");
    world.done(handle);
    world.assert_empty();
}

#[test]
fn what_is_not_attached_cannot_be_asked_for() {
    for (object, first) in [(0, 1), (1, 0), (u32::MAX, 0)] {
        let mut world = World::new(spec());
        world.put("jobs", Some("a"));
        let work = world.running("work");
        fail(&mut world, work);
        let handle = world.running("handle");
        world.say(handle, FromExecutor::FetchAttached { object, first });
        assert_eq!(world.stats().faults_total, 1);
        world.assert_empty();
    }
}

#[test]
fn a_failed_call_has_its_request_attached() {
    let mut world = World::new(spec());
    let call = world.call("work");
    let work = world.running("work");
    fail(&mut world, work);
    let handle = world.running("handle");
    let attached = world.attached_by(handle, 0, 1);
    assert_eq!(attached[0].bucket, NO_BUCKET);
    assert_eq!(attached[0].key, OwnedKey::Named(b"request".to_vec()));
    world.respond_by(handle);
    world.done(handle);
    assert_eq!(world.ended(call).outcome, End::Responded);
    world.take_response(call);
    world.assert_empty();
}

#[test]
fn a_handler_that_fails_again_and_again_leaves_a_chain_that_ends_with_its_session() {
    let mut spec = spec();
    spec.functions[1].on_failure = OnFailure::Bucket(1);
    let mut world = World::new(spec);
    let call = world.put("jobs", Some("a"));
    let work = world.running("work");
    fail(&mut world, work);
    for _ in 0..20_000 {
        let handle = world.running("handle");
        fail(&mut world, handle);
    }
    let handle = world.running("handle");
    // Each holds the one before it.
    assert_eq!(world.stats().objects_live, 20_002);
    world.done(handle);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn sources_of_the_failed_close_once_the_failure_is_there() {
    let mut spec = spec();
    let kind = group(GroupClose::Sources(1));
    spec.functions[0].sends = Some(vec![1]);
    spec.buckets[1].triggers = vec![trigger("sources", kind, &[1])];
    let mut world = World::new(spec);
    let call = world.put("jobs", Some("a"));
    let work = world.running("work");
    let key = format!("~{}", world.opened(work).invocation);
    world.put_by(work, "failed", "half");
    fail(&mut world, work);
    // One group for what has none, one for the function's name.
    let handles = world.all_running("handle");
    let mut keys: Vec<_> = handles.iter().map(|&id| world.keys(id)).collect();
    keys.sort();
    assert_eq!(keys, [vec!["half".to_owned()], vec![key]]);
    for handle in handles {
        world.done(handle);
    }
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_failure_of_a_removed_app_is_written_for_nobody() {
    let mut world = World::new(spec());
    world.writes_failures = false;
    world.put("jobs", Some("a"));
    let work = world.running("work");
    fail(&mut world, work);
    world.event(Event::Remove { app: APP });
    assert_eq!(world.sink.removed, [APP]);
    world.write_failures();
    assert_eq!(world.core.totals().objects, 0);
}

/// The key as it goes over the wire: text, like a name.
#[test]
fn its_key_is_text() {
    let mut world = World::new(spec());
    world.put("jobs", Some("a"));
    let work = world.running("work");
    let invocation = world.opened(work).invocation;
    fail(&mut world, work);
    let handle = world.running("handle");
    let text = format!("~{invocation}");
    let expected = InputKey::Named(text.as_bytes());
    let OwnedKey::Named(key) = &world.opened(handle).inputs[0].key else {
        panic!("it is a number");
    };
    assert_eq!(InputKey::Named(key), expected);
    world.done(handle);
    world.assert_empty();
}
