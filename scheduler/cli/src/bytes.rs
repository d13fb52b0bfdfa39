//! Bytes for people: sizes, and the beginning of a payload whatever is in it.

/// Characters of a payload that are shown.
const PREVIEW_CHARS: usize = 40;

/// A size with a unit that keeps it short: `512 B`, `1.5 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    format!("{value:.1} {unit}")
}

/// The beginning of a payload in one line, with everything that is no plain text escaped, so that
/// no payload writes to the terminal what it likes.
pub fn preview(payload: &[u8]) -> String {
    let mut text = String::new();
    let mut shown = 0;
    for &byte in payload.iter().take(PREVIEW_CHARS) {
        let escaped = byte.escape_ascii().to_string();
        if text.len() + escaped.len() > PREVIEW_CHARS {
            break;
        }
        text.push_str(&escaped);
        shown += 1;
    }
    if shown < payload.len() {
        text.push_str("...");
    }
    text
}

/// A key or group as text, escaped in the same way and never cut.
pub fn name(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let table = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1 << 20, "1.0 MiB"),
            (3 << 30, "3.0 GiB"),
            (5 << 40, "5.0 TiB"),
        ];
        for (bytes, text) in table {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_preview_is_one_line_of_bounded_length() {
        assert_eq!(preview(b"hello"), "hello");
        assert_eq!(preview(b"a\nb\0\x1b[2J"), "a\\nb\\x00\\x1b[2J");
        assert_eq!(preview(b""), "");
        let long = preview(&[b'x'; 1000]);
        assert_eq!(long.len(), PREVIEW_CHARS + 3);
        assert!(preview(&[0; 1000]).len() <= PREVIEW_CHARS + 3);
    }

    #[test]
    fn names_are_text_where_they_can_be() {
        assert_eq!(name("größe".as_bytes()), "größe");
        assert_eq!(name(b"a\x1bb"), "a\\x1bb");
        assert_eq!(name(b"\xff"), "\\xff");
    }
}
