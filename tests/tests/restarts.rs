//! Durable functions: what was accepted goes on after a stop, a crash and a time without its app,
//! and whatever it does durable takes effect once.
#![forbid(unsafe_code)]

use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use pheromone_tests::{App, Client, Random, Server, until};

const FUNCTIONS: &str = include_str!("../functions/orders.c");

const MANIFEST: &str = r#"
[app]
name = "orders"
entry = "order"
source = ["functions.c"]
memory = "128MiB"
keep_results = "1h"
executors = { min = 2, max = 2 }
isolation = "none"

[functions.order]
durable = true

[functions.work]
next = ["relay"]

[functions.relay]
[functions.merge]
[functions.tally]

[functions.slow]
durable = true
SLOW

[buckets.parts]
durable = true
keep = "until_consumed"
[[buckets.parts.triggers]]
type = "immediate"
function = "work"

[buckets.passing]
[[buckets.passing.triggers]]
type = "immediate"
function = "relay"

[buckets.results]
durable = true
keep = "until_consumed"
[[buckets.results.triggers]]
type = "by_set"
keys = ["r{0..7}"]
function = "merge"
[[buckets.results.triggers]]
type = "by_batch_size"
scope = "session"
count = 3
function = "tally"

[buckets.tallies]
durable = true

[buckets.ledger]
durable = true
replace = false
"#;

fn orders() -> App {
    App::with_functions(&MANIFEST.replace("SLOW", ""), FUNCTIONS)
}

fn serve(apps: &[&App], data: &Path) -> Server {
    let data = data
        .to_str()
        .expect("a temporary directory has a plain name");
    Server::start_with(apps, &["--data", data, "--drain", "500ms"])
}

fn kill(server: Server) {
    server.running().signal(Signal::SIGKILL);
}

/// Has a function called without waiting, and gives the session's id.
fn begin(server: &Server, function: &str, text: &str) -> String {
    let path = format!("/v1/apps/orders/functions/{function}?wait=false");
    server.tcp().post(&path, text.as_bytes()).is(202).session()
}

fn response(server: &Server, session: &str) -> pheromone_tests::Answer {
    let path = format!("/v1/sessions/{session}/response");
    server.tcp().get(&path)
}

/// The answer of a session, once there is one.
fn answer(server: &Server, session: &str) -> pheromone_tests::Answer {
    until("the session has an answer", || {
        response(server, session).status != 202
    });
    response(server, session)
}

/// What the parts of an order come to.
fn sum(number: u64) -> String {
    (number * 36).to_string()
}

#[test]
fn a_durable_call_is_answered_like_any_other() {
    let app = orders();
    let server = serve(&[&app], &app.path("data"));
    let answer = server.tcp().post("/v1/apps/orders", "7");
    assert_eq!((answer.status, answer.text()), (200, sum(7)));
    server.stop();
    app.run_on("8").finish().exits(0).prints(sum(8));
}

#[test]
fn a_session_goes_on_after_a_crash_and_after_a_stop_under_its_id() {
    let app = orders();
    let data = app.path("data");
    let server = serve(&[&app], &data);
    let crashed = begin(&server, "order", "1 300");
    let slow = begin(&server, "slow", "60000");
    kill(server);
    let server = serve(&[&app], &data);
    let stopped = begin(&server, "order", "2 300");
    assert!(
        stopped.parse::<u64>().unwrap() > crashed.parse::<u64>().unwrap(),
        "ids are never used again"
    );
    let other = server.unix().get(&format!("/v1/sessions/{slow}"));
    assert_eq!(other.status, 200, "{}", other.text());
    server.stop();
    let server = serve(&[&app], &data);
    for (session, number) in [(&crashed, 1), (&stopped, 2)] {
        let answer = answer(&server, session);
        assert_eq!((answer.status, answer.text()), (200, sum(number)));
    }
    // What has been answered is found after another restart, too.
    kill(server);
    let server = serve(&[&app], &data);
    assert_eq!(response(&server, &crashed).text(), sum(1));
    assert_eq!(response(&server, &slow).status, 202);
    let path = format!("/v1/sessions/{slow}");
    server.unix().ask("DELETE", &path, &[], Vec::new());
    assert_eq!(answer(&server, &slow).status, 409);
    server.stop();
    let server = serve(&[&app], &data);
    assert_eq!(response(&server, &slow).status, 409);
    server.stop();
}

#[test]
fn what_runs_again_is_a_further_attempt() {
    let app = orders();
    let data = app.path("data");
    let server = serve(&[&app], &data);
    let session = begin(&server, "slow", "500");
    kill(server);
    let server = serve(&[&app], &data);
    assert_eq!(answer(&server, &session).text(), "attempt 2");
    server.stop();
}

#[test]
fn a_deadline_passes_while_the_node_is_down() {
    let app = orders();
    let data = app.path("data");
    let server = serve(&[&app], &data);
    let path = "/v1/apps/orders/functions/slow?wait=false";
    let timeout = [("Pheromone-Timeout", "300ms")];
    let begun = server.tcp().ask("POST", path, &timeout, "60000");
    let session = begun.is(202).session();
    kill(server);
    thread::sleep(Duration::from_millis(400));
    let server = serve(&[&app], &data);
    assert_eq!(answer(&server, &session).status, 504);
    server.stop();
}

#[test]
fn a_session_waits_for_its_app_and_for_its_function() {
    let app = orders();
    let data = app.path("data");
    let server = serve(&[&app], &data);
    let session = begin(&server, "slow", "300");
    kill(server);
    let without = MANIFEST.replace("[functions.slow]\ndurable = true\nSLOW\n", "");
    let without = App::with_functions(&without, FUNCTIONS);
    let server = serve(&[&without], &data);
    until("it says what cannot go on", || {
        let said = server.running().stderr_so_far();
        said.contains("cannot go on: the app has no function `slow` any more")
    });
    assert_eq!(response(&server, &session).status, 202);
    server.stop();
    let server = serve(&[], &data);
    assert_eq!(response(&server, &session).status, 202);
    server.deploy(&app).exits(0);
    assert_eq!(answer(&server, &session).text(), "attempt 2");
    server.stop();
}

#[test]
fn what_cannot_be_recorded_exactly_is_refused_before_anything_runs() {
    let manifest = MANIFEST
        .replace("SLOW", "")
        .replace("scope = \"session\"\n", "");
    let app = App::with_functions(&manifest, FUNCTIONS);
    app.command(["check", "app.toml"])
        .finish()
        .exits(1)
        .complains(&["`results`", "durable functions", "in memory alone"]);
}

/// How often the node is killed: in full by `PHEROMONE_VOLUME=1000`.
fn kills() -> u64 {
    let volume = std::env::var("PHEROMONE_VOLUME").ok();
    volume
        .and_then(|text| text.parse::<u64>().ok())
        .map_or(4, |volume| volume / 2)
}

/// Orders from this number on until the node is gone: those that were accepted, and the first
/// number that was never sent.
fn order_until_killed(server: &Server, first: u64) -> (Vec<(u64, String)>, u64) {
    let mut accepted = Vec::new();
    let mut next = first;
    let Some(mut client) = server.tcp_address().and_then(Client::try_tcp) else {
        return (accepted, next);
    };
    loop {
        let number = next;
        next += 1;
        let path = "/v1/apps/orders?wait=false";
        match client.try_ask("POST", path, &[], number.to_string()) {
            Ok(answer) if answer.status == 202 => accepted.push((number, answer.session())),
            // There is no room for more at the moment.
            Ok(answer) if answer.status == 429 => thread::sleep(Duration::from_millis(5)),
            _ => return (accepted, next),
        }
    }
}

#[test]
fn every_accepted_order_is_done_once_whenever_the_node_is_killed() {
    let app = orders();
    let data = app.path("data");
    let mut random = Random::new(31);
    let mut accepted: Vec<(u64, String)> = Vec::new();
    let mut next = 1;
    for _ in 0..kills() {
        let server = serve(&[&app], &data);
        let pid = nix::unistd::Pid::from_raw(server.running().pid());
        let lasts = Duration::from_millis(random.next_u64() % 120);
        let killer = thread::spawn(move || {
            thread::sleep(lasts);
            nix::sys::signal::kill(pid, Signal::SIGKILL).expect("it is there");
        });
        let (orders, unsent) = order_until_killed(&server, next);
        accepted.extend(orders);
        next = unsent;
        killer.join().expect("it has killed");
        drop(server);
    }
    let server = serve(&[&app], &data);
    for (number, session) in &accepted {
        let answer = answer(&server, session);
        assert_eq!(
            (answer.status, answer.text()),
            (200, sum(*number)),
            "order {number}"
        );
        // It would be refused if it were entered twice, and the session had failed.
        let entry = format!("/v1/apps/orders/buckets/ledger/objects/order-{number}");
        assert_eq!(server.tcp().get(&entry).text(), sum(*number));
    }
    until("nothing is open", || {
        server.counter("orders", "sessions_open") == 0
    });
    server.stop();
}
