//! The ledger: quota, credit, and who is refused when memory is short.

use pheromone_core::event::{Death, Destination, ExecutorId, Refusal, Request};
use pheromone_core::spec::{AppSpec, AtEnd, BucketSpec, Keep, TriggerKind, TriggerSpec};
use pheromone_shm::message::{Ending, Extent, FromExecutor, Key, Target};
use pheromone_shm::wire::put_join_key;

use crate::common::app::{app, bucket, rounds, trigger};
use crate::common::{APP, End, World};

const MIB: u64 = 1 << 20;

fn spec(memory_bytes: u64) -> AppSpec {
    let mut spec = app(&["source", "f"]);
    spec.memory_bytes = memory_bytes;
    spec.functions[0].next = vec![1];
    spec.buckets = vec![bucket("b", Keep::Session, vec![])];
    spec
}

#[test]
fn every_object_is_charged_its_extent_and_256_bytes_and_every_session_1_kib() {
    let mut world = World::new(spec(64 * MIB));
    world.call("source");
    let request = 64 + 256;
    assert_eq!(world.stats().used_bytes, 1024 + request);
    let source = world.running("source");
    world.put_by(source, "b", "k");
    world.publish(source, Target::Bucket(0), Key::Named(b"l"), 64);
    assert_eq!(world.stats().used_bytes, 1024 + request + 320 + 384);
    world.get_by(source, "b", "k").unwrap();
    let index = world.opened(source).inputs.len() as u32;
    world.forward_by(source, index, Target::Bucket(0), Key::Named(b"m"));
    assert_eq!(world.stats().used_bytes, 1024 + request + 320 + 384 + 256);
    world.done(source);
    world.assert_empty();
}

#[test]
fn credit_is_granted_ahead_and_refilled_below_half() {
    let mut world = World::new(spec(64 * MIB));
    world.call("source");
    let source = world.running("source");
    assert_eq!(world.executor(source).credit_total_bytes, MIB);
    let told = world.sink.credits_told;
    for _ in 0..1000 {
        world.next_by(source);
        world.run("f");
    }
    assert_eq!(
        world.sink.credits_told, told,
        "320 000 bytes are less than half"
    );
    for _ in 0..1000 {
        world.next_by(source);
        world.run("f");
    }
    assert_eq!(world.sink.credits_told, told + 1);
    assert!(
        world.sink.executors[&source].credit_answer.is_none(),
        "it never asked"
    );
    world.done(source);
    world.assert_empty();
}

#[test]
fn more_than_the_credit_is_granted_when_asked_for_while_the_quota_lasts() {
    let mut world = World::new(spec(64 * MIB));
    world.call("source");
    let source = world.running("source");
    let first = world.allocate(source, 40 * MIB);
    assert!(
        world.try_allocate(source, 40 * MIB).is_none(),
        "create_wait is 0"
    );
    let second = world.allocate(source, 10 * MIB);
    world.give_back(source, &[first, second]);
    world.done(source);
    world.assert_empty();
}

#[test]
fn what_a_dead_executor_had_as_credit_returns() {
    let mut world = World::new(spec(64 * MIB));
    world.call("source");
    let source = world.running("source");
    world.allocate(source, 50 * MIB);
    assert!(world.stats().credit_bytes > 50 * MIB);
    world.die(source, Death::Signaled(9));
    assert_eq!(
        world.stats().credit_bytes,
        2 * MIB,
        "a slice for each of two"
    );
    world.assert_empty();
}

#[test]
fn credit_of_what_was_discarded_is_taken_back_between_dispatches() {
    let mut world = World::new(spec(64 * MIB));
    world.call("source");
    let source = world.running("source");
    let extent = world.allocate(source, 50 * MIB);
    world.give_back(source, &[extent]);
    world.done(source);
    assert_eq!(world.stats().credit_bytes, 2 * MIB);
    world.assert_empty();
}

/// Allocates 30 MiB and publishes a direct object of 128 bytes in the first of them.
fn publish_truncated(world: &mut World, source: ExecutorId) {
    let extent = world.allocate(source, 30 * MIB);
    let memory = world.sink.memory.get_mut(&source).unwrap();
    memory.release(extent);
    let shrunk = Extent {
        len_units: 2,
        ..extent
    };
    memory.insert(shrunk);
    let executor = world.executor(source);
    executor.discard(extent);
    executor.charge(shrunk);
    world.say(
        source,
        FromExecutor::Publish {
            ordinal: 0,
            delay_ns: 0,
            target: Target::Next,
            extent: shrunk,
            size_bytes: 100,
            key: Key::Auto(0),
            group: b"",
        },
    );
    assert_eq!(world.stats().objects_live, 2);
}

#[test]
fn a_truncated_object_is_charged_what_is_left_of_it() {
    let mut world = World::new(spec(64 * MIB));
    world.call("source");
    let source = world.running("source");
    publish_truncated(&mut world, source);
    world.done(source);
    assert!(world.stats().credit_bytes <= 3 * MIB);
    world.run("f");
    world.assert_empty();
}

/// The sink refuses to have it taken back from one that has something open.
#[test]
fn credit_is_taken_back_before_an_only_executor_is_told_what_follows() {
    let mut spec = spec(64 * MIB);
    (spec.executors.min, spec.executors.max) = (1, 1);
    spec.continuation = false;
    let mut world = World::new(spec);
    world.call("source");
    let source = world.running("source");
    publish_truncated(&mut world, source);
    world.done(source);
    assert_eq!(world.running("f"), source);
    assert!(world.stats().credit_bytes <= 2 * MIB);
    world.run("f");
    world.assert_empty();
}

#[test]
fn a_published_extent_beyond_the_credit_is_a_fault() {
    let mut world = World::new(spec(64 * MIB));
    let call = world.call("source");
    let source = world.running("source");
    world.automatic = false;
    world.say(
        source,
        FromExecutor::Publish {
            ordinal: 0,
            delay_ns: 0,
            target: Target::Next,
            extent: Extent {
                offset_units: 0,
                len_units: (2 * MIB / 64) as u32,
            },
            size_bytes: 5,
            key: Key::Auto(0),
            group: b"",
        },
    );
    let why = &world.sink.kills[0].1;
    assert!(
        why.contains("allocated 1048832 bytes more than it had credit for"),
        "{why}"
    );
    world.automatic = true;
    world.processes();
    assert!(!world.is_open(call));
    world.assert_empty();
}

fn waiting_world(wait_ns: u64) -> (World, ExecutorId, ExecutorId) {
    let mut spec = spec(16 * MIB);
    spec.limits.create_wait_ns = wait_ns;
    let mut world = World::new(spec);
    world.call("source");
    world.call("source");
    let sources = world.all_running("source");
    (world, sources[0], sources[1])
}

#[test]
fn create_waits_for_memory_and_is_served_when_an_object_dies() {
    let (mut world, a, b) = waiting_world(1_000_000_000);
    world.publish(a, Target::Bucket(0), Key::Named(b"big"), 10 * MIB);
    world.say(b, FromExecutor::NeedCredit { bytes: 8 * MIB });
    assert_eq!(world.executor(b).credit_answer, None, "it waits");
    world.done(a);
    assert_eq!(world.executor(b).credit_answer, Some(true));
    world.done(b);
    world.assert_empty();
}

#[test]
fn create_is_refused_after_its_wait() {
    let (mut world, a, b) = waiting_world(5_000_000);
    world.publish(a, Target::Bucket(0), Key::Named(b"big"), 10 * MIB);
    world.say(b, FromExecutor::NeedCredit { bytes: 8 * MIB });
    world.pass(4_999_999);
    assert_eq!(world.executor(b).credit_answer, None);
    world.pass(1);
    assert_eq!(world.executor(b).credit_answer, Some(false));
    world.done(a);
    world.done(b);
    world.assert_empty();
}

#[test]
fn create_is_refused_at_once_when_every_executor_waits() {
    let (mut world, a, b) = waiting_world(1_000_000_000);
    world.publish(a, Target::Bucket(0), Key::Named(b"big"), 10 * MIB);
    world.say(b, FromExecutor::NeedCredit { bytes: 8 * MIB });
    world.say(a, FromExecutor::NeedCredit { bytes: 8 * MIB });
    assert_eq!(world.executor(a).credit_answer, Some(false));
    assert_eq!(world.executor(b).credit_answer, None);
    world.complete(a, -12, Ending::Returned, "");
    assert_eq!(world.executor(b).credit_answer, Some(true));
    world.done(b);
    world.assert_empty();
}

#[test]
fn the_last_who_waits_is_refused_when_nobody_else_is_left_to_free_memory() {
    let (mut world, a, b) = waiting_world(1_000_000_000);
    world.publish(b, Target::Bucket(0), Key::Named(b"big"), 10 * MIB);
    world.say(b, FromExecutor::NeedCredit { bytes: 8 * MIB });
    assert_eq!(world.executor(b).credit_answer, None);
    world.done(a);
    assert_eq!(world.executor(b).credit_answer, Some(false));
    world.done(b);
    world.assert_empty();
}

#[test]
fn a_waiter_whose_session_ends_is_refused_at_once() {
    let mut spec = spec(16 * MIB);
    spec.limits.create_wait_ns = 1_000_000_000;
    spec.executors.min = 3;
    spec.executors.max = 3;
    let mut world = World::new(spec);
    let calls = [world.call("source"), world.call("source")];
    let sources = world.all_running("source");
    let (a, b) = (sources[0], sources[1]);
    world.publish(a, Target::Bucket(0), Key::Named(b"big"), 10 * MIB);
    world.say(b, FromExecutor::NeedCredit { bytes: 8 * MIB });
    let session = world.opened(b).session;
    let call = calls
        .into_iter()
        .find(|call| call.session.0 == session)
        .unwrap();
    world.cancel(call);
    assert_eq!(world.executor(b).credit_answer, Some(false));
    world.done(b);
    world.done(a);
    world.assert_empty();
}

#[test]
fn a_waiter_that_dies_leaves_the_queue() {
    let (mut world, a, b) = waiting_world(1_000_000_000);
    world.publish(a, Target::Bucket(0), Key::Named(b"big"), 10 * MIB);
    world.say(b, FromExecutor::NeedCredit { bytes: 8 * MIB });
    world.die(b, Death::Signaled(9));
    world.done(a);
    world.assert_empty();
}

#[test]
fn what_can_never_be_granted_is_refused_at_once() {
    let (mut world, a, _) = waiting_world(1_000_000_000);
    world.say(a, FromExecutor::NeedCredit { bytes: 17 * MIB });
    assert_eq!(world.executor(a).credit_answer, Some(false));
    world.say(a, FromExecutor::NeedCredit { bytes: u64::MAX });
    assert_eq!(world.executor(a).credit_answer, Some(false));
}

#[test]
fn the_edge_refuses_when_a_tenth_of_memory_is_left() {
    let mut world = World::new(spec(16 * MIB));
    world.call("source");
    let source = world.running("source");
    let mut number = 0;
    while world.stats().used_bytes < 16 * MIB / 10 * 9 - 400_000 {
        world.publish(source, Target::Bucket(0), Key::Auto(number), 100_000);
        number += 1;
    }
    assert!(world.try_call("f").is_ok());
    for _ in 0..4 {
        world.publish(source, Target::Bucket(0), Key::Auto(number), 100_000);
        number += 1;
    }
    assert_eq!(world.try_call("f").unwrap_err(), Refusal::Memory);
    world.publish(source, Target::Bucket(0), Key::Auto(number), 100_000);
    world.done(source);
    assert!(world.try_call("f").is_ok());
}

#[test]
fn the_edge_refuses_when_a_tenth_of_the_objects_is_left() {
    let mut spec = spec(16 * MIB);
    spec.limits.objects = 100;
    let mut world = World::new(spec);
    world.call("source");
    let source = world.running("source");
    for _ in 0..88 {
        world.auto_by(source, "b");
    }
    assert!(world.try_call("f").is_ok());
    assert_eq!(world.try_call("f").unwrap_err(), Refusal::Memory);
    world.done(source);
    assert!(world.try_call("f").is_ok());
}

#[test]
fn executors_get_no_credit_past_the_limit_on_objects() {
    let mut spec = spec(64 * MIB);
    spec.limits.objects = 200;
    let mut world = World::new(spec);
    world.call("source");
    let source = world.running("source");
    let mut number = 0;
    while let Some(extent) = world.try_allocate(source, 8) {
        world.say(
            source,
            FromExecutor::Publish {
                ordinal: 0,
                delay_ns: 0,
                target: Target::Bucket(0),
                extent,
                size_bytes: 8,
                key: Key::Auto(number),
                group: b"",
            },
        );
        number += 1;
    }
    assert!((199..=300).contains(&number), "{number}");
    world.done(source);
    world.assert_empty();
}

/// Has a session's `source` do something again and again until the limit on objects ends it, which
/// must be soon, and a session after it can take names again.
fn ends_at_the_limit(buckets: Vec<BucketSpec>, step: impl Fn(&mut World, ExecutorId, u32)) {
    let mut spec = spec(64 * MIB);
    spec.limits.objects = 50;
    spec.buckets.extend(buckets);
    let mut world = World::new(spec);
    let call = world.call("source");
    let source = world.running("source");
    for number in 0..200 {
        if !world.is_open(call) {
            break;
        }
        step(&mut world, source, number);
    }
    assert!(!world.is_open(call), "it never ends");
    let cause = format!("{:?}", world.ended(call).failure().cause);
    assert!(cause.contains("limits.objects"), "{cause}");
    world.done(source);
    let running = world.sink.executors.iter();
    let cancelled: Vec<ExecutorId> = running
        .filter(|(_, executor)| executor.open.is_some())
        .map(|(&id, _)| id)
        .collect();
    for id in cancelled {
        world.done(id);
    }
    world.assert_empty();
    let next = world.call("source");
    let source = world.running("source");
    for number in 0..40 {
        world.put_by(source, "b", &format!("k{number}"));
    }
    world.done(source);
    assert_eq!(world.ended(next).outcome, End::Completed);
    world.assert_empty();
}

fn join_by(world: &mut World, id: ExecutorId, keys: &[&str]) {
    let mut encoded = Vec::new();
    for key in keys {
        put_join_key(&mut encoded, key.as_bytes());
    }
    world.say(
        id,
        FromExecutor::Join {
            trigger: 0,
            more: false,
            keys: &encoded,
        },
    );
}

fn joining(keep: Keep) -> Vec<BucketSpec> {
    let join = TriggerSpec {
        at_end: AtEnd::Drop,
        ..trigger("join", TriggerKind::DynamicJoin, &[1])
    };
    vec![bucket("joined", keep, vec![join])]
}

#[test]
fn a_loop_of_lists_ends_at_the_limit_on_objects() {
    ends_at_the_limit(joining(Keep::Session), |world, source, number| {
        join_by(world, source, &[&format!("never {number}")]);
    });
    ends_at_the_limit(joining(Keep::Session), |world, source, _| {
        join_by(world, source, &["never", "neither"]);
    });
}

#[test]
fn a_loop_of_lists_that_fire_at_once_ends_at_the_limit_on_objects() {
    ends_at_the_limit(joining(Keep::Session), |world, source, _| {
        join_by(world, source, &[]);
    });
    ends_at_the_limit(joining(Keep::Session), |world, source, number| {
        if number == 0 {
            world.put_by(source, "joined", "there");
        }
        join_by(world, source, &["there"]);
    });
}

#[test]
fn a_loop_of_keys_that_are_consumed_ends_at_the_limit_on_objects() {
    ends_at_the_limit(joining(Keep::UntilConsumed), |world, source, _| {
        let ordinal = world.auto_by(source, "joined");
        let invocation = world.opened(source).invocation;
        join_by(world, source, &[&format!("~{invocation}.{ordinal}")]);
        if !world.all_running("f").is_empty() {
            world.run("f");
        }
    });
}

#[test]
fn lists_and_keys_that_have_fired_count_no_more() {
    let mut spec = spec(64 * MIB);
    spec.limits.objects = 50;
    spec.buckets.extend(joining(Keep::UntilConsumed));
    let mut world = World::new(spec);
    let call = world.call("source");
    let source = world.running("source");
    // Forty names, each of them in a list, where both would be eighty.
    for number in 0..40 {
        let key = format!("k{number}");
        join_by(&mut world, source, &[&key]);
        world.put_by(source, "joined", &key);
        world.run("f");
    }
    world.done(source);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_loop_of_rounds_that_stay_ends_at_the_limit_on_objects() {
    let first = rounds(1, 1, None);
    let rounds = TriggerSpec {
        at_end: AtEnd::Drop,
        ..trigger("rounds", first, &[1])
    };
    let buckets = vec![bucket("raced", Keep::UntilConsumed, vec![rounds])];
    ends_at_the_limit(buckets, |world, source, number| {
        let extent = world.allocate(source, 8);
        world.say(
            source,
            FromExecutor::Publish {
                target: Target::Bucket(1),
                extent,
                size_bytes: 8,
                key: Key::Auto(number),
                ordinal: number,
                group: format!("round {number}").as_bytes(),
                delay_ns: 0,
            },
        );
        if !world.all_running("f").is_empty() {
            world.run("f");
        }
    });
}

#[test]
fn a_loop_of_automatic_keys_that_are_looked_up_ends_at_the_limit_on_objects() {
    ends_at_the_limit(Vec::new(), |world, source, _| {
        let invocation = world.opened(source).invocation;
        let _ = world.get_by(source, "b", "~1.1");
        let ordinal = world.auto_by(source, "b");
        let key = format!("~{invocation}.{ordinal}");
        world.say(
            source,
            FromExecutor::ReleaseHold {
                bucket: 0,
                key: key.as_bytes(),
            },
        );
    });
}

#[test]
fn the_edge_refuses_when_a_tenth_of_the_names_is_left_and_those_inside_go_on() {
    let mut spec = spec(64 * MIB);
    spec.limits.objects = 100;
    spec.buckets
        .push(bucket("sink", Keep::UntilConsumed, vec![]));
    let mut world = World::new(spec);
    let call = world.call("source");
    let other = world.call("source");
    let put = |world: &mut World, number: u32| {
        let key = format!("k{number}");
        let destination = Destination::Bucket {
            bucket: 1,
            key: Some(key.as_bytes()),
            group: b"",
        };
        let draft = world.draft(APP, destination);
        let request = world.send(Request {
            session: Some(call.session),
            ..draft
        });
        world.answer_of(request)
    };
    let taken = (0..200).take_while(|&number| put(&mut world, number).is_ok());
    assert_eq!(taken.count(), 90);
    assert_eq!(world.try_call("f").unwrap_err(), Refusal::Memory);
    let [first, second] = world.all_running("source")[..] else {
        panic!("two run");
    };
    let (mine, theirs) = if world.opened(first).session == call.session.0 {
        (first, second)
    } else {
        (second, first)
    };
    world.put_by(theirs, "b", "k");
    world.done(theirs);
    assert_eq!(world.ended(other).outcome, End::Completed);
    world.done(mine);
    assert_eq!(world.ended(call).outcome, End::Completed);
    assert!(world.try_call("f").is_ok());
}

#[test]
fn credit_for_a_large_object_is_not_for_more_objects_than_there_may_be() {
    let mut spec = spec(64 * MIB);
    spec.limits.objects = 1000;
    let mut world = World::new(spec);
    let call = world.call("source");
    let source = world.running("source");
    let large = world.allocate(source, 50 * MIB);
    world.give_back(source, &[large]);
    let mut most = 0;
    for _ in 0..5000 {
        world.auto_by(source, "b");
        most = most.max(world.stats().objects_live);
        if !world.is_open(call) {
            break;
        }
    }
    assert_eq!(most, 1000);
    let cause = format!("{:?}", world.ended(call).failure().cause);
    assert!(cause.contains("limits.objects"), "{cause}");
    world.done(source);
    world.assert_empty();
}

#[test]
fn a_large_object_may_be_the_last_one() {
    let mut spec = spec(64 * MIB);
    spec.limits.objects = 100;
    let mut world = World::new(spec);
    let call = world.call("source");
    let source = world.running("source");
    let large = world.allocate(source, 50 * MIB);
    for _ in 0..99 {
        world.auto_by(source, "b");
    }
    world.say(
        source,
        FromExecutor::Publish {
            ordinal: 1000,
            delay_ns: 0,
            target: Target::Bucket(0),
            extent: large,
            size_bytes: 50 * MIB,
            key: Key::Auto(1000),
            group: b"",
        },
    );
    assert!(world.is_open(call), "it has had its credit before");
    world.done(source);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_loop_of_forwards_or_names_ends_at_the_limit_on_objects() {
    for forwards in [true, false] {
        let mut spec = spec(64 * MIB);
        spec.limits.objects = 50;
        spec.buckets
            .push(bucket("sink", Keep::UntilConsumed, vec![]));
        let mut world = World::new(spec);
        let call = world.call("source");
        let source = world.running("source");
        for number in 0..100 {
            if !world.is_open(call) {
                break;
            }
            let key = format!("k{number}");
            if forwards {
                let key = Key::Named(key.as_bytes());
                world.forward_by(source, 0, Target::Bucket(0), key);
            } else {
                world.put_by(source, "sink", &key);
            }
        }
        let cause = format!("{:?}", world.ended(call).failure().cause);
        assert!(cause.contains("limits.objects"), "{cause}");
        world.done(source);
        world.assert_empty();
    }
}
