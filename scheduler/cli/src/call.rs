//! `pheromone call`: one call to an app of a running node.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use hyper::Method;

use crate::client::{Answer, Question, Target, part, timeout_header};
use crate::exit::{Failure, Status};
use crate::input::Inputs;
use crate::{duration, terminal};

/// Options of `call`.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit status: 0 responded or completed; 1 failed, cancelled or refused; \
    2 usage; 124 timed out."
)]
pub struct Options {
    /// The app
    #[arg(value_name = "APP", value_parser = NonEmptyStringValueParser::new())]
    app: String,
    /// The function (default: the app's entry)
    #[arg(value_name = "FUNCTION", value_parser = NonEmptyStringValueParser::new())]
    function: Option<String>,
    /// The request's body: a file, or - for standard input
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The request's body as text
    #[arg(long, value_name = "TEXT", conflicts_with = "input")]
    arg: Option<String>,
    /// Deadline of the session, as in 500ms or 5s
    #[arg(long, value_name = "D", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Print the session's id at once instead of waiting for its response
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    target: Target,
}

/// `pheromone call`.
pub fn execute(options: Options) -> Result<Status, Failure> {
    let body = match (&options.input, options.arg) {
        (Some(path), _) => Inputs::of_node().read(path)?,
        (None, Some(text)) => text.into_bytes(),
        (None, None) => Vec::new(),
    };
    let app = part(options.app.as_bytes());
    let mut path = match &options.function {
        Some(function) => format!("/v1/apps/{app}/functions/{}", part(function.as_bytes())),
        None => format!("/v1/apps/{app}"),
    };
    if options.no_wait {
        path.push_str("?wait=false");
    }
    let question = Question {
        body,
        headers: options.timeout.map(timeout_header).into_iter().collect(),
        ..Question::new(Method::POST, path)
    };
    conclude(&question.ask(&options.target)?)
}

/// Prints what a call or a waiting put was answered, and gives the exit status that it means.
pub fn conclude(answer: &Answer) -> Result<Status, Failure> {
    match meaning(answer) {
        Meaning::Response => {
            terminal::print_bytes(&answer.body)?;
            Ok(Status::Success)
        }
        Meaning::Nothing => Ok(Status::Success),
        Meaning::Accepted => {
            let session = answer.session.as_deref().unwrap_or("?");
            terminal::print(&format!("{session}\n"))?;
            Ok(Status::Success)
        }
        Meaning::Ended(status) => {
            Failure::failed(answer.problem()).tell();
            Ok(status)
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    /// The body is a function's response.
    Response,
    /// Completed without one.
    Nothing,
    /// Not waited for.
    Accepted,
    /// Otherwise, as the body says.
    Ended(Status),
}

fn meaning(answer: &Answer) -> Meaning {
    match answer.status {
        204 => Meaning::Nothing,
        202 => Meaning::Accepted,
        // A function may give its response any status; what the node itself says is marked.
        _ if !answer.is_problem => Meaning::Response,
        200..300 => Meaning::Response,
        504 => Meaning::Ended(Status::TimedOut),
        _ => Meaning::Ended(Status::Failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, is_problem: bool) -> Answer {
        Answer {
            status,
            session: Some("7".into()),
            is_problem,
            body: Vec::new(),
        }
    }

    #[test]
    fn every_answer_has_its_exit_status() {
        assert_eq!(meaning(&answer(200, false)), Meaning::Response);
        assert_eq!(meaning(&answer(200, true)), Meaning::Response);
        assert_eq!(meaning(&answer(204, false)), Meaning::Nothing);
        assert_eq!(meaning(&answer(202, true)), Meaning::Accepted);
        for status in [400, 404, 409, 413, 429, 502, 503] {
            assert_eq!(
                meaning(&answer(status, true)),
                Meaning::Ended(Status::Failed),
                "{status}"
            );
        }
        assert_eq!(
            meaning(&answer(504, true)),
            Meaning::Ended(Status::TimedOut)
        );
    }

    #[test]
    fn a_function_may_answer_with_any_status() {
        assert_eq!(meaning(&answer(404, false)), Meaning::Response);
    }
}
