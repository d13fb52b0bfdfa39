//! The scheduler process: rings in, [`Core::step`](pheromone_core::Core::step), rings out.
//!
//! It is a process of its own so that no other thread's page-table work stops the loop, and so
//! that a bug in ingress is not a bug in scheduling. It maps control memory only, never a
//! payload. Everything that decides is in `pheromone-core`; this crate polls, translates, wakes
//! and sleeps.
//!
//! - [`protocol`]: what node and scheduler say to each other.
//! - [`peers`]: the executors' rings and which of them are polled.
//! - [`neighbours`]: the other schedulers.
//! - [`outbox`]: the core's actions, carried out.
//! - [`control`]: packets with descriptors from the node.
//! - [`turn`]: the loop.
#![forbid(unsafe_code)]

pub mod control;
pub mod neighbours;
pub mod outbox;
pub mod peers;
pub mod protocol;
pub mod reclaim;
pub mod turn;
mod writes;

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use nix::sys::signal::Signal;
use pheromone_core::{Core, CoreConfig, SpinPolicy};
use pheromone_shm::doorbell::{Bell, BellRope};
use pheromone_shm::inherit::inherit;
use pheromone_shm::link::{Half, Link, LinkEnd, NodeRope};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::neighbours::Neighbours;
use crate::protocol::{
    BELL_FD, CONTROL_FD, LINK_FD, NEIGHBOURS_FD, ROPE_FD, SchedulerConfig, SpinMessage,
};

/// The process's `main`: `argument` is its configuration as the node wrote it.
pub fn main(argument: &str) -> ExitCode {
    // Functions may run as the same user: none of them may look into this process. Where that is
    // not possible they are kept off by what shuts them in.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    match start(argument) {
        Ok(mut scheduler) => scheduler.run(),
        Err(reason) => {
            eprintln!("pheromone: scheduler: {reason}");
            ExitCode::from(70)
        }
    }
}

/// Writes a configuration as the argument of [`main`].
pub fn encode_config(config: &SchedulerConfig) -> String {
    let bytes = postcard::to_allocvec(config).expect("a configuration of numbers always encodes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decode_config(argument: &str) -> Option<SchedulerConfig> {
    let bytes: Option<Vec<u8>> = (0..argument.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(argument.get(at..at + 2)?, 16).ok())
        .collect();
    postcard::from_bytes(&bytes?).ok()
}

fn start(argument: &str) -> Result<turn::Scheduler, String> {
    let config = decode_config(argument)
        .ok_or("this command is started by a node, with an argument that only it can write")?;
    die_with_the_node(config.node)?;
    // Ctrl-C reaches the whole foreground group; the node alone decides what it means.
    ignore_terminal_signals().map_err(|e| format!("cannot ignore terminal signals: {e}"))?;
    pin(config.cpu);
    sleep_to_the_point();
    let (link_file, rope) = (descriptor(LINK_FD)?, descriptor(ROPE_FD)?);
    let link = NodeRope::map(rope.as_fd())
        .and_then(|rope| Link::scheduler_end(link_file.as_fd(), rope))
        .map_err(|e| format!("link: {e}"))?;
    let bell = Bell::map(descriptor(BELL_FD)?).map_err(|e| format!("node page: {e}"))?;
    bell.set_never_sleeps(config.never_sleeps);
    let neighbours = neighbours(&config)?;
    let core = Core::new(CoreConfig {
        scheduler_index: config.index,
        schedulers: config.schedulers,
        executor_cores: config.executor_cores,
        keeps_on_disk: config.keeps_on_disk,
        first_id: config.first_id,
        spin: match config.spin {
            SpinMessage::Never => SpinPolicy::Never,
            SpinMessage::Budget(ns) => SpinPolicy::Budget(ns),
            SpinMessage::Always => SpinPolicy::Always,
        },
    });
    Ok(turn::Scheduler::new(
        config,
        core,
        (link, neighbours),
        bell,
        descriptor(CONTROL_FD)?,
    ))
}

fn descriptor(number: i32) -> Result<OwnedFd, String> {
    inherit(number).map_err(|e| format!("descriptor {number} was not handed over: {e}"))
}

/// The links to the other schedulers, as the node has handed them over.
fn neighbours(config: &SchedulerConfig) -> Result<Neighbours, String> {
    let mut links = Vec::new();
    let mut next = NEIGHBOURS_FD;
    for other in 0..config.schedulers {
        if other == config.index {
            links.push(None);
            continue;
        }
        let (file, page) = (descriptor(next)?, descriptor(next + 1)?);
        next += 2;
        let end = link_to(other, config.index, &file, &page);
        links.push(Some(
            end.map_err(|e| format!("link to scheduler {other}: {e}"))?,
        ));
    }
    Ok(Neighbours::new(links))
}

fn link_to(other: u8, own: u8, file: &OwnedFd, page: &OwnedFd) -> std::io::Result<LinkEnd> {
    let half = if own < other {
        Half::First
    } else {
        Half::Second
    };
    Link::peer_end(file.as_fd(), half, BellRope::map(page.as_fd())?)
}

fn die_with_the_node(node: u32) -> Result<(), String> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|e| format!("cannot ask to die with the node: {e}"))?;
    if nix::unistd::getppid().as_raw().cast_unsigned() != node {
        return Err("the node was gone before the scheduler had started".into());
    }
    Ok(())
}

fn ignore_terminal_signals() -> nix::Result<()> {
    use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
    let mut set = SigSet::empty();
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ] {
        set.add(signal);
    }
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)
}

/// Pinning is a preference: a container may refuse it, and the loop is right without.
fn pin(cpu: Option<u32>) {
    let Some(cpu) = cpu else { return };
    let mut set = nix::sched::CpuSet::new();
    if set.set(cpu as usize).is_ok() {
        let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set);
    }
}

/// The kernel may end a sleep 50 us late, to end several at once; the scheduler's are ended at
/// their time. A preference as well.
fn sleep_to_the_point() {
    const TIMER_SLACK_NS: u64 = 1;
    let _ = nix::sys::prctl::set_timerslack(TIMER_SLACK_NS);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_survives_the_command_line() {
        let config = SchedulerConfig {
            index: 3,
            schedulers: 4,
            node: 4711,
            cpu: Some(7),
            executor_cores: 2,
            spin: SpinMessage::Budget(20_000),
            never_sleeps: true,
            keeps_on_disk: true,
            first_id: 0,
        };
        assert_eq!(decode_config(&encode_config(&config)), Some(config));
    }

    #[test]
    fn an_argument_that_is_no_configuration_is_refused() {
        for argument in ["", "zz", "0", "é0", "ff"] {
            assert_eq!(decode_config(argument), None, "{argument}");
        }
    }
}
