//! `wake`: how long it takes to get going after nobody has had anything to do, and what that costs
//! meanwhile.

use std::path::Path;
use std::sync::mpsc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use rustix::thread::CpuSet;

use crate::bed::{Bed, Bench, Source, monotonic_ns};
use crate::floor::Cores;
use crate::gap::Gap;
use crate::histogram::Distribution;
use crate::machine::Machine;
use crate::parts::Parts;
use crate::repetition::{Beside, Measured, repeat};
use crate::report::{Point, Report, Scalar, Unit};
use crate::settings::{IdleChoice, Plan, Settings};

const SOURCE: Source = Source {
    name: "wake.c",
    text: include_str!("../../functions/wake.c"),
};

/// Gaps where nobody names one, in microseconds.
const GAPS_US: [u64; 6] = [10, 100, 1000, 10_000, 100_000, 1_000_000];
/// Longest gap.
const GAP_NS_MAX: u64 = 60_000_000_000;
/// Gaps of one kind in one repetition take about this long together, but are not fewer than
/// [`WAKES_MIN`].
const TOGETHER_NS: u64 = 1_000_000_000;
/// Fewest wakes.
const WAKES_MIN: u32 = 3;

const MANIFEST: &str = r#"
[app]
name = "bench-wake"
entry = "wakes"
source = ["wake.c"]
cflags = CFLAGS
executors = { min = 1, max = 1 }

[functions.wakes]

[functions.waits]
next = ["is_due"]

[functions.is_due]
[functions.collect]
"#;

/// Options of `pheromone bench wake`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// How long nothing happens, as `10us`, at most 60s; several are several measurements
    /// [default: 10us to 1s]
    #[arg(long, value_name = "TIME", value_delimiter = ',', value_parser = gap)]
    pub gap: Vec<Gap>,
    /// Wakes of each kind in each repetition; fewer, and at least 3, where they would take longer
    /// than a second together
    #[arg(long, value_name = "N", default_value_t = 200,
          value_parser = clap::value_parser!(u32).range(i64::from(WAKES_MIN)..=1_000_000))]
    pub wakes: u32,
    /// What all scenarios have; without `--idle` both policies are measured.
    #[command(flatten)]
    pub settings: Settings,
}

fn gap(text: &str) -> Result<Gap, String> {
    let gap: Gap = text.parse()?;
    match gap.ns() {
        1..=GAP_NS_MAX => Ok(gap),
        _ => Err("a gap here is 1us to 60s".into()),
    }
}

/// Runs the scenario.
///
/// # Errors
/// Whatever kept it from being measured.
pub fn run(options: &Options, directory: &Path) -> Result<Report> {
    let policies = match options.settings.idle {
        Some(asked) => vec![asked],
        None => vec![IdleChoice::Adaptive, IdleChoice::Spin],
    };
    let plan = options.settings.plan()?;
    let machine = Machine::here();
    let bench = Bench::build(&machine, directory, SOURCE, MANIFEST)?;
    let mut rows = plan.rows(&options.settings);
    rows.retain(|(name, _)| name != "idle policy");
    rows.push((
        "wakes per repetition, at most".into(),
        options.wakes.to_string(),
    ));
    let mut report = Report::new(
        "wake",
        machine,
        "a wake is from a request, made in the node's process after a gap in which nothing \
         happened, to its function's first instruction; a timer is how much later than its time a \
         function starts that an object sent with such a delay fires. Processor time is that of \
         the scheduler and the executor during the requests and the gaps between them, in parts \
         of one CPU. A wake's part of the scheduler is what it spends on one executor that sleeps: \
         the call into the kernel and what leads to it, counted by the scheduler itself over wakes \
         and timers; beside it the median of the same call alone, in the bare wake"
            .into(),
        "one wake of each kind in each repetition, not counted".into(),
        rows,
    )
    .with_own_floor(
        "a thread that sleeps on a futex, woken by another after as long a gap: from just before \
         the wake to the first instruction after it, between the same two CPUs, before each \
         repetition",
    );
    let gaps = match &options.gap[..] {
        [] => GAPS_US
            .map(|us| Gap(std::time::Duration::from_micros(us)))
            .to_vec(),
        asked => asked.to_vec(),
    };
    for policy in policies {
        let settings = options.settings.with_idle(policy);
        for &gap in &gaps {
            let count = count(gap, options.wakes);
            report
                .points
                .push(measure_gap(&bench, gap, count, &settings, &plan)?);
        }
    }
    Ok(report)
}

/// As many wakes as asked for, or as few as take [`TOGETHER_NS`].
fn count(gap: Gap, asked: u32) -> u32 {
    let fitting = u32::try_from(TOGETHER_NS / gap.ns().max(1)).unwrap_or(u32::MAX);
    asked.min(fitting.max(WAKES_MIN))
}

fn measure_gap(
    bench: &Bench,
    gap: Gap,
    count: u32,
    settings: &Settings,
    plan: &Plan,
) -> Result<Point> {
    let policy = settings.idle_name();
    let text = format!("{gap}, {policy}");
    let what = format!("wake after {text}");
    let repetitions = repeat(&what, settings.repetitions, Beside::Nothing, || {
        let bare = futex_wakes(gap, count, plan.cores)?;
        let bed = bench.start(settings)?;
        let mut measured = measure(&bed, gap, count)?;
        bed.stop()?;
        measured.scalars.push(Scalar {
            name: "bare wake's part of its caller",
            unit: Unit::Nanoseconds,
            value: bare.calls.at(0.5) as f64,
        });
        Ok(Measured {
            floors: vec![("bare futex wake", bare.wakes)],
            ..measured
        })
    })?;
    Ok(Point::new("gap", gap.ns(), text, &repetitions))
}

fn measure(bed: &Bed, gap: Gap, count: u32) -> Result<Measured> {
    let (mut wakes, mut timers) = (Distribution::new(), Distribution::new());
    bed.call(Vec::new())?;
    let woken_before = bed.wakes()?;
    let before = Parts::processor_ns();
    let began = Instant::now();
    for _ in 0..count {
        gap.pass();
        let answer = bed.call(Vec::new())?;
        wakes.record_ns(word(&answer.body)?.saturating_sub(answer.began_ns));
    }
    let took_ns = began.elapsed().as_nanos() as f64;
    let after = Parts::processor_ns();
    for number in 0..=count {
        let answer = bed.call_function("waits", gap.ns().to_le_bytes().to_vec())?;
        if number > 0 {
            timers.record_ns(word(&answer.body)?);
        }
    }
    let used = |name, before: u64, after: u64| Scalar {
        name,
        unit: Unit::Percent,
        value: after.saturating_sub(before) as f64 / took_ns * 100.0,
    };
    let mut scalars = vec![
        used("scheduler CPU", before.scheduler, after.scheduler),
        used("executor CPU", before.executors, after.executors),
    ];
    scalars.extend(scheduler_part(woken_before, bed.wakes()?));
    Ok(Measured {
        series: vec![("wake".into(), wakes), ("timer".into(), timers)],
        scalars,
        ..Measured::default()
    })
}

/// What a wake takes the scheduler, of two looks at how many there were and what they took; nothing
/// where nobody had to be woken in between.
fn scheduler_part(before: (u64, u64), after: (u64, u64)) -> Option<Scalar> {
    let (count, took_ns) = (after.0 - before.0, after.1 - before.1);
    (count > 0).then(|| Scalar {
        name: "wake's part of the scheduler",
        unit: Unit::Nanoseconds,
        value: took_ns as f64 / count as f64,
    })
}

fn word(answer: &[u8]) -> Result<u64> {
    let bytes = answer
        .try_into()
        .map_err(|_| anyhow!("an answer of {} bytes is no time", answer.len()))?;
    Ok(u64::from_le_bytes(bytes))
}

/// Wakes without a node.
struct Bare {
    /// From just before the wake to the first instruction after it.
    wakes: Distribution,
    /// What of that the waker's call took.
    calls: Distribution,
}

/// A thread on the executor's CPU sleeps (`park` waits on a futex), and one on the scheduler's
/// wakes it after each gap.
fn futex_wakes(gap: Gap, count: u32, cores: Cores) -> Result<Bare> {
    let (tell, woken) = mpsc::channel();
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(move || {
            pin(cores.executor);
            // Ends when nobody wants to hear any more.
            loop {
                std::thread::park();
                if tell.send(monotonic_ns()).is_err() {
                    return;
                }
            }
        });
        let waker = scope.spawn(move || -> Result<Bare> {
            pin(cores.scheduler);
            let mut bare = Bare {
                wakes: Distribution::new(),
                calls: Distribution::new(),
            };
            for _ in 0..count {
                gap.pass();
                let began_ns = monotonic_ns();
                sleeper.thread().unpark();
                let returned_ns = monotonic_ns();
                let woken_ns = woken.recv().context("a thread that slept is gone")?;
                bare.wakes.record_ns(woken_ns.saturating_sub(began_ns));
                bare.calls.record_ns(returned_ns - began_ns);
            }
            drop(woken);
            sleeper.thread().unpark();
            Ok(bare)
        });
        waker.join().map_err(|_| anyhow!("a thread panicked"))?
    })
}

/// A preference: the wake of another CPU is still one.
fn pin(cpu: u32) {
    let mut set = CpuSet::new();
    set.set(cpu as usize % CpuSet::MAX_CPU);
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_gaps_are_waited_for_less_often() {
        let count = |text: &str| count(text.parse().unwrap(), 200);
        assert_eq!(count("10us"), 200);
        assert_eq!(count("10ms"), 100);
        assert_eq!(count("1s"), 3);
        assert_eq!(count("60s"), 3);
    }

    #[test]
    fn gaps_of_nothing_and_beyond_a_minute_are_refused() {
        assert!(gap("0us").is_err() && gap("61s").is_err() && gap("1 week").is_err());
        assert!(gap("60s").is_ok());
    }

    #[test]
    fn every_bare_wake_is_counted() {
        let cores = Cores {
            scheduler: 0,
            executor: 0,
        };
        let bare = futex_wakes("10us".parse().unwrap(), 20, cores).unwrap();
        assert_eq!((bare.wakes.count(), bare.calls.count()), (20, 20));
    }

    #[test]
    fn the_schedulers_part_is_of_one_wake_and_of_none_where_nobody_slept() {
        let part = scheduler_part((10, 5_000), (14, 11_000)).unwrap();
        assert_eq!(part.value, 1_500.0);
        assert_eq!(scheduler_part((10, 5_000), (10, 5_000)), None);
    }
}
