//! A report as a table for people. Each cell is the median over repetitions, with the smallest and
//! the largest behind it where they differ.

use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table, presets};

use crate::histogram::{FiguresSpread, Spread};
use crate::report::{Group, LINE, Point, Report, ScalarSpread, THREE_PARTY, Unit};

/// Everything that is printed.
pub fn render(report: &Report) -> String {
    let mut text = settings(report);
    text.push_str("\n\n");
    if report.points.len() > 1 {
        text.push_str(&by_point(report).to_string());
    } else {
        for point in &report.points {
            text.push_str(&of_point(point).to_string());
        }
    }
    for line in notes(report) {
        let _ = write!(text, "\n{line}");
    }
    text
}

fn empty() -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()))
        .set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn settings(report: &Report) -> String {
    let machine = &report.machine;
    let kind = machine
        .virtual_machine
        .as_ref()
        .map_or_else(|| "no".to_owned(), |name| format!("yes ({name})"));
    let clock = if machine.time_stamp_counter {
        "time stamp counter"
    } else {
        "clock_gettime"
    };
    let mut rows = vec![
        (
            "scenario".to_owned(),
            format!("{}: {}", report.scenario, report.measures),
        ),
        (
            "processor".to_owned(),
            format!("{}, {} CPUs", machine.cpu_model, machine.cpus),
        ),
        ("virtual machine".to_owned(), kind),
        ("kernel".to_owned(), machine.kernel.clone()),
        ("huge pages".to_owned(), machine.huge_pages.clone()),
        ("clock".to_owned(), clock.to_owned()),
        ("load at start".to_owned(), machine.load_at_start.clone()),
    ];
    rows.extend(report.settings.iter().cloned());
    rows.push(("warm-up".to_owned(), report.warm_up.clone()));
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<String> = rows
        .iter()
        .map(|(name, value)| format!("{name:width$}  {value}"))
        .collect();
    lines.join("\n")
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
            row.extend(figures(&series.figures).map(right));
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
        LINE.to_owned(),
        THREE_PARTY.to_owned(),
        format!("{main} / {LINE}"),
    ];
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
        row.extend(figures(&main.figures).map(right));
        row.push(right(main.figures.count.to_string()));
    }
    for floor in [LINE, THREE_PARTY] {
        let of_floor = group.series.iter().find(|series| series.name == floor);
        row.push(right(
            of_floor.map_or_else(String::new, |s| whole(s.figures.p50_ns)),
        ));
    }
    let ratio = group.ratios.iter().find(|ratio| ratio.to == LINE);
    row.push(right(
        ratio.map_or_else(String::new, |ratio| factor(ratio.p50)),
    ));
    row.extend(group.scalars.iter().map(|scalar| right(amount(scalar))));
    row
}

fn notes(report: &Report) -> Vec<String> {
    let moved: usize = report.points.iter().map(|point| point.moved).sum();
    let all: usize = report.points.iter().map(total).sum();
    let mut notes = vec![
        "median over repetitions (smallest - largest); the floor is measured in the same run, \
         between the same two CPUs, through the same rings"
            .to_owned(),
        report.placements.clone(),
    ];
    if moved > 0 {
        notes.push(format!(
            "{moved} of {all} repetitions left out because the CPUs moved"
        ));
    }
    if moved == all {
        notes.push("no repetition is left: the machine was too restless; run it again".to_owned());
    }
    notes
}

fn total(point: &Point) -> usize {
    point.repetitions.len()
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

fn figures(figures: &FiguresSpread) -> [String; 6] {
    [
        whole(figures.p50_ns),
        whole(figures.p90_ns),
        whole(figures.p99_ns),
        whole(figures.p99_9_ns),
        whole(figures.p99_99_ns),
        whole(figures.max_ns),
    ]
}

fn with_ends(spread: Spread, write: impl Fn(f64) -> String) -> String {
    let (min, median, max) = (write(spread.min), write(spread.median), write(spread.max));
    if min == max {
        median
    } else {
        format!("{median} ({min} - {max})")
    }
}

fn whole(spread: Spread) -> String {
    with_ends(spread, |value| format!("{value:.0}"))
}

fn factor(spread: Spread) -> String {
    with_ends(spread, |value| format!("{value:.2}x"))
}

fn amount(scalar: &ScalarSpread) -> String {
    match scalar.unit {
        Unit::Nanoseconds => with_ends(scalar.spread, |ns| {
            if ns < 100.0 {
                format!("{ns:.1} ns")
            } else {
                format!("{ns:.0} ns")
            }
        }),
        Unit::Bytes => with_ends(scalar.spread, |bytes| format!("{:.0} KiB", bytes / 1024.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{repetition, report};

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
        line_with(&text, &["1 of 1 repetitions left out"]);
        line_with(&text, &["no repetition is left"]);
    }

    #[test]
    fn equal_ends_are_not_repeated() {
        let steady = Spread {
            min: 5.0,
            median: 5.0,
            max: 5.0,
        };
        assert_eq!(whole(steady), "5");
        assert_eq!(factor(steady), "5.00x");
    }
}
