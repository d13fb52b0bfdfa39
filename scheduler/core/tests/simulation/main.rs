//! The core in a simulated world: virtual time, executors that crash, hang and answer late,
//! messages under way, executors that go on in place ahead of what is heard of them, full release
//! rings, full memory, apps removed; every step held against a naive model.
//!
//! A history comes from its seed and from nothing else, so a failing seed is all that is needed to
//! see the failure again. `docs/testing.md` says how to run more of them, and how to replay one.
//!
//! In about one app of six some triggers gather across sessions. There the model, which would have
//! to be as clever as the core, gives way to a judge that knows less (`across.rs`).
//!
//! Left out of the random apps for the same reason, and kept by tests of their own in `behaviour/`:
//! custom triggers (`custom.rs`), buckets for failures (`failures.rs`), rerun rules (`reruns.rs`,
//! `speculation.rs`), `serial_by` (`serial.rs`), several schedulers (`shares.rs`), executors that
//! break the protocol (`hostile.rs`), dead letters that move to another version (`handover.rs`),
//! and `phr_get` that waits (`waiting.rs`).

mod across;
#[allow(dead_code)]
#[path = "../behaviour/common/app.rs"]
mod app;
mod history;
mod in_place;
mod model;
mod plan;
mod process;
mod rng;
mod rules;
mod run;
mod steady;
mod upstream;
mod world;

use std::ops::Range;

use pheromone_core::Core;
use plan::Plan;
use run::{replay, run, steady};

/// Histories that every run of the tests lives through.
const SEEDS: Range<u64> = 0..3_000;
/// Seeds that are lived through twice.
const REPLAYED: Range<u64> = 0..40;
/// Seeds of work that is done with continuation in place and without.
const STEADY: Range<u64> = 0..300;

/// The seeds that `PHEROMONE_SEEDS` asks for, as in `0..100000`.
fn seeds() -> Range<u64> {
    let Ok(asked) = std::env::var("PHEROMONE_SEEDS") else {
        return SEEDS;
    };
    let parsed = asked
        .split_once("..")
        .and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    parsed.unwrap_or_else(|| panic!("PHEROMONE_SEEDS is `{asked}`, and should be like `0..1000`"))
}

fn sound(plan: &Plan) -> Core {
    Core::new(plan.config)
}

#[test]
fn every_history_does_what_the_naive_model_says() {
    // One seed is asked for by itself, below.
    if std::env::var_os("PHEROMONE_SEED").is_some() {
        return;
    }
    let seeds = seeds();
    let done = run(seeds.clone(), sound);
    if let Some(failure) = &done.failure {
        panic!("{failure}\n{}", replay(failure.seed, sound).tail());
    }
    println!(
        "{} histories, {} steps, {} firings, {:?}",
        done.histories, done.steps, done.fired, done.in_place
    );
    assert_eq!(done.histories, seeds.end - seeds.start);
    // A simulation in which nothing happens would hold as well.
    assert!(done.fired > 10 * done.histories && done.steps > 100 * done.histories);
    if done.histories >= SEEDS.end {
        assert!(done.in_place.is_varied(), "{:?}", done.in_place);
    }
}

#[cfg(feature = "planted-bugs")]
#[test]
fn every_planted_bug_is_found_within_a_thousand_seeds() {
    use pheromone_core::planted::Planted;
    for planted in [
        Planted::InputLostInCrash,
        Planted::FiresAgain,
        Planted::LeftAtSessionEnd,
        Planted::ClosesTooEarly,
        Planted::ContributorForgotten,
        Planted::TakenBackTooLate,
        Planted::ReleasedTwice,
        Planted::BegunUnheard,
    ] {
        let failure = run(0..1000, |plan| {
            let mut core = sound(plan);
            core.plant(planted);
            core
        })
        .failure;
        let failure = failure.unwrap_or_else(|| panic!("{planted:?} is not found"));
        println!("{planted:?} is found by {failure}");
        // The same history holds without the mistake.
        let sound = replay(failure.seed, sound).failure;
        assert!(sound.is_none(), "{}", sound.expect("there is one"));
    }
}

#[test]
fn the_same_seed_is_the_same_history_byte_for_byte() {
    for seed in REPLAYED {
        let (first, second) = (replay(seed, sound), replay(seed, sound));
        assert_eq!(first.lines, second.lines, "seed {seed}");
    }
}

#[test]
fn with_and_without_continuation_the_same_comes_of_the_same_work() {
    let mut continued = 0;
    for seed in STEADY {
        let of = |continues| steady(seed, continues).unwrap_or_else(|failure| panic!("{failure}"));
        let ((with, with_outcomes), (without, without_outcomes)) = (of(true), of(false));
        assert_eq!(with_outcomes, without_outcomes, "seed {seed}");
        assert!(with_outcomes.count_begun() > 0, "seed {seed}");
        assert_eq!(without.in_place.offered, 0, "seed {seed}");
        continued += with.in_place.continued;
    }
    assert!(continued > STEADY.end - STEADY.start);
}

/// `PHEROMONE_SEED=N cargo test -p pheromone-core --test simulation one_seed -- --nocapture`
#[test]
fn one_seed_is_replayed_in_full_where_it_is_asked_for() {
    let Ok(seed) = std::env::var("PHEROMONE_SEED") else {
        return;
    };
    let seed = seed.parse().expect("PHEROMONE_SEED is a number");
    let replayed = replay(seed, sound);
    println!("{}", replayed.lines.join("\n"));
    if let Some(failure) = replayed.failure {
        panic!("{failure}");
    }
}
