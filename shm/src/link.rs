//! The way between node and scheduler: byte messages both ways through one file.
//!
//! Both ends are ours and trusted, but a message is still copied and its length checked. Each end
//! writes one half of the file. The scheduler sleeps on its `node` page alone, so the node's end is
//! given its rope; the node sleeps on words of its own half.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::control::Garbled;
use crate::doorbell::{self, ASLEEP_IDLE, BellRope, Sound};
use crate::file::create_sealed;
use crate::limits::{LINK_ARGS_BYTES, LINK_SLOTS, link};
use crate::mapping::{Area, MappedSlots, Mapping, Shared};
use crate::ring::{Consumer, Producer, RingFull};
use crate::sync::{AtomicU32, AtomicU64, FutexWord};
use crate::wire::{INLINE_BYTES_MAX, SLOT_DATA_BYTES, Slots};

/// Longest message, bytes.
pub const LINK_MESSAGE_BYTES_MAX: usize = LINK_ARGS_BYTES;
/// Bytes of a message's head: in the area or not, the ring's byte, two zeros, its length.
const HEAD_BYTES: usize = 8;
const INLINE: u8 = 1;
const IN_AREA: u8 = 2;
/// No message is that old; rings of a link are made once.
const GENERATION: u32 = 1;

/// Makes the file and its ends.
#[derive(Debug)]
pub struct Link;

impl Link {
    /// Creates the file.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn create() -> io::Result<OwnedFd> {
        create_sealed("pheromone:link", link::BYTES as u64)
    }

    /// The node's end. `bell` is the scheduler's `node` page. There is one such end.
    ///
    /// # Errors
    /// A file that is too short (`InvalidInput`), or what the kernel says.
    pub fn node_end(file: BorrowedFd<'_>, bell: BellRope) -> io::Result<LinkEnd> {
        LinkEnd::map(file, 0, link::HALF_BYTES, Some(bell))
    }

    /// The scheduler's end. There is one such end.
    ///
    /// # Errors
    /// A file that is too short (`InvalidInput`), or what the kernel says.
    pub fn scheduler_end(file: BorrowedFd<'_>) -> io::Result<LinkEnd> {
        LinkEnd::map(file, link::HALF_BYTES, 0, None)
    }
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
    area_taken_until: u64,
    my_sleep: LinkRope,
    their_sleep: LinkRope,
    bell: Option<BellRope>,
    out: Box<Slots>,
    buffer: Box<Slots>,
}

impl LinkEnd {
    fn map(
        file: BorrowedFd<'_>,
        mine: usize,
        theirs: usize,
        bell: Option<BellRope>,
    ) -> io::Result<Self> {
        let mapping = Mapping::writable_of(file, link::BYTES)?;
        mapping.populate(mine, link::ARGS, true);
        mapping.populate(theirs, link::ARGS, true);
        let sleep = |half| LinkRope {
            asleep: mapping.place(half + link::ASLEEP, 1),
            wakes: mapping.place(half + link::WAKES, 1),
        };
        Ok(Self {
            outgoing: Producer::new(mapping.slots(mine + link::RING, LINK_SLOTS), GENERATION),
            incoming: Consumer::new(mapping.slots(theirs + link::RING, LINK_SLOTS), GENERATION),
            my_consumed: mapping.place(mine + link::CONSUMED, 1),
            their_consumed: mapping.place(theirs + link::CONSUMED, 1),
            my_area: mapping.area(mine + link::ARGS, LINK_ARGS_BYTES),
            their_area: mapping.area(theirs + link::ARGS, LINK_ARGS_BYTES),
            area_taken_until: 0,
            my_sleep: sleep(mine),
            their_sleep: sleep(theirs),
            bell,
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
    /// If it has more than [`LINK_MESSAGE_BYTES_MAX`] bytes: callers split.
    pub fn try_send(&mut self, bytes: &[u8]) -> Result<(), RingFull> {
        let (len, consumed) = (bytes.len(), &self.their_consumed[0]);
        assert!(
            len <= LINK_MESSAGE_BYTES_MAX,
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
        match &self.bell {
            Some(bell) => bell.ring_if_asleep(),
            None => self.their_sleep.ring_if_asleep(),
        }
    }

    /// Sleeps on this end's words until woken (by the other end, or by a [`LinkRope`]) or `timeout`
    /// has passed; not at all if `rescan` or the link has something. False only when the time was
    /// over; true may come without news. For the node's end.
    pub fn sleep(&self, mut rescan: impl FnMut() -> bool, timeout: Option<Duration>) -> bool {
        let rescan = || self.has_message() || rescan();
        let (asleep, wakes) = (&self.my_sleep.asleep[0], &self.my_sleep.wakes[0]);
        doorbell::sleep::<Sound>(asleep, wakes, ASLEEP_IDLE, rescan, timeout)
    }

    /// A handle by which other threads of this process wake this end's sleeper.
    pub fn rope(&self) -> LinkRope {
        self.my_sleep.clone()
    }
}

/// A message's head. Lengths fit: the longest is 1 MiB.
fn head(kind: u8, len: usize) -> [u8; HEAD_BYTES] {
    let [a, b, c, d] = (len as u32).to_le_bytes();
    [kind, 0, 0, 0, a, b, c, d]
}

/// Wakes the sleeper of one end from other threads of its process.
#[derive(Clone, Debug)]
pub struct LinkRope {
    asleep: Shared<AtomicU32>,
    wakes: Shared<FutexWord>,
}

impl LinkRope {
    /// Wakes it if it sleeps, after something was put where it looks.
    pub fn ring_if_asleep(&self) {
        doorbell::wake_if_asleep::<Sound>(&self.asleep[0], &self.wakes[0], None);
    }
}
