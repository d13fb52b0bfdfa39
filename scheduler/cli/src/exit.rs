//! How a command ends: the exit statuses that scripts rely on, and the errors that lead to them.

use std::io::Write;
use std::process::ExitCode;

use pheromone_manifest::{BuildError, Diagnostics};
use pheromone_node::{NodeError, Outcome, RefusalReason};

use crate::terminal;

/// How a command has ended, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// What was asked for was done.
    Success,
    /// A session's deadline passed.
    TimedOut,
    /// A session failed or was cancelled, or the command could not do what was asked.
    Failed,
    /// The usage, the manifest or a source is wrong.
    Usage,
    /// The terminal went away.
    HungUp,
    /// SIGTERM.
    Terminated,
    /// Ctrl-C.
    Interrupted,
}

impl Status {
    /// The number that the shell sees; signals as shells write them, 128 + their number.
    pub fn number(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::TimedOut => 124,
            Self::HungUp => 129,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }

    /// The same for `main`.
    pub fn code(self) -> ExitCode {
        ExitCode::from(self.number())
    }

    /// Keeps the worse of the two.
    pub fn worsen(&mut self, other: Self) {
        *self = (*self).max(other);
    }

    /// What a session's end means to whoever called it.
    pub fn of_outcome(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Responded | Outcome::Completed => Self::Success,
            Outcome::Failed(_) | Outcome::Cancelled => Self::Failed,
            Outcome::TimedOut => Self::TimedOut,
        }
    }

    /// What a request that was not taken means: naming something that is not there is wrong usage.
    pub fn of_refusal(reason: &RefusalReason) -> Self {
        match reason {
            RefusalReason::NoApp { .. }
            | RefusalReason::NoFunction { .. }
            | RefusalReason::NoBucket { .. }
            | RefusalReason::NoEntry { .. }
            | RefusalReason::NoLetter { .. }
            | RefusalReason::TooBig { .. }
            | RefusalReason::Malformed { .. } => Self::Usage,
            _ => Self::Failed,
        }
    }
}

/// Why a command could not go on.
#[derive(Debug)]
pub struct Failure {
    /// The exit status that follows.
    pub status: Status,
    /// For the person: a sentence, with the next step.
    message: String,
    /// The message has its own headline, as diagnostics do.
    has_headline: bool,
}

impl Failure {
    /// The command was used wrongly, or a file that it was given is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            status: Status::Usage,
            message: message.into(),
            has_headline: false,
        }
    }

    /// It was used rightly, and something else is in the way.
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            status: Status::Failed,
            ..Self::usage(message)
        }
    }

    /// An option of the interface that comes with a later build.
    pub fn not_in_this_build(what: &str, instead: &str) -> Self {
        Self::usage(format!("{what} is not in this build yet; {instead}"))
    }

    /// Diagnostics that speak for themselves.
    pub fn diagnostics(found: &Diagnostics) -> Self {
        Self {
            status: Status::Usage,
            message: found
                .render(terminal::colours(&std::io::stderr()))
                .trim_end()
                .to_owned(),
            has_headline: true,
        }
    }

    /// Prints it on standard error.
    pub fn tell(&self) {
        let mut err = std::io::stderr().lock();
        let headline = if self.has_headline {
            String::new()
        } else {
            terminal::error_headline()
        };
        // Where standard error is closed, the exit status is all that is left.
        let _ = writeln!(err, "{headline}{}", self.message);
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        let message = error.to_string();
        match error {
            NodeError::Schedulers { .. }
            | NodeError::Cpu { .. }
            | NodeError::Spec { .. }
            | NodeError::Library { .. }
            | NodeError::Probe { .. } => Self::usage(message),
            _ => Self::failed(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use pheromone_node::{FailureCause, FailureReport};

    use super::*;

    #[test]
    fn every_status_has_the_number_of_the_manual() {
        let table = [
            (Status::Success, 0),
            (Status::Failed, 1),
            (Status::Usage, 2),
            (Status::TimedOut, 124),
            (Status::Interrupted, 130),
        ];
        for (status, number) in table {
            assert_eq!(status.number(), number, "{status:?}");
        }
    }

    #[test]
    fn the_worst_of_many_calls_decides() {
        let mut status = Status::Success;
        status.worsen(Status::TimedOut);
        assert_eq!(status, Status::TimedOut);
        status.worsen(Status::Failed);
        status.worsen(Status::TimedOut);
        status.worsen(Status::Success);
        assert_eq!(status, Status::Failed);
        status.worsen(Status::Interrupted);
        assert_eq!(status.number(), 130);
    }

    #[test]
    fn outcomes_become_the_statuses_of_the_manual() {
        let failed = Outcome::Failed(FailureReport {
            app: "a".into(),
            function: None,
            invocation: 0,
            attempt: 0,
            cause: FailureCause::NoResponse,
            output: Vec::new(),
        });
        let table = [
            (Outcome::Responded, 0),
            (Outcome::Completed, 0),
            (failed, 1),
            (Outcome::Cancelled, 1),
            (Outcome::TimedOut, 124),
        ];
        for (outcome, number) in table {
            assert_eq!(Status::of_outcome(&outcome).number(), number, "{outcome:?}");
        }
    }

    #[test]
    fn naming_what_is_not_there_is_wrong_usage_and_a_full_node_is_not() {
        let no_function = RefusalReason::NoFunction {
            app: "a".into(),
            function: "f".into(),
        };
        assert_eq!(Status::of_refusal(&no_function), Status::Usage);
        assert_eq!(Status::of_refusal(&RefusalReason::Memory), Status::Failed);
    }

    #[test]
    fn a_library_without_its_symbol_is_a_build_error_and_a_dead_zygote_is_not() {
        let probe = NodeError::Probe {
            app: "a".into(),
            reason: "function `f`: f.so has no symbol `f`".into(),
        };
        assert_eq!(Failure::from(probe).status, Status::Usage);
        let died = NodeError::ZygoteDied {
            how: "signal 9 (SIGKILL)".into(),
        };
        assert_eq!(Failure::from(died).status, Status::Failed);
    }
}
