//! An app's spec made ready for the hot path: lists and look-ups built once, when it is deployed.
//!
//! Nothing in it changes afterwards. Which triggers an object concerns is found through its key,
//! so that the cost of an object does not grow with the triggers that do not want it.

use foldhash::fast::RandomState;
use globset::{Candidate, Glob, GlobSet, GlobSetBuilder};
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::spec::{AppSpec, AtEnd, BucketSpec, Keep, NameMatch, TriggerKind};

/// An object concerns a trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Match {
    /// The trigger, in the app's numbering.
    pub(super) trigger: u16,
    /// The key's place in a set; 0 for triggers without places.
    pub(super) position: u32,
}

/// What a trigger does with an object that concerns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Fires with it.
    Fire,
    /// Keeps it until all of so many are there.
    Gather {
        /// Keys of the set.
        keys: u32,
    },
}

/// One trigger.
pub(super) struct TriggerPlan {
    pub(super) bucket: u16,
    /// Its place in the bucket.
    pub(super) index: u16,
    pub(super) action: Action,
    pub(super) at_end: AtEnd,
    pub(super) functions: Box<[u16]>,
}

/// One bucket.
pub(super) struct BucketPlan {
    /// The bucket holds its objects until their session ends.
    pub(super) keeps: bool,
    /// Triggers that every object concerns, in order.
    pub(super) every: SmallVec<[u16; 4]>,
    globs: GlobSet,
    glob_triggers: Vec<u16>,
    keys: HashMap<Box<[u8]>, SmallVec<[Match; 2]>, RandomState>,
}

/// One function.
pub(super) struct FunctionPlan {
    pub(super) next: Box<[u16]>,
    pub(super) calls: Box<[u16]>,
    /// Buckets that it may publish into, as bits; `None`: any.
    sends: Option<Vec<u64>>,
    pub(super) timeout_ns: Option<u64>,
    pub(super) init_timeout_ns: u64,
}

impl FunctionPlan {
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
}

impl Plan {
    /// Of a spec that has been found valid.
    pub(super) fn new(spec: &AppSpec) -> Self {
        let mut triggers = Vec::new();
        let buckets = (0u16..)
            .zip(&spec.buckets)
            .map(|(index, bucket)| bucket_plan(index, bucket, &mut triggers))
            .collect();
        let functions = spec
            .functions
            .iter()
            .map(|function| FunctionPlan {
                next: function.next.as_slice().into(),
                calls: function.calls.as_slice().into(),
                sends: function
                    .sends
                    .as_ref()
                    .map(|allowed| bits(allowed, spec.buckets.len())),
                timeout_ns: function.timeout_ns,
                init_timeout_ns: function.init_timeout_ns,
            })
            .collect();
        Self {
            functions,
            buckets,
            triggers,
        }
    }
}

impl BucketPlan {
    /// Whether only triggers in `every` can want an object with this key, or with an automatic one.
    pub(super) fn is_plain(&self, named: bool) -> bool {
        self.glob_triggers.is_empty() && (!named || self.keys.is_empty())
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

fn bucket_plan(index: u16, bucket: &BucketSpec, triggers: &mut Vec<TriggerPlan>) -> BucketPlan {
    let mut plan = BucketPlan {
        keeps: bucket.keep == Keep::Session,
        every: SmallVec::new(),
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
        let mut action = Action::Fire;
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
                let keys = u32::try_from(keys.len()).expect("validated: at most limits.inputs");
                action = Action::Gather { keys };
            }
            _ => unreachable!("deploying refuses trigger types that are not carried out"),
        }
        triggers.push(TriggerPlan {
            bucket: index,
            index: place,
            action,
            at_end: trigger.at_end,
            functions: trigger.functions.as_slice().into(),
        });
    }
    plan.globs = globs.build().expect("validated: each pattern is a glob");
    plan
}

fn bits(indices: &[u16], count: usize) -> Vec<u64> {
    let mut bits = vec![0; count.div_ceil(64)];
    for &index in indices {
        bits[usize::from(index) / 64] |= 1 << (index % 64);
    }
    bits
}
