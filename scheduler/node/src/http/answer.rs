//! What becomes of a request, as an HTTP response.

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::request::{FailureReport, Outcome, RefusalReason};
use crate::store::KeptAnswer;

/// Names a request's session.
pub const SESSION_HEADER: &str = "pheromone-session";
/// Of a response whose function named none.
const DEFAULT_CONTENT_TYPE: &str = "application/octet-stream";
/// Of a session that ended without a response.
const NO_CONTENT: u16 = 204;
/// When to try again what was refused for now.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// Something that the node itself says no to.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    sentence: String,
}

impl Problem {
    /// With this status, for this reason.
    pub fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        Self {
            status,
            sentence: sentence.into(),
        }
    }

    /// What it says.
    pub fn sentence(&self) -> &str {
        &self.sentence
    }

    /// Its status.
    #[cfg(test)]
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

impl From<RefusalReason> for Problem {
    fn from(reason: RefusalReason) -> Self {
        let status = StatusCode::from_u16(reason.http_status());
        Self::new(
            status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            reason.to_string(),
        )
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.sentence });
        let mut response = json_response(self.status, &body);
        let later = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::SERVICE_UNAVAILABLE,
        ];
        if later.contains(&self.status) {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        response
    }
}

/// JSON with a status.
pub fn json_response(status: StatusCode, body: &serde_json::Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// What a session gave its caller, to be told once or several times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its session.
    pub session: u64,
    /// The status, the content type (empty: none) and the body.
    status: u16,
    content_type: String,
    body: Bytes,
}

impl Answer {
    /// A function's response.
    pub fn response(session: u64, status: u16, content_type: String, body: Vec<u8>) -> Self {
        let content_type = if content_type.is_empty() {
            DEFAULT_CONTENT_TYPE.to_owned()
        } else {
            content_type
        };
        Self {
            session,
            status,
            content_type,
            body: body.into(),
        }
    }

    /// The end of a session that gave no response.
    pub fn end(session: u64, outcome: &Outcome) -> Self {
        let (status, body) = match outcome {
            Outcome::Responded | Outcome::Completed => (NO_CONTENT, None),
            Outcome::Cancelled => (409, Some(told("cancelled", "the session was cancelled"))),
            Outcome::TimedOut => (
                504,
                Some(told("timed_out", "the session's deadline passed")),
            ),
            Outcome::Failed(report) => (502, Some(failed(report))),
        };
        let body = body.map(|mut body| {
            body["session"] = json!(session.to_string());
            body.to_string()
        });
        Self {
            session,
            status,
            content_type: body.as_ref().map_or("", |_| "application/json").to_owned(),
            body: body.unwrap_or_default().into(),
        }
    }

    /// What a session has answered in an earlier life of the node, or before that was forgotten.
    pub fn kept(session: u64, answer: KeptAnswer) -> Self {
        if answer.http_status == NO_CONTENT {
            let body = Bytes::new();
            return Self {
                session,
                status: answer.http_status,
                content_type: String::new(),
                body,
            };
        }
        Self::response(
            session,
            answer.http_status,
            answer.content_type,
            answer.body,
        )
    }

    /// Bytes that keeping it costs.
    pub fn size_bytes(&self) -> usize {
        self.body.len() + self.content_type.len()
    }
}

/// What is kept of the end of a session that gave no response.
pub fn kept_end(session: u64, outcome: &Outcome) -> KeptAnswer {
    let answer = Answer::end(session, outcome);
    KeptAnswer {
        http_status: answer.status,
        content_type: answer.content_type,
        body: answer.body.into(),
    }
}

fn told(outcome: &str, sentence: &str) -> serde_json::Value {
    json!({ "outcome": outcome, "error": sentence })
}

fn failed(report: &FailureReport) -> serde_json::Value {
    json!({ "outcome": "failed", "error": report.to_string(), "failure": report })
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_GATEWAY);
        if !self.content_type.is_empty() {
            // A function may say anything; what is no header value is not passed on.
            let content_type = HeaderValue::from_str(&self.content_type)
                .unwrap_or(HeaderValue::from_static(DEFAULT_CONTENT_TYPE));
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, content_type);
        }
        with_session(response, self.session)
    }
}

/// 202: taken, and not waited for.
pub fn accepted(session: u64) -> Response {
    let body = json!({ "session": session.to_string() });
    with_session(json_response(StatusCode::ACCEPTED, &body), session)
}

fn with_session(mut response: Response, session: u64) -> Response {
    response
        .headers_mut()
        .insert(SESSION_HEADER, HeaderValue::from(session));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::request::FailureCause;

    fn report() -> FailureReport {
        FailureReport {
            app: "a".into(),
            function: Some("f".into()),
            invocation: 1,
            attempt: 2,
            cause: FailureCause::Returned {
                status: 3,
                message: "no \"luck\"".into(),
            },
            output: vec!["last".into()],
        }
    }

    fn body_of(response: Response) -> String {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let body = builder
            .build()
            .unwrap()
            .block_on(response.into_body().collect());
        String::from_utf8(body.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[test]
    fn every_end_of_a_session_has_its_status() {
        let table = [
            (Outcome::Completed, 204),
            (Outcome::Responded, 204),
            (Outcome::Cancelled, 409),
            (Outcome::Failed(report()), 502),
            (Outcome::TimedOut, 504),
        ];
        for (outcome, status) in table {
            let response = Answer::end(7, &outcome).into_response();
            assert_eq!(response.status().as_u16(), status, "{outcome:?}");
            assert_eq!(response.headers()[SESSION_HEADER], "7");
            let is_json = response.headers().get(header::CONTENT_TYPE).is_some();
            assert_eq!(is_json, status != 204);
        }
    }

    #[test]
    fn a_failure_is_told_in_json_and_as_a_sentence() {
        let text = body_of(Answer::end(7, &Outcome::Failed(report())).into_response());
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["outcome"], "failed");
        assert_eq!(json["session"], "7");
        assert_eq!(json["failure"]["function"], "f");
        assert_eq!(json["failure"]["attempt"], 2);
        assert_eq!(json["failure"]["cause"]["kind"], "returned");
        assert_eq!(json["failure"]["cause"]["status"], 3);
        assert_eq!(json["failure"]["output"][0], "last");
        assert!(json["error"].as_str().unwrap().contains("no \"luck\""));
    }

    #[test]
    fn a_response_is_passed_on_and_its_type_defaults_to_bytes() {
        let answer = Answer::response(9, 201, "text/plain".into(), b"x".to_vec());
        let response = answer.into_response();
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/plain");
        assert_eq!(body_of(response), "x");
        for unusable in ["", "bad\r\nX-Evil: 1"] {
            let response = Answer::response(9, 200, unusable.into(), Vec::new()).into_response();
            assert_eq!(
                response.headers()[header::CONTENT_TYPE],
                DEFAULT_CONTENT_TYPE
            );
            assert_eq!(response.headers().len(), 2);
        }
    }

    #[test]
    fn a_temporary_refusal_says_when_to_try_again() {
        let refused = Problem::from(RefusalReason::Memory).into_response();
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(refused.headers().contains_key(header::RETRY_AFTER));
        let refused = Problem::from(RefusalReason::Exists).into_response();
        assert_eq!(refused.status(), StatusCode::CONFLICT);
        assert!(!refused.headers().contains_key(header::RETRY_AFTER));
    }
}
