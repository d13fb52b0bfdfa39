//! `pheromone put`: one object into a bucket of an app of a running node.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use hyper::Method;

use crate::client::{Question, Target, part, timeout_header};
use crate::exit::{Failure, Status};
use crate::input::Inputs;
use crate::{call, duration};

/// Options of `put`.
#[derive(Args, Debug)]
#[command(
    after_help = "Prints the session's id, or with --wait the response.\n\n\
    Exit status: as of call."
)]
pub struct Options {
    /// The app
    #[arg(value_name = "APP", value_parser = NonEmptyStringValueParser::new())]
    app: String,
    /// The bucket
    #[arg(value_name = "BUCKET", value_parser = NonEmptyStringValueParser::new())]
    bucket: String,
    /// The key (default: an automatic one)
    #[arg(value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    key: Option<String>,
    /// The group
    #[arg(long, value_name = "G")]
    group: Option<String>,
    /// Join this open session instead of opening one
    #[arg(long, value_name = "ID")]
    session: Option<u64>,
    /// The payload: a file, or - for standard input
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The payload as text
    #[arg(long, value_name = "TEXT", conflicts_with = "input")]
    arg: Option<String>,
    /// Deadline of the session, as in 500ms or 5s
    #[arg(long, value_name = "D", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Wait for the end of the session, as call does
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    target: Target,
}

/// `pheromone put`.
pub fn execute(options: Options) -> Result<Status, Failure> {
    let body = match (&options.input, &options.arg) {
        (Some(path), _) => Inputs::of_node().read(path)?,
        (None, Some(text)) => text.clone().into_bytes(),
        (None, None) => Vec::new(),
    };
    let (method, path) = address(&options);
    let mut headers: Vec<_> = options.timeout.map(timeout_header).into_iter().collect();
    if let Some(group) = options.group {
        headers.push(("pheromone-group", group));
    }
    if let Some(session) = options.session {
        headers.push(("pheromone-session", session.to_string()));
    }
    let question = Question {
        body,
        headers,
        ..Question::new(method, path)
    };
    call::conclude(&question.ask(&options.target)?)
}

fn address(options: &Options) -> (Method, String) {
    let bucket = format!(
        "/v1/apps/{}/buckets/{}",
        part(options.app.as_bytes()),
        part(options.bucket.as_bytes())
    );
    let query = if options.wait { "?wait=true" } else { "" };
    match &options.key {
        Some(key) => (
            Method::PUT,
            format!("{bucket}/objects/{}{query}", part(key.as_bytes())),
        ),
        None => (Method::POST, format!("{bucket}{query}")),
    }
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

    #[test]
    fn a_key_is_put_and_without_one_it_is_posted() {
        let of = |line: &str| {
            let words = format!("put {line}");
            let line = Line::try_parse_from(words.split(' ')).expect("right usage");
            let (method, path) = address(&line.options);
            format!("{method} {path}")
        };
        assert_eq!(of("a b k/l"), "PUT /v1/apps/a/buckets/b/objects/k%2Fl");
        assert_eq!(of("a b --wait"), "POST /v1/apps/a/buckets/b?wait=true");
    }
}
