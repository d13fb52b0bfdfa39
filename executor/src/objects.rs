//! Objects as functions hold them: one struct per input and per output, at an address that stays
//! while the invocation lasts, in memory that the next invocation uses again.
//!
//! Fields are cells, because a function has a pointer to the object while the executor changes it;
//! no `&mut` to an object is ever made. What an object says is written before its pointer is given
//! away, but for an output's size, extent and state, which only the calling thread changes.

use std::cell::Cell;
use std::ffi::{c_char, c_int};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use pheromone_sdk as sdk;
use pheromone_shm::message::{Extent, NO_BUCKET, Target};

/// Objects of one chunk.
const CHUNK_OBJECTS: usize = 64;
/// Chunks kept between invocations: 4096 objects, some 600 KiB.
const CHUNKS_KEPT: usize = 64;
/// A sent object's struct is used again after this many others have been sent, so that a function
/// that uses one it has sent is told so instead of changing a stranger.
const QUARANTINE: usize = 1024;

/// The arrival of an object that its own executor goes on with: the clock is read when somebody
/// asks for the first time, since most do not, and reading it would take a third of the hop.
pub const ASKED: u64 = u64::MAX;

/// What a function may do with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No object of this invocation.
    Free,
    /// An input, or one found by `phr_get`: read only.
    Held,
    /// Created and not yet sent: its buffer may be written.
    Unsent,
    /// Sent, or given as a response.
    Sent,
    /// Given back.
    Discarded,
}

/// How an object's key is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// `~I.N`: becomes text when someone asks.
    Auto {
        /// I.
        invocation: u64,
        /// N.
        ordinal: u32,
    },
    /// This text, zero-terminated, of this length.
    Named(*const c_char, u8),
}

/// One object: two cache lines, and what most functions ask for in the first.
#[repr(C)]
pub struct Object {
    head: sdk::Head,
    /// What may be done with it.
    pub state: Cell<State>,
    /// The payload's pages have been faulted in, or need not be.
    pub populated: Cell<bool>,
    /// Bucket index, or [`NO_BUCKET`].
    pub bucket: Cell<u16>,
    /// Of a held object: its number in messages. Its place in its arena, where nobody says another.
    pub number: Cell<u32>,
    /// The payload, zero byte included in the extent.
    pub data: Cell<*mut u8>,
    /// Payload bytes.
    pub size_bytes: Cell<u64>,
    /// Its key.
    pub label: Cell<Label>,
    /// The text of an automatic key, once someone asked; NULL before.
    pub auto_text: AtomicPtr<c_char>,
    /// The session that published it.
    pub session: Cell<u64>,
    /// When it arrived; 0 for an output, [`ASKED`] where nobody has asked yet.
    pub arrival_ns: AtomicU64,
    /// Zero-terminated.
    pub group: Cell<*const c_char>,
    /// The bucket's name, zero-terminated.
    pub bucket_name: Cell<*const c_char>,
    /// Of an output: its memory.
    pub extent: Cell<Extent>,
    /// Of an output: where to.
    pub target: Cell<Target>,
    /// Of an output: as `Publish` says it.
    pub ordinal: Cell<u32>,
    /// Of a held object: how many are attached to it.
    pub attached: Cell<u32>,
    /// Of them, those that are here: the first of these among what was found, and how many.
    pub attached_here: Cell<Option<(u32, u32)>>,
}

const _: () = assert!(size_of::<Object>() == 128);

impl Object {
    fn new(api: *const sdk::Api, number: u32) -> Self {
        Self {
            head: sdk::Head {
                struct_size: size_of::<Self>(),
                api,
            },
            state: Cell::new(State::Free),
            populated: Cell::new(false),
            bucket: Cell::new(NO_BUCKET),
            number: Cell::new(number),
            data: Cell::new(std::ptr::null_mut()),
            size_bytes: Cell::new(0),
            label: Cell::new(Label::Auto {
                invocation: 0,
                ordinal: 0,
            }),
            auto_text: AtomicPtr::new(std::ptr::null_mut()),
            session: Cell::new(0),
            arrival_ns: AtomicU64::new(0),
            group: Cell::new(c"".as_ptr()),
            bucket_name: Cell::new(c"".as_ptr()),
            extent: Cell::new(Extent::default()),
            target: Cell::new(Target::Next),
            ordinal: Cell::new(0),
            attached: Cell::new(0),
            attached_here: Cell::new(None),
        }
    }

    /// As functions see it.
    #[inline]
    pub fn handle(&self) -> *mut sdk::Object {
        std::ptr::from_ref(self).cast_mut().cast()
    }

    /// Says where a new output lies. An output has no group, no arrival, and nothing attached: so
    /// its struct was made.
    #[inline(always)]
    pub fn begin_output(&self, data: *mut u8, size: usize, extent: Extent, session: u64) {
        self.data.set(data);
        self.size_bytes.set(size as u64);
        self.extent.set(extent);
        self.session.set(session);
        self.auto_text
            .store(std::ptr::null_mut(), Ordering::Relaxed);
    }

    /// Says where a new output goes, and by what name; its bucket is for the caller to say.
    #[inline(always)]
    pub fn name_output(&self, target: Target, ordinal: u32, label: Label) {
        self.target.set(target);
        self.ordinal.set(ordinal);
        self.label.set(label);
    }

    /// An output of the invocation before, in the same session, becomes this one's input.
    #[inline(always)]
    pub fn continue_output(&self, output: &Self, session: u64) {
        self.state.set(State::Held);
        // This process has written it.
        self.populated.set(true);
        self.bucket.set(output.bucket.get());
        self.data.set(output.data.get());
        self.size_bytes.set(output.size_bytes.get());
        self.label.set(output.label.get());
        self.auto_text
            .store(std::ptr::null_mut(), Ordering::Relaxed);
        self.session.set(session);
        self.arrival_ns.store(ASKED, Ordering::Relaxed);
        self.group.set(c"".as_ptr());
        self.bucket_name.set(output.bucket_name.get());
        self.attached.set(0);
        self.attached_here.set(None);
    }

    /// When it arrived, CLOCK_MONOTONIC.
    pub fn arrival_ns(&self) -> u64 {
        let known_ns = self.arrival_ns.load(Ordering::Relaxed);
        if known_ns != ASKED {
            return known_ns;
        }
        let now_ns = crate::api::monotonic_ns();
        // Another thread may ask beside this one: all are told the same.
        let (arrival_ns, relaxed) = (&self.arrival_ns, Ordering::Relaxed);
        match arrival_ns.compare_exchange(ASKED, now_ns, relaxed, relaxed) {
            Ok(_) => now_ns,
            Err(told_ns) => told_ns,
        }
    }

    /// The object behind a function's pointer; `None` for NULL and for what is plainly no object
    /// of ours.
    ///
    /// # Safety
    /// The pointer is NULL, or was given by [`Object::handle`] of an object whose arena still
    /// exists. (A function that invents a pointer crashes, and is told so by its crash report.)
    #[inline]
    pub unsafe fn from_handle<'a>(
        handle: *const sdk::Object,
        api: *const sdk::Api,
    ) -> Option<&'a Self> {
        if handle.is_null() || !handle.cast::<Self>().is_aligned() {
            return None;
        }
        // SAFETY: by the caller's word.
        let object = unsafe { &*handle.cast::<Self>() };
        let ours = object.head.api == api && object.head.struct_size == size_of::<Self>();
        ours.then_some(object)
    }
}

type Chunk = [Object; CHUNK_OBJECTS];

/// Objects numbered from 0, in chunks that do not move.
pub struct Objects {
    api: *const sdk::Api,
    /// The first object, where there is a chunk: most arenas have one at most.
    first: NonNull<Object>,
    chunks: Vec<NonNull<Chunk>>,
    /// Objects in all chunks.
    room: usize,
    used: usize,
}

impl Objects {
    /// An empty arena, whose objects lead to this table.
    pub fn new(api: *const sdk::Api) -> Self {
        Self {
            api,
            first: NonNull::dangling(),
            chunks: Vec::new(),
            room: 0,
            used: 0,
        }
    }

    /// How many are in use.
    #[inline]
    pub fn len(&self) -> usize {
        self.used
    }

    /// The object of this number.
    ///
    /// # Panics
    /// Past the end.
    #[inline]
    pub fn at(&self, number: usize) -> &Object {
        match self.get(number) {
            Some(object) => object,
            None => panic!("object {number} of {}", self.used),
        }
    }

    /// The object of this number; `None` past the end.
    #[inline(always)]
    pub fn get(&self, number: usize) -> Option<&Object> {
        (number < self.used).then(|| self.place(number))
    }

    /// The object after those in use, where there is room for it without a new chunk.
    #[inline(always)]
    pub fn fresh(&self) -> Option<&Object> {
        (self.used < self.room).then(|| self.place(self.used))
    }

    /// As [`Objects::fresh`], where none is in use.
    #[inline(always)]
    pub fn first_fresh(&self) -> Option<&Object> {
        debug_assert_eq!(self.used, 0);
        (self.room > 0).then(|| self.place(0))
    }

    /// Makes room for one more.
    #[inline(always)]
    pub fn make_room(&mut self) {
        if self.used == self.room {
            self.grow();
        }
    }

    /// The object that [`Objects::fresh`] gave is in use from here on.
    #[inline(always)]
    pub fn take_fresh(&mut self) {
        debug_assert!(self.used < self.room);
        self.used += 1;
    }

    /// One more object, of whatever content.
    #[inline(always)]
    pub fn add(&mut self) -> &Object {
        self.make_room();
        self.used += 1;
        self.place(self.used - 1)
    }

    /// Of one that there is room for.
    #[inline(always)]
    fn place(&self, number: usize) -> &Object {
        debug_assert!(number < self.room);
        if number < CHUNK_OBJECTS {
            let place = self.first.as_ptr().wrapping_add(number);
            // SAFETY: there is room for it, so there is a first chunk, and it is one of that.
            // Chunks live until `clear` or `drop`, which take `&mut self`; nobody makes a `&mut` to
            // a chunk in between.
            unsafe { &*place }
        } else {
            self.place_beyond(number)
        }
    }

    /// Of one that is not in the first chunk.
    fn place_beyond(&self, number: usize) -> &Object {
        // SAFETY: chunks live as long as `place` says.
        let chunk = unsafe { self.chunks[number / CHUNK_OBJECTS].as_ref() };
        &chunk[number % CHUNK_OBJECTS]
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        let first = self.room as u32;
        let objects = |at| Object::new(self.api, first + at as u32);
        let chunk: Box<Chunk> = Box::new(std::array::from_fn(objects));
        let chunk = NonNull::from(Box::leak(chunk));
        if self.chunks.is_empty() {
            self.first = chunk.cast();
        }
        self.chunks.push(chunk);
        self.room += CHUNK_OBJECTS;
    }

    /// Takes all objects back, and gives memory back where there was much.
    #[inline]
    pub fn clear(&mut self) {
        match self.used {
            0 => {}
            // Most invocations have one input and one output.
            1 => self.at(0).state.set(State::Free),
            _ => self.clear_many(),
        }
        self.used = 0;
    }

    #[inline(never)]
    fn clear_many(&mut self) {
        for number in 0..self.used.min(CHUNKS_KEPT * CHUNK_OBJECTS) {
            self.at(number).state.set(State::Free);
        }
        self.free_beyond(CHUNKS_KEPT);
    }

    fn free_beyond(&mut self, kept: usize) {
        while self.chunks.len() > kept {
            let Some(chunk) = self.chunks.pop() else {
                return;
            };
            self.room -= CHUNK_OBJECTS;
            // SAFETY: it came from a Box, was in the list once, and is in it no more.
            drop(unsafe { Box::from_raw(chunk.as_ptr()) });
        }
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        self.free_beyond(0);
    }
}

/// The outputs of one invocation: created, then sent, answered with, or given back.
pub struct Outputs {
    objects: Objects,
    /// Numbers of structs whose object is gone, in the order in which they went, and room for more.
    gone: Vec<u32>,
    gone_count: usize,
    /// How many of those, from the first on, are in use again.
    reused: usize,
    unsent: usize,
}

impl Outputs {
    /// None yet.
    pub fn new(api: *const sdk::Api) -> Self {
        Self {
            objects: Objects::new(api),
            gone: Vec::new(),
            gone_count: 0,
            reused: 0,
            unsent: 0,
        }
    }

    /// A new unsent object; the caller fills in the rest.
    #[inline]
    pub fn create(&mut self) -> &Object {
        self.unsent += 1;
        let object = if self.has_old() {
            self.oldest_gone()
        } else {
            self.objects.add()
        };
        object.state.set(State::Unsent);
        object
    }

    /// What [`Outputs::create`] would give, where it has that at hand. It is created by
    /// [`Outputs::take_fresh`].
    #[inline(always)]
    pub fn fresh(&self) -> Option<&Object> {
        if self.has_old() {
            return None;
        }
        self.objects.fresh()
    }

    /// What [`Outputs::fresh`] gave is unsent from here on.
    #[inline(always)]
    pub fn take_fresh(&mut self) {
        self.unsent += 1;
        self.objects.take_fresh();
    }

    /// So many are gone that the first of them is used again.
    #[inline(always)]
    fn has_old(&self) -> bool {
        self.gone_count - self.reused > QUARANTINE
    }

    /// The struct whose object has been gone for the longest time.
    #[cold]
    fn oldest_gone(&mut self) -> &Object {
        let number = self.gone[self.reused] as usize;
        self.reused += 1;
        if self.reused == QUARANTINE {
            self.gone.copy_within(self.reused..self.gone_count, 0);
            self.gone_count -= self.reused;
            self.reused = 0;
        }
        self.objects.at(number)
    }

    /// Whether there is room to note that one more is gone.
    #[inline(always)]
    pub fn has_room(&self) -> bool {
        self.gone_count < self.gone.len()
    }

    /// Makes that room.
    pub fn make_room(&mut self) {
        if !self.has_room() {
            let len = CHUNK_OBJECTS.max(2 * self.gone_count);
            self.gone.resize(len, 0);
        }
    }

    /// An unsent object is no longer its function's.
    #[inline]
    pub fn end(&mut self, object: &Object, state: State) {
        self.make_room();
        self.end_at_once(object, state);
    }

    /// The same, where there is room for it.
    ///
    /// # Panics
    /// Where there is none.
    #[inline(always)]
    pub fn end_at_once(&mut self, object: &Object, state: State) {
        debug_assert_eq!(object.state.get(), State::Unsent);
        object.state.set(state);
        self.gone[self.gone_count] = object.number.get();
        self.gone_count += 1;
        self.unsent -= 1;
    }

    /// How many are unsent.
    #[inline]
    pub fn unsent(&self) -> usize {
        self.unsent
    }

    /// Calls this for every unsent object, which is no longer its function's.
    #[cold]
    pub fn discard_unsent(&mut self, mut discard: impl FnMut(&Object)) {
        for number in 0..self.objects.len() {
            let object = self.objects.at(number);
            if object.state.get() == State::Unsent {
                object.state.set(State::Discarded);
                discard(object);
            }
        }
        self.unsent = 0;
    }

    /// Forgets all outputs.
    #[inline]
    pub fn clear(&mut self) {
        self.objects.clear();
        self.gone_count = 0;
        self.reused = 0;
        self.unsent = 0;
    }
}

/// Writes `~I.N`; returns its length.
pub fn write_auto_key(text: &mut [u8; AUTO_KEY_BYTES_MAX], invocation: u64, ordinal: u32) -> usize {
    use std::io::Write as _;
    let mut rest = &mut text[..];
    let room = rest.len();
    // The array has room for the longest numbers.
    let _ = write!(rest, "~{invocation}.{ordinal}");
    room - rest.len()
}

/// `~`, 20 digits, a dot, 10 digits.
pub const AUTO_KEY_BYTES_MAX: usize = 1 + 20 + 1 + 10;

/// The two numbers of an automatic key's text; `None` for any other text.
pub fn parse_auto_key(text: &[u8]) -> Option<(u64, u32)> {
    let text = std::str::from_utf8(text.strip_prefix(b"~")?).ok()?;
    let (invocation, ordinal) = text.split_once('.')?;
    let plain = |digits: &str| {
        !digits.is_empty()
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && (digits == "0" || !digits.starts_with('0'))
    };
    if !plain(invocation) || !plain(ordinal) {
        return None;
    }
    Some((invocation.parse().ok()?, ordinal.parse().ok()?))
}

/// The status that a use of this object as an output deserves, where it is not unsent.
pub fn why_not_unsent(state: State) -> Option<(c_int, &'static str)> {
    Some(match state {
        State::Unsent => return None,
        State::Held => (
            sdk::EINVAL,
            "the object is an input: its payload is not copied, so publish it again by phr_forward",
        ),
        State::Sent => (
            sdk::EINVAL,
            "the object has been sent before; create another, or forward what arrives",
        ),
        State::Discarded => (sdk::EINVAL, "the object has been discarded; create another"),
        State::Free => (
            sdk::EINVAL,
            "the object is of an earlier invocation; objects do not outlive their function's \
             return",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api() -> *const sdk::Api {
        std::ptr::dangling()
    }

    #[test]
    fn objects_stay_where_they_are() {
        let mut objects = Objects::new(api());
        let handles: Vec<_> = (0..1_000)
            .map(|i| {
                let object = objects.add();
                object.size_bytes.set(i);
                object.handle()
            })
            .collect();
        for (i, handle) in handles.iter().enumerate() {
            // SAFETY: the arena is alive.
            let object = unsafe { Object::from_handle(*handle, api()) }.expect("one of ours");
            assert_eq!(object.size_bytes.get(), i as u64);
            assert_eq!(objects.at(i).handle(), *handle);
        }
    }

    #[test]
    fn a_large_invocation_leaves_little_behind() {
        let mut objects = Objects::new(api());
        for _ in 0..100_000 {
            objects.add();
        }
        objects.clear();
        assert_eq!((objects.len(), objects.chunks.len()), (0, CHUNKS_KEPT));
        let object = objects.add();
        assert_eq!(object.state.get(), State::Free);
    }

    #[test]
    fn a_sent_struct_is_used_again_only_after_many_others() {
        let mut outputs = Outputs::new(api());
        let first = outputs.create().handle();
        for round in 0..10 * QUARANTINE {
            // SAFETY: the arena is alive.
            let first_object = unsafe { Object::from_handle(first, api()) }.expect("ours");
            if round == 0 {
                outputs.end(first_object, State::Sent);
            }
            let number = outputs.create().number.get() as usize;
            assert!(round >= QUARANTINE || first_object.state.get() == State::Sent);
            let handle = outputs.objects.at(number).handle();
            // SAFETY: the arena is alive.
            let object = unsafe { Object::from_handle(handle, api()) }.expect("ours");
            outputs.end(object, State::Sent);
        }
        assert!(
            outputs.objects.len() <= QUARANTINE + 2,
            "{}",
            outputs.objects.len()
        );
        assert_eq!(outputs.unsent(), 0);
    }

    #[test]
    fn what_is_at_hand_is_what_would_be_created() {
        let mut outputs = Outputs::new(api());
        assert!(outputs.fresh().is_none(), "there is no memory yet");
        for number in 0..3 * CHUNK_OBJECTS {
            if number % CHUNK_OBJECTS == 0 {
                assert!(outputs.fresh().is_none(), "a chunk is full");
                assert_eq!(outputs.create().number.get() as usize, number);
            } else {
                let object = outputs.fresh().expect("the chunk has room");
                object.state.set(State::Unsent);
                assert_eq!(object.number.get() as usize, number);
                outputs.take_fresh();
            }
            assert_eq!(outputs.unsent(), number + 1);
        }
        outputs.clear();
        let mut ended = 0;
        while let Some(object) = outputs.fresh() {
            object.state.set(State::Unsent);
            let handle = object.handle();
            outputs.take_fresh();
            if !outputs.has_room() {
                outputs.make_room();
            }
            // SAFETY: the arena is alive.
            let object = unsafe { Object::from_handle(handle, api()) }.expect("ours");
            outputs.end_at_once(object, State::Sent);
            ended += 1;
        }
        assert_eq!((ended, outputs.unsent()), (3 * CHUNK_OBJECTS, 0));
        let mut used = ended;
        while used <= QUARANTINE {
            let handle = outputs.create().handle();
            // SAFETY: the arena is alive.
            let object = unsafe { Object::from_handle(handle, api()) }.expect("ours");
            outputs.end(object, State::Sent);
            used += 1;
        }
        assert!(outputs.fresh().is_none(), "an old one comes first");
        assert_eq!(outputs.create().number.get(), 0);
    }

    #[test]
    fn unsent_objects_are_found_at_the_end() {
        let mut outputs = Outputs::new(api());
        for i in 0..300 {
            let handle = outputs.create().handle();
            // SAFETY: the arena is alive.
            let object = unsafe { Object::from_handle(handle, api()) }.expect("ours");
            object.size_bytes.set(i);
            if i % 3 != 0 {
                outputs.end(
                    object,
                    if i % 3 == 1 {
                        State::Sent
                    } else {
                        State::Discarded
                    },
                );
            }
        }
        assert_eq!(outputs.unsent(), 100);
        let mut found = Vec::new();
        outputs.discard_unsent(|object| found.push(object.size_bytes.get()));
        assert_eq!(found, (0..300).step_by(3).collect::<Vec<u64>>());
        assert_eq!(outputs.unsent(), 0);
        outputs.discard_unsent(|_| unreachable!("an object is given back once"));
    }

    #[test]
    fn automatic_keys_are_numbers_both_ways() {
        let mut text = [0; AUTO_KEY_BYTES_MAX];
        for (invocation, ordinal) in [(0, 0), (17, 3), (u64::MAX, u32::MAX)] {
            let length = write_auto_key(&mut text, invocation, ordinal);
            assert_eq!(
                text[..length],
                *format!("~{invocation}.{ordinal}").as_bytes()
            );
            assert_eq!(parse_auto_key(&text[..length]), Some((invocation, ordinal)));
        }
        for wrong in [
            "",
            "~",
            "~1",
            "~1.",
            "~.1",
            "~01.2",
            "~1.02",
            "~+1.2",
            "1.2",
            "~1.4294967296",
        ] {
            assert_eq!(parse_auto_key(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn null_and_foreign_pointers_are_no_objects() {
        let mut objects = Objects::new(api());
        let handle = objects.add().handle();
        // SAFETY: NULL is allowed.
        assert!(unsafe { Object::from_handle(std::ptr::null(), api()) }.is_none());
        // SAFETY: the arena is alive; the table is another.
        assert!(unsafe { Object::from_handle(handle, std::ptr::null()) }.is_none());
    }
}
