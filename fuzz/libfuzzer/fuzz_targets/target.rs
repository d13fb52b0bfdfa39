//! Whichever target `PHEROMONE_FUZZ_TARGET` names, under libFuzzer.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use pheromone_fuzz::{Target, target};

/// The target that is asked for.
fn asked() -> &'static Target {
    static ASKED: OnceLock<&Target> = OnceLock::new();
    ASKED.get_or_init(|| {
        let name = std::env::var("PHEROMONE_FUZZ_TARGET").unwrap_or_default();
        target(&name).unwrap_or_else(|| {
            eprintln!("PHEROMONE_FUZZ_TARGET is `{name}`, which is no target; `cargo run \
                       --package pheromone-fuzz` lists them");
            std::process::exit(2)
        })
    })
}

fuzz_target!(|bytes: &[u8]| (asked().run)(bytes));
