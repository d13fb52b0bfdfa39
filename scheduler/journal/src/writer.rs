//! The one thread that writes: it judges entries in the order in which they come, and makes all
//! that wait durable with one write and one flush.

use std::io;
use std::mem;
use std::sync::Arc;

use crossbeam_channel::Receiver;

use crate::entry::{Delete, Entry, Sequence};
use crate::error::WriteError;
use crate::extent::Place;
use crate::format::{Checksum, FLAG_BATCH, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, EXPIRE_MAX, META_BYTES_MAX, PAYLOAD_BYTES_MAX,
};
use crate::rules::{Pending, Receipt, Verdict};
use crate::segment::{self, Segment, random_salt};
use crate::shared::{Shared, Wake, count};
use crate::tail::{AppendError, Payload, Tail};

/// What is called once it is known what has become of an entry. Usually on the writer's thread,
/// which waits for it: it must be brief and must not panic. On the thread that hands the entry over
/// where that is refused at once, so it must not need a lock that is held then.
pub type Done = Box<dyn FnOnce(Result<Receipt, WriteError>) + Send>;

/// What is called once objects have expired, with their number; see [`Done`].
pub type Expired = Box<dyn FnOnce(Result<usize, WriteError>) + Send>;

/// What the writer is asked to do.
pub(crate) enum Command {
    Submit {
        entry: Box<Entry>,
        payload: Payload,
        done: Done,
    },
    Expire {
        now_ns: u64,
        done: Expired,
    },
}

impl Command {
    /// Says that it will not be done.
    pub(crate) fn refuse(self, error: WriteError) {
        match self {
            Self::Submit { done, .. } => done(Err(error)),
            Self::Expire { done, .. } => done(Err(error)),
        }
    }
}

/// Tells somebody what has become of his entry: with an error, that the disk has refused the batch.
type Answer = Box<dyn FnOnce(Option<&Arc<io::Error>>) + Send>;

/// The writer's state.
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) wake: Wake,
    /// The segment that is appended to; none before the first entry and after a failure.
    active: Option<Active>,
    /// A segment behind whose end a failed write may have left something.
    remains: Option<Arc<Segment>>,
    next_segment: u64,
    next_sequence: Sequence,
    /// Where the segment before `next_segment` ends; 0 if there is none.
    previous_end: u64,
    /// What the last batch was put together in.
    memory: Vec<u8>,
}

struct Active {
    segment: Arc<Segment>,
    /// The checksum of the last record's header.
    previous: u32,
}

/// Entries that become durable together.
#[derive(Default)]
struct Batch {
    pending: Pending,
    /// There once something is to be written.
    tail: Option<Tail>,
    accepted: Vec<(Entry, u64, RecordHeader)>,
    answers: Vec<Answer>,
    bytes: u64,
    failure: Option<Arc<io::Error>>,
}

impl Batch {
    fn has_room(&self) -> bool {
        let is_small = self.bytes < BATCH_BYTES_MAX && self.answers.len() < BATCH_ENTRIES_MAX;
        is_small && self.accepted.len() < BATCH_ENTRIES_MAX && self.failure.is_none()
    }

    /// Answers once the batch is durable. If the disk refuses it, all that was decided with it is
    /// void.
    fn answer(&mut self, done: Done, outcome: Result<Receipt, WriteError>) {
        self.answers.push(Box::new(|failure| match failure {
            Some(error) => done(Err(WriteError::Disk(Arc::clone(error)))),
            None => done(outcome),
        }));
    }
}

impl Writer {
    /// A writer whose first segment has this number and follows one that ends there.
    pub(crate) fn new(
        shared: Arc<Shared>,
        wake: Wake,
        next_segment: u64,
        next_sequence: Sequence,
        previous_end: u64,
    ) -> Self {
        Self {
            shared,
            wake,
            active: None,
            remains: None,
            next_segment,
            next_sequence,
            previous_end,
            memory: Vec::new(),
        }
    }

    /// Writes until nobody can ask for anything any more.
    pub(crate) fn run(mut self, commands: &Receiver<Command>) {
        while let Ok(command) = commands.recv() {
            let mut batch = Batch {
                failure: self.cut_remains().err().map(Arc::new),
                ..Batch::default()
            };
            self.take(command, &mut batch);
            while batch.has_room() {
                let Ok(command) = commands.try_recv() else {
                    break;
                };
                self.take(command, &mut batch);
            }
            self.finish(batch);
        }
    }

    /// Cuts what a failed write may have left. Nothing is acknowledged before it is gone, not even
    /// what needs no write: a restart would find it there.
    fn cut_remains(&mut self) -> io::Result<()> {
        if let Some(segment) = &self.remains {
            segment.file.set_length(segment.end())?;
            segment.file.sync()?;
            self.remains = None;
        }
        Ok(())
    }

    fn take(&mut self, command: Command, batch: &mut Batch) {
        match command {
            Command::Submit {
                entry,
                payload,
                done,
            } => {
                let outcome = self.submit(*entry, &payload, batch);
                batch.answer(done, outcome);
            }
            Command::Expire { now_ns, done } => {
                let outcome = self.expire(now_ns, batch);
                batch.answers.push(Box::new(move |failure| match failure {
                    Some(error) => done(Err(WriteError::Disk(Arc::clone(error)))),
                    None => done(outcome),
                }));
            }
        }
    }

    /// Deletes what is past its time.
    fn expire(&mut self, now_ns: u64, batch: &mut Batch) -> Result<usize, WriteError> {
        let due = self.shared.index().due(now_ns, EXPIRE_MAX);
        let mut expired = 0;
        for (name, sequence) in due {
            if batch
                .pending
                .is_current(&self.shared.index(), &name, sequence)
            {
                let delete = Entry::Delete(Delete { name });
                self.write(delete, &Payload::Empty, batch)?;
                expired += 1;
            }
        }
        Ok(expired)
    }

    fn submit(
        &mut self,
        entry: Entry,
        payload: &Payload,
        batch: &mut Batch,
    ) -> Result<Receipt, WriteError> {
        let verdict = batch.pending.judge(&self.shared.index(), &entry);
        match verdict {
            Verdict::Answer(outcome) => outcome,
            Verdict::Write => self.write(entry, payload, batch).map(Receipt::Written),
        }
    }

    fn write(
        &mut self,
        entry: Entry,
        payload: &Payload,
        batch: &mut Batch,
    ) -> Result<Sequence, WriteError> {
        let meta = entry.encode();
        if meta.len() > META_BYTES_MAX || payload.size_bytes() > PAYLOAD_BYTES_MAX {
            return Err(WriteError::TooLarge);
        }
        let mut checksum = Checksum::default();
        checksum.add(&meta);
        let header = RecordHeader {
            kind: entry.kind(),
            flags: if batch.accepted.is_empty() {
                FLAG_BATCH
            } else {
                0
            },
            sequence: self.next_sequence,
            payload_bytes: payload.size_bytes(),
            meta_bytes: meta.len() as u32,
            meta_checksum: checksum.value(),
        };
        let appended = self
            .tail(batch)
            .map_err(AppendError::Disk)
            .and_then(|tail| {
                let offset = tail.end();
                tail.append(&header, &meta, payload).map(|()| offset)
            });
        let offset = match appended {
            Ok(offset) => offset,
            Err(AppendError::Source(error)) => return Err(WriteError::Source(Arc::new(error))),
            Err(AppendError::Disk(error)) => {
                let error = Arc::new(error);
                batch.failure = Some(Arc::clone(&error));
                return Err(WriteError::Disk(error));
            }
        };
        self.next_sequence += 1;
        batch.bytes += header.record_bytes();
        batch.pending.note(&entry, header.sequence);
        batch.accepted.push((entry, offset, header));
        Ok(header.sequence)
    }

    /// Where the batch is appended.
    fn tail<'a>(&mut self, batch: &'a mut Batch) -> io::Result<&'a mut Tail> {
        if let Some(error) = &batch.failure {
            return Err(io::Error::new(error.kind(), Arc::clone(error)));
        }
        let tail = match batch.tail.take() {
            Some(tail) => tail,
            None => {
                let memory = mem::take(&mut self.memory);
                let active = self.active()?;
                let (segment, previous) = (&active.segment, active.previous);
                let salt = segment.header.salt;
                let file = Arc::clone(&segment.file);
                Tail::new(file, salt, previous, segment.end()).reusing(memory)
            }
        };
        Ok(batch.tail.insert(tail))
    }

    /// The segment to append to, a new one if need be.
    fn active(&mut self) -> io::Result<&mut Active> {
        let active = match self.active.take() {
            Some(active) => active,
            None => self.begin_segment()?,
        };
        Ok(self.active.insert(active))
    }

    fn begin_segment(&mut self) -> io::Result<Active> {
        let header = SegmentHeader {
            first: self.next_segment,
            last: self.next_segment,
            length: 0,
            previous_end: self.previous_end,
            first_sequence: self.next_sequence,
            salt: random_salt(),
        };
        let name = segment::name_of(header.first);
        let disk = &self.shared.disk;
        let file = disk.create(&name)?;
        let written = file
            .write_and_sync(&mut header.encode().to_vec(), 0)
            .and_then(|()| disk.sync());
        if let Err(error) = written {
            // What stays behind if this fails too has no record, and is overwritten by the next
            // try.
            let _ = disk.remove(&name);
            return Err(error);
        }
        let segment = Arc::new(Segment::new(header, file, SEGMENT_HEADER_BYTES));
        let segments = &mut self.shared.index_mut().segments;
        segments.insert(header.first, Arc::clone(&segment));
        // The one before may be compacted from now on.
        self.wake.wake();
        self.next_segment += 1;
        self.previous_end = SEGMENT_HEADER_BYTES;
        Ok(Active {
            segment,
            previous: header.salt,
        })
    }

    /// Makes a batch durable and tells everybody.
    fn finish(&mut self, mut batch: Batch) {
        if let (None, Some(tail)) = (&batch.failure, &mut batch.tail)
            && !batch.accepted.is_empty()
            && let Err(error) = tail.flush()
        {
            batch.failure = Some(Arc::new(error));
        }
        if batch.failure.is_some() {
            count(&self.shared.counters.failed_batches, 1);
            self.abandon_segment();
        } else if let (Some(tail), false) = (&batch.tail, batch.accepted.is_empty()) {
            let (end, previous) = (tail.end(), tail.previous());
            self.take_effect(mem::take(&mut batch.accepted), end, previous);
        }
        self.memory = batch.tail.map_or_else(Vec::new, Tail::into_memory);
        for answer in batch.answers {
            answer(batch.failure.as_ref());
        }
        self.shared.answered();
    }

    /// Lets everybody see what is durable now.
    fn take_effect(&mut self, accepted: Vec<(Entry, u64, RecordHeader)>, end: u64, previous: u32) {
        let Some(active) = &mut self.active else {
            return;
        };
        active.previous = previous;
        active.segment.set_end(end);
        self.previous_end = end;
        count(&self.shared.counters.entries, accepted.len() as u64);
        count(&self.shared.counters.batches, 1);
        let mut index = self.shared.index_mut();
        for (entry, offset, header) in accepted {
            let place = Place {
                segment: Arc::clone(&active.segment),
                offset,
                header,
            };
            index.apply(entry, place, false);
        }
        if end >= self.shared.segment_bytes {
            active.segment.seal();
            self.active = None;
            index.wants_compaction = true;
        }
        if mem::take(&mut index.wants_compaction) {
            self.wake.wake();
        }
    }

    /// Trusts a segment no further. After a failed flush nobody knows what is on the disk, and a
    /// later flush that succeeds says nothing of what the failed one should have written.
    fn abandon_segment(&mut self) {
        if let Some(active) = self.active.take() {
            active.segment.seal();
            self.remains = Some(active.segment);
            self.wake.wake();
        }
    }
}
