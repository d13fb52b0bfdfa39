//! A report as a table for people. Each cell is the median over repetitions, with the smallest and
//! the largest behind it where they differ.

use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table, presets};

use crate::histogram::{FiguresSpread, Spread};
use crate::report::{Group, Point, Report, ScalarSpread, Unit};

/// Columns of text where the output is no terminal.
const WIDTH: u16 = 100;

/// Times that a repetition must have for its 99th percentile to be one.
pub const P99_COUNT_MIN: u64 = 100;

/// Everything that is printed.
pub fn render(report: &Report) -> String {
    let figures = match &report.points[..] {
        [point] => of_point(point),
        _ => by_point(report),
    };
    format!(
        "{}\n\n{figures}\n{}",
        facts(settings(report)),
        facts(notes(report))
    )
}

fn empty() -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()))
        .set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// Names and what is to be said of them, in lines that fit.
fn facts(rows: Vec<(String, String)>) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    if table.width().is_none() {
        table.set_width(WIDTH);
    }
    for (name, value) in rows {
        table.add_row([name, value]);
    }
    table
}

fn settings(report: &Report) -> Vec<(String, String)> {
    let machine = &report.machine;
    let virtual_machine = machine.virtual_machine.as_deref().unwrap_or("no");
    let clock = if machine.time_stamp_counter {
        "time stamp counter"
    } else {
        "clock_gettime"
    };
    let row = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut rows = vec![
        row("scenario", report.scenario),
        row("measured", &report.measures),
        row(
            "processor",
            &format!("{}, {} CPUs", machine.cpu_model, machine.cpus),
        ),
        row("virtual machine", virtual_machine),
        row("kernel", &machine.kernel),
        row("huge pages", &machine.huge_pages),
        row("clock", clock),
        row("load at start", &machine.load_at_start),
    ];
    rows.extend(report.settings.iter().cloned());
    rows.push(row("warm-up", &report.warm_up));
    rows
}

/// One point in full: a row per series and ratio.
fn of_point(point: &Point) -> Table {
    let mut table = empty();
    let header = [
        "placement",
        "ns",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "p99.99",
        "max",
        "count",
    ];
    table.set_header(header);
    for group in &point.groups {
        let label = format!(
            "{} ({} of {})",
            group.placement,
            group.repetitions,
            total(point)
        );
        for (number, series) in group.series.iter().enumerate() {
            let label = if number == 0 { label.as_str() } else { "" };
            let mut row = vec![Cell::new(label), Cell::new(&series.name)];
            row.extend(figures(&series.figures, group.repetitions).map(right));
            row.push(right(series.figures.count.to_string()));
            table.add_row(row);
        }
        for ratio in &group.ratios {
            table.add_row(vec![
                Cell::new(""),
                Cell::new(format!("{} / {}", ratio.of, ratio.to)),
                right(factor(ratio.p50)),
                right(String::new()),
                right(factor(ratio.p99)),
                right(factor(ratio.p99_9)),
            ]);
        }
        for scalar in &group.scalars {
            table.add_row(vec![
                Cell::new(""),
                Cell::new(scalar.name),
                right(amount(scalar)),
            ]);
        }
    }
    table
}

/// Many points: a row for each and placement.
fn by_point(report: &Report) -> Table {
    let mut table = empty();
    let Some(first) = report.points.iter().find_map(|point| point.groups.first()) else {
        return table;
    };
    let main = first
        .series
        .first()
        .map_or("", |series| series.name.as_str());
    let mut header = vec![
        report.points[0].parameter.to_owned(),
        "placement".to_owned(),
        format!("{main} p50, ns"),
        "p90".to_owned(),
        "p99".to_owned(),
        "p99.9".to_owned(),
        "p99.99".to_owned(),
        "max".to_owned(),
        "count".to_owned(),
    ];
    header.extend(first.ratios.iter().map(|ratio| ratio.to.to_owned()));
    let nearest = first.ratios.first();
    header.extend(nearest.map(|ratio| format!("{} / {}", ratio.of, ratio.to)));
    header.extend(first.scalars.iter().map(|scalar| scalar.name.to_owned()));
    table.set_header(header);
    for point in &report.points {
        for group in &point.groups {
            table.add_row(row_of(point, group));
        }
    }
    table
}

fn row_of(point: &Point, group: &Group) -> Vec<Cell> {
    let mut row = vec![
        right(point.text.clone()),
        Cell::new(format!(
            "{} ({} of {})",
            group.placement,
            group.repetitions,
            total(point)
        )),
    ];
    if let Some(main) = group.series.first() {
        row.extend(figures(&main.figures, group.repetitions).map(right));
        row.push(right(main.figures.count.to_string()));
    }
    for ratio in &group.ratios {
        let floor = group.series.iter().find(|series| series.name == ratio.to);
        row.push(right(
            floor.map_or_else(String::new, |s| time(s.figures.p50_ns)),
        ));
    }
    let nearest = group.ratios.first();
    row.extend(nearest.map(|ratio| right(factor(ratio.p50))));
    row.extend(group.scalars.iter().map(|scalar| right(amount(scalar))));
    row
}

fn notes(report: &Report) -> Vec<(String, String)> {
    let moved: usize = report.points.iter().map(|point| point.moved).sum();
    let all: usize = report.points.iter().map(total).sum();
    let row = |name: &str, value: String| (name.to_owned(), value);
    let mut notes = vec![
        row(
            "figures",
            "median over repetitions (smallest - largest)".into(),
        ),
        row("floor", report.floor.clone()),
        row("placement", report.placements.clone()),
    ];
    if moved > 0 {
        let again = if moved == all {
            "; none is left: the machine was too restless, run it again"
        } else {
            ""
        };
        notes.push(row(
            "moved",
            format!("{moved} of {all} repetitions, left out{again}"),
        ));
    }
    notes
}

fn total(point: &Point) -> usize {
    point.repetitions.len()
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// The figures that a repetition has enough times for: the last of 10 is no 99th percentile.
fn figures(figures: &FiguresSpread, repetitions: usize) -> [String; 6] {
    let count = figures.count / (repetitions as u64).max(1);
    let if_enough = |needed: u64, spread: Spread| {
        if count >= needed {
            time(spread)
        } else {
            String::new()
        }
    };
    [
        time(figures.p50_ns),
        if_enough(10, figures.p90_ns),
        if_enough(P99_COUNT_MIN, figures.p99_ns),
        if_enough(1000, figures.p99_9_ns),
        if_enough(10_000, figures.p99_99_ns),
        time(figures.max_ns),
    ]
}

/// The median, and the ends behind it where they look different.
fn with_ends(spread: Spread, unit: &str, write: impl Fn(f64) -> String) -> String {
    let (min, median, max) = (write(spread.min), write(spread.median), write(spread.max));
    if min == max {
        format!("{median}{unit}")
    } else {
        format!("{median}{unit} ({min} - {max})")
    }
}

/// Times in the unit of the median.
fn in_unit(spread: Spread, unit: &str, unit_ns: f64) -> String {
    with_ends(spread, unit, |ns| {
        let value = ns / unit_ns;
        if value < 99.95 && unit_ns > 1.0 {
            format!("{value:.1}")
        } else {
            format!("{value:.0}")
        }
    })
}

/// A time: bare nanoseconds as long as they are few digits, else with its unit.
fn time(spread: Spread) -> String {
    match spread.median {
        ns if ns < 1e5 => in_unit(spread, "", 1.0),
        ns if ns < 1e6 => in_unit(spread, " us", 1e3),
        ns if ns < 1e9 => in_unit(spread, " ms", 1e6),
        _ => in_unit(spread, " s", 1e9),
    }
}

/// How many times as much.
pub fn factor(spread: Spread) -> String {
    with_ends(spread, "x", |value| format!("{value:.2}"))
}

/// A rate in the unit of the median: a thousand or a million a second.
pub fn rate(spread: Spread) -> String {
    let (unit, divisor) = match spread.median {
        rate if rate < 1e4 => ("/s", 1.0),
        rate if rate < 1e6 => (" k/s", 1e3),
        _ => (" M/s", 1e6),
    };
    with_ends(spread, unit, |rate| {
        let value = rate / divisor;
        if value < 99.95 && divisor > 1.0 {
            format!("{value:.2}")
        } else {
            format!("{value:.0}")
        }
    })
}

fn amount(scalar: &ScalarSpread) -> String {
    match scalar.unit {
        Unit::Nanoseconds => match scalar.spread.median {
            ns if ns < 1e3 => with_ends(scalar.spread, " ns", |ns| format!("{ns:.1}")),
            ns if ns < 1e6 => in_unit(scalar.spread, " us", 1e3),
            ns if ns < 1e9 => in_unit(scalar.spread, " ms", 1e6),
            _ => in_unit(scalar.spread, " s", 1e9),
        },
        Unit::Bytes => with_ends(scalar.spread, " KiB", |bytes| {
            format!("{:.0}", bytes / 1024.0)
        }),
        Unit::PerSecond => rate(scalar.spread),
        Unit::Times => factor(scalar.spread),
        Unit::Percent => with_ends(scalar.spread, " %", |part| format!("{part:.1}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{repetition, report};
    use crate::report::{LINE, THREE_PARTY};

    fn point(value: u64) -> Point {
        let repetitions = [repetition(300, 100, 100), repetition(330, 110, 110)];
        Point::new("size", value, format!("{value} B"), &repetitions)
    }

    fn line_with<'a>(text: &'a str, what: &[&str]) -> &'a str {
        text.lines()
            .find(|line| what.iter().all(|part| line.contains(part)))
            .unwrap_or_else(|| panic!("no line with {what:?} in\n{text}"))
    }

    #[test]
    fn a_single_point_shows_every_series_the_floor_and_the_ratio() {
        let text = render(&report(vec![point(8)]));
        line_with(&text, &["near (2 of 2)", "hop", "315 (300 - 330)", "200"]);
        line_with(&text, &[LINE, "105 (100 - 110)"]);
        line_with(&text, &[THREE_PARTY, "115 (110 - 120)"]);
        line_with(&text, &["hop / bare round trip", "3.00x"]);
        line_with(&text, &["private memory growth", "0 KiB"]);
        line_with(&text, &["processor", "Some CPU, 2 CPUs"]);
        line_with(&text, &["virtual machine", "no"]);
        line_with(&text, &["warm-up", "one session"]);
    }

    #[test]
    fn several_points_are_a_row_each() {
        let text = render(&report(vec![point(8), point(1024)]));
        line_with(&text, &["1024 B", "near (2 of 2)", "315", "105", "3.00x"]);
        line_with(&text, &[" 8 B", "near"]);
        line_with(
            &text,
            &["size", "placement", "hop p50, ns", "private memory growth"],
        );
    }

    #[test]
    fn what_moved_is_said() {
        let moved = Point::new("size", 8, "8 B".into(), &[repetition(1, 100, 400)]);
        let text = render(&report(vec![moved]));
        line_with(
            &text,
            &["moved", "1 of 1 repetitions, left out; none is left"],
        );
    }

    #[test]
    fn percentiles_are_shown_where_there_are_enough_times_for_them() {
        let text = render(&report(vec![point(8)]));
        let columns = line_with(&text, &["315 (300 - 330)", "200"])
            .matches("315")
            .count();
        assert_eq!(columns, 4, "p50, p90, p99 and the maximum of 100 times");
    }

    #[test]
    fn long_times_carry_their_unit() {
        let of = |ns| {
            time(Spread {
                min: ns,
                median: ns,
                max: ns,
            })
        };
        assert_eq!(of(99_999.0), "99999");
        assert_eq!(of(100_000.0), "100 us");
        assert_eq!(of(11_066_655.0), "11.1 ms");
        assert_eq!(of(1.5e9), "1.5 s");
        let apart = Spread {
            min: 35_967.0,
            median: 229e3,
            max: 422e3,
        };
        assert_eq!(time(apart), "229 us (36.0 - 422)");
    }

    #[test]
    fn a_copy_of_a_few_bytes_has_a_tenth_of_a_nanosecond() {
        let spread = Spread {
            min: 2.4,
            median: 2.4,
            max: 2.4,
        };
        let of = |spread| {
            amount(&ScalarSpread {
                name: "memcpy",
                unit: Unit::Nanoseconds,
                spread,
            })
        };
        assert_eq!(of(spread), "2.4 ns");
        let spread = Spread {
            min: 259_730_070.0,
            median: 262_357_920.0,
            max: 264_985_770.0,
        };
        assert_eq!(of(spread), "262 ms (260 - 265)");
    }

    #[test]
    fn rates_are_written_in_thousands_and_millions() {
        let of = |value| {
            rate(Spread {
                min: value,
                median: value,
                max: value,
            })
        };
        assert_eq!(of(812.4), "812/s");
        assert_eq!(of(12_345.0), "12.35 k/s");
        assert_eq!(of(3.2e6), "3.20 M/s");
        let apart = Spread {
            min: 900.0,
            median: 12_000.0,
            max: 150_000.0,
        };
        assert_eq!(rate(apart), "12.00 k/s (0.90 - 150)");
    }

    #[test]
    fn equal_ends_are_not_repeated() {
        let steady = Spread {
            min: 5.0,
            median: 5.0,
            max: 5.0,
        };
        assert_eq!(time(steady), "5");
        assert_eq!(factor(steady), "5.00x");
    }
}
