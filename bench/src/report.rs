//! What a run found: every repetition, and summaries per placement. This is what `--json` writes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::histogram::{Distribution, Figures, FiguresSpread, Spread};
use crate::machine::Machine;
use crate::placement::{self, Placement};
use crate::repetition::Repetition;

/// Names the layout of the JSON; a change that breaks a reader raises it.
pub const FORMAT: &str = "pheromone-bench/1";
/// Series of the bare cache-line round trip.
pub const LINE: &str = "bare round trip";
/// Series of the bare hop through a scheduler that only matches.
pub const THREE_PARTY: &str = "bare three-party hop";

/// A run of one scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: &'static str,
    /// Which.
    pub scenario: &'static str,
    /// What the main series is, as a sentence.
    pub measures: String,
    /// What was done before counting began.
    pub warm_up: String,
    /// What the main series is held against, as a sentence.
    pub floor: String,
    /// How placements are told apart.
    pub placements: String,
    /// Where it ran.
    pub machine: Machine,
    /// With what: name and value, in the order of the table.
    pub settings: Vec<(String, String)>,
    /// One per value of the scenario's parameter.
    pub points: Vec<Point>,
}

/// One value of the parameter, as `1 MiB`.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// The parameter's name: `size`.
    pub parameter: &'static str,
    /// Its value as a number.
    pub value: u64,
    /// Its value as people write it.
    pub text: String,
    /// Summaries, one per placement that occurred; without what moved.
    pub groups: Vec<Group>,
    /// Repetitions in which the cores moved: counted, and used for nothing.
    pub moved: usize,
    /// Every repetition, those that moved too.
    pub repetitions: Vec<RepetitionReport>,
    /// All repetitions of a placement together, for curves.
    #[serde(skip)]
    pub merged: BTreeMap<Placement, Vec<(String, Distribution)>>,
}

/// The repetitions of one placement.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// Which.
    pub placement: Placement,
    /// How many.
    pub repetitions: usize,
    /// The main series first; the floors last.
    pub series: Vec<Series>,
    /// The main series against each floor, the scenario's own first.
    pub ratios: Vec<Ratio>,
    /// Other numbers.
    pub scalars: Vec<ScalarSpread>,
}

/// One series over repetitions.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    /// What was timed.
    pub name: String,
    /// How long it took.
    pub figures: FiguresSpread,
}

/// The main series divided by a floor, within each repetition.
#[derive(Clone, Debug, Serialize)]
pub struct Ratio {
    /// The divided.
    pub of: String,
    /// The divisor.
    pub to: &'static str,
    /// Median by median.
    pub p50: Spread,
    /// 99th percentile by 99th percentile.
    pub p99: Spread,
    /// And the 99.9th.
    pub p99_9: Spread,
}

/// A number over repetitions.
#[derive(Clone, Debug, Serialize)]
pub struct ScalarSpread {
    /// What.
    pub name: &'static str,
    /// In what.
    pub unit: Unit,
    /// How much.
    pub spread: Spread,
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Time.
    Nanoseconds,
    /// Memory.
    Bytes,
    /// How often in a second.
    PerSecond,
    /// How many times another number.
    Times,
    /// Part of one CPU's time.
    Percent,
}

/// A number that a repetition found beside its distributions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scalar {
    /// What.
    pub name: &'static str,
    /// In what.
    pub unit: Unit,
    /// How much.
    pub value: f64,
}

/// One repetition.
#[derive(Clone, Debug, Serialize)]
pub struct RepetitionReport {
    /// Where the cores were.
    pub placement: Placement,
    /// The line's round trip before it; `None` where nobody asks where the cores were.
    pub probe_before_ns: Option<u64>,
    /// And after.
    pub probe_after_ns: Option<u64>,
    /// By name.
    pub series: Vec<(String, Figures)>,
    /// Other numbers.
    pub scalars: Vec<Scalar>,
}

impl Report {
    /// An empty one.
    pub fn new(
        scenario: &'static str,
        machine: Machine,
        measures: String,
        warm_up: String,
        settings: Vec<(String, String)>,
    ) -> Self {
        Self {
            format: FORMAT,
            scenario,
            measures,
            warm_up,
            floor: "measured in the same run, between the same two CPUs, through the same rings"
                .into(),
            placements: placement::legend(),
            machine,
            settings,
            points: Vec::new(),
        }
    }

    /// For a scenario that measures [`Beside::Nothing`](crate::repetition::Beside::Nothing) but
    /// its own floor.
    pub fn with_own_floor(mut self, floor: impl Into<String>) -> Self {
        self.floor = floor.into();
        self.placements = placement::NOT_TOLD_APART.into();
        self
    }
}

impl Point {
    /// Summarizes repetitions.
    pub fn new(
        parameter: &'static str,
        value: u64,
        text: String,
        repetitions: &[Repetition],
    ) -> Self {
        let mut by_placement: BTreeMap<Placement, Vec<&Repetition>> = BTreeMap::new();
        for repetition in repetitions {
            by_placement
                .entry(repetition.placement)
                .or_default()
                .push(repetition);
        }
        let moved = by_placement
            .remove(&Placement::Moved)
            .map_or(0, |m| m.len());
        Self {
            parameter,
            value,
            text,
            groups: by_placement
                .iter()
                .map(|(&placement, of)| Group::new(placement, of))
                .collect(),
            moved,
            repetitions: repetitions.iter().map(RepetitionReport::new).collect(),
            merged: by_placement
                .iter()
                .map(|(&placement, of)| (placement, merge(of)))
                .collect(),
        }
    }
}

impl Group {
    fn new(placement: Placement, repetitions: &[&Repetition]) -> Self {
        let names = names_of(repetitions);
        let of_name = |name: &str| -> Vec<Figures> {
            repetitions
                .iter()
                .filter_map(|r| r.distribution(name))
                .map(Distribution::figures)
                .collect()
        };
        let series: Vec<Series> = names
            .iter()
            .filter_map(|name| {
                let figures = FiguresSpread::of(&of_name(name))?;
                let name = name.clone();
                Some(Series { name, figures })
            })
            .collect();
        let floors = repetitions.first().map_or(&[][..], |first| &first.floors);
        let ratios = names.first().map_or_else(Vec::new, |main| {
            floors
                .iter()
                .filter_map(|(floor, _)| Ratio::new(main, &of_name(main), floor, &of_name(floor)))
                .collect()
        });
        Self {
            placement,
            repetitions: repetitions.len(),
            series,
            ratios,
            scalars: scalars_of(repetitions),
        }
    }
}

impl Ratio {
    fn new(of: &str, main: &[Figures], to: &'static str, floor: &[Figures]) -> Option<Self> {
        let quotients = |pick: fn(&Figures) -> u64| {
            Spread::of(
                main.iter()
                    .zip(floor)
                    .map(|(main, floor)| pick(main) as f64 / pick(floor).max(1) as f64),
            )
        };
        Some(Self {
            of: of.to_owned(),
            to,
            p50: quotients(|f| f.p50_ns)?,
            p99: quotients(|f| f.p99_ns)?,
            p99_9: quotients(|f| f.p99_9_ns)?,
        })
    }
}

impl RepetitionReport {
    fn new(repetition: &Repetition) -> Self {
        Self {
            placement: repetition.placement,
            probe_before_ns: repetition.probes_ns.map(|[before, _]| before),
            probe_after_ns: repetition.probes_ns.map(|[_, after]| after),
            series: repetition
                .distributions()
                .map(|(name, distribution)| (name.to_owned(), distribution.figures()))
                .collect(),
            scalars: repetition.scalars.clone(),
        }
    }
}

/// The names of the series, in the order of the first repetition.
fn names_of(repetitions: &[&Repetition]) -> Vec<String> {
    repetitions.first().map_or_else(Vec::new, |first| {
        let names = first.distributions().map(|(name, _)| name.to_owned());
        names.collect()
    })
}

fn merge(repetitions: &[&Repetition]) -> Vec<(String, Distribution)> {
    names_of(repetitions)
        .into_iter()
        .map(|name| {
            let mut all = Distribution::new();
            for one in repetitions.iter().filter_map(|r| r.distribution(&name)) {
                all.add(one);
            }
            (name, all)
        })
        .collect()
}

fn scalars_of(repetitions: &[&Repetition]) -> Vec<ScalarSpread> {
    let Some(first) = repetitions.first() else {
        return Vec::new();
    };
    first
        .scalars
        .iter()
        .filter_map(|scalar| {
            let values = repetitions
                .iter()
                .flat_map(|r| &r.scalars)
                .filter(|other| other.name == scalar.name)
                .map(|other| other.value);
            Some(ScalarSpread {
                name: scalar.name,
                unit: scalar.unit,
                spread: Spread::of(values)?,
            })
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A repetition in which every hop took `hop_ns` and every bare round trip `line_ns`.
    pub fn repetition(hop_ns: u64, line_ns: u64, after_ns: u64) -> Repetition {
        let of = |ns: u64| {
            let mut distribution = Distribution::new();
            (0..100).for_each(|_| distribution.record_ns(ns));
            distribution
        };
        Repetition {
            placement: Placement::between(line_ns, after_ns),
            probes_ns: Some([line_ns, after_ns]),
            series: vec![("hop".into(), of(hop_ns))],
            floors: vec![(LINE, of(line_ns)), (THREE_PARTY, of(line_ns + 10))],
            scalars: vec![Scalar {
                name: "private memory growth",
                unit: Unit::Bytes,
                value: hop_ns as f64,
            }],
        }
    }

    pub fn machine() -> Machine {
        Machine {
            cpu_model: "Some CPU".into(),
            cpus: 2,
            virtual_machine: None,
            kernel: "6.18".into(),
            huge_pages: "private madvise, shared never".into(),
            clock_source: "tsc".into(),
            time_stamp_counter: true,
            memory_bytes: 1 << 30,
            load_at_start: "0.00".into(),
        }
    }

    pub fn report(points: Vec<Point>) -> Report {
        let mut report = Report::new(
            "chain",
            machine(),
            "one hop".into(),
            "one session".into(),
            vec![("length".into(), "100".into())],
        );
        report.points = points;
        report
    }

    fn point(repetitions: &[Repetition]) -> Point {
        Point::new("length", 100, "100".into(), repetitions)
    }

    #[test]
    fn placements_are_summarized_apart_and_what_moved_is_only_counted() {
        let all = [
            repetition(300, 100, 101),
            repetition(1200, 400, 400),
            repetition(330, 110, 110),
            repetition(9999, 100, 400),
        ];
        let point = point(&all);
        assert_eq!(point.moved, 1);
        assert_eq!(point.repetitions.len(), 4);
        let labels: Vec<_> = point
            .groups
            .iter()
            .map(|g| (g.placement, g.repetitions))
            .collect();
        assert_eq!(labels, [(Placement::Near, 2), (Placement::Far, 1)]);
        let near = &point.groups[0].series[0];
        assert_eq!(near.name, "hop");
        assert_eq!(near.figures.count, 200);
        assert_eq!(
            near.figures.p50_ns,
            Spread {
                min: 300.0,
                median: 315.0,
                max: 330.0
            }
        );
    }

    #[test]
    fn ratios_are_taken_within_a_repetition() {
        let point = point(&[repetition(300, 100, 100), repetition(220, 110, 110)]);
        let ratios = &point.groups[0].ratios;
        assert_eq!(ratios.len(), 2);
        assert_eq!((ratios[0].of.as_str(), ratios[0].to), ("hop", LINE));
        assert_eq!(
            ratios[0].p50,
            Spread {
                min: 2.0,
                median: 2.5,
                max: 3.0
            }
        );
    }

    #[test]
    fn curves_have_the_times_of_all_repetitions_of_a_placement() {
        let point = point(&[repetition(300, 100, 100), repetition(330, 110, 110)]);
        let (name, merged) = &point.merged[&Placement::Near][0];
        assert_eq!((name.as_str(), merged.count()), ("hop", 200));
        assert_eq!(merged.figures().max_ns, 330);
    }

    #[test]
    fn no_repetition_at_all_is_an_empty_point() {
        let point = point(&[]);
        assert!(point.groups.is_empty() && point.moved == 0);
    }

    #[test]
    fn the_json_has_the_documented_fields() {
        let report = report(vec![point(&[
            repetition(300, 100, 100),
            repetition(9, 100, 400),
        ])]);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["format"], FORMAT);
        assert_eq!(json["scenario"], "chain");
        assert_eq!(json["machine"]["cpu_model"], "Some CPU");
        assert_eq!(json["settings"][0][0], "length");
        let point = &json["points"][0];
        assert_eq!(
            (&point["parameter"], &point["value"]),
            (&"length".into(), &100.into())
        );
        assert_eq!(point["moved"], 1);
        let group = &point["groups"][0];
        assert_eq!(group["placement"], "near");
        assert_eq!(group["series"][0]["name"], "hop");
        for figure in [
            "p50_ns",
            "p90_ns",
            "p99_ns",
            "p99_9_ns",
            "p99_99_ns",
            "max_ns",
        ] {
            for of in ["min", "median", "max"] {
                assert!(
                    group["series"][0]["figures"][figure][of].is_number(),
                    "{figure}.{of}"
                );
            }
        }
        assert_eq!(group["series"][0]["figures"]["count"], 100);
        assert_eq!(group["ratios"][0]["to"], LINE);
        assert_eq!(group["ratios"][0]["p50"]["median"], 3.0);
        assert_eq!(group["scalars"][0]["unit"], "bytes");
        let repetition = &point["repetitions"][1];
        assert_eq!(repetition["placement"], "moved");
        assert_eq!(repetition["probe_after_ns"], 400);
        assert_eq!(repetition["series"][0][1]["p50_ns"], 9);
    }
}
