//! Dead letters, end to end: what is out of attempts is listed with its failure, runs again over
//! the same inputs once its function is mended, and what it holds is free when it is dropped.
#![forbid(unsafe_code)]

use pheromone_tests::{App, Server, until};
use serde_json::Value;

const FUNCTIONS: &str = include_str!("../functions/letters.c");

/// A version of the app; in one that is not mended its functions do what their input says.
fn version(mended: &str, functions: &str) -> App {
    let manifest = format!(
        r#"
[app]
name = "letters"
entry = "work"
source = ["functions.c"]
memory = "64MiB"
executors = {{ min = 2, max = 4 }}
isolation = "none"
config = {{ mended = "{mended}" }}

[functions.work]
timeout = "300ms"
attempts = 2
backoff = "1ms"

[functions.handle]
[functions.waits]

{functions}

[buckets.jobs]
keep = "until_consumed"
[[buckets.jobs.triggers]]
type = "immediate"
function = "work"

[buckets.told]
keep = "until_consumed"
[[buckets.told.triggers]]
type = "immediate"
function = "handle"
"#
    );
    App::with_functions(&manifest, FUNCTIONS)
}

fn broken() -> App {
    version("no", "")
}

/// `GET /v1/apps/letters/dead-letters`.
#[track_caller]
fn letters(server: &Server) -> Vec<Value> {
    let answer = server.unix().get("/v1/apps/letters/dead-letters").is(200);
    answer.json().as_array().expect("a list").clone()
}

fn text<'v>(letter: &'v Value, name: &str) -> &'v str {
    letter[name].as_str().expect("a text")
}

/// A put of a job that fails, and its session.
#[track_caller]
fn put_job(server: &Server, key: &str, how: &str) -> String {
    let path = format!("/v1/apps/letters/buckets/jobs/objects/{key}");
    let put = server.unix().ask("PUT", &path, &[], how).is(202);
    put.session()
}

/// Waits until there are so many letters.
#[track_caller]
fn await_letters(server: &Server, count: u64) {
    until("what fails is out of attempts", || {
        server.counter("letters", "dead_letters") == count
    });
}

#[test]
fn what_crashes_fails_or_hangs_to_the_last_attempt_is_a_letter_that_says_so() {
    let app = broken();
    let server = Server::start(&[&app]);
    let mut client = server.unix();
    for (how, kind, said) in [
        ("returns", "returned", "no bread today"),
        ("dies", "signaled", "SIGSEGV"),
        ("hangs", "timed_out", "timeout of 300ms"),
    ] {
        let failed = client.post("/v1/apps/letters", how).is(502);
        let letters = letters(&server);
        let letter = letters.last().expect("it is a letter");
        assert_eq!(text(letter, "app"), "letters");
        assert_eq!(text(letter, "function"), "work");
        assert_eq!(text(letter, "session"), failed.session());
        assert_eq!(letter["attempts"], 2);
        assert_eq!(letter["inputs"], 1);
        assert_eq!(letter["is_retryable"], true);
        assert_eq!(letter["failure"]["cause"]["kind"], kind);
        assert!(text(letter, "error").contains(said), "{letter}");
        let told = failed.json();
        assert_eq!(told["failure"]["cause"], letter["failure"]["cause"]);
    }
    assert_eq!(letters(&server).len(), 3);
    server.stop().exits(0);
}

#[test]
fn what_has_failed_runs_again_once_a_mended_version_is_deployed() {
    let app = broken();
    let server = Server::start(&[&app]);
    let old = put_job(&server, "j1", "dies");
    await_letters(&server, 1);
    let id = text(&letters(&server)[0], "id").to_owned();
    let path = format!("/v1/apps/letters/dead-letters/{id}/retry?wait=true");
    server.unix().post(&path, "").is(502);
    let again = letters(&server);
    assert_eq!(again.len(), 1, "a retry that fails is a letter of its own");
    let id = text(&again[0], "id").to_owned();
    let parent = text(&again[0], "session").to_owned();
    assert_ne!(parent, old);

    let mended = version("yes", "");
    server.deploy(&mended).exits(0);
    let moved = letters(&server);
    assert_eq!(moved.len(), 1, "deploying has moved it");
    for name in ["id", "session", "function", "error", "is_retryable"] {
        assert_eq!(moved[0][name], again[0][name], "{name}");
    }
    let path = format!("/v1/apps/letters/dead-letters/{id}/retry?wait=true");
    let answer = server.unix().post(&path, "").is(200);
    assert_eq!(answer.text(), format!("jobs j1 dies, parent {parent}"));
    assert!(letters(&server).is_empty());
    server.unix().post(&path, "").is(404);
    until("the old version is gone", || {
        let apps = server.unix().get("/v1/apps").is(200).json();
        apps.as_array().is_some_and(|apps| apps.len() == 1)
    });
    assert_eq!(server.counter("letters", "used_bytes"), 0);
    server.stop().exits(0);
}

#[test]
fn what_an_old_version_still_runs_becomes_a_letter_of_the_new_one() {
    let app = broken();
    let server = Server::start(&[&app]);
    put_job(&server, "slow", "hangs");
    until("it runs", || server.counter("letters", "running") == 1);
    let mended = version("yes", "");
    server.deploy(&mended).exits(0);
    until("it has come over", || letters(&server).len() == 1);
    let id = text(&letters(&server)[0], "id").to_owned();
    let path = format!("/v1/apps/letters/dead-letters/{id}/retry?wait=true");
    let answer = server.unix().post(&path, "").is(200);
    assert!(answer.text().starts_with("jobs slow hangs"));
    server.stop().exits(0);
}

#[test]
fn a_letter_whose_function_the_new_version_does_not_have_is_dropped_and_that_is_told() {
    let app = version("no", "[functions.gone]");
    let server = Server::start(&[&app]);
    let mut client = server.unix();
    client
        .post("/v1/apps/letters/functions/gone", "returns")
        .is(502);
    client.post("/v1/apps/letters", "returns").is(502);
    assert_eq!(letters(&server).len(), 2);
    let mended = version("yes", "");
    server.deploy(&mended).exits(0);
    let left = letters(&server);
    assert_eq!(left.len(), 1);
    assert_eq!(text(&left[0], "function"), "work");
    until("it is told", || {
        let said = server.running().stdout_so_far() + &server.running().stderr_so_far();
        said.contains("no function `gone` any more")
    });
    server.stop().exits(0);
}

#[test]
fn an_invocation_that_handles_failures_keeps_what_is_attached_over_a_redeployment() {
    let handled = "on_failure = { bucket = \"told\" }";
    let with_handler = |mended| {
        let app = version(mended, "");
        let manifest = std::fs::read_to_string(app.manifest()).expect("its manifest");
        let manifest = manifest.replace("attempts = 2", &format!("attempts = 2\n{handled}"));
        app.file("app.toml", manifest)
    };
    let (app, mended) = (with_handler("no"), with_handler("yes"));
    let server = Server::start(&[&app]);
    server.unix().post("/v1/apps/letters", "returns 1").is(502);
    let [of_work, of_handle] = &letters(&server)[..] else {
        panic!("both are out of attempts");
    };
    assert_eq!(text(of_work, "function"), "work");
    assert_eq!(text(of_handle, "function"), "handle");
    server.deploy(&mended).exits(0);
    let id = text(of_handle, "id");
    let path = format!("/v1/apps/letters/dead-letters/{id}/retry?wait=true");
    let answer = server.unix().post(&path, "").is(200);
    assert_eq!(answer.text(), "returns 1", "the job that was attached");
    server.stop().exits(0);
}

#[test]
fn what_is_cancelled_or_out_of_time_makes_no_letter() {
    let app = broken();
    let server = Server::start(&[&app]);
    let headers = [("pheromone-timeout", "50ms")];
    let path = "/v1/apps/letters/functions/waits";
    server.unix().ask("POST", path, &headers, "x").is(504);
    let call = server.unix().post(&format!("{path}?wait=false"), "x");
    let session = call.is(202).session();
    server.command(&["cancel", &session]).finish().exits(0);
    until("both have stopped", || {
        server.counter("letters", "running") == 0
    });
    assert!(letters(&server).is_empty());
    assert_eq!(server.counter("letters", "dead_letters_total"), 0);
    server.stop().exits(0);
}

#[test]
fn letters_hold_their_inputs_until_they_are_dropped() {
    let app = broken();
    let server = Server::start(&[&app]);
    for job in 0..4 {
        put_job(&server, &job.to_string(), "returns");
    }
    await_letters(&server, 4);
    assert!(server.counter("letters", "used_bytes") >= 4 * 320);
    let held = server.counter("letters", "dead_letters_bytes");
    assert_eq!(held, server.counter("letters", "used_bytes"));
    let id = text(&letters(&server)[0], "id").to_owned();
    let path = format!("/v1/apps/letters/dead-letters/{id}");
    server.unix().ask("DELETE", &path, &[], "").is(204);
    server.unix().ask("DELETE", &path, &[], "").is(404);
    assert_eq!(letters(&server).len(), 3);
    let all = "/v1/apps/letters/dead-letters";
    let dropped = server.unix().ask("DELETE", all, &[], "").is(200).json();
    assert_eq!(dropped["dropped"], 3);
    assert!(letters(&server).is_empty());
    assert_eq!(server.counter("letters", "used_bytes"), 0);
    let metrics = server.unix().get("/metrics").is(200).text();
    for line in [
        "pheromone_dead_letters{app=\"letters\",version=\"1\"} 0",
        "pheromone_dead_letters_dropped_total{app=\"letters\",version=\"1\"} 4",
    ] {
        assert!(metrics.contains(line), "no {line} in:\n{metrics}");
    }
    server.stop().exits(0);
}

#[test]
fn commands_list_retry_and_drop() {
    let app = broken();
    let server = Server::start(&[&app]);
    let command = |arguments: &[&str]| {
        let words = [&["dead-letters"], arguments].concat();
        server.command(&words).finish()
    };
    command(&[]).exits(0).prints("no dead letters\n");
    for job in 0..3 {
        put_job(&server, &format!("job-{job}"), "returns");
    }
    await_letters(&server, 3);
    let listed = command(&["letters", "--json"]).exits(0).text();
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let ids: Vec<&str> = (0..3).map(|at| text(&listed[at], "id")).collect();
    let table = command(&[]).exits(0).text();
    assert_eq!(table.lines().count(), 4, "{table}");
    for (line, id) in table.lines().skip(1).zip(&ids) {
        assert!(
            line.contains(id) && line.contains("no bread today"),
            "{table}"
        );
    }

    let mended = version("yes", "");
    server.deploy(&mended).exits(0);
    let retried = command(&["letters", "retry", ids[0]]).exits(0).text();
    assert!(retried.contains(&format!("dead letter {} runs again", ids[0])));
    command(&["letters", "retry", ids[0]])
        .exits(1)
        .complains(&[ids[0], "no dead letter"]);
    let retried = command(&["letters", "retry", "--all"]).exits(0).text();
    assert_eq!(retried.lines().count(), 2, "{retried}");
    until("they have run", || {
        server.counter("letters", "sessions_open") == 0
    });
    command(&["letters"]).exits(0).prints("no dead letters\n");

    server.deploy(&app).exits(0);
    for job in 0..3 {
        put_job(&server, &format!("job-{job}"), "returns");
    }
    await_letters(&server, 3);
    let id = text(&letters(&server)[1], "id").to_owned();
    command(&["letters", "drop", &id])
        .exits(0)
        .prints("1 dead letter is dropped\n");
    command(&["letters", "drop", &id])
        .exits(1)
        .complains(&[&id]);
    command(&["letters", "drop", "--all"])
        .exits(0)
        .prints("2 dead letters are dropped\n");
    command(&["nothing"]).exits(1).complains(&["`nothing`"]);
    server.stop().exits(0);
}

#[test]
fn letters_are_nothing_for_strangers() {
    let app = broken();
    let server = Server::start(&[&app]);
    server.unix().post("/v1/apps/letters", "returns").is(502);
    let id = text(&letters(&server)[0], "id").to_owned();
    let of = "/v1/apps/letters/dead-letters";
    for (method, path) in [
        ("GET", "/v1/dead-letters".to_owned()),
        ("GET", of.to_owned()),
        ("DELETE", of.to_owned()),
        ("POST", format!("{of}/retry")),
        ("POST", format!("{of}/{id}/retry")),
        ("DELETE", format!("{of}/{id}")),
    ] {
        let answer = server.tcp().ask(method, &path, &[], "");
        let is_refused = matches!(answer.status, 401 | 403);
        assert!(is_refused, "{method} {path}: {answer:?}");
    }
    assert_eq!(letters(&server).len(), 1);
    server.stop().exits(0);
}

#[test]
fn an_app_that_is_removed_takes_its_letters_along() {
    let app = broken();
    let server = Server::start(&[&app]);
    server.unix().post("/v1/apps/letters", "returns").is(502);
    server.command(&["remove", "letters"]).finish().exits(0);
    server.unix().get("/v1/apps/letters/dead-letters").is(404);
    server.deploy(&app).exits(0);
    assert!(letters(&server).is_empty());
    server.stop().exits(0);
}
