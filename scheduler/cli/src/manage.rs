//! Commands that manage a running node: deploy, remove, cancel, ps.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use hyper::Method;
use serde_json::Value;

use crate::client::{Question, Target, part};
use crate::exit::{Failure, Status};
use crate::{bytes, duration, manifest, terminal};

/// Options of `deploy`.
#[derive(Args, Debug)]
pub struct DeployOptions {
    /// The app's manifest
    #[arg(value_name = "APP.toml")]
    manifest: PathBuf,
    #[command(flatten)]
    target: Target,
}

/// Options of `remove`.
#[derive(Args, Debug)]
pub struct RemoveOptions {
    /// The app
    #[arg(value_name = "APP", value_parser = NonEmptyStringValueParser::new())]
    app: String,
    /// How long open sessions may go on before they are cancelled, as in 30s
    #[arg(long, value_name = "D", default_value = "0s", value_parser = duration::parse)]
    drain: Duration,
    #[command(flatten)]
    target: Target,
}

/// Options of `cancel`.
#[derive(Args, Debug)]
pub struct CancelOptions {
    /// The session's id
    #[arg(value_name = "SESSION")]
    session: u64,
    #[command(flatten)]
    target: Target,
}

/// Options of `ps`.
#[derive(Args, Debug)]
pub struct PsOptions {
    /// Answer in JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// `pheromone deploy`. The manifest is read and built here first, so that what is wrong with it is
/// shown as always, and to whoever has written it.
pub fn deploy(options: &DeployOptions) -> Result<Status, Failure> {
    let app = manifest::read(&options.manifest)?;
    manifest::build_quietly(&app)?;
    let path = std::fs::canonicalize(&options.manifest).map_err(|error| {
        Failure::usage(format!(
            "cannot find {}: {error}",
            options.manifest.display()
        ))
    })?;
    let name = &app.spec.name;
    let question = Question {
        headers: vec![("content-type", "application/json".to_owned())],
        body: serde_json::json!({ "manifest": path })
            .to_string()
            .into_bytes(),
        ..Question::new(Method::PUT, format!("/v1/apps/{}", part(name.as_bytes())))
    };
    let answer = question.ask(&options.target)?;
    // What the node cannot use is wrong with the app, and was wrong here too.
    if matches!(answer.status, 400 | 422) {
        return Err(Failure::usage(answer.problem()));
    }
    answer.expect(&[200, 201, 204])?;
    terminal::print(&format!("app `{name}` is deployed\n"))?;
    Ok(Status::Success)
}

/// `pheromone remove`.
pub fn remove(options: &RemoveOptions) -> Result<Status, Failure> {
    let drain = duration::show(options.drain);
    let path = format!("/v1/apps/{}?drain={drain}", part(options.app.as_bytes()));
    let answer = Question::new(Method::DELETE, path).ask(&options.target)?;
    answer.expect(&[200, 202, 204])?;
    terminal::print(&format!("app `{}` is removed\n", options.app))?;
    Ok(Status::Success)
}

/// `pheromone cancel`.
pub fn cancel(options: &CancelOptions) -> Result<Status, Failure> {
    let path = format!("/v1/sessions/{}", options.session);
    let answer = Question::new(Method::DELETE, path).ask(&options.target)?;
    answer.expect(&[200, 202, 204])?;
    Ok(Status::Success)
}

/// `pheromone ps`.
pub fn ps(options: &PsOptions) -> Result<Status, Failure> {
    let answer = Question::new(Method::GET, "/v1/apps".to_owned())
        .ask(&options.target)?
        .expect(&[200])?;
    let apps: Value = serde_json::from_slice(&answer.body).map_err(|error| {
        Failure::failed(format!(
            "the node's answer is no JSON ({error}): is it of this version?"
        ))
    })?;
    if options.json {
        terminal::print_json(&apps)?;
    } else {
        let colours = terminal::colours(&std::io::stdout());
        terminal::print(&table_of(&apps, colours))?;
    }
    Ok(Status::Success)
}

/// The list of apps: the answer itself, or its field `apps`.
fn list_of(apps: &Value) -> &[Value] {
    let list = apps.as_array().or_else(|| apps["apps"].as_array());
    list.map_or(&[], Vec::as_slice)
}

fn table_of(apps: &Value, colours: bool) -> String {
    let apps = list_of(apps);
    if apps.is_empty() {
        return "no apps are deployed\n".to_owned();
    }
    let header = [
        "app",
        "version",
        "state",
        "executors",
        "idle",
        "sessions",
        "queued",
        "running",
        "objects",
        "memory",
        "errors",
    ];
    let numbers: Vec<usize> = (3..header.len()).collect();
    let mut table = terminal::table(colours, &header, &numbers);
    for app in apps {
        let stats = &app["stats"];
        let number = |name: &str| {
            stats[name]
                .as_u64()
                .map_or_else(|| "-".to_owned(), |number| number.to_string())
        };
        let leaving = app["leaving"].as_bool().unwrap_or(false);
        table.add_row([
            app["name"].as_str().unwrap_or("?").to_owned(),
            app["version"]
                .as_u64()
                .map_or_else(|| "-".to_owned(), |version| version.to_string()),
            match (leaving, app["trouble"].is_string()) {
                (true, _) => "leaving",
                (false, true) => "failing",
                (false, false) => "serving",
            }
            .to_owned(),
            number("executors"),
            number("executors_idle"),
            number("sessions_open"),
            number("queued"),
            number("running"),
            number("objects_live"),
            stats["used_bytes"]
                .as_u64()
                .map_or_else(|| "-".to_owned(), bytes::size),
            number("error_events_total"),
        ]);
    }
    let mut text = terminal::table_text(&table);
    for app in apps {
        if let (Some(name), Some(trouble)) = (app["name"].as_str(), app["trouble"].as_str()) {
            text.push_str(&format!("{name}: {trouble}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_version() {
        let apps = serde_json::json!([
            { "name": "words", "version": 2, "leaving": false,
              "stats": { "executors": 4, "sessions_open": 7, "used_bytes": 2048 } },
            { "name": "words", "version": 1, "leaving": true, "stats": null },
        ]);
        let text = table_of(&apps, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        let words: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(words[..4], ["words", "2", "serving", "4"]);
        assert!(lines[1].contains("2.0 KiB"), "{text}");
        assert!(lines[2].contains("leaving"), "{text}");
        assert_eq!(table_of(&serde_json::json!({ "apps": apps }), false), text);
    }

    #[test]
    fn what_is_wrong_with_an_app_is_said_below() {
        let apps = serde_json::json!([
            { "name": "words", "version": 1, "leaving": false, "trouble": "3 executors in a row" },
        ]);
        let text = table_of(&apps, false);
        assert!(text.contains("failing"), "{text}");
        assert!(text.ends_with("words: 3 executors in a row\n"), "{text}");
    }

    #[test]
    fn no_apps_are_said_to_be_none() {
        assert_eq!(
            table_of(&serde_json::json!([]), false),
            "no apps are deployed\n"
        );
    }
}
