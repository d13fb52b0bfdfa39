//! How other threads of the node talk to the gateway, and what they tell it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use pheromone_journal::{Receipt, Unfinished, WriteError};
use pheromone_shm::link::NodeRope;

use super::letters::{About, Letters};
use crate::app::Version;
use crate::child::Exit;
use crate::request::{RefusalReason, Reply, Request, RequestId};
use crate::status::{AppStats, Health, SessionStatus};
use crate::store::{self, Restoring};

/// Requests that wait to be taken; more are refused.
const REQUESTS_WAITING_MAX: usize = 1 << 16;

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
pub(super) struct Submission {
    pub(super) id: u64,
    pub(super) request: Request,
    pub(super) reply: ReplyTo,
}

/// How other threads talk to the gateway; cheap to clone.
#[derive(Clone)]
pub struct GatewayHandle {
    pub(super) commands: Sender<Command>,
    pub(super) requests: Sender<Submission>,
    pub(super) rope: NodeRope,
    next_request: Arc<AtomicU64>,
    pub(super) health: Health,
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

/// Where the gateway hears them.
pub struct Inbox {
    pub(super) commands: Receiver<Command>,
    pub(super) requests: Receiver<Submission>,
}

pub(super) fn unusable(health: &Health) -> RefusalReason {
    let reason = health.broken().map_or_else(
        || "the node is stopping".to_owned(),
        |broken| broken.error().to_string(),
    );
    RefusalReason::Unusable { reason }
}
