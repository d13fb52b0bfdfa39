//! The thread between the outside and the schedulers: requests in, answers out.
//!
//! It alone touches the node's ends of the links, the control sockets and the ingress allocators,
//! so nothing here is locked. It writes bodies and reads responses through descriptors and maps no
//! payload. It never waits except asleep on its rope, by which a message of a scheduler or a
//! command of another thread wakes it; an idle node's gateway sleeps. Nor does it read a long
//! response at one go: a piece each turn, between which it hears everybody else.

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{io, mem};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use pheromone_core::event::{Failure, NotFound, Part, Refusal, Trouble};
use pheromone_core::limits::FAILURES_TOLD;
use pheromone_core::share::Division;
use pheromone_core::spec::{BucketSpec, Entry, Scope};
use pheromone_journal::{Receipt, Unfinished, WriteError};
use pheromone_scheduler::protocol::{
    AppStatsMessage, Control, DestinationMessage, FoundMessage, OutcomeMessage, RequestMessage,
    ToNode, ToScheduler, WriteMessage, WrittenMessage,
};
use pheromone_shm::allocator::Allocator;
use pheromone_shm::link::NodeRope;
use pheromone_shm::message::{Extent, GROUP_BYTES_MAX, KEY_BYTES_MAX, UNIT_BYTES};

use crate::app::Version;
use crate::child::Exit;
use crate::failure;
use crate::headers;
use crate::memory::{MemoryHandle, Task};
use crate::outgoing;
use crate::output::{Outlet, Output, OutputKind};
use crate::reading::Reading;
use crate::regions::{self, IngressPages};
use crate::request::{
    FailureCause, FailureReport, Outcome, RefusalReason, Reply, Request, RequestId, To,
};
use crate::routing::{Homes, Tried, home_of};
use crate::status::{AppStats, Broken, Health, SessionStatus, Troubles};
use crate::store::{self, Restoring, Store};
use crate::supervisor::{Order, SupervisorHandle};
use crate::way::Way;

/// Requests that wait to be taken; more are refused.
const REQUESTS_WAITING_MAX: usize = 1 << 16;
/// Messages that wait for room in the link before no further requests are taken.
const OUTGOING_MAX: usize = 1024;
/// Commands, requests and messages taken of each per turn, so that none starves the others.
const PER_TURN_MAX: usize = 256;
/// Between two looks at whether only triggers that gather across sessions keep an app open.
const FLUSH_INTERVAL: Duration = Duration::from_millis(10);
/// Sessions in one list.
pub const SESSIONS_LISTED_MAX: usize = 10_000;
/// Of responses, at most so much is read per turn as they come, and as much of those that were too
/// long for that: counted as [`Reading`] counts, some 300 us of reading.
const READ_PER_TURN_BYTES: u64 = 1 << 20;
/// How long a full link or control socket is left alone before it is tried again.
const RETRY: Duration = Duration::from_millis(1);

/// Told what becomes of a request.
pub type ReplyTo = Box<dyn FnMut(Reply) + Send>;

/// What other threads of the node tell the gateway.
pub enum Command {
    /// Cancel a session.
    Cancel {
        /// Which.
        session: u64,
    },
    /// An app has come; it takes no requests yet.
    Deploy {
        /// Which.
        version: Arc<Version>,
        /// Its spec, encoded, in a memfd.
        spec: OwnedFd,
        /// Bytes of it.
        spec_bytes: u64,
        /// Told whether its ingress memory could be set up.
        done: Sender<io::Result<()>>,
    },
    /// From here on an app's requests go to this version; the one before goes when its sessions
    /// have ended.
    Route {
        /// The new version.
        app: u16,
        /// Told when the dead letters of the one before are the new one's.
        done: Sender<()>,
    },
    /// From here on an app's triggers fire with what they have gathered across sessions whenever
    /// nothing else goes on: nobody has more for them.
    Flush {
        /// Which version.
        app: u16,
    },
    /// Let an app go.
    Remove {
        /// Which version.
        app: u16,
        /// How long its sessions may take to end; `None`: as long as they like.
        drain: Option<Duration>,
        /// Told when it is gone.
        done: Option<Sender<()>>,
    },
    /// Ask the scheduler about an app.
    Stats {
        /// Which version.
        app: u16,
        /// Where the answer goes.
        answer: Sender<Option<Condition>>,
    },
    /// List open sessions.
    Sessions {
        /// This one alone, or all.
        session: Option<u64>,
        /// Where the answer goes.
        answer: Sender<Vec<SessionStatus>>,
    },
    /// Ask the schedulers about an app's dead letters.
    Letters {
        /// The app's name.
        app: String,
        /// What.
        about: About,
        /// Where the answer goes; dropped where there is no such app.
        answer: Sender<Letters>,
    },
    /// A process exists.
    Executor {
        /// Whose.
        app: u16,
        /// Slot.
        slot: u16,
        /// Which process of the slot.
        incarnation: u32,
        /// What it writes.
        up: OwnedFd,
        /// What the scheduler writes.
        down: OwnedFd,
    },
    /// A process could not be started.
    SpawnFailed {
        /// Whose.
        app: u16,
        /// Slot.
        slot: u16,
        /// Why.
        reason: String,
    },
    /// A process is dead and its output read.
    Died {
        /// Whose.
        app: u16,
        /// Slot.
        slot: u16,
        /// Which process of the slot.
        incarnation: u32,
        /// How.
        exit: Exit,
        /// What else is known.
        detail: String,
    },
    /// Memory of dead objects has been punched.
    Punched {
        /// Whose.
        app: u16,
        /// Slot.
        slot: u16,
        /// Which process of the slot.
        incarnation: u32,
        /// Pairs (offset, length) in units.
        extents: Vec<(u32, u32)>,
    },
    /// A slot without a process has memory in its region.
    Sweep {
        /// Whose.
        app: u16,
        /// Slot.
        slot: u16,
    },
    /// That region has been swept.
    Swept {
        /// Whose.
        app: u16,
        /// Slot.
        slot: u16,
    },
    /// Give back what lies in free memory of the ingress region.
    TrimIngress {
        /// Whose.
        app: u16,
    },
    /// The journal has taken an object, or has not.
    Written {
        /// Who asked for it.
        question: store::Question,
        /// Under which number, or why not.
        result: Result<Receipt, WriteError>,
    },
    /// The journal has taken a durable call, or has not.
    CallWritten {
        /// Which.
        request: u64,
        /// The session that it opens.
        session: u64,
        /// Why not.
        result: Result<(), WriteError>,
    },
    /// The journal has taken a firing, or has not.
    Recorded {
        /// Who asked for it.
        question: store::Question,
        /// Why not.
        result: Result<(), WriteError>,
    },
    /// The journal has taken the response of a durable session, or has not.
    ResponseWritten {
        /// Whose.
        request: u64,
        /// Why not.
        result: Result<(), WriteError>,
    },
    /// The journal has taken the end of a durable session, or has not.
    EndWritten {
        /// Whose.
        request: u64,
        /// Why not.
        result: Result<(), WriteError>,
    },
    /// A durable session has been read from disk, or cannot be.
    SessionRead {
        /// Which version of its app.
        app: u16,
        /// What is on disk of it.
        unfinished: Arc<Unfinished>,
        /// What it is, in its places.
        restoring: Box<Restoring>,
        /// Why it cannot be read.
        failed: Option<String>,
    },
    /// A durable object has been read from disk, or could not be.
    Loaded {
        /// Who asked for it.
        question: store::Question,
        /// The object.
        found: store::Found,
    },
    /// The last lines of an executor, for a failure report.
    Tail {
        /// The request whose session failed.
        request: u64,
        /// Oldest first.
        lines: Vec<String>,
    },
    /// The node stops: its apps are removed next. Durable sessions that are cancelled by that go on
    /// at its next start.
    Stopping,
    /// Scheduler or zygote is dead.
    Broken,
    /// Tell the scheduler to leave, then leave.
    Shutdown,
}

/// An app's counters, and what went wrong first.
#[derive(Debug)]
pub struct Condition {
    /// The scheduler's and the gateway's counters.
    pub stats: AppStats,
    /// The first executor of the app that could not be started or died.
    pub first_failure: Option<String>,
}

/// A request under way to the gateway.
struct Submission {
    id: u64,
    request: Request,
    reply: ReplyTo,
}

/// How other threads talk to the gateway; cheap to clone.
#[derive(Clone)]
pub struct GatewayHandle {
    commands: Sender<Command>,
    requests: Sender<Submission>,
    rope: NodeRope,
    next_request: Arc<AtomicU64>,
    health: Health,
}

/// Where the gateway hears them.
pub struct Inbox {
    commands: Receiver<Command>,
    requests: Receiver<Submission>,
}

impl GatewayHandle {
    /// A handle, and what the gateway hears through it. `rope` wakes it.
    pub fn new(rope: NodeRope, health: Health) -> (Self, Inbox) {
        let (commands, hears_commands) = crossbeam_channel::unbounded();
        let (requests, hears_requests) = crossbeam_channel::bounded(REQUESTS_WAITING_MAX);
        let handle = Self {
            commands,
            requests,
            rope,
            next_request: Arc::new(AtomicU64::new(1)),
            health,
        };
        let inbox = Inbox {
            commands: hears_commands,
            requests: hears_requests,
        };
        (handle, inbox)
    }

    /// Tells it something. Once it has left, nobody minds.
    pub fn tell(&self, command: Command) {
        self.leave(command);
        self.ring();
    }

    /// Leaves it something, of which it hears when it is awake: see [`ring`](Self::ring).
    pub fn leave(&self, command: Command) {
        // Once it has left, nobody minds.
        let _ = self.commands.send(command);
    }

    /// Wakes it, if it sleeps.
    pub fn ring(&self) {
        self.rope.ring_if_asleep();
    }

    /// Names a request.
    pub fn new_request(&self) -> RequestId {
        RequestId(self.next_request.fetch_add(1, Ordering::Relaxed))
    }

    /// Hands a request over without waiting. Where that is impossible, `reply` hears of it on this
    /// thread.
    pub fn submit(&self, request: Request, reply: ReplyTo) -> RequestId {
        let RequestId(id) = self.new_request();
        match self.requests.try_send(Submission { id, request, reply }) {
            Ok(()) => self.rope.ring_if_asleep(),
            Err(TrySendError::Full(mut back)) => {
                (back.reply)(Reply::Refused(RefusalReason::Overloaded));
            }
            Err(TrySendError::Disconnected(mut back)) => {
                (back.reply)(Reply::Refused(unusable(&self.health)));
            }
        }
        RequestId(id)
    }
}

fn unusable(health: &Health) -> RefusalReason {
    let reason = health.broken().map_or_else(
        || "the node is stopping".to_owned(),
        |broken| broken.error().to_string(),
    );
    RefusalReason::Unusable { reason }
}

/// What the gateway is made of.
pub struct Setup {
    /// To the schedulers, by index.
    pub ways: Vec<Way>,
    /// What the gateway sleeps on.
    pub rope: NodeRope,
    /// Commands and requests.
    pub inbox: Inbox,
    /// Processes.
    pub supervisor: SupervisorHandle,
    /// Error events and notices.
    pub outlet: Outlet,
    /// Why the node is of no further use, once it is.
    pub health: Health,
    /// What is wrong with apps.
    pub troubles: Troubles,
    /// Who punches memory. It ends with this thread.
    pub memory: MemoryHandle,
    /// Where durable objects are, and how it tells of them.
    pub store: Option<Arc<Store>>,
    /// The gateway's own handle, for those who answer it.
    pub handle: GatewayHandle,
    /// Told once that the schedulers are ready.
    pub ready: Sender<()>,
}

/// Runs until told to shut down.
pub fn run(setup: Setup) {
    Gateway {
        ways: setup.ways,
        rope: setup.rope,
        inbox: setup.inbox,
        supervisor: setup.supervisor,
        outlet: setup.outlet,
        health: setup.health,
        troubles: setup.troubles,
        memory: setup.memory,
        store: setup.store,
        handle: setup.handle,
        ready: setup.ready,
        unread: VecDeque::new(),
        read_left_bytes: READ_PER_TURN_BYTES,
        apps: HashMap::new(),
        routes: HashMap::new(),
        pending: HashMap::new(),
        joined: HashMap::new(),
        writers: HashSet::new(),
        firing_bytes: HashMap::new(),
        restores: Restores::default(),
        is_stopping: false,
        asked: HashMap::new(),
        asked_letters: HashMap::new(),
        handed_bytes: HashMap::new(),
        moving: VecDeque::new(),
        next_token: 1,
        leaving: None,
    }
    .run();
}

/// One version of an app.
struct Gate {
    version: Arc<Version>,
    /// Which scheduler has asked for the last process of a slot.
    owners: HashMap<u16, u8>,
    ingress: Allocator<IngressPages>,
    ingress_bytes: u64,
    /// Requests not yet finished, in all and by scheduler.
    requests_open: u64,
    homes: Homes,
    first_failure: Option<String>,
    /// It goes; then when its sessions are cut off.
    retiring: Option<Option<Instant>>,
    /// Another version has taken its place, and takes its dead letters.
    handing: Option<Handing>,
    /// It has triggers that gather across sessions and nobody has more for them: then they are
    /// looked at next.
    flushing: Option<Instant>,
    /// What its schedulers said last, where nothing went on at any of them.
    quiet: Option<AppStatsMessage>,
    /// A question for the sake of retiring is on its way.
    asking: bool,
    /// Its schedulers have been told to remove it.
    removing: bool,
    /// So many of them have done so.
    gone: u8,
    /// Told when it is gone.
    removed: Vec<Sender<()>>,
}

/// A request that a scheduler has been told of. There may be a million that wait, so what most do
/// not have is boxed.
struct Pending {
    app: u16,
    home: u8,
    /// Until it is accepted: how to ask another scheduler, where there is another.
    again: Option<Again>,
    reply: ReplyTo,
    /// Given back where the request is refused.
    extents: Vec<Extent>,
    /// The session it joins, where it joins one.
    joins: Option<u64>,
    /// The dead letter that it retries, where it does.
    retries: Option<u64>,
    wait: bool,
    accepted: Option<u64>,
    answered: bool,
    response: Option<Box<Incoming>>,
    /// Why its response cannot be given.
    spoilt: Option<Box<FailureCause>>,
    /// Its session is durable.
    durable: Option<Box<Durable>>,
    /// How its session ended, while the last lines of the executor at fault are fetched.
    ended: Option<Box<Ended>>,
}

/// What is asked of other schedulers, should one refuse for want of room in its share.
struct Again {
    message: Vec<u8>,
    tried: Tried,
}

/// A response that its scheduler has told of.
#[derive(Default)]
struct Incoming {
    session: u64,
    http_status: u16,
    content_type: String,
    /// The invocation that has given it.
    by: u64,
    reading: Reading,
    /// It stands in the list of those that are read on.
    listed: bool,
    /// It cannot be given, and its session has been cancelled for that.
    cancelled: bool,
    /// The end of its session, which came while it was read and is told after it.
    end: Option<End>,
}

/// The end of a session, as the scheduler tells it.
struct End {
    app: u16,
    session: u64,
    outcome: OutcomeMessage,
    answered: bool,
}

#[derive(Clone)]
struct Ended {
    session: u64,
    outcome: Outcome,
    answered: bool,
}

/// Who wants to know about an app.
enum Asked {
    Somebody(u16, Sender<Option<Condition>>),
    /// Whether a retiring app can go.
    Retiring(u16),
    /// Whether an app's triggers can fire with what they have gathered.
    Flushing(u16),
}

/// A question to all schedulers of an app.
struct Question {
    who: Asked,
    /// So many have not answered.
    unanswered: u8,
    /// The sum of the answers.
    sum: Option<AppStatsMessage>,
}

struct Gateway {
    ways: Vec<Way>,
    rope: NodeRope,
    inbox: Inbox,
    supervisor: SupervisorHandle,
    outlet: Outlet,
    health: Health,
    troubles: Troubles,
    memory: MemoryHandle,
    store: Option<Arc<Store>>,
    handle: GatewayHandle,
    ready: Sender<()>,
    /// Requests whose responses are read on, a piece of the first each turn.
    unread: VecDeque<u64>,
    /// What may still be read of responses that come in this turn.
    read_left_bytes: u64,
    apps: HashMap<u16, Gate>,
    routes: HashMap<String, u16>,
    /// Boxed, since a table that has just grown is half empty.
    pending: HashMap<u64, Box<Pending>>,
    /// Requests that wait for the end of a session which another request opened.
    joined: HashMap<u64, Vec<u64>>,
    /// Open sessions that have written something durable.
    writers: HashSet<u64>,
    /// Pieces of firings that are to be written, by scheduler.
    firing_bytes: HashMap<usize, Vec<u8>>,
    /// Durable sessions of the time before that wait to go on.
    restores: Restores,
    /// The node stops.
    is_stopping: bool,
    asked: HashMap<u64, Question>,
    asked_letters: HashMap<u64, LetterQuestion>,
    /// Pieces of dead letters that other versions take, by scheduler.
    handed_bytes: HashMap<usize, Vec<u8>>,
    /// Dead letters on their way from one version to another.
    moving: VecDeque<Moving>,
    next_token: u64,
    /// Told to shut down, then.
    leaving: Option<Instant>,
}

mod durable;
mod handover;
mod letters;
#[cfg(test)]
mod tests;

use durable::{Durable, Restores};
use handover::{Handing, Moving};
use letters::LetterQuestion;
pub use letters::{About, Letters};

/// How long the schedulers' links are served after they were told to leave.
const LEAVE_WAIT: Duration = Duration::from_secs(1);

impl Gateway {
    fn run(mut self) {
        let mut message = Vec::new();
        loop {
            let mut worked = self.take_commands();
            worked |= self.take_requests();
            self.read_left_bytes = READ_PER_TURN_BYTES;
            worked |= self.take_messages(&mut message);
            worked |= self.read_on();
            worked |= self.move_letters();
            worked |= self.restore_some();
            self.cut_off_retiring();
            self.flush_gathered();
            self.flush();
            if self.may_leave() {
                break;
            }
            if !worked {
                self.sleep();
            }
        }
        self.fail_everything();
        while let Ok(mut submission) = self.inbox.requests.try_recv() {
            (submission.reply)(Reply::Refused(unusable(&self.health)));
        }
    }

    fn may_leave(&self) -> bool {
        self.leaving.is_some_and(|since| {
            self.waiting() == 0 || self.is_broken() || since.elapsed() >= LEAVE_WAIT
        })
    }

    /// Whether nobody is there to be told anything (a node that is merely stopped still has its
    /// scheduler).
    fn is_broken(&self) -> bool {
        let broken = self.health.broken();
        broken.is_some_and(|broken| *broken != Broken::Stopped)
    }

    fn sleep(&mut self) {
        let now = Instant::now();
        let retry = (self.waiting() > 0).then_some(RETRY);
        let cut = self
            .apps
            .values()
            .filter(|gate| !gate.removing)
            .flat_map(|gate| [gate.retiring.flatten(), gate.flushing])
            .flatten()
            .chain(self.restores.again)
            .map(|at| at.saturating_duration_since(now))
            .min();
        let timeout = match (retry, cut) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, other) => one.or(other),
        };
        let (ways, inbox, takes) = (&self.ways, &self.inbox, self.takes_requests());
        self.rope.sleep(
            || {
                ways.iter().any(Way::has_message)
                    || !inbox.commands.is_empty()
                    || (takes && !inbox.requests.is_empty())
            },
            timeout,
        );
    }

    /// How much waits for room in the link that is longest full.
    fn waiting(&self) -> usize {
        self.ways.iter().map(Way::waiting).max().unwrap_or(0)
    }

    fn takes_requests(&self) -> bool {
        self.waiting() < OUTGOING_MAX
    }

    fn take_commands(&mut self) -> bool {
        for taken in 0..PER_TURN_MAX {
            let Ok(command) = self.inbox.commands.try_recv() else {
                return taken > 0;
            };
            self.command(command);
        }
        true
    }

    fn take_requests(&mut self) -> bool {
        for taken in 0..PER_TURN_MAX {
            if !self.takes_requests() {
                return taken > 0;
            }
            let Ok(submission) = self.inbox.requests.try_recv() else {
                return taken > 0;
            };
            self.request(submission);
        }
        true
    }

    fn take_messages(&mut self, bytes: &mut Vec<u8>) -> bool {
        let mut worked = false;
        for from in 0..self.ways.len() {
            worked |= self.take_messages_of(from, bytes);
        }
        worked
    }

    fn take_messages_of(&mut self, from: usize, bytes: &mut Vec<u8>) -> bool {
        for taken in 0..PER_TURN_MAX {
            match self.ways[from].receive(bytes) {
                Ok(true) => match postcard::from_bytes(bytes) {
                    Ok(message) => self.hear_scheduler(from, message),
                    Err(error) => {
                        self.give_up_on_scheduler(format!("it sent what is no message: {error}"));
                        return true;
                    }
                },
                Ok(false) => return taken > 0,
                Err(error) => {
                    self.give_up_on_scheduler(format!("it sent what is no message: {error}"));
                    return false;
                }
            }
        }
        true
    }

    /// The scheduler is ours; where it says what makes no sense, or cannot be spoken to, that is a
    /// bug nobody can go on with.
    fn give_up_on_scheduler(&mut self, how: String) {
        if self.health.broken().is_none() {
            self.health.give_up(Broken::Scheduler(how));
            self.fail_everything();
        }
    }

    /// Says something to a scheduler; to one that does not exist (a session's id may come from
    /// anybody), nothing.
    fn tell(&mut self, scheduler: u8, message: &ToScheduler<'_>) {
        if self.is_broken() {
            return;
        }
        if let Some(way) = self.ways.get_mut(usize::from(scheduler)) {
            way.tell(message);
        }
    }

    /// Says something to the scheduler whose session it concerns.
    fn tell_home(&mut self, session: u64, message: &ToScheduler<'_>) {
        self.tell(home_of(session), message);
    }

    /// Says something to all schedulers of an app.
    fn tell_homes(&mut self, app: u16, message: &ToScheduler<'_>) {
        let division = self.apps.get(&app).map(|gate| gate.version.division);
        for home in division.into_iter().flat_map(Division::homes) {
            self.tell(home, message);
        }
    }

    /// The scheduler that has asked for a slot's process; `None` where the app is gone.
    fn owner_of(&self, app: u16, slot: u16) -> Option<u8> {
        let gate = self.apps.get(&app)?;
        gate.owners.get(&slot).copied()
    }

    /// Says something to the scheduler of an executor slot. With its app everybody forgets it.
    fn tell_owner(&mut self, app: u16, slot: u16, message: &ToScheduler<'_>) {
        if let Some(owner) = self.owner_of(app, slot) {
            self.tell(owner, message);
        }
    }

    fn tell_with(&mut self, scheduler: u8, message: &Control, descriptors: Vec<OwnedFd>) {
        let Some(way) = self.ways.get_mut(usize::from(scheduler)) else {
            return;
        };
        if let Err(error) = way.tell_with(message, descriptors) {
            self.cannot_be_told(&error);
        }
    }

    fn flush(&mut self) {
        if self.is_broken() {
            self.ways.iter_mut().for_each(Way::clear);
            return;
        }
        for at in 0..self.ways.len() {
            if let Err(error) = self.ways[at].flush() {
                self.cannot_be_told(&error);
            }
            self.ways[at].wake();
        }
    }

    fn cannot_be_told(&mut self, error: &io::Error) {
        self.give_up_on_scheduler(format!("it cannot be given descriptors: {error}"));
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Cancel { session } => {
                self.tell_home(session, &ToScheduler::Cancel { session });
            }
            Command::Deploy {
                version,
                spec,
                spec_bytes,
                done,
            } => {
                let deployed = self.deploy(version, spec, spec_bytes);
                // Whoever has stopped waiting will remove it.
                let _ = done.send(deployed);
            }
            Command::Route { app, done } => self.route(app, done),
            Command::Flush { app } => self.start_flushing(app),
            Command::Remove { app, drain, done } => self.remove(app, drain, done),
            Command::Stats { app, answer } => self.ask(Asked::Somebody(app, answer), app),
            Command::Sessions { session, answer } => {
                // Whoever has stopped waiting does not want to know.
                let _ = answer.send(self.sessions(session));
            }
            Command::Letters { app, about, answer } => {
                self.ask_about_letters(&app, about, answer);
            }
            Command::Executor {
                app,
                slot,
                incarnation,
                up,
                down,
            } => {
                let control = Control::Executor {
                    app,
                    slot,
                    incarnation,
                };
                if let Some(owner) = self.owner_of(app, slot) {
                    self.tell_with(owner, &control, vec![up, down]);
                }
            }
            Command::SpawnFailed { app, slot, reason } => {
                self.note_failure(app, || reason.clone());
                let reason = &reason;
                let failed = ToScheduler::SpawnFailed { app, slot, reason };
                self.tell_owner(app, slot, &failed);
            }
            Command::Died {
                app,
                slot,
                incarnation,
                exit,
                detail,
            } => {
                self.note_failure(app, || {
                    let how = exit.describe();
                    if detail.is_empty() {
                        how
                    } else {
                        format!("{how}: {detail}")
                    }
                });
                let died = ToScheduler::Died {
                    app,
                    slot,
                    incarnation,
                    code: exit.code,
                    signal: exit.signal,
                    detail: &detail,
                };
                self.tell_owner(app, slot, &died);
            }
            Command::Punched {
                app,
                slot,
                incarnation,
                extents,
            } => {
                let punched = ToScheduler::Punched {
                    app,
                    slot,
                    incarnation,
                    extents,
                };
                self.tell_owner(app, slot, &punched);
            }
            Command::Sweep { app, slot } => {
                // Whose a slot without a process is, they know.
                self.tell_homes(app, &ToScheduler::Sweep { app, slot });
            }
            Command::Swept { app, slot } => {
                self.tell_homes(app, &ToScheduler::Swept { app, slot });
            }
            Command::TrimIngress { app } => {
                if let Some(gate) = self.apps.get_mut(&app) {
                    gate.ingress.punch_cold();
                }
            }
            Command::Written { question, result } => self.written(question, result),
            Command::Loaded { question, found } => self.loaded(question, &found),
            Command::CallWritten {
                request,
                session,
                result,
            } => self.call_written(request, session, result),
            Command::Recorded { question, result } => self.recorded(question, result),
            Command::ResponseWritten { request, result } => self.response_written(request, result),
            Command::EndWritten { request, result } => self.end_written(request, result),
            Command::SessionRead {
                app,
                unfinished,
                restoring,
                failed,
            } => self.session_read(app, unfinished, restoring, failed),
            Command::Stopping => self.is_stopping = true,
            Command::Tail { request, lines } => self.finish_with(request, lines),
            Command::Broken => self.fail_everything(),
            Command::Shutdown => {
                for scheduler in 0..self.ways.len() {
                    self.tell(scheduler as u8, &ToScheduler::Shutdown);
                }
                self.leaving = Some(Instant::now());
            }
        }
    }

    fn sessions(&self, wanted: Option<u64>) -> Vec<SessionStatus> {
        let mut sessions: Vec<SessionStatus> = self
            .pending
            .values()
            .filter(|pending| pending.joins.is_none())
            .filter_map(|pending| {
                let session = pending
                    .accepted
                    .filter(|id| wanted.is_none_or(|it| it == *id))?;
                let gate = self.apps.get(&pending.app)?;
                Some(SessionStatus {
                    session,
                    app: gate.version.name().to_owned(),
                    open: true,
                    answered: pending.answered,
                })
            })
            .take(SESSIONS_LISTED_MAX)
            .collect();
        sessions.sort_by_key(|status| status.session);
        sessions
    }

    fn note_failure(&mut self, app: u16, what: impl FnOnce() -> String) {
        if let Some(gate) = self.apps.get_mut(&app) {
            gate.first_failure.get_or_insert_with(what);
        }
    }

    fn deploy(&mut self, version: Arc<Version>, spec: OwnedFd, spec_bytes: u64) -> io::Result<()> {
        let app = version.id;
        let span_units = version.regions.span_bytes() / UNIT_BYTES;
        // A span of 2^32 units loses its last one: an extent's length is a `u32`.
        let span_units = u32::try_from(span_units).unwrap_or(u32::MAX);
        let ingress = Allocator::new(span_units, IngressPages::new(&version.regions)?);
        let homes = version.division.homes();
        let specs = homes
            .clone()
            .map(|_| spec.try_clone())
            .collect::<io::Result<Vec<_>>>()?;
        let gate = Gate {
            homes: Homes::new(&version),
            version,
            owners: HashMap::new(),
            ingress,
            ingress_bytes: 0,
            requests_open: 0,
            first_failure: None,
            retiring: None,
            handing: None,
            flushing: None,
            quiet: None,
            asking: false,
            removing: false,
            gone: 0,
            removed: Vec::new(),
        };
        self.apps.insert(app, gate);
        self.tell_memory(app, Task::Watch);
        for (home, spec) in homes.zip(specs) {
            self.tell_with(home, &Control::Deploy { app, spec_bytes }, vec![spec]);
        }
        Ok(())
    }

    fn route(&mut self, app: u16, done: Sender<()>) {
        let Some(gate) = self.apps.get(&app) else {
            return;
        };
        let name = gate.version.name().to_owned();
        if let Some(before) = self
            .routes
            .insert(name, app)
            .filter(|before| *before != app)
        {
            self.start_handing_over(before, done);
            self.remove(before, None, None);
        }
        self.restore_sessions(app);
    }

    fn remove(&mut self, app: u16, drain: Option<Duration>, done: Option<Sender<()>>) {
        self.routes.retain(|_, routed| *routed != app);
        let Some(gate) = self.apps.get_mut(&app) else {
            // Gone already: dropping `done` or telling it comes to the same.
            if let Some(done) = done {
                let _ = done.send(());
            }
            return;
        };
        gate.version.leave();
        gate.removed.extend(done);
        let until = drain.and_then(|drain| Instant::now().checked_add(drain));
        gate.retiring = Some(match gate.retiring {
            // The earlier of both: a removal cuts a retirement short.
            Some(Some(already)) => Some(until.map_or(already, |until| until.min(already))),
            Some(None) | None => until,
        });
        self.start_flushing(app);
        self.look_at_retiring(app);
    }

    fn start_flushing(&mut self, app: u16) {
        let gathers = |bucket: &BucketSpec| {
            let mut triggers = bucket.triggers.iter();
            triggers.any(|trigger| trigger.scope == Scope::Bucket)
        };
        if let Some(gate) = self.apps.get_mut(&app)
            && gate.version.spec.buckets.iter().any(gathers)
        {
            gate.flushing.get_or_insert_with(Instant::now);
        }
    }

    /// Looks at apps that take no more requests whether anything but gathering goes on.
    fn flush_gathered(&mut self) {
        let now = Instant::now();
        let due = |gate: &Gate| !gate.removing && gate.flushing.is_some_and(|at| at <= now);
        let due: Vec<u16> = self
            .apps
            .iter()
            .filter(|(_, gate)| due(gate))
            .map(|(app, _)| *app)
            .collect();
        for app in due {
            if let Some(gate) = self.apps.get_mut(&app) {
                gate.flushing = Some(now + FLUSH_INTERVAL);
            }
            self.ask(Asked::Flushing(app), app);
            self.look_at_retiring(app);
        }
    }

    /// Asks whether a retiring app's sessions have ended, if it looks like that from here.
    fn look_at_retiring(&mut self, app: u16) {
        let Some(gate) = self.apps.get_mut(&app) else {
            return;
        };
        let may_go = gate.retiring.is_some() && !gate.removing && gate.requests_open == 0;
        if may_go && !gate.asking {
            gate.asking = true;
            self.ask(Asked::Retiring(app), app);
        }
    }

    fn cut_off_retiring(&mut self) {
        let now = Instant::now();
        let due: Vec<u16> = self
            .apps
            .iter()
            .filter(|(_, gate)| !gate.removing)
            .filter(|(_, gate)| gate.retiring.flatten().is_some_and(|until| until <= now))
            .map(|(app, _)| *app)
            .collect();
        for app in due {
            self.order_removal(app);
        }
    }

    fn order_removal(&mut self, app: u16) {
        if let Some(gate) = self.apps.get_mut(&app) {
            gate.removing = true;
            self.tell_homes(app, &ToScheduler::Remove { app });
        }
    }

    fn ask(&mut self, who: Asked, app: u16) {
        let token = self.next_token;
        self.next_token += 1;
        let gate = self.apps.get(&app);
        let unanswered = gate.map_or(0, |gate| gate.version.division.count());
        let question = Question {
            who,
            unanswered,
            sum: None,
        };
        if unanswered == 0 {
            self.answered(question);
            return;
        }
        self.asked.insert(token, question);
        self.tell_homes(app, &ToScheduler::Stats { token, app });
    }

    fn answer(&mut self, token: u64, stats: Option<AppStatsMessage>) {
        let Some(question) = self.asked.get_mut(&token) else {
            return;
        };
        question.unanswered -= 1;
        if let Some(stats) = stats {
            question.sum.get_or_insert_default().add(&stats);
        }
        if question.unanswered == 0
            && let Some(question) = self.asked.remove(&token)
        {
            self.answered(question);
        }
    }

    /// All schedulers have answered.
    fn answered(&mut self, question: Question) {
        let stats = question.sum;
        match question.who {
            Asked::Flushing(app) => self.flush_if_quiet(app, stats),
            Asked::Somebody(app, answer) => {
                let gate = self.apps.get(&app);
                let condition = stats.zip(gate).map(|(stats, gate)| Condition {
                    stats: AppStats {
                        held_bytes: gate.version.regions.held_in_all(),
                        ingress_bytes: gate.ingress_bytes,
                        requests_open: gate.requests_open,
                        ..AppStats::from(stats)
                    },
                    first_failure: gate.first_failure.clone(),
                });
                // Whoever has stopped waiting does not want to know.
                let _ = answer.send(condition);
            }
            Asked::Retiring(app) => {
                let Some(gate) = self.apps.get_mut(&app) else {
                    return;
                };
                gate.asking = false;
                let quiet = stats
                    .as_ref()
                    .is_none_or(|it| it.sessions_open == 0 && it.queued == 0 && it.gathered == 0);
                if !quiet || gate.requests_open > 0 || gate.removing {
                    return;
                }
                let letters = stats.map_or(0, |it| it.dead_letters);
                if letters == 0 || gate.handing.is_none() {
                    self.order_removal(app);
                } else if !self.moves_letters_of(app) {
                    // One is on its way here, or its scheduler has not heard that it is taken.
                    self.look_at_retiring(app);
                }
            }
        }
    }

    /// Has the triggers of an app fire where nothing else goes on at any of its schedulers. One of
    /// them may not have heard yet what another has told it; hence they must have said the same
    /// one interval ago, in which nothing can then have happened.
    fn flush_if_quiet(&mut self, app: u16, stats: Option<AppStatsMessage>) {
        let Some(gate) = self.apps.get_mut(&app) else {
            return;
        };
        let quiet = stats.filter(|stats| stats.busy == 0);
        let is_alone = gate.version.division.count() == 1;
        let may_fire = quiet.is_some() && (is_alone || quiet == gate.quiet);
        gate.quiet = quiet;
        if may_fire {
            self.tell_homes(app, &ToScheduler::Flush { app });
        }
    }

    fn request(&mut self, submission: Submission) {
        let Submission { id, request, reply } = submission;
        let mut reply = reply;
        match self.admit(id, &request) {
            Ok(admitted) => {
                let mut admitted = admitted;
                let extents = mem::take(&mut admitted.extents);
                let mut pending = Pending::new(admitted.app, admitted.home, reply, extents);
                pending.again = admitted.again.take();
                pending.joins = request.session;
                pending.retries = request.to.letter();
                pending.wait = request.wait;
                if admitted.durable.is_some() {
                    let durable = self.write_call(id, request, admitted);
                    pending.durable = Some(Box::new(durable));
                } else {
                    self.ways[usize::from(admitted.home)].tell_bytes(&admitted.message);
                }
                self.pending.insert(id, Box::new(pending));
            }
            Err(reason) => reply(Reply::Refused(reason)),
        }
    }

    /// Judges a request, writes its body and headers, and makes what a scheduler is told.
    fn admit(&mut self, id: u64, request: &Request) -> Result<Admitted, RefusalReason> {
        if self.health.broken().is_some() || self.leaving.is_some() {
            return Err(unusable(&self.health));
        }
        let no_app = || RefusalReason::NoApp {
            app: request.app.clone(),
        };
        let app = *self.routes.get(&request.app).ok_or_else(no_app)?;
        if let To::DeadLetter(letter) = request.to {
            return self.admit_retry(id, request, app, letter);
        }
        let gate = self.apps.get_mut(&app).ok_or_else(no_app)?;
        let version = Arc::clone(&gate.version);
        let destination = destination(&version, request)?;
        let block = headers::encode(&request.headers)?;
        let limit = version.object_bytes_max();
        let size_bytes = request.body.len() as u64;
        if size_bytes > limit {
            return Err(RefusalReason::TooBig {
                size_bytes,
                limit_bytes: limit,
            });
        }
        let home = gate.home_for(request)?;
        let body = gate.place(&request.body)?;
        let mut extents = vec![body];
        let mut header_block = None;
        if let Some(block) = &block {
            let extent = match gate.place(block) {
                Ok(extent) => extent,
                Err(reason) => {
                    gate.give_back(body);
                    return Err(reason);
                }
            };
            extents.push(extent);
            header_block = Some((extent.offset_units, extent.len_units, block.len() as u32));
        }
        gate.requests_open += 1;
        gate.homes.opened(home);
        let durable = self.durable_session(&version, &destination, home);
        let function = durable::called(&version, &destination);
        let message = outgoing::encode(&ToScheduler::Request(RequestMessage {
            app,
            request: id,
            destination,
            offset_units: body.offset_units,
            len_units: body.len_units,
            size_bytes,
            headers: header_block,
            session: request.session,
            // A session has one caller, who opened it; others who wait are told by the gateway.
            has_caller: request.wait && request.session.is_none(),
            timeout_ns: request.timeout_ns(),
            durable,
        }));
        let has_others = request.session.is_none() && version.division.count() > 1;
        Ok(Admitted {
            app,
            home,
            extents,
            again: has_others.then(|| Again {
                message: message.clone(),
                tried: Tried::default(),
            }),
            durable,
            function: function.unwrap_or_default(),
            message,
        })
    }

    fn hear_scheduler(&mut self, from: usize, message: ToNode<'_>) {
        match message {
            ToNode::Ready => {
                self.ways[from].ready = true;
                if self.ways.iter().all(|way| way.ready) {
                    // Nobody waits for it when the start has been given up.
                    let _ = self.ready.send(());
                }
            }
            ToNode::Spawn { app, slot, core } => {
                let scheduler = from as u8;
                if let Some(gate) = self.apps.get_mut(&app) {
                    gate.owners.insert(slot, scheduler);
                }
                self.supervisor.tell(Order::Spawn {
                    app,
                    slot,
                    scheduler,
                    core,
                });
            }
            ToNode::Kill {
                app,
                slot,
                incarnation,
                why,
            } => self.supervisor.tell(Order::Kill {
                app,
                slot,
                incarnation,
                why: why.to_owned(),
            }),
            ToNode::Released { app, extents } => {
                if let Some(gate) = self.apps.get_mut(&app) {
                    for (offset_units, len_units) in extents {
                        gate.give_back(Extent {
                            offset_units,
                            len_units,
                        });
                    }
                }
            }
            ToNode::Accepted { request, session } => self.accepted(request, session),
            ToNode::Refused { request, refusal } => self.refused(request, refusal),
            ToNode::Response {
                request,
                session,
                http_status,
                content_type,
                by,
                parts,
                more,
                ..
            } => {
                let response = Incoming {
                    session,
                    http_status,
                    content_type: String::from_utf8_lossy(content_type).into_owned(),
                    by,
                    ..Incoming::default()
                };
                self.take_parts(request, response, parts, more);
            }
            ToNode::Ended {
                app,
                request,
                session,
                outcome,
                answered,
            } => {
                self.end_writer(request, session);
                let end = End {
                    app,
                    session,
                    outcome,
                    answered,
                };
                let pending = self.pending.get_mut(&request);
                match pending.and_then(|pending| pending.response.as_mut()) {
                    Some(response) => response.end = Some(end),
                    None => self.ended(request, end),
                }
            }
            ToNode::ErrorEvent { app, session, text } => {
                self.event(app, session, OutputKind::ErrorEvent, text.to_owned());
            }
            ToNode::WriteFailure {
                app,
                ticket,
                failure,
            } => self.write_failure(from as u8, app, ticket, failure),
            ToNode::Write(message) => self.write(from as u8, &message),
            ToNode::Firing { bytes, more } => self.hear_firing(from, bytes, more),
            ToNode::Success {
                session,
                invocation,
            } => {
                if let Some(store) = &self.store {
                    store.write_success(session, invocation);
                }
            }
            ToNode::Load {
                app,
                ticket,
                bucket,
                key,
            } => {
                let question = store::Question {
                    scheduler: from as u8,
                    app,
                    ticket,
                };
                self.load(question, bucket, key);
            }
            ToNode::Delete { app, bucket, key } => {
                if let (Some(store), Some(gate)) = (&self.store, self.apps.get(&app)) {
                    store.delete(&gate.version, bucket, key);
                }
            }
            ToNode::Removed { app } => self.removed(app),
            ToNode::Punch {
                app,
                slot,
                incarnation,
                extents,
            } => self.tell_memory(app, |version| Task::Punch {
                version,
                slot,
                incarnation,
                extents,
            }),
            ToNode::Sweep {
                app,
                slot,
                live,
                more,
            } => self.tell_memory(app, |version| Task::Sweep {
                version,
                slot,
                live,
                more,
            }),
            ToNode::Trouble { app, trouble } => self.note_trouble(app, from as u8, trouble),
            ToNode::Stats { token, stats } => self.answer(token, stats),
            ToNode::Letter { token, letter } => self.hear_letter(token, &letter),
            ToNode::Handed { app, bytes, more } => self.hear_handed(from, app, bytes, more),
            ToNode::HandedOver { app } => self.handed_over(app),
            ToNode::LettersDone { token, count } => self.letters_done(token, count),
        }
    }

    fn tell_memory(&self, app: u16, task: impl FnOnce(Arc<Version>) -> Task) {
        if let Some(gate) = self.apps.get(&app) {
            // The thread leaves after this one.
            let _ = self.memory.send(task(Arc::clone(&gate.version)));
        }
    }

    /// Keeps what is wrong with an app, and says so when that is news: at first, and whenever as
    /// many have failed again.
    fn note_trouble(&mut self, app: u16, scheduler: u8, trouble: Option<Trouble>) {
        let is_there = self.apps.contains_key(&app);
        let sentence = trouble.filter(|_| is_there).map(|trouble| {
            if trouble.failures == FAILURES_TOLD || trouble.failures.is_power_of_two() {
                self.event(app, 0, OutputKind::Notice, trouble.why.clone());
            }
            trouble.why
        });
        self.troubles.set(app, scheduler, sentence);
    }

    fn event(&self, app: u16, session: u64, kind: OutputKind, text: String) {
        let name = self
            .apps
            .get(&app)
            .map(|gate| gate.version.name().to_owned());
        self.outlet.put(Output {
            app: name.unwrap_or_default(),
            function: None,
            session,
            invocation: 0,
            slot: None,
            kind,
            text,
            dropped: 0,
        });
    }

    fn accepted(&mut self, request: u64, session: u64) {
        let Some(pending) = self.pending.get_mut(&request) else {
            return;
        };
        // From here on its memory is the scheduler's to release.
        pending.extents = Vec::new();
        pending.again = None;
        if let Some(durable) = &mut pending.durable {
            durable.accepted();
        }
        pending.accepted = Some(session);
        (pending.reply)(Reply::Accepted { session });
        if pending.joins.is_some() {
            if pending.wait {
                self.joined.entry(session).or_default().push(request);
            } else {
                self.done(request);
            }
        }
    }

    fn refused(&mut self, request: u64, refusal: Refusal) {
        let may_be_elsewhere = match refusal {
            // A letter is where it is.
            Refusal::Sessions | Refusal::CallsWaiting | Refusal::Memory => {
                let pending = self.pending.get(&request);
                pending.is_none_or(|pending| pending.retries.is_none())
            }
            Refusal::NoLetter => true,
            _ => false,
        };
        if may_be_elsewhere && self.ask_another(request) {
            return;
        }
        if self.durable_refused(request, refusal) {
            return;
        }
        let Some(mut pending) = self.pending.remove(&request) else {
            return;
        };
        let app = pending.app;
        if matches!(
            refusal,
            Refusal::NotWritten | Refusal::Kept | Refusal::EndedMeanwhile
        ) {
            // Its memory is the scheduler's to release.
            pending.extents.clear();
        }
        if let Some(gate) = self.apps.get_mut(&app) {
            for extent in pending.extents.drain(..) {
                gate.give_back(extent);
            }
            let name = gate.version.name();
            let reason =
                RefusalReason::from_scheduler(refusal, name, (pending.joins, pending.retries));
            gate.requests_open -= 1;
            gate.homes.closed(pending.home);
            (pending.reply)(Reply::Refused(reason));
        }
        self.look_at_retiring(app);
    }

    /// A scheduler's share is used up, or it has not got what is asked for: sends the request to
    /// another, if there is one that has not refused it. So an app's limits are those of all its
    /// schedulers together.
    fn ask_another(&mut self, request: u64) -> bool {
        let Some(pending) = self.pending.get_mut(&request) else {
            return false;
        };
        let known = self.apps.get_mut(&pending.app).zip(pending.again.as_mut());
        let Some((gate, again)) = known else {
            return false;
        };
        again.tried.note(pending.home);
        let Some(next) = gate.homes.lightest(again.tried) else {
            return false;
        };
        gate.homes.closed(pending.home);
        gate.homes.opened(next);
        pending.home = next;
        self.ways[usize::from(next)].tell_bytes(&again.message);
        true
    }

    /// Takes the next parts of a response, of which `first` says the rest if they are its first.
    fn take_parts(&mut self, request: u64, first: Incoming, parts: Vec<Part>, more: bool) {
        let session = first.session;
        let pending = self.pending.get_mut(&request);
        let known = pending.and_then(|it| Some((self.apps.get(&it.app)?, &mut it.response)));
        let Some((gate, response)) = known else {
            // Nobody waits for it any more.
            if !more {
                self.tell_home(session, &ToScheduler::ResponseTaken { request, session });
            }
            return;
        };
        let response = response.get_or_insert_with(|| Box::new(first));
        response.reading.add(parts, gate.version.spec.memory_bytes);
        if !more {
            response.reading.end();
        }
        if !response.listed {
            self.read_left_bytes = self.read(request, self.read_left_bytes);
        }
    }

    /// Reads on in the responses that were too long to be read when they came.
    fn read_on(&mut self) -> bool {
        let mut budget_bytes = READ_PER_TURN_BYTES;
        let worked = !self.unread.is_empty();
        while budget_bytes > 0
            && let Some(request) = self.unread.pop_front()
        {
            budget_bytes = self.read(request, budget_bytes);
        }
        worked
    }

    /// Reads on in a response, and gives it if that was its end. What cannot be read fails the
    /// session for its caller. Returns what is left of the budget.
    fn read(&mut self, request: u64, mut budget_bytes: u64) -> u64 {
        let pending = self.pending.get_mut(&request);
        let known = pending.and_then(|it| Some((self.apps.get(&it.app)?, it.response.as_mut()?)));
        let Some((gate, response)) = known else {
            return budget_bytes;
        };
        let reading = &mut response.reading;
        reading.read(&gate.version.regions, &mut budget_bytes);
        let is_done = reading.is_done();
        response.listed = reading.has_unread();
        if response.listed {
            self.unread.push_back(request);
        }
        if reading.spoilt().is_some() && !std::mem::replace(&mut response.cancelled, true) {
            let session = response.session;
            self.tell_home(session, &ToScheduler::Cancel { session });
        }
        if is_done {
            self.respond(request);
        }
        budget_bytes
    }

    /// Gives a response that has been read, and tells what has been kept back until then.
    fn respond(&mut self, request: u64) {
        let Some(pending) = self.pending.get_mut(&request) else {
            return;
        };
        let Some(response) = pending.response.take().map(|it| *it) else {
            return;
        };
        let session = response.session;
        match response.reading.finish() {
            Ok(body) if pending.durable.is_some() => {
                let response = Incoming {
                    reading: Reading::default(),
                    ..response
                };
                return self.write_response(request, response, body);
            }
            Ok(body) => {
                self.tell_home(session, &ToScheduler::ResponseTaken { request, session });
                let reply = Reply::Response {
                    session,
                    http_status: response.http_status,
                    content_type: response.content_type,
                    body,
                };
                self.give(request, session, reply);
            }
            Err(why) => {
                pending.spoilt = Some(Box::new(FailureCause::Limit { message: why }));
                self.tell_home(session, &ToScheduler::ResponseTaken { request, session });
            }
        }
        if let Some(end) = response.end {
            self.ended(request, end);
        }
    }

    /// Gives a response to whom it is for, and to those who have joined the session.
    fn give(&mut self, request: u64, session: u64, response: Reply) {
        let others = self.joined.get(&session).cloned().unwrap_or_default();
        for other in others.iter().filter(|other| **other != request) {
            if let Some(joined) = self.pending.get_mut(other) {
                (joined.reply)(response.clone());
            }
        }
        if let Some(pending) = self.pending.get_mut(&request) {
            pending.answered = true;
            (pending.reply)(response);
        }
    }

    fn ended(&mut self, request: u64, end: End) {
        let End {
            app,
            session,
            outcome,
            answered,
        } = end;
        let mut tail = None;
        let outcome = match outcome {
            OutcomeMessage::Responded => Outcome::Responded,
            OutcomeMessage::Completed => Outcome::Completed,
            OutcomeMessage::TimedOut => Outcome::TimedOut,
            OutcomeMessage::Cancelled => Outcome::Cancelled,
            OutcomeMessage::Failed(failure) => {
                tail = failure
                    .executor
                    .map(|executor| (executor.slot, failure.invocation));
                Outcome::Failed(self.report(app, failure))
            }
        };
        let mut requests = self.joined.remove(&session).unwrap_or_default();
        if self.pending.contains_key(&request) {
            requests.push(request);
        } else if let Outcome::Failed(report) = &outcome {
            // Nobody waits for it: a gathering session, say. It must not fail in silence.
            let text = format!("session {session} failed: {report}");
            self.event(app, session, OutputKind::Notice, text);
        }
        let ended = Ended {
            session,
            outcome,
            answered,
        };
        for request in requests {
            if let Some(pending) = self.pending.get_mut(&request) {
                pending.ended = Some(Box::new(ended.clone()));
            }
            match tail {
                Some((slot, invocation)) => self.supervisor.tell(Order::Tail {
                    app,
                    slot,
                    invocation,
                    request,
                }),
                None => self.finish_with(request, Vec::new()),
            }
        }
        self.look_at_retiring(app);
    }

    /// Writes what a function is to read of a failure, for the scheduler that asks. Where the app
    /// is gone, nobody waits for it.
    fn write_failure(&mut self, asker: u8, app: u16, ticket: u64, failure: Failure) {
        let payload = failure::encode(&self.report(app, failure));
        let Some(gate) = self.apps.get_mut(&app) else {
            return;
        };
        match gate.place(&payload) {
            Ok(extent) => {
                let written = ToScheduler::FailureWritten {
                    app,
                    ticket,
                    offset_units: extent.offset_units,
                    len_units: extent.len_units,
                    size_bytes: payload.len() as u64,
                };
                self.tell(asker, &written);
            }
            Err(refused) => {
                let reason = &refused.to_string();
                let unwritten = ToScheduler::FailureNotWritten {
                    app,
                    ticket,
                    reason,
                };
                self.tell(asker, &unwritten);
            }
        }
    }

    /// Has an object written to disk for the scheduler that asks.
    fn write(&mut self, asker: u8, message: &WriteMessage<'_>) {
        let question = store::Question {
            scheduler: asker,
            app: message.app,
            ticket: message.ticket,
        };
        match (&self.store, self.apps.get(&message.app)) {
            (Some(store), Some(gate)) => {
                if message.ordinal.is_none() {
                    self.writers.insert(message.session);
                }
                store.write(question, &gate.version, message, &self.handle);
            }
            _ => self.tell_written(question, WrittenMessage::NothingKept),
        }
    }

    /// A session has ended. What it has written is behind its end in the journal's order.
    fn end_writer(&mut self, request: u64, session: u64) {
        let pending = self.pending.get(&request);
        let is_durable = pending.is_some_and(|pending| pending.durable.is_some());
        if self.writers.remove(&session)
            && !is_durable
            && let Some(store) = &self.store
        {
            store.end(session, "");
        }
    }

    fn written(&mut self, question: store::Question, result: Result<Receipt, WriteError>) {
        match result {
            Ok(receipt) => {
                let written = WrittenMessage::Done {
                    sequence: receipt.sequence().unwrap_or(0),
                    is_repeated: matches!(receipt, Receipt::Repeated(_)),
                };
                self.tell_written(question, written);
            }
            Err(WriteError::Exists { .. }) => self.tell_written(question, WrittenMessage::Exists),
            Err(error) => {
                let why = error.to_string();
                self.event(question.app, 0, OutputKind::Notice, why.clone());
                self.tell_written(question, WrittenMessage::Failed(&why));
            }
        }
    }

    fn tell_written(&mut self, question: store::Question, outcome: WrittenMessage<'_>) {
        let store::Question {
            scheduler,
            app,
            ticket,
        } = question;
        let written = ToScheduler::Written {
            app,
            ticket,
            outcome,
        };
        self.tell(scheduler, &written);
    }

    /// Looks for a durable object, and has it read into memory of the app's.
    fn load(&mut self, question: store::Question, bucket: u16, key: &[u8]) {
        let Some(gate) = self.apps.get_mut(&question.app) else {
            return;
        };
        let store = self.store.as_ref();
        let Some(stored) = store.and_then(|store| store.find(&gate.version, bucket, key)) else {
            return self.tell_loaded(question, Err(NotFound::Missing));
        };
        let region = gate.version.spec.ingress_slot();
        let place = gate.reserve(stored.payload.size_bytes());
        let file = gate.version.regions.shared(region);
        match (store, place, file) {
            (Some(store), Ok(extent), Some(file)) => store.read(question, stored, file, extent),
            _ => self.tell_loaded(question, Err(NotFound::NoMemory)),
        }
    }

    fn loaded(&mut self, question: store::Question, found: &store::Found) {
        let Some(gate) = self.apps.get_mut(&question.app) else {
            return;
        };
        if let Some(why) = &found.failed {
            gate.give_back(found.extent);
            self.event(question.app, 0, OutputKind::Notice, why.clone());
            return self.tell_loaded(question, Err(NotFound::Unreadable));
        }
        let message = FoundMessage {
            offset_units: found.extent.offset_units,
            len_units: found.extent.len_units,
            size_bytes: found.size_bytes,
            session: found.session,
            group: &found.group,
        };
        self.tell_loaded(question, Ok(message));
    }

    fn tell_loaded(
        &mut self,
        question: store::Question,
        found: Result<FoundMessage<'_>, NotFound>,
    ) {
        let store::Question {
            scheduler,
            app,
            ticket,
        } = question;
        self.tell(scheduler, &ToScheduler::Loaded { app, ticket, found });
    }

    fn report(&self, app: u16, failure: Failure) -> FailureReport {
        match self.apps.get(&app) {
            Some(gate) => {
                let (name, functions) = (gate.version.name(), &gate.version.function_names);
                FailureReport::new(name, failure, functions, Vec::new())
            }
            None => FailureReport::new("", failure, &[], Vec::new()),
        }
    }

    /// Tells a request's end, with the last lines of the executor at fault.
    fn finish_with(&mut self, request: u64, lines: Vec<String>) {
        let Some(pending) = self.pending.get_mut(&request) else {
            return;
        };
        let Some(mut ended) = pending.ended.take() else {
            return;
        };
        if let Some(cause) = pending.spoilt.take() {
            let app = self.apps.get(&pending.app).map(|gate| gate.version.name());
            ended.outcome = Outcome::Failed(FailureReport {
                cause: *cause,
                ..FailureReport::of_node(app.unwrap_or_default(), String::new())
            });
            ended.answered = false;
        } else if let Outcome::Failed(report) = &mut ended.outcome {
            report.output.extend(lines);
        }
        if let Some(outcome) = self.stopping_outcome(request, &ended.outcome) {
            ended.outcome = outcome;
        } else if self.write_end(request, &ended) {
            if let Some(pending) = self.pending.get_mut(&request) {
                pending.ended = Some(ended);
            }
            return;
        }
        let Some(pending) = self.pending.get_mut(&request) else {
            return;
        };
        (pending.reply)(Reply::Ended {
            session: ended.session,
            outcome: ended.outcome,
            answered: ended.answered,
        });
        self.done(request);
    }

    /// A request is finished.
    fn done(&mut self, request: u64) {
        let Some(pending) = self.pending.remove(&request) else {
            return;
        };
        if let Some(gate) = self.apps.get_mut(&pending.app) {
            gate.requests_open -= 1;
            gate.homes.closed(pending.home);
        }
        self.look_at_retiring(pending.app);
    }

    /// A scheduler has nothing left of an app; with the last of them the app is gone.
    fn removed(&mut self, app: u16) {
        let Some(gate) = self.apps.get_mut(&app) else {
            return;
        };
        gate.gone += 1;
        if gate.gone < gate.version.division.count() {
            return;
        }
        let left: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.app == app)
            .map(|(request, _)| *request)
            .collect();
        for request in left {
            self.fail_one(request, None);
        }
        self.asked
            .retain(|_, asked| !matches!(&asked.who, Asked::Somebody(of, _) if *of == app));
        self.asked_letters.retain(|_, asked| asked.app != app);
        if let Some(gate) = self.apps.remove(&app) {
            self.troubles.forget(app);
            let _ = self.memory.send(Task::Forget(app));
            self.supervisor.tell(Order::Forget { app });
            for done in gate.removed {
                // Whoever has stopped waiting does not want to know.
                let _ = done.send(());
            }
        }
    }

    /// Ends a request that the scheduler will not end: its app is gone, or the node is broken.
    fn fail_one(&mut self, request: u64, why: Option<&str>) {
        let Some(mut pending) = self.pending.remove(&request) else {
            return;
        };
        let name = match self.apps.get_mut(&pending.app) {
            Some(gate) => {
                gate.requests_open -= 1;
                gate.homes.closed(pending.home);
                gate.version.name().to_owned()
            }
            None => String::new(),
        };
        let last = match (pending.ended.take(), pending.accepted) {
            // Its end was known; only its executor's last lines were waited for.
            (Some(ended), _) => Reply::Ended {
                session: ended.session,
                outcome: ended.outcome,
                answered: ended.answered,
            },
            (None, Some(session)) => Reply::Ended {
                session,
                outcome: why.map_or(Outcome::Cancelled, |why| {
                    Outcome::Failed(FailureReport::of_node(&name, why.to_owned()))
                }),
                answered: false,
            },
            (None, None) => Reply::Refused(why.map_or_else(
                || RefusalReason::NoApp { app: name.clone() },
                |why| RefusalReason::Unusable {
                    reason: why.to_owned(),
                },
            )),
        };
        (pending.reply)(last);
    }

    /// Nothing will be answered any more: everybody who waits is told so.
    fn fail_everything(&mut self) {
        let why = self.health.broken().map_or_else(
            || "the node is stopping".to_owned(),
            |it| it.error().to_string(),
        );
        let left: Vec<u64> = self.pending.keys().copied().collect();
        for request in left {
            self.fail_one(request, Some(&why));
        }
        // Dropped, which whoever waits for one hears.
        self.asked.clear();
        self.asked_letters.clear();
        self.moving.clear();
        self.unread.clear();
        self.joined.clear();
        self.apps.clear();
        self.routes.clear();
        self.ways.iter_mut().for_each(Way::clear);
    }
}

/// A request that was let in here.
struct Admitted {
    app: u16,
    home: u8,
    extents: Vec<Extent>,
    again: Option<Again>,
    /// It opens a durable session: it is on disk before its scheduler is told of it.
    durable: Option<u64>,
    /// The function that it calls, where it calls one.
    function: u16,
    /// What its scheduler is told.
    message: Vec<u8>,
}

impl Pending {
    /// Of a request to this app that a scheduler is or will be told of.
    fn new(app: u16, home: u8, reply: ReplyTo, extents: Vec<Extent>) -> Self {
        Self {
            app,
            home,
            again: None,
            reply,
            extents,
            joins: None,
            retries: None,
            wait: false,
            accepted: None,
            answered: false,
            response: None,
            spoilt: None,
            durable: None,
            ended: None,
        }
    }
}

impl Gate {
    /// The scheduler that a request goes to: the home of the session it joins, or the one with the
    /// least to do.
    fn home_for(&self, request: &Request) -> Result<u8, RefusalReason> {
        let division = self.version.division;
        match request.session {
            Some(session) if division.is_home(home_of(session)) => Ok(home_of(session)),
            Some(session) => Err(RefusalReason::SessionEnded { session }),
            None => {
                let lightest = self.homes.lightest(Tried::default());
                lightest.ok_or(RefusalReason::Overloaded)
            }
        }
    }

    /// Writes a payload into memory of its own.
    fn place(&mut self, payload: &[u8]) -> Result<Extent, RefusalReason> {
        let extent = self.reserve(payload.len() as u64)?;
        if regions::write(self.version.regions.ingress(), extent, payload).is_err() {
            // The machine is out of memory before the app's quota is.
            self.give_back(extent);
            return Err(RefusalReason::Memory);
        }
        Ok(extent)
    }

    /// Memory for a payload of so many bytes.
    fn reserve(&mut self, size_bytes: u64) -> Result<Extent, RefusalReason> {
        let units = Extent::units_for(size_bytes);
        // A body as large as the whole memory has a unit more, for its zero byte.
        let limit = self.version.spec.memory_bytes.saturating_add(UNIT_BYTES);
        if self.ingress_bytes + units * UNIT_BYTES > limit {
            return Err(RefusalReason::Memory);
        }
        let extent = self
            .ingress
            .allocate(units)
            .map_err(|_| RefusalReason::Memory)?;
        self.ingress_bytes += extent.len_bytes();
        Ok(extent)
    }

    fn give_back(&mut self, extent: Extent) {
        self.ingress_bytes = self.ingress_bytes.saturating_sub(extent.len_bytes());
        self.ingress.free(extent);
    }
}

/// Names turned into indices, and everything checked that can be checked here.
fn destination<'a>(
    version: &Version,
    request: &'a Request,
) -> Result<DestinationMessage<'a>, RefusalReason> {
    let app = || request.app.clone();
    let malformed = |reason: &str| RefusalReason::Malformed {
        reason: reason.to_owned(),
    };
    match &request.to {
        To::Entry => match version.spec.entry {
            Some(Entry::Function(_) | Entry::Bucket(_)) => Ok(DestinationMessage::Entry),
            None => Err(RefusalReason::NoEntry { app: app() }),
        },
        To::Function(name) => version
            .functions
            .get(name)
            .map(|index| DestinationMessage::Function(*index))
            .ok_or_else(|| RefusalReason::NoFunction {
                app: app(),
                function: name.clone(),
            }),
        To::DeadLetter(_) => Err(malformed("a dead letter is no place for an object")),
        To::Retained { bucket, key } => Ok(DestinationMessage::Retained {
            bucket: bucket_index(version, bucket)?,
            key,
        }),
        To::Bucket { bucket, key, group } => {
            let index = bucket_index(version, bucket)?;
            if let Some(key) = key {
                if key.is_empty() || key.len() > KEY_BYTES_MAX || key.contains(&0) {
                    return Err(malformed("a key has 1 to 255 bytes, none of them zero"));
                }
                if key[0] == b'~' {
                    return Err(malformed(
                        "a key that begins with `~` is made by the system alone; choose another",
                    ));
                }
            }
            if group.len() > GROUP_BYTES_MAX || group.contains(&0) {
                return Err(malformed(
                    "a group has at most 255 bytes, none of them zero",
                ));
            }
            Ok(DestinationMessage::Bucket {
                bucket: index,
                key: key.as_deref(),
                group,
            })
        }
    }
}

fn bucket_index(version: &Version, bucket: &str) -> Result<u16, RefusalReason> {
    let index = version.buckets.get(bucket).copied();
    index.ok_or_else(|| RefusalReason::NoBucket {
        app: version.name().to_owned(),
        bucket: bucket.to_owned(),
    })
}
