//! What the process reports that has loaded a library, and with it code that may write anything.

use pheromone_executor::{LoadError, fuzzing};
use serde::{Deserialize, Serialize};

/// A library is found good by one verdict alone; everything else is told in a sentence.
pub fn run(bytes: &[u8]) {
    match fuzzing::probe_report(bytes) {
        Ok(()) => assert_eq!(postcard::from_bytes(bytes), Ok(good())),
        Err(sentence) => assert!(!sentence.is_empty()),
    }
}

/// What that process sends.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Report {
    Open(String),
    Looked(Result<Vec<Option<LoadError>>, LoadError>),
}

/// What is sent where a library has a function and a trigger, as asked for.
fn good() -> Report {
    Report::Looked(Ok(vec![None, None]))
}

fn report(found: &Report) -> Vec<u8> {
    postcard::to_allocvec(found).expect("it can be written")
}

/// A good library, one that cannot be loaded, and one with something missing.
pub fn seeds() -> Vec<Vec<u8>> {
    let library = || "library.so".to_owned();
    let dependency = LoadError::Dependency {
        library: library(),
        dependency: "libmissing.so.1".to_owned(),
    };
    let undefined = LoadError::Undefined {
        library: library(),
        symbol: "missing".to_owned(),
    };
    let loader = LoadError::Loader {
        library: library(),
        reason: "no ELF".to_owned(),
    };
    vec![
        report(&good()),
        report(&Report::Looked(Ok(vec![None]))),
        report(&Report::Open("no landlock".to_owned())),
        report(&Report::Looked(Ok(vec![Some(undefined), None]))),
        report(&Report::Looked(Ok(vec![
            Some(loader.clone()),
            Some(dependency),
        ]))),
        report(&Report::Looked(Err(loader))),
    ]
}
