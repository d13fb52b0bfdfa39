//! A node with nothing to do does nothing.
#![forbid(unsafe_code)]

use std::thread;
use std::time::{Duration, Instant};

use pheromone_tests::{App, Server, until};

const FUNCTIONS: &str = include_str!("../functions/deaths.c");

fn app_named(name: &str) -> App {
    let manifest = format!(
        r#"
[app]
name = "{name}"
entry = "echo"
source = ["functions.c"]
executors = {{ min = 2, max = 2 }}
isolation = "none"

[functions.echo]
"#
    );
    App::with_functions(&manifest, FUNCTIONS)
}

#[test]
fn an_idle_node_uses_under_one_percent_of_a_core() {
    const WATCHED: Duration = Duration::from_secs(4);
    let apps = [app_named("one"), app_named("two")];
    let server = Server::start(&[&apps[0], &apps[1]]);
    // It has worked before: what was awake must go to sleep again.
    for app in ["one", "two"] {
        for _ in 0..100 {
            server.unix().post(&format!("/v1/apps/{app}"), "x").is(200);
        }
    }
    until("four executors are there", || {
        server.running().executors().len() == 4
    });
    thread::sleep(Duration::from_millis(500));
    let processes = server.running().processes();
    assert!(
        processes.len() >= 7,
        "node, scheduler, zygote, executors: {processes:#?}"
    );
    let used_ns = || {
        processes
            .iter()
            .map(|p| (p.run_time_ns(), p.cpu_time()))
            .collect::<Vec<_>>()
    };
    let start = Instant::now();
    let before = used_ns();
    thread::sleep(WATCHED);
    let after = used_ns();
    let wall = start.elapsed();
    let mut total = Duration::ZERO;
    for ((before, after), process) in before.iter().zip(&after).zip(&processes) {
        // Where the kernel keeps no schedstat, clock ticks must do.
        let used = match after.0 {
            0 => after.1 - before.1,
            _ => Duration::from_nanos(after.0 - before.0),
        };
        println!("{:>9} us  {}", used.as_micros(), process.command);
        total += used;
    }
    let share = total.as_secs_f64() / wall.as_secs_f64();
    println!(
        "idle: {:.3} % of a core over {} ms",
        share * 100.0,
        wall.as_millis()
    );
    assert!(share < 0.01, "{:.2} % of a core", share * 100.0);
    server.stop().exits(0);
}
