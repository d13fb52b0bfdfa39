//! Judges an [`AppSpec`]: whether its numbers and indices can be what they say, and whether this
//! core carries out everything that it asks for.
//!
//! It knows nothing of files and lines; the manifest's reader shows those.

use std::collections::HashSet;

use globset::Glob;
use pheromone_shm::message::{KEY_BYTES_MAX, NO_BUCKET, NO_TRIGGER, UNIT_BYTES};

use crate::limits::{EXECUTOR_SLOTS_MAX, FUNCTIONS_MAX, SESSIONS_MAX, WINDOWS_MAX};
use crate::spec::{
    AppSpec, AtEnd, BucketSpec, Entry, FunctionSpec, GroupClose, NameMatch, OnFailure,
    REGION_SPAN_BYTES_MAX, RerunSpec, Scope, TriggerKind, TriggerSpec,
};

/// Something in a spec that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A name is empty, too long, has characters that it must not have, or occurs twice.
    #[error("{what} `{name}` {why}")]
    Name {
        /// Function, bucket, trigger or app.
        what: &'static str,
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An index points past its list.
    #[error("{place} names {what} number {index}, but there are only {count}")]
    Index {
        /// Where.
        place: String,
        /// Function or bucket.
        what: &'static str,
        /// The index.
        index: u16,
        /// How many there are.
        count: usize,
    },
    /// A number is out of range.
    #[error("{place}: `{field}` is {value}, but must be {allowed}")]
    Number {
        /// Where.
        place: String,
        /// Which.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        allowed: String,
    },
    /// A key that no object can have.
    #[error("{place}: the key `{key}` {why}")]
    Key {
        /// Where.
        place: String,
        /// The key.
        key: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A glob that does not parse.
    #[error("{place}: the pattern `{pattern}` is no glob: {why}")]
    Pattern {
        /// Where.
        place: String,
        /// The pattern.
        pattern: String,
        /// What the parser says.
        why: String,
    },
    /// Two settings that exclude each other.
    #[error("{place}: {why}")]
    Conflict {
        /// Where.
        place: String,
        /// Which, and what to do.
        why: String,
    },
}

impl AppSpec {
    /// Everything that is wrong with this spec; the core takes none with an error.
    pub fn validate(&self) -> Result<(), Vec<SpecError>> {
        let mut judge = Judge {
            spec: self,
            errors: Vec::new(),
        };
        judge.app();
        for function in &self.functions {
            judge.function(function);
        }
        for bucket in &self.buckets {
            judge.bucket(bucket);
        }
        if judge.errors.is_empty() {
            Ok(())
        } else {
            Err(judge.errors)
        }
    }

    /// What this spec asks for and this core does not carry out yet, a sentence each. Such a spec
    /// must not be deployed.
    pub fn unsupported(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for bucket in &self.buckets {
            let mut miss = |what: &str| {
                missing.push(format!(
                    "app `{}`, bucket `{}`: {what} is not carried out yet",
                    self.name, bucket.name
                ));
            };
            for trigger in &bucket.triggers {
                if let Some(what) = later_kind(trigger) {
                    miss(&format!("trigger `{}` {what}", trigger.name));
                } else if let Some(why) = self.unrecorded(bucket, trigger) {
                    miss(&format!(
                        "trigger `{}` of a durable bucket, beside durable functions ({why}),",
                        trigger.name
                    ));
                }
            }
        }
        missing
    }
}

impl AppSpec {
    /// Why the firings of a bucket's trigger could not go on exactly after a restart, where
    /// durable functions ask for that; `None`: they can.
    pub fn unrecorded(&self, bucket: &BucketSpec, trigger: &TriggerSpec) -> Option<&'static str> {
        let is_asked = bucket.durable && self.functions.iter().any(|function| function.durable);
        if !is_asked {
            return None;
        }
        if trigger.scope == Scope::Bucket {
            return Some("what it gathers of several sessions is in memory alone");
        }
        match trigger.kind {
            TriggerKind::Immediate
            | TriggerKind::ByName(_)
            | TriggerKind::BySet { .. }
            | TriggerKind::ByBatchSize { .. }
            | TriggerKind::DynamicGroup {
                close: GroupClose::After(_),
                fire_empty: false,
                ..
            } => None,
            TriggerKind::ByTime {
                window_ns,
                slide_ns,
                fire_empty,
                ..
            } => {
                let is_plain = window_ns == slide_ns && !fire_empty;
                (!is_plain).then_some("an object may be in several of its firings, or in none")
            }
            TriggerKind::Redundant { .. } => Some("its rounds are in memory alone"),
            TriggerKind::DynamicJoin => Some("its lists are in memory alone"),
            TriggerKind::DynamicGroup { .. } => {
                Some("which of its sources have closed is in memory alone")
            }
            TriggerKind::Custom { .. } => Some("its decisions are not recorded"),
        }
    }
}

/// What this core does not carry out yet of a trigger.
fn later_kind(trigger: &TriggerSpec) -> Option<&'static str> {
    match trigger.kind {
        TriggerKind::Custom { .. } if trigger.scope == Scope::Bucket => {
            Some("with `scope = \"bucket\"`")
        }
        _ => None,
    }
}

struct Judge<'a> {
    spec: &'a AppSpec,
    errors: Vec<SpecError>,
}

impl Judge<'_> {
    fn app(&mut self) {
        let spec = self.spec;
        if !is_app_name(&spec.name) {
            self.name("app", &spec.name, "must match [a-z0-9][a-z0-9_-]{0,62}");
        }
        let place = || "app".to_owned();
        let pool = spec.executors;
        self.number(
            place(),
            "executors.max",
            u64::from(pool.max),
            1,
            u64::from(u16::MAX),
        );
        self.number(
            place(),
            "executors.min",
            u64::from(pool.min),
            0,
            u64::from(pool.max),
        );
        let customs = spec.custom_triggers() as u64;
        let slots = u64::from(pool.max) + u64::from(spec.limits.waiters) + customs;
        let slots_max = u64::from(EXECUTOR_SLOTS_MAX);
        self.number(
            place(),
            "executors.max + limits.waiters + custom triggers",
            slots,
            1,
            slots_max,
        );
        self.number(place(), "weight", u64::from(spec.weight), 1, u64::MAX);
        self.number(
            place(),
            "memory",
            spec.memory_bytes,
            1,
            REGION_SPAN_BYTES_MAX / 2,
        );
        let limits = &spec.limits;
        let sessions_max = u64::from(SESSIONS_MAX);
        self.number(
            place(),
            "limits.sessions",
            u64::from(limits.sessions),
            1,
            sessions_max,
        );
        let size_max = REGION_SPAN_BYTES_MAX / 2 - UNIT_BYTES;
        self.number(
            place(),
            "limits.object_size",
            limits.object_size_bytes,
            1,
            size_max,
        );
        for (field, value) in [
            ("limits.calls_waiting", limits.calls_waiting),
            ("limits.objects", limits.objects),
            ("limits.inputs", limits.inputs),
        ] {
            self.number(place(), field, u64::from(value), 1, u64::from(u32::MAX / 2));
        }
        match spec.entry {
            Some(Entry::Function(function)) => self.function_index(|| "entry".into(), function),
            Some(Entry::Bucket(bucket)) => self.bucket_index(|| "entry".into(), bucket),
            None => {}
        }
        let functions = spec.functions.len() as u64;
        self.number(
            place(),
            "number of functions",
            functions,
            0,
            u64::from(FUNCTIONS_MAX),
        );
        let buckets = spec.buckets.len() as u64;
        self.number(
            place(),
            "number of buckets",
            buckets,
            0,
            u64::from(NO_BUCKET),
        );
        let triggers: usize = spec
            .buckets
            .iter()
            .map(|bucket| bucket.triggers.len())
            .sum();
        let triggers_max = u64::from(NO_TRIGGER);
        self.number(
            place(),
            "number of triggers",
            triggers as u64,
            0,
            triggers_max,
        );
        self.unique(
            "function",
            spec.functions.iter().map(|function| &function.name),
        );
        self.unique("bucket", spec.buckets.iter().map(|bucket| &bucket.name));
    }

    fn function(&mut self, function: &FunctionSpec) {
        let place = || format!("function `{}`", function.name);
        for &next in function.next.iter().chain(&function.calls) {
            self.function_index(place, next);
        }
        for &bucket in function.sends.iter().flatten() {
            self.bucket_index(place, bucket);
        }
        if let OnFailure::Bucket(bucket) = function.on_failure {
            self.bucket_index(place, bucket);
        }
        self.number(
            place(),
            "attempts",
            u64::from(function.attempts),
            1,
            u64::MAX,
        );
        self.number(
            place(),
            "serial_width",
            u64::from(function.serial_width),
            1,
            u64::MAX,
        );
        if let Some(most) = function.max_concurrency {
            self.number(place(), "max_concurrency", u64::from(most), 1, u64::MAX);
        }
        if !(-8..=7).contains(&function.priority) {
            self.range(place(), "priority", function.priority, "from -8 to 7");
        }
        if !(0.0..=1.0).contains(&function.backoff.jitter) {
            self.range(
                place(),
                "jitter",
                function.backoff.jitter,
                "from 0.0 to 1.0",
            );
        }
        if function.timeout_ns == Some(0) {
            self.range(place(), "timeout", 0, "longer than nothing");
        }
    }

    fn bucket(&mut self, bucket: &BucketSpec) {
        self.unique(
            "trigger",
            bucket.triggers.iter().map(|trigger| &trigger.name),
        );
        for trigger in &bucket.triggers {
            self.trigger(bucket, trigger);
        }
        let place = || format!("bucket `{}`, reruns", bucket.name);
        let index = self
            .spec
            .buckets
            .iter()
            .position(|own| own.name == bucket.name);
        let index = index.unwrap_or(usize::MAX);
        let mut seen = HashSet::new();
        for rerun in &bucket.reruns {
            self.function_index(place, rerun.function);
            self.rerun(bucket, index, rerun);
            if !seen.insert(rerun.function) {
                self.conflict(
                    place(),
                    "two rules are for one function: leave one of them out",
                );
            }
            self.number(place(), "attempts", u64::from(rerun.attempts), 1, u64::MAX);
            self.number(place(), "timeout", rerun.timeout_ns, 1, u64::MAX);
        }
    }

    fn rerun(&mut self, bucket: &BucketSpec, index: usize, rerun: &RerunSpec) {
        let Some(function) = self.spec.functions.get(usize::from(rerun.function)) else {
            return;
        };
        let place = || format!("bucket `{}`, reruns of `{}`", bucket.name, function.name);
        let sends = function.sends.as_ref();
        if sends.is_some_and(|sends| !sends.iter().any(|&sent| usize::from(sent) == index)) {
            self.conflict(
                place(),
                "its `sends` does not list the bucket, so it would always run again",
            );
        }
        if rerun.speculative && function.serial_by.is_some() {
            self.conflict(
                place(),
                "`speculative` runs two attempts at once, which its `serial_by` forbids",
            );
        }
    }

    fn trigger(&mut self, bucket: &BucketSpec, trigger: &TriggerSpec) {
        let place = || format!("bucket `{}`, trigger `{}`", bucket.name, trigger.name);
        if trigger.functions.is_empty() {
            self.conflict(place(), "no function is named: add `function = \"...\"`");
        }
        for &function in &trigger.functions {
            self.function_index(place, function);
        }
        match &trigger.kind {
            TriggerKind::DynamicJoin => self.within_a_session(&place, trigger),
            TriggerKind::Immediate => {}
            TriggerKind::Custom { timeout_ns, .. } => {
                self.number(place(), "timeout", *timeout_ns, 1, u64::MAX);
                if matches!(trigger.at_end, AtEnd::Fire | AtEnd::Wait) {
                    self.conflict(
                        place(),
                        "only a custom trigger's own code knows what to fire: `at_end` is \"drop\" \
                         or \"fail\"",
                    );
                }
            }
            TriggerKind::ByName(NameMatch::Key(key)) => self.key(place(), key),
            TriggerKind::ByName(NameMatch::Pattern(pattern)) => {
                if let Err(error) = Glob::new(pattern) {
                    self.errors.push(SpecError::Pattern {
                        place: place(),
                        pattern: pattern.clone(),
                        why: error.kind().to_string(),
                    });
                }
            }
            TriggerKind::BySet { keys } => self.by_set(&place, trigger, keys),
            TriggerKind::ByBatchSize { count, .. } => {
                self.number(place(), "count", u64::from(*count), 1, self.inputs());
            }
            TriggerKind::ByTime {
                window_ns,
                slide_ns,
                ..
            } => {
                self.number(place(), "window", *window_ns, 1, u64::MAX);
                self.number(place(), "slide", *slide_ns, 1, *window_ns);
                let over_one_instant = window_ns.div_ceil((*slide_ns).max(1));
                self.number(place(), "window / slide", over_one_instant, 1, WINDOWS_MAX);
            }
            TriggerKind::Redundant {
                k_of_n,
                cancel_rest,
                expire_ns,
            } => {
                let has_all = k_of_n.is_some() && expire_ns.is_some();
                self.across_sessions(&place, trigger, has_all, cancel_rest);
                for &function in cancel_rest {
                    self.function_index(place, function);
                }
                if let Some((k, n)) = *k_of_n {
                    self.number(place(), "k", u64::from(k), 1, self.inputs());
                    self.number(place(), "n", u64::from(n), u64::from(k), u64::MAX);
                }
            }
            TriggerKind::DynamicGroup { close, .. } => {
                self.within_a_session(&place, trigger);
                if let GroupClose::After(function) = *close {
                    self.function_index(place, function);
                }
            }
        }
    }

    /// A round that is not of one session has nobody who would say k and n at run time, no end
    /// with which it would be forgotten, and no invocations of its own to cancel.
    fn across_sessions(
        &mut self,
        place: &dyn Fn() -> String,
        trigger: &TriggerSpec,
        has_all: bool,
        cancel_rest: &[u16],
    ) {
        if trigger.scope != Scope::Bucket {
            return;
        }
        if !has_all {
            self.conflict(
                place(),
                "a `redundant` across sessions needs `k`, `n` and `expire`",
            );
        }
        if !cancel_rest.is_empty() {
            self.conflict(
                place(),
                "`cancel_rest` is of a session's invocations: leave it out across sessions",
            );
        }
    }

    fn by_set(&mut self, place: &dyn Fn() -> String, trigger: &TriggerSpec, keys: &[String]) {
        self.number(
            place(),
            "number of keys",
            keys.len() as u64,
            1,
            self.inputs(),
        );
        self.within_a_session(place, trigger);
        if trigger.at_end == AtEnd::Wait {
            self.conflict(
                place(),
                "a `by_set` has no timer to wait for: `at_end` is \"fire\", \"fail\" or \"drop\"",
            );
        }
        let mut seen = HashSet::new();
        for key in keys {
            self.key(place(), key);
            if !seen.insert(key) {
                self.bad_key(place(), key, "occurs twice in one set");
            }
        }
    }

    fn within_a_session(&mut self, place: &dyn Fn() -> String, trigger: &TriggerSpec) {
        if trigger.scope != Scope::Session {
            let why = "a trigger of this type gathers within a session: `scope = \"session\"`";
            self.conflict(place(), why);
        }
    }

    fn inputs(&self) -> u64 {
        u64::from(self.spec.limits.inputs)
    }

    fn unique<'n>(&mut self, what: &'static str, names: impl Iterator<Item = &'n String>) {
        let mut seen = HashSet::new();
        for name in names {
            if name.is_empty() {
                self.name(what, name, "is empty");
            }
            if !seen.insert(name) {
                self.name(what, name, "occurs twice");
            }
        }
    }

    fn key(&mut self, place: String, key: &str) {
        if key.is_empty() {
            self.bad_key(place, key, "is empty, and a key has at least one byte");
        } else if key.len() > KEY_BYTES_MAX {
            self.bad_key(place, key, "is longer than 255 bytes");
        } else if key.contains('\0') {
            self.bad_key(place, key, "contains a zero byte");
        } else if key.starts_with('~') {
            self.bad_key(place, key, "begins with `~`, which marks automatic keys");
        }
    }

    fn bad_key(&mut self, place: String, key: &str, why: &'static str) {
        let key = key.to_owned();
        self.errors.push(SpecError::Key { place, key, why });
    }

    fn name(&mut self, what: &'static str, name: &str, why: &'static str) {
        let name = name.to_owned();
        self.errors.push(SpecError::Name { what, name, why });
    }

    fn conflict(&mut self, place: String, why: &str) {
        let why = why.to_owned();
        self.errors.push(SpecError::Conflict { place, why });
    }

    fn function_index(&mut self, place: impl Fn() -> String, index: u16) {
        let count = self.spec.functions.len();
        self.index(place, "function", index, count);
    }

    fn bucket_index(&mut self, place: impl Fn() -> String, index: u16) {
        let count = self.spec.buckets.len();
        self.index(place, "bucket", index, count);
    }

    fn index(&mut self, place: impl Fn() -> String, what: &'static str, index: u16, count: usize) {
        if usize::from(index) >= count {
            let place = place();
            self.errors.push(SpecError::Index {
                place,
                what,
                index,
                count,
            });
        }
    }

    fn number(&mut self, place: String, field: &'static str, value: u64, least: u64, most: u64) {
        if !(least..=most).contains(&value) {
            let allowed = if most == u64::MAX {
                format!("at least {least}")
            } else {
                format!("from {least} to {most}")
            };
            self.range(place, field, value, &allowed);
        }
    }

    fn range(&mut self, place: String, field: &'static str, value: impl ToString, allowed: &str) {
        self.errors.push(SpecError::Number {
            place,
            field,
            value: value.to_string(),
            allowed: allowed.to_owned(),
        });
    }
}

/// `[a-z0-9][a-z0-9_-]{0,62}`.
fn is_app_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    (1..=63).contains(&bytes.len())
        && plain(bytes[0])
        && bytes[1..]
            .iter()
            .all(|&byte| plain(byte) || byte == b'_' || byte == b'-')
}
