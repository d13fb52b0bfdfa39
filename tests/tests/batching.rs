//! Single requests from outside, gathered across their sessions: each caller gets its own answer,
//! out of one batch or two stages later, and learns at once when nothing will come.
#![forbid(unsafe_code)]

use std::fs;
use std::thread;

use pheromone_tests::{App, Command, Server, until};

const FUNCTIONS: &str = include_str!("../functions/batching.c");

/// Calls go into `requests`, whose batches of `count` go to `function`.
fn app_of(function: &str, batch: &str, rest: &str) -> App {
    let manifest = format!(
        r#"
[app]
name = "batching"
entry = {{ bucket = "requests" }}
source = ["functions.c"]
executors = {{ min = 2, max = 3 }}
isolation = "none"

[functions.{function}]

[[buckets.requests.triggers]]
type = "by_batch_size"
function = "{function}"
{batch}
{rest}
"#
    );
    App::with_functions(&manifest, FUNCTIONS)
}

/// A run of one call for each of these bodies, whose responses go into `out`.
fn calls(app: &App, bodies: impl Iterator<Item = String>, inflight: usize) -> Command {
    let mut arguments = vec!["--output".to_owned(), "out".to_owned()];
    for (number, body) in bodies.enumerate() {
        let name = format!("b{number}");
        fs::write(app.path(&name), body).expect("write an input");
        arguments.extend(["--input".to_owned(), name]);
    }
    let inflight = ["--inflight".to_owned(), inflight.to_string()];
    app.run().args(inflight).args(arguments)
}

/// The responses, in the order of their calls.
fn responses(app: &App) -> Vec<String> {
    let files = fs::read_dir(app.path("out")).expect("the responses' directory");
    let mut paths: Vec<_> = files.flatten().map(|file| file.path()).collect();
    paths.sort();
    let read = |path| fs::read_to_string(path).expect("a response");
    paths.into_iter().map(read).collect()
}

fn numbered(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("request {number}"))
}

fn answered(count: usize) -> Vec<String> {
    numbered(count).map(|body| format!("<{body}>")).collect()
}

#[test]
fn every_caller_of_a_batch_gets_its_own_answer() {
    let app = app_of("answers_each", "count = 32\nlinger = \"1ms\"", "");
    let run = calls(&app, numbered(1000), 100).arg("--strict").finish();
    run.exits(0);
    assert_eq!(responses(&app), answered(1000));
}

#[test]
fn ten_thousand_requests_are_answered_through_batches_and_a_second_stage() {
    let second = r#"
[functions.answers_all]

[buckets.stage]
keep = "until_consumed"
[[buckets.stage.triggers]]
type = "by_batch_size"
function = "answers_all"
count = 4
linger = "1ms"
"#;
    let app = app_of("collects", "count = 32\nlinger = \"1ms\"", second);
    let run = calls(&app, numbered(10_000), 1000).args(["--strict", "--stats"]);
    let run = run.finish().exits(0);
    assert_eq!(responses(&app), answered(10_000));
    run.complains(&["objects alive", "bytes used"]);
}

#[test]
fn one_caller_fails_without_the_others_of_its_batch() {
    let app = app_of("picks", "count = 3", "");
    let bodies = ["a", "refuse", "b"].map(str::to_owned).into_iter();
    let run = calls(&app, bodies, 3).finish().exits(1);
    run.complains(&["picks", "refused as asked"]);
    assert_eq!(responses(&app), ["<a>", "<b>"]);
}

#[test]
fn those_who_still_wait_fail_with_their_batch() {
    let app = app_of("breaks", "count = 2", "");
    let run = calls(&app, numbered(2), 2).finish().exits(1);
    run.complains(&["breaks", "broken with 2 inputs"]);
    assert_eq!(responses(&app).len(), 1);
}

#[test]
fn a_batch_that_cannot_fill_fires_once_all_calls_have_been_made() {
    let app = app_of("answers_each", "count = 1000", "");
    calls(&app, numbered(10), 10).finish().exits(0);
    assert_eq!(responses(&app), answered(10));
}

#[test]
fn a_caller_that_fetches_later_and_one_that_has_left_are_held_until_they_are_answered() {
    let app = app_of("answers_each", "count = 3", "");
    let server = Server::start(&[&app]);
    let mut client = server.tcp();
    let later = client.post("/v1/apps/batching?wait=false", "later").is(202);
    let response = format!("/v1/sessions/{}/response", later.session());
    server.tcp().post_and_leave("/v1/apps/batching", "left");
    until("both are pending", || {
        server.counter("batching", "gathered") == 2
    });
    assert_eq!(server.counter("batching", "sessions_open"), 2);
    client.get(&response).is(202);
    let last = client.post("/v1/apps/batching", "last").is(200);
    assert_eq!(last.text(), "<last>");
    until("the response is there", || {
        client.get(&response).status != 202
    });
    assert_eq!(client.get(&response).is(200).text(), "<later>");
    until("nobody waits any more", || {
        server.counter("batching", "sessions_open") == 0
    });
    assert_eq!(server.counter("batching", "error_events_total"), 0);
    server.stop().exits(0);
}

#[test]
fn a_new_version_begins_with_nothing_of_the_batch_that_the_old_one_then_fires() {
    let old = app_of("answers_each", "count = 3", "");
    let new = app_of("answers_each", "count = 2", "");
    let server = Server::start(&[&old]);
    let call = |body: &'static str| server.tcp().post("/v1/apps/batching", body).is(200).text();
    let gathered = |count: u64| {
        let what = format!("{count} of a batch are there");
        until(&what, || server.counter("batching", "gathered") == count);
    };
    let versions = || {
        let apps = server.unix().get("/v1/apps").is(200).text();
        apps.matches("deployed_unix_ms").count()
    };
    thread::scope(|scope| {
        let waiting = ["a", "b"].map(|body| scope.spawn(move || call(body)));
        gathered(2);
        server.deploy(&new).exits(0);
        // Two of three: the old version fires with what it has, since nobody can add to it.
        let answers = waiting.map(|caller| caller.join().expect("it is answered"));
        assert_eq!(answers, ["<a>", "<b>"]);
        until("the old version has gone", || versions() == 1);
        let first = scope.spawn(|| call("c"));
        gathered(1);
        assert!(!first.is_finished(), "one of two is no batch");
        assert_eq!(call("d"), "<d>");
        assert_eq!(first.join().expect("it is answered"), "<c>");
    });
    server.stop().exits(0);
}
