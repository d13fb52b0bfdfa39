//! What happens to the core and what it does about it, as values that can be kept: the two sides of
//! a step, the messages of executors, and a sink that writes down.

use std::collections::BTreeMap;

use pheromone_core::PeerMessage;
use pheromone_core::event::{
    AppId, Cause, Death, Destination, DurableObject, Event, ExecutorId, Failure, HandedLetter,
    Ingress, Outcome, Part, Refusal, Request, RequestId, Response, Retry, SessionId, Sink, Ticket,
};
use pheromone_core::spec::AppSpec;
use pheromone_shm::claim::Claim;
use pheromone_shm::events::TriggerEvent;
use pheromone_shm::message::{
    Dispatch, Ending, Extent, FromExecutor, Input, InputKey, Key, Target, ToExecutor,
};

/// A key as its sender gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GivenKey {
    Auto(u32),
    Named(String),
}

impl GivenKey {
    fn key(&self) -> Key<'_> {
        match self {
            Self::Auto(ordinal) => Key::Auto(*ordinal),
            Self::Named(name) => Key::Named(name.as_bytes()),
        }
    }
}

/// What goes with a payload.
#[derive(Clone, Debug)]
pub struct Label {
    pub target: Target,
    pub key: GivenKey,
    pub ordinal: u32,
    pub group: String,
    pub delay_ns: u64,
}

/// A message of an executor.
#[derive(Clone, Debug)]
pub enum Said {
    Ready,
    Loaded,
    Publish {
        label: Label,
        extent: Extent,
        size_bytes: u64,
    },
    Forward {
        label: Label,
        object: u32,
    },
    Respond {
        to: SessionId,
        extent: Extent,
        size_bytes: u64,
    },
    RespondParts {
        more: bool,
        objects: Vec<u32>,
    },
    FailSession(SessionId),
    Complete {
        status: i32,
        ending: Ending,
    },
    Get {
        bucket: u16,
        key: String,
    },
    ReleaseHold {
        bucket: u16,
        key: String,
    },
    Join {
        trigger: u16,
        more: bool,
        keys: Vec<String>,
    },
    Redundant {
        trigger: u16,
        k: u32,
        n: u32,
    },
    ExpectSources {
        trigger: u16,
        sources: u32,
    },
    CloseSource {
        trigger: u16,
    },
    FetchInputs {
        first: u32,
    },
    FetchExtents {
        first: u32,
    },
    NeedCredit {
        bytes: u64,
    },
    /// A new object, and its sender goes on with the invocation that it fires.
    Offer {
        target: Target,
        ordinal: u32,
        extent: Extent,
        size_bytes: u64,
        invocation: u64,
    },
    /// It has returned, and goes on.
    Continue,
}

impl Said {
    /// Gives the message as the core takes it. `room`: for what the message borrows.
    fn message<'a>(&'a self, room: &'a mut Vec<u8>) -> FromExecutor<'a> {
        match *self {
            Self::Ready => FromExecutor::Ready,
            Self::Loaded => FromExecutor::Loaded,
            Self::Publish {
                ref label,
                extent,
                size_bytes,
            } => FromExecutor::Publish {
                target: label.target,
                extent,
                size_bytes,
                key: label.key.key(),
                ordinal: label.ordinal,
                group: label.group.as_bytes(),
                delay_ns: label.delay_ns,
            },
            Self::Forward { ref label, object } => FromExecutor::Forward {
                target: label.target,
                object,
                key: label.key.key(),
                ordinal: label.ordinal,
                group: label.group.as_bytes(),
                delay_ns: label.delay_ns,
            },
            Self::Respond {
                to,
                extent,
                size_bytes,
            } => FromExecutor::Respond {
                session: to.0,
                extent,
                size_bytes,
                http_status: 200,
                content_type: b"",
            },
            Self::RespondParts { more, ref objects } => {
                room.extend(objects.iter().flat_map(|object| object.to_le_bytes()));
                FromExecutor::RespondParts {
                    more,
                    http_status: 200,
                    content_type: b"",
                    objects: room,
                }
            }
            Self::FailSession(failed) => FromExecutor::FailSession {
                session: failed.0,
                status: 7,
                message: b"",
            },
            Self::Complete { status, ending } => FromExecutor::Complete {
                status,
                ending,
                discarded: 0,
                message: b"",
            },
            Self::Get { bucket, ref key } => FromExecutor::Get {
                bucket,
                timeout_ns: 0,
                key: key.as_bytes(),
            },
            Self::ReleaseHold { bucket, ref key } => FromExecutor::ReleaseHold {
                bucket,
                key: key.as_bytes(),
            },
            Self::Join {
                trigger,
                more,
                ref keys,
            } => {
                for key in keys {
                    pheromone_shm::wire::put_join_key(room, key.as_bytes());
                }
                FromExecutor::Join {
                    trigger,
                    more,
                    keys: room,
                }
            }
            Self::Redundant { trigger, k, n } => FromExecutor::Redundant { trigger, k, n },
            Self::ExpectSources { trigger, sources } => {
                FromExecutor::ExpectSources { trigger, sources }
            }
            Self::CloseSource { trigger } => FromExecutor::CloseSource { trigger },
            Self::FetchInputs { first } => FromExecutor::FetchInputs { first },
            Self::FetchExtents { first } => FromExecutor::FetchExtents { first },
            Self::NeedCredit { bytes } => FromExecutor::NeedCredit { bytes },
            Self::Offer {
                target,
                ordinal,
                extent,
                size_bytes,
                invocation,
            } => FromExecutor::Offer {
                target,
                extent,
                size_bytes,
                ordinal,
                invocation,
            },
            Self::Continue => FromExecutor::Continue { discarded: 0 },
        }
    }
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub enum Door {
    Entry,
    Function(u16),
    Bucket {
        bucket: u16,
        key: Option<String>,
        group: String,
    },
}

/// A call or put.
#[derive(Clone, Debug)]
pub struct Asked {
    pub app: AppId,
    pub id: RequestId,
    pub door: Door,
    pub body: Ingress,
    pub session: Option<SessionId>,
    pub has_caller: bool,
    pub timeout_ns: Option<u64>,
}

/// What happens to the core.
#[derive(Clone, Debug)]
pub enum Happening {
    Deploy(AppId, Box<AppSpec>),
    Remove(AppId),
    Request(Asked),
    Retry(Retry),
    DropLetters(AppId, Option<u64>),
    Cancel(SessionId),
    ResponseTaken(RequestId, SessionId),
    Started(ExecutorId, u32),
    SpawnFailed(ExecutorId),
    Said(ExecutorId, Said),
    Dying(ExecutorId, u32),
    Died(ExecutorId, u32, Death),
    ReleaseRoom(ExecutorId),
    Flush(AppId),
    Tick,
}

impl Happening {
    pub fn event<'a>(&'a self, room: &'a mut Vec<u8>) -> Event<'a> {
        match *self {
            Self::Deploy(app, ref spec) => Event::Deploy {
                app,
                spec: spec.clone(),
            },
            Self::Remove(app) => Event::Remove { app },
            Self::Request(ref asked) => Event::Request(Request {
                app: asked.app,
                id: asked.id,
                destination: match asked.door {
                    Door::Entry => Destination::Entry,
                    Door::Function(function) => Destination::Function(function),
                    Door::Bucket {
                        bucket,
                        ref key,
                        ref group,
                    } => Destination::Bucket {
                        bucket,
                        key: key.as_ref().map(String::as_bytes),
                        group: group.as_bytes(),
                    },
                },
                body: asked.body,
                headers: None,
                session: asked.session,
                has_caller: asked.has_caller,
                timeout_ns: asked.timeout_ns,
                durable: None,
            }),
            Self::Retry(retry) => Event::Retry(retry),
            Self::DropLetters(app, letter) => Event::DropLetters { app, letter },
            Self::Cancel(session) => Event::Cancel { session },
            Self::ResponseTaken(request, session) => Event::ResponseTaken { request, session },
            Self::Started(executor, incarnation) => Event::ExecutorStarted {
                executor,
                incarnation,
            },
            Self::SpawnFailed(executor) => Event::SpawnFailed {
                executor,
                reason: "the machine is out of processes",
            },
            Self::Said(executor, ref said) => Event::Message {
                executor,
                message: said.message(room),
            },
            Self::Dying(executor, incarnation) => Event::ExecutorDying {
                executor,
                incarnation,
            },
            Self::Died(executor, incarnation, death) => Event::ExecutorDied {
                executor,
                incarnation,
                death,
                detail: "",
            },
            Self::ReleaseRoom(executor) => Event::ReleaseRoom { executor },
            Self::Flush(app) => Event::Flush { app },
            Self::Tick => Event::Tick,
        }
    }
}

/// An object as an executor is shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub region: u16,
    pub bucket: u16,
    pub offset_units: u32,
    pub size_bytes: u64,
    pub session: SessionId,
    pub arrival_ns: u64,
    pub key: SeenKey,
    pub group: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeenKey {
    Auto(u64, u32),
    Named(String),
}

impl Seen {
    fn new(input: &Input<'_>) -> Self {
        Self {
            region: input.region,
            bucket: input.bucket,
            offset_units: input.offset_units,
            size_bytes: input.size_bytes,
            session: SessionId(input.session),
            arrival_ns: input.arrival_ns,
            key: match input.key {
                InputKey::Auto {
                    invocation,
                    ordinal,
                } => SeenKey::Auto(invocation, ordinal),
                InputKey::Named(name) => SeenKey::Named(text(name)),
            },
            group: text(input.group),
        }
    }

    pub fn key_text(&self) -> String {
        match &self.key {
            SeenKey::Auto(invocation, ordinal) => format!("~{invocation}.{ordinal}"),
            SeenKey::Named(name) => name.clone(),
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("keys and groups here are text")
}

/// An attempt that starts.
#[derive(Clone, Debug)]
pub struct Start {
    pub function: u16,
    pub trigger: u16,
    pub attempt: u32,
    pub invocation: u64,
    pub session: SessionId,
    pub deadline_ns: u64,
    pub timeout_ns: u64,
    pub has_caller: bool,
    pub window: Option<(u64, u64)>,
    pub inputs: Vec<Seen>,
    pub request: Option<Seen>,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Responded,
    Completed,
    Failed(Why),
    TimedOut,
    Cancelled,
}

/// Why one failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Returned,
    NotLoaded,
    InitFailed,
    Died,
    Fault,
    TimedOut,
    NoExecutor,
    Waiting,
    /// `limits.objects`.
    Objects,
    /// `limits.inputs`.
    Inputs,
    NoResponse,
    /// Rerun rules.
    NothingSent,
}

impl End {
    fn new(outcome: &Outcome<'_>) -> Self {
        match outcome {
            Outcome::Responded => Self::Responded,
            Outcome::Completed => Self::Completed,
            Outcome::TimedOut => Self::TimedOut,
            Outcome::Cancelled => Self::Cancelled,
            Outcome::Failed(failure) => Self::Failed(match failure.cause {
                Cause::Returned { .. } => Why::Returned,
                Cause::NotLoaded(_) => Why::NotLoaded,
                Cause::InitFailed(_) => Why::InitFailed,
                Cause::Died(..) => Why::Died,
                Cause::Fault(_) => Why::Fault,
                Cause::TimedOut(_) => Why::TimedOut,
                Cause::NoExecutor(_) => Why::NoExecutor,
                Cause::Waiting(_) => Why::Waiting,
                Cause::NothingSent(_) => Why::NothingSent,
                Cause::Trigger(_) => panic!("no trigger here is the user's own"),
                Cause::Limit(ref text) if text.contains("limits.objects") => Why::Objects,
                Cause::Limit(_) => Why::Inputs,
                Cause::NoResponse => Why::NoResponse,
                Cause::NotWritten(ref why) => panic!("nothing here is durable: {why}"),
            }),
        }
    }
}

/// What the core does.
#[derive(Clone, Debug)]
pub enum Did {
    Dispatch(ExecutorId, Start),
    Inputs(ExecutorId, u32, Vec<Seen>),
    Object(ExecutorId, Result<Seen, i32>),
    CreditAnswer(ExecutorId, bool),
    Adopt(ExecutorId, u32),
    Extents(ExecutorId, u32, Vec<Extent>),
    Exit(ExecutorId),
    Release(ExecutorId, Extent, bool),
    Credit(ExecutorId, u64),
    Spin(ExecutorId, bool),
    Cancel(ExecutorId, u64),
    /// A block of invocations from this one on; 0: none.
    Grant(ExecutorId, u64),
    /// Whether an offer of this invocation could be taken back.
    Withdraw(ExecutorId, u64, bool),
    Spawn(ExecutorId),
    Kill(ExecutorId, String),
    Accepted(RequestId, SessionId),
    Refused(RequestId, Refusal),
    Respond(RequestId, SessionId, Vec<Part>),
    Ended(SessionId, End, bool),
    ErrorEvent(SessionId, String),
    WriteFailure,
    Removed(AppId),
}

/// What an executor and the scheduler share beside rings.
#[derive(Default)]
pub struct Words {
    /// The first of the invocations that the executor may start by itself now; 0: none.
    pub grant: u64,
    pub claim: Claim,
}

/// The sink: it writes down, and says no where a release ring is full or an offer has been taken.
#[derive(Default)]
pub struct Notes {
    pub dids: Vec<Did>,
    pub words: BTreeMap<ExecutorId, Words>,
    /// Entries of each release ring that its owner has not taken.
    pub rings: BTreeMap<ExecutorId, usize>,
    pub ring_slots: usize,
}

impl Sink for Notes {
    fn send(&mut self, id: ExecutorId, message: &ToExecutor<'_>) {
        self.dids.push(match message {
            ToExecutor::Object { status, input } => {
                let object = input.as_ref().map(Seen::new);
                Did::Object(id, object.ok_or(*status))
            }
            ToExecutor::Credit { granted } => Did::CreditAnswer(id, *granted),
            ToExecutor::Adopt { extent_count } => Did::Adopt(id, *extent_count),
            ToExecutor::Exit => Did::Exit(id),
            other => panic!("{other:?} has an action of its own"),
        });
    }

    fn dispatch<'a>(
        &mut self,
        id: ExecutorId,
        dispatch: &Dispatch<'a>,
        inputs: impl Iterator<Item = Input<'a>>,
    ) {
        let start = Start {
            function: dispatch.function,
            trigger: dispatch.trigger,
            attempt: dispatch.attempt,
            invocation: dispatch.invocation,
            session: SessionId(dispatch.session),
            deadline_ns: dispatch.deadline_ns,
            timeout_ns: dispatch.timeout_ns,
            has_caller: dispatch.has_caller,
            window: dispatch.window,
            inputs: inputs.map(|input| Seen::new(&input)).collect(),
            request: dispatch.request.as_ref().map(Seen::new),
        };
        assert_eq!(start.inputs.len(), dispatch.input_count as usize);
        self.dids.push(Did::Dispatch(id, start));
    }

    fn inputs<'a>(&mut self, id: ExecutorId, first: u32, inputs: impl Iterator<Item = Input<'a>>) {
        let inputs = inputs.map(|input| Seen::new(&input)).collect();
        self.dids.push(Did::Inputs(id, first, inputs));
    }

    fn extents(&mut self, id: ExecutorId, first: u32, extents: impl Iterator<Item = Extent>) {
        self.dids.push(Did::Extents(id, first, extents.collect()));
    }

    fn release(&mut self, owner: ExecutorId, extent: Extent) -> bool {
        let taken = self.rings.entry(owner).or_default();
        let has_room = *taken < self.ring_slots;
        *taken += usize::from(has_room);
        self.dids.push(Did::Release(owner, extent, has_room));
        has_room
    }

    fn credit(&mut self, id: ExecutorId, total_bytes: u64) {
        self.dids.push(Did::Credit(id, total_bytes));
    }

    fn permit_spin(&mut self, id: ExecutorId, permitted: bool) {
        self.dids.push(Did::Spin(id, permitted));
    }

    fn cancel(&mut self, id: ExecutorId, invocation: u64) {
        self.dids.push(Did::Cancel(id, invocation));
    }

    fn grant(&mut self, id: ExecutorId, first: u64) {
        self.words.entry(id).or_default().grant = first;
        self.dids.push(Did::Grant(id, first));
    }

    fn withdraw(&mut self, id: ExecutorId, invocation: u64) -> bool {
        let words = self.words.get(&id).expect("who has offered is there");
        let is_withdrawn = words.claim.withdraw(invocation);
        self.dids.push(Did::Withdraw(id, invocation, is_withdrawn));
        is_withdrawn
    }

    fn spawn(&mut self, id: ExecutorId, _core: u16) {
        self.dids.push(Did::Spawn(id));
    }

    fn kill(&mut self, id: ExecutorId, why: &str) {
        self.dids.push(Did::Kill(id, why.to_owned()));
    }

    fn accepted(&mut self, request: RequestId, session: SessionId) {
        self.dids.push(Did::Accepted(request, session));
    }

    fn refused(&mut self, request: RequestId, refusal: Refusal) {
        self.dids.push(Did::Refused(request, refusal));
    }

    fn respond(&mut self, response: &Response<'_>) {
        let parts = response.parts.to_vec();
        self.dids
            .push(Did::Respond(response.request, response.session, parts));
    }

    fn ended(
        &mut self,
        _app: AppId,
        _request: RequestId,
        session: SessionId,
        outcome: &Outcome<'_>,
        answered: bool,
    ) {
        let end = End::new(outcome);
        self.dids.push(Did::Ended(session, end, answered));
    }

    fn error_event(&mut self, _app: AppId, session: SessionId, text: &str) {
        self.dids.push(Did::ErrorEvent(session, text.to_owned()));
    }

    fn write_failure(&mut self, _app: AppId, _ticket: Ticket, _failure: &Failure) {
        self.dids.push(Did::WriteFailure);
    }

    fn events<'a>(
        &mut self,
        id: ExecutorId,
        _trigger: u16,
        _events: impl ExactSizeIterator<Item = TriggerEvent<'a>>,
    ) {
        panic!("{id:?} is told of events, and no trigger here is the user's own");
    }

    fn letter(&mut self, _: AppId, _: &HandedLetter) {
        panic!("no version takes this one's place");
    }

    fn write(&mut self, _: AppId, _: Ticket, _: &DurableObject<'_>) {
        unreachable!("nothing here is durable");
    }

    fn load(&mut self, _: AppId, _: Ticket, _: u16, _: &[u8]) {
        unreachable!("nothing here is on disk");
    }

    fn delete(&mut self, _: AppId, _: u16, _: &[u8]) {
        unreachable!("nothing here is on disk");
    }

    fn peer(&mut self, to: u8, _message: &PeerMessage) {
        panic!("there is one scheduler, and scheduler {to} is told something");
    }

    fn removed(&mut self, app: AppId) {
        self.dids.push(Did::Removed(app));
    }
}
