//! Times in which nothing happens: as people write them, and waited for.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Sleeping is late by about this; the rest of a gap is spun.
const SLEEP_LATE: Duration = Duration::from_micros(200);

/// A time between two things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap(pub Duration);

const UNITS: [(&str, u64); 3] = [("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];

impl Gap {
    /// Waits for it.
    pub fn pass(self) {
        let end = Instant::now() + self.0;
        if let Some(sleeps) = self.0.checked_sub(SLEEP_LATE) {
            std::thread::sleep(sleeps);
        }
        while Instant::now() < end {
            std::hint::spin_loop();
        }
    }

    /// Nanoseconds.
    pub fn ns(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl FromStr for Gap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("`{text}` is no gap; write it as 10us, 5ms or 1s");
        let (number, unit_ns) = UNITS
            .iter()
            .find_map(|(unit, ns)| Some((text.strip_suffix(unit)?, *ns)))
            .ok_or_else(refused)?;
        let number: u64 = number.trim_end().parse().map_err(|_| refused())?;
        let ns = number.checked_mul(unit_ns).ok_or_else(refused)?;
        Ok(Self(Duration::from_nanos(ns)))
    }
}

impl fmt::Display for Gap {
    /// In the largest unit of which it is a multiple.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.ns();
        let whole = UNITS
            .iter()
            .rev()
            .find(|(_, unit)| ns >= *unit && ns.is_multiple_of(*unit));
        match whole {
            Some((unit, unit_ns)) => write!(f, "{} {unit}", ns / unit_ns),
            None => write!(f, "{ns} ns"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_read_and_written_with_their_unit() {
        for (text, ns, written) in [
            ("10us", 10_000, "10 us"),
            ("1000us", 1_000_000, "1 ms"),
            ("1500 us", 1_500_000, "1500 us"),
            ("1s", 1_000_000_000, "1 s"),
        ] {
            let gap: Gap = text.parse().unwrap();
            assert_eq!(
                (gap.ns(), gap.to_string().as_str()),
                (ns, written),
                "{text}"
            );
        }
        for bad in ["", "10", "us", "-1us", "1.5ms", "18446744073709551615s"] {
            assert!(bad.parse::<Gap>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_gap_lasts_as_long_as_it_says() {
        for gap in [Duration::from_micros(50), Duration::from_millis(2)] {
            let began = Instant::now();
            Gap(gap).pass();
            assert!(began.elapsed() >= gap);
        }
    }
}
