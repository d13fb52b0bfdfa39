//! `pheromone-bench-peers`: the same exchange of 64 bytes between two processes by other means,
//! interleaved with our own hop and handover in the same run, between the same two CPUs.
//!
//! This program is its own `pheromone`: node, scheduler, zygote, probe and floor start it anew
//! under their hidden names, and so do the two processes of an exchange.
#![forbid(unsafe_code)]

mod exchange;
mod futex;
mod iceoryx;
mod pipe;
mod socket;

use std::ffi::OsString;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use pheromone_bench::peers::{Options, Peer};
use pheromone_executor::{probe, zygote};

/// The same exchange by other means: pipe, Unix socket, futex, iceoryx2
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let role = arguments.next();
    match role.as_deref().and_then(|role| role.to_str()) {
        Some("__scheduler") => scheduler(arguments.next()),
        Some("__zygote") => zygote::main(),
        Some(probe::PROBE_ARGUMENT) => probe::main(arguments),
        Some(pheromone_bench::FLOOR_ARGUMENT) => pheromone_bench::floor_main(arguments),
        Some(exchange::ARGUMENT) => told(exchange::play(arguments)),
        _ => told(run(&Cli::parse().options)),
    }
}

fn scheduler(argument: Option<OsString>) -> ExitCode {
    match argument.as_deref().and_then(|text| text.to_str()) {
        Some(argument) => pheromone_scheduler::main(argument),
        None => told(Err(anyhow::anyhow!(
            "a scheduler is started with one argument"
        ))),
    }
}

fn told(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pheromone-bench-peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// In the order of the table.
fn run(options: &Options) -> Result<()> {
    let directory = tempfile::Builder::new()
        .prefix("pheromone-bench-")
        .permissions(Permissions::from_mode(0o755))
        .tempdir()
        .context("a temporary directory")?;
    let peers = exchange::MEANS.map(|means| Peer {
        name: means.name(),
        round_trips: Box::new(move |cores| exchange::round_trips(means, cores)),
    });
    pheromone_bench::peers::run(options, directory.path(), &peers)
}
