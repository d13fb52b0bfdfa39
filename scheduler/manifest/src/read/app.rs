//! The sections `[app]` and `[app.limits]`.

use pheromone_core::spec::{AppSpec, Entry, Isolation, Limits, Pool};
use toml::de::DeValue;

use super::code::{Settings, Users};
use super::{ReadOptions, Reader};
use crate::diagnostics::{Diagnostic, quote};
use crate::document::{Placed, Section};
use crate::limits::{
    DURATION_NS_MAX, EXECUTORS_MAX, INPUTS_MAX, MEMORY_BYTES_MAX, MEMORY_BYTES_MIN,
    OBJECT_BYTES_MAX, OBJECTS_MAX, SESSIONS_MAX, WEIGHT_MAX,
};
use crate::names::is_app_name;
use crate::units::show_size;

/// Keys of `[app]`, to say where one belongs that stands above it.
pub(super) const KEYS: &[&str] = &[
    "name",
    "entry",
    "source",
    "library",
    "cflags",
    "include",
    "link",
    "config",
    "files",
    "keep_request",
    "memory",
    "executors",
    "isolation",
    "weight",
    "response",
    "session_timeout",
    "on_disconnect",
    "keep_results",
    "continuation",
    "limits",
];

/// What functions inherit, and what was not said.
pub(super) struct Defaults {
    pub code: Settings,
    pub executors_max_is_default: bool,
    pub waiters_is_default: bool,
}

pub(super) fn read(
    reader: &Reader<'_>,
    mut section: Section<'_>,
    users: &Users,
    options: &ReadOptions,
) -> (AppSpec, Defaults) {
    let code = Settings::read(reader, &mut section, users, true);
    let name = name(reader, &mut section);
    let entry = entry(reader, &mut section);
    let memory = section.size("memory", MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX);
    let memory_bytes = memory.as_ref().map_or(1 << 30, |memory| memory.value);
    let (executors, executors_max_is_default) = executors(reader, &mut section, options);
    let limits = section.table("limits", "[app.limits]".into());
    let limits = limits.unwrap_or_else(|| Section::absent(reader.sink, "[app.limits]"));
    let (limits, waiters_is_default) = read_limits(reader, limits, memory_bytes, executors.max);

    let isolation = section.choice(
        "isolation",
        &[
            ("none", Isolation::None),
            ("standard", Isolation::Standard),
            ("strict", Isolation::Strict),
        ],
    );
    let response = section.choice("response", &[("optional", false), ("required", true)]);
    let on_disconnect = section.choice("on_disconnect", &[("continue", false), ("cancel", true)]);
    let spec = AppSpec {
        name,
        entry,
        keep_request: value_or(section.boolean("keep_request"), false),
        memory_bytes,
        executors,
        isolation: value_or(isolation, Isolation::Standard),
        weight: value_or(section.number("weight", 1..=WEIGHT_MAX), 1),
        response_required: value_or(response, false),
        session_timeout_ns: section
            .duration("session_timeout", 1..=DURATION_NS_MAX)
            .map(|timeout| timeout.value),
        cancel_on_disconnect: value_or(on_disconnect, false),
        keep_results_ns: value_or(
            section.duration("keep_results", 0..=DURATION_NS_MAX),
            60 * 1_000_000_000,
        ),
        continuation: value_or(section.boolean("continuation"), true),
        limits,
        functions: Vec::new(),
        buckets: Vec::new(),
    };
    section.finish(|_| None);
    (
        spec,
        Defaults {
            code,
            executors_max_is_default,
            waiters_is_default,
        },
    )
}

/// The value of a field, or what it is where it does not stand.
pub(super) fn value_or<T>(placed: Option<Placed<T>>, default: T) -> T {
    placed.map_or(default, |placed| placed.value)
}

fn name(reader: &Reader<'_>, section: &mut Section<'_>) -> String {
    let place = section.place.clone();
    let there = section.has("name");
    let Some(name) = section.text("name", "wordcount") else {
        if !there {
            reader.sink.push(
                Diagnostic::error("the app has no name")
                    .at(&place, "`name` is missing")
                    .help("add name = \"NAME\" below it"),
            );
        }
        return String::new();
    };
    if !is_app_name(&name.value) {
        let lower = name.value.to_ascii_lowercase().replace([' ', '.'], "-");
        let help = if is_app_name(&lower) {
            format!("did you mean \"{lower}\"?")
        } else {
            "a name has 1 to 63 small letters, digits, `-` and `_`, and begins with a letter or digit"
                .into()
        };
        reader.sink.push(
            Diagnostic::error(format!(
                "{} cannot be the name of an app",
                quote(&name.value)
            ))
            .at(&name.place, "not a name")
            .help(help),
        );
    }
    name.value
}

fn entry(reader: &Reader<'_>, section: &mut Section<'_>) -> Option<Entry> {
    if matches!(section.peek("entry"), Some(DeValue::Table(_))) {
        let mut table = section.table("entry", "entry of [app]".into())?;
        let bucket = bucket_of(reader, &mut table);
        table.finish(|_| None);
        return bucket.map(Entry::Bucket);
    }
    let name = section.text("entry", "split")?;
    match reader.functions.index.get(&name.value) {
        Some(index) => Some(Entry::Function(*index)),
        None if reader.buckets.index.contains_key(&name.value) => {
            let shown = quote(&name.value);
            reader.unresolved.set(true);
            reader.sink.push(
                Diagnostic::error(format!("`entry`: {shown} is a bucket"))
                    .at(&name.place, "a bucket, not a function")
                    .help(format!(
                        "write it as entry = {{ bucket = \"{}\" }}",
                        name.value
                    )),
            );
            None
        }
        None => reader.function(&name, "`entry`").map(Entry::Function),
    }
}

/// The bucket of `{ bucket = "NAME" }`.
pub(super) fn bucket_of(reader: &Reader<'_>, table: &mut Section<'_>) -> Option<u16> {
    let there = table.has("bucket");
    let (place, whose) = (table.place.clone(), table.name.clone());
    match table.text("bucket", "NAME") {
        Some(name) => reader.bucket(&name, &whose),
        None if there => None,
        None => {
            reader.sink.push(
                Diagnostic::error(format!("{whose} names no bucket"))
                    .at(&place, "`bucket` is missing")
                    .help("write it as { bucket = \"NAME\" }"),
            );
            None
        }
    }
}

fn executors(
    reader: &Reader<'_>,
    section: &mut Section<'_>,
    options: &ReadOptions,
) -> (Pool, bool) {
    let default_max = options.executors_max.unwrap_or_else(executor_cores).max(1);
    let table = section.table("executors", "executors of [app]".into());
    let mut table = table.unwrap_or_else(|| Section::absent(reader.sink, "executors"));
    let min = table.number("min", 1..=EXECUTORS_MAX);
    let max = table.number("max", 1..=EXECUTORS_MAX);
    table.finish(|_| None);
    if let (Some(min), Some(max)) = (&min, &max)
        && max.value < min.value
    {
        reader.sink.push(
            Diagnostic::error("`executors`: max is less than min")
                .at(&max.place, "the most at once")
                .beside(&min.place, "kept running")
                .help(format!("write max = {} or more", min.value)),
        );
    }
    let is_default = max.is_none();
    let min = value_or(min, 1);
    let max = max.map_or(default_max.max(min), |max| max.value);
    (Pool { min, max }, is_default)
}

/// Cores that are left for executors beside the scheduler's and, from three on, the one for I/O;
/// at least 2, so that two functions always can overlap.
fn executor_cores() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let taken = if cores >= 3 { 2 } else { 1 };
    u16::try_from(cores - taken)
        .unwrap_or(EXECUTORS_MAX)
        .clamp(2, EXECUTORS_MAX)
}

fn read_limits(
    reader: &Reader<'_>,
    mut section: Section<'_>,
    memory_bytes: u64,
    executors_max: u16,
) -> (Limits, bool) {
    let default = Limits::default();
    let object_size = section.size("object_size", 1..=OBJECT_BYTES_MAX);
    if let Some(size) = object_size
        .as_ref()
        .filter(|size| size.value > memory_bytes)
    {
        let (object, memory) = (show_size(size.value), show_size(memory_bytes));
        reader.sink.push(
            Diagnostic::error(format!(
                "`object_size` is {object}, but the app's memory is {memory}"
            ))
            .at(&size.place, "more than `memory`")
            .help(format!(
                "raise `memory` in [app], or write object_size = \"{memory}\""
            )),
        );
    }
    let waiters = section.number("waiters", 1..=EXECUTORS_MAX);
    let waiters_is_default = waiters.is_none();
    let mut size = |key, default| value_or(section.size(key, 0..=MEMORY_BYTES_MAX), default);
    let dead_letters_bytes = size("dead_letters", default.dead_letters_bytes);
    let subscriber_buffer_bytes = size("subscriber_buffer", default.subscriber_buffer_bytes);
    let log_bytes = size("log", default.log_bytes);
    let mut duration = |key, default| value_or(section.duration(key, 0..=DURATION_NS_MAX), default);
    let create_wait_ns = duration("create_wait", default.create_wait_ns);
    let forward_delay_ns = duration("forward_delay", default.forward_delay_ns);
    let cancel_grace_ns = duration("cancel_grace", default.cancel_grace_ns);
    let limits = Limits {
        sessions: value_or(
            section.number("sessions", 1..=SESSIONS_MAX),
            default.sessions,
        ),
        calls_waiting: value_or(
            section.number("calls_waiting", 1..=SESSIONS_MAX),
            default.calls_waiting,
        ),
        objects: value_or(section.number("objects", 1..=OBJECTS_MAX), default.objects),
        object_size_bytes: value_or(object_size, default.object_size_bytes.min(memory_bytes)),
        inputs: value_or(section.number("inputs", 1..=INPUTS_MAX), default.inputs),
        create_wait_ns,
        forward_delay_ns,
        waiters: value_or(waiters, executors_max),
        dead_letters_bytes,
        subscriber_buffer_bytes,
        log_bytes,
        cancel_grace_ns,
    };
    section.finish(|_| None);
    (limits, waiters_is_default)
}
