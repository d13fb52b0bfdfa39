//! What this build does not carry out yet. Where an app would do something else than its manifest
//! says, that is an error at the field that asks for it: the core decides
//! ([`AppSpec::unsupported`]), here only the places are found.

use pheromone_core::spec::{AppSpec, Scope, TriggerKind};

use crate::diagnostics::Diagnostic;
use crate::document::Sink;
use crate::read::{FieldPlaces, Places};

/// Reports each such field.
pub(crate) fn judge(spec: &AppSpec, places: &Places, sink: &Sink) {
    let sentences = spec.unsupported();
    if sentences.is_empty() {
        return;
    }
    let mut told = 0;
    let mut tell = |places: &FieldPlaces, field: &str, what: String, help: &str| {
        told += 1;
        sink.push(
            Diagnostic::error(format!("{what} not in this build yet"))
                .at(places.of_field(field), "cannot be carried out")
                .help(help),
        );
    };
    for (bucket, places) in spec.buckets.iter().zip(&places.buckets) {
        for (trigger, places) in bucket.triggers.iter().zip(&places.triggers) {
            let is_custom = matches!(trigger.kind, TriggerKind::Custom { .. });
            if is_custom && trigger.scope == Scope::Bucket {
                let help = "scope = \"session\" decides about each session's objects";
                let what = "`custom` triggers that gather across sessions are".to_owned();
                tell(places, "scope", what, help);
            } else if let Some(why) = spec.unrecorded(bucket, trigger) {
                let what = format!(
                    "in an app with durable functions, trigger `{}` of the durable bucket `{}` \
                     ({why}) is",
                    trigger.name, bucket.name
                );
                let help = match trigger.scope {
                    Scope::Bucket => "scope = \"session\" gathers each session's objects",
                    Scope::Session => {
                        "have it on a bucket that is not durable: what it fires runs again from \
                         what has led to it"
                    }
                };
                tell(places, "type", what, help);
            }
        }
    }
    if told == 0 {
        // The core has learnt to refuse something that this file does not know.
        sentences
            .into_iter()
            .for_each(|sentence| sink.push(Diagnostic::error(sentence)));
    }
}

/// A type's word in the manifest.
pub fn type_word(kind: &TriggerKind) -> &'static str {
    match kind {
        TriggerKind::Immediate => "immediate",
        TriggerKind::ByName(_) => "by_name",
        TriggerKind::BySet { .. } => "by_set",
        TriggerKind::ByBatchSize { .. } => "by_batch_size",
        TriggerKind::ByTime { .. } => "by_time",
        TriggerKind::Redundant { .. } => "redundant",
        TriggerKind::DynamicJoin => "dynamic_join",
        TriggerKind::DynamicGroup { .. } => "dynamic_group",
        TriggerKind::Custom { .. } => "custom",
    }
}
