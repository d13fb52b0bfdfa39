//! Every template is an app that is right, builds without a warning, and says how
//! it is run.

use std::fs;
use std::path::Path;

use pheromone_manifest::{BuildOptions, Format, NewError, Template, build, graph, new, read};

#[test]
fn templates_are_right_and_build_without_a_warning() {
    for template in Template::ALL {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let place = directory.path().join("deep/My App.1");
        let files = new(&place, template).unwrap_or_else(|error| panic!("{error}"));
        assert!(files.iter().all(|file| file.is_file()));
        let app =
            read(&place.join("app.toml")).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        assert_eq!(app.spec.name, "my-app-1");
        assert_eq!(
            app.warnings.iter().count(),
            0,
            "{template}: {}",
            app.warnings
        );

        let built = build(&app, &BuildOptions::default()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(built.messages, [], "{template}");
        for format in Format::ALL {
            let picture = graph(&app, format);
            // Every function says what it sends: nothing is left to guess.
            assert!(!picture.contains("may publish"), "{template}: {picture}");
        }
    }
}

#[test]
fn a_readme_names_the_app_and_how_to_run_it() {
    for template in Template::ALL {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let place = directory.path().join("mine");
        new(&place, template).unwrap_or_else(|error| panic!("{error}"));
        let readme = fs::read_to_string(place.join("README.md")).expect("it is there");
        assert!(readme.starts_with("# mine\n"), "{readme}");
        assert!(readme.contains(template.example()), "{readme}");
        for line in readme.lines().filter(|line| line.contains("--input ")) {
            let file = line.split("--input ").nth(1).expect("it has one").trim();
            assert!(place.join(file).is_file(), "{file} comes with {template}");
        }
        for entry in fs::read_dir(&place).expect("it is there") {
            let text = fs::read_to_string(entry.expect("listed").path()).expect("all are texts");
            assert!(!text.contains("{{"), "no mark is left");
        }
    }
}

#[test]
fn an_empty_directory_is_filled_and_another_is_left_alone() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    new(directory.path(), Template::Chain).expect("it is empty");
    let before = fs::read(directory.path().join("app.toml")).expect("it is there");
    let error = new(directory.path(), Template::Fanout).expect_err("it is not empty any more");
    assert!(matches!(error, NewError::NotEmpty(_)), "{error}");
    assert_eq!(
        fs::read(directory.path().join("app.toml")).expect("it is there"),
        before
    );

    let file = directory.path().join("app.toml");
    let error = new(&file, Template::Chain).expect_err("it is a file");
    assert!(matches!(error, NewError::NotADirectory(_)), "{error}");
    let error =
        new(Path::new("/proc/none/app"), Template::Chain).expect_err("nobody can write there");
    assert!(matches!(error, NewError::Io { .. }), "{error}");
}

#[test]
fn templates_are_found_by_name() {
    for template in Template::ALL {
        assert_eq!(template.name().parse::<Template>(), Ok(template));
        assert!(!template.about().is_empty());
    }
    assert!(
        "web"
            .parse::<Template>()
            .expect_err("there is none")
            .to_string()
            .contains("chain")
    );
}
