//! One repetition: the floor, the measurement, the floor again; labelled by what the floors say of
//! where the cores were. A scenario whose floor is another than the cores' measures that itself.
//!
//! A repetition has a node of its own. Scheduler and executor of a spinning node occupy both cores,
//! so the floor can only be measured while there is none; and how memory happens to lie differs
//! from node to node, so that a spread over repetitions shows that too.

use anyhow::{Context, Result};

use crate::floor::{self, Cores};
use crate::histogram::Distribution;
use crate::placement::Placement;
use crate::report::{LINE, Scalar, THREE_PARTY};

/// What the main series is held against beside what the scenario itself measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// The bare round trip and the bare three-party hop between these cores; how far apart they
    /// are labels the repetition.
    Cores(Cores),
    /// Nothing: the scenario's own floors are all there is, and where the cores are is not asked.
    Nothing,
}

/// What a scenario found between the two floors.
#[derive(Debug, Default)]
pub struct Measured {
    /// Distributions by name, the main one first.
    pub series: Vec<(String, Distribution)>,
    /// The scenario's own floors by name, measured in this repetition too.
    pub floors: Vec<(&'static str, Distribution)>,
    /// Other numbers.
    pub scalars: Vec<Scalar>,
}

/// One repetition with its floor.
#[derive(Clone, Debug)]
pub struct Repetition {
    /// Where the cores were.
    pub placement: Placement,
    /// Medians of the line's round trip before the measurement and after it, where it was timed.
    pub probes_ns: Option<[u64; 2]>,
    /// What the scenario found.
    pub series: Vec<(String, Distribution)>,
    /// Its own floors, then those of the cores.
    pub floors: Vec<(&'static str, Distribution)>,
    /// Other numbers.
    pub scalars: Vec<Scalar>,
}

impl Repetition {
    /// All distributions: what the scenario found, then the floors.
    pub fn distributions(&self) -> impl Iterator<Item = (&str, &Distribution)> {
        let series = self.series.iter().map(|(name, of)| (name.as_str(), of));
        series.chain(self.floors.iter().map(|(name, of)| (*name, of)))
    }

    /// The distribution of this name.
    pub fn distribution(&self, name: &str) -> Option<&Distribution> {
        self.distributions()
            .find_map(|(known, distribution)| (known == name).then_some(distribution))
    }

    fn alone(measured: Measured) -> Self {
        Self {
            placement: Placement::Any,
            probes_ns: None,
            series: measured.series,
            floors: measured.floors,
            scalars: measured.scalars,
        }
    }

    fn between(before: floor::Floor, measured: Measured, after: &floor::Floor) -> Self {
        let (before_ns, after_ns) = (before.line.at(0.5), after.line.at(0.5));
        let floor::Floor {
            mut line,
            mut three_party,
        } = before;
        line.add(&after.line);
        three_party.add(&after.three_party);
        let mut repetition = Self::alone(measured);
        repetition.placement = Placement::between(before_ns, after_ns);
        repetition.probes_ns = Some([before_ns, after_ns]);
        repetition.floors.push((LINE, line));
        repetition.floors.push((THREE_PARTY, three_party));
        repetition
    }
}

const NO_FLOOR: &str = "the floor could not be measured";

/// Repeats a measurement, and tells on standard error how it goes. Repetitions in which the CPUs
/// moved are made up for, at most as many again.
///
/// # Errors
/// The floor's or the measurement's.
pub fn repeat(
    what: &str,
    times: u32,
    beside: Beside,
    mut measure: impl FnMut() -> Result<Measured>,
) -> Result<Vec<Repetition>> {
    let mut repetitions: Vec<Repetition> = Vec::new();
    let mut wanted = times;
    let mut number = 0;
    while number < wanted {
        number += 1;
        let repetition = match beside {
            Beside::Nothing => Repetition::alone(measure()?),
            Beside::Cores(cores) => {
                let before = floor::measure(cores).context(NO_FLOOR)?;
                let measured = measure()?;
                let after = floor::measure(cores).context(NO_FLOOR)?;
                Repetition::between(before, measured, &after)
            }
        };
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

/// The main series and the floors, at the median.
fn brief(repetition: &Repetition) -> String {
    let main = repetition.series.first();
    let main = main.map(|(name, times)| (name.as_str(), times));
    let floors = repetition.floors.iter().map(|(name, times)| (*name, times));
    let medians: Vec<String> = main
        .into_iter()
        .chain(floors)
        .map(|(name, times)| format!("{name} {} ns", times.at(0.5)))
        .collect();
    let label = match repetition.probes_ns {
        Some(_) => format!(" ({})", repetition.placement),
        None => String::new(),
    };
    medians.join(", ") + &label
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
            ..Measured::default()
        };
        let repetition =
            Repetition::between(floor(&[100], &[140]), measured, &floor(&[120, 120], &[160]));
        assert_eq!(repetition.placement, Placement::Near);
        assert_eq!(repetition.probes_ns, Some([100, 120]));
        assert_eq!(repetition.distributions().next().unwrap().0, "hop");
        assert_eq!(repetition.distribution(LINE).unwrap().count(), 3);
        assert_eq!(repetition.distribution(THREE_PARTY).unwrap().count(), 2);
        assert!(repetition.distribution("another").is_none());
        assert!(brief(&repetition).starts_with("hop 300 ns, bare round trip 120 ns"));
        assert!(brief(&repetition).ends_with("(near)"));
    }

    #[test]
    fn a_scenario_with_a_floor_of_its_own_is_not_labelled_by_the_cores() {
        let measure = || {
            Ok(Measured {
                series: vec![("send".into(), of(&[1500]))],
                floors: vec![("bare fdatasync", of(&[1000]))],
                scalars: Vec::new(),
            })
        };
        let repetitions = repeat("durable", 2, Beside::Nothing, measure).unwrap();
        assert_eq!(repetitions.len(), 2);
        let first = &repetitions[0];
        assert_eq!((first.placement, first.probes_ns), (Placement::Any, None));
        assert_eq!(brief(first), "send 1500 ns, bare fdatasync 1000 ns");
    }
}
