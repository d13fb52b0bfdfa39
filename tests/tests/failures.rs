//! Whatever goes wrong with a function gives one clear error that names the function and the cause,
//! with its last output, at once; the exit status says whose fault it is; nothing stays behind.
#![forbid(unsafe_code)]

use pheromone_tests::{App, Finished};

const FUNCTIONS: &str = include_str!("../functions/failures.c");

/// An app whose entry is one of the functions.
fn app_of(function: &str, options: &str) -> App {
    let manifest = format!(
        r#"
[app]
name = "failing"
entry = "{function}"
source = ["functions.c"]
executors = {{ min = 1, max = 2 }}
isolation = "none"

[functions.{function}]
{options}
"#
    );
    App::with_functions(&manifest, FUNCTIONS)
}

/// Runs it, expects status 1, the function's name, its last words and these texts.
fn fails(function: &str, texts: &[&str]) -> Finished {
    let run = app_of(function, "").run_on("x").finish().exits(1);
    let last = [
        function,
        "the last words on stdout",
        "the last words on stderr",
    ];
    run.complains(&last).complains(texts)
}

#[test]
fn an_error_is_told_with_the_functions_own_message() {
    fails(
        "returns_an_error",
        &["7", "the table of contents is missing"],
    )
    .prints("");
}

#[test]
fn a_status_without_a_message_is_told_as_a_number() {
    fails("returns_a_status_alone", &["42"]);
}

#[test]
fn a_permanent_failure_is_told_as_one() {
    fails("fails_for_good", &["PHR_PERMANENT(9)", "never again"]);
}

#[test]
fn a_status_passed_on_is_told_with_the_sentence_of_its_call() {
    fails("passes_a_status_on", &["no such bucket"]);
}

#[test]
fn an_abort_is_a_signal() {
    fails("aborts", &["SIGABRT"]);
}

#[test]
fn a_null_pointer_is_a_signal_and_an_address() {
    fails("dereferences_null", &["SIGSEGV", "0x0"]);
}

#[test]
fn an_exit_is_a_crash_whatever_its_status() {
    fails("exits", &["exit(3)"]);
    fails("exits_as_if_well", &["exit(0)"]);
}

#[test]
fn an_input_cannot_be_written() {
    fails("writes_into_its_input", &["SIGSEGV"]);
}

#[test]
fn a_write_past_the_own_region_ends_at_its_end() {
    fails("writes_past_its_region", &["SIGSEGV"]);
}

#[test]
fn an_overflowing_stack_is_a_signal() {
    let run = app_of("overflows_its_stack", "")
        .run_on("x")
        .finish()
        .exits(1);
    run.complains(&["overflows_its_stack", "SIGSEGV"]);
}

#[test]
fn a_kill_from_elsewhere_is_a_signal() {
    fails("is_killed", &["SIGKILL"]);
}

#[test]
fn a_function_past_its_timeout_is_killed_and_its_session_fails() {
    let app = app_of("never_returns", "timeout = \"200ms\"");
    let run = app.run_on("x").finish().exits(1);
    run.complains(&["never_returns", "200", "the last words on stdout"]);
}

#[test]
fn a_session_past_its_deadline_is_124() {
    let app = app_of("never_returns", "");
    app.run_on("x")
        .args(["--timeout", "300ms"])
        .finish()
        .exits(124);
    let late = App::with_functions(
        r#"
[app]
name = "late"
entry = "never_returns"
source = ["functions.c"]
session_timeout = "300ms"
isolation = "none"

[functions.never_returns]
"#,
        FUNCTIONS,
    );
    late.run_on("x").finish().exits(124);
}

#[test]
fn a_failure_after_the_response_is_still_a_failure() {
    let run = app_of("answers_and_fails", "")
        .run_on("x")
        .finish()
        .exits(1);
    run.complains(&["answers_and_fails", "too bad"])
        .prints("an answer");
}

#[test]
fn after_a_crash_a_fresh_executor_goes_on() {
    let mut app = app_of("crashes_at_even_numbers", "");
    let mut arguments = Vec::new();
    for i in 1..=9 {
        app = app.file(&i.to_string(), i.to_string());
        arguments.extend(["--input".to_owned(), i.to_string()]);
    }
    let run = app
        .run()
        .args(arguments)
        .args(["--output", "answers"])
        .finish()
        .exits(1);
    run.complains(&["crashes_at_even_numbers", "SIGABRT"]);
    let answers = std::fs::read_dir(app.path("answers"))
        .expect("the responses")
        .count();
    assert_eq!(answers, 5, "five of the nine numbers are odd");
}

// ------------------------------------------------------------------ before anything runs

#[test]
fn a_missing_library_is_2() {
    let app = App::new(
        r#"
[app]
name = "nothing"
entry = "lost"

[functions.lost]
library = "no-such-library.so"
"#,
    );
    app.run().finish().exits(2).complains(&[
        "app.toml:7",
        "the library `no-such-library.so` of function `lost` does not exist",
    ]);
}

#[test]
fn a_missing_source_is_2_and_names_the_functions_that_use_it() {
    let app = App::new(
        r#"
[app]
name = "nothing"
entry = "lost"
source = ["no-such-source.c"]

[functions.lost]
next = ["found", "lost_too"]
[functions.found]
source = ["found.c"]
[functions.lost_too]
"#,
    )
    .file("found.c", "");
    app.run().finish().exits(2).complains(&[
        "app.toml:5",
        "the source `no-such-source.c` of functions `lost` and `lost_too` does not exist",
    ]);
}

#[test]
fn a_file_that_is_no_library_is_2() {
    let app = App::new(
        r#"
[app]
name = "nothing"
entry = "lost"

[functions.lost]
library = "text.so"
"#,
    )
    .file("text.so", "This is no shared object.\n");
    app.run()
        .finish()
        .exits(2)
        .complains(&["function `lost`", "text.so"]);
}

#[test]
fn a_missing_symbol_is_2_and_names_it() {
    let app = app_of("returns_an_eror", "");
    app.run()
        .finish()
        .exits(2)
        .complains(&["function `returns_an_eror`", "no symbol"]);
}

#[test]
fn another_abi_is_2_and_names_both_versions() {
    let app = App::with_functions(
        r#"
[app]
name = "modern"
entry = "too_new"
source = ["functions.c"]

[functions.too_new]
"#,
        "#include <pheromone.h>\n#undef PHR_ABI_MAJOR\n#define PHR_ABI_MAJOR 7\n\
         PHR_FUNCTION(too_new) { (void)ctx; return PHR_OK; }\n",
    );
    app.run()
        .finish()
        .exits(2)
        .complains(&["too_new", "7", "1"]);
}

#[test]
fn a_function_without_the_mark_is_2() {
    let app = App::with_functions(
        r#"
[app]
name = "bare"
entry = "unmarked"
source = ["functions.c"]

[functions.unmarked]
"#,
        "int unmarked(void *ctx);\nint unmarked(void *ctx) { (void)ctx; return 0; }\n",
    );
    app.run()
        .finish()
        .exits(2)
        .complains(&["unmarked", "PHR_FUNCTION"]);
}

#[test]
fn a_library_that_needs_what_is_not_there_is_2() {
    let app = App::with_functions(
        r#"
[app]
name = "needy"
entry = "needs"
source = ["functions.c"]

[functions.needs]
"#,
        "#include <pheromone.h>\nextern int not_to_be_found_anywhere(void);\n\
         PHR_FUNCTION(needs) { (void)ctx; return not_to_be_found_anywhere(); }\n",
    );
    app.run()
        .finish()
        .exits(2)
        .complains(&["needs", "not_to_be_found_anywhere"]);
}

#[test]
fn a_library_whose_constructor_crashes_is_2_and_hurts_nobody() {
    let app = App::with_functions(
        r#"
[app]
name = "trap"
entry = "trapped"
source = ["functions.c"]

[functions.trapped]
"#,
        "#include <pheromone.h>\n#include <stdlib.h>\n\
         __attribute__((constructor)) static void trap(void) { abort(); }\n\
         PHR_FUNCTION(trapped) { (void)ctx; return PHR_OK; }\n",
    );
    app.run()
        .finish()
        .exits(2)
        .complains(&["function `trapped`", "SIGABRT"]);
}

#[test]
fn a_compile_error_is_2_with_the_compilers_message() {
    let app = App::with_functions(
        r#"
[app]
name = "typo"
entry = "typo"
source = ["functions.c"]

[functions.typo]
"#,
        "#include <pheromone.h>\nPHR_FUNCTION(typo) { return phr_no_such_call(ctx) }\n",
    );
    app.run()
        .finish()
        .exits(2)
        .complains(&["functions.c:2", "error"]);
}

#[test]
fn a_missing_manifest_and_a_broken_one_are_2() {
    let app = App::new("[app]\nname = \"x\"\nentrie = \"y\"\n");
    app.command(["run", "absent.toml"])
        .finish()
        .exits(2)
        .complains(&["absent.toml"]);
    app.run()
        .finish()
        .exits(2)
        .complains(&["app.toml:3", "entrie", "entry"]);
}

#[test]
fn a_missing_input_file_is_2() {
    let app = app_of("returns_an_error", "");
    app.run()
        .args(["--input", "absent"])
        .finish()
        .exits(2)
        .complains(&["absent"]);
}
