//! The controllers that limit an app's executors, and how groups come to have them.

use std::io;
use std::path::Path;

use super::{ask, tell};

/// Which of the controllers that a node uses are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Controllers {
    /// `memory.max`.
    pub memory: bool,
    /// `pids.max`.
    pub pids: bool,
}

/// How groups below one come to have controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// There is nothing to be done.
    Done,
    /// They are enabled.
    Enable,
    /// A group that has processes can give its controllers to no other (cgroups(7), "no internal
    /// processes"): this one, which is alone in it, goes into a leaf, and then they are enabled.
    MakeRoom,
}

impl Controllers {
    /// Those among the words of `cgroup.controllers` or `cgroup.subtree_control`.
    fn among(words: &str) -> Self {
        let has = |name| words.split_ascii_whitespace().any(|word| word == name);
        Self {
            memory: has("memory"),
            pids: has("pids"),
        }
    }

    /// What a group has to give.
    pub fn of(directory: &Path) -> Self {
        Self::among(&ask(directory, "cgroup.controllers").unwrap_or_default())
    }

    /// What groups below this one have.
    pub fn below(directory: &Path) -> Self {
        Self::among(&ask(directory, "cgroup.subtree_control").unwrap_or_default())
    }

    /// None of them.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Those that are not among the others.
    pub fn without(self, others: Self) -> Self {
        Self {
            memory: self.memory && !others.memory,
            pids: self.pids && !others.pids,
        }
    }

    /// Gives them to the groups below.
    pub fn enable(self, directory: &Path) -> io::Result<()> {
        self.switch(directory, '+')
    }

    /// Takes them from the groups below.
    pub fn disable(self, directory: &Path) -> io::Result<()> {
        self.switch(directory, '-')
    }

    fn switch(self, directory: &Path, sign: char) -> io::Result<()> {
        let names = [(self.memory, "memory"), (self.pids, "pids")];
        let words = names.iter().filter(|(is, _)| *is);
        let words: Vec<String> = words.map(|(_, name)| format!("{sign}{name}")).collect();
        if words.is_empty() {
            return Ok(());
        }
        tell(directory, "cgroup.subtree_control", &words.join(" "))
    }

    /// How groups below this one come to have these, for a process that is in it with others or
    /// alone. `None`: they do not, since no process but its own is a node's to move.
    pub fn way(self, directory: &Path, own: u32) -> Option<Way> {
        if self.without(Self::below(directory)).is_empty() {
            return Some(Way::Done);
        }
        let members = ask(directory, "cgroup.procs").unwrap_or_default();
        let members: Vec<&str> = members.split_ascii_whitespace().collect();
        // The root, which alone has no type, may have both.
        let is_root = !directory.join("cgroup.type").exists();
        if is_root || members.is_empty() {
            return Some(Way::Enable);
        }
        (members == [own.to_string()]).then_some(Way::MakeRoom)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const BOTH: Controllers = Controllers {
        memory: true,
        pids: true,
    };

    /// A directory with files as a group has them.
    fn group(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        directory
    }

    #[test]
    fn the_two_that_are_used_are_found_among_all() {
        let group = group(&[
            ("cgroup.controllers", "cpuset cpu io memory hugetlb pids\n"),
            ("cgroup.subtree_control", "cpu pids\n"),
        ]);
        assert_eq!(Controllers::of(group.path()), BOTH);
        let below = Controllers::below(group.path());
        assert_eq!((below.memory, below.pids), (false, true));
        assert!(BOTH.without(below).memory && !BOTH.without(below).pids);
        assert!(Controllers::of(Path::new("/nonexistent")).is_empty());
        assert!(Controllers::among("memory.max pidsx").is_empty());
    }

    #[test]
    fn they_are_switched_by_one_write() {
        let group = group(&[("cgroup.subtree_control", "")]);
        BOTH.enable(group.path()).unwrap();
        let written = || fs::read_to_string(group.path().join("cgroup.subtree_control")).unwrap();
        assert_eq!(written(), "+memory +pids");
        BOTH.disable(group.path()).unwrap();
        assert_eq!(written(), "-memory -pids");
        Controllers::default().enable(group.path()).unwrap();
        assert_eq!(written(), "-memory -pids");
        assert!(BOTH.enable(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn room_is_made_only_by_who_is_alone() {
        let kind = ("cgroup.type", "domain\n");
        let nothing = ("cgroup.subtree_control", "\n");
        let way = |files: &[(&str, &str)]| BOTH.way(group(files).path(), 70);
        let given = ("cgroup.subtree_control", "memory pids\n");
        assert_eq!(
            way(&[kind, given, ("cgroup.procs", "1\n70\n")]),
            Some(Way::Done)
        );
        assert_eq!(
            way(&[nothing, ("cgroup.procs", "1\n70\n")]),
            Some(Way::Enable)
        );
        assert_eq!(
            way(&[kind, nothing, ("cgroup.procs", "")]),
            Some(Way::Enable)
        );
        assert_eq!(
            way(&[kind, nothing, ("cgroup.procs", "70\n")]),
            Some(Way::MakeRoom)
        );
        for others in ["1\n70\n", "7\n", "0\n70\n", "70\n700\n"] {
            assert_eq!(way(&[kind, nothing, ("cgroup.procs", others)]), None);
        }
    }
}
