//! The sections `[[buckets.NAME.triggers]]`: every type, its fields and their defaults.

use std::collections::HashMap;

use pheromone_core::spec::{
    AtEnd, FunctionIndex, GroupClose, NameMatch, Scope, TriggerKind, TriggerSpec,
};

use super::app::value_or;
use super::bucket::Context;
use super::code::{Settings, Users};
use super::function;
use crate::app::TriggerProgram;
use crate::diagnostics::{Diagnostic, Place, quote};
use crate::document::{Placed, Section, list};
use crate::limits::{
    DURATION_NS_MAX, KEY_BYTES_MAX, SET_KEYS_MAX, SLIDE_NS_MIN, SOURCES_MAX, WINDOWS_MAX,
};
use crate::names::{is_name, nearest};
use crate::units::{RangeMistake, expand_ranges, show_at_least, show_duration};

/// A trigger's type, by the word in the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Immediate,
    ByName,
    BySet,
    ByBatchSize,
    ByTime,
    Redundant,
    DynamicJoin,
    DynamicGroup,
    Custom,
}

/// One row of the table of types.
struct Row {
    kind: Type,
    word: &'static str,
    /// Its own fields, beside those of every type.
    fields: &'static [&'static str],
    /// The scopes that it has, its default first.
    scopes: &'static [Scope],
}

const TYPES: &[Row] = &[
    Row {
        kind: Type::Immediate,
        word: "immediate",
        fields: &[],
        scopes: &[Scope::Session],
    },
    Row {
        kind: Type::ByName,
        word: "by_name",
        fields: &["key", "pattern"],
        scopes: &[Scope::Session],
    },
    Row {
        kind: Type::BySet,
        word: "by_set",
        fields: &["keys"],
        scopes: &[Scope::Session],
    },
    Row {
        kind: Type::ByBatchSize,
        word: "by_batch_size",
        fields: &["count", "linger", "per"],
        scopes: &[Scope::Bucket, Scope::Session],
    },
    Row {
        kind: Type::ByTime,
        word: "by_time",
        fields: &["window", "slide", "fire_empty", "per"],
        scopes: &[Scope::Bucket, Scope::Session],
    },
    Row {
        kind: Type::Redundant,
        word: "redundant",
        fields: &["k", "n", "cancel_rest", "expire"],
        scopes: &[Scope::Session, Scope::Bucket],
    },
    Row {
        kind: Type::DynamicJoin,
        word: "dynamic_join",
        fields: &[],
        scopes: &[Scope::Session],
    },
    Row {
        kind: Type::DynamicGroup,
        word: "dynamic_group",
        fields: &["sources", "after", "fire_empty", "order"],
        scopes: &[Scope::Session],
    },
    Row {
        kind: Type::Custom,
        word: "custom",
        fields: &["library", "source", "symbol", "config", "timeout", "keep"],
        scopes: &[Scope::Session, Scope::Bucket],
    },
];

/// The types that have a field of this name, as words.
pub(super) fn type_of_field(key: &str) -> Option<String> {
    let words: Vec<_> = TYPES
        .iter()
        .filter(|row| row.fields.contains(&key))
        .map(|row| row.word)
        .collect();
    (!words.is_empty()).then(|| list(&words))
}

/// Reads the `number`-th trigger of a bucket, which becomes its `index`-th in the spec. `None`
/// where too little of it is understood.
pub(super) fn read(
    context: &mut Context<'_>,
    mut section: Section<'_>,
    number: usize,
    index: usize,
) -> Option<TriggerSpec> {
    let functions = targets(context, &mut section);
    let row = row(context, &mut section);
    let name = name(context, &mut section);
    let Some(row) = row else {
        // Without a type there is no saying which fields belong to it.
        section.all();
        return None;
    };
    let mut trigger = Trigger {
        context,
        section,
        row,
        scope: Scope::Session,
    };
    trigger.scope = trigger.read_scope();
    let kind = trigger.kind(index);
    let has_timer = match &kind {
        Some(TriggerKind::ByBatchSize { linger_ns, .. }) => linger_ns.is_some(),
        Some(TriggerKind::ByTime { .. }) => true,
        // What cannot be told is not held against it.
        Some(_) => false,
        None => true,
    };
    let at_end = trigger.at_end(has_timer);
    let skip_ended = trigger.skip_ended();
    let scope = trigger.scope;
    trigger.section.finish(|key| {
        type_of_field(key)
            .map(|types| format!("`{key}` is a field of {types}, not of `{}`", row.word))
    });
    Some(TriggerSpec {
        name: name.unwrap_or_else(|| format!("{}-{number}", row.word)),
        functions,
        scope,
        at_end,
        skip_ended,
        kind: kind?,
    })
}

/// `function` or `functions`: one of the two.
fn targets(context: &Context<'_>, section: &mut Section<'_>) -> Vec<FunctionIndex> {
    let (place, whose) = (section.place.clone(), section.name.clone());
    let reader = context.reader;
    let one_place = section.place_of("function");
    let many_place = section.place_of("functions");
    let one = section.text("function", "NAME");
    let many = section.texts("functions", "NAME");
    let problem = match (&one_place, &many_place) {
        (Some(one), Some(many)) => {
            Diagnostic::error(format!("{whose} has both `function` and `functions`"))
                .at(many, "several")
                .beside(one, "one")
                .help("leave one of the two out")
        }
        (None, None) => Diagnostic::error(format!("{whose} fires no function"))
            .at(&place, "`function` is missing")
            .help("add function = \"NAME\", or functions = [\"A\", \"B\"]"),
        (None, Some(place)) if many.as_ref().is_some_and(Vec::is_empty) => {
            Diagnostic::error(format!("{whose} fires no function"))
                .at(place, "an empty list")
                .help("name at least one function")
        }
        _ => {
            let names = many
                .unwrap_or_default()
                .into_iter()
                .chain(one)
                .collect::<Vec<_>>();
            return reader.functions(&names, &whose);
        }
    };
    reader.sink.push(problem);
    Vec::new()
}

fn row(context: &Context<'_>, section: &mut Section<'_>) -> Option<&'static Row> {
    let there = section.has("type");
    let place = section.place.clone();
    let Some(word) = section.text("type", "immediate") else {
        if !there {
            let words: Vec<_> = TYPES.iter().map(|row| row.word).collect();
            context.reader.sink.push(
                Diagnostic::error(format!("{} has no type", section.name))
                    .at(&place, "`type` is missing")
                    .help(format!("add type = \"...\", one of {}", list(&words))),
            );
        }
        return None;
    };
    if let Some(row) = TYPES.iter().find(|row| row.word == word.value) {
        return Some(row);
    }
    let words: Vec<_> = TYPES.iter().map(|row| row.word).collect();
    let plain = word.value.replace('-', "_").to_lowercase();
    let help = match nearest(&plain, words.iter().copied()).or_else(|| {
        words
            .iter()
            .copied()
            .find(|word| *word == plain || word.replace('_', "") == plain)
    }) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("the types are {}", list(&words)),
    };
    context.reader.sink.push(
        Diagnostic::error(format!("there is no trigger type {}", quote(&word.value)))
            .at(&word.place, "unknown type")
            .help(help),
    );
    None
}

fn name(context: &Context<'_>, section: &mut Section<'_>) -> Option<String> {
    let name = section.text("name", "NAME")?;
    if !is_name(&name.value) {
        context.reader.sink.push(
            Diagnostic::error(format!("{} cannot be the name of a trigger", quote(&name.value)))
                .at(&name.place, "not a name")
                .help("a name has 1 to 63 letters, digits, `_`, `-` and `.`, and begins with a letter, a digit or `_`"),
        );
    }
    Some(name.value)
}

/// One trigger under way.
struct Trigger<'a, 'c, 's> {
    context: &'a mut Context<'c>,
    section: Section<'s>,
    row: &'static Row,
    scope: Scope,
}

impl Trigger<'_, '_, '_> {
    fn push(&self, diagnostic: Diagnostic) {
        self.context.reader.sink.push(diagnostic);
    }

    /// Says that a field is missing, unless it is there and wrong.
    fn require(&self, key: &str, example: &str) {
        if !self.section.has(key) {
            self.push(
                Diagnostic::error(format!("a `{}` trigger needs `{key}`", self.row.word))
                    .at(&self.section.place, format!("`{key}` is missing"))
                    .help(format!("add {key} = {example}")),
            );
        }
    }

    fn read_scope(&mut self) -> Scope {
        let default = self.row.scopes.first().copied().unwrap_or(Scope::Session);
        let words = [("session", Scope::Session), ("bucket", Scope::Bucket)];
        let Some(scope) = self.section.choice("scope", &words) else {
            return default;
        };
        if !self.row.scopes.contains(&scope.value) {
            let help = if self.row.kind == Type::Immediate || self.row.kind == Type::ByName {
                "it fires for each object by itself and gathers nothing: leave `scope` out"
            } else {
                "it gathers per session only: leave `scope` out, or use `by_batch_size`, `by_time` \
                 or `redundant` to gather across sessions"
            };
            self.push(
                Diagnostic::error(format!("`{}` has no bucket scope", self.row.word))
                    .at(&scope.place, "not for this type")
                    .help(help),
            );
            return default;
        }
        scope.value
    }

    fn at_end(&mut self, has_timer: bool) -> AtEnd {
        let words = [
            ("wait", AtEnd::Wait),
            ("fire", AtEnd::Fire),
            ("fail", AtEnd::Fail),
            ("drop", AtEnd::Drop),
        ];
        let default = self.at_end_default(has_timer);
        let Some(at_end) = self.section.choice("at_end", &words) else {
            return default;
        };
        let word = self.row.word;
        let problem = match (self.row.kind, at_end.value) {
            (Type::Immediate | Type::ByName, _) => (
                "never holds an object back".to_owned(),
                "leave `at_end` out",
            ),
            _ if self.scope == Scope::Bucket => (
                "in bucket scope it does not end with a session".to_owned(),
                "leave `at_end` out, or write scope = \"session\"",
            ),
            (Type::ByBatchSize, AtEnd::Wait) if !has_timer => (
                "there is no timer to wait for".to_owned(),
                "add `linger`, or write at_end = \"fire\"",
            ),
            (Type::ByBatchSize | Type::ByTime, _) => return at_end.value,
            (_, AtEnd::Wait) => (
                "there is no timer to wait for".to_owned(),
                "write \"fire\", \"fail\" or \"drop\"",
            ),
            (Type::Custom, AtEnd::Fire) => (
                "only its own code knows what to fire".to_owned(),
                "write \"fail\" or \"drop\", and fire at PHR_EV_SESSION_END",
            ),
            _ => return at_end.value,
        };
        self.push(
            Diagnostic::error(format!("`at_end` does not fit this `{word}` trigger"))
                .at(&at_end.place, problem.0)
                .help(problem.1),
        );
        default
    }

    fn at_end_default(&self, has_timer: bool) -> AtEnd {
        match self.row.kind {
            // What is never pending, or not per session, is never settled.
            Type::Immediate | Type::ByName => AtEnd::Drop,
            _ if self.scope == Scope::Bucket => AtEnd::Drop,
            Type::ByTime => AtEnd::Wait,
            Type::ByBatchSize if has_timer => AtEnd::Wait,
            Type::ByBatchSize => AtEnd::Fire,
            Type::BySet | Type::DynamicJoin | Type::DynamicGroup | Type::Redundant => AtEnd::Fail,
            Type::Custom => AtEnd::Drop,
        }
    }

    fn skip_ended(&mut self) -> bool {
        let skip = self.section.boolean("skip_ended");
        if let Some(skip) = skip.as_ref().filter(|_| self.scope == Scope::Session) {
            self.push(
                Diagnostic::error("`skip_ended` goes with scope = \"bucket\"")
                    .at(&skip.place, "this trigger gathers per session")
                    .help("leave it out: a session's objects go with their session"),
            );
        }
        value_or(skip, false)
    }

    fn per_group(&mut self) -> bool {
        self.section.choice("per", &[("group", true)]).is_some()
    }

    fn kind(&mut self, index: usize) -> Option<TriggerKind> {
        match self.row.kind {
            Type::Immediate => Some(TriggerKind::Immediate),
            Type::ByName => self.by_name(),
            Type::BySet => self.by_set(),
            Type::ByBatchSize => self.by_batch_size(),
            Type::ByTime => self.by_time(),
            Type::Redundant => self.redundant(),
            Type::DynamicJoin => Some(TriggerKind::DynamicJoin),
            Type::DynamicGroup => self.dynamic_group(),
            Type::Custom => self.custom(index),
        }
    }

    fn by_name(&mut self) -> Option<TriggerKind> {
        let key_place = self.section.place_of("key");
        let pattern_place = self.section.place_of("pattern");
        let key = self.section.text("key", "NAME");
        let pattern = self.section.text("pattern", "*.txt");
        match (&key_place, &pattern_place) {
            (Some(key), Some(pattern)) => {
                self.push(
                    Diagnostic::error("a `by_name` trigger has either `key` or `pattern`")
                        .at(pattern, "many keys")
                        .beside(key, "one key")
                        .help("leave one of the two out"),
                );
                return None;
            }
            (None, None) => {
                self.push(
                    Diagnostic::error("a `by_name` trigger needs `key` or `pattern`")
                        .at(&self.section.place, "matches what?")
                        .help("add key = \"NAME\", or pattern = \"part-*\""),
                );
                return None;
            }
            _ => {}
        }
        if let Some(key) = key {
            if key.value.contains(['*', '?']) && self.judge_key(&key.value, &key.place) {
                self.push(
                    Diagnostic::warning("`key` matches character by character")
                        .at(&key.place, "`*` and `?` are characters like others here")
                        .help(format!("for a glob write pattern = \"{}\"", key.value)),
                );
                return Some(TriggerKind::ByName(NameMatch::Key(key.value)));
            }
            return self
                .judge_key(&key.value, &key.place)
                .then_some(TriggerKind::ByName(NameMatch::Key(key.value)));
        }
        let pattern = pattern?;
        match glob(&pattern.value) {
            Ok(()) => Some(TriggerKind::ByName(NameMatch::Pattern(pattern.value))),
            Err(reason) => {
                self.push(
                    Diagnostic::error(format!("{} is no pattern", quote(&pattern.value)))
                        .at(&pattern.place, reason)
                        .help("a pattern has `*`, `?`, `[...]` and `{a,b}`; `\\` takes the next character as it is"),
                );
                None
            }
        }
    }

    /// Whether a function may send an object under this key.
    fn judge_key(&self, key: &str, place: &Place) -> bool {
        let problem = if key.is_empty() {
            ("a key is empty".to_owned(), "a key has 1 to 255 bytes")
        } else if key.len() > KEY_BYTES_MAX {
            (
                format!("a key has {} bytes", key.len()),
                "a key has 1 to 255 bytes",
            )
        } else if key.starts_with('~') {
            (
                format!("the key {} is reserved", quote(key)),
                "keys that begin with `~` are made by the system: no function can send one",
            )
        } else if key.contains('\0') {
            (
                "a key holds a zero byte".to_owned(),
                "keys are C strings: no function can send it",
            )
        } else {
            return true;
        };
        self.push(
            Diagnostic::error(problem.0)
                .at(place, "no object can have it")
                .help(problem.1),
        );
        false
    }

    fn by_set(&mut self) -> Option<TriggerKind> {
        self.require("keys", "[\"part-{0..9}\"]");
        let list_place = self.section.place_of("keys")?;
        let texts = self.section.texts("keys", "part-{0..9}")?;
        if texts.is_empty() {
            self.push(
                Diagnostic::error("a `by_set` trigger needs at least one key")
                    .at(&list_place, "an empty list")
                    .help("for every object use type = \"immediate\""),
            );
            return None;
        }
        let inputs = usize::try_from(self.context.limits.inputs).ok()?;
        let mut keys: Vec<String> = Vec::new();
        // Which text each key is from.
        let mut from: Vec<usize> = Vec::new();
        let mut right = true;
        for (at, text) in texts.iter().enumerate() {
            let left = inputs.min(self.context.set_keys_left) - keys.len();
            match expand_ranges(&text.value, left) {
                Ok(expanded) => {
                    let first = expanded.first();
                    right &= first.is_none_or(|key| self.judge_key(key, &text.place));
                    from.resize(keys.len() + expanded.len(), at);
                    keys.extend(expanded);
                }
                Err(mistake) => {
                    self.push(range_problem(
                        &mistake,
                        text,
                        left < inputs - keys.len(),
                        inputs,
                    ));
                    right = false;
                }
            }
        }
        self.context.set_keys_left -= keys.len();
        right &= self.each_once(&keys, &from, &texts);
        right.then_some(TriggerKind::BySet { keys })
    }

    /// Whether no key is there twice; each text that repeats one is told once.
    fn each_once(&self, keys: &[String], from: &[usize], texts: &[Placed<String>]) -> bool {
        let mut seen: HashMap<&str, usize> = HashMap::with_capacity(keys.len());
        let mut told = None;
        for (key, at) in keys.iter().zip(from) {
            let Some(first) = seen.insert(key, *at) else {
                continue;
            };
            if told == Some(*at) {
                continue;
            }
            told = Some(*at);
            let twice = Diagnostic::error(format!("the key {} is there twice", quote(key)))
                .at(&texts[*at].place, "again")
                .help("each key is one object: leave one of them out");
            self.push(if first == *at {
                twice
            } else {
                twice.beside(&texts[first].place, "first here")
            });
        }
        told.is_none()
    }

    fn by_batch_size(&mut self) -> Option<TriggerKind> {
        self.require("count", "64");
        let count = self.section.number("count", 1..=self.context.limits.inputs);
        let linger = self.section.duration("linger", 1..=DURATION_NS_MAX);
        let per_group = self.per_group();
        let linger_ns = linger.map(|linger| linger.value);
        Some(TriggerKind::ByBatchSize {
            count: count?.value,
            linger_ns,
            per_group,
        })
    }

    fn by_time(&mut self) -> Option<TriggerKind> {
        self.require("window", "\"1s\"");
        let window = self
            .section
            .duration("window", SLIDE_NS_MIN..=DURATION_NS_MAX);
        let slide = self
            .section
            .duration("slide", SLIDE_NS_MIN..=DURATION_NS_MAX);
        let fire_empty = value_or(self.section.boolean("fire_empty"), false);
        let per_group = self.per_group();
        let window = window?;
        if let Some(slide) = &slide {
            let shown = show_duration(window.value);
            if slide.value > window.value {
                self.push(
                    Diagnostic::error("`slide` is longer than `window`")
                        .at(&slide.place, "objects in between would be in no window")
                        .beside(&window.place, "the window")
                        .help(format!(
                            "write slide = \"{shown}\" or less, or leave it out"
                        )),
                );
                return None;
            }
            if window.value.div_ceil(slide.value) > WINDOWS_MAX {
                let least = show_at_least(window.value.div_ceil(WINDOWS_MAX));
                self.push(
                    Diagnostic::error("more than 1024 windows over one instant")
                        .at(
                            &slide.place,
                            format!("{} of them", window.value.div_ceil(slide.value)),
                        )
                        .beside(&window.place, "the window")
                        .help(format!("write slide = \"{least}\" or more")),
                );
                return None;
            }
        }
        let slide_ns = value_or(slide, window.value);
        Some(TriggerKind::ByTime {
            window_ns: window.value,
            slide_ns,
            fire_empty,
            per_group,
        })
    }

    fn redundant(&mut self) -> Option<TriggerKind> {
        let errors_before = self.context.reader.sink.errors();
        let k = self.section.number("k", 1..=self.context.limits.inputs);
        let n = self.section.number("n", 1..=self.context.limits.inputs);
        let missing = match (self.section.place_of("k"), self.section.place_of("n")) {
            (Some(place), None) => Some((place, "n", "how many there will be")),
            (None, Some(place)) => Some((place, "k", "how many are enough")),
            (None, None) if self.scope == Scope::Bucket => Some((
                self.section.place.clone(),
                "k",
                "in bucket scope they cannot come at run time",
            )),
            _ => None,
        };
        if let Some((place, key, why)) = missing {
            let help = match self.scope {
                Scope::Session => {
                    format!("add {key} = 2, or leave both out and call phr_redundant")
                }
                Scope::Bucket => "write both, as in k = 2 and n = 3".to_owned(),
            };
            self.push(
                Diagnostic::error(format!("`{key}` is missing: {why}"))
                    .at(&place, "`k` and `n` go together")
                    .help(help),
            );
        }
        if let (Some(k), Some(n)) = (&k, &n)
            && k.value > n.value
        {
            self.push(
                Diagnostic::error("`k` is more than `n`: the round can never fire")
                    .at(&k.place, format!("waits for {}", k.value))
                    .beside(&n.place, format!("of {}", n.value))
                    .help(format!("write k = {} or less", n.value)),
            );
        }
        let names = self
            .section
            .texts("cancel_rest", "NAME")
            .unwrap_or_default();
        let whose = format!("`cancel_rest` of {}", self.section.name);
        let cancel_rest = self.context.reader.functions(&names, &whose);
        let expire = self.section.duration("expire", 1..=DURATION_NS_MAX);
        match self.section.place_of("expire") {
            None if self.scope == Scope::Bucket => self.push(
                Diagnostic::error("a `redundant` trigger in bucket scope needs `expire`")
                    .at(&self.section.place, "`expire` is missing")
                    .help("add expire = \"1m\": no session's end forgets its rounds"),
            ),
            Some(place) if self.scope == Scope::Session => self.push(
                Diagnostic::error("`expire` goes with scope = \"bucket\"")
                    .at(&place, "this trigger gathers per session")
                    .help("leave it out: a round is forgotten at its session's end"),
            ),
            _ => {}
        }
        if let (Scope::Bucket, Some(place)) = (self.scope, self.section.place_of("cancel_rest")) {
            self.push(
                Diagnostic::error("`cancel_rest` goes with scope = \"session\"")
                    .at(&place, "a round across sessions is of no session")
                    .help(
                        "leave it out: it cancels invocations of the session that the round is of",
                    ),
            );
        }
        let k_of_n = k.zip(n).map(|(k, n)| (k.value, n.value));
        let expire_ns = expire.map(|expire| expire.value);
        (self.context.reader.sink.errors() == errors_before).then_some(TriggerKind::Redundant {
            k_of_n,
            cancel_rest,
            expire_ns,
        })
    }

    fn dynamic_group(&mut self) -> Option<TriggerKind> {
        let errors_before = self.context.reader.sink.errors();
        let sources_place = self.section.place_of("sources");
        let after_place = self.section.place_of("after");
        if let (Some(sources), Some(after)) = (&sources_place, &after_place) {
            self.push(
                Diagnostic::error("a `dynamic_group` has either `sources` or `after`")
                    .at(after, "closes when this function and its causes are done")
                    .beside(sources, "closes after so many sources")
                    .help("leave one of the two out"),
            );
        }
        let sources = self.section.number("sources", 1..=SOURCES_MAX);
        let after = self.section.text("after", "NAME").and_then(|name| {
            let whose = format!("`after` of {}", self.section.name);
            self.context.reader.function(&name, &whose)
        });
        let fire_empty = self.section.boolean("fire_empty");
        if let Some(field) = fire_empty.as_ref().filter(|_| after_place.is_none()) {
            self.push(
                Diagnostic::error("`fire_empty` goes with `after`")
                    .at(
                        &field.place,
                        "without `after` there is nothing to fall quiet",
                    )
                    .help("leave it out, or add after = \"FUNCTION\""),
            );
        }
        let order = self
            .section
            .choice("order", &[("arrival", false), ("key", true)]);
        let close = match (sources, after) {
            (_, Some(after)) => GroupClose::After(after),
            (Some(sources), None) => GroupClose::Sources(sources.value),
            (None, None) => GroupClose::SourcesAtRunTime,
        };
        (self.context.reader.sink.errors() == errors_before).then_some(TriggerKind::DynamicGroup {
            close,
            fire_empty: value_or(fire_empty, false),
            order_by_key: value_or(order, false),
        })
    }

    fn custom(&mut self, index: usize) -> Option<TriggerKind> {
        let reader = self.context.reader;
        let errors_before = reader.sink.errors();
        let users = Users::one(&self.section.name);
        let settings = Settings::read(reader, &mut self.section, &users, false);
        let program = settings.program(
            reader,
            self.context.defaults,
            self.context.code,
            &self.section.place,
            &self.section.name,
        );
        self.require("symbol", "\"NAME\", the name in PHR_TRIGGER(NAME)");
        let symbol = function::symbol(reader, &mut self.section);
        let config = reader.pairs(&mut self.section, "config");
        let timeout = self.section.duration("timeout", 1..=DURATION_NS_MAX);
        let keep = value_or(self.section.boolean("keep"), false);
        if reader.sink.errors() > errors_before {
            return None;
        }
        self.context.custom_triggers.push(TriggerProgram {
            bucket: self.context.index,
            trigger: index,
            program,
            symbol: symbol?,
        });
        Some(TriggerKind::Custom {
            config: config.into_iter().map(|pair| pair.value).collect(),
            timeout_ns: value_or(timeout, 100_000_000),
            keep,
        })
    }
}

fn range_problem(
    mistake: &RangeMistake,
    text: &Placed<String>,
    by_app: bool,
    inputs: usize,
) -> Diagnostic {
    let problem = |title: String, label: &str, help: String| {
        Diagnostic::error(title).at(&text.place, label).help(help)
    };
    match mistake {
        RangeMistake::Backwards(range) => problem(
            format!("the range {} runs backwards", quote(range)),
            "ends before it begins",
            "write the smaller number first".into(),
        ),
        RangeMistake::Malformed(range) => problem(
            format!("{} is no range", quote(range)),
            "not two numbers",
            "a range is two whole numbers with two points between them: \"part-{0..9}\"".into(),
        ),
        RangeMistake::TooMany if by_app => problem(
            format!("more than {SET_KEYS_MAX} keys in all sets of the app"),
            "too many",
            "for many objects use a `dynamic_group`, or fewer and larger objects".into(),
        ),
        RangeMistake::TooMany => problem(
            format!("more than {inputs} keys in one set"),
            "too many",
            "a set fires one invocation, which takes at most `inputs` of [app.limits]: raise it, \
             or wait for fewer keys"
                .into(),
        ),
        RangeMistake::TooLong => problem(
            "a key has over 255 bytes".into(),
            "no object can have it",
            "a key has 1 to 255 bytes".into(),
        ),
    }
}

/// Whether a pattern compiles, as the core will compile it.
fn glob(pattern: &str) -> Result<(), String> {
    if pattern.is_empty() {
        return Err("an empty pattern matches nothing".into());
    }
    if pattern.len() > 4 * KEY_BYTES_MAX {
        return Err("longer than any pattern needs to be".into());
    }
    let built = globset::GlobBuilder::new(pattern)
        .literal_separator(false)
        .build();
    let built = built.and_then(|glob| globset::GlobSetBuilder::new().add(glob).build().map(|_| ()));
    built.map_err(|error| error.kind().to_string())
}
