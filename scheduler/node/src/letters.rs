//! Dead letters as they are told of: invocations that were out of attempts.

use std::time::{Duration, SystemTime};

use pheromone_scheduler::protocol::LetterMessage;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::request::FailureReport;
use crate::status::{as_text, as_unix_ms};

/// An invocation that was out of attempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    /// The invocation's id, as text: not every reader of JSON can hold 64 bits.
    #[serde(serialize_with = "as_text")]
    pub id: u64,
    /// Whose.
    pub app: String,
    /// The function.
    pub function: String,
    /// The session in which it failed.
    #[serde(serialize_with = "as_text")]
    pub session: u64,
    /// How many attempts it had.
    pub attempts: u32,
    /// When it failed for good; told as milliseconds since 1970.
    #[serde(rename = "died_unix_ms", serialize_with = "as_unix_ms")]
    pub died: SystemTime,
    /// How long ago that was, by the schedulers' clock.
    pub age_ms: u64,
    /// How many inputs it had.
    pub inputs: u32,
    /// Bytes that are held for it, with what each object costs.
    pub held_bytes: u64,
    /// Its inputs are held: it can run again.
    pub is_retryable: bool,
    /// The failure as a sentence.
    pub error: String,
    /// The failure of the last attempt.
    pub failure: FailureReport,
}

impl DeadLetter {
    /// What a scheduler has said, with names for numbers.
    pub(crate) fn new(letter: &LetterMessage, failure: FailureReport) -> Self {
        let age = Duration::from_nanos(monotonic_ns().saturating_sub(letter.died_ns));
        let now = SystemTime::now();
        Self {
            id: letter.id,
            app: failure.app.clone(),
            function: failure.function.clone().unwrap_or_default(),
            session: letter.session,
            attempts: failure.attempt,
            died: now.checked_sub(age).unwrap_or(now),
            age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            inputs: letter.input_count,
            held_bytes: letter.held_bytes,
            is_retryable: letter.has_inputs,
            error: failure.to_string(),
            failure,
        }
    }
}

/// The schedulers' clock.
fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    // Monotonic time is never negative, and 2^64 ns are 584 years.
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
