//! An app of a test: its manifest and sources in a directory of its own, and commands run on it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::binary::{pheromone, repository};
use crate::processes;
use crate::run::{Finished, Running};

/// With how many schedulers every command runs: the suite runs with one and with several.
pub const SCHEDULERS: &str = "PHEROMONE_SCHEDULERS";

/// `check.h`: what the functions of the tests use beside `pheromone.h`.
pub const fn check_header() -> &'static str {
    include_str!("../functions/check.h")
}

/// A directory with an `app.toml`, readable by functions that run under another uid.
pub struct App {
    directory: TempDir,
    commands: AtomicU32,
}

impl App {
    /// Writes `manifest` as app.toml, with `check.h` beside it.
    pub fn new(manifest: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("phr-")
            .tempdir()
            .expect("create a temporary directory");
        let app = Self {
            directory,
            commands: AtomicU32::new(0),
        };
        // Functions may run under another uid, and some of them leave marks for the test.
        fs::set_permissions(app.path(""), Permissions::from_mode(0o777)).expect("open it");
        app.file("app.toml", manifest)
            .file("check.h", check_header())
    }

    /// An app of one C source, `functions.c`, named in the manifest's `[app]`.
    pub fn with_functions(manifest: &str, source: &str) -> Self {
        Self::new(manifest).file("functions.c", source)
    }

    /// A copy of one of the examples that come with the system.
    pub fn example(name: &str) -> Self {
        let mut app = Self::new("");
        let source = repository().join("examples").join(name);
        for entry in fs::read_dir(&source)
            .expect("the example's directory")
            .flatten()
        {
            let name = entry.file_name();
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if let (true, Some(name)) = (is_file, name.to_str()) {
                let contents = fs::read(entry.path()).expect("a file of the example");
                app = app.file(name, contents);
            }
        }
        app
    }

    /// Writes a file beside the manifest.
    pub fn file(self, name: &str, contents: impl AsRef<[u8]>) -> Self {
        fs::write(self.path(name), contents).expect("write a file of the app");
        self
    }

    /// Compiles a program that commands can be [launched by](Command::launched_by).
    pub fn launcher(&self, source: &str) -> PathBuf {
        let (text, program) = (self.path("launcher.c"), self.path("launcher"));
        fs::write(&text, source).expect("write the launcher");
        let compiled = process::Command::new("cc")
            .args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
            .args([&program, &text])
            .status();
        assert!(compiled.expect("start cc").success());
        program
    }

    /// A path beside the manifest.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The manifest.
    pub fn manifest(&self) -> PathBuf {
        self.path("app.toml")
    }

    /// `pheromone ARGUMENTS`, in the app's directory.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let number = self.commands.fetch_add(1, Ordering::Relaxed);
        Command::new(self.directory.path(), number, arguments)
    }

    /// `pheromone run app.toml`.
    pub fn run(&self) -> Command {
        self.command(["run", "app.toml"])
    }

    /// `pheromone run DIRECTORY/app.toml`.
    pub fn run_in(&self, directory: &str) -> Command {
        self.command(["run".to_owned(), format!("{directory}/app.toml")])
    }

    /// `pheromone run app.toml` on this input.
    pub fn run_on(&self, input: impl AsRef<[u8]>) -> Command {
        self.run().args(["--input", "-"]).input(input)
    }
}

/// One command to be started.
pub struct Command {
    directory: PathBuf,
    number: u32,
    arguments: Vec<OsString>,
    input: Vec<u8>,
    environment: Vec<(OsString, OsString)>,
    watch_memory: bool,
    launcher: Option<PathBuf>,
}

impl Command {
    fn new<S: AsRef<OsStr>>(
        directory: &Path,
        number: u32,
        arguments: impl IntoIterator<Item = S>,
    ) -> Self {
        Self {
            directory: directory.to_path_buf(),
            number,
            arguments: arguments
                .into_iter()
                .map(|a| a.as_ref().to_owned())
                .collect(),
            input: Vec::new(),
            environment: Vec::new(),
            watch_memory: false,
            launcher: None,
        }
    }

    /// One more argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// More arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Its standard input; empty unless given.
    pub fn input(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.input = bytes.as_ref().to_vec();
        self
    }

    /// A variable of its environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Samples the private memory of its processes while it runs.
    pub fn watch_memory(mut self) -> Self {
        self.watch_memory = true;
        self
    }

    /// By a program that is given it with its arguments, and becomes it.
    pub fn launched_by(mut self, launcher: &Path) -> Self {
        self.launcher = Some(launcher.to_path_buf());
        self
    }

    /// Starts it. Its temporary files go to a directory that must be empty when it has ended.
    pub fn start(self) -> Running {
        processes::adopt_orphans();
        let name = |kind: &str| {
            self.directory
                .join(format!(".command-{}.{kind}", self.number))
        };
        let (stdin, stdout, stderr) = (name("stdin"), name("stdout"), name("stderr"));
        let scratch = name("tmp");
        fs::write(&stdin, &self.input).expect("write standard input");
        fs::create_dir(&scratch).expect("create the directory for temporary files");
        fs::set_permissions(&scratch, Permissions::from_mode(0o1777)).expect("open it");
        let mut command = match &self.launcher {
            Some(launcher) => process::Command::new(launcher),
            None => process::Command::new(pheromone()),
        };
        command
            .args(self.launcher.is_some().then(pheromone))
            .args(&self.arguments)
            .current_dir(&self.directory)
            .env_clear()
            .envs(
                ["PATH", "LANG", SCHEDULERS]
                    .into_iter()
                    .filter_map(|name| Some((name, env(name)?))),
            )
            .env("HOME", &scratch)
            .env("TMPDIR", &scratch)
            .env("XDG_RUNTIME_DIR", &scratch)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(
                File::open(&stdin).expect("open standard input"),
            ))
            .stdout(Stdio::from(
                File::create(&stdout).expect("create standard output"),
            ))
            .stderr(Stdio::from(
                File::create(&stderr).expect("create standard error"),
            ))
            // A group of its own, as a shell gives it: an interrupt of the test is not its own.
            .process_group(0);
        let child = command.spawn().expect("start pheromone");
        let mut running = Running::new(child, stdout, stderr, &scratch);
        if self.watch_memory {
            running.watch_memory();
        }
        running
    }

    /// Starts it and waits for its end.
    pub fn finish(self) -> Finished {
        self.start().finish()
    }
}

fn env(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}
