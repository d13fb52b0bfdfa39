//! The `pheromone` command: reads what was asked for, hands it to the module of that command, and
//! turns its end into an exit status.
//!
//! The same program is the scheduler, the zygote and the probe: those roles are looked at before
//! anything else, while the process has one thread and has touched nothing.
#![forbid(unsafe_code)]

mod arguments;
mod bench;
mod bytes;
mod call;
mod calls;
mod check;
mod client;
mod completions;
mod dead_letters;
mod duration;
mod embedded;
mod exit;
mod graph;
mod host;
mod input;
mod invoke;
mod manage;
mod manifest;
mod new;
mod notify;
mod objects;
mod output;
mod process;
mod put;
mod responses;
mod role;
mod run;
mod schedulers;
mod serve;
mod signals;
mod stats;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Cli, Command};
use crate::exit::{Failure, Status};

fn main() -> ExitCode {
    if let Some(code) = role::play() {
        return code;
    }
    let ended = execute(Cli::parse().command);
    signals::let_end();
    match ended {
        Ok(status) => status.code(),
        Err(failure) => {
            failure.tell();
            failure.status.code()
        }
    }
}

fn execute(command: Command) -> Result<Status, Failure> {
    match command {
        Command::Run(options) => run::execute(options),
        Command::Invoke(options) => invoke::execute(options),
        Command::Check(options) => check::execute(options),
        Command::Graph(options) => graph::execute(&options),
        Command::New(options) => new::execute(&options),
        Command::Build(options) => manifest::execute(&options),
        Command::Serve(options) => serve::execute(options),
        Command::Deploy(options) => manage::deploy(&options),
        Command::Remove(options) => manage::remove(&options),
        Command::Cancel(options) => manage::cancel(&options),
        Command::Ps(options) => manage::ps(&options),
        Command::DeadLetters(options) => dead_letters::execute(&options),
        Command::Call(options) => call::execute(options),
        Command::Put(options) => put::execute(options),
        Command::Get(options) => objects::get(&options),
        Command::Delete(options) => objects::delete(&options),
        Command::Bench(options) => bench::execute(&options),
        Command::Completions(options) => completions::completions(&options),
        Command::Man(options) => completions::man(&options),
    }
}
