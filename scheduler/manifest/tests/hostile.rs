//! Manifests that nobody would write: huge, deep, binary, mutated. Each ends in diagnostics or in
//! an app that the core takes, never in a panic.

use std::path::Path;
use std::time::{Duration, Instant};

use pheromone_manifest::{App, Diagnostics, Format, Purpose, ReadOptions, graph, parse_with, read};
use proptest::prelude::*;

/// Far more than any of these takes; only a loop that does not end, or grows with the square of a
/// megabyte, reaches it.
const WATCHDOG: Duration = Duration::from_secs(120);

fn look(text: &str) -> Result<App, Diagnostics> {
    let options = ReadOptions {
        purpose: Purpose::Look,
        executors_max: Some(4),
    };
    parse_with(text, "app.toml", Path::new("/apps/one"), &options)
}

/// What must hold whatever the text is.
fn judge(text: &str) {
    match look(text) {
        Ok(app) => {
            assert!(!app.warnings.has_errors());
            assert_eq!(
                app.spec.validate(),
                Ok(()),
                "the core refuses what was found right"
            );
            assert_eq!(app.functions.len(), app.spec.functions.len());
            assert!(
                app.functions
                    .iter()
                    .all(|code| code.program < app.programs.len())
            );
            for format in Format::ALL {
                assert!(!graph(&app, format).is_empty());
            }
        }
        Err(diagnostics) => {
            assert!(diagnostics.has_errors());
            assert!(!diagnostics.render(false).is_empty());
            assert!(!diagnostics.render(true).is_empty());
        }
    }
}

const WHOLE: &str = include_str!("graph/everything.toml");

#[test]
fn the_seed_of_mutations_is_right() {
    let app = look(WHOLE).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    assert_eq!(app.spec.validate(), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn mutated_manifests_end_in_diagnostics(
        edits in prop::collection::vec((0..WHOLE.len(), 0usize..40, ".{0,12}"), 1..6),
    ) {
        let mut bytes = WHOLE.as_bytes().to_vec();
        for (at, length, with) in edits {
            let at = at.min(bytes.len());
            let end = (at + length).min(bytes.len());
            bytes.splice(at..end, with.bytes());
        }
        judge(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn lines_in_any_order_end_in_diagnostics(order in prop::collection::vec(0usize..200, 1..80)) {
        let lines: Vec<_> = WHOLE.lines().collect();
        let text: Vec<_> = order.iter().map(|at| lines[at % lines.len()]).collect();
        judge(&text.join("\n"));
    }

    #[test]
    fn values_of_any_kind_end_in_diagnostics(
        at in 0usize..200,
        value in prop_oneof![
            Just("[]"), Just("{}"), Just("-1"), Just("0"), Just("18446744073709551616"),
            Just("nan"), Just("inf"), Just("-inf"), Just("1979-05-27"), Just("true"), Just("\"\""),
            Just("\"{0..9}\""), Just("[[]]"), Just("[{}]"), Just("\"\\u0000\""), Just("'~'"),
            Just("[\"split\"]"), Just("{ bucket = 1 }"), Just("\"9223372036854775807ns\""),
        ],
    ) {
        let lines: Vec<_> = WHOLE.lines().collect();
        let at = at % lines.len();
        let text: Vec<String> = lines.iter().enumerate().map(|(number, line)| {
            match line.split_once(" = ") {
                Some((key, _)) if number == at => format!("{key} = {value}"),
                _ => (*line).to_owned(),
            }
        }).collect();
        judge(&text.join("\n"));
    }

    #[test]
    fn any_text_ends_in_diagnostics(text in ".{0,300}") {
        judge(&text);
    }
}

#[test]
fn deep_nesting_is_refused_and_not_followed() {
    for (open, close) in [("[", "]"), ("{ a = ", " }")] {
        let text = format!(
            "[app]\nconfig = {}{}",
            open.repeat(100_000),
            close.repeat(100_000)
        );
        judge(&text);
    }
    judge(&format!("[{}]", vec!["a"; 100_000].join(".")));
    judge(&format!("{} = 1", vec!["a"; 100_000].join(".")));
}

#[test]
fn huge_manifests_take_no_time_that_grows_with_their_square() {
    let begun = Instant::now();
    let head = "[app]\nname = \"a\"\nlibrary = \"x.so\"\nentry = \"f0\"\n";
    let many = |line: &dyn Fn(usize) -> String, bytes: usize| {
        let mut text = String::from(head);
        for number in 0.. {
            let line = line(number);
            if text.len() + line.len() > bytes {
                return text;
            }
            text.push_str(&line);
        }
        text
    };
    let bytes = 200_000;
    judge(&many(&|number| format!("[functions.f{number}]\n"), bytes));
    judge(&many(
        &|number| format!("[functions.f{number}]\nnext = [\"g\"]\n"),
        bytes,
    ));
    judge(&many(
        &|number| format!("[functions.f{number}]\nsymbl = \"g\"\n"),
        bytes,
    ));
    judge(&many(
        &|number| format!("[functions.f{number}]\nlibrary = \"{number}.so\"\n"),
        bytes,
    ));
    judge(&many(
        &|number| {
            format!(
                "[functions.f{number}]\n[buckets.b{number}]\ntriggers = [{{type = \"immediate\", function = \"f{number}\"}}]\n"
            )
        },
        bytes,
    ));
    judge(&many(
        &|number| {
            format!(
                "[functions.f{number}]\nnext = [\"f{}\"]\n",
                number.saturating_sub(1)
            )
        },
        bytes,
    ));
    let set =
        "[functions.f0]\n[[buckets.b.triggers]]\ntype = \"by_set\"\nfunction = \"f0\"\nkeys = [";
    let keys: Vec<_> = (0..60_000).map(|number| format!("\"{number}\"")).collect();
    judge(&format!("{head}{set}{}]\n", keys.join(", ")));
    judge(&format!("{head}{set}\"{}\"]\n", "{0..9}".repeat(1000)));
    judge(&format!("{head}{set}\"{{0..1048575}}\"]\n"));
    let sets = (0..2000).map(|number| {
        let set = "type = \"by_set\"\nfunction = \"f0\"\nkeys = [\"{0..1048575}\"]\n";
        format!("[[buckets.b{number}.triggers]]\n{set}")
    });
    // Two thousand million keys, if anybody wrote them out.
    judge(&format!(
        "{head}[functions.f0]\n{}",
        sets.collect::<String>()
    ));
    let wide = "k".repeat(bytes);
    judge(&format!("[app]\nname = \"{wide}\"\n[functions.{wide}]\n"));
    assert!(begun.elapsed() < WATCHDOG);
}

#[test]
fn a_file_over_the_limit_is_refused() {
    let directory = tempfile::tempdir().expect("there is a temporary directory");
    let path = directory.path().join("app.toml");
    std::fs::write(&path, "# comment\n".repeat(200_000)).expect("it can be written");
    let diagnostics = read(&path).expect_err("it is too large");
    assert!(
        diagnostics.to_string().contains("over 1 MiB"),
        "{diagnostics}"
    );
    let text = "#".repeat((1 << 20) + 1);
    assert!(
        look(&text)
            .expect_err("it is too large")
            .to_string()
            .contains("over 1 MiB")
    );
}

#[test]
fn a_file_that_is_not_text_shows_the_byte() {
    let directory = tempfile::tempdir().expect("there is a temporary directory");
    let path = directory.path().join("app.toml");
    std::fs::write(&path, b"[app]\nname = \"a\xff\xfe\"\n").expect("it can be written");
    let shown = read(&path).expect_err("it is no text").to_string();
    assert!(
        shown.contains("not UTF-8") && shown.contains("0xff"),
        "{shown}"
    );
    assert!(shown.contains(":2:10"), "{shown}");
}

#[test]
fn what_is_no_file_is_refused() {
    let directory = tempfile::tempdir().expect("there is a temporary directory");
    let message = |path: &Path| read(path).expect_err("it is no manifest").to_string();
    assert!(message(&directory.path().join("missing.toml")).contains("No such file"));
    assert!(message(directory.path()).contains("is a directory"));
    std::fs::write(directory.path().join("app.toml"), "").expect("it can be written");
    assert!(message(directory.path()).contains("name the manifest in it"));
    // Neither may be opened: the one would wait, the other never end.
    assert!(message(Path::new("/dev/zero")).contains("not a regular file"));
}

#[test]
fn nothing_in_a_manifest_reaches_the_terminal_as_a_command() {
    let text = "[app]\nname = \"\\u001b[2J\\u202e\"\nentry = \"\\u001b]0;x\\u0007\"\nx = 1\n\
                [functions.\"\\u001b[31m\"]\n";
    let shown = look(text).expect_err("the names are wrong").render(false);
    assert!(
        !shown.contains('\u{1b}') && !shown.contains('\u{7}'),
        "{shown:?}"
    );
    assert!(!shown.contains('\u{202e}'), "{shown:?}");
}

#[test]
fn more_diagnostics_than_a_person_reads_are_counted() {
    let keys: Vec<_> = (0..500)
        .map(|number| format!("unknown{number} = 1"))
        .collect();
    let text = format!("[app]\nname = \"a\"\n{}\n", keys.join("\n"));
    let diagnostics = look(&text).expect_err("the keys are wrong");
    assert_eq!(diagnostics.iter().count(), 100);
    assert!(diagnostics.render(false).contains("more like these"));
}
