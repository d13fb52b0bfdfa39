//! What entries mean: who finds what, what repeats, what is refused, and what a restart gives back.
#![forbid(unsafe_code)]

mod support;

use pheromone_journal::{Entry, Journal, Payload, Receipt, Recovered, WriteError};
use support::disk::Sim;
use support::{
    SMALL, compact, delete, end, expire, firing, hand_over, insert, payload, put, replace, request,
    response, retained, success, write,
};

fn open(sim: &Sim) -> (Journal, Recovered) {
    Journal::open_on(sim.disk(), SMALL).expect("a sound journal")
}

fn reopen(sim: &Sim, journal: Journal) -> (Journal, Recovered) {
    drop(journal);
    let (journal, recovered) = open(sim);
    assert_eq!(recovered.reports, []);
    (journal, recovered)
}

/// The numbers of the entries that a restart gives back for a session.
fn entries(recovered: &Recovered, session: u128) -> Option<Vec<u64>> {
    let found = recovered
        .sessions
        .iter()
        .find(|unfinished| unfinished.session == session);
    found.map(|unfinished| {
        unfinished
            .entries
            .iter()
            .map(|entry| entry.sequence)
            .collect()
    })
}

#[test]
fn an_object_is_found_with_all_that_was_said_of_it_before_and_after_a_restart() {
    let sim = Sim::new();
    let (journal, _) = open(&sim);
    let sequence = write(&journal, insert("key", u128::MAX, 7), b"payload");
    let mut journal = journal;
    for _ in 0..2 {
        let stored = journal.find("app", "bucket", b"key").expect("found");
        assert_eq!(stored.sequence, sequence);
        assert_eq!(
            Entry::Object((*stored.object).clone()),
            insert("key", u128::MAX, 7)
        );
        assert_eq!(stored.payload.size_bytes(), 7);
        assert_eq!(stored.payload.to_vec().expect("sound"), b"payload");
        assert!(journal.find("app", "bucket", b"other").is_none());
        assert!(journal.find("app", "other", b"key").is_none());
        assert!(journal.find("other", "bucket", b"key").is_none());
        journal = reopen(&sim, journal).0;
    }
}

#[test]
fn without_replace_a_second_object_is_refused_and_the_same_send_is_absorbed() {
    let (journal, _) = open(&Sim::new());
    let first = write(&journal, insert("key", 1, 1), b"one");
    for (session, invocation) in [(1, 2), (2, 1)] {
        let refused = put(&journal, insert("key", session, invocation), b"two");
        assert!(
            matches!(refused, Err(WriteError::Exists { .. })),
            "{refused:?}"
        );
    }
    let repeated = put(&journal, insert("key", 1, 1), b"three");
    assert_eq!(repeated.expect("absorbed"), Receipt::Repeated(first));
    assert_eq!(payload(&journal, "key").expect("found"), b"one");
}

#[test]
fn with_replace_every_send_replaces_but_what_a_further_attempt_repeats() {
    let (journal, _) = open(&Sim::new());
    let first = write(&journal, replace("key", 1, 1, 0), b"one");
    write(&journal, replace("key", 2, 1, 0), b"two");
    // Another attempt of the first invocation does the same again, and goes on.
    let repeated = put(&journal, replace("key", 1, 1, 0), b"one again");
    assert_eq!(repeated.expect("absorbed"), Receipt::Repeated(first));
    assert_eq!(payload(&journal, "key").expect("found"), b"two");
    write(&journal, replace("key", 1, 1, 1), b"three");
    assert_eq!(payload(&journal, "key").expect("found"), b"three");
}

#[test]
fn sends_are_remembered_until_the_session_ends_over_restarts_deletions_and_compaction() {
    let sim = Sim::new();
    let (journal, _) = open(&sim);
    let first = write(&journal, replace("key", 1, 1, 0), &[1; 3000]);
    write(&journal, replace("key", 2, 1, 0), &[2; 3000]);
    write(&journal, delete("key"), b"");
    write(&journal, end(2), b"");
    compact(&journal);
    let (journal, _) = reopen(&sim, journal);
    let repeated = put(&journal, replace("key", 1, 1, 0), b"again");
    assert_eq!(repeated.expect("absorbed"), Receipt::Repeated(first));
    assert_eq!(payload(&journal, "key"), None);
}

#[test]
fn of_many_sends_in_one_write_the_first_wins_and_each_hears_its_own_fate() {
    let (journal, _) = open(&Sim::new());
    let sends: Vec<_> = (0..100)
        .map(|session| hand_over(&journal, insert("key", session, 1), Payload::Empty))
        .collect();
    let outcomes: Vec<_> = sends.into_iter().map(support::Pending::wait).collect();
    assert!(
        matches!(outcomes[0], Ok(Receipt::Written(_))),
        "{:?}",
        outcomes[0]
    );
    let refused = outcomes[1..].iter();
    for outcome in refused {
        assert!(
            matches!(outcome, Err(WriteError::Exists { .. })),
            "{outcome:?}"
        );
    }
}

#[test]
fn a_deleted_object_is_not_found_and_its_name_is_free() {
    let sim = Sim::new();
    let (journal, _) = open(&sim);
    assert_eq!(
        put(&journal, delete("key"), b"").expect("no matter"),
        Receipt::Needless
    );
    write(&journal, insert("key", 1, 1), b"one");
    write(&journal, delete("key"), b"");
    assert_eq!(payload(&journal, "key"), None);
    let (journal, _) = reopen(&sim, journal);
    assert_eq!(payload(&journal, "key"), None);
    write(&journal, insert("key", 2, 1), b"two");
    assert_eq!(payload(&journal, "key").expect("found"), b"two");
}

#[test]
fn who_reads_an_old_version_keeps_it() {
    let sim = Sim::new();
    let (journal, _) = open(&sim);
    write(&journal, replace("key", 1, 1, 0), &[1; 5000]);
    let old = journal.find("app", "bucket", b"key").expect("found");
    write(&journal, end(1), b"");
    write(&journal, replace("key", 2, 1, 0), &[2; 5000]);
    write(&journal, delete("key"), b"");
    write(&journal, end(2), b"");
    write(&journal, insert("other", 3, 1), b"");
    compact(&journal);
    assert!(sim.bytes() < 5000, "{} bytes on the disk", sim.bytes());
    assert_eq!(old.payload.to_vec().expect("kept"), [1; 5000]);
    drop(journal);
    assert_eq!(old.payload.to_vec().expect("kept"), [1; 5000]);
}

#[test]
fn objects_expire_by_the_clock_that_is_passed_in_and_stay_expired() {
    let sim = Sim::new();
    let (journal, _) = open(&sim);
    write(&journal, retained("early", 1, 100), b"");
    write(&journal, retained("late", 2, 200), b"");
    write(&journal, insert("forever", 3, 1), b"");
    assert_eq!(expire(&journal, 99).expect("a disk that works"), 0);
    assert_eq!(expire(&journal, 100).expect("a disk that works"), 1);
    assert_eq!(payload(&journal, "early"), None);
    let (journal, _) = reopen(&sim, journal);
    assert_eq!(payload(&journal, "early"), None);
    assert!(payload(&journal, "late").is_some());
    // What takes the place of an object has an expiry of its own.
    write(&journal, replace("late", 4, 1, 0), b"");
    assert_eq!(expire(&journal, u64::MAX).expect("a disk that works"), 0);
    assert!(payload(&journal, "late").is_some() && payload(&journal, "forever").is_some());
}

#[test]
fn a_restart_gives_back_unfinished_sessions_with_their_entries_in_order() {
    let sim = Sim::new();
    let (journal, _) = open(&sim);
    let mut expected = vec![write(&journal, request(1), b"body")];
    write(&journal, request(2), b"another");
    let input = write(&journal, insert("key", 1, 1), b"input");
    expected.push(input);
    expected.push(write(&journal, firing(1, 2, &[input]), b""));
    expected.push(write(&journal, success(1, 2), b""));
    expected.push(write(&journal, response(1), b"answer"));
    write(&journal, end(2), b"");
    let (_journal, recovered) = reopen(&sim, journal);
    assert_eq!(entries(&recovered, 1), Some(expected));
    assert_eq!(entries(&recovered, 2), None);
    let entries = &recovered.sessions[0].entries;
    assert_eq!(entries[0].entry, request(1));
    assert_eq!(entries[0].payload.to_vec().expect("sound"), b"body");
    assert_eq!(entries[2].entry, firing(1, 2, &[input]));
    assert_eq!(entries[4].payload.to_vec().expect("sound"), b"answer");
}

#[test]
fn an_ended_session_takes_nothing_more_and_needs_no_second_end() {
    let (journal, _) = open(&Sim::new());
    write(&journal, request(1), b"");
    let ended = write(&journal, end(1), b"");
    for entry in [
        request(1),
        insert("key", 1, 1),
        firing(1, 1, &[]),
        success(1, 1),
        response(1),
    ] {
        let refused = put(&journal, entry, b"");
        assert!(
            matches!(refused, Err(WriteError::SessionEnded)),
            "{refused:?}"
        );
    }
    assert_eq!(
        put(&journal, end(1), b"").expect("no matter"),
        Receipt::Repeated(ended)
    );
    assert_eq!(
        put(&journal, end(2), b"").expect("no matter"),
        Receipt::Needless
    );
}

#[test]
fn a_request_a_firing_and_a_response_take_effect_once() {
    let (journal, _) = open(&Sim::new());
    for entry in [request(1), firing(1, 5, &[]), response(1)] {
        let first = write(&journal, entry.clone(), b"one");
        let repeated = put(&journal, entry, b"two");
        assert_eq!(repeated.expect("absorbed"), Receipt::Repeated(first));
    }
    write(&journal, firing(1, 6, &[]), b"");
}

#[test]
fn a_firing_keeps_its_inputs_until_it_has_succeeded() {
    let sim = Sim::new();
    let (journal, _) = open(&sim);
    let input = write(&journal, replace("key", 1, 1, 0), &[1; 5000]);
    write(&journal, firing(9, 1, &[input]), b"");
    write(&journal, end(1), b"");
    write(&journal, replace("key", 2, 1, 0), &[2; 5000]);
    write(&journal, delete("key"), b"");
    write(&journal, end(2), b"");
    let mut journal = journal;
    for _ in 0..2 {
        compact(&journal);
        let stored = journal.object(input).expect("kept for its firing");
        assert_eq!(stored.payload.to_vec().expect("sound"), [1; 5000]);
        journal = reopen(&sim, journal).0;
    }
    write(&journal, success(9, 1), b"");
    assert!(journal.object(input).is_none());
    compact(&journal);
    assert!(sim.bytes() < 5000, "{} bytes on the disk", sim.bytes());
}

#[test]
fn a_session_is_given_back_with_the_firings_that_took_its_objects() {
    let sim = Sim::new();
    let (journal, _) = open(&sim);
    let taken = write(&journal, insert("taken", 1, 1), b"");
    let fired = write(&journal, firing(9, 1, &[taken]), b"");
    let waiting = write(&journal, insert("waiting", 1, 1), b"");
    write(&journal, success(9, 1), b"");
    write(&journal, end(9), b"");
    write(&journal, insert("filler", 3, 1), &[0; 5000]);
    let mut journal = journal;
    for _ in 0..3 {
        compact(&journal);
        let (next, recovered) = reopen(&sim, journal);
        assert_eq!(entries(&recovered, 1), Some(vec![taken, fired, waiting]));
        assert_eq!(entries(&recovered, 9), None);
        journal = next;
    }
}

#[test]
fn names_payloads_and_groups_beyond_their_limits_are_refused() {
    let (journal, _) = open(&Sim::new());
    let long = "k".repeat(256);
    for key in ["", long.as_str()] {
        let refused = put(&journal, insert(key, 1, 1), b"");
        assert!(matches!(refused, Err(WriteError::TooLarge)), "{refused:?}");
    }
    write(&journal, insert(&long[..255], 1, 1), b"");
}

#[test]
fn a_closed_journal_has_written_what_was_handed_over_before() {
    let sim = Sim::new();
    let (journal, _) = open(&sim);
    let sends: Vec<_> = (0..50)
        .map(|n| hand_over(&journal, insert(&format!("key{n}"), 1, 1), Payload::Empty))
        .collect();
    drop(journal);
    for send in sends {
        assert!(matches!(send.wait(), Ok(Receipt::Written(_))));
    }
    let (_journal, recovered) = open(&sim);
    assert_eq!(recovered.objects, 50);
}
