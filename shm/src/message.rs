//! Messages between an executor and its scheduler, as plain checked values.
//!
//! A message is what one side says; on the wire it is 1 to 10 slots of a ring (`ring.rs`), and
//! what it says is an allegation until the receiver has judged it. This file names the values;
//! `wire.rs` turns them into words and back. Numbers that name functions, buckets and triggers
//! are indices whose meaning the two ends agreed on when the app was deployed; this crate gives
//! them none.

/// Bytes of one allocation unit: every extent starts and ends on a multiple of it, so that a
/// payload is aligned to a cache line.
pub const UNIT_BYTES: u64 = 64;

/// `bucket` of an object that is in no bucket (a direct object, or a request).
pub const NO_BUCKET: u16 = u16::MAX;
/// `trigger` of an invocation that no bucket trigger caused (a call, or a direct object).
pub const NO_TRIGGER: u16 = u16::MAX;
/// `function` of a [`FromExecutor::Fire`] that is for all of its trigger's functions.
pub const ALL_FUNCTIONS: u16 = u16::MAX;
/// `deadline_ns` or `timeout_ns` of an invocation without one.
pub const NO_DEADLINE: u64 = u64::MAX;
/// Names the request in messages that name an object held by the invocation.
pub const REQUEST_OBJECT: u32 = u32::MAX;
/// Most bytes of a key; keys have at least one.
pub const KEY_BYTES_MAX: usize = 255;
/// Most bytes of a group; the empty group means none.
pub const GROUP_BYTES_MAX: usize = 255;
/// Most bytes of a function's failure message.
pub const MESSAGE_BYTES_MAX: usize = 1024;
/// Most bytes of a response's content type.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;

/// A range of a region in units of [`UNIT_BYTES`]: what was allocated, not the payload's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Extent {
    /// First unit, from the region's start.
    pub offset_units: u32,
    /// Length in units.
    pub len_units: u32,
}

impl Extent {
    /// First byte, from the region's start.
    pub fn offset_bytes(self) -> u64 {
        u64::from(self.offset_units) * UNIT_BYTES
    }

    /// Length in bytes.
    pub fn len_bytes(self) -> u64 {
        u64::from(self.len_units) * UNIT_BYTES
    }

    /// One past the last unit.
    pub fn end_units(self) -> u64 {
        u64::from(self.offset_units) + u64::from(self.len_units)
    }

    /// Units needed for a payload of `size` bytes and the zero byte that follows it.
    pub fn units_for(size: u64) -> u64 {
        size / UNIT_BYTES + 1
    }
}

/// Where a published object goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Into this bucket.
    Bucket(u16),
    /// A direct object for every `next` function of the publisher.
    Next,
    /// A direct object for one function.
    Function(u16),
}

/// The key a publisher gives an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// Automatic: the publisher's invocation and this ordinal (for a bucket, how many automatic
    /// keys the attempt made for that bucket before; for a direct object, its ordinal of
    /// creation among the attempt's direct objects).
    Auto(u32),
    /// Named by the function: 1 to 255 bytes, no zero byte, not beginning with `~`.
    Named(&'a [u8]),
}

/// The key of an object as its consumer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputKey<'a> {
    /// Written `~I.N` where someone asks for text.
    Auto {
        /// The publisher's invocation id, I.
        invocation: u64,
        /// N.
        ordinal: u32,
    },
    /// 1 to 255 bytes.
    Named(&'a [u8]),
}

/// One object handed to an executor: where its payload is and what the scheduler knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input<'a> {
    /// Which region of the app's window holds the payload.
    pub region: u16,
    /// Bucket index, or [`NO_BUCKET`].
    pub bucket: u16,
    /// First unit of the payload in its region.
    pub offset_units: u32,
    /// Payload bytes; one zero byte follows.
    pub size_bytes: u64,
    /// The session that published it.
    pub session: u64,
    /// When the scheduler took it from the ring, CLOCK_MONOTONIC.
    pub arrival_ns: u64,
    /// Its key.
    pub key: InputKey<'a>,
    /// Its group; empty for none.
    pub group: &'a [u8],
    /// How many objects are attached to it, to be had by [`FromExecutor::FetchAttached`]: of one
    /// that tells of a failure, the inputs of the failed invocation.
    pub attached: u32,
}

/// The headers of the call that opened a session, in the ingress region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadersRef {
    /// Region of the header block.
    pub region: u16,
    /// First unit of the block (format: `headers.rs` of the node's side; name, NUL, value, NUL,
    /// repeated).
    pub offset_units: u32,
    /// Bytes of the block.
    pub size_bytes: u32,
}

/// Starts one attempt of one invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dispatch<'a> {
    /// Function index.
    pub function: u16,
    /// Index of the trigger within its bucket's app-wide numbering, or [`NO_TRIGGER`].
    pub trigger: u16,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// Invocation id; the same for all attempts.
    pub invocation: u64,
    /// Session id.
    pub session: u64,
    /// The session's deadline, CLOCK_MONOTONIC, or [`NO_DEADLINE`].
    pub deadline_ns: u64,
    /// How long the attempt may take from when its function is loaded and initialized, or
    /// [`NO_DEADLINE`].
    pub timeout_ns: u64,
    /// How many inputs there are in all; those that do not fit follow by
    /// [`FromExecutor::FetchInputs`].
    pub input_count: u32,
    /// The request, where the app keeps it (`keep_request`).
    pub request: Option<Input<'a>>,
    /// The headers of the session's call, where it had some.
    pub headers: Option<HeadersRef>,
    /// How many further executors of this app could run at once (`phr_parallelism`).
    pub parallelism: u16,
    /// The session has a caller who can be answered.
    pub has_caller: bool,
    /// Of an invocation that a window caused, its start and end, CLOCK_MONOTONIC; of one that a
    /// batch caused, when its first and its last object arrived.
    pub window: Option<(u64, u64)>,
}

/// What an executor says. The invocation is implied: the one its open dispatch named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromExecutor<'a> {
    /// The process is set up and waits for work. Its first message.
    Ready,
    /// The open dispatch's function is loaded and initialized, and is called now. Said once per
    /// function and process, before its first call.
    Loaded,
    /// A new object.
    Publish {
        /// Where to.
        target: Target,
        /// Its memory, in the executor's own region.
        extent: Extent,
        /// Payload bytes, fewer than the extent has.
        size_bytes: u64,
        /// Its key (for a direct object a label).
        key: Key<'a>,
        /// Of a direct object: how many direct objects the attempt had created before. Of an
        /// object in a bucket: the number of its automatic key, or 0 where its key is named.
        ordinal: u32,
        /// Its group; empty for none.
        group: &'a [u8],
        /// It arrives when so much time has passed; 0: at once.
        delay_ns: u64,
    },
    /// A new object with an automatic key, as in `Publish`, without group or delay. It fires one
    /// function, which the executor takes on itself once its own has returned, unless the scheduler
    /// withdraws that before (`claim`).
    Offer {
        /// Where to.
        target: Target,
        /// As in `Publish`.
        extent: Extent,
        /// As in `Publish`.
        size_bytes: u64,
        /// As in `Publish`; also the number of the automatic key.
        ordinal: u32,
        /// The invocation, of those that were granted.
        invocation: u64,
    },
    /// The attempt has returned with success, and what it has offered has begun.
    Continue {
        /// As in `Complete`.
        discarded: u32,
    },
    /// The `Publish` or `Forward` that follows at once is to be on disk before it arrives;
    /// answered by [`ToExecutor::Persisted`] once it is, or cannot be.
    Persist,
    /// An object that the invocation holds, published again under another name, not copied.
    Forward {
        /// Where to.
        target: Target,
        /// Index among the invocation's objects: its inputs, then what `Get` and `FetchAttached`
        /// gave it, in order; or [`REQUEST_OBJECT`].
        object: u32,
        /// The new key.
        key: Key<'a>,
        /// As in `Publish`.
        ordinal: u32,
        /// The new group.
        group: &'a [u8],
        /// As in `Publish`.
        delay_ns: u64,
    },
    /// The response to a session's caller.
    Respond {
        /// Which session: an ancestor of the invocation's, or 0 for its own.
        session: u64,
        /// Its memory, in the executor's own region.
        extent: Extent,
        /// Payload bytes.
        size_bytes: u64,
        /// HTTP status, 200 to 599.
        http_status: u16,
        /// Content type; empty for the default.
        content_type: &'a [u8],
    },
    /// A response made of payloads that the invocation holds. Long lists come as several
    /// messages, all but the last with `more`.
    RespondParts {
        /// Another message of the same response follows.
        more: bool,
        /// HTTP status, 200 to 599.
        http_status: u16,
        /// Content type; empty for the default. Only the last message's counts.
        content_type: &'a [u8],
        /// Object indices as in `Forward`, little-endian `u32`s.
        objects: &'a [u8],
    },
    /// The failure of a session.
    FailSession {
        /// As in `Respond`.
        session: u64,
        /// What its caller is told: as a function's own status.
        status: i32,
        /// The failure's sentence, at most [`MESSAGE_BYTES_MAX`] bytes.
        message: &'a [u8],
    },
    /// Name a parent of the invocation's session; answered by [`ToExecutor::Parent`].
    Parent {
        /// Which.
        number: u32,
    },
    /// The attempt has returned (or could not be started).
    Complete {
        /// The function's return value: 0, 1..=255, 0x100|1..=255, or a negative `phr_status`.
        status: i32,
        /// Why the attempt ended, where it was not by the function's return.
        ending: Ending,
        /// Unsent objects that were given back.
        discarded: u32,
        /// The failure's sentence; empty where there is none.
        message: &'a [u8],
    },
    /// Look up an object of this session; answered by [`ToExecutor::Object`].
    Get {
        /// Bucket index.
        bucket: u16,
        /// How long to wait; 0: not at all; 2^64 - 1: as long as it takes.
        timeout_ns: u64,
        /// Key, or the text of an automatic one (`~I.N`).
        key: &'a [u8],
    },
    /// Look up a durable or retained object, of whichever session; answered by
    /// [`ToExecutor::Object`].
    Load {
        /// Bucket index.
        bucket: u16,
        /// Key, or the text of an automatic one.
        key: &'a [u8],
    },
    /// Release the bucket's hold (`keep`) on an object of this session, and delete the durable
    /// object of this name.
    ReleaseHold {
        /// Bucket index.
        bucket: u16,
        /// Key, or the text of an automatic one.
        key: &'a [u8],
    },
    /// Keys that a `dynamic_join` trigger waits for. Long lists come as several messages, all but
    /// the last with `more`.
    Join {
        /// The app-wide number of the trigger, as in [`Dispatch::trigger`].
        trigger: u16,
        /// Another message of the same list follows.
        more: bool,
        /// The keys, or the texts of automatic ones, encoded: made by
        /// [`put_join_key`](crate::wire::put_join_key), read with
        /// [`join_keys`](crate::wire::join_keys).
        keys: &'a [u8],
    },
    /// How many objects of a round a `redundant` trigger fires on, and how many come.
    Redundant {
        /// As in `Join`.
        trigger: u16,
        /// From 1 to `n`.
        k: u32,
        /// How many come.
        n: u32,
    },
    /// How many sources close a `dynamic_group` trigger.
    ExpectSources {
        /// As in `Join`.
        trigger: u16,
        /// How many; 0 closes it at once.
        sources: u32,
    },
    /// The invocation is a source of a `dynamic_group` trigger, and closed when it succeeds.
    CloseSource {
        /// As in `Join`.
        trigger: u16,
    },
    /// Of a custom trigger's verdict: these objects fire. Long lists come as several messages, all
    /// but the last with `more`.
    Fire {
        /// One of the trigger's functions, or [`ALL_FUNCTIONS`].
        function: u16,
        /// Another message of the same firing follows.
        more: bool,
        /// The session whose objects they are.
        session: u64,
        /// Their numbers ([`TriggerEvent::Object`](crate::events::TriggerEvent)), little-endian
        /// `u64`s, in the order of the inputs.
        objects: &'a [u8],
    },
    /// Of a custom trigger's verdict: these objects are dropped.
    Drop {
        /// As in `Fire`.
        session: u64,
        /// As in `Fire`.
        objects: &'a [u8],
    },
    /// Of a custom trigger's verdict: it wants to be called at this time.
    TickAt {
        /// CLOCK_MONOTONIC; 2^64 - 1: not any more.
        time_ns: u64,
    },
    /// Send the inputs from this index on; answered by [`ToExecutor::Inputs`].
    FetchInputs {
        /// Index of the first wanted.
        first: u32,
    },
    /// Send what is attached to an object that the invocation holds, from this one on; answered
    /// by [`ToExecutor::Inputs`] with some of it, which joins the objects that the invocation
    /// holds, or with nothing where it holds as many as it may.
    FetchAttached {
        /// As in `Forward`.
        object: u32,
        /// Which of the attached is the first wanted.
        first: u32,
    },
    /// Send the adopted region's live extents from this index on; answered by
    /// [`ToExecutor::Extents`].
    FetchExtents {
        /// Index of the first wanted.
        first: u32,
    },
    /// More credit is needed for an allocation; answered by [`ToExecutor::Credit`].
    NeedCredit {
        /// Bytes beyond what is left.
        bytes: u64,
    },
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ending {
    /// The function returned.
    Returned = 0,
    /// Its library or symbol could not be loaded, or its ABI is another.
    NotLoaded = 1,
    /// Its `PHR_INIT` failed.
    InitFailed = 2,
    /// It returned, but left threads behind; the process must be retired.
    StrayThreads = 3,
}

/// What the scheduler says to an executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToExecutor<'a> {
    /// Run this. `inputs` are the first of `dispatch.input_count`, as many as fit the message.
    Dispatch {
        /// The invocation.
        dispatch: Dispatch<'a>,
        /// Its first inputs, encoded; read with [`InputList`](crate::wire::InputList).
        inputs: crate::wire::InputList<'a>,
    },
    /// Inputs asked for by `FetchInputs`, or attached objects asked for by `FetchAttached`, in the
    /// `args` area or the message itself.
    Inputs {
        /// Index of the first among the inputs, or among what is attached.
        first: u32,
        /// The inputs.
        inputs: crate::wire::InputList<'a>,
    },
    /// Answer to `Get` and `Load`.
    Object {
        /// 0, or a negative `phr_status`.
        status: i32,
        /// The object, with status 0. It joins the objects that the invocation holds.
        input: Option<Input<'a>>,
    },
    /// Answer to `Persist`.
    Persisted {
        /// 0, or a negative `phr_status`.
        status: i32,
    },
    /// Answer to `Parent`.
    Parent {
        /// How many parents the session has.
        count: u32,
        /// The one asked for; 0 where there are not so many.
        session: u64,
    },
    /// Answer to `NeedCredit`: the credit word has been raised, or not.
    Credit {
        /// False: the quota is full, or the request can never be met.
        granted: bool,
    },
    /// The region had an owner before: its live extents follow by `FetchExtents`, and the
    /// executor must rebuild its allocator from them before its first allocation.
    Adopt {
        /// How many.
        extent_count: u32,
    },
    /// Answer to `FetchExtents`.
    Extents {
        /// Index of the first.
        first: u32,
        /// Pairs of little-endian `u32` (offset, length) in units.
        extents: &'a [u8],
    },
    /// Call this custom trigger with these events. Its answers, and then a `Complete`, follow.
    Events {
        /// Its app-wide number.
        trigger: u16,
        /// The events, in the `args` area.
        events: crate::events::EventList<'a>,
    },
    /// Leave now, in order.
    Exit,
}
