//! Specs for tests, built by hand.

use pheromone_core::spec::{
    AppSpec, AtEnd, Backoff, BucketSpec, FunctionSpec, GroupClose, Isolation, Keep, Limits,
    NameMatch, OnFailure, Pool, Retain, Scope, TriggerKind, TriggerSpec,
};

/// An app with these functions and two executors.
pub fn app(functions: &[&str]) -> AppSpec {
    AppSpec {
        name: "test".into(),
        entry: None,
        keep_request: false,
        memory_bytes: 64 << 20,
        executors: Pool { min: 2, max: 2 },
        isolation: Isolation::None,
        weight: 1,
        response_required: false,
        session_timeout_ns: None,
        cancel_on_disconnect: false,
        keep_results_ns: 0,
        continuation: true,
        limits: Limits::default(),
        functions: functions.iter().map(|name| function(name)).collect(),
        buckets: Vec::new(),
    }
}

pub fn function(name: &str) -> FunctionSpec {
    FunctionSpec {
        name: name.into(),
        next: Vec::new(),
        calls: Vec::new(),
        sends: None,
        timeout_ns: None,
        init_timeout_ns: 60_000_000_000,
        attempts: 1,
        backoff: Backoff {
            first_ns: 10_000_000,
            max_ns: 1_000_000_000,
            jitter: 0.1,
        },
        on_failure: OnFailure::Fail,
        max_concurrency: None,
        priority: 0,
        serial_by: None,
        serial_width: 1,
        durable: false,
    }
}

pub fn bucket(name: &str, keep: Keep, triggers: Vec<TriggerSpec>) -> BucketSpec {
    BucketSpec {
        name: name.into(),
        durable: false,
        keep,
        retain: Retain::ForNs(0),
        replace: true,
        triggers,
        reruns: Vec::new(),
    }
}

pub fn trigger(name: &str, kind: TriggerKind, functions: &[u16]) -> TriggerSpec {
    TriggerSpec {
        name: name.into(),
        functions: functions.to_vec(),
        scope: Scope::Session,
        at_end: AtEnd::Fail,
        skip_ended: false,
        kind,
    }
}

pub fn immediate(functions: &[u16]) -> TriggerSpec {
    trigger("immediate", TriggerKind::Immediate, functions)
}

pub fn by_key(key: &str, functions: &[u16]) -> TriggerSpec {
    let kind = TriggerKind::ByName(NameMatch::Key(key.into()));
    trigger(&format!("key-{key}"), kind, functions)
}

pub fn by_pattern(pattern: &str, functions: &[u16]) -> TriggerSpec {
    let kind = TriggerKind::ByName(NameMatch::Pattern(pattern.into()));
    trigger(&format!("pattern-{pattern}"), kind, functions)
}

pub fn by_set(keys: &[&str], functions: &[u16]) -> TriggerSpec {
    let keys: Vec<String> = keys.iter().map(|&key| key.into()).collect();
    let name = format!("set-{}", keys.join("-"));
    trigger(&name, TriggerKind::BySet { keys }, functions)
}

/// A trigger that gathers across sessions.
pub fn across(name: &str, kind: TriggerKind, functions: &[u16]) -> TriggerSpec {
    TriggerSpec {
        scope: Scope::Bucket,
        ..trigger(name, kind, functions)
    }
}

pub fn batch(count: u32, linger_ns: Option<u64>) -> TriggerKind {
    TriggerKind::ByBatchSize {
        count,
        linger_ns,
        per_group: false,
    }
}

/// Windows that fire where they have something.
pub fn windows(window_ns: u64, slide_ns: u64) -> TriggerKind {
    TriggerKind::ByTime {
        window_ns,
        slide_ns,
        fire_empty: false,
        per_group: false,
    }
}

/// Rounds of `n` objects that fire on the `k`-th and cancel nobody.
pub fn rounds(k: u32, n: u32, expire_ns: Option<u64>) -> TriggerKind {
    TriggerKind::Redundant {
        k_of_n: Some((k, n)),
        cancel_rest: Vec::new(),
        expire_ns,
    }
}

/// Groups that fire where they have something, in the order of arrival.
pub fn group(close: GroupClose) -> TriggerKind {
    TriggerKind::DynamicGroup {
        close,
        fire_empty: false,
        order_by_key: false,
    }
}
