//! `pheromone check`: everything that is wrong with an app, at once; or what this machine offers.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use pheromone_executor::sandbox::Offers;
use pheromone_manifest::{App, BuildOptions, Diagnostics, Severity, build};
use serde::Serialize;

use crate::exit::{Failure, Status};
use crate::{host, terminal};

/// Options of `check`.
#[derive(Args, Debug)]
#[command(arg_required_else_help = true)]
pub struct Options {
    /// The app's manifest
    #[arg(value_name = "APP.toml", required_unless_present = "host")]
    manifest: Option<PathBuf>,
    /// Look at this machine instead: what it offers, and what each missing thing takes away
    #[arg(long, conflicts_with = "manifest")]
    host: bool,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

/// One finding, for `--json`.
#[derive(Debug, Serialize)]
struct Finding {
    severity: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    help: Vec<String>,
}

/// What was found, for `--json`.
#[derive(Debug, Serialize)]
struct Report {
    manifest: String,
    errors: usize,
    warnings: usize,
    findings: Vec<Finding>,
}

impl Report {
    /// What the manifest alone does not tell.
    fn add(&mut self, severity: Severity, message: String, is_quiet: bool) {
        let headline = match severity {
            Severity::Error => terminal::error_headline(),
            Severity::Warning => terminal::warning_headline(),
        };
        if !is_quiet {
            let _ = writeln!(std::io::stderr(), "{headline}{message}\n");
        }
        match severity {
            Severity::Error => self.errors += 1,
            Severity::Warning => self.warnings += 1,
        }
        self.findings.push(Finding {
            severity: word(severity),
            message,
            line: None,
            help: Vec::new(),
        });
    }
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

/// `pheromone check`.
pub fn execute(options: Options) -> Result<Status, Failure> {
    let Some(path) = options.manifest else {
        return host::execute(options.json);
    };
    let (diagnostics, app) = match pheromone_manifest::read(&path) {
        Ok(app) => (app.warnings.clone(), Some(app)),
        Err(found) => (found, None),
    };
    if !options.json {
        show(&diagnostics);
    }
    let mut report = report_of(&path.display().to_string(), &diagnostics);
    if let Some(app) = &app {
        let offers = Offers::here();
        if let Err(lacking) = pheromone_node::refuse_unprotected(app, &offers) {
            // It may run on another machine.
            report.add(Severity::Warning, lacking.to_string(), options.json);
        }
        for message in wrong_code(app, &offers) {
            report.add(Severity::Error, message, options.json);
        }
    }
    if options.json {
        terminal::print_json(&report)?;
    } else {
        terminal::print(&conclusion(&report, app.as_ref()))?;
    }
    Ok(if report.errors == 0 {
        Status::Success
    } else {
        Status::Failed
    })
}

fn show(diagnostics: &Diagnostics) {
    let text = diagnostics.render(terminal::colours(&std::io::stderr()));
    if !text.is_empty() {
        // Where standard error is closed, the exit status is what is left.
        let _ = write!(std::io::stderr(), "{text}");
    }
}

fn report_of(manifest: &str, diagnostics: &Diagnostics) -> Report {
    let findings = diagnostics.iter().map(|diagnostic| Finding {
        severity: word(diagnostic.severity),
        message: diagnostic.title.clone(),
        line: diagnostic
            .place
            .as_ref()
            .map(|(place, _)| diagnostics.line_of(place)),
        help: diagnostic.help.clone(),
    });
    Report {
        manifest: manifest.to_owned(),
        errors: diagnostics.count(Severity::Error),
        warnings: diagnostics.count(Severity::Warning),
        findings: findings.collect(),
    }
}

/// What is wrong with the code of an app whose manifest is right: it is compiled, and each library
/// is looked at in a process of its own.
fn wrong_code(app: &App, offers: &Offers) -> Vec<String> {
    match build(app, &BuildOptions::default()) {
        Ok(built) => {
            let wrong = pheromone_node::probe(app, &built, offers);
            wrong.iter().map(ToString::to_string).collect()
        }
        Err(error) => vec![error.to_string()],
    }
}

fn conclusion(report: &Report, app: Option<&App>) -> String {
    let count = |count: usize, what: &str| {
        let plural = if count == 1 { "" } else { "s" };
        format!("{count} {what}{plural}")
    };
    let mut text = format!("{}: ", report.manifest);
    match app {
        Some(app) if report.errors == 0 => {
            let spec = &app.spec;
            let triggers = spec
                .buckets
                .iter()
                .map(|bucket| bucket.triggers.len())
                .sum();
            text += &format!(
                "app `{}` is right: {}, {}, {}",
                spec.name,
                count(spec.functions.len(), "function"),
                count(spec.buckets.len(), "bucket"),
                count(triggers, "trigger"),
            );
        }
        _ => text += &count(report.errors, "error"),
    }
    if report.warnings > 0 {
        text += &format!(", {}", count(report.warnings, "warning"));
    }
    text + "\n"
}
