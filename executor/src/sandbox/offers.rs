//! What of the sandbox a machine has, and what each level needs of it.

use std::fmt;

use landlock::ABI;
use serde::{Deserialize, Serialize};

/// The rights over files and ports that `strict`, and an app that connects, need (Linux 6.7).
pub(super) const STRICT_LANDLOCK: ABI = ABI::V4;

/// How far functions are shut in: `isolation` in the manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// A process of its own, another user where possible, read-only windows.
    #[default]
    None,
    /// Also what the machine has of the rest, system calls filtered at least.
    Standard,
    /// All of it.
    Strict,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Standard => "standard",
            Self::Strict => "strict",
        })
    }
}

/// What this machine, and the rights that this process was started with, offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offers {
    /// System calls can be filtered.
    pub seccomp: bool,
    /// Version of Landlock; 0: none.
    pub landlock: u8,
    /// Each app can have a user of its own.
    pub users: bool,
}

impl Offers {
    /// Looks, and changes nothing.
    pub fn here() -> Self {
        Self {
            seccomp: has_seccomp(),
            landlock: landlock_version(),
            users: rustix::process::geteuid().is_root(),
        }
    }

    /// What a level needs and does not find, each with what would help. Nothing: it can start.
    pub fn missing(&self, level: Level) -> Vec<String> {
        let mut missing = Vec::new();
        if level >= Level::Standard && !self.seccomp {
            missing.push("seccomp filters (CONFIG_SECCOMP_FILTER of the kernel)".to_owned());
        }
        if level >= Level::Strict {
            missing.extend(self.missing_for_ports());
        }
        if level >= Level::Strict && !self.users {
            missing.push("a user of its own for each app (start the node as root)".to_owned());
        }
        missing
    }

    /// What keeping ports apart needs and does not find.
    pub fn missing_for_ports(&self) -> Option<String> {
        let needed = STRICT_LANDLOCK as u8;
        let found = match self.landlock {
            0 => "none".to_owned(),
            version => format!("version {version}"),
        };
        (self.landlock < needed).then(|| {
            format!(
                "Landlock of version {needed} (Linux 6.7, switched on by lsm=landlock,...; here is \
                 {found})"
            )
        })
    }

    /// What a level switches on here, and what not, for whoever starts the node.
    pub fn describe(&self, level: Level) -> String {
        let mut on = vec!["processes of its own, read-only windows".to_owned()];
        let mut off = Vec::new();
        let mut sort = |has: bool, what: String, lacking: &str| {
            if has {
                on.push(what);
            } else {
                off.push(lacking.to_owned());
            }
        };
        sort(
            self.users,
            "its own user".into(),
            "no user of its own (the node is not root)",
        );
        if level >= Level::Standard {
            sort(
                self.seccomp,
                "filtered system calls, limits".into(),
                "no filter",
            );
            let version = format!("files by Landlock (version {})", self.landlock);
            sort(
                self.landlock > 0,
                version,
                "files only by their permissions (no Landlock)",
            );
        }
        match off.as_slice() {
            [] => on.join(", "),
            off => format!("{}; {}", on.join(", "), off.join(", ")),
        }
    }
}

fn has_seccomp() -> bool {
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the kernel reads the action, which lives until the call returns.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            &raw const action,
        )
    };
    answer == 0
}

/// Also of kernels that are newer than the library that makes the rules.
fn landlock_version() -> u8 {
    /// Of landlock_create_ruleset(2): the version is asked for.
    const VERSION: u32 = 1;
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag and no attributes the call makes nothing and only answers.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0usize, VERSION) };
    u8::try_from(version).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Offers = Offers {
        seccomp: true,
        landlock: 6,
        users: true,
    };

    #[test]
    fn a_level_names_what_it_needs_and_does_not_find() {
        let nothing = Offers {
            seccomp: false,
            landlock: 0,
            users: false,
        };
        for level in [Level::None, Level::Standard, Level::Strict] {
            assert!(ALL.missing(level).is_empty());
        }
        assert!(nothing.missing(Level::None).is_empty());
        assert_eq!(nothing.missing(Level::Standard).len(), 1);
        let missing = nothing.missing(Level::Strict);
        for (what, sentence) in ["seccomp", "Landlock", "user"].iter().zip(&missing) {
            assert!(sentence.contains(what), "{sentence}");
        }
        assert_eq!(missing.len(), 3);
        let old = Offers { landlock: 3, ..ALL };
        assert!(old.missing(Level::Strict)[0].contains("here is version 3"));
    }

    #[test]
    fn what_is_off_is_said() {
        let said = Offers {
            users: false,
            landlock: 0,
            ..ALL
        };
        let said = said.describe(Level::Standard);
        assert!(
            said.contains("no user of its own") && said.contains("no Landlock"),
            "{said}"
        );
        assert!(!ALL.describe(Level::Strict).contains(';'));
    }
}
