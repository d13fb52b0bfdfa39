//! The end of a segment, to which records are appended through private memory.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::disk::{DiskFile, write_all};
use crate::format::{self, ALIGNMENT, Checksum, RecordHeader};
use crate::limits::{BATCH_BYTES_MAX, CHUNK_BYTES};

/// The bytes of an entry that are not looked at.
#[derive(Clone, Debug)]
pub enum Payload {
    /// None.
    Empty,
    /// These.
    Bytes(Vec<u8>),
    /// What lies in a file, read once, by the writer; it must stay there until the entry's answer
    /// has come. That somebody changes it meanwhile does no harm to anything else.
    File {
        /// The file.
        file: Arc<OwnedFd>,
        /// Where it begins in the file, in bytes.
        offset: u64,
        /// Its length in bytes.
        length: u64,
    },
}

impl Payload {
    /// Its length in bytes.
    pub fn size_bytes(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { length, .. } => *length,
        }
    }
}

/// Why a record could not be appended.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// The payload cannot be read. The tail is as before.
    Source(io::Error),
    /// The disk refuses. The tail is of no use any more.
    Disk(io::Error),
}

/// What is to be appended to a file and not yet written. Memory is bounded: past a batch's bytes
/// the oldest are written, and await the flush with the rest.
pub(crate) struct Tail {
    file: Arc<dyn DiskFile>,
    salt: u32,
    /// The checksum of the last record's header.
    previous: u32,
    /// Where `bytes` belong in the file.
    start: u64,
    bytes: Vec<u8>,
}

impl Tail {
    /// The tail of a file that ends at `end` with a header of checksum `previous`.
    pub(crate) fn new(file: Arc<dyn DiskFile>, salt: u32, previous: u32, end: u64) -> Self {
        Self {
            file,
            salt,
            previous,
            start: end,
            bytes: Vec::new(),
        }
    }

    /// The same, with memory that is there already.
    pub(crate) fn reusing(self, mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        Self { bytes, ..self }
    }

    /// Its memory, for the next one; none if that is more than is worth keeping.
    pub(crate) fn into_memory(self) -> Vec<u8> {
        if self.bytes.capacity() > CHUNK_BYTES {
            return Vec::new();
        }
        self.bytes
    }

    /// Where the next record begins.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    pub(crate) fn file(&self) -> &Arc<dyn DiskFile> {
        &self.file
    }

    pub(crate) fn previous(&self) -> u32 {
        self.previous
    }

    /// Appends a record; where it begins is [`Tail::end`] before.
    pub(crate) fn append(
        &mut self,
        header: &RecordHeader,
        meta: &[u8],
        payload: &Payload,
    ) -> Result<(), AppendError> {
        let (begin, previous) = (self.end(), self.previous);
        self.header(header);
        self.bytes.extend_from_slice(meta);
        let mut checksum = Checksum::default();
        let appended = match payload {
            Payload::Empty => Ok(()),
            Payload::Bytes(bytes) => self.payload_bytes(bytes, &mut checksum),
            Payload::File {
                file,
                offset,
                length,
            } => self.payload_file(file, *offset, *length, &mut checksum),
        };
        if let Err(error) = appended {
            self.rewind(begin, previous);
            return Err(error);
        }
        self.pad();
        self.bytes
            .extend_from_slice(&format::trailer(checksum.value()));
        self.relieve().map_err(AppendError::Disk)
    }

    /// Appends a header that continues the chain; what follows it is the caller's.
    pub(crate) fn header(&mut self, header: &RecordHeader) {
        let bytes = header.encode(self.salt, self.previous);
        self.previous = format::checksum_of(&bytes);
        self.bytes.extend_from_slice(&bytes);
    }

    /// Appends bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        self.relieve()
    }

    fn payload_bytes(&mut self, bytes: &[u8], checksum: &mut Checksum) -> Result<(), AppendError> {
        for chunk in bytes.chunks(CHUNK_BYTES) {
            checksum.add(chunk);
            self.bytes(chunk).map_err(AppendError::Disk)?;
        }
        Ok(())
    }

    fn payload_file(
        &mut self,
        file: &OwnedFd,
        mut offset: u64,
        mut left: u64,
        checksum: &mut Checksum,
    ) -> Result<(), AppendError> {
        while left > 0 {
            let length = left.min(CHUNK_BYTES as u64);
            let from = self.bytes.len();
            self.bytes.resize(from + length as usize, 0);
            let chunk = &mut self.bytes[from..];
            pread_exact(file, chunk, offset).map_err(AppendError::Source)?;
            checksum.add(chunk);
            self.relieve().map_err(AppendError::Disk)?;
            offset += length;
            left -= length;
        }
        Ok(())
    }

    fn pad(&mut self) {
        let padding = self.end().next_multiple_of(ALIGNMENT) - self.end();
        self.bytes.resize(self.bytes.len() + padding as usize, 0);
    }

    /// Writes what has come to be more than a batch.
    fn relieve(&mut self) -> io::Result<()> {
        if self.bytes.len() as u64 >= BATCH_BYTES_MAX {
            write_all(&*self.file, &self.bytes, self.start)?;
            self.start = self.end();
            self.bytes.clear();
        }
        Ok(())
    }

    /// Takes back all from `begin` on. Parts that have been written already are overwritten by what
    /// comes next, or stay behind the end, where the chain does not reach.
    fn rewind(&mut self, begin: u64, previous: u32) {
        if begin >= self.start {
            self.bytes.truncate((begin - self.start) as usize);
        } else {
            self.start = begin;
            self.bytes.clear();
        }
        self.previous = previous;
    }

    /// Writes the rest and makes all of it durable.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let end = self.end();
        self.file.write_and_sync(&mut self.bytes, self.start)?;
        self.start = end;
        self.bytes.clear();
        Ok(())
    }
}

fn pread_exact(file: &OwnedFd, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pread(file, &mut *bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                bytes = &mut bytes[read..];
                offset += read as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
