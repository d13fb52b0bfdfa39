//! The loop: poll, step, flush, and sleep when nothing happens.
//!
//! One turn takes what other schedulers and the node said, up to `MESSAGES_PER_EXECUTOR` messages
//! from every executor that may speak; everything that caused goes out before the next turn.
//! Timers that are due fire where the clock is looked at, mostly in an empty turn. No system call
//! is made while there is work but the wakes of sleepers.

use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

use pheromone_core::event::{
    AppId, Death, Destination, Event, ExecutorId, FoundObject, HandedLetter, Ingress, Request,
    RequestId, RestoredSession, Retry, SessionId, Ticket, Written,
};
use pheromone_core::spec::AppSpec;
use pheromone_core::{Core, PeerMessage};
use pheromone_shm::control::SchedulerEnd;
use pheromone_shm::doorbell::Bell;
use pheromone_shm::limits::PUBLISH_SLOTS;
use pheromone_shm::link::LinkEnd;
use pheromone_shm::message::{Extent, FromExecutor, HeadersRef};
use pheromone_shm::wire::MessageBuffer;
use rustix::time::{ClockId, clock_gettime};
use std::os::fd::AsFd;

use crate::control;
use crate::neighbours::Neighbours;
use crate::outbox::Outbox;
use crate::protocol::{
    AppStatsMessage, Control, DestinationMessage, LetterMessage, RequestMessage, SchedulerConfig,
    SpinMessage, ToNode, ToScheduler, WrittenMessage,
};

/// Messages taken from one executor per turn, so that a flooder cannot hold the loop.
const MESSAGES_PER_EXECUTOR: usize = 32;
/// Messages taken from the node per turn.
const MESSAGES_FROM_NODE: usize = 32;
/// Messages taken from each other scheduler per turn.
const MESSAGES_PER_NEIGHBOUR: usize = 32;
/// Turns between two looks at executors that have nothing open, where there is work without end.
const SWEEP_BUSY_TURNS: u32 = 1 << 16;
/// Empty turns between two looks at executors that have nothing open.
const SWEEP_TURNS: u32 = 512;
/// Between two looks at the clock and the timers lies as much as so many empty turns, which take 8
/// to 20 ns each. A look costs some 25 ns and waits for every load before it, so it is taken where
/// nobody waits for it: while there is nothing to do.
const CLOCK_TURNS: u32 = 64;
/// As many empty turns as a message of an executor takes the time of, or more.
const CLOCK_TURNS_PER_MESSAGE: u32 = 16;
/// A look that is due waits for so many empty turns in a row: whoever has sent an object mostly
/// returns within them, and the next function waits for that.
const CLOCK_QUIET_TURNS: u32 = 4;
/// It waits no longer than this, and for the end of the turn. What comes in is stamped with the
/// last look, hence so many empty turns back at most, or eight messages and the turn that they
/// make longer: one or two microseconds where one executor speaks.
const CLOCK_TURNS_MAX: u32 = 2 * CLOCK_TURNS;
/// How long the loop polls without work before it sleeps (adaptive).
const SPIN_BEFORE_SLEEP_NS: u64 = 50_000;
/// A sleep ends so long before the next timer, and the rest is polled: a machine may take as long
/// to get up, a virtual one above all.
const RISE_BEFORE_TIMER_NS: u64 = 50_000;
/// Longest sleep while a dispatch is open: an executor could withhold the wake.
const SLEEP_WITH_OPEN_DISPATCH: Duration = Duration::from_millis(10);
/// Longest sleep while there is any executor: one of them could have taken the node's wake.
const SLEEP_WITH_EXECUTORS: Duration = Duration::from_millis(100);

/// A process that is dead.
struct Deceased {
    executor: ExecutorId,
    incarnation: u32,
    death: Death,
    detail: String,
}

/// The scheduler process.
pub struct Scheduler {
    config: SchedulerConfig,
    core: Core,
    outbox: Outbox,
    bell: Bell,
    control: OwnedFd,
    buffer: Box<MessageBuffer>,
    from_node: Vec<u8>,
    from_neighbour: Vec<u8>,
    /// Pieces of a dead letter that is on its way here.
    adopted: Vec<u8>,
    /// Pieces of a durable session that goes on here.
    restored: Vec<u8>,
    /// The clock at the last look.
    now_ns: u64,
    /// What has been done since, in empty turns.
    since_look: u32,
    last_work_ns: u64,
    /// Since there was work, or since the last sweep.
    empty_turns: u32,
    busy_turns: u32,
    missed_wakes: u64,
    /// Deaths of processes of whose memory some is in the node's hands.
    deaths: Vec<Deceased>,
    leaving: bool,
}

impl Scheduler {
    /// Everything is mapped, the link to the node and those to the other schedulers among it;
    /// nothing has been said yet.
    pub fn new(
        config: SchedulerConfig,
        core: Core,
        (link, neighbours): (LinkEnd, Neighbours),
        bell: Bell,
        control: OwnedFd,
    ) -> Self {
        let spin_always = config.spin == SpinMessage::Always;
        let now_ns = monotonic_ns();
        Self {
            config,
            core,
            outbox: Outbox::new(link, neighbours, spin_always),
            bell,
            control,
            buffer: Box::default(),
            from_node: Vec::with_capacity(4096),
            from_neighbour: Vec::new(),
            adopted: Vec::new(),
            restored: Vec::new(),
            now_ns,
            since_look: 0,
            last_work_ns: now_ns,
            empty_turns: 0,
            busy_turns: 0,
            missed_wakes: 0,
            deaths: Vec::new(),
            leaving: false,
        }
    }

    /// Runs until the node says `Shutdown`.
    pub fn run(&mut self) -> ExitCode {
        self.outbox.tell(&ToNode::Ready);
        self.outbox.flush();
        loop {
            if let Err(reason) = self.turn() {
                eprintln!("pheromone: scheduler: {reason}");
                return ExitCode::from(70);
            }
            // Another scheduler may have left already, and takes nothing any more.
            if self.leaving && !self.outbox.has_unsent_to_node() {
                return ExitCode::SUCCESS;
            }
        }
    }

    /// One turn, which may be a sleep where there is nothing to do. [`run`](Self::run) does the
    /// same again and again.
    ///
    /// # Errors
    /// A sentence about the process that cannot be understood; the loop cannot go on.
    pub fn turn(&mut self) -> Result<(), String> {
        if self.work()? {
            self.note_work();
        } else {
            self.rest();
        }
        Ok(())
    }

    /// Does what there is to do. True when there was anything.
    #[inline(always)]
    fn work(&mut self) -> Result<bool, String> {
        let mut worked = false;
        if self.outbox.neighbours.any_message() {
            self.take_from_neighbours()?;
            self.since_look = CLOCK_TURNS_MAX;
            worked = true;
        }
        if self.outbox.link_has_message() {
            self.take_from_node()?;
            self.since_look = CLOCK_TURNS_MAX;
            worked = true;
        }
        let mut at = 0;
        while let Some(id) = self.outbox.peers.active(at) {
            let has_message = self
                .outbox
                .peers
                .get(id)
                .is_some_and(|peer| peer.end.has_message());
            if !has_message {
                at += 1;
                continue;
            }
            worked = true;
            self.take_from_executor(id, MESSAGES_PER_EXECUTOR);
            if !self.outbox.peers.settle(at) {
                at += 1;
            }
        }
        if worked {
            self.outbox.flush();
            // Whoever seems to have something to say, and has not, cannot stop the clock.
            self.since_look += 1;
            if self.since_look >= CLOCK_TURNS_MAX {
                self.look_at_clock();
            }
        }
        Ok(worked)
    }

    /// Fires the timers that are due; whether there were any.
    fn look_at_clock(&mut self) -> bool {
        self.now_ns = monotonic_ns();
        self.since_look = 0;
        self.bell.count_turn();
        if !self.outbox.reclaim.is_idle() {
            self.outbox.reclaim(self.now_ns);
        }
        let due = self.core.next_timer_ns();
        if due.is_none_or(|due| due > self.now_ns) {
            return false;
        }
        self.step(Event::Tick);
        self.outbox.flush();
        true
    }

    fn note_work(&mut self) {
        self.last_work_ns = self.now_ns;
        self.empty_turns = 0;
        self.busy_turns = self.busy_turns.wrapping_add(1);
        if self.busy_turns.is_multiple_of(SWEEP_BUSY_TURNS) {
            self.sweep();
        }
    }

    /// An empty turn: now and then look at what is not polled, then sleep if that is allowed.
    fn rest(&mut self) {
        std::hint::spin_loop();
        self.empty_turns += 1;
        self.since_look += 1;
        if !self.must_look() {
            return;
        }
        if self.look_at_clock() {
            self.note_work();
            return;
        }
        if self.empty_turns < SWEEP_TURNS && !self.sleeps_at_once() {
            return;
        }
        self.empty_turns = 0;
        if self.sweep() {
            self.note_work();
            return;
        }
        let idle_ns = self.now_ns.saturating_sub(self.last_work_ns);
        if !self.config.never_sleeps && (self.sleeps_at_once() || idle_ns >= SPIN_BEFORE_SLEEP_NS) {
            self.sleep();
        }
    }

    /// Whether an empty turn is to look at the clock.
    fn must_look(&self) -> bool {
        let is_due = self.since_look >= CLOCK_TURNS && self.empty_turns >= CLOCK_QUIET_TURNS;
        is_due || self.since_look >= CLOCK_TURNS_MAX || self.sleeps_at_once()
    }

    /// With one core, nobody spins.
    fn sleeps_at_once(&self) -> bool {
        self.config.spin == SpinMessage::Never
    }

    /// Releases that found no room, and executors with nothing open (which must have
    /// nothing to say; the core judges them if they do). True when there was anything.
    fn sweep(&mut self) -> bool {
        let mut worked = false;
        for executor in self.outbox.take_starved() {
            self.step(Event::ReleaseRoom { executor });
        }
        let all: smallvec::SmallVec<[ExecutorId; 64]> = self.outbox.peers.all().collect();
        for id in all {
            if self
                .outbox
                .peers
                .get(id)
                .is_some_and(|peer| peer.end.has_message())
            {
                self.take_from_executor(id, MESSAGES_PER_EXECUTOR);
                worked = true;
            }
        }
        if worked {
            // Whoever has said its last word here is polled no more, as in a turn.
            self.outbox.peers.settle_all();
        }
        if worked || self.outbox.has_unsent() {
            self.outbox.flush();
        }
        worked
    }

    fn sleep(&mut self) {
        let rise_before_ns = if self.sleeps_at_once() {
            0
        } else {
            RISE_BEFORE_TIMER_NS
        };
        let due_in_ns = self.core.next_timer_ns().map(|due_ns| {
            let rise_ns = due_ns.saturating_sub(rise_before_ns);
            rise_ns.saturating_sub(self.now_ns)
        });
        if due_in_ns == Some(0) {
            return;
        }
        let open = self.outbox.peers.any_active();
        let mut timeout = due_in_ns.map(Duration::from_nanos);
        if open || self.outbox.has_unsent() || self.outbox.has_starved() {
            timeout = Some(timeout.map_or(SLEEP_WITH_OPEN_DISPATCH, |timer| {
                timer.min(SLEEP_WITH_OPEN_DISPATCH)
            }));
        } else if self.outbox.peers.any() {
            timeout = Some(timeout.map_or(SLEEP_WITH_EXECUTORS, |timer| {
                timer.min(SLEEP_WITH_EXECUTORS)
            }));
        }
        let outbox = &mut self.outbox;
        let woken = self.bell.sleep(|| outbox.has_message(), timeout);
        if !woken && self.outbox.has_message() {
            self.missed_wakes += 1;
        }
        self.now_ns = monotonic_ns();
        self.since_look = 0;
        // Poll for a while: whoever woke us is likely to have more to say.
        self.last_work_ns = self.now_ns;
    }

    fn step(&mut self, event: Event<'_>) {
        self.core.step(event, self.now_ns, &mut self.outbox);
    }

    /// Takes up to `most` messages from one executor's ring.
    fn take_from_executor(&mut self, executor: ExecutorId, most: usize) {
        for _ in 0..most {
            let Some(peer) = self.outbox.peers.get(executor) else {
                return;
            };
            if let Some(message) = peer.end.receive_plain() {
                if let FromExecutor::Complete { .. } = message {
                    peer.completed();
                }
                let event = Event::Message { executor, message };
                self.core.step(event, self.now_ns, &mut self.outbox);
                // The end of a session may give back any number of objects.
                self.since_look += CLOCK_TURNS_PER_MESSAGE + self.outbox.take_released();
                continue;
            }
            if !peer.end.has_message() {
                break;
            }
            match peer.end.receive(&mut self.buffer) {
                Ok(Some(message)) => {
                    // What is not plain may take any time.
                    self.since_look = CLOCK_TURNS_MAX;
                    match message {
                        FromExecutor::Complete { .. } => peer.completed(),
                        FromExecutor::Ready => peer.ready(),
                        _ => {}
                    }
                    let event = Event::Message { executor, message };
                    self.core.step(event, self.now_ns, &mut self.outbox);
                }
                Ok(None) => break,
                Err(garbled) => {
                    let reason = garbled.to_string();
                    self.step(Event::Garbled {
                        executor,
                        reason: &reason,
                    });
                    break;
                }
            }
        }
        if let Some(peer) = self.outbox.peers.get(executor) {
            peer.end.publish_consumed();
        }
    }

    #[cold]
    fn take_from_neighbours(&mut self) -> Result<(), String> {
        let mut bytes = std::mem::take(&mut self.from_neighbour);
        for from in self.outbox.neighbours.indices() {
            for _ in 0..MESSAGES_PER_NEIGHBOUR {
                let received = self.outbox.neighbours.receive(from, &mut bytes);
                if !received.map_err(|e| format!("link to scheduler {from}: {e}"))? {
                    break;
                }
                let message: PeerMessage = postcard::from_bytes(&bytes).map_err(|e| {
                    let len = bytes.len();
                    format!("scheduler {from} sent {len} bytes that say nothing: {e}")
                })?;
                self.step(Event::Peer { message: &message });
            }
        }
        self.from_neighbour = bytes;
        Ok(())
    }

    fn take_from_node(&mut self) -> Result<(), String> {
        let mut bytes = std::mem::take(&mut self.from_node);
        for _ in 0..MESSAGES_FROM_NODE {
            let received = self
                .outbox
                .link()
                .receive(&mut bytes)
                .map_err(|e| format!("link: {e}"))?;
            if !received {
                break;
            }
            let message = postcard::from_bytes(&bytes).map_err(|e| {
                format!("the node sent {} bytes that say nothing: {e}", bytes.len())
            })?;
            self.obey(message)?;
        }
        self.from_node = bytes;
        Ok(())
    }

    fn obey(&mut self, message: ToScheduler<'_>) -> Result<(), String> {
        match message {
            ToScheduler::Request(request) => self.request(&request),
            ToScheduler::Control => self.take_control()?,
            ToScheduler::Cancel { session } => {
                self.step(Event::Cancel {
                    session: SessionId(session),
                });
            }
            ToScheduler::ResponseTaken { request, session } => self.step(Event::ResponseTaken {
                request: RequestId(request),
                session: SessionId(session),
            }),
            ToScheduler::SpawnFailed { app, slot, reason } => {
                let executor = ExecutorId {
                    app: AppId(app),
                    slot,
                };
                self.step(Event::SpawnFailed { executor, reason });
            }
            ToScheduler::Died {
                app,
                slot,
                incarnation,
                code,
                signal,
                detail,
            } => {
                let death = match (code, signal) {
                    (_, Some(signal)) => Death::Signaled(signal),
                    (Some(code), None) => Death::Exited(code),
                    (None, None) => Death::Unknown,
                };
                let executor = ExecutorId {
                    app: AppId(app),
                    slot,
                };
                self.died(Deceased {
                    executor,
                    incarnation,
                    death,
                    detail: detail.to_owned(),
                });
            }
            ToScheduler::Punched {
                app,
                slot,
                incarnation,
                extents,
            } => {
                if self.outbox.punched((app, slot), incarnation, &extents) {
                    self.bury_late(app, slot);
                }
            }
            ToScheduler::FailureWritten {
                app,
                ticket,
                offset_units,
                len_units,
                size_bytes,
            } => {
                let extent = Extent {
                    offset_units,
                    len_units,
                };
                self.step(Event::FailureWritten {
                    app: AppId(app),
                    ticket: Ticket(ticket),
                    body: Ingress { extent, size_bytes },
                });
            }
            ToScheduler::Written {
                app,
                ticket,
                outcome,
            } => {
                self.outbox.writes.answered();
                self.step(Event::Written {
                    app: AppId(app),
                    ticket: Ticket(ticket),
                    outcome: match outcome {
                        WrittenMessage::Done {
                            sequence,
                            is_repeated,
                        } => Written::Done {
                            sequence,
                            is_repeated,
                        },
                        WrittenMessage::Exists => Written::Exists,
                        WrittenMessage::NothingKept => Written::NothingKept,
                        WrittenMessage::Failed(why) => Written::Failed(why),
                    },
                });
            }
            ToScheduler::Recorded {
                app,
                ticket,
                outcome,
            } => self.step(Event::Recorded {
                app: AppId(app),
                ticket: Ticket(ticket),
                outcome,
            }),
            ToScheduler::Restore { bytes, more } => {
                self.restored.extend_from_slice(bytes);
                if !more {
                    self.restore()?;
                }
            }
            ToScheduler::Loaded { app, ticket, found } => self.step(Event::Loaded {
                app: AppId(app),
                ticket: Ticket(ticket),
                found: found.map(|found| FoundObject {
                    body: Ingress {
                        extent: Extent {
                            offset_units: found.offset_units,
                            len_units: found.len_units,
                        },
                        size_bytes: found.size_bytes,
                    },
                    session: SessionId(found.session),
                    group: found.group,
                }),
            }),
            ToScheduler::FailureNotWritten {
                app,
                ticket,
                reason,
            } => self.step(Event::FailureNotWritten {
                app: AppId(app),
                ticket: Ticket(ticket),
                reason,
            }),
            ToScheduler::Sweep { app, slot } => {
                let app = AppId(app);
                let executor = ExecutorId { app, slot };
                self.step(Event::Sweep { executor });
            }
            ToScheduler::Swept { app, slot } => {
                let app = AppId(app);
                let executor = ExecutorId { app, slot };
                self.step(Event::Swept { executor });
            }
            ToScheduler::Flush { app } => self.step(Event::Flush { app: AppId(app) }),
            ToScheduler::Remove { app } => self.step(Event::Remove { app: AppId(app) }),
            ToScheduler::Stats { token, app } => {
                let stats = self.stats(AppId(app));
                self.outbox.tell(&ToNode::Stats { token, stats });
            }
            ToScheduler::Retry {
                app,
                request,
                letter,
                has_caller,
                timeout_ns,
            } => self.step(Event::Retry(Retry {
                app: AppId(app),
                id: RequestId(request),
                letter,
                has_caller,
                timeout_ns,
            })),
            ToScheduler::Letters { token, app } => self.tell_letters(token, AppId(app)),
            ToScheduler::DropLetters { token, app, letter } => {
                self.drop_letters(token, AppId(app), letter);
            }
            ToScheduler::HandOver { app } => {
                self.step(Event::HandOver { app: AppId(app) });
                self.outbox.tell(&ToNode::HandedOver { app });
            }
            ToScheduler::LetterTaken { app, letter } => {
                let app = AppId(app);
                self.step(Event::LetterTaken { app, letter });
            }
            ToScheduler::Adopt { app, bytes, more } => {
                self.adopted.extend_from_slice(bytes);
                if !more {
                    self.adopt(AppId(app))?;
                }
            }
            ToScheduler::Shutdown => self.leaving = true,
        }
        Ok(())
    }

    fn request(&mut self, message: &RequestMessage<'_>) {
        let extent = Extent {
            offset_units: message.offset_units,
            len_units: message.len_units,
        };
        let region = self.outbox.ingress_region(AppId(message.app));
        let headers = message
            .headers
            .map(|(offset_units, len_units, size_bytes)| {
                let block = HeadersRef {
                    region,
                    offset_units,
                    size_bytes,
                };
                (
                    block,
                    Extent {
                        offset_units,
                        len_units,
                    },
                )
            });
        let destination = match message.destination {
            DestinationMessage::Entry => Destination::Entry,
            DestinationMessage::Function(function) => Destination::Function(function),
            DestinationMessage::Bucket { bucket, key, group } => {
                Destination::Bucket { bucket, key, group }
            }
            DestinationMessage::Retained { bucket, key } => Destination::Retained { bucket, key },
        };
        self.step(Event::Request(Request {
            app: AppId(message.app),
            id: RequestId(message.request),
            destination,
            body: Ingress {
                extent,
                size_bytes: message.size_bytes,
            },
            headers,
            session: message.session.map(SessionId),
            has_caller: message.has_caller,
            timeout_ns: message.timeout_ns,
            durable: message.durable.map(SessionId),
        }));
    }

    fn take_control(&mut self) -> Result<(), String> {
        let (message, mut descriptors) = control::receive(&self.control)?;
        match message {
            Control::Deploy { app, spec_bytes } => {
                let file = descriptors.pop().ok_or("an app came without its spec")?;
                let bytes = control::read_file(&file, spec_bytes)?;
                let spec: AppSpec =
                    postcard::from_bytes(&bytes).map_err(|e| format!("an app's spec: {e}"))?;
                self.outbox.deployed(AppId(app), &spec);
                self.step(Event::Deploy {
                    app: AppId(app),
                    spec: Box::new(spec),
                });
            }
            Control::Executor {
                app,
                slot,
                incarnation,
            } => {
                let [up, down] = <[OwnedFd; 2]>::try_from(descriptors)
                    .map_err(|got| format!("an executor came with {} descriptors", got.len()))?;
                let end = SchedulerEnd::map(up.as_fd(), down.as_fd(), slot, incarnation)
                    .map_err(|e| format!("an executor's control memory: {e}"))?;
                let executor = ExecutorId {
                    app: AppId(app),
                    slot,
                };
                self.outbox.peers.insert(executor, end, incarnation);
                self.step(Event::ExecutorStarted {
                    executor,
                    incarnation,
                });
            }
        }
        Ok(())
    }

    /// A death is handled after everything that the process had said, and after its memory is out
    /// of the node's hands. One whose control memory never came has said nothing; the core still
    /// waits for it, and hears of its start and its death at once.
    fn died(&mut self, dead: Deceased) {
        let (executor, incarnation) = (dead.executor, dead.incarnation);
        let current = self.outbox.peers.get(executor).map(|peer| peer.incarnation);
        if current != Some(incarnation) {
            self.step(Event::ExecutorStarted {
                executor,
                incarnation,
            });
            return self.bury(&dead);
        }
        self.step(Event::ExecutorDying {
            executor,
            incarnation,
        });
        self.drain(executor);
        let peer = self.outbox.peers.get(executor);
        if peer.is_some_and(|peer| peer.withdrawn.is_under_way()) {
            self.deaths.push(dead);
            return;
        }
        self.outbox.peers.remove(executor);
        self.bury(&dead);
    }

    fn bury(&mut self, dead: &Deceased) {
        self.step(Event::ExecutorDied {
            executor: dead.executor,
            incarnation: dead.incarnation,
            death: dead.death,
            detail: &dead.detail,
        });
    }

    /// The last of a process's memory is out of the node's hands: if it has died meanwhile, that is
    /// handled now.
    fn bury_late(&mut self, app: u16, slot: u16) {
        let is_it = |dead: &Deceased| (dead.executor.app.0, dead.executor.slot) == (app, slot);
        if let Some(at) = self.deaths.iter().position(is_it) {
            let dead = self.deaths.swap_remove(at);
            self.outbox.peers.remove(dead.executor);
            self.bury(&dead);
        }
    }

    /// Takes what a dead process left: at most a full ring. Somebody whom a function has started
    /// may still write there, and must not keep the loop.
    fn drain(&mut self, executor: ExecutorId) {
        for _ in 0..PUBLISH_SLOTS {
            let Some(peer) = self.outbox.peers.get(executor) else {
                return;
            };
            // Whoever is dead cannot be killed for what it said last.
            let Ok(Some(message)) = peer.end.receive(&mut self.buffer) else {
                return;
            };
            let event = Event::Message { executor, message };
            self.core.step(event, self.now_ns, &mut self.outbox);
        }
    }

    /// The last piece of a letter has come.
    fn adopt(&mut self, app: AppId) -> Result<(), String> {
        let bytes = std::mem::take(&mut self.adopted);
        let letter: HandedLetter =
            postcard::from_bytes(&bytes).map_err(|e| format!("a dead letter: {e}"))?;
        let letter = &letter;
        self.step(Event::Adopt { app, letter });
        Ok(())
    }

    /// The last piece of a durable session has come.
    fn restore(&mut self) -> Result<(), String> {
        let bytes = std::mem::take(&mut self.restored);
        let session: RestoredSession =
            postcard::from_bytes(&bytes).map_err(|e| format!("a durable session: {e}"))?;
        self.step(Event::Restore(&session));
        Ok(())
    }

    fn tell_letters(&mut self, token: u64, app: AppId) {
        let mut count = 0;
        for letter in self.core.dead_letters(app) {
            count += 1;
            let letter = LetterMessage {
                id: letter.id,
                function: letter.function,
                session: letter.session.0,
                failure: letter.failure.clone(),
                died_ns: letter.died_ns,
                input_count: letter.input_count,
                held_bytes: letter.held_bytes,
                has_inputs: letter.has_inputs,
            };
            self.outbox.tell(&ToNode::Letter { token, letter });
        }
        self.outbox.tell(&ToNode::LettersDone { token, count });
    }

    fn drop_letters(&mut self, token: u64, app: AppId, letter: Option<u64>) {
        let dropped = |core: &Core| {
            let stats = core.stats(app);
            stats.map_or(0, |stats| stats.dead_letters_dropped_total)
        };
        let before = dropped(&self.core);
        self.step(Event::DropLetters { app, letter });
        let count = dropped(&self.core) - before;
        self.outbox.tell(&ToNode::LettersDone { token, count });
    }

    fn stats(&mut self, app: AppId) -> Option<AppStatsMessage> {
        let stats = self.core.stats(app)?;
        Some(AppStatsMessage {
            sessions_open: stats.sessions_open,
            sessions_total: stats.sessions_total,
            objects_live: stats.objects_live,
            objects_total: stats.objects_total,
            gathered: stats.gathered,
            busy: u64::from(!self.core.is_quiet(app)),
            queued: stats.queued,
            running: stats.running,
            invocations_total: stats.invocations_total,
            continued_total: stats.continued_total,
            used_bytes: stats.used_bytes,
            executors: stats.executors,
            executors_idle: stats.executors_idle,
            error_events_total: stats.error_events_total,
            dropped_total: stats.dropped_total,
            early_total: stats.early_total,
            starved_total: stats.starved_total,
            reruns_total: stats.reruns_total,
            deaths_total: stats.deaths_total,
            dead_letters: stats.dead_letters,
            dead_letters_bytes: stats.dead_letters_bytes,
            dead_letters_total: stats.dead_letters_total,
            dead_letters_pushed_out_total: stats.dead_letters_pushed_out_total,
            dead_letters_retried_total: stats.dead_letters_retried_total,
            dead_letters_dropped_total: stats.dead_letters_dropped_total,
            missed_wakes_total: self.missed_wakes,
            executor_wakes_total: self.outbox.wakes.count,
            executor_wakes_ns_total: self.outbox.wakes.took_ns,
        })
    }
}

/// CLOCK_MONOTONIC in nanoseconds (a read without a system call where the kernel offers it).
fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    // Monotonic time is never negative, and 2^64 ns are 584 years.
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
