//! Where responses go: the first of each job to standard output, all of them into a directory, or
//! into memory for the command itself.

use std::path::{Path, PathBuf};

use crate::exit::Failure;
use crate::terminal;

/// Takes responses as they come.
pub enum Responses {
    /// To standard output, the first one of each job only.
    StandardOutput,
    /// Into memory: the last one.
    Kept(Option<Vec<u8>>),
    /// A file each.
    Directory {
        /// Where.
        directory: PathBuf,
        /// Digits of the highest number, so that files sort as the calls were made.
        digits: usize,
    },
}

impl Responses {
    /// Into a directory, which is made if it is not there; for this many calls.
    pub fn into_directory(directory: &Path, calls: u64) -> Result<Self, Failure> {
        std::fs::create_dir_all(directory).map_err(|error| {
            Failure::usage(format!(
                "cannot make the directory {}: {error}",
                directory.display()
            ))
        })?;
        Ok(Self::Directory {
            directory: directory.to_owned(),
            digits: calls.to_string().len(),
        })
    }

    /// Takes the response of a call; `name` is its input's, `is_first` that of its first round.
    pub fn take(
        &mut self,
        number: u64,
        name: &str,
        is_first: bool,
        body: Vec<u8>,
    ) -> Result<(), Failure> {
        match self {
            Self::StandardOutput if is_first => terminal::print_bytes(&body),
            Self::StandardOutput => Ok(()),
            Self::Kept(kept) => {
                *kept = Some(body);
                Ok(())
            }
            Self::Directory { directory, digits } => {
                let path = directory.join(file_name(number, *digits, name));
                std::fs::write(&path, body).map_err(|error| {
                    Failure::failed(format!("cannot write {}: {error}", path.display()))
                })
            }
        }
    }
}

/// `07-NAME`, numbered from 1.
fn file_name(number: u64, digits: usize, name: &str) -> String {
    let number = number + 1;
    let name = Path::new(name)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    if name.is_empty() {
        format!("{number:0digits$}")
    } else {
        format!("{number:0digits$}-{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_call_and_input_and_sort_in_order() {
        assert_eq!(file_name(0, 1, ""), "1");
        assert_eq!(file_name(6, 2, "in/a.txt"), "07-a.txt");
        assert_eq!(file_name(6, 3, ".."), "007");
    }

    #[test]
    fn every_response_has_a_file() {
        let home = tempfile::tempdir().expect("a directory");
        let out = home.path().join("out");
        let mut responses = Responses::into_directory(&out, 10).expect("made");
        for number in 0..10 {
            responses
                .take(number, "x", number == 0, b"payload".to_vec())
                .expect("written");
        }
        assert_eq!(std::fs::read_dir(&out).expect("there").count(), 10);
        assert_eq!(std::fs::read(out.join("01-x")).expect("there"), b"payload");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_wrong_usage() {
        let Err(failure) = Responses::into_directory(Path::new("/dev/null/out"), 1) else {
            panic!("a directory below a device")
        };
        assert_eq!(failure.status, crate::exit::Status::Usage);
    }
}
