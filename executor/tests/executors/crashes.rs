//! How a process that dies is told of, and what is left of its output.

use pheromone_executor::protocol::OutputKind;
use pheromone_shm::message::ToExecutor;

use crate::Test;
use crate::harness::{AppBuilder, SESSION, library};

pub const TESTS: &[Test] = &[
    (
        "a_crash_is_told_with_its_cause_after_the_last_output",
        crashes,
    ),
    ("printed_lines_are_tagged_with_their_invocation", prints),
    ("an_invocation_prints_only_so_much", prints_much),
    (
        "nonsense_from_the_scheduler_ends_the_process_with_a_line",
        nonsense,
    ),
];

fn crashes() {
    let signal = |number: i32| (None, Some(number));
    let cases = [
        (
            "crash_abort",
            "abort",
            signal(libc::SIGABRT),
            "SIGABRT: it called abort()",
        ),
        (
            "crash_assert",
            "fail an assertion",
            signal(libc::SIGABRT),
            "SIGABRT: it called abort()",
        ),
        (
            "crash_null",
            "write to NULL",
            signal(libc::SIGSEGV),
            "SIGSEGV: writing address 0x0, NULL",
        ),
        (
            "crash_input",
            "write to an input",
            signal(libc::SIGSEGV),
            "in the read-only region of requests",
        ),
        (
            "crash_past_region",
            "write past the region",
            signal(libc::SIGSEGV),
            "in the read-only region of executor 2",
        ),
        ("crash_exit", "exit", (Some(7), None), ""),
        (
            "crash_stack",
            "recurse",
            signal(libc::SIGSEGV),
            "in its stack, which has overflowed",
        ),
        (
            "crash_divide",
            "divide",
            signal(libc::SIGFPE),
            "SIGFPE at 0x",
        ),
        (
            "crash_wild",
            "follow a wild pointer",
            signal(libc::SIGSEGV),
            if cfg!(target_arch = "x86_64") {
                "an address that no process can have"
            } else {
                "SIGSEGV"
            },
        ),
    ];
    let symbols: Vec<&str> = cases.iter().map(|case| case.0).collect();
    let mut world = AppBuilder::new(&library("crashes.c"), &symbols).start();
    for (function, (name, what, exit, cause)) in cases.into_iter().enumerate() {
        let mut executor = world.executor(1);
        let input = world.request(b"x");
        let dispatch = executor.dispatch_of(function as u16, 1);
        executor.send(&dispatch, &[input]);
        assert_eq!(world.exit_of(&executor), exit, "{name}");
        let lines = executor.lines();
        let of = |kind| {
            let text = lines.iter().filter(|(head, _)| head.kind == kind);
            text.map(|(_, text)| text.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(
            of(OutputKind::Stdout),
            [format!("about to {what}")],
            "{name}"
        );
        assert!(
            of(OutputKind::Stderr)[0].starts_with("really"),
            "{name}: {lines:?}"
        );
        assert!(
            of(OutputKind::Crash).concat().contains(cause),
            "{name}: {lines:?}"
        );
        assert_eq!(
            of(OutputKind::Crash).is_empty(),
            cause.is_empty(),
            "{name}: {lines:?}"
        );
        assert!(
            lines
                .iter()
                .all(|(head, _)| head.invocation == dispatch.invocation)
        );
    }
}

fn prints() {
    let mut world = AppBuilder::new(&library("crashes.c"), &["crash_kill", "prints"]).start();
    let mut executor = world.executor(0);
    let dispatch = executor.dispatch_of(1, 0);
    executor.run_dispatch(&dispatch, &[]).ok();
    let lines = executor.lines();
    let texts: Vec<_> = lines
        .iter()
        .map(|(head, text)| (head.kind, text.as_str()))
        .collect();
    assert_eq!(
        texts,
        [
            (OutputKind::Stdout, "one"),
            (OutputKind::Stdout, "two"),
            (OutputKind::Stdout, "three"),
            (OutputKind::Warn, "five 5"),
            (OutputKind::Warn, "six"),
            (OutputKind::Stderr, "four"),
        ]
    );
    for (head, _) in &lines {
        let tag = (head.session, head.invocation, head.function, head.dropped);
        assert_eq!(tag, (SESSION, dispatch.invocation, 1, 0));
    }
    assert_eq!(executor.raw(), "raw\n");
}

fn prints_much() {
    let mut app = AppBuilder::new(&library("crashes.c"), &["prints_much", "prints"]);
    app.program.log_bytes = 20_000;
    let mut world = app.start();
    let mut executor = world.executor(0);
    executor.run(0, &[]).ok();
    let lines = executor.texts(OutputKind::Stdout);
    assert_eq!(lines.len(), 20_000 / 101 + 1);
    assert!(
        lines
            .last()
            .expect("some")
            .starts_with("[output cut: more than 20000 bytes")
    );
    executor.run(1, &[]).ok();
    assert_eq!(executor.texts(OutputKind::Stdout), ["one", "two", "three"]);
}

fn nonsense() {
    let mut world = AppBuilder::new(&library("calls.c"), &["copy"]).start();
    type Nonsense = fn(&mut crate::harness::Executor);
    let cases: [(&str, Nonsense); 5] = [
        ("no function number 9", |executor| {
            let dispatch = executor.dispatch_of(9, 0);
            executor.send(&dispatch, &[]);
        }),
        ("region 4 has no 17000000 bytes at unit 0", |executor| {
            let dispatch = executor.dispatch_of(0, 1);
            executor.send(
                &dispatch,
                &[crate::harness::OwnedInput::new(4, 0, 17_000_000)],
            );
        }),
        ("region 5 has no 1 bytes", |executor| {
            let dispatch = executor.dispatch_of(0, 1);
            executor.send(&dispatch, &[crate::harness::OwnedInput::new(5, 0, 1)]);
        }),
        ("no bucket number 8", |executor| {
            let dispatch = executor.dispatch_of(0, 1);
            let mut input = crate::harness::OwnedInput::new(4, 0, 1);
            input.bucket = 8;
            executor.send(&dispatch, &[input]);
        }),
        ("answered what nobody asked", |executor| {
            executor.answer(&ToExecutor::Credit { granted: true });
        }),
    ];
    for (sentence, say) in cases {
        let mut executor = world.executor(2);
        say(&mut executor);
        assert_eq!(world.exit_of(&executor), (Some(70), None), "{sentence}");
        let words = executor.texts(OutputKind::Crash).concat();
        assert!(words.contains(sentence), "{words} for {sentence}");
    }
}
