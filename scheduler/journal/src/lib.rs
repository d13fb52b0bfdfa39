//! The durable log of a node and the index of what it holds.
//!
//! Entries (requests, objects, firings, successes, responses, ends, deletions) are handed to one
//! writer thread, which makes all that wait durable with one write and one flush, and only then
//! says so. What was acknowledged is found by every later [`Journal::find`], and after a crash by
//! [`Journal::open`], which gives back every session that has not ended.
//!
//! The journal knows nothing of functions, triggers or processes: names are strings, ids are
//! integers, and payloads are bytes that it copies once. How it lies on the disk, what holds what,
//! and what a failing disk can and cannot do is in `docs/journal.md`.
#![deny(unsafe_code)]

mod compaction;
mod disk;
mod entry;
mod error;
mod extent;
mod format;
mod index;
mod journal;
pub mod limits;
mod recovery;
mod report;
mod rules;
mod scan;
mod segment;
mod shared;
mod tail;
mod uring;
mod writer;

pub use disk::{Disk, DiskFile, Way};
pub use entry::{
    Delete, End, Entry, Firing, InvocationId, Name, NameParts, Object, Request, Response, Sequence,
    SessionId, Success,
};
pub use error::{OpenError, ReadError, WriteError};
pub use extent::{Extent, Recorded, Stored};
pub use journal::{Journal, Options};
pub use report::{Recovered, Report, Unfinished};
pub use rules::Receipt;
pub use scan::{Parsed, parse_segment};
pub use shared::Stats;
pub use tail::Payload;
pub use writer::{Done, Expired};
