//! Every broken manifest of `tests/golden` gives exactly the text beside it.
//!
//! `UPDATE_GOLDEN=1 cargo test -p pheromone-manifest --test golden` writes the texts anew; read the
//! difference before keeping it. A manifest whose name begins with `warn-` can run; all others
//! cannot. The first line `# purpose: look` reads it as `pheromone graph` does.

use std::path::{Path, PathBuf};

use pheromone_manifest::{Diagnostics, Purpose, ReadOptions, Severity, parse_with};

/// The fewest manifests that this test must find.
const MANIFESTS_MIN: usize = 40;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn manifests() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory()).expect("the directory is there");
    let paths = entries.map(|entry| entry.expect("it can be listed").path());
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .collect();
    paths.sort();
    paths
}

fn judge(path: &Path) -> (Diagnostics, bool) {
    let text = std::fs::read_to_string(path).expect("it is text");
    let look = text.starts_with("# purpose: look\n");
    let purpose = if look { Purpose::Look } else { Purpose::Run };
    let options = ReadOptions {
        purpose,
        executors_max: Some(4),
    };
    let name = path.file_name().expect("it has a name").to_string_lossy();
    match parse_with(&text, &name, &directory(), &options) {
        Ok(app) => (app.warnings, true),
        Err(diagnostics) => (diagnostics, false),
    }
}

#[test]
fn diagnostics_are_as_written_down() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let manifests = manifests();
    assert!(
        manifests.len() >= MANIFESTS_MIN,
        "only {} manifests",
        manifests.len()
    );
    let mut wrong = Vec::new();
    for path in &manifests {
        let (diagnostics, _) = judge(path);
        let rendered = diagnostics.render(false);
        let golden = path.with_extension("txt");
        if update {
            std::fs::write(&golden, &rendered).expect("it can be written");
        } else if std::fs::read_to_string(&golden).ok().as_ref() != Some(&rendered) {
            wrong.push(format!("{}:\n{rendered}", golden.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "these differ (UPDATE_GOLDEN=1 accepts):\n{}",
        wrong.join("\n")
    );
}

#[test]
fn only_warnings_let_an_app_run() {
    for path in manifests() {
        let (diagnostics, can_run) = judge(&path);
        let name = path
            .file_name()
            .expect("it has a name")
            .to_string_lossy()
            .into_owned();
        assert_eq!(can_run, name.starts_with("warn-"), "{name}");
        assert_eq!(diagnostics.has_errors(), !can_run, "{name}");
        assert!(!diagnostics.is_empty(), "{name}");
    }
}

#[test]
fn every_error_shows_its_line_and_a_remedy() {
    for path in manifests() {
        let text = std::fs::read_to_string(&path).expect("it is text");
        let (diagnostics, _) = judge(&path);
        for diagnostic in diagnostics
            .iter()
            .filter(|found| found.severity == Severity::Error)
        {
            let (place, _) = diagnostic.place.as_ref().expect(&diagnostic.title);
            assert!(
                place.end <= text.len(),
                "{}: {}",
                path.display(),
                diagnostic.title
            );
            let line = diagnostics.line_of(place);
            assert!(
                (1..=text.lines().count().max(1) + 1).contains(&line),
                "{}",
                diagnostic.title
            );
            assert!(!diagnostic.help.is_empty(), "{}", diagnostic.title);
        }
    }
}
