//! What functions print, on standard error, each line tagged with where it came from. Responses
//! alone go to standard output.

use std::io::{BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, select};
use indicatif::ProgressBar;
use pheromone_node::{Output, OutputKind};

use crate::exit::Failure;
use crate::terminal::{self, Paint};

/// The thread that prints lines.
pub struct Printer {
    finish: Sender<()>,
    thread: JoinHandle<()>,
    error_events: Arc<AtomicU64>,
}

impl Printer {
    /// Prints every line that comes. `progress` is moved out of the way while a line is written.
    pub fn start(lines: Receiver<Output>, progress: ProgressBar) -> Result<Self, Failure> {
        let (finish, finished) = bounded(1);
        let error_events = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&error_events);
        let thread = std::thread::Builder::new()
            .name("phr-output".into())
            .spawn(move || {
                loop {
                    let line = select! {
                        recv(lines) -> line => line,
                        recv(finished) -> _ => break,
                    };
                    let Ok(line) = line else { break };
                    print_all(line, &lines, &progress, &counter);
                }
                if let Ok(line) = lines.try_recv() {
                    print_all(line, &lines, &progress, &counter);
                }
            })
            .map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))?;
        Ok(Self {
            finish,
            thread,
            error_events,
        })
    }

    /// Error events seen so far.
    pub fn error_events(&self) -> u64 {
        self.error_events.load(Ordering::Relaxed)
    }

    /// Prints what is still there, then ends.
    pub fn finish(self) -> u64 {
        // A thread that is gone already has printed everything.
        let _ = self.finish.send(());
        let _ = self.thread.join();
        self.error_events.load(Ordering::Relaxed)
    }
}

/// Prints a line and all that wait behind it with few writes.
fn print_all(
    first: Output,
    rest: &Receiver<Output>,
    progress: &ProgressBar,
    error_events: &AtomicU64,
) {
    let colours = terminal::colours(&std::io::stderr());
    progress.suspend(|| {
        let mut err = BufWriter::new(std::io::stderr().lock());
        for line in std::iter::once(first).chain(rest.try_iter()) {
            if line.kind == OutputKind::ErrorEvent {
                error_events.fetch_add(1, Ordering::Relaxed);
            }
            // Where standard error is closed nobody wants to know.
            let _ = writeln!(err, "{}", show(&line, colours));
        }
        let _ = err.flush();
    });
}

/// One line as text: its tag, then what was printed.
pub fn show(line: &Output, colours: bool) -> String {
    let mut text = String::new();
    if line.dropped > 0 {
        let dropped = format!("[{} lines dropped]\n", line.dropped);
        text += &terminal::paint(colours, Paint::Dim, &dropped);
    }
    let (headline, tag) = match line.kind {
        OutputKind::Notice => (String::new(), format!("{}:", line.app)),
        OutputKind::ErrorEvent => (
            terminal::paint(colours, Paint::Yellow, "warning: "),
            tag_of(line) + ":",
        ),
        _ => (String::new(), tag_of(line) + " |"),
    };
    text += &headline;
    text += &terminal::paint(colours, Paint::Dim, &tag);
    text.push(' ');
    if let Some((level, paint)) = level_of(line.kind) {
        text += &terminal::paint(colours, paint, level);
        text.push(' ');
    }
    text + &clean(&line.text)
}

/// `app function s5 i12`, as far as known.
fn tag_of(line: &Output) -> String {
    let mut tag = line.app.clone();
    match (&line.function, line.slot) {
        (Some(function), _) => tag += &format!(" {function}"),
        (None, Some(slot)) => tag += &format!(" executor {slot}"),
        (None, None) => {}
    }
    if line.session != 0 {
        tag += &format!(" s{}", line.session);
    }
    if line.invocation != 0 {
        tag += &format!(" i{}", line.invocation);
    }
    tag
}

fn level_of(kind: OutputKind) -> Option<(&'static str, Paint)> {
    match kind {
        OutputKind::Debug => Some(("debug:", Paint::Dim)),
        OutputKind::Info => Some(("info:", Paint::Bold)),
        OutputKind::Warn => Some(("warning:", Paint::Yellow)),
        OutputKind::Error => Some(("error:", Paint::Red)),
        OutputKind::Crash => Some(("crash:", Paint::Red)),
        OutputKind::Stdout
        | OutputKind::Stderr
        | OutputKind::Raw
        | OutputKind::Notice
        | OutputKind::ErrorEvent => None,
    }
}

/// What functions print is not the terminal's to obey: control characters but tabs are escaped.
fn clean(text: &str) -> String {
    if !text.chars().any(|c| c.is_control() && c != '\t') {
        return text.to_owned();
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\t' | '\n' => clean.push(c),
            c if c.is_control() => clean.extend(c.escape_default()),
            c => clean.push(c),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kind: OutputKind, function: Option<&str>, text: &str) -> Output {
        Output {
            app: "words".into(),
            function: function.map(Into::into),
            session: if function.is_some() { 5 } else { 0 },
            invocation: if function.is_some() { 12 } else { 0 },
            slot: Some(1),
            kind,
            text: text.into(),
            dropped: 0,
        }
    }

    #[test]
    fn a_line_is_tagged_with_all_that_is_known() {
        let of = |kind, function| show(&line(kind, function, "text"), false);
        assert_eq!(
            of(OutputKind::Stdout, Some("count")),
            "words count s5 i12 | text"
        );
        assert_eq!(
            of(OutputKind::Warn, Some("count")),
            "words count s5 i12 | warning: text"
        );
        assert_eq!(of(OutputKind::Raw, None), "words executor 1 | text");
        assert_eq!(of(OutputKind::Notice, None), "words: text");
        assert_eq!(
            of(OutputKind::ErrorEvent, Some("count")),
            "warning: words count s5 i12: text"
        );
    }

    #[test]
    fn dropped_lines_are_counted() {
        let mut dropped = line(OutputKind::Stdout, Some("count"), "text");
        dropped.dropped = 7;
        assert_eq!(
            show(&dropped, false),
            "[7 lines dropped]\nwords count s5 i12 | text"
        );
    }

    #[test]
    fn a_function_cannot_send_control_characters_to_the_terminal() {
        let shown = show(&line(OutputKind::Stdout, Some("f"), "a\x1b[2Jb\tc"), false);
        assert_eq!(shown, "words f s5 i12 | a\\u{1b}[2Jb\tc");
    }

    #[test]
    fn everything_is_printed_before_the_end() {
        let (tell, hear) = bounded(8);
        let printer = Printer::start(hear, ProgressBar::hidden()).expect("a thread");
        for _ in 0..3 {
            tell.send(line(OutputKind::ErrorEvent, Some("f"), "refused"))
                .expect("room");
        }
        assert_eq!(printer.finish(), 3);
    }
}
