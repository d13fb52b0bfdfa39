//! What an executor may start by itself: *continuation in place*.
//!
//! Where an object fires exactly one invocation that needs no other data, whoever has sent it may
//! go on with that function at once. Whether it is so is a matter of the manifest alone, and is
//! worked out here once, for the scheduler and for executors. When it is done, and when it is
//! taken back, is the scheduler's affair (`local/in_place.rs`).

use serde::{Deserialize, Serialize};

use crate::spec::{AppSpec, BucketSpec, FunctionIndex, FunctionSpec, Retain, TriggerKind};

/// What an app's objects lead to by themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InPlace {
    /// By function: it may be gone on from, and gone on with.
    pub functions: Vec<bool>,
    /// By bucket: what each object with an automatic key fires, and nothing else looks at it.
    pub buckets: Vec<Option<Successor>>,
    is_used: bool,
}

/// The one function that an object fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Successor {
    /// Which.
    pub function: FunctionIndex,
    /// By this trigger, counted over the app.
    pub trigger: u16,
}

impl InPlace {
    /// Of an app; of one with `continuation = false` nothing.
    pub fn new(spec: &AppSpec) -> Self {
        if !spec.continuation {
            return Self {
                functions: vec![false; spec.functions.len()],
                buckets: vec![None; spec.buckets.len()],
                is_used: false,
            };
        }
        let mut first_trigger = 0;
        let mut buckets = Vec::with_capacity(spec.buckets.len());
        for bucket in &spec.buckets {
            buckets.push(successor(bucket, first_trigger));
            first_trigger += bucket.triggers.len() as u16;
        }
        let mut in_place = Self {
            functions: may_go_on(spec),
            buckets,
            is_used: false,
        };
        in_place.is_used = in_place.functions.contains(&true);
        let (functions, buckets) = (&in_place.functions, &mut in_place.buckets);
        for bucket in buckets {
            *bucket = bucket.filter(|next| functions[usize::from(next.function)]);
        }
        in_place
    }

    /// Whether there is anything.
    #[inline]
    pub fn is_used(&self) -> bool {
        self.is_used
    }

    /// What a direct object for a function fires, where its sender may go on with that.
    #[inline]
    pub(crate) fn of_function(
        &self,
        sender: FunctionIndex,
        to: FunctionIndex,
    ) -> Option<FunctionIndex> {
        (self.allows(sender) && self.allows(to)).then_some(to)
    }

    /// What an object in a bucket fires, where its sender may go on with that.
    #[inline]
    pub(crate) fn of_bucket(&self, sender: FunctionIndex, bucket: u16) -> Option<Successor> {
        let next = self.buckets.get(usize::from(bucket)).copied().flatten();
        next.filter(|_| self.allows(sender))
    }

    /// Whether a function may be gone on with.
    #[inline]
    pub fn allows(&self, function: FunctionIndex) -> bool {
        self.functions
            .get(usize::from(function))
            .copied()
            .unwrap_or(false)
    }
}

/// Functions that take no part in anything that the scheduler has to weigh before they start or
/// after they have ended: further attempts, reruns, turns, numbers, and others that go before them.
fn may_go_on(spec: &AppSpec) -> Vec<bool> {
    let highest = spec
        .functions
        .iter()
        .map(|function| function.priority)
        .max();
    let is_alone = |function: &FunctionSpec| {
        function.attempts == 1
            && function.serial_by.is_none()
            && function.max_concurrency.is_none()
            && !function.durable
            && Some(function.priority) == highest
    };
    let mut may: Vec<bool> = spec.functions.iter().map(is_alone).collect();
    for rule in spec.buckets.iter().flat_map(|bucket| &bucket.reruns) {
        may[usize::from(rule.function)] = false;
    }
    may
}

/// What each object with an automatic key in a bucket fires, where that is one function and nothing
/// else looks at it. `first_trigger`: the bucket's first, counted over the app.
pub(crate) fn successor(bucket: &BucketSpec, first_trigger: u16) -> Option<Successor> {
    let is_left_alone = !bucket.durable && bucket.retain == Retain::ForNs(0);
    match bucket.triggers.as_slice() {
        [only] if is_left_alone && only.kind == TriggerKind::Immediate => {
            match only.functions.as_slice() {
                &[function] => Some(Successor {
                    function,
                    trigger: first_trigger,
                }),
                _ => None,
            }
        }
        _ => None,
    }
}
