//! The files of a journal: what it asks of a disk, and the directory that gives it.
//!
//! A trait, so that tests can put a disk below that fails, fills up, or loses what was not flushed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::FlockOperation;

use crate::error::OpenError;
use crate::uring::Ring;

/// Its lock says that a directory's node lives; its text is that node's process id.
const LOCK: &str = "lock";

/// A directory of files.
pub trait Disk: Send + Sync {
    /// The names of its files.
    ///
    /// # Errors
    /// Whatever reading the directory gives.
    fn list(&self) -> io::Result<Vec<String>>;

    /// An empty file of this name, in place of one that is there.
    ///
    /// # Errors
    /// Whatever creating it gives.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// The file of this name.
    ///
    /// # Errors
    /// Whatever opening it gives.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name, in place of a file that had it.
    ///
    /// # Errors
    /// Whatever renaming it gives.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Takes a file's name away; who has it open still reads it.
    ///
    /// # Errors
    /// Whatever removing it gives.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes durable which names there are.
    ///
    /// # Errors
    /// Whatever flushing the directory gives.
    fn sync(&self) -> io::Result<()>;

    /// How writes are made durable, for the report of an open journal.
    fn way(&self) -> Way;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// Whatever asking for it gives.
    fn length(&self) -> io::Result<u64>;

    /// Reads some bytes at `offset`, none only at the end of the file.
    ///
    /// # Errors
    /// Whatever reading gives.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes some of the bytes at `offset`.
    ///
    /// # Errors
    /// Whatever writing gives.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes what was written durable.
    ///
    /// # Errors
    /// Whatever flushing gives. Afterwards nobody knows what is on the disk.
    fn sync(&self) -> io::Result<()>;

    /// Cuts the file, or fills it up with zeros.
    ///
    /// # Errors
    /// Whatever truncating gives.
    fn set_length(&self, length: u64) -> io::Result<()>;

    /// Writes all the bytes at `offset` and makes them durable. What `bytes` holds afterwards is no
    /// matter.
    ///
    /// # Errors
    /// Whatever writing or flushing gives.
    fn write_and_sync(&self, bytes: &mut Vec<u8>, offset: u64) -> io::Result<()> {
        write_all(self, bytes, offset)?;
        self.sync()
    }
}

/// Writes all the bytes at `offset`.
pub(crate) fn write_all<F: DiskFile + ?Sized>(
    file: &F,
    mut bytes: &[u8],
    mut offset: u64,
) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads until `bytes` is full.
pub(crate) fn read_exact<F: DiskFile + ?Sized>(
    file: &F,
    mut bytes: &mut [u8],
    mut offset: u64,
) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.read_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                bytes = &mut bytes[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// How writes are made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// A linked write and fsync of an io_uring: one system call.
    Uring,
    /// pwrite and fdatasync, and why not the other.
    Plain {
        /// A sentence.
        reason: String,
    },
}

/// A directory that belongs to one node as long as this lives.
pub(crate) struct Directory {
    path: PathBuf,
    handle: File,
    _lock: File,
    ring: Option<Arc<Mutex<Ring>>>,
    way: Way,
}

impl Directory {
    /// Makes the directory if it is not there, and locks it.
    pub(crate) fn open(path: &Path, wants_uring: bool) -> Result<Self, OpenError> {
        let directory_error = |source| OpenError::Directory {
            path: path.to_owned(),
            source,
        };
        make(path).map_err(directory_error)?;
        let handle = File::open(path).map_err(directory_error)?;
        let lock = lock(path)?;
        let (ring, way) = ring(wants_uring);
        Ok(Self {
            path: path.to_owned(),
            handle,
            _lock: lock,
            ring,
            way,
        })
    }

    fn file(&self, file: File) -> Arc<dyn DiskFile> {
        Arc::new(DirectoryFile {
            file,
            ring: self.ring.clone(),
        })
    }
}

/// Makes a directory and those above it, if they are not there, and makes their names durable.
fn make(path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    let missing: Vec<_> = path.ancestors().take_while(|path| !path.exists()).collect();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&path)?;
    for parent in missing.into_iter().filter_map(Path::parent) {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// The lock file, locked, with this process's id in it.
fn lock(directory: &Path) -> Result<File, OpenError> {
    let directory_error = |source| OpenError::Directory {
        path: directory.to_owned(),
        source,
    };
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(directory.join(LOCK))
        .map_err(directory_error)?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let known = lock.read_to_string(&mut pid).is_ok() && !pid.trim().is_empty();
            return Err(OpenError::Locked {
                path: directory.to_owned(),
                pid: if known { pid.trim() } else { "unknown" }.to_owned(),
            });
        }
        Err(error) => return Err(directory_error(error.into())),
    }
    let mut write_pid = || {
        lock.set_len(0)?;
        lock.seek(SeekFrom::Start(0))?;
        writeln!(lock, "{}", std::process::id())
    };
    write_pid().map_err(directory_error)?;
    Ok(lock)
}

fn ring(wanted: bool) -> (Option<Arc<Mutex<Ring>>>, Way) {
    let reason = if wanted {
        match Ring::new() {
            Ok(ring) => return (Some(Arc::new(Mutex::new(ring))), Way::Uring),
            Err(error) => format!("io_uring is refused here: {error}"),
        }
    } else {
        "io_uring is switched off".to_owned()
    };
    (None, Way::Plain { reason })
}

impl Disk for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path.join(name))?;
        Ok(self.file(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path.join(name))?;
        Ok(self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn way(&self) -> Way {
        self.way.clone()
    }
}

/// A file of a [`Directory`].
struct DirectoryFile {
    file: File,
    ring: Option<Arc<Mutex<Ring>>>,
}

impl DiskFile for DirectoryFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn write_and_sync(&self, bytes: &mut Vec<u8>, offset: u64) -> io::Result<()> {
        let mut written = 0;
        if let Some(ring) = &self.ring {
            let mut ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
            if ring.is_usable() {
                let ended = ring.write_and_flush(&self.file, bytes, offset)?;
                if ended.flushed && ended.written == bytes.len() {
                    return Ok(());
                }
                written = ended.written;
            }
        }
        write_all(self, &bytes[written..], offset + written as u64)?;
        self.sync()
    }
}
