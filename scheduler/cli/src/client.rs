//! Talks to a running node: HTTP over its Unix socket, one request per command.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

use crate::exit::Failure;

/// Which node.
#[derive(Args, Clone, Debug)]
pub struct Target {
    /// The node's Unix socket (default: $XDG_RUNTIME_DIR/pheromone.sock, or
    /// /tmp/pheromone-UID/pheromone.sock)
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

impl Target {
    /// The path that was given, or the usual one.
    pub fn path(&self) -> Result<PathBuf, Failure> {
        self.socket.clone().map_or_else(default_socket, Ok)
    }
}

/// Where a node of this user has its socket unless told otherwise.
pub fn default_socket() -> Result<PathBuf, Failure> {
    let uid = rustix::process::geteuid().as_raw();
    default_socket_of(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from), uid)
}

fn default_socket_of(runtime_directory: Option<PathBuf>, uid: u32) -> Result<PathBuf, Failure> {
    const SOCKET: &str = "pheromone.sock";
    match runtime_directory {
        // The specification: a relative path is to be ignored.
        Some(directory) if directory.is_absolute() => Ok(directory.join(SOCKET)),
        _ => own_directory(format!("/tmp/pheromone-{uid}").into(), uid)
            .map(|directory| directory.join(SOCKET)),
    }
}

/// Anybody can make a directory in /tmp before its user does, and so pass for that user's node:
/// one that is somebody else's is refused. One that is not there is made by the node.
fn own_directory(directory: PathBuf, uid: u32) -> Result<PathBuf, Failure> {
    match std::fs::symlink_metadata(&directory) {
        Ok(found) if !found.is_dir() || found.uid() != uid => Err(Failure::failed(format!(
            "{} is not a directory of yours (it belongs to uid {}): name a socket by --socket",
            directory.display(),
            found.uid()
        ))),
        _ => Ok(directory),
    }
}

/// What a node has answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The session that was opened, where one was.
    pub session: Option<String>,
    /// The answer is the node's own, a problem told in JSON.
    pub is_problem: bool,
    /// The body.
    pub body: Vec<u8>,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// GET, PUT, POST, DELETE.
    pub method: Method,
    /// Path with query, encoded.
    pub path: String,
    /// Further headers.
    pub headers: Vec<(&'a str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Question<'_> {
    /// One without headers and body.
    pub fn new(method: Method, path: String) -> Self {
        Self {
            method,
            path,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Asks the node and waits for its answer.
    pub fn ask(self, target: &Target) -> Result<Answer, Failure> {
        let path = target.path()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::failed(format!("cannot start a runtime: {error}")))?;
        runtime.block_on(self.exchange(&path))
    }

    async fn exchange(self, path: &Path) -> Result<Answer, Failure> {
        let lost = |error: hyper::Error| {
            Failure::failed(format!(
                "the node at {} has gone away: {error}",
                path.display()
            ))
        };
        let stream = UnixStream::connect(path).await.map_err(|error| {
            Failure::failed(format!(
                "cannot reach a node at {}: {error}; start one with `pheromone serve`, or name its \
                 socket by --socket",
                path.display()
            ))
        })?;
        let (mut sender, connection) = handshake(TokioIo::new(Listening(stream)))
            .await
            .map_err(lost)?;
        let driver = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(self.method)
            .uri(&self.path)
            .header("host", "localhost");
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let request = request
            .body(Full::new(Bytes::from(self.body)))
            .map_err(|error| Failure::usage(format!("this cannot be asked: {error}")))?;
        let answer = sender.send_request(request).await.map_err(lost)?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(lost)?.to_bytes().to_vec();
        driver.abort();
        let header = |name: &str| {
            let value = head.headers.get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        let session = header("pheromone-session");
        let is_json = header("content-type").is_some_and(|kind| kind == "application/json");
        Ok(Answer {
            status: head.status.as_u16(),
            is_problem: is_json && is_problem(&body, session.is_some()),
            session,
            body,
        })
    }
}

impl Answer {
    /// It is one of the statuses that mean success, or else an error that says what the node says.
    pub fn expect(self, wanted: &[u16]) -> Result<Self, Failure> {
        if wanted.contains(&self.status) {
            return Ok(self);
        }
        Err(Failure::failed(self.problem()))
    }

    /// What the node says in an answer that is an error.
    pub fn problem(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let told = serde_json::from_slice::<serde_json::Value>(&self.body).ok();
        let told = told
            .as_ref()
            .and_then(|value| sentence_of(value))
            .map(str::to_owned);
        match told {
            Some(sentence) => sentence,
            None if text.trim().is_empty() => format!("the node answered {}", self.status),
            None => text.trim().to_owned(),
        }
    }
}

/// A connection whose other end may hang up before it has taken everything: a node answers what is
/// too big at once. What it has said by then is still read; without this, the client would only
/// know that it cannot write.
struct Listening(UnixStream);

impl AsyncRead for Listening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Listening {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.0).poll_write(context, bytes) {
            Poll::Ready(Err(error)) if has_hung_up(&error) => Poll::Ready(Ok(bytes.len())),
            written => written,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

fn has_hung_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

/// Whether JSON is a problem of the node's, and no function's response: it says what is wrong, and
/// where a session was opened, how that has ended.
fn is_problem(body: &[u8], has_session: bool) -> bool {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) else {
        return false;
    };
    value["error"].is_string() && (!has_session || value["outcome"].is_string())
}

/// The sentence in a problem told in JSON.
fn sentence_of(value: &serde_json::Value) -> Option<&str> {
    ["error", "message", "reason"]
        .into_iter()
        .find_map(|name| match &value[name] {
            serde_json::Value::String(sentence) => Some(sentence.as_str()),
            nested @ serde_json::Value::Object(_) => sentence_of(nested),
            _ => None,
        })
}

/// A name as one part of a path: everything but unreserved characters (RFC 3986) is escaped.
pub fn part(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for &byte in name {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(byte as char);
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    match text.as_str() {
        // These would be taken out of the path on the way.
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        _ => text,
    }
}

/// A duration as the `Pheromone-Timeout` header has it.
pub fn timeout_header(timeout: Duration) -> (&'static str, String) {
    ("pheromone-timeout", crate::duration::show(timeout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_in_the_runtime_directory_or_below_tmp() {
        let in_runtime = default_socket_of(Some("/run/user/7".into()), 7).expect("a path");
        assert_eq!(in_runtime, PathBuf::from("/run/user/7/pheromone.sock"));
        for none in [None, Some(PathBuf::from("relative"))] {
            let path = default_socket_of(none, 4_000_000_007).expect("nobody has made it");
            let expected = "/tmp/pheromone-4000000007/pheromone.sock";
            assert_eq!(path, PathBuf::from(expected));
        }
    }

    #[test]
    fn a_directory_of_somebody_else_is_not_trusted() {
        let directory = tempfile::tempdir().expect("a directory");
        let own = rustix::process::geteuid().as_raw();
        let path = directory.path().to_owned();
        assert_eq!(own_directory(path.clone(), own).expect("own"), path);
        let failure = own_directory(path.clone(), own + 1).expect_err("not theirs");
        assert!(format!("{failure:?}").contains("--socket"), "{failure:?}");
        let link = path.join("link");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        assert!(own_directory(link, own).is_err(), "leads anywhere");
        let absent = path.join("absent");
        assert_eq!(
            own_directory(absent.clone(), own).expect("to be made"),
            absent
        );
    }

    #[test]
    fn names_become_parts_of_a_path() {
        assert_eq!(part(b"part-0_a.b~"), "part-0_a.b~");
        assert_eq!(part(b"a|b/c d"), "a%7Cb%2Fc%20d");
        assert_eq!(part("ö".as_bytes()), "%C3%B6");
        assert_eq!(part(b"?&#%"), "%3F%26%23%25");
        assert_eq!(
            (part(b"."), part(b"..")),
            ("%2E".to_owned(), "%2E%2E".to_owned())
        );
    }

    #[test]
    fn a_problem_is_told_in_the_nodes_own_words() {
        let answer = |body: &str| Answer {
            status: 404,
            session: None,
            is_problem: true,
            body: body.into(),
        };
        assert_eq!(answer(r#"{"error":"no app `a`"}"#).problem(), "no app `a`");
        assert_eq!(answer(r#"{"error":{"message":"deep"}}"#).problem(), "deep");
        assert_eq!(answer("plain\n").problem(), "plain");
        assert_eq!(answer("").problem(), "the node answered 404");
        assert!(answer("x").expect(&[200, 204]).is_err());
        assert!(answer("x").expect(&[404]).is_ok());
    }

    #[test]
    fn a_problem_is_told_from_a_response_in_json() {
        assert!(is_problem(br#"{"error":"no app"}"#, false));
        assert!(is_problem(
            br#"{"error":"it broke","outcome":"failed"}"#,
            true
        ));
        assert!(!is_problem(br#"{"error":"a function's own"}"#, true));
        assert!(!is_problem(br#"{"answer":42}"#, true));
        assert!(!is_problem(b"text", false));
    }

    #[test]
    fn no_node_is_an_error_that_says_what_to_do() {
        let target = Target {
            socket: Some("/no/such/socket".into()),
        };
        let failure = Question::new(Method::GET, "/v1/apps".into())
            .ask(&target)
            .expect_err("none");
        let text = format!("{failure:?}");
        assert!(
            text.contains("/no/such/socket") && text.contains("pheromone serve"),
            "{text}"
        );
    }
}
