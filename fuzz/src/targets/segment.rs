//! A segment of the journal. Bytes at random never get past its checksums, so those are made right
//! again: all, or some of them.
//!
//! Input: which checksums are made right (one byte, a bit each), then the segment.

use crc32c::{crc32c, crc32c_append};
use pheromone_journal::{Parsed, parse_segment};

use super::directory::journal_files;
use super::take_byte;

// Bits of the first byte: what is made right.
const SEGMENT: u8 = 1;
const HEADERS: u8 = 2;
const METAS: u8 = 4;
const PAYLOADS: u8 = 8;
/// All checksums are made right.
pub(super) const ALL: u8 = SEGMENT | HEADERS | METAS | PAYLOADS;

/// Bytes of a segment's header, of a record's, and of its trailer: as `docs/journal.md` draws them.
const SEGMENT_BYTES: usize = 64;
const RECORD_BYTES: usize = 40;
const TRAILER_BYTES: usize = 8;

/// What is read of a segment is in it, and what is cut off behind the end of its chain takes
/// nothing away.
pub fn run(mut bytes: &[u8]) {
    let what = take_byte(&mut bytes);
    check(bytes);
    let mut sealed = bytes.to_vec();
    seal(&mut sealed, what);
    check(&sealed);
}

fn check(bytes: &[u8]) {
    let Parsed {
        entries,
        spoiled,
        good_bytes,
    } = parse_segment(bytes);
    assert!(good_bytes <= bytes.len() as u64);
    let records = entries.len() + spoiled;
    let least = records * (RECORD_BYTES + TRAILER_BYTES);
    assert!(records == 0 || SEGMENT_BYTES + least <= good_bytes as usize);
    assert!(entries.is_sorted_by_key(|(sequence, _)| *sequence));
    let cut = parse_segment(&bytes[..good_bytes as usize]);
    assert_eq!((cut.entries, cut.spoiled), (entries, spoiled));
}

/// Makes the checksums of a segment right, as far as its lengths lead.
pub(super) fn seal(bytes: &mut [u8], what: u8) {
    let Some((head, _)) = bytes.split_first_chunk_mut::<SEGMENT_BYTES>() else {
        return;
    };
    if what & SEGMENT != 0 {
        head[..12].copy_from_slice(b"PHRJRNL\0\x01\0\0\0");
        let checksum = crc32c(&head[..60]);
        head[60..].copy_from_slice(&checksum.to_le_bytes());
    }
    let salt = word(&head[12..]);
    let (mut at, mut previous) = (SEGMENT_BYTES, salt);
    while let Some(record) = bytes
        .get_mut(at..)
        .filter(|rest| rest.len() >= RECORD_BYTES)
    {
        let (payload_bytes, meta_bytes) = (number(&record[16..]), word(&record[24..]) as usize);
        let payload_at = RECORD_BYTES.saturating_add(meta_bytes);
        if let (true, Some(meta)) = (what & METAS != 0, record.get(RECORD_BYTES..payload_at)) {
            let checksum = crc32c(meta);
            record[28..32].copy_from_slice(&checksum.to_le_bytes());
        }
        if what & HEADERS != 0 {
            record[..4].copy_from_slice(b"phr1");
            record[32..36].copy_from_slice(&previous.to_le_bytes());
            let checksum = crc32c_append(salt, &record[..36]);
            record[36..40].copy_from_slice(&checksum.to_le_bytes());
        }
        previous = word(&record[36..]);
        let payload_end = payload_at.saturating_add(payload_bytes);
        let Some(trailer_at) = payload_end.checked_next_multiple_of(8) else {
            return;
        };
        if trailer_at.saturating_add(TRAILER_BYTES) > record.len() {
            return;
        }
        if what & PAYLOADS != 0 {
            let checksum = crc32c(&record[payload_at..payload_end]);
            record[trailer_at..trailer_at + 4].copy_from_slice(&checksum.to_le_bytes());
        }
        at += trailer_at + TRAILER_BYTES;
    }
}

fn word(bytes: &[u8]) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[..4]);
    u32::from_le_bytes(word)
}

fn number(bytes: &[u8]) -> usize {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[..8]);
    usize::try_from(u64::from_le_bytes(number)).unwrap_or(usize::MAX)
}

/// The segments of a journal in which everything happens that is written down.
pub fn seeds() -> Vec<Vec<u8>> {
    let files = journal_files().into_iter();
    let segments = files.filter(|(name, _)| name.ends_with(".log"));
    segments
        .flat_map(|(_, bytes)| [[&[ALL], &bytes[..]].concat(), [&[0], &bytes[..]].concat()])
        .collect()
}
