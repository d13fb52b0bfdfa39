//! A report as a picture: every percentile of every series, both axes logarithmic.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::histogram::Distribution;
use crate::report::Report;

/// Pixels of one chart.
const WIDTH: u32 = 960;
/// Pixels of one chart.
const HEIGHT: u32 = 540;
/// What the font's size on the axes is.
const LABEL_PIXELS: u32 = 14;
/// Percentiles are drawn up to this many nines more than the data has, to end with the curve.
const RIGHT_MIN: f64 = 100.0;

/// One line of a chart.
struct Curve<'a> {
    name: String,
    times: &'a Distribution,
}

/// The SVG of a report: a chart per point and placement, one below the other.
///
/// # Errors
/// Nothing was measured that could be drawn, or the drawing library's errors.
pub fn svg(report: &Report) -> Result<String> {
    let charts = charts_of(report);
    if charts.is_empty() {
        return Err(anyhow!("no repetition is left to be drawn; run it again"));
    }
    let height = HEIGHT * u32::try_from(charts.len())?;
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE).map_err(drawing)?;
        for (area, (title, curves)) in root.split_evenly((charts.len(), 1)).iter().zip(&charts) {
            draw(area, title, curves)?;
        }
        root.present().map_err(drawing)?;
    }
    Ok(text)
}

fn drawing(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("the plot could not be drawn: {error}")
}

fn charts_of(report: &Report) -> Vec<(String, Vec<Curve<'_>>)> {
    let mut charts = Vec::new();
    for point in &report.points {
        for (placement, series) in &point.merged {
            let curves: Vec<Curve<'_>> = series
                .iter()
                .filter(|(_, times)| times.count() > 0)
                .map(|(name, times)| Curve {
                    name: name.clone(),
                    times,
                })
                .collect();
            if !curves.is_empty() {
                let title = format!(
                    "{}, {} {}, {placement}: {}",
                    report.scenario, point.parameter, point.text, report.machine.cpu_model
                );
                charts.push((title, curves));
            }
        }
    }
    charts
}

fn draw(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    curves: &[Curve<'_>],
) -> Result<()> {
    let count = curves.iter().map(|c| c.times.count()).max().unwrap_or(1);
    let right = (count as f64).max(RIGHT_MIN);
    let figures = || curves.iter().map(|curve| curve.times.figures());
    let bottom = figures().map(|f| f.min_ns).min().unwrap_or(1).max(1) as f64 / 1.5;
    let top = figures().map(|f| f.max_ns).max().unwrap_or(1) as f64 * 1.5;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", LABEL_PIXELS + 4))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(84)
        .build_cartesian_2d((1.0..right).log_scale(), (bottom..top).log_scale())
        .map_err(drawing)?;
    chart
        .configure_mesh()
        .x_desc("percentile")
        .y_desc("time")
        .x_label_formatter(&|from_end| percentile(*from_end))
        .y_label_formatter(&|ns| time(*ns))
        .label_style(("sans-serif", LABEL_PIXELS))
        .draw()
        .map_err(drawing)?;
    for (number, curve) in curves.iter().enumerate() {
        let style = Palette99::pick(number).stroke_width(2);
        let points = curve
            .times
            .curve()
            .into_iter()
            .map(|(part, ns)| ((1.0 / (1.0 - part)).min(right), ns as f64));
        chart
            .draw_series(LineSeries::new(points, style))
            .map_err(drawing)?
            .label(&curve.name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 24, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font(("sans-serif", LABEL_PIXELS))
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()
        .map_err(drawing)
}

/// 1 / (1 - p) as a percentile: 10 is 90 %, 1 000 is 99.9 %.
fn percentile(from_end: f64) -> String {
    if from_end <= 1.0 {
        return "0 %".into();
    }
    let digits = (from_end.log10() - 2.0).ceil().max(0.0) as usize;
    format!("{:.digits$} %", 100.0 - 100.0 / from_end)
}

fn time(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.0} us", ns / 1e3),
        ns if ns < 1e9 => format!("{:.0} ms", ns / 1e6),
        ns => format!("{:.0} s", ns / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Point;
    use crate::report::tests::{repetition, report};

    #[test]
    fn a_plot_has_a_chart_for_each_placement_and_names_its_lines() {
        let repetitions = [repetition(300, 100, 100), repetition(1200, 400, 400)];
        let point = Point::new("length", 100, "100".into(), &repetitions);
        let svg = svg(&report(vec![point])).unwrap();
        assert!(svg.starts_with("<svg"), "{svg:.80}");
        for part in [
            "near: Some CPU",
            "far: Some CPU",
            "bare round trip",
            "percentile",
        ] {
            assert!(svg.contains(part), "{part}");
        }
    }

    #[test]
    fn a_run_in_which_everything_moved_cannot_be_drawn() {
        let point = Point::new("length", 100, "100".into(), &[repetition(1, 100, 400)]);
        assert!(svg(&report(vec![point])).is_err());
    }

    #[test]
    fn percentiles_have_as_many_nines_as_needed() {
        assert_eq!(percentile(1.0), "0 %");
        assert_eq!(percentile(2.0), "50 %");
        assert_eq!(percentile(10.0), "90 %");
        assert_eq!(percentile(100.0), "99 %");
        assert_eq!(percentile(1000.0), "99.9 %");
        assert_eq!(percentile(10_000.0), "99.99 %");
    }

    #[test]
    fn times_carry_their_unit() {
        assert_eq!(time(130.0), "130 ns");
        assert_eq!(time(20_000.0), "20 us");
        assert_eq!(time(4e6), "4 ms");
    }
}
