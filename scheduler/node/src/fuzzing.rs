//! A way in for fuzzers to what only this crate reads otherwise. Not a part of its interface.

pub use crate::http::fuzzing::{Heard, hear};
pub use crate::output::TEXT_BYTES_MAX;
use crate::output::{Lines, Records};

/// The lines in what comes out of a pipe of a function, so many bytes at a time: of the tagged
/// pipe, or of the raw one.
pub fn output_lines(bytes: &[u8], piece_bytes: usize, is_tagged: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let (mut records, mut raw) = (Records::default(), Lines::default());
    for piece in bytes.chunks(piece_bytes) {
        if is_tagged {
            records.take(piece, |_, line| lines.push(line.to_owned()));
        } else {
            raw.take(piece, |line| lines.push(line.to_owned()));
        }
    }
    records.finish(|line| lines.push(line.to_owned()));
    raw.finish(|line| lines.push(line.to_owned()));
    lines
}
