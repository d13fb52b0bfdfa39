//! The manifest as TOML with places: sections that are asked for their fields one by one, and that
//! say at the end which of the fields nobody asked for.
//!
//! Whatever is wrong with a field is reported here and read as absent, so that one pass finds
//! everything. Nothing here knows what a field means.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostics::{Diagnostic, Diagnostics, Place, clip, quote};
use crate::limits::DIAGNOSTICS_MAX;
use crate::names::nearest;
use crate::units::{self, Mistake};

/// Where everything that is found goes.
pub(crate) struct Sink {
    found: RefCell<Diagnostics>,
    errors: Cell<usize>,
}

impl Sink {
    pub(crate) fn new(file_name: &str, text: &str) -> Self {
        let found = RefCell::new(Diagnostics::new(file_name, text));
        Self {
            found,
            errors: Cell::new(0),
        }
    }

    pub(crate) fn push(&self, diagnostic: Diagnostic) {
        if diagnostic.severity == crate::diagnostics::Severity::Error {
            self.errors.set(self.errors.get() + 1);
        }
        self.found.borrow_mut().push(diagnostic);
    }

    /// Counts so many more that are not worth telling.
    pub(crate) fn leave_out(&self, more: usize) {
        self.found.borrow_mut().leave_out(more);
    }

    /// Errors so far.
    pub(crate) fn errors(&self) -> usize {
        self.errors.get()
    }

    /// Whether more would only be counted.
    pub(crate) fn is_full(&self) -> bool {
        self.errors() >= DIAGNOSTICS_MAX
    }

    pub(crate) fn finish(self) -> Diagnostics {
        let mut found = self.found.into_inner();
        found.sort();
        found
    }
}

/// A value with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed<T> {
    pub value: T,
    pub place: Place,
}

impl<T> Placed<T> {
    pub(crate) fn new(value: T, place: Place) -> Self {
        Self { value, place }
    }
}

/// One field that is there.
#[derive(Clone, Debug)]
pub(crate) struct Field<'a> {
    pub key: &'a str,
    pub key_place: Place,
    pub value: &'a DeValue<'a>,
    pub place: Place,
}

impl Field<'_> {
    /// Whether it is a section with a field of this name.
    pub(crate) fn has(&self, key: &str) -> bool {
        match self.value {
            DeValue::Table(table) => table.keys().any(|own| own.get_ref() == key),
            _ => false,
        }
    }
}

/// A table of the document, asked for its fields.
pub(crate) struct Section<'a> {
    sink: &'a Sink,
    /// As a person calls it: `[functions.split]`.
    pub name: String,
    /// Where its name stands.
    pub place: Place,
    fields: Vec<(Field<'a>, bool)>,
    asked: Vec<&'static str>,
}

/// What a value is, in words.
fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false, without quotes",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The value of an integer, where it fits 64 bits and a sign.
fn integer(value: &DeValue<'_>) -> Option<i128> {
    match value {
        DeValue::Integer(integer) => i128::from_str_radix(integer.as_str(), integer.radix()).ok(),
        _ => None,
    }
}

impl<'a> Section<'a> {
    pub(crate) fn new(
        sink: &'a Sink,
        name: String,
        place: Place,
        table: &'a DeTable<'a>,
    ) -> Section<'a> {
        let mut fields: Vec<_> = table
            .iter()
            .map(|(key, value)| (field(key, value), false))
            .collect();
        fields.sort_by_key(|(field, _)| field.key_place.start);
        Section {
            sink,
            name,
            place,
            fields,
            asked: Vec::new(),
        }
    }

    /// A section that is not in the manifest: every field is absent.
    pub(crate) fn absent(sink: &'a Sink, name: &str) -> Section<'a> {
        Section {
            sink,
            name: name.into(),
            place: 0..0,
            fields: Vec::new(),
            asked: Vec::new(),
        }
    }

    /// The field of this name, if it is there.
    pub(crate) fn field(&mut self, key: &'static str) -> Option<Field<'a>> {
        self.asked.push(key);
        let (field, asked) = self.fields.iter_mut().find(|(field, _)| field.key == key)?;
        *asked = true;
        Some(field.clone())
    }

    /// Whether a field of this name is there, right or wrong.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.fields.iter().any(|(field, _)| field.key == key)
    }

    /// A field's value, without asking for it.
    pub(crate) fn peek(&self, key: &str) -> Option<&'a DeValue<'a>> {
        self.fields
            .iter()
            .find(|(field, _)| field.key == key)
            .map(|(field, _)| field.value)
    }

    /// Where a field's value stands.
    pub(crate) fn place_of(&self, key: &str) -> Option<Place> {
        let (field, _) = self.fields.iter().find(|(field, _)| field.key == key)?;
        Some(field.place.clone())
    }

    /// Where all of them stand.
    pub(crate) fn places(&self) -> HashMap<String, Place> {
        let places = self
            .fields
            .iter()
            .map(|(field, _)| (field.key.into(), field.place.clone()));
        places.collect()
    }

    /// Every field, whatever its name, in the manifest's order.
    pub(crate) fn all(&mut self) -> Vec<Field<'a>> {
        self.fields.iter_mut().for_each(|(_, asked)| *asked = true);
        self.fields.iter().map(|(field, _)| field.clone()).collect()
    }

    /// Reports what nobody asked for. `elsewhere` says where a field of that name belongs.
    pub(crate) fn finish(self, elsewhere: impl Fn(&str) -> Option<String>) {
        for (field, _) in self.fields.iter().filter(|(_, asked)| !*asked) {
            let key = quote(field.key);
            if let Some(sentence) = elsewhere(field.key) {
                self.sink.push(
                    Diagnostic::error(format!("{key} does not belong in {}", self.name))
                        .at(&field.key_place, "not here")
                        .help(sentence),
                );
                continue;
            }
            let near = if self.sink.is_full() {
                None
            } else {
                nearest(field.key, self.asked.iter().copied())
            };
            let help = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    let mut known = self.asked.clone();
                    known.sort_unstable();
                    format!("{} takes {}", self.name, list(&known))
                }
            };
            self.sink.push(
                Diagnostic::error(format!("unknown key {key} in {}", self.name))
                    .at(&field.key_place, "unknown key")
                    .help(help),
            );
        }
    }

    fn wrong_type(&self, field: &Field<'_>, wanted: &str, help: String) {
        let key = quote(field.key);
        self.sink.push(
            Diagnostic::error(format!("{key} in {} must be {wanted}", self.name))
                .at(&field.place, format!("this is {}", kind_of(field.value)))
                .help(help),
        );
    }

    /// A text.
    pub(crate) fn text(&mut self, key: &'static str, example: &str) -> Option<Placed<String>> {
        let field = self.field(key)?;
        match field.value {
            DeValue::String(text) => Some(Placed::new(text.clone().into_owned(), field.place)),
            _ => {
                self.wrong_type(
                    &field,
                    "a text",
                    format!("write it as {key} = \"{example}\""),
                );
                None
            }
        }
    }

    /// A list of texts.
    pub(crate) fn texts(
        &mut self,
        key: &'static str,
        example: &str,
    ) -> Option<Vec<Placed<String>>> {
        let field = self.field(key)?;
        let help = format!("write it as {key} = [\"{example}\"]");
        let DeValue::Array(items) = field.value else {
            self.wrong_type(&field, "a list of texts", help);
            return None;
        };
        let mut texts = Vec::with_capacity(items.len());
        for item in items.iter() {
            match item.get_ref() {
                DeValue::String(text) => {
                    texts.push(Placed::new(text.clone().into_owned(), item.span()));
                }
                value => {
                    let item = Field {
                        value,
                        place: item.span(),
                        ..field.clone()
                    };
                    self.wrong_type(&item, "a list of texts", help.clone());
                }
            }
        }
        Some(texts)
    }

    /// A list of whole numbers within `range`; those that are not in it are reported.
    pub(crate) fn numbers(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u16>,
        example: u16,
    ) -> Option<Vec<u16>> {
        let field = self.field(key)?;
        let (first, last) = (range.start(), range.end());
        let help = format!("write it as {key} = [{example}], numbers from {first} to {last}");
        let DeValue::Array(items) = field.value else {
            self.wrong_type(&field, "a list of numbers", help);
            return None;
        };
        let mut numbers = Vec::with_capacity(items.len());
        for item in items.iter() {
            let number = integer(item.get_ref()).and_then(|number| u16::try_from(number).ok());
            match number.filter(|number| range.contains(number)) {
                Some(number) => numbers.push(number),
                None => {
                    let item = Field {
                        value: item.get_ref(),
                        place: item.span(),
                        ..field.clone()
                    };
                    self.wrong_type(&item, "a list of such numbers", help.clone());
                }
            }
        }
        Some(numbers)
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, key: &'static str) -> Option<Placed<bool>> {
        let field = self.field(key)?;
        match field.value {
            DeValue::Boolean(value) => Some(Placed::new(*value, field.place)),
            _ => {
                let help = format!("write it as {key} = true or {key} = false, without quotes");
                self.wrong_type(&field, "true or false", help);
                None
            }
        }
    }

    /// A whole number within `range`.
    pub(crate) fn number<T>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<T>,
    ) -> Option<Placed<T>>
    where
        T: Copy + Into<i128> + TryFrom<i128> + std::fmt::Display,
    {
        let field = self.field(key)?;
        let help = format!(
            "{key} is a whole number from {} to {}",
            range.start(),
            range.end()
        );
        if !matches!(field.value, DeValue::Integer(_)) {
            self.wrong_type(&field, "a whole number", help);
            return None;
        }
        // What does not even fit 128 bits is out of any range.
        let value = integer(field.value);
        let fits = |value: &i128| ((*range.start()).into()..=(*range.end()).into()).contains(value);
        match value.filter(fits).and_then(|value| T::try_from(value).ok()) {
            Some(number) => Some(Placed::new(number, field.place)),
            None => {
                let label = match value {
                    Some(value) if value < (*range.start()).into() => "too small",
                    _ => "too large",
                };
                let title = format!("{} in {} is out of range", quote(key), self.name);
                self.sink
                    .push(Diagnostic::error(title).at(&field.place, label).help(help));
                None
            }
        }
    }

    /// A fraction within `range`.
    pub(crate) fn fraction(
        &mut self,
        key: &'static str,
        range: RangeInclusive<f64>,
    ) -> Option<f64> {
        let field = self.field(key)?;
        let value = match field.value {
            DeValue::Float(float) => float.as_str().parse::<f64>().ok(),
            value => integer(value).map(|integer| integer as f64),
        };
        match value.filter(|value| range.contains(value)) {
            Some(value) => Some(value),
            None => {
                let help = format!(
                    "{key} is a number from {} to {}",
                    range.start(),
                    range.end()
                );
                let title = format!("{} in {} is out of range", quote(key), self.name);
                let label = format!("this is {}", kind_of(field.value));
                let label = if value.is_some() {
                    "out of range".to_owned()
                } else {
                    label
                };
                self.sink
                    .push(Diagnostic::error(title).at(&field.place, label).help(help));
                None
            }
        }
    }

    /// A duration within `range`, in nanoseconds.
    pub(crate) fn duration(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<Placed<u64>> {
        let field = self.field(key)?;
        let text = match field.value {
            DeValue::String(text) => text.as_ref(),
            value => {
                let help = match integer(value) {
                    Some(number) => format!(
                        "a duration has a unit and quotes: {key} = \"{number}ms\", \"{number}s\""
                    ),
                    None => format!("write it as {key} = \"10ms\""),
                };
                self.wrong_type(&field, "a duration", help);
                return None;
            }
        };
        let read = units::duration_ns(text);
        self.measured(&field, read, range, "duration", units::show_duration)
    }

    /// A size within `range`, in bytes.
    pub(crate) fn size(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<Placed<u64>> {
        let field = self.field(key)?;
        let read = match (field.value, integer(field.value)) {
            (DeValue::String(text), _) => units::size_bytes(text),
            (DeValue::Integer(_), Some(bytes)) => u64::try_from(bytes).map_err(|_| Mistake {
                what: if bytes < 0 {
                    "below zero".into()
                } else {
                    "too large".into()
                },
                help: "a size is a number of bytes, or has a unit: 1000000, \"64KiB\"".into(),
            }),
            _ => {
                self.wrong_type(&field, "a size", format!("write it as {key} = \"64KiB\""));
                return None;
            }
        };
        self.measured(&field, read, range, "size", units::show_size)
    }

    fn measured(
        &self,
        field: &Field<'_>,
        read: Result<u64, Mistake>,
        range: RangeInclusive<u64>,
        what: &str,
        show: fn(u64) -> String,
    ) -> Option<Placed<u64>> {
        let key = quote(field.key);
        let diagnostic = match read {
            Ok(value) if range.contains(&value) => {
                return Some(Placed::new(value, field.place.clone()));
            }
            Ok(value) => {
                let small = value < *range.start();
                let help = if small && *range.start() == 1 {
                    format!("{key} must be more than 0")
                } else if small {
                    format!("{key} is at least {}", show(*range.start()))
                } else {
                    format!("{key} is at most {}", show(*range.end()))
                };
                Diagnostic::error(format!("{key} in {} is out of range", self.name))
                    .at(&field.place, if small { "too small" } else { "too large" })
                    .help(help)
            }
            Err(mistake) => Diagnostic::error(format!("{key} in {} is no {what}", self.name))
                .at(&field.place, mistake.what)
                .help(mistake.help),
        };
        self.sink.push(diagnostic);
        None
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Option<Placed<T>> {
        let example = words.first().map_or("", |(word, _)| word);
        let text = self.text(key, example)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
            return Some(Placed::new(*value, text.place));
        }
        let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let help = match nearest(&text.value, names.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("{key} is one of {}", list(&names)),
        };
        let title = format!(
            "{} in {} cannot be {}",
            quote(key),
            self.name,
            quote(&text.value)
        );
        self.sink.push(
            Diagnostic::error(title)
                .at(&text.place, "unknown word")
                .help(help),
        );
        None
    }

    /// A table; `name` is how a person calls it.
    pub(crate) fn table(&mut self, key: &'static str, name: String) -> Option<Section<'a>> {
        let field = self.field(key)?;
        self.table_of(&field, name)
    }

    /// A field as a table.
    pub(crate) fn table_of(&self, field: &Field<'a>, name: String) -> Option<Section<'a>> {
        match field.value {
            DeValue::Table(table) => Some(Section::new(
                self.sink,
                name,
                field.key_place.clone(),
                table,
            )),
            _ => {
                let help = if name.starts_with('[') {
                    format!("write it as a section {name}")
                } else {
                    let example = match field.key {
                        "executors" => "min = 1, max = 8",
                        "config" | "env" => "NAME = \"value\"",
                        _ => "...",
                    };
                    format!("write it as {} = {{ {example} }}", clip(field.key))
                };
                self.wrong_type(field, "a table", help);
                None
            }
        }
    }

    /// A list of tables, `[[...]]`; each is called `name` with its number.
    pub(crate) fn tables(&mut self, key: &'static str, name: &str) -> Vec<Section<'a>> {
        let Some(field) = self.field(key) else {
            return Vec::new();
        };
        let DeValue::Array(items) = field.value else {
            let help = format!("write each as a section {name}, in two pairs of brackets");
            self.wrong_type(&field, "a list of tables", help);
            return Vec::new();
        };
        let mut sections = Vec::with_capacity(items.len());
        for item in items.iter() {
            match item.get_ref() {
                DeValue::Table(table) => {
                    sections.push(Section::new(self.sink, name.into(), item.span(), table));
                }
                value => {
                    let item = Field {
                        value,
                        place: item.span(),
                        ..field.clone()
                    };
                    let help = format!("write each as a section {name}");
                    self.wrong_type(&item, "a list of tables", help);
                }
            }
        }
        sections
    }
}

fn field<'a>(
    key: &'a Spanned<toml::de::DeString<'a>>,
    value: &'a Spanned<DeValue<'a>>,
) -> Field<'a> {
    Field {
        key: key.get_ref(),
        key_place: key.span(),
        value: value.get_ref(),
        place: value.span(),
    }
}

/// A scalar as the text that C code sees; `None` for lists and tables.
pub(crate) fn as_text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        DeValue::Integer(_) => integer(value).map(|integer| integer.to_string()),
        DeValue::Float(float) => Some(float.as_str().to_owned()),
        DeValue::Boolean(value) => Some(value.to_string()),
        DeValue::Datetime(value) => Some(value.to_string()),
        DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// `a`, `b` and `c`.
pub(crate) fn list<T: AsRef<str>>(words: &[T]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| quote(word.as_ref())).collect();
    match quoted.split_last() {
        None => "nothing".into(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}
