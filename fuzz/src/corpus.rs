//! The inputs that a target begins with: its seeds, and the files kept for it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::Target;

/// The folder of a target's kept inputs, in the checkout that this was built from.
pub fn folder(target: &Target) -> PathBuf {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    corpus.join(target.name)
}

/// An input, and what it is called in messages.
pub struct Input {
    /// Its file, or that it is a seed.
    pub name: String,
    /// What the target is given.
    pub bytes: Vec<u8>,
}

/// Everything that a target begins with, in the same order everywhere.
///
/// # Errors
/// A kept file that cannot be read.
pub fn inputs(target: &Target) -> io::Result<Vec<Input>> {
    let seeds = (target.seeds)().into_iter().enumerate();
    let mut inputs: Vec<Input> = seeds
        .map(|(number, bytes)| Input {
            name: format!("seed {number}"),
            bytes,
        })
        .collect();
    let mut files = match fs::read_dir(folder(target)) {
        Ok(entries) => entries.collect::<Result<Vec<_>, _>>()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    files.sort_by_key(fs::DirEntry::file_name);
    for file in files {
        inputs.push(Input {
            name: file.path().display().to_string(),
            bytes: fs::read(file.path())?,
        });
    }
    Ok(inputs)
}

/// Writes an input into a folder, under a name that follows from its bytes.
///
/// # Errors
/// The file cannot be written.
pub fn keep(folder: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let path = folder.join(format!("{:08x}", crc32c::crc32c(bytes)));
    fs::write(&path, bytes)?;
    Ok(path)
}
