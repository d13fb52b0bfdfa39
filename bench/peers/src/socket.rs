//! A Unix stream socket.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::Result;

use crate::exchange::{End, MESSAGE_BYTES, Message, Role, of_bytes, to_bytes, until_there};

/// Connects the two.
///
/// # Errors
/// What the kernel says.
pub fn open(place: &Path, role: Role) -> Result<UnixStream> {
    let path = place.join("socket");
    match role {
        Role::Responder => Ok(UnixListener::bind(path)?.accept()?.0),
        Role::Driver => {
            let mut stream = None;
            until_there(|| {
                stream = UnixStream::connect(&path).ok();
                Ok(stream.is_some())
            })?;
            stream.ok_or_else(|| anyhow::anyhow!("nobody listens"))
        }
    }
}

impl End for UnixStream {
    fn send(&mut self, message: &Message) -> Result<()> {
        Ok(self.write_all(&to_bytes(message))?)
    }

    fn receive(&mut self) -> Result<Message> {
        let mut bytes = [0; MESSAGE_BYTES];
        self.read_exact(&mut bytes)?;
        Ok(of_bytes(&bytes))
    }
}
