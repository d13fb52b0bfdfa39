//! Executors that go on by themselves: what users see is the same as without, whoever dies, waits,
//! is cancelled or wants the executor meanwhile.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use nix::sys::signal::Signal;
use pheromone_tests::{Answer, App, Client, Random, Server, until};

const FUNCTIONS: &str = include_str!("../functions/continuation.c");

/// Counts down from here in no test's time; leaves no marks.
const ENDLESS: &str = "1000000000";

/// An app, with or without continuation, of so many executors. No executor is killed for want of a
/// core to stop on.
fn app_of(entry: &str, continuation: bool, executors: u16, rest: &str) -> App {
    let manifest = format!(
        r#"
[app]
name = "going"
entry = "{entry}"
source = ["functions.c"]
continuation = {continuation}
memory = "64MiB"
keep_results = "0s"
limits = {{ dead_letters = "0B", cancel_grace = "3s" }}
executors = {{ min = {executors}, max = {executors} }}
isolation = "none"
{rest}
"#
    );
    App::with_functions(&manifest, FUNCTIONS)
}

/// A round of three functions over a direct object, a bucket, and a named function.
const ROUND: &str = r#"
[functions.one]
next = ["two"]
[functions.two]
[functions.three]
calls = ["one"]
[functions.echo]

[buckets.threes]
[[buckets.threes.triggers]]
type = "immediate"
function = "three"
"#;

fn round(continuation: bool, executors: u16) -> App {
    app_of("one", continuation, executors, ROUND)
}

fn call(client: &mut Client, body: &str) -> Answer {
    client.post("/v1/apps/going", body)
}

/// Starts one, and says which session it is.
fn begin(server: &Server, body: &str) -> String {
    let answer = server.unix().post("/v1/apps/going?wait=false", body);
    answer.is(202).session()
}

/// The marks of a file, as session and number; every one is a line.
fn marks(app: &App, file: &str) -> Vec<(u64, u64)> {
    let text = fs::read_to_string(app.path(file)).unwrap_or_default();
    let mark = |line: &str| {
        let (session, number) = line.split_once(' ')?;
        Some((session.parse().ok()?, number.parse().ok()?))
    };
    let marks = text.lines().map(|line| mark(line).expect("two numbers"));
    marks.collect()
}

fn without_sessions(marks: Vec<(u64, u64)>) -> Vec<u64> {
    let mut numbers: Vec<u64> = marks.into_iter().map(|(_, number)| number).collect();
    numbers.sort_unstable();
    numbers
}

/// Nothing runs, waits or is held any more.
fn is_at_rest(server: &Server) -> bool {
    let entry = server.app("going");
    let counter = |name: &str| entry["stats"][name].as_u64().expect("a counter");
    [
        "sessions_open",
        "queued",
        "running",
        "objects_live",
        "used_bytes",
    ]
    .iter()
    .all(|name| counter(name) == 0)
        && counter("executors") == counter("executors_idle")
}

/// No executor has died, by its own fault or the scheduler's hand.
#[track_caller]
fn assert_no_deaths(server: &Server) {
    let deaths = server.counter("going", "deaths_total");
    let said = server.running().stderr_so_far();
    assert_eq!(deaths, 0, "{said}");
}

/// What a user can count, after everything has ended.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    answers: Vec<(u16, String)>,
    marks: BTreeMap<&'static str, Vec<u64>>,
    counters: BTreeMap<&'static str, u64>,
}

const COUNTERS: [&str; 7] = [
    "sessions_total",
    "objects_total",
    "invocations_total",
    "dropped_total",
    "error_events_total",
    "dead_letters_total",
    "deaths_total",
];

/// Calls an app three times in a row and looks at all that came of it.
fn see(app: &App, body: &str) -> Seen {
    let server = Server::start(&[app]);
    let mut client = server.unix();
    let mut answers = Vec::new();
    for _ in 0..3 {
        let answer = call(&mut client, body);
        let text = answer.text();
        // What failed is told with numbers of sessions and invocations.
        let text = if answer.status == 200 {
            text
        } else {
            String::new()
        };
        answers.push((answer.status, text));
        until("everything is over", || is_at_rest(&server));
    }
    let counters = COUNTERS.map(|name| (name, server.counter("going", name)));
    let files = ["hops", "alone", "named", "heard"];
    let seen = Seen {
        answers,
        marks: files
            .map(|file| (file, without_sessions(marks(app, file))))
            .into(),
        counters: counters.into(),
    };
    server.stop().exits(0);
    seen
}

/// What is seen with continuation, which is what is seen without.
#[track_caller]
fn same_with_and_without(entry: &str, executors: u16, rest: &str, body: &str) -> Seen {
    let with = see(&app_of(entry, true, executors, rest), body);
    let without = see(&app_of(entry, false, executors, rest), body);
    assert_eq!(with, without, "with continuation, and without");
    with
}

/// Numbers are given in the order of starts, but for those of a block that an executor was granted
/// before.
#[test]
fn what_an_executor_goes_on_with_has_a_number_of_its_grant() {
    let rest = r#"
[functions.first]
[functions.second]

[buckets.seconds]
[[buckets.seconds.triggers]]
type = "immediate"
function = "second"
"#;
    for continuation in [true, false] {
        let app = app_of("first", continuation, 1, rest);
        let server = Server::start(&[&app]);
        let mut client = server.unix();
        let mut goes_on = 0;
        // The first call loads both.
        for _ in 0..11 {
            let text = call(&mut client, "x").is(200).text();
            let (first, second) = text.split_once(' ').expect("two numbers");
            let number = |text: &str| text.parse::<u64>().expect("a number");
            goes_on += u32::from(number(second) < number(first));
        }
        let expected = if continuation { 10 } else { 0 };
        assert_eq!(goes_on, expected, "with `continuation = {continuation}`");
        server.stop().exits(0);
    }
}

#[test]
fn a_chain_over_three_functions_is_the_same_with_and_without() {
    for executors in [1, 2] {
        let seen = same_with_and_without("one", executors, ROUND, "1000");
        assert!(
            seen.answers
                .iter()
                .all(|(status, text)| (*status, text.as_str()) == (200, "arrived"))
        );
        let expected: Vec<u64> = (0..=1000).flat_map(|left| [left; 3]).collect();
        assert_eq!(seen.marks["hops"], expected);
        assert_eq!(seen.counters["invocations_total"], 3 * 1001);
    }
}

#[test]
fn limits_of_others_are_kept_beside_a_chain() {
    let rest = r#"
[functions.crumbling]
next = ["crumbling"]
[functions.alone]
max_concurrency = 1

[buckets.crumbs]
keep = "until_consumed"
[[buckets.crumbs.triggers]]
type = "immediate"
function = "alone"
"#;
    let seen = same_with_and_without("crumbling", 2, rest, "100");
    assert_eq!(seen.marks["alone"].len(), 3 * 100);
}

#[test]
fn objects_of_a_name_that_is_taken_are_dropped_as_without() {
    let rest = r#"
[functions.repeats]
next = ["repeats"]
[functions.counts]

[buckets.named]
[[buckets.named.triggers]]
type = "immediate"
function = "counts"
"#;
    let seen = same_with_and_without("repeats", 1, rest, "20");
    assert_eq!(seen.marks["hops"].len(), 3 * 21);
}

#[test]
fn failures_in_a_chain_are_what_they_are_without() {
    let bucket = "{ bucket = \"failures\" }";
    for on_failure in ["\"fail\"", "\"continue\"", bucket] {
        let rest = format!(
            r#"
[functions.fails_at_five]
next = ["fails_at_five"]
on_failure = {on_failure}
[functions.hears]

[buckets.failures]
[[buckets.failures.triggers]]
type = "immediate"
function = "hears"
"#
        );
        let seen = same_with_and_without("fails_at_five", 1, &rest, "20");
        let goes_on = on_failure != "\"fail\"";
        let hops = if goes_on { 21 } else { 16 };
        assert_eq!(seen.marks["hops"].len(), 3 * hops, "{on_failure}");
        let heard = if on_failure == bucket { 3 } else { 0 };
        assert_eq!(seen.marks["heard"].len(), heard, "{on_failure}");
    }
}

/// What `asks` and `watches` lead to.
const WORK: &str = r#"
[functions.asks]
[functions.watches]
[functions.makes]
[functions.echo]

[buckets.work]
[[buckets.work.triggers]]
type = "immediate"
function = "makes"

[buckets.made]
"#;

#[test]
fn whoever_waits_for_what_the_next_function_makes_gets_it() {
    let seen = same_with_and_without("asks", 2, WORK, "x");
    let expected = (200, "made for you".to_owned());
    assert!(seen.answers.iter().all(|answer| *answer == expected));
    // With one executor it ends in one way, too.
    same_with_and_without("asks", 1, WORK, "x");
}

#[test]
fn whoever_waits_without_a_word_gets_it_from_another_executor() {
    let app = app_of("watches", true, 2, WORK);
    let server = Server::start(&[&app]);
    let mut client = server.unix();
    for _ in 0..20 {
        let _not_yet = fs::remove_file(app.path("made"));
        assert_eq!(call(&mut client, "x").is(200).text(), "seen");
    }
    until("everything is over", || is_at_rest(&server));
    server.stop().exits(0);
}

/// An endless chain is under way.
fn endless(server: &Server) -> String {
    let before = server.counter("going", "invocations_total");
    let session = begin(server, ENDLESS);
    until("the chain goes on", || {
        server.counter("going", "invocations_total") > before + 1_000
    });
    session
}

#[test]
fn a_chain_that_is_cancelled_ends_and_leaves_nothing() {
    for executors in [1, 2] {
        let app = round(true, executors);
        let server = Server::start(&[&app]);
        for _ in 0..10 {
            let session = endless(&server);
            let path = format!("/v1/sessions/{session}");
            let status = server.unix().ask("DELETE", &path, &[], "").status;
            assert!(matches!(status, 200 | 202 | 204), "{status}");
            until("everything is over", || is_at_rest(&server));
        }
        let ran = server.counter("going", "invocations_total");
        let mut client = server.unix();
        assert_eq!(call(&mut client, "0").is(200).text(), "arrived");
        assert_eq!(server.counter("going", "invocations_total"), ran + 1);
        assert_no_deaths(&server);
        server.stop().exits(0);
    }
}

#[test]
fn a_chain_that_takes_too_long_ends_in_time() {
    let app = round(true, 1);
    let server = Server::start(&[&app]);
    let mut client = server.unix();
    for _ in 0..5 {
        let timeout = [("Pheromone-Timeout", "200ms")];
        let answer = client.ask("POST", "/v1/apps/going", &timeout, ENDLESS);
        assert_eq!(answer.status, 504, "{}", answer.text());
        assert_eq!(call(&mut client, "10").is(200).text(), "arrived");
        until("everything is over", || is_at_rest(&server));
    }
    assert_no_deaths(&server);
    server.stop().exits(0);
}

#[test]
fn an_endless_chain_leaves_turns_to_others() {
    let app = round(true, 1);
    let rest = "[functions.echo]\n[functions.one]";
    let other = app_of("echo", true, 1, rest);
    let manifest = fs::read_to_string(other.manifest()).expect("its manifest");
    let other = other.file("app.toml", manifest.replace("\"going\"", "\"other\""));
    let server = Server::start(&[&app, &other]);
    endless(&server);
    let mut client = server.unix();
    for call in 0..50 {
        let body = format!("call {call}");
        let answer = client.post("/v1/apps/other", body.clone());
        assert_eq!(answer.is(200).text(), body);
        // The chain's own executor has turns for others, too.
        let answer = client.post("/v1/apps/going/functions/echo", body.clone());
        assert_eq!(answer.is(200).text(), body);
    }
    let ran = server.counter("going", "invocations_total");
    until("the chain goes on", || {
        server.counter("going", "invocations_total") > ran + 1_000
    });
    server.running().signal(Signal::SIGTERM);
    server.running().signal(Signal::SIGTERM);
    server.wait();
}

/// Hops of 5 ms each; a block of ids is many of them.
#[test]
fn a_chain_of_slow_hops_makes_way_before_its_block_is_used_up() {
    let rest = "[functions.slow]\nnext = [\"slow\"]\n[functions.echo]";
    let app = app_of("slow", true, 1, rest);
    let server = Server::start(&[&app]);
    let mut client = server.unix();
    begin(&server, "400");
    for _ in 0..5 {
        let before = marks(&app, "hops").len();
        client.post("/v1/apps/going/functions/echo", "x").is(200);
        let between = marks(&app, "hops").len() - before;
        assert!(between <= 8, "{between} hops went first");
    }
    until("the chain has arrived", || is_at_rest(&server));
    assert_eq!(marks(&app, "hops").len(), 401);
    server.stop().exits(0);
}

/// Calls chains one after the other and says how many arrived and how many failed.
fn chains(socket: &std::path::Path, count: usize, hops: u64) -> (u64, u64) {
    let mut client = Client::unix(socket);
    let (mut arrived, mut failed) = (0, 0);
    for _ in 0..count {
        let answer = call(&mut client, &hops.to_string());
        match answer.status {
            200 => {
                assert_eq!(answer.text(), "arrived");
                arrived += 1;
            }
            500..=599 => {
                println!("{}: {}", answer.status, answer.text());
                failed += 1;
            }
            other => panic!("{other}: {}", answer.text()),
        }
    }
    (arrived, failed)
}

#[test]
fn of_chains_whose_executors_are_killed_no_hop_runs_twice() {
    const CLIENTS: usize = 4;
    const CHAINS: usize = 250;
    const HOPS: u64 = 300;
    let app = round(true, 2);
    let server = Server::start(&[&app]);
    let socket = server.socket().to_owned();
    let is_over = AtomicBool::new(false);
    let mut random = Random::new(7);
    let mut kills = 0;
    let (arrived, failed) = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| chains(&socket, CHAINS, HOPS)))
            .collect();
        let waiter = scope.spawn(|| {
            let ended = clients.into_iter().map(ScopedJoinHandle::join);
            let ended: Vec<_> = ended.collect();
            is_over.store(true, Ordering::Relaxed);
            let sums = ended
                .into_iter()
                .map(|sums| sums.expect("all were answered"));
            sums.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
        });
        while !is_over.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_micros(random.next_u64() % 40_000));
            let executors = server.running().executors();
            if !executors.is_empty() {
                executors[random.next_u64() as usize % executors.len()].signal(Signal::SIGKILL);
                kills += 1;
            }
        }
        waiter.join().expect("all were answered")
    });
    println!("{arrived} arrived, {failed} failed, {kills} kills");
    assert_eq!(arrived + failed, (CLIENTS * CHAINS) as u64);
    assert!(arrived > 0 && failed > 0, "{arrived} and {failed}");
    until("everything is over", || is_at_rest(&server));
    assert_eq!(server.counter("going", "sessions_total"), arrived + failed);
    let all = marks(&app, "hops");
    let once: BTreeSet<_> = all.iter().copied().collect();
    assert_eq!(once.len(), all.len(), "a hop ran twice");
    // Those that arrived have made every hop, the others the first of them.
    let mut by_session: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (session, left) in all {
        by_session.entry(session).or_default().push(left);
    }
    let mut whole = 0;
    for (session, hops) in by_session {
        let expected: Vec<u64> = (0..=HOPS).rev().take(hops.len()).collect();
        assert_eq!(hops, expected, "of session {session}");
        whole += u64::from(hops.len() as u64 == HOPS + 1);
    }
    assert!(whole >= arrived);
    server.stop().exits(0);
}

#[test]
fn of_chains_whose_executors_are_stopped_and_continued_every_hop_runs_once() {
    const CHAINS: usize = 300;
    const HOPS: u64 = 300;
    let app = round(true, 2);
    let server = Server::start(&[&app]);
    let socket = server.socket().to_owned();
    let is_over = AtomicBool::new(false);
    let mut random = Random::new(8);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| chains(&socket, CHAINS, HOPS)))
            .collect();
        let waiter = scope.spawn(|| {
            let ended = clients.into_iter().map(ScopedJoinHandle::join);
            let ended: Vec<_> = ended.collect();
            is_over.store(true, Ordering::Relaxed);
            for sums in ended {
                assert_eq!(sums.expect("all were answered"), (CHAINS as u64, 0));
            }
        });
        let executors = server.running().executors();
        while !is_over.load(Ordering::Relaxed) {
            let stopped = &executors[random.next_u64() as usize % executors.len()];
            stopped.signal(Signal::SIGSTOP);
            thread::sleep(Duration::from_micros(random.next_u64() % 20_000));
            stopped.signal(Signal::SIGCONT);
            thread::sleep(Duration::from_micros(random.next_u64() % 5_000));
        }
        waiter.join().expect("all were answered");
    });
    until("everything is over", || is_at_rest(&server));
    assert_no_deaths(&server);
    let all = marks(&app, "hops");
    let once: BTreeSet<_> = all.iter().copied().collect();
    let expected = 2 * CHAINS * (HOPS as usize + 1);
    assert_eq!((once.len(), all.len()), (expected, expected));
    server.stop().exits(0);
}

#[test]
fn new_versions_take_over_while_chains_run() {
    let app = round(true, 2).file("hops", "");
    // Each version may run under a uid of its own.
    let open = fs::Permissions::from_mode(0o666);
    fs::set_permissions(app.path("hops"), open).expect("open the file of marks");
    let server = Server::start(&[&app]);
    let socket = server.socket().to_owned();
    let manifest = fs::read_to_string(app.manifest()).expect("its manifest");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            let sums = chains(&socket, 200, 300);
            is_over.store(true, Ordering::Relaxed);
            sums
        });
        let mut version = 0;
        while !is_over.load(Ordering::Relaxed) {
            version += 1;
            let config = format!("config = {{ version = \"{version}\" }}\n\n[functions.one]");
            let next = manifest.replacen("[functions.one]", &config, 1);
            fs::write(app.manifest(), next).expect("write the manifest");
            server.deploy(&app).exits(0);
        }
        assert_eq!(client.join().expect("all were answered"), (200, 0));
    });
    let all = marks(&app, "hops");
    let once: BTreeSet<_> = all.iter().copied().collect();
    assert_eq!((once.len(), all.len()), (200 * 301, 200 * 301));
    until("everything is over", || is_at_rest(&server));
    server.stop().exits(0);
}
