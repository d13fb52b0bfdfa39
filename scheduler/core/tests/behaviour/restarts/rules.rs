//! The rules of durable sessions, one by one.

use pheromone_core::event::{Cause, Event, SessionId, Written};
use pheromone_core::spec::{AppSpec, AtEnd, Keep, Pool, Retain};
use pheromone_core::{CoreConfig, identity};
use pheromone_shm::message::{Ending, FromExecutor, Key, Target};

use super::disk::{Asked, Disk, Receipt, Waiting, acknowledge};
use crate::common::app::{app, batch, bucket, by_set, immediate, trigger};
use crate::common::{APP, CONFIG, Call, End, World};

/// The session of most tests.
const SESSION: SessionId = SessionId(1);

/// `source` is durable; the durable bucket `d` fires `sink`, the plain one `b` does too, and
/// `source` hands over to `next`.
fn spec() -> AppSpec {
    let mut spec = app(&["source", "sink", "next"]);
    spec.executors = Pool { min: 4, max: 4 };
    spec.functions[0].durable = true;
    spec.functions[0].next = vec![2];
    spec.buckets = vec![
        bucket("d", Keep::UntilConsumed, vec![immediate(&[1])]),
        bucket("b", Keep::UntilConsumed, vec![immediate(&[1])]),
    ];
    spec.buckets[0].durable = true;
    spec.buckets[0].retain = Retain::Forever;
    spec
}

/// A node that can be killed.
struct Node {
    spec: AppSpec,
    world: World,
    disk: Disk,
    waiting: Waiting,
    lives: u64,
}

impl Node {
    fn new(spec: AppSpec) -> Self {
        Self {
            world: world(&spec, 0),
            spec,
            disk: Disk::default(),
            waiting: Waiting::default(),
            lives: 1,
        }
    }

    fn call(&mut self) -> Call {
        self.disk.request(SESSION, 0);
        self.world.call_durable("source", SESSION)
    }

    /// All that waits is on disk, and known to be.
    fn write_all(&mut self) {
        self.waiting.collect(&mut self.world);
        while let Some(asked) = self.waiting.entries.pop_front() {
            let receipt = self.disk.take(&self.spec, &asked);
            acknowledge(&mut self.world, asked, receipt);
            self.waiting.collect(&mut self.world);
        }
    }

    /// So many entries come to disk, and nobody hears of it.
    fn crash_after(&mut self, entries: usize) {
        self.waiting.collect(&mut self.world);
        for asked in self.waiting.entries.drain(..).take(entries) {
            self.disk.take(&self.spec, &asked);
        }
        self.world = world(&self.spec, self.lives);
        self.waiting = Waiting::default();
        self.lives += 1;
    }

    fn restore(&mut self) -> Call {
        let restored = self.disk.restored(SESSION, &mut self.world);
        self.world.try_restore(restored).expect("there is room")
    }

    fn restart(&mut self) -> Call {
        self.crash_after(0);
        self.restore()
    }

    fn successes(&self) -> usize {
        self.disk.sessions[&SESSION].successes.len()
    }
}

fn world(spec: &AppSpec, life: u64) -> World {
    let config = CoreConfig {
        first_id: (life + 1) << 20,
        ..CONFIG
    };
    World::with_config(spec.clone(), config)
}

#[test]
fn a_firing_is_on_disk_before_its_function_runs() {
    let mut node = Node::new(spec());
    let call = node.call();
    let source = node.world.running("source");
    node.world.put_by(source, "d", "a");
    node.world.done(source);
    node.waiting.collect(&mut node.world);
    let Some(Asked::Write(write)) = node.waiting.entries.pop_front() else {
        panic!("the object is written");
    };
    let write = Asked::Write(write);
    let receipt = node.disk.take(&node.spec, &write);
    acknowledge(&mut node.world, write, receipt);
    assert!(node.world.all_running("sink").is_empty() && node.world.is_open(call));
    let firing = node.world.sink.firings.front().expect("it is recorded");
    let Receipt::New(sequence) = receipt else {
        panic!("it is the first");
    };
    assert_eq!(firing.inputs, [sequence]);
    assert_eq!((firing.bucket, firing.trigger, firing.function), (0, 0, 1));
    let invocation = firing.invocation;
    node.write_all();
    let sink = node.world.running("sink");
    assert_eq!(node.world.opened(sink).invocation, invocation);
    node.world.done(sink);
    assert_eq!(node.world.ended(call).outcome, End::Completed);
    node.world.assert_empty();
}

#[test]
fn a_session_whose_firing_the_disk_refuses_fails_with_the_reason() {
    let mut node = Node::new(spec());
    let call = node.call();
    let source = node.world.running("source");
    node.world.put_by(source, "d", "a");
    node.world.done(source);
    node.waiting.collect(&mut node.world);
    let write = node.waiting.entries.pop_front().expect("it is written");
    let receipt = node.disk.take(&node.spec, &write);
    acknowledge(&mut node.world, write, receipt);
    let firing = node.world.sink.firings.pop_front().expect("it fires");
    node.world.event(Event::Recorded {
        app: APP,
        ticket: firing.ticket,
        outcome: Err("the disk is full"),
    });
    let failure = node.world.ended(call).failure();
    assert!(
        matches!(&failure.cause, Cause::NotWritten(why) if why.contains("`d`") && why.contains("full")),
        "{failure:?}"
    );
    node.world.assert_empty();
}

#[test]
fn a_cancelled_session_forgets_the_firing_that_is_being_written() {
    let mut node = Node::new(spec());
    let call = node.call();
    let source = node.world.running("source");
    node.world.put_by(source, "d", "a");
    node.waiting.collect(&mut node.world);
    let write = node.waiting.entries.pop_front().expect("it is written");
    let receipt = node.disk.take(&node.spec, &write);
    acknowledge(&mut node.world, write, receipt);
    let firing = node.world.sink.firings.pop_front().expect("it fires");
    node.world.cancel(call);
    node.world.event(Event::Recorded {
        app: APP,
        ticket: firing.ticket,
        outcome: Ok(()),
    });
    assert!(node.world.all_running("sink").is_empty());
    node.world.done(source);
    node.world.assert_empty();
}

#[test]
fn what_has_not_succeeded_runs_again_under_its_id_as_a_further_attempt() {
    let mut node = Node::new(spec());
    node.call();
    let source = node.world.running("source");
    assert_eq!(
        node.world.opened(source).invocation,
        identity::request(SESSION.0, "source")
    );
    node.world.put_by(source, "d", "a");
    node.world.done(source);
    node.write_all();
    let sink = node.world.running("sink");
    let before = node.world.opened(sink).clone();
    assert_eq!(node.successes(), 1, "the request's is, the sink's is not");
    let call = node.restart();
    assert_eq!(call.session, SESSION);
    assert!(node.world.all_running("source").is_empty());
    let sink = node.world.running("sink");
    let again = node.world.opened(sink);
    assert_eq!(again.invocation, before.invocation);
    assert_eq!((before.attempt, again.attempt), (1, 2));
    assert_eq!(node.world.keys(sink), ["a"]);
    node.world.done(sink);
    assert_eq!(node.world.ended(call).outcome, End::Completed);
    node.world.assert_empty();
}

#[test]
fn what_ran_in_an_earlier_life_counts_as_no_attempt() {
    let mut spec = spec();
    spec.functions[0].attempts = 2;
    let mut node = Node::new(spec);
    node.call();
    let call = node.restart();
    for attempt in [2, 3] {
        node.world.pass(1_000_000_000);
        let source = node.world.running("source");
        assert_eq!(node.world.opened(source).attempt, attempt);
        assert!(node.world.is_open(call));
        node.world.complete(source, 1, Ending::Returned, "");
    }
    assert!(matches!(node.world.ended(call).outcome, End::Failed(_)));
    node.world.assert_empty();
}

#[test]
fn what_a_rerun_sends_again_stands_and_fires_nothing() {
    let mut node = Node::new(spec());
    node.call();
    let source = node.world.running("source");
    node.world.put_by(source, "d", "a");
    node.write_all();
    node.world.run("sink");
    node.write_all();
    // `source` runs still: it runs again, its object and what that fired are there.
    let call = node.restart();
    let source = node.world.running("source");
    node.world.put_by(source, "d", "a");
    node.write_all();
    assert!(node.world.all_running("sink").is_empty());
    // One that it had not sent before does fire.
    node.world.put_by(source, "d", "b");
    node.write_all();
    node.world.run("sink");
    node.world.done(source);
    node.write_all();
    assert_eq!(node.world.ended(call).outcome, End::Completed);
    let objects = &node.disk.sessions[&SESSION].objects;
    assert_eq!((objects.len(), node.disk.firings_repeated), (2, 0));
    assert!(node.world.sink.error_events.is_empty());
    node.world.assert_empty();
}

#[test]
fn what_is_sent_durable_from_in_between_keeps_its_name_and_author() {
    let mut node = Node::new(spec());
    node.call();
    let source = node.world.running("source");
    node.world.next_by(source);
    let next = node.world.running("next");
    let before = node.world.opened(next).invocation;
    node.world.auto_by(next, "d");
    node.write_all();
    node.world.run("sink");
    node.write_all();
    let call = node.restart();
    let source = node.world.running("source");
    // Another order of things makes no other ids.
    node.world.put_by(source, "b", "other");
    node.world.next_by(source);
    node.world.run("sink");
    let next = node.world.running("next");
    assert_eq!(node.world.opened(next).invocation, before);
    node.world.auto_by(next, "d");
    node.world.done(next);
    node.world.done(source);
    node.write_all();
    assert_eq!(node.world.ended(call).outcome, End::Completed);
    assert_eq!(node.disk.sessions[&SESSION].objects.len(), 1);
    node.world.assert_empty();
}

#[test]
fn objects_of_one_name_are_told_apart_by_how_many_were_sent_before() {
    let mut node = Node::new(spec());
    node.call();
    let source = node.world.running("source");
    node.world.put_by(source, "d", "a");
    node.world.put_by(source, "d", "a");
    node.write_all();
    assert_eq!(node.disk.sessions[&SESSION].objects.len(), 2);
    let call = node.restart();
    for _ in 0..2 {
        node.world.run("sink");
    }
    let source = node.world.running("source");
    for _ in 0..3 {
        node.world.put_by(source, "d", "a");
    }
    node.write_all();
    assert_eq!(node.disk.sessions[&SESSION].objects.len(), 3);
    node.world.run("sink");
    node.world.done(source);
    assert_eq!(node.world.ended(call).outcome, End::Completed);
    node.world.assert_empty();
}

#[test]
fn a_send_that_was_refused_has_not_been_sent() {
    let mut node = Node::new(spec());
    let call = node.call();
    let source = node.world.running("source");
    node.world.say(source, FromExecutor::Persist);
    let extent = node.world.allocate(source, 8);
    let publish = FromExecutor::Publish {
        target: Target::Bucket(0),
        extent,
        size_bytes: 8,
        key: Key::Named(b"a"),
        ordinal: 0,
        group: b"",
        delay_ns: 0,
    };
    node.world.say(source, publish);
    let write = node.world.sink.writes.pop_front().expect("it is written");
    assert_eq!(write.ordinal, Some(0));
    node.world.event(Event::Written {
        app: APP,
        ticket: write.ticket,
        outcome: Written::Failed("full"),
    });
    node.world.executor(source).persist_answer.take();
    node.world.give_back(source, &[extent]);
    node.world.put_by(source, "d", "a");
    assert_eq!(node.world.sink.writes[0].ordinal, Some(0));
    node.write_all();
    node.world.run("sink");
    node.world.done(source);
    assert_eq!(node.world.ended(call).outcome, End::Completed);
    node.world.assert_empty();
}

#[test]
fn a_success_waits_for_what_was_sent_directly_and_for_the_disk() {
    let mut node = Node::new(spec());
    let call = node.call();
    let source = node.world.running("source");
    node.world.next_by(source);
    node.world.done(source);
    let next = node.world.running("next");
    node.world.put_by(next, "d", "a");
    node.world.done(next);
    assert!(
        node.world.sink.successes.is_empty(),
        "an object is on its way"
    );
    node.waiting.collect(&mut node.world);
    let write = node.waiting.entries.pop_front().expect("it is written");
    let receipt = node.disk.take(&node.spec, &write);
    acknowledge(&mut node.world, write, receipt);
    let success = node.world.sink.successes.front().expect("nothing is lost");
    assert_eq!(success.invocation, identity::request(SESSION.0, "source"));
    node.write_all();
    node.world.run("sink");
    assert_eq!(node.world.ended(call).outcome, End::Completed);
    node.world.assert_empty();
}

#[test]
fn a_success_waits_for_the_response_to_be_on_disk() {
    let mut node = Node::new(spec());
    let call = node.call();
    let source = node.world.running("source");
    node.world.put_by(source, "d", "a");
    node.world.respond_by(source);
    node.world.done(source);
    assert!(node.world.sink.successes.is_empty());
    node.write_all();
    assert_eq!(node.successes(), 1);
    let by = node.disk.sessions[&SESSION].response;
    assert_eq!(by, Some(identity::request(SESSION.0, "source")));
    node.world.run("sink");
    assert_eq!(node.world.ended(call).outcome, End::Responded);
    node.world.assert_empty();
}

#[test]
fn who_has_left_something_in_memory_alone_runs_again_whatever_has_become_of_it() {
    let mut node = Node::new(spec());
    node.call();
    let source = node.world.running("source");
    node.world.put_by(source, "b", "plain");
    node.world.put_by(source, "d", "a");
    node.world.done(source);
    node.world.run("sink");
    node.write_all();
    assert_eq!(node.successes(), 0);
    let call = node.restart();
    let source = node.world.running("source");
    node.world.put_by(source, "b", "plain");
    node.world.put_by(source, "d", "a");
    node.world.done(source);
    node.write_all();
    // The plain one has fired again, the durable one goes on from before.
    assert_eq!(node.world.all_running("sink").len(), 2);
    while let Some(&sink) = node.world.all_running("sink").first() {
        node.world.done(sink);
    }
    assert_eq!(node.world.ended(call).outcome, End::Completed);
    node.world.assert_empty();
}

#[test]
fn a_response_that_is_on_disk_is_not_given_twice() {
    let mut node = Node::new(spec());
    node.call();
    let source = node.world.running("source");
    node.world.respond_by(source);
    node.write_all();
    let call = node.restart();
    let source = node.world.running("source");
    node.world.respond_by(source);
    node.world.done(source);
    assert!(node.world.sink.responses.is_empty());
    assert!(node.world.sink.error_events.is_empty());
    let ended = node.world.ended(call);
    assert_eq!((&ended.outcome, ended.answered), (&End::Responded, true));
    node.world.assert_empty();
}

#[test]
fn an_object_that_no_firing_on_disk_has_taken_is_offered_again() {
    let mut spec = spec();
    spec.buckets[0].triggers = vec![immediate(&[1]), trigger("pairs", batch(2, None), &[2])];
    spec.buckets[0].triggers[1].at_end = AtEnd::Fire;
    let mut node = Node::new(spec);
    node.call();
    let source = node.world.running("source");
    for key in ["a", "b", "c"] {
        node.world.put_by(source, "d", key);
    }
    node.world.done(source);
    // Three objects, and a firing of `immediate` and of `pairs` each; the rest is lost.
    node.waiting.collect(&mut node.world);
    for _ in 0..3 {
        let asked = node.waiting.entries.pop_front().expect("it is written");
        let receipt = node.disk.take(&node.spec, &asked);
        acknowledge(&mut node.world, asked, receipt);
    }
    node.waiting.collect(&mut node.world);
    let mut kept = std::mem::take(&mut node.waiting.entries);
    kept.retain(|asked| match asked {
        Asked::Firing(firing) => firing.inputs == [1] || firing.inputs.len() == 2,
        _ => true,
    });
    node.waiting.entries = kept;
    node.crash_after(usize::MAX);
    let call = node.restore();
    node.write_all();
    let mut runs = Vec::new();
    while let Some(id) = ["sink", "next"].iter().find_map(|function| {
        let running = node.world.all_running(function);
        running.first().copied()
    }) {
        runs.push(node.world.keys(id).join(""));
        node.world.done(id);
        node.write_all();
    }
    runs.sort_unstable();
    assert_eq!(runs, ["a", "ab", "b", "c", "c"]);
    assert_eq!(node.world.ended(call).outcome, End::Completed);
    node.world.assert_empty();
}

#[test]
fn a_set_that_has_fired_takes_nothing_more_after_a_restart() {
    let mut spec = spec();
    spec.buckets[0].triggers = vec![by_set(&["a", "b"], &[1])];
    let mut node = Node::new(spec);
    node.call();
    let source = node.world.running("source");
    node.world.put_by(source, "d", "a");
    node.world.put_by(source, "d", "b");
    node.write_all();
    node.world.run("sink");
    node.write_all();
    let call = node.restart();
    let source = node.world.running("source");
    for key in ["a", "b", "a", "b"] {
        node.world.put_by(source, "d", key);
    }
    node.world.done(source);
    node.write_all();
    assert!(node.world.all_running("sink").is_empty());
    assert_eq!(node.world.ended(call).outcome, End::Completed);
    node.world.assert_empty();
}

#[test]
fn a_volley_of_which_a_crash_let_a_part_through_is_made_whole() {
    let mut spec = spec();
    spec.buckets[0].triggers = vec![immediate(&[1, 2])];
    let mut node = Node::new(spec);
    node.call();
    let source = node.world.running("source");
    node.world.put_by(source, "d", "a");
    node.world.done(source);
    node.waiting.collect(&mut node.world);
    let write = node.waiting.entries.pop_front().expect("it is written");
    let receipt = node.disk.take(&node.spec, &write);
    acknowledge(&mut node.world, write, receipt);
    // The success of `source` and the firing of one function.
    node.crash_after(1);
    assert_eq!(
        node.disk.sessions[&SESSION].firings.len() + node.successes(),
        1
    );
    let call = node.restore();
    node.write_all();
    if let Some(&source) = node.world.all_running("source").first() {
        node.world.put_by(source, "d", "a");
        node.world.done(source);
        node.write_all();
    }
    node.world.run("sink");
    node.world.run("next");
    assert_eq!(node.world.ended(call).outcome, End::Completed);
    assert_eq!(node.disk.sessions[&SESSION].firings.len(), 2);
    node.world.assert_empty();
}

#[test]
fn objects_that_a_bucket_keeps_are_found_again() {
    let mut spec = spec();
    spec.buckets[0].keep = Keep::Session;
    let mut node = Node::new(spec);
    node.call();
    let source = node.world.running("source");
    node.world.put_by(source, "d", "a");
    let ordinal = node.world.auto_by(source, "d");
    let invocation = node.world.opened(source).invocation;
    node.write_all();
    for _ in 0..2 {
        node.world.run("sink");
        node.write_all();
    }
    let call = node.restart();
    let source = node.world.running("source");
    assert!(node.world.get_by(source, "d", "a").is_ok());
    let key = format!("~{invocation}.{ordinal}");
    assert!(node.world.get_by(source, "d", &key).is_ok());
    node.world.done(source);
    assert_eq!(node.world.ended(call).outcome, End::Completed);
    node.world.assert_empty();
}

#[test]
fn a_session_for_which_there_is_no_room_is_refused_and_nothing_is_left_of_it() {
    let mut node = Node::new(spec());
    node.call();
    node.crash_after(0);
    let hog = node.world.call("next");
    let next = node.world.running("next");
    let hogged = Target::Bucket(node.world.bucket("b"));
    node.world
        .publish(next, hogged, Key::Named(b"hog"), 58 << 20);
    let restored = node.disk.restored(SESSION, &mut node.world);
    assert!(node.world.try_restore(restored).is_err());
    node.world.run("sink");
    node.world.done(next);
    assert_eq!(node.world.ended(hog).outcome, End::Completed);
    let call = node.restore();
    let source = node.world.running("source");
    node.world.done(source);
    assert_eq!(node.world.ended(call).outcome, End::Completed);
    node.world.assert_empty();
}

#[test]
fn a_labelled_direct_object_is_told_from_another_of_the_same_label() {
    let mut node = Node::new(spec());
    let call = node.call();
    let source = node.world.running("source");
    let mut ids = Vec::new();
    for ordinal in 0..2 {
        let extent = node.world.allocate(source, 8);
        let publish = FromExecutor::Publish {
            target: Target::Next,
            extent,
            size_bytes: 8,
            key: Key::Named(b"label"),
            ordinal,
            group: b"",
            delay_ns: 0,
        };
        node.world.say(source, publish);
        let next = node.world.running("next");
        ids.push(node.world.opened(next).invocation);
        node.world.done(next);
    }
    assert_ne!(ids[0], ids[1]);
    node.world.done(source);
    assert_eq!(node.world.ended(call).outcome, End::Completed);
    node.world.assert_empty();
}
