//! `start`: from a request to the first instruction of its function, where a process has to be
//! started for it and where one is there.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::bare::Bare;
use crate::bed::{Answer, Bed, Bench, Source};
use crate::histogram::Distribution;
use crate::machine::Machine;
use crate::repetition::{Beside, Measured, repeat};
use crate::report::{Point, Report};
use crate::settings::{IdleChoice, Settings};

const SOURCE: Source = Source {
    name: "start.c",
    text: include_str!("../../functions/start.c"),
};

/// Most starts in a repetition: all their processes are alive at its end.
const STARTS_MAX: i64 = 1000;
/// 64-bit words of an answer: three marks of two clocks each.
const MARK_WORDS: usize = 6;

/// Options of `pheromone bench start`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Cold starts in each repetition; the processes stay until its end
    #[arg(long, value_name = "N", default_value_t = 30,
          value_parser = clap::value_parser!(u16).range(1..=STARTS_MAX))]
    pub starts: u16,
    /// Calls in each repetition for which a process is there
    #[arg(long, value_name = "N", default_value_t = 300,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub warm: u32,
    /// What all scenarios have.
    #[command(flatten)]
    pub settings: Settings,
}

/// Runs the scenario.
///
/// # Errors
/// Whatever kept it from being measured.
pub fn run(options: &Options, directory: &Path) -> Result<Report> {
    let settings = options.settings.with_idle(IdleChoice::Adaptive);
    let plan = settings.plan()?;
    let machine = Machine::here();
    let bare = Bare::build(&machine, directory)?;
    let bench = Bench::build(&machine, directory, SOURCE, &manifest(options.starts))?;
    let library = bench.library().context("the app has no library")?;
    let repetitions = repeat("start", settings.repetitions, Beside::Nothing, || {
        let forks = bare.forks(&settings, u32::from(options.starts))?;
        let loads = bare.loads(&settings, u32::from(options.starts), library)?;
        let bed = bench.start(&settings)?;
        let mut measured = measure(&bed, options)?;
        bed.stop()?;
        measured.floors = vec![("bare fork", forks), ("bare dlopen", loads)];
        Ok(measured)
    })?;
    let mut rows = plan.rows(&settings);
    rows.push((
        "cold starts per repetition".into(),
        options.starts.to_string(),
    ));
    rows.push((
        "warm starts per repetition".into(),
        options.warm.to_string(),
    ));
    let mut report = Report::new(
        "start",
        machine,
        "a cold start is from a request, made in the node's process while every executor is busy, \
         to its function's first instruction in a process that was forked for it; a warm start is \
         the same where an executor is idle. Processor time is what the new process has used since \
         its fork: until its library was loaded, and until its function was called"
            .into(),
        "the app's first process, and its calls".into(),
        rows,
    )
    .with_own_floor(
        "fork to the child's first instruction, and dlopen of the same library, by an executor's \
         process, before each repetition",
    );
    let text = options.starts.to_string();
    let starts = u64::from(options.starts);
    report.points = vec![Point::new("starts", starts, text, &repetitions)];
    Ok(report)
}

/// With one process from the beginning, and room for one more than there will be cold starts.
fn manifest(starts: u16) -> String {
    let executors = u32::from(starts) + 1;
    format!(
        r#"
[app]
name = "bench-start"
entry = "starts"
source = ["start.c"]
cflags = CFLAGS
executors = {{ min = 1, max = {executors} }}

[functions.starts]
[functions.collect]
"#
    )
}

/// An `order` of `start.c`.
fn order(holds: bool) -> Vec<u8> {
    u64::from(holds).to_le_bytes().to_vec()
}

fn measure(bed: &Bed, options: &Options) -> Result<Measured> {
    let mut times = Times::default();
    // The app's first process was there before anybody called: it is no cold start of a request's.
    let mut held = vec![bed.hold(order(true))?.1];
    for _ in 0..options.starts {
        let (answer, session) = bed.hold(order(true))?;
        times.add_cold(&answer)?;
        held.push(session);
    }
    for session in held {
        session.release()?;
    }
    for _ in 0..options.warm {
        times.add_warm(&bed.call(order(false))?)?;
    }
    Ok(Measured {
        series: vec![
            ("cold start".into(), times.cold),
            ("library loaded to called".into(), times.loaded_to_called),
            (
                "processor time until loaded".into(),
                times.used_until_loaded,
            ),
            (
                "processor time until called".into(),
                times.used_until_called,
            ),
            ("warm start".into(), times.warm),
        ],
        ..Measured::default()
    })
}

#[derive(Debug, Default)]
struct Times {
    cold: Distribution,
    loaded_to_called: Distribution,
    used_until_loaded: Distribution,
    used_until_called: Distribution,
    warm: Distribution,
}

impl Times {
    fn add_cold(&mut self, answer: &Answer) -> Result<()> {
        let marks = Marks::read(&answer.body)?;
        ensure!(
            marks.first == marks.now && marks.loaded.at_ns >= answer.began_ns,
            "a call was to have a process of its own, and got one that was there; has somebody \
             else started processes of this app?"
        );
        self.cold.record_ns(marks.now.at_ns - answer.began_ns);
        self.loaded_to_called
            .record_ns(marks.now.at_ns.saturating_sub(marks.loaded.at_ns));
        self.used_until_loaded.record_ns(marks.loaded.used_ns);
        self.used_until_called.record_ns(marks.now.used_ns);
        Ok(())
    }

    fn add_warm(&mut self, answer: &Answer) -> Result<()> {
        let marks = Marks::read(&answer.body)?;
        let began_ns = answer.began_ns;
        self.warm
            .record_ns(marks.now.at_ns.saturating_sub(began_ns));
        Ok(())
    }
}

/// Where a process was at one moment: a `mark` of `start.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    at_ns: u64,
    used_ns: u64,
}

/// An answer: `marks` of `start.c`.
#[derive(Debug)]
struct Marks {
    loaded: Mark,
    first: Mark,
    now: Mark,
}

impl Marks {
    fn read(answer: &[u8]) -> Result<Self> {
        let (words, rest) = answer.as_chunks::<8>();
        ensure!(
            words.len() == MARK_WORDS && rest.is_empty(),
            "an answer of {} bytes is no marks",
            answer.len()
        );
        let mark = |at: usize| Mark {
            at_ns: u64::from_le_bytes(words[at]),
            used_ns: u64::from_le_bytes(words[at + 1]),
        };
        Ok(Self {
            loaded: mark(0),
            first: mark(2),
            now: mark(4),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(words: [u64; 6]) -> Answer {
        Answer {
            body: words.iter().flat_map(|word| word.to_le_bytes()).collect(),
            took: std::time::Duration::ZERO,
            began_ns: 1000,
        }
    }

    #[test]
    fn a_cold_start_is_in_a_process_that_the_request_started() {
        let mut times = Times::default();
        times
            .add_cold(&answer([1500, 90, 1700, 120, 1700, 120]))
            .unwrap();
        assert_eq!(times.cold.at(0.5), 700);
        assert_eq!(times.loaded_to_called.at(0.5), 200);
        assert_eq!(times.used_until_loaded.at(0.5), 90);
        assert_eq!(times.used_until_called.at(0.5), 120);
        let called_before = answer([1500, 90, 1600, 100, 1700, 120]);
        assert!(times.add_cold(&called_before).is_err());
        let there_before = answer([900, 90, 1700, 120, 1700, 120]);
        assert!(times.add_cold(&there_before).is_err());
    }

    #[test]
    fn what_is_no_marks_is_refused() {
        assert!(Marks::read(&[0; 47]).is_err());
        assert!(Marks::read(&[0; 56]).is_err());
    }
}
