//! Durations on the command line, written as in the manifest: `500us`, `10ms`, `5s`, `1m`.

use std::time::Duration;

/// Units with their nanoseconds, the longest names first so that `ms` is not read as `m`.
const UNITS: [(&str, f64); 6] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
];
/// Longer ones are taken for a mistake: 100 years.
const LONGEST_NS: f64 = 100.0 * 365.25 * 24.0 * 3600e9;

/// Reads a duration, for clap.
pub fn parse(text: &str) -> Result<Duration, String> {
    let remedy = "write a number with its unit, as in 500us, 10ms, 5s or 1m";
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    let known = UNITS.iter().find(|(name, _)| *name == unit);
    let is_number = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number = if is_number {
        digits.parse::<f64>().ok()
    } else {
        None
    };
    match (number, known) {
        (Some(number), Some((_, unit_ns))) if number * unit_ns <= LONGEST_NS => {
            Ok(Duration::from_nanos((number * unit_ns).round() as u64))
        }
        (Some(_), Some(_)) => Err(format!("{text} is longer than a hundred years")),
        (Some(0.0), None) if unit.is_empty() => Ok(Duration::ZERO),
        (Some(_), None) if unit.is_empty() => Err(format!("the unit is missing: {remedy}")),
        (Some(_), None) => Err(format!("there is no unit `{unit}`: {remedy}")),
        (None, _) => Err(remedy.to_owned()),
    }
}

/// Writes a duration as it would be given.
pub fn show(duration: Duration) -> String {
    let ns = duration.as_nanos();
    for (name, unit_ns) in [
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
    ]
    .into_iter()
    .chain([("ms", 1_000_000), ("us", 1_000)])
    {
        if ns >= unit_ns && ns.is_multiple_of(unit_ns) {
            return format!("{}{name}", ns / unit_ns);
        }
    }
    if ns == 0 {
        "0s".to_owned()
    } else {
        format!("{ns}ns")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_units() {
        let table = [
            ("500us", 500_000),
            ("10ms", 10_000_000),
            ("5s", 5_000_000_000),
            ("1m", 60_000_000_000),
            ("2h", 7_200_000_000_000),
            ("1.5s", 1_500_000_000),
            ("7ns", 7),
            ("0", 0),
            ("0s", 0),
        ];
        for (text, ns) in table {
            assert_eq!(parse(text), Ok(Duration::from_nanos(ns)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_what_is_right() {
        for text in [
            "", "5", "s", "-5s", "+5s", "1e3s", "5 s", "5parsecs", "1.2.3s", "9999999h", "inf",
        ] {
            let error = parse(text).expect_err(text);
            assert!(!error.is_empty(), "{text}");
        }
        assert!(parse("5 parsecs").unwrap_err().contains("500us"));
        assert!(parse("5").unwrap_err().contains("unit"));
    }

    #[test]
    fn durations_are_shown_as_they_would_be_given() {
        for text in ["2h", "90m", "5s", "1500ms", "250us", "7ns", "0s"] {
            assert_eq!(show(parse(text).unwrap()), text);
        }
    }
}
