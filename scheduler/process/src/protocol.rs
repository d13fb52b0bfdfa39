//! What node and scheduler say to each other.
//!
//! Two ways lead from the node to the scheduler. The link (`pheromone_shm::link`) carries
//! everything frequent, as postcard-encoded values. What needs descriptors or is large travels as
//! one packet over a SEQPACKET socket, announced by [`ToScheduler::Control`] in the link, so that
//! the two keep one order and the scheduler makes no system call to find out. Both ends are ours
//! and trusted; a value that does not decode ends the process that sent it.

use pheromone_core::event::{Failure, Part, Refusal};
use serde::{Deserialize, Serialize};

/// The scheduler's socket for control packets, by convention of its start.
pub const CONTROL_FD: i32 = 3;
/// The memfd of the link.
pub const LINK_FD: i32 = 4;
/// The memfd of the `node` page that executors watch.
pub const BELL_FD: i32 = 5;

/// Largest part list in one message (12 bytes each at most, 56 KiB): longer responses come in
/// several.
pub const PARTS_PER_MESSAGE_MAX: usize = 4096;
/// Extents per release message.
pub const RELEASES_PER_MESSAGE_MAX: usize = 32;

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
    /// An app has nothing left.
    Removed {
        /// Which.
        app: u16,
    },
    /// Answer to [`ToScheduler::Stats`].
    Stats {
        /// As asked.
        token: u64,
        /// `None`: no such app.
        stats: Option<AppStatsMessage>,
    },
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

/// Counters of one app.
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
    /// Invocations queued.
    pub queued: u64,
    /// Invocations running.
    pub running: u64,
    /// Invocations ever finished.
    pub invocations_total: u64,
    /// The ledger: bytes charged to live objects and sessions.
    pub used_bytes: u64,
    /// Executor processes alive.
    pub executors: u64,
    /// Of them idle.
    pub executors_idle: u64,
    /// Error events ever.
    pub error_events_total: u64,
    /// Executor deaths ever.
    pub deaths_total: u64,
    /// Bounded sleeps of the scheduler that found work nobody had woken it for; should be zero.
    pub missed_wakes_total: u64,
}

/// How the scheduler process is started: its only argument, postcard- and hex-encoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerConfig {
    /// Its number, from 0.
    pub index: u8,
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
