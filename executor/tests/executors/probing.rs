//! Looking at a library without loading it into this process.

use pheromone_executor::probe::{ProbeError, probe_symbols};

use crate::Test;
use crate::harness::{library, library_of};
use crate::loading::wrong_libraries;

pub const TESTS: &[Test] = &[
    ("a_good_library_is_found_good", good),
    ("each_wrong_library_is_named_with_its_cause", wrong),
    ("a_constructor_that_crashes_or_exits_is_told", crashing),
    ("a_constructor_that_hangs_is_ended", hanging),
];

fn good() {
    let symbols = [
        ("first", "prepared"),
        ("second", "log"),
        ("third", "broken"),
    ];
    probe_symbols(&library("loading.c"), &symbols).expect("a good library");
    probe_symbols(&library("loading.c"), &[]).expect("a good library");
}

fn wrong() {
    for (path, symbol, sentence) in wrong_libraries() {
        let error = probe_symbols(&path, &[("count", symbol)]).expect_err("it is wrong");
        let said = error.to_string();
        let sentence = sentence.replace("NAME", &path.display().to_string());
        assert!(said.contains(&sentence), "{said} for {sentence}");
        assert!(said.starts_with("function `count`: "), "{said}");
    }
    let (path, _, _) = &wrong_libraries()[1];
    let six = ["a", "b", "c", "d", "e", "f"].map(|name| (name, name));
    let said = probe_symbols(path, &six)
        .expect_err("it is wrong")
        .to_string();
    assert!(
        said.starts_with("functions `a`, `b`, `c`, `d` and 2 more: "),
        "{said}"
    );
    let symbols = [("a", "absent"), ("b", "prepared"), ("c", "unmarked")];
    let error = probe_symbols(&library("loading.c"), &symbols).expect_err("two are wrong");
    let ProbeError::Functions(errors) = error else {
        panic!("{error}")
    };
    let functions: Vec<&str> = errors.iter().map(|error| error.function.as_str()).collect();
    assert_eq!(functions, ["a", "c"]);
}

fn constructor(name: &str, body: &str) -> std::path::PathBuf {
    library_of(
        name,
        &format!(
            "#include <pheromone.h>\n#include <stdlib.h>\n#include <unistd.h>\n\
             __attribute__((constructor)) static void start(void) {{ {body} }}\n\
             PHR_FUNCTION(f) {{ return ctx == NULL; }}\n"
        ),
    )
}

fn crashing() {
    for (name, body, how) in [
        (
            "constructor-aborts.c",
            "puts(\"noise\"); abort();",
            "SIGABRT",
        ),
        (
            "constructor-faults.c",
            "volatile int *volatile nothing = NULL; *nothing = 1;",
            "SIGSEGV",
        ),
        ("constructor-exits.c", "exit(3);", "exit(3)"),
    ] {
        let library = constructor(name, body);
        let error = probe_symbols(&library, &[("f", "f")])
            .expect_err("it crashes")
            .to_string();
        assert!(error.contains(&format!("crashed ({how})")), "{error}");
        assert!(error.contains(name.trim_end_matches(".c")), "{error}");
    }
    probe_symbols(
        &constructor("constructor-prints.c", "puts(\"noise\");"),
        &[("f", "f")],
    )
    .expect("printing is no crime");
}

fn hanging() {
    let library = constructor("constructor-hangs.c", "for (;;) sleep(1);");
    let error = probe_symbols(&library, &[("f", "f")]).expect_err("it hangs");
    assert!(matches!(error, ProbeError::Hung { .. }), "{error}");
}
