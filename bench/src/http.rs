//! As much of HTTP/1.1 as a benchmark speaks: one connection, one request after the other.

use std::io::{Read, Write};

use anyhow::{Context, Result, ensure};

/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Read at once.
const READ_BYTES: usize = 64 << 10;

/// One end of a connection.
#[derive(Debug)]
pub struct Client<S> {
    stream: S,
    host: String,
    /// Read, and not yet used.
    buffer: Vec<u8>,
}

impl<S: Read + Write> Client<S> {
    /// Over this stream, to a server that knows itself by this name.
    pub fn new(stream: S, host: impl Into<String>) -> Self {
        Self {
            stream,
            host: host.into(),
            buffer: Vec::new(),
        }
    }

    /// Sends a body and returns that of the answer.
    ///
    /// # Errors
    /// An answer other than 200, or a connection that ends.
    pub fn post(&mut self, path: &str, body: &[u8]) -> Result<Vec<u8>> {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n",
            self.host,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.stream.write_all(&request)?;
        let head_bytes = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            ensure!(
                self.buffer.len() < HEAD_BYTES_MAX,
                "an answer's head does not end"
            );
            self.read()?;
        };
        let head = String::from_utf8_lossy(&self.buffer[..head_bytes]).into_owned();
        let body_bytes = body_bytes(&head)?;
        while self.buffer.len() < head_bytes + body_bytes {
            self.read()?;
        }
        let rest = self.buffer.split_off(head_bytes + body_bytes);
        let body = self.buffer.split_off(head_bytes);
        self.buffer = rest;
        let status = head.split(' ').nth(1).unwrap_or_default();
        ensure!(
            status == "200",
            "a call was answered with {status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(body)
    }

    fn read(&mut self) -> Result<()> {
        let before = self.buffer.len();
        self.buffer.resize(before + READ_BYTES, 0);
        let read = self.stream.read(&mut self.buffer[before..])?;
        self.buffer.truncate(before + read);
        ensure!(read > 0, "the node has closed the connection");
        Ok(())
    }
}

fn body_bytes(head: &str) -> Result<usize> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .context("an answer does not say how long it is")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers with these bytes, however they are cut.
    struct Script {
        pieces: Vec<&'static [u8]>,
        written: Vec<u8>,
    }

    impl Read for Script {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            if self.pieces.is_empty() {
                return Ok(0);
            }
            let piece = self.pieces.remove(0);
            into[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.written.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn client(pieces: &[&'static [u8]]) -> Client<Script> {
        let script = Script {
            pieces: pieces.to_vec(),
            written: Vec::new(),
        };
        Client::new(script, "localhost")
    }

    #[test]
    fn answers_are_read_whole_and_one_after_the_other() {
        let mut client = client(&[
            b"HTTP/1.1 200 OK\r\ncontent-le",
            b"ngth: 5\r\n\r\nhel",
            b"loHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ]);
        assert_eq!(client.post("/a", b"body").unwrap(), b"hello");
        assert_eq!(client.post("/a", b"").unwrap(), b"");
        let written = String::from_utf8(client.stream.written).unwrap();
        let first = "POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody";
        assert!(written.starts_with(first), "{written}");
    }

    #[test]
    fn another_status_and_a_lost_connection_are_errors() {
        let refused = client(&[b"HTTP/1.1 429 Too Many\r\nContent-Length: 4\r\n\r\nfull"])
            .post("/a", b"")
            .unwrap_err();
        assert_eq!(refused.to_string(), "a call was answered with 429: full");
        let lost = client(&[b"HTTP/1.1 200 OK\r\n"]).post("/a", b"");
        assert!(lost.unwrap_err().to_string().contains("closed"));
        let endless = client(&[b"HTTP/1.1 200 OK\r\n\r\n"]).post("/a", b"");
        assert!(endless.unwrap_err().to_string().contains("how long"));
    }
}
