//! What a manifest says, once it has been read and found right: the core's spec, and beside it what
//! only those who compile, load and start functions need to know.

use std::path::{Path, PathBuf};

use pheromone_core::spec::{AppSpec, BucketIndex, FunctionIndex};

use crate::diagnostics::Diagnostics;

/// One app, as its manifest describes it.
#[derive(Clone, Debug)]
pub struct App {
    /// What the core needs.
    pub spec: AppSpec,
    /// Where code comes from: one library each. Functions with equal build settings share one.
    pub programs: Vec<Program>,
    /// What the core does not need, in the order of [`AppSpec::functions`].
    pub functions: Vec<FunctionProgram>,
    /// The code of `custom` triggers, in the manifest's order.
    pub custom_triggers: Vec<TriggerProgram>,
    /// The manifest's directory, absolute: where relative paths begin, and where functions run.
    pub directory: PathBuf,
    /// The manifest as it was named.
    pub manifest_path: PathBuf,
    /// What is odd, but not wrong.
    pub warnings: Diagnostics,
    /// `executors.max` was not given: `spec` holds this machine's default.
    pub executors_max_is_default: bool,
    /// `limits.waiters` was not given: it follows `executors.max`.
    pub waiters_is_default: bool,
}

impl App {
    /// Sets the number of executors from outside the manifest (`run --executors`, a core plan);
    /// what follows from it by default follows.
    pub fn set_executors_max(&mut self, max: u16) {
        let max = max.max(1);
        self.spec.executors.max = max;
        self.spec.executors.min = self.spec.executors.min.min(max);
        if self.waiters_is_default {
            self.spec.limits.waiters = max;
        }
    }

    /// The function of this name.
    pub fn function_index(&self, name: &str) -> Option<FunctionIndex> {
        let position = self
            .spec
            .functions
            .iter()
            .position(|function| function.name == name)?;
        FunctionIndex::try_from(position).ok()
    }

    /// The bucket of this name.
    pub fn bucket_index(&self, name: &str) -> Option<BucketIndex> {
        let position = self
            .spec
            .buckets
            .iter()
            .position(|bucket| bucket.name == name)?;
        BucketIndex::try_from(position).ok()
    }

    /// The custom triggers whose code is in this program: name and symbol, in the manifest's order.
    pub fn triggers_of(&self, program: usize) -> impl Iterator<Item = (&str, &str)> {
        let triggers = self.custom_triggers.iter();
        triggers
            .filter(move |code| code.program == program)
            .map(|code| {
                let bucket = &self.spec.buckets[usize::from(code.bucket)];
                (
                    bucket.triggers[code.trigger].name.as_str(),
                    code.symbol.as_str(),
                )
            })
    }

    /// The functions whose code is in this program, by name, in the manifest's order.
    pub fn functions_of(&self, program: usize) -> impl Iterator<Item = &str> {
        self.functions
            .iter()
            .zip(&self.spec.functions)
            .filter(move |(code, _)| code.program == program)
            .map(|(_, function)| function.name.as_str())
    }
}

/// Where the code of one or more functions comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Program {
    /// A library that somebody else has built: its absolute path.
    Library(PathBuf),
    /// Sources to be compiled into a library of ours.
    Sources(Sources),
}

/// Sources with how to compile them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sources {
    /// Absolute paths, C or C++ by their ending, in the manifest's order.
    pub files: Vec<PathBuf>,
    /// Given to the compiler after our own flags.
    pub cflags: Vec<String>,
    /// Absolute directories.
    pub include: Vec<PathBuf>,
    /// Libraries to link: `m`, or an absolute path.
    pub link: Vec<String>,
}

/// What loading and starting one function needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionProgram {
    /// Index in [`App::programs`].
    pub program: usize,
    /// Exported symbol.
    pub symbol: String,
    /// `phr_config`: the app's and the function's, merged.
    pub config: Vec<(String, String)>,
    /// The whole environment it sees: `env`, and what `env_from` found.
    pub environment: Vec<(String, String)>,
    /// Absolute paths, readable under `standard` and `strict`.
    pub files: Vec<PathBuf>,
    /// Absolute paths, writable under `standard` and `strict`.
    pub writable: Vec<PathBuf>,
    /// TCP ports that it may connect to under `standard`.
    pub connect: Vec<u16>,
    /// Private memory of its process, bytes; `None`: no limit.
    pub private_memory_bytes: Option<u64>,
    /// How `arg_values` is filled for the compat header.
    pub arguments: Arguments,
}

/// The code of a `custom` trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriggerProgram {
    /// Its bucket.
    pub bucket: BucketIndex,
    /// Its index among the bucket's triggers.
    pub trigger: usize,
    /// Index in [`App::programs`].
    pub program: usize,
    /// Exported symbol.
    pub symbol: String,
}

/// What the compat header passes to `handle` for triggered calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arguments {
    /// Payloads.
    Values,
    /// Keys and payloads in turn.
    KeysAndValues,
    /// Keys.
    Keys,
}

/// The libraries of an app, there to be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// Absolute paths, in the order of [`App::programs`].
    pub libraries: Vec<PathBuf>,
    /// What compilers said of sources that they accepted.
    pub messages: Vec<CompilerMessage>,
    /// Sources compiled just now; 0: everything was up to date.
    pub compiled: usize,
}

impl Built {
    /// The library that holds this function. `app` is the one that was built.
    pub fn library(&self, app: &App, function: FunctionIndex) -> Option<&Path> {
        let program = app.functions.get(usize::from(function))?.program;
        self.libraries.get(program).map(PathBuf::as_path)
    }
}

/// What a compiler printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompilerMessage {
    /// The functions that need it.
    pub functions: Vec<String>,
    /// The custom triggers that need it.
    pub triggers: Vec<String>,
    /// What was compiled, or the library that was linked.
    pub file: PathBuf,
    /// As it was printed.
    pub text: String,
}
