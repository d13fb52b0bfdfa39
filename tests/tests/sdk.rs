//! Every call of pheromone.h does what its documentation says, seen from within a function.
#![forbid(unsafe_code)]

use std::collections::HashSet;

use pheromone_tests::{App, Command, Finished, Server, until};

const FUNCTIONS: &str = include_str!("../functions/sdk.c");

/// All functions, reached by name; `keep_request` decides whether the request outlives its
/// consumption.
const MANIFEST: &str = r#"
[app]
name = "sdk"
source = ["functions.c"]
cflags = ["-pthread"]
keep_request = KEEP_REQUEST
memory = "32MiB"
executors = { min = 1, max = 2 }
isolation = "none"
config = { from_the_app = "yes", overridden = "by the app" }

[app.limits]
object_size = "16MiB"
log = "64KiB"

[functions.sees_its_request]
[functions.survives_null_everywhere]
[functions.knows_about_itself]
[functions.has_a_deadline]
timeout = "60s"
[functions.names_badly]
[functions.makes_automatic_keys]
[functions.reads_an_automatic_key]
[functions.sends_directly]
next = ["is_next"]
calls = ["is_called"]
[functions.is_next]
[functions.is_called]
max_concurrency = 1
[functions.has_no_next]
[functions.may_send_into_one_bucket]
sends = ["other"]
[functions.answers_ok]
[functions.truncates]
next = ["sees_what_is_left"]
[functions.sees_what_is_left]
[functions.discards]
[functions.truncates_to_nothing]
[functions.leaves_objects_unsent]
[functions.fills_the_memory]
[functions.asks_for_too_much]
[functions.begins_forwarding]
[functions.forwards]
[functions.forwards_its_request]
next = ["answers_its_input"]
[functions.answers_its_input]
[functions.answers_twice]
[functions.answers_with_parts]
[functions.joins_the_parts]
[functions.answers_with_a_type]
[functions.has_no_caller]
[functions.publishes_to_be_found]
next = ["finds_what_is_there"]
[functions.finds_what_is_there]
[functions.gets_many]
[functions.has_a_kept_request]
[functions.has_no_kept_request]
[functions.reads_its_config]
config = { model = "a.bin", threshold = 7, overridden = "by the function" }
env = { COLOUR = "blue" }
env_from = ["PASSED_ON"]
[functions.reads_a_file_beside_the_manifest]
[functions.keeps_a_model]
config = { model = "b.bin" }
[functions.cannot_begin]
[functions.replaces_its_local]
[functions.counts_its_calls]
[functions.prints]
[functions.prints_too_much]
[functions.says_much_when_failing]
[functions.uses_threads]
[functions.keeps_its_context]
[functions.leaves_a_thread]
[functions.sends_durable_in_vain]

[buckets.bucket]
[buckets.other]
[buckets.kept]

[buckets.automatic]
[[buckets.automatic.triggers]]
type = "immediate"
function = "reads_an_automatic_key"

[buckets.outcome]
[[buckets.outcome.triggers]]
type = "by_set"
function = "answers_ok"
keys = ["next-one", "next-two", "call-0", "call-1"]

[buckets.relay]
keep = "until_consumed"
[[buckets.relay.triggers]]
type = "by_name"
pattern = "hop-*"
function = "forwards"

[buckets.parts]
[[buckets.parts.triggers]]
name = "all-parts"
type = "by_set"
function = "joins_the_parts"
keys = ["a", "b", "c"]

[buckets.ranges]
[[buckets.ranges.triggers]]
type = "by_name"
key = "range"
functions = ["RANGE_FUNCTION"]

[buckets.unwatched]
[[buckets.unwatched.triggers]]
type = "immediate"
function = "has_no_caller"
"#;

fn app_that(keep_request: bool) -> App {
    let range = if keep_request {
        "has_a_kept_request"
    } else {
        "has_no_kept_request"
    };
    let manifest = MANIFEST
        .replace("KEEP_REQUEST", &keep_request.to_string())
        .replace("RANGE_FUNCTION", range);
    App::with_functions(&manifest, FUNCTIONS)
}

fn call(app: &App, function: &str, input: &str) -> Command {
    app.run_on(input).args(["--function", function])
}

/// The function's checks hold, in both kinds of app.
fn holds(function: &str) -> Finished {
    let app = app_that(true);
    call(&app, function, "input").finish().exits(0).prints("ok")
}

#[test]
fn an_external_call_has_its_body_as_single_input() {
    holds("sees_its_request");
}

#[test]
fn a_null_pointer_is_an_error_and_never_a_crash() {
    holds("survives_null_everywhere");
}

#[test]
fn an_invocation_knows_its_names_ids_and_times() {
    holds("knows_about_itself");
}

#[test]
fn a_deadline_is_the_nearer_one_of_the_session_and_of_the_functions_timeout() {
    // The function's timeout is a minute.
    let app = app_that(false);
    for (session, seconds) in [(None, "60"), (Some("50s"), "50"), (Some("600s"), "60")] {
        let timeout = session.map(|session| ["--timeout", session]);
        let run = call(&app, "has_a_deadline", seconds).args(timeout.into_iter().flatten());
        run.finish().exits(0).prints("ok");
    }
}

#[test]
fn names_that_cannot_be_are_refused() {
    holds("names_badly");
}

#[test]
fn automatic_keys_count_up_and_can_be_looked_up() {
    holds("makes_automatic_keys");
}

#[test]
fn direct_objects_reach_next_and_calls() {
    holds("sends_directly");
}

#[test]
fn a_direct_object_without_a_next_can_only_be_the_response() {
    let app = app_that(false);
    call(&app, "has_no_next", "x").finish().exits(0).prints("!");
}

#[test]
fn sends_restricts_where_a_function_publishes() {
    holds("may_send_into_one_bucket");
}

#[test]
fn a_truncated_object_is_as_long_as_it_says() {
    holds("truncates");
}

#[test]
fn what_is_discarded_truncated_or_left_unsent_is_free_again() {
    holds("discards");
    holds("truncates_to_nothing");
    let app = app_that(false);
    let run = call(&app, "leaves_objects_unsent", "x").args(["--repeat", "50"]);
    run.finish().exits(0).prints("ok");
}

#[test]
fn a_full_memory_is_an_error_of_create_and_frees_itself_afterwards() {
    let app = app_that(false);
    let run = call(&app, "fills_the_memory", "x").args(["--repeat", "5"]);
    run.finish().exits(0).prints("ok");
    holds("asks_for_too_much");
}

#[test]
fn a_forwarded_object_is_not_copied() {
    holds("begins_forwarding");
}

#[test]
fn a_request_can_be_forwarded() {
    let app = app_that(false);
    let run = call(&app, "forwards_its_request", "a request").finish();
    run.exits(0).prints("a request");
}

#[test]
fn a_session_has_one_response() {
    let app = app_that(false);
    call(&app, "answers_twice", "x")
        .finish()
        .exits(0)
        .prints("once");
}

#[test]
fn a_response_may_consist_of_many_payloads() {
    let app = app_that(true);
    let run = call(&app, "answers_with_parts", "request ")
        .finish()
        .exits(0);
    run.prints("third first request first ");
}

#[test]
fn a_response_has_a_status_and_a_type() {
    let app = app_that(false);
    let server = Server::start(&[&app]);
    let answer = server.tcp().ask(
        "POST",
        "/v1/apps/sdk/functions/answers_with_a_type",
        &[
            ("content-type", "text/x-question"),
            ("pheromone-colour", "blue"),
            ("cookie", "secret"),
        ],
        "x",
    );
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("text/x-test"));
    assert_eq!(answer.text(), "text/x-question");
    server.stop().exits(0);
}

#[test]
fn a_session_without_a_caller_cannot_be_answered() {
    let app = app_that(false);
    let server = Server::start(&[&app]);
    server
        .tcp()
        .ask("PUT", "/v1/apps/sdk/buckets/unwatched/objects/k", &[], "x")
        .is(202);
    until("the function has run", || {
        server.running().stderr_so_far().contains("nobody waits")
    });
    server.stop().exits(0);
}

#[test]
fn objects_of_the_session_are_found_by_name() {
    let app = app_that(false);
    let run = call(&app, "publishes_to_be_found", "x").finish().exits(0);
    run.prints("the object");
    holds("gets_many");
}

#[test]
fn a_kept_request_is_there_for_every_function() {
    let app = app_that(true);
    let run = call(&app, "has_a_kept_request", "a large input")
        .finish()
        .exits(0);
    run.prints("a large input");
    let app = app_that(false);
    call(&app, "has_no_kept_request", "x")
        .finish()
        .exits(0)
        .prints("ok");
}

#[test]
fn config_and_environment_are_those_of_the_manifest() {
    let app = app_that(false);
    let run = call(&app, "reads_its_config", "x")
        .env("PASSED_ON", "from the node")
        .env("NOT_PASSED_ON", "from the node");
    run.finish().exits(0).prints("ok");
}

#[test]
fn the_working_directory_is_that_of_the_manifest() {
    let app = app_that(false).file("poem.txt", "The sun was shining on the sea,\n");
    let run = call(&app, "reads_a_file_beside_the_manifest", "x").finish();
    run.exits(0).prints("The sun was shining on the sea,\n");
}

#[test]
fn an_initializer_runs_once_per_function_and_process() {
    let app = app_that(false);
    let run = call(&app, "keeps_a_model", "x").args(["--repeat", "50", "--executors", "1"]);
    let run = run.finish().exits(0).prints("ok");
    assert_eq!(
        run.stderr.matches("loading the model").count(),
        1,
        "{}",
        run.stderr
    );
}

#[test]
fn an_initializer_that_fails_fails_the_attempt_with_its_message() {
    let app = app_that(false);
    let run = call(&app, "cannot_begin", "x").finish().exits(1);
    run.complains(&["cannot_begin", "the model is missing"])
        .prints("");
}

#[test]
fn a_local_pointer_is_destroyed_when_another_takes_its_place() {
    holds("replaces_its_local");
}

#[test]
fn static_variables_survive_between_invocations() {
    let mut app = app_that(false);
    let mut arguments = Vec::new();
    for i in 1..=20 {
        app = app.file(&format!("in-{i}"), i.to_string());
        arguments.extend(["--input".to_owned(), format!("in-{i}")]);
    }
    let run = app
        .run()
        .args(["--function", "counts_its_calls", "--executors", "1"]);
    run.args(arguments).finish().exits(0);
}

#[test]
fn output_is_tagged_with_app_and_function_line_by_line() {
    let app = app_that(false);
    let run = call(&app, "prints", "x").finish().exits(0).prints("ok");
    let texts = [
        "through printf",
        "through stderr",
        "without a line end",
        "through phr_log",
        "two",
        "lines",
    ];
    for text in texts {
        let line = run.stderr.lines().find(|line| line.ends_with(text));
        let line = line.unwrap_or_else(|| panic!("no line ends with {text:?}:\n{}", run.stderr));
        assert!(
            line.contains("sdk") && line.contains("prints"),
            "not tagged: {line}"
        );
    }
    // Written past stdio: only the app and its executor are known.
    let line = run
        .stderr
        .lines()
        .find(|line| line.ends_with("through write"));
    let line = line.unwrap_or_else(|| panic!("what was written is lost:\n{}", run.stderr));
    assert!(line.contains("sdk"), "not tagged: {line}");
}

#[test]
fn too_much_output_is_cut_and_counted_and_never_blocks() {
    let app = app_that(false);
    let run = call(&app, "prints_too_much", "x")
        .finish()
        .exits(0)
        .prints("ok");
    let lines = run.stderr.matches("of no use to anybody").count();
    assert!(lines > 100, "{lines} lines arrived");
    assert!(
        run.stderr.len() < 400 << 10,
        "{} bytes arrived",
        run.stderr.len()
    );
}

#[test]
fn a_long_message_is_cut() {
    let app = app_that(false);
    let run = call(&app, "says_much_when_failing", "x").finish().exits(1);
    run.complains(&["begin mmmm"]);
}

#[test]
fn other_threads_may_look_but_not_publish() {
    holds("uses_threads");
    let app = app_that(false);
    let run = call(&app, "keeps_its_context", "x").args(["--repeat", "3", "--executors", "1"]);
    run.finish().exits(0).prints("ok");
}

#[test]
fn a_thread_left_over_costs_the_process() {
    let app = app_that(false);
    let server = Server::start(&[&app]);
    let mut client = server.unix();
    let pids: HashSet<_> = (0..4)
        .map(|_| {
            let answer = client.post("/v1/apps/sdk/functions/leaves_a_thread", "x");
            answer.is(200).text()
        })
        .collect();
    assert_eq!(
        pids.len(),
        4,
        "a process with a thread left over was used again"
    );
    assert!(server.running().stderr_so_far().contains("leaves_a_thread"));
    server.stop().exits(0);
}

#[test]
fn a_node_that_keeps_nothing_says_so() {
    holds("sends_durable_in_vain");
}
