//! The control memory of one executor process: its two ends.
//!
//! `up` is written by the executor (publish ring, consumer indices, whether it sleeps), `down` by
//! the scheduler (dispatch and release rings, credit, permission to spin, cancel word, wakes) and
//! mapped read-only in the executor. No page has two writers. Nothing here knows what a message
//! means.
//!
//! The scheduler believes nothing that it reads in `up`: messages are judged on a copy, an index
//! that cannot be right is not believed, and a sleep that is none costs a needless wake. What is
//! garbled is told once; then the ring is not read any further.
//!
//! Sending and receiving are loads and stores. A fence is paid where the other side may be asleep,
//! a system call where it is.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::claim::{Claim, Granted};
use crate::doorbell::{self, ASLEEP_FOR_ROOM, ASLEEP_IDLE, BellRope, Sound};
use crate::events::{EVENT_BYTES_MAX, TriggerEvent};
use crate::file::create_sealed;
use crate::limits::{
    COLOURS, DISPATCH_SLOTS, IDLE_POLLS, POLL_BEFORE_SLEEP_NS, PUBLISH_SLOTS, RELEASE_SLOTS,
    RELEASE_SLOTS_AT_ONCE, RELEASES_PER_SLOT, down, up,
};
use crate::mapping::{Area, MappedSlots, Mapping, One};
use crate::message::{Dispatch, Extent, FromExecutor, Input, Target, ToExecutor};
use crate::ring::{Consumer, Producer, RingFull, SLOT_BYTES, SlotData};
use crate::sync::{AtomicU32, AtomicU64, FutexWord, Ordering};
pub use crate::wire::Garbled;
use crate::wire::{
    self, ARGS_BYTES, Form, INLINE_BYTES_MAX, INPUT_BYTES_MAX, LIST_HEAD_BYTES, MessageBuffer,
    SLOT_DATA_BYTES, Slots,
};

/// The two files of one executor process.
#[derive(Debug)]
pub struct ControlFiles {
    /// Written by the executor.
    pub up: OwnedFd,
    /// Written by the scheduler. The executor gets it through
    /// [`reopen_read_only`](crate::file::reopen_read_only).
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

/// First word of a slot of the release ring whose extents have been punched: no extent is empty.
const PUNCHED: Extent = Extent {
    offset_units: u32::MAX,
    len_units: 0,
};

/// Punched extents in one slot of the release ring.
pub const PUNCHED_PER_SLOT: usize = RELEASES_PER_SLOT - 1;

/// Memory given back to an executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// Which.
    pub extent: Extent,
    /// Its whole pages are holes.
    pub punched: bool,
}

/// Both files mapped, and the places in them that both ends use.
struct Places {
    up: Arc<Mapping>,
    down: Arc<Mapping>,
    publish: MappedSlots,
    dispatch: MappedSlots,
    release: MappedSlots,
}

impl Places {
    fn new(up: Arc<Mapping>, down: Arc<Mapping>, colour: u16, is_executor: bool) -> Self {
        let slide = usize::from(colour) % COLOURS * SLOT_BYTES;
        // All but the areas, which are for long messages.
        up.populate(0, up::ARGS, is_executor);
        down.populate(0, down::ARGS, !is_executor);
        Self {
            publish: up.slots(up::PUBLISH + slide, PUBLISH_SLOTS),
            dispatch: down.slots(down::DISPATCH + slide, DISPATCH_SLOTS),
            release: down.slots(down::RELEASE + slide, RELEASE_SLOTS),
            up,
            down,
        }
    }
}

/// The scheduler's end.
#[derive(Debug)]
pub struct SchedulerEnd {
    publish: Consumer<MappedSlots>,
    dispatch: Producer<MappedSlots>,
    release: Producer<MappedSlots>,
    publish_consumed: One<AtomicU64>,
    dispatch_consumed: One<AtomicU64>,
    release_consumed: One<AtomicU64>,
    asleep: One<AtomicU32>,
    wakes: One<FutexWord>,
    credit: One<AtomicU64>,
    cancelled: One<AtomicU64>,
    spin: One<AtomicU32>,
    grant: One<AtomicU64>,
    claim: One<Claim>,
    up_area: Area,
    down_area: Area,
    /// Position behind the last message in `down_area`.
    area_taken_until: u64,
    /// Extents given back but not yet in the release ring, which has room for them: the slot that
    /// they will be.
    releases: SlotData,
    releases_waiting: usize,
    /// Where messages are encoded.
    out: Box<Slots>,
    request_out: Box<Slots>,
    /// What the executor knows of the publish ring's consumer.
    told: u64,
    /// A message has come through the area: the executor may be waiting to use it again.
    area_read: bool,
    permitted: bool,
    /// The executor may spin and has been woken since: it cannot be asleep for want of messages.
    spins: bool,
    garbled: bool,
}

impl SchedulerEnd {
    /// Maps both files: `up` for reading, `down` for writing. `colour` spreads ring bases over
    /// cache sets, `generation` tells the rings of successive processes apart; both as in the
    /// executor.
    ///
    /// # Errors
    /// Files that are too short (`InvalidInput`), or what the kernel says.
    pub fn map(
        up_file: BorrowedFd<'_>,
        down_file: BorrowedFd<'_>,
        colour: u16,
        generation: u32,
    ) -> io::Result<Self> {
        let places = Places::new(
            // Written are the claim words alone, of the release ring and of continuation.
            Mapping::writable_of(up_file, up::BYTES)?,
            Mapping::writable_of(down_file, down::BYTES)?,
            colour,
            false,
        );
        let (up, down) = (places.up, places.down);
        Ok(Self {
            publish: Consumer::new(places.publish, generation),
            dispatch: Producer::new(places.dispatch, generation),
            release: Producer::new(places.release, generation),
            publish_consumed: down.one(down::PUBLISH_CONSUMED),
            dispatch_consumed: up.one(up::DISPATCH_CONSUMED),
            release_consumed: up.one(up::RELEASE_CONSUMED),
            asleep: up.one(up::ASLEEP),
            wakes: down.one(down::WAKES),
            credit: down.one(down::CREDIT),
            cancelled: down.one(down::CANCELLED),
            spin: down.one(down::SPIN),
            grant: down.one(down::GRANT),
            claim: up.one(up::CLAIM),
            up_area: up.area(up::ARGS, ARGS_BYTES),
            down_area: down.area(down::ARGS, ARGS_BYTES),
            area_taken_until: 0,
            releases: [0; RELEASES_PER_SLOT],
            releases_waiting: 0,
            out: Slots::new(),
            request_out: Slots::new(),
            told: 0,
            area_read: false,
            permitted: false,
            spins: false,
            garbled: false,
        })
    }

    /// Whether the executor has said something: one load. Never again once it was garbled.
    #[inline(always)]
    pub fn has_message(&self) -> bool {
        self.publish.has_message() && !self.garbled
    }

    /// Takes the executor's next message if it is one of those that hops are made of: an object
    /// with an automatic key and neither group nor delay, published or offered, or a return without
    /// a sentence. Anything else, right or wrong, is left for [`receive`](Self::receive).
    #[inline(always)]
    pub fn receive_plain(&mut self) -> Option<FromExecutor<'static>> {
        if self.garbled {
            return None;
        }
        let message = self.publish.pop_one_as(wire::decode_plain)?;
        if let FromExecutor::Publish { .. } = message {
            // Its sender's return is looked at next, and mostly written by now.
            self.publish.prefetch();
        }
        Some(message)
    }

    /// Takes the executor's next message into `buffer`.
    ///
    /// # Errors
    /// [`Garbled`]: the executor wrote nonsense. Told once: its ring is of no use any more, and
    /// from then on it has no message.
    #[inline]
    pub fn receive<'b>(
        &mut self,
        buffer: &'b mut MessageBuffer,
    ) -> Result<Option<FromExecutor<'b>>, Garbled> {
        if self.garbled {
            return Ok(None);
        }
        let received = self.take(buffer);
        self.garbled = received.is_err();
        received
    }

    #[inline(always)]
    fn take<'b>(
        &mut self,
        buffer: &'b mut MessageBuffer,
    ) -> Result<Option<FromExecutor<'b>>, Garbled> {
        let count = self.publish.pop(&mut buffer.slots.0)?;
        if count == 0 {
            return Ok(None);
        }
        let bytes = &buffer.slots.bytes()[..count * SLOT_DATA_BYTES];
        if let Some(len) = wire::spilled_len(bytes)? {
            self.area_read = true;
            self.up_area.read(len, &mut buffer.spill);
            return wire::decode_from_executor(&buffer.spill).map(Some);
        }
        wire::decode_from_executor(bytes).map(Some)
    }

    /// Lets the executor use the slots again that have been taken, and wakes it where it may be
    /// sleeping for that. Call it once after a few messages.
    #[inline]
    pub fn publish_consumed(&mut self) {
        let position = self.publish.position();
        if position == self.told {
            return;
        }
        self.publish.publish_index(&self.publish_consumed);
        // `doorbell` says why every half of a ring is often enough for a full one.
        let half = PUBLISH_SLOTS as u64 / 2;
        let passed_half = position / half != self.told / half;
        self.told = position;
        if passed_half || self.area_read {
            self.area_read = false;
            let why = Some(ASLEEP_FOR_ROOM);
            doorbell::wake_if_asleep::<Sound>(&self.asleep, &self.wakes, why);
        }
    }

    /// Puts a message into the dispatch ring. Does not wake.
    ///
    /// # Errors
    /// [`RingFull`], which an honest executor never causes: see [`DISPATCH_SLOTS`].
    ///
    /// # Panics
    /// On a key or group of over 255 bytes: objects with such names were never accepted.
    pub fn send(&mut self, message: &ToExecutor<'_>) -> Result<(), RingFull> {
        let len = match *message {
            ToExecutor::Dispatch { dispatch, inputs } => {
                return self.send_dispatch(&dispatch, inputs);
            }
            ToExecutor::Inputs { first, inputs } => return self.send_inputs(first, inputs),
            ToExecutor::Events { trigger, events } => return self.send_events(trigger, events),
            ToExecutor::Extents { first, extents } => {
                return self.send_extents(first, wire::extents(extents));
            }
            ToExecutor::Object { status, input } => {
                wire::encode_object(status, input.as_ref(), self.out.bytes_mut())
            }
            ToExecutor::Credit { granted } => self.encode(&Form::credit(granted)),
            ToExecutor::Persisted { status } => self.encode(&Form::persisted(status)),
            ToExecutor::Parent { count, session } => self.encode(&Form::parent(count, session)),
            ToExecutor::Adopt { extent_count } => self.encode(&Form::adopt(extent_count)),
            ToExecutor::Exit => self.encode(&Form::exit()),
        };
        self.push(len)
    }

    fn encode(&mut self, form: &Form<'_>) -> usize {
        form.write(self.out.bytes_mut());
        form.len()
    }

    #[inline(always)]
    fn push(&mut self, len: usize) -> Result<(), RingFull> {
        let consumed = &self.dispatch_consumed;
        self.dispatch.push(self.out.of_len(len), consumed)
    }

    /// Puts a dispatch into the ring with as many of its inputs as fit. Does not wake.
    ///
    /// # Errors
    /// As [`SchedulerEnd::send`].
    ///
    /// # Panics
    /// On a key or group of over 255 bytes: objects with such names were never accepted.
    #[inline]
    pub fn send_dispatch<'a>(
        &mut self,
        dispatch: &Dispatch<'a>,
        mut inputs: impl Iterator<Item = Input<'a>>,
    ) -> Result<(), RingFull> {
        let first = inputs.next();
        if let Some(input) = &first
            && let Some(slot) = wire::short_dispatch(dispatch, input)
        {
            return self.dispatch.push_one(slot, &self.dispatch_consumed);
        }
        self.send_long_dispatch(dispatch, first.into_iter().chain(inputs))
    }

    fn send_long_dispatch<'a>(
        &mut self,
        dispatch: &Dispatch<'a>,
        inputs: impl Iterator<Item = Input<'a>>,
    ) -> Result<(), RingFull> {
        let (out, request_out) = (self.out.bytes_mut(), self.request_out.bytes_mut());
        let encoded = wire::encode_dispatch(dispatch, inputs, out, request_out);
        if encoded.request_len > 0 {
            self.push_request(&encoded)?;
        }
        self.push(encoded.len)
    }

    /// The request of a dispatch that has no room for it, as a message before it.
    #[cold]
    fn push_request(&mut self, encoded: &wire::EncodedDispatch) -> Result<(), RingFull> {
        let consumed = &self.dispatch_consumed;
        let request = self.request_out.of_len(encoded.request_len);
        let slots = request.len() + self.out.of_len(encoded.len).len();
        if !self.dispatch.has_room(slots, consumed) {
            return Err(RingFull);
        }
        self.dispatch.push(request, consumed)
    }

    /// Answers `FetchInputs` with as many inputs as fit the area, the first being number `first`.
    /// Does not wake.
    ///
    /// # Errors
    /// As [`SchedulerEnd::send`]; also while the executor has not taken the list before.
    ///
    /// # Panics
    /// On a key or group of over 255 bytes: objects with such names were never accepted.
    pub fn send_inputs<'a>(
        &mut self,
        first: u32,
        inputs: impl Iterator<Item = Input<'a>>,
    ) -> Result<(), RingFull> {
        self.claim_area()?;
        let mut encoded = [0; INPUT_BYTES_MAX];
        let (mut count, mut len) = (0, LIST_HEAD_BYTES);
        for input in inputs {
            let bytes = wire::encode_input(&input, &mut encoded).unwrap_or(0);
            if len + bytes > ARGS_BYTES {
                break;
            }
            self.down_area.write(len, &encoded[..bytes]);
            len += bytes;
            count += 1;
        }
        let list_bytes = (len - LIST_HEAD_BYTES) as u32;
        self.announce(wire::inputs_head(first, count, list_bytes), len)
    }

    /// Tells a custom trigger's process of as many of these events as fit the area. Does not wake.
    ///
    /// # Errors
    /// As [`SchedulerEnd::send`]; also while the executor has not taken the list before.
    ///
    /// # Panics
    /// On a key or group of over 255 bytes: objects with such names were never accepted.
    pub fn send_events<'a>(
        &mut self,
        trigger: u16,
        events: impl Iterator<Item = TriggerEvent<'a>>,
    ) -> Result<(), RingFull> {
        self.claim_area()?;
        let mut encoded = [0; EVENT_BYTES_MAX];
        let (mut count, mut len) = (0, LIST_HEAD_BYTES);
        for event in events {
            let bytes = event.encode(&mut encoded).unwrap_or(0);
            if len + bytes > ARGS_BYTES {
                break;
            }
            self.down_area.write(len, &encoded[..bytes]);
            len += bytes;
            count += 1;
        }
        let list_bytes = (len - LIST_HEAD_BYTES) as u32;
        self.announce(wire::events_head(trigger, count, list_bytes), len)
    }

    /// Answers `FetchExtents` with as many extents as fit the area (8 190), the first being number
    /// `first`. Does not wake.
    ///
    /// # Errors
    /// As [`SchedulerEnd::send`]; also while the executor has not taken the list before.
    pub fn send_extents(
        &mut self,
        first: u32,
        extents: impl Iterator<Item = Extent>,
    ) -> Result<(), RingFull> {
        self.claim_area()?;
        let (mut count, mut len) = (0, LIST_HEAD_BYTES);
        for extent in extents.take((ARGS_BYTES - LIST_HEAD_BYTES) / 8) {
            let word = wire::extent_word(extent).to_le_bytes();
            self.down_area.write(len, &word);
            len += word.len();
            count += 1;
        }
        self.announce(wire::extents_head(first, count), len)
    }

    /// The area holds one message at a time.
    fn claim_area(&mut self) -> Result<(), RingFull> {
        let consumed = &self.dispatch_consumed;
        if self.dispatch.is_consumed(self.area_taken_until, consumed)
            && self.dispatch.has_room(1, consumed)
        {
            return Ok(());
        }
        Err(RingFull)
    }

    /// Completes the message of this length in the area and says that it is there.
    fn announce(&mut self, head: [u64; 2], len: usize) -> Result<(), RingFull> {
        for (at, word) in head.iter().enumerate() {
            self.down_area.write(at * 8, &word.to_le_bytes());
        }
        let slot_len = self.encode(&Form::spilled(len));
        self.push(slot_len)?;
        self.area_taken_until = self.dispatch.position();
        Ok(())
    }

    /// Gives an extent back to the executor's allocator, at the latest with the next
    /// [`flush_releases`](Self::flush_releases). False: no room; it is still the caller's.
    #[inline]
    pub fn release(&mut self, extent: Extent) -> bool {
        let consumed = &self.release_consumed;
        if self.releases_waiting == 0 && !self.release.has_room(1, consumed) {
            return false;
        }
        self.releases[self.releases_waiting] = wire::extent_word(extent);
        self.releases_waiting += 1;
        if self.releases_waiting == RELEASES_PER_SLOT {
            self.flush_releases();
        }
        true
    }

    /// Gives extents back whose whole pages have been punched ([`whole_pages`]), at most
    /// [`PUNCHED_PER_SLOT`]. Visible at once. False: no room; they are still the caller's.
    ///
    /// [`whole_pages`]: crate::allocator::whole_pages
    pub fn release_punched(&mut self, extents: &[Extent]) -> bool {
        self.flush_releases();
        let mut slot: SlotData = [0; RELEASES_PER_SLOT];
        slot[0] = wire::extent_word(PUNCHED);
        for (word, extent) in slot[1..].iter_mut().zip(extents) {
            *word = wire::extent_word(*extent);
        }
        let pushed = self.release.push_plain(&slot, &self.release_consumed);
        pushed.is_ok()
    }

    /// Slots of the release ring that the executor has taken, as it says, and whether there are
    /// others.
    pub fn releases_taken(&mut self) -> (u64, bool) {
        let end = self.release.position();
        let taken = self.release_consumed.load(Ordering::Relaxed);
        (taken, taken != end || self.releases_waiting > 0)
    }

    /// Takes back what the executor has not taken from its release ring: it is nobody's but the
    /// caller's then, extents first and those whose pages are punched second. Nothing where the
    /// executor takes some in this moment, or lies about how much it has taken.
    pub fn withdraw_releases(&mut self, whole: &mut Vec<Extent>, punched: &mut Vec<Extent>) {
        self.flush_releases();
        for position in self.release.withdraw(&self.release_consumed) {
            let slot = self.release.written(position);
            let extents = slot.map(wire::word_extent);
            let (into, extents) = match extents.split_first() {
                Some((&PUNCHED, rest)) => (&mut *punched, rest),
                _ => (&mut *whole, &extents[..]),
            };
            into.extend(extents.iter().filter(|extent| extent.len_units > 0));
        }
    }

    /// Makes the extents given so far visible.
    #[inline]
    pub fn flush_releases(&mut self) {
        if self.releases_waiting == 0 {
            return;
        }
        let slot = std::mem::take(&mut self.releases);
        self.releases_waiting = 0;
        let pushed = self.release.push_plain(&slot, &self.release_consumed);
        debug_assert!(pushed.is_ok(), "the batch was begun when there was room");
    }

    /// Raises the credit word: bytes ever granted to this process.
    #[inline]
    pub fn set_credit(&mut self, total_bytes: u64) {
        self.credit.store(total_bytes, Ordering::Release);
    }

    /// Permits the executor to spin while idle, or not. Does not wake: follow a permission by
    /// [`wake_if_asleep`](Self::wake_if_asleep), after which further wakes cost nothing.
    #[inline]
    pub fn permit_spin(&mut self, permitted: bool) {
        self.spin.store(u32::from(permitted), Ordering::Release);
        self.permitted = permitted;
        self.spins = false;
    }

    /// Tells the executor that this invocation is cancelled; 0: none.
    pub fn cancel(&mut self, invocation: u64) {
        self.cancelled.store(invocation, Ordering::Release);
    }

    /// Lets the executor start this invocation and those after it by itself, [`GRANT_HOPS`] in all;
    /// 0: none from now on, but for what it has offered.
    ///
    /// [`GRANT_HOPS`]: crate::claim::GRANT_HOPS
    #[inline]
    pub fn grant(&mut self, first: u64) {
        self.grant.store(first, Ordering::Release);
    }

    /// Takes back what the executor has offered. False: what it says next tells whether it has
    /// taken it.
    pub fn withdraw(&mut self, invocation: u64) -> bool {
        self.claim.withdraw(invocation)
    }

    /// Wakes the executor if it sleeps, after something was put where it looks. An executor that
    /// may spin and was woken since it was told so does not sleep: for it this is one branch.
    /// Answers with the time that a wake took this side, where there was one.
    #[inline]
    pub fn wake_if_asleep(&mut self) -> Option<Duration> {
        if self.spins {
            return None;
        }
        let took = doorbell::wake_if_asleep::<Sound>(&self.asleep, &self.wakes, None);
        self.spins = self.permitted;
        took
    }
}

/// The executor's end.
#[derive(Debug)]
pub struct ExecutorEnd {
    publish: Producer<MappedSlots>,
    dispatch: Consumer<MappedSlots>,
    release: Consumer<MappedSlots>,
    publish_consumed: One<AtomicU64>,
    dispatch_consumed: One<AtomicU64>,
    release_consumed: One<AtomicU64>,
    asleep: One<AtomicU32>,
    wakes: One<FutexWord>,
    credit: One<AtomicU64>,
    cancelled: One<AtomicU64>,
    spin: One<AtomicU32>,
    grant: One<AtomicU64>,
    claim: One<Claim>,
    granted: Granted,
    up_area: Area,
    down_area: Area,
    bell: BellRope,
    /// Ring position after the last long message: until the scheduler has passed it, the area is
    /// taken.
    area_taken_until: u64,
    /// Where slots of the release ring are copied to.
    released: [SlotData; RELEASE_SLOTS_AT_ONCE],
    /// Where messages are encoded.
    out: Box<Slots>,
    long_out: Vec<u8>,
}

impl ExecutorEnd {
    /// Maps `up` for writing, and `down` and the `node` page for reading.
    ///
    /// # Errors
    /// Files that are too short (`InvalidInput`), or what the kernel says.
    pub fn map(
        up_file: BorrowedFd<'_>,
        down_file: BorrowedFd<'_>,
        node_file: BorrowedFd<'_>,
        colour: u16,
        generation: u32,
    ) -> io::Result<Self> {
        let places = Places::new(
            Mapping::writable_of(up_file, up::BYTES)?,
            Mapping::read_only_of(down_file, down::BYTES)?,
            colour,
            true,
        );
        let (up, down) = (places.up, places.down);
        Ok(Self {
            publish: Producer::new(places.publish, generation),
            dispatch: Consumer::new(places.dispatch, generation),
            release: Consumer::new(places.release, generation),
            publish_consumed: down.one(down::PUBLISH_CONSUMED),
            dispatch_consumed: up.one(up::DISPATCH_CONSUMED),
            release_consumed: up.one(up::RELEASE_CONSUMED),
            asleep: up.one(up::ASLEEP),
            wakes: down.one(down::WAKES),
            credit: down.one(down::CREDIT),
            cancelled: down.one(down::CANCELLED),
            spin: down.one(down::SPIN),
            grant: down.one(down::GRANT),
            claim: up.one(up::CLAIM),
            granted: Granted::default(),
            up_area: up.area(up::ARGS, ARGS_BYTES),
            down_area: down.area(down::ARGS, ARGS_BYTES),
            bell: BellRope::map(node_file)?,
            area_taken_until: 0,
            released: [[0; RELEASES_PER_SLOT]; RELEASE_SLOTS_AT_ONCE],
            out: Slots::new(),
            long_out: Vec::new(),
        })
    }

    /// Says something to the scheduler, waking it if it sleeps. Waits for room where the ring is
    /// full: it polls for about the cost of a wake, then sleeps until the scheduler has taken half.
    ///
    /// # Panics
    /// If the message breaks its own form ([`wire::Malformed`] says how): callers judge names,
    /// sizes and lists before they get here.
    #[inline]
    pub fn send(&mut self, message: &FromExecutor<'_>) {
        self.say_slot(wire::short_from_executor(message), message);
        self.ring();
    }

    /// As [`send`](Self::send), of what executors say most: an object with an automatic key and
    /// neither group nor delay, a return without a sentence, and what they say in place. What
    /// breaks its own form is noticed here in builds with debug assertions only; the scheduler ends
    /// whoever says it.
    ///
    /// # Panics
    /// As [`send`](Self::send), then.
    #[inline(always)]
    pub fn send_known(&mut self, message: &FromExecutor<'_>) {
        self.say_known(message);
        self.ring();
    }

    /// As [`send_known`](Self::send_known), but for the ringing.
    #[inline(always)]
    pub fn say_known(&mut self, message: &FromExecutor<'_>) {
        self.say_slot(wire::short_known(message), message);
    }

    /// Room for one message of one slot, where some is known of without a look at what the
    /// scheduler has read.
    #[inline(always)]
    pub fn room(&mut self) -> Option<Room<'_>> {
        self.publish.is_known_free(1).then_some(Room(self))
    }

    /// Looks what the scheduler has read, where there is not much room without that.
    pub fn look_for_room(&mut self) {
        self.is_heard();
    }

    /// Wakes the scheduler if it sleeps, after something was said without that.
    #[inline(always)]
    pub fn ring(&self) {
        self.bell.ring_if_asleep();
    }

    #[inline(always)]
    fn say_slot(&mut self, slot: Option<SlotData>, message: &FromExecutor<'_>) {
        let is_said = match slot {
            Some(slot) => self.publish.push_one(slot, &self.publish_consumed).is_ok(),
            None => false,
        };
        if !is_said {
            self.send_copy(*message);
        }
    }

    /// As [`send_any`](Self::send_any). A copy, so that nobody else's message need be in memory.
    #[cold]
    #[inline(never)]
    fn send_copy(&mut self, message: FromExecutor<'_>) {
        self.send_any(&message);
    }

    /// The general way to send, which waits for room.
    #[inline(never)]
    fn send_any(&mut self, message: &FromExecutor<'_>) {
        let form = match Form::of(message) {
            Ok(form) => form,
            Err(malformed) => panic!("a message to the scheduler has {malformed}"),
        };
        let mut len = form.len();
        if len > INLINE_BYTES_MAX {
            len = self.spill(&form);
        } else {
            form.write(self.out.bytes_mut());
        }
        let consumed = &self.publish_consumed;
        while self.publish.push(self.out.of_len(len), consumed).is_err() {
            let slots = len.div_ceil(SLOT_DATA_BYTES);
            wait_until(&self.asleep, &self.wakes, || {
                self.publish.has_room(slots, consumed)
            });
        }
        if form.len() > INLINE_BYTES_MAX {
            self.area_taken_until = self.publish.position();
        }
    }

    /// Puts a long message into the area and encodes the slot that says so; its length.
    #[cold]
    fn spill(&mut self, form: &Form<'_>) -> usize {
        let (until, consumed) = (self.area_taken_until, &self.publish_consumed);
        wait_until(&self.asleep, &self.wakes, || {
            self.publish.is_consumed(until, consumed)
        });
        self.long_out.resize(form.len(), 0);
        form.write(&mut self.long_out);
        self.up_area.write(0, &self.long_out);
        let slot = Form::spilled(form.len());
        slot.write(self.out.bytes_mut());
        slot.len()
    }

    /// Whether the scheduler has said something: one load.
    #[inline(always)]
    pub fn has_message(&self) -> bool {
        self.dispatch.has_message()
    }

    /// Takes the scheduler's next message if it is a dispatch as most are, of one slot and with one
    /// input: it needs no private memory but registers. Anything else is left for
    /// [`receive`](Self::receive), which is given the same `buffer`.
    #[inline(always)]
    pub fn receive_short_dispatch(
        &mut self,
        buffer: &MessageBuffer,
    ) -> Option<(Dispatch<'static>, Input<'static>)> {
        if buffer.request_slots > 0 {
            return None;
        }
        let words = self.dispatch.pop_one_if(wire::is_short_dispatch)?;
        self.dispatch.publish_index(&self.dispatch_consumed);
        Some(wire::decode_short_dispatch(&words))
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
        let mut count = self.dispatch.pop(&mut buffer.slots.0)?;
        if count > 0 && wire::is_request(buffer.slots.bytes()) {
            std::mem::swap(&mut buffer.slots, &mut buffer.request);
            buffer.request_slots = count;
            count = self.dispatch.pop(&mut buffer.slots.0)?;
        }
        if count == 0 {
            return Ok(None);
        }
        let bytes = &buffer.slots.bytes()[..count * SLOT_DATA_BYTES];
        let spilled = wire::spilled_len(bytes)?;
        if let Some(len) = spilled {
            self.down_area.read(len, &mut buffer.spill);
        }
        self.dispatch.publish_index(&self.dispatch_consumed);
        let bytes = if spilled.is_some() {
            &buffer.spill
        } else {
            bytes
        };
        let request_slots = std::mem::take(&mut buffer.request_slots);
        let request = &buffer.request.bytes()[..request_slots * SLOT_DATA_BYTES];
        wire::decode_to_executor(bytes, (request_slots > 0).then_some(request)).map(Some)
    }

    /// Waits while idle: polls while permitted to spin, else sleeps until a message or a permission
    /// comes. May return early.
    #[inline]
    pub fn wait(&mut self) {
        for _ in 0..IDLE_POLLS {
            if self.has_message() {
                return;
            }
            if !self.may_spin() {
                self.sleep(None);
                return;
            }
            std::hint::spin_loop();
        }
    }

    /// Waits for an answer that is on its way: polls for about the cost of a wake, permitted or
    /// not, then as [`wait`](Self::wait). May return early.
    pub fn wait_for_answer(&mut self) {
        let start = Instant::now();
        while start.elapsed() < Duration::from_nanos(POLL_BEFORE_SLEEP_NS) {
            if self.has_message() {
                return;
            }
            std::hint::spin_loop();
        }
        self.wait();
    }

    /// Sleeps until a message or the permission to spin comes, or the time is over.
    pub fn sleep(&self, timeout: Option<Duration>) {
        let rescan = || self.has_message() || self.may_spin();
        let (asleep, wakes) = (&self.asleep, &self.wakes);
        doorbell::sleep::<Sound>(asleep, wakes, ASLEEP_IDLE, rescan, timeout);
    }

    /// Whether the scheduler lets this executor spin while it is idle.
    #[inline(always)]
    pub fn may_spin(&self) -> bool {
        self.spin.load(Ordering::Relaxed) != 0
    }

    /// Gives out all extents that are the allocator's again.
    #[inline]
    pub fn take_releases(&mut self, mut take: impl FnMut(Released)) {
        loop {
            let index = &self.release_consumed;
            let count = self.release.claim_plain(&mut self.released, index);
            for slot in &self.released[..count] {
                if slot[0] == wire::extent_word(PUNCHED) {
                    for extent in released(&slot[1..]) {
                        let punched = true;
                        take(Released { extent, punched });
                    }
                } else {
                    for extent in released(slot) {
                        let punched = false;
                        take(Released { extent, punched });
                    }
                }
            }
            if count < self.released.len() {
                return;
            }
        }
    }

    /// Whether this executor may offer invocations at all.
    #[inline(always)]
    pub fn is_granted(&self) -> bool {
        self.grant.load(Ordering::Relaxed) != 0
    }

    /// The next invocation that this executor may offer to start by itself, and room to say so.
    /// `None`: nothing is granted, or the scheduler has so much to read, as far as is known, that
    /// it should not be left further behind.
    #[inline(always)]
    pub fn next_offer(&mut self) -> Option<Offer<'_>> {
        if !self.publish.is_known_free(HEARD_SLOTS) {
            return None;
        }
        let invocation = self.granted.next(self.grant.load(Ordering::Relaxed))?;
        Some(Offer {
            end: self,
            invocation,
        })
    }

    /// A quarter of the publish ring is free.
    #[inline(always)]
    fn is_heard(&mut self) -> bool {
        self.publish.has_room(HEARD_SLOTS, &self.publish_consumed)
    }

    /// Takes what was offered, and gives room to say so, which is to be used before anything is
    /// done about it. `None`: it is not this executor's.
    #[inline(always)]
    pub fn take_offer(&mut self, invocation: u64) -> Option<Room<'_>> {
        if self.is_heard() && self.claim.take(invocation) {
            Some(Room(self))
        } else {
            None
        }
    }

    /// Bytes of credit ever granted to this process.
    #[inline(always)]
    pub fn credit_total_bytes(&self) -> u64 {
        self.credit.load(Ordering::Relaxed)
    }

    /// The invocation that is cancelled, or 0.
    #[inline(always)]
    pub fn cancelled_invocation(&self) -> u64 {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// The extents of a slot of the release ring. It is filled from its start: no extent is their end.
#[inline(always)]
fn released(words: &[u64]) -> impl Iterator<Item = Extent> {
    let extents = words.iter().map(|word| wire::word_extent(*word));
    extents.take_while(|extent| extent.len_units > 0)
}

/// Free slots of the publish ring with which an executor goes on by itself.
const HEARD_SLOTS: usize = PUBLISH_SLOTS / 4;

/// Room for one message of one slot. Whoever uses it [rings](ExecutorEnd::ring) soon.
#[derive(Debug)]
pub struct Room<'e>(&'e mut ExecutorEnd);

impl Room<'_> {
    /// Says something, as [`ExecutorEnd::send_known`] but for the ringing.
    ///
    /// # Panics
    /// Of a message that is none of those.
    #[inline(always)]
    pub fn say(self, message: &FromExecutor<'_>) {
        let slot = wire::short_known(message).expect("what is known of has one slot");
        self.0.publish.put_one(slot);
    }
}

/// An invocation that may be offered.
#[derive(Debug)]
pub struct Offer<'e> {
    end: &'e mut ExecutorEnd,
    invocation: u64,
}

impl Offer<'_> {
    /// Offers it, as what this object fires, and says so. Which it is. The caller
    /// [rings](ExecutorEnd::ring) soon.
    #[inline(always)]
    pub fn say(self, target: Target, extent: Extent, size_bytes: u64, ordinal: u32) -> u64 {
        let Self { end, invocation } = self;
        end.claim.offer(invocation);
        Room(end).say(&FromExecutor::Offer {
            target,
            extent,
            size_bytes,
            ordinal,
            invocation,
        });
        invocation
    }
}

/// Waits for room: polls for about the cost of a wake, then sleeps. The scheduler has been rung for
/// what was sent before, so it is awake, or finds it before it sleeps.
#[cold]
fn wait_until(asleep: &AtomicU32, wakes: &FutexWord, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while start.elapsed() < Duration::from_nanos(POLL_BEFORE_SLEEP_NS) {
        if is_so() {
            return;
        }
        std::hint::spin_loop();
    }
    while !is_so() {
        doorbell::sleep::<Sound>(asleep, wakes, ASLEEP_FOR_ROOM, &mut is_so, None);
    }
}
