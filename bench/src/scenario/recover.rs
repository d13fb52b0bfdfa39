//! `recover`: from the death of an executor to the next attempt of what it was running.

use std::fmt;
use std::path::Path;

use anyhow::{Result, anyhow};
use clap::ValueEnum;

use crate::bare::Bare;
use crate::bed::{Bed, Bench, Source};
use crate::histogram::Distribution;
use crate::machine::Machine;
use crate::repetition::{Beside, Measured, repeat};
use crate::report::{Point, Report};
use crate::settings::{IdleChoice, Settings};

const SOURCE: Source = Source {
    name: "recover.c",
    text: include_str!("../../functions/recover.c"),
};

/// Executors where nobody says how many: with one, a new process must be started; of two, the other
/// is there.
const EXECUTORS: [u16; 2] = [1, 2];

/// Options of `pheromone bench recover`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// How the process dies [default: both]
    #[arg(long, value_name = "DEATH", value_enum, value_delimiter = ',')]
    pub death: Vec<Death>,
    /// Executor processes: with 1 the next attempt waits for a new one; several numbers are several
    /// measurements [default: 1 and 2]
    #[arg(long, value_name = "N", value_delimiter = ',',
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub executors: Vec<u16>,
    /// Deaths measured in each repetition
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub deaths: u32,
    /// Deaths before them that are not counted
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub warm_up: u32,
    /// What all scenarios have.
    #[command(flatten)]
    pub settings: Settings,
}

/// What ends a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Death {
    /// abort() in the function
    Abort,
    /// SIGKILL, as by `kill -9` or for want of memory
    Kill,
}

impl Death {
    fn signal(self) -> u32 {
        let signal = match self {
            Self::Abort => rustix::process::Signal::ABORT,
            Self::Kill => rustix::process::Signal::KILL,
        };
        signal.as_raw().unsigned_abs()
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Abort => "abort",
            Self::Kill => "kill -9",
        })
    }
}

/// Runs the scenario.
///
/// # Errors
/// Whatever kept it from being measured.
pub fn run(options: &Options, directory: &Path) -> Result<Report> {
    let settings = options.settings.with_idle(IdleChoice::Adaptive);
    let plan = settings.plan()?;
    let machine = Machine::here();
    let mut rows = plan.rows(&settings);
    rows.push(("deaths per repetition".into(), options.deaths.to_string()));
    let mut report = Report::new(
        "recover",
        machine.clone(),
        "a recovery is from just before a function's process dies to the first instruction of the \
         second attempt: the node hears of the death, the scheduler takes back what the process \
         had, and another process runs the function, which with one executor is forked, shut in \
         and loads the library first. There is no pause between the attempts (backoff = \"0s\")"
            .into(),
        format!("{} deaths of each repetition, not counted", options.warm_up),
        rows,
    )
    .with_own_floor(
        "from just before a bare child's death by the same signal to the first instruction of \
         another, forked as soon as waitpid has told of it, by an executor's process",
    );
    let bare = Bare::build(&machine, directory)?;
    let deaths = match &options.death[..] {
        [] => Death::value_variants(),
        asked => asked,
    };
    let executors = match &options.executors[..] {
        [] => &EXECUTORS[..],
        asked => asked,
    };
    for &executors in executors {
        let bench = Bench::build(&machine, directory, SOURCE, &manifest(executors))?;
        for &death in deaths {
            let text = match executors {
                1 => format!("{death}, 1 executor"),
                _ => format!("{death}, {executors} executors"),
            };
            let repetitions = repeat(&text, settings.repetitions, Beside::Nothing, || {
                let floor = bare.recoveries(&settings, options.deaths, death.signal())?;
                let bed = bench.start(&settings)?;
                let recoveries = measure(&bed, death, options)?;
                bed.stop()?;
                Ok(Measured {
                    series: vec![("recovery".into(), recoveries)],
                    floors: vec![("bare death, waitpid, fork", floor)],
                    ..Measured::default()
                })
            })?;
            let value = u64::from(executors);
            report
                .points
                .push(Point::new("death", value, text, &repetitions));
        }
    }
    Ok(report)
}

fn manifest(executors: u16) -> String {
    format!(
        r#"
[app]
name = "bench-recover"
entry = "crashes"
source = ["recover.c"]
cflags = CFLAGS
executors = {{ min = {executors}, max = {executors} }}

[functions.crashes]
attempts = 2
backoff = "0s"
sends = ["stamps"]

[functions.collect]

[buckets.stamps]
"#
    )
}

fn measure(bed: &Bed, death: Death, options: &Options) -> Result<Distribution> {
    let order = u64::from(death.signal()).to_le_bytes();
    let mut recoveries = Distribution::new();
    for number in 0..options.warm_up + options.deaths {
        let answer = bed.call(order.to_vec())?;
        let took: [u8; 8] = answer
            .body
            .try_into()
            .map_err(|_| anyhow!("an answer is no time"))?;
        if number >= options.warm_up {
            recoveries.record_ns(u64::from_le_bytes(took));
        }
    }
    Ok(recoveries)
}
