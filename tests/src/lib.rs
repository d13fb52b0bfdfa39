//! What the end-to-end tests share: apps written to temporary directories, the real `pheromone`
//! run on them under a watchdog, and a look afterwards whether anything was left behind.
//!
//! Nothing here knows how the system works inside; it sees what a user sees: commands, exit
//! statuses, HTTP, and what /proc says of the processes. It must never let a process outlive its
//! test, and never end a process that it did not start.
#![forbid(unsafe_code)]

mod app;
mod binary;
mod http;
mod processes;
mod random;
mod run;
mod server;

pub use app::{App, Command, check_header};
pub use binary::{pheromone, repository};
pub use http::{Answer, Client};
pub use processes::{Process, descendants_of, until};
pub use random::Random;
pub use run::{Finished, Running, WATCHDOG};
pub use server::Server;
