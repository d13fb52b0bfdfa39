//! A function that attacks hurts itself: the scheduler names it and goes on, another app loses
//! nothing, and nobody's objects can be overwritten.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use pheromone_tests::{App, Server, until};

const HOSTILE: &str = include_str!("../functions/hostile.c");
const CHAINS: &str = include_str!("../functions/chains.c");

fn hostile_app() -> App {
    App::with_functions(
        r#"
[app]
name = "hostile"
entry = "scribbles_once"
source = ["functions.c"]
memory = "64MiB"
executors = { min = 1, max = 2 }
isolation = "none"

[app.limits]
dead_letters = "0B"

[functions.scribbles_once]
[functions.scribbles_for_ever]
timeout = "500ms"
[functions.scribbles_a_word]
timeout = "5s"
[functions.lies]
timeout = "5s"
[functions.listens]
[functions.hands_over]

[buckets.noise]
keep = "until_consumed"
[[buckets.noise.triggers]]
type = "immediate"
function = "listens"
"#,
        HOSTILE,
    )
}

fn chain_app() -> App {
    App::with_functions(
        r#"
[app]
name = "chain"
entry = "hop"
source = ["functions.c"]
memory = "16MiB"
executors = { min = 1, max = 2 }
isolation = "none"

[functions.hop]
next = ["hop"]
"#,
        CHAINS,
    )
}

/// Calls `function` of the hostile app `times` times while chains run in the other app, all of
/// which must arrive.
fn attack_beside_a_chain(function: &str, times: u32) {
    let (hostile, chain) = (hostile_app(), chain_app());
    let server = Server::start(&[&hostile, &chain]);
    let attacking = AtomicBool::new(true);
    let chains = thread::scope(|scope| {
        let chains = scope.spawn(|| {
            let mut client = server.unix();
            let mut chains = 0;
            while attacking.load(Ordering::Relaxed) || chains < 3 {
                let answer = client.post("/v1/apps/chain/functions/hop", "1000").is(200);
                assert_eq!(answer.text(), "arrived");
                chains += 1;
            }
            chains
        });
        let mut client = server.unix();
        let path = format!("/v1/apps/hostile/functions/{function}");
        for _ in 0..times {
            let answer = client.post(&path, "x");
            // Killed (502), or its last word was garbled in a way that means something harmless.
            assert!(matches!(answer.status, 200 | 204 | 502 | 504), "{answer:?}");
        }
        attacking.store(false, Ordering::Relaxed);
        chains.join().expect("every chain has arrived")
    });
    println!("{chains} chains of 1000 hops beside {times} attacks");
    assert_eq!(server.counter("chain", "error_events_total"), 0);
    assert_eq!(server.counter("chain", "deaths_total"), 0);
    assert_eq!(server.counter("chain", "used_bytes"), 0);
    let letters = "/v1/apps/hostile/dead-letters";
    server.unix().ask("DELETE", letters, &[], "").is(200);
    until("the hostile app holds nothing", || {
        server.counter("hostile", "used_bytes") == 0
    });
    until("the hostile app has an executor again", || {
        server.counter("hostile", "executors") >= 1
    });
    server.stop().exits(0);
}

#[test]
fn random_words_over_everything_writable_hurt_only_their_author() {
    attack_beside_a_chain("scribbles_once", 30);
}

#[test]
fn a_function_that_never_stops_scribbling_is_killed() {
    attack_beside_a_chain("scribbles_for_ever", 3);
}

#[test]
fn single_random_words_between_honest_messages_hurt_only_their_author() {
    attack_beside_a_chain("scribbles_a_word", 60);
}

#[test]
fn messages_rewritten_while_they_are_sent_hurt_only_their_author() {
    attack_beside_a_chain("lies", 10);
}

#[test]
fn a_liar_is_named_in_one_clear_error() {
    let app = hostile_app();
    let run = app
        .run_on("x")
        .args(["--function", "lies"])
        .finish()
        .exits(1);
    run.complains(&["function `lies`", "broke the protocol"]);
}

/// A descriptor can be one that takes as long to close as its sender likes.
#[test]
fn nothing_that_an_executor_is_given_carries_descriptors_to_the_node() {
    let app = hostile_app();
    let run = app.run_on("x").args(["--function", "hands_over"]);
    run.finish().exits(0).prints("0");
}

#[test]
fn no_way_leads_to_writing_a_neighbours_region() {
    let app = App::with_functions(
        r#"
[app]
name = "neighbours"
entry = "owns"
source = ["functions.c"]
memory = "64MiB"
executors = { min = 2, max = 3 }
isolation = "none"

[functions.owns]
[functions.attacks]
[functions.verifies]

[buckets.target]
[[buckets.target.triggers]]
type = "immediate"
function = "attacks"

[buckets.reports]
[[buckets.reports.triggers]]
type = "by_set"
function = "verifies"
keys = ["owner", "target"]
"#,
        HOSTILE,
    );
    app.run_on("x")
        .args(["--timeout", "60s"])
        .finish()
        .exits(0)
        .prints("intact");
}
