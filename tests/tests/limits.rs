//! Limits push back where the caller learns it, and what was refused has cost nothing.
#![forbid(unsafe_code)]

use std::fs;

use pheromone_tests::{App, Server, until};

const SCHEDULING: &str = include_str!("../functions/scheduling.c");
const SERVE: &str = include_str!("../functions/serve.c");

fn gate(limits: &str) -> App {
    let manifest = format!(
        r#"
[app]
name = "limited"
entry = "waits_at_the_gate"
source = ["functions.c"]
memory = "4MiB"
keep_results = "0s"
executors = {{ min = 1, max = 1 }}
isolation = "none"

[app.limits]
{limits}

[functions.waits_at_the_gate]
"#
    );
    App::with_functions(&manifest, SCHEDULING)
}

/// Calls without waiting until one is refused; opens the gate; then calls are taken again.
fn pushes_back(app: &App, body: &[u8], taken_min: usize, taken_max: usize) {
    let server = Server::start(&[app]);
    let mut client = server.unix();
    let mut taken = 0;
    let refused = loop {
        let answer = client.post("/v1/apps/limited?wait=false", body);
        if answer.status != 202 {
            break answer;
        }
        taken += 1;
        assert!(taken <= taken_max, "{taken} calls were taken");
    };
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert!(
        refused.header("retry-after").is_some(),
        "{:?}",
        refused.headers
    );
    assert!(taken >= taken_min, "only {taken} calls were taken");
    fs::write(app.path("gate"), "").expect("open the gate");
    until("all have ended", || {
        server.counter("limited", "sessions_open") == 0
    });
    until("nothing is held", || {
        server.counter("limited", "used_bytes") == 0
    });
    assert_eq!(
        client.post("/v1/apps/limited", body).is(200).text(),
        "through"
    );
    server.stop().exits(0);
}

#[test]
fn sessions_past_their_limit_are_refused_until_some_have_ended() {
    pushes_back(&gate("sessions = 10"), b"x", 10, 10);
}

#[test]
fn calls_that_wait_past_their_limit_are_refused() {
    // One or two are with the executor; the others wait.
    pushes_back(&gate("calls_waiting = 10"), b"x", 10, 12);
}

#[test]
fn requests_past_the_memory_are_refused() {
    // 4 MiB hold at most 15 of 256 KiB beside what each costs itself, and a tenth is left free.
    pushes_back(&gate(""), &vec![7; 256 << 10], 8, 15);
}

#[test]
fn a_response_of_parts_may_be_larger_than_any_object() {
    let app = App::with_functions(
        r#"
[app]
name = "parts"
entry = "repeats"
source = ["functions.c"]
memory = "64MiB"
isolation = "none"

[app.limits]
object_size = "1MiB"

[functions.repeats]
"#,
        r#"
#include "check.h"
#define PARTS 5000
PHR_FUNCTION(repeats)
{
    static const phr_object *parts[PARTS];
    for (size_t i = 0; i < PARTS; i++)
        parts[i] = phr_input(ctx, 0);
    return phr_respond_parts(ctx, parts, PARTS);
}
"#,
    );
    let part: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
    let run = app.run_on(&part).finish().exits(0);
    run.prints(part.repeat(5000));
}

#[test]
fn a_required_response_that_does_not_come_is_a_failure() {
    let app = App::with_functions(
        r#"
[app]
name = "required"
entry = "silent"
source = ["functions.c"]
response = "required"
isolation = "none"

[functions.silent]
"#,
        SERVE,
    );
    app.run_on("x")
        .finish()
        .exits(1)
        .complains(&["required", "response"]);
}

#[test]
fn a_request_larger_than_an_object_may_be_is_refused() {
    let app = App::with_functions(
        r#"
[app]
name = "small"
entry = "echo"
source = ["functions.c"]
isolation = "none"

[app.limits]
object_size = "1KiB"

[functions.echo]
"#,
        SERVE,
    );
    app.run_on([b'x'; 1024])
        .finish()
        .exits(0)
        .prints([b'x'; 1024]);
    let run = app.run_on([b'x'; 1025]).finish();
    assert!(matches!(run.status.code(), Some(1 | 2)), "{}", run.status);
    run.complains(&["1024", "object_size"]);
}
