//! The processes that the program starts of itself: they are told apart by their first argument,
//! and never reach the command line's own reading of arguments.

use std::ffi::OsString;
use std::process::ExitCode;

use pheromone_executor::{probe, zygote};

/// The role that this process was started for; `None`: it is the command.
pub fn play() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let role = arguments.next()?;
    match role.to_str()? {
        "__scheduler" => Some(scheduler(arguments.next())),
        "__zygote" => Some(zygote::main()),
        probe::PROBE_ARGUMENT => Some(probe::main(arguments)),
        pheromone_bench::FLOOR_ARGUMENT => Some(pheromone_bench::floor_main(arguments)),
        _ => None,
    }
}

fn scheduler(argument: Option<OsString>) -> ExitCode {
    match argument.as_deref().and_then(|text| text.to_str()) {
        Some(argument) => pheromone_scheduler::main(argument),
        None => {
            eprintln!("the scheduler is started by the node, with one argument");
            ExitCode::from(2)
        }
    }
}
