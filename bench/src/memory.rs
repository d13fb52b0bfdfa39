//! Private memory of a node's processes: what would grow if anybody copied a payload.
//!
//! `RssAnon` counts pages that belong to one process alone; shared memory is not in it.

use std::collections::HashMap;
use std::fs;

/// Private memory by part of the node, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Private {
    /// This process: the embedded node, and the harness itself.
    pub node_bytes: u64,
    /// The scheduler.
    pub scheduler_bytes: u64,
    /// All executors together.
    pub executors_bytes: u64,
}

/// One process, as /proc tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    command: String,
    private_bytes: u64,
}

impl Private {
    /// Of this process and its children now. Zero where /proc does not tell.
    pub fn now() -> Self {
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        Self::of(own, &processes())
    }

    fn of(node: i32, all: &[Process]) -> Self {
        let is_child =
            |process: &Process, of: &str| process.parent == node && process.command.contains(of);
        let bytes = |pick: &dyn Fn(&Process) -> bool| -> u64 {
            all.iter()
                .filter(|p| pick(p))
                .map(|p| p.private_bytes)
                .sum()
        };
        let zygotes: Vec<i32> = all
            .iter()
            .filter(|process| is_child(process, "zygote"))
            .map(|process| process.pid)
            .collect();
        Self {
            node_bytes: bytes(&|process| process.pid == node),
            scheduler_bytes: bytes(&|process| is_child(process, "scheduler")),
            executors_bytes: bytes(&|process| zygotes.contains(&process.parent)),
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
        let private = Private::of(10, &all);
        assert_eq!(private.node_bytes, 100 * 1024);
        assert_eq!(private.scheduler_bytes, 20 * 1024);
        assert_eq!(private.executors_bytes, 15 * 1024);
    }

    #[test]
    fn this_process_has_private_memory() {
        assert!(Private::now().node_bytes > 0);
    }

    #[test]
    fn a_kernel_thread_has_none() {
        let thread = process(2, "PPid:\t0\n", b"").unwrap();
        assert_eq!(thread.private_bytes, 0);
    }
}
