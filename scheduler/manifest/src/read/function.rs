//! The sections `[functions.NAME]`.

use std::collections::HashMap;
use std::env::VarError;

use pheromone_core::spec::{Backoff, FunctionSpec, OnFailure, SerialBy};
use toml::de::DeValue;

use super::Reader;
use super::app::{bucket_of, value_or};
use super::code::{self, Code, Settings, Users};
use crate::app::{Arguments, FunctionProgram};
use crate::diagnostics::{Diagnostic, Place, quote};
use crate::document::{Placed, Section};
use crate::limits::{
    ATTEMPTS_MAX, CONCURRENCY_MAX, DURATION_NS_MAX, MEMORY_BYTES_MAX, MEMORY_BYTES_MIN,
    SYMBOL_BYTES_MAX,
};

/// Reads one function; `app` are the settings that it inherits.
pub(super) fn read(
    reader: &Reader<'_>,
    name: &str,
    mut section: Section<'_>,
    app: &Settings,
    code: &mut Code,
) -> (FunctionSpec, FunctionProgram) {
    let whose = section.name.clone();
    let names = |section: &mut Section<'_>, key| section.texts(key, "NAME").unwrap_or_default();
    let next = names(&mut section, "next");
    let calls = names(&mut section, "calls");
    let sends = section.texts("sends", "NAME");
    let serial_by = section.choice(
        "serial_by",
        &[
            ("key", SerialBy::Key),
            ("group", SerialBy::Group),
            ("session", SerialBy::Session),
        ],
    );
    let timeout = section.duration("timeout", 1..=DURATION_NS_MAX);
    let init_timeout = section.duration("init_timeout", 1..=DURATION_NS_MAX);
    let max_concurrency = section.number("max_concurrency", 1..=CONCURRENCY_MAX);
    let spec = FunctionSpec {
        name: name.to_owned(),
        next: reader.functions(&next, &format!("`next` of {whose}")),
        calls: reader.functions(&calls, &format!("`calls` of {whose}")),
        sends: sends.map(|names| reader.buckets(&names, &format!("`sends` of {whose}"))),
        timeout_ns: timeout.map(|timeout| timeout.value),
        init_timeout_ns: value_or(init_timeout, 60 * 1_000_000_000),
        attempts: value_or(section.number("attempts", 1..=ATTEMPTS_MAX), 1),
        backoff: backoff(reader, &mut section),
        on_failure: on_failure(reader, &mut section),
        max_concurrency: max_concurrency.map(|max| max.value),
        priority: value_or(section.number("priority", -8..=7), 0),
        serial_width: serial_width(reader, &mut section, serial_by.is_some()),
        serial_by: serial_by.map(|by| by.value),
        durable: value_or(section.boolean("durable"), false),
    };
    let program = program(reader, name, &mut section, app, code);
    section.finish(|_| None);
    (spec, program)
}

fn backoff(reader: &Reader<'_>, section: &mut Section<'_>) -> Backoff {
    let first = section.duration("backoff", 0..=DURATION_NS_MAX);
    let max = section.duration("backoff_max", 0..=DURATION_NS_MAX);
    if let (Some(first), Some(max)) = (&first, &max)
        && first.value > max.value
    {
        reader.sink.push(
            Diagnostic::error("`backoff_max` is shorter than `backoff`")
                .at(&max.place, "the longest pause")
                .beside(&first.place, "the first pause")
                .help("make `backoff_max` at least as long"),
        );
    }
    let first_ns = value_or(first, 10_000_000);
    Backoff {
        first_ns,
        max_ns: value_or(max, first_ns.max(1_000_000_000)),
        jitter: section.fraction("jitter", 0.0..=1.0).unwrap_or(0.1),
    }
}

fn on_failure(reader: &Reader<'_>, section: &mut Section<'_>) -> OnFailure {
    if matches!(section.peek("on_failure"), Some(DeValue::Table(_))) {
        let name = format!("on_failure of {}", section.name);
        let Some(mut table) = section.table("on_failure", name) else {
            return OnFailure::Fail;
        };
        let bucket = bucket_of(reader, &mut table);
        table.finish(|_| None);
        return bucket.map_or(OnFailure::Fail, OnFailure::Bucket);
    }
    let place = section.place_of("on_failure");
    if let (Some(DeValue::String(text)), Some(place)) = (section.peek("on_failure"), place)
        && reader.buckets.index.contains_key(text.as_ref())
    {
        let _ = section.text("on_failure", "fail");
        reader.sink.push(
            Diagnostic::error(format!("`on_failure`: {} is a bucket", quote(text)))
                .at(&place, "a bucket")
                .help(format!(
                    "write it as on_failure = {{ bucket = \"{text}\" }}"
                )),
        );
        return OnFailure::Fail;
    }
    let words = [("fail", OnFailure::Fail), ("continue", OnFailure::Continue)];
    value_or(section.choice("on_failure", &words), OnFailure::Fail)
}

fn serial_width(reader: &Reader<'_>, section: &mut Section<'_>, has_serial_by: bool) -> u32 {
    let place = section.place_of("serial_width");
    let width = section.number("serial_width", 1..=CONCURRENCY_MAX);
    if let Some(place) = place.filter(|_| !has_serial_by && width.is_some()) {
        reader.sink.push(
            Diagnostic::error("`serial_width` goes with `serial_by`")
                .at(&place, "so many alike at once, but alike in what?")
                .help("add serial_by = \"key\" (or group, session), or leave it out"),
        );
    }
    value_or(width, 1)
}

fn program(
    reader: &Reader<'_>,
    name: &str,
    section: &mut Section<'_>,
    app: &Settings,
    code: &mut Code,
) -> FunctionProgram {
    let users = Users::one(&format!("function {}", quote(name)));
    let settings = Settings::read(reader, section, &users, true);
    let program = settings.program(reader, app, code, &section.place, &section.name);
    let mut config = app.config.clone();
    for (key, value) in settings.config {
        match config.iter_mut().find(|(known, _)| *known == key) {
            Some(pair) => pair.1 = value,
            None => config.push((key, value)),
        }
    }
    let writable = section.texts("writable", "/var/NAME").unwrap_or_default();
    let connect = section.numbers("connect", 1..=u16::MAX, 443);
    let private_memory = section.size("private_memory", MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX);
    let words = [
        ("values", Arguments::Values),
        ("keys_and_values", Arguments::KeysAndValues),
        ("keys", Arguments::Keys),
    ];
    FunctionProgram {
        program,
        symbol: symbol(reader, section).unwrap_or_else(|| name.to_owned()),
        config,
        environment: environment(reader, section),
        files: settings
            .files
            .or_else(|| app.files.clone())
            .unwrap_or_default(),
        writable: writable
            .iter()
            .map(|file| code::path(reader, file))
            .collect(),
        connect: connect.unwrap_or_default(),
        private_memory_bytes: private_memory.map(|size| size.value),
        arguments: value_or(section.choice("arguments", &words), Arguments::Values),
    }
}

/// An exported symbol, where one is given.
pub(super) fn symbol(reader: &Reader<'_>, section: &mut Section<'_>) -> Option<String> {
    let symbol = section.text("symbol", "NAME")?;
    let fits = (1..=SYMBOL_BYTES_MAX).contains(&symbol.value.len());
    if !fits || !symbol.value.bytes().all(|byte| byte.is_ascii_graphic()) {
        reader.sink.push(
            Diagnostic::error(format!("{} cannot be a symbol", quote(&symbol.value)))
                .at(&symbol.place, "not a symbol")
                .help(
                    "a symbol is the name in PHR_FUNCTION(name), 1 to 255 letters, digits and `_`",
                ),
        );
        return None;
    }
    Some(symbol.value)
}

/// `env`, and what `env_from` finds in this process's environment.
fn environment(reader: &Reader<'_>, section: &mut Section<'_>) -> Vec<(String, String)> {
    let whose = section.name.clone();
    let mut seen: HashMap<String, Place> = HashMap::new();
    let mut variables = Vec::new();
    let mut is_new = |name: &str, place: &Place| {
        let title = if name.is_empty() || name.contains(['=', '\0']) {
            format!("{} cannot be the name of a variable", quote(name))
        } else if let Some(first) = seen.insert(name.to_owned(), place.clone()) {
            reader.sink.push(
                Diagnostic::error(format!("{whose}: {} is set twice", quote(name)))
                    .at(place, "again")
                    .beside(&first, "first here")
                    .help("leave one of them out"),
            );
            return false;
        } else {
            return true;
        };
        let help = "a name is not empty and has no `=` and no zero byte";
        reader
            .sink
            .push(Diagnostic::error(title).at(place, "not a name").help(help));
        false
    };
    for pair in reader.pairs(section, "env") {
        if is_new(&pair.value.0, &pair.place) {
            variables.push(pair.value);
        }
    }
    for Placed { value: name, place } in section.texts("env_from", "NAME").unwrap_or_default() {
        if !is_new(&name, &place) {
            continue;
        }
        match std::env::var(&name) {
            Ok(value) => variables.push((name, value)),
            Err(error) => {
                let why = match error {
                    VarError::NotPresent => "is not set",
                    VarError::NotUnicode(_) => "is not UTF-8",
                };
                let title = format!("`env_from`: the variable {} {why}", quote(&name));
                reader.sink.push(
                    Diagnostic::warning(title)
                        .at(&place, "the function will not see it")
                        .help("set it where the node is started, or give it a value in `env`"),
                );
            }
        }
    }
    variables
}
