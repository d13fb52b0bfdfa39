//! Durations, sizes and key ranges as people write them. Pure: text in, numbers or a sentence out.

use crate::limits::{DURATION_NS_MAX, KEY_BYTES_MAX};

/// Units of durations, with their nanoseconds.
const DURATION_UNITS: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
    ("d", 24 * 3_600 * 1_000_000_000),
];

/// Units of sizes, with their bytes.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Units that are near misses, with what was probably meant.
const SIZE_MISTAKES: &[(&str, &str)] = &[
    ("K", "KiB"),
    ("KB", "KiB"),
    ("M", "MiB"),
    ("MB", "MiB"),
    ("G", "GiB"),
    ("GB", "GiB"),
    ("T", "TiB"),
    ("TB", "TiB"),
];

/// Why a text is no duration or size, with what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// What is wrong, as a label.
    pub what: String,
    /// What would be right.
    pub help: String,
}

/// Nanoseconds of `500us`, `1.5s`, `5 m`.
pub(crate) fn duration_ns(text: &str) -> Result<u64, Mistake> {
    let help = "a duration is a number with a unit: \"500us\", \"10ms\", \"5s\", \"1m\"";
    let mistake = |what: String| Mistake {
        what,
        help: help.into(),
    };
    let (number, unit) = split_number(text);
    if number.is_empty() {
        return Err(mistake("not a duration".into()));
    }
    if unit.is_empty() {
        return Err(Mistake {
            what: "a unit is missing".into(),
            help: format!(
                "for {number} milliseconds write \"{number}ms\", for seconds \"{number}s\""
            ),
        });
    }
    let Some((_, factor)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(Mistake {
            what: "no such unit of time".into(),
            help: near_duration_unit(number, unit)
                .unwrap_or_else(|| "the units are ns, us, ms, s, m, h and d".into()),
        });
    };
    match scale(number, *factor) {
        Some(ns) if ns <= DURATION_NS_MAX => Ok(ns),
        Some(_) | None if is_number(number) => Err(Mistake {
            what: "too long".into(),
            help: "no duration is longer than 100 years".into(),
        }),
        _ => Err(mistake("not a number".into())),
    }
}

fn near_duration_unit(number: &str, unit: &str) -> Option<String> {
    let meant = match unit.to_ascii_lowercase().as_str() {
        "nsec" | "nanos" | "nanoseconds" => "ns",
        "usec" | "µs" | "μs" | "micros" | "microseconds" => "us",
        "msec" | "millis" | "milliseconds" => "ms",
        "sec" | "secs" | "second" | "seconds" => "s",
        "min" | "mins" | "minute" | "minutes" => "m",
        "hour" | "hours" => "h",
        "day" | "days" => "d",
        _ => return None,
    };
    Some(format!("did you mean \"{number}{meant}\"?"))
}

/// Bytes of `64KiB`, `1.5GiB`, `1000000`.
pub(crate) fn size_bytes(text: &str) -> Result<u64, Mistake> {
    let help = "a size is a number of bytes, or has a unit: 1000000, \"64KiB\", \"1GiB\"";
    let mistake = |what: String| Mistake {
        what,
        help: help.into(),
    };
    let (number, unit) = split_number(text);
    if number.is_empty() {
        return Err(mistake("not a size".into()));
    }
    if let Some((_, factor)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) {
        return match scale(number, *factor) {
            Some(bytes) => Ok(bytes),
            None if is_number(number) => {
                Err(mistake("too large, or not a whole number of bytes".into()))
            }
            None => Err(mistake("not a number".into())),
        };
    }
    let meant = SIZE_MISTAKES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit));
    let meant = meant.map(|(_, meant)| *meant).or_else(|| {
        SIZE_UNITS
            .iter()
            .map(|(name, _)| *name)
            .find(|name| name.eq_ignore_ascii_case(unit))
    });
    Err(Mistake {
        what: "no such unit of size".into(),
        help: match meant {
            Some(meant) => format!("did you mean \"{number}{meant}\"?"),
            None => "the units are B, KiB, MiB, GiB and TiB (powers of 1024)".into(),
        },
    })
}

/// The leading number (digits, a point, `_`) and the unit after it.
fn split_number(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|character: char| !matches!(character, '0'..='9' | '.' | '_'))
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

fn is_number(text: &str) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_digit())
            && part
                .chars()
                .all(|character| character.is_ascii_digit() || character == '_')
    };
    digits(whole) && digits(fraction)
}

/// `number` times `factor`, exactly; `None` for what is no number, no whole result, or too large.
fn scale(number: &str, factor: u64) -> Option<u64> {
    if !is_number(number) {
        return None;
    }
    let number = number.replace('_', "");
    let (whole, fraction) = number.split_once('.').unwrap_or((&number, ""));
    let fraction = fraction.trim_end_matches('0');
    let whole = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    if fraction.is_empty() {
        return Some(whole);
    }
    // 18 digits fit 64 bits, and their product with any factor 128.
    if fraction.len() > 18 {
        return None;
    }
    let power = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = fraction
        .parse::<u128>()
        .ok()?
        .checked_mul(u128::from(factor))?;
    if part % power != 0 {
        return None;
    }
    whole.checked_add(u64::try_from(part / power).ok()?)
}

/// Nanoseconds in the largest unit that shows them exactly.
pub(crate) fn show_duration(ns: u64) -> String {
    let unit = DURATION_UNITS
        .iter()
        .rev()
        .find(|(_, factor)| ns >= *factor && ns.is_multiple_of(*factor));
    match unit {
        Some((name, factor)) => format!("{}{name}", ns / factor),
        None => "0s".into(),
    }
}

/// A duration of at least `ns` in whole numbers of the largest unit that is not longer.
pub(crate) fn show_at_least(ns: u64) -> String {
    let unit = DURATION_UNITS
        .iter()
        .rev()
        .find(|(_, factor)| ns >= *factor);
    let (name, factor) = unit.copied().unwrap_or(DURATION_UNITS[0]);
    format!("{}{name}", ns.div_ceil(factor))
}

/// Bytes in the largest unit that shows them exactly.
pub(crate) fn show_size(bytes: u64) -> String {
    let unit = SIZE_UNITS[2..]
        .iter()
        .rev()
        .find(|(_, f)| bytes >= *f && bytes.is_multiple_of(*f));
    match unit {
        Some((name, factor)) => format!("{}{name}", bytes / factor),
        None => bytes.to_string(),
    }
}

/// Why a key with ranges cannot be written out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RangeMistake {
    /// `{A..B}` with A after B.
    Backwards(String),
    /// `{...}` with two points inside, but not two numbers around them.
    Malformed(String),
    /// More keys than allowed.
    TooMany,
    /// A key would be longer than a key may be.
    TooLong,
}

/// The keys that a text with ranges stands for: `part-{0..3}` is four, `{00..99}` a hundred padded
/// ones, several ranges in one text every combination, the last one turning fastest. Braces without
/// two points in them are characters like others.
pub(crate) fn expand_ranges(text: &str, keys_max: usize) -> Result<Vec<String>, RangeMistake> {
    // A range takes more bytes than the least number it stands for, by this much at most.
    if text.len() > 4 * KEY_BYTES_MAX {
        return Err(RangeMistake::TooLong);
    }
    let pieces = pieces(text)?;
    let longest: usize = pieces.iter().map(Piece::longest).sum();
    if longest > KEY_BYTES_MAX {
        return Err(RangeMistake::TooLong);
    }
    if keys_max == 0 {
        return Err(RangeMistake::TooMany);
    }
    let mut count = 1usize;
    for piece in &pieces {
        if let Piece::Range { first, last, .. } = piece {
            let width = usize::try_from(last - first)
                .ok()
                .and_then(|width| width.checked_add(1));
            count = width
                .and_then(|width| count.checked_mul(width))
                .filter(|count| *count <= keys_max)
                .ok_or(RangeMistake::TooMany)?;
        }
    }
    let mut keys = vec![String::new()];
    for piece in &pieces {
        match piece {
            Piece::Text(text) => keys.iter_mut().for_each(|key| key.push_str(text)),
            Piece::Range { first, last, width } => {
                keys = keys
                    .iter()
                    .flat_map(|key| (*first..=*last).map(move |n| format!("{key}{n:0width$}")))
                    .collect();
            }
        }
    }
    Ok(keys)
}

enum Piece<'a> {
    Text(&'a str),
    Range { first: u64, last: u64, width: usize },
}

impl Piece<'_> {
    /// Bytes of the longest text that it can become.
    fn longest(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Range { last, width, .. } => last.to_string().len().max(*width),
        }
    }
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, RangeMistake> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(close) = rest.find('}') {
        let open = rest[..close].rfind('{');
        let inside = open.and_then(|open| rest[open + 1..close].split_once(".."));
        let (Some(open), Some((first, last))) = (open, inside) else {
            pieces.push(Piece::Text(&rest[..=close]));
            rest = &rest[close + 1..];
            continue;
        };
        let shown = || rest[open..=close].to_owned();
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse::<u64>().ok()).flatten()
        };
        let (Some(low), Some(high)) = (number(first), number(last)) else {
            return Err(RangeMistake::Malformed(shown()));
        };
        if low > high {
            return Err(RangeMistake::Backwards(shown()));
        }
        let padded = [first, last]
            .iter()
            .any(|digits| digits.len() > 1 && digits.starts_with('0'));
        let width = if padded {
            first.len().max(last.len())
        } else {
            0
        };
        pieces.push(Piece::Text(&rest[..open]));
        pieces.push(Piece::Range {
            first: low,
            last: high,
            width,
        });
        rest = &rest[close + 1..];
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_exact() {
        let cases = [
            ("500us", 500_000),
            ("10ms", 10_000_000),
            ("5s", 5_000_000_000),
            ("1m", 60_000_000_000),
            ("7ns", 7),
            ("2h", 7_200_000_000_000),
            ("1d", 86_400_000_000_000),
            ("0s", 0),
            ("1.5s", 1_500_000_000),
            ("0.000001ms", 1),
            ("1_000ms", 1_000_000_000),
            (" 5 s ", 5_000_000_000),
        ];
        for (text, ns) in cases {
            assert_eq!(duration_ns(text), Ok(ns), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_a_remedy() {
        for text in [
            "", "5", "s", "-1s", "5x", "5 sec", "1..5s", ".5s", "5.s", "_1s", "١s", "0.5ns",
        ] {
            let mistake = duration_ns(text).expect_err(text);
            assert!(
                !mistake.what.is_empty() && !mistake.help.is_empty(),
                "{text}"
            );
        }
        assert_eq!(
            duration_ns("5 sec").unwrap_err().help,
            "did you mean \"5s\"?"
        );
        for huge in [
            "99999999999999999999s",
            "18446744073709551615ns",
            "101000d",
            "1e9s",
        ] {
            assert!(duration_ns(huge).is_err(), "{huge}");
        }
        assert_eq!(duration_ns("36500d"), Ok(DURATION_NS_MAX));
    }

    #[test]
    fn sizes_are_exact() {
        let cases = [
            ("64KiB", 65_536),
            ("1GiB", 1 << 30),
            ("1000000", 1_000_000),
            ("1_000", 1_000),
            ("0", 0),
            ("12B", 12),
            ("1.5MiB", 3 << 19),
            ("2TiB", 2 << 40),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, bytes) in cases {
            assert_eq!(size_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_a_remedy() {
        assert_eq!(
            size_bytes("64KB").unwrap_err().help,
            "did you mean \"64KiB\"?"
        );
        assert_eq!(
            size_bytes("1gib").unwrap_err().help,
            "did you mean \"1GiB\"?"
        );
        for text in [
            "",
            "KiB",
            "-1",
            "1e6",
            "0.3B",
            "18446744073709551616",
            "99999999999TiB",
            "1 2",
        ] {
            assert!(size_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_shown_in_their_largest_exact_unit() {
        for (ns, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500_000, "1500us"),
            (60_000_000_000, "1m"),
        ] {
            assert_eq!(show_duration(ns), text);
        }
        for (bytes, text) in [
            (0, "0"),
            (1000, "1000"),
            (65_536, "64KiB"),
            (3 << 30, "3GiB"),
        ] {
            assert_eq!(show_size(bytes), text);
        }
    }

    #[test]
    fn ranges_are_written_out_in_order() {
        let keys = |text: &str| expand_ranges(text, 1000).unwrap();
        assert_eq!(keys("plain"), ["plain"]);
        assert_eq!(
            keys("part-{0..3}"),
            ["part-0", "part-1", "part-2", "part-3"]
        );
        assert_eq!(keys("{08..10}.txt"), ["08.txt", "09.txt", "10.txt"]);
        assert_eq!(keys("{0..1}-{5..6}"), ["0-5", "0-6", "1-5", "1-6"]);
        assert_eq!(keys("{7..7}"), ["7"]);
        assert_eq!(keys("{000..999}").len(), 1000);
        assert_eq!(keys("a{b}c{"), ["a{b}c{"]);
        assert_eq!(keys("{{1..2}"), ["{1", "{2"]);
    }

    #[test]
    fn bad_ranges_are_named() {
        let mistake = |text: &str| expand_ranges(text, 1000).unwrap_err();
        assert_eq!(mistake("a{9..1}"), RangeMistake::Backwards("{9..1}".into()));
        for text in [
            "{0...9}",
            "{a..c}",
            "{..}",
            "{1..}",
            "{-1..2}",
            "{0..99999999999999999999}",
        ] {
            assert!(
                matches!(mistake(text), RangeMistake::Malformed(_)),
                "{text}"
            );
        }
        assert_eq!(mistake("{0..1000}"), RangeMistake::TooMany);
        assert_eq!(expand_ranges("one", 0), Err(RangeMistake::TooMany));
        assert_eq!(mistake("{0..999}{0..999}"), RangeMistake::TooMany);
        assert_eq!(mistake("{0..18446744073709551615}"), RangeMistake::TooMany);
        assert_eq!(
            mistake(&format!("{{0..{:0300}}}", 1)),
            RangeMistake::TooLong
        );
        assert_eq!(mistake(&"{".repeat(1 << 20)), RangeMistake::TooLong);
    }
}
