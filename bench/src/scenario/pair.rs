//! `pair`: two functions that hand one object to each other, by its size.

use std::path::Path;

use anyhow::{Result, ensure};
use pheromone_node::To;

use crate::bed::{Bed, Bench, Source};
use crate::copy::copy_ns;
use crate::histogram::Distribution;
use crate::log::{Log, STEPS_MAX, between_ns};
use crate::machine::Machine;
use crate::parts::Parts;
use crate::repetition::{Beside, Measured, repeat};
use crate::report::{Point, Report, Scalar, Unit};
use crate::settings::{Plan, Settings};
use crate::size::{Size, available_bytes};

const SOURCE: Source = Source {
    name: "pair.c",
    text: include_str!("../../functions/pair.c"),
};

/// What is measured where nobody names sizes.
const SIZES: [u64; 7] = [8, 1 << 10, 4 << 10, 64 << 10, 1 << 20, 64 << 20, 1 << 30];
/// The object's first word names its run.
const SIZE_MIN: u64 = 8;
/// Of an app beside its object: the log that the last function answers with.
const MEMORY_BESIDE: u64 = 64 << 20;
/// Memory of the machine that a run of size n needs, in n: the object, and two buffers to time a
/// copy (not at the same time).
const BUFFERS: u64 = 2;
/// Options of `pheromone bench pair`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Payload bytes, 8 or more, as `64KiB`; several are several measurements [default: 8 B to
    /// 1 GiB, as far as memory goes]
    #[arg(long, value_name = "BYTES", value_delimiter = ',')]
    pub size: Vec<Size>,
    /// Handovers that are counted in each repetition
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub handovers: u32,
    /// Handovers of the same object before them that are not counted
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(0..=40_000))]
    pub warm_up: u32,
    /// Executor processes [default: 2 where executors have two CPUs or more, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=2))]
    pub executors: Option<u16>,
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
    let sizes = sizes(&options.size, available_bytes())?;
    let executors = options
        .executors
        .unwrap_or(if plan.executor_cpus > 1 { 2 } else { 1 });
    let mut rows = plan.rows(&options.settings);
    rows.push(("executors".into(), executors.to_string()));
    rows.push((
        "handovers per repetition".into(),
        options.handovers.to_string(),
    ));
    let mut report = Report::new(
        "pair",
        machine.clone(),
        "a handover is from just before one function sends the object to the start of the other, \
         which has it as input. The object is written once, by the first function, and then \
         forwarded to and fro: its pages are touched, its bytes checked at both ends and in the \
         middle by every receiver. Private memory is that of each process with the object alive, \
         less that before it was made; memcpy is one copy of that size, on the executor's CPU"
            .into(),
        format!(
            "{} handovers of the same object, not counted",
            options.warm_up
        ),
        rows,
    );
    for size in sizes {
        let bench = build(&machine, directory, size, executors)?;
        report
            .points
            .push(measure_size(&bench, size, options, &plan)?);
    }
    Ok(report)
}

/// The sizes to measure: those asked for, or the usual ones that fit.
fn sizes(asked: &[Size], available: u64) -> Result<Vec<u64>> {
    let fits = |size: u64| size.saturating_mul(BUFFERS) <= available;
    if asked.is_empty() {
        let usual = SIZES.into_iter().filter(|&size| fits(size)).collect();
        if !fits(SIZES[SIZES.len() - 1]) {
            eprintln!(
                "the largest sizes are left out: {} are available",
                Size(available)
            );
        }
        return Ok(usual);
    }
    for &Size(size) in asked {
        ensure!(
            size >= SIZE_MIN,
            "an object here has at least {SIZE_MIN} bytes, not {size}"
        );
        ensure!(
            fits(size),
            "{} need {} of memory here, and {} are available",
            Size(size),
            Size(size.saturating_mul(BUFFERS)),
            Size(available)
        );
    }
    Ok(asked.iter().map(|size| size.0).collect())
}

fn measure_size(bench: &Bench, size: u64, options: &Options, plan: &Plan) -> Result<Point> {
    let settings = &options.settings;
    let text = Size(size).to_string();
    let what = format!("pair of {text}");
    let repetitions = repeat(
        &what,
        settings.repetitions,
        Beside::Cores(plan.cores),
        || {
            let bed = bench.start(settings)?;
            let mut measured = measure(&bed, size, options)?;
            bed.stop()?;
            measured.scalars.push(Scalar {
                name: "memcpy",
                unit: Unit::Nanoseconds,
                value: copy_ns(usize::try_from(size)?, plan.cores.executor),
            });
            Ok(measured)
        },
    )?;
    Ok(Point::new("size", size, text, &repetitions))
}

/// Builds the app for objects of this size.
pub(super) fn build(
    machine: &Machine,
    directory: &Path,
    size: u64,
    executors: u16,
) -> Result<Bench> {
    Bench::build(machine, directory, SOURCE, &manifest(size, executors))
}

fn manifest(size: u64, executors: u16) -> String {
    let memory = size + MEMORY_BESIDE;
    format!(
        r#"
[app]
name = "bench-pair"
entry = "make"
source = ["pair.c"]
cflags = CFLAGS
memory = {memory}
executors = {{ min = {executors}, max = {executors} }}

[app.limits]
object_size = {memory}

[functions.make]
next = ["pong"]

[functions.ping]
next = ["pong"]

[functions.pong]
next = ["ping"]
calls = ["collect"]

[functions.collect]
"#
    )
}

/// What the function `make` is told: an `order` of `pair.c`.
fn order(run: u32, handovers: u32, size: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16);
    bytes.extend_from_slice(&run.to_le_bytes());
    bytes.extend_from_slice(&handovers.to_le_bytes());
    bytes.extend_from_slice(&size.to_le_bytes());
    bytes
}

/// Handovers of one repetition, and what memory they took.
pub(super) fn measure(bed: &Bed, size: u64, options: &Options) -> Result<Measured> {
    let length = options.warm_up + options.handovers;
    debug_assert!(length < STEPS_MAX);
    // The same with a small object first: what grows by that (the functions' logs, tables) is there
    // when memory is looked at.
    bed.call(order(1, length, SIZE_MIN))?;
    let before = Parts::private_bytes();
    let mut alive = before;
    let answer = bed.call_then(To::Entry, order(2, length, size), || {
        alive = Parts::private_bytes();
        Ok(())
    })?;
    let mut log = Log::new(2, length);
    log.add(&answer.body)?;
    let steps = log.complete(bed)?;
    let mut handovers = Distribution::new();
    for pair in steps.windows(2).skip(options.warm_up as usize) {
        handovers.record_ns(between_ns(pair[0].send_ns, pair[1].start_ns));
    }
    let growth = |name, before: u64, after: u64| Scalar {
        name,
        unit: Unit::Bytes,
        value: after as f64 - before as f64,
    };
    Ok(Measured {
        series: vec![("handover".into(), handovers)],
        scalars: vec![
            growth("node +private", before.node, alive.node),
            growth("scheduler +private", before.scheduler, alive.scheduler),
            growth("executors +private", before.executors, alive.executors),
        ],
        ..Measured::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_sizes_are_those_that_fit() {
        assert_eq!(sizes(&[], u64::MAX).unwrap(), SIZES);
        assert_eq!(sizes(&[], 3 << 20).unwrap(), SIZES[..5]);
    }

    #[test]
    fn a_size_asked_for_is_measured_or_refused() {
        assert_eq!(sizes(&[Size(8), Size(9)], 1 << 20).unwrap(), [8, 9]);
        assert!(sizes(&[Size(7)], 1 << 20).is_err());
        let too_large = sizes(&[Size(1 << 30)], 1 << 20).unwrap_err().to_string();
        assert!(too_large.contains("1 GiB need 2 GiB"), "{too_large}");
        assert!(sizes(&[Size(u64::MAX)], 1 << 20).is_err());
    }

    #[test]
    fn an_order_is_run_handovers_and_size() {
        assert_eq!(
            order(1, 2, 3),
            [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]
        );
    }
}
