//! Every capacity of shared memory, with its arithmetic, and where everything lies in the shared
//! files, in bytes. `docs/layout.md` draws it.

use crate::message::{
    CONTENT_TYPE_BYTES_MAX, GROUP_BYTES_MAX, KEY_BYTES_MAX, MESSAGE_BYTES_MAX, UNIT_BYTES,
};
use crate::ring::SLOT_BYTES;
use crate::wire::{ARGS_BYTES, INLINE_BYTES_MAX, INPUT_BYTES_MAX, MESSAGE_SLOTS_MAX};

/// A page. Larger pages of other machines only make punching coarser.
pub const PAGE_BYTES: usize = 4096;
/// A huge page.
pub const HUGE_PAGE_BYTES: u64 = 2 << 20;
/// Units of a huge page.
pub const HUGE_PAGE_UNITS: u32 = (HUGE_PAGE_BYTES / UNIT_BYTES) as u32;
/// Ring bases are spread over this many cache sets, one line apart, so that polling hundreds of
/// rings does not thrash one set (measured: 255 idle rings cost 20 ns coloured, 600 not).
pub const COLOURS: usize = PAGE_BYTES / SLOT_BYTES;

/// Slots of a publish ring: 32 turns of 32 messages.
pub const PUBLISH_SLOTS: usize = 1024;
/// Slots of a dispatch ring. The scheduler has at most one open and one queued dispatch (each
/// with a message for its request at most), and one answer or an `Exit` under way: 5 messages of
/// 10 slots, rounded up.
pub const DISPATCH_SLOTS: usize = 64;
/// Slots of a release ring: 256 slots of 7 extents are 1 792 dead objects.
pub const RELEASE_SLOTS: usize = 256;
/// Extents in one slot of a release ring.
pub const RELEASES_PER_SLOT: usize = 7;
/// Slots that an executor takes from its release ring by one change of the index, which costs as
/// much as reading them.
pub const RELEASE_SLOTS_AT_ONCE: usize = 8;
/// Slots of each of the rings between node and scheduler: 256 KiB.
pub const LINK_SLOTS: usize = 4096;
/// Bytes of each of the `args` areas between node and scheduler, and of the longest message there.
pub const LINK_ARGS_BYTES: usize = 1 << 20;
/// Slots of each of the rings between two schedulers: 32 KiB, 512 short messages.
pub const PEER_SLOTS: usize = 512;
/// Bytes of each of the `args` areas between two schedulers, and of the longest message there.
pub const PEER_ARGS_BYTES: usize = 64 << 10;

/// Bytes of the `node` page.
pub const BELL_BYTES: u64 = PAGE_BYTES as u64;
/// Bytes of the page that the node sleeps on.
pub const ROPE_BYTES: u64 = PAGE_BYTES as u64;

/// How long a sender looks for room in a full ring, or an asker for its answer, before it sleeps:
/// about what a wake costs.
pub const POLL_BEFORE_SLEEP_NS: u64 = 20_000;
/// Looks at its ring that an idle executor takes before `wait` returns for its chores: some ten
/// microseconds.
pub const IDLE_POLLS: u32 = 512;

/// Units of a page.
pub const PAGE_UNITS: u32 = (PAGE_BYTES as u64 / UNIT_BYTES) as u32;
/// Longest extent that the quick lists keep: 8 KiB, so that a page with its zero byte is one.
pub const QUICK_UNITS_MAX: u32 = 2 * PAGE_UNITS;
/// What is put into a quick list at once where one is empty: 1 KiB, 16 of the shortest extents, so
/// that their owner looks seldom for those that come back.
pub const QUICK_RUN_UNITS: u32 = ((1 << 10) / UNIT_BYTES) as u32;
/// Units that the quick lists keep in all: 1 MiB, a quarter of the warm memory.
pub const QUICK_UNITS_TOTAL_MAX: u64 = (1 << 20) / UNIT_BYTES;
/// Free memory that a region keeps populated: 4 MiB, so that 16 executors stay within the 64 MiB
/// that an app may hold beyond its quota.
pub const WARM_UNITS_MAX: u64 = (4 << 20) / UNIT_BYTES;
/// What is populated at once for short extents: 64 KiB, 16 first touches in one system call.
pub const POPULATE_UNITS: u32 = ((64 << 10) / UNIT_BYTES) as u32;
/// What is punched at once at least, where there is so much: 256 KiB, since each punch interrupts
/// every core that has the pages mapped.
pub const PUNCH_UNITS: u32 = ((256 << 10) / UNIT_BYTES) as u32;

const fn whole_pages(bytes: usize) -> usize {
    bytes.div_ceil(PAGE_BYTES) * PAGE_BYTES
}

/// Bytes that a coloured ring of so many slots needs: its slots and a page to slide in.
const fn coloured(slots: usize) -> usize {
    whole_pages(slots * SLOT_BYTES) + PAGE_BYTES
}

/// Offsets in the `up` file: written by its executor.
pub mod up {
    use super::{PAGE_BYTES, PUBLISH_SLOTS, SLOT_BYTES, coloured};
    use crate::wire::ARGS_BYTES;

    /// `u64`: slots taken from the dispatch ring.
    pub const DISPATCH_CONSUMED: usize = 0;
    /// `u64`: slots taken from the release ring.
    pub const RELEASE_CONSUMED: usize = SLOT_BYTES;
    /// `u32`: what the executor sleeps for (`doorbell`).
    pub const ASLEEP: usize = 2 * SLOT_BYTES;
    /// `u64`: the invocation that the executor has offered, and who has it (`claim`); the scheduler
    /// writes it too.
    pub const CLAIM: usize = 3 * SLOT_BYTES;
    /// First byte of the publish ring, before colouring.
    pub const PUBLISH: usize = PAGE_BYTES;
    /// First byte of the area for long messages.
    pub const ARGS: usize = PUBLISH + coloured(PUBLISH_SLOTS);
    /// Bytes of the file.
    pub const BYTES: usize = ARGS + ARGS_BYTES;
}

/// Offsets in the `down` file: written by the scheduler, read-only in its executor.
pub mod down {
    use super::{DISPATCH_SLOTS, PAGE_BYTES, RELEASE_SLOTS, SLOT_BYTES, coloured};
    use crate::wire::ARGS_BYTES;

    /// `u64`: slots taken from the publish ring.
    pub const PUBLISH_CONSUMED: usize = 0;
    /// `u64`: bytes of credit ever granted to the process.
    pub const CREDIT: usize = SLOT_BYTES;
    /// `u32`: 1 while the executor may spin while idle.
    pub const SPIN: usize = 2 * SLOT_BYTES;
    /// `u32`: counts wakes; what the executor sleeps on.
    pub const WAKES: usize = 2 * SLOT_BYTES + 4;
    /// `u64`: the invocation that is cancelled, or 0.
    pub const CANCELLED: usize = 3 * SLOT_BYTES;
    /// `u64`: first of the invocations that the executor may start by itself, or 0 (`claim`).
    pub const GRANT: usize = 4 * SLOT_BYTES;
    /// First byte of the dispatch ring, before colouring.
    pub const DISPATCH: usize = PAGE_BYTES;
    /// First byte of the release ring, before colouring.
    pub const RELEASE: usize = DISPATCH + coloured(DISPATCH_SLOTS);
    /// First byte of the area for long messages.
    pub const ARGS: usize = RELEASE + coloured(RELEASE_SLOTS);
    /// Bytes of the file.
    pub const BYTES: usize = ARGS + ARGS_BYTES;
}

/// Offsets in the `node` page: written by its scheduler, read-only for everybody else.
pub mod node {
    /// `u32`: odd while the scheduler sleeps; what it sleeps on.
    pub const ASLEEP: usize = 0;
    /// `u32`: 1 while the scheduler never sleeps.
    pub const NEVER_SLEEPS: usize = 4;
    /// `u64`: counts turns of the scheduler's loop, those with work and some of the others. In a
    /// line of its own, since executors read the first.
    pub const TURNS: usize = super::SLOT_BYTES;
}

/// Offsets in the page that the node sleeps on.
pub mod rope {
    /// `u32`: whether the node sleeps (`doorbell`); written by the node alone.
    pub const ASLEEP: usize = 0;
    /// `u32`: counts wakes; what the node sleeps on; written by whoever wakes it.
    pub const WAKES: usize = 4;
}

/// Offsets in a half of a link's file. Each end writes one half; the node's is the first, and of
/// two schedulers that of the one with the lower index.
pub mod link {
    use super::{LINK_ARGS_BYTES, LINK_SLOTS, PAGE_BYTES, PEER_ARGS_BYTES, PEER_SLOTS, SLOT_BYTES};

    /// `u64`: slots that this end has taken from the other's ring.
    pub const CONSUMED: usize = 0;
    /// This end's ring.
    pub const RING: usize = PAGE_BYTES;

    /// What the rest depends on.
    #[derive(Clone, Copy, Debug)]
    pub struct Shape {
        /// Slots of the ring.
        pub slots: usize,
        /// Bytes of the area for long messages.
        pub args_bytes: usize,
    }

    /// Of a link between node and scheduler.
    pub const NODE: Shape = Shape {
        slots: LINK_SLOTS,
        args_bytes: LINK_ARGS_BYTES,
    };
    /// Of a link between two schedulers.
    pub const PEER: Shape = Shape {
        slots: PEER_SLOTS,
        args_bytes: PEER_ARGS_BYTES,
    };

    impl Shape {
        /// This end's area for long messages.
        pub const fn args(self) -> usize {
            RING + self.slots * SLOT_BYTES
        }

        /// Bytes of one half.
        pub const fn half_bytes(self) -> usize {
            self.args() + self.args_bytes
        }

        /// Bytes of the file.
        pub const fn bytes(self) -> usize {
            2 * self.half_bytes()
        }
    }
}

// The longest object that a message names fits a message of slots: its head, names, padding.
const _: () = assert!(8 + INPUT_BYTES_MAX <= INLINE_BYTES_MAX);
const _: () = assert!(40 + KEY_BYTES_MAX + GROUP_BYTES_MAX <= INLINE_BYTES_MAX);
const _: () = assert!(24 + CONTENT_TYPE_BYTES_MAX <= INLINE_BYTES_MAX);
// The longest failure message fits an args area.
const _: () = assert!(16 + MESSAGE_BYTES_MAX <= ARGS_BYTES);
// A ring whose producer sleeps for room has more than half of its slots taken (`doorbell`).
const _: () = assert!(PUBLISH_SLOTS >= 4 * MESSAGE_SLOTS_MAX);
const _: () = assert!(DISPATCH_SLOTS >= 5 * MESSAGE_SLOTS_MAX);
// Slots are found by masking.
const _: () = assert!(PUBLISH_SLOTS.is_power_of_two() && DISPATCH_SLOTS.is_power_of_two());
const _: () = assert!(RELEASE_SLOTS.is_power_of_two() && LINK_SLOTS.is_power_of_two());
const _: () = assert!(PEER_SLOTS.is_power_of_two());
// Words are moved as they are; the bytes of messages are little-endian.
const _: () = assert!(cfg!(target_endian = "little"));
