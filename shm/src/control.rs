//! The control memory of one executor process: its two ends.
//!
//! `up` is written by the executor (publish ring, consumer indices, sleep words), `down` by the
//! scheduler (dispatch and release rings, credit, permission to spin, cancel word) and mapped
//! read-only in the executor. No page has two writers. Nothing here knows what a message means.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::doorbell::{self, BellRope, Waker};
use crate::file::create_sealed;
use crate::limits::{
    COLOURS, DISPATCH_SLOTS, FULL_RING_POLLS, PUBLISH_SLOTS, RELEASE_SLOTS, RELEASES_PER_SLOT,
    down, up,
};
use crate::mapping::{Area, MappedSlots, Mapping};
use crate::message::{Dispatch, Extent, FromExecutor, Input, ToExecutor};
use crate::ring::{Consumer, Producer, RingFault, RingFull, SLOT_BYTES, SlotData};
use crate::sync::{AtomicU64, Ordering};
use crate::wire::{
    self, ARGS_BYTES, INLINE_BYTES_MAX, MESSAGE_SLOTS_MAX, Malformed, MessageBuffer,
    SLOT_DATA_BYTES, SPILLED,
};

/// Why what a peer wrote is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Garbled {
    /// Its ring is broken.
    #[error(transparent)]
    Ring(#[from] RingFault),
    /// Its bytes say nothing.
    #[error(transparent)]
    Message(#[from] Malformed),
    /// It claims more bytes than its area has.
    #[error("a long message claims {0} bytes, more than its area has")]
    Spill(u32),
}

/// The two files of one executor process.
#[derive(Debug)]
pub struct ControlFiles {
    /// Written by the executor.
    pub up: OwnedFd,
    /// Written by the scheduler.
    pub down: OwnedFd,
}

impl ControlFiles {
    /// Creates both, zero-filled and sealed.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn create(name: &str) -> io::Result<Self> {
        Ok(Self {
            up: create_sealed(&format!("{name}:up"), up::BYTES as u64)?,
            down: create_sealed(&format!("{name}:down"), down::BYTES as u64)?,
        })
    }
}

fn coloured(base: usize, colour: u16) -> usize {
    base + usize::from(colour) % COLOURS * SLOT_BYTES
}

/// Generations of a process's rings start at its incarnation; each ring has its own.
fn ring_generation(generation: u32, ring: u32) -> u32 {
    generation.wrapping_mul(4).wrapping_add(ring)
}

const PUBLISH_RING: u32 = 0;
const DISPATCH_RING: u32 = 1;
const RELEASE_RING: u32 = 2;

/// Bytes into slots; how many.
#[inline]
fn pack(bytes: &[u8], slots: &mut [SlotData; MESSAGE_SLOTS_MAX]) -> usize {
    let mut count = 0;
    for (slot, chunk) in slots.iter_mut().zip(bytes.chunks(SLOT_DATA_BYTES)) {
        let mut padded = [0_u8; SLOT_DATA_BYTES];
        padded[..chunk.len()].copy_from_slice(chunk);
        for (word, bytes) in slot.iter_mut().zip(padded.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        count += 1;
    }
    count
}

/// Slots into bytes.
#[inline]
fn unpack(slots: &[SlotData], bytes: &mut [u8; INLINE_BYTES_MAX]) -> usize {
    for (slot, out) in slots.iter().zip(bytes.as_chunks_mut::<SLOT_DATA_BYTES>().0) {
        for (word, out) in slot.iter().zip(out.as_chunks_mut::<8>().0) {
            *out = word.to_le_bytes();
        }
    }
    slots.len() * SLOT_DATA_BYTES
}

/// Takes one message out of a ring (and its area) into private memory. False: there was none.
#[inline]
fn take(
    ring: &mut Consumer<MappedSlots>,
    area: &Area,
    buffer: &mut MessageBuffer,
) -> Result<bool, Garbled> {
    let mut slots = [[0; 7]; MESSAGE_SLOTS_MAX];
    let count = ring.pop(&mut slots)?;
    if count == 0 {
        return Ok(false);
    }
    buffer.inline_len = unpack(&slots[..count], &mut buffer.inline);
    if buffer.inline[0] == SPILLED {
        let len = (slots[0][1] & u64::from(u32::MAX)) as u32;
        if !area.read(len as usize, &mut buffer.spill) {
            return Err(Garbled::Spill(len));
        }
    }
    Ok(true)
}

fn bytes_of(buffer: &MessageBuffer) -> &[u8] {
    if buffer.inline[0] == SPILLED {
        &buffer.spill
    } else {
        &buffer.inline[..buffer.inline_len]
    }
}

/// The slot that announces a message in the area.
fn spilled(len: usize) -> [SlotData; 1] {
    // An area has less than 2^32 bytes.
    [[u64::from(SPILLED), len as u64, 0, 0, 0, 0, 0]]
}

/// The scheduler's end.
#[derive(Debug)]
pub struct SchedulerEnd {
    publish: Consumer<MappedSlots>,
    dispatch: Producer<MappedSlots>,
    release: Producer<MappedSlots>,
    up: Arc<Mapping>,
    down: Arc<Mapping>,
    up_area: Area,
    down_area: Area,
    idle: Waker,
    full: Waker,
    /// The producer may be asleep on a full ring only if so much has been taken since last asked.
    ask_full_at: u64,
    releases: [Extent; RELEASES_PER_SLOT],
    releases_waiting: usize,
    scratch: Vec<u8>,
}

impl SchedulerEnd {
    /// Maps both files, `up` and `down`, read-write. `colour` spreads ring bases over cache sets,
    /// `generation` tells the rings of successive processes apart; both as in the executor.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn map(
        up_file: BorrowedFd<'_>,
        down_file: BorrowedFd<'_>,
        colour: u16,
        generation: u32,
    ) -> io::Result<Self> {
        let up = Arc::new(Mapping::writable(up_file)?);
        let down = Arc::new(Mapping::writable(down_file)?);
        let ring = |ring| ring_generation(generation, ring);
        let publish = up.slots(coloured(up::PUBLISH, colour), PUBLISH_SLOTS);
        let dispatch = down.slots(coloured(down::DISPATCH, colour), DISPATCH_SLOTS);
        let release = down.slots(coloured(down::RELEASE, colour), RELEASE_SLOTS);
        Ok(Self {
            publish: Consumer::new(publish, ring(PUBLISH_RING)),
            dispatch: Producer::new(dispatch, ring(DISPATCH_RING)),
            release: Producer::new(release, ring(RELEASE_RING)),
            up_area: up.area(up::ARGS, ARGS_BYTES),
            down_area: down.area(down::ARGS, ARGS_BYTES),
            up,
            down,
            idle: Waker::default(),
            full: Waker::default(),
            ask_full_at: PUBLISH_SLOTS as u64 / 2,
            releases: [Extent::default(); RELEASES_PER_SLOT],
            releases_waiting: 0,
            scratch: vec![0; ARGS_BYTES],
        })
    }

    /// Whether the executor has said something: one load.
    #[inline]
    pub fn has_message(&self) -> bool {
        self.publish.has_message()
    }

    /// Takes the executor's next message into `buffer`.
    ///
    /// # Errors
    /// [`Garbled`]: the executor wrote nonsense and its ring is of no use any more.
    #[inline]
    pub fn receive<'b>(
        &mut self,
        buffer: &'b mut MessageBuffer,
    ) -> Result<Option<FromExecutor<'b>>, Garbled> {
        if !take(&mut self.publish, &self.up_area, buffer)? {
            return Ok(None);
        }
        Ok(Some(wire::decode_from_executor(bytes_of(buffer))?))
    }

    /// Lets the executor use the slots again that have been taken, and wakes it if it slept for
    /// that. Call it once after a few messages.
    #[inline]
    pub fn publish_consumed(&mut self) {
        self.publish
            .publish_index(self.down.word(down::PUBLISH_CONSUMED));
        if self.publish.position() >= self.ask_full_at {
            self.ask_full_at = self.publish.position() + PUBLISH_SLOTS as u64 / 2;
            self.full.wake(self.up.futex_word(up::FULL_WORD));
        }
    }

    fn dispatch_consumed(up: &Mapping) -> &AtomicU64 {
        up.word(up::DISPATCH_CONSUMED)
    }

    fn push_scratch(&mut self, len: usize) -> Result<(), RingFull> {
        let consumed = Self::dispatch_consumed(&self.up);
        if len > INLINE_BYTES_MAX {
            // One long answer is under way at most: the executor asked for it and waits.
            if !self.dispatch.has_room(1, consumed) {
                return Err(RingFull);
            }
            self.down_area.write(&self.scratch[..len]);
            return self.dispatch.push(&spilled(len), consumed);
        }
        let mut slots = [[0; 7]; MESSAGE_SLOTS_MAX];
        let count = pack(&self.scratch[..len], &mut slots);
        self.dispatch.push(&slots[..count], consumed)
    }

    /// Puts a message into the dispatch ring. Does not wake.
    ///
    /// # Errors
    /// [`RingFull`], which an honest executor never causes: see
    /// [`DISPATCH_SLOTS`](crate::limits::DISPATCH_SLOTS).
    pub fn send(&mut self, message: &ToExecutor<'_>) -> Result<(), RingFull> {
        let len = wire::encode_to_executor(message, &mut self.scratch);
        self.push_scratch(len)
    }

    /// Puts a dispatch into the ring with as many of its inputs as fit ten slots. Does not wake.
    ///
    /// # Errors
    /// As [`SchedulerEnd::send`].
    #[inline]
    pub fn send_dispatch<'a>(
        &mut self,
        dispatch: &Dispatch<'a>,
        inputs: impl Iterator<Item = Input<'a>>,
    ) -> Result<(), RingFull> {
        let out = &mut self.scratch[..INLINE_BYTES_MAX];
        let len = wire::encode_dispatch(dispatch, inputs, out);
        self.push_scratch(len)
    }

    /// Answers `FetchInputs` with as many inputs as fit the area. Does not wake.
    ///
    /// # Errors
    /// As [`SchedulerEnd::send`].
    pub fn send_inputs<'a>(
        &mut self,
        first: u32,
        inputs: impl Iterator<Item = Input<'a>>,
    ) -> Result<(), RingFull> {
        let len = wire::encode_inputs(first, inputs, &mut self.scratch);
        self.push_scratch(len)
    }

    /// Answers `FetchExtents` with as many extents as fit the area. Does not wake.
    ///
    /// # Errors
    /// As [`SchedulerEnd::send`].
    pub fn send_extents(
        &mut self,
        first: u32,
        extents: impl Iterator<Item = Extent>,
    ) -> Result<(), RingFull> {
        let len = wire::encode_extents(first, extents, &mut self.scratch);
        self.push_scratch(len)
    }

    /// Gives an extent back to the executor's allocator, at the latest with the next
    /// [`flush_releases`](Self::flush_releases). False: no room; it is still the caller's.
    #[inline]
    pub fn release(&mut self, extent: Extent) -> bool {
        if self.releases_waiting == RELEASES_PER_SLOT && !self.push_releases() {
            return false;
        }
        self.releases[self.releases_waiting] = extent;
        self.releases_waiting += 1;
        true
    }

    /// Makes the extents given so far visible; those that find no room stay for the next call.
    #[inline]
    pub fn flush_releases(&mut self) {
        if self.releases_waiting > 0 {
            self.push_releases();
        }
    }

    fn push_releases(&mut self) -> bool {
        let mut slot = [0_u64; 7];
        slot[0] = self.releases_waiting as u64;
        for (word, extent) in slot[1..]
            .iter_mut()
            .zip(&self.releases[..self.releases_waiting])
        {
            *word = u64::from(extent.offset_units) | u64::from(extent.len_units) << 32;
        }
        let pushed = self
            .release
            .push(&[slot], self.up.word(up::RELEASE_CONSUMED))
            .is_ok();
        if pushed {
            self.releases_waiting = 0;
        }
        pushed
    }

    /// Raises the credit word: bytes ever granted to this process.
    pub fn set_credit(&mut self, total_bytes: u64) {
        self.down
            .word(down::CREDIT)
            .store(total_bytes, Ordering::Release);
    }

    /// Permits the executor to spin while idle, or not. Does not wake.
    pub fn permit_spin(&mut self, permitted: bool) {
        self.down
            .word(down::SPIN)
            .store(u64::from(permitted), Ordering::Release);
    }

    /// Tells the executor that this invocation is cancelled.
    pub fn cancel(&mut self, invocation: u64) {
        self.down
            .word(down::CANCELLED)
            .store(invocation, Ordering::Release);
    }

    /// Wakes the executor if it sleeps, after something was put where it looks.
    #[inline]
    pub fn wake_if_asleep(&self) {
        self.idle.wake(self.up.futex_word(up::IDLE_WORD));
    }
}

/// The executor's end.
#[derive(Debug)]
pub struct ExecutorEnd {
    publish: Producer<MappedSlots>,
    dispatch: Consumer<MappedSlots>,
    release: Consumer<MappedSlots>,
    up: Arc<Mapping>,
    down: Arc<Mapping>,
    up_area: Area,
    down_area: Area,
    bell: BellRope,
    /// Ring position after the last long message: until the scheduler has passed it, the area is
    /// taken.
    area_taken_until: u64,
    released: SlotData,
    released_left: usize,
    scratch: Vec<u8>,
}

impl ExecutorEnd {
    /// Maps `up` read-write, and `down` and the `node` page read-only.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn map(
        up_file: BorrowedFd<'_>,
        down_file: BorrowedFd<'_>,
        node_file: BorrowedFd<'_>,
        colour: u16,
        generation: u32,
    ) -> io::Result<Self> {
        let up = Arc::new(Mapping::writable(up_file)?);
        let down = Arc::new(Mapping::read_only(down_file)?);
        let ring = |ring| ring_generation(generation, ring);
        let publish = up.slots(coloured(up::PUBLISH, colour), PUBLISH_SLOTS);
        let dispatch = down.slots(coloured(down::DISPATCH, colour), DISPATCH_SLOTS);
        let release = down.slots(coloured(down::RELEASE, colour), RELEASE_SLOTS);
        Ok(Self {
            publish: Producer::new(publish, ring(PUBLISH_RING)),
            dispatch: Consumer::new(dispatch, ring(DISPATCH_RING)),
            release: Consumer::new(release, ring(RELEASE_RING)),
            up_area: up.area(up::ARGS, ARGS_BYTES),
            down_area: down.area(down::ARGS, ARGS_BYTES),
            up,
            down,
            bell: BellRope::map(node_file.as_fd())?,
            area_taken_until: 0,
            released: [0; 7],
            released_left: 0,
            scratch: vec![0; ARGS_BYTES],
        })
    }

    /// Says something to the scheduler, waking it if it sleeps. Waits for room where the ring is
    /// full: it polls for about the cost of a wake, then sleeps until the scheduler has taken half.
    ///
    /// # Panics
    /// If a message has more bytes than [`ARGS_BYTES`]: callers split lists.
    #[inline]
    pub fn send(&mut self, message: &FromExecutor<'_>) {
        let len = wire::encode_from_executor(message, &mut self.scratch);
        if len > INLINE_BYTES_MAX {
            self.send_long(len);
        } else {
            let mut slots = [[0; 7]; MESSAGE_SLOTS_MAX];
            let count = pack(&self.scratch[..len], &mut slots);
            self.push(&slots[..count]);
        }
        self.bell.ring_if_asleep();
    }

    fn send_long(&mut self, len: usize) {
        let until = self.area_taken_until;
        let consumed = self.down.word(down::PUBLISH_CONSUMED);
        while consumed.load(Ordering::Acquire) < until {
            std::hint::spin_loop();
            rustix::thread::sched_yield();
        }
        self.up_area.write(&self.scratch[..len]);
        self.push(&spilled(len));
        self.area_taken_until = self.publish.position();
    }

    #[inline]
    fn push(&mut self, slots: &[SlotData]) {
        while self
            .publish
            .push(slots, self.down.word(down::PUBLISH_CONSUMED))
            .is_err()
        {
            self.wait_for_room(slots.len());
        }
    }

    #[cold]
    fn wait_for_room(&mut self, count: usize) {
        self.bell.ring_if_asleep();
        let Self {
            publish, up, down, ..
        } = self;
        let consumed = down.word(down::PUBLISH_CONSUMED);
        for _ in 0..FULL_RING_POLLS {
            if publish.has_room(count, consumed) {
                return;
            }
            std::hint::spin_loop();
        }
        doorbell::sleep(
            up.futex_word(up::FULL_WORD),
            || publish.has_room(count, consumed),
            None,
        );
    }

    /// Takes the scheduler's next message into `buffer`.
    ///
    /// # Errors
    /// [`Garbled`]; there is nothing to go on with.
    #[inline]
    pub fn receive<'b>(
        &mut self,
        buffer: &'b mut MessageBuffer,
    ) -> Result<Option<ToExecutor<'b>>, Garbled> {
        if !take(&mut self.dispatch, &self.down_area, buffer)? {
            return Ok(None);
        }
        self.dispatch
            .publish_index(self.up.word(up::DISPATCH_CONSUMED));
        Ok(Some(wire::decode_to_executor(bytes_of(buffer))?))
    }

    /// Waits while idle: polls while permitted to spin, else sleeps until a message or a permission
    /// comes. May return early.
    pub fn wait(&mut self) {
        for _ in 0..FULL_RING_POLLS {
            if self.dispatch.has_message() {
                return;
            }
            if !self.may_spin() {
                self.sleep();
                return;
            }
            std::hint::spin_loop();
        }
    }

    /// Waits for an answer that is on its way: polls for about the cost of a wake, permitted or not,
    /// then as [`wait`](Self::wait).
    pub fn wait_for_answer(&mut self) {
        for _ in 0..FULL_RING_POLLS {
            if self.dispatch.has_message() {
                return;
            }
            std::hint::spin_loop();
        }
        self.wait();
    }

    fn may_spin(&self) -> bool {
        self.down.word(down::SPIN).load(Ordering::Acquire) != 0
    }

    fn sleep(&self) {
        let rescan = || self.dispatch.has_message() || self.may_spin();
        doorbell::sleep(self.up.futex_word(up::IDLE_WORD), rescan, None);
    }

    /// The next extent that is the allocator's again.
    #[inline]
    pub fn next_release(&mut self) -> Option<Extent> {
        if self.released_left == 0 && !self.take_releases() {
            return None;
        }
        let word = self.released[self.released_left];
        self.released_left -= 1;
        // The two halves of a word.
        Some(Extent {
            offset_units: word as u32,
            len_units: (word >> 32) as u32,
        })
    }

    fn take_releases(&mut self) -> bool {
        let mut slots = [[0; 7]; MESSAGE_SLOTS_MAX];
        if !matches!(self.release.pop(&mut slots), Ok(1)) {
            return false;
        }
        self.release
            .publish_index(self.up.word(up::RELEASE_CONSUMED));
        self.released = slots[0];
        self.released_left = (self.released[0] as usize & 0xff).min(RELEASES_PER_SLOT);
        self.released_left > 0
    }

    /// Bytes of credit ever granted to this process.
    #[inline]
    pub fn credit_total_bytes(&self) -> u64 {
        self.down.word(down::CREDIT).load(Ordering::Acquire)
    }

    /// The invocation that is cancelled, or 0.
    #[inline]
    pub fn cancelled_invocation(&self) -> u64 {
        self.down.word(down::CANCELLED).load(Ordering::Relaxed)
    }
}
