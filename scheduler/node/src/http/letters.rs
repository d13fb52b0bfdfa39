//! Dead letters: listing them, having them run again, dropping them; for the node's owner alone.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::answer::{Problem, accepted, json_response};
use super::calls::{Wait, await_answer, await_session, limits_of, timeout_of};
use super::manage::away;
use super::parts::{Path, Query};
use super::server::Shared;
use crate::letters::DeadLetter;
use crate::request::{RefusalReason, Request};

/// `GET /v1/dead-letters`: those of all apps, each app's oldest first.
pub async fn list_all(State(shared): State<Arc<Shared>>) -> Result<Response, Problem> {
    let letters = away(move || {
        let mut letters: Vec<DeadLetter> = Vec::new();
        for app in shared.node.app_names() {
            // One that has gone meanwhile has none.
            letters.extend(shared.node.dead_letters(&app).unwrap_or_default());
        }
        letters
    })
    .await?;
    Ok(json_response(StatusCode::OK, &json!(letters)))
}

/// `GET /v1/apps/{app}/dead-letters`: the oldest first.
pub async fn list(
    State(shared): State<Arc<Shared>>,
    Path(app): Path<String>,
) -> Result<Response, Problem> {
    let letters = away(move || shared.node.dead_letters(&app)).await??;
    Ok(json_response(StatusCode::OK, &json!(letters)))
}

/// `DELETE /v1/apps/{app}/dead-letters`.
pub async fn drop_all(
    State(shared): State<Arc<Shared>>,
    Path(app): Path<String>,
) -> Result<Response, Problem> {
    let count = away(move || shared.node.drop_dead_letters(&app, None)).await??;
    Ok(json_response(StatusCode::OK, &json!({ "dropped": count })))
}

/// `DELETE /v1/apps/{app}/dead-letters/{id}`.
pub async fn drop_one(
    State(shared): State<Arc<Shared>>,
    Path((app, letter)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let letter = number(&letter)?;
    let name = app.clone();
    let count = away(move || shared.node.drop_dead_letters(&name, Some(letter))).await??;
    if count == 0 {
        return Err(RefusalReason::NoLetter { app, letter }.into());
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /v1/apps/{app}/dead-letters/{id}/retry`: 202 with the session that it opens, or with
/// `?wait=true` what a call of its function would give.
pub async fn retry_one(
    State(shared): State<Arc<Shared>>,
    Path((app, letter)): Path<(String, String)>,
    Query(wait): Query<Wait>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let letter = number(&letter)?;
    let limits = limits_of(&shared, &app)?;
    let waits = wait.or(false);
    let request = Request {
        timeout: timeout_of(&headers)?,
        ..Request::retry(app, letter, waits)
    };
    if waits {
        return await_answer(&shared, request, limits).await;
    }
    Ok(accepted(await_session(&shared, request).await?))
}

/// `POST /v1/apps/{app}/dead-letters/retry`: all that there are, each in a session of its own, for
/// none of which anybody waits. Tells which sessions, and which letters were refused and why.
pub async fn retry_all(
    State(shared): State<Arc<Shared>>,
    Path(app): Path<String>,
) -> Result<Response, Problem> {
    let (listing, name) = (Arc::clone(&shared), app.clone());
    let letters = away(move || listing.node.dead_letters(&name)).await??;
    let (mut retried, mut refused) = (Vec::new(), Vec::new());
    for letter in letters {
        let request = Request::retry(&*app, letter.id, false);
        let id = letter.id.to_string();
        match await_session(&shared, request).await {
            Ok(session) => retried.push(json!({ "id": id, "session": session.to_string() })),
            Err(problem) => refused.push(json!({ "id": id, "error": problem.sentence() })),
        }
    }
    let told = json!({ "retried": retried, "refused": refused });
    Ok(json_response(StatusCode::OK, &told))
}

fn number(letter: &str) -> Result<u64, Problem> {
    letter
        .parse()
        .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "a dead letter's id is a number"))
}
