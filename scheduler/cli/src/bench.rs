//! `pheromone bench`: hands over to the crate that measures.

use clap::Args;

use crate::exit::{Failure, Status};

/// Options of `bench`.
#[derive(Args, Debug)]
pub struct Options {
    /// What to measure
    #[command(subcommand)]
    scenario: pheromone_bench::Command,
}

/// `pheromone bench`.
pub fn execute(options: &Options) -> Result<Status, Failure> {
    pheromone_bench::run(&options.scenario)
        .map_err(|error| Failure::failed(format!("{error:#}")))?;
    Ok(Status::Success)
}
