//! Fan-out to a thousand branches, and sets that gather in the listed order whatever happens.
#![forbid(unsafe_code)]

use pheromone_tests::App;

const FUNCTIONS: &str = include_str!("../functions/fanout.c");

fn fanout(options: &str) -> App {
    let manifest = format!(
        r#"
[app]
name = "fanout"
entry = "split"
source = ["functions.c"]
isolation = "none"
{options}

[functions.split]
[functions.branch]
[functions.merge]

[buckets.work]
keep = "until_consumed"
[[buckets.work.triggers]]
type = "immediate"
function = "branch"

[buckets.parts]
[[buckets.parts.triggers]]
type = "by_set"
function = "merge"
keys = ["part-{{0..999}}"]
"#
    );
    App::with_functions(&manifest, FUNCTIONS)
}

/// 0² + 1² + ... + 999².
const SUM_OF_SQUARES: &str = "332833500";

#[test]
fn a_thousand_branches_meet_in_a_set_in_the_listed_order() {
    let app = fanout("executors = { min = 2, max = 4 }");
    app.run().finish().exits(0).prints(SUM_OF_SQUARES);
}

#[test]
fn a_thousand_branches_pass_through_a_single_executor() {
    let app = fanout("executors = { min = 1, max = 1 }");
    app.run().finish().exits(0).prints(SUM_OF_SQUARES);
}

#[test]
fn fan_outs_of_several_sessions_do_not_mix() {
    let app = fanout("executors = { min = 2, max = 2 }");
    let run = app
        .run()
        .args(["--repeat", "8", "--inflight", "8"])
        .finish();
    run.exits(0).prints(SUM_OF_SQUARES);
}

fn set_of_three(entry: &str, function: &str, at_end: &str) -> App {
    let manifest = format!(
        r#"
[app]
name = "pieces"
entry = "{entry}"
source = ["functions.c"]
executors = {{ min = 2, max = 2 }}
isolation = "none"

[functions.{entry}]
[functions.{function}]

[buckets.pieces]
[[buckets.pieces.triggers]]
name = "three"
type = "by_set"
function = "{function}"
keys = ["a", "b", "c"]
{at_end}
"#
    );
    App::with_functions(&manifest, FUNCTIONS)
}

#[test]
fn what_comes_twice_or_late_changes_nothing_and_is_an_error_event() {
    let app = set_of_three("twice", "gather", "");
    let run = app
        .run()
        .finish()
        .exits(0)
        .complains(&["pieces", "`a`", "`b`"]);
    assert_eq!(run.stderr.matches("gathered").count(), 1, "{}", run.stderr);
    run.prints("first;second;third;");
}

#[test]
fn with_strict_an_error_event_is_a_failure() {
    let app = set_of_three("twice", "gather", "");
    app.run()
        .arg("--strict")
        .finish()
        .exits(1)
        .prints("first;second;third;");
}

#[test]
fn a_set_that_never_completes_fails_its_session_and_names_what_it_waited_for() {
    let app = set_of_three("incomplete", "what_came", "");
    app.run()
        .finish()
        .exits(1)
        .complains(&["waiting for", "three", "b"])
        .prints("");
}

#[test]
fn a_set_may_fire_with_what_has_come() {
    let app = set_of_three("incomplete", "what_came", "at_end = \"fire\"");
    app.run().finish().exits(0).prints("first;third;");
}

#[test]
fn a_set_may_be_dropped() {
    let app = set_of_three("incomplete", "what_came", "at_end = \"drop\"");
    app.run().finish().exits(0).prints("");
}

#[test]
fn a_session_that_completes_without_a_response_fails_where_one_is_expected() {
    let app = set_of_three("incomplete", "what_came", "at_end = \"drop\"");
    app.run()
        .arg("--expect-response")
        .finish()
        .exits(1)
        .complains(&["response"]);
}
