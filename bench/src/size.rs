//! Sizes as people write them.

use std::fmt;
use std::fs;
use std::str::FromStr;

/// Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

const UNITS: [(&str, u32); 4] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("`{text}` is no size; write it as 8, 64KiB, 1MiB or 1GiB");
        let (number, shift) = UNITS
            .iter()
            .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)))
            .unwrap_or_else(|| (text.strip_suffix('B').unwrap_or(text), 0));
        let number: u64 = number.trim_end().parse().map_err(|_| refused())?;
        number.checked_mul(1 << shift).map(Size).ok_or_else(refused)
    }
}

impl fmt::Display for Size {
    /// In the largest unit of which it is a multiple, or, where it is of none, to one digit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in UNITS.iter().rev() {
            if self.0 >= 1 << shift {
                let whole = self.0.is_multiple_of(1 << shift);
                let digits = usize::from(!whole);
                let amount = self.0 as f64 / (1_u64 << shift) as f64;
                return write!(f, "{amount:.digits$} {unit}");
            }
        }
        write!(f, "{} B", self.0)
    }
}

/// Memory that can be had without swapping, bytes; everything where /proc does not tell.
pub fn available_bytes() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    meminfo
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemAvailable:")?
                .trim()
                .strip_suffix(" kB")
        })
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .map_or(u64::MAX, |kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, bytes) in [
            ("8", 8),
            ("64 B", 64),
            ("64KiB", 65_536),
            ("1 MiB", 1 << 20),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for bad in ["", "KiB", "-1", "1.5GiB", "1 kB", "18446744073709551615KiB"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_written_in_their_largest_unit() {
        for (bytes, text) in [
            (8, "8 B"),
            (1 << 10, "1 KiB"),
            (1536, "1.5 KiB"),
            (1 << 30, "1 GiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }

    #[test]
    fn something_is_available() {
        assert!(available_bytes() > 0);
    }
}
