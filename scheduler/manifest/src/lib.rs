//! An app's manifest: read with diagnostics that point into it, built, drawn, and begun anew.
//!
//! A manifest is what a person writes; an [`App`] is what is left of it when it is right. Nothing
//! here runs a function or loads a library.
#![forbid(unsafe_code)]

mod app;
mod build;
mod check;
mod diagnostics;
mod document;
mod files;
mod graph;
mod limits;
mod names;
mod read;
mod sdk;
mod support;
mod template;
mod units;

pub use app::{
    App, Arguments, Built, CompilerMessage, FunctionProgram, Program, Sources, TriggerProgram,
};
pub use build::{BuildError, BuildOptions, BuildStep, build};
pub use diagnostics::{Diagnostic, Diagnostics, Place, Severity};
pub use graph::{Format, UnknownFormat, graph};
pub use read::{Purpose, ReadOptions, parse, parse_with, read, read_with};
pub use support::type_word;
pub use template::{NewError, Template, UnknownTemplate, new};
