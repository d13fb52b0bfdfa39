//! The examples with triggers that gather: each agrees with its own `verify`, which computes the
//! same by other means, also at the edges of its input.
#![forbid(unsafe_code)]

use std::process::Command;

use pheromone_tests::{App, pheromone};

/// Runs the example's `verify` on a file beside it, or on its own data.
#[track_caller]
fn verify(app: &App, input: Option<&str>) {
    let output = Command::new("sh")
        .arg(app.path("verify"))
        .args(input.map(|name| app.path(name)))
        .env("PHEROMONE", pheromone())
        .output()
        .expect("start sh");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn poems_are_measured_as_awk_measures_them() {
    let app = App::example("join");
    verify(&app, None);
    for text in ["", "no poem at all\n", "# Title alone", "#\n\n# b\nx y'z"] {
        let app = App::example("join").file("text", text);
        verify(&app, Some("text"));
    }
}

#[test]
fn as_many_poems_as_there_are_are_joined() {
    let poems: String = (0..300).map(|i| format!("# {i}\none two\n")).collect();
    let app = App::example("join").file("text", poems);
    verify(&app, Some("text"));
    let run = app
        .run()
        .args(["--input", "text", "--strict"])
        .finish()
        .exits(0);
    let text = run.text();
    let rows: Vec<_> = text.lines().collect();
    assert_eq!(rows.len(), 300);
    let last = "   1 lines     2 words  299 (longest word: one)";
    assert_eq!(rows[299], last);
}

#[test]
fn a_log_is_summed_up_as_awk_sums_it_up() {
    let app = App::example("groups");
    verify(&app, None);
    let odd = "no request\n\"GET /a HTTP/1.1\" 200 7\n\"GET /b\" 404 -\n\n\"\" 200 1\n";
    for log in ["", "\n", odd, "\"GET /a HTTP/1.1\" 503 12"] {
        let app = App::example("groups").file("log", log);
        verify(&app, Some("log"));
    }
}

#[test]
fn words_asked_for_by_many_callers_are_counted_as_awk_counts_them() {
    let app = App::example("batch");
    verify(&app, None);
    app.run_on("rabbit\n").finish().exits(0).prints("51\n");
    let run = app.run_on("2 words").finish().exits(1);
    run.complains(&["look_up", "a question is one word"]);
}

#[test]
fn windows_that_follow_each_other_have_each_line_of_a_log_once() {
    let app = App::example("window");
    verify(&app, None);
    for log in ["", "\n", "\"GET /a HTTP/1.1\" 503 12"] {
        let app = App::example("window").file("log", log);
        verify(&app, Some("log"));
    }
}

#[test]
fn the_first_two_of_five_searches_solve_each_puzzle() {
    let app = App::example("redundant");
    verify(&app, None);
}

#[test]
fn a_puzzle_without_a_solution_fails_and_is_named() {
    let unsolvable = format!("12345678.........9{}\n", ".".repeat(63));
    let app = App::example("redundant").file("puzzles", unsolvable);
    let run = app.run().args(["--input", "puzzles"]).finish().exits(1);
    run.complains(&["search", "puzzle-0000 has no solution"]);
    let run = app.run().args(["--input", "app.toml"]).finish().exits(1);
    run.complains(&["deal", "is no Sudoku"]);
}

#[test]
fn chapters_whose_counting_died_are_counted_again_and_each_is_there() {
    let app = App::example("failures");
    verify(&app, None);
    let long = "CHAPTER with-counterrevolutionaries";
    for text in [
        "",
        "no chapter\n",
        "CHAPTER ",
        long,
        "x\n  CHAPTER a\n\nCHAPTER b c\n",
    ] {
        let app = App::example("failures").file("text", text);
        verify(&app, Some("text"));
    }
}

#[test]
fn a_text_is_broken_into_pages_by_a_trigger_of_ones_own() {
    let words = App::example("wordcount");
    let alice = std::fs::read(words.path("alice29.txt")).expect("the text is there");
    for text in [&alice[..], b"", b"\n", b"one line\n"] {
        let app = App::example("custom").file("text", text);
        verify(&app, Some("text"));
    }
}
