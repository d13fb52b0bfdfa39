//! What this build does not carry out yet. Where an app would do something else than its manifest
//! says, that is an error at the field that asks for it: the core decides
//! ([`AppSpec::unsupported`]), here only the places are found. Where it does the same with less
//! protection, that is a warning.

use pheromone_core::spec::{AppSpec, Isolation, OnFailure, Retain, TriggerKind};

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
        if function.attempts > 1 {
            tell(
                places,
                "attempts",
                "further attempts are".into(),
                "write attempts = 1",
            );
        }
        if function.on_failure != OnFailure::Fail {
            let help = "leave it out: the session fails";
            tell(
                places,
                "on_failure",
                "`on_failure` other than \"fail\" is".into(),
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
            if let Some(word) = later(&trigger.kind) {
                let help = "this build has \"immediate\", \"by_name\" and \"by_set\"";
                tell(places, "type", format!("`{word}` triggers are"), help);
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

/// The word for a type that comes later.
fn later(kind: &TriggerKind) -> Option<&'static str> {
    match kind {
        TriggerKind::Immediate | TriggerKind::ByName(_) | TriggerKind::BySet { .. } => None,
        kind => Some(type_word(kind)),
    }
}

/// A type's word in the manifest.
pub(crate) fn type_word(kind: &TriggerKind) -> &'static str {
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
