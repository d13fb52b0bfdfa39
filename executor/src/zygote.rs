//! The zygote: a small process with one thread that forks executors and reports how they ended.
//!
//! It is started by the node as a fresh program, holds nothing of the node's but one socket, and
//! never runs user code, so that a fork of it is clean. It ends when the node does (the kernel
//! kills it, or its socket closes), and its executors end with it.

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::process::ExitCode;

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, Resource, Rlimit, set_dumpable_behavior};

use crate::fork::{self, Forked};
use crate::packet::{self, PacketError};
use crate::protocol::{FromZygote, Program, ToZygote};
use crate::setup::{App, Start, become_executor};
use crate::title;

/// The socket to the node, by convention of the zygote's start.
pub const SOCKET_FD: RawFd = 3;
/// Exit status after an error that ends the zygote, and with it the node.
const EXIT_FAILED: u8 = 70;
/// Largest program that is read: names and paths of 65 535 functions.
const PROGRAM_BYTES_MAX: u64 = 256 << 20;

/// Why the zygote had to end.
#[derive(Debug, thiserror::Error)]
enum ZygoteError {
    #[error("{0}")]
    Packet(#[from] PacketError),
    #[error("{what}: {error}")]
    System {
        what: &'static str,
        error: std::io::Error,
    },
    #[error("the node said something impossible: {0}")]
    Node(&'static str),
    #[error("an app's program does not decode: {0}")]
    Program(#[from] postcard::Error),
}

fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> ZygoteError {
    move |error| ZygoteError::System { what, error }
}

/// The zygote's whole life. The process must have one thread, and the socket at [`SOCKET_FD`].
pub fn main() -> ExitCode {
    title::set("pheromone: zygote");
    match Zygote::start().and_then(Zygote::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pheromone: zygote: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// What a terminal (Ctrl-C) or a service manager (SIGTERM to every process of a service) says is
/// meant for the node, which ends zygote and executors in order: they are in a session of their own
/// and begin with these signals ignored. Functions may handle them.
fn leave_terminal() {
    // It fails for the leader of a group, which is in none but its own.
    let _ = rustix::process::setsid();
    for asked in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: ignoring a signal installs no handler.
        let _ = unsafe { signal(asked, SigHandler::SigIgn) };
    }
}

/// Names one executor process in reports.
#[derive(Clone, Copy)]
struct Child {
    app: u16,
    slot: u16,
    incarnation: u32,
}

struct Zygote {
    socket: OwnedFd,
    signals: SignalFd,
    apps: HashMap<u16, App>,
    children: HashMap<i32, Child>,
    own: Pid,
    open_files: Rlimit,
}

impl Zygote {
    fn start() -> Result<Self, ZygoteError> {
        // Functions may run as the same user: none of them may look into this process. Executors
        // decide for themselves.
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .map_err(|error| system("asking to die with the node")(error.into()))?;
        let socket = pheromone_shm::inherit::inherit(SOCKET_FD)
            .map_err(system("taking over the socket to the node"))?;
        leave_terminal();
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_set_mask()
            .map_err(|error| system("blocking SIGCHLD")(error.into()))?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(|error| system("watching for exits")(error.into()))?;
        let open_files = rustix::process::getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: open_files.maximum,
            maximum: open_files.maximum,
        };
        // Each region of each app is a descriptor here. If it cannot be raised, the limit is met
        // later, with a message of its own.
        let _ = rustix::process::setrlimit(Resource::Nofile, raised);
        Ok(Self {
            socket,
            signals,
            apps: HashMap::new(),
            children: HashMap::new(),
            own: rustix::process::getpid(),
            open_files,
        })
    }

    fn run(mut self) -> Result<(), ZygoteError> {
        self.say(&FromZygote::Ready, None)?;
        loop {
            let mut watched = [
                PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
            ];
            match poll(&mut watched, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(system("waiting")(error.into())),
            }
            let (socket_ready, signal_ready) = (
                !watched[0].revents().is_empty(),
                !watched[1].revents().is_empty(),
            );
            if signal_ready {
                self.reap()?;
            }
            if socket_ready && !self.take_packet()? {
                return Ok(());
            }
        }
    }

    fn say(&self, message: &FromZygote, descriptor: Option<&OwnedFd>) -> Result<(), ZygoteError> {
        let descriptors: Vec<_> = descriptor
            .iter()
            .map(|descriptor| descriptor.as_fd())
            .collect();
        Ok(packet::send(&self.socket, message, &descriptors)?)
    }

    /// False when the node has closed its end.
    fn take_packet(&mut self) -> Result<bool, ZygoteError> {
        let Some((message, descriptors)) = packet::receive::<ToZygote>(&self.socket)? else {
            return Ok(false);
        };
        match message {
            ToZygote::App { app, program_bytes } => self.learn(app, program_bytes, descriptors)?,
            ToZygote::Regions { app, first } => self.take_regions(app, first, descriptors)?,
            ToZygote::Spawn {
                app,
                slot,
                incarnation,
                cpu,
            } => {
                self.spawn(
                    Child {
                        app,
                        slot,
                        incarnation,
                    },
                    cpu,
                    descriptors,
                )?;
            }
            ToZygote::Forget { app } => drop(self.apps.remove(&app)),
        }
        Ok(true)
    }

    fn learn(&mut self, app: u16, bytes: u64, files: Vec<OwnedFd>) -> Result<(), ZygoteError> {
        let mut files = files.into_iter();
        let file = files.next();
        let file = file.ok_or(ZygoteError::Node("an app without the file of its program"))?;
        let group = files.next();
        if bytes > PROGRAM_BYTES_MAX {
            return Err(ZygoteError::Node("an app with an endless program"));
        }
        let mut encoded = Vec::new();
        let mut file = std::fs::File::from(file);
        std::io::Seek::rewind(&mut file).map_err(system("reading an app's program"))?;
        file.take(bytes)
            .read_to_end(&mut encoded)
            .map_err(system("reading an app's program"))?;
        let program: Program = postcard::from_bytes(&encoded)?;
        let regions = (0..program.region_count).map(|_| None).collect();
        let known = App {
            program,
            regions,
            group,
        };
        self.apps.insert(app, known);
        Ok(())
    }

    fn take_regions(
        &mut self,
        app: u16,
        first: u16,
        files: Vec<OwnedFd>,
    ) -> Result<(), ZygoteError> {
        let app = self
            .apps
            .get_mut(&app)
            .ok_or(ZygoteError::Node("regions of an unknown app"))?;
        for (file, at) in files.into_iter().zip(usize::from(first)..) {
            let region = app.regions.get_mut(at);
            *region.ok_or(ZygoteError::Node("more regions than the app has"))? = Some(file);
        }
        Ok(())
    }

    fn spawn(
        &mut self,
        child: Child,
        cpu: Option<u32>,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), ZygoteError> {
        let Child {
            app,
            slot,
            incarnation,
        } = child;
        let descriptors = <[OwnedFd; 6]>::try_from(descriptors)
            .map_err(|_| ZygoteError::Node("an executor without its six descriptors"))?;
        let Some(known) = self.apps.get(&app) else {
            let reason = "the app has been removed".to_owned();
            let message = FromZygote::SpawnFailed {
                app,
                slot,
                incarnation,
                reason,
            };
            return self.say(&message, None);
        };
        let group = known.group.as_ref().map(AsFd::as_fd);
        // SAFETY: this process has one thread, so the child may do whatever it could do here.
        let pid = match unsafe { fork::fork(group) } {
            Ok(Forked::Child { joins }) => {
                // A mask without signals is always accepted.
                let _ = SigSet::empty().thread_set_mask();
                let start = Start {
                    slot,
                    incarnation,
                    cpu,
                    descriptors,
                    zygote: self.own,
                    open_files: self.open_files,
                    joins,
                };
                become_executor(known, &start)
            }
            Ok(Forked::Parent(pid)) => pid,
            Err(error) => {
                let reason = format!("fork: {error}");
                let message = FromZygote::SpawnFailed {
                    app,
                    slot,
                    incarnation,
                    reason,
                };
                return self.say(&message, None);
            }
        };
        self.children.insert(pid, child);
        self.report_spawned(child, pid)
    }

    /// A child cannot be reaped before its pidfd is open: reaping happens in this thread, later.
    fn report_spawned(&mut self, child: Child, pid: i32) -> Result<(), ZygoteError> {
        let Child {
            app,
            slot,
            incarnation,
        } = child;
        let target = Pid::from_raw(pid).ok_or(ZygoteError::Node("a fork without a child"))?;
        let refused = match rustix::process::pidfd_open(target, PidfdFlags::empty()) {
            Ok(pidfd) => {
                let message = FromZygote::Spawned {
                    app,
                    slot,
                    incarnation,
                    pid,
                };
                match self.say(&message, Some(&pidfd)) {
                    Err(ZygoteError::Packet(error @ PacketError::TooManyUnderWay)) => {
                        error.to_string()
                    }
                    said => return said,
                }
            }
            Err(error) => format!("pidfd_open: {error}"),
        };
        // Without a pidfd nobody could know that it died.
        let _ = rustix::process::kill_process(target, rustix::process::Signal::KILL);
        self.children.remove(&pid);
        let message = FromZygote::SpawnFailed {
            app,
            slot,
            incarnation,
            reason: refused,
        };
        self.say(&message, None)
    }

    fn reap(&mut self) -> Result<(), ZygoteError> {
        // What it says is only that there is something to reap.
        while let Ok(Some(_)) = self.signals.read_signal() {}
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => return Ok(()),
                Ok(status) => status,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(system("reaping")(error.into())),
            };
            let (pid, code, signal) = match status {
                WaitStatus::Exited(pid, code) => (pid, Some(code), None),
                WaitStatus::Signaled(pid, signal, _) => (pid, None, Some(signal as i32)),
                _ => continue,
            };
            // One whose pidfd could not be handed over has been reported as never started.
            if let Some(Child {
                app,
                slot,
                incarnation,
            }) = self.children.remove(&pid.as_raw())
            {
                let message = FromZygote::Exited {
                    app,
                    slot,
                    incarnation,
                    code,
                    signal,
                };
                self.say(&message, None)?;
            }
        }
    }
}
