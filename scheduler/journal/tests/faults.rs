//! A disk that fails at the n-th operation, for every n: nothing panics, nothing acknowledged is
//! lost, nothing refused appears, and a disk that works again is used again.
#![forbid(unsafe_code)]

mod support;

use std::collections::BTreeMap;

use pheromone_journal::{Journal, Receipt, WriteError};
use support::disk::{Fault, Sim};
use support::{Random, SMALL, delete, end, hand_over, insert, payload, put, replace, write};

/// Numbers of Linux for "input/output error", "no space left" and "read-only file system".
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

/// What is known of a key: what was acknowledged last, and what was refused since.
#[derive(Clone, Debug, Default)]
struct Known {
    acknowledged: Option<Vec<u8>>,
    refused: Vec<Option<Vec<u8>>>,
}

type Keys = BTreeMap<String, Known>;

/// Writes objects, replaces, deletes, ends sessions and compacts, and remembers what was
/// acknowledged.
fn script(journal: &Journal, keys: &mut Keys) {
    for n in 0..24_u64 {
        let key = format!("key{}", n % 5);
        let known = keys.entry(key.clone()).or_default();
        let session = u128::from(n);
        let (outcome, value) = if n % 6 == 5 {
            (put(journal, delete(&key), b""), None)
        } else {
            let value = vec![n as u8; 700];
            (
                put(journal, replace(&key, session, 1, 0), &value),
                Some(value),
            )
        };
        match outcome {
            Ok(_) => {
                *known = Known {
                    acknowledged: value,
                    refused: Vec::new(),
                };
            }
            Err(WriteError::Disk(_)) => known.refused.push(value),
            Err(error) => panic!("{error}"),
        }
        let _ = put(journal, end(session), b"");
        if n % 4 == 3 {
            let _ = journal.compact();
        }
    }
}

/// Every key stands for what was acknowledged, or (`or_refused`) for what was refused since.
fn check(journal: &Journal, keys: &Keys, or_refused: bool, context: &str) {
    for (key, known) in keys {
        let found = payload(journal, key);
        let is_refused = or_refused && known.refused.contains(&found);
        assert!(
            found == known.acknowledged || is_refused,
            "{context}: {key} is {:?}, not {:?}",
            found.map(|found| found[0]),
            known.acknowledged.as_ref().map(|value| value[0]),
        );
    }
}

/// Runs the script with a fault; false once the script has ended before it came.
fn survives(fault: Fault, n: u64) -> bool {
    let context = format!("{fault:?}");
    let sim = Sim::new();
    sim.set_fault(fault);
    let mut keys = Keys::new();
    let Ok((journal, _)) = Journal::open_on(sim.disk(), SMALL) else {
        sim.set_fault(Fault::None);
        let (journal, _) = Journal::open_on(sim.disk(), SMALL).expect("a disk that works again");
        write(&journal, insert("new", 99, 1), b"");
        return true;
    };
    script(&journal, &mut keys);
    check(&journal, &keys, false, &context);
    let has_failed = sim.operations() > n;
    // What a loss of power, or of the process alone, would have left just now.
    let mut random = Random(n);
    for after in [sim.crash(&mut random), sim.crash(&mut random), sim.copy()] {
        let (journal, _) = Journal::open_on(after.disk(), SMALL).expect("recovered");
        check(&journal, &keys, true, &context);
    }
    // The disk works again: so does the journal, and what was refused is gone for good.
    sim.set_fault(Fault::None);
    write(&journal, insert("new", 99, 1), b"new");
    check(&journal, &keys, false, &context);
    drop(journal);
    for after in [sim.crash(&mut random), sim.copy()] {
        let (journal, recovered) = Journal::open_on(after.disk(), SMALL).expect("recovered");
        assert_eq!(recovered.reports, [], "{context}");
        assert_eq!(payload(&journal, "new").expect("acknowledged"), b"new");
        check(&journal, &keys, false, &context);
    }
    has_failed
}

#[test]
fn one_operation_fails_whichever_it_is() {
    for error in [EIO, ENOSPC] {
        let mut n = 0;
        while survives(Fault::Once(n, error), n) {
            n += 1;
        }
        assert!(n > 50, "only {n} operations");
    }
}

#[test]
fn a_disk_fails_for_good_whenever_it_does() {
    for error in [ENOSPC, EROFS] {
        let mut n = 0;
        while survives(Fault::From(n, error), n) && n < 200 {
            n += 1;
        }
        assert!(n > 50, "only {n} operations");
    }
}

#[test]
fn short_writes_are_continued() {
    for n in [0, 3, 10] {
        let sim = Sim::new();
        sim.set_fault(Fault::Short(n));
        let (journal, _) = Journal::open_on(sim.disk(), SMALL).expect("opened");
        let mut keys = Keys::new();
        script(&journal, &mut keys);
        assert!(keys.values().all(|known| known.refused.is_empty()));
        drop(journal);
        let (journal, recovered) = Journal::open_on(sim.disk(), SMALL).expect("recovered");
        assert_eq!(recovered.reports, []);
        check(&journal, &keys, false, "short writes");
    }
}

#[test]
fn after_a_failed_flush_a_new_segment_is_begun_and_the_old_one_is_cut() {
    let sim = Sim::new();
    let (journal, _) = Journal::open_on(sim.disk(), SMALL).expect("opened");
    write(&journal, insert("before", 1, 1), b"before");
    let old = sim.last_segment();
    let trusted = sim.content(&old);
    // The next operation is the write, the one after it the flush.
    sim.set_fault(Fault::Once(sim.operations() + 1, EIO));
    let refused = put(&journal, insert("lost", 2, 1), b"lost");
    assert!(matches!(refused, Err(WriteError::Disk(_))), "{refused:?}");
    assert_eq!(payload(&journal, "lost"), None);
    write(&journal, insert("after", 3, 1), b"after");
    assert_ne!(sim.last_segment(), old);
    assert_eq!(sim.content(&old), trusted);
    assert_eq!(journal.stats().failed_batches, 1);
    // The sender may try again under the same identity.
    write(&journal, insert("lost", 2, 1), b"found");
    drop(journal);
    let (journal, _) = Journal::open_on(sim.disk(), SMALL).expect("recovered");
    for (key, value) in [("before", "before"), ("after", "after"), ("lost", "found")] {
        assert_eq!(
            payload(&journal, key).expect("acknowledged"),
            value.as_bytes()
        );
    }
}

#[test]
fn all_that_were_in_a_refused_write_hear_of_it() {
    let sim = Sim::new();
    let (journal, _) = Journal::open_on(sim.disk(), SMALL).expect("opened");
    sim.set_fault(Fault::From(sim.operations(), ENOSPC));
    let sends: Vec<_> = (0..200)
        .map(|n| {
            hand_over(
                &journal,
                insert(&format!("key{n}"), n, 1),
                pheromone_journal::Payload::Empty,
            )
        })
        .collect();
    for send in sends {
        let refused = send.wait();
        assert!(matches!(refused, Err(WriteError::Disk(_))), "{refused:?}");
    }
    sim.set_fault(Fault::None);
    let accepted = put(&journal, insert("key7", 7, 1), b"");
    assert!(matches!(accepted, Ok(Receipt::Written(_))), "{accepted:?}");
}
