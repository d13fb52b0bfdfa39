//! Managing a node and looking into it: apps and sessions, for its owner alone.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::answer::{Problem, json_response};
use super::parts::{Path, Query};
use super::server::Shared;
use super::{duration, metrics};
use crate::error::NodeError;

/// Longest body of a deployment.
const DEPLOYMENT_BYTES_MAX: u64 = 64 * 1024;

/// What a deployment says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deployment {
    /// Absolute.
    manifest: PathBuf,
}

/// `?drain=`.
#[derive(Deserialize)]
pub struct Drain {
    drain: Option<String>,
}

impl From<NodeError> for Problem {
    fn from(error: NodeError) -> Self {
        let status = match error {
            NodeError::NoApp { .. } => StatusCode::NOT_FOUND,
            NodeError::Spec { .. }
            | NodeError::Library { .. }
            | NodeError::Probe { .. }
            | NodeError::Executor { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            NodeError::Stopping
            | NodeError::NoAnswer { .. }
            | NodeError::ZygoteDied { .. }
            | NodeError::SchedulerDied { .. } => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

/// Runs what takes long away from the threads that serve.
pub(super) async fn away<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|_| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "an error in the node itself: its log has more",
        )
    })
}

/// `GET /v1/apps`.
pub async fn list_apps(State(shared): State<Arc<Shared>>) -> Result<Response, Problem> {
    let apps = away(move || shared.node.apps()).await?;
    Ok(json_response(StatusCode::OK, &json!(apps)))
}

/// `PUT /v1/apps/{app}` with `{"manifest": PATH}`.
pub async fn deploy_app(
    State(shared): State<Arc<Shared>>,
    Path(app): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let taken = shared
        .room
        .take(&headers, body, DEPLOYMENT_BYTES_MAX)
        .await?;
    let deployment: Deployment = serde_json::from_slice(&taken.bytes).map_err(|error| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            format!("a deployment is {{\"manifest\": ABSOLUTE PATH}}: {error}"),
        )
    })?;
    if !deployment.manifest.is_absolute() {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "the manifest's path must be absolute: the node has another working directory",
        ));
    }
    away(move || deploy(&shared, &app, &deployment.manifest)).await?
}

fn deploy(shared: &Shared, name: &str, manifest: &std::path::Path) -> Result<Response, Problem> {
    let (app, built) = match shared.deployer.prepare(manifest) {
        Ok(prepared) => prepared,
        Err(diagnostics) => {
            let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
            return Ok((StatusCode::UNPROCESSABLE_ENTITY, kind, diagnostics).into_response());
        }
    };
    if app.spec.name != name {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            format!(
                "the manifest is that of app `{}`, not of `{name}`",
                app.spec.name
            ),
        ));
    }
    shared.node.deploy(&app, &built)?;
    Ok(json_response(StatusCode::OK, &json!({ "app": name })))
}

/// `DELETE /v1/apps/{app}?drain=`.
pub async fn remove_app(
    State(shared): State<Arc<Shared>>,
    Path(app): Path<String>,
    Query(drain): Query<Drain>,
) -> Result<Response, Problem> {
    let drain = match drain.drain {
        None => Duration::ZERO,
        Some(text) => duration::parse(&text)
            .map_err(|why| Problem::new(StatusCode::BAD_REQUEST, format!("drain: {why}")))?,
    };
    away(move || shared.node.remove(&app, drain)).await??;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /v1/sessions`.
pub async fn list_sessions(State(shared): State<Arc<Shared>>) -> Result<Response, Problem> {
    let sessions = away(move || shared.node.sessions()).await?;
    Ok(json_response(StatusCode::OK, &json!(sessions)))
}

/// `GET /v1/sessions/{id}`.
pub async fn show_session(
    State(shared): State<Arc<Shared>>,
    Path(session): Path<String>,
) -> Result<Response, Problem> {
    let session = number(&session)?;
    let answered = shared
        .results
        .of(session)
        .map(|later| later.borrow().is_some());
    let found = away(move || shared.node.session(session)).await?;
    match (found, answered) {
        (Some(status), _) => Ok(json_response(StatusCode::OK, &json!(status))),
        (None, Some(_)) => {
            let ended = json!({ "session": session.to_string(), "open": false });
            Ok(json_response(StatusCode::OK, &ended))
        }
        (None, None) => Err(no_session(session)),
    }
}

/// `DELETE /v1/sessions/{id}`: cancel.
pub async fn cancel_session(
    State(shared): State<Arc<Shared>>,
    Path(session): Path<String>,
) -> Result<Response, Problem> {
    let session = number(&session)?;
    away(move || {
        if shared.node.session(session).is_none() {
            return Err(no_session(session));
        }
        shared.node.cancel(session);
        Ok(StatusCode::ACCEPTED.into_response())
    })
    .await?
}

fn number(session: &str) -> Result<u64, Problem> {
    session
        .parse()
        .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "a session's id is a number"))
}

fn no_session(session: u64) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        format!("no session {session} that was opened from outside is open"),
    )
}

/// `GET /metrics`.
pub async fn show_metrics(State(shared): State<Arc<Shared>>) -> Result<Response, Problem> {
    let text = away(move || {
        let apps = shared.node.apps();
        metrics::text(&apps, shared.node.output_dropped_total())
    })
    .await?;
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    Ok((kind, text).into_response())
}

/// `GET /healthz`: the process serves. Apps whose executors fail again and again are named, one a
/// line: that is their fault, and no reason to start the node again.
pub async fn show_health(State(shared): State<Arc<Shared>>) -> Result<String, Problem> {
    refuse_if_stuck(&shared)?;
    let mut text = "ok\n".to_owned();
    for (app, trouble) in shared.node.troubles() {
        text.push_str(&format!("app `{app}`: {trouble}\n"));
    }
    Ok(text)
}

fn refuse_if_stuck(shared: &Shared) -> Result<(), Problem> {
    match shared.node.stuck() {
        Some(stuck) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, stuck)),
        None => Ok(()),
    }
}

/// `GET /readyz`: the node can take requests.
pub async fn show_readiness(State(shared): State<Arc<Shared>>) -> Result<&'static str, Problem> {
    shared.node.check()?;
    refuse_if_stuck(&shared)?;
    if shared.is_draining() {
        return Err(NodeError::Stopping.into());
    }
    Ok("ready\n")
}

/// A route of which the rest of the system is not in this build.
pub async fn not_in_this_build() -> Problem {
    Problem::new(
        StatusCode::NOT_IMPLEMENTED,
        "this is not in this build: streams, sessions opened and closed by hand, and traces come \
         later",
    )
}
