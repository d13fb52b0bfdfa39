//! What the processes of a node use, part by part: private memory, and processor time.
//!
//! Private memory is what would grow if anybody copied a payload: `RssAnon` counts pages that
//! belong to one process alone; shared memory is not in it.

use std::collections::HashMap;
use std::fs;

/// One number for each part of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// This process: the embedded node, and the harness itself.
    pub node: u64,
    /// The scheduler.
    pub scheduler: u64,
    /// All executors together.
    pub executors: u64,
}

/// One process, as /proc tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    command: String,
    private_bytes: u64,
}

impl Parts {
    /// Private memory of this process and its children now, bytes. Zero where /proc does not tell.
    pub fn private_bytes() -> Self {
        Self::now(|process| process.private_bytes)
    }

    /// Processor time that they have used, all threads together, nanoseconds. Zero where the
    /// kernel keeps no account of it (`schedstat`).
    pub fn processor_ns() -> Self {
        Self::now(|process| processor_ns(process.pid))
    }

    fn now(of: impl Fn(&Process) -> u64) -> Self {
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        Self::of(own, &processes(), of)
    }

    fn of(node: i32, all: &[Process], of: impl Fn(&Process) -> u64) -> Self {
        let is_child =
            |process: &Process, of: &str| process.parent == node && process.command.contains(of);
        let sum = |pick: &dyn Fn(&Process) -> bool| -> u64 {
            all.iter().filter(|p| pick(p)).map(&of).sum()
        };
        let zygotes: Vec<i32> = all
            .iter()
            .filter(|process| is_child(process, "zygote"))
            .map(|process| process.pid)
            .collect();
        Self {
            node: sum(&|process| process.pid == node),
            scheduler: sum(&|process| is_child(process, "scheduler")),
            executors: sum(&|process| zygotes.contains(&process.parent)),
        }
    }
}

fn processes() -> Vec<Process> {
    let Ok(directory) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    directory
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| {
            // Any of them may end between two looks.
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            process(pid, &status, &command)
        })
        .collect()
}

fn process(pid: i32, status: &str, command: &[u8]) -> Option<Process> {
    let fields: HashMap<&str, &str> = status
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.trim()))
        .collect();
    let private_kib: u64 = fields
        .get("RssAnon")
        .and_then(|value| value.trim_end_matches(" kB").parse().ok())
        .unwrap_or(0);
    Some(Process {
        pid,
        parent: fields.get("PPid")?.parse().ok()?,
        command: String::from_utf8_lossy(command).replace('\0', " "),
        private_bytes: private_kib * 1024,
    })
}

/// A process's own `schedstat` is that of its first thread alone.
fn processor_ns(pid: i32) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return 0;
    };
    threads
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pid: i32, parent: i32, command: &str, kib: u64) -> Process {
        let status = format!("Name:\tx\nPPid:\t{parent}\nRssAnon:\t    {kib} kB\n");
        process(pid, &status, command.as_bytes()).unwrap()
    }

    #[test]
    fn each_part_of_a_node_is_found_by_its_place_in_the_tree() {
        let all = [
            of(10, 1, "pheromone\0bench\0pair", 100),
            of(11, 10, "pheromone: scheduler\0__scheduler", 20),
            of(12, 10, "pheromone: zygote\0__zygote", 5),
            of(13, 12, "pheromone: bench-pair", 7),
            of(14, 12, "pheromone: bench-pair", 8),
            of(20, 1, "pheromone: scheduler\0__scheduler", 999),
        ];
        let private = Parts::of(10, &all, |process| process.private_bytes);
        assert_eq!(private.node, 100 * 1024);
        assert_eq!(private.scheduler, 20 * 1024);
        assert_eq!(private.executors, 15 * 1024);
    }

    #[test]
    fn this_process_has_private_memory_and_uses_time() {
        assert!(Parts::private_bytes().node > 0);
        let before = Parts::processor_ns().node;
        let mut sum = 0_u64;
        (0..1_000_000_u64).for_each(|i| sum = std::hint::black_box(sum.wrapping_add(i)));
        let after = Parts::processor_ns().node;
        // A kernel without an account says 0.
        assert!(after > before || (before, after) == (0, 0));
    }

    #[test]
    fn a_kernel_thread_has_none() {
        let thread = process(2, "PPid:\t0\n", b"").unwrap();
        assert_eq!(thread.private_bytes, 0);
    }
}
