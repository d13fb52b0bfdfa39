//! The coordinator: routes new sessions to a local scheduler and places what one of them could not
//! start in time.
//!
//! It knows nothing of sessions, objects or executors, and talks to local schedulers by messages
//! alone, so that the two may lie in different processes. There is one local scheduler so far,
//! hence each decision has one possible answer; the messages are those of the general case.

use crate::event::{AppId, Request};

/// From a coordinator to a local scheduler.
#[derive(Debug)]
pub(crate) enum ToLocal<'a> {
    /// A request from outside: open a session for it, or let it into the one it names.
    Open(Request<'a>),
    /// Work of this app waits, and is yours to place: start another process.
    Grow {
        /// Which app.
        app: AppId,
    },
}

/// From a local scheduler to a coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToCoordinator {
    /// Work of this app has waited `forward_delay`, and no executor here sleeps.
    Overflow {
        /// Which app.
        app: AppId,
    },
}

/// The coordinator.
#[derive(Debug, Default)]
pub(crate) struct Coordinator {}

impl Coordinator {
    /// Routes a request to the local scheduler that is to be its session's home.
    pub(crate) fn route<'a>(&mut self, request: Request<'a>) -> ToLocal<'a> {
        ToLocal::Open(request)
    }

    /// Answers a local scheduler.
    pub(crate) fn take(&mut self, message: ToCoordinator) -> ToLocal<'static> {
        match message {
            ToCoordinator::Overflow { app } => ToLocal::Grow { app },
        }
    }
}
