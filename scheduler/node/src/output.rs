//! What functions print, judged, tagged and kept within bounds.
//!
//! Executors write it, so text is made UTF-8 and cut, and no amount of it makes the node use more
//! than the limits below. What is dropped is counted, never waited for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use pheromone_executor::protocol::{OutputHead, OutputKind as Tag, OutputPiece};
use serde::Serialize;

/// Lines that wait for whoever reads them. With [`TEXT_BYTES_MAX`] at most 64 MiB.
const LINES_WAITING_MAX: usize = 4096;
/// Bytes of one line; the rest is cut.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Lines kept per executor for failure reports.
const TAIL_LINES: usize = 20;
/// Bytes of each of them.
const TAIL_LINE_BYTES: usize = 1024;

/// One line of output, or a notice of the node's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Output {
    /// The app.
    pub app: String,
    /// The function, or the custom trigger, where it is known.
    pub function: Option<String>,
    /// The session, or 0.
    pub session: u64,
    /// The invocation, or 0.
    pub invocation: u64,
    /// The executor's slot, where one is concerned.
    pub slot: Option<u16>,
    /// Where it came from.
    pub kind: OutputKind,
    /// Without a line end.
    pub text: String,
    /// Lines that were dropped before this one, by the executor or here.
    pub dropped: u64,
}

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputKind {
    /// stdout through stdio.
    Stdout,
    /// stderr through stdio.
    Stderr,
    /// `phr_log` at `PHR_DEBUG`.
    Debug,
    /// `phr_log` at `PHR_INFO`.
    Info,
    /// `phr_log` at `PHR_WARN`.
    Warn,
    /// `phr_log` at `PHR_ERROR`.
    Error,
    /// The crash handler's last words.
    Crash,
    /// Written to the descriptors directly: only app and executor are known.
    Raw,
    /// The node: an executor died, was killed or replaced.
    Notice,
    /// An error event of a session that goes on.
    ErrorEvent,
}

impl From<Tag> for OutputKind {
    fn from(tag: Tag) -> Self {
        match tag {
            Tag::Stdout => Self::Stdout,
            Tag::Stderr => Self::Stderr,
            Tag::Debug => Self::Debug,
            Tag::Info => Self::Info,
            Tag::Warn => Self::Warn,
            Tag::Error => Self::Error,
            Tag::Crash => Self::Crash,
        }
    }
}

/// Text of at most `most` bytes, valid and without a line end; what is cut is marked by `...`.
pub fn clean(bytes: &[u8], most: usize) -> String {
    let fits = bytes.len() <= most;
    let mut text = String::from_utf8_lossy(&bytes[..bytes.len().min(most)]).into_owned();
    // What stands for bytes that are no text is longer than they were.
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let fits = fits && end == text.len();
    text.truncate(end);
    while text.ends_with(['\n', '\r']) {
        text.pop();
    }
    if !fits {
        text.push_str("...");
    }
    text
}

/// Where lines go; cheap to clone.
#[derive(Clone, Debug)]
pub struct Outlet {
    sender: Sender<Output>,
    receiver: Receiver<Output>,
    dropped: Arc<AtomicU64>,
    dropped_total: Arc<AtomicU64>,
}

impl Default for Outlet {
    fn default() -> Self {
        let (sender, receiver) = crossbeam_channel::bounded(LINES_WAITING_MAX);
        Self {
            sender,
            receiver,
            dropped: Arc::default(),
            dropped_total: Arc::default(),
        }
    }
}

impl Outlet {
    /// Where lines come out. Several receivers share the lines.
    pub fn receiver(&self) -> Receiver<Output> {
        self.receiver.clone()
    }

    /// Lines ever dropped.
    pub fn dropped_total(&self) -> u64 {
        self.dropped_total.load(Ordering::Relaxed)
    }

    /// Puts a line in; the oldest one goes where there is no room.
    pub fn put(&self, mut line: Output) {
        line.dropped += self.dropped.swap(0, Ordering::Relaxed);
        self.dropped_total
            .fetch_add(line.dropped, Ordering::Relaxed);
        loop {
            match self.sender.try_send(line) {
                Ok(()) | Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(back)) => {
                    line = back;
                    if let Ok(oldest) = self.receiver.try_recv() {
                        self.dropped_total.fetch_add(1, Ordering::Relaxed);
                        line.dropped += 1 + oldest.dropped;
                    }
                }
            }
        }
    }

    /// Puts a notice of the node's own in.
    pub fn notice(&self, app: &str, slot: Option<u16>, text: String) {
        self.put(Output {
            app: app.to_owned(),
            function: None,
            session: 0,
            invocation: 0,
            slot,
            kind: OutputKind::Notice,
            text,
            dropped: 0,
        });
    }
}

/// The last lines of one executor.
#[derive(Debug, Default)]
pub struct Tail {
    lines: VecDeque<(u64, String)>,
    /// What the crash handler said last.
    crash: String,
}

impl Tail {
    /// Another process writes from here on; what the one before wrote is kept.
    pub fn new_process(&mut self) {
        self.crash.clear();
    }

    /// Keeps a line.
    pub fn keep(&mut self, invocation: u64, kind: OutputKind, text: &str) {
        let text = clean(text.as_bytes(), TAIL_LINE_BYTES);
        if kind == OutputKind::Crash {
            self.crash = text;
            return;
        }
        if self.lines.len() == TAIL_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back((invocation, text));
    }

    /// What the crash handler said; empty for nothing.
    pub fn crash(&self) -> &str {
        &self.crash
    }

    /// Lines of this invocation, oldest first, and those that say no invocation.
    pub fn of(&self, invocation: u64) -> Vec<String> {
        self.lines
            .iter()
            .filter(|(of, _)| *of == invocation || *of == 0 || invocation == 0)
            .map(|(_, text)| text.clone())
            .collect()
    }
}

/// Bytes of a raw pipe, cut into lines.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
    /// The line under way is longer than allowed; its rest is skipped.
    skipping: bool,
}

impl Lines {
    /// Takes bytes and gives every line that is complete, or as long as a line may be.
    pub fn take(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let ends = piece.ends_with(b"\n");
            if !self.skipping {
                // One byte over the limit is enough for `clean` to see that there was more.
                let room = TEXT_BYTES_MAX + 1 - self.partial.len();
                self.partial
                    .extend_from_slice(&piece[..piece.len().min(room)]);
                if ends || self.partial.len() > TEXT_BYTES_MAX {
                    line(&clean(&self.partial, TEXT_BYTES_MAX));
                    self.partial.clear();
                    self.skipping = !ends;
                }
            } else if ends {
                self.skipping = false;
            }
        }
    }

    /// Gives the last line where no line end came.
    pub fn finish(&mut self, mut line: impl FnMut(&str)) {
        if !self.partial.is_empty() {
            line(&clean(&self.partial, TEXT_BYTES_MAX));
            self.partial.clear();
        }
        self.skipping = false;
    }
}

/// Bytes of a tagged pipe, cut into records.
#[derive(Debug, Default)]
pub struct Records {
    /// The record under way.
    partial: Vec<u8>,
    /// What a function has written into the pipe itself.
    foreign: Lines,
}

impl Records {
    /// Takes bytes and gives the text of every record that is complete with its head, and every
    /// line of what is no record without one.
    pub fn take(&mut self, bytes: &[u8], mut line: impl FnMut(Option<OutputHead>, &str)) {
        self.partial.extend_from_slice(bytes);
        let mut left = &self.partial[..];
        while let Some(piece) = OutputPiece::take(&mut left) {
            match piece {
                OutputPiece::Record(head, text) => line(Some(head), &clean(text, TEXT_BYTES_MAX)),
                OutputPiece::Foreign(bytes) => self.foreign.take(bytes, |text| line(None, text)),
            }
        }
        let taken = self.partial.len() - left.len();
        self.partial.drain(..taken);
    }

    /// Gives what is left as lines without a head: it has not become a record.
    pub fn finish(&mut self, mut line: impl FnMut(&str)) {
        self.foreign.take(&self.partial, &mut line);
        self.foreign.finish(line);
        self.partial.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(text: &str) -> Output {
        Output {
            app: "a".into(),
            function: None,
            session: 0,
            invocation: 0,
            slot: Some(0),
            kind: OutputKind::Raw,
            text: text.into(),
            dropped: 0,
        }
    }

    #[test]
    fn a_full_outlet_drops_the_oldest_and_counts() {
        let outlet = Outlet::default();
        for number in 0..LINES_WAITING_MAX + 3 {
            outlet.put(line(&number.to_string()));
        }
        let lines: Vec<Output> = outlet.receiver().try_iter().collect();
        assert_eq!(lines.len(), LINES_WAITING_MAX);
        assert_eq!(lines[0].text, "3");
        assert_eq!(lines.iter().map(|line| line.dropped).sum::<u64>(), 3);
        assert_eq!(outlet.dropped_total(), 3);
    }

    #[test]
    fn the_tail_keeps_the_last_lines_of_an_invocation() {
        let mut tail = Tail::default();
        tail.keep(1, OutputKind::Stdout, "of another");
        for number in 0..30 {
            tail.keep(2, OutputKind::Stdout, &number.to_string());
        }
        tail.keep(0, OutputKind::Raw, "raw");
        tail.keep(2, OutputKind::Crash, "address 0x0");
        let lines = tail.of(2);
        assert_eq!(lines.len(), TAIL_LINES);
        assert_eq!((lines[0].as_str(), lines[19].as_str()), ("11", "raw"));
        assert_eq!(tail.of(1), ["raw"]);
        assert_eq!(tail.crash(), "address 0x0");
    }

    #[test]
    fn lines_come_whole_whatever_the_pieces() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for piece in [&b"ab"[..], b"c\nde\n\nf", b"", b"g"] {
            lines.take(piece, |line| seen.push(line.to_owned()));
        }
        lines.finish(|line| seen.push(line.to_owned()));
        assert_eq!(seen, ["abc", "de", "", "fg"]);
    }

    #[test]
    fn a_line_without_end_is_cut_and_its_rest_skipped() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for _ in 0..100 {
            lines.take(&[b'x'; 4096], |line| seen.push(line.to_owned()));
        }
        lines.take(b"tail\nnext\n", |line| seen.push(line.to_owned()));
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0].len(), TEXT_BYTES_MAX + "...".len());
        assert_eq!(seen[1], "next");
    }

    fn record(text: &[u8]) -> Vec<u8> {
        let head = OutputHead {
            session: 1,
            invocation: 2,
            function: 3,
            kind: Tag::Info,
            dropped: 4,
        };
        [&head.encode(text.len())[..], text].concat()
    }

    fn all_lines(records: &mut Records, pieces: &[&[u8]]) -> Vec<(bool, String)> {
        let mut lines = Vec::new();
        for piece in pieces {
            records.take(piece, |head, text| {
                lines.push((head.is_some(), text.to_owned()));
            });
        }
        records.finish(|text| lines.push((false, text.to_owned())));
        lines
    }

    #[test]
    fn records_come_with_their_heads_and_anything_between_them_as_lines() {
        let bytes = [
            &record(b"one")[..],
            b"by ha",
            &record(b"two\nof them"),
            b"nd\nand ",
            &record(b"")[..4],
        ]
        .concat();
        let lines = all_lines(&mut Records::default(), &[&bytes]);
        let expected = [
            (true, "one"),
            (true, "two\nof them"),
            (false, "by hand"),
            (false, "and \x1ePHR"),
        ];
        let expected = expected.map(|(tagged, text)| (tagged, text.to_owned()));
        assert_eq!(lines, expected);
    }

    proptest! {
        #[test]
        fn pieces_do_not_change_the_records(
            parts in proptest::collection::vec(
                (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
            cuts in proptest::collection::vec(0_usize..600, 0..8),
        ) {
            let bytes: Vec<u8> = parts
                .iter()
                .flat_map(|(ours, bytes)| if *ours { record(bytes) } else { bytes.clone() })
                .collect();
            let whole = all_lines(&mut Records::default(), &[&bytes]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> =
                cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let mut records = Records::default();
            prop_assert_eq!(all_lines(&mut records, &pieces), whole);
            prop_assert!(records.partial.is_empty());
        }

        #[test]
        fn cut_text_is_bounded_and_valid(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            most in 0_usize..64,
        ) {
            // Each invalid byte becomes one character of three bytes.
            prop_assert!(clean(&bytes, most).len() <= 3 * most + "...".len());
        }

        #[test]
        fn pieces_do_not_change_the_lines(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200),
            cuts in proptest::collection::vec(0_usize..200, 0..8),
        ) {
            let mut whole = Vec::new();
            let mut at_once = Lines::default();
            at_once.take(&bytes, |line| whole.push(line.to_owned()));
            at_once.finish(|line| whole.push(line.to_owned()));
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut lines = Lines::default();
            for pair in cuts.windows(2) {
                lines.take(&bytes[pair[0]..pair[1]], |line| pieces.push(line.to_owned()));
            }
            lines.finish(|line| pieces.push(line.to_owned()));
            prop_assert_eq!(whole, pieces);
        }
    }
}
