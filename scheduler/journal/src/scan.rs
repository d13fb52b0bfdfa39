//! Reads a segment from its first record to where its chain of headers ends.
//!
//! Used by recovery, compaction and the fuzz entry point alike. Nothing here trusts a byte: lengths
//! are held against the file before anything is allocated.

use std::io;

use crate::disk::DiskFile;
use crate::entry::Entry;
use crate::format::{
    self, ALIGNMENT, Checksum, FLAG_BATCH, NotASegment, RECORD_HEADER_BYTES, RecordHeader,
    SEGMENT_HEADER_BYTES, SegmentHeader, TRAILER_BYTES,
};
use crate::limits::CHUNK_BYTES;

/// Bytes that can be read at an offset.
pub(crate) trait ReadAt {
    fn length(&self) -> io::Result<u64>;
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for [u8] {
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = usize::try_from(offset).map_or(self.len(), |from| from.min(self.len()));
        let length = bytes.len().min(self.len() - from);
        bytes[..length].copy_from_slice(&self[from..from + length]);
        Ok(length)
    }
}

impl ReadAt for dyn DiskFile {
    fn length(&self) -> io::Result<u64> {
        DiskFile::length(self)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        DiskFile::read_at(self, bytes, offset)
    }
}

/// A part of a file in private memory, that moves on as it is read.
pub(crate) struct Window<'a, S: ?Sized> {
    source: &'a S,
    /// Bytes of the file that count.
    limit: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a, S: ReadAt + ?Sized> Window<'a, S> {
    pub(crate) fn new(source: &'a S, limit: u64) -> Self {
        Self {
            source,
            limit,
            start: 0,
            bytes: Vec::new(),
        }
    }

    /// `length` bytes at `offset`, or `None` where the file has fewer.
    pub(crate) fn get(&mut self, offset: u64, length: usize) -> io::Result<Option<&[u8]>> {
        let Some(end) = offset.checked_add(length as u64) else {
            return Ok(None);
        };
        if end > self.limit {
            return Ok(None);
        }
        if offset < self.start || end > self.start + self.bytes.len() as u64 {
            self.fill(offset, length)?;
            if length > self.bytes.len() {
                return Ok(None);
            }
        }
        let from = usize::try_from(offset - self.start).expect("lies in the window");
        Ok(Some(&self.bytes[from..from + length]))
    }

    /// Reads at least `length` bytes from `offset` on, unless the file ends before.
    fn fill(&mut self, offset: u64, length: usize) -> io::Result<()> {
        let rest = usize::try_from(self.limit - offset).unwrap_or(usize::MAX);
        let wanted = length.max(CHUNK_BYTES).min(rest);
        self.start = offset;
        self.bytes.resize(wanted, 0);
        let mut filled = 0;
        while filled < wanted {
            let at = offset + filled as u64;
            match self.source.read_at(&mut self.bytes[filled..], at) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.bytes.truncate(filled);
                    return if filled >= length { Ok(()) } else { Err(error) };
                }
            }
        }
        self.bytes.truncate(filled);
        Ok(())
    }
}

/// A record whose header is sound and follows the chain.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) header: RecordHeader,
    /// Where it begins in its file.
    pub(crate) offset: u64,
    /// `None` if what stands between header and payload is spoiled.
    pub(crate) entry: Option<Entry>,
    /// The payload is not what was written. Always false where payloads are not looked at.
    pub(crate) payload_is_spoiled: bool,
    /// Recovery has declared that it was never written.
    pub(crate) is_void: bool,
}

impl Found {
    /// All of it is as it was written, as far as was looked.
    pub(crate) fn is_sound(&self) -> bool {
        self.entry.is_some() && !self.payload_is_spoiled
    }

    /// It is the first of its batch.
    pub(crate) fn begins_batch(&self) -> bool {
        self.header.flags & FLAG_BATCH != 0
    }
}

/// How a segment's chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With the file's last byte.
    Clean,
    /// Before it, with nothing behind that was ever made durable: a write that a crash has cut off.
    Torn,
    /// Before it, with a later batch behind: acknowledged entries are lost.
    Damaged,
}

/// Reads records one after the other.
pub(crate) struct Scanner<'a, S: ?Sized> {
    window: Window<'a, S>,
    limit: u64,
    salt: u32,
    offset: u64,
    previous: u32,
    sequence: u64,
    /// Records have smaller numbers.
    before: u64,
    checks_payloads: bool,
}

/// The header of a segment file.
pub(crate) fn segment_header<S: ReadAt + ?Sized>(
    source: &S,
) -> io::Result<Result<SegmentHeader, NotASegment>> {
    let mut window = Window::new(source, source.length()?);
    let bytes = window.get(0, SEGMENT_HEADER_BYTES as usize)?;
    Ok(bytes.map_or(Err(NotASegment::Damaged), SegmentHeader::decode))
}

impl<'a, S: ReadAt + ?Sized> Scanner<'a, S> {
    /// A scanner of the first `limit` bytes of a segment with this header.
    pub(crate) fn new(
        source: &'a S,
        header: &SegmentHeader,
        limit: u64,
        checks_payloads: bool,
    ) -> Self {
        Self {
            window: Window::new(source, limit),
            limit,
            salt: header.salt,
            offset: SEGMENT_HEADER_BYTES,
            previous: header.salt,
            sequence: header.first_sequence - 1,
            before: u64::MAX,
            checks_payloads,
        }
    }

    /// The same, for which a record of this number or a larger one breaks the chain: it would be of
    /// a later segment, and compaction goes by numbers.
    pub(crate) fn before(mut self, sequence: u64) -> Self {
        self.before = sequence;
        self
    }

    /// Where the next record would begin: at the end, how many bytes of the file are good.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next record, `None` where the chain ends.
    pub(crate) fn next(&mut self) -> Option<Found> {
        let offset = self.offset;
        let bytes = self
            .window
            .get(offset, RECORD_HEADER_BYTES as usize)
            .ok()??;
        let bytes: &[u8; RECORD_HEADER_BYTES as usize] = bytes.try_into().ok()?;
        let (header, previous) = RecordHeader::decode(self.salt, bytes)?;
        let checksum = format::checksum_of(bytes);
        let is_next = header.sequence > self.sequence && header.sequence < self.before;
        if previous != self.previous || !is_next {
            return None;
        }
        let end = offset.checked_add(header.record_bytes())?;
        if end > self.limit {
            return None;
        }
        let entry = self.entry(offset, &header);
        let (payload_is_spoiled, is_void) = self.payload(offset, &header);
        self.offset = end;
        self.previous = checksum;
        self.sequence = header.sequence;
        Some(Found {
            header,
            offset,
            entry,
            payload_is_spoiled,
            is_void,
        })
    }

    fn entry(&mut self, offset: u64, header: &RecordHeader) -> Option<Entry> {
        let length = header.meta_bytes as usize;
        let bytes = self
            .window
            .get(offset + RECORD_HEADER_BYTES, length)
            .ok()??;
        let mut checksum = Checksum::default();
        checksum.add(bytes);
        if checksum.value() != header.meta_checksum {
            return None;
        }
        Entry::decode(header.kind, bytes)
    }

    /// Whether the payload is spoiled, and whether the record is void.
    fn payload(&mut self, offset: u64, header: &RecordHeader) -> (bool, bool) {
        let found = if self.checks_payloads {
            self.payload_checksum(offset + header.payload_at(), header.payload_bytes)
        } else {
            None
        };
        let trailer_at = offset + header.trailer_at();
        let trailer = match self.window.get(trailer_at, TRAILER_BYTES as usize) {
            Ok(Some(bytes)) => bytes.try_into().expect("as many bytes as asked for"),
            _ => return (true, false),
        };
        match format::checksum_in(&trailer) {
            None => (false, true),
            expected => (self.checks_payloads && found != expected, false),
        }
    }

    /// The checksum of these bytes, or `None` if they cannot be read.
    fn payload_checksum(&mut self, mut at: u64, mut left: u64) -> Option<u32> {
        let mut checksum = Checksum::default();
        while left > 0 {
            let length = left.min(CHUNK_BYTES as u64);
            checksum.add(self.window.get(at, length as usize).ok()??);
            at += length;
            left -= length;
        }
        Some(checksum.value())
    }

    /// What stands behind the end of the chain, and the last number found there.
    pub(crate) fn ending(&mut self) -> (Ending, u64) {
        if self.offset == self.limit {
            return (Ending::Clean, self.sequence);
        }
        let mut ending = Ending::Torn;
        let mut last = self.sequence;
        let mut at = self.offset + ALIGNMENT;
        while let Ok(Some(bytes)) = self.window.get(at, RECORD_HEADER_BYTES as usize) {
            let header = bytes
                .try_into()
                .ok()
                .and_then(|bytes| RecordHeader::decode(self.salt, bytes));
            if let Some((header, _)) = header.filter(|(header, _)| header.sequence > self.sequence)
            {
                last = last.max(header.sequence);
                if header.flags & FLAG_BATCH != 0 {
                    ending = Ending::Damaged;
                }
            }
            at += ALIGNMENT;
        }
        (ending, last)
    }
}

/// What a segment's bytes hold, for tests and fuzzers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The entries that are sound, with their numbers, in order.
    pub entries: Vec<(u64, Entry)>,
    /// Records that are not.
    pub spoiled: usize,
    /// Bytes up to where the chain of headers ends; 0 if there is no segment here.
    pub good_bytes: u64,
}

/// Reads a segment out of memory. Takes any bytes at all.
pub fn parse_segment(bytes: &[u8]) -> Parsed {
    let mut parsed = Parsed::default();
    let Ok(header) = SegmentHeader::decode(bytes) else {
        return parsed;
    };
    let mut scanner = Scanner::new(bytes, &header, bytes.len() as u64, true);
    while let Some(found) = scanner.next() {
        match found.entry {
            Some(entry) if !found.payload_is_spoiled => {
                parsed.entries.push((found.header.sequence, entry));
            }
            _ => parsed.spoiled += 1,
        }
    }
    parsed.good_bytes = scanner.offset();
    parsed
}
