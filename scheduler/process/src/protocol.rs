//! What node and scheduler say to each other.
//!
//! Two ways lead from the node to the scheduler. The link (`pheromone_shm::link`) carries
//! everything frequent, as postcard-encoded values. What needs descriptors or is large travels as
//! one packet over a SEQPACKET socket, announced by [`ToScheduler::Control`] in the link, so that
//! the two keep one order and the scheduler makes no system call to find out. Both ends are ours
//! and trusted; a value that does not decode ends the process that sent it.

use pheromone_core::event::{Failure, NotFound, Part, Refusal, Trouble};
use pheromone_core::spec::Retain;
use serde::{Deserialize, Serialize};

/// The scheduler's socket for control packets, by convention of its start.
pub const CONTROL_FD: i32 = 3;
/// The memfd of the link.
pub const LINK_FD: i32 = 4;
/// The memfd of the `node` page that executors watch.
pub const BELL_FD: i32 = 5;
/// The memfd of the page that the node sleeps on.
pub const ROPE_FD: i32 = 6;
/// For each other scheduler, by index: the memfd of the link to it, and its `node` page, read-only.
pub const NEIGHBOURS_FD: i32 = 7;

/// Largest part list in one message (12 bytes each at most, 56 KiB): longer responses come in
/// several.
pub const PARTS_PER_MESSAGE_MAX: usize = 4096;
/// Live extents in one message about a region to be swept (10 bytes each at most).
pub const SWEEP_EXTENTS_PER_MESSAGE_MAX: usize = 4096;
/// Extents per release message.
pub const RELEASES_PER_MESSAGE_MAX: usize = 32;

/// Largest piece of a dead letter on its way, which is as long as what it holds is many.
const PIECE_BYTES_MAX: usize = 32 * 1024;

/// Bytes in pieces that fit a message each, and whether another one follows.
pub fn pieces(bytes: &[u8]) -> impl Iterator<Item = (&[u8], bool)> {
    let count = bytes.len().div_ceil(PIECE_BYTES_MAX);
    let pieces = bytes.chunks(PIECE_BYTES_MAX).enumerate();
    pieces.map(move |(at, piece)| (piece, at + 1 < count))
}

/// From the node, over the link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToScheduler<'a> {
    /// Read one packet from the control socket.
    Control,
    /// A call or put.
    #[serde(borrow)]
    Request(RequestMessage<'a>),
    /// Cancel a session.
    Cancel {
        /// Which.
        session: u64,
    },
    /// A response's payloads have been read.
    ResponseTaken {
        /// The request answered.
        request: u64,
        /// Its session.
        session: u64,
    },
    /// A process asked for could not be started.
    SpawnFailed {
        /// Whose.
        app: u16,
        /// Slot.
        slot: u16,
        /// As a sentence.
        reason: &'a str,
    },
    /// A process is dead.
    Died {
        /// Whose.
        app: u16,
        /// Slot.
        slot: u16,
        /// Which process.
        incarnation: u32,
        /// Exit code, for `exit(n)`.
        code: Option<i32>,
        /// Signal, where it died by one.
        signal: Option<i32>,
        /// What the crash handler said.
        detail: &'a str,
    },
    /// A failure has been written, as [`ToNode::WriteFailure`] has asked.
    FailureWritten {
        /// Whose.
        app: u16,
        /// Which.
        ticket: u64,
        /// First unit in the ingress region.
        offset_units: u32,
        /// Units.
        len_units: u32,
        /// Payload bytes.
        size_bytes: u64,
    },
    /// What has become of an object that was to be on disk, as [`ToNode::Write`] has asked.
    Written {
        /// Whose.
        app: u16,
        /// Which.
        ticket: u64,
        /// What.
        outcome: WrittenMessage<'a>,
    },
    /// A firing is on disk, as [`ToNode::Firing`] has asked, or cannot be: why, as a sentence.
    Recorded {
        /// Whose.
        app: u16,
        /// Which.
        ticket: u64,
        /// What has become of it.
        outcome: Result<(), &'a str>,
    },
    /// A durable session of the time before goes on; answered as a request is. A piece of a
    /// `RestoredSession`, encoded. The pieces of one follow each other.
    Restore {
        /// The piece.
        bytes: &'a [u8],
        /// Another one follows.
        more: bool,
    },
    /// The durable object that [`ToNode::Load`] has asked for.
    Loaded {
        /// Whose.
        app: u16,
        /// Which.
        ticket: u64,
        /// The object, or why there is none.
        found: Result<FoundMessage<'a>, NotFound>,
    },
    /// A failure could not be written.
    FailureNotWritten {
        /// Whose.
        app: u16,
        /// Which.
        ticket: u64,
        /// Why, as a sentence.
        reason: &'a str,
    },
    /// Memory has been punched, as [`ToNode::Punch`] has asked.
    Punched {
        /// Whose.
        app: u16,
        /// Slot.
        slot: u16,
        /// Which process of the slot.
        incarnation: u32,
        /// As in the question.
        extents: Vec<(u32, u32)>,
    },
    /// A slot without a process has memory in its region: what no object covers may go, unless a
    /// process has the slot meanwhile. Answered by [`ToNode::Sweep`], if at all.
    Sweep {
        /// Whose.
        app: u16,
        /// Slot.
        slot: u16,
    },
    /// A region has been swept, as [`ToNode::Sweep`] has asked.
    Swept {
        /// Whose.
        app: u16,
        /// Slot.
        slot: u16,
    },
    /// An app takes no more sessions for now: what only waits for more objects to gather across
    /// sessions fires, if nothing else goes on.
    Flush {
        /// Which.
        app: u16,
    },
    /// An app goes.
    Remove {
        /// Which.
        app: u16,
    },
    /// Answered by [`ToNode::Stats`].
    Stats {
        /// Comes back in the answer.
        token: u64,
        /// Which app.
        app: u16,
    },
    /// Have a dead letter run again; answered as a request is.
    Retry {
        /// Whose app.
        app: u16,
        /// Names it in the answers; never 0.
        request: u64,
        /// Which.
        letter: u64,
        /// The caller waits.
        has_caller: bool,
        /// Shortens the session's deadline.
        timeout_ns: Option<u64>,
    },
    /// Tell of the dead letters of an app: answered by a [`ToNode::Letter`] for each, the oldest
    /// first, and [`ToNode::LettersDone`].
    Letters {
        /// Comes back in the answers.
        token: u64,
        /// Which app.
        app: u16,
    },
    /// Drop dead letters: answered by [`ToNode::LettersDone`].
    DropLetters {
        /// Comes back in the answer.
        token: u64,
        /// Which app.
        app: u16,
        /// This one alone, or all.
        letter: Option<u64>,
    },
    /// Another version takes an app's place: its dead letters, now and later, are told by
    /// [`ToNode::Handed`]. Answered by [`ToNode::HandedOver`] after those that there are now.
    HandOver {
        /// Which.
        app: u16,
    },
    /// What a letter told by [`ToNode::Handed`] holds is copied, or not wanted.
    LetterTaken {
        /// Whose.
        app: u16,
        /// Which.
        letter: u64,
    },
    /// A dead letter of the version before: a piece of a `HandedLetter`, encoded. The pieces of one
    /// follow each other.
    Adopt {
        /// Whose it is now.
        app: u16,
        /// The piece.
        bytes: &'a [u8],
        /// Another one follows.
        more: bool,
    },
    /// Leave when nothing is left to write.
    Shutdown,
}

/// A call or put, its body in the app's ingress region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestMessage<'a> {
    /// Whose app.
    pub app: u16,
    /// Names it in the answers; never 0.
    pub request: u64,
    /// Where to.
    #[serde(borrow)]
    pub destination: DestinationMessage<'a>,
    /// First unit of the body.
    pub offset_units: u32,
    /// Units of the body.
    pub len_units: u32,
    /// Payload bytes.
    pub size_bytes: u64,
    /// Header block: first unit, units, bytes.
    pub headers: Option<(u32, u32, u32)>,
    /// Joins this open session.
    pub session: Option<u64>,
    /// The caller waits.
    pub has_caller: bool,
    /// Shortens the session's deadline.
    pub timeout_ns: Option<u64>,
    /// It is on disk, and opens a durable session under this id.
    pub durable: Option<u64>,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum DestinationMessage<'a> {
    /// The app's entry.
    Entry,
    /// A function.
    Function(u16),
    /// A bucket.
    Bucket {
        /// Which.
        bucket: u16,
        /// `None`: automatic.
        #[serde(borrow)]
        key: Option<&'a [u8]>,
        /// Empty for none.
        #[serde(borrow)]
        group: &'a [u8],
    },
    /// A retained object, which is the response.
    Retained {
        /// Its bucket.
        bucket: u16,
        /// Its key.
        #[serde(borrow)]
        key: &'a [u8],
    },
}

/// From the node, over the control socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Control {
    /// A new app. Descriptor: a memfd with its postcard-encoded `AppSpec`.
    Deploy {
        /// Its id.
        app: u16,
        /// Bytes of the spec.
        spec_bytes: u64,
    },
    /// A process exists. Descriptors: `up` and `down`, both read-write.
    Executor {
        /// Whose.
        app: u16,
        /// Slot.
        slot: u16,
        /// Which process of the slot.
        incarnation: u32,
    },
}

/// From the scheduler, over the link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToNode<'a> {
    /// It is ready.
    Ready,
    /// Start a process.
    Spawn {
        /// Whose.
        app: u16,
        /// Slot.
        slot: u16,
        /// Index into the executor cores.
        core: u16,
    },
    /// Kill the process of a slot.
    Kill {
        /// Whose.
        app: u16,
        /// Slot.
        slot: u16,
        /// Which process.
        incarnation: u32,
        /// Why, as a sentence.
        why: &'a str,
    },
    /// Memory of the ingress region is free again: pairs (offset, length) in units.
    Released {
        /// Whose.
        app: u16,
        /// At most [`RELEASES_PER_MESSAGE_MAX`].
        extents: Vec<(u32, u32)>,
    },
    /// Give the whole pages of dead objects back to the machine, whose owner has no time for it,
    /// and say [`ToScheduler::Punched`]. Until then these extents are nobody's.
    Punch {
        /// Whose.
        app: u16,
        /// Slot of the owner.
        slot: u16,
        /// Which process of the slot.
        incarnation: u32,
        /// At most [`RELEASES_PER_MESSAGE_MAX`], pairs (offset, length) in units.
        extents: Vec<(u32, u32)>,
    },
    /// Punch all of a region but these extents, and say [`ToScheduler::Swept`]: no process has its
    /// slot until then.
    Sweep {
        /// Whose.
        app: u16,
        /// Slot.
        slot: u16,
        /// At most [`SWEEP_EXTENTS_PER_MESSAGE_MAX`], in order: pairs (offset, length) in units.
        live: Vec<(u32, u32)>,
        /// Others follow.
        more: bool,
    },
    /// A request was taken.
    Accepted {
        /// Which.
        request: u64,
        /// Its session.
        session: u64,
    },
    /// A request was refused; its extents are the node's again.
    Refused {
        /// Which.
        request: u64,
        /// Why.
        refusal: Refusal,
    },
    /// A response, or a piece of one.
    Response {
        /// Which request.
        request: u64,
        /// Its session.
        session: u64,
        /// Whose.
        app: u16,
        /// HTTP status.
        http_status: u16,
        /// Empty for the default.
        #[serde(borrow)]
        content_type: &'a [u8],
        /// The invocation that answers; `u64::MAX`: none does.
        by: u64,
        /// Its parts, in order; those of earlier pieces come before.
        parts: Vec<Part>,
        /// Another piece follows.
        more: bool,
    },
    /// A session has ended.
    Ended {
        /// Whose.
        app: u16,
        /// The request that opened it.
        request: u64,
        /// Which.
        session: u64,
        /// How.
        outcome: OutcomeMessage,
        /// A response was given.
        answered: bool,
    },
    /// Something went wrong in a session that goes on.
    ErrorEvent {
        /// Whose.
        app: u16,
        /// Which.
        session: u64,
        /// As a sentence.
        text: &'a str,
    },
    /// Write what a function is to read of a failure into the app's ingress region.
    WriteFailure {
        /// Whose.
        app: u16,
        /// Comes back in the answer.
        ticket: u64,
        /// What has failed, and how.
        failure: Failure,
    },
    /// Write an object to disk. Its payload stays where it is until [`ToScheduler::Written`].
    Write(#[serde(borrow)] WriteMessage<'a>),
    /// Write a firing to disk, and say [`ToScheduler::Recorded`]: a piece of a [`FiringMessage`],
    /// encoded. The pieces of one follow each other.
    Firing {
        /// The piece.
        bytes: &'a [u8],
        /// Another one follows.
        more: bool,
    },
    /// Write to disk that an invocation need not run again.
    Success {
        /// Its session.
        session: u64,
        /// The invocation.
        invocation: u64,
    },
    /// Look for a durable object, and read it into the app's ingress region.
    Load {
        /// Whose.
        app: u16,
        /// Comes back in the answer.
        ticket: u64,
        /// Bucket index.
        bucket: u16,
        /// Its key.
        #[serde(borrow)]
        key: &'a [u8],
    },
    /// Delete a durable object, if there is one.
    Delete {
        /// Whose.
        app: u16,
        /// Bucket index.
        bucket: u16,
        /// Its key.
        #[serde(borrow)]
        key: &'a [u8],
    },
    /// An app has nothing left.
    Removed {
        /// Which.
        app: u16,
    },
    /// An app's processes fail again and again, or do no longer.
    Trouble {
        /// Whose.
        app: u16,
        /// What is wrong; `None`: nothing any more.
        trouble: Option<Trouble>,
    },
    /// Answer to [`ToScheduler::Stats`].
    Stats {
        /// As asked.
        token: u64,
        /// `None`: no such app.
        stats: Option<AppStatsMessage>,
    },
    /// A dead letter that is another version's: a piece of a `HandedLetter`, encoded. The pieces of
    /// one follow each other. The node answers with [`ToScheduler::LetterTaken`].
    Handed {
        /// Whose it was.
        app: u16,
        /// The piece.
        bytes: &'a [u8],
        /// Another one follows.
        more: bool,
    },
    /// Answer to [`ToScheduler::HandOver`].
    HandedOver {
        /// Whose.
        app: u16,
    },
    /// A dead letter, for [`ToScheduler::Letters`].
    Letter {
        /// As asked.
        token: u64,
        /// What is known of it.
        letter: LetterMessage,
    },
    /// There are no more, or all have been dropped.
    LettersDone {
        /// As asked.
        token: u64,
        /// So many.
        count: u64,
    },
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LetterMessage {
    /// The invocation.
    pub id: u64,
    /// Its function.
    pub function: u16,
    /// The session in which it has failed.
    pub session: u64,
    /// Why, in its last attempt.
    pub failure: Failure,
    /// When, CLOCK_MONOTONIC.
    pub died_ns: u64,
    /// How many inputs it had.
    pub input_count: u32,
    /// Bytes that are held for it.
    pub held_bytes: u64,
    /// Its inputs are held.
    pub has_inputs: bool,
}

/// A firing to be written to disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FiringMessage {
    /// Whose.
    pub app: u16,
    /// Comes back in the answer.
    pub ticket: u64,
    /// Its session.
    pub session: u64,
    /// The invocation.
    pub invocation: u64,
    /// Bucket index.
    pub bucket: u16,
    /// The trigger's place in it.
    pub trigger: u16,
    /// The function.
    pub function: u16,
    /// Its inputs, by their numbers in the journal.
    pub inputs: Vec<u64>,
    /// Start and end, ns.
    pub window: Option<(u64, u64)>,
}

/// An object to be written to disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WriteMessage<'a> {
    /// Whose.
    pub app: u16,
    /// Comes back in the answer.
    pub ticket: u64,
    /// The session that sends it.
    pub session: u64,
    /// The invocation that sends it; 0: somebody outside.
    pub author: u64,
    /// How many of this name its attempt has sent before; `None`: it is sent anew.
    pub ordinal: Option<u32>,
    /// Region of the payload.
    pub region: u16,
    /// First unit of the payload in its region.
    pub offset_units: u32,
    /// Payload bytes.
    pub size_bytes: u64,
    /// Bucket index.
    pub bucket: u16,
    /// Its key, or the text of its automatic one.
    #[serde(borrow)]
    pub key: &'a [u8],
    /// Its group; empty for none.
    #[serde(borrow)]
    pub group: &'a [u8],
    /// How long it stays, from now on.
    pub retain: Retain,
    /// Whether it replaces what another has sent.
    pub replace: bool,
}

/// What has become of an object that was to be on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WrittenMessage<'a> {
    /// It is there.
    Done {
        /// Its number in the journal.
        sequence: u64,
        /// Its author has sent it before; that one stands.
        is_repeated: bool,
    },
    /// It is not to replace what is there.
    Exists,
    /// The node keeps nothing on disk.
    NothingKept,
    /// The disk has refused: why, as a sentence.
    Failed(&'a str),
}

/// A durable object, read into the app's ingress region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundMessage<'a> {
    /// First unit.
    pub offset_units: u32,
    /// Units.
    pub len_units: u32,
    /// Payload bytes.
    pub size_bytes: u64,
    /// The session that sent it.
    pub session: u64,
    /// Its group; empty for none.
    pub group: &'a [u8],
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum OutcomeMessage {
    /// Quiet, and answered.
    Responded,
    /// Quiet, without a response.
    Completed,
    /// For this reason.
    Failed(Failure),
    /// Its deadline passed.
    TimedOut,
    /// Cancelled.
    Cancelled,
}

/// Counters of one app, as one scheduler has them, or summed up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppStatsMessage {
    /// Sessions open.
    pub sessions_open: u64,
    /// Sessions ever opened.
    pub sessions_total: u64,
    /// Objects alive.
    pub objects_live: u64,
    /// Objects ever published.
    pub objects_total: u64,
    /// Objects that triggers hold which gather across sessions.
    pub gathered: u64,
    /// Schedulers at which more goes on than waiting for more such objects.
    pub busy: u64,
    /// Invocations queued.
    pub queued: u64,
    /// Invocations running.
    pub running: u64,
    /// Invocations ever finished.
    pub invocations_total: u64,
    /// Invocations that executors have begun by themselves, ever.
    pub continued_total: u64,
    /// The ledger: bytes charged to live objects and sessions.
    pub used_bytes: u64,
    /// Executor processes alive.
    pub executors: u64,
    /// Of them idle.
    pub executors_idle: u64,
    /// Error events ever.
    pub error_events_total: u64,
    /// Objects that triggers have dropped unfired, ever.
    pub dropped_total: u64,
    /// Firings that a limit forced before their time, ever.
    pub early_total: u64,
    /// Invocations that waited long because others of higher priority went first, ever.
    pub starved_total: u64,
    /// Attempts that rerun rules have begun, ever.
    pub reruns_total: u64,
    /// Executor deaths ever.
    pub deaths_total: u64,
    /// Dead letters there are.
    pub dead_letters: u64,
    /// Bytes that they hold.
    pub dead_letters_bytes: u64,
    /// Invocations that were out of attempts, ever.
    pub dead_letters_total: u64,
    /// Dead letters that have made room for newer ones, ever.
    pub dead_letters_pushed_out_total: u64,
    /// Dead letters that have been retried, ever.
    pub dead_letters_retried_total: u64,
    /// Dead letters that have been dropped, ever.
    pub dead_letters_dropped_total: u64,
    /// Bounded sleeps of the scheduler that found work nobody had woken it for; should be zero.
    pub missed_wakes_total: u64,
    /// Executors, of any app, that slept and that the scheduler has woken, ever.
    pub executor_wakes_total: u64,
    /// What that took the scheduler, nanoseconds: the call into the kernel and what leads to it.
    pub executor_wakes_ns_total: u64,
}

impl AppStatsMessage {
    /// Adds the counters of another scheduler.
    pub fn add(&mut self, other: &Self) {
        // By name, so that no counter can be forgotten.
        let Self {
            sessions_open,
            sessions_total,
            objects_live,
            objects_total,
            gathered,
            busy,
            queued,
            running,
            invocations_total,
            continued_total,
            used_bytes,
            executors,
            executors_idle,
            error_events_total,
            dropped_total,
            early_total,
            starved_total,
            reruns_total,
            deaths_total,
            dead_letters,
            dead_letters_bytes,
            dead_letters_total,
            dead_letters_pushed_out_total,
            dead_letters_retried_total,
            dead_letters_dropped_total,
            missed_wakes_total,
            executor_wakes_total,
            executor_wakes_ns_total,
        } = other;
        for (sum, counter) in [
            (&mut self.sessions_open, sessions_open),
            (&mut self.sessions_total, sessions_total),
            (&mut self.objects_live, objects_live),
            (&mut self.objects_total, objects_total),
            (&mut self.gathered, gathered),
            (&mut self.busy, busy),
            (&mut self.queued, queued),
            (&mut self.running, running),
            (&mut self.invocations_total, invocations_total),
            (&mut self.continued_total, continued_total),
            (&mut self.used_bytes, used_bytes),
            (&mut self.executors, executors),
            (&mut self.executors_idle, executors_idle),
            (&mut self.error_events_total, error_events_total),
            (&mut self.dropped_total, dropped_total),
            (&mut self.early_total, early_total),
            (&mut self.starved_total, starved_total),
            (&mut self.reruns_total, reruns_total),
            (&mut self.deaths_total, deaths_total),
            (&mut self.dead_letters, dead_letters),
            (&mut self.dead_letters_bytes, dead_letters_bytes),
            (&mut self.dead_letters_total, dead_letters_total),
            (
                &mut self.dead_letters_pushed_out_total,
                dead_letters_pushed_out_total,
            ),
            (
                &mut self.dead_letters_retried_total,
                dead_letters_retried_total,
            ),
            (
                &mut self.dead_letters_dropped_total,
                dead_letters_dropped_total,
            ),
            (&mut self.missed_wakes_total, missed_wakes_total),
            (&mut self.executor_wakes_total, executor_wakes_total),
            (&mut self.executor_wakes_ns_total, executor_wakes_ns_total),
        ] {
            *sum += counter;
        }
    }
}

/// How the scheduler process is started: its only argument, postcard- and hex-encoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerConfig {
    /// Its number, from 0.
    pub index: u8,
    /// How many schedulers there are.
    pub schedulers: u8,
    /// The node's process id: whoever finds another parent has lost its node.
    pub node: u32,
    /// CPU to be pinned to; `None`: not pinned.
    pub cpu: Option<u32>,
    /// How many cores executors are spread over; 0: unknown.
    pub executor_cores: u16,
    /// How long idle executors spin.
    pub spin: SpinMessage,
    /// The scheduler never sleeps.
    pub never_sleeps: bool,
    /// The node has a place for what is to outlive it.
    pub keeps_on_disk: bool,
    /// Where the numbers in ids begin; 0 where no id outlives the node.
    pub first_id: u64,
}

/// How long idle executors spin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SpinMessage {
    /// They sleep at once.
    Never,
    /// This long, ns.
    Budget(u64),
    /// For ever.
    Always,
}
