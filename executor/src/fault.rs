//! What a failed SDK call reports: a status, and the sentence of `phr_last_error`.

use pheromone_sdk as sdk;

/// A failed call. The sentence says what is wrong and what would be right; the call's name is put
/// in front of it where it is kept.
#[derive(Debug)]
pub struct Fault {
    /// A negative `phr_status`.
    pub status: i32,
    /// Without the call's name, without a capital or a full stop.
    pub sentence: String,
}

impl Fault {
    /// An argument is wrong.
    pub fn invalid(sentence: impl Into<String>) -> Self {
        Self {
            status: sdk::EINVAL,
            sentence: sentence.into(),
        }
    }

    /// Another status.
    pub fn new(status: i32, sentence: impl Into<String>) -> Self {
        Self {
            status,
            sentence: sentence.into(),
        }
    }

    /// Part of the interface, not of this build.
    pub fn not_in_this_build(what: &str) -> Self {
        Self::new(sdk::ENOTSUP, format!("{what} are not in this build"))
    }

    /// The session has ended under the function.
    pub fn cancelled() -> Self {
        Self::new(
            sdk::ECANCELED,
            "the session has ended; what is sent now would arrive nowhere: return soon",
        )
    }
}

/// The result of an SDK call.
pub type Call<T> = Result<T, Fault>;
