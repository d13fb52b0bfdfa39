//! Every interleaving and every reordering that the memory model allows, for the ring, for sleeping
//! and waking, and for who starts what an executor has offered; and the proof that the models
//! would notice: each ordering that they rest on is weakened on purpose, and the model must then
//! fail.
//!
//! Run by
//! `RUSTFLAGS="--cfg loom" cargo test -p pheromone-shm --release --test loom --target-dir
//! target/loom`.
#![cfg(loom)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use loom::thread;
use pheromone_shm::claim::Claim;
use pheromone_shm::doorbell::{self, ASLEEP_FOR_ROOM, ASLEEP_IDLE, SleepWord, Steps};
use pheromone_shm::ring::{Consumer, Orders, Producer, Slot, SlotData, Sound as SoundRing};
use pheromone_shm::sync::FutexWord;

/// The models explore all schedules with at most so many preemptions: enough for every bug that
/// these protocols have had, and a few seconds.
const PREEMPTIONS: usize = 3;

fn explore(model: impl Fn() + Sync + Send + 'static) {
    explore_with(PREEMPTIONS, model);
}

fn explore_with(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(model);
}

/// The model must find something: a failed assertion, or everybody asleep.
fn must_fail(model: impl Fn() + Sync + Send + 'static) {
    let found = catch_unwind(AssertUnwindSafe(|| explore(model)));
    assert!(found.is_err(), "the model did not notice what was weakened");
}

struct RelaxedPublish;
impl Orders for RelaxedPublish {
    const PUBLISH: Ordering = Ordering::Relaxed;
    const TAKE: Ordering = Ordering::Acquire;
    const REUSE: Ordering = Ordering::Acquire;
}

struct RelaxedTake;
impl Orders for RelaxedTake {
    const PUBLISH: Ordering = Ordering::Release;
    const TAKE: Ordering = Ordering::Relaxed;
    const REUSE: Ordering = Ordering::Acquire;
}

fn slots(count: usize) -> Arc<[Slot]> {
    (0..count).map(|_| Slot::default()).collect()
}

/// A slot whose words all say the same, so that a torn one shows.
fn data(number: u64) -> SlotData {
    [number << 32; 7]
}

fn number(slot: &SlotData) -> u64 {
    // The ring's byte is in the first word.
    assert!(
        slot.iter().all(|word| word >> 32 == slot[1] >> 32),
        "{slot:?}"
    );
    slot[1] >> 32
}

/// Messages of these slots through a ring of two slots: it wraps around and fills up.
fn messages_arrive<O: Orders + 'static>(lens: &'static [usize]) {
    let (memory, index) = (slots(2), Arc::new(AtomicU64::new(0)));
    let mut producer = Producer::<_, O>::new(Arc::clone(&memory), 7);
    let their_index = Arc::clone(&index);
    let sender = thread::spawn(move || {
        for (at, len) in lens.iter().enumerate() {
            let message = vec![data(at as u64 + 1); *len];
            while producer.push(&message, &their_index).is_err() {
                thread::yield_now();
            }
        }
    });
    let mut consumer = Consumer::<_, O>::new(memory, 7);
    let mut out = [[0; 7]; 10];
    for (at, len) in lens.iter().enumerate() {
        let count = loop {
            match consumer.pop(&mut out).expect("an honest producer") {
                0 => thread::yield_now(),
                count => break count,
            }
        };
        assert_eq!(count, *len);
        for slot in &out[..count] {
            assert_eq!(number(slot), at as u64 + 1);
        }
        consumer.publish_index(&index);
    }
    sender.join().unwrap();
}

#[test]
fn messages_arrive_whole_and_in_order_through_a_full_ring() {
    explore(|| messages_arrive::<SoundRing>(&[1, 1, 1]));
}

#[test]
fn a_message_of_several_slots_arrives_whole() {
    explore(|| messages_arrive::<SoundRing>(&[2, 1, 2]));
}

#[test]
fn publishing_without_release_is_noticed() {
    must_fail(|| messages_arrive::<RelaxedPublish>(&[2]));
}

#[test]
fn taking_without_acquire_is_noticed() {
    must_fail(|| messages_arrive::<RelaxedTake>(&[2]));
}

/// A producer sends three slots through a ring of two and takes back what it can, while the
/// consumer takes what it can by `take`: each slot ends up with one of them.
fn each_slot_has_one_owner(
    take: fn(&mut Consumer<Arc<[Slot]>>, &mut SlotData, &AtomicU64) -> bool,
) {
    const COUNT: u64 = 3;
    let (memory, index) = (slots(2), Arc::new(AtomicU64::new(0)));
    let mut producer = Producer::<_, SoundRing>::new(Arc::clone(&memory), 7);
    let their_index = Arc::clone(&index);
    let sender = thread::spawn(move || {
        let mut withdrawn = Vec::new();
        for sent in 1..=COUNT {
            while producer.push_plain(&data(sent), &their_index).is_err() {
                thread::yield_now();
            }
            if sent != 1 {
                let positions = producer.withdraw(&their_index);
                withdrawn.extend(positions.map(|at| number(&producer.written(at))));
            }
        }
        (producer, withdrawn)
    });
    let mut consumer = Consumer::<_, SoundRing>::new(memory, 7);
    let mut out = [0; 7];
    let mut owned = Vec::new();
    if take(&mut consumer, &mut out, &index) {
        owned.push(number(&out));
    }
    let (mut producer, withdrawn) = sender.join().unwrap();
    owned.extend(withdrawn);
    owned.extend(
        producer
            .withdraw(&index)
            .map(|at| number(&producer.written(at))),
    );
    owned.sort_unstable();
    assert_eq!(owned, [1, 2, 3]);
}

#[test]
fn what_is_withdrawn_is_not_taken_and_what_is_taken_not_withdrawn() {
    explore(|| {
        each_slot_has_one_owner(|consumer, out, index| {
            consumer.claim_plain(std::slice::from_mut(out), index) == 1
        });
    });
}

#[test]
fn taking_without_a_claim_is_noticed() {
    must_fail(|| {
        each_slot_has_one_owner(|consumer, out, index| {
            let taken = consumer.pop_plain(out);
            if taken {
                consumer.publish_index(index);
            }
            taken
        });
    });
}

/// The word that decides who starts an invocation.
trait Word: Default + Send + Sync + 'static {
    fn offer(&self, invocation: u64);
    fn take(&self, invocation: u64) -> bool;
    fn withdraw(&self, invocation: u64) -> bool;
}

impl Word for Claim {
    fn offer(&self, invocation: u64) {
        self.offer(invocation);
    }
    fn take(&self, invocation: u64) -> bool {
        self.take(invocation)
    }
    fn withdraw(&self, invocation: u64) -> bool {
        self.withdraw(invocation)
    }
}

/// Looks first and writes then.
#[derive(Default)]
struct LoadAndStore(AtomicU64);

impl LoadAndStore {
    fn decide(&self, invocation: u64, state: u64) -> bool {
        let is_offered = self.0.load(Ordering::Acquire) == invocation << 2 | 1;
        if is_offered {
            self.0.store(invocation << 2 | state, Ordering::Release);
        }
        is_offered
    }
}

impl Word for LoadAndStore {
    fn offer(&self, invocation: u64) {
        self.0.store(invocation << 2 | 1, Ordering::Release);
    }
    fn take(&self, invocation: u64) -> bool {
        self.decide(invocation, 2)
    }
    fn withdraw(&self, invocation: u64) -> bool {
        self.decide(invocation, 3)
    }
}

/// Does not say whose offer it is about.
#[derive(Default)]
struct Nameless(AtomicU64);

impl Nameless {
    fn decide(&self, state: u64) -> bool {
        let order = Ordering::AcqRel;
        let swapped = self.0.compare_exchange(1, state, order, Ordering::Acquire);
        swapped.is_ok()
    }
}

impl Word for Nameless {
    fn offer(&self, _invocation: u64) {
        self.0.store(1, Ordering::Release);
    }
    fn take(&self, _invocation: u64) -> bool {
        self.decide(2)
    }
    fn withdraw(&self, _invocation: u64) -> bool {
        self.decide(3)
    }
}

const OFFER: u64 = 0x100;
const CONTINUE: u64 = 0x200;
const COMPLETE: u64 = 0x300;

/// An executor offers one invocation after the other and takes what it can, with all of it said in
/// its ring. Its scheduler withdraws each when it hears of it, at once or long after it was
/// decided, and the one before again: each is started by exactly one of them, and the ring says by
/// which before the next is offered.
fn each_invocation_has_one_owner<W: Word>() {
    const LAST: u64 = 3;
    let (memory, index) = (slots(8), Arc::new(AtomicU64::new(0)));
    let word = Arc::new(W::default());
    let mut producer = Producer::<_, SoundRing>::new(Arc::clone(&memory), 7);
    let (their_index, their_word) = (Arc::clone(&index), Arc::clone(&word));
    let executor = thread::spawn(move || {
        let mut say = |what: u64| {
            let said = producer.push(&[data(what)], &their_index);
            said.expect("the ring has room for all of it");
        };
        for invocation in 1..=LAST {
            their_word.offer(invocation);
            say(OFFER | invocation);
            let is_taken = their_word.take(invocation);
            say(if is_taken { CONTINUE } else { COMPLETE } | invocation);
        }
    });
    let mut consumer = Consumer::<_, SoundRing>::new(memory, 7);
    let mut out = [[0; 7]; 10];
    let (mut offered, mut is_withdrawn) = (0, false);
    for _ in 0..2 * LAST {
        while consumer.pop(&mut out).expect("an honest producer") == 0 {
            thread::yield_now();
        }
        let said = number(&out[0]);
        let invocation = said & 0xff;
        if said & !0xff == OFFER {
            assert_eq!(offered, 0, "the one before has not been decided");
            offered = invocation;
            assert!(!word.withdraw(invocation - 1), "it was decided long ago");
            is_withdrawn = word.withdraw(invocation);
        } else {
            assert_eq!(offered, invocation);
            let is_taken = said & !0xff == CONTINUE;
            assert!(is_taken != is_withdrawn, "{is_taken} and {is_withdrawn}");
            assert!(!word.withdraw(invocation), "it is decided");
            offered = 0;
        }
    }
    executor.join().unwrap();
}

#[test]
fn what_is_offered_is_started_by_one() {
    explore(each_invocation_has_one_owner::<Claim>);
}

#[test]
fn deciding_in_two_steps_is_noticed() {
    must_fail(each_invocation_has_one_owner::<LoadAndStore>);
}

#[test]
fn deciding_about_an_offer_without_its_name_is_noticed() {
    must_fail(each_invocation_has_one_owner::<Nameless>);
}

struct Sound;
impl Steps for Sound {}

struct NoSleeperFence;
impl Steps for NoSleeperFence {
    const SLEEPER_FENCE: bool = false;
}

struct NoWakerFence;
impl Steps for NoWakerFence {
    const WAKER_FENCE: bool = false;
}

struct NoCount;
impl Steps for NoCount {
    const COUNT: bool = false;
}

struct OnlyOnce;
impl Steps for OnlyOnce {
    const AGAIN: bool = false;
}

/// An executor waits for `count` messages, which its scheduler sends one by one, each with a look
/// for the sleeper. Nobody may be left asleep.
fn an_executor_is_woken<S: Steps>(count: u64) {
    struct Shared {
        sent: AtomicU64,
        asleep: AtomicU32,
        wakes: FutexWord,
    }
    let shared = Arc::new(Shared {
        sent: AtomicU64::new(0),
        asleep: AtomicU32::new(0),
        wakes: FutexWord::default(),
    });
    let scheduler = {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            for message in 1..=count {
                shared.sent.store(message, Ordering::Relaxed);
                doorbell::wake_if_asleep::<S>(&shared.asleep, &shared.wakes, None);
            }
        })
    };
    while shared.sent.load(Ordering::Relaxed) < count {
        let seen = shared.sent.load(Ordering::Relaxed);
        let rescan = || shared.sent.load(Ordering::Relaxed) != seen;
        if seen < count {
            doorbell::sleep::<S>(&shared.asleep, &shared.wakes, ASLEEP_IDLE, rescan, None);
        }
    }
    scheduler.join().unwrap();
}

#[test]
fn an_executor_loses_no_wake() {
    explore(|| an_executor_is_woken::<Sound>(2));
}

#[test]
fn a_missing_fence_of_the_executor_is_noticed() {
    must_fail(|| an_executor_is_woken::<NoSleeperFence>(1));
}

#[test]
fn a_missing_fence_of_its_waker_is_noticed() {
    must_fail(|| an_executor_is_woken::<NoWakerFence>(1));
}

#[test]
fn a_wake_that_is_not_counted_is_noticed() {
    must_fail(|| an_executor_is_woken::<NoCount>(1));
}

/// A scheduler waits for a message of each of two executors, which can read its word but not write
/// it.
fn a_scheduler_is_woken<S: Steps>(executors: u64, messages: u64) {
    struct Shared {
        sent: [AtomicU64; 2],
        word: SleepWord,
    }
    let shared = Arc::new(Shared {
        sent: [AtomicU64::new(0), AtomicU64::new(0)],
        word: SleepWord::default(),
    });
    let ringers: Vec<_> = (0..executors)
        .map(|executor| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let ended = AtomicU32::new(0);
                for message in 1..=messages {
                    shared.sent[executor as usize].store(message, Ordering::Relaxed);
                    shared.word.wake_if_asleep::<S>(&ended);
                }
            })
        })
        .collect();
    let look = || -> u64 {
        let load = |sent: &AtomicU64| sent.load(Ordering::Relaxed);
        shared.sent.iter().map(load).sum()
    };
    loop {
        let seen = look();
        if seen == executors * messages {
            break;
        }
        shared.word.sleep::<S>(|| look() != seen, None);
    }
    for ringer in ringers {
        ringer.join().unwrap();
    }
}

#[test]
fn a_scheduler_loses_no_wake_of_one_that_can_only_read() {
    explore(|| a_scheduler_is_woken::<Sound>(1, 2));
}

#[test]
fn a_scheduler_loses_no_wake_of_two() {
    // Three parties, two of which try again and again: fewer preemptions have to do.
    explore_with(1, || a_scheduler_is_woken::<Sound>(2, 1));
}

#[test]
fn a_missing_fence_of_the_scheduler_is_noticed() {
    must_fail(|| a_scheduler_is_woken::<NoSleeperFence>(1, 1));
}

#[test]
fn a_missing_fence_of_a_ringer_is_noticed() {
    must_fail(|| a_scheduler_is_woken::<NoWakerFence>(1, 1));
}

#[test]
fn ringing_only_once_is_noticed() {
    must_fail(|| a_scheduler_is_woken::<OnlyOnce>(1, 1));
}

/// A producer with more messages than its ring has room for sleeps when it is full; the consumer
/// looks for it only where its index passes half the ring, and must never find the ring empty with
/// the producer asleep.
fn a_full_ring_is_waited_for<S: Steps>(slot_count: u64, messages: u64) {
    struct Shared {
        consumed: AtomicU64,
        asleep: AtomicU32,
        wakes: FutexWord,
    }
    let memory = slots(slot_count as usize);
    let shared = Arc::new(Shared {
        consumed: AtomicU64::new(0),
        asleep: AtomicU32::new(0),
        wakes: FutexWord::default(),
    });
    let mut producer = Producer::<_, SoundRing>::new(Arc::clone(&memory), 7);
    let theirs = Arc::clone(&shared);
    let sender = thread::spawn(move || {
        for message in 1..=messages {
            while producer.push(&[data(message)], &theirs.consumed).is_err() {
                let rescan = || producer.has_room(1, &theirs.consumed);
                let why = ASLEEP_FOR_ROOM;
                doorbell::sleep::<S>(&theirs.asleep, &theirs.wakes, why, rescan, None);
            }
        }
    });
    let mut consumer = Consumer::<_, SoundRing>::new(memory, 7);
    let mut out = [[0; 7]; 10];
    for message in 1..=messages {
        while consumer.pop(&mut out).expect("an honest producer") == 0 {
            thread::yield_now();
        }
        assert_eq!(number(&out[0]), message);
        consumer.publish_index(&shared.consumed);
        if consumer.position().is_multiple_of(slot_count / 2) {
            let why = Some(ASLEEP_FOR_ROOM);
            doorbell::wake_if_asleep::<S>(&shared.asleep, &shared.wakes, why);
        }
    }
    sender.join().unwrap();
}

#[test]
fn a_producer_that_sleeps_on_a_full_ring_is_woken() {
    explore(|| a_full_ring_is_waited_for::<Sound>(2, 4));
}

#[test]
fn a_producer_is_woken_by_looks_at_every_half_of_a_longer_ring() {
    explore(|| a_full_ring_is_waited_for::<Sound>(4, 6));
}

#[test]
fn a_missing_fence_at_a_full_ring_is_noticed() {
    must_fail(|| a_full_ring_is_waited_for::<NoSleeperFence>(2, 4));
}
