//! Distributions of times, the figures read from them, and how figures spread over repetitions.
//!
//! Values are kept with three significant digits by HdrHistogram: exact below 2 048 ns.

use std::io::{self, Write};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde::{Deserialize, Serialize};

/// Longest time that is told apart; what takes longer counts as this.
const LONGEST_NS: u64 = 3_600_000_000_000;
/// Significant decimal digits.
const DIGITS: u8 = 3;
/// Lines per halving of the distance to 100 % in the percentile format.
const TICKS_PER_HALF: u32 = 5;

/// A distribution of times.
#[derive(Clone, Debug)]
pub struct Distribution {
    histogram: Histogram<u64>,
}

impl Default for Distribution {
    fn default() -> Self {
        Self::new()
    }
}

impl Distribution {
    /// An empty one.
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, DIGITS)
            .expect("the bounds are constants that HdrHistogram accepts");
        Self { histogram }
    }

    /// Counts one time. Zero counts as 1 ns: a clock that did not move.
    pub fn record_ns(&mut self, ns: u64) {
        self.histogram.saturating_record(ns.max(1));
    }

    /// Adds another distribution to this one.
    pub fn add(&mut self, other: &Self) {
        self.histogram
            .add(&other.histogram)
            .expect("all distributions here have the same bounds");
    }

    /// How many times were counted.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The time that this part (0 to 1) of all does not exceed.
    pub fn at(&self, part: f64) -> u64 {
        self.histogram.value_at_quantile(part)
    }

    /// The figures that are printed.
    pub fn figures(&self) -> Figures {
        Figures {
            count: self.count(),
            min_ns: self.histogram.min(),
            mean_ns: self.histogram.mean(),
            p50_ns: self.at(0.5),
            p90_ns: self.at(0.9),
            p99_ns: self.at(0.99),
            p99_9_ns: self.at(0.999),
            p99_99_ns: self.at(0.9999),
            max_ns: self.histogram.max(),
        }
    }

    /// As (part of all, time) along the curve, for plots.
    pub fn curve(&self) -> Vec<(f64, u64)> {
        self.histogram
            .iter_quantiles(TICKS_PER_HALF)
            .map(|step| (step.quantile(), step.value_iterated_to()))
            .collect()
    }

    /// HdrHistogram's own serialization, to be read by [`Distribution::decode`] and other tools.
    ///
    /// # Errors
    /// Whatever writing gives.
    pub fn encode(&self, into: &mut impl Write) -> Result<()> {
        let mut bytes = Vec::new();
        V2Serializer::new()
            .serialize(&self.histogram, &mut bytes)
            .context("a histogram could not be written")?;
        let length = u32::try_from(bytes.len()).context("a histogram of 4 GiB")?;
        into.write_all(&length.to_le_bytes())?;
        into.write_all(&bytes)?;
        Ok(())
    }

    /// Reads what [`Distribution::encode`] wrote, and moves `from` behind it.
    ///
    /// # Errors
    /// It is cut short, or something else.
    pub fn decode(from: &mut &[u8]) -> Result<Self> {
        let (length, rest) = from
            .split_first_chunk::<4>()
            .context("a histogram was announced and is not there")?;
        let length = u32::from_le_bytes(*length) as usize;
        let (mut bytes, rest) = rest
            .split_at_checked(length)
            .context("a histogram is cut short")?;
        let histogram: Histogram<u64> = Deserializer::new()
            .deserialize(&mut bytes)
            .map_err(|e| anyhow::anyhow!("a histogram cannot be read: {e}"))?;
        *from = rest;
        let mut distribution = Self::new();
        distribution
            .histogram
            .add(&histogram)
            .context("a histogram has values out of range")?;
        Ok(distribution)
    }

    /// Writes HdrHistogram's percentile format, which its plotters read, in microseconds.
    ///
    /// # Errors
    /// Whatever writing gives.
    pub fn write_percentiles(&self, title: &str, into: &mut impl Write) -> io::Result<()> {
        let in_us = |ns: u64| ns as f64 / 1000.0;
        writeln!(into, "#[{title}; values in microseconds]")?;
        writeln!(
            into,
            "{:>12} {:>14} {:>10} {:>14}\n",
            "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
        )?;
        for step in self.histogram.iter_quantiles(TICKS_PER_HALF) {
            let quantile = step.quantile();
            write!(
                into,
                "{:12.3} {:14.12} {:10}",
                in_us(step.value_iterated_to()),
                quantile,
                self.histogram.count_between(0, step.value_iterated_to())
            )?;
            if quantile < 1.0 {
                writeln!(into, " {:14.2}", 1.0 / (1.0 - quantile))?;
            } else {
                writeln!(into, " {:>14}", "inf")?;
            }
        }
        writeln!(
            into,
            "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]",
            self.histogram.mean() / 1000.0,
            self.histogram.stdev() / 1000.0
        )?;
        writeln!(
            into,
            "#[Max     = {:12.3}, Total count    = {:12}]",
            in_us(self.histogram.max()),
            self.histogram.len()
        )?;
        writeln!(
            into,
            "#[Buckets = {:12}, SubBuckets     = {:12}]",
            self.histogram.buckets(),
            1u64 << 11
        )
    }
}

/// What is read from a distribution. Times are nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// How many times were counted.
    pub count: u64,
    /// The shortest.
    pub min_ns: u64,
    /// The arithmetic mean.
    pub mean_ns: f64,
    /// Half of all were at most this long.
    pub p50_ns: u64,
    /// 90 %.
    pub p90_ns: u64,
    /// 99 %.
    pub p99_ns: u64,
    /// 99.9 %.
    pub p99_9_ns: u64,
    /// 99.99 %.
    pub p99_99_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

/// One figure over several repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The one in the middle (of an even number the mean of the two).
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of these values; `None` when there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (first, last) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Some(Self {
            min: *first,
            median,
            max: *last,
        })
    }
}

/// Each figure of several distributions, over the repetitions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FiguresSpread {
    /// Times counted in all repetitions together.
    pub count: u64,
    /// See [`Figures`], as all of the following.
    pub p50_ns: Spread,
    /// 90 %.
    pub p90_ns: Spread,
    /// 99 %.
    pub p99_ns: Spread,
    /// 99.9 %.
    pub p99_9_ns: Spread,
    /// 99.99 %.
    pub p99_99_ns: Spread,
    /// The longest.
    pub max_ns: Spread,
}

impl FiguresSpread {
    /// Of these figures, one of each repetition; `None` when there are none.
    pub fn of(figures: &[Figures]) -> Option<Self> {
        let spread = |pick: fn(&Figures) -> u64| Spread::of(figures.iter().map(|f| pick(f) as f64));
        Some(Self {
            count: figures.iter().map(|f| f.count).sum(),
            p50_ns: spread(|f| f.p50_ns)?,
            p90_ns: spread(|f| f.p90_ns)?,
            p99_ns: spread(|f| f.p99_ns)?,
            p99_9_ns: spread(|f| f.p99_9_ns)?,
            p99_99_ns: spread(|f| f.p99_99_ns)?,
            max_ns: spread(|f| f.max_ns)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Distribution {
        let mut distribution = Distribution::new();
        for value in values {
            distribution.record_ns(value);
        }
        distribution
    }

    #[test]
    fn figures_of_a_thousand_different_times_are_those_times() {
        let figures = of(1..=1000).figures();
        assert_eq!(figures.count, 1000);
        assert_eq!((figures.min_ns, figures.max_ns), (1, 1000));
        assert_eq!((figures.p50_ns, figures.p90_ns), (500, 900));
        assert_eq!((figures.p99_ns, figures.p99_9_ns), (990, 999));
        assert_eq!(figures.p99_99_ns, 1000);
    }

    #[test]
    fn times_out_of_range_are_counted_at_its_ends() {
        let figures = of([0, u64::MAX]).figures();
        assert_eq!(figures.count, 2);
        assert_eq!(figures.min_ns, 1);
        assert!(figures.max_ns >= LONGEST_NS);
    }

    #[test]
    fn a_distribution_survives_its_way_between_processes() {
        let (one, two) = (of([5, 70, 900_000]), of([1]));
        let mut bytes = Vec::new();
        one.encode(&mut bytes).unwrap();
        two.encode(&mut bytes).unwrap();
        let mut rest = &bytes[..];
        assert_eq!(
            Distribution::decode(&mut rest).unwrap().figures(),
            one.figures()
        );
        assert_eq!(
            Distribution::decode(&mut rest).unwrap().figures(),
            two.figures()
        );
        assert!(rest.is_empty());
    }

    #[test]
    fn a_distribution_cut_anywhere_is_an_error() {
        let mut bytes = Vec::new();
        of([5, 70, 900_000]).encode(&mut bytes).unwrap();
        for length in 0..bytes.len() {
            assert!(
                Distribution::decode(&mut &bytes[..length]).is_err(),
                "{length}"
            );
        }
    }

    #[test]
    fn distributions_add_up() {
        let mut sum = of([10, 20]);
        sum.add(&of([30]));
        assert_eq!(sum.count(), 3);
        assert_eq!(sum.figures().max_ns, 30);
    }

    #[test]
    fn the_percentile_format_ends_at_everything() {
        let mut text = Vec::new();
        of(1..=1000).write_percentiles("hop", &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
        assert!(lines[0].contains("Percentile"), "{}", lines[0]);
        let last = lines.last().unwrap();
        let columns: Vec<&str> = last.split_whitespace().collect();
        assert_eq!(columns, ["1.000", "1.000000000000", "1000", "inf"]);
        let middle = lines.iter().find(|l| l.contains("0.500000000000")).unwrap();
        assert!(middle.trim_start().starts_with("0.500 "), "{middle}");
    }

    #[test]
    fn a_spread_is_smallest_middle_and_largest() {
        let spread = Spread::of([9.0, 1.0, 4.0]).unwrap();
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 4.0, 9.0));
        assert_eq!(Spread::of([1.0, 2.0]).unwrap().median, 1.5);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn figures_spread_over_repetitions() {
        let spread = FiguresSpread::of(&[of([10; 5]).figures(), of([30; 7]).figures()]).unwrap();
        assert_eq!(spread.count, 12);
        assert_eq!(
            (spread.p50_ns.min, spread.p50_ns.median, spread.p50_ns.max),
            (10.0, 20.0, 30.0)
        );
        assert_eq!(FiguresSpread::of(&[]), None);
    }
}
