//! The test bed: one app built from embedded C sources, and a real node that runs it.
//!
//! Nothing is simulated and no function is linked in: the sources are compiled as any app's, and
//! scheduler, zygote and executors are processes of their own.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use pheromone_manifest::{App, BuildOptions, Built};
use pheromone_node::http::{Deployer, ServeConfig, Server};
use pheromone_node::{Node, NodeConfig, Outcome, Reply, Request, To};
use tempfile::TempDir;

use crate::machine::Machine;
use crate::settings::{Settings, Switch};

/// A call that has not ended after this is taken for hung.
const PATIENCE: Duration = Duration::from_secs(120);
/// Puts that are under way while sessions are opened: far fewer than may wait.
const OPENED_AT_ONCE: u32 = 4096;
/// What every app here includes.
const STAMPS: (&str, &str) = ("stamps.h", include_str!("../functions/stamps.h"));
/// Defined for the functions where they may read the time stamp counter.
const COUNTER_FLAG: &str = "-DBENCH_TSC";

/// Sources of a scenario.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// As in the manifest's `source`.
    pub name: &'static str,
    /// C.
    pub text: &'static str,
}

/// An app, compiled.
#[derive(Debug)]
pub struct Bench {
    app: App,
    built: Built,
    directory: TempDir,
}

impl Bench {
    /// Writes `source` and the manifest into a temporary directory below `parent` and compiles it.
    /// The manifest's `CFLAGS` stands for the flags of this machine.
    ///
    /// # Errors
    /// The compiler's, or a manifest that is wrong.
    pub fn build(machine: &Machine, parent: &Path, source: Source, manifest: &str) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("app-")
            // Executors of a node that is root run under another uid, with this as their directory.
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(parent)
            .context("a temporary directory")?;
        let path = |name: &str| -> PathBuf { directory.path().join(name) };
        fs::write(path(STAMPS.0), STAMPS.1)?;
        fs::write(path(source.name), source.text)?;
        let flags = if machine.time_stamp_counter {
            format!("[\"{COUNTER_FLAG}\"]")
        } else {
            "[]".to_owned()
        };
        let manifest = manifest.replace("CFLAGS", &flags);
        fs::write(path("app.toml"), manifest)?;
        let app = pheromone_manifest::read(&path("app.toml"))
            .map_err(|problems| anyhow!("the benchmark's own manifest is wrong:\n{problems}"))?;
        let built = pheromone_manifest::build(&app, &BuildOptions::default())?;
        Ok(Self {
            app,
            built,
            directory,
        })
    }

    /// The library of its first function.
    pub fn library(&self) -> Option<&Path> {
        self.built.libraries.first().map(PathBuf::as_path)
    }

    /// Where the app is; whatever is put there goes with it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Starts a node with this app and waits until its executors are ready.
    ///
    /// # Errors
    /// The node's.
    pub fn start(&self, settings: &Settings) -> Result<Bed> {
        self.start_with(settings, |_| {})
    }

    /// As [`Self::start`], with something else than the usual in the node's configuration.
    ///
    /// # Errors
    /// The node's.
    pub fn start_with(
        &self,
        settings: &Settings,
        change: impl FnOnce(&mut NodeConfig),
    ) -> Result<Bed> {
        let mut config = NodeConfig {
            directory: Some(self.directory.path().join("libraries")),
            ..settings.node()
        };
        change(&mut config);
        let node = Node::start(config)?;
        let mut app = self.app.clone();
        app.spec.continuation = settings.continuation == Switch::On;
        node.deploy(&app, &self.built)?;
        Ok(Bed {
            node: Arc::new(node),
            app: self.app.spec.name.clone(),
            executors_max: self.app.spec.executors.max,
        })
    }
}

/// A node that runs one app.
pub struct Bed {
    node: Arc<Node>,
    app: String,
    executors_max: u16,
}

/// What a call got.
#[derive(Debug)]
pub struct Answer {
    /// The response's body.
    pub body: Vec<u8>,
    /// From handing the request over to holding the response.
    pub took: Duration,
    /// When the request was handed over, nanoseconds of CLOCK_MONOTONIC.
    pub began_ns: u64,
}

/// Now, in nanoseconds of CLOCK_MONOTONIC, as functions have it of `clock_ns` in `stamps.h`.
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

impl Bed {
    /// Executors that the scheduler has woken, and what that has taken it, nanoseconds.
    ///
    /// # Errors
    /// The scheduler does not say.
    pub fn wakes(&self) -> Result<(u64, u64)> {
        let stats = self
            .node
            .stats(&self.app)
            .context("the scheduler does not answer")?;
        Ok((stats.executor_wakes_total, stats.executor_wakes_ns_total))
    }

    /// How many calls may run at the same time.
    pub fn executors_max(&self) -> u16 {
        self.executors_max
    }

    /// Calls the entry function and waits until its session has ended.
    ///
    /// # Errors
    /// Whatever kept the session from responding.
    pub fn call(&self, body: Vec<u8>) -> Result<Answer> {
        self.call_then(To::Entry, body, || Ok(()))
    }

    /// Calls any function.
    ///
    /// # Errors
    /// As [`Bed::call`].
    pub fn call_function(&self, function: &str, body: Vec<u8>) -> Result<Answer> {
        self.call_then(To::Function(function.to_owned()), body, || Ok(()))
    }

    /// Calls the entry function, and lets its session go on when the response is there.
    ///
    /// # Errors
    /// As [`Bed::call`].
    pub fn hold(&self, body: Vec<u8>) -> Result<(Answer, Held<'_>)> {
        let call = self.submit(To::Entry, body);
        loop {
            match call.reply()? {
                (_, Reply::Accepted { .. }) => {}
                (now, Reply::Response { session, body, .. }) => {
                    let answer = Answer {
                        body,
                        took: now - call.began,
                        began_ns: call.began_ns,
                    };
                    let bed = self;
                    return Ok((answer, Held { bed, call, session }));
                }
                (_, Reply::Refused(reason)) => bail!("the call was refused: {reason}"),
                (_, Reply::Ended { outcome, .. }) => {
                    bail!("a session ended without a response: {outcome:?}")
                }
            }
        }
    }

    /// Makes all of these calls at once and waits until every session has ended. The answers are in
    /// the order of the calls.
    ///
    /// # Errors
    /// As [`Bed::call`], of whichever call fails first.
    pub fn call_all(&self, calls: Vec<(To, Vec<u8>)>) -> Result<Vec<Answer>> {
        let under_way: Vec<UnderWay> = calls
            .into_iter()
            .map(|(to, body)| self.submit(to, body))
            .collect();
        under_way
            .into_iter()
            .map(|call| call.wait(|| Ok(())))
            .collect()
    }

    /// Calls, and does something as soon as the response is there, when the session may still be
    /// open.
    ///
    /// # Errors
    /// As [`Bed::call`], or those of `at_response`.
    pub fn call_then(
        &self,
        to: To,
        body: Vec<u8>,
        at_response: impl FnOnce() -> Result<()>,
    ) -> Result<Answer> {
        self.submit(to, body).wait(at_response)
    }

    /// Opens sessions by a put into `bucket` each, which must keep them open.
    ///
    /// # Errors
    /// One of them was refused, or has ended at once.
    pub fn open_sessions(&self, bucket: &str, count: u32) -> Result<Vec<u64>> {
        let mut sessions = Vec::with_capacity(count as usize);
        let mut left = count;
        while left > 0 {
            let batch = left.min(OPENED_AT_ONCE);
            let (tell, replies) = mpsc::channel();
            for _ in 0..batch {
                let tell = tell.clone();
                let request = self.put(bucket, None, Vec::new());
                self.node
                    .submit(request, Box::new(move |reply| drop(tell.send(reply))));
            }
            for _ in 0..batch {
                sessions.push(accepted(&replies)?);
            }
            left -= batch;
        }
        Ok(sessions)
    }

    /// Puts into an open session, and waits until the object's triggers are evaluated. Gives the
    /// time just before, nanoseconds of CLOCK_MONOTONIC.
    ///
    /// # Errors
    /// It was refused.
    pub fn put_into(&self, session: u64, bucket: &str, body: Vec<u8>) -> Result<u64> {
        let (tell, replies) = mpsc::channel();
        let request = self.put(bucket, Some(session), body);
        let began_ns = monotonic_ns();
        self.node
            .submit(request, Box::new(move |reply| drop(tell.send(reply))));
        accepted(&replies)?;
        Ok(began_ns)
    }

    /// A put that nobody waits for.
    fn put(&self, bucket: &str, session: Option<u64>, body: Vec<u8>) -> Request {
        Request {
            app: self.app.clone(),
            to: To::Bucket {
                bucket: bucket.to_owned(),
                key: None,
                group: Vec::new(),
            },
            body,
            headers: Vec::new(),
            session,
            wait: false,
            timeout: None,
        }
    }

    fn submit(&self, to: To, body: Vec<u8>) -> UnderWay {
        let (tell, replies) = mpsc::channel();
        let request = Request {
            app: self.app.clone(),
            to,
            body,
            headers: Vec::new(),
            session: None,
            wait: true,
            timeout: None,
        };
        let (began, began_ns) = (Instant::now(), monotonic_ns());
        self.node.submit(
            request,
            Box::new(move |reply| drop(tell.send((Instant::now(), reply)))),
        );
        UnderWay {
            began,
            began_ns,
            replies,
        }
    }

    /// Ends everything.
    ///
    /// # Errors
    /// What did not leave in order.
    pub fn stop(self) -> Result<()> {
        let node = Arc::into_inner(self.node).context("somebody still uses the node")?;
        Ok(node.stop()?)
    }

    /// Serves it over HTTP, on loopback and on a Unix socket in `directory`.
    ///
    /// # Errors
    /// An address or socket that cannot be had.
    pub fn serve(self, directory: &Path) -> Result<Served> {
        let config = ServeConfig {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            socket: Some(directory.join("node.sock")),
            token: None,
        };
        let server = Server::start(Arc::clone(&self.node), config, Arc::new(NothingMore))?;
        ensure!(
            !server.addresses().is_empty() && server.socket().is_some(),
            "the node does not listen where it was told to"
        );
        Ok(Served { bed: self, server })
    }
}

/// The session that a put was taken into.
fn accepted(replies: &mpsc::Receiver<Reply>) -> Result<u64> {
    let reply = replies.recv_timeout(PATIENCE);
    match reply.map_err(|_| anyhow!("nothing came of a put within {} s", PATIENCE.as_secs()))? {
        Reply::Accepted { session } => Ok(session),
        Reply::Refused(reason) => bail!("a put was refused: {reason}"),
        reply => bail!("a put was answered with {reply:?}"),
    }
}

/// A bed that is reached over HTTP.
pub struct Served {
    bed: Bed,
    server: Server,
}

impl Served {
    /// The same node from inside.
    pub fn bed(&self) -> &Bed {
        &self.bed
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.addresses()[0]
    }

    /// Its Unix socket.
    pub fn socket(&self) -> &Path {
        self.server.socket().unwrap_or(Path::new(""))
    }

    /// Ends everything.
    ///
    /// # Errors
    /// What did not leave in order.
    pub fn stop(self) -> Result<()> {
        // Its caller's connections are closed by now.
        self.server.stop(Duration::from_secs(1));
        self.bed.stop()
    }
}

/// A benchmark's node has its app already.
struct NothingMore;

impl Deployer for NothingMore {
    fn prepare(&self, manifest: &Path) -> Result<(App, Built), String> {
        Err(format!(
            "{} cannot be deployed: this node measures its own app",
            manifest.display()
        ))
    }
}

/// A session that goes on although it has answered.
pub struct Held<'a> {
    bed: &'a Bed,
    call: UnderWay,
    session: u64,
}

impl Held<'_> {
    /// Cancels it, and waits for its end.
    ///
    /// # Errors
    /// It does not end.
    pub fn release(self) -> Result<()> {
        self.bed.node.cancel(self.session);
        while !matches!(self.call.reply()?, (_, Reply::Ended { .. })) {}
        Ok(())
    }
}

/// A call that has been made.
struct UnderWay {
    began: Instant,
    began_ns: u64,
    replies: mpsc::Receiver<(Instant, Reply)>,
}

impl UnderWay {
    fn reply(&self) -> Result<(Instant, Reply)> {
        let reply = self.replies.recv_timeout(PATIENCE);
        reply.map_err(|_| anyhow!("nothing came of a call within {} s", PATIENCE.as_secs()))
    }

    /// Waits until its session has ended.
    fn wait(self, at_response: impl FnOnce() -> Result<()>) -> Result<Answer> {
        let mut answer = None;
        let mut at_response = Some(at_response);
        loop {
            let (now, reply) = self.reply()?;
            match reply {
                Reply::Accepted { .. } => {}
                Reply::Refused(reason) => bail!("the call was refused: {reason}"),
                Reply::Response { body, .. } => {
                    answer = Some(Answer {
                        body,
                        took: now - self.began,
                        began_ns: self.began_ns,
                    });
                    if let Some(act) = at_response.take() {
                        act()?;
                    }
                }
                Reply::Ended { outcome, .. } => match outcome {
                    Outcome::Responded => {
                        return answer.context("a session ended as responded without a response");
                    }
                    Outcome::Failed(report) => bail!("{report}"),
                    outcome => bail!("a session ended without a response: {outcome:?}"),
                },
            }
        }
    }
}
