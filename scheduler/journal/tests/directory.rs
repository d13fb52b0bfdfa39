//! The journal in a real directory: who may open it, both ways of writing, payloads from and to
//! files, many submitters, and a node that is killed.
#![forbid(unsafe_code)]

mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use pheromone_journal::{
    Journal, OpenError, Options, Payload, ReadError, Receipt, Recovered, Way, WriteError,
};
use support::{end, hand_over, insert, payload, put, replace, write};

/// Where a child finds its journal.
const CHILD_DIRECTORY: &str = "PHEROMONE_JOURNAL_TEST_DIRECTORY";

/// Small segments, compacted all the time.
fn options(uses_uring: bool) -> Options {
    Options {
        segment_bytes: 64 << 10,
        uses_uring,
        ..Options::default()
    }
}

fn open(directory: &Path) -> (Journal, Recovered) {
    Journal::open(directory, options(true)).expect("opened")
}

fn refusal(directory: &Path) -> (OpenError, String) {
    let error = Journal::open(directory, options(true)).expect_err("refused");
    let sentence = error.to_string();
    (error, sentence)
}

/// A file with these bytes, without a name.
fn file(bytes: &[u8]) -> Arc<OwnedFd> {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("written");
    Arc::new(file.into())
}

#[test]
fn a_directory_is_made_and_belongs_to_one_journal_at_a_time() {
    let parent = tempfile::tempdir().expect("a directory");
    let directory = parent.path().join("made/for/it");
    let (journal, recovered) = open(&directory);
    assert!(recovered.sessions.is_empty() && recovered.reports.is_empty());
    let (error, sentence) = refusal(&directory);
    assert!(matches!(error, OpenError::Locked { .. }));
    let pid = std::process::id().to_string();
    let names_both = sentence.contains(&*directory.to_string_lossy()) && sentence.contains(&pid);
    assert!(names_both, "{sentence}");
    drop(journal);
    open(&directory);
}

#[test]
fn what_is_no_journal_of_this_version_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("format"), "pheromone journal 2\n").expect("written");
    let (error, sentence) = refusal(directory.path());
    assert!(matches!(error, OpenError::Format { .. }));
    assert!(sentence.contains("`pheromone journal 2`"), "{sentence}");

    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("0000000000000001.log"), "mine").expect("written");
    let (error, _) = refusal(directory.path());
    assert!(matches!(error, OpenError::NoFormat));
    let kept = fs::read(directory.path().join("0000000000000001.log")).expect("kept");
    assert_eq!(kept, b"mine");
}

#[test]
fn a_place_where_no_directory_can_be_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("file");
    fs::write(&path, "").expect("written");
    let (error, sentence) = refusal(&path);
    assert!(matches!(error, OpenError::Directory { .. }));
    assert!(sentence.contains(&*path.to_string_lossy()), "{sentence}");
}

#[test]
fn the_way_of_writing_is_reported() {
    let directory = tempfile::tempdir().expect("a directory");
    let (journal, recovered) = Journal::open(directory.path(), options(false)).expect("opened");
    assert!(matches!(recovered.way, Way::Plain { .. }));
    drop(journal);
    let (_journal, recovered) = open(directory.path());
    match recovered.way {
        Way::Uring => {}
        Way::Plain { reason } => assert!(reason.contains("refused"), "{reason}"),
    }
}

#[test]
fn many_submitters_are_each_told_the_truth_whichever_way_is_used() {
    for uses_uring in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let (journal, _) = Journal::open(directory.path(), options(uses_uring)).expect("opened");
        let winners: u32 = thread::scope(|scope| {
            let journal = &journal;
            let submitters: Vec<_> = (0..16)
                .map(|n| scope.spawn(move || submit_many(journal, n)))
                .collect();
            submitters
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .sum()
        });
        assert_eq!(winners, 20, "each contested key has one winner");
        drop(journal);
        let (journal, recovered) = open(directory.path());
        assert_eq!(
            (recovered.objects, &recovered.reports[..]),
            (16 * 20 + 20, &[][..])
        );
        assert_eq!(
            payload(&journal, "own-3-7").expect("acknowledged"),
            vec![3; 700]
        );
    }
}

/// Writes keys of its own and tries contested ones; gives how many of these it has won.
fn submit_many(journal: &Journal, submitter: u8) -> u32 {
    let session = u128::from(submitter) + 1;
    let mut won = 0;
    for n in 0..20 {
        let key = format!("own-{submitter}-{n}");
        let bytes = vec![submitter; 100 * n];
        write(journal, insert(&key, session, 1), &bytes);
        assert_eq!(payload(journal, &key).expect("acknowledged"), bytes);
        match put(
            journal,
            insert(&format!("contested-{n}"), session, 1),
            &[submitter],
        ) {
            Ok(Receipt::Written(_)) => won += 1,
            Err(WriteError::Exists { .. }) => {}
            other => panic!("{other:?}"),
        }
        let winner = payload(journal, &format!("contested-{n}")).expect("somebody has won");
        assert_eq!(winner.len(), 1);
    }
    write(journal, end(session), b"");
    won
}

#[test]
fn payloads_come_from_files_and_go_to_files() {
    let directory = tempfile::tempdir().expect("a directory");
    let (journal, _) = open(directory.path());
    // Longer than a batch's memory, and of a length that is no multiple of anything.
    let bytes: Vec<u8> = (0..20_000_003_u32).map(|n| (n >> 8) as u8).collect();
    let from_file = Payload::File {
        file: file(&bytes),
        offset: 3,
        length: bytes.len() as u64 - 3,
    };
    let outcome = hand_over(&journal, insert("large", 1, 1), from_file).wait();
    assert!(matches!(outcome, Ok(Receipt::Written(_))), "{outcome:?}");
    let stored = journal.find("app", "bucket", b"large").expect("found");
    assert!(
        stored.payload.to_vec().expect("sound") == bytes[3..],
        "another payload"
    );
    let target = tempfile::tempfile().expect("a file");
    stored.payload.copy_to(&target, 5).expect("copied");
    let mut copied = vec![0; bytes.len() - 3];
    target.read_exact_at(&mut copied, 5).expect("as long");
    assert!(copied == bytes[3..], "another copy");
    let short = stored.payload.read(&mut [0; 7]);
    assert!(matches!(short, Err(ReadError::Length { buffer: 7, .. })));
    let read_only = File::open("/dev/null").expect("a file");
    let refused = stored.payload.copy_to(&read_only, 0);
    assert!(matches!(refused, Err(ReadError::Target(_))));
}

#[test]
fn a_payload_that_cannot_be_read_costs_its_own_entry_only() {
    let directory = tempfile::tempdir().expect("a directory");
    let (journal, _) = open(directory.path());
    // One that ends at once, and one that ends after a part of it has been written.
    for there in [10, 17 << 20] {
        let sends: Vec<_> = (0..9_u64)
            .map(|n| {
                let payload = if n == 4 {
                    let (file, length) = (file(&vec![9; there]), there as u64 + 1);
                    Payload::File {
                        file,
                        offset: 0,
                        length,
                    }
                } else {
                    Payload::Bytes(vec![n as u8; 100])
                };
                hand_over(
                    &journal,
                    replace(&format!("key{n}"), there as u128, 1, 0),
                    payload,
                )
            })
            .collect();
        for (n, send) in sends.into_iter().enumerate() {
            match send.wait() {
                Ok(Receipt::Written(_)) => assert_ne!(n, 4),
                Err(WriteError::Source(_)) => assert_eq!(n, 4),
                other => panic!("{other:?}"),
            }
        }
    }
    drop(journal);
    let (journal, recovered) = open(directory.path());
    assert_eq!(recovered.objects, 8);
    assert_eq!(payload(&journal, "key4"), None);
    assert_eq!(payload(&journal, "key8").expect("acknowledged"), [8; 100]);
}

#[test]
fn whoever_changes_a_payload_while_it_is_written_spoils_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let (journal, _) = open(directory.path());
    let source = file(&[0; 100_000]);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let file = File::from(source.try_clone().expect("a descriptor"));
            let mut byte = 0_u8;
            while !is_over.load(Ordering::Relaxed) {
                byte = byte.wrapping_add(1);
                file.write_all_at(&[byte; 100_000], 0).expect("written");
            }
        });
        for n in 0..50_u64 {
            let payload = Payload::File {
                file: Arc::clone(&source),
                offset: n,
                length: 99_000,
            };
            let outcome = hand_over(&journal, replace("key", 1, 1, n), payload).wait();
            assert!(matches!(outcome, Ok(Receipt::Written(_))), "{outcome:?}");
            let stored = journal.find("app", "bucket", b"key").expect("found");
            stored
                .payload
                .to_vec()
                .expect("what was written is what is read");
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn readers_find_every_version_sound_while_it_is_replaced_and_compacted() {
    let directory = tempfile::tempdir().expect("a directory");
    let (journal, _) = open(directory.path());
    write(&journal, replace("key", 1_000_000, 1, 0), &[0; 3000]);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (journal, is_over) = (&journal, &is_over);
        for _ in 0..3 {
            scope.spawn(move || {
                let mut newest = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let stored = journal.find("app", "bucket", b"key").expect("always one");
                    assert!(stored.sequence >= newest, "an older version again");
                    newest = stored.sequence;
                    let bytes = stored.payload.to_vec().expect("sound");
                    assert!(bytes.iter().all(|byte| *byte == bytes[0]));
                }
            });
        }
        for session in 1..300 {
            write(
                journal,
                replace("key", session, 1, 0),
                &[session as u8; 3000],
            );
            write(journal, end(session), b"");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(journal.stats().compactions > 0, "{:?}", journal.stats());
}

/// Not a test of its own: what the tests below start as another process.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else {
        return;
    };
    let journal = match Journal::open(Path::new(&directory), options(true)) {
        Ok((journal, _)) => journal,
        Err(error) => return println!("refused: {error}"),
    };
    for n in 0_u64.. {
        let key = format!("key{n}");
        write(&journal, insert(&key, u128::from(n), 1), key.as_bytes());
        write(&journal, end(u128::from(n)), b"");
        println!("written: {key}");
    }
}

fn start_child(directory: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD_DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .expect("started")
}

#[test]
fn another_process_is_refused_while_one_has_the_journal() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_journal, _) = open(directory.path());
    let output = start_child(directory.path())
        .wait_with_output()
        .expect("ended");
    let output = String::from_utf8_lossy(&output.stdout);
    let pid = format!("(process {})", std::process::id());
    assert!(
        output.contains("refused: ") && output.contains(&pid),
        "{output}"
    );
}

#[test]
fn a_killed_process_leaves_everything_acknowledged_and_no_lock() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut child = start_child(directory.path());
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let mut written = Vec::new();
    for line in output.lines().map_while(Result::ok) {
        // The test runner's own words may stand before the first of them.
        if let Some((_, key)) = line.split_once("written: ") {
            written.push(key.to_owned());
        }
        if written.len() == 100 {
            child.kill().expect("killed");
        }
    }
    child.wait().expect("ended");
    let (journal, _) = open(directory.path());
    assert!(written.len() >= 100);
    for key in written {
        assert_eq!(
            payload(&journal, &key).expect("acknowledged"),
            key.as_bytes()
        );
    }
}
