//! The node's own control group, with one below it for the zygote and for each version of an app.
//!
//! It is locked by flock(2) for as long as the node lives. So whose node is gone is known without
//! asking for process ids, which mean other processes in another pid namespace or a while later.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock, fstat, stat};

use super::controllers::Way;
use super::group::{self, Group, Limits};
use super::{CgroupOffer, Controllers, ask, tell};

/// How the group of a node is named: this, and its process id.
const PREFIX: &str = "pheromone-";
/// Where this process goes when it makes room.
const LEAF: &str = "node";
/// How long the dead may take to be gone.
const GONE_WAIT: Duration = Duration::from_secs(1);
/// Between two looks whether they are.
const LOOK: Duration = Duration::from_millis(1);
/// How often a group is made anew that somebody takes for one whose node is gone.
const TRIES: usize = 10;

/// A node's group.
#[derive(Debug)]
pub struct Tree {
    directory: PathBuf,
    /// The group that it is in.
    base: PathBuf,
    /// What the groups in it have.
    controllers: Controllers,
    /// What was enabled to make room.
    made_room_for: Option<Controllers>,
    _lock: OwnedFd,
}

impl Tree {
    /// Makes one in this group.
    ///
    /// # Errors
    /// What the kernel said. Nothing is left behind.
    pub fn plant(base: &Path) -> io::Result<Self> {
        let name = format!("{PREFIX}{}", std::process::id());
        let (directory, lock) = locked(base, &name)?;
        let mut tree = Self {
            directory,
            base: base.to_owned(),
            controllers: Controllers::default(),
            made_room_for: None,
            _lock: lock,
        };
        if !tree.directory.join("cgroup.kill").exists() {
            let error = "groups cannot be killed as a whole (Linux 5.14)";
            return Err(io::Error::other(error));
        }
        tree.enable();
        Ok(tree)
    }

    /// Gives the groups below the controllers that can be had. Where that is refused, there are no
    /// limits.
    fn enable(&mut self) {
        let wanted = Controllers::of(&self.base);
        let below = Controllers::below(&self.base);
        let missing = wanted.without(below);
        let had = match wanted.way(&self.base, std::process::id()) {
            Some(Way::Done) => Ok(()),
            // For good: others may count on it by the time that this node ends.
            Some(Way::Enable) => missing.enable(&self.base),
            Some(Way::MakeRoom) => self.make_room(missing),
            None => return,
        };
        if had.is_ok()
            && Controllers::of(&self.directory)
                .enable(&self.directory)
                .is_ok()
        {
            self.controllers = Controllers::below(&self.directory);
        }
    }

    /// This process, which is alone in the group, goes into a leaf of its own.
    fn make_room(&mut self, missing: Controllers) -> io::Result<()> {
        let leaf = self.directory.join(LEAF);
        fs::create_dir(&leaf)?;
        let own = std::process::id().to_string();
        tell(&leaf, "cgroup.procs", &own)?;
        self.made_room_for = Some(missing);
        missing.enable(&self.base).inspect_err(|_| self.go_back())
    }

    fn go_back(&mut self) {
        let Some(enabled) = self.made_room_for.take() else {
            return;
        };
        // Where it is refused, the process stays in the leaf, which does no harm.
        let _ = self.controllers.disable(&self.directory);
        let _ = enabled.disable(&self.base);
        let _ = tell(&self.base, "cgroup.procs", &std::process::id().to_string());
        let _ = fs::remove_dir(self.directory.join(LEAF));
    }

    /// What it is good for.
    pub fn offer(&self) -> CgroupOffer {
        if self.controllers.is_empty() {
            return CgroupOffer::Kill;
        }
        CgroupOffer::KillAndLimit {
            memory: self.controllers.memory,
            processes: self.controllers.pids,
        }
    }

    /// A group in it.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn group(&self, name: &str, limits: &Limits) -> io::Result<Group> {
        Group::make(&self.directory, name, limits, self.controllers)
    }
}

impl Drop for Tree {
    /// Removes it. Whoever was in its groups is gone, or stays in them for the next node to find.
    fn drop(&mut self) {
        self.go_back();
        remove_all(&self.directory);
    }
}

/// A new directory that is ours by its lock.
fn locked(base: &Path, name: &str) -> io::Result<(PathBuf, OwnedFd)> {
    for _ in 0..TRIES {
        let directory = group::make_directory(base, name)?;
        // Before it is locked, another node may have taken it for one whose node is gone.
        if let Ok(Some(lock)) = lock(&directory) {
            return Ok((directory, lock));
        }
    }
    Err(io::Error::other("others remove every group that is made"))
}

/// Locks a directory, if nobody else has; it is then sure to be the one that is there.
fn lock(directory: &Path) -> io::Result<Option<OwnedFd>> {
    let handle = group::handle_of(directory)?;
    match flock(&handle, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let (held, there) = (fstat(&handle)?, stat(directory)?);
    Ok((held.st_ino == there.st_ino).then_some(handle))
}

/// Kills what nodes that are gone have left in this group, and removes it: a sentence for each that
/// somebody was in.
pub fn remove_strays(base: &Path) -> Vec<String> {
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name());
    let names = names.filter_map(|name| name.into_string().ok());
    let strays = names.filter(|name| is_a_nodes(name));
    strays
        .filter_map(|name| remove_stray(&base.join(&name), &name))
        .collect()
}

fn remove_stray(directory: &Path, name: &str) -> Option<String> {
    let _lock = lock(directory).ok()??;
    let found: usize = groups_in(directory)
        .map(|group| members_below(&group, group::DEPTH_MAX))
        .sum();
    for group in groups_in(directory) {
        group::kill(&group);
    }
    let is_gone = remove_all(directory);
    let whom = match found {
        0 => return None,
        1 => "1 process".to_owned(),
        _ => format!("{found} processes"),
    };
    Some(if is_gone {
        format!("killed {whom} that a node before this one had left behind (group {name})")
    } else {
        format!(
            "a node before this one had left {whom} behind, and not all end: see {}",
            directory.display()
        )
    })
}

/// Whether a directory is named as a node's: the prefix, a process id, and a number where there is
/// more than one.
fn is_a_nodes(name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some(rest) = name.strip_prefix(PREFIX) else {
        return false;
    };
    match rest.split_once('.') {
        Some((pid, nth)) => number(pid) && number(nth),
        None => number(rest),
    }
}

/// The groups of a node's that have processes of its own in them. In the leaf are the node, and
/// what the program that embeds it has started: not ours to kill.
fn groups_in(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter(|entry| entry.file_name() != LEAF)
        .map(|entry| entry.path())
}

/// How many processes are in a group and in those below it.
fn members_below(group: &Path, depth: usize) -> usize {
    let deeper = groups_in(group).map(|group| match depth {
        0 => 0,
        _ => members_below(&group, depth - 1),
    });
    members(group) + deeper.sum::<usize>()
}

fn members(group: &Path) -> usize {
    let members = ask(group, "cgroup.procs").unwrap_or_default();
    members.lines().count()
}

/// Removes a node's group once the dead are gone from it. False where they do not go.
fn remove_all(directory: &Path) -> bool {
    let until = Instant::now() + GONE_WAIT;
    while !group::remove(directory, group::DEPTH_MAX) {
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::super::place;
    use super::*;
    use crate::child::Child;

    const LONG: Duration = Duration::from_secs(20);

    /// This process is in one group at a time.
    static PLACE: Mutex<()> = Mutex::new(());

    /// A group in the one of this process, where no node but those of a test's looks for others.
    struct Base {
        directory: PathBuf,
        own: PathBuf,
        _place: MutexGuard<'static, ()>,
    }

    impl Base {
        /// `None` where this process may make none.
        fn new() -> Option<Self> {
            let place = PLACE.lock().unwrap_or_else(PoisonError::into_inner);
            let own = match place::own() {
                Ok(own) => own,
                Err(error) => {
                    println!("left out: {error}");
                    return None;
                }
            };
            let name = format!("test-{}", std::process::id());
            Some(Self {
                directory: group::make_directory(&own, &name).unwrap(),
                own,
                _place: place,
            })
        }

        fn enter(&self, directory: &Path) {
            let own = std::process::id().to_string();
            tell(directory, "cgroup.procs", &own).unwrap();
        }
    }

    impl Drop for Base {
        fn drop(&mut self) {
            self.enter(&self.own);
            group::kill(&self.directory);
            let gone = remove_all(&self.directory);
            assert!(gone || std::thread::panicking());
        }
    }

    fn shell(script: &str) -> Child {
        Child::start(Path::new("/bin/sh"), "sh", &["-c", script], &[]).unwrap()
    }

    fn until(mut condition: impl FnMut() -> bool) {
        let since = Instant::now();
        while !condition() {
            assert!(since.elapsed() < LONG);
            std::thread::sleep(LOOK);
        }
    }

    #[test]
    fn a_group_is_killed_whoever_is_in_it_and_removed() {
        let Some(base) = Base::new() else { return };
        let tree = Tree::plant(&base.directory).unwrap();
        let mut group = tree.group("app-a.1", &Limits::default()).unwrap();
        assert!(group.is_gone(), "nobody has come in");
        let mut group = tree.group("app-a.1", &Limits::default()).unwrap();
        let first = shell(
            "until grep -q app-a.1 /proc/self/cgroup; do sleep 0.01; done; \
             while :; do setsid sleep 1000 & sleep 0.01; done",
        );
        group.take(first.pid()).unwrap();
        until(|| members(&tree.directory.join("app-a.1")) > 3);
        assert!(!group.is_gone());
        group.kill();
        assert!(first.is_dead_within(LONG));
        until(|| group.is_gone());
        first.reap();
        let directory = tree.directory.clone();
        drop(tree);
        assert!(!directory.exists());
    }

    #[test]
    fn what_nodes_that_are_gone_have_left_is_removed_and_nothing_else() {
        let Some(base) = Base::new() else { return };
        let at = |name: &str| base.directory.join(name);
        let tree = Tree::plant(&base.directory).unwrap();
        let mut zygote = tree.group("zygote", &Limits::default()).unwrap();
        let alive = shell("exec sleep 1000");
        zygote.take(alive.pid()).unwrap();
        for name in [
            "pheromone-1/app-a.1/deeper",
            "pheromone-2.1/zygote",
            "pheromone-x",
        ] {
            fs::create_dir_all(at(name)).unwrap();
        }
        let left = shell("exec sleep 1000");
        let inside = at("pheromone-1/app-a.1/deeper");
        tell(&inside, "cgroup.procs", &left.pid().to_string()).unwrap();
        let told = remove_strays(&base.directory);
        assert!(left.is_dead_within(LONG));
        left.reap();
        assert!(!at("pheromone-1").exists() && !at("pheromone-2.1").exists());
        assert!(at("pheromone-x").exists());
        assert!(!alive.is_dead_within(Duration::ZERO));
        assert!(tree.directory.exists());
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("killed 1 process"), "{told:?}");
        zygote.kill();
        assert!(alive.is_dead_within(LONG));
        alive.reap();
        until(|| zygote.is_gone());
    }

    #[test]
    fn who_is_alone_makes_room_for_limits_and_goes_back() {
        let Some(base) = Base::new() else { return };
        let there = Controllers::of(&base.directory);
        if there.is_empty() {
            println!("left out: no controllers of version 2 here");
            return;
        }
        base.enter(&base.directory);
        let tree = Tree::plant(&base.directory).unwrap();
        assert_eq!(tree.controllers, there);
        assert_eq!(members(&tree.directory.join(LEAF)), 1);
        assert_eq!(members(&base.directory), 0);
        let limits = Limits {
            memory_bytes: Some(64 << 20),
            tasks: Some(9),
        };
        let mut group = tree.group("app-a.1", &limits).unwrap();
        if there.pids {
            let said = ask(&tree.directory.join("app-a.1"), "pids.max").unwrap();
            assert_eq!(said.trim(), "9");
        }
        assert!(group.is_gone());
        drop(tree);
        assert_eq!(members(&base.directory), 1);
        assert!(Controllers::below(&base.directory).is_empty());
    }

    #[test]
    fn a_nodes_group_is_known_by_its_name() {
        for name in ["pheromone-1", "pheromone-4194304", "pheromone-12.3"] {
            assert!(is_a_nodes(name), "{name}");
        }
        for name in [
            "pheromone",
            "pheromone-",
            "pheromone-x",
            "pheromone-1.",
            "pheromone-1.service",
            "pheromone.service",
            "pheromone-1.2.3",
            "xpheromone-1",
        ] {
            assert!(!is_a_nodes(name), "{name}");
        }
    }
}
