//! `pheromone bench`: how long interactions take here, with the machine's own floor beside it.
//!
//! A scenario is one file in `scenario/`. It builds an app from embedded C functions ([`bed`]),
//! runs it on a real node, and reads what the functions stamped ([`log`]). [`repetition`] repeats
//! that between two measurements of the floor ([`floor`]) and labels each repetition by where the
//! cores were ([`placement`]); [`report`] gathers, [`table`], [`plot`] and [`output`] show it.
//! Nothing is simulated, and nothing here is on the path of an interaction.
#![forbid(unsafe_code)]

mod bed;
mod copy;
mod floor;
mod histogram;
mod log;
mod machine;
mod memory;
mod output;
mod placement;
mod plot;
mod repetition;
mod report;
mod scenario;
mod settings;
mod size;
mod table;

use std::path::Path;

use anyhow::Result;

pub use floor::{ARGUMENT as FLOOR_ARGUMENT, main as floor_main};
pub use scenario::{chain, pair, trigger};

/// `pheromone bench SCENARIO`.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Functions that do nothing, one after the other: the cost of a hop
    Chain(chain::Options),
    /// Two functions handing one object to each other: the cost by its size
    Pair(pair::Options),
    /// One object through each type of trigger, alone and among many: the cost of a firing
    Trigger(trigger::Options),
}

/// Runs a scenario with its app in `directory`, which any user can enter, prints its table and
/// writes the files asked for. The program must give [`FLOOR_ARGUMENT`] as first argument to
/// [`floor_main`], as the node's own hidden roles.
///
/// # Errors
/// Whatever kept it from being measured or written.
pub fn run(command: &Command, directory: &Path) -> Result<()> {
    let outputs = match command {
        Command::Chain(options) => &options.settings.outputs,
        Command::Pair(options) => &options.settings.outputs,
        Command::Trigger(options) => &options.settings.outputs,
    };
    outputs.check()?;
    let report = match command {
        Command::Chain(options) => chain::run(options, directory)?,
        Command::Pair(options) => pair::run(options, directory)?,
        Command::Trigger(options) => trigger::run(options, directory)?,
    };
    outputs.write(&report)
}
