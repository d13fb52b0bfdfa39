//! The C SDK's headers, embedded, and written to where a compiler finds them.

use std::path::{Path, PathBuf};
use std::{fs, io};

use sha2::{Digest, Sha256};

use crate::files::write_atomically;

/// Name below `include/`, and content.
const HEADERS: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/headers.rs"));

/// Writes the headers below `root`, in a directory named by their content, and returns it. Two that
/// do it at once write the same; a file that was changed is mended.
pub(crate) fn write_headers(root: &Path) -> io::Result<PathBuf> {
    let mut hash = Sha256::new();
    for (name, content) in HEADERS {
        for part in [name, content] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
    }
    let directory = root.join(short_hex(&hash.finalize()));
    for (name, content) in HEADERS {
        let path = directory.join(name);
        if fs::read(&path).is_ok_and(|found| found == content.as_bytes()) {
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        write_atomically(&path, content.as_bytes())?;
    }
    Ok(directory)
}

/// The first 64 bits of a hash, as text: enough to name files, where a clash needs intent and
/// harms only who intended it.
pub(crate) fn short_hex(hash: &[u8]) -> String {
    hash.iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
