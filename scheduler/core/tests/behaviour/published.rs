//! What goes wrong in the published system's triggers, each defect a test that would fail on it.

use pheromone_core::event::{Cause, Destination, ExecutorId, SessionId};
use pheromone_core::spec::{
    AppSpec, AtEnd, Entry, GroupClose, Keep, Scope, TriggerKind, TriggerSpec,
};
use pheromone_shm::message::{Ending, FromExecutor, Key, Target};

use crate::common::app::{app, batch, bucket, by_set, group, immediate, rounds, trigger, windows};
use crate::common::{APP, Call, End, MS, World};

/// `source` fills bucket `b`, whose triggers start `sink`.
fn world_of(triggers: Vec<TriggerSpec>) -> World {
    let mut spec: AppSpec = app(&["source", "sink"]);
    spec.executors.max = 8;
    spec.executors.min = 8;
    spec.entry = Some(Entry::Bucket(0));
    spec.buckets = vec![bucket("b", Keep::Session, triggers)];
    World::new(spec)
}

fn with(kind: TriggerKind, scope: Scope, at_end: AtEnd) -> World {
    world_of(vec![TriggerSpec {
        scope,
        at_end,
        ..trigger("t", kind, &[1])
    }])
}

fn submit(world: &mut World, group: &[u8]) -> Call {
    let destination = Destination::Bucket {
        bucket: 0,
        key: None,
        group,
    };
    let request = world.request(destination, true);
    world.answer_of(request).expect("it is let in")
}

fn answer_all(world: &mut World, id: ExecutorId) {
    for session in world.contributors(id) {
        world.respond_to(id, session);
    }
    world.done(id);
}

#[test]
fn by_time_has_no_timer_and_its_last_window_never_closes() {
    let mut world = with(windows(10 * MS, 10 * MS), Scope::Bucket, AtEnd::Drop);
    let call = submit(&mut world, b"");
    world.pass(10 * MS);
    let sink = world.running("sink");
    assert_eq!(world.opened(sink).inputs.len(), 1);
    answer_all(&mut world, sink);
    assert_eq!(world.ended(call).outcome, End::Responded);
}

#[test]
fn batches_rounds_and_windows_mix_sessions_and_only_the_last_is_answered() {
    for kind in [
        batch(3, None),
        windows(10 * MS, 10 * MS),
        rounds(3, 3, Some(50 * MS)),
    ] {
        let mut world = with(kind, Scope::Bucket, AtEnd::Drop);
        let calls = [(); 3].map(|()| submit(&mut world, b"r"));
        world.pass(10 * MS);
        let sink = world.running("sink");
        let own = SessionId(world.opened(sink).session);
        assert!(calls.iter().all(|call| call.session != own));
        answer_all(&mut world, sink);
        for call in calls {
            assert_eq!(world.ended(call).outcome, End::Responded);
        }
    }
}

#[test]
fn batches_rounds_and_windows_of_sessions_mix_what_is_not_of_one() {
    for (kind, at_end) in [
        (batch(2, None), AtEnd::Fire),
        (windows(10 * MS, 10 * MS), AtEnd::Wait),
        (rounds(2, 2, None), AtEnd::Fail),
    ] {
        let mut world = with(kind, Scope::Session, at_end);
        for _ in 0..2 {
            world.call("source");
        }
        let sources = world.all_running("source");
        for key in ["a", "b"] {
            for &source in &sources {
                world.put_by(source, "b", key);
            }
        }
        for source in sources {
            world.done(source);
        }
        world.pass(10 * MS);
        let sinks = world.all_running("sink");
        assert_eq!(sinks.len(), 2);
        for sink in sinks {
            let own = world.opened(sink).session;
            let inputs = &world.opened(sink).inputs;
            assert!(inputs.len() == 2 && inputs.iter().all(|input| input.session == own));
            world.done(sink);
        }
        world.assert_empty();
    }
}

#[test]
fn a_redundant_with_k_equal_to_n_loses_an_object_a_cycle() {
    let mut world = with(rounds(2, 2, None), Scope::Session, AtEnd::Fail);
    let call = world.call("source");
    let source = world.running("source");
    for round in 0..4 {
        for member in 0..2 {
            let (key, group) = (format!("{round}{member}"), round.to_string());
            world.group_by(source, "b", &key, &group);
        }
    }
    world.done(source);
    let all = [["00", "01"], ["10", "11"], ["20", "21"], ["30", "31"]];
    assert_eq!(world.run_all("sink"), all);
    assert_eq!(world.ended(call).outcome, End::Completed);
}

#[test]
fn one_missing_straggler_shifts_every_later_round() {
    let mut world = with(rounds(2, 3, None), Scope::Session, AtEnd::Fail);
    world.call("source");
    let source = world.running("source");
    // The third of round x never comes.
    for (key, group) in [
        ("x0", "x"),
        ("x1", "x"),
        ("y0", "y"),
        ("y1", "y"),
        ("y2", "y"),
    ] {
        world.group_by(source, "b", key, group);
    }
    world.done(source);
    assert_eq!(world.run_all("sink"), [["x0", "x1"], ["y0", "y1"]]);
    assert_eq!(world.stats().dropped_total, 1);
}

#[test]
fn a_set_re_arms_so_that_a_late_duplicate_fires_it_again() {
    let mut world = world_of(vec![by_set(&["a", "b"], &[1])]);
    let call = world.call("source");
    let source = world.running("source");
    for key in ["b", "a", "a", "b"] {
        world.put_by(source, "b", key);
    }
    world.done(source);
    // Once, and in the listed order, whichever came first.
    assert_eq!(world.run_all("sink"), [["a", "b"]]);
    assert_eq!(world.stats().error_events_total, 2);
    assert_eq!(world.ended(call).outcome, End::Completed);
}

#[test]
fn a_dynamic_group_ignores_sessions_and_fixes_its_sources_when_it_is_registered() {
    let close = GroupClose::SourcesAtRunTime;
    let mut world = with(group(close), Scope::Session, AtEnd::Fail);
    for _ in 0..2 {
        world.call("source");
    }
    let sources = world.all_running("source");
    for (&source, key) in sources.iter().zip(["mine", "yours"]) {
        world.group_by(source, "b", key, "g");
        let trigger = 0;
        world.say(
            source,
            FromExecutor::ExpectSources {
                trigger,
                sources: 1,
            },
        );
        world.say(source, FromExecutor::CloseSource { trigger });
    }
    for source in sources {
        world.done(source);
    }
    let mut all = world.run_all("sink");
    all.sort();
    assert_eq!(all, [["mine"], ["yours"]]);
}

#[test]
fn a_dynamic_join_never_joins_over_zero_items() {
    let mut world = with(TriggerKind::DynamicJoin, Scope::Session, AtEnd::Fail);
    let call = world.call("source");
    let source = world.running("source");
    let (trigger, more) = (0, false);
    let keys = &[];
    world.say(
        source,
        FromExecutor::Join {
            trigger,
            more,
            keys,
        },
    );
    world.done(source);
    assert_eq!(world.run_all("sink"), [Vec::<String>::new()]);
    assert_eq!(world.ended(call).outcome, End::Completed);
}

#[test]
fn a_function_with_a_direct_successor_can_feed_no_trigger() {
    let mut spec: AppSpec = app(&["source", "sink", "next"]);
    spec.functions[0].next = vec![2];
    spec.buckets = vec![bucket("b", Keep::Session, vec![immediate(&[1])])];
    let mut world = World::new(spec);
    world.call("source");
    let source = world.running("source");
    world.next_by(source);
    world.put_by(source, "b", "k");
    world.done(source);
    world.run("next");
    assert_eq!(world.run_all("sink"), [["k"]]);
    world.assert_empty();
}

#[test]
fn more_ready_invocations_than_free_executors_are_refused_instead_of_queued() {
    let mut spec: AppSpec = app(&["source", "sink"]);
    spec.executors.max = 1;
    spec.executors.min = 1;
    spec.buckets = vec![bucket("b", Keep::Session, vec![immediate(&[1])])];
    let mut world = World::new(spec);
    let call = world.call("source");
    let source = world.running("source");
    let keys: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    for key in &keys {
        world.put_by(source, "b", key);
    }
    world.done(source);
    let fired: Vec<String> = world.run_all("sink").into_iter().flatten().collect();
    assert_eq!(fired, keys);
    assert_eq!(world.ended(call).outcome, End::Completed);
}

#[test]
fn registering_an_app_twice_doubles_its_triggers() {
    let mut world = world_of(vec![immediate(&[1])]);
    let spec = world.sink.apps[&APP].clone();
    world.deploy(pheromone_core::event::AppId(1), spec);
    world.call("source");
    let source = world.running("source");
    world.publish(source, Target::Bucket(0), Key::Named(b"k"), 8);
    world.done(source);
    assert_eq!(world.run_all("sink"), [["k"]]);
}

#[test]
fn the_client_is_never_told_of_a_failure_behind_a_trigger() {
    let mut world = world_of(vec![immediate(&[1])]);
    let call = world.call("source");
    let source = world.running("source");
    world.put_by(source, "b", "k");
    world.done(source);
    let sink = world.running("sink");
    world.complete(sink, 3, Ending::Returned, "no");
    let Cause::Returned { status, message } = &world.ended(call).failure().cause else {
        panic!("it has failed");
    };
    assert_eq!((*status, message.as_str()), (3, "no"));
}
