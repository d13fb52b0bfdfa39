//! `pheromone bench`: how long interactions take here, with the machine's own floor beside it.
//!
//! A scenario is one file in `scenario/`. It builds an app from embedded C functions ([`bed`]),
//! runs it on a real node, and reads what the functions stamped ([`log`]). [`repetition`] repeats
//! that between two measurements of the floor ([`floor`]) and labels each repetition by where the
//! cores were ([`placement`]); [`report`] gathers, [`table`], [`plot`] and [`output`] show it.
//! [`comparison`] makes a page's table ([`markdown`], [`section`]) of what runs have [`recorded`].
//! Nothing is simulated, and nothing here is on the path of an interaction.
#![forbid(unsafe_code)]

mod bare;
mod bed;
mod comparison;
mod copy;
mod disk;
mod echo;
mod floor;
mod gap;
mod histogram;
mod http;
mod log;
mod machine;
mod markdown;
mod output;
mod parts;
mod placement;
mod plot;
mod recorded;
mod repetition;
mod report;
mod scenario;
mod section;
mod settings;
mod size;
mod table;

use std::path::Path;

use anyhow::Result;

use output::Outputs;
use settings::Settings;

pub use floor::{ARGUMENT as FLOOR_ARGUMENT, Cores, main as floor_main};
pub use histogram::Distribution;
pub use scenario::{
    call, chain, durable, fan, pair, peers, recover, scale, start, throughput, trigger, wake,
};

/// `pheromone bench SCENARIO`.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Functions that do nothing, one after the other: the cost of a hop
    Chain(chain::Options),
    /// Two functions handing one object to each other: the cost by its size
    Pair(pair::Options),
    /// One object through each type of trigger, alone and among many: the cost of a firing
    Trigger(trigger::Options),
    /// Objects that are on disk before their sender goes on: rate and latency by senders
    Durable(durable::Options),
    /// From the death of an executor to the next attempt of what it was running
    Recover(recover::Options),
    /// Hops a second with many chains under way at the same time
    Throughput(throughput::Options),
    /// One function that starts many: whole and per branch
    Fanout(fan::Options),
    /// Many functions that start one, by a set: whole and per branch
    Fanin(fan::Options),
    /// A request for which a process must be started, and one for which it is there
    Start(start::Options),
    /// A request in and out, by each way into a node
    Call(call::Options),
    /// After nobody has had anything to do: how long it takes to get going
    Wake(wake::Options),
    /// An interaction among many open sessions, and beside many executors
    Scale(scale::Options),
    /// The same exchange by other means (pipe, socket, futex, iceoryx2): a program of its own
    Peers(peers::Elsewhere),
    /// What runs wrote with `--json`, as one table in Markdown
    Table(comparison::Options),
}

impl Command {
    /// None of what runs elsewhere, or measures nothing.
    fn settings(&self) -> Option<&Settings> {
        Some(match self {
            Self::Chain(options) => &options.settings,
            Self::Pair(options) => &options.settings,
            Self::Trigger(options) => &options.settings,
            Self::Durable(options) => &options.settings,
            Self::Recover(options) => &options.settings,
            Self::Throughput(options) => &options.settings,
            Self::Fanout(options) => &options.settings,
            Self::Fanin(options) => &options.settings,
            Self::Start(options) => &options.settings,
            Self::Call(options) => &options.settings,
            Self::Wake(options) => &options.settings,
            Self::Scale(options) => &options.settings,
            Self::Peers(_) | Self::Table(_) => return None,
        })
    }
}

/// Runs a scenario with its app in `directory`, which any user can enter, prints its table and
/// writes the files asked for. `remove_at_exit` hears of what is made elsewhere and removed at the
/// end, for a program that may be ended before. The program must give [`FLOOR_ARGUMENT`] as first
/// argument to [`floor_main`], as the node's own hidden roles.
///
/// # Errors
/// Whatever kept it from being measured or written.
pub fn run(command: &Command, directory: &Path, remove_at_exit: &dyn Fn(&Path)) -> Result<()> {
    let outputs = command.settings().map(|settings| &settings.outputs);
    outputs.map_or(Ok(()), Outputs::check)?;
    let report = match command {
        Command::Chain(options) => chain::run(options, directory)?,
        Command::Pair(options) => pair::run(options, directory)?,
        Command::Trigger(options) => trigger::run(options, directory)?,
        Command::Durable(options) => durable::run(options, directory, remove_at_exit)?,
        Command::Recover(options) => recover::run(options, directory)?,
        Command::Throughput(options) => throughput::run(options, directory)?,
        Command::Fanout(options) => fan::run(fan::Way::Out, options, directory)?,
        Command::Fanin(options) => fan::run(fan::Way::In, options, directory)?,
        Command::Start(options) => start::run(options, directory)?,
        Command::Call(options) => call::run(options, directory)?,
        Command::Wake(options) => wake::run(options, directory)?,
        Command::Scale(options) => scale::run(options, directory)?,
        Command::Peers(elsewhere) => return elsewhere.run(),
        Command::Table(options) => return options.run(),
    };
    outputs.map_or(Ok(()), |outputs| outputs.write(&report))
}
