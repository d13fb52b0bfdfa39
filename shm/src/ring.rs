//! Single-producer, single-consumer rings of 64-byte slots: the lock-free heart.
//!
//! A slot is one cache line: a sequence word and 56 bytes of data, so that a short message costs
//! one line. A message is 1 to 10 consecutive slots; its first slot's sequence is stored last, with
//! release, so that a consumer who sees it sees the whole message, and a producer that dies
//! half-way has said nothing.
//!
//! The other side may be hostile. Own indices are private and only published; the peer's is
//! range-checked when read. A slot is copied by relaxed atomic loads, its sequence is checked again
//! afterwards, and only the copy is used. No reference to a plain type ever points into a slot.
//!
//! The layout (sequence and data in one line, indices kept by their owners) follows the rings of
//! FastForward (Giacomoni et al., PPoPP 2008) and LMAX's Disruptor.

use std::marker::PhantomData;
use std::ops::{Deref, Range};

use crate::sync::{AtomicU64, Ordering, fence};
use crate::wire::{MESSAGE_SLOTS_MAX, SLOT_DATA_BYTES};

/// 64-bit words of a slot: the sequence, then the data.
pub const SLOT_WORDS: usize = 8;
/// Data words of a slot.
pub const SLOT_DATA_WORDS: usize = SLOT_WORDS - 1;
/// Bytes of a slot.
pub const SLOT_BYTES: usize = 64;

const _: () = assert!(SLOT_DATA_WORDS * 8 == SLOT_DATA_BYTES);

/// One slot in shared memory.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Slot {
    words: [AtomicU64; SLOT_WORDS],
}

/// One message in private memory: its slots' data words.
pub type SlotData = [u64; SLOT_DATA_WORDS];

/// No room for the message now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ring is full: its reader has not taken what was sent before")]
pub struct RingFull;

/// The peer wrote what no honest producer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingFault {
    /// A slot changed while it was being read, after it had been published.
    #[error("a published slot changed while it was being read")]
    ChangedWhileRead,
    /// A message says that it has 0 or more than ten slots.
    #[error("a message claims {0} slots; messages have 1 to 10")]
    SlotCount(u8),
    /// The first slot is there, a later one is not.
    #[error("slot {0} of a published message is missing")]
    MissingSlot(usize),
}

/// The memory orderings of a ring. There is one sound set; tests weaken it on purpose to show that
/// the models would find it.
pub trait Orders {
    /// Of the store that publishes a message.
    const PUBLISH: Ordering;
    /// Of the load that takes it.
    const TAKE: Ordering;
    /// Of the load of the consumer's index, before its slots are used again.
    const REUSE: Ordering;
}

/// The orderings that are right.
#[derive(Debug)]
pub struct Sound;

impl Orders for Sound {
    const PUBLISH: Ordering = Ordering::Release;
    const TAKE: Ordering = Ordering::Acquire;
    const REUSE: Ordering = Ordering::Acquire;
}

/// The sequence of the first slot, from which they count up, mixed with the ring's generation so
/// that memory used for an earlier ring cannot show an old message (2^64 / golden ratio: no two
/// generations are near each other).
fn first_sequence(generation: u32) -> u64 {
    u64::from(generation)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(1)
}

/// The first word of a message that has so many slots.
#[inline(always)]
fn with_count(first: u64, slots: usize) -> u64 {
    first & !0xff00 | (slots as u64) << 8
}

/// The writing end. `S` is the slots' memory; its length is a power of two.
#[derive(Debug)]
pub struct Producer<S, O = Sound> {
    slots: S,
    first_sequence: u64,
    position: u64,
    /// The consumer's index as last read: it only grows, so an old one is safe.
    consumed: u64,
    orders: PhantomData<O>,
}

impl<S: Deref<Target = [Slot]>, O: Orders> Producer<S, O> {
    /// The writing end of a ring that has carried nothing in this generation.
    ///
    /// # Panics
    /// If the number of slots is no power of two of at least ten.
    pub fn new(slots: S, generation: u32) -> Self {
        assert!(slots.len().is_power_of_two() && slots.len() >= MIN_SLOTS);
        Self {
            slots,
            first_sequence: first_sequence(generation),
            position: 0,
            consumed: 0,
            orders: PhantomData,
        }
    }

    /// Whether `count` slots are free now.
    #[inline(always)]
    pub fn has_room(&mut self, count: usize, consumer_index: &AtomicU64) -> bool {
        if self.is_known_free(count) {
            return true;
        }
        self.look(consumer_index);
        self.is_known_free(count)
    }

    /// Whether `count` slots are free as far as has been read.
    #[inline(always)]
    pub fn is_known_free(&self, count: usize) -> bool {
        self.position + count as u64 - self.consumed <= self.slots.len() as u64
    }

    /// Whether the consumer has taken everything before this position.
    pub fn is_consumed(&mut self, position: u64, consumer_index: &AtomicU64) -> bool {
        if self.consumed < position {
            self.look(consumer_index);
        }
        self.consumed >= position
    }

    /// Reads the consumer's index. A lying consumer can make us wait or overwrite what it has not
    /// read: its own loss. It cannot make us leave the ring.
    #[inline(never)]
    fn look(&mut self, consumer_index: &AtomicU64) -> u64 {
        let consumed = consumer_index.load(O::REUSE);
        if (self.consumed..=self.position).contains(&consumed) {
            self.consumed = consumed;
        }
        self.consumed
    }

    /// Writes one slot whose seven words are all the caller's, for rings that carry nothing else.
    ///
    /// # Errors
    /// [`RingFull`]; nothing has been written.
    #[inline(always)]
    pub fn push_plain(
        &mut self,
        data: &SlotData,
        consumer_index: &AtomicU64,
    ) -> Result<(), RingFull> {
        if !self.has_room(1, consumer_index) {
            return Err(RingFull);
        }
        self.write(0, data, O::PUBLISH);
        self.position += 1;
        Ok(())
    }

    /// Writes one message of one slot (the ring writes that count into byte 1 of the message).
    ///
    /// # Errors
    /// [`RingFull`]; nothing has been written.
    #[inline(always)]
    pub fn push_one(&mut self, data: SlotData, consumer_index: &AtomicU64) -> Result<(), RingFull> {
        if !self.has_room(1, consumer_index) {
            return Err(RingFull);
        }
        self.put_one(data);
        Ok(())
    }

    /// As [`Producer::push_one`], where a slot [is free](Producer::is_known_free): otherwise it
    /// overwrites what has not been read.
    #[inline(always)]
    pub fn put_one(&mut self, mut data: SlotData) {
        debug_assert!(self.is_known_free(1));
        data[0] = with_count(data[0], 1);
        self.write(0, &data, O::PUBLISH);
        self.position += 1;
    }

    /// Writes one message of `data.len()` slots (1 to 10; the ring writes that count into byte 1 of
    /// the message). All of it becomes visible at once.
    ///
    /// # Errors
    /// [`RingFull`]; nothing has been written.
    ///
    /// # Panics
    /// On a message of no slots.
    #[inline]
    pub fn push(&mut self, data: &[SlotData], consumer_index: &AtomicU64) -> Result<(), RingFull> {
        debug_assert!((1..=MESSAGE_SLOTS_MAX).contains(&data.len()));
        if !self.has_room(data.len(), consumer_index) {
            return Err(RingFull);
        }
        for (at, words) in data.iter().enumerate().skip(1) {
            self.write(at, words, Ordering::Relaxed);
        }
        let mut first = data[0];
        first[0] = with_count(first[0], data.len());
        self.write(0, &first, O::PUBLISH);
        self.position += data.len() as u64;
        Ok(())
    }

    #[inline(always)]
    fn write(&self, ahead: usize, words: &SlotData, publish: Ordering) {
        let position = self.position + ahead as u64;
        let slot = &self.slots[(position as usize) & (self.slots.len() - 1)];
        for (word, value) in slot.words[1..].iter().zip(words) {
            word.store(*value, Ordering::Relaxed);
        }
        slot.words[0].store(self.first_sequence.wrapping_add(position), publish);
    }

    /// Slots written so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Takes back what a consumer that [claims](Consumer::claim_plain) has not taken: the positions
    /// of slots that are nobody else's from now on, to be read by [`Producer::written`]. None where
    /// the consumer takes some in this moment, or lies about how much it has taken.
    pub fn withdraw(&mut self, consumer_index: &AtomicU64) -> Range<u64> {
        let end = self.position;
        let first = consumer_index.load(Ordering::Relaxed);
        if first >= end || end - first > self.slots.len() as u64 {
            return end..end;
        }
        // Whoever moves the index owns the slots that it has moved over.
        let moved =
            consumer_index.compare_exchange(first, end, Ordering::AcqRel, Ordering::Relaxed);
        if moved.is_ok() { first..end } else { end..end }
    }

    /// The data of a slot written before, one of the last that the ring has room for. It is
    /// whatever is there now: only of use where nobody else can write.
    pub fn written(&self, position: u64) -> SlotData {
        let slot = &self.slots[(position as usize) & (self.slots.len() - 1)];
        std::array::from_fn(|at| slot.words[1 + at].load(Ordering::Relaxed))
    }
}

/// The reading end.
#[derive(Debug)]
pub struct Consumer<S, O = Sound> {
    slots: S,
    first_sequence: u64,
    position: u64,
    orders: PhantomData<O>,
}

impl<S: Deref<Target = [Slot]>, O: Orders> Consumer<S, O> {
    /// The reading end of a ring from which nothing has been taken in this generation.
    ///
    /// # Panics
    /// If the number of slots is no power of two of at least ten.
    pub fn new(slots: S, generation: u32) -> Self {
        assert!(slots.len().is_power_of_two() && slots.len() >= MIN_SLOTS);
        Self {
            slots,
            first_sequence: first_sequence(generation),
            position: 0,
            orders: PhantomData,
        }
    }

    #[inline(always)]
    fn slot(&self, ahead: usize) -> (&Slot, u64) {
        let position = self.position + ahead as u64;
        let slot = &self.slots[(position as usize) & (self.slots.len() - 1)];
        (slot, self.first_sequence.wrapping_add(position))
    }

    /// Whether a message is there: one load.
    #[inline]
    pub fn has_message(&self) -> bool {
        let (slot, expected) = self.slot(0);
        slot.words[0].load(Ordering::Relaxed) == expected
    }

    /// Takes one message into `out`; its number of slots, or 0 where there is none.
    ///
    /// # Errors
    /// [`RingFault`]: the ring is of no use any more.
    #[inline]
    pub fn pop(&mut self, out: &mut [SlotData; MESSAGE_SLOTS_MAX]) -> Result<usize, RingFault> {
        let (slot, expected) = self.slot(0);
        if slot.words[0].load(O::TAKE) != expected {
            return Ok(0);
        }
        copy(slot, expected, &mut out[0])?;
        let count = (out[0][0] >> 8 & 0xff) as u8;
        if !(1..=MESSAGE_SLOTS_MAX).contains(&usize::from(count)) {
            return Err(RingFault::SlotCount(count));
        }
        for (at, out) in out.iter_mut().enumerate().take(usize::from(count)).skip(1) {
            let (slot, expected) = self.slot(at);
            if slot.words[0].load(Ordering::Relaxed) != expected {
                return Err(RingFault::MissingSlot(at));
            }
            copy(slot, expected, out)?;
        }
        self.position += u64::from(count);
        Ok(usize::from(count))
    }

    /// Takes the next message if it has one slot and that is one of those wanted. Anything else,
    /// right or wrong, is left for [`Consumer::pop`].
    #[inline(always)]
    pub fn pop_one_if(&mut self, wanted: impl FnOnce(&SlotData) -> bool) -> Option<SlotData> {
        let (slot, expected) = self.slot(0);
        if slot.words[0].load(O::TAKE) != expected {
            return None;
        }
        let mut out = [0; SLOT_DATA_WORDS];
        copy(slot, expected, &mut out).ok()?;
        if out[0] >> 8 & 0xff != 1 || !wanted(&out) {
            return None;
        }
        self.position += 1;
        Some(out)
    }

    /// Takes the next message if it has one slot and that can be read so. Anything else, right or
    /// wrong, is left for [`Consumer::pop`].
    #[inline(always)]
    pub fn pop_one_as<T>(&mut self, read: impl FnOnce(&SlotData) -> Option<T>) -> Option<T> {
        let mut message = None;
        self.pop_one_if(|slot| {
            message = read(slot);
            message.is_some()
        })?;
        message
    }

    /// Has the next slot fetched into this core's cache while something else is done. For who is
    /// going to look at it in any case: a slot that is fetched before it is written has to come
    /// twice, and its writer waits for it as well.
    #[inline(always)]
    pub fn prefetch(&self) {
        let (slot, _) = self.slot(0);
        prefetch(slot);
    }

    /// Takes one slot of a ring that carries nothing but plain slots. False where there is none,
    /// or what is there was changed while it was read.
    #[inline]
    pub fn pop_plain(&mut self, out: &mut SlotData) -> bool {
        let (slot, expected) = self.slot(0);
        if slot.words[0].load(O::TAKE) != expected || copy(slot, expected, out).is_err() {
            return false;
        }
        self.position += 1;
        true
    }

    /// Takes as many such slots as there are and `out` has room for, where the producer may
    /// [withdraw](Producer::withdraw) what has not been taken: they are this side's only if it is
    /// the one that moves the index over them. How many.
    #[inline]
    pub fn claim_plain(&mut self, out: &mut [SlotData], consumer_index: &AtomicU64) -> usize {
        loop {
            let first = self.position;
            let mut count = 0;
            while out.get_mut(count).is_some_and(|slot| self.pop_plain(slot)) {
                count += 1;
            }
            let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
            let moved = if count > 0 {
                consumer_index.compare_exchange(first, self.position, success, failure)
            } else {
                // Nothing is there, or it has been withdrawn and its slot used again.
                match consumer_index.load(failure) {
                    still if still == first => return 0,
                    moved_to => Err(moved_to),
                }
            };
            match moved {
                Ok(_) => return count,
                Err(moved_to) => self.position = moved_to,
            }
        }
    }

    /// Lets the producer use the slots taken so far again.
    #[inline]
    pub fn publish_index(&self, consumer_index: &AtomicU64) {
        consumer_index.store(self.position, Ordering::Release);
    }

    /// Slots taken so far.
    #[inline]
    pub fn position(&self) -> u64 {
        self.position
    }
}

/// Asks for a slot's cache line where the machine can be asked.
#[inline(always)]
fn prefetch(slot: &Slot) {
    #[cfg(all(target_arch = "x86_64", not(loom), not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint: it reads nothing as far as the program can tell, and never
        // faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(slot).cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(loom), not(miri))))]
    let _ = slot;
}

/// Copies a slot's data and makes sure that nobody changed it meanwhile.
#[inline]
fn copy(slot: &Slot, expected: u64, out: &mut SlotData) -> Result<(), RingFault> {
    for (value, word) in out.iter_mut().zip(&slot.words[1..]) {
        *value = word.load(Ordering::Relaxed);
    }
    fence(Ordering::Acquire);
    if slot.words[0].load(Ordering::Relaxed) != expected {
        return Err(RingFault::ChangedWhileRead);
    }
    Ok(())
}

/// A ring holds the longest message; loom's models are small and send short ones.
const MIN_SLOTS: usize = if cfg!(loom) { 1 } else { 16 };
