//! `call`: an external request in and its answer out, by each way into a node.

use std::fmt;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use pheromone_node::To;

use crate::bed::{Bed, Bench, Served, Source};
use crate::echo;
use crate::histogram::Distribution;
use crate::http::Client;
use crate::machine::Machine;
use crate::repetition::{Beside, Measured, repeat};
use crate::report::{Point, Report};
use crate::settings::{IdleChoice, Settings};
use crate::size::Size;

const SOURCE: Source = Source {
    name: "call.c",
    text: include_str!("../../functions/call.c"),
};

/// Largest body here.
const SIZE_MAX: u64 = 16 << 20;
/// Where the function is called over HTTP.
const PATH: &str = "/v1/apps/bench-call";

/// Options of `pheromone bench call`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Ways into the node [default: all]
    #[arg(long, value_name = "WAY", value_enum, value_delimiter = ',')]
    pub way: Vec<Way>,
    /// Bytes of the body, which is the answer's as well: 1 to 16MiB
    #[arg(long, value_name = "BYTES", default_value_t = Size(64), value_parser = size)]
    pub size: Size,
    /// Calls measured in each repetition, one after the other
    #[arg(long, value_name = "N", default_value_t = 2000,
          value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub calls: u32,
    /// Calls before them that are not counted
    #[arg(long, value_name = "N", default_value_t = 200,
          value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    pub warm_up: u32,
    /// Executor processes
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub executors: u16,
    /// What all scenarios have.
    #[command(flatten)]
    pub settings: Settings,
}

fn size(text: &str) -> Result<Size, String> {
    let size: Size = text.parse()?;
    match size.0 {
        1..=SIZE_MAX => Ok(size),
        _ => Err(format!("a body here has 1 byte to {}", Size(SIZE_MAX))),
    }
}

/// A way into a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// From the program that embeds the node
    InProcess,
    /// HTTP over a Unix socket
    Unix,
    /// HTTP over loopback
    Tcp,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::InProcess => "in process",
            Self::Unix => "HTTP, Unix socket",
            Self::Tcp => "HTTP, TCP",
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
    let bench = Bench::build(&machine, directory, SOURCE, &manifest(options.executors))?;
    let mut rows = plan.rows(&settings);
    rows.push(("executors".into(), options.executors.to_string()));
    rows.push(("body".into(), options.size.to_string()));
    rows.push(("calls per repetition".into(), options.calls.to_string()));
    let mut report = Report::new(
        "call",
        machine,
        "a call is from handing a request over to having its whole answer, which is the request's \
         body: in process, from Node::submit to a reply in the caller's thread; over HTTP, from \
         the write to the last read, on a connection that stays. One caller, one call at a time"
            .into(),
        format!("{} calls of each repetition, not counted", options.warm_up),
        rows,
    )
    .with_own_floor(
        "as many bytes to another thread of this process and back, over channels, a Unix socket or \
         loopback, without HTTP and without a node: before each repetition",
    );
    let ways = match &options.way[..] {
        [] => Way::value_variants(),
        asked => asked,
    };
    for &way in ways {
        let what = format!("call {way}");
        let repetitions = repeat(&what, settings.repetitions, Beside::Nothing, || {
            let floor = bare(way, options)?;
            let served = bench.start(&settings)?.serve(bench.directory())?;
            let calls = measure(&served, way, options)?;
            served.stop()?;
            Ok(Measured {
                series: vec![("call".into(), calls)],
                floors: vec![("bare echo", floor)],
                ..Measured::default()
            })
        })?;
        let (value, text) = (options.size.0, way.to_string());
        report
            .points
            .push(Point::new("way", value, text, &repetitions));
    }
    Ok(report)
}

fn manifest(executors: u16) -> String {
    format!(
        r#"
[app]
name = "bench-call"
entry = "answers"
source = ["call.c"]
cflags = CFLAGS
executors = {{ min = {executors}, max = {executors} }}

[functions.answers]
[functions.collect]
"#
    )
}

fn bare(way: Way, options: &Options) -> Result<Distribution> {
    let over = match way {
        Way::InProcess => echo::over_channels,
        Way::Unix => echo::over_unix,
        Way::Tcp => echo::over_tcp,
    };
    let size_bytes = usize::try_from(options.size.0)?;
    over(size_bytes, options.calls, options.warm_up).context("the bare echo could not be timed")
}

fn measure(served: &Served, way: Way, options: &Options) -> Result<Distribution> {
    let body = vec![0x5a; usize::try_from(options.size.0)?];
    let expect = |answer: &[u8]| -> Result<()> {
        ensure!(answer == body, "an answer is not what was sent");
        Ok(())
    };
    match way {
        Way::InProcess => in_process(served.bed(), &body, options),
        Way::Unix => {
            let stream = UnixStream::connect(served.socket())?;
            let mut client = Client::new(stream, "localhost");
            echo::timed(options.calls, options.warm_up, || {
                expect(&client.post(PATH, &body)?)
            })
        }
        Way::Tcp => {
            let stream = TcpStream::connect(served.address())?;
            stream.set_nodelay(true)?;
            let mut client = Client::new(stream, served.address().to_string());
            echo::timed(options.calls, options.warm_up, || {
                expect(&client.post(PATH, &body)?)
            })
        }
    }
}

/// Without the time from the answer to the end of the session, which over HTTP nobody waits for.
fn in_process(bed: &Bed, body: &[u8], options: &Options) -> Result<Distribution> {
    let mut times = Distribution::new();
    for number in 0..options.warm_up + options.calls {
        let began = Instant::now();
        let mut took = Duration::ZERO;
        let answer = bed.call_then(To::Entry, body.to_vec(), || {
            took = began.elapsed();
            Ok(())
        })?;
        ensure!(answer.body == body, "an answer is not what was sent");
        if number >= options.warm_up {
            times.record_ns(u64::try_from(took.as_nanos())?);
        }
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_no_bytes_and_of_too_many_are_refused() {
        assert_eq!(size("1"), Ok(Size(1)));
        for bad in ["0", "17MiB", "much"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
