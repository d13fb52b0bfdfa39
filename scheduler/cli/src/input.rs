//! Files given on the command line, `-` for standard input, read whole before anything is started:
//! a missing file is wrong usage, not a failed call, and so is one without an end.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use pheromone_node::http::ALL_BODIES_BYTES_MAX;

use crate::exit::Failure;

/// Reads inputs; standard input can be read only once.
#[derive(Debug)]
pub struct Inputs {
    bytes_max: u64,
    /// What sets that limit, for people.
    limit: &'static str,
    has_read_stdin: bool,
}

impl Inputs {
    /// Of an app whose largest object has so many bytes.
    pub fn of_app(object_size_bytes: u64) -> Self {
        Self {
            bytes_max: object_size_bytes,
            limit: "limits.object_size",
            has_read_stdin: false,
        }
    }

    /// Of a node, which judges by the app's own limit.
    pub fn of_node() -> Self {
        Self {
            bytes_max: ALL_BODIES_BYTES_MAX as u64,
            limit: "a node",
            has_read_stdin: false,
        }
    }

    /// The bytes of a file, or of standard input.
    pub fn read(&mut self, path: &Path) -> Result<Vec<u8>, Failure> {
        if path.as_os_str() != "-" {
            return File::open(path)
                .and_then(|file| self.read_all(file))
                .map_err(|error| {
                    Failure::usage(format!("cannot read the input {}: {error}", path.display()))
                });
        }
        if std::mem::replace(&mut self.has_read_stdin, true) {
            return Err(Failure::usage(
                "`-` is standard input, which can be given only once",
            ));
        }
        self.read_all(io::stdin().lock())
            .map_err(|error| Failure::failed(format!("cannot read standard input: {error}")))
    }

    fn read_all(&self, from: impl Read) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        from.take(self.bytes_max + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > self.bytes_max {
            return Err(io::Error::other(format!(
                "it has more than the {} bytes that {} allows",
                self.bytes_max, self.limit
            )));
        }
        Ok(bytes)
    }

    /// How an input is called in messages and file names.
    pub fn name(path: &Path) -> String {
        if path.as_os_str() == "-" {
            String::new()
        } else {
            path.display().to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_wrong_usage_and_named() {
        let failure = Inputs::of_node()
            .read(Path::new("/no/such/file"))
            .expect_err("missing");
        assert_eq!(failure.status, crate::exit::Status::Usage);
        assert!(format!("{failure:?}").contains("/no/such/file"));
    }

    #[test]
    fn a_file_without_an_end_is_wrong_usage() {
        let failure = Inputs::of_app(1 << 20)
            .read(Path::new("/dev/zero"))
            .expect_err("endless");
        assert_eq!(failure.status, crate::exit::Status::Usage);
        let text = format!("{failure:?}");
        assert!(
            text.contains("/dev/zero") && text.contains("1048576"),
            "{text}"
        );
        let most = Inputs::of_app(3).read_all(&b"abc"[..]);
        assert_eq!(most.expect("it fits"), b"abc");
    }

    #[test]
    fn standard_input_can_be_read_once() {
        let mut inputs = Inputs {
            has_read_stdin: true,
            ..Inputs::of_node()
        };
        assert!(inputs.read(Path::new("-")).is_err());
        assert_eq!(Inputs::name(Path::new("-")), "");
        assert_eq!(Inputs::name(Path::new("a/b")), "a/b");
    }
}
