//! Opening a journal: reads what is there, mends what a crash has left, and reports what is lost.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, read_exact};
use crate::entry::{Entry, Sequence};
use crate::error::OpenError;
use crate::extent::{Extent, Place, Recorded};
use crate::format::{self, FLAG_ENDED, NotASegment, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::index::Index;
use crate::report::{Recovered, Report, Unfinished};
use crate::scan::{self, Ending, Found, Scanner};
use crate::segment::{self, Segment};

/// The file that says what a directory is.
const FORMAT: &str = "format";
/// What it is called while it is written.
const FORMAT_UNFINISHED: &str = "format.new";
/// What it says.
const FORMAT_TEXT: &str = "pheromone journal 1";
/// Bytes of it that are looked at.
const FORMAT_BYTES_MAX: usize = 64;

/// What opening has found out.
pub(crate) struct Opened {
    pub(crate) index: Index,
    pub(crate) recovered: Recovered,
    pub(crate) next_segment: u64,
    pub(crate) next_sequence: Sequence,
    /// Where the last segment ends; 0 if there is none.
    pub(crate) previous_end: u64,
}

/// A segment file before its records are read.
struct File {
    name: String,
    header: SegmentHeader,
    file: Arc<dyn DiskFile>,
    length: u64,
}

/// Opens what is on a disk.
pub(crate) fn open(disk: &dyn Disk, checks_all_payloads: bool) -> Result<Opened, OpenError> {
    let names = disk.list().map_err(|source| OpenError::File {
        name: ".".to_owned(),
        source,
    })?;
    check_format(disk, &names)?;
    let Files {
        segments,
        last_number,
        useless,
        reports,
    } = Files::open(disk, &names)?;
    for name in &useless {
        disk.remove(name).map_err(at(name))?;
    }
    if !useless.is_empty() {
        // What made them useless may go later, and they must not come back then.
        disk.sync().map_err(at("."))?;
    }
    let mut recovery = Recovery {
        index: Index::recovering(),
        reports,
        records: 0,
        last_sequence: 0,
        checks_all_payloads,
    };
    let mut previous_end = 0;
    let mut segments = segments.into_iter().peekable();
    while let Some(file) = segments.next() {
        let next = segments.peek();
        let limit = limit(&file, next);
        let before = next.map_or(Sequence::MAX, |next| next.header.first_sequence);
        // A compacted segment was written as a whole: it has no last batch.
        let is_last = file.header.last == last_number && file.header.length == 0;
        previous_end = recovery.segment(&file, (limit, before), is_last)?;
    }
    let number = last_number.max(recovery.last_sequence);
    if number >= format::NEXT_NUMBER_MAX {
        return Err(OpenError::NumbersUsedUp { number });
    }
    Ok(recovery.finish(disk, last_number, previous_end))
}

fn at(name: &str) -> impl FnOnce(io::Error) -> OpenError {
    let name = name.to_owned();
    move |source| OpenError::File { name, source }
}

/// Refuses a directory of another format; marks a new one.
fn check_format(disk: &dyn Disk, names: &[String]) -> Result<(), OpenError> {
    if !names.iter().any(|name| name == FORMAT) {
        if names.iter().any(|name| segment::number_in(name).is_some()) {
            return Err(OpenError::NoFormat);
        }
        return write_format(disk).map_err(at(FORMAT));
    }
    let found = read_format(disk).map_err(at(FORMAT))?;
    if found == FORMAT_TEXT {
        return Ok(());
    }
    Err(OpenError::Format {
        found,
        expected: FORMAT_TEXT,
    })
}

fn write_format(disk: &dyn Disk) -> io::Result<()> {
    let file = disk.create(FORMAT_UNFINISHED)?;
    file.write_and_sync(&mut format!("{FORMAT_TEXT}\n").into_bytes(), 0)?;
    disk.rename(FORMAT_UNFINISHED, FORMAT)?;
    disk.sync()
}

fn read_format(disk: &dyn Disk) -> io::Result<String> {
    let file = disk.open(FORMAT)?;
    let length = file.length()?.min(FORMAT_BYTES_MAX as u64);
    let mut bytes = vec![0; length as usize];
    read_exact(&*file, &mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// The files of a directory.
#[derive(Default)]
struct Files {
    /// The segments of the log, in order.
    segments: Vec<File>,
    /// The last number that is taken.
    last_number: u64,
    /// The names of what a crash has left behind.
    useless: Vec<String>,
    reports: Vec<Report>,
}

impl Files {
    fn open(disk: &dyn Disk, names: &[String]) -> Result<Self, OpenError> {
        let unfinished = names.iter().filter(|name| segment::is_unfinished(name));
        let mut files = Self {
            useless: unfinished.cloned().collect(),
            ..Self::default()
        };
        let numbers: BTreeMap<_, _> = names
            .iter()
            .filter_map(|name| Some((segment::number_in(name)?, name)))
            .collect();
        for (number, name) in numbers {
            files.add(disk, number, name)?;
        }
        Ok(files)
    }

    fn add(&mut self, disk: &dyn Disk, number: u64, name: &str) -> Result<(), OpenError> {
        let name = name.to_owned();
        if number <= self.last_number {
            // Compaction has merged it into the one before, and had no time to remove it.
            self.useless.push(name);
            return Ok(());
        }
        let file = disk.open(&name).map_err(at(&name))?;
        let length = file.length().map_err(at(&name))?;
        match scan::segment_header(&*file).unwrap_or(Err(NotASegment::Damaged)) {
            Ok(header) if header.first == number => {
                self.last_number = header.last;
                self.segments.push(File {
                    name,
                    header,
                    file,
                    length,
                });
            }
            Err(NotASegment::Version(version)) => {
                return Err(OpenError::SegmentVersion {
                    name,
                    version,
                    expected: format::VERSION,
                });
            }
            // The header is durable before the first record is written: there was none.
            _ if length <= SEGMENT_HEADER_BYTES => self.useless.push(name),
            _ => {
                self.last_number = number;
                self.reports.push(Report::NoSegment { segment: name });
            }
        }
        Ok(())
    }
}

/// What has been read so far.
struct Recovery {
    index: Index,
    reports: Vec<Report>,
    records: u64,
    last_sequence: Sequence,
    checks_all_payloads: bool,
}

impl Recovery {
    /// Reads one segment, of which so many bytes count and whose records are numbered before those
    /// of the next; gives where that takes it to end.
    fn segment(
        &mut self,
        file: &File,
        (limit, before): (u64, Sequence),
        is_last: bool,
    ) -> Result<u64, OpenError> {
        let segment = Arc::new(Segment::new(file.header, Arc::clone(&file.file), limit));
        segment.seal();
        if limit < file.length {
            // A write that failed has left it, whose sender was told so, and then the node died. It
            // would be taken for a record once the segment that says where this one ends is
            // compacted away.
            self.cut(file, limit).map_err(at(&file.name))?;
        }
        self.last_sequence = self.last_sequence.max(file.header.first_sequence - 1);
        let mut scanner = Scanner::new(
            &*file.file,
            &file.header,
            limit.min(file.length),
            self.checks_all_payloads || is_last,
        )
        .before(before);
        // The records of the last batch read; all before it were acknowledged.
        let mut batch = Vec::new();
        while let Some(record) = scanner.next() {
            if record.begins_batch() || !is_last {
                for record in batch.drain(..) {
                    self.acknowledged(file, &segment, record);
                }
            }
            batch.push(record);
        }
        if is_last {
            self.last_batch(file, &segment, batch)
                .map_err(at(&file.name))?;
        } else {
            for record in batch {
                self.acknowledged(file, &segment, record);
            }
        }
        let end = scanner.offset();
        segment.set_end(end);
        self.index
            .segments
            .insert(file.header.first, Arc::clone(&segment));
        if end == limit {
            return Ok(end);
        }
        let (ending, last_sequence) = scanner.ending();
        self.last_sequence = self.last_sequence.max(last_sequence);
        if is_last && ending == Ending::Torn {
            self.cut(file, end).map_err(at(&file.name))?;
            return Ok(end);
        }
        segment.set_damaged();
        self.reports.push(Report::Lost {
            segment: file.name.clone(),
            offset: end,
            bytes: limit - end,
        });
        Ok(limit)
    }

    fn cut(&mut self, file: &File, end: u64) -> io::Result<()> {
        file.file.set_length(end)?;
        file.file.sync()?;
        self.reports.push(Report::Torn {
            segment: file.name.clone(),
            bytes: file.length - end,
        });
        Ok(())
    }

    /// A record of which somebody has been told that it is durable.
    fn acknowledged(&mut self, file: &File, segment: &Arc<Segment>, record: Found) {
        if !record.is_void && !record.is_sound() {
            let (segment, sequence) = (file.name.clone(), record.header.sequence);
            self.reports.push(match &record.entry {
                Some(Entry::Object(object)) => Report::SpoiledObject {
                    segment,
                    sequence,
                    name: object.name.clone(),
                },
                _ => Report::SpoiledEntry { segment, sequence },
            });
        }
        self.apply(segment, record);
    }

    /// The records of the last batch, which the crash may have stopped: one that is not sound was
    /// never there, so that what it would have replaced still stands.
    fn last_batch(
        &mut self,
        file: &File,
        segment: &Arc<Segment>,
        records: Vec<Found>,
    ) -> io::Result<()> {
        let mut is_changed = false;
        for mut record in records {
            if !record.is_void && !record.is_sound() {
                let mark_at =
                    record.offset + record.header.record_bytes() - format::VOID.len() as u64;
                crate::disk::write_all(&*file.file, &format::VOID, mark_at)?;
                is_changed = true;
                record.is_void = true;
                self.reports.push(Report::Unwritten {
                    segment: file.name.clone(),
                    sequence: record.header.sequence,
                });
            }
            self.apply(segment, record);
        }
        if is_changed { file.file.sync() } else { Ok(()) }
    }

    fn apply(&mut self, segment: &Arc<Segment>, record: Found) {
        self.records += 1;
        self.last_sequence = self.last_sequence.max(record.header.sequence);
        let (false, Some(entry)) = (record.is_void, record.entry) else {
            return;
        };
        let has_ended = record.header.flags & FLAG_ENDED != 0;
        let place = Place {
            segment: Arc::clone(segment),
            offset: record.offset,
            header: record.header,
        };
        self.index.apply(entry, place, has_ended);
    }

    fn finish(mut self, disk: &dyn Disk, last_number: u64, previous_end: u64) -> Opened {
        self.index.finish_recovery();
        let sessions = self.sessions();
        let segments = self.index.segments.values();
        let recovered = Recovered {
            sessions,
            objects: self.index.objects,
            records: self.records,
            segments: self.index.segments.len() as u64,
            disk_bytes: segments.map(|segment| segment.end()).sum(),
            reports: self.reports,
            way: disk.way(),
        };
        Opened {
            index: self.index,
            recovered,
            next_segment: last_number + 1,
            next_sequence: self.last_sequence + 1,
            previous_end,
        }
    }

    fn sessions(&self) -> Vec<Unfinished> {
        let unfinished = self.index.unfinished().into_iter();
        unfinished
            .map(|(session, places)| Unfinished {
                session,
                entries: places.into_iter().filter_map(recorded).collect(),
            })
            .collect()
    }
}

/// How many bytes of a segment count. What follows them is of a write that had failed.
fn limit(file: &File, next: Option<&File>) -> u64 {
    if file.header.length != 0 {
        return file.header.length;
    }
    match next {
        Some(next)
            if next.header.first == file.header.last + 1 && next.header.previous_end != 0 =>
        {
            next.header.previous_end
        }
        _ => file.length,
    }
}

fn recorded(place: Place) -> Option<Recorded> {
    Some(Recorded {
        sequence: place.header.sequence,
        entry: place.entry()?,
        payload: Extent::new(place),
    })
}
