//! Problems of a manifest, each with its place in the text and a remedy, and how they are shown.
//!
//! A message may quote hostile text; it is clipped and its control characters are escaped here, so
//! that nothing in a manifest can write to a terminal what it likes.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::limits::{DIAGNOSTICS_MAX, QUOTE_CHARS_MAX};

/// Bytes of the manifest's text.
pub type Place = Range<usize>;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The app can run.
    Warning,
    /// It cannot.
    Error,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad.
    pub severity: Severity,
    /// What is wrong, in one sentence.
    pub title: String,
    /// Where, and what to say there (may be empty). `None`: the manifest as a whole.
    pub place: Option<(Place, String)>,
    /// Other places that belong to it.
    pub context: Vec<(Place, String)>,
    /// What would be right.
    pub help: Vec<String>,
}

impl Diagnostic {
    pub(crate) fn error(title: impl Into<String>) -> Self {
        Self::new(Severity::Error, title.into())
    }

    pub(crate) fn warning(title: impl Into<String>) -> Self {
        Self::new(Severity::Warning, title.into())
    }

    fn new(severity: Severity, title: String) -> Self {
        Self {
            severity,
            title,
            place: None,
            context: Vec::new(),
            help: Vec::new(),
        }
    }

    pub(crate) fn at(mut self, place: &Place, label: impl Into<String>) -> Self {
        self.place = Some((place.clone(), label.into()));
        self
    }

    pub(crate) fn beside(mut self, place: &Place, label: impl Into<String>) -> Self {
        self.context.push((place.clone(), label.into()));
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }
}

/// All that was found in one manifest, in the order of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    file_name: String,
    text: Arc<str>,
    list: Vec<Diagnostic>,
    left_out: usize,
}

impl Diagnostics {
    pub(crate) fn new(file_name: &str, text: &str) -> Self {
        Self {
            file_name: file_name.into(),
            text: text.into(),
            list: Vec::new(),
            left_out: 0,
        }
    }

    /// Keeps `diagnostic`, or counts it where there are too many.
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        if self.list.len() < DIAGNOSTICS_MAX {
            self.list.push(diagnostic);
        } else if diagnostic.severity == Severity::Error {
            // An error is never lost behind warnings: it decides whether the app may run.
            let mut kept = self.list.iter_mut().rev();
            if let Some(warning) = kept.find(|kept| kept.severity == Severity::Warning) {
                *warning = diagnostic;
            }
            self.left_out += 1;
        } else {
            self.left_out += 1;
        }
    }

    pub(crate) fn leave_out(&mut self, more: usize) {
        self.left_out += more;
    }

    pub(crate) fn sort(&mut self) {
        self.list.sort_by_key(|diagnostic| match &diagnostic.place {
            Some((place, _)) => (true, place.start),
            None => (false, 0),
        });
    }

    /// Every diagnostic kept.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// How many are of this severity, among those kept.
    pub fn count(&self, severity: Severity) -> usize {
        self.list
            .iter()
            .filter(|diagnostic| diagnostic.severity == severity)
            .count()
    }

    /// Whether the app cannot run.
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The line (from 1) that a place begins in.
    pub fn line_of(&self, place: &Place) -> usize {
        let start = place.start.min(self.text.len());
        self.text.as_bytes()[..start]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1
    }

    /// All of them as text for a person, with colours or plain, each ended by an empty line.
    pub fn render(&self, colours: bool) -> String {
        let renderer = if colours {
            Renderer::styled().decor_style(DecorStyle::Unicode)
        } else {
            Renderer::plain().decor_style(DecorStyle::Ascii)
        };
        let mut out = String::new();
        for diagnostic in &self.list {
            let report = [self.group(diagnostic)];
            out.push_str(&renderer.render(&report));
            out.push_str("\n\n");
        }
        if self.left_out > 0 {
            out.push_str(&format!("... and {} more like these\n\n", self.left_out));
        }
        out
    }

    fn group<'a>(&'a self, diagnostic: &'a Diagnostic) -> Group<'a> {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = level.primary_title(diagnostic.title.as_str()).elements(
            diagnostic
                .place
                .iter()
                .map(|(place, label)| self.snippet(diagnostic, place, label)),
        );
        for help in &diagnostic.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        group
    }

    /// The lines from the first to the last place of a diagnostic.
    fn snippet<'a>(
        &'a self,
        diagnostic: &'a Diagnostic,
        place: &Place,
        label: &'a str,
    ) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let places = || std::iter::once(place).chain(diagnostic.context.iter().map(|(p, _)| p));
        let first = places()
            .map(|place| place.start)
            .min()
            .unwrap_or(0)
            .min(self.text.len());
        let last = places()
            .map(|place| place.end)
            .max()
            .unwrap_or(0)
            .min(self.text.len());
        let bytes = self.text.as_bytes();
        let start = bytes[..first]
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let end = bytes[last..].iter().position(|byte| *byte == b'\n');
        let end = end.map_or(bytes.len(), |at| last + at);
        let lines = self.text.get(start..end).unwrap_or_default();
        let mut snippet = Snippet::source(lines)
            .line_start(self.line_of(&(start..start)))
            .path(self.file_name.as_str())
            .annotation(mark(AnnotationKind::Primary, lines, start, place, label));
        for (place, label) in &diagnostic.context {
            snippet = snippet.annotation(mark(AnnotationKind::Context, lines, start, place, label));
        }
        snippet
    }
}

/// An annotation whose place is moved to where the lines begin and onto character boundaries.
fn mark<'a>(
    kind: AnnotationKind,
    lines: &str,
    start: usize,
    place: &Place,
    label: &'a str,
) -> annotate_snippets::Annotation<'a> {
    let floor = |at: usize| {
        let mut at = at.saturating_sub(start).min(lines.len());
        while !lines.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let annotation = kind.span(floor(place.start)..floor(place.end));
    if label.is_empty() {
        annotation
    } else {
        annotation.label(label)
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl std::error::Error for Diagnostics {}

/// Text of the manifest within a message: in backticks, clipped, control characters escaped.
pub(crate) fn quote(text: &str) -> String {
    if text.is_empty() {
        "\"\"".into()
    } else {
        format!("`{}`", clip(text))
    }
}

/// Text of the manifest, clipped and with its control characters escaped.
pub(crate) fn clip(text: &str) -> String {
    let mut out = String::new();
    for (index, character) in text.chars().enumerate() {
        if index == QUOTE_CHARS_MAX {
            out.push_str("...");
            break;
        }
        if character.is_control() || is_bidirectional_mark(character) {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out
}

/// Marks that reorder text, with which a message could be made to show something else.
fn is_bidirectional_mark(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
