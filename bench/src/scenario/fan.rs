//! `fanout` and `fanin`: one function that starts many, and many that start one.

use std::path::Path;

use anyhow::{Result, bail};

use crate::bed::{Bed, Bench, Source};
use crate::histogram::Distribution;
use crate::log::{self, Log, STEPS_MAX, Step, between_ns};
use crate::machine::Machine;
use crate::repetition::{Beside, Measured, repeat};
use crate::report::{Point, Report, Scalar, Unit};
use crate::settings::{Plan, Settings};

const SOURCE: Source = Source {
    name: "fan.c",
    text: include_str!("../../functions/fan.c"),
};

/// Widths where nobody names one.
const WIDTHS: [u32; 4] = [1, 10, 100, 1000];
/// Widest: `fan.c` has one entry of its log beside those of the branches.
const WIDTH_MAX: i64 = STEPS_MAX as i64 - 1;
/// Memory of the app: 64 B of payload and 256 B of books for each of the widest's objects, twice
/// over, fit several times.
const MEMORY: &str = "2GiB";

/// Options of `pheromone bench fanout` and `fanin`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Branches; several are several measurements [default: 1, 10, 100 and 1000]
    #[arg(long, value_name = "N", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..=WIDTH_MAX))]
    pub width: Vec<u32>,
    /// Sessions measured in each repetition, one after the other
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub sessions: u32,
    /// Sessions before them that are not counted
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub warm_up: u32,
    /// Executor processes
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub executors: u16,
    /// What all scenarios have.
    #[command(flatten)]
    pub settings: Settings,
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One to many.
    Out,
    /// Many to one.
    In,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Out => "fanout",
            Self::In => "fanin",
        }
    }

    fn measures(self) -> &'static str {
        match self {
            Self::Out => {
                "a fan-out is from the start of the function that sends one object for each branch \
                 to the start of the last branch; each branch is a function that does nothing. \
                 Branches do not wait for the function that sends where there are executors for \
                 them"
            }
            Self::In => {
                "a fan-in is from the start of the first of the functions that send a part each to \
                 the start of the function that a by_set trigger fires when all parts are there. \
                 Completion is from just before phr_send of the part that was sent last"
            }
        }
    }

    /// Entries of a run's log beside those of the branches.
    fn ends(self) -> u32 {
        match self {
            Self::Out => 1,
            Self::In => 2,
        }
    }
}

/// Runs the scenario.
///
/// # Errors
/// Whatever kept it from being measured.
pub fn run(way: Way, options: &Options, directory: &Path) -> Result<Report> {
    let plan = options.settings.plan()?;
    let machine = Machine::here();
    let mut rows = plan.rows(&options.settings);
    rows.push(("executors".into(), options.executors.to_string()));
    rows.push((
        "sessions per repetition".into(),
        options.sessions.to_string(),
    ));
    let mut report = Report::new(
        way.name(),
        machine.clone(),
        way.measures().into(),
        format!(
            "{} sessions of each repetition, not counted",
            options.warm_up
        ),
        rows,
    );
    let widths = match &options.width[..] {
        [] => &WIDTHS[..],
        asked => asked,
    };
    for &width in widths {
        let manifest = manifest(way, width, options.executors);
        let bench = Bench::build(&machine, directory, SOURCE, &manifest)?;
        let point = measure_width(&bench, way, width, options, &plan)?;
        report.points.push(point);
    }
    Ok(report)
}

fn measure_width(
    bench: &Bench,
    way: Way,
    width: u32,
    options: &Options,
    plan: &Plan,
) -> Result<Point> {
    let settings = &options.settings;
    let what = format!("{} of {width}", way.name());
    let beside = Beside::Cores(plan.cores);
    let repetitions = repeat(&what, settings.repetitions, beside, || {
        let bed = bench.start(settings)?;
        let measured = measure(&bed, way, width, options)?;
        bed.stop()?;
        Ok(measured)
    })?;
    let text = width.to_string();
    Ok(Point::new("width", u64::from(width), text, &repetitions))
}

fn manifest(way: Way, width: u32, executors: u16) -> String {
    let head = format!(
        r#"
[app]
name = "bench-fan"
entry = "spreads"
source = ["fan.c"]
cflags = CFLAGS
memory = "{MEMORY}"
executors = {{ min = {executors}, max = {executors} }}

[functions.collect]
"#
    );
    let rest = match way {
        Way::Out => r#"
[functions.spreads]
next = ["branch"]

[functions.branch]
"#
        .to_owned(),
        Way::In => format!(
            r#"
[functions.spreads]
next = ["part"]

[functions.part]
sends = ["parts"]

[functions.gathers]

[buckets.parts]
keep = "until_consumed"

[[buckets.parts.triggers]]
type = "by_set"
function = "gathers"
keys = ["part-{{1..{width}}}"]
"#
        ),
    };
    head + &rest
}

fn measure(bed: &Bed, way: Way, width: u32, options: &Options) -> Result<Measured> {
    let (mut whole, mut completion) = (Distribution::new(), Distribution::new());
    for run in 1..=options.warm_up + options.sessions {
        bed.call(log::order(run, width))?;
        let steps = Log::new(run, width + way.ends() - 1).complete(bed)?;
        if run <= options.warm_up {
            continue;
        }
        let times = Times::of(way, &steps)?;
        whole.record_ns(between_ns(times.from_ns, times.to_ns));
        if let Some(last_ns) = times.last_sent_ns {
            completion.record_ns(between_ns(last_ns, times.to_ns));
        }
    }
    let per_branch = Scalar {
        name: "per branch",
        unit: Unit::Nanoseconds,
        value: whole.at(0.5) as f64 / f64::from(width),
    };
    let mut series = vec![(format!("{} whole", way.name()), whole)];
    if completion.count() > 0 {
        series.push(("completion".into(), completion));
    }
    Ok(Measured {
        series,
        scalars: vec![per_branch],
        ..Measured::default()
    })
}

/// What is read from a run's log.
#[derive(Debug, PartialEq)]
struct Times {
    from_ns: f64,
    to_ns: f64,
    /// When the last part was sent, of a fan-in.
    last_sent_ns: Option<f64>,
}

impl Times {
    fn of(way: Way, steps: &[Step]) -> Result<Self> {
        let last =
            |steps: &[Step], at: fn(&Step) -> f64| steps.iter().map(at).max_by(f64::total_cmp);
        let first = |steps: &[Step]| steps.iter().map(|s| s.start_ns).min_by(f64::total_cmp);
        let found = match (way, steps) {
            (Way::Out, [spreads, branches @ ..]) => {
                last(branches, |step| step.start_ns).map(|to_ns| Self {
                    from_ns: spreads.start_ns,
                    to_ns,
                    last_sent_ns: None,
                })
            }
            (Way::In, [_, parts @ .., gathers]) => first(parts).map(|from_ns| Self {
                from_ns,
                to_ns: gathers.start_ns,
                last_sent_ns: last(parts, |step| step.send_ns),
            }),
            _ => None,
        };
        match found {
            Some(times) => Ok(times),
            None => bail!("a log of {} steps has no branch in it", steps.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(start_ns: f64, send_ns: f64) -> Step {
        Step { start_ns, send_ns }
    }

    #[test]
    fn a_fan_out_ends_with_whichever_branch_starts_last() {
        let steps = [step(10.0, 11.0), step(30.0, 0.0), step(20.0, 0.0)];
        let times = Times::of(Way::Out, &steps).unwrap();
        assert_eq!((times.from_ns, times.to_ns), (10.0, 30.0));
        assert_eq!(times.last_sent_ns, None);
        assert!(Times::of(Way::Out, &steps[..1]).is_err());
    }

    #[test]
    fn a_fan_in_begins_with_whichever_part_starts_first() {
        let steps = [
            step(0.0, 1.0),
            step(30.0, 31.0),
            step(20.0, 33.0),
            step(40.0, 0.0),
        ];
        let times = Times::of(Way::In, &steps).unwrap();
        let expected = Times {
            from_ns: 20.0,
            to_ns: 40.0,
            last_sent_ns: Some(33.0),
        };
        assert_eq!(times, expected);
        assert!(Times::of(Way::In, &steps[..2]).is_err());
    }
}
