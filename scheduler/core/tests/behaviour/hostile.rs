//! Whatever executors say, in whatever state, in whatever order with deaths, cancellations and
//! time: a step never panics, every session ends once, and in the end nothing is left.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use pheromone_core::event::{
    AppId, Death, Destination, DurableObject, Event, ExecutorId, Failure, FoundObject,
    HandedLetter, Ingress, NotFound, Outcome, Refusal, Request, RequestId, Response, SessionId,
    Sink, Ticket, Written,
};
use pheromone_core::spec::{
    AppSpec, AtEnd, GroupClose, Keep, OnFailure, RerunSpec, SerialBy, TriggerKind, TriggerSpec,
};
use pheromone_core::{Core, CoreConfig, PeerMessage, SpinPolicy};
use pheromone_shm::events::{EVENTS_ALWAYS_FIT, TriggerEvent};
use pheromone_shm::message::{
    ALL_FUNCTIONS, Dispatch, Ending, Extent, FromExecutor, HeadersRef, Input, Key, REQUEST_OBJECT,
    Target, ToExecutor,
};
use pheromone_shm::wire::put_join_key;
use proptest::prelude::*;

use crate::common::app::{app, bucket, by_pattern, by_set, immediate, trigger};

/// Remembers only what is needed to go on.
#[derive(Default)]
struct Deaf {
    asked: BTreeSet<ExecutorId>,
    alive: BTreeMap<ExecutorId, u32>,
    busy: BTreeSet<ExecutorId>,
    killed: BTreeSet<ExecutorId>,
    /// Those that have asked for an object and have no answer.
    waiting: BTreeSet<ExecutorId>,
    /// Their invocation is cancelled: they may run beyond what may run at once.
    cancelled: BTreeSet<ExecutorId>,
    /// The last message told its receiver to adopt something.
    adopts: bool,
    incarnations: HashMap<ExecutorId, u32>,
    answered: Vec<(RequestId, SessionId)>,
    unwritten: Vec<(AppId, Ticket)>,
    /// What the disk has been asked for.
    of_disk: Vec<Asked>,
    /// Those that have asked for an object on disk and have no answer.
    loading: BTreeSet<ExecutorId>,
    open: HashMap<SessionId, AppId>,
    /// The block that each may start by itself, and the first it has not used.
    granted: HashMap<ExecutorId, u64>,
    unused: HashMap<ExecutorId, u64>,
    /// What each has offered last.
    offered: HashMap<ExecutorId, u64>,
    /// What could not be taken back: only its executor tells what has become of it.
    taken: HashMap<ExecutorId, u64>,
    /// What has been begun, or may have been, by others than the core.
    begun: HashSet<u64>,
    /// What its bits say in turn is whether an offer can be taken back.
    words: u64,
    ended: HashSet<SessionId>,
    removed: BTreeSet<AppId>,
    releases_until_full: u32,
}

/// What the disk is asked for.
enum Asked {
    Write(AppId, Ticket),
    Load(AppId, Ticket),
}

impl Deaf {
    /// Whether what it says counts, and it may ask for something.
    fn runs(&self, id: ExecutorId) -> bool {
        id.slot < EXECUTORS + WAITERS && self.busy.contains(&id) && !self.killed.contains(&id)
    }

    /// An executor has returned, and has not gone on with what it had offered.
    fn left(&mut self, id: ExecutorId) {
        if !self.killed.contains(&id) {
            self.offered.remove(&id);
            self.taken.remove(&id);
        }
    }

    /// At most so many of an app run at once; who waits, is cancelled or is being killed is not
    /// counted.
    fn check_runners(&self, app: AppId) {
        let is_counted = |id: &&ExecutorId| {
            id.app == app
                && id.slot < EXECUTORS + WAITERS
                && !self.waiting.contains(id)
                && !self.cancelled.contains(id)
                && !self.killed.contains(id)
        };
        let running = self.busy.iter().filter(is_counted).count();
        assert!(running <= usize::from(EXECUTORS), "{running} run");
        let waiting = self.waiting.iter().filter(|id| id.app == app);
        assert!(waiting.count() <= usize::from(WAITERS));
    }
}

impl Sink for Deaf {
    fn send(&mut self, id: ExecutorId, message: &ToExecutor<'_>) {
        assert!(self.alive.contains_key(&id));
        self.adopts = matches!(message, ToExecutor::Adopt { extent_count: 1.. });
        if matches!(message, ToExecutor::Object { .. }) {
            let has_asked = self.waiting.remove(&id) || self.loading.remove(&id);
            assert!(has_asked, "who has asked is answered, once");
        }
    }

    fn dispatch<'a>(
        &mut self,
        id: ExecutorId,
        dispatch: &Dispatch<'a>,
        inputs: impl Iterator<Item = Input<'a>>,
    ) {
        assert!(self.alive.contains_key(&id));
        assert_eq!(inputs.count(), dispatch.input_count as usize);
        // Its first may come before the word that its request has been let in.
        let session = SessionId(dispatch.session);
        assert_eq!(*self.open.entry(session).or_insert(id.app), id.app);
        assert!(!self.ended.contains(&session));
        assert!(self.busy.insert(id), "one dispatch is open at a time");
        let is_known = self.begun.contains(&dispatch.invocation);
        assert!(!is_known, "what has begun is not begun again");
        self.cancelled.remove(&id);
        self.check_runners(id.app);
    }

    fn inputs<'a>(&mut self, _: ExecutorId, _: u32, inputs: impl Iterator<Item = Input<'a>>) {
        assert!(inputs.count() > 0);
    }

    fn extents(&mut self, _: ExecutorId, _: u32, extents: impl Iterator<Item = Extent>) {
        let mut end = 0;
        for extent in extents {
            assert!(u64::from(extent.offset_units) >= end);
            end = extent.end_units();
        }
    }

    fn events<'a>(
        &mut self,
        id: ExecutorId,
        _: u16,
        events: impl ExactSizeIterator<Item = TriggerEvent<'a>>,
    ) {
        assert!(self.alive.contains_key(&id));
        assert!((1..=EVENTS_ALWAYS_FIT).contains(&events.len()));
        assert!(self.busy.insert(id), "one call is open at a time");
        for event in events {
            if let TriggerEvent::Object { object, .. } = event {
                assert!(!self.ended.contains(&SessionId(object.session)));
            }
        }
    }

    fn release(&mut self, _: ExecutorId, _: Extent) -> bool {
        self.releases_until_full = self.releases_until_full.saturating_sub(1);
        self.releases_until_full > 0
    }

    fn credit(&mut self, _: ExecutorId, _: u64) {}

    fn permit_spin(&mut self, _: ExecutorId, _: bool) {}

    fn cancel(&mut self, id: ExecutorId, _: u64) {
        assert!(self.alive.contains_key(&id));
        self.cancelled.insert(id);
    }

    fn grant(&mut self, id: ExecutorId, first: u64) {
        assert!(self.alive.contains_key(&id));
        self.granted.insert(id, first);
        let unused = self.unused.entry(id).or_default();
        *unused = first.max(*unused);
    }

    fn withdraw(&mut self, id: ExecutorId, invocation: u64) -> bool {
        self.words = self.words.rotate_right(1);
        let is_left = !self.alive.contains_key(&id) || self.words & 1 == 0;
        // A word may say one thing now and another later: the last counts.
        if is_left {
            self.taken.remove(&id);
        } else {
            self.taken.insert(id, invocation);
        }
        is_left
    }

    fn spawn(&mut self, id: ExecutorId, _: u16) {
        assert!(!self.alive.contains_key(&id));
        assert!(self.asked.insert(id));
    }

    fn kill(&mut self, id: ExecutorId, _: &str) {
        assert!(self.alive.contains_key(&id));
        assert!(self.killed.insert(id), "killed once");
        self.waiting.remove(&id);
        self.loading.remove(&id);
    }

    fn accepted(&mut self, request: RequestId, session: SessionId) {
        let app = app_of(request);
        assert_eq!(*self.open.entry(session).or_insert(app), app);
    }

    fn refused(&mut self, _: RequestId, _: Refusal) {}

    fn respond(&mut self, response: &Response<'_>) {
        if !response.parts.is_empty() {
            self.answered.push((response.request, response.session));
        }
    }

    fn ended(&mut self, app: AppId, _: RequestId, session: SessionId, _: &Outcome<'_>, _: bool) {
        let open = self.open.remove(&session);
        assert_eq!(open, Some(app), "it was open");
        assert!(self.ended.insert(session), "it ends once");
    }

    fn error_event(&mut self, _: AppId, session: SessionId, _: &str) {
        assert!(!self.ended.contains(&session));
    }

    fn write_failure(&mut self, app: AppId, ticket: Ticket, _: &Failure) {
        self.unwritten.push((app, ticket));
    }

    fn letter(&mut self, _: AppId, _: &HandedLetter) {
        panic!("no version takes this one's place");
    }

    fn write(&mut self, app: AppId, ticket: Ticket, _: &DurableObject<'_>) {
        self.of_disk.push(Asked::Write(app, ticket));
    }

    fn load(&mut self, app: AppId, ticket: Ticket, _: u16, _: &[u8]) {
        self.of_disk.push(Asked::Load(app, ticket));
    }

    fn delete(&mut self, _: AppId, _: u16, _: &[u8]) {}

    fn peer(&mut self, _: u8, _: &PeerMessage) {
        panic!("there is one scheduler");
    }

    fn removed(&mut self, app: AppId) {
        assert!(self.removed.insert(app), "it goes once");
    }
}

/// What happens next; numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Op {
    Say(u8, Message),
    Start,
    SpawnFails,
    Die(u8),
    Dying(u8),
    Garble(u8),
    Call(bool),
    Put(u8, bool),
    Cancel(u8),
    Taken(u8),
    Write(u8, bool),
    Disk(u8, u8),
    Pass(u64),
    Room(u8, u8),
    Remove,
}

#[derive(Clone, Debug)]
enum Message {
    Ready,
    Publish(u8, u32, u32, u64, u8),
    Forward(u8, u32, u8),
    Respond(u8, u32, u16),
    FailSession(u8),
    Parts(bool, Vec<u8>),
    Complete(i32, u8),
    Get(u8, u8),
    ReleaseHold(u8, u8),
    FetchInputs(u32),
    FetchExtents(u32),
    FetchAttached(u32, u32),
    NeedCredit(u64),
    Persist,
    Load(u8, u8),
    Loaded,
    Join(u8, bool, Vec<u8>),
    Redundant(u8, u32, u32),
    ExpectSources(u8, u32),
    CloseSource(u8),
    Fire(u8, bool, u8, Vec<u64>),
    Drop(u8, Vec<u64>),
    TickAt(u64),
    Offer(u8, u32, u64),
    Continue,
}

/// Mostly going on, as it should be or not.
fn message_between() -> impl Strategy<Value = Message> {
    let jump = prop_oneof![40 => Just(0), 4 => 1..3u64, 1 => any::<u64>()];
    prop_oneof![
        4 => message(),
        3 => (any::<u8>(), 0..100u32, jump)
            .prop_map(|(to, at, jump)| Message::Offer(to, at, jump)),
        3 => Just(Message::Continue),
        2 => (prop_oneof![8 => Just(0), 1 => any::<i32>()], 3..30u8)
            .prop_map(|(status, ending)| Message::Complete(status, ending)),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let index = prop_oneof![
        20 => Just(0),
        4 => Just(REQUEST_OBJECT),
        2 => 1..3u32,
        1 => any::<u32>(),
    ];
    let extent = (prop_oneof![30 => 0..100u32, 1 => any::<u32>()], 1..5u32);
    let bucket = prop_oneof![30 => 0..3u8, 1 => 3..5u8];
    // Mostly the invocation's own session.
    let whose = || prop_oneof![4 => Just(OWN), 1 => any::<u8>()];
    let numbers = || prop::collection::vec(prop_oneof![12 => 0..4u64, 1 => any::<u64>()], 0..3);
    prop_oneof![
        2 => Just(Message::Ready),
        80 => (any::<u8>(), extent.clone(), prop_oneof![30 => 0..64u64, 1 => any::<u64>()], any::<u8>())
            .prop_map(|(to, (at, len), size, key)| Message::Publish(to, at, len, size, key)),
        30 => (any::<u8>(), index.clone(), any::<u8>())
            .prop_map(|(to, object, key)| Message::Forward(to, object, key)),
        20 => (whose(), 0..100u32, prop_oneof![30 => 200..600u16, 1 => any::<u16>()])
            .prop_map(|(whose, at, status)| Message::Respond(whose, at, status)),
        4 => whose().prop_map(Message::FailSession),
        20 => (any::<bool>(), prop::collection::vec(index, 0..3))
            .prop_map(|(more, list)| Message::Parts(more, list.iter().flat_map(|i| i.to_le_bytes()).collect())),
        2 => (any::<bool>(), prop::collection::vec(any::<u8>(), 0..9))
            .prop_map(|(more, list)| Message::Parts(more, list)),
        90 => (prop_oneof![8 => Just(0), 1 => any::<i32>()], 0..30u8)
            .prop_map(|(status, ending)| Message::Complete(status, ending)),
        20 => (bucket.clone(), any::<u8>()).prop_map(|(bucket, key)| Message::Get(bucket, key)),
        10 => (bucket.clone(), any::<u8>()).prop_map(|(bucket, key)| Message::ReleaseHold(bucket, key)),
        10 => prop_oneof![20 => Just(0), 1 => 1..3u32].prop_map(Message::FetchInputs),
        2 => (0..2u32).prop_map(Message::FetchExtents),
        10 => (0..3u32, prop_oneof![9 => Just(0), 1 => 0..3u32])
            .prop_map(|(object, first)| Message::FetchAttached(object, first)),
        20 => prop_oneof![0..10_000u64, 0..20_000_000u64, any::<u64>()].prop_map(Message::NeedCredit),
        20 => Just(Message::Persist),
        10 => (bucket, any::<u8>()).prop_map(|(bucket, key)| Message::Load(bucket, key)),
        4 => Just(Message::Loaded),
        10 => (Just(JOIN), any::<bool>(), prop::collection::vec(0..4u8, 0..4))
            .prop_map(|(trigger, more, keys)| Message::Join(trigger, more, keys)),
        8 => (Just(ROUNDS), 0..4u32, 0..4u32).prop_map(|(trigger, k, n)| Message::Redundant(trigger, k, n)),
        8 => (Just(GROUPS), 0..3u32).prop_map(|(trigger, n)| Message::ExpectSources(trigger, n)),
        8 => Just(Message::CloseSource(GROUPS)),
        1 => any::<u8>().prop_map(Message::CloseSource),
        30 => (prop_oneof![20 => Just(2), 4 => Just(255), 1 => 0..4u8], any::<bool>(), any::<u8>(), numbers())
            .prop_map(|(to, more, whose, list)| Message::Fire(to, more && whose < 16, whose, list)),
        15 => (any::<u8>(), numbers()).prop_map(|(whose, list)| Message::Drop(whose, list)),
        4 => prop_oneof![0..50_000_000u64, Just(u64::MAX)].prop_map(Message::TickAt),
        1 => (any::<u8>(), 0..3u32).prop_map(|(trigger, n)| Message::ExpectSources(trigger, n)),
    ]
}

fn op(message: impl Strategy<Value = Message> + 'static) -> impl Strategy<Value = Op> {
    prop_oneof![
        60 => (any::<u8>(), message).prop_map(|(who, message)| Op::Say(who, message)),
        6 => Just(Op::Start),
        1 => Just(Op::SpawnFails),
        2 => any::<u8>().prop_map(Op::Die),
        1 => any::<u8>().prop_map(Op::Dying),
        1 => any::<u8>().prop_map(Op::Garble),
        20 => any::<bool>().prop_map(Op::Call),
        3 => (any::<u8>(), any::<bool>()).prop_map(|(key, joins)| Op::Put(key, joins)),
        1 => any::<u8>().prop_map(Op::Cancel),
        2 => any::<u8>().prop_map(Op::Taken),
        12 => (any::<u8>(), prop::bool::weighted(0.95)).prop_map(|(which, ok)| Op::Write(which, ok)),
        20 => (any::<u8>(), any::<u8>()).prop_map(|(which, outcome)| Op::Disk(which, outcome)),
        12 => prop_oneof![0..100_000u64, 0..20_000_000u64].prop_map(Op::Pass),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(who, room)| Op::Room(who, room)),
    ]
}

fn spec() -> AppSpec {
    let mut spec = app(&["a", "b", "c"]);
    spec.executors.max = EXECUTORS;
    spec.limits.waiters = WAITERS;
    spec.limits.create_wait_ns = 1_000_000;
    spec.limits.objects = 60;
    spec.memory_bytes = 4 << 20;
    spec.keep_request = true;
    spec.session_timeout_ns = Some(500_000_000);
    spec.functions[0].next = vec![1, 2];
    spec.functions[0].timeout_ns = Some(50_000_000);
    spec.functions[1].calls = vec![0];
    spec.functions[1].sends = Some(vec![0, 1, 2]);
    spec.functions[2].max_concurrency = Some(1);
    spec.functions[1].serial_by = Some(SerialBy::Key);
    spec.functions[2].serial_by = Some(SerialBy::Session);
    spec.functions[2].serial_width = 2;
    let mut fires = by_set(&["k1", "k2"], &[2]);
    fires.at_end = AtEnd::Fire;
    let mut drops = by_set(&["k0", "k3"], &[1]);
    drops.at_end = AtEnd::Drop;
    spec.buckets = vec![
        bucket(
            "kept",
            Keep::Session,
            vec![immediate(&[1]), by_set(&["k0", "k1"], &[0])],
        ),
        bucket(
            "passing",
            Keep::UntilConsumed,
            vec![fires, drops, by_pattern("k*", &[2, 1])],
        ),
        bucket("gathered", Keep::UntilConsumed, gathering()),
    ];
    spec.functions[0].attempts = 3;
    spec.functions[1].attempts = 2;
    spec.functions[1].on_failure = OnFailure::Continue;
    spec.functions[2].on_failure = OnFailure::Bucket(0);
    let rule = |function, timeout_ns, speculative, optional| RerunSpec {
        function,
        timeout_ns,
        attempts: 3,
        speculative,
        optional,
    };
    spec.buckets[0].reruns = vec![
        rule(0, 3_000_000, false, false),
        rule(1, 2_000_000, false, true),
    ];
    spec.buckets[1].reruns = vec![
        rule(2, 4_000_000, false, false),
        rule(0, 1_000_000, true, true),
    ];
    spec
}

/// With functions that may be gone on from and gone on with, and one that may not.
fn walking() -> AppSpec {
    let mut spec = spec();
    spec.keep_request = false;
    for function in &mut spec.functions {
        function.attempts = 1;
        function.serial_by = None;
    }
    spec.functions[0].next = vec![0];
    spec.functions[1].calls = vec![0, 2];
    spec.functions[1].timeout_ns = Some(5_000_000);
    spec.buckets[0].triggers = vec![immediate(&[1])];
    spec.buckets[1].triggers = vec![immediate(&[0])];
    for bucket in &mut spec.buckets {
        bucket.reruns.clear();
    }
    spec
}

/// Whose session it is that an answer is for: that of the invocation itself.
const OWN: u8 = 254;

/// Two with the same spec, so that all numbers of one mean something in the other.
const APPS: [AppId; 2] = [AppId(0), AppId(1)];

/// Whose a request is: one's more often, so that much is going on in it.
fn app_of(request: RequestId) -> AppId {
    APPS[usize::from(request.0.is_multiple_of(3))]
}

const EXECUTORS: u16 = 3;
const WAITERS: u16 = 2;

/// The pool and two custom triggers come before it.
const INGRESS: u16 = EXECUTORS + WAITERS + 2;

/// Numbers of triggers that can be steered, as [`spec`] counts them.
const ROUNDS: u8 = FIRST_GATHERED + 2;
const JOIN: u8 = FIRST_GATHERED + 3;
const GROUPS: u8 = FIRST_GATHERED + 4;
const FIRST_GATHERED: u8 = 5;

/// One trigger of each type that gathers.
fn gathering() -> Vec<TriggerSpec> {
    let with = |name: &str, at_end, kind| TriggerSpec {
        at_end,
        ..trigger(name, kind, &[2])
    };
    let group = |close| TriggerKind::DynamicGroup {
        close,
        fire_empty: true,
        order_by_key: true,
    };
    let custom = |keep| TriggerKind::Custom {
        config: Vec::new(),
        timeout_ns: 3_000_000,
        keep,
    };
    let batch = TriggerKind::ByBatchSize {
        count: 3,
        linger_ns: Some(2_000_000),
        per_group: true,
    };
    let windows = TriggerKind::ByTime {
        window_ns: 5_000_000,
        slide_ns: 2_000_000,
        fire_empty: true,
        per_group: false,
    };
    let rounds = TriggerKind::Redundant {
        k_of_n: None,
        cancel_rest: vec![2],
        expire_ns: None,
    };
    vec![
        with("batch", AtEnd::Wait, batch),
        with("windows", AtEnd::Wait, windows),
        with("rounds", AtEnd::Drop, rounds),
        with("join", AtEnd::Fire, TriggerKind::DynamicJoin),
        with("sources", AtEnd::Drop, group(GroupClose::SourcesAtRunTime)),
        with("after", AtEnd::Fire, group(GroupClose::After(1))),
        with("decides", AtEnd::Drop, custom(false)),
        with("keeps", AtEnd::Fail, custom(true)),
    ]
}

const KEYS: [&[u8]; 6] = [b"k0", b"k1", b"k2", b"k3", b"~1.0", b""];

struct Storm {
    core: Core,
    sink: Deaf,
    now_ns: u64,
    requests: u64,
    sessions: Vec<SessionId>,
    /// Processes start and die as soon as they should.
    prompt: bool,
    /// How many triggers there are before those that gather.
    triggers: u8,
}

impl Storm {
    fn new(spec: &AppSpec, spin: SpinPolicy, prompt: bool) -> Self {
        let before = &spec.buckets[..2];
        let mut storm = Self {
            core: Core::new(CoreConfig {
                keeps_on_disk: true,
                first_id: 0,
                scheduler_index: 0,
                schedulers: 1,
                executor_cores: 2,
                spin,
            }),
            sink: Deaf::default(),
            now_ns: 1,
            requests: 0,
            sessions: Vec::new(),
            prompt,
            triggers: before.iter().map(|of| of.triggers.len() as u8).sum(),
        };
        for app in APPS {
            let spec = Box::new(spec.clone());
            storm.step(Event::Deploy { app, spec });
        }
        storm
    }

    fn step(&mut self, event: Event<'_>) {
        self.core.step(event, self.now_ns, &mut self.sink);
    }

    fn who(&self, number: u8) -> ExecutorId {
        self.who_may(number, |_| true)
    }

    /// Mostly somebody who works and whom the message becomes, sometimes anybody.
    fn speaker(&self, number: u8, message: &Message) -> ExecutorId {
        self.who_may(number, |id| {
            let is_custom = (EXECUTORS + WAITERS..INGRESS).contains(&id.slot);
            match message {
                Message::Complete(..) | Message::Loaded => true,
                Message::Fire(..) | Message::Drop(..) | Message::TickAt(_) => is_custom,
                _ => !is_custom,
            }
        })
    }

    fn who_may(&self, number: u8, is_right: impl Fn(&ExecutorId) -> bool) -> ExecutorId {
        let busy: Vec<ExecutorId> = self.sink.busy.iter().copied().filter(is_right).collect();
        if !number.is_multiple_of(8) && !busy.is_empty() {
            return busy[usize::from(number / 8) % busy.len()];
        }
        let slots = INGRESS as u8 + 1;
        ExecutorId {
            app: APPS[usize::from(number / slots) % APPS.len()],
            slot: u16::from(number % slots),
        }
    }

    fn apply(&mut self, op: &Op) {
        self.apply_alone(op);
        while self.prompt {
            if let Some(killed) = self.sink.killed.first().copied() {
                self.die(killed);
            } else if !self.sink.asked.is_empty() {
                self.apply_alone(&Op::Start);
            } else {
                break;
            }
        }
    }

    fn apply_alone(&mut self, op: &Op) {
        match *op {
            Op::Say(who, ref message) => self.say(self.speaker(who, message), message),
            Op::Start => {
                if let Some(executor) = self.sink.asked.pop_first() {
                    let incarnation = self.sink.incarnations.entry(executor).or_default();
                    *incarnation += 1;
                    let incarnation = *incarnation;
                    self.sink.alive.insert(executor, incarnation);
                    self.step(Event::ExecutorStarted {
                        executor,
                        incarnation,
                    });
                    self.sink.adopts = false;
                    self.say(executor, &Message::Ready);
                    if self.prompt && self.sink.adopts {
                        self.say(executor, &Message::FetchExtents(0));
                    }
                }
            }
            Op::SpawnFails => {
                if let Some(executor) = self.sink.asked.pop_first() {
                    self.step(Event::SpawnFailed {
                        executor,
                        reason: "no",
                    });
                }
            }
            Op::Die(who) => self.die(self.who(who)),
            Op::Dying(who) => {
                let executor = self.who(who);
                if let Some(&incarnation) = self.sink.alive.get(&executor) {
                    self.step(Event::ExecutorDying {
                        executor,
                        incarnation,
                    });
                }
            }
            Op::Garble(who) => {
                let executor = self.who(who);
                if self.sink.alive.contains_key(&executor) {
                    self.step(Event::Garbled {
                        executor,
                        reason: "noise",
                    });
                }
            }
            Op::Call(has_caller) => self.request(Destination::Function(0), None, has_caller),
            Op::Put(key, joins) => {
                let session = self.pick(key).filter(|_| joins);
                let key = KEYS[usize::from(key) % KEYS.len()];
                let destination = Destination::Bucket {
                    bucket: u16::from(key.len() > 2),
                    key: (!key.is_empty()).then_some(key),
                    group: b"g",
                };
                self.request(destination, session, false);
            }
            Op::Cancel(which) => {
                if let Some(session) = self.pick(which) {
                    self.step(Event::Cancel { session });
                }
            }
            Op::Taken(which) => {
                let count = self.sink.answered.len();
                if count > 0 {
                    let at = usize::from(which) % count;
                    let (request, session) = self.sink.answered.swap_remove(at);
                    self.step(Event::ResponseTaken { request, session });
                }
            }
            Op::Write(which, succeeds) => {
                let count = self.sink.unwritten.len();
                if count > 0 {
                    let at = usize::from(which) % count;
                    let unwritten = self.sink.unwritten.swap_remove(at);
                    self.write(unwritten, succeeds);
                }
            }
            Op::Disk(which, outcome) => {
                let count = self.sink.of_disk.len();
                if count > 0 {
                    let at = usize::from(which) % count;
                    let asked = self.sink.of_disk.swap_remove(at);
                    self.answer_of_disk(asked, outcome);
                }
            }
            Op::Pass(ns) => {
                self.now_ns += ns;
                self.step(Event::Tick);
            }
            Op::Room(who, room) => {
                self.sink.releases_until_full = u32::from(room);
                self.step(Event::ReleaseRoom {
                    executor: self.who(who),
                });
            }
            Op::Remove => {
                for app in APPS {
                    self.step(Event::Remove { app });
                }
            }
        }
    }

    fn pick(&self, number: u8) -> Option<SessionId> {
        let count = self.sessions.len();
        (count > 0).then(|| self.sessions[usize::from(number) % count])
    }

    fn die(&mut self, executor: ExecutorId) {
        if let Some(incarnation) = self.sink.alive.remove(&executor) {
            // Who was heard to the end has not begun what it has not said.
            let taken = self.sink.taken.remove(&executor);
            let was_killed = self.sink.killed.contains(&executor);
            self.sink.begun.extend(taken.filter(|_| was_killed));
            self.sink.offered.remove(&executor);
            self.sink.granted.remove(&executor);
            self.sink.unused.remove(&executor);
            self.sink.busy.remove(&executor);
            self.sink.killed.remove(&executor);
            self.sink.waiting.remove(&executor);
            self.sink.loading.remove(&executor);
            self.sink.cancelled.remove(&executor);
            self.step(Event::ExecutorDied {
                executor,
                incarnation,
                death: Death::Signaled(9),
                detail: "",
            });
        }
    }

    fn answer_of_disk(&mut self, asked: Asked, outcome: u8) {
        match asked {
            Asked::Write(app, ticket) => self.step(Event::Written {
                app,
                ticket,
                outcome: match outcome % 4 {
                    0 => Written::Exists,
                    1 => Written::Failed("no"),
                    _ => Written::Done {
                        sequence: 1,
                        is_repeated: outcome % 8 == 3,
                    },
                },
            }),
            Asked::Load(app, ticket) => {
                let body = Ingress {
                    extent: Extent {
                        offset_units: ticket.0 as u32 % 1000,
                        len_units: 1,
                    },
                    size_bytes: 10,
                };
                let session = SessionId(7);
                let found = FoundObject {
                    body,
                    session,
                    group: b"",
                };
                let missing = Err(NotFound::Missing);
                let found = if outcome.is_multiple_of(2) {
                    Ok(found)
                } else {
                    missing
                };
                self.step(Event::Loaded { app, ticket, found });
            }
        }
    }

    fn write(&mut self, (app, ticket): (AppId, Ticket), succeeds: bool) {
        if !succeeds {
            self.step(Event::FailureNotWritten {
                app,
                ticket,
                reason: "no",
            });
            return;
        }
        let extent = Extent {
            offset_units: ticket.0 as u32 % 1000,
            len_units: 18,
        };
        self.step(Event::FailureWritten {
            app,
            ticket,
            body: Ingress {
                extent,
                size_bytes: 1104,
            },
        });
    }

    fn request(
        &mut self,
        destination: Destination<'_>,
        session: Option<SessionId>,
        has_caller: bool,
    ) {
        self.requests += 1;
        let extent = Extent {
            offset_units: self.requests as u32 % 1000,
            len_units: 1,
        };
        let block = HeadersRef {
            region: INGRESS,
            offset_units: extent.offset_units,
            size_bytes: 9,
        };
        let id = RequestId(self.requests);
        self.step(Event::Request(Request {
            app: app_of(id),
            id,
            destination,
            body: Ingress {
                extent,
                size_bytes: 7,
            },
            headers: self.requests.is_multiple_of(2).then_some((block, extent)),
            session,
            has_caller,
            timeout_ns: None,
            durable: None,
        }));
        self.sessions = self.sink.open.keys().copied().collect();
        self.sessions.sort();
    }

    fn say(&mut self, executor: ExecutorId, message: &Message) {
        let key = |number: u8| match number {
            0..=120 => Key::Named(KEYS[usize::from(number % 4)]),
            121..=250 => Key::Auto(u32::from(number)),
            _ => Key::Named(KEYS[usize::from(number) % KEYS.len()]),
        };
        let target = |number: u8| match number {
            0..=239 => Target::Bucket(u16::from(number % 3)),
            240..=250 => Target::Next,
            to => Target::Function(u16::from(to) % 4),
        };
        let group = b"group";
        let mut joined = Vec::new();
        let mut numbers: Vec<u8> = Vec::new();
        if let Message::Fire(_, _, _, list) | Message::Drop(_, list) = message {
            numbers = list
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect();
        }
        let triggers = self.triggers;
        let steered = |trigger: u8| match trigger.checked_sub(FIRST_GATHERED) {
            Some(gathers) => u16::from(triggers) + u16::from(gathers),
            None => u16::from(trigger),
        };
        let session = |whose: u8| match whose {
            OWN => 0,
            255 => 1,
            whose => self.pick(whose).map_or(0, |session| session.0),
        };
        let message = match *message {
            Message::Ready => FromExecutor::Ready,
            Message::Publish(to, offset_units, len_units, size_bytes, named) => {
                FromExecutor::Publish {
                    ordinal: u32::from(named),
                    delay_ns: if named % 16 == 15 { size_bytes } else { 0 },
                    target: target(to),
                    extent: Extent {
                        offset_units,
                        len_units,
                    },
                    size_bytes,
                    key: key(named),
                    group,
                }
            }
            Message::Forward(to, object, named) => FromExecutor::Forward {
                ordinal: 0,
                delay_ns: 0,
                target: target(to),
                object,
                key: key(named),
                group,
            },
            Message::Respond(whose, offset_units, http_status) => FromExecutor::Respond {
                session: session(whose),
                extent: Extent {
                    offset_units,
                    len_units: 1,
                },
                size_bytes: 3,
                http_status,
                content_type: b"text/plain",
            },
            Message::FailSession(whose) => FromExecutor::FailSession {
                session: session(whose),
                status: 1,
                message: b"no \xff",
            },
            Message::Parts(more, ref objects) => FromExecutor::RespondParts {
                more,
                http_status: 200,
                content_type: b"",
                objects,
            },
            Message::Complete(status, ending) => FromExecutor::Complete {
                status,
                ending: match ending {
                    0 => Ending::NotLoaded,
                    1 => Ending::InitFailed,
                    2 => Ending::StrayThreads,
                    _ => Ending::Returned,
                },
                discarded: 1,
                message: b"why \xff",
            },
            Message::Get(bucket, named) => FromExecutor::Get {
                bucket: u16::from(bucket),
                timeout_ns: [0, 1_000, 5_000_000, u64::MAX][usize::from(named) / 2 % 4],
                key: KEYS[usize::from(named) % KEYS.len()],
            },
            Message::ReleaseHold(bucket, named) => FromExecutor::ReleaseHold {
                bucket: u16::from(bucket),
                key: KEYS[usize::from(named) % KEYS.len()],
            },
            Message::FetchInputs(first) => FromExecutor::FetchInputs { first },
            Message::FetchExtents(first) => FromExecutor::FetchExtents { first },
            Message::FetchAttached(object, first) => FromExecutor::FetchAttached { object, first },
            Message::NeedCredit(bytes) => FromExecutor::NeedCredit { bytes },
            Message::Persist => FromExecutor::Persist,
            Message::Load(bucket, named) => FromExecutor::Load {
                bucket: u16::from(bucket),
                key: KEYS[usize::from(named) % KEYS.len()],
            },
            Message::Loaded => FromExecutor::Loaded,
            Message::Join(trigger, more, ref list) => {
                joined.clear();
                for key in list {
                    put_join_key(&mut joined, KEYS[usize::from(*key) % 4]);
                }
                FromExecutor::Join {
                    trigger: steered(trigger),
                    more,
                    keys: &joined,
                }
            }
            Message::Redundant(trigger, k, n) => FromExecutor::Redundant {
                trigger: steered(trigger),
                k,
                n,
            },
            Message::ExpectSources(trigger, sources) => FromExecutor::ExpectSources {
                trigger: steered(trigger),
                sources,
            },
            Message::CloseSource(trigger) => FromExecutor::CloseSource {
                trigger: steered(trigger),
            },
            Message::Fire(function, more, whose, _) => FromExecutor::Fire {
                function: match function {
                    255 => ALL_FUNCTIONS,
                    function => u16::from(function),
                },
                more,
                session: session(whose),
                objects: &numbers,
            },
            Message::Drop(whose, _) => FromExecutor::Drop {
                session: session(whose),
                objects: &numbers,
            },
            Message::Offer(to, offset_units, jump) => {
                let unused = self.sink.unused.get(&executor).copied().unwrap_or(1);
                FromExecutor::Offer {
                    target: [
                        Target::Next,
                        Target::Bucket(0),
                        Target::Bucket(1),
                        Target::Function(u16::from(to) / 4 % 3),
                    ][usize::from(to) % 4],
                    extent: Extent {
                        offset_units,
                        len_units: 1,
                    },
                    size_bytes: 3,
                    ordinal: u32::from(to),
                    invocation: unused.wrapping_add(jump),
                }
            }
            Message::Continue => FromExecutor::Continue { discarded: 1 },
            Message::TickAt(in_ns) => FromExecutor::TickAt {
                time_ns: self.now_ns.saturating_add(in_ns),
            },
        };
        match message {
            FromExecutor::Complete { .. } => {
                self.sink.busy.remove(&executor);
                self.sink.left(executor);
            }
            FromExecutor::Offer { invocation, .. } => {
                let next = invocation.wrapping_add(1);
                self.sink.unused.insert(executor, next);
                self.sink.offered.insert(executor, invocation);
            }
            FromExecutor::Get { .. } if self.sink.runs(executor) => {
                self.sink.waiting.insert(executor);
            }
            FromExecutor::Load { .. } if self.sink.runs(executor) => {
                self.sink.loading.insert(executor);
            }
            _ => {}
        }
        let goes_on = matches!(message, FromExecutor::Continue { .. });
        let is_heard = self.sink.runs(executor);
        self.step(Event::Message { executor, message });
        if goes_on && is_heard && !self.sink.killed.contains(&executor) {
            let begun = self.sink.offered.remove(&executor);
            let begun = begun.expect("one that offers nothing cannot go on");
            self.sink.begun.insert(begun);
            self.sink.taken.remove(&executor);
        }
    }

    /// The apps go, and with them everything.
    fn end(mut self) {
        self.prompt = false;
        self.apply(&Op::Remove);
        for _ in 0..2 {
            let alive: Vec<_> = self.sink.alive.keys().copied().collect();
            for executor in alive {
                self.die(executor);
            }
            while !self.sink.asked.is_empty() {
                self.apply(&Op::SpawnFails);
            }
        }
        for (request, session) in std::mem::take(&mut self.sink.answered) {
            self.step(Event::ResponseTaken { request, session });
        }
        for unwritten in std::mem::take(&mut self.sink.unwritten) {
            self.write(unwritten, true);
        }
        for asked in std::mem::take(&mut self.sink.of_disk) {
            self.answer_of_disk(asked, 2);
        }
        assert!(self.sink.open.is_empty(), "every session has ended");
        assert_eq!(self.sink.removed.len(), APPS.len(), "nothing keeps them");
        let totals = self.core.totals();
        assert_eq!(totals.sessions + totals.objects + totals.invocations, 0);
        assert_eq!(totals.names + totals.trigger_states + totals.lines, 0);
        self.now_ns += 3_600_000_000_000;
        self.step(Event::Tick);
        assert_eq!(self.core.totals().timers, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_an_executor_says_shakes_the_core(
        spin in spin(),
        prompt in prop::bool::weighted(0.8),
        ops in prop::collection::vec(op(message()), 1..400),
    ) {
        let mut storm = Storm::new(&spec(), spin, prompt);
        for op in &ops {
            storm.apply(op);
        }
        storm.end();
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    /// Words that change as they like, offers of what was never granted, and all else that there
    /// is: what has begun is never begun again.
    #[test]
    fn nothing_that_goes_on_by_itself_shakes_the_core(
        spin in spin(),
        prompt in prop::bool::weighted(0.8),
        words in any::<u64>(),
        ops in prop::collection::vec(op(message_between()), 1..400),
    ) {
        let mut storm = Storm::new(&walking(), spin, prompt);
        storm.sink.words = words;
        for op in &ops {
            storm.apply(op);
        }
        storm.end();
    }
}

fn spin() -> impl Strategy<Value = SpinPolicy> {
    prop_oneof![
        Just(SpinPolicy::Never),
        Just(SpinPolicy::Budget(20_000)),
        Just(SpinPolicy::Always),
    ]
}
