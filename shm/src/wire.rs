//! Messages as bytes, and back: fixed little-endian forms, checked field by field.
//!
//! Encoding allocates nothing. Decoding works on a private copy and believes nothing: lengths are
//! checked against the bytes there are, kinds and flags against those that exist, keys and groups
//! against their rules. What a number *means* is for the receiver to judge. The forms are drawn in
//! `docs/layout.md`.

use crate::message::{
    CONTENT_TYPE_BYTES_MAX, Dispatch, Ending, Extent, FromExecutor, GROUP_BYTES_MAX, HeadersRef,
    Input, InputKey, KEY_BYTES_MAX, Key, MESSAGE_BYTES_MAX, NO_DEADLINE, Target, ToExecutor,
};

/// Slots of one message, at most.
pub const MESSAGE_SLOTS_MAX: usize = 10;
/// Bytes that one slot carries beside its sequence.
pub const SLOT_DATA_BYTES: usize = 56;
/// Bytes of a message that travels in slots.
pub const INLINE_BYTES_MAX: usize = MESSAGE_SLOTS_MAX * SLOT_DATA_BYTES;
/// Bytes of a message that travels through an `args` area (the area's size).
pub const ARGS_BYTES: usize = 64 * 1024;

/// A message in private memory: up to ten slots, or what was copied from an `args` area.
pub struct MessageBuffer {
    pub(crate) inline: [u8; INLINE_BYTES_MAX],
    pub(crate) inline_len: usize,
    pub(crate) spill: Vec<u8>,
}

impl Default for MessageBuffer {
    fn default() -> Self {
        Self {
            inline: [0; INLINE_BYTES_MAX],
            inline_len: 0,
            spill: Vec::new(),
        }
    }
}

impl std::fmt::Debug for MessageBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MessageBuffer")
            .field("inline_len", &self.inline_len)
            .field("spill_len", &self.spill.len())
            .finish()
    }
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No such kind in this direction.
    #[error("a message has the unknown kind {0}")]
    Kind(u8),
    /// It ends before its fields do.
    #[error("a message ends before its last field")]
    Short,
    /// A flag that does not exist, or a number no field may have.
    #[error("a message has an impossible {0}")]
    Field(&'static str),
    /// A key of 0 or more than 255 bytes, or with a zero byte.
    #[error("a key has {0} bytes or a zero byte in it; keys have 1 to 255 bytes")]
    Key(usize),
    /// A group of more than 255 bytes, or with a zero byte.
    #[error("a group has {0} bytes or a zero byte in it; groups have up to 255 bytes")]
    Group(usize),
    /// A payload larger than its extent leaves room for.
    #[error("an object of {size_bytes} bytes does not fit its extent of {len_units} units")]
    Size {
        /// Payload.
        size_bytes: u64,
        /// Extent.
        len_units: u32,
    },
}

mod kind {
    pub(super) const READY: u8 = 1;
    pub(super) const PUBLISH: u8 = 2;
    pub(super) const FORWARD: u8 = 3;
    pub(super) const RESPOND: u8 = 4;
    pub(super) const RESPOND_PARTS: u8 = 5;
    pub(super) const COMPLETE: u8 = 6;
    pub(super) const GET: u8 = 7;
    pub(super) const RELEASE_HOLD: u8 = 8;
    pub(super) const FETCH_INPUTS: u8 = 9;
    pub(super) const FETCH_EXTENTS: u8 = 10;
    pub(super) const NEED_CREDIT: u8 = 11;
    pub(super) const DISPATCH: u8 = 32;
    pub(super) const INPUTS: u8 = 33;
    pub(super) const OBJECT: u8 = 34;
    pub(super) const CREDIT: u8 = 35;
    pub(super) const ADOPT: u8 = 36;
    pub(super) const EXTENTS: u8 = 37;
    pub(super) const EXIT: u8 = 38;
}
/// Kind of a message whose bytes are in the `args` area; the only other field is their count.
pub(crate) const SPILLED: u8 = 63;

/// Target and key flags of `Publish` and `Forward`.
const TARGET_BUCKET: u16 = 0;
const TARGET_NEXT: u16 = 1;
const TARGET_FUNCTION: u16 = 2;
const TARGET_MASK: u16 = 3;
const KEY_NAMED: u16 = 4;
/// `RespondParts`: more follows.
const MORE: u16 = 1;
/// Dispatch flags; the top nine bits are the parallelism where no extension carries it.
const HAS_CALLER: u16 = 1;
const EXTENDED: u16 = 2;
const HAS_REQUEST: u16 = 4;
const HAS_HEADERS: u16 = 8;
const COMPACT: u16 = 16;
const PARALLELISM_SHIFT: u16 = 7;
const PARALLELISM_INLINE_MAX: u16 = (1 << 9) - 1;

struct Writer<'b> {
    bytes: &'b mut [u8],
    at: usize,
}

impl<'b> Writer<'b> {
    fn new(bytes: &'b mut [u8], kind: u8, flags: u16, a: u16, b: u16) -> Self {
        bytes[0] = kind;
        bytes[1] = 0;
        bytes[2..4].copy_from_slice(&flags.to_le_bytes());
        bytes[4..6].copy_from_slice(&a.to_le_bytes());
        bytes[6..8].copy_from_slice(&b.to_le_bytes());
        Self { bytes, at: 8 }
    }

    fn put(&mut self, more: &[u8]) {
        self.bytes[self.at..self.at + more.len()].copy_from_slice(more);
        self.at += more.len();
    }

    fn u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    fn room(&self) -> usize {
        self.bytes.len() - self.at
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.bytes.split_at_checked(len).ok_or(Malformed::Short)?;
        self.bytes = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self
            .bytes
            .split_first_chunk::<N>()
            .ok_or(Malformed::Short)?;
        self.bytes = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    fn key(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let key = self.take(len)?;
        if len == 0 || len > KEY_BYTES_MAX || key.contains(&0) {
            return Err(Malformed::Key(len));
        }
        Ok(key)
    }

    fn group(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let group = self.take(len)?;
        if len > GROUP_BYTES_MAX || group.contains(&0) {
            return Err(Malformed::Group(len));
        }
        Ok(group)
    }
}

/// Length of a field that its own rules bound to a byte; longer ones are cut by the caller's rules
/// before they get here, and written as what they are modulo 256 only if those were broken.
fn byte_len(bytes: &[u8]) -> u16 {
    debug_assert!(
        bytes.len() <= 255,
        "a key, group or content type of {} bytes",
        bytes.len()
    );
    (bytes.len() & 0xff) as u16
}

fn target_fields(target: Target) -> (u16, u16) {
    match target {
        Target::Bucket(bucket) => (TARGET_BUCKET, bucket),
        Target::Next => (TARGET_NEXT, 0),
        Target::Function(function) => (TARGET_FUNCTION, function),
    }
}

fn key_fields(key: &Key<'_>, group: &[u8]) -> (u16, u16) {
    let (flag, len) = match key {
        Key::Auto(_) => (0, 0),
        Key::Named(name) => (KEY_NAMED, byte_len(name)),
    };
    (flag, len | byte_len(group) << 8)
}

fn put_key(writer: &mut Writer<'_>, key: &Key<'_>, group: &[u8]) {
    match key {
        Key::Auto(ordinal) => writer.u32(*ordinal),
        Key::Named(name) => writer.put(name),
    }
    writer.put(group);
}

/// Encodes what an executor says into `out` (which holds the longest: [`ARGS_BYTES`]), and gives
/// its length.
pub(crate) fn encode_from_executor(message: &FromExecutor<'_>, out: &mut [u8]) -> usize {
    let writer = match message {
        FromExecutor::Ready => Writer::new(out, kind::READY, 0, 0, 0),
        FromExecutor::Publish {
            target,
            extent,
            size_bytes,
            key,
            group,
        } => {
            let (target, index) = target_fields(*target);
            let (named, lengths) = key_fields(key, group);
            let mut w = Writer::new(out, kind::PUBLISH, target | named, index, lengths);
            w.u32(extent.offset_units);
            w.u32(extent.len_units);
            w.u64(*size_bytes);
            put_key(&mut w, key, group);
            w
        }
        FromExecutor::Forward {
            target,
            object,
            key,
            group,
        } => {
            let (target, index) = target_fields(*target);
            let (named, lengths) = key_fields(key, group);
            let mut w = Writer::new(out, kind::FORWARD, target | named, index, lengths);
            w.u32(*object);
            put_key(&mut w, key, group);
            w
        }
        FromExecutor::Respond {
            extent,
            size_bytes,
            http_status,
            content_type,
        } => {
            let len = byte_len(content_type);
            let mut w = Writer::new(out, kind::RESPOND, 0, *http_status, len);
            w.u32(extent.offset_units);
            w.u32(extent.len_units);
            w.u64(*size_bytes);
            w.put(content_type);
            w
        }
        FromExecutor::RespondParts {
            more,
            http_status,
            content_type,
            objects,
        } => {
            let flags = if *more { MORE } else { 0 };
            let len = byte_len(content_type);
            let mut w = Writer::new(out, kind::RESPOND_PARTS, flags, *http_status, len);
            // An args area holds less than 2^32 bytes.
            w.u32(objects.len() as u32);
            w.put(content_type);
            w.put(objects);
            w
        }
        FromExecutor::Complete {
            status,
            ending,
            discarded,
            message,
        } => {
            let message = &message[..message.len().min(MESSAGE_BYTES_MAX)];
            let mut w = Writer::new(out, kind::COMPLETE, *ending as u16, message.len() as u16, 0);
            w.put(&status.to_le_bytes());
            w.u32(*discarded);
            w.put(message);
            w
        }
        FromExecutor::Get {
            bucket,
            timeout_ns,
            key,
        } => {
            let mut w = Writer::new(out, kind::GET, 0, *bucket, byte_len(key));
            w.u64(*timeout_ns);
            w.put(key);
            w
        }
        FromExecutor::ReleaseHold { bucket, key } => {
            let mut w = Writer::new(out, kind::RELEASE_HOLD, 0, *bucket, byte_len(key));
            w.put(key);
            w
        }
        FromExecutor::FetchInputs { first } => {
            let mut w = Writer::new(out, kind::FETCH_INPUTS, 0, 0, 0);
            w.u32(*first);
            w
        }
        FromExecutor::FetchExtents { first } => {
            let mut w = Writer::new(out, kind::FETCH_EXTENTS, 0, 0, 0);
            w.u32(*first);
            w
        }
        FromExecutor::NeedCredit { bytes } => {
            let mut w = Writer::new(out, kind::NEED_CREDIT, 0, 0, 0);
            w.u64(*bytes);
            w
        }
    };
    writer.at
}

fn read_target(flags: u16, index: u16) -> Result<Target, Malformed> {
    if flags & !(TARGET_MASK | KEY_NAMED) != 0 {
        return Err(Malformed::Field("flag"));
    }
    match flags & TARGET_MASK {
        TARGET_BUCKET => Ok(Target::Bucket(index)),
        TARGET_NEXT => Ok(Target::Next),
        TARGET_FUNCTION => Ok(Target::Function(index)),
        _ => Err(Malformed::Field("target")),
    }
}

fn read_key<'a>(
    reader: &mut Reader<'a>,
    flags: u16,
    lengths: u16,
) -> Result<(Key<'a>, &'a [u8]), Malformed> {
    let key = if flags & KEY_NAMED != 0 {
        Key::Named(reader.key(usize::from(lengths & 0xff))?)
    } else {
        Key::Auto(reader.u32()?)
    };
    Ok((key, reader.group(usize::from(lengths >> 8))?))
}

fn read_extent(reader: &mut Reader<'_>) -> Result<(Extent, u64), Malformed> {
    let extent = Extent {
        offset_units: reader.u32()?,
        len_units: reader.u32()?,
    };
    let size_bytes = reader.u64()?;
    if size_bytes >= extent.len_bytes() {
        return Err(Malformed::Size {
            size_bytes,
            len_units: extent.len_units,
        });
    }
    if extent.end_units() > u64::from(u32::MAX) {
        return Err(Malformed::Field("extent"));
    }
    Ok((extent, size_bytes))
}

fn read_http_status(status: u16) -> Result<u16, Malformed> {
    if (200..=599).contains(&status) {
        Ok(status)
    } else {
        Err(Malformed::Field("HTTP status"))
    }
}

fn read_content_type<'a>(reader: &mut Reader<'a>, len: u16) -> Result<&'a [u8], Malformed> {
    if usize::from(len) > CONTENT_TYPE_BYTES_MAX {
        return Err(Malformed::Field("content type"));
    }
    reader.take(usize::from(len))
}

/// Decodes what an executor says.
pub(crate) fn decode_from_executor(bytes: &[u8]) -> Result<FromExecutor<'_>, Malformed> {
    let mut r = Reader { bytes };
    let kind = r.u8()?;
    let _slots = r.u8()?;
    let (flags, a, b) = (r.u16()?, r.u16()?, r.u16()?);
    Ok(match kind {
        kind::READY => FromExecutor::Ready,
        kind::PUBLISH => {
            let target = read_target(flags, a)?;
            let (extent, size_bytes) = read_extent(&mut r)?;
            let (key, group) = read_key(&mut r, flags, b)?;
            FromExecutor::Publish {
                target,
                extent,
                size_bytes,
                key,
                group,
            }
        }
        kind::FORWARD => {
            let target = read_target(flags, a)?;
            let object = r.u32()?;
            let (key, group) = read_key(&mut r, flags, b)?;
            FromExecutor::Forward {
                target,
                object,
                key,
                group,
            }
        }
        kind::RESPOND => {
            let http_status = read_http_status(a)?;
            let (extent, size_bytes) = read_extent(&mut r)?;
            let content_type = read_content_type(&mut r, b)?;
            FromExecutor::Respond {
                extent,
                size_bytes,
                http_status,
                content_type,
            }
        }
        kind::RESPOND_PARTS => {
            let http_status = read_http_status(a)?;
            let len = r.u32()? as usize;
            let content_type = read_content_type(&mut r, b)?;
            let objects = r.take(len)?;
            if !objects.len().is_multiple_of(4) || flags & !MORE != 0 {
                return Err(Malformed::Field("list of parts"));
            }
            FromExecutor::RespondParts {
                more: flags & MORE != 0,
                http_status,
                content_type,
                objects,
            }
        }
        kind::COMPLETE => {
            let ending = match flags {
                0 => Ending::Returned,
                1 => Ending::NotLoaded,
                2 => Ending::InitFailed,
                3 => Ending::StrayThreads,
                _ => return Err(Malformed::Field("ending")),
            };
            if usize::from(a) > MESSAGE_BYTES_MAX {
                return Err(Malformed::Field("message length"));
            }
            let status = r.array().map(i32::from_le_bytes)?;
            let discarded = r.u32()?;
            FromExecutor::Complete {
                status,
                ending,
                discarded,
                message: r.take(usize::from(a))?,
            }
        }
        kind::GET => {
            let timeout_ns = r.u64()?;
            FromExecutor::Get {
                bucket: a,
                timeout_ns,
                key: r.key(usize::from(b))?,
            }
        }
        kind::RELEASE_HOLD => FromExecutor::ReleaseHold {
            bucket: a,
            key: r.key(usize::from(b))?,
        },
        kind::FETCH_INPUTS => FromExecutor::FetchInputs { first: r.u32()? },
        kind::FETCH_EXTENTS => FromExecutor::FetchExtents { first: r.u32()? },
        kind::NEED_CREDIT => FromExecutor::NeedCredit { bytes: r.u64()? },
        other => return Err(Malformed::Kind(other)),
    })
}

/// Encoded inputs: an iterator over [`Input`] that has been checked already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputList<'a> {
    bytes: &'a [u8],
    left: u32,
    /// Session of a compact input.
    compact_session: Option<u64>,
}

impl<'a> InputList<'a> {
    /// No inputs.
    pub const EMPTY: InputList<'static> = InputList {
        bytes: &[],
        left: 0,
        compact_session: None,
    };

    fn checked(bytes: &'a [u8], count: u32) -> Result<Self, Malformed> {
        let list = Self {
            bytes,
            left: count,
            compact_session: None,
        };
        let mut reader = Reader { bytes };
        for _ in 0..count {
            read_input(&mut reader)?;
        }
        Ok(list)
    }

    /// How many are left.
    pub fn len(&self) -> usize {
        self.left as usize
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }
}

impl<'a> Iterator for InputList<'a> {
    type Item = Input<'a>;

    fn next(&mut self) -> Option<Input<'a>> {
        self.left = self.left.checked_sub(1)?;
        let mut reader = Reader { bytes: self.bytes };
        let input = match self.compact_session {
            Some(session) => read_compact(&mut reader, session),
            None => read_input(&mut reader),
        };
        self.bytes = reader.bytes;
        input.ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

const INPUT_FIXED_BYTES: usize = 36;

fn encoded_input_len(input: &Input<'_>) -> usize {
    let key = match input.key {
        InputKey::Auto { .. } => 12,
        InputKey::Named(name) => name.len(),
    };
    INPUT_FIXED_BYTES + key + input.group.len()
}

fn put_input(w: &mut Writer<'_>, input: &Input<'_>) {
    let (named, key_len) = match input.key {
        InputKey::Auto { .. } => (0, 0),
        InputKey::Named(name) => (1, byte_len(name) as u8),
    };
    w.put(&[named, key_len, byte_len(input.group) as u8, 0]);
    w.u16(input.region);
    w.u16(input.bucket);
    w.u32(input.offset_units);
    w.u64(input.size_bytes);
    w.u64(input.session);
    w.u64(input.arrival_ns);
    match input.key {
        InputKey::Auto {
            invocation,
            ordinal,
        } => {
            w.u64(invocation);
            w.u32(ordinal);
        }
        InputKey::Named(name) => w.put(name),
    }
    w.put(input.group);
}

fn read_input<'a>(r: &mut Reader<'a>) -> Result<Input<'a>, Malformed> {
    let [named, key_len, group_len, _] = r.array()?;
    let (region, bucket, offset_units) = (r.u16()?, r.u16()?, r.u32()?);
    let (size_bytes, session, arrival_ns) = (r.u64()?, r.u64()?, r.u64()?);
    let key = match named {
        0 => InputKey::Auto {
            invocation: r.u64()?,
            ordinal: r.u32()?,
        },
        1 => InputKey::Named(r.key(usize::from(key_len))?),
        _ => return Err(Malformed::Field("input flag")),
    };
    let group = r.group(usize::from(group_len))?;
    Ok(Input {
        region,
        bucket,
        offset_units,
        size_bytes,
        session,
        arrival_ns,
        key,
        group,
    })
}

fn read_compact<'a>(r: &mut Reader<'a>, session: u64) -> Result<Input<'a>, Malformed> {
    let (offset_units, size, region, bucket) = (r.u32()?, r.u32()?, r.u16()?, r.u16()?);
    let (ordinal, invocation, arrival_ns) = (r.u32()?, r.u64()?, r.u64()?);
    Ok(Input {
        region,
        bucket,
        offset_units,
        size_bytes: u64::from(size),
        session,
        arrival_ns,
        key: InputKey::Auto {
            invocation,
            ordinal,
        },
        group: &[],
    })
}

/// Encodes a dispatch with as many of its inputs as fit ten slots, and gives its length.
pub(crate) fn encode_dispatch<'a>(
    dispatch: &Dispatch<'a>,
    inputs: impl Iterator<Item = Input<'a>>,
    out: &mut [u8],
) -> usize {
    let mut inputs = inputs.peekable();
    let extended = dispatch.attempt != 1
        || dispatch.deadline_ns != NO_DEADLINE
        || dispatch.parallelism > PARALLELISM_INLINE_MAX
        || dispatch.request.is_some()
        || dispatch.headers.is_some();
    let compact = dispatch.input_count == 1
        && inputs
            .peek()
            .is_some_and(|input| is_compact(input, dispatch.session));
    let mut flags = 0;
    for (flag, is_set) in [
        (HAS_CALLER, dispatch.has_caller),
        (EXTENDED, extended),
        (HAS_REQUEST, dispatch.request.is_some()),
        (HAS_HEADERS, dispatch.headers.is_some()),
        (COMPACT, compact),
    ] {
        flags |= if is_set { flag } else { 0 };
    }
    if !extended {
        flags |= dispatch.parallelism << PARALLELISM_SHIFT;
    }
    let mut w = Writer::new(
        out,
        kind::DISPATCH,
        flags,
        dispatch.function,
        dispatch.trigger,
    );
    w.u64(dispatch.invocation);
    w.u64(dispatch.session);
    if extended {
        put_extension(&mut w, dispatch);
    }
    if compact {
        if let Some(input) = inputs.next() {
            put_compact(&mut w, &input);
        }
    } else {
        w.u32(dispatch.input_count);
        put_inputs(&mut w, inputs);
    }
    w.at
}

fn is_compact(input: &Input<'_>, session: u64) -> bool {
    matches!(input.key, InputKey::Auto { .. })
        && input.group.is_empty()
        && input.session == session
        && input.size_bytes <= u64::from(u32::MAX)
}

fn put_compact(w: &mut Writer<'_>, input: &Input<'_>) {
    w.u32(input.offset_units);
    // `is_compact` said that it fits.
    w.u32(input.size_bytes as u32);
    w.u16(input.region);
    w.u16(input.bucket);
    if let InputKey::Auto {
        invocation,
        ordinal,
    } = input.key
    {
        w.u32(ordinal);
        w.u64(invocation);
    }
    w.u64(input.arrival_ns);
}

fn put_extension(w: &mut Writer<'_>, dispatch: &Dispatch<'_>) {
    w.u32(dispatch.attempt);
    w.u16(dispatch.parallelism);
    w.u16(0);
    w.u64(dispatch.deadline_ns);
    if let Some(headers) = dispatch.headers {
        w.u16(headers.region);
        w.u16(0);
        w.u32(headers.offset_units);
        w.u32(headers.size_bytes);
    }
    if let Some(request) = dispatch.request {
        put_input(w, &request);
    }
}

/// Writes a count and as many inputs as there is room for.
fn put_inputs<'a>(w: &mut Writer<'_>, inputs: impl Iterator<Item = Input<'a>>) {
    let count_at = w.at;
    w.u32(0);
    let mut count = 0_u32;
    for input in inputs {
        if encoded_input_len(&input) > w.room() {
            break;
        }
        put_input(w, &input);
        count += 1;
    }
    w.bytes[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
}

/// Encodes an answer to `FetchInputs` with as many inputs as fit `out`, and gives its length.
pub(crate) fn encode_inputs<'a>(
    first: u32,
    inputs: impl Iterator<Item = Input<'a>>,
    out: &mut [u8],
) -> usize {
    let mut w = Writer::new(out, kind::INPUTS, 0, 0, 0);
    w.u32(first);
    put_inputs(&mut w, inputs);
    w.at
}

/// Encodes an answer to `FetchExtents` with as many extents as fit `out`, and gives its length.
pub(crate) fn encode_extents(
    first: u32,
    extents: impl Iterator<Item = Extent>,
    out: &mut [u8],
) -> usize {
    let mut w = Writer::new(out, kind::EXTENTS, 0, 0, 0);
    w.u32(first);
    let count_at = w.at;
    w.u32(0);
    let mut count = 0_u32;
    for extent in extents {
        if w.room() < 8 {
            break;
        }
        w.u32(extent.offset_units);
        w.u32(extent.len_units);
        count += 1;
    }
    w.bytes[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
    w.at
}

/// Encodes what a scheduler says into `out` (of [`ARGS_BYTES`]), and gives its length.
pub(crate) fn encode_to_executor(message: &ToExecutor<'_>, out: &mut [u8]) -> usize {
    let writer = match message {
        ToExecutor::Dispatch { dispatch, inputs } => {
            return encode_dispatch(dispatch, *inputs, out);
        }
        ToExecutor::Inputs { first, inputs } => return encode_inputs(*first, *inputs, out),
        ToExecutor::Object { status, input } => {
            let flags = u16::from(input.is_some());
            let mut w = Writer::new(out, kind::OBJECT, flags, 0, 0);
            w.put(&status.to_le_bytes());
            if let Some(input) = input {
                put_input(&mut w, input);
            }
            w
        }
        ToExecutor::Credit { granted } => Writer::new(out, kind::CREDIT, u16::from(*granted), 0, 0),
        ToExecutor::Adopt { extent_count } => {
            let mut w = Writer::new(out, kind::ADOPT, 0, 0, 0);
            w.u32(*extent_count);
            w
        }
        ToExecutor::Extents { first, extents } => {
            let mut w = Writer::new(out, kind::EXTENTS, 0, 0, 0);
            w.u32(*first);
            w.u32((extents.len() / 8) as u32);
            w.put(extents);
            w
        }
        ToExecutor::Exit => Writer::new(out, kind::EXIT, 0, 0, 0),
    };
    writer.at
}

/// Decodes what a scheduler says.
pub(crate) fn decode_to_executor(bytes: &[u8]) -> Result<ToExecutor<'_>, Malformed> {
    let mut r = Reader { bytes };
    let kind = r.u8()?;
    let _slots = r.u8()?;
    let (flags, a, b) = (r.u16()?, r.u16()?, r.u16()?);
    Ok(match kind {
        kind::DISPATCH => read_dispatch(&mut r, flags, a, b)?,
        kind::INPUTS => {
            let (first, count) = (r.u32()?, r.u32()?);
            ToExecutor::Inputs {
                first,
                inputs: InputList::checked(r.bytes, count)?,
            }
        }
        kind::OBJECT => {
            let status = r.array().map(i32::from_le_bytes)?;
            let input = if flags == 1 {
                Some(read_input(&mut r)?)
            } else {
                None
            };
            ToExecutor::Object { status, input }
        }
        kind::CREDIT => ToExecutor::Credit {
            granted: flags == 1,
        },
        kind::ADOPT => ToExecutor::Adopt {
            extent_count: r.u32()?,
        },
        kind::EXTENTS => {
            let (first, count) = (r.u32()?, r.u32()? as usize);
            let extents = r.take(count.checked_mul(8).ok_or(Malformed::Short)?)?;
            ToExecutor::Extents { first, extents }
        }
        kind::EXIT => ToExecutor::Exit,
        other => return Err(Malformed::Kind(other)),
    })
}

fn read_dispatch<'a>(
    r: &mut Reader<'a>,
    flags: u16,
    function: u16,
    trigger: u16,
) -> Result<ToExecutor<'a>, Malformed> {
    let mut dispatch = Dispatch {
        function,
        trigger,
        attempt: 1,
        invocation: r.u64()?,
        session: r.u64()?,
        deadline_ns: NO_DEADLINE,
        input_count: 1,
        request: None,
        headers: None,
        parallelism: flags >> PARALLELISM_SHIFT,
        has_caller: flags & HAS_CALLER != 0,
    };
    if flags & EXTENDED != 0 {
        dispatch.attempt = r.u32()?;
        dispatch.parallelism = r.u16()?;
        let _ = r.u16()?;
        dispatch.deadline_ns = r.u64()?;
        if flags & HAS_HEADERS != 0 {
            let region = r.u16()?;
            let _ = r.u16()?;
            let (offset_units, size_bytes) = (r.u32()?, r.u32()?);
            dispatch.headers = Some(HeadersRef {
                region,
                offset_units,
                size_bytes,
            });
        }
        if flags & HAS_REQUEST != 0 {
            dispatch.request = Some(read_input(r)?);
        }
    }
    let inputs = if flags & COMPACT != 0 {
        let bytes = r.take(32)?;
        InputList {
            bytes,
            left: 1,
            compact_session: Some(dispatch.session),
        }
    } else {
        dispatch.input_count = r.u32()?;
        let count = r.u32()?;
        if count > dispatch.input_count {
            return Err(Malformed::Field("input count"));
        }
        InputList::checked(r.bytes, count)?
    };
    Ok(ToExecutor::Dispatch { dispatch, inputs })
}
