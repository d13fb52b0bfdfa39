//! The durable store: the journal as the gateway uses it.
//!
//! Schedulers say what is to be written and looked for; the gateway hands it on here and is told by
//! commands what has become of it. The journal reads payloads from the regions' files itself, and
//! a thread of its own reads found ones from disk into the ingress region, so the gateway never
//! waits for a disk.

use std::collections::HashMap;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use pheromone_core::limits::ID_NUMBERS;
use pheromone_core::spec::Retain;
use pheromone_journal as journal;
use pheromone_journal::{
    Delete, Done, End, Entry, Journal, Name, Object, Options, Payload, Receipt, Recovered, Stored,
    Unfinished, WriteError,
};
use pheromone_scheduler::protocol::WriteMessage;
use pheromone_shm::message::Extent;

use crate::app::Version;
use crate::error::NodeError;
use crate::gateway::{Command, GatewayHandle};
use crate::regions;

mod restoring;
mod sessions;

use sessions::Given;

pub use restoring::{Restoring, Source};
pub use sessions::{Call, CallDetails, Fetched, KeptAnswer, ResponseDetails};

/// Between two looks for objects that have been retained long enough.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(10);

/// Ids are told from those of earlier lives by the milliseconds since this time, the first day of
/// 2026: 2^56 numbers in steps of 2^15 last until 2095.
const IDS_SINCE_NS: u64 = 1_767_225_600_000_000_000;
/// Ids of sessions, or of invocations, that one scheduler can make in a millisecond: one every
/// 30 ns, where a hop takes ten times as long.
const IDS_PER_MS: u64 = 1 << 15;

/// What is to outlive the node.
pub struct Store {
    journal: Arc<Journal>,
    /// Ids of this life of the node begin here; those of the lives before are smaller.
    first_id: u64,
    sessions_opened: AtomicU64,
    /// Durable sessions of the time before that have not ended.
    open: Arc<Mutex<HashMap<u64, Given>>>,
    /// Those of them whose apps have not been deployed yet, by app.
    unfinished: Mutex<HashMap<String, Vec<Arc<Unfinished>>>>,
    reads: Sender<Job>,
}

/// What the reading thread does.
enum Job {
    Object(Read),
    Session(ReadSession),
}

/// A durable session whose payloads are to be read from disk.
struct ReadSession {
    app: u16,
    unfinished: Arc<Unfinished>,
    restoring: Box<Restoring>,
    into: Arc<OwnedFd>,
}

/// A scheduler's question, to which the answer goes.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Which scheduler.
    pub scheduler: u8,
    /// Which version of an app.
    pub app: u16,
    /// Comes back in the answer.
    pub ticket: u64,
}

/// A durable object that has been read into the ingress region, or could not be.
#[derive(Debug)]
pub struct Found {
    /// Where it was to be read to.
    pub extent: Extent,
    /// Payload bytes.
    pub size_bytes: u64,
    /// The session that sent it.
    pub session: u64,
    /// Its group; empty for none.
    pub group: Vec<u8>,
    /// Why it could not be read, as a sentence.
    pub failed: Option<String>,
}

/// A payload to be read from disk.
struct Read {
    question: Question,
    stored: Stored,
    into: Arc<OwnedFd>,
    extent: Extent,
}

impl Store {
    /// Opens the journal in a directory. What it holds of the time before comes back.
    ///
    /// # Errors
    /// Another node has it, its format is another, or the disk refuses.
    pub fn open(directory: &Path, gateway: GatewayHandle) -> Result<(Self, Recovered), NodeError> {
        let opened = Journal::open(directory, Options::default());
        let (journal, mut recovered) = opened.map_err(|error| NodeError::Journal {
            reason: error.to_string(),
        })?;
        let woken = gateway.clone();
        journal.after_answers(move || woken.ring());
        let journal = Arc::new(journal);
        let (reads, to_read) = unbounded();
        let expiring = Arc::clone(&journal);
        thread::Builder::new()
            .name("phr-store".into())
            .spawn(move || read(&to_read, &expiring, &gateway))
            .map_err(NodeError::system("start a thread".to_owned()))?;
        let store = Self {
            journal,
            first_id: first_id(now_ns()),
            sessions_opened: AtomicU64::new(0),
            open: Arc::default(),
            unfinished: Mutex::default(),
            reads,
        };
        store.take_in(mem::take(&mut recovered.sessions));
        Ok((store, recovered))
    }

    /// Writes an object; the gateway hears of it by [`Command::Written`].
    pub fn write(
        &self,
        question: Question,
        version: &Version,
        message: &WriteMessage<'_>,
        gateway: &GatewayHandle,
    ) {
        let gateway = gateway.clone();
        let done = move |result: Result<Receipt, WriteError>| {
            gateway.leave(Command::Written { question, result });
        };
        let Some(file) = version.regions.shared(message.region) else {
            return done(Err(WriteError::Closed));
        };
        let bucket = &version.spec.buckets[usize::from(message.bucket)].name;
        let retain_until_ns = match message.retain {
            Retain::ForNs(ns) => Some(now_ns().saturating_add(ns)),
            Retain::Forever => None,
        };
        let object = Object {
            name: Name::new(version.name(), bucket, message.key),
            group: message.group.to_vec(),
            session: message.session.into(),
            invocation: message.author,
            // In a session that is not durable the core absorbs what a further attempt repeats;
            // whatever it has written is a send of its own, also the second one of the same name.
            ordinal: message.ordinal.map_or(message.ticket, u64::from),
            retain_until_ns,
            replace: message.replace,
        };
        let extent = Extent {
            offset_units: message.offset_units,
            len_units: 0,
        };
        let payload = Payload::File {
            file,
            offset: extent.offset_bytes(),
            length: message.size_bytes,
        };
        self.journal
            .submit(Entry::Object(object), payload, Box::new(done));
    }

    /// The object of a name that has not been retained long enough.
    pub fn find(&self, version: &Version, bucket: u16, key: &[u8]) -> Option<Stored> {
        let bucket = &version.spec.buckets[usize::from(bucket)].name;
        self.find_by_name(version.name(), bucket, key)
    }

    /// The same, by the names of app and bucket.
    pub fn find_by_name(&self, app: &str, bucket: &str, key: &[u8]) -> Option<Stored> {
        let found = self.journal.find(app, bucket, key)?;
        let until_ns = found.object.retain_until_ns;
        until_ns
            .is_none_or(|until| until > now_ns())
            .then_some(found)
    }

    /// Reads a found object into an extent of the ingress region that has room for it; the gateway
    /// hears of it by [`Command::Loaded`].
    pub fn read(&self, question: Question, stored: Stored, into: Arc<OwnedFd>, extent: Extent) {
        let read = Read {
            question,
            stored,
            into,
            extent,
        };
        // Its thread is there as long as this is.
        let _ = self.reads.send(Job::Object(read));
    }

    /// Deletes an object, if there is one.
    pub fn delete(&self, version: &Version, bucket: u16, key: &[u8]) {
        let bucket = &version.spec.buckets[usize::from(bucket)].name;
        if self.journal.find(version.name(), bucket, key).is_none() {
            return;
        }
        let name = Name::new(version.name(), bucket, key);
        let entry = Entry::Delete(Delete { name });
        // `phr_delete` returns before; a disk that refuses is counted by the journal.
        self.journal.submit(entry, Payload::Empty, Box::new(|_| {}));
    }

    /// The same, by the names of app and bucket; `done` is told once it is gone for good.
    pub fn delete_by_name(
        &self,
        app: &str,
        bucket: &str,
        key: &[u8],
        done: impl FnOnce(Result<(), String>) + Send + 'static,
    ) {
        let name = Name::new(app, bucket, key);
        let entry = Entry::Delete(Delete { name });
        let done = |result: Result<_, WriteError>| {
            done(result.map(|_| ()).map_err(|error| error.to_string()));
        };
        self.journal.submit(entry, Payload::Empty, Box::new(done));
    }

    /// Where the numbers in ids begin in this life of the node.
    pub fn first_id(&self) -> u64 {
        self.first_id
    }

    /// A session that has written objects has ended: nothing needs them but their names.
    pub fn end(&self, session: u64, outcome: &str) {
        // A disk that refuses is counted by the journal; the next start ends it again.
        self.submit_end(session.into(), outcome, Box::new(|_| {}));
    }

    /// Keeps the durable sessions that the node before has left; ends all others.
    fn take_in(&self, sessions: Vec<Unfinished>) {
        for session in sessions {
            if restoring::app_of(&session).is_some() {
                let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
                open.insert(session.session as u64, Given::of(&session));
                drop(open);
                self.put_back(Arc::new(session));
            } else {
                let reason = "the node has ended";
                self.submit_end(session.session, reason, Box::new(|_| {}));
            }
        }
    }

    /// A session waits for its app, whose name this answers with.
    pub fn put_back(&self, session: Arc<Unfinished>) -> String {
        let app = restoring::app_of(&session).unwrap_or_default().to_owned();
        let unfinished = self.unfinished.lock();
        let mut unfinished = unfinished.unwrap_or_else(PoisonError::into_inner);
        unfinished.entry(app.clone()).or_default().push(session);
        app
    }

    /// Names of apps that durable sessions wait for, and how many of them.
    pub fn waited_for(&self) -> Vec<(String, usize)> {
        let unfinished = self.unfinished.lock();
        let unfinished = unfinished.unwrap_or_else(PoisonError::into_inner);
        let mut apps: Vec<(String, usize)> = unfinished
            .iter()
            .map(|(app, sessions)| (app.clone(), sessions.len()))
            .collect();
        apps.sort_unstable();
        apps
    }

    /// The sessions that wait for an app.
    pub fn take_unfinished(&self, app: &str) -> Vec<Arc<Unfinished>> {
        let unfinished = self.unfinished.lock();
        let mut unfinished = unfinished.unwrap_or_else(PoisonError::into_inner);
        unfinished.remove(app).unwrap_or_default()
    }

    /// Reads what is needed of a session into the places that it has been given; the gateway hears
    /// of it by [`Command::SessionRead`].
    pub fn read_session(
        &self,
        app: u16,
        unfinished: Arc<Unfinished>,
        restoring: Box<Restoring>,
        into: Arc<OwnedFd>,
    ) {
        let read = ReadSession {
            app,
            unfinished,
            restoring,
            into,
        };
        let _ = self.reads.send(Job::Session(read));
    }

    fn submit_end(&self, session: u128, reason: &str, done: Done) {
        let end = Entry::End(End {
            session,
            outcome: 0,
            reason: reason.to_owned(),
        });
        self.journal.submit(end, Payload::Empty, done);
    }
}

/// Where ids begin in a life of the node that starts now: beyond all of the lives before, as long
/// as none of them has made more than [`IDS_PER_MS`] of a kind in each millisecond that it had.
fn first_id(now_ns: u64) -> u64 {
    let since_ns = now_ns.saturating_sub(IDS_SINCE_NS);
    // Never 0, which would be no beginning.
    (since_ns / 1_000_000).max(1) * IDS_PER_MS % ID_NUMBERS
}

/// Reads what is found, and now and then has expire what has been retained long enough.
fn read(reads: &Receiver<Job>, journal: &Journal, gateway: &GatewayHandle) {
    loop {
        match reads.recv_timeout(EXPIRY_INTERVAL) {
            Ok(Job::Object(read)) => gateway.tell(read.carry_out()),
            Ok(Job::Session(read)) => gateway.tell(read.carry_out()),
            Err(RecvTimeoutError::Timeout) => journal.expire(now_ns(), Box::new(|_| {})),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl Read {
    fn carry_out(self) -> Command {
        let size_bytes = self.stored.payload.size_bytes();
        let failed = copy(&self.stored.payload, &self.into, self.extent).err();
        Command::Loaded {
            question: self.question,
            found: Found {
                extent: self.extent,
                size_bytes,
                session: self.stored.object.session as u64,
                group: self.stored.object.group.clone(),
                failed,
            },
        }
    }
}

impl ReadSession {
    fn carry_out(mut self) -> Command {
        let copied = self.copy().err();
        Command::SessionRead {
            app: self.app,
            unfinished: self.unfinished,
            restoring: self.restoring,
            failed: copied,
        }
    }

    fn copy(&mut self) -> Result<(), String> {
        let extents: Vec<Extent> = self.restoring.session.extents().collect();
        for (source, extent) in self.restoring.payloads.drain(..).zip(extents) {
            match source {
                Source::Stored(payload) => copy(&payload, &self.into, extent)?,
                Source::Bytes(bytes) => regions::write(self.into.as_fd(), extent, &bytes)
                    .map_err(|error| error.to_string())?,
            }
        }
        self.restoring.read_answer()
    }
}

/// Copies a payload from disk into a region, and the zero byte that follows every payload.
fn copy(payload: &journal::Extent, into: &OwnedFd, extent: Extent) -> Result<(), String> {
    let offset = extent.offset_bytes();
    let copied = payload.copy_to(into, offset);
    copied.map_err(|error| error.to_string())?;
    let sealed = rustix::io::pwrite(into, &[0], offset + payload.size_bytes());
    sealed.map(|_| ()).map_err(|error| error.to_string())
}

/// Time that goes on while the node does not run.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
