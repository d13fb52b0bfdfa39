//! Triggers that gather, with real processes: batches and windows by the clock, the first k of n,
//! joins whose branches are known only at run time, groups and barriers, and attempts after a
//! failure.
#![forbid(unsafe_code)]

use std::fs;

use pheromone_tests::{App, Command, Finished};

const FUNCTIONS: &str = include_str!("../functions/triggers.c");

/// An app of these functions and buckets, with up to seven executors: rounds need their stragglers
/// to run all at once.
fn app_of(entry: &str, rest: &str) -> App {
    let manifest = format!(
        r#"
[app]
name = "triggers"
entry = "{entry}"
source = ["functions.c"]
executors = {{ min = 2, max = 7 }}
isolation = "none"

[app.limits]
cancel_grace = "1m"
{rest}
"#
    );
    App::with_functions(&manifest, FUNCTIONS)
}

/// What the functions have noted, line by line.
fn notes(app: &App, file: &str) -> Vec<String> {
    let text = fs::read_to_string(app.path(file)).expect("the functions have left their notes");
    text.lines().map(str::to_owned).collect()
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

/// A run that ends by its deadline instead of hanging.
fn with_deadline(run: Command) -> Finished {
    run.args(["--timeout", "60s"]).finish()
}

// ------------------------------------------------------------------------- batches and windows

fn drops(entry: &str, function: &str, trigger: &str) -> App {
    app_of(
        entry,
        &format!(
            r#"
[functions.{entry}]
[functions.{function}]

[[buckets.drops.triggers]]
function = "{function}"
scope = "session"
{trigger}
"#
        ),
    )
}

#[test]
fn a_batch_that_is_not_full_fires_when_its_oldest_object_has_lingered() {
    let trigger = "type = \"by_batch_size\"\ncount = 2\nlinger = \"300ms\"";
    let app = drops("drips", "takes_a_batch", trigger);
    with_deadline(app.run_on("x")).exits(0);
    assert_eq!(sorted(notes(&app, "taken")), ["a b", "c"]);
}

#[test]
fn a_batch_without_linger_fires_with_the_rest_when_its_session_is_quiet() {
    let trigger = "type = \"by_batch_size\"\ncount = 1000";
    let app = drops("drips", "takes_a_batch", trigger);
    with_deadline(app.run_on("x")).exits(0);
    assert_eq!(notes(&app, "taken"), ["a b c"]);
}

#[test]
fn a_window_fires_by_the_clock_though_nothing_comes_after_its_last_object() {
    let trigger = "type = \"by_time\"\nwindow = \"200ms\"";
    let app = drops("drips", "takes_a_window", trigger);
    with_deadline(app.run_on("x")).exits(0);
    // On a machine that stood still in between, the three may lie in several windows.
    assert_eq!(notes(&app, "taken").join(" "), "a b c");
}

#[test]
fn each_group_has_its_own_firing_of_a_window() {
    let trigger = "type = \"by_time\"\nwindow = \"200ms\"\nper = \"group\"";
    let app = drops("drips_in_groups", "takes_a_window", trigger);
    with_deadline(app.run_on("x")).exits(0);
    let taken = sorted(notes(&app, "taken"));
    assert!(taken.iter().any(|keys| keys == "b"), "{taken:?}");
    assert!(!taken.iter().any(|keys| keys.contains("a b")), "{taken:?}");
    assert_eq!(
        taken.join(" ").split(' ').count(),
        3,
        "each object once: {taken:?}"
    );
}

// ------------------------------------------------------------------------------------- rounds

/// `enough` on bucket `answers` starts `adds_answers`.
fn rounds(entry: &str, trigger: &str, rest: &str) -> App {
    app_of(
        entry,
        &format!(
            r#"
[functions.{entry}]
[functions.adds_answers]
config = {{ stragglers = 3 }}

[[buckets.answers.triggers]]
name = "enough"
type = "redundant"
function = "adds_answers"
{trigger}
{rest}
"#
        ),
    )
}

#[test]
fn the_first_two_of_five_are_enough_and_the_stragglers_see_that_they_are_cancelled() {
    let app = rounds(
        "asks_replicas",
        "k = 2\nn = 5\ncancel_rest = [\"replica\"]",
        r#"
[functions.replica]

[buckets.asked]
keep = "until_consumed"
[[buckets.asked.triggers]]
type = "immediate"
function = "replica"
"#,
    );
    with_deadline(app.run_on("x")).exits(0).prints("42");
    assert_eq!(notes(&app, "cancelled").len(), 3);
}

#[test]
fn stragglers_that_do_not_look_are_killed_and_fail_nothing() {
    let manifest = r#"
[app]
name = "stubborn"
entry = "asks_replicas"
source = ["functions.c"]
executors = { min = 6, max = 6 }
isolation = "none"

[functions.asks_replicas]
[functions.stubborn_replica]
[functions.adds_answers]

[buckets.asked]
[[buckets.asked.triggers]]
type = "immediate"
function = "stubborn_replica"

[buckets.answers]
[[buckets.answers.triggers]]
type = "redundant"
k = 1
n = 5
cancel_rest = ["stubborn_replica"]
function = "adds_answers"
"#;
    let app = App::with_functions(manifest, FUNCTIONS);
    // The second session needs executors in the place of those that were killed.
    let run = app.run_on("x").args(["--repeat", "2", "--strict"]);
    let run = with_deadline(run).exits(0).prints("42");
    run.complains(&["did not stop when it was told to"]);
}

/// Without stragglers to wait for.
fn answers(entry: &str, trigger: &str) -> App {
    let app = rounds(entry, trigger, "");
    app.file("cancelled", "x\nx\nx\n")
}

#[test]
fn what_comes_after_the_kth_is_dropped_and_past_the_nth_an_error_event() {
    let app = answers("answers_four_times", "k = 2\nn = 3");
    let run = with_deadline(app.run_on("x")).exits(0).prints("3");
    run.complains(&["answers", "came after all 3 of its round"]);
    let app = answers("answers_four_times", "k = 2\nn = 4");
    with_deadline(app.run_on("x").arg("--strict"))
        .exits(0)
        .prints("3");
}

#[test]
fn a_round_of_which_too_few_come_fails_its_session_or_fires_with_them() {
    let app = answers("answers_four_times", "k = 5\nn = 5");
    let run = with_deadline(app.run_on("x")).exits(1);
    run.complains(&["waiting for", "enough", "has 4"]);
    let app = answers("answers_four_times", "k = 5\nn = 5\nat_end = \"fire\"");
    with_deadline(app.run_on("x")).exits(0).prints("10");
}

#[test]
fn how_many_are_enough_may_be_said_at_run_time() {
    let app = answers("says_how_many_afterwards", "");
    with_deadline(app.run_on("x").arg("--strict"))
        .exits(0)
        .prints("3");
}

#[test]
fn what_triggers_drop_and_what_they_fire_early_is_counted() {
    let app = answers("answers_four_times", "k = 2\nn = 4");
    assert_eq!(counted(app.run_on("x"), "dropped_total"), 2);
    // Three objects, of which an invocation may have two.
    let trigger = "type = \"by_time\"\nwindow = \"1m\"\nat_end = \"fire\"";
    let app = drops("drips", "takes_what_comes", trigger);
    let manifest = fs::read_to_string(app.manifest()).expect("the manifest");
    let manifest = manifest.replace("[app.limits]", "[app.limits]\ninputs = 2");
    let app = app.file("app.toml", manifest);
    assert_eq!(counted(app.run_on("x"), "early_total"), 1);
    assert_eq!(sorted(notes(&app, "taken")), ["a b", "c"]);
}

/// A counter of the app after a run.
fn counted(run: Command, name: &str) -> u64 {
    let run = with_deadline(run.args(["--stats", "--json"])).exits(0);
    let json = run.stderr.split_at(run.stderr.find('{').expect("JSON")).1;
    let json: serde_json::Value = serde_json::from_str(json).expect("JSON");
    let count = &json["after"]["counters"][name];
    count.as_u64().expect("a counter of this name")
}

// -------------------------------------------------------------------------------------- joins

fn joins(config: &str) -> App {
    app_of(
        "branches",
        &format!(
            r#"
[functions.branches]
[functions.squares]
config = {{ {config} }}
[functions.joined]

[buckets.work]
keep = "until_consumed"
[[buckets.work.triggers]]
type = "immediate"
function = "squares"

[[buckets.squares.triggers]]
name = "all"
type = "dynamic_join"
function = "joined"
"#
        ),
    )
}

#[test]
fn a_join_takes_as_many_branches_as_there_turn_out_to_be() {
    let app = joins("");
    for (branches, sum) in [("1", "0"), ("2", "1"), ("7", "91"), ("500", "41541750")] {
        let run = with_deadline(app.run_on(branches).arg("--strict"));
        run.exits(0).prints(sum);
    }
}

#[test]
fn a_join_of_no_branches_fires_at_once_without_inputs() {
    with_deadline(joins("").run_on("0")).exits(0).prints("0");
}

#[test]
fn a_branch_that_never_comes_fails_the_join_and_is_named() {
    let run = with_deadline(joins("loses = 4").run_on("9")).exits(1);
    run.complains(&["waiting for", "all", "branch-4"]);
}

// ------------------------------------------------------------------------------------- groups

/// `deals` gives `items` numbers to `map`, which puts each twice into the group of its remainder by
/// three; `reduce` adds up a group.
fn groups(items: u32, config: &str, map: &str, trigger: &str) -> App {
    app_of(
        "deals",
        &format!(
            r#"
[functions.deals]
config = {{ items = {items}, {config} }}
sends = ["items"]

[functions.map]
config = {{ {config} }}
sends = ["mapped"]
{map}

[functions.reduce]
config = {{ {config} }}
sends = []

[buckets.items]
keep = "until_consumed"
[[buckets.items.triggers]]
type = "immediate"
function = "map"

[buckets.mapped]
keep = "until_consumed"
[[buckets.mapped.triggers]]
name = "by-remainder"
type = "dynamic_group"
function = "reduce"
{trigger}
"#
        ),
    )
}

/// Twice the numbers 0 to 99, by their remainder.
const HUNDRED: [&str; 3] = ["0: 68 3366", "1: 66 3234", "2: 66 3300"];

#[test]
fn groups_fire_when_as_many_sources_as_the_manifest_says_have_closed() {
    let app = groups(100, "closes = 1", "", "sources = 100");
    with_deadline(app.run_on("x").arg("--strict")).exits(0);
    assert_eq!(sorted(notes(&app, "reduced")), HUNDRED);
}

#[test]
fn groups_fire_when_as_many_sources_as_a_function_says_have_closed() {
    let app = groups(100, "closes = 1, tells = 1", "", "");
    with_deadline(app.run_on("x").arg("--strict")).exits(0);
    assert_eq!(sorted(notes(&app, "reduced")), HUNDRED);
}

#[test]
fn groups_fire_after_all_that_could_still_feed_them_without_any_counting() {
    let app = groups(100, "ordered = 1", "", "after = \"map\"\norder = \"key\"");
    with_deadline(app.run_on("x").arg("--strict")).exits(0);
    assert_eq!(sorted(notes(&app, "reduced")), HUNDRED);
}

#[test]
fn a_barrier_without_any_object_fires_only_where_it_is_asked_to() {
    let app = groups(0, "", "", "after = \"map\"\nfire_empty = true");
    with_deadline(app.run_on("x").arg("--strict")).exits(0);
    assert_eq!(notes(&app, "reduced"), ["none: 0 0"]);
    let app = groups(0, "", "", "after = \"map\"");
    with_deadline(app.run_on("x").arg("--strict")).exits(0);
    assert!(!app.path("reduced").exists());
}

#[test]
fn sources_that_are_missing_fail_the_session_and_are_counted() {
    let app = groups(9, "closes = 1", "", "sources = 10");
    let run = with_deadline(app.run_on("x")).exits(1);
    run.complains(&["waiting for", "by-remainder", "source"]);
    assert!(!app.path("reduced").exists());
}

#[test]
fn a_loop_through_a_barrier_takes_as_many_turns_as_it_needs() {
    let app = app_of(
        "begins_a_loop",
        r#"
[functions.begins_a_loop]
sends = ["sums"]
[functions.turn]
sends = ["pairs"]
[functions.add]
sends = ["sums"]

[buckets.pairs]
keep = "until_consumed"
[[buckets.pairs.triggers]]
type = "immediate"
function = "add"

[buckets.sums]
keep = "until_consumed"
[[buckets.sums.triggers]]
type = "dynamic_group"
function = "turn"
after = "add"
"#,
    );
    with_deadline(app.run_on("x").arg("--strict"))
        .exits(0)
        .prints("120");
    assert_eq!(notes(&app, "turns"), ["16", "8", "4", "2", "1"]);
}

// ----------------------------------------------------------------------------------- attempts

#[test]
fn a_function_that_crashed_runs_again_after_its_backoff_and_what_it_repeats_is_absorbed() {
    let app = app_of(
        "crashes_once",
        r#"
[functions.crashes_once]
attempts = 2
backoff = "50ms"
jitter = 0.0
[functions.notes_what_came]
[functions.counts_what_came]

[[buckets.sent.triggers]]
type = "immediate"
function = "notes_what_came"

[[buckets.sent.triggers]]
name = "closed"
type = "dynamic_group"
sources = 1
function = "counts_what_came"
"#,
    );
    with_deadline(app.run_on("x").arg("--strict"))
        .exits(0)
        .prints("3");
    let came = sorted(notes(&app, "came"));
    assert_eq!(came, ["automatic", "more", "named"]);
}

fn attempts_of(entry: &str, options: &str, function: &str, trigger: &str) -> App {
    app_of(
        entry,
        &format!(
            r#"
[functions.{entry}]
{options}
[functions.{function}]
sends = []

[[buckets.sent.triggers]]
function = "{function}"
{trigger}
"#
        ),
    )
}

#[test]
fn a_function_that_hung_runs_again_and_a_barrier_waits_for_that() {
    let app = attempts_of(
        "hangs_once",
        "attempts = 5\ntimeout = \"200ms\"\nsends = [\"sent\"]",
        "notes_keys",
        "type = \"dynamic_group\"\nafter = \"hangs_once\"",
    );
    with_deadline(app.run_on("x").arg("--strict")).exits(0);
    assert_eq!(notes(&app, "came"), ["a b"]);
}

#[test]
fn what_an_earlier_attempt_told_a_join_is_told_once() {
    let app = attempts_of(
        "steers_and_fails",
        "attempts = 3\nbackoff = \"1ms\"",
        "notes_keys",
        "name = \"listed\"\ntype = \"dynamic_join\"",
    );
    with_deadline(app.run_on("x").arg("--strict")).exits(0);
    assert_eq!(sorted(notes(&app, "came")), ["a", "a b"]);
}

#[test]
fn a_permanent_failure_is_not_tried_again() {
    let app = attempts_of(
        "fails_for_good",
        "attempts = 5\nbackoff = \"1ms\"",
        "notes_keys",
        "type = \"immediate\"",
    );
    let run = with_deadline(app.run_on("x")).exits(1);
    run.complains(&["fails_for_good", "attempt 1", "never"]);
    assert_eq!(notes(&app, "attempts").len(), 1);
}

#[test]
fn with_continue_a_barrier_closes_without_those_that_failed() {
    let app = groups(
        8,
        "fails = 1",
        "on_failure = \"continue\"",
        "after = \"map\"",
    );
    let run = with_deadline(app.run_on("x")).exits(0);
    run.complains(&["`map`", "the session goes on", "7 is not to my taste"]);
    // 0, 1, 2, 4, 5 and 6: all but 3 and 7.
    let reduced = sorted(notes(&app, "reduced"));
    assert_eq!(reduced, ["0: 4 12", "1: 4 10", "2: 4 14"]);
}

#[test]
fn with_continue_a_failed_source_counts_as_a_closed_one() {
    let app = groups(
        8,
        "fails = 1, closes = 1",
        "on_failure = \"continue\"",
        "sources = 8",
    );
    with_deadline(app.run_on("x")).exits(0);
    let reduced = sorted(notes(&app, "reduced"));
    assert_eq!(reduced, ["0: 4 12", "1: 4 10", "2: 4 14"]);
}
