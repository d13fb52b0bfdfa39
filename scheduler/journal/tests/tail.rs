//! Every way in which the end of a journal can be cut or changed: nothing before is lost, nothing
//! false is found, and what is missing is reported.
#![forbid(unsafe_code)]

mod support;

use pheromone_journal::{Entry, Journal, ReadError, Recovered, Report, parse_segment};
use support::disk::Sim;
use support::{SMALL, insert, payload, replace, write};

fn open(sim: &Sim) -> (Journal, Recovered) {
    Journal::open_on(sim.disk(), SMALL).expect("damage at the end is no obstacle")
}

/// One object of the script, and where its record ends.
struct Written {
    key: String,
    payload: Vec<u8>,
    begin: usize,
    end: usize,
}

/// A journal of one segment in which each key is written once, but `twice`, which is replaced.
fn script() -> (Sim, Vec<Written>) {
    let sim = Sim::new();
    let (journal, _) = open(&sim);
    let mut written: Vec<Written> = Vec::new();
    let keys = ["first", "twice", "empty", "second", "twice", "last"];
    for (n, key) in keys.into_iter().enumerate() {
        let payload = if key == "empty" {
            Vec::new()
        } else {
            vec![n as u8; 17 + n]
        };
        write(&journal, replace(key, n as u128, 1, 0), &payload);
        let begin = written.last().map_or(64, |before| before.end);
        written.push(Written {
            key: key.to_owned(),
            payload,
            begin,
            end: sim.content(&sim.last_segment()).len(),
        });
    }
    drop(journal);
    (sim, written)
}

/// What a key stands for after the first `count` objects.
fn expected<'a>(written: &'a [Written], count: usize, key: &str) -> Option<&'a [u8]> {
    let of_key = written[..count]
        .iter()
        .rev()
        .find(|object| object.key == key);
    of_key.map(|object| object.payload.as_slice())
}

#[test]
fn a_journal_cut_at_any_byte_holds_all_that_lies_before_and_goes_on() {
    let (sim, written) = script();
    let name = sim.last_segment();
    let content = sim.content(&name);
    for cut in 0..=content.len() {
        let sim = sim.copy();
        sim.set_content(&name, content[..cut].to_vec());
        let count = written.iter().filter(|object| object.end <= cut).count();
        let is_clean = cut == 64 || written.iter().any(|object| object.end == cut);
        let (journal, recovered) = open(&sim);
        let is_reported = matches!(recovered.reports[..], [Report::Torn { .. }]);
        // A header that was being written is no loss to speak of.
        assert_eq!(
            is_reported,
            !is_clean && cut > 64,
            "cut at {cut}: {:?}",
            recovered.reports
        );
        for object in &written {
            let found = payload(&journal, &object.key);
            assert_eq!(
                found.as_deref(),
                expected(&written, count, &object.key),
                "cut at {cut}"
            );
        }
        write(&journal, replace("more", 9, 1, 0), b"more");
        drop(journal);
        let (journal, recovered) = open(&sim);
        assert_eq!(recovered.reports, [], "cut at {cut}, opened again");
        assert_eq!(payload(&journal, "more").expect("found"), b"more");
        let found = payload(&journal, "twice");
        assert_eq!(
            found.as_deref(),
            expected(&written, count, "twice"),
            "cut at {cut}"
        );
    }
}

#[test]
fn any_bit_changed_costs_what_it_belongs_to_and_nothing_before_it() {
    let (sim, written) = script();
    let name = sim.last_segment();
    let content = sim.content(&name);
    for bit in 64 * 8..content.len() * 8 {
        let sim = sim.copy();
        let mut changed = content.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        sim.set_content(&name, changed);
        let (journal, recovered) = open(&sim);
        let hit = written
            .iter()
            .position(|object| object.end > bit / 8)
            .expect("in a record");
        let is_header = bit / 8 < written[hit].begin + 40;
        for (n, object) in written.iter().enumerate() {
            let stored = journal.find("app", "bucket", object.key.as_bytes());
            let found = stored.map(|stored| stored.payload.to_vec());
            let is_lost = n == hit || (is_header && n > hit);
            let is_replaced = object.key == "twice" && n == 1;
            match found {
                Some(Ok(payload)) => {
                    let mut versions = written.iter().filter(|other| other.key == object.key);
                    assert!(
                        versions.any(|other| other.payload == payload),
                        "bit {bit}: invented"
                    );
                    if !is_lost && !is_replaced {
                        assert_eq!(payload, object.payload, "bit {bit}, object {n}");
                    }
                }
                Some(Err(ReadError::Spoiled { .. })) => {
                    assert!(is_lost || is_replaced, "bit {bit}, object {n}");
                }
                Some(Err(error)) => panic!("bit {bit}: {error}"),
                None => assert!(is_lost || is_replaced, "bit {bit}, object {n}"),
            }
            let is_missing = journal
                .find("app", "bucket", object.key.as_bytes())
                .is_none();
            assert!(
                !is_missing || !recovered.reports.is_empty(),
                "bit {bit}: silent loss"
            );
        }
    }
}

#[test]
fn a_spoiled_payload_before_the_last_write_is_found_and_cannot_be_read() {
    let (sim, written) = script();
    let name = sim.last_segment();
    let mut content = sim.content(&name);
    let payload_at = written[0].end - 16;
    content[payload_at] ^= 1;
    sim.set_content(&name, content);
    let (journal, recovered) = open(&sim);
    assert!(
        matches!(&recovered.reports[..], [Report::SpoiledObject { name, .. }] if name.key == b"first"),
        "{:?}",
        recovered.reports
    );
    let stored = journal.find("app", "bucket", b"first").expect("known");
    assert!(matches!(
        stored.payload.to_vec(),
        Err(ReadError::Spoiled { .. })
    ));
    assert_eq!(
        payload(&journal, "last").expect("untouched"),
        written[5].payload
    );
}

#[test]
fn a_spoiled_payload_of_the_last_write_was_never_there_also_after_further_restarts() {
    let (sim, written) = script();
    let name = sim.last_segment();
    // Cut before `last`, so that the replacement of `twice` is the last write.
    let mut content = sim.content(&name)[..written[4].end].to_vec();
    let payload_at = written[4].end - 16;
    content[payload_at] ^= 1;
    sim.set_content(&name, content);
    let (journal, recovered) = open(&sim);
    assert!(
        matches!(recovered.reports[..], [Report::Unwritten { .. }]),
        "{:?}",
        recovered.reports
    );
    assert_eq!(
        payload(&journal, "twice").expect("the first"),
        written[1].payload
    );
    write(&journal, insert("more", 9, 1), b"");
    drop(journal);
    let (journal, recovered) = open(&sim);
    assert_eq!(recovered.reports, []);
    assert_eq!(
        payload(&journal, "twice").expect("the first"),
        written[1].payload
    );
}

#[test]
fn a_broken_chain_with_acknowledged_entries_behind_is_reported_at_each_opening_and_kept() {
    let (sim, written) = script();
    let name = sim.last_segment();
    let mut content = sim.content(&name);
    content[written[1].begin + 9] ^= 1;
    sim.set_content(&name, content.clone());
    for session in 10..13 {
        let (journal, recovered) = open(&sim);
        let lost = Report::Lost {
            segment: name.clone(),
            offset: written[1].begin as u64,
            bytes: (content.len() - written[1].begin) as u64,
        };
        assert_eq!(recovered.reports, [lost]);
        assert_eq!(
            payload(&journal, "first").expect("before it"),
            written[0].payload
        );
        assert_eq!(payload(&journal, "twice"), None);
        let sequence = write(&journal, replace("more", session, 1, 0), b"");
        assert!(
            sequence > 6,
            "the number {sequence} is that of a lost entry"
        );
        support::compact(&journal);
    }
    assert_eq!(sim.content(&name), content);
}

/// A journal of two segments, and where the first object of the first one ends.
fn two_segments() -> (Sim, String, usize) {
    let sim = Sim::new();
    let (journal, _) = open(&sim);
    write(&journal, insert("first", 1, 1), b"first");
    let name = sim.last_segment();
    let end = sim.content(&name).len();
    write(&journal, insert("second", 2, 1), &[2; 5000]);
    write(&journal, insert("third", 3, 1), b"third");
    assert_ne!(sim.last_segment(), name);
    (sim, name, end)
}

#[test]
fn a_segment_before_the_last_that_has_lost_its_end_is_noticed_also_between_two_records() {
    let (sim, name, end) = two_segments();
    let content = sim.content(&name);
    for length in [end, end + 11, content.len() - 8] {
        let sim = sim.copy();
        sim.set_content(&name, content[..length].to_vec());
        let (journal, recovered) = open(&sim);
        let offset = end as u64;
        let lost = Report::Lost {
            segment: name.clone(),
            offset,
            bytes: content.len() as u64 - offset,
        };
        assert_eq!(recovered.reports, [lost]);
        assert_eq!(payload(&journal, "first").expect("before it"), b"first");
        assert_eq!(payload(&journal, "second"), None);
        assert_eq!(payload(&journal, "third").expect("behind it"), b"third");
    }
}

#[test]
fn a_segment_whose_header_has_any_bit_changed_is_reported_and_the_others_are_read() {
    let (sim, name, _) = two_segments();
    let content = sim.content(&name);
    for bit in 0..64 * 8 {
        let sim = sim.copy();
        let mut changed = content.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        sim.set_content(&name, changed.clone());
        let (journal, recovered) = open(&sim);
        let segment = name.clone();
        assert_eq!(
            recovered.reports,
            [Report::NoSegment { segment }],
            "bit {bit}"
        );
        assert_eq!(payload(&journal, "third").expect("behind it"), b"third");
        write(&journal, insert("more", 9, 1), b"");
        assert_eq!(sim.content(&name), changed);
    }
}

#[test]
fn what_a_payload_says_is_never_taken_for_records() {
    // A payload that is a journal's segment, cut so that it stands behind the end of the chain.
    let (sim, written) = script();
    let name = sim.last_segment();
    let segment = sim.content(&name);
    let (journal, _) = open(&sim);
    write(&journal, insert("copy", 20, 1), &segment);
    drop(journal);
    let name = sim.last_segment();
    let content = sim.content(&name);
    sim.set_content(&name, content[..content.len() - 8].to_vec());
    let (journal, recovered) = open(&sim);
    assert!(
        matches!(recovered.reports[..], [Report::Torn { .. }]),
        "{:?}",
        recovered.reports
    );
    assert_eq!(recovered.records, written.len() as u64);
    assert_eq!(payload(&journal, "copy"), None);
}

#[test]
fn a_segment_in_memory_is_parsed_as_far_as_it_is_sound() {
    let (sim, written) = script();
    let content = sim.content(&sim.last_segment());
    let parsed = parse_segment(&content);
    assert_eq!((parsed.entries.len(), parsed.spoiled), (6, 0));
    assert_eq!(parsed.good_bytes, content.len() as u64);
    let (sequence, entry) = &parsed.entries[1];
    assert_eq!(*sequence, 2);
    assert!(matches!(entry, Entry::Object(object) if object.name.key == b"twice"));
    let parsed = parse_segment(&content[..written[2].end + 3]);
    assert_eq!(
        (parsed.entries.len(), parsed.good_bytes),
        (3, written[2].end as u64)
    );
}

proptest::proptest! {
    #[test]
    fn any_bytes_at_all_can_be_parsed(bytes in proptest::collection::vec(0_u8.., 0..400)) {
        parse_segment(&bytes);
    }

    #[test]
    fn a_segment_with_anything_changed_can_be_parsed(
        changes in proptest::collection::vec((0_usize..1000, 0_u8..), 1..8),
        length in 0_usize..1000,
    ) {
        let (sim, _) = script();
        let mut content = sim.content(&sim.last_segment());
        let sound = parse_segment(&content).entries;
        for (at, byte) in changes {
            if let Some(target) = content.get_mut(at) {
                *target = byte;
            }
        }
        content.truncate(length);
        for entry in parse_segment(&content).entries {
            proptest::prop_assert!(sound.contains(&entry), "invented {entry:?}");
        }
    }
}
