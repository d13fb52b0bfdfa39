//! A world for the core to live in: a recording sink, executors that keep the protocol, and checks
//! that hold after every step whatever a test is about.
//!
//! Always checked: memory is released once, by whom it was allocated, and never while a running
//! invocation, a queued one or an unread response needs it; dispatches go to live executors with
//! nothing open and name memory that is allocated and objects as they were published; every
//! session ends once; at most one idle executor of a core may spin; credit covers the quota.

pub mod app;
pub mod cluster;
mod executor;
mod sink;

use std::collections::{BTreeMap, HashMap};

use pheromone_core::event::{
    AppId, Cause, Death, Destination, Event, ExecutorId, Ingress, Refusal, Request, RequestId,
    RestoredSession, Retry, SessionId,
};
use pheromone_core::in_place::InPlace;
use pheromone_core::spec::AppSpec;
use pheromone_core::{AppStats, Core, CoreConfig, SpinPolicy};
use pheromone_shm::message::{Ending, Extent, FromExecutor, Key, NO_BUCKET, NO_TRIGGER, Target};

use executor::Executor;
pub use executor::{Open, OwnedKey, Seen, Told};
pub use sink::{End, Ended, Recorder, Success, ToRecord, ToWrite};

/// The app that most tests have.
pub const APP: AppId = AppId(0);

/// A core for each executor, spinning for good: whatever is idle is awake.
pub const CONFIG: CoreConfig = CoreConfig {
    scheduler_index: 0,
    schedulers: 1,
    executor_cores: 16,
    spin: SpinPolicy::Always,
    keeps_on_disk: true,
    first_id: 0,
};

/// A millisecond in nanoseconds.
pub const MS: u64 = 1_000_000;

/// Bytes of a `phr_failure`.
pub const FAILURE_BYTES: u64 = 1104;

/// The core and everything around it.
pub struct World {
    pub core: Core,
    pub now_ns: u64,
    pub sink: Recorder,
    /// Processes asked for are started, killed ones die, leaving ones go, as soon as possible.
    pub automatic: bool,
    /// The node writes failures as soon as it is asked to.
    pub writes_failures: bool,
    /// After each step there is another in which nothing happens.
    pub ticks: bool,
    requests: u64,
    ingress: HashMap<AppId, u32>,
}

/// A call or put that was let in.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub request: RequestId,
    pub session: SessionId,
}

impl World {
    pub fn new(spec: AppSpec) -> Self {
        Self::with_config(spec, CONFIG)
    }

    pub fn with_config(spec: AppSpec, config: CoreConfig) -> Self {
        let mut world = Self::empty(config);
        world.deploy(APP, spec);
        world
    }

    pub fn empty(config: CoreConfig) -> Self {
        Self {
            core: Core::new(config),
            now_ns: 1_000_000_000,
            sink: Recorder::new(config),
            automatic: true,
            writes_failures: true,
            ticks: false,
            requests: 0,
            ingress: HashMap::new(),
        }
    }

    pub fn deploy(&mut self, app: AppId, spec: AppSpec) {
        self.sink.apps.insert(app, spec.clone());
        self.event(Event::Deploy {
            app,
            spec: Box::new(spec),
        });
    }

    /// One step, and what follows from it by itself.
    pub fn event(&mut self, event: Event<'_>) {
        self.core.step(event, self.now_ns, &mut self.sink);
        if self.ticks {
            self.core.step(Event::Tick, self.now_ns, &mut self.sink);
        }
        self.check();
        if self.automatic {
            self.processes();
        }
        if self.writes_failures {
            self.write_failures();
        }
    }

    /// The node writes the failures that it has been asked to write.
    pub fn write_failures(&mut self) {
        while let Some((app, ticket, _)) = self.sink.unwritten.pop_front() {
            let body = self.ingress(app, FAILURE_BYTES);
            self.event(Event::FailureWritten { app, ticket, body });
        }
    }

    /// Starts, kills and ends processes as the core has asked.
    pub fn processes(&mut self) {
        loop {
            if let Some(id) = self.sink.spawns.pop_front() {
                self.start(id);
            } else if let Some((id, _)) = self.sink.kills.pop_front() {
                self.die(id, Death::Signaled(9));
            } else if let Some(id) = self.sink.exits.pop_front() {
                self.die(id, Death::Exited(0));
            } else {
                return;
            }
        }
    }

    /// A process asked for starts and is ready.
    pub fn start(&mut self, id: ExecutorId) {
        self.started(id);
        self.say(id, FromExecutor::Ready);
        // One that is told to leave at once has gone by now.
        let adopting = |world: &Self| world.sink.executors.get(&id)?.adopting;
        while let Some(count) = adopting(self) {
            let first = self.executor(id).adopted.len() as u32;
            assert!(first < count);
            self.say(id, FromExecutor::FetchExtents { first });
        }
    }

    /// A process asked for exists.
    pub fn started(&mut self, id: ExecutorId) {
        let incarnation = self.sink.start(id);
        self.core.step(
            Event::ExecutorStarted {
                executor: id,
                incarnation,
            },
            self.now_ns,
            &mut self.sink,
        );
        self.check();
    }

    /// A process dies; nothing is left in its ring.
    pub fn die(&mut self, id: ExecutorId, death: Death) {
        if !self.sink.is_alive(id) {
            return;
        }
        let incarnation = self.executor(id).incarnation;
        self.sink.bury(id);
        self.event(Event::ExecutorDied {
            executor: id,
            incarnation,
            death,
            detail: "",
        });
    }

    /// An executor says something.
    pub fn say(&mut self, id: ExecutorId, message: FromExecutor<'_>) {
        if matches!(message, FromExecutor::Complete { .. }) {
            self.executor(id).close();
        }
        self.event(Event::Message {
            executor: id,
            message,
        });
    }

    /// Time passes, a timer at a time, so that nothing is late.
    pub fn pass(&mut self, ns: u64) {
        let end_ns = self.now_ns + ns;
        while let Some(due_ns) = self.core.next_timer_ns().filter(|&due_ns| due_ns <= end_ns) {
            self.now_ns = self.now_ns.max(due_ns);
            self.event(Event::Tick);
            if self
                .core
                .next_timer_ns()
                .is_some_and(|next_ns| next_ns <= self.now_ns)
            {
                self.now_ns += 1;
            }
        }
        self.now_ns = self.now_ns.max(end_ns);
        self.event(Event::Tick);
    }

    // Requests.

    /// Memory in the ingress region of an app, as the node would allocate it.
    pub fn ingress(&mut self, app: AppId, size_bytes: u64) -> Ingress {
        let slot = self.sink.apps[&app].ingress_slot();
        let next = self.ingress.entry(app).or_default();
        let extent = Extent {
            offset_units: *next,
            len_units: Extent::units_for(size_bytes) as u32,
        };
        *next += extent.len_units;
        let memory = self.sink.memory.entry(ExecutorId { app, slot });
        memory.or_default().insert(extent);
        Ingress { extent, size_bytes }
    }

    pub fn request(&mut self, destination: Destination<'_>, has_caller: bool) -> RequestId {
        self.request_of(APP, destination, has_caller)
    }

    pub fn request_of(
        &mut self,
        app: AppId,
        destination: Destination<'_>,
        has_caller: bool,
    ) -> RequestId {
        let draft = self.draft(app, destination);
        self.send(Request {
            has_caller,
            ..draft
        })
    }

    /// A request with a body, in a session of its own, for which nobody waits.
    pub fn draft<'a>(&mut self, app: AppId, destination: Destination<'a>) -> Request<'a> {
        Request {
            app,
            id: RequestId(0),
            destination,
            body: self.ingress(app, 10),
            headers: None,
            session: None,
            has_caller: false,
            timeout_ns: None,
            durable: None,
        }
    }

    pub fn send(&mut self, mut request: Request<'_>) -> RequestId {
        self.requests += 1;
        request.id = RequestId(self.requests);
        self.sink.note_request(&request);
        self.event(Event::Request(request));
        request.id
    }

    /// A call of a durable function, which is on disk.
    pub fn call_durable(&mut self, function: &str, session: SessionId) -> Call {
        let destination = Destination::Function(self.function(function));
        let draft = self.draft(APP, destination);
        let request = self.send(Request {
            has_caller: true,
            durable: Some(session),
            ..draft
        });
        self.answer_of(request).expect("the call is let in")
    }

    /// A durable session goes on.
    pub fn try_restore(&mut self, mut restored: RestoredSession) -> Result<Call, Refusal> {
        self.requests += 1;
        restored.request = RequestId(self.requests);
        self.sink.note_restored(&restored);
        self.event(Event::Restore(&restored));
        self.answer_of(restored.request)
    }

    /// Has a dead letter run again.
    pub fn try_retry(&mut self, letter: u64, has_caller: bool) -> Result<Call, Refusal> {
        self.requests += 1;
        let retry = Retry {
            app: APP,
            id: RequestId(self.requests),
            letter,
            has_caller,
            timeout_ns: None,
        };
        self.sink.note_retry(&retry);
        self.event(Event::Retry(retry));
        self.answer_of(retry.id)
    }

    pub fn retry(&mut self, letter: u64) -> Call {
        self.try_retry(letter, true).expect("it runs again")
    }

    pub fn drop_letters(&mut self, letter: Option<u64>) {
        self.event(Event::DropLetters { app: APP, letter });
    }

    pub fn try_call(&mut self, function: &str) -> Result<Call, Refusal> {
        let function = self.function(function);
        let request = self.request(Destination::Function(function), true);
        self.answer_of(request)
    }

    pub fn call(&mut self, function: &str) -> Call {
        self.try_call(function).expect("the call is let in")
    }

    pub fn try_put(&mut self, bucket: &str, key: Option<&str>) -> Result<Call, Refusal> {
        let bucket = self.bucket(bucket);
        let key = key.map(str::as_bytes);
        let destination = Destination::Bucket {
            bucket,
            key,
            group: b"",
        };
        let request = self.request(destination, false);
        self.answer_of(request)
    }

    pub fn put(&mut self, bucket: &str, key: Option<&str>) -> Call {
        self.try_put(bucket, key).expect("the put is let in")
    }

    pub fn answer_of(&self, request: RequestId) -> Result<Call, Refusal> {
        match self.sink.refused.get(&request) {
            Some(&refusal) => Err(refusal),
            None => Ok(Call {
                request,
                session: self.sink.accepted[&request],
            }),
        }
    }

    pub fn cancel(&mut self, call: Call) {
        self.event(Event::Cancel {
            session: call.session,
        });
    }

    /// The node has read a response.
    pub fn take_response(&mut self, call: Call) {
        self.sink.unread.remove(&call.session);
        self.event(Event::ResponseTaken {
            request: call.request,
            session: call.session,
        });
    }

    // Functions. Each acts as the function that runs on the executor.

    /// The executor that runs this function; of several, the lowest slot.
    pub fn running(&self, function: &str) -> ExecutorId {
        self.all_running(function)
            .first()
            .copied()
            .unwrap_or_else(|| panic!("`{function}` does not run"))
    }

    pub fn all_running(&self, function: &str) -> Vec<ExecutorId> {
        let function = self.function(function);
        let executors = self.sink.executors.iter();
        executors
            .filter(|(id, executor)| id.app == APP && executor.runs(function))
            .map(|(&id, _)| id)
            .collect()
    }

    /// Those that run this function for the first time in their process have loaded it.
    pub fn load(&mut self, function: &str) {
        let index = self.function(function);
        for id in self.all_running(function) {
            if !self.executor(id).loaded.contains(&index) {
                self.executor(id).has_loaded();
                self.say(id, FromExecutor::Loaded);
            }
        }
    }

    pub fn opened(&self, id: ExecutorId) -> &Open {
        self.sink.executors[&id]
            .open
            .as_ref()
            .expect("it runs something")
    }

    /// Keys of the inputs of what runs there.
    pub fn keys(&self, id: ExecutorId) -> Vec<String> {
        let keys = self.opened(id).inputs.iter();
        keys.map(Seen::key_text).collect()
    }

    /// The sessions of the inputs of what runs there.
    pub fn contributors(&self, id: ExecutorId) -> Vec<SessionId> {
        let inputs = self.opened(id).inputs.iter();
        inputs.map(|input| SessionId(input.session)).collect()
    }

    /// Publishes a named object.
    pub fn put_by(&mut self, id: ExecutorId, bucket: &str, key: &str) {
        let target = Target::Bucket(self.bucket(bucket));
        self.publish(id, target, Key::Named(key.as_bytes()), 8);
    }

    /// Publishes an object under an automatic key and answers with its ordinal.
    pub fn auto_by(&mut self, id: ExecutorId, bucket: &str) -> u32 {
        let target = Target::Bucket(self.bucket(bucket));
        let ordinal = self.executor(id).next_ordinal();
        self.publish(id, target, Key::Auto(ordinal), 8);
        ordinal
    }

    /// Publishes a direct object.
    pub fn next_by(&mut self, id: ExecutorId) {
        let ordinal = self.executor(id).next_ordinal();
        self.publish(id, Target::Next, Key::Auto(ordinal), 8);
    }

    /// Publishes a direct object with a label.
    pub fn label_next_by(&mut self, id: ExecutorId, label: &str) {
        self.publish(id, Target::Next, Key::Named(label.as_bytes()), 8);
    }

    /// Publishes a named object as a member of a group.
    pub fn group_by(&mut self, id: ExecutorId, bucket: &str, key: &str, group: &str) {
        let target = Target::Bucket(self.bucket(bucket));
        let extent = self.allocate(id, 8);
        self.say(
            id,
            FromExecutor::Publish {
                target,
                extent,
                size_bytes: 8,
                key: Key::Named(key.as_bytes()),
                ordinal: 0,
                group: group.as_bytes(),
                delay_ns: 0,
            },
        );
    }

    pub fn publish(&mut self, id: ExecutorId, target: Target, key: Key<'_>, size_bytes: u64) {
        let extent = self.allocate(id, size_bytes);
        self.say(
            id,
            FromExecutor::Publish {
                ordinal: ordinal_of(key),
                delay_ns: 0,
                target,
                extent,
                size_bytes,
                key,
                group: b"",
            },
        );
    }

    /// Publishes an object, offering to go on with what it fires. False: that may not be, and
    /// nothing was said.
    pub fn try_offer(&mut self, id: ExecutorId, target: Target) -> bool {
        let spec = &self.sink.apps[&id.app];
        let open = self.opened(id).clone();
        let Some((function, trigger)) = successor(spec, open.function, target) else {
            return false;
        };
        let executor = self.executor(id);
        if executor.offered.is_some() {
            return false;
        }
        let Some(invocation) = executor.granted.next(executor.grant) else {
            return false;
        };
        let ordinal = executor.next_ordinal();
        let extent = self.allocate(id, 8);
        let input = Seen {
            region: id.slot,
            bucket: match target {
                Target::Bucket(bucket) => bucket,
                Target::Next | Target::Function(_) => NO_BUCKET,
            },
            offset_units: extent.offset_units,
            size_bytes: 8,
            session: open.session,
            key: OwnedKey::Auto(open.invocation, ordinal),
            group: Vec::new(),
            attached: 0,
        };
        let executor = self.executor(id);
        executor.claim.offer(invocation);
        executor.offered = Some(Open {
            function,
            trigger,
            attempt: 1,
            invocation,
            inputs: vec![input],
            got: Vec::new(),
            window: None,
            cancelled: false,
            ..open
        });
        let size_bytes = 8;
        self.say(
            id,
            FromExecutor::Offer {
                target,
                extent,
                size_bytes,
                ordinal,
                invocation,
            },
        );
        true
    }

    /// The function returns 0, and its executor goes on with what it has offered if it may.
    pub fn go_on(&mut self, id: ExecutorId) -> bool {
        if !self.executor(id).goes_on() {
            return false;
        }
        let begun = self.opened(id).clone();
        self.sink.started.push(begun);
        self.say(id, FromExecutor::Continue { discarded: 0 });
        true
    }

    /// Allocates as the executor's own allocator would, asking for credit where it needs some.
    pub fn allocate(&mut self, id: ExecutorId, size_bytes: u64) -> Extent {
        self.try_allocate(id, size_bytes).expect("there is memory")
    }

    pub fn try_allocate(&mut self, id: ExecutorId, size_bytes: u64) -> Option<Extent> {
        let len_units = Extent::units_for(size_bytes) as u32;
        if let Some(bytes) = self.executor(id).lacks_credit(len_units) {
            self.say(id, FromExecutor::NeedCredit { bytes });
            if self.executor(id).take_credit_answer() != Some(true) {
                return None;
            }
        }
        let extent = self.sink.memory.entry(id).or_default().allocate(len_units);
        self.executor(id).charge(extent);
        Some(extent)
    }

    /// Unsent objects are given back, as an executor does before its function's return.
    pub fn give_back(&mut self, id: ExecutorId, extents: &[Extent]) {
        for &extent in extents {
            self.executor(id).discard(extent);
            self.sink
                .memory
                .get_mut(&id)
                .expect("it has allocated")
                .release(extent);
        }
    }

    pub fn respond_by(&mut self, id: ExecutorId) {
        self.respond_to(id, SessionId(0));
    }

    /// Answers the caller of a session whose object it has.
    pub fn respond_to(&mut self, id: ExecutorId, session: SessionId) {
        let extent = self.allocate(id, 8);
        self.say(
            id,
            FromExecutor::Respond {
                session: session.0,
                extent,
                size_bytes: 8,
                http_status: 200,
                content_type: b"",
            },
        );
    }

    /// Fails a session whose object it has.
    pub fn fail_session(&mut self, id: ExecutorId, session: SessionId, message: &str) {
        let failure = FromExecutor::FailSession {
            session: session.0,
            status: 7,
            message: message.as_bytes(),
        };
        self.say(id, failure);
    }

    pub fn get_by(&mut self, id: ExecutorId, bucket: &str, key: &str) -> Result<Seen, i32> {
        let bucket = self.bucket(bucket);
        let key = key.as_bytes();
        self.say(
            id,
            FromExecutor::Get {
                bucket,
                timeout_ns: 0,
                key,
            },
        );
        self.executor(id)
            .take_object_answer()
            .expect("a get is answered")
    }

    /// All that is attached to an object that is held, fetched as an executor does.
    pub fn attached_by(&mut self, id: ExecutorId, object: u32, count: u32) -> Vec<Seen> {
        let mut attached = Vec::new();
        while attached.len() < count as usize {
            let first = attached.len() as u32;
            self.say(id, FromExecutor::FetchAttached { object, first });
            let (at, given) = self.executor(id).refetched.take().expect("it is answered");
            assert_eq!(at, first);
            if given.is_empty() {
                break;
            }
            let open = self.executor(id).open.as_mut().expect("it runs");
            open.got.extend_from_slice(&given);
            attached.extend(given);
        }
        attached
    }

    pub fn forward_by(&mut self, id: ExecutorId, object: u32, target: Target, key: Key<'_>) {
        self.say(
            id,
            FromExecutor::Forward {
                ordinal: ordinal_of(key),
                delay_ns: 0,
                target,
                object,
                key,
                group: b"",
            },
        );
    }

    pub fn complete(&mut self, id: ExecutorId, status: i32, ending: Ending, message: &str) {
        let message = message.as_bytes();
        self.say(
            id,
            FromExecutor::Complete {
                status,
                ending,
                discarded: 0,
                message,
            },
        );
    }

    /// The function returns 0.
    pub fn done(&mut self, id: ExecutorId) {
        self.complete(id, 0, Ending::Returned, "");
    }

    // Custom triggers. Each acts as the trigger whose process that is.

    /// The process of the first custom trigger.
    pub fn trigger(&self) -> ExecutorId {
        let slot = self.sink.apps[&APP].pool_slots();
        ExecutorId { app: APP, slot }
    }

    /// What the open call of the first custom trigger tells, in short; nothing where it has none.
    pub fn told(&self) -> Vec<String> {
        let executor = self.sink.executors.get(&self.trigger());
        let call = executor.and_then(|executor| executor.call.as_ref());
        call.into_iter().flatten().map(Told::text).collect()
    }

    /// Says that these objects fire.
    pub fn fire_by(&mut self, id: ExecutorId, function: u16, session: SessionId, numbers: &[u64]) {
        let objects: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        self.say(
            id,
            FromExecutor::Fire {
                function,
                more: false,
                session: session.0,
                objects: &objects,
            },
        );
    }

    /// Says that these objects are dropped.
    pub fn drop_by(&mut self, id: ExecutorId, session: SessionId, numbers: &[u64]) {
        let objects: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        let session = session.0;
        let objects = &objects;
        self.say(id, FromExecutor::Drop { session, objects });
    }

    /// The function runs, does nothing and returns 0.
    pub fn run(&mut self, function: &str) {
        let id = self.running(function);
        self.done(id);
    }

    /// All that runs and is queued of a function returns 0, in the order in which it fired.
    /// Answers with the keys that each had.
    pub fn run_all(&mut self, function: &str) -> Vec<Vec<String>> {
        let mut fired = Vec::new();
        loop {
            let mut running = self.all_running(function);
            running.sort_by_key(|&id| self.opened(id).invocation);
            let Some(&id) = running.first() else {
                return fired;
            };
            fired.push(self.keys(id));
            self.done(id);
        }
    }

    // Looking.

    pub fn executor(&mut self, id: ExecutorId) -> &mut Executor {
        self.sink.executors.get_mut(&id).expect("it is alive")
    }

    pub fn stats(&self) -> AppStats {
        self.core.stats(APP).expect("the app is there")
    }

    pub fn ended(&self, call: Call) -> &Ended {
        let ended = self.sink.ended.get(&call.session);
        ended.unwrap_or_else(|| panic!("{call:?} is open"))
    }

    /// What the function said that failed the session.
    pub fn message_of(&self, call: Call) -> String {
        match &self.ended(call).failure().cause {
            Cause::Returned { message, .. } => message.clone(),
            other => panic!("{other:?}"),
        }
    }

    pub fn is_open(&self, call: Call) -> bool {
        !self.sink.ended.contains_key(&call.session)
    }

    pub fn function(&self, name: &str) -> u16 {
        let functions = &self.sink.apps[&APP].functions;
        functions
            .iter()
            .position(|f| f.name == name)
            .expect("such a function") as u16
    }

    pub fn bucket(&self, name: &str) -> u16 {
        let buckets = &self.sink.apps[&APP].buckets;
        buckets
            .iter()
            .position(|b| b.name == name)
            .expect("such a bucket") as u16
    }

    /// What must hold whatever happens.
    pub fn check(&self) {
        self.sink.check();
        for (&app, spec) in &self.sink.apps {
            let Some(stats) = self.core.stats(app) else {
                continue;
            };
            let promised = stats.used_bytes + stats.credit_bytes;
            let slack = 256 * stats.objects_live;
            assert!(
                promised <= spec.memory_bytes + slack,
                "the quota is promised away"
            );
        }
    }

    /// Nothing is left of any session once the dead letters are dropped: run at the end of tests.
    pub fn assert_empty(&mut self) {
        for app in self.sink.apps.keys().copied().collect::<Vec<_>>() {
            self.event(Event::DropLetters { app, letter: None });
        }
        for id in self.sink.starved.drain(..).collect::<Vec<_>>() {
            self.event(Event::ReleaseRoom { executor: id });
        }
        let totals = self.core.totals();
        assert_eq!(totals.sessions, 0, "sessions are left");
        assert_eq!(totals.objects, 0, "objects are left");
        assert_eq!(totals.invocations, 0, "invocations are left");
        assert_eq!(totals.names, 0, "names are left");
        assert_eq!(totals.trigger_states, 0, "trigger states are left");
        assert_eq!(totals.lines, 0, "lines of serial functions are left");
        assert_eq!(totals.gathered, 0, "objects are gathered");
        let apps: BTreeMap<AppId, ()> = self.sink.apps.keys().map(|&app| (app, ())).collect();
        for app in apps.into_keys() {
            let Some(stats) = self.core.stats(app) else {
                continue;
            };
            assert_eq!(stats.used_bytes, 0, "the ledger is not settled");
            assert_eq!(stats.objects_live, 0);
            assert_eq!(stats.queued + stats.running + stats.calls_waiting, 0);
        }
        self.sink.assert_memory_free();
    }
}

/// What an object of a function fires and by which trigger, where that can be gone on with.
fn successor(spec: &AppSpec, sender: u16, target: Target) -> Option<(u16, u16)> {
    let in_place = InPlace::new(spec);
    let next = match target {
        Target::Bucket(bucket) => {
            let next = in_place.buckets[usize::from(bucket)]?;
            (next.function, next.trigger)
        }
        Target::Next => match *spec.functions[usize::from(sender)].next {
            [next] => (next, NO_TRIGGER),
            _ => return None,
        },
        Target::Function(function) => (function, NO_TRIGGER),
    };
    (in_place.allows(sender) && in_place.allows(next.0)).then_some(next)
}

/// The ordinal that goes with a key.
fn ordinal_of(key: Key<'_>) -> u32 {
    match key {
        Key::Auto(ordinal) => ordinal,
        Key::Named(_) => 0,
    }
}
