//! What executors must not say. Each of these kills the process, names executor, function and
//! rule, and fails the invocation; nobody else notices.

use pheromone_core::event::{Cause, Event, ExecutorId};
use pheromone_core::spec::{AppSpec, Keep};
use pheromone_shm::message::{Ending, Extent, FromExecutor, Key, REQUEST_OBJECT, Target};

use crate::common::app::{app, bucket};
use crate::common::{APP, CONFIG, World};

fn spec() -> AppSpec {
    let mut spec = app(&["liar", "next", "stranger", "leaf"]);
    spec.functions[0].next = vec![1];
    spec.functions[0].sends = Some(vec![0]);
    spec.limits.object_size_bytes = 100_000;
    spec.limits.inputs = 100;
    spec.buckets = vec![
        bucket("allowed", Keep::Session, vec![]),
        bucket("forbidden", Keep::Session, vec![]),
    ];
    spec
}

const UNIT: Extent = Extent {
    offset_units: 0,
    len_units: 1,
};

fn publish<'a>(target: Target, extent: Extent, size: u64, key: Key<'a>) -> FromExecutor<'a> {
    FromExecutor::Publish {
        ordinal: 0,
        delay_ns: 0,
        target,
        extent,
        size_bytes: size,
        key,
        group: b"",
    }
}

fn respond(http_status: u16) -> FromExecutor<'static> {
    FromExecutor::Respond {
        session: 0,
        extent: UNIT,
        size_bytes: 0,
        http_status,
        content_type: b"",
    }
}

fn parts(objects: &[u8]) -> FromExecutor<'_> {
    FromExecutor::RespondParts {
        more: true,
        http_status: 200,
        content_type: b"",
        objects,
    }
}

fn forward(object: u32) -> FromExecutor<'static> {
    FromExecutor::Forward {
        ordinal: 0,
        delay_ns: 0,
        target: Target::Next,
        object,
        key: Key::Auto(0),
        group: b"",
    }
}

fn get(bucket: u16, key: &[u8]) -> FromExecutor<'_> {
    FromExecutor::Get {
        bucket,
        timeout_ns: 0,
        key,
    }
}

/// Has `liar` say this while it runs and checks what is told.
fn lie(message: FromExecutor<'_>, rule: &str) {
    let mut world = World::new(spec());
    let other = world.call("leaf");
    let call = world.call("liar");
    let liar = world.running("liar");
    world.automatic = false;
    world.event(Event::Message {
        executor: liar,
        message,
    });
    let Some((killed, why)) = world.sink.kills.front().cloned() else {
        panic!("{message:?} is let pass");
    };
    assert_eq!(killed, liar);
    let expected = format!(
        "executor {} of app `test`, running function `liar`, broke the protocol: it {rule}",
        liar.slot
    );
    assert_eq!(why, expected);
    assert!(
        world.is_open(call),
        "the invocation fails when the process is dead"
    );
    // Whatever it goes on to say is not heard.
    world.event(Event::Message {
        executor: liar,
        message: respond(200),
    });
    world.event(Event::Message {
        executor: liar,
        message: FromExecutor::Ready,
    });
    world.automatic = true;
    world.processes();
    assert_eq!(world.ended(call).failure().cause, Cause::Fault(expected));
    assert_eq!(world.stats().faults_total, 1);
    world.run("leaf");
    assert!(!world.is_open(other));
    world.assert_empty();
}

#[test]
fn extents_lie_in_the_region_and_hold_their_payload() {
    let span = spec().region_span_bytes() / 64;
    assert_eq!(span, 2 << 20);
    let extent = |offset_units, len_units| Extent {
        offset_units,
        len_units,
    };
    let auto = Key::Auto(0);
    lie(
        publish(Target::Next, extent(0, 0), 0, auto),
        "named 0 units at 0, outside of its region of 2097152 units",
    );
    lie(
        publish(Target::Next, extent((2 << 20) - 1, 2), 0, auto),
        "named 2 units at 2097151, outside of its region of 2097152 units",
    );
    lie(
        publish(Target::Next, extent(u32::MAX, u32::MAX), 0, auto),
        "named 4294967295 units at 4294967295, outside of its region of 2097152 units",
    );
    lie(
        publish(Target::Next, UNIT, 64, auto),
        "claimed 64 bytes in an extent of 1 units of 64 bytes",
    );
    lie(
        publish(Target::Next, UNIT, u64::MAX, auto),
        "claimed 18446744073709551615 bytes in an extent of 1 units of 64 bytes",
    );
    lie(
        publish(Target::Next, extent(0, 2000), 100_001, auto),
        "sent an object of 100001 bytes, more than `object_size` allows (100000)",
    );
}

#[test]
fn targets_are_what_the_manifest_allows() {
    let auto = Key::Auto(0);
    lie(
        publish(Target::Bucket(2), UNIT, 0, auto),
        "named bucket number 2 of 2",
    );
    lie(
        publish(Target::Bucket(1), UNIT, 0, auto),
        "published into bucket number 1, which its function's `sends` does not list",
    );
    lie(
        publish(Target::Function(4), UNIT, 0, auto),
        "named function number 4 of 4",
    );
    lie(
        publish(Target::Function(2), UNIT, 0, auto),
        "addressed function number 2, which is neither in its function's `next` nor `calls`",
    );
    let mut world = World::new(spec());
    world.call("leaf");
    let leaf = world.running("leaf");
    world.automatic = false;
    world.say(leaf, publish(Target::Next, UNIT, 0, auto));
    assert!(
        world.sink.kills[0]
            .1
            .ends_with("its function has no `next`")
    );
}

#[test]
fn keys_and_groups_are_of_their_form() {
    let keyed = |key| publish(Target::Bucket(0), UNIT, 0, Key::Named(key));
    lie(keyed(b""), "gave a key of 0 bytes");
    lie(keyed(&[b'k'; 256]), "gave a key of 256 bytes");
    lie(keyed(b"a\0b"), "gave a key or group with a zero byte");
    lie(keyed(b"~1.0"), "gave a key that begins with `~`");
    let grouped = |group| FromExecutor::Publish {
        ordinal: 0,
        delay_ns: 0,
        target: Target::Next,
        extent: UNIT,
        size_bytes: 0,
        key: Key::Auto(0),
        group,
    };
    lie(grouped(&[b'g'; 256]), "gave a group of 256 bytes");
    lie(grouped(b"\0"), "gave a key or group with a zero byte");
    lie(get(0, b""), "gave a key of 0 bytes");
    lie(get(0, &[b'k'; 300]), "gave a key of 300 bytes");
    lie(get(2, b"k"), "named bucket number 2 of 2");
    let release = FromExecutor::ReleaseHold {
        bucket: 9,
        key: b"k",
    };
    lie(release, "named bucket number 9 of 2");
}

#[test]
fn objects_named_are_held() {
    lie(
        forward(1),
        "named object number 1 of the 1 that its invocation holds",
    );
    lie(
        forward(REQUEST_OBJECT),
        "named the request of a session that does not keep one",
    );
    lie(
        parts(&[0, 0, 0, 0, 7, 0, 0, 0]),
        "named object number 7 of the 1 that its invocation holds",
    );
    lie(
        parts(&[0, 0, 0]),
        "sent a list of 3 bytes, which is not one of numbers of 4 bytes",
    );
    lie(
        parts(&[0; 101 * 4]),
        "listed more than 100 parts for a response",
    );
    lie(
        FromExecutor::FetchInputs { first: 1 },
        "asked for input number 1 of 1",
    );
    lie(
        FromExecutor::FetchExtents { first: 0 },
        "asked for live extents from number 0, out of turn",
    );
}

#[test]
fn responses_have_a_status() {
    for status in [0, 199, 600, u16::MAX] {
        let rule = format!("responded with status {status}, which is not from 200 to 599");
        lie(respond(status), &rule);
    }
}

#[test]
fn ready_is_said_once() {
    lie(FromExecutor::Ready, "said that it is ready a second time");
}

#[test]
fn a_function_is_loaded_once() {
    let mut world = World::new(spec());
    world.automatic = false;
    world.call("liar");
    let liar = world.running("liar");
    world.say(liar, FromExecutor::Loaded);
    assert!(world.sink.kills.is_empty());
    world.say(liar, FromExecutor::Loaded);
    let (_, why) = &world.sink.kills[0];
    assert!(why.contains("said that it has loaded a function"), "{why}");
}

#[test]
fn what_is_no_message_kills() {
    let mut world = World::new(spec());
    let call = world.call("liar");
    let liar = world.running("liar");
    world.event(Event::Garbled {
        executor: liar,
        reason: "slot 3 has the sequence of another ring",
    });
    let Cause::Fault(why) = &world.ended(call).failure().cause else {
        panic!("it is a fault");
    };
    assert!(why.ends_with("wrote what is no message: slot 3 has the sequence of another ring"));
    world.assert_empty();
}

#[test]
fn without_an_open_dispatch_there_is_nothing_to_say() {
    let messages = [
        publish(Target::Next, UNIT, 0, Key::Auto(0)),
        forward(0),
        respond(200),
        parts(&[]),
        FromExecutor::Complete {
            status: 0,
            ending: Ending::Returned,
            discarded: 0,
            message: b"",
        },
        get(0, b"k"),
        FromExecutor::ReleaseHold {
            bucket: 0,
            key: b"k",
        },
        FromExecutor::FetchInputs { first: 0 },
        FromExecutor::NeedCredit { bytes: 1 },
    ];
    let id = ExecutorId { app: APP, slot: 0 };
    for message in messages {
        let mut world = World::new(spec());
        world.automatic = false;
        world.event(Event::Message {
            executor: id,
            message,
        });
        let why = &world.sink.kills[0].1;
        assert!(why.ends_with("while nothing was dispatched to it"), "{why}");
        world.automatic = true;
        world.processes();
        assert_eq!(world.stats().executors_idle, 2);
        world.assert_empty();

        // Nor before it is ready.
        let mut world = World::empty(CONFIG);
        world.automatic = false;
        world.deploy(APP, spec());
        world.started(id);
        world.event(Event::Message {
            executor: id,
            message,
        });
        assert_eq!(world.sink.kills.len(), 1);
    }
}

#[test]
fn who_waits_for_credit_has_nothing_to_say() {
    let mut spec = spec();
    spec.limits.create_wait_ns = 1_000_000_000;
    spec.memory_bytes = 16 << 20;
    let mut world = World::new(spec);
    world.call("leaf");
    world.call("leaf");
    let leaf = world.running("leaf");
    world.say(leaf, FromExecutor::NeedCredit { bytes: 15 << 20 });
    assert_eq!(world.executor(leaf).credit_answer, None);
    world.automatic = false;
    world.event(Event::Message {
        executor: leaf,
        message: FromExecutor::NeedCredit { bytes: 1 },
    });
    let why = &world.sink.kills[0].1;
    assert!(
        why.ends_with("sent `NeedCredit` while it waited for an answer"),
        "{why}"
    );
    world.automatic = true;
    world.processes();
    world.run("leaf");
    world.assert_empty();
}

#[test]
fn an_owner_that_never_takes_its_releases_back_is_killed() {
    let mut spec = spec();
    spec.limits.objects = 100;
    spec.buckets[0].keep = Keep::UntilConsumed;
    let mut world = World::new(spec);
    let call = world.call("liar");
    let liar = world.running("liar");
    world.sink.release_room = Some(0);
    let mut sent = 0;
    while world.is_open(call) {
        assert!(sent < 1000);
        world.auto_by(liar, "allowed");
        sent += 1;
    }
    world.sink.release_room = None;
    let Cause::Fault(why) = &world.ended(call).failure().cause else {
        panic!("it is a fault");
    };
    assert!(
        why.contains("does not take back what is released to it"),
        "{why}"
    );
    world.assert_empty();
}
