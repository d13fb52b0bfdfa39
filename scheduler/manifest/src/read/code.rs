//! Where code comes from: `source` or `library`, and how to build it. Equal settings share a
//! program.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::{Purpose, Reader};
use crate::app::{Program, Sources};
use crate::diagnostics::{Diagnostic, Place, quote};
use crate::document::{Field, Placed, Section, list};
use crate::limits::FUNCTIONS_NAMED_MAX;
use crate::names::nearest;

/// Entries of a directory that are looked at for a name that was probably meant.
const DIRECTORY_ENTRIES_MAX: usize = 1000;

/// The programs of an app, each once.
#[derive(Default)]
pub(super) struct Code {
    pub programs: Vec<Program>,
    index: HashMap<Program, usize>,
}

impl Code {
    /// The index of this program.
    fn add(&mut self, program: Program) -> usize {
        if let Some(index) = self.index.get(&program) {
            return *index;
        }
        let index = self.programs.len();
        self.programs.push(program.clone());
        self.index.insert(program, index);
        index
    }
}

/// Who uses the code that a section names, as messages say it.
pub(super) struct Users {
    code: String,
    include: String,
    link: String,
}

impl Users {
    /// Of a section that is for one alone.
    pub(super) fn one(who: &str) -> Self {
        Self {
            code: who.to_owned(),
            include: who.to_owned(),
            link: who.to_owned(),
        }
    }

    /// Of `[app]`: the functions whose own sections do not say otherwise.
    pub(super) fn of_app(functions: &[Field<'_>]) -> Self {
        let without = |keys: [&str; 2]| {
            let users = functions
                .iter()
                .filter(|function| !keys.iter().any(|key| function.has(key)));
            let mut names: Vec<&str> = users.map(|function| function.key).collect();
            let more = names.len().saturating_sub(FUNCTIONS_NAMED_MAX);
            names.truncate(FUNCTIONS_NAMED_MAX);
            match (names.len(), more) {
                (0, _) => "[app], which no function uses,".to_owned(),
                (1, _) => format!("function {}", quote(names[0])),
                (_, 0) => format!("functions {}", list(&names)),
                (_, more) => {
                    let names: Vec<String> = names.into_iter().map(quote).collect();
                    format!("functions {} and {more} more", names.join(", "))
                }
            }
        };
        Self {
            code: without(["source", "library"]),
            include: without(["include", "library"]),
            link: without(["link", "library"]),
        }
    }
}

/// The build settings of one section; what is absent is inherited.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    source: Option<Vec<PathBuf>>,
    library: Option<PathBuf>,
    cflags: Option<Vec<String>>,
    include: Option<Vec<PathBuf>>,
    link: Option<Vec<String>>,
    pub files: Option<Vec<PathBuf>>,
    pub config: Vec<(String, String)>,
    /// A key that only matters to sources, where one stands.
    only_for_sources: Option<(&'static str, Place)>,
    /// Something in it was wrong and has been reported.
    broken: bool,
}

impl Settings {
    /// Reads them from a section; `with_files`: also `files` and `config`.
    pub(super) fn read(
        reader: &Reader<'_>,
        section: &mut Section<'_>,
        users: &Users,
        with_files: bool,
    ) -> Self {
        let errors_before = reader.sink.errors();
        let mut settings = Self::default();
        let source_place = section.place_of("source");
        let library_place = section.place_of("library");
        if let (Some(source), Some(library)) = (&source_place, &library_place) {
            reader.sink.push(
                Diagnostic::error(format!("{} has both a source and a library", section.name))
                    .at(library, "prebuilt")
                    .beside(source, "to be compiled")
                    .help("leave one of the two out"),
            );
        }
        if let Some(sources) = section.texts("source", "NAME.c") {
            if sources.is_empty() {
                let place = source_place.clone().unwrap_or_default();
                reader.sink.push(
                    Diagnostic::error(format!("`source` in {} is empty", section.name))
                        .at(&place, "no files")
                        .help("name at least one, or leave `source` out"),
                );
            }
            settings.source = Some(
                sources
                    .iter()
                    .map(|file| source(reader, &users.code, file))
                    .collect(),
            );
        }
        if let Some(file) = section.text("library", "NAME.so") {
            settings.library = Some(existing_file(reader, &users.code, &file, "library"));
        }
        if let Some(flags) = section.texts("cflags", "-O3") {
            flags.iter().for_each(|flag| judge_flag(reader, flag));
            settings.cflags = Some(flags.into_iter().map(|flag| flag.value).collect());
        }
        if let Some(directories) = section.texts("include", "DIRECTORY") {
            let directories = directories
                .iter()
                .map(|name| existing_directory(reader, &users.include, name));
            settings.include = Some(directories.collect());
        }
        if let Some(libraries) = section.texts("link", "m") {
            settings.link = Some(
                libraries
                    .iter()
                    .map(|name| link(reader, &users.link, name))
                    .collect(),
            );
        }
        settings.only_for_sources = ["cflags", "include", "link"]
            .into_iter()
            .find_map(|key| section.place_of(key).map(|place| (key, place)));
        if with_files {
            settings.files = section
                .texts("files", "/usr/share/NAME")
                .map(|files| files.iter().map(|file| path(reader, file)).collect());
            let pairs = reader.pairs(section, "config");
            settings.config = pairs.into_iter().map(|pair| pair.value).collect();
        }
        settings.broken = reader.sink.errors() > errors_before;
        settings
    }

    /// The program that these settings over those of `[app]` make; 0 where that has been reported.
    pub(super) fn program(
        &self,
        reader: &Reader<'_>,
        app: &Self,
        code: &mut Code,
        place: &Place,
        whose: &str,
    ) -> usize {
        if self.broken {
            return 0;
        }
        let own = self.source.is_some() || self.library.is_some();
        let chosen = if own { self } else { app };
        if let Some(library) = &chosen.library {
            if let Some((key, place)) = &self.only_for_sources {
                reader.sink.push(
                    Diagnostic::error(format!("{whose}: `{key}` has no meaning for a library"))
                        .at(place, "nothing is compiled")
                        .help(format!("leave `{key}` out, or give a `source`")),
                );
            }
            return code.add(Program::Library(library.clone()));
        }
        let Some(files) = &chosen.source else {
            if !app.broken {
                reader.sink.push(
                    Diagnostic::error(format!("{whose} has neither a source nor a library"))
                        .at(place, "no code")
                        .help(
                            "add source = [\"NAME.c\"] or library = \"NAME.so\", here or to [app]",
                        ),
                );
            }
            return 0;
        };
        let inherit = |own: &Option<Vec<String>>, app: &Option<Vec<String>>| {
            own.as_ref().or(app.as_ref()).cloned().unwrap_or_default()
        };
        code.add(Program::Sources(Sources {
            files: files.clone(),
            cflags: inherit(&self.cflags, &app.cflags),
            include: self
                .include
                .as_ref()
                .or(app.include.as_ref())
                .cloned()
                .unwrap_or_default(),
            link: inherit(&self.link, &app.link),
        }))
    }
}

/// Which compiler a source is for, by its ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    C,
    Cpp,
}

impl Language {
    pub(crate) fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "c" => Some(Self::C),
            "cc" | "cpp" | "cxx" => Some(Self::Cpp),
            _ => None,
        }
    }
}

fn source(reader: &Reader<'_>, whose: &str, name: &Placed<String>) -> PathBuf {
    let errors_before = reader.sink.errors();
    let file = existing_file(reader, whose, name, "source");
    if reader.sink.errors() == errors_before && Language::of(&file).is_none() {
        reader.sink.push(
            Diagnostic::error(format!(
                "{} is neither C nor C++ by its name",
                quote(&name.value)
            ))
            .at(&name.place, "which language?")
            .help("sources end in .c, .cc, .cpp or .cxx; other languages come as a `library`"),
        );
    }
    file
}

/// An absolute path from one that may be relative to the manifest.
pub(super) fn path(reader: &Reader<'_>, name: &Placed<String>) -> PathBuf {
    if name.value.is_empty() {
        reader.sink.push(
            Diagnostic::error("a path is empty")
                .at(&name.place, "no name")
                .help("name a file or directory, from the manifest's directory on"),
        );
    }
    reader.without_zero(&name.value, &name.place);
    reader.directory.join(&name.value).components().collect()
}

fn existing_file(reader: &Reader<'_>, whose: &str, name: &Placed<String>, what: &str) -> PathBuf {
    existing(reader, whose, name, what, Path::is_file, "a file")
}

fn existing_directory(reader: &Reader<'_>, whose: &str, name: &Placed<String>) -> PathBuf {
    existing(
        reader,
        whose,
        name,
        "include directory",
        Path::is_dir,
        "a directory",
    )
}

fn existing(
    reader: &Reader<'_>,
    whose: &str,
    name: &Placed<String>,
    what: &str,
    is_right: fn(&Path) -> bool,
    wanted: &str,
) -> PathBuf {
    let errors_before = reader.sink.errors();
    let file = path(reader, name);
    let judged = reader.purpose == Purpose::Run && reader.sink.errors() == errors_before;
    if !judged || is_right(&file) {
        return file;
    }
    let shown = quote(&name.value);
    let diagnostic = if file.exists() {
        Diagnostic::error(format!("the {what} {shown} of {whose} is not {wanted}"))
            .at(&name.place, format!("not {wanted}"))
            .help(format!("name {wanted}"))
    } else {
        let near = if reader.sink.is_full() {
            None
        } else {
            neighbour(&file)
        };
        let help = match near {
            Some(near) => {
                let near = Path::new(&name.value).with_file_name(near);
                format!("did you mean \"{}\"?", near.display())
            }
            None => "paths begin at the manifest's directory".into(),
        };
        Diagnostic::error(format!("the {what} {shown} of {whose} does not exist"))
            .at(&name.place, "not found")
            .help(help)
    };
    reader.sink.push(diagnostic);
    file
}

/// A file in the same directory with nearly the same name.
fn neighbour(file: &Path) -> Option<String> {
    let wanted = file.file_name()?.to_str()?;
    let entries = std::fs::read_dir(file.parent()?)
        .ok()?
        .take(DIRECTORY_ENTRIES_MAX);
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_alike = |name: &String| Path::new(name).extension() == file.extension();
    let mut names: Vec<String> = names.filter(is_alike).collect();
    names.sort();
    nearest(wanted, names.iter().map(String::as_str)).map(str::to_owned)
}

/// Several flags in one text are a common slip whose message from the compiler is obscure.
fn judge_flag(reader: &Reader<'_>, flag: &Placed<String>) {
    reader.without_zero(&flag.value, &flag.place);
    if flag.value.starts_with('-') && flag.value.contains(" -") {
        let each: Vec<_> = flag
            .value
            .split_whitespace()
            .map(|flag| format!("\"{flag}\""))
            .collect();
        reader.sink.push(
            Diagnostic::error("several flags in one text")
                .at(&flag.place, "the compiler would see one flag")
                .help(format!("did you mean {}?", each.join(", "))),
        );
    }
}

/// `m`, or a path to a library, absolute.
fn link(reader: &Reader<'_>, whose: &str, name: &Placed<String>) -> String {
    if let Some(bare) = name.value.strip_prefix("-l") {
        reader.sink.push(
            Diagnostic::error(format!("{} is a flag, not a library", quote(&name.value)))
                .at(&name.place, "named without `-l`")
                .help(format!("did you mean \"{bare}\"?")),
        );
    }
    if name.value.contains('/') {
        return existing_file(reader, whose, name, "library")
            .to_string_lossy()
            .into_owned();
    }
    reader.without_zero(&name.value, &name.place);
    name.value.clone()
}
