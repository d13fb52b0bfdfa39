//! `pheromone new`: a directory with an app that works, to start from.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use pheromone_manifest::Template;

use crate::exit::{Failure, Status};
use crate::terminal;

/// Options of `new`.
#[derive(Args, Debug)]
pub struct Options {
    /// The directory to make; its name becomes the app's
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// What to begin with
    #[arg(
        long,
        default_value = "chain",
        value_parser = PossibleValuesParser::new(Template::ALL.map(Template::name))
            .try_map(|name| name.parse::<Template>())
    )]
    template: Template,
}

/// `pheromone new`.
pub fn execute(options: &Options) -> Result<Status, Failure> {
    pheromone_manifest::new(&options.directory, options.template)
        .map_err(|error| Failure::usage(error.to_string()))?;
    let manifest = options.directory.join("app.toml");
    let text = format!(
        "made {}: read its README.md, then\n\n    pheromone run {}\n",
        options.directory.display(),
        manifest.display()
    );
    terminal::print(&text)?;
    Ok(Status::Success)
}
