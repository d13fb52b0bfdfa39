//! Messages as bytes, and the judgement of bytes that a peer has written.
//!
//! A message begins with a head of words, little-endian, whose lowest byte is its kind (the second
//! is the ring's); byte strings follow directly, lists of inputs at multiples of 8 bytes
//! (`docs/layout.md` draws all of them). Encoding and decoding allocate nothing. What is decoded is
//! always a private copy, and everything that its form promises is checked here: kinds, flags,
//! lengths, the bytes of names, and that a payload is smaller than its extent. What indices and
//! regions mean is for others to check.

use crate::events::EventList;
use crate::message::{
    CONTENT_TYPE_BYTES_MAX, Dispatch, Ending, Extent, FromExecutor, GROUP_BYTES_MAX, HeadersRef,
    Input, InputKey, KEY_BYTES_MAX, Key, MESSAGE_BYTES_MAX, NO_BUCKET, NO_DEADLINE, Target,
    ToExecutor, UNIT_BYTES,
};
use crate::ring::{RingFault, SLOT_DATA_WORDS, SlotData};

/// Slots of one message, at most: room for a key and a group of 255 bytes each and what else an
/// object is known by.
pub const MESSAGE_SLOTS_MAX: usize = 10;
/// Bytes that one slot carries beside its sequence.
pub const SLOT_DATA_BYTES: usize = 56;
/// Bytes of a message that travels in slots.
pub const INLINE_BYTES_MAX: usize = MESSAGE_SLOTS_MAX * SLOT_DATA_BYTES;
/// Bytes of a message that travels through an `args` area (the area's size): 1 170 inputs with
/// names of up to 16 bytes, or 8 190 extents.
pub const ARGS_BYTES: usize = 64 * 1024;
/// Objects of one `Fire` or `Drop`: what an `args` area has beside the message's head.
pub const VERDICT_OBJECTS_MAX: usize = (ARGS_BYTES - VERDICT_HEAD_BYTES) / 8;
/// Bytes of the encoded keys of one `Join`: what an `args` area has beside the message's head.
pub const JOIN_KEYS_BYTES_MAX: usize = ARGS_BYTES - LIST_HEAD_BYTES;

/// Kinds of messages from an executor.
mod from_kind {
    pub const READY: u8 = 1;
    pub const PUBLISH: u8 = 2;
    pub const FORWARD: u8 = 3;
    pub const RESPOND: u8 = 4;
    pub const RESPOND_PARTS: u8 = 5;
    pub const COMPLETE: u8 = 6;
    pub const GET: u8 = 7;
    pub const RELEASE_HOLD: u8 = 8;
    pub const FETCH_INPUTS: u8 = 9;
    pub const FETCH_EXTENTS: u8 = 10;
    pub const NEED_CREDIT: u8 = 11;
    pub const LOADED: u8 = 12;
    pub const JOIN: u8 = 13;
    pub const REDUNDANT: u8 = 14;
    pub const EXPECT_SOURCES: u8 = 15;
    pub const CLOSE_SOURCE: u8 = 16;
    pub const FETCH_ATTACHED: u8 = 17;
    pub const FAIL_SESSION: u8 = 18;
    pub const PARENT: u8 = 19;
    pub const FIRE: u8 = 20;
    pub const DROP: u8 = 21;
    pub const TICK_AT: u8 = 22;
    pub const PERSIST: u8 = 23;
    pub const LOAD: u8 = 24;
    pub const OFFER: u8 = 25;
    pub const CONTINUE: u8 = 26;
}

/// Kinds of messages to an executor.
mod to_kind {
    pub const DISPATCH: u8 = 1;
    pub const DISPATCH_LONG: u8 = 2;
    pub const REQUEST: u8 = 3;
    pub const INPUTS: u8 = 4;
    pub const OBJECT: u8 = 5;
    pub const CREDIT: u8 = 6;
    pub const ADOPT: u8 = 7;
    pub const EXTENTS: u8 = 8;
    pub const EXIT: u8 = 9;
    pub const PARENT: u8 = 10;
    pub const EVENTS: u8 = 11;
    pub const PERSISTED: u8 = 12;
}

/// Kind of the one-slot message that stands in the ring for a message in the `args` area. Its
/// second word is the message's length in bytes.
pub(crate) const SPILLED: u8 = 0xff;

/// Flags of `Publish` and `Forward`: where to.
const TARGET_BUCKET: u8 = 0;
const TARGET_NEXT: u8 = 1;
const TARGET_FUNCTION: u8 = 2;
const TARGET_MASK: u8 = 3;
/// Flag of `Publish`, `Forward` and of an input: the key is automatic, and a number.
const AUTO_KEY: u8 = 4;
/// Flag of an input with an automatic key: how many objects are attached to it is said. With a
/// named key that stands where an automatic one has its ordinal.
const ATTACHED: u8 = 1;
/// Flag of `Publish` and `Forward`: a delay is said.
const DELAYED: u8 = 8;
/// Flag of `RespondParts`, `Join` and `Fire`.
const MORE: u8 = 1;
/// Flag of `Respond`: a session is said.
const ADDRESSED: u8 = 1;
/// Flags of a dispatch.
const HAS_CALLER: u8 = 1;
const HAS_HEADERS: u8 = 2;
const HAS_REQUEST: u8 = 4;
/// The request came in a message before this one.
const REQUEST_BEFORE: u8 = 8;
const HAS_WINDOW: u8 = 16;
/// Flag of `Object` and `Credit`.
const YES: u8 = 1;

/// A message that breaks its own form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// An empty key, or one that is too long.
    #[error("a key of {0} bytes, where 1 to {KEY_BYTES_MAX} are possible")]
    KeyLength(usize),
    /// A key with a byte that no key has.
    #[error("a key with a zero byte, or one that begins with `~`, which names automatic keys only")]
    KeyByte,
    /// A group that is too long.
    #[error("a group of {0} bytes, where at most {GROUP_BYTES_MAX} are possible")]
    GroupLength(usize),
    /// A group with a zero byte.
    #[error("a group with a zero byte")]
    GroupByte,
    /// A failure message that is too long.
    #[error("a failure message of {0} bytes, where at most {MESSAGE_BYTES_MAX} are possible")]
    MessageLength(usize),
    /// A content type that is too long.
    #[error("a content type of {0} bytes, where at most {CONTENT_TYPE_BYTES_MAX} are possible")]
    ContentTypeLength(usize),
    /// A list that is not made of whole numbers, or too long for one message.
    #[error(
        "a list of {0} bytes, where whole numbers up to {ARGS_BYTES} bytes in all are possible"
    )]
    ListLength(usize),
    /// A list of keys that ends within a key, or is too long for one message.
    #[error(
        "a list of keys of {0} bytes, where whole keys up to {JOIN_KEYS_BYTES_MAX} bytes in all \
         are possible"
    )]
    KeyList(usize),
    /// An ordinal beside a key that says another, or for an object that has none.
    #[error("the ordinal {0}, which is not what its key and target say")]
    Ordinal(u32),
    /// So many of so many that no round can have them.
    #[error("a round of {k} out of {n}, where 1 to {n} are possible")]
    Round {
        /// How many are enough.
        k: u32,
        /// How many come.
        n: u32,
    },
    /// An HTTP status that no response has.
    #[error("an HTTP status of {0}, where 200 to 599 are possible")]
    HttpStatus(u16),
    /// An empty extent, or one beyond the last unit that can be named.
    #[error("an extent of {len_units} units at unit {offset_units}, which no region has")]
    Extent {
        /// Its start.
        offset_units: u32,
        /// Its length.
        len_units: u32,
    },
    /// A payload that does not fit its extent with the zero byte that follows it.
    #[error("a payload of {size_bytes} bytes in an extent of {extent_bytes}")]
    Size {
        /// Payload bytes.
        size_bytes: u64,
        /// Bytes of the extent.
        extent_bytes: u64,
    },
    /// A bucket by the number that means none.
    #[error("a bucket by the number {NO_BUCKET}, which means none")]
    NoBucket,
}

/// What a peer wrote is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Garbled {
    /// The ring itself.
    #[error("{0}")]
    Ring(#[from] RingFault),
    /// A kind that there is not.
    #[error("a message is of kind {0}, which there is not")]
    Kind(u8),
    /// Bits that mean nothing.
    #[error("a message of kind {kind} has bits set that mean nothing")]
    Reserved {
        /// Its kind.
        kind: u8,
    },
    /// Its length is not what its own fields say.
    #[error(
        "a message of kind {kind} has {given_bytes} bytes where its fields need {needed_bytes}"
    )]
    Length {
        /// Its kind.
        kind: u8,
        /// What its fields need.
        needed_bytes: usize,
        /// What the ring or the `args` area says it has.
        given_bytes: usize,
    },
    /// A message in the `args` area that is longer than the area.
    #[error("a message in the args area claims {0} bytes, where at most {ARGS_BYTES} are possible")]
    Spill(u64),
    /// An ending that there is not.
    #[error("an attempt ended in the way {0}, which there is not")]
    Ending(u8),
    /// A request that no dispatch follows, or a dispatch whose request did not come.
    #[error("a dispatch and its request do not belong together")]
    Request,
    /// An event that there is not, or one that is cut off.
    #[error("a custom trigger was told of an event that there is not, or that is cut off")]
    Event,
    /// The form of a message that this crate writes as well.
    #[error("a message has {0}")]
    Form(#[from] Malformed),
}

/// One message in private memory: as the ring's slots, and as bytes.
#[derive(Clone, Debug)]
pub(crate) struct Slots(pub(crate) [SlotData; MESSAGE_SLOTS_MAX]);

impl Slots {
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self([[0; 7]; MESSAGE_SLOTS_MAX]))
    }

    #[inline(always)]
    pub(crate) fn bytes(&self) -> &[u8; INLINE_BYTES_MAX] {
        let bytes = self.0.as_ptr().cast::<[u8; INLINE_BYTES_MAX]>();
        // SAFETY: 10 * 7 words are 560 bytes without padding, in private memory, borrowed as
        // `self`.
        unsafe { &*bytes }
    }

    #[inline(always)]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8; INLINE_BYTES_MAX] {
        let bytes = self.0.as_mut_ptr().cast::<[u8; INLINE_BYTES_MAX]>();
        // SAFETY: as in `bytes`, and any bytes make valid words.
        unsafe { &mut *bytes }
    }

    /// The slots of a message of so many bytes.
    #[inline(always)]
    pub(crate) fn of_len(&self, len_bytes: usize) -> &[SlotData] {
        &self.0[..len_bytes.div_ceil(SLOT_DATA_BYTES)]
    }
}

/// Private memory that messages are copied into before they are judged.
#[derive(Debug)]
pub struct MessageBuffer {
    /// A message from the ring.
    pub(crate) slots: Box<Slots>,
    /// The request that came before its dispatch.
    pub(crate) request: Box<Slots>,
    /// Slots of the request whose dispatch has not come yet.
    pub(crate) request_slots: usize,
    /// A message from the `args` area.
    pub(crate) spill: Vec<u8>,
}

impl Default for MessageBuffer {
    fn default() -> Self {
        Self {
            slots: Slots::new(),
            request: Slots::new(),
            request_slots: 0,
            spill: Vec::new(),
        }
    }
}

/// Words of a message before its byte strings, at most.
const FORM_WORDS_MAX: usize = 5;

/// A message in its encoded parts: some words, then two byte strings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form<'a> {
    words: [u64; FORM_WORDS_MAX],
    word_count: usize,
    first: &'a [u8],
    second: &'a [u8],
}

impl<'a> Form<'a> {
    fn new<const N: usize>(head: [u64; N], first: &'a [u8], second: &'a [u8]) -> Self {
        const { assert!(N <= FORM_WORDS_MAX) };
        let mut words = [0; FORM_WORDS_MAX];
        words[..N].copy_from_slice(&head);
        Self {
            words,
            word_count: N,
            first,
            second,
        }
    }

    /// The same with one more word, where there is something for it to say.
    #[inline]
    fn and(mut self, word: Option<u64>) -> Self {
        if let Some(word) = word {
            self.words[self.word_count] = word;
            self.word_count += 1;
        }
        self
    }

    /// Encoded bytes.
    pub(crate) fn len(&self) -> usize {
        self.word_count * 8 + self.first.len() + self.second.len()
    }

    /// Writes the message to the start of `out`, which has room for [`Form::len`] bytes, and zeros
    /// to the end of its last slot.
    #[inline]
    pub(crate) fn write(&self, out: &mut [u8]) {
        let head = self.word_count * 8;
        for (bytes, word) in out.chunks_exact_mut(8).zip(&self.words[..self.word_count]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let middle = head + self.first.len();
        out[head..middle].copy_from_slice(self.first);
        let end = middle + self.second.len();
        out[middle..end].copy_from_slice(self.second);
        let padded = end.next_multiple_of(SLOT_DATA_BYTES).min(out.len());
        out[end..padded].fill(0);
    }
}

/// Packs a message's first word: kind, the ring's byte, flags, two lengths, a zero, a number.
#[inline]
fn head(kind: u8, flags: u8, a: u8, b: u8, number: u16) -> u64 {
    u64::from(kind)
        | u64::from(flags) << 16
        | u64::from(a) << 24
        | u64::from(b) << 32
        | u64::from(number) << 48
}

/// Packs the first word of a message that is about a 32-bit number.
fn numbered(kind: u8, flags: u8, number: u32) -> u64 {
    u64::from(kind) | u64::from(flags) << 16 | u64::from(number) << 32
}

/// The fields of a first word.
#[derive(Clone, Copy)]
struct Head {
    flags: u8,
    a: u8,
    b: u8,
    zero: u8,
    number: u16,
    /// The upper half, where that is one number.
    wide: u32,
}

impl Head {
    #[inline(always)]
    fn of(word: u64) -> Self {
        Self {
            flags: (word >> 16) as u8,
            a: (word >> 24) as u8,
            b: (word >> 32) as u8,
            zero: (word >> 40) as u8,
            number: (word >> 48) as u16,
            wide: (word >> 32) as u32,
        }
    }
}

/// Two 32-bit numbers as a word.
#[inline]
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// Judges the name of an object to be published.
fn judge_names(key: Key<'_>, group: &[u8]) -> Result<(), Malformed> {
    judge_group(group)?;
    let Key::Named(key) = key else {
        return Ok(());
    };
    judge_key(key)?;
    if key[0] == b'~' {
        return Err(Malformed::KeyByte);
    }
    Ok(())
}

/// What the heads of `Publish` and `Forward` have in common.
struct Naming<'a> {
    first: u64,
    key: &'a [u8],
    /// The ordinal, where the message says one.
    ordinal: Option<u32>,
    /// The delay, where there is one.
    delay_ns: Option<u64>,
}

impl<'a> Naming<'a> {
    #[inline]
    fn new(
        kind: u8,
        target: Target,
        key: Key<'a>,
        ordinal: u32,
        group: &[u8],
        delay_ns: u64,
    ) -> Result<Self, Malformed> {
        judge_names(key, group)?;
        let (to, number) = target_parts(target)?;
        let (key_flag, key, expected) = match key {
            Key::Auto(number) => (AUTO_KEY, &[][..], number),
            Key::Named(key) if to == TARGET_BUCKET => (0, key, 0),
            Key::Named(key) => (0, key, ordinal),
        };
        if ordinal != expected {
            return Err(Malformed::Ordinal(ordinal));
        }
        let delay_flag = if delay_ns > 0 { DELAYED } else { 0 };
        let flags = to | key_flag | delay_flag;
        Ok(Self {
            first: head(kind, flags, key.len() as u8, group.len() as u8, number),
            key,
            ordinal: says_ordinal(flags).then_some(ordinal),
            delay_ns: (delay_ns > 0).then_some(delay_ns),
        })
    }
}

/// Whether an object of these flags has an ordinal: its identity, or its automatic key, is one.
#[inline]
fn says_ordinal(flags: u8) -> bool {
    flags & AUTO_KEY != 0 || flags & TARGET_MASK != TARGET_BUCKET
}

/// Judges a key that may be the text of an automatic one.
fn judge_key(key: &[u8]) -> Result<(), Malformed> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(Malformed::KeyLength(key.len()));
    }
    if key.contains(&0) {
        return Err(Malformed::KeyByte);
    }
    Ok(())
}

fn judge_group(group: &[u8]) -> Result<(), Malformed> {
    if group.len() > GROUP_BYTES_MAX {
        return Err(Malformed::GroupLength(group.len()));
    }
    if group.contains(&0) {
        return Err(Malformed::GroupByte);
    }
    Ok(())
}

#[inline]
fn judge_extent(extent: Extent, size_bytes: u64) -> Result<(), Malformed> {
    if extent.len_units == 0 || extent.end_units() > 1 << 32 {
        return Err(Malformed::Extent {
            offset_units: extent.offset_units,
            len_units: extent.len_units,
        });
    }
    if size_bytes >= extent.len_bytes() {
        return Err(Malformed::Size {
            size_bytes,
            extent_bytes: extent.len_bytes(),
        });
    }
    Ok(())
}

fn judge_response(http_status: u16, content_type: &[u8]) -> Result<(), Malformed> {
    if !(200..=599).contains(&http_status) {
        return Err(Malformed::HttpStatus(http_status));
    }
    if content_type.len() > CONTENT_TYPE_BYTES_MAX {
        return Err(Malformed::ContentTypeLength(content_type.len()));
    }
    Ok(())
}

/// Judges a list of encoded keys.
fn judge_join_keys(mut bytes: &[u8]) -> Result<(), Malformed> {
    let all = bytes.len();
    if all > JOIN_KEYS_BYTES_MAX {
        return Err(Malformed::KeyList(all));
    }
    while !bytes.is_empty() {
        let (key, rest) = split_join_key(bytes).ok_or(Malformed::KeyList(all))?;
        judge_key(key)?;
        bytes = rest;
    }
    Ok(())
}

/// The first key of a list, and the rest of the list.
fn split_join_key(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*len))
}

/// Encodes one more key of a [`FromExecutor::Join`].
///
/// # Panics
/// On a key of over 255 bytes: callers judge keys before they get here.
pub fn put_join_key(keys: &mut Vec<u8>, key: &[u8]) {
    keys.push(u8::try_from(key.len()).expect("a key has at most 255 bytes"));
    keys.extend_from_slice(key);
}

/// The keys of a [`FromExecutor::Join`], in order.
pub fn join_keys(keys: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = keys;
    std::iter::from_fn(move || {
        // Judged when the message came in, so this ends the list only where it ends.
        let key;
        (key, rest) = split_join_key(rest)?;
        Some(key)
    })
}

fn judge_round(k: u32, n: u32) -> Result<(), Malformed> {
    if k == 0 || k > n {
        return Err(Malformed::Round { k, n });
    }
    Ok(())
}

/// Judges the objects of a `Fire` or `Drop`.
fn judge_verdict_list(bytes: &[u8]) -> Result<(), Malformed> {
    if !bytes.len().is_multiple_of(8) || bytes.len() > 8 * VERDICT_OBJECTS_MAX {
        return Err(Malformed::ListLength(bytes.len()));
    }
    Ok(())
}

fn judge_list(bytes: &[u8], number_bytes: usize) -> Result<(), Malformed> {
    let most = ARGS_BYTES - 16 - CONTENT_TYPE_BYTES_MAX;
    if !bytes.len().is_multiple_of(number_bytes) || bytes.len() > most {
        return Err(Malformed::ListLength(bytes.len()));
    }
    Ok(())
}

#[inline]
fn target_parts(target: Target) -> Result<(u8, u16), Malformed> {
    match target {
        Target::Bucket(NO_BUCKET) => Err(Malformed::NoBucket),
        _ => Ok(known_target_parts(target)),
    }
}

/// The one slot of what executors say most: an object with an automatic key and no group, and a
/// success. `None` for anything else, and for what breaks its form: [`Form::of`] says how.
#[inline]
pub(crate) fn short_from_executor(message: &FromExecutor<'_>) -> Option<SlotData> {
    match *message {
        FromExecutor::Publish {
            target,
            extent,
            size_bytes,
            key: Key::Auto(number),
            ordinal,
            group: [],
            delay_ns: 0,
        } if number == ordinal => {
            judge_extent(extent, size_bytes).ok()?;
            let to = target_parts(target).ok()?;
            Some(publish_slot(to, extent, size_bytes, ordinal))
        }
        FromExecutor::Complete {
            status,
            ending: Ending::Returned,
            discarded,
            message: [],
        } => Some(complete_slot(status, discarded)),
        _ => None,
    }
}

/// A publication with an automatic key and nothing else, to this [target](known_target_parts).
#[inline(always)]
fn publish_slot(
    (to, number): (u8, u16),
    extent: Extent,
    size_bytes: u64,
    ordinal: u32,
) -> SlotData {
    let first = head(from_kind::PUBLISH, to | AUTO_KEY, 0, 0, number);
    let (place, ordinal) = (extent_word(extent), u64::from(ordinal));
    [first, place, size_bytes, ordinal, 0, 0, 0]
}

/// A return without a sentence.
#[inline(always)]
fn complete_slot(status: i32, discarded: u32) -> SlotData {
    let first = head(from_kind::COMPLETE, 0, Ending::Returned as u8, 0, 0);
    [first, pair(status as u32, discarded), 0, 0, 0, 0, 0]
}

/// The same, and that of an offer and of going on with it, of those who know what they say: its
/// form is the caller's word, and the scheduler's to judge.
#[inline(always)]
pub(crate) fn short_known(message: &FromExecutor<'_>) -> Option<SlotData> {
    debug_assert!(Form::of(message).is_ok(), "{message:?}");
    match *message {
        FromExecutor::Publish {
            target,
            extent,
            size_bytes,
            key: Key::Auto(_),
            ordinal,
            group: [],
            delay_ns: 0,
        } => {
            let to = known_target_parts(target);
            Some(publish_slot(to, extent, size_bytes, ordinal))
        }
        FromExecutor::Complete {
            status,
            ending: Ending::Returned,
            discarded,
            message: [],
        } => Some(complete_slot(status, discarded)),
        FromExecutor::Offer {
            target,
            extent,
            size_bytes,
            ordinal,
            invocation,
        } => {
            let (to, number) = known_target_parts(target);
            let first = head(from_kind::OFFER, to, 0, 0, number);
            let (place, ordinal) = (extent_word(extent), u64::from(ordinal));
            Some([first, place, size_bytes, ordinal, invocation, 0, 0])
        }
        FromExecutor::Continue { discarded } => {
            let first = head(from_kind::CONTINUE, 0, 0, 0, 0);
            Some([first, u64::from(discarded), 0, 0, 0, 0, 0])
        }
        _ => None,
    }
}

/// As [`target_parts`], of a bucket that there is.
#[inline(always)]
fn known_target_parts(target: Target) -> (u8, u16) {
    match target {
        Target::Bucket(bucket) => (TARGET_BUCKET, bucket),
        Target::Next => (TARGET_NEXT, 0),
        Target::Function(function) => (TARGET_FUNCTION, function),
    }
}

impl<'a> Form<'a> {
    /// The encoded parts of what an executor says.
    pub(crate) fn of(message: &FromExecutor<'a>) -> Result<Self, Malformed> {
        use from_kind as kind;
        Ok(match *message {
            FromExecutor::Ready => Self::new([head(kind::READY, 0, 0, 0, 0)], &[], &[]),
            FromExecutor::Loaded => Self::new([head(kind::LOADED, 0, 0, 0, 0)], &[], &[]),
            FromExecutor::Persist => Self::new([head(kind::PERSIST, 0, 0, 0, 0)], &[], &[]),
            FromExecutor::Publish {
                target,
                extent,
                size_bytes,
                key,
                ordinal,
                group,
                delay_ns,
            } => {
                judge_extent(extent, size_bytes)?;
                let naming = Naming::new(kind::PUBLISH, target, key, ordinal, group, delay_ns)?;
                let words = [naming.first, extent_word(extent), size_bytes];
                Self::new(words, naming.key, group)
                    .and(naming.ordinal.map(u64::from))
                    .and(naming.delay_ns)
            }
            FromExecutor::Offer {
                target,
                extent,
                size_bytes,
                ordinal,
                invocation,
            } => {
                judge_extent(extent, size_bytes)?;
                let (to, number) = target_parts(target)?;
                let first = head(kind::OFFER, to, 0, 0, number);
                let place = extent_word(extent);
                let words = [first, place, size_bytes, u64::from(ordinal), invocation];
                Self::new(words, &[], &[])
            }
            FromExecutor::Continue { discarded } => {
                let first = head(kind::CONTINUE, 0, 0, 0, 0);
                Self::new([first, u64::from(discarded)], &[], &[])
            }
            FromExecutor::Forward {
                target,
                object,
                key,
                ordinal,
                group,
                delay_ns,
            } => {
                let naming = Naming::new(kind::FORWARD, target, key, ordinal, group, delay_ns)?;
                let words = [naming.first, pair(object, ordinal)];
                Self::new(words, naming.key, group).and(naming.delay_ns)
            }
            FromExecutor::Respond {
                session,
                extent,
                size_bytes,
                http_status,
                content_type,
            } => {
                judge_extent(extent, size_bytes)?;
                judge_response(http_status, content_type)?;
                let length = content_type.len() as u8;
                let flags = if session != 0 { ADDRESSED } else { 0 };
                let first = head(kind::RESPOND, flags, length, 0, http_status);
                Self::new([first, extent_word(extent), size_bytes], content_type, &[])
                    .and((session != 0).then_some(session))
            }
            FromExecutor::FailSession {
                session,
                status,
                message,
            } => {
                if message.len() > MESSAGE_BYTES_MAX {
                    return Err(Malformed::MessageLength(message.len()));
                }
                let first = head(kind::FAIL_SESSION, 0, 0, 0, message.len() as u16);
                let second = u64::from(status as u32);
                Self::new([first, second, session], message, &[])
            }
            FromExecutor::Parent { number } => Self::numbered(kind::PARENT, 0, number),
            FromExecutor::RespondParts {
                more,
                http_status,
                content_type,
                objects,
            } => {
                judge_response(http_status, content_type)?;
                judge_list(objects, 4)?;
                let length = content_type.len() as u8;
                let flags = if more { MORE } else { 0 };
                let first = head(kind::RESPOND_PARTS, flags, length, 0, http_status);
                Self::new([first, objects.len() as u64], objects, content_type)
            }
            FromExecutor::Complete {
                status,
                ending,
                discarded,
                message,
            } => {
                if message.len() > MESSAGE_BYTES_MAX {
                    return Err(Malformed::MessageLength(message.len()));
                }
                let length = message.len() as u16;
                let first = head(kind::COMPLETE, 0, ending as u8, 0, length);
                Self::new([first, pair(status as u32, discarded)], message, &[])
            }
            FromExecutor::Get {
                bucket,
                timeout_ns,
                key,
            } => {
                judge_key(key)?;
                let first = head(kind::GET, 0, key.len() as u8, 0, bucket);
                Self::new([first, timeout_ns], key, &[])
            }
            FromExecutor::Load { bucket, key } => {
                judge_key(key)?;
                let first = head(kind::LOAD, 0, key.len() as u8, 0, bucket);
                Self::new([first], key, &[])
            }
            FromExecutor::ReleaseHold { bucket, key } => {
                judge_key(key)?;
                let first = head(kind::RELEASE_HOLD, 0, key.len() as u8, 0, bucket);
                Self::new([first], key, &[])
            }
            FromExecutor::Join {
                trigger,
                more,
                keys,
            } => {
                judge_join_keys(keys)?;
                let flags = if more { MORE } else { 0 };
                let first = head(kind::JOIN, flags, 0, 0, trigger);
                Self::new([first, keys.len() as u64], keys, &[])
            }
            FromExecutor::Redundant { trigger, k, n } => {
                judge_round(k, n)?;
                let first = head(kind::REDUNDANT, 0, 0, 0, trigger);
                Self::new([first, pair(k, n)], &[], &[])
            }
            FromExecutor::ExpectSources { trigger, sources } => {
                let first = head(kind::EXPECT_SOURCES, 0, 0, 0, trigger);
                Self::new([first, u64::from(sources)], &[], &[])
            }
            FromExecutor::CloseSource { trigger } => {
                Self::new([head(kind::CLOSE_SOURCE, 0, 0, 0, trigger)], &[], &[])
            }
            FromExecutor::Fire {
                function,
                more,
                session,
                objects,
            } => {
                judge_verdict_list(objects)?;
                let flags = if more { MORE } else { 0 };
                let first = head(kind::FIRE, flags, 0, 0, function);
                Self::new([first, session, objects.len() as u64], objects, &[])
            }
            FromExecutor::Drop { session, objects } => {
                judge_verdict_list(objects)?;
                let first = head(kind::DROP, 0, 0, 0, 0);
                Self::new([first, session, objects.len() as u64], objects, &[])
            }
            FromExecutor::TickAt { time_ns } => {
                Self::new([head(kind::TICK_AT, 0, 0, 0, 0), time_ns], &[], &[])
            }
            FromExecutor::FetchInputs { first } => Self::numbered(kind::FETCH_INPUTS, 0, first),
            FromExecutor::FetchAttached { object, first } => {
                let first_word = numbered(kind::FETCH_ATTACHED, 0, object);
                Self::new([first_word, u64::from(first)], &[], &[])
            }
            FromExecutor::FetchExtents { first } => Self::numbered(kind::FETCH_EXTENTS, 0, first),
            FromExecutor::NeedCredit { bytes } => {
                Self::new([head(kind::NEED_CREDIT, 0, 0, 0, 0), bytes], &[], &[])
            }
        })
    }

    /// A message that is a kind, a flag and a number.
    fn numbered(kind: u8, flags: u8, number: u32) -> Self {
        Self::new([numbered(kind, flags, number)], &[], &[])
    }

    /// The slot that stands for a message of this length in the `args` area.
    pub(crate) fn spilled(len_bytes: usize) -> Self {
        Self::new([head(SPILLED, 0, 0, 0, 0), len_bytes as u64], &[], &[])
    }

    /// The answer to `Persist`.
    pub(crate) fn persisted(status: i32) -> Self {
        Self::numbered(to_kind::PERSISTED, 0, status as u32)
    }

    /// The answer to `NeedCredit`.
    pub(crate) fn credit(granted: bool) -> Self {
        let flags = if granted { YES } else { 0 };
        Self::numbered(to_kind::CREDIT, flags, 0)
    }

    /// The region had an owner before.
    pub(crate) fn adopt(extent_count: u32) -> Self {
        Self::numbered(to_kind::ADOPT, 0, extent_count)
    }

    /// The answer to `Parent`.
    pub(crate) fn parent(count: u32, session: u64) -> Self {
        Self::new([numbered(to_kind::PARENT, 0, count), session], &[], &[])
    }

    /// Leave.
    pub(crate) fn exit() -> Self {
        Self::numbered(to_kind::EXIT, 0, 0)
    }
}

/// Reads the fields of a copied message, checking that each is there.
struct Reader<'a> {
    kind: u8,
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, Garbled> {
        let reader = Self {
            kind: bytes.first().copied().unwrap_or(0),
            bytes,
        };
        reader.word(0)?;
        Ok(reader)
    }

    #[inline(always)]
    fn word(&self, at: usize) -> Result<u64, Garbled> {
        match self.bytes.as_chunks::<8>().0.get(at) {
            Some(bytes) => Ok(u64::from_le_bytes(*bytes)),
            None => Err(self.length(at * 8 + 8)),
        }
    }

    fn range(&self, start: usize, len: usize) -> Result<&'a [u8], Garbled> {
        let end = start.checked_add(len).ok_or(self.length(usize::MAX))?;
        self.bytes.get(start..end).ok_or(self.length(end))
    }

    fn length(&self, needed_bytes: usize) -> Garbled {
        Garbled::Length {
            kind: self.kind,
            needed_bytes,
            given_bytes: self.bytes.len(),
        }
    }

    /// The message must end here, but for the padding of its last slot.
    fn ends(&self, needed_bytes: usize) -> Result<(), Garbled> {
        let given = self.bytes.len();
        if needed_bytes > given || given - needed_bytes >= SLOT_DATA_BYTES {
            return Err(self.length(needed_bytes));
        }
        Ok(())
    }

    /// The fields of the first word.
    #[inline(always)]
    fn head(&self) -> Result<Head, Garbled> {
        Ok(Head::of(self.word(0)?))
    }

    /// Refuses bits that mean nothing.
    #[inline(always)]
    fn reserved(&self, bits: impl Into<u64>) -> Result<(), Garbled> {
        if bits.into() == 0 {
            Ok(())
        } else {
            Err(Garbled::Reserved { kind: self.kind })
        }
    }
}

/// Judges what an executor has written: the bytes of one message, padded to a slot at most.
///
/// # Errors
/// Whatever is wrong with it.
#[inline]
pub fn decode_from_executor(bytes: &[u8]) -> Result<FromExecutor<'_>, Garbled> {
    if let Some(message) = words_of_slot(bytes).and_then(|words| decode_plain(&words)) {
        return Ok(message);
    }
    decode_any_from_executor(bytes)
}

/// The one slot of a message that hops are made of, where nothing is wrong with it. Takes a fifth
/// of the instructions of the general way, which judges the rest.
#[inline(always)]
pub(crate) fn decode_plain(words: &SlotData) -> Option<FromExecutor<'static>> {
    const PUBLISH: u64 = from_kind::PUBLISH as u64 | (AUTO_KEY as u64) << 16;
    const TO_BUCKET: u64 = PUBLISH | (TARGET_BUCKET as u64) << 16;
    const TO_NEXT: u64 = PUBLISH | (TARGET_NEXT as u64) << 16;
    const TO_FUNCTION: u64 = PUBLISH | (TARGET_FUNCTION as u64) << 16;
    const OFFER: u64 = from_kind::OFFER as u64;
    const OFFER_TO_BUCKET: u64 = OFFER | (TARGET_BUCKET as u64) << 16;
    const OFFER_TO_NEXT: u64 = OFFER | (TARGET_NEXT as u64) << 16;
    const OFFER_TO_FUNCTION: u64 = OFFER | (TARGET_FUNCTION as u64) << 16;
    const COMPLETE: u64 = from_kind::COMPLETE as u64;
    const CONTINUE: u64 = from_kind::CONTINUE as u64;
    /// All of a head but the ring's byte and its number.
    const FIXED: u64 = 0x0000_ffff_ffff_00ff;
    let number = (words[0] >> 48) as u16;
    let target = match words[0] & FIXED {
        COMPLETE if number == 0 => {
            return Some(FromExecutor::Complete {
                status: words[1] as u32 as i32,
                ending: Ending::Returned,
                discarded: (words[1] >> 32) as u32,
                message: &[],
            });
        }
        CONTINUE if number == 0 => {
            let discarded = u32::try_from(words[1]).ok()?;
            return Some(FromExecutor::Continue { discarded });
        }
        TO_BUCKET | OFFER_TO_BUCKET if number != NO_BUCKET => Target::Bucket(number),
        TO_NEXT | OFFER_TO_NEXT if number == 0 => Target::Next,
        TO_FUNCTION | OFFER_TO_FUNCTION => Target::Function(number),
        _ => return None,
    };
    let (extent, size_bytes) = (word_extent(words[1]), words[2]);
    judge_extent(extent, size_bytes).ok()?;
    let ordinal = u32::try_from(words[3]).ok()?;
    if words[0] as u8 == from_kind::OFFER {
        return Some(FromExecutor::Offer {
            target,
            extent,
            size_bytes,
            ordinal,
            invocation: words[4],
        });
    }
    Some(FromExecutor::Publish {
        target,
        extent,
        size_bytes,
        key: Key::Auto(ordinal),
        ordinal,
        group: &[],
        delay_ns: 0,
    })
}

/// The words of a message of one slot.
#[inline(always)]
fn words_of_slot(bytes: &[u8]) -> Option<SlotData> {
    let bytes: &[u8; SLOT_DATA_BYTES] = bytes.try_into().ok()?;
    let words: &[[u8; 8]; SLOT_DATA_WORDS] = bytes.as_chunks().0.try_into().ok()?;
    Some(words.map(u64::from_le_bytes))
}

fn decode_any_from_executor(bytes: &[u8]) -> Result<FromExecutor<'_>, Garbled> {
    use from_kind as kind;
    let reader = Reader::new(bytes)?;
    let head = reader.head()?;
    match reader.kind {
        kind::PUBLISH => decode_publish(&reader, head),
        kind::OFFER => decode_offer(&reader, head),
        kind::CONTINUE => {
            reader.reserved(head.flags | head.a | head.b | head.zero)?;
            reader.reserved(head.number)?;
            reader.ends(16)?;
            let second = reader.word(1)?;
            reader.reserved(second >> 32)?;
            let discarded = second as u32;
            Ok(FromExecutor::Continue { discarded })
        }
        kind::FORWARD => decode_forward(&reader, head),
        kind::COMPLETE => decode_complete(&reader, head),
        kind::RESPOND => decode_respond(&reader, head),
        kind::RESPOND_PARTS => decode_respond_parts(&reader, head),
        kind::GET | kind::LOAD | kind::RELEASE_HOLD => decode_lookup(&reader, head),
        kind::JOIN => decode_join(&reader, head),
        kind::REDUNDANT | kind::EXPECT_SOURCES | kind::CLOSE_SOURCE => {
            decode_steering(&reader, head)
        }
        kind::FIRE | kind::DROP => decode_verdict(&reader, head),
        kind::TICK_AT => {
            reader.reserved(head.flags | head.a)?;
            reader.reserved(head.wide)?;
            reader.ends(16)?;
            let time_ns = reader.word(1)?;
            Ok(FromExecutor::TickAt { time_ns })
        }
        kind::READY | kind::LOADED | kind::PERSIST => {
            reader.reserved(head.flags | head.a)?;
            reader.reserved(head.wide)?;
            reader.ends(8)?;
            Ok(match reader.kind {
                kind::READY => FromExecutor::Ready,
                kind::LOADED => FromExecutor::Loaded,
                _ => FromExecutor::Persist,
            })
        }
        kind::FAIL_SESSION => decode_fail_session(&reader, head),
        kind::FETCH_INPUTS | kind::FETCH_EXTENTS | kind::PARENT => {
            reader.reserved(head.flags | head.a)?;
            reader.ends(8)?;
            let first = head.wide;
            Ok(match reader.kind {
                kind::FETCH_INPUTS => FromExecutor::FetchInputs { first },
                kind::FETCH_EXTENTS => FromExecutor::FetchExtents { first },
                _ => FromExecutor::Parent { number: first },
            })
        }
        kind::FETCH_ATTACHED => {
            reader.reserved(head.flags | head.a)?;
            let second = reader.word(1)?;
            reader.reserved(second >> 32)?;
            reader.ends(16)?;
            Ok(FromExecutor::FetchAttached {
                object: head.wide,
                first: second as u32,
            })
        }
        kind::NEED_CREDIT => {
            reader.reserved(head.flags | head.a)?;
            reader.reserved(head.wide)?;
            reader.ends(16)?;
            Ok(FromExecutor::NeedCredit {
                bytes: reader.word(1)?,
            })
        }
        other => Err(Garbled::Kind(other)),
    }
}

/// The target in a message's head.
fn decode_target(reader: &Reader<'_>, head: Head) -> Result<Target, Garbled> {
    reader.reserved(head.flags & !(TARGET_MASK | AUTO_KEY | DELAYED) | head.zero)?;
    let number = head.number;
    match head.flags & TARGET_MASK {
        TARGET_BUCKET if number == NO_BUCKET => Err(Malformed::NoBucket.into()),
        TARGET_BUCKET => Ok(Target::Bucket(number)),
        TARGET_FUNCTION => Ok(Target::Function(number)),
        TARGET_NEXT if number == 0 => Ok(Target::Next),
        _ => Err(Garbled::Reserved { kind: reader.kind }),
    }
}

/// The delay in the word at this place, where the head says that there is one.
fn decode_delay(reader: &Reader<'_>, head: Head, at_word: usize) -> Result<u64, Garbled> {
    if head.flags & DELAYED == 0 {
        return Ok(0);
    }
    match reader.word(at_word)? {
        // What is not delayed has no such word.
        0 => Err(Garbled::Reserved { kind: reader.kind }),
        delay_ns => Ok(delay_ns),
    }
}

/// The names that end a message, judged.
fn decode_names<'a>(
    reader: &Reader<'a>,
    head: Head,
    start: usize,
    ordinal: u32,
) -> Result<(Key<'a>, &'a [u8]), Garbled> {
    let (key_len, group_len) = (usize::from(head.a), usize::from(head.b));
    let group = reader.range(start + key_len, group_len)?;
    let key = match head.flags & AUTO_KEY {
        0 => Key::Named(reader.range(start, key_len)?),
        _ if key_len > 0 => return Err(Malformed::KeyLength(key_len).into()),
        _ => Key::Auto(ordinal),
    };
    judge_names(key, group)?;
    reader.ends(start + key_len + group_len)?;
    Ok((key, group))
}

#[inline]
fn decode_publish<'a>(reader: &Reader<'a>, head: Head) -> Result<FromExecutor<'a>, Garbled> {
    let target = decode_target(reader, head)?;
    let extent = word_extent(reader.word(1)?);
    let size_bytes = reader.word(2)?;
    judge_extent(extent, size_bytes)?;
    let (mut ordinal, mut words) = (0, 3);
    if says_ordinal(head.flags) {
        let word = reader.word(words)?;
        reader.reserved(word >> 32)?;
        (ordinal, words) = (word as u32, words + 1);
    }
    let delay_ns = decode_delay(reader, head, words)?;
    words += usize::from(delay_ns > 0);
    let (key, group) = decode_names(reader, head, 8 * words, ordinal)?;
    Ok(FromExecutor::Publish {
        target,
        extent,
        size_bytes,
        key,
        ordinal,
        group,
        delay_ns,
    })
}

fn decode_offer<'a>(reader: &Reader<'a>, head: Head) -> Result<FromExecutor<'a>, Garbled> {
    let target = decode_target(reader, head)?;
    reader.reserved(head.flags & !TARGET_MASK | head.a | head.b | head.zero)?;
    let extent = word_extent(reader.word(1)?);
    let size_bytes = reader.word(2)?;
    judge_extent(extent, size_bytes)?;
    let fourth = reader.word(3)?;
    reader.reserved(fourth >> 32)?;
    let invocation = reader.word(4)?;
    reader.ends(40)?;
    Ok(FromExecutor::Offer {
        target,
        extent,
        size_bytes,
        ordinal: fourth as u32,
        invocation,
    })
}

fn decode_forward<'a>(reader: &Reader<'a>, head: Head) -> Result<FromExecutor<'a>, Garbled> {
    let target = decode_target(reader, head)?;
    let second = reader.word(1)?;
    let ordinal = (second >> 32) as u32;
    if !says_ordinal(head.flags) {
        reader.reserved(ordinal)?;
    }
    let delay_ns = decode_delay(reader, head, 2)?;
    let start = if delay_ns > 0 { 24 } else { 16 };
    let (key, group) = decode_names(reader, head, start, ordinal)?;
    Ok(FromExecutor::Forward {
        target,
        object: second as u32,
        key,
        ordinal,
        group,
        delay_ns,
    })
}

fn decode_complete<'a>(reader: &Reader<'a>, head: Head) -> Result<FromExecutor<'a>, Garbled> {
    reader.reserved(head.flags | head.b | head.zero)?;
    let ending = match head.a {
        0 => Ending::Returned,
        1 => Ending::NotLoaded,
        2 => Ending::InitFailed,
        3 => Ending::StrayThreads,
        other => return Err(Garbled::Ending(other)),
    };
    let len = usize::from(head.number);
    if len > MESSAGE_BYTES_MAX {
        return Err(Malformed::MessageLength(len).into());
    }
    let second = reader.word(1)?;
    let message = reader.range(16, len)?;
    reader.ends(16 + len)?;
    Ok(FromExecutor::Complete {
        status: second as u32 as i32,
        ending,
        discarded: (second >> 32) as u32,
        message,
    })
}

fn decode_fail_session<'a>(reader: &Reader<'a>, head: Head) -> Result<FromExecutor<'a>, Garbled> {
    reader.reserved(head.flags | head.a | head.b | head.zero)?;
    let second = reader.word(1)?;
    reader.reserved(second >> 32)?;
    let len = usize::from(head.number);
    if len > MESSAGE_BYTES_MAX {
        return Err(Malformed::MessageLength(len).into());
    }
    let message = reader.range(24, len)?;
    reader.ends(24 + len)?;
    Ok(FromExecutor::FailSession {
        session: reader.word(2)?,
        status: second as u32 as i32,
        message,
    })
}

fn decode_respond<'a>(reader: &Reader<'a>, head: Head) -> Result<FromExecutor<'a>, Garbled> {
    reader.reserved(head.flags & !ADDRESSED | head.b | head.zero)?;
    let extent = word_extent(reader.word(1)?);
    let size_bytes = reader.word(2)?;
    judge_extent(extent, size_bytes)?;
    let (mut session, mut start) = (0, 24);
    if head.flags & ADDRESSED != 0 {
        (session, start) = (reader.word(3)?, 32);
        if session == 0 {
            // The session of the invocation itself is not said.
            return Err(Garbled::Reserved { kind: reader.kind });
        }
    }
    let len = usize::from(head.a);
    let content_type = reader.range(start, len)?;
    judge_response(head.number, content_type)?;
    reader.ends(start + len)?;
    Ok(FromExecutor::Respond {
        session,
        extent,
        size_bytes,
        http_status: head.number,
        content_type,
    })
}

fn decode_respond_parts<'a>(reader: &Reader<'a>, head: Head) -> Result<FromExecutor<'a>, Garbled> {
    reader.reserved(head.flags & !MORE | head.b | head.zero)?;
    let list = usize::try_from(reader.word(1)?).unwrap_or(usize::MAX);
    let objects = reader.range(16, list)?;
    judge_list(objects, 4)?;
    let len = usize::from(head.a);
    let content_type = reader.range(16 + list, len)?;
    judge_response(head.number, content_type)?;
    reader.ends(16 + list + len)?;
    Ok(FromExecutor::RespondParts {
        more: head.flags & MORE != 0,
        http_status: head.number,
        content_type,
        objects,
    })
}

fn decode_lookup<'a>(reader: &Reader<'a>, head: Head) -> Result<FromExecutor<'a>, Garbled> {
    reader.reserved(head.flags | head.b | head.zero)?;
    let start = if reader.kind == from_kind::GET { 16 } else { 8 };
    let len = usize::from(head.a);
    let key = reader.range(start, len)?;
    judge_key(key)?;
    reader.ends(start + len)?;
    let bucket = head.number;
    Ok(match reader.kind {
        from_kind::GET => FromExecutor::Get {
            bucket,
            timeout_ns: reader.word(1)?,
            key,
        },
        from_kind::LOAD => FromExecutor::Load { bucket, key },
        _ => FromExecutor::ReleaseHold { bucket, key },
    })
}

fn decode_join<'a>(reader: &Reader<'a>, head: Head) -> Result<FromExecutor<'a>, Garbled> {
    reader.reserved(head.flags & !MORE | head.a | head.b | head.zero)?;
    let len = usize::try_from(reader.word(1)?).unwrap_or(usize::MAX);
    let keys = reader.range(LIST_HEAD_BYTES, len)?;
    judge_join_keys(keys)?;
    reader.ends(LIST_HEAD_BYTES + len)?;
    Ok(FromExecutor::Join {
        trigger: head.number,
        more: head.flags & MORE != 0,
        keys,
    })
}

fn decode_steering(reader: &Reader<'_>, head: Head) -> Result<FromExecutor<'static>, Garbled> {
    reader.reserved(head.flags | head.a | head.b | head.zero)?;
    let trigger = head.number;
    if reader.kind == from_kind::CLOSE_SOURCE {
        reader.ends(8)?;
        return Ok(FromExecutor::CloseSource { trigger });
    }
    let second = reader.word(1)?;
    let (low, high) = (second as u32, (second >> 32) as u32);
    reader.ends(16)?;
    if reader.kind == from_kind::REDUNDANT {
        let (k, n) = (low, high);
        judge_round(k, n)?;
        return Ok(FromExecutor::Redundant { trigger, k, n });
    }
    reader.reserved(high)?;
    let sources = low;
    Ok(FromExecutor::ExpectSources { trigger, sources })
}

fn decode_verdict<'a>(reader: &Reader<'a>, head: Head) -> Result<FromExecutor<'a>, Garbled> {
    reader.reserved(head.flags & !MORE | head.a | head.b | head.zero)?;
    let session = reader.word(1)?;
    let len = usize::try_from(reader.word(2)?).unwrap_or(usize::MAX);
    let objects = reader.range(VERDICT_HEAD_BYTES, len)?;
    judge_verdict_list(objects)?;
    reader.ends(VERDICT_HEAD_BYTES + len)?;
    if reader.kind == from_kind::FIRE {
        return Ok(FromExecutor::Fire {
            function: head.number,
            more: head.flags & MORE != 0,
            session,
            objects,
        });
    }
    reader.reserved(u64::from(head.flags) | u64::from(head.number))?;
    Ok(FromExecutor::Drop { session, objects })
}

/// The objects of a `Fire` or `Drop`, in order.
pub fn verdict_objects(bytes: &[u8]) -> impl ExactSizeIterator<Item = u64> + '_ {
    let words = bytes.as_chunks::<8>().0.iter();
    words.map(|bytes| u64::from_le_bytes(*bytes))
}

/// Bytes of an encoded input before its names.
const INPUT_HEAD_BYTES: usize = 40;
/// Bytes of the longest encoded input.
pub const INPUT_BYTES_MAX: usize =
    INPUT_HEAD_BYTES + (KEY_BYTES_MAX + GROUP_BYTES_MAX).next_multiple_of(8);
/// Bytes of a long dispatch before its window, headers, request and inputs.
const DISPATCH_HEAD_BYTES: usize = 56;
/// Bytes of a window.
const WINDOW_BYTES: usize = 16;
/// Bytes of a headers reference.
const HEADERS_BYTES: usize = 16;
/// Bytes of a `Fire` or `Drop` before its objects.
const VERDICT_HEAD_BYTES: usize = 24;
/// Bytes of a list message before its list.
pub(crate) const LIST_HEAD_BYTES: usize = 16;

/// Writes one input to the start of `out`; `None` when it does not fit. Says how many bytes it
/// takes, a multiple of 8.
///
/// # Panics
/// On a name that is longer than 255 bytes: the sender has judged it when it came in.
pub(crate) fn encode_input(input: &Input<'_>, out: &mut [u8]) -> Option<usize> {
    let attached = input.attached;
    let (flags, number, key, producer) = match input.key {
        InputKey::Auto {
            invocation,
            ordinal,
        } if attached == 0 => (AUTO_KEY, ordinal, &[][..], Some(invocation)),
        InputKey::Auto {
            invocation,
            ordinal,
        } => (AUTO_KEY | ATTACHED, ordinal, &[][..], Some(invocation)),
        InputKey::Named(key) => (0, attached, key, None),
    };
    assert!(key.len() <= KEY_BYTES_MAX && input.group.len() <= GROUP_BYTES_MAX);
    let names = input_names_at(flags);
    let group_at = names + key.len();
    let end = group_at + input.group.len();
    let padded = end.next_multiple_of(8);
    let out = out.get_mut(..padded)?;
    let lens = (key.len() as u8, input.group.len() as u8);
    let words = [
        u64::from(flags)
            | u64::from(lens.0) << 8
            | u64::from(lens.1) << 16
            | u64::from(input.region) << 32
            | u64::from(input.bucket) << 48,
        pair(input.offset_units, number),
        input.size_bytes,
        input.session,
        input.arrival_ns,
        producer.unwrap_or(0),
        u64::from(attached),
    ];
    for (bytes, word) in out[..names].chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    out[names..group_at].copy_from_slice(key);
    out[group_at..end].copy_from_slice(input.group);
    out[end..].fill(0);
    Some(padded)
}

/// Where the names of an input with these flags begin.
#[inline]
fn input_names_at(flags: u8) -> usize {
    let words = usize::from(flags & AUTO_KEY != 0) + usize::from(flags & ATTACHED != 0);
    INPUT_HEAD_BYTES + 8 * words
}

/// Judges the input at the start of `bytes` and says how many bytes it took.
pub(crate) fn decode_input(bytes: &[u8]) -> Result<(Input<'_>, usize), Garbled> {
    let reader = Reader {
        kind: to_kind::INPUTS,
        bytes,
    };
    let first = reader.word(0)?;
    let flags = first as u8;
    reader.reserved(u64::from(flags & !(AUTO_KEY | ATTACHED)) | first >> 24 & 0xff)?;
    let key_len = usize::from((first >> 8) as u8);
    let group_len = usize::from((first >> 16) as u8);
    let second = reader.word(1)?;
    let number = (second >> 32) as u32;
    let names = input_names_at(flags);
    let key = reader.range(names, key_len)?;
    let group = reader.range(names + key_len, group_len)?;
    judge_group(group)?;
    let (key, attached) = if flags & AUTO_KEY != 0 {
        if key_len > 0 {
            return Err(Malformed::KeyLength(key_len).into());
        }
        let key = InputKey::Auto {
            invocation: reader.word(5)?,
            ordinal: number,
        };
        (key, decode_attached(&reader, flags)?)
    } else {
        reader.reserved(flags)?;
        judge_key(key)?;
        (InputKey::Named(key), number)
    };
    let len = (names + key_len + group_len).next_multiple_of(8);
    reader.range(0, len)?;
    let input = Input {
        region: (first >> 32) as u16,
        bucket: (first >> 48) as u16,
        offset_units: second as u32,
        size_bytes: reader.word(2)?,
        session: reader.word(3)?,
        arrival_ns: reader.word(4)?,
        key,
        group,
        attached,
    };
    Ok((input, len))
}

/// How many objects are attached to an input with an automatic key.
fn decode_attached(reader: &Reader<'_>, flags: u8) -> Result<u32, Garbled> {
    if flags & ATTACHED == 0 {
        return Ok(0);
    }
    let word = reader.word(6)?;
    match u32::try_from(word) {
        // One with nothing attached has no such word.
        Ok(attached) if attached > 0 => Ok(attached),
        _ => Err(Garbled::Reserved { kind: reader.kind }),
    }
}

/// Inputs of a message, judged, in order: an iterator over them.
#[derive(Clone, Copy, Debug)]
pub struct InputList<'a> {
    /// The only input of a short dispatch.
    single: Option<Input<'a>>,
    /// Encoded inputs.
    bytes: &'a [u8],
    count: u32,
}

impl<'a> InputList<'a> {
    /// No inputs.
    pub const EMPTY: Self = Self {
        single: None,
        bytes: &[],
        count: 0,
    };

    /// One input.
    pub fn single(input: Input<'a>) -> Self {
        Self {
            single: Some(input),
            bytes: &[],
            count: 1,
        }
    }

    /// Encodes inputs one after the other, as many as fit `out`, and gives them as a list.
    pub fn encode<'i>(inputs: impl Iterator<Item = Input<'i>>, out: &'a mut [u8]) -> Self {
        let (mut len, mut count) = (0, 0);
        for input in inputs {
            let Some(bytes) = encode_input(&input, &mut out[len..]) else {
                break;
            };
            len += bytes;
            count += 1;
        }
        Self {
            single: None,
            bytes: &out[..len],
            count,
        }
    }

    /// Judges `count` encoded inputs and says how many bytes they took.
    fn decode(bytes: &'a [u8], count: u32) -> Result<(Self, usize), Garbled> {
        let mut len = 0;
        for _ in 0..count {
            len += decode_input(&bytes[len..])?.1;
        }
        let list = Self {
            single: None,
            bytes: &bytes[..len],
            count,
        };
        Ok((list, len))
    }

    /// How many are left.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl PartialEq for InputList<'_> {
    fn eq(&self, other: &Self) -> bool {
        Iterator::eq(*self, *other)
    }
}

impl Eq for InputList<'_> {}

impl<'a> Iterator for InputList<'a> {
    type Item = Input<'a>;

    fn next(&mut self) -> Option<Input<'a>> {
        self.count = self.count.checked_sub(1)?;
        if let Some(single) = self.single {
            return Some(single);
        }
        // Judged when the list was made, so this ends the list only if that was not so.
        let (input, len) = decode_input(self.bytes).ok()?;
        self.bytes = &self.bytes[len..];
        Some(input)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count as usize, Some(self.count as usize))
    }
}

impl ExactSizeIterator for InputList<'_> {}

/// Encoded dispatch: one message, or its request and then the rest.
#[derive(Debug)]
pub(crate) struct EncodedDispatch {
    /// Bytes of the message with the request, in the second buffer; 0: there is none.
    pub(crate) request_len: usize,
    /// Bytes of the dispatch, in the first buffer.
    pub(crate) len: usize,
}

/// The single slot of a dispatch that is as most are.
#[inline]
pub(crate) fn short_dispatch(dispatch: &Dispatch<'_>, input: &Input<'_>) -> Option<SlotData> {
    let InputKey::Auto {
        invocation,
        ordinal,
    } = input.key
    else {
        return None;
    };
    let size = u32::try_from(input.size_bytes).ok()?;
    let plain = dispatch.input_count == 1
        && dispatch.attempt == 1
        && dispatch.deadline_ns == NO_DEADLINE
        && dispatch.timeout_ns == NO_DEADLINE
        && dispatch.request.is_none()
        && dispatch.headers.is_none()
        && dispatch.window.is_none()
        && input.session == dispatch.session
        && input.group.is_empty()
        && input.attached == 0;
    let parallelism = u8::try_from(dispatch.parallelism).ok()?;
    plain.then_some([
        dispatch_head(to_kind::DISPATCH, 0, parallelism, dispatch),
        dispatch.invocation,
        dispatch.session,
        pair(input.offset_units, size),
        u64::from(input.region) | u64::from(input.bucket) << 16 | u64::from(ordinal) << 32,
        invocation,
        input.arrival_ns,
    ])
}

fn dispatch_head(kind: u8, flags: u8, parallelism: u8, dispatch: &Dispatch<'_>) -> u64 {
    let caller = if dispatch.has_caller { HAS_CALLER } else { 0 };
    let numbers = u32::from(dispatch.function) | u32::from(dispatch.trigger) << 16;
    numbered(kind, flags | caller, numbers) | u64::from(parallelism) << 24
}

/// Encodes a dispatch with as many of its inputs as fit one message.
pub(crate) fn encode_dispatch<'a>(
    dispatch: &Dispatch<'a>,
    inputs: impl Iterator<Item = Input<'a>>,
    out: &mut [u8; INLINE_BYTES_MAX],
    request_out: &mut [u8; INLINE_BYTES_MAX],
) -> EncodedDispatch {
    let mut len = DISPATCH_HEAD_BYTES;
    let mut flags = 0;
    if let Some((start_ns, end_ns)) = dispatch.window {
        flags |= HAS_WINDOW;
        put_word(out, len, start_ns);
        put_word(out, len + 8, end_ns);
        len += WINDOW_BYTES;
    }
    if let Some(headers) = dispatch.headers {
        flags |= HAS_HEADERS;
        put_word(out, len, pair(headers.offset_units, headers.size_bytes));
        put_word(out, len + 8, u64::from(headers.region));
        len += HEADERS_BYTES;
    }
    let mut request_len = 0;
    if let Some(request) = &dispatch.request {
        if let Some(bytes) = encode_input(request, &mut out[len..]) {
            flags |= HAS_REQUEST;
            len += bytes;
        } else {
            flags |= REQUEST_BEFORE;
            put_word(request_out, 0, u64::from(to_kind::REQUEST));
            let bytes = encode_input(request, &mut request_out[8..]);
            request_len = 8 + bytes.expect("any input fits a message of its own");
        }
    }
    let list = InputList::encode(inputs.take(dispatch.input_count as usize), &mut out[len..]);
    let count = list.count;
    len += list.bytes.len();
    put_word(
        out,
        0,
        dispatch_head(to_kind::DISPATCH_LONG, flags, 0, dispatch),
    );
    put_word(out, 8, dispatch.invocation);
    put_word(out, 16, dispatch.session);
    put_word(out, 24, dispatch.deadline_ns);
    put_word(out, 32, pair(dispatch.attempt, dispatch.input_count));
    put_word(out, 40, pair(count, u32::from(dispatch.parallelism)));
    put_word(out, 48, dispatch.timeout_ns);
    EncodedDispatch { request_len, len }
}

fn put_word(out: &mut [u8], at: usize, word: u64) {
    out[at..at + 8].copy_from_slice(&word.to_le_bytes());
}

/// Encodes the answer to a `Get`.
pub(crate) fn encode_object(
    status: i32,
    input: Option<&Input<'_>>,
    out: &mut [u8; INLINE_BYTES_MAX],
) -> usize {
    let flags = if input.is_some() { YES } else { 0 };
    put_word(out, 0, numbered(to_kind::OBJECT, flags, status as u32));
    let bytes = input.map_or(Some(0), |input| encode_input(input, &mut out[8..]));
    8 + bytes.expect("any input fits a message of its own")
}

/// The head of `Inputs` (`count` inputs in `len_bytes` bytes), which a list follows.
pub(crate) fn inputs_head(first: u32, count: u32, len_bytes: u32) -> [u64; 2] {
    [numbered(to_kind::INPUTS, 0, first), pair(count, len_bytes)]
}

/// The head of `Extents`, which a list of words (offset below, length above) follows.
pub(crate) fn extents_head(first: u32, count: u32) -> [u64; 2] {
    [numbered(to_kind::EXTENTS, 0, first), u64::from(count)]
}

/// The head of `Events` (`count` events in `len_bytes` bytes), which a list follows.
pub(crate) fn events_head(trigger: u16, count: u32, len_bytes: u32) -> [u64; 2] {
    [
        head(to_kind::EVENTS, 0, 0, 0, trigger),
        pair(count, len_bytes),
    ]
}

/// Whether this message only carries the request of the dispatch that follows.
pub(crate) fn is_request(bytes: &[u8]) -> bool {
    bytes.first() == Some(&to_kind::REQUEST)
}

/// Judges what a scheduler has written. `request` is the message before, when it was one that
/// only carries a request.
///
/// # Errors
/// Whatever is wrong with it.
#[inline]
pub fn decode_to_executor<'a>(
    bytes: &'a [u8],
    request: Option<&'a [u8]>,
) -> Result<ToExecutor<'a>, Garbled> {
    use to_kind as kind;
    if request.is_none()
        && let Some(words) = words_of_slot(bytes)
        && is_short_dispatch(&words)
    {
        let (dispatch, input) = decode_short_dispatch(&words);
        let inputs = InputList::single(input);
        return Ok(ToExecutor::Dispatch { dispatch, inputs });
    }
    let reader = Reader::new(bytes)?;
    let head = reader.head()?;
    if reader.kind == kind::DISPATCH_LONG {
        return decode_long_dispatch(&reader, head, request);
    }
    if request.is_some() {
        return Err(Garbled::Request);
    }
    match reader.kind {
        kind::DISPATCH => {
            reader.reserved(head.flags & !HAS_CALLER)?;
            Err(reader.length(SLOT_DATA_BYTES))
        }
        kind::INPUTS => decode_inputs(&reader, head),
        kind::OBJECT => decode_object(&reader, head),
        kind::EXTENTS => decode_extents(&reader, head),
        kind::CREDIT => {
            reader.reserved(head.flags & !YES | head.a)?;
            reader.reserved(head.wide)?;
            reader.ends(8)?;
            let granted = head.flags & YES != 0;
            Ok(ToExecutor::Credit { granted })
        }
        kind::PERSISTED => {
            reader.reserved(head.flags | head.a)?;
            reader.ends(8)?;
            let status = head.wide as i32;
            Ok(ToExecutor::Persisted { status })
        }
        kind::PARENT => {
            reader.reserved(head.flags | head.a)?;
            reader.ends(16)?;
            Ok(ToExecutor::Parent {
                count: head.wide,
                session: reader.word(1)?,
            })
        }
        kind::ADOPT => {
            reader.reserved(head.flags | head.a)?;
            reader.ends(8)?;
            let extent_count = head.wide;
            Ok(ToExecutor::Adopt { extent_count })
        }
        kind::EVENTS => decode_events(&reader, head),
        kind::EXIT => {
            reader.reserved(head.flags | head.a)?;
            reader.reserved(head.wide)?;
            reader.ends(8)?;
            Ok(ToExecutor::Exit)
        }
        other => Err(Garbled::Kind(other)),
    }
}

/// Whether this is a message of [`short_dispatch`]: its kind, and no flag without a meaning.
#[inline(always)]
pub(crate) fn is_short_dispatch(words: &SlotData) -> bool {
    const ANY: u64 = !0 << 24 | (HAS_CALLER as u64) << 16 | 0xff << 8;
    words[0] & !ANY == u64::from(to_kind::DISPATCH)
}

/// The values in a short dispatch: whatever is in its other bits has a meaning.
#[inline(always)]
pub(crate) fn decode_short_dispatch(words: &SlotData) -> (Dispatch<'static>, Input<'static>) {
    let [first, invocation, session, place, object, key, arrival_ns] = *words;
    let head = Head::of(first);
    let input = Input {
        region: object as u16,
        bucket: (object >> 16) as u16,
        offset_units: place as u32,
        size_bytes: place >> 32,
        session,
        arrival_ns,
        key: InputKey::Auto {
            invocation: key,
            ordinal: (object >> 32) as u32,
        },
        group: &[],
        attached: 0,
    };
    let dispatch = Dispatch {
        function: head.wide as u16,
        trigger: head.number,
        attempt: 1,
        invocation,
        session,
        deadline_ns: NO_DEADLINE,
        timeout_ns: NO_DEADLINE,
        input_count: 1,
        request: None,
        headers: None,
        parallelism: u16::from(head.a),
        has_caller: head.flags & HAS_CALLER != 0,
        window: None,
    };
    (dispatch, input)
}

fn decode_long_dispatch<'a>(
    reader: &Reader<'a>,
    head: Head,
    request_before: Option<&'a [u8]>,
) -> Result<ToExecutor<'a>, Garbled> {
    const KNOWN: u8 = HAS_CALLER | HAS_HEADERS | HAS_REQUEST | REQUEST_BEFORE | HAS_WINDOW;
    let flags = head.flags;
    reader.reserved(flags & !KNOWN | head.a)?;
    let is_before = flags & REQUEST_BEFORE != 0;
    if is_before != request_before.is_some() || is_before && flags & HAS_REQUEST != 0 {
        return Err(Garbled::Request);
    }
    let mut len = DISPATCH_HEAD_BYTES;
    let mut window = None;
    if flags & HAS_WINDOW != 0 {
        window = Some((reader.word(len / 8)?, reader.word(len / 8 + 1)?));
        len += WINDOW_BYTES;
    }
    let mut headers = None;
    if flags & HAS_HEADERS != 0 {
        headers = Some(decode_headers(reader, len / 8)?);
        len += HEADERS_BYTES;
    }
    let mut request = None;
    if let Some(before) = request_before {
        request = Some(decode_request(before)?);
    } else if flags & HAS_REQUEST != 0 {
        let rest = reader.bytes.get(len..).ok_or(reader.length(len))?;
        let (input, bytes) = decode_input(rest)?;
        len += bytes;
        request = Some(input);
    }
    let counts = reader.word(4)?;
    let (attempt, input_count) = (counts as u32, (counts >> 32) as u32);
    let more = reader.word(5)?;
    reader.reserved(more >> 48)?;
    let (included, parallelism) = (more as u32, (more >> 32) as u16);
    let rest = reader.bytes.get(len..).ok_or(reader.length(len))?;
    let (inputs, bytes) = InputList::decode(rest, included)?;
    reader.ends(len + bytes)?;
    if included > input_count {
        return Err(Garbled::Reserved { kind: reader.kind });
    }
    Ok(ToExecutor::Dispatch {
        dispatch: Dispatch {
            function: head.wide as u16,
            trigger: head.number,
            attempt,
            invocation: reader.word(1)?,
            session: reader.word(2)?,
            deadline_ns: reader.word(3)?,
            timeout_ns: reader.word(6)?,
            input_count,
            request,
            headers,
            parallelism,
            has_caller: flags & HAS_CALLER != 0,
            window,
        },
        inputs,
    })
}

/// The headers reference in these two words.
fn decode_headers(reader: &Reader<'_>, at_word: usize) -> Result<HeadersRef, Garbled> {
    let (place, region) = (reader.word(at_word)?, reader.word(at_word + 1)?);
    reader.reserved(region >> 16)?;
    Ok(HeadersRef {
        region: region as u16,
        offset_units: place as u32,
        size_bytes: (place >> 32) as u32,
    })
}

/// The request in a message of its own.
fn decode_request(bytes: &[u8]) -> Result<Input<'_>, Garbled> {
    let reader = Reader::new(bytes)?;
    let head = reader.head()?;
    reader.reserved(head.flags | head.a)?;
    reader.reserved(head.wide)?;
    let (input, len) = decode_input(&bytes[8..])?;
    reader.ends(8 + len)?;
    Ok(input)
}

fn decode_inputs<'a>(reader: &Reader<'a>, head: Head) -> Result<ToExecutor<'a>, Garbled> {
    reader.reserved(head.flags | head.a)?;
    let second = reader.word(1)?;
    let (count, len) = (second as u32, (second >> 32) as usize);
    let bytes = reader.range(LIST_HEAD_BYTES, len)?;
    let (inputs, taken) = InputList::decode(bytes, count)?;
    reader.ends(LIST_HEAD_BYTES + taken)?;
    if taken != len {
        return Err(reader.length(LIST_HEAD_BYTES + taken));
    }
    Ok(ToExecutor::Inputs {
        first: head.wide,
        inputs,
    })
}

fn decode_events<'a>(reader: &Reader<'a>, head: Head) -> Result<ToExecutor<'a>, Garbled> {
    reader.reserved(head.flags | head.a | head.b | head.zero)?;
    let second = reader.word(1)?;
    let (count, len) = (second as u32, (second >> 32) as usize);
    let bytes = reader.range(LIST_HEAD_BYTES, len)?;
    let (events, taken) = EventList::decode(bytes, count)?;
    reader.ends(LIST_HEAD_BYTES + taken)?;
    if taken != len {
        return Err(reader.length(LIST_HEAD_BYTES + taken));
    }
    let trigger = head.number;
    Ok(ToExecutor::Events { trigger, events })
}

fn decode_object<'a>(reader: &Reader<'a>, head: Head) -> Result<ToExecutor<'a>, Garbled> {
    reader.reserved(head.flags & !YES | head.a)?;
    let (mut input, mut len) = (None, 0);
    if head.flags & YES != 0 {
        let (object, bytes) = decode_input(&reader.bytes[8..])?;
        (input, len) = (Some(object), bytes);
    }
    reader.ends(8 + len)?;
    Ok(ToExecutor::Object {
        status: head.wide as i32,
        input,
    })
}

fn decode_extents<'a>(reader: &Reader<'a>, head: Head) -> Result<ToExecutor<'a>, Garbled> {
    reader.reserved(head.flags | head.a)?;
    let count = reader.word(1)?;
    reader.reserved(count >> 32)?;
    let extents = reader.range(LIST_HEAD_BYTES, count as usize * 8)?;
    reader.ends(LIST_HEAD_BYTES + extents.len())?;
    Ok(ToExecutor::Extents {
        first: head.wide,
        extents,
    })
}

/// The length of the message in the `args` area, if that is what this slot stands for.
pub(crate) fn spilled_len(bytes: &[u8]) -> Result<Option<usize>, Garbled> {
    if bytes.first() != Some(&SPILLED) {
        return Ok(None);
    }
    let reader = Reader::new(bytes)?;
    let head = reader.head()?;
    reader.reserved(head.flags | head.a)?;
    reader.reserved(head.wide)?;
    reader.ends(16)?;
    let len = reader.word(1)?;
    if len > ARGS_BYTES as u64 {
        return Err(Garbled::Spill(len));
    }
    Ok(Some(len as usize))
}

/// Pairs of an `Extents` message, as values.
pub fn extents(bytes: &[u8]) -> impl ExactSizeIterator<Item = Extent> + '_ {
    let words = bytes.as_chunks::<8>().0.iter();
    words.map(|bytes| word_extent(u64::from_le_bytes(*bytes)))
}

/// An extent as a word: offset below, length above.
pub(crate) fn extent_word(extent: Extent) -> u64 {
    pair(extent.offset_units, extent.len_units)
}

/// A word as an extent.
pub(crate) fn word_extent(word: u64) -> Extent {
    Extent {
        offset_units: word as u32,
        len_units: (word >> 32) as u32,
    }
}

/// Encodes what an executor says, for tools and tests: the bytes of the message, unpadded.
///
/// # Errors
/// It breaks its own form.
pub fn encode_from_executor(message: &FromExecutor<'_>) -> Result<Vec<u8>, Malformed> {
    let form = Form::of(message)?;
    let mut bytes = vec![0; form.len()];
    form.write(&mut bytes);
    Ok(bytes)
}

/// Encodes what a scheduler says, for tools and tests: the bytes of the message, unpadded, and
/// before them those of the message that carries its request, where it needs one.
///
/// # Panics
/// On a key or group of over 255 bytes: objects with such names were never accepted.
pub fn encode_to_executor(message: &ToExecutor<'_>) -> (Option<Vec<u8>>, Vec<u8>) {
    let mut out = [0; INLINE_BYTES_MAX];
    let mut space = vec![0; ARGS_BYTES - LIST_HEAD_BYTES];
    let form = match *message {
        ToExecutor::Dispatch { dispatch, inputs } => return dispatch_bytes(&dispatch, inputs),
        ToExecutor::Inputs { first, inputs } => {
            let list = InputList::encode(inputs, &mut space);
            let head = inputs_head(first, list.count, list.bytes.len() as u32);
            return (None, list_bytes(head, list.bytes));
        }
        ToExecutor::Events { trigger, events } => {
            let list = EventList::encode(events, &mut space);
            let head = events_head(trigger, list.len() as u32, list.bytes().len() as u32);
            return (None, list_bytes(head, list.bytes()));
        }
        ToExecutor::Extents { first, extents } => {
            let head = extents_head(first, (extents.len() / 8) as u32);
            return (None, list_bytes(head, extents));
        }
        ToExecutor::Object { status, input } => {
            let len = encode_object(status, input.as_ref(), &mut out);
            return (None, out[..len].to_vec());
        }
        ToExecutor::Credit { granted } => Form::credit(granted),
        ToExecutor::Persisted { status } => Form::persisted(status),
        ToExecutor::Parent { count, session } => Form::parent(count, session),
        ToExecutor::Adopt { extent_count } => Form::adopt(extent_count),
        ToExecutor::Exit => Form::exit(),
    };
    form.write(&mut out);
    (None, out[..form.len()].to_vec())
}

fn dispatch_bytes(dispatch: &Dispatch<'_>, inputs: InputList<'_>) -> (Option<Vec<u8>>, Vec<u8>) {
    if let Some(input) = inputs.clone().next()
        && let Some(slot) = short_dispatch(dispatch, &input)
    {
        let bytes = slot.iter().flat_map(|word| word.to_le_bytes());
        return (None, bytes.collect());
    }
    let (mut out, mut request) = ([0; INLINE_BYTES_MAX], [0; INLINE_BYTES_MAX]);
    let encoded = encode_dispatch(dispatch, inputs, &mut out, &mut request);
    let request = request[..encoded.request_len].to_vec();
    let request = (!request.is_empty()).then_some(request);
    (request, out[..encoded.len].to_vec())
}

fn list_bytes(head: [u64; 2], list: &[u8]) -> Vec<u8> {
    let words = head.iter().flat_map(|word| word.to_le_bytes());
    words.chain(list.iter().copied()).collect()
}

const _: () = assert!(DISPATCH_HEAD_BYTES + WINDOW_BYTES + HEADERS_BYTES <= INLINE_BYTES_MAX);
const _: () = assert!(INPUT_HEAD_BYTES + 16 + GROUP_BYTES_MAX <= INPUT_BYTES_MAX);
const _: () = assert!(8 + INPUT_BYTES_MAX <= INLINE_BYTES_MAX);
const _: () = assert!(UNIT_BYTES == 64);
