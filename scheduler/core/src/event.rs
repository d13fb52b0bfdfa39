//! What the core is told, and what it decides: the two sides of `step(event, now) -> actions`.
//!
//! Actions go into a [`Sink`] as calls instead of a list, so that a dispatch borrows what the core
//! holds and the steady state allocates nothing. A sink acts or records; it never decides, and
//! answers nothing but whether a release ring had room.

use pheromone_shm::events::TriggerEvent;
use pheromone_shm::message::{Extent, FromExecutor, HeadersRef, Input, ToExecutor};
use pheromone_shm::wire::{ARGS_BYTES, INPUT_BYTES_MAX};
use serde::{Deserialize, Serialize};

use crate::PeerMessage;
use crate::history::FutureFiring;
use crate::limits::{OBJECT_CHARGE_BYTES, SESSION_CHARGE_BYTES};
use crate::spec::{AppSpec, BucketIndex, FunctionIndex, Retain};

/// Most extents that one [`Sink::extents`] is given: 32 KiB, half of an `args` area.
pub const EXTENTS_PER_MESSAGE_MAX: usize = 4096;

/// Most attached objects that one answer to `FetchAttached` gives: as many of the longest as an
/// `args` area has room for, rounded down.
pub const ATTACHED_PER_MESSAGE_MAX: usize = 100;
const _: () = assert!(16 + ATTACHED_PER_MESSAGE_MAX * INPUT_BYTES_MAX <= ARGS_BYTES);

/// One deployed version of an app. Chosen by whoever deploys; never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AppId(pub u16);

/// One slot for an executor process of one app. The slot has a region of the same index, which
/// outlives the process; successive processes are told apart by `incarnation` in events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExecutorId {
    /// Whose.
    pub app: AppId,
    /// 0..[`executor_slots`](AppSpec::executor_slots).
    pub slot: u16,
}

/// A session: its scheduler, and index and generation or, where something outlives the core, a
/// number that no other core gives. Never 0, never used twice.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct SessionId(pub u64);

/// Names an outside party's request, chosen by the node; 0 where nobody waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// Names something that the core has asked the node to write, in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ticket(pub u64);

impl Ticket {
    /// Of a table's slot and its generation.
    pub(crate) fn new(slot: u32, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(slot))
    }

    pub(crate) fn slot(self) -> u32 {
        self.0 as u32
    }

    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

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
    /// A retained object, which is the response; the body is not looked at.
    Retained {
        /// Its bucket.
        bucket: BucketIndex,
        /// Its key, or the text of an automatic one.
        key: &'a [u8],
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
    /// The call is on disk, and the session that it opens is durable, under this id: an odd one,
    /// which no session has ever had.
    pub durable: Option<SessionId>,
}

/// A durable session that goes on after a restart, in a core that makes other ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredSession {
    /// Whose.
    pub app: AppId,
    /// Names it in the answers; never 0. It is accepted or refused as a request is.
    pub request: RequestId,
    /// Its id.
    pub session: SessionId,
    /// Its caller waits, or would be answered.
    pub has_caller: bool,
    /// The invocation that has answered; 0: none.
    pub answered_by: u64,
    /// What is left until its deadline, at least 1.
    pub timeout_ns: Option<u64>,
    /// Headers of the call.
    pub headers: Option<Placed>,
    /// The call, where it is still needed.
    pub call: Option<RestoredCall>,
    /// Its durable objects that are still needed, in the order in which they came to disk.
    pub objects: Vec<RestoredObject>,
    /// What runs, or runs again, by [`Future::firings`](crate::history::Future::firings).
    pub firings: Vec<FutureFiring>,
    /// Sets that have fired.
    pub over: Vec<u16>,
}

/// The call that has opened a restored session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredCall {
    /// Of this function.
    pub function: FunctionIndex,
    /// Its body.
    pub body: Placed,
    /// Its function runs again.
    pub runs_again: bool,
}

/// Where a payload of a restored session is in the app's ingress region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// First unit.
    pub offset_units: u32,
    /// Units.
    pub len_units: u32,
    /// Payload bytes.
    pub size_bytes: u64,
}

impl Placed {
    /// Its memory.
    pub fn extent(self) -> Extent {
        Extent {
            offset_units: self.offset_units,
            len_units: self.len_units,
        }
    }
}

/// A durable object of a restored session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredObject {
    /// Its number in the journal.
    pub sequence: u64,
    /// Its bucket.
    pub bucket: BucketIndex,
    /// Its key, or the text of an automatic one.
    pub key: Vec<u8>,
    /// Empty for none.
    pub group: Vec<u8>,
    /// Who sent it: an invocation, or 0.
    pub author: u64,
    /// Where it is now.
    pub body: Placed,
    /// Triggers that it is offered to, counted over the app.
    pub offers: Vec<u16>,
}

impl RestoredSession {
    /// Everything that it has in the ingress region.
    pub fn extents(&self) -> impl Iterator<Item = Extent> {
        let headers = self.headers.map(Placed::extent);
        let call = self.call.map(|call| call.body.extent());
        let objects = self.objects.iter().map(|object| object.body.extent());
        headers.into_iter().chain(call).chain(objects)
    }

    /// What it adds to the ledger.
    pub(crate) fn cost_bytes(&self) -> u64 {
        let of = |extent: Extent| extent.len_bytes() + OBJECT_CHARGE_BYTES;
        SESSION_CHARGE_BYTES + self.extents().map(of).sum::<u64>()
    }
}

/// A firing that is to be on disk before its function is dispatched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FiredInvocation<'a> {
    /// Its session.
    pub session: SessionId,
    /// The invocation.
    pub invocation: u64,
    /// The bucket of the trigger.
    pub bucket: BucketIndex,
    /// The trigger's place in it.
    pub trigger: u16,
    /// The function.
    pub function: FunctionIndex,
    /// Its inputs, by their numbers in the journal.
    pub inputs: &'a [u64],
    /// `phr_window`: start and end, ns.
    pub window: Option<(u64, u64)>,
}

/// Has a dead letter's function run again over its inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Whose app.
    pub app: AppId,
    /// Names it in the answers; never 0.
    pub id: RequestId,
    /// The letter.
    pub letter: u64,
    /// The caller waits for a response.
    pub has_caller: bool,
    /// Shortens the app's `session_timeout`.
    pub timeout_ns: Option<u64>,
}

/// An invocation that is out of attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    /// The invocation's id, never used twice.
    pub id: u64,
    /// Whose.
    pub function: FunctionIndex,
    /// The session in which it has failed.
    pub session: SessionId,
    /// Why, in which attempt: the last one.
    pub failure: &'a Failure,
    /// When, CLOCK_MONOTONIC.
    pub died_ns: u64,
    /// How many inputs it had.
    pub input_count: u32,
    /// Bytes that are held for it, with what each object costs.
    pub held_bytes: u64,
    /// Its inputs are held: it can run again.
    pub has_inputs: bool,
}

/// A dead letter on its way from one version of its app to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedLetter {
    /// As [`DeadLetter::id`], which it keeps.
    pub id: u64,
    /// Its function.
    pub function: FunctionIndex,
    /// The session in which it has failed.
    pub session: SessionId,
    /// Why.
    pub failure: Failure,
    /// When, CLOCK_MONOTONIC.
    pub died_ns: u64,
    /// How many inputs it had.
    pub input_count: u32,
    /// `phr_window`: start and end, ns.
    pub window: Option<(u64, u64)>,
    /// What it holds: inputs in order, then what else there is. `None`: it was too much.
    pub objects: Option<Vec<HandedObject>>,
}

/// What a dead letter on its way holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedObject {
    /// What for.
    pub role: HandedRole,
    /// Where its payload is.
    pub part: Part,
    /// Units of memory that the payload has.
    pub len_units: u32,
    /// Its bucket, or `NO_BUCKET`.
    pub bucket: BucketIndex,
    /// Its key.
    pub key: HandedKey,
    /// Empty for none.
    pub group: Vec<u8>,
    /// Its session.
    pub session: SessionId,
    /// When it had arrived, CLOCK_MONOTONIC.
    pub arrival_ns: u64,
}

/// What a dead letter holds an object for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HandedRole {
    /// The next input.
    Input,
    /// `phr_request`.
    Request,
    /// The request's headers.
    Headers,
    /// It is attached to an object before it in the list.
    Attached {
        /// Which.
        to: u32,
    },
}

/// A key of an object on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HandedKey {
    /// Invocation and ordinal of an automatic key.
    Auto(u64, u32),
    /// Any other.
    Named(Vec<u8>),
}

/// An object to be written to disk, where `(app, bucket, key)` names it over all sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurableObject<'a> {
    /// The object. What is in its place on disk already is replaced, or stands.
    pub object: Input<'a>,
    /// Whose it is: an invocation, the same for all its attempts. What it has written under the
    /// same name in the same session is not written again. 0: somebody outside.
    pub author: u64,
    /// How many objects of this name the attempt has sent before, which attempts that run alike
    /// agree on; `None`: whatever is sent is sent anew.
    pub ordinal: Option<u32>,
    /// How long it stays, from its arrival.
    pub retain: Retain,
    /// Whether it replaces what another has sent.
    pub replace: bool,
}

/// What has become of an object that was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written<'a> {
    /// It is on disk.
    Done {
        /// Under this number, larger than that of anything before it.
        sequence: u64,
        /// Its author has sent it before: that one stands, and this is its number.
        is_repeated: bool,
    },
    /// It is not to replace what is there.
    Exists,
    /// The node keeps nothing on disk.
    NothingKept,
    /// The disk has refused: why, as a sentence.
    Failed(&'a str),
}

/// A durable object that the node has read from disk into the app's ingress region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundObject<'a> {
    /// Where it is.
    pub body: Ingress,
    /// The session that sent it.
    pub session: SessionId,
    /// Its group; empty for none.
    pub group: &'a [u8],
}

/// Why a durable object could not be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotFound {
    /// There is none.
    Missing,
    /// There is no memory for it in the app's ingress region.
    NoMemory,
    /// The disk cannot give it.
    Unreadable,
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
    /// Have a dead letter run again, in a session of its own. The letter is gone with that; a
    /// further failure makes another one.
    Retry(Retry),
    /// Drop dead letters: what they hold is let go of.
    DropLetters {
        /// Whose.
        app: AppId,
        /// Which; `None`: all.
        letter: Option<u64>,
    },
    /// Another version takes an app's place, and its dead letters: those that there are, and those
    /// that come to be from here on, are told by [`Sink::letter`].
    HandOver {
        /// Which.
        app: AppId,
    },
    /// What a letter told by [`Sink::letter`] holds has been copied, or is not wanted.
    LetterTaken {
        /// Whose.
        app: AppId,
        /// Which.
        letter: u64,
    },
    /// A dead letter of the version before: its function and buckets are numbers of this one, and
    /// what it holds has been copied into the ingress region.
    Adopt {
        /// Whose it is now.
        app: AppId,
        /// What it is.
        letter: &'a HandedLetter,
    },
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
    /// What [`Sink::write_failure`] has asked for is written.
    FailureWritten {
        /// Whose app.
        app: AppId,
        /// Which.
        ticket: Ticket,
        /// Where it is.
        body: Ingress,
    },
    /// It could not be written.
    FailureNotWritten {
        /// Whose app.
        app: AppId,
        /// Which.
        ticket: Ticket,
        /// Why, as a sentence.
        reason: &'a str,
    },
    /// What [`Sink::write`] has asked for is done, or cannot be. Said once for each.
    Written {
        /// Whose app.
        app: AppId,
        /// Which.
        ticket: Ticket,
        /// What has become of it.
        outcome: Written<'a>,
    },
    /// What [`Sink::record_firing`] has asked for is done, or cannot be: why, as a sentence. Said
    /// once for each.
    Recorded {
        /// Whose app.
        app: AppId,
        /// Which.
        ticket: Ticket,
        /// What has become of it.
        outcome: Result<(), &'a str>,
    },
    /// A durable session of the time before goes on.
    Restore(&'a RestoredSession),
    /// What [`Sink::load`] has asked for. Said once for each.
    Loaded {
        /// Whose app.
        app: AppId,
        /// Which.
        ticket: Ticket,
        /// The object, or why there is none.
        found: Result<FoundObject<'a>, NotFound>,
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
    /// A slot without a process has memory in its region. Answered by [`Sink::sweep`], unless a
    /// process has the slot, or gets it now.
    Sweep {
        /// Which slot.
        executor: ExecutorId,
    },
    /// A region has been swept, as [`Sink::sweep`] has asked.
    Swept {
        /// Of which slot.
        executor: ExecutorId,
    },
    /// The release ring of an executor (or of ingress: `slot` = region of ingress) has room again.
    ReleaseRoom {
        /// Whose.
        executor: ExecutorId,
    },
    /// An app takes no more sessions: if nothing but objects pending in triggers that gather across
    /// sessions keeps those open that it has, batches and windows fire with what they have, and
    /// rounds are dropped and counted. To be said again until nothing is gathered.
    Flush {
        /// Which.
        app: AppId,
    },
    /// What another scheduler's core has told its sink for this one.
    Peer {
        /// What it said.
        message: &'a PeerMessage,
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
    /// It ran past its `timeout`, or past the time of a rerun rule as often as it may run, and was
    /// killed: a sentence that says so.
    TimedOut(String),
    /// It sent nothing in the time that a rerun rule gives, as often as it may run: a sentence that
    /// says so.
    NothingSent(String),
    /// No process could be started for it.
    NoExecutor(String),
    /// A custom trigger failed again and again: a sentence that names it and the reason.
    Trigger(String),
    /// A trigger was left waiting: a sentence that names it and what it waited for.
    Waiting(String),
    /// A limit was passed: a sentence that names it.
    Limit(String),
    /// An object could not be written to disk: a sentence that names it and the reason.
    NotWritten(String),
    /// `response = "required"`, and there was none.
    NoResponse,
}

/// What is wrong with an app whose processes fail again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// How many have failed in a row.
    pub failures: u32,
    /// How long the next start is put off.
    pub pause_ns: u64,
    /// What happens to them, and why the last has failed: a sentence.
    pub why: String,
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
    /// There is no such dead letter (any more).
    NoLetter,
    /// The dead letter's inputs were too much to be kept.
    NoInputs,
    /// A key, group or index out of range.
    Malformed,
    /// There is no retained object of that name.
    NoObject,
    /// It was to be on disk before it was accepted, and the disk has refused. Its extents are the
    /// core's, which gives them back.
    NotWritten,
    /// Its session has ended while it was written: it is on disk, and no trigger has seen it. Its
    /// extents are the core's, which gives them back.
    EndedMeanwhile,
    /// Its name is taken in the durable namespace, and its bucket does not replace. Its extents are
    /// the core's, which gives them back.
    Kept,
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
    /// The body, in order; held until [`Event::ResponseTaken`], which is said of a durable
    /// session's once the response is on disk.
    pub parts: &'a [Part],
    /// The invocation that answers; `u64::MAX`: none does.
    pub by: u64,
}

/// Where decisions go. Called in the order decided, during `step`.
pub trait Sink {
    /// Punch all of a region's memory but these extents, in order and disjoint, and say
    /// [`Event::Swept`]. Until then no process is started in the slot.
    fn sweep(&mut self, _executor: ExecutorId, _live: &[Extent]) {}

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

    /// Tell a custom trigger's process of these events, all of which fit one message
    /// ([`EVENTS_ALWAYS_FIT`](pheromone_shm::events::EVENTS_ALWAYS_FIT)). It has nothing open; its
    /// answers end with a `Complete`.
    fn events<'a>(
        &mut self,
        executor: ExecutorId,
        trigger: u16,
        events: impl ExactSizeIterator<Item = TriggerEvent<'a>>,
    );

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

    /// Let an executor start this invocation and those numbered after it, a block of
    /// [`GRANT_HOPS`](pheromone_shm::claim::GRANT_HOPS), by itself where an object of its fires
    /// them; 0: no further one.
    fn grant(&mut self, _executor: ExecutorId, _first: u64) {}

    /// Take back an invocation that an executor has offered to start. False: it is too late, and
    /// what the executor says next tells what has become of it.
    fn withdraw(&mut self, _executor: ExecutorId, _invocation: u64) -> bool {
        true
    }

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
    /// is the one that opened it; 0 for a gathering session, which a trigger has opened.
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

    /// Write what a `phr_failure` tells of this failure into the app's ingress region, and say
    /// [`Event::FailureWritten`] or [`Event::FailureNotWritten`].
    fn write_failure(&mut self, app: AppId, ticket: Ticket, failure: &Failure);

    /// A dead letter is another version's now: copy what it holds, give it to that version by
    /// [`Event::Adopt`], and say [`Event::LetterTaken`] in any case.
    fn letter(&mut self, app: AppId, letter: &HandedLetter);
    /// Write this object to disk and say [`Event::Written`]. Its payload stays where it is until
    /// then.
    fn write(&mut self, app: AppId, ticket: Ticket, object: &DurableObject<'_>);

    /// Write this firing to disk and say [`Event::Recorded`].
    fn record_firing(&mut self, _app: AppId, _ticket: Ticket, _firing: &FiredInvocation<'_>) {}

    /// Write to disk that an invocation whose firing is there, or whose session's request is, need
    /// not run again. Nothing waits for it: if it is lost the invocation runs again.
    fn record_success(&mut self, _app: AppId, _session: SessionId, _invocation: u64) {}

    /// Look for a durable object, read it into the app's ingress region, and say
    /// [`Event::Loaded`]. What was asked of this sink before counts.
    fn load(&mut self, app: AppId, ticket: Ticket, bucket: BucketIndex, key: &[u8]);

    /// Delete a durable object, if there is one.
    fn delete(&mut self, app: AppId, bucket: BucketIndex, key: &[u8]);

    /// Carry a message to another scheduler's core, as [`Event::Peer`]: those to one core arrive in
    /// the order given here. An app has been deployed at every core before one of them is given
    /// its first request.
    fn peer(&mut self, to: u8, message: &PeerMessage);

    /// An app asked to be removed has nothing left; its regions may go.
    fn removed(&mut self, app: AppId);

    /// An app's processes fail again and again, so that others are started ever more slowly; or
    /// (`None`) they do no longer. For people to know: nothing depends on it.
    fn trouble(&mut self, _app: AppId, _trouble: Option<&Trouble>) {}
}
