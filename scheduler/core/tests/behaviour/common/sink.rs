//! The recording sink: it remembers what the core decided and objects to what cannot be.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use pheromone_core::event::{
    AppId, DurableObject, EXTENTS_PER_MESSAGE_MAX, ExecutorId, Failure, FiredInvocation,
    HandedLetter, Outcome, Part, Refusal, Request, RequestId, Response, RestoredSession, Retry,
    SessionId, Sink, Ticket, Trouble,
};
use pheromone_core::spec::{AppSpec, Retain, TriggerKind};
use pheromone_core::{CoreConfig, PeerMessage, SpinPolicy};
use pheromone_shm::events::{EVENTS_ALWAYS_FIT, TriggerEvent};
use pheromone_shm::message::{Dispatch, Extent, Input, ToExecutor};

use super::executor::{Executor, Memory, Open, Seen, Told};

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub request: RequestId,
    pub outcome: End,
    pub answered: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Responded,
    Completed,
    Failed(Failure),
    TimedOut,
    Cancelled,
}

impl Ended {
    pub fn failure(&self) -> &Failure {
        match &self.outcome {
            End::Failed(failure) => failure,
            other => panic!("it did not fail: {other:?}"),
        }
    }
}

/// A response that was given.
#[derive(Clone, Debug)]
pub struct Responded {
    pub request: RequestId,
    pub http_status: u16,
    pub content_type: Vec<u8>,
    pub parts: Vec<Part>,
    pub by: u64,
}

/// An object that is to be written to disk.
#[derive(Clone, Debug)]
pub struct ToWrite {
    pub app: AppId,
    pub ticket: Ticket,
    pub seen: Seen,
    pub author: u64,
    pub ordinal: Option<u32>,
    /// How much had been asked of the disk before.
    pub asked_before: u64,
    pub retain: Retain,
    pub replace: bool,
}

/// A firing that is to be written to disk.
#[derive(Clone, Debug)]
pub struct ToRecord {
    pub app: AppId,
    pub ticket: Ticket,
    pub session: SessionId,
    pub invocation: u64,
    pub bucket: u16,
    pub trigger: u16,
    pub function: u16,
    pub inputs: Vec<u64>,
    pub window: Option<(u64, u64)>,
    pub asked_before: u64,
}

/// A success that is to be written to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Success {
    pub session: SessionId,
    pub invocation: u64,
    pub asked_before: u64,
}

/// The sink.
pub struct Recorder {
    config: CoreConfig,
    pub apps: BTreeMap<AppId, AppSpec>,
    pub executors: BTreeMap<ExecutorId, Executor>,
    incarnations: HashMap<ExecutorId, u32>,
    asked: HashMap<ExecutorId, u16>,
    /// Whose each slot is: the last core to have asked for its process.
    pub owners: BTreeMap<ExecutorId, u8>,
    pub memory: HashMap<ExecutorId, Memory>,
    pub spawns: VecDeque<ExecutorId>,
    pub kills: VecDeque<(ExecutorId, String)>,
    pub exits: VecDeque<ExecutorId>,
    pub spawned_total: u64,
    pub dispatched_total: u64,
    pub credits_told: u64,
    /// Executors, in the order of dispatches, with the function.
    pub dispatches: Vec<(ExecutorId, u16)>,
    /// What was dispatched, for an oracle to compare.
    pub started: Vec<Open>,
    pub accepted: HashMap<RequestId, SessionId>,
    pub refused: HashMap<RequestId, Refusal>,
    bodies: HashMap<RequestId, (ExecutorId, Vec<Extent>)>,
    pub responses: HashMap<SessionId, Responded>,
    /// Payloads that the node may still read.
    pub unread: HashMap<SessionId, (AppId, Vec<Part>)>,
    pub ended: HashMap<SessionId, Ended>,
    pub error_events: Vec<(SessionId, String)>,
    pub removed: Vec<AppId>,
    /// Regions to be swept, and what is live there.
    pub sweeps: Vec<(ExecutorId, Vec<Extent>)>,
    /// What has last been told of processes that fail again and again.
    pub trouble: Option<Trouble>,
    /// Failures that are to be written.
    pub unwritten: VecDeque<(AppId, Ticket, Failure)>,
    /// Dead letters for other versions.
    pub handed: VecDeque<(AppId, HandedLetter)>,
    /// Objects that are to be written to disk.
    pub writes: VecDeque<ToWrite>,
    /// Firings that are to be written to disk.
    pub firings: VecDeque<ToRecord>,
    /// Successes that are to be.
    pub successes: VecDeque<Success>,
    asked_of_disk: u64,
    /// Sessions that had been answered when they were restored.
    pub answered_before: HashSet<SessionId>,
    /// Sessions of which outside parties' objects are written before they are let in.
    written_first: HashSet<SessionId>,
    /// Durable objects that are looked for: by which ticket, in which bucket, under which key.
    pub loads: VecDeque<(AppId, Ticket, u16, Vec<u8>)>,
    /// Durable objects that were deleted.
    pub deletes: Vec<(AppId, u16, Vec<u8>)>,
    /// For other schedulers.
    pub peers: VecDeque<(u8, PeerMessage)>,
    /// Releases that still find room; `None`: any number.
    pub release_room: Option<usize>,
    pub starved: Vec<ExecutorId>,
    pub released_total: u64,
    /// What each executor has been told, and what has been asked for it, in words; `None`: that is
    /// not written down.
    pub log: Option<BTreeMap<ExecutorId, Vec<String>>>,
}

impl Recorder {
    pub fn new(config: CoreConfig) -> Self {
        Self {
            config,
            apps: BTreeMap::new(),
            executors: BTreeMap::new(),
            incarnations: HashMap::new(),
            asked: HashMap::new(),
            owners: BTreeMap::new(),
            memory: HashMap::new(),
            spawns: VecDeque::new(),
            kills: VecDeque::new(),
            exits: VecDeque::new(),
            spawned_total: 0,
            dispatched_total: 0,
            credits_told: 0,
            dispatches: Vec::new(),
            started: Vec::new(),
            accepted: HashMap::new(),
            refused: HashMap::new(),
            bodies: HashMap::new(),
            responses: HashMap::new(),
            unread: HashMap::new(),
            ended: HashMap::new(),
            error_events: Vec::new(),
            removed: Vec::new(),
            sweeps: Vec::new(),
            trouble: None,
            unwritten: VecDeque::new(),
            handed: VecDeque::new(),
            writes: VecDeque::new(),
            firings: VecDeque::new(),
            successes: VecDeque::new(),
            asked_of_disk: 0,
            answered_before: HashSet::new(),
            written_first: HashSet::new(),
            loads: VecDeque::new(),
            deletes: Vec::new(),
            peers: VecDeque::new(),
            release_room: None,
            starved: Vec::new(),
            released_total: 0,
            log: None,
        }
    }

    fn log(&mut self, id: ExecutorId, what: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.entry(id).or_default().push(what());
        }
    }

    /// From here on another scheduler decides.
    pub fn turn_to(&mut self, scheduler_index: u8) {
        self.config.scheduler_index = scheduler_index;
    }

    /// A process that was asked for comes to exist.
    pub fn start(&mut self, id: ExecutorId) -> u32 {
        let core = self.asked.remove(&id).expect("it was asked for");
        let incarnation = self.incarnations.entry(id).or_default();
        *incarnation += 1;
        let executor = Executor {
            incarnation: *incarnation,
            core,
            ..Executor::default()
        };
        assert!(
            self.executors.insert(id, executor).is_none(),
            "one process per slot"
        );
        *incarnation
    }

    /// A process that was asked for does not come to exist.
    pub fn do_not_start(&mut self, id: ExecutorId) {
        self.asked.remove(&id).expect("it was asked for");
    }

    pub fn is_alive(&self, id: ExecutorId) -> bool {
        self.executors.contains_key(&id)
    }

    /// A process dies. What it had not sent is nobody's; its successor learns what is live.
    pub fn bury(&mut self, id: ExecutorId) {
        self.executors.remove(&id);
        self.kills.retain(|(killed, _)| *killed != id);
        self.exits.retain(|exited| *exited != id);
        self.starved.retain(|starved| *starved != id);
    }

    pub fn note_request(&mut self, request: &Request<'_>) {
        let slot = self.apps.get(&request.app).map_or(0, AppSpec::ingress_slot);
        let owner = ExecutorId {
            app: request.app,
            slot,
        };
        let mut extents = vec![request.body.extent];
        extents.extend(request.headers.map(|(_, extent)| extent));
        self.bodies.insert(request.id, (owner, extents));
    }

    pub fn note_restored(&mut self, restored: &RestoredSession) {
        let (app, slot) = (restored.app, self.apps[&restored.app].ingress_slot());
        let bodies = (ExecutorId { app, slot }, restored.extents().collect());
        self.bodies.insert(restored.request, bodies);
        if restored.answered_by != 0 {
            self.answered_before.insert(restored.session);
        }
    }

    fn asked_of_disk(&mut self) -> u64 {
        self.asked_of_disk += 1;
        self.asked_of_disk
    }

    /// A retry has no body of its own.
    pub fn note_retry(&mut self, retry: &Retry) {
        let owner = ExecutorId {
            app: retry.app,
            slot: 0,
        };
        self.bodies.insert(retry.id, (owner, Vec::new()));
    }

    fn runner(&mut self, id: ExecutorId) -> &mut Executor {
        let executor = self.executors.get_mut(&id);
        executor.unwrap_or_else(|| panic!("{id:?} is spoken to, but there is no such process"))
    }

    /// Memory that somebody reads is allocated.
    pub fn check(&self) {
        for (id, executor) in &self.executors {
            for seen in executor.open.iter().flat_map(Open::reads) {
                self.check_allocated(id.app, seen.part());
            }
        }
        for write in &self.writes {
            self.check_allocated(write.app, write.seen.part());
        }
        for (app, parts) in self.unread.values() {
            for &part in parts {
                self.check_allocated(*app, part);
            }
        }
        self.check_spinners();
        self.check_concurrency();
    }

    fn check_concurrency(&self) {
        for (&app, spec) in &self.apps {
            for (function, index) in spec.functions.iter().zip(0u16..) {
                let Some(most) = function.max_concurrency else {
                    continue;
                };
                let executors = self.executors.iter().filter(|(id, _)| id.app == app);
                let running = executors
                    .filter(|(_, executor)| executor.runs(index))
                    .count();
                assert!(
                    running <= most as usize,
                    "`{}` runs {running} times",
                    function.name
                );
            }
        }
    }

    fn check_allocated(&self, app: AppId, part: Part) {
        let owner = ExecutorId {
            app,
            slot: part.region,
        };
        let memory = self.memory.get(&owner);
        assert!(
            memory.is_some_and(|memory| memory.holds(part.offset_units)),
            "{part:?} of {app:?} is read, but not allocated"
        );
    }

    fn check_spinners(&self) {
        let mut spinners = BTreeMap::new();
        for (&id, executor) in &self.executors {
            if executor.may_spin {
                let other = spinners.insert(executor.core, id);
                assert_eq!(other, None, "two executors of a core may spin");
                assert_ne!(self.config.spin, SpinPolicy::Never);
            }
        }
    }

    /// No live process and no ingress region has anything allocated that was published.
    pub fn assert_memory_free(&self) {
        for (id, memory) in &self.memory {
            let is_ingress = self
                .apps
                .get(&id.app)
                .is_some_and(|app| app.ingress_slot() == id.slot);
            if is_ingress || self.executors.contains_key(id) {
                assert!(memory.live.is_empty(), "{id:?} leaks {:?}", memory.live);
            }
        }
    }
}

impl Sink for Recorder {
    fn send(&mut self, id: ExecutorId, message: &ToExecutor<'_>) {
        self.log(id, || format!("{message:?}"));
        let executor = self.runner(id);
        match message {
            ToExecutor::Adopt { extent_count } => {
                executor.adopting = (*extent_count > 0).then_some(*extent_count);
                if *extent_count == 0 {
                    self.memory.remove(&id);
                }
            }
            ToExecutor::Credit { granted } => executor.credit_answer = Some(*granted),
            ToExecutor::Persisted { status } => executor.persist_answer = Some(*status),
            ToExecutor::Object { status, input } => {
                let answer = match input {
                    Some(input) => {
                        assert_eq!(*status, 0);
                        let seen = Seen::new(input);
                        let open = executor.open.as_mut().expect("only who runs gets");
                        open.got.push(seen.clone());
                        Ok(seen)
                    }
                    None => Err(*status),
                };
                executor.object_answer = Some(answer);
            }
            ToExecutor::Parent { count, session } => {
                executor.parent_answer = Some((*count, *session));
            }
            ToExecutor::Exit => {
                assert!(!std::mem::replace(&mut executor.told_to_exit, true));
                assert!(
                    executor.open.is_none() && executor.call.is_none(),
                    "it is told to leave with work open"
                );
                self.exits.push_back(id);
            }
            other => panic!("{other:?} has an action of its own"),
        }
    }

    fn dispatch<'a>(
        &mut self,
        id: ExecutorId,
        dispatch: &Dispatch<'a>,
        inputs: impl Iterator<Item = Input<'a>>,
    ) {
        self.dispatched_total += 1;
        self.dispatches.push((id, dispatch.function));
        let inputs = inputs.map(|input| Seen::new(&input)).collect();
        let executor = self
            .executors
            .get_mut(&id)
            .expect("there is such a process");
        assert!(executor.open.is_none(), "one dispatch is open at a time");
        assert!(!executor.told_to_exit && !executor.killed && executor.adopting.is_none());
        let open = Open::new(dispatch, inputs);
        executor.open = Some(open.clone());
        self.log(id, || format!("{open:?}"));
        self.started.push(open);
        let session = SessionId(dispatch.session);
        assert!(
            !self.ended.contains_key(&session),
            "work of an ended session starts"
        );
    }

    fn inputs<'a>(&mut self, id: ExecutorId, first: u32, inputs: impl Iterator<Item = Input<'a>>) {
        let inputs = inputs.map(|input| Seen::new(&input)).collect();
        self.runner(id).refetched = Some((first, inputs));
    }

    fn extents(&mut self, id: ExecutorId, first: u32, extents: impl Iterator<Item = Extent>) {
        let executor = self.runner(id);
        assert_eq!(executor.adopted.len(), first as usize);
        let before = executor.adopted.len();
        executor.adopted.extend(extents);
        assert!(executor.adopted.len() - before <= EXTENTS_PER_MESSAGE_MAX);
        let count = executor.adopting.expect("it adopts") as usize;
        assert!(executor.adopted.len() <= count);
        if executor.adopted.len() < count {
            return;
        }
        executor.adopting = None;
        let mut memory = Memory::new();
        let mut end = 0;
        for &extent in &executor.adopted {
            assert!(
                u64::from(extent.offset_units) >= end,
                "what is adopted is disjoint"
            );
            end = extent.end_units();
            memory.insert(extent);
        }
        memory.start_after(end as u32);
        self.memory.insert(id, memory);
    }

    fn events<'a>(
        &mut self,
        id: ExecutorId,
        trigger: u16,
        events: impl ExactSizeIterator<Item = TriggerEvent<'a>>,
    ) {
        assert!(events.len() > 0 && events.len() <= EVENTS_ALWAYS_FIT);
        let spec = &self.apps[&id.app];
        let triggers = spec.buckets.iter().flat_map(|bucket| &bucket.triggers);
        let mut customs = (0u16..)
            .zip(triggers)
            .filter(|(_, trigger)| matches!(trigger.kind, TriggerKind::Custom { .. }));
        let at = usize::from(id.slot - spec.pool_slots());
        assert_eq!(customs.nth(at).map(|(number, _)| number), Some(trigger));
        let told: Vec<Told> = events.map(|event| Told::new(&event)).collect();
        for event in &told {
            let session = match event {
                Told::Object(_, seen) => seen.session,
                Told::SessionEnd(session) => *session,
                Told::SessionGone(_) | Told::Tick(_) => continue,
            };
            let is_over = self.ended.contains_key(&SessionId(session));
            assert!(!is_over, "an ended session is decided about");
        }
        let executor = self.runner(id);
        assert!(executor.call.is_none(), "one call is open at a time");
        assert!(!executor.told_to_exit && !executor.killed);
        executor.call = Some(told);
    }

    fn release(&mut self, owner: ExecutorId, extent: Extent) -> bool {
        self.log(owner, || format!("release {extent:?}"));
        if let Some(room) = &mut self.release_room {
            if *room == 0 {
                self.starved.push(owner);
                return false;
            }
            *room -= 1;
        }
        self.released_total += 1;
        let is_ingress = self.apps[&owner.app].ingress_slot() == owner.slot;
        assert!(
            is_ingress || self.executors.contains_key(&owner),
            "{owner:?} is dead"
        );
        let memory = self.memory.get_mut(&owner).expect("it has allocated");
        memory.release(extent);
        true
    }

    fn credit(&mut self, id: ExecutorId, total_bytes: u64) {
        self.log(id, || format!("credit {total_bytes}"));
        self.credits_told += 1;
        let executor = self.runner(id);
        assert!(
            executor.used_bytes <= total_bytes,
            "credit never goes below what is used"
        );
        assert!(
            total_bytes >= executor.credit_total_bytes || executor.open.is_none(),
            "credit falls only between dispatches"
        );
        executor.credit_total_bytes = total_bytes;
    }

    fn permit_spin(&mut self, id: ExecutorId, permitted: bool) {
        self.log(id, || format!("may spin: {permitted}"));
        if let Some(executor) = self.executors.get_mut(&id) {
            assert_ne!(executor.may_spin, permitted, "only changes are told");
            executor.may_spin = permitted;
        }
    }

    fn cancel(&mut self, id: ExecutorId, invocation: u64) {
        self.log(id, || format!("cancel {invocation}"));
        let executor = self.runner(id);
        if executor.passed.contains(&invocation) {
            // It is ahead of what has been heard.
            return;
        }
        let open = executor.open.as_mut().expect("only what runs is cancelled");
        assert_eq!(open.invocation, invocation);
        assert!(
            !std::mem::replace(&mut open.cancelled, true),
            "cancelled once"
        );
    }

    fn grant(&mut self, executor: ExecutorId, first: u64) {
        self.log(executor, || format!("grant {first}"));
        self.runner(executor).grant = first;
    }

    fn withdraw(&mut self, executor: ExecutorId, invocation: u64) -> bool {
        self.log(executor, || format!("withdraw {invocation}"));
        let executor = self.executors.get(&executor);
        executor.is_none_or(|executor| executor.claim.withdraw(invocation))
    }

    fn spawn(&mut self, id: ExecutorId, core: u16) {
        self.spawned_total += 1;
        assert!(core < self.config.executor_cores.max(1));
        let spec = &self.apps[&id.app];
        let of_trigger = spec.pool_slots()..spec.executor_slots();
        assert!(id.slot < spec.pool_slots() || of_trigger.contains(&id.slot));
        assert!(!self.executors.contains_key(&id), "the slot is taken");
        assert!(self.asked.insert(id, core).is_none(), "asked for once");
        self.owners.insert(id, self.config.scheduler_index);
        self.spawns.push_back(id);
    }

    fn kill(&mut self, id: ExecutorId, why: &str) {
        let executor = self.runner(id);
        assert!(
            !std::mem::replace(&mut executor.killed, true),
            "killed once"
        );
        self.exits.retain(|exited| *exited != id);
        self.kills.push_back((id, why.to_owned()));
    }

    fn accepted(&mut self, request: RequestId, session: SessionId) {
        assert_ne!(session.0, 0);
        assert!(self.bodies.contains_key(&request));
        assert!(
            self.accepted.insert(request, session).is_none(),
            "accepted once"
        );
    }

    fn refused(&mut self, request: RequestId, refusal: Refusal) {
        assert!(!self.accepted.contains_key(&request));
        assert!(
            self.refused.insert(request, refusal).is_none(),
            "refused once"
        );
        let (owner, extents) = self.bodies.remove(&request).expect("it was asked");
        if matches!(
            refusal,
            Refusal::NotWritten | Refusal::Kept | Refusal::EndedMeanwhile
        ) {
            return;
        }
        for extent in extents {
            if let Some(memory) = self.memory.get_mut(&owner) {
                memory.release(extent);
            }
        }
    }

    fn respond(&mut self, response: &Response<'_>) {
        assert!(
            !self.ended.contains_key(&response.session),
            "answered before the end"
        );
        let given = Responded {
            request: response.request,
            http_status: response.http_status,
            content_type: response.content_type.to_vec(),
            parts: response.parts.to_vec(),
            by: response.by,
        };
        let unread = (response.app, response.parts.to_vec());
        self.unread.insert(response.session, unread);
        let before = self.responses.insert(response.session, given);
        assert!(before.is_none(), "a session answers once");
    }

    fn ended(
        &mut self,
        _app: AppId,
        request: RequestId,
        session: SessionId,
        outcome: &Outcome<'_>,
        answered: bool,
    ) {
        let is_answered = self.responses.contains_key(&session);
        assert_eq!(
            answered,
            is_answered || self.answered_before.contains(&session)
        );
        let outcome = match outcome {
            Outcome::Responded => End::Responded,
            Outcome::Completed => End::Completed,
            Outcome::Failed(failure) => End::Failed((*failure).clone()),
            Outcome::TimedOut => End::TimedOut,
            Outcome::Cancelled => End::Cancelled,
        };
        let ended = Ended {
            request,
            outcome,
            answered,
        };
        // What is written first is let in once it is there; its session may end before.
        if request.0 != 0 && !self.written_first.contains(&session) {
            let accepted = self.accepted.get(&request);
            assert_eq!(accepted, Some(&session), "accepted before its end");
        }
        let before = self.ended.insert(session, ended);
        assert!(before.is_none(), "a session ends once");
    }

    fn error_event(&mut self, _app: AppId, session: SessionId, text: &str) {
        assert!(!self.ended.contains_key(&session));
        self.error_events.push((session, text.to_owned()));
    }

    fn write_failure(&mut self, app: AppId, ticket: Ticket, failure: &Failure) {
        self.unwritten.push_back((app, ticket, failure.clone()));
    }

    fn letter(&mut self, app: AppId, letter: &HandedLetter) {
        self.handed.push_back((app, letter.clone()));
    }

    fn write(&mut self, app: AppId, ticket: Ticket, object: &DurableObject<'_>) {
        if object.author == 0 {
            self.written_first.insert(SessionId(object.object.session));
        }
        let asked_before = self.asked_of_disk();
        self.writes.push_back(ToWrite {
            app,
            ticket,
            seen: Seen::new(&object.object),
            author: object.author,
            ordinal: object.ordinal,
            asked_before,
            retain: object.retain,
            replace: object.replace,
        });
    }

    fn record_firing(&mut self, app: AppId, ticket: Ticket, firing: &FiredInvocation<'_>) {
        let asked_before = self.asked_of_disk();
        self.firings.push_back(ToRecord {
            app,
            ticket,
            session: firing.session,
            invocation: firing.invocation,
            bucket: firing.bucket,
            trigger: firing.trigger,
            function: firing.function,
            inputs: firing.inputs.to_vec(),
            window: firing.window,
            asked_before,
        });
    }

    fn record_success(&mut self, _app: AppId, session: SessionId, invocation: u64) {
        assert!(!self.ended.contains_key(&session));
        let asked_before = self.asked_of_disk();
        self.successes.push_back(Success {
            session,
            invocation,
            asked_before,
        });
    }

    fn load(&mut self, app: AppId, ticket: Ticket, bucket: u16, key: &[u8]) {
        self.loads.push_back((app, ticket, bucket, key.to_vec()));
    }

    fn delete(&mut self, app: AppId, bucket: u16, key: &[u8]) {
        self.deletes.push((app, bucket, key.to_vec()));
    }

    fn peer(&mut self, to: u8, message: &PeerMessage) {
        assert!(to != self.config.scheduler_index && to < self.config.schedulers);
        self.peers.push_back((to, message.clone()));
    }

    fn sweep(&mut self, id: ExecutorId, live: &[Extent]) {
        self.sweeps.push((id, live.to_vec()));
    }

    fn trouble(&mut self, _: AppId, trouble: Option<&Trouble>) {
        self.trouble = trouble.cloned();
    }

    fn removed(&mut self, app: AppId) {
        let here = self.config.scheduler_index;
        let is_own = |id: &ExecutorId| id.app == app && self.owners.get(id) == Some(&here);
        assert!(!self.executors.keys().any(is_own), "its processes are gone");
        self.removed.push(app);
    }
}
