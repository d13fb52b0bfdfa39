//! `throughput`: interactions a second with many of them under way.

use std::path::Path;

use anyhow::{Context, Result};

use crate::bed::{Bed, Bench, Source};
use crate::floor::{self, Cores};
use crate::histogram::Distribution;
use crate::log::{Log, STEPS_MAX, Step, between_ns, rate_per_second};
use crate::machine::Machine;
use crate::repetition::{Beside, Measured, repeat};
use crate::report::{Point, Report, Scalar, Unit};
use crate::settings::{Plan, Settings};

const SOURCE: Source = Source {
    name: "throughput.c",
    text: include_str!("../../functions/throughput.c"),
};

/// In flight where nobody says how many.
const IN_FLIGHT: [u32; 5] = [1, 8, 64, 512, 4096];
/// Most in flight.
const IN_FLIGHT_MAX: i64 = 65_536;
/// Executors where nobody says how many.
const EXECUTORS: [u16; 1] = [1];
/// Fewest hops of a chain: with fewer there would be more beginning and end than middle.
const LENGTH_MIN: u32 = 8;

/// Options of `pheromone bench throughput`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Chains under way at the same time, in one session; several are several measurements
    /// [default: 1, 8, 64, 512 and 4096]
    #[arg(long = "inflight", value_name = "N", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..=IN_FLIGHT_MAX))]
    pub in_flight: Vec<u32>,
    /// Executor processes; several numbers are several measurements [default: 1]
    #[arg(long, value_name = "N", value_delimiter = ',',
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub executors: Vec<u16>,
    /// Hops of all chains together, each at least 8
    #[arg(long, value_name = "N", default_value_t = 200_000,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(STEPS_MAX)))]
    pub hops: u32,
    /// Sessions measured in each repetition, one after the other, after one that is not counted
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub sessions: u32,
    /// What all scenarios have.
    #[command(flatten)]
    pub settings: Settings,
}

/// Runs the scenario.
///
/// # Errors
/// Whatever kept it from being measured.
pub fn run(options: &Options, directory: &Path) -> Result<Report> {
    let plan = options.settings.plan()?;
    let machine = Machine::here();
    let mut rows = plan.rows(&options.settings);
    rows.push(("hops per session".into(), options.hops.to_string()));
    rows.push((
        "sessions per repetition".into(),
        options.sessions.to_string(),
    ));
    let mut report = Report::new(
        "throughput",
        machine.clone(),
        format!(
            "so many chains are under way at the same time, in one session. A hop is as in chain, \
             from the start of a function to the start of the next of its chain, and waits for the \
             hops of the others; the rate counts all hops, from the first to the last. A bare hop \
             is the bare three-party hop with as many slots under way, {} at most: the ring to an \
             executor has no more",
            floor::WINDOW_MAX
        ),
        "one session of each repetition, not counted".into(),
        rows,
    );
    let in_flight = match &options.in_flight[..] {
        [] => &IN_FLIGHT[..],
        asked => asked,
    };
    let executors = match &options.executors[..] {
        [] => &EXECUTORS[..],
        asked => asked,
    };
    for &executors in executors {
        let bench = Bench::build(&machine, directory, SOURCE, &manifest(executors))?;
        for &chains in in_flight {
            let load = Load::new(chains, options);
            let point = measure_load(&bench, executors, load, options, &plan)?;
            report.points.push(point);
        }
    }
    Ok(report)
}

/// What is under way at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Load {
    chains: u32,
    /// Hops of each.
    length: u32,
    sessions: u32,
}

impl Load {
    /// As many hops as asked for, or as few as chains must have, or as many as the log holds.
    fn new(chains: u32, options: &Options) -> Self {
        let longest = STEPS_MAX / chains - 1;
        let length = (options.hops / chains).max(LENGTH_MIN).min(longest);
        Self {
            chains,
            length,
            sessions: options.sessions,
        }
    }

    fn entries(self) -> u32 {
        self.chains * (self.length + 1)
    }

    /// An `order` of `throughput.c`.
    fn order(self, run: u32) -> Vec<u8> {
        [run, self.chains, self.length, 0]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect()
    }
}

fn measure_load(
    bench: &Bench,
    executors: u16,
    load: Load,
    options: &Options,
    plan: &Plan,
) -> Result<Point> {
    let settings = &options.settings;
    let text = match executors {
        1 => format!("{}, 1 executor", load.chains),
        _ => format!("{}, {executors} executors", load.chains),
    };
    let what = format!("throughput with {text}");
    let beside = Beside::Cores(plan.cores);
    let repetitions = repeat(&what, settings.repetitions, beside, || {
        let bare = bare_rate(plan.cores, load.chains)?;
        let bed = bench.start(settings)?;
        let (hops, rate) = measure(&bed, load)?;
        bed.stop()?;
        let scalar = |name, unit, value| Scalar { name, unit, value };
        Ok(Measured {
            series: vec![("hop".into(), hops)],
            scalars: vec![
                scalar("interactions", Unit::PerSecond, rate),
                scalar("bare hops", Unit::PerSecond, bare),
                scalar("bare / interactions", Unit::Times, bare / rate),
            ],
            ..Measured::default()
        })
    })?;
    let chains = u64::from(load.chains);
    Ok(Point::new("in flight", chains, text, &repetitions))
}

fn bare_rate(cores: Cores, chains: u32) -> Result<f64> {
    floor::rate(cores, chains.min(floor::WINDOW_MAX)).context("the floor could not be measured")
}

fn manifest(executors: u16) -> String {
    format!(
        r#"
[app]
name = "bench-throughput"
entry = "begins"
source = ["throughput.c"]
cflags = CFLAGS
memory = "512MiB"
executors = {{ min = {executors}, max = {executors} }}

[functions.begins]
next = ["hop"]

[functions.hop]
next = ["hop"]

[functions.collect]
"#
    )
}

/// All hops, and how many there were a second, in the middle one of the sessions.
fn measure(bed: &Bed, load: Load) -> Result<(Distribution, f64)> {
    let mut hops = Distribution::new();
    let mut rates = Vec::new();
    for run in 1..=load.sessions + 1 {
        bed.call(load.order(run))?;
        if run == 1 {
            continue;
        }
        let steps = Log::new(run, load.entries() - 1).complete(bed)?;
        let chains: Vec<Vec<Step>> = steps
            .chunks(load.length as usize + 1)
            .map(<[Step]>::to_vec)
            .collect();
        for pair in chains.iter().flat_map(|chain| chain.windows(2)) {
            hops.record_ns(between_ns(pair[0].start_ns, pair[1].start_ns));
        }
        let mut all = steps;
        all.sort_by(|one, other| one.start_ns.total_cmp(&other.start_ns));
        let rate = rate_per_second(&[all], |step| step.start_ns);
        rates.push(rate.context("a session took no time")?);
    }
    rates.sort_by(f64::total_cmp);
    Ok((hops, rates[rates.len() / 2]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn chains_share_the_hops_and_fit_into_the_log() {
        let options = <Cli as clap::Parser>::parse_from(["bench"]).options;
        let length = |chains| Load::new(chains, &options).length;
        assert_eq!(length(1), 200_000);
        assert_eq!(length(4096), 48);
        assert_eq!(length(65_536), 8);
        let all = Options {
            hops: STEPS_MAX,
            ..options
        };
        for chains in [1, 3, 4096, 65_536] {
            assert!(Load::new(chains, &all).entries() <= STEPS_MAX, "{chains}");
        }
    }
}
