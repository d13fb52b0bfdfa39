//! Objects: their identity, who finds them, and how long they live.

use pheromone_core::event::{Death, Destination, Event, ExecutorId, Request};
use pheromone_core::spec::{AppSpec, Keep};
use pheromone_shm::message::{FromExecutor, HeadersRef, Key, REQUEST_OBJECT, Target};

use crate::common::app::{app, bucket, by_set, immediate};
use crate::common::{APP, Seen, World};

const F: u16 = 1;
const ENOENT: i32 = -2;

/// `kept` and `passing` are buckets with `keep` and without, both watched by `f`.
fn spec() -> AppSpec {
    let mut spec = app(&["source", "f", "g"]);
    spec.executors.min = 6;
    spec.executors.max = 6;
    spec.functions[0].next = vec![F];
    spec.buckets = vec![
        bucket("kept", Keep::Session, vec![immediate(&[F])]),
        bucket("passing", Keep::UntilConsumed, vec![immediate(&[F])]),
        bucket("unwatched", Keep::Session, vec![]),
        bucket("sink", Keep::UntilConsumed, vec![]),
        bucket("set", Keep::UntilConsumed, vec![by_set(&["a", "b"], &[2])]),
    ];
    spec
}

/// Objects alive beside the request of the one call.
fn live(world: &World) -> u64 {
    world.stats().objects_live - 1
}

#[test]
fn an_object_of_a_keeping_bucket_lives_until_its_session_ends() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    world.put_by(source, "kept", "k");
    world.run("f");
    assert_eq!(live(&world), 1);
    assert_eq!(world.get_by(source, "kept", "k").unwrap().key_text(), "k");
    world.done(source);
    world.assert_empty();
}

#[test]
fn an_object_until_consumed_lives_as_long_as_what_consumes_it() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    world.put_by(source, "passing", "k");
    assert_eq!(live(&world), 1);
    world.run("f");
    assert_eq!(live(&world), 0);
    assert_eq!(world.get_by(source, "passing", "k"), Err(ENOENT));
    world.done(source);
    world.assert_empty();
}

#[test]
fn an_object_that_nothing_wants_dies_at_once() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    world.put_by(source, "sink", "k");
    assert_eq!(live(&world), 0);
    assert_eq!(world.sink.released_total, 1);
}

#[test]
fn a_pending_object_is_held_by_its_trigger() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    world.put_by(source, "set", "a");
    assert_eq!(live(&world), 1);
    world.put_by(source, "set", "b");
    let g = world.running("g");
    assert_eq!(live(&world), 2);
    world.done(g);
    assert_eq!(live(&world), 0);
    world.done(source);
    world.assert_empty();
}

#[test]
fn an_identity_is_remembered_after_its_memory_has_been_used_again() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    world.put_by(source, "passing", "k");
    world.run("f");
    assert_eq!(live(&world), 0);
    world.put_by(source, "passing", "k");
    assert_eq!(world.sink.error_events.len(), 1);
    assert!(world.all_running("f").is_empty());
    assert_eq!(live(&world), 0, "the second one's memory went back");
    // Another bucket and another session are other identities.
    world.put_by(source, "kept", "k");
    world.call("source");
    let sources = world.all_running("source");
    let other = *sources.iter().find(|&&id| id != source).unwrap();
    world.put_by(other, "passing", "k");
    assert_eq!(world.sink.error_events.len(), 1);
    for id in [source, other] {
        world.done(id);
    }
    world.run("f");
    world.run("f");
    world.assert_empty();
}

#[test]
fn error_events_are_counted_and_the_first_few_told_in_words() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    for _ in 0..100 {
        world.put_by(source, "sink", "k");
    }
    assert_eq!(world.stats().error_events_total, 99);
    assert_eq!(world.sink.error_events.len(), 16);
}

#[test]
fn automatic_keys_never_collide_and_are_found_by_their_text() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    let invocation = world.opened(source).invocation;
    for _ in 0..3 {
        world.auto_by(source, "unwatched");
    }
    for ordinal in 0..3 {
        let text = format!("~{invocation}.{ordinal}");
        let seen = world.get_by(source, "unwatched", &text).unwrap();
        assert_eq!(seen.key_text(), text);
    }
    // Also those that come after the first question.
    world.auto_by(source, "unwatched");
    let text = format!("~{invocation}.3");
    assert!(world.get_by(source, "unwatched", &text).is_ok());
    for text in [
        format!("~{invocation}.4"),
        format!("~0{invocation}.0"),
        format!("~{invocation}.00"),
        format!("~{invocation}"),
        "~".into(),
        "~a.b".into(),
        "~+1.+2".into(),
        "~99999999999999999999999.0".into(),
    ] {
        assert_eq!(
            world.get_by(source, "unwatched", &text),
            Err(ENOENT),
            "{text}"
        );
    }
    world.done(source);
    world.assert_empty();
}

#[test]
fn get_finds_what_buckets_keep_in_this_session_and_holds_it() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    world.put_by(source, "unwatched", "k");
    assert_eq!(world.get_by(source, "unwatched", "other"), Err(ENOENT));
    assert_eq!(world.get_by(source, "kept", "k"), Err(ENOENT));
    world.next_by(source);
    let f = world.running("f");
    world.get_by(f, "unwatched", "k").unwrap();
    world.say(
        source,
        FromExecutor::ReleaseHold {
            bucket: 2,
            key: b"k",
        },
    );
    assert_eq!(world.get_by(source, "unwatched", "k"), Err(ENOENT));
    assert_eq!(live(&world), 2, "f still reads it");
    world.done(f);
    assert_eq!(live(&world), 0);
    world.put_by(source, "unwatched", "k");
    assert_eq!(world.sink.error_events.len(), 1, "its name stays taken");
    world.done(source);
    world.assert_empty();
}

#[test]
fn get_does_not_find_direct_objects_or_those_of_other_sessions() {
    let mut world = World::new(spec());
    world.call("source");
    world.call("source");
    let sources = world.all_running("source");
    world.publish(sources[0], Target::Next, Key::Named(b"label"), 4);
    world.put_by(sources[0], "unwatched", "k");
    assert_eq!(world.get_by(sources[1], "unwatched", "k"), Err(ENOENT));
    assert_eq!(world.get_by(sources[0], "unwatched", "label"), Err(ENOENT));
}

#[test]
fn a_forwarded_object_holds_its_root_and_copies_nothing() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    world.next_by(source);
    let f = world.running("f");
    let input = world.opened(f).inputs[0].clone();
    world.forward_by(f, 0, Target::Bucket(2), Key::Named(b"again"));
    world.done(f);
    let seen = world.get_by(source, "unwatched", "again").unwrap();
    assert_eq!(seen.part(), input.part());
    assert_eq!(seen.key_text(), "again");
    assert_eq!(world.sink.released_total, 0);
    // A forward of a forward holds the same root.
    world.forward_by(source, 1, Target::Bucket(0), Key::Auto(7));
    let f = world.running("f");
    assert_eq!(world.opened(f).inputs[0].part(), input.part());
    world.forward_by(source, 0, Target::Bucket(2), Key::Named(b"again"));
    assert_eq!(world.sink.error_events.len(), 1, "its identity is taken");
    world.done(source);
    world.done(f);
    world.assert_empty();
}

#[test]
fn the_request_dies_with_its_consumption_unless_it_is_kept() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    world.next_by(source);
    let f = world.running("f");
    assert_eq!(world.opened(f).request, None);
    world.done(source);
    assert_eq!(world.stats().objects_live, 1, "the direct object is left");
    world.done(f);

    let mut spec = spec();
    spec.keep_request = true;
    let mut world = World::new(spec);
    let call = world.call("source");
    let source = world.running("source");
    world.next_by(source);
    world.done(source);
    let f = world.running("f");
    let request = world.opened(f).request.clone().unwrap();
    assert_eq!((request.key_text(), request.region), ("request".into(), 14));
    world.forward_by(f, REQUEST_OBJECT, Target::Bucket(2), Key::Named(b"whole"));
    let seen = world.get_by(f, "unwatched", "whole").unwrap();
    assert_eq!(seen.part(), request.part());
    // The session's end does not take it from who still runs.
    world.cancel(call);
    assert_eq!(world.stats().objects_live, 3);
    world.done(f);
    world.assert_empty();
}

#[test]
fn what_a_put_fires_at_once_finds_the_request_that_is_kept() {
    let mut spec = spec();
    spec.keep_request = true;
    spec.buckets[0].triggers = vec![immediate(&[1])];
    let mut world = World::new(spec);
    let bucket = world.sink.apps[&APP].buckets[0].name.clone();
    world.put(&bucket, Some("a"));
    let f = world.running("f");
    let request = world.opened(f).request.clone().expect("it is kept");
    assert_eq!(request.key_text(), "a");
    world.done(f);
    world.assert_empty();
}

#[test]
fn a_header_block_lives_as_long_as_its_session_and_who_runs() {
    let mut world = World::new(spec());
    let draft = world.draft(APP, Destination::Function(0));
    let block = world.ingress(APP, 100);
    let headers = HeadersRef {
        region: 14,
        offset_units: block.extent.offset_units,
        size_bytes: 100,
    };
    let request = world.send(Request {
        headers: Some((headers, block.extent)),
        has_caller: true,
        ..draft
    });
    let call = world.answer_of(request).unwrap();
    world.cancel(call);
    assert_eq!(
        world.stats().objects_live,
        2,
        "the function reads body and headers"
    );
    world.run("source");
    world.assert_empty();
}

#[test]
fn payload_sizes_at_every_edge_arrive_as_sent() {
    let mut world = World::new(spec());
    world.call("source");
    for size_bytes in [0, 1, 63, 64, 65, 1023, 1024, 1025, 65_536, 1 << 20] {
        let source = world.running("source");
        world.publish(source, Target::Next, Key::Auto(0), size_bytes);
        let f = world.running("f");
        assert_eq!(world.opened(f).inputs[0].size_bytes, size_bytes);
        world.done(f);
    }
    world.run("source");
    world.assert_empty();
}

#[test]
fn keys_and_groups_of_every_length_arrive_as_sent() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    for len in [1usize, 2, 31, 32, 33, 254, 255] {
        let key = vec![b'k'; len];
        let group = vec![0xff; 256 - len];
        let extent = world.allocate(source, 1);
        world.say(
            source,
            FromExecutor::Publish {
                ordinal: 0,
                delay_ns: 0,
                target: Target::Bucket(0),
                extent,
                size_bytes: 1,
                key: Key::Named(&key),
                group: &group,
            },
        );
        let f = world.running("f");
        let seen = world.opened(f).inputs[0].clone();
        assert_eq!(seen.key_text().as_bytes(), key);
        assert_eq!(seen.group, group);
        world.done(f);
    }
    world.done(source);
    world.assert_empty();
}

#[test]
fn a_release_without_room_is_kept_and_told_later() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    world.sink.release_room = Some(0);
    for _ in 0..10 {
        world.auto_by(source, "sink");
    }
    assert_eq!(world.stats().releases_pending, 10);
    assert_eq!(live(&world), 0, "they are dead and free in the ledger");
    world.sink.release_room = Some(4);
    world.event(Event::ReleaseRoom { executor: source });
    assert_eq!(world.stats().releases_pending, 6);
    world.sink.release_room = None;
    world.done(source);
    assert_eq!(
        world.stats().releases_pending,
        0,
        "any message of the owner tries again"
    );
    world.assert_empty();
}

#[test]
fn what_a_dead_owner_would_have_been_told_is_dropped() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    world.put_by(source, "unwatched", "k");
    world.sink.release_room = Some(0);
    world.auto_by(source, "sink");
    world.sink.release_room = None;
    world.die(source, Death::Signaled(6));
    assert_eq!(world.stats().releases_pending, 0);
    world.assert_empty();
}

#[test]
fn a_successor_adopts_what_is_live_in_its_region() {
    let mut world = World::new(spec());
    let first = world.call("source");
    let source = world.running("source");
    for key in ["a", "b", "c"] {
        world.put_by(source, "unwatched", key);
    }
    world.next_by(source);
    let f = world.running("f");
    // Another session's work on the same executor, with which it dies.
    world.done(source);
    world.call("source");
    let again = world.running("source");
    assert_eq!(again, source, "the last used is used again");
    world.die(source, Death::Signaled(11));
    assert_eq!(world.executor(source).incarnation, 2);
    assert_eq!(world.executor(source).adopted.len(), 4);
    // What it has adopted is released to it in the ordinary way.
    world.done(f);
    assert!(!world.is_open(first));
    world.assert_empty();
}

#[test]
fn adoption_of_thousands_of_objects_comes_in_pieces() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    for _ in 0..10_000 {
        world.auto_by(source, "unwatched");
    }
    world.next_by(source);
    let f = world.running("f");
    world.done(source);
    world.call("source");
    world.die(source, Death::Signaled(9));
    assert_eq!(world.executor(source).adopted.len(), 10_001);
    world.done(f);
    world.assert_empty();
}

#[test]
fn what_dies_without_an_owner_is_simply_free() {
    let mut spec = spec();
    spec.executors.min = 1;
    let mut world = World::new(spec);
    let call = world.call("source");
    let source = world.running("source");
    world.next_by(source);
    world.pass(1_000_000);
    let f = world.running("f");
    assert_ne!(source.slot, f.slot);
    world.automatic = false;
    world.die(source, Death::Signaled(9));
    assert!(!world.is_open(call));
    world.drop_letters(None);
    assert_eq!(world.stats().objects_live, 1, "f still reads its input");
    world.done(f);
    assert_eq!(world.stats().objects_live, 0);
    world.automatic = true;
    world.processes();
    world.assert_empty();
}

#[test]
fn overlapping_objects_of_a_liar_are_adopted_as_one_piece() {
    let mut world = World::new(spec());
    world.call("source");
    let source = world.running("source");
    let publish = |world: &mut World, id: ExecutorId, offset_units, len_units, key: &[u8]| {
        let extent = pheromone_shm::message::Extent {
            offset_units,
            len_units,
        };
        world.core.step(
            Event::Message {
                executor: id,
                message: FromExecutor::Publish {
                    ordinal: 0,
                    delay_ns: 0,
                    target: Target::Bucket(2),
                    extent,
                    size_bytes: 1,
                    key: Key::Named(key),
                    group: b"",
                },
            },
            world.now_ns,
            &mut world.sink,
        );
    };
    world.next_by(source);
    let f = world.running("f");
    publish(&mut world, source, 100, 10, b"p");
    publish(&mut world, source, 105, 10, b"q");
    publish(&mut world, source, 105, 2, b"r");
    publish(&mut world, source, 200, 1, b"s");
    let used = world.stats().used_bytes;
    world.done(source);
    world.call("source");
    assert_eq!(world.running("source"), source);
    world.die(source, Death::Signaled(9));
    let adopted = world.executor(source).adopted.clone();
    let pieces: Vec<_> = adopted
        .iter()
        .map(|e| (e.offset_units, e.len_units))
        .collect();
    assert_eq!(pieces, [(0, 1), (100, 15), (200, 1)]);
    assert!(world.stats().used_bytes < used);
    // Each is still where it was.
    let seen = world.get_by(f, "unwatched", "r").unwrap();
    assert_eq!(seen.offset_units, 105);
    world.executor(f).open.as_mut().unwrap().got.clear();
    world.done(f);
    world.assert_empty();
}

#[test]
fn inputs_that_do_not_fit_a_message_are_fetched() {
    let keys: Vec<String> = (0..1000).map(|n| format!("part-{n}")).collect();
    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut spec = spec();
    spec.buckets[4].triggers = vec![by_set(&names, &[2])];
    let mut world = World::new(spec);
    world.call("source");
    let source = world.running("source");
    for key in keys.iter().rev() {
        world.put_by(source, "set", key);
    }
    let g = world.running("g");
    assert_eq!(world.keys(g), keys);
    world.say(g, FromExecutor::FetchInputs { first: 990 });
    let (first, inputs) = world.executor(g).refetched.take().unwrap();
    assert_eq!(first, 990);
    let fetched: Vec<_> = inputs.iter().map(Seen::key_text).collect();
    assert_eq!(fetched, keys[990..]);
    world.done(g);
    world.done(source);
    world.assert_empty();
}
