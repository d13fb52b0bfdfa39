//! The disk under durable objects, and what it takes by itself: a write and a flush at a time.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::histogram::Distribution;

/// A file of one `pwrite` of this size after the other, each followed by `fdatasync`, as anybody
/// does who wants every object on disk before the next. The file is removed.
///
/// # Errors
/// What the disk says.
pub fn flushes(directory: &Path, size_bytes: usize, count: u32) -> Result<Distribution> {
    let file = tempfile::tempfile_in(directory)
        .with_context(|| format!("a file in {}", directory.display()))?;
    timed(&file, size_bytes, count).context("the bare flush could not be timed")
}

fn timed(file: &File, size_bytes: usize, count: u32) -> Result<Distribution> {
    let bytes = vec![0x5a_u8; size_bytes];
    let mut times = Distribution::new();
    for number in 0..u64::from(count) {
        let began = Instant::now();
        file.write_all_at(&bytes, number * size_bytes as u64)?;
        file.sync_data()?;
        times.record_ns(u64::try_from(began.elapsed().as_nanos())?);
    }
    Ok(times)
}

/// The file system that a directory is on and what it lies on, as `ext4 on /dev/vda`. One that is
/// only memory says so.
pub fn file_system(directory: &Path) -> String {
    let path = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    file_system_of(&path, &mounts).unwrap_or_else(|| "unknown: /proc does not tell".into())
}

fn file_system_of(path: &Path, mounts: &str) -> Option<String> {
    let (_, kind, source) = mounts
        .lines()
        .filter_map(mount)
        .filter(|(point, ..)| path.starts_with(point))
        // Of two on the same place the later one lies on top, and `max_by_key` takes the last.
        .max_by_key(|(point, ..)| point.components().count())?;
    let memory = matches!(kind, "tmpfs" | "ramfs");
    let warning = if memory {
        ": memory, and no disk at all"
    } else {
        ""
    };
    Some(format!("{kind} on {source}{warning}"))
}

/// Where, what and from what: of a line `36 35 98:0 / /mnt rw - ext4 /dev/vda rw`.
fn mount(line: &str) -> Option<(PathBuf, &str, &str)> {
    let (before, after) = line.split_once(" - ")?;
    let point = before.split(' ').nth(4)?.replace("\\040", " ");
    let mut after = after.split(' ');
    Some((point.into(), after.next()?, after.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
        1 0 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
        2 1 0:30 / /tmp rw shared:1 - tmpfs tmpfs rw\n\
        3 1 8:1 / /mnt/a\\040disk rw - xfs /dev/sda1 rw\n\
        4 1 8:2 / /mnt/a\\040disk rw - btrfs /dev/sdb1 rw\n\
        nonsense\n";

    #[test]
    fn the_innermost_and_last_mount_of_a_path_is_its_file_system() {
        let of = |path: &str| file_system_of(Path::new(path), MOUNTS).unwrap();
        assert_eq!(of("/home/somebody"), "ext4 on /dev/vda");
        assert_eq!(of("/tmpfile"), "ext4 on /dev/vda");
        assert_eq!(of("/tmp/x"), "tmpfs on tmpfs: memory, and no disk at all");
        assert_eq!(of("/mnt/a disk/x"), "btrfs on /dev/sdb1");
        assert_eq!(file_system_of(Path::new("/x"), ""), None);
    }

    #[test]
    fn every_flush_is_counted_and_nothing_stays() {
        let directory = tempfile::tempdir().unwrap();
        let times = flushes(directory.path(), 100, 3).unwrap();
        assert_eq!(times.count(), 3);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(flushes(Path::new("/nonexistent"), 1, 1).is_err());
    }
}
