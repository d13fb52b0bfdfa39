//! A process killed after every single machine instruction of a push or a pop: the survivor sees
//! the whole message or nothing, and the memory can be used again by a new generation. One killed
//! after every single instruction of going on by itself: what it has said and who has the
//! invocation agree.

mod common;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use common::stepped::Stepped;
use common::{Control, extent};
use nix::sys::signal::{Signal, raise};
use nix::sys::uio::{pread, pwrite};
use pheromone_shm::control::ExecutorEnd;
use pheromone_shm::file::create_sealed;
use pheromone_shm::limits::up;
use pheromone_shm::mapping::{MappedSlots, Mapping};
use pheromone_shm::message::{Ending, FromExecutor, Target};
use pheromone_shm::ring::{Consumer, Producer, SLOT_BYTES, SlotData};
use pheromone_shm::sync::Ordering;
use pheromone_shm::wire::{MESSAGE_SLOTS_MAX, MessageBuffer};

const SLOTS: usize = 16;
const RING: usize = 4096;
const BYTES: usize = RING + SLOTS * SLOT_BYTES;
const MESSAGE: [SlotData; 3] = [[0x11; 7], [0x22; 7], [0x33; 7]];
/// More instructions than any call swept here has: a watchdog.
const INSTRUCTIONS_MAX: u32 = 20_000;

fn map(file: &OwnedFd) -> Arc<Mapping> {
    Mapping::writable_of(file.as_fd(), BYTES).expect("a mapping")
}

fn producer(mapping: &Arc<Mapping>, generation: u32) -> Producer<MappedSlots> {
    Producer::new(mapping.slots(RING, SLOTS), generation)
}

fn consumer(mapping: &Arc<Mapping>, generation: u32) -> Consumer<MappedSlots> {
    Consumer::new(mapping.slots(RING, SLOTS), generation)
}

/// Takes a message and checks that it is the one. False when there is none.
fn pops(consumer: &mut Consumer<MappedSlots>) -> bool {
    let mut out = [[0; 7]; MESSAGE_SLOTS_MAX];
    match consumer
        .pop(&mut out)
        .expect("half a message is no message")
    {
        0 => false,
        3 => {
            assert_eq!(out[0][0], MESSAGE[0][0] & !0xff00 | 3 << 8);
            assert_eq!(out[0][1..], MESSAGE[0][1..]);
            assert_eq!(out[1..3], MESSAGE[1..]);
            true
        }
        other => panic!("{other} slots of a message of 3"),
    }
}

/// Lets a child run to the call that is to be swept, then `steps` instructions more, then kills it.
/// True when it had come to the end of the call.
fn killed_after(steps: u32, prepare_and_call: impl FnOnce()) -> bool {
    let mut child = Stepped::start(prepare_and_call);
    let is_over = (0..steps).any(|_| !child.step());
    child.kill();
    is_over
}

/// Calls `kill_after` with 0, 1, 2, ... instructions until the call is over; how many there were.
fn sweep(mut kill_after: impl FnMut(u32) -> bool) -> u32 {
    let last = (0..INSTRUCTIONS_MAX).find(|steps| kill_after(*steps));
    last.expect("the call ends before the watchdog")
}

#[test]
fn a_producer_killed_anywhere_in_a_push_leaves_the_whole_message_or_none() {
    let file = create_sealed("test:killed", BYTES as u64).expect("a memfd");
    let mapping = map(&file);
    let (mut nothing, mut whole) = (0, 0);
    sweep(|steps| {
        // Each round is a new generation over what the last one left behind.
        let generation = steps + 1;
        mapping.word(0).store(0, Ordering::Relaxed);
        let is_over = killed_after(steps, || {
            let mapping = map(&file);
            let mut producer = producer(&mapping, generation);
            let index = mapping.word(0);
            raise(Signal::SIGSTOP).expect("a signal");
            producer.push(&MESSAGE, index).expect("room");
        });
        let mut survivor = consumer(&mapping, generation);
        if pops(&mut survivor) {
            whole += 1;
        } else {
            assert!(!is_over, "the push was over and left nothing");
            assert_eq!(whole, 0, "once the message is there it stays");
            nothing += 1;
        }
        assert!(!survivor.has_message());
        is_over
    });
    assert!(
        nothing > 20 && whole > 0,
        "{nothing} times nothing, {whole} times all of it"
    );
}

#[test]
fn a_consumer_killed_anywhere_in_a_pop_has_taken_the_message_or_not() {
    let file = create_sealed("test:killed", BYTES as u64).expect("a memfd");
    let mapping = map(&file);
    let (mut kept, mut taken) = (0, 0);
    sweep(|steps| {
        let generation = steps + 1;
        mapping.word(0).store(0, Ordering::Relaxed);
        let mut survivor = producer(&mapping, generation);
        for _ in 0..5 {
            survivor.push(&MESSAGE, mapping.word(0)).expect("room");
        }
        let is_over = killed_after(steps, || {
            let mapping = map(&file);
            let mut consumer = consumer(&mapping, generation);
            let index = mapping.word(0);
            raise(Signal::SIGSTOP).expect("a signal");
            assert!(pops(&mut consumer));
            consumer.publish_index(index);
        });
        match mapping.word(0).load(Ordering::Relaxed) {
            0 => {
                assert!(!is_over && taken == 0);
                // 15 of 16 slots are taken.
                assert!(!survivor.has_room(2, mapping.word(0)));
                // What the dead one was reading is as it was.
                assert!(pops(&mut consumer(&mapping, generation)));
                kept += 1;
            }
            3 => {
                survivor.push(&MESSAGE, mapping.word(0)).expect("room");
                taken += 1;
            }
            other => panic!("an index of {other}"),
        }
        is_over
    });
    assert!(
        kept > 20 && taken > 0,
        "{kept} times not, {taken} times taken"
    );
}

/// Instructions from one real kill to the next in the long sweep below.
const STRIDE: u32 = 61;

/// The invocations that are offered in it.
const FIRST: u64 = 100;
const SECOND: u64 = FIRST + 1;

fn offer(invocation: u64) -> FromExecutor<'static> {
    FromExecutor::Offer {
        target: Target::Next,
        extent: extent(0, 1),
        size_bytes: 8,
        ordinal: 0,
        invocation,
    }
}

/// How its second function fails: what that has offered is left.
const FAILED: FromExecutor<'static> = FromExecutor::Complete {
    status: 1,
    ending: Ending::Returned,
    discarded: 0,
    message: b"",
};

/// An executor's calls from one function to the next, whose failure ends it. `begun` is where a
/// function would make itself known.
fn go_on_once(control: &Control, begun: &Arc<Mapping>) {
    let mut end = control.executor();
    raise(Signal::SIGSTOP).expect("a signal");
    let invocation = say_offer(&mut end);
    let room = end.take_offer(invocation).expect("nobody withdraws it");
    room.say(&FromExecutor::Continue { discarded: 0 });
    end.ring();
    begun.word(0).store(invocation, Ordering::Relaxed);
    say_offer(&mut end);
    end.send(&FAILED);
}

fn say_offer(end: &mut ExecutorEnd) -> u64 {
    let offer = end.next_offer().expect("it is granted");
    let invocation = offer.say(Target::Next, extent(0, 1), 8, 0);
    end.ring();
    invocation
}

/// An executor's memory before it goes on.
struct Scene {
    control: Control,
    begun: OwnedFd,
}

/// What an executor that is killed leaves to its survivors.
#[derive(PartialEq, Eq)]
struct Left {
    /// The bytes of its `up` file, all that it can write.
    up: Vec<u8>,
    /// The last invocation whose function has made itself known, or 0.
    begun: u64,
}

impl Scene {
    fn new() -> Self {
        let control = Control::new(0, 1);
        control.scheduler().grant(FIRST);
        let begun = create_sealed("test:begun", BYTES as u64).expect("a memfd");
        Self { control, begun }
    }

    fn left(&self) -> Left {
        let mut left = vec![0; up::BYTES];
        let read = pread(&self.control.files.up, &mut left, 0).expect("a memfd");
        assert_eq!(read, up::BYTES);
        Left {
            up: left,
            begun: map(&self.begun).word(0).load(Ordering::Relaxed),
        }
    }
}

/// How far a killed executor has come, for its scheduler.
struct Standing {
    /// Messages of the script that were said.
    said: usize,
    /// Its first offer was heard, and could be taken back.
    is_withdrawn: bool,
}

impl Left {
    /// Takes the part of the scheduler that has lost its executor: what has begun is what was said
    /// to have begun.
    fn judge(&self) -> Standing {
        let script = [
            offer(FIRST),
            FromExecutor::Continue { discarded: 0 },
            offer(SECOND),
            FAILED,
        ];
        let control = Control::new(0, 1);
        let written = pwrite(&control.files.up, &self.up, 0).expect("a memfd");
        assert_eq!(written, up::BYTES);
        let mut scheduler = control.scheduler();
        let mut buffer = MessageBuffer::default();
        let mut said = 0;
        while let Some(message) = scheduler.receive(&mut buffer).expect("whole messages") {
            assert_eq!(message, script[said]);
            said += 1;
        }
        let mut is_withdrawn = false;
        match said {
            // Nobody knows of an offer, and so nobody asks for it back.
            0 => assert_eq!(self.begun, 0),
            1 => {
                // Withdrawn, or taken without a word: it has not begun.
                is_withdrawn = scheduler.withdraw(FIRST);
                assert_eq!(self.begun, 0);
            }
            _ => {
                assert!(!scheduler.withdraw(FIRST), "it was taken");
                assert!(self.begun == FIRST || said == 2 && self.begun == 0);
                // As soon as it is known, and still when its sender has left it.
                assert!(said == 2 || scheduler.withdraw(SECOND));
            }
        }
        let is_known = said > 0;
        assert!(!is_known || !scheduler.withdraw(FIRST), "it is decided");
        Standing { said, is_withdrawn }
    }
}

/// One child goes on, and after each of its instructions its memory is copied and judged as if it
/// had been killed there. That is the same: a process that is stopped after an instruction has all
/// its stores done, and one that is killed executes nothing more and has nothing of its shared
/// memory written by the kernel. A kill finds a process between two instructions, too, wherever it
/// comes from. Copies that say nothing new are judged already.
///
/// Every so often another child is stepped as far and killed in earnest, and must leave the copy.
#[test]
fn an_executor_killed_anywhere_in_going_on_has_begun_what_it_says_and_no_more() {
    let scene = Scene::new();
    let mut child = Stepped::start(|| go_on_once(&scene.control, &map(&scene.begun)));
    let mut copies = vec![scene.left()];
    let mut standing = copies[0].judge();
    // Instructions after which the ring holds so much; and of those with the first offer alone,
    // such where it can still be withdrawn.
    let (mut said, mut withdrawn) = ([0; 5], 0);
    // After so many instructions the memory is this copy.
    let mut samples = Vec::new();
    for steps in 0.. {
        assert!(steps < INSTRUCTIONS_MAX, "it ends before the watchdog");
        said[standing.said] += 1;
        withdrawn += u32::from(standing.is_withdrawn);
        if steps % STRIDE == 0 {
            samples.push((steps, copies.len() - 1));
        }
        if !child.step() {
            break;
        }
        let left = scene.left();
        if left != copies[copies.len() - 1] {
            let before = standing.said;
            standing = left.judge();
            assert!(standing.said >= before, "what was said stays");
            copies.push(left);
        }
    }
    child.kill();
    assert!(said.iter().all(|count| *count > 0), "{said:?}");
    assert!(
        0 < withdrawn && withdrawn < said[1],
        "{withdrawn} of {said:?}"
    );
    for (steps, copy) in samples {
        let scene = Scene::new();
        killed_after(steps, || go_on_once(&scene.control, &map(&scene.begun)));
        assert!(scene.left() == copies[copy], "killed after {steps}");
    }
}
