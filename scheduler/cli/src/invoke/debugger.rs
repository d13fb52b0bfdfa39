//! A debugger on the executor in which a function is about to run.

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use pheromone_node::Node;

use crate::exit::Failure;
use crate::host::in_path;
use crate::{signals, terminal};

/// Between two looks whether the debugger has attached.
const LOOK: Duration = Duration::from_millis(20);

/// How long a person who has left the debugger may seem not to have.
const LEAVE_WAIT: Duration = Duration::from_millis(500);

/// Which debugger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The GNU debugger
    Gdb,
}

/// A debugger that is there.
#[derive(Debug)]
pub struct Debugger {
    program: PathBuf,
}

/// A debugger that has attached, and runs.
#[derive(Debug)]
pub struct Attached {
    child: Child,
}

impl Debugger {
    /// Looks for it.
    pub fn find(kind: Kind) -> Result<Self, Failure> {
        let Kind::Gdb = kind;
        match in_path("gdb") {
            Some(program) => Ok(Self { program }),
            None => Err(Failure::usage(
                "there is no gdb in PATH: install it, or leave --debugger out",
            )),
        }
    }

    /// Attaches to the app's one executor, sets a breakpoint at the function, lets it go on, and
    /// returns when all that has been done.
    pub fn attach(self, node: &Node, app: &str, symbol: &str) -> Result<Attached, Failure> {
        let pid = node
            .apps()
            .into_iter()
            .filter(|status| status.name == app)
            .find_map(|status| status.executors.first()?.pid)
            .ok_or_else(|| Failure::failed("the app has no executor to attach to"))?;
        let folder = tempfile::tempdir()
            .map_err(|error| Failure::failed(format!("cannot make a directory: {error}")))?;
        let marker = folder.path().join("attached");
        let mut command = Command::new(&self.program);
        command
            .args([
                "-q",
                "-iex",
                "set breakpoint pending on",
                "-p",
                &pid.to_string(),
            ])
            .arg("-ex")
            .arg(format!("break -qualified {symbol}"))
            .arg("-ex")
            // The command's own directory has no blank in its name; a user's TMPDIR may.
            .arg(format!("shell touch '{}'", marker.display()))
            .args(["-ex", "continue"]);
        let mut child = signals::with_signals_unblocked(|| command.spawn())
            .map_err(|error| Failure::failed(format!("cannot start gdb: {error}")))?;
        while !marker.exists() {
            if let Some(status) = child.try_wait().ok().flatten() {
                return Err(not_attached(status));
            }
            std::thread::sleep(LOOK);
        }
        Ok(Attached { child })
    }
}

fn not_attached(status: ExitStatus) -> Failure {
    Failure::failed(format!(
        "gdb ended ({status}) before it had attached: where /proc/sys/kernel/yama/ptrace_scope is \
         1, only root may attach to a process that is no child of the debugger"
    ))
}

impl Attached {
    /// Waits until the person has left the debugger.
    pub fn wait(mut self) -> Result<(), Failure> {
        let until = Instant::now() + LEAVE_WAIT;
        while self.child.try_wait().ok().flatten().is_none() {
            if Instant::now() >= until {
                terminal::warn("the function has returned: quit gdb (after Ctrl-C) to go on");
                break;
            }
            std::thread::sleep(LOOK);
        }
        self.child
            .wait()
            .map_err(|error| Failure::failed(format!("cannot wait for gdb: {error}")))?;
        Ok(())
    }
}
