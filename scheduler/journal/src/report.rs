//! What is found when a journal is opened.

use std::fmt;

use crate::disk::Way;
use crate::entry::{Name, Sequence, SessionId};
use crate::extent::Recorded;

/// What an opened journal holds of the time before.
#[derive(Debug)]
pub struct Recovered {
    /// Sessions without an end, by id.
    pub sessions: Vec<Unfinished>,
    /// Objects that can be found.
    pub objects: u64,
    /// Records read.
    pub records: u64,
    /// Segment files.
    pub segments: u64,
    /// Bytes of these.
    pub disk_bytes: u64,
    /// Everything that is not as it was written.
    pub reports: Vec<Report>,
    /// How writes are made durable.
    pub way: Way,
}

/// A session that goes on.
#[derive(Debug)]
pub struct Unfinished {
    /// The session.
    pub session: SessionId,
    /// Its entries in the order written, and with them the firings of other sessions that took its
    /// objects.
    pub entries: Vec<Recorded>,
}

/// Something that is not as it was written. Displayed, it is a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Report {
    /// A crash has cut off a write that had not been acknowledged.
    Torn {
        /// The segment file.
        segment: String,
        /// Bytes cut.
        bytes: u64,
    },
    /// An entry of the last batch was not written as a whole, and is dropped.
    Unwritten {
        /// The segment file.
        segment: String,
        /// The entry.
        sequence: Sequence,
    },
    /// An object's payload is not what was written. It is still found; reading it is an error.
    SpoiledObject {
        /// The segment file.
        segment: String,
        /// The entry.
        sequence: Sequence,
        /// The object.
        name: Name,
    },
    /// Another entry, or its payload, is not what was written.
    SpoiledEntry {
        /// The segment file.
        segment: String,
        /// The entry.
        sequence: Sequence,
    },
    /// The rest of a segment cannot be read.
    Lost {
        /// The segment file.
        segment: String,
        /// Where it begins, in bytes.
        offset: u64,
        /// How much it is, in bytes.
        bytes: u64,
    },
    /// A file that should be a segment is none.
    NoSegment {
        /// The file.
        segment: String,
    },
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Torn { segment, bytes } => write!(
                f,
                "{segment}: the last {bytes} bytes were of a write that had not come to its end, \
                 and are cut"
            ),
            Self::Unwritten { segment, sequence } => write!(
                f,
                "{segment}: entry {sequence} of the last write had not come to the disk as a whole, \
                 and is dropped"
            ),
            Self::SpoiledObject {
                segment,
                sequence,
                name,
            } => write!(
                f,
                "{segment}: the payload of object {name} (entry {sequence}) is spoiled; \
                 send or delete it again, and see to the disk"
            ),
            Self::SpoiledEntry { segment, sequence } => write!(
                f,
                "{segment}: entry {sequence} is spoiled, and its effect lost; see to the disk"
            ),
            Self::Lost {
                segment,
                offset,
                bytes,
            } => write!(
                f,
                "{segment}: {bytes} bytes from {offset} on cannot be read, and what they held \
                 is lost; the file is left as it is; see to the disk"
            ),
            Self::NoSegment { segment } => write!(
                f,
                "{segment} is no segment of a journal, and what it held is lost; \
                 the file is left as it is; see to the disk"
            ),
        }
    }
}
