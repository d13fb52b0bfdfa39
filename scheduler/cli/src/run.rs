//! `pheromone run`: an app from its manifest to its responses, in a node of its own.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use pheromone_manifest::App;
use pheromone_node::{NodeConfig, To};

use crate::calls::{Calls, Job, Pace};
use crate::embedded::Embedded;
use crate::exit::{Failure, Status};
use crate::input::Inputs;
use crate::responses::Responses;
use crate::stats::{Report, Snapshot};
use crate::{duration, manifest, signals, terminal};

/// Words of one `--put`, and of one `--get`.
const PUT_WORDS: usize = 3;

/// Options of `run`.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit status: 0 responded or completed; 1 failed or cancelled; 2 usage, \
    manifest or build error; 124 timed out; 130 interrupted."
)]
pub struct Options {
    /// The app's manifest
    #[arg(value_name = "APP.toml")]
    pub manifest: PathBuf,
    /// The function to call, instead of the app's entry
    #[arg(long, value_name = "F")]
    pub function: Option<String>,
    /// The request's body: a file, or - for standard input. Several are a call each
    #[arg(long, value_name = "FILE")]
    pub input: Vec<PathBuf>,
    /// The request's body as text
    #[arg(long, value_name = "TEXT", conflicts_with = "input")]
    pub arg: Option<String>,
    /// Put a file into a bucket, in a session of its own. Without --function, --input or --arg
    /// nothing else is called. May be given several times
    #[arg(long, num_args = PUT_WORDS, value_names = ["BUCKET", "KEY", "FILE"])]
    pub put: Vec<OsString>,
    /// Print an object
    #[arg(long, num_args = 2, value_names = ["BUCKET", "KEY"], hide = true)]
    pub get: Vec<OsString>,
    /// Write each response into a file of its own in this directory
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Make each call N times; only its first response is printed
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub repeat: u64,
    /// Calls open at once
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub inflight: u32,
    /// Deadline of each session, as in 500ms or 5s
    #[arg(long, value_name = "D", value_parser = duration::parse)]
    pub timeout: Option<Duration>,
    /// Executor processes, instead of the manifest's executors.max
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub executors: Option<u16>,
    /// Keep durable objects here (default: .pheromone/data beside the manifest, where the app has
    /// durable buckets or functions)
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// A session that completes without a response has failed
    #[arg(long)]
    pub expect_response: bool,
    /// Exit with 1 where there was an error event
    #[arg(long)]
    pub strict: bool,
    /// Write a trace
    #[arg(long, value_name = "FILE", hide = true)]
    pub trace: Option<PathBuf>,
    /// Tell on standard error what the calls took and what is left behind
    #[arg(long)]
    pub stats: bool,
    /// Write the statistics as JSON
    #[arg(long, requires = "stats")]
    pub json: bool,
}

/// `pheromone run`.
pub fn execute(options: Options) -> Result<Status, Failure> {
    refuse_what_comes_later(&options)?;
    let mut app = manifest::read(&options.manifest)?;
    if let Some(executors) = options.executors {
        app.set_executors_max(executors);
    }
    app.spec.response_required |= options.expect_response;
    let jobs = jobs(&app, &options)?;
    let mut responses = match &options.output {
        Some(directory) => {
            Responses::into_directory(directory, jobs.len() as u64 * options.repeat)?
        }
        None => Responses::StandardOutput,
    };
    let built = manifest::build_quietly(&app)?;
    let signals = signals::listen()?;
    let progress = progress_bar(jobs.len() as u64 * options.repeat);
    let config = NodeConfig {
        data: options.data.clone(),
        ..NodeConfig::default()
    };
    let embedded = Embedded::start(&app, &built, config, &progress)?;
    let name = app.spec.name.as_str();
    let before = options
        .stats
        .then(|| Snapshot::take(&embedded.node, name))
        .flatten();
    let pace = Pace {
        repeat: options.repeat,
        inflight: options.inflight as usize,
        timeout: options.timeout,
    };
    let calls = Calls::new(&embedded.node, name, jobs, pace, &mut responses, &progress);
    let (total, begun) = (calls.total(), Instant::now());
    let made = calls.make(&signals);
    let elapsed = begun.elapsed();
    progress.finish_and_clear();
    let after = match &before {
        Some(_) => Snapshot::take_settled(&embedded.node, name),
        None => None,
    };
    let told = events_of(&embedded, name, &options);
    let printed = embedded.stop();
    let mut status = made?;
    if options.strict && told.max(printed) > 0 {
        status.worsen(Status::Failed);
    }
    if let (Some(before), Some(after)) = (before, after) {
        let report = Report {
            calls: total,
            elapsed_ns: elapsed.as_nanos() as u64,
            before,
            after,
        };
        tell_stats(&report, options.json)?;
    }
    Ok(status)
}

/// Error events of the app, where it matters: the scheduler's count misses none.
fn events_of(embedded: &Embedded, app: &str, options: &Options) -> u64 {
    let counted = || {
        embedded
            .node
            .stats(app)
            .map(|stats| stats.error_events_total)
    };
    let counted = options.strict.then(counted).flatten().unwrap_or(0);
    counted.max(embedded.error_events())
}

fn tell_stats(report: &Report, json: bool) -> Result<(), Failure> {
    let text = if json {
        terminal::json(report)? + "\n"
    } else {
        report.text(terminal::colours(&std::io::stderr()))
    };
    // Where standard error is closed nobody wants to know.
    let _ = std::io::stderr().write_all(text.as_bytes());
    Ok(())
}

fn refuse_what_comes_later(options: &Options) -> Result<(), Failure> {
    if !options.get.is_empty() {
        return Err(Failure::not_in_this_build(
            "--get",
            "let a function respond with the object that it finds by phr_get",
        ));
    }
    if options.trace.is_some() {
        return Err(Failure::not_in_this_build(
            "--trace",
            "--stats tells counts and times, phr_log writes lines tagged with their invocation",
        ));
    }
    Ok(())
}

/// What is to be called: the puts, then the inputs.
fn jobs(app: &App, options: &Options) -> Result<Vec<Job>, Failure> {
    let mut inputs = Inputs::of_app(app.spec.limits.object_size_bytes);
    let mut jobs = Vec::new();
    for words in options.put.chunks_exact(PUT_WORDS) {
        jobs.push(put_job(app, words, &mut inputs)?);
    }
    let is_called =
        options.function.is_some() || options.arg.is_some() || !options.input.is_empty();
    if !is_called && !jobs.is_empty() {
        return Ok(jobs);
    }
    let to = destination(app, options.function.as_deref())?;
    let job = |name: String, body: Vec<u8>| Job {
        name,
        to: to.clone(),
        body,
        headers: Vec::new(),
    };
    for path in &options.input {
        jobs.push(job(Inputs::name(path), inputs.read(path)?));
    }
    if options.input.is_empty() {
        let body = options.arg.clone().unwrap_or_default().into_bytes();
        jobs.push(job(String::new(), body));
    }
    Ok(jobs)
}

fn put_job(app: &App, words: &[OsString], inputs: &mut Inputs) -> Result<Job, Failure> {
    let [bucket, key, path] = words else {
        return Err(Failure::usage("--put takes a bucket, a key and a file"));
    };
    let bucket = bucket.to_string_lossy().into_owned();
    if app.bucket_index(&bucket).is_none() {
        let known = app.spec.buckets.iter().map(|bucket| bucket.name.as_str());
        return Err(unknown(app, "bucket", &bucket, known));
    }
    let path = Path::new(path);
    Ok(Job {
        name: Inputs::name(path),
        to: To::Bucket {
            bucket,
            key: Some(key.as_encoded_bytes().to_vec()),
            group: Vec::new(),
        },
        body: inputs.read(path)?,
        headers: Vec::new(),
    })
}

fn destination(app: &App, function: Option<&str>) -> Result<To, Failure> {
    match function {
        Some(name) if app.function_index(name).is_some() => Ok(To::Function(name.to_owned())),
        Some(name) => {
            let known = app
                .spec
                .functions
                .iter()
                .map(|function| function.name.as_str());
            Err(unknown(app, "function", name, known))
        }
        None if app.spec.entry.is_some() => Ok(To::Entry),
        None => Err(Failure::usage(format!(
            "app `{}` has no `entry`: name a function by --function, put objects by --put, or set \
             an entry in {}",
            app.spec.name,
            app.manifest_path.display()
        ))),
    }
}

/// A name that the app does not have, with those that it has.
pub fn unknown<'a>(
    app: &App,
    what: &str,
    name: &str,
    known: impl Iterator<Item = &'a str>,
) -> Failure {
    let known: Vec<String> = known.map(|name| format!("`{name}`")).collect();
    let known = match known.as_slice() {
        [] => "none".to_owned(),
        known => known.join(", "),
    };
    Failure::usage(format!(
        "app `{}` has no {what} `{}`: it has {known}",
        app.spec.name,
        name.escape_debug()
    ))
}

/// A bar on a terminal, for more than one call; else nothing.
fn progress_bar(calls: u64) -> ProgressBar {
    if calls < 2 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{wide_bar} {human_pos}/{human_len} calls, {eta} left";
    let bar = ProgressBar::new(calls);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(line: &str) -> Options {
        Line::try_parse_from(format!("run app.toml {line}").split_whitespace())
            .expect("right usage")
            .options
    }

    fn app(entry: &str) -> App {
        let text = format!(
            "[app]\nname = \"a\"\n{entry}\n[functions.f]\nlibrary = \"/bin/sh\"\n[buckets.b]\n\
             [[buckets.b.triggers]]\ntype = \"immediate\"\nfunction = \"f\"\n"
        );
        pheromone_manifest::parse(&text, "app.toml", Path::new("/"))
            .unwrap_or_else(|found| panic!("{found}"))
    }

    #[test]
    fn without_anything_the_entry_is_called_once_with_an_empty_body() {
        let jobs = jobs(&app("entry = \"f\""), &options("")).expect("jobs");
        assert_eq!(jobs.len(), 1);
        assert_eq!(
            (&jobs[0].to, jobs[0].body.as_slice()),
            (&To::Entry, &b""[..])
        );
    }

    #[test]
    fn a_put_alone_calls_nothing_and_needs_no_entry() {
        let options = options("--put b k /dev/null --put b l /dev/null");
        let jobs = jobs(&app(""), &options).expect("jobs");
        let keys: Vec<_> = jobs
            .iter()
            .map(|job| match &job.to {
                To::Bucket { key: Some(key), .. } => key.clone(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(keys, [b"k".to_vec(), b"l".to_vec()]);
    }

    #[test]
    fn an_argument_is_the_body_and_comes_after_the_puts() {
        let options = options("--put b k /dev/null --arg text --function f");
        let jobs = jobs(&app(""), &options).expect("jobs");
        assert_eq!(jobs.len(), 2);
        assert_eq!(jobs[1].to, To::Function("f".into()));
        assert_eq!(jobs[1].body, b"text");
    }

    #[test]
    fn what_the_app_does_not_have_is_wrong_usage_and_named() {
        let app = app("");
        for line in [
            "",
            "--function g",
            "--put c k /dev/null",
            "--input /no/such/file --function f",
        ] {
            let failure = jobs(&app, &options(line)).expect_err(line);
            assert_eq!(failure.status, Status::Usage, "{line}");
        }
        let failure = jobs(&app, &options("--function g")).expect_err("unknown");
        assert!(format!("{failure:?}").contains("it has `f`"), "{failure:?}");
    }

    #[test]
    fn what_comes_later_is_refused_clearly() {
        for line in ["--trace t", "--get b k"] {
            let failure = refuse_what_comes_later(&options(line)).expect_err(line);
            assert_eq!(failure.status, Status::Usage);
            assert!(
                format!("{failure:?}").contains("not in this build yet"),
                "{failure:?}"
            );
        }
        assert!(refuse_what_comes_later(&options("")).is_ok());
    }
}
