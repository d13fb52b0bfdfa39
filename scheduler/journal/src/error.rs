//! What can go wrong, each a sentence that names the culprit and the next step.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::entry::Name;
use crate::limits::{META_BYTES_MAX, NAME_BYTES_MAX, PAYLOAD_BYTES_MAX, QUEUE_MAX};

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory cannot be made, locked or listed.
    #[error(
        "the journal's directory {} cannot be used: {source}; \
         name one that this user may write, on a disk that works",
        path.display()
    )]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another node has it.
    #[error(
        "the journal in {} belongs to another running node (process {pid}); \
         stop that node, or name another directory",
        path.display()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process id that the other node has written there.
        pid: String,
    },
    /// There are segments, and no word of their format.
    #[error(
        "the journal has segments but no file `format`: it is not one of this program's, or was \
         copied in part; copy the whole directory, or name an empty one"
    )]
    NoFormat,
    /// A format that this build does not know.
    #[error(
        "the journal says `{found}`, and this build reads `{expected}`; \
         open it with the version of pheromone that wrote it, or name an empty directory"
    )]
    Format {
        /// What `format` says.
        found: String,
        /// What it should say.
        expected: &'static str,
    },
    /// A segment of a version that this build does not know.
    #[error(
        "segment {name} of the journal has format version {version}, and this build reads \
         {expected}; open it with the version of pheromone that wrote it"
    )]
    SegmentVersion {
        /// The file.
        name: String,
        /// What its header says.
        version: u32,
        /// What it should say.
        expected: u32,
    },
    /// A segment or an entry has a number that no journal of ours reaches.
    #[error(
        "the journal counts up to {number}, which no journal reaches: a segment in it is not its \
         own; copy the whole directory from where it was kept, or name an empty one"
    )]
    NumbersUsedUp {
        /// The highest.
        number: u64,
    },
    /// A file of the journal cannot be read, written or removed.
    #[error("the journal's file {name} cannot be opened or mended: {source}; see to the disk")]
    File {
        /// The file.
        name: String,
        /// What the system says.
        source: io::Error,
    },
    /// A limit that makes no sense.
    #[error("segments of {bytes} bytes are too small; at least {least} are needed")]
    SegmentBytes {
        /// What was asked for.
        bytes: u64,
        /// The least.
        least: u64,
    },
    /// A thread of the journal does not start.
    #[error("a thread of the journal does not start: {0}; raise the limit on processes")]
    Thread(#[source] io::Error),
}

/// Why an entry is not written. Nothing of it takes effect.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// There is an object of this name, from somebody else, and `replace` was not asked for.
    #[error("{name} exists; delete it first, or let the bucket say `replace = true`")]
    Exists {
        /// The object.
        name: Name,
    },
    /// The session has ended before.
    #[error("the session has ended; nothing more can be written for it")]
    SessionEnded,
    /// A key, name, group, payload or the rest of the entry is too long, or a key is empty.
    #[error(
        "the entry is too large: names and groups have {NAME_BYTES_MAX} bytes at most and \
         keys 1 at least, payloads {PAYLOAD_BYTES_MAX}, everything else {META_BYTES_MAX}"
    )]
    TooLarge,
    /// The payload could not be read from its descriptor.
    #[error("the payload could not be read from its descriptor: {0}")]
    Source(#[source] Arc<io::Error>),
    /// The disk refuses.
    #[error("the journal's disk refuses: {0}; free space on it, or replace it")]
    Disk(#[source] Arc<io::Error>),
    /// Too many submissions wait.
    #[error("{QUEUE_MAX} entries wait for the journal's disk already; try again later")]
    Overloaded,
    /// The journal is being closed.
    #[error("the journal is closed")]
    Closed,
}

/// Why a payload cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The bytes on the disk are not those that were written.
    #[error(
        "the payload of journal entry {sequence} is spoiled on the disk; \
         restore it from elsewhere, and see to the disk"
    )]
    Spoiled {
        /// The entry's number.
        sequence: u64,
    },
    /// The disk refuses.
    #[error("the journal's disk refuses to read: {0}")]
    Disk(#[source] io::Error),
    /// The caller's descriptor refuses.
    #[error("the payload cannot be written where it is wanted: {0}")]
    Target(#[source] io::Error),
    /// The caller's buffer has another length than the payload.
    #[error("the payload has {payload} bytes and the buffer {buffer}")]
    Length {
        /// Bytes of the payload.
        payload: u64,
        /// Bytes of the buffer.
        buffer: u64,
    },
}
