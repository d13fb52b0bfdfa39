//! What the journal's tests have in common: entries in one line, answers awaited, and a disk that
//! fails and crashes as told.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod disk;

use std::sync::mpsc;

use pheromone_journal::{
    Delete, End, Entry, Firing, Journal, Name, Object, Options, Payload, Receipt, Request,
    Response, Sequence, Success, WriteError,
};

/// Small segments, and compaction only when asked for.
pub const SMALL: Options = Options {
    segment_bytes: 4096,
    uses_uring: false,
    checks_all_payloads: true,
    compacts: false,
};

/// Numbers that look random and are the same each time.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number (splitmix64).
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// The name of a key in the bucket of most tests.
pub fn name(key: &str) -> Name {
    Name::new("app", "bucket", key.as_bytes())
}

/// An object that is refused where there is one.
pub fn insert(key: &str, session: u128, invocation: u64) -> Entry {
    Entry::Object(Object {
        name: name(key),
        group: b"group".to_vec(),
        session,
        invocation,
        ordinal: 0,
        retain_until_ns: None,
        replace: false,
    })
}

/// An object that takes the place of another.
pub fn replace(key: &str, session: u128, invocation: u64, ordinal: u64) -> Entry {
    let Entry::Object(object) = insert(key, session, invocation) else {
        unreachable!("an insertion is an object");
    };
    Entry::Object(Object {
        ordinal,
        replace: true,
        ..object
    })
}

/// An object that expires.
pub fn retained(key: &str, session: u128, retain_until_ns: u64) -> Entry {
    let Entry::Object(object) = replace(key, session, 1, 0) else {
        unreachable!("a replacement is an object");
    };
    Entry::Object(Object {
        retain_until_ns: Some(retain_until_ns),
        ..object
    })
}

pub fn delete(key: &str) -> Entry {
    Entry::Delete(Delete { name: name(key) })
}

pub fn request(session: u128) -> Entry {
    Entry::Request(Request {
        session,
        app: "app".to_owned(),
        version: "1".to_owned(),
        function: "entry".to_owned(),
        headers: b"headers".to_vec(),
        deadline_ns: Some(9),
        time_ns: 3,
    })
}

pub fn firing(session: u128, invocation: u64, inputs: &[Sequence]) -> Entry {
    Entry::Firing(Firing {
        session,
        invocation,
        app: "app".to_owned(),
        bucket: "bucket".to_owned(),
        trigger: "trigger".to_owned(),
        function: "function".to_owned(),
        inputs: inputs.to_vec(),
        details: Vec::new(),
    })
}

pub fn success(session: u128, invocation: u64) -> Entry {
    Entry::Success(Success {
        session,
        invocation,
    })
}

pub fn response(session: u128) -> Entry {
    Entry::Response(Response {
        session,
        headers: Vec::new(),
    })
}

pub fn end(session: u128) -> Entry {
    Entry::End(End {
        session,
        outcome: 1,
        reason: "done".to_owned(),
    })
}

/// An answer that is still to come.
pub struct Pending(mpsc::Receiver<Result<Receipt, WriteError>>);

impl Pending {
    /// Waits for it.
    pub fn wait(self) -> Result<Receipt, WriteError> {
        self.0.recv().expect("every entry is answered once")
    }
}

/// Hands an entry over.
pub fn hand_over(journal: &Journal, entry: Entry, payload: Payload) -> Pending {
    let (answer, answered) = mpsc::channel();
    let done = move |outcome| {
        // Nobody may be waiting any more.
        let _ = answer.send(outcome);
    };
    journal.submit(entry, payload, Box::new(done));
    Pending(answered)
}

/// Writes an entry with a payload.
pub fn put(journal: &Journal, entry: Entry, payload: &[u8]) -> Result<Receipt, WriteError> {
    hand_over(journal, entry, Payload::Bytes(payload.to_vec())).wait()
}

/// Writes an entry that must be new; gives its number.
pub fn write(journal: &Journal, entry: Entry, payload: &[u8]) -> Sequence {
    match put(journal, entry, payload) {
        Ok(Receipt::Written(sequence)) => sequence,
        other => panic!("not written: {other:?}"),
    }
}

/// Lets objects expire; gives their number.
pub fn expire(journal: &Journal, now_ns: u64) -> Result<usize, WriteError> {
    let (answer, answered) = mpsc::channel();
    let done = move |outcome| {
        let _ = answer.send(outcome);
    };
    journal.expire(now_ns, Box::new(done));
    answered.recv().expect("an answer")
}

/// The payload of a key, if there is an object.
pub fn payload(journal: &Journal, key: &str) -> Option<Vec<u8>> {
    let stored = journal.find("app", "bucket", key.as_bytes())?;
    Some(stored.payload.to_vec().expect("a sound payload"))
}

/// Compacts until nothing is worth it.
pub fn compact(journal: &Journal) {
    while journal.compact().expect("a disk that works") {}
}
