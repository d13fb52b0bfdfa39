//! Whether a library loads and has the functions and custom triggers that a manifest names, found
//! out in a process of its own: user code is never loaded into the command itself.
//!
//! The command starts itself again as `__probe LIBRARY ORIGIN KIND SYMBOL ...`, in the directory in
//! which the functions will run; that process reads how it is to be shut in, gives up what it can,
//! enters the sandbox of the app's executors, loads the library, looks, and says what it found on
//! the pipe that was its stdout.

use std::ffi::OsString;
use std::fmt;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Resource, Rlimit, Signal, pidfd_open, setrlimit};
use serde::{Deserialize, Serialize};

use crate::library::{LoadError, Loaded};
use crate::sandbox::{self, Sandbox};

/// First argument of the process that looks.
pub const PROBE_ARGUMENT: &str = "__probe";
/// Kinds of symbols, as the looking process is told of them.
const FUNCTION: &str = "function";
const TRIGGER: &str = "trigger";
/// A library's constructors may take this long.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest report that is read; each symbol's takes less than 1 KiB.
const REPORT_BYTES_MAX: u64 = 4 << 20;
/// Functions of a library that an error names before it says how many more there are.
const USERS_NAMED_MAX: usize = 4;
/// `nobody`: whom a probe started by root becomes.
const NOBODY: u32 = 65534;

/// What is wrong with a library.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It cannot be loaded at all.
    #[error("{users}{error}")]
    Load {
        /// Whose library it is.
        users: Users,
        /// Why.
        error: LoadError,
    },
    /// It was loaded, and these symbols are not as they should be.
    #[error("{}", list(.0))]
    Symbols(Vec<SymbolError>),
    /// Loading it killed the process.
    #[error(
        "{users}loading {library} crashed ({how}): look at its constructors and initialized statics"
    )]
    Crashed {
        /// Whose library it is.
        users: Users,
        /// Which.
        library: PathBuf,
        /// Signal or exit status.
        how: String,
    },
    /// Loading it has spoiled what is said of it.
    #[error(
        "{users}loading {library} spoiled the report on it: look at its constructors, which write \
         into a descriptor that is not theirs"
    )]
    Garbled {
        /// Whose library it is.
        users: Users,
        /// Which.
        library: PathBuf,
    },
    /// Loading it did not end.
    #[error(
        "{users}loading {library} did not end within {} s: look at its constructors",
        PROBE_TIMEOUT.as_secs()
    )]
    Hung {
        /// Whose library it is.
        users: Users,
        /// Which.
        library: PathBuf,
    },
    /// The probe could not be made.
    #[error("{users}{library} could not be looked at: {reason}")]
    Machine {
        /// Whose library it is.
        users: Users,
        /// Which.
        library: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
}

/// A symbol that a library should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symbol<'a> {
    /// A function's.
    Function {
        /// Its name in the manifest.
        name: &'a str,
        /// What the library exports.
        symbol: &'a str,
    },
    /// A custom trigger's.
    Trigger {
        /// Its name in the manifest.
        name: &'a str,
        /// What the library exports.
        symbol: &'a str,
    },
}

impl<'a> Symbol<'a> {
    /// What the looking process is told.
    fn arguments(&self) -> [&'a str; 2] {
        match *self {
            Self::Function { symbol, .. } => [FUNCTION, symbol],
            Self::Trigger { symbol, .. } => [TRIGGER, symbol],
        }
    }

    fn user(&self) -> String {
        match self {
            Self::Function { name, .. } => format!("function `{name}`"),
            Self::Trigger { name, .. } => format!("trigger `{name}`"),
        }
    }
}

/// The functions and triggers of a library, as they stand before what is wrong with all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users(Vec<(&'static str, String)>);

impl Users {
    fn of(symbols: &[Symbol<'_>]) -> Self {
        let user = |symbol: &Symbol<'_>| match *symbol {
            Symbol::Function { name, .. } => (FUNCTION, name.to_owned()),
            Symbol::Trigger { name, .. } => (TRIGGER, name.to_owned()),
        };
        Self(symbols.iter().map(user).collect())
    }
}

impl fmt::Display for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut joint = "";
        for what in [FUNCTION, TRIGGER] {
            let of_kind = self.0.iter().filter(|(kind, _)| *kind == what);
            let names: Vec<&String> = of_kind.map(|(_, name)| name).collect();
            let (named, more) = names.split_at(names.len().min(USERS_NAMED_MAX));
            let Some((first, others)) = named.split_first() else {
                continue;
            };
            let plural = if others.is_empty() { "" } else { "s" };
            write!(f, "{joint}{what}{plural} `{first}`")?;
            for other in others {
                write!(f, ", `{other}`")?;
            }
            if !more.is_empty() {
                write!(f, " and {} more", more.len())?;
            }
            joint = ", ";
        }
        f.write_str(if self.0.is_empty() { "" } else { ": " })
    }
}

/// What is wrong with one function or custom trigger.
#[derive(Debug, thiserror::Error)]
#[error("{user}: {error}")]
pub struct SymbolError {
    /// Whose it is: function or trigger, with its name in the manifest.
    pub user: String,
    /// What is wrong.
    pub error: LoadError,
}

fn list(errors: &[SymbolError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// What the looking process says.
#[derive(Serialize, Deserialize)]
enum Report {
    /// It could not be shut in: why.
    Open(String),
    /// Whether the library loads, then what is wrong with each symbol.
    Looked(Result<Vec<Option<LoadError>>, LoadError>),
}

/// As what a library is looked at.
#[derive(Clone, Debug)]
pub struct Surroundings<'a> {
    /// Where its functions will run.
    pub directory: &'a Path,
    /// How they will be shut in: constructors do no more here than they may there.
    pub sandbox: &'a Sandbox,
}

/// Looks at a library. It is named in errors as it is given here.
///
/// # Errors
/// The first cause that makes it unusable, or everything that is wrong with its symbols.
pub fn probe_symbols(
    library: &Path,
    symbols: &[Symbol<'_>],
    surroundings: &Surroundings<'_>,
) -> Result<(), ProbeError> {
    let users = || Users::of(symbols);
    let machine = |reason| ProbeError::Machine {
        users: users(),
        library: library.to_owned(),
        reason,
    };
    let absolute = std::path::absolute(library).map_err(machine)?;
    let mut child = start(library, &absolute, symbols, surroundings).map_err(machine)?;
    let until = Instant::now() + PROBE_TIMEOUT;
    // What has closed its pipe may go on for ever.
    let report = read_report(&mut child, until).filter(|_| ends(&child, until));
    if report.is_none() {
        end_group(&child);
    }
    let status = child.wait().map_err(machine)?;
    let Some(report) = report else {
        return Err(ProbeError::Hung {
            users: users(),
            library: library.to_owned(),
        });
    };
    if !status.success() {
        return Err(ProbeError::Crashed {
            users: users(),
            library: library.to_owned(),
            how: how(status),
        });
    }
    verdict(&report, library, symbols)
}

/// What a report means. The process that sends it runs code of others, so it may hold anything.
pub(crate) fn verdict(
    report: &[u8],
    library: &Path,
    symbols: &[Symbol<'_>],
) -> Result<(), ProbeError> {
    let users = || Users::of(symbols);
    match postcard::take_from_bytes::<Report>(report) {
        Ok((Report::Open(reason), [])) => Err(ProbeError::Machine {
            users: users(),
            library: library.to_owned(),
            reason: std::io::Error::other(reason),
        }),
        Ok((Report::Looked(Err(error)), [])) => Err(ProbeError::Load {
            users: users(),
            error,
        }),
        Ok((Report::Looked(Ok(found)), [])) if found.len() == symbols.len() => {
            judge(symbols, found)
        }
        _ => Err(ProbeError::Garbled {
            users: users(),
            library: library.to_owned(),
        }),
    }
}

fn judge(symbols: &[Symbol<'_>], found: Vec<Option<LoadError>>) -> Result<(), ProbeError> {
    let wrong: Vec<SymbolError> = symbols
        .iter()
        .zip(found)
        .filter_map(|(symbol, error)| {
            Some(SymbolError {
                user: symbol.user(),
                error: error?,
            })
        })
        .collect();
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(ProbeError::Symbols(wrong))
    }
}

fn start(
    library: &Path,
    absolute: &Path,
    symbols: &[Symbol<'_>],
    surroundings: &Surroundings<'_>,
) -> std::io::Result<Child> {
    let sandbox = postcard::to_stdvec(surroundings.sandbox).map_err(std::io::Error::other)?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg(PROBE_ARGUMENT)
        .arg(absolute)
        .arg(library)
        .args(symbols.iter().flat_map(Symbol::arguments))
        .env_clear()
        .current_dir(surroundings.directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    // It reads this before it does anything else. If it dies first, its report will be missing.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(&sandbox);
    }
    Ok(child)
}

/// Everything that the child says until it closes its pipe; `None` when it takes too long.
fn read_report(child: &mut Child, until: Instant) -> Option<Vec<u8>> {
    let mut pipe = child.stdout.take()?;
    let mut report = Vec::new();
    loop {
        if !is_ready(&pipe, until) {
            return None;
        }
        let mut bytes = [0; 4096];
        match pipe.read(&mut bytes) {
            Ok(0) | Err(_) => return Some(report),
            Ok(count) => report.extend_from_slice(&bytes[..count]),
        }
        if report.len() as u64 > REPORT_BYTES_MAX {
            return Some(report);
        }
    }
}

/// Whether the child ends in time.
fn ends(child: &Child, until: Instant) -> bool {
    let pid = rustix::process::Pid::from_raw(child.id() as i32);
    let process = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    process.is_some_and(|process| is_ready(process, until))
}

/// Whether there is something to be read, or the end, before this time.
fn is_ready(file: impl AsFd, until: Instant) -> bool {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let Ok(timeout) = Timespec::try_from(left) else {
            return false;
        };
        let mut watched = [PollFd::new(&file, PollFlags::IN)];
        match poll(&mut watched, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            ready => return ready.is_ok_and(|count| count > 0),
        }
    }
}

/// Ends the child and what its library's constructors have started.
fn end_group(child: &Child) {
    if let Some(group) = rustix::process::Pid::from_raw(child.id() as i32) {
        // It may be gone already.
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
}

fn how(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => {
            let name = nix::sys::signal::Signal::try_from(signal);
            name.map_or_else(
                |_| format!("signal {signal}"),
                |name| name.as_str().to_owned(),
            )
        }
        (None, Some(code)) => format!("exit({code})"),
        (None, None) => "unknown".to_owned(),
    }
}

/// The looking process. `arguments` are those after [`PROBE_ARGUMENT`].
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let (Some(path), Some(origin)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: {PROBE_ARGUMENT} LIBRARY ORIGIN KIND SYMBOL ...");
        return ExitCode::from(2);
    };
    let path = PathBuf::from(path);
    let (Ok(mut pipe), Ok(sandbox)) = (take_stdout(), read_sandbox()) else {
        return ExitCode::from(70);
    };
    give_up_rights(&path);
    let origin = origin.to_string_lossy().into_owned();
    let symbols: Vec<String> = arguments
        .map(|symbol| symbol.to_string_lossy().into_owned())
        .collect();
    // No memory of an app is mapped here.
    let report = match sandbox::enter(&sandbox, &(0..0)) {
        Ok(()) => Report::Looked(look(&path, &origin, &symbols)),
        Err(error) => Report::Open(error.to_string()),
    };
    let Ok(bytes) = postcard::to_stdvec(&report) else {
        return ExitCode::from(70);
    };
    let written = pipe.write_all(&bytes);
    // Destructors of the library have not been asked for, and may hang.
    // SAFETY: _exit has no conditions.
    unsafe { libc::_exit(if written.is_ok() { 0 } else { 70 }) }
}

fn look(
    path: &Path,
    origin: &str,
    symbols: &[String],
) -> Result<Vec<Option<LoadError>>, LoadError> {
    let library = Loaded::open(path, origin)?;
    let wrong = |pair: &[String; 2]| match pair {
        [kind, symbol] if kind == TRIGGER => library.trigger(symbol).err(),
        [_, symbol] => library
            .function(symbol)
            .and_then(|_| library.initializer(symbol))
            .err(),
    };
    Ok(symbols.as_chunks().0.iter().map(wrong).collect())
}

/// How to be shut in, from stdin, which is empty then.
fn read_sandbox() -> std::io::Result<Sandbox> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes)?;
    postcard::from_bytes(&bytes).map_err(std::io::Error::other)
}

/// The report's pipe moves away from stdout, to which constructors may print.
fn take_stdout() -> std::io::Result<std::fs::File> {
    let pipe = rustix::io::fcntl_dupfd_cloexec(std::io::stdout(), 10)?;
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(&null)?;
    Ok(std::fs::File::from(pipe))
}

/// What a library's constructors need not have. Each is given up where that is possible: the
/// process was made for user code, and ends in a moment.
fn give_up_rights(library: &Path) {
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    for (resource, limit) in [
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Cpu, PROBE_TIMEOUT.as_secs()),
    ] {
        let _ = setrlimit(
            resource,
            Rlimit {
                current: Some(limit),
                maximum: Some(limit),
            },
        );
    }
    if rustix::process::geteuid().is_root() && readable_by_all(library) {
        let nobody = nix::unistd::Uid::from_raw(NOBODY);
        let nogroup = nix::unistd::Gid::from_raw(NOBODY);
        let _ = nix::unistd::setgroups(&[]);
        let _ = nix::unistd::setresgid(nogroup, nogroup, nogroup);
        let _ = nix::unistd::setresuid(nobody, nobody, nobody);
        // The change of user has forgotten it.
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    }
    let _ = rustix::thread::set_no_new_privs(true);
}

/// Whether any user could load it: a library in somebody's closed home is loaded as root, as its
/// own compiler was.
fn readable_by_all(library: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| std::fs::metadata(path).map(|meta| meta.permissions().mode());
    mode(library).is_ok_and(|mode| mode & 0o4 != 0)
        && library
            .ancestors()
            .skip(1)
            .all(|folder| mode(folder).is_ok_and(|mode| mode & 0o1 != 0))
}
