//! Ids, where something outlives the core: no core makes one that another has made before it.

use std::collections::BTreeSet;

use pheromone_core::CoreConfig;
use pheromone_core::spec::{AppSpec, Keep};

use crate::common::app::{app, bucket, immediate};
use crate::common::{CONFIG, End, World};

fn spec() -> AppSpec {
    let mut spec = app(&["source", "sink"]);
    spec.buckets = vec![bucket("b", Keep::UntilConsumed, vec![immediate(&[1])])];
    spec
}

fn config(first_id: u64) -> CoreConfig {
    CoreConfig { first_id, ..CONFIG }
}

/// Ids of sessions and invocations that a life of a core makes.
fn life(config: CoreConfig, calls: usize) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let mut world = World::with_config(spec(), config);
    let (mut sessions, mut invocations) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..calls {
        let call = world.call("source");
        let source = world.running("source");
        invocations.insert(world.opened(source).invocation);
        world.auto_by(source, "b");
        let sink = world.running("sink");
        invocations.insert(world.opened(sink).invocation);
        world.done(source);
        world.done(sink);
        assert_eq!(world.ended(call).outcome, End::Completed);
        sessions.insert(call.session.0);
    }
    world.assert_empty();
    (sessions, invocations)
}

#[test]
fn no_id_is_made_again_by_a_core_that_begins_beyond_it() {
    let (sessions, invocations) = life(config(1000), 50);
    assert_eq!((sessions.len(), invocations.len()), (50, 100));
    let made = sessions.iter().chain(&invocations);
    let beyond = made.max().expect("some were made") + 1;
    let (later_sessions, later_invocations) = life(config(beyond), 50);
    assert!(sessions.is_disjoint(&later_sessions));
    assert!(invocations.is_disjoint(&later_invocations));
}

#[test]
fn sessions_are_found_by_such_ids_until_nothing_of_them_is_left() {
    let mut world = World::with_config(spec(), config(1000));
    let kept = world.call("source");
    let cancelled = world.call("source");
    world.cancel(cancelled);
    assert_eq!(world.ended(cancelled).outcome, End::Cancelled);
    // Its slot may be another's by now.
    let other = world.call("source");
    world.cancel(cancelled);
    assert!(world.is_open(kept) && world.is_open(other));
    world.cancel(kept);
    world.cancel(other);
    for id in world.all_running("source") {
        world.done(id);
    }
    world.assert_empty();
}
