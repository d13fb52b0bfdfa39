//! The thread that owns processes: it starts them, hears of their deaths, and reads their output.
//!
//! It lives as long as the node, because schedulers and zygote ask to die with the *thread* that
//! started them. It decides nothing: the scheduler says what to start and kill, and is told what
//! came of it. It never waits for a process except at the node's end.

mod executors;
mod groups;
mod order;
mod output;
mod process;
mod schedulers;
mod source;
mod zygote;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use pheromone_executor::protocol::{PACKET_DESCRIPTORS_MAX, ToZygote};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::process::Signal;

use self::executors::EXIT_REPORT_WAIT;
pub use self::order::{Inbox, Order, SupervisorHandle};
use self::output::PIPE_BYTES;
use self::process::Process;
use self::schedulers::{Scheduler, end_at_once, scheduler_name, start_scheduler};
use self::source::Source;
use crate::app::Version;
use crate::cgroup::{Cgroups, Group, Limits};
use crate::child::Child;
use crate::error::NodeError;
use crate::gateway::{Command, GatewayHandle};
use crate::output::{Outlet, Tail};
use crate::plan::CorePlan;
use crate::status::{Broken, Health, Roster};
use crate::wiring::Wires;
use crate::zygote::{Deaths, Zygote};

/// How long schedulers and zygote have to leave in order before they are killed.
const LEAVE_WAIT: Duration = Duration::from_secs(1);
/// Between two looks whether a control group of the dead is empty.
const GROUP_LOOK: Duration = Duration::from_millis(5);

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

type Key = (u16, u16);

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

fn killed(what: &str) -> NodeError {
    NodeError::Killed {
        what: what.to_owned(),
        after: LEAVE_WAIT,
    }
}
