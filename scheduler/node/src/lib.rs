//! The node: what a program embeds, and what `pheromone serve` runs, to have apps on this machine.
//!
//! It supervises processes (schedulers, zygote, executors), carries requests in and responses out,
//! and answers questions about itself. It decides nothing about sessions, objects or triggers; the
//! schedulers do.
//!
//! - [`Node`]: start, deploy, submit, stop.
//! - [`http`]: the same over TCP and a Unix socket.
//! - `supervisor`: the thread that owns processes and their output.
//! - `gateway`: the thread that owns the links to the schedulers and the ingress memory.
//! - [`plan`]: which CPU does what.
#![forbid(unsafe_code)]

mod app;
mod cgroup;
mod child;
mod config;
mod error;
mod failure;
#[doc(hidden)]
pub mod fuzzing;
mod gateway;
mod headers;
pub mod http;
mod isolation;
mod letters;
mod library;
mod memory;
mod node;
mod outgoing;
mod output;
mod packet;
mod pid_namespace;
pub mod plan;
mod pulse;
mod quota;
mod reading;
mod regions;
mod request;
mod routing;
mod status;
mod store;
mod supervisor;
mod way;
mod wiring;
mod zygote;

pub use app::{EXECUTOR_UID_FIRST, EXECUTOR_UID_LAST, probe};
pub use cgroup::CgroupOffer;
pub use config::{Idle, NodeConfig};
pub use error::NodeError;
pub use gateway::{ReplyTo, SESSIONS_LISTED_MAX};
pub use headers::HEADERS_BYTES_MAX;
pub use isolation::refuse_unprotected;
pub use letters::DeadLetter;
pub use node::{AppLimits, Node};
pub use output::{Output, OutputKind};
pub use pid_namespace::is_allowed as pid_namespace_is_allowed;
pub use plan::CorePlan;
pub use request::{
    FailureCause, FailureReport, Outcome, RefusalReason, Reply, Request, RequestId, To,
};
pub use status::{AppStats, AppStatus, ExecutorState, ExecutorStatus, SessionStatus};

/// Puts the calling thread on these CPUs. A preference: a container may refuse it.
pub(crate) fn pin_thread(cpus: &[u32]) {
    let mut set = nix::sched::CpuSet::new();
    for &cpu in cpus {
        // A number beyond what a set holds is no CPU of this machine.
        let _ = set.set(cpu as usize);
    }
    let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set);
}
