//! Recorded reports as one table in Markdown. Times are medians over the repetitions; ratios and
//! rates have the smallest and the largest behind them.

use anyhow::{Result, ensure};

use crate::recorded::{Group, Point, Recorded, Scalar, Series};
use crate::report::{THREE_PARTY, Unit};
use crate::table::{P99_COUNT_MIN, factor, rate};

/// Load averages from which on the table says that others were at work.
const LOAD_QUIET_BELOW: f64 = 0.5;

const HEADER: &str = "\
| scenario | measured | p50 | p99 | floor in the same run | ratio to it | placement |
| --- | --- | ---: | ---: | --- | --- | --- |
";

/// Everything that is written of these reports, which were measured on that day.
///
/// # Errors
/// There are none, or of different machines.
pub fn render(reports: &[Recorded], date: &str) -> Result<String> {
    ensure!(
        !reports.is_empty(),
        "there is no run to make a table of: name the files that `--json` wrote"
    );
    let mut text = head(reports, date)?;
    text.push('\n');
    text.push_str(HEADER);
    for report in reports {
        for point in &report.points {
            rows_of(report, point)
                .into_iter()
                .for_each(|row| text.push_str(&row.line()));
        }
    }
    text.push('\n');
    text.push_str(&notes(reports));
    Ok(text)
}

/// When and where, in a paragraph.
fn head(reports: &[Recorded], date: &str) -> Result<String> {
    let first = &reports[0];
    let machine = &first.machine;
    for other in &reports[1..] {
        let of = &other.machine;
        ensure!(
            (&of.cpu_model, of.cpus, &of.kernel)
                == (&machine.cpu_model, machine.cpus, &machine.kernel),
            "`{}` was measured on another machine than `{}` ({}, {} CPUs, Linux {}; {}, {} CPUs, \
             Linux {}): a table is of one",
            other.scenario,
            first.scenario,
            of.cpu_model,
            of.cpus,
            of.kernel,
            machine.cpu_model,
            machine.cpus,
            machine.kernel
        );
    }
    let virtual_machine = machine.virtual_machine.as_deref().unwrap_or("no");
    let paragraph = format!(
        "Measured on {date} (UTC): {}, {} CPUs, virtual machine: {virtual_machine}, Linux {}, load {} when it \
         began{}; {}. Times are medians over the repetitions; ratios and rates have the smallest \
         and the largest behind them.\n",
        machine.cpu_model,
        machine.cpus,
        version(&machine.kernel),
        machine.load_at_start,
        at_work(&machine.load_at_start),
        repetitions(reports),
    );
    Ok(plain(&paragraph))
}

/// The kernel's version without what its builder has added.
fn version(kernel: &str) -> &str {
    let end = kernel.find(|c: char| !c.is_ascii_digit() && c != '.');
    &kernel[..end.unwrap_or(kernel.len())]
}

/// What a load average means for the figures.
fn at_work(load: &str) -> &'static str {
    match load.parse::<f64>() {
        Ok(load) if load < LOAD_QUIET_BELOW => "",
        _ => " (**others were at work, so times are longer than they need be**)",
    }
}

/// How often everything was measured anew: of different numbers the ends.
fn repetitions(reports: &[Recorded]) -> String {
    let asked = reports.iter().filter_map(|report| {
        let value = report.setting("repetitions")?;
        value.parse::<u32>().ok()
    });
    let (least, most) = asked.fold((u32::MAX, 0), |(least, most), n| {
        (least.min(n), most.max(n))
    });
    match (least, most) {
        (_, 0) => "an unknown number of repetitions".into(),
        (1, 1) => "one repetition".into(),
        _ if least == most => format!("{least} repetitions"),
        _ => format!("{least} to {most} repetitions"),
    }
}

/// How placements are told apart, and what was left out.
fn notes(reports: &[Recorded]) -> String {
    let mut placements: Vec<&str> = Vec::new();
    for report in reports {
        if !placements.contains(&report.placements.as_str()) {
            placements.push(&report.placements);
        }
    }
    let mut text = format!("Placement: {}.", placements.join(". "));
    let points = || reports.iter().flat_map(|report| &report.points);
    let moved: usize = points().map(|point| point.moved).sum();
    if moved > 0 {
        let all: usize = points().map(Point::repetitions).sum();
        text.push_str(&format!(
            " Left out because the CPUs moved: {moved} of {all} repetitions."
        ));
    }
    text.push('\n');
    plain(&text)
}

/// A line of the table.
#[derive(Default)]
struct Row {
    scenario: String,
    measured: String,
    p50: String,
    p99: String,
    floor: String,
    ratio: String,
    placement: String,
}

impl Row {
    fn line(&self) -> String {
        let Self {
            scenario,
            measured,
            p50,
            p99,
            floor,
            ratio,
            placement,
        } = self;
        let cells = [scenario, measured, p50, p99, floor, ratio, placement];
        let cells = cells.map(|cell| plain(cell));
        format!("| {} |\n", cells.join(" | "))
    }

    /// A series, held against nothing yet.
    fn of(series: &Series, repetitions: usize) -> Self {
        let figures = &series.figures;
        let has_p99 = figures.count / (repetitions as u64).max(1) >= P99_COUNT_MIN;
        Self {
            measured: series.name.clone(),
            p50: time(figures.p50_ns.median),
            p99: if has_p99 {
                time(figures.p99_ns.median)
            } else {
                String::new()
            },
            ..Self::default()
        }
    }
}

/// The rows of a point: for each placement all that was measured there.
fn rows_of(report: &Recorded, point: &Point) -> Vec<Row> {
    let mut rows = Vec::new();
    for group in &point.groups {
        let begin = rows.len();
        rows.extend(rows_of_group(group));
        if let Some(first) = rows.get_mut(begin) {
            let all = point.repetitions();
            first.scenario = name_of(report, point);
            first.placement = format!("{}, {} of {all}", group.placement, group.repetitions);
        }
    }
    if rows.is_empty() {
        rows.push(Row {
            scenario: name_of(report, point),
            measured: "nothing: in each repetition the CPUs moved".into(),
            ..Row::default()
        });
    }
    rows
}

/// `chain`, length 10000; without the parameter where it has the scenario's own name.
fn name_of(report: &Recorded, point: &Point) -> String {
    let (scenario, text) = (&report.scenario, &point.text);
    if point.parameter == *scenario {
        format!("`{scenario}`, {text}")
    } else {
        format!("`{scenario}`, {} {text}", point.parameter)
    }
}

/// The main series against each floor, a row each, then the other series and the rates. The bare
/// three-party hop, of which most scenarios say the same as of the bare round trip, is left out.
fn rows_of_group(group: &Group) -> Vec<Row> {
    let mut rows = Vec::new();
    let is_floor = |name: &str| name == THREE_PARTY || group.ratios.iter().any(|r| r.to == name);
    if let Some(main) = group.series.first() {
        rows.push(Row::of(main, group.repetitions));
        let floors = group.ratios.iter().filter(|ratio| ratio.to != THREE_PARTY);
        for (number, ratio) in floors.enumerate() {
            if number > 0 {
                rows.push(Row::default());
            }
            let row = rows.last_mut().expect("one has been pushed");
            let floor = group.series(&ratio.to);
            let took = floor.map_or_else(String::new, |s| time(s.figures.p50_ns.median));
            row.floor = format!("{}: {took}", ratio.to);
            row.ratio = factor(ratio.p50);
        }
    }
    let others = group.series.iter().skip(1);
    rows.extend(
        others
            .filter(|series| !is_floor(&series.name))
            .map(|series| Row::of(series, group.repetitions)),
    );
    rows.extend(row_of_rates(&group.scalars));
    rows
}

/// How often in a second, how often the floor, and the one by the other.
fn row_of_rates(scalars: &[Scalar]) -> Option<Row> {
    let mut rates = scalars.iter().filter(|s| s.unit == Unit::PerSecond);
    let own = rates.next()?;
    let times = scalars.iter().find(|scalar| scalar.unit == Unit::Times);
    Some(Row {
        measured: format!("{}: {}", own.name, rate(own.spread)),
        floor: rates.next().map_or_else(String::new, |bare| {
            format!("{}: {}", bare.name, rate(bare.spread))
        }),
        ratio: times.map_or_else(String::new, |times| {
            format!("{}, {}", factor(times.spread), times.name)
        }),
        ..Row::default()
    })
}

/// A time with its unit, to three digits.
fn time(ns: f64) -> String {
    let (value, unit) = match ns {
        ns if ns < 1e4 => return format!("{ns:.0} ns"),
        ns if ns < 1e6 => (ns / 1e3, "us"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    match value {
        value if value < 9.995 => format!("{value:.2} {unit}"),
        value if value < 99.95 => format!("{value:.1} {unit}"),
        value => format!("{value:.0} {unit}"),
    }
}

/// Text that ends no cell, and is no HTML.
fn plain(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::Distribution;
    use crate::placement::Placement;
    use crate::repetition::Repetition;
    use crate::report::tests::{repetition, report};
    use crate::report::{self, LINE, Report};

    const DATE: &str = "2026-11-28";

    fn recorded(report: &Report) -> Recorded {
        serde_json::from_value(serde_json::to_value(report).unwrap()).unwrap()
    }

    fn chain(repetitions: &[Repetition]) -> Report {
        report(vec![report::Point::new(
            "length",
            100,
            "100".into(),
            repetitions,
        )])
    }

    fn table(report: &Report) -> String {
        render(&[recorded(report)], DATE).unwrap()
    }

    /// The lines of the table below its header.
    fn rows(text: &str) -> Vec<&str> {
        let rows = text.lines().filter(|line| line.starts_with('|'));
        rows.skip(HEADER.lines().count()).collect()
    }

    fn of(ns: u64, count: u64) -> Distribution {
        let mut distribution = Distribution::new();
        (0..count).for_each(|_| distribution.record_ns(ns));
        distribution
    }

    /// A repetition of which nobody asks where the CPUs were.
    fn anywhere(series: &[(&str, u64)], floors: &[(&'static str, u64)]) -> Repetition {
        let series = series.iter().map(|&(name, ns)| (name.into(), of(ns, 10)));
        Repetition {
            placement: Placement::Any,
            probes_ns: None,
            series: series.collect(),
            floors: floors
                .iter()
                .map(|&(name, ns)| (name, of(ns, 10)))
                .collect(),
            scalars: Vec::new(),
        }
    }

    #[test]
    fn each_placement_is_a_row_with_its_own_floor() {
        let all = [
            repetition(300, 100, 100),
            repetition(330, 150, 150),
            repetition(1200, 400, 400),
            repetition(9, 100, 400),
        ];
        let text = table(&chain(&all));
        assert_eq!(
            rows(&text),
            [
                "| `chain`, length 100 | hop | 315 ns | 315 ns | bare round trip: 125 ns | \
                 2.60x (2.20 - 3.00) | near, 2 of 4 |",
                "| `chain`, length 100 | hop | 1200 ns | 1200 ns | bare round trip: 400 ns | \
                 3.00x | far, 1 of 4 |",
            ]
        );
        assert!(
            text.contains("Left out because the CPUs moved: 1 of 4 repetitions."),
            "{text}"
        );
        assert!(
            text.contains("\nPlacement: by the line's round trip: smt below"),
            "{text}"
        );
    }

    #[test]
    fn a_row_has_as_many_cells_as_the_header() {
        let text = table(&chain(&[repetition(300, 100, 100)]));
        let bars = |line: &str| line.matches('|').count();
        let header = HEADER.lines().next().map(bars);
        assert!(text.lines().filter(|line| line.starts_with('|')).count() > 2);
        for line in text.lines().filter(|line| line.starts_with('|')) {
            assert_eq!(Some(bars(line)), header, "{line}");
        }
    }

    #[test]
    fn a_scenario_of_which_everything_moved_says_so() {
        let text = table(&chain(&[repetition(9, 100, 400)]));
        assert_eq!(
            rows(&text),
            ["| `chain`, length 100 | nothing: in each repetition the CPUs moved |  |  |  |  |  |"]
        );
    }

    #[test]
    fn several_floors_and_series_are_rows_below_the_main_one() {
        let once = anywhere(
            &[("cold start", 1_600), ("warm start", 1_000)],
            &[("bare fork", 80), ("bare dlopen", 40)],
        );
        let mut start = chain(&[once]);
        start.scenario = "start";
        let text = table(&start);
        assert_eq!(
            rows(&text),
            [
                "| `start`, length 100 | cold start | 1600 ns |  | bare fork: 80 ns | 20.00x | \
                 any, 1 of 1 |",
                "|  |  |  |  | bare dlopen: 40 ns | 40.00x |  |",
                "|  | warm start | 1000 ns |  |  |  |  |",
            ],
            "ten times have no 99th percentile"
        );
    }

    #[test]
    fn rates_are_held_against_the_rate_of_the_floor() {
        let scalar = |name, unit, value| report::Scalar { name, unit, value };
        let mut once = anywhere(&[("durable send", 350_000)], &[("bare fdatasync", 220_000)]);
        once.scalars = vec![
            scalar("durable sends", Unit::PerSecond, 20_000.0),
            scalar("bare fdatasyncs", Unit::PerSecond, 4_000.0),
            scalar("sends / fdatasyncs", Unit::Times, 5.0),
        ];
        let text = table(&chain(&[once]));
        assert_eq!(
            rows(&text)[1],
            "|  | durable sends: 20.00 k/s |  |  | bare fdatasyncs: 4000/s | \
             5.00x, sends / fdatasyncs |  |"
        );
    }

    #[test]
    fn the_head_says_where_when_how_often_and_whether_others_were_at_work() {
        let mut first = chain(&[repetition(300, 100, 100)]);
        first.settings.push(("repetitions".into(), "7".into()));
        let mut second = first.clone();
        let text = render(&[recorded(&first), recorded(&second)], DATE).unwrap();
        assert!(
            text.starts_with(
                "Measured on 2026-11-28 (UTC): Some CPU, 2 CPUs, virtual machine: no, Linux 6.18, \
                 load 0.00 when it began; 7 repetitions. "
            ),
            "{text}"
        );
        second.settings.pop();
        second.settings.push(("repetitions".into(), "2".into()));
        first.machine.virtual_machine = Some("Some Maker".into());
        first.machine.load_at_start = "3.20".into();
        first.machine.kernel = "6.18-of-a-builder".into();
        second.machine.kernel = first.machine.kernel.clone();
        let text = render(&[recorded(&first), recorded(&second)], DATE).unwrap();
        for part in [
            "virtual machine: Some Maker, Linux 6.18,",
            "load 3.20 when it began (**others were at work",
            "; 2 to 7 repetitions.",
        ] {
            assert!(text.contains(part), "no {part} in:\n{text}");
        }
    }

    #[test]
    fn nothing_and_what_is_of_two_machines_is_no_table() {
        assert!(render(&[], DATE).is_err());
        let first = chain(&[repetition(300, 100, 100)]);
        let mut second = first.clone();
        second.machine.cpu_model = "Another CPU".into();
        let error = render(&[recorded(&first), recorded(&second)], DATE).unwrap_err();
        assert!(error.to_string().contains("Another CPU"), "{error}");
    }

    #[test]
    fn what_a_file_says_ends_no_cell_and_is_no_html() {
        let mut strange = chain(&[repetition(300, 100, 100)]);
        strange.machine.cpu_model = "A|B <!-- C".into();
        let text = table(&strange);
        assert!(text.contains("A\\|B &lt;!-- C"), "{text}");
    }

    #[test]
    fn a_floor_that_is_the_line_is_named_so() {
        let group = &recorded(&chain(&[repetition(300, 100, 100)])).points[0].groups[0];
        assert_eq!(group.ratios[0].to, LINE);
        assert!(
            rows_of_group(group)
                .iter()
                .all(|row| !row.floor.contains(THREE_PARTY))
        );
    }

    #[test]
    fn times_have_three_digits_and_a_unit() {
        for (ns, text) in [
            (2.4, "2 ns"),
            (9_999.0, "9999 ns"),
            (12_345.0, "12.3 us"),
            (999_000.0, "999 us"),
            (1_234_000.0, "1.23 ms"),
            (2.5e9, "2.50 s"),
        ] {
            assert_eq!(time(ns), text);
        }
    }
}
