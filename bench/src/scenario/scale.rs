//! `scale`: what an interaction costs among many open sessions, and beside many executors.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::bed::{Bed, Bench, Source};
use crate::histogram::Distribution;
use crate::log::{Log, STEPS_MAX, between_ns};
use crate::machine::Machine;
use crate::parts::Parts;
use crate::repetition::{Beside, Measured, repeat};
use crate::report::{Point, Report, Scalar, Unit};
use crate::settings::{Plan, Settings};
use crate::size::{Size, available_bytes};

const SOURCE: Source = Source {
    name: "scale.c",
    text: include_str!("../../functions/scale.c"),
};

/// What is measured where nobody says: each alone with as little as can be of the other.
const USUAL: [Crowd; 5] = [
    Crowd::of(1, 1),
    Crowd::of(1000, 1),
    Crowd::of(1_000_000, 1),
    Crowd::of(1, 64),
    Crowd::of(1, 1024),
];
/// Most sessions: what a scheduler numbers, less some.
const SESSIONS_MAX: i64 = 16_000_000;
/// Memory of the machine for one open session, by all processes, and then some (measured: 2.2 KiB).
const SESSION_BYTES: u64 = 4 << 10;
/// And for one executor: its own, and its rings (measured: 1.6 MiB).
const EXECUTOR_BYTES: u64 = 4 << 20;
/// Of an app's memory for one session: what is charged for it, and for its object.
const SESSION_CHARGE_BYTES: u64 = 2 << 10;
/// Between two interactions, so that the harness takes no part in the first.
const PAUSE: Duration = Duration::from_micros(300);
/// Interactions that are under way at the same time, where many are.
const CROWD: u32 = 64;
/// How often so many are measured in each repetition.
const CROWDS: u32 = 30;
/// Until they are over: `HOLD_NS` of `scale.c`, and then some.
const CROWD_TAKES: Duration = Duration::from_millis(55);
/// Of an app beside its sessions: the log that it answers with.
const MEMORY_BESIDE: u64 = 256 << 20;

/// Options of `pheromone bench scale`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Open sessions [default: 1, 1 000 and 1 000 000 with one executor]
    #[arg(long, value_name = "N", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..=SESSIONS_MAX))]
    pub sessions: Vec<u32>,
    /// Executor processes, with each number of sessions [default: 1, 64 and 1024 with one session]
    #[arg(long, value_name = "N", value_delimiter = ',',
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub executors: Vec<u16>,
    /// Interactions measured in each repetition, each in a session drawn at random
    #[arg(long, value_name = "N", default_value_t = 5000,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(STEPS_MAX) / 4))]
    pub interactions: u32,
    /// Interactions before them that are not counted
    #[arg(long, value_name = "N", default_value_t = 500,
          value_parser = clap::value_parser!(u32).range(0..=i64::from(STEPS_MAX) / 4))]
    pub warm_up: u32,
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
    let crowds = crowds(options, available_bytes())?;
    let mut rows = plan.rows(&options.settings);
    rows.push((
        "interactions per repetition".into(),
        options.interactions.to_string(),
    ));
    let mut report = Report::new(
        "scale",
        machine.clone(),
        "so many sessions are open, each with an object in a trigger that lingers, and so many \
         executors registered. An interaction is in one of the sessions, drawn evenly at random: \
         the first hop is from just before a put into that session, from outside, to the start of \
         the function that it fires (so the way into the node is in it); the next hop is from \
             just before that one sends, 100 us later, to the start of the function after it. Of 64 at \
             a time, each in a session drawn at random, a hop is what one of two for each takes of the \
             time of all. \
             Private memory is what each process has \
         grown by while the sessions were opened"
            .into(),
        format!(
            "{} interactions of each repetition, not counted",
            options.warm_up
        ),
        rows,
    );
    for crowd in crowds {
        let bench = Bench::build(&machine, directory, SOURCE, &crowd.manifest())?;
        let point = measure_crowd(&bench, crowd, options, &plan)?;
        report.points.push(point);
    }
    Ok(report)
}

/// What is there beside an interaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Crowd {
    sessions: u32,
    executors: u16,
}

impl Crowd {
    const fn of(sessions: u32, executors: u16) -> Self {
        Self {
            sessions,
            executors,
        }
    }

    fn needed_bytes(self) -> u64 {
        MEMORY_BESIDE
            + u64::from(self.sessions) * SESSION_BYTES
            + u64::from(self.executors) * EXECUTOR_BYTES
    }

    fn text(self) -> String {
        let plural = |number: u32, of: &str| match number {
            1 => format!("1 {of}"),
            _ => format!("{number} {of}s"),
        };
        let executors = u32::from(self.executors);
        format!(
            "{}, {}",
            plural(self.sessions, "session"),
            plural(executors, "executor")
        )
    }

    fn manifest(self) -> String {
        let Self {
            sessions,
            executors,
        } = self;
        let memory = 2 * MEMORY_BESIDE + u64::from(sessions) * SESSION_CHARGE_BYTES;
        // Those that `collect` opens come on top.
        let sessions_max = sessions + 1024;
        format!(
            r#"
[app]
name = "bench-scale"
entry = "works"
source = ["scale.c"]
cflags = CFLAGS
memory = {memory}
executors = {{ min = {executors}, max = {executors} }}

[app.limits]
sessions = {sessions_max}
objects = {objects_max}

[functions.works]
next = ["works_on"]

[functions.joins]
next = ["works_on"]

[functions.works_on]
[functions.holds]
[functions.lingers]
[functions.collect]

[buckets.idle]
[[buckets.idle.triggers]]
type = "by_batch_size"
scope = "session"
count = 2
linger = "24h"
function = "lingers"

[buckets.work]
keep = "until_consumed"
[[buckets.work.triggers]]
type = "immediate"
function = "works"

[buckets.crowd]
keep = "until_consumed"
[[buckets.crowd.triggers]]
type = "immediate"
function = "joins"

[buckets.hold]
keep = "until_consumed"
[[buckets.hold.triggers]]
type = "immediate"
function = "holds"
"#,
            objects_max = 4 * u64::from(sessions_max),
        )
    }
}

/// What to measure: what is asked for, or what is usual as far as memory goes.
fn crowds(options: &Options, available: u64) -> Result<Vec<Crowd>> {
    let fits = |crowd: &Crowd| crowd.needed_bytes() <= available;
    if options.sessions.is_empty() && options.executors.is_empty() {
        let (fitting, left_out): (Vec<Crowd>, Vec<Crowd>) = USUAL.iter().partition(|c| fits(c));
        for crowd in left_out {
            eprintln!("left out: {}", crowd.want_of_memory(available));
        }
        return Ok(fitting);
    }
    let or_one = |empty: bool| if empty { &[1][..] } else { &[] };
    let sessions = [&options.sessions[..], or_one(options.sessions.is_empty())].concat();
    let executors = match &options.executors[..] {
        [] => &[1][..],
        asked => asked,
    };
    let mut crowds = Vec::new();
    for &sessions in &sessions {
        for &executors in executors {
            let crowd = Crowd::of(sessions, executors);
            ensure!(fits(&crowd), "{}", crowd.want_of_memory(available));
            crowds.push(crowd);
        }
    }
    Ok(crowds)
}

impl Crowd {
    fn want_of_memory(self, available: u64) -> String {
        format!(
            "{} need some {} of memory, and {} are available",
            self.text(),
            Size(self.needed_bytes()),
            Size(available)
        )
    }
}

fn measure_crowd(bench: &Bench, crowd: Crowd, options: &Options, plan: &Plan) -> Result<Point> {
    let settings = &options.settings;
    let beside = Beside::Cores(plan.cores);
    let repetitions = repeat(&crowd.text(), settings.repetitions, beside, || {
        let bed = bench.start(settings)?;
        let measured = measure(&bed, crowd, options)?;
        bed.stop()?;
        Ok(measured)
    })?;
    let value = u64::from(crowd.sessions);
    Ok(Point::new("beside", value, crowd.text(), &repetitions))
}

/// What is put into a session: a `step` of `stamps.h`.
fn order(run: u32, index: u32, length: u32) -> Vec<u8> {
    [run, index, length, 0]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

fn measure(bed: &Bed, crowd: Crowd, options: &Options) -> Result<Measured> {
    const RUN: u32 = 1;
    let before = Parts::private_bytes();
    let sessions = bed.open_sessions("idle", crowd.sessions)?;
    let opened = Parts::private_bytes();
    let count = options.warm_up + options.interactions;
    let length = 2 * count - 1;
    let mut random = Random::new(u64::from(crowd.sessions));
    let mut put_ns = Vec::with_capacity(count as usize);
    for number in 0..count {
        let session = sessions[random.below(sessions.len())];
        put_ns.push(bed.put_into(session, "work", order(RUN, 2 * number, length))?);
        std::thread::sleep(PAUSE);
    }
    let steps = Log::new(RUN, length).complete(bed)?;
    let (mut first, mut next) = (Distribution::new(), Distribution::new());
    let counted = put_ns.iter().zip(steps.chunks(2));
    for (&put_ns, pair) in counted.skip(options.warm_up as usize) {
        first.record_ns(between_ns(put_ns as f64, pair[0].start_ns));
        next.record_ns(between_ns(pair[0].send_ns, pair[1].start_ns));
    }
    let mut series = vec![("next hop".into(), next), ("first hop".into(), first)];
    if crowd.executors == 1 {
        let crowded = measure_crowded(bed, &sessions, &mut random)?;
        series.push((format!("hop, {CROWD} at a time"), crowded));
    }
    let growth = |name, before: u64, after: u64| Scalar {
        name,
        unit: Unit::Bytes,
        value: after as f64 - before as f64,
    };
    Ok(Measured {
        series,
        scalars: vec![
            growth("node +private", before.node, opened.node),
            growth("scheduler +private", before.scheduler, opened.scheduler),
        ],
        ..Measured::default()
    })
}

/// Interactions in many sessions at the same time: what a hop takes of the time of all. They wait
/// behind a function that keeps the one executor until all are there; where it did not, they are
/// not counted.
fn measure_crowded(bed: &Bed, sessions: &[u64], random: &mut Random) -> Result<Distribution> {
    // Entry 0 is the function that holds; then there are two for each interaction.
    const LENGTH: u32 = 2 * CROWD;
    let mut hops = Distribution::new();
    for run in 2..2 + CROWDS {
        let mut put = |bucket, index| {
            let session = sessions[random.below(sessions.len())];
            let order = [run, index, LENGTH, CROWD];
            let order = order.iter().flat_map(|word| word.to_le_bytes());
            bed.put_into(session, bucket, order.collect())
        };
        put("hold", 0)?;
        let mut last_put_ns = 0;
        for index in 1..=CROWD {
            last_put_ns = put("crowd", index)?;
        }
        std::thread::sleep(CROWD_TAKES);
        let steps = Log::new(run, LENGTH).complete(bed)?;
        let held_until_ns = steps[0].start_ns;
        let over_ns = steps[1..].iter().map(|step| step.start_ns);
        let over_ns = over_ns.fold(held_until_ns, f64::max);
        if held_until_ns > last_put_ns as f64 {
            hops.record_ns(between_ns(held_until_ns, over_ns) / u64::from(LENGTH));
        }
    }
    Ok(hops)
}

/// Numbers that look drawn at random, the same in each repetition: splitmix64
/// (<https://prng.di.unimi.it/splitmix64.c>).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Evenly, as far as 64 bits are divided evenly.
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }
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
    fn the_usual_crowds_are_those_that_fit() {
        let all = crowds(&options(&[]), u64::MAX).unwrap();
        assert_eq!(all, USUAL);
        let few = crowds(&options(&[]), 1 << 30).unwrap();
        assert_eq!(few, [USUAL[0], USUAL[1], USUAL[3]]);
    }

    #[test]
    fn a_crowd_asked_for_is_measured_or_refused() {
        let asked = options(&["--sessions", "10,20", "--executors", "1,3"]);
        let expected = [
            Crowd::of(10, 1),
            Crowd::of(10, 3),
            Crowd::of(20, 1),
            Crowd::of(20, 3),
        ];
        assert_eq!(crowds(&asked, u64::MAX).unwrap(), expected);
        let many = options(&["--sessions", "1000000"]);
        let error = crowds(&many, 1 << 30).unwrap_err().to_string();
        assert!(
            error.contains("1000000 sessions, 1 executor need some"),
            "{error}"
        );
    }

    #[test]
    fn sessions_are_drawn_from_all_of_them() {
        let mut random = Random::new(7);
        let mut drawn = [0_u32; 10];
        (0..10_000).for_each(|_| drawn[random.below(10)] += 1);
        assert!(
            drawn.iter().all(|&times| (800..1200).contains(&times)),
            "{drawn:?}"
        );
        assert_eq!(random.below(1), 0);
    }
}
