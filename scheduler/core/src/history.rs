//! What is left to be done of a durable session, as its history on disk tells.
//!
//! A firing that is on disk has taken its inputs for its trigger: they are not offered to that one
//! again, and the invocation runs again unless its success is on disk too. What no firing has taken
//! is offered as if it arrived now. A trigger's firing is one record for each of its functions; a
//! crash may have let some of them through, and those that are missing fire now, with the same
//! inputs.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::spec::{AppSpec, BucketIndex, FunctionIndex, Keep, TriggerKind};

/// A durable object of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastObject {
    /// Its number in the journal; they are given in this order.
    pub sequence: u64,
    /// A durable bucket.
    pub bucket: BucketIndex,
}

/// A firing that is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastFiring {
    /// The invocation.
    pub invocation: u64,
    /// The trigger, counted over all buckets of the app in the manifest's order.
    pub trigger: u16,
    /// The function.
    pub function: FunctionIndex,
    /// Its inputs by their numbers in the journal.
    pub inputs: Vec<u64>,
    /// `phr_window`: start and end, ns.
    pub window: Option<(u64, u64)>,
    /// Its success is on disk.
    pub has_succeeded: bool,
}

/// What is to be done of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Future {
    /// Places of the objects that are still needed; all others have done what they were for.
    pub objects: Vec<usize>,
    /// For each of these the triggers that it is offered to.
    pub offers: Vec<Vec<u16>>,
    /// What runs, or runs again.
    pub firings: Vec<FutureFiring>,
    /// Sets that have fired, and so take nothing more.
    pub over: Vec<u16>,
}

/// An invocation that is to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FutureFiring {
    /// Its id, under which its firing is on disk; `None`: it is not there yet.
    pub invocation: Option<u64>,
    /// The trigger.
    pub trigger: u16,
    /// The function.
    pub function: FunctionIndex,
    /// Places of its inputs among [`Future::objects`].
    pub inputs: Vec<u32>,
    /// `phr_window`.
    pub window: Option<(u64, u64)>,
}

impl Future {
    /// Of a session of this app with these objects and firings. `None`: a firing's input is not
    /// among the objects.
    pub fn new(spec: &AppSpec, objects: &[PastObject], firings: &[PastFiring]) -> Option<Self> {
        let places: BTreeMap<u64, u32> = objects
            .iter()
            .zip(0u32..)
            .map(|(object, place)| (object.sequence, place))
            .collect();
        let mut future = Self {
            firings: to_run(spec, firings, &places)?,
            over: sets_that_fired(spec, firings),
            ..Self::default()
        };
        let taken: BTreeSet<(u16, u64)> = firings
            .iter()
            .flat_map(|firing| firing.inputs.iter().map(|&input| (firing.trigger, input)))
            .collect();
        let inputs: BTreeSet<u32> = future
            .firings
            .iter()
            .flat_map(|firing| firing.inputs.iter().copied())
            .collect();
        let mut kept = BTreeMap::new();
        for (object, place) in objects.iter().zip(0u32..) {
            let offers: Vec<u16> = triggers_of(spec, object.bucket)
                .filter(|trigger| !taken.contains(&(*trigger, object.sequence)))
                .filter(|trigger| !future.over.contains(trigger))
                .collect();
            let is_kept = spec.buckets[usize::from(object.bucket)].keep == Keep::Session;
            if is_kept || !offers.is_empty() || inputs.contains(&place) {
                kept.insert(place, future.objects.len() as u32);
                future.objects.push(place as usize);
                future.offers.push(offers);
            }
        }
        for input in future.firings.iter_mut().flat_map(|of| &mut of.inputs) {
            *input = kept[input];
        }
        Some(future)
    }
}

/// Firings without a success, and those of a trigger's other functions that are not on disk.
fn to_run(
    spec: &AppSpec,
    firings: &[PastFiring],
    places: &BTreeMap<u64, u32>,
) -> Option<Vec<FutureFiring>> {
    let mut functions = BTreeMap::<(u16, &[u64]), Vec<u16>>::new();
    for firing in firings {
        let volley = functions.entry((firing.trigger, &firing.inputs));
        volley.or_default().push(firing.function);
    }
    let mut to_run = Vec::new();
    for firing in firings {
        let inputs = firing.inputs.iter().map(|input| places.get(input).copied());
        let again = FutureFiring {
            invocation: Some(firing.invocation),
            trigger: firing.trigger,
            function: firing.function,
            inputs: inputs.collect::<Option<_>>()?,
            window: firing.window,
        };
        // Once for each volley.
        if let Some(fired) = functions.remove(&(firing.trigger, &firing.inputs[..])) {
            let missing = functions_of(spec, firing.trigger).iter();
            to_run.extend(
                missing
                    .filter(|function| !fired.contains(function))
                    .map(|&function| FutureFiring {
                        invocation: None,
                        function,
                        ..again.clone()
                    }),
            );
        }
        if !firing.has_succeeded {
            to_run.push(again);
        }
    }
    Some(to_run)
}

fn sets_that_fired(spec: &AppSpec, firings: &[PastFiring]) -> Vec<u16> {
    let triggers = spec.buckets.iter().flat_map(|bucket| &bucket.triggers);
    let sets = (0u16..).zip(triggers).filter(|(number, trigger)| {
        matches!(trigger.kind, TriggerKind::BySet { .. })
            && firings.iter().any(|firing| firing.trigger == *number)
    });
    sets.map(|(number, _)| number).collect()
}

fn functions_of(spec: &AppSpec, trigger: u16) -> &[FunctionIndex] {
    let mut triggers = spec.buckets.iter().flat_map(|bucket| &bucket.triggers);
    let trigger = triggers.nth(usize::from(trigger));
    trigger.map_or(&[], |trigger| &trigger.functions)
}

/// The triggers of a bucket, counted over the app.
fn triggers_of(spec: &AppSpec, bucket: BucketIndex) -> impl Iterator<Item = u16> {
    let (before, from) = spec.buckets.split_at(usize::from(bucket));
    let first: usize = before.iter().map(|bucket| bucket.triggers.len()).sum();
    let count = from.first().map_or(0, |bucket| bucket.triggers.len());
    (first..first + count).map(|number| number as u16)
}
