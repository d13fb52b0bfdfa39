//! Beginnings of apps: each template is a complete app that works as it is.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fs, io};

use crate::diagnostics::clip;
use crate::document::list;
use crate::limits::NAME_BYTES_MAX;
use crate::names::is_app_name;

/// What stands for the app's name in a template's files.
const NAME_MARK: &str = "{{name}}";

const GITIGNORE: (&str, &str) = (".gitignore", include_str!("../templates/gitignore"));
const INPUT: (&str, &str) = ("input.txt", include_str!("../templates/input.txt"));

/// A kind of app to begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Template {
    /// Functions in a row.
    Chain,
    /// One to many, and together again.
    Fanout,
    /// Many to many, by partition.
    Mapreduce,
    /// Windows over a stream.
    Stream,
    /// Requests of many callers answered together.
    Batch,
}

impl Template {
    /// Every template.
    pub const ALL: [Self; 5] = [
        Self::Chain,
        Self::Fanout,
        Self::Mapreduce,
        Self::Stream,
        Self::Batch,
    ];

    /// Its name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chain => "chain",
            Self::Fanout => "fanout",
            Self::Mapreduce => "mapreduce",
            Self::Stream => "stream",
            Self::Batch => "batch",
        }
    }

    /// What it shows, in a few words.
    pub fn about(self) -> &'static str {
        match self {
            Self::Chain => "functions in a row: what a text is made of",
            Self::Fanout => "one to many and together again: primes counted in parallel",
            Self::Mapreduce => "many to many by partition: words counted",
            Self::Stream => "windows over a stream of events",
            Self::Batch => "requests of many callers answered together",
        }
    }

    /// The command that runs it on its example, in its directory.
    pub fn example(self) -> &'static str {
        match self {
            Self::Fanout => "pheromone run app.toml --arg 10000000",
            Self::Chain | Self::Mapreduce | Self::Stream | Self::Batch => {
                "pheromone run app.toml --input input.txt"
            }
        }
    }

    /// Names and contents, without the marks replaced.
    fn files(self) -> &'static [(&'static str, &'static str)] {
        macro_rules! files {
            ($($name:literal in $directory:literal),*) => {
                [$(($name, include_str!(concat!("../templates/", $directory, "/", $name)))),*]
            };
        }
        const CHAIN: [(&str, &str); 3] =
            files!("app.toml" in "chain", "chain.c" in "chain", "README.md" in "chain");
        const FANOUT: [(&str, &str); 3] =
            files!("app.toml" in "fanout", "fanout.c" in "fanout", "README.md" in "fanout");
        const MAPREDUCE: [(&str, &str); 3] = files!(
            "app.toml" in "mapreduce",
            "mapreduce.c" in "mapreduce",
            "README.md" in "mapreduce"
        );
        const STREAM: [(&str, &str); 3] =
            files!("app.toml" in "stream", "stream.c" in "stream", "README.md" in "stream");
        const BATCH: [(&str, &str); 3] =
            files!("app.toml" in "batch", "batch.c" in "batch", "README.md" in "batch");
        match self {
            Self::Chain => const { &[CHAIN[0], CHAIN[1], CHAIN[2], INPUT, GITIGNORE] },
            Self::Fanout => const { &[FANOUT[0], FANOUT[1], FANOUT[2], GITIGNORE] },
            Self::Mapreduce => {
                const { &[MAPREDUCE[0], MAPREDUCE[1], MAPREDUCE[2], INPUT, GITIGNORE] }
            }
            Self::Stream => const { &[STREAM[0], STREAM[1], STREAM[2], INPUT, GITIGNORE] },
            Self::Batch => const { &[BATCH[0], BATCH[1], BATCH[2], INPUT, GITIGNORE] },
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No template has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no template `{name}`: there are {}", names())]
pub struct UnknownTemplate {
    name: String,
}

impl FromStr for Template {
    type Err = UnknownTemplate;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let template = Self::ALL
            .into_iter()
            .find(|template| template.name() == name);
        template.ok_or_else(|| UnknownTemplate { name: clip(name) })
    }
}

/// Why no app was begun.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// There is something in the directory.
    #[error("{} is not empty: name a new or an empty directory", .0.display())]
    NotEmpty(PathBuf),
    /// There is something else of that name.
    #[error("{} is there and is not a directory: name a new one", .0.display())]
    NotADirectory(PathBuf),
    /// The system refused.
    #[error("cannot write {}: {error}", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

fn names() -> String {
    list(&Template::ALL.map(Template::name))
}

/// Begins an app in `directory`, which is made, or empty. Returns the files written, the manifest
/// first. The app is called as the directory is, as far as an app can be.
pub fn new(directory: &Path, template: Template) -> Result<Vec<PathBuf>, NewError> {
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |error| NewError::Io { path, error }
    };
    match fs::read_dir(directory) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(NewError::NotEmpty(directory.to_owned()));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(directory).map_err(fail(directory))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(NewError::NotADirectory(directory.to_owned()));
        }
        Err(error) => return Err(fail(directory)(error)),
    }
    let name = app_name(directory);
    let mut written = Vec::new();
    for (file, content) in template.files() {
        let path = directory.join(file);
        // Nothing that has appeared meanwhile is overwritten.
        let result = fs::File::create_new(&path)
            .and_then(|mut file| file.write_all(content.replace(NAME_MARK, &name).as_bytes()));
        if let Err(error) = result {
            for path in &written {
                // The first error is the one to tell.
                let _ = fs::remove_file(path);
            }
            return Err(fail(&path)(error));
        }
        written.push(path);
    }
    Ok(written)
}

/// The directory's name with what no app's name has replaced; `app` where nothing is left.
fn app_name(directory: &Path) -> String {
    let path = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    let allowed = |character: char| match character {
        'a'..='z' | '0'..='9' | '_' | '-' => character,
        _ => '-',
    };
    let name: String = name.chars().map(allowed).take(NAME_BYTES_MAX).collect();
    let name = name.trim_matches(['-', '_']).to_owned();
    if is_app_name(&name) {
        name
    } else {
        "app".into()
    }
}
