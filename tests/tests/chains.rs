//! Chains of ten thousand hops in one session, in memory that holds a few dozen hops.
#![forbid(unsafe_code)]

use pheromone_tests::{App, Server};

const FUNCTIONS: &str = include_str!("../functions/chains.c");

/// 10 000 hops of 64 KiB are 640 MiB; the quota is 4 MiB.
const CHAIN: &str = r#"
[app]
name = "chain"
entry = "hop"
source = ["functions.c"]
memory = "4MiB"
executors = { min = 1, max = 2 }
isolation = "none"

[functions.hop]
next = ["hop"]
"#;

#[test]
fn ten_thousand_hops_in_one_session_need_the_memory_of_a_few() {
    let app = App::with_functions(CHAIN, FUNCTIONS);
    app.run_on("10000").finish().exits(0).prints("arrived");
}

#[test]
fn after_long_chains_every_process_is_as_large_as_before() {
    /// Allocators and kernels round; a leak of 64 bytes a hop would be over 3 MiB.
    const GROWTH_MAX_BYTES: u64 = 1 << 20;
    let app = App::with_functions(CHAIN, FUNCTIONS);
    let server = Server::start(&[&app]);
    let mut client = server.unix();
    let mut chain = |hops: u32| {
        let answer = client.post("/v1/apps/chain/functions/hop", hops.to_string());
        assert_eq!(answer.is(200).text(), "arrived");
    };
    chain(10_000);
    let before: Vec<_> = server
        .running()
        .processes()
        .into_iter()
        .map(|process| (process.status_bytes("RssAnon"), process))
        .collect();
    for _ in 0..5 {
        chain(10_000);
    }
    for (bytes, process) in before {
        let now = process.status_bytes("RssAnon");
        assert!(
            now <= bytes + GROWTH_MAX_BYTES,
            "{} grew from {bytes} to {now} bytes",
            process.command
        );
    }
    assert_eq!(server.counter("chain", "used_bytes"), 0);
    server.stop().exits(0);
}

#[test]
fn a_function_may_feed_its_next_and_a_bucket_that_keeps_nothing() {
    // The crumbs are 40 MiB in all; their bucket must let go of each as it is consumed.
    let app = App::with_functions(
        r#"
[app]
name = "feeder"
entry = "feed"
source = ["functions.c"]
memory = "16MiB"
executors = { min = 2, max = 2 }
isolation = "none"

[functions.feed]
next = ["feed"]

[functions.tally]
priority = 1

[functions.total]

[buckets.crumbs]
keep = "until_consumed"

[[buckets.crumbs.triggers]]
type = "immediate"
function = "tally"

[buckets.tallies]

[[buckets.tallies.triggers]]
type = "by_set"
function = "total"
keys = ["t-{1..10000}"]
"#,
        FUNCTIONS,
    );
    app.run_on("10000").finish().exits(0).prints("10000");
}
