//! Whoever is killed, and however: nothing of the run is there afterwards, and the exit status says
//! what happened.
#![forbid(unsafe_code)]

use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::Signal;
use pheromone_tests::{App, Running, Server, until};

const FUNCTIONS: &str = include_str!("../functions/deaths.c");

fn app_of(entry: &str) -> App {
    let manifest = format!(
        r#"
[app]
name = "deaths"
entry = "{entry}"
source = ["functions.c"]
executors = {{ min = 2, max = 2 }}
isolation = "none"

[functions.{entry}]
[functions.ignores]

[buckets.results]
[[buckets.results.triggers]]
type = "immediate"
function = "ignores"
"#
    );
    App::with_functions(&manifest, FUNCTIONS)
}

/// A run in whose executor a function holds 64 MiB.
fn holding(app: &App) -> Running {
    let mut run = app.run_on("x").start();
    run.says("holding 64 MiB");
    assert_eq!(run.executors().len(), 2, "{:#?}", run.processes());
    run
}

#[test]
fn a_killed_node_takes_everything_with_it() {
    let app = app_of("holds_memory");
    let run = holding(&app);
    run.signal(Signal::SIGKILL);
    let run = run.finish();
    println!(
        "everything was gone after {} ms",
        run.buried_after.as_millis()
    );
    assert_eq!(run.status.signal(), Some(9));
}

#[test]
fn a_killed_scheduler_ends_the_run() {
    let app = app_of("holds_memory");
    let run = holding(&app);
    run.scheduler().signal(Signal::SIGKILL);
    run.finish().exits(1).complains(&["scheduler", "SIGKILL"]);
}

#[test]
fn a_killed_zygote_ends_its_executors_and_what_ran_there() {
    let app = app_of("holds_memory");
    let run = holding(&app);
    let executors = run.executors();
    run.zygote().signal(Signal::SIGKILL);
    run.finish()
        .exits(1)
        .complains(&["holds_memory", "zygote", "SIGKILL"]);
    assert!(executors.iter().all(|executor| !executor.is_alive()));
}

#[test]
fn a_killed_executor_fails_its_invocation_only() {
    let app = app_of("holds_memory");
    let run = holding(&app);
    for executor in run.executors() {
        executor.signal(Signal::SIGKILL);
    }
    run.finish()
        .exits(1)
        .complains(&["holds_memory", "SIGKILL"]);
}

#[test]
fn an_interrupt_ends_cleanly_with_130() {
    for entry in ["holds_memory", "is_stubborn", "is_considerate"] {
        let app = app_of(entry);
        let mut run = app.run_on("x").start();
        run.says(if entry == "holds_memory" {
            "holding"
        } else {
            "being"
        });
        run.signal(Signal::SIGINT);
        run.finish().exits(130);
    }
}

#[test]
fn an_interrupt_from_the_terminal_reaches_all_processes_and_ends_cleanly_too() {
    let app = app_of("is_stubborn");
    let mut run = app.run_on("x").start();
    run.says("being stubborn");
    // A terminal sends it to the whole foreground group, which is that of the command.
    let group = nix::unistd::Pid::from_raw(run.pid());
    nix::sys::signal::killpg(group, Signal::SIGINT).expect("interrupt the group");
    run.finish().exits(130);
}

#[test]
fn a_timeout_tells_the_function_and_kills_one_that_does_not_listen() {
    let considerate = app_of("is_considerate");
    let run = considerate
        .run_on("x")
        .args(["--timeout", "300ms"])
        .finish()
        .exits(124);
    run.complains(&["told to stop"]);
    let stubborn = app_of("is_stubborn");
    stubborn
        .run_on("x")
        .args(["--timeout", "300ms"])
        .finish()
        .exits(124);
}

#[test]
fn a_served_node_that_loses_its_scheduler_stops_and_says_so() {
    let app = app_of("echo");
    let server = Server::start(&[&app]);
    server.running().scheduler().signal(Signal::SIGKILL);
    server.wait().exits(1).complains(&["scheduler"]);
}

#[test]
fn a_served_node_that_loses_its_zygote_goes_on_with_another() {
    let app = app_of("echo");
    let server = Server::start(&[&app]);
    let zygote = server.running().zygote();
    zygote.signal(Signal::SIGKILL);
    until("the app has executors of another zygote", || {
        !zygote.is_alive()
            && server.running().executors().len() == 2
            && server.counter("deaths", "executors") == 2
    });
    let answer = server.unix().post("/v1/apps/deaths/functions/echo", "x");
    assert_eq!(answer.is(200).text(), "x");
    assert_ne!(server.running().zygote().pid, zygote.pid);
    server.stop().exits(0).complains(&["the zygote died"]);
}

#[test]
fn a_served_node_replaces_executors_that_are_killed() {
    let app = app_of("echo");
    let server = Server::start(&[&app]);
    let mut client = server.unix();
    for round in 0..5 {
        for executor in server.running().executors() {
            executor.signal(Signal::SIGKILL);
        }
        until("the app has executors again", || {
            server.running().executors().len() == 2 && server.counter("deaths", "executors") == 2
        });
        let answer = client.post("/v1/apps/deaths/functions/echo", format!("round {round}"));
        assert_eq!(answer.is(200).text(), format!("round {round}"));
    }
    server.stop().exits(0);
}

#[test]
fn a_terminated_node_drains_and_a_second_signal_stops_it_at_once() {
    let app = app_of("echo");
    let server = Server::start(&[&app]);
    server.stop().exits(0);
    let app = app_of("is_stubborn");
    let server = Server::start(&[&app]);
    let answer = server.unix().post("/v1/apps/deaths?wait=false", "x");
    assert_eq!(answer.status, 202);
    until("the function runs", || {
        server.running().stderr_so_far().contains("being stubborn")
    });
    server.running().signal(Signal::SIGTERM);
    server.running().signal(Signal::SIGTERM);
    let run = server.wait();
    assert!(
        run.files_left.is_empty(),
        "left behind: {:?}",
        run.files_left
    );
}
