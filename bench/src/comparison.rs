//! `pheromone bench table`: what several runs wrote with `--json`, as one table of a page.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::recorded::Recorded;
use crate::{markdown, section};

/// Options of `pheromone bench table`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// What `--json` wrote, in the order of the table
    #[arg(value_name = "FILE.json", required = true)]
    pub reports: Vec<PathBuf>,
    /// The day on which it was measured (UTC), as 2026-11-28
    #[arg(long, value_name = "DATE", value_parser = date)]
    pub date: String,
    /// Write the table into this page, between its two marks; else it is printed
    #[arg(long, value_name = "PAGE.md")]
    pub into: Option<PathBuf>,
    /// Name the plots of the scenarios, SCENARIO.svg in this directory below the page's
    #[arg(long, value_name = "DIR", requires = "into")]
    pub plots: Option<PathBuf>,
}

/// A day as the table has it.
fn date(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split('-').collect();
    let are_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    if lengths == [4, 2, 2] && parts.iter().all(|part| are_digits(part)) {
        Ok(text.to_owned())
    } else {
        Err("a date is like 2026-11-28".into())
    }
}

impl Options {
    /// Prints the table, or writes it into the page.
    ///
    /// # Errors
    /// A file cannot be read or is no report, the page has no marks, a plot is not there, or the
    /// page cannot be written.
    pub fn run(&self) -> Result<()> {
        let reports = self.reports.iter().map(|path| Recorded::read(path));
        let reports: Vec<Recorded> = reports.collect::<Result<_>>()?;
        let mut table = markdown::render(&reports, &self.date)?;
        let Some(page) = &self.into else {
            return Ok(io::stdout().write_all(table.as_bytes())?);
        };
        if let Some(plots) = &self.plots {
            let below = page.parent().unwrap_or(Path::new(""));
            table.push_str(&links(&reports, below, plots)?);
        }
        let name = page.display();
        let before = fs::read_to_string(page).with_context(|| format!("{name} cannot be read"))?;
        let after = section::replace(&before, &table).with_context(|| format!("{name}"))?;
        fs::write(page, after).with_context(|| format!("{name} cannot be written"))
    }
}

/// A line that leads to the plot of each scenario.
fn links(reports: &[Recorded], below: &Path, plots: &Path) -> Result<String> {
    let mut links: Vec<String> = Vec::new();
    for report in reports {
        let plot = plots.join(format!("{}.svg", report.scenario));
        ensure!(
            below.join(&plot).is_file(),
            "there is no {}: draw it with `pheromone bench {} --plot`",
            below.join(&plot).display(),
            report.scenario
        );
        let link = format!("[{}]({})", report.scenario, plot.display());
        if !links.contains(&link) {
            links.push(link);
        }
    }
    Ok(format!(
        "\nEvery percentile as a picture: {}.\n",
        links.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::section::{BEGIN, END};

    const DATE: &str = "2026-11-28";

    /// Runs of a machine at work, as this program wrote them.
    fn recorded(name: &str) -> PathBuf {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded");
        directory.join(name).with_extension("json")
    }

    fn readme() -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
        fs::read_to_string(path).expect("the page of the checkout")
    }

    fn options(into: &Path) -> Options {
        Options {
            reports: ["chain", "durable"].map(recorded).into(),
            date: DATE.into(),
            into: Some(into.to_owned()),
            plots: None,
        }
    }

    #[test]
    fn the_readme_has_the_marks_and_is_rewritten_between_them_alone() {
        let directory = tempfile::tempdir().unwrap();
        let page = directory.path().join("README.md");
        fs::write(&page, readme()).unwrap();
        options(&page).run().unwrap();
        let once = fs::read_to_string(&page).unwrap();
        let around = |text: &str| {
            let (above, rest) = text.split_once(BEGIN).expect("its upper mark");
            let (_, below) = rest.split_once(END).expect("its lower mark");
            (above.to_owned(), below.to_owned())
        };
        assert_eq!(around(&once), around(&readme()));
        assert!(once.contains("Measured on 2026-11-28 (UTC): "), "{once}");
        assert!(once.contains("| `chain`, length "), "{once}");
        assert!(once.contains("| `durable`, senders "), "{once}");
        options(&page).run().unwrap();
        assert_eq!(fs::read_to_string(&page).unwrap(), once, "the same again");
    }

    #[test]
    fn a_page_without_marks_is_named_and_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let page = directory.path().join("page.md");
        fs::write(&page, "# Title\n").unwrap();
        let error = format!("{:#}", options(&page).run().unwrap_err());
        assert!(
            error.contains("page.md") && error.contains(BEGIN),
            "{error}"
        );
        assert_eq!(fs::read_to_string(&page).unwrap(), "# Title\n");
        let missing = options(Path::new("/nonexistent/page.md"))
            .run()
            .unwrap_err();
        assert!(format!("{missing:#}").contains("/nonexistent/page.md cannot be read"));
    }

    #[test]
    fn plots_are_named_below_the_page_and_must_be_there() {
        let directory = tempfile::tempdir().unwrap();
        let page = directory.path().join("page.md");
        fs::write(&page, format!("{BEGIN}\n{END}\n")).unwrap();
        let mut options = options(&page);
        options.plots = Some("docs/plots".into());
        let error = format!("{:#}", options.run().unwrap_err());
        assert!(error.contains("docs/plots/chain.svg"), "{error}");
        let plots = directory.path().join("docs/plots");
        fs::create_dir_all(&plots).unwrap();
        for name in ["chain.svg", "durable.svg"] {
            fs::write(plots.join(name), "<svg/>").unwrap();
        }
        options.run().unwrap();
        let text = fs::read_to_string(&page).unwrap();
        let links = "[chain](docs/plots/chain.svg), [durable](docs/plots/durable.svg).\n";
        assert!(text.contains(links), "{text}");
    }

    #[test]
    fn a_date_has_three_numbers() {
        assert_eq!(date(DATE).as_deref(), Ok(DATE));
        for wrong in [
            "",
            "today",
            "28.11.2026",
            "2026-1-2",
            "2026-11-28-1",
            "2026-xx-28",
        ] {
            assert!(date(wrong).is_err(), "{wrong}");
        }
    }
}
