//! One repetition: the floor, the measurement, the floor again; labelled by what the floors say of
//! where the cores were.
//!
//! A repetition has a node of its own. Scheduler and executor of a spinning node occupy both cores,
//! so the floor can only be measured while there is none; and how memory happens to lie differs
//! from node to node, so that a spread over repetitions shows that too.

use anyhow::{Context, Result};

use crate::floor::{self, Cores};
use crate::histogram::Distribution;
use crate::placement::Placement;
use crate::report::{LINE, Scalar, THREE_PARTY};

/// What a scenario found between the two floors.
#[derive(Debug, Default)]
pub struct Measured {
    /// Distributions by name, the main one first.
    pub series: Vec<(String, Distribution)>,
    /// Other numbers.
    pub scalars: Vec<Scalar>,
}

/// One repetition with its floor.
#[derive(Clone, Debug)]
pub struct Repetition {
    /// Where the cores were.
    pub placement: Placement,
    /// Median of the line's round trip before the measurement.
    pub probe_before_ns: u64,
    /// And after it.
    pub probe_after_ns: u64,
    /// What the scenario found, then the floor's two series.
    pub series: Vec<(String, Distribution)>,
    /// Other numbers.
    pub scalars: Vec<Scalar>,
}

impl Repetition {
    /// The series of this name.
    pub fn series(&self, name: &str) -> Option<&Distribution> {
        self.series
            .iter()
            .find_map(|(known, distribution)| (known == name).then_some(distribution))
    }

    fn new(before: floor::Floor, measured: Measured, after: &floor::Floor) -> Self {
        let (before_ns, after_ns) = (before.line.at(0.5), after.line.at(0.5));
        let floor::Floor {
            mut line,
            mut three_party,
        } = before;
        line.add(&after.line);
        three_party.add(&after.three_party);
        let mut series = measured.series;
        series.push((LINE.into(), line));
        series.push((THREE_PARTY.into(), three_party));
        Self {
            placement: Placement::between(before_ns, after_ns),
            probe_before_ns: before_ns,
            probe_after_ns: after_ns,
            series,
            scalars: measured.scalars,
        }
    }
}

/// Repeats a measurement, and tells on standard error how it goes. Repetitions in which the CPUs
/// moved are made up for, at most as many again.
///
/// # Errors
/// The floor's or the measurement's.
pub fn repeat(
    what: &str,
    times: u32,
    cores: Cores,
    mut measure: impl FnMut() -> Result<Measured>,
) -> Result<Vec<Repetition>> {
    let mut repetitions: Vec<Repetition> = Vec::new();
    let mut wanted = times;
    let mut number = 0;
    while number < wanted {
        number += 1;
        let before = floor::measure(cores).context("the floor could not be measured")?;
        let measured = measure()?;
        let after = floor::measure(cores).context("the floor could not be measured")?;
        let repetition = Repetition::new(before, measured, &after);
        if repetition.placement == Placement::Moved && wanted < times.saturating_mul(2) {
            wanted += 1;
        }
        eprintln!(
            "{what}, repetition {number} of {wanted}: {}",
            brief(&repetition)
        );
        repetitions.push(repetition);
    }
    Ok(repetitions)
}

fn brief(repetition: &Repetition) -> String {
    let main = repetition
        .series
        .first()
        .map_or_else(String::new, |(name, times)| {
            format!("{name} {} ns, ", times.at(0.5))
        });
    format!(
        "{main}bare round trip {} and {} ns ({})",
        repetition.probe_before_ns, repetition.probe_after_ns, repetition.placement
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[u64]) -> Distribution {
        let mut distribution = Distribution::new();
        values
            .iter()
            .for_each(|&value| distribution.record_ns(value));
        distribution
    }

    fn floor(line: &[u64], three_party: &[u64]) -> floor::Floor {
        floor::Floor {
            line: of(line),
            three_party: of(three_party),
        }
    }

    #[test]
    fn both_floors_count_and_the_main_series_stays_first() {
        let measured = Measured {
            series: vec![("hop".into(), of(&[300]))],
            scalars: Vec::new(),
        };
        let repetition =
            Repetition::new(floor(&[100], &[140]), measured, &floor(&[120, 120], &[160]));
        assert_eq!(repetition.placement, Placement::Near);
        assert_eq!(
            (repetition.probe_before_ns, repetition.probe_after_ns),
            (100, 120)
        );
        assert_eq!(repetition.series[0].0, "hop");
        assert_eq!(repetition.series(LINE).unwrap().count(), 3);
        assert_eq!(repetition.series(THREE_PARTY).unwrap().count(), 2);
        assert!(repetition.series("another").is_none());
        assert!(brief(&repetition).starts_with("hop 300 ns, "));
    }
}
