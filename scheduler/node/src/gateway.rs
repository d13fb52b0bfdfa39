//! The thread between the outside and the schedulers: requests in, answers out.
//!
//! It alone touches the node's ends of the links, the control sockets and the ingress allocators,
//! so nothing here is locked. It writes bodies and reads responses through descriptors and maps no
//! payload. It never waits except asleep on its rope, by which a message of a scheduler or a
//! command of another thread wakes it; an idle node's gateway sleeps. Nor does it read a long
//! response at one go: a piece each turn, between which it hears everybody else.

mod durable;
mod ending;
mod gate;
mod handle;
mod handover;
mod letters;
mod pending;
mod question;
mod response;
mod schedulers;
#[cfg(test)]
mod tests;
mod versions;
mod writing;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use pheromone_scheduler::protocol::{Control, ToScheduler};
use pheromone_shm::link::NodeRope;

use self::durable::Restores;
use self::gate::Gate;
use self::handle::unusable;
pub use self::handle::{Command, Condition, GatewayHandle, Inbox, ReplyTo};
use self::handover::Moving;
use self::letters::LetterQuestion;
pub use self::letters::{About, Letters};
use self::pending::Pending;
use self::question::{Asked, Question};
use self::response::READ_PER_TURN_BYTES;
use crate::memory::MemoryHandle;
use crate::output::Outlet;
use crate::request::Reply;
use crate::status::{Broken, Health, SessionStatus, Troubles};
use crate::store::Store;
use crate::supervisor::SupervisorHandle;
use crate::way::Way;

/// Messages that wait for room in the link before no further requests are taken.
const OUTGOING_MAX: usize = 1024;
/// Commands, requests and messages taken of each per turn, so that none starves the others.
const PER_TURN_MAX: usize = 256;
/// Sessions in one list.
pub const SESSIONS_LISTED_MAX: usize = 10_000;
/// How long a full link or control socket is left alone before it is tried again.
const RETRY: Duration = Duration::from_millis(1);

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
}
