//! The ways between node and schedulers, and between schedulers: byte messages both ways through
//! one file.
//!
//! Both ends are ours and trusted, but a message is still copied and its length checked. Each end
//! writes one half of the file. A scheduler sleeps on its `node` page alone, so whoever sends to it
//! is given its rope; the node has links to several and sleeps on a page of its own.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::control::Garbled;
use crate::doorbell::{self, ASLEEP_IDLE, BellRope, Sound};
use crate::file::create_sealed;
use crate::limits::link::{CONSUMED, NODE, PEER, RING, Shape};
use crate::limits::{LINK_ARGS_BYTES, PEER_ARGS_BYTES, ROPE_BYTES, rope};
use crate::mapping::{Area, MappedSlots, Mapping, Shared};
use crate::ring::{Consumer, Producer, RingFull};
use crate::sync::{AtomicU32, AtomicU64, FutexWord};
use crate::wire::{INLINE_BYTES_MAX, SLOT_DATA_BYTES, Slots};

/// Longest message between node and scheduler, bytes.
pub const LINK_MESSAGE_BYTES_MAX: usize = LINK_ARGS_BYTES;
/// Longest message between two schedulers, bytes.
pub const PEER_MESSAGE_BYTES_MAX: usize = PEER_ARGS_BYTES;
/// Bytes of a message's head: in the area or not, the ring's byte, two zeros, its length.
const HEAD_BYTES: usize = 8;
const INLINE: u8 = 1;
const IN_AREA: u8 = 2;
/// No message is that old; rings of a link are made once.
const GENERATION: u32 = 1;

/// Makes files and their ends.
#[derive(Debug)]
pub struct Link;

impl Link {
    /// Creates the file of a link between node and scheduler.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn create() -> io::Result<OwnedFd> {
        create_sealed("pheromone:link", NODE.bytes() as u64)
    }

    /// Creates the file of a link between two schedulers.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn create_between_schedulers() -> io::Result<OwnedFd> {
        create_sealed("pheromone:peers", PEER.bytes() as u64)
    }

    /// The node's end. `bell` is the scheduler's `node` page. There is one such end.
    ///
    /// # Errors
    /// A file that is too short (`InvalidInput`), or what the kernel says.
    pub fn node_end(file: BorrowedFd<'_>, bell: BellRope) -> io::Result<LinkEnd> {
        LinkEnd::map(file, NODE, Half::First, FarEnd::Scheduler(bell))
    }

    /// The scheduler's end. `rope` wakes the node. There is one such end.
    ///
    /// # Errors
    /// A file that is too short (`InvalidInput`), or what the kernel says.
    pub fn scheduler_end(file: BorrowedFd<'_>, rope: NodeRope) -> io::Result<LinkEnd> {
        LinkEnd::map(file, NODE, Half::Second, FarEnd::Node(rope))
    }

    /// A scheduler's end of its link to another; `bell` is the other's `node` page. The one with
    /// the lower index has the first half.
    ///
    /// # Errors
    /// A file that is too short (`InvalidInput`), or what the kernel says.
    pub fn peer_end(file: BorrowedFd<'_>, half: Half, bell: BellRope) -> io::Result<LinkEnd> {
        LinkEnd::map(file, PEER, half, FarEnd::Scheduler(bell))
    }
}

/// Which half of a link's file an end writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// The first.
    First,
    /// The second.
    Second,
}

/// Who is to be woken.
#[derive(Debug)]
enum FarEnd {
    Node(NodeRope),
    Scheduler(BellRope),
}

/// One end of a link.
#[derive(Debug)]
pub struct LinkEnd {
    outgoing: Producer<MappedSlots>,
    incoming: Consumer<MappedSlots>,
    my_consumed: Shared<AtomicU64>,
    their_consumed: Shared<AtomicU64>,
    my_area: Area,
    their_area: Area,
    message_bytes_max: usize,
    area_taken_until: u64,
    far_end: FarEnd,
    out: Box<Slots>,
    buffer: Box<Slots>,
}

impl LinkEnd {
    fn map(file: BorrowedFd<'_>, shape: Shape, half: Half, far_end: FarEnd) -> io::Result<Self> {
        let mapping = Mapping::writable_of(file, shape.bytes())?;
        let (mine, theirs) = match half {
            Half::First => (0, shape.half_bytes()),
            Half::Second => (shape.half_bytes(), 0),
        };
        mapping.populate(mine, shape.args(), true);
        mapping.populate(theirs, shape.args(), true);
        let (slots, args_bytes) = (shape.slots, shape.args_bytes);
        Ok(Self {
            outgoing: Producer::new(mapping.slots(mine + RING, slots), GENERATION),
            incoming: Consumer::new(mapping.slots(theirs + RING, slots), GENERATION),
            my_consumed: mapping.place(mine + CONSUMED, 1),
            their_consumed: mapping.place(theirs + CONSUMED, 1),
            my_area: mapping.area(mine + shape.args(), args_bytes),
            their_area: mapping.area(theirs + shape.args(), args_bytes),
            message_bytes_max: args_bytes,
            area_taken_until: 0,
            far_end,
            out: Slots::new(),
            buffer: Slots::new(),
        })
    }

    /// Puts a message into the link. Does not wake.
    ///
    /// # Errors
    /// [`RingFull`]: no room in the ring, or another message of over 552 bytes is still under way.
    ///
    /// # Panics
    /// If it has more bytes than a message of such a link may have: callers split.
    pub fn try_send(&mut self, bytes: &[u8]) -> Result<(), RingFull> {
        let (len, consumed) = (bytes.len(), &self.their_consumed[0]);
        assert!(
            len <= self.message_bytes_max,
            "a message of {len} bytes over the link"
        );
        if HEAD_BYTES + len <= INLINE_BYTES_MAX {
            let out = self.out.bytes_mut();
            out[..HEAD_BYTES].copy_from_slice(&head(INLINE, len));
            out[HEAD_BYTES..HEAD_BYTES + len].copy_from_slice(bytes);
            return self
                .outgoing
                .push(self.out.of_len(HEAD_BYTES + len), consumed);
        }
        if !self.outgoing.is_consumed(self.area_taken_until, consumed)
            || !self.outgoing.has_room(1, consumed)
        {
            return Err(RingFull);
        }
        self.my_area.write(0, bytes);
        self.out.bytes_mut()[..HEAD_BYTES].copy_from_slice(&head(IN_AREA, len));
        self.outgoing.push(self.out.of_len(HEAD_BYTES), consumed)?;
        self.area_taken_until = self.outgoing.position();
        Ok(())
    }

    /// Whether the other end has said something: one load.
    #[inline(always)]
    pub fn has_message(&self) -> bool {
        self.incoming.has_message()
    }

    /// Takes the next message into `into`, replacing what is there. False: there was none.
    ///
    /// # Errors
    /// [`Garbled`]: a bug at the other end.
    pub fn receive(&mut self, into: &mut Vec<u8>) -> Result<bool, Garbled> {
        let count = self.incoming.pop(&mut self.buffer.0)?;
        if count == 0 {
            return Ok(false);
        }
        let (head, inline) = self.buffer.bytes()[..count * SLOT_DATA_BYTES].split_at(HEAD_BYTES);
        let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        match (head[0], inline.get(..len)) {
            (INLINE, Some(bytes)) => {
                into.clear();
                into.extend_from_slice(bytes);
            }
            (IN_AREA, _) if self.their_area.read(len, into) => {}
            (INLINE | IN_AREA, _) => return Err(Garbled::Spill(len as u64)),
            (kind, _) => return Err(Garbled::Kind(kind)),
        }
        self.incoming.publish_index(&self.my_consumed[0]);
        Ok(true)
    }

    /// Wakes the other end if it sleeps, after something was sent.
    pub fn wake_peer_if_asleep(&self) {
        match &self.far_end {
            FarEnd::Node(rope) => rope.ring_if_asleep(),
            FarEnd::Scheduler(bell) => bell.ring_if_asleep(),
        }
    }
}

/// A message's head. Lengths fit: the longest is 1 MiB.
fn head(kind: u8, len: usize) -> [u8; HEAD_BYTES] {
    let [a, b, c, d] = (len as u32).to_le_bytes();
    [kind, 0, 0, 0, a, b, c, d]
}

/// The words that the node sleeps on: for its schedulers, and for other threads of its own.
#[derive(Clone, Debug)]
pub struct NodeRope {
    asleep: Shared<AtomicU32>,
    wakes: Shared<FutexWord>,
}

impl NodeRope {
    /// Creates the page.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn create() -> io::Result<OwnedFd> {
        create_sealed("pheromone:rope", ROPE_BYTES)
    }

    /// Maps the page.
    ///
    /// # Errors
    /// A file that is too short (`InvalidInput`), or what the kernel says.
    pub fn map(file: BorrowedFd<'_>) -> io::Result<Self> {
        let page = Mapping::writable_of(file, ROPE_BYTES as usize)?;
        page.populate(0, ROPE_BYTES as usize, true);
        Ok(Self {
            asleep: page.place(rope::ASLEEP, 1),
            wakes: page.place(rope::WAKES, 1),
        })
    }

    /// Wakes the node if it sleeps, after something was put where it looks.
    pub fn ring_if_asleep(&self) {
        doorbell::wake_if_asleep::<Sound>(&self.asleep[0], &self.wakes[0], None);
    }

    /// Sleeps until woken or `timeout` has passed; not at all if `rescan` finds something. False
    /// only when the time was over; true may come without news. For the one thread that sleeps.
    pub fn sleep(&self, rescan: impl FnOnce() -> bool, timeout: Option<Duration>) -> bool {
        let (asleep, wakes) = (&self.asleep[0], &self.wakes[0]);
        doorbell::sleep::<Sound>(asleep, wakes, ASLEEP_IDLE, rescan, timeout)
    }
}
