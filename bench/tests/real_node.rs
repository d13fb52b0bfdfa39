//! All scenarios, small, on a real node.
//!
//! This program is its own `pheromone`: node, scheduler, zygote, probe and floor start it anew
//! under their hidden names, so it has a `main` of its own in place of the test harness.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use serde_json::Value;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    scenario: pheromone_bench::Command,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let role = arguments.next();
    match role.as_deref().and_then(|role| role.to_str()) {
        Some("__scheduler") => {
            let argument = arguments.next().expect("the node gives one argument");
            pheromone_scheduler::main(&argument.to_string_lossy())
        }
        Some("__zygote") => pheromone_executor::zygote::main(),
        Some(pheromone_executor::probe::PROBE_ARGUMENT) => {
            pheromone_executor::probe::main(arguments)
        }
        Some(pheromone_bench::FLOOR_ARGUMENT) => pheromone_bench::floor_main(arguments),
        Some("--list") => {
            // What a test runner asks for; none is ignored.
            if !std::env::args().any(|argument| argument == "--ignored") {
                println!("all_scenarios_measure_a_real_node: test");
            }
            ExitCode::SUCCESS
        }
        _ => {
            tests();
            ExitCode::SUCCESS
        }
    }
}

fn tests() {
    let cpus = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count());
    if cpus < 2 {
        let error = run(&["chain"]).unwrap_err();
        assert!(error.contains("two CPUs"), "{error}");
        println!("one CPU: the scenarios say that there is no floor");
        return;
    }
    a_chain_is_measured_and_written();
    a_pair_is_measured_by_size();
    types_of_triggers_are_measured_alone_and_among_others();
    what_cannot_be_is_refused();
    println!("test result: ok. 1 passed; 0 failed");
}

fn run(arguments: &[&str]) -> Result<(), String> {
    let program = std::iter::once("bench");
    let cli = Cli::try_parse_from(program.chain(arguments.iter().copied()))
        .map_err(|error| error.to_string())?;
    let directory = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
        .map_err(|error| error.to_string())?;
    pheromone_bench::run(&cli.scenario, directory.path()).map_err(|error| format!("{error:#}"))
}

/// Runs with `--json`, and reads it.
fn measured(directory: &Path, arguments: &[&str]) -> Value {
    let file = directory.join("run.json");
    let mut all = arguments.to_vec();
    let json = file.to_string_lossy();
    all.extend(["--json", &json]);
    if !arguments.contains(&"--repetitions") {
        all.extend(["--repetitions", "2"]);
    }
    run(&all).expect("it can be measured");
    let text = fs::read(&file).expect("the JSON is there");
    serde_json::from_slice(&text).expect("it is JSON")
}

/// The distribution of this name in each repetition of a point: placements are the machine's.
fn series<'a>(point: &'a Value, name: &str) -> Vec<&'a Value> {
    let repetitions = point["repetitions"].as_array().expect("a list");
    repetitions
        .iter()
        .map(|repetition| {
            let series = repetition["series"].as_array().expect("a list");
            let found = series.iter().find(|pair| pair[0] == name);
            &found.unwrap_or_else(|| panic!("no {name} in {repetition}"))[1]
        })
        .collect()
}

fn a_chain_is_measured_and_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let report = measured(
        directory.path(),
        &[
            "chain",
            "--length",
            "200",
            "--sessions",
            "3",
            "--warm-up",
            "1",
        ],
    );
    assert_eq!(report["scenario"], "chain");
    let point = &report["points"][0];
    for hop in series(point, "hop") {
        assert_eq!(hop["count"], 600, "three sessions of 200 hops: {hop}");
        assert!(hop["min_ns"].as_u64() > Some(10), "a hop takes time: {hop}");
    }
    let chains = series(point, "whole chain of 200");
    assert!(
        (2..=4).contains(&chains.len()),
        "2, and those in which CPUs moved made up for"
    );
    for floor in ["bare round trip", "bare three-party hop"] {
        for figures in series(point, floor) {
            assert!(
                figures["count"].as_u64() >= Some(100_000),
                "{floor}: {figures}"
            );
        }
    }
}

fn a_pair_is_measured_by_size() {
    let directory = tempfile::tempdir().expect("a directory");
    let report = measured(
        directory.path(),
        &[
            "pair",
            "--size",
            "8,1001,1MiB",
            "--handovers",
            "50",
            "--warm-up",
            "10",
        ],
    );
    let points = report["points"].as_array().expect("a list");
    let sizes: Vec<_> = points.iter().map(|point| point["value"].as_u64()).collect();
    assert_eq!(sizes, [Some(8), Some(1001), Some(1 << 20)]);
    for point in points {
        for handover in series(point, "handover") {
            assert_eq!(handover["count"], 50, "{handover}");
        }
        let scalars = point["repetitions"][0]["scalars"]
            .as_array()
            .expect("a list");
        let names: Vec<_> = scalars
            .iter()
            .filter_map(|scalar| scalar["name"].as_str())
            .collect();
        let expected = [
            "node +private",
            "scheduler +private",
            "executors +private",
            "memcpy",
        ];
        assert_eq!(names, expected);
    }
}

fn types_of_triggers_are_measured_alone_and_among_others() {
    let directory = tempfile::tempdir().expect("a directory");
    for (triggers, expected) in [("1", "alone"), ("50", "among 50")] {
        let kinds = ["by_set", "by_time", "dynamic_join", "dynamic_group"];
        let types = kinds.join(",");
        let arguments = ["trigger", "--type", &types, "--triggers", triggers];
        let few = ["--firings", "20", "--warm-up", "2", "--repetitions", "1"];
        let report = measured(directory.path(), &[&arguments[..], &few].concat());
        let points = report["points"].as_array().expect("a list");
        assert_eq!(points.len(), kinds.len());
        for (point, kind) in points.iter().zip(kinds) {
            assert_eq!(point["text"], format!("{kind} {expected}"));
            for firing in series(point, "firing") {
                assert_eq!(firing["count"], 20, "{firing}");
                assert!(firing["min_ns"].as_u64() > Some(10), "{point}: {firing}");
            }
        }
    }
}

fn what_cannot_be_is_refused() {
    for (arguments, part) in [
        (&["chain", "--length", "0"][..], "0"),
        (&["chain", "--length", "1048577"], "1048577"),
        (&["trigger", "--type", "by_nam"], "by_name"),
        (&["trigger", "--triggers", "65536"], "65536"),
        (&["trigger", "--objects", "65"], "65"),
        (&["pair", "--size", "7"], "at least 8 bytes"),
        (&["pair", "--size", "1 elephant"], "is no size"),
        (&["pair", "--size", "1000000TiB"], "are available"),
        (
            &["chain", "--json", "/nonexistent/x.json"],
            "/nonexistent/x.json",
        ),
        (&["chain", "--scheduler-core", "4000000"], "4000000"),
    ] {
        let error = run(arguments).expect_err("it is refused");
        assert!(error.contains(part), "{arguments:?}: {error}");
    }
}
