//! `pheromone check --host`: what this machine offers, found out by trying, and what each missing
//! thing takes away.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use pheromone_executor::sandbox::{Level, Offers};
use pheromone_node::CgroupOffer;
use pheromone_shm::file::Tmpfs;
use pheromone_shm::limits::PAGE_BYTES;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::process::{PidfdFlags, Resource, getpid, getrlimit, pidfd_open};
use serde::Serialize;

use crate::bytes;
use crate::exit::{Failure, Status};
use crate::terminal::{self, Paint};

/// Descriptors below which the number of executors is soon limited: each takes a few.
const DESCRIPTORS_WANTED: u64 = 4096;

/// Whether something is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Offer {
    /// All of it.
    Yes,
    /// Less than there could be.
    Partly,
    /// None of it.
    No,
}

/// One line of the table.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    offer: Offer,
    found: String,
    /// What goes without it.
    #[serde(skip_serializing_if = "str::is_empty")]
    consequence: &'static str,
    /// Nothing runs without it.
    required: bool,
}

impl Finding {
    fn new(what: &'static str, offer: Offer, found: impl Into<String>, lost: &'static str) -> Self {
        Self {
            what,
            offer,
            found: found.into(),
            consequence: if offer == Offer::Yes { "" } else { lost },
            required: false,
        }
    }

    /// From what trying it gave.
    fn tried(what: &'static str, result: io::Result<String>, lost: &'static str) -> Self {
        match result {
            Ok(found) => Self::new(what, Offer::Yes, found, lost),
            Err(error) => Self::new(what, Offer::No, error.to_string(), lost),
        }
    }

    fn required(self) -> Self {
        Self {
            required: true,
            ..self
        }
    }
}

/// `pheromone check --host`.
pub fn execute(json: bool) -> Result<Status, Failure> {
    let findings = look();
    if json {
        terminal::print_json(&findings)?;
    } else {
        terminal::print(&table_of(&findings))?;
    }
    let missing: Vec<&str> = findings
        .iter()
        .filter(|finding| finding.required && finding.offer == Offer::No)
        .map(|finding| finding.what)
        .collect();
    if missing.is_empty() {
        return Ok(Status::Success);
    }
    Err(Failure::failed(format!(
        "Pheromone cannot run on this machine: it needs {}",
        missing.join(", ")
    )))
}

fn table_of(findings: &[Finding]) -> String {
    let colours = terminal::colours(&io::stdout());
    let mut table = terminal::table(colours, &["what", "here", "found", "what is lost"], &[]);
    for finding in findings {
        let here = match finding.offer {
            Offer::Yes => "yes".to_owned(),
            Offer::Partly => terminal::paint(colours, Paint::Yellow, "partly"),
            Offer::No => terminal::paint(colours, Paint::Red, "no"),
        };
        table.add_row([finding.what, &here, &finding.found, finding.consequence]);
    }
    terminal::table_text(&table)
}

fn look() -> Vec<Finding> {
    vec![
        memfd().required(),
        proc().required(),
        pidfd().required(),
        cores(),
        compiler(),
        user(),
        tmpfs(),
        seccomp(),
        landlock(),
        levels(),
        pid_namespace(),
        cgroup(),
        memory_limit(),
        cpu_limit(),
        overcommit(),
        huge_pages(),
        io_uring(),
        clock(),
        descriptors(),
        locked_memory(),
        debugger(),
    ]
}

// ------------------------------------------------------------------------------- what runs it

fn sealed_file() -> io::Result<std::os::fd::OwnedFd> {
    let file = memfd_create(
        "pheromone-check",
        MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC,
    )?;
    ftruncate(&file, 4096)?;
    fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file)
}

fn memfd() -> Finding {
    let tried = sealed_file().map(|_| "sealed against growing and shrinking".to_owned());
    Finding::tried(
        "memfd",
        tried,
        "nothing runs: objects lie in sealed memory files",
    )
}

fn proc() -> Finding {
    let reopen = || {
        let file = sealed_file()?;
        let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
        File::open(path)
    };
    let tried = reopen().map(|_| "memory files reopen read-only".to_owned());
    Finding::tried(
        "/proc",
        tried,
        "nothing runs: executors see others' objects through descriptors reopened there",
    )
}

fn pidfd() -> Finding {
    let tried = pidfd_open(getpid(), PidfdFlags::empty())
        .map(|_| "deaths are noticed at once".to_owned())
        .map_err(io::Error::from);
    Finding::tried(
        "pidfd",
        tried,
        "nothing runs: deaths of executors would go unnoticed",
    )
}

fn cores() -> Finding {
    let lost = "nobody may spin: a hop costs a sleep and a wake";
    match std::thread::available_parallelism() {
        Ok(count) if count.get() >= 3 => {
            Finding::new("cores", Offer::Yes, format!("{count}"), lost)
        }
        Ok(count) if count.get() == 2 => Finding::new(
            "cores",
            Offer::Partly,
            "2",
            "I/O shares the executors' core: they spin 20 us at most",
        ),
        Ok(count) => Finding::new("cores", Offer::No, format!("{count}"), lost),
        Err(error) => Finding::new("cores", Offer::No, error.to_string(), lost),
    }
}

fn compiler() -> Finding {
    let name = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let program = name.split_whitespace().next().unwrap_or("cc");
    let tried = in_path(program)
        .map(|path| path.display().to_string())
        .ok_or_else(|| io::Error::other(format!("no {program} in PATH")));
    Finding::tried(
        "C compiler",
        tried,
        "`source` cannot be compiled; prebuilt libraries run",
    )
}

fn debugger() -> Finding {
    let tried = in_path("gdb")
        .map(|path| path.display().to_string())
        .ok_or_else(|| io::Error::other("no gdb in PATH"));
    Finding::tried("gdb", tried, "`invoke --debugger gdb`")
}

/// The first executable file of that name in PATH.
pub fn in_path(program: &str) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
    };
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(is_program);
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(is_program)
}

// --------------------------------------------------------------------------- what shuts it in

fn user() -> Finding {
    let lost = "functions run as the node's own user: `none` keeps nothing of its from them, and \
                isolation `strict` refuses to start";
    if rustix::process::geteuid().is_root() {
        Finding::new(
            "another uid",
            Offer::Yes,
            "started as root: one uid per app",
            lost,
        )
    } else {
        Finding::new("another uid", Offer::No, "not started as root", lost)
    }
}

fn pid_namespace() -> Finding {
    let lost = "what functions fork under `none` outlives a node that is killed, where there are no \
                control groups either";
    if pheromone_node::pid_namespace_is_allowed() {
        Finding::new(
            "pid namespace",
            Offer::Yes,
            "whatever functions fork dies with the node",
            lost,
        )
    } else {
        Finding::new("pid namespace", Offer::No, "refused to this user", lost)
    }
}

fn tmpfs() -> Finding {
    Finding::tried(
        "own tmpfs",
        Tmpfs::new(PAGE_BYTES as u64).map(|_| "one for each app".to_owned()),
        "the kernel does not bound an app's memory: the node compares and punches",
    )
}

fn seccomp() -> Finding {
    let lost = "isolation `standard` and `strict` refuse to start";
    if Offers::here().seccomp {
        Finding::new("seccomp", Offer::Yes, "system calls can be filtered", lost)
    } else {
        Finding::new("seccomp", Offer::No, "not in this kernel", lost)
    }
}

/// What all of it makes of an app's `isolation`.
fn levels() -> Finding {
    let here = Offers::here();
    let starts = |level: &Level| here.missing(*level).is_empty();
    let levels = [Level::None, Level::Standard, Level::Strict];
    let found = levels.iter().filter(|level| starts(level));
    let found: Vec<String> = found.map(ToString::to_string).collect();
    let offer = if found.len() == levels.len() {
        Offer::Yes
    } else {
        Offer::Partly
    };
    Finding::new(
        "isolation",
        offer,
        found.join(", "),
        "apps that ask for another level are refused, with what is missing",
    )
}

fn landlock() -> Finding {
    let found = |version| format!("version {version}");
    match Offers::here().landlock {
        0 => Finding::new(
            "Landlock",
            Offer::No,
            "not in this kernel, or switched off",
            "files are kept from functions by their permissions alone; isolation `strict` \
             refuses to start",
        ),
        version
            if Offers::here()
                .missing(Level::Strict)
                .iter()
                .any(|it| it.contains("Landlock")) =>
        {
            Finding::new(
                "Landlock",
                Offer::Partly,
                found(version),
                "isolation `strict` refuses to start",
            )
        }
        version => Finding::new("Landlock", Offer::Yes, found(version), ""),
    }
}

// ------------------------------------------------------------------------------- what limits it

/// The directory of this process's cgroup (version 2).
fn cgroup_directory() -> Option<PathBuf> {
    let memberships = read("/proc/self/cgroup")?;
    let path = memberships
        .lines()
        .find_map(|line| line.strip_prefix("0::"))?;
    let directory = Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'));
    directory.is_dir().then_some(directory)
}

fn cgroup() -> Finding {
    finding_of(&CgroupOffer::here())
}

fn finding_of(offer: &CgroupOffer) -> Finding {
    let what = "control groups";
    match offer {
        CgroupOffer::Nothing(why) => Finding::new(
            what,
            Offer::No,
            why,
            "what functions fork under `none` is killed by the pid namespace alone, with the node; \
             no limits for all executors of an app together",
        ),
        CgroupOffer::KillAndLimit {
            memory: true,
            processes: true,
        } => Finding::new(what, Offer::Yes, offer.to_string(), ""),
        CgroupOffer::Kill | CgroupOffer::KillAndLimit { .. } => Finding::new(
            what,
            Offer::Partly,
            offer.to_string(),
            "limits of memory and processes are those of each executor",
        ),
    }
}

/// The smallest number that a file gives on the way from our cgroup to the root.
fn smallest_limit(name: &str, parse: impl Fn(&str) -> Option<f64>) -> Option<f64> {
    let directory = cgroup_directory()?;
    let limits = directory
        .ancestors()
        .take_while(|folder| folder.starts_with("/sys/fs/cgroup"))
        .filter_map(|folder| parse(&read(folder.join(name))?));
    limits.reduce(f64::min)
}

fn memory_limit() -> Finding {
    let limit = smallest_limit("memory.max", |text| text.parse().ok());
    match limit {
        None => Finding::new("memory.max", Offer::Yes, "no limit", ""),
        Some(limit) => Finding::new(
            "memory.max",
            Offer::Partly,
            bytes::size(limit as u64),
            "past it the kernel kills processes: keep the apps' `memory` together below it",
        ),
    }
}

fn cpu_limit() -> Finding {
    match smallest_limit("cpu.max", cores_of) {
        None => Finding::new("cpu.max", Offer::Yes, "no limit", ""),
        Some(cores) => Finding::new(
            "cpu.max",
            Offer::Partly,
            format!("{cores:.1} cores"),
            "below one core per spinner nobody spins: throttling would stop the scheduler",
        ),
    }
}

/// `cpu.max` of cgroup v2: `max 100000` or `50000 100000`.
fn cores_of(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let cores = quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?;
    (cores.is_finite() && cores > 0.0).then_some(cores)
}

fn overcommit() -> Finding {
    let lost = "address space counts as memory: regions may be refused";
    match read("/proc/sys/vm/overcommit_memory").as_deref() {
        Some("2") => Finding::new("overcommit", Offer::No, "strict accounting", lost),
        Some(mode) => Finding::new("overcommit", Offer::Yes, format!("mode {mode}"), lost),
        None => Finding::new("overcommit", Offer::Partly, "unknown", lost),
    }
}

fn huge_pages() -> Finding {
    let lost = "large objects lie in pages of 4 KiB: more time at their first touch";
    let modes = read("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
    match modes.as_deref().and_then(chosen) {
        Some(mode) if mode != "deny" && Tmpfs::new(PAGE_BYTES as u64).is_ok() => {
            Finding::new("huge pages", Offer::Yes, "on an app's own tmpfs", lost)
        }
        Some(mode @ ("always" | "advise" | "within_size")) => Finding::new(
            "huge pages",
            Offer::Yes,
            format!("shared memory: {mode}"),
            lost,
        ),
        Some(mode) => Finding::new(
            "huge pages",
            Offer::No,
            format!("shared memory: {mode}"),
            lost,
        ),
        None => Finding::new("huge pages", Offer::No, "unknown", lost),
    }
}

/// The word in brackets of `always [never] madvise`.
fn chosen(modes: &str) -> Option<&str> {
    modes
        .split_whitespace()
        .find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))
}

fn io_uring() -> Finding {
    let tried = io_uring::IoUring::new(2).map(|_| "possible".to_owned());
    Finding::tried(
        "io_uring",
        tried,
        "durable objects are written by threads instead",
    )
}

fn clock() -> Finding {
    let lost = "reading the time is a system call, or slow: stamps cost more";
    let file = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    match read(file) {
        Some(source) if matches!(source.as_str(), "tsc" | "kvm-clock" | "arch_sys_counter") => {
            Finding::new("clock source", Offer::Yes, source, lost)
        }
        Some(source) => Finding::new("clock source", Offer::Partly, source, lost),
        None => Finding::new("clock source", Offer::Partly, "unknown", lost),
    }
}

fn descriptors() -> Finding {
    let limit = getrlimit(Resource::Nofile).maximum;
    let found = limit.map_or("no limit".to_owned(), |limit| limit.to_string());
    let offer = match limit {
        Some(limit) if limit < DESCRIPTORS_WANTED => Offer::Partly,
        _ => Offer::Yes,
    };
    Finding::new(
        "open files",
        offer,
        found,
        "fewer executors: each takes a few descriptors",
    )
}

fn locked_memory() -> Finding {
    let limit = getrlimit(Resource::Memlock).current;
    let found = limit.map_or("no limit".to_owned(), bytes::size);
    let offer = match limit {
        Some(limit) if limit < 64 << 20 => Offer::Partly,
        _ => Offer::Yes,
    };
    Finding::new(
        "locked memory",
        offer,
        found,
        "the scheduler's memory may be swapped out",
    )
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    // Files of /proc and /sys say their size only by ending.
    let text = io::read_to_string(File::open(path).ok()?).ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_takes_nothing_away_and_what_is_not_says_so() {
        let there = Finding::tried("x", Ok("fine".into()), "all is lost");
        assert_eq!((there.offer, there.consequence), (Offer::Yes, ""));
        let missing = Finding::tried("x", Err(io::Error::other("gone")), "all is lost");
        assert_eq!(
            (missing.offer, missing.consequence),
            (Offer::No, "all is lost")
        );
        assert_eq!(missing.found, "gone");
    }

    #[test]
    fn the_table_has_a_line_for_each_thing_and_no_colours_in_a_test() {
        let findings = [
            Finding::new("memfd", Offer::Yes, "fine", ""),
            Finding::new("seccomp", Offer::No, "not in this kernel", "isolation"),
        ];
        let text = table_of(&findings);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[1].starts_with("memfd") && lines[1].contains("yes"));
        assert!(lines[2].starts_with("seccomp") && lines[2].ends_with("isolation"));
    }

    #[test]
    fn quotas_and_modes_are_read_as_the_kernel_writes_them() {
        assert_eq!(cores_of("50000 100000"), Some(0.5));
        assert_eq!(cores_of("max 100000"), None);
        assert_eq!(cores_of("1 0"), None);
        assert_eq!(
            chosen("always within_size advise [never] deny force"),
            Some("never")
        );
        assert_eq!(chosen("never"), None);
    }

    #[test]
    fn programs_are_found_in_path_and_by_their_own_path() {
        assert!(in_path("sh").is_some());
        assert!(in_path("/bin/sh").is_some());
        assert_eq!(in_path("no-such-program-anywhere"), None);
    }

    #[test]
    fn what_control_groups_lack_takes_away_what_it_takes_away() {
        let limits = |memory, processes| CgroupOffer::KillAndLimit { memory, processes };
        for (offer, expected) in [
            (CgroupOffer::Nothing("no cgroup".into()), Offer::No),
            (CgroupOffer::Kill, Offer::Partly),
            (limits(true, false), Offer::Partly),
            (limits(false, true), Offer::Partly),
            (limits(true, true), Offer::Yes),
        ] {
            let finding = finding_of(&offer);
            assert_eq!(finding.offer, expected, "{offer}");
            assert_eq!(finding.consequence.is_empty(), expected == Offer::Yes);
        }
    }

    #[test]
    fn looking_never_fails_whatever_the_machine() {
        for finding in [
            memfd(),
            proc(),
            pidfd(),
            tmpfs(),
            seccomp(),
            landlock(),
            pid_namespace(),
            cgroup(),
            io_uring(),
        ] {
            assert!(!finding.found.is_empty(), "{}", finding.what);
        }
    }
}
