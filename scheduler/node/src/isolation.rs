//! How an app's executors are shut in, from its manifest and from what the machine offers.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use pheromone_core::spec::{AppSpec, Isolation};
use pheromone_executor::sandbox::{self, Level, Offers, Sandbox};
use pheromone_manifest::App;

use crate::cgroup::Limits;
use crate::error::NodeError;
use crate::regions::kernel_limit_bytes;

/// Where the loader looks without being told (ld.so(8)), and what is beside the libraries there:
/// locales, character sets.
const LOADER_DIRECTORIES: [&str; 4] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"];
/// Where it is told of more.
const LOADER_CONFIGURATION: &str = "/etc/ld.so.conf";
/// Configurations that include each other deeper than this are a circle.
const INCLUDES_MAX: usize = 8;
/// What an executor takes beside its private memory and its first stack, and the kernel counts as
/// its group's: 512 threads with 36 KiB of the kernel's each, pipes of 512 KiB, page tables.
const KERNEL_BYTES_PER_EXECUTOR: u64 = 32 << 20;
/// Processes and threads of an executor's group beyond those that functions may have, so that an
/// executor can be started when functions have all of theirs.
const TASKS_SPARE: u64 = 16;

/// The level in the words of those who carry it out.
pub fn level(isolation: Isolation) -> Level {
    match isolation {
        Isolation::None => Level::None,
        Isolation::Standard => Level::Standard,
        Isolation::Strict => Level::Strict,
    }
}

/// Refuses an app whose level needs more than the machine offers, or that wants files that are not
/// there: less isolation than was asked for is no isolation.
///
/// # Errors
/// [`NodeError::Isolation`], with everything that is missing.
pub fn refuse_unprotected(app: &App, offers: &Offers) -> Result<(), NodeError> {
    let level = level(app.spec.isolation);
    if level == Level::None {
        return Ok(());
    }
    let mut missing = offers.missing(level);
    let files = app.functions.iter().flat_map(|function| {
        let readable = function.files.iter().map(|file| ("files", file));
        readable.chain(function.writable.iter().map(|file| ("writable", file)))
    });
    for (key, file) in files {
        if let Err(error) = fs::symlink_metadata(file) {
            missing.push(format!("{} of `{key}` ({error})", file.display()));
        }
    }
    if ports(app).next().is_some() {
        missing.extend(
            offers
                .missing_for_ports()
                .filter(|_| level == Level::Standard),
        );
        if level == Level::Strict {
            missing.push("a network: `connect` goes with `standard`".to_owned());
        }
    }
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    Err(NodeError::Isolation {
        app: app.spec.name.clone(),
        level,
        missing: missing.join("; "),
    })
}

/// The ports that an app's functions may connect to, where there is any isolation.
pub fn ports(app: &App) -> impl Iterator<Item = u16> + '_ {
    let functions = app.functions.iter();
    let ports = functions.flat_map(|function| function.connect.iter().copied());
    ports.filter(|_| app.spec.isolation != Isolation::None)
}

/// Ports that the node listens on, and those that functions may connect to: no port is both.
#[derive(Debug, Default)]
pub struct Ports {
    listened: BTreeSet<u16>,
    /// By whose functions.
    connected: BTreeMap<u16, String>,
}

impl Ports {
    /// An app is about to be deployed.
    ///
    /// # Errors
    /// [`NodeError::OwnPort`].
    pub fn connects(&mut self, app: &App) -> Result<(), NodeError> {
        let name = &app.spec.name;
        if let Some(port) = ports(app).find(|port| self.listened.contains(port)) {
            return Err(own_port(name, port));
        }
        self.connected
            .extend(ports(app).map(|port| (port, name.clone())));
        Ok(())
    }

    /// The node listens on it from now on.
    ///
    /// # Errors
    /// [`NodeError::OwnPort`].
    pub fn listens(&mut self, port: u16) -> Result<(), NodeError> {
        if let Some(app) = self.connected.get(&port) {
            return Err(own_port(app, port));
        }
        self.listened.insert(port);
        Ok(())
    }
}

fn own_port(app: &str, port: u16) -> NodeError {
    NodeError::OwnPort {
        app: app.to_owned(),
        port,
    }
}

/// What executors are told. `libraries`: where the copies of the app's libraries are.
pub fn sandbox_of(app: &App, libraries: &Path) -> Sandbox {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let functions = || app.functions.iter();
    let mut readable: BTreeSet<String> = loader_directories().iter().map(|it| text(it)).collect();
    readable.insert(text(libraries));
    readable.extend(
        functions()
            .flat_map(|function| &function.files)
            .map(|it| text(it)),
    );
    let writable: BTreeSet<String> = functions()
        .flat_map(|function| &function.writable)
        .map(|it| text(it))
        .collect();
    // A process may hold any of the app's functions.
    let limits = functions().map(|function| function.private_memory_bytes);
    let private_memory_bytes = limits
        .reduce(|most, limit| Some(most?.max(limit?)))
        .flatten();
    Sandbox {
        level: level(app.spec.isolation),
        readable: readable.into_iter().collect(),
        writable: writable.into_iter().collect(),
        connect: ports(app).collect::<BTreeSet<_>>().into_iter().collect(),
        private_memory_bytes,
    }
}

/// What so many executors of an app may take together, shut in by this sandbox: what their limits
/// add up to, so that who keeps to those never comes to these. They count what those do not: memory
/// that is shared, or of processes that functions have forked.
pub fn limits(spec: &AppSpec, sandbox: &Sandbox, executors: u16) -> Limits {
    let executors = u64::from(executors);
    let private = sandbox::private_bytes(sandbox).map(|bytes| {
        let each = [bytes, sandbox::STACK_BYTES_MAX, KERNEL_BYTES_PER_EXECUTOR];
        let each = each.into_iter().fold(0, u64::saturating_add);
        each.saturating_mul(executors)
    });
    let memory = private.map(|bytes| bytes.saturating_add(kernel_limit_bytes(spec)));
    let most = sandbox::machine_bytes();
    // `none` limits memory alone, and only where the manifest does.
    let is_counted = sandbox.level > Level::None;
    Limits {
        memory_bytes: memory.filter(|bytes| most.is_none_or(|most| *bytes < most)),
        tasks: is_counted.then(|| executors * (sandbox::THREADS_PER_EXECUTOR + TASKS_SPARE)),
    }
}

/// Every directory in which the loader may find what a library needs.
fn loader_directories() -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = LOADER_DIRECTORIES.iter().map(PathBuf::from).collect();
    let told = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    directories.extend(std::env::split_paths(&told).filter(|path| path.is_absolute()));
    configured(
        Path::new(LOADER_CONFIGURATION),
        INCLUDES_MAX,
        &mut directories,
    );
    directories
}

/// What a configuration of the loader names: a directory a line, or `include PATTERN`.
fn configured(file: &Path, includes: usize, directories: &mut Vec<PathBuf>) {
    let text = fs::read_to_string(file).unwrap_or_default();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        match line.strip_prefix("include ") {
            Some(pattern) if includes > 0 => {
                for file in matching(Path::new(pattern.trim())) {
                    configured(&file, includes - 1, directories);
                }
            }
            Some(_) => {}
            None if line.starts_with('/') => directories.push(PathBuf::from(line)),
            None => {}
        }
    }
}

/// Files that match `DIRECTORY/*.SUFFIX`, the pattern that every distribution uses; any other
/// pattern is taken for a file's name.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (pattern.parent(), pattern.file_name()) else {
        return Vec::new();
    };
    let Some(suffix) = name.to_str().and_then(|name| name.strip_prefix("*.")) else {
        return vec![pattern.to_owned()];
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension() == Some(OsStr::new(suffix)))
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaders_configuration_is_read_with_what_it_includes() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let main = format!(
            "include {}\n/opt/a # ours\n\nhwcap 0 x\n",
            path("*.conf").display()
        );
        fs::write(path("main"), main).unwrap();
        fs::write(path("1.conf"), "/opt/b\n").unwrap();
        let circle = format!("include {}\n/opt/c", path("2.conf").display());
        fs::write(path("2.conf"), circle).unwrap();
        fs::write(path("other"), "/opt/d\n").unwrap();
        let mut found = Vec::new();
        configured(&path("main"), INCLUDES_MAX, &mut found);
        found.dedup();
        let expected = ["/opt/b", "/opt/c", "/opt/a"].map(PathBuf::from);
        assert_eq!(found, expected);
    }
    #[test]
    fn limits_of_a_group_are_what_those_of_its_executors_add_up_to() {
        let manifest = "[app]\nname = \"a\"\nentry = \"f\"\nsource = [\"f.c\"]\n\
                        memory = \"1MiB\"\n[functions.f]\n";
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.toml");
        fs::write(&path, manifest).unwrap();
        fs::write(directory.path().join("f.c"), "").unwrap();
        let spec = pheromone_manifest::read(&path).unwrap().spec;
        let of = |level, private_memory_bytes| {
            let sandbox = Sandbox {
                level,
                private_memory_bytes,
                ..Sandbox::default()
            };
            limits(&spec, &sandbox, 2)
        };
        let mib = |count: u64| count << 20;
        let small = of(Level::Standard, Some(mib(8)));
        let shared = kernel_limit_bytes(&spec);
        assert_eq!(small.memory_bytes, Some(shared + 2 * mib(8 + 64 + 32)));
        assert_eq!(small.tasks, Some(2 * 528));
        // Two halves of the machine, and more.
        assert_eq!(of(Level::Strict, None).memory_bytes, None);
        let none = of(Level::None, Some(mib(8)));
        assert_eq!((none.memory_bytes, none.tasks), (small.memory_bytes, None));
        assert_eq!(of(Level::None, None), Limits::default());
        assert_eq!(of(Level::None, Some(u64::MAX)).memory_bytes, None);
    }
}
