//! Apps share the machine by `weight`, with real processes.
#![forbid(unsafe_code)]

use std::fs;

use pheromone_tests::{App, Server, until};

const FUNCTIONS: &str = include_str!("../functions/weights.c");

/// Units that each app has to do: more than it gets done while a test looks.
const QUEUED: u64 = 4_000;

fn app(name: &str, weight: u32) -> App {
    let manifest = format!(
        r#"
[app]
name = "{name}"
entry = "makes_work"
source = ["functions.c"]
executors = {{ min = 4, max = 4 }}
isolation = "none"
weight = {weight}

[functions.makes_work]
[functions.works]

[buckets.work]
keep = "until_consumed"
[[buckets.work.triggers]]
type = "immediate"
function = "works"
"#
    );
    App::with_functions(&manifest, FUNCTIONS)
}

/// A CPU that this process may run on.
fn some_cpu() -> String {
    let status = fs::read_to_string("/proc/self/status").expect("it is there");
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .expect("the kernel says where we may run");
    let first = list.trim().split([',', '-']).next();
    first.expect("somewhere").to_owned()
}

#[test]
fn of_two_busy_apps_the_one_of_weight_three_gets_about_three_quarters_done() {
    const UNITS: u64 = 1_000;
    let (light, heavy) = (app("light", 1), app("heavy", 3));
    // All executors on one core: what they get of it is what the scheduler lets them have.
    let cpu = some_cpu();
    let options = ["--schedulers", "1", "--executor-cores", &cpu];
    let server = Server::start_with(&[&light, &heavy], &options);
    for name in ["light", "heavy"] {
        let path = format!("/v1/apps/{name}?wait=false");
        server.unix().post(&path, QUEUED.to_string()).is(202);
    }
    let done = || ["light", "heavy"].map(|name| server.counter(name, "invocations_total"));
    let queued = |name| server.counter(name, "queued");
    // From when both have sent all that they send, and have begun with it.
    until("both are at work", || {
        let sent = |name| server.counter(name, "objects_total") >= QUEUED;
        sent("light") && sent("heavy") && done().iter().all(|&done| done > 10)
    });
    let before = done();
    until("the heavy one has done its units", || {
        done()[1] >= before[1] + UNITS
    });
    let after = done();
    assert!(queued("light") > 0 && queued("heavy") > 0, "both had more");
    let units = [after[0] - before[0], after[1] - before[1]];
    let share = units[0] as f64 / (units[0] + units[1]) as f64;
    assert!((0.15..0.35).contains(&share), "{units:?}: {share:.3}");
    server.stop();
}
