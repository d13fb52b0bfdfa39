//! Every size and bound of shared memory, with its arithmetic.

use crate::ring::SLOT_BYTES;

/// A page.
pub const PAGE_BYTES: usize = 4096;
/// Ring bases are spread over this many cache sets, one line apart, so that polling hundreds of
/// rings does not thrash one set (measured: 255 idle rings cost 20 ns coloured, 600 not).
pub const COLOURS: usize = PAGE_BYTES / SLOT_BYTES;

/// Slots of a publish ring: 32 turns of 32 messages.
pub const PUBLISH_SLOTS: usize = 1024;
/// Slots of a dispatch ring. The scheduler has at most one open and one queued dispatch, one
/// answer, an `Adopt` and an `Exit` under way: 5 messages of 10 slots, rounded up.
pub const DISPATCH_SLOTS: usize = 64;
/// Slots of a release ring: 256 slots of 6 extents are 1 536 dead objects.
pub const RELEASE_SLOTS: usize = 256;
/// Slots of each of the link's rings.
pub const LINK_SLOTS: usize = 4096;
/// Bytes of each of the link's `args` areas.
pub const LINK_ARGS_BYTES: usize = 1 << 20;

/// Bytes of the `node` page.
pub const BELL_BYTES: u64 = PAGE_BYTES as u64;

/// How long an executor with a full publish ring polls before it sleeps: the cost of a wake.
pub const FULL_RING_POLLS: u32 = 2_000;

/// Extents in one slot of the release ring: 8 bytes of header, then 8 each.
pub const RELEASES_PER_SLOT: usize = 6;

const fn whole_pages(bytes: usize) -> usize {
    bytes.div_ceil(PAGE_BYTES) * PAGE_BYTES
}

/// Bytes that a coloured ring of so many slots needs: its slots and a page to slide in.
const fn coloured(slots: usize) -> usize {
    whole_pages(slots * SLOT_BYTES) + PAGE_BYTES
}

/// Offsets in the `up` file: written by its executor.
pub mod up {
    use super::{DISPATCH_SLOTS, PAGE_BYTES, PUBLISH_SLOTS, SLOT_BYTES, coloured};
    use crate::wire::ARGS_BYTES;

    /// Slots taken from the dispatch ring.
    pub const DISPATCH_CONSUMED: usize = 0;
    /// Slots taken from the release ring.
    pub const RELEASE_CONSUMED: usize = SLOT_BYTES;
    /// The word that an idle executor sleeps on.
    pub const IDLE_WORD: usize = 2 * SLOT_BYTES;
    /// The word that an executor with a full publish ring sleeps on.
    pub const FULL_WORD: usize = 3 * SLOT_BYTES;
    /// First byte of the publish ring, before colouring.
    pub const PUBLISH: usize = PAGE_BYTES;
    /// First byte of the area for long messages.
    pub const ARGS: usize = PUBLISH + coloured(PUBLISH_SLOTS);
    /// Bytes of the file.
    pub const BYTES: usize = ARGS + ARGS_BYTES;

    const _: () = assert!(DISPATCH_SLOTS.is_power_of_two() && PUBLISH_SLOTS.is_power_of_two());
}

/// Offsets in the `down` file: written by the scheduler, read-only in its executor.
pub mod down {
    use super::{DISPATCH_SLOTS, PAGE_BYTES, RELEASE_SLOTS, SLOT_BYTES, coloured};
    use crate::wire::ARGS_BYTES;

    /// Slots taken from the publish ring.
    pub const PUBLISH_CONSUMED: usize = 0;
    /// Bytes of credit ever granted to the process.
    pub const CREDIT: usize = SLOT_BYTES;
    /// 1: the executor may spin while idle.
    pub const SPIN: usize = 2 * SLOT_BYTES;
    /// The invocation that is cancelled, or 0.
    pub const CANCELLED: usize = 3 * SLOT_BYTES;
    /// First byte of the dispatch ring, before colouring.
    pub const DISPATCH: usize = PAGE_BYTES;
    /// First byte of the release ring, before colouring.
    pub const RELEASE: usize = DISPATCH + coloured(DISPATCH_SLOTS);
    /// First byte of the area for long messages.
    pub const ARGS: usize = RELEASE + coloured(RELEASE_SLOTS);
    /// Bytes of the file.
    pub const BYTES: usize = ARGS + ARGS_BYTES;
}

/// Offsets in the link's file. Each end writes one half.
pub mod link {
    use super::{LINK_ARGS_BYTES, LINK_SLOTS, PAGE_BYTES, SLOT_BYTES};

    /// Slots that this end has taken from the other's ring.
    pub const CONSUMED: usize = 0;
    /// The word that this end sleeps on.
    pub const IDLE_WORD: usize = SLOT_BYTES;
    /// This end's ring.
    pub const RING: usize = PAGE_BYTES;
    /// This end's area for long messages.
    pub const ARGS: usize = RING + LINK_SLOTS * SLOT_BYTES;
    /// Bytes of one half.
    pub const HALF_BYTES: usize = ARGS + LINK_ARGS_BYTES;
}
