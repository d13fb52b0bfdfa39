//! The way between node and scheduler: byte messages both ways through one file.
//!
//! Both ends are ours and trusted, but a message is still copied and checked like any other. Each
//! end writes one half of the file. The scheduler sleeps on its `node` page alone, so the node's
//! end is given its rope; the node sleeps on a word of its own half.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::control::Garbled;
use crate::doorbell::{self, BellRope, Waker};
use crate::file::create_sealed;
use crate::limits::{LINK_ARGS_BYTES, LINK_SLOTS, link};
use crate::mapping::{Area, MappedSlots, Mapping};
use crate::ring::{Consumer, Producer, RingFull, SlotData};
use crate::sync::Ordering;
use crate::wire::{INLINE_BYTES_MAX, MESSAGE_SLOTS_MAX, SLOT_DATA_BYTES};

/// Bytes of a message's head: in area or not, and its length.
const HEAD_BYTES: usize = 8;
const INLINE: u64 = 1;
const IN_AREA: u64 = 2;
/// Longest message, bytes.
pub const LINK_MESSAGE_BYTES_MAX: usize = LINK_ARGS_BYTES;
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
        create_sealed("pheromone:link", 2 * link::HALF_BYTES as u64)
    }

    /// The node's end. `bell` is the scheduler's `node` page.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn node_end(file: BorrowedFd<'_>, bell: BellRope) -> io::Result<LinkEnd> {
        LinkEnd::map(file, 0, link::HALF_BYTES, Some(bell))
    }

    /// The scheduler's end.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn scheduler_end(file: BorrowedFd<'_>) -> io::Result<LinkEnd> {
        LinkEnd::map(file, link::HALF_BYTES, 0, None)
    }
}

/// One end of a link.
#[derive(Debug)]
pub struct LinkEnd {
    mapping: Arc<Mapping>,
    mine: usize,
    theirs: usize,
    outgoing: Producer<MappedSlots>,
    incoming: Consumer<MappedSlots>,
    my_area: Area,
    their_area: Area,
    area_taken_until: u64,
    bell: Option<BellRope>,
    waker: Waker,
}

impl LinkEnd {
    fn map(
        file: BorrowedFd<'_>,
        mine: usize,
        theirs: usize,
        bell: Option<BellRope>,
    ) -> io::Result<Self> {
        let mapping = Arc::new(Mapping::writable(file)?);
        Ok(Self {
            outgoing: Producer::new(mapping.slots(mine + link::RING, LINK_SLOTS), GENERATION),
            incoming: Consumer::new(mapping.slots(theirs + link::RING, LINK_SLOTS), GENERATION),
            my_area: mapping.area(mine + link::ARGS, LINK_ARGS_BYTES),
            their_area: mapping.area(theirs + link::ARGS, LINK_ARGS_BYTES),
            mapping,
            mine,
            theirs,
            area_taken_until: 0,
            bell,
            waker: Waker::default(),
        })
    }

    /// Puts a message into the link. Does not wake.
    ///
    /// # Errors
    /// [`RingFull`]: no room in the ring, or another long message is still under way.
    ///
    /// # Panics
    /// If it has more than [`LINK_MESSAGE_BYTES_MAX`] bytes: callers split.
    pub fn try_send(&mut self, bytes: &[u8]) -> Result<(), RingFull> {
        let consumed = self.mapping.word(self.theirs + link::CONSUMED);
        let len = bytes.len() as u64;
        let mut slots = [[0_u64; 7]; MESSAGE_SLOTS_MAX];
        if HEAD_BYTES + bytes.len() <= INLINE_BYTES_MAX {
            let mut padded = [0_u8; INLINE_BYTES_MAX];
            padded[HEAD_BYTES..HEAD_BYTES + bytes.len()].copy_from_slice(bytes);
            let count = (HEAD_BYTES + bytes.len()).div_ceil(SLOT_DATA_BYTES);
            let words = padded.as_chunks::<8>().0;
            for (word, bytes) in slots.as_flattened_mut()[..count * 7].iter_mut().zip(words) {
                *word = u64::from_le_bytes(*bytes);
            }
            slots[0][0] = INLINE | len << 32;
            return self.outgoing.push(&slots[..count], consumed);
        }
        if consumed.load(Ordering::Acquire) < self.area_taken_until
            || !self.outgoing.has_room(1, consumed)
        {
            return Err(RingFull);
        }
        self.my_area.write(bytes);
        let head: SlotData = [IN_AREA | len << 32, 0, 0, 0, 0, 0, 0];
        self.outgoing.push(&[head], consumed)?;
        self.area_taken_until = self.outgoing.position();
        Ok(())
    }

    /// Whether the other end has said something: one load.
    #[inline]
    pub fn has_message(&self) -> bool {
        self.incoming.has_message()
    }

    /// Takes the next message into `into`. False: there was none.
    ///
    /// # Errors
    /// [`Garbled`]: a bug at the other end.
    pub fn receive(&mut self, into: &mut Vec<u8>) -> Result<bool, Garbled> {
        let mut slots = [[0_u64; 7]; MESSAGE_SLOTS_MAX];
        let count = self.incoming.pop(&mut slots)?;
        if count == 0 {
            return Ok(false);
        }
        let head = slots[0][0];
        let len = (head >> 32) as usize;
        if head & 0xff == IN_AREA {
            if !self.their_area.read(len, into) {
                return Err(Garbled::Spill((head >> 32) as u32));
            }
        } else {
            into.clear();
            for word in &slots.as_flattened()[1..count * 7] {
                into.extend_from_slice(&word.to_le_bytes());
            }
            into.truncate(len);
        }
        self.incoming
            .publish_index(self.mapping.word(self.mine + link::CONSUMED));
        Ok(true)
    }

    /// Wakes the other end if it sleeps, after something was sent.
    pub fn wake_peer_if_asleep(&self) {
        match &self.bell {
            Some(bell) => bell.ring_if_asleep(),
            None => self
                .waker
                .wake(self.mapping.futex_word(self.theirs + link::IDLE_WORD)),
        }
    }

    /// Sleeps on this end's word until woken (by the other end, or by a [`LinkRope`]), unless
    /// `rescan` or the link has something. For the node's end.
    pub fn sleep(&self, mut rescan: impl FnMut() -> bool, timeout: Option<Duration>) -> bool {
        let word = self.mapping.futex_word(self.mine + link::IDLE_WORD);
        doorbell::sleep(word, || self.has_message() || rescan(), timeout)
    }

    /// A handle by which other threads of this process wake this end's sleeper.
    pub fn rope(&self) -> LinkRope {
        let word = self.mine + link::IDLE_WORD;
        LinkRope {
            mapping: Arc::clone(&self.mapping),
            word,
            waker: Arc::new(Waker::default()),
        }
    }
}

/// Wakes the sleeper of one end from other threads of its process.
#[derive(Clone, Debug)]
pub struct LinkRope {
    mapping: Arc<Mapping>,
    word: usize,
    waker: Arc<Waker>,
}

impl LinkRope {
    /// Wakes it if it sleeps, after something was put where it looks.
    pub fn ring_if_asleep(&self) {
        self.waker.wake(self.mapping.futex_word(self.word));
    }
}
