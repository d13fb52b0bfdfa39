//! Prints how many entries a second become durable with 64 submitters, beside bare flushes of the
//! same disk in the same run, and how long opening takes.
//!
//! `cargo run --release -p pheromone-journal --example durable [DIRECTORY [SECONDS]]`
#![forbid(unsafe_code)]

use std::error::Error;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use pheromone_journal::{End, Entry, Journal, Name, Object, Options, Payload, Receipt};

/// Threads that each wait for their entry before they hand over the next one.
const SUBMITTERS: u64 = 64;
/// Bytes of each payload, and of each bare write.
const PAYLOAD_BYTES: usize = 256;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().unwrap_or_else(|| ".".to_owned());
    let seconds = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let time = Duration::from_secs(seconds);
    let directory = tempfile::tempdir_in(&parent)?;
    let bare = bare_flushes(directory.path(), time)?;
    println!("{:<40}{bare:>9.0} a second", "bare pwrite + fdatasync");
    for uses_uring in [false, true] {
        let options = Options {
            uses_uring,
            ..Options::default()
        };
        let directory = tempfile::tempdir_in(&parent)?;
        durable_entries(directory.path(), options, time, bare)?;
    }
    Ok(())
}

/// Appends with a flush each, one after the other; gives how many a second.
fn bare_flushes(directory: &Path, time: Duration) -> Result<f64, Box<dyn Error>> {
    let path = directory.join("bare");
    let file = OpenOptions::new().create_new(true).write(true).open(path)?;
    let begun = Instant::now();
    let mut count = 0_u64;
    while begun.elapsed() < time {
        file.write_all_at(&[7; PAYLOAD_BYTES], count * PAYLOAD_BYTES as u64)?;
        file.sync_data()?;
        count += 1;
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

fn durable_entries(
    directory: &Path,
    options: Options,
    time: Duration,
    bare: f64,
) -> Result<(), Box<dyn Error>> {
    let (journal, recovered) = Journal::open(directory, options)?;
    let begun = Instant::now();
    let count: u64 = thread::scope(|scope| {
        let journal = &journal;
        let submitters: Vec<_> = (0..SUBMITTERS)
            .map(|submitter| scope.spawn(move || submit_for(journal, submitter, begun, time)))
            .collect();
        submitters
            .into_iter()
            .map(|thread| thread.join().unwrap_or(0))
            .sum()
    });
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    let batches = journal.stats().batches;
    drop(journal);
    let name = format!("{SUBMITTERS} submitters, {:?}", recovered.way);
    println!(
        "{name:.38}  {rate:>9.0} a second ({:.1} entries a flush; {:.1} times the bare flushes)",
        count as f64 / batches as f64,
        rate / bare,
    );
    let begun = Instant::now();
    let (_journal, recovered) = Journal::open(directory, options)?;
    let (objects, elapsed) = (recovered.objects, begun.elapsed());
    println!("  opened again: {objects} objects in {elapsed:.1?}");
    Ok(())
}

/// Hands over one object after the other; gives how many were durable in time.
fn submit_for(journal: &Journal, submitter: u64, begun: Instant, time: Duration) -> u64 {
    let (answer, answered) = mpsc::channel();
    let mut count = 0;
    while begun.elapsed() < time {
        let answer = answer.clone();
        let object = Object {
            name: Name::new("app", "bucket", format!("{submitter}-{count}").as_bytes()),
            group: Vec::new(),
            session: u128::from(submitter),
            invocation: count,
            ordinal: 0,
            retain_until_ns: None,
            replace: false,
        };
        let payload = Payload::Bytes(vec![7; PAYLOAD_BYTES]);
        let done = move |outcome| {
            // The submitter waits for it.
            let _ = answer.send(outcome);
        };
        journal.submit(Entry::Object(object), payload, Box::new(done));
        match answered.recv() {
            Ok(Ok(Receipt::Written(_))) => count += 1,
            _ => break,
        }
    }
    let end = End {
        session: u128::from(submitter),
        outcome: 0,
        reason: String::new(),
    };
    journal.submit(Entry::End(end), Payload::Empty, Box::new(|_| ()));
    count
}
