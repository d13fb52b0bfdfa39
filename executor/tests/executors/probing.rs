//! Looking at a library without loading it into this process.

use std::path::Path;

use pheromone_executor::probe::{ProbeError, Surroundings, Symbol, probe_symbols};
use pheromone_executor::sandbox::{Level, Offers, Sandbox};

use crate::Test;
use crate::harness::{library, library_of};
use crate::loading::wrong_libraries;

pub const TESTS: &[Test] = &[
    ("a_good_library_is_found_good", good),
    ("each_wrong_library_is_named_with_its_cause", wrong),
    ("a_constructor_that_crashes_or_exits_is_told", crashing),
    ("a_constructor_that_hangs_is_ended", hanging),
    ("constructors_are_shut_in_as_executors_are", shut_in),
    ("a_constructor_that_writes_a_report_is_told", forging),
];

fn function<'a>(name: &'a str, symbol: &'a str) -> Symbol<'a> {
    Symbol::Function { name, symbol }
}

fn probe(library: &Path, symbols: &[Symbol<'_>]) -> Result<(), ProbeError> {
    probe_under(&Sandbox::default(), library, symbols)
}

fn probe_under(
    sandbox: &Sandbox,
    library: &Path,
    symbols: &[Symbol<'_>],
) -> Result<(), ProbeError> {
    let surroundings = Surroundings {
        directory: Path::new("/"),
        sandbox,
    };
    probe_symbols(library, symbols, &surroundings)
}

fn good() {
    let symbols = [
        function("first", "prepared"),
        function("second", "log"),
        function("third", "broken"),
        Symbol::Trigger {
            name: "fourth",
            symbol: "decide",
        },
    ];
    probe(&library("loading.c"), &symbols).expect("a good library");
    probe(&library("loading.c"), &[]).expect("a good library");
}

fn wrong() {
    for (path, symbol, sentence) in wrong_libraries() {
        let error = probe(&path, &[function("count", symbol)]).expect_err("it is wrong");
        let said = error.to_string();
        let sentence = sentence.replace("NAME", &path.display().to_string());
        assert!(said.contains(&sentence), "{said} for {sentence}");
        assert!(said.starts_with("function `count`: "), "{said}");
    }
    let (path, _, _) = &wrong_libraries()[1];
    let six = ["a", "b", "c", "d", "e", "f"].map(|name| function(name, name));
    let said = probe(path, &six).expect_err("it is wrong").to_string();
    assert!(
        said.starts_with("functions `a`, `b`, `c`, `d` and 2 more: "),
        "{said}"
    );
    let symbols = [
        function("a", "absent"),
        function("b", "prepared"),
        function("c", "unmarked"),
        function("d", "decide"),
        Symbol::Trigger {
            name: "e",
            symbol: "prepared",
        },
        Symbol::Trigger {
            name: "f",
            symbol: "absent",
        },
    ];
    let error = probe(&library("loading.c"), &symbols).expect_err("five are wrong");
    let ProbeError::Symbols(errors) = error else {
        panic!("{error}")
    };
    let users: Vec<&str> = errors.iter().map(|error| error.user.as_str()).collect();
    let expected = [
        "function `a`",
        "function `c`",
        "function `d`",
        "trigger `e`",
        "trigger `f`",
    ];
    assert_eq!(users, expected);
    for (at, sentence) in [
        (
            2,
            "`decide` is a custom trigger, and a function is wanted: see PHR_FUNCTION",
        ),
        (
            3,
            "`prepared` is a function, and a custom trigger is wanted: see PHR_TRIGGER",
        ),
        (
            4,
            "has no symbol `absent`: define it by PHR_TRIGGER(absent)",
        ),
    ] {
        let said = errors[at].to_string();
        assert!(said.contains(sentence), "{said}");
    }
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
        let error = probe(&library, &[function("f", "f")])
            .expect_err("it crashes")
            .to_string();
        assert!(error.contains(&format!("crashed ({how})")), "{error}");
        assert!(error.contains(name.trim_end_matches(".c")), "{error}");
    }
    probe(
        &constructor("constructor-prints.c", "puts(\"noise\");"),
        &[function("f", "f")],
    )
    .expect("printing is no crime");
}

fn hanging() {
    let hangs = |name, body| {
        let library = constructor(name, body);
        let error = probe(&library, &[function("f", "f")]).expect_err("it hangs");
        assert!(matches!(error, ProbeError::Hung { .. }), "{error}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| hangs("constructor-hangs.c", "for (;;) sleep(1);"));
        // Also one whose report has come to its end.
        let closes = "for (int fd = 0; fd < 64; fd++) close(fd); for (;;) sleep(1);";
        scope.spawn(|| hangs("constructor-closes.c", closes));
    });
}

fn forging() {
    // Good as it stands: nothing is wrong with no function at all, or with one.
    for (name, report) in [
        ("constructor-forges-none.c", "1, 0, 0"),
        ("forges-one.c", "1, 0, 1, 0"),
    ] {
        let body = format!(
            "char report[] = {{{report}}}; for (int fd = 3; fd < 64; fd++) \
             if (write(fd, report, sizeof report) < 0) continue;"
        );
        let library = constructor(name, &body);
        let two = [function("f", "f"), function("g", "missing")];
        let error = probe(&library, &two).expect_err("there is no `missing`");
        assert!(matches!(error, ProbeError::Garbled { .. }), "{error}");
    }
}

fn shut_in() {
    let sandbox = Sandbox {
        level: Level::Standard,
        ..Sandbox::default()
    };
    let missing = Offers::here().missing(sandbox.level);
    if !missing.is_empty() {
        println!("left out: this machine lacks {}", missing.join(", "));
        return;
    }
    let body = "extern int socket(int, int, int); if (socket(2, 1, 0) >= 0) abort();";
    let library = constructor("constructor-connects.c", body);
    let symbols = [function("f", "f")];
    probe_under(&sandbox, &library, &symbols).expect("it has no socket");
    let error = probe(&library, &symbols).expect_err("it has one");
    assert!(matches!(error, ProbeError::Crashed { .. }), "{error}");
}
