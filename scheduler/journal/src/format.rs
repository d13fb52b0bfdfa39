//! The bytes of a segment: its header, the headers of its records, and the chain between them.
//!
//! Drawn in `docs/journal.md`. Everything is little-endian; everything read is judged before it is
//! used, since a disk may give back anything.

use std::ops::RangeInclusive;

use crc32c::{crc32c, crc32c_append};

use crate::limits::{META_BYTES_MAX, PAYLOAD_BYTES_MAX};

/// What a segment file begins with.
const MAGIC: [u8; 8] = *b"PHRJRNL\0";
/// The layout that this build reads and writes.
pub(crate) const VERSION: u32 = 1;
/// What a record begins with, to find one in damaged bytes.
const MARK: [u8; 4] = *b"phr1";
/// What a record's trailer holds once recovery has decided that it was never written.
pub(crate) const VOID: [u8; 4] = *b"VOID";

/// Bytes of a segment's header.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 64;
/// Bytes of a record's header.
pub(crate) const RECORD_HEADER_BYTES: u64 = 40;
/// Bytes of a record's trailer.
pub(crate) const TRAILER_BYTES: u64 = 8;
/// Numbers of segments and entries: from 1, and never so many that counting on overflows.
const NUMBERS: RangeInclusive<u64> = 1..=u64::MAX / 2;
/// Where a journal that is opened may go on counting at most, so that it never counts beyond those.
pub(crate) const NEXT_NUMBER_MAX: u64 = u64::MAX / 4;
/// Records begin at multiples of this.
pub(crate) const ALIGNMENT: u64 = 8;

/// The kinds of records.
pub(crate) const REQUEST: u8 = 1;
pub(crate) const OBJECT: u8 = 2;
pub(crate) const FIRING: u8 = 3;
pub(crate) const SUCCESS: u8 = 4;
pub(crate) const RESPONSE: u8 = 5;
pub(crate) const END: u8 = 6;
pub(crate) const DELETE: u8 = 7;

/// The record is the first of its batch: all before it has been made durable.
pub(crate) const FLAG_BATCH: u8 = 1;
/// The record's session had ended when it was copied: it counts as an object only.
pub(crate) const FLAG_ENDED: u8 = 2;

/// The first bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// The first, and for a merged segment also the last, of the numbers that it stands for.
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// Bytes of a compacted segment, all written before it got its name; 0 for one appended to.
    pub(crate) length: u64,
    /// Where the segment before this one ended when this was begun; 0 if there was none.
    pub(crate) previous_end: u64,
    /// The number of the first entry that was or could have been written into it.
    pub(crate) first_sequence: u64,
    /// What every record's checksum begins with, and what the first record's header covers in place
    /// of the checksum before it. Drawn at random, so that nobody who only chooses payloads can
    /// make bytes that pass as a record.
    pub(crate) salt: u32,
}

/// Why bytes are not a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotASegment {
    /// Too short, another magic, or a checksum that does not match.
    Damaged,
    /// Sound, and of another version.
    Version(u32),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES as usize] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.salt.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.last.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.length.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.previous_end.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.first_sequence.to_le_bytes());
        let checksum = crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, NotASegment> {
        let Some(bytes) = bytes.first_chunk::<{ SEGMENT_HEADER_BYTES as usize }>() else {
            return Err(NotASegment::Damaged);
        };
        if bytes[0..8] != MAGIC || crc32c(&bytes[..60]) != u32_at(bytes, 60) {
            return Err(NotASegment::Damaged);
        }
        match u32_at(bytes, 8) {
            VERSION => {}
            version => return Err(NotASegment::Version(version)),
        }
        let header = Self {
            first: u64_at(bytes, 16),
            last: u64_at(bytes, 24),
            length: u64_at(bytes, 32),
            previous_end: u64_at(bytes, 40),
            first_sequence: u64_at(bytes, 48),
            salt: u32_at(bytes, 12),
        };
        // Where a segment ends, none says that has not even room for a header.
        let is_end = |end: u64| end == 0 || end >= SEGMENT_HEADER_BYTES;
        let is_possible = header.first <= header.last
            && is_end(header.length)
            && is_end(header.previous_end)
            && NUMBERS.contains(&header.first)
            && NUMBERS.contains(&header.last)
            && NUMBERS.contains(&header.first_sequence);
        if is_possible {
            Ok(header)
        } else {
            Err(NotASegment::Damaged)
        }
    }
}

/// The first bytes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) sequence: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) meta_bytes: u32,
    pub(crate) meta_checksum: u32,
}

impl RecordHeader {
    /// Its bytes in a segment with this salt, of which the last four are the checksum that the next
    /// record's header covers.
    pub(crate) fn encode(&self, salt: u32, previous: u32) -> [u8; RECORD_HEADER_BYTES as usize] {
        let mut bytes = [0; RECORD_HEADER_BYTES as usize];
        bytes[0..4].copy_from_slice(&MARK);
        bytes[4] = self.kind;
        bytes[5] = self.flags;
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.meta_bytes.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.meta_checksum.to_le_bytes());
        bytes[32..36].copy_from_slice(&previous.to_le_bytes());
        let checksum = crc32c_append(salt, &bytes[..36]);
        bytes[36..40].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The header in these bytes and the checksum that it covers, unless they are no header of a
    /// segment with this salt.
    pub(crate) fn decode(
        salt: u32,
        bytes: &[u8; RECORD_HEADER_BYTES as usize],
    ) -> Option<(Self, u32)> {
        if bytes[0..4] != MARK || crc32c_append(salt, &bytes[..36]) != checksum_of(bytes) {
            return None;
        }
        let header = Self {
            kind: bytes[4],
            flags: bytes[5],
            sequence: u64_at(bytes, 8),
            payload_bytes: u64_at(bytes, 16),
            meta_bytes: u32_at(bytes, 24),
            meta_checksum: u32_at(bytes, 28),
        };
        let fits = NUMBERS.contains(&header.sequence)
            && header.payload_bytes <= PAYLOAD_BYTES_MAX
            && header.meta_bytes as usize <= META_BYTES_MAX;
        fits.then(|| (header, u32_at(bytes, 32)))
    }

    /// It only says that something before it is over.
    pub(crate) fn is_notice(&self) -> bool {
        matches!(self.kind, END | DELETE)
    }

    /// Where its payload begins, from the record's first byte.
    pub(crate) fn payload_at(&self) -> u64 {
        RECORD_HEADER_BYTES + u64::from(self.meta_bytes)
    }

    /// Where its trailer begins, from the record's first byte.
    pub(crate) fn trailer_at(&self) -> u64 {
        (self.payload_at() + self.payload_bytes).next_multiple_of(ALIGNMENT)
    }

    /// Bytes of the whole record.
    pub(crate) fn record_bytes(&self) -> u64 {
        self.trailer_at() + TRAILER_BYTES
    }
}

/// The checksum at the end of a record's header.
pub(crate) fn checksum_of(header: &[u8; RECORD_HEADER_BYTES as usize]) -> u32 {
    u32_at(header, 36)
}

/// The trailer of a record whose payload has this checksum.
pub(crate) fn trailer(payload_checksum: u32) -> [u8; TRAILER_BYTES as usize] {
    let mut bytes = [0; TRAILER_BYTES as usize];
    bytes[..4].copy_from_slice(&payload_checksum.to_le_bytes());
    bytes
}

/// The payload checksum in a trailer, or `None` if the record is void.
pub(crate) fn checksum_in(trailer: &[u8; TRAILER_BYTES as usize]) -> Option<u32> {
    (trailer[4..8] != VOID).then(|| u32_at(trailer, 0))
}

/// The checksum of bytes that come in pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Checksum(u32);

impl Checksum {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0 = crc32c_append(self.0, bytes);
    }

    pub(crate) fn value(self) -> u32 {
        self.0
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    //! The layout that `docs/journal.md` draws, byte by byte.

    use super::*;

    fn segment() -> SegmentHeader {
        SegmentHeader {
            first: 1,
            last: 2,
            length: 0x103,
            previous_end: 0x104,
            first_sequence: 5,
            salt: 6,
        }
    }

    fn record() -> RecordHeader {
        RecordHeader {
            kind: 2,
            flags: FLAG_BATCH,
            sequence: 9,
            payload_bytes: 5,
            meta_bytes: 3,
            meta_checksum: 0x0403_0201,
        }
    }

    #[test]
    fn the_header_of_a_segment_is_pinned() {
        let bytes = segment().encode();
        assert_eq!(&bytes[..16], b"PHRJRNL\0\x01\0\0\0\x06\0\0\0");
        for (at, value) in [(16, 1), (24, 2), (32, 0x103), (40, 0x104), (48, 5)] {
            assert_eq!(u64_at(&bytes, at), value);
        }
        assert_eq!(bytes[56..60], [0; 4]);
        assert_eq!(SegmentHeader::decode(&bytes), Ok(segment()));
    }

    #[test]
    fn the_header_of_a_record_is_pinned() {
        let bytes = record().encode(7, 0x0d0c_0b0a);
        assert_eq!(&bytes[..8], b"phr1\x02\x01\0\0");
        assert_eq!(
            &bytes[8..28],
            b"\x09\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x03\0\0\0"
        );
        assert_eq!(&bytes[28..36], b"\x01\x02\x03\x04\x0a\x0b\x0c\x0d");
        assert_eq!(
            RecordHeader::decode(7, &bytes),
            Some((record(), 0x0d0c_0b0a))
        );
        assert_eq!((record().payload_at(), record().trailer_at()), (43, 48));
        assert_eq!(record().record_bytes(), 56);
    }

    #[test]
    fn a_header_with_any_bit_changed_is_none() {
        let bytes = segment().encode();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            let outcome = SegmentHeader::decode(&changed);
            assert_eq!(outcome, Err(NotASegment::Damaged), "bit {bit}");
        }
        let bytes = record().encode(7, 1);
        assert_eq!(RecordHeader::decode(8, &bytes), None, "of another segment");
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHeader::decode(7, &changed), None, "bit {bit}");
        }
    }

    #[test]
    fn a_header_that_says_what_cannot_be_is_none() {
        let wrong: [fn(&mut SegmentHeader); 6] = [
            |header| header.first = 0,
            |header| header.last = 0,
            |header| header.last = u64::MAX,
            |header| header.first_sequence = 0,
            |header| header.length = SEGMENT_HEADER_BYTES - 1,
            |header| header.previous_end = 1,
        ];
        for spoil in wrong {
            let mut header = segment();
            spoil(&mut header);
            let outcome = SegmentHeader::decode(&header.encode());
            assert_eq!(outcome, Err(NotASegment::Damaged), "{header:?}");
        }
    }

    #[test]
    fn another_version_is_told_from_damage() {
        let mut bytes = segment().encode();
        bytes[8] = 2;
        let checksum = crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(NotASegment::Version(2)));
    }
}
