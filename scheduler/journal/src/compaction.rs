//! Gives back the space of what is no longer needed: copies what is left of neighbouring segments
//! into one that takes their place in the log.
//!
//! The copy is durable under another name before it takes the name of the first of them, and says
//! which numbers it stands for, so that at every instant a restart reads either the originals or
//! the copy. The order of the log never changes. Who reads an original keeps it.

use std::io;
use std::sync::Arc;

use crate::entry::{Entry, SessionId};
use crate::extent::Place;
use crate::format::{
    FLAG_ENDED, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader,
};
use crate::index::{Index, Moved};
use crate::limits::{CHUNK_BYTES, MOVES_PER_LOCK};
use crate::scan::{Found, Scanner, Window};
use crate::segment::{self, Segment, random_salt};
use crate::shared::{Shared, count};
use crate::tail::Tail;

/// Rewrites segments, one run at a time.
pub(crate) struct Compactor {
    shared: Arc<Shared>,
    /// Files for which a compacted segment stands, and that could not be removed yet. That segment
    /// must not go before they have.
    leftovers: Vec<String>,
}

/// A copy in the making.
struct Copy {
    header: SegmentHeader,
    /// There once something is to be copied.
    tail: Option<Tail>,
    /// Where each copied record begins.
    copied: Vec<(u64, RecordHeader)>,
    gone: Vec<Moved>,
}

impl Compactor {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            leftovers: Vec::new(),
        }
    }

    /// Compacts what is worth it most; false if nothing is.
    pub(crate) fn step(&mut self) -> io::Result<bool> {
        let outcome = self.try_step();
        let counters = &self.shared.counters;
        match outcome {
            Ok(true) => count(&counters.compactions, 1),
            Ok(false) => {}
            Err(_) => count(&counters.failed_compactions, 1),
        }
        outcome
    }

    fn try_step(&mut self) -> io::Result<bool> {
        self.remove_leftovers()?;
        let run = choose(&self.shared.index(), self.shared.segment_bytes);
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return Ok(false);
        };
        let header = SegmentHeader {
            first: first.header.first,
            last: last.header.last,
            length: 0,
            previous_end: first.header.previous_end,
            first_sequence: first.header.first_sequence,
            salt: random_salt(),
        };
        let mut copy = Copy {
            header,
            tail: None,
            copied: Vec::new(),
            gone: Vec::new(),
        };
        let rewritten = run
            .iter()
            .try_for_each(|segment| self.copy_segment(segment, &mut copy))
            .and_then(|()| self.replace(&run, copy));
        if rewritten.is_err() {
            // A disk that is full needs the room; if there is no such file, all the better.
            let name = segment::unfinished_name_of(header.first);
            let _ = self.shared.disk.remove(&name);
        }
        rewritten.map(|()| true)
    }

    fn remove_leftovers(&mut self) -> io::Result<()> {
        if self.leftovers.is_empty() {
            return Ok(());
        }
        for name in &self.leftovers {
            match self.shared.disk.remove(name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.shared.disk.sync()?;
        self.leftovers.clear();
        Ok(())
    }

    fn copy_segment(&self, segment: &Arc<Segment>, copy: &mut Copy) -> io::Result<()> {
        let end = segment.end();
        let mut scanner = Scanner::new(&*segment.file, &segment.header, end, false);
        let mut window = Window::new(&*segment.file, end);
        while let Some(found) = scanner.next() {
            let fate = Fate::of(&found, &self.shared.index());
            match fate {
                Fate::Copied(flags, less) => {
                    self.copy_record(&found, flags, &mut window, copy)?;
                    copy.gone.extend(less.map(Moved::SessionLess));
                }
                Fate::Gone(gone) => copy.gone.extend(gone),
            }
        }
        if scanner.offset() == end {
            return Ok(());
        }
        // It was whole when it was opened or written. What cannot be read now might be needed.
        segment.set_damaged();
        Err(io::Error::other(
            "a segment of the journal has been damaged since it was opened",
        ))
    }

    fn copy_record(
        &self,
        found: &Found,
        flags: u8,
        window: &mut Window<'_, dyn crate::disk::DiskFile>,
        copy: &mut Copy,
    ) -> io::Result<()> {
        if copy.tail.is_none() {
            let name = segment::unfinished_name_of(copy.header.first);
            let file = self.shared.disk.create(&name)?;
            let salt = copy.header.salt;
            copy.tail = Some(Tail::new(file, salt, salt, SEGMENT_HEADER_BYTES));
        }
        let Some(tail) = &mut copy.tail else {
            return Ok(());
        };
        let header = RecordHeader {
            flags,
            ..found.header
        };
        copy.copied.push((tail.end(), header));
        tail.header(&header);
        let mut at = found.offset + RECORD_HEADER_BYTES;
        let end = found.offset + header.record_bytes();
        while at < end {
            let length = (end - at).min(CHUNK_BYTES as u64);
            let bytes = window.get(at, length as usize)?;
            tail.bytes(bytes.ok_or(io::ErrorKind::UnexpectedEof)?)?;
            at += length;
        }
        Ok(())
    }

    /// Puts the copy in the place of the originals, on the disk and then in the index.
    fn replace(&mut self, run: &[Arc<Segment>], copy: Copy) -> io::Result<()> {
        let names = run
            .iter()
            .map(|segment| segment::name_of(segment.header.first));
        let Some(tail) = copy.tail else {
            // Nothing is needed, and each of the files can go without the others.
            for name in names {
                match self.shared.disk.remove(&name) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            self.shared.disk.sync()?;
            self.take_over(run, None, Vec::new(), copy.gone);
            return Ok(());
        };
        let segment = self.publish(copy.header, tail)?;
        self.leftovers.extend(names.skip(1));
        self.take_over(run, Some(segment), copy.copied, copy.gone);
        self.remove_leftovers()
    }

    /// Makes the copy durable and gives it its name.
    fn publish(&self, header: SegmentHeader, mut tail: Tail) -> io::Result<Arc<Segment>> {
        let length = tail.end();
        let header = SegmentHeader { length, ..header };
        let file = Arc::clone(tail.file());
        crate::disk::write_all(&*file, &header.encode(), 0)?;
        tail.flush()?;
        let (from, to) = (
            segment::unfinished_name_of(header.first),
            segment::name_of(header.first),
        );
        self.shared.disk.rename(&from, &to)?;
        self.shared.disk.sync()?;
        let segment = Segment::new(header, file, length);
        segment.seal();
        Ok(Arc::new(segment))
    }

    /// Lets the index know, a part at a time: originals and copy are both readable meanwhile.
    fn take_over(
        &self,
        run: &[Arc<Segment>],
        segment: Option<Arc<Segment>>,
        copied: Vec<(u64, RecordHeader)>,
        gone: Vec<Moved>,
    ) {
        let mut index = self.shared.index_mut();
        for original in run {
            index.segments.remove(&original.header.first);
        }
        let mut moves = Vec::new();
        if let Some(segment) = segment {
            index
                .segments
                .insert(segment.header.first, Arc::clone(&segment));
            moves.extend(copied.into_iter().map(|(offset, header)| {
                Moved::To(Place {
                    segment: Arc::clone(&segment),
                    offset,
                    header,
                })
            }));
        }
        drop(index);
        moves.extend(gone);
        let mut moves = moves.into_iter().peekable();
        while moves.peek().is_some() {
            let mut index = self.shared.index_mut();
            for moved in moves.by_ref().take(MOVES_PER_LOCK) {
                index.moved(moved);
            }
        }
    }
}

/// What becomes of a record.
enum Fate {
    /// It is copied with these flags; the session no longer counts it.
    Copied(u8, Option<SessionId>),
    Gone(Vec<Moved>),
}

impl Fate {
    fn of(found: &Found, index: &Index) -> Self {
        let had_ended = found.header.flags & FLAG_ENDED != 0;
        if index.needs(found.header.sequence) {
            return match &found.entry {
                Some(Entry::Object(object))
                    if !had_ended && !index.session_is_open(object.session) =>
                {
                    Self::Copied(FLAG_ENDED, Some(object.session))
                }
                _ => Self::Copied(found.header.flags & FLAG_ENDED, None),
            };
        }
        if found.is_void {
            return Self::Gone(Vec::new());
        }
        Self::Gone(match &found.entry {
            Some(Entry::Object(object)) => {
                let less = (!had_ended).then_some(Moved::SessionLess(object.session));
                let gone = Moved::ObjectGone(object.name.clone());
                [gone].into_iter().chain(less).collect()
            }
            Some(Entry::End(_) | Entry::Delete(_)) | None => Vec::new(),
            Some(entry) => entry
                .session()
                .map(Moved::SessionLess)
                .into_iter()
                .collect(),
        })
    }
}

/// Neighbours that are worth rewriting into one segment: one of which at least half is dead and
/// those after it that are so too, as far as the copy stays within a segment, or several that
/// together fill half a segment at most. Never the newest one, whose number and entries tell where
/// to go on.
fn choose(index: &Index, segment_bytes: u64) -> Vec<Arc<Segment>> {
    let mut segments: Vec<_> = index.segments.values().collect();
    segments.pop();
    let can_move = |segment: &Segment| segment.is_sealed() && !segment.is_damaged();
    for (at, first) in segments.iter().enumerate() {
        if !can_move(first) {
            continue;
        }
        let mut bytes = first.needed_bytes();
        let neighbours = segments[at + 1..].iter().take_while(|next| {
            let both_mostly_dead = first.is_mostly_dead() && next.is_mostly_dead();
            let most = if both_mostly_dead {
                segment_bytes
            } else {
                segment_bytes / 2
            };
            bytes += next.needed_bytes();
            can_move(next) && bytes <= most
        });
        let run: Vec<_> = [first]
            .into_iter()
            .chain(neighbours)
            .map(|s| Arc::clone(s))
            .collect();
        if run.len() > 1 || first.is_mostly_dead() {
            return run;
        }
    }
    Vec::new()
}
