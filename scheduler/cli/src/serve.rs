//! `pheromone serve`: a node with apps, over HTTP, until it is told to stop.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use indicatif::ProgressBar;
use pheromone_core::share::undivided_because;
use pheromone_manifest::{App, BuildOptions, Built};
use pheromone_node::http::{Deployer, ServeConfig, ServeError, Server, Token, TokenError};
use pheromone_node::{Idle, Node, NodeConfig, NodeError};

use crate::exit::{Failure, Status};
use crate::notify::Manager;
use crate::output::Printer;
use crate::{client, duration, manifest, process, schedulers, signals, terminal};

/// Between two looks whether the node is still of use.
const HEALTH_LOOK: Duration = Duration::from_millis(200);
/// How long answers under way may take to be read once everything has ended.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// Between two looks whether the last request has let go of the node.
const RELEASE_LOOK: Duration = Duration::from_millis(5);

/// What a service manager shows of a node that is well.
const SERVING: &str = "serving";

/// Options of `serve`.
#[derive(Args, Debug)]
#[command(after_help = "SIGTERM and Ctrl-C drain and stop; a second signal stops at once.")]
pub struct Options {
    /// Manifests of apps to deploy at start
    #[arg(value_name = "APP.toml")]
    manifests: Vec<PathBuf>,
    /// Address for calls, puts and metrics. Beyond loopback it needs a token file
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:7070",
        value_parser = address
    )]
    listen: Vec<SocketAddr>,
    /// Unix socket for everything, for this user alone (default: $XDG_RUNTIME_DIR/pheromone.sock,
    /// or /tmp/pheromone-UID/pheromone.sock)
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Keep durable objects and sessions here; without it nothing outlives the node
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Scheduler processes, 1 to 16 (default: $PHEROMONE_SCHEDULERS, or 1)
    #[arg(long, value_name = "N")]
    schedulers: Option<u16>,
    /// CPUs for schedulers, one each, as in 0 or 0,2-3
    #[arg(long, value_name = "LIST", value_parser = cpu_list)]
    scheduler_cores: Option<CpuList>,
    /// CPUs for executors
    #[arg(long, value_name = "LIST", value_parser = cpu_list)]
    executor_cores: Option<CpuList>,
    /// What scheduler and executors do when there is nothing to do
    #[arg(long, value_enum, default_value_t = IdlePolicy::Adaptive)]
    idle: IdlePolicy,
    /// A file with the bearer token that lets TCP manage apps too; readable by its owner alone
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,
    /// How long open sessions may go on once the node is told to stop
    #[arg(long, value_name = "D", default_value = "30s", value_parser = duration::parse)]
    drain: Duration,
}

/// `--idle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum IdlePolicy {
    /// Sleep after a short spin: an idle node uses no CPU
    Adaptive,
    /// Never sleep: lowest latency, whole cores used
    Spin,
}

impl From<IdlePolicy> for Idle {
    fn from(policy: IdlePolicy) -> Self {
        match policy {
            IdlePolicy::Adaptive => Self::Adaptive,
            IdlePolicy::Spin => Self::Spin,
        }
    }
}

/// CPUs, in the order given. (A type of its own: a bare Vec would be a repeated option.)
#[derive(Clone, Debug, PartialEq, Eq)]
struct CpuList(Vec<u32>);

/// An address with its port, for clap.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "write an address in numbers with its port, as in 127.0.0.1:7070 or [::1]:7070".to_owned()
    })
}

/// Most CPUs that a list may name, so that `0-4000000000` is refused and not tried.
const CPUS_MAX: usize = 4096;

fn cpu_list(text: &str) -> Result<CpuList, String> {
    let wrong = || "write CPU numbers, as in 0 or 0,2-3".to_owned();
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| wrong());
        let (first, last) = (number(first)?, number(last)?);
        if first > last || (last - first) as usize >= CPUS_MAX - cpus.len().min(CPUS_MAX) {
            return Err(wrong());
        }
        cpus.extend(first..=last);
    }
    Ok(CpuList(cpus))
}

/// `pheromone serve`.
pub fn execute(mut options: Options) -> Result<Status, Failure> {
    if options.socket.is_none() {
        options.socket = Some(client::default_socket()?);
    }
    let token = options.token_file.as_deref().map(token_in).transpose()?;
    let mut prepared = Vec::new();
    for path in &options.manifests {
        let app = manifest::read(path)?;
        let built = manifest::build_quietly(&app)?;
        prepared.push((app, built));
    }
    let signals = signals::listen()?;
    let mut manager = Manager::of_environment().map_err(|error| {
        Failure::usage(format!(
            "the service manager named by NOTIFY_SOCKET cannot be told anything: {error}"
        ))
    })?;
    process::keep_to_itself();
    let node = Node::start(NodeConfig {
        idle: options.idle.into(),
        scheduler_cores: options.scheduler_cores.clone().map(|list| list.0),
        executor_cores: options.executor_cores.clone().map(|list| list.0),
        schedulers: schedulers::count(options.schedulers)?,
        data: options.data.clone(),
        ..NodeConfig::default()
    })?;
    if let Some(directory) = node.directory() {
        signals::remove_at_exit(directory);
    }
    say(&format!("cores: {}", node.plan()))?;
    say(&node.containment())?;
    let printer = Printer::start(node.output(), ProgressBar::hidden())?;
    let node = Arc::new(node);
    let served = open(&node, &prepared, &options, token).and_then(|server| {
        drop(prepared);
        let ended = attend(&node, &signals, options.drain, &mut manager);
        server.stop(match ended {
            Ok(()) => ANSWER_WAIT,
            Err(_) => Duration::ZERO,
        });
        ended
    });
    let stopped = stop(node);
    printer.finish();
    served?;
    stopped?;
    Ok(Status::Success)
}

/// The token in a file that is its owner's alone.
fn token_in(path: &Path) -> Result<String, Failure> {
    let wrong = |error: TokenError| Failure::usage(error.to_string());
    Token::from_file(path).map_err(wrong)?;
    let token = std::fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!(
            "cannot read the token file {}: {error}",
            path.display()
        ))
    })?;
    Ok(token.trim().to_owned())
}

/// Deploys the apps, then listens: whoever can connect finds them there.
fn open(
    node: &Arc<Node>,
    prepared: &[(App, Built)],
    options: &Options,
    token: Option<String>,
) -> Result<Server, Failure> {
    for (app, built) in prepared {
        node.deploy(app, built)?;
        say(&deployed(node, app))?;
    }
    let config = ServeConfig {
        listen: options.listen.clone(),
        socket: options.socket.clone(),
        token,
    };
    let server = Server::start(Arc::clone(node), config, Arc::new(FromManifest)).map_err(
        |error| match error {
            ServeError::Open { .. } | ServeError::PathTooLong { .. } | ServeError::Token(_) => {
                Failure::usage(error.to_string())
            }
            _ => Failure::failed(error.to_string()),
        },
    )?;
    for address in server.addresses() {
        say(&format!("listening on http://{address}"))?;
    }
    if let Some(socket) = server.socket() {
        signals::remove_at_exit(socket.to_owned());
        say(&format!("listening on the socket {}", socket.display()))?;
    }
    Ok(server)
}

/// What is said of an app that is there.
fn deployed(node: &Node, app: &App) -> String {
    let name = &app.spec.name;
    let count = node.plan().count;
    let isolation = node.isolation_of(app);
    match undivided_because(&app.spec, count) {
        None => format!("app `{name}` is deployed, {isolation}"),
        Some(why) => {
            let homes = node.schedulers_of(name).len();
            format!(
                "app `{name}` is deployed, {isolation}; on {homes} of {count} schedulers: {why}"
            )
        }
    }
}

/// Serves until a signal comes or the node breaks; then lets what is open end.
fn attend(
    node: &Node,
    signals: &Receiver<Status>,
    drain: Duration,
    manager: &mut Manager,
) -> Result<(), Failure> {
    manager.ready(SERVING);
    while let Err(RecvTimeoutError::Timeout) = signals.recv_timeout(HEALTH_LOOK) {
        node.check()?;
        match node.stuck() {
            Some(stuck) => manager.is_unwell(&stuck),
            None => manager.is_well(&status_of(node)),
        }
    }
    manager.stopping();
    node.stopping();
    let names: BTreeSet<String> = node.apps().into_iter().map(|app| app.name).collect();
    let open: u64 = node
        .apps()
        .iter()
        .filter_map(|app| Some(app.stats?.sessions_open))
        .sum();
    if open > 0 {
        say(&format!(
            "stopping: {} to end; a second signal stops at once",
            match open {
                1 => format!("1 open session has {}", duration::show(drain)),
                open => format!("{open} open sessions have {}", duration::show(drain)),
            }
        ))?;
    }
    std::thread::scope(|scope| {
        let removals: Vec<_> = names
            .iter()
            .map(|name| scope.spawn(move || node.remove(name, drain)))
            .collect();
        for removal in removals {
            match removal.join() {
                // Somebody else has removed it meanwhile.
                Ok(Ok(()) | Err(NodeError::NoApp { .. })) => {}
                Ok(Err(error)) => terminal::warn(&error.to_string()),
                Err(_) => terminal::warn("an app could not be removed in order"),
            }
        }
    });
    node.check().map_err(Failure::from)
}

/// What a service manager shows of a node that is well: the trouble of an app, where there is one.
fn status_of(node: &Node) -> String {
    let trouble = node.troubles().into_iter().next();
    trouble.map_or_else(
        || SERVING.to_owned(),
        |(app, trouble)| format!("serving; app `{app}`: {trouble}"),
    )
}

/// Stops the node once nobody else holds it.
fn stop(mut node: Arc<Node>) -> Result<(), Failure> {
    let until = Instant::now() + ANSWER_WAIT;
    loop {
        match Arc::try_unwrap(node) {
            Ok(node) => return node.stop().map_err(Failure::from),
            Err(held) if Instant::now() < until => {
                node = held;
                std::thread::sleep(RELEASE_LOOK);
            }
            Err(_) => {
                return Err(Failure::failed(
                    "a request still holds the node: it is ended with the process",
                ));
            }
        }
    }
}

/// What other commands tell the node to deploy: read and built here, as at the start.
struct FromManifest;

impl Deployer for FromManifest {
    fn prepare(&self, manifest: &Path) -> Result<(App, Built), String> {
        let app = pheromone_manifest::read(manifest).map_err(|found| found.to_string())?;
        let built = pheromone_manifest::build(&app, &BuildOptions::default())
            .map_err(|error| error.to_string())?;
        Ok((app, built))
    }
}

/// A line of the node's own, on standard output.
fn say(text: &str) -> Result<(), Failure> {
    terminal::print(&format!("{text}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_have_numbers_and_ranges() {
        assert_eq!(cpu_list("0"), Ok(CpuList(vec![0])));
        assert_eq!(cpu_list("0,2-4,9"), Ok(CpuList(vec![0, 2, 3, 4, 9])));
        for text in ["", "a", "1-", "3-1", "0-4000000000", "1,,2", "-1"] {
            assert!(cpu_list(text).is_err(), "{text}");
        }
    }
}
