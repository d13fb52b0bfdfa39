//! `serial_by`: those alike go one after another, in order of firing, and hold up nobody else.

use pheromone_core::event::{Death, Destination, ExecutorId, Request, RequestId, SessionId};
use pheromone_core::spec::{AppSpec, AtEnd, Keep, OnFailure, Pool, SerialBy, TriggerKind};
use pheromone_shm::message::{Ending, FromExecutor, Key, Target};
use proptest::prelude::*;

use crate::common::app::{app, bucket, immediate, trigger};
use crate::common::{APP, Call, World};

const BACKOFF_NS: u64 = 20_000_000;

/// Objects in `b` fire `f`, which is serial; so many executors.
fn serial(by: SerialBy, executors: u16) -> AppSpec {
    let mut spec = app(&["source", "f"]);
    spec.executors = Pool {
        min: executors,
        max: executors,
    };
    spec.functions[0].calls = vec![1];
    spec.functions[1].serial_by = Some(by);
    spec.buckets = vec![bucket("b", Keep::UntilConsumed, vec![immediate(&[1])])];
    spec
}

/// A put under this key and group, into a session or one of its own.
fn put(world: &mut World, key: &str, group: &str, session: Option<SessionId>) -> Option<SessionId> {
    let destination = Destination::Bucket {
        bucket: 0,
        key: Some(key.as_bytes()),
        group: group.as_bytes(),
    };
    let draft = world.draft(APP, destination);
    let request = world.send(Request { session, ..draft });
    world.answer_of(request).ok().map(|call| call.session)
}

/// Keys of the first inputs of all that run.
fn running(world: &World) -> Vec<String> {
    let executors = world.all_running("f");
    let mut keys: Vec<_> = executors
        .into_iter()
        .map(|id| world.keys(id).concat())
        .collect();
    keys.sort();
    keys
}

/// Where the invocation with this key runs.
fn place_of(world: &World, key: &str) -> ExecutorId {
    let runs = |id: &ExecutorId| world.keys(*id).concat() == key;
    let found = world.all_running("f").into_iter().find(runs);
    found.unwrap_or_else(|| panic!("`{key}` does not run"))
}

fn end(world: &mut World, key: &str) {
    let id = place_of(world, key);
    world.done(id);
}

#[test]
fn those_alike_go_one_after_another_over_all_sessions_and_others_beside_them() {
    let mut world = World::new(serial(SerialBy::Key, 4));
    for key in ["a", "a", "b", "a", "b"] {
        world.put("b", Some(key));
    }
    assert_eq!(running(&world), ["a", "b"]);
    end(&mut world, "b");
    assert_eq!(running(&world), ["a", "b"]);
    end(&mut world, "b");
    assert_eq!(running(&world), ["a"]);
    for left in [1, 1, 0] {
        end(&mut world, "a");
        assert_eq!(running(&world).len(), left);
    }
    world.assert_empty();
}

#[test]
fn those_alike_go_in_order_of_firing() {
    let mut world = World::new(serial(SerialBy::Group, 2));
    let keys: Vec<String> = (0..20).map(|n| format!("k{n:02}")).collect();
    for key in &keys {
        put(&mut world, key, "same", None);
    }
    for key in &keys {
        assert_eq!(running(&world), [key.as_str()]);
        end(&mut world, key);
    }
    world.assert_empty();
}

#[test]
fn as_many_alike_run_at_once_as_serial_width_says() {
    let mut spec = serial(SerialBy::Group, 8);
    spec.functions[1].serial_width = 3;
    let mut world = World::new(spec);
    for key in ["1", "2", "3", "4", "5"] {
        put(&mut world, key, "g", None);
    }
    assert_eq!(running(&world), ["1", "2", "3"]);
    end(&mut world, "2");
    assert_eq!(running(&world), ["1", "3", "4"]);
    for key in ["1", "3", "4", "5"] {
        end(&mut world, key);
    }
    world.assert_empty();
}

#[test]
fn one_session_goes_one_after_another_beside_other_sessions() {
    let mut world = World::new(serial(SerialBy::Session, 4));
    let first = put(&mut world, "1a", "", None);
    put(&mut world, "1b", "", first);
    let second = put(&mut world, "2a", "", None);
    put(&mut world, "2b", "", second);
    assert_eq!(running(&world), ["1a", "2a"]);
    end(&mut world, "1a");
    assert_eq!(running(&world), ["1b", "2a"]);
    for key in ["1b", "2a", "2b"] {
        end(&mut world, key);
    }
    world.assert_empty();
}

#[test]
fn lines_of_two_functions_are_independent() {
    let mut spec = serial(SerialBy::Key, 4);
    spec.functions[0].serial_by = Some(SerialBy::Key);
    spec.buckets[0].triggers = vec![immediate(&[0, 1])];
    let mut world = World::new(spec);
    world.put("b", Some("k"));
    world.put("b", Some("k"));
    assert_eq!(world.all_running("source").len(), 1);
    assert_eq!(world.all_running("f").len(), 1);
    for function in ["source", "source", "f", "f"] {
        world.run(function);
    }
    world.assert_empty();
}

#[test]
fn automatic_keys_are_alike_to_none() {
    let mut world = World::new(serial(SerialBy::Key, 4));
    world.call("source");
    let source = world.running("source");
    world.auto_by(source, "b");
    world.auto_by(source, "b");
    world.done(source);
    assert_eq!(world.all_running("f").len(), 2);
    world.run("f");
    world.run("f");
    world.assert_empty();
}

#[test]
fn the_label_of_a_direct_object_is_its_key() {
    let mut world = World::new(serial(SerialBy::Key, 4));
    world.call("source");
    let source = world.running("source");
    for label in [&b"l"[..], b"l", b"m"] {
        world.publish(source, Target::Function(1), Key::Named(label), 8);
    }
    world.done(source);
    assert_eq!(running(&world), ["l", "m"]);
    for label in ["l", "l", "m"] {
        end(&mut world, label);
    }
    world.assert_empty();
}

#[test]
fn those_without_inputs_are_alike() {
    let mut spec = serial(SerialBy::Key, 4);
    spec.buckets[0].triggers = vec![trigger("join", TriggerKind::DynamicJoin, &[1])];
    spec.buckets[0].triggers[0].at_end = AtEnd::Drop;
    let mut world = World::new(spec);
    for _ in 0..2 {
        world.call("source");
        let source = world.running("source");
        let nothing = FromExecutor::Join {
            trigger: 0,
            more: false,
            keys: b"",
        };
        world.say(source, nothing);
        world.done(source);
    }
    assert_eq!(world.all_running("f").len(), 1);
    world.run("f");
    world.run("f");
    world.assert_empty();
}

#[test]
fn a_place_is_kept_through_failed_attempts_and_the_pauses_between_them() {
    let mut spec = serial(SerialBy::Group, 4);
    spec.functions[1].attempts = 3;
    let mut world = World::new(spec);
    put(&mut world, "1", "g", None);
    put(&mut world, "2", "g", None);
    let id = place_of(&world, "1");
    world.complete(id, 1, Ending::Returned, "once more");
    assert!(running(&world).is_empty(), "its pause is part of its turn");
    world.pass(BACKOFF_NS);
    assert_eq!(running(&world), ["1"]);
    world.die(place_of(&world, "1"), Death::Signaled(11));
    assert!(running(&world).is_empty());
    world.pass(2 * BACKOFF_NS);
    end(&mut world, "1");
    assert_eq!(running(&world), ["2"]);
    end(&mut world, "2");
    world.assert_empty();
}

#[test]
fn the_next_goes_after_a_failure_a_death_and_a_timeout() {
    let mut spec = serial(SerialBy::Group, 4);
    spec.functions[1].init_timeout_ns = 1_000_000;
    let mut world = World::new(spec);
    for key in ["1", "2", "3", "4"] {
        put(&mut world, key, "g", None);
    }
    let id = place_of(&world, "1");
    world.complete(id, 1, Ending::Returned, "");
    assert_eq!(running(&world), ["2"]);
    world.die(place_of(&world, "2"), Death::Exited(1));
    assert_eq!(running(&world), ["3"]);
    world.pass(1_000_000);
    assert_eq!(running(&world), ["4"]);
    end(&mut world, "4");
    world.assert_empty();
}

#[test]
fn the_next_goes_when_a_cancelled_one_has_stopped_and_not_before() {
    let mut world = World::new(serial(SerialBy::Group, 4));
    let first = put(&mut world, "1", "g", None).expect("it is let in");
    put(&mut world, "2", "g", None);
    let second = put(&mut world, "3", "g", None).expect("it is let in");
    put(&mut world, "4", "g", None);
    let cancel = |world: &mut World, session| {
        world.cancel(Call {
            request: RequestId(0),
            session,
        });
    };
    cancel(&mut world, first);
    cancel(&mut world, second);
    assert_eq!(running(&world), ["1"], "it has not stopped yet");
    end(&mut world, "1");
    assert_eq!(running(&world), ["2"]);
    end(&mut world, "2");
    assert_eq!(running(&world), ["4"], "the third has never run");
    end(&mut world, "4");
    world.assert_empty();
}

#[test]
fn the_next_goes_when_one_ends_in_its_pause_or_before_it_could_start() {
    let mut spec = serial(SerialBy::Group, 1);
    spec.functions[1].attempts = 2;
    let mut world = World::new(spec);
    let cancel = |world: &mut World, session: Option<SessionId>| {
        world.cancel(Call {
            request: RequestId(0),
            session: session.expect("it was let in"),
        });
    };
    let pausing = put(&mut world, "1", "g", None);
    put(&mut world, "2", "g", None);
    let id = place_of(&world, "1");
    world.complete(id, 1, Ending::Returned, "");
    cancel(&mut world, pausing);
    assert_eq!(running(&world), ["2"]);

    let queued = put(&mut world, "3", "h", None);
    put(&mut world, "4", "h", None);
    cancel(&mut world, queued);
    end(&mut world, "2");
    assert_eq!(running(&world), ["4"]);
    end(&mut world, "4");
    world.assert_empty();
}

#[test]
fn who_waits_for_a_turn_takes_no_slot_of_max_concurrency_and_hides_no_other_key() {
    let mut spec = serial(SerialBy::Group, 8);
    spec.functions[1].max_concurrency = Some(2);
    let mut world = World::new(spec);
    for key in ["a1", "a2", "a3"] {
        put(&mut world, key, "a", None);
    }
    put(&mut world, "b1", "b", None);
    put(&mut world, "c1", "c", None);
    assert_eq!(running(&world), ["a1", "b1"]);
    end(&mut world, "b1");
    assert_eq!(running(&world), ["a1", "c1"]);
    for key in ["c1", "a1", "a2", "a3"] {
        end(&mut world, key);
    }
    world.assert_empty();
}

#[test]
fn who_waits_for_a_turn_counts_as_queued_and_starts_no_process() {
    let mut spec = serial(SerialBy::Group, 8);
    spec.executors.min = 1;
    let mut world = World::new(spec);
    for key in ["1", "2", "3", "4"] {
        put(&mut world, key, "g", None);
    }
    assert_eq!(world.stats().queued, 3);
    world.pass(10_000_000);
    assert_eq!(world.stats().executors, 1);
    for key in ["1", "2", "3", "4"] {
        end(&mut world, key);
    }
    world.assert_empty();
}

#[test]
fn a_call_that_waits_for_its_turn_waits_to_start() {
    let mut spec = serial(SerialBy::Key, 4);
    spec.limits.calls_waiting = 2;
    let mut world = World::new(spec);
    let calls: Vec<_> = (0..3).map(|_| world.call("f")).collect();
    assert_eq!(world.stats().calls_waiting, 2);
    assert!(world.try_call("f").is_err());
    world.cancel(calls[2]);
    assert_eq!(world.stats().calls_waiting, 1);
    world.run("f");
    world.run("f");
    world.assert_empty();
}

#[test]
fn an_app_that_is_removed_leaves_no_line() {
    let mut world = World::new(serial(SerialBy::Group, 2));
    for key in ["1", "2", "3"] {
        put(&mut world, key, "g", None);
    }
    world.event(pheromone_core::event::Event::Remove { app: APP });
    end(&mut world, "1");
    assert_eq!(world.sink.removed, [APP]);
    world.assert_empty();
}

/// An invocation, as a naive oracle has it.
#[derive(Clone, Debug)]
struct Fired {
    key: String,
    group: usize,
    session: SessionId,
    state: State,
    attempt: u32,
    is_cancelled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waits,
    Runs,
    Pauses,
}

/// What happens next; numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Op {
    Fire(usize, usize),
    Return(usize, bool),
    Die(usize),
    Cancel(usize),
    Pass,
}

fn an_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..4usize, 0..4usize).prop_map(|(session, group)| Op::Fire(session, group)),
        8 => (any::<usize>(), prop::bool::weighted(0.7)).prop_map(|(who, ok)| Op::Return(who, ok)),
        1 => any::<usize>().prop_map(Op::Die),
        1 => (0..4usize).prop_map(Op::Cancel),
        2 => Just(Op::Pass),
    ]
}

struct History {
    world: World,
    width: usize,
    on_failure: OnFailure,
    fired: Vec<Fired>,
    sessions: [Option<SessionId>; 4],
    fired_ever: usize,
}

const ATTEMPTS: u32 = 2;
const EXECUTORS: u16 = 48;

impl History {
    fn new(width: u32, on_failure: OnFailure) -> Self {
        let mut spec = serial(SerialBy::Group, EXECUTORS);
        spec.limits.cancel_grace_ns = u64::MAX / 4;
        spec.functions[1].serial_width = width;
        spec.functions[1].attempts = ATTEMPTS;
        spec.functions[1].on_failure = on_failure;
        Self {
            world: World::new(spec),
            width: width as usize,
            on_failure,
            fired: Vec::new(),
            sessions: [None; 4],
            fired_ever: 0,
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Fire(session, group) if self.fired.len() < usize::from(EXECUTORS) / 2 => {
                self.fire(session, group);
            }
            Op::Fire(..) => {}
            Op::Return(who, ok) => {
                if let Some(at) = self.runner(who) {
                    let id = place_of(&self.world, &self.fired[at].key);
                    let status = i32::from(!ok);
                    self.world.complete(id, status, Ending::Returned, "");
                    self.attempt_ended(at, ok);
                }
            }
            Op::Die(who) => {
                let is_crowded = self.world.stats().executors > u64::from(EXECUTORS) / 2;
                if let Some(at) = self.runner(who).filter(|_| is_crowded) {
                    let id = place_of(&self.world, &self.fired[at].key);
                    self.world.die(id, Death::Signaled(9));
                    self.attempt_ended(at, false);
                }
            }
            Op::Cancel(session) => {
                if let Some(session) = self.sessions[session].take() {
                    self.world.cancel(Call {
                        request: RequestId(0),
                        session,
                    });
                    self.session_ended(session);
                }
            }
            Op::Pass => {
                self.world.pass(BACKOFF_NS);
                for fired in &mut self.fired {
                    if fired.state == State::Pauses {
                        fired.state = State::Runs;
                    }
                }
            }
        }
        self.fill();
        self.compare();
    }

    fn fire(&mut self, session: usize, group: usize) {
        let key = format!("k{}", self.fired_ever);
        self.fired_ever += 1;
        let open =
            self.sessions[session].filter(|session| !self.world.sink.ended.contains_key(session));
        let of = put(&mut self.world, &key, &format!("g{group}"), open);
        let of = of.expect("an open session takes it");
        self.sessions[session] = Some(of);
        self.fired.push(Fired {
            key,
            group,
            session: of,
            state: State::Waits,
            attempt: 1,
            is_cancelled: false,
        });
    }

    fn runner(&self, number: usize) -> Option<usize> {
        let runs = |at: &usize| self.fired[*at].state == State::Runs;
        let runners: Vec<usize> = (0..self.fired.len()).filter(runs).collect();
        (!runners.is_empty()).then(|| runners[number % runners.len()])
    }

    fn attempt_ended(&mut self, at: usize, ok: bool) {
        let fired = &mut self.fired[at];
        if !ok && !fired.is_cancelled && fired.attempt < ATTEMPTS {
            fired.attempt += 1;
            fired.state = State::Pauses;
            return;
        }
        let fired = self.fired.remove(at);
        if !ok && !fired.is_cancelled && self.on_failure == OnFailure::Fail {
            self.session_ended(fired.session);
        }
    }

    /// What runs is cancelled and goes on until it returns; all else is gone.
    fn session_ended(&mut self, session: SessionId) {
        self.fired
            .retain(|fired| fired.session != session || fired.state == State::Runs);
        for fired in &mut self.fired {
            fired.is_cancelled |= fired.session == session;
        }
    }

    /// The first of each group who wait take the places that are free.
    fn fill(&mut self) {
        for group in 0..4 {
            let of_group = |fired: &&mut Fired| fired.group == group;
            let taken = self
                .fired
                .iter()
                .filter(|fired| fired.group == group && fired.state != State::Waits)
                .count();
            self.fired
                .iter_mut()
                .filter(of_group)
                .filter(|fired| fired.state == State::Waits)
                .take(self.width - taken)
                .for_each(|fired| fired.state = State::Runs);
        }
    }

    fn compare(&self) {
        let runs = self
            .fired
            .iter()
            .filter(|fired| fired.state == State::Runs)
            .map(|fired| fired.key.clone());
        let mut expected: Vec<String> = runs.collect();
        expected.sort();
        assert_eq!(running(&self.world), expected);
        let waits = self
            .fired
            .iter()
            .filter(|fired| fired.state == State::Waits)
            .count();
        assert_eq!(self.world.stats().queued, waits as u64);
    }

    fn end(mut self) {
        while !self.fired.is_empty() {
            self.apply(&Op::Return(0, true));
            self.apply(&Op::Pass);
        }
        self.world.assert_empty();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn at_most_the_width_of_each_group_runs_in_order_and_nobody_waits_for_another_group(
        width in 1..4u32,
        fails in any::<bool>(),
        ops in prop::collection::vec(an_op(), 1..120),
    ) {
        let on_failure = if fails { OnFailure::Fail } else { OnFailure::Continue };
        let mut history = History::new(width, on_failure);
        for op in &ops {
            history.apply(op);
        }
        history.end();
    }
}
