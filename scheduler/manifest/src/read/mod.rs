//! Reading a manifest: text to [`App`], every problem found in one pass.
//!
//! The order is: names of functions and buckets first, so that everything can point at them; then
//! each section for itself; then, where no name is left unresolved, the app as a whole
//! (`check.rs`) and what this build does not carry out (`support.rs`).

mod app;
mod bucket;
mod code;
mod function;
mod trigger;

pub(crate) use code::Language;

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use pheromone_core::spec::{BucketIndex, FunctionIndex};
use toml::de::DeTable;

use crate::app::App;
use crate::diagnostics::{Diagnostic, Diagnostics, Place, quote};
use crate::document::{Field, Placed, Section, Sink, as_text, list};
use crate::limits::{
    BUCKETS_MAX, FUNCTIONS_MAX, MANIFEST_BYTES_MAX, SET_KEYS_MAX, SYNTAX_ERRORS_MAX,
};
use crate::names::{is_name, nearest};
use crate::{check, support};

/// What the manifest is read for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// To run it: sources and libraries must be there, and this build must carry out all of it.
    #[default]
    Run,
    /// To look at it: a picture may show what cannot run here.
    Look,
}

/// What the manifest does not say.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// What it is read for.
    pub purpose: Purpose,
    /// Default of `executors.max`; `None`: the cores that this machine has left for executors, at
    /// least 2.
    pub executors_max: Option<u16>,
}

/// Reads and checks the manifest at `path`, to run it.
pub fn read(path: &Path) -> Result<App, Diagnostics> {
    read_with(path, &ReadOptions::default())
}

/// Reads and checks the manifest at `path`.
pub fn read_with(path: &Path, options: &ReadOptions) -> Result<App, Diagnostics> {
    let shown = path.display().to_string();
    let (text, directory) = load(path).map_err(|failure| {
        let (text, diagnostic) = *failure;
        let sink = Sink::new(&shown, &text);
        sink.push(diagnostic);
        sink.finish()
    })?;
    let mut app = parse_with(&text, &shown, &directory, options)?;
    app.manifest_path = path.to_owned();
    Ok(app)
}

/// Reads and checks a manifest's text, to run it. `file_name` is what diagnostics call it;
/// relative paths begin at `directory`.
pub fn parse(text: &str, file_name: &str, directory: &Path) -> Result<App, Diagnostics> {
    parse_with(text, file_name, directory, &ReadOptions::default())
}

/// Reads and checks a manifest's text.
pub fn parse_with(
    text: &str,
    file_name: &str,
    directory: &Path,
    options: &ReadOptions,
) -> Result<App, Diagnostics> {
    let sink = Sink::new(file_name, text);
    if text.len() as u64 > MANIFEST_BYTES_MAX {
        sink.push(too_large(file_name));
        return Err(sink.finish());
    }
    let (document, mut errors) = DeTable::parse_recoverable(text);
    errors.sort_by_key(|error| error.span().map_or(text.len(), |span| span.start));
    for error in errors.iter().take(SYNTAX_ERRORS_MAX) {
        sink.push(syntax_error(error, text));
    }
    if errors.len() > SYNTAX_ERRORS_MAX {
        sink.leave_out(errors.len() - SYNTAX_ERRORS_MAX);
    }
    // What the parser put together after an error is a guess; judging it would mislead.
    let app = if errors.is_empty() {
        let root = Section::new(&sink, "the manifest".into(), 0..0, document.get_ref());
        whole(root, &sink, file_name, directory, options)
    } else {
        None
    };
    let errors = sink.errors();
    let found = sink.finish();
    match app {
        Some(mut app) if errors == 0 => {
            app.warnings = found;
            Ok(app)
        }
        _ => Err(found),
    }
}

/// The file's text and its directory, or what is wrong with the file.
fn load(path: &Path) -> Result<(String, PathBuf), Box<(String, Diagnostic)>> {
    let shown = path.display().to_string();
    let fail = |title: String| Box::new((String::new(), Diagnostic::error(title)));
    let cannot = |error: std::io::Error| fail(format!("cannot read {}: {error}", quote(&shown)));
    let metadata = std::fs::metadata(path).map_err(cannot)?;
    if metadata.is_dir() {
        let inside = path.join("app.toml");
        let (text, diagnostic) = *fail(format!("{} is a directory", quote(&shown)));
        let help = if inside.is_file() {
            format!("name the manifest in it: {}", inside.display())
        } else {
            "name a manifest (a .toml file)".into()
        };
        return Err(Box::new((text, diagnostic.help(help))));
    }
    if !metadata.is_file() {
        return Err(fail(format!("{} is not a regular file", quote(&shown))));
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(cannot)?;
    if bytes.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(Box::new((String::new(), too_large(&shown))));
    }
    let text = String::from_utf8(bytes).map_err(|error| Box::new(not_utf8(&error)))?;
    let path = std::path::absolute(path).map_err(cannot)?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    let directory = parent.canonicalize().map_err(cannot)?;
    Ok((text, directory))
}

fn too_large(shown: &str) -> Diagnostic {
    Diagnostic::error(format!(
        "{} is over 1 MiB: no manifest is that large",
        quote(shown)
    ))
    .help("name the app's .toml file; thousands of triggers fit in it")
}

/// Points at the first bad byte, in the text as far as it can be shown.
fn not_utf8(error: &std::string::FromUtf8Error) -> (String, Diagnostic) {
    let at = error.utf8_error().valid_up_to();
    let byte = error.as_bytes().get(at).copied().unwrap_or(0);
    let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
    let diagnostic = Diagnostic::error("the manifest is not UTF-8")
        .at(
            &(at..at + '\u{fffd}'.len_utf8()),
            format!("byte 0x{byte:02x} is no text"),
        )
        .help("save the file as UTF-8");
    (text, diagnostic)
}

fn syntax_error(error: &toml::de::Error, text: &str) -> Diagnostic {
    let span = error.span().unwrap_or(text.len()..text.len());
    let diagnostic = Diagnostic::error(format!("not TOML: {}", error.message()));
    let diagnostic = diagnostic.at(&span, "");
    let message = error.message();
    let remedies = [
        (
            "recurs",
            "nothing in a manifest nests deeper than five levels",
        ),
        ("duplicate key", "each key and each section appears once"),
        ("must be quoted", "put quotes around it: key = \"text\""),
        (
            "invalid basic string",
            "a text ends with a quote, on the line where it begins",
        ),
        (
            "unclosed table",
            "a section's name ends with a bracket: [functions.split]",
        ),
        (
            "unclosed array",
            "a list ends with a bracket: [\"a\", \"b\"]",
        ),
        (
            "unclosed inline table",
            "it ends with a brace: { min = 1, max = 8 }",
        ),
        ("extra comma", "one comma stands between two values"),
        ("key with no value", "a line is key = value"),
    ];
    let remedy = remedies.iter().find(|(part, _)| message.contains(part));
    diagnostic.help(remedy.map_or(
        "a manifest is TOML (https://toml.io): key = value",
        |found| found.1,
    ))
}

/// Where the fields of one section stand.
#[derive(Clone, Debug, Default)]
pub(crate) struct FieldPlaces {
    /// The section's own name.
    pub head: Place,
    fields: HashMap<String, Place>,
}

impl FieldPlaces {
    fn of(section: &Section<'_>) -> Self {
        Self {
            head: section.place.clone(),
            fields: section.places(),
        }
    }

    /// Of a field, or of the section where the field is not there.
    pub(crate) fn of_field(&self, key: &str) -> &Place {
        self.fields.get(key).unwrap_or(&self.head)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.fields.contains_key(key)
    }
}

/// Where everything stands that is judged once all sections have been read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    pub app: FieldPlaces,
    pub functions: Vec<FieldPlaces>,
    pub buckets: Vec<BucketPlaces>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct BucketPlaces {
    pub bucket: FieldPlaces,
    pub triggers: Vec<FieldPlaces>,
    pub reruns: Vec<FieldPlaces>,
}

/// The names that a manifest defines, by index.
#[derive(Default)]
struct Names {
    list: Vec<String>,
    index: HashMap<String, u16>,
}

impl Names {
    fn of(fields: &[Field<'_>]) -> Self {
        let list: Vec<String> = fields.iter().map(|field| field.key.to_owned()).collect();
        let pairs = list
            .iter()
            .zip(0..)
            .map(|(name, index)| (name.clone(), index));
        Self {
            index: pairs.collect(),
            list,
        }
    }
}

/// What every section's reader needs.
struct Reader<'a> {
    sink: &'a Sink,
    directory: &'a Path,
    purpose: Purpose,
    functions: Names,
    buckets: Names,
    /// A name was used that does not exist: the app as a whole cannot be judged.
    unresolved: Cell<bool>,
}

impl Reader<'_> {
    fn function(&self, name: &Placed<String>, whose: &str) -> Option<FunctionIndex> {
        self.resolve("function", &self.functions, name, whose)
    }

    fn bucket(&self, name: &Placed<String>, whose: &str) -> Option<BucketIndex> {
        self.resolve("bucket", &self.buckets, name, whose)
    }

    fn resolve(
        &self,
        what: &str,
        names: &Names,
        name: &Placed<String>,
        whose: &str,
    ) -> Option<u16> {
        if let Some(index) = names.index.get(&name.value) {
            return Some(*index);
        }
        self.unresolved.set(true);
        let shown = quote(&name.value);
        let known = names.list.iter().map(String::as_str);
        let near = if self.sink.is_full() {
            None
        } else {
            nearest(&name.value, known)
        };
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None if names.list.is_empty() => {
                format!("the manifest has no {what}s: add a section [{what}s.NAME]")
            }
            None if names.list.len() <= 12 => {
                format!(
                    "the {what}s are {}; a new one is a section [{what}s.NAME]",
                    list(&names.list)
                )
            }
            None => format!("add a section [{what}s.NAME], or name another"),
        };
        self.sink.push(
            Diagnostic::error(format!("{whose}: there is no {what} {shown}"))
                .at(&name.place, format!("no such {what}"))
                .help(help),
        );
        None
    }

    /// A list of function names, each once.
    fn functions(&self, names: &[Placed<String>], whose: &str) -> Vec<FunctionIndex> {
        self.each_once(names, whose, |name| self.function(name, whose))
    }

    /// A list of bucket names, each once.
    fn buckets(&self, names: &[Placed<String>], whose: &str) -> Vec<BucketIndex> {
        self.each_once(names, whose, |name| self.bucket(name, whose))
    }

    fn each_once(
        &self,
        names: &[Placed<String>],
        whose: &str,
        resolve: impl Fn(&Placed<String>) -> Option<u16>,
    ) -> Vec<u16> {
        let mut seen: HashMap<u16, &Place> = HashMap::new();
        let mut indices = Vec::with_capacity(names.len());
        for name in names {
            let Some(index) = resolve(name) else { continue };
            if let Some(first) = seen.insert(index, &name.place) {
                self.sink.push(
                    Diagnostic::error(format!("{whose}: {} is named twice", quote(&name.value)))
                        .at(&name.place, "again")
                        .beside(first, "first here")
                        .help("leave one of them out"),
                );
                continue;
            }
            indices.push(index);
        }
        indices
    }

    /// The sections of `[functions]` or `[buckets]`, with names that are allowed.
    fn named<'s>(&self, section: &mut Section<'s>, what: &str, max: usize) -> Vec<Field<'s>> {
        let fields = section.all();
        for field in fields.iter().filter(|field| !is_name(field.key)) {
            self.sink.push(
                Diagnostic::error(format!("{} cannot be the name of a {what}", quote(field.key)))
                    .at(&field.key_place, "not a name")
                    .help("a name has 1 to 63 letters, digits, `_`, `-` and `.`, and begins with a letter, a digit or `_`"),
            );
        }
        if let Some(field) = fields.get(max) {
            self.sink.push(
                Diagnostic::error(format!("more than {max} {what}s"))
                    .at(&field.key_place, "one too many")
                    .help("split the app"),
            );
        }
        fields.into_iter().take(max).collect()
    }

    /// A table of names and values, the values as text.
    fn pairs(&self, section: &mut Section<'_>, key: &'static str) -> Vec<Placed<(String, String)>> {
        let name = format!("{key} of {}", section.name);
        let Some(mut table) = section.table(key, name.clone()) else {
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for field in table.all() {
            let place = field.key_place.clone();
            let Some(value) = as_text(field.value) else {
                self.sink.push(
                    Diagnostic::error(format!("{} in {name} must be one value", quote(field.key)))
                        .at(&field.place, "this is a list or a table")
                        .help("a function sees each value as text: write a text, a number, or true or false"),
                );
                continue;
            };
            if self.without_zero(field.key, &place) && self.without_zero(&value, &field.place) {
                pairs.push(Placed::new((field.key.to_owned(), value), place));
            }
        }
        pairs
    }

    /// Whether a text can be a C string.
    fn without_zero(&self, text: &str, place: &Place) -> bool {
        if text.contains('\0') {
            self.sink.push(
                Diagnostic::error("a zero byte within a text")
                    .at(place, "here")
                    .help("functions see it as a C string, which ends at the first zero byte"),
            );
            return false;
        }
        true
    }
}

/// The whole document. `None` where too little of it can be understood.
fn whole(
    mut root: Section<'_>,
    sink: &Sink,
    file_name: &str,
    directory: &Path,
    options: &ReadOptions,
) -> Option<App> {
    let head = root.table("app", "[app]".into());
    let functions = root.table("functions", "[functions]".into());
    let buckets = root.table("buckets", "[buckets]".into());
    root.finish(|key| {
        let app_key = app::KEYS.contains(&key);
        app_key.then(|| format!("put `{key}` below the line [app]"))
    });
    let Some(head) = head else {
        sink.push(
            Diagnostic::error("the manifest has no section [app]")
                .at(&(0..0), "")
                .help("begin with\n[app]\nname = \"NAME\""),
        );
        return None;
    };
    let mut reader = Reader {
        sink,
        directory,
        purpose: options.purpose,
        functions: Names::default(),
        buckets: Names::default(),
        unresolved: Cell::new(false),
    };
    let mut functions = functions.unwrap_or_else(|| Section::absent(sink, "[functions]"));
    let mut buckets = buckets.unwrap_or_else(|| Section::absent(sink, "[buckets]"));
    let function_fields = reader.named(&mut functions, "function", FUNCTIONS_MAX);
    let bucket_fields = reader.named(&mut buckets, "bucket", BUCKETS_MAX);
    reader.functions = Names::of(&function_fields);
    reader.buckets = Names::of(&bucket_fields);
    if function_fields.is_empty() {
        sink.push(
            Diagnostic::error("the app has no functions")
                .at(&head.place, "")
                .help("add a section [functions.NAME] for each"),
        );
    }

    let app_places = FieldPlaces::of(&head);
    let mut code = code::Code::default();
    let users = code::Users::of_app(&function_fields);
    let (mut spec, defaults) = app::read(&reader, head, &users, options);
    let mut places = Places {
        app: app_places,
        ..Places::default()
    };
    let mut programs = Vec::with_capacity(function_fields.len());
    for field in &function_fields {
        let name = format!("[functions.{}]", crate::diagnostics::clip(field.key));
        let section = functions.table_of(field, name.clone());
        let section = section.unwrap_or_else(|| Section::absent(sink, &name));
        places.functions.push(FieldPlaces::of(&section));
        let (function, program) =
            function::read(&reader, field.key, section, &defaults.code, &mut code);
        spec.functions.push(function);
        programs.push(program);
    }
    let mut custom_triggers = Vec::new();
    let mut context = bucket::Context {
        reader: &reader,
        index: 0,
        limits: &spec.limits,
        defaults: &defaults.code,
        code: &mut code,
        custom_triggers: &mut custom_triggers,
        set_keys_left: SET_KEYS_MAX,
    };
    for (field, index) in bucket_fields.iter().zip(0..) {
        let name = format!("[buckets.{}]", crate::diagnostics::clip(field.key));
        let section = buckets.table_of(field, name.clone());
        let section = section.unwrap_or_else(|| Section::absent(sink, &name));
        context.index = index;
        let (bucket, bucket_places) = context.read(field.key, section);
        spec.buckets.push(bucket);
        places.buckets.push(bucket_places);
    }
    if !reader.unresolved.get() {
        check::whole(&spec, &places, sink);
    }
    if sink.errors() == 0 {
        // Whatever has no rule of its own here, the core still refuses before anything runs.
        for error in spec.validate().err().unwrap_or_default() {
            sink.push(Diagnostic::error(error.to_string()).at(&places.app.head, ""));
        }
    }
    if options.purpose == Purpose::Run {
        support::judge(&spec, &places, sink);
    }
    Some(App {
        spec,
        programs: code.programs,
        functions: programs,
        custom_triggers,
        directory: directory.to_owned(),
        manifest_path: PathBuf::from(file_name),
        warnings: Diagnostics::new(file_name, ""),
        executors_max_is_default: defaults.executors_max_is_default,
        waiters_is_default: defaults.waiters_is_default,
    })
}
