//! Triggers steered at run time, delayed objects, waits and windows, seen from both sides.

use std::time::Duration;

use pheromone_executor::protocol::Steering;
use pheromone_sdk as sdk;
use pheromone_shm::message::{Target, ToExecutor};

use crate::Test;
use crate::harness::{AppBuilder, Executor, OwnedInput, OwnedKey, Said, World, library};

pub const TESTS: &[Test] = &[
    ("steering_calls_say_what_they_were_told", steering),
    ("a_list_of_keys_comes_in_pieces_of_whole_keys", join_many),
    ("wrong_steering_is_refused_with_a_sentence", wrong),
    ("a_cancelled_function_steers_nothing", cancelled),
    ("delays_are_passed_on", delays),
    ("a_function_waits_for_an_object_until_it_is_answered", waits),
    ("a_waiting_function_is_told_what_became_of_it", answers),
    ("a_function_knows_its_window", windows),
];

const FUNCTIONS: [&str; 9] = [
    "steer",
    "join_many",
    "steer_wrongly",
    "steer_late",
    "delay",
    "wait_and_find",
    "wait_and_find_nothing",
    "no_window",
    "window",
];

/// Numbers of the app's triggers.
struct Triggers {
    join: u16,
    other_join: u16,
    round: u16,
    sources: u16,
    fixed_sources: u16,
}

fn app() -> (AppBuilder, Triggers) {
    let mut app = AppBuilder::new(&library("steering.c"), &FUNCTIONS);
    app.program.functions[usize::from(index("delay"))].next = vec![0];
    let other_join = app.add_trigger(0, "join", "dynamic_join", Steering::Join);
    let mut add = |name, kind, steering| app.add_trigger(1, name, kind, steering);
    add("fixed round", "redundant", Steering::Round { fixed: true });
    add("after", "dynamic_group", Steering::None);
    let open_group = Steering::Sources { fixed: false };
    let fixed_group = Steering::Sources { fixed: true };
    let triggers = Triggers {
        join: add("join", "dynamic_join", Steering::Join),
        other_join,
        round: add("round", "redundant", Steering::Round { fixed: false }),
        sources: add("sources", "dynamic_group", open_group),
        fixed_sources: add("fixed sources", "dynamic_group", fixed_group),
    };
    (app, triggers)
}

fn index(name: &str) -> u16 {
    let at = FUNCTIONS.iter().position(|function| *function == name);
    at.expect("it is listed") as u16
}

fn start() -> (World, Executor, OwnedInput, Triggers) {
    let (app, triggers) = app();
    let mut world = app.start();
    let executor = world.executor(0);
    let input = world.request(b"7");
    (world, executor, input, triggers)
}

fn keys(keys: &[&str]) -> Vec<Vec<u8>> {
    keys.iter().map(|key| key.as_bytes().to_vec()).collect()
}

fn steering() {
    let (_world, mut executor, input, triggers) = start();
    let done = executor.run(index("steer"), &[input]).ok();
    let join = |trigger, list: &[&str]| Said::Join {
        trigger,
        more: false,
        keys: keys(list),
    };
    let round = |k, n| Said::Redundant {
        trigger: triggers.round,
        k,
        n,
    };
    let expect = |sources| Said::ExpectSources {
        trigger: triggers.sources,
        sources,
    };
    let close = |trigger| Said::CloseSource { trigger };
    assert_eq!(
        done.said,
        [
            join(triggers.join, &["b", "a", "~5.6"]),
            join(triggers.join, &[]),
            join(triggers.other_join, &[]),
            round(1, 1),
            round(2, u32::MAX),
            expect(0),
            expect(7),
            close(triggers.sources),
            close(triggers.fixed_sources),
        ]
    );
}

fn join_many() {
    let (_world, mut executor, input, triggers) = start();
    let done = executor.run(index("join_many"), &[input]).ok();
    let (mut all, mut mores) = (Vec::new(), Vec::new());
    for said in done.said {
        let Said::Join {
            trigger,
            more,
            keys,
        } = said
        else {
            panic!("{said:?}")
        };
        assert_eq!(trigger, triggers.join);
        all.extend(keys);
        mores.push(more);
    }
    // 255 keys of 255 bytes with their lengths are 65 280 bytes: one more does not fit.
    assert_eq!(mores, [true, true, true, false]);
    let expected = (0..1000).map(|number| format!("{number:0255}").into_bytes());
    assert!(all.into_iter().eq(expected));
}

fn wrong() {
    let (_world, mut executor, input, _) = start();
    let done = executor.run(index("steer_wrongly"), &[input]).ok();
    assert_eq!(done.said, []);
}

fn cancelled() {
    let (_world, mut executor, input, _) = start();
    let dispatch = executor.dispatch_of(index("steer_late"), 1);
    executor.send(&dispatch, std::slice::from_ref(&input));
    assert!(matches!(executor.next(), Said::Publish(_)));
    executor.end.cancel(dispatch.invocation);
    let done = executor.finish(&[input]).ok();
    assert_eq!(done.said, []);
}

fn delays() {
    let (_world, mut executor, input, _) = start();
    let done = executor.run(index("delay"), &[input]).ok();
    let found: Vec<_> = done
        .said
        .into_iter()
        .map(|said| match said {
            Said::Publish(object) => (object.target, object.key, object.group, object.delay_ns),
            Said::Forward {
                target,
                key,
                group,
                delay_ns,
                ..
            } => (target, key, group, delay_ns),
            other => panic!("{other:?}"),
        })
        .collect();
    let named = |key: &str| OwnedKey::Named(key.into());
    let (out, none) = (Target::Bucket(1), Vec::new);
    assert_eq!(
        found,
        [
            (Target::Next, named("label"), b"g".to_vec(), 1000),
            (out, OwnedKey::Auto(0, 0), none(), u64::MAX),
            (out, named("again"), none(), 5),
        ]
    );
}

/// The function asks for the object `k`, waiting this long.
fn asks(executor: &mut Executor, timeout_ns: u64) {
    let expected = Said::Get {
        bucket: 1,
        timeout_ns,
        key: b"k".to_vec(),
    };
    assert_eq!(executor.next(), expected);
}

fn waits() {
    let (mut world, mut executor, input, _) = start();
    let there = world.request(b"found it");
    let dispatch = executor.dispatch_of(index("wait_and_find"), 1);
    executor.send(&dispatch, std::slice::from_ref(&input));
    asks(&mut executor, u64::MAX);
    // Long enough for it to fall asleep.
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(executor.poll(), None);
    executor.answer(&ToExecutor::Object {
        status: sdk::OK,
        input: Some(there.borrow()),
    });
    executor.finish(&[input]).ok();
}

fn answers() {
    let (_world, mut executor, input, _) = start();
    let dispatch = executor.dispatch_of(index("wait_and_find_nothing"), 1);
    executor.send(&dispatch, std::slice::from_ref(&input));
    let answers = [
        sdk::ENOENT,
        sdk::ETIMEDOUT,
        sdk::EAGAIN,
        sdk::ENOMEM,
        sdk::ECANCELED,
    ];
    for (timeout_ns, status) in (1..).zip(answers) {
        asks(&mut executor, timeout_ns);
        executor.answer(&ToExecutor::Object {
            status,
            input: None,
        });
    }
    executor.finish(&[input]).ok();
}

fn windows() {
    let (_world, mut executor, input, _) = start();
    let mut dispatch = executor.dispatch_of(index("window"), 1);
    dispatch.window = Some((1000, u64::MAX));
    executor
        .run_dispatch(&dispatch, std::slice::from_ref(&input))
        .ok();
    // The next invocation has none, whatever the one before had.
    executor.run(index("no_window"), &[input]).ok();
    // A window in which nothing has come.
    dispatch.input_count = 0;
    executor.run_dispatch(&dispatch, &[]).ok();
}
