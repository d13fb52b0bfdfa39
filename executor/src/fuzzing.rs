//! A way in for fuzzers to what only this crate reads otherwise. Not a part of its interface.

use std::path::Path;

use crate::probe::{self, Symbol};

/// What `check` says to this report on a library with a function and a custom trigger.
///
/// # Errors
/// What is wrong with the library, or the report, as a sentence.
pub fn probe_report(report: &[u8]) -> Result<(), String> {
    let symbols = [
        Symbol::Function {
            name: "function",
            symbol: "function",
        },
        Symbol::Trigger {
            name: "trigger",
            symbol: "trigger",
        },
    ];
    let verdict = probe::verdict(report, Path::new("library.so"), &symbols);
    verdict.map_err(|error| error.to_string())
}
