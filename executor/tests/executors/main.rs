//! Executors, run for real: a zygote, forked processes, C functions compiled by the system's
//! compiler. The tests play node and scheduler.
//!
//! This binary is also its own zygote, probe and node, told apart by the first argument, so it
//! brings its own small runner: `cargo test --test executors NAME` runs the tests whose name
//! contains NAME.

mod calls;
#[path = "../../../shm/tests/common/child.rs"]
mod child;
mod continuing;
mod crashes;
mod deciding;
mod failed;
mod harness;
mod hostile;
mod killed;
mod loading;
mod memory;
mod payloads;
mod probing;
mod processes;
mod steering;
#[path = "../../../shm/tests/common/stepped.rs"]
mod stepped;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// A name and what it runs.
pub type Test = (&'static str, fn());

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments
        .next()
        .as_deref()
        .and_then(|argument| argument.to_str())
    {
        Some(harness::ZYGOTE_ARGUMENT) => return pheromone_executor::zygote::main(),
        Some(pheromone_executor::probe::PROBE_ARGUMENT) => {
            return pheromone_executor::probe::main(arguments);
        }
        Some(processes::NODE_ARGUMENT) => return processes::node(),
        _ => {}
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let wanted: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let is_wanted = |name: &str| {
        let matches = |part: &&String| {
            if has("--exact") {
                name == part.as_str()
            } else {
                name.contains(part.as_str())
            }
        };
        wanted.is_empty() || wanted.iter().any(matches)
    };
    let tests = [
        payloads::TESTS,
        calls::TESTS,
        continuing::TESTS,
        steering::TESTS,
        deciding::TESTS,
        failed::TESTS,
        memory::TESTS,
        loading::TESTS,
        crashes::TESTS,
        killed::TESTS,
        processes::TESTS,
        hostile::TESTS,
        probing::TESTS,
    ];
    if has("--list") {
        // What a test runner asks for; none is ignored.
        for (name, _) in tests.into_iter().flatten().filter(|_| !has("--ignored")) {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let (mut succeeded, mut failed) = (0, 0);
    for (name, test) in tests.into_iter().flatten() {
        if !is_wanted(name) {
            continue;
        }
        println!("test {name} ...");
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += u32::from(!passed);
        succeeded += u32::from(passed);
    }
    if std::env::var_os("EXECUTOR_TEST_FOLDER").is_none() {
        // What is left of it is in the system's temporary folder.
        let _ = std::fs::remove_dir_all(harness::folder());
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {succeeded} passed; {failed} failed");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
