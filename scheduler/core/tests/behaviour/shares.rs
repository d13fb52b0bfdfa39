//! Several schedulers: each has its share of an app, and the shares are the app.

use std::collections::BTreeSet;

use pheromone_core::CoreConfig;
use pheromone_core::event::{AppId, Refusal};
use pheromone_core::share::{Division, SCHEDULERS_MAX, SHARE_BYTES_MIN, undivided_because};
use pheromone_core::spec::{
    AppSpec, AtEnd, Keep, OnFailure, Pool, RerunSpec, Retain, SerialBy, TriggerKind, TriggerSpec,
};

use crate::common::{APP, CONFIG, World, app};

const GIB: u64 = 1 << 30;

fn large() -> AppSpec {
    let mut spec = app::app(&["f"]);
    spec.memory_bytes = GIB + 1;
    spec.executors = Pool { min: 5, max: 11 };
    spec.limits.waiters = 10;
    spec.limits.sessions = 23;
    spec.limits.calls_waiting = 17;
    spec
}

/// The cores of all homes of an app.
fn worlds(spec: &AppSpec, schedulers: u8) -> Vec<World> {
    let division = Division::new(spec, APP, schedulers);
    let world = |scheduler_index| {
        let config = CoreConfig {
            scheduler_index,
            schedulers,
            ..CONFIG
        };
        World::with_config(spec.clone(), config)
    };
    division.homes().map(world).collect()
}

#[test]
fn the_shares_of_an_app_add_up_to_the_app() {
    let spec = large();
    for schedulers in 1..=SCHEDULERS_MAX {
        let division = Division::new(&spec, APP, schedulers);
        let shares: Vec<_> = division
            .homes()
            .map(|home| division.share(&spec, home).expect("a home has a share"))
            .collect();
        let sum = |part: &dyn Fn(usize) -> u64| (0..shares.len()).map(part).sum::<u64>();
        assert_eq!(sum(&|at| shares[at].memory_bytes), spec.memory_bytes);
        assert_eq!(sum(&|at| shares[at].executors.min.into()), 5);
        assert_eq!(sum(&|at| shares[at].executors.max.into()), 11);
        assert_eq!(sum(&|at| shares[at].limits.waiters.into()), 10);
        assert_eq!(sum(&|at| shares[at].limits.sessions.into()), 23);
        assert_eq!(sum(&|at| shares[at].limits.calls_waiting.into()), 17);
        let objects = u64::from(spec.limits.objects);
        assert_eq!(sum(&|at| shares[at].limits.objects.into()), objects);
        let letters_bytes = spec.limits.dead_letters_bytes;
        let parts_bytes = sum(&|at| shares[at].limits.dead_letters_bytes);
        assert_eq!(parts_bytes, letters_bytes);
        assert_eq!(sum(&|at| shares[at].part_of(7)), 7);
        for share in &shares {
            assert!(share.executors.min <= share.executors.max);
            assert!(share.executors.max > 0 && share.limits.waiters > 0);
            assert_eq!(share.limits.inputs, spec.limits.inputs);
            assert_eq!(
                share.limits.object_size_bytes,
                spec.limits.object_size_bytes
            );
        }
    }
}

#[test]
fn every_slot_has_one_owner_who_counts_it_as_a_runner_or_a_waiter() {
    let spec = large();
    for schedulers in 1..=SCHEDULERS_MAX {
        let division = Division::new(&spec, AppId(5), schedulers);
        let shares = division
            .homes()
            .filter_map(|home| division.share(&spec, home));
        let shares: Vec<_> = shares.collect();
        for slot in 0..21 {
            let owners = shares.iter().filter(|share| share.has_slot(slot)).count();
            assert_eq!(owners, 1, "slot {slot}");
        }
        for home in division.homes() {
            let share = division.share(&spec, home).expect("a home has a share");
            let owned = |slot: &u16| share.has_slot(*slot);
            let runners = (0..11).filter(owned).count();
            let waiters = (11..21).filter(owned).count();
            assert_eq!(runners, usize::from(share.executors.max));
            assert_eq!(waiters, usize::from(share.limits.waiters));
        }
    }
}

#[test]
fn an_app_has_no_more_homes_than_it_has_of_anything_that_is_divided() {
    let homes = |change: &dyn Fn(&mut AppSpec)| {
        let mut spec = large();
        change(&mut spec);
        let division = Division::new(&spec, APP, 8);
        assert_eq!(division.homes().count(), usize::from(division.count()));
        (division.count(), undivided_because(&spec, 8).is_some())
    };
    assert_eq!(homes(&|_| {}), (8, false));
    assert_eq!(homes(&|spec| spec.executors.max = 5), (5, false));
    assert_eq!(homes(&|spec| spec.limits.sessions = 3), (3, true));
    assert_eq!(homes(&|spec| spec.limits.waiters = 2), (2, true));
    assert_eq!(homes(&|spec| spec.limits.waiters = 0), (8, false));
    assert_eq!(homes(&|spec| spec.memory_bytes = 1), (1, true));
    let two_shares = 3 * SHARE_BYTES_MIN - 1;
    assert_eq!(homes(&|spec| spec.memory_bytes = two_shares), (2, true));
    let four_at_once = |spec: &mut AppSpec| spec.functions[0].max_concurrency = Some(4);
    assert_eq!(homes(&four_at_once), (4, true));
}

#[test]
fn what_one_scheduler_keeps_is_given_to_one_and_the_reason_named() {
    let mut serial = large();
    serial.functions[0].serial_by = Some(SerialBy::Key);
    let mut deciding = large();
    let kind = TriggerKind::Custom {
        config: Vec::new(),
        timeout_ns: 1_000_000_000,
        keep: false,
    };
    let trigger = app::trigger("own", kind, &[0]);
    deciding.buckets = vec![app::bucket("b", Keep::Session, vec![trigger])];
    // Stragglers, and attempts beside each other, need executors that a part may not have.
    let mut rounds = large();
    let kind = TriggerKind::Redundant {
        k_of_n: Some((2, 5)),
        cancel_rest: vec![0],
        expire_ns: None,
    };
    let trigger = app::trigger("first-two", kind, &[0]);
    rounds.buckets = vec![app::bucket("b", Keep::Session, vec![trigger])];
    let mut speculative = large();
    let mut bucket = app::bucket("slow", Keep::Session, vec![app::immediate(&[0])]);
    bucket.reruns = vec![RerunSpec {
        function: 0,
        timeout_ns: 1,
        attempts: 2,
        speculative: true,
        optional: false,
    }];
    speculative.buckets = vec![bucket];
    let mut retaining = large();
    retaining.buckets = vec![app::bucket("recent", Keep::Session, vec![])];
    retaining.buckets[0].retain = Retain::ForNs(1);
    for (spec, named) in [
        (serial, "function `f`"),
        (deciding, "trigger `own`"),
        (rounds, "trigger `first-two`"),
        (speculative, "bucket `slow`"),
        (retaining, "bucket `recent`"),
    ] {
        assert_eq!(Division::new(&spec, APP, 3).count(), 1);
        let why = undivided_because(&spec, 3).expect("there is a reason");
        assert!(why.contains(named), "{why}");
        assert_eq!(undivided_because(&spec, 1), None);
    }
}

#[test]
fn an_app_whose_reports_of_failures_are_gathered_across_sessions_stays_with_one_scheduler() {
    let batch = app::batch(3, None);
    let across = app::across("gather", batch, &[0]);
    let mut spec = large();
    spec.buckets = vec![
        app::bucket("failed", Keep::Session, vec![app::immediate(&[0])]),
        app::bucket("gathered", Keep::Session, vec![across]),
    ];
    spec.functions[0].on_failure = OnFailure::Bucket(0);
    assert_eq!(Division::new(&spec, APP, 3).count(), 3);
    spec.functions[0].on_failure = OnFailure::Bucket(1);
    assert_eq!(Division::new(&spec, APP, 3).count(), 1);
    let why = undivided_because(&spec, 3).expect("there is a reason");
    assert!(why.contains("`on_failure` of its function `f`"), "{why}");
}

#[test]
fn an_app_that_gathers_across_sessions_is_divided_like_any_other() {
    let mut gathering = large();
    let batch = app::batch(3, None);
    let trigger = TriggerSpec {
        at_end: AtEnd::Drop,
        ..app::across("gather", batch, &[0])
    };
    gathering.buckets = vec![app::bucket("b", Keep::Session, vec![trigger])];
    assert_eq!(Division::new(&gathering, APP, 3).count(), 3);
    assert_eq!(undivided_because(&gathering, 3), None);
}

#[test]
fn apps_that_are_not_divided_go_to_different_schedulers() {
    let mut spec = app::app(&["f"]);
    spec.executors = Pool { min: 1, max: 1 };
    let home = |app| {
        let division = Division::new(&spec, AppId(app), 3);
        assert_eq!(division.count(), 1);
        let home = division.homes().next().expect("an app has a home");
        assert!(division.is_home(home) && !division.is_home((home + 1) % 3));
        assert_eq!(division.share(&spec, (home + 1) % 3), None);
        home
    };
    let homes: BTreeSet<u8> = (0..6).map(home).collect();
    assert_eq!(homes.len(), 3);
}

#[test]
fn each_scheduler_starts_processes_in_its_own_slots_and_all_of_them_the_whole_pool() {
    let mut spec = large();
    spec.executors = Pool { min: 7, max: 7 };
    let mut slots = BTreeSet::new();
    for world in worlds(&spec, 3) {
        for id in world.sink.executors.keys() {
            assert!(slots.insert(id.slot), "slot {} has two owners", id.slot);
        }
    }
    assert_eq!(slots, (0..7).collect());
}

#[test]
fn limits_hold_over_all_schedulers_together() {
    let mut spec = app::app(&["f"]);
    spec.executors = Pool { min: 9, max: 9 };
    spec.limits.sessions = 8;
    spec.functions[0].max_concurrency = Some(4);
    let (mut sessions, mut running) = (0, 0);
    for world in &mut worlds(&spec, 3) {
        let refusal = loop {
            match world.try_call("f") {
                Ok(_) => sessions += 1,
                Err(refusal) => break refusal,
            }
        };
        assert_eq!(refusal, Refusal::Sessions);
        running += world.all_running("f").len();
    }
    assert_eq!((sessions, running), (8, 4));
}

#[test]
fn a_function_is_told_of_the_parallelism_of_the_whole_app() {
    let mut spec = app::app(&["f"]);
    spec.executors = Pool { min: 6, max: 6 };
    for world in &mut worlds(&spec, 3) {
        world.call("f");
        let at = world.running("f");
        assert_eq!(world.opened(at).parallelism, 6);
    }
}
