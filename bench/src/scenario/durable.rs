//! `durable`: objects that are on disk before their sender goes on, from one sender and from many.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use pheromone_node::To;

use crate::bed::{Bed, Bench, Source};
use crate::disk::{file_system, flushes};
use crate::histogram::Distribution;
use crate::log::{Log, STEPS_MAX, Step, between_ns, rate_per_second};
use crate::machine::Machine;
use crate::repetition::{Beside, Measured, repeat};
use crate::report::{Point, Report, Scalar, Unit};
use crate::settings::{IdleChoice, Settings};
use crate::size::Size;

const SOURCE: Source = Source {
    name: "durable.c",
    text: include_str!("../../functions/durable.c"),
};

/// Senders where nobody says how many.
const SENDERS: [u16; 3] = [1, 8, 64];
/// Largest payload: beyond it a disk's bandwidth is measured, and not its flush.
const SIZE_MAX: u64 = 64 << 20;
/// Of an app beside its objects: the answers of its senders.
const MEMORY_BESIDE: u64 = 256 << 20;
/// What a sender's memory holds, in payloads: that which is being written, and what is still on its
/// way back.
const PAYLOADS_EACH: u64 = 4;

/// Options of `pheromone bench durable`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Senders at the same time, an executor each; several are several measurements
    /// [default: 1, 8 and 64]
    #[arg(long, value_name = "N", value_delimiter = ',',
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub senders: Vec<u16>,
    /// Payload bytes of an object, at most 64MiB
    #[arg(long, value_name = "BYTES", default_value_t = Size(1024), value_parser = size)]
    pub size: Size,
    /// Objects that each sender sends and that are counted, in each repetition
    #[arg(long, value_name = "N", default_value_t = 200,
          value_parser = clap::value_parser!(u32).range(2..=i64::from(STEPS_MAX)))]
    pub sends: u32,
    /// Objects of each sender before them that are not counted
    #[arg(long, value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub warm_up: u32,
    /// Where the disk is: the journal lies in a temporary directory below this one
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub data: PathBuf,
    /// What all scenarios have.
    #[command(flatten)]
    pub settings: Settings,
}

fn size(text: &str) -> Result<Size, String> {
    let size: Size = text.parse()?;
    match size.0 {
        1..=SIZE_MAX => Ok(size),
        _ => Err(format!("a payload here has 1 byte to {}", Size(SIZE_MAX))),
    }
}

/// Runs the scenario. `remove_at_exit` hears of the directory that it makes.
///
/// # Errors
/// Whatever kept it from being measured.
pub fn run(options: &Options, directory: &Path, remove_at_exit: &dyn Fn(&Path)) -> Result<Report> {
    let settings = options.settings.with_idle(IdleChoice::Adaptive);
    let plan = settings.plan()?;
    let machine = Machine::here();
    let data = tempfile::Builder::new()
        .prefix(".pheromone-bench-")
        .tempdir_in(&options.data)
        .with_context(|| format!("a directory below {}", options.data.display()))?;
    remove_at_exit(data.path());
    let mut rows = plan.rows(&settings);
    rows.push(("payload".into(), options.size.to_string()));
    rows.push(("sends of each sender".into(), options.sends.to_string()));
    rows.push(("file system".into(), file_system(data.path())));
    let mut report = Report::new(
        "durable",
        machine.clone(),
        "a durable send is from just before phr_send_durable to its return, when the object is on \
         disk. Each sender is a function that sends one object after the other, in an executor of \
         its own, since phr_send_durable keeps its executor until the disk has answered. The rate \
         is counted while all senders send"
            .into(),
        format!("{} sends of each sender, not counted", options.warm_up),
        rows,
    )
    .with_own_floor(
        "pwrite of as many bytes and fdatasync in a loop, one file in the same directory, one \
         writer: half before each repetition and half after it",
    );
    let senders = match &options.senders[..] {
        [] => &SENDERS[..],
        asked => asked,
    };
    for &senders in senders {
        let bench = Bench::build(
            &machine,
            directory,
            SOURCE,
            &manifest(senders, options.size),
        )?;
        let what = format!("durable, {senders} senders");
        let repetitions = repeat(&what, settings.repetitions, Beside::Nothing, || {
            measure(&bench, &settings, senders, options, data.path())
        })?;
        let text = senders.to_string();
        let point = Point::new("senders", u64::from(senders), text, &repetitions);
        report.points.push(point);
    }
    Ok(report)
}

fn manifest(senders: u16, Size(size): Size) -> String {
    let memory = MEMORY_BESIDE + PAYLOADS_EACH * u64::from(senders) * size;
    format!(
        r#"
[app]
name = "bench-durable"
entry = "sends"
source = ["durable.c"]
cflags = CFLAGS
memory = {memory}
executors = {{ min = {senders}, max = {senders} }}

[app.limits]
object_size = "64MiB"

[functions.sends]
sends = ["kept"]

[functions.collect]

[buckets.kept]
keep = "until_consumed"
"#
    )
}

/// What the function `sends` is told: an `order` of `durable.c`.
fn order(run: u32, options: &Options) -> Vec<u8> {
    let mut bytes: Vec<u8> = [run, options.sends, options.warm_up, 0]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    bytes.extend_from_slice(&options.size.0.to_le_bytes());
    bytes
}

fn measure(
    bench: &Bench,
    settings: &Settings,
    senders: u16,
    options: &Options,
    directory: &Path,
) -> Result<Measured> {
    let size_bytes = usize::try_from(options.size.0)?;
    let halves = [options.sends / 2, options.sends - options.sends / 2];
    let mut bare = flushes(directory, size_bytes, halves[0])?;
    let data = directory.join("journal");
    let bed = bench.start_with(settings, |node| node.data = Some(data.clone()))?;
    let runs = send(&bed, senders, options)?;
    bed.stop()?;
    fs::remove_dir_all(&data).with_context(|| format!("{} stays behind", data.display()))?;
    bare.add(&flushes(directory, size_bytes, halves[1])?);
    let mut sends = Distribution::new();
    for step in runs.iter().flatten() {
        sends.record_ns(between_ns(step.start_ns, step.send_ns));
    }
    let rate = rate_per_second(&runs, |step| step.send_ns)
        .context("the senders did not send at the same time; ask for more --sends")?;
    let bare_rate = 1e9 / bare.figures().mean_ns;
    let scalar = |name, unit, value| Scalar { name, unit, value };
    Ok(Measured {
        series: vec![("durable send".into(), sends)],
        floors: vec![("bare fdatasync", bare)],
        scalars: vec![
            scalar("durable sends", Unit::PerSecond, rate),
            scalar("bare fdatasyncs", Unit::PerSecond, bare_rate),
            scalar("sends / fdatasyncs", Unit::Times, rate / bare_rate),
        ],
    })
}

/// The sends of each sender, in order; a step's `start_ns` is before the send, `send_ns` after it.
fn send(bed: &Bed, senders: u16, options: &Options) -> Result<Vec<Vec<Step>>> {
    let runs = 1..=u32::from(senders);
    let calls = runs.clone().map(|run| (To::Entry, order(run, options)));
    let answers = bed.call_all(calls.collect())?;
    runs.zip(answers)
        .map(|(run, answer)| {
            let mut log = Log::new(run, options.sends - 1);
            log.add(&answer.body)?;
            log.complete(bed)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_of_no_bytes_and_of_too_many_are_refused() {
        assert_eq!(size("1"), Ok(Size(1)));
        assert_eq!(size("64MiB"), Ok(Size(SIZE_MAX)));
        for bad in ["0", "65MiB", "much"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
