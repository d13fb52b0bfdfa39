//! What functions print, as it comes out of the pipes: the tagged one, into which they may write as
//! well, and the raw one.
//!
//! Input: into how long pieces it is cut (one byte), then what comes.

use pheromone_executor::protocol::{OutputHead, OutputKind};
use pheromone_node::fuzzing::{TEXT_BYTES_MAX, output_lines};

use super::take_byte;

/// What is longer than allowed ends so.
const MARK_OF_CUT: &str = "...";

/// Lines are text and no longer than allowed; and however the bytes are cut on their way, they are
/// the same.
pub fn run(mut bytes: &[u8]) {
    let piece_bytes = usize::from(take_byte(&mut bytes)) + 1;
    for tagged in [false, true] {
        let whole = output_lines(bytes, bytes.len().max(1), tagged);
        for line in &whole {
            assert!(line.len() <= TEXT_BYTES_MAX + MARK_OF_CUT.len());
            assert!(!line.ends_with(['\n', '\r']), "{line:?}");
        }
        assert_eq!(output_lines(bytes, piece_bytes, tagged), whole);
    }
}

/// Records, lines, and both.
pub fn seeds() -> Vec<Vec<u8>> {
    let head = OutputHead {
        session: 7,
        invocation: 9,
        function: 1,
        kind: OutputKind::Info,
        dropped: 2,
    };
    let record = |text: &[u8]| [&head.encode(text.len())[..], text].concat();
    let foreign = b"a line\nand half a one";
    vec![
        [&[3], &record(b"hello")[..], &record(b"")[..]].concat(),
        [&[30], &record(b"one")[..], foreign, &record(b"two")[..]].concat(),
        [&[0], &foreign[..]].concat(),
        [&[255], &[b'x'; 6000][..], b"\nshort\n"].concat(),
    ]
}
