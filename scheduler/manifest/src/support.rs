//! What this build does not carry out yet. Where an app would do something else than its manifest
//! says, that is an error at the field that asks for it: the core decides
//! ([`AppSpec::unsupported`]), here only the places are found. Where it does the same with less
//! protection, that is a warning.

use pheromone_core::spec::{AppSpec, Isolation, OnFailure, Retain, Scope, TriggerKind};

use crate::app::FunctionProgram;
use crate::diagnostics::Diagnostic;
use crate::document::Sink;
use crate::read::{FieldPlaces, Places};

/// Reports each such field.
pub(crate) fn judge(spec: &AppSpec, programs: &[FunctionProgram], places: &Places, sink: &Sink) {
    refuse(spec, places, sink);
    if sink.errors() == 0 {
        warn(spec, programs, places, sink);
    }
}

/// Protection that the app asks for, and has not.
fn warn(spec: &AppSpec, programs: &[FunctionProgram], places: &Places, sink: &Sink) {
    let level = match spec.isolation {
        Isolation::None => None,
        Isolation::Standard => Some("standard"),
        Isolation::Strict => Some("strict"),
    };
    if let Some(level) = level {
        let default = if places.app.has("isolation") {
            ""
        } else {
            " (the default)"
        };
        sink.push(Diagnostic::warning(format!(
            "isolation `{level}`{default} is not in this build yet: functions run as under `none` \
             (isolation = \"none\" accepts that)"
        )));
    }
    if spec.weight != 1 {
        sink.push(
            Diagnostic::warning("`weight` is not in this build yet")
                .at(places.app.of_field("weight"), "has no effect")
                .help("apps share the machine as the kernel shares it; bound each by `executors`"),
        );
    }
    let limited = programs
        .iter()
        .zip(&places.functions)
        .filter(|(program, _)| program.private_memory_bytes.is_some());
    for (_, places) in limited {
        sink.push(
            Diagnostic::warning("`private_memory` is not in this build yet")
                .at(places.of_field("private_memory"), "has no effect")
                .help("processes have no limit of their own; bound the node's from outside"),
        );
    }
}

fn refuse(spec: &AppSpec, places: &Places, sink: &Sink) {
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
    for (function, places) in spec.functions.iter().zip(&places.functions) {
        if let OnFailure::Bucket(_) = function.on_failure {
            let help = "\"fail\" and \"continue\" are";
            tell(
                places,
                "on_failure",
                "`on_failure` with a bucket is".into(),
                help,
            );
        }
        if function.serial_by.is_some() {
            let help = "max_concurrency = 1 runs all of them one after another";
            tell(places, "serial_by", "`serial_by` is".into(), help);
        }
        if function.durable {
            tell(
                places,
                "durable",
                "durable functions are".into(),
                "leave `durable` out",
            );
        }
    }
    for (bucket, places) in spec.buckets.iter().zip(&places.buckets) {
        if bucket.durable {
            tell(
                &places.bucket,
                "durable",
                "durable buckets are".into(),
                "leave `durable` out",
            );
        } else if bucket.retain != Retain::ForNs(0) {
            let help = "keep = \"session\" holds objects until their session ends";
            tell(&places.bucket, "retain", "`retain` is".into(), help);
        }
        for places in &places.reruns {
            tell(
                places,
                "function",
                "`reruns` are".into(),
                "leave this section out",
            );
        }
        for (trigger, places) in bucket.triggers.iter().zip(&places.triggers) {
            let word = type_word(&trigger.kind);
            if let TriggerKind::Custom { .. } = trigger.kind {
                let help = "this build has all other types";
                tell(places, "type", format!("`{word}` triggers are"), help);
            } else if trigger.scope == Scope::Bucket && gathers(&trigger.kind) {
                let help = "scope = \"session\" gathers the objects of each session by themselves";
                let what = format!("`{word}` triggers that gather across sessions are");
                let field = if places.has("scope") { "scope" } else { "type" };
                tell(places, field, what, help);
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

/// Whether a type keeps objects until it fires.
fn gathers(kind: &TriggerKind) -> bool {
    !matches!(kind, TriggerKind::Immediate | TriggerKind::ByName(_))
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
