//! Random apps in random histories of honest executors, with crashes, errors and cancellations,
//! against a naive oracle: each object fires each trigger exactly as its table row says, in order,
//! nothing is freed while held, every session ends once and rightly, nothing is left.

mod oracle;

use oracle::{End, Fired, Object, Oracle};
use pheromone_core::event::{Death, Event, ExecutorId, SessionId};
use pheromone_core::spec::{AppSpec, AtEnd, Keep, Pool, TriggerSpec};
use pheromone_core::{CoreConfig, SpinPolicy};
use pheromone_shm::message::{Ending, FromExecutor, Key, NO_BUCKET, Target};
use proptest::prelude::*;

use crate::common::app::{app, bucket, by_key, by_pattern, by_set, immediate};
use crate::common::{self, APP, CONFIG, OwnedKey, World};

const FUNCTIONS: [&str; 4] = ["f0", "f1", "f2", "f3"];
const BUCKETS: [&str; 3] = ["b0", "b1", "b2"];
const KEYS: [&str; 5] = ["k0", "k1", "k2", "l0", "l1"];

fn functions() -> impl Strategy<Value = Vec<u16>> {
    prop::sample::subsequence(vec![0u16, 1, 2, 3], 1..=2)
}

fn a_trigger() -> impl Strategy<Value = TriggerSpec> {
    let at_end = prop::sample::select(vec![AtEnd::Fail, AtEnd::Fire, AtEnd::Drop]);
    let keys = prop::sample::subsequence(KEYS.to_vec(), 1..=3).prop_shuffle();
    prop_oneof![
        functions().prop_map(|f| immediate(&f)),
        (prop::sample::select(KEYS.to_vec()), functions()).prop_map(|(k, f)| by_key(k, &f)),
        (
            prop::sample::select(vec!["k*", "l*", "*", "~*"]),
            functions()
        )
            .prop_map(|(p, f)| by_pattern(p, &f)),
        (keys, functions(), at_end).prop_map(|(keys, f, at_end)| TriggerSpec {
            at_end,
            ..by_set(&keys, &f)
        }),
    ]
}

fn a_spec() -> impl Strategy<Value = AppSpec> {
    let a_bucket = (
        prop::sample::select(vec![Keep::Session, Keep::UntilConsumed]),
        prop::collection::vec(a_trigger(), 0..4),
    );
    let a_function = (
        prop::sample::subsequence(vec![0u16, 1, 2, 3], 0..=2),
        prop::option::weighted(0.2, 1..3u32),
        -1..2i8,
    );
    (
        prop::collection::vec(a_bucket, 3),
        prop::collection::vec(a_function, 4),
        1..4u16,
        any::<bool>(),
        prop::bool::weighted(0.7),
    )
        .prop_map(
            |(buckets, functions, executors, keep_request, continuation)| {
                let mut spec = app(&FUNCTIONS);
                spec.continuation = continuation;
                spec.executors = Pool {
                    min: 1,
                    max: executors,
                };
                spec.keep_request = keep_request;
                // What dead letters hold is not this oracle's business.
                spec.limits.dead_letters_bytes = 0;
                for (function, (next, most, priority)) in spec.functions.iter_mut().zip(functions) {
                    function.next = next;
                    function.max_concurrency = most;
                    function.priority = priority;
                }
                spec.buckets = buckets
                    .into_iter()
                    .zip(BUCKETS)
                    .map(|((keep, mut triggers), name)| {
                        for (number, trigger) in triggers.iter_mut().enumerate() {
                            trigger.name = format!("t{number}");
                        }
                        bucket(name, keep, triggers)
                    })
                    .collect();
                spec
            },
        )
}

#[derive(Clone, Debug)]
enum Op {
    Call(u16),
    Put(u16, usize),
    Publish(usize, u16, usize),
    /// The last: its executor offers to go on, where it may.
    Auto(usize, u16, bool),
    Next(usize, bool),
    Forward(usize, u16, usize),
    Get(usize, u16, usize),
    ReleaseHold(usize, u16, usize),
    Respond(usize),
    Return(usize, bool),
    Crash(usize),
    Cancel(usize),
    TakeResponses,
    Pass(u64),
    Room(Option<usize>),
}

fn an_op() -> impl Strategy<Value = Op> {
    let who = 0..8usize;
    let key = 0..KEYS.len();
    prop_oneof![
        6 => (0..4u16).prop_map(Op::Call),
        2 => (0..3u16, key.clone()).prop_map(|(b, k)| Op::Put(b, k)),
        12 => (who.clone(), 0..3u16, key.clone()).prop_map(|(w, b, k)| Op::Publish(w, b, k)),
        6 => (who.clone(), 0..3u16, prop::bool::weighted(0.8)).prop_map(|(w, b, o)| Op::Auto(w, b, o)),
        6 => (who.clone(), prop::bool::weighted(0.8)).prop_map(|(w, o)| Op::Next(w, o)),
        3 => (who.clone(), 0..3u16, key.clone()).prop_map(|(w, b, k)| Op::Forward(w, b, k)),
        3 => (who.clone(), 0..3u16, key.clone()).prop_map(|(w, b, k)| Op::Get(w, b, k)),
        1 => (who.clone(), 0..3u16, key).prop_map(|(w, b, k)| Op::ReleaseHold(w, b, k)),
        2 => who.clone().prop_map(Op::Respond),
        16 => (who.clone(), prop::bool::weighted(0.95)).prop_map(|(w, ok)| Op::Return(w, ok)),
        1 => who.prop_map(Op::Crash),
        1 => (0..8usize).prop_map(Op::Cancel),
        2 => Just(Op::TakeResponses),
        4 => prop_oneof![0..100_000u64, 0..20_000_000u64].prop_map(Op::Pass),
        1 => prop::option::of(0..5usize).prop_map(Op::Room),
    ]
}

struct History {
    world: World,
    oracle: Oracle,
    calls: Vec<common::Call>,
}

impl History {
    fn new(spec: &AppSpec, spin: SpinPolicy) -> Self {
        let config = CoreConfig {
            executor_cores: 2,
            spin,
            ..CONFIG
        };
        Self {
            world: World::with_config(spec.clone(), config),
            oracle: Oracle::new(spec),
            calls: Vec::new(),
        }
    }

    fn busy(&self) -> Vec<ExecutorId> {
        let executors = self.world.sink.executors.iter();
        let busy = executors.filter(|(_, executor)| executor.open.is_some());
        busy.map(|(&id, _)| id).collect()
    }

    fn who(&self, number: usize) -> Option<(ExecutorId, SessionId)> {
        let busy = self.busy();
        let id = *busy.get(number % busy.len().max(1))?;
        Some((id, SessionId(self.world.opened(id).session)))
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Call(function) => {
                let call = self.world.call(FUNCTIONS[usize::from(function)]);
                self.calls.push(call);
                self.oracle.open(call.session, true);
                let key = OwnedKey::Named(b"request".to_vec());
                let request = object(call.session, NO_BUCKET, key);
                let trigger = pheromone_shm::message::NO_TRIGGER;
                self.oracle
                    .fire(call.session, function, trigger, vec![request]);
            }
            Op::Put(bucket, key) => {
                let call = self
                    .world
                    .put(BUCKETS[usize::from(bucket)], Some(KEYS[key]));
                self.calls.push(call);
                self.oracle.open(call.session, false);
                self.oracle
                    .publish(&object(call.session, bucket, named(key)));
                self.oracle.settle(call.session);
            }
            Op::Publish(who, bucket, key) => {
                if let Some((id, session)) = self.who(who) {
                    self.oracle.publish(&object(session, bucket, named(key)));
                    self.world
                        .put_by(id, BUCKETS[usize::from(bucket)], KEYS[key]);
                }
            }
            Op::Auto(who, bucket, offers) => {
                if let Some((id, session)) = self.who(who) {
                    let invocation = self.world.opened(id).invocation;
                    if offers && self.world.try_offer(id, Target::Bucket(bucket)) {
                        let object = self.offered(id);
                        self.oracle.publish(&object);
                        return;
                    }
                    let ordinal = self.world.auto_by(id, BUCKETS[usize::from(bucket)]);
                    let key = OwnedKey::Auto(invocation, ordinal);
                    self.oracle.publish(&object(session, bucket, key));
                }
            }
            Op::Next(who, offers) => {
                if let Some((id, session)) = self.who(who) {
                    let open = self.world.opened(id).clone();
                    if self.world.sink.apps[&APP].functions[usize::from(open.function)]
                        .next
                        .is_empty()
                    {
                        return;
                    }
                    if offers && self.world.try_offer(id, Target::Next) {
                        let object = self.offered(id);
                        return self.oracle.direct(&object, open.function);
                    }
                    let ordinal = self.world.executor(id).next_ordinal();
                    self.world.publish(id, Target::Next, Key::Auto(ordinal), 8);
                    let key = OwnedKey::Auto(open.invocation, ordinal);
                    self.oracle
                        .direct(&object(session, NO_BUCKET, key), open.function);
                }
            }
            Op::Forward(who, bucket, key) => {
                if let Some((id, session)) = self.who(who) {
                    self.oracle.publish(&object(session, bucket, named(key)));
                    let target = Target::Bucket(bucket);
                    let key = Key::Named(KEYS[key].as_bytes());
                    self.world.forward_by(id, 0, target, key);
                }
            }
            Op::Get(who, bucket, key) => {
                if let Some((id, session)) = self.who(who) {
                    let found = self
                        .world
                        .get_by(id, BUCKETS[usize::from(bucket)], KEYS[key]);
                    let expected = self.oracle.get(session, bucket, &named(key));
                    let found = found.as_ref().ok().map(seen);
                    assert_eq!(found.as_ref(), expected);
                }
            }
            Op::ReleaseHold(who, bucket, key) => {
                if let Some((id, session)) = self.who(who) {
                    self.oracle.release_hold(session, bucket, &named(key));
                    let key = KEYS[key].as_bytes();
                    self.world
                        .say(id, FromExecutor::ReleaseHold { bucket, key });
                }
            }
            Op::Respond(who) => {
                if let Some((id, session)) = self.who(who) {
                    self.oracle.respond(session);
                    self.world.respond_by(id);
                }
            }
            Op::Return(who, succeeds) => {
                if let Some((id, session)) = self.who(who) {
                    if succeeds && self.world.go_on(id) {
                        self.compare_starts();
                        return self.oracle.returned(session, true);
                    }
                    let status = i32::from(!succeeds);
                    self.world.complete(id, status, Ending::Returned, "");
                    self.oracle.returned(session, succeeds);
                }
            }
            Op::Crash(who) => {
                if let Some((id, session)) = self.who(who) {
                    self.world.die(id, Death::Signaled(11));
                    self.oracle.returned(session, false);
                }
            }
            Op::Cancel(which) => {
                if let Some(&call) = self.calls.get(which % self.calls.len().max(1)) {
                    self.world.cancel(call);
                    self.oracle.end(call.session, End::Cancelled);
                }
            }
            Op::TakeResponses => {
                for call in self.calls.clone() {
                    if self.world.sink.unread.contains_key(&call.session) {
                        self.world.take_response(call);
                    }
                }
            }
            Op::Pass(ns) => {
                // Whoever is cancelled returns before it is killed.
                for id in self.busy() {
                    if self.world.opened(id).cancelled {
                        self.world.done(id);
                        self.compare_starts();
                    }
                }
                self.world.pass(ns);
            }
            Op::Room(room) => {
                self.world.sink.release_room = room;
                let starved: Vec<_> = self.world.sink.starved.drain(..).collect();
                for executor in starved {
                    self.world.event(Event::ReleaseRoom { executor });
                }
            }
        }
    }

    /// The object that an executor has offered to go on with.
    fn offered(&mut self, id: ExecutorId) -> Object {
        let offered = self.world.executor(id).offered.as_ref();
        let object = seen(&offered.expect("it has offered").inputs[0]);
        self.oracle.offer(&object);
        object
    }

    /// What the core has started is what the oracle says is next.
    fn compare_starts(&mut self) {
        for open in std::mem::take(&mut self.world.sink.started) {
            let fired = Fired {
                session: SessionId(open.session),
                trigger: open.trigger,
                inputs: open.inputs.iter().map(seen).collect(),
            };
            self.oracle.started(open.function, &fired);
        }
    }

    fn compare(&mut self) {
        self.compare_starts();
        let stats = self.world.stats();
        assert_eq!(stats.queued, self.oracle.queued() as u64);
        assert_eq!(stats.sessions_open, self.oracle.open_sessions() as u64);
        assert_eq!(stats.error_events_total, self.oracle.error_events);
        assert_eq!(stats.dropped_total, self.oracle.dropped);
        let executors = self.world.sink.executors.values();
        let credit_bytes = executors
            .map(|e| e.credit_total_bytes - e.used_bytes)
            .sum::<u64>();
        assert_eq!(stats.credit_bytes, credit_bytes);
        for call in &self.calls {
            let ended = self
                .world
                .sink
                .ended
                .get(&call.session)
                .map(|ended| match ended.outcome {
                    common::End::Responded => End::Responded,
                    common::End::Completed => End::Completed,
                    common::End::Failed(_) => End::Failed,
                    common::End::TimedOut => panic!("there is no deadline"),
                    common::End::Cancelled => End::Cancelled,
                });
            assert_eq!(ended.as_ref(), self.oracle.ended.get(&call.session));
        }
    }

    /// Everything returns, and then nothing may be left.
    fn drain(&mut self) {
        self.apply(&Op::Room(None));
        for round in 0.. {
            assert!(round < 100_000, "it goes on for ever");
            let Some(&id) = self.busy().first() else {
                if self.oracle.open_sessions() == 0 {
                    break;
                }
                self.world.pass(1_000_000);
                self.compare();
                continue;
            };
            let session = SessionId(self.world.opened(id).session);
            if self.world.go_on(id) {
                self.compare_starts();
            } else {
                self.world.done(id);
            }
            self.oracle.returned(session, true);
            self.compare();
        }
        self.apply(&Op::TakeResponses);
        self.world.assert_empty();
    }
}

fn named(key: usize) -> OwnedKey {
    OwnedKey::Named(KEYS[key].as_bytes().to_vec())
}

fn object(session: SessionId, bucket: u16, key: OwnedKey) -> Object {
    Object {
        session,
        bucket,
        key,
    }
}

fn seen(seen: &common::Seen) -> Object {
    object(SessionId(seen.session), seen.bucket, seen.key.clone())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_core_does_what_the_naive_oracle_says(
        spec in a_spec(),
        spin in prop_oneof![
            Just(SpinPolicy::Never),
            Just(SpinPolicy::Budget(20_000)),
            Just(SpinPolicy::Always),
        ],
        ops in prop::collection::vec(an_op(), 1..150),
    ) {
        let mut history = History::new(&spec, spin);
        for op in &ops {
            history.apply(op);
            history.compare();
        }
        history.drain();
    }
}
