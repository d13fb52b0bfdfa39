//! The node: what an embedding program starts, deploys into, asks and stops.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use pheromone_core::share::SCHEDULERS_MAX;
use pheromone_executor::sandbox::Offers;
use pheromone_journal::{Recovered, Stored};
use pheromone_manifest::{App, Built};
use pheromone_shm::file::create_sealed;
use serde::Serialize;

use crate::app::{self, Uids, Version, probe};
use crate::cgroup::{CgroupOffer, Cgroups};
use crate::child::Subreaper;
use crate::config::NodeConfig;
use crate::error::NodeError;
use crate::gateway::{self, About, Command, Condition, GatewayHandle, Letters, ReplyTo};
use crate::isolation::{self, Ports};
use crate::letters::DeadLetter;
use crate::library::Libraries;
use crate::memory;
use crate::output::{Outlet, Output, OutputKind};
use crate::pid_namespace;
use crate::plan::{CorePlan, Machine};
use crate::quota::Limit;
use crate::regions::Regions;
use crate::request::{Reply, Request, RequestId};
use crate::status::{AppStats, AppStatus, Broken, Health, Roster, SessionStatus, Troubles};
use crate::store::{Fetched, Store};
use crate::supervisor::{self, Order, SupervisorHandle};
use crate::wiring::Wiring;

/// How long scheduler and zygote may take to come up.
const START_WAIT: Duration = Duration::from_secs(10);
/// How long an app's first executors may take to be ready.
const READY_WAIT: Duration = Duration::from_secs(30);
/// How long the scheduler may take to answer a question.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// How long an app that is cut off may take to be gone, and all apps at the node's stop.
const GONE_WAIT: Duration = Duration::from_secs(5);
/// First pause between two looks at an app that is getting ready; doubles up to the second.
const LOOK_FIRST: Duration = Duration::from_micros(200);
const LOOK_LAST: Duration = Duration::from_millis(5);

/// A running node. All of it ends when this is dropped.
pub struct Node {
    plan: Arc<CorePlan>,
    gateway: GatewayHandle,
    store: Option<Arc<Store>>,
    supervisor: SupervisorHandle,
    outlet: Outlet,
    roster: Roster,
    troubles: Troubles,
    health: Health,
    program: std::path::PathBuf,
    libraries: Mutex<Option<Libraries>>,
    uids: Uids,
    ports: Mutex<Ports>,
    offers: Offers,
    cgroups: CgroupOffer,
    pid_namespace: bool,
    /// One deployment at a time.
    deploying: Mutex<()>,
    registry: Mutex<Registry>,
    threads: Mutex<Option<Threads>>,
}

/// What is deployed.
#[derive(Default)]
struct Registry {
    /// Versions that take new sessions, by name.
    current: HashMap<String, Arc<Version>>,
    /// Versions that end, and those being made ready. They are kept by the threads that still have
    /// to do with them, and gone when those let go.
    others: Vec<Weak<Version>>,
    /// How often each name was deployed.
    numbers: HashMap<String, u32>,
    next_id: u32,
}

impl Registry {
    /// Notes a version that ends, or is being made ready.
    fn note(&mut self, version: &Arc<Version>) {
        self.others.retain(|other| other.strong_count() > 0);
        self.others.push(Arc::downgrade(version));
    }

    /// Looks no longer for a version among those that end or are being made ready.
    fn strike(&mut self, version: &Arc<Version>) {
        let is_it = |other: &Weak<Version>| std::ptr::eq(other.as_ptr(), Arc::as_ptr(version));
        self.others.retain(|other| !is_it(other));
    }

    /// Versions that end, and those being made ready.
    fn others(&self) -> impl Iterator<Item = Arc<Version>> + '_ {
        self.others.iter().filter_map(Weak::upgrade)
    }
}

struct Threads {
    supervisor: JoinHandle<()>,
    gateway: JoinHandle<()>,
    memory: JoinHandle<()>,
    _subreaper: Subreaper,
}

impl Node {
    /// Starts scheduler and zygote and waits until both are ready.
    ///
    /// # Errors
    /// A configuration that cannot be, or what the machine refused. Nothing is left behind.
    pub fn start(config: NodeConfig) -> Result<Self, NodeError> {
        let asked = config.schedulers;
        if !(1..=u16::from(SCHEDULERS_MAX)).contains(&asked) {
            return Err(NodeError::Schedulers { asked });
        }
        let plan = Arc::new(CorePlan::new(&Machine::here(), &config)?);
        raise_descriptor_limit();
        outlive_file_limit();
        let system = |what: &str| NodeError::system(what.to_owned());
        let libraries = match &config.directory {
            Some(directory) => Libraries::at(directory).map_err(system(&format!(
                "use the directory {}",
                directory.display()
            )))?,
            None => Libraries::temporary_in(&std::env::temp_dir())
                .map_err(system("make a temporary directory"))?,
        };
        let subreaper = Subreaper::new().map_err(system("become a subreaper"))?;
        let wiring = Wiring::new(plan.count).map_err(system("create the schedulers' memory"))?;
        let health = Health::default();
        let outlet = Outlet::default();
        let roster = Roster::default();
        let troubles = Troubles::default();
        let (supervisor, orders) = SupervisorHandle::new().map_err(system("create an eventfd"))?;
        let (gateway, inbox) = GatewayHandle::new(wiring.rope.clone(), health.clone());
        let (tells_memory, tasks) = crossbeam_channel::unbounded();
        let remembering = memory::Setup {
            tasks,
            gateway: gateway.clone(),
            supervisor: supervisor.clone(),
            roster: roster.clone(),
            outlet: outlet.clone(),
        };
        let opened = config
            .data
            .as_ref()
            .map(|data| open_store(data, &plan.io, gateway.clone()));
        let (store, recovered) = opened.transpose()?.unzip();
        let store = store.map(Arc::new);
        let (cgroups, strays) = Cgroups::new();
        let cgroup_offer = cgroups.offer().clone();
        let pid_namespace = config.pid_namespace && pid_namespace::is_allowed();
        let (started, hears_started) = bounded(1);
        let (ready, hears_ready) = bounded(1);
        let supervising = supervisor::Setup {
            program: config.program.clone(),
            schedulers: wiring.schedulers,
            plan: Arc::clone(&plan),
            first_id: store.as_deref().map(Store::first_id),
            cgroups,
            pid_namespace,
            inbox: orders,
            gateway: gateway.clone(),
            outlet: outlet.clone(),
            roster: roster.clone(),
            health: health.clone(),
            started,
        };
        let serving = gateway::Setup {
            ways: wiring.ways,
            rope: wiring.rope,
            inbox,
            supervisor: supervisor.clone(),
            outlet: outlet.clone(),
            health: health.clone(),
            troubles: troubles.clone(),
            memory: tells_memory,
            store: store.clone(),
            handle: gateway.clone(),
            ready,
        };
        let io_cpus = plan.io.clone();
        let supervising = thread("supervisor", move || supervisor::run(supervising))?;
        let on_io = |name, body: Box<dyn FnOnce() + Send>| {
            let cpus = io_cpus.clone();
            thread(name, move || {
                crate::pin_thread(&cpus);
                body();
            })
        };
        // What serves ends the other, which hears of nobody else.
        let remembering = on_io("memory", Box::new(|| memory::run(remembering)));
        let serving = on_io("gateway", Box::new(|| gateway::run(serving)));
        let (serving, remembering) = match serving.and_then(|it| Ok((it, remembering?))) {
            Ok(both) => both,
            Err(error) => {
                gateway.tell(Command::Shutdown);
                let (done, _) = bounded(1);
                supervisor.tell(Order::Stop { done });
                drop(supervising.join());
                return Err(error);
            }
        };
        let reports = recovered.iter().flat_map(|recovered| &recovered.reports);
        let reports = reports.map(|report| (String::new(), report.to_string()));
        let reports = strays
            .into_iter()
            .map(|text| (String::new(), text))
            .chain(reports);
        let waited_for = store.iter().flat_map(|store| store.waited_for());
        let waited_for = waited_for.map(|(app, count)| {
            let text = format!("{count} durable sessions go on as soon as the app is deployed");
            (app, text)
        });
        for (app, text) in reports.chain(waited_for) {
            outlet.put(Output {
                app,
                function: None,
                session: 0,
                invocation: 0,
                slot: None,
                kind: OutputKind::Notice,
                text,
                dropped: 0,
            });
        }
        let node = Self {
            plan,
            gateway,
            store,
            supervisor,
            outlet,
            roster,
            troubles,
            health,
            program: config.program,
            libraries: Mutex::new(Some(libraries)),
            uids: Uids::default(),
            ports: Mutex::default(),
            offers: Offers::here(),
            cgroups: cgroup_offer,
            pid_namespace,
            deploying: Mutex::new(()),
            registry: Mutex::default(),
            threads: Mutex::new(Some(Threads {
                supervisor: supervising,
                gateway: serving,
                memory: remembering,
                _subreaper: subreaper,
            })),
        };
        // From here on dropping the node ends whatever has been started.
        node.await_start(&hears_started, &hears_ready)?;
        Ok(node)
    }

    fn await_start(
        &self,
        started: &Receiver<Result<(), NodeError>>,
        ready: &Receiver<()>,
    ) -> Result<(), NodeError> {
        let late = |process| NodeError::Start {
            process,
            reason: format!("it said nothing for {} s", START_WAIT.as_secs()),
        };
        let until = Instant::now() + START_WAIT;
        started.recv_deadline(until).map_err(|_| late("zygote"))??;
        loop {
            match ready.recv_timeout(LOOK_LAST) {
                Ok(()) => return Ok(()),
                Err(_) if self.health.broken().is_some() => {
                    let how = self.health.check().err().map(|error| error.to_string());
                    return Err(NodeError::Start {
                        process: "scheduler",
                        reason: how.unwrap_or_default(),
                    });
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() < until => {}
                Err(_) => return Err(late("scheduler")),
            }
        }
    }

    /// Which CPU does what.
    pub fn plan(&self) -> &CorePlan {
        &self.plan
    }

    /// Brings an app in and waits until as many executors as its `executors.min` are ready. Where
    /// an app of that name is there, the new version takes new sessions from then on, and the old
    /// one goes when its sessions have ended.
    ///
    /// # Errors
    /// Whatever makes the app unusable; the node is as before then.
    pub fn deploy(&self, app: &App, built: &Built) -> Result<(), NodeError> {
        let _one_at_a_time = self
            .deploying
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.health.check()?;
        app.spec.validate().map_err(|errors| NodeError::Spec {
            app: app.spec.name.clone(),
            reason: errors
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; "),
        })?;
        self.refuse_unkept(app)?;
        isolation::refuse_unprotected(app, &self.offers)?;
        self.ports().connects(app)?;
        if let Some(wrong) = probe(app, built, &self.offers).first() {
            return Err(NodeError::Probe {
                app: app.spec.name.clone(),
                reason: wrong.to_string(),
            });
        }
        let clamped = Limit::here().and_then(|limit| limit.clamp(app));
        let app = match &clamped {
            Some((less, said)) => {
                self.outlet.notice(&app.spec.name, None, said.clone());
                less
            }
            None => app,
        };
        let version = self.introduce(app, built)?;
        if let Err(error) = self.await_ready(&version) {
            // The error of the deployment is the one to tell; the rest is cleared as far as it
            // goes.
            let _ = self.let_go(&version, Some(Duration::ZERO), true);
            return Err(error);
        }
        let mut registry = self.registry();
        registry.strike(&version);
        let name = version.name().to_owned();
        let (done, letters_moved) = bounded(1);
        let app = version.id;
        self.gateway.tell(Command::Route { app, done });
        if let Some(before) = registry.current.insert(name, version) {
            before.leave();
            registry.note(&before);
        }
        drop(registry);
        // So that who deploys what mends a function can have its dead letters run again at once.
        // Where that takes too long they come later.
        let _ = letters_moved.recv_timeout(ANSWER_WAIT);
        Ok(())
    }

    /// Notes a port that the node listens on, before anybody is answered there: functions must not
    /// reach it.
    ///
    /// # Errors
    /// A deployed app may connect to it.
    pub fn listens(&self, port: u16) -> Result<(), NodeError> {
        self.ports().listens(port)
    }

    fn ports(&self) -> MutexGuard<'_, Ports> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an app's isolation switches on here, and what not.
    pub fn isolation_of(&self, app: &App) -> String {
        let level = isolation::level(app.spec.isolation);
        format!("isolation {level}: {}", self.offers.describe(level))
    }

    /// What keeps processes that functions fork from outliving the node, beside its own.
    pub fn containment(&self) -> String {
        let namespace = match self.pid_namespace {
            true => "of its own",
            false => "none",
        };
        format!(
            "pid namespace: {namespace}; control groups: {}",
            self.cgroups
        )
    }

    /// A node that keeps nothing on disk takes no app that needs that.
    fn refuse_unkept(&self, app: &App) -> Result<(), NodeError> {
        if self.store.is_some() {
            return Ok(());
        }
        let spec = &app.spec;
        let function = spec.functions.iter().find(|function| function.durable);
        let bucket = spec.buckets.iter().find(|bucket| bucket.durable);
        let what = function
            .map(|function| format!("function `{}`", function.name))
            .or_else(|| bucket.map(|bucket| format!("bucket `{}`", bucket.name)));
        match what {
            Some(what) => Err(NodeError::NothingKept {
                app: spec.name.clone(),
                what,
            }),
            None => Ok(()),
        }
    }

    /// Creates a version's memory, copies its libraries, and tells everybody of it.
    fn introduce(&self, app: &App, built: &Built) -> Result<Arc<Version>, NodeError> {
        let uid = if self.offers.users {
            Some(self.uids.take()?)
        } else {
            None
        };
        let system = |what: &str| NodeError::system(format!("{what} for app `{}`", app.spec.name));
        let regions = Regions::create(&app.spec).map_err(system("create memory"))?;
        let (program, limits) = {
            let libraries = self
                .libraries
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let libraries = libraries.as_ref().ok_or(NodeError::Stopping)?;
            let uid = uid.as_ref().map(app::Uid::number);
            let program = app::program(app, built, libraries, &regions, uid)?;
            let limits = isolation::limits(&app.spec, &program.sandbox, regions.count());
            (program, limits)
        };
        let program = file_of("program", &program).map_err(system("hand over the program"))?;
        let spec = file_of("spec", &app.spec).map_err(system("hand over the spec"))?;
        let readers = (0..regions.count())
            .map(|region| regions.read_only(region))
            .collect::<io::Result<Vec<_>>>()
            .map_err(system("open memory for reading (is /proc mounted?)"))?;
        let version = {
            let mut registry = self.registry();
            let id = registry.next_id;
            let id = u16::try_from(id).map_err(|_| NodeError::TooMany {
                reason: format!("{id} deployments are the most of one node; start it again"),
            })?;
            registry.next_id += 1;
            let number = registry.numbers.entry(app.spec.name.clone()).or_insert(0);
            *number += 1;
            let spec = app.spec.clone();
            let version = Version::new(id, *number, spec, self.plan.count, regions, uid);
            let version = Arc::new(version);
            registry.note(&version);
            version
        };
        // The supervisor first: the scheduler asks for executors as soon as it knows the app.
        self.supervisor.tell(Order::AddApp {
            version: Arc::clone(&version),
            program: program.0,
            program_bytes: program.1,
            regions: readers,
            limits,
        });
        let (done, hears) = bounded(1);
        self.gateway.tell(Command::Deploy {
            version: Arc::clone(&version),
            spec: spec.0,
            spec_bytes: spec.1,
            done,
        });
        match hears.recv_timeout(ANSWER_WAIT) {
            Ok(Ok(())) => Ok(version),
            Ok(Err(source)) => {
                self.supervisor.tell(Order::Forget { app: version.id });
                self.registry().strike(&version);
                Err(system("set up memory for requests")(source))
            }
            Err(_) => {
                self.health.check()?;
                Err(NodeError::Stopping)
            }
        }
    }

    /// Waits until enough executors are ready, and all schedulers of the app have answered for it,
    /// so that none of them can be told of the app by another before it knows it.
    fn await_ready(&self, version: &Version) -> Result<(), NodeError> {
        let wanted = u64::from(version.spec.executors.min);
        let name = || version.name().to_owned();
        let since = Instant::now();
        let mut pause = LOOK_FIRST;
        loop {
            let left = READY_WAIT.saturating_sub(since.elapsed());
            let Some(condition) = self.condition(version.id, left)? else {
                // On a busy machine the answer is late; only one that has come is a refusal.
                if since.elapsed() >= READY_WAIT {
                    return Err(NodeError::NotReady {
                        app: name(),
                        after: READY_WAIT,
                        ready: 0,
                        wanted,
                    });
                }
                return Err(NodeError::Spec {
                    app: name(),
                    reason: "the scheduler refuses it".into(),
                });
            };
            if let Some(reason) = condition.first_failure {
                return Err(NodeError::Executor {
                    app: name(),
                    reason,
                });
            }
            let ready = condition.stats.executors_idle;
            if ready >= wanted {
                return Ok(());
            }
            if since.elapsed() >= READY_WAIT {
                return Err(NodeError::NotReady {
                    app: name(),
                    after: READY_WAIT,
                    ready,
                    wanted,
                });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LOOK_LAST);
        }
    }

    /// Says that nobody has more requests for an app: from here on its triggers fire with what they
    /// have gathered across sessions whenever nothing else goes on, so that no caller waits for a
    /// batch that will never fill.
    pub fn flush(&self, app: &str) {
        if let Some(version) = self.registry().current.get(app) {
            let app = version.id;
            self.gateway.tell(Command::Flush { app });
        }
    }

    /// Takes an app out: no new sessions at once, those that are open have `drain` to end, then
    /// they are cancelled. Returns when nothing of it is left.
    ///
    /// # Errors
    /// No such app, or a node that is broken.
    pub fn remove(&self, app: &str, drain: Duration) -> Result<(), NodeError> {
        self.health.check()?;
        let version = {
            let mut registry = self.registry();
            let version = registry
                .current
                .remove(app)
                .ok_or_else(|| NodeError::NoApp {
                    app: app.to_owned(),
                })?;
            registry.note(&version);
            version
        };
        self.let_go(&version, Some(drain), false)
    }

    /// Removes a version and waits until it is gone.
    fn let_go(
        &self,
        version: &Arc<Version>,
        drain: Option<Duration>,
        quietly: bool,
    ) -> Result<(), NodeError> {
        version.leave();
        let (done, hears) = bounded(1);
        self.gateway.tell(Command::Remove {
            app: version.id,
            drain,
            done: Some(done),
        });
        let wait = drain.unwrap_or(Duration::MAX).saturating_add(GONE_WAIT);
        let gone = hears.recv_timeout(wait);
        self.registry().strike(version);
        match gone {
            Ok(()) => Ok(()),
            Err(_) if quietly => Ok(()),
            Err(RecvTimeoutError::Timeout) => Err(NodeError::Killed {
                what: format!("app `{}`", version.name()),
                after: wait,
            }),
            Err(RecvTimeoutError::Disconnected) => {
                self.health.check()?;
                Err(NodeError::Stopping)
            }
        }
    }

    /// Hands a request over and returns at once. `reply` hears what becomes of it, on a thread of
    /// the node's: it must not wait for anything. (Where the node cannot even queue the request,
    /// `reply` hears that on this thread, before this returns.)
    pub fn submit(&self, request: Request, reply: ReplyTo) -> RequestId {
        self.gateway.submit(request, reply)
    }

    /// Hands a request over and waits for all of its replies, as [`Reply`] orders them.
    pub fn call(&self, request: Request) -> Vec<Reply> {
        let (tell, hear) = crossbeam_channel::unbounded();
        // The channel closes when the node drops the closure, after the last reply.
        self.submit(request, Box::new(move |reply| drop(tell.send(reply))));
        hear.iter().collect()
    }

    /// Cancels a session. One that is not open is left as it is.
    pub fn cancel(&self, session: u64) {
        self.gateway.tell(Command::Cancel { session });
    }

    /// Everything that is deployed: by name, each name's newest version first.
    pub fn apps(&self) -> Vec<AppStatus> {
        let mut versions: Vec<Arc<Version>> = {
            let registry = self.registry();
            registry
                .current
                .values()
                .cloned()
                .chain(registry.others())
                .collect()
        };
        versions.sort_by(|a, b| (a.name(), b.number).cmp(&(b.name(), a.number)));
        versions
            .iter()
            .map(|version| AppStatus {
                name: version.name().to_owned(),
                version: version.number,
                deployed: version.deployed,
                leaving: version.is_leaving(),
                schedulers: version.division.homes().collect(),
                executors: self.roster.of(version.id),
                trouble: self.troubles.of(version.id),
                stats: self
                    .condition(version.id, ANSWER_WAIT)
                    .ok()
                    .flatten()
                    .map(|it| it.stats),
            })
            .collect()
    }

    /// Names of the apps that take requests, in order.
    pub fn app_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.registry().current.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    /// The schedulers that have a share of an app's current version; none where there is no such
    /// app.
    pub fn schedulers_of(&self, app: &str) -> Vec<u8> {
        let registry = self.registry();
        let version = registry.current.get(app);
        version.map_or_else(Vec::new, |version| version.division.homes().collect())
    }

    /// Counters of an app's current version; `None` where there is no such app, or no answer.
    pub fn stats(&self, app: &str) -> Option<AppStats> {
        let id = self.registry().current.get(app)?.id;
        self.condition(id, ANSWER_WAIT)
            .ok()
            .flatten()
            .map(|condition| condition.stats)
    }

    /// Asks the scheduler about a version; `None` where it knows none, or says nothing for so long.
    fn condition(&self, app: u16, wait: Duration) -> Result<Option<Condition>, NodeError> {
        let (answer, hears) = bounded(1);
        self.gateway.tell(Command::Stats { app, answer });
        match hears.recv_timeout(wait) {
            Ok(condition) => Ok(condition),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                self.health.check()?;
                Ok(None)
            }
        }
    }

    /// What is wrong with apps whose executors fail again and again: name and sentence.
    pub fn troubles(&self) -> Vec<(String, String)> {
        let versions: Vec<Arc<Version>> = {
            let registry = self.registry();
            let current = registry.current.values().cloned();
            current.chain(registry.others()).collect()
        };
        let trouble = |version: &Arc<Version>| self.troubles.of(version.id);
        let named = |version: &Arc<Version>| Some((version.name().to_owned(), trouble(version)?));
        versions.iter().filter_map(named).collect()
    }

    /// What functions print, and the node's notices. Several receivers share the lines. Those that
    /// nobody takes are dropped, the oldest first, and counted.
    pub fn output(&self) -> Receiver<Output> {
        self.outlet.receiver()
    }

    /// Lines of output ever dropped for want of a reader.
    pub fn output_dropped_total(&self) -> u64 {
        self.outlet.dropped_total()
    }

    /// Why the node is of no further use, once it is.
    ///
    /// # Errors
    /// The death of its scheduler or zygote.
    pub fn check(&self) -> Result<(), NodeError> {
        self.health.check()
    }

    /// What is wrong with a scheduler whose loop does not turn, where there is one. It may turn
    /// again; if it does not, the node ends.
    pub fn stuck(&self) -> Option<String> {
        self.health.stuck()
    }

    /// What an app's requests must keep to; `None` where there is no such app.
    pub fn app_limits(&self, app: &str) -> Option<AppLimits> {
        let registry = self.registry();
        let version = registry.current.get(app)?;
        let spec = &version.spec;
        Some(AppLimits {
            object_size_bytes: version.object_bytes_max(),
            cancel_on_disconnect: spec.cancel_on_disconnect,
            keep_results: Duration::from_nanos(spec.keep_results_ns),
        })
    }

    /// Open sessions that requests have opened, at most
    /// [`SESSIONS_LISTED_MAX`](crate::SESSIONS_LISTED_MAX) of them, by id.
    pub fn sessions(&self) -> Vec<SessionStatus> {
        self.ask_sessions(None)
    }

    /// An open session that a request has opened.
    pub fn session(&self, session: u64) -> Option<SessionStatus> {
        self.ask_sessions(Some(session)).pop()
    }

    fn ask_sessions(&self, session: Option<u64>) -> Vec<SessionStatus> {
        let (answer, hears) = bounded(1);
        self.gateway.tell(Command::Sessions { session, answer });
        hears.recv_timeout(ANSWER_WAIT).unwrap_or_default()
    }

    /// The dead letters of an app, the oldest first. One runs again by
    /// [`Request::retry`].
    ///
    /// # Errors
    /// No such app, or no answer.
    pub fn dead_letters(&self, app: &str) -> Result<Vec<DeadLetter>, NodeError> {
        Ok(self.ask_about_letters(app, About::List)?.letters)
    }

    /// Drops this dead letter of an app, or all; what they hold is free. Answers with how many have
    /// been dropped.
    ///
    /// # Errors
    /// No such app, or no answer.
    pub fn drop_dead_letters(&self, app: &str, letter: Option<u64>) -> Result<u64, NodeError> {
        Ok(self.ask_about_letters(app, About::Drop(letter))?.count)
    }

    fn ask_about_letters(&self, app: &str, about: About) -> Result<Letters, NodeError> {
        let (answer, hears) = bounded(1);
        let app = app.to_owned();
        self.gateway.tell(Command::Letters {
            app: app.clone(),
            about,
            answer,
        });
        match hears.recv_timeout(ANSWER_WAIT) {
            Ok(letters) => Ok(letters),
            Err(RecvTimeoutError::Timeout) => Err(NodeError::NoAnswer { after: ANSWER_WAIT }),
            Err(RecvTimeoutError::Disconnected) => {
                self.health.check()?;
                Err(NodeError::NoApp { app })
            }
        }
    }

    /// A durable object, by name.
    pub(crate) fn find_durable(&self, app: &str, bucket: &str, key: &[u8]) -> Option<Stored> {
        self.store.as_ref()?.find_by_name(app, bucket, key)
    }

    /// What a durable session has answered, as far as it is on disk.
    pub(crate) fn answer_of(&self, session: u64) -> Option<Fetched> {
        self.store.as_ref()?.answer_of(session)
    }

    /// Deletes a durable object; `done` is told once it is gone for good, or why it is not.
    pub(crate) fn delete_durable(
        &self,
        app: &str,
        bucket: &str,
        key: &[u8],
        done: impl FnOnce(Result<(), String>) + Send + 'static,
    ) {
        match &self.store {
            Some(store) => store.delete_by_name(app, bucket, key, done),
            None => done(Ok(())),
        }
    }

    /// For those who submit requests without keeping the node alive.
    pub(crate) fn gateway_handle(&self) -> GatewayHandle {
        self.gateway.clone()
    }

    /// The program that understands `__scheduler` and `__zygote`.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Where copies of libraries are kept. Removed when the node ends, unless it was given from
    /// outside; whoever ends the process without ending the node removes it. `None`: it has ended.
    pub fn directory(&self) -> Option<std::path::PathBuf> {
        let libraries = self
            .libraries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Some(libraries.as_ref()?.directory().to_owned())
    }

    /// The node is about to stop: durable sessions that are cancelled from here on, since their
    /// apps are removed, are not over, and go on at the next start.
    pub fn stopping(&self) {
        self.gateway.tell(Command::Stopping);
    }

    /// Ends everything in order: apps, executors, scheduler, zygote. Nothing is left behind.
    ///
    /// # Errors
    /// What did not leave by itself and was killed, or the death that had broken the node.
    pub fn stop(self) -> Result<(), NodeError> {
        self.shut_down()
    }

    fn shut_down(&self) -> Result<(), NodeError> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(threads) = threads.take() else {
            return Ok(());
        };
        let broken = self.health.check();
        self.stopping();
        let apps = if broken.is_ok() {
            self.remove_all()
        } else {
            Ok(())
        };
        self.health.give_up(Broken::Stopped);
        self.gateway.tell(Command::Shutdown);
        let (done, hears) = bounded(1);
        self.supervisor.tell(Order::Stop { done });
        let processes = hears.recv().unwrap_or(Ok(()));
        // A thread of ours that panicked has nothing to add.
        drop(threads.supervisor.join());
        drop(threads.gateway.join());
        drop(threads.memory.join());
        let mut registry = self.registry();
        registry.current.clear();
        registry.others.clear();
        self.libraries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        broken.and(apps).and(processes)
    }

    fn remove_all(&self) -> Result<(), NodeError> {
        let versions: Vec<Arc<Version>> = {
            let mut registry = self.registry();
            let current: Vec<Arc<Version>> = registry.current.drain().map(|it| it.1).collect();
            let all = registry.others().chain(current).collect();
            registry.others.clear();
            all
        };
        let (done, hears): (Sender<()>, _) = bounded(versions.len());
        for version in &versions {
            version.leave();
            self.gateway.tell(Command::Remove {
                app: version.id,
                drain: Some(Duration::ZERO),
                done: Some(done.clone()),
            });
        }
        drop(done);
        let until = Instant::now() + GONE_WAIT;
        for _ in &versions {
            match hears.recv_deadline(until) {
                Ok(()) => {}
                // Broken meanwhile: told below.
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(NodeError::Killed {
                        what: "an app that was told to leave".into(),
                        after: GONE_WAIT,
                    });
                }
            }
        }
        self.health.check()
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Whoever wants to know calls `stop`.
        let _ = self.shut_down();
    }
}

/// What an app's requests must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppLimits {
    /// Bytes of a body.
    pub object_size_bytes: u64,
    /// A caller that goes away cancels its session.
    pub cancel_on_disconnect: bool,
    /// How long a response can be fetched afterwards.
    pub keep_results: Duration,
}

/// A value, encoded, in a memfd; and how many bytes it has.
fn file_of(name: &str, value: &impl Serialize) -> io::Result<(OwnedFd, u64)> {
    let bytes = postcard::to_allocvec(value).map_err(io::Error::other)?;
    let file = create_sealed(&format!("pheromone-{name}"), bytes.len() as u64)?;
    let mut done = 0;
    while done < bytes.len() {
        done += rustix::io::pwrite(&file, &bytes[done..], done as u64)?;
    }
    Ok((file, bytes.len() as u64))
}

/// Opens the journal on a thread that runs where its own are to run, away from the schedulers: they
/// inherit that.
fn open_store(
    data: &Path,
    cpus: &[u32],
    gateway: GatewayHandle,
) -> Result<(Store, Recovered), NodeError> {
    let (data, cpus) = (data.to_owned(), cpus.to_owned());
    let opening = thread("opening", move || {
        crate::pin_thread(&cpus);
        Store::open(&data, gateway)
    })?;
    opening.join().unwrap_or_else(|panic| resume_unwind(panic))
}

fn thread<T: Send + 'static>(
    name: &'static str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, NodeError> {
    std::thread::Builder::new()
        .name(format!("phr-{name}"))
        .spawn(body)
        .map_err(NodeError::system(format!("start the {name} thread")))
}

/// A write beyond `RLIMIT_FSIZE` is to be an error like any other of a disk (EFBIG) and no signal
/// that kills: in this thread and all that it starts. Processes that the node starts have it back.
fn outlive_file_limit() {
    use nix::sys::signal::{SigSet, Signal};
    // It can only be refused for a signal that there is not.
    let _ = SigSet::from(Signal::SIGXFSZ).thread_block();
}

/// Each executor slot takes a few descriptors; the usual soft limit of 1024 is soon used up.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // Where it cannot be raised, apps that need more descriptors are refused with the reason.
    let _ = setrlimit(Resource::Nofile, raised);
}
