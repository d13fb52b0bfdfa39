//! Files that appear whole or not at all.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, io};

/// How names of unfinished files begin.
pub(crate) const UNFINISHED_PREFIX: &str = ".unfinished-";

/// A name beside `path`, used by nobody else, to write to before renaming.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut name = OsString::from(format!(
        "{UNFINISHED_PREFIX}{}-{number}-",
        std::process::id()
    ));
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

/// Writes a file beside `path` and renames it to `path`.
pub(crate) fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = unfinished(path);
    fs::write(&temporary, content)
        .and_then(|()| fs::rename(&temporary, path))
        .inspect_err(|_| drop(fs::remove_file(&temporary)))
}
