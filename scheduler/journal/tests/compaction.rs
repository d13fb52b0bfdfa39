//! How much room the journal takes, and that compaction loses nothing, wherever it is stopped.
#![forbid(unsafe_code)]

mod support;

use std::collections::BTreeMap;

use pheromone_journal::{Journal, Options, Payload};
use support::disk::{Fault, Sim};
use support::{Random, SMALL, compact, delete, end, hand_over, insert, payload, replace, write};

/// Bytes of an object's record, and of its session's end, beside its payload.
const OVERHEAD_BYTES: u64 = 200;
/// Bytes of the longest payload here.
const PAYLOAD_BYTES_MAX: u64 = 2000;
/// Number of Linux for "input/output error".
const EIO: i32 = 5;

fn open(sim: &Sim) -> Journal {
    Journal::open_on(sim.disk(), SMALL)
        .expect("a sound journal")
        .0
}

/// The bound that `docs/journal.md` states.
fn bound(live_bytes: u64) -> u64 {
    2 * live_bytes + 2 * (SMALL.segment_bytes + PAYLOAD_BYTES_MAX + OVERHEAD_BYTES)
}

#[test]
fn the_disk_holds_twice_what_is_live_and_two_segments_at_most() {
    let sim = Sim::new();
    let journal = open(&sim);
    let mut random = Random(1);
    let mut live: BTreeMap<String, u64> = BTreeMap::new();
    for session in 0..3000 {
        let key = format!("key{}", random.below(60));
        if random.below(3) == 0 {
            hand_over(&journal, delete(&key), Payload::Empty);
            live.remove(&key);
        } else {
            let length = random.below(PAYLOAD_BYTES_MAX);
            let payload = Payload::Bytes(vec![0; length as usize]);
            hand_over(&journal, replace(&key, session, 1, 0), payload);
            hand_over(&journal, end(session), Payload::Empty);
            live.insert(key, length);
        }
        if session % 100 == 0 {
            write(&journal, replace("marker", 10_000 + session, 1, 0), b"");
            write(&journal, end(10_000 + session), b"");
            compact(&journal);
            let live_bytes = live.values().sum::<u64>() + (live.len() as u64 + 1) * OVERHEAD_BYTES;
            let bytes = sim.bytes();
            assert!(
                bytes <= bound(live_bytes),
                "{bytes} bytes for {live_bytes} live ones"
            );
        }
    }
    drop(journal);
    let journal = open(&sim);
    for (key, length) in live {
        assert_eq!(payload(&journal, &key).expect("live").len() as u64, length);
    }
}

#[test]
fn what_says_that_something_is_over_goes_with_it() {
    let sim = Sim::new();
    let journal = open(&sim);
    for session in 0..2000 {
        let key = format!("key{session}");
        hand_over(&journal, insert(&key, session, 1), Payload::Empty);
        hand_over(&journal, delete(&key), Payload::Empty);
        // Waited for, so that no write is long.
        write(&journal, end(session), b"");
        if session % 200 == 199 {
            write(&journal, replace("marker", 10_000, 1, session as u64), b"");
            compact(&journal);
        }
    }
    // The marker's session is open and holds its ten versions.
    assert!(
        sim.bytes() <= bound(11 * OVERHEAD_BYTES),
        "{} bytes are left",
        sim.bytes()
    );
    assert!(
        sim.names().len() < 8,
        "{} files are left",
        sim.names().len()
    );
}

#[test]
fn segments_with_little_left_are_merged() {
    let sim = Sim::new();
    let journal = open(&sim);
    for session in 0..100 {
        write(
            &journal,
            insert(&format!("key{session}"), session, 1),
            &[session as u8],
        );
        write(&journal, replace("filler", session, 1, 0), &[0; 4200]);
        write(&journal, end(session), b"");
        compact(&journal);
    }
    let segments = journal.stats().segments;
    assert!(
        segments < 20,
        "{segments} segments for a hundred small objects"
    );
    drop(journal);
    let journal = open(&sim);
    for session in 0..100 {
        assert_eq!(
            payload(&journal, &format!("key{session}")).expect("live"),
            [session as u8]
        );
    }
}

/// A journal in which much is worth compacting, and what its keys stand for.
fn worth_compacting() -> (Sim, BTreeMap<String, Option<Vec<u8>>>) {
    let sim = Sim::new();
    let journal = open(&sim);
    let mut expected = BTreeMap::new();
    for n in 0..40_u8 {
        let key = format!("key{}", n % 13);
        let session = u128::from(n);
        if n % 7 == 6 {
            write(&journal, replace(&key, session, 1, 0), b"");
            write(&journal, delete(&key), b"");
            expected.insert(key, None);
        } else {
            let payload = vec![n; 100 * usize::from(n % 9)];
            write(&journal, replace(&key, session, 1, 0), &payload);
            expected.insert(key, Some(payload));
        }
        write(&journal, end(session), b"");
    }
    write(&journal, insert("last", 99, 1), &[0; 5000]);
    write(&journal, insert("newest", 100, 1), b"");
    drop(journal);
    (sim, expected)
}

#[test]
fn compaction_can_be_stopped_at_every_operation_and_tried_again() {
    let (sim, expected) = worth_compacting();
    let mut random = Random(2);
    let check = |journal: &Journal, context: &str| {
        for (key, value) in &expected {
            assert_eq!(payload(journal, key), *value, "{context}: {key}");
        }
    };
    let mut n = 0;
    loop {
        let sim = sim.copy();
        let journal = open(&sim);
        let stop_at = sim.operations() + n;
        sim.set_fault(Fault::From(stop_at, EIO));
        while matches!(journal.compact(), Ok(true)) {}
        let has_stopped = sim.operations() > stop_at;
        let context = format!("stopped at {n}");
        check(&journal, &context);
        for _ in 0..8 {
            let after = sim.crash(&mut random);
            let journal = open(&after);
            check(&journal, &context);
            compact(&journal);
            check(&journal, &context);
            drop(journal);
            check(&open(&after), &context);
        }
        sim.set_fault(Fault::None);
        compact(&journal);
        check(&journal, &context);
        if !has_stopped {
            break;
        }
        n += 1;
    }
    assert!(n >= 5, "compaction has only {n} operations");
}

#[test]
fn a_segment_that_rots_is_left_alone_and_the_others_are_compacted() {
    let (sim, _) = worth_compacting();
    let first = sim
        .names()
        .into_iter()
        .find(|name| name.ends_with(".log"))
        .expect("a segment");
    let journal = open(&sim);
    let mut content = sim.content(&first);
    // The header of the second record or so.
    content[300..400].fill(0);
    sim.set_content(&first, content.clone());
    let failure = (0..20).find_map(|_| journal.compact().err());
    assert!(failure.is_some(), "the damage is noticed");
    compact(&journal);
    assert_eq!(sim.content(&first), content);
    assert!(journal.stats().failed_compactions > 0);
}

#[test]
fn numbers_are_not_used_again_when_all_that_had_them_is_gone() {
    let sim = Sim::new();
    let mut last = 0;
    for session in 0..5 {
        let journal = open(&sim);
        let sequence = write(&journal, insert("key", session, 1), &[0; 5000]);
        assert!(sequence > last, "{sequence} after {last}");
        write(&journal, delete("key"), b"");
        write(&journal, end(session), b"");
        last = sequence + 2;
        compact(&journal);
    }
}

#[test]
fn compaction_runs_by_itself() {
    let sim = Sim::new();
    let options = Options {
        compacts: true,
        ..SMALL
    };
    let (journal, _) = Journal::open_on(sim.disk(), options).expect("opened");
    for session in 0..400 {
        write(&journal, replace("key", session, 1, 0), &[0; 1000]);
        write(&journal, end(session), b"");
    }
    // Closing waits for the compactor; what the last turn left is done at the next opening.
    drop(journal);
    let (journal, _) = Journal::open_on(sim.disk(), options).expect("opened");
    drop(journal);
    assert!(
        sim.bytes() <= bound(1000 + OVERHEAD_BYTES),
        "{} bytes are left",
        sim.bytes()
    );
}
