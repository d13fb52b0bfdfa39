//! The memory between driver and responder: a ring in each direction, as the real ones are, and
//! nothing else.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use anyhow::Result;
use pheromone_shm::file::create_sealed;
use pheromone_shm::limits::{DISPATCH_SLOTS, PAGE_BYTES, PUBLISH_SLOTS};
use pheromone_shm::mapping::{MappedSlots, Mapping};
use pheromone_shm::ring::{Consumer, Producer, SLOT_BYTES, SlotData};
use pheromone_shm::wire::MESSAGE_SLOTS_MAX;

/// Consumer index of the responder, on a page that it alone writes.
const UP_CONSUMED: usize = 0;
/// Ring to the driver.
const DOWN_RING: usize = PAGE_BYTES;
/// Consumer index of the driver, on a page that it alone writes.
const DOWN_CONSUMED: usize = DOWN_RING + DISPATCH_SLOTS * SLOT_BYTES;
/// Ring to the responder.
const UP_RING: usize = DOWN_CONSUMED + PAGE_BYTES;
/// Bytes of the file.
const BYTES: usize = UP_RING + PUBLISH_SLOTS * SLOT_BYTES;
/// The file carries one measurement.
const GENERATION: u32 = 1;

/// A new file for one measurement.
///
/// # Errors
/// What the kernel says.
pub fn create() -> io::Result<OwnedFd> {
    create_sealed("pheromone:floor", BYTES as u64)
}

/// One end of the line.
#[derive(Debug)]
pub struct End {
    sends: Producer<MappedSlots>,
    receives: Consumer<MappedSlots>,
    mapping: Arc<Mapping>,
    /// Where the other side says what it has taken.
    their_index: usize,
    /// Where this side does.
    own_index: usize,
    buffer: [SlotData; MESSAGE_SLOTS_MAX],
}

impl End {
    /// The driver's.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn driver(file: BorrowedFd<'_>) -> io::Result<Self> {
        let mapping = Arc::new(Mapping::writable(file)?);
        let sends = Producer::new(mapping.slots(UP_RING, PUBLISH_SLOTS), GENERATION);
        let receives = Consumer::new(mapping.slots(DOWN_RING, DISPATCH_SLOTS), GENERATION);
        Ok(Self::new(
            sends,
            receives,
            mapping,
            UP_CONSUMED,
            DOWN_CONSUMED,
        ))
    }

    /// The responder's.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn responder(file: BorrowedFd<'_>) -> io::Result<Self> {
        let mapping = Arc::new(Mapping::writable(file)?);
        let sends = Producer::new(mapping.slots(DOWN_RING, DISPATCH_SLOTS), GENERATION);
        let receives = Consumer::new(mapping.slots(UP_RING, PUBLISH_SLOTS), GENERATION);
        Ok(Self::new(
            sends,
            receives,
            mapping,
            DOWN_CONSUMED,
            UP_CONSUMED,
        ))
    }

    fn new(
        sends: Producer<MappedSlots>,
        receives: Consumer<MappedSlots>,
        mapping: Arc<Mapping>,
        their_index: usize,
        own_index: usize,
    ) -> Self {
        let buffer = [[0; 7]; MESSAGE_SLOTS_MAX];
        Self {
            sends,
            receives,
            mapping,
            their_index,
            own_index,
            buffer,
        }
    }

    /// Sends one slot.
    ///
    /// # Errors
    /// The ring is full, which one message at a time never makes it.
    #[inline]
    pub fn send(&mut self, slot: SlotData) -> Result<()> {
        self.sends
            .push(&[slot], self.mapping.word(self.their_index))?;
        Ok(())
    }

    /// The next slot, if it is there.
    ///
    /// # Errors
    /// The other side broke its ring.
    #[inline]
    pub fn receive(&mut self) -> Result<Option<SlotData>> {
        if self.receives.pop(&mut self.buffer)? == 0 {
            return Ok(None);
        }
        self.receives
            .publish_index(self.mapping.word(self.own_index));
        Ok(Some(self.buffer[0]))
    }
}
