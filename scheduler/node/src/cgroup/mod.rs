//! Control groups (cgroup v2): whatever a node has started is killed as a whole, and the executors
//! of an app are limited together.
//!
//! Where this process may divide the group that it was started in, the node makes these:
//!
//! ```text
//! GROUP                     where this process was started
//! └── pheromone-PID         the node's, locked while it lives
//!     ├── node              this process, where it had to make room (`tree.rs`)
//!     ├── zygote
//!     └── app-greet.1       executors of version 1 of an app, and all that they have forked
//! ```
//!
//! Where it may not, everything goes on without. Processes that are not the node's own are never
//! moved, and never killed: the group of a node that is gone is known by its lock.
//!
//! - `place.rs`: where this process is, and whether that is its own to divide;
//! - `controllers.rs`: which limits there are, and how they come to be there;
//! - `tree.rs`: the node's group;
//! - `group.rs`: one of those below it.

mod controllers;
mod group;
mod place;
mod tree;

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use controllers::Controllers;
pub use group::{Group, Limits};
use tree::Tree;

/// What control groups do for a node here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupOffer {
    /// Nothing; why, as the end of a sentence.
    Nothing(String),
    /// What the node has started is killed as a whole.
    Kill,
    /// That, and executors of an app are limited together.
    KillAndLimit {
        /// In memory.
        memory: bool,
        /// In processes and threads.
        processes: bool,
    },
}

impl CgroupOffer {
    /// Tries, and leaves nothing behind.
    pub fn here() -> Self {
        match Lease::take(Strays::Leave) {
            Ok((lease, _)) => lease.with(Tree::offer),
            Err(error) => Self::Nothing(error.to_string()),
        }
    }
}

impl fmt::Display for CgroupOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = match self {
            Self::Nothing(why) => return write!(f, "none ({why})"),
            Self::Kill => return f.write_str("killed as a whole, no limits"),
            Self::KillAndLimit { memory, processes } => match (memory, processes) {
                (true, true) => "memory and processes",
                (true, false) => "memory",
                _ => "processes",
            },
        };
        write!(f, "killed as a whole, limits of {limits}")
    }
}

/// What to do with groups of nodes that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strays {
    Remove,
    Leave,
}

/// A node's control groups, or that there are none. Those it has given out are gone before this is.
#[derive(Debug)]
pub struct Cgroups {
    lease: Option<Lease>,
    offer: CgroupOffer,
}

impl Cgroups {
    /// Finds out what can be had, and first removes what nodes that are gone have left. Answers
    /// also with what there is to tell of those, a sentence each.
    pub fn new() -> (Self, Vec<String>) {
        match Lease::take(Strays::Remove) {
            Ok((lease, told)) => {
                let offer = lease.with(Tree::offer);
                let lease = Some(lease);
                (Self { lease, offer }, told)
            }
            Err(error) => {
                let offer = CgroupOffer::Nothing(error.to_string());
                (Self { lease: None, offer }, Vec::new())
            }
        }
    }

    /// What there is.
    pub fn offer(&self) -> &CgroupOffer {
        &self.offer
    }

    /// A group within these limits; `None` where there are none.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn group(&self, name: &str, limits: &Limits) -> io::Result<Option<Group>> {
        let lease = self.lease.as_ref();
        lease
            .map(|lease| lease.with(|tree| tree.group(name, limits)))
            .transpose()
    }

    /// Goes on without: whoever is in groups has been killed.
    pub fn give_up(&mut self, why: &io::Error) {
        self.lease = None;
        self.offer = CgroupOffer::Nothing(why.to_string());
    }
}

/// The tree of this process, and how many nodes in it use it.
static SHARED: Mutex<Option<(usize, Tree)>> = Mutex::new(None);

/// One node's share in the tree of this process: a process is in one group, however many nodes it
/// has.
#[derive(Debug)]
struct Lease {
    _private: (),
}

impl Lease {
    /// Also answers with what there is to tell of groups that were removed.
    fn take(strays: Strays) -> io::Result<(Self, Vec<String>)> {
        let mut shared = shared();
        if let Some((count, _)) = shared.as_mut() {
            *count += 1;
            return Ok((Self { _private: () }, Vec::new()));
        }
        let base = place::own()?;
        let told = match strays {
            Strays::Remove => tree::remove_strays(&base),
            Strays::Leave => Vec::new(),
        };
        *shared = Some((1, Tree::plant(&base)?));
        Ok((Self { _private: () }, told))
    }

    fn with<T>(&self, what: impl FnOnce(&Tree) -> T) -> T {
        let shared = shared();
        let (_, tree) = shared
            .as_ref()
            .expect("a tree lives as long as a lease of it");
        what(tree)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut shared = shared();
        if let Some((count, _)) = shared.as_mut() {
            *count -= 1;
            if *count == 0 {
                *shared = None;
            }
        }
    }
}

fn shared() -> MutexGuard<'static, Option<(usize, Tree)>> {
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes into a file of a control group. It is there, or the group is not one.
fn tell(directory: &Path, file: &str, text: &str) -> io::Result<()> {
    let path = directory.join(file);
    OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(text.as_bytes())
}

/// What a file of a control group says.
fn ask(directory: &Path, file: &str) -> io::Result<String> {
    std::fs::read_to_string(directory.join(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_is_said_in_words() {
        let nothing = CgroupOffer::Nothing("no cgroup2".into());
        assert_eq!(nothing.to_string(), "none (no cgroup2)");
        assert_eq!(
            CgroupOffer::Kill.to_string(),
            "killed as a whole, no limits"
        );
        for (memory, processes, said) in [
            (true, true, "memory and processes"),
            (true, false, "memory"),
            (false, true, "processes"),
        ] {
            let offer = CgroupOffer::KillAndLimit { memory, processes };
            assert_eq!(
                offer.to_string(),
                format!("killed as a whole, limits of {said}")
            );
        }
    }
}
