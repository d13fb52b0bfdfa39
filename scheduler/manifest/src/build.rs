//! Compiling an app's sources into libraries with the system's compiler.
//!
//! What is built is named by the command that builds it, and has a stamp beside it: the files that
//! it was made from (sources, headers, the compiler) with their times and sizes. It is made again
//! when any of these differs, newer or older. Nothing is ever half there: outputs are renamed into
//! place, and one build at a time works in a directory.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, io};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::app::{App, Built, CompilerMessage, Program, Sources};
use crate::files::{UNFINISHED_PREFIX, unfinished, write_atomically};
use crate::read::Language;
use crate::sdk::{short_hex, write_headers};

/// First line of a stamp; another version is another build.
const STAMP_VERSION: &str = "pheromone build stamp 1";

/// How to build.
#[derive(Clone, Default)]
pub struct BuildOptions<'a> {
    /// Compilers at once; `None`: as many as there are cores.
    pub jobs: Option<usize>,
    /// Ask the compiler for colours.
    pub colours: bool,
    /// Where to build; `None`: `.pheromone` beside the manifest.
    pub directory: Option<PathBuf>,
    /// Told what is going on, from any thread.
    pub progress: Option<&'a (dyn Fn(BuildStep<'_>) + Sync)>,
}

impl fmt::Debug for BuildOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuildOptions")
            .field("jobs", &self.jobs)
            .field("colours", &self.colours)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

/// What a build is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildStep<'a> {
    /// Another build works in this directory.
    WaitsFor(&'a Path),
    /// Compiles this source.
    Compiles(&'a Path),
    /// Links this library.
    Links(&'a Path),
}

/// Why there is no library.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The compiler refused sources.
    #[error("{}", show_failures(.0))]
    Refused(Vec<CompilerMessage>),
    /// There is no compiler.
    #[error(
        "cannot start the compiler `{compiler}`: {error}\ninstall a C compiler (gcc or clang), or \
         name one in ${variable}"
    )]
    NoCompiler {
        /// What was to be started.
        compiler: String,
        /// The environment variable that chooses it.
        variable: &'static str,
        /// Why it did not start.
        error: io::Error,
    },
    /// A file or directory of the build cannot be used.
    #[error("cannot build in {}: {error}{}", path.display(), remedy(error))]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// What to do about a file that cannot be used, where that is known.
fn remedy(error: &io::Error) -> &'static str {
    if is_refused(error) {
        "\nlibraries are built beside the manifest: make its directory writable, copy the app, or \
         let its owner run `pheromone build`"
    } else {
        ""
    }
}

/// Whether it may only be read.
fn is_refused(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}

fn show_failures(failures: &[CompilerMessage]) -> String {
    let shown: Vec<_> = failures.iter().map(ToString::to_string).collect();
    shown.join("\n")
}

impl fmt::Display for CompilerMessage {
    /// A headline with functions, triggers and file, then what the compiler said, as it said it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut joint = "";
        for (what, names) in [("function", &self.functions), ("trigger", &self.triggers)] {
            let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
            if !quoted.is_empty() {
                let plural = if quoted.len() == 1 { "" } else { "s" };
                write!(f, "{joint}{what}{plural} {}", quoted.join(", "))?;
                joint = ", ";
            }
        }
        writeln!(f, ": {}", self.file.display())?;
        f.write_str(&self.text)
    }
}

/// Compiles what is not up to date, several at once, and returns the libraries of all programs.
pub fn build(app: &App, options: &BuildOptions<'_>) -> Result<Built, BuildError> {
    let root = options
        .directory
        .clone()
        .unwrap_or_else(|| app.directory.join(".pheromone"));
    if !app
        .programs
        .iter()
        .any(|program| matches!(program, Program::Sources(_)))
    {
        let libraries = app.programs.iter().filter_map(|program| match program {
            Program::Library(path) => Some(path.clone()),
            Program::Sources(_) => None,
        });
        return Ok(Built {
            libraries: libraries.collect(),
            messages: Vec::new(),
            compiled: 0,
        });
    }
    let directory = root.join("build");
    let in_root = |path: &Path| {
        let path = path.to_owned();
        move |error| BuildError::Io { path, error }
    };
    fs::create_dir_all(&directory).map_err(in_root(&directory))?;
    let include = root.join("include");
    let include = write_headers(&include).map_err(in_root(&include))?;
    let _lock = lock(&directory, options)?;
    sweep(&directory);

    let plan = Plan::new(app, options, &directory, &include);
    let work = Work {
        app,
        options,
        outcome: Mutex::default(),
    };
    work.all(&plan.objects, |object| BuildStep::Compiles(&object.shown))?;
    let failed = work.failed();
    let ready = |library: &&Task| library.inputs.iter().all(|input| !failed.contains(input));
    let libraries: Vec<&Task> = plan.libraries.values().filter(ready).collect();
    work.all(&libraries, |library| BuildStep::Links(&library.output))?;

    let outcome = work
        .outcome
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if !outcome.failures.is_empty() {
        return Err(BuildError::Refused(outcome.failures));
    }
    let libraries = app
        .programs
        .iter()
        .enumerate()
        .map(|(index, program)| match program {
            Program::Library(path) => path.clone(),
            Program::Sources(_) => plan.libraries[&index].output.clone(),
        });
    let objects: HashSet<&Path> = plan.objects.iter().map(|object| &*object.output).collect();
    let compiled = outcome
        .made
        .iter()
        .filter(|made| objects.contains(made.as_path()))
        .count();
    Ok(Built {
        libraries: libraries.collect(),
        messages: outcome.messages,
        compiled,
    })
}

/// Waits until no other build works in this directory. The lock ends with the file.
fn lock(directory: &Path, options: &BuildOptions<'_>) -> Result<fs::File, BuildError> {
    let path = directory.join("lock");
    let fail = |error: io::Error| BuildError::Io {
        path: path.clone(),
        error,
    };
    let file = match fs::File::create(&path) {
        // Whoever may not write here can still find everything up to date.
        Err(error) if is_refused(&error) => fs::File::open(&path).map_err(|_| fail(error))?,
        created => created.map_err(fail)?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            if let Some(progress) = options.progress {
                progress(BuildStep::WaitsFor(directory));
            }
            rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))
                .map_err(|error| fail(error.into()))?;
        }
        // A file system without locks: renaming alone still keeps every file whole.
        Err(Errno::NOLCK | Errno::NOTSUP | Errno::NOSYS) => {}
        Err(error) => return Err(fail(error.into())),
    }
    Ok(file)
}

/// Removes what a build that was killed has left; the lock is held.
fn sweep(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with(UNFINISHED_PREFIX)
        {
            // Whether it succeeds does not matter: nobody reads such a file.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// One command that makes one file.
struct Task {
    /// The compiler and its own arguments, then ours, without output and dependency file.
    command: Vec<OsString>,
    /// The environment variable that chooses the compiler.
    variable: &'static str,
    /// What it makes.
    output: PathBuf,
    /// What to show in messages.
    shown: PathBuf,
    /// Files that it reads, as far as they are known before.
    inputs: Vec<PathBuf>,
    /// It writes a dependency file: it compiles, and does not link.
    compiles: bool,
    /// Programs that need it.
    programs: Vec<usize>,
}

/// All commands of an app.
struct Plan {
    objects: Vec<Task>,
    /// By program.
    libraries: HashMap<usize, Task>,
}

impl Plan {
    fn new(app: &App, options: &BuildOptions<'_>, directory: &Path, include: &Path) -> Self {
        let mut plan = Self {
            objects: Vec::new(),
            libraries: HashMap::new(),
        };
        let mut known: HashMap<PathBuf, usize> = HashMap::new();
        for (index, program) in app.programs.iter().enumerate() {
            let Program::Sources(sources) = program else {
                continue;
            };
            let mut objects = Vec::with_capacity(sources.files.len());
            for file in &sources.files {
                let task = compilation(sources, file, directory, include, index, options);
                objects.push(task.output.clone());
                match known.get(&task.output) {
                    Some(&at) if plan.objects[at].programs.contains(&index) => {}
                    Some(&at) => plan.objects[at].programs.push(index),
                    None => {
                        known.insert(task.output.clone(), plan.objects.len());
                        plan.objects.push(task);
                    }
                }
            }
            plan.libraries
                .insert(index, linking(sources, objects, directory, index, options));
        }
        plan
    }
}

/// The words that start a compiler, and the variable that chooses it.
fn compiler(language: Language) -> (Vec<OsString>, &'static str) {
    let (variable, default) = match language {
        Language::C => ("CC", "cc"),
        Language::Cpp => ("CXX", "c++"),
    };
    let chosen = std::env::var(variable).unwrap_or_default();
    let mut words: Vec<OsString> = chosen.split_whitespace().map(OsString::from).collect();
    if words.is_empty() {
        words.push(default.into());
    }
    (words, variable)
}

fn compilation(
    sources: &Sources,
    file: &Path,
    directory: &Path,
    include: &Path,
    program: usize,
    options: &BuildOptions<'_>,
) -> Task {
    let language = Language::of(file).unwrap_or(Language::C);
    let (mut command, variable) = compiler(language);
    // With GNU extensions: strict C11 hides what POSIX adds to the C library.
    let standard = match language {
        Language::C => "-std=gnu11",
        Language::Cpp => "-std=gnu++17",
    };
    command.extend(["-O2", "-g", "-fPIC", standard, "-I"].map(OsString::from));
    command.push(include.into());
    command.extend(sources.cflags.iter().map(OsString::from));
    for directory in &sources.include {
        command.push("-I".into());
        command.push(directory.into());
    }
    command.push("-c".into());
    command.push(file.into());
    let output = directory.join(name_of(file, &command, "o"));
    add_colours(&mut command, options);
    let inputs = vec![file.to_owned()];
    let shown = file.to_owned();
    Task {
        command,
        variable,
        output,
        shown,
        inputs,
        compiles: true,
        programs: vec![program],
    }
}

fn linking(
    sources: &Sources,
    objects: Vec<PathBuf>,
    directory: &Path,
    program: usize,
    options: &BuildOptions<'_>,
) -> Task {
    let is_cpp = sources
        .files
        .iter()
        .any(|file| Language::of(file) == Some(Language::Cpp));
    let (mut command, variable) = compiler(if is_cpp { Language::Cpp } else { Language::C });
    command.push("-shared".into());
    command.extend(sources.cflags.iter().map(OsString::from));
    // What a sanitizer needs comes with the process; anything else is missed here, not at load.
    if !sources
        .cflags
        .iter()
        .any(|flag| flag.starts_with("-fsanitize"))
    {
        command.push("-Wl,-z,defs".into());
    }
    command.extend(objects.iter().map(OsString::from));
    let mut inputs = objects;
    for library in &sources.link {
        if !library.contains('/') {
            command.push(format!("-l{library}").into());
            continue;
        }
        let path = PathBuf::from(library);
        if let Some(parent) = path.parent() {
            let mut rpath = OsString::from("-Wl,-rpath,");
            rpath.push(parent);
            command.push(rpath);
        }
        command.push(library.into());
        inputs.push(path);
    }
    let stem = sources
        .files
        .first()
        .map_or(Path::new("functions"), PathBuf::as_path);
    let output = directory.join(name_of(stem, &command, "so"));
    add_colours(&mut command, options);
    let shown = output.clone();
    Task {
        command,
        variable,
        output,
        shown,
        inputs,
        compiles: false,
        programs: vec![program],
    }
}

fn add_colours(command: &mut Vec<OsString>, options: &BuildOptions<'_>) {
    if options.colours {
        command.push("-fdiagnostics-color=always".into());
    }
}

/// `STEM-HASH.ENDING`: another command is another file.
fn name_of(file: &Path, command: &[OsString], ending: &str) -> String {
    let mut hash = Sha256::new();
    for word in command {
        let bytes = word.as_encoded_bytes();
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    // A file name has 255 bytes; the stem is only there for people.
    let stem: String = stem.chars().take(40).collect();
    format!("{stem}-{}.{ending}", short_hex(&hash.finalize()))
}

/// What has come of the commands so far.
#[derive(Default)]
struct Outcome {
    made: Vec<PathBuf>,
    messages: Vec<CompilerMessage>,
    failures: Vec<CompilerMessage>,
    failed: Vec<PathBuf>,
    error: Option<BuildError>,
}

struct Work<'a> {
    app: &'a App,
    options: &'a BuildOptions<'a>,
    outcome: Mutex<Outcome>,
}

impl Work<'_> {
    fn outcome(&self) -> std::sync::MutexGuard<'_, Outcome> {
        self.outcome
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn failed(&self) -> HashSet<PathBuf> {
        self.outcome().failed.iter().cloned().collect()
    }

    /// Does the tasks that are not up to date, several at once.
    fn all<'t, T: std::borrow::Borrow<Task> + Sync>(
        &self,
        tasks: &'t [T],
        step: impl Fn(&'t Task) -> BuildStep<'t> + Sync,
    ) -> Result<(), BuildError> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let jobs = self
            .options
            .jobs
            .unwrap_or(cores)
            .clamp(1, tasks.len().max(1));
        let next = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    while let Some(task) =
                        tasks.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                    {
                        let task = task.borrow();
                        if self.outcome().error.is_some() {
                            return;
                        }
                        if !is_up_to_date(task) {
                            if let Some(progress) = self.options.progress {
                                progress(step(task));
                            }
                            self.one(task);
                        }
                    }
                });
            }
        });
        let error = self.outcome().error.take();
        error.map_or(Ok(()), Err)
    }

    fn one(&self, task: &Task) {
        let output = unfinished(&task.output);
        let depends = output.with_extension("d");
        match self.run(task, &output, &depends) {
            Ok(done) => {
                let mut outcome = self.outcome();
                let list = if done.made {
                    &mut outcome.messages
                } else {
                    &mut outcome.failures
                };
                if !done.text.is_empty() || !done.made {
                    let names = task
                        .programs
                        .iter()
                        .flat_map(|at| self.app.functions_of(*at));
                    let functions = names.map(str::to_owned).collect();
                    let triggers = task
                        .programs
                        .iter()
                        .flat_map(|at| self.app.triggers_of(*at));
                    let triggers = triggers.map(|(name, _)| name.to_owned()).collect();
                    let file = task.shown.clone();
                    list.push(CompilerMessage {
                        functions,
                        triggers,
                        file,
                        text: done.text,
                    });
                }
                let list = if done.made {
                    &mut outcome.made
                } else {
                    &mut outcome.failed
                };
                list.push(task.output.clone());
            }
            Err(error) => {
                let _ = self.outcome().error.get_or_insert(error);
            }
        }
        // Gone already where all went well.
        let _ = fs::remove_file(&output);
        let _ = fs::remove_file(&depends);
    }

    fn run(&self, task: &Task, output: &Path, depends: &Path) -> Result<Done, BuildError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |error| BuildError::Io { path, error }
        };
        // The time, by the clock of this file system, after which a change is not compiled in.
        fs::write(output, []).map_err(io(&task.output))?;
        let begun = state_of(output).map_err(io(output))?.0;
        let (program, arguments) = task.command.split_first().expect("a compiler has a name");
        let mut command = Command::new(program);
        command.args(arguments).arg("-o").arg(output);
        if task.compiles {
            command.arg("-MMD").arg("-MF").arg(depends);
        }
        command
            .current_dir(&self.app.directory)
            .stdin(Stdio::null());
        let result = command.output().map_err(|error| BuildError::NoCompiler {
            compiler: program.to_string_lossy().into_owned(),
            variable: task.variable,
            error,
        })?;
        let mut text = String::from_utf8_lossy(&result.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&result.stderr));
        if !result.status.success() {
            if text.trim().is_empty() {
                text = format!(
                    "{} ended with {}\n",
                    program.to_string_lossy(),
                    result.status
                );
            }
            return Ok(Done { made: false, text });
        }
        let mut inputs = task.inputs.clone();
        if task.compiles {
            let rules = fs::read_to_string(depends).map_err(io(depends))?;
            let found = dependencies(&rules).into_iter();
            inputs = found.map(|name| self.app.directory.join(name)).collect();
        }
        inputs.extend(find_program(program));
        fs::rename(output, &task.output).map_err(io(&task.output))?;
        let path = stamp_path(&task.output);
        match stamp(&inputs, begun) {
            Some(stamp) => write_atomically(&path, stamp.as_bytes()).map_err(io(&path))?,
            // Changed while it was read: to be made again next time.
            None => drop(fs::remove_file(&path)),
        }
        Ok(Done { made: true, text })
    }
}

/// What a command has come to.
struct Done {
    made: bool,
    text: String,
}

fn stamp_path(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".stamp");
    PathBuf::from(name)
}

/// Time of the last change, ns since 1970 (before it: 0), and size.
fn state_of(path: &Path) -> io::Result<(u128, u64)> {
    let metadata = fs::metadata(path)?;
    let changed: SystemTime = metadata.modified()?;
    let since = changed.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok((since.as_nanos(), metadata.len()))
}

/// What files look like now; `None` where one has changed since `begun`, or is gone.
fn stamp(inputs: &[PathBuf], begun: u128) -> Option<String> {
    let mut lines = vec![STAMP_VERSION.to_owned()];
    for input in inputs {
        let (changed, size) = state_of(input)
            .ok()
            .filter(|(changed, _)| *changed <= begun)?;
        // A name that a line cannot hold is never up to date.
        let name = input.to_str().filter(|name| !name.contains('\n'))?;
        lines.push(format!("{changed} {size} {name}"));
    }
    lines.push(String::new());
    Some(lines.join("\n"))
}

fn is_up_to_date(task: &Task) -> bool {
    let Ok(stamp) = fs::read_to_string(stamp_path(&task.output)) else {
        return false;
    };
    let mut lines = stamp.lines();
    let is_same = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let changed = words.next().and_then(|word| word.parse::<u128>().ok());
        let size = words.next().and_then(|word| word.parse::<u64>().ok());
        let found = words.next().and_then(|name| state_of(Path::new(name)).ok());
        changed.zip(size).is_some_and(|known| Some(known) == found)
    };
    lines.next() == Some(STAMP_VERSION) && task.output.is_file() && lines.all(is_same)
}

/// The program's own file: another compiler compiles differently.
fn find_program(program: &OsString) -> Option<PathBuf> {
    let path = Path::new(program);
    if path.components().count() > 1 {
        return std::path::absolute(path).ok();
    }
    let directories = std::env::var_os("PATH")?;
    std::env::split_paths(&directories)
        .map(|at| at.join(path))
        .find(|file| file.is_file())
}

/// The file names in a rule as compilers write it for make: `target: a b \` and further lines, with
/// `\ ` for a space, `\#` for a hash sign and `$$` for a dollar.
fn dependencies(rule: &str) -> Vec<String> {
    let Some((_, names)) = rule.split_once(": ").or_else(|| rule.split_once(":\\\n")) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut name = String::new();
    let mut rest = names.chars().peekable();
    while let Some(character) = rest.next() {
        match (character, rest.peek()) {
            ('\\', Some(' ' | '#')) | ('$', Some('$')) => name.extend(rest.next()),
            ('\\', Some('\n')) | (' ' | '\n' | '\t' | '\r', _) => {
                if !name.is_empty() {
                    found.push(std::mem::take(&mut name));
                }
                if character == '\n' && rest.peek().is_some_and(|next| *next != ' ') {
                    // A second rule: for headers that no longer exist, not asked for here.
                    break;
                }
            }
            (other, _) => name.push(other),
        }
    }
    if !name.is_empty() {
        found.push(name);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_make_reads_them() {
        let rule = "a.o: /x/a.c /x/with\\ space.h \\\n /x/$$dollar.h /x/\\#hash.h\n";
        let names = ["/x/a.c", "/x/with space.h", "/x/$dollar.h", "/x/#hash.h"];
        assert_eq!(dependencies(rule), names);
        assert_eq!(dependencies("a.o: a.c\nb.h:\n"), ["a.c"]);
        assert_eq!(dependencies("nothing"), Vec::<String>::new());
        assert_eq!(dependencies(""), Vec::<String>::new());
    }
}
