//! `peers`: the same exchange between two processes by other means, in the same run as our own hop
//! and handover.
//!
//! What does the exchanges comes from outside: a package of its own, so that none of what it needs
//! comes into the product.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::floor::Cores;
use crate::histogram::Distribution;
use crate::machine::Machine;
use crate::repetition::{Beside, repeat};
use crate::report::{Point, Report};
use crate::scenario::{chain, pair};
use crate::settings::Settings;

/// Bytes of what is exchanged.
const SIZE_BYTES: u64 = 64;
/// Handovers of each repetition before those that are counted.
const WARM_UP_HANDOVERS: u32 = 1000;

/// One other means.
pub struct Peer<'a> {
    /// As it is shown.
    pub name: &'static str,
    /// Round trips of 64 bytes between two processes on these CPUs: from just before sending to
    /// having the answer.
    pub round_trips: Box<dyn Fn(Cores) -> Result<Distribution> + 'a>,
}

/// Options of the scenario.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Hops of one session
    #[arg(long, value_name = "N", default_value_t = 10_000,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(crate::log::STEPS_MAX)))]
    pub length: u32,
    /// What all scenarios have.
    #[command(flatten)]
    pub settings: Settings,
}

/// `pheromone bench peers`: the program that has the other means.
#[derive(Clone, Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Elsewhere {
    /// Given to it as they are
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// The program, as its package calls it.
const PROGRAM: &str = "pheromone-bench-peers";

impl Elsewhere {
    /// Runs that program: the one beside this, or the first in PATH.
    ///
    /// # Errors
    /// There is none, which says how to have it; or it has failed.
    pub fn run(&self) -> Result<()> {
        let beside = std::env::current_exe().ok();
        let beside = beside.and_then(|own| Some(own.parent()?.join(PROGRAM)));
        let program = beside
            .filter(|program| program.is_file())
            .unwrap_or_else(|| PROGRAM.into());
        let status = Command::new(&program).args(&self.arguments).status();
        let status = status.with_context(|| {
            format!(
                "{PROGRAM} cannot be started; it is a package of its own, since what it compares \
                 with must not come into this program: in a checkout `cargo run --release \
                 --manifest-path bench/peers/Cargo.toml` builds and starts it, and `cargo install \
                 --path bench/peers` puts it where it is found"
            )
        })?;
        ensure!(status.success(), "{PROGRAM} ended with {status}");
        Ok(())
    }
}

/// Runs the scenario, prints its table and writes the files asked for.
///
/// # Errors
/// Whatever kept it from being measured or written.
pub fn run(options: &Options, directory: &Path, peers: &[Peer<'_>]) -> Result<()> {
    let outputs = &options.settings.outputs;
    outputs.check()?;
    outputs.write(&measure(options, directory, peers)?)
}

fn measure(options: &Options, directory: &Path, peers: &[Peer<'_>]) -> Result<Report> {
    let settings = &options.settings;
    let plan = settings.plan()?;
    let machine = Machine::here();
    let hops = chain::Options {
        length: options.length,
        sessions: 2,
        warm_up: 1,
        executors: 1,
        settings: settings.clone(),
    };
    let handovers = pair::Options {
        size: Vec::new(),
        handovers: options.length,
        warm_up: WARM_UP_HANDOVERS,
        executors: None,
        settings: settings.clone(),
    };
    let chain = chain::build(&machine, directory, 1)?;
    let pair = pair::build(&machine, directory, SIZE_BYTES, 1)?;
    let repetitions = repeat(
        "peers",
        settings.repetitions,
        Beside::Cores(plan.cores),
        || {
            let bed = chain.start(settings)?;
            let mut measured = chain::measure(&bed, &hops)?;
            bed.stop()?;
            measured.series.truncate(1);
            let bed = pair.start(settings)?;
            let handed = pair::measure(&bed, SIZE_BYTES, &handovers)?;
            bed.stop()?;
            measured.series.extend(handed.series);
            for peer in peers {
                let times = (peer.round_trips)(plan.cores)?;
                measured.floors.push((peer.name, times));
            }
            Ok(measured)
        },
    )?;
    let mut report = Report::new(
        "peers",
        machine,
        "a hop is from the start of one function to the start of the next, through the scheduler; \
         a handover is of an object of 64 bytes. The others are bare round trips of 64 bytes \
         between two processes on the same two CPUs: nobody matches, keeps sessions or frees \
         memory. Who waits sleeps, but polls with iceoryx2 and with us"
            .into(),
        "a session of hops and 1 000 handovers of each repetition, 2 000 round trips of each other \
         means, not counted"
            .into(),
        plan.rows(settings),
    );
    let text = options.length.to_string();
    let length = u64::from(options.length);
    report.points = vec![Point::new("length", length, text, &repetitions)];
    Ok(report)
}
