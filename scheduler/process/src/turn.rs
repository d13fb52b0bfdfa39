//! The loop: poll, step, flush, and sleep when nothing happens.
//!
//! One turn takes what the node said, up to `MESSAGES_PER_EXECUTOR` messages from every
//! executor that may speak, and the timers that are due; everything it caused goes out before the
//! next turn. No system call is made while there is work but the wakes of sleepers.

use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

use pheromone_core::Core;
use pheromone_core::event::{
    AppId, Death, Destination, Event, ExecutorId, Ingress, Request, RequestId, SessionId,
};
use pheromone_core::spec::AppSpec;
use pheromone_shm::control::SchedulerEnd;
use pheromone_shm::doorbell::Bell;
use pheromone_shm::limits::PUBLISH_SLOTS;
use pheromone_shm::link::LinkEnd;
use pheromone_shm::message::{Extent, FromExecutor, HeadersRef};
use pheromone_shm::wire::MessageBuffer;
use rustix::time::{ClockId, clock_gettime};
use std::os::fd::AsFd;

use crate::control;
use crate::outbox::Outbox;
use crate::protocol::{
    AppStatsMessage, Control, DestinationMessage, RequestMessage, SchedulerConfig, SpinMessage,
    ToNode, ToScheduler,
};

/// Messages taken from one executor per turn, so that a flooder cannot hold the loop.
const MESSAGES_PER_EXECUTOR: usize = 32;
/// Messages taken from the node per turn.
const MESSAGES_FROM_NODE: usize = 32;
/// Turns between two looks at executors that have nothing open, where there is work without end.
const SWEEP_BUSY_TURNS: u32 = 1 << 16;
/// Empty turns between two looks at executors that have nothing open, and at timers.
const SWEEP_TURNS: u32 = 512;
/// Empty turns between two looks at the clock, a power of two. A look costs some 25 ns, so it is
/// taken where nobody waits for it: after the work of a turn, and while there is none. What comes
/// in is stamped with the last look, so many polls back at most (half a microsecond).
const CLOCK_TURNS: u32 = 64;
const _: () = assert!(SWEEP_TURNS.is_multiple_of(CLOCK_TURNS));
/// How long the loop polls without work before it sleeps (adaptive).
const SPIN_BEFORE_SLEEP_NS: u64 = 50_000;
/// Longest sleep while a dispatch is open: an executor could withhold the wake.
const SLEEP_WITH_OPEN_DISPATCH: Duration = Duration::from_millis(10);
/// Longest sleep while there is any executor: one of them could have taken the node's wake.
const SLEEP_WITH_EXECUTORS: Duration = Duration::from_millis(100);

/// The scheduler process.
pub struct Scheduler {
    config: SchedulerConfig,
    core: Core,
    outbox: Outbox,
    bell: Bell,
    control: OwnedFd,
    buffer: Box<MessageBuffer>,
    from_node: Vec<u8>,
    now_ns: u64,
    last_work_ns: u64,
    empty_turns: u32,
    busy_turns: u32,
    missed_wakes: u64,
    leaving: bool,
}

impl Scheduler {
    /// Everything is mapped; nothing has been said yet.
    pub fn new(
        config: SchedulerConfig,
        core: Core,
        link: LinkEnd,
        bell: Bell,
        control: OwnedFd,
    ) -> Self {
        let spin_always = config.spin == SpinMessage::Always;
        let now_ns = monotonic_ns();
        Self {
            config,
            core,
            outbox: Outbox::new(link, spin_always),
            bell,
            control,
            buffer: Box::default(),
            from_node: Vec::with_capacity(4096),
            now_ns,
            last_work_ns: now_ns,
            empty_turns: 0,
            busy_turns: 0,
            missed_wakes: 0,
            leaving: false,
        }
    }

    /// Runs until the node says `Shutdown`.
    pub fn run(&mut self) -> ExitCode {
        self.outbox.tell(&ToNode::Ready);
        self.outbox.flush();
        loop {
            match self.turn() {
                Ok(true) => self.note_work(),
                Ok(false) => self.rest(),
                Err(reason) => {
                    eprintln!("pheromone: scheduler: {reason}");
                    return ExitCode::from(70);
                }
            }
            if self.leaving && !self.outbox.has_unsent() {
                return ExitCode::SUCCESS;
            }
        }
    }

    /// One turn. True when there was anything to do.
    fn turn(&mut self) -> Result<bool, String> {
        let mut worked = false;
        if self.outbox.link_has_message() {
            self.take_from_node()?;
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
            self.now_ns = monotonic_ns();
            self.pass_time();
        }
        Ok(worked)
    }

    /// Fires the timers that are due; whether there were any.
    fn pass_time(&mut self) -> bool {
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
        self.empty_turns = self.empty_turns.wrapping_add(1);
        if !self.empty_turns.is_multiple_of(CLOCK_TURNS) && !self.sleeps_at_once() {
            return;
        }
        self.now_ns = monotonic_ns();
        if !self.empty_turns.is_multiple_of(SWEEP_TURNS) && !self.sleeps_at_once() {
            return;
        }
        if self.sweep() {
            self.note_work();
            return;
        }
        let idle_ns = self.now_ns.saturating_sub(self.last_work_ns);
        if !self.config.never_sleeps && (self.sleeps_at_once() || idle_ns >= SPIN_BEFORE_SLEEP_NS) {
            self.sleep();
        }
    }

    /// With one core, nobody spins.
    fn sleeps_at_once(&self) -> bool {
        self.config.spin == SpinMessage::Never
    }

    /// Timers, releases that found no room, and executors with nothing open (which must have
    /// nothing to say; the core judges them if they do). True when there was anything.
    fn sweep(&mut self) -> bool {
        let mut worked = self.pass_time();
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
        if worked || self.outbox.has_unsent() {
            self.outbox.flush();
        }
        worked
    }

    fn sleep(&mut self) {
        let open = self.outbox.peers.any_active();
        let mut timeout = self
            .core
            .next_timer_ns()
            .map(|due| Duration::from_nanos(due.saturating_sub(self.now_ns)));
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
        let woken = self.bell.sleep(
            || outbox.link_has_message() || outbox.peers.any_active_message(),
            timeout,
        );
        if !woken && (self.outbox.link_has_message() || self.outbox.peers.any_active_message()) {
            self.missed_wakes += 1;
        }
        self.now_ns = monotonic_ns();
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
            match peer.end.receive(&mut self.buffer) {
                Ok(Some(message)) => {
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
                self.died(executor, incarnation, death, detail);
            }
            ToScheduler::Remove { app } => self.step(Event::Remove { app: AppId(app) }),
            ToScheduler::Stats { token, app } => {
                let stats = self.stats(AppId(app));
                self.outbox.tell(&ToNode::Stats { token, stats });
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

    /// A death is handled after everything that the process had said. One whose control memory
    /// never came has said nothing; the core still waits for it, and hears of its start and its
    /// death at once.
    fn died(&mut self, executor: ExecutorId, incarnation: u32, death: Death, detail: &str) {
        let current = self.outbox.peers.get(executor).map(|peer| peer.incarnation);
        if current == Some(incarnation) {
            self.step(Event::ExecutorDying {
                executor,
                incarnation,
            });
            self.drain(executor);
            self.outbox.peers.remove(executor);
        } else {
            self.step(Event::ExecutorStarted {
                executor,
                incarnation,
            });
        }
        self.step(Event::ExecutorDied {
            executor,
            incarnation,
            death,
            detail,
        });
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

    fn stats(&mut self, app: AppId) -> Option<AppStatsMessage> {
        let stats = self.core.stats(app)?;
        Some(AppStatsMessage {
            sessions_open: stats.sessions_open,
            sessions_total: stats.sessions_total,
            objects_live: stats.objects_live,
            objects_total: stats.objects_total,
            queued: stats.queued,
            running: stats.running,
            invocations_total: stats.invocations_total,
            used_bytes: stats.used_bytes,
            executors: stats.executors,
            executors_idle: stats.executors_idle,
            error_events_total: stats.error_events_total,
            deaths_total: stats.deaths_total,
            missed_wakes_total: self.missed_wakes,
        })
    }
}

/// CLOCK_MONOTONIC in nanoseconds (a read without a system call where the kernel offers it).
fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    // Monotonic time is never negative, and 2^64 ns are 584 years.
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
