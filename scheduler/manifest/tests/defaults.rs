//! What a manifest means where it says nothing, and that each field means what it says.

use std::path::Path;

use pheromone_core::spec::{
    AtEnd, Backoff, Entry, GroupClose, Isolation, Keep, Limits, NameMatch, OnFailure, Pool, Retain,
    Scope, SerialBy, TriggerKind, TriggerSpec,
};
use pheromone_manifest::{App, Arguments, Program, Purpose, ReadOptions, parse_with};

const SECOND: u64 = 1_000_000_000;
const MILLISECOND: u64 = 1_000_000;

fn app(text: &str) -> App {
    let options = ReadOptions {
        purpose: Purpose::Look,
        executors_max: Some(6),
    };
    parse_with(text, "app.toml", Path::new("/apps/one"), &options).unwrap_or_else(|d| panic!("{d}"))
}

const SMALL: &str = "[app]\nname = \"a\"\nentry = \"f\"\nlibrary = \"f.so\"\n[functions.f]\n";

/// An app with one trigger of these lines.
fn trigger(lines: &str) -> TriggerSpec {
    let head = "[[buckets.b.triggers]]\nfunction = \"f\"\n";
    let app = app(&format!("{SMALL}\n{head}{lines}"));
    app.spec.buckets[0].triggers[0].clone()
}

#[test]
fn the_manifest_of_the_manual_is_right_and_shows_the_default_limits() {
    let manual = include_str!("../../../docs/manifest.md");
    let (_, rest) = manual.split_once("```toml\n").expect("it begins");
    let (text, _) = rest.split_once("```").expect("it ends");
    let app = app(&format!("{text}\n[functions.count]\n[functions.audit]\n"));
    let limits = Limits {
        waiters: 8,
        ..Limits::default()
    };
    assert_eq!(app.spec.limits, limits);
}

#[test]
fn an_app_has_these_defaults() {
    let app = app(SMALL);
    let spec = &app.spec;
    assert_eq!(spec.name, "a");
    assert_eq!(spec.entry, Some(Entry::Function(0)));
    assert!(!spec.keep_request);
    assert_eq!(spec.memory_bytes, 1 << 30);
    assert_eq!(spec.executors, Pool { min: 1, max: 6 });
    assert!(app.executors_max_is_default && app.waiters_is_default);
    assert_eq!(spec.isolation, Isolation::Standard);
    assert_eq!(spec.weight, 1);
    assert!(!spec.response_required && !spec.cancel_on_disconnect && spec.continuation);
    assert_eq!(spec.session_timeout_ns, None);
    assert_eq!(spec.keep_results_ns, 60 * SECOND);
    assert!(spec.buckets.is_empty());
}

#[test]
fn limits_have_these_defaults() {
    let expected = Limits {
        sessions: 1_048_576,
        calls_waiting: 65_536,
        objects: 4_194_304,
        object_size_bytes: 1 << 30,
        inputs: 1_048_576,
        create_wait_ns: 0,
        forward_delay_ns: 50_000,
        // As many as executors.
        waiters: 6,
        dead_letters_bytes: 64 << 20,
        subscriber_buffer_bytes: 1 << 20,
        log_bytes: 1 << 20,
        cancel_grace_ns: 100 * MILLISECOND,
    };
    assert_eq!(app(SMALL).spec.limits, expected);
}

#[test]
fn objects_are_no_larger_than_the_memory() {
    let text = SMALL.replace("[functions.f]", "memory = \"64MiB\"\n[functions.f]");
    assert_eq!(app(&text).spec.limits.object_size_bytes, 64 << 20);
}

#[test]
fn executors_follow_the_machine_where_nothing_is_said() {
    let options = ReadOptions {
        purpose: Purpose::Look,
        executors_max: None,
    };
    let app = parse_with(SMALL, "app.toml", Path::new("/"), &options).expect("it is right");
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let left = if cores >= 3 { cores - 2 } else { cores - 1 };
    assert_eq!(usize::from(app.spec.executors.max), left.max(2));
    assert_eq!(app.spec.limits.waiters, app.spec.executors.max);
}

#[test]
fn min_above_the_default_max_raises_it() {
    let text = SMALL.replace("[functions.f]", "executors = { min = 9 }\n[functions.f]");
    assert_eq!(app(&text).spec.executors, Pool { min: 9, max: 9 });
}

#[test]
fn the_number_of_executors_can_be_set_from_outside() {
    let text = SMALL.replace("[functions.f]", "executors = { min = 4 }\n[functions.f]");
    let mut app = app(&text);
    app.set_executors_max(2);
    assert_eq!(app.spec.executors, Pool { min: 2, max: 2 });
    assert_eq!(app.spec.limits.waiters, 2);
}

#[test]
fn a_function_has_these_defaults() {
    let app = app(SMALL);
    let function = &app.spec.functions[0];
    assert_eq!(function.name, "f");
    assert!(function.next.is_empty() && function.calls.is_empty());
    assert_eq!(function.sends, None);
    assert_eq!(function.timeout_ns, None);
    assert_eq!(function.init_timeout_ns, 60 * SECOND);
    assert_eq!(function.attempts, 1);
    let backoff = Backoff {
        first_ns: 10 * MILLISECOND,
        max_ns: SECOND,
        jitter: 0.1,
    };
    assert_eq!(function.backoff, backoff);
    assert_eq!(function.on_failure, OnFailure::Fail);
    assert_eq!(function.max_concurrency, None);
    assert_eq!(function.priority, 0);
    assert_eq!((function.serial_by, function.serial_width), (None, 1));
    assert!(!function.durable);

    let code = &app.functions[0];
    assert_eq!(code.symbol, "f");
    assert!(code.config.is_empty() && code.environment.is_empty());
    assert!(code.files.is_empty() && code.writable.is_empty() && code.connect.is_empty());
    assert_eq!(code.private_memory_bytes, None);
    assert_eq!(code.arguments, Arguments::Values);
    assert_eq!(app.programs, [Program::Library("/apps/one/f.so".into())]);
}

#[test]
fn a_bucket_has_these_defaults() {
    let bucket = &app(&format!("{SMALL}[buckets.b]")).spec.buckets[0].clone();
    assert_eq!(
        (bucket.durable, bucket.keep, bucket.replace),
        (false, Keep::Session, true)
    );
    assert_eq!(bucket.retain, Retain::ForNs(0));
    assert!(bucket.triggers.is_empty() && bucket.reruns.is_empty());

    let durable = &app(&format!("{SMALL}[buckets.b]\ndurable = true"))
        .spec
        .buckets[0]
        .clone();
    assert_eq!(durable.retain, Retain::Forever);
    let text = format!("{SMALL}[buckets.b]\ndurable = true\nretain = \"1h\"");
    assert_eq!(
        app(&text).spec.buckets[0].retain,
        Retain::ForNs(3600 * SECOND)
    );
}

#[test]
fn reruns_have_these_defaults() {
    let text = format!("{SMALL}[[buckets.b.reruns]]\nfunction = \"f\"\ntimeout = \"5ms\"");
    let rerun = app(&text).spec.buckets[0].reruns[0];
    assert_eq!(
        (rerun.function, rerun.timeout_ns, rerun.attempts),
        (0, 5 * MILLISECOND, 3)
    );
    assert!(!rerun.speculative && !rerun.optional);
}

#[test]
fn a_trigger_is_named_by_its_type_and_number() {
    let more = "[[buckets.b.triggers]]\nfunction = \"f\"\ntype = \"by_name\"\nkey = \"k\"\n";
    let head = "[[buckets.b.triggers]]\nfunction = \"f\"\ntype = \"immediate\"\n";
    let triggers = app(&format!("{SMALL}{head}{more}")).spec.buckets[0]
        .triggers
        .clone();
    assert_eq!(triggers[0].name, "immediate-0");
    assert_eq!(triggers[1].name, "by_name-1");
    assert_eq!(trigger("type = \"immediate\"\nname = \"go\"").name, "go");
}

#[test]
fn immediate_and_by_name_take_each_object() {
    let immediate = trigger("type = \"immediate\"");
    assert_eq!(immediate.kind, TriggerKind::Immediate);
    assert_eq!(
        (immediate.scope, immediate.skip_ended),
        (Scope::Session, false)
    );
    assert_eq!(immediate.functions, [0]);
    let key = trigger("type = \"by_name\"\nkey = \"k\"").kind;
    assert_eq!(key, TriggerKind::ByName(NameMatch::Key("k".into())));
    let pattern = trigger("type = \"by_name\"\npattern = \"a/*.{txt,md}\"").kind;
    assert_eq!(
        pattern,
        TriggerKind::ByName(NameMatch::Pattern("a/*.{txt,md}".into()))
    );
}

#[test]
fn by_set_fails_its_session_and_writes_ranges_out() {
    let set = trigger("type = \"by_set\"\nkeys = [\"first\", \"p-{08..11}\", \"last\"]");
    let keys = ["first", "p-08", "p-09", "p-10", "p-11", "last"]
        .map(String::from)
        .to_vec();
    assert_eq!(set.kind, TriggerKind::BySet { keys });
    assert_eq!((set.scope, set.at_end), (Scope::Session, AtEnd::Fail));
}

#[test]
fn by_batch_size_gathers_across_sessions() {
    let batch = trigger("type = \"by_batch_size\"\ncount = 64");
    let kind = TriggerKind::ByBatchSize {
        count: 64,
        linger_ns: None,
        per_group: false,
    };
    assert_eq!((batch.kind, batch.scope), (kind, Scope::Bucket));

    let session = trigger("type = \"by_batch_size\"\ncount = 64\nscope = \"session\"");
    assert_eq!(
        (session.scope, session.at_end),
        (Scope::Session, AtEnd::Fire)
    );

    let lines = "type = \"by_batch_size\"\ncount = 2\nscope = \"session\"\nlinger = \"10ms\"\n\
                 per = \"group\"";
    let lingering = trigger(lines);
    assert_eq!(lingering.at_end, AtEnd::Wait);
    let linger_ns = Some(10 * MILLISECOND);
    assert_eq!(
        lingering.kind,
        TriggerKind::ByBatchSize {
            count: 2,
            linger_ns,
            per_group: true
        }
    );
}

#[test]
fn by_time_slides_by_its_window_and_waits() {
    let time = trigger("type = \"by_time\"\nwindow = \"1s\"");
    let kind = TriggerKind::ByTime {
        window_ns: SECOND,
        slide_ns: SECOND,
        fire_empty: false,
        per_group: false,
    };
    assert_eq!(
        (time.kind, time.scope, time.skip_ended),
        (kind, Scope::Bucket, false)
    );
    let session = trigger("type = \"by_time\"\nwindow = \"1s\"\nscope = \"session\"");
    assert_eq!(
        (session.scope, session.at_end),
        (Scope::Session, AtEnd::Wait)
    );
    let lines = "type = \"by_time\"\nwindow = \"1024us\"\nslide = \"1us\"\nskip_ended = true";
    assert!(trigger(lines).skip_ended);
}

#[test]
fn redundant_gathers_per_session_and_fails_it() {
    let at_run_time = trigger("type = \"redundant\"");
    assert_eq!(
        (at_run_time.scope, at_run_time.at_end),
        (Scope::Session, AtEnd::Fail)
    );
    let kind = TriggerKind::Redundant {
        k_of_n: None,
        cancel_rest: vec![],
        expire_ns: None,
    };
    assert_eq!(at_run_time.kind, kind);
    let kind = |cancel_rest, expire_ns| TriggerKind::Redundant {
        k_of_n: Some((2, 3)),
        cancel_rest,
        expire_ns,
    };
    let lines = "type = \"redundant\"\nk = 2\nn = 3\ncancel_rest = [\"f\"]";
    assert_eq!(trigger(lines).kind, kind(vec![0], None));
    let lines = "type = \"redundant\"\nk = 2\nn = 3\nscope = \"bucket\"\nexpire = \"1m\"";
    assert_eq!(trigger(lines).kind, kind(vec![], Some(60 * SECOND)));
}

#[test]
fn dynamic_triggers_are_told_at_run_time() {
    let join = trigger("type = \"dynamic_join\"");
    assert_eq!(
        (join.kind, join.at_end),
        (TriggerKind::DynamicJoin, AtEnd::Fail)
    );
    let group = |lines: &str| trigger(&format!("type = \"dynamic_group\"\n{lines}"));
    let kind = |close, fire_empty, order_by_key| TriggerKind::DynamicGroup {
        close,
        fire_empty,
        order_by_key,
    };
    assert_eq!(
        group("").kind,
        kind(GroupClose::SourcesAtRunTime, false, false)
    );
    assert_eq!(group("").at_end, AtEnd::Fail);
    assert_eq!(
        group("sources = 7").kind,
        kind(GroupClose::Sources(7), false, false)
    );
    let after = group("after = \"f\"\nfire_empty = true\norder = \"key\"").kind;
    assert_eq!(after, kind(GroupClose::After(0), true, true));
}

#[test]
fn custom_drops_what_is_left_and_has_100_ms() {
    let text = format!(
        "{SMALL}[[buckets.b.triggers]]\nfunction = \"f\"\ntype = \"immediate\"\n\
         [[buckets.b.triggers]]\nfunction = \"f\"\ntype = \"custom\"\nsymbol = \"decide\"\n"
    );
    let app = app(&text);
    let custom = &app.spec.buckets[0].triggers[1];
    let kind = TriggerKind::Custom {
        config: vec![],
        timeout_ns: 100 * MILLISECOND,
        keep: false,
    };
    assert_eq!(
        (&custom.kind, custom.scope, custom.at_end),
        (&kind, Scope::Session, AtEnd::Drop)
    );
    let code = &app.custom_triggers[0];
    assert_eq!(
        (code.bucket, code.trigger, code.symbol.as_str()),
        (0, 1, "decide")
    );
    // The app's library, as its functions have.
    assert_eq!(code.program, app.functions[0].program);
}

#[test]
fn every_field_of_a_function_is_read() {
    let app = app(
        "[app]\nname = \"a\"\nentry = { bucket = \"b\" }\nsource = [\"all.c\"]\n\
         cflags = [\"-g\"]\nlink = [\"m\"]\ninclude = [\"inc\"]\nfiles = [\"/usr/share/a\"]\n\
         config = { model = \"a.bin\", size = 3 }\n\
         [functions.f]\nsource = [\"f.c\", \"sub/g.cpp\"]\nsymbol = \"run\"\nnext = [\"g\"]\n\
         calls = [\"f\", \"g\"]\nsends = [\"b\"]\ntimeout = \"5s\"\ninit_timeout = \"1s\"\n\
         attempts = 3\nbackoff = \"1ms\"\nbackoff_max = \"2s\"\njitter = 0\n\
         on_failure = { bucket = \"b\" }\nmax_concurrency = 4\npriority = -8\nserial_by = \"group\"\n\
         serial_width = 2\ndurable = true\nprivate_memory = \"256MiB\"\n\
         config = { model = \"b.bin\", on = true, rate = 1.5 }\nenv = { K = \"V\" }\n\
         env_from = [\"PATH\"]\nfiles = [\"data\"]\nwritable = [\"/var/out\"]\nconnect = [443, 5432]\narguments = \"keys\"\n\
         [functions.g]\n[functions.h]\ncflags = [\"-g\"]\n[functions.i]\nlink = []\n\
         [buckets.b]\nretain = \"1s\"\nkeep = \"until_consumed\"\nreplace = false\n",
    );
    assert_eq!(app.spec.entry, Some(Entry::Bucket(0)));
    let function = &app.spec.functions[0];
    assert_eq!((&function.next, &function.calls), (&vec![1], &vec![0, 1]));
    assert_eq!(function.sends, Some(vec![0]));
    assert_eq!(function.timeout_ns, Some(5 * SECOND));
    assert_eq!(function.init_timeout_ns, SECOND);
    let backoff = Backoff {
        first_ns: MILLISECOND,
        max_ns: 2 * SECOND,
        jitter: 0.0,
    };
    assert_eq!((function.attempts, function.backoff), (3, backoff));
    assert_eq!(function.on_failure, OnFailure::Bucket(0));
    assert_eq!((function.max_concurrency, function.priority), (Some(4), -8));
    assert_eq!(
        (function.serial_by, function.serial_width),
        (Some(SerialBy::Group), 2)
    );
    assert!(function.durable);

    let code = &app.functions[0];
    assert_eq!(code.symbol, "run");
    let pairs = [
        ("model", "b.bin"),
        ("size", "3"),
        ("on", "true"),
        ("rate", "1.5"),
    ];
    assert_eq!(
        code.config,
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned()))
    );
    assert_eq!(code.environment[0], ("K".to_owned(), "V".to_owned()));
    let path = std::env::var("PATH").expect("tests have a PATH");
    assert_eq!(code.environment[1], ("PATH".to_owned(), path));
    assert_eq!(code.files, [Path::new("/apps/one/data")]);
    assert_eq!(code.writable, [Path::new("/var/out")]);
    assert_eq!(code.connect, [443, 5432]);
    assert_eq!(code.private_memory_bytes, Some(256 << 20));
    assert_eq!(code.arguments, Arguments::Keys);
    assert_eq!(app.functions[1].files, [Path::new("/usr/share/a")]);

    // f has sources of its own; g and h build alike and share a program; i does not link libm.
    let programs: Vec<_> = app.functions.iter().map(|code| code.program).collect();
    assert_eq!(programs, [0, 1, 1, 2]);
    let Program::Sources(sources) = &app.programs[0] else {
        panic!("f is compiled")
    };
    assert_eq!(
        sources.files,
        [Path::new("/apps/one/f.c"), Path::new("/apps/one/sub/g.cpp")]
    );
    assert_eq!((sources.cflags.len(), sources.link.len()), (1, 1));
    assert_eq!(sources.include, [Path::new("/apps/one/inc")]);
    assert_eq!(app.functions_of(1).collect::<Vec<_>>(), ["g", "h"]);

    let bucket = &app.spec.buckets[0];
    assert_eq!(
        (bucket.retain, bucket.keep),
        (Retain::ForNs(SECOND), Keep::UntilConsumed)
    );
    assert!(!bucket.replace);
}

#[test]
fn every_field_of_an_app_is_read() {
    let app = app(
        "[app]\nname = \"a-1\"\nentry = \"f\"\nlibrary = \"/lib/f.so\"\nkeep_request = true\n\
         memory = 4194304\nexecutors = { min = 2, max = 3 }\nisolation = \"strict\"\nweight = 7\n\
         response = \"required\"\nsession_timeout = \"30s\"\non_disconnect = \"cancel\"\n\
         keep_results = \"0s\"\ncontinuation = false\n\
         [app.limits]\nsessions = 1\ncalls_waiting = 2\nobjects = 3\nobject_size = \"64KiB\"\n\
         inputs = 5\ncreate_wait = \"1s\"\nforward_delay = \"0s\"\nwaiters = 8\n\
         dead_letters = 9\nsubscriber_buffer = 10\nlog = 11\ncancel_grace = \"12ns\"\n\
         [functions.f]\n",
    );
    let spec = &app.spec;
    assert!(spec.keep_request && spec.response_required && spec.cancel_on_disconnect);
    assert!(!spec.continuation);
    assert_eq!((spec.memory_bytes, spec.weight), (4 << 20, 7));
    assert_eq!(spec.executors, Pool { min: 2, max: 3 });
    assert_eq!(spec.isolation, Isolation::Strict);
    assert_eq!(
        (spec.session_timeout_ns, spec.keep_results_ns),
        (Some(30 * SECOND), 0)
    );
    let limits = Limits {
        sessions: 1,
        calls_waiting: 2,
        objects: 3,
        object_size_bytes: 65_536,
        inputs: 5,
        create_wait_ns: SECOND,
        forward_delay_ns: 0,
        waiters: 8,
        dead_letters_bytes: 9,
        subscriber_buffer_bytes: 10,
        log_bytes: 11,
        cancel_grace_ns: 12,
    };
    assert_eq!(spec.limits, limits);
    assert!(!app.executors_max_is_default && !app.waiters_is_default);
    assert_eq!(app.programs, [Program::Library("/lib/f.so".into())]);
}

#[test]
fn what_a_small_manifest_says_is_valid_for_the_core() {
    let app = app(&format!("{SMALL}[buckets.b]\n"));
    assert_eq!(app.spec.validate(), Ok(()));
}
