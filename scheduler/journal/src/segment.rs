//! One file of the journal, and what of it is still needed.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::disk::DiskFile;
use crate::format::{SEGMENT_HEADER_BYTES, SegmentHeader};

/// A segment is not rewritten for the sake of what is dead in it while it has more than so many
/// times as much of ends and deletions that stay.
const NOTICES_PER_DEAD: u64 = 8;

/// How segment files end.
const ENDING: &str = ".log";
/// How files end that are not yet segments.
const UNFINISHED_ENDING: &str = ".new";

/// The file name of the segment with this first number.
pub(crate) fn name_of(first: u64) -> String {
    format!("{first:016x}{ENDING}")
}

/// What it is called while it is being written as a whole.
pub(crate) fn unfinished_name_of(first: u64) -> String {
    format!("{first:016x}{UNFINISHED_ENDING}")
}

/// The first number of the segment in a file of this name.
pub(crate) fn number_in(name: &str) -> Option<u64> {
    let number = number_before(name, ENDING)?;
    (name_of(number) == name).then_some(number)
}

/// The file was being written as a whole when a node ended.
pub(crate) fn is_unfinished(name: &str) -> bool {
    let number = number_before(name, UNFINISHED_ENDING);
    number.is_some_and(|number| unfinished_name_of(number) == name)
}

fn number_before(name: &str, ending: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_suffix(ending)?, 16).ok()
}

/// A salt for a new segment.
pub(crate) fn random_salt() -> u32 {
    // The keys of this hash are the standard library's, from the system's random numbers.
    RandomState::new().hash_one(0) as u32
}

/// An open segment. It lives as long as the index or a reader points into it, also after compaction
/// has taken its name away.
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Bytes that are good, header included. Written by the writer thread alone.
    end: AtomicU64,
    /// Bytes of records that are needed for their own sake. Changed with the index locked.
    live: AtomicU64,
    /// Bytes of ends and deletions that are needed as long as what they end is on the disk.
    notices: AtomicU64,
    /// Nothing more is appended to it.
    is_sealed: AtomicBool,
    /// Its chain is broken: it is left alone for people to look at.
    is_damaged: AtomicBool,
}

impl Segment {
    pub(crate) fn new(header: SegmentHeader, file: Arc<dyn DiskFile>, end: u64) -> Self {
        Self {
            header,
            file,
            end: AtomicU64::new(end),
            live: AtomicU64::new(0),
            notices: AtomicU64::new(0),
            is_sealed: AtomicBool::new(false),
            is_damaged: AtomicBool::new(false),
        }
    }

    pub(crate) fn end(&self) -> u64 {
        self.end.load(Relaxed)
    }

    pub(crate) fn set_end(&self, end: u64) {
        self.end.store(end, Relaxed);
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.live.load(Relaxed)
    }

    /// Bytes that a copy of it would have.
    pub(crate) fn needed_bytes(&self) -> u64 {
        self.live_bytes() + self.notices.load(Relaxed)
    }

    fn dead_bytes(&self) -> u64 {
        let records = self.end().saturating_sub(SEGMENT_HEADER_BYTES);
        records.saturating_sub(self.needed_bytes())
    }

    /// A record of so many bytes is needed.
    pub(crate) fn add(&self, bytes: u64, is_notice: bool) {
        self.counter(is_notice).fetch_add(bytes, Relaxed);
    }

    /// It is needed no longer.
    pub(crate) fn subtract(&self, bytes: u64, is_notice: bool) {
        self.counter(is_notice).fetch_sub(bytes, Relaxed);
    }

    fn counter(&self, is_notice: bool) -> &AtomicU64 {
        if is_notice { &self.notices } else { &self.live }
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.is_sealed.load(Relaxed)
    }

    pub(crate) fn seal(&self) {
        self.is_sealed.store(true, Relaxed);
    }

    pub(crate) fn is_damaged(&self) -> bool {
        self.is_damaged.load(Relaxed)
    }

    pub(crate) fn set_damaged(&self) {
        self.is_damaged.store(true, Relaxed);
    }

    /// At least as much of it is dead as is live. Notices count little, since what is dead takes
    /// them along sooner or later; but a copy that gets rid of nothing else is not worth it.
    pub(crate) fn is_mostly_dead(&self) -> bool {
        let (dead, needed) = (self.dead_bytes(), self.needed_bytes());
        let notices = needed - self.live_bytes();
        let is_worth_it = dead >= self.live_bytes() && dead >= notices / NOTICES_PER_DEAD;
        needed == 0 || (dead > 0 && is_worth_it)
    }
}
