//! A process killed after every single machine instruction of a push or a pop: the survivor sees
//! the whole message or nothing, and the memory can be used again by a new generation. One killed
//! anywhere in going on by itself: what it has said and who has the invocation agree.

mod common;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use common::{Child, Control, extent, in_child};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use pheromone_shm::control::ExecutorEnd;
use pheromone_shm::file::create_sealed;
use pheromone_shm::mapping::{MappedSlots, Mapping};
use pheromone_shm::message::{Ending, FromExecutor, Target};
use pheromone_shm::ring::{Consumer, Producer, SLOT_BYTES, SlotData};
use pheromone_shm::sync::Ordering;
use pheromone_shm::wire::{MESSAGE_SLOTS_MAX, MessageBuffer};

const SLOTS: usize = 16;
const RING: usize = 4096;
const BYTES: usize = RING + SLOTS * SLOT_BYTES;
const MESSAGE: [SlotData; 3] = [[0x11; 7], [0x22; 7], [0x33; 7]];
/// More instructions than any push or pop has: a watchdog.
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
    let child = in_child(|| {
        ptrace::traceme().expect("a parent that traces");
        prepare_and_call();
        // Tells the tracer that the call is over.
        raise(Signal::SIGUSR1).expect("a signal");
    });
    assert_eq!(stopped(&child), Signal::SIGSTOP);
    let mut is_over = false;
    for _ in 0..steps {
        ptrace::step(child.pid(), None).expect("a stopped child");
        match stopped(&child) {
            Signal::SIGTRAP => {}
            Signal::SIGUSR1 => {
                is_over = true;
                break;
            }
            other => panic!("the child stopped by {other}"),
        }
    }
    child.kill();
    is_over
}

fn stopped(child: &Child) -> Signal {
    match waitpid(child.pid(), None).expect("a child") {
        WaitStatus::Stopped(_, signal) => signal,
        other => panic!("{other:?}"),
    }
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

/// Instructions from one kill to the next in the long sweep below: what it looks for lasts longer.
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

#[test]
fn an_executor_killed_anywhere_in_going_on_has_begun_what_it_says_and_no_more() {
    let file = create_sealed("test:begun", BYTES as u64).expect("a memfd");
    let begun = map(&file);
    let script = [
        offer(FIRST),
        FromExecutor::Continue { discarded: 0 },
        offer(SECOND),
        FAILED,
    ];
    // By what the ring holds; and of those with the first offer alone: it can still be withdrawn.
    let (mut said, mut withdrawn) = ([0; 5], 0);
    sweep(|round| {
        let steps = round * STRIDE;
        let control = Control::new(0, round + 1);
        let mut scheduler = control.scheduler();
        scheduler.grant(FIRST);
        begun.word(0).store(0, Ordering::Relaxed);
        let is_over = killed_after(steps, || go_on_once(&control, &map(&file)));
        let mut buffer = MessageBuffer::default();
        let mut count = 0;
        while let Some(message) = scheduler.receive(&mut buffer).expect("whole messages") {
            assert_eq!(message, script[count]);
            count += 1;
        }
        said[count] += 1;
        let has_begun = begun.word(0).load(Ordering::Relaxed);
        match count {
            // Nobody knows of an offer, and so nobody asks for it back.
            0 => assert_eq!(has_begun, 0),
            1 => {
                // Withdrawn, or taken without a word: it has not begun.
                withdrawn += u32::from(scheduler.withdraw(FIRST));
                assert_eq!(has_begun, 0);
            }
            _ => {
                assert!(!scheduler.withdraw(FIRST), "it was taken");
                assert!(has_begun == FIRST || count == 2 && has_begun == 0);
                // As soon as it is known, and still when its sender has left it.
                assert!(count == 2 || scheduler.withdraw(SECOND));
            }
        }
        let is_known = count > 0;
        assert!(!is_known || !scheduler.withdraw(FIRST), "it is decided");
        assert!(!is_over || count == script.len());
        is_over
    });
    assert!(said.iter().all(|rounds| *rounds > 0), "{said:?}");
    assert!(
        0 < withdrawn && withdrawn < said[1],
        "{withdrawn} of {said:?}"
    );
}
