//! A session is open while it has something to do, and ends in exactly one of five ways, told at
//! once.

use pheromone_core::event::{
    Cause, Death, Destination, Event, Refusal, Request, RequestId, SessionId,
};
use pheromone_core::spec::{AppSpec, AtEnd, Entry, Keep};
use pheromone_shm::message::{Ending, FromExecutor};

use crate::common::app::{app, bucket, by_set, immediate};
use crate::common::{APP, CONFIG, End, World};

const F: u16 = 1;

fn two() -> AppSpec {
    let mut spec = app(&["source", "f"]);
    spec.functions[0].next = vec![F];
    spec.buckets = vec![bucket("b", Keep::Session, vec![])];
    spec
}

fn with_set(at_end: AtEnd) -> AppSpec {
    let mut spec = two();
    let mut set = by_set(&["x", "y", "z"], &[F]);
    set.at_end = at_end;
    spec.buckets[0].triggers.push(set);
    spec
}

#[test]
fn a_session_that_answers_ends_responded_when_it_is_quiet() {
    let mut world = World::new(two());
    let call = world.call("source");
    let source = world.running("source");
    world.respond_by(source);
    assert!(world.sink.responses.contains_key(&call.session));
    world.next_by(source);
    world.done(source);
    assert!(world.is_open(call), "a response does not end a session");
    world.run("f");
    assert_eq!(world.ended(call).outcome, End::Responded);
    world.take_response(call);
    world.assert_empty();
}

#[test]
fn a_session_without_a_response_ends_completed() {
    let mut world = World::new(two());
    let call = world.call("source");
    world.run("source");
    assert_eq!(world.ended(call).outcome, End::Completed);
    assert_eq!(world.ended(call).request, call.request);
    world.assert_empty();
}

#[test]
fn a_required_response_that_is_missing_is_a_failure() {
    let mut spec = two();
    spec.response_required = true;
    let mut world = World::new(spec);
    let call = world.call("source");
    world.run("source");
    assert_eq!(world.ended(call).failure().cause, Cause::NoResponse);
    let put = world.put("b", Some("k"));
    assert_eq!(
        world.ended(put).outcome,
        End::Completed,
        "nobody waits for it"
    );
    world.assert_empty();
}

#[test]
fn a_function_that_returns_an_error_fails_its_session_at_once() {
    let mut world = World::new(two());
    let call = world.call("source");
    let source = world.running("source");
    world.next_by(source);
    let f = world.running("f");
    let invocation = world.opened(f).invocation;
    world.complete(f, 7, Ending::Returned, "no luck");
    let failure = world.ended(call).failure().clone();
    assert_eq!(failure.function, Some(F));
    assert_eq!((failure.invocation, failure.attempt), (invocation, 1));
    assert_eq!(failure.executor, Some(f));
    let cause = Cause::Returned {
        status: 7,
        message: "no luck".into(),
    };
    assert_eq!(failure.cause, cause);
    assert!(world.opened(source).cancelled, "what runs is cancelled");
    world.done(source);
    world.assert_empty();
}

#[test]
fn a_failure_drops_what_is_queued() {
    let mut spec = two();
    spec.executors.min = 1;
    spec.executors.max = 1;
    let mut world = World::new(spec);
    let call = world.call("source");
    let source = world.running("source");
    for _ in 0..5 {
        world.next_by(source);
    }
    assert_eq!(world.stats().queued, 5);
    world.complete(source, -22, Ending::Returned, "");
    assert!(matches!(world.ended(call).outcome, End::Failed(_)));
    assert_eq!(world.stats().queued, 0);
    world.assert_empty();
}

#[test]
fn a_failure_after_the_response_is_told_with_answered() {
    let mut world = World::new(two());
    let call = world.call("source");
    let source = world.running("source");
    world.respond_by(source);
    world.complete(source, 3, Ending::Returned, "");
    assert!(world.ended(call).answered);
    assert!(matches!(world.ended(call).outcome, End::Failed(_)));
    world.drop_letters(None);
    assert_eq!(
        world.core.totals().objects,
        1,
        "the response can still be read"
    );
    world.take_response(call);
    world.assert_empty();
}

#[test]
fn a_deadline_ends_the_session_timed_out() {
    let mut spec = two();
    spec.session_timeout_ns = Some(5_000_000);
    let mut world = World::new(spec);
    let call = world.call("source");
    let source = world.running("source");
    assert_eq!(world.opened(source).deadline_ns, world.now_ns + 5_000_000);
    world.pass(4_999_999);
    assert!(world.is_open(call));
    world.pass(1);
    assert_eq!(world.ended(call).outcome, End::TimedOut);
    assert!(world.opened(source).cancelled);
    world.done(source);
    world.assert_empty();
}

#[test]
fn a_call_may_shorten_the_deadline_and_not_lengthen_it() {
    let mut spec = two();
    spec.session_timeout_ns = Some(5_000_000);
    let mut world = World::new(spec);
    for (asked_ns, is_ns) in [(1_000_000, 1_000_000), (9_000_000, 5_000_000)] {
        let draft = world.draft(APP, Destination::Function(0));
        world.send(Request {
            has_caller: true,
            timeout_ns: Some(asked_ns),
            ..draft
        });
        let source = world.running("source");
        assert_eq!(world.opened(source).deadline_ns, world.now_ns + is_ns);
        world.done(source);
    }
    world.assert_empty();
}

#[test]
fn cancelling_drops_what_is_queued_and_cancels_what_runs() {
    let mut world = World::new(two());
    let call = world.call("source");
    let source = world.running("source");
    world.next_by(source);
    world.next_by(source);
    world.cancel(call);
    assert_eq!(world.ended(call).outcome, End::Cancelled);
    let f = world.running("f");
    assert!(world.opened(source).cancelled && world.opened(f).cancelled);
    assert_eq!(world.stats().queued, 0);
    // What they say still is heard and changes nothing; their memory comes back.
    world.next_by(source);
    world.put_by(source, "b", "k");
    world.respond_by(source);
    assert_eq!(world.get_by(source, "b", "k"), Err(-125));
    assert_eq!(world.stats().queued + world.stats().error_events_total, 0);
    world.done(source);
    world.complete(f, 5, Ending::Returned, "cancelled");
    world.cancel(call);
    world.assert_empty();
}

#[test]
fn what_does_not_stop_within_the_grace_is_killed_and_that_is_no_failure() {
    let mut world = World::new(two());
    let call = world.call("source");
    world.cancel(call);
    let grace_ns = 100_000_000;
    world.automatic = false;
    world.pass(grace_ns - 1);
    assert!(world.sink.kills.is_empty());
    world.pass(1);
    assert_eq!(world.sink.kills.len(), 1);
    world.automatic = true;
    world.processes();
    assert_eq!(world.stats().faults_total, 0);
    assert_eq!(world.stats().executors_idle, 2, "it has been replaced");
    world.assert_empty();
}

#[test]
fn a_set_that_waits_when_nothing_can_come_fails_its_session_naming_what_it_waits_for() {
    let mut world = World::new(with_set(AtEnd::Fail));
    let call = world.call("source");
    let source = world.running("source");
    world.put_by(source, "b", "y");
    world.done(source);
    let Cause::Waiting(text) = &world.ended(call).failure().cause else {
        panic!("it waits");
    };
    assert_eq!(
        text,
        "waiting for: trigger `set-x-y-z` of bucket `b` has 1 of its 3 keys; missing: `x`, `z`"
    );
    world.assert_empty();
}

#[test]
fn a_set_of_which_no_key_has_come_is_not_pending() {
    let mut world = World::new(with_set(AtEnd::Fail));
    let call = world.call("source");
    world.run("source");
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_set_with_at_end_drop_is_dropped_and_counted() {
    let mut world = World::new(with_set(AtEnd::Drop));
    let call = world.call("source");
    let source = world.running("source");
    world.put_by(source, "b", "y");
    world.done(source);
    assert_eq!(world.ended(call).outcome, End::Completed);
    assert_eq!(world.stats().dropped_total, 1);
    world.assert_empty();
}

#[test]
fn where_the_caller_has_been_answered_at_end_fail_acts_as_drop() {
    let mut world = World::new(with_set(AtEnd::Fail));
    let call = world.call("source");
    let source = world.running("source");
    world.put_by(source, "b", "y");
    world.respond_by(source);
    world.done(source);
    assert_eq!(world.ended(call).outcome, End::Responded);
    assert_eq!(world.stats().dropped_total, 1);
    world.take_response(call);
    world.assert_empty();
}

#[test]
fn every_fire_is_settled_before_any_fail_and_settling_repeats() {
    let mut spec = two();
    spec.functions[1].sends = Some(vec![0]);
    let mut fails = by_set(&["p", "q"], &[F]);
    fails.at_end = AtEnd::Fail;
    let mut fires = by_set(&["x", "y"], &[F]);
    fires.at_end = AtEnd::Fire;
    spec.buckets[0].triggers = vec![fails, fires];
    let mut world = World::new(spec);
    let call = world.call("source");
    let source = world.running("source");
    world.put_by(source, "b", "p");
    world.put_by(source, "b", "x");
    world.done(source);
    // The second fires first; what it publishes completes the first.
    let f = world.running("f");
    assert_eq!(world.keys(f), ["x"]);
    world.put_by(f, "b", "q");
    world.done(f);
    let f = world.running("f");
    assert_eq!(world.keys(f), ["p", "q"]);
    world.done(f);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_put_opens_a_session_of_its_own() {
    let mut spec = two();
    spec.buckets[0].triggers.push(immediate(&[F]));
    let mut world = World::new(spec);
    let put = world.put("b", Some("k"));
    let f = world.running("f");
    assert!(!world.opened(f).has_caller);
    assert_eq!(world.keys(f), ["k"]);
    assert!(world.is_open(put));
    world.respond_by(f);
    assert!(world.sink.responses.is_empty());
    assert!(world.sink.error_events[0].1.contains("without a caller"));
    world.done(f);
    assert_eq!(world.ended(put).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_put_into_a_bucket_that_nobody_watches_ends_at_once() {
    let mut world = World::new(two());
    let put = world.put("b", None);
    assert_eq!(world.ended(put).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_put_joins_an_open_session_and_is_refused_by_an_ended_one() {
    let mut world = World::new(with_set(AtEnd::Fail));
    let call = world.call("source");
    let source = world.running("source");
    world.put_by(source, "b", "x");
    let join = |world: &mut World, key: &str, has_caller| {
        let destination = Destination::Bucket {
            bucket: 0,
            key: Some(key.as_bytes()),
            group: b"",
        };
        let draft = world.draft(APP, destination);
        let request = world.send(Request {
            session: Some(call.session),
            has_caller,
            ..draft
        });
        world.answer_of(request)
    };
    assert_eq!(join(&mut world, "x", false).unwrap_err(), Refusal::Exists);
    assert_eq!(join(&mut world, "y", true).unwrap_err(), Refusal::Malformed);
    assert_eq!(join(&mut world, "y", false).unwrap().session, call.session);
    assert_eq!(join(&mut world, "z", false).unwrap().session, call.session);
    assert_eq!(world.keys(world.running("f")), ["x", "y", "z"]);
    world.run("f");
    world.done(source);
    assert_eq!(
        join(&mut world, "w", false).unwrap_err(),
        Refusal::SessionEnded
    );
    world.assert_empty();
}

#[test]
fn the_entry_is_a_function_or_a_bucket() {
    let mut spec = two();
    let mut world = World::new(spec.clone());
    let request = world.request(Destination::Entry, true);
    assert_eq!(world.answer_of(request).unwrap_err(), Refusal::NoEntry);
    spec.entry = Some(Entry::Function(0));
    let mut world = World::new(spec.clone());
    world.request(Destination::Entry, true);
    let source = world.running("source");
    assert_eq!(world.keys(source), ["request"]);
    assert!(world.opened(source).has_caller);
    spec.entry = Some(Entry::Bucket(0));
    spec.buckets[0].triggers.push(immediate(&[F]));
    let mut world = World::new(spec);
    let request = world.request(Destination::Entry, true);
    let call = world.answer_of(request).unwrap();
    let f = world.running("f");
    assert!(world.keys(f)[0].starts_with('~'));
    world.respond_by(f);
    world.done(f);
    assert_eq!(world.ended(call).outcome, End::Responded);
    world.take_response(call);
    world.assert_empty();
}

#[test]
fn requests_that_name_nothing_there_are_refused() {
    let mut world = World::new(two());
    for (destination, refusal) in [
        (Destination::Function(9), Refusal::Malformed),
        (bucket_with(9, Some(b"k"), b""), Refusal::Malformed),
        (bucket_with(0, Some(b""), b""), Refusal::Malformed),
        (bucket_with(0, Some(b"~1.0"), b""), Refusal::Malformed),
        (bucket_with(0, Some(b"a\0b"), b""), Refusal::Malformed),
        (bucket_with(0, Some(&[b'k'; 256]), b""), Refusal::Malformed),
        (bucket_with(0, Some(b"k"), &[b'g'; 256]), Refusal::Malformed),
        (bucket_with(0, Some(b"k"), b"\0"), Refusal::Malformed),
    ] {
        let request = world.request(destination, true);
        assert_eq!(world.answer_of(request).unwrap_err(), refusal);
    }
    assert_eq!(world.stats().refused_total, 8);
    assert_eq!(world.stats().sessions_total, 0);
    world.assert_empty();
}

fn bucket_with<'a>(bucket: u16, key: Option<&'a [u8]>, group: &'a [u8]) -> Destination<'a> {
    Destination::Bucket { bucket, key, group }
}

#[test]
fn the_client_is_always_told() {
    // Whatever becomes of the function: an error, a crash, a missing library, a failed PHR_INIT.
    type Fate = fn(&mut World, pheromone_core::event::ExecutorId);
    type Told = fn(&Cause) -> bool;
    let fates: [(Fate, Told); 5] = [
        (
            |world, id| world.complete(id, 1, Ending::Returned, ""),
            |cause| matches!(cause, Cause::Returned { status: 1, .. }),
        ),
        (
            |world, id| world.die(id, Death::Signaled(11)),
            |cause| matches!(cause, Cause::Died(Death::Signaled(11), _)),
        ),
        (
            |world, id| world.die(id, Death::Exited(0)),
            |cause| matches!(cause, Cause::Died(Death::Exited(0), _)),
        ),
        (
            |world, id| world.complete(id, -2, Ending::NotLoaded, "no such file"),
            |cause| matches!(cause, Cause::NotLoaded(text) if text == "no such file"),
        ),
        (
            |world, id| world.complete(id, 4, Ending::InitFailed, "no model"),
            |cause| matches!(cause, Cause::InitFailed(text) if text == "no model"),
        ),
    ];
    for (fate, is_told) in fates {
        let mut world = World::new(two());
        let call = world.call("source");
        let source = world.running("source");
        fate(&mut world, source);
        assert!(is_told(&world.ended(call).failure().cause));
        world.assert_empty();
    }
}

#[test]
fn only_the_first_response_counts() {
    let mut world = World::new(two());
    let call = world.call("source");
    let source = world.running("source");
    world.next_by(source);
    world.respond_by(source);
    let f = world.running("f");
    world.respond_by(f);
    assert_eq!(world.sink.error_events.len(), 1);
    assert!(
        world.sink.error_events[0]
            .1
            .contains("had been answered before")
    );
    world.done(source);
    world.done(f);
    world.take_response(call);
    world.take_response(call);
    world.assert_empty();
}

#[test]
fn a_response_may_be_taken_before_or_after_the_end_and_by_its_own_request_alone() {
    let mut world = World::new(two());
    let call = world.call("source");
    let source = world.running("source");
    world.respond_by(source);
    world.event(Event::ResponseTaken {
        request: RequestId(77),
        session: call.session,
    });
    world.event(Event::ResponseTaken {
        request: call.request,
        session: SessionId(call.session.0 + 1),
    });
    assert_eq!(world.stats().objects_live, 2);
    world.take_response(call);
    assert_eq!(world.stats().objects_live, 1);
    world.done(source);
    assert_eq!(world.ended(call).outcome, End::Responded);
    world.assert_empty();
}

#[test]
fn a_response_of_parts_names_payloads_in_their_order_over_several_messages() {
    let mut spec = two();
    spec.buckets[0]
        .triggers
        .push(by_set(&["a", "b", "c"], &[F]));
    let mut world = World::new(spec);
    let call = world.call("source");
    let source = world.running("source");
    for key in ["a", "b", "c"] {
        world.put_by(source, "b", key);
    }
    world.done(source);
    let f = world.running("f");
    let inputs = world.opened(f).inputs.clone();
    let parts = |world: &mut World, more, objects: &[u32]| {
        let objects: Vec<u8> = objects.iter().flat_map(|o| o.to_le_bytes()).collect();
        world.say(
            f,
            FromExecutor::RespondParts {
                more,
                http_status: 201,
                content_type: b"text/plain",
                objects: &objects,
            },
        );
    };
    parts(&mut world, true, &[2, 0]);
    assert!(world.sink.responses.is_empty());
    parts(&mut world, false, &[1, 2]);
    let response = &world.sink.responses[&call.session];
    let expected = [2, 0, 1, 2].map(|at: usize| inputs[at].part());
    assert_eq!(response.parts, expected);
    assert_eq!(response.http_status, 201);
    assert_eq!(response.content_type, b"text/plain");
    world.done(f);
    assert!(!world.is_open(call));
    world.take_response(call);
    world.assert_empty();
}

#[test]
fn limits_on_sessions_and_waiting_calls_push_back_at_the_edge() {
    let mut spec = two();
    spec.executors.min = 1;
    spec.executors.max = 1;
    spec.limits.sessions = 4;
    spec.limits.calls_waiting = 2;
    let mut world = World::new(spec);
    let calls = [
        world.call("source"),
        world.call("source"),
        world.call("source"),
    ];
    assert_eq!(world.try_call("source").unwrap_err(), Refusal::CallsWaiting);
    world.run("source");
    assert!(!world.is_open(calls[0]));
    world.call("source");
    world.run("source");
    world.call("source");
    world.run("source");
    world.call("source");
    assert_eq!(world.stats().sessions_open, 3);
    world.cancel(calls[0]);
    for _ in 0..3 {
        world.run("source");
    }
    let mut spec = two();
    spec.limits.sessions = 2;
    let mut world = World::new(spec);
    world.call("source");
    world.call("source");
    assert_eq!(world.try_call("source").unwrap_err(), Refusal::Sessions);
    world.run("source");
    world.run("source");
    world.assert_empty();
}

#[test]
fn session_ids_are_never_zero_never_repeat_and_carry_the_scheduler() {
    let mut config = CONFIG;
    config.scheduler_index = 3;
    config.schedulers = 4;
    let mut spec = two();
    spec.executors.max = 4;
    let mut world = World::with_config(spec, config);
    let mut seen = std::collections::HashSet::new();
    for _ in 0..1000 {
        let call = world.call("source");
        let source = world.running("source");
        assert_eq!(call.session.0 >> 56, 3);
        assert_eq!(world.opened(source).invocation >> 56, 3);
        assert!(seen.insert(call.session));
        world.done(source);
    }
    world.assert_empty();
}
