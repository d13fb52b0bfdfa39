//! Triggers that gather across sessions: which session their firings open, who waits for whom, and
//! how each contributor is answered.

use pheromone_core::event::{Cause, Destination, Event, ExecutorId, SessionId};
use pheromone_core::spec::{AppSpec, Entry, Keep, TriggerKind, TriggerSpec};
use pheromone_shm::message::{Ending, FromExecutor};

use crate::common::app::{across, app, batch, bucket, immediate, rounds};
use crate::common::{APP, Call, End, MS, World};

fn windows(window_ns: u64, slide_ns: u64, fire_empty: bool) -> TriggerKind {
    TriggerKind::ByTime {
        window_ns,
        slide_ns,
        fire_empty,
        per_group: false,
    }
}

/// Calls go into `queue`; its trigger starts `gather`, whose objects in `stage` go to `next`.
fn spec(first: TriggerSpec, second: TriggerSpec) -> AppSpec {
    let mut spec = app(&["gather", "next", "source"]);
    spec.executors.max = 8;
    spec.executors.min = 8;
    spec.entry = Some(Entry::Bucket(0));
    spec.buckets = vec![
        bucket("queue", Keep::Session, vec![first]),
        bucket("stage", Keep::UntilConsumed, vec![second]),
    ];
    spec
}

fn of(kind: TriggerKind) -> AppSpec {
    spec(across("t", kind, &[0]), immediate(&[1]))
}

fn world(kind: TriggerKind) -> World {
    World::new(of(kind))
}

/// A call whose body goes into `queue`.
fn submit(world: &mut World) -> Call {
    let request = world.request(Destination::Entry, true);
    world.answer_of(request).expect("it is let in")
}

/// A put into `queue` that nobody waits for.
fn drop_in(world: &mut World, group: &[u8]) -> Call {
    let destination = Destination::Bucket {
        bucket: 0,
        key: None,
        group,
    };
    let request = world.request(destination, false);
    world.answer_of(request).expect("it is let in")
}

fn fire(world: &mut World, id: ExecutorId) {
    world.auto_by(id, "stage");
}

#[test]
fn a_firing_opens_a_session_of_its_own_whose_parents_are_those_of_its_inputs() {
    let mut world = world(batch(2, None));
    let (a, b) = (submit(&mut world), submit(&mut world));
    let gather = world.running("gather");
    let own = SessionId(world.opened(gather).session);
    assert!(own != a.session && own != b.session);
    assert_eq!(world.contributors(gather), [a.session, b.session]);
    for (number, expected) in [(0, a.session.0), (1, b.session.0), (2, 0)] {
        world.say(gather, FromExecutor::Parent { number });
        assert_eq!(world.executor(gather).take_parent(), Some((2, expected)));
    }
    assert_eq!(world.opened(gather).deadline_ns, u64::MAX);
    assert!(!world.opened(gather).has_caller);
    world.done(gather);
    assert_eq!(world.sink.ended[&own].outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn all_inputs_of_one_session_still_open_another_one() {
    let mut world = world(batch(2, None));
    let call = world.call("source");
    let source = world.running("source");
    world.put_by(source, "queue", "a");
    world.put_by(source, "queue", "b");
    let gather = world.running("gather");
    assert_ne!(world.opened(gather).session, call.session.0);
    world.say(gather, FromExecutor::Parent { number: 0 });
    let parent = world.executor(gather).take_parent();
    assert_eq!(parent, Some((1, call.session.0)));
    world.done(source);
    assert!(world.is_open(call), "the gathering session holds it");
    world.done(gather);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn each_contributor_is_held_until_it_is_answered_out_of_the_batch() {
    let mut world = world(batch(3, None));
    let calls = [(); 3].map(|()| submit(&mut world));
    let gather = world.running("gather");
    for call in calls {
        assert!(world.is_open(call));
        world.respond_to(gather, call.session);
        assert_eq!(world.ended(call).outcome, End::Responded, "at once");
        world.take_response(call);
    }
    world.done(gather);
    assert_eq!(world.sink.error_events, []);
    world.assert_empty();
}

#[test]
fn a_contributor_waits_while_its_object_is_pending_and_completes_when_it_is_dropped() {
    let mut world = world(rounds(2, 2, Some(5 * MS)));
    let destination = Destination::Bucket {
        bucket: 0,
        key: None,
        group: b"r",
    };
    let request = world.request(destination, true);
    let call = world.answer_of(request).expect("let in");
    world.pass(5 * MS - 1);
    assert!(world.is_open(call));
    world.pass(1);
    assert_eq!(world.ended(call).outcome, End::Completed);
    assert_eq!(world.stats().dropped_total, 1);
    world.assert_empty();
}

#[test]
fn a_put_that_nobody_waits_for_ends_at_once_and_its_object_is_delivered() {
    let mut world = world(batch(2, None));
    let put = drop_in(&mut world, b"");
    assert_eq!(world.ended(put).outcome, End::Completed);
    let call = submit(&mut world);
    let gather = world.running("gather");
    assert_eq!(world.contributors(gather), [put.session, call.session]);
    world.respond_to(gather, put.session);
    assert_eq!(world.stats().answers_dropped_total, 1, "it has ended");
    world.done(gather);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn those_who_wait_fail_with_the_gathering_session() {
    let mut world = world(batch(2, None));
    let (a, b) = (submit(&mut world), submit(&mut world));
    let gather = world.running("gather");
    world.respond_to(gather, a.session);
    world.complete(gather, 9, Ending::Returned, "the disk is on fire");
    assert_eq!(world.ended(a).outcome, End::Responded);
    assert_eq!(world.message_of(b), "the disk is on fire");
    world.take_response(a);
    world.assert_empty();
}

#[test]
fn one_contributor_fails_without_the_others() {
    let mut world = world(batch(2, None));
    let (a, b) = (submit(&mut world), submit(&mut world));
    let gather = world.running("gather");
    world.fail_session(gather, a.session, "not you");
    assert_eq!(world.message_of(a), "not you");
    world.respond_to(gather, b.session);
    world.done(gather);
    assert_eq!(world.ended(b).outcome, End::Responded);
    world.take_response(b);
    world.assert_empty();
}

#[test]
fn a_second_stage_answers_after_the_first_has_ended() {
    let second = across("u", batch(2, None), &[1]);
    let mut world = World::new(spec(across("t", batch(2, None), &[0]), second));
    let calls = [(); 4].map(|()| submit(&mut world));
    for _ in 0..2 {
        let gather = world.running("gather");
        fire(&mut world, gather);
        world.done(gather);
    }
    for call in calls {
        assert!(world.is_open(call), "held from stage to stage");
    }
    let next = world.running("next");
    for call in &calls[..3] {
        world.respond_to(next, call.session);
        assert_eq!(world.ended(*call).outcome, End::Responded);
    }
    world.complete(next, 1, Ending::Returned, "no more");
    assert_eq!(world.message_of(calls[3]), "no more");
    for call in &calls[..3] {
        world.take_response(*call);
    }
    assert_eq!(world.sink.error_events, []);
    world.assert_empty();
}

#[test]
fn a_stage_that_fails_fails_those_who_wait_for_it_while_the_first_still_runs() {
    let second = across("u", batch(1, None), &[1]);
    let mut world = World::new(spec(across("t", batch(1, None), &[0]), second));
    let call = submit(&mut world);
    let gather = world.running("gather");
    fire(&mut world, gather);
    let next = world.running("next");
    world.complete(next, 1, Ending::Returned, "broken");
    assert_eq!(world.message_of(call), "broken");
    world.done(gather);
    world.assert_empty();
}

#[test]
fn a_session_that_nothing_ties_to_an_invocation_is_not_answered_by_it() {
    let mut world = world(batch(1, None));
    let stranger = world.call("source");
    let call = submit(&mut world);
    let gather = world.running("gather");
    world.respond_to(gather, stranger.session);
    let (_, told) = &world.sink.error_events[0];
    assert!(told.contains("neither its own nor"), "{told}");
    world.fail_session(gather, stranger.session, "no");
    assert!(world.is_open(stranger));
    world.done(gather);
    world.run("source");
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_contributor_that_ends_early_withdraws_nothing() {
    let mut world = world(batch(2, None));
    let a = submit(&mut world);
    world.cancel(a);
    let b = submit(&mut world);
    let gather = world.running("gather");
    assert_eq!(world.contributors(gather), [a.session, b.session]);
    world.respond_to(gather, a.session);
    assert_eq!(world.stats().answers_dropped_total, 1);
    world.done(gather);
    world.assert_empty();
}

#[test]
fn with_skip_ended_those_that_ended_early_are_left_out_and_counted() {
    let first = TriggerSpec {
        skip_ended: true,
        ..across("t", batch(3, None), &[0])
    };
    let mut world = World::new(spec(first, immediate(&[1])));
    let a = submit(&mut world);
    let put = drop_in(&mut world, b"");
    world.cancel(a);
    let b = submit(&mut world);
    let gather = world.running("gather");
    // A put that nobody waits for has ended, but not early.
    assert_eq!(world.contributors(gather), [put.session, b.session]);
    assert_eq!(world.stats().dropped_total, 1);
    world.done(gather);
    let c = [(); 3].map(|()| submit(&mut world));
    world.done(world.running("gather"));
    for call in c {
        assert_eq!(world.ended(call).outcome, End::Completed);
    }
    world.assert_empty();
}

#[test]
fn a_batch_lingers_from_its_oldest_object_on_and_across_sessions() {
    let mut world = world(batch(10, Some(5 * MS)));
    let a = submit(&mut world);
    world.pass(3 * MS);
    let b = submit(&mut world);
    world.pass(2 * MS - 1);
    assert!(world.all_running("gather").is_empty());
    world.pass(1);
    let gather = world.running("gather");
    assert_eq!(world.contributors(gather), [a.session, b.session]);
    world.done(gather);
    world.assert_empty();
}

#[test]
fn windows_begin_with_the_deployment_and_an_object_on_a_boundary_is_in_the_later_one() {
    let mut world = world(windows(10 * MS, 10 * MS, false));
    let origin_ns = world.now_ns;
    drop_in(&mut world, b"");
    world.pass(10 * MS - 1);
    assert!(world.all_running("gather").is_empty());
    // What is due fires before what comes.
    world.now_ns += 1;
    drop_in(&mut world, b"");
    let gather = world.running("gather");
    assert_eq!(
        world.opened(gather).window,
        Some((origin_ns, origin_ns + 10 * MS))
    );
    assert_eq!(world.opened(gather).inputs.len(), 1);
    world.done(gather);
    world.pass(10 * MS);
    let gather = world.running("gather");
    assert_eq!(
        world.opened(gather).window,
        Some((origin_ns + 10 * MS, origin_ns + 20 * MS))
    );
    world.done(gather);
    world.assert_empty();
}

#[test]
fn a_sliding_window_has_each_object_in_several_firings_and_frees_it_after_the_last() {
    let mut world = world(windows(30 * MS, 10 * MS, false));
    // The first window begins with the deployment, so an object has its three from here on.
    world.pass(20 * MS);
    let call = submit(&mut world);
    for _ in 0..3 {
        world.pass(10 * MS);
        let gather = world.running("gather");
        assert_eq!(world.contributors(gather), [call.session]);
        assert!(world.is_open(call));
        world.done(gather);
    }
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn an_empty_window_fires_without_inputs_and_without_parents() {
    let mut world = world(windows(10 * MS, 10 * MS, true));
    world.pass(10 * MS);
    let gather = world.running("gather");
    assert!(world.opened(gather).inputs.is_empty());
    world.say(gather, FromExecutor::Parent { number: 0 });
    assert_eq!(world.executor(gather).take_parent(), Some((0, 0)));
    world.done(gather);
    world.assert_empty();
}

#[test]
fn a_round_across_sessions_needs_a_group_and_has_each_its_own() {
    let mut world = world(rounds(2, 3, Some(50 * MS)));
    let call = world.call("source");
    let source = world.running("source");
    world.put_by(source, "queue", "a");
    let (session, told) = &world.sink.error_events[0];
    assert_eq!(*session, call.session);
    assert!(told.contains("`a`") && told.contains("no group"), "{told}");
    world.group_by(source, "queue", "b", "x");
    drop_in(&mut world, b"y");
    let second = drop_in(&mut world, b"x");
    let gather = world.running("gather");
    assert_eq!(world.contributors(gather), [call.session, second.session]);
    world.done(gather);
    drop_in(&mut world, b"x");
    drop_in(&mut world, b"x");
    assert_eq!(world.stats().error_events_total, 2, "past n");
    world.done(source);
    world.pass(50 * MS);
    assert_eq!(
        world.stats().dropped_total,
        2,
        "the straggler and the round of y"
    );
    world.assert_empty();
}

#[test]
fn a_required_response_that_no_batch_gives_is_a_failure() {
    let mut of = of(batch(1, None));
    of.response_required = true;
    let mut world = World::new(of);
    let call = submit(&mut world);
    world.run("gather");
    assert_eq!(world.ended(call).failure().cause, Cause::NoResponse);
    world.assert_empty();
}

#[test]
fn an_answer_of_a_further_attempt_is_the_same_answer() {
    let mut of = of(batch(1, None));
    of.functions[0].attempts = 2;
    let mut world = World::new(of);
    let call = submit(&mut world);
    let gather = world.running("gather");
    world.respond_to(gather, call.session);
    world.complete(gather, 1, Ending::Returned, "after the answer");
    world.pass(100 * MS);
    let gather = world.running("gather");
    world.respond_to(gather, call.session);
    assert_eq!(world.stats().error_events_total, 0);
    world.done(gather);
    assert_eq!(world.ended(call).outcome, End::Responded);
    world.take_response(call);
    world.assert_empty();
}

#[test]
fn a_session_with_a_deadline_is_told_in_time_although_its_batch_is_not_full() {
    let mut of = of(batch(2, None));
    of.session_timeout_ns = Some(20 * MS);
    let mut world = World::new(of);
    let call = submit(&mut world);
    world.pass(20 * MS);
    assert_eq!(world.ended(call).outcome, End::TimedOut);
    drop_in(&mut world, b"");
    let gather = world.running("gather");
    assert_eq!(world.contributors(gather)[0], call.session);
    world.pass(100 * MS);
    assert!(world.opened(gather).deadline_ns == u64::MAX);
    world.done(gather);
    world.assert_empty();
}

#[test]
fn a_version_that_takes_no_more_sessions_flushes_what_alone_keeps_them_open() {
    let mut world = world(batch(10, None));
    let running = world.call("source");
    let call = submit(&mut world);
    world.event(Event::Flush { app: APP });
    assert!(
        world.all_running("gather").is_empty(),
        "a session still runs"
    );
    world.run("source");
    assert_eq!(world.ended(running).outcome, End::Completed);
    world.event(Event::Flush { app: APP });
    let gather = world.running("gather");
    world.respond_to(gather, call.session);
    world.done(gather);
    assert_eq!(world.stats().gathered, 0);
    world.take_response(call);
    world.assert_empty();
}

#[test]
fn of_what_is_flushed_windows_fire_and_rounds_are_dropped_and_counted() {
    let mut window = world(windows(10_000 * MS, 10_000 * MS, false));
    let call = submit(&mut window);
    drop_in(&mut window, b"");
    window.event(Event::Flush { app: APP });
    let gather = window.running("gather");
    assert_eq!(window.contributors(gather)[0], call.session);
    assert_eq!(window.opened(gather).inputs.len(), 2);
    window.respond_to(gather, call.session);
    window.done(gather);
    assert_eq!(window.ended(call).outcome, End::Responded);
    assert_eq!(window.stats().dropped_total, 0);
    window.take_response(call);
    window.pass(20_000 * MS);
    assert!(window.all_running("gather").is_empty(), "it fires once");
    window.assert_empty();

    let mut round = world(rounds(3, 3, Some(10_000 * MS)));
    drop_in(&mut round, b"r");
    let destination = Destination::Bucket {
        bucket: 0,
        key: None,
        group: b"r",
    };
    let request = round.request(destination, true);
    let call = round.answer_of(request).expect("let in");
    round.event(Event::Flush { app: APP });
    assert!(round.all_running("gather").is_empty());
    assert_eq!(round.stats().dropped_total, 2);
    assert_eq!(round.ended(call).outcome, End::Completed);
    round.pass(20_000 * MS);
    round.assert_empty();
}

#[test]
fn an_app_that_is_removed_drops_what_it_has_gathered() {
    let mut world = world(batch(10, Some(5 * MS)));
    let call = submit(&mut world);
    drop_in(&mut world, b"");
    world.event(Event::Remove { app: APP });
    assert_eq!(world.ended(call).outcome, End::Cancelled);
    assert_eq!(world.sink.removed, [APP]);
    assert_eq!(world.core.totals().timers, 0);
    world.assert_empty();
}

#[test]
fn a_response_outlives_the_batch_that_gave_it() {
    let mut world = world(batch(1, None));
    let call = submit(&mut world);
    let gather = world.running("gather");
    world.respond_to(gather, call.session);
    world.done(gather);
    world.event(Event::Remove { app: APP });
    assert_eq!(world.sink.removed, [], "its payload may still be read");
    world.take_response(call);
    assert_eq!(world.sink.removed, [APP]);
    world.assert_empty();
}
