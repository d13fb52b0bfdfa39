//! What is read of a request before anybody is asked, for fuzzers.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

use super::answer::Problem;
use super::calls::{idempotency_key, names_in, passed_on, timeout_of};
use super::rights::{Peer, Rights};
use crate::headers;

/// What is understood of a request, or the sentence that its client is told.
pub struct Heard {
    /// App, bucket and key, where the path names an object.
    pub names: Result<(String, String, Vec<u8>), String>,
    /// The deadline of its session.
    pub timeout: Result<Option<Duration>, String>,
    /// The name of the call.
    pub idempotency_key: Result<Option<String>, String>,
    /// The headers that go on to functions.
    pub block: Result<Option<Vec<u8>>, String>,
    /// It may be heard, from this machine and without a token.
    pub is_admitted: bool,
    /// The host that it is for.
    pub host: Option<String>,
}

/// Reads a request with this path and these headers; `None` for what no HTTP parser lets through.
pub fn hear(path: &[u8], headers: &[(&[u8], &[u8])]) -> Option<Heard> {
    let uri = Uri::try_from(path).ok()?;
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name).ok()?;
        map.append(name, HeaderValue::from_bytes(value).ok()?);
    }
    let said = |problem: Problem| problem.sentence().to_owned();
    let rights = Rights {
        token: None,
        listened: vec![([192, 0, 2, 7], 7070).into()],
    };
    let local = Peer::Tcp(([127, 0, 0, 1], 40_000).into());
    let key = idempotency_key("app", &map).map_err(said);
    let block = passed_on(&map).map_err(said);
    let host = map.get(header::HOST);
    Some(Heard {
        names: names_in(&uri).map_err(said),
        timeout: timeout_of(&map).map_err(said),
        idempotency_key: key.map(|key| key.map(|(_, key)| key)),
        block: block.and_then(|passed| headers::encode(&passed).map_err(|why| why.to_string())),
        is_admitted: rights.admit(local, &map).is_ok(),
        host: host.and_then(|host| Some(host.to_str().ok()?.to_owned())),
    })
}
