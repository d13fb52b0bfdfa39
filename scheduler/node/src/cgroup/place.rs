//! Where this process is among the control groups.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// Memberships of this process, one line for each hierarchy.
const MEMBERSHIPS: &str = "/proc/self/cgroup";
/// Mounts that this process sees.
const MOUNTS: &str = "/proc/self/mountinfo";

/// The directory of this process's own group (version 2), where it may make groups and move
/// processes into them.
///
/// # Errors
/// Why it may not.
pub fn own() -> io::Result<PathBuf> {
    let (memberships, mounts) = (fs::read_to_string(MEMBERSHIPS)?, fs::read(MOUNTS)?);
    let mounts = String::from_utf8_lossy(&mounts);
    let directory = directories(&memberships, &mounts).find(|path| path.is_dir());
    let directory = directory.ok_or_else(|| io::Error::other("no cgroup of version 2"))?;
    // A move needs that of the group that is above both ends, which is this one.
    for file in [directory.clone(), directory.join("cgroup.procs")] {
        access(&file, Access::WRITE_OK).map_err(|error| {
            io::Error::other(format!("{} is not ours to divide: {error}", file.display()))
        })?;
    }
    Ok(directory)
}

/// Where the group that the memberships name is seen, mount by mount.
fn directories(memberships: &str, mounts: &str) -> impl Iterator<Item = PathBuf> {
    let group = memberships
        .lines()
        .find_map(|line| line.strip_prefix("0::"));
    // Where there is none, it is below no mount's root.
    let group = PathBuf::from(group.unwrap_or_default());
    let mounted = mounts.lines().filter_map(mount_of_version_2);
    mounted
        .filter_map(move |(root, point)| {
            // A path that leads up is one outside of what this process may see.
            let below = group.strip_prefix(&root).ok()?;
            let leads_up = below.components().any(|part| part.as_os_str() == "..");
            (!leads_up).then(|| point.join(below))
        })
        .collect::<Vec<_>>()
        .into_iter()
}

/// Root and mount point of a line of mountinfo (proc_pid_mountinfo(5)), if it is of a cgroup2:
/// `41 31 0:38 ROOT POINT OPTIONS [FIELD...] - cgroup2 SOURCE OPTIONS`.
fn mount_of_version_2(line: &str) -> Option<(PathBuf, PathBuf)> {
    let (mount, kind) = line.split_once(" - ")?;
    if kind.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = mount.split(' ').skip(3);
    Some((unescape(fields.next()?), unescape(fields.next()?)))
}

/// A path in which blanks are written `\040`, as are other characters that would end it.
fn unescape(field: &str) -> PathBuf {
    let mut path = String::with_capacity(field.len());
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        path.push_str(before);
        let digits = after.get(..3);
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                path.push(char::from(byte));
                rest = &after[3..];
            }
            None => {
                path.push('\\');
                rest = after;
            }
        }
    }
    path.push_str(rest);
    Path::new(&path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "9:name=systemd:/\n4:memory:/there\n0::/a/b\n";

    fn of(memberships: &str, mounts: &str) -> Vec<String> {
        let found = directories(memberships, mounts);
        found.map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn the_group_is_looked_for_where_version_2_is_mounted() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(of(HYBRID, mounts), ["/sys/fs/cgroup/unified/a/b"]);
        assert!(of("4:memory:/there\n", mounts).is_empty());
    }

    #[test]
    fn a_mount_of_a_part_shows_what_is_below_it() {
        let mounts = "1 1 0:38 /a /groups\\040here rw - cgroup2 none rw\n\
                      2 1 0:38 /other /elsewhere rw - cgroup2 none rw\n";
        assert_eq!(of(HYBRID, mounts), ["/groups here/b"]);
        assert!(of("0::/../x\n", "1 1 0:38 / /g rw - cgroup2 none rw\n").is_empty());
    }

    #[test]
    fn lines_that_are_no_mounts_are_left_out() {
        for line in [
            "",
            "1 2 3",
            " - cgroup2",
            "a b c - cgroup2 x",
            "1 1 0:38 / /g rw",
        ] {
            assert_eq!(mount_of_version_2(line), None, "{line:?}");
        }
        assert_eq!(unescape(r"\134a\9\04"), Path::new(r"\a\9\04"));
    }
}
