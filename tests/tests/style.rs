//! The habits that a compiler does not check: every Rust file says what it is for, nothing is left
//! undone, unsafe code stays where it belongs and says why it is sound, C compiles without a
//! warning.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pheromone_tests::repository;

/// Widest line, in characters.
const WIDTH_MAX: usize = 100;

/// How far above an unsafe block its SAFETY sentence may begin: the longest are a few lines, and a
/// statement may begin above the block.
const SAFETY_LINES_MAX: usize = 12;

/// The crates whose library may contain unsafe code.
const UNSAFE_FOLDERS: [&str; 3] = ["shm", "executor", "sdk-c"];

/// The only sources of the product that may read the wall clock, and what for. Whatever waits,
/// times out or fires does so by the monotonic clock, which nobody can set.
const WALL_CLOCK_READERS: [&str; 7] = [
    // `phr_wall_ns`, which converts for the user.
    "executor/src/api/about.rs",
    // Whether a file has changed since it was built from.
    "scheduler/manifest/src/build.rs",
    // When an app was deployed and when a dead letter was written, for people to read.
    "scheduler/node/src/app.rs",
    "scheduler/node/src/http/metrics.rs",
    "scheduler/node/src/letters.rs",
    "scheduler/node/src/status.rs",
    // How long objects on disk are retained, which goes on while the node does not run.
    "scheduler/node/src/store.rs",
];

/// What reads the wall clock, or waits by it.
const WALL_CLOCK_WORDS: [&str; 7] = [
    "SystemTime",
    "UNIX_EPOCH",
    "Realtime",
    "RealtimeCoarse",
    "CLOCK_REALTIME",
    "CLOCK_REALTIME_COARSE",
    "gettimeofday",
];

/// A file that may contain unsafe code in a crate that denies it, with that crate's root.
const UNSAFE_FILES: [(&str, &str); 1] = [(
    "scheduler/journal/src/lib.rs",
    "scheduler/journal/src/uring.rs",
)];

/// Folders that hold nothing of ours, or what tests expect word for word.
const FOREIGN_FOLDERS: [&str; 4] = ["target", ".git", ".pheromone", "golden"];

/// All files below a directory with one of these endings.
fn files(directory: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = fs::read_dir(directory).expect("a directory of the checkout");
    for entry in entries.map(|entry| entry.expect("an entry")) {
        let path = entry.path();
        let name = entry.file_name();
        if entry.file_type().expect("its type").is_dir() {
            if !FOREIGN_FOLDERS.iter().any(|foreign| name == *foreign) {
                found.extend(files(&path, endings));
            }
        } else if path
            .extension()
            .and_then(OsStr::to_str)
            .is_some_and(|e| endings.contains(&e))
        {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Every Rust file with its path from the root.
fn rust_files() -> Vec<(String, String)> {
    let root = repository();
    let files = files(&root, &["rs"]);
    assert!(files.len() > 50, "only {} Rust files", files.len());
    files
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a Rust file");
            let name = path.strip_prefix(&root).expect("below the root");
            (name.display().to_string(), text)
        })
        .collect()
}

/// Fails with all places at once.
fn assert_none(what: &str, places: &[String]) {
    assert!(places.is_empty(), "{what}:\n  {}", places.join("\n  "));
}

/// The lines of a text for which the rule does not hold, as `file:line: text`.
fn offending(
    files: &[(String, String)],
    offends: impl Fn(&str, usize, &[&str]) -> bool,
) -> Vec<String> {
    let mut places = Vec::new();
    for (name, text) in files {
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            if offends(name, index, &lines) {
                places.push(format!("{name}:{}: {}", index + 1, line.trim()));
            }
        }
    }
    places
}

/// `word` stands in the line, not as a part of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_letter) && !after.is_some_and(is_letter)
    })
}

/// The line without its comment; a `//` in a string ends it too early, which no rule here minds.
fn code_of(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

#[test]
fn every_rust_file_says_what_it_is_for() {
    let files = rust_files();
    let silent: Vec<_> = files
        .iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(name, _)| name.clone())
        .collect();
    assert_none("these files do not begin with a `//!` sentence", &silent);
}

#[test]
fn nothing_is_left_undone() {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("X", "XX"),
        concat!("to", "do", "!"),
        concat!("un", "implemented!"),
    ];
    let ignored = concat!("#[ig", "nore");
    let places = offending(&rust_files(), |_, index, lines| {
        let line = lines[index];
        line.contains(ignored) || words.iter().any(|word| has_word(line, word))
    });
    assert_none("left undone", &places);
}

#[test]
fn comments_and_c_fit_a_hundred_columns() {
    let is_wide = |line: &str| line.chars().count() > WIDTH_MAX;
    // Rust code is laid out by rustfmt, which leaves alone what it cannot break.
    let mut places = offending(&rust_files(), |_, index, lines| {
        lines[index].trim_start().starts_with("//") && is_wide(lines[index])
    });
    let root = repository();
    let c_files: Vec<_> = files(&root, &["c", "h", "cpp", "hpp"])
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a C file");
            (
                path.strip_prefix(&root)
                    .expect("below the root")
                    .display()
                    .to_string(),
                text,
            )
        })
        .collect();
    places.extend(offending(&c_files, |_, index, lines| is_wide(lines[index])));
    assert_none("wider than 100 columns", &places);
}

#[test]
fn unsafe_code_stays_in_its_crates() {
    let folder_is_unsafe = |name: &str| {
        UNSAFE_FOLDERS
            .iter()
            .any(|folder| name.starts_with(&format!("{folder}/")))
    };
    let files = rust_files();
    let roots: Vec<_> = files
        .iter()
        .filter(|(name, _)| name.ends_with("src/lib.rs") || name.ends_with("src/main.rs"))
        .filter(|(name, _)| !folder_is_unsafe(name))
        .collect();
    assert!(roots.len() >= 6, "only {} crates", roots.len());
    let open: Vec<_> = roots
        .into_iter()
        .filter(|(name, text)| {
            let may_deny = UNSAFE_FILES.iter().any(|(root, _)| name == root);
            let denies = may_deny && text.contains("#![deny(unsafe_code)]");
            !denies && !text.contains("#![forbid(unsafe_code)]")
        })
        .map(|(name, _)| name.clone())
        .collect();
    assert_none("these crates do not forbid unsafe code", &open);

    let allowing: Vec<_> = files
        .iter()
        .filter(|(name, text)| {
            let may_allow = UNSAFE_FILES.iter().any(|(_, file)| name == file);
            text.contains(concat!("allow(", "unsafe_code")) && !may_allow
        })
        .map(|(name, _)| name.clone())
        .collect();
    assert_none("these files allow unsafe code", &allowing);
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    let places = offending(&rust_files(), |_, index, lines| {
        let code = code_of(lines[index]);
        let begins = has_word(code, "unsafe")
            && (code.contains(concat!("unsafe", " {"))
                || code.contains(concat!("unsafe", " impl")));
        let from = index.saturating_sub(SAFETY_LINES_MAX);
        begins
            && !lines[from..=index]
                .iter()
                .any(|line| line.contains("SAFETY:"))
    });
    assert_none("unsafe without a SAFETY sentence above it", &places);
}

#[test]
fn only_what_shows_a_date_reads_the_wall_clock() {
    let product: Vec<_> = rust_files()
        .into_iter()
        .filter(|(name, _)| name.contains("/src/") && !name.starts_with("tests/"))
        .filter(|(name, _)| !WALL_CLOCK_READERS.contains(&name.as_str()))
        .collect();
    assert!(product.len() > 100, "only {} files", product.len());
    let places = offending(&product, |_, index, lines| {
        let code = code_of(lines[index]);
        WALL_CLOCK_WORDS.iter().any(|word| has_word(code, word))
    });
    assert_none("a step of the wall clock would be felt here", &places);
}

#[test]
fn every_c_file_compiles_without_a_warning() {
    let root = repository();
    let sources = files(&root, &["c", "cpp"]);
    assert!(sources.len() > 10, "only {} C files", sources.len());
    let mut complaints = Vec::new();
    for source in sources {
        let is_cpp = source.extension() == Some(OsStr::new("cpp"));
        let (compiler, standard) = if is_cpp {
            ("c++", "-std=gnu++17")
        } else {
            ("cc", "-std=gnu11")
        };
        let output = Command::new(compiler)
            .args([
                standard,
                "-Wall",
                "-Wextra",
                "-Wpedantic",
                "-Werror",
                "-fsyntax-only",
            ])
            .arg("-I")
            .arg(root.join("sdk-c/include"))
            .arg("-I")
            .arg(root.join("sdk-c/include/compat"))
            .arg(&source)
            .output()
            .expect("start the compiler");
        if !output.status.success() {
            complaints.push(String::from_utf8_lossy(&output.stderr).into_owned());
        }
    }
    assert_none("C that does not compile clean", &complaints);
}

#[test]
fn the_checks_find_what_they_look_for() {
    assert!(has_word("// TODAY: x", "TODAY") && !has_word("TODAYS", "TODAY"));
    assert!(has_word("fn f() { panic!() }", "panic!"));
    assert_eq!(code_of("let x = 1; // unsafe {"), "let x = 1; ");
    let files = vec![("a.rs".to_owned(), "fine\nbad\n".to_owned())];
    let places = offending(&files, |_, index, lines| lines[index] == "bad");
    assert_eq!(places, ["a.rs:2: bad"]);
}
