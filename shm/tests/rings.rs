//! Rings between threads and processes: every message arrives whole, in order and once.

mod common;

use std::os::fd::AsFd;
use std::sync::Arc;

use common::Random;
use common::child::in_child;
use pheromone_shm::file::create_sealed;
use pheromone_shm::mapping::{MappedSlots, Mapping};
use pheromone_shm::ring::{Consumer, Producer, RingFault, RingFull, SLOT_BYTES, SlotData};
use pheromone_shm::sync::{AtomicU64, Ordering};
use pheromone_shm::wire::MESSAGE_SLOTS_MAX;

const SLOTS: usize = 64;
const RING: usize = 4096;
const BYTES: usize = RING + SLOTS * SLOT_BYTES;
const MESSAGES: u64 = 300_000;

fn file() -> std::os::fd::OwnedFd {
    create_sealed("test:ring", BYTES as u64).expect("a memfd")
}

fn producer(mapping: &Arc<Mapping>, generation: u32) -> Producer<MappedSlots> {
    Producer::new(mapping.slots(RING, SLOTS), generation)
}

fn consumer(mapping: &Arc<Mapping>, generation: u32) -> Consumer<MappedSlots> {
    Consumer::new(mapping.slots(RING, SLOTS), generation)
}

fn map(file: &impl AsFd) -> Arc<Mapping> {
    Mapping::writable_of(file.as_fd(), BYTES).expect("a mapping")
}

/// The `number`-th message: its length and words follow from its number.
fn message(number: u64) -> Vec<SlotData> {
    let mut random = Random(number);
    let count = random.below(MESSAGE_SLOTS_MAX as u64) + 1;
    let slot = |_| std::array::from_fn(|_| random.next());
    (0..count).map(slot).collect()
}

fn is_message(number: u64, got: &[SlotData]) -> bool {
    let mut expected = message(number);
    // The ring's own byte.
    expected[0][0] = expected[0][0] & !0xff00 | (expected.len() as u64) << 8;
    expected == got
}

fn produce(mapping: &Arc<Mapping>) {
    let mut producer = producer(mapping, 5);
    for number in 0..MESSAGES {
        let message = message(number);
        while producer.push(&message, mapping.word(0)).is_err() {
            std::thread::yield_now();
        }
    }
}

fn consume(mapping: &Arc<Mapping>) {
    let mut consumer = consumer(mapping, 5);
    let mut out = [[0; 7]; MESSAGE_SLOTS_MAX];
    let mut random = Random(1);
    for number in 0..MESSAGES {
        let count = loop {
            match consumer.pop(&mut out).expect("an honest producer") {
                0 => std::thread::yield_now(),
                count => break count,
            }
        };
        assert!(is_message(number, &out[..count]), "message {number}");
        if random.one_in(3) {
            consumer.publish_index(mapping.word(0));
        }
        // A consumer that forgets to say so for long would stop its producer.
        if number % 4 == 0 {
            consumer.publish_index(mapping.word(0));
        }
    }
    assert!(!consumer.has_message());
}

#[test]
fn messages_arrive_between_threads() {
    let mapping = map(&file());
    let theirs = Arc::clone(&mapping);
    let sender = std::thread::spawn(move || produce(&theirs));
    consume(&mapping);
    sender.join().unwrap();
}

#[test]
fn messages_arrive_between_processes() {
    let file = file();
    let sender = in_child(|| produce(&map(&file)));
    consume(&map(&file));
    sender.wait_ok();
}

#[test]
fn a_full_ring_refuses_and_takes_again_what_was_read() {
    let mapping = map(&file());
    let (mut producer, mut consumer) = (producer(&mapping, 1), consumer(&mapping, 1));
    let mut out = [[0; 7]; MESSAGE_SLOTS_MAX];
    for _ in 0..SLOTS {
        producer.push(&[[1; 7]], mapping.word(0)).unwrap();
    }
    assert_eq!(producer.push(&[[2; 7]], mapping.word(0)), Err(RingFull));
    assert_eq!(consumer.pop(&mut out), Ok(1));
    // Taken, but not said.
    assert_eq!(producer.push(&[[2; 7]], mapping.word(0)), Err(RingFull));
    consumer.publish_index(mapping.word(0));
    producer.push(&[[2; 7]], mapping.word(0)).unwrap();
    assert_eq!(producer.push(&[[2; 7]; 10], mapping.word(0)), Err(RingFull));
}

#[test]
fn an_index_that_cannot_be_right_is_not_believed() {
    let mapping = map(&file());
    let mut producer = producer(&mapping, 1);
    for _ in 0..SLOTS {
        producer.push(&[[1; 7]], mapping.word(0)).unwrap();
    }
    for lie in [SLOTS as u64 + 1, u64::MAX, 1 << 63] {
        mapping.word(0).store(lie, Ordering::Relaxed);
        assert!(!producer.has_room(1, mapping.word(0)), "{lie}");
    }
    mapping.word(0).store(10, Ordering::Relaxed);
    assert!(producer.has_room(10, mapping.word(0)));
    // Back again: what was free stays free, and nothing more.
    mapping.word(0).store(3, Ordering::Relaxed);
    assert!(producer.has_room(10, mapping.word(0)));
    assert!(!producer.has_room(11, mapping.word(0)));
}

#[test]
fn a_new_generation_shows_nothing_of_the_last() {
    let file = file();
    let mapping = map(&file);
    for generation in 0..100 {
        mapping.word(0).store(0, Ordering::Relaxed);
        let mut consumer = consumer(&mapping, generation);
        assert!(!consumer.has_message(), "generation {generation}");
        let mut producer = producer(&mapping, generation);
        for number in 0..generation % 7 {
            producer
                .push(&message(number.into()), mapping.word(0))
                .unwrap();
        }
        let mut out = [[0; 7]; MESSAGE_SLOTS_MAX];
        if generation % 7 > 0 {
            let count = consumer.pop(&mut out).unwrap();
            assert!(is_message(0, &out[..count]));
        }
    }
}

/// A word of the ring's memory, as a hostile producer sees it.
fn slot_word(mapping: &Mapping, slot: usize, word: usize) -> &AtomicU64 {
    mapping.word(RING + slot * SLOT_BYTES + word * 8)
}

#[test]
fn a_message_that_lacks_a_slot_or_claims_too_many_is_a_fault() {
    let mapping = map(&file());
    let mut out = [[0; 7]; MESSAGE_SLOTS_MAX];
    let mut producer = producer(&mapping, 1);
    producer.push(&message(3), mapping.word(0)).unwrap();
    let len = message(3).len();
    assert!(len > 1, "the third message has several slots");
    let sequence = slot_word(&mapping, 1, 0).swap(0, Ordering::Relaxed);
    assert_eq!(
        consumer(&mapping, 1).pop(&mut out),
        Err(RingFault::MissingSlot(1))
    );
    slot_word(&mapping, 1, 0).store(sequence, Ordering::Relaxed);
    assert_eq!(consumer(&mapping, 1).pop(&mut out), Ok(len));
    for claim in [0, 11, 255] {
        let first = slot_word(&mapping, 0, 1).load(Ordering::Relaxed) & !0xff00;
        slot_word(&mapping, 0, 1).store(first | claim << 8, Ordering::Relaxed);
        let fault = Err(RingFault::SlotCount(claim as u8));
        assert_eq!(consumer(&mapping, 1).pop(&mut out), fault);
    }
}

#[test]
fn slots_changed_while_they_are_read_are_a_fault_or_whole() {
    let file = file();
    // The child rewrites one published message for ever, each time in one number all over.
    let writer = in_child(|| {
        let mapping = map(&file);
        let mut number = 1_u64;
        loop {
            mapping.word(0).store(0, Ordering::Relaxed);
            let _ = producer(&mapping, 1).push(&[[number << 16; 7]; 3], mapping.word(0));
            number += 1;
        }
    });
    let mapping = map(&file);
    let mut out = [[0; 7]; MESSAGE_SLOTS_MAX];
    for _ in 0..100_000 {
        // No content is promised of a liar; only that this ends, in bounds and with an answer.
        match consumer(&mapping, 1).pop(&mut out) {
            Ok(count) => assert!(count == 0 || count == 3),
            Err(RingFault::SlotCount(_)) => panic!("the count never changed"),
            Err(RingFault::MissingSlot(_) | RingFault::ChangedWhileRead) => {}
        }
    }
    writer.kill();
}
