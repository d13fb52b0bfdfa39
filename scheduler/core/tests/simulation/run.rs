//! Running many histories, and telling of one that went wrong.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pheromone_core::Core;

use crate::plan::Plan;
use crate::steady::Outcomes;
use crate::world::{InPlace, Summary, World};

/// Lines of a failed history that are shown.
const LINES_SHOWN: usize = 60;

thread_local! {
    /// This thread lives through a history, whose failure is told by whoever runs it.
    static IS_SIMULATING: Cell<bool> = const { Cell::new(false) };
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A history in which the core did something wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    pub seed: u64,
    why: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, why } = self;
        write!(
            f,
            "seed {seed}: {why}\n(see all of it with PHEROMONE_SEED={seed} cargo test \
             -p pheromone-core --test simulation one_seed -- --nocapture)"
        )
    }
}

/// What came of many histories.
#[derive(Debug, Default)]
pub struct Done {
    pub histories: u64,
    pub steps: u64,
    pub fired: u64,
    pub in_place: InPlace,
    /// The failure of the least seed that was found to fail.
    pub failure: Option<Failure>,
}

/// A history in words.
pub struct Replay {
    pub lines: Vec<String>,
    pub failure: Option<Failure>,
}

impl Replay {
    /// The end of it.
    pub fn tail(&self) -> String {
        let first = self.lines.len().saturating_sub(LINES_SHOWN);
        self.lines[first..].join("\n")
    }
}

/// Lives through these histories on all cores, up to the first that fails.
pub fn run(seeds: Range<u64>, core: impl Fn(&Plan) -> Core + Sync) -> Done {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(seeds.start);
    let has_failed = AtomicBool::new(false);
    let work = || {
        let mut done = Done::default();
        while !has_failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            match live(seed, &core, None) {
                Ok(summary) => {
                    done.histories += 1;
                    done.steps += summary.steps;
                    done.fired += summary.fired;
                    done.in_place.add(&summary.in_place);
                }
                Err(failure) => {
                    has_failed.store(true, Ordering::Relaxed);
                    done.failure = Some(failure);
                }
            }
        }
        done
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let parts = workers
            .into_iter()
            .map(|worker| worker.join().expect("it catches panics"));
        parts.fold(Done::default(), add)
    })
}

fn add(mut sum: Done, part: Done) -> Done {
    sum.histories += part.histories;
    sum.steps += part.steps;
    sum.fired += part.fired;
    sum.in_place.add(&part.in_place);
    let failures = [sum.failure.take(), part.failure].into_iter().flatten();
    sum.failure = failures.min_by_key(|failure| failure.seed);
    sum
}

/// Lives through one history and writes it down.
pub fn replay(seed: u64, core: impl Fn(&Plan) -> Core) -> Replay {
    let mut lines = Vec::new();
    let failure = live(seed, core, Some(&mut lines)).err();
    Replay { lines, failure }
}

fn live(
    seed: u64,
    core: impl FnOnce(&Plan) -> Core,
    trace: Option<&mut Vec<String>>,
) -> Result<Summary, Failure> {
    caught(seed, || World::live(seed, core, trace))
}

/// Lives through a history of steady work.
pub fn steady(seed: u64, continues: bool) -> Result<(Summary, Outcomes), Failure> {
    caught(seed, || World::live_steadily(seed, continues))
}

fn caught<T>(seed: u64, live: impl FnOnce() -> T) -> Result<T, Failure> {
    silence_simulated_panics();
    IS_SIMULATING.set(true);
    let lived = panic::catch_unwind(AssertUnwindSafe(live));
    IS_SIMULATING.set(false);
    lived.map_err(|_| Failure {
        seed,
        why: LAST_PANIC.with_borrow_mut(std::mem::take),
    })
}

/// What goes wrong in a history is told once, with its seed.
fn silence_simulated_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if IS_SIMULATING.get() {
                LAST_PANIC.set(info.to_string());
            } else {
                usual(info);
            }
        }));
    });
}
