//! Many sessions, one after another and at once: afterwards bytes in use and memory are back where
//! they were.
#![forbid(unsafe_code)]

use std::fs;

use pheromone_tests::{App, Process, Server, until};

const FUNCTIONS: &str = include_str!("../functions/scheduling.c");

fn short_sessions() -> App {
    App::with_functions(
        r#"
[app]
name = "short"
entry = "begins"
source = ["functions.c"]
memory = "64MiB"
keep_results = "0s"
executors = { min = 2, max = 2 }
isolation = "none"

[functions.begins]
[functions.ends]
[functions.waits_at_the_gate]

[buckets.hops]
[[buckets.hops.triggers]]
type = "immediate"
function = "ends"
"#,
        FUNCTIONS,
    )
}

/// Private memory of all processes, with the process.
fn private_memory(server: &Server) -> Vec<(u64, Process)> {
    let processes = server.running().processes().into_iter();
    processes
        .map(|process| (process.status_bytes("RssAnon"), process))
        .collect()
}

#[test]
fn ten_thousand_sessions_one_after_another() {
    let app = short_sessions();
    let run = app.run_on("hello").args(["--repeat", "10000"]).finish();
    run.exits(0).prints("hello");
}

#[test]
fn ten_thousand_sessions_with_ten_thousand_at_once() {
    let app = short_sessions();
    let run = app
        .run_on("hello")
        .args(["--repeat", "10000", "--inflight", "10000", "--stats"]);
    run.finish().exits(0).prints("hello");
}

/// What tables and allocators may keep once they have grown: far below what ten thousand sessions
/// take while they are open.
const KEPT_MAX_BYTES: u64 = 2 << 20;

/// Rounds until memory has to have stopped growing: allocators and tables take what they need in
/// the first of them, and how much that is differs with how the work happens to fall. What is lost
/// in each of them is lost in all.
const ROUNDS_MAX: usize = 16;
/// What a process may grow by in a round in which nothing is lost: less than sixteen bytes for each
/// session, and more than the noise of an allocator.
const GROWN_MAX_BYTES: u64 = 128 << 10;

#[test]
fn after_ten_thousand_open_sessions_everything_is_back_at_the_baseline() {
    const OPEN: u64 = 10_000;
    let app = short_sessions();
    let server = Server::start(&[&app]);
    let mut client = server.unix();
    let mut before: Vec<(u64, Process)> = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let _no_gate_yet = fs::remove_file(app.path("gate"));
        let path = "/v1/apps/short/functions/waits_at_the_gate?wait=false";
        for _ in 0..OPEN {
            client.post(path, "x").is(202);
        }
        assert_eq!(server.counter("short", "sessions_open"), OPEN);
        fs::write(app.path("gate"), "").expect("open the gate");
        until("all sessions have ended", || {
            server.counter("short", "sessions_open") == 0
        });
        until("all results are forgotten or counted", || {
            server.counter("short", "objects_live") == 0
        });
        assert_eq!(server.counter("short", "used_bytes"), 0);
        let now = private_memory(&server);
        let has_grown = now
            .iter()
            .zip(&before)
            .any(|((now, _), (before, _))| *now > before + GROWN_MAX_BYTES);
        if !before.is_empty() && !has_grown {
            server.stop().exits(0);
            return;
        }
        before = now;
    }
    let processes: Vec<String> = before
        .iter()
        .map(|(bytes, process)| format!("{bytes} {}", process.command))
        .collect();
    panic!("memory grows with every ten thousand sessions: {processes:#?}");
}

#[test]
fn many_short_sessions_over_one_connection_leave_nothing() {
    let app = short_sessions();
    let server = Server::start(&[&app]);
    let mut client = server.unix();
    let mut calls = |count: u32| {
        for i in 0..count {
            let body = format!("call {i}");
            let answer = client.post("/v1/apps/short", body.clone()).is(200);
            assert_eq!(answer.text(), body);
        }
    };
    calls(2_000);
    let before = private_memory(&server);
    calls(5_000);
    for (bytes, process) in before {
        let now = process.status_bytes("RssAnon");
        assert!(
            now <= bytes + KEPT_MAX_BYTES,
            "{} grew from {bytes} to {now} bytes",
            process.command
        );
    }
    assert_eq!(server.counter("short", "used_bytes"), 0);
    assert_eq!(server.counter("short", "sessions_open"), 0);
    server.stop().exits(0);
}
