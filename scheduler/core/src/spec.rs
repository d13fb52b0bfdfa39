//! What an app is, as the core needs it: names turned into indices, every number checked.
//!
//! A manifest is text with a source; this is what is left when it has been read and found right.
//! Whoever builds one by hand (a test, a benchmark) must keep the invariants that `AppSpec`
//! states, or the core refuses the app by [`AppSpec::validate`].

use serde::{Deserialize, Serialize};

/// Index of a function in [`AppSpec::functions`].
pub type FunctionIndex = u16;
/// Index of a bucket in [`AppSpec::buckets`].
pub type BucketIndex = u16;

/// One version of one app.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AppSpec {
    /// `[a-z0-9][a-z0-9_-]{0,62}`.
    pub name: String,
    /// What an external call reaches when it names no function.
    pub entry: Option<Entry>,
    /// The request outlives its consumption, until the session ends.
    pub keep_request: bool,
    /// Quota of the object store, bytes.
    pub memory_bytes: u64,
    /// Processes.
    pub executors: Pool,
    /// How far functions are shut in.
    pub isolation: Isolation,
    /// Share of executor time beside other apps; at least 1.
    pub weight: u32,
    /// A session with a caller that ends without a response has failed.
    pub response_required: bool,
    /// Default deadline of a session.
    pub session_timeout_ns: Option<u64>,
    /// A caller that goes away cancels its session.
    pub cancel_on_disconnect: bool,
    /// How long a response can be fetched afterwards.
    pub keep_results_ns: u64,
    /// Whether executors may start the next hop themselves.
    pub continuation: bool,
    /// `[app.limits]`.
    pub limits: Limits,
    /// Functions, in the manifest's order.
    pub functions: Vec<FunctionSpec>,
    /// Buckets, in the manifest's order.
    pub buckets: Vec<BucketSpec>,
}

impl AppSpec {
    /// Executor slots, each with a region of its index: the pool's, then one for each custom
    /// trigger, in their order.
    pub fn executor_slots(&self) -> u16 {
        let customs = u16::try_from(self.custom_triggers()).unwrap_or(u16::MAX);
        self.pool_slots().saturating_add(customs)
    }

    /// Slots of the pool: those that run functions and those that wait.
    pub fn pool_slots(&self) -> u16 {
        self.executors.max.saturating_add(self.limits.waiters)
    }

    /// How many triggers decide by code of their own.
    pub fn custom_triggers(&self) -> usize {
        let triggers = self.buckets.iter().flat_map(|bucket| &bucket.triggers);
        let is_custom = |trigger: &&TriggerSpec| matches!(trigger.kind, TriggerKind::Custom { .. });
        triggers.filter(is_custom).count()
    }

    /// Index of the ingress region, and the `slot` by which it is named in releases.
    pub fn ingress_slot(&self) -> u16 {
        self.executor_slots()
    }

    /// Bytes of address space of each region: twice the quota, since a region may hold all of it
    /// in pieces, as a power of two within what an extent can address.
    pub fn region_span_bytes(&self) -> u64 {
        let wanted = self
            .memory_bytes
            .clamp(REGION_SPAN_BYTES_MIN / 2, REGION_SPAN_BYTES_MAX / 2);
        (wanted * 2).next_power_of_two()
    }
}

/// Smallest span of a region.
pub const REGION_SPAN_BYTES_MIN: u64 = 64 << 20;
/// Largest span of a region: 2^32 units of 64 bytes.
pub const REGION_SPAN_BYTES_MAX: u64 = 1 << 38;

/// Where a call without a function goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// To this function, as its single input.
    Function(FunctionIndex),
    /// Into this bucket, under an automatic key; the caller waits.
    Bucket(BucketIndex),
}

/// How many executor processes an app has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Started at deployment and kept.
    pub min: u16,
    /// Never more than this run functions at once.
    pub max: u16,
}

/// How far functions are shut in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Isolation {
    /// Own process, another uid where possible, read-only windows.
    None,
    /// Also seccomp and what else the machine has.
    Standard,
    /// All of it, or refusal.
    Strict,
}

/// `[app.limits]`. All counts are at least 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Sessions open at once.
    pub sessions: u32,
    /// External calls that wait to start.
    pub calls_waiting: u32,
    /// Live objects.
    pub objects: u32,
    /// Bytes of one object.
    pub object_size_bytes: u64,
    /// Inputs of one invocation.
    pub inputs: u32,
    /// How long `phr_create` waits for memory.
    pub create_wait_ns: u64,
    /// How long queued work waits for an awake executor before a sleeping one is woken.
    pub forward_delay_ns: u64,
    /// Invocations that may wait in `phr_get` at once.
    pub waiters: u16,
    /// Bytes retained by dead letters.
    pub dead_letters_bytes: u64,
    /// Bytes a slow subscriber may hold.
    pub subscriber_buffer_bytes: u64,
    /// Bytes of output per invocation.
    pub log_bytes: u64,
    /// From cancelling to killing.
    pub cancel_grace_ns: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions: 1 << 20,
            calls_waiting: 1 << 16,
            objects: 1 << 22,
            object_size_bytes: 1 << 30,
            inputs: 1 << 20,
            create_wait_ns: 0,
            forward_delay_ns: 50_000,
            waiters: 8,
            dead_letters_bytes: 64 << 20,
            subscriber_buffer_bytes: 1 << 20,
            log_bytes: 1 << 20,
            cancel_grace_ns: 100_000_000,
        }
    }
}

/// One function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FunctionSpec {
    /// Its name in the manifest.
    pub name: String,
    /// Where its direct objects go.
    pub next: Vec<FunctionIndex>,
    /// What it may address by `phr_create_for`, beside `next`.
    pub calls: Vec<FunctionIndex>,
    /// Buckets it may publish into; `None`: any.
    pub sends: Option<Vec<BucketIndex>>,
    /// Of one attempt.
    pub timeout_ns: Option<u64>,
    /// Of loading and `PHR_INIT`.
    pub init_timeout_ns: u64,
    /// At least 1.
    pub attempts: u32,
    /// Between attempts.
    pub backoff: Backoff,
    /// When out of attempts.
    pub on_failure: OnFailure,
    /// Invocations running at once; `None`: no limit.
    pub max_concurrency: Option<u32>,
    /// -8..=7, higher first.
    pub priority: i8,
    /// One after another by what.
    pub serial_by: Option<SerialBy>,
    /// How many alike at once; at least 1.
    pub serial_width: u32,
    /// A request to it is on disk before it is accepted.
    pub durable: bool,
}

/// Pause before a further attempt: `first_ns`, doubling up to `max_ns`, each times
/// 1 +- `jitter`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backoff {
    /// Before the second attempt.
    pub first_ns: u64,
    /// Upper bound.
    pub max_ns: u64,
    /// 0.0..=1.0.
    pub jitter: f64,
}

/// What follows when a function is out of attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnFailure {
    /// The session fails.
    Fail,
    /// The session goes on.
    Continue,
    /// As `Continue`, and a failure object is published there.
    Bucket(BucketIndex),
}

/// What `serial_by` compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SerialBy {
    /// The first input's key.
    Key,
    /// The first input's group.
    Group,
    /// The invocation's session.
    Session,
}

/// One bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BucketSpec {
    /// Its name in the manifest.
    pub name: String,
    /// Objects reach disk before their triggers fire.
    pub durable: bool,
    /// What the bucket itself holds.
    pub keep: Keep,
    /// How long objects live from their arrival, beyond their session too.
    pub retain: Retain,
    /// Durable: a send from another session replaces.
    pub replace: bool,
    /// In the manifest's order, which is the order of firing.
    pub triggers: Vec<TriggerSpec>,
    /// Re-execution rules.
    pub reruns: Vec<RerunSpec>,
}

/// A bucket's own hold on its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keep {
    /// Until the session ends.
    Session,
    /// None.
    UntilConsumed,
}

/// How long objects outlive everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Retain {
    /// From the object's arrival; 0: not at all.
    ForNs(u64),
    /// Until deleted.
    Forever,
}

/// The paper's re-execution rule, owned by the consuming bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RerunSpec {
    /// The source.
    pub function: FunctionIndex,
    /// From an attempt's start.
    pub timeout_ns: u64,
    /// In all.
    pub attempts: u32,
    /// Leave the original running.
    pub speculative: bool,
    /// Success without an object meets the rule.
    pub optional: bool,
}

/// One trigger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TriggerSpec {
    /// Unique in its bucket.
    pub name: String,
    /// Each gets the same objects.
    pub functions: Vec<FunctionIndex>,
    /// Whose objects are gathered.
    pub scope: Scope,
    /// What happens to a pending state at its session's end.
    pub at_end: AtEnd,
    /// Bucket scope: leave out objects of sessions that have ended.
    pub skip_ended: bool,
    /// Its type and fields.
    pub kind: TriggerKind,
}

/// Whose objects a trigger gathers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// State per session.
    Session,
    /// Across sessions.
    Bucket,
}

/// What happens to a pending state when nothing else keeps its session open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AtEnd {
    /// An armed timer keeps the session open.
    Wait,
    /// Fires with what is pending.
    Fire,
    /// The session fails.
    Fail,
    /// Dropped and counted.
    Drop,
}

/// A trigger's type with its fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum TriggerKind {
    /// For each object.
    Immediate,
    /// For each object whose key matches.
    ByName(NameMatch),
    /// When all keys are there, in this order. No key twice; ranges are expanded.
    BySet {
        /// At least one.
        keys: Vec<String>,
    },
    /// For every `count` objects.
    ByBatchSize {
        /// At least 1.
        count: u32,
        /// Also when the oldest pending has waited this long.
        linger_ns: Option<u64>,
        /// Each group has its own state.
        per_group: bool,
    },
    /// At each window's end.
    ByTime {
        /// Length.
        window_ns: u64,
        /// Distance of starts; at most the length.
        slide_ns: u64,
        /// Fire empty windows too.
        fire_empty: bool,
        /// Each group has its own state.
        per_group: bool,
    },
    /// k of n.
    Redundant {
        /// k and n, or at run time.
        k_of_n: Option<(u32, u32)>,
        /// Cancelled once a round has fired.
        cancel_rest: Vec<FunctionIndex>,
        /// A round is forgotten this long after its first object.
        expire_ns: Option<u64>,
    },
    /// Keys at run time.
    DynamicJoin,
    /// Once per group when closed.
    DynamicGroup {
        /// What closes it.
        close: GroupClose,
        /// Fires once with no inputs if none came.
        fire_empty: bool,
        /// Objects of a group in key order, else arrival order.
        order_by_key: bool,
    },
    /// A C predicate decides.
    Custom {
        /// `phr_trigger_config`.
        config: Vec<(String, String)>,
        /// Of one call.
        timeout_ns: u64,
        /// Fired objects may be fired again.
        keep: bool,
    },
}

/// Which keys a `by_name` trigger takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NameMatch {
    /// This one.
    Key(String),
    /// A glob: `*`, `?`, `[...]`, `{a,b}`; `/` is a character like others.
    Pattern(String),
}

/// What closes a `dynamic_group`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupClose {
    /// So many sources have closed.
    Sources(u32),
    /// As said by `phr_expect_sources`.
    SourcesAtRunTime,
    /// Nothing upstream of and including this function is alive.
    After(FunctionIndex),
}
