//! Rerun rules with real processes: a source that sends nothing in time runs again, and what its
//! attempts send twice counts once.
#![forbid(unsafe_code)]

use pheromone_tests::{App, Finished};

const FUNCTIONS: &str = include_str!("../functions/reruns.c");

/// `source` is dealt the words of the input as tasks; a barrier gathers what it sends.
fn app_of(source: &str, rule: &str) -> App {
    let manifest = format!(
        r#"
[app]
name = "again"
entry = "deal"
source = ["functions.c"]
executors = {{ min = 2, max = 3 }}
isolation = "none"
session_timeout = "60s"

[functions.deal]
sends = ["tasks"]

[functions.{source}]
sends = ["results", "notes"]

[functions.note]
sends = []

[functions.finish]
sends = []

[[buckets.tasks.triggers]]
type = "immediate"
function = "{source}"

[[buckets.notes.triggers]]
type = "immediate"
function = "note"

[[buckets.results.triggers]]
type = "dynamic_group"
after = "{source}"
order = "key"
function = "finish"

[[buckets.results.reruns]]
function = "{source}"
timeout = "200ms"
{rule}
"#
    );
    App::with_functions(&manifest, FUNCTIONS)
}

fn notes(app: &App) -> Vec<String> {
    let notes = std::fs::read_to_string(app.path("notes.txt")).unwrap_or_default();
    let mut notes: Vec<_> = notes.lines().map(str::to_owned).collect();
    notes.sort();
    notes
}

#[track_caller]
fn answers(run: &Finished, lines: &[&str]) {
    assert_eq!(run.text().lines().collect::<Vec<_>>(), lines);
}

/// The published system remembers one call per session and runs that again: here each worker of the
/// fan-in that has failed, in whatever way, runs again, and nothing is counted twice.
#[test]
fn each_worker_of_a_fan_in_that_sends_nothing_runs_again_and_counts_once() {
    let app = app_of("source", "attempts = 3");
    let run = app.run_on("crashes fails fine hangs nothing");
    let run = run.arg("--strict").finish().exits(0);
    answers(
        &run,
        &[
            "crashes in attempt 2",
            "fails in attempt 2",
            "fine in attempt 1",
            "hangs in attempt 2",
            "nothing in attempt 2",
        ],
    );
    // Nine attempts have made a note each, under a name and under an automatic key.
    let (automatic, named) = (vec!["automatic"; 5], vec!["named"; 5]);
    assert_eq!(notes(&app), [automatic, named].concat());
}

#[test]
fn a_source_that_never_sends_fails_when_it_has_run_as_often_as_it_may() {
    let app = app_of("source", "attempts = 2");
    let run = app.run_on("always").finish().exits(1);
    run.complains(&["source", "`results`", "200ms", "attempt 2 of 2"]);
    assert_eq!(notes(&app), ["automatic", "named"]);
}

#[test]
fn success_without_an_object_is_enough_for_an_optional_rule() {
    let app = app_of("source", "attempts = 2\noptional = true");
    let run = app.run_on("always fine hangs").arg("--strict").finish();
    answers(&run.exits(0), &["fine in attempt 1", "hangs in attempt 2"]);
}

#[test]
fn beside_a_slow_attempt_another_one_runs_and_the_slow_one_is_cancelled() {
    let app = app_of("slow", "speculative = true");
    let run = app.run_on("a b").arg("--strict").finish().exits(0);
    answers(&run, &["a in attempt 2", "b in attempt 2"]);
}

#[test]
fn what_both_attempts_send_counts_once_and_the_first_to_succeed_decides() {
    let app = app_of("late", "speculative = true");
    let run = app.run_on("a").arg("--strict").finish().exits(0);
    answers(&run, &["late"]);
    assert_eq!(notes(&app), ["automatic", "named"]);
}
