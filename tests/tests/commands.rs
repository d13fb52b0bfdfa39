//! The commands beside `run` and `serve`: check, graph, new, build, invoke, bench, and how all of
//! them answer to being used wrongly.
#![forbid(unsafe_code)]

use std::fs;

use pheromone_tests::App;
use serde_json::Value;

#[test]
fn help_and_version_are_there_for_every_command() {
    let app = App::new("");
    app.command(["--version"]).finish().exits(0);
    let help = app.command(["--help"]).finish().exits(0).text();
    let commands = [
        "run",
        "invoke",
        "check",
        "graph",
        "new",
        "build",
        "serve",
        "deploy",
        "remove",
        "call",
        "put",
        "cancel",
        "ps",
        "dead-letters",
        "bench",
    ];
    for command in commands {
        assert!(help.contains(command), "no {command} in:\n{help}");
        let own = app.command([command, "--help"]).finish().exits(0).text();
        assert!(own.contains("Usage"), "{own}");
    }
}

#[test]
fn a_wrong_usage_is_2_and_says_what_is_right() {
    let app = App::new("");
    app.command(["rum"]).finish().exits(2).complains(&["run"]);
    app.command(["run"]).finish().exits(2);
    app.command(["run", "app.toml", "--no-such-option"])
        .finish()
        .exits(2);
    app.command(["run", "app.toml", "--repeat", "none"])
        .finish()
        .exits(2);
    app.command(["run", "app.toml", "--timeout", "soon"])
        .finish()
        .exits(2);
    let nothing: [&str; 0] = [];
    app.command(nothing).finish().exits(2);
}

#[test]
fn check_finds_nothing_wrong_with_the_examples() {
    for example in [
        "wordcount",
        "chain",
        "tiles",
        "join",
        "groups",
        "redundant",
        "failures",
        "custom",
        "batch",
        "window",
    ] {
        let app = App::example(example);
        let run = app.command(["check", "app.toml"]).finish().exits(0);
        assert!(!run.stderr.contains("error"), "{}", run.stderr);
    }
}

#[test]
fn check_prints_all_that_is_wrong_at_once_and_exits_1() {
    let app = App::new(
        r#"[app]
name = "broken"
entry = "splitt"
sesion_timeout = "5s"

[functions.split]
library = "absent.so"
timeout = "5 parsecs"
next = ["nowhere"]
"#,
    );
    let run = app.command(["check", "app.toml"]).finish().exits(1);
    let all = run.text() + &run.stderr;
    for text in [
        "app.toml:3",
        "splitt",
        "split",
        "app.toml:4",
        "session_timeout",
        "app.toml:8",
        "5 parsecs",
        "app.toml:9",
        "nowhere",
        "^",
    ] {
        assert!(all.contains(text), "no {text:?} in:\n{all}");
    }
}

#[test]
fn check_of_the_host_lists_what_it_offers() {
    let app = App::new("");
    let text = app.command(["check", "--host"]).finish().exits(0).text();
    for what in ["memfd", "seccomp", "io_uring", "tmpfs"] {
        assert!(text.contains(what), "no {what} in:\n{text}");
    }
}

#[test]
fn graph_draws_in_every_format() {
    let app = App::example("wordcount");
    let formats = [
        ("text", "merge"),
        ("dot", "digraph"),
        ("mermaid", "flowchart"),
        ("svg", "<svg"),
    ];
    for (format, sign) in formats {
        let run = app
            .command(["graph", "app.toml", "--format", format])
            .finish()
            .exits(0);
        let text = run.text();
        assert!(text.contains(sign), "no {sign} in:\n{text}");
        for name in ["split", "count", "merge", "parts", "counts"] {
            assert!(text.contains(name), "no {name} in:\n{text}");
        }
    }
}

#[test]
fn build_compiles_once_and_again_when_the_source_has_changed() {
    let app = App::example("chain");
    app.command(["build", "app.toml"]).finish().exits(0);
    app.run()
        .args(["--arg", "3"])
        .finish()
        .exits(0)
        .prints("3\n");
    let source = fs::read_to_string(app.path("chain.c")).expect("the source");
    let app = app.file("chain.c", source + "\n#error \"changed\"\n");
    app.command(["build", "app.toml"])
        .finish()
        .exits(2)
        .complains(&["chain.c", "changed"]);
}

#[test]
fn invoke_runs_one_function_alone_and_lists_what_it_published() {
    let app = App::example("wordcount");
    let run = app.command(["invoke", "app.toml", "split", "--input", "alice29.txt"]);
    let run = run.finish().exits(0);
    let text = run.text() + &run.stderr;
    for part in ["part-0", "part-7", "parts"] {
        assert!(text.contains(part), "no {part} in:\n{text}");
    }
    let run = app.command([
        "invoke",
        "app.toml",
        "split",
        "--arg",
        "two words",
        "--json",
    ]);
    let text = run.finish().exits(0).text();
    assert!(text.contains("part-0"), "no part-0 in:\n{text}");
}

#[test]
fn invoke_lets_a_function_steer_the_triggers_that_it_names() {
    let app = App::example("join");
    let run = app.command(["invoke", "app.toml", "split", "--input", "poems.txt"]);
    let run = run.finish().exits(0);
    let text = run.text() + &run.stderr;
    assert_eq!(text.matches("poem-").count(), 6, "{text}");
    // A join of nothing fires, and starts nothing of the app's.
    let run = app.command(["invoke", "app.toml", "split", "--arg", "prose"]);
    let run = run.finish().exits(0);
    let text = run.text() + &run.stderr;
    assert!(!text.contains("poem-"), "{text}");
}

#[test]
fn bench_chain_measures_hops_and_the_floor() {
    let app = App::new("");
    let run = app.command(["bench", "chain", "--json", "chain.json"]);
    let run = run.args(["--length", "50", "--sessions", "2", "--repetitions", "1"]);
    let text = run.finish().exits(0).text();
    for what in ["p50", "p99", "bare round trip"] {
        assert!(text.contains(what), "no {what} in:\n{text}");
    }
    let json = fs::read(app.path("chain.json")).expect("the file of --json");
    let json: Value = serde_json::from_slice(&json).expect("JSON");
    assert!(json.to_string().contains("bare round trip"), "{json}");
}

#[test]
fn bench_pair_measures_an_exchange_of_any_size() {
    let app = App::new("");
    let run = app.command(["bench", "pair", "--size", "65536"]);
    let run = run.args([
        "--handovers",
        "100",
        "--warm-up",
        "10",
        "--repetitions",
        "1",
    ]);
    let text = run.finish().exits(0).text();
    // On a machine whose cores move, the only repetition may be left out, and said to be.
    let measured = text.contains("p50") && text.contains("memcpy");
    assert!(measured || text.contains("moved"), "{text}");
}

#[test]
fn run_tells_statistics_as_a_table_and_as_json() {
    let app = App::example("chain");
    let run = app.run().args(["--arg", "10", "--stats"]).finish().exits(0);
    assert!(run.stderr.contains("sessions"), "{}", run.stderr);
    let run = app
        .run()
        .args(["--arg", "10", "--stats", "--json"])
        .finish()
        .exits(0);
    assert!(run.stderr.contains('{'), "{}", run.stderr);
}

#[test]
fn run_puts_into_buckets_and_gets_from_them() {
    let app = App::with_functions(
        r#"
[app]
name = "puts"
source = ["functions.c"]
isolation = "none"

[functions.doubles]

[buckets.numbers]
[[buckets.numbers.triggers]]
type = "immediate"
function = "doubles"

[buckets.doubled]
"#,
        r#"
#include "check.h"
PHR_FUNCTION(doubles)
{
    char text[32];
    snprintf(text, sizeof text, "%ld", 2 * number_in(phr_input(ctx, 0)));
    OK(phr_put(ctx, "doubled", phr_key(phr_input(ctx, 0)), text, strlen(text)));
    return phr_respond_data(ctx, text, strlen(text));
}
"#,
    )
    .file("number", "21");
    let run = app.run().args(["--put", "numbers", "n", "number"]).finish();
    run.exits(0).prints("42");
}

#[test]
fn without_a_terminal_there_are_no_colours() {
    let app = App::new("[app]\nnam = \"x\"\n");
    let run = app.command(["check", "app.toml"]).finish().exits(1);
    let all = run.text() + &run.stderr;
    assert!(
        !all.contains('\u{1b}'),
        "escape sequences without a terminal: {all:?}"
    );
}
