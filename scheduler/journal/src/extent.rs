//! Where an entry lies on the disk, and reading its payload from there.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::disk::read_exact;
use crate::entry::{Entry, Object, Sequence};
use crate::error::ReadError;
use crate::format::{self, Checksum, RECORD_HEADER_BYTES, RecordHeader, TRAILER_BYTES};
use crate::limits::CHUNK_BYTES;
use crate::segment::Segment;

/// The place of a record.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) segment: Arc<Segment>,
    pub(crate) offset: u64,
    pub(crate) header: RecordHeader,
}

impl Place {
    /// Reads the entry again, `None` if it is spoiled by now or cannot be read.
    pub(crate) fn entry(&self) -> Option<Entry> {
        let mut meta = vec![0; self.header.meta_bytes as usize];
        let at = self.offset + RECORD_HEADER_BYTES;
        read_exact(&*self.segment.file, &mut meta, at).ok()?;
        let mut checksum = Checksum::default();
        checksum.add(&meta);
        let is_sound = checksum.value() == self.header.meta_checksum;
        is_sound.then(|| Entry::decode(self.header.kind, &meta))?
    }
}

/// A payload on the disk. It stays readable while this exists, whatever is replaced or deleted.
#[derive(Clone)]
pub struct Extent(Place);

impl Extent {
    pub(crate) fn new(place: Place) -> Self {
        Self(place)
    }

    /// The payload's length in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.0.header.payload_bytes
    }

    /// Reads the whole payload into a buffer of exactly its length, and checks it.
    ///
    /// # Errors
    /// [`ReadError`]; the buffer's content means nothing then.
    pub fn read(&self, buffer: &mut [u8]) -> Result<(), ReadError> {
        if buffer.len() as u64 != self.size_bytes() {
            return Err(ReadError::Length {
                payload: self.size_bytes(),
                buffer: buffer.len() as u64,
            });
        }
        let at = self.0.offset + self.0.header.payload_at();
        read_exact(&*self.0.segment.file, buffer, at).map_err(ReadError::Disk)?;
        let mut checksum = Checksum::default();
        checksum.add(buffer);
        self.check(checksum)
    }

    /// The whole payload, checked, in a vector of its own.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn to_vec(&self) -> Result<Vec<u8>, ReadError> {
        let length = usize::try_from(self.size_bytes()).map_err(|_| ReadError::Length {
            payload: self.size_bytes(),
            buffer: usize::MAX as u64,
        })?;
        let mut bytes = vec![0; length];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes the whole payload to a descriptor from `offset` on, and checks it. It passes through
    /// private memory in chunks.
    ///
    /// # Errors
    /// [`ReadError`]; what has been written means nothing then.
    pub fn copy_to(&self, target: impl AsFd, mut offset: u64) -> Result<(), ReadError> {
        let mut chunk =
            vec![0; CHUNK_BYTES.min(usize::try_from(self.size_bytes()).unwrap_or(CHUNK_BYTES))];
        let (mut at, mut left) = (
            self.0.offset + self.0.header.payload_at(),
            self.size_bytes(),
        );
        let mut checksum = Checksum::default();
        while left > 0 {
            let length = usize::try_from(left).map_or(chunk.len(), |left| left.min(chunk.len()));
            let bytes = &mut chunk[..length];
            read_exact(&*self.0.segment.file, bytes, at).map_err(ReadError::Disk)?;
            checksum.add(bytes);
            pwrite_all(&target, bytes, offset).map_err(ReadError::Target)?;
            at += length as u64;
            offset += length as u64;
            left -= length as u64;
        }
        self.check(checksum)
    }

    /// Compares a checksum with the trailer's.
    fn check(&self, checksum: Checksum) -> Result<(), ReadError> {
        let mut trailer = [0; TRAILER_BYTES as usize];
        let at = self.0.offset + self.0.header.trailer_at();
        read_exact(&*self.0.segment.file, &mut trailer, at).map_err(ReadError::Disk)?;
        if format::checksum_in(&trailer) == Some(checksum.value()) {
            Ok(())
        } else {
            Err(ReadError::Spoiled {
                sequence: self.0.header.sequence,
            })
        }
    }
}

impl std::fmt::Debug for Extent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Extent({} bytes)", self.size_bytes())
    }
}

fn pwrite_all(target: impl AsFd, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(&target, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// An object that the journal holds.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The number of its entry: what a firing names it by.
    pub sequence: Sequence,
    /// What is known of it.
    pub object: Arc<Object>,
    /// Its payload.
    pub payload: Extent,
}

/// An entry found at recovery.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its number.
    pub sequence: Sequence,
    /// The entry.
    pub entry: Entry,
    /// Its payload.
    pub payload: Extent,
}
