//! `pheromone dead-letters`: what is out of attempts, listed, run again or dropped.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};
use hyper::Method;
use serde_json::{Value, json};

use crate::client::{Answer, Question, Target, part};
use crate::exit::{Failure, Status};
use crate::{bytes, terminal};

/// Options of `dead-letters`.
#[derive(Args, Debug)]
pub struct Options {
    /// The app; all apps where none is named
    #[arg(value_name = "APP", value_parser = NonEmptyStringValueParser::new())]
    app: Option<String>,
    /// What to do with them; listed where nothing is said
    #[arg(value_name = "ACTION", requires = "which")]
    action: Option<Action>,
    #[command(flatten)]
    which: Which,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Which letters.
#[derive(Args, Debug)]
#[group(id = "which", multiple = false)]
struct Which {
    /// Ids of dead letters, as they are listed
    #[arg(value_name = "ID")]
    ids: Vec<u64>,
    /// All dead letters of the app
    #[arg(long, requires = "action")]
    all: bool,
}

/// What to do with dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Run them again over the same inputs, each in a session of its own
    Retry,
    /// Let go of them and of what they hold
    Drop,
}

/// `pheromone dead-letters`.
pub fn execute(options: &Options) -> Result<Status, Failure> {
    match (&options.app, options.action) {
        (Some(app), Some(Action::Retry)) => retry(options, app),
        (Some(app), Some(Action::Drop)) => drop_them(options, app),
        (app, _) => list(options, app.as_deref()),
    }
}

fn list(options: &Options, app: Option<&str>) -> Result<Status, Failure> {
    let path = app.map_or_else(|| "/v1/dead-letters".to_owned(), letters_of);
    let letters = json_of(&ask(options, Method::GET, path)?.expect(&[200])?)?;
    if options.json {
        terminal::print_json(&letters)?;
    } else {
        let colours = terminal::colours(&std::io::stdout());
        terminal::print(&table_of(&letters, colours))?;
    }
    Ok(Status::Success)
}

fn retry(options: &Options, app: &str) -> Result<Status, Failure> {
    let of = letters_of(app);
    let told = if options.which.all {
        let answer = ask(options, Method::POST, format!("{of}/retry"))?;
        json_of(&answer.expect(&[200])?)?
    } else {
        let (mut retried, mut refused) = (Vec::new(), Vec::new());
        for id in &options.which.ids {
            let answer = ask(options, Method::POST, format!("{of}/{id}/retry"))?;
            let id = id.to_string();
            match answer.session.clone().filter(|_| answer.status == 202) {
                Some(session) => retried.push(json!({ "id": id, "session": session })),
                None => refused.push(json!({ "id": id, "error": answer.problem() })),
            }
        }
        json!({ "retried": retried, "refused": refused })
    };
    let refused = list_of(&told["refused"]);
    if options.json {
        terminal::print_json(&told)?;
    } else {
        let mut text = String::new();
        for one in list_of(&told["retried"]) {
            let (id, session) = (text_of(&one["id"]), text_of(&one["session"]));
            text += &format!("dead letter {id} runs again in session {session}\n");
        }
        if text.is_empty() && refused.is_empty() {
            text = format!("app `{app}` has no dead letters\n");
        }
        terminal::print(&text)?;
        for one in refused {
            terminal::warn(text_of(&one["error"]));
        }
    }
    Ok(status_of(refused.is_empty()))
}

fn drop_them(options: &Options, app: &str) -> Result<Status, Failure> {
    let of = letters_of(app);
    let mut problems = Vec::new();
    let dropped = if options.which.all {
        let answer = ask(options, Method::DELETE, of)?;
        json_of(&answer.expect(&[200])?)?["dropped"]
            .as_u64()
            .unwrap_or(0)
    } else {
        let mut dropped = 0;
        for id in &options.which.ids {
            let answer = ask(options, Method::DELETE, format!("{of}/{id}"))?;
            if answer.status == 204 {
                dropped += 1;
            } else {
                problems.push(answer.problem());
            }
        }
        dropped
    };
    if options.json {
        terminal::print_json(&json!({ "dropped": dropped, "refused": problems }))?;
    } else {
        let what = match dropped {
            1 => "dead letter is",
            _ => "dead letters are",
        };
        terminal::print(&format!("{dropped} {what} dropped\n"))?;
        problems.iter().for_each(|problem| terminal::warn(problem));
    }
    Ok(status_of(problems.is_empty()))
}

fn status_of(is_all_done: bool) -> Status {
    if is_all_done {
        Status::Success
    } else {
        Status::Failed
    }
}

fn letters_of(app: &str) -> String {
    format!("/v1/apps/{}/dead-letters", part(app.as_bytes()))
}

fn ask(options: &Options, method: Method, path: String) -> Result<Answer, Failure> {
    Question::new(method, path).ask(&options.target)
}

fn json_of(answer: &Answer) -> Result<Value, Failure> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        Failure::failed(format!(
            "the node's answer is no JSON ({error}): is it of this version?"
        ))
    })
}

fn list_of(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn table_of(letters: &Value, colours: bool) -> String {
    let letters = list_of(letters);
    if letters.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let header = ["id", "app", "age", "inputs", "holds", "error"];
    let mut table = terminal::table(colours, &header, &[0, 2, 3, 4]);
    for letter in letters {
        let is_retryable = letter["is_retryable"].as_bool().unwrap_or(false);
        let held = letter["held_bytes"].as_u64().filter(|_| is_retryable);
        table.add_row([
            text_of(&letter["id"]).to_owned(),
            text_of(&letter["app"]).to_owned(),
            age(letter["age_ms"].as_u64().unwrap_or(0)),
            letter["inputs"].as_u64().unwrap_or(0).to_string(),
            held.map_or_else(|| "not kept".to_owned(), bytes::size),
            text_of(&letter["error"]).to_owned(),
        ]);
    }
    terminal::table_text(&table)
}

/// A length of time in its largest unit.
fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_letter_and_says_whose_inputs_were_not_kept() {
        let letters = json!([
            { "id": "7", "app": "words", "age_ms": 120_000, "inputs": 2, "held_bytes": 2048,
              "is_retryable": true, "error": "function `count` of app `words`: no" },
            { "id": "8", "app": "words", "age_ms": 60_000, "inputs": 3, "held_bytes": 0,
              "is_retryable": false, "error": "function `split` of app `words`: no" },
        ]);
        let text = table_of(&letters, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        let words: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(words[..6], ["7", "words", "2m", "2", "2.0", "KiB"]);
        assert!(lines[1].ends_with("function `count` of app `words`: no"));
        assert!(lines[2].contains("1m") && lines[2].contains("not kept"));
    }

    #[test]
    fn no_letters_are_said_to_be_none() {
        let text = table_of(&json!([]), false);
        assert_eq!(text, "no dead letters\n");
    }

    #[test]
    fn an_age_is_told_in_its_largest_unit() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (3599, "59m"), (90_000, "1d")] {
            assert_eq!(age(seconds * 1000), text);
        }
    }
}
