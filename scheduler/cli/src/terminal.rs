//! What depends on who reads: colours and tables. Colours only go to a terminal, and never where
//! `NO_COLOR` is set.

use std::io::{IsTerminal, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table};
use serde::Serialize;

use crate::exit::Failure;

/// A colour or weight, as its escape code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// For tags and other things beside the matter.
    Dim,
    /// For names.
    Bold,
    /// For errors.
    Red,
    /// For warnings.
    Yellow,
}

impl Paint {
    fn code(self) -> &'static str {
        match self {
            Self::Dim => "2",
            Self::Bold => "1",
            Self::Red => "1;31",
            Self::Yellow => "1;33",
        }
    }
}

/// Whether this stream takes colours.
pub fn colours(stream: &impl IsTerminal) -> bool {
    takes_colours(
        stream.is_terminal(),
        std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()),
        std::env::var_os("TERM").is_some_and(|value| value == "dumb"),
    )
}

/// no-color.org: present and not empty means no colours.
fn takes_colours(is_terminal: bool, no_color: bool, is_dumb: bool) -> bool {
    is_terminal && !no_color && !is_dumb
}

/// The text in that paint, where there are colours.
pub fn paint(colours: bool, paint: Paint, text: &str) -> String {
    if colours {
        format!("\u{1b}[{}m{text}\u{1b}[0m", paint.code())
    } else {
        text.to_owned()
    }
}

/// How an error on standard error begins.
pub fn error_headline() -> String {
    headline(Paint::Red, "error: ")
}

/// How a warning on standard error begins.
pub fn warning_headline() -> String {
    headline(Paint::Yellow, "warning: ")
}

fn headline(colour: Paint, text: &str) -> String {
    paint(colours(&std::io::stderr()), colour, text)
}

/// A warning line on standard error.
pub fn warn(text: &str) {
    // Where standard error is closed nobody wants to know.
    let _ = writeln!(std::io::stderr(), "{}{text}", warning_headline());
}

/// A table without lines, its columns two blanks apart; `numbers` are aligned to the right.
pub fn table(colours: bool, header: &[&str], numbers: &[usize]) -> Table {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header.iter().map(|title| {
            let cell = Cell::new(title);
            if colours {
                cell.add_attribute(Attribute::Bold)
            } else {
                cell
            }
        }));
    if !colours {
        table.force_no_tty();
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if numbers.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A table as text, without blanks at the ends of lines.
pub fn table_text(table: &Table) -> String {
    let mut text = String::new();
    for line in table.to_string().lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Writes text to standard output. A reader that has gone away is no error: `| head` is common.
pub fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// Writes bytes to standard output, in the same way.
pub fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::failed(format!(
            "cannot write to standard output: {error}"
        ))),
    }
}

/// Writes a value as JSON to standard output.
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    print(&(json(value)? + "\n"))
}

/// A value as JSON for people.
pub fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value)
        .map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        assert!(takes_colours(true, false, false));
        assert!(!takes_colours(false, false, false));
        assert!(!takes_colours(true, true, false));
        assert!(!takes_colours(true, false, true));
    }

    #[test]
    fn paint_leaves_text_alone_where_there_are_no_colours() {
        assert_eq!(paint(false, Paint::Red, "x"), "x");
        assert_eq!(paint(true, Paint::Red, "x"), "\u{1b}[1;31mx\u{1b}[0m");
    }

    #[test]
    fn tables_are_aligned_and_end_without_blanks() {
        let mut table = table(false, &["name", "bytes"], &[1]);
        table.add_row(["a", "1"]);
        table.add_row(["longer", "1234"]);
        let text = table_text(&table);
        assert_eq!(text, "name    bytes\na           1\nlonger   1234\n");
    }
}
