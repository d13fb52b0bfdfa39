//! The journal as its callers see it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::{fmt, io};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::compaction::Compactor;
use crate::disk::{Directory, Disk};
use crate::entry::{Entry, Name, Sequence};
use crate::error::{OpenError, WriteError};
use crate::extent::Stored;
use crate::limits::{QUEUE_MAX, SEGMENT_BYTES, SEGMENT_BYTES_MIN};
use crate::recovery;
use crate::report::Recovered;
use crate::shared::{Shared, Stats, Wake};
use crate::tail::Payload;
use crate::writer::{Command, Done, Expired, Writer};

/// How a journal is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes after which a segment is followed by a new one.
    pub segment_bytes: u64,
    /// Use an io_uring where the kernel lets us.
    pub uses_uring: bool,
    /// Check every payload at opening, not those of the last segment only. All are checked when
    /// they are read in any case.
    pub checks_all_payloads: bool,
    /// Compact in a thread of its own; otherwise only [`Journal::compact`] does.
    pub compacts: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES,
            uses_uring: true,
            checks_all_payloads: false,
            compacts: true,
        }
    }
}

/// An open journal. Dropping it writes what was submitted before, and gives the directory free.
pub struct Journal {
    shared: Arc<Shared>,
    compactor: Arc<Mutex<Compactor>>,
    /// `None` while dropping.
    commands: Option<Sender<Command>>,
    threads: Vec<JoinHandle<()>>,
}

impl Journal {
    /// Opens the journal in a directory, which is made if it is not there, and locks it against
    /// other nodes.
    ///
    /// # Errors [`OpenError`], a sentence for the user.
    pub fn open(directory: &Path, options: Options) -> Result<(Self, Recovered), OpenError> {
        let disk = Directory::open(directory, options.uses_uring)?;
        Self::open_on(Arc::new(disk), options)
    }

    /// Opens the journal on a disk, which nobody else uses.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_on(disk: Arc<dyn Disk>, options: Options) -> Result<(Self, Recovered), OpenError> {
        if options.segment_bytes < SEGMENT_BYTES_MIN {
            return Err(OpenError::SegmentBytes {
                bytes: options.segment_bytes,
                least: SEGMENT_BYTES_MIN,
            });
        }
        let opened = recovery::open(&*disk, options.checks_all_payloads)?;
        let shared = Arc::new(Shared::new(disk, options.segment_bytes, opened.index));
        let compactor = Arc::new(Mutex::new(Compactor::new(Arc::clone(&shared))));
        let (commands, submitted) = bounded(QUEUE_MAX);
        let (wake, woken) = bounded(1);
        let wake = Wake(wake);
        wake.wake();
        let writer = Writer::new(
            Arc::clone(&shared),
            wake,
            opened.next_segment,
            opened.next_sequence,
            opened.previous_end,
        );
        let mut journal = Self {
            shared,
            compactor,
            commands: Some(commands),
            threads: Vec::new(),
        };
        journal.start("phr-journal", move || writer.run(&submitted))?;
        if options.compacts {
            let compactor = Arc::clone(&journal.compactor);
            journal.start("phr-compaction", move || {
                compact_when_woken(&compactor, &woken);
            })?;
        }
        Ok((journal, opened.recovered))
    }

    fn start(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(body);
        self.threads.push(thread.map_err(OpenError::Thread)?);
        Ok(())
    }

    /// Hands an entry over, never waits, and calls `done` once it is durable or known not to be.
    /// Entries take effect in the order in which they are handed over.
    pub fn submit(&self, entry: Entry, payload: Payload, done: Done) {
        self.send(Command::Submit {
            entry: Box::new(entry),
            payload,
            done,
        });
    }

    /// Deletes objects that are to be retained until `now_ns` or shorter, a few thousand at a time:
    /// when `done` is told of any, there may be more.
    pub fn expire(&self, now_ns: u64, done: Expired) {
        self.send(Command::Expire { now_ns, done });
    }

    /// Has `told` called after the answers of each batch, and after each answer that comes alone,
    /// on the thread that has called them: so those who are told of many are woken once. Whoever
    /// is there first stays.
    pub fn after_answers(&self, told: impl Fn() + Send + Sync + 'static) {
        let _ = self.shared.after_answers.set(Box::new(told));
    }

    fn send(&self, command: Command) {
        let sent = match &self.commands {
            Some(commands) => commands.try_send(command),
            None => Err(TrySendError::Disconnected(command)),
        };
        match sent {
            Ok(()) => return,
            Err(TrySendError::Full(command)) => command.refuse(WriteError::Overloaded),
            Err(TrySendError::Disconnected(command)) => command.refuse(WriteError::Closed),
        }
        self.shared.answered();
    }

    /// The object that a name stands for. It sees everything of which somebody has been told that
    /// it is durable, and nothing else.
    pub fn find(&self, app: &str, bucket: &str, key: &[u8]) -> Option<Stored> {
        let name = Name::new(app, bucket, key);
        self.shared.index().find(&name)
    }

    /// The object of this number, as long as its name, its session or a firing that took it needs
    /// it.
    pub fn object(&self, sequence: Sequence) -> Option<Stored> {
        self.shared.index().stored(sequence)
    }

    /// Numbers for people and metrics.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Compacts once, on the caller's thread; false if nothing is worth it.
    ///
    /// # Errors
    /// What the disk says. Nothing is lost, and a further call tries again.
    pub fn compact(&self) -> io::Result<bool> {
        let mut compactor = self
            .compactor
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        compactor.step()
    }
}

fn compact_when_woken(compactor: &Mutex<Compactor>, woken: &Receiver<()>) {
    while woken.recv().is_ok() {
        let mut compactor = compactor.lock().unwrap_or_else(PoisonError::into_inner);
        // An error is counted, and tried again when something more has died.
        while compactor.step().unwrap_or(false) {}
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.commands = None;
        for thread in self.threads.drain(..) {
            // A thread that has panicked has said so.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("stats", &self.stats())
            .finish()
    }
}
