//! An executor that writes whatever it likes wherever it can: its scheduler gets a message or a
//! fault, in bounds and in finite time, and goes on.

mod common;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use common::child::in_child;
use common::{Control, Random, extent};
use pheromone_shm::control::{Garbled, SchedulerEnd};
use pheromone_shm::limits::{COLOURS, PUBLISH_SLOTS, up};
use pheromone_shm::mapping::{MappedSlots, Mapping};
use pheromone_shm::message::{FromExecutor, Input, InputKey, Key, Target, ToExecutor};
use pheromone_shm::ring::{Producer, RingFault, SLOT_BYTES, SlotData};
use pheromone_shm::sync::Ordering;
use pheromone_shm::wire::{MESSAGE_SLOTS_MAX, Malformed, MessageBuffer, encode_from_executor};

/// The hostile side: everything that an executor can write.
struct Hostile {
    mapping: Arc<Mapping>,
    ring: Producer<MappedSlots>,
    random: Random,
}

impl Hostile {
    fn new(control: &Control, seed: u64) -> Self {
        let mapping = Mapping::writable_of(control.files.up.as_fd(), up::BYTES).unwrap();
        let slide = usize::from(control.colour) % COLOURS * SLOT_BYTES;
        let slots = mapping.slots(up::PUBLISH + slide, PUBLISH_SLOTS);
        Self {
            mapping,
            ring: Producer::new(slots, control.generation),
            random: Random(seed),
        }
    }

    /// A number that means something often enough.
    fn number(&mut self) -> u64 {
        match self.random.below(6) {
            0 => 0,
            1 => self.random.below(16),
            2 => 1 << self.random.below(64),
            3 => u64::MAX,
            4 => self.random.below(1 << 32),
            _ => self.random.next(),
        }
    }

    fn scribble(&mut self, words: u64) {
        for _ in 0..words {
            let at = self.random.below(up::BYTES as u64 / 8) as usize * 8;
            let value = self.number();
            self.mapping.word(at).store(value, Ordering::Relaxed);
        }
        // The words that a scheduler looks at by themselves.
        for at in [up::ASLEEP, up::DISPATCH_CONSUMED, up::RELEASE_CONSUMED] {
            let value = self.number();
            self.mapping.word(at).store(value, Ordering::Relaxed);
        }
    }

    /// A message whose slots are as the ring wants them and whose content is not.
    fn push_nonsense(&mut self) {
        let count = self.random.below(MESSAGE_SLOTS_MAX as u64) + 1;
        let mut slots: Vec<SlotData> = (0..count)
            .map(|_| std::array::from_fn(|_| self.number()))
            .collect();
        // Often a kind that there is, and flags that may be.
        if !self.random.one_in(4) {
            let kind = self.random.below(18);
            let kind = if kind == 0 { 0xff } else { kind };
            let flags = self.random.below(16) << 16;
            slots[0][0] = slots[0][0] & !0xff_00ff | kind | flags;
        }
        let index = self.mapping.word(up::ARGS);
        let _ = self.ring.push(&slots, index);
    }

    /// A good message with some bits changed.
    fn push_almost_good(&mut self) {
        let message = FromExecutor::Publish {
            target: Target::Bucket(3),
            extent: extent(5, 5),
            size_bytes: 300,
            key: Key::Named(b"a key of some length, more than a slot has room for"),
            ordinal: 0,
            group: b"a group",
            delay_ns: 5,
        };
        let mut bytes = encode_from_executor(&message).unwrap();
        bytes.resize(bytes.len().next_multiple_of(56), 0);
        for _ in 0..self.random.below(4) {
            let at = self.random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << self.random.below(8);
        }
        let words: Vec<u64> = bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|bytes| u64::from_le_bytes(*bytes))
            .collect();
        let index = self.mapping.word(up::ARGS);
        let _ = self.ring.push(words.as_chunks::<7>().0, index);
    }
}

/// What a scheduler does all day; none of it may panic, hang or leave the ring's memory.
fn live_with(end: &mut SchedulerEnd, buffer: &mut MessageBuffer) -> Option<Garbled> {
    let input = Input {
        region: 0,
        bucket: 0,
        offset_units: 0,
        size_bytes: 0,
        session: 0,
        arrival_ns: 0,
        key: InputKey::Named(b"k"),
        group: b"",
        attached: 0,
    };
    let mut fault = None;
    let mut taken = 0;
    loop {
        match end.receive(buffer) {
            Ok(Some(message)) => {
                taken += 1;
                judged(&message);
            }
            Ok(None) => break,
            Err(garbled) => {
                assert!(!garbled.to_string().is_empty());
                fault = Some(garbled);
            }
        }
        assert!(
            taken <= PUBLISH_SLOTS,
            "more messages than the ring has slots"
        );
    }
    end.publish_consumed();
    let _ = end.send(&ToExecutor::Credit { granted: true });
    let _ = end.send_inputs(0, [input; 20].into_iter());
    let _ = end.send_extents(0, (1..2000).map(|at| extent(at, 1)));
    let _ = end.release(extent(1, 1));
    end.flush_releases();
    end.wake_if_asleep();
    fault
}

/// What was accepted has the form that its receiver relies on.
fn judged(message: &FromExecutor<'_>) {
    encode_from_executor(message).expect("what was accepted can be said");
}

#[test]
fn random_words_are_a_message_or_a_fault() {
    let (mut faults, mut accepted) = (0, 0);
    for seed in 0..400 {
        let control = Control::new(seed as u16, seed as u32);
        let mut end = control.scheduler();
        let mut hostile = Hostile::new(&control, seed);
        let mut buffer = MessageBuffer::default();
        let mut fault = None;
        for _ in 0..50 {
            match hostile.random.below(8) {
                0 => hostile.scribble(200),
                1..5 => hostile.push_nonsense(),
                _ => hostile.push_almost_good(),
            }
            fault = fault.or(live_with(&mut end, &mut buffer));
            if fault.is_some() {
                // Told once; then it has nothing more to say, whatever it writes.
                assert!(!end.has_message());
                assert_eq!(end.receive(&mut buffer), Ok(None));
            } else {
                accepted += 1;
            }
        }
        faults += u32::from(fault.is_some());
    }
    assert!(
        faults > 300 && accepted > 300,
        "{faults} faults, {accepted} accepted"
    );
}

#[test]
fn a_file_full_of_random_words_holds_no_more_messages_than_slots() {
    for seed in 0..50 {
        let control = Control::new(seed as u16, 0);
        let mut end = control.scheduler();
        let mut hostile = Hostile::new(&control, seed);
        hostile.scribble(50_000);
        live_with(&mut end, &mut MessageBuffer::default());
    }
}

#[test]
fn a_full_ring_of_messages_ends_without_the_executor() {
    let control = Control::new(1, 1);
    let mut end = control.scheduler();
    let mut executor = control.executor();
    for _ in 0..PUBLISH_SLOTS {
        executor.send(&FromExecutor::Ready);
    }
    let mut buffer = MessageBuffer::default();
    let count = std::iter::from_fn(|| end.receive(&mut buffer).unwrap().map(drop)).count();
    assert_eq!(count, PUBLISH_SLOTS);
}

#[test]
fn each_kind_of_nonsense_is_named() {
    let form = Garbled::Form;
    let cases: [(&[u64], Garbled); 16] = [
        (&[200], Garbled::Kind(200)),
        (&[1 | 1 << 16], Garbled::Reserved { kind: 1 }),
        (&[6 | 9 << 24], Garbled::Ending(9)),
        (&[0xff, 1 << 40], Garbled::Spill(1 << 40)),
        (
            &[7 | 255 << 24],
            Garbled::Length {
                kind: 7,
                needed_bytes: 271,
                given_bytes: 56,
            },
        ),
        (
            &[2 | 5 << 48, 1 << 32, 64],
            form(Malformed::Size {
                size_bytes: 64,
                extent_bytes: 64,
            }),
        ),
        (&[8 | 1 << 24, 0], form(Malformed::KeyByte)),
        // A delay of no time, an ordinal of 33 bits, and one of an object that has none.
        (
            &[2 | 12 << 16, 1 << 32, 0, 0, 0],
            Garbled::Reserved { kind: 2 },
        ),
        (
            &[2 | 1 << 16 | 1 << 24, 1 << 32, 0, 1 << 32, 0x61],
            Garbled::Reserved { kind: 2 },
        ),
        (&[3 | 1 << 24, 7 << 32, 0x61], Garbled::Reserved { kind: 3 }),
        // Lists of keys: an empty key, one with a zero byte, one past the end, and a head that
        // claims more than there is.
        (&[13, 1, 0], form(Malformed::KeyLength(0))),
        (&[13, 2, 0x0001], form(Malformed::KeyByte)),
        (&[13, 3, 0x61_6103], form(Malformed::KeyList(3))),
        (
            &[13, u64::MAX],
            Garbled::Length {
                kind: 13,
                needed_bytes: usize::MAX,
                given_bytes: 56,
            },
        ),
        (&[14, 3 | 2 << 32], form(Malformed::Round { k: 3, n: 2 })),
        (&[15, 1 << 32], Garbled::Reserved { kind: 15 }),
    ];
    for (words, garbled) in cases {
        let control = Control::new(0, 1);
        let mut end = control.scheduler();
        let mut hostile = Hostile::new(&control, 0);
        let mut slot: SlotData = [0; 7];
        slot[..words.len()].copy_from_slice(words);
        let index = hostile.mapping.word(up::ARGS);
        hostile.ring.push(&[slot], index).unwrap();
        assert_eq!(end.receive(&mut MessageBuffer::default()), Err(garbled));
    }
}

#[test]
fn a_message_in_the_area_may_not_stand_for_another_there() {
    let control = Control::new(0, 1);
    let mut end = control.scheduler();
    let mut hostile = Hostile::new(&control, 0);
    hostile
        .mapping
        .word(up::ARGS)
        .store(0xff, Ordering::Relaxed);
    hostile
        .mapping
        .word(up::ARGS + 8)
        .store(16, Ordering::Relaxed);
    let index = hostile.mapping.word(up::DISPATCH_CONSUMED);
    hostile
        .ring
        .push(&[[0xff, 16, 0, 0, 0, 0, 0]], index)
        .unwrap();
    let mut buffer = MessageBuffer::default();
    let received = end.receive(&mut buffer);
    assert_eq!(received, Err(Garbled::Kind(0xff)));
}

#[test]
fn an_executor_that_says_it_sleeps_and_does_not_holds_nobody_up() {
    let control = Control::new(0, 1);
    let mut end = control.scheduler();
    let hostile = Hostile::new(&control, 0);
    // Each of these says the count of wakes that the scheduler has reached: it wakes nobody.
    for count in 0..10_000_u64 {
        hostile
            .mapping
            .word(up::ASLEEP)
            .store(count << 2 | 1, Ordering::Relaxed);
        end.wake_if_asleep();
    }
}

#[test]
fn a_hostile_process_that_writes_all_the_time_holds_nobody_up() {
    let faults = (0..10).filter(|seed| is_found_out(*seed)).count();
    assert!(faults > 0, "ten liars, and none was found out");
}

/// Lives for a while with a process that writes nonsense all the time. Whether there was a fault:
/// it may as well have spoilt what it had said before anybody saw it.
fn is_found_out(seed: u64) -> bool {
    let control = Control::new(17, 4);
    let mut end = control.scheduler();
    let child = in_child(|| {
        let mut hostile = Hostile::new(&control, seed);
        loop {
            hostile.push_nonsense();
            hostile.push_almost_good();
            hostile.scribble(20);
        }
    });
    let mut buffer = MessageBuffer::default();
    let mut fault = None;
    for _ in 0..200 {
        // A peer that moves can have more to say than its ring has slots, so: a turn's worth.
        for _ in 0..32 {
            match end.receive(&mut buffer) {
                Ok(Some(message)) => judged(&message),
                Ok(None) => break,
                Err(garbled) => fault = Some(garbled),
            }
        }
        end.publish_consumed();
        end.wake_if_asleep();
        if fault.is_some() {
            break;
        }
        // The liar needs a core as well.
        std::thread::sleep(Duration::from_micros(100));
    }
    child.kill();
    fault.is_some()
}

#[test]
fn an_executor_that_never_reads_fills_its_ring_and_nothing_else() {
    let control = Control::new(0, 1);
    let mut end = control.scheduler();
    let sent = (0..1000).take_while(|_| end.send(&ToExecutor::Exit).is_ok());
    assert_eq!(sent.count(), 64);
    // It may lie about what it has read: then it reads what was written over.
    let hostile = Hostile::new(&control, 0);
    hostile
        .mapping
        .word(up::DISPATCH_CONSUMED)
        .store(64, Ordering::Relaxed);
    assert_eq!(end.send(&ToExecutor::Exit), Ok(()));
}

#[test]
fn a_slot_that_keeps_changing_is_a_fault_of_the_ring() {
    let control = Control::new(0, 1);
    let mut end = control.scheduler();
    let mut hostile = Hostile::new(&control, 0);
    let index = hostile.mapping.word(up::DISPATCH_CONSUMED);
    hostile.ring.push(&[[2; 7]; 4], index).unwrap();
    hostile
        .mapping
        .word(up::PUBLISH + 2 * SLOT_BYTES)
        .store(0, Ordering::Relaxed);
    let mut buffer = MessageBuffer::default();
    let received = end.receive(&mut buffer);
    assert_eq!(received, Err(Garbled::Ring(RingFault::MissingSlot(2))));
}
