//! Sentences about what a gatherer waits for.

use std::fmt::Write;

use crate::limits::MISSING_KEYS_NAMED;

/// The first few of `count` names, and how many more there are.
pub(super) fn listed<'a>(names: impl Iterator<Item = &'a [u8]>, count: usize) -> String {
    let mut text = String::new();
    let mut named = 0;
    for name in names.take(MISSING_KEYS_NAMED) {
        let comma = if named > 0 { ", " } else { "" };
        write!(text, "{comma}`{}`", String::from_utf8_lossy(name)).expect("a string has room");
        named += 1;
    }
    if count > named {
        write!(text, ", and {} more", count - named).expect("a string has room");
    }
    text
}

/// "1 object", "2 objects".
pub(super) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_the_first_and_counts_the_rest() {
        let names: Vec<Vec<u8>> = (0..10).map(|name| vec![b'a' + name]).collect();
        let text = |count: usize| listed(names.iter().take(count).map(Vec::as_slice), count);
        assert_eq!(text(1), "`a`");
        assert_eq!(text(2), "`a`, `b`");
        assert_eq!(
            text(10),
            "`a`, `b`, `c`, `d`, `e`, `f`, `g`, `h`, and 2 more"
        );
    }

    #[test]
    fn nouns_agree_with_their_numbers() {
        assert_eq!(counted(1, "object"), "1 object");
        assert_eq!(counted(0, "object"), "0 objects");
    }
}
