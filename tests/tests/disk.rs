//! Disks that fail under a node: full, read-only, with an error at any one operation. Whoever waits
//! for the disk is told, what was acknowledged is there after the next start, and what needs no
//! disk goes on.
//!
//! The errors are made in two ways: by a library that is preloaded into the node and fails what it
//! does to its directory (`preload/disk.c`), since no permission and no mount binds everybody who
//! runs these tests; and by the kernel, with a limit on how long the node's files may be.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use pheromone_tests::{App, Server};

const MANIFEST: &str = r#"
[app]
name = "ledger"
entry = "keeps"
source = ["functions.c"]
executors = { min = 2, max = 2 }
isolation = "none"

[functions.keeps]
[functions.loads]
[functions.passes]
[functions.answers]
[functions.logs]

[buckets.kept]

[buckets.passing]
triggers = [{ type = "immediate", function = "answers" }]

[buckets.log]
durable = true
triggers = [{ type = "immediate", function = "answers" }]
"#;

const FUNCTIONS: &str = include_str!("../functions/disk.c");
const PRELOADED: &str = include_str!("../preload/disk.c");

/// Operations of one life after which no more are failed: it has fewer.
const OPERATIONS_MAX: u64 = 200;

fn ledger() -> App {
    App::with_functions(MANIFEST, FUNCTIONS)
}

/// The disk under a node, which fails as it is told.
struct Disk {
    directory: PathBuf,
    library: PathBuf,
    control: File,
    control_path: PathBuf,
}

/// Words of the control file, by number.
const CALLS: u64 = 0;
const FROM: u64 = 1;
const UNTIL: u64 = 2;
const ERROR: u64 = 3;

impl Disk {
    /// One for this app's data.
    fn under(app: &App) -> Self {
        let (source, library) = (app.path("disk.c"), app.path("disk.so"));
        fs::write(&source, PRELOADED).expect("write the library's source");
        let compiled = Command::new("cc")
            .args(["-std=gnu11", "-O1", "-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .status();
        assert!(compiled.expect("start cc").success());
        let control_path = app.path("disk.control");
        fs::write(&control_path, [0; 32]).expect("write the control file");
        let control = File::options().read(true).write(true).open(&control_path);
        let directory = fs::canonicalize(app.path("")).expect("the app's directory");
        Self {
            directory: directory.join("data"),
            library,
            control: control.expect("open the control file"),
            control_path,
        }
    }

    /// What a command needs in its environment to have this disk.
    fn environment(&self) -> [(&str, &Path); 3] {
        [
            ("LD_PRELOAD", &self.library),
            ("PHR_DISK_DIRECTORY", &self.directory),
            ("PHR_DISK_CONTROL", &self.control_path),
        ]
    }

    fn set(&self, word: u64, value: u64) {
        let written = self.control.write_all_at(&value.to_ne_bytes(), word * 8);
        written.expect("write the control file");
    }

    /// Operations counted since [`Disk::fail`].
    fn calls(&self) -> u64 {
        let mut word = [0; 8];
        let read = self.control.read_exact_at(&mut word, CALLS * 8);
        read.expect("read the control file");
        u64::from_ne_bytes(word)
    }

    /// So many operations fail, after so many that do not.
    fn fail(&self, after: u64, count: u64, error: Errno) {
        self.heal();
        self.set(CALLS, 0);
        self.set(ERROR, error as u64);
        self.set(UNTIL, after.saturating_add(count));
        self.set(FROM, after);
    }

    fn heal(&self) {
        self.set(UNTIL, 0);
        self.set(FROM, u64::MAX);
    }

    fn serve(&self, app: &App) -> Server {
        let data = self.directory.to_str().expect("a plain name");
        Server::start_in(&[app], &["--data", data], &self.environment())
    }
}

/// What a function answers to this text.
#[track_caller]
fn call(server: &Server, function: &str, text: &str) -> String {
    let path = format!("/v1/apps/ledger/functions/{function}");
    server.tcp().post(&path, text).is(200).text()
}

/// A function has tried to keep something: whether it is on disk, or it has been told that it is
/// not.
#[track_caller]
fn kept(answer: &str) -> bool {
    let is_refused = answer.starts_with("PHR_EIO ") && answer.contains("has not been sent");
    assert!(answer == "kept" || is_refused, "{answer}");
    !is_refused
}

/// What the system says of an error.
fn sentence(error: Errno) -> String {
    let text = std::io::Error::from(error).to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// The node refuses what must be on disk, with a sentence, and does everything else.
#[track_caller]
fn serves_without_disk(server: &Server, error: Errno) {
    assert!(!kept(&call(server, "keeps", "refused x")));
    assert_eq!(call(server, "loads", "refused"), "none");
    assert_eq!(call(server, "passes", "through memory"), "through memory");
    let put = server.tcp().ask(
        "PUT",
        "/v1/apps/ledger/buckets/log/objects/put",
        &[],
        b"from outside".to_vec(),
    );
    assert_eq!(put.status, 503, "{}", put.text());
    assert!(
        put.text().contains("could not be written to disk"),
        "{}",
        put.text()
    );
    let failed = server
        .tcp()
        .post("/v1/apps/ledger/functions/logs", "a line");
    assert_eq!(failed.status, 502, "{}", failed.text());
    assert!(failed.text().contains("log"), "{}", failed.text());
    assert_eq!(server.tcp().get("/readyz").status, 200);
    let log = server.running().stderr_so_far();
    assert!(
        log.contains(&sentence(error)),
        "the log does not say why:\n{log}"
    );
}

/// All of these are found in a new node, whose disk is well.
#[track_caller]
fn finds_all(app: &App, data: &Path, acknowledged: &[(String, String)]) {
    let data = data.to_str().expect("a plain name");
    let server = Server::start_with(&[app], &["--data", data]);
    for (key, value) in acknowledged {
        assert_eq!(call(&server, "loads", key), *value, "{key}");
    }
    assert_eq!(call(&server, "loads", "refused"), "none");
    assert_eq!(call(&server, "keeps", "last one"), "kept");
    server.stop();
}

/// From a first object on disk through a time in which nothing can be written to one after it.
fn fails_for_a_while(error: Errno) {
    let app = ledger();
    let disk = Disk::under(&app);
    disk.heal();
    let server = disk.serve(&app);
    assert_eq!(call(&server, "keeps", "before one"), "kept");
    disk.fail(0, u64::MAX, error);
    serves_without_disk(&server, error);
    assert_eq!(call(&server, "loads", "before"), "one");
    serves_without_disk(&server, error);
    disk.heal();
    assert_eq!(call(&server, "keeps", "after two"), "kept");
    assert_eq!(call(&server, "logs", "on disk again"), "on disk again");
    server.running().signal(Signal::SIGKILL);
    drop(server);
    let acknowledged = [("before", "one"), ("after", "two")];
    let acknowledged = acknowledged.map(|(key, value)| (key.to_owned(), value.to_owned()));
    finds_all(&app, &disk.directory, &acknowledged);
}

#[test]
fn a_disk_that_is_full_is_told_and_once_it_has_room_all_goes_on() {
    fails_for_a_while(Errno::ENOSPC);
}

#[test]
fn a_directory_that_becomes_read_only_is_told_and_once_it_is_not_all_goes_on() {
    fails_for_a_while(Errno::EROFS);
}

#[test]
fn an_error_at_any_operation_of_a_life_is_told_and_loses_nothing_acknowledged() {
    let app = ledger();
    let disk = Disk::under(&app);
    let mut acknowledged = Vec::new();
    let mut started = 0;
    for number in 0..OPERATIONS_MAX {
        disk.fail(number, 1, Errno::EIO);
        let key = format!("k{number}");
        let mut run = app.run_on(format!("{key} {number}"));
        run = run.arg("--data").arg(&disk.directory);
        for (name, value) in disk.environment() {
            run = run.env(name, value);
        }
        let ended = run.finish();
        if ended.status.success() {
            started += 1;
            if kept(&ended.text()) {
                acknowledged.push((key, number.to_string()));
            } else {
                ended.complains(&[&sentence(Errno::EIO)]);
            }
        } else {
            ended.exits(1).complains(&[&sentence(Errno::EIO)]);
        }
        if disk.calls() <= number {
            finds_all(&app, &disk.directory, &acknowledged);
            assert!(
                number > 5 && acknowledged.len() < started,
                "{number} operations"
            );
            return;
        }
    }
    panic!("a life has more than {OPERATIONS_MAX} operations");
}

#[test]
fn an_error_at_any_operation_of_a_node_that_goes_on_is_told_and_loses_nothing_acknowledged() {
    /// More than it takes to fail, to mend what has failed, and to begin a new segment.
    const OPERATIONS: u64 = 16;
    let app = ledger();
    let disk = Disk::under(&app);
    disk.heal();
    let server = disk.serve(&app);
    let mut acknowledged = Vec::new();
    let mut refused = 0;
    for (number, count) in (0..OPERATIONS).flat_map(|number| [(number, 1), (number, 3)]) {
        disk.fail(number, count, Errno::EIO);
        for attempt in 0..8 {
            let key = format!("k{number}-{count}-{attempt}");
            if kept(&call(&server, "keeps", &format!("{key} {number}"))) {
                acknowledged.push((key, number.to_string()));
            } else {
                refused += 1;
            }
        }
        assert_eq!(call(&server, "passes", "through memory"), "through memory");
        disk.heal();
        assert_eq!(call(&server, "keeps", "healed once"), "kept");
    }
    assert!(refused >= OPERATIONS, "{refused} refused");
    server.running().signal(Signal::SIGKILL);
    drop(server);
    finds_all(&app, &disk.directory, &acknowledged);
}

#[test]
fn a_node_whose_files_may_grow_no_longer_lives_and_says_so() {
    let app = ledger();
    let data = app.path("data");
    let server = Server::start_with(&[&app], &["--data", data.to_str().expect("a plain name")]);
    assert_eq!(call(&server, "keeps", "before one"), "kept");
    limit_files(&server, "2048");
    let mut acknowledged = vec![("before".to_owned(), "one".to_owned())];
    // Until there is no room any more.
    let room = (0..100).take_while(|number| {
        let (key, value) = (format!("k{number}"), "x".repeat(200));
        let is_kept = kept(&call(&server, "keeps", &format!("{key} {value}")));
        if is_kept {
            acknowledged.push((key, value));
        }
        is_kept
    });
    assert!(room.count() < 100, "the limit holds");
    assert_eq!(call(&server, "passes", "through memory"), "through memory");
    limit_files(&server, "unlimited");
    assert_eq!(call(&server, "keeps", "after two"), "kept");
    acknowledged.push(("after".to_owned(), "two".to_owned()));
    server.running().signal(Signal::SIGKILL);
    drop(server);
    finds_all(&app, &data, &acknowledged);
}

/// Sets how long files may become that the node writes (util-linux).
fn limit_files(server: &Server, bytes: &str) {
    let pid = server.running().pid().to_string();
    let soft = format!("--fsize={bytes}:");
    let set = Command::new("prlimit")
        .args(["--pid", &pid, &soft])
        .status();
    assert!(set.expect("start prlimit").success());
}

#[test]
fn a_directory_that_is_read_only_from_the_first_is_refused() {
    let app = ledger();
    let disk = Disk::under(&app);
    disk.fail(0, u64::MAX, Errno::EROFS);
    let mut run = app.run_on("a one").arg("--data").arg(&disk.directory);
    for (name, value) in disk.environment() {
        run = run.env(name, value);
    }
    let data = disk.directory.to_str().expect("a plain name");
    let ended = run.finish().exits(1);
    ended.complains(&[data, &sentence(Errno::EROFS)]);
    if nix::unistd::geteuid().is_root() {
        println!("permissions do not bind root: a directory of mode 0500 is not tried");
        return;
    }
    fs::create_dir_all(&disk.directory).expect("make the directory");
    fs::set_permissions(&disk.directory, fs::Permissions::from_mode(0o500)).expect("close it");
    let run = app.run_on("a one").arg("--data").arg(&disk.directory);
    run.finish()
        .exits(1)
        .complains(&[data, &sentence(Errno::EACCES)]);
}
