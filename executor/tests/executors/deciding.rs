//! Custom triggers, seen from both sides: what their code is told, what it says, what it is
//! refused.

use pheromone_executor::protocol::{OutputKind, Steering, TriggerCode};
use pheromone_sdk as sdk;
use pheromone_shm::events::TriggerEvent;
use pheromone_shm::message::{ALL_FUNCTIONS, Ending, Input, InputKey};
use pheromone_shm::wire::VERDICT_OBJECTS_MAX;

use crate::Test;
use crate::harness::{AppBuilder, Done, Executor, Said, World, library};

pub const TESTS: &[Test] = &[
    ("a_trigger_fires_and_drops_what_it_was_told_of", answers),
    ("a_trigger_keeps_its_state_from_call_to_call", state),
    ("a_long_firing_comes_in_pieces", pieces),
    ("a_trigger_of_sessions_fires_one_sessions_objects", sessions),
    ("a_trigger_with_keep_fires_again", keep),
    (
        "objects_of_a_session_that_is_gone_are_no_fault_until_the_next_call",
        gone,
    ),
    ("a_trigger_is_told_of_ticks_and_asks_for_them", ticks),
    (
        "a_wrong_answer_passed_on_fails_the_call_with_its_sentence",
        wrong,
    ),
    ("a_trigger_answers_from_its_own_thread_alone", threads),
    ("a_trigger_without_code_says_why", not_loaded),
];

/// An app whose trigger 2 is custom, and a process of it.
fn start(symbol: &str, change: impl FnOnce(&mut TriggerCode)) -> (World, Executor) {
    let path = library("deciding.c");
    let mut app = AppBuilder::new(&library("steering.c"), &["steer", "delay"]);
    app.program.functions[1].name = "second".into();
    app.add_trigger(1, "decider", "custom", Steering::None);
    let mut code = TriggerCode {
        library: path.to_string_lossy().into_owned(),
        library_origin: "triggers.so".into(),
        symbol: symbol.into(),
        config: Vec::new(),
        functions: vec![1],
        keep: false,
        across: false,
    };
    change(&mut code);
    app.program.triggers[2].code = Some(code);
    let mut world = app.start();
    let executor = world.executor(0);
    (world, executor)
}

fn object<'a>(number: u64, session: u64, key: &'a str) -> TriggerEvent<'a> {
    TriggerEvent::Object {
        number,
        object: Input {
            region: 0,
            bucket: 1,
            offset_units: 0,
            size_bytes: 5,
            session,
            arrival_ns: 1234,
            key: InputKey::Named(key.as_bytes()),
            group: b"g",
            attached: 0,
        },
    }
}

fn call(executor: &mut Executor, events: &[TriggerEvent<'_>]) -> Done {
    executor
        .end
        .send_events(2, events.iter().copied())
        .expect("room in the ring");
    executor.end.wake_if_asleep();
    executor.finish(&[])
}

fn fire(function: u16, session: u64, objects: &[u64]) -> Said {
    Said::Fire {
        function,
        more: false,
        session,
        objects: objects.to_vec(),
    }
}

fn drop(session: u64, objects: &[u64]) -> Said {
    Said::Drop {
        session,
        objects: objects.to_vec(),
    }
}

fn answers() {
    let (_world, mut executor) = start("obeys", |_| {});
    let events = [
        object(40, 7, "fire"),
        object(41, 7, "drop"),
        object(42, 7, "group"),
    ];
    let done = call(&mut executor, &events).ok();
    assert_eq!(done.said, [fire(1, 7, &[40]), drop(7, &[41])]);
    assert_eq!(executor.loaded, 1);
}

fn state() {
    let (_world, mut executor) = start("obeys", |_| {});
    call(&mut executor, &[object(0, 7, "a")]).ok();
    let end = TriggerEvent::SessionEnd {
        session: 7,
        time_ns: 1,
    };
    let done = call(&mut executor, &[object(1, 7, "b"), end]).ok();
    assert_eq!(done.said, [fire(ALL_FUNCTIONS, 7, &[0, 1])]);
    assert_eq!(executor.loaded, 1, "its code is loaded once");
}

fn pieces() {
    let (_world, mut executor) = start("obeys", |_| {});
    let count = VERDICT_OBJECTS_MAX as u64 + 1;
    for first in (0..count).step_by(100) {
        let events: Vec<_> = (first..count.min(first + 100))
            .map(|n| object(n, 7, "k"))
            .collect();
        call(&mut executor, &events).ok();
    }
    let end = TriggerEvent::SessionEnd {
        session: 7,
        time_ns: 1,
    };
    let done = call(&mut executor, &[end]).ok();
    let [
        Said::Fire {
            more: true,
            objects: first,
            ..
        },
        Said::Fire {
            more: false,
            objects: last,
            ..
        },
    ] = &done.said[..]
    else {
        panic!("two pieces");
    };
    assert_eq!(
        (first.len(), &last[..]),
        (VERDICT_OBJECTS_MAX, &[count - 1][..])
    );
}

fn sessions() {
    let (_world, mut executor) = start("obeys", |_| {});
    call(&mut executor, &[object(0, 7, "a"), object(0, 8, "mixed")]).ok();
    let done = call(&mut executor, &[object(1, 7, "drops all")]).ok();
    assert_eq!(done.said, [drop(7, &[0, 1]), drop(8, &[0])]);
}

fn keep() {
    let (_world, mut executor) = start("obeys", |code| code.keep = true);
    let end = TriggerEvent::SessionEnd {
        session: 7,
        time_ns: 1,
    };
    let done = call(&mut executor, &[object(0, 7, "fire"), end]).ok();
    assert_eq!(done.said, [fire(1, 7, &[0]), fire(ALL_FUNCTIONS, 7, &[0])]);
}

fn gone() {
    let (_world, mut executor) = start("obeys", |_| {});
    call(&mut executor, &[object(0, 7, "a")]).ok();
    let done = call(&mut executor, &[TriggerEvent::SessionGone { session: 7 }]).ok();
    assert_eq!(done.said, [], "it does nothing");
    let done = call(&mut executor, &[object(0, 8, "gone before")]);
    assert_eq!(done.status, sdk::ENOENT);
}

fn ticks() {
    let (_world, mut executor) = start("obeys", |_| {});
    let done = call(&mut executor, &[TriggerEvent::Tick { time_ns: 99 }]).ok();
    assert_eq!(done.said, [Said::TickAt(100)]);
}

fn wrong() {
    let (_world, mut executor) = start("obeys", |_| {});
    let done = call(&mut executor, &[object(0, 7, "unknown")]);
    assert_eq!(done.status, sdk::ENOENT);
    let sentence =
        "phr_fire: trigger `decider` of bucket `out` has no function `third`: it has `second`";
    assert_eq!(done.message, sentence);
    let (_world, mut executor) = start("leaves", |_| {});
    assert_eq!(call(&mut executor, &[object(0, 7, "k")]).status, 7);
}

fn threads() {
    let (_world, mut executor) = start("leaves", |_| {});
    let done = call(&mut executor, &[object(0, 7, "thread")]).ok();
    assert_eq!(done.said, []);
    let done = call(&mut executor, &[object(1, 7, "stray")]);
    assert_eq!((done.status, done.ending), (0, Ending::StrayThreads));
    let warned = executor.texts(OutputKind::Warn).concat();
    assert!(
        warned.contains("trigger `decider` of bucket `out` left 1 thread(s) running"),
        "{warned}"
    );
}

fn not_loaded() {
    let (_world, mut executor) = start("absent", |_| {});
    let done = call(&mut executor, &[object(0, 7, "k")]);
    assert_eq!(done.ending, Ending::NotLoaded);
    assert!(
        done.message.contains("triggers.so has no symbol `absent`"),
        "{}",
        done.message
    );
    assert!(
        done.message.contains("PHR_TRIGGER(absent)"),
        "{}",
        done.message
    );
    assert_eq!(executor.loaded, 0);
}
