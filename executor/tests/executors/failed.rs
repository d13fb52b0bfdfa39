//! What is attached to an object that tells of a failure, seen from both sides.

use pheromone_shm::message::{Input, Target, ToExecutor};

use crate::Test;
use crate::harness::{AppBuilder, Done, Executor, OwnedInput, OwnedKey, Said, World, library};

pub const TESTS: &[Test] = &[
    ("attached_objects_are_fetched_once_and_then_held", attached),
    (
        "attached_objects_come_in_pieces_as_far_as_there_is_room",
        room,
    ),
    ("attached_objects_may_have_attached_objects", nested),
    ("nothing_is_attached_to_what_is_no_input_any_more", late),
];

const FUNCTIONS: [&str; 4] = ["handle", "hold", "nested", "late"];

fn start() -> (World, Executor) {
    let mut world = AppBuilder::new(&library("failed.c"), &FUNCTIONS).start();
    let executor = world.executor(0);
    (world, executor)
}

/// An object with so many attached to it.
fn object(world: &mut World, key: &str, attached: u32) -> OwnedInput {
    OwnedInput {
        key: OwnedKey::Named(key.into()),
        attached,
        ..world.request(b"payload")
    }
}

/// Waits until the executor asks for what is attached, and gives it these.
fn give(executor: &mut Executor, object: u32, first: u32, given: &[&OwnedInput]) {
    assert_eq!(executor.next(), Said::FetchAttached { object, first });
    let given: Vec<Input<'_>> = given.iter().map(|object| object.borrow()).collect();
    executor
        .end
        .send_inputs(first, given.into_iter())
        .expect("room in the ring");
    executor.end.wake_if_asleep();
}

fn send(executor: &mut Executor, function: u16, inputs: &[OwnedInput]) {
    let mut dispatch = executor.dispatch_of(function, inputs.len());
    dispatch.has_caller = true;
    executor.send(&dispatch, inputs);
}

fn end(executor: &mut Executor) -> Done {
    executor.finish(&[]).ok()
}

fn attached() {
    let (mut world, mut executor) = start();
    let inputs = [object(&mut world, "~5", 3), object(&mut world, "plain", 0)];
    let attached: Vec<_> = (0..3)
        .map(|number| object(&mut world, &format!("key-{number}"), 0))
        .collect();
    send(&mut executor, 0, &inputs);
    give(&mut executor, 0, 0, &[&attached[0], &attached[1]]);
    give(&mut executor, 0, 2, &[&attached[2]]);
    assert!(matches!(executor.next(), Said::Get { .. }));
    executor.answer(&ToExecutor::Object {
        status: 0,
        input: Some(inputs[1].borrow()),
    });
    let done = end(&mut executor);
    let forward = |object, key: &str| Said::Forward {
        target: Target::Bucket(1),
        object,
        key: OwnedKey::Named(key.into()),
        ordinal: 0,
        group: Vec::new(),
        delay_ns: 0,
    };
    // The inputs are 0 and 1, what was attached 2 to 4, what was found after it 5.
    let parts = Said::RespondParts {
        more: false,
        objects: vec![4, 2],
    };
    assert_eq!(
        done.said,
        [forward(2, "again"), forward(0, "failure"), parts]
    );
}

fn room() {
    let (mut world, mut executor) = start();
    let failure = object(&mut world, "~5", 3);
    let first = object(&mut world, "key-0", 0);
    send(&mut executor, 1, &[failure]);
    give(&mut executor, 0, 0, &[&first]);
    give(&mut executor, 0, 1, &[]);
    assert_eq!(end(&mut executor).said, []);
}

fn nested() {
    let (mut world, mut executor) = start();
    let outer = object(&mut world, "~6", 1);
    let inner = object(&mut world, "~5", 1);
    let input = object(&mut world, "key-0", 0);
    send(&mut executor, 2, &[outer]);
    give(&mut executor, 0, 0, &[&inner]);
    give(&mut executor, 1, 0, &[&input]);
    assert_eq!(end(&mut executor).said, []);
}

fn late() {
    let (mut world, mut executor) = start();
    let inputs = [object(&mut world, "a", 0), object(&mut world, "~5", 1)];
    for inputs in [&inputs[..], &inputs[..1]] {
        send(&mut executor, 3, inputs);
        assert_eq!(end(&mut executor).said, []);
    }
}
