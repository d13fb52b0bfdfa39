//! `pheromone serve`: a node with apps, over HTTP, until it is told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use pheromone_node::Idle;

use crate::duration;
use crate::exit::{Failure, Status};

/// Options of `serve`.
#[derive(Args, Debug)]
#[command(after_help = "SIGTERM and Ctrl-C drain and stop; a second signal stops at once.")]
pub struct Options {
    /// Manifests of apps to deploy at start
    #[arg(value_name = "APP.toml")]
    manifests: Vec<PathBuf>,
    /// Address for calls, puts and metrics. Beyond loopback it needs a token file
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7070")]
    listen: Vec<SocketAddr>,
    /// Unix socket for everything, for this user alone (default: $XDG_RUNTIME_DIR/pheromone.sock,
    /// or /tmp/pheromone-UID/pheromone.sock)
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Keep durable objects here
    #[arg(long, value_name = "DIR", hide = true)]
    data: Option<PathBuf>,
    /// Scheduler processes
    #[arg(long, value_name = "N", default_value_t = 1, hide = true)]
    schedulers: u16,
    /// CPUs for schedulers, as in 0 or 0,2-3
    #[arg(long, value_name = "LIST", value_parser = cpu_list)]
    scheduler_cores: Option<CpuList>,
    /// CPUs for executors
    #[arg(long, value_name = "LIST", value_parser = cpu_list)]
    executor_cores: Option<CpuList>,
    /// What scheduler and executors do when there is nothing to do
    #[arg(long, value_enum, default_value_t = IdlePolicy::Adaptive)]
    idle: IdlePolicy,
    /// A file with the bearer token that lets TCP manage apps too; readable by its owner alone
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,
    /// How long open sessions may go on once the node is told to stop
    #[arg(long, value_name = "D", default_value = "30s", value_parser = duration::parse)]
    drain: Duration,
}

/// `--idle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum IdlePolicy {
    /// Sleep after a short spin: an idle node uses no CPU
    Adaptive,
    /// Never sleep: lowest latency, whole cores used
    Spin,
}

impl From<IdlePolicy> for Idle {
    fn from(policy: IdlePolicy) -> Self {
        match policy {
            IdlePolicy::Adaptive => Self::Adaptive,
            IdlePolicy::Spin => Self::Spin,
        }
    }
}

/// CPUs, in the order given. (A type of its own: a bare Vec would be a repeated option.)
#[derive(Clone, Debug, PartialEq, Eq)]
struct CpuList(Vec<u32>);

/// Most CPUs that a list may name, so that `0-4000000000` is refused and not tried.
const CPUS_MAX: usize = 4096;

fn cpu_list(text: &str) -> Result<CpuList, String> {
    let wrong = || "write CPU numbers, as in 0 or 0,2-3".to_owned();
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| wrong());
        let (first, last) = (number(first)?, number(last)?);
        if first > last || (last - first) as usize >= CPUS_MAX - cpus.len().min(CPUS_MAX) {
            return Err(wrong());
        }
        cpus.extend(first..=last);
    }
    Ok(CpuList(cpus))
}

/// `pheromone serve`.
pub fn execute(options: Options) -> Result<Status, Failure> {
    let _ = options;
    Ok(Status::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_have_numbers_and_ranges() {
        assert_eq!(cpu_list("0"), Ok(CpuList(vec![0])));
        assert_eq!(cpu_list("0,2-4,9"), Ok(CpuList(vec![0, 2, 3, 4, 9])));
        for text in ["", "a", "1-", "3-1", "0-4000000000", "1,,2", "-1"] {
            assert!(cpu_list(text).is_err(), "{text}");
        }
    }
}
