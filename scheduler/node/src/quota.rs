//! How much memory the machine, and the containers around this process, let it have.
//!
//! Shared memory is charged where it is touched first. A quota beyond what there is would not be
//! met by an error but by the kernel's killing somebody, so no app is given more.

use std::path::Path;

use pheromone_manifest::App;

/// The smallest of the limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Bytes.
    pub bytes: u64,
    /// Whose limit it is, in words.
    pub whose: String,
}

impl Limit {
    /// That of this process; `None` where nobody says.
    pub fn here() -> Option<Self> {
        Self::below(Path::new("/"))
    }

    /// With `/proc` and `/sys` below this directory.
    fn below(root: &Path) -> Option<Self> {
        let mut limits = cgroup_limits(root);
        limits.extend(machine_limits(root));
        limits.into_iter().min_by_key(|limit| limit.bytes)
    }

    /// The app, with no more memory than this; and what to say where that is less than it asks for.
    pub fn clamp(&self, app: &App) -> Option<(App, String)> {
        let asked = app.spec.memory_bytes;
        if asked <= self.bytes {
            return None;
        }
        let mut less = app.clone();
        less.spec.memory_bytes = self.bytes;
        let objects = &mut less.spec.limits.object_size_bytes;
        *objects = (*objects).min(self.bytes);
        let mib = |bytes: u64| bytes >> 20;
        let said = format!(
            "app `{}` asks for {} MiB of memory, and {} is {} MiB: it is given that much; write a \
             smaller `memory`, or raise the limit",
            app.spec.name,
            mib(asked),
            self.whose,
            mib(self.bytes),
        );
        Some((less, said))
    }
}

/// What the machine has, and may promise where it promises no more than that
/// (`vm.overcommit_memory` = 2).
fn machine_limits(root: &Path) -> Vec<Limit> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let info = read("proc/meminfo");
    let field = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
        kib.checked_mul(1024)
    };
    let limit = |name: &str, whose: &str| {
        let whose = whose.to_owned();
        field(name).map(|bytes| Limit { bytes, whose })
    };
    let mut limits = Vec::new();
    limits.extend(limit("MemTotal:", "the memory of the machine"));
    if read("proc/sys/vm/overcommit_memory").trim() == "2" {
        limits.extend(limit(
            "CommitLimit:",
            "what the machine promises (vm.overcommit_memory)",
        ));
    }
    limits
}

/// The limits of all control groups that this process is in, of both versions.
fn cgroup_limits(root: &Path) -> Vec<Limit> {
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(kinds), Some(group)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let (mount, file) = match kinds {
            "" => ("sys/fs/cgroup", "memory.max"),
            kinds if kinds.split(',').any(|kind| kind == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // In a container the path may be that of outside: then the root is the own group.
        for ancestor in Path::new(group.trim_start_matches('/')).ancestors() {
            let path = Path::new(mount).join(ancestor).join(file);
            let text = std::fs::read_to_string(root.join(&path)).unwrap_or_default();
            // `max`, which is no number, is no limit.
            if let Ok(bytes) = text.trim().parse() {
                let whose = format!("the limit of the control group (/{})", path.display());
                limits.push(Limit { bytes, whose });
            }
        }
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) = (
        "proc/meminfo",
        "MemTotal:       1000 kB\nMemFree: 5 kB\nCommitLimit:     500 kB\n",
    );

    fn limit(files: &[(&str, &str)]) -> (u64, String) {
        let limit = Limit::below(machine(files).path()).unwrap();
        (limit.bytes, limit.whose)
    }

    #[test]
    fn the_machines_memory_bounds_all() {
        assert_eq!(Limit::below(machine(&[]).path()), None);
        let (bytes, whose) = limit(&[MEMINFO]);
        assert_eq!(
            (bytes, whose.as_str()),
            (1_024_000, "the memory of the machine")
        );
        let strict = ("proc/sys/vm/overcommit_memory", "2\n");
        assert_eq!(limit(&[MEMINFO, strict]).0, 512_000);
    }

    #[test]
    fn the_tightest_control_group_counts_whichever_of_its_ancestors_it_is() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/memory.max", "4096\n"),
        ];
        let (bytes, whose) = limit(&files);
        assert_eq!(bytes, 4096);
        assert!(whose.contains("/sys/fs/cgroup/a/memory.max"), "{whose}");
        // The path is that of outside, and the root the own group's.
        let contained = [
            MEMINFO,
            ("proc/self/cgroup", "0::/docker/123\n"),
            ("sys/fs/cgroup/memory.max", "8192\n"),
        ];
        assert_eq!(limit(&contained).0, 8192);
        let old = [
            MEMINFO,
            ("proc/self/cgroup", "4:cpu,memory:/x\n0::/\n"),
            ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "12288\n"),
            (
                "sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
        ];
        assert_eq!(limit(&old).0, 12288);
    }

    #[test]
    fn an_app_that_asks_for_more_is_given_what_there_is_and_that_is_said() {
        let manifest = "[app]\nname = \"a\"\nentry = \"f\"\nsource = [\"f.c\"]\n\
                        memory = \"64MiB\"\n[functions.f]\n";
        let root = machine(&[("app.toml", manifest), ("f.c", "")]);
        let app = pheromone_manifest::read(&root.path().join("app.toml")).unwrap();
        let limit = |bytes| Limit {
            bytes,
            whose: "the memory of the machine".into(),
        };
        assert!(limit(64 << 20).clamp(&app).is_none());
        let (less, said) = limit(16 << 20).clamp(&app).unwrap();
        assert_eq!(less.spec.memory_bytes, 16 << 20);
        assert!(less.spec.limits.object_size_bytes <= 16 << 20);
        assert!(less.spec.validate().is_ok());
        assert!(said.contains("64 MiB") && said.contains("16 MiB"), "{said}");
    }
}
