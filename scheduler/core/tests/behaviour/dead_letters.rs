//! Dead letters: who becomes one, what it holds and for how long, and how it runs again.

use pheromone_core::event::{AppId, Cause, DeadLetter, Death, Event, Refusal};
use pheromone_core::limits::{DEAD_LETTERS_MAX, DEAD_LETTERS_PART};
use pheromone_core::spec::{AppSpec, AtEnd, Keep, OnFailure, RerunSpec, TriggerSpec};
use pheromone_shm::message::{Ending, FromExecutor, Key, Target};

use crate::common::app::{across, app, batch, bucket, by_set, immediate, trigger, windows};
use crate::common::cluster::Cluster;
use crate::common::{APP, End, MS, World};

/// What the least object is charged: a unit and the entries in tables.
const OBJECT_BYTES: u64 = 64 + 256;

/// `work` runs for each object of `jobs`, and feeds `then` through `next`.
fn spec() -> AppSpec {
    let mut spec = app(&["work", "then"]);
    spec.functions[0].next = vec![1];
    spec.functions[0].backoff.jitter = 0.0;
    spec.buckets = vec![bucket("jobs", Keep::UntilConsumed, vec![immediate(&[0])])];
    spec
}

/// The letters of the app, the oldest first.
fn letters(world: &World) -> Vec<DeadLetter<'_>> {
    world.core.dead_letters(APP).collect()
}

fn ids(world: &World) -> Vec<u64> {
    letters(world).iter().map(|letter| letter.id).collect()
}

/// What runs of `work` fails for good. Answers with its id.
fn fail(world: &mut World) -> u64 {
    let work = world.running("work");
    let invocation = world.opened(work).invocation;
    world.complete(work, 7, Ending::Returned, "no");
    invocation
}

/// A job that fails.
fn failed_job(world: &mut World, key: &str) -> u64 {
    world.put("jobs", Some(key));
    fail(world)
}

#[test]
fn an_invocation_that_is_out_of_attempts_is_recorded_with_its_inputs_and_its_failure() {
    let mut world = World::new(spec());
    world.pass(5 * MS);
    let call = world.put("jobs", Some("a"));
    let id = fail(&mut world);
    assert_eq!(world.ended(call).failure().invocation, id);
    let died_ns = world.now_ns;
    world.pass(1_000 * MS);
    let letters = letters(&world);
    assert_eq!(letters.len(), 1);
    let letter = letters[0];
    assert_eq!((letter.id, letter.function), (id, 0));
    assert_eq!((letter.session, letter.died_ns), (call.session, died_ns));
    assert_eq!(letter.failure, world.ended(call).failure());
    assert_eq!((letter.input_count, letter.has_inputs), (1, true));
    assert_eq!(letter.held_bytes, OBJECT_BYTES);
    assert_eq!(world.stats().dead_letters_total, 1);
    assert_eq!(world.stats().invocations_total, 1);
}

#[test]
fn every_way_to_be_out_of_attempts_makes_a_letter_with_the_last_attempt() {
    let mut spec = spec();
    spec.functions[0].attempts = 2;
    spec.functions[0].timeout_ns = Some(30 * MS);
    for how in 0..4 {
        let mut world = World::new(spec.clone());
        world.put("jobs", Some("a"));
        for attempt in 1..=2 {
            assert!(letters(&world).is_empty(), "an attempt is left");
            world.load("work");
            let work = world.running("work");
            assert_eq!(world.opened(work).attempt, attempt);
            match how {
                0 => world.complete(work, 7, Ending::Returned, "no"),
                1 => world.die(work, Death::Signaled(11)),
                2 => world.complete(work, -2, Ending::NotLoaded, "no such file"),
                _ => world.pass(30 * MS),
            }
            world.pass(20 * MS);
        }
        let letters = letters(&world);
        assert_eq!(letters.len(), 1, "way {how}");
        assert_eq!(letters[0].failure.attempt, 2);
        match (how, &letters[0].failure.cause) {
            (0, Cause::Returned { status: 7, .. }) => {}
            (1, Cause::Died(Death::Signaled(11), _)) => {}
            (2, Cause::NotLoaded(_)) | (3, Cause::TimedOut(_)) => {}
            other => panic!("{other:?}"),
        }
        world.assert_empty();
    }
}

#[test]
fn a_session_that_goes_on_after_a_failure_has_a_letter_all_the_same() {
    for on_failure in [OnFailure::Continue, OnFailure::Bucket(1)] {
        let mut spec = spec();
        spec.functions[0].on_failure = on_failure;
        spec.buckets
            .push(bucket("failed", Keep::UntilConsumed, vec![]));
        let mut world = World::new(spec);
        let call = world.put("jobs", Some("a"));
        let id = fail(&mut world);
        assert_eq!(world.ended(call).outcome, End::Completed);
        assert_eq!(ids(&world), [id]);
        world.assert_empty();
    }
}

#[test]
fn a_source_that_has_sent_nothing_as_often_as_it_may_run_is_a_letter() {
    let mut spec = spec();
    spec.buckets[0].reruns = Vec::new();
    spec.buckets.push(bucket("out", Keep::Session, vec![]));
    spec.buckets[1].reruns = vec![RerunSpec {
        function: 0,
        timeout_ns: 10 * MS,
        attempts: 2,
        speculative: false,
        optional: false,
    }];
    let mut world = World::new(spec);
    world.put("jobs", Some("a"));
    for _ in 0..2 {
        world.load("work");
        world.run("work");
        world.pass(10 * MS);
    }
    let letters = letters(&world);
    assert_eq!(letters.len(), 1);
    assert!(matches!(letters[0].failure.cause, Cause::NothingSent(_)));
    world.assert_empty();
}

#[test]
fn what_returns_after_its_session_has_ended_has_used_no_attempt_and_makes_no_letter() {
    for ends_by in 0..3 {
        let mut spec = spec();
        spec.session_timeout_ns = (ends_by == 0).then_some(10 * MS);
        let mut world = World::new(spec);
        let call = world.put("jobs", Some("a"));
        world.load("work");
        match ends_by {
            0 => world.pass(10 * MS),
            1 => world.cancel(call),
            // Killed, since it does not stop.
            _ => {
                world.cancel(call);
                world.pass(200 * MS);
            }
        }
        assert!(!world.is_open(call));
        for work in world.all_running("work") {
            world.complete(work, -125, Ending::Returned, "cancelled");
        }
        assert!(world.all_running("work").is_empty());
        assert_eq!(world.stats().dead_letters_total, 0);
        world.assert_empty();
    }
}

#[test]
fn those_who_run_beside_the_one_that_has_failed_are_cancelled_and_no_letters() {
    let mut world = World::new(spec());
    let call = world.put("jobs", Some("a"));
    let work = world.running("work");
    world.next_by(work);
    let then = world.running("then");
    let id = fail(&mut world);
    assert!(!world.is_open(call));
    world.complete(then, 1, Ending::Returned, "");
    assert_eq!(ids(&world), [id]);
    world.assert_empty();
}

#[test]
fn a_letter_holds_its_inputs_until_it_is_dropped_and_the_ledger_counts_them() {
    let mut world = World::new(spec());
    let [first, second] = ["a", "b"].map(|key| failed_job(&mut world, key));
    let stats = world.stats();
    assert_eq!(stats.sessions_open, 0);
    assert_eq!(
        (stats.objects_live, stats.used_bytes),
        (2, 2 * OBJECT_BYTES)
    );
    assert_eq!(
        (stats.dead_letters, stats.dead_letters_bytes),
        (2, 2 * OBJECT_BYTES)
    );
    world.drop_letters(Some(first));
    assert_eq!(ids(&world), [second]);
    assert_eq!(world.stats().used_bytes, OBJECT_BYTES);
    world.drop_letters(Some(first));
    assert_eq!(world.stats().dead_letters_dropped_total, 1, "once");
    world.drop_letters(None);
    let stats = world.stats();
    assert_eq!((stats.objects_live, stats.used_bytes), (0, 0));
    assert_eq!((stats.dead_letters, stats.dead_letters_bytes), (0, 0));
    assert_eq!(stats.dead_letters_dropped_total, 2);
    world.sink.assert_memory_free();
}

#[test]
fn memory_of_an_executor_that_is_gone_is_held_too_and_goes_to_its_successor() {
    let mut spec = spec();
    spec.buckets = vec![bucket("jobs", Keep::UntilConsumed, vec![immediate(&[1])])];
    let mut world = World::new(spec);
    world.call("work");
    let work = world.running("work");
    world.put_by(work, "jobs", "a");
    world.done(work);
    let then = world.running("then");
    let inputs = world.opened(then).inputs.clone();
    world.die(then, Death::Signaled(11));
    // The letter's input lies in the region of whoever has sent it, who dies as well.
    world.die(work, Death::Signaled(9));
    let id = ids(&world)[0];
    world.retry(id);
    let then = world.running("then");
    assert_eq!(world.opened(then).inputs, inputs);
    world.done(then);
    world.assert_empty();
}

#[test]
fn a_retry_runs_the_function_over_the_same_inputs_in_a_session_whose_parent_is_the_old_one() {
    let mut world = World::new(spec());
    let call = world.put("jobs", Some("a"));
    let inputs = world.opened(world.running("work")).inputs.clone();
    let id = fail(&mut world);
    let again = world.retry(id);
    assert_ne!(again.session, call.session);
    assert!(
        letters(&world).is_empty(),
        "the letter is gone when it starts"
    );
    let work = world.running("work");
    let open = world.opened(work).clone();
    assert_eq!(open.inputs, inputs);
    assert_eq!((open.attempt, open.session), (1, again.session.0));
    assert!(open.has_caller);
    assert_ne!(open.invocation, id, "an invocation of its own");
    world.say(work, FromExecutor::Parent { number: 0 });
    let parent = world.executor(work).parent_answer.take();
    assert_eq!(parent, Some((1, call.session.0)));
    world.respond_by(work);
    world.done(work);
    world.take_response(again);
    assert_eq!(world.ended(again).outcome, End::Responded);
    assert_eq!(world.stats().dead_letters_retried_total, 1);
    world.assert_empty();
}

#[test]
fn a_retry_without_a_caller_ends_by_itself() {
    let mut world = World::new(spec());
    let id = failed_job(&mut world, "a");
    let again = world.try_retry(id, false).expect("it runs again");
    world.run("work");
    assert_eq!(world.ended(again).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_retry_that_fails_makes_a_letter_of_its_own() {
    let mut world = World::new(spec());
    let first = failed_job(&mut world, "a");
    let again = world.retry(first);
    let second = fail(&mut world);
    assert_ne!(first, second);
    assert_eq!(ids(&world), [second]);
    assert_eq!(letters(&world)[0].session, again.session);
    assert_eq!(
        world.stats().used_bytes,
        OBJECT_BYTES,
        "the input is held once"
    );
    world.assert_empty();
}

/// Two attempts send the same object: the first one's starts `then`, the second one's nothing.
fn both_attempts_send(world: &mut World) {
    for attempt in 1..=2 {
        let work = world.running("work");
        assert_eq!(world.opened(work).attempt, attempt);
        world.publish(work, Target::Next, Key::Auto(0), 8);
        assert_eq!(world.all_running("then").len(), usize::from(attempt == 1));
        if attempt == 1 {
            world.run("then");
            fail(world);
            world.pass(10 * MS);
        }
    }
}

#[test]
fn a_retry_has_all_attempts_and_what_one_repeats_of_another_is_absorbed() {
    let mut spec = spec();
    spec.functions[0].attempts = 2;
    let mut world = World::new(spec);
    world.put("jobs", Some("a"));
    both_attempts_send(&mut world);
    fail(&mut world);
    let id = ids(&world)[0];
    // What the letter's own attempts have sent was in another session, and absorbs nothing here.
    let again = world.retry(id);
    both_attempts_send(&mut world);
    world.run("work");
    assert_eq!(world.ended(again).outcome, End::Completed);
    assert_eq!(world.stats().error_events_total, 0);
    world.assert_empty();
}

#[test]
fn a_retry_that_is_cancelled_makes_no_letter_and_lets_go_of_the_inputs() {
    let mut world = World::new(spec());
    let id = failed_job(&mut world, "a");
    let again = world.retry(id);
    world.cancel(again);
    world.complete(world.running("work"), -125, Ending::Returned, "");
    assert_eq!(world.stats().dead_letters, 0);
    assert_eq!(world.stats().used_bytes, 0);
    world.assert_empty();
}

#[test]
fn the_request_that_its_session_kept_is_there_for_a_retry() {
    let mut spec = spec();
    spec.keep_request = true;
    let mut world = World::new(spec);
    world.call("then");
    let then = world.running("then");
    let request = world.opened(then).request.clone();
    assert!(request.is_some());
    world.complete(then, 1, Ending::Returned, "");
    let id = ids(&world)[0];
    world.retry(id);
    assert_eq!(world.opened(world.running("then")).request, request);
    world.run("then");
    world.assert_empty();
}

#[test]
fn a_window_that_has_failed_runs_again_as_the_same_window() {
    let mut spec = spec();
    let kind = windows(10 * MS, 10 * MS);
    spec.buckets[0].triggers = vec![TriggerSpec {
        at_end: AtEnd::Wait,
        ..trigger("window", kind, &[0])
    }];
    let mut world = World::new(spec);
    world.put("jobs", Some("a"));
    world.pass(10 * MS);
    let window = world.opened(world.running("work")).window;
    assert!(window.is_some());
    let id = fail(&mut world);
    world.retry(id);
    assert_eq!(world.opened(world.running("work")).window, window);
    world.run("work");
    world.assert_empty();
}

#[test]
fn who_is_not_there_any_more_cannot_be_retried() {
    let mut world = World::new(spec());
    let id = failed_job(&mut world, "a");
    assert_eq!(
        world.try_retry(id + 1, true).unwrap_err(),
        Refusal::NoLetter
    );
    world.retry(id);
    assert_eq!(world.try_retry(id, true).unwrap_err(), Refusal::NoLetter);
    world.run("work");
    world.assert_empty();
}

#[test]
fn a_retry_is_let_in_like_a_call_and_its_letter_stays_where_it_is_not() {
    let mut spec = spec();
    spec.limits.sessions = 1;
    let mut world = World::new(spec);
    let id = failed_job(&mut world, "a");
    world.call("then");
    assert_eq!(world.try_retry(id, true).unwrap_err(), Refusal::Sessions);
    assert_eq!(ids(&world), [id]);
    world.run("then");
    world.retry(id);
    world.run("work");
    world.assert_empty();
}

/// A spec whose letters may hold as much as so many of the smallest inputs.
fn with_room_for(inputs: u64) -> AppSpec {
    let mut spec = spec();
    spec.limits.dead_letters_bytes = inputs * OBJECT_BYTES;
    spec
}

#[test]
fn the_oldest_letters_make_room_for_new_ones_and_are_counted() {
    let mut world = World::new(with_room_for(2));
    let made = ["a", "b", "c", "d"].map(|key| failed_job(&mut world, key));
    assert_eq!(ids(&world), made[2..]);
    let stats = world.stats();
    assert_eq!(
        (stats.dead_letters, stats.dead_letters_bytes),
        (2, 2 * OBJECT_BYTES)
    );
    assert_eq!(
        (
            stats.dead_letters_total,
            stats.dead_letters_pushed_out_total
        ),
        (4, 2)
    );
    assert_eq!(stats.used_bytes, 2 * OBJECT_BYTES);
    assert_eq!(
        world.try_retry(made[0], true).unwrap_err(),
        Refusal::NoLetter
    );
    world.assert_empty();
}

#[test]
fn a_letter_whose_inputs_alone_are_too_much_keeps_none_and_cannot_run_again() {
    let mut spec = with_room_for(2);
    let set = TriggerSpec {
        at_end: AtEnd::Fail,
        ..by_set(&["a", "b", "c"], &[0])
    };
    spec.buckets[0].triggers = vec![set];
    let mut world = World::new(spec);
    world.call("then");
    let then = world.running("then");
    for key in ["a", "b", "c"] {
        world.put_by(then, "jobs", key);
    }
    let id = fail(&mut world);
    world.run("then");
    let letter = letters(&world)[0];
    assert_eq!((letter.id, letter.input_count), (id, 3));
    assert_eq!((letter.has_inputs, letter.held_bytes), (false, 0));
    assert_eq!(world.stats().used_bytes, 0);
    assert_eq!(world.try_retry(id, true).unwrap_err(), Refusal::NoInputs);
    assert_eq!(ids(&world), [id], "it stays on record");
    world.assert_empty();
}

#[test]
fn a_limit_of_no_bytes_keeps_the_record_of_each_failure_and_none_of_its_inputs() {
    let mut world = World::new(with_room_for(0));
    let id = failed_job(&mut world, "a");
    assert_eq!(ids(&world), [id]);
    assert!(!letters(&world)[0].has_inputs);
    assert_eq!(world.stats().used_bytes, 0);
    world.assert_empty();
}

#[test]
fn letters_never_hold_more_than_a_part_of_an_apps_memory_and_objects() {
    let mut spec = spec();
    spec.limits.objects = 8 * DEAD_LETTERS_PART as u32;
    let mut world = World::new(spec.clone());
    for key in 0..20 {
        failed_job(&mut world, &key.to_string());
    }
    assert_eq!(world.stats().objects_live, 8);
    world.assert_empty();

    spec.limits.objects = 1000;
    spec.memory_bytes = DEAD_LETTERS_PART * 5 * OBJECT_BYTES;
    spec.executors.min = 0;
    let mut world = World::new(spec);
    for key in 0..20 {
        failed_job(&mut world, &key.to_string());
    }
    assert_eq!(world.stats().dead_letters_bytes, 5 * OBJECT_BYTES);
    world.assert_empty();
}

#[test]
fn there_are_so_many_letters_at_most_whatever_they_hold() {
    let mut world = World::new(with_room_for(0));
    let first = failed_job(&mut world, "first");
    for key in 0..DEAD_LETTERS_MAX {
        failed_job(&mut world, &key.to_string());
    }
    assert_eq!(world.stats().dead_letters, DEAD_LETTERS_MAX);
    assert_eq!(world.stats().dead_letters_pushed_out_total, 1);
    assert_ne!(ids(&world)[0], first);
    world.assert_empty();
}

#[test]
fn what_is_attached_to_an_input_is_held_with_it_and_counts() {
    let mut spec = spec();
    spec.functions[0].on_failure = OnFailure::Bucket(1);
    spec.buckets
        .push(bucket("failed", Keep::UntilConsumed, vec![immediate(&[1])]));
    let mut world = World::new(spec);
    world.put("jobs", Some("a"));
    fail(&mut world);
    let then = world.running("then");
    let attached = world.attached_by(then, 0, 1);
    world.complete(then, 1, Ending::Returned, "no");
    let [of_work, of_then] = letters(&world)[..] else {
        panic!("both have failed");
    };
    let (of_work, of_then) = (of_work.id, of_then.id);
    assert!(
        letters(&world)[1].held_bytes > 2 * OBJECT_BYTES,
        "both objects"
    );
    world.drop_letters(Some(of_work));
    world.retry(of_then);
    let then = world.running("then");
    assert_eq!(world.attached_by(then, 0, 1), attached);
    world.done(then);
    world.assert_empty();
}

#[test]
fn an_app_goes_with_its_letters() {
    let mut world = World::new(spec());
    failed_job(&mut world, "a");
    world.event(Event::Remove { app: APP });
    assert_eq!(world.sink.removed, [APP]);
    assert_eq!(world.core.totals().objects, 0);
    assert_eq!(world.core.dead_letters(APP).count(), 0);
    assert_eq!(world.try_retry(1, true).unwrap_err(), Refusal::NoApp);
    world.drop_letters(None);
}

#[test]
fn letters_are_their_own_apps() {
    let mut world = World::new(spec());
    let other = AppId(1);
    world.deploy(other, spec());
    let id = failed_job(&mut world, "a");
    assert_eq!(world.core.dead_letters(other).count(), 0);
    world.event(Event::DropLetters {
        app: other,
        letter: Some(id),
    });
    assert_eq!(ids(&world), [id]);
    world.assert_empty();
}

/// A batch of two, over objects that come from two homes.
fn gathering() -> AppSpec {
    let mut spec = spec();
    spec.executors.min = 4;
    spec.executors.max = 4;
    let kind = batch(2, None);
    spec.buckets[0].triggers = vec![across("batch", kind, &[0])];
    spec
}

#[test]
fn inputs_from_another_home_are_held_there_until_the_letter_is_dropped_or_has_run() {
    for retries in [false, true] {
        let mut cluster = Cluster::new(&gathering(), 2);
        for home in 0..2 {
            cluster.at(home, |world| {
                world.put("jobs", Some(&format!("from-{home}")));
            });
        }
        cluster.deliver_all();
        let work = cluster.world().running("work");
        let inputs = cluster.world().opened(work).inputs.clone();
        let id = cluster.with(work, fail);
        cluster.deliver_all();
        for home in 0..2 {
            let stats = cluster.at(home, |world| world.stats());
            assert!(stats.used_bytes >= OBJECT_BYTES, "held at home {home}");
        }
        if retries {
            cluster.with(work, |world| {
                world.retry(id);
            });
            let again = cluster.world().running("work");
            assert_eq!(cluster.world().opened(again).inputs, inputs);
            cluster.with(again, |world| world.done(again));
        } else {
            cluster.with(work, |world| world.drop_letters(Some(id)));
        }
        cluster.deliver_all();
        cluster.assert_empty();
    }
}

#[test]
fn an_app_of_two_homes_goes_with_letters_that_hold_what_is_the_others() {
    let mut cluster = Cluster::new(&gathering(), 2);
    for home in 0..2 {
        cluster.at(home, |world| {
            world.put("jobs", Some(&format!("from-{home}")));
        });
    }
    cluster.deliver_all();
    let work = cluster.world().running("work");
    cluster.with(work, fail);
    cluster.deliver_all();
    for home in 0..2 {
        cluster.at(home, |world| world.event(Event::Remove { app: APP }));
    }
    cluster.deliver_all();
    cluster.pass(1_000 * MS);
    cluster.deliver_all();
    assert_eq!(cluster.world().sink.removed, [APP, APP]);
}
