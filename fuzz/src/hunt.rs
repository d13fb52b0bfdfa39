//! Runs a target over its inputs, then over changed ones, and makes small what fails.

use std::any::Any;
use std::cell::RefCell;
use std::io;
use std::panic;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::Target;
use crate::corpus::{self, Input};
use crate::mutate::{minimize, mutate};

/// Inputs tried to make one smaller.
const MINIMIZING_RUNS_MAX: u64 = 5_000;
/// Of 16 inputs, so many are bytes at random.
const RANDOM_OF_16: u8 = 1;
/// Failures at different places after which a hunt ends: there is enough to do.
const FAILURES_MAX: usize = 16;
/// One input may take so long, on however loaded a machine.
const INPUT_TIME_MAX: Duration = Duration::from_secs(60);

/// How long to go on beyond the inputs that there are.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// So many changed inputs.
    Runs(u64),
    /// So long.
    Time(Duration),
}

/// An input for which a target panics.
pub struct Failure {
    /// Made small.
    pub input: Vec<u8>,
    /// Where it came from.
    pub origin: String,
    /// Where the panic is, as `file:line`.
    pub place: String,
    /// What it says.
    pub message: String,
}

/// What a hunt has come to.
pub struct Bag {
    /// Inputs that there were.
    pub inputs: usize,
    /// Inputs run, these among them, those tried to make others smaller not.
    pub runs: u64,
    /// How long that took.
    pub took: Duration,
    /// One for each place.
    pub failures: Vec<Failure>,
}

/// Hunts.
///
/// # Errors
/// A kept input that cannot be read.
pub fn hunt(target: &Target, seed: u64, until: Until) -> io::Result<Bag> {
    let inputs = corpus::inputs(target)?;
    let mut random = Rng::with_seed(seed);
    let watch = Watch::start(target.name);
    let begun = Instant::now();
    let mut bag = Bag {
        inputs: inputs.len(),
        runs: 0,
        took: Duration::ZERO,
        failures: Vec::new(),
    };
    for input in &inputs {
        bag.run(target, &watch, &input.bytes, &input.name);
    }
    let is_over = |bag: &Bag| {
        bag.failures.len() >= FAILURES_MAX
            || match until {
                Until::Runs(runs) => bag.runs >= runs + inputs.len() as u64,
                Until::Time(time) => begun.elapsed() >= time,
            }
    };
    while !is_over(&bag) {
        let input = next(&mut random, &inputs, target.bytes_max);
        let origin = format!("run {} of seed {seed}", bag.runs);
        bag.run(target, &watch, &input, &origin);
    }
    bag.took = begun.elapsed();
    Ok(bag)
}

/// A changed input, or one at random.
fn next(random: &mut Rng, inputs: &[Input], bytes_max: usize) -> Vec<u8> {
    if inputs.is_empty() || random.u8(..16) < RANDOM_OF_16 {
        let count = random.usize(..=bytes_max.min(512));
        return (0..count).map(|_| random.u8(..)).collect();
    }
    let mut input = inputs[random.usize(..inputs.len())].bytes.clone();
    let other = &inputs[random.usize(..inputs.len())].bytes;
    mutate(random, &mut input, other, bytes_max);
    input
}

impl Bag {
    fn run(&mut self, target: &Target, watch: &Watch, input: &[u8], origin: &str) {
        self.runs += 1;
        watch.note(input);
        let Some(panic) = panic_of(target, input) else {
            return;
        };
        if self.failures.iter().any(|known| known.place == panic.place) {
            return;
        }
        let is_same = |smaller: &[u8]| {
            panic_of(target, smaller).is_some_and(|other| other.place == panic.place)
        };
        watch.rest();
        let input = minimize(input.to_vec(), MINIMIZING_RUNS_MAX, is_same);
        self.failures.push(Failure {
            input,
            origin: origin.to_owned(),
            place: panic.place,
            message: panic.message,
        });
    }
}

/// What a panic says, and where.
pub struct Panic {
    /// As `file:line`.
    pub place: String,
    /// What it says.
    pub message: String,
}

thread_local! {
    /// `Some` while this thread runs a target.
    static LAST: RefCell<Option<Option<Panic>>> = const { RefCell::new(None) };
}

/// Runs a target over one input; `None` where nothing is wrong.
pub fn panic_of(target: &Target, input: &[u8]) -> Option<Panic> {
    hear_panics();
    LAST.set(Some(None));
    let outcome = panic::catch_unwind(|| (target.run)(input));
    let heard = LAST.take().flatten();
    outcome.err().map(|_| {
        heard.unwrap_or(Panic {
            place: "somewhere".to_owned(),
            message: "it panicked".to_owned(),
        })
    })
}

/// Has panics of threads that run a target noted instead of printed.
fn hear_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let is_heard = LAST.with_borrow_mut(|last| {
                let Some(last) = last else { return false };
                let place = info.location();
                *last = Some(Panic {
                    place: place
                        .map_or_else(String::new, |at| format!("{}:{}", at.file(), at.line())),
                    message: text_of(info.payload()),
                });
                true
            });
            if !is_heard {
                print(info);
            }
        }));
    });
}

fn text_of(payload: &dyn Any) -> String {
    match (
        payload.downcast_ref::<&str>(),
        payload.downcast_ref::<String>(),
    ) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "it panicked".to_owned(),
    }
}

/// Ends the program when one input takes too long, having written it down.
struct Watch(Arc<Watched>);

#[derive(Default)]
struct Watched {
    input: Mutex<Vec<u8>>,
    /// Counts up with each input; 0: none runs.
    number: AtomicU64,
}

impl Watch {
    fn start(name: &'static str) -> Self {
        let watched = Arc::new(Watched::default());
        let weak = Arc::downgrade(&watched);
        thread::spawn(move || {
            let (mut last, mut since) = (0, Instant::now());
            while let Some(watched) = weak.upgrade() {
                let number = watched.number.load(Ordering::Relaxed);
                if number != last {
                    (last, since) = (number, Instant::now());
                } else if number != 0 && since.elapsed() > INPUT_TIME_MAX {
                    end(name, &watched);
                }
                drop(watched);
                thread::sleep(Duration::from_millis(100));
            }
        });
        Self(watched)
    }

    fn note(&self, input: &[u8]) {
        let mut noted = self.0.input.lock().unwrap_or_else(PoisonError::into_inner);
        noted.clear();
        noted.extend_from_slice(input);
        self.0.number.fetch_add(1, Ordering::Relaxed);
    }

    fn rest(&self) {
        self.0.number.store(0, Ordering::Relaxed);
    }
}

fn end(name: &str, watched: &Watched) -> ! {
    let input = watched.input.lock().unwrap_or_else(PoisonError::into_inner);
    let path = corpus::keep(
        &std::env::temp_dir().join("pheromone-fuzz").join(name),
        &input,
    );
    eprintln!(
        "{name}: one input has taken more than {} s; it is in {path:?}",
        INPUT_TIME_MAX.as_secs()
    );
    std::process::abort()
}

/// Writes a failing input into a folder, and says what is wrong and how to see it again.
///
/// # Errors
/// The file cannot be written.
pub fn keep(target: &Target, failure: &Failure, folder: &Path) -> io::Result<String> {
    let path = corpus::keep(folder, &failure.input)?;
    let (name, path) = (target.name, path.display());
    Ok(format!(
        "{name}: {} at {} ({})\n  the input, made small ({} bytes): {path}\n  \
         run it again: cargo run --package pheromone-fuzz -- {name} {path}",
        failure.message,
        failure.place,
        failure.origin,
        failure.input.len(),
    ))
}
