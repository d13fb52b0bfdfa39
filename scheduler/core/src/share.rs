//! How an app is divided among several schedulers.
//!
//! Schedulers share nothing, so whatever an app has a fixed amount of is dealt out once, when it is
//! deployed: each of its *homes* owns some of its executor slots, and of its memory and its limits
//! a part. The parts add up to the whole. Node and schedulers work the division out for themselves,
//! from the same spec. Executors and memory may move from home to home after that
//! (`local/exchange.rs`); what is counted stays as it was dealt.

use crate::event::AppId;
use crate::spec::{
    AppSpec, BucketIndex, FunctionSpec, Limits, OnFailure, Pool, Retain, Scope, TriggerKind,
};

/// Most schedulers of one node. Each pair has two rings: 120 pairs, 12 MiB of rings.
pub const SCHEDULERS_MAX: u8 = 16;
/// Memory that an app must have for each scheduler that it is divided among: room for the credit of
/// a few executors.
pub const SHARE_BYTES_MIN: u64 = 16 << 20;

/// Which schedulers an app is divided among, and what each has of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Division {
    schedulers: u8,
    /// The first home; the others follow it in order, the last scheduler before the first.
    first: u8,
    count: u8,
}

impl Division {
    /// The division of an app among so many schedulers: as many homes as have one at least of
    /// everything that is divided. Apps that have fewer begin at different schedulers.
    pub fn new(spec: &AppSpec, app: AppId, schedulers: u8) -> Self {
        let schedulers = schedulers.max(1);
        let most = bounds(spec).map(|(most, _)| most).min();
        let count = most.unwrap_or(1).clamp(1, u64::from(schedulers));
        Self {
            schedulers,
            // The home in the id of a durable session is where it goes on after a restart, too.
            first: if spec.functions.iter().any(|function| function.durable) {
                0
            } else {
                (app.0 % u16::from(schedulers)) as u8
            },
            count: count as u8,
        }
    }

    /// The schedulers that have a share.
    pub fn homes(self) -> impl Iterator<Item = u8> + Clone {
        (0..self.count).map(move |position| self.at(position))
    }

    /// How many there are.
    pub fn count(self) -> u8 {
        self.count
    }

    /// Whether a scheduler has a share.
    pub fn is_home(self, scheduler: u8) -> bool {
        self.homes().any(|home| home == scheduler)
    }

    /// Whose coordinator gathers a bucket's objects across sessions.
    pub(crate) fn gatherer(self, bucket: BucketIndex) -> u8 {
        self.at((bucket % u16::from(self.count)) as u8)
    }

    /// What a scheduler has; `None` where that is nothing.
    pub fn share(self, spec: &AppSpec, scheduler: u8) -> Option<Share> {
        let position = self.homes().position(|home| home == scheduler)?;
        Some(Share::new(spec, position as u64, u64::from(self.count)))
    }

    fn at(self, position: u8) -> u8 {
        ((u16::from(self.first) + u16::from(position)) % u16::from(self.schedulers)) as u8
    }
}

/// What one scheduler has of an app. Its slots keep their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its part of the pool.
    pub executors: Pool,
    /// Its part of the quota.
    pub memory_bytes: u64,
    /// Its part of what counts over the app; what bounds one object, invocation or session is as
    /// it was.
    pub limits: Limits,
    position: u64,
    count: u64,
}

impl Share {
    fn new(spec: &AppSpec, position: u64, count: u64) -> Self {
        let mut share = Self {
            executors: spec.executors,
            memory_bytes: spec.memory_bytes,
            limits: spec.limits.clone(),
            position,
            count,
        };
        let (pool, limits) = (spec.executors, &spec.limits);
        share.executors.min = share.part_of(pool.min.into()) as u16;
        share.executors.max = share.part_of(pool.max.into()) as u16;
        share.memory_bytes = share.part_of(spec.memory_bytes);
        share.limits.sessions = share.part_of(limits.sessions.into()) as u32;
        share.limits.calls_waiting = share.part_of(limits.calls_waiting.into()) as u32;
        share.limits.objects = share.part_of(limits.objects.into()) as u32;
        share.limits.dead_letters_bytes = share.part_of(limits.dead_letters_bytes);
        let runners_and_waiters = u64::from(pool.max) + u64::from(limits.waiters);
        let slots = share.part_of(runners_and_waiters) as u16;
        share.limits.waiters = slots - share.executors.max;
        share
    }

    /// Its part of so many: how many of the numbers below fall to it.
    pub fn part_of(&self, whole: u64) -> u64 {
        whole / self.count + u64::from(self.position < whole % self.count)
    }

    /// Whether an executor slot is in it.
    pub fn has_slot(&self, slot: u16) -> bool {
        u64::from(slot) % self.count == self.position
    }
}

/// Why an app is divided among fewer schedulers than there are, as the end of a sentence; `None`
/// where it is divided among all of them, or has fewer executors.
pub fn undivided_because(spec: &AppSpec, schedulers: u8) -> Option<String> {
    let (most, why) = bounds(spec).min_by_key(|(most, _)| *most)?;
    (most < u64::from(schedulers)).then_some(why?)
}

/// Whether reports of a function's failures are gathered across sessions.
fn gathers_reports(spec: &AppSpec, function: &FunctionSpec) -> bool {
    let OnFailure::Bucket(bucket) = function.on_failure else {
        return false;
    };
    let bucket = spec.buckets.get(usize::from(bucket));
    bucket.is_some_and(|bucket| {
        let mut triggers = bucket.triggers.iter();
        triggers.any(|trigger| trigger.scope == Scope::Bucket)
    })
}

/// What bounds the number of homes: so many at most, and why, where that is worth a word.
fn bounds(spec: &AppSpec) -> impl Iterator<Item = (u64, Option<String>)> {
    let limits = &spec.limits;
    // A limit of none is none everywhere.
    let waiters = if limits.waiters == 0 {
        u64::MAX
    } else {
        limits.waiters.into()
    };
    let counts = [
        ("memory", spec.memory_bytes / SHARE_BYTES_MIN),
        ("limits.sessions", limits.sessions.into()),
        ("limits.calls_waiting", limits.calls_waiting.into()),
        ("limits.objects", limits.objects.into()),
        ("limits.waiters", waiters),
    ];
    let counts = counts
        .into_iter()
        .map(|(name, count)| (count, Some(format!("there is too little of its `{name}`"))));
    let executors = std::iter::once((u64::from(spec.executors.max), None));
    let functions = spec.functions.iter().flat_map(|function| {
        let name = &function.name;
        let serial = function.serial_by.map(|_| {
            let why = format!("its function `{name}` has `serial_by`, which one scheduler keeps");
            (1, Some(why))
        });
        let concurrent = function.max_concurrency.map(|most| {
            let why = format!("there is too little of `max_concurrency` of its function `{name}`");
            (u64::from(most), Some(why))
        });
        let reporting = gathers_reports(spec, function).then(|| {
            let why = format!(
                "the bucket of `on_failure` of its function `{name}` gathers across sessions, and \
                 what is attached to a report stays with one scheduler"
            );
            (1, Some(why))
        });
        let durable = function.durable.then(|| {
            let why = format!("its function `{name}` is durable, and one scheduler keeps sessions");
            (1, Some(why))
        });
        serial
            .into_iter()
            .chain(reporting)
            .chain(concurrent)
            .chain(durable)
    });
    let triggers = spec.buckets.iter().flat_map(|bucket| {
        bucket.triggers.iter().filter_map(|trigger| {
            let name = &trigger.name;
            let why = match &trigger.kind {
                TriggerKind::Custom { .. } => {
                    format!("its trigger `{name}` is of type `custom`, which one scheduler keeps")
                }
                // A straggler may take an executor until the round has fired. In a part of the
                // pool those whose answers the round waits for would find none.
                TriggerKind::Redundant { cancel_rest, .. } if !cancel_rest.is_empty() => format!(
                    "its trigger `{name}` has `cancel_rest`: those that it cancels must be able \
                     to run beside all others, in one scheduler's pool"
                ),
                _ => return None,
            };
            Some((1, Some(why)))
        })
    });
    let buckets = spec.buckets.iter().filter_map(|bucket| {
        let retains = !bucket.durable && bucket.retain != Retain::ForNs(0);
        let name = &bucket.name;
        let why = || format!("its bucket `{name}` has `retain`, which one scheduler keeps");
        retains.then(|| (1, Some(why())))
    });
    let speculative = spec.buckets.iter().filter_map(|bucket| {
        let name = &bucket.name;
        let why = || {
            format!(
                "a rerun rule of its bucket `{name}` is `speculative`: its attempts must be able \
                 to run beside each other, in one scheduler's pool"
            )
        };
        let speculates = bucket.reruns.iter().any(|rule| rule.speculative);
        speculates.then(|| (1, Some(why())))
    });
    let triggers = triggers.chain(buckets).chain(speculative);
    executors.chain(counts).chain(functions).chain(triggers)
}
