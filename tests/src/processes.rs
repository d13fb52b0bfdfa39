//! What /proc says of the processes that a test started.
//!
//! The test is a child subreaper: whatever is orphaned below it becomes its own child, so nothing
//! that a run leaves behind can hide. Processes are only ended by the id that was seen here.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a condition may take before a test gives up. A watchdog, not a promise.
const UNTIL: Duration = Duration::from_secs(110);

/// Children that belong to a run of this test program, by process id.
static RUNS: Mutex<Option<HashSet<i32>>> = Mutex::new(None);

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its parent's id.
    pub parent: i32,
    /// One letter: R, S, D, Z, ...
    pub state: char,
    /// Its command line, arguments joined by spaces; its name where it has none.
    pub command: String,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (head, tail) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1;
        let mut fields = tail.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let line = line.trim();
        Some(Self {
            pid,
            parent,
            state,
            command: if line.is_empty() { name } else { line }.to_owned(),
        })
    }

    /// A number of kilobytes from /proc/PID/status, in bytes: `RssAnon`, `VmRSS`, ...; 0 for a
    /// process that is gone.
    pub fn status_bytes(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .and_then(|value| value.trim().trim_end_matches(" kB").parse::<u64>().ok())
            .unwrap_or(0)
            * 1024
    }

    /// Its ids in all pid namespaces that it is in, that of this test first.
    pub fn ids(&self) -> Vec<i32> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        let ids = ids.unwrap_or_default().split_ascii_whitespace();
        ids.filter_map(|id| id.parse().ok()).collect()
    }

    /// Its control group (version 2), as a directory; `None` where there is no such hierarchy.
    pub fn control_group(&self) -> Option<PathBuf> {
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", self.pid)).ok()?;
        let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let mount = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|fields| fields.get(2) == Some(&"cgroup2"))?;
        Some(PathBuf::from(mount[1]).join(group))
    }

    /// CPU time it has used, user and system.
    pub fn cpu_time(&self) -> Duration {
        const TICKS_PER_SECOND: u64 = 100; // USER_HZ, the same on every Linux of today
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let fields = stat.rsplit_once(')').map_or("", |(_, tail)| tail);
        let ticks: u64 = fields
            .split_ascii_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
    }

    /// CPU time of every thread as the scheduler of the kernel counts it, in nanoseconds; finer
    /// than [`Process::cpu_time`].
    pub fn run_time_ns(&self) -> u64 {
        let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", self.pid)) else {
            return 0;
        };
        tasks
            .flatten()
            .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
            .filter_map(|text| text.split_ascii_whitespace().next()?.parse::<u64>().ok())
            .sum()
    }

    /// What its open descriptors point at. Empty where the kernel does not let us look.
    pub fn descriptors(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(format!("/proc/{}/fd", self.pid)) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .map(|target: PathBuf| target.to_string_lossy().into_owned())
            .collect()
    }

    /// Sends it a signal; a process that is already gone is fine.
    pub fn signal(&self, signal: Signal) {
        let _gone_is_fine = kill(Pid::from_raw(self.pid), signal);
    }

    /// It is alive: neither gone nor a zombie, and still the same process.
    pub fn is_alive(&self) -> bool {
        Self::read(self.pid).is_some_and(|now| now.state != 'Z' && now.command == self.command)
    }
}

/// All processes that can be seen.
fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(Process::read)
        .collect()
}

/// The process and everything below it, zombies left out.
pub fn descendants_of(pid: i32) -> Vec<Process> {
    let all = all();
    let mut children: HashMap<i32, Vec<&Process>> = HashMap::new();
    for process in &all {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = Vec::new();
    let mut open: Vec<&Process> = all.iter().filter(|process| process.pid == pid).collect();
    while let Some(process) = open.pop() {
        open.extend(children.get(&process.pid).into_iter().flatten());
        if process.state != 'Z' {
            found.push(process.clone());
        }
    }
    found
}

/// Makes this test program the one to which orphans fall, and notes a run of its own.
pub(crate) fn note_run(pid: i32) {
    runs(|runs| runs.insert(pid));
}

/// Before the first child of a run is started.
pub(crate) fn adopt_orphans() {
    nix::sys::prctl::set_child_subreaper(true).expect("become a child subreaper");
}

/// A run has been reaped.
pub(crate) fn forget_run(pid: i32) {
    runs(|runs| runs.remove(&pid));
}

fn runs<T>(change: impl FnOnce(&mut HashSet<i32>) -> T) -> T {
    let mut runs = RUNS.lock().unwrap_or_else(PoisonError::into_inner);
    change(runs.get_or_insert_default())
}

/// Orphans that fell to this test program: its children that are no runs, with what is below
/// them. Those of other tests of the same program are among them for a moment.
pub(crate) fn orphans() -> Vec<Process> {
    let own = Pid::this().as_raw();
    let known = runs(|runs| runs.clone());
    all()
        .into_iter()
        .filter(|process| process.parent == own && process.state != 'Z')
        .filter(|process| !known.contains(&process.pid))
        .flat_map(|process| descendants_of(process.pid))
        .collect()
}

/// Waits for a condition, looking every few milliseconds. Gives up after 110 s with `what`.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < UNTIL, "gave up waiting until {what}");
        thread::sleep(Duration::from_millis(3));
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_a_command_leaves_behind_is_found() {
        adopt_orphans();
        let output = Command::new("sh")
            .args(["-c", "sleep 123 >/dev/null 2>&1 & echo $!"])
            .output()
            .expect("start sh");
        let pid: i32 = String::from_utf8_lossy(&output.stdout)
            .trim()
            .parse()
            .expect("a pid");
        let left = orphans().into_iter().find(|process| process.pid == pid);
        let left = left.expect("the process that sh has left behind");
        assert_eq!(left.command, "sleep 123");
        assert!(left.is_alive());
        left.signal(Signal::SIGKILL);
        until("it is gone", || !left.is_alive());
        assert!(orphans().iter().all(|process| process.pid != pid));
    }
}
