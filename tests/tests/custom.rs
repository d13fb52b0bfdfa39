//! Custom triggers, with real processes: what their code decides, what becomes of what it held when
//! it crashes, hangs or fails, and what it is told of sessions and time.
#![forbid(unsafe_code)]

use std::fs;

use pheromone_tests::{App, Command, Finished};

const FUNCTIONS: &str = include_str!("../functions/custom.c");

/// `sends` fills bucket `b`, whose custom trigger, this symbol, fires `takes`.
fn app(symbol: &str, fields: &str) -> App {
    let manifest = format!(
        r#"
[app]
name = "custom"
entry = "sends"
source = ["functions.c"]
isolation = "none"
executors = {{ min = 1, max = 1 }}

[functions.sends]
[functions.takes]

[buckets.b]
keep = "until_consumed"

[[buckets.b.triggers]]
name = "decider"
type = "custom"
symbol = "{symbol}"
function = "takes"
config = {{ bytes = 5 }}
{fields}
"#
    );
    App::with_functions(&manifest, FUNCTIONS)
}

fn taken(app: &App) -> Vec<String> {
    let text = fs::read_to_string(app.path("taken")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// A run that ends by its deadline instead of hanging.
fn with_deadline(run: Command) -> Finished {
    run.args(["--timeout", "60s"]).finish()
}

#[test]
fn it_fires_when_the_sizes_of_what_has_come_pass_a_threshold_and_the_rest_at_the_end() {
    let app = app("sums", "");
    with_deadline(app.run_on("6").arg("--strict")).exits(0);
    // 0 + 1 + 2 + 3 >= 5, then 4 + 5 >= 5.
    assert_eq!(taken(&app), ["o0 o1 o2 o3", "o4 o5"]);
    with_deadline(app.run_on("2")).exits(0);
    assert_eq!(taken(&app)[2..], ["o0 o1"]);
}

#[test]
fn a_session_of_many_objects_is_decided_about_in_several_calls() {
    let app = app("sums", "");
    with_deadline(app.run_on("60")).exits(0);
    let all: Vec<String> = (0..60).map(|i| format!("o{i}")).collect();
    assert_eq!(taken(&app).join(" "), all.join(" "));
}

#[test]
fn after_a_crash_its_state_is_built_again_from_what_is_pending() {
    let app = app("crashes", "");
    let run = with_deadline(app.run_on("4")).exits(0);
    run.complains(&["about to crash", "died"]);
    assert_eq!(taken(&app), ["o0 o1 o2 o3"]);
}

#[test]
fn one_that_hangs_is_killed_at_its_timeout_and_a_fresh_one_goes_on() {
    let app = app("hangs", "timeout = \"200ms\"");
    with_deadline(app.run_on("3")).exits(0);
    assert_eq!(taken(&app), ["o0 o1 o2"]);
}

#[test]
fn one_that_always_fails_fails_the_session_and_is_named_with_its_reason() {
    let app = app("fails", "");
    let run = with_deadline(app.run_on("3")).exits(1);
    run.complains(&[
        "trigger `decider` of bucket `b` failed 3 times in a row: it returned 5",
        "nothing works here",
    ]);
    assert!(taken(&app).is_empty());
}

#[test]
fn a_session_without_objects_of_its_does_not_need_it() {
    let app = app("fails", "");
    with_deadline(app.run_on("0")).exits(0);
}

#[test]
fn it_is_called_at_the_time_that_it_asks_for_while_its_session_is_open() {
    let app = app("ticks", "at_end = \"fail\"");
    // Nothing but the tick fires, and it does not hold the session open.
    let run = with_deadline(app.run_on("2")).exits(1);
    run.complains(&[
        "waiting for: trigger `decider` of bucket `b` has neither fired nor dropped 2 objects",
    ]);
}

#[test]
fn with_keep_an_object_fires_again_and_again_until_it_is_dropped() {
    let app = app("keeps", "keep = true\nat_end = \"fail\"");
    with_deadline(app.run_on("3")).exits(0);
    assert_eq!(taken(&app), ["o0", "o0 o1", "o0 o1 o2"]);
}

#[test]
fn what_it_answers_wrongly_is_refused_at_once() {
    let app = app("checks", "");
    with_deadline(app.run_on("4").arg("--strict")).exits(0);
    assert_eq!(taken(&app), ["o0", "o1", "o2", "o3"]);
}

#[test]
fn a_symbol_that_is_no_trigger_is_found_before_anything_runs() {
    for (symbol, sentence) in [
        (
            "absent",
            "has no symbol `absent`: define it by PHR_TRIGGER(absent)",
        ),
        (
            "takes",
            "`takes` is a function, and a custom trigger is wanted: see PHR_TRIGGER",
        ),
    ] {
        let app = app(symbol, "");
        let check = app.command(["check", "app.toml"]).finish().exits(1);
        check.complains(&["trigger `decider`", sentence]);
        let run = with_deadline(app.run_on("1")).exits(2);
        run.complains(&[sentence]);
    }
    app("sums", "")
        .command(["check", "app.toml"])
        .finish()
        .exits(0);
}

#[test]
fn its_code_is_compiled_from_a_source_of_its_own() {
    let mut other = String::from("#include <pheromone.h>\n");
    other += "PHR_TRIGGER(own) {\n    for (size_t i = 0; i < count; i++)\n";
    other += "        if (events[i].kind == PHR_EV_OBJECT)\n";
    other += "            phr_fire(t, NULL, &events[i].object, 1);\n    return 0;\n}\n";
    let app = app("own", "source = [\"own.c\"]").file("own.c", &other);
    with_deadline(app.run_on("2")).exits(0);
    assert_eq!(taken(&app), ["o0", "o1"]);
    let app = app.file(
        "own.c",
        "#include <pheromone.h>\nPHR_TRIGGER(own) { return no; }\n",
    );
    let check = app.command(["check", "app.toml"]).finish().exits(1);
    check.complains(&["trigger `decider`: ", "own.c"]);
}
