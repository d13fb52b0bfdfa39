//! One control group of a node's: processes that are limited, and killed, together.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::controllers::Controllers;
use super::{ask, tell};

/// Groups of one name that may be there at once.
const NAMESAKES_MAX: u32 = 1000;
/// Levels of groups that functions may have made below theirs, where they may, before those stay.
pub const DEPTH_MAX: usize = 16;

/// What the processes of a group may take together. `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory, shared memory that they have touched first among it. Past it, and when
    /// nothing can be reclaimed, the kernel kills one of them, not all (`memory.oom.group` stays
    /// 0): the others have done nothing.
    pub memory_bytes: Option<u64>,
    /// Processes and threads. Past it there are no new ones.
    pub tasks: Option<u64>,
}

/// A group. It is to be gone before it is dropped: see [`Group::kill`] and [`Group::is_gone`].
#[derive(Debug)]
pub struct Group {
    directory: PathBuf,
    handle: OwnedFd,
    /// Who was in it when it was killed.
    killed: Vec<Pid>,
}

impl Group {
    /// Makes one, and gives it these limits as far as there are controllers for them.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn make(
        parent: &Path,
        name: &str,
        limits: &Limits,
        controllers: Controllers,
    ) -> io::Result<Self> {
        let directory = make_directory(parent, name)?;
        let made = handle_of(&directory).and_then(|handle| {
            limit(&directory, limits, controllers)?;
            Ok(handle)
        });
        match made {
            Ok(handle) => Ok(Self {
                directory,
                handle,
                killed: Vec::new(),
            }),
            Err(error) => {
                // Nobody has been in it.
                let _ = fs::remove_dir(&directory);
                Err(error)
            }
        }
    }

    /// Its directory: a process may be started into it.
    pub fn handle(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// Takes a process in.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn take(&self, pid: i32) -> io::Result<()> {
        tell(&self.directory, "cgroup.procs", &pid.to_string())
    }

    /// Kills whoever is in it, and in groups below it. Others may come in afterwards.
    pub fn kill(&mut self) {
        let members = ask(&self.directory, "cgroup.procs").unwrap_or_default();
        let members = members.split_ascii_whitespace();
        let members = members.filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
        self.killed.extend(members);
        kill(&self.directory);
    }

    /// Whether it could be removed, now or before: nobody is in it.
    pub fn is_gone(&mut self) -> bool {
        if !remove(&self.directory, DEPTH_MAX) {
            return false;
        }
        self.reap();
        true
    }

    /// Those whose parents are dead have come to the node, which is the reaper of orphans unless
    /// the zygote is. The others, its executors among them, are somebody else's to reap.
    fn reap(&mut self) {
        for pid in self.killed.drain(..) {
            // An error means that it is nobody whom this process waits for.
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

/// A new directory of this name or, where that is taken, of this name with a number. It is closed
/// to others: a function that had it open could lock it (`tree.rs`).
pub fn make_directory(parent: &Path, name: &str) -> io::Result<PathBuf> {
    let mut number = 0;
    loop {
        let directory = match number {
            0 => parent.join(name),
            _ => parent.join(format!("{name}.{number}")),
        };
        match fs::DirBuilder::new().mode(0o700).create(&directory) {
            Err(error)
                if error.kind() == io::ErrorKind::AlreadyExists && number < NAMESAKES_MAX =>
            {
                number += 1;
            }
            made => return made.map(|()| directory),
        }
    }
}

/// Opens a group's directory.
pub fn handle_of(directory: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(directory, flags, Mode::empty())?)
}

fn limit(directory: &Path, limits: &Limits, controllers: Controllers) -> io::Result<()> {
    let files = [
        (controllers.memory, "memory.max", limits.memory_bytes),
        (controllers.pids, "pids.max", limits.tasks),
    ];
    for (is_there, file, most) in files {
        if let (true, Some(most)) = (is_there, most) {
            tell(directory, file, &most.to_string())?;
        }
    }
    Ok(())
}

/// Kills whoever is in a group or below it.
pub fn kill(directory: &Path) {
    // An error means that there is no such group any more.
    let _ = tell(directory, "cgroup.kill", "1");
}

/// Removes a group with those below it, of which nobody is left alive. False: somebody is, or has
/// not yet ended.
pub fn remove(directory: &Path, depth: usize) -> bool {
    if let (Ok(entries), true) = (fs::read_dir(directory), depth > 0) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove(&entry.path(), depth - 1);
            }
        }
    }
    match fs::remove_dir(directory) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_where_there_is_a_controller_and_a_limit() {
        let parent = tempfile::tempdir().unwrap();
        let files = ["memory.max", "pids.max", "memory.oom.group"];
        for file in files {
            fs::write(parent.path().join(file), "max\n").unwrap();
        }
        let both = Controllers {
            memory: true,
            pids: true,
        };
        let limits = Limits {
            memory_bytes: Some(1 << 30),
            tasks: None,
        };
        let read = || files.map(|file| fs::read_to_string(parent.path().join(file)).unwrap());
        limit(parent.path(), &limits, Controllers::default()).unwrap();
        assert_eq!(read(), ["max\n"; 3]);
        limit(parent.path(), &limits, both).unwrap();
        assert_eq!(read(), ["1073741824", "max\n", "max\n"]);
        let limits = Limits {
            tasks: Some(2112),
            ..limits
        };
        limit(parent.path(), &limits, both).unwrap();
        assert_eq!(read(), ["1073741824", "2112", "max\n"]);
        fs::remove_file(parent.path().join("pids.max")).unwrap();
        assert!(limit(parent.path(), &limits, both).is_err());
    }

    #[test]
    fn namesakes_are_told_apart_and_nobody_else_can_open_them() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..3)
            .map(|_| make_directory(parent.path(), "app-a.1").unwrap())
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["app-a.1", "app-a.1.1", "app-a.1.2"]);
        let mode = fs::metadata(parent.path().join("app-a.1")).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o700);
        let missing = make_directory(Path::new("/nonexistent"), "a").unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn groups_below_go_with_it_as_deep_as_is_looked() {
        let parent = tempfile::tempdir().unwrap();
        let top = parent.path().join("top");
        fs::create_dir_all(top.join("a/b/c")).unwrap();
        assert!(!remove(&top, 2));
        assert!(top.join("a/b/c").exists());
        assert!(remove(&top, 3));
        assert!(!top.exists());
        assert!(remove(&top, 3), "what is not there is gone");
    }
}
