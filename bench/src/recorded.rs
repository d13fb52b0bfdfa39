//! Reports as `--json` wrote them, read back as far as a comparison needs them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::histogram::{FiguresSpread, Spread};
use crate::machine::Machine;
use crate::placement::Placement;
use crate::report::{FORMAT, Unit};

/// What is asked of a file before anything else.
#[derive(Debug, Deserialize)]
struct Envelope {
    format: String,
}

/// A [`Report`](crate::report::Report).
#[derive(Clone, Debug, Deserialize)]
pub struct Recorded {
    /// Which scenario.
    pub scenario: String,
    /// How placements are told apart.
    pub placements: String,
    /// Where it ran.
    pub machine: Machine,
    /// With what, by name.
    pub settings: Vec<(String, String)>,
    /// One per value of the parameter.
    pub points: Vec<Point>,
}

/// A [`Point`](crate::report::Point).
#[derive(Clone, Debug, Deserialize)]
pub struct Point {
    /// The parameter's name.
    pub parameter: String,
    /// Its value as people write it.
    pub text: String,
    /// Summaries, one per placement.
    pub groups: Vec<Group>,
    /// Repetitions that were left out.
    pub moved: usize,
}

/// A [`Group`](crate::report::Group).
#[derive(Clone, Debug, Deserialize)]
pub struct Group {
    /// Which placement.
    pub placement: Placement,
    /// How many repetitions.
    pub repetitions: usize,
    /// The main series first.
    pub series: Vec<Series>,
    /// The main series against each floor.
    pub ratios: Vec<Ratio>,
    /// Other numbers.
    pub scalars: Vec<Scalar>,
}

/// A [`Series`](crate::report::Series).
#[derive(Clone, Debug, Deserialize)]
pub struct Series {
    /// What was timed.
    pub name: String,
    /// How long it took.
    pub figures: FiguresSpread,
}

/// A [`Ratio`](crate::report::Ratio).
#[derive(Clone, Debug, Deserialize)]
pub struct Ratio {
    /// The divisor's series.
    pub to: String,
    /// Median by median.
    pub p50: Spread,
}

/// A [`ScalarSpread`](crate::report::ScalarSpread).
#[derive(Clone, Debug, Deserialize)]
pub struct Scalar {
    /// What.
    pub name: String,
    /// In what.
    pub unit: Unit,
    /// How much.
    pub spread: Spread,
}

impl Recorded {
    /// Reads a file.
    ///
    /// # Errors
    /// It is not there, or not what `pheromone bench` of this version writes.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("{name} cannot be read"))?;
        let foreign = || format!("{name} is not what `pheromone bench --json` writes");
        let envelope: Envelope = serde_json::from_str(&text).with_context(foreign)?;
        ensure!(
            envelope.format == FORMAT,
            "{name} is of the format `{}`, and this program reads `{FORMAT}`: measure it again",
            envelope.format
        );
        serde_json::from_str(&text).with_context(foreign)
    }

    /// The value of a setting.
    pub fn setting(&self, name: &str) -> Option<&str> {
        let found = self.settings.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl Point {
    /// How many repetitions there were, those left out too.
    pub fn repetitions(&self) -> usize {
        let counted: usize = self.groups.iter().map(|group| group.repetitions).sum();
        counted + self.moved
    }
}

impl Group {
    /// The series of this name.
    pub fn series(&self, name: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{machine, repetition, report};
    use crate::report::{LINE, Point};

    fn complaint(text: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run.json");
        fs::write(&path, text).unwrap();
        format!("{:#}", Recorded::read(&path).unwrap_err())
    }

    #[test]
    fn what_is_written_is_read() {
        let repetitions = [repetition(300, 100, 100), repetition(9, 100, 400)];
        let point = Point::new("length", 100, "100".into(), &repetitions);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run.json");
        fs::write(&path, serde_json::to_vec(&report(vec![point])).unwrap()).unwrap();
        let recorded = Recorded::read(&path).unwrap();
        assert_eq!(recorded.scenario, "chain");
        assert_eq!(recorded.machine, machine());
        assert_eq!(recorded.setting("length"), Some("100"));
        assert_eq!(recorded.setting("width"), None);
        let point = &recorded.points[0];
        assert_eq!(
            (point.parameter.as_str(), point.text.as_str(), point.moved),
            ("length", "100", 1)
        );
        let group = &point.groups[0];
        assert_eq!((group.placement, group.repetitions), (Placement::Near, 1));
        assert_eq!(group.series("hop").unwrap().figures.p50_ns.median, 300.0);
        assert_eq!(
            (group.ratios[0].to.as_str(), group.ratios[0].p50.median),
            (LINE, 3.0)
        );
        assert_eq!(group.scalars[0].unit, Unit::Bytes);
    }

    #[test]
    fn what_something_else_wrote_is_named() {
        for foreign in ["", "[1]", "{}", r#"{"format":"pheromone-bench/1"}"#] {
            let complaint = complaint(foreign);
            assert!(
                complaint.contains("run.json is not what `pheromone bench --json` writes"),
                "{complaint}"
            );
        }
        let complaint = complaint(r#"{"format":"pheromone-bench/99"}"#);
        assert!(
            complaint.contains("`pheromone-bench/99`") && complaint.contains("measure it again"),
            "{complaint}"
        );
        let missing = Recorded::read(Path::new("/nonexistent/run.json")).unwrap_err();
        assert!(format!("{missing:#}").contains("/nonexistent/run.json cannot be read"));
    }
}
