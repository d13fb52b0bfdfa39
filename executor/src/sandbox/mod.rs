//! What shuts functions in: the levels of `isolation`, and how a new executor enters one.
//!
//! `setup.rs` calls [`limit`] while it still may raise limits, and [`enter`] when all memory is
//! mapped and every descriptor closed, before any code of a function is loaded: its constructors
//! and PHR_INIT run inside. Nothing here costs a hop anything.
//!
//! - `calls.rs`: which system calls are refused, as data;
//! - `files.rs`: which files can be reached (Landlock);
//! - `limits.rs`: how much memory and how many threads;
//! - `offers.rs`: which of these the machine has.

mod calls;
mod files;
mod limits;
mod offers;

use std::io;
use std::ops::Range;

use rustix::process::DumpableBehavior;
use serde::{Deserialize, Serialize};

pub use limits::{STACK_BYTES_MAX, THREADS_PER_EXECUTOR, limit, machine_bytes, private_bytes};
pub use offers::{Level, Offers};

/// How an app's executors are shut in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// How far.
    pub level: Level,
    /// Files and directories that can be read, beside the working directory and what every process
    /// needs.
    pub readable: Vec<String>,
    /// Those that can be written, too.
    pub writable: Vec<String>,
    /// TCP ports that can be connected to; none: there are no sockets at all.
    pub connect: Vec<u16>,
    /// Private memory of a process, bytes; `None`: no limit of its own.
    pub private_memory_bytes: Option<u64>,
}

/// Why a process could not be shut in.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The kernel refused a step.
    #[error("{step}: {error}")]
    System {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// The filter of system calls.
    #[error("filtering system calls: {0}")]
    Calls(#[from] seccompiler::Error),
    /// The rules for files.
    #[error("restricting files: {0}")]
    Files(#[from] landlock::RulesetError),
    /// Landlock was there when the app was deployed.
    #[error("restricting files: the kernel did not do so")]
    NotRestricted,
}

/// Shuts the calling process in, for good. It has one thread, and its app's memory lies in
/// `window`.
///
/// # Errors
/// [`SandboxError`]; the process may be half shut in, and should end.
pub fn enter(sandbox: &Sandbox, window: &Range<u64>) -> Result<(), SandboxError> {
    if sandbox.level == Level::None {
        return Ok(());
    }
    let doing = |step| {
        move |error: rustix::io::Errno| SandboxError::System {
            step,
            error: error.into(),
        }
    };
    rustix::thread::set_no_new_privs(true).map_err(doing("giving up new privileges"))?;
    // Nobody of the same user may look into it, and it leaves no core.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(doing("becoming non-dumpable"))?;
    files::restrict(sandbox)?;
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let filter = calls::filter(own, window, !sandbox.connect.is_empty())?;
    Ok(seccompiler::apply_filter(&filter)?)
}
