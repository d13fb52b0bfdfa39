//! `pheromone graph`: the app as a picture, on standard output.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use pheromone_manifest::{Format, Purpose};

use crate::exit::{Failure, Status};
use crate::{manifest, terminal};

/// Options of `graph`.
#[derive(Args, Debug)]
pub struct Options {
    /// The app's manifest
    #[arg(value_name = "APP.toml")]
    manifest: PathBuf,
    /// How to draw
    #[arg(
        long,
        default_value = "text",
        value_parser = PossibleValuesParser::new(Format::ALL.map(Format::name))
            .try_map(|name| name.parse::<Format>())
    )]
    format: Format,
}

/// `pheromone graph`.
pub fn execute(options: &Options) -> Result<Status, Failure> {
    let app = manifest::read_for(&options.manifest, Purpose::Look)?;
    let picture = pheromone_manifest::graph(&app, options.format);
    terminal::print(&picture)?;
    if !picture.ends_with('\n') {
        terminal::print("\n")?;
    }
    Ok(Status::Success)
}
