//! From a fork of the zygote to an executor that may load user code, in an order that matters.
//!
//! What needs the zygote's rights comes first; then the change of user, which forgets the wish to
//! die with the parent, so that wish comes after it; then memory is mapped, and every descriptor is
//! closed but the standard three and the one for tagged output; then the process is shut in
//! (`sandbox/`). Nothing of a function's runs before that.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::unistd::{Gid, Uid};
use pheromone_shm::control::ExecutorEnd;
use pheromone_shm::message::UNIT_BYTES;
use pheromone_shm::region::Window;
use rustix::process::{DumpableBehavior, Pid, Signal};
use rustix::thread::CpuSet;

use crate::crash::{self, Map};
use crate::memory::Memory;
use crate::names::{Names, NamesError};
use crate::protocol::{OUTPUT_TEXT_BYTES_MAX, OutputHead, OutputKind, Program};
use crate::runtime::{EXIT_BROKEN, Parts, Runtime, serve};
use crate::{api, fork, library, output, sandbox, title};

/// The tagged output's descriptor in an executor: the only one beside the standard three.
pub const OUTPUT_FD: RawFd = 3;
/// Descriptors are moved here and above before the low numbers are given away.
const HIGH_FD: RawFd = 16;
/// The kernel kills these first when memory runs out.
const OOM_SCORE: &str = "1000";

/// What the zygote knows of an app.
pub struct App {
    /// The app.
    pub program: Program,
    /// Read-only descriptors of its regions, by slot.
    pub regions: Vec<Option<OwnedFd>>,
    /// The directory of the control group of its executors, where they have one.
    pub group: Option<OwnedFd>,
}

/// What an executor is started with.
pub struct Start {
    /// Its slot, which is its region's index.
    pub slot: u16,
    /// Which process of the slot.
    pub incarnation: u32,
    /// CPU to be pinned to.
    pub cpu: Option<u32>,
    /// Own region (read-write), `up` (read-write), `down` and `node` page (read-only), tagged
    /// output pipe, raw output pipe.
    pub descriptors: [OwnedFd; 6],
    /// Its parent.
    pub zygote: Pid,
    /// The limit of open files that the node was started with.
    pub open_files: rustix::process::Rlimit,
    /// It is not in its app's control group yet.
    pub joins: bool,
}

/// Why a process could not become an executor.
#[derive(Debug, thiserror::Error)]
enum SetupError {
    #[error("{what}: {error}")]
    System {
        what: &'static str,
        error: io::Error,
    },
    #[error("the working directory {directory} cannot be entered: {error}")]
    Directory { directory: String, error: io::Error },
    #[error("the zygote is gone")]
    Orphan,
    #[error("the change to user {0} did not last")]
    User(u32),
    #[error("region {0} of {1} is missing")]
    Region(u16, u16),
    #[error(transparent)]
    Names(#[from] NamesError),
    #[error("isolation cannot be switched on: {0}")]
    Sandbox(#[from] sandbox::SandboxError),
}

/// Puts what was being done in front of what the kernel said.
trait Doing<T> {
    fn doing(self, what: &'static str) -> Result<T, SetupError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: &'static str) -> Result<T, SetupError> {
        self.map_err(|error| SetupError::System {
            what,
            error: error.into(),
        })
    }
}

/// Becomes an executor and serves; never returns. Called in a freshly forked child.
pub fn become_executor(app: &App, start: &Start) -> ! {
    match set_up(app, start) {
        Ok(runtime) => serve(Box::new(runtime)),
        Err(error) => {
            report(&start.descriptors[4], &error);
            // SAFETY: _exit has no conditions.
            unsafe { libc::_exit(EXIT_BROKEN) }
        }
    }
}

/// Serves in the calling process as it is, which gives up nothing: for measurements of an executor
/// without other processes. Never returns.
///
/// # Panics
/// When the app's memory cannot be mapped.
pub fn serve_here(app: &App, start: &Start) -> ! {
    match map(app, start) {
        Ok(parts) => serve(Box::new(Runtime::new(parts, &app.program))),
        Err(error) => panic!("the executor could not be set up: {error}"),
    }
}

/// Tells the node why; the process ends in any case, so nothing is done about a failure.
fn report(pipe: &OwnedFd, error: &SetupError) {
    let head = OutputHead {
        session: 0,
        invocation: 0,
        function: u16::MAX,
        kind: OutputKind::Crash,
        dropped: 0,
    };
    let text = format!("the executor could not be set up: {error}");
    let text = &text.as_bytes()[..text.len().min(OUTPUT_TEXT_BYTES_MAX)];
    let record = [&head.encode(text.len())[..], text].concat();
    // After `close_descriptors` the pipe is at its final place.
    if rustix::io::write(pipe, &record).is_err() {
        // SAFETY: the number is this process's output pipe, or closed; both are harmless.
        let output = unsafe { BorrowedFd::borrow_raw(OUTPUT_FD) };
        let _ = rustix::io::write(output, &record);
    }
}

fn set_up(app: &App, start: &Start) -> Result<Runtime, SetupError> {
    let program = &app.program;
    // Before anything that its limits should count, and while the rights are there.
    if let Some(group) = app.group.as_ref().filter(|_| start.joins) {
        fork::join(group.as_fd()).doing("joining the app's control group")?;
    }
    title::set(&format!("pheromone: {}/{}", program.app, start.slot));
    pin(start.cpu)?;
    // The zygote is not, and what cannot be looked into does not own its files in /proc; a change
    // of user takes it away again, as every isolation but `none` does.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)
        .doing("becoming dumpable")?;
    prefer_at_out_of_memory();
    std::env::set_current_dir(&program.directory).map_err(|error| SetupError::Directory {
        directory: program.directory.clone(),
        error,
    })?;
    let null = rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDONLY,
        rustix::fs::Mode::empty(),
    )
    .doing("opening /dev/null")?;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, start.open_files)
        .doing("setting the limit of open files")?;
    sandbox::limit(
        &program.sandbox,
        program.region_count,
        program.uid.is_some(),
    )
    .doing("setting limits")?;
    if let Some(user) = program.uid {
        change_user(user)?;
    }
    die_with(start.zygote)?;
    rustix::thread::set_current_timer_slack(Some(std::num::NonZeroU64::MIN))
        .doing("setting timer slack")?;

    let parts = map(app, start)?;
    let output = redirect(start, null)?;
    close_descriptors(output)?;
    output::start(OUTPUT_FD, program.log_bytes);
    output::replace_streams();
    crash::install(Map {
        start: parts
            .window
            .address(0, 0)
            .map_or(0, |base| base.as_ptr() as usize),
        span_bytes: parts.window.span_bytes(),
        regions: program.region_count,
        own: start.slot,
    });
    library::make_mathematics_global();
    sandbox::enter(&program.sandbox, &addresses_of(&parts.window, program))?;
    Ok(Runtime::new(parts, program))
}

/// Where the app's memory lies.
fn addresses_of(window: &Window, program: &Program) -> std::ops::Range<u64> {
    let start = window.address(0, 0).map_or(0, |base| base.as_ptr() as u64);
    start..start + u64::from(program.region_count) * window.span_bytes()
}

fn pin(cpu: Option<u32>) -> Result<(), SetupError> {
    let Some(cpu) = cpu else { return Ok(()) };
    let mut set = CpuSet::new();
    set.set(cpu as usize);
    rustix::thread::sched_setaffinity(None, &set).doing("pinning to a CPU")
}

/// Where it is permitted; raising one's own score needs the file to be one's own, so this comes
/// before the change of user.
fn prefer_at_out_of_memory() {
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
}

fn change_user(user: u32) -> Result<(), SetupError> {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    nix::unistd::setgroups(&[]).doing("giving up the groups")?;
    nix::unistd::setresgid(gid, gid, gid).doing("changing the group")?;
    nix::unistd::setresuid(uid, uid, uid).doing("changing the user")?;
    let now = nix::unistd::getresuid().doing("asking for the user")?;
    if [now.real, now.effective, now.saved]
        .iter()
        .any(|is| *is != uid)
    {
        return Err(SetupError::User(user));
    }
    Ok(())
}

/// The kernel kills this process when the zygote dies; if it has died already, that is seen here.
fn die_with(zygote: Pid) -> Result<(), SetupError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .doing("asking to die with the zygote")?;
    if rustix::process::getppid() == Some(zygote) {
        Ok(())
    } else {
        Err(SetupError::Orphan)
    }
}

/// Maps the window, the neighbours read-only through read-only descriptors, and the control memory.
fn map(app: &App, start: &Start) -> Result<Parts, SetupError> {
    let program = &app.program;
    let [own, up, down, node, ..] = &start.descriptors;
    let count = program.region_count;
    let mut window = Window::reserve(count, program.region_span_bytes)
        .doing("reserving address space for the app's memory")?;
    for region in (0..count).filter(|region| *region != start.slot) {
        let descriptor = app
            .regions
            .get(usize::from(region))
            .and_then(Option::as_ref);
        let descriptor = descriptor.ok_or(SetupError::Region(region, count))?;
        window
            .map_read_only(region, descriptor.as_fd())
            .doing("mapping a neighbour's region")?;
    }
    let region = window
        .map_own(start.slot, own.as_fd())
        .doing("mapping the own region")?;
    api::watch_cancelling(down.as_fd()).doing("mapping control memory")?;
    let end = ExecutorEnd::map(
        up.as_fd(),
        down.as_fd(),
        node.as_fd(),
        start.slot,
        start.incarnation,
    )
    .doing("mapping control memory")?;
    let span_units = u32::try_from(program.region_span_bytes / UNIT_BYTES).unwrap_or(u32::MAX);
    Ok(Parts {
        end,
        memory: Memory::new(region, span_units),
        own_region: start.slot,
        window,
        names: Names::new(program)?,
    })
}

/// Input from nowhere, output and errors into the raw pipe; gives the tagged pipe, moved out of the
/// way.
fn redirect(start: &Start, null: OwnedFd) -> Result<OwnedFd, SetupError> {
    let [.., tagged, raw] = &start.descriptors;
    let tagged = rustix::io::fcntl_dupfd_cloexec(tagged, HIGH_FD).doing("moving a descriptor")?;
    let raw = rustix::io::fcntl_dupfd_cloexec(raw, HIGH_FD).doing("moving a descriptor")?;
    let null = rustix::io::fcntl_dupfd_cloexec(null, HIGH_FD).doing("moving a descriptor")?;
    nix::unistd::dup2_stdin(&null).doing("redirecting stdin")?;
    nix::unistd::dup2_stdout(&raw).doing("redirecting stdout")?;
    nix::unistd::dup2_stderr(&raw).doing("redirecting stderr")?;
    Ok(tagged)
}

/// Everything but 0 to 2 and [`OUTPUT_FD`] is closed. Owners of what was open are never dropped:
/// this process ends without unwinding.
fn close_descriptors(output: OwnedFd) -> Result<(), SetupError> {
    // SAFETY: OUTPUT_FD is replaced; whoever owned that number in the zygote does not run here.
    let moved = unsafe { libc::dup3(output.as_raw_fd(), OUTPUT_FD, libc::O_CLOEXEC) };
    if moved < 0 {
        return Err(io::Error::last_os_error()).doing("moving the output pipe");
    }
    let first = (OUTPUT_FD + 1) as libc::c_uint;
    // SAFETY: closes what this process does not use any more; see above for its owners.
    let closed = unsafe { libc::close_range(first, libc::c_uint::MAX, 0) };
    // Its number has just been closed.
    std::mem::forget(output);
    if closed < 0 {
        return Err(io::Error::last_os_error()).doing("closing descriptors");
    }
    Ok(())
}
