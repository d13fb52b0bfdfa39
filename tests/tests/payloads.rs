//! Payloads of every size and content, keys and groups of every length, arrive as they were sent.
#![forbid(unsafe_code)]

use pheromone_tests::{App, Random};

const FUNCTIONS: &str = include_str!("../functions/payloads.c");

const THREE: &str = r#"
[app]
name = "payloads"
entry = "first"
source = ["functions.c"]
executors = { min = 2, max = 2 }
isolation = "none"

[functions.first]
next = ["second"]

[functions.second]

[functions.third]

[buckets.middle]

[[buckets.middle.triggers]]
type = "immediate"
function = "third"
"#;

#[test]
fn payloads_of_every_size_arrive_identical_through_three_functions() {
    for size_bytes in [0, 1, 63, 64, 1023, 1024, 1025, 65_536, 1 << 20] {
        let payload = Random::new(size_bytes as u64).bytes(size_bytes);
        let app = App::with_functions(THREE, FUNCTIONS).file("payload", &payload);
        let run = app.run().args(["--input", "payload"]).finish().exits(0);
        run.prints(&payload);
    }
}

#[test]
fn many_inputs_are_a_call_each_and_every_response_has_a_file() {
    let mut app = App::with_functions(THREE, FUNCTIONS);
    let payloads: Vec<_> = (0..20)
        .map(|i| Random::new(i).bytes(i as usize * 97))
        .collect();
    let mut arguments = Vec::new();
    for (i, payload) in payloads.iter().enumerate() {
        app = app.file(&format!("in-{i:02}"), payload);
        arguments.extend(["--input".to_owned(), format!("in-{i:02}")]);
    }
    let run = app
        .run()
        .args(arguments)
        .args(["--output", "answers", "--inflight", "7"]);
    run.finish().exits(0);
    let mut answers: Vec<_> = std::fs::read_dir(app.path("answers"))
        .expect("the directory of the responses")
        .map(|entry| std::fs::read(entry.expect("an entry").path()).expect("a response"))
        .collect();
    answers.sort();
    let mut expected = payloads;
    expected.sort();
    assert!(
        answers == expected,
        "{} responses, not those expected",
        answers.len()
    );
}

#[test]
fn keys_and_groups_of_every_length_arrive_identical_through_three_functions() {
    let app = App::with_functions(
        r#"
[app]
name = "names"
entry = "name_all"
source = ["functions.c"]
executors = { min = 2, max = 2 }
isolation = "none"

[functions.name_all]
[functions.name_again]
[functions.name_done]
[functions.names_arrived]

[buckets.names]
[[buckets.names.triggers]]
type = "immediate"
function = "name_again"

[buckets.names_again]
[[buckets.names_again.triggers]]
type = "immediate"
function = "name_done"

[buckets.done]
[[buckets.done.triggers]]
type = "by_set"
function = "names_arrived"
keys = ["n-{1..255}"]
"#,
        FUNCTIONS,
    );
    app.run().finish().exits(0).prints("all names");
}

#[test]
fn a_gibibyte_passes_through_three_functions_and_no_private_memory_holds_it() {
    /// What a process of ours may need for itself, far below the object.
    const PRIVATE_MAX_BYTES: u64 = 128 << 20;
    const SIZE_BYTES: u64 = 1 << 30;
    let app = App::with_functions(
        r#"
[app]
name = "large"
entry = "make_large"
source = ["functions.c"]
memory = "1100MiB"
executors = { min = 2, max = 2 }
isolation = "none"

[functions.make_large]
next = ["pass_large"]

[functions.pass_large]
[functions.judge_large]

[buckets.large]
keep = "until_consumed"
[[buckets.large.triggers]]
type = "immediate"
function = "judge_large"
"#,
        FUNCTIONS,
    );
    // The quota has room for one such object: a copy would be PHR_ENOMEM.
    let run = app
        .run_on(SIZE_BYTES.to_string())
        .watch_memory()
        .finish()
        .exits(0);
    println!(
        "largest private memory of a process: {} KiB",
        run.private_peak_bytes >> 10
    );
    assert!(run.private_peak_bytes > 0, "nothing was measured");
    assert!(
        run.private_peak_bytes < PRIVATE_MAX_BYTES,
        "{} bytes",
        run.private_peak_bytes
    );
    run.prints(SIZE_BYTES.to_string());
}
