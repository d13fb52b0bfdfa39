//! Two named pipes, one for each direction.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::exchange::{End, MESSAGE_BYTES, Message, Role, of_bytes, to_bytes};

const THERE: &str = "there";
const BACK: &str = "back";

/// Makes both.
///
/// # Errors
/// What the kernel says.
pub fn prepare(place: &Path) -> Result<()> {
    for name in [THERE, BACK] {
        let mode = Mode::RUSR | Mode::WUSR;
        mknodat(CWD, place.join(name), FileType::Fifo, mode, 0).context("a named pipe")?;
    }
    Ok(())
}

/// An end of both.
pub struct Pipes {
    into: File,
    out_of: File,
}

impl Pipes {
    /// Opens both; each waits for the other side.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(place: &Path, role: Role) -> Result<Self> {
        let write = |name| fs::OpenOptions::new().write(true).open(place.join(name));
        let read = |name| File::open(place.join(name));
        Ok(match role {
            Role::Driver => {
                let into = write(THERE)?;
                Self {
                    into,
                    out_of: read(BACK)?,
                }
            }
            Role::Responder => {
                let out_of = read(THERE)?;
                Self {
                    into: write(BACK)?,
                    out_of,
                }
            }
        })
    }
}

impl End for Pipes {
    fn send(&mut self, message: &Message) -> Result<()> {
        Ok(self.into.write_all(&to_bytes(message))?)
    }

    fn receive(&mut self) -> Result<Message> {
        let mut bytes = [0; MESSAGE_BYTES];
        self.out_of.read_exact(&mut bytes)?;
        Ok(of_bytes(&bytes))
    }
}
