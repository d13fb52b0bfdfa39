//! The processes of a node and the memory that each of them holds, read from /proc.

use std::fs;

use serde::Serialize;

/// Memory of one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// `node`, `scheduler`, `zygote` or `executor`.
    pub role: String,
    /// Its id.
    pub pid: i32,
    /// All memory that it has mapped and that is there, shared memory too.
    pub resident_bytes: u64,
    /// Of it, what is its own.
    pub private_bytes: u64,
}

/// No other process of the same user may look into this one from here on, or write its memory:
/// functions may be among them. It leaves no core either.
pub fn keep_to_itself() {
    // Where it is refused, whatever shuts functions in still keeps them off.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// This process and its descendants that belong to the node, executors in the order of their ids.
pub fn memory_of_node() -> Vec<Memory> {
    let own = std::process::id().cast_signed();
    let all = all_processes();
    let mut found = vec![(own, "node".to_owned())];
    for &(pid, parent) in &all {
        if parent != own {
            continue;
        }
        let title = title_of(pid);
        for role in ["scheduler", "zygote"] {
            if title.contains(role) {
                found.push((pid, role.to_owned()));
            }
        }
        if title.contains("zygote") {
            let mut executors: Vec<i32> = all
                .iter()
                .filter(|(_, parent)| *parent == pid)
                .map(|(pid, _)| *pid)
                .collect();
            executors.sort_unstable();
            found.extend(
                executors
                    .into_iter()
                    .map(|pid| (pid, "executor".to_owned())),
            );
        }
    }
    found
        .into_iter()
        .filter_map(|(pid, role)| memory_of(pid, role))
        .collect()
}

/// Every process with its parent.
fn all_processes() -> Vec<(i32, i32)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((pid, parent_of(&stat)?))
        })
        .collect()
}

/// The fourth field of /proc/PID/stat. The second one is a name in parentheses, whatever is in it.
fn parent_of(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

fn title_of(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = bytes.split(|byte| *byte == 0).take(2);
    words
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

fn memory_of(pid: i32, role: String) -> Option<Memory> {
    // One that has ended meanwhile holds none.
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(Memory {
        role,
        pid,
        resident_bytes: field_bytes(&status, "VmRSS")?,
        private_bytes: field_bytes(&status, "RssAnon").unwrap_or(0),
    })
}

/// A field of /proc/PID/status that is given in kB, which means KiB.
fn field_bytes(status: &str, name: &str) -> Option<u64> {
    let line = status
        .lines()
        .find(|line| line.split(':').next() == Some(name))?;
    let number: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(number * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_with_its_memory() {
        let all = memory_of_node();
        assert_eq!(all[0].role, "node");
        assert_eq!(all[0].pid, std::process::id().cast_signed());
        assert!(all[0].resident_bytes > 0 && all[0].private_bytes <= all[0].resident_bytes);
    }

    #[test]
    fn a_parent_is_read_behind_any_name() {
        assert_eq!(parent_of("12 (a) b) c (d) S 7 12 12 0"), Some(7));
        assert_eq!(parent_of("12 (sh) S 1 12"), Some(1));
        assert_eq!(parent_of(""), None);
    }

    #[test]
    fn fields_are_kibibytes() {
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nRssAnon:\t 10 kB\n";
        assert_eq!(field_bytes(status, "VmRSS"), Some(2048 * 1024));
        assert_eq!(field_bytes(status, "RssAnon"), Some(10 * 1024));
        assert_eq!(field_bytes(status, "Vm"), None);
    }
}
