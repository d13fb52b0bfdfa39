//! `pheromone bench`: hands over to the crate that measures.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use clap::Args;

use crate::exit::{Failure, Status};
use crate::signals;

/// Options of `bench`.
#[derive(Args, Debug)]
pub struct Options {
    /// What to measure
    #[command(subcommand)]
    scenario: pheromone_bench::Command,
}

/// `pheromone bench`.
pub fn execute(options: &Options) -> Result<Status, Failure> {
    signals::end_at_first()?;
    let directory = tempfile::Builder::new()
        .prefix("pheromone-bench-")
        .permissions(Permissions::from_mode(0o755))
        .tempdir()
        .map_err(|error| Failure::failed(format!("cannot make a temporary directory: {error}")))?;
    let remove_at_exit = |path: &Path| signals::remove_at_exit(path.to_owned());
    remove_at_exit(directory.path());
    pheromone_bench::run(&options.scenario, directory.path(), &remove_at_exit)
        .map_err(|error| Failure::failed(format!("{error:#}")))?;
    Ok(Status::Success)
}
