//! An app's spec made ready for the hot path: lists and look-ups built once, when it is deployed.
//!
//! Nothing in it changes afterwards. Which triggers an object concerns is found through its key,
//! so that the cost of an object does not grow with the triggers that do not want it.

use foldhash::fast::RandomState;
use globset::{Candidate, Glob, GlobSet, GlobSetBuilder};
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::gather::Rule;
use crate::in_place::{InPlace, Successor, successor};
use crate::local::upstream::{AfterPlan, afters};
use crate::spec::{
    AppSpec, AtEnd, Backoff, BucketSpec, Keep, NameMatch, OnFailure, Retain, Scope, SerialBy,
    TriggerKind,
};

/// An object concerns a trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Match {
    /// The trigger, in the app's numbering.
    pub(super) trigger: u16,
    /// The key's place in a set; 0 for triggers without places.
    pub(super) position: u32,
}

/// One trigger.
pub(super) struct TriggerPlan {
    pub(super) bucket: u16,
    /// Its place in the bucket.
    pub(super) index: u16,
    /// How it gathers; none: it fires with each object.
    pub(super) rule: Option<Rule>,
    pub(super) at_end: AtEnd,
    /// Whose objects it gathers.
    pub(super) scope: Scope,
    /// Across sessions: those that end early are left out.
    pub(super) skip_ended: bool,
    pub(super) functions: Box<[u16]>,
    /// Functions that are cancelled once a round has fired.
    pub(super) cancel_rest: Box<[u16]>,
    /// Groups that wait for what this trigger may still fire, by their place in [`Plan::afters`].
    pub(super) feeds: Box<[u16]>,
}

/// One bucket.
pub(super) struct BucketPlan {
    /// The bucket holds its objects until their session ends.
    pub(super) keeps: bool,
    /// Its objects are on disk before they arrive.
    pub(super) is_durable: bool,
    /// How long its objects are held from their arrival; 0: not at all. Those of a durable bucket
    /// are on disk so long instead.
    pub(super) retain: Retain,
    /// Triggers that every object concerns, in order.
    pub(super) every: SmallVec<[u16; 4]>,
    /// One of those gathers.
    every_gathers: bool,
    /// One of its triggers remembers what it has had of a session.
    pub(super) is_remembered: bool,
    /// Groups that wait for what one of its triggers may still fire.
    pub(super) feeds: Box<[u16]>,
    /// The simple function that each object with an automatic key fires, and nothing else looks
    /// at it.
    pub(super) only: Option<Successor>,
    globs: GlobSet,
    glob_triggers: Vec<u16>,
    keys: HashMap<Box<[u8]>, SmallVec<[Match; 2]>, RandomState>,
}

/// One rerun rule.
pub(super) struct RerunPlan {
    pub(super) bucket: u16,
    pub(super) timeout_ns: u64,
    pub(super) attempts: u32,
    pub(super) speculative: bool,
    pub(super) optional: bool,
}

/// One function.
pub(super) struct FunctionPlan {
    pub(super) next: Box<[u16]>,
    pub(super) calls: Box<[u16]>,
    /// Buckets that it may publish into, as bits; `None`: any.
    sends: Option<Vec<u64>>,
    pub(super) attempts: u32,
    pub(super) backoff: Backoff,
    pub(super) on_failure: OnFailure,
    pub(super) timeout_ns: Option<u64>,
    pub(super) init_timeout_ns: u64,
    pub(super) serial_by: Option<SerialBy>,
    pub(super) serial_width: u32,
    /// Groups that wait for this function, by their place in [`Plan::afters`].
    pub(super) upstream_of: Box<[u16]>,
    /// Rerun rules that watch it, by their place in [`Plan::reruns`].
    pub(super) reruns: Box<[u16]>,
    /// What a direct object for `next` fires, where that can be gone on with.
    pub(super) next_in_place: Option<u16>,
    /// It has one attempt, and nobody watches it, counts its turns or writes down that it fires.
    pub(super) is_simple: bool,
    /// The one simple function that a direct object for `next` fires.
    pub(super) only_next: Option<u16>,
}

impl FunctionPlan {
    /// Whether an invocation of it may have more than one attempt.
    #[inline]
    pub(super) fn can_run_again(&self) -> bool {
        self.attempts > 1 || !self.reruns.is_empty()
    }

    pub(super) fn may_send(&self, bucket: u16) -> bool {
        self.sends
            .as_ref()
            .is_none_or(|bits| bits[usize::from(bucket) / 64] >> (bucket % 64) & 1 == 1)
    }

    pub(super) fn may_call(&self, function: u16) -> bool {
        self.next.contains(&function) || self.calls.contains(&function)
    }
}

/// The whole app.
pub(super) struct Plan {
    pub(super) functions: Vec<FunctionPlan>,
    pub(super) buckets: Vec<BucketPlan>,
    pub(super) triggers: Vec<TriggerPlan>,
    /// Groups that close when what is upstream of a function has fallen quiet.
    pub(super) afters: Vec<AfterPlan>,
    /// Rerun rules of all buckets, in the manifest's order.
    pub(super) reruns: Vec<RerunPlan>,
    /// What executors may start by themselves.
    pub(super) in_place: InPlace,
}

impl Plan {
    /// Of a spec that has been found valid.
    pub(super) fn new(spec: &AppSpec) -> Self {
        let mut triggers = Vec::new();
        let inputs_max = spec.limits.inputs;
        let mut buckets: Vec<BucketPlan> = (0u16..)
            .zip(&spec.buckets)
            .map(|(index, bucket)| bucket_plan(index, bucket, inputs_max, &mut triggers))
            .collect();
        let afters = afters(spec);
        for (trigger, number) in triggers.iter_mut().zip(0u16..) {
            trigger.feeds = waiting_for(&afters, |after| {
                let is_upstream = |&function: &u16| after.waits_for(function);
                // What gathers across sessions fires into another session.
                let fires_here = trigger.scope == Scope::Session && after.trigger != number;
                fires_here && trigger.functions.iter().any(is_upstream)
            });
        }
        for (bucket, number) in buckets.iter_mut().zip(0u16..) {
            let mut feeds: Vec<u16> = triggers
                .iter()
                .filter(|trigger| trigger.bucket == number)
                .flat_map(|trigger| trigger.feeds.iter().copied())
                .collect();
            feeds.sort_unstable();
            feeds.dedup();
            bucket.feeds = feeds.into();
        }
        let is_simple = |function: u16| {
            let is_watched = !watching(spec, function).is_empty();
            let function = &spec.functions[usize::from(function)];
            let is_alone = function.attempts == 1 && function.serial_by.is_none();
            is_alone && !is_watched && !function.durable
        };
        for bucket in &mut buckets {
            bucket.only = bucket.only.filter(|only| is_simple(only.function));
        }
        let in_place = InPlace::new(spec);
        let functions = (0u16..)
            .zip(&spec.functions)
            .map(|(index, function)| FunctionPlan {
                next: function.next.as_slice().into(),
                calls: function.calls.as_slice().into(),
                sends: function
                    .sends
                    .as_ref()
                    .map(|allowed| bits(allowed, spec.buckets.len())),
                attempts: function.attempts,
                backoff: function.backoff,
                on_failure: function.on_failure,
                timeout_ns: function.timeout_ns,
                init_timeout_ns: function.init_timeout_ns,
                serial_by: function.serial_by,
                serial_width: function.serial_width,
                upstream_of: waiting_for(&afters, |after| after.waits_for(index)),
                reruns: watching(spec, index),
                next_in_place: match *function.next {
                    [next] => in_place.of_function(index, next),
                    _ => None,
                },
                is_simple: is_simple(index),
                only_next: match *function.next {
                    [next] => Some(next).filter(|&next| is_simple(next)),
                    _ => None,
                },
            })
            .collect();
        Self {
            functions,
            buckets,
            triggers,
            afters,
            reruns: reruns(spec),
            in_place,
        }
    }
}

impl BucketPlan {
    /// Whether its objects are held for a time of their own.
    #[inline]
    pub(super) fn retains(&self) -> bool {
        !self.is_durable && self.retain != Retain::ForNs(0)
    }

    /// Whether only triggers in `every` can want an object with this key, or with an automatic one,
    /// and each fires with it.
    pub(super) fn is_plain(&self, named: bool) -> bool {
        !self.every_gathers && self.glob_triggers.is_empty() && (!named || self.keys.is_empty())
    }

    /// Adds the triggers that an object with this key concerns, in the manifest's order.
    /// `globbed` is room to work in.
    pub(super) fn matches(&self, key: &[u8], globbed: &mut Vec<usize>, into: &mut Vec<Match>) {
        let plain = |&trigger: &u16| Match {
            trigger,
            position: 0,
        };
        into.extend(self.every.iter().map(plain));
        if let Some(keyed) = self.keys.get(key) {
            into.extend_from_slice(keyed);
        }
        if !self.glob_triggers.is_empty() {
            self.globs
                .matches_candidate_into(&Candidate::from_bytes(key), globbed);
            into.extend(globbed.iter().map(|&glob| plain(&self.glob_triggers[glob])));
        }
        into.sort_unstable_by_key(|found| found.trigger);
    }
}

fn bucket_plan(
    index: u16,
    bucket: &BucketSpec,
    inputs_max: u32,
    triggers: &mut Vec<TriggerPlan>,
) -> BucketPlan {
    let mut plan = BucketPlan {
        keeps: bucket.keep == Keep::Session,
        is_durable: bucket.durable,
        retain: bucket.retain,
        every: SmallVec::new(),
        every_gathers: false,
        is_remembered: false,
        feeds: Box::default(),
        only: successor(bucket, triggers.len() as u16),
        globs: GlobSet::empty(),
        glob_triggers: Vec::new(),
        keys: HashMap::default(),
    };
    let mut globs = GlobSetBuilder::new();
    for (place, trigger) in (0u16..).zip(&bucket.triggers) {
        let number = u16::try_from(triggers.len()).expect("validated: below NO_TRIGGER");
        let mut keyed = |key: &str, position: u32| {
            let found = Match {
                trigger: number,
                position,
            };
            plan.keys
                .entry(key.as_bytes().into())
                .or_default()
                .push(found);
        };
        match &trigger.kind {
            TriggerKind::Immediate => plan.every.push(number),
            TriggerKind::ByName(NameMatch::Key(key)) => keyed(key, 0),
            TriggerKind::ByName(NameMatch::Pattern(pattern)) => {
                globs.add(Glob::new(pattern).expect("validated: the pattern is a glob"));
                plan.glob_triggers.push(number);
            }
            TriggerKind::BySet { keys } => {
                (0u32..)
                    .zip(keys)
                    .for_each(|(position, key)| keyed(key, position));
            }
            TriggerKind::ByBatchSize { .. }
            | TriggerKind::ByTime { .. }
            | TriggerKind::Redundant { .. }
            | TriggerKind::DynamicJoin
            | TriggerKind::DynamicGroup { .. }
            | TriggerKind::Custom { .. } => plan.every.push(number),
        }
        let cancel_rest = match &trigger.kind {
            TriggerKind::Redundant { cancel_rest, .. } => cancel_rest.as_slice(),
            _ => &[],
        };
        let rule = Rule::of(trigger, bucket.keep, inputs_max);
        let is_here = trigger.scope == Scope::Session;
        plan.is_remembered |= is_here && rule.as_ref().is_some_and(Rule::remembers);
        triggers.push(TriggerPlan {
            bucket: index,
            index: place,
            rule,
            at_end: trigger.at_end,
            scope: trigger.scope,
            skip_ended: trigger.skip_ended,
            functions: trigger.functions.as_slice().into(),
            cancel_rest: cancel_rest.into(),
            feeds: Box::default(),
        });
    }
    let gathers = |&trigger: &u16| triggers[usize::from(trigger)].rule.is_some();
    plan.every_gathers = plan.every.iter().any(gathers);
    plan.globs = globs.build().expect("validated: each pattern is a glob");
    plan
}

fn reruns(spec: &AppSpec) -> Vec<RerunPlan> {
    let rules = (0u16..).zip(&spec.buckets).flat_map(|(bucket, spec)| {
        spec.reruns.iter().map(move |rule| RerunPlan {
            bucket,
            timeout_ns: rule.timeout_ns,
            attempts: rule.attempts,
            speculative: rule.speculative,
            optional: rule.optional,
        })
    });
    rules.collect()
}

/// The places of the rules that watch a function.
fn watching(spec: &AppSpec, function: u16) -> Box<[u16]> {
    let rules = spec.buckets.iter().flat_map(|bucket| &bucket.reruns);
    let places = (0u16..).zip(rules);
    places
        .filter_map(|(place, rule)| (rule.function == function).then_some(place))
        .collect()
}

/// The places of the groups for which this holds.
fn waiting_for(afters: &[AfterPlan], is_so: impl Fn(&AfterPlan) -> bool) -> Box<[u16]> {
    let places = (0u16..).zip(afters);
    places
        .filter_map(|(place, after)| is_so(after).then_some(place))
        .collect()
}

fn bits(indices: &[u16], count: usize) -> Vec<u64> {
    let mut bits = vec![0; count.div_ceil(64)];
    for &index in indices {
        bits[usize::from(index) / 64] |= 1 << (index % 64);
    }
    bits
}
