//! `throughput`: interactions a second with many of them under way, of functions that do nothing or
//! work for a while, with one executor or more.

use std::path::Path;

use anyhow::{Context, Result, anyhow};

use crate::bed::{Bed, Bench, Source};
use crate::floor::{self, Cores};
use crate::gap::Gap;
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
/// Longest work of one function.
const WORK_NS_MAX: u64 = 100_000_000;
/// All work of a session takes about this long, where the functions work; but see [`LENGTH_MIN`].
const TOGETHER_NS: u64 = 500_000_000;
/// Turns of the loop in `throughput.c` that are timed, by an order of no chains.
const TIMED_LOOPS: u32 = 100_000;

/// Options of `pheromone bench throughput`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Chains under way at the same time, in one session; several are several measurements
    /// [default: 1, 8, 64, 512 and 4096]
    #[arg(long = "inflight", value_name = "N", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..=IN_FLIGHT_MAX))]
    pub in_flight: Vec<u32>,
    /// How long each function works, as `5us`, at most 100ms, or `0`; several are several
    /// measurements [default: 0]
    #[arg(long, value_name = "TIME", value_delimiter = ',', value_parser = work)]
    pub work: Vec<Gap>,
    /// Executor processes; several numbers are several measurements, and each number after the
    /// first is measured by turns with the first, so that their rates can be compared [default: 1]
    #[arg(long, value_name = "N", value_delimiter = ',',
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub executors: Vec<u16>,
    /// Hops of all chains together, each at least 8; fewer where the functions would work for more
    /// than half a second
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

fn work(text: &str) -> Result<Gap, String> {
    if text == "0" {
        return Ok(Gap(std::time::Duration::ZERO));
    }
    let work: Gap = text.parse()?;
    match work.ns() {
        0..=WORK_NS_MAX => Ok(work),
        _ => Err("a function here works for 100ms at most".into()),
    }
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
             executor has no more. Where a function works, it does so by turns of a loop that were \
             timed in the same repetition; at work is what part of one CPU that is. With other \
             numbers of executors than the first, the first is measured just before, on a node of \
             its own that has the same CPUs",
            floor::WINDOW_MAX
        ),
        "one session of each repetition, not counted".into(),
        rows,
    );
    let in_flight = match &options.in_flight[..] {
        [] => &IN_FLIGHT[..],
        asked => asked,
    };
    let works = match &options.work[..] {
        [] => &[Gap(std::time::Duration::ZERO)][..],
        asked => asked,
    };
    let executors = match &options.executors[..] {
        [] => &EXECUTORS[..],
        asked => asked,
    };
    let build = |executors| {
        let bench = Bench::build(&machine, directory, SOURCE, &manifest(executors))?;
        anyhow::Ok(Pool { executors, bench })
    };
    let first = build(executors[0])?;
    for (at, &number) in executors.iter().enumerate() {
        let other = match at {
            0 => None,
            _ => Some(build(number)?),
        };
        let pools = Pools {
            measured: other.as_ref().unwrap_or(&first),
            compared: other.is_some().then_some(&first),
        };
        for &chains in in_flight {
            for &work in works {
                let load = Load::new(chains, work, options);
                let point = measure_load(pools, load, options, &plan)?;
                report.points.push(point);
            }
        }
    }
    Ok(report)
}

/// An app with so many executors.
struct Pool {
    executors: u16,
    bench: Bench,
}

/// What is measured, and what by turns with it.
#[derive(Clone, Copy)]
struct Pools<'a> {
    measured: &'a Pool,
    compared: Option<&'a Pool>,
}

/// What is under way at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Load {
    chains: u32,
    /// Hops of each.
    length: u32,
    /// How long a function works.
    work: Gap,
    sessions: u32,
}

impl Load {
    /// As many hops as asked for, or as take [`TOGETHER_NS`], or as few as chains must have, or as
    /// many as the log holds.
    fn new(chains: u32, work: Gap, options: &Options) -> Self {
        let longest = STEPS_MAX / chains - 1;
        let worked = TOGETHER_NS.checked_div(work.ns()).unwrap_or(u64::MAX);
        let hops = u32::try_from(worked).map_or(options.hops, |worked| worked.min(options.hops));
        let length = (hops / chains).max(LENGTH_MIN).min(longest);
        Self {
            chains,
            length,
            work,
            sessions: options.sessions,
        }
    }

    fn text(self, executors: u16) -> String {
        let work = match self.work.ns() {
            0 => String::new(),
            _ => format!(", {}", self.work),
        };
        match executors {
            1 => format!("{}{work}, 1 executor", self.chains),
            _ => format!("{}{work}, {executors} executors", self.chains),
        }
    }

    fn entries(self) -> u32 {
        self.chains * (self.length + 1)
    }

    /// An `order` of `throughput.c`.
    fn order(self, run: u32, loops: u32) -> Vec<u8> {
        [run, self.chains, self.length, loops]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect()
    }
}

fn measure_load(pools: Pools<'_>, load: Load, options: &Options, plan: &Plan) -> Result<Point> {
    let settings = &options.settings;
    let text = load.text(pools.measured.executors);
    let what = format!("throughput with {text}");
    let beside = Beside::Cores(plan.cores);
    let repetitions = repeat(&what, settings.repetitions, beside, || {
        let bare = bare_rate(plan.cores, load.chains)?;
        let compared = pools.compared;
        let compared = compared.map(|pool| measure_pool(pool, load, None, settings));
        let compared = compared.transpose()?;
        // The same work for both.
        let loops = compared.as_ref().map(|rate| rate.loops);
        let found = measure_pool(pools.measured, load, loops, settings)?;
        let mut measured = Measured {
            series: vec![("hop".into(), found.hops)],
            ..Measured::default()
        };
        let mut scalar = |name, unit, value| measured.scalars.push(Scalar { name, unit, value });
        let per_second = found.per_second;
        scalar("interactions", Unit::PerSecond, per_second);
        scalar("bare hops", Unit::PerSecond, bare);
        scalar("bare / interactions", Unit::Times, bare / per_second);
        if load.work.ns() > 0 {
            let at_work = per_second * load.work.ns() as f64 / 1e9;
            scalar("at work", Unit::Percent, at_work * 100.0);
        }
        if let Some(compared) = compared {
            let with_first = compared.per_second;
            scalar("with the first number", Unit::PerSecond, with_first);
            scalar("rate / that", Unit::Times, per_second / with_first);
            measured
                .series
                .push(("hop, with the first number".into(), compared.hops));
        }
        Ok(measured)
    })?;
    let chains = u64::from(load.chains);
    Ok(Point::new("in flight", chains, text, &repetitions))
}

/// What one node did.
struct Found {
    hops: Distribution,
    per_second: f64,
    /// Turns of the loop that each function worked.
    loops: u32,
}

fn measure_pool(pool: &Pool, load: Load, loops: Option<u32>, settings: &Settings) -> Result<Found> {
    let bed = pool.bench.start(settings)?;
    let loops = match loops {
        Some(loops) => loops,
        None => loops_for(&bed, load.work)?,
    };
    let (hops, per_second) = measure(&bed, load, loops)?;
    bed.stop()?;
    Ok(Found {
        hops,
        per_second,
        loops,
    })
}

/// How many turns of its loop a function works for so long.
fn loops_for(bed: &Bed, work: Gap) -> Result<u32> {
    if work.ns() == 0 {
        return Ok(0);
    }
    let timed: Vec<u8> = [0, 0, 0, TIMED_LOOPS]
        .iter()
        .flat_map(|word: &u32| word.to_le_bytes())
        .collect();
    let answer = bed.call_function("time_loops", timed)?;
    let bytes = answer.body.as_slice().try_into();
    let bytes = bytes.map_err(|_| anyhow!("{} bytes are no time", answer.body.len()))?;
    turns(work.ns(), u64::from_le_bytes(bytes))
}

/// At least one: a loop of no turns would be no work.
fn turns(work_ns: u64, timed_ns: u64) -> Result<u32> {
    let loops = work_ns as f64 * f64::from(TIMED_LOOPS) / timed_ns as f64;
    let is_one = loops.is_finite() && loops < f64::from(u32::MAX);
    anyhow::ensure!(is_one, "{TIMED_LOOPS} turns of a loop took {timed_ns} ns");
    Ok((loops.round() as u32).max(1))
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

[functions.time_loops]
[functions.collect]
"#
    )
}

/// All hops, and how many there were a second, in the middle one of the sessions.
fn measure(bed: &Bed, load: Load, loops: u32) -> Result<(Distribution, f64)> {
    let mut hops = Distribution::new();
    let mut rates = Vec::new();
    for run in 1..=load.sessions + 1 {
        bed.call(load.order(run, loops))?;
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

    fn options(arguments: &[&str]) -> Options {
        let all = ["bench"].iter().chain(arguments);
        <Cli as clap::Parser>::parse_from(all).options
    }

    #[test]
    fn chains_share_the_hops_and_fit_into_the_log() {
        let nothing = work("0").unwrap();
        let usual = options(&[]);
        let length = |chains| Load::new(chains, nothing, &usual).length;
        assert_eq!(length(1), 200_000);
        assert_eq!(length(4096), 48);
        assert_eq!(length(65_536), 8);
        let all = Options {
            hops: STEPS_MAX,
            ..usual
        };
        for chains in [1, 3, 4096, 65_536] {
            assert!(
                Load::new(chains, nothing, &all).entries() <= STEPS_MAX,
                "{chains}"
            );
        }
    }

    #[test]
    fn functions_that_work_have_fewer_hops() {
        let usual = options(&[]);
        let length = |chains, text| Load::new(chains, work(text).unwrap(), &usual).length;
        assert_eq!(length(1, "1us"), 200_000);
        assert_eq!(length(1, "5us"), 100_000);
        assert_eq!(length(1, "1ms"), 500);
        assert_eq!(length(64, "100ms"), 8);
    }

    #[test]
    fn work_is_named_with_its_unit_and_bounded() {
        let all = options(&["--work", "0,5us,1ms,100ms"]).work;
        let ns: Vec<u64> = all.iter().map(|work| work.ns()).collect();
        assert_eq!(ns, [0, 5_000, 1_000_000, 100_000_000]);
        for bad in ["", "5", "-1us", "101ms"] {
            assert!(work(bad).is_err(), "{bad}");
        }
        let load = |text| Load::new(64, work(text).unwrap(), &options(&[]));
        assert_eq!(load("0").text(1), "64, 1 executor");
        assert_eq!(load("5us").text(4), "64, 5 us, 4 executors");
    }

    #[test]
    fn a_time_becomes_turns_of_a_loop() {
        assert_eq!(turns(5_000, 200_000).unwrap(), 2_500);
        assert_eq!(turns(1, 100_000_000).unwrap(), 1);
        assert!(turns(5_000, 0).is_err());
        assert!(turns(100_000_000, 1).is_err());
    }
}
