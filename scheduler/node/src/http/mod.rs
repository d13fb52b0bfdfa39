//! The node over HTTP: calls, puts, responses, health and metrics for everybody who reaches it;
//! managing and looking into it for its owner.
//!
//! - `server`: listeners, connections, their limits and end.
//! - `rights`: who is there, and what may they do.
//! - `calls`: calls and puts, and fetching their responses.
//! - `manage`: apps and sessions.
//! - `answer`: what becomes of a session, as an HTTP response.
//! - `results`: responses kept for later.
//! - `unread`: what becomes of a body that is refused.
//! - `metrics`: counters for Prometheus.
//!
//! Nothing here decides about sessions, and nothing waits on the gateway's thread. Whatever a
//! client sends or withholds is bounded in bytes and time.

mod answer;
mod body;
mod calls;
mod duration;
pub(crate) mod fuzzing;
mod letters;
mod manage;
mod metrics;
mod objects;
mod parts;
mod patience;
mod results;
mod rights;
mod server;
mod unread;

use std::path::Path;

use pheromone_manifest::{App, Built};

pub(crate) use answer::kept_end as answer_of_end;
pub use body::ALL_BODIES_BYTES_MAX;
pub use rights::{Token, TokenError};
pub use server::{ServeConfig, ServeError, Server};

/// Turns a manifest into what can be deployed.
pub trait Deployer: Send + Sync {
    /// Reads the manifest at this absolute path and builds what it names. May take long.
    ///
    /// # Errors
    /// Diagnostics, as text for a person.
    fn prepare(&self, manifest: &Path) -> Result<(App, Built), String>;
}
