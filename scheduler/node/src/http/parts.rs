//! The parts of a request's path and query, as handlers take them. What cannot be read is a problem
//! told like any other, in JSON.

use axum::extract::{FromRequestParts, path, rejection};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::answer::Problem;

/// The path's variables, as text.
pub struct Path<T>(pub T);

/// The query.
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(variables)) => Ok(Self(variables)),
            Err(rejection) => Err(bad_path(&rejection)),
        }
    }
}

fn bad_path(rejection: &rejection::PathRejection) -> Problem {
    let is_text = !matches!(
        rejection,
        rejection::PathRejection::FailedToDeserializePathParams(failed)
            if matches!(failed.kind(), path::ErrorKind::InvalidUtf8InPathParam { .. })
    );
    let sentence = if is_text {
        rejection.body_text()
    } else {
        "a name in the path is no UTF-8: apps, functions, buckets and sessions are text".to_owned()
    };
    Problem::new(rejection.status(), sentence)
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => {
                let text = rejection.body_text();
                let why = text
                    .rsplit_once("query string: ")
                    .map_or(&*text, |(_, why)| why);
                let sentence = format!("the query cannot be read: {why}");
                Err(Problem::new(StatusCode::BAD_REQUEST, sentence))
            }
        }
    }
}
