//! The node with real processes: this program is also its scheduler, zygote and probe, so it has a
//! `main` of its own. Tests run one after another; a name as argument picks those that contain it.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use pheromone_executor::{probe, zygote};
use pheromone_manifest::{App, BuildOptions, Built};
use pheromone_node::{
    FailureCause, Node, NodeConfig, NodeError, Outcome, OutputKind, RefusalReason, Reply, Request,
    To,
};

/// A watchdog for everything that must come.
const LONG: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next().unwrap_or_default();
    match first.to_str().unwrap_or_default() {
        "__scheduler" => {
            let argument = arguments.next().unwrap_or_default();
            return pheromone_scheduler::main(&argument.to_string_lossy());
        }
        "__zygote" => return zygote::main(),
        role if role == probe::PROBE_ARGUMENT => return probe::main(arguments),
        _ => {}
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--list") {
        // What a test runner asks for; none is ignored.
        for (name, _) in TESTS.iter().filter(|_| !has("--ignored")) {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let wanted = arguments.iter().find(|argument| !argument.starts_with('-'));
    let is_wanted = |name: &str| match wanted {
        Some(wanted) if has("--exact") => name == wanted,
        Some(wanted) => name.contains(wanted.as_str()),
        None => true,
    };
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in TESTS {
        if !is_wanted(name) {
            continue;
        }
        let since = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(test));
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {word} ({:?})", since.elapsed());
        failed += usize::from(outcome.is_err());
        passed += usize::from(outcome.is_ok());
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {passed} passed; {failed} failed");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        const TESTS: &[(&str, fn())] = &[$((stringify!($name), $name)),*];
    };
}

tests!(
    a_node_starts_and_stops_and_leaves_nothing,
    a_program_that_is_none_is_told_at_once,
    a_call_is_answered_and_its_session_ends,
    payloads_of_all_sizes_come_back_identical,
    headers_reach_the_function,
    many_calls_at_once_are_all_answered,
    refusals_name_their_reason,
    a_failure_is_told_with_its_last_output,
    a_dead_executor_is_replaced,
    raw_output_is_tagged_with_its_executor,
    a_session_is_cancelled,
    a_new_version_takes_new_sessions_while_the_old_one_finishes,
    a_removed_app_is_gone_with_its_memory,
    a_missing_symbol_is_found_before_anything_runs,
    a_dead_scheduler_ends_everything,
    a_scheduler_that_stands_still_is_reported_and_may_go_on,
    a_scheduler_that_stands_still_for_long_ends_everything,
    a_dead_zygote_is_replaced_and_its_executors_with_it,
    zygotes_that_die_again_and_again_end_everything,
);

/// An app in a directory of its own.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new(manifest: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(directory.path(), open).unwrap();
        std::fs::write(
            directory.path().join("small.c"),
            include_str!("functions/small.c"),
        )
        .unwrap();
        std::fs::write(directory.path().join("app.toml"), manifest).unwrap();
        Self { directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("app.toml")
    }

    fn build(&self) -> (App, Built) {
        let app = pheromone_manifest::read(&self.path()).unwrap_or_else(|error| panic!("{error}"));
        let built = pheromone_manifest::build(&app, &BuildOptions::default());
        (app, built.unwrap_or_else(|error| panic!("{error}")))
    }
}

/// The app of most tests.
fn small() -> Place {
    Place::new(
        r#"
[app]
name = "small"
entry = "echo"
source = ["small.c"]
memory = "64MiB"
executors = { min = 1, max = 2 }
isolation = "none"
[functions.echo]
[functions.whoami]
[functions.pass]
next = ["echo"]
[functions.header]
[functions.silent]
[functions.fails]
[functions.dies]
[functions.waits]
[functions.raw]
[buckets.box]
[[buckets.box.triggers]]
type = "immediate"
function = "echo"
"#,
    )
}

fn start() -> Node {
    Node::start(NodeConfig::default()).unwrap()
}

fn with_small(test: impl FnOnce(&Node)) {
    let place = small();
    let (app, built) = place.build();
    let node = start();
    node.deploy(&app, &built).unwrap();
    test(&node);
    node.stop().unwrap();
    nothing_is_left();
}

fn request(function: &str, body: &[u8]) -> Request {
    Request {
        app: "small".into(),
        to: To::Function(function.into()),
        body: body.to_vec(),
        headers: Vec::new(),
        session: None,
        wait: true,
        timeout: None,
    }
}

fn submit(node: &Node, request: Request) -> Receiver<Reply> {
    let (tell, hear) = unbounded();
    node.submit(request, Box::new(move |reply| drop(tell.send(reply))));
    hear
}

fn next(replies: &Receiver<Reply>) -> Reply {
    replies.recv_timeout(LONG).expect("no reply came")
}

fn accepted(replies: &Receiver<Reply>) -> u64 {
    match next(replies) {
        Reply::Accepted { session } => session,
        other => panic!("not accepted: {other:?}"),
    }
}

fn ended(replies: &Receiver<Reply>) -> Outcome {
    match next(replies) {
        Reply::Ended { outcome, .. } => outcome,
        other => panic!("not ended: {other:?}"),
    }
}

/// Calls and expects a response.
fn call(node: &Node, function: &str, body: &[u8]) -> Vec<u8> {
    let replies = submit(node, request(function, body));
    accepted(&replies);
    let body = match next(&replies) {
        Reply::Response {
            body, http_status, ..
        } => {
            assert_eq!(http_status, 200);
            body
        }
        other => panic!("no response: {other:?}"),
    };
    assert_eq!(ended(&replies), Outcome::Responded);
    assert!(
        replies.recv_timeout(LONG).is_err(),
        "a reply after the last"
    );
    body
}

/// Processes below this one that are not zombies, but for those of a test runner around it.
fn children() -> Vec<String> {
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let (_, tail) = stat.rsplit_once(')').unwrap();
        let mut fields = tail.split_ascii_whitespace();
        let (_state, parent) = (fields.next().unwrap(), fields.next().unwrap());
        if parent == own.to_string() {
            found.push(stat.clone());
        }
    }
    found
}

fn nothing_is_left() {
    assert_eq!(
        children(),
        Vec::<String>::new(),
        "processes, zombies included"
    );
    let memfds: Vec<_> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter(|target| {
            let target = target.to_string_lossy();
            target.contains("memfd:") || target.starts_with("/pheromone-")
        })
        .collect();
    assert_eq!(memfds, Vec::<PathBuf>::new());
    let left: Vec<_> = std::fs::read_dir(std::env::temp_dir())
        .unwrap()
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("pheromone-node-")
        })
        .filter(|entry| is_ours(&entry.path()))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Whether a directory's node is in this process: its lock is held by a descriptor of ours.
fn is_ours(directory: &Path) -> bool {
    let lock = directory.join("lock");
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .any(|target| target == lock)
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < LONG, "gave up waiting until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn pid_of(role: &str) -> i32 {
    find(role).expect("a child of that role")
}

fn find(role: &str) -> Option<i32> {
    children().into_iter().find_map(|stat| {
        let pid = stat.split(' ').next()?;
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let is_it = String::from_utf8_lossy(&line).contains(role);
        is_it.then(|| pid.parse().ok())?
    })
}

fn kill(pid: i32) {
    signal(pid, nix::sys::signal::Signal::SIGKILL);
}

fn signal(pid: i32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, signal).unwrap();
}

fn a_node_starts_and_stops_and_leaves_nothing() {
    for _ in 0..3 {
        let node = start();
        assert!(!node.plan().to_string().is_empty());
        assert!(node.apps().is_empty());
        node.stop().unwrap();
        nothing_is_left();
        drop(start());
        nothing_is_left();
    }
}

fn a_program_that_is_none_is_told_at_once() {
    let config = NodeConfig {
        program: PathBuf::from("/nonexistent/pheromone"),
        ..NodeConfig::default()
    };
    match Node::start(config).err() {
        Some(NodeError::Start { reason, .. }) => {
            assert!(reason.contains("/nonexistent"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    nothing_is_left();
    let config = NodeConfig {
        program: PathBuf::from("/bin/true"),
        ..NodeConfig::default()
    };
    assert!(matches!(Node::start(config), Err(NodeError::Start { .. })));
    nothing_is_left();
    let config = NodeConfig {
        schedulers: 17,
        ..NodeConfig::default()
    };
    assert!(matches!(
        Node::start(config),
        Err(NodeError::Schedulers { asked: 17 })
    ));
}

fn a_call_is_answered_and_its_session_ends() {
    with_small(|node| {
        assert_eq!(call(node, "echo", b"hello"), b"hello");
        assert_eq!(call(node, "pass", b"hello"), b"hello");
        let entry = Request {
            to: To::Entry,
            ..request("", b"by entry")
        };
        let replies = node.call(entry);
        assert!(matches!(&replies[1], Reply::Response { body, .. } if body == b"by entry"));
        let replies = submit(node, request("silent", b""));
        accepted(&replies);
        assert_eq!(ended(&replies), Outcome::Completed);
        let put = Request {
            to: To::Bucket {
                bucket: "box".into(),
                key: Some(b"k".to_vec()),
                group: Vec::new(),
            },
            wait: false,
            ..request("", b"put")
        };
        let replies = submit(node, put);
        accepted(&replies);
        assert!(matches!(next(&replies), Reply::Ended { .. }));
    });
}

fn payloads_of_all_sizes_come_back_identical() {
    with_small(|node| {
        for size in [0, 1, 63, 64, 65, 1023, 1024, 1025, 65_536, 1 << 20, 8 << 20] {
            let body: Vec<u8> = (0..size).map(|at: usize| (at * 31 % 251) as u8).collect();
            assert_eq!(call(node, "pass", &body), body, "{size} bytes");
        }
        until("memory is given back", || {
            let stats = node.stats("small").unwrap();
            stats.ingress_bytes == 0 && stats.objects_live == 0 && stats.sessions_open == 0
        });
    });
}

fn headers_reach_the_function() {
    with_small(|node| {
        let mut with = request("header", b"");
        with.headers = vec![
            ("Content-Type".into(), "text/plain".into()),
            ("pheromone-test".into(), "a value".into()),
        ];
        let replies = node.call(with);
        assert!(
            matches!(&replies[1], Reply::Response { body, .. } if body == b"a value"),
            "{replies:?}"
        );
        let without = node.call(request("header", b""));
        assert!(matches!(
            &without[1],
            Reply::Ended { outcome: Outcome::Failed(report), .. } if report.to_string().contains("no such header")
        ));
    });
}

fn many_calls_at_once_are_all_answered() {
    with_small(|node| {
        let (tell, hear) = unbounded();
        for number in 0..20_000_u32 {
            let tell = tell.clone();
            let reply = move |reply| match reply {
                Reply::Response { body, .. } => drop(tell.send((number, body))),
                Reply::Refused(reason) => panic!("{reason}"),
                _ => {}
            };
            node.submit(request("echo", &number.to_le_bytes()), Box::new(reply));
        }
        let mut seen = vec![false; 20_000];
        for _ in 0..20_000 {
            let (number, body) = hear.recv_timeout(LONG).unwrap();
            assert_eq!(body, number.to_le_bytes());
            assert!(!std::mem::replace(&mut seen[number as usize], true));
        }
        until("all sessions have ended", || {
            let stats = node.stats("small").unwrap();
            stats.requests_open == 0 && stats.sessions_open == 0 && stats.ingress_bytes == 0
        });
    });
}

fn refusals_name_their_reason() {
    with_small(|node| {
        let refusal = |request: Request| match next(&submit(node, request)) {
            Reply::Refused(reason) => reason,
            other => panic!("{other:?}"),
        };
        let to_bucket = |key: &[u8], group: &[u8]| Request {
            to: To::Bucket {
                bucket: "box".into(),
                key: Some(key.to_vec()),
                group: group.to_vec(),
            },
            ..request("", b"")
        };
        let mut stranger = request("echo", b"");
        stranger.app = "stranger".into();
        assert!(matches!(refusal(stranger), RefusalReason::NoApp { .. }));
        assert!(matches!(
            refusal(request("nobody", b"")),
            RefusalReason::NoFunction { .. }
        ));
        let too_big = vec![0; (64 << 20) + 1];
        assert!(matches!(
            refusal(request("echo", &too_big)),
            RefusalReason::TooBig { .. }
        ));
        for bad in [&b""[..], b"a\0b", b"~1.0", &[b'x'; 256]] {
            assert!(matches!(
                refusal(to_bucket(bad, b"")),
                RefusalReason::Malformed { .. }
            ));
        }
        assert!(matches!(
            refusal(to_bucket(b"k", &[b'x'; 256])),
            RefusalReason::Malformed { .. }
        ));
        let mut late = to_bucket(b"k", b"");
        late.session = Some(12345);
        assert_eq!(
            refusal(late),
            RefusalReason::SessionEnded { session: 12345 }
        );
        assert_eq!(node.stats("small").unwrap().ingress_bytes, 0);
    });
}

fn failed(replies: &[Reply]) -> pheromone_node::FailureReport {
    match replies.last() {
        Some(Reply::Ended {
            outcome: Outcome::Failed(report),
            ..
        }) => report.clone(),
        other => panic!("it did not fail: {other:?}"),
    }
}

fn a_failure_is_told_with_its_last_output() {
    with_small(|node| {
        let report = failed(&node.call(request("fails", b"")));
        assert_eq!(report.function.as_deref(), Some("fails"));
        assert_eq!(report.attempt, 1);
        assert_eq!(
            report.cause,
            FailureCause::Returned {
                status: 7,
                message: "not my day".into()
            }
        );
        assert_eq!(report.output, ["about to fail", "really"]);
        let report = failed(&node.call(request("dies", b"")));
        assert!(
            matches!(report.cause, FailureCause::Signaled { signal: 6, .. }),
            "{report}"
        );
        assert_eq!(report.output, ["last words"]);
        assert_eq!(report.function.as_deref(), Some("dies"));
    });
}

fn a_dead_executor_is_replaced() {
    with_small(|node| {
        let output = node.output();
        for _ in 0..3 {
            let before = call(node, "whoami", b"");
            let pid: i32 = String::from_utf8_lossy(&before).parse().unwrap();
            kill(pid);
            // A call that was on its way to the dying process fails with it; the next does not.
            until("another one answers", || {
                match &node.call(request("whoami", b""))[1] {
                    Reply::Response { body, .. } => *body != before,
                    _ => false,
                }
            });
        }
        let notice = output
            .try_iter()
            .find(|line| line.kind == OutputKind::Notice);
        assert!(notice.unwrap().text.contains("SIGKILL"));
        assert!(node.stats("small").unwrap().deaths_total >= 3);
    });
}

fn raw_output_is_tagged_with_its_executor() {
    with_small(|node| {
        let output = node.output();
        assert_eq!(call(node, "raw", b""), b"x");
        let line = output.recv_timeout(LONG).unwrap();
        assert_eq!(
            (line.kind, line.text.as_str()),
            (OutputKind::Raw, "straight out")
        );
        assert_eq!(line.slot, Some(0));
    });
}

fn a_session_is_cancelled() {
    with_small(|node| {
        let replies = submit(node, request("waits", b""));
        let session = accepted(&replies);
        node.cancel(session);
        assert_eq!(ended(&replies), Outcome::Cancelled);
        let mut timed = request("waits", b"");
        timed.timeout = Some(Duration::from_millis(20));
        let replies = submit(node, timed);
        accepted(&replies);
        assert_eq!(ended(&replies), Outcome::TimedOut);
    });
}

fn a_new_version_takes_new_sessions_while_the_old_one_finishes() {
    let place = small();
    let (app, built) = place.build();
    let node = start();
    node.deploy(&app, &built).unwrap();
    let waiting = submit(&node, request("waits", b""));
    let session = accepted(&waiting);
    node.deploy(&app, &built).unwrap();
    assert_eq!(call(&node, "echo", b"new"), b"new");
    let versions: Vec<(u32, bool)> = node
        .apps()
        .iter()
        .map(|app| (app.version, app.leaving))
        .collect();
    assert_eq!(versions, [(2, false), (1, true)]);
    node.cancel(session);
    assert_eq!(ended(&waiting), Outcome::Cancelled);
    until("the old version has gone", || node.apps().len() == 1);
    node.stop().unwrap();
    nothing_is_left();
}

fn a_removed_app_is_gone_with_its_memory() {
    with_small(|node| {
        let waiting = submit(node, request("waits", b""));
        accepted(&waiting);
        let since = Instant::now();
        node.remove("small", Duration::from_millis(50)).unwrap();
        assert!(since.elapsed() >= Duration::from_millis(50));
        assert_eq!(ended(&waiting), Outcome::Cancelled);
        assert!(matches!(
            node.remove("small", Duration::ZERO),
            Err(NodeError::NoApp { .. })
        ));
        assert!(node.apps().is_empty());
        let replies = submit(node, request("echo", b""));
        assert!(matches!(
            next(&replies),
            Reply::Refused(RefusalReason::NoApp { .. })
        ));
        let place = small();
        let (app, built) = place.build();
        node.deploy(&app, &built).unwrap();
        assert_eq!(call(node, "echo", b"again"), b"again");
        node.remove("small", Duration::ZERO).unwrap();
    });
}

fn a_missing_symbol_is_found_before_anything_runs() {
    let place = Place::new(
        "[app]\nname = \"small\"\nentry = \"absent\"\nsource = [\"small.c\"]\n[functions.absent]\n",
    );
    let (app, built) = place.build();
    let node = start();
    match node.deploy(&app, &built) {
        Err(error @ NodeError::Probe { .. }) => {
            assert!(error.to_string().contains("absent"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert!(node.apps().is_empty());
    node.stop().unwrap();
    nothing_is_left();
}

/// The node breaks while a call waits.
fn breaks(break_it: impl Fn(), how: &str, is_it: impl Fn(&NodeError) -> bool) {
    let place = small();
    let (app, built) = place.build();
    let node = start();
    node.deploy(&app, &built).unwrap();
    let waiting = submit(&node, request("waits", b""));
    accepted(&waiting);
    break_it();
    match ended(&waiting) {
        Outcome::Failed(report) => {
            assert!(report.to_string().contains(how), "{report}");
            assert!(matches!(report.cause, FailureCause::Node { .. }));
        }
        other => panic!("{other:?}"),
    }
    assert!(is_it(&node.check().unwrap_err()));
    assert!(is_it(&node.deploy(&app, &built).unwrap_err()));
    let replies = submit(&node, request("echo", b""));
    assert!(matches!(
        next(&replies),
        Reply::Refused(RefusalReason::Unusable { .. })
    ));
    assert!(is_it(&node.stop().unwrap_err()));
    nothing_is_left();
}

fn a_dead_scheduler_ends_everything() {
    breaks(
        || kill(pid_of("scheduler")),
        "SIGKILL",
        |error| matches!(error, NodeError::SchedulerDied { .. }),
    );
}

fn stop_scheduler() -> i32 {
    let pid = pid_of("scheduler");
    signal(pid, nix::sys::signal::Signal::SIGSTOP);
    pid
}

fn a_scheduler_that_stands_still_is_reported_and_may_go_on() {
    with_small(|node| {
        assert_eq!(node.stuck(), None);
        let pid = stop_scheduler();
        until("it is reported", || node.stuck().is_some());
        let stuck = node.stuck().unwrap_or_default();
        signal(pid, nix::sys::signal::Signal::SIGCONT);
        assert!(stuck.contains("it is stopped"), "{stuck}");
        until("it turns again", || node.stuck().is_none());
        assert_eq!(call(node, "echo", b"hello"), b"hello");
    });
}

fn a_scheduler_that_stands_still_for_long_ends_everything() {
    breaks(
        || {
            stop_scheduler();
        },
        "has not turned for 10 s: it is stopped",
        |error| matches!(error, NodeError::SchedulerDied { .. }),
    );
}

fn a_dead_zygote_is_replaced_and_its_executors_with_it() {
    with_small(|node| {
        let output = node.output();
        for _ in 0..2 {
            let before = call(node, "whoami", b"");
            let waiting = submit(node, request("waits", b""));
            accepted(&waiting);
            until("it runs", || node.stats("small").unwrap().running == 1);
            kill(pid_of("zygote"));
            // What ran counts as crashed.
            match ended(&waiting) {
                Outcome::Failed(report) => {
                    assert!(report.to_string().contains("zygote"), "{report}");
                    assert!(!matches!(report.cause, FailureCause::Node { .. }));
                }
                other => panic!("{other:?}"),
            }
            assert_ne!(call(node, "whoami", b""), before);
        }
        node.check().unwrap();
        let notice = output
            .try_iter()
            .find(|line| line.text.contains("the zygote died (signal 9 (SIGKILL))"));
        assert_eq!(notice.unwrap().kind, OutputKind::Notice);
        // What comes to be known while there is none is known to the next.
        let place = small();
        let (app, built) = place.build();
        kill(pid_of("zygote"));
        node.deploy(&app, &built).unwrap();
        assert_eq!(call(node, "echo", b"new"), b"new");
    });
}

fn zygotes_that_die_again_and_again_end_everything() {
    let kill_all = || {
        for _ in 0..6 {
            until("there is a zygote", || find("zygote").is_some());
            let pid = pid_of("zygote");
            kill(pid);
            until("it is gone", || find("zygote") != Some(pid));
        }
    };
    let place = small();
    let (app, built) = place.build();
    let node = start();
    node.deploy(&app, &built).unwrap();
    kill_all();
    until("the node gives up", || node.check().is_err());
    let error = node.check().unwrap_err();
    assert!(matches!(error, NodeError::ZygoteDied { .. }));
    assert!(
        error.to_string().contains("6 of them within a minute"),
        "{error}"
    );
    assert!(node.deploy(&app, &built).is_err());
    assert!(node.stop().is_err());
    nothing_is_left();
}
