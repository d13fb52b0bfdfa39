//! A journal that is opened over changed files, written, compacted, and opened again.
//!
//! Input: files of a name (one byte), which checksums are made right (one byte), a length (u16) and
//! so many bytes.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard};

use pheromone_journal::{
    Delete, Disk, DiskFile, Entry, Firing, Journal, Name, Object, Options, Payload, Receipt,
    Recovered, Request, Success, Way, WriteError, limits,
};

use super::{segment, take, take_byte, take_u16};

/// Files of one input, at most.
const FILES_MAX: usize = 8;
/// A file that is made longer than this, no journal of ours has made.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Names below this one are of segments, by their number.
const NAMES_OF_SEGMENTS: u8 = 200;
const NAME_OF_UNFINISHED: u8 = 200;
const NAME_OF_FORMAT: u8 = 201;
/// What is in the file `format`.
const FORMAT: &[u8] = b"pheromone journal 1\n";

const OPTIONS: Options = Options {
    segment_bytes: limits::SEGMENT_BYTES_MIN,
    uses_uring: false,
    checks_all_payloads: true,
    compacts: false,
};

/// However spoiled, a journal opens or says why not; what it has acknowledged then is found, and
/// what it had found before is found again.
pub fn run(bytes: &[u8]) {
    let memory = Memory::default();
    memory.set("format", FORMAT.to_vec());
    memory.fill(bytes);
    let Some((journal, before)) = open(&memory) else {
        return;
    };
    let is_kept = matches!(keep(&journal), Ok(Receipt::Written(_)));
    let objects = journal.stats().objects;
    check_payloads(&before);
    drop(journal);
    let (journal, _) = open(&memory).expect("what could be opened can be opened again");
    assert_eq!(journal.stats().objects, objects);
    if is_kept {
        check_kept(&journal);
    }
    // Compaction ends where there is nothing left for it.
    while journal.compact().unwrap_or(false) {}
    if is_kept {
        check_kept(&journal);
    }
    drop(journal);
    let (journal, after) = open(&memory).expect("what was compacted can be opened");
    assert_eq!(journal.stats().objects, objects);
    check_payloads(&after);
    if is_kept {
        check_kept(&journal);
    }
}

fn open(memory: &Memory) -> Option<(Journal, Recovered)> {
    match Journal::open_on(Arc::new(memory.clone()), OPTIONS) {
        Ok((journal, recovered)) => {
            for report in &recovered.reports {
                assert!(!report.to_string().is_empty());
            }
            Some((journal, recovered))
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    }
}

/// Payloads can be read, or are known to be spoiled.
fn check_payloads(recovered: &Recovered) {
    for session in &recovered.sessions {
        for entry in &session.entries {
            if let Ok(bytes) = entry.payload.to_vec() {
                assert_eq!(bytes.len() as u64, entry.payload.size_bytes());
            }
        }
    }
}

const KEPT: &[u8] = b"kept by the fuzzer";

fn keep(journal: &Journal) -> Result<Receipt, WriteError> {
    let entry = object("kept", u128::MAX, true);
    submit(journal, entry, KEPT)
}

fn check_kept(journal: &Journal) {
    let found = journal
        .find("app", "bucket", b"kept")
        .expect("it was acknowledged");
    assert_eq!(found.payload.to_vec().expect("it can be read"), KEPT);
}

fn submit(journal: &Journal, entry: Entry, payload: &[u8]) -> Result<Receipt, WriteError> {
    let (tell, hear) = mpsc::channel();
    let payload = match payload {
        [] => Payload::Empty,
        bytes => Payload::Bytes(bytes.to_vec()),
    };
    let done = Box::new(move |outcome| {
        // Whoever has asked waits for it.
        let _ = tell.send(outcome);
    });
    journal.submit(entry, payload, done);
    hear.recv().expect("every entry is answered")
}

fn object(key: &str, session: u128, replace: bool) -> Entry {
    Entry::Object(Object {
        name: Name::new("app", "bucket", key.as_bytes()),
        group: b"group".to_vec(),
        session,
        invocation: 3,
        ordinal: 0,
        retain_until_ns: Some(1_000_000),
        replace,
    })
}

/// The files of a journal in which everything happens that is written down.
pub(super) fn journal_files() -> Vec<(String, Vec<u8>)> {
    let memory = Memory::default();
    for session in 1..3 {
        let (journal, _) = open(&memory).expect("it is empty, or ours");
        for (entry, payload) in entries(session) {
            submit(&journal, entry, payload).expect("it is right");
        }
    }
    let files = memory.files();
    let named = files.iter();
    named
        .map(|(name, file)| (name.clone(), file.bytes().clone()))
        .collect()
}

fn entries(session: u128) -> Vec<(Entry, &'static [u8])> {
    let text = str::to_owned;
    vec![
        (
            Entry::Request(Request {
                session,
                app: text("app"),
                version: text("1"),
                function: text("function"),
                headers: Vec::new(),
                deadline_ns: Some(5),
                time_ns: 4,
            }),
            b"a request",
        ),
        (object("one", session, true), b"one"),
        (object(&format!("of-{session}"), session, false), b"payload"),
        (
            Entry::Firing(Firing {
                session,
                invocation: 9,
                app: text("app"),
                bucket: text("bucket"),
                trigger: text("trigger"),
                function: text("function"),
                inputs: vec![2],
                details: Vec::new(),
            }),
            b"",
        ),
        (
            Entry::Success(Success {
                session,
                invocation: 9,
            }),
            b"",
        ),
        (
            Entry::Delete(Delete {
                name: Name::new("app", "bucket", b"one"),
            }),
            b"",
        ),
    ]
}

/// The files of that journal, as they are and with nothing made right.
pub fn seeds() -> Vec<Vec<u8>> {
    let files = journal_files();
    [0, segment::ALL]
        .iter()
        .map(|&what| {
            let segments = files.iter().filter(|(name, _)| name.ends_with(".log"));
            let named = (0..).zip(segments);
            named.fold(Vec::new(), |mut input, (name, (_, bytes))| {
                let length = bytes.len() as u16;
                input.extend([name, what]);
                input.extend(length.to_le_bytes());
                input.extend(bytes);
                input
            })
        })
        .collect()
}

/// Files in memory, which are as durable as they can be.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<BTreeMap<String, Arc<InMemory>>>>);

#[derive(Default)]
struct InMemory(Mutex<Vec<u8>>);

impl Memory {
    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Arc<InMemory>>> {
        self.0.lock().expect("nobody panics with it")
    }

    fn set(&self, name: &str, bytes: Vec<u8>) {
        let file = Arc::new(InMemory(Mutex::new(bytes)));
        self.files().insert(name.to_owned(), file);
    }

    /// The files of an input.
    fn fill(&self, mut bytes: &[u8]) {
        for _ in 0..FILES_MAX {
            if bytes.is_empty() {
                return;
            }
            let (name, what) = (take_byte(&mut bytes), take_byte(&mut bytes));
            let count = usize::from(take_u16(&mut bytes));
            let mut content = take(&mut bytes, count).to_vec();
            segment::seal(&mut content, what);
            let name = match name {
                NAME_OF_FORMAT => "format".to_owned(),
                NAME_OF_UNFINISHED => format!("{:016x}.new", 1),
                number if number < NAMES_OF_SEGMENTS => {
                    format!("{:016x}.log", u64::from(number) + 1)
                }
                number => format!("{number}.log"),
            };
            self.set(&name, content);
        }
    }
}

impl InMemory {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().expect("nobody panics with it")
    }
}

impl Disk for Memory {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files().keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.set(name, Vec::new());
        self.open(name)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        match self.files().get(name) {
            Some(file) => Ok(Arc::clone(file) as Arc<dyn DiskFile>),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let gone = self.files().remove(name);
        gone.map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn way(&self) -> Way {
        Way::Plain {
            reason: "in memory".to_owned(),
        }
    }
}

impl DiskFile for InMemory {
    fn length(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.bytes();
        let from = usize::try_from(offset).map_or(content.len(), |from| from.min(content.len()));
        let count = bytes.len().min(content.len() - from);
        bytes[..count].copy_from_slice(&content[from..from + count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let end = offset + bytes.len() as u64;
        assert!(end <= FILE_BYTES_MAX, "writes {end} bytes into a file");
        let mut content = self.bytes();
        let length = content.len().max(end as usize);
        content.resize(length, 0);
        content[offset as usize..end as usize].copy_from_slice(bytes);
        Ok(bytes.len())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        assert!(length <= FILE_BYTES_MAX, "makes a file {length} bytes long");
        self.bytes().resize(length as usize, 0);
        Ok(())
    }
}
