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
        _ => {
            let arguments: Vec<String> = std::env::args().skip(1).collect();
            tests(&arguments);
            ExitCode::SUCCESS
        }
    }
}

const TESTS: &[(&str, fn())] = &[
    (
        "a_chain_is_measured_and_written",
        a_chain_is_measured_and_written,
    ),
    ("a_pair_is_measured_by_size", a_pair_is_measured_by_size),
    (
        "types_of_triggers_are_measured_alone_and_among_others",
        types_of_triggers_are_measured_alone_and_among_others,
    ),
    (
        "durable_sends_are_held_against_the_bare_disk",
        durable_sends_are_held_against_the_bare_disk,
    ),
    (
        "recoveries_are_measured_from_both_deaths",
        recoveries_are_measured_from_both_deaths,
    ),
    (
        "throughput_is_a_rate_beside_the_bare_one",
        throughput_is_a_rate_beside_the_bare_one,
    ),
    (
        "functions_that_work_are_compared_by_executors",
        functions_that_work_are_compared_by_executors,
    ),
    (
        "fans_are_measured_whole_and_per_branch",
        fans_are_measured_whole_and_per_branch,
    ),
    (
        "starts_are_measured_cold_and_warm",
        starts_are_measured_cold_and_warm,
    ),
    (
        "calls_are_measured_by_each_way",
        calls_are_measured_by_each_way,
    ),
    (
        "wakes_are_measured_under_both_policies",
        wakes_are_measured_under_both_policies,
    ),
    (
        "interactions_are_measured_among_sessions_and_executors",
        interactions_are_measured_among_sessions_and_executors,
    ),
    ("what_cannot_be_is_refused", what_cannot_be_is_refused),
];

/// As much of a test harness as test runners ask for: `--list`, and the names of those to run.
/// None is ignored.
fn tests(arguments: &[String]) {
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--list") {
        for (name, _) in TESTS.iter().filter(|_| !has("--ignored")) {
            println!("{name}: test");
        }
        return;
    }
    let names: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let is_wanted = |name: &str| match &names[..] {
        [] => true,
        names if has("--exact") => names.iter().any(|wanted| *wanted == name),
        names => names.iter().any(|wanted| name.contains(wanted.as_str())),
    };
    let cpus = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count());
    if cpus < 2 {
        let error = run(&["chain"]).unwrap_err();
        assert!(error.contains("two CPUs"), "{error}");
        println!("one CPU: the scenarios say that there is no floor");
        return;
    }
    let mut passed = 0;
    for (_, test) in TESTS.iter().filter(|(name, _)| is_wanted(name)) {
        test();
        passed += 1;
    }
    println!("test result: ok. {passed} passed; 0 failed");
}

fn run(arguments: &[&str]) -> Result<(), String> {
    let program = std::iter::once("bench");
    let cli = Cli::try_parse_from(program.chain(arguments.iter().copied()))
        .map_err(|error| error.to_string())?;
    let directory = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
        .map_err(|error| error.to_string())?;
    pheromone_bench::run(&cli.scenario, directory.path(), &|_| ())
        .map_err(|error| format!("{error:#}"))
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

/// The number of this name in each repetition of a point.
fn scalars(point: &Value, name: &str) -> Vec<f64> {
    let repetitions = point["repetitions"].as_array().expect("a list");
    repetitions
        .iter()
        .map(|repetition| {
            let scalars = repetition["scalars"].as_array().expect("a list");
            let found = scalars.iter().find(|scalar| scalar["name"] == name);
            let value = found.and_then(|scalar| scalar["value"].as_f64());
            value.unwrap_or_else(|| panic!("no number {name} in {repetition}"))
        })
        .collect()
}

fn durable_sends_are_held_against_the_bare_disk() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = tempfile::tempdir().expect("a directory");
    let path = data.path().to_string_lossy();
    let report = measured(
        directory.path(),
        &[
            "durable",
            "--senders",
            "1,3",
            "--sends",
            "40",
            "--warm-up",
            "5",
            "--size",
            "100",
            "--data",
            &path,
        ],
    );
    let settings = report["settings"].to_string();
    assert!(settings.contains("file system"), "{settings}");
    for (point, senders) in report["points"]
        .as_array()
        .expect("a list")
        .iter()
        .zip([1, 3])
    {
        assert_eq!(point["value"], senders);
        assert_eq!(point["groups"][0]["placement"], "any");
        for sends in series(point, "durable send") {
            assert_eq!(sends["count"], 40 * senders, "{sends}");
        }
        for bare in series(point, "bare fdatasync") {
            assert_eq!(bare["count"], 40, "{bare}");
        }
        for name in ["durable sends", "bare fdatasyncs", "sends / fdatasyncs"] {
            let all = scalars(point, name);
            assert!(all.iter().all(|&value| value > 0.0), "{name}: {all:?}");
        }
    }
    let left = fs::read_dir(data.path()).expect("it is there").count();
    assert_eq!(left, 0, "nothing stays in the directory");
}

fn recoveries_are_measured_from_both_deaths() {
    let directory = tempfile::tempdir().expect("a directory");
    let report = measured(
        directory.path(),
        &[
            "recover",
            "--deaths",
            "4",
            "--warm-up",
            "1",
            "--repetitions",
            "1",
        ],
    );
    let points = report["points"].as_array().expect("a list");
    let texts: Vec<_> = points.iter().map(|point| point["text"].as_str()).collect();
    let expected = [
        "abort, 1 executor",
        "kill -9, 1 executor",
        "abort, 2 executors",
        "kill -9, 2 executors",
    ];
    assert_eq!(texts, expected.map(Some));
    for point in points {
        for name in ["recovery", "bare death, waitpid, fork"] {
            for times in series(point, name) {
                assert_eq!(times["count"], 4, "{name}: {times}");
                let min_ns = times["min_ns"].as_u64();
                assert!(
                    min_ns > Some(1000),
                    "a process does not die in no time: {times}"
                );
            }
        }
    }
}

fn throughput_is_a_rate_beside_the_bare_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let load = [
        "throughput",
        "--inflight",
        "1,70",
        "--executors",
        "1,2",
        "--hops",
        "600",
    ];
    // Spinning executors that share a core take a time slice for each hop to the other.
    let few = [
        "--sessions",
        "1",
        "--repetitions",
        "1",
        "--idle",
        "adaptive",
    ];
    let report = measured(directory.path(), &[&load[..], &few].concat());
    let points = report["points"].as_array().expect("a list");
    let texts: Vec<_> = points.iter().map(|point| point["text"].as_str()).collect();
    let expected = [
        "1, 1 executor",
        "70, 1 executor",
        "1, 2 executors",
        "70, 2 executors",
    ];
    assert_eq!(texts, expected.map(Some));
    for point in points {
        let chains = point["value"].as_u64().expect("a number");
        for hops in series(point, "hop") {
            assert_eq!(hops["count"], 600 / chains * chains, "{hops}");
        }
        for name in ["interactions", "bare hops", "bare / interactions"] {
            let all = scalars(point, name);
            assert!(all.iter().all(|&value| value > 0.0), "{name}: {all:?}");
        }
        let is_compared = point["text"]
            .as_str()
            .is_some_and(|text| text.ends_with("2 executors"));
        let said = point.to_string().contains("rate / that");
        assert_eq!(said, is_compared, "{point}");
    }
}

fn functions_that_work_are_compared_by_executors() {
    let directory = tempfile::tempdir().expect("a directory");
    let load = ["throughput", "--inflight", "4", "--work", "20us,2ms"];
    let few = ["--hops", "80", "--sessions", "1", "--repetitions", "1"];
    let pools = ["--executors", "1,2", "--idle", "adaptive"];
    let report = measured(directory.path(), &[&load[..], &few, &pools].concat());
    let points = report["points"].as_array().expect("a list");
    let texts: Vec<_> = points.iter().map(|point| point["text"].as_str()).collect();
    let expected = [
        "4, 20 us, 1 executor",
        "4, 2 ms, 1 executor",
        "4, 20 us, 2 executors",
        "4, 2 ms, 2 executors",
    ];
    assert_eq!(texts, expected.map(Some));
    for (at, point) in points.iter().enumerate() {
        for hops in series(point, "hop") {
            assert_eq!(hops["count"], 80, "{hops}");
        }
        let at_work = scalars(point, "at work");
        assert!(
            !at_work.is_empty() && at_work.iter().all(|&part| part > 0.0),
            "{at_work:?}"
        );
        if at >= 2 {
            for hops in series(point, "hop, with the first number") {
                assert_eq!(hops["count"], 80, "{hops}");
            }
        }
    }
}

fn fans_are_measured_whole_and_per_branch() {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, whole) in [("fanout", "fanout whole"), ("fanin", "fanin whole")] {
        let few = ["--sessions", "3", "--warm-up", "1", "--repetitions", "1"];
        let wide = [
            name,
            "--width",
            "1,50",
            "--executors",
            "2",
            "--idle",
            "adaptive",
        ];
        let report = measured(directory.path(), &[&wide[..], &few].concat());
        for (point, width) in report["points"]
            .as_array()
            .expect("a list")
            .iter()
            .zip([1, 50])
        {
            assert_eq!(point["value"], width);
            for times in series(point, whole) {
                assert_eq!(times["count"], 3, "{times}");
            }
            let per_branch = scalars(point, "per branch");
            assert!(per_branch.iter().all(|&ns| ns > 0.0), "{per_branch:?}");
        }
    }
}

fn starts_are_measured_cold_and_warm() {
    let directory = tempfile::tempdir().expect("a directory");
    let few = [
        "start",
        "--starts",
        "3",
        "--warm",
        "5",
        "--repetitions",
        "1",
    ];
    let report = measured(directory.path(), &few);
    let point = &report["points"][0];
    for (name, count) in [
        ("cold start", 3),
        ("library loaded to called", 3),
        ("processor time until loaded", 3),
        ("processor time until called", 3),
        ("warm start", 5),
        ("bare fork", 3),
        ("bare dlopen", 3),
    ] {
        for times in series(point, name) {
            assert_eq!(times["count"], count, "{name}: {times}");
        }
    }
    for (cold, used) in series(point, "cold start")
        .iter()
        .zip(series(point, "processor time until called"))
    {
        let (cold, used) = (cold["max_ns"].as_u64(), used["min_ns"].as_u64());
        assert!(
            cold > used,
            "a start takes longer than its process works: {cold:?}, {used:?}"
        );
    }
}

fn calls_are_measured_by_each_way() {
    let directory = tempfile::tempdir().expect("a directory");
    let few = [
        "call",
        "--calls",
        "20",
        "--warm-up",
        "2",
        "--repetitions",
        "1",
    ];
    let report = measured(directory.path(), &few);
    let points = report["points"].as_array().expect("a list");
    let texts: Vec<_> = points.iter().map(|point| point["text"].as_str()).collect();
    assert_eq!(
        texts,
        ["in process", "HTTP, Unix socket", "HTTP, TCP"].map(Some)
    );
    for point in points {
        for name in ["call", "bare echo"] {
            for times in series(point, name) {
                assert_eq!(times["count"], 20, "{name}: {times}");
            }
        }
    }
}

fn wakes_are_measured_under_both_policies() {
    let directory = tempfile::tempdir().expect("a directory");
    let few = [
        "wake",
        "--wakes",
        "10",
        "--gap",
        "20us,3ms",
        "--repetitions",
        "1",
    ];
    let report = measured(directory.path(), &few);
    let points = report["points"].as_array().expect("a list");
    let texts: Vec<_> = points.iter().map(|point| point["text"].as_str()).collect();
    let expected = [
        "20 us, adaptive",
        "3 ms, adaptive",
        "20 us, spin",
        "3 ms, spin",
    ];
    assert_eq!(texts, expected.map(Some));
    for point in points {
        for name in ["wake", "timer", "bare futex wake"] {
            for times in series(point, name) {
                assert_eq!(times["count"], 10, "{name}: {times}");
            }
        }
        for name in ["scheduler CPU", "executor CPU"] {
            let all = scalars(point, name);
            assert!(all.iter().all(|&part| part >= 0.0), "{name}: {all:?}");
        }
    }
    // After 3 ms an adaptive executor sleeps.
    let parts = scalars(&points[1], "wake's part of the scheduler");
    assert!(
        !parts.is_empty() && parts.iter().all(|&ns| ns > 0.0),
        "{parts:?}"
    );
}

fn interactions_are_measured_among_sessions_and_executors() {
    let directory = tempfile::tempdir().expect("a directory");
    let crowds = ["scale", "--sessions", "1,5000", "--executors", "1,3"];
    let asleep = ["--idle", "adaptive"];
    let few = [
        "--interactions",
        "50",
        "--warm-up",
        "5",
        "--repetitions",
        "1",
    ];
    let report = measured(directory.path(), &[&crowds[..], &few, &asleep].concat());
    let points = report["points"].as_array().expect("a list");
    assert_eq!(points.len(), 4);
    assert_eq!(points[3]["text"], "5000 sessions, 3 executors");
    for point in points {
        for name in ["next hop", "first hop"] {
            for times in series(point, name) {
                assert_eq!(times["count"], 50, "{name}: {times}");
            }
        }
    }
    let grown = scalars(&points[2], "scheduler +private");
    assert!(
        grown.iter().all(|&bytes| bytes > 0.0),
        "sessions take memory: {grown:?}"
    );
}

fn what_cannot_be_is_refused() {
    for (arguments, part) in [
        (&["chain", "--length", "0"][..], "0"),
        (&["chain", "--length", "1048577"], "1048577"),
        (&["trigger", "--type", "by_nam"], "by_name"),
        (&["trigger", "--triggers", "65536"], "65536"),
        (&["trigger", "--objects", "65"], "65"),
        (&["throughput", "--inflight", "65537"], "65537"),
        (&["throughput", "--work", "101ms"], "100ms at most"),
        (&["throughput", "--work", "5"], "is no gap"),
        (&["fanin", "--width", "0"], "0"),
        (&["call", "--size", "17MiB"], "1 byte to 16 MiB"),
        (&["wake", "--gap", "61s"], "1us to 60s"),
        (&["wake", "--gap", "10"], "is no gap"),
        (&["scale", "--sessions", "16000001"], "16000001"),
        (&["pair", "--size", "7"], "at least 8 bytes"),
        (&["durable", "--senders", "0"], "0"),
        (&["durable", "--size", "65MiB"], "1 byte to 64 MiB"),
        (&["durable", "--data", "/nonexistent"], "/nonexistent"),
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
