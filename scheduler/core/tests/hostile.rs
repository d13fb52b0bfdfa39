//! Whatever executors say, in whatever state, in whatever order with deaths, cancellations and
//! time: a step never panics, every session ends once, and in the end nothing is left.

mod common;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use common::APP;
use common::app::{app, bucket, by_pattern, by_set, immediate, trigger};
use pheromone_core::event::{
    AppId, Death, Destination, Event, ExecutorId, Ingress, Outcome, Refusal, Request, RequestId,
    Response, SessionId, Sink,
};
use pheromone_core::spec::{AppSpec, AtEnd, GroupClose, Keep, OnFailure, TriggerKind, TriggerSpec};
use pheromone_core::{Core, CoreConfig, SpinPolicy};
use pheromone_shm::message::{
    Dispatch, Ending, Extent, FromExecutor, HeadersRef, Input, Key, REQUEST_OBJECT, Target,
    ToExecutor,
};
use pheromone_shm::wire::put_join_key;
use proptest::prelude::*;

/// Remembers only what is needed to go on.
#[derive(Default)]
struct Deaf {
    asked: BTreeSet<ExecutorId>,
    alive: BTreeMap<ExecutorId, u32>,
    busy: BTreeSet<ExecutorId>,
    killed: BTreeSet<ExecutorId>,
    /// The last message told its receiver to adopt something.
    adopts: bool,
    incarnations: HashMap<ExecutorId, u32>,
    answered: Vec<(RequestId, SessionId)>,
    open: HashSet<SessionId>,
    ended: HashSet<SessionId>,
    removed: bool,
    releases_until_full: u32,
}

impl Sink for Deaf {
    fn send(&mut self, id: ExecutorId, message: &ToExecutor<'_>) {
        assert!(self.alive.contains_key(&id));
        self.adopts = matches!(message, ToExecutor::Adopt { extent_count: 1.. });
    }

    fn dispatch<'a>(
        &mut self,
        id: ExecutorId,
        dispatch: &Dispatch<'a>,
        inputs: impl Iterator<Item = Input<'a>>,
    ) {
        assert!(self.alive.contains_key(&id));
        assert_eq!(inputs.count(), dispatch.input_count as usize);
        assert!(!self.ended.contains(&SessionId(dispatch.session)));
        assert!(self.busy.insert(id), "one dispatch is open at a time");
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

    fn release(&mut self, _: ExecutorId, _: Extent) -> bool {
        self.releases_until_full = self.releases_until_full.saturating_sub(1);
        self.releases_until_full > 0
    }

    fn credit(&mut self, _: ExecutorId, _: u64) {}

    fn permit_spin(&mut self, _: ExecutorId, _: bool) {}

    fn cancel(&mut self, id: ExecutorId, _: u64) {
        assert!(self.alive.contains_key(&id));
    }

    fn spawn(&mut self, id: ExecutorId, _: u16) {
        assert!(!self.alive.contains_key(&id));
        assert!(self.asked.insert(id));
    }

    fn kill(&mut self, id: ExecutorId, _: &str) {
        assert!(self.alive.contains_key(&id));
        assert!(self.killed.insert(id), "killed once");
    }

    fn accepted(&mut self, _: RequestId, session: SessionId) {
        self.open.insert(session);
    }

    fn refused(&mut self, _: RequestId, _: Refusal) {}

    fn respond(&mut self, response: &Response<'_>) {
        if !response.parts.is_empty() {
            self.answered.push((response.request, response.session));
        }
    }

    fn ended(&mut self, _: AppId, _: RequestId, session: SessionId, _: &Outcome<'_>, _: bool) {
        assert!(self.open.remove(&session), "it was open");
        assert!(self.ended.insert(session), "it ends once");
    }

    fn error_event(&mut self, _: AppId, session: SessionId, _: &str) {
        assert!(!self.ended.contains(&session));
    }

    fn removed(&mut self, _: AppId) {
        assert!(!std::mem::replace(&mut self.removed, true));
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
    Pass(u64),
    Room(u8, u8),
    Remove,
}

#[derive(Clone, Debug)]
enum Message {
    Ready,
    Publish(u8, u32, u32, u64, u8),
    Forward(u8, u32, u8),
    Respond(u32, u16),
    Parts(bool, Vec<u8>),
    Complete(i32, u8),
    Get(u8, u8),
    ReleaseHold(u8, u8),
    FetchInputs(u32),
    FetchExtents(u32),
    NeedCredit(u64),
    Loaded,
    Join(u8, bool, Vec<u8>),
    Redundant(u8, u32, u32),
    ExpectSources(u8, u32),
    CloseSource(u8),
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
    prop_oneof![
        2 => Just(Message::Ready),
        80 => (any::<u8>(), extent.clone(), prop_oneof![30 => 0..64u64, 1 => any::<u64>()], any::<u8>())
            .prop_map(|(to, (at, len), size, key)| Message::Publish(to, at, len, size, key)),
        30 => (any::<u8>(), index.clone(), any::<u8>())
            .prop_map(|(to, object, key)| Message::Forward(to, object, key)),
        20 => (0..100u32, prop_oneof![30 => 200..600u16, 1 => any::<u16>()])
            .prop_map(|(at, status)| Message::Respond(at, status)),
        20 => (any::<bool>(), prop::collection::vec(index, 0..3))
            .prop_map(|(more, list)| Message::Parts(more, list.iter().flat_map(|i| i.to_le_bytes()).collect())),
        2 => (any::<bool>(), prop::collection::vec(any::<u8>(), 0..9))
            .prop_map(|(more, list)| Message::Parts(more, list)),
        90 => (prop_oneof![8 => Just(0), 1 => any::<i32>()], 0..30u8)
            .prop_map(|(status, ending)| Message::Complete(status, ending)),
        20 => (bucket.clone(), any::<u8>()).prop_map(|(bucket, key)| Message::Get(bucket, key)),
        10 => (bucket, any::<u8>()).prop_map(|(bucket, key)| Message::ReleaseHold(bucket, key)),
        10 => prop_oneof![20 => Just(0), 1 => 1..3u32].prop_map(Message::FetchInputs),
        2 => (0..2u32).prop_map(Message::FetchExtents),
        20 => prop_oneof![0..10_000u64, 0..20_000_000u64, any::<u64>()].prop_map(Message::NeedCredit),
        4 => Just(Message::Loaded),
        10 => (Just(JOIN), any::<bool>(), prop::collection::vec(0..4u8, 0..4))
            .prop_map(|(trigger, more, keys)| Message::Join(trigger, more, keys)),
        8 => (Just(ROUNDS), 0..4u32, 0..4u32).prop_map(|(trigger, k, n)| Message::Redundant(trigger, k, n)),
        8 => (Just(GROUPS), 0..3u32).prop_map(|(trigger, n)| Message::ExpectSources(trigger, n)),
        8 => Just(Message::CloseSource(GROUPS)),
        1 => any::<u8>().prop_map(Message::CloseSource),
        1 => (any::<u8>(), 0..3u32).prop_map(|(trigger, n)| Message::ExpectSources(trigger, n)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        60 => (any::<u8>(), message()).prop_map(|(who, message)| Op::Say(who, message)),
        6 => Just(Op::Start),
        1 => Just(Op::SpawnFails),
        2 => any::<u8>().prop_map(Op::Die),
        1 => any::<u8>().prop_map(Op::Dying),
        1 => any::<u8>().prop_map(Op::Garble),
        20 => any::<bool>().prop_map(Op::Call),
        3 => (any::<u8>(), any::<bool>()).prop_map(|(key, joins)| Op::Put(key, joins)),
        1 => any::<u8>().prop_map(Op::Cancel),
        2 => any::<u8>().prop_map(Op::Taken),
        12 => prop_oneof![0..100_000u64, 0..20_000_000u64].prop_map(Op::Pass),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(who, room)| Op::Room(who, room)),
    ]
}

fn spec() -> AppSpec {
    let mut spec = app(&["a", "b", "c"]);
    spec.executors.max = 3;
    spec.limits.waiters = 1;
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
    spec
}

/// Numbers of triggers that can be steered, as [`spec`] counts them.
const ROUNDS: u8 = 7;
const JOIN: u8 = 8;
const GROUPS: u8 = 9;

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
}

impl Storm {
    fn new(spin: SpinPolicy, prompt: bool) -> Self {
        let mut storm = Self {
            core: Core::new(CoreConfig {
                scheduler_index: 1,
                executor_cores: 2,
                spin,
            }),
            sink: Deaf::default(),
            now_ns: 1,
            requests: 0,
            sessions: Vec::new(),
            prompt,
        };
        storm.step(Event::Deploy {
            app: APP,
            spec: Box::new(spec()),
        });
        storm
    }

    fn step(&mut self, event: Event<'_>) {
        self.core.step(event, self.now_ns, &mut self.sink);
    }

    /// Mostly somebody who works, sometimes anybody.
    fn who(&self, number: u8) -> ExecutorId {
        let busy = &self.sink.busy;
        if !number.is_multiple_of(8) && !busy.is_empty() {
            let at = usize::from(number / 8) % busy.len();
            return *busy.iter().nth(at).expect("it is in range");
        }
        ExecutorId {
            app: APP,
            slot: u16::from(number % 5),
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
            Op::Say(who, ref message) => self.say(self.who(who), message),
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
            Op::Remove => self.step(Event::Remove { app: APP }),
        }
    }

    fn pick(&self, number: u8) -> Option<SessionId> {
        let count = self.sessions.len();
        (count > 0).then(|| self.sessions[usize::from(number) % count])
    }

    fn die(&mut self, executor: ExecutorId) {
        if let Some(incarnation) = self.sink.alive.remove(&executor) {
            self.sink.busy.remove(&executor);
            self.sink.killed.remove(&executor);
            self.step(Event::ExecutorDied {
                executor,
                incarnation,
                death: Death::Signaled(9),
                detail: "",
            });
        }
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
            region: 4,
            offset_units: extent.offset_units,
            size_bytes: 9,
        };
        self.step(Event::Request(Request {
            app: APP,
            id: RequestId(self.requests),
            destination,
            body: Ingress {
                extent,
                size_bytes: 7,
            },
            headers: self.requests.is_multiple_of(2).then_some((block, extent)),
            session,
            has_caller,
            timeout_ns: None,
        }));
        self.sessions = self.sink.open.iter().copied().collect();
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
            Message::Respond(offset_units, http_status) => FromExecutor::Respond {
                extent: Extent {
                    offset_units,
                    len_units: 1,
                },
                size_bytes: 3,
                http_status,
                content_type: b"text/plain",
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
                timeout_ns: u64::from(named),
                key: KEYS[usize::from(named) % KEYS.len()],
            },
            Message::ReleaseHold(bucket, named) => FromExecutor::ReleaseHold {
                bucket: u16::from(bucket),
                key: KEYS[usize::from(named) % KEYS.len()],
            },
            Message::FetchInputs(first) => FromExecutor::FetchInputs { first },
            Message::FetchExtents(first) => FromExecutor::FetchExtents { first },
            Message::NeedCredit(bytes) => FromExecutor::NeedCredit { bytes },
            Message::Loaded => FromExecutor::Loaded,
            Message::Join(trigger, more, ref list) => {
                joined.clear();
                for key in list {
                    put_join_key(&mut joined, KEYS[usize::from(*key) % 4]);
                }
                FromExecutor::Join {
                    trigger: u16::from(trigger),
                    more,
                    keys: &joined,
                }
            }
            Message::Redundant(trigger, k, n) => FromExecutor::Redundant {
                trigger: u16::from(trigger),
                k,
                n,
            },
            Message::ExpectSources(trigger, sources) => FromExecutor::ExpectSources {
                trigger: u16::from(trigger),
                sources,
            },
            Message::CloseSource(trigger) => FromExecutor::CloseSource {
                trigger: u16::from(trigger),
            },
        };
        if matches!(message, FromExecutor::Complete { .. }) {
            self.sink.busy.remove(&executor);
        }
        self.step(Event::Message { executor, message });
    }

    /// The app goes, and with it everything.
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
        assert!(self.sink.open.is_empty(), "every session has ended");
        assert!(self.sink.removed, "nothing keeps the app");
        let totals = self.core.totals();
        assert_eq!(totals.sessions + totals.objects + totals.invocations, 0);
        assert_eq!(totals.names + totals.trigger_states, 0);
        self.now_ns += 3_600_000_000_000;
        self.step(Event::Tick);
        assert_eq!(self.core.totals().timers, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_an_executor_says_shakes_the_core(
        spin in prop_oneof![
            Just(SpinPolicy::Never),
            Just(SpinPolicy::Budget(20_000)),
            Just(SpinPolicy::Always),
        ],
        prompt in prop::bool::weighted(0.8),
        ops in prop::collection::vec(op(), 1..400),
    ) {
        let mut storm = Storm::new(spin, prompt);
        for op in &ops {
            storm.apply(op);
        }
        storm.end();
    }
}
