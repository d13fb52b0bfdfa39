//! Judges an app as a whole: what starts it, what nothing reaches, what would wait for ever.
//!
//! Only called once every name is resolved. Where a function does not list `sends` it may publish
//! anywhere; a warning about an arrow that may not exist would be noise, so warnings follow only
//! the arrows that the manifest states, and the one error (`after` barriers that wait for each
//! other) follows all that are possible, as the barrier itself does.

use std::collections::{HashMap, VecDeque};

use pheromone_core::spec::{
    AppSpec, BucketIndex, Entry, FunctionIndex, GroupClose, Keep, OnFailure, Scope, TriggerKind,
};

use crate::diagnostics::{Diagnostic, clip, quote};
use crate::document::Sink;
use crate::read::{FieldPlaces, Places};

/// Functions of the largest app whose barriers are compared: each needs a walk over all arrows.
const BARRIERS_COMPARED_MAX: usize = 64;

pub(crate) fn whole(spec: &AppSpec, places: &Places, sink: &Sink) {
    let check = Check { spec, places, sink };
    check.entry();
    check.barriers();
    check.reruns();
    if sink.errors() > 0 {
        // Where something is wrong, what looks odd may only follow from it.
        return;
    }
    check.unreached_functions();
    check.unread_buckets();
    check.kept_cycles();
    check.batches_without_linger();
    check.own_failures();
}

struct Check<'a> {
    spec: &'a AppSpec,
    places: &'a Places,
    sink: &'a Sink,
}

impl Check<'_> {
    fn entry(&self) {
        let has_triggers = self
            .spec
            .buckets
            .iter()
            .any(|bucket| !bucket.triggers.is_empty());
        if self.spec.entry.is_some() || self.places.app.has("entry") || has_triggers {
            return;
        }
        let Some(first) = self.spec.functions.first() else {
            return;
        };
        self.sink.push(
            Diagnostic::error("nothing says where a call begins")
                .at(&self.places.app.head, "`entry` is missing")
                .help(format!("add entry = \"{}\"", clip(&first.name))),
        );
    }

    /// Functions that no trigger fires and no other function that is reached names.
    fn unreached_functions(&self) {
        let spec = self.spec;
        let mut reached = vec![false; spec.functions.len()];
        let mut queue = VecDeque::new();
        let entry = match spec.entry {
            Some(Entry::Function(function)) => Some(function),
            _ => None,
        };
        let triggers = spec.buckets.iter().flat_map(|bucket| &bucket.triggers);
        let fired = triggers.flat_map(|trigger| trigger.functions.iter().copied());
        for function in fired.chain(entry) {
            visit(function, &mut reached, &mut queue);
        }
        if queue.is_empty() {
            // That nothing begins anything has been said.
            return;
        }
        while let Some(function) = queue.pop_front() {
            let function = &spec.functions[usize::from(function)];
            for target in function.next.iter().chain(&function.calls) {
                visit(*target, &mut reached, &mut queue);
            }
        }
        let lost = reached
            .iter()
            .zip(&spec.functions)
            .zip(&self.places.functions);
        for ((_, function), places) in lost.filter(|((reached, _), _)| !**reached) {
            self.sink.push(
                Diagnostic::warning(format!(
                    "nothing reaches function {}",
                    quote(&function.name)
                ))
                .at(&places.head, "only a call that names it starts it")
                .help(
                    "let a trigger fire it, add it to a `next` or `calls`, or make it the `entry`",
                ),
            );
        }
    }

    fn unread_buckets(&self) {
        for (bucket, places) in self.spec.buckets.iter().zip(&self.places.buckets) {
            let read_by_choice = ["keep", "retain", "durable"]
                .iter()
                .any(|key| places.bucket.has(key));
            let gone = bucket.keep == Keep::UntilConsumed
                && !places.bucket.has("retain")
                && !bucket.durable;
            if !bucket.triggers.is_empty() || (read_by_choice && !gone) {
                continue;
            }
            let label = if gone {
                "its objects are gone as they arrive"
            } else {
                "no triggers"
            };
            self.sink.push(
                Diagnostic::warning(format!("nobody reads bucket {}", quote(&bucket.name)))
                    .at(&places.bucket.head, label)
                    .help("give it a trigger; if functions read it by phr_get, write keep = \"session\""),
            );
        }
    }

    /// Buckets that hold every object until the session ends, in a loop that may turn for long.
    fn kept_cycles(&self) {
        let stated = Arrows::stated(self.spec);
        for (index, (bucket, places)) in
            (0..).zip(self.spec.buckets.iter().zip(&self.places.buckets))
        {
            if bucket.keep != Keep::Session || bucket.triggers.is_empty() {
                continue;
            }
            if !stated.bucket_reaches_itself(index) {
                continue;
            }
            let place = places.bucket.of_field("keep");
            let label = if places.bucket.has("keep") {
                "every turn's stay"
            } else {
                "in a loop"
            };
            self.sink.push(
                Diagnostic::warning(format!(
                    "bucket {} is in a loop and keeps its objects until the session ends",
                    quote(&bucket.name)
                ))
                .at(place, label)
                .help("write keep = \"until_consumed\", so that each turn's objects are freed"),
            );
        }
    }

    fn batches_without_linger(&self) {
        for (bucket, places) in self.spec.buckets.iter().zip(&self.places.buckets) {
            for (trigger, places) in bucket.triggers.iter().zip(&places.triggers) {
                let without = matches!(
                    trigger.kind,
                    TriggerKind::ByBatchSize {
                        linger_ns: None,
                        ..
                    }
                );
                if trigger.scope == Scope::Bucket && without {
                    self.sink.push(
                        Diagnostic::warning(
                            "a caller may wait for ever: this batch may never fill",
                        )
                        .at(
                            places.of_field("count"),
                            "waits for so many, however long it takes",
                        )
                        .help("add linger = \"10ms\", or scope = \"session\""),
                    );
                }
            }
        }
    }

    /// Rules that would have their function run again for ever, or at once in two places.
    fn reruns(&self) {
        for (index, (bucket, places)) in
            (0..).zip(self.spec.buckets.iter().zip(&self.places.buckets))
        {
            let mut seen: HashMap<FunctionIndex, &FieldPlaces> = HashMap::new();
            for (rerun, places) in bucket.reruns.iter().zip(&places.reruns) {
                let function = &self.spec.functions[usize::from(rerun.function)];
                let place = places.of_field("function");
                let sends = function.sends.as_ref();
                if sends.is_some_and(|sends| !sends.contains(&index)) {
                    self.sink.push(
                        Diagnostic::error(format!(
                            "{} never sends into {}: it would always be run again",
                            quote(&function.name),
                            quote(&bucket.name)
                        ))
                        .at(place, "not a source of this bucket")
                        .help(format!("add \"{}\" to its `sends`", clip(&bucket.name))),
                    );
                }
                if let Some(first) = seen.insert(rerun.function, places) {
                    self.sink.push(
                        Diagnostic::error(format!(
                            "two rules of bucket {} are for function {}",
                            quote(&bucket.name),
                            quote(&function.name)
                        ))
                        .at(place, "again")
                        .beside(first.of_field("function"), "first here")
                        .help("leave one of them out"),
                    );
                }
                if rerun.speculative && function.serial_by.is_some() {
                    let serial = &self.places.functions[usize::from(rerun.function)];
                    self.sink.push(
                        Diagnostic::error(format!(
                            "{} runs one after another and would run twice at once",
                            quote(&function.name)
                        ))
                        .at(places.of_field("speculative"), "two attempts at once")
                        .beside(serial.of_field("serial_by"), "one after another")
                        .help("leave out `speculative`: the attempt before is killed then"),
                    );
                }
            }
        }
    }

    /// Functions that handle their own failures: each is a new invocation, which may fail again.
    fn own_failures(&self) {
        let stated = Arrows::stated(self.spec);
        let functions = self.spec.functions.iter().zip(&self.places.functions);
        for (index, (function, places)) in (0..).zip(functions) {
            let OnFailure::Bucket(bucket) = function.on_failure else {
                continue;
            };
            if stated.bucket_reaches(bucket, index) {
                let name = &self.spec.buckets[usize::from(bucket)].name;
                self.sink.push(
                    Diagnostic::warning(format!(
                        "the failures of {} lead to {} again: one that always fails never ends",
                        quote(&function.name),
                        quote(&function.name)
                    ))
                    .at(
                        places.of_field("on_failure"),
                        format!("{} leads back here", quote(name)),
                    )
                    .help(
                        "write on_failure = \"fail\" or \"continue\" for what handles failures, or \
                         count the turns in the objects and stop",
                    ),
                );
            }
        }
    }

    /// Two `after` barriers each of which fires into what the other waits for never close.
    fn barriers(&self) {
        let mut barriers = Vec::new();
        for (bucket, places) in self.spec.buckets.iter().zip(&self.places.buckets) {
            for (trigger, places) in bucket.triggers.iter().zip(&places.triggers) {
                if let TriggerKind::DynamicGroup {
                    close: GroupClose::After(after),
                    ..
                } = trigger.kind
                {
                    barriers.push((trigger, after, places));
                }
            }
        }
        barriers.truncate(BARRIERS_COMPARED_MAX);
        let arrows = Arrows::possible(self.spec);
        let upstream: Vec<_> = barriers
            .iter()
            .map(|(_, after, _)| arrows.upstream(*after))
            .collect();
        let fires_into = |from: usize, into: usize| {
            barriers[from]
                .0
                .functions
                .iter()
                .any(|target| upstream[into][usize::from(*target)])
        };
        for second in 1..barriers.len() {
            for first in 0..second {
                if fires_into(first, second) && fires_into(second, first) {
                    let (a, b) = (&barriers[first], &barriers[second]);
                    self.sink.push(
                        Diagnostic::error(format!(
                            "the barriers {} and {} wait for each other",
                            quote(&a.0.name),
                            quote(&b.0.name)
                        ))
                        .at(b.2.of_field("after"), "upstream of the other")
                        .beside(a.2.of_field("after"), "upstream of this one")
                        .help("a function without `sends` may publish anywhere: list each one's `sends`"),
                    );
                }
            }
        }
    }
}

fn visit(function: FunctionIndex, reached: &mut [bool], queue: &mut VecDeque<FunctionIndex>) {
    if !std::mem::replace(&mut reached[usize::from(function)], true) {
        queue.push_back(function);
    }
}

/// Who can cause whom: nodes are functions, then buckets, then one that stands for "any bucket".
struct Arrows {
    functions: usize,
    out: Vec<Vec<usize>>,
}

impl Arrows {
    /// Only what the manifest states.
    fn stated(spec: &AppSpec) -> Self {
        Self::new(spec, false)
    }

    /// Also from functions without `sends` into every bucket.
    fn possible(spec: &AppSpec) -> Self {
        Self::new(spec, true)
    }

    fn new(spec: &AppSpec, anywhere: bool) -> Self {
        let functions = spec.functions.len();
        let any = functions + spec.buckets.len();
        let bucket_node = |bucket: BucketIndex| functions + usize::from(bucket);
        let mut out = vec![Vec::new(); any + 1];
        for (function, out) in spec.functions.iter().zip(&mut out) {
            out.extend(
                function
                    .next
                    .iter()
                    .chain(&function.calls)
                    .map(|target| usize::from(*target)),
            );
            match &function.sends {
                Some(buckets) => out.extend(buckets.iter().map(|bucket| bucket_node(*bucket))),
                None if anywhere => out.push(any),
                None => {}
            }
            if let OnFailure::Bucket(bucket) = function.on_failure {
                out.push(bucket_node(bucket));
            }
        }
        out[any] = (functions..any).collect();
        for (bucket, out) in spec.buckets.iter().zip(&mut out[functions..]) {
            let targets = bucket
                .triggers
                .iter()
                .flat_map(|trigger| &trigger.functions);
            out.extend(targets.map(|target| usize::from(*target)));
            out.sort_unstable();
            out.dedup();
        }
        Self { functions, out }
    }

    /// Every node that can be reached over at least one arrow.
    fn reach(&self, from: usize, out: &[Vec<usize>]) -> Vec<bool> {
        let mut reached = vec![false; out.len()];
        let mut stack = vec![from];
        while let Some(node) = stack.pop() {
            for &next in &out[node] {
                if !std::mem::replace(&mut reached[next], true) {
                    stack.push(next);
                }
            }
        }
        reached
    }

    fn bucket_reaches_itself(&self, bucket: BucketIndex) -> bool {
        let node = self.functions + usize::from(bucket);
        self.reach(node, &self.out)[node]
    }

    fn bucket_reaches(&self, bucket: BucketIndex, function: FunctionIndex) -> bool {
        let node = self.functions + usize::from(bucket);
        self.reach(node, &self.out)[usize::from(function)]
    }

    /// Which functions are this one, or can cause it.
    fn upstream(&self, function: FunctionIndex) -> Vec<bool> {
        let mut back = vec![Vec::new(); self.out.len()];
        for (from, out) in self.out.iter().enumerate() {
            out.iter().for_each(|&to| back[to].push(from));
        }
        let mut upstream = self.reach(usize::from(function), &back);
        upstream[usize::from(function)] = true;
        upstream.truncate(self.functions);
        upstream
    }
}
