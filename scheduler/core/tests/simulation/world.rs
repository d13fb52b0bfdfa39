//! The world around the core: a clock that jumps from one thing to the next, clients, a node, a
//! network that delays, and executor processes. Everything in it comes from the seed.

mod in_place;

pub use in_place::InPlace;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pheromone_core::Core;
use pheromone_core::event::{AppId, Death, ExecutorId, Ingress, RequestId, Retry, SessionId};
use pheromone_core::spec::{BucketSpec, Entry, TriggerKind, TriggerSpec};
use pheromone_shm::message::{Ending, Extent};

use crate::across::Across;
use crate::history::{Asked, Did, Door, End, Happening, Notes, Said, Start, Words};
use crate::model::Model;
use crate::plan::{GROUPS, KEYS, Plan};
use crate::process::{Action, Allocator, Doing, Finish, Process, Run, Script, write_script};
use crate::rng::Rng;
use crate::steady::{Lineage, Outcomes};

/// Steps after which a history is taken to go on for ever.
const STEPS_MAX: u64 = 20_000;
/// Flushes after which everything must have fired.
const FLUSHES_MAX: u32 = 200;
/// What `phr_create` and a cancelled call return.
const ENOMEM: i32 = -12;
const ECANCELED: i32 = -125;

/// Something that is going to happen.
#[derive(Clone, Debug)]
enum Later {
    Request,
    /// Somebody looks at the dead letters.
    Letters,
    Cancel(SessionId),
    TakeResponse(RequestId, SessionId),
    Replace,
    Spawn(ExecutorId),
    Arrive(ExecutorId, u32, Said),
    Hear(ExecutorId, u32, Order),
    Act(ExecutorId, u32),
    TakeReleases(ExecutorId),
    Die(ExecutorId, u32, Death),
    Dying(ExecutorId, u32),
    Died(ExecutorId, u32, Death),
}

/// What a process is told.
#[derive(Clone, Debug)]
enum Order {
    Dispatch(Start),
    Object(bool),
    Inputs,
    Credit(bool),
    Adopt(u32),
    Extents(Vec<Extent>),
    Cancel(u64),
    Exit,
}

/// Who says whether the core does right.
enum Judge {
    Model(Box<Model>),
    Across(Box<Across>),
}

impl Judge {
    fn step(&mut self, now_ns: u64, happening: &Happening, dids: &[Did], core: &Core) {
        match self {
            Self::Model(model) => {
                model.step(now_ns, happening, dids.to_vec());
                model.compare(core);
            }
            Self::Across(across) => across.step(happening, dids),
        }
    }

    /// A session that is open, and what it waits for.
    fn waiting(&self) -> Option<(SessionId, String)> {
        let (open, waits_for): (_, &dyn Fn(SessionId) -> String) = match self {
            Self::Model(model) => (model.open_sessions(), &|of| model.waits_for(of)),
            Self::Across(across) => (across.open_sessions(), &|of| across.waits_for(of)),
        };
        open.first().map(|&session| (session, waits_for(session)))
    }

    fn fired_total(&self) -> u64 {
        match self {
            Self::Model(model) => model.fired_total,
            Self::Across(across) => across.fired_total,
        }
    }
}

/// What came of a history that held.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    pub steps: u64,
    pub fired: u64,
    pub sessions: u64,
    pub in_place: InPlace,
}

/// The world.
pub struct World<'t> {
    core: Core,
    notes: Notes,
    judge: Judge,
    plan: Plan,
    rng: Rng,
    time_ns: u64,
    /// The scheduler stands still until then.
    stalled_ns: u64,
    later: BTreeMap<(u64, u64), Later>,
    scheduled: u64,
    app: AppId,
    processes: BTreeMap<ExecutorId, Process>,
    incarnations: BTreeMap<ExecutorId, u32>,
    /// Ingress memory of each app, as the node knows it.
    ingress: BTreeMap<AppId, Allocator>,
    bodies: BTreeMap<RequestId, (AppId, Extent)>,
    /// What is in release rings, and whose entries have found no room.
    released: BTreeMap<ExecutorId, VecDeque<Extent>>,
    starved: BTreeSet<ExecutorId>,
    /// What invocations that may run again have done.
    scripts: BTreeMap<u64, Script>,
    /// Attempts that have begun, by their invocation and number.
    begun: BTreeSet<(u64, u32)>,
    known_sessions: Vec<SessionId>,
    /// Dead letters that there have been.
    known_letters: BTreeSet<u64>,
    requests: u64,
    actions_left: u64,
    summary: Summary,
    /// What decides what functions do, where that must not depend on order.
    lineage: Option<Lineage>,
    outcomes: Outcomes,
    trace: Option<&'t mut Vec<String>>,
}

impl<'t> World<'t> {
    /// Lives through the history of a seed. Panics where the core does something wrong.
    pub fn live(
        seed: u64,
        core: impl FnOnce(&Plan) -> Core,
        trace: Option<&'t mut Vec<String>>,
    ) -> Summary {
        let mut rng = Rng::new(seed);
        let plan = Plan::new(&mut rng.split());
        let mut world = World::new(plan, rng, core, trace);
        world.live_through();
        world.summary
    }

    /// Lives through a history of steady work, with continuation in place or without.
    pub fn live_steadily(seed: u64, continues: bool) -> (Summary, Outcomes) {
        let mut rng = Rng::new(seed);
        let plan = Plan::steady(&mut rng.split()).with_continuation(continues);
        let mut world = World::new(plan, rng, |plan| Core::new(plan.config), None);
        world.lineage = Some(Lineage::new(seed));
        world.live_through();
        (world.summary, world.outcomes)
    }

    fn new(
        plan: Plan,
        rng: Rng,
        core: impl FnOnce(&Plan) -> Core,
        trace: Option<&'t mut Vec<String>>,
    ) -> Self {
        Self {
            core: core(&plan),
            notes: Notes {
                ring_slots: plan.ring_slots,
                ..Notes::default()
            },
            judge: if plan.gathers {
                Judge::Across(Box::default())
            } else {
                Judge::Model(Box::default())
            },
            rng,
            time_ns: 1_000_000_000,
            stalled_ns: 0,
            later: BTreeMap::new(),
            scheduled: 0,
            app: AppId(0),
            processes: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            ingress: BTreeMap::new(),
            bodies: BTreeMap::new(),
            released: BTreeMap::new(),
            starved: BTreeSet::new(),
            scripts: BTreeMap::new(),
            begun: BTreeSet::new(),
            known_sessions: Vec::new(),
            known_letters: BTreeSet::new(),
            requests: 0,
            actions_left: plan.actions,
            summary: Summary::default(),
            lineage: None,
            outcomes: Outcomes::default(),
            trace,
            plan,
        }
    }

    fn live_through(&mut self) {
        self.tell(|world| format!("{:#?}", world.plan));
        self.begin();
        self.go_on();
        self.flush();
        self.nobody_waits();
        self.note_counters();
        // An app that goes takes its letters along.
        if self.rng.chance(700) {
            self.step(Happening::DropLetters(self.app, None));
            self.go_on();
            self.nothing_is_left();
        }
        self.step(Happening::Remove(self.app));
        self.go_on();
        self.must_be_gone();
        self.summary.fired = self.judge.fired_total();
    }

    fn note_counters(&mut self) {
        let stats = self.core.stats(self.app).expect("the app is there");
        self.outcomes.error_events = stats.error_events_total;
        self.outcomes.dropped = stats.dropped_total;
        self.outcomes.fired = self.judge.fired_total();
    }

    fn tell(&mut self, line: impl FnOnce(&Self) -> String) {
        if let Some(trace) = self.trace.take() {
            trace.push(line(self));
            self.trace = Some(trace);
        }
    }

    fn begin(&mut self) {
        self.deploy();
        for _ in 0..self.plan.requests {
            let at_ns = self.rng.below(self.plan.span_ns);
            self.schedule(at_ns, Later::Request);
        }
        if self.plan.is_replaced {
            let at_ns = self.rng.below(self.plan.span_ns);
            self.schedule(at_ns, Later::Replace);
        }
    }

    fn deploy(&mut self) {
        self.step(Happening::Deploy(
            self.app,
            Box::new(self.plan.spec.clone()),
        ));
    }

    fn schedule(&mut self, after_ns: u64, what: Later) {
        self.schedule_at(self.now_ns() + after_ns, what);
    }

    fn schedule_at(&mut self, at_ns: u64, what: Later) {
        self.scheduled += 1;
        self.later.insert((at_ns, self.scheduled), what);
    }

    /// The scheduler's time: where it has stood still, it takes late what came meanwhile.
    fn now_ns(&self) -> u64 {
        self.time_ns.max(self.stalled_ns)
    }

    /// Lives until nothing is left that could happen.
    fn go_on(&mut self) {
        loop {
            let next = self.later.first_key_value().map(|(&(at_ns, _), _)| at_ns);
            let timer = self.core.next_timer_ns();
            match (next, timer) {
                (None, None) => return,
                (Some(at_ns), timer) if timer.is_none_or(|timer_ns| at_ns < timer_ns) => {
                    self.time_ns = self.time_ns.max(at_ns);
                    let (_, what) = self.later.pop_first().expect("there is a first");
                    self.happen(what);
                }
                (_, Some(timer_ns)) => {
                    // A bound that is no more than the next instant is that of a whole slot.
                    let is_near = timer_ns <= self.time_ns + 1;
                    let late_ns = if is_near { self.rng.below(1024) } else { 0 };
                    self.time_ns = self.time_ns.max(timer_ns + late_ns);
                    self.step(Happening::Tick);
                }
                (Some(_), None) => unreachable!("the second arm takes it"),
            }
        }
    }

    /// Nothing more comes: what is gathered across sessions fires with what there is.
    fn flush(&mut self) {
        let gathered = |world: &Self| world.core.totals().gathered;
        for _ in 0..FLUSHES_MAX {
            if gathered(self) == 0 {
                return;
            }
            self.step(Happening::Flush(self.app));
            self.go_on();
        }
        panic!("{} objects are gathered for ever", gathered(self));
    }

    fn nobody_waits(&self) {
        if let Some((session, what)) = self.judge.waiting() {
            panic!("nothing is left to happen, and {session:?} is open with {what}");
        }
    }

    fn nothing_is_left(&self) {
        let totals = self.core.totals();
        assert_eq!(totals, Default::default(), "something is left");
        for (app, memory) in &self.ingress {
            assert!(memory.is_empty(), "ingress memory of {app:?} is left");
        }
        for (id, process) in &self.processes {
            assert!(process.memory.is_empty(), "memory of {id:?} is left");
        }
    }

    fn must_be_gone(&mut self) {
        self.nobody_waits();
        self.nothing_is_left();
        assert!(
            self.core.stats(self.app).is_none(),
            "the app is still there"
        );
        assert!(self.processes.is_empty(), "its processes are still there");
    }

    /// One step of the core, held against the model, and what follows from it around the core.
    fn step(&mut self, happening: Happening) {
        self.summary.steps += 1;
        assert!(self.summary.steps < STEPS_MAX, "it goes on for ever");
        if self.rng.chance(self.plan.misfortunes.stall) {
            self.stalled_ns = self.now_ns() + self.rng.duration(3_000_000);
        }
        // No two steps are taken at one instant.
        self.time_ns = self.now_ns() + 1;
        let now_ns = self.time_ns;
        self.tell(|_| format!("{now_ns} {happening:?}"));
        let mut room = Vec::new();
        self.core
            .step(happening.event(&mut room), now_ns, &mut self.notes);
        let dids = std::mem::take(&mut self.notes.dids);
        for did in &dids {
            self.tell(|_| format!("    {did:?}"));
        }
        self.judge.step(now_ns, &happening, &dids, &self.core);
        for did in dids {
            self.follow(did);
        }
    }

    /// What follows from something that the core does.
    fn follow(&mut self, did: Did) {
        match did {
            Did::Dispatch(id, start) => self.order(id, Order::Dispatch(start)),
            Did::Inputs(id, ..) => self.order(id, Order::Inputs),
            Did::Object(id, answer) => self.order(id, Order::Object(answer.is_ok())),
            Did::CreditAnswer(id, granted) => self.order(id, Order::Credit(granted)),
            Did::Adopt(id, count) => self.order(id, Order::Adopt(count)),
            Did::Extents(id, _, extents) => self.order(id, Order::Extents(extents)),
            Did::Exit(id) => self.order(id, Order::Exit),
            Did::Cancel(id, invocation) => {
                if let Some(process) = self.processes.get(&id) {
                    let incarnation = process.incarnation;
                    let after_ns = self.latency();
                    let order = Order::Cancel(invocation);
                    self.schedule(after_ns, Later::Hear(id, incarnation, order));
                }
            }
            Did::Credit(id, total_bytes) => {
                let process = self.processes.get_mut(&id).expect("it is alive");
                assert!(
                    process.used_bytes <= total_bytes,
                    "credit falls below what is used"
                );
                process.credit_bytes = total_bytes;
            }
            Did::Release(owner, extent, true) => self.put_release(owner, extent),
            Did::Release(owner, _, false) => {
                self.starved.insert(owner);
            }
            Did::Spawn(id) => {
                let after_ns = self.latency();
                self.schedule(after_ns, Later::Spawn(id));
            }
            Did::Kill(id, _) => {
                // One that is dead cannot be killed, and may be meant all the same.
                if let Some(process) = self.processes.get(&id) {
                    let incarnation = process.incarnation;
                    let after_ns = self.latency();
                    let death = Death::Signaled(9);
                    self.schedule(after_ns, Later::Die(id, incarnation, death));
                }
            }
            Did::Accepted(request, session) => {
                self.summary.sessions += 1;
                if let Some(lineage) = &mut self.lineage {
                    lineage.accepted(request, session);
                }
                self.bodies.remove(&request);
                self.known_sessions.push(session);
                if self.rng.chance(self.plan.misfortunes.cancel) {
                    let after_ns = self.rng.duration(2_000_000);
                    self.schedule(after_ns, Later::Cancel(session));
                }
            }
            Did::Refused(request, _) => {
                // A retry has no body.
                if let Some((app, extent)) = self.bodies.remove(&request) {
                    let memory = self.ingress.get_mut(&app);
                    memory.expect("it has memory").release(extent);
                }
            }
            Did::Respond(request, session, parts) => {
                if self.lineage.is_some() {
                    let bytes = parts.iter().map(|part| part.size_bytes);
                    self.outcomes.responds(request.0, bytes);
                }
                let after_ns = if self.rng.chance(self.plan.misfortunes.slow_client) {
                    self.rng.duration(30_000_000)
                } else {
                    self.latency()
                };
                self.schedule(after_ns, Later::TakeResponse(request, session));
            }
            Did::Removed(app) => {
                self.ingress.remove(&app);
                self.released.retain(|owner, _| owner.app != app);
                self.notes.rings.retain(|owner, _| owner.app != app);
                self.notes.words.retain(|owner, _| owner.app != app);
                self.starved.retain(|owner| owner.app != app);
                let of_app = |id: &ExecutorId| id.app == app;
                assert!(
                    !self.processes.keys().any(of_app),
                    "a process outlives its app"
                );
            }
            Did::Ended(session, end, answered) => self.session_ended(session, end, answered),
            Did::Withdraw(_, _, is_withdrawn) => self.summary.in_place.decide(is_withdrawn),
            Did::Spin(..) | Did::Grant(..) | Did::ErrorEvent(..) | Did::WriteFailure => {}
        }
    }

    fn session_ended(&mut self, session: SessionId, end: End, answered: bool) {
        if let Some(lineage) = &self.lineage {
            let request = lineage.request_of(session);
            self.outcomes.ends(request, end, answered);
        }
        if matches!(end, End::Failed(_)) {
            let after_ns = self.rng.duration(2_000_000);
            self.schedule(after_ns, Later::Letters);
        }
    }

    fn latency(&mut self) -> u64 {
        self.rng.duration(self.plan.latency_ns)
    }

    fn happen(&mut self, what: Later) {
        match what {
            Later::Request => self.request(),
            Later::Letters => self.look_at_letters(),
            Later::Cancel(session) => self.step(Happening::Cancel(session)),
            Later::TakeResponse(request, session) => {
                self.step(Happening::ResponseTaken(request, session));
            }
            Later::Replace => {
                self.step(Happening::Remove(self.app));
                self.app = AppId(self.app.0 + 1);
                self.deploy();
            }
            Later::Spawn(id) => self.spawn(id),
            Later::Arrive(id, incarnation, said) => {
                if self.is_there(id, incarnation) {
                    self.step(Happening::Said(id, said));
                }
            }
            Later::Hear(id, incarnation, order) => {
                if self.is_alive(id, incarnation) {
                    self.hear(id, order);
                }
            }
            Later::Act(id, incarnation) => {
                if self.is_alive(id, incarnation) {
                    self.act(id);
                }
            }
            Later::TakeReleases(owner) => self.take_releases(owner),
            Later::Die(id, incarnation, death) => {
                if self.is_alive(id, incarnation) {
                    self.die(id, death);
                }
            }
            Later::Dying(id, incarnation) => self.step(Happening::Dying(id, incarnation)),
            Later::Died(id, incarnation, death) => {
                self.processes.remove(&id);
                self.step(Happening::Died(id, incarnation, death));
                // Its rings go with it, and what was put there before the core knew.
                self.released.remove(&id);
                self.notes.rings.remove(&id);
                self.notes.words.remove(&id);
                self.starved.remove(&id);
            }
        }
    }

    // Clients and the node.

    fn request(&mut self) {
        let app = self.app;
        let size_bytes = self.rng.duration(400);
        let extent = self.ingress.entry(app).or_default().allocate(size_bytes);
        self.requests += 1;
        let id = RequestId(self.requests);
        self.bodies.insert(id, (app, extent));
        let joins = self.rng.chance(250) && !self.known_sessions.is_empty();
        let session = joins.then(|| *self.rng.pick(&self.known_sessions));
        let door = self.door();
        let asked = Asked {
            app,
            id,
            door,
            body: Ingress { extent, size_bytes },
            session,
            has_caller: session.is_none() && self.rng.chance(700),
            timeout_ns: self
                .rng
                .chance(150)
                .then(|| self.rng.range(50_000, 5_000_000)),
        };
        self.step(Happening::Request(match &self.lineage {
            Some(lineage) => Asked {
                door: Door::Entry,
                session: None,
                has_caller: lineage.has_caller(id.0),
                timeout_ns: None,
                ..asked
            },
            None => asked,
        }));
    }

    /// Somebody retries or drops a dead letter that there is, or has been.
    fn look_at_letters(&mut self) {
        let app = self.app;
        let there: Vec<u64> = self.core.dead_letters(app).map(|it| it.id).collect();
        self.known_letters.extend(there);
        if self.known_letters.is_empty() {
            return;
        }
        let letters: Vec<u64> = self.known_letters.iter().copied().collect();
        let letter = *self.rng.pick(&letters);
        // The judge of what gathers takes nothing for fired twice.
        let retries = !self.plan.gathers;
        match self.rng.below(10) {
            0..5 if retries => {
                self.requests += 1;
                let retry = Retry {
                    app,
                    id: RequestId(self.requests),
                    letter,
                    has_caller: self.rng.chance(500),
                    timeout_ns: self
                        .rng
                        .chance(150)
                        .then(|| self.rng.range(50_000, 5_000_000)),
                };
                self.step(Happening::Retry(retry));
            }
            5..7 => self.step(Happening::DropLetters(app, Some(letter))),
            7 => self.step(Happening::DropLetters(app, None)),
            _ => {}
        }
    }

    /// Where a request goes. Nobody outside is told the number of an automatic key, so that none
    /// goes where the text of keys decides.
    fn door(&mut self) -> Door {
        let spec = &self.plan.spec;
        let way = self.rng.below(10);
        let goes_to_entry = match spec.entry {
            Some(Entry::Bucket(bucket)) => !reads_keys(&spec.buckets[usize::from(bucket)]),
            _ => true,
        };
        if way < 2 && goes_to_entry {
            return Door::Entry;
        }
        if way < 6 {
            return Door::Function(self.rng.index(spec.functions.len()) as u16);
        }
        let bucket = self.rng.index(spec.buckets.len());
        let is_named = self.rng.chance(600) || reads_keys(&spec.buckets[bucket]);
        Door::Bucket {
            bucket: bucket as u16,
            key: is_named.then(|| (*self.rng.pick(&KEYS)).to_owned()),
            group: (*self.rng.pick(&GROUPS)).to_owned(),
        }
    }

    fn put_release(&mut self, owner: ExecutorId, extent: Extent) {
        let ring = self.released.entry(owner).or_default();
        ring.push_back(extent);
        if ring.len() == 1 {
            let after_ns = if self.rng.chance(self.plan.misfortunes.deaf) {
                self.rng.duration(20_000_000)
            } else {
                self.latency()
            };
            self.schedule(after_ns, Later::TakeReleases(owner));
        }
    }

    fn take_releases(&mut self, owner: ExecutorId) {
        let is_ingress = owner.slot == self.plan.spec.ingress_slot();
        if let Some(process) = self.processes.get(&owner)
            && matches!(process.doing, Doing::Booting | Doing::Adopting)
        {
            // It learns first what there is.
            let after_ns = 1_000 + self.latency();
            self.schedule(after_ns, Later::TakeReleases(owner));
            return;
        }
        let extents = self.released.remove(&owner).unwrap_or_default();
        self.notes.rings.remove(&owner);
        for extent in extents {
            if is_ingress {
                self.ingress
                    .get_mut(&owner.app)
                    .expect("it is there")
                    .release(extent);
            } else if let Some(process) = self.processes.get_mut(&owner) {
                process.memory.release(extent);
            }
        }
        if self.starved.remove(&owner) {
            self.step(Happening::ReleaseRoom(owner));
        }
    }

    // Processes.

    fn is_there(&self, id: ExecutorId, incarnation: u32) -> bool {
        self.processes
            .get(&id)
            .is_some_and(|process| process.incarnation == incarnation)
    }

    fn is_alive(&self, id: ExecutorId, incarnation: u32) -> bool {
        self.is_there(id, incarnation) && !self.processes[&id].is_dead
    }

    fn process(&mut self, id: ExecutorId) -> &mut Process {
        self.processes.get_mut(&id).expect("it is there")
    }

    fn spawn(&mut self, id: ExecutorId) {
        if self.rng.chance(self.plan.misfortunes.spawn) {
            self.step(Happening::SpawnFailed(id));
            return;
        }
        let incarnation = self.incarnations.entry(id).or_default();
        *incarnation += 1;
        let incarnation = *incarnation;
        self.processes.insert(id, Process::new(incarnation));
        self.notes.words.insert(id, Words::default());
        self.step(Happening::Started(id, incarnation));
        if self.rng.chance(self.plan.misfortunes.spawn) {
            let after_ns = self.latency();
            let death = Death::Exited(1);
            self.schedule(after_ns, Later::Die(id, incarnation, death));
        } else {
            self.say(id, Said::Ready);
            if incarnation == 1 {
                self.process(id).doing = Doing::Waiting;
            }
        }
    }

    /// A process says something, which arrives in its turn.
    fn say(&mut self, id: ExecutorId, said: Said) {
        let behind_ns = self.rng.duration(self.plan.behind_ns);
        let at_ns = self.now_ns() + self.latency() + behind_ns;
        let process = self.process(id);
        process.said_ns = process.said_ns.max(at_ns);
        let (at_ns, incarnation) = (process.said_ns, process.incarnation);
        self.schedule_at(at_ns, Later::Arrive(id, incarnation, said));
    }

    fn order(&mut self, id: ExecutorId, order: Order) {
        let at_ns = self.now_ns() + self.latency();
        let process = self.process(id);
        process.told_ns = process.told_ns.max(at_ns);
        let (at_ns, incarnation) = (process.told_ns, process.incarnation);
        self.schedule_at(at_ns, Later::Hear(id, incarnation, order));
    }

    /// A process is dead: what it has said is heard to the end.
    fn die(&mut self, id: ExecutorId, death: Death) {
        let process = self.process(id);
        process.is_dead = true;
        process.run = None;
        let (incarnation, heard_ns) = (process.incarnation, process.said_ns);
        if self.rng.chance(700) {
            self.schedule(0, Later::Dying(id, incarnation));
        }
        let at_ns = heard_ns.max(self.now_ns()) + self.latency();
        self.schedule_at(at_ns, Later::Died(id, incarnation, death));
    }

    fn hear(&mut self, id: ExecutorId, order: Order) {
        match order {
            Order::Dispatch(start) => self.begin_run(id, start),
            Order::Object(found) => {
                let process = self.process(id);
                if let Some(run) = &mut process.run {
                    run.held += u32::from(found);
                }
                self.resume(id);
            }
            Order::Inputs => self.resume(id),
            Order::Credit(granted) => {
                let gives_up = self.rng.chance(500);
                if let Some(run) = &mut self.process(id).run
                    && !granted
                {
                    run.todo.pop_front();
                    run.gives_up = gives_up;
                }
                self.resume(id);
            }
            Order::Adopt(0) => self.process(id).doing = Doing::Waiting,
            Order::Adopt(count) => {
                let process = self.process(id);
                process.adopts = count as usize;
                process.doing = Doing::Adopting;
                self.say(id, Said::FetchExtents { first: 0 });
            }
            Order::Extents(extents) => {
                let process = self.process(id);
                process.adopted.extend(extents);
                if process.adopted.len() < process.adopts {
                    let first = process.adopted.len() as u32;
                    self.say(id, Said::FetchExtents { first });
                } else {
                    process.memory = Allocator::adopt(&process.adopted);
                    process.doing = Doing::Waiting;
                }
            }
            Order::Cancel(invocation) => {
                let process = self.process(id);
                process.cancel_word = invocation;
                if let Some(run) = &mut process.run {
                    run.is_cancelled |= run.start.invocation == invocation;
                }
            }
            Order::Exit => {
                if !self.rng.chance(self.plan.misfortunes.stubborn) {
                    let incarnation = self.process(id).incarnation;
                    let after_ns = self.latency();
                    let death = Death::Exited(0);
                    self.schedule(after_ns, Later::Die(id, incarnation, death));
                }
            }
        }
    }

    /// A process has been answered.
    fn resume(&mut self, id: ExecutorId) {
        if self.process(id).doing == Doing::Asking {
            self.process(id).doing = Doing::Running;
            self.act_later(id, 0);
        }
    }

    fn act_later(&mut self, id: ExecutorId, work_ns: u64) {
        let incarnation = self.process(id).incarnation;
        let after_ns = work_ns + self.rng.duration(2_000);
        self.schedule(after_ns, Later::Act(id, incarnation));
    }

    /// An attempt begins, which none has done before.
    fn note_start(&mut self, start: &Start) {
        let attempt = (start.invocation, start.attempt);
        assert!(self.begun.insert(attempt), "{start:?} begins twice");
        if let Some(lineage) = &self.lineage {
            self.outcomes
                .begins(lineage.request_of(start.session), start);
        }
    }

    fn begin_run(&mut self, id: ExecutorId, start: Start) {
        self.note_start(&start);
        let script = self.script(&start);
        let is_stubborn = self.rng.chance(self.plan.misfortunes.stubborn);
        let process = self.process(id);
        assert_eq!(process.doing, Doing::Waiting, "{id:?} is given work");
        process.doing = Doing::Running;
        let is_new = process.loaded.insert(start.function);
        let word = process.cancel_word;
        let mut run = Run::new(start, script, is_stubborn);
        run.is_cancelled = run.start.invocation == word;
        if run.finish == Finish::NotLoaded && is_new {
            process.doing = Doing::Waiting;
            process.loaded.remove(&run.start.function);
            let ending = Ending::NotLoaded;
            self.say(id, Said::Complete { status: -2, ending });
            return;
        }
        process.run = Some(run.of_loaded());
        if is_new {
            self.say(id, Said::Loaded);
        }
        self.act_later(id, 0);
    }

    /// What an attempt does: mostly what the one before it has done, so that it repeats itself.
    fn script(&mut self, start: &Start) -> Script {
        if let Some(lineage) = &mut self.lineage {
            return lineage.script(start);
        }
        let mut rng = self.rng.split();
        let mut script = write_script(&mut rng, &self.plan, start, &mut self.actions_left);
        if let Some(before) = self.scripts.get(&start.invocation)
            && rng.chance(800)
        {
            script.actions.clone_from(&before.actions);
        }
        self.scripts.insert(start.invocation, script.clone());
        script
    }

    /// A function does the next thing.
    fn act(&mut self, id: ExecutorId) {
        let process = self.process(id);
        if process.doing != Doing::Running {
            return;
        }
        let run = process.run.as_mut().expect("it runs something");
        if run.is_cancelled && !run.is_stubborn {
            return self.finish(id, Finish::Return(ECANCELED));
        }
        if run.gives_up {
            return self.finish(id, Finish::Return(ENOMEM));
        }
        // A crash comes anywhere, also before everything has been done.
        let crashes = run.finish == Finish::Crash && self.rng.chance(250);
        let run = self.process(id).run.as_mut().expect("it runs something");
        let finish = run.finish;
        match run.todo.front().cloned() {
            Some(action) if !crashes => self.perform(id, &action),
            _ => self.finish(id, finish),
        }
    }

    fn perform(&mut self, id: ExecutorId, action: &Action) {
        let mut work_ns = 0;
        let run = self.process(id).run.as_mut().expect("it runs something");
        let mut asks = false;
        let said = match action {
            Action::Work(ns) => {
                work_ns = *ns;
                None
            }
            Action::Publish(_, size_bytes) | Action::Respond(_, size_bytes) => {
                match self.process(id).allocate(*size_bytes) {
                    Err(bytes) => {
                        self.process(id).doing = Doing::Asking;
                        return self.say(id, Said::NeedCredit { bytes });
                    }
                    Ok(extent) => Some(self.fill(id, action, extent, *size_bytes)),
                }
            }
            Action::Forward(sent, object) => {
                let label = run.label(sent);
                let last = run.held.saturating_sub(1);
                let got = run.held > run.start.inputs.len() as u32;
                let object = if got && self.rng.chance(300) {
                    last
                } else {
                    *object
                };
                Some(Said::Forward { label, object })
            }
            Action::RespondParts(objects) => {
                if self.rng.chance(200) && !objects.is_empty() {
                    let (first, objects) = (vec![objects[0]], objects[1..].to_vec());
                    let more = true;
                    self.say(
                        id,
                        Said::RespondParts {
                            more,
                            objects: first,
                        },
                    );
                    Some(Said::RespondParts {
                        more: false,
                        objects,
                    })
                } else {
                    let objects = objects.clone();
                    Some(Said::RespondParts {
                        more: false,
                        objects,
                    })
                }
            }
            Action::Get(bucket, key) => {
                asks = true;
                let (bucket, key) = (*bucket, key.clone());
                Some(Said::Get { bucket, key })
            }
            Action::ReleaseHold(bucket, key) => {
                let (bucket, key) = (*bucket, key.clone());
                Some(Said::ReleaseHold { bucket, key })
            }
            Action::Join(trigger, keys) => {
                let trigger = *trigger;
                let (first, keys) = keys.split_at(self.rng.index(keys.len() + 1));
                if !first.is_empty() {
                    let keys = first.to_vec();
                    self.say(
                        id,
                        Said::Join {
                            trigger,
                            more: true,
                            keys,
                        },
                    );
                }
                let keys = keys.to_vec();
                Some(Said::Join {
                    trigger,
                    more: false,
                    keys,
                })
            }
            Action::Redundant(trigger, k, n) => {
                let (trigger, k, n) = (*trigger, *k, *n);
                Some(Said::Redundant { trigger, k, n })
            }
            Action::Expect(trigger, sources) => {
                let (trigger, sources) = (*trigger, *sources);
                Some(Said::ExpectSources { trigger, sources })
            }
            Action::FailSession(failed) => Some(Said::FailSession(*failed)),
            Action::CloseSource(trigger) => Some(Said::CloseSource { trigger: *trigger }),
            Action::FetchInputs => {
                asks = true;
                let first = self.rng.below(u64::from(run_inputs(&self.processes[&id]))) as u32;
                Some(Said::FetchInputs { first })
            }
        };
        if let Some(said) = said {
            self.say(id, said);
        }
        let process = self.process(id);
        process
            .run
            .as_mut()
            .expect("it runs something")
            .todo
            .pop_front();
        if asks {
            process.doing = Doing::Asking;
        } else {
            self.act_later(id, work_ns);
        }
    }

    /// The message that goes with memory that has been filled.
    fn fill(&mut self, id: ExecutorId, action: &Action, extent: Extent, size_bytes: u64) -> Said {
        if let Action::Publish(sent, _) = action
            && let Some(offer) = self.offer(id, sent, extent, size_bytes)
        {
            return offer;
        }
        let run = self.process(id).run.as_mut().expect("it runs something");
        match action {
            Action::Publish(sent, _) => Said::Publish {
                label: run.label(sent),
                extent,
                size_bytes,
            },
            Action::Respond(to, _) => Said::Respond {
                to: *to,
                extent,
                size_bytes,
            },
            other => unreachable!("{other:?} fills no memory"),
        }
    }

    fn finish(&mut self, id: ExecutorId, finish: Finish) {
        if finish == Finish::Return(0) && self.continue_in_place(id) {
            return;
        }
        let process = self.process(id);
        let (status, ending) = match finish {
            Finish::Crash => return self.die(id, Death::Signaled(11)),
            Finish::Hang => {
                process.doing = Doing::Hanging;
                return;
            }
            Finish::Return(status) => (status, Ending::Returned),
            Finish::StrayThreads => (0, Ending::StrayThreads),
            Finish::NotLoaded => unreachable!("it has been loaded"),
        };
        process.run = None;
        process.doing = Doing::Waiting;
        self.say(id, Said::Complete { status, ending });
    }
}

/// Whether a trigger of the bucket puts objects in order of their keys, or looks for them.
fn reads_keys(bucket: &BucketSpec) -> bool {
    let reads = |trigger: &TriggerSpec| {
        matches!(
            trigger.kind,
            TriggerKind::DynamicJoin
                | TriggerKind::DynamicGroup {
                    order_by_key: true,
                    ..
                }
        )
    };
    bucket.triggers.iter().any(reads)
}

fn run_inputs(process: &Process) -> u32 {
    process
        .run
        .as_ref()
        .map_or(0, |run| run.start.inputs.len() as u32)
}
