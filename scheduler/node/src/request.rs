//! What is asked of an app from outside, and what comes back.

use std::fmt;
use std::time::Duration;

use pheromone_core::event::{Cause, Death, Failure, Refusal};
use serde::Serialize;

/// Names a request within its node; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// A call or a put.
#[derive(Clone, Debug)]
pub struct Request {
    /// The app's name.
    pub app: String,
    /// Where in it.
    pub to: To,
    /// The payload; may be empty.
    pub body: Vec<u8>,
    /// Headers that functions can look up: content type, `traceparent`, `Pheromone-*`.
    pub headers: Vec<(String, String)>,
    /// Joins this open session instead of opening one (puts only).
    pub session: Option<u64>,
    /// Whether the caller waits for a response; false is answered by `Accepted` at once, and for
    /// a session that it opened by `Ended` later.
    pub wait: bool,
    /// Shortens the app's `session_timeout`.
    pub timeout: Option<Duration>,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// The app's `entry`.
    Entry,
    /// The function of this name.
    Function(String),
    /// A bucket.
    Bucket {
        /// Its name.
        bucket: String,
        /// 1 to 255 bytes; `None`: automatic.
        key: Option<Vec<u8>>,
        /// At most 255 bytes; empty for none.
        group: Vec<u8>,
    },
    /// The function of this dead letter, over the letter's inputs: the request has no body then.
    DeadLetter(u64),
    /// A retained object, which is the response.
    Retained {
        /// Its bucket.
        bucket: String,
        /// Its key.
        key: Vec<u8>,
    },
}

impl To {
    /// The dead letter that is to run again.
    pub(crate) fn letter(&self) -> Option<u64> {
        match self {
            Self::DeadLetter(letter) => Some(*letter),
            _ => None,
        }
    }
}

impl Request {
    /// Has a dead letter's function run again over its inputs, with a caller or without.
    pub fn retry(app: impl Into<String>, letter: u64, wait: bool) -> Self {
        Self {
            app: app.into(),
            to: To::DeadLetter(letter),
            body: Vec::new(),
            headers: Vec::new(),
            session: None,
            wait,
            timeout: None,
        }
    }

    /// As schedulers are told of it: at least 1 ns.
    pub(crate) fn timeout_ns(&self) -> Option<u64> {
        let ns = |timeout: Duration| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        self.timeout.map(|timeout| ns(timeout).max(1))
    }
}

/// What comes back, in this order: `Refused` alone, or `Accepted`, at most one `Response`, and
/// `Ended` last. A put that joins a session and does not wait gets `Accepted` alone.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The request was taken; a put's triggers are evaluated.
    Accepted {
        /// Its session.
        session: u64,
    },
    /// It was not taken, and nothing has happened.
    Refused(RefusalReason),
    /// The session's answer. The session may go on.
    Response {
        /// Its session.
        session: u64,
        /// 200 to 599.
        http_status: u16,
        /// Empty for the default.
        content_type: String,
        /// The payload.
        body: Vec<u8>,
    },
    /// The session has ended.
    Ended {
        /// Which.
        session: u64,
        /// How.
        outcome: Outcome,
        /// A response was given before.
        answered: bool,
    },
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Quiet, and answered.
    Responded,
    /// Quiet, without a response.
    Completed,
    /// For this reason.
    Failed(FailureReport),
    /// Its deadline passed.
    TimedOut,
    /// Cancelled by somebody, or with its app.
    Cancelled,
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// No app of that name.
    NoApp {
        /// The name.
        app: String,
    },
    /// No function of that name.
    NoFunction {
        /// The app.
        app: String,
        /// The name.
        function: String,
    },
    /// No bucket of that name.
    NoBucket {
        /// The app.
        app: String,
        /// The name.
        bucket: String,
    },
    /// The app has no `entry`.
    NoEntry {
        /// The app.
        app: String,
    },
    /// No dead letter of that id (any more).
    NoLetter {
        /// The app.
        app: String,
        /// The id.
        letter: u64,
    },
    /// The inputs of the dead letter have not been kept.
    NoInputs {
        /// The id.
        letter: u64,
    },
    /// The session to join is not open.
    SessionEnded {
        /// Which.
        session: u64,
    },
    /// `limits.sessions` are open.
    Sessions,
    /// `limits.calls_waiting` calls wait to start.
    CallsWaiting,
    /// The app's memory, or `limits.objects`, is used up.
    Memory,
    /// The session has an object of that name, or the durable namespace has one that is not to be
    /// replaced.
    Exists,
    /// There is no durable or retained object of that name.
    NoObject,
    /// It was to be on disk before it was accepted, and the disk has refused.
    NotWritten,
    /// The body is larger than `limits.object_size`.
    TooBig {
        /// Its size.
        size_bytes: u64,
        /// What is allowed.
        limit_bytes: u64,
    },
    /// A key, group, header or combination that cannot be, as a sentence.
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// More requests wait for the node than it keeps.
    Overloaded,
    /// The node is stopping, or its scheduler or zygote is dead: as a sentence.
    Unusable {
        /// Which.
        reason: String,
    },
}

impl RefusalReason {
    /// The HTTP status of the same meaning.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::NoApp { .. }
            | Self::NoFunction { .. }
            | Self::NoBucket { .. }
            | Self::NoEntry { .. }
            | Self::NoLetter { .. }
            | Self::NoObject => 404,
            Self::SessionEnded { .. } | Self::NoInputs { .. } | Self::Exists => 409,
            Self::TooBig { .. } => 413,
            Self::Sessions | Self::CallsWaiting | Self::Memory | Self::Overloaded => 429,
            Self::Malformed { .. } => 400,
            Self::NotWritten | Self::Unusable { .. } => 503,
        }
    }

    /// The same request may be taken later.
    pub fn is_temporary(&self) -> bool {
        self.http_status() == 429
    }

    /// What the scheduler's refusal of a request to `app` means to its caller.
    pub(crate) fn from_scheduler(
        refusal: Refusal,
        app: &str,
        (session, letter): (Option<u64>, Option<u64>),
    ) -> Self {
        let app = || app.to_owned();
        let letter = letter.unwrap_or(0);
        match refusal {
            Refusal::NoApp => Self::NoApp { app: app() },
            Refusal::NoEntry => Self::NoEntry { app: app() },
            Refusal::SessionEnded | Refusal::EndedMeanwhile => Self::SessionEnded {
                session: session.unwrap_or(0),
            },
            Refusal::Sessions => Self::Sessions,
            Refusal::CallsWaiting => Self::CallsWaiting,
            Refusal::Memory => Self::Memory,
            Refusal::NoLetter => Self::NoLetter { app: app(), letter },
            Refusal::NoInputs => Self::NoInputs { letter },
            Refusal::Exists | Refusal::Kept => Self::Exists,
            Refusal::NotWritten => Self::NotWritten,
            Refusal::NoObject => Self::NoObject,
            Refusal::Malformed => Self::Malformed {
                reason: "the key or group is not one: 1 to 255 bytes (a group 0 to 255), no zero \
                         byte, a key not beginning with `~`"
                    .into(),
            },
        }
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoApp { app } => write!(f, "no app `{app}` is deployed here"),
            Self::NoFunction { app, function } => {
                write!(f, "app `{app}` has no function `{function}`")
            }
            Self::NoBucket { app, bucket } => write!(f, "app `{app}` has no bucket `{bucket}`"),
            Self::NoEntry { app } => {
                write!(
                    f,
                    "app `{app}` has no `entry`; name a function, or set one in its manifest"
                )
            }
            Self::NoLetter { app, letter } => write!(
                f,
                "app `{app}` has no dead letter {letter} (any more); list those that there are"
            ),
            Self::NoInputs { letter } => write!(
                f,
                "dead letter {letter} cannot run again: its inputs were too much to be kept; raise \
                 limits.dead_letters for the next time, and drop it"
            ),
            Self::SessionEnded { session } => {
                write!(
                    f,
                    "session {session} is not open; leave the session out to open a new one"
                )
            }
            Self::Sessions => {
                f.write_str("as many sessions are open as limits.sessions allows; try again later")
            }
            Self::CallsWaiting => f.write_str(
                "as many calls wait to start as limits.calls_waiting allows; try again later",
            ),
            Self::Memory => f.write_str(
                "the app's memory or limits.objects is used up; try again later, or raise \
                 `memory` in its manifest",
            ),
            Self::Exists => f.write_str(
                "there is an object of that key already, in the session or (in a durable bucket \
                 with `replace = false`) on disk",
            ),
            Self::NoObject => f.write_str("there is no durable or retained object of that name"),
            Self::NotWritten => f.write_str(
                "it could not be written to disk (the node's log says why), so nothing has happened",
            ),
            Self::TooBig {
                size_bytes,
                limit_bytes,
            } => write!(
                f,
                "the body has {size_bytes} bytes, and limits.object_size allows {limit_bytes}"
            ),
            Self::Malformed { reason } => f.write_str(reason),
            Self::Overloaded => {
                f.write_str("more requests wait for this node than it keeps; try again later")
            }
            Self::Unusable { reason } => f.write_str(reason),
        }
    }
}

impl std::error::Error for RefusalReason {}

/// Why a session failed: whose fault, and what was said last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FailureReport {
    /// The app.
    pub app: String,
    /// The function at fault, where there is one.
    pub function: Option<String>,
    /// Its invocation, or 0.
    pub invocation: u64,
    /// Which attempt, from 1; 0 where there is none.
    pub attempt: u32,
    /// What happened.
    pub cause: FailureCause,
    /// The last lines that the process had printed, oldest first.
    pub output: Vec<String>,
}

/// What made a session fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FailureCause {
    /// The function returned an error.
    Returned {
        /// 1..=255, with 0x100 added where it forbade another attempt; or a negative `phr_status`.
        status: i32,
        /// What it said; may be empty.
        message: String,
    },
    /// A library, symbol or ABI is wrong.
    NotLoaded {
        /// As a sentence.
        message: String,
    },
    /// The function's `PHR_INIT` failed.
    InitFailed {
        /// As a sentence.
        message: String,
    },
    /// Its process called `exit`.
    Exited {
        /// With this code.
        code: i32,
        /// What is known beyond that; may be empty.
        message: String,
    },
    /// Its process was killed.
    Signaled {
        /// By this signal.
        signal: i32,
        /// What is known beyond that (an address, whose memory); may be empty.
        message: String,
    },
    /// Its process is gone, nobody knows how.
    Vanished {
        /// What is known; may be empty.
        message: String,
    },
    /// Its process broke the protocol and was killed.
    Fault {
        /// How.
        message: String,
    },
    /// It ran past its `timeout`, or past the time of a rerun rule as often as it may run, and was
    /// killed.
    TimedOut {
        /// As a sentence.
        message: String,
    },
    /// It sent nothing in the time that a rerun rule gives, as often as it may run.
    NothingSent {
        /// As a sentence.
        message: String,
    },
    /// No process could be started for it.
    NoExecutor {
        /// Why.
        message: String,
    },
    /// A trigger was left waiting.
    Waiting {
        /// Which, and for what.
        message: String,
    },
    /// A limit was passed.
    Limit {
        /// Which.
        message: String,
    },
    /// An object could not be written to disk.
    NotWritten {
        /// Which, and why.
        message: String,
    },
    /// A custom trigger failed again and again.
    Trigger {
        /// Which, and why.
        message: String,
    },
    /// `response = "required"`, and there was none.
    NoResponse,
    /// The node itself is broken: its scheduler or zygote died.
    Node {
        /// Which.
        message: String,
    },
}

impl FailureReport {
    /// The scheduler's words, with names in place of indices.
    pub(crate) fn new(
        app: &str,
        failure: Failure,
        functions: &[String],
        output: Vec<String>,
    ) -> Self {
        let function = failure
            .function
            .map(|index| match functions.get(usize::from(index)) {
                Some(name) => name.clone(),
                None => format!("#{index}"),
            });
        Self {
            app: app.to_owned(),
            function,
            invocation: failure.invocation,
            attempt: failure.attempt,
            cause: FailureCause::from(failure.cause),
            output,
        }
    }

    /// A failure that is the node's own.
    pub(crate) fn of_node(app: &str, message: String) -> Self {
        Self {
            app: app.to_owned(),
            function: None,
            invocation: 0,
            attempt: 0,
            cause: FailureCause::Node { message },
            output: Vec::new(),
        }
    }
}

impl From<Cause> for FailureCause {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Returned { status, message } => Self::Returned { status, message },
            Cause::NotLoaded(message) => Self::NotLoaded { message },
            Cause::InitFailed(message) => Self::InitFailed { message },
            Cause::Died(Death::Exited(code), message) => Self::Exited { code, message },
            Cause::Died(Death::Signaled(signal), message) => Self::Signaled { signal, message },
            Cause::Died(Death::Unknown, message) => Self::Vanished { message },
            Cause::Fault(message) => Self::Fault { message },
            Cause::TimedOut(message) => Self::TimedOut { message },
            Cause::NothingSent(message) => Self::NothingSent { message },
            Cause::NoExecutor(message) => Self::NoExecutor { message },
            Cause::Trigger(message) => Self::Trigger { message },
            Cause::Waiting(message) => Self::Waiting { message },
            Cause::Limit(message) => Self::Limit { message },
            Cause::NotWritten(message) => Self::NotWritten { message },
            Cause::NoResponse => Self::NoResponse,
        }
    }
}

impl fmt::Display for FailureReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.function {
            Some(function) => write!(f, "function `{function}` of app `{}`", self.app)?,
            None => write!(f, "app `{}`", self.app)?,
        }
        if self.attempt > 0 {
            write!(f, ", attempt {}", self.attempt)?;
        }
        write!(f, ": {}", self.cause)?;
        if !self.output.is_empty() {
            f.write_str("; its last output:")?;
            for line in &self.output {
                write!(f, "\n  {line}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for FailureCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (head, message) = match self {
            Self::Returned { status, message } => (describe_status(*status), message.as_str()),
            Self::NotLoaded { message } => ("could not be loaded".into(), message.as_str()),
            Self::InitFailed { message } => ("its PHR_INIT failed".into(), message.as_str()),
            Self::Exited { code, message } => {
                (format!("its process called exit({code})"), message.as_str())
            }
            Self::Signaled { signal, message } => (
                format!("its process was killed by {}", signal_name(*signal)),
                message.as_str(),
            ),
            Self::Vanished { message } => ("its process is gone".into(), message.as_str()),
            Self::Fault { message } => (
                "its process broke the protocol and was killed".into(),
                message.as_str(),
            ),
            Self::NoExecutor { message } => {
                ("no executor could be started".into(), message.as_str())
            }
            Self::TimedOut { message }
            | Self::NothingSent { message }
            | Self::Trigger { message }
            | Self::Waiting { message }
            | Self::Limit { message }
            | Self::NotWritten { message }
            | Self::Node { message } => {
                return f.write_str(message);
            }
            Self::NoResponse => {
                return f.write_str("the session ended without the response that is required");
            }
        };
        f.write_str(&head)?;
        if message.is_empty() {
            Ok(())
        } else {
            write!(f, ": {message}")
        }
    }
}

/// `PHR_PERMANENT(n)` is `0x100 | n`.
const PERMANENT: i32 = 0x100;

fn describe_status(status: i32) -> String {
    if status & !0xff == PERMANENT {
        format!("returned PHR_PERMANENT({})", status & 0xff)
    } else {
        format!("returned {status}")
    }
}

/// A signal as people know it: `signal 11 (SIGSEGV)`.
pub(crate) fn signal_name(signal: i32) -> String {
    match nix::sys::signal::Signal::try_from(signal) {
        Ok(known) => format!("signal {signal} ({known})"),
        Err(_) => format!("signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(cause: Cause) -> Failure {
        Failure {
            function: Some(1),
            invocation: 7,
            attempt: 2,
            cause,
            executor: None,
        }
    }

    fn report(cause: Cause, output: &[&str]) -> String {
        let functions = ["split".to_owned(), "count".to_owned()];
        let output = output.iter().map(|&line| line.to_owned()).collect();
        FailureReport::new("words", failure(cause), &functions, output).to_string()
    }

    #[test]
    fn a_report_names_function_attempt_and_cause() {
        let returned = Cause::Returned {
            status: 3,
            message: "no such file".into(),
        };
        assert_eq!(
            report(returned, &[]),
            "function `count` of app `words`, attempt 2: returned 3: no such file"
        );
        assert_eq!(
            report(
                Cause::Died(Death::Signaled(11), "address 0x0".into()),
                &["one", "two"]
            ),
            "function `count` of app `words`, attempt 2: its process was killed by signal 11 \
             (SIGSEGV): address 0x0; its last output:\n  one\n  two"
        );
        assert_eq!(
            report(Cause::Died(Death::Exited(0), String::new()), &[]),
            "function `count` of app `words`, attempt 2: its process called exit(0)"
        );
    }

    #[test]
    fn a_permanent_status_is_told_as_the_function_wrote_it() {
        assert_eq!(describe_status(0x105), "returned PHR_PERMANENT(5)");
        assert_eq!(describe_status(-4), "returned -4");
        assert_eq!(describe_status(255), "returned 255");
    }

    #[test]
    fn an_index_without_a_name_is_shown_as_a_number() {
        let report = FailureReport::new("a", failure(Cause::NoResponse), &[], Vec::new());
        assert_eq!(report.function.as_deref(), Some("#1"));
    }

    #[test]
    fn refusals_have_the_http_statuses_of_the_manual() {
        let app = || "a".to_owned();
        let table = [
            (RefusalReason::NoApp { app: app() }, 404),
            (RefusalReason::NoEntry { app: app() }, 404),
            (RefusalReason::SessionEnded { session: 1 }, 409),
            (RefusalReason::Exists, 409),
            (
                RefusalReason::TooBig {
                    size_bytes: 2,
                    limit_bytes: 1,
                },
                413,
            ),
            (RefusalReason::Sessions, 429),
            (RefusalReason::CallsWaiting, 429),
            (RefusalReason::Memory, 429),
            (RefusalReason::Overloaded, 429),
        ];
        for (reason, status) in table {
            assert_eq!(reason.http_status(), status, "{reason}");
        }
    }

    #[test]
    fn a_signal_without_a_name_is_a_number() {
        assert_eq!(signal_name(9), "signal 9 (SIGKILL)");
        assert_eq!(signal_name(42), "signal 42");
    }
}
