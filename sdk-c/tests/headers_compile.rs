//! The headers compile, without a warning, in each language they promise to be.

#[path = "support/mod.rs"]
mod support;

use std::process::Command;
use support::{compile, sdk};

const SHARED: [&str; 2] = ["-shared", "-fPIC"];

fn everything(compiler: &str, arguments: &[&str]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = folder.path().join("everything.so");
    let arguments: Vec<&str> = SHARED.iter().chain(arguments).copied().collect();
    compile(
        compiler,
        &arguments,
        &sdk().join("tests/c/everything.c"),
        &output,
    );

    let symbols = Command::new("nm")
        .arg("-D")
        .arg("--defined-only")
        .arg(&output)
        .output();
    let symbols = symbols.expect("nm starts");
    let symbols = String::from_utf8_lossy(&symbols.stdout).into_owned();
    let mut names: Vec<&str> = symbols
        .lines()
        .filter_map(|l| l.split(' ').next_back())
        .collect();
    names.retain(|name| !name.starts_with('_'));
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "decide",
            "everything",
            "log",
            "phr_abi_decide",
            "phr_abi_everything",
            "phr_abi_log",
            "phr_abi_phr_init_everything",
            "phr_init_everything",
        ]
    );
}

#[test]
fn everything_compiles_as_c11() {
    everything("cc", &["-std=c11"]);
}

#[test]
fn everything_compiles_as_c11_with_hidden_visibility_and_strict_prototypes() {
    everything(
        "cc",
        &[
            "-std=c11",
            "-fvisibility=hidden",
            "-Wshadow",
            "-Wconversion",
            "-Wcast-qual",
            "-Wstrict-prototypes",
            "-Wmissing-prototypes",
        ],
    );
}

#[test]
fn everything_compiles_as_cpp17() {
    everything("c++", &["-std=c++17", "-x", "c++"]);
}

#[test]
fn every_call_has_exactly_the_type_that_was_promised() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = folder.path().join("signatures.so");
    for (compiler, language) in [
        ("cc", &["-std=c11"][..]),
        ("c++", &["-std=c++17", "-x", "c++"]),
    ] {
        let arguments: Vec<&str> = SHARED.iter().chain(language).copied().collect();
        let source = sdk().join("tests/c/signatures.c");
        compile(compiler, &arguments, &source, &output);
    }
}

#[test]
fn the_header_alone_needs_nothing_before_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = folder.path().join("alone.c");
    std::fs::write(
        &source,
        "#include <pheromone.h>\nPHR_FUNCTION(f) { return ctx == NULL; }\n",
    )
    .expect("the folder is writable");
    let output = folder.path().join("alone.so");
    compile("cc", &["-std=c11", "-shared", "-fPIC"], &source, &output);
}

#[test]
fn a_wrong_format_is_a_compile_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = folder.path().join("format.c");
    std::fs::write(
        &source,
        "#include <pheromone.h>\nPHR_FUNCTION(f) { return phr_fail(ctx, 1, \"%s\", 1); }\n",
    )
    .expect("the folder is writable");
    let out = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Werror", "-fsyntax-only", "-I"])
        .arg(sdk().join("include"))
        .arg(&source)
        .output()
        .expect("the system's C compiler starts");
    assert!(!out.status.success());
    assert!(String::from_utf8_lossy(&out.stderr).contains("-Werror=format"));
}

#[test]
fn the_published_platforms_functions_compile() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = folder.path().join("compat.so");
    let include = sdk().join("include/compat");
    let include = include.to_str().expect("the checkout's path is text");
    compile(
        "c++",
        &["-std=c++17", "-shared", "-fPIC", "-I", include],
        &sdk().join("tests/c/compat.cpp"),
        &output,
    );
}

#[test]
fn the_test_files_use_every_call() {
    let text = |path: &str| std::fs::read_to_string(sdk().join(path)).expect("it is there");
    let (header, everything) = (text("include/pheromone.h"), text("tests/c/everything.c"));
    let signatures = text("tests/c/signatures.c");
    let mut calls = 0;
    for line in header
        .lines()
        .filter(|line| line.starts_with("static inline "))
    {
        let name = line[..line.find('(').expect("a call")]
            .rsplit([' ', '*'])
            .next();
        let name = name.expect("a name");
        assert!(
            everything.contains(&format!("{name}(")),
            "everything.c does not use {name}"
        );
        // What the compat header alone calls is not promised.
        assert!(
            name == "phr_arguments" || signatures.contains(&format!(" {name},")),
            "signatures.c does not name {name}"
        );
        calls += 1;
    }
    assert!(calls > 60, "found only {calls} calls in the header");
}
