//! Triggers that gather across sessions of several schedulers, whatever order their messages come
//! in: each contributor is answered or fails as with one scheduler, and nothing is left anywhere.

use std::collections::BTreeSet;

use pheromone_core::event::{AppId, Death, Destination, Event, ExecutorId, SessionId};
use pheromone_core::spec::{AppSpec, Entry, Keep, TriggerKind, TriggerSpec};
use pheromone_shm::message::Ending;
use proptest::prelude::*;

use crate::common::app::{across, app, batch, bucket, immediate, rounds, windows};
use crate::common::cluster::Cluster;
use crate::common::{APP, Call, End, MS};

/// Calls go into `queue`; its trigger starts `gather`, whose objects in `stage` go to `next`.
fn spec(first: TriggerSpec, second: TriggerSpec) -> AppSpec {
    let mut spec = app(&["gather", "next"]);
    spec.executors.max = 9;
    spec.executors.min = 9;
    spec.entry = Some(Entry::Bucket(0));
    spec.buckets = vec![
        bucket("queue", Keep::Session, vec![first]),
        bucket("stage", Keep::UntilConsumed, vec![second]),
    ];
    spec
}

fn one_stage(kind: TriggerKind) -> AppSpec {
    spec(across("t", kind, &[0]), immediate(&[1]))
}

fn two_stages(first: u32, second: u32) -> AppSpec {
    let second = across("u", batch(second, None), &[1]);
    spec(across("t", batch(first, None), &[0]), second)
}

fn submit(cluster: &mut Cluster, home: u8) -> Call {
    cluster.at(home, |world| {
        let request = world.request(Destination::Entry, true);
        world.answer_of(request).expect("it is let in")
    })
}

fn drop_in(cluster: &mut Cluster, home: u8, group: &[u8]) -> Call {
    let destination = Destination::Bucket {
        bucket: 0,
        key: None,
        group,
    };
    cluster.at(home, |world| {
        let request = world.request(destination, false);
        world.answer_of(request).expect("it is let in")
    })
}

fn running(cluster: &mut Cluster, function: &str) -> ExecutorId {
    cluster.world().running(function)
}

fn contributors(cluster: &mut Cluster, id: ExecutorId) -> Vec<SessionId> {
    cluster.world().contributors(id)
}

fn respond_to(cluster: &mut Cluster, id: ExecutorId, session: SessionId) {
    cluster.with(id, |world| world.respond_to(id, session));
}

fn fail(cluster: &mut Cluster, id: ExecutorId, session: SessionId, message: &str) {
    cluster.with(id, |world| world.fail_session(id, session, message));
}

/// `gather` sends something to the next stage.
fn pass_on(cluster: &mut Cluster, id: ExecutorId) {
    cluster.with(id, |world| world.auto_by(id, "stage"));
}

fn done(cluster: &mut Cluster, id: ExecutorId) {
    cluster.with(id, |world| world.done(id));
}

fn breaks(cluster: &mut Cluster, id: ExecutorId, message: &str) {
    cluster.with(id, |world| world.complete(id, 1, Ending::Returned, message));
}

fn end_of(cluster: &mut Cluster, call: Call) -> End {
    cluster.world().ended(call).outcome.clone()
}

fn failed_with(cluster: &mut Cluster, call: Call) -> String {
    cluster.world().message_of(call)
}

#[test]
fn contributors_of_different_homes_are_each_answered_out_of_one_batch() {
    for homes in [2, 3] {
        let mut cluster = Cluster::new(&one_stage(batch(6, None)), homes);
        let calls: Vec<Call> = (0..6).map(|at| submit(&mut cluster, at % homes)).collect();
        cluster.deliver_all();
        let gather = running(&mut cluster, "gather");
        let expected: BTreeSet<_> = calls.iter().map(|call| call.session).collect();
        let found = contributors(&mut cluster, gather);
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
        for &call in &calls {
            assert!(cluster.world().is_open(call));
            respond_to(&mut cluster, gather, call.session);
            cluster.deliver_all();
            assert_eq!(end_of(&mut cluster, call), End::Responded, "at once");
        }
        done(&mut cluster, gather);
        cluster.take_responses();
        cluster.deliver_all();
        assert_eq!(cluster.world().sink.error_events, []);
        cluster.assert_empty();
    }
}

#[test]
fn those_of_all_homes_who_wait_fail_with_the_batch_and_one_fails_alone() {
    let mut cluster = Cluster::new(&one_stage(batch(4, None)), 3);
    let calls = [0, 1, 2, 2].map(|home| submit(&mut cluster, home));
    cluster.deliver_all();
    let gather = running(&mut cluster, "gather");
    respond_to(&mut cluster, gather, calls[0].session);
    fail(&mut cluster, gather, calls[1].session, "not you");
    breaks(&mut cluster, gather, "the disk is on fire");
    cluster.deliver_all();
    assert_eq!(end_of(&mut cluster, calls[0]), End::Responded);
    assert_eq!(failed_with(&mut cluster, calls[1]), "not you");
    for call in &calls[2..] {
        assert_eq!(failed_with(&mut cluster, *call), "the disk is on fire");
    }
    cluster.take_responses();
    cluster.deliver_all();
    cluster.assert_empty();
}

#[test]
fn the_end_of_a_second_stage_never_overtakes_its_answers() {
    // `gather` at home 1, `next` at home 2, and the caller at home 0: from 2 to 0 the answer is
    // slow, from 2 over 1 to 0 the tokens are fast.
    for ends_well in [true, false] {
        let mut cluster = Cluster::new(&two_stages(2, 2), 3);
        let other = submit(&mut cluster, 2);
        let filler = submit(&mut cluster, 2);
        cluster.deliver_all();
        let first = running(&mut cluster, "gather");
        pass_on(&mut cluster, first);
        done(&mut cluster, first);
        cluster.deliver_all();
        let near = submit(&mut cluster, 1);
        cluster.deliver_all();
        let call = submit(&mut cluster, 0);
        cluster.deliver_all();
        let second = running(&mut cluster, "gather");
        pass_on(&mut cluster, second);
        done(&mut cluster, second);
        cluster.deliver_all();
        let next = running(&mut cluster, "next");
        respond_to(&mut cluster, next, call.session);
        if ends_well {
            done(&mut cluster, next);
        } else {
            breaks(&mut cluster, next, "broken");
        }
        let fast = |cluster: &Cluster| {
            let mut ways = cluster.ways().into_iter();
            ways.find(|&way| way != (2, 0))
        };
        while let Some(way) = fast(&cluster) {
            cluster.deliver(way);
        }
        assert!(cluster.world().is_open(call), "its answer is on its way");
        cluster.deliver_all();
        assert_eq!(end_of(&mut cluster, call), End::Responded);
        for unanswered in [other, filler, near] {
            if ends_well {
                assert_eq!(end_of(&mut cluster, unanswered), End::Completed);
            } else {
                assert_eq!(failed_with(&mut cluster, unanswered), "broken");
            }
        }
        cluster.take_responses();
        cluster.deliver_all();
        cluster.assert_empty();
    }
}

#[test]
fn a_second_stage_answers_a_caller_of_its_own_home_whose_batch_was_gathered_at_another() {
    let mut cluster = Cluster::new(&two_stages(2, 2), 2);
    // A batch that opens at home 0, and one at home 1 with a caller of home 0.
    for home in [0, 0] {
        submit(&mut cluster, home);
        cluster.deliver_all();
    }
    let first = running(&mut cluster, "gather");
    pass_on(&mut cluster, first);
    done(&mut cluster, first);
    cluster.deliver_all();
    submit(&mut cluster, 1);
    cluster.deliver_all();
    let call = submit(&mut cluster, 0);
    cluster.deliver_all();
    let second = running(&mut cluster, "gather");
    pass_on(&mut cluster, second);
    done(&mut cluster, second);
    cluster.deliver_all();
    let next = running(&mut cluster, "next");
    respond_to(&mut cluster, next, call.session);
    assert_eq!(cluster.world().sink.error_events, []);
    done(&mut cluster, next);
    cluster.deliver_all();
    assert_eq!(end_of(&mut cluster, call), End::Responded);
    cluster.take_responses();
    cluster.deliver_all();
    cluster.assert_empty();
}

#[test]
fn a_session_at_another_home_that_nothing_ties_to_an_invocation_is_not_answered_by_it() {
    let mut cluster = Cluster::new(&one_stage(batch(1, None)), 2);
    let stranger = cluster.at(1, |world| world.call("next"));
    let call = submit(&mut cluster, 0);
    cluster.deliver_all();
    let gather = running(&mut cluster, "gather");
    respond_to(&mut cluster, gather, stranger.session);
    fail(&mut cluster, gather, stranger.session, "no");
    assert_eq!(cluster.ways(), [], "a stranger costs no message");
    let told = cluster.world().sink.error_events.clone();
    assert_eq!(told.len(), 2);
    for (_, told) in told {
        assert!(told.contains("neither its own nor"), "{told}");
    }
    done(&mut cluster, gather);
    cluster.deliver_all();
    assert!(cluster.world().is_open(stranger));
    assert_eq!(end_of(&mut cluster, call), End::Completed);
    let next = running(&mut cluster, "next");
    done(&mut cluster, next);
    cluster.assert_empty();
}

#[test]
fn a_session_of_another_app_is_not_answered_though_its_home_cannot_know_where_the_answer_is_from() {
    const OTHER: AppId = AppId(1);
    let spec = one_stage(batch(2, None));
    let mut cluster = Cluster::new(&spec, 2);
    cluster.deploy(OTHER, &spec);
    // One of the other app's that is held by a batch, at home where `gather` will run.
    let theirs = cluster.at(0, |world| {
        let request = world.request_of(OTHER, Destination::Entry, true);
        world.answer_of(request).expect("it is let in")
    });
    let calls = [0, 1].map(|home| submit(&mut cluster, home));
    cluster.deliver_all();
    let gather = running(&mut cluster, "gather");
    let own = SessionId(cluster.world().opened(gather).session);
    assert_eq!(own.0 >> 56, theirs.session.0 >> 56);
    respond_to(&mut cluster, gather, theirs.session);
    fail(&mut cluster, gather, theirs.session, "not yours");
    assert!(cluster.world().is_open(theirs));
    for (session, told) in &cluster.world().sink.error_events {
        assert_eq!(*session, own);
        assert!(told.contains("neither its own nor"), "{told}");
    }
    assert_eq!(cluster.world().sink.error_events.len(), 2);
    done(&mut cluster, gather);
    cluster.cancel(theirs);
    for home in 0..2 {
        cluster.at(home, |world| world.event(Event::Remove { app: OTHER }));
    }
    cluster.deliver_all();
    for call in calls {
        assert_eq!(end_of(&mut cluster, call), End::Completed);
    }
    cluster.assert_empty();
}

#[test]
fn no_more_answers_of_a_session_are_on_their_way_than_it_may_have_inputs() {
    let mut spec = one_stage(batch(2, None));
    spec.limits.inputs = 2;
    let mut cluster = Cluster::new(&spec, 2);
    for home in [0, 1] {
        submit(&mut cluster, home);
    }
    cluster.deliver_all();
    let gather = running(&mut cluster, "gather");
    for junk in 0..5 {
        fail(&mut cluster, gather, SessionId(1 << 56 | junk << 8), "x");
    }
    assert_eq!(cluster.count_on((0, 1)), 2);
    let told = cluster.world().sink.error_events.clone();
    assert_eq!(told.len(), 3);
    assert!(told[0].1.contains("limits.inputs"), "{}", told[0].1);
    cluster.deliver_all();
    fail(&mut cluster, gather, SessionId(1 << 56 | 1), "x");
    assert_eq!(cluster.count_on((0, 1)), 1, "those have arrived");
    done(&mut cluster, gather);
    cluster.deliver_all();
    cluster.assert_empty();
}

#[test]
fn a_contributor_that_nobody_waits_for_fails_wherever_it_is_at_home_while_it_is_open() {
    let mut cluster = Cluster::new(&one_stage(batch(2, None)), 2);
    let first = submit(&mut cluster, 0);
    cluster.deliver_all();
    let call = cluster.at(1, |world| world.call("next"));
    let next = running(&mut cluster, "next");
    cluster.with(next, |world| {
        world.respond_by(next);
        world.put_by(next, "queue", "k");
    });
    cluster.deliver_all();
    let gather = running(&mut cluster, "gather");
    let found = contributors(&mut cluster, gather);
    assert_eq!(found, [first.session, call.session]);
    fail(&mut cluster, gather, call.session, "not you");
    cluster.deliver_all();
    assert_eq!(failed_with(&mut cluster, call), "not you");
    done(&mut cluster, next);
    done(&mut cluster, gather);
    cluster.take_responses();
    cluster.deliver_all();
    assert_eq!(end_of(&mut cluster, first), End::Completed);
    cluster.assert_empty();
}

#[test]
fn an_object_of_another_home_is_in_every_window_that_covers_it_and_released_after_the_last() {
    let mut cluster = Cluster::new(&one_stage(windows(30 * MS, 10 * MS)), 2);
    cluster.pass(20 * MS);
    let call = submit(&mut cluster, 1);
    cluster.deliver_all();
    for _ in 0..3 {
        cluster.pass(10 * MS);
        cluster.deliver_all();
        let gather = running(&mut cluster, "gather");
        assert_eq!(contributors(&mut cluster, gather), [call.session]);
        assert!(cluster.world().is_open(call));
        done(&mut cluster, gather);
        cluster.deliver_all();
    }
    assert_eq!(end_of(&mut cluster, call), End::Completed);
    cluster.assert_empty();
}

#[test]
fn an_object_comes_to_every_trigger_after_those_that_its_invocation_had_as_inputs() {
    for (near, far) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
        let mut spec = one_stage(batch(2, None));
        spec.buckets[0]
            .triggers
            .push(across("u", batch(4, None), &[1]));
        let mut cluster = Cluster::new(&spec, 3);
        let first = drop_in(&mut cluster, near, b"");
        cluster.deliver_all();
        let second = drop_in(&mut cluster, far, b"");
        // Of what `far` has sent one message arrives at once, and what else there is very late.
        let from_far = cluster.ways().into_iter().find(|way| way.0 == far);
        if let Some(way) = from_far {
            cluster.deliver(way);
        }
        let deliver_others = |cluster: &mut Cluster| {
            let other = |way: &(u8, u8)| Some(*way) != from_far;
            while let Some(way) = cluster.ways().into_iter().find(other) {
                cluster.deliver(way);
            }
        };
        deliver_others(&mut cluster);
        let gather = running(&mut cluster, "gather");
        let own = SessionId(cluster.world().opened(gather).session);
        let inputs = [first.session, second.session];
        assert_eq!(contributors(&mut cluster, gather), inputs);
        cluster.with(gather, |world| world.put_by(gather, "queue", "sum"));
        done(&mut cluster, gather);
        deliver_others(&mut cluster);
        cluster.deliver_all();
        let last = drop_in(&mut cluster, near, b"");
        cluster.deliver_all();
        cluster.pass(MS);
        let gather = running(&mut cluster, "gather");
        assert_eq!(contributors(&mut cluster, gather), [own, last.session]);
        let next = running(&mut cluster, "next");
        let seen = contributors(&mut cluster, next);
        assert_eq!(seen, [first.session, second.session, own, last.session]);
        done(&mut cluster, gather);
        done(&mut cluster, next);
        cluster.deliver_all();
        cluster.assert_empty();
    }
}

/// What may happen, to whom it can happen then.
#[derive(Clone, Copy, Debug)]
enum Op {
    Submit(u8),
    DropIn(u8, u8),
    Deliver(usize),
    Respond(usize, usize),
    FailOne(usize, usize),
    PassOn(usize),
    Done(usize),
    Break(usize),
    Crash(usize),
    Cancel(usize),
    TakeResponses,
    Pass(u64),
}

fn an_op() -> impl Strategy<Value = Op> {
    let who = 0..16usize;
    prop_oneof![
        8 => (0..3u8).prop_map(Op::Submit),
        3 => (0..3u8, 0..2u8).prop_map(|(home, group)| Op::DropIn(home, group)),
        20 => who.clone().prop_map(Op::Deliver),
        6 => (who.clone(), who.clone()).prop_map(|(at, to)| Op::Respond(at, to)),
        1 => (who.clone(), who.clone()).prop_map(|(at, to)| Op::FailOne(at, to)),
        3 => who.clone().prop_map(Op::PassOn),
        5 => who.clone().prop_map(Op::Done),
        1 => who.clone().prop_map(Op::Break),
        1 => who.clone().prop_map(Op::Crash),
        1 => who.prop_map(Op::Cancel),
        1 => Just(Op::TakeResponses),
        2 => (0..15 * MS).prop_map(Op::Pass),
    ]
}

fn a_spec() -> impl Strategy<Value = AppSpec> {
    let first = prop_oneof![
        4 => (1..5u32).prop_map(|count| batch(count, None)),
        2 => (2..5u32).prop_map(|count| batch(count, Some(5 * MS))),
        1 => Just(windows(30 * MS, 10 * MS)),
        1 => Just(windows(10 * MS, 10 * MS)),
        2 => Just(rounds(2, 3, Some(20 * MS))),
    ];
    let second = prop_oneof![
        Just(immediate(&[1])),
        (1..4u32).prop_map(|count| across("u", batch(count, None), &[1])),
    ];
    (first, second, any::<bool>()).prop_map(|(first, second, skip_ended)| {
        let first = TriggerSpec {
            skip_ended,
            ..across("t", first, &[0])
        };
        spec(first, second)
    })
}

/// One history, and what it has come to.
struct Run {
    cluster: Cluster,
    calls: Vec<Call>,
}

impl Run {
    fn open(&mut self, at: usize) -> Option<ExecutorId> {
        let executors = self.cluster.world().sink.executors.iter();
        let busy: Vec<ExecutorId> = executors
            .filter(|(_, executor)| executor.open.is_some())
            .map(|(&id, _)| id)
            .collect();
        (!busy.is_empty()).then(|| busy[at % busy.len()])
    }

    fn call(&self, at: usize) -> Option<Call> {
        (!self.calls.is_empty()).then(|| self.calls[at % self.calls.len()])
    }

    fn perform(&mut self, op: Op) {
        let homes = self.cluster.homes();
        let cluster = &mut self.cluster;
        match op {
            Op::Submit(home) => self.calls.push(submit(cluster, home % homes)),
            Op::DropIn(home, group) => {
                drop_in(cluster, home % homes, &[b'g' + group]);
            }
            Op::Deliver(at) => {
                let ways = cluster.ways();
                if !ways.is_empty() {
                    cluster.deliver(ways[at % ways.len()]);
                }
            }
            Op::TakeResponses => cluster.take_responses(),
            Op::Pass(ns) => cluster.pass(ns),
            Op::Cancel(at) => {
                if let Some(call) = self.call(at) {
                    self.cluster.cancel(call);
                }
            }
            Op::Respond(at, to) | Op::FailOne(at, to) => {
                if let (Some(id), Some(call)) = (self.open(at), self.call(to)) {
                    match op {
                        Op::Respond(..) => respond_to(&mut self.cluster, id, call.session),
                        _ => fail(&mut self.cluster, id, call.session, "not you"),
                    }
                }
            }
            Op::PassOn(at) | Op::Done(at) | Op::Break(at) | Op::Crash(at) => {
                let Some(id) = self.open(at) else { return };
                let cluster = &mut self.cluster;
                match op {
                    Op::PassOn(_) => pass_on(cluster, id),
                    Op::Done(_) => done(cluster, id),
                    Op::Break(_) => breaks(cluster, id, "broken"),
                    _ => cluster.with(id, |world| world.die(id, Death::Signaled(11))),
                }
            }
        }
    }

    /// Messages arrive and functions return until nothing goes on; those that wait are left.
    fn come_to_rest(&mut self) {
        loop {
            self.cluster.deliver_all();
            self.cluster.take_responses();
            if self.cluster.ways().is_empty() {
                let Some(id) = self.open(0) else { return };
                done(&mut self.cluster, id);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_overtakes_what_everybody_is_told_an_end_and_nothing_is_left(
        spec in a_spec(),
        homes in 2..=3u8,
        ops in prop::collection::vec(an_op(), 1..120),
        removed_early in any::<bool>(),
        last in prop::collection::vec(0..16usize, 0..40),
    ) {
        let mut run = Run { cluster: Cluster::new(&spec, homes), calls: Vec::new() };
        for op in ops {
            run.perform(op);
        }
        if !removed_early {
            run.come_to_rest();
            run.cluster.pass(100 * MS);
            run.come_to_rest();
        }
        // Removed home by home, with messages on their way.
        for home in 0..homes {
            for &at in last.iter().skip(usize::from(home)).step_by(3) {
                run.perform(Op::Deliver(at));
            }
            run.cluster.at(home, |world| world.event(Event::Remove { app: APP }));
        }
        run.come_to_rest();
        run.cluster.pass(100 * MS);
        run.come_to_rest();
        for call in run.calls.clone() {
            prop_assert!(!run.cluster.world().is_open(call));
        }
        prop_assert_eq!(run.cluster.world().sink.removed.len(), usize::from(homes));
        run.cluster.assert_empty();
    }

    #[test]
    fn every_caller_is_answered_where_nothing_fails(
        (first, second) in (1..5u32, 1..4u32),
        homes in 2..=3u8,
        submitters in prop::collection::vec(0..3u8, 12),
        order in prop::collection::vec((0..16usize, 0..3u8), 400),
    ) {
        let (batches, calls) = (12 / first / second, 12 / first / second * first * second);
        let mut run = Run { cluster: Cluster::new(&two_stages(first, second), homes), calls: Vec::new() };
        let mut waiting = submitters.into_iter().take(calls as usize);
        // Which callers are in which firing of `gather`, by its session.
        let mut members = std::collections::BTreeMap::new();
        let mut answered = 0;
        for (at, what) in order.into_iter().chain(std::iter::repeat_n((0, 1), 2000)) {
            match what {
                0 => {
                    if let Some(home) = waiting.next() {
                        run.perform(Op::Submit(home));
                    }
                }
                1 => {
                    if run.cluster.ways().is_empty() && let Some(home) = waiting.next() {
                        run.perform(Op::Submit(home));
                    }
                    run.perform(Op::Deliver(at));
                    run.cluster.take_responses();
                    if !run.cluster.ways().is_empty() {
                        continue;
                    }
                }
                _ => {}
            }
            let Some(id) = run.open(at) else { continue };
            let inputs = contributors(&mut run.cluster, id);
            let own = run.cluster.world().opened(id).session;
            if run.cluster.world().opened(id).function == 0 {
                members.insert(SessionId(own), inputs);
                pass_on(&mut run.cluster, id);
            } else {
                for gathered in inputs {
                    for &caller in &members[&gathered] {
                        respond_to(&mut run.cluster, id, caller);
                        answered += 1;
                    }
                }
            }
            done(&mut run.cluster, id);
        }
        prop_assert_eq!(answered, batches * first * second);
        prop_assert_eq!(run.calls.len(), calls as usize);
        for call in run.calls.clone() {
            prop_assert_eq!(end_of(&mut run.cluster, call), End::Responded);
        }
        prop_assert_eq!(&run.cluster.world().sink.error_events, &vec![]);
        run.cluster.take_responses();
        run.cluster.deliver_all();
        run.cluster.assert_empty();
    }
}
