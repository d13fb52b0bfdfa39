//! Runs one target for as long as you like, over its inputs and changed ones; what fails is made
//! small and kept where the tests find it.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use pheromone_fuzz::hunt::{self, Until};
use pheromone_fuzz::{TARGETS, Target, corpus, target};

/// Gives a part of Pheromone bytes that nobody has thought of.
#[derive(Parser)]
struct Arguments {
    /// Which part; without it, what there is.
    target: Option<String>,
    /// Inputs to be run alone.
    files: Vec<PathBuf>,
    /// How long to hunt.
    #[arg(long, value_name = "N", default_value_t = 60, conflicts_with = "runs")]
    seconds: u64,
    /// How many changed inputs to run instead.
    #[arg(long, value_name = "N")]
    runs: Option<u64>,
    /// The same seed makes the same inputs.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Where failing inputs are kept; by default with the others of the target.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Write the seeds into this folder, for other fuzzers, and hunt nothing.
    #[arg(long, value_name = "DIR")]
    write_seeds: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let Some(name) = &arguments.target else {
        for target in TARGETS {
            println!("{:14} {}", target.name, target.about);
        }
        return Ok(ExitCode::SUCCESS);
    };
    let Some(target) = target(name) else {
        bail!("there is no target `{name}`; without one, those that there are are listed");
    };
    let is_well = match &arguments.write_seeds {
        Some(folder) => write_seeds(target, folder)?,
        None if !arguments.files.is_empty() => run_files(target, &arguments.files)?,
        None => hunt(target, &arguments)?,
    };
    Ok(ExitCode::from(u8::from(!is_well)))
}

fn write_seeds(target: &Target, folder: &Path) -> anyhow::Result<bool> {
    for seed in (target.seeds)() {
        corpus::keep(folder, &seed).with_context(|| format!("write into {}", folder.display()))?;
    }
    Ok(true)
}

/// Runs these inputs, and lets what fails panic as it will.
fn run_files(target: &Target, files: &[PathBuf]) -> anyhow::Result<bool> {
    for file in files {
        let input = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
        println!(
            "{}: {} bytes of {}",
            target.name,
            input.len(),
            file.display()
        );
        (target.run)(&input);
    }
    Ok(true)
}

fn hunt(target: &Target, arguments: &Arguments) -> anyhow::Result<bool> {
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    let until = match arguments.runs {
        Some(runs) => Until::Runs(runs),
        None => Until::Time(Duration::from_secs(arguments.seconds)),
    };
    println!("{}: seed {seed}", target.name);
    let bag = hunt::hunt(target, seed, until).context("read the inputs that there are")?;
    let seconds = bag.took.as_secs_f64();
    println!(
        "{}: {} executions in {seconds:.1} s ({:.0} a second), {} inputs at the beginning, {} \
         failures",
        target.name,
        bag.runs,
        bag.runs as f64 / seconds,
        bag.inputs,
        bag.failures.len()
    );
    let folder = arguments.keep.clone();
    let folder = folder.unwrap_or_else(|| corpus::folder(target));
    for failure in &bag.failures {
        let said = hunt::keep(target, failure, &folder);
        println!(
            "{}",
            said.with_context(|| format!("write into {}", folder.display()))?
        );
    }
    Ok(bag.failures.is_empty())
}
