//! Reading and building an app, for every command that takes a manifest. Whatever is wrong is shown
//! as the manifest's own diagnostics, and is exit status 2.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use pheromone_manifest::{App, BuildOptions, BuildStep, Built, Purpose, ReadOptions, build};

use crate::exit::{Failure, Status};
use crate::terminal::{self, Paint};

/// Options of `build`.
#[derive(Args, Debug)]
pub struct Options {
    /// The app's manifest
    #[arg(value_name = "APP.toml")]
    manifest: PathBuf,
    /// Compilers at once (default: one per core)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
}

/// `pheromone build`.
pub fn execute(options: &Options) -> Result<Status, Failure> {
    let app = read(&options.manifest)?;
    let built = compile(&app, options.jobs.map(usize::from), true)?;
    let mut text = String::new();
    for library in &built.libraries {
        text.push_str(&format!("{}\n", library.display()));
    }
    terminal::print(&text)?;
    if built.compiled == 0 {
        say("everything is up to date");
    }
    Ok(Status::Success)
}

/// Reads a manifest in order to run its app, and shows its warnings.
pub fn read(path: &Path) -> Result<App, Failure> {
    read_for(path, Purpose::Run)
}

/// Reads a manifest for this purpose, and shows its warnings.
pub fn read_for(path: &Path, purpose: Purpose) -> Result<App, Failure> {
    let options = ReadOptions {
        purpose,
        ..ReadOptions::default()
    };
    let app = pheromone_manifest::read_with(path, &options)
        .map_err(|found| Failure::diagnostics(&found))?;
    if !app.warnings.is_empty() {
        let text = app.warnings.render(terminal::colours(&std::io::stderr()));
        // Where standard error is closed nobody wants to know.
        let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
    }
    Ok(app)
}

/// Builds what is not up to date. What is compiled is said where somebody may be waiting for it.
pub fn build_quietly(app: &App) -> Result<Built, Failure> {
    compile(app, None, std::io::stderr().is_terminal())
}

fn compile(app: &App, jobs: Option<usize>, tells: bool) -> Result<Built, Failure> {
    let progress = |step: BuildStep<'_>| {
        if tells {
            say(&match step {
                BuildStep::WaitsFor(directory) => {
                    format!("waiting for another build in {}", directory.display())
                }
                BuildStep::Compiles(source) => format!("compiling {}", short(app, source)),
                BuildStep::Links(library) => format!("linking {}", short(app, library)),
            });
        }
    };
    let options = BuildOptions {
        jobs,
        colours: terminal::colours(&std::io::stderr()),
        directory: None,
        progress: Some(&progress),
    };
    let built = build(app, &options)?;
    for message in &built.messages {
        // A compiler's warnings are its user's business, and no reason to stop.
        let _ = writeln!(std::io::stderr(), "{}", message.to_string().trim_end());
    }
    Ok(built)
}

/// A path as it looks from the manifest's directory.
fn short(app: &App, path: &Path) -> String {
    path.strip_prefix(&app.directory)
        .unwrap_or(path)
        .display()
        .to_string()
}

fn say(text: &str) {
    let text = terminal::paint(terminal::colours(&std::io::stderr()), Paint::Dim, text);
    // Nobody listens where standard error is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}
