//! Where the program under test is: named by `PHEROMONE_BIN`, or built beside the tests.
//!
//! It is never searched in PATH: a test must not speak of another build.

use std::env;
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nix::fcntl::{Flock, FlockArg};

/// The root of the checkout, or what `PHEROMONE_ROOT` says where the tests run on a copy.
pub fn repository() -> PathBuf {
    match env::var_os("PHEROMONE_ROOT") {
        Some(root) => PathBuf::from(root),
        None => Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("the tests lie one folder below the root")
            .to_path_buf(),
    }
}

/// The `pheromone` program.
pub fn pheromone() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| match env::var_os("PHEROMONE_BIN") {
        Some(program) => {
            let program = PathBuf::from(program);
            assert!(
                program.is_file(),
                "PHEROMONE_BIN names {}, which is no file",
                program.display()
            );
            program
        }
        None => build(),
    })
}

/// Builds it with the profile and in the target directory of the running test. Test runners that
/// start a process per test name their run: then only the first process of the run builds.
fn build() -> PathBuf {
    let test = env::current_exe().expect("the path of this test");
    let directory = test
        .ancestors()
        .nth(2)
        .expect("tests lie in TARGET/PROFILE/deps");
    let program = directory.join("pheromone");
    let stamp = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(directory.join("pheromone-tests.run"))
        .expect("open the stamp of the test run");
    let mut stamp = Flock::lock(stamp, FlockArg::LockExclusive).expect("lock the stamp");
    let run = env::var("NEXTEST_RUN_ID").unwrap_or_default();
    let mut built_for = String::new();
    stamp
        .read_to_string(&mut built_for)
        .expect("read the stamp");
    if !run.is_empty() && built_for == run && program.is_file() {
        return program;
    }
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let target = directory.parent().expect("the target directory");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--package",
            "pheromone",
            "--profile",
            profile,
        ])
        .arg("--target-dir")
        .arg(target)
        .current_dir(repository())
        .status()
        .expect("start cargo");
    assert!(
        status.success(),
        "cargo could not build the pheromone binary"
    );
    stamp.set_len(0).expect("empty the stamp");
    stamp.rewind().expect("rewind the stamp");
    stamp.write_all(run.as_bytes()).expect("write the stamp");
    fs::canonicalize(program).expect("cargo has built target/PROFILE/pheromone")
}
