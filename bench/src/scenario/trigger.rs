//! `trigger`: one object through each type of trigger, alone on its bucket and among many others.

use std::fmt::{self, Write};
use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;

use crate::bed::{Bed, Bench, Source};
use crate::histogram::Distribution;
use crate::log::interval_ns;
use crate::machine::Machine;
use crate::repetition::{Beside, Measured, repeat};
use crate::report::{Point, Report};
use crate::settings::{Plan, Settings};

const SOURCE: Source = Source {
    name: "trigger.c",
    text: include_str!("../../functions/trigger.c"),
};

/// Triggers on the bucket where nobody says how many.
const TRIGGERS: [u32; 3] = [1, 100, 10_000];
/// Most that an app may have; 0xffff means none.
const TRIGGERS_MAX: i64 = 0xffff;
/// Most objects of one firing: `OBJECTS_MAX` of `trigger.c`.
const OBJECTS_MAX: i64 = 64;
/// Hops before the measured firing, in its session.
const LEADS: u32 = 16;
/// Long enough for an adaptive node to be asleep at a window's end.
const WINDOW: &str = "1ms";

/// Options of `pheromone bench trigger`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Types of trigger [default: all]
    #[arg(long = "type", value_name = "TYPE", value_enum, value_delimiter = ',')]
    pub types: Vec<Type>,
    /// Triggers on the bucket, of which the object concerns one [default: 1, 100 and 10000]
    #[arg(long, value_name = "N", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..=TRIGGERS_MAX))]
    pub triggers: Vec<u32>,
    /// Objects that a gathering trigger fires with; the last of them is the measured one
    #[arg(long, value_name = "N", default_value_t = 8,
          value_parser = clap::value_parser!(u32).range(1..=OBJECTS_MAX))]
    pub objects: u32,
    /// Firings measured in each repetition, a session each
    #[arg(long, value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub firings: u32,
    /// Firings before them that are not counted
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub warm_up: u32,
    /// Executor processes
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub executors: u16,
    /// What all scenarios have.
    #[command(flatten)]
    pub settings: Settings,
}

/// A type of trigger, as a manifest names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Type {
    /// For each object
    Immediate,
    /// For each object of one key; the others on the bucket want other keys
    ByName,
    /// When all keys are there; the others on the bucket want other keys
    BySet,
    /// For every so many objects
    ByBatchSize,
    /// At a window's end, from which the time counts
    ByTime,
    /// On the last of as many objects
    Redundant,
    /// When all keys told at run time are there
    DynamicJoin,
    /// When its source has returned
    DynamicGroup,
}

impl Type {
    /// Fires with a single object, whatever is asked for.
    fn is_single(self) -> bool {
        matches!(self, Self::Immediate | Self::ByName | Self::ByTime)
    }

    fn function(self) -> &'static str {
        match self {
            Self::ByTime => "starts_after_window",
            _ => "starts",
        }
    }

    /// The fields of the measured trigger.
    fn fields(self, objects: u32) -> String {
        match self {
            Self::Immediate | Self::DynamicJoin => String::new(),
            Self::ByName => "key = \"key-0\"".into(),
            Self::BySet => format!("keys = [\"key-{{0..{}}}\"]", objects - 1),
            Self::ByBatchSize => format!("scope = \"session\"\ncount = {objects}"),
            Self::ByTime => format!("scope = \"session\"\nwindow = \"{WINDOW}\""),
            Self::Redundant => format!("k = {objects}\nn = {objects}"),
            Self::DynamicGroup => "after = \"sends\"".into(),
        }
    }

    /// Type and fields of the other triggers on the bucket, of which this is one.
    fn other(self, number: u32) -> String {
        match self {
            Self::BySet => format!("type = \"by_set\"\nkeys = [\"other-{number}-{{0..7}}\"]"),
            _ => format!("type = \"by_name\"\nkey = \"other-{number}\""),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.pad(value.as_ref().map_or("", |value| value.get_name()))
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
    rows.push(("executors".into(), options.executors.to_string()));
    rows.push(("firings per repetition".into(), options.firings.to_string()));
    rows.push(("objects of a firing".into(), options.objects.to_string()));
    let mut report = Report::new(
        "trigger",
        machine.clone(),
        format!(
            "a firing is from just before phr_send of the object that completes what the trigger \
             gathers to the start of the function that it fires; of by_time, from the end of a \
             window of {WINDOW}. The other triggers on the bucket are sets of other keys beside a \
             by_set, and beside all other types by_name triggers of other keys. Each firing is in \
             a session of its own, after {LEADS} hops"
        ),
        format!(
            "{} firings of each repetition, not counted",
            options.warm_up
        ),
        rows,
    );
    let types = match &options.types[..] {
        [] => Type::value_variants(),
        asked => asked,
    };
    let counts = match &options.triggers[..] {
        [] => &TRIGGERS[..],
        asked => asked,
    };
    for &kind in types {
        for &triggers in counts {
            let manifest = manifest(kind, triggers, options);
            let bench = Bench::build(&machine, directory, SOURCE, &manifest)?;
            report
                .points
                .push(measure_type(&bench, kind, triggers, options, &plan)?);
        }
    }
    Ok(report)
}

fn measure_type(
    bench: &Bench,
    kind: Type,
    triggers: u32,
    options: &Options,
    plan: &Plan,
) -> Result<Point> {
    let settings = &options.settings;
    let text = match triggers {
        1 => format!("{kind} alone"),
        _ => format!("{kind} among {triggers}"),
    };
    let repetitions = repeat(
        &text,
        settings.repetitions,
        Beside::Cores(plan.cores),
        || {
            let bed = bench.start(settings)?;
            let measured = measure(&bed, kind, options)?;
            bed.stop()?;
            Ok(measured)
        },
    )?;
    Ok(Point::new(
        "trigger",
        u64::from(triggers),
        text,
        &repetitions,
    ))
}

fn manifest(kind: Type, triggers: u32, options: &Options) -> String {
    let Options {
        executors, objects, ..
    } = options;
    let (function, fields) = (kind.function(), kind.fields(*objects));
    let mut text = format!(
        r#"
[app]
name = "bench-trigger"
entry = "sends"
source = ["trigger.c"]
cflags = CFLAGS
memory = "256MiB"
executors = {{ min = {executors}, max = {executors} }}

[functions.sends]
next = ["sends"]
sends = ["objects"]

[functions.{function}]
sends = []

[[buckets.objects.triggers]]
name = "measured"
type = "{kind}"
function = "{function}"
{fields}
"#
    );
    for number in 1..triggers {
        let other = kind.other(number);
        // Writing into a string cannot fail.
        let _ = write!(
            text,
            "\n[[buckets.objects.triggers]]\n{other}\nfunction = \"{function}\"\n"
        );
    }
    text
}

/// What the function `sends` is told: an `order` of `trigger.c`.
fn order(kind: Type, objects: u32) -> Vec<u8> {
    let objects = if kind.is_single() { 1 } else { objects };
    let joins = u32::from(kind == Type::DynamicJoin);
    [LEADS, objects, joins, 0]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

fn measure(bed: &Bed, kind: Type, options: &Options) -> Result<Measured> {
    let mut firings = Distribution::new();
    for number in 0..options.warm_up + options.firings {
        let answer = bed.call(order(kind, options.objects))?;
        let interval_ns = interval_ns(&answer.body)?;
        if number >= options.warm_up {
            firings.record_ns(interval_ns);
        }
    }
    Ok(Measured {
        series: vec![("firing".into(), firings)],
        ..Measured::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_the_names_of_the_manifest() {
        let names: Vec<String> = Type::value_variants().iter().map(Type::to_string).collect();
        let expected = [
            "immediate",
            "by_name",
            "by_set",
            "by_batch_size",
            "by_time",
            "redundant",
            "dynamic_join",
            "dynamic_group",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn the_manifest_of_each_type_is_right_and_has_as_many_triggers_as_asked_for() {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            options: Options,
        }
        let options = <Cli as clap::Parser>::parse_from(["bench"]).options;
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("trigger.c"), SOURCE.text).unwrap();
        let path = directory.path().join("app.toml");
        for &kind in Type::value_variants() {
            let text = manifest(kind, 7, &options).replace("CFLAGS", "[]");
            std::fs::write(&path, text).unwrap();
            let app = pheromone_manifest::read(&path).unwrap_or_else(|problems| {
                panic!("{kind}: {problems}");
            });
            assert_eq!(app.spec.buckets[0].triggers.len(), 7);
        }
    }

    #[test]
    fn an_order_says_how_many_objects_fire_and_whether_they_are_joined() {
        let words = |kind| -> Vec<u8> { order(kind, 8) };
        let expected = |objects: u8, joins: u8| {
            let mut bytes = vec![0; 16];
            (bytes[0], bytes[4], bytes[8]) = (16, objects, joins);
            bytes
        };
        assert_eq!(words(Type::Immediate), expected(1, 0));
        assert_eq!(words(Type::BySet), expected(8, 0));
        assert_eq!(words(Type::DynamicJoin), expected(8, 1));
    }
}
