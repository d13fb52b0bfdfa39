//! Processes: how they come, go, die, are replaced, and are not replaced too fast.

use pheromone_core::event::{AppId, Cause, Death, Event, ExecutorId};
use pheromone_core::spec::{AppSpec, Keep, Pool};
use pheromone_shm::message::{Ending, FromExecutor};

use crate::common::app::{app, bucket, immediate};
use crate::common::{APP, CONFIG, Call, End, MS, World};

fn pool(min: u16, max: u16) -> AppSpec {
    let mut spec = app(&["f", "g"]);
    spec.executors = Pool { min, max };
    spec.functions[0].next = vec![1];
    spec
}

fn slot(slot: u16) -> ExecutorId {
    ExecutorId { app: APP, slot }
}

#[test]
fn the_minimum_is_started_at_deployment_and_kept() {
    let mut world = World::new(pool(3, 5));
    assert_eq!(world.stats().executors_idle, 3);
    world.die(slot(1), Death::Signaled(15));
    assert_eq!(world.stats().executors_idle, 3);
    assert_eq!(world.executor(slot(1)).incarnation, 2);
}

#[test]
fn a_crash_fails_its_session_and_a_fresh_executor_takes_the_place() {
    let mut world = World::new(pool(1, 1));
    let call = world.call("f");
    let waiting = world.call("g");
    world.die(slot(0), Death::Signaled(11));
    let failure = world.ended(call).failure();
    assert_eq!(
        failure.cause,
        Cause::Died(Death::Signaled(11), String::new())
    );
    assert_eq!(
        (failure.function, failure.executor),
        (Some(0), Some(slot(0)))
    );
    assert_eq!(world.executor(slot(0)).incarnation, 2);
    world.run("g");
    assert_eq!(world.ended(waiting).outcome, End::Completed);
    assert_eq!(world.stats().deaths_total, 1);
    world.assert_empty();
}

#[test]
fn what_a_crashed_function_sent_stays() {
    let mut spec = pool(2, 2);
    spec.buckets = vec![bucket("b", Keep::UntilConsumed, vec![immediate(&[1])])];
    let mut world = World::new(spec);
    let put = world.put("b", Some("other"));
    let g = world.running("g");
    world.call("f");
    let f = world.running("f");
    world.next_by(f);
    world.die(f, Death::Signaled(6));
    world.done(g);
    assert_eq!(
        world.ended(put).outcome,
        End::Completed,
        "other sessions do not notice"
    );
    world.assert_empty();
}

#[test]
fn the_death_of_another_process_of_the_slot_is_old_news() {
    let mut world = World::new(pool(1, 1));
    let call = world.call("f");
    for incarnation in [0, 2, 7] {
        world.event(Event::ExecutorDied {
            executor: slot(0),
            incarnation,
            death: Death::Unknown,
            detail: "",
        });
    }
    assert!(world.is_open(call));
    world.run("f");
    world.assert_empty();
}

#[test]
fn nothing_is_dispatched_to_a_process_known_to_be_dying() {
    let mut world = World::new(pool(1, 1));
    world.automatic = false;
    let first = world.call("f");
    let second = world.call("g");
    world.event(Event::ExecutorDying {
        executor: slot(0),
        incarnation: 1,
    });
    // Its last word is found in its ring: the function had returned.
    world.run("f");
    assert_eq!(world.ended(first).outcome, End::Completed);
    assert!(world.executor(slot(0)).open.is_none());
    world.die(slot(0), Death::Signaled(9));
    assert!(world.is_open(second), "it had never started");
    world.automatic = true;
    world.processes();
    world.run("g");
    assert_eq!(world.ended(second).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn an_idle_process_known_to_be_dying_gets_no_work() {
    let mut world = World::new(pool(1, 1));
    world.automatic = false;
    world.event(Event::ExecutorDying {
        executor: slot(0),
        incarnation: 1,
    });
    let call = world.call("f");
    assert!(world.executor(slot(0)).open.is_none());
    world.die(slot(0), Death::Exited(0));
    world.automatic = true;
    world.processes();
    world.run("f");
    assert_eq!(world.ended(call).outcome, End::Completed);
}

#[test]
fn processes_that_die_before_they_are_ready_are_started_ever_more_slowly() {
    let mut world = World::empty(CONFIG);
    world.automatic = false;
    world.deploy(APP, pool(1, 1));
    let mut pauses = Vec::new();
    for _ in 0..10 {
        let id = world.sink.spawns.pop_front().expect("it is asked for");
        world.started(id);
        world.die(id, Death::Exited(127));
        assert!(world.sink.spawns.is_empty());
        let before_ns = world.now_ns;
        while world.sink.spawns.is_empty() {
            world.pass(MS);
        }
        pauses.push((world.now_ns - before_ns) / MS);
    }
    assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000]);
    world.automatic = true;
    world.processes();
    assert_eq!(world.stats().executors_idle, 1);
    world.die(slot(0), Death::Signaled(9));
    assert_eq!(
        world.stats().executors_idle,
        1,
        "one that was ready is replaced at once"
    );
}

#[test]
fn when_no_process_can_be_started_those_who_wait_are_told_why() {
    let mut world = World::empty(CONFIG);
    world.automatic = false;
    world.deploy(APP, pool(1, 2));
    let call = world.call("f");
    let mut failures = 0;
    while world.is_open(call) {
        while world.sink.spawns.is_empty() {
            world.pass(MS);
        }
        let id = world.sink.spawns.pop_front().unwrap();
        world.sink.do_not_start(id);
        world.event(Event::SpawnFailed {
            executor: id,
            reason: "fork: out of memory",
        });
        failures += 1;
    }
    assert_eq!(failures, 8);
    let Cause::NoExecutor(why) = &world.ended(call).failure().cause else {
        panic!("there is no executor");
    };
    assert!(
        why.contains("8 times in a row: fork: out of memory"),
        "{why}"
    );
    // The next one is told after the next try.
    let call = world.call("f");
    world.pass(2000 * MS);
    let id = world.sink.spawns.pop_front().unwrap();
    world.started(id);
    world.die(id, Death::Signaled(4));
    let Cause::NoExecutor(why) = &world.ended(call).failure().cause else {
        panic!("there is no executor");
    };
    assert!(
        why.contains("was ended by signal 4 before it was ready"),
        "{why}"
    );
    // And when it works again, it works.
    world.automatic = true;
    let call = world.call("f");
    world.pass(2000 * MS);
    world.run("f");
    assert_eq!(world.ended(call).outcome, End::Completed);
    world.assert_empty();
}

/// Has `f` called until so many callers have been told that it failed, its process dying each time,
/// after `Loaded` where it loads. Returns how long that took, and how many processes.
fn crashes(world: &mut World, calls: u32, loads: bool) -> (u64, u64) {
    let (start_ns, spawned) = (world.now_ns, world.sink.spawned_total);
    for _ in 0..calls {
        let call = world.call("f");
        while world.all_running("f").is_empty() {
            world.pass(MS);
        }
        let id = world.running("f");
        if loads {
            world.say(id, FromExecutor::Loaded);
        }
        world.die(id, Death::Signaled(11));
        assert!(matches!(world.ended(call).failure().cause, Cause::Died(..)));
    }
    let processes = world.sink.spawned_total - spawned;
    ((world.now_ns - start_ns) / MS, processes)
}

#[test]
fn a_function_that_always_crashes_is_no_fork_storm_and_does_not_stall_either() {
    let mut world = World::new(pool(2, 2));
    let (elapsed_ms, processes) = crashes(&mut world, 1000, true);
    assert!(
        processes <= 3 + elapsed_ms,
        "{processes} in {elapsed_ms} ms"
    );
    assert!(elapsed_ms <= 2 * 1000, "{elapsed_ms} ms for 1000 crashes");
    let trouble = world.sink.trouble.clone().expect("it is told");
    assert_eq!(trouble.failures, 1000);
    assert!(
        trouble
            .why
            .contains("the process of function `f` was ended by signal 11"),
        "{}",
        trouble.why
    );
    world.pass(10 * MS);
    world.call("g");
    world.run("g");
    assert_eq!(world.sink.trouble, None, "one has completed something");
    world.assert_empty();
}

#[test]
fn processes_that_crash_while_they_load_are_started_ever_more_slowly() {
    let mut world = World::new(pool(1, 1));
    let (elapsed_ms, processes) = crashes(&mut world, 20, false);
    assert_eq!(processes, 19);
    // The first is there; two come at once; 10, 20, 40, 80, 160, 320, 640, and 1000 ten times.
    assert_eq!(elapsed_ms, 1270 + 10 * 1000);
    let trouble = world.sink.trouble.clone().expect("it is told");
    assert_eq!((trouble.failures, trouble.pause_ns), (20, 1000 * MS));
    assert!(
        trouble.why.contains(
            "20 executors in a row could not load a function, the next is started after 1s: \
             function `f` could not be loaded: its process was ended by signal 11"
        ),
        "{}",
        trouble.why
    );
    world.pass(1000 * MS);
    world.call("g");
    world.run("g");
    assert_eq!(world.sink.trouble, None);
    assert_eq!(crashes(&mut world, 2, false), (0, 2), "it is forgotten");
    world.assert_empty();
}

#[test]
fn who_waits_for_a_function_that_cannot_be_loaded_is_told_and_others_are_not() {
    let mut spec = pool(1, 1);
    spec.functions[0].priority = 1;
    let mut world = World::new(spec);
    let calls: Vec<_> = (0..20).map(|_| world.call("f")).collect();
    let other = world.call("g");
    for _ in 0..8 {
        while world.all_running("f").is_empty() {
            world.pass(MS);
        }
        world.complete(slot(0), -5, Ending::InitFailed, "no configuration");
    }
    for (at, call) in calls.iter().enumerate() {
        match &world.ended(*call).failure().cause {
            Cause::InitFailed(why) => assert!(at < 8 && why == "no configuration"),
            Cause::NoExecutor(why) => {
                assert!(at >= 8);
                assert_eq!(
                    why,
                    "8 times in a row function `f` could not be loaded: no configuration"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    world.pass(1000 * MS);
    world.run("g");
    assert_eq!(world.ended(other).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn executors_beyond_the_minimum_leave_when_they_have_been_idle_for_long() {
    let mut world = World::new(pool(1, 4));
    for _ in 0..4 {
        world.call("f");
        world.pass(MS);
    }
    assert_eq!(world.stats().running, 4);
    for at in 0..4 {
        world.done(slot(at));
        world.pass(1000 * MS);
    }
    assert_eq!(world.stats().executors_idle, 4);
    world.pass(5900 * MS);
    assert_eq!(world.stats().executors, 4, "the first is idle for 9.9 s");
    world.pass(100 * MS);
    assert_eq!(world.stats().executors, 3, "the longest idle goes first");
    assert!(!world.sink.executors.contains_key(&slot(0)));
    world.pass(2000 * MS);
    assert_eq!(world.stats().executors, 1);
    world.pass(100_000 * MS);
    assert_eq!(world.stats().executors_idle, 1, "the minimum stays");
    assert_eq!(world.stats().deaths_total, 0, "they went as told");
    assert_eq!(world.core.totals().timers, 0);
    // Work brings them back, and keeps them.
    for _ in 0..3 {
        world.call("f");
        world.pass(MS);
    }
    world.pass(20_000 * MS);
    assert_eq!(world.stats().running, 3);
    assert_eq!(world.stats().executors, 3);
}

#[test]
fn a_region_is_swept_while_nobody_has_its_slot_and_nobody_gets_it_meanwhile() {
    let mut world = World::new(pool(1, 2));
    let answered = world.call("f");
    world.call("f");
    world.pass(MS);
    assert_eq!(world.stats().running, 2);
    world.event(Event::Sweep { executor: slot(0) });
    assert!(world.sink.sweeps.is_empty(), "somebody has the slot");
    // The response is live until it has been read; its process leaves in time.
    world.respond_by(slot(0));
    world.done(slot(0));
    world.pass(20_000 * MS);
    assert!(!world.sink.executors.contains_key(&slot(0)));
    for _ in 0..2 {
        world.event(Event::Sweep { executor: slot(0) });
        let [(id, live)] = &world.sink.sweeps[..] else {
            panic!("{:?}", world.sink.sweeps);
        };
        assert_eq!((*id, live.len()), (slot(0), 1));
    }
    let waiting = world.call("f");
    world.pass(1000 * MS);
    assert!(!world.sink.executors.contains_key(&slot(0)), "not now");
    world.event(Event::Swept { executor: slot(0) });
    world.pass(MS);
    assert_eq!(world.stats().running, 2, "work that has waited goes on");
    world.take_response(answered);
    world.run("f");
    world.run("f");
    assert!(!world.is_open(waiting));
    for executor in [
        slot(0),
        slot(77),
        ExecutorId {
            app: AppId(9),
            slot: 0,
        },
    ] {
        world.event(Event::Swept { executor });
    }
    world.event(Event::Sweep { executor: slot(77) });
    assert_eq!(world.sink.sweeps.len(), 1);
    world.assert_empty();
}

/// `f` runs in slot 0 and waits for `g`, whose process has failed to start.
fn work_behind_a_failed_start() -> (World, Call) {
    let mut world = World::new(pool(1, 2));
    world.automatic = false;
    world.call("f");
    let waited_for = world.call("g");
    world.pass(MS);
    assert_eq!(world.sink.spawns.pop_front(), Some(slot(1)));
    (world, waited_for)
}

/// The pause is over, a second process comes, and does what was queued.
fn comes_after_the_pause(world: &mut World, waited_for: Call) {
    assert!(
        world.sink.spawns.is_empty(),
        "failed starts are paused after"
    );
    world.automatic = true;
    world.pass(20 * MS);
    world.run("g");
    assert_eq!(world.ended(waited_for).outcome, End::Completed);
    world.run("f");
    world.assert_empty();
}

#[test]
fn work_that_nobody_could_be_started_for_is_not_forgotten_when_the_pause_is_over() {
    let (mut world, waited_for) = work_behind_a_failed_start();
    world.sink.do_not_start(slot(1));
    world.event(Event::SpawnFailed {
        executor: slot(1),
        reason: "fork: out of memory",
    });
    comes_after_the_pause(&mut world, waited_for);
}

#[test]
fn work_whose_process_died_before_it_was_ready_is_not_forgotten_either() {
    let (mut world, waited_for) = work_behind_a_failed_start();
    world.started(slot(1));
    world.die(slot(1), Death::Exited(127));
    comes_after_the_pause(&mut world, waited_for);
}

#[test]
fn work_that_comes_within_the_pause_gets_its_process_when_that_is_over() {
    let (mut world, first) = work_behind_a_failed_start();
    world.started(slot(1));
    world.die(slot(1), Death::Exited(127));
    world.cancel(first);
    world.pass(MS);
    let second = world.call("g");
    world.pass(MS);
    comes_after_the_pause(&mut world, second);
}

#[test]
fn a_process_told_to_leave_while_it_adopts_may_finish_asking_what_it_adopts() {
    let mut world = World::new(pool(1, 1));
    let call = world.call("f");
    world.respond_by(slot(0));
    // The response is live until it has been read.
    world.automatic = false;
    world.die(slot(0), Death::Signaled(11));
    world.sink.spawns.clear();
    world.started(slot(0));
    world.say(slot(0), FromExecutor::Ready);
    assert_eq!(world.executor(slot(0)).adopting, Some(1));
    world.event(Event::Remove { app: APP });
    assert!(world.executor(slot(0)).told_to_exit);
    // It asked before it saw that it shall leave, and waits for the answer.
    world.say(slot(0), FromExecutor::FetchExtents { first: 0 });
    assert_eq!(world.executor(slot(0)).adopted.len(), 1);
    assert!(world.sink.kills.is_empty(), "it has done no wrong");
    world.take_response(call);
    world.die(slot(0), Death::Exited(0));
    assert_eq!(world.sink.removed, [APP]);
    world.assert_empty();
}

#[test]
fn a_process_that_leaves_gets_no_list_that_it_does_not_adopt() {
    let mut world = World::new(pool(1, 1));
    world.automatic = false;
    world.event(Event::Remove { app: APP });
    world.say(slot(0), FromExecutor::FetchExtents { first: 0 });
    assert_eq!(world.sink.kills.len(), 1);
}

#[test]
fn a_process_that_is_never_ready_is_killed_and_replaced() {
    let mut world = World::empty(CONFIG);
    world.automatic = false;
    world.deploy(APP, pool(1, 1));
    let id = world.sink.spawns.pop_front().unwrap();
    world.started(id);
    world.pass(30_000 * MS - 1);
    assert!(world.sink.kills.is_empty());
    world.pass(1);
    assert_eq!(world.sink.kills.len(), 1);
    world.automatic = true;
    world.processes();
    world.pass(20 * MS);
    assert_eq!(world.stats().executors_idle, 1);
}

#[test]
fn a_function_that_could_not_be_loaded_has_its_process_replaced() {
    for ending in [Ending::NotLoaded, Ending::InitFailed] {
        let mut world = World::new(pool(1, 1));
        world.call("f");
        world.complete(slot(0), 0, ending, "why");
        assert_eq!(world.executor(slot(0)).incarnation, 2);
        assert_eq!(world.stats().executors_idle, 1);
        world.assert_empty();
    }
}

#[test]
fn a_process_with_stray_threads_is_retired_after_its_success() {
    let mut world = World::new(pool(1, 1));
    let call = world.call("f");
    let next = world.call("f");
    world.complete(slot(0), 0, Ending::StrayThreads, "");
    assert_eq!(world.ended(call).outcome, End::Completed);
    assert_eq!(world.executor(slot(0)).incarnation, 2);
    world.run("f");
    assert_eq!(world.ended(next).outcome, End::Completed);
    world.assert_empty();
}

#[test]
fn a_process_that_does_not_leave_is_killed() {
    let mut world = World::new(pool(1, 1));
    world.call("f");
    world.automatic = false;
    world.complete(slot(0), 0, Ending::StrayThreads, "");
    world.pass(100 * MS);
    assert_eq!(world.sink.kills.len(), 1);
}

#[test]
fn a_function_that_does_not_load_in_time_is_killed_and_fails() {
    let mut spec = pool(1, 1);
    spec.functions[0].init_timeout_ns = 100 * MS;
    let mut world = World::new(spec);
    let call = world.call("f");
    world.pass(100 * MS - 1);
    assert!(world.is_open(call));
    world.pass(1);
    let Cause::TimedOut(why) = &world.ended(call).failure().cause else {
        panic!("it timed out");
    };
    assert_eq!(
        why,
        "function `f` was not loaded and initialized within its init_timeout of 100ms and was \
         killed"
    );
    // Without a timeout of its own a loaded function may take as long as it likes.
    let call = world.call("f");
    world.say(slot(0), FromExecutor::Loaded);
    world.pass(10_000 * MS);
    assert!(world.is_open(call));
    world.run("f");
    world.assert_empty();
}

#[test]
fn what_is_cancelled_while_it_loads_has_its_grace_and_no_more() {
    let mut spec = pool(1, 1);
    spec.functions[0].timeout_ns = Some(1_000 * MS);
    let mut world = World::new(spec);
    let call = world.call("f");
    world.automatic = false;
    world.cancel(call);
    world.say(slot(0), FromExecutor::Loaded);
    world.pass(100 * MS);
    assert_eq!(world.sink.kills.len(), 1);
}

#[test]
fn a_function_past_its_timeout_is_killed_and_fails() {
    let mut spec = pool(1, 1);
    spec.functions[0].timeout_ns = Some(5 * MS);
    spec.functions[0].init_timeout_ns = 100 * MS;
    let mut world = World::new(spec);
    let call = world.call("f");
    assert_eq!(world.opened(slot(0)).timeout_ns, 5 * MS);
    world.pass(99 * MS);
    assert!(world.is_open(call), "loading has a limit of its own");
    world.say(slot(0), FromExecutor::Loaded);
    world.pass(5 * MS - 1);
    assert!(
        world.is_open(call),
        "the attempt's time begins with its call"
    );
    world.pass(1);
    let Cause::TimedOut(why) = &world.ended(call).failure().cause else {
        panic!("it timed out");
    };
    assert_eq!(
        why,
        "function `f` ran past its timeout of 5ms and was killed"
    );
    assert_eq!(world.stats().executors_idle, 1);
    // In time is in time.
    world.call("f");
    world.pass(MS);
    world.run("f");
    world.pass(1000 * MS);
    assert_eq!(world.stats().deaths_total, 1);
    world.assert_empty();
}

#[test]
fn an_app_that_is_removed_leaves_nothing() {
    let mut world = World::new(pool(2, 4));
    let answered = world.call("f");
    let running = world.running("f");
    world.respond_by(running);
    let queued: Vec<_> = (0..5).map(|_| world.call("g")).collect();
    world.event(Event::Remove { app: APP });
    assert_eq!(world.ended(answered).outcome, End::Cancelled);
    assert!(world.ended(answered).answered);
    for call in queued {
        assert_eq!(world.ended(call).outcome, End::Cancelled);
    }
    assert!(world.sink.removed.is_empty(), "two still run");
    for id in [slot(0), slot(1)] {
        world.done(id);
    }
    assert!(world.sink.removed.is_empty(), "a response is being read");
    world.take_response(answered);
    assert_eq!(world.sink.removed, [APP]);
    assert_eq!(world.core.stats(APP), None);
    world.event(Event::Remove { app: APP });
    assert_eq!(world.sink.removed, [APP]);
    world.assert_empty();
    assert_eq!(world.core.totals().timers, 0);
}

#[test]
fn requests_to_an_app_that_goes_or_is_gone_are_refused() {
    use pheromone_core::event::Refusal;
    let mut world = World::new(pool(1, 1));
    let call = world.call("f");
    world.event(Event::Remove { app: APP });
    assert_eq!(world.try_call("f").unwrap_err(), Refusal::NoApp);
    assert!(!world.is_open(call));
    world.run("f");
    assert_eq!(world.sink.removed, [APP]);
    assert_eq!(world.try_call("f").unwrap_err(), Refusal::NoApp);
}

#[test]
fn a_removed_app_whose_function_does_not_stop_has_it_killed() {
    let mut world = World::new(pool(1, 1));
    world.call("f");
    world.event(Event::Remove { app: APP });
    world.pass(100 * MS);
    assert_eq!(world.sink.removed, [APP]);
    world.assert_empty();
}

#[test]
fn processes_on_their_way_when_the_app_goes_are_told_to_leave() {
    let mut world = World::empty(CONFIG);
    world.automatic = false;
    world.deploy(APP, pool(3, 3));
    let first = world.sink.spawns.pop_front().unwrap();
    world.started(first);
    world.event(Event::Remove { app: APP });
    assert_eq!(world.sink.exits.len(), 1);
    // Its `Ready` was under way.
    world.say(first, FromExecutor::Ready);
    let second = world.sink.spawns.pop_front().unwrap();
    world.started(second);
    assert_eq!(world.sink.exits.len(), 2);
    let third = world.sink.spawns.pop_front().unwrap();
    world.sink.do_not_start(third);
    world.event(Event::SpawnFailed {
        executor: third,
        reason: "",
    });
    world.automatic = true;
    world.processes();
    assert_eq!(world.sink.removed, [APP]);
}

#[test]
fn apps_do_not_share_executors() {
    let other = AppId(7);
    let mut world = World::new(pool(1, 1));
    world.deploy(other, pool(1, 1));
    world.call("f");
    world.call("f");
    assert_eq!(world.core.stats(other).unwrap().executors_idle, 1);
    world.event(Event::Remove { app: other });
    assert_eq!(world.sink.removed, [other]);
    world.run("f");
    world.run("f");
    world.assert_empty();
}

#[test]
fn events_about_what_is_not_there_change_nothing() {
    let mut world = World::new(pool(1, 1));
    let nowhere = [
        ExecutorId {
            app: AppId(9),
            slot: 0,
        },
        slot(999),
        slot(0),
    ];
    for executor in nowhere {
        world.event(Event::ReleaseRoom { executor });
        world.event(Event::SpawnFailed {
            executor,
            reason: "",
        });
        world.event(Event::ExecutorDying {
            executor,
            incarnation: 9,
        });
        world.event(Event::ExecutorDied {
            executor,
            incarnation: 9,
            death: Death::Unknown,
            detail: "",
        });
    }
    for executor in &nowhere[..2] {
        world.event(Event::Garbled {
            executor: *executor,
            reason: "",
        });
        world.event(Event::Message {
            executor: *executor,
            message: FromExecutor::Ready,
        });
    }
    world.event(Event::Remove { app: AppId(9) });
    assert_eq!(world.stats().executors_idle, 1);
    world.call("f");
    world.run("f");
    world.assert_empty();
}
