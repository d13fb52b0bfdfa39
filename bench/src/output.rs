//! Where a report goes: the table to people, the files to programs.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::report::Report;
use crate::{plot, table};

/// What is written beside the table.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Outputs {
    /// Write everything measured as JSON to this file; `-`: to standard output, and the table to
    /// standard error
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw the percentiles into this SVG file
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// Write the percentiles in HdrHistogram's format to this file; of several series, placements
    /// or sizes the others go to files beside it, named after them
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
}

impl Outputs {
    /// Finds out before anything is measured whether the files can be written.
    ///
    /// # Errors
    /// One of them cannot.
    pub fn check(&self) -> Result<()> {
        let files = [&self.json, &self.plot, &self.hgrm].into_iter().flatten();
        for path in files.filter(|path| !is_dash(path)) {
            File::options()
                .append(true)
                .create(true)
                .open(path)
                .with_context(|| format!("{} cannot be written", path.display()))?;
        }
        Ok(())
    }

    /// Prints the table and writes the files.
    ///
    /// # Errors
    /// A file cannot be written, or there is nothing to draw.
    pub fn write(&self, report: &Report) -> Result<()> {
        self.write_to(report, &mut io::stdout(), &mut io::stderr())
    }

    fn write_to(
        &self,
        report: &Report,
        stdout: &mut impl Write,
        stderr: &mut impl Write,
    ) -> Result<()> {
        let text = table::render(report);
        match &self.json {
            Some(path) if is_dash(path) => {
                writeln!(stderr, "{text}")?;
                writeln!(stdout, "{}", serde_json::to_string_pretty(report)?)?;
            }
            Some(path) => {
                writeln!(stdout, "{text}")?;
                let json = serde_json::to_string_pretty(report)? + "\n";
                fs::write(path, json)
                    .with_context(|| format!("{} cannot be written", path.display()))?;
            }
            None => writeln!(stdout, "{text}")?,
        }
        if let Some(path) = &self.hgrm {
            write_percentiles(report, path)?;
        }
        if let Some(path) = &self.plot {
            fs::write(path, plot::svg(report)?)
                .with_context(|| format!("{} cannot be written", path.display()))?;
        }
        Ok(())
    }
}

fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The first series goes to the file itself, each further one beside it.
fn write_percentiles(report: &Report, path: &Path) -> Result<()> {
    let mut names = Vec::new();
    for point in &report.points {
        for (placement, series) in &point.merged {
            for (name, times) in series {
                names.push((format!("{}-{placement}-{name}", point.text), times));
            }
        }
    }
    for (number, (name, times)) in names.iter().enumerate() {
        let file = if number == 0 {
            path.to_owned()
        } else {
            beside(path, name)
        };
        let title = format!("{} {name}", report.scenario);
        let written = File::create(&file).and_then(|file| {
            let mut file = BufWriter::new(file);
            times.write_percentiles(&title, &mut file)?;
            file.flush()
        });
        written.with_context(|| format!("{} cannot be written", file.display()))?;
    }
    Ok(())
}

/// `a/b.hgrm` and `1 MiB-near-hop` give `a/b-1-MiB-near-hop.hgrm`.
fn beside(path: &Path, name: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let ending = path.extension().map_or_else(String::new, |ending| {
        format!(".{}", ending.to_string_lossy())
    });
    let name: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    path.with_file_name(format!("{stem}-{name}{ending}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Point;
    use crate::report::tests::{repetition, report};

    fn measured() -> Report {
        let point = Point::new("length", 100, "100".into(), &[repetition(300, 100, 100)]);
        report(vec![point])
    }

    #[test]
    fn every_file_asked_for_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let outputs = Outputs {
            json: Some(path("run.json")),
            plot: Some(path("run.svg")),
            hgrm: Some(path("run.hgrm")),
        };
        outputs.check().unwrap();
        let mut table = Vec::new();
        outputs
            .write_to(&measured(), &mut table, &mut io::sink())
            .unwrap();
        assert!(
            String::from_utf8(table)
                .unwrap()
                .contains("hop / bare round trip")
        );
        let json: serde_json::Value =
            serde_json::from_slice(&fs::read(path("run.json")).unwrap()).unwrap();
        assert_eq!(json["scenario"], "chain");
        assert!(
            fs::read_to_string(path("run.svg"))
                .unwrap()
                .starts_with("<svg")
        );
        let hop = fs::read_to_string(path("run.hgrm")).unwrap();
        assert!(
            hop.contains("100-near-hop") && hop.contains("0.300"),
            "{hop}"
        );
        assert!(path("run-100-near-bare-round-trip.hgrm").exists());
    }

    #[test]
    fn json_on_standard_output_is_alone_there() {
        let outputs = Outputs {
            json: Some("-".into()),
            ..Outputs::default()
        };
        outputs.check().unwrap();
        let (mut json, mut table) = (Vec::new(), Vec::new());
        outputs
            .write_to(&measured(), &mut json, &mut table)
            .unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["format"], crate::report::FORMAT);
        assert!(!table.is_empty());
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named_before_the_run() {
        let outputs = Outputs {
            plot: Some("/nonexistent/run.svg".into()),
            ..Outputs::default()
        };
        let error = format!("{:#}", outputs.check().unwrap_err());
        assert!(error.contains("/nonexistent/run.svg"), "{error}");
    }

    #[test]
    fn names_beside_a_file_keep_its_ending() {
        let named = beside(Path::new("a/b.hgrm"), "1 MiB-near-hop");
        assert_eq!(named, Path::new("a/b-1-MiB-near-hop.hgrm"));
        assert_eq!(beside(Path::new("b"), "x y"), Path::new("b-x-y"));
    }
}
