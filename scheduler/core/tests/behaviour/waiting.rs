//! Waiting in `phr_get`: who waits for what, who may run meanwhile, and each way in which a wait
//! ends.

use pheromone_core::event::{Death, Event, ExecutorId};
use pheromone_core::spec::{
    AppSpec, AtEnd, GroupClose, Keep, OnFailure, Pool, RerunSpec, SerialBy, TriggerKind,
    TriggerSpec,
};
use pheromone_shm::message::{Ending, FromExecutor, Key, Target};

use crate::common::app::{app, batch, bucket, group, immediate, trigger};
use crate::common::{APP, Call, End, MS, World};

const ENOENT: i32 = -2;
const EAGAIN: i32 = -11;
const ETIMEDOUT: i32 = -110;
const ECANCELED: i32 = -125;

/// `reader`s wait for objects of bucket `b`; `writer` is what objects of bucket `go` start.
fn spec(executors: u16) -> AppSpec {
    let mut spec = app(&["reader", "writer"]);
    spec.executors = Pool {
        min: 1,
        max: executors,
    };
    spec.buckets = vec![
        bucket("b", Keep::Session, vec![]),
        bucket("go", Keep::UntilConsumed, vec![immediate(&[1])]),
        bucket("gone", Keep::UntilConsumed, vec![immediate(&[1])]),
    ];
    spec
}

fn wait(world: &mut World, id: ExecutorId, bucket: &str, key: &str, timeout_ns: u64) {
    let bucket = world.bucket(bucket);
    let key = key.as_bytes();
    world.say(
        id,
        FromExecutor::Get {
            bucket,
            timeout_ns,
            key,
        },
    );
}

/// What a waiting executor was told: the key of an object, or a status. `None`: it still waits.
fn told(world: &mut World, id: ExecutorId) -> Option<Result<String, i32>> {
    let answer = world.executor(id).take_object_answer()?;
    Some(answer.map(|seen| seen.key_text()))
}

/// A call whose reader starts a writer and waits for its object.
fn waiting(world: &mut World) -> (Call, ExecutorId) {
    let call = world.call("reader");
    let reader = world.running("reader");
    world.auto_by(reader, "go");
    wait(world, reader, "b", "k", u64::MAX);
    (call, reader)
}

#[test]
fn another_process_runs_in_the_place_of_one_that_waits_and_feeds_it() {
    let mut world = World::new(spec(1));
    let (call, reader) = waiting(&mut world);
    assert_eq!(told(&mut world, reader), None);
    // One executor at once, and yet the writer runs.
    let writer = world.running("writer");
    assert_ne!(writer, reader);
    world.put_by(writer, "b", "k");
    // The object is there, but only one may run.
    assert_eq!(told(&mut world, reader), None);
    world.done(writer);
    assert_eq!(told(&mut world, reader), Some(Ok("k".into())));
    world.done(reader);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_waiter_goes_on_at_once_where_a_slot_is_free() {
    let mut world = World::new(spec(2));
    let (_, reader) = waiting(&mut world);
    let writer = world.running("writer");
    world.put_by(writer, "b", "k");
    assert_eq!(told(&mut world, reader), Some(Ok("k".into())));
    world.done(writer);
    world.done(reader);
    world.assert_empty();
}

#[test]
fn a_waiter_goes_on_before_what_is_queued() {
    let mut world = World::new(spec(1));
    let (_, reader) = waiting(&mut world);
    let writer = world.running("writer");
    let queued = world.call("reader");
    world.put_by(writer, "b", "k");
    world.done(writer);
    assert_eq!(told(&mut world, reader), Some(Ok("k".into())));
    assert_eq!(
        world.all_running("reader"),
        [reader],
        "the other call waits"
    );
    world.done(reader);
    world.run("reader");
    assert_eq!(world.ended(queued).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn processes_that_came_for_those_who_waited_leave_again() {
    let mut world = World::new(spec(1));
    for _ in 0..5 {
        let (_, reader) = waiting(&mut world);
        let writer = world.running("writer");
        world.put_by(writer, "b", "k");
        world.done(writer);
        world.done(reader);
    }
    assert_eq!(world.stats().executors, 1);
    world.assert_empty();
}

#[test]
fn a_wait_ends_with_its_time() {
    let mut world = World::new(spec(2));
    let call = world.call("reader");
    let reader = world.running("reader");
    world.auto_by(reader, "go");
    wait(&mut world, reader, "b", "k", 5 * MS);
    let writer = world.running("writer");
    world.pass(5 * MS - 1);
    assert_eq!(told(&mut world, reader), None);
    world.pass(1);
    assert_eq!(told(&mut world, reader), Some(Err(ETIMEDOUT)));
    world.done(reader);
    world.done(writer);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_wait_never_passes_the_deadline_of_its_session() {
    let mut of = spec(2);
    of.session_timeout_ns = Some(5 * MS);
    let mut world = World::new(of);
    let (call, reader) = waiting(&mut world);
    world.pass(5 * MS);
    assert_eq!(told(&mut world, reader), Some(Err(ETIMEDOUT)));
    assert_eq!(world.ended(call).outcome, End::TimedOut);
    world.done(reader);
    world.run("writer");
    world.assert_empty();
}

#[test]
fn the_functions_timeout_goes_on_while_it_waits() {
    let mut of = spec(2);
    of.functions[0].timeout_ns = Some(5 * MS);
    let mut world = World::new(of);
    let (call, reader) = {
        let call = world.call("reader");
        let reader = world.running("reader");
        world.say(reader, FromExecutor::Loaded);
        world.auto_by(reader, "go");
        wait(&mut world, reader, "b", "k", u64::MAX);
        (call, reader)
    };
    world.pass(5 * MS);
    assert!(!world.sink.executors.contains_key(&reader) || world.sink.is_alive(reader));
    assert!(matches!(world.ended(call).outcome, End::Failed(_)));
    world.run("writer");
    world.assert_empty();
}

#[test]
fn a_wait_ends_when_its_session_is_cancelled() {
    let mut world = World::new(spec(1));
    let (call, reader) = waiting(&mut world);
    let writer = world.running("writer");
    world.cancel(call);
    // At once, although another one runs: its time to stop has begun.
    assert_eq!(told(&mut world, reader), Some(Err(ECANCELED)));
    world.done(reader);
    world.done(writer);
    world.assert_empty();
}

#[test]
fn a_wait_ends_at_once_where_nothing_is_left_that_could_publish() {
    let mut world = World::new(spec(2));
    let call = world.call("reader");
    let reader = world.running("reader");
    wait(&mut world, reader, "b", "k", u64::MAX);
    assert_eq!(told(&mut world, reader), Some(Err(ENOENT)));
    world.done(reader);
    assert_eq!(world.ended(call).outcome, End::Completed);
    let (_, reader) = waiting(&mut world);
    world.run("writer");
    assert_eq!(
        told(&mut world, reader),
        Some(Err(ENOENT)),
        "it sent nothing"
    );
    world.done(reader);
    world.assert_empty();
}

#[test]
fn a_session_whose_invocations_all_wait_is_told_so() {
    let mut of = spec(4);
    of.functions[0].next = vec![0];
    let mut world = World::new(of);
    world.call("reader");
    let first = world.running("reader");
    world.next_by(first);
    wait(&mut world, first, "b", "mine", u64::MAX);
    assert_eq!(told(&mut world, first), None, "the other one could publish");
    world.pass(MS);
    let second = *world
        .all_running("reader")
        .iter()
        .find(|&&id| id != first)
        .expect("it runs");
    wait(&mut world, second, "b", "yours", u64::MAX);
    for reader in [first, second] {
        assert_eq!(told(&mut world, reader), Some(Err(ENOENT)));
        world.done(reader);
    }
    world.assert_empty();
}

#[test]
fn who_cannot_start_because_of_waiters_could_not_publish() {
    let mut concurrent = spec(4);
    concurrent.functions[0].next = vec![0];
    concurrent.functions[0].max_concurrency = Some(1);
    let mut serial = spec(4);
    serial.functions[0].next = vec![0];
    serial.functions[0].serial_by = Some(SerialBy::Session);
    for of in [concurrent, serial] {
        let mut world = World::new(of);
        let call = world.call("reader");
        let reader = world.running("reader");
        world.next_by(reader);
        wait(&mut world, reader, "b", "k", u64::MAX);
        assert_eq!(told(&mut world, reader), Some(Err(ENOENT)));
        world.done(reader);
        world.run("reader");
        assert_eq!(world.ended(call).outcome, End::Completed);
        world.assert_empty();
    }
}

#[test]
fn who_is_in_line_behind_one_that_a_waiter_keeps_from_starting_could_not_publish() {
    let mut of = spec(4);
    of.functions[0].next = vec![0];
    of.functions[0].max_concurrency = Some(1);
    of.functions[0].serial_by = Some(SerialBy::Key);
    let mut world = World::new(of);
    world.call("reader");
    let reader = world.running("reader");
    for _ in 0..2 {
        world.publish(reader, Target::Next, Key::Named(b"alike"), 8);
    }
    wait(&mut world, reader, "b", "k", u64::MAX);
    assert_eq!(told(&mut world, reader), Some(Err(ENOENT)));
    world.done(reader);
    world.run("reader");
    world.run("reader");
    world.assert_empty();
}

#[test]
fn a_further_attempt_could_publish_until_it_is_due_and_a_waiter_has_its_place() {
    let mut of = spec(4);
    of.functions[0].next = vec![0];
    of.functions[0].max_concurrency = Some(1);
    of.functions[0].attempts = 2;
    let mut world = World::new(of);
    world.call("reader");
    let failed = world.running("reader");
    world.next_by(failed);
    world.complete(failed, 1, Ending::Returned, "not yet");
    let reader = world.running("reader");
    wait(&mut world, reader, "b", "k", u64::MAX);
    assert_eq!(told(&mut world, reader), None, "an attempt is to come");
    world.pass(100 * MS);
    assert_eq!(told(&mut world, reader), Some(Err(ENOENT)));
    world.done(reader);
    world.run("reader");
    world.assert_empty();
}

#[test]
fn a_rerun_rule_that_is_armed_could_lead_to_something() {
    for speculative in [true, false] {
        let mut of = spec(4);
        of.buckets[0].reruns = vec![RerunSpec {
            function: 0,
            timeout_ns: 5 * MS,
            attempts: 2,
            speculative,
            optional: true,
        }];
        let mut world = World::new(of);
        let call = world.call("reader");
        world.load("reader");
        let first = world.running("reader");
        wait(&mut world, first, "b", "k", u64::MAX);
        assert_eq!(told(&mut world, first), None, "it may run again");
        world.pass(6 * MS);
        let runs_on = |id: &ExecutorId| world.opened(*id).attempt == 2;
        let again = *world
            .all_running("reader")
            .iter()
            .find(|id| runs_on(id))
            .expect("another attempt runs");
        world.put_by(again, "b", "k");
        if speculative {
            assert_eq!(told(&mut world, first), Some(Ok("k".into())));
        }
        world.done(again);
        if speculative {
            world.done(first);
        }
        assert_eq!(world.ended(call).outcome, End::Completed);
        world.assert_empty();
    }
}

#[test]
fn a_further_attempt_that_a_rule_begins_and_a_waiter_keeps_from_starting_could_not_publish() {
    let mut of = spec(4);
    of.functions[0].max_concurrency = Some(1);
    of.buckets[0].reruns = vec![RerunSpec {
        function: 0,
        timeout_ns: 5 * MS,
        attempts: 2,
        speculative: true,
        optional: true,
    }];
    let mut world = World::new(of);
    world.call("reader");
    world.load("reader");
    let reader = world.running("reader");
    wait(&mut world, reader, "b", "k", u64::MAX);
    world.pass(6 * MS);
    assert_eq!(told(&mut world, reader), Some(Err(ENOENT)));
    world.done(reader);
    world.assert_empty();
}

#[test]
fn a_group_that_closes_with_the_last_one_upstream_could_lead_to_something() {
    let mut of = spec(4);
    of.functions = app(&["start", "writer", "reader", "merger"]).functions;
    of.functions[0].next = vec![1, 2];
    for (function, sends) in [vec![], vec![1], vec![], vec![0]].into_iter().enumerate() {
        of.functions[function].sends = Some(sends);
    }
    let group = group(GroupClose::After(1));
    of.buckets[1].triggers = vec![trigger("group", group, &[3])];
    let mut world = World::new(of);
    world.call("start");
    let start = world.running("start");
    world.next_by(start);
    world.done(start);
    world.pass(MS);
    let reader = world.running("reader");
    wait(&mut world, reader, "b", "k", u64::MAX);
    let writer = world.running("writer");
    world.auto_by(writer, "go");
    world.done(writer);
    assert_eq!(told(&mut world, reader), None, "the group has fired");
    let merger = world.running("merger");
    world.put_by(merger, "b", "k");
    assert_eq!(told(&mut world, reader), Some(Ok("k".into())));
    world.done(merger);
    world.done(reader);
    world.assert_empty();
}

#[test]
fn what_was_there_and_is_let_go_of_never_comes_again() {
    let mut world = World::new(spec(2));
    world.call("reader");
    let reader = world.running("reader");
    world.auto_by(reader, "go");
    world.put_by(reader, "b", "k");
    let (bucket, key) = (world.bucket("b"), &b"k"[..]);
    world.say(reader, FromExecutor::ReleaseHold { bucket, key });
    wait(&mut world, reader, "b", "k", u64::MAX);
    assert_eq!(told(&mut world, reader), Some(Err(ENOENT)));
    world.done(reader);
    world.run("writer");
    world.assert_empty();
}

#[test]
fn a_delayed_object_is_waited_for_until_its_time_has_come() {
    let mut world = World::new(spec(2));
    world.call("reader");
    let reader = world.running("reader");
    let target = Target::Bucket(world.bucket("b"));
    let extent = world.allocate(reader, 8);
    world.say(
        reader,
        FromExecutor::Publish {
            target,
            extent,
            size_bytes: 8,
            key: Key::Named(b"k"),
            ordinal: 0,
            group: b"",
            delay_ns: 5 * MS,
        },
    );
    wait(&mut world, reader, "b", "k", u64::MAX);
    assert_eq!(told(&mut world, reader), None);
    world.pass(6 * MS);
    assert_eq!(told(&mut world, reader), Some(Ok("k".into())));
    world.done(reader);
    world.assert_empty();
}

#[test]
fn no_more_run_than_may_after_a_waiter_was_cancelled_beside_a_full_pool() {
    let mut world = World::new(spec(1));
    let (call, reader) = waiting(&mut world);
    let writer = world.running("writer");
    for _ in 0..4 {
        world.call("writer");
    }
    world.cancel(call);
    world.done(reader);
    world.pass(10 * MS);
    assert_eq!(world.all_running("writer"), [writer]);
    world.done(writer);
    for _ in 0..4 {
        world.pass(10 * MS);
        assert_eq!(world.all_running("writer").len(), 1);
        world.run("writer");
    }
    world.assert_empty();
}

#[test]
fn a_timer_of_a_trigger_could_lead_to_something() {
    let mut of = spec(2);
    let batch = batch(10, Some(5 * MS));
    of.buckets[1].triggers = vec![TriggerSpec {
        at_end: AtEnd::Fire,
        ..trigger("t", batch, &[1])
    }];
    let mut world = World::new(of);
    let (_, reader) = waiting(&mut world);
    assert_eq!(told(&mut world, reader), None);
    world.pass(5 * MS);
    let writer = world.running("writer");
    world.put_by(writer, "b", "k");
    assert_eq!(told(&mut world, reader), Some(Ok("k".into())));
    world.done(writer);
    world.done(reader);
    world.assert_empty();
}

#[test]
fn what_a_custom_trigger_has_not_answered_for_could_lead_to_something() {
    for fires in [true, false] {
        let mut of = spec(2);
        let custom = TriggerKind::Custom {
            config: Vec::new(),
            timeout_ns: 100 * MS,
            keep: false,
        };
        of.buckets[1].triggers = vec![TriggerSpec {
            at_end: AtEnd::Drop,
            ..trigger("t", custom, &[1])
        }];
        let mut world = World::new(of);
        let (call, reader) = waiting(&mut world);
        assert_eq!(told(&mut world, reader), None, "its verdict is to come");
        let id = world.trigger();
        if fires {
            world.fire_by(id, 1, call.session, &[0]);
        }
        world.done(id);
        if fires {
            let writer = world.running("writer");
            world.put_by(writer, "b", "k");
            assert_eq!(told(&mut world, reader), Some(Ok("k".into())));
            world.done(writer);
        } else {
            // The object is still pending, but the trigger has had its say.
            assert_eq!(told(&mut world, reader), Some(Err(ENOENT)));
        }
        world.done(reader);
        if !fires {
            world.done(id);
        }
        assert_eq!(world.ended(call).outcome, End::Completed);
        world.assert_empty();
    }
}

#[test]
fn a_failure_that_the_node_is_writing_could_be_what_is_waited_for() {
    let mut of = spec(2);
    of.executors.min = 2;
    of.functions[1].on_failure = OnFailure::Bucket(0);
    let mut world = World::new(of);
    world.writes_failures = false;
    for is_it in [true, false] {
        let call = world.call("reader");
        let reader = world.running("reader");
        world.auto_by(reader, "go");
        let writer = world.running("writer");
        let failed = format!("~{}", world.opened(writer).invocation);
        let key = if is_it { failed.as_str() } else { "k" };
        wait(&mut world, reader, "b", key, u64::MAX);
        world.complete(writer, 1, Ending::Returned, "no");
        assert_eq!(told(&mut world, reader), None, "it is being written");
        world.write_failures();
        let answer = told(&mut world, reader).expect("it is there");
        assert_eq!(answer.err(), (!is_it).then_some(ENOENT));
        world.done(reader);
        assert_eq!(world.ended(call).outcome, End::Completed);
    }
    world.assert_empty();
}

#[test]
fn who_comes_after_as_many_as_may_wait_is_sent_away() {
    let mut of = spec(2);
    of.limits.waiters = 1;
    let mut world = World::new(of);
    let (_, first) = waiting(&mut world);
    world.call("reader");
    world.pass(MS);
    let second = *world
        .all_running("reader")
        .iter()
        .find(|&&id| id != first)
        .expect("it runs in its place");
    wait(&mut world, second, "b", "k", u64::MAX);
    assert_eq!(told(&mut world, second), Some(Err(EAGAIN)));
    world.done(second);
    world.run("writer");
    assert_eq!(told(&mut world, first), Some(Err(ENOENT)));
    world.done(first);
    world.assert_empty();
}

#[test]
fn what_its_bucket_does_not_keep_is_waited_for_by_nobody() {
    let mut world = World::new(spec(2));
    world.call("reader");
    let reader = world.running("reader");
    world.auto_by(reader, "go");
    wait(&mut world, reader, "gone", "k", u64::MAX);
    assert_eq!(told(&mut world, reader), Some(Err(ENOENT)));
    world.done(reader);
    world.run("writer");
    world.assert_empty();
}

#[test]
fn a_waiter_whose_process_dies_is_an_attempt_that_has_failed() {
    let mut of = spec(2);
    of.functions[0].attempts = 2;
    let mut world = World::new(of);
    let (call, reader) = waiting(&mut world);
    let writer = world.running("writer");
    world.die(reader, Death::Signaled(11));
    world.put_by(writer, "b", "k");
    world.done(writer);
    world.pass(100 * MS);
    let again = world.running("reader");
    wait(&mut world, again, "b", "k", 0);
    assert_eq!(told(&mut world, again), Some(Ok("k".into())));
    world.done(again);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn who_speaks_while_it_waits_breaks_the_protocol() {
    let mut world = World::new(spec(2));
    let (call, reader) = waiting(&mut world);
    world.automatic = false;
    world.complete(reader, 0, Ending::Returned, "");
    let (_, why) = world.sink.kills.front().expect("it is killed").clone();
    assert!(why.contains("while it waited for an answer"), "{why}");
    world.automatic = true;
    world.processes();
    assert!(matches!(world.ended(call).outcome, End::Failed(_)));
    world.run("writer");
    world.assert_empty();
}

#[test]
fn an_app_that_is_removed_leaves_no_waiter() {
    let mut world = World::new(spec(1));
    let (_, reader) = waiting(&mut world);
    let writer = world.running("writer");
    world.event(Event::Remove { app: APP });
    assert_eq!(told(&mut world, reader), Some(Err(ECANCELED)));
    world.done(reader);
    world.done(writer);
    assert_eq!(world.sink.removed, [APP]);
    world.assert_empty();
}

#[test]
fn a_pool_full_of_waiters_does_not_stand_still() {
    let mut world = World::new(spec(2));
    let calls = [(); 8].map(|()| world.call("reader"));
    let mut waiters: Vec<ExecutorId> = Vec::new();
    for _ in 0..100 {
        world.pass(MS);
        for reader in world.all_running("reader") {
            if waiters.contains(&reader) {
                if told(&mut world, reader) == Some(Ok("k".into())) {
                    waiters.retain(|&other| other != reader);
                    world.done(reader);
                }
            } else {
                world.auto_by(reader, "go");
                wait(&mut world, reader, "b", "k", u64::MAX);
                waiters.push(reader);
            }
        }
        let writers = world.all_running("writer");
        assert!(writers.len() <= 2, "at most so many run at once");
        for writer in writers {
            world.put_by(writer, "b", "k");
            world.done(writer);
        }
    }
    for call in calls {
        assert_eq!(world.ended(call).outcome, End::Completed);
    }
    world.assert_empty();
}
