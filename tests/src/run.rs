//! One started command: waited for under a watchdog, and looked at when it has ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::processes::{self, Process, descendants_of, orphans};

/// After this long a command is taken to hang, and the test fails.
pub const WATCHDOG: Duration = Duration::from_secs(110);

/// How long the kernel may take to bury what has been killed.
const BURIAL: Duration = Duration::from_secs(10);

/// Between two looks at a running command.
const LOOK: Duration = Duration::from_millis(2);

/// A command that runs. Dropped, it is killed with all that it started.
pub struct Running {
    child: Child,
    ended: Option<ExitStatus>,
    /// Standard output and standard error, each in a file.
    stdout: PathBuf,
    stderr: PathBuf,
    /// Where the command keeps its temporary files.
    scratch: PathBuf,
    started: Instant,
    memory: Option<MemoryWatch>,
}

impl Running {
    pub(crate) fn new(child: Child, stdout: PathBuf, stderr: PathBuf, scratch: &Path) -> Self {
        processes::note_run(child.id().cast_signed());
        Self {
            child,
            ended: None,
            stdout,
            stderr,
            scratch: scratch.to_path_buf(),
            started: Instant::now(),
            memory: None,
        }
    }

    pub(crate) fn watch_memory(&mut self) {
        self.memory = Some(MemoryWatch::start(self.pid()));
    }

    /// The id of the command itself.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// The command and all that it started.
    pub fn processes(&self) -> Vec<Process> {
        descendants_of(self.pid())
    }

    /// The command itself, as a process.
    pub fn node(&self) -> Process {
        self.find("the node", |process| process.pid == self.pid())
    }

    /// The scheduler process below it.
    pub fn scheduler(&self) -> Process {
        self.find("the scheduler", |process| is_role(process, "scheduler"))
    }

    /// The zygote below it.
    pub fn zygote(&self) -> Process {
        self.find("the zygote", |process| is_role(process, "zygote"))
    }

    /// The executors: what the zygote has started.
    pub fn executors(&self) -> Vec<Process> {
        let all = self.processes();
        let Some(zygote) = all.iter().find(|process| is_role(process, "zygote")) else {
            return Vec::new();
        };
        let zygote = zygote.pid;
        all.into_iter()
            .filter(|process| process.parent == zygote)
            .collect()
    }

    fn find(&self, what: &str, matches: impl Fn(&Process) -> bool) -> Process {
        let mut found = None;
        processes::until(&format!("{what} is there"), || {
            found = self.processes().into_iter().find(&matches);
            found.is_some()
        });
        found.expect("found above")
    }

    /// Sends a signal to the command itself.
    pub fn signal(&self, signal: Signal) {
        assert!(self.ended.is_none(), "the command has ended already");
        self.node().signal(signal);
    }

    /// What it has written to standard output so far.
    pub fn stdout_so_far(&self) -> String {
        text_of(&self.stdout)
    }

    /// What it has written to standard error so far.
    pub fn stderr_so_far(&self) -> String {
        text_of(&self.stderr)
    }

    /// Waits until a line with this text is on standard error.
    pub fn says(&mut self, text: &str) {
        let start = Instant::now();
        while !self.stderr_so_far().contains(text) {
            if let Some(status) = self.poll() {
                panic!(
                    "ended ({status}) before saying {text:?}:\n{}",
                    self.stderr_so_far()
                );
            }
            if start.elapsed() > WATCHDOG {
                self.give_up(&format!("it did not say {text:?}"));
            }
            thread::sleep(LOOK);
        }
    }

    /// It has not ended.
    pub fn is_running(&mut self) -> bool {
        self.poll().is_none()
    }

    fn poll(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("wait for the command");
            if self.ended.is_some() {
                processes::forget_run(self.pid());
            }
        }
        self.ended
    }

    /// Waits for its end, then for everything of it to be gone.
    pub fn finish(mut self) -> Finished {
        // A node may have served for long before it was told to end.
        let awaited = Instant::now();
        let status = loop {
            if let Some(status) = self.poll() {
                break status;
            }
            if awaited.elapsed() > WATCHDOG {
                self.give_up("it did not end");
            }
            thread::sleep(LOOK);
        };
        let buried = Instant::now();
        let left = loop {
            let left = orphans();
            if left.is_empty() || buried.elapsed() > BURIAL {
                break left;
            }
            thread::sleep(LOOK);
        };
        let finished = Finished {
            status,
            stdout: fs::read(&self.stdout).expect("read standard output"),
            stderr: text_of(&self.stderr),
            buried_after: buried.elapsed(),
            private_peak_bytes: self.memory.take().map_or(0, MemoryWatch::stop),
            files_left: files_below(&self.scratch),
        };
        for process in &left {
            process.signal(Signal::SIGKILL);
        }
        assert!(
            left.is_empty(),
            "{status}, and these processes stayed behind: {left:#?}\nstandard error:\n{}",
            finished.stderr
        );
        finished
    }

    /// Tells everything that may explain a hang, ends the run and the test.
    fn give_up(&mut self, why: &str) -> ! {
        let mut report = String::new();
        for process in self.processes() {
            let at = |file| {
                let text = fs::read_to_string(format!("/proc/{}/{file}", process.pid));
                text.unwrap_or_default().trim().replace('\n', " <- ")
            };
            report += &format!(
                "  {} {} {} waits in {} {}\n",
                process.pid,
                process.state,
                process.command,
                at("wchan"),
                at("stack"),
            );
        }
        let (out, err) = (self.stdout_so_far(), self.stderr_so_far());
        self.kill_all();
        panic!(
            "watchdog: {why} within {} s (started {} s ago)\nprocesses:\n{report}\
             standard output:\n{}\nstandard error:\n{err}",
            WATCHDOG.as_secs(),
            self.started.elapsed().as_secs(),
            out.chars().take(4000).collect::<String>()
        );
    }

    fn kill_all(&mut self) {
        if self.poll().is_some() {
            return;
        }
        let all = self.processes();
        for process in &all {
            process.signal(Signal::SIGKILL);
        }
        let _already_gone = self.child.wait();
        processes::forget_run(self.pid());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill_all();
    }
}

fn is_role(process: &Process, role: &str) -> bool {
    process.command.starts_with(&format!("pheromone: {role}"))
        || process.command.contains(&format!("__{role}"))
}

fn text_of(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
}

/// Every file, socket and directory below a directory.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        found.push(entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files_below(&entry.path()));
        }
    }
    found
}

/// Samples the private memory of every process of a run.
struct MemoryWatch {
    stop: Arc<AtomicBool>,
    peak_bytes: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl MemoryWatch {
    fn start(pid: i32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let peak_bytes = Arc::new(AtomicU64::new(0));
        let thread = thread::spawn({
            let (stop, peak_bytes) = (Arc::clone(&stop), Arc::clone(&peak_bytes));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    for process in descendants_of(pid) {
                        let bytes = process.status_bytes("RssAnon");
                        peak_bytes.fetch_max(bytes, Ordering::Relaxed);
                    }
                    thread::sleep(Duration::from_millis(10));
                }
            }
        });
        Self {
            stop,
            peak_bytes,
            thread,
        }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the sampling thread");
        self.peak_bytes.load(Ordering::Relaxed)
    }
}

/// A command that has ended and left no process behind.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: String,
    /// From its end until nothing of it was there any more.
    pub buried_after: Duration,
    /// Largest private memory (RssAnon) seen in one of its processes; 0 when not watched.
    pub private_peak_bytes: u64,
    /// What is left in its directory for temporary files.
    pub files_left: Vec<PathBuf>,
}

impl Finished {
    /// It ended with this exit status and left no temporary file or socket.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.status.code(),
            Some(code),
            "{}; standard error:\n{}\nstandard output:\n{}",
            self.status,
            self.stderr,
            self.text().chars().take(2000).collect::<String>()
        );
        assert!(
            self.files_left.is_empty(),
            "left behind: {:?}",
            self.files_left
        );
        self
    }

    /// Standard error has all of these.
    #[track_caller]
    pub fn complains(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(
                self.stderr.contains(text),
                "no {text:?} in standard error:\n{}",
                self.stderr
            );
        }
        self
    }

    /// Standard output is exactly this.
    #[track_caller]
    pub fn prints(self, expected: impl AsRef<[u8]>) -> Self {
        let expected = expected.as_ref();
        if self.stdout != expected {
            let same = self.stdout.iter().zip(expected).take_while(|(a, b)| a == b);
            let same = same.count();
            let show = |bytes: &[u8]| {
                let from = same.min(bytes.len());
                let part = &bytes[from..bytes.len().min(from + 200)];
                part.escape_ascii().to_string()
            };
            panic!(
                "standard output has {} bytes, expected {}; from byte {same}: {:?}, expected \
                 {:?}\nstandard error:\n{}",
                self.stdout.len(),
                expected.len(),
                show(&self.stdout),
                show(expected),
                self.stderr
            );
        }
        self
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}
