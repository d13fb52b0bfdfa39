//! Every target, over all inputs kept for it and some thousand changed ones: the same in every run,
//! unless `PHEROMONE_FUZZ_SEED` or `PHEROMONE_FUZZ_RUNS` says otherwise.
#![forbid(unsafe_code)]

use std::path::Path;

use pheromone_fuzz::hunt::{self, Until};
use pheromone_fuzz::{TARGETS, corpus, target};

/// The seed of every run that asks for no other.
const SEED: u64 = 23;
/// Bytes of all kept inputs together, at most: they are in every checkout.
const CORPUS_BYTES_MAX: u64 = 1 << 20;

/// What a variable of the environment says.
fn asked(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is a number, not {text}")))
}

fn hunt(name: &str, runs: u64) {
    let target = target(name).expect("it is in the table");
    let seed = asked("PHEROMONE_FUZZ_SEED").unwrap_or(SEED);
    let runs = asked("PHEROMONE_FUZZ_RUNS").unwrap_or(runs);
    let bag = hunt::hunt(target, seed, Until::Runs(runs)).expect("kept inputs can be read");
    println!(
        "{name}: {} executions, {} of them of kept inputs and seeds, seed {seed}",
        bag.runs, bag.inputs
    );
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("fuzz")
        .join(name);
    let said = bag.failures.iter().map(|failure| {
        let said = hunt::keep(target, failure, &folder).expect("write the failing input");
        let corpus = corpus::folder(target);
        format!("{said}\n  once mended, keep it in {}", corpus.display())
    });
    let said: Vec<String> = said.collect();
    assert!(said.is_empty(), "\n{}", said.join("\n"));
}

/// A test for each target, with how many changed inputs it runs.
macro_rules! tests {
    ($($name:ident: $runs:literal,)*) => {
        $(
            #[test]
            fn $name() {
                hunt(stringify!($name), $runs);
            }
        )*

        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

tests! {
    from_executor: 200_000,
    to_executor: 100_000,
    core: 2_000,
    links: 50_000,
    zygote: 50_000,
    probe: 50_000,
    output: 5_000,
    manifest: 1_000,
    http: 20_000,
    segment: 20_000,
    directory: 200,
}

#[test]
fn every_target_is_tested() {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, TESTED);
}

#[test]
fn the_kept_inputs_are_small_and_each_is_of_a_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut bytes = 0;
    for folder in std::fs::read_dir(corpus).expect("the kept inputs") {
        let folder = folder.expect("an entry");
        let name = folder.file_name();
        assert!(
            target(name.to_str().expect("a plain name")).is_some(),
            "{name:?}"
        );
        for file in std::fs::read_dir(folder.path()).expect("a folder of inputs") {
            bytes += file.and_then(|file| file.metadata()).expect("a file").len();
        }
    }
    assert!(bytes <= CORPUS_BYTES_MAX, "{bytes} bytes");
}
