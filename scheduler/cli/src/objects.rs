//! `pheromone get` and `delete`: objects of an app of a running node that outlive their sessions.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use hyper::Method;

use crate::call;
use crate::client::{Question, Target, part};
use crate::exit::{Failure, Status};

/// Options of `get` and `delete`.
#[derive(Args, Debug)]
#[command(after_help = "Exit status: 0 done; 1 there is no such object, or refused; 2 usage.")]
pub struct Options {
    /// The app
    #[arg(value_name = "APP", value_parser = NonEmptyStringValueParser::new())]
    app: String,
    /// The bucket
    #[arg(value_name = "BUCKET", value_parser = NonEmptyStringValueParser::new())]
    bucket: String,
    /// The key
    #[arg(value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    key: String,
    #[command(flatten)]
    target: Target,
}

/// `pheromone get`.
pub fn get(options: &Options) -> Result<Status, Failure> {
    ask(Method::GET, options)
}

/// `pheromone delete`.
pub fn delete(options: &Options) -> Result<Status, Failure> {
    ask(Method::DELETE, options)
}

fn ask(method: Method, options: &Options) -> Result<Status, Failure> {
    let path = format!(
        "/v1/apps/{}/buckets/{}/objects/{}",
        part(options.app.as_bytes()),
        part(options.bucket.as_bytes()),
        part(options.key.as_bytes())
    );
    call::conclude(&Question::new(method, path).ask(&options.target)?)
}
