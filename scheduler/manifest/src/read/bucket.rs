//! The sections `[buckets.NAME]` and their `reruns`.

use std::collections::HashMap;

use pheromone_core::spec::{BucketIndex, BucketSpec, Keep, Limits, RerunSpec, Retain};
use toml::de::DeValue;

use super::app::value_or;
use super::code::{Code, Settings};
use super::trigger;
use super::{BucketPlaces, FieldPlaces, Reader};
use crate::app::TriggerProgram;
use crate::diagnostics::{Diagnostic, Place, quote};
use crate::document::Section;
use crate::limits::{ATTEMPTS_MAX, DURATION_NS_MAX};

/// What reading a bucket needs, and where the code of its custom triggers goes.
pub(super) struct Context<'a> {
    pub reader: &'a Reader<'a>,
    pub index: BucketIndex,
    pub limits: &'a Limits,
    pub defaults: &'a Settings,
    pub code: &'a mut Code,
    pub custom_triggers: &'a mut Vec<TriggerProgram>,
    /// Keys that sets may still have.
    pub set_keys_left: usize,
}

impl Context<'_> {
    pub(super) fn read(
        &mut self,
        name: &str,
        mut section: Section<'_>,
    ) -> (BucketSpec, BucketPlaces) {
        let mut places = BucketPlaces {
            bucket: FieldPlaces::of(&section),
            ..Default::default()
        };
        let durable = value_or(section.boolean("durable"), false);
        let keep_words = [
            ("session", Keep::Session),
            ("until_consumed", Keep::UntilConsumed),
        ];
        let keep = value_or(section.choice("keep", &keep_words), Keep::Session);
        let retain = self.retain(&mut section, durable);
        let replace = value_or(section.boolean("replace"), true);
        let triggers = section.tables("triggers", &format!("[[buckets.{name}.triggers]]"));
        let reruns = section.tables("reruns", &format!("[[buckets.{name}.reruns]]"));
        section.finish(|key| {
            trigger::type_of_field(key)
                .map(|_| format!("put `{key}` below the line [[buckets.{name}.triggers]]"))
        });
        let (reruns, rerun_places) = reruns
            .into_iter()
            .filter_map(|section| {
                let places = FieldPlaces::of(&section);
                Some((self.rerun(section)?, places))
            })
            .unzip();
        places.reruns = rerun_places;

        let mut specs = Vec::with_capacity(triggers.len());
        let mut seen: HashMap<String, Place> = HashMap::new();
        for (number, section) in triggers.into_iter().enumerate() {
            let field_places = FieldPlaces::of(&section);
            let Some(spec) = trigger::read(self, section, number, specs.len()) else {
                // Whoever it would have fired must not look as if nothing did.
                self.reader.unresolved.set(true);
                continue;
            };
            let place = field_places.of_field("name").clone();
            if let Some(first) = seen.insert(spec.name.clone(), place.clone()) {
                self.reader.sink.push(
                    Diagnostic::error(format!(
                        "two triggers of bucket {} are called {}",
                        quote(name),
                        quote(&spec.name)
                    ))
                    .at(
                        &place,
                        if field_places.has("name") {
                            "again"
                        } else {
                            "called so for want of a `name`"
                        },
                    )
                    .beside(&first, "first here")
                    .help("give one of them another `name`"),
                );
            }
            specs.push(spec);
            places.triggers.push(field_places);
        }
        let name = name.to_owned();
        (
            BucketSpec {
                name,
                durable,
                keep,
                retain,
                replace,
                triggers: specs,
                reruns,
            },
            places,
        )
    }

    fn retain(&self, section: &mut Section<'_>, durable: bool) -> Retain {
        let forever = matches!(section.peek("retain"), Some(DeValue::String(s)) if s == "forever");
        if forever {
            let place = section.place_of("retain").unwrap_or_default();
            let _ = section.text("retain", "forever");
            if !durable {
                self.reader.sink.push(
                    Diagnostic::error("`retain = \"forever\"` in a bucket that is not durable")
                        .at(&place, "memory would only fill up")
                        .help("add durable = true, or say how long: retain = \"10m\""),
                );
            }
            return Retain::Forever;
        }
        match section.duration("retain", 0..=DURATION_NS_MAX) {
            Some(retain) => Retain::ForNs(retain.value),
            None if durable => Retain::Forever,
            None => Retain::ForNs(0),
        }
    }

    fn rerun(&self, mut section: Section<'_>) -> Option<RerunSpec> {
        let (place, whose) = (section.place.clone(), section.name.clone());
        for (key, example) in [("function", "NAME"), ("timeout", "100ms")] {
            if !section.has(key) {
                self.reader.sink.push(
                    Diagnostic::error(format!("{whose} has no `{key}`"))
                        .at(&place, format!("`{key}` is missing"))
                        .help(format!("add {key} = \"{example}\"")),
                );
            }
        }
        let function = section.text("function", "NAME");
        let function = function.and_then(|name| {
            self.reader
                .function(&name, &format!("`function` of {whose}"))
        });
        let timeout = section.duration("timeout", 1..=DURATION_NS_MAX);
        let attempts = value_or(section.number("attempts", 1..=ATTEMPTS_MAX), 3);
        let speculative = value_or(section.boolean("speculative"), false);
        let optional = value_or(section.boolean("optional"), false);
        section.finish(|_| None);
        Some(RerunSpec {
            function: function?,
            timeout_ns: timeout?.value,
            attempts,
            speculative,
            optional,
        })
    }
}
