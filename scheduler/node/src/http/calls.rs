//! Calls and puts, and fetching the responses of those that nobody waited for.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::answer::{Answer, Problem, SESSION_HEADER, accepted, json_response};
use super::duration;
use super::parts::{Path, Query};
use super::results::{Found, IdempotencyKey, Later, Place, Results};
use super::server::Shared;
use crate::gateway::{Command, GatewayHandle};
use crate::node::AppLimits;
use crate::request::{RefusalReason, Reply, Request, To};
use crate::store::Fetched;

/// Deadline of the call's session.
const TIMEOUT_HEADER: &str = "pheromone-timeout";
/// A put's group.
const GROUP_HEADER: &str = "pheromone-group";
/// Names a call of which only one is to be made.
const IDEMPOTENCY_HEADER: &str = "idempotency-key";
/// Headers passed on to functions beside those that begin with [`PASSED_ON_PREFIX`].
const PASSED_ON: [&str; 2] = ["content-type", "traceparent"];
const PASSED_ON_PREFIX: &str = "pheromone-";
/// Longest idempotency key.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Places of the names in `/v1/apps/{app}/buckets/{bucket}/objects/{key}`.
const APP_SEGMENT: usize = 3;
const BUCKET_SEGMENT: usize = 5;
const KEY_SEGMENT: usize = 7;

/// `?wait=`.
#[derive(Deserialize)]
pub struct Wait {
    wait: Option<bool>,
}

impl Wait {
    /// What was asked for, or this.
    pub(super) fn or(&self, otherwise: bool) -> bool {
        self.wait.unwrap_or(otherwise)
    }
}

/// `POST /v1/apps/{app}`: a call of its entry.
pub async fn call_entry(
    state: State<Arc<Shared>>,
    Path(app): Path<String>,
    wait: Query<Wait>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    call(state, app, To::Entry, wait, headers, body).await
}

/// `POST /v1/apps/{app}/functions/{function}`: a call.
pub async fn call_function(
    state: State<Arc<Shared>>,
    Path((app, function)): Path<(String, String)>,
    wait: Query<Wait>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    call(state, app, To::Function(function), wait, headers, body).await
}

/// `PUT /v1/apps/{app}/buckets/{bucket}/objects/{key}`: a put. The key may be any bytes, which
/// the framework's path variables may not.
pub async fn put_named(
    State(shared): State<Arc<Shared>>,
    Query(wait): Query<Wait>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (app, bucket, key) = names_in(&uri)?;
    put(&shared, app, bucket, Some(key), wait, headers, body).await
}

/// App, bucket and key of `/v1/apps/{app}/buckets/{bucket}/objects/{key}`.
pub(super) fn names_in(uri: &Uri) -> Result<(String, String, Vec<u8>), Problem> {
    let segment = |at: usize| {
        let segment = uri.path().split('/').nth(at).unwrap_or_default();
        percent_decoded(segment)
    };
    // A name that is no text is nobody's, and refused as any other that is not there.
    let name = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let (app, bucket) = (name(segment(APP_SEGMENT)?), name(segment(BUCKET_SEGMENT)?));
    Ok((app, bucket, segment(KEY_SEGMENT)?))
}

/// `POST /v1/apps/{app}/buckets/{bucket}`: a put under an automatic key.
pub async fn put_automatic(
    State(shared): State<Arc<Shared>>,
    Path((app, bucket)): Path<(String, String)>,
    Query(wait): Query<Wait>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    put(&shared, app, bucket, None, wait, headers, body).await
}

async fn call(
    State(shared): State<Arc<Shared>>,
    app: String,
    to: To,
    Query(wait): Query<Wait>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let limits = limits_of(&shared, &app)?;
    if headers.contains_key(SESSION_HEADER) {
        return Err(bad(
            "a call opens a session of its own; only puts can join one",
        ));
    }
    let key = idempotency_key(&app, &headers)?;
    let waits = wait.or(true);
    let taken = shared
        .room
        .take(&headers, body, limits.object_size_bytes)
        .await?;
    let request = Request {
        app,
        to,
        timeout: timeout_of(&headers)?,
        headers: passed_on(&headers)?,
        body: taken.bytes,
        session: None,
        // The session has a caller also where its client fetches the response later.
        wait: true,
    };
    if waits && key.is_none() {
        return await_answer(&shared, request, limits).await;
    }
    let (place, later) = match shared.results.place(key, limits.keep_results) {
        Found::Before(later) if waits => return later_answer(later).await,
        Found::Before(later) => return Ok(before(&later)),
        Found::New(place, later) => (place, later),
    };
    let session = submit_for_later(&shared, request, place).await?;
    if waits {
        later_answer(later).await
    } else {
        Ok(accepted(session))
    }
}

async fn put(
    shared: &Arc<Shared>,
    app: String,
    bucket: String,
    key: Option<Vec<u8>>,
    wait: Wait,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let limits = limits_of(shared, &app)?;
    let session = match headers.get(SESSION_HEADER) {
        None => None,
        Some(value) => {
            let number = value
                .to_str()
                .ok()
                .and_then(|text| text.parse::<u64>().ok());
            Some(number.ok_or_else(|| bad("Pheromone-Session must be a session's number"))?)
        }
    };
    let group = headers
        .get(GROUP_HEADER)
        .map_or(&b""[..], |group| group.as_bytes());
    let to = To::Bucket {
        bucket,
        key,
        group: group.to_vec(),
    };
    let taken = shared
        .room
        .take(&headers, body, limits.object_size_bytes)
        .await?;
    let waits = wait.or(false);
    let request = Request {
        app,
        to,
        timeout: timeout_of(&headers)?,
        headers: passed_on(&headers)?,
        body: taken.bytes,
        session,
        wait: waits,
    };
    if waits {
        return await_answer(shared, request, limits).await;
    }
    Ok(accepted(await_session(shared, request).await?))
}

/// Waits until a request for whose end nobody waits is let in.
pub(super) async fn await_session(shared: &Arc<Shared>, request: Request) -> Result<u64, Problem> {
    let (tell, mut hear) = mpsc::unbounded_channel();
    submit(shared, request, move |reply| drop(tell.send(reply)));
    match hear.recv().await {
        Some(Reply::Accepted { session }) => Ok(session),
        Some(Reply::Refused(reason)) => Err(reason.into()),
        _ => Err(stopped()),
    }
}

/// Waits for the first answer: a response, or the session's end.
pub(super) async fn await_answer(
    shared: &Arc<Shared>,
    request: Request,
    limits: AppLimits,
) -> Result<Response, Problem> {
    let (tell, mut hear) = mpsc::unbounded_channel();
    let mut leaving = CancelOnLeaving::new(shared.gateway.clone(), limits.cancel_on_disconnect);
    let joins = request.session.is_some();
    submit(shared, request, move |reply| drop(tell.send(reply)));
    while let Some(reply) = hear.recv().await {
        match reply {
            Reply::Refused(reason) => return Err(reason.into()),
            // A put into somebody else's session does not end it by leaving.
            Reply::Accepted { session } if !joins => leaving.session = Some(session),
            Reply::Accepted { .. } => {}
            Reply::Response {
                session,
                http_status,
                content_type,
                body,
            } => {
                leaving.session = None;
                return Ok(
                    Answer::response(session, http_status, content_type, body).into_response()
                );
            }
            Reply::Ended {
                session, outcome, ..
            } => {
                leaving.session = None;
                return Ok(Answer::end(session, &outcome).into_response());
            }
        }
    }
    Err(stopped())
}

/// Submits a call whose answer goes into its place; returns when it was accepted.
async fn submit_for_later(
    shared: &Arc<Shared>,
    request: Request,
    place: Place,
) -> Result<u64, Problem> {
    let (tell, mut hear) = mpsc::unbounded_channel::<Result<u64, RefusalReason>>();
    let results = Arc::clone(&shared.results);
    submit(shared, request, move |reply| {
        let accepted = note(&results, place, reply);
        if let Some(accepted) = accepted {
            // Whoever has stopped waiting fetches it later, or never.
            let _ = tell.send(accepted);
        }
    });
    match hear.recv().await {
        Some(accepted) => Ok(accepted?),
        None => Err(stopped()),
    }
}

/// Notes what became of a call; gives whether it was accepted, once that is known.
fn note(results: &Results, place: Place, reply: Reply) -> Option<Result<u64, RefusalReason>> {
    match reply {
        Reply::Refused(reason) => {
            results.forget(place);
            Some(Err(reason))
        }
        Reply::Accepted { session } => {
            results.opened(place, session);
            Some(Ok(session))
        }
        Reply::Response {
            session,
            http_status,
            content_type,
            body,
        } => {
            let answer = Answer::response(session, http_status, content_type, body);
            results.answered(place, answer);
            None
        }
        Reply::Ended {
            session, outcome, ..
        } => {
            results.answered(place, Answer::end(session, &outcome));
            None
        }
    }
}

fn submit(shared: &Shared, request: Request, reply: impl FnMut(Reply) + Send + 'static) {
    shared.gateway.submit(request, Box::new(reply));
}

/// `GET /v1/sessions/{id}/response`.
pub async fn fetch_response(
    State(shared): State<Arc<Shared>>,
    Path(session): Path<String>,
) -> Result<Response, Problem> {
    let forgotten = || {
        Problem::new(
            StatusCode::NOT_FOUND,
            "no response of that session is kept: it is unknown, was answered directly, or its \
             keep_results has passed",
        )
    };
    let session: u64 = session.parse().map_err(|_| forgotten())?;
    let Some(later) = shared.results.of(session) else {
        return fetch_from_disk(&shared, session).unwrap_or_else(|| Err(forgotten()));
    };
    let answer = later.borrow().clone();
    Ok(answer.map_or_else(|| accepted(session), IntoResponse::into_response))
}

/// The answer of a durable session, which outlives the node.
fn fetch_from_disk(shared: &Shared, session: u64) -> Option<Result<Response, Problem>> {
    Some(match shared.node.answer_of(session)? {
        Fetched::Answer(answer) => Ok(Answer::kept(session, answer).into_response()),
        Fetched::Open => Ok(accepted(session)),
        Fetched::Unreadable(why) => Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the session's answer cannot be read from disk: {why}"),
        )),
    })
}

/// Waits for an answer that another call, or this one's first attempt, gets.
async fn later_answer(mut later: Later) -> Result<Response, Problem> {
    let answer = later.wait_for(Option::is_some).await.map_err(|_| {
        Problem::new(
            StatusCode::CONFLICT,
            "the call of that Idempotency-Key was refused or is forgotten; make it again",
        )
    })?;
    answer
        .clone()
        .map(IntoResponse::into_response)
        .ok_or_else(stopped)
}

/// What a call that does not wait hears where another one of its key was made before.
fn before(later: &Later) -> Response {
    match &*later.borrow() {
        Some(answer) => accepted(answer.session),
        None => json_response(StatusCode::ACCEPTED, &serde_json::json!({})),
    }
}

/// Cancels a session when its client's connection ends before the answer, where the app wants that.
struct CancelOnLeaving {
    gateway: GatewayHandle,
    wanted: bool,
    session: Option<u64>,
}

impl CancelOnLeaving {
    fn new(gateway: GatewayHandle, wanted: bool) -> Self {
        Self {
            gateway,
            wanted,
            session: None,
        }
    }
}

impl Drop for CancelOnLeaving {
    fn drop(&mut self) {
        if let (true, Some(session)) = (self.wanted, self.session) {
            self.gateway.tell(Command::Cancel { session });
        }
    }
}

pub(super) fn limits_of(shared: &Shared, app: &str) -> Result<AppLimits, Problem> {
    shared.node.app_limits(app).ok_or_else(|| {
        let app = app.to_owned();
        RefusalReason::NoApp { app }.into()
    })
}

fn bad(sentence: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, sentence)
}

pub(super) fn stopped() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the node is stopping")
}

pub(super) fn timeout_of(headers: &HeaderMap) -> Result<Option<std::time::Duration>, Problem> {
    let Some(value) = headers.get(TIMEOUT_HEADER) else {
        return Ok(None);
    };
    let text = value
        .to_str()
        .map_err(|_| bad("Pheromone-Timeout is no text"))?;
    let timeout = duration::parse(text).map_err(|why| bad(format!("Pheromone-Timeout: {why}")))?;
    Ok(Some(timeout))
}

pub(super) fn idempotency_key(
    app: &str,
    headers: &HeaderMap,
) -> Result<Option<IdempotencyKey>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_HEADER) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key) if (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) => {
            Ok(Some((app.to_owned(), key.to_owned())))
        }
        _ => Err(bad("an Idempotency-Key has 1 to 255 visible characters")),
    }
}

/// What functions can see of a call's headers.
pub(super) fn passed_on(headers: &HeaderMap) -> Result<Vec<(String, String)>, Problem> {
    let mut passed = Vec::new();
    for (name, value) in headers {
        let name = name.as_str();
        if !PASSED_ON.contains(&name) && !name.starts_with(PASSED_ON_PREFIX) {
            continue;
        }
        if name == header::AUTHORIZATION.as_str() {
            continue;
        }
        let value = std::str::from_utf8(value.as_bytes())
            .map_err(|_| bad(format!("the header {name} is no UTF-8")))?;
        passed.push((name.to_owned(), value.to_owned()));
    }
    Ok(passed)
}

/// Undoes the escaping of one part of a path (RFC 3986).
fn percent_decoded(segment: &str) -> Result<Vec<u8>, Problem> {
    let wrong = || bad("an escape in the path is no `%` with two hexadecimal digits");
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || {
            let digit = bytes.next().and_then(|byte| (byte as char).to_digit(16));
            digit.ok_or_else(wrong)
        };
        let (high, low) = (digit()?, digit()?);
        decoded.push((high << 4 | low) as u8);
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_paths_may_be_any_bytes() {
        assert_eq!(percent_decoded("a%7Cb%2Fc%20d").unwrap(), b"a|b/c d");
        assert_eq!(percent_decoded("%ff%00").unwrap(), b"\xff\0");
        assert_eq!(percent_decoded("").unwrap(), b"");
        for wrong in ["%", "%1", "%zz", "%+1"] {
            assert!(percent_decoded(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_headers_meant_for_functions_are_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", "text/plain"),
            ("traceparent", "00-1"),
            ("pheromone-tenant", "t"),
            ("authorization", "Bearer secret"),
            ("cookie", "secret"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let mut passed = passed_on(&headers).unwrap();
        passed.sort();
        let names: Vec<&str> = passed.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["content-type", "pheromone-tenant", "traceparent"]);
    }

    #[test]
    fn a_timeout_that_is_none_is_a_bad_request() {
        let mut headers = HeaderMap::new();
        assert_eq!(timeout_of(&headers).unwrap(), None);
        headers.insert(TIMEOUT_HEADER, "500ms".parse().unwrap());
        assert_eq!(timeout_of(&headers).unwrap().unwrap().as_millis(), 500);
        headers.insert(TIMEOUT_HEADER, "soon".parse().unwrap());
        assert_eq!(
            timeout_of(&headers).unwrap_err().status(),
            StatusCode::BAD_REQUEST
        );
    }
}
