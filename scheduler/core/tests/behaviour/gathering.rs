//! Triggers that gather the objects of one session: when each fires, with what, whether the session
//! waits for it, and what becomes of what is left.

use pheromone_core::event::{Cause, ExecutorId};
use pheromone_core::spec::{AppSpec, AtEnd, GroupClose, Keep, TriggerKind, TriggerSpec};
use pheromone_shm::message::{Ending, FromExecutor};
use pheromone_shm::wire::put_join_key;

use crate::common::app::{app, batch, bucket, by_set, group, immediate, trigger, windows};
use crate::common::{APP, Call, End, MS, World};

/// `source` fills bucket `b`; its only trigger starts `sink`.
fn spec(kind: TriggerKind, at_end: AtEnd) -> AppSpec {
    spec_of(vec![TriggerSpec {
        at_end,
        ..trigger("t", kind, &[1])
    }])
}

fn after_even_empty(function: u16) -> TriggerKind {
    TriggerKind::DynamicGroup {
        close: GroupClose::After(function),
        fire_empty: true,
        order_by_key: false,
    }
}

fn spec_of(triggers: Vec<TriggerSpec>) -> AppSpec {
    let mut spec = app(&["source", "sink", "other"]);
    spec.buckets = vec![bucket("b", Keep::Session, triggers)];
    spec
}

fn put_all(world: &mut World, source: ExecutorId, keys: &[&str]) {
    for key in keys {
        world.put_by(source, "b", key);
    }
}

fn waits_for(world: &World, call: Call) -> String {
    let Cause::Waiting(text) = &world.ended(call).failure().cause else {
        panic!("it was waiting for something");
    };
    text.clone()
}

#[test]
fn a_batch_fires_for_every_count_and_the_rest_at_the_end() {
    let mut world = World::new(spec(batch(2, None), AtEnd::Fire));
    let call = world.call("source");
    let source = world.running("source");
    put_all(&mut world, source, &["a", "b", "c", "d", "e"]);
    world.done(source);
    assert_eq!(
        world.run_all("sink"),
        [vec!["a", "b"], vec!["c", "d"], vec!["e"]]
    );
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_batch_that_lingers_keeps_its_session_open_until_it_has_fired() {
    let mut world = World::new(spec(batch(10, Some(5 * MS)), AtEnd::Wait));
    let call = world.call("source");
    let source = world.running("source");
    put_all(&mut world, source, &["a"]);
    let first_ns = world.now_ns;
    world.pass(3 * MS);
    put_all(&mut world, source, &["b"]);
    world.done(source);
    world.pass(2 * MS - 1);
    assert!(world.run_all("sink").is_empty() && world.is_open(call));
    world.pass(1);
    let window = world.opened(world.running("sink")).window;
    assert_eq!(window, Some((first_ns, first_ns + 3 * MS)));
    assert_eq!(world.run_all("sink"), [["a", "b"]]);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn the_last_window_fires_by_the_clock_although_nothing_more_arrives() {
    let kind = windows(10 * MS, 10 * MS);
    let mut world = World::new(spec(kind, AtEnd::Wait));
    let call = world.call("source");
    let source = world.running("source");
    put_all(&mut world, source, &["a"]);
    let origin_ns = world.now_ns;
    world.pass(10 * MS);
    let sink = world.running("sink");
    let window = world.opened(sink).window;
    assert_eq!(window, Some((origin_ns, origin_ns + 10 * MS)));
    assert_eq!(world.run_all("sink"), [["a"]]);
    world.pass(3 * MS);
    put_all(&mut world, source, &["b", "c"]);
    world.done(source);
    assert!(world.is_open(call), "its window has not ended");
    world.pass(7 * MS);
    assert_eq!(world.run_all("sink"), [["b", "c"]]);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_window_dies_with_its_session() {
    let kind = TriggerKind::ByTime {
        window_ns: 10 * MS,
        slide_ns: 5 * MS,
        fire_empty: true,
        per_group: true,
    };
    let mut world = World::new(spec(kind, AtEnd::Wait));
    let call = world.call("source");
    let source = world.running("source");
    put_all(&mut world, source, &["a"]);
    world.cancel(call);
    world.done(source);
    world.pass(100 * MS);
    assert!(world.run_all("sink").is_empty());
    world.assert_empty();
}

fn k_of_n(k: u32, n: u32, cancel_rest: Vec<u16>) -> TriggerKind {
    TriggerKind::Redundant {
        k_of_n: Some((k, n)),
        cancel_rest,
        expire_ns: None,
    }
}

#[test]
fn a_round_fires_on_the_kth_object_and_what_is_past_n_is_an_error_event() {
    let mut world = World::new(spec(k_of_n(2, 3, vec![]), AtEnd::Fail));
    let call = world.call("source");
    let source = world.running("source");
    put_all(&mut world, source, &["a", "b", "c"]);
    assert_eq!(world.stats().dropped_total, 1);
    assert_eq!(world.stats().error_events_total, 0);
    put_all(&mut world, source, &["d"]);
    assert_eq!(world.stats().error_events_total, 1);
    world.done(source);
    assert_eq!(world.run_all("sink"), [["a", "b"]]);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn rounds_are_by_group_and_do_not_shift_each_other() {
    let mut world = World::new(spec(k_of_n(2, 2, vec![]), AtEnd::Drop));
    world.call("source");
    let source = world.running("source");
    for (key, group) in [
        ("a", "r1"),
        ("b", "r2"),
        ("c", "r3"),
        ("d", "r2"),
        ("e", "r3"),
    ] {
        world.group_by(source, "b", key, group);
    }
    world.done(source);
    assert_eq!(world.run_all("sink"), [["b", "d"], ["c", "e"]]);
    assert_eq!(world.stats().dropped_total, 1, "the straggler of r1");
    world.assert_empty();
}

/// `source` starts `other` for each object of `work`; the first object in `b` is enough, and
/// cancels the rest of them.
fn race(executors: u16) -> AppSpec {
    let mut spec = spec(k_of_n(1, 3, vec![2]), AtEnd::Drop);
    spec.executors.max = executors;
    spec.executors.min = executors;
    let work = vec![immediate(&[2])];
    spec.buckets.push(bucket("work", Keep::UntilConsumed, work));
    spec
}

#[test]
fn a_round_that_has_fired_cancels_the_rest_of_its_own_group() {
    let mut world = World::new(race(4));
    let call = world.call("source");
    let source = world.running("source");
    for (key, group) in [("1", "r1"), ("2", "r1"), ("3", "r2"), ("4", "r1")] {
        world.group_by(source, "work", key, group);
    }
    world.done(source);
    let key_of = |world: &World, id| world.keys(id)[0].clone();
    let workers = world.all_running("other");
    assert_eq!(workers.len(), 4);
    let of = |world: &World, key: &str| {
        let found = workers.iter().find(|&&id| key_of(world, id) == key);
        *found.expect("it runs")
    };
    let [first, second, stranger, last] = ["1", "2", "3", "4"].map(|key| of(&world, key));
    world.group_by(first, "b", "answer", "r1");
    assert!(world.opened(second).cancelled && world.opened(last).cancelled);
    assert!(!world.opened(stranger).cancelled, "it is of another round");
    for id in [second, last, stranger] {
        world.complete(id, 7 * i32::from(id != stranger), Ending::Returned, "");
    }
    assert!(world.is_open(call), "what was cancelled cannot fail it");
    // The first is of the round too: it is cancelled, and returns.
    world.done(first);
    assert_eq!(world.run_all("sink"), [["answer"]]);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_round_that_has_fired_drops_what_is_queued_of_its_own_group() {
    let mut world = World::new(race(1));
    let call = world.call("source");
    let source = world.running("source");
    for (key, group) in [("1", "r1"), ("2", "r1"), ("3", "r2"), ("4", "r1")] {
        world.group_by(source, "work", key, group);
    }
    world.done(source);
    let first = world.running("other");
    assert_eq!(world.keys(first), ["1"]);
    world.group_by(first, "b", "answer", "r1");
    world.done(first);
    assert_eq!(world.stats().queued + world.stats().running, 2);
    let stranger = world.running("other");
    assert_eq!(world.keys(stranger), ["3"]);
    world.done(stranger);
    assert_eq!(world.run_all("sink"), [["answer"]]);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_round_without_a_group_cancels_all_of_its_session_whether_it_runs_or_is_queued() {
    let mut world = World::new(race(2));
    let call = world.call("source");
    let source = world.running("source");
    for (key, group) in [("1", ""), ("2", "r1"), ("3", ""), ("4", "r2")] {
        world.group_by(source, "work", key, group);
    }
    world.done(source);
    let other_session = world.put("work", Some("5"));
    let workers = world.all_running("other");
    let [first, second] = workers[..] else {
        panic!("two run, two are queued: {workers:?}");
    };
    world.put_by(first, "b", "answer");
    assert!(world.opened(first).cancelled && world.opened(second).cancelled);
    assert_eq!(world.stats().queued, 2, "the other session's, and `sink`");
    world.complete(second, 7, Ending::Returned, "");
    // The place of the one that has returned goes to the other session's, not to "3" or "4".
    assert_eq!(world.keys(second), ["5"]);
    world.done(second);
    world.done(first);
    assert_eq!(world.run_all("sink"), [["answer"]]);
    assert!(world.all_running("other").is_empty());
    assert_eq!(world.ended(call).outcome, End::Completed);
    assert_eq!(world.ended(other_session).outcome, End::Completed);
    world.assert_empty();
}

fn join(world: &mut World, id: ExecutorId, keys: &[&str]) {
    let mut encoded = Vec::new();
    for key in keys {
        put_join_key(&mut encoded, key.as_bytes());
    }
    let keys = encoded.as_slice();
    world.say(
        id,
        FromExecutor::Join {
            trigger: 0,
            more: false,
            keys,
        },
    );
}

#[test]
fn a_join_fires_in_listed_order_whichever_came_first() {
    let mut world = World::new(spec(TriggerKind::DynamicJoin, AtEnd::Fail));
    let call = world.call("source");
    let source = world.running("source");
    put_all(&mut world, source, &["b"]);
    join(&mut world, source, &["a", "b"]);
    put_all(&mut world, source, &["c", "a"]);
    join(&mut world, source, &["c", "b"]);
    join(&mut world, source, &[]);
    world.done(source);
    let none: Vec<String> = Vec::new();
    assert_eq!(
        world.run_all("sink"),
        [
            vec!["a".to_owned(), "b".into()],
            vec!["c".into(), "b".into()],
            none
        ]
    );
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_join_whose_key_never_comes_ends_its_session_with_what_it_waited_for() {
    let mut world = World::new(spec(TriggerKind::DynamicJoin, AtEnd::Fail));
    let call = world.call("source");
    let source = world.running("source");
    join(&mut world, source, &["a", "b"]);
    put_all(&mut world, source, &["a"]);
    world.done(source);
    let text = waits_for(&world, call);
    assert!(
        text.starts_with("waiting for: trigger `t` of bucket `b`") && text.contains("`b`"),
        "{text}"
    );
    world.assert_empty();
}

#[test]
fn objects_that_no_list_names_keep_no_session_open() {
    let mut world = World::new(spec(TriggerKind::DynamicJoin, AtEnd::Fail));
    let call = world.call("source");
    let source = world.running("source");
    put_all(&mut world, source, &["a", "b"]);
    world.done(source);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_group_closes_when_its_sources_have_succeeded() {
    let mut spec = spec(group(GroupClose::Sources(2)), AtEnd::Fail);
    spec.functions[0].next = vec![2, 2];
    spec.functions[0].next.dedup();
    let mut world = World::new(spec);
    let call = world.call("source");
    let source = world.running("source");
    world.next_by(source);
    world.next_by(source);
    world.done(source);
    let workers = world.all_running("other");
    assert_eq!(workers.len(), 2);
    for (at, &id) in workers.iter().enumerate() {
        world.group_by(id, "b", &format!("x{at}"), "one");
        world.group_by(id, "b", &format!("y{at}"), "two");
        world.say(id, FromExecutor::CloseSource { trigger: 0 });
        // Said twice it counts once.
        world.say(id, FromExecutor::CloseSource { trigger: 0 });
        assert!(world.all_running("sink").is_empty(), "it has not succeeded");
        world.done(id);
    }
    assert_eq!(world.run_all("sink"), [["x0", "x1"], ["y0", "y1"]]);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_group_whose_source_dies_before_closing_is_told_of_at_the_end() {
    let mut world = World::new(spec(group(GroupClose::Sources(1)), AtEnd::Fail));
    let call = world.call("source");
    let source = world.running("source");
    put_all(&mut world, source, &["a"]);
    world.done(source);
    let text = waits_for(&world, call);
    assert!(text.contains("source"), "{text}");
    world.assert_empty();
}

/// `source` starts `other` by `next`; what both publish is reduced by `sink` after all of them.
fn map_reduce() -> AppSpec {
    let mut spec = spec(group(GroupClose::After(2)), AtEnd::Fail);
    spec.functions[0].next = vec![2];
    spec
}

#[test]
fn a_barrier_waits_for_all_that_is_upstream_and_for_nothing_else() {
    let mut world = World::new(map_reduce());
    let call = world.call("source");
    let source = world.running("source");
    for _ in 0..3 {
        world.next_by(source);
    }
    let mut key = 0;
    let mut map = |world: &mut World| {
        let id = world.running("other");
        for group in ["g1", "g2"] {
            key += 1;
            world.group_by(id, "b", &key.to_string(), group);
        }
        world.done(id);
    };
    map(&mut world);
    world.done(source);
    map(&mut world);
    assert!(world.all_running("sink").is_empty(), "one is left");
    map(&mut world);
    assert_eq!(world.run_all("sink"), [["1", "3", "5"], ["2", "4", "6"]]);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_loop_gets_one_firing_per_turn() {
    let mut spec = map_reduce();
    spec.functions[1].next = vec![2];
    let mut world = World::new(spec);
    let call = world.call("source");
    let source = world.running("source");
    world.next_by(source);
    world.done(source);
    for turn in 0..5 {
        for key in ["a", "b"] {
            let id = world.running("other");
            world.put_by(id, "b", &format!("{turn}-{key}"));
            if key == "b" || turn == 0 {
                world.put_by(id, "b", &format!("{turn}-{key}-more"));
            }
            world.done(id);
            if turn == 0 {
                break;
            }
        }
        let sink = world.running("sink");
        assert_eq!(
            world.opened(sink).inputs.len(),
            if turn == 0 { 2 } else { 3 }
        );
        if turn < 4 {
            world.next_by(sink);
            world.next_by(sink);
        }
        world.done(sink);
    }
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn an_empty_barrier_fires_once_where_it_is_asked_to() {
    let mut spec = map_reduce();
    spec.buckets[0].triggers[0].kind = after_even_empty(2);
    let mut world = World::new(spec);
    let call = world.call("source");
    world.run("source");
    let sink = world.running("sink");
    assert!(world.opened(sink).inputs.is_empty());
    world.done(sink);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn an_empty_barrier_does_not_fire_where_nothing_upstream_has_run() {
    let mut spec = map_reduce();
    spec.buckets[0].triggers[0].kind = after_even_empty(2);
    let set = TriggerSpec {
        at_end: AtEnd::Drop,
        ..by_set(&["x", "y"], &[2])
    };
    spec.buckets.push(bucket("half", Keep::Session, vec![set]));
    let mut world = World::new(spec);
    // Half a set could have fired upstream, and never does.
    let put = world.put("half", Some("x"));
    assert!(world.all_running("sink").is_empty());
    assert_eq!(world.stats().dropped_total, 1);
    assert_eq!(world.ended(put).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_call_that_a_barrier_refuses_is_not_taken_for_an_object() {
    let mut spec = map_reduce();
    spec.buckets[0].triggers[0].kind = after_even_empty(2);
    let mut world = World::new(spec);
    let call = world.call("source");
    let source = world.running("source");
    let (trigger, sources) = (0, 3);
    world.say(source, FromExecutor::ExpectSources { trigger, sources });
    assert_eq!(world.stats().error_events_total, 1);
    world.done(source);
    let sink = world.running("sink");
    assert!(world.opened(sink).inputs.is_empty());
    world.done(sink);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn an_empty_barrier_waits_for_another_that_can_still_fire_into_it() {
    let mut spec = app(&["source", "map", "reduce", "report"]);
    let barrier = |name: &str, after: u16, function: u16| {
        let kind = after_even_empty(after);
        let barrier = TriggerSpec {
            at_end: AtEnd::Fail,
            ..trigger(name, kind, &[function])
        };
        bucket(name, Keep::Session, vec![barrier])
    };
    // The one further down stands first in the manifest.
    spec.buckets = vec![barrier("reduced", 2, 3), barrier("mapped", 1, 2)];
    spec.functions[0].next = vec![1];
    let sends = [vec![], vec![1], vec![0], vec![]];
    for (function, sends) in spec.functions.iter_mut().zip(sends) {
        function.sends = Some(sends);
    }
    let mut world = World::new(spec);
    let call = world.call("source");
    world.run("source");
    assert!(world.all_running("report").is_empty());
    let reduce = world.running("reduce");
    world.put_by(reduce, "reduced", "sum");
    world.done(reduce);
    let report = world.running("report");
    assert_eq!(world.keys(report), ["sum"]);
    world.done(report);
    assert!(world.all_running("report").is_empty(), "it fires once");
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn of_two_barriers_after_one_function_that_fires_into_it_comes_first() {
    let mut spec = app(&["source", "map", "report"]);
    let barrier = |name: &str, function: u16| {
        let kind = after_even_empty(1);
        bucket(name, Keep::Session, vec![trigger(name, kind, &[function])])
    };
    // What reports stands first in the manifest; the other one starts `map` again.
    spec.buckets = vec![barrier("report", 2), barrier("again", 1)];
    spec.functions[0].next = vec![1];
    let sends = [vec![], vec![0], vec![]];
    for (function, sends) in spec.functions.iter_mut().zip(sends) {
        function.sends = Some(sends);
    }
    let mut world = World::new(spec);
    let call = world.call("source");
    world.run("source");
    assert!(world.all_running("report").is_empty());
    let again = world.running("map");
    assert!(world.opened(again).inputs.is_empty());
    world.put_by(again, "report", "sum");
    world.done(again);
    let report = world.running("report");
    assert_eq!(world.keys(report), ["sum"]);
    world.done(report);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_barrier_waits_for_a_set_that_can_still_fire_upstream() {
    let mut spec = map_reduce();
    let set = TriggerSpec {
        at_end: AtEnd::Drop,
        ..trigger(
            "set",
            TriggerKind::BySet {
                keys: vec!["x".into(), "y".into()],
            },
            &[2],
        )
    };
    spec.buckets
        .insert(0, bucket("half", Keep::Session, vec![set]));
    let mut world = World::new(spec);
    let call = world.call("source");
    let source = world.running("source");
    world.put_by(source, "half", "x");
    world.put_by(source, "b", "a");
    world.done(source);
    // Half a set could have fired upstream: it is dropped first, then the barrier closes.
    assert_eq!(world.stats().dropped_total, 1);
    assert_eq!(world.run_all("sink"), [["a"]]);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn more_inputs_than_an_invocation_may_have_fail_the_session() {
    let mut spec = map_reduce();
    spec.limits.inputs = 3;
    let mut world = World::new(spec);
    let call = world.call("source");
    let source = world.running("source");
    put_all(&mut world, source, &["a", "b", "c"]);
    assert!(world.is_open(call));
    put_all(&mut world, source, &["d"]);
    let Cause::Limit(why) = &world.ended(call).failure().cause else {
        panic!("a limit was passed");
    };
    assert!(
        why.contains("limits.inputs") && why.contains("`t`"),
        "{why}"
    );
    world.done(source);
    world.assert_empty();
}

#[test]
fn more_than_an_invocation_may_have_is_told_of_at_the_end_too() {
    let kind = TriggerKind::Redundant {
        k_of_n: None,
        cancel_rest: vec![],
        expire_ns: None,
    };
    let mut spec = spec(kind, AtEnd::Fire);
    spec.limits.inputs = 2;
    let mut world = World::new(spec);
    let call = world.call("source");
    let source = world.running("source");
    put_all(&mut world, source, &["a", "b", "c"]);
    world.done(source);
    let Cause::Limit(why) = &world.ended(call).failure().cause else {
        panic!("a limit was passed");
    };
    assert!(why.contains("limits.inputs"), "{why}");
    assert!(world.run_all("sink").is_empty());
    world.assert_empty();
}

#[test]
fn several_sessions_keep_their_own_states() {
    let mut world = World::new(spec(batch(2, None), AtEnd::Fire));
    let calls = [world.call("source"), world.call("source")];
    let sources = world.all_running("source");
    for key in ["a", "b"] {
        for &source in &sources {
            world.put_by(source, "b", key);
        }
    }
    for &source in &sources {
        world.done(source);
    }
    assert_eq!(world.run_all("sink"), [["a", "b"], ["a", "b"]]);
    for call in calls {
        assert_eq!(world.ended(call).outcome, End::Completed);
    }
    assert_eq!(world.core.stats(APP).expect("it is there").dropped_total, 0);
    world.assert_empty();
}
