//! Executors that are ahead of their scheduler: what they say is heard late, and in the meantime it
//! takes back, cancels and starts elsewhere. Whoever wins, each invocation starts once, no honest
//! executor is taken for a liar, and nothing is lost or left.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use pheromone_core::CoreConfig;
use pheromone_core::SpinPolicy;
use pheromone_core::event::{Death, Event, ExecutorId, SessionId};
use pheromone_core::in_place::InPlace;
use pheromone_core::spec::{AppSpec, Keep, OnFailure, Pool};
use pheromone_shm::message::{Ending, Extent, FromExecutor, Key, NO_TRIGGER, Target};
use proptest::prelude::*;

use crate::common::app::{app, bucket, immediate};
use crate::common::{APP, CONFIG, Call, End, World};

/// What an executor has said and nobody has heard.
#[derive(Clone, Copy, Debug)]
enum Said {
    Offer(Target, Extent, u32, u64),
    Publish(Target, Extent, u32),
    Continue,
    Complete(i32),
    /// An object that its session keeps.
    Put(Extent),
}

impl Said {
    fn message(self) -> FromExecutor<'static> {
        let size_bytes = 8;
        match self {
            Self::Offer(target, extent, ordinal, invocation) => FromExecutor::Offer {
                target,
                extent,
                size_bytes,
                ordinal,
                invocation,
            },
            Self::Publish(target, extent, ordinal) => FromExecutor::Publish {
                target,
                extent,
                size_bytes,
                key: Key::Auto(ordinal),
                ordinal,
                group: b"",
                delay_ns: 0,
            },
            Self::Put(extent) => FromExecutor::Publish {
                target: Target::Bucket(KEPT),
                extent,
                size_bytes,
                key: Key::Named(b"x"),
                ordinal: 0,
                group: b"",
                delay_ns: 0,
            },
            Self::Continue => FromExecutor::Continue { discarded: 1 },
            Self::Complete(status) => FromExecutor::Complete {
                status,
                ending: Ending::Returned,
                discarded: 0,
                message: b"",
            },
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Call(bool),
    /// Sends into the bucket or to `next`, offering to go on where it may.
    Send(usize, bool, bool),
    Return(usize, bool),
    /// Sends one thing and returns, so often, and goes on in place as long as it may.
    Walk(usize, bool, usize),
    Hear(usize, usize),
    Crash(usize),
    Cancel(usize),
    Pass(u64),
    Put(usize),
    /// Looks for what has been put, or for an automatic key.
    Get(usize, bool),
    /// So many releases still find room.
    Room(Option<usize>),
}

/// A bucket without triggers.
const KEPT: u16 = 1;

/// What an app is like.
#[derive(Clone, Copy, Debug)]
struct Shape {
    executors: u16,
    fails: OnFailure,
    /// Of the bucket whose objects are gone on with.
    keep: Keep,
    timeout_ns: Option<u64>,
    /// `walk` leads to `other`, which leads back.
    alternates: bool,
}

fn a_shape() -> impl Strategy<Value = Shape> {
    (
        1..4u16,
        prop::sample::select(vec![OnFailure::Fail, OnFailure::Continue]),
        prop::sample::select(vec![
            Keep::UntilConsumed,
            Keep::UntilConsumed,
            Keep::Session,
        ]),
        prop::option::of(Just(10_000_000_000)),
        any::<bool>(),
    )
        .prop_map(|(executors, fails, keep, timeout_ns, alternates)| Shape {
            executors,
            fails,
            keep,
            timeout_ns,
            alternates,
        })
}

fn an_op() -> impl Strategy<Value = Op> {
    let who = 0..4usize;
    prop_oneof![
        3 => any::<bool>().prop_map(Op::Call),
        16 => (who.clone(), any::<bool>(), prop::bool::weighted(0.85))
            .prop_map(|(who, direct, offers)| Op::Send(who, direct, offers)),
        20 => (who.clone(), prop::bool::weighted(0.97)).prop_map(|(w, ok)| Op::Return(w, ok)),
        8 => (who.clone(), any::<bool>(), 1..12usize)
            .prop_map(|(who, direct, hops)| Op::Walk(who, direct, hops)),
        16 => (who.clone(), 1..24usize).prop_map(|(who, count)| Op::Hear(who, count)),
        1 => who.prop_map(Op::Crash),
        1 => (0..8usize).prop_map(Op::Cancel),
        4 => prop_oneof![0..1_000u64, 0..120_000u64].prop_map(Op::Pass),
        1 => (0..4usize).prop_map(Op::Put),
        1 => (0..4usize, any::<bool>()).prop_map(|(who, auto)| Op::Get(who, auto)),
        1 => prop::option::of(0..4usize).prop_map(Op::Room),
    ]
}

struct Lagging {
    world: World,
    /// By executor: which process, and what it has said.
    said: BTreeMap<ExecutorId, (u32, VecDeque<Said>)>,
    started: HashSet<u64>,
    starts: HashMap<SessionId, u64>,
    sends: HashMap<SessionId, u64>,
    calls: Vec<Call>,
}

impl Lagging {
    fn new(shape: Shape) -> Self {
        let mut spec: AppSpec = app(&["walk", "other"]);
        spec.executors = Pool {
            min: 1,
            max: shape.executors,
        };
        spec.functions[0].next = vec![u16::from(shape.alternates)];
        spec.functions[1].next = vec![0];
        for function in &mut spec.functions {
            function.on_failure = shape.fails;
            function.timeout_ns = shape.timeout_ns;
        }
        spec.limits.dead_letters_bytes = 0;
        spec.buckets = vec![
            bucket("b", shape.keep, vec![immediate(&[0])]),
            bucket("kept", Keep::Session, vec![]),
        ];
        assert!(InPlace::new(&spec).buckets[0].is_some());
        let config = CoreConfig {
            executor_cores: 2,
            spin: SpinPolicy::Budget(20_000),
            ..CONFIG
        };
        Self {
            world: World::with_config(spec, config),
            said: BTreeMap::new(),
            started: HashSet::new(),
            starts: HashMap::new(),
            sends: HashMap::new(),
            calls: Vec::new(),
        }
    }

    /// An executor that runs something, as it sees it itself.
    fn who(&self, number: usize) -> Option<ExecutorId> {
        let executors = self.world.sink.executors.iter();
        let busy = executors.filter(|(_, executor)| executor.open.is_some());
        let busy: Vec<ExecutorId> = busy.map(|(&id, _)| id).collect();
        busy.get(number % busy.len().max(1)).copied()
    }

    /// Whatever has been started, here or there, has never been started before.
    fn note_starts(&mut self) {
        for open in std::mem::take(&mut self.world.sink.started) {
            let is_new = self.started.insert(open.invocation);
            assert!(is_new, "invocation {} is started twice", open.invocation);
            *self.starts.entry(SessionId(open.session)).or_default() += 1;
        }
        assert_eq!(self.world.stats().faults_total, 0, "nobody lies");
    }

    fn say(&mut self, id: ExecutorId, said: Said) {
        let incarnation = self.world.executor(id).incarnation;
        let queue = self.said.entry(id).or_default();
        if queue.0 != incarnation {
            *queue = (incarnation, VecDeque::new());
        }
        queue.1.push_back(said);
    }

    /// The scheduler hears the next message of an executor. False: there is none.
    fn hear(&mut self, id: ExecutorId) -> bool {
        let incarnation = self.world.sink.executors.get(&id).map(|of| of.incarnation);
        let Some((of, queue)) = self.said.get_mut(&id) else {
            return false;
        };
        if Some(*of) != incarnation {
            queue.clear();
        }
        let Some(said) = queue.pop_front() else {
            return false;
        };
        self.world.event(Event::Message {
            executor: id,
            message: said.message(),
        });
        self.note_starts();
        true
    }

    /// All that an executor has said is heard; whether it runs something still.
    fn catch_up(&mut self, id: ExecutorId) -> bool {
        while self.hear(id) {}
        let executor = self.world.sink.executors.get(&id);
        executor.is_some_and(|executor| executor.open.is_some())
    }

    /// Memory for an object, if its executor runs something still once it has asked for credit, in
    /// its turn.
    fn allocate(&mut self, id: ExecutorId) -> Option<Extent> {
        let lacks = self.world.executor(id).lacks_credit(1).is_some();
        (!lacks || self.catch_up(id)).then(|| self.world.allocate(id, 8))
    }

    fn send(&mut self, id: ExecutorId, direct: bool, offers: bool) {
        let target = if direct {
            Target::Next
        } else {
            Target::Bucket(0)
        };
        let Some(extent) = self.allocate(id) else {
            return;
        };
        let executor = self.world.executor(id);
        let ordinal = executor.next_ordinal();
        let open = executor.open.clone().expect("it runs");
        *self.sends.entry(SessionId(open.session)).or_default() += 1;
        let may = offers && executor.offered.is_none() && !open.cancelled;
        let granted = may.then(|| executor.granted.next(executor.grant)).flatten();
        let Some(invocation) = granted else {
            return self.say(id, Said::Publish(target, extent, ordinal));
        };
        let mut next = open.clone();
        next.function = match target {
            Target::Next => {
                self.world.sink.apps[&APP].functions[usize::from(open.function)].next[0]
            }
            _ => 0,
        };
        next.trigger = if direct { NO_TRIGGER } else { 0 };
        next.invocation = invocation;
        next.inputs.clear();
        next.got.clear();
        let executor = self.world.executor(id);
        executor.claim.offer(invocation);
        executor.offered = Some(next);
        self.say(id, Said::Offer(target, extent, ordinal, invocation));
    }

    fn returns(&mut self, id: ExecutorId, succeeds: bool) {
        let is_cancelled = self.world.opened(id).cancelled;
        let executor = self.world.executor(id);
        if succeeds && !is_cancelled && executor.goes_on() {
            let begun = executor.open.clone().expect("it has gone on");
            self.world.sink.started.push(begun);
            self.say(id, Said::Continue);
            self.note_starts();
        } else {
            let over = executor.open.as_ref().map(|open| open.invocation);
            executor.passed.extend(over);
            executor.close();
            self.say(id, Said::Complete(i32::from(!succeeds)));
        }
    }

    fn walk(&mut self, id: ExecutorId, direct: bool, hops: usize) {
        let runs = |world: &World| {
            let executor = world.sink.executors.get(&id);
            executor.is_some_and(|executor| executor.open.is_some())
        };
        for _ in 0..hops {
            if runs(&self.world) {
                self.send(id, direct, true);
            }
            if runs(&self.world) {
                self.returns(id, true);
            }
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Call(other) => {
                let call = self.world.call(if other { "other" } else { "walk" });
                self.calls.push(call);
            }
            Op::Send(who, direct, offers) => {
                if let Some(id) = self.who(who) {
                    self.send(id, direct, offers);
                }
            }
            Op::Return(who, succeeds) => {
                if let Some(id) = self.who(who) {
                    self.returns(id, succeeds);
                }
            }
            Op::Walk(who, direct, hops) => {
                if let Some(id) = self.who(who) {
                    self.walk(id, direct, hops);
                }
            }
            Op::Hear(who, count) => {
                let speakers: Vec<ExecutorId> = self.said.keys().copied().collect();
                if let Some(&id) = speakers.get(who % speakers.len().max(1)) {
                    for _ in 0..count {
                        self.hear(id);
                    }
                }
            }
            Op::Crash(who) => {
                if let Some(id) = self.who(who) {
                    // Its ring is drained to the end.
                    while self.hear(id) {}
                    self.world.die(id, Death::Signaled(11));
                }
            }
            Op::Cancel(which) => {
                if let Some(&call) = self.calls.get(which % self.calls.len().max(1)) {
                    self.world.cancel(call);
                }
            }
            Op::Pass(ns) => self.world.pass(ns),
            Op::Put(who) => {
                if let Some(id) = self.who(who)
                    && let Some(extent) = self.allocate(id)
                {
                    self.say(id, Said::Put(extent));
                }
            }
            Op::Get(who, auto) => {
                if let Some(id) = self.who(who)
                    && self.catch_up(id)
                {
                    let key = if auto { "~1.0" } else { "x" };
                    let _ = self.world.get_by(id, "kept", key);
                }
            }
            Op::Room(room) => self.make_room(room),
        }
        self.note_starts();
    }

    fn make_room(&mut self, room: Option<usize>) {
        self.world.sink.release_room = room;
        for executor in std::mem::take(&mut self.world.sink.starved) {
            self.world.event(Event::ReleaseRoom { executor });
        }
    }

    /// What has been told since the last time this was asked, and all that can be counted.
    fn picture(&mut self) -> String {
        let log = self.world.sink.log.replace(BTreeMap::new());
        let next_ns = self.world.core.next_timer_ns();
        let (stats, totals) = (self.world.stats(), self.world.core.totals());
        let sink = &self.world.sink;
        let (ended, events) = (sink.ended.len(), &sink.error_events);
        format!("{log:#?}\n{next_ns:?}\n{stats:#?}\n{totals:#?}\n{ended} {events:?}")
    }

    /// Everybody returns and is heard, and then nothing is left; what ended well has run in full.
    fn end(&mut self) {
        self.make_room(None);
        for round in 0.. {
            assert!(round < 100_000, "it goes on for ever");
            if let Some(id) = self.who(0) {
                self.returns(id, true);
            } else if let Some(id) = {
                let speakers: Vec<ExecutorId> = self.said.keys().copied().collect();
                speakers.into_iter().find(|&id| self.hear(id))
            } {
                let _ = id;
            } else if self.world.stats().queued + self.world.stats().running > 0 {
                self.world.pass(1_000_000);
                self.note_starts();
            } else {
                break;
            }
        }
        for call in &self.calls {
            let ended = self.world.ended(*call);
            if ended.outcome == End::Completed {
                let sent = self.sends.get(&call.session).copied().unwrap_or(0);
                assert_eq!(self.starts[&call.session], 1 + sent, "{call:?}");
            }
        }
        self.world.assert_empty();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn whoever_is_late_each_invocation_starts_once(
        shape in a_shape(),
        ops in prop::collection::vec(an_op(), 1..200),
    ) {
        let mut lagging = Lagging::new(shape);
        for op in &ops {
            lagging.apply(op);
        }
        lagging.end();
    }

    /// An event that does nothing has the core enter what it has merely noted, so that each
    /// continuation goes the general way. Nobody is told anything else, and no count differs.
    #[test]
    fn what_is_noted_is_what_would_have_been_entered(
        shape in a_shape(),
        calls in prop::collection::vec(any::<bool>(), 1..4),
        ops in prop::collection::vec(an_op(), 1..200),
        is_calm in any::<bool>(),
    ) {
        // Where nothing more is called, executors mostly have nobody to wait for.
        let ops = ops.into_iter().filter(|op| !is_calm || !matches!(op, Op::Call(_)));
        let calls = calls.into_iter().map(Op::Call);
        let ops: Vec<Op> = calls.chain(ops).collect();
        let [mut noted, mut entered] = [false, true].map(|ticks| {
            let mut lagging = Lagging::new(shape);
            lagging.world.ticks = ticks;
            lagging.world.sink.log = Some(BTreeMap::new());
            lagging
        });
        for op in &ops {
            noted.apply(op);
            entered.apply(op);
            prop_assert_eq!(noted.picture(), entered.picture(), "{:?}", op);
        }
        noted.end();
        entered.end();
        prop_assert_eq!(noted.picture(), entered.picture());
    }
}
