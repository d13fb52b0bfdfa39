//! What functions print: lines, tagged with the invocation, one record in a pipe each.
//!
//! `stdout` and `stderr` of the C library are streams whose writer is here, so that what was
//! printed before a crash is not lost in a buffer that nobody flushes. Nothing here waits: a line
//! that the node does not take at once is dropped and counted, and an invocation that prints past
//! its bound is cut. Costs nothing while nobody prints.
//!
//! It is a pipe and no socket, since a socket carries descriptors: a function could send the node
//! one whose closing takes as long as the function likes (`SO_LINGER`), whoever closes it.

use std::ffi::{c_char, c_int, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU16, AtomicU64, Ordering};

use crate::protocol::{
    OUTPUT_HEAD_BYTES, OUTPUT_RECORD_BYTES_MAX, OUTPUT_TEXT_BYTES_MAX, OutputHead, OutputKind,
};

/// How often the crash handler tries to get at the unfinished lines.
const CRASH_LOCK_ATTEMPTS: u32 = 1000;

static PIPE: AtomicI32 = AtomicI32::new(-1);
/// The pipe's inode: a function may close the descriptor, and its number then be a file's.
static PIPE_INODE: AtomicU64 = AtomicU64::new(0);
static LIMIT_BYTES: AtomicU64 = AtomicU64::new(u64::MAX);

/// The tag of the present invocation; `SERIAL` changes with each attempt.
static SERIAL: AtomicU64 = AtomicU64::new(0);
static SESSION: AtomicU64 = AtomicU64::new(0);
static INVOCATION: AtomicU64 = AtomicU64::new(0);
static FUNCTION: AtomicU16 = AtomicU16::new(u16::MAX);

/// An unfinished line is in [`LINES`].
static PARTIAL: AtomicBool = AtomicBool::new(false);
static LINES: Mutex<Lines> = Mutex::new(Lines::new());

/// One record in the making: room for the head, then the text.
struct Line {
    bytes: [u8; OUTPUT_RECORD_BYTES_MAX],
    text_bytes: usize,
}

struct Lines {
    stdout: Line,
    stderr: Line,
    whole: Line,
    /// Lines that the pipe did not take.
    dropped: u32,
    /// Of the invocation `serial`.
    used_bytes: u64,
    cut: bool,
    serial: u64,
}

impl Line {
    const fn new() -> Self {
        Self {
            bytes: [0; OUTPUT_RECORD_BYTES_MAX],
            text_bytes: 0,
        }
    }

    /// Takes as much as fits; returns how much that was.
    fn push(&mut self, text: &[u8]) -> usize {
        let taken = text.len().min(OUTPUT_TEXT_BYTES_MAX - self.text_bytes);
        let start = OUTPUT_HEAD_BYTES + self.text_bytes;
        self.bytes[start..start + taken].copy_from_slice(&text[..taken]);
        self.text_bytes += taken;
        taken
    }

    fn is_full(&self) -> bool {
        self.text_bytes == OUTPUT_TEXT_BYTES_MAX
    }
}

impl Lines {
    const fn new() -> Self {
        Self {
            stdout: Line::new(),
            stderr: Line::new(),
            whole: Line::new(),
            dropped: 0,
            used_bytes: 0,
            cut: false,
            serial: 0,
        }
    }

    fn line(&mut self, kind: OutputKind) -> &mut Line {
        match kind {
            OutputKind::Stdout => &mut self.stdout,
            OutputKind::Stderr => &mut self.stderr,
            _ => &mut self.whole,
        }
    }

    /// Takes text of one kind; whole lines leave, the rest waits (or leaves, with `ends_line`).
    fn write(&mut self, kind: OutputKind, mut text: &[u8], ends_line: bool) {
        while !text.is_empty() {
            let until = text.iter().position(|byte| *byte == b'\n');
            let line = self.line(kind);
            let wanted = &text[..until.unwrap_or(text.len())];
            let taken = line.push(wanted);
            let complete = taken == wanted.len() && until.is_some();
            if complete || line.is_full() {
                self.leave(kind);
            }
            text = &text[taken + usize::from(complete)..];
        }
        if ends_line {
            self.flush(kind);
        }
        let waiting = self.stdout.text_bytes + self.stderr.text_bytes > 0;
        PARTIAL.store(waiting, Ordering::Relaxed);
    }

    fn flush(&mut self, kind: OutputKind) {
        if self.line(kind).text_bytes > 0 {
            self.leave(kind);
        }
    }

    /// Sends the line of this kind, if the invocation may still print.
    fn leave(&mut self, kind: OutputKind) {
        let serial = SERIAL.load(Ordering::Relaxed);
        if self.serial != serial {
            (self.serial, self.used_bytes, self.cut) = (serial, 0, false);
        }
        let text_bytes = self.line(kind).text_bytes;
        self.used_bytes += text_bytes as u64 + 1;
        let limit_bytes = LIMIT_BYTES.load(Ordering::Relaxed);
        // Last words are never too many.
        if self.used_bytes <= limit_bytes || kind == OutputKind::Crash {
            self.send(kind);
        } else if !self.cut {
            self.cut = true;
            self.line(kind).text_bytes = 0;
            let mut text = [0; 128];
            let length = cut_notice(&mut text, limit_bytes);
            self.line(kind).push(&text[..length]);
            self.send(kind);
        }
        self.line(kind).text_bytes = 0;
    }

    fn send(&mut self, kind: OutputKind) {
        let head = OutputHead {
            session: SESSION.load(Ordering::Relaxed),
            invocation: INVOCATION.load(Ordering::Relaxed),
            function: FUNCTION.load(Ordering::Relaxed),
            kind,
            dropped: self.dropped,
        };
        let line = self.line(kind);
        line.bytes[..OUTPUT_HEAD_BYTES].copy_from_slice(&head.encode(line.text_bytes));
        if put(&line.bytes[..OUTPUT_HEAD_BYTES + line.text_bytes]) {
            self.dropped = 0;
        } else {
            self.dropped = self.dropped.saturating_add(1);
        }
    }
}

fn cut_notice(text: &mut [u8], limit_bytes: u64) -> usize {
    use std::io::Write as _;
    let room = text.len();
    let mut rest = text;
    // The text is shorter than the room.
    let _ = write!(
        rest,
        "[output cut: more than {limit_bytes} bytes in one invocation (limits.log)]"
    );
    room - rest.len()
}

/// Writes one record without waiting; false when it was not taken, which is as a whole or not at
/// all. Safe in a signal handler.
fn put(record: &[u8]) -> bool {
    let pipe = PIPE.load(Ordering::Relaxed);
    if inode(pipe) != Some(PIPE_INODE.load(Ordering::Relaxed)) {
        return false;
    }
    // SAFETY: the pointer and the length are of one live slice.
    let written = unsafe { libc::write(pipe, record.as_ptr().cast(), record.len()) };
    written == record.len() as isize
}

/// The inode of the pipe that this number stands for, if it does.
fn inode(descriptor: c_int) -> Option<u64> {
    let mut status = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: any number may be asked about, and the pointer is valid for writing the answer.
    let asked = unsafe { libc::fstat(descriptor, status.as_mut_ptr()) };
    if asked != 0 {
        return None;
    }
    // SAFETY: the call has succeeded, so it has written all of it.
    let status = unsafe { status.assume_init() };
    (status.st_mode & libc::S_IFMT == libc::S_IFIFO).then_some(status.st_ino)
}

/// Text from here on goes into this pipe, at most so many bytes of it per invocation. The pipe does
/// not wait (`O_NONBLOCK`).
pub fn start(pipe: c_int, limit_bytes: u64) {
    PIPE.store(pipe, Ordering::Relaxed);
    PIPE_INODE.store(inode(pipe).unwrap_or(0), Ordering::Relaxed);
    LIMIT_BYTES.store(limit_bytes, Ordering::Relaxed);
}

/// Text from here on is of this attempt.
#[inline(always)]
pub fn begin(session: u64, invocation: u64, function: u16) {
    // One thread begins attempts, so this needs no atomic addition.
    let serial = SERIAL.load(Ordering::Relaxed).wrapping_add(1);
    SERIAL.store(serial, Ordering::Relaxed);
    SESSION.store(session, Ordering::Relaxed);
    INVOCATION.store(invocation, Ordering::Relaxed);
    FUNCTION.store(function, Ordering::Relaxed);
}

/// The invocation of the present attempt, or of the last.
pub fn invocation() -> u64 {
    INVOCATION.load(Ordering::Relaxed)
}

/// Writes text of one kind; text without a line's end waits for it, but for the log's.
pub fn write(kind: OutputKind, text: &[u8]) {
    // A poisoned lock means a panic in these few lines, and panics abort.
    let Ok(mut lines) = LINES.lock() else { return };
    let whole = !matches!(kind, OutputKind::Stdout | OutputKind::Stderr);
    lines.write(kind, text, whole);
}

/// Sends unfinished lines: the attempt has returned, or the process leaves.
#[inline(always)]
pub fn flush() {
    if PARTIAL.load(Ordering::Relaxed) {
        send_unfinished();
    }
}

#[cold]
fn send_unfinished() {
    if let Ok(mut lines) = LINES.lock() {
        lines.write(OutputKind::Stdout, b"", true);
        lines.write(OutputKind::Stderr, b"", true);
    }
}

/// Sends unfinished lines and then last words, in a signal handler: takes no lock for granted and
/// allocates nothing.
pub fn last_words(text: &[u8]) {
    for _ in 0..CRASH_LOCK_ATTEMPTS {
        if let Ok(mut lines) = LINES.try_lock() {
            lines.write(OutputKind::Stdout, b"", true);
            lines.write(OutputKind::Stderr, b"", true);
            lines.write(OutputKind::Crash, text, true);
            return;
        }
        // Another thread is printing, and will be done soon.
        std::hint::spin_loop();
    }
}

unsafe extern "C" {
    static mut stdout: *mut libc::FILE;
    static mut stderr: *mut libc::FILE;
    fn fopencookie(
        cookie: *mut c_void,
        mode: *const c_char,
        functions: CookieFunctions,
    ) -> *mut libc::FILE;
}

/// `cookie_io_functions_t` of glibc, fopencookie(3).
#[repr(C)]
struct CookieFunctions {
    read: Option<unsafe extern "C" fn(*mut c_void, *mut c_char, usize) -> isize>,
    write: Option<unsafe extern "C" fn(*mut c_void, *const c_char, usize) -> isize>,
    seek: Option<unsafe extern "C" fn(*mut c_void, *mut i64, c_int) -> c_int>,
    close: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
}

/// The cookie is 0 for stdout, 1 for stderr.
unsafe extern "C" fn cookie_write(cookie: *mut c_void, text: *const c_char, size: usize) -> isize {
    let kind = if cookie.is_null() {
        OutputKind::Stdout
    } else {
        OutputKind::Stderr
    };
    if size > 0 {
        // SAFETY: the C library passes a buffer of `size` bytes.
        let text = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), size) };
        write(kind, text);
    }
    size as isize
}

fn stream(cookie: usize) -> *mut libc::FILE {
    let functions = CookieFunctions {
        read: None,
        write: Some(cookie_write),
        seek: None,
        close: None,
    };
    // SAFETY: the mode is a C string, and the functions live as long as the program.
    let stream = unsafe { fopencookie(cookie as *mut c_void, c"w".as_ptr(), functions) };
    if !stream.is_null() {
        // Unbuffered: lines are put together here.
        // SAFETY: the stream is open, and no output has gone to it.
        unsafe { libc::setvbuf(stream, std::ptr::null_mut(), libc::_IONBF, 0) };
    }
    stream
}

/// Replaces the C library's `stdout` and `stderr`, and flushes when the process exits.
///
/// The process must have one thread.
pub fn replace_streams() {
    let (out, err) = (stream(0), stream(1));
    if !out.is_null() && !err.is_null() {
        // SAFETY: one thread, by the caller's word, and a valid stream.
        unsafe { stdout = out };
        // SAFETY: as above.
        unsafe { stderr = err };
    }
    // SAFETY: the function lives as long as the program.
    unsafe { libc::atexit(flush_at_exit) };
}

extern "C" fn flush_at_exit() {
    flush();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::OutputPiece;
    use rustix::pipe::{PipeFlags, pipe_with};
    use std::os::fd::{AsRawFd, OwnedFd};

    /// The statics are one per process, so the tests take turns.
    static TURN: Mutex<()> = Mutex::new(());

    /// The end that is written to, and the other.
    fn pipe() -> (OwnedFd, OwnedFd) {
        let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).expect("a pipe");
        (ours, theirs)
    }

    fn lines_of(pipe: &OwnedFd) -> Vec<(OutputHead, String)> {
        let mut bytes = Vec::new();
        let mut some = [0; 4096];
        while let Ok(count @ 1..) = rustix::io::read(pipe, &mut some) {
            bytes.extend_from_slice(&some[..count]);
        }
        let mut rest = &bytes[..];
        let mut lines = Vec::new();
        while let Some(piece) = OutputPiece::take(&mut rest) {
            let OutputPiece::Record(head, text) = piece else {
                panic!("{piece:?}");
            };
            lines.push((head, String::from_utf8_lossy(text).into_owned()));
        }
        assert!(rest.is_empty(), "a piece of a record: {rest:?}");
        lines
    }

    fn texts(pipe: &OwnedFd) -> Vec<String> {
        lines_of(pipe).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn text_becomes_lines_with_the_invocations_tag() {
        let _turn = TURN.lock();
        let (ours, theirs) = pipe();
        start(ours.as_raw_fd(), 1 << 20);
        begin(5, 6, 7);
        write(OutputKind::Stdout, b"one\ntw");
        write(OutputKind::Stderr, b"error\n\n");
        write(OutputKind::Stdout, b"o\nthree");
        write(OutputKind::Warn, b"logged");
        flush();
        let lines = lines_of(&theirs);
        let kinds: Vec<_> = lines
            .iter()
            .map(|(head, text)| (head.kind, text.as_str()))
            .collect();
        assert_eq!(
            kinds,
            [
                (OutputKind::Stdout, "one"),
                (OutputKind::Stderr, "error"),
                (OutputKind::Stderr, ""),
                (OutputKind::Stdout, "two"),
                (OutputKind::Warn, "logged"),
                (OutputKind::Stdout, "three"),
            ]
        );
        assert!(
            lines
                .iter()
                .all(|(h, _)| (h.session, h.invocation, h.function) == (5, 6, 7))
        );
        assert!(!PARTIAL.load(Ordering::Relaxed));
    }

    #[test]
    fn a_long_line_comes_in_pieces() {
        let _turn = TURN.lock();
        let (ours, theirs) = pipe();
        start(ours.as_raw_fd(), 1 << 20);
        begin(1, 1, 1);
        let text = "y".repeat(2 * OUTPUT_TEXT_BYTES_MAX + 3);
        write(OutputKind::Stdout, format!("{text}\nz\n").as_bytes());
        let lines = texts(&theirs);
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[..3].concat(), text);
        assert_eq!(lines[3], "z");
    }

    #[test]
    fn an_invocation_that_prints_too_much_is_cut_once_and_the_next_is_not() {
        let _turn = TURN.lock();
        let (ours, theirs) = pipe();
        start(ours.as_raw_fd(), 100);
        begin(1, 1, 1);
        for _ in 0..50 {
            write(OutputKind::Stdout, b"123456789\n");
        }
        let lines = texts(&theirs);
        assert_eq!(lines.len(), 11);
        assert_eq!(
            lines[10],
            "[output cut: more than 100 bytes in one invocation (limits.log)]"
        );
        begin(1, 1, 1);
        write(OutputKind::Stdout, b"again\n");
        assert_eq!(texts(&theirs), ["again"]);
    }

    #[test]
    fn lines_that_nobody_reads_are_dropped_and_counted() {
        let _turn = TURN.lock();
        let (ours, theirs) = pipe();
        start(ours.as_raw_fd(), u64::MAX);
        begin(1, 1, 1);
        for _ in 0..5_000 {
            write(OutputKind::Stdout, &[b'x'; 100]);
            write(OutputKind::Stdout, b"\n");
        }
        let taken = lines_of(&theirs).len();
        assert!(taken > 0 && taken < 5_000, "{taken}");
        write(OutputKind::Stdout, b"after\n");
        let lines = lines_of(&theirs);
        assert_eq!(lines[0].1, "after");
        assert_eq!(lines[0].0.dropped as usize, 5_000 - taken);
        write(OutputKind::Stdout, b"later\n");
        assert_eq!(lines_of(&theirs)[0].0.dropped, 0);
    }

    #[test]
    fn last_words_come_after_unfinished_lines() {
        let _turn = TURN.lock();
        let (ours, theirs) = pipe();
        start(ours.as_raw_fd(), 4);
        begin(1, 1, 1);
        write(OutputKind::Stdout, b"abc");
        last_words(b"SIGSEGV at 0x0, which is more than four bytes");
        let lines = texts(&theirs);
        assert_eq!(
            lines,
            ["abc", "SIGSEGV at 0x0, which is more than four bytes"]
        );
    }

    #[test]
    fn what_took_the_place_of_the_pipe_is_not_written_into() {
        let _turn = TURN.lock();
        let (mut ours, theirs) = pipe();
        start(ours.as_raw_fd(), u64::MAX);
        begin(1, 1, 1);
        write(OutputKind::Stdout, b"before\n");
        let kept = ours.try_clone().expect("a descriptor");
        let (other, other_end) = pipe();
        rustix::io::dup2(&other, &mut ours).expect("its number is another's now");
        write(OutputKind::Stdout, b"lost\n");
        assert!(lines_of(&other_end).is_empty());
        rustix::io::dup2(&kept, &mut ours).expect("its number is its own again");
        write(OutputKind::Stdout, b"after\n");
        let lines = lines_of(&theirs);
        assert_eq!(lines[0].1, "before");
        assert_eq!((lines[1].1.as_str(), lines[1].0.dropped), ("after", 1));
    }
}
