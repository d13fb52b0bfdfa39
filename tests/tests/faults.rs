//! Faults with real processes: what dies takes nothing with it but what it was doing, nothing is
//! done twice or lost, and memory is back where it was.
//!
//! `docs/faults.md` says which test keeps which row of the table of faults; those that are not here
//! are where their subject is. The sizes are small. The full ones, ten thousand of everything and
//! 900 MiB, take minutes in a debug build:
//! `PHEROMONE_VOLUME=1000 cargo test --package pheromone-tests --test faults`.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pheromone_tests::{App, Random, Server, until};

const FUNCTIONS: &str = include_str!("../functions/faults.c");
const MIB: u64 = 1 << 20;

/// How much of everything: thousandths of the full size, which is 1000.
fn volume() -> Option<u64> {
    let asked = std::env::var("PHEROMONE_VOLUME").ok()?;
    Some(asked.parse().expect("PHEROMONE_VOLUME is a number"))
}

fn app(name: &str, rest: &str) -> App {
    let manifest = format!(
        r#"
[app]
name = "{name}"
source = ["functions.c"]
isolation = "none"
keep_results = "0s"
{rest}
"#
    );
    App::with_functions(&manifest, FUNCTIONS)
}

/// An app that must not notice what happens to others.
fn bystander() -> App {
    app(
        "bystander",
        "entry = \"echo\"\nexecutors = { min = 1, max = 1 }\n[functions.echo]\n",
    )
}

fn is_at_rest(server: &Server, app: &str) -> bool {
    ["sessions_open", "objects_live", "used_bytes", "queued"]
        .iter()
        .all(|counter| server.counter(app, counter) == 0)
}

#[test]
fn executors_keep_starting_though_every_invocation_crashes_and_its_objects_stay() {
    let crashes = volume().map_or(200, |volume| volume * 10);
    let app = app(
        "crashing",
        &format!(
            r#"
entry = "sows"
executors = {{ min = 2, max = 2 }}
config = {{ crashes = {crashes} }}

[app.limits]
dead_letters = "0B"

[functions.sows]
sends = ["seeds"]
[functions.crashes]
on_failure = "continue"
sends = ["kept"]
[functions.counts]
sends = []

[buckets.seeds]
[[buckets.seeds.triggers]]
type = "immediate"
function = "crashes"
[buckets.kept]
[[buckets.kept.triggers]]
type = "dynamic_group"
after = "crashes"
function = "counts"
"#
        ),
    );
    let run = app
        .run()
        .args(["--timeout", "600s", "--stats", "--json"])
        .finish()
        .exits(0)
        .prints(crashes.to_string());
    let at = run.stderr.rfind("\n{").expect("JSON");
    let stats: serde_json::Value = serde_json::from_str(&run.stderr[at..]).expect("JSON");
    let counter = |name: &str| stats["after"]["counters"][name].as_u64();
    assert_eq!(counter("deaths_total"), Some(crashes));
    for back_at_zero in ["sessions_open", "objects_live", "used_bytes", "queued"] {
        assert_eq!(counter(back_at_zero), Some(0), "{back_at_zero}");
    }
}

#[test]
fn a_function_that_cannot_be_loaded_is_tried_ever_more_slowly_and_everybody_is_told() {
    let app = app(
        "broken",
        r#"
entry = "echo"
executors = { min = 1, max = 1 }
[functions.never_loads]
[functions.echo]
"#,
    );
    let server = Server::start(&[&app]);
    let mut client = server.unix();
    for _ in 0..4 {
        let answer = client.post("/v1/apps/broken/functions/never_loads", "x");
        assert!(answer.status >= 500, "{}: {}", answer.status, answer.text());
        let text = answer.text();
        assert!(
            text.contains("never_loads") && text.contains("SIGABRT"),
            "{text}"
        );
    }
    let said = "executors in a row could not load a function";
    let trouble = server.app("broken")["trouble"].clone();
    assert!(trouble.to_string().contains(said), "{trouble}");
    let health = client.get("/healthz").is(200).text();
    assert!(
        health.starts_with("ok\n") && health.contains(said),
        "{health}"
    );
    let ps = server.command(&["ps"]).finish().exits(0);
    assert!(ps.text().contains("failing") && ps.text().contains(said));
    // Five deaths in a row at most, of which each after the second was waited for.
    assert!(server.counter("broken", "deaths_total") <= 5);
    let answer = client.post("/v1/apps/broken/functions/echo", "goes on");
    assert_eq!(answer.is(200).text(), "goes on");
    assert!(server.app("broken")["trouble"].is_null());
    assert_eq!(client.get("/healthz").is(200).text(), "ok\n");
    server.stop().exits(0).complains(&[said]);
}

/// A workflow with a fan-out, batches, a join and a chain.
fn workflow() -> App {
    app(
        "storm",
        r#"
entry = "begins"
executors = { min = 2, max = 3 }

[functions.begins]
attempts = 100
backoff = "1ms"
sends = ["parts"]
[functions.pairs]
attempts = 100
backoff = "1ms"
sends = ["pairs"]
[functions.joins]
attempts = 100
backoff = "1ms"
sends = ["hops"]
[functions.hops]
attempts = 100
backoff = "1ms"
sends = ["hops"]

[buckets.parts]
keep = "until_consumed"
[[buckets.parts.triggers]]
type = "by_batch_size"
scope = "session"
count = 2
function = "pairs"
[buckets.pairs]
[[buckets.pairs.triggers]]
type = "by_set"
keys = ["pair-0", "pair-2"]
function = "joins"
[buckets.hops]
keep = "until_consumed"
[[buckets.hops.triggers]]
type = "immediate"
function = "hops"
"#,
    )
}

/// Between two deaths.
const KILL_EVERY: Duration = Duration::from_millis(20);
/// Clients that each wait for one workflow at a time.
const CLIENTS: u64 = 4;

#[test]
fn every_workflow_ends_right_though_executors_die_all_the_time() {
    let workflows = volume().map_or(2000, |volume| volume * 10);
    let (app, bystander) = (workflow(), bystander());
    let server = Server::start(&[&app, &bystander]);
    server.unix().post("/v1/apps/storm", "0").is(200);
    let (done, killed) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random::new(20);
            while !done.load(Ordering::Relaxed) {
                let executors: Vec<i64> = server.app("storm")["executors"]
                    .as_array()
                    .map(|all| all.iter().filter_map(|it| it["pid"].as_i64()).collect())
                    .unwrap_or_default();
                if !executors.is_empty() {
                    let at = random.next_u64() as usize % executors.len();
                    let of_ours = server.running().executors();
                    let victim = of_ours.iter().find(|it| i64::from(it.pid) == executors[at]);
                    if let Some(victim) = victim {
                        victim.signal(Signal::SIGKILL);
                        killed.fetch_add(1, Ordering::Relaxed);
                    }
                }
                thread::sleep(KILL_EVERY);
            }
        });
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let mut connection = server.unix();
                scope.spawn(move || {
                    for number in (client..workflows).step_by(CLIENTS as usize) {
                        let answer = connection.post("/v1/apps/storm", number.to_string());
                        let expected = (40 * number + 6).to_string();
                        assert_eq!(answer.is(200).text(), expected);
                    }
                })
            })
            .collect();
        // A failed client must not leave the killer going for ever.
        let outcomes: Vec<_> = clients.into_iter().map(ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        for outcome in outcomes {
            outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    println!("{} executors killed", killed.load(Ordering::Relaxed));
    assert!(killed.load(Ordering::Relaxed) > 0);
    until("nothing is left of the workflows", || {
        is_at_rest(&server, "storm")
    });
    assert_eq!(server.counter("bystander", "deaths_total"), 0);
    assert!(server.counter("storm", "executors") <= 3);
    server.stop().exits(0);
}

/// With how many schedulers the suite runs at most: each has a part of an app's memory and
/// executors, of which hoarding takes all of one part, and two.
const SCHEDULERS_MAX: u64 = 3;

#[test]
fn memory_of_dead_objects_comes_back_while_their_owner_computes() {
    let mib = volume().map_or(64, |volume| volume * 900 / 1000);
    let app = app(
        "hoarder",
        &format!(
            r#"
entry = "hoards"
memory = "{}MiB"
executors = {{ min = 6, max = 6 }}
config = {{ mib = {mib} }}

[functions.hoards]
sends = ["heap"]
[functions.eats]
sends = []

[buckets.heap]
keep = "until_consumed"
[[buckets.heap.triggers]]
type = "immediate"
function = "eats"
"#,
            SCHEDULERS_MAX * (mib + mib / 8 + 4)
        ),
    );
    let server = Server::start(&[&app]);
    let before = server.counter("hoarder", "held_bytes");
    let mut client = server.unix();
    let call = "/v1/apps/hoarder/functions/hoards?wait=false";
    assert_eq!(client.post(call, "x").status, 202);
    until("everything has been sent", || {
        server.counter("hoarder", "held_bytes") >= before + mib * MIB
    });
    fs::write(app.path("eat"), "").expect("let it be eaten");
    let dies = |server: &Server| server.counter("hoarder", "objects_live") <= 1;
    until("it is dead", || dies(&server));
    let since = Instant::now();
    until("its memory is back", || {
        server.counter("hoarder", "held_bytes") < before + 16 * MIB
    });
    println!("back after {} ms", since.elapsed().as_millis());
    assert_eq!(
        server.counter("hoarder", "running"),
        1,
        "its owner computes"
    );
    fs::write(app.path("go"), "").expect("let it go");
    until("nothing is left", || is_at_rest(&server, "hoarder"));
    // What was given back as holes can be had again.
    let again = client.post("/v1/apps/hoarder/functions/hoards", "x");
    assert_eq!(again.is(200).text(), mib.to_string());
    server.stop().exits(0);
}

#[test]
fn a_function_that_reads_all_there_is_stays_bounded_and_is_named() {
    let app = app(
        "stray",
        r#"
entry = "echo"
memory = "16MiB"
executors = { min = 2, max = 2 }
config = { stray_mib = 190 }
[app.limits]
waiters = 1
[functions.strays]
[functions.echo]
"#,
    );
    let bystander = bystander();
    let server = Server::start(&[&app, &bystander]);
    let before = server.counter("stray", "held_bytes");
    let mut client = server.unix();
    let answer = client.post("/v1/apps/stray/functions/strays", "x");
    assert!(answer.status >= 500, "{}", answer.status);
    let text = answer.text();
    assert!(text.contains("MiB of shared memory"), "{text}");
    until("what it read into being is gone", || {
        server.counter("stray", "held_bytes") < before + 16 * MIB
    });
    let echo = client.post("/v1/apps/stray/functions/echo", "goes on");
    assert_eq!(echo.is(200).text(), "goes on");
    assert_eq!(server.counter("bystander", "deaths_total"), 0);
    let echo = client.post("/v1/apps/bystander", "unmoved");
    assert_eq!(echo.is(200).text(), "unmoved");
    server.stop().exits(0).complains(&["app `stray` holds"]);
}

#[test]
fn a_service_manager_hears_of_readiness_health_and_the_end() {
    let app = bystander();
    let path = app.path("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let patience = Some(Duration::from_secs(60));
    socket.set_read_timeout(patience).expect("a timeout");
    let hear = || {
        let mut buffer = [0; 1024];
        let bytes = socket.recv(&mut buffer).expect("the node says something");
        String::from_utf8_lossy(&buffer[..bytes]).into_owned()
    };
    let run = app
        .command(["serve", "app.toml", "--listen", "127.0.0.1:0", "--socket"])
        .arg(app.path("node.sock"))
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "100000")
        .start();
    assert_eq!(hear(), "READY=1\nSTATUS=serving");
    assert_eq!(hear(), "WATCHDOG=1");
    assert_eq!(hear(), "WATCHDOG=1");
    run.signal(Signal::SIGTERM);
    let rest = std::iter::repeat_with(hear).find(|said| said != "WATCHDOG=1");
    assert_eq!(rest.as_deref(), Some("STOPPING=1\nSTATUS=stopping"));
    run.finish().exits(0);
}

#[test]
fn an_app_at_its_quota_is_told_so_recovers_and_disturbs_nobody() {
    let app = app(
        "full",
        r#"
entry = "fills"
memory = "16MiB"
executors = { min = 1, max = 1 }
[app.limits]
create_wait = "0s"
[functions.fills]
sends = ["pile"]
[functions.ignores]
[buckets.pile]
[[buckets.pile.triggers]]
type = "by_name"
key = "nobody"
function = "ignores"
"#,
    );
    let bystander = bystander();
    let server = Server::start(&[&app, &bystander]);
    let mut client = server.unix();
    for _ in 0..3 {
        let filled = client.post("/v1/apps/full/functions/fills", "x").is(200);
        let filled: u64 = filled.text().parse().expect("a number");
        // Of 64 that the memory alone would hold.
        assert!((48..64).contains(&filled), "{filled} objects of 256 KiB");
        let echo = client.post("/v1/apps/bystander", "unmoved");
        assert_eq!(echo.is(200).text(), "unmoved");
        until("its memory is free again", || is_at_rest(&server, "full"));
    }
    server.stop().exits(0);
}
