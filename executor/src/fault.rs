//! What a failed SDK call reports: a status, and the sentence of `phr_last_error`.

use pheromone_sdk as sdk;

/// A failed call. One word, so that calls that succeed give their results in registers.
#[derive(Debug)]
pub struct Fault(Box<Told>);

/// What there is to tell. The sentence says what is wrong and what would be right; the call's name
/// is put in front of it where it is kept.
#[derive(Debug)]
pub struct Told {
    /// A negative `phr_status`.
    pub status: i32,
    /// Without the call's name, without a capital or a full stop.
    pub sentence: String,
}

impl std::ops::Deref for Fault {
    type Target = Told;

    fn deref(&self) -> &Told {
        &self.0
    }
}

impl Fault {
    /// An argument is wrong.
    #[cold]
    pub fn invalid(sentence: impl Into<String>) -> Self {
        Self::new(sdk::EINVAL, sentence)
    }

    /// Another status.
    #[cold]
    pub fn new(status: i32, sentence: impl Into<String>) -> Self {
        Self(Box::new(Told {
            status,
            sentence: sentence.into(),
        }))
    }

    /// Part of the interface, not of this build.
    pub fn not_in_this_build(what: &str) -> Self {
        Self::new(sdk::ENOTSUP, format!("{what} are not in this build"))
    }

    /// The session has ended under the function.
    #[cold]
    pub fn cancelled() -> Self {
        Self::new(
            sdk::ECANCELED,
            "the session has ended; what is sent now would arrive nowhere: return soon",
        )
    }
}

/// The result of an SDK call.
pub type Call<T> = Result<T, Fault>;
