//! A blocking HTTP/1.1 client over TCP or a Unix socket: one connection, kept alive.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;

use crate::run::WATCHDOG;

/// One connection.
pub struct Client {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header, its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }

    /// It has this status.
    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?}: {}", self.headers, self.text());
        self
    }

    /// The session that it names.
    #[track_caller]
    pub fn session(&self) -> String {
        self.header("pheromone-session")
            .unwrap_or_else(|| panic!("no Pheromone-Session in {:?}", self.headers))
            .to_owned()
    }
}

fn runtime() -> Runtime {
    // Two threads: one drives the connection, also while nobody asks anything.
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("start a runtime")
}

impl Client {
    /// Connects to a Unix socket.
    pub fn unix(socket: &Path) -> Self {
        let runtime = runtime();
        let sender = runtime.block_on(async {
            let stream = UnixStream::connect(socket)
                .await
                .expect("connect to the socket");
            let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("shake hands");
            tokio::spawn(connection);
            sender
        });
        Self {
            runtime,
            sender,
            host: "localhost".into(),
        }
    }

    /// Connects over TCP.
    pub fn tcp(address: SocketAddr) -> Self {
        Self::try_tcp(address).expect("connect over TCP")
    }

    /// Connects over TCP, where somebody listens.
    pub fn try_tcp(address: SocketAddr) -> Option<Self> {
        let runtime = runtime();
        let sender = runtime.block_on(async {
            let stream = TcpStream::connect(address).await.ok()?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
            tokio::spawn(connection);
            Some(sender)
        })?;
        Some(Self {
            runtime,
            sender,
            host: address.to_string(),
        })
    }

    /// One request with headers, and its answer.
    #[track_caller]
    pub fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Answer {
        self.try_ask(method, path, headers, body)
            .unwrap_or_else(|error| panic!("no answer to {method} {path}: {error}"))
    }

    /// The same, of a node that may go away meanwhile.
    ///
    /// # Errors
    /// It went away.
    #[track_caller]
    pub fn try_ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Result<Answer, hyper::Error> {
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).expect("a method"))
            .uri(path);
        if !headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            request = request.header("host", &self.host);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::from(body.into()));
        let request = request.body(body).expect("a well-formed request");
        let sender = &mut self.sender;
        let answer = self.runtime.block_on(async {
            tokio::time::timeout(WATCHDOG, async {
                sender.ready().await?;
                let answer = sender.send_request(request).await?;
                let (head, body) = answer.into_parts();
                let body = body.collect().await?.to_bytes().to_vec();
                Ok::<_, hyper::Error>((head, body))
            })
            .await
        });
        let answer = answer.unwrap_or_else(|_| panic!("no answer to {method} {path}"));
        let (head, body) = answer?;
        let headers = head.headers.iter().map(|(name, value)| {
            (
                name.as_str().to_owned(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        });
        Ok(Answer {
            status: head.status.as_u16(),
            headers: headers.collect(),
            body,
        })
    }

    /// `GET PATH`.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Answer {
        self.ask("GET", path, &[], "")
    }

    /// `POST PATH` with a body.
    #[track_caller]
    pub fn post(&mut self, path: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.ask("POST", path, &[], body)
    }

    /// Sends a request and goes away before it is answered.
    pub fn post_and_leave(mut self, path: &str, body: &str) {
        let request = Request::post(path)
            .header("host", &self.host)
            .body(Full::new(Bytes::from(body.to_owned())))
            .expect("a well-formed request");
        let sender = &mut self.sender;
        self.runtime.block_on(async {
            let left =
                tokio::time::timeout(Duration::from_millis(300), sender.send_request(request));
            assert!(
                left.await.is_err(),
                "{path} was answered before we could leave"
            );
        });
        self.runtime.shutdown_background();
    }
}
