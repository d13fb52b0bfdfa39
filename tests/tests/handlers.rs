//! What `on_failure` publishes into a bucket: a function reads what has failed and how, and gets
//! the inputs that the failed invocation had.
#![forbid(unsafe_code)]

use pheromone_tests::App;

const FUNCTIONS: &str = include_str!("../functions/handlers.c");

/// `work` fails in as many ways as the input has words; `handler` is given what tells of them.
fn app_of(work: &str, options: &str, handler: &str) -> App {
    let manifest = format!(
        r#"
[app]
name = "handled"
entry = "deal"
source = ["functions.c"]
executors = {{ min = 1, max = 2 }}
isolation = "none"

[functions.deal]
sends = ["jobs"]

[functions.{work}]
{options}
sends = ["done"]
on_failure = {{ bucket = "failed" }}

[functions.{handler}]
sends = ["done"]

[functions.finish]
sends = []

[[buckets.jobs.triggers]]
type = "immediate"
function = "{work}"

[[buckets.failed.triggers]]
type = "immediate"
function = "{handler}"

[[buckets.done.triggers]]
type = "dynamic_group"
after = "{handler}"
order = "key"
function = "finish"
"#
    );
    App::with_functions(&manifest, FUNCTIONS)
}

/// The session is open for as long as anything that has failed is not handled, so the answer is
/// whole.
#[test]
fn each_way_to_fail_is_told_to_the_handler_with_the_input_that_it_was_for() {
    let app = app_of("work", "timeout = \"300ms\"", "handle");
    let run = app.run_on("dies exits forbids fine hangs returns").finish();
    let run = run.exits(0);
    let text = run.text();
    let lines: Vec<&str> = text.lines().collect();
    let expected = [
        "dies = dies",
        "dies-how = work attempt=1 status=0 signal=11: function `work` of app `handled`, attempt \
         1: its process was killed by signal 11 (SIGSEGV)",
        "exits = exits",
        "exits-how = work attempt=1 status=0 signal=0: function `work` of app `handled`, attempt \
         1: its process called exit(3)",
        "fine = fine",
        "forbids = forbids",
        "forbids-how = work attempt=1 status=265 signal=0: function `work` of app `handled`, \
         attempt 1: returned PHR_PERMANENT(9): never again",
        "hangs = hangs",
        "hangs-how = work attempt=1 status=0 signal=9: function `work` of app `handled`, attempt \
         1: function `work` ran past its timeout of 300ms and was killed",
        "returns = returns",
        "returns-how = work attempt=1 status=7 signal=0: function `work` of app `handled`, \
         attempt 1: returned 7: no bread today",
    ];
    assert_eq!(lines.len(), expected.len(), "{text}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}\n{expected}");
    }
    // One error event each, as a warning line.
    run.complains(&["function `work` has failed in attempt 1 and the session goes on"]);
}

#[test]
fn only_the_last_of_several_attempts_is_told() {
    let app = app_of("work", "attempts = 3\nbackoff = \"1ms\"", "handle");
    let run = app.run_on("returns forbids").finish().exits(0);
    let text = run.text();
    assert!(text.contains("returns-how = work attempt=3 "), "{text}");
    assert!(text.contains("forbids-how = work attempt=1 "), "{text}");
    assert_eq!(text.lines().count(), 4, "{text}");
}

#[test]
fn the_longest_name_is_told_whole() {
    let work = "work_with_a_name_as_long_as_the_name_of_a_function_may_ever_be_";
    assert_eq!(work.len(), 63);
    let run = app_of(work, "", "handle").run_on("returns").finish();
    let text = run.exits(0).text();
    let how = format!("returns-how = {work} attempt=1 ");
    assert!(text.contains(&how), "{text}");
}

#[test]
fn an_inputs_payload_answers_the_caller_also_through_a_forwarded_failure() {
    for forwarded in [false, true] {
        let app = app_of("work", "", "answer_with_its_input");
        let manifest = std::fs::read_to_string(app.manifest()).expect("read it");
        let app = if forwarded {
            let more = "\n[functions.pass_on]\n\n[[buckets.passed.triggers]]\ntype = \
                        \"immediate\"\nfunction = \"answer_with_its_input\"\n";
            let to = "[[buckets.failed.triggers]]\ntype = \"immediate\"\nfunction = ";
            let manifest = manifest.replace(
                &format!("{to}\"answer_with_its_input\""),
                &format!("{to}\"pass_on\""),
            );
            app.file("app.toml", manifest + more)
        } else {
            app
        };
        let run = app.run_on("returns").finish().exits(0);
        run.prints("returns");
    }
}

#[test]
fn a_handler_that_fails_fails_the_session_with_its_own_reason() {
    let run = app_of("work", "", "mishandle").run_on("returns").finish();
    run.exits(1)
        .complains(&["mishandle", "cannot be handled either"]);
}
