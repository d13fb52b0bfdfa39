//! `chain`: functions that do nothing, one after the other, in one session.

use std::path::Path;

use anyhow::Result;

use crate::bed::{Bed, Bench, Source};
use crate::histogram::Distribution;
use crate::log::{self, Log, STEPS_MAX, between_ns};
use crate::machine::Machine;
use crate::repetition::{Beside, Measured, repeat};
use crate::report::{Point, Report};
use crate::settings::Settings;

const SOURCE: Source = Source {
    name: "chain.c",
    text: include_str!("../../functions/chain.c"),
};

/// Options of `pheromone bench chain`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Hops of one session
    #[arg(long, value_name = "N", default_value_t = 10_000,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(STEPS_MAX)))]
    pub length: u32,
    /// Sessions measured in each repetition, one after the other
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub sessions: u32,
    /// Sessions before them that are not counted
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub warm_up: u32,
    /// Executor processes
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub executors: u16,
    /// What all scenarios have.
    #[command(flatten)]
    pub settings: Settings,
}

/// Runs the scenario.
///
/// # Errors
/// Whatever kept it from being measured.
pub fn run(options: &Options, directory: &Path) -> Result<Report> {
    let settings = &options.settings;
    let plan = settings.plan()?;
    let machine = Machine::here();
    let bench = build(&machine, directory, options.executors)?;
    let repetitions = repeat(
        "chain",
        settings.repetitions,
        Beside::Cores(plan.cores),
        || {
            let bed = bench.start(settings)?;
            let measured = measure(&bed, options)?;
            bed.stop()?;
            Ok(measured)
        },
    )?;
    let mut rows = plan.rows(settings);
    rows.push(("executors".into(), options.executors.to_string()));
    rows.push((
        "sessions per repetition".into(),
        options.sessions.to_string(),
    ));
    rows.push(("hops per session".into(), options.length.to_string()));
    let mut report = Report::new(
        "chain",
        machine,
        "a hop is from the start of one function to the start of the next, with all that is \
         between: creating and sending the object (16 bytes), its way through the scheduler, the \
         function's return, the next dispatch"
            .into(),
        format!(
            "{} sessions of each repetition, not counted",
            options.warm_up
        ),
        rows,
    );
    let text = options.length.to_string();
    report.points = vec![Point::new(
        "length",
        u64::from(options.length),
        text,
        &repetitions,
    )];
    Ok(report)
}

/// Builds the app.
pub(super) fn build(machine: &Machine, directory: &Path, executors: u16) -> Result<Bench> {
    Bench::build(machine, directory, SOURCE, &manifest(executors))
}

fn manifest(executors: u16) -> String {
    format!(
        r#"
[app]
name = "bench-chain"
entry = "hop"
source = ["chain.c"]
cflags = CFLAGS
memory = "256MiB"
executors = {{ min = {executors}, max = {executors} }}

[functions.hop]
next = ["hop"]
calls = ["collect"]

[functions.collect]
"#
    )
}

/// Hops, whole chains and calls of one repetition.
pub(super) fn measure(bed: &Bed, options: &Options) -> Result<Measured> {
    let (mut hops, mut chains, mut calls) = (
        Distribution::new(),
        Distribution::new(),
        Distribution::new(),
    );
    for run in 1..=options.warm_up + options.sessions {
        let answer = bed.call(log::order(run, options.length))?;
        let mut log = Log::new(run, options.length);
        log.add(&answer.body)?;
        let steps = log.complete(bed)?;
        if run <= options.warm_up {
            continue;
        }
        for pair in steps.windows(2) {
            hops.record_ns(between_ns(pair[0].start_ns, pair[1].start_ns));
        }
        if let [first, .., last] = &steps[..] {
            chains.record_ns(between_ns(first.start_ns, last.start_ns));
        }
        calls.record_ns(u64::try_from(answer.took.as_nanos())?);
    }
    let series = vec![
        ("hop".into(), hops),
        (format!("whole chain of {}", options.length), chains),
        ("call to response".into(), calls),
    ];
    Ok(Measured {
        series,
        ..Measured::default()
    })
}
