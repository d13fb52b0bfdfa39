//! What the core is told, and what it decides: the two sides of `step(event, now) -> actions`.
//!
//! Actions go into a [`Sink`] as calls instead of a list, so that a dispatch borrows what the core
//! holds and the steady state allocates nothing. A sink acts or records; it never decides, and
//! answers nothing but whether a release ring had room.

use pheromone_shm::message::{Extent, FromExecutor, HeadersRef, Input, ToExecutor};
use serde::{Deserialize, Serialize};

use crate::spec::{AppSpec, BucketIndex, FunctionIndex};

/// Most extents that one [`Sink::extents`] is given: 32 KiB, half of an `args` area.
pub const EXTENTS_PER_MESSAGE_MAX: usize = 4096;

/// One deployed version of an app. Chosen by whoever deploys; never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AppId(pub u16);

/// One slot for an executor process of one app. The slot has a region of the same index, which
/// outlives the process; successive processes are told apart by `incarnation` in events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExecutorId {
    /// Whose.
    pub app: AppId,
    /// 0..pool.max + limits.waiters.
    pub slot: u16,
}

/// A session: index and generation in one number, never 0, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// Names an outside party's request, chosen by the node; 0 where nobody waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// A payload that the node has written into an app's ingress region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ingress {
    /// Its memory in the ingress region.
    pub extent: Extent,
    /// Payload bytes.
    pub size_bytes: u64,
}

/// Where an external object goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination<'a> {
    /// The app's `entry`.
    Entry,
    /// This function, as its single input (bucket "", key `request`).
    Function(FunctionIndex),
    /// A bucket, under this key (`None`: automatic) and group.
    Bucket {
        /// Which.
        bucket: BucketIndex,
        /// 1 to 255 bytes, not beginning with `~`.
        key: Option<&'a [u8]>,
        /// Empty for none.
        group: &'a [u8],
    },
}

/// An external request: a call, or a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Whose app.
    pub app: AppId,
    /// Names it in the answers; never 0.
    pub id: RequestId,
    /// Where to.
    pub destination: Destination<'a>,
    /// The body.
    pub body: Ingress,
    /// Headers to keep for the session (`offset_units`, bytes); their extent is released at the
    /// session's end.
    pub headers: Option<(HeadersRef, Extent)>,
    /// Joins this open session instead of opening one (puts); then without a caller of its own.
    pub session: Option<SessionId>,
    /// The caller waits for a response: the session has a caller. False for a put that does not
    /// wait; it is answered by `accepted` alone.
    pub has_caller: bool,
    /// Shortens the app's `session_timeout`.
    pub timeout_ns: Option<u64>,
}

/// What happens to the core.
#[derive(Debug)]
pub enum Event<'a> {
    /// An app is here. Its pool's `min` executors are asked for at once.
    Deploy {
        /// Its id.
        app: AppId,
        /// What it is.
        spec: Box<AppSpec>,
    },
    /// An app goes: its sessions are cancelled, its executors told to leave, its objects dropped.
    Remove {
        /// Which.
        app: AppId,
    },
    /// A call or put from outside.
    Request(Request<'a>),
    /// Cancel a session.
    Cancel {
        /// Which.
        session: SessionId,
    },
    /// The node has read a response's payloads, or its caller is gone: their hold ends. To be said
    /// once for each response; an app is not [removed](Sink::removed) before.
    ResponseTaken {
        /// The request that was answered.
        request: RequestId,
        /// Its session.
        session: SessionId,
    },
    /// A process asked for by [`Sink::spawn`] exists.
    ExecutorStarted {
        /// Which slot.
        executor: ExecutorId,
        /// Counts up with each process of the slot, from 1.
        incarnation: u32,
    },
    /// A process asked for could not be started.
    SpawnFailed {
        /// Which slot.
        executor: ExecutorId,
        /// Why, as a sentence.
        reason: &'a str,
    },
    /// A message from an executor's ring, decoded and in range for its form; its meaning is still
    /// an allegation.
    Message {
        /// Whose ring.
        executor: ExecutorId,
        /// What it says.
        message: FromExecutor<'a>,
    },
    /// An executor's ring held something that is no message. The core says kill.
    Garbled {
        /// Whose ring.
        executor: ExecutorId,
        /// What was wrong, as a sentence.
        reason: &'a str,
    },
    /// A process is known to be dead; what is left in its ring follows as messages, then
    /// [`Event::ExecutorDied`]. From here on nothing is dispatched to it.
    ExecutorDying {
        /// Which slot.
        executor: ExecutorId,
        /// Which process.
        incarnation: u32,
    },
    /// A process is dead and its ring drained to the end.
    ExecutorDied {
        /// Which slot.
        executor: ExecutorId,
        /// Of which process.
        incarnation: u32,
        /// How it ended.
        death: Death,
        /// What the process's crash handler or the node knows beyond that (an address, whose
        /// region it was); empty for nothing.
        detail: &'a str,
    },
    /// The release ring of an executor (or of ingress: `slot` = region of ingress) has room again.
    ReleaseRoom {
        /// Whose.
        executor: ExecutorId,
    },
    /// Time has passed; see [`Core::next_timer_ns`](crate::Core::next_timer_ns).
    Tick,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Death {
    /// By `exit(n)`.
    Exited(i32),
    /// By a signal.
    Signaled(i32),
    /// Its status could not be learned.
    Unknown,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// Quiet, and answered.
    Responded,
    /// Quiet, without a response.
    Completed,
    /// For this reason.
    Failed(&'a Failure),
    /// Its deadline passed.
    TimedOut,
    /// Cancelled from outside, or with its app.
    Cancelled,
}

/// Why a session failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The function at fault, where there is one.
    pub function: Option<FunctionIndex>,
    /// Its invocation, or 0.
    pub invocation: u64,
    /// Which attempt, from 1; 0 where there is none.
    pub attempt: u32,
    /// What happened.
    pub cause: Cause,
    /// The executor it ran on, where there was one: the node adds that process's last output.
    pub executor: Option<ExecutorId>,
}

/// What made a session fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// A function returned this status, with this message (may be empty).
    Returned {
        /// As in `FromExecutor::Complete`.
        status: i32,
        /// What it said by `phr_fail`, or the sentence of the SDK call that failed.
        message: String,
    },
    /// A library, symbol or ABI is wrong.
    NotLoaded(String),
    /// A function's `PHR_INIT` failed.
    InitFailed(String),
    /// Its process died, with what is known beyond that.
    Died(Death, String),
    /// Its process broke the protocol and was killed.
    Fault(String),
    /// It ran past its `timeout` and was killed: a sentence that says so.
    TimedOut(String),
    /// No process could be started for it.
    NoExecutor(String),
    /// A trigger was left waiting: a sentence that names it and what it waited for.
    Waiting(String),
    /// A limit was passed: a sentence that names it.
    Limit(String),
    /// `response = "required"`, and there was none.
    NoResponse,
}

/// Why a request was refused before a session opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// No such app (any more).
    NoApp,
    /// The app has no `entry` and the request named nothing.
    NoEntry,
    /// The named session is not open.
    SessionEnded,
    /// `limits.sessions`.
    Sessions,
    /// `limits.calls_waiting`.
    CallsWaiting,
    /// `limits.objects`, or the quota: less than a tenth is left.
    Memory,
    /// The identity is taken in the named session.
    Exists,
    /// A key, group or index out of range.
    Malformed,
}

/// A part of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Region of the app.
    pub region: u16,
    /// First unit.
    pub offset_units: u32,
    /// Payload bytes.
    pub size_bytes: u64,
}

/// A response to a caller.
#[derive(Debug)]
pub struct Response<'a> {
    /// Whom to answer.
    pub request: RequestId,
    /// The session.
    pub session: SessionId,
    /// Whose app.
    pub app: AppId,
    /// HTTP status.
    pub http_status: u16,
    /// Empty for the default.
    pub content_type: &'a [u8],
    /// The body, in order; held until [`Event::ResponseTaken`].
    pub parts: &'a [Part],
}

/// Where decisions go. Called in the order decided, during `step`.
pub trait Sink {
    /// Put this message into an executor's dispatch ring and wake it if it sleeps. There is room:
    /// the core has at most one open and one queued dispatch and one answer under way each.
    fn send(&mut self, executor: ExecutorId, message: &ToExecutor<'_>);

    /// Put a dispatch into an executor's dispatch ring: as many of `inputs` as fit one message; the
    /// executor fetches the rest.
    fn dispatch<'a>(
        &mut self,
        executor: ExecutorId,
        dispatch: &pheromone_shm::message::Dispatch<'a>,
        inputs: impl Iterator<Item = Input<'a>>,
    );

    /// Answer `FetchInputs`: as many inputs as fit the `args` area, the first being number `first`.
    fn inputs<'a>(
        &mut self,
        executor: ExecutorId,
        first: u32,
        inputs: impl Iterator<Item = Input<'a>>,
    );

    /// Answer `FetchExtents` with all of these, at most [`EXTENTS_PER_MESSAGE_MAX`].
    fn extents(&mut self, executor: ExecutorId, first: u32, extents: impl Iterator<Item = Extent>);

    /// Give memory back to the owner of a region. False: no room now, keep it and try again at
    /// the executor's next message or [`Event::ReleaseRoom`].
    fn release(&mut self, owner: ExecutorId, extent: Extent) -> bool;

    /// Set an executor's credit word to this total of bytes ever granted to the process. It falls
    /// only while nothing is dispatched to it, and never below what the process has published.
    fn credit(&mut self, executor: ExecutorId, total_bytes: u64);

    /// Permit an idle executor to spin (at most one per core), or not.
    fn permit_spin(&mut self, executor: ExecutorId, permitted: bool);

    /// Tell a running executor that this invocation is cancelled (0: none).
    fn cancel(&mut self, executor: ExecutorId, invocation: u64);

    /// Start a process in this slot, on this core (index into the executor cores).
    fn spawn(&mut self, executor: ExecutorId, core: u16);

    /// Kill a process: it broke the protocol (why), or is hung, or its app goes.
    fn kill(&mut self, executor: ExecutorId, why: &str);

    /// A request was taken: its session is this one (for a put: its triggers are evaluated).
    fn accepted(&mut self, request: RequestId, session: SessionId);

    /// A request was refused; its extents are the node's again.
    fn refused(&mut self, request: RequestId, refusal: Refusal);

    /// A session answers its caller.
    fn respond(&mut self, response: &Response<'_>);

    /// A session has ended. Told once per session, after its response if there was one. `request`
    /// is the one that opened it.
    fn ended(
        &mut self,
        app: AppId,
        request: RequestId,
        session: SessionId,
        outcome: &Outcome<'_>,
        answered: bool,
    );

    /// Something went wrong in a session that goes on (section 1: a refused duplicate, say).
    fn error_event(&mut self, app: AppId, session: SessionId, text: &str);

    /// An app asked to be removed has nothing left; its regions may go.
    fn removed(&mut self, app: AppId);
}
