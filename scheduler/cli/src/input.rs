//! Files given on the command line, `-` for standard input, read whole before anything is started:
//! a missing file is wrong usage, not a failed call.

use std::io::Read;
use std::path::Path;

use crate::exit::Failure;

/// Reads inputs; standard input can be read only once.
#[derive(Debug, Default)]
pub struct Inputs {
    has_read_stdin: bool,
}

impl Inputs {
    /// The bytes of a file, or of standard input.
    pub fn read(&mut self, path: &Path) -> Result<Vec<u8>, Failure> {
        if path.as_os_str() != "-" {
            return std::fs::read(path).map_err(|error| {
                Failure::usage(format!("cannot read the input {}: {error}", path.display()))
            });
        }
        if std::mem::replace(&mut self.has_read_stdin, true) {
            return Err(Failure::usage(
                "`-` is standard input, which can be given only once",
            ));
        }
        let mut bytes = Vec::new();
        std::io::stdin()
            .lock()
            .read_to_end(&mut bytes)
            .map_err(|error| Failure::failed(format!("cannot read standard input: {error}")))?;
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
        let failure = Inputs::default()
            .read(Path::new("/no/such/file"))
            .expect_err("missing");
        assert_eq!(failure.status, crate::exit::Status::Usage);
        assert!(format!("{failure:?}").contains("/no/such/file"));
    }

    #[test]
    fn standard_input_can_be_read_once() {
        let mut inputs = Inputs {
            has_read_stdin: true,
        };
        assert!(inputs.read(Path::new("-")).is_err());
        assert_eq!(Inputs::name(Path::new("-")), "");
        assert_eq!(Inputs::name(Path::new("a/b")), "a/b");
    }
}
