//! Shell completions and man pages, from the same definitions as `--help`.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::arguments::Cli;
use crate::exit::{Failure, Status};
use crate::terminal;

/// Options of `completions`.
#[derive(Args, Debug)]
pub struct Options {
    /// Which shell
    shell: Shell,
}

/// Options of `man`.
#[derive(Args, Debug)]
pub struct ManOptions {
    /// Where to write pheromone.1, pheromone-run.1, ...; made if it is not there
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// `pheromone completions`.
pub fn completions(options: &Options) -> Result<Status, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "pheromone", &mut text);
    terminal::print_bytes(&text)?;
    Ok(Status::Success)
}

/// `pheromone man`.
pub fn man(options: &ManOptions) -> Result<Status, Failure> {
    write_pages(&options.directory).map_err(|error| {
        Failure::failed(format!(
            "cannot write man pages into {}: {error}",
            options.directory.display()
        ))
    })?;
    Ok(Status::Success)
}

fn write_pages(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_man_page() {
        let directory = tempfile::tempdir().expect("a directory");
        write_pages(directory.path()).expect("pages");
        for page in ["pheromone.1", "pheromone-run.1", "pheromone-serve.1"] {
            let text = std::fs::read_to_string(directory.path().join(page)).expect(page);
            assert!(
                text.starts_with(".ie") || text.contains(".TH"),
                "{page}: {text}"
            );
        }
    }

    #[test]
    fn completions_know_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "pheromone", &mut text);
            let text = String::from_utf8(text).expect("text");
            for word in ["run", "serve", "inflight"] {
                assert!(text.contains(word), "{shell}: no {word}");
            }
        }
    }
}
