//! Custom triggers: what their process is told and when, what its answers do, and what becomes of
//! sessions and objects when it fails.

use pheromone_core::event::{
    AppId, Cause, Death, Destination, Event, ExecutorId, Request, SessionId,
};
use pheromone_core::spec::{AppSpec, AtEnd, GroupClose, Keep, Pool, TriggerKind, TriggerSpec};
use pheromone_shm::events::EVENTS_ALWAYS_FIT;
use pheromone_shm::message::{ALL_FUNCTIONS, Ending, FromExecutor};

use crate::common::app::{app, batch, bucket, group, trigger};
use crate::common::{APP, Call, End, MS, Told, World};

const TIMEOUT_NS: u64 = 100 * MS;
const SINK: u16 = 1;
const OTHER: u16 = 2;

fn custom(keep: bool) -> TriggerKind {
    TriggerKind::Custom {
        config: Vec::new(),
        timeout_ns: TIMEOUT_NS,
        keep,
    }
}

/// `source` fills bucket `b`, whose custom trigger may fire `sink` and `other`.
fn spec(keep: bool, at_end: AtEnd) -> AppSpec {
    spec_of(vec![TriggerSpec {
        at_end,
        ..trigger("t", custom(keep), &[SINK, OTHER])
    }])
}

fn spec_of(triggers: Vec<TriggerSpec>) -> AppSpec {
    let mut spec = app(&["source", "sink", "other"]);
    spec.executors = Pool { min: 4, max: 4 };
    spec.buckets = vec![bucket("b", Keep::UntilConsumed, triggers)];
    spec
}

fn world() -> World {
    World::new(spec(false, AtEnd::Drop))
}

/// A session whose `source` has put these objects and runs on.
fn started(world: &mut World, keys: &[&str]) -> (Call, ExecutorId) {
    let call = world.call("source");
    let sources = world.all_running("source");
    let source = *sources
        .iter()
        .find(|&&id| world.opened(id).session == call.session.0)
        .expect("it has been started");
    for key in keys {
        world.put_by(source, "b", key);
    }
    (call, source)
}

/// The trigger's call returns 0.
fn answer(world: &mut World) {
    let id = world.trigger();
    world.done(id);
}

/// The trigger fires these objects and returns.
fn fire(world: &mut World, call: Call, numbers: &[u64]) {
    let id = world.trigger();
    world.fire_by(id, SINK, call.session, numbers);
    world.done(id);
}

fn is_told(world: &World, expected: &[&str]) {
    assert_eq!(world.told(), expected);
}

/// The keys of what runs `sink`.
fn sink_keys(world: &World) -> Vec<Vec<String>> {
    let mut running = world.all_running("sink");
    running.sort_by_key(|&id| world.opened(id).invocation);
    running.iter().map(|&id| world.keys(id)).collect()
}

fn cause(world: &World, call: Call) -> String {
    match &world.ended(call).failure().cause {
        Cause::Trigger(text) | Cause::Waiting(text) => text.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn its_process_is_one_of_its_own_beyond_the_pool() {
    let world = world();
    let spec = &world.sink.apps[&APP];
    assert_eq!(
        spec.executor_slots(),
        spec.executors.max + spec.limits.waiters + 1
    );
    assert_eq!(spec.ingress_slot(), spec.executor_slots());
    assert!(
        world.sink.is_alive(world.trigger()),
        "started at deployment"
    );
    assert_eq!(world.stats().executors, 4, "the pool's, which are `min`");
}

#[test]
fn it_is_told_of_objects_as_they_come_and_of_what_came_meanwhile_together() {
    let mut world = world();
    let (_, source) = started(&mut world, &["a"]);
    is_told(&world, &["a"]);
    world.put_by(source, "b", "b");
    world.put_by(source, "b", "c");
    is_told(&world, &["a"]);
    answer(&mut world);
    is_told(&world, &["b", "c"]);
}

#[test]
fn a_call_tells_no_more_than_fits_and_the_next_the_rest() {
    let mut world = world();
    let (_, source) = started(&mut world, &["first"]);
    for _ in 0..EVENTS_ALWAYS_FIT + 3 {
        world.auto_by(source, "b");
    }
    answer(&mut world);
    assert_eq!(world.told().len(), EVENTS_ALWAYS_FIT);
    answer(&mut world);
    assert_eq!(world.told().len(), 3);
}

#[test]
fn what_it_fires_runs_with_those_objects_in_the_order_given_when_its_call_has_returned() {
    let mut world = world();
    let (call, source) = started(&mut world, &["a"]);
    world.put_by(source, "b", "b");
    answer(&mut world);
    let id = world.trigger();
    world.fire_by(id, SINK, call.session, &[1, 0]);
    assert!(sink_keys(&world).is_empty(), "not before");
    world.done(id);
    assert_eq!(sink_keys(&world), [["b", "a"]]);
    world.run("sink");
    world.done(source);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn it_fires_one_of_its_functions_or_all_of_them() {
    let mut world = world();
    let (call, source) = started(&mut world, &["a"]);
    world.put_by(source, "b", "b");
    answer(&mut world);
    let id = world.trigger();
    world.fire_by(id, OTHER, call.session, &[0]);
    world.fire_by(id, ALL_FUNCTIONS, call.session, &[1]);
    world.done(id);
    assert_eq!(sink_keys(&world), [["b"]]);
    world.run("sink");
    let mut others = world.all_running("other");
    others.sort_by_key(|&id| world.opened(id).invocation);
    let keys: Vec<_> = others.iter().map(|&id| world.keys(id)).collect();
    assert_eq!(keys, [["a"], ["b"]]);
}

#[test]
fn a_long_list_comes_in_pieces() {
    let mut world = world();
    let (call, source) = started(&mut world, &["a"]);
    world.put_by(source, "b", "b");
    answer(&mut world);
    let id = world.trigger();
    for (number, more) in [(0_u64, true), (1, false)] {
        world.say(
            id,
            FromExecutor::Fire {
                function: SINK,
                more,
                session: call.session.0,
                objects: &number.to_le_bytes(),
            },
        );
    }
    world.done(id);
    assert_eq!(sink_keys(&world), [["a", "b"]]);
}

#[test]
fn what_is_dropped_is_gone_and_counted() {
    let mut world = world();
    let (call, source) = started(&mut world, &["a"]);
    let id = world.trigger();
    world.drop_by(id, call.session, &[0]);
    world.done(id);
    assert_eq!(world.stats().dropped_total, 1);
    world.done(source);
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn what_has_fired_may_fire_again_where_the_manifest_keeps_it() {
    let mut world = World::new(spec(true, AtEnd::Drop));
    let (call, source) = started(&mut world, &["a"]);
    fire(&mut world, call, &[0]);
    world.put_by(source, "b", "b");
    let id = world.trigger();
    world.fire_by(id, SINK, call.session, &[0, 1]);
    world.drop_by(id, call.session, &[0, 1]);
    world.done(id);
    assert_eq!(sink_keys(&world), [vec!["a"], vec!["a", "b"]]);
    for _ in 0..2 {
        world.run("sink");
    }
    world.done(source);
    assert_eq!(
        world.ended(call).outcome,
        End::Completed,
        "nothing is pending"
    );
    world.assert_empty();
}

#[test]
fn what_has_fired_cannot_fire_again_elsewhere() {
    let mut world = world();
    let (call, _) = started(&mut world, &["a"]);
    let id = world.trigger();
    world.fire_by(id, SINK, call.session, &[0]);
    world.fire_by(id, OTHER, call.session, &[0]);
    world.done(id);
    assert!(
        sink_keys(&world).is_empty(),
        "the verdict is void as a whole"
    );
    is_told(&world, &["a"]);
}

#[test]
fn its_objects_live_as_long_as_they_are_pending() {
    let mut world = world();
    let (call, source) = started(&mut world, &["a"]);
    answer(&mut world);
    world.done(source);
    assert_eq!(
        world.stats().objects_live,
        1,
        "until the end has been answered"
    );
    answer(&mut world);
    assert!(!world.is_open(call));
    world.assert_empty();
}

#[test]
fn a_session_is_open_until_it_has_answered_for_its_objects() {
    let mut world = world();
    let (call, source) = started(&mut world, &["a"]);
    world.done(source);
    assert!(world.is_open(call));
    let id = world.trigger();
    world.drop_by(id, call.session, &[0]);
    world.done(id);
    assert_eq!(world.ended(call).outcome, End::Completed);
}

#[test]
fn it_hears_of_the_end_when_nothing_else_keeps_the_session_open() {
    let mut world = world();
    let (call, source) = started(&mut world, &["a"]);
    answer(&mut world);
    is_told(&world, &[]);
    world.done(source);
    is_told(&world, &["end"]);
    let id = world.trigger();
    assert_eq!(
        world.executor(id).call.as_deref(),
        Some(&[Told::SessionEnd(call.session.0)][..])
    );
    fire(&mut world, call, &[0]);
    assert_eq!(
        sink_keys(&world),
        [["a"]],
        "which makes the session busy again"
    );
    assert!(world.is_open(call));
    world.run("sink");
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_session_of_which_nothing_is_pending_ends_without_asking() {
    let mut world = world();
    let (call, source) = started(&mut world, &["a"]);
    fire(&mut world, call, &[0]);
    world.run("sink");
    world.done(source);
    assert!(!world.is_open(call));
    is_told(&world, &[]);
}

#[test]
fn what_is_pending_after_the_end_is_dropped_and_counted() {
    let mut world = world();
    let (call, source) = started(&mut world, &["a"]);
    answer(&mut world);
    world.done(source);
    answer(&mut world);
    assert_eq!(world.ended(call).outcome, End::Completed);
    assert_eq!(world.stats().dropped_total, 1);
    world.assert_empty();
}

#[test]
fn what_is_pending_after_the_end_fails_the_session_where_the_manifest_says_so() {
    let mut world = World::new(spec(false, AtEnd::Fail));
    let (call, source) = started(&mut world, &["a"]);
    answer(&mut world);
    world.done(source);
    assert!(world.is_open(call));
    answer(&mut world);
    let text = "waiting for: trigger `t` of bucket `b` has neither fired nor dropped 1 object";
    assert_eq!(cause(&world, call), text);
    world.assert_empty();
}

#[test]
fn it_hears_of_the_end_again_after_something_has_fired() {
    let mut world = World::new(spec(true, AtEnd::Drop));
    let (call, source) = started(&mut world, &["a"]);
    answer(&mut world);
    world.done(source);
    fire(&mut world, call, &[0]);
    is_told(&world, &[]);
    world.run("sink");
    is_told(&world, &["end"]);
    answer(&mut world);
    assert!(!world.is_open(call));
}

#[test]
fn other_triggers_fire_before_it_hears_of_the_end_and_drop_after() {
    let batch = |name: &str, at_end| TriggerSpec {
        at_end,
        ..trigger(name, batch(10, None), &[OTHER])
    };
    let mut world = World::new(spec_of(vec![
        batch("drops", AtEnd::Drop),
        TriggerSpec {
            at_end: AtEnd::Drop,
            ..trigger("t", custom(false), &[SINK])
        },
        batch("fires", AtEnd::Fire),
    ]));
    let (call, source) = started(&mut world, &["a"]);
    answer(&mut world);
    world.done(source);
    is_told(&world, &[]);
    world.run("other");
    is_told(&world, &["end"]);
    assert_eq!(world.stats().dropped_total, 0);
    answer(&mut world);
    assert_eq!(world.stats().dropped_total, 2);
    assert!(!world.is_open(call));
}

#[test]
fn a_group_upstream_of_which_it_may_fire_waits_until_nothing_is_pending() {
    let after = group(GroupClose::After(SINK));
    let mut spec = spec_of(vec![TriggerSpec {
        at_end: AtEnd::Drop,
        ..trigger("t", custom(false), &[SINK])
    }]);
    spec.buckets.push(bucket(
        "g",
        Keep::Session,
        vec![trigger("after", after, &[OTHER])],
    ));
    for function in &mut spec.functions {
        function.sends = Some(vec![]);
    }
    spec.functions[0].sends = Some(vec![0, 1]);
    let mut world = World::new(spec);
    let (call, source) = started(&mut world, &["a"]);
    world.put_by(source, "g", "x");
    answer(&mut world);
    world.done(source);
    assert!(
        world.all_running("other").is_empty(),
        "`a` may still fire into `sink`"
    );
    answer(&mut world);
    world.run("other");
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_firing_that_lacks_a_withdrawn_object_leaves_the_others_pending() {
    let after = group(GroupClose::After(SINK));
    let mut spec = spec_of(vec![TriggerSpec {
        at_end: AtEnd::Drop,
        ..trigger("t", custom(false), &[SINK])
    }]);
    spec.buckets.push(bucket(
        "g",
        Keep::Session,
        vec![trigger("after", after, &[OTHER])],
    ));
    for function in &mut spec.functions {
        function.sends = Some(vec![]);
    }
    spec.functions[0].sends = Some(vec![0, 1]);
    spec.functions[usize::from(OTHER)].sends = Some(vec![0]);
    for fires_alone in [true, false] {
        let mut world = World::new(spec.clone());
        let (call, source) = started(&mut world, &["a"]);
        world.put_by(source, "g", "x");
        answer(&mut world);
        world.done(source);
        // Nothing has been said of `a` at the end: it is dropped, and the group closes.
        answer(&mut world);
        assert_eq!(world.stats().dropped_total, 1);
        let other = world.running("other");
        world.put_by(other, "b", "late");
        is_told(&world, &["late"]);
        fire(&mut world, call, &[0, 1]);
        assert!(sink_keys(&world).is_empty());
        world.done(other);
        is_told(&world, &["end"]);
        if fires_alone {
            fire(&mut world, call, &[1]);
            assert_eq!(sink_keys(&world), [["late"]]);
            world.run("sink");
        } else {
            answer(&mut world);
            assert_eq!(world.stats().dropped_total, 2, "nothing is lost uncounted");
        }
        assert_eq!(world.ended(call).outcome, End::Completed);
        world.assert_empty();
    }
}

#[test]
fn a_tick_comes_at_its_time_and_the_last_one_asked_for_counts() {
    let mut world = world();
    let (_, _source) = started(&mut world, &["a"]);
    let id = world.trigger();
    for in_ms in [5, 10] {
        let time_ns = world.now_ns + in_ms * MS;
        world.say(id, FromExecutor::TickAt { time_ns });
    }
    world.done(id);
    let due_ns = world.now_ns + 10 * MS;
    world.pass(10 * MS - 1);
    is_told(&world, &[]);
    world.pass(1);
    assert_eq!(
        world.executor(id).call.as_deref(),
        Some(&[Told::Tick(due_ns)][..])
    );
    answer(&mut world);
    world.pass(100 * MS);
    is_told(&world, &[]);
}

#[test]
fn a_tick_can_be_called_off_and_keeps_no_session_open() {
    let mut world = world();
    let (call, source) = started(&mut world, &["a"]);
    let id = world.trigger();
    let time_ns = world.now_ns + 10 * MS;
    world.say(id, FromExecutor::TickAt { time_ns });
    world.done(id);
    world.done(source);
    is_told(&world, &["end"]);
    world.say(id, FromExecutor::TickAt { time_ns: u64::MAX });
    world.done(id);
    assert!(!world.is_open(call));
    assert_eq!(world.core.totals().timers, 0);
}

#[test]
fn a_call_that_returns_an_error_changes_nothing_and_a_fresh_process_is_told_everything() {
    let mut world = world();
    let (call, source) = started(&mut world, &["a"]);
    answer(&mut world);
    world.put_by(source, "b", "b");
    let id = world.trigger();
    let before = world.executor(id).incarnation;
    world.fire_by(id, SINK, call.session, &[0, 1]);
    world.drop_by(id, call.session, &[]);
    world.complete(id, 7, Ending::Returned, "no");
    assert!(sink_keys(&world).is_empty());
    assert_eq!(world.executor(id).incarnation, before + 1);
    is_told(&world, &["a", "b"]);
    fire(&mut world, call, &[0, 1]);
    assert_eq!(sink_keys(&world), [["a", "b"]]);
    world.run("sink");
    world.done(source);
    world.assert_empty();
}

#[test]
fn a_crash_changes_nothing_and_a_fresh_process_is_told_of_all_sessions_oldest_first() {
    let mut world = world();
    let (first, one) = started(&mut world, &["a"]);
    let id = world.trigger();
    answer(&mut world);
    world.now_ns += MS;
    let (_, two) = started(&mut world, &["b"]);
    world.now_ns += MS;
    world.put_by(one, "b", "c");
    world.fire_by(id, SINK, first.session, &[0]);
    world.die(id, Death::Signaled(11));
    is_told(&world, &["a", "b", "c"]);
    assert!(sink_keys(&world).is_empty());
    for source in [one, two] {
        world.done(source);
    }
    assert!(world.is_open(first), "until the fresh process has answered");
    answer(&mut world);
    is_told(&world, &["end", "end"]);
}

#[test]
fn a_call_past_its_timeout_is_killed_and_counts_from_when_the_code_is_there() {
    let mut world = world();
    let (_, _source) = started(&mut world, &["a"]);
    let id = world.trigger();
    let before = world.executor(id).incarnation;
    world.pass(TIMEOUT_NS);
    world.say(id, FromExecutor::Loaded);
    world.pass(TIMEOUT_NS - 1);
    assert_eq!(world.executor(id).incarnation, before);
    world.pass(1);
    assert_eq!(world.executor(id).incarnation, before + 1);
    is_told(&world, &["a"]);
}

#[test]
fn three_failures_in_a_row_fail_the_sessions_with_pending_objects() {
    let mut world = world();
    let (waiting, _) = started(&mut world, &["a"]);
    let id = world.trigger();
    let (idle, _) = started(&mut world, &[]);
    for _ in 0..2 {
        world.complete(id, 3, Ending::Returned, "I cannot");
        world.pass(1_000 * MS);
        assert!(world.is_open(waiting));
        is_told(&world, &["a"]);
    }
    world.complete(id, 3, Ending::Returned, "I cannot");
    let text = "trigger `t` of bucket `b` failed 3 times in a row: it returned 3: I cannot";
    assert_eq!(cause(&world, waiting), text);
    assert!(world.is_open(idle), "nothing of it is pending");
    world.cancel(idle);
}

#[test]
fn a_success_in_between_begins_the_count_again() {
    let mut world = world();
    let (call, source) = started(&mut world, &["a"]);
    let id = world.trigger();
    for round in 0..3 {
        for _ in 0..2 {
            world.die(id, Death::Signaled(6));
            world.pass(1_000 * MS);
        }
        answer(&mut world);
        world.put_by(source, "b", &format!("{round}"));
    }
    assert!(world.is_open(call));
}

#[test]
fn failing_processes_are_started_at_a_bounded_rate() {
    let mut world = world();
    let (_, _source) = started(&mut world, &["a"]);
    let id = world.trigger();
    world.die(id, Death::Signaled(6));
    assert!(world.sink.is_alive(id), "one death is an accident");
    world.die(id, Death::Signaled(6));
    assert!(!world.sink.is_alive(id));
    world.pass(10 * MS - 1);
    assert!(!world.sink.is_alive(id));
    world.pass(1);
    assert!(world.sink.is_alive(id));
}

#[test]
fn code_that_cannot_be_loaded_fails_the_sessions_with_its_reason() {
    let mut world = world();
    let (call, _) = started(&mut world, &["a"]);
    let id = world.trigger();
    for _ in 0..3 {
        world.complete(id, -2, Ending::NotLoaded, "t.so has no symbol `t`");
        world.pass(1_000 * MS);
    }
    assert!(cause(&world, call).ends_with("in a row: t.so has no symbol `t`"));
}

#[test]
fn a_process_that_cannot_be_started_fails_the_sessions_that_wait() {
    let mut world = world();
    let id = world.trigger();
    world.die(id, Death::Exited(0));
    world.automatic = false;
    let (call, _) = started(&mut world, &["a"]);
    for _ in 0..2 {
        world.pass(1_000 * MS);
        let asked = world.sink.spawns.pop_front().expect("it is asked for");
        assert_eq!(asked, id);
        world.sink.do_not_start(asked);
        world.event(Event::SpawnFailed {
            executor: asked,
            reason: "fork: no memory",
        });
    }
    assert!(cause(&world, call).contains("could not be started: fork: no memory"));
}

#[test]
fn a_process_that_dies_idle_is_started_again_for_the_next_event() {
    let mut world = world();
    let id = world.trigger();
    world.die(id, Death::Signaled(9));
    assert!(!world.sink.is_alive(id), "there is nothing to tell");
    let (_, _source) = started(&mut world, &["a"]);
    is_told(&world, &["a"]);
}

#[test]
fn a_process_that_left_threads_behind_is_replaced_after_its_answer_has_taken_effect() {
    let mut world = world();
    let (call, source) = started(&mut world, &["a"]);
    world.put_by(source, "b", "b");
    let id = world.trigger();
    world.fire_by(id, SINK, call.session, &[0]);
    world.complete(id, 0, Ending::StrayThreads, "");
    assert_eq!(sink_keys(&world), [["a"]]);
    assert_eq!(world.executor(id).incarnation, 2);
    is_told(&world, &["b"]);
}

#[test]
fn objects_that_are_not_pending_make_the_verdict_void() {
    for numbers in [&[1][..], &[u64::MAX], &[0, 0], &[]] {
        let mut world = world();
        let (call, _) = started(&mut world, &["a"]);
        let id = world.trigger();
        world.fire_by(id, SINK, call.session, numbers);
        world.done(id);
        assert!(sink_keys(&world).is_empty(), "{numbers:?}");
        assert_eq!(world.executor(id).incarnation, 2, "{numbers:?}");
        is_told(&world, &["a"]);
    }
}

#[test]
fn objects_of_another_session_make_the_verdict_void() {
    let mut world = world();
    let (_, _one) = started(&mut world, &["a"]);
    let (other, _) = started(&mut world, &[]);
    fire(&mut world, other, &[0]);
    assert!(sink_keys(&world).is_empty());
    assert_eq!(world.executor(world.trigger()).incarnation, 2);
}

#[test]
fn what_it_says_of_a_session_that_has_ended_meanwhile_does_nothing() {
    let mut world = world();
    let (gone, _) = started(&mut world, &["a"]);
    let id = world.trigger();
    world.cancel(gone);
    let (call, _) = started(&mut world, &["b"]);
    world.fire_by(id, SINK, gone.session, &[0]);
    world.fire_by(id, SINK, SessionId(12345), &[0]);
    world.done(id);
    assert!(sink_keys(&world).is_empty());
    assert_eq!(world.executor(id).incarnation, 1, "nobody is at fault");
    is_told(&world, &["gone", "b"]);
    fire(&mut world, call, &[0]);
    assert_eq!(sink_keys(&world), [["b"]]);
}

#[test]
fn it_hears_that_a_session_is_gone_with_the_next_events_only() {
    let mut world = world();
    let (gone, _) = started(&mut world, &["a"]);
    answer(&mut world);
    world.cancel(gone);
    is_told(&world, &[]);
    let (_, _source) = started(&mut world, &["b"]);
    is_told(&world, &["gone", "b"]);
}

#[test]
fn objects_put_into_its_bucket_from_outside_are_its_too() {
    let mut world = world();
    let put = world.put("b", Some("k"));
    is_told(&world, &["k"]);
    assert!(world.is_open(put));
    fire(&mut world, put, &[0]);
    world.run("sink");
    assert_eq!(world.ended(put).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_firing_past_the_limit_on_inputs_fails_its_session() {
    let mut spec = spec(false, AtEnd::Drop);
    spec.limits.inputs = 1;
    let mut world = World::new(spec);
    let (call, source) = started(&mut world, &["a"]);
    world.put_by(source, "b", "b");
    answer(&mut world);
    fire(&mut world, call, &[0, 1]);
    assert!(matches!(world.ended(call).failure().cause, Cause::Limit(_)));
}

#[test]
fn answers_that_nobody_has_asked_for_are_the_protocol_broken() {
    let mut world = world();
    let (call, source) = started(&mut world, &[]);
    let trigger = world.trigger();
    for id in [trigger, source] {
        let before = world.executor(id).incarnation;
        world.automatic = false;
        world.fire_by(id, SINK, call.session, &[0]);
        let (killed, why) = world.sink.kills.front().expect("it is killed").clone();
        assert_eq!(killed, id);
        assert!(
            why.contains("sent an answer of a custom trigger that had not been asked"),
            "{why}"
        );
        world.automatic = true;
        world.processes();
        assert!(!world.sink.is_alive(id) || world.executor(id).incarnation > before);
    }
}

#[test]
fn a_trigger_that_acts_as_a_function_breaks_the_protocol() {
    let mut world = world();
    let (_, _source) = started(&mut world, &["a"]);
    let id = world.trigger();
    for message in [
        FromExecutor::Ready,
        FromExecutor::NeedCredit { bytes: 1 },
        FromExecutor::Fire {
            function: 0,
            more: false,
            session: 1,
            objects: &[],
        },
    ] {
        world.automatic = false;
        world.say(id, message);
        let (killed, why) = world.sink.kills.front().expect("it is killed").clone();
        assert_eq!(killed, id);
        assert!(
            why.contains("deciding for trigger `t` of bucket `b`"),
            "{why}"
        );
        world.automatic = true;
        world.processes();
        world.pass(1_000 * MS);
        if world.told().is_empty() {
            return;
        }
    }
}

#[test]
fn a_removed_app_takes_its_triggers_processes_along() {
    let mut world = world();
    let (_, _source) = started(&mut world, &["a"]);
    let id = world.trigger();
    world.event(Event::Remove { app: APP });
    assert!(world.sink.removed.is_empty(), "its call has not returned");
    world.done(id);
    let source = world.running("source");
    world.done(source);
    assert_eq!(world.sink.removed, [APP]);
    assert!(!world.sink.is_alive(id));
    assert_eq!(world.core.totals().timers, 0);
}

#[test]
fn a_spec_says_what_becomes_of_the_rest_in_a_way_that_code_can_decide() {
    for at_end in [AtEnd::Fire, AtEnd::Wait] {
        let errors = spec(false, at_end).validate().expect_err("it cannot be");
        assert!(
            errors[0]
                .to_string()
                .contains("only a custom trigger's own code"),
            "{errors:?}"
        );
    }
    let mut across = spec(false, AtEnd::Drop);
    across.buckets[0].triggers[0].scope = pheromone_core::spec::Scope::Bucket;
    assert_eq!(across.unsupported().len(), 1);
}

#[test]
fn a_session_of_another_app_makes_the_verdict_void_whatever_has_the_same_number_there() {
    const THEIRS: AppId = AppId(1);
    let linger = TriggerSpec {
        at_end: AtEnd::Wait,
        ..trigger("t", batch(2, Some(MS)), &[SINK])
    };
    for theirs in [spec_of(vec![linger]), spec(false, AtEnd::Drop)] {
        for fires in [true, false] {
            let mut world = world();
            world.deploy(THEIRS, theirs.clone());
            let destination = Destination::Bucket {
                bucket: 0,
                key: None,
                group: b"",
            };
            let request = world.request_of(THEIRS, destination, false);
            let other = world.answer_of(request).expect("it is let in");
            let (call, source) = started(&mut world, &["a"]);
            let id = world.trigger();
            let before = world.executor(id).incarnation;
            world.fire_by(id, SINK, call.session, &[0]);
            if fires {
                world.fire_by(id, SINK, other.session, &[0]);
            } else {
                world.drop_by(id, other.session, &[]);
            }
            world.done(id);
            assert_eq!(world.executor(id).incarnation, before + 1);
            assert!(sink_keys(&world).is_empty(), "it is void as a whole");
            assert!(world.is_open(other));
            is_told(&world, &["a"]);
            fire(&mut world, call, &[0]);
            world.run("sink");
            world.done(source);
            assert_eq!(world.ended(call).outcome, End::Completed);
            world.cancel(other);
        }
    }
}

#[test]
fn an_object_offered_to_two_custom_triggers_is_each_ones_own() {
    let drops = |name: &str| TriggerSpec {
        at_end: AtEnd::Drop,
        ..trigger(name, custom(false), &[SINK])
    };
    let mut world = World::new(spec_of(vec![drops("t"), drops("u")]));
    let (call, source) = started(&mut world, &["a"]);
    let first = world.trigger();
    let second = ExecutorId {
        slot: first.slot + 1,
        ..first
    };
    world.drop_by(first, call.session, &[0]);
    world.done(first);
    world.fire_by(second, SINK, call.session, &[0]);
    world.done(second);
    assert_eq!(sink_keys(&world), [["a"]]);
    world.run("sink");
    world.done(source);
    assert!(!world.is_open(call));
    world.assert_empty();
}

#[test]
fn an_object_that_joins_a_session_at_its_end_is_decided_about_before_anything_is_dropped() {
    let mut world = world();
    let (call, source) = started(&mut world, &["a"]);
    answer(&mut world);
    world.done(source);
    is_told(&world, &["end"]);
    let destination = Destination::Bucket {
        bucket: world.bucket("b"),
        key: Some(b"late"),
        group: b"",
    };
    let draft = world.draft(APP, destination);
    world.send(Request {
        session: Some(call.session),
        ..draft
    });
    answer(&mut world);
    is_told(&world, &["late"]);
    answer(&mut world);
    is_told(&world, &["end"]);
    assert!(world.is_open(call));
    answer(&mut world);
    assert_eq!(world.stats().dropped_total, 2);
    assert!(!world.is_open(call));
}
