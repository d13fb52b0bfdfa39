//! Objects that outlive their sessions, read and deleted from outside.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use tokio::sync::oneshot;

use super::answer::{Answer, Problem};
use super::calls::{await_answer, limits_of, names_in, stopped};
use super::server::Shared;
use crate::request::{RefusalReason, Request, To};

/// `GET /v1/apps/{app}/buckets/{bucket}/objects/{key}`: a durable or retained object.
pub async fn get(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    _headers: HeaderMap,
) -> Result<Response, Problem> {
    let (app, bucket, key) = names_in(&uri)?;
    if let Some(stored) = shared.node.find_durable(&app, &bucket, &key) {
        // A disk may take its time, which the other requests' thread has not.
        let read = tokio::task::spawn_blocking(move || (stored.payload.to_vec(), stored));
        let (bytes, stored) = read.await.map_err(|_| stopped())?;
        let bytes = bytes
            .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        let session = stored.object.session as u64;
        return Ok(Answer::response(session, 200, String::new(), bytes).into_response());
    }
    let limits = limits_of(&shared, &app)?;
    let request = Request {
        app,
        to: To::Retained { bucket, key },
        timeout: None,
        headers: Vec::new(),
        body: Vec::new(),
        session: None,
        wait: true,
    };
    await_answer(&shared, request, limits).await
}

/// `DELETE /v1/apps/{app}/buckets/{bucket}/objects/{key}`: a durable object.
pub async fn delete(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<StatusCode, Problem> {
    let (app, bucket, key) = names_in(&uri)?;
    if shared.node.find_durable(&app, &bucket, &key).is_none() {
        return Err(RefusalReason::NoObject.into());
    }
    let (tell, hear) = oneshot::channel();
    shared
        .node
        .delete_durable(&app, &bucket, &key, move |result| drop(tell.send(result)));
    match hear.await {
        Ok(Ok(())) => Ok(StatusCode::NO_CONTENT),
        Ok(Err(reason)) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, reason)),
        Err(_) => Err(stopped()),
    }
}
