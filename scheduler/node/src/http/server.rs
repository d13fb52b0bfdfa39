//! Listeners and connections: how many, how long, and their end.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::answer::Problem;
use super::body::Room;
use super::patience::Patient;
use super::results::Results;
use super::rights::{Peer, Rights, Token, TokenError};
use super::unread::Unread;
use super::{Deployer, calls, letters, manage, objects};
use crate::error::NodeError;
use crate::gateway::GatewayHandle;
use crate::node::Node;

/// Connections at once; more wait in the listeners' queues.
const CONNECTIONS_MAX: usize = 4096;
/// How long a client may take to send a request's head, or let a connection lie idle.
const HEAD_WAIT: Duration = Duration::from_secs(30);
/// How long a client may take nothing of what it is sent.
const WRITE_WAIT: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Pause after a failed accept: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Longest path of a socket: `sockaddr_un.sun_path` without its zero byte.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Threads that serve.
const WORKERS: usize = 2;

/// Where a node is served.
#[derive(Clone, Debug, Default)]
pub struct ServeConfig {
    /// Addresses; port 0 takes a free one. One beyond loopback needs `token`.
    pub listen: Vec<SocketAddr>,
    /// A Unix socket, made with mode 0600 and removed at the end.
    pub socket: Option<PathBuf>,
    /// The bearer token.
    pub token: Option<String>,
}

/// Why a node is not served.
#[derive(Debug, Error)]
pub enum ServeError {
    /// An address that others reach, and no token.
    #[error(
        "{address} can be reached from other machines, and nothing would keep them out; name a \
         bearer token by --token-file, or listen on 127.0.0.1"
    )]
    Open {
        /// Which.
        address: SocketAddr,
    },
    /// An address that cannot be had.
    #[error("cannot listen on {address}: {source}; name another by --listen (port 0: a free one)")]
    Address {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A socket that cannot be had.
    #[error("cannot listen on the socket {}: {source}", path.display())]
    Socket {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A socket that nobody could connect to.
    #[error(
        "the socket's path {} has {} bytes, and a socket's path at most {SOCKET_PATH_BYTES_MAX}; \
         name a shorter one by --socket",
        path.display(),
        path.as_os_str().len()
    )]
    PathTooLong {
        /// Which.
        path: PathBuf,
    },
    /// Another node listens on that socket.
    #[error("another node listens on the socket {}; name another by --socket", path.display())]
    Taken {
        /// Which.
        path: PathBuf,
    },
    /// An app's functions may connect there.
    #[error(transparent)]
    Reached(NodeError),
    /// The token is none.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// No threads.
    #[error("cannot start the threads that serve: {0}")]
    Runtime(io::Error),
}

/// What all handlers share.
pub struct Shared {
    /// The node.
    pub node: Arc<Node>,
    /// Its gateway, which outlives the node in handlers that are still under way.
    pub gateway: GatewayHandle,
    /// Prepares deployments.
    pub deployer: Arc<dyn Deployer>,
    /// Kept answers.
    pub results: Arc<Results>,
    /// Room for bodies on their way in.
    pub room: Room,
    rights: Rights,
    draining: AtomicBool,
}

impl Shared {
    /// Whether no new connections are taken.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// A node being served. Dropped, it stops at once.
pub struct Server {
    /// `None` once stopped.
    runtime: Option<Runtime>,
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    socket: Option<PathBuf>,
    drain: watch::Sender<bool>,
    connections: Arc<Semaphore>,
}

impl Server {
    /// Listens and serves.
    ///
    /// # Errors
    /// An address or socket that cannot be had, or that nothing protects.
    pub fn start(
        node: Arc<Node>,
        config: ServeConfig,
        deployer: Arc<dyn Deployer>,
    ) -> Result<Self, ServeError> {
        let token = config.token.as_deref().map(Token::new).transpose()?;
        let open = config
            .listen
            .iter()
            .find(|address| !address.ip().is_loopback());
        if let (Some(&address), None) = (open, &token) {
            return Err(ServeError::Open { address });
        }
        let io_cpus = node.plan().io.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("phr-http")
            .on_thread_start(move || crate::pin_thread(&io_cpus))
            .enable_all()
            .build()
            .map_err(ServeError::Runtime)?;
        // Listeners must be made inside the runtime that will poll them.
        let inside = runtime.enter();
        let mut listeners = Vec::new();
        for address in &config.listen {
            let (listener, address) = listen(*address)?;
            node.listens(address.port()).map_err(ServeError::Reached)?;
            listeners.push((listener, address));
        }
        let addresses = listeners
            .iter()
            .map(|(_, address)| *address)
            .collect::<Vec<_>>();
        let unix = config.socket.as_deref().map(listen_unix).transpose()?;
        let shared = Arc::new(Shared {
            gateway: node.gateway_handle(),
            node,
            deployer,
            results: Arc::default(),
            room: Room::default(),
            rights: Rights {
                token,
                listened: addresses.clone(),
            },
            draining: AtomicBool::new(false),
        });
        let (drain, draining) = watch::channel(false);
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let service = Service {
            router: router(&shared),
            draining,
            connections: Arc::clone(&connections),
        };
        for (listener, _) in listeners {
            tokio::spawn(serve_tcp(listener, service.clone()));
        }
        if let Some(listener) = unix {
            tokio::spawn(serve_unix(listener, service));
        }
        drop(inside);
        Ok(Self {
            runtime: Some(runtime),
            shared,
            addresses,
            socket: config.socket,
            drain,
            connections,
        })
    }

    /// Where it listens, with the ports that it was given.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Its Unix socket.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// Takes no new connections, waits at most `grace` for the requests under way, then ends. The
    /// node goes on; what it was started with comes back when nothing else holds it.
    pub fn stop(mut self, grace: Duration) {
        self.end(grace);
    }

    fn end(&mut self, grace: Duration) {
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        self.shared.draining.store(true, Ordering::Relaxed);
        self.drain.send_replace(true);
        if let Some(socket) = &self.socket {
            // It may have been taken away already.
            let _ = fs::remove_file(socket);
        }
        let connections = Arc::clone(&self.connections);
        runtime.block_on(async move {
            let all = connections.acquire_many(CONNECTIONS_MAX as u32);
            // Whoever is not done by then is cut off.
            let _ = tokio::time::timeout(grace, all).await;
        });
        // Deployments under way run on their own threads; they end by themselves and hold nothing.
        runtime.shutdown_timeout(Duration::from_millis(100));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let bound = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        let actual = listener.local_addr()?;
        Ok((TcpListener::from_std(listener)?, actual))
    });
    bound.map_err(|source| ServeError::Address { address, source })
}

/// Makes a socket that only its owner can connect to, from its first moment under its name.
fn listen_unix(path: &Path) -> Result<UnixListener, ServeError> {
    let refused = |source| ServeError::Socket {
        path: path.to_owned(),
        source,
    };
    // It could be made, under another name, but not connected to.
    if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        return Err(ServeError::PathTooLong {
            path: path.to_owned(),
        });
    }
    if let Ok(old) = fs::symlink_metadata(path) {
        if !old.file_type().is_socket() {
            return Err(refused(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "something that is no socket is there; name another by --socket",
            )));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(ServeError::Taken {
                path: path.to_owned(),
            });
        }
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !parent.exists() {
        fs::DirBuilder::new()
            .mode(0o700)
            .create(parent)
            .map_err(refused)?;
    }
    let unnamed = parent.join(format!(".pheromone-{}.sock", std::process::id()));
    // Of a process that had this id before.
    let _ = fs::remove_file(&unnamed);
    let listener = std::os::unix::net::UnixListener::bind(&unnamed).map_err(refused)?;
    let named = fs::set_permissions(&unnamed, fs::Permissions::from_mode(0o600))
        .and_then(|()| fs::rename(&unnamed, path))
        .and_then(|()| listener.set_nonblocking(true))
        .and_then(|()| UnixListener::from_std(listener));
    named.map_err(|error| {
        let _ = fs::remove_file(&unnamed);
        refused(error)
    })
}

fn router(shared: &Arc<Shared>) -> Router {
    let open = Router::new()
        .route("/v1/apps/{app}", post(calls::call_entry))
        .route(
            "/v1/apps/{app}/functions/{function}",
            post(calls::call_function),
        )
        .route(
            "/v1/apps/{app}/buckets/{bucket}",
            post(calls::put_automatic),
        )
        .route(
            "/v1/apps/{app}/buckets/{bucket}/objects/{key}",
            put(calls::put_named)
                .get(objects::get)
                .delete(objects::delete),
        )
        .route(
            "/v1/apps/{app}/buckets/{bucket}/stream",
            get(manage::not_in_this_build),
        )
        .route("/v1/apps/{app}/sessions", post(manage::not_in_this_build))
        .route("/v1/sessions/{id}/close", post(manage::not_in_this_build))
        .route("/v1/sessions/{id}/response", get(calls::fetch_response))
        .route("/metrics", get(manage::show_metrics))
        .route("/healthz", get(manage::show_health))
        .route("/readyz", get(manage::show_readiness));
    let managed = Router::new()
        .route("/v1/apps", get(manage::list_apps))
        .route(
            "/v1/apps/{app}",
            put(manage::deploy_app).delete(manage::remove_app),
        )
        .route("/v1/sessions", get(manage::list_sessions))
        .route(
            "/v1/sessions/{id}",
            delete(manage::cancel_session).get(manage::show_session),
        )
        .route("/v1/sessions/{id}/trace", get(manage::not_in_this_build))
        .route("/v1/dead-letters", get(letters::list_all))
        .route(
            "/v1/apps/{app}/dead-letters",
            get(letters::list).delete(letters::drop_all),
        )
        .route(
            "/v1/apps/{app}/dead-letters/retry",
            post(letters::retry_all),
        )
        .route(
            "/v1/apps/{app}/dead-letters/{id}",
            delete(letters::drop_one),
        )
        .route(
            "/v1/apps/{app}/dead-letters/{id}/retry",
            post(letters::retry_one),
        )
        .route_layer(middleware::from_fn_with_state(
            Arc::clone(shared),
            owners_only,
        ));
    open.merge(managed)
        .fallback(no_such_route)
        .layer(middleware::from_fn_with_state(
            Arc::clone(shared),
            ours_only,
        ))
        .with_state(Arc::clone(shared))
}

async fn no_such_route() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "there is nothing at this path; the manual lists what is",
    )
}

/// Everything passes here first.
async fn ours_only(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    match shared.rights.admit(peer_of(&request), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// What manages or looks into the node passes here too.
async fn owners_only(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    match shared
        .rights
        .admit_management(peer_of(&request), request.headers())
    {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Put into every request by its connection; without it nobody is trusted.
fn peer_of(request: &Request) -> Peer {
    request
        .extensions()
        .get()
        .copied()
        .unwrap_or(Peer::Stranger)
}

/// What every connection needs.
#[derive(Clone)]
struct Service {
    router: Router,
    draining: watch::Receiver<bool>,
    connections: Arc<Semaphore>,
}

impl Service {
    /// Waits for room for a connection; `None` when no more are taken.
    async fn room(&self) -> Option<OwnedSemaphorePermit> {
        let mut draining = self.draining.clone();
        tokio::select! {
            room = Arc::clone(&self.connections).acquire_owned() => room.ok(),
            _ = draining.wait_for(|draining| *draining) => None,
        }
    }

    /// Waits for a connection; `None` when no more are taken.
    async fn next<T>(&self, accept: impl Future<Output = io::Result<T>>) -> Option<io::Result<T>> {
        let mut draining = self.draining.clone();
        tokio::select! {
            accepted = accept => Some(accepted),
            _ = draining.wait_for(|draining| *draining) => None,
        }
    }
}

async fn serve_tcp(listener: TcpListener, service: Service) {
    while let Some(room) = service.room().await {
        match service.next(listener.accept()).await {
            None => return,
            Some(Ok((stream, address))) => {
                // Small answers should not wait for more; a failure only makes them slower.
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(stream, Peer::Tcp(address), service.clone(), room));
            }
            Some(Err(_)) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve_unix(listener: UnixListener, service: Service) {
    let own_uid = rustix::process::geteuid().as_raw();
    while let Some(room) = service.room().await {
        match service.next(listener.accept()).await {
            None => return,
            Some(Ok((stream, _))) => {
                let peer = match stream.peer_cred() {
                    Ok(peer) => Peer::of_process(peer.uid(), peer.pid().unwrap_or(0), own_uid),
                    Err(_) => Peer::Stranger,
                };
                tokio::spawn(serve(stream, peer, service.clone(), room));
            }
            Some(Err(_)) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve<S>(stream: S, peer: Peer, service: Service, room: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = TowerToHyperService::new(service.router);
    let answer = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let is_held_back = request.headers().contains_key(header::EXPECT);
        let request = request.map(|body| Body::new(Unread::new(Body::new(body), is_held_back)));
        let answered = hyper::service::Service::call(&router, request);
        async move { answered.await.map_err(|never: Infallible| never) }
    });
    let stream = TokioIo::new(Patient::new(stream, WRITE_WAIT));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(stream, answer);
    tokio::pin!(connection);
    let mut draining = service.draining;
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        _ = draining.wait_for(|draining| *draining) => None,
    };
    if ended.is_none() {
        connection.as_mut().graceful_shutdown();
        // What goes wrong on a connection is its client's to notice.
        let _ = connection.await;
    }
    drop(room);
}
