//! What can be deployed, and what an app is refused for.

use pheromone_core::spec::{
    AppSpec, AtEnd, Entry, GroupClose, Keep, Pool, RerunSpec, Retain, Scope, SerialBy, TriggerKind,
    TriggerSpec,
};

use crate::common::World;
use crate::common::app::{
    app, batch, bucket, by_key, by_pattern, by_set, group, immediate, trigger, windows,
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

/// What is wrong with a trigger of this kind and scope, in an app whose limit on inputs is 8.
fn wrong_trigger(scope: Scope, kind: TriggerKind) -> String {
    wrong(|spec| {
        spec.limits.inputs = 8;
        spec.buckets[0].triggers[0] = TriggerSpec {
            scope,
            ..trigger("t", kind, &[0])
        };
    })
}

fn round(k: u32, n: u32, cancel_rest: Vec<u16>, expire_ns: Option<u64>) -> TriggerKind {
    TriggerKind::Redundant {
        k_of_n: Some((k, n)),
        cancel_rest,
        expire_ns,
    }
}

#[test]
fn impossible_numbers_of_triggers_are_refused() {
    let after = group(GroupClose::After(9));
    for (kind, expected) in [
        (batch(0, None), "`count` is 0, but must be from 1 to 8"),
        (batch(9, None), "`count` is 9, but must be from 1 to 8"),
        (windows(10, 0), "`slide` is 0, but must be from 1 to 10"),
        (windows(10, 11), "`slide` is 11, but must be from 1 to 10"),
        (windows(1025, 1), "`window / slide` is 1025"),
        (round(0, 2, vec![], None), "`k` is 0"),
        (
            round(9, 9, vec![], None),
            "`k` is 9, but must be from 1 to 8",
        ),
        (
            round(3, 2, vec![], None),
            "`n` is 2, but must be at least 3",
        ),
        (round(1, 2, vec![9], None), "names function number 9"),
        (after, "names function number 9"),
    ] {
        let told = wrong_trigger(Scope::Session, kind);
        assert!(told.contains(expected), "{told:?} lacks {expected:?}");
    }
}

#[test]
fn a_round_across_sessions_has_numbers_and_an_end_and_cancels_nothing() {
    let told = wrong_trigger(Scope::Bucket, round(1, 2, vec![], None));
    assert!(told.contains("needs `k`, `n` and `expire`"), "{told}");
    let told = wrong_trigger(Scope::Bucket, round(1, 2, vec![1], Some(1)));
    assert!(told.contains("leave it out across sessions"), "{told}");
}

#[test]
fn a_rerun_rule_that_could_never_be_met_is_refused() {
    let rule = RerunSpec {
        function: 0,
        timeout_ns: 1,
        attempts: 1,
        speculative: false,
        optional: false,
    };
    let with = |rules: &[RerunSpec], change: &dyn Fn(&mut AppSpec)| {
        let mut spec = good();
        spec.buckets[0].reruns = rules.to_vec();
        change(&mut spec);
        spec.validate().is_ok()
    };
    assert!(with(&[rule], &|_| {}));
    assert!(with(&[rule], &|spec| spec.functions[0].sends = Some(vec![0])));
    assert!(!with(&[rule], &|spec| spec.functions[0].sends = Some(vec![])));
    assert!(!with(&[rule, rule], &|_| {}));
    for wrong in [
        RerunSpec {
            timeout_ns: 0,
            ..rule
        },
        RerunSpec {
            attempts: 0,
            ..rule
        },
        RerunSpec {
            function: 99,
            ..rule
        },
    ] {
        assert!(!with(&[wrong], &|_| {}));
    }
    let speculative = RerunSpec {
        speculative: true,
        ..rule
    };
    let serial = |spec: &mut AppSpec| spec.functions[0].serial_by = Some(SerialBy::Key);
    assert!(with(&[speculative], &|_| {}) && with(&[rule], &serial));
    assert!(!with(&[speculative], &serial));
}

#[test]
fn what_is_not_carried_out_yet_is_named() {
    let mut spec = good();
    let function = &mut spec.functions[0];
    function.attempts = 3;
    function.durable = true;
    let bucket = &mut spec.buckets[0];
    bucket.durable = true;
    bucket.retain = Retain::Forever;
    let custom = TriggerKind::Custom {
        config: Vec::new(),
        timeout_ns: 1,
        keep: false,
    };
    bucket.triggers.push(TriggerSpec {
        scope: Scope::Bucket,
        at_end: AtEnd::Drop,
        ..trigger("own", custom, &[0])
    });
    bucket
        .triggers
        .push(trigger("join", TriggerKind::DynamicJoin, &[0]));
    assert_eq!(spec.validate(), Ok(()));
    let missing = spec.unsupported();
    assert_eq!(
        missing,
        [
            "app `test`, bucket `b`: trigger `own` with `scope = \"bucket\"` is not carried out yet",
            "app `test`, bucket `b`: trigger `join` of a durable bucket, beside durable functions \
             (its lists are in memory alone), is not carried out yet",
        ]
    );
    // Without a durable function nobody asks for it.
    spec.functions[0].durable = false;
    assert_eq!(spec.unsupported().len(), 1);
}

#[test]
#[should_panic(expected = "deployed unjudged")]
fn an_invalid_spec_is_not_deployed() {
    let mut spec = good();
    spec.weight = 0;
    World::new(spec);
}

#[test]
#[should_panic(expected = "not carried out yet")]
fn an_unsupported_spec_is_not_deployed() {
    let mut spec = good();
    spec.functions[0].durable = true;
    spec.buckets[0].durable = true;
    let join = trigger("join", TriggerKind::DynamicJoin, &[0]);
    spec.buckets[0].triggers.push(join);
    World::new(spec);
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
