//! Copies of libraries under the hash of their content.
//!
//! Executors load only these, never what a build may overwrite while they run (a library rewritten
//! in place kills whoever has it mapped), and never two contents under one path (the loader would
//! hand out the first one twice). Directories are 0711 and files 0555, so that executors of any
//! uid can load a library whose name they were told, and nobody can list or change them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::FlockOperation;
use sha2::{Digest, Sha256};

/// How temporary directories begin.
const PREFIX: &str = "pheromone-node-";
/// Its lock says that a directory's node lives.
const LOCK: &str = "lock";

/// A directory of libraries.
#[derive(Debug)]
pub struct Libraries {
    directory: PathBuf,
    /// Removed with everything in it when dropped.
    temporary: bool,
    /// Locked as long as this node lives.
    _lock: Option<File>,
    next_temporary_name: AtomicU64,
}

impl Libraries {
    /// In a directory given by the user, made if it is not there, and kept.
    ///
    /// # Errors
    /// Whatever making it gives.
    pub fn at(directory: &Path) -> io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(directory)?;
        Ok(Self {
            directory: directory.canonicalize()?,
            temporary: false,
            _lock: None,
            next_temporary_name: AtomicU64::new(0),
        })
    }

    /// In a fresh temporary directory under `parent`, removed when this is dropped. What nodes
    /// left behind there that were killed is removed now.
    ///
    /// # Errors
    /// Whatever making it gives.
    pub fn temporary_in(parent: &Path) -> io::Result<Self> {
        sweep(parent);
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(fs::Permissions::from_mode(0o711))
            .tempdir_in(parent)?;
        // Locked before it has its name: a sweep that finds it finds it locked.
        let unnamed = directory.path().join(".lock");
        let lock = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unnamed)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        fs::rename(unnamed, directory.path().join(LOCK))?;
        Ok(Self {
            directory: directory.keep().canonicalize()?,
            temporary: true,
            _lock: Some(lock),
            next_temporary_name: AtomicU64::new(0),
        })
    }

    /// Where the copies are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Copies a library; the path returned is absolute, and the same for the same content.
    ///
    /// # Errors
    /// Whatever reading and writing give.
    pub fn add(&self, library: &Path) -> io::Result<PathBuf> {
        let mut source = File::open(library)?;
        if !source.metadata()?.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is no regular file",
            ));
        }
        let ordinal = self.next_temporary_name.fetch_add(1, Ordering::Relaxed);
        let unfinished = self
            .directory
            .join(format!(".{}-{ordinal}", std::process::id()));
        let copied = self.copy(&mut source, &unfinished);
        if copied.is_err() {
            // The first error is the one worth telling.
            let _ = fs::remove_file(&unfinished);
        }
        copied
    }

    fn copy(&self, source: &mut File, unfinished: &Path) -> io::Result<PathBuf> {
        let mut target = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o700)
            .open(unfinished)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = source.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
            target.write_all(&buffer[..read])?;
        }
        target.set_permissions(fs::Permissions::from_mode(0o555))?;
        drop(target);
        let name: String = hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let path = self.directory.join(name + ".so");
        // Replacing a copy by an equal one under the same name disturbs nobody: who has the old
        // one mapped keeps its inode.
        fs::rename(unfinished, &path)?;
        Ok(path)
    }
}

impl Drop for Libraries {
    fn drop(&mut self) {
        if self.temporary {
            // Nobody is left to tell; the next node's sweep tries again.
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// Removes directories of nodes that are dead: their locks are free.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    let own_uid = rustix::process::geteuid().as_raw();
    for entry in entries.flatten() {
        let named = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if !named
            || !entry
                .metadata()
                .is_ok_and(|it| it.is_dir() && it.uid() == own_uid)
        {
            continue;
        }
        let lock = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(entry.path().join(LOCK));
        let Ok(lock) = lock else { continue };
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_contents_have_one_path_and_different_ones_two() {
        let parent = tempfile::tempdir().unwrap();
        let libraries = Libraries::temporary_in(parent.path()).unwrap();
        let source = parent.path().join("a.so");
        fs::write(&source, b"one").unwrap();
        let first = libraries.add(&source).unwrap();
        assert_eq!(libraries.add(&source).unwrap(), first);
        fs::write(&source, b"two").unwrap();
        let second = libraries.add(&source).unwrap();
        assert_ne!(first, second);
        assert_eq!(fs::read(&first).unwrap(), b"one");
        assert_eq!(fs::read(&second).unwrap(), b"two");
        assert_eq!(fs::metadata(&first).unwrap().mode() & 0o7777, 0o555);
        assert_eq!(
            fs::metadata(libraries.directory()).unwrap().mode() & 0o7777,
            0o711
        );
    }

    #[test]
    fn a_temporary_directory_goes_with_its_owner() {
        let parent = tempfile::tempdir().unwrap();
        let libraries = Libraries::temporary_in(parent.path()).unwrap();
        let directory = libraries.directory().to_owned();
        assert!(directory.exists());
        drop(libraries);
        assert!(!directory.exists());
    }

    #[test]
    fn what_a_killed_node_left_is_swept_and_a_living_nodes_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let living = Libraries::temporary_in(parent.path()).unwrap();
        let dead = parent.path().join(format!("{PREFIX}dead"));
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(LOCK), b"").unwrap();
        let stranger = parent.path().join(format!("{PREFIX}no-lock"));
        fs::create_dir(&stranger).unwrap();
        let _second = Libraries::temporary_in(parent.path()).unwrap();
        assert!(living.directory().exists());
        assert!(stranger.exists());
        assert!(!dead.exists());
    }

    #[test]
    fn what_is_no_file_is_refused_and_leaves_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let libraries = Libraries::at(&parent.path().join("kept")).unwrap();
        assert!(libraries.add(parent.path()).is_err());
        assert!(libraries.add(&parent.path().join("missing.so")).is_err());
        assert_eq!(fs::read_dir(libraries.directory()).unwrap().count(), 0);
        let directory = libraries.directory().to_owned();
        drop(libraries);
        assert!(directory.exists());
    }
}
