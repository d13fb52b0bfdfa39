//! Libraries, initializers, names, and what is wrong with them.

use pheromone_executor::protocol::OutputKind;
use pheromone_sdk as sdk;
use pheromone_shm::message::{Ending, ToExecutor};

use crate::Test;
use crate::harness::{AppBuilder, library, library_of};

pub const TESTS: &[Test] = &[
    ("an_initializer_runs_once_and_leaves_a_pointer", initializer),
    (
        "a_failing_initializer_fails_the_attempt",
        broken_initializer,
    ),
    ("a_name_of_the_c_library_can_be_exported", clashing),
    ("what_cannot_be_loaded_is_said_in_one_sentence", not_loaded),
];

fn initializer() {
    let mut app = AppBuilder::new(&library("loading.c"), &["prepared", "unprepared"]);
    app.program.functions[1].config.clear();
    let mut world = app.start();
    let mut executor = world.executor(0);
    for _ in 0..3 {
        executor.run(0, &[]).ok();
    }
    assert_eq!(executor.texts(OutputKind::Stdout), ["initializing"]);
    assert_eq!(executor.loaded, 1, "it is said before the first call alone");
    executor.run(1, &[]).ok();
    assert_eq!(executor.loaded, 2);
    assert_eq!(executor.texts(OutputKind::Stdout), ["destroyed a"]);
    executor.answer(&ToExecutor::Exit);
    assert_eq!(world.exit_of(&executor), (Some(0), None));
    let mut last = executor.texts(OutputKind::Stdout);
    last.sort();
    assert_eq!(last, ["destroyed b", "destroyed the model"]);
}

fn broken_initializer() {
    let mut world = AppBuilder::new(&library("loading.c"), &["broken"]).start();
    let mut executor = world.executor(0);
    for _ in 0..2 {
        let done = executor.run(0, &[]);
        assert_eq!((done.ending, done.status), (Ending::InitFailed, 7));
        assert_eq!(done.message, "no model here");
    }
    assert_eq!(executor.loaded, 0);
}

fn clashing() {
    let mut world = AppBuilder::new(&library("loading.c"), &["log"]).start();
    let mut executor = world.executor(0);
    executor.run(0, &[]).ok();
}

/// Libraries that are wrong in one way each, and what is said of them.
pub fn wrong_libraries() -> Vec<(std::path::PathBuf, &'static str, String)> {
    let loading = library("loading.c");
    let header = "#include <pheromone.h>\n";
    let other_abi = library_of(
        "other-abi.c",
        &format!(
            "{header}#undef PHR_ABI_MAJOR\n#define PHR_ABI_MAJOR 9\n\
             PHR_FUNCTION(f) {{ return ctx == NULL; }}\n"
        ),
    );
    let undefined = library_of(
        "undefined.c",
        &format!(
            "{header}int helper(void);\nPHR_FUNCTION(f) {{ return ctx == NULL || helper(); }}\n"
        ),
    );
    let missing = crate::harness::folder().join("missing.so");
    let no_library = crate::harness::folder().join("no-library.so");
    std::fs::write(&no_library, "this is text\n").expect("the folder is writable");
    let abi = format!(
        "NAME was compiled for version 9.0 of the Pheromone ABI, and this is version {}.{}",
        sdk::ABI_MAJOR,
        sdk::ABI_MINOR
    );
    vec![
        (other_abi, "f", abi),
        (
            undefined,
            "f",
            "NAME cannot be loaded: it uses `helper`, which no library".into(),
        ),
        (
            needs_a_missing_library(),
            "f",
            "it needs libphr-gone.so, which the system".into(),
        ),
        (
            loading.clone(),
            "absent",
            "NAME has no symbol `absent`: define it by".into(),
        ),
        (
            loading.clone(),
            "unmarked",
            "NAME has `unmarked`, but without the mark".into(),
        ),
        (
            loading,
            "decide",
            "NAME: `decide` is a custom trigger".into(),
        ),
        (
            missing,
            "f",
            "NAME cannot be loaded: cannot open shared object file".into(),
        ),
        (no_library, "f", "NAME cannot be loaded: ".into()),
    ]
}

/// A library whose dependency has been removed after it was linked.
fn needs_a_missing_library() -> std::path::PathBuf {
    let folder = crate::harness::folder();
    let dependency = folder.join("libphr-gone.so");
    let source = folder.join("dependent.c");
    let library = folder.join("dependent.so");
    if !library.exists() {
        let gone = library_of("gone.c", "int gone(void) { return 1; }\n");
        std::fs::rename(gone, &dependency).expect("the folder is writable");
        std::fs::write(
            &source,
            "#include <pheromone.h>\nint gone(void);\n\
             PHR_FUNCTION(f) { return ctx == NULL || gone(); }\n",
        )
        .expect("the folder is writable");
        let search = format!("-L{}", folder.display());
        let made = crate::harness::compile(&source, &[&search, "-lphr-gone", "-Wl,-soname,x"]);
        std::fs::rename(made, &library).expect("the folder is writable");
        std::fs::remove_file(&dependency).expect("it is there");
    }
    library
}

fn not_loaded() {
    for (path, symbol, sentence) in wrong_libraries() {
        let mut app = AppBuilder::new(&path, &[symbol]);
        app.add(&library("calls.c"), "copy");
        let mut world = app.start();
        let mut executor = world.executor(0);
        let sentence = sentence.replace("NAME", "functions.so");
        for _ in 0..2 {
            let done = executor.run(0, &[]);
            assert_eq!(done.ending, Ending::NotLoaded);
            assert!(done.status < 0);
            assert!(
                done.message.contains(&sentence),
                "{} for {sentence}",
                done.message
            );
        }
        // The process is as good as before.
        let input = world.request(b"x");
        executor.run(1, &[input]).ok();
    }
}
