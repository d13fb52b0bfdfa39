//! Triggers under load, with real processes: a thousand windows of ten milliseconds, and groups
//! over up to a million objects whose mappers die half-way.
//!
//! All of them have a million objects a turn, and take most of a minute in a debug build, with
//! `PHEROMONE_VOLUME=1000 cargo test --package pheromone-tests --test volumes`.
#![forbid(unsafe_code)]

use pheromone_tests::App;

const FUNCTIONS: &str = include_str!("../functions/volumes.c");

#[test]
fn a_thousand_windows_have_in_them_exactly_what_was_published() {
    let manifest = r#"
[app]
name = "windows"
entry = "pours"
source = ["functions.c"]
executors = { min = 2, max = 3 }
isolation = "none"

[functions.pours]
sends = ["drops", "tallies"]

[functions.adds_up]
sends = ["tallies"]

[functions.compares]
sends = []

[buckets.drops]
keep = "until_consumed"
[[buckets.drops.triggers]]
type = "by_time"
scope = "session"
window = "10ms"
function = "adds_up"

[[buckets.tallies.triggers]]
type = "dynamic_group"
after = "adds_up"
function = "compares"
"#;
    let app = App::with_functions(manifest, FUNCTIONS);
    let run = app.run().args(["--strict", "--timeout", "100s"]).finish();
    run.exits(0).prints("the same");
}

/// Map and reduce over `maps * objects` objects a turn, in 256 groups.
struct Volume {
    maps: u64,
    objects: u64,
    turns: u64,
    names: bool,
}

impl Volume {
    fn app(&self) -> App {
        let Self {
            maps,
            objects,
            turns,
            names,
        } = self;
        let names = u8::from(*names);
        let manifest = format!(
            r#"
[app]
name = "volumes"
entry = "deals"
source = ["functions.c"]
memory = "1GiB"
executors = {{ min = 2, max = 2 }}
isolation = "none"
config = {{ maps = {maps}, objects = {objects}, turns = {turns}, names = {names} }}

[functions.deals]
sends = ["items"]

[functions.maps]
attempts = 2
backoff = "1ms"
sends = ["mapped"]

[functions.reduces]
sends = ["items", "reduced"]

[functions.totals]
sends = []

[buckets.items]
keep = "until_consumed"
[[buckets.items.triggers]]
type = "immediate"
function = "maps"

[buckets.mapped]
keep = "until_consumed"
[[buckets.mapped.triggers]]
type = "dynamic_group"
after = "maps"
function = "reduces"

[buckets.reduced]
keep = "until_consumed"
[[buckets.reduced.triggers]]
type = "by_batch_size"
scope = "session"
count = 256
function = "totals"
"#
        );
        App::with_functions(&manifest, FUNCTIONS)
    }

    /// Runs it: each group fires once a turn, with every object of it once, and the two mappers a
    /// turn that died have left nothing behind.
    fn check(&self) {
        let app = self.app();
        let run = app
            .run()
            .args(["--strict", "--timeout", "100s", "--stats", "--json"])
            .finish()
            .exits(0)
            .prints((self.maps * self.objects).to_string());
        let json = run.stderr.split_at(run.stderr.find('{').expect("JSON")).1;
        let stats: serde_json::Value = serde_json::from_str(json).expect("JSON");
        let counter = |name: &str| stats["after"]["counters"][name].as_u64();
        assert_eq!(counter("deaths_total"), Some(2 * self.turns));
        for back_at_zero in ["sessions_open", "objects_live", "used_bytes", "queued"] {
            assert_eq!(counter(back_at_zero), Some(0), "{back_at_zero}");
        }
        println!(
            "{} ms",
            stats["elapsed_ns"].as_u64().unwrap_or(0) / 1_000_000
        );
    }
}

/// Objects of a mapper, of which there are a thousand.
const A_MILLION_IN_ALL: u64 = 1000;
/// Where a million would take too long for every day.
const FEW: u64 = 100;

/// [`FEW`], unless the environment says how many.
fn few() -> u64 {
    let asked = std::env::var("PHEROMONE_VOLUME").ok();
    asked.map_or(FEW, |text| {
        text.parse().expect("PHEROMONE_VOLUME is a number")
    })
}

/// Over a thousand mappers.
fn check(objects: u64, turns: u64, names: bool) {
    let maps = 1000;
    let volume = Volume {
        maps,
        objects,
        turns,
        names,
    };
    volume.check();
}

#[test]
fn a_million_objects_are_in_their_groups_once_though_mappers_died_half_way() {
    check(A_MILLION_IN_ALL, 1, false);
}

#[test]
fn objects_with_names_are_in_their_groups_once_though_mappers_died_half_way() {
    check(few(), 1, true);
}

#[test]
fn the_groups_of_a_loop_fire_once_a_turn_though_mappers_died_half_way() {
    check(few(), 3, false);
}
