//! What somebody meets who has the README and nothing else: the first function, the templates, and
//! what goes wrong on the first day, each with a sentence that says what to do.
#![forbid(unsafe_code)]

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{self, Stdio};

use nix::sys::signal::Signal;
use pheromone_tests::{App, Server, pheromone, until};

const README: &str = include_str!("../../README.md");

/// The README's first block in this language.
fn block(language: &str) -> &'static str {
    let (_, rest) = README
        .split_once(&format!("```{language}\n"))
        .expect("the block begins");
    rest.split_once("```").expect("the block ends").0
}

fn greet() -> App {
    App::new(block("toml")).file("greet.c", block("c"))
}

#[test]
fn the_first_function_of_the_readme_works_as_it_stands() {
    let app = greet();
    let run = app.run().args(["--arg", "world"]).finish().exits(0);
    run.prints("Hello, world");
    let graph = app.command(["graph", "app.toml"]).finish().exits(0).text();
    for line in ["call ──▶ hello", "[greetings]", "immediate ─▶ answer"] {
        assert!(graph.contains(line), "no {line:?} in:\n{graph}");
    }
    let server = Server::start(&[&app]);
    let call = server.command(&["call", "greet", "--arg", "world"]);
    call.finish().exits(0).prints("Hello, world");
    server.stop().exits(0);
}

// ------------------------------------------------------------------------------- templates

/// The templates that `new --help` offers.
fn offered(app: &App) -> Vec<String> {
    let help = app.command(["new", "--help"]).finish().exits(0).text();
    let (_, values) = help
        .split_once("Possible values:\n")
        .expect("it lists templates");
    values
        .lines()
        .map_while(|line| line.trim().strip_prefix("- "))
        .map(|line| line.split(':').next().unwrap_or_default().to_owned())
        .collect()
}

/// How the answer to a template's own example begins.
fn beginning_of_answer(template: &str) -> &'static str {
    match template {
        "chain" => "75 words, the longest of 8 letters\na 18\n",
        "fanout" => "664579 primes\n",
        "mapreduce" => "the 11\n",
        "stream" => "75 events in ",
        "batch" => "75 words\n",
        _ => panic!("say how the answer of the template {template} begins"),
    }
}

#[test]
fn every_template_that_is_offered_works_as_new_says() {
    let app = App::new("");
    let templates = offered(&app);
    assert!(templates.len() >= 5, "{templates:?}");
    for template in &templates {
        let made = app.command(["new", template, "--template", template]);
        let said = made.finish().exits(0).text();
        let at = |word: &str| match word {
            "app.toml" | "input.txt" => format!("{template}/{word}"),
            word => word.to_owned(),
        };
        let checked = app.command(["check", &at("app.toml")]).finish().exits(0);
        assert!(checked.text().contains("is right"), "{}", checked.text());
        let built = app.command(["build", &at("app.toml")]).finish().exits(0);
        for library in built.text().lines() {
            assert!(Path::new(library).is_file(), "{library} is not there");
        }
        let graph = app.command(["graph", &at("app.toml")]).finish().exits(0);
        assert!(graph.text().contains("call ──▶"), "{}", graph.text());
        // What `new` tells to type last, word for word.
        let example = said
            .lines()
            .rev()
            .find_map(|line| line.trim().strip_prefix("pheromone "));
        let example = example.unwrap_or_else(|| panic!("no command in:\n{said}"));
        let run = app.command(example.split(' ').map(at)).finish().exits(0);
        let answer = run.text();
        assert!(
            answer.starts_with(beginning_of_answer(template)),
            "{template} answers:\n{answer}"
        );
        // It does not write over what is there.
        app.command(["new", template, "--template", template])
            .finish()
            .exits(2)
            .complains(&["not empty"]);
    }
}

// ---------------------------------------------------------------------------- the first day

#[test]
fn without_a_compiler_what_is_built_runs_and_what_is_not_says_what_to_install() {
    let app = greet();
    let run = app.run().env("PATH", "/nonexistent").finish();
    run.exits(2)
        .complains(&["cannot start the compiler `cc`", "install"]);
    app.command(["build", "app.toml"]).finish().exits(0);
    let run = app.run().env("PATH", "/nonexistent");
    run.args(["--arg", "x"])
        .finish()
        .exits(0)
        .prints("Hello, x");
}

/// Means something where this does not run as root, who may write everywhere.
#[test]
fn a_directory_that_can_only_be_read_is_enough_for_what_is_built() {
    let app = greet();
    app.command(["build", "app.toml"]).finish().exits(0);
    let chmod = |mode| {
        for directory in [".pheromone/build", ".pheromone/include", ".pheromone"] {
            let permissions = Permissions::from_mode(mode);
            fs::set_permissions(app.path(directory), permissions).expect("chmod");
        }
        let lock = app.path(".pheromone/build/lock");
        fs::set_permissions(lock, Permissions::from_mode(mode & 0o666)).expect("chmod");
    };
    chmod(0o555);
    app.run().args(["--arg", "x"]).finish().exits(0);
    app.command(["check", "app.toml"]).finish().exits(0);
    let changed = format!("{}\n/* changed */\n", block("c"));
    fs::write(app.path("greet.c"), changed).expect("write the source");
    let run = app.run().args(["--arg", "x"]).finish();
    if !nix::unistd::geteuid().is_root() {
        run.exits(2).complains(&["cannot build in", "writable"]);
    }
    chmod(0o755);
}

#[test]
fn an_input_without_an_end_is_refused() {
    let app = greet();
    app.run()
        .args(["--input", "/dev/zero"])
        .finish()
        .exits(2)
        .complains(&["/dev/zero", "1073741824", "limits.object_size"]);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let app = App::example("wordcount");
    app.command(["build", "app.toml"]).finish().exits(0);
    for arguments in [
        &["graph", "app.toml", "--format", "svg"][..],
        &["run", "app.toml", "--input", "alice29.txt"],
        &["check", "--host"],
        &["--help"],
    ] {
        let mut child = process::Command::new(pheromone())
            .args(arguments)
            .current_dir(app.path(""))
            .env("TMPDIR", app.path(""))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start pheromone");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {complaints}");
        assert!(!complaints.contains("error"), "{arguments:?}: {complaints}");
    }
}

#[test]
fn what_is_no_manifest_does_not_fill_the_screen() {
    let app = greet();
    let run = app.command(["run", "greet.c"]).finish().exits(2);
    assert!(run.stderr.lines().count() < 50, "{}", run.stderr);
    run.complains(&["greet.c:", "not TOML", "more like these"]);
}

#[test]
fn a_place_that_is_taken_or_cannot_be_is_named_with_the_way_out() {
    let app = greet();
    app.command(["build", "app.toml"]).finish().exits(0);
    let serve = |arguments: &[&str]| {
        let command = app.command(["serve", "app.toml"]);
        command.args(arguments).finish()
    };
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("its address").to_string();
    serve(&["--listen", &address, "--socket", "s"])
        .exits(1)
        .complains(&[&address, "in use", "--listen"]);
    let anywhere = ["--listen", "127.0.0.1:0", "--socket"];
    serve(&[&anywhere[..], &["greet.c"]].concat())
        .exits(1)
        .complains(&["greet.c", "no socket is there", "--socket"]);
    let long = "s".repeat(120);
    serve(&[&anywhere[..], &[&long]].concat())
        .exits(2)
        .complains(&["120 bytes", "--socket"]);
    serve(&["--listen", "localhost:7070"])
        .exits(2)
        .complains(&["127.0.0.1:7070"]);
    assert!(app.path("greet.c").is_file(), "it was replaced");
}

#[test]
fn a_body_that_is_too_large_is_refused_by_the_node_in_its_own_words() {
    let limits = "[app.limits]\nobject_size = \"64KiB\"\n\n[functions.hello]";
    let app = App::new(&block("toml").replacen("[functions.hello]", limits, 1))
        .file("greet.c", block("c"))
        .file("large", vec![b'x'; 32 << 20]);
    let server = Server::start(&[&app]);
    let large = app.path("large");
    let large = large.to_str().expect("a path that is text");
    for command in [
        &["call", "greet", "--input", large][..],
        &["put", "greet", "greetings", "key", "--input", large],
    ] {
        let refused = server.command(command).finish();
        refused.exits(1).complains(&["65536", "limits.object_size"]);
    }
    let call = server.command(&["call", "greet", "--arg", "small"]);
    call.finish().exits(0).prints("Hello, small");
    server.stop().exits(0);
}

#[test]
fn an_empty_name_is_wrong_usage() {
    let app = App::new("");
    for command in [
        &["call", ""][..],
        &["call", "app", ""],
        &["put", "app", "bucket", ""],
        &["remove", ""],
    ] {
        app.command(command).finish().exits(2);
    }
}

#[test]
fn a_benchmark_that_is_interrupted_leaves_nothing_behind() {
    let app = App::new("");
    let mut bench = app
        .command(["bench", "chain", "--length", "1000", "--sessions", "100000"])
        .start();
    until("the functions run", || !bench.executors().is_empty());
    assert!(bench.is_running());
    bench.signal(Signal::SIGINT);
    bench.finish().exits(130);
}
