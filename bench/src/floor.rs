//! The floor: what the machine itself takes for what a hop consists of, between the same two CPUs,
//! through the same ring code, in the same run.
//!
//! Two processes, pinned as scheduler and executor are, speak over two rings of one memory file:
//! the *driver* on the executor's CPU sends a slot and spins until one comes back, the *responder*
//! on the scheduler's CPU answers at once. Two things are timed:
//!
//! - the bare round trip: the slot comes back as it was. One line there, one line back.
//! - the bare three-party hop: the responder finds the object's key in a table of 256 slots and
//!   sends the executor the function that waits for it, and does nothing else.
//!
//! With several slots under way at the same time the three-party hop has a rate, too ([`rate`]).
//!
//! The processes are this program, executed anew under a hidden name (the parent has threads, so it
//! must not fork).

mod line;
mod roles;

use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, anyhow, bail, ensure};
use pheromone_shm::limits::DISPATCH_SLOTS;

use crate::histogram::Distribution;

pub use roles::main;

/// Most slots under way at the same time: what the smaller ring holds, that to an executor.
pub const WINDOW_MAX: u32 = DISPATCH_SLOTS as u32;

/// First argument of the program when it is to play a role here.
pub const ARGUMENT: &str = "__floor";

/// The two CPUs of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cores {
    /// The scheduler's.
    pub scheduler: u32,
    /// The executor's (of several the first).
    pub executor: u32,
}

/// What the machine takes.
#[derive(Clone, Debug)]
pub struct Floor {
    /// Bare round trips.
    pub line: Distribution,
    /// Bare three-party hops.
    pub three_party: Distribution,
}

/// Measures both, some tens of milliseconds each.
///
/// # Errors
/// The processes could not be started, or one of them failed and said why.
pub fn measure(cores: Cores) -> Result<Floor> {
    let bytes = drive(cores, &[])?;
    let mut rest = &bytes[..];
    let line = Distribution::decode(&mut rest)?;
    let three_party = Distribution::decode(&mut rest)?;
    if line.count() == 0 || three_party.count() == 0 {
        bail!("the floor's driver counted nothing");
    }
    Ok(Floor { line, three_party })
}

/// Bare three-party hops a second with `window` of them under way, at most [`WINDOW_MAX`].
///
/// # Errors
/// As [`measure`].
pub fn rate(cores: Cores, window: u32) -> Result<f64> {
    let bytes = drive(cores, &[&window.to_string()])?;
    let rate = bytes
        .try_into()
        .map_err(|_| anyhow!("the floor's driver told no rate"))?;
    Ok(f64::from_le_bytes(rate))
}

/// Has a driver and its responder do what `arguments` say, and gives what the driver found.
fn drive(cores: Cores, arguments: &[&str]) -> Result<Vec<u8>> {
    let memory = line::create().context("memory for the rings")?;
    let _responder = Ended(start("responder", cores.scheduler, &memory, &[])?);
    let mut driver = Ended(start("driver", cores.executor, &memory, arguments)?);
    let mut bytes = Vec::new();
    if let Some(output) = &mut driver.0.stdout {
        output.read_to_end(&mut bytes)?;
    }
    let status = driver.0.wait()?;
    ensure!(status.success(), "the floor's driver ended with {status}");
    Ok(bytes)
}

/// The memory travels as standard input: the one descriptor that a child has without unsafe code.
fn start(role: &str, cpu: u32, memory: &OwnedFd, arguments: &[&str]) -> Result<Child> {
    let program = std::env::current_exe().context("the path of this program")?;
    Command::new(&program)
        .args([ARGUMENT, role, &cpu.to_string()])
        .args(arguments)
        .stdin(Stdio::from(memory.try_clone()?))
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{} could not be started", program.display()))
}

/// A process that does not outlive its measurement.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Both fail only where it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
