//! Durable objects: on disk before they arrive; and retained ones, which outlive their sessions.

use pheromone_core::event::{
    Cause, Death, Destination, Event, ExecutorId, FoundObject, NotFound, Refusal, SessionId,
    Written,
};
use pheromone_core::spec::{AppSpec, GroupClose, Keep, Retain};
use pheromone_core::{CoreConfig, SpinPolicy};
use pheromone_shm::message::{Ending, FromExecutor, Key, Target};

use crate::common::app::{app, bucket, function, group, immediate, trigger};
use crate::common::{APP, CONFIG, End, MS, ToWrite, World};

const DONE: Written<'static> = Written::Done {
    sequence: 1,
    is_repeated: false,
};

const ENOENT: i32 = -2;
const EIO: i32 = -5;
const ENOMEM: i32 = -12;
const EEXIST: i32 = -17;
const ENOTSUP: i32 = -95;
const ECANCELED: i32 = -125;

/// `source` and `sink`, a durable bucket `d` that fires `sink`, and a plain one `b` that does.
fn spec() -> AppSpec {
    let mut spec = app(&["source", "sink"]);
    spec.functions[0].next = vec![1];
    spec.buckets = vec![
        bucket("d", Keep::Session, vec![immediate(&[1])]),
        bucket("b", Keep::Session, vec![immediate(&[1])]),
    ];
    spec.buckets[0].durable = true;
    spec.buckets[0].retain = Retain::Forever;
    spec
}

/// What is written next is done, or is not.
fn written(world: &mut World, outcome: Written<'_>) -> ToWrite {
    let write = world
        .sink
        .writes
        .pop_front()
        .expect("something is to be written");
    world.event(Event::Written {
        app: write.app,
        ticket: write.ticket,
        outcome,
    });
    write
}

/// Announces, and publishes a named object; the answer comes later.
fn persist(world: &mut World, id: ExecutorId, bucket: &str, key: &str) {
    world.say(id, FromExecutor::Persist);
    world.put_by(id, bucket, key);
}

fn persisted(world: &mut World, id: ExecutorId) -> Option<i32> {
    world.executor(id).persist_answer.take()
}

fn load(world: &mut World, id: ExecutorId, bucket: &str, key: &str) {
    let bucket = world.bucket(bucket);
    let key = key.as_bytes();
    world.say(id, FromExecutor::Load { bucket, key });
}

/// The node answers what it was asked to look for.
fn find(world: &mut World, found: Result<u64, NotFound>) {
    let (app, ticket, ..) = world
        .sink
        .loads
        .pop_front()
        .expect("something is looked for");
    let body = found.map(|size_bytes| world.ingress(app, size_bytes));
    let found = body.map(|body| FoundObject {
        body,
        session: SessionId(77),
        group: b"red",
    });
    world.event(Event::Loaded { app, ticket, found });
}

#[test]
fn who_waits_for_the_disk_does_not_spin_meanwhile_and_may_again_when_idle() {
    for spin in [SpinPolicy::Budget(20_000), SpinPolicy::Always] {
        for loads in [false, true] {
            let mut world = World::with_config(spec(), CoreConfig { spin, ..CONFIG });
            world.call("source");
            let source = world.running("source");
            assert!(world.executor(source).may_spin);
            if loads {
                load(&mut world, source, "d", "a");
            } else {
                persist(&mut world, source, "d", "a");
            }
            assert!(!world.executor(source).may_spin, "{spin:?}, {loads}");
            if loads {
                find(&mut world, Err(NotFound::Missing));
            } else {
                written(&mut world, Written::Exists);
            }
            world.done(source);
            assert!(world.executor(source).may_spin, "{spin:?}, {loads}");
        }
    }
}

#[test]
fn an_object_of_a_durable_bucket_arrives_once_it_is_on_disk() {
    let mut world = World::new(spec());
    let call = world.call("source");
    let source = world.running("source");
    let invocation = world.opened(source).invocation;
    world.put_by(source, "d", "a");
    assert_eq!(world.get_by(source, "d", "a"), Err(ENOENT), "not before");
    world.done(source);
    assert!(world.is_open(call) && world.all_running("sink").is_empty());
    let write = written(&mut world, DONE);
    assert_eq!(
        (write.seen.key_text().as_str(), write.author),
        ("a", invocation)
    );
    assert_eq!((write.retain, write.replace), (Retain::Forever, true));
    let sink = world.running("sink");
    assert_eq!(world.keys(sink), ["a"]);
    assert!(world.get_by(sink, "d", "a").is_ok());
    world.done(sink);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn who_sends_durable_goes_on_once_it_is_on_disk_in_any_bucket() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    for bucket in ["d", "b"] {
        persist(&mut world, source, bucket, "a");
        assert_eq!(persisted(&mut world, source), None);
        assert!(world.all_running("sink").is_empty());
        let write = written(&mut world, DONE);
        assert_eq!(write.retain, Retain::Forever);
        assert_eq!(persisted(&mut world, source), Some(0));
        world.run("sink");
    }
    world.done(source);
    world.assert_empty();
}

#[test]
fn what_does_not_replace_is_refused_and_its_sender_has_it_again() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    for (refused, status) in [
        (Written::Exists, EEXIST),
        (Written::Failed("the disk is full"), EIO),
        (Written::NothingKept, ENOTSUP),
    ] {
        let before = world.stats();
        let extent = world.allocate(source, 8);
        world.say(source, FromExecutor::Persist);
        let publish = FromExecutor::Publish {
            target: Target::Bucket(0),
            extent,
            size_bytes: 8,
            key: Key::Named(b"a"),
            ordinal: 0,
            group: b"",
            delay_ns: 0,
        };
        world.say(source, publish);
        written(&mut world, refused);
        assert_eq!(persisted(&mut world, source), Some(status));
        // It is the sender's as if it had not been sent.
        world.give_back(source, &[extent]);
        let after = world.stats();
        assert_eq!(after.used_bytes, before.used_bytes);
        assert_eq!(after.objects_live, before.objects_live);
    }
    // Its name is free again.
    persist(&mut world, source, "d", "a");
    written(&mut world, DONE);
    assert_eq!(persisted(&mut world, source), Some(0));
    world.run("sink");
    world.done(source);
    assert_eq!(world.stats().error_events_total, 0);
    world.assert_empty();
}

#[test]
fn a_name_that_could_not_be_written_is_remembered_no_longer() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    for key in ["a", "b", "c"] {
        world.put_by(source, "b", key);
    }
    let before = world.core.totals().names;
    // They leave the session's list from its end, its middle and its beginning.
    for outcomes in [["a", "b"], ["b", "a"]] {
        let sent: Vec<ToWrite> = ["a", "b"]
            .map(|key| {
                world.put_by(source, "d", key);
                world.sink.writes.pop_front().expect("it is to be written")
            })
            .into();
        assert_eq!(world.core.totals().names, before + 2);
        for key in outcomes {
            let refused = sent.iter().find(|write| write.seen.key_text() == key);
            let refused = refused.expect("it has been sent");
            world.event(Event::Written {
                app: refused.app,
                ticket: refused.ticket,
                outcome: Written::Exists,
            });
        }
        assert_eq!(world.core.totals().names, before);
    }
    world.done(source);
    while let Some(&sink) = world.all_running("sink").first() {
        world.done(sink);
    }
    world.assert_empty();
}

#[test]
fn who_sent_a_name_again_has_it_when_the_first_could_not_be_written() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    world.put_by(source, "d", "a");
    world.put_by(source, "d", "a");
    written(&mut world, Written::Exists);
    assert_eq!(world.get_by(source, "d", "a"), Err(ENOENT));
    written(&mut world, DONE);
    assert!(world.get_by(source, "d", "a").is_ok());
    world.run("sink");
    world.done(source);
    world.assert_empty();
}

#[test]
fn who_waits_for_a_deleted_object_of_a_durable_bucket_has_the_next() {
    let mut spec = spec();
    spec.buckets
        .push(bucket("go", Keep::UntilConsumed, vec![immediate(&[0])]));
    let mut world = World::new(spec);
    world.call("source");
    let reader = world.running("source");
    persist(&mut world, reader, "d", "a");
    written(&mut world, DONE);
    world.run("sink");
    let delete = FromExecutor::ReleaseHold {
        bucket: 0,
        key: b"a",
    };
    world.say(reader, delete);
    world.auto_by(reader, "go");
    let get = FromExecutor::Get {
        bucket: 0,
        timeout_ns: u64::MAX,
        key: b"a",
    };
    world.say(reader, get);
    assert_eq!(world.executor(reader).take_object_answer(), None);
    let writer = world.all_running("source");
    let writer = *writer.iter().find(|&&id| id != reader).expect("it runs");
    world.put_by(writer, "d", "a");
    world.done(writer);
    written(&mut world, DONE);
    world.run("sink");
    let answer = world.executor(reader).take_object_answer();
    let seen = answer.expect("it is answered").expect("it is there");
    assert_eq!(seen.key_text(), "a");
    world.done(reader);
    world.assert_empty();
}

#[test]
fn a_send_that_is_not_waited_for_and_does_not_replace_is_an_error_event() {
    let mut spec = spec();
    spec.buckets[0].replace = false;
    let mut world = World::new(spec);
    let call = world.call("source");
    let source = world.running("source");
    world.put_by(source, "d", "a");
    world.done(source);
    assert!(!written(&mut world, Written::Exists).replace);
    let (_, text) = &world.sink.error_events[0];
    assert!(text.contains("`a`") && text.contains("`d`"), "{text}");
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_session_whose_object_the_disk_refuses_fails_with_the_reason() {
    let mut world = World::new(spec());
    let call = world.call("source");
    let source = world.running("source");
    world.put_by(source, "d", "a");
    world.done(source);
    written(&mut world, Written::Failed("the disk is full"));
    let failure = world.ended(call).failure();
    assert!(
        matches!(&failure.cause, Cause::NotWritten(why) if why.contains("the disk is full")),
        "{failure:?}"
    );
    assert_eq!(failure.function, Some(0));
    world.assert_empty();
}

#[test]
fn what_is_being_written_is_held_although_its_session_has_ended() {
    let mut world = World::new(spec());
    let call = world.call("source");
    let source = world.running("source");
    world.put_by(source, "d", "a");
    world.cancel(call);
    world.done(source);
    assert_eq!(world.stats().objects_live, 1);
    // `check` asserts after each step that it is still allocated.
    written(&mut world, DONE);
    assert!(world.all_running("sink").is_empty());
    world.assert_empty();
}

#[test]
fn who_waits_is_answered_although_its_session_has_ended() {
    let mut world = World::new(spec());
    let call = world.call("source");
    let source = world.running("source");
    persist(&mut world, source, "d", "a");
    world.cancel(call);
    written(&mut world, DONE);
    assert_eq!(persisted(&mut world, source), Some(0));
    persist(&mut world, source, "d", "b");
    assert_eq!(persisted(&mut world, source), Some(ECANCELED));
    world.done(source);
    world.assert_empty();
}

#[test]
fn the_process_that_waits_may_die() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    persist(&mut world, source, "d", "a");
    world.die(source, Death::Signaled(11));
    // Its successor waits for nothing.
    written(&mut world, DONE);
    assert_eq!(world.sink.ended.len(), 1);
    world.assert_empty();
}

#[test]
fn another_object_of_the_session_replaces_what_phr_get_finds() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    world.put_by(source, "d", "a");
    written(&mut world, DONE);
    world.run("sink");
    let first = world.get_by(source, "d", "a").expect("it is there");
    world.put_by(source, "d", "a");
    let again = world.get_by(source, "d", "a").expect("the first one is");
    assert_eq!(again.offset_units, first.offset_units);
    written(&mut world, DONE);
    world.run("sink");
    let second = world.get_by(source, "d", "a").expect("the second one is");
    assert_ne!(second.offset_units, first.offset_units);
    assert_eq!(world.stats().error_events_total, 0);
    world.done(source);
    world.assert_empty();
}

#[test]
fn a_further_attempt_s_same_object_is_the_same_object() {
    let mut spec = spec();
    spec.functions[0].attempts = 2;
    let mut world = World::new(spec);
    let call = world.call("source");
    let source = world.running("source");
    world.put_by(source, "d", "a");
    world.auto_by(source, "d");
    world.complete(source, 1, Ending::Returned, "");
    world.pass(1_000 * MS);
    let source = world.running("source");
    // While the first attempt's are still being written, and while they are there.
    world.put_by(source, "d", "a");
    written(&mut world, DONE);
    written(&mut world, DONE);
    persist(&mut world, source, "d", "a");
    assert_eq!(persisted(&mut world, source), Some(0));
    world.auto_by(source, "d");
    assert!(world.sink.writes.is_empty());
    world.done(source);
    world.run("sink");
    world.run("sink");
    assert_eq!(world.ended(call).outcome, End::Completed);
    assert_eq!(world.sink.dispatched_total, 4);
    world.assert_empty();
}

#[test]
fn a_further_attempt_that_replaces_another_s_object_does_so_once() {
    let mut spec = spec();
    spec.functions[0].attempts = 2;
    spec.functions.push(function("other"));
    spec.functions[0].calls = vec![2];
    let mut world = World::new(spec);
    world.call("source");
    let source = world.running("source");
    // Another invocation of the session has the name.
    let extent = world.allocate(source, 8);
    let to_other = FromExecutor::Publish {
        target: Target::Function(2),
        extent,
        size_bytes: 8,
        key: Key::Auto(0),
        ordinal: 0,
        group: b"",
        delay_ns: 0,
    };
    world.say(source, to_other);
    let other = world.running("other");
    world.put_by(other, "d", "a");
    world.done(other);
    written(&mut world, DONE);
    world.run("sink");
    world.put_by(source, "d", "a");
    world.complete(source, 1, Ending::Returned, "");
    world.pass(1_000 * MS);
    let source = world.running("source");
    world.put_by(source, "d", "a");
    world.done(source);
    // The journal absorbs the second by its author; both are said to be there.
    written(&mut world, DONE);
    written(&mut world, DONE);
    world.run("sink");
    assert!(world.all_running("sink").is_empty());
    world.assert_empty();
}

#[test]
fn a_put_is_let_in_once_it_is_on_disk() {
    let mut world = World::new(spec());
    let put = |world: &mut World| {
        let destination = Destination::Bucket {
            bucket: 0,
            key: Some(b"a"),
            group: b"",
        };
        world.request(destination, false)
    };
    let request = put(&mut world);
    assert!(!world.sink.accepted.contains_key(&request));
    assert!(world.all_running("sink").is_empty());
    assert_eq!(written(&mut world, DONE).author, 0);
    world.run("sink");
    let call = world.answer_of(request).expect("it is let in");
    assert_eq!(world.ended(call).outcome, End::Completed);
    for (refused, refusal) in [
        (Written::Failed("the disk is full"), Refusal::NotWritten),
        (Written::Exists, Refusal::Kept),
    ] {
        let request = put(&mut world);
        written(&mut world, refused);
        assert_eq!(world.answer_of(request).unwrap_err(), refusal);
        assert!(world.all_running("sink").is_empty());
    }
    world.assert_empty();
}

#[test]
fn a_barrier_waits_for_what_is_being_written_upstream() {
    let mut spec = spec();
    spec.functions.push(function("reduce"));
    let kind = group(GroupClose::After(1));
    spec.buckets.push(bucket(
        "mapped",
        Keep::Session,
        vec![trigger("after", kind, &[2])],
    ));
    let mut world = World::new(spec);
    world.call("source");
    let source = world.running("source");
    world.put_by(source, "mapped", "x");
    world.put_by(source, "d", "a");
    world.done(source);
    assert!(world.all_running("reduce").is_empty(), "a map is to come");
    written(&mut world, DONE);
    world.run("sink");
    world.run("reduce");
    world.assert_empty();
}

#[test]
fn a_delay_begins_when_the_object_is_on_disk() {
    let mut world = World::new(spec());
    let call = world.call("source");
    let source = world.running("source");
    let extent = world.allocate(source, 8);
    let later = FromExecutor::Publish {
        target: Target::Bucket(0),
        extent,
        size_bytes: 8,
        key: Key::Named(b"a"),
        ordinal: 0,
        group: b"",
        delay_ns: 5 * MS,
    };
    world.say(source, FromExecutor::Persist);
    world.say(source, later);
    written(&mut world, DONE);
    assert_eq!(persisted(&mut world, source), Some(0));
    world.done(source);
    world.pass(5 * MS - 1);
    assert!(world.is_open(call) && world.all_running("sink").is_empty());
    world.pass(1);
    world.run("sink");
    world.assert_empty();
}

#[test]
fn a_held_object_can_be_forwarded_to_disk() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    for outcome in [Written::Exists, DONE] {
        world.say(source, FromExecutor::Persist);
        world.forward_by(source, 0, Target::Bucket(0), Key::Named(b"a"));
        written(&mut world, outcome);
    }
    assert_eq!(persisted(&mut world, source), Some(0));
    world.run("sink");
    world.done(source);
    world.assert_empty();
}

// ------------------------------------------------------------------------------ loads

#[test]
fn a_durable_object_is_looked_for_by_the_node_and_held_like_an_input() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    load(&mut world, source, "d", "a");
    assert_eq!(world.executor(source).take_object_answer(), None);
    find(&mut world, Ok(100));
    let seen = world
        .executor(source)
        .take_object_answer()
        .expect("it is answered");
    let seen = seen.expect("it is there");
    assert_eq!(
        (seen.key_text().as_str(), seen.session, seen.size_bytes),
        ("a", 77, 100)
    );
    assert_eq!(seen.group, b"red");
    assert_eq!(world.stats().objects_live, 2);
    // It can be named again.
    world.forward_by(source, 1, Target::Next, Key::Auto(0));
    world.run("sink");
    world.done(source);
    world.assert_empty();
}

#[test]
fn what_cannot_be_loaded_has_a_status() {
    let mut world = World::new(spec());
    let call = world.call("source");
    let source = world.running("source");
    for (why, status) in [
        (NotFound::Missing, ENOENT),
        (NotFound::NoMemory, ENOMEM),
        (NotFound::Unreadable, EIO),
    ] {
        load(&mut world, source, "d", "a");
        find(&mut world, Err(why));
        assert_eq!(
            world.executor(source).take_object_answer(),
            Some(Err(status))
        );
    }
    world.cancel(call);
    load(&mut world, source, "d", "a");
    assert_eq!(
        world.executor(source).take_object_answer(),
        Some(Err(ECANCELED))
    );
    world.done(source);
    let nothing = CoreConfig {
        keeps_on_disk: false,
        ..CONFIG
    };
    let mut world = World::with_config(spec(), nothing);
    world.call("source");
    let source = world.running("source");
    load(&mut world, source, "b", "a");
    assert_eq!(
        world.executor(source).take_object_answer(),
        Some(Err(ENOENT))
    );
    world.done(source);
    world.assert_empty();
}

#[test]
fn what_is_found_for_somebody_who_is_gone_is_given_back() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    load(&mut world, source, "d", "a");
    world.die(source, Death::Signaled(9));
    find(&mut world, Ok(100));
    world.assert_empty();
}

#[test]
fn deleting_is_for_the_session_and_for_the_disk() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    let delete = FromExecutor::ReleaseHold {
        bucket: 0,
        key: b"a",
    };
    world.say(source, delete);
    assert_eq!(world.sink.deletes, [(APP, 0, b"a".to_vec())]);
    world.done(source);
    world.assert_empty();
}

// --------------------------------------------------------------------------- retained

fn retaining(retain_ms: u64) -> AppSpec {
    let mut spec = spec();
    spec.buckets[1].retain = Retain::ForNs(retain_ms * MS);
    spec.buckets[1].triggers.clear();
    spec
}

/// A session that puts an object of this size into `b`.
fn put(world: &mut World, size_bytes: u64) {
    world.call("source");
    let source = world.running("source");
    world.publish(source, Target::Bucket(1), Key::Named(b"a"), size_bytes);
    world.done(source);
}

fn retained(world: &mut World) -> Result<u64, i32> {
    world.call("source");
    let source = world.running("source");
    load(world, source, "b", "a");
    let answer = world
        .executor(source)
        .take_object_answer()
        .expect("at once");
    world.done(source);
    answer.map(|seen| seen.size_bytes)
}

#[test]
fn a_retained_object_outlives_its_session_for_as_long_as_its_bucket_says() {
    let nothing = CoreConfig {
        keeps_on_disk: false,
        ..CONFIG
    };
    let mut world = World::with_config(retaining(10), nothing);
    put(&mut world, 1);
    world.pass(10 * MS - 1);
    assert_eq!(retained(&mut world), Ok(1));
    world.pass(1);
    assert_eq!(retained(&mut world), Err(ENOENT));
    world.assert_empty();
}

#[test]
fn of_several_retained_objects_the_last_to_arrive_is_found() {
    let nothing = CoreConfig {
        keeps_on_disk: false,
        ..CONFIG
    };
    let mut world = World::with_config(retaining(10), nothing);
    put(&mut world, 1);
    world.pass(5 * MS);
    put(&mut world, 2);
    assert_eq!(retained(&mut world), Ok(2));
    world.pass(5 * MS);
    assert_eq!(retained(&mut world), Ok(2), "the first is gone");
    assert_eq!(world.stats().objects_live, 1);
    world.pass(5 * MS);
    assert_eq!(retained(&mut world), Err(ENOENT));
    world.assert_empty();
}

#[test]
fn an_app_that_goes_retains_nothing() {
    let mut spec = retaining(0);
    spec.buckets[1].retain = Retain::Forever;
    let mut world = World::new(spec);
    put(&mut world, 1);
    world.pass(3_600_000 * MS);
    assert_eq!(retained(&mut world), Ok(1));
    world.event(Event::Remove { app: APP });
    assert_eq!(world.sink.removed, [APP]);
}

#[test]
fn an_app_goes_only_when_what_is_being_written_is_there() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    world.put_by(source, "d", "a");
    world.done(source);
    world.event(Event::Remove { app: APP });
    assert!(world.sink.removed.is_empty());
    written(&mut world, DONE);
    assert_eq!(world.sink.removed, [APP]);
}

// ----------------------------------------------------------------------------- faults

const COMPLETE: FromExecutor<'_> = FromExecutor::Complete {
    status: 0,
    ending: Ending::Returned,
    discarded: 0,
    message: b"",
};

/// A `source` runs, and what is killed stays so.
fn world_by_hand() -> World {
    let mut world = World::new(spec());
    world.automatic = false;
    world.processes();
    world.call("source");
    world.processes();
    world
}

#[test]
fn who_announces_an_object_for_the_disk_sends_it_at_once() {
    for message in [
        FromExecutor::Persist,
        FromExecutor::NeedCredit { bytes: 1 },
        FromExecutor::Load {
            bucket: 0,
            key: b"a",
        },
        COMPLETE,
    ] {
        let mut world = world_by_hand();
        let source = world.running("source");
        world.say(source, FromExecutor::Persist);
        world.say(source, message);
        let (_, why) = &world.sink.kills[0];
        assert!(why.contains("announced an object for the disk"), "{why}");
    }
}

#[test]
fn who_waits_for_the_disk_says_nothing() {
    let mut world = world_by_hand();
    let source = world.running("source");
    persist(&mut world, source, "d", "a");
    world.put_by(source, "d", "b");
    let (_, why) = &world.sink.kills[0];
    assert!(why.contains("while it waited for an answer"), "{why}");
}

#[test]
fn who_waits_for_the_disk_does_not_return() {
    let mut world = world_by_hand();
    let source = world.running("source");
    persist(&mut world, source, "d", "a");
    world.say(source, COMPLETE);
    let (_, why) = &world.sink.kills[0];
    assert!(
        why.contains("sent `Complete` while it waited for an answer"),
        "{why}"
    );
}

#[test]
fn a_direct_object_is_not_announced_for_the_disk() {
    for target in [Target::Next, Target::Function(1)] {
        let mut world = world_by_hand();
        let source = world.running("source");
        let extent = world.allocate(source, 8);
        world.say(source, FromExecutor::Persist);
        let publish = FromExecutor::Publish {
            target,
            extent,
            size_bytes: 8,
            key: Key::Auto(0),
            ordinal: 0,
            group: b"",
            delay_ns: 0,
        };
        world.say(source, publish);
        let (_, why) = &world.sink.kills[0];
        assert!(why.contains("sent one that is in no bucket"), "{why}");
        let mut world = world_by_hand();
        let source = world.running("source");
        world.say(source, FromExecutor::Persist);
        world.forward_by(source, 0, target, Key::Auto(0));
        let (_, why) = &world.sink.kills[0];
        assert!(why.contains("sent one that is in no bucket"), "{why}");
    }
}
