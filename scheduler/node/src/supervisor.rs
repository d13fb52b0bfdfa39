//! The thread that owns processes: it starts them, hears of their deaths, and reads their output.
//!
//! It lives as long as the node, because schedulers and zygote ask to die with the *thread* that
//! started them. It decides nothing: the scheduler says what to start and kill, and is told what
//! came of it. It never waits for a process except at the node's end.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use pheromone_executor::protocol::{
    FromZygote, OutputHead, PACKET_BYTES_MAX, PACKET_DESCRIPTORS_MAX, ToZygote,
};
use pheromone_scheduler::protocol::SchedulerConfig;
use pheromone_shm::control::ControlFiles;
use pheromone_shm::doorbell::BellRope;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::pipe::PipeFlags;
use rustix::process::Signal;

use crate::app::Version;
use crate::cgroup::{Cgroups, Group, Limits};
use crate::child::{Child, Exit};
use crate::error::NodeError;
use crate::gateway::{Command, GatewayHandle};
use crate::output::{Lines, Outlet, Output, OutputKind, Records, Tail};
use crate::pid_namespace;
use crate::plan::CorePlan;
use crate::pulse::{self, Beat, Pulse};
use crate::status::{Broken, ExecutorState, ExecutorStatus, Health, Roster};
use crate::wiring::Wires;
use crate::zygote::{Deaths, Heard, Zygote};

/// How long the zygote's word about a dead child is waited for before its status is unknown.
const EXIT_REPORT_WAIT: Duration = Duration::from_secs(1);
/// How long schedulers and zygote have to leave in order before they are killed.
const LEAVE_WAIT: Duration = Duration::from_secs(1);
/// Between two looks whether a control group of the dead is empty.
const GROUP_LOOK: Duration = Duration::from_millis(5);
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
        /// What its executors may take together.
        limits: Limits,
    },
    /// Start a process.
    Spawn {
        /// Whose.
        app: u16,
        /// Slot.
        slot: u16,
        /// Which scheduler's it is.
        scheduler: u8,
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
    /// Kill all processes of an app.
    KillApp {
        /// Whose.
        app: u16,
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
    /// What the schedulers are started with.
    pub schedulers: Vec<Wires>,
    /// Where schedulers and executors go.
    pub plan: Arc<CorePlan>,
    /// Where the numbers in ids begin, where something outlives the node.
    pub first_id: Option<u64>,
    /// Where processes are put.
    pub cgroups: Cgroups,
    /// Zygotes are each the first process of a pid namespace.
    pub pid_namespace: bool,
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

/// Starts schedulers and zygote and supervises until told to stop.
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
    /// The zygote that would say how it ended is dead.
    is_orphan: bool,
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

/// One scheduler process.
struct Scheduler {
    child: Child,
    /// Its bell, as its executors see it.
    page: OwnedFd,
    pulse: Pulse,
}

/// What executors of an app are started with.
struct Deployed {
    version: Arc<Version>,
    /// Its program, encoded.
    program: OwnedFd,
    program_bytes: u64,
    /// What its executors may take together.
    limits: Limits,
    /// Where they are, where there are control groups.
    group: Option<Group>,
}

/// How a scheduler is named to people, where there are several.
fn scheduler_name(index: u8, count: usize) -> String {
    match count {
        1 => "scheduler".to_owned(),
        _ => format!("scheduler {index}"),
    }
}

struct Supervisor {
    epoll: OwnedFd,
    inbox: Inbox,
    gateway: GatewayHandle,
    outlet: Outlet,
    roster: Roster,
    health: Health,
    plan: Arc<CorePlan>,
    schedulers: Vec<Scheduler>,
    /// The program that is the zygote.
    program: PathBuf,
    /// Zygotes are in pid namespaces.
    pid_namespace: bool,
    /// The CPUs that a zygote may use, of which executors are given one each.
    cpus: Option<CpuSet>,
    /// `None` between the death of one and the start of the next.
    zygote: Option<Zygote>,
    /// When the next is started.
    zygote_due: Option<Instant>,
    /// When schedulers are looked at next.
    next_look: Instant,
    zygote_deaths: Deaths,
    /// Why it was killed, if it was.
    zygote_killed_for: Option<String>,
    /// Dead ones of whose group somebody may not have been reaped.
    dead_zygotes: Vec<Child>,
    /// Processes to be started by the next zygote.
    unborn: Vec<(ToZygote, Vec<OwnedFd>)>,
    apps: HashMap<u16, Deployed>,
    processes: HashMap<Key, Process>,
    incarnations: HashMap<Key, u32>,
    tails: HashMap<Key, Tail>,
    /// Where the zygote is.
    zygote_group: Option<Group>,
    /// Groups that have been killed, until they are empty; the user of a version is not given to
    /// another before.
    emptying: Vec<(Group, Option<Arc<Version>>)>,
    /// After the groups in them.
    cgroups: Cgroups,
    started: Option<Sender<Result<(), NodeError>>>,
    stop: Option<Sender<Result<(), NodeError>>>,
}

/// What a readiness is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Orders,
    Zygote,
    ZygoteDeath,
    SchedulerDeath(u8),
    Death(Key),
    Output(Key, Stream),
}

impl Source {
    fn encode(self) -> u64 {
        let (kind, (app, slot)) = match self {
            Self::Orders => (0, (0, 0)),
            Self::Zygote => (1, (0, 0)),
            Self::ZygoteDeath => (2, (0, 0)),
            Self::SchedulerDeath(index) => (3, (0, u16::from(index))),
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
            3 => Self::SchedulerDeath(key.1 as u8),
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
        let mut schedulers = Vec::new();
        for (index, wires) in (0..).zip(setup.schedulers) {
            let first_id = setup.first_id;
            let started = start_scheduler(&setup.program, &setup.plan, (index, first_id), wires);
            match started {
                Ok(scheduler) => schedulers.push(scheduler),
                Err(error) => {
                    end_at_once(&schedulers);
                    return Err(start_error("scheduler")(error));
                }
            }
        }
        let zygote =
            Zygote::start(&setup.program, setup.pid_namespace).map_err(start_error("zygote"));
        let zygote = zygote.inspect_err(|_| end_at_once(&schedulers))?;
        let mut supervisor = Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)
                .map_err(io::Error::from)
                .map_err(NodeError::system("create an epoll"))?,
            inbox: setup.inbox,
            gateway: setup.gateway,
            outlet: setup.outlet,
            roster: setup.roster,
            health: setup.health,
            plan: setup.plan,
            schedulers,
            program: setup.program,
            pid_namespace: setup.pid_namespace,
            cpus: sched_getaffinity(Pid::from_raw(0)).ok(),
            zygote: Some(zygote),
            zygote_due: None,
            next_look: Instant::now(),
            zygote_deaths: Deaths::default(),
            zygote_killed_for: None,
            dead_zygotes: Vec::new(),
            unborn: Vec::new(),
            apps: HashMap::new(),
            processes: HashMap::new(),
            incarnations: HashMap::new(),
            tails: HashMap::new(),
            zygote_group: None,
            emptying: Vec::new(),
            cgroups: setup.cgroups,
            started: Some(setup.started),
            stop: None,
        };
        supervisor
            .watch_all()
            .map_err(NodeError::system("watch the node's processes"))?;
        supervisor.group_zygote();
        // Only now, since children inherit it: executors are placed one by one.
        crate::pin_thread(&supervisor.plan.io);
        Ok(supervisor)
    }

    fn watch_all(&self) -> io::Result<()> {
        self.watch(self.inbox.wake.as_fd(), Source::Orders)?;
        self.watch_zygote()?;
        for (index, scheduler) in (0..).zip(&self.schedulers) {
            let pidfd = scheduler.child.pidfd();
            self.watch(pidfd.as_fd(), Source::SchedulerDeath(index))?;
        }
        Ok(())
    }

    fn watch_zygote(&self) -> io::Result<()> {
        let Some(zygote) = &self.zygote else {
            return Ok(());
        };
        if let Some(socket) = zygote.socket() {
            self.watch(socket, Source::Zygote)?;
        }
        self.watch(zygote.child().pidfd().as_fd(), Source::ZygoteDeath)
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
                Some(&timeout),
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
            self.feel_pulses();
            self.start_zygote_if_due();
            self.flush_to_zygote();
            self.give_up_on_reports();
            self.remove_empty_groups();
        }
        self.end();
    }

    /// Until schedulers are looked at, the next report is overdue, the next zygote is to be
    /// started, the full socket of this one is tried again, or a group may be empty.
    fn timeout(&self) -> Timespec {
        let now = Instant::now();
        let report = self
            .processes
            .values()
            .filter_map(|process| process.dead_since)
            .map(|since| (since + EXIT_REPORT_WAIT).saturating_duration_since(now))
            .min();
        let is_behind = self.zygote.as_ref().is_some_and(Zygote::is_behind);
        let retry = is_behind.then_some(Duration::from_millis(1));
        let next = self
            .zygote_due
            .map(|due| due.saturating_duration_since(now));
        let look = self.next_look.saturating_duration_since(now);
        let group = (!self.emptying.is_empty()).then_some(GROUP_LOOK);
        let left = [report, retry, next, group]
            .into_iter()
            .flatten()
            .fold(look, Duration::min);
        Timespec {
            tv_sec: left.as_secs() as i64,
            // Rounded up, so that what is due is due.
            tv_nsec: i64::from(left.subsec_nanos()).min(999_000_000) + 999_999,
        }
    }

    fn ready(&mut self, source: Source) {
        match source {
            Source::Orders => self.take_orders(),
            Source::Zygote => self.hear_zygote(),
            Source::ZygoteDeath => self.zygote_died(),
            Source::SchedulerDeath(index) => self.scheduler_died(index),
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
                    limits,
                } => {
                    let mut deployed = Deployed {
                        version,
                        program,
                        program_bytes,
                        limits,
                        group: None,
                    };
                    self.group_executors(&mut deployed);
                    self.add_app(deployed, regions);
                }
                Order::Spawn {
                    app,
                    slot,
                    scheduler,
                    core,
                } => {
                    if let Err(reason) = self.spawn((app, slot), scheduler, core) {
                        self.spawn_failed((app, slot), reason);
                    }
                }
                Order::Kill {
                    app,
                    slot,
                    incarnation,
                    why,
                } => self.kill((app, slot), incarnation, why),
                Order::KillApp { app, why } => self.kill_app(app, &why),
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

    fn add_app(&mut self, deployed: Deployed, regions: Vec<OwnedFd>) {
        let app = deployed.version.id;
        let told = self.tell_of_app(app, &deployed, regions);
        self.apps.insert(app, deployed);
        if let Err(error) = told {
            self.give_up_on_zygote(&format!("it cannot be told of an app: {error}"));
        }
    }

    /// Tells the zygote, if there is one, what executors of an app are.
    fn tell_of_app(
        &mut self,
        app: u16,
        deployed: &Deployed,
        regions: Vec<OwnedFd>,
    ) -> io::Result<()> {
        if !self.has_listener() {
            return Ok(());
        }
        let program_bytes = deployed.program_bytes;
        let mut files = vec![deployed.program.try_clone()?];
        if let Some(group) = &deployed.group {
            files.push(group.handle().try_clone_to_owned()?);
        }
        self.tell_zygote(ToZygote::App { app, program_bytes }, files);
        let mut regions = regions.into_iter();
        let mut first = 0_u16;
        loop {
            let chunk: Vec<OwnedFd> = regions.by_ref().take(PACKET_DESCRIPTORS_MAX).collect();
            if chunk.is_empty() {
                return Ok(());
            }
            let next = first + chunk.len() as u16;
            self.tell_zygote(ToZygote::Regions { app, first }, chunk);
            first = next;
        }
    }

    /// Makes a control group for a version's executors, where there are any, and it has none.
    fn group_executors(&mut self, deployed: &mut Deployed) {
        if deployed.group.is_some() {
            return;
        }
        let version = &deployed.version;
        let name = format!("app-{}.{}", version.name(), version.number);
        match self.cgroups.group(&name, &deployed.limits) {
            Ok(group) => deployed.group = group,
            Err(error) => {
                let text =
                    format!("its executors have no control group, so no limits in common: {error}");
                self.outlet.notice(version.name(), None, text);
            }
        }
    }

    /// Puts a new zygote, which has not forked yet, into a control group.
    fn group_zygote(&mut self) {
        let Some(zygote) = &self.zygote else { return };
        let group = self.cgroups.group("zygote", &Limits::default());
        let placed = group.and_then(|group| {
            let place = |group: &Group| group.take(zygote.child().pid());
            group.as_ref().map_or(Ok(()), place).map(|()| group)
        });
        match placed {
            Ok(group) => self.zygote_group = group,
            Err(error) => self.give_up_groups(&error),
        }
    }

    /// Where processes cannot be put into groups, executors go on without.
    fn give_up_groups(&mut self, error: &io::Error) {
        let text = format!("processes cannot be put into control groups: {error}");
        self.outlet.notice("", None, text);
        self.kill_groups();
        self.emptying.clear();
        self.cgroups.give_up(error);
    }

    /// Kills whatever is in the node's control groups. They are not used again: what is started
    /// from a group that has been killed into one that has not, or the other way round, is killed
    /// at its start (Linux 6.18 counts kills group by group, and compares the two).
    fn kill_groups(&mut self) {
        let apps = self.apps.values_mut();
        let groups = apps.filter_map(|deployed| {
            let version = Some(Arc::clone(&deployed.version));
            Some((deployed.group.take()?, version))
        });
        self.emptying.extend(groups);
        self.emptying
            .extend(self.zygote_group.take().map(|group| (group, None)));
        self.emptying.iter_mut().for_each(|(group, _)| group.kill());
    }

    fn remove_empty_groups(&mut self) {
        self.emptying.retain_mut(|(group, _)| !group.is_gone());
    }

    fn spawn(&mut self, key: Key, owner: u8, core: u16) -> Result<(), String> {
        let (app, slot) = key;
        if let Some(broken) = self.health.broken() {
            return Err(broken.error().to_string());
        }
        let deployed = self.apps.get(&app).ok_or("the app is gone")?;
        let version = Arc::clone(&deployed.version);
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
        let scheduler = self.schedulers.get(usize::from(owner));
        let page = &scheduler.ok_or("the slot has no scheduler")?.page;
        let descriptors = vec![
            clone(region)?,
            clone(control.up.as_fd())?,
            pheromone_shm::file::reopen_read_only(control.down.as_fd())
                .map_err(refused("read-only descriptor (is /proc mounted?)"))?,
            clone(page.as_fd())?,
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
            is_orphan: false,
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
        let cpu = self.plan.executor_cpu(owner, core);
        let spawn = ToZygote::Spawn {
            app,
            slot,
            incarnation,
            cpu,
        };
        self.tell_zygote(spawn, descriptors);
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

    fn kill_app(&mut self, app: u16, why: &str) {
        let keys = self.processes.keys().copied();
        let of_app: Vec<Key> = keys.filter(|key| key.0 == app).collect();
        for key in of_app {
            if let Some(process) = self.processes.get(&key) {
                self.kill(key, process.incarnation, why.to_owned());
            }
        }
    }

    fn forget(&mut self, app: u16) {
        // The scheduler says that nobody is left; whoever is, is stuck.
        self.kill_app(app, "its app is gone");
        if self.has_listener() {
            self.tell_zygote(ToZygote::Forget { app }, Vec::new());
        }
        if let Some(deployed) = self.apps.remove(&app)
            && let Some(mut group) = deployed.group
        {
            group.kill();
            self.emptying.push((group, Some(deployed.version)));
        }
        self.incarnations.retain(|key, _| key.0 != app);
        self.tails.retain(|key, _| key.0 != app);
    }

    /// Says something to the zygote, or to the next one.
    fn tell_zygote(&mut self, message: ToZygote, descriptors: Vec<OwnedFd>) {
        match &mut self.zygote {
            Some(zygote) if zygote.socket().is_some() => {
                zygote.say(&message, descriptors);
                self.flush_to_zygote();
            }
            _ => self.unborn.push((message, descriptors)),
        }
    }

    /// Whether there is a zygote that can be told something. One that has hung up dies, which takes
    /// it as long as whoever is in its pid namespace.
    fn has_listener(&self) -> bool {
        let zygote = self.zygote.as_ref();
        zygote.is_some_and(|zygote| zygote.socket().is_some())
    }

    fn flush_to_zygote(&mut self) {
        if let Some(Err(error)) = self.zygote.as_mut().map(Zygote::flush) {
            self.give_up_on_zygote(&format!("it cannot be spoken to: {error}"));
        }
    }

    fn hear_zygote(&mut self) {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        while let Some(zygote) = &self.zygote {
            match zygote.hear(&mut buffer) {
                Heard::Word(message, descriptors) => self.take_word(message, descriptors),
                Heard::Nothing => return,
                Heard::Nonsense(how) => return self.give_up_on_zygote(&how),
                Heard::End => return self.hang_up(),
            }
        }
    }

    fn hang_up(&mut self) {
        if let Some(zygote) = &mut self.zygote {
            if let Some(socket) = zygote.socket() {
                // It is watched, or was never.
                let _ = epoll::delete(&self.epoll, socket);
            }
            zygote.hang_up();
        }
    }

    /// The zygote is ours; where it says what makes no sense, or cannot be spoken to, it is
    /// replaced like one that has died.
    fn give_up_on_zygote(&mut self, how: &str) {
        self.hang_up();
        if let Some(zygote) = &self.zygote {
            let why = format!("killed, since {how}");
            self.zygote_killed_for.get_or_insert(why);
            zygote.child().kill();
        }
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
                ..
            } => match descriptors.pop() {
                Some(pidfd) => self.spawned((app, slot), incarnation, pidfd),
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

    fn spawned(&mut self, key: Key, incarnation: u32, pidfd: OwnedFd) {
        let (app, slot) = key;
        let pid = pid_namespace::pid_here(pidfd.as_fd());
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
        process.pid = pid;
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
                pid,
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
        if process.is_orphan {
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
        self.reap_orphans();
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
            .is_none_or(|deployed| deployed.version.is_leaving());
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
        let Some(Deployed { version, .. }) = self.apps.get(&key.0) else {
            return;
        };
        self.outlet.put(Output {
            app: version.name().to_owned(),
            function: said.and_then(|head| {
                let name = version.function_names.get(usize::from(head.function));
                name.or(version.trigger_of_slot(key.1)).cloned()
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
            .map(|deployed| deployed.version.name().to_owned())
            .unwrap_or_default()
    }

    /// Its executors die with it, and count as crashed; then another one is started, unless too
    /// many have died.
    fn zygote_died(&mut self) {
        // What it has said last may be of executors that are there.
        self.hear_zygote();
        self.hang_up();
        let Some(zygote) = self.zygote.take() else {
            return;
        };
        let child = zygote.into_child();
        self.unwatch(child.pidfd().as_fd());
        // Not yet reaped, so its number still names its group.
        child.kill_group();
        self.kill_groups();
        let how = child.reap().describe();
        let how = self.zygote_killed_for.take().unwrap_or(how);
        self.dead_zygotes.push(child);
        if self.started.is_some() {
            return self.break_node(Broken::Zygote(how));
        }
        let notice = format!("the zygote died ({how}); its executors die and are replaced");
        self.outlet.notice("", None, notice);
        self.orphan_executors(&how);
        self.put_off_zygote(&how);
    }

    /// Nobody will say how the processes of a dead zygote have ended, or start those that it has
    /// not started.
    fn orphan_executors(&mut self, how: &str) {
        let waits = |key: &Key| {
            let mut unborn = self.unborn.iter();
            unborn.any(|(message, _)| {
                matches!(message, ToZygote::Spawn { app, slot, .. } if (*app, *slot) == *key)
            })
        };
        let keys = self.processes.keys().copied();
        let keys: Vec<Key> = keys.filter(|key| !waits(key)).collect();
        for key in keys {
            let Some(process) = self.processes.get_mut(&key) else {
                continue;
            };
            let why = format!("the zygote, its parent, died ({how})");
            process.is_orphan = true;
            match &process.pidfd {
                None => {
                    self.drop_process(key);
                    self.spawn_failed(key, why);
                }
                Some(pidfd) => {
                    // An error means that it is dead already.
                    let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
                    process.killed_for.get_or_insert(why);
                    if process.dead_since.is_some() {
                        self.bury(key);
                    }
                }
            }
        }
    }

    fn put_off_zygote(&mut self, how: &str) {
        let now = Instant::now();
        match self.zygote_deaths.note(now) {
            Some(pause) => self.zygote_due = Some(now + pause),
            None => {
                let count = self.zygote_deaths.count();
                self.break_node(Broken::Zygote(format!(
                    "{count} of them within a minute; the last: {how}"
                )));
            }
        }
    }

    fn start_zygote_if_due(&mut self) {
        if self.zygote_due.is_none_or(|due| due > Instant::now()) || self.stop.is_some() {
            return;
        }
        self.zygote_due = None;
        if self.health.broken().is_some() {
            return;
        }
        // Executors inherit what the zygote may use, and this thread is on the CPUs of I/O alone.
        let unpinned = self
            .cpus
            .map(|cpus| sched_setaffinity(Pid::from_raw(0), &cpus));
        let started = Zygote::start(&self.program, self.pid_namespace);
        if unpinned.is_some() {
            crate::pin_thread(&self.plan.io);
        }
        let told = started.and_then(|zygote| {
            self.zygote = Some(zygote);
            self.group_zygote();
            self.watch_zygote()?;
            self.tell_of_everything()
        });
        match (told, &self.zygote) {
            (Ok(()), _) => {}
            (Err(error), Some(_)) => self.give_up_on_zygote(&error.to_string()),
            (Err(error), None) => self.put_off_zygote(&format!("it does not start: {error}")),
        }
    }

    /// A new zygote learns of all apps, then what it is to start.
    fn tell_of_everything(&mut self) -> io::Result<()> {
        let mut apps = std::mem::take(&mut self.apps);
        for deployed in apps.values_mut() {
            self.group_executors(deployed);
        }
        let told = apps.iter().try_for_each(|(app, deployed)| {
            let regions = &deployed.version.regions;
            let readers = (0..regions.count()).map(|region| regions.read_only(region));
            self.tell_of_app(*app, deployed, readers.collect::<io::Result<_>>()?)
        });
        self.apps = apps;
        told?;
        for (message, descriptors) in std::mem::take(&mut self.unborn) {
            self.tell_zygote(message, descriptors);
        }
        Ok(())
    }

    /// Reaps what has come to the node out of the groups of zygotes, dead ones too as long as
    /// somebody is left there.
    fn reap_orphans(&mut self) {
        if let Some(zygote) = &self.zygote {
            zygote.child().reap_orphans();
        }
        self.dead_zygotes.retain(|dead| {
            dead.reap_orphans();
            dead.has_group()
        });
    }

    /// Looks whether the schedulers' loops turn.
    fn feel_pulses(&mut self) {
        let now = Instant::now();
        if now < self.next_look || self.health.broken().is_some() {
            return;
        }
        self.next_look = now + pulse::LOOK;
        for at in 0..self.schedulers.len() {
            let beat = self.schedulers[at].pulse.look(now);
            self.take_beat(at as u8, beat);
        }
    }

    fn take_beat(&mut self, index: u8, beat: Beat) {
        let name = scheduler_name(index, self.schedulers.len());
        let pid = self.schedulers[usize::from(index)].child.pid();
        let sentence = |still: Duration| {
            let (seconds, doing) = (still.as_secs(), pulse::doing(pid));
            format!("the {name}'s loop (pid {pid}) has not turned for {seconds} s: {doing}")
        };
        match beat {
            Beat::Fine => {
                if self.health.set_stuck(index, None) {
                    let text = format!("the {name}'s loop turns again");
                    self.outlet.notice("", None, text);
                }
            }
            Beat::Stuck(still) => {
                let text = sentence(still);
                if self.health.set_stuck(index, Some(text.clone())) {
                    let after = pulse::GIVEN_UP_AFTER.as_secs();
                    let text = format!("{text}; the node ends if it does not within {after} s");
                    self.outlet.notice("", None, text);
                }
            }
            Beat::GivenUp(still) => {
                let how = format!("killed, since {}", sentence(still));
                self.break_node(Broken::Scheduler(how));
            }
        }
    }

    fn scheduler_died(&mut self, index: u8) {
        let Some(scheduler) = self.schedulers.get(usize::from(index)) else {
            return;
        };
        self.unwatch(scheduler.child.pidfd().as_fd());
        let how = scheduler.child.reap().describe();
        self.break_node(Broken::Scheduler(match self.schedulers.len() {
            1 => how,
            _ => format!("number {index}: {how}"),
        }));
    }

    /// The node is of no further use: everything that runs is killed, every waiter told.
    fn break_node(&mut self, why: Broken) {
        self.health.give_up(why.clone());
        for scheduler in &self.schedulers {
            scheduler.child.kill();
        }
        if let Some(zygote) = &self.zygote
            && !zygote.child().is_dead_within(Duration::ZERO)
        {
            zygote.child().kill_group();
            zygote.child().kill();
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

    /// Ends what is left, in order: executors with a scheduler's last word are gone already, then
    /// the schedulers, then the zygote and whatever hides in its group.
    fn end(mut self) {
        let mut result = Ok(());
        for (index, scheduler) in (0..).zip(&self.schedulers) {
            if !scheduler.child.is_dead_within(LEAVE_WAIT) {
                scheduler.child.kill();
                let name = scheduler_name(index, self.schedulers.len());
                result = Err(killed(&format!("the {name}")));
            }
        }
        self.hang_up();
        if let Some(zygote) = &self.zygote
            && !zygote.child().is_dead_within(LEAVE_WAIT)
        {
            zygote.child().kill();
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
        let schedulers = self.schedulers.iter().map(|scheduler| &scheduler.child);
        for child in schedulers.chain(self.zygote.as_ref().map(Zygote::child)) {
            child.is_dead_within(LEAVE_WAIT);
        }
        if let Some(zygote) = self.zygote.take() {
            // Not yet reaped, so its number still names its group.
            zygote.child().kill_group();
            self.dead_zygotes.push(zygote.into_child());
        }
        for scheduler in &self.schedulers {
            scheduler.child.reap();
        }
        self.kill_groups();
        self.reap_all();
        if let Some(done) = self.stop.take() {
            // Whoever has stopped waiting does not want to know.
            let _ = done.send(result);
        }
    }

    /// Whoever was in a zygote's group, or a control group, has been killed; they become ours to
    /// reap one by one.
    fn reap_all(&mut self) {
        let until = Instant::now() + LEAVE_WAIT;
        while Instant::now() < until {
            self.reap_orphans();
            self.remove_empty_groups();
            if self.dead_zygotes.is_empty() && self.emptying.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn start_scheduler(
    program: &Path,
    plan: &CorePlan,
    (index, first_id): (u8, Option<u64>),
    wires: Wires,
) -> io::Result<Scheduler> {
    let config = SchedulerConfig {
        index,
        schedulers: plan.count,
        node: std::process::id(),
        cpu: plan.scheduler_cpu(index),
        executor_cores: plan.executor_cores(index),
        spin: plan.spin,
        never_sleeps: plan.never_sleeps,
        keeps_on_disk: first_id.is_some(),
        first_id: first_id.unwrap_or(0),
    };
    let name = format!("pheromone: {}", scheduler_name(index, plan.count.into()));
    let argument = pheromone_scheduler::encode_config(&config);
    let descriptors: Vec<&OwnedFd> = wires.descriptors.iter().collect();
    let child = Child::start(program, &name, &["__scheduler", &argument], &descriptors)?;
    let pulse = Pulse::new(BellRope::map(&wires.page)?, Instant::now());
    Ok(Scheduler {
        child,
        page: wires.page,
        pulse,
    })
}

/// Where the node cannot start after all.
fn end_at_once(schedulers: &[Scheduler]) {
    for Scheduler { child, .. } in schedulers {
        child.kill();
        child.is_dead_within(LEAVE_WAIT);
        child.reap();
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
            Source::SchedulerDeath(0),
            Source::SchedulerDeath(15),
            Source::Death((u16::MAX, 0)),
            Source::Output((0, u16::MAX), Stream::Tagged),
            Source::Output((1, 2), Stream::Raw),
        ] {
            assert_eq!(Source::decode(source.encode()), Some(source));
        }
        assert_eq!(Source::decode(u64::MAX), None);
    }
}
