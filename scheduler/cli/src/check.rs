//! `pheromone check`: everything that is wrong with an app, at once; or what this machine offers.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use pheromone_executor::probe::probe_symbols;
use pheromone_manifest::{App, BuildOptions, Built, Diagnostics, Severity, build};
use pheromone_node::symbols_of;
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
        for message in wrong_code(app) {
            if !options.json {
                let headline = terminal::error_headline();
                let _ = writeln!(std::io::stderr(), "{headline}{message}\n");
            }
            report.errors += 1;
            report.findings.push(Finding {
                severity: "error",
                message,
                line: None,
                help: Vec::new(),
            });
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
        severity: match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
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
fn wrong_code(app: &App) -> Vec<String> {
    match build(app, &BuildOptions::default()) {
        Ok(built) => wrong_symbols(app, &built),
        Err(error) => vec![error.to_string()],
    }
}

fn wrong_symbols(app: &App, built: &Built) -> Vec<String> {
    let mut wrong = Vec::new();
    for (program, library) in built.libraries.iter().enumerate() {
        let symbols = symbols_of(app, program);
        if let Err(error) = probe_symbols(library, &symbols) {
            wrong.push(error.to_string());
        }
    }
    wrong
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
