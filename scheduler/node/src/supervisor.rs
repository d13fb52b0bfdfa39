//! The thread that owns processes: it starts them, hears of their deaths, and reads their output.
//!
//! It lives as long as the node, because scheduler and zygote ask to die with the *thread* that
//! started them. It decides nothing: the scheduler says what to start and kill, and is told what
//! came of it. It never waits for a process except at the node's end.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use pheromone_executor::protocol::{
    FromZygote, OutputHead, PACKET_BYTES_MAX, PACKET_DESCRIPTORS_MAX, ToZygote,
};
use pheromone_shm::control::ControlFiles;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::pipe::PipeFlags;
use rustix::process::Signal;

use crate::app::Version;
use crate::child::{Child, Exit};
use crate::error::NodeError;
use crate::gateway::{Command, GatewayHandle};
use crate::output::{Lines, Outlet, Output, OutputKind, Records, Tail};
use crate::packet::{self, Sent};
use crate::plan::CorePlan;
use crate::status::{Broken, ExecutorState, ExecutorStatus, Health, Roster};

/// How long the zygote's word about a dead child is waited for before its status is unknown.
const EXIT_REPORT_WAIT: Duration = Duration::from_secs(1);
/// How long scheduler and zygote have to leave in order before they are killed.
const LEAVE_WAIT: Duration = Duration::from_secs(1);
/// Bytes taken from a pipe at a time, so that no executor's output can hold the others up.
const PIPE_BYTES: usize = 16 * 1024;
/// What an executor can print before its lines are dropped, if the node does not come to read them;
/// where the machine allows so much.
const PIPE_ROOM_BYTES: usize = 256 * 1024;
/// Bytes read of what a dead process left in a pipe, or a failed one has printed: as large as a
/// pipe gets. A process that a function has started may go on writing, and must not keep us.
const LEFT_BYTES_MAX: usize = 1 << 20;

/// What the supervisor is told.
pub enum Order {
    /// An app has come; its executors will be asked for.
    AddApp {
        /// Which.
        version: Arc<Version>,
        /// What executors are told of it, encoded, in a memfd.
        program: OwnedFd,
        /// Bytes of it.
        program_bytes: u64,
        /// Read-only descriptors of its regions.
        regions: Vec<OwnedFd>,
    },
    /// Start a process.
    Spawn {
        /// Whose.
        app: u16,
        /// Slot.
        slot: u16,
        /// Number among the executors' cores.
        core: u16,
    },
    /// Kill a process.
    Kill {
        /// Whose.
        app: u16,
        /// Slot.
        slot: u16,
        /// Which process of the slot.
        incarnation: u32,
        /// Why.
        why: String,
    },
    /// Answer by [`Command::Tail`] with an executor's last lines.
    Tail {
        /// Whose.
        app: u16,
        /// Slot.
        slot: u16,
        /// The invocation of interest.
        invocation: u64,
        /// Comes back.
        request: u64,
    },
    /// An app has gone.
    Forget {
        /// Which.
        app: u16,
    },
    /// End everything and leave. Whatever had to be killed is an error.
    Stop {
        /// Told when all is done.
        done: Sender<Result<(), NodeError>>,
    },
}

/// How other threads talk to the supervisor.
#[derive(Clone)]
pub struct SupervisorHandle {
    orders: Sender<Order>,
    wake: Arc<OwnedFd>,
}

impl SupervisorHandle {
    /// A handle, and what the supervisor takes its orders from.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new() -> io::Result<(Self, Inbox)> {
        let (orders, receiver) = crossbeam_channel::unbounded();
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = Arc::new(rustix::event::eventfd(0, flags)?);
        let inbox = Inbox {
            orders: receiver,
            wake: Arc::clone(&wake),
        };
        Ok((Self { orders, wake }, inbox))
    }

    /// Gives an order. Where the supervisor has left, nothing is left to order.
    pub fn tell(&self, order: Order) {
        if self.orders.send(order).is_ok() {
            // The counter cannot overflow: the reader resets it, and it takes 2^64 orders.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }
}

/// Where orders come in.
pub struct Inbox {
    orders: Receiver<Order>,
    wake: Arc<OwnedFd>,
}

/// What the supervisor is made of.
pub struct Setup {
    /// The program to be executed as scheduler and zygote.
    pub program: PathBuf,
    /// The scheduler's configuration as its argument.
    pub scheduler_argument: String,
    /// The scheduler's descriptors: control socket, link, bell.
    pub scheduler_descriptors: [OwnedFd; 3],
    /// Executors' view of the bell.
    pub node_page: OwnedFd,
    /// Where executors go.
    pub plan: Arc<CorePlan>,
    /// Orders.
    pub inbox: Inbox,
    /// The gateway.
    pub gateway: GatewayHandle,
    /// Lines and notices.
    pub outlet: Outlet,
    /// For others to look at.
    pub roster: Roster,
    /// Set when a process dies that must not.
    pub health: Health,
    /// Told once: the zygote is ready, or why there is no node.
    pub started: Sender<Result<(), NodeError>>,
}

/// Starts both processes and supervises until told to stop.
pub fn run(setup: Setup) {
    let started = setup.started.clone();
    match Supervisor::start(setup) {
        Ok(supervisor) => supervisor.serve(),
        // Whoever waits for the start has the error; if nobody does, nobody minds.
        Err(error) => drop(started.send(Err(error))),
    }
}

/// One executor process.
struct Process {
    incarnation: u32,
    pid: Option<i32>,
    pidfd: Option<OwnedFd>,
    /// Until the scheduler has them.
    control: Option<ControlFiles>,
    tagged: OwnedFd,
    raw: OwnedFd,
    records: Records,
    lines: Lines,
    /// Why it was killed, if it was.
    killed_for: Option<String>,
    /// As the zygote says.
    exit: Option<Exit>,
    dead_since: Option<Instant>,
}

impl Process {
    fn pipe(&self, stream: Stream) -> &OwnedFd {
        match stream {
            Stream::Tagged => &self.tagged,
            Stream::Raw => &self.raw,
        }
    }

    /// Cuts what was read into lines, each with what the executor says of it.
    fn cut(&mut self, stream: Stream, bytes: &[u8]) -> Vec<(Option<OutputHead>, String)> {
        let mut lines = Vec::new();
        match stream {
            Stream::Tagged => self
                .records
                .take(bytes, |head, text| lines.push((head, text.to_owned()))),
            Stream::Raw => self
                .lines
                .take(bytes, |text| lines.push((None, text.to_owned()))),
        }
        lines
    }

    /// The lines that have no end, and will get none.
    fn cut_rest(&mut self) -> Vec<String> {
        let mut rest = Vec::new();
        self.records.finish(|text| rest.push(text.to_owned()));
        self.lines.finish(|text| rest.push(text.to_owned()));
        rest
    }
}

/// The two ways by which a process's output comes. Both are pipes: nothing that a function can
/// write to takes descriptors, of which one that is slow to close would stop this thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    /// Records of the executor's runtime.
    Tagged,
    /// What is written to standard output and error past the runtime.
    Raw,
}

type Key = (u16, u16);

struct Supervisor {
    epoll: OwnedFd,
    inbox: Inbox,
    gateway: GatewayHandle,
    outlet: Outlet,
    roster: Roster,
    health: Health,
    plan: Arc<CorePlan>,
    node_page: OwnedFd,
    scheduler: Child,
    zygote: Child,
    /// `None` once it is closed.
    zygote_socket: Option<OwnedFd>,
    to_zygote: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    apps: HashMap<u16, Arc<Version>>,
    processes: HashMap<Key, Process>,
    incarnations: HashMap<Key, u32>,
    tails: HashMap<Key, Tail>,
    started: Option<Sender<Result<(), NodeError>>>,
    stop: Option<Sender<Result<(), NodeError>>>,
}

/// What a readiness is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Orders,
    Zygote,
    ZygoteDeath,
    SchedulerDeath,
    Death(Key),
    Output(Key, Stream),
}

impl Source {
    fn encode(self) -> u64 {
        let (kind, (app, slot)) = match self {
            Self::Orders => (0, (0, 0)),
            Self::Zygote => (1, (0, 0)),
            Self::ZygoteDeath => (2, (0, 0)),
            Self::SchedulerDeath => (3, (0, 0)),
            Self::Death(key) => (4, key),
            Self::Output(key, Stream::Tagged) => (5, key),
            Self::Output(key, Stream::Raw) => (6, key),
        };
        kind << 32 | u64::from(app) << 16 | u64::from(slot)
    }

    fn decode(word: u64) -> Option<Self> {
        let key = ((word >> 16) as u16, word as u16);
        Some(match word >> 32 {
            0 => Self::Orders,
            1 => Self::Zygote,
            2 => Self::ZygoteDeath,
            3 => Self::SchedulerDeath,
            4 => Self::Death(key),
            5 => Self::Output(key, Stream::Tagged),
            6 => Self::Output(key, Stream::Raw),
            _ => return None,
        })
    }
}

impl Supervisor {
    fn start(setup: Setup) -> Result<Self, NodeError> {
        let start_error = |process: &'static str| {
            let program = setup.program.clone();
            move |error: io::Error| NodeError::Start {
                process,
                reason: format!("cannot execute `{}`: {error}", program.display()),
            }
        };
        let [control, link, bell] = &setup.scheduler_descriptors;
        let scheduler = Child::start(
            &setup.program,
            "pheromone: scheduler",
            &["__scheduler", &setup.scheduler_argument],
            &[control, link, bell],
        )
        .map_err(start_error("scheduler"))?;
        let (socket, theirs) = packet::pair().map_err(NodeError::system("create a socket"))?;
        let zygote = Child::start(
            &setup.program,
            "pheromone: zygote",
            &["__zygote"],
            &[&theirs],
        )
        .map_err(start_error("zygote"));
        let zygote = zygote.inspect_err(|_| {
            scheduler.kill();
            scheduler.is_dead_within(LEAVE_WAIT);
            scheduler.reap();
        })?;
        let supervisor = Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)
                .map_err(io::Error::from)
                .map_err(NodeError::system("create an epoll"))?,
            inbox: setup.inbox,
            gateway: setup.gateway,
            outlet: setup.outlet,
            roster: setup.roster,
            health: setup.health,
            plan: setup.plan,
            node_page: setup.node_page,
            scheduler,
            zygote,
            zygote_socket: Some(socket),
            to_zygote: VecDeque::new(),
            apps: HashMap::new(),
            processes: HashMap::new(),
            incarnations: HashMap::new(),
            tails: HashMap::new(),
            started: Some(setup.started),
            stop: None,
        };
        supervisor
            .watch_all()
            .map_err(NodeError::system("watch the node's processes"))?;
        // Only now, since children inherit it: executors are placed one by one.
        crate::pin_thread(&supervisor.plan.io);
        Ok(supervisor)
    }

    fn watch_all(&self) -> io::Result<()> {
        self.watch(self.inbox.wake.as_fd(), Source::Orders)?;
        if let Some(socket) = &self.zygote_socket {
            self.watch(socket.as_fd(), Source::Zygote)?;
        }
        self.watch(self.zygote.pidfd().as_fd(), Source::ZygoteDeath)?;
        self.watch(self.scheduler.pidfd().as_fd(), Source::SchedulerDeath)
    }

    fn watch(&self, descriptor: BorrowedFd<'_>, source: Source) -> io::Result<()> {
        let data = EventData::new_u64(source.encode());
        Ok(epoll::add(&self.epoll, descriptor, data, EventFlags::IN)?)
    }

    fn unwatch(&self, descriptor: BorrowedFd<'_>) {
        // It is watched, or was never.
        let _ = epoll::delete(&self.epoll, descriptor);
    }

    fn serve(mut self) {
        let mut events = Vec::with_capacity(64);
        while self.stop.is_none() {
            events.clear();
            let timeout = self.timeout();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                timeout.as_ref(),
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // Only a bug can make waiting fail; without it deaths would go unheard.
                Err(error) => {
                    self.break_node(Broken::Zygote(format!("supervision failed: {error}")));
                    break;
                }
            }
            for event in &events {
                if let Some(source) = Source::decode(event.data.u64()) {
                    self.ready(source);
                }
            }
            self.flush_to_zygote();
            self.give_up_on_reports();
        }
        self.end();
    }

    /// Until the next report is overdue, or the zygote's full socket is tried again.
    fn timeout(&self) -> Option<Timespec> {
        let now = Instant::now();
        let report = self
            .processes
            .values()
            .filter_map(|process| process.dead_since)
            .map(|since| (since + EXIT_REPORT_WAIT).saturating_duration_since(now))
            .min();
        let retry = (!self.to_zygote.is_empty()).then_some(Duration::from_millis(1));
        let left = match (report, retry) {
            (Some(a), Some(b)) => a.min(b),
            (one, other) => one.or(other)?,
        };
        Some(Timespec {
            tv_sec: left.as_secs() as i64,
            // Rounded up, so that what is due is due.
            tv_nsec: i64::from(left.subsec_nanos()).min(999_000_000) + 999_999,
        })
    }

    fn ready(&mut self, source: Source) {
        match source {
            Source::Orders => self.take_orders(),
            Source::Zygote => self.hear_zygote(),
            Source::ZygoteDeath => self.zygote_died(),
            Source::SchedulerDeath => self.scheduler_died(),
            Source::Death(key) => self.process_died(key),
            Source::Output(key, stream) => self.read(key, stream, PIPE_BYTES),
        }
    }

    fn take_orders(&mut self) {
        let mut count = [0; 8];
        // Whatever it says, the channel is the truth.
        let _ = rustix::io::read(&self.inbox.wake, &mut count);
        while let Ok(order) = self.inbox.orders.try_recv() {
            match order {
                Order::AddApp {
                    version,
                    program,
                    program_bytes,
                    regions,
                } => self.add_app(version, program, program_bytes, regions),
                Order::Spawn { app, slot, core } => {
                    if let Err(reason) = self.spawn((app, slot), core) {
                        self.spawn_failed((app, slot), reason);
                    }
                }
                Order::Kill {
                    app,
                    slot,
                    incarnation,
                    why,
                } => self.kill((app, slot), incarnation, why),
                Order::Tail {
                    app,
                    slot,
                    invocation,
                    request,
                } => self.tell_tail((app, slot), invocation, request),
                Order::Forget { app } => self.forget(app),
                Order::Stop { done } => self.stop = Some(done),
            }
        }
    }

    fn add_app(
        &mut self,
        version: Arc<Version>,
        program: OwnedFd,
        program_bytes: u64,
        regions: Vec<OwnedFd>,
    ) {
        let app = version.id;
        self.apps.insert(app, version);
        self.tell_zygote(&ToZygote::App { app, program_bytes }, vec![program]);
        let mut regions = regions.into_iter();
        let mut first = 0_u16;
        loop {
            let chunk: Vec<OwnedFd> = regions.by_ref().take(PACKET_DESCRIPTORS_MAX).collect();
            if chunk.is_empty() {
                break;
            }
            let next = first + chunk.len() as u16;
            self.tell_zygote(&ToZygote::Regions { app, first }, chunk);
            first = next;
        }
    }

    fn spawn(&mut self, key: Key, core: u16) -> Result<(), String> {
        let (app, slot) = key;
        if let Some(broken) = self.health.broken() {
            return Err(broken.error().to_string());
        }
        let version = self.apps.get(&app).ok_or("the app is gone")?;
        if self.processes.contains_key(&key) {
            return Err(format!("slot {slot} has a process already"));
        }
        let refused = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        let control = ControlFiles::create(&format!("pheromone-{}-{slot}", version.name()))
            .map_err(refused("control memory"))?;
        let (tagged, their_tagged) = tagged_pipe().map_err(refused("output pipe"))?;
        let (raw, their_raw) = raw_pipe().map_err(refused("output pipe"))?;
        let clone = |file: BorrowedFd<'_>| file.try_clone_to_owned().map_err(refused("descriptor"));
        let region = version.regions.file(slot).ok_or("the slot has no region")?;
        let descriptors = vec![
            clone(region)?,
            clone(control.up.as_fd())?,
            pheromone_shm::file::reopen_read_only(control.down.as_fd())
                .map_err(refused("read-only descriptor (is /proc mounted?)"))?,
            clone(self.node_page.as_fd())?,
            their_tagged,
            their_raw,
        ];
        self.watch(tagged.as_fd(), Source::Output(key, Stream::Tagged))
            .and_then(|()| self.watch(raw.as_fd(), Source::Output(key, Stream::Raw)))
            .map_err(refused("epoll"))?;
        let counter = self.incarnations.entry(key).or_insert(0);
        *counter += 1;
        let incarnation = *counter;
        self.tails.entry(key).or_default().new_process();
        let process = Process {
            incarnation,
            pid: None,
            pidfd: None,
            control: Some(control),
            tagged,
            raw,
            records: Records::default(),
            lines: Lines::default(),
            killed_for: None,
            exit: None,
            dead_since: None,
        };
        self.processes.insert(key, process);
        self.roster.set(
            app,
            ExecutorStatus {
                slot,
                incarnation,
                pid: None,
                state: ExecutorState::Starting,
            },
        );
        let cpu = self.plan.executor_cpu(core);
        self.tell_zygote(
            &ToZygote::Spawn {
                app,
                slot,
                incarnation,
                cpu,
            },
            descriptors,
        );
        Ok(())
    }

    fn spawn_failed(&mut self, (app, slot): Key, reason: String) {
        let name = self.name(app);
        self.outlet.notice(
            &name,
            Some(slot),
            format!("no executor for slot {slot}: {reason}"),
        );
        self.gateway
            .tell(Command::SpawnFailed { app, slot, reason });
    }

    fn kill(&mut self, key: Key, incarnation: u32, why: String) {
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        if process.incarnation != incarnation {
            return;
        }
        if let Some(pidfd) = &process.pidfd {
            // An error means that it is dead already.
            let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
        }
        // One without a pidfd is killed when it has one.
        process.killed_for.get_or_insert(why);
        self.roster.set_state(key.0, key.1, ExecutorState::Dying);
    }

    fn tell_tail(&mut self, key: Key, invocation: u64, request: u64) {
        self.read_all(key);
        let lines = self
            .tails
            .get(&key)
            .map(|tail| tail.of(invocation))
            .unwrap_or_default();
        self.gateway.tell(Command::Tail { request, lines });
    }

    fn forget(&mut self, app: u16) {
        let left: Vec<Key> = self
            .processes
            .keys()
            .copied()
            .filter(|key| key.0 == app)
            .collect();
        for key in left {
            // The scheduler says that nobody is left; whoever is, is stuck.
            if let Some(process) = self.processes.get(&key) {
                self.kill(key, process.incarnation, "its app is gone".into());
            }
        }
        self.tell_zygote(&ToZygote::Forget { app }, Vec::new());
        self.apps.remove(&app);
        self.incarnations.retain(|key, _| key.0 != app);
        self.tails.retain(|key, _| key.0 != app);
    }

    fn tell_zygote(&mut self, message: &ToZygote, descriptors: Vec<OwnedFd>) {
        let bytes = postcard::to_allocvec(message).expect("messages of numbers always encode");
        debug_assert!(bytes.len() <= PACKET_BYTES_MAX);
        self.to_zygote.push_back((bytes, descriptors));
        self.flush_to_zygote();
    }

    fn flush_to_zygote(&mut self) {
        let Some(socket) = &self.zygote_socket else {
            self.to_zygote.clear();
            return;
        };
        while let Some((bytes, descriptors)) = self.to_zygote.front() {
            let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
            match packet::send(socket, bytes, &borrowed) {
                Ok(Sent::Whole) => drop(self.to_zygote.pop_front()),
                Ok(Sent::NotNow) => return,
                // Its death is heard of through its pidfd; there is nobody to tell until then.
                Ok(Sent::NoPeer) => return self.to_zygote.clear(),
                Err(error) => {
                    return self.give_up_on_zygote(&format!("it cannot be spoken to: {error}"));
                }
            }
        }
    }

    fn hear_zygote(&mut self) {
        let mut bytes = vec![0; PACKET_BYTES_MAX];
        while let Some(socket) = &self.zygote_socket {
            match packet::receive(socket, &mut bytes) {
                Ok(None) => return,
                Ok(Some(packet)) if packet.len > 0 => {
                    match postcard::from_bytes(&bytes[..packet.len]) {
                        Ok(message) => self.take_word(message, packet.descriptors),
                        Err(error) => {
                            let how = format!("it sent what is no message: {error}");
                            return self.give_up_on_zygote(&how);
                        }
                    }
                }
                // The end, or an error: its death follows.
                Ok(Some(_)) | Err(_) => {
                    self.unwatch(socket.as_fd());
                    self.zygote_socket = None;
                    return;
                }
            }
        }
    }

    /// The zygote is ours; where it says what makes no sense, or cannot be spoken to, that is a
    /// bug nobody can go on with.
    fn give_up_on_zygote(&mut self, how: &str) {
        self.to_zygote.clear();
        self.zygote_socket = None;
        self.break_node(Broken::Zygote(format!("killed, since {how}")));
    }

    fn take_word(&mut self, message: FromZygote, mut descriptors: Vec<OwnedFd>) {
        match message {
            FromZygote::Ready => {
                if let Some(started) = self.started.take() {
                    // Whoever has stopped waiting stops the node too.
                    let _ = started.send(Ok(()));
                }
            }
            FromZygote::Spawned {
                app,
                slot,
                incarnation,
                pid,
            } => match descriptors.pop() {
                Some(pidfd) => self.spawned((app, slot), incarnation, pid, pidfd),
                // The kernel leaves out what finds no room in this process's table of descriptors.
                None => self.give_up_on_zygote(
                    "a process came without its descriptor: the node's limit of open files is \
                     probably reached (ulimit -n)",
                ),
            },
            FromZygote::SpawnFailed {
                app,
                slot,
                incarnation,
                reason,
            } => {
                if self.is_current((app, slot), incarnation) {
                    self.drop_process((app, slot));
                    self.spawn_failed((app, slot), reason);
                }
            }
            FromZygote::Exited {
                app,
                slot,
                incarnation,
                code,
                signal,
            } => {
                if self.is_current((app, slot), incarnation) {
                    self.exited((app, slot), Exit { code, signal });
                }
            }
        }
    }

    fn is_current(&self, key: Key, incarnation: u32) -> bool {
        self.processes
            .get(&key)
            .is_some_and(|process| process.incarnation == incarnation)
    }

    fn spawned(&mut self, key: Key, incarnation: u32, pid: i32, pidfd: OwnedFd) {
        let (app, slot) = key;
        let watched = self.watch(pidfd.as_fd(), Source::Death(key));
        let known = self
            .processes
            .get_mut(&key)
            .filter(|it| it.incarnation == incarnation);
        let Some(process) = known else {
            // Nobody waits for it any more, so it must not stay.
            let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
            return;
        };
        process.pid = Some(pid);
        if let Err(error) = watched {
            // Nobody would hear of its death, so it must not live. The scheduler, which does not
            // know it yet, hears of its end when the zygote has reported that.
            let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
            let why = format!("it could not be watched: {error}");
            process.killed_for.get_or_insert(why);
            return;
        }
        let control = process.control.take();
        let state = if process.killed_for.is_some() {
            let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
            ExecutorState::Dying
        } else {
            ExecutorState::Running
        };
        process.pidfd = Some(pidfd);
        self.roster.set(
            app,
            ExecutorStatus {
                slot,
                incarnation,
                pid: Some(pid),
                state,
            },
        );
        if let Some(ControlFiles { up, down }) = control {
            self.gateway.tell(Command::Executor {
                app,
                slot,
                incarnation,
                up,
                down,
            });
        }
    }

    fn exited(&mut self, key: Key, exit: Exit) {
        if let Some(process) = self.processes.get_mut(&key) {
            process.exit = Some(exit);
            self.bury(key);
        }
    }

    /// Its pidfd is readable. A readiness of the slot's process before would be a mistake, so the
    /// pidfd is asked again.
    fn process_died(&mut self, key: Key) {
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        let Some(pidfd) = &process.pidfd else { return };
        if process.dead_since.is_some() || !is_readable(pidfd.as_fd()) {
            return;
        }
        process.dead_since = Some(Instant::now());
        // Level-triggered: it would be ready for ever. Watched by this epoll, so it can be deleted.
        let _ = epoll::delete(&self.epoll, pidfd);
        self.roster.set_state(key.0, key.1, ExecutorState::Dying);
        if self.zygote_socket.is_none() {
            self.bury(key);
        }
    }

    fn give_up_on_reports(&mut self) {
        let now = Instant::now();
        let overdue: Vec<Key> = self
            .processes
            .iter()
            .filter(|(_, process)| {
                process
                    .dead_since
                    .is_some_and(|since| now.duration_since(since) >= EXIT_REPORT_WAIT)
            })
            .map(|(key, _)| *key)
            .collect();
        for key in overdue {
            self.bury(key);
        }
    }

    /// A process is dead and its status known, or given up on: read what it said last, then tell.
    fn bury(&mut self, key: Key) {
        self.read_all(key);
        let Some(mut process) = self.drop_process(key) else {
            return;
        };
        let (app, slot) = key;
        for line in process.cut_rest() {
            self.line(key, None, &line);
        }
        let exit = process.exit.unwrap_or(Exit::UNKNOWN);
        let crash = self
            .tails
            .get(&key)
            .map(|tail| tail.crash().to_owned())
            .unwrap_or_default();
        let detail = match process.killed_for {
            Some(why) if crash.is_empty() => why,
            _ => crash,
        };
        self.announce_death(key, process.incarnation, process.pid, exit, &detail);
        self.zygote.reap_orphans();
        self.gateway.tell(Command::Died {
            app,
            slot,
            incarnation: process.incarnation,
            exit,
            detail,
        });
    }

    /// A death in order (told to leave, or with its app) is no news.
    fn announce_death(
        &self,
        (app, slot): Key,
        incarnation: u32,
        pid: Option<i32>,
        exit: Exit,
        detail: &str,
    ) {
        let leaving = self
            .apps
            .get(&app)
            .is_none_or(|version| version.is_leaving());
        if exit.code == Some(0) || leaving || self.health.broken().is_some() {
            return;
        }
        let who = pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
        let why = if detail.is_empty() {
            String::new()
        } else {
            format!(": {detail}")
        };
        let how = exit.describe();
        self.outlet.notice(
            &self.name(app),
            Some(slot),
            format!("executor {slot} (process {incarnation} of its slot{who}) died: {how}{why}"),
        );
    }

    fn drop_process(&mut self, key: Key) -> Option<Process> {
        let process = self.processes.remove(&key)?;
        // Before the descriptors close: a copy of theirs in another process would keep them ready.
        self.unwatch(process.tagged.as_fd());
        self.unwatch(process.raw.as_fd());
        if let Some(pidfd) = &process.pidfd {
            self.unwatch(pidfd.as_fd());
        }
        self.roster.remove(key.0, key.1);
        Some(process)
    }

    /// Reads what a process has printed until now.
    fn read_all(&mut self, key: Key) {
        self.read(key, Stream::Tagged, LEFT_BYTES_MAX);
        self.read(key, Stream::Raw, LEFT_BYTES_MAX);
    }

    /// Reads what is in a pipe, at most about so many bytes.
    fn read(&mut self, key: Key, stream: Stream, most: usize) {
        let mut buffer = [0; PIPE_BYTES];
        let mut taken = 0;
        while taken < most {
            let Some(process) = self.processes.get_mut(&key) else {
                return;
            };
            match rustix::io::read(process.pipe(stream), &mut buffer) {
                // Nobody holds the other end. Level-triggered, it would be ready for ever.
                Ok(0) => {
                    let _ = epoll::delete(&self.epoll, process.pipe(stream));
                    return;
                }
                Ok(read) => {
                    taken += read;
                    for (said, text) in process.cut(stream, &buffer[..read]) {
                        self.line(key, said, &text);
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    /// One line, with what the executor says of it.
    fn line(&mut self, key: Key, said: Option<OutputHead>, text: &str) {
        let kind = said.map_or(OutputKind::Raw, |head| head.kind.into());
        let (session, invocation) = said.map_or((0, 0), |head| (head.session, head.invocation));
        self.tails
            .entry(key)
            .or_default()
            .keep(invocation, kind, text);
        let Some(version) = self.apps.get(&key.0) else {
            return;
        };
        self.outlet.put(Output {
            app: version.name().to_owned(),
            function: said.and_then(|head| {
                version
                    .function_names
                    .get(usize::from(head.function))
                    .cloned()
            }),
            session,
            invocation,
            slot: Some(key.1),
            kind,
            text: text.to_owned(),
            dropped: said.map_or(0, |head| head.dropped.into()),
        });
    }

    fn name(&self, app: u16) -> String {
        self.apps
            .get(&app)
            .map(|version| version.name().to_owned())
            .unwrap_or_default()
    }

    fn zygote_died(&mut self) {
        self.unwatch(self.zygote.pidfd().as_fd());
        // Not yet reaped, so its number still names its group.
        self.zygote.kill_group();
        let how = self.zygote.reap().describe();
        self.break_node(Broken::Zygote(how));
    }

    fn scheduler_died(&mut self) {
        self.unwatch(self.scheduler.pidfd().as_fd());
        let how = self.scheduler.reap().describe();
        self.break_node(Broken::Scheduler(how));
    }

    /// The node is of no further use: everything that runs is killed, every waiter told.
    fn break_node(&mut self, why: Broken) {
        self.health.give_up(why.clone());
        self.scheduler.kill();
        if !self.zygote.is_dead_within(Duration::ZERO) {
            self.zygote.kill_group();
            self.zygote.kill();
        }
        if let Some(started) = self.started.take() {
            let (process, reason) = match &why {
                Broken::Zygote(how) => ("zygote", how.clone()),
                Broken::Scheduler(how) => ("scheduler", how.clone()),
                Broken::Stopped => ("node", "it was stopped".into()),
            };
            let _ = started.send(Err(NodeError::Start { process, reason }));
        }
        self.gateway.tell(Command::Broken);
    }

    /// Ends what is left, in order: executors with the scheduler's last word are gone already, then
    /// the scheduler, then the zygote and whatever hides in its group.
    fn end(mut self) {
        let mut result = Ok(());
        if !self.scheduler.is_dead_within(LEAVE_WAIT) {
            self.scheduler.kill();
            result = Err(killed("the scheduler"));
        }
        self.zygote_socket = None;
        if !self.zygote.is_dead_within(LEAVE_WAIT) {
            self.zygote.kill();
            result = Err(killed("the zygote"));
        }
        let keys: Vec<Key> = self.processes.keys().copied().collect();
        for key in keys {
            if let Some(pidfd) = self.processes.get(&key).and_then(|it| it.pidfd.as_ref()) {
                let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
            }
            self.read_all(key);
            self.drop_process(key);
        }
        for child in [&self.scheduler, &self.zygote] {
            child.is_dead_within(LEAVE_WAIT);
        }
        // Not yet reaped, so its number still names its group.
        self.zygote.kill_group();
        self.scheduler.reap();
        self.reap_all();
        if let Some(done) = self.stop.take() {
            // Whoever has stopped waiting does not want to know.
            let _ = done.send(result);
        }
    }

    /// Whoever was in the zygote's group has been killed; they become ours to reap one by one.
    fn reap_all(&self) {
        let until = Instant::now() + LEAVE_WAIT;
        while Instant::now() < until {
            self.zygote.reap_orphans();
            if !self.zygote.has_group() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn killed(what: &str) -> NodeError {
    NodeError::Killed {
        what: what.to_owned(),
        after: LEAVE_WAIT,
    }
}

/// Our end of a pipe for records, and the executor's. Neither waits.
fn tagged_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    // Where so much is not allowed, lines are dropped, and counted, a little sooner.
    let _ = rustix::pipe::fcntl_setpipe_size(&ours, PIPE_ROOM_BYTES);
    Ok((ours, theirs))
}

/// Our end of a pipe for standard output and error, which does not wait, and the executor's, which
/// does.
fn raw_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

fn is_readable(descriptor: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_survives_the_epoll_word() {
        for source in [
            Source::Orders,
            Source::Zygote,
            Source::ZygoteDeath,
            Source::SchedulerDeath,
            Source::Death((u16::MAX, 0)),
            Source::Output((0, u16::MAX), Stream::Tagged),
            Source::Output((1, 2), Stream::Raw),
        ] {
            assert_eq!(Source::decode(source.encode()), Some(source));
        }
        assert_eq!(Source::decode(u64::MAX), None);
    }
}
