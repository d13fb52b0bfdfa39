//! Building: what is compiled when, what a compiler says, and that nothing is ever half there.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use pheromone_manifest::{App, BuildError, BuildOptions, BuildStep, Built, build, read};
use tempfile::TempDir;

/// A directory with a manifest and sources.
struct Project {
    directory: TempDir,
}

impl Project {
    fn new(manifest: &str, files: &[(&str, &str)]) -> Self {
        let project = Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
        };
        project.write(
            "app.toml",
            &format!("[app]\nname = \"t\"\nisolation = \"none\"\n{manifest}"),
        );
        files
            .iter()
            .for_each(|(name, content)| project.write(name, content));
        project
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("it can be made");
        fs::write(path, content).expect("it can be written");
    }

    fn app(&self) -> App {
        read(&self.path("app.toml")).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
    }

    fn build(&self) -> Result<Built, BuildError> {
        build(&self.app(), &BuildOptions::default())
    }

    /// Builds and tells how many sources were compiled.
    fn compiled(&self) -> usize {
        self.build()
            .unwrap_or_else(|error| panic!("{error}"))
            .compiled
    }

    /// Files of the build that should not outlive it.
    fn left_over(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut directories = vec![self.path(".pheromone")];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).expect("it is there") {
                let entry = entry.expect("it can be listed");
                if entry.path().is_dir() {
                    directories.push(entry.path());
                }
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with(".unfinished") {
                    found.push(name);
                }
            }
        }
        found
    }
}

const ONE: &str = "entry = \"one\"\nsource = [\"one.c\"]\n[functions.one]\n";
const ONE_C: &str = "#include <pheromone.h>\nPHR_FUNCTION(one) { (void)ctx; return PHR_OK; }\n";

fn is_library(path: &Path) -> bool {
    fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"))
}

#[test]
fn a_source_becomes_a_library_without_a_source_tree() {
    let project = Project::new(ONE, &[("one.c", ONE_C)]);
    let app = project.app();
    let built = project.build().expect("it is right");
    let library = built.library(&app, 0).expect("it has a program");
    assert!(is_library(library));
    assert!(
        library.starts_with(
            project
                .path(".pheromone/build")
                .canonicalize()
                .expect("made")
        )
    );
    let bytes = fs::read(library).expect("it is there");
    assert!(
        bytes.windows(12).any(|window| window == b"phr_abi_one\0"),
        "the symbol is exported"
    );
    assert_eq!(project.left_over(), Vec::<String>::new());
}

#[test]
fn what_is_up_to_date_is_not_compiled_again() {
    let project = Project::new(ONE, &[("one.c", ONE_C)]);
    assert_eq!(project.compiled(), 1);
    assert_eq!(project.compiled(), 0);
}

#[test]
fn a_changed_source_is_compiled_again_whether_newer_or_older() {
    let project = Project::new(ONE, &[("one.c", ONE_C)]);
    assert_eq!(project.compiled(), 1);
    project.write("one.c", &format!("{ONE_C}/* changed */\n"));
    assert_eq!(project.compiled(), 1);
    // As from a checkout of an older version, or cp -p: the time goes back.
    let file = fs::File::options()
        .write(true)
        .open(project.path("one.c"))
        .expect("it is there");
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1))
        .expect("it is ours");
    assert_eq!(project.compiled(), 1);
    assert_eq!(project.compiled(), 0);
}

#[test]
fn a_changed_header_compiles_its_sources_again() {
    let manifest = "entry = \"one\"\ninclude = [\"with space\"]\n\
                    [functions.one]\nsource = [\"one.c\"]\n[functions.two]\nsource = [\"two.c\"]\n";
    let two = ONE_C.replace("(one)", "(two)");
    let files = [
        (
            "one.c",
            "#include <answer.h>\n#include <pheromone.h>\nPHR_FUNCTION(one) { (void)ctx; return ANSWER; }\n",
        ),
        ("two.c", two.as_str()),
        ("with space/answer.h", "#define ANSWER 1\n"),
    ];
    let project = Project::new(manifest, &files);
    assert_eq!(project.compiled(), 2);
    project.write("with space/answer.h", "#define ANSWER 200\n");
    assert_eq!(project.compiled(), 1);
    assert_eq!(project.compiled(), 0);
}

#[test]
fn other_flags_are_another_build() {
    let project = Project::new(ONE, &[("one.c", ONE_C)]);
    assert_eq!(project.compiled(), 1);
    let first = project.build().expect("it is right").libraries;
    let manifest = fs::read_to_string(project.path("app.toml")).expect("it is there");
    let flags = manifest.replace("source =", "cflags = [\"-DX=1\"]\nsource =");
    project.write("app.toml", &flags);
    assert_eq!(project.compiled(), 1);
    assert_ne!(project.build().expect("it is right").libraries, first);
    project.write("app.toml", &manifest);
    assert_eq!(project.compiled(), 0, "the first one is still there");
}

#[test]
fn a_library_that_was_removed_is_made_again() {
    let project = Project::new(ONE, &[("one.c", ONE_C)]);
    let library = project.build().expect("it is right").libraries[0].clone();
    fs::remove_file(&library).expect("it is there");
    let built = project.build().expect("it is right");
    assert!(is_library(&library));
    assert_eq!(built.compiled, 0, "it is only linked");
}

#[test]
fn a_header_of_ours_that_was_changed_is_mended() {
    let project = Project::new(ONE, &[("one.c", ONE_C)]);
    assert_eq!(project.compiled(), 1);
    let include = project.path(".pheromone/include");
    let directory = fs::read_dir(include)
        .expect("made")
        .next()
        .expect("one")
        .expect("listed");
    let header = directory.path().join("pheromone.h");
    let right = fs::read(&header).expect("it is there");
    fs::write(&header, "#error changed\n").expect("it is ours");
    assert!(project.build().is_ok());
    assert_eq!(fs::read(&header).expect("it is there"), right);
}

#[test]
fn a_compile_error_names_function_and_source_and_shows_what_the_compiler_said() {
    let broken = "#include <pheromone.h>\nPHR_FUNCTION(one) { return undeclared_name; }\n";
    let project = Project::new(ONE, &[("one.c", broken)]);
    let error = project.build().expect_err("it is broken");
    let BuildError::Refused(failures) = &error else {
        panic!("{error}")
    };
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].functions, ["one"]);
    let shown = error.to_string();
    assert!(shown.starts_with("function `one`: "), "{shown}");
    assert!(
        shown.contains("one.c:2:") && shown.contains("undeclared_name"),
        "{shown}"
    );
    assert_eq!(project.left_over(), Vec::<String>::new());
    project.write("one.c", ONE_C);
    assert_eq!(project.compiled(), 1);
}

#[test]
fn every_source_that_is_wrong_is_told_at_once() {
    let manifest = "entry = \"one\"\n[functions.one]\nsource = [\"one.c\"]\n\
                    [functions.two]\nsource = [\"two.c\"]\n[functions.three]\nsource = [\"three.c\"]\n";
    let files = [
        ("one.c", "int one = ;\n"),
        ("two.c", "int two;\n"),
        ("three.c", "int three = ;\n"),
    ];
    let project = Project::new(manifest, &files);
    let BuildError::Refused(failures) = project.build().expect_err("two are broken") else {
        panic!("the compiler refuses them")
    };
    let mut functions: Vec<_> = failures
        .iter()
        .flat_map(|failure| failure.functions.clone())
        .collect();
    functions.sort();
    assert_eq!(functions, ["one", "three"]);
}

#[test]
fn a_name_that_nobody_defines_is_missed_when_linking() {
    let source = "double sin(double);\ndouble one(double x) { return sin(x) + nowhere(x); }\n\
                  double nowhere(double);\n";
    let source = format!("double nowhere(double);\n{source}");
    let project = Project::new(ONE, &[("one.c", &source)]);
    let shown = project.build().expect_err("nowhere is nowhere").to_string();
    assert!(shown.contains("nowhere"), "{shown}");
    assert!(shown.contains("function `one`"), "{shown}");
}

#[test]
fn link_adds_libraries() {
    let source = "#include <math.h>\ndouble one(double x) { return sin(x) + lgamma(x); }\n";
    let manifest = ONE.replace("source =", "link = [\"m\"]\nsource =");
    let project = Project::new(&manifest, &[("one.c", source)]);
    assert_eq!(project.compiled(), 1);
}

#[test]
fn warnings_pass_through_and_do_not_stop() {
    let source = "#include <pheromone.h>\nPHR_FUNCTION(one) { int unused; (void)ctx; return 0; }\n";
    let manifest = ONE.replace("source =", "cflags = [\"-Wall\"]\nsource =");
    let project = Project::new(&manifest, &[("one.c", source)]);
    let built = project.build().expect("a warning is no error");
    assert_eq!(built.messages.len(), 1);
    assert!(
        built.messages[0].text.contains("unused"),
        "{}",
        built.messages[0]
    );
}

#[test]
fn c_and_cpp_go_into_one_library() {
    let manifest =
        "entry = \"one\"\nsource = [\"one.c\", \"two.cpp\"]\n[functions.one]\n[functions.two]\n";
    let cpp = "#include <pheromone.h>\n#include <string>\n\
               PHR_FUNCTION(two) { std::string text(phr_function(ctx)); return text.empty(); }\n";
    let project = Project::new(manifest, &[("one.c", ONE_C), ("two.cpp", cpp)]);
    let app = project.app();
    let built = project.build().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(built.compiled, 2);
    assert_eq!(built.libraries.len(), 1);
    assert_eq!(built.library(&app, 0), built.library(&app, 1));
}

#[test]
fn the_same_source_with_the_same_flags_is_compiled_once() {
    let manifest =
        "entry = \"one\"\nsource = [\"one.c\"]\n[functions.one]\n[functions.two]\nlink = [\"m\"]\n";
    let project = Project::new(manifest, &[("one.c", ONE_C)]);
    let built = project.build().expect("it is right");
    assert_eq!((built.libraries.len(), built.compiled), (2, 1));
    assert_ne!(built.libraries[0], built.libraries[1]);
}

#[test]
fn names_with_spaces_and_signs_are_built() {
    let name = "a dir/one $x #1 (2)'s.c";
    let manifest = format!("entry = \"one\"\nsource = [\"{name}\"]\n[functions.one]\n");
    let project = Project::new(&manifest, &[(name, ONE_C)]);
    assert_eq!(project.compiled(), 1);
    assert_eq!(project.compiled(), 0);
}

#[test]
fn builds_at_once_do_not_clash() {
    let names: Vec<String> = (0..6).map(|number| format!("f{number}")).collect();
    let mut manifest = String::from("entry = \"f0\"\n");
    let mut files = Vec::new();
    for name in &names {
        manifest.push_str(&format!("[functions.{name}]\nsource = [\"{name}.c\"]\n"));
        files.push((
            format!("{name}.c"),
            ONE_C.replace("(one)", &format!("({name})")),
        ));
    }
    let files: Vec<_> = files
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    let project = Project::new(&manifest, &files);
    let compiled = Mutex::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let built = project.build().unwrap_or_else(|error| panic!("{error}"));
                assert!(built.libraries.iter().all(|library| is_library(library)));
                *compiled.lock().expect("nobody panics with it") += built.compiled;
            });
        }
    });
    assert_eq!(
        *compiled.lock().expect("nobody panics with it"),
        6,
        "each source once"
    );
    assert_eq!(project.left_over(), Vec::<String>::new());
}

#[test]
fn what_a_killed_build_left_is_swept_away() {
    let project = Project::new(ONE, &[("one.c", ONE_C)]);
    project.write(".pheromone/build/.unfinished-1-0-one.o", "half");
    assert_eq!(project.compiled(), 1);
    assert_eq!(project.left_over(), Vec::<String>::new());
}

#[test]
fn a_library_of_somebody_else_is_taken_as_it_is() {
    let manifest = "entry = \"one\"\nlibrary = \"one.so\"\n[functions.one]\n";
    let project = Project::new(manifest, &[("one.so", "not looked at")]);
    let built = project.build().expect("nothing is compiled");
    assert_eq!((built.libraries.len(), built.compiled), (1, 0));
    assert!(built.libraries[0].ends_with("one.so"));
    assert!(!project.path(".pheromone").exists(), "nothing is written");
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let project = Project::new(ONE, &[("one.c", ONE_C)]);
    project.write("blocked", "a file, where a directory is to be");
    let directory = Some(project.path("blocked"));
    let options = BuildOptions {
        directory,
        ..BuildOptions::default()
    };
    let error = build(&project.app(), &options).expect_err("it cannot be made");
    assert!(matches!(error, BuildError::Io { .. }), "{error}");
    assert!(error.to_string().contains("blocked"), "{error}");
}

#[test]
fn progress_is_told() {
    let project = Project::new(ONE, &[("one.c", ONE_C)]);
    let steps = Mutex::new(Vec::new());
    let tell = |step: BuildStep<'_>| {
        let word = match step {
            BuildStep::WaitsFor(_) => "waits",
            BuildStep::Compiles(_) => "compiles",
            BuildStep::Links(_) => "links",
        };
        steps.lock().expect("nobody panics with it").push(word);
    };
    let options = BuildOptions {
        progress: Some(&tell),
        jobs: Some(1),
        ..BuildOptions::default()
    };
    build(&project.app(), &options).expect("it is right");
    assert_eq!(
        *steps.lock().expect("nobody panics with it"),
        ["compiles", "links"]
    );
}
