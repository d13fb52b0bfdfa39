//! Objects that outlive their session and their node: sent durable, loaded from other sessions,
//! after restarts and after crashes.
#![forbid(unsafe_code)]

use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use pheromone_tests::{App, Client, Random, Server};

const FUNCTIONS: &str = include_str!("../functions/durable.c");

const MANIFEST: &str = r#"
[app]
name = "ledger"
entry = "keeps"
source = ["functions.c"]
memory = "256MiB"
executors = { min = 2, max = 2 }
isolation = "none"

[functions.keeps]
[functions.loads]
[functions.deletes]
[functions.logs]
[functions.logged]
[functions.keeps_twice]
[functions.keeps_much]
[functions.loads_much]
[functions.leaves]
[functions.scribbles]
[functions.finds]

[buckets.kept]
REPLACE

[buckets.log]
durable = true
[[buckets.log.triggers]]
type = "immediate"
function = "logged"

[buckets.scribbled]
durable = true

[buckets.recent]
retain = "1h"
"#;

fn ledger() -> App {
    App::with_functions(&MANIFEST.replace("REPLACE", ""), FUNCTIONS)
}

fn serve(app: &App, data: &Path) -> Server {
    let data = data
        .to_str()
        .expect("a temporary directory has a plain name");
    Server::start_with(&[app], &["--data", data])
}

/// What a function answers to this text.
fn call(server: &Server, function: &str, text: &str) -> String {
    let path = format!("/v1/apps/ledger/functions/{function}");
    let answer = server.tcp().post(&path, text.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

#[test]
fn what_was_sent_durable_is_there_in_other_sessions_after_a_stop_and_after_a_crash() {
    let app = ledger();
    let data = app.path("data");
    let server = serve(&app, &data);
    assert_eq!(call(&server, "loads", "a"), "none");
    assert_eq!(call(&server, "keeps", "a one"), "kept");
    assert_eq!(call(&server, "loads", "a"), "one");
    server.stop();
    let server = serve(&app, &data);
    assert_eq!(call(&server, "loads", "a"), "one");
    assert_eq!(call(&server, "keeps", "a two"), "kept");
    assert_eq!(call(&server, "keeps", "b three"), "kept");
    assert_eq!(call(&server, "keeps_twice", "c"), "second");
    assert_eq!(call(&server, "deletes", "b"), "deleted");
    server.running().signal(Signal::SIGKILL);
    drop(server);
    let server = serve(&app, &data);
    assert_eq!(call(&server, "loads", "a"), "two");
    assert_eq!(call(&server, "loads", "c"), "second");
    server.stop();
}

#[test]
fn a_bucket_that_does_not_replace_keeps_the_first() {
    let manifest = MANIFEST.replace("REPLACE", "replace = false");
    let app = App::with_functions(&manifest, FUNCTIONS);
    let data = app.path("data");
    for first in ["kept", "there is one"] {
        let server = serve(&app, &data);
        assert_eq!(call(&server, "keeps", "a one"), first);
        assert_eq!(call(&server, "keeps", "a two"), "there is one");
        assert_eq!(call(&server, "loads", "a"), "one");
        server.stop();
    }
}

#[test]
fn triggers_of_a_durable_bucket_see_what_is_on_disk() {
    let app = ledger();
    let data = app.path("data");
    let server = serve(&app, &data);
    assert_eq!(call(&server, "logs", "hello"), "hello");
    assert_eq!(call(&server, "logs", "again"), "again");
    server.stop();
}

#[test]
fn large_objects_come_back_whole() {
    let app = ledger();
    let data = app.path("data");
    let size = (20 << 20) + 1;
    let server = serve(&app, &data);
    assert_eq!(call(&server, "keeps_much", &size.to_string()), "kept");
    assert_eq!(call(&server, "loads_much", ""), size.to_string());
    server.running().signal(Signal::SIGKILL);
    drop(server);
    let server = serve(&app, &data);
    assert_eq!(call(&server, "loads_much", ""), size.to_string());
    server.stop();
}

#[test]
fn a_retained_object_outlives_its_session_but_not_the_node() {
    let app = ledger();
    let data = app.path("data");
    let server = serve(&app, &data);
    assert_eq!(call(&server, "finds", ""), "none");
    assert_eq!(call(&server, "leaves", "one"), "left");
    assert_eq!(call(&server, "leaves", "two"), "left");
    assert_eq!(call(&server, "finds", ""), "two");
    server.stop();
    let server = serve(&app, &data);
    assert_eq!(call(&server, "finds", ""), "none");
    server.stop();
}

#[test]
fn two_nodes_do_not_share_a_directory() {
    let app = ledger();
    let data = app.path("data");
    let server = serve(&app, &data);
    let run = app.run_on("a one").arg("--data").arg(&data).finish();
    run.exits(1)
        .complains(&["data", "belongs to another running node"]);
    server.stop();
}

#[test]
fn an_app_with_durable_buckets_needs_a_node_that_keeps_them_and_run_keeps_them_beside_it() {
    let app = ledger();
    app.run_on("a one").finish().exits(0).prints("kept");
    let run = app.run().args(["--function", "loads", "--arg", "a"]);
    run.finish().exits(0).prints("one");
    assert!(app.path(".pheromone/data").is_dir());
    let serve = app.command(["serve", "app.toml", "--listen", "127.0.0.1:0"]);
    let serve = serve.arg("--socket").arg(app.path("node.sock")).finish();
    serve
        .exits(1)
        .complains(&["`ledger`", "bucket `log`", "--data DIR"]);
}

#[test]
fn objects_are_read_and_deleted_from_outside() {
    let app = ledger();
    let data = app.path("data");
    let server = serve(&app, &data);
    let path = |key: &str| format!("/v1/apps/ledger/buckets/kept/objects/{key}");
    assert_eq!(server.tcp().get(&path("a")).status, 404);
    assert_eq!(call(&server, "keeps", "a one"), "kept");
    let answer = server.tcp().get(&path("a"));
    assert_eq!((answer.status, answer.text().as_str()), (200, "one"));
    server
        .command(&["get", "ledger", "kept", "a"])
        .finish()
        .exits(0)
        .prints("one");
    server
        .command(&["delete", "ledger", "kept", "a"])
        .finish()
        .exits(0);
    let gone = server.command(&["get", "ledger", "kept", "a"]).finish();
    gone.exits(1).complains(&["no durable or retained object"]);
    assert_eq!(call(&server, "loads", "a"), "none");
    // Retained ones are in memory alone.
    assert_eq!(call(&server, "leaves", "two"), "left");
    let recent = "/v1/apps/ledger/buckets/recent/objects/last";
    let answer = server.tcp().get(recent);
    assert_eq!((answer.status, answer.text().as_str()), (200, "two"));
    server.stop();
}

#[test]
fn a_put_into_a_durable_bucket_is_accepted_once_it_is_on_disk() {
    let app = ledger();
    let data = app.path("data");
    let server = serve(&app, &data);
    let put = server.tcp().ask(
        "PUT",
        "/v1/apps/ledger/buckets/log/objects/line",
        &[],
        b"from outside".to_vec(),
    );
    assert_eq!(put.status, 202, "{}", put.text());
    server.running().signal(Signal::SIGKILL);
    drop(server);
    let server = serve(&app, &data);
    let answer = server.tcp().get("/v1/apps/ledger/buckets/log/objects/line");
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "from outside")
    );
    server.stop();
}

/// How often the node is killed: in full by `PHEROMONE_VOLUME=1000`.
fn kills() -> u64 {
    let volume = std::env::var("PHEROMONE_VOLUME").ok();
    volume
        .and_then(|text| text.parse::<u64>().ok())
        .map_or(4, |volume| volume / 2)
}

/// Keeps numbers under a key, each greater than the last, until the node is gone: the last that was
/// acknowledged.
fn keep_until_killed(server: &Server, key: &str) -> Option<u64> {
    let mut client = Client::try_tcp(server.tcp_address()?)?;
    let path = "/v1/apps/ledger/functions/keeps";
    let mut last = None;
    for value in 0.. {
        let body = format!("{key} {value}");
        match client.try_ask("POST", path, &[], body) {
            Ok(answer) if answer.status == 200 => last = Some(value),
            _ => break,
        }
    }
    last
}

/// Has a function write objects that it has sent, until the node is gone.
fn scribble_until_killed(server: &Server) -> thread::JoinHandle<()> {
    let client = server.tcp_address().and_then(Client::try_tcp);
    thread::spawn(move || {
        if let Some(mut client) = client {
            let path = "/v1/apps/ledger/functions/scribbles";
            let answer = client.try_ask("POST", path, &[], Vec::new());
            assert!(answer.is_err(), "it goes on until it is killed: {answer:?}");
        }
    })
}

/// What a function has made of its own objects is found as something: what was read from its
/// memory once is what is on the disk.
fn read_what_was_scribbled(server: &Server) {
    let path = "/v1/apps/ledger/buckets/scribbled/objects/own";
    let answer = server.tcp().get(path);
    match answer.status {
        200 => assert_eq!(answer.text().len(), 64 * 1024),
        status => assert_eq!(status, 404, "{}", answer.text()),
    }
}

#[test]
fn what_was_acknowledged_survives_a_node_that_is_killed_at_any_moment() {
    let app = ledger();
    let data = app.path("data");
    let mut random = Random::new(23);
    let mut kept: Vec<(String, String)> = Vec::new();
    for life in 0..kills() {
        let server = serve(&app, &data);
        for (key, value) in &kept {
            assert_eq!(call(&server, "loads", key), *value, "{key}");
        }
        let pid = nix::unistd::Pid::from_raw(server.running().pid());
        let lasts = Duration::from_millis(random.next_u64() % 60);
        let killer = thread::spawn(move || {
            thread::sleep(lasts);
            nix::sys::signal::kill(pid, Signal::SIGKILL).expect("it is there");
        });
        let scribbler = scribble_until_killed(&server);
        let key = format!("k{life}");
        let last = keep_until_killed(&server, &key);
        killer.join().expect("it has killed");
        scribbler.join().expect("it has ended");
        drop(server);
        let server = serve(&app, &data);
        read_what_was_scribbled(&server);
        let seen = call(&server, "loads", &key);
        // What was under way when the node was killed is there, or is not.
        match last {
            Some(last) => assert!(
                seen == last.to_string() || seen == (last + 1).to_string(),
                "{key}: {seen}, and {last} was acknowledged"
            ),
            None => assert!(seen == "none" || seen == "0", "{key}: {seen}"),
        }
        kept.push((key, seen));
        server.stop();
    }
}
