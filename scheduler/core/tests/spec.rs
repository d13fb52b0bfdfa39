//! What can be deployed, and what an app is refused for.

mod common;

use common::app::{app, bucket, by_key, by_pattern, by_set, immediate, trigger};
use pheromone_core::spec::{
    AppSpec, AtEnd, Entry, GroupClose, Keep, OnFailure, Pool, RerunSpec, Retain, Scope, SerialBy,
    TriggerKind, TriggerSpec,
};

fn good() -> AppSpec {
    let mut spec = app(&["f", "g"]);
    spec.buckets = vec![bucket(
        "b",
        Keep::Session,
        vec![
            immediate(&[0]),
            by_key("k", &[1]),
            by_pattern("p*", &[0, 1]),
            by_set(&["a", "b"], &[1]),
        ],
    )];
    spec
}

/// The one thing that is wrong after this change.
fn wrong(change: impl FnOnce(&mut AppSpec)) -> String {
    let mut spec = good();
    change(&mut spec);
    let errors = spec.validate().expect_err("it is wrong");
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].to_string()
}

#[test]
fn a_good_spec_is_valid_and_carried_out() {
    assert_eq!(good().validate(), Ok(()));
    assert!(good().unsupported().is_empty());
}

#[test]
fn each_error_names_place_and_remedy() {
    type Change = fn(&mut AppSpec);
    let table: [(Change, &str); 26] = [
        (
            |s| s.name = "Test".into(),
            "app `Test` must match [a-z0-9][a-z0-9_-]{0,62}",
        ),
        (|s| s.name = "a".repeat(64), "must match"),
        (
            |s| s.executors = Pool { min: 3, max: 2 },
            "`executors.min` is 3, but must be from 0 to 2",
        ),
        (
            |s| s.executors = Pool { min: 0, max: 0 },
            "`executors.max` is 0",
        ),
        (|s| s.memory_bytes = 0, "`memory` is 0"),
        (
            |s| s.limits.sessions = 0,
            "`limits.sessions` is 0, but must be from 1 to 16777216",
        ),
        (|s| s.limits.objects = 0, "`limits.objects` is 0"),
        (|s| s.weight = 0, "`weight` is 0, but must be at least 1"),
        (
            |s| s.entry = Some(Entry::Function(2)),
            "entry names function number 2, but there are only 2",
        ),
        (
            |s| s.entry = Some(Entry::Bucket(1)),
            "entry names bucket number 1, but there are only 1",
        ),
        (
            |s| s.functions[0].next = vec![5],
            "function `f` names function number 5",
        ),
        (
            |s| s.functions[0].calls = vec![5],
            "function `f` names function number 5",
        ),
        (
            |s| s.functions[1].sends = Some(vec![1]),
            "function `g` names bucket number 1",
        ),
        (
            |s| s.functions[1].name = "f".into(),
            "function `f` occurs twice",
        ),
        (
            |s| s.functions[0].priority = 8,
            "`priority` is 8, but must be from -8 to 7",
        ),
        (
            |s| s.functions[0].max_concurrency = Some(0),
            "`max_concurrency` is 0",
        ),
        (|s| s.functions[0].timeout_ns = Some(0), "`timeout` is 0"),
        (
            |s| s.buckets[0].triggers[0].functions.clear(),
            "bucket `b`, trigger `immediate`: no function",
        ),
        (
            |s| s.buckets[0].triggers[0].functions = vec![3],
            "names function number 3",
        ),
        (
            |s| s.buckets[0].triggers[3] = by_set(&[], &[0]),
            "`number of keys` is 0",
        ),
        (
            |s| s.buckets[0].triggers[3] = by_set(&["a", "a"], &[0]),
            "the key `a` occurs twice in one set",
        ),
        (
            |s| s.buckets[0].triggers[3].at_end = AtEnd::Wait,
            "no timer to wait for",
        ),
        (
            |s| s.buckets[0].triggers[3].scope = Scope::Bucket,
            "gathers within a session",
        ),
        (
            |s| s.buckets[0].triggers[1] = by_key("~1.0", &[0]),
            "which marks automatic keys",
        ),
        (|s| s.buckets[0].triggers[1] = by_key("", &[0]), "is empty"),
        (
            |s| s.buckets[0].triggers[2] = by_pattern("[", &[0]),
            "is no glob",
        ),
    ];
    for (change, expected) in table {
        let told = wrong(change);
        assert!(
            told.contains(expected),
            "{told:?} does not say {expected:?}"
        );
    }
}

#[test]
fn sets_larger_than_the_limit_on_inputs_are_refused() {
    let told = wrong(|spec| spec.limits.inputs = 1);
    assert!(
        told.contains("`number of keys` is 2, but must be from 1 to 1"),
        "{told}"
    );
}

#[test]
fn impossible_numbers_of_later_triggers_are_found_too() {
    let kinds = [
        TriggerKind::ByBatchSize {
            count: 0,
            linger_ns: None,
            per_group: false,
        },
        TriggerKind::ByTime {
            window_ns: 10,
            slide_ns: 11,
            fire_empty: false,
            per_group: false,
        },
        TriggerKind::Redundant {
            k_of_n: Some((3, 2)),
            cancel_rest: vec![],
            expire_ns: None,
        },
        TriggerKind::DynamicGroup {
            close: GroupClose::After(9),
            fire_empty: false,
            order_by_key: false,
        },
    ];
    for kind in kinds {
        wrong(|spec| spec.buckets[0].triggers[0] = trigger("t", kind, &[0]));
    }
}

#[test]
fn what_is_not_carried_out_yet_is_named() {
    let mut spec = good();
    let function = &mut spec.functions[0];
    function.attempts = 3;
    function.on_failure = OnFailure::Bucket(0);
    function.serial_by = Some(SerialBy::Key);
    function.durable = true;
    let bucket = &mut spec.buckets[0];
    bucket.durable = true;
    bucket.retain = Retain::Forever;
    bucket.reruns = vec![RerunSpec {
        function: 0,
        timeout_ns: 1,
        attempts: 2,
        speculative: false,
        optional: false,
    }];
    let batch = TriggerKind::ByBatchSize {
        count: 2,
        linger_ns: None,
        per_group: false,
    };
    bucket.triggers.push(TriggerSpec {
        scope: Scope::Bucket,
        at_end: AtEnd::Fire,
        ..trigger("batch", batch, &[0])
    });
    bucket
        .triggers
        .push(trigger("join", TriggerKind::DynamicJoin, &[0]));
    assert_eq!(spec.validate(), Ok(()));
    let missing = spec.unsupported();
    assert_eq!(missing.len(), 7);
    assert_eq!(
        missing[6],
        "app `test`, bucket `b`: trigger `batch` with `scope = \"bucket\"` is not carried out yet"
    );
}

#[test]
#[should_panic(expected = "deployed unjudged")]
fn an_invalid_spec_is_not_deployed() {
    let mut spec = good();
    spec.weight = 0;
    common::World::new(spec);
}

#[test]
#[should_panic(expected = "not carried out yet")]
fn an_unsupported_spec_is_not_deployed() {
    let mut spec = good();
    spec.functions[0].durable = true;
    common::World::new(spec);
}

#[test]
fn regions_have_room_for_twice_the_quota() {
    let mut spec = good();
    for (memory_bytes, span_bytes) in [
        (1, 64 << 20),
        (64 << 20, 128 << 20),
        (1 << 30, 2 << 30),
        ((1 << 30) + 1, 4 << 30),
        (1 << 37, 1 << 38),
        (u64::MAX, 1 << 38),
    ] {
        spec.memory_bytes = memory_bytes;
        assert_eq!(spec.region_span_bytes(), span_bytes);
    }
}
