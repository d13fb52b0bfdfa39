//! The two processes that the node starts itself: scheduler and zygote.
//!
//! Both are this same program, executed anew before anything of an app exists, so that they are
//! single-threaded and clean. They set their own parent-death signal, which follows the *thread*
//! that started them: it must live as long as the node.

use std::cell::OnceCell;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags};
use nix::sys::signal::SigSet;
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, Signal, WaitOptions, WaitStatus};

/// Descriptors are first moved up here, so that none of them lies where another one must go.
const STAGING_FD_MIN: RawFd = 64;
/// What the children find of the node's environment: what the loader and libc need. Functions get
/// theirs from the manifest.
const ENVIRONMENT: [&str; 7] = [
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "LD_LIBRARY_PATH",
    "RUST_BACKTRACE",
];

/// A process that the node started.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    /// Once it has been reaped; from then on its number may be another's.
    exit: OnceCell<Exit>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// For `exit(n)`.
    pub code: Option<i32>,
    /// Where it died by one.
    pub signal: Option<i32>,
}

impl From<WaitStatus> for Exit {
    fn from(status: WaitStatus) -> Self {
        Self {
            code: status.exit_status(),
            signal: status.terminating_signal(),
        }
    }
}

impl Exit {
    /// Nobody knows.
    pub const UNKNOWN: Self = Self {
        code: None,
        signal: None,
    };

    /// As words.
    pub fn describe(self) -> String {
        match (self.code, self.signal) {
            (_, Some(signal)) => crate::request::signal_name(signal),
            (Some(code), None) => format!("exit status {code}"),
            (None, None) => "its status could not be learned".into(),
        }
    }
}

impl Child {
    /// Starts `program argument...` under the name `name`, `descriptors` as 3, 4, ... in order. It
    /// has a process group of its own, so that a terminal's Ctrl-C reaches the node alone, and its
    /// standard output is the node's standard error.
    ///
    /// # Errors
    /// Whatever the system gives.
    pub fn start(
        program: &Path,
        name: &str,
        arguments: &[&str],
        descriptors: &[&OwnedFd],
    ) -> io::Result<Self> {
        let mut actions = PosixSpawnFileActions::init()?;
        let null = OwnedFd::from(File::open("/dev/null")?);
        let null = rustix::io::fcntl_dupfd_cloexec(null, STAGING_FD_MIN)?;
        actions.add_dup2(null.as_raw_fd(), 0)?;
        actions.add_dup2(2, 1)?;
        let mut staged = Vec::new();
        for (number, descriptor) in (3..).zip(descriptors) {
            let staging = rustix::io::fcntl_dupfd_cloexec(descriptor.as_fd(), STAGING_FD_MIN)?;
            actions.add_dup2(staging.as_raw_fd(), number)?;
            staged.push(staging);
        }
        let mut attributes = PosixSpawnAttr::init()?;
        attributes.set_pgroup(Pid::from_raw(0))?;
        attributes.set_sigmask(&SigSet::empty())?;
        attributes.set_sigdefault(&SigSet::all())?;
        attributes.set_flags(
            PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF,
        )?;
        let program = CString::new(program.as_os_str().as_bytes())?;
        let mut argv = vec![CString::new(name)?];
        for argument in arguments {
            argv.push(CString::new(*argument)?);
        }
        let pid = nix::spawn::posix_spawn(
            program.as_c_str(),
            &actions,
            &attributes,
            &argv,
            &environment(),
        )?;
        let known = rustix_pid(pid).ok_or_else(|| io::Error::other("the new process has no id"))?;
        // The child is ours and not yet waited for, so that the id can be nobody else's.
        let pidfd = rustix::process::pidfd_open(known, PidfdFlags::empty())?;
        Ok(Self {
            pid,
            pidfd,
            exit: OnceCell::new(),
        })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Readable when it is dead.
    pub fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Kills it; nothing happens where it is dead.
    pub fn kill(&self) {
        // An error means that it is dead already.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Kills whatever is left in its process group: executors, and children of functions. Nothing
    /// once it has been reaped: the number may be another group's.
    pub fn kill_group(&self) {
        if self.exit.get().is_some() {
            return;
        }
        // An error means that nobody is left.
        let _ = nix::sys::signal::killpg(self.pid, nix::sys::signal::Signal::SIGKILL);
    }

    /// Whether it is dead, waiting at most so long.
    pub fn is_dead_within(&self, most: Duration) -> bool {
        let until = Instant::now() + most;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = rustix::event::Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let mut fds = [rustix::event::PollFd::new(
                &self.pidfd,
                rustix::event::PollFlags::IN,
            )];
            match rustix::event::poll(&mut fds, Some(&timeout)) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(_) if left.is_zero() => return false,
                Err(_) => {}
            }
        }
    }

    /// Takes the exit status of a dead process. Where the program that embeds the node has waited
    /// for every child of its own accord, there is none.
    pub fn reap(&self) -> Exit {
        if let (None, Some(pid)) = (self.exit.get(), rustix_pid(self.pid)) {
            let status = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
            let exit = match status {
                Ok(Some((_, status))) => Exit::from(status),
                Ok(None) | Err(_) => Exit::UNKNOWN,
            };
            return *self.exit.get_or_init(|| exit);
        }
        self.exit.get().copied().unwrap_or(Exit::UNKNOWN)
    }

    /// Reaps what has been reparented to the node out of this process's group: the node is the
    /// reaper of functions' children whose own parents are dead. Children of the program that
    /// embeds the node are in other groups and left alone. Returns how many there were.
    pub fn reap_orphans(&self) -> usize {
        let Some(group) = rustix_pid(self.pid) else {
            return 0;
        };
        let mut count = 0;
        while let Ok(Some((pid, status))) = rustix::process::waitpgid(group, WaitOptions::NOHANG) {
            if pid == group {
                self.exit.get_or_init(|| Exit::from(status));
            } else {
                count += 1;
            }
        }
        count
    }

    /// Whether anybody is in its group, dead or alive.
    pub fn has_group(&self) -> bool {
        nix::sys::signal::killpg(self.pid, None).is_ok()
    }
}

fn rustix_pid(pid: Pid) -> Option<rustix::process::Pid> {
    rustix::process::Pid::from_raw(pid.as_raw())
}

fn environment() -> Vec<CString> {
    ENVIRONMENT
        .iter()
        .filter_map(|name| {
            let mut pair = name.as_bytes().to_vec();
            pair.push(b'=');
            pair.extend_from_slice(std::env::var_os(name)?.as_bytes());
            CString::new(pair).ok()
        })
        .collect()
}

/// Orphans come to this process while any of these lives; what was set before comes back after.
#[derive(Debug)]
pub struct Subreaper {
    _private: (),
}

/// How many nodes live in this process, and what was set before the first.
static SUBREAPERS: std::sync::Mutex<(usize, bool)> = std::sync::Mutex::new((0, false));

impl Subreaper {
    /// Becomes the reaper of orphaned descendants.
    ///
    /// # Errors
    /// Whatever the system gives.
    pub fn new() -> io::Result<Self> {
        let mut count = SUBREAPERS
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if count.0 == 0 {
            count.1 = nix::sys::prctl::get_child_subreaper()?;
            nix::sys::prctl::set_child_subreaper(true)?;
        }
        count.0 += 1;
        Ok(Self { _private: () })
    }
}

impl Drop for Subreaper {
    fn drop(&mut self) {
        let mut count = SUBREAPERS
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        count.0 -= 1;
        if count.0 == 0 {
            // It could be set before, so it can be set back.
            let _ = nix::sys::prctl::set_child_subreaper(count.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn shell(script: &str, descriptors: &[&OwnedFd]) -> Child {
        Child::start(Path::new("/bin/sh"), "sh", &["-c", script], descriptors).unwrap()
    }

    #[test]
    fn descriptors_arrive_in_order_whatever_their_numbers_were() {
        let (mut near_a, far_a) = UnixStream::pair().unwrap();
        let (mut near_b, far_b) = UnixStream::pair().unwrap();
        let (far_a, far_b) = (OwnedFd::from(far_a), OwnedFd::from(far_b));
        let child = shell("echo four >&4; echo three >&3", &[&far_b, &far_a]);
        drop((far_a, far_b));
        assert!(child.is_dead_within(LONG));
        assert_eq!(child.reap().code, Some(0));
        let (mut a, mut b) = (String::new(), String::new());
        near_a.read_to_string(&mut a).unwrap();
        near_b.read_to_string(&mut b).unwrap();
        assert_eq!((a.as_str(), b.as_str()), ("four\n", "three\n"));
        let _ = near_a.write_all(b"");
    }

    #[test]
    fn exits_and_signals_are_told_apart() {
        let child = shell("exit 7", &[]);
        assert!(child.is_dead_within(LONG));
        assert_eq!(child.reap().describe(), "exit status 7");
        let child = shell("sleep 1000", &[]);
        assert!(!child.is_dead_within(Duration::from_millis(10)));
        child.kill_group();
        assert!(child.is_dead_within(LONG));
        assert_eq!(child.reap().describe(), "signal 9 (SIGKILL)");
        assert_eq!(child.reap().code, None);
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let missing = Child::start(Path::new("/nonexistent"), "x", &[], &[]);
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn orphans_of_a_group_are_killed_and_reaped_and_strangers_left_alone() {
        let _reaper = Subreaper::new().unwrap();
        let mut stranger = std::process::Command::new("/bin/sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let child = shell("sleep 1000 & sleep 1000 & exit 3", &[]);
        assert!(child.is_dead_within(LONG));
        child.kill_group();
        let (mut reaped, until) = (0, Instant::now() + LONG);
        while reaped < 2 && Instant::now() < until {
            reaped += child.reap_orphans();
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(reaped, 2);
        assert_eq!(child.reap().code, Some(3));
        assert!(!child.has_group());
        assert!(stranger.try_wait().unwrap().is_none());
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}
