//! What can go wrong with a node as a whole. Requests have their own answers (`request.rs`).

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use pheromone_core::share::SCHEDULERS_MAX;
use pheromone_executor::sandbox::Level;
use thiserror::Error;

/// Why a node could not start, deploy, remove or go on.
#[derive(Debug, Error)]
pub enum NodeError {
    /// No schedulers, or more than a node can have.
    #[error(
        "{asked} schedulers were asked for, and a node has 1 to {SCHEDULERS_MAX}; give another \
         number as --schedulers"
    )]
    Schedulers {
        /// How many.
        asked: u16,
    },
    /// A CPU that this process may not use.
    #[error(
        "CPU {cpu} was given for {what}, but this process may run only on {allowed}; name one of \
         those"
    )]
    Cpu {
        /// Which.
        cpu: u32,
        /// For what.
        what: &'static str,
        /// The allowed ones as a list.
        allowed: String,
    },
    /// The machine refused something.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried, as in "create the link".
        action: String,
        /// What the machine said.
        source: io::Error,
    },
    /// What is to outlive the node cannot be read or written.
    #[error("durable objects cannot be kept: {reason}")]
    Journal {
        /// Why, as a sentence.
        reason: String,
    },
    /// An app wants to keep objects on disk, and the node keeps nothing.
    #[error(
        "app `{app}` has the durable {what}, and this node keeps nothing on disk; start it with \
         --data DIR"
    )]
    NothingKept {
        /// Which.
        app: String,
        /// "bucket `b`" or "function `f`".
        what: String,
    },
    /// One of the node's processes did not come up.
    #[error("the {process} did not start: {reason}")]
    Start {
        /// "scheduler" or "zygote".
        process: &'static str,
        /// Why, as far as known.
        reason: String,
    },
    /// Zygotes have died again and again, and with each every executor. The node is of no further
    /// use.
    #[error("the zygote died ({how}), and every executor with it; start the node again")]
    ZygoteDied {
        /// How.
        how: String,
    },
    /// The scheduler is dead. The node is of no further use.
    #[error("the scheduler died ({how}), and every session with it; start the node again")]
    SchedulerDied {
        /// How.
        how: String,
    },
    /// The node is stopping or has stopped.
    #[error("the node is stopping")]
    Stopping,
    /// No such app.
    #[error("no app `{app}` is deployed here")]
    NoApp {
        /// Its name.
        app: String,
    },
    /// The core refuses the app.
    #[error("app `{app}` cannot be run: {reason}")]
    Spec {
        /// Its name.
        app: String,
        /// Why.
        reason: String,
    },
    /// A library could not be copied or read.
    #[error("library `{}` of {whose} cannot be used: {source}", path.display())]
    Library {
        /// Whose: a function or a custom trigger.
        whose: String,
        /// Where it was looked for.
        path: PathBuf,
        /// What the machine said.
        source: io::Error,
    },
    /// The app asks for more isolation than there is here.
    #[error(
        "app `{app}` asks for isolation `{level}`, and this machine lacks for it: {missing}; \
         `pheromone check --host` tells more, and another `isolation` in the manifest asks for less"
    )]
    Isolation {
        /// Which.
        app: String,
        /// What it asks for.
        level: Level,
        /// All that is missing.
        missing: String,
    },
    /// Functions would reach the node itself.
    #[error(
        "app `{app}` may connect to port {port}, on which this node listens; leave it out of \
         `connect`, or listen on another one"
    )]
    OwnPort {
        /// Whose functions.
        app: String,
        /// Which.
        port: u16,
    },
    /// A library lacks what its functions need: symbol, ABI mark, a dependency.
    #[error("app `{app}` cannot be loaded: {reason}")]
    Probe {
        /// Whose.
        app: String,
        /// A sentence for each function that lacks something, or one for the library, each with the
        /// library as the user knows it.
        reason: String,
    },
    /// An executor of a new app could not be started or died at once.
    #[error("app `{app}` has no working executor: {reason}")]
    Executor {
        /// Whose.
        app: String,
        /// The first failure.
        reason: String,
    },
    /// Executors did not become ready in time.
    #[error(
        "app `{app}` was not ready after {} s: {ready} of {wanted} executors are",
        after.as_secs()
    )]
    NotReady {
        /// Whose.
        app: String,
        /// How long it was waited.
        after: Duration,
        /// How many are.
        ready: u64,
        /// How many must be.
        wanted: u64,
    },
    /// A question went unanswered.
    #[error("the schedulers have not answered for {} s; try again", after.as_secs())]
    NoAnswer {
        /// How long it was waited.
        after: Duration,
    },
    /// As many versions as a node can ever number have been deployed, or run at once.
    #[error("no further app can be deployed: {reason}")]
    TooMany {
        /// Which limit.
        reason: String,
    },
    /// Something did not end in the time it had and was killed.
    #[error("{what} did not end within {} ms and was killed", after.as_millis())]
    Killed {
        /// What.
        what: String,
        /// How long it had.
        after: Duration,
    },
}

impl NodeError {
    /// Names an action that the machine refused.
    pub(crate) fn system(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::System { action, source }
    }
}
