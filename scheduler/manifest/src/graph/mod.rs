//! An app as a picture: functions, buckets and triggers, and who causes whom.
//!
//! The manifest is turned into a [`Picture`] once; each format only writes it down. Nothing is
//! guessed: an arrow is drawn where the manifest states one, and a function that may publish
//! anywhere is said to do so in a note.

mod dot;
mod layout;
mod mermaid;
mod svg;
mod text;

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use pheromone_core::spec::{
    BucketSpec, Entry, FunctionSpec, GroupClose, Keep, NameMatch, OnFailure, Retain, Scope,
    SerialBy, TriggerKind, TriggerSpec,
};

use crate::app::App;
use crate::diagnostics::clip;
use crate::support::type_word;
use crate::units::show_duration;

/// Triggers of one bucket beyond which those that look alike are drawn as one.
const TRIGGERS_DRAWN_EACH: usize = 12;
/// Characters of a detail; the rest is cut.
const DETAIL_CHARS_MAX: usize = 44;

/// How a picture is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For a terminal.
    Text,
    /// For Graphviz.
    Dot,
    /// For Markdown pages that draw Mermaid.
    Mermaid,
    /// A picture by itself, for light and dark pages.
    Svg,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::Text, Self::Dot, Self::Mermaid, Self::Svg];

    /// Its name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Dot => "dot",
            Self::Mermaid => "mermaid",
            Self::Svg => "svg",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No format has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no format `{0}`: the formats are text, dot, mermaid and svg")]
pub struct UnknownFormat(String);

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let format = Self::ALL.into_iter().find(|format| format.name() == name);
        format.ok_or_else(|| UnknownFormat(clip(name)))
    }
}

/// Draws the app.
pub fn graph(app: &App, format: Format) -> String {
    let picture = Picture::of(app);
    match format {
        Format::Text => text::write(&picture),
        Format::Dot => dot::write(&picture),
        Format::Mermaid => mermaid::write(&picture),
        Format::Svg => svg::write(&picture),
    }
}

/// What a node stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NodeKind {
    /// Whoever calls the app from outside.
    Caller,
    Function,
    Bucket,
    /// With its type's word.
    Trigger(&'static str),
}

#[derive(Clone, Debug)]
struct Node {
    kind: NodeKind,
    /// Shown large.
    name: String,
    /// Shown small, below.
    detail: String,
}

/// What an arrow says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum EdgeKind {
    /// A call from outside begins here.
    Entry,
    /// Direct objects go here.
    Next,
    /// May be addressed by `phr_create_for`.
    Calls,
    /// Publishes into this bucket.
    Sends,
    /// The bucket offers its objects to the trigger, which fires the function.
    Trigger(&'static str),
    /// Where a failed invocation's object goes.
    Failure,
    /// The bucket has the function run again.
    Rerun,
    /// The trigger waits until this function and what causes it fall quiet.
    After,
    /// The trigger cancels what is left of this function.
    Cancels,
}

impl EdgeKind {
    fn words(self) -> &'static str {
        match self {
            Self::Entry => "call",
            Self::Next => "next",
            Self::Calls => "calls",
            Self::Sends => "sends",
            Self::Trigger(word) => word,
            Self::Failure => "on failure",
            Self::Rerun => "reruns",
            Self::After => "closed after",
            Self::Cancels => "cancels rest of",
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Edge {
    from: usize,
    to: usize,
    kind: EdgeKind,
}

/// Everything to be drawn.
struct Picture {
    title: String,
    summary: String,
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    notes: Vec<String>,
}

/// Node numbers: functions first, then buckets, then triggers, then the caller.
struct Numbers {
    buckets_from: usize,
}

impl Numbers {
    fn function(&self, index: u16) -> usize {
        usize::from(index)
    }

    fn bucket(&self, index: u16) -> usize {
        self.buckets_from + usize::from(index)
    }
}

impl Picture {
    fn of(app: &App) -> Self {
        let spec = &app.spec;
        let triggers: usize = spec
            .buckets
            .iter()
            .map(|bucket| bucket.triggers.len())
            .sum();
        let plural =
            |count: usize, word| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
        let summary = [
            plural(spec.functions.len(), "function"),
            plural(spec.buckets.len(), "bucket"),
            plural(triggers, "trigger"),
        ];
        let mut picture = Self {
            title: clip(&spec.name),
            summary: summary.join(", "),
            nodes: Vec::new(),
            edges: Vec::new(),
            notes: Vec::new(),
        };
        let numbers = Numbers {
            buckets_from: spec.functions.len(),
        };
        picture
            .nodes
            .extend(spec.functions.iter().map(function_node));
        picture.nodes.extend(spec.buckets.iter().map(bucket_node));
        for (function, from) in spec.functions.iter().zip(0..) {
            picture.function_edges(function, from, &numbers);
        }
        for (bucket, index) in spec.buckets.iter().zip(0..) {
            picture.bucket_edges(app, bucket, index, &numbers);
        }
        picture.entry(app, &numbers);
        picture.note_of_any_bucket(app);
        picture
    }

    fn edge(&mut self, from: usize, to: usize, kind: EdgeKind) {
        self.edges.push(Edge { from, to, kind });
    }

    fn function_edges(&mut self, function: &FunctionSpec, from: usize, numbers: &Numbers) {
        for target in &function.next {
            self.edge(from, numbers.function(*target), EdgeKind::Next);
        }
        for target in &function.calls {
            self.edge(from, numbers.function(*target), EdgeKind::Calls);
        }
        for bucket in function.sends.iter().flatten() {
            self.edge(from, numbers.bucket(*bucket), EdgeKind::Sends);
        }
        if let OnFailure::Bucket(bucket) = function.on_failure {
            self.edge(from, numbers.bucket(bucket), EdgeKind::Failure);
        }
    }

    fn bucket_edges(&mut self, app: &App, bucket: &BucketSpec, index: u16, numbers: &Numbers) {
        let from = numbers.bucket(index);
        for rerun in &bucket.reruns {
            self.edge(from, numbers.function(rerun.function), EdgeKind::Rerun);
        }
        for (number, count) in alike(&bucket.triggers) {
            let trigger = &bucket.triggers[number];
            let word = type_word(&trigger.kind);
            let node = self.nodes.len();
            self.nodes.push(if count == 1 {
                trigger_node(app, trigger, index, number)
            } else {
                let detail = format!("{} and {} more", clip(&trigger.name), count - 1);
                let name = format!("{word} \u{d7} {count}");
                Node {
                    kind: NodeKind::Trigger(word),
                    name,
                    detail,
                }
            });
            self.edge(from, node, EdgeKind::Trigger(word));
            for target in &trigger.functions {
                self.edge(node, numbers.function(*target), EdgeKind::Trigger(word));
            }
            match &trigger.kind {
                TriggerKind::DynamicGroup {
                    close: GroupClose::After(after),
                    ..
                } => {
                    self.edge(numbers.function(*after), node, EdgeKind::After);
                }
                TriggerKind::Redundant { cancel_rest, .. } => {
                    for target in cancel_rest {
                        self.edge(node, numbers.function(*target), EdgeKind::Cancels);
                    }
                }
                _ => {}
            }
        }
    }

    fn entry(&mut self, app: &App, numbers: &Numbers) {
        let target = match app.spec.entry {
            Some(Entry::Function(function)) => numbers.function(function),
            Some(Entry::Bucket(bucket)) => numbers.bucket(bucket),
            None => return,
        };
        let caller = self.nodes.len();
        let name = "call".to_owned();
        self.nodes.push(Node {
            kind: NodeKind::Caller,
            name,
            detail: String::new(),
        });
        self.edge(caller, target, EdgeKind::Entry);
    }

    fn note_of_any_bucket(&mut self, app: &App) {
        if app.spec.buckets.is_empty() {
            return;
        }
        let any = app
            .spec
            .functions
            .iter()
            .filter(|function| function.sends.is_none());
        let names: Vec<_> = any.map(|function| clip(&function.name)).collect();
        let shown = match names.len() {
            0 => return,
            1..=6 => names.join(", "),
            more => format!("{} and {} more", names[..5].join(", "), more - 5),
        };
        self.notes.push(format!(
            "without `sends`, may publish into any bucket: {shown}"
        ));
    }

    /// The kinds of arrows that occur, each once.
    fn edge_kinds(&self) -> Vec<EdgeKind> {
        let mut kinds: Vec<_> = self.edges.iter().map(|edge| edge.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

/// The triggers to be drawn: the number of each, or of the first of several that look alike, and of
/// how many it is the first.
fn alike(triggers: &[TriggerSpec]) -> Vec<(usize, usize)> {
    if triggers.len() <= TRIGGERS_DRAWN_EACH {
        return (0..triggers.len()).map(|number| (number, 1)).collect();
    }
    let mut drawn: Vec<(usize, usize)> = Vec::new();
    let mut known: HashMap<(&str, &[u16]), usize> = HashMap::new();
    for (number, trigger) in triggers.iter().enumerate() {
        let at = *known
            .entry((type_word(&trigger.kind), &trigger.functions))
            .or_insert_with(|| {
                drawn.push((number, 0));
                drawn.len() - 1
            });
        drawn[at].1 += 1;
    }
    drawn
}

fn function_node(function: &FunctionSpec) -> Node {
    let mut detail = Vec::new();
    if let Some(max) = function.max_concurrency {
        detail.push(format!("{max} at once"));
    }
    match function.serial_by {
        Some(SerialBy::Key) => detail.push("serial by key".into()),
        Some(SerialBy::Group) => detail.push("serial by group".into()),
        Some(SerialBy::Session) => detail.push("serial by session".into()),
        None => {}
    }
    if function.attempts > 1 {
        detail.push(format!("{} attempts", function.attempts));
    }
    if function.durable {
        detail.push("durable".into());
    }
    Node {
        kind: NodeKind::Function,
        name: clip(&function.name),
        detail: joined(&detail),
    }
}

fn bucket_node(bucket: &BucketSpec) -> Node {
    let mut detail = Vec::new();
    if bucket.durable {
        detail.push("durable".to_owned());
    }
    if bucket.keep == Keep::UntilConsumed {
        detail.push("until consumed".into());
    }
    match bucket.retain {
        Retain::ForNs(0) => {}
        Retain::ForNs(ns) => detail.push(format!("retained {}", show_duration(ns))),
        Retain::Forever if bucket.durable => {}
        Retain::Forever => detail.push("retained for ever".into()),
    }
    Node {
        kind: NodeKind::Bucket,
        name: clip(&bucket.name),
        detail: joined(&detail),
    }
}

fn trigger_node(app: &App, trigger: &TriggerSpec, bucket: u16, number: usize) -> Node {
    let word = type_word(&trigger.kind);
    let mut detail = Vec::new();
    let is_named = trigger.name != format!("{word}-{number}");
    if is_named {
        detail.push(word.to_owned());
    }
    detail.extend(trigger_details(&trigger.kind));
    if let TriggerKind::Custom { .. } = trigger.kind {
        let is_this =
            |code: &&crate::app::TriggerProgram| code.bucket == bucket && code.trigger == number;
        detail.extend(
            app.custom_triggers
                .iter()
                .find(is_this)
                .map(|code| clip(&code.symbol)),
        );
    }
    let gathers = match trigger.kind {
        TriggerKind::Immediate | TriggerKind::ByName(_) => false,
        _ => trigger.scope == Scope::Bucket,
    };
    if gathers {
        detail.push("across sessions".into());
    }
    let name = if is_named {
        clip(&trigger.name)
    } else {
        word.into()
    };
    Node {
        kind: NodeKind::Trigger(word),
        name,
        detail: joined(&detail),
    }
}

/// A trigger's own fields, in few words.
fn trigger_details(kind: &TriggerKind) -> Vec<String> {
    let grouped = |per_group: bool| per_group.then(|| "per group".to_owned());
    match kind {
        TriggerKind::Immediate => Vec::new(),
        TriggerKind::ByName(NameMatch::Key(key)) => vec![clip(key)],
        TriggerKind::ByName(NameMatch::Pattern(pattern)) => vec![clip(pattern)],
        TriggerKind::BySet { keys } => vec![show_keys(keys)],
        TriggerKind::ByBatchSize {
            count,
            linger_ns,
            per_group,
        } => {
            let mut detail = vec![format!("every {count}")];
            detail.extend(linger_ns.map(|ns| format!("or {}", show_duration(ns))));
            detail.extend(grouped(*per_group));
            detail
        }
        TriggerKind::ByTime {
            window_ns,
            slide_ns,
            fire_empty,
            per_group,
        } => {
            let mut detail = vec![format!("window {}", show_duration(*window_ns))];
            if slide_ns != window_ns {
                detail.push(format!("every {}", show_duration(*slide_ns)));
            }
            detail.extend(fire_empty.then(|| "empty too".to_owned()));
            detail.extend(grouped(*per_group));
            detail
        }
        TriggerKind::Redundant {
            k_of_n: Some((k, n)),
            ..
        } => vec![format!("{k} of {n}")],
        TriggerKind::Redundant { .. } => vec!["k of n at run time".into()],
        TriggerKind::DynamicJoin => vec!["keys at run time".into()],
        TriggerKind::DynamicGroup {
            close,
            order_by_key,
            ..
        } => {
            let mut detail = vec![match close {
                GroupClose::Sources(count) => format!("after {count} sources"),
                GroupClose::SourcesAtRunTime => "sources at run time".into(),
                GroupClose::After(_) => "when quiet".into(),
            }];
            detail.extend(order_by_key.then(|| "in key order".to_owned()));
            detail
        }
        TriggerKind::Custom { .. } => Vec::new(),
    }
}

fn show_keys(keys: &[String]) -> String {
    let all: Vec<_> = keys.iter().take(3).map(|key| clip(key)).collect();
    let short = all.join(", ");
    match keys {
        [first, .., last] if keys.len() > 3 || short.chars().count() > DETAIL_CHARS_MAX => {
            format!("{} \u{2026} {} ({})", clip(first), clip(last), keys.len())
        }
        _ => short,
    }
}

/// The parts in one line, cut where too long.
fn joined(parts: &[String]) -> String {
    let line = parts.join(" \u{b7} ");
    if line.chars().count() <= DETAIL_CHARS_MAX {
        return line;
    }
    line.chars()
        .take(DETAIL_CHARS_MAX - 1)
        .chain(['\u{2026}'])
        .collect()
}
