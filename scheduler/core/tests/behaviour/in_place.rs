//! Executors that go on by themselves: what is granted, what is taken back, and that exactly one
//! starts what was offered.

use pheromone_core::event::{AppId, Death, Destination, Event, ExecutorId, Request, RequestId};
use pheromone_core::in_place::{InPlace, Successor};
use pheromone_core::spec::{
    AppSpec, Keep, NameMatch, OnFailure, Pool, RerunSpec, Retain, SerialBy, TriggerKind,
};
use pheromone_core::{CoreConfig, SpinPolicy};
use pheromone_shm::claim::GRANT_HOPS;
use pheromone_shm::message::{Ending, Extent, FromExecutor, HeadersRef, Target};

use crate::common::app::{app, bucket, immediate};
use crate::common::{APP, CONFIG, Call, End, World};

const DELAY_NS: u64 = 50_000;

/// `walk` sends to itself.
fn chain(executors: u16) -> AppSpec {
    let mut spec = app(&["walk", "other"]);
    spec.executors = Pool {
        min: executors,
        max: executors,
    };
    spec.functions[0].next = vec![0];
    spec.buckets = vec![bucket("b", Keep::UntilConsumed, vec![immediate(&[0])])];
    spec
}

fn walking(executors: u16) -> (World, Call, ExecutorId) {
    let mut world = World::new(chain(executors));
    let call = world.call("walk");
    let id = world.running("walk");
    (world, call, id)
}

#[test]
fn a_chain_goes_on_without_the_scheduler() {
    let (mut world, call, id) = walking(1);
    let dispatched = world.sink.dispatched_total;
    let mut invocations = vec![world.opened(id).invocation];
    for hop in 0..10 * GRANT_HOPS {
        let target = if hop % 2 == 0 {
            Target::Next
        } else {
            Target::Bucket(0)
        };
        assert!(world.try_offer(id, target), "hop {hop}");
        assert!(world.go_on(id), "hop {hop}");
        invocations.push(world.opened(id).invocation);
    }
    assert_eq!(world.sink.dispatched_total, dispatched);
    assert!(invocations.is_sorted_by(|a, b| a < b), "no id comes twice");
    let stats = world.stats();
    assert_eq!((stats.running, stats.queued), (1, 0));
    assert_eq!(stats.invocations_total, 10 * GRANT_HOPS);
    world.respond_by(id);
    world.done(id);
    assert_eq!(world.ended(call).outcome, End::Responded);
    world.take_response(call);
    world.assert_empty();
}

#[test]
fn what_is_gone_on_with_is_what_would_have_been_dispatched() {
    let run = |in_place: bool| {
        let (mut world, _, id) = walking(1);
        if in_place {
            assert!(world.try_offer(id, Target::Bucket(0)) && world.go_on(id));
        } else {
            world.auto_by(id, "b");
            world.done(id);
        }
        let mut open = world.opened(id).clone();
        world.done(id);
        world.assert_empty();
        open.invocation = 0;
        open
    };
    assert_eq!(format!("{:?}", run(true)), format!("{:?}", run(false)));
}

#[test]
fn after_the_delay_another_executor_starts_it() {
    let (mut world, _, id) = walking(2);
    assert!(world.try_offer(id, Target::Next));
    world.pass(DELAY_NS - 1);
    assert_eq!(world.all_running("walk"), [id], "it is its sender's still");
    world.pass(1);
    assert_eq!(world.all_running("walk").len(), 2);
    assert!(!world.go_on(id), "it is another's");
    for id in world.all_running("walk") {
        world.done(id);
    }
    world.assert_empty();
}

#[test]
fn what_has_begun_is_not_started_again() {
    let (mut world, _, id) = walking(2);
    assert!(world.try_offer(id, Target::Next));
    // Taken, and not yet said.
    assert!(world.executor(id).goes_on());
    world.pass(DELAY_NS);
    let again_ns = world.core.next_timer_ns().expect("it is looked at again");
    assert_eq!(again_ns, world.now_ns + DELAY_NS, "without hurry");
    world.pass(10 * DELAY_NS);
    assert_eq!(world.all_running("walk"), [id]);
    world.say(id, FromExecutor::Continue { discarded: 0 });
    assert_eq!(world.stats().running, 1);
    world.done(id);
    world.assert_empty();
}

#[test]
fn what_is_left_is_queued_where_it_belongs() {
    let mut spec = chain(1);
    spec.functions[0].next = vec![1];
    let mut world = World::new(spec);
    world.call("walk");
    let id = world.running("walk");
    assert!(world.try_offer(id, Target::Next));
    let offered = world.executor(id).offered.clone().expect("offered");
    world.now_ns += 10;
    let later = world.call("other");
    // It returns without going on.
    world.done(id);
    assert_eq!(world.opened(id).invocation, offered.invocation);
    world.done(id);
    assert_eq!(world.opened(id).session, later.session.0);
    world.done(id);
    world.assert_empty();
}

#[test]
fn a_grant_is_a_turn_while_others_wait() {
    let (mut world, _, id) = walking(1);
    world.call("other");
    let mut hops = 0;
    while world.try_offer(id, Target::Next) {
        assert!(world.go_on(id));
        hops += 1;
    }
    assert!(hops <= GRANT_HOPS, "{hops} hops while somebody waits");
    world.next_by(id);
    world.done(id);
    assert_eq!(world.all_running("other"), [id], "its turn has come");
    world.done(id);
    world.done(world.running("walk"));
    world.assert_empty();
}

#[test]
fn who_waits_for_the_delay_ends_a_turn() {
    let (mut world, _, id) = walking(1);
    assert!(world.try_offer(id, Target::Next) && world.go_on(id));
    assert!(world.try_offer(id, Target::Next));
    world.call("other");
    world.pass(DELAY_NS);
    assert_eq!(world.executor(id).grant, 0);
    assert!(!world.go_on(id), "taken back");
    for _ in ["the one that walks", "what it has sent", "the other"] {
        world.done(id);
    }
    assert!(world.sink.executors[&id].open.is_none());
    world.assert_empty();
}

#[test]
fn who_may_wait_for_what_it_makes_gives_it_away() {
    let mut spec = chain(2);
    spec.buckets.push(bucket("out", Keep::Session, vec![]));
    let mut world = World::new(spec);
    world.call("walk");
    let id = world.running("walk");
    assert!(world.try_offer(id, Target::Next));
    world.say(
        id,
        FromExecutor::Get {
            bucket: 1,
            timeout_ns: 1_000_000,
            key: b"answer",
        },
    );
    let other = world.all_running("walk").into_iter().find(|&of| of != id);
    let other = other.expect("its consumer runs elsewhere");
    world.put_by(other, "out", "answer");
    let found = world.executor(id).take_object_answer().expect("answered");
    assert_eq!(found.expect("found").key_text(), "answer");
    assert!(!world.executor(id).goes_on());
    world.done(other);
    world.done(id);
    world.assert_empty();
}

#[test]
fn a_failure_leaves_what_was_offered_to_others() {
    let mut spec = chain(1);
    spec.functions[0].on_failure = OnFailure::Continue;
    let mut world = World::new(spec);
    world.call("walk");
    let id = world.running("walk");
    assert!(world.try_offer(id, Target::Next));
    let offered = world.executor(id).offered.clone().expect("offered");
    world.complete(id, 1, Ending::Returned, "no");
    assert_eq!(world.opened(id).invocation, offered.invocation);
    world.done(id);
    world.assert_empty();
}

#[test]
fn with_its_session_goes_what_was_offered() {
    let (mut world, call, id) = walking(1);
    assert!(world.try_offer(id, Target::Next));
    world.complete(id, 1, Ending::Returned, "no");
    assert!(matches!(world.ended(call).outcome, End::Failed(_)));
    assert!(world.sink.executors[&id].open.is_none());
    world.assert_empty();
}

#[test]
fn with_its_app_goes_the_look_at_what_was_offered() {
    let (mut world, _, id) = walking(1);
    assert!(world.try_offer(id, Target::Next));
    world.automatic = false;
    world.event(Event::Remove { app: id.app });
    world.die(id, Death::Signaled(9));
    assert_eq!(world.sink.removed, [id.app]);
    world.pass(2 * DELAY_NS);
    assert_eq!(world.core.next_timer_ns(), None);
}

#[test]
fn after_a_death_the_ring_says_what_has_begun() {
    let die = |said: bool| {
        let mut spec = chain(1);
        spec.functions[0].on_failure = OnFailure::Continue;
        let mut world = World::new(spec);
        let call = world.call("walk");
        let id = world.running("walk");
        assert!(world.try_offer(id, Target::Next));
        let offered = world.executor(id).offered.clone().expect("offered");
        if said {
            assert!(world.go_on(id));
        } else {
            // Taken at most: what is taken and not said has not begun.
            assert!(world.executor(id).goes_on());
        }
        world.die(id, Death::Signaled(11));
        (world, call, offered.invocation)
    };
    let (mut world, call, _) = die(true);
    assert!(!world.is_open(call), "nothing is left to be run");
    world.assert_empty();
    let (mut world, call, offered) = die(false);
    assert!(world.is_open(call));
    let id = world.running("walk");
    assert_eq!(world.opened(id).invocation, offered, "it is started once");
    world.done(id);
    world.assert_empty();
}

#[test]
fn after_a_death_what_it_had_offered_goes_before_what_it_fired_later() {
    let mut spec = chain(2);
    spec.functions[0].on_failure = OnFailure::Continue;
    // The other executor sleeps, and is woken by the death.
    let config = CoreConfig {
        spin: SpinPolicy::Never,
        ..CONFIG
    };
    let mut world = World::with_config(spec, config);
    let call = world.call("walk");
    let id = world.running("walk");
    assert!(world.try_offer(id, Target::Next));
    let offered = world.executor(id).offered.clone().expect("offered");
    world.pass(1);
    world.next_by(id);
    world.sink.started.clear();
    world.die(id, Death::Signaled(11));
    assert_eq!(world.sink.started[0].invocation, offered.invocation);
    while world.is_open(call) {
        let next = world.running("walk");
        world.done(next);
    }
    world.assert_empty();
}

#[test]
fn one_that_was_killed_may_have_begun_it_and_it_is_not_started_again() {
    let mut spec = chain(1);
    spec.functions[0].timeout_ns = Some(10_000);
    spec.functions[0].on_failure = OnFailure::Continue;
    let mut world = World::new(spec);
    let call = world.call("walk");
    let id = world.running("walk");
    world.load("walk");
    assert!(world.try_offer(id, Target::Next));
    assert!(world.executor(id).goes_on());
    world.automatic = false;
    world.pass(10_000);
    assert!(world.sink.kills.iter().any(|(killed, _)| *killed == id));
    world.automatic = true;
    world.processes();
    assert!(!world.is_open(call));
    assert_eq!(world.stats().invocations_total, 2, "both have failed");
    world.assert_empty();
}

#[test]
fn a_cancelled_session_stops_a_chain_that_is_ahead() {
    let (mut world, call, id) = walking(1);
    assert!(world.try_offer(id, Target::Next));
    // The executor is two hops ahead of what the scheduler has heard.
    assert!(world.executor(id).goes_on());
    world.cancel(call);
    assert_eq!(world.executor(id).grant, 0, "it goes no further");
    world.say(id, FromExecutor::Continue { discarded: 0 });
    assert!(world.opened(id).cancelled);
    assert!(!world.try_offer(id, Target::Next));
    world.done(id);
    world.assert_empty();
}

#[test]
fn who_runs_for_nobody_reads_its_headers_still() {
    let mut world = World::new(chain(1));
    let ingress = ExecutorId {
        app: APP,
        slot: world.sink.apps[&APP].ingress_slot(),
    };
    let (body, block) = (world.ingress(APP, 10), world.ingress(APP, 20));
    let headers = HeadersRef {
        region: ingress.slot,
        offset_units: block.extent.offset_units,
        size_bytes: 20,
    };
    let request = world.send(Request {
        app: APP,
        id: RequestId(0),
        destination: Destination::Function(0),
        body,
        headers: Some((headers, block.extent)),
        session: None,
        has_caller: true,
        timeout_ns: None,
        durable: None,
    });
    let call = world.answer_of(request).expect("let in");
    let id = world.running("walk");
    assert!(world.try_offer(id, Target::Next));
    assert!(world.executor(id).goes_on());
    world.cancel(call);
    world.say(id, FromExecutor::Continue { discarded: 0 });
    let is_there = |world: &World| world.sink.memory[&ingress].holds(block.extent.offset_units);
    assert!(is_there(&world));
    world.done(id);
    assert!(!is_there(&world));
    world.assert_empty();
}

#[test]
fn an_offer_for_a_session_that_has_ended_runs_for_nobody() {
    for taken in [false, true] {
        let (mut world, call, id) = walking(1);
        let extent = world.allocate(id, 8);
        let executor = world.executor(id);
        let invocation = executor.granted.next(executor.grant).expect("granted");
        executor.claim.offer(invocation);
        let mut next = executor.open.clone().expect("it runs");
        next.invocation = invocation;
        next.inputs.clear();
        executor.offered = Some(next);
        if taken {
            assert!(executor.goes_on());
        }
        world.cancel(call);
        world.say(
            id,
            FromExecutor::Offer {
                target: Target::Next,
                extent,
                size_bytes: 8,
                ordinal: 0,
                invocation,
            },
        );
        if taken {
            world.say(id, FromExecutor::Continue { discarded: 0 });
            assert!(world.opened(id).cancelled);
        } else {
            assert!(!world.executor(id).goes_on());
        }
        world.done(id);
        world.assert_empty();
    }
}

#[test]
fn another_app_that_waits_ends_all_turns() {
    let mut world = World::with_config(
        chain(1),
        pheromone_core::CoreConfig {
            executor_cores: 1,
            ..CONFIG
        },
    );
    let mut second = chain(1);
    second.name = "second".into();
    world.deploy(AppId(1), second);
    world.call("walk");
    let id = world.running("walk");
    assert!(world.try_offer(id, Target::Next));
    let destination = Destination::Function(0);
    for _ in 0..3 {
        world.request_of(AppId(1), destination, true);
        world.call("other");
    }
    assert_eq!(world.executor(id).grant, 0);
    assert!(!world.go_on(id), "taken back");
    let running = |world: &World| {
        let mut executors = world.sink.executors.iter();
        executors.find_map(|(&id, executor)| executor.open.is_some().then_some(id))
    };
    while let Some(id) = running(&world) {
        world.done(id);
    }
    world.assert_empty();
}

#[test]
fn what_the_scheduler_has_to_weigh_is_not_granted() {
    let plain = chain(1);
    let direct = |spec: &AppSpec| InPlace::new(spec).allows(0);
    let fired = |spec: &AppSpec| InPlace::new(spec).buckets[0];
    let next = Successor {
        function: 0,
        trigger: 0,
    };
    assert!(direct(&plain));
    assert_eq!(fired(&plain), Some(next));
    let functions: [fn(&mut AppSpec); 7] = [
        |spec| spec.functions[1].priority = 1,
        |spec| spec.continuation = false,
        |spec| spec.functions[0].attempts = 2,
        |spec| spec.functions[0].max_concurrency = Some(1),
        |spec| spec.functions[0].serial_by = Some(SerialBy::Key),
        |spec| spec.functions[0].durable = true,
        |spec| {
            spec.buckets[0].reruns = vec![RerunSpec {
                function: 0,
                timeout_ns: 1_000,
                attempts: 2,
                speculative: false,
                optional: false,
            }];
        },
    ];
    for (number, change) in functions.iter().enumerate() {
        let mut spec = plain.clone();
        change(&mut spec);
        assert!(!direct(&spec), "function {number}");
        assert_eq!(fired(&spec), None, "function {number}");
    }
    let buckets: [fn(&mut AppSpec); 5] = [
        |spec| spec.buckets[0].durable = true,
        |spec| spec.buckets[0].retain = Retain::ForNs(1),
        |spec| spec.buckets[0].triggers.push(immediate(&[1])),
        |spec| spec.buckets[0].triggers[0].functions.push(1),
        |spec| {
            spec.buckets[0].triggers[0].kind =
                TriggerKind::ByName(NameMatch::Pattern("*".to_owned()));
        },
    ];
    for (number, change) in buckets.iter().enumerate() {
        let mut spec = plain.clone();
        change(&mut spec);
        assert_eq!(fired(&spec), None, "bucket {number}");
    }
}

#[test]
fn liars_are_killed_with_the_rule() {
    let offer = |invocation, target, extent| FromExecutor::Offer {
        target,
        extent,
        size_bytes: 8,
        ordinal: 0,
        invocation,
    };
    let killed = |act: &dyn Fn(&mut World, ExecutorId, u64, Extent)| {
        let (mut world, _, id) = walking(1);
        let extent = world.allocate(id, 8);
        let granted = world.executor(id).grant;
        assert_ne!(granted, 0);
        world.automatic = false;
        act(&mut world, id, granted, extent);
        let (_, why) = world.sink.kills.front().expect("it is killed").clone();
        why
    };
    let why = killed(&|world, id, granted, extent| {
        world.say(id, offer(granted + GRANT_HOPS, Target::Next, extent));
    });
    assert!(why.contains("which it had not been granted"), "{why}");
    let why = killed(&|world, id, _, _| {
        world.say(id, FromExecutor::Continue { discarded: 0 });
    });
    assert!(why.contains("that it had not offered"), "{why}");
    let why = killed(&|world, id, granted, extent| {
        world.executor(id).claim.offer(granted);
        world.say(id, offer(granted, Target::Next, extent));
        world.say(id, offer(granted + 1, Target::Next, extent));
    });
    assert!(why.contains("a second invocation"), "{why}");
    let why = killed(&|world, id, granted, extent| {
        world.say(id, offer(granted, Target::Function(1), extent));
    });
    assert!(why.contains("neither in its function's"), "{why}");
    // Withdrawn, and gone on with all the same.
    let why = killed(&|world, id, granted, extent| {
        world.executor(id).claim.offer(granted);
        world.say(id, offer(granted, Target::Next, extent));
        world.pass(DELAY_NS);
        world.say(id, FromExecutor::Continue { discarded: 0 });
    });
    assert!(why.contains("had been withdrawn"), "{why}");
}
