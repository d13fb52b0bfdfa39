//! Durations in headers and queries: `500us`, `10ms`, `5s`, `1m`, as in manifests.

use std::time::Duration;

/// Units with their nanoseconds, longer names before those that they end with.
const UNITS: [(&str, u64); 6] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration: a whole number with its unit.
///
/// # Errors
/// A sentence.
pub fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let wrong = || format!("`{text}` is no duration; write one as 500us, 10ms, 5s or 1m");
    let (name, unit_ns) = UNITS
        .iter()
        .find(|(name, _)| {
            text.strip_suffix(name)
                .is_some_and(|number| number.ends_with(|c: char| c.is_ascii_digit()))
        })
        .ok_or_else(wrong)?;
    let digits = &text[..text.len() - name.len()];
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    Ok(Duration::from_nanos(
        number.checked_mul(*unit_ns).ok_or_else(wrong)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_in_manifests() {
        assert_eq!(parse("500us"), Ok(Duration::from_micros(500)));
        assert_eq!(parse(" 10ms "), Ok(Duration::from_millis(10)));
        assert_eq!(parse("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse("1m"), Ok(Duration::from_secs(60)));
        assert_eq!(parse("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(parse("7ns"), Ok(Duration::from_nanos(7)));
        assert_eq!(parse("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        let too_long = ["99999999999999999999s", "18446744073709551615h"];
        for text in ["", "soon", "5", "s", "-1s", "1.5s", "1d", "+1s"]
            .iter()
            .chain(&too_long)
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
