//! What the operating system takes for processes and libraries, measured in a process of the same
//! kind as executors are: by functions that fork and load themselves (`functions/bare.c`).

use std::path::Path;

use anyhow::{Result, ensure};

use crate::bed::{Bench, Source};
use crate::histogram::Distribution;
use crate::machine::Machine;
use crate::settings::Settings;

const SOURCE: Source = Source {
    name: "bare.c",
    text: include_str!("../functions/bare.c"),
};

const MANIFEST: &str = r#"
[app]
name = "bench-bare"
entry = "forks"
source = ["bare.c"]
cflags = CFLAGS
link = ["dl"]
isolation = "none"
executors = { min = 1, max = 1 }

[functions.forks]
[functions.recoveries]
[functions.loads]
[functions.collect]
"#;

/// The functions, built.
#[derive(Debug)]
pub struct Bare {
    bench: Bench,
}

impl Bare {
    /// Builds them.
    ///
    /// # Errors
    /// The compiler's.
    pub fn build(machine: &Machine, directory: &Path) -> Result<Self> {
        let bench = Bench::build(machine, directory, SOURCE, MANIFEST)?;
        Ok(Self { bench })
    }

    /// From just before `fork` to the child's first instruction.
    ///
    /// # Errors
    /// A node that does not start, or no processes left.
    pub fn forks(&self, settings: &Settings, count: u32) -> Result<Distribution> {
        self.times(settings, "forks", order(count, 0))
    }

    /// From just before a child's death by this signal to the first instruction of the one that is
    /// forked when `waitpid` has told of it.
    ///
    /// # Errors
    /// As [`Bare::forks`].
    pub fn recoveries(&self, settings: &Settings, count: u32, signal: u32) -> Result<Distribution> {
        self.times(settings, "recoveries", order(count, signal))
    }

    /// `dlopen` of this library, which must need nothing.
    ///
    /// # Errors
    /// As [`Bare::forks`], or what the loader says.
    pub fn loads(&self, settings: &Settings, count: u32, library: &Path) -> Result<Distribution> {
        let mut bytes = order(count, 0);
        bytes.extend_from_slice(library.as_os_str().as_encoded_bytes());
        self.times(settings, "loads", bytes)
    }

    fn times(&self, settings: &Settings, function: &str, order: Vec<u8>) -> Result<Distribution> {
        let bed = self.bench.start(settings)?;
        let answer = bed.call_function(function, order)?;
        bed.stop()?;
        of_words(&answer.body)
    }
}

/// An `order` of `bare.c`.
fn order(count: u32, signal: u32) -> Vec<u8> {
    [count.to_le_bytes(), signal.to_le_bytes()].concat()
}

/// The times that an answer is made of.
fn of_words(answer: &[u8]) -> Result<Distribution> {
    let (words, rest) = answer.as_chunks::<8>();
    ensure!(
        rest.is_empty() && !words.is_empty(),
        "an answer of {} bytes has no whole times in it",
        answer.len()
    );
    let mut times = Distribution::new();
    for word in words {
        times.record_ns(u64::from_le_bytes(*word));
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_times_and_nothing_else() {
        let times = of_words(&[5, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!((times.count(), times.figures().max_ns), (2, 9));
        assert!(of_words(&[]).is_err());
        assert!(of_words(&[1; 9]).is_err());
    }
}
