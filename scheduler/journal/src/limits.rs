//! Every limit of the journal, with its reason.

/// Bytes after which a segment is followed by a new one. Compaction rewrites a segment as a whole,
/// so that this is also what one step of it reads at most (an object larger than this aside).
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// Smallest segment that can be asked for: tests want many of them.
pub const SEGMENT_BYTES_MIN: u64 = 4 << 10;

/// Bytes of an entry without its payload: a firing of a million inputs takes at most 10 MiB.
pub const META_BYTES_MAX: usize = 16 << 20;

/// Bytes of one payload: what the node could ever give, and far from overflowing a file offset.
pub const PAYLOAD_BYTES_MAX: u64 = 1 << 44;

/// Entries that one write makes durable together.
pub const BATCH_ENTRIES_MAX: usize = 4096;

/// Bytes after which a batch takes no further entry: past it, who waits for the first one would
/// wait longer for the disk's bandwidth than for its flush.
pub const BATCH_BYTES_MAX: u64 = 8 << 20;

/// Bytes read, checked and written in one piece: what a payload takes of the node's own memory.
pub const CHUNK_BYTES: usize = 256 << 10;

/// Submissions that may wait for the writer; one more is refused at once.
pub const QUEUE_MAX: usize = 64 << 10;

/// Objects that one batch lets expire; the rest follows in the next.
pub const EXPIRE_MAX: usize = BATCH_ENTRIES_MAX;

/// Index entries changed under one lock while a compacted segment takes over: about 1 ms.
pub const MOVES_PER_LOCK: usize = 4096;

/// Bytes of an application's, bucket's or key's name, and of a group.
pub const NAME_BYTES_MAX: usize = 255;

const _: () = assert!(BATCH_BYTES_MAX < SEGMENT_BYTES && (CHUNK_BYTES as u64) < BATCH_BYTES_MAX);
const _: () = assert!(META_BYTES_MAX <= u32::MAX as usize);
