//! A running `pheromone serve`, and commands that talk to it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::app::{App, Command};
use crate::http::Client;
use crate::processes::until;
use crate::run::{Finished, Running};

/// A node that serves. Dropped, it is killed.
pub struct Server {
    running: Running,
    /// Its directory: the socket and the commands' files lie there.
    home: App,
    socket: PathBuf,
}

impl Server {
    /// Serves these apps, with more options.
    pub fn start_with(apps: &[&App], options: &[&str]) -> Self {
        Self::start_in(apps, options, &[])
    }

    /// Serves these apps, with more options and variables of the environment.
    pub fn start_in(apps: &[&App], options: &[&str], environment: &[(&str, &Path)]) -> Self {
        Self::launch(apps, options, environment, None)
    }

    /// Serves these apps by a program that is given the command, and becomes it.
    pub fn start_by(launcher: &Path, apps: &[&App]) -> Self {
        Self::launch(apps, &[], &[], Some(launcher))
    }

    fn launch(
        apps: &[&App],
        options: &[&str],
        environment: &[(&str, &Path)],
        launcher: Option<&Path>,
    ) -> Self {
        let home = App::new("");
        let socket = home.path("node.sock");
        let manifests = apps.iter().map(|app| app.manifest());
        let mut running = home
            .command(["serve"])
            .args(manifests)
            .args(["--listen", "127.0.0.1:0", "--socket"])
            .arg(&socket)
            .args(options);
        if let Some(launcher) = launcher {
            running = running.launched_by(launcher);
        }
        let variables = environment.iter();
        let running = variables
            .fold(running, |command, (name, value)| command.env(name, value))
            .start();
        let mut server = Self {
            running,
            home,
            socket,
        };
        until("the node listens", || {
            assert!(
                server.running.is_running(),
                "serve ended:\n{}",
                server.running.stderr_so_far()
            );
            server.tcp_address().is_some()
                && server.socket.exists()
                && Client::unix(&server.socket).get("/readyz").status == 200
        });
        server
    }

    /// Serves these apps.
    pub fn start(apps: &[&App]) -> Self {
        Self::start_with(apps, &[])
    }

    /// The command that serves.
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// Its Unix socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A new connection over the Unix socket.
    pub fn unix(&self) -> Client {
        Client::unix(&self.socket)
    }

    /// A new connection over TCP.
    pub fn tcp(&self) -> Client {
        Client::tcp(self.tcp_address().expect("it has said where it listens"))
    }

    /// Where it listens, as it says itself at its start.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        let said = self.running.stdout_so_far() + &self.running.stderr_so_far();
        said.split(|c: char| c.is_whitespace() || matches!(c, '"' | ',' | '`' | '(' | ')'))
            .filter_map(|word| {
                let word = word
                    .trim_start_matches("http://")
                    .trim_end_matches(['/', '.', ';']);
                word.parse::<SocketAddr>().ok()
            })
            .find(|address| address.port() != 0)
    }

    /// `pheromone ARGUMENTS --socket SOCKET`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.home
            .command(arguments)
            .arg("--socket")
            .arg(&self.socket)
    }

    /// `pheromone deploy MANIFEST`.
    pub fn deploy(&self, app: &App) -> Finished {
        let manifest = app.manifest();
        self.command(&["deploy", manifest.to_str().expect("a path that is text")])
            .finish()
    }

    /// What the node says of one app: its entry of `GET /v1/apps`.
    #[track_caller]
    pub fn app(&self, name: &str) -> Value {
        let apps = self.unix().get("/v1/apps").is(200).json();
        let list = apps
            .as_array()
            .cloned()
            .or_else(|| apps["apps"].as_array().cloned());
        let list = list.unwrap_or_else(|| panic!("no list of apps: {apps}"));
        let found = list.into_iter().find(|app| app["name"] == name);
        found.unwrap_or_else(|| panic!("no app {name} in {apps}"))
    }

    /// A counter of one app, wherever in its entry it stands.
    #[track_caller]
    pub fn counter(&self, app: &str, name: &str) -> u64 {
        let entry = self.app(app);
        find_number(&entry, name).unwrap_or_else(|| panic!("no {name} in {entry}"))
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(self) -> Finished {
        self.running.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Waits until it has ended by itself. Its socket must be gone then.
    pub fn wait(self) -> Finished {
        let mut finished = self.running.finish();
        if self.socket.exists() {
            finished.files_left.push(self.socket.clone());
        }
        finished
    }
}

/// The first number of that name in a JSON value, at any depth.
pub(crate) fn find_number(value: &Value, name: &str) -> Option<u64> {
    match value {
        Value::Object(map) => {
            let own = map.get(name).and_then(Value::as_u64);
            own.or_else(|| map.values().find_map(|value| find_number(value, name)))
        }
        Value::Array(list) => list.iter().find_map(|value| find_number(value, name)),
        _ => None,
    }
}
