//! `pheromone invoke`: one function alone, with inputs from files, and everything that it publishes
//! listed.
//!
//! Of the app an app is derived in which that function is as it was, and everything else is a
//! recorder (`alone.rs`). It has one executor, so the recorder's copies are fetched from there by
//! further calls once the function is done (`records.rs`).

mod alone;
mod debugger;
mod records;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use crossbeam_channel::Receiver;
use indicatif::ProgressBar;
use pheromone_core::spec::Isolation;
use pheromone_node::{NodeConfig, To};
use serde::Serialize;

use self::alone::{Alone, LOAD, START};
use self::debugger::{Debugger, Kind};
use self::records::Record;
use crate::calls::{Calls, Job, Pace};
use crate::embedded::Embedded;
use crate::exit::{Failure, Status};
use crate::input::Inputs;
use crate::responses::Responses;
use crate::{duration, manifest, run, signals, terminal};

/// Options of `invoke`.
#[derive(Args, Debug)]
#[command(
    after_help = "The response goes to standard output, the list of what was published to \
    standard error.\n\nExit status: as of run."
)]
pub struct Options {
    /// The app's manifest
    #[arg(value_name = "APP.toml")]
    manifest: PathBuf,
    /// The function
    #[arg(value_name = "FUNCTION")]
    function: String,
    /// An input: a file, or - for standard input. Several are the inputs of one invocation, in
    /// this order
    #[arg(long, value_name = "FILE")]
    input: Vec<PathBuf>,
    /// An input as text; several as with --input
    #[arg(long, value_name = "TEXT", conflicts_with = "input")]
    arg: Vec<String>,
    /// The bucket that the inputs come from, instead of a call
    #[arg(long, value_name = "BUCKET")]
    bucket: Option<String>,
    /// The key of an input, in the order of the inputs (default: input-0, input-1, ...)
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
    /// The group of all inputs
    #[arg(
        long,
        value_name = "GROUP",
        default_value = "",
        hide_default_value = true
    )]
    group: String,
    /// What phr_request gives in an app with keep_request
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// Deadline of the invocation, as in 500ms or 5s
    #[arg(long, value_name = "D", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Write each published object, and the response, into a file of its own in this directory
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Attach a debugger before the function starts, with a breakpoint at its beginning
    #[arg(long, value_enum)]
    debugger: Option<Kind>,
    /// Answer in JSON on standard output, the response included
    #[arg(long)]
    json: bool,
}

/// What happened, for `--json`.
#[derive(Debug, Serialize)]
struct Report<'a> {
    function: &'a str,
    status: u8,
    response: Option<ResponseReport>,
    published: Vec<records::Summary>,
}

#[derive(Debug, Serialize)]
struct ResponseReport {
    size_bytes: usize,
    /// The whole response where it is text, else its beginning with bytes escaped.
    #[serde(flatten)]
    content: records::Content,
}

/// `pheromone invoke`.
pub fn execute(options: Options) -> Result<Status, Failure> {
    let mut app = manifest::read(&options.manifest)?;
    let Some(function) = app.function_index(&options.function) else {
        let known = app
            .spec
            .functions
            .iter()
            .map(|function| function.name.as_str());
        return Err(run::unknown(&app, "function", &options.function, known));
    };
    if options.debugger.is_some() && options.input.iter().any(|path| path.as_os_str() == "-") {
        return Err(Failure::usage(
            "standard input is the debugger's: give the input as a file",
        ));
    }
    let mut inputs = Inputs::of_app(app.spec.limits.object_size_bytes);
    let texts = options.arg.iter().map(|text| Ok(text.clone().into_bytes()));
    let files = options.input.iter().map(|path| inputs.read(path));
    let bodies = texts.chain(files).collect::<Result<Vec<_>, _>>()?;
    let request = match &options.request {
        Some(path) => Some(inputs.read(path)?),
        None => None,
    };
    if let Some(directory) = &options.output {
        std::fs::create_dir_all(directory).map_err(|error| {
            Failure::usage(format!(
                "cannot make the directory {}: {error}",
                directory.display()
            ))
        })?;
    }
    let symbol = app.functions[usize::from(function)].symbol.clone();
    let stage = alone::Stage::new(
        &app,
        &options.bucket,
        &options.key,
        &options.group,
        bodies,
        request,
    )?;
    let alone = Alone::derive(&mut app, function, &stage)?;
    let built = manifest::build_quietly(&app)?;
    let debugger = options.debugger.map(Debugger::find).transpose()?;
    if debugger.is_some() {
        // Nobody may look into a process that is shut in.
        app.spec.isolation = Isolation::None;
    }
    let signals = match &debugger {
        // Ctrl-C is the debugger's.
        Some(_) => signals::listen_to_termination()?,
        None => signals::listen()?,
    };
    let config = NodeConfig {
        pid_namespace: debugger.is_none(),
        ..NodeConfig::default()
    };
    let embedded = Embedded::start(&app, &built, config, &ProgressBar::hidden())?;
    let session = Session {
        embedded: &embedded,
        app: &app.spec.name,
        signals: &signals,
    };
    let invoked = session.invoke(&options, &alone, stage, debugger, &symbol);
    embedded.stop();
    let (status, response, records) = invoked?;
    if let Some(directory) = &options.output {
        write_all(directory, response.as_deref(), &records)?;
    }
    tell(&options, status, response, &records)?;
    Ok(status)
}

fn tell(
    options: &Options,
    status: Status,
    response: Option<Vec<u8>>,
    records: &[Record],
) -> Result<(), Failure> {
    if options.json {
        return terminal::print_json(&Report {
            function: &options.function,
            status: status.number(),
            response: response.map(|body| ResponseReport {
                size_bytes: body.len(),
                content: records::Content::whole(&body),
            }),
            published: records.iter().map(Record::summary).collect(),
        });
    }
    let text = match status {
        Status::Success => records::table(records, terminal::colours(&std::io::stderr())),
        // Failing drops what its session had queued, the recording of objects included.
        _ if records.is_empty() => "what was published has gone with its session\n".to_owned(),
        _ => records::table(records, terminal::colours(&std::io::stderr())),
    };
    // Where standard error is closed nobody wants to know.
    let _ = std::io::stderr().write_all(text.as_bytes());
    match response {
        Some(body) => terminal::print_bytes(&body),
        None => Ok(()),
    }
}

fn write_all(directory: &Path, response: Option<&[u8]>, records: &[Record]) -> Result<(), Failure> {
    let write = |name: &str, body: &[u8]| {
        let path = directory.join(name);
        std::fs::write(&path, body)
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))
    };
    for (index, record) in records.iter().enumerate() {
        write(&record.file_name(index, records.len()), &record.payload)?;
    }
    response.map_or(Ok(()), |body| write("response", body))
}

/// A node with the derived app.
struct Session<'a> {
    embedded: &'a Embedded,
    app: &'a str,
    signals: &'a Receiver<Status>,
}

/// How the function ended, what it answered, what it published.
type Invoked = (Status, Option<Vec<u8>>, Vec<Record>);

impl Session<'_> {
    fn invoke(
        &self,
        options: &Options,
        alone: &Alone,
        stage: alone::Stage,
        debugger: Option<Debugger>,
        symbol: &str,
    ) -> Result<Invoked, Failure> {
        let call = match stage {
            alone::Stage::Direct { body } => {
                self.job(To::Function(options.function.clone()), body, Vec::new())
            }
            alone::Stage::Bucket {
                bucket,
                inputs,
                group,
                request,
            } => {
                for (key, body) in inputs {
                    let headers = vec![
                        ("Pheromone-Key".to_owned(), key),
                        ("Pheromone-Group".to_owned(), group.clone()),
                    ];
                    self.must(self.job(To::Function(LOAD.to_owned()), body, headers))?;
                }
                let headers = vec![("Pheromone-Bucket".to_owned(), bucket)];
                self.job(
                    To::Function(START.to_owned()),
                    request.unwrap_or_default(),
                    headers,
                )
            }
        };
        let attached = match debugger {
            Some(debugger) => Some(debugger.attach(&self.embedded.node, self.app, symbol)?),
            None => None,
        };
        let (status, response) = self.call(call, options.timeout)?;
        let records = match status {
            // Whoever has interrupted waits for nothing more.
            Status::Interrupted | Status::Terminated | Status::HungUp => Vec::new(),
            _ => self.records(alone)?,
        };
        if let Some(attached) = attached {
            attached.wait()?;
        }
        Ok((status, response, records))
    }

    fn job(&self, to: To, body: Vec<u8>, headers: Vec<(String, String)>) -> Job {
        Job {
            name: String::new(),
            to,
            body,
            headers,
        }
    }

    /// One call: how it ended, and its response.
    fn call(
        &self,
        job: Job,
        timeout: Option<Duration>,
    ) -> Result<(Status, Option<Vec<u8>>), Failure> {
        let pace = Pace {
            repeat: 1,
            inflight: 1,
            timeout,
        };
        let mut responses = Responses::Kept(None);
        let progress = ProgressBar::hidden();
        let calls = Calls::new(
            &self.embedded.node,
            self.app,
            vec![job],
            pace,
            &mut responses,
            &progress,
        );
        let status = calls.make(self.signals)?;
        match responses {
            Responses::Kept(body) => Ok((status, body)),
            _ => Ok((status, None)),
        }
    }

    /// One call that fails only where something of ours is wrong, or memory is out.
    fn must(&self, job: Job) -> Result<Option<Vec<u8>>, Failure> {
        match self.call(job, None)? {
            (Status::Success, body) => Ok(body),
            (_, _) => Err(Failure::failed(
                "what stands around the function has failed, as told above",
            )),
        }
    }

    /// Fetches what was recorded, in the order of arrival, without the inputs.
    fn records(&self, alone: &Alone) -> Result<Vec<Record>, Failure> {
        let mut records = Vec::new();
        for index in 0.. {
            let call = |function: &str| {
                let to = To::Function(function.to_owned());
                self.must(self.job(to, format!("{index}\0").into_bytes(), Vec::new()))
            };
            let Some(description) = call(alone::DESCRIBE)? else {
                break;
            };
            let mut record = Record::read(&description).ok_or_else(|| {
                Failure::failed("what stands around the function describes an object wrongly")
            })?;
            if alone.is_input(&record) {
                continue;
            }
            record.payload = call(alone::FETCH)?.unwrap_or_default();
            alone.rename(&mut record);
            records.push(record);
        }
        records.sort_by_key(|record| record.arrival_ns);
        Ok(records)
    }
}
