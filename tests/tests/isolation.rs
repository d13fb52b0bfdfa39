//! What functions that try to get out reach at each level of isolation. Each attempt is a row of
//! the table in docs/security.md; a neighbour's chains run beside all of them and lose nothing.
#![forbid(unsafe_code)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use pheromone_tests::{App, Client, Process, Server, until};
use serde_json::Value;

const ISOLATION: &str = include_str!("../functions/isolation.c");
const HOSTILE: &str = include_str!("../functions/hostile.c");
const CHAINS: &str = include_str!("../functions/chains.c");

/// How many threads the bomb starts where nothing stops it.
const THREADS_MAX: u64 = 6000;
/// `private_memory` of the hostile app.
const MEMORY_MIB: u64 = 64;

fn hostile_app(level: &str) -> App {
    let functions: String = [
        "kills",
        "reads",
        "moves",
        "requeues",
        "forks",
        "leaves_its_group",
        "bombs",
        "fills",
        "hides",
        "breaks_out",
        "connects",
        "opens",
        "lives",
        "initializes",
    ]
    .iter()
    .map(|name| {
        format!("[functions.{name}]\nprivate_memory = \"{MEMORY_MIB}MiB\"\nwritable = [\"kept\"]\n")
    })
    .collect();
    let app = App::with_functions(
        &format!(
            r#"
[app]
name = "hostile"
source = ["functions.c"]
entry = "lives"
memory = "64MiB"
executors = {{ min = 1, max = 2 }}
isolation = "{level}"

[app.limits]
dead_letters = "0B"

{functions}
"#
        ),
        ISOLATION,
    );
    fs::create_dir(app.path("kept")).expect("a directory of the app");
    fs::set_permissions(app.path("kept"), Permissions::from_mode(0o777)).expect("open it");
    app
}

fn chain_app(level: &str) -> App {
    App::with_functions(
        &format!(
            r#"
[app]
name = "chain"
entry = "hop"
source = ["functions.c"]
memory = "16MiB"
executors = {{ min = 1, max = 2 }}
isolation = "{level}"

[functions.hop]
next = ["hop"]
"#
        ),
        CHAINS,
    )
}

/// What `check --host` says of something, and whether it is there.
fn here(what: &str) -> bool {
    let run = App::new("")
        .command(["check", "--host", "--json"])
        .finish()
        .exits(0);
    let findings: Value = serde_json::from_str(&run.text()).expect("a list in JSON");
    let findings = findings.as_array().expect("a list");
    let found = findings.iter().find(|finding| finding["what"] == what);
    found.unwrap_or_else(|| panic!("nothing of {what}"))["offer"] == "yes"
}

/// The levels that this machine, and this test's user, can have beside `none`.
fn levels() -> Vec<&'static str> {
    assert!(
        here("seccomp"),
        "without seccomp there is nothing to be tested"
    );
    if here("isolation") {
        vec!["standard", "strict"]
    } else {
        vec!["standard"]
    }
}

/// A node with a hostile app at this level, and a neighbour.
struct Cage {
    server: Server,
    neighbour: App,
    _hostile: App,
}

impl Cage {
    fn of(level: &str) -> Self {
        let (hostile, neighbour) = (hostile_app(level), chain_app(level));
        let server = Server::start(&[&hostile, &neighbour]);
        Self {
            server,
            neighbour,
            _hostile: hostile,
        }
    }

    /// Calls a function that tries to get out: the ways that were open to it.
    #[track_caller]
    fn attempt(&self, function: &str, input: &str) -> String {
        let path = format!("/v1/apps/hostile/functions/{function}");
        self.server
            .unix()
            .post(&path, input)
            .is(200)
            .text()
            .trim()
            .to_owned()
    }

    /// What another process of the node's would have to be called by, in any pid namespace.
    fn pids(&self) -> String {
        let running = self.server.running();
        let executors = running.executors();
        let neighbours = executors.iter().filter(|it| it.command.contains("chain/"));
        let mut all = vec![running.node(), running.zygote(), running.scheduler()];
        all.extend(neighbours.cloned());
        assert!(all.len() > 3, "there is a neighbour: {executors:?}");
        let ids = all.iter().flat_map(Process::ids);
        let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
        ids.join(" ")
    }

    /// The control groups of node and executors, and those that they are in, a line each.
    fn control_groups(&self) -> String {
        let running = self.server.running();
        let mut all = running.executors();
        all.push(running.node());
        let groups = all.iter().filter_map(Process::control_group);
        let mut directories: Vec<String> = groups
            .flat_map(|group| {
                group
                    .ancestors()
                    .take(3)
                    .map(Path::to_owned)
                    .collect::<Vec<_>>()
            })
            .filter(|directory| directory.join("cgroup.procs").exists())
            .map(|directory| directory.display().to_string())
            .collect();
        directories.sort();
        directories.dedup();
        directories.join("\n")
    }

    /// Chains run in the neighbour while something is done, and all of them arrive.
    fn beside_chains(&self, what: impl FnOnce()) {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let chains = scope.spawn(|| {
                let mut client: Client = self.server.unix();
                let mut chains = 0;
                while !done.load(Ordering::Relaxed) || chains < 3 {
                    let answer = client.post("/v1/apps/chain/functions/hop", "200").is(200);
                    assert_eq!(answer.text(), "arrived");
                    chains += 1;
                }
            });
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(what));
            done.store(true, Ordering::Relaxed);
            chains.join().expect("every chain has arrived");
            if let Err(panic) = ended {
                std::panic::resume_unwind(panic);
            }
        });
        for counter in ["error_events_total", "deaths_total"] {
            assert_eq!(self.server.counter("chain", counter), 0, "{counter}");
        }
        until("the neighbour holds nothing", || {
            self.server.counter("chain", "used_bytes") == 0
        });
    }

    fn stop(self) {
        self.server.stop().exits(0);
    }
}

/// The attempt is made at every level of this machine's beside `none`, and no way is open.
#[track_caller]
fn is_shut(function: &str, input: impl Fn(&Cage) -> String) {
    for level in levels() {
        let cage = Cage::of(level);
        cage.beside_chains(|| {
            for _ in 0..3 {
                assert_eq!(
                    cage.attempt(function, &input(&cage)),
                    "",
                    "{function}, {level}"
                );
            }
        });
        cage.stop();
    }
}

#[test]
fn nobody_else_can_be_killed() {
    is_shut("kills", Cage::pids);
}

#[test]
fn other_processes_memory_and_descriptors_are_out_of_reach() {
    is_shut("reads", Cage::pids);
}

#[test]
fn an_executor_stays_on_its_core() {
    is_shut("moves", |_| "0".to_owned());
}

#[test]
fn sleepers_on_shared_words_are_not_taken_elsewhere() {
    is_shut("requeues", |_| String::new());
}

#[test]
fn there_are_no_new_processes() {
    is_shut("forks", |_| String::new());
}

#[test]
fn nobody_leaves_a_control_group_or_changes_its_limits() {
    is_shut("leaves_its_group", Cage::control_groups);
    if here("another uid") {
        let cage = Cage::of("none");
        let groups = cage.control_groups();
        println!("{groups}");
        assert_eq!(cage.attempt("leaves_its_group", &groups), "");
        cage.stop();
    } else {
        println!("left out under `none`: functions have the node's user, and its rights");
    }
}

#[test]
fn no_memory_escapes_the_limit() {
    is_shut("hides", |_| String::new());
}

#[test]
fn the_parent_death_signal_and_the_rest_of_the_cage_stay() {
    is_shut("breaks_out", |_| String::new());
}

#[test]
fn neither_the_node_nor_anybody_else_can_be_connected_to() {
    is_shut("connects", |cage| {
        let port = cage.server.tcp_address().expect("an address").port();
        format!("{port} {}", cage.server.socket().display())
    });
}

/// A port that the manifest names can be connected to, and nothing else; the node's own never.
#[test]
fn functions_connect_to_the_ports_of_their_manifest_and_to_no_other() {
    if !here("Landlock") {
        println!("no Landlock here: an app that names ports is refused");
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let app = |ports: &str| {
        let manifest = format!(
            r#"
[app]
name = "caller"
source = ["functions.c"]
entry = "connects"
isolation = "standard"
executors = {{ min = 1, max = 2 }}

[functions.connects]
connect = [{ports}]
"#
        );
        App::with_functions(&manifest, ISOLATION)
    };
    let caller = app(&port.to_string());
    let server = Server::start(&[&caller]);
    let own = server.tcp_address().expect("an address").port();
    let reach = |port| {
        let input = format!("{port} {}", server.socket().display());
        let answer = server.unix().post("/v1/apps/caller", input).is(200);
        answer.text().trim().to_owned()
    };
    assert_eq!(reach(port), "tcp");
    assert_eq!(reach(own), "");
    let greedy = app(&format!("{port}, {own}"));
    server
        .deploy(&greedy)
        .exits(1)
        .complains(&["caller", &own.to_string(), "listens"]);
    server.stop().exits(0);
}

#[test]
fn constructors_and_initializers_run_inside() {
    is_shut("initializes", |_| String::new());
}

#[test]
fn files_are_those_of_the_manifest() {
    if !here("Landlock") {
        println!("no Landlock here: files are kept by their permissions alone");
        return;
    }
    is_shut("opens", |cage| {
        cage.neighbour.path("functions.c").display().to_string()
    });
}

#[test]
fn bombs_of_threads_end_at_a_limit() {
    for level in levels() {
        let cage = Cage::of(level);
        cage.beside_chains(|| {
            let threads: u64 = cage.attempt("bombs", "").parse().expect("a number");
            assert!(
                (16..THREADS_MAX).contains(&threads),
                "{threads} threads, {level}"
            );
        });
        cage.stop();
    }
}

#[test]
fn private_memory_ends_at_its_limit() {
    for level in levels().into_iter().chain(["none"]) {
        let cage = Cage::of(level);
        cage.beside_chains(|| {
            let mib: u64 = cage.attempt("fills", "").parse().expect("a number");
            assert!((8..=MEMORY_MIB).contains(&mib), "{mib} MiB, {level}");
        });
        cage.stop();
    }
}

/// What is shut at the other levels is open without them: the attempts find it.
#[test]
fn without_isolation_the_same_attempts_find_ways() {
    let cage = Cage::of("none");
    for (function, ways) in [
        ("forks", vec!["fork", "clone", "spawn", "system", "exec"]),
        ("hides", vec!["memfd", "shared"]),
        ("breaks_out", vec!["pdeathsig", "personality"]),
        ("connects", vec!["tcp", "unix", "datagrams"]),
        (
            "opens",
            vec!["foreign", "passwd", "root", "write", "temporary"],
        ),
        ("requeues", vec!["requeue", "cmp_requeue"]),
        ("initializes", vec!["constructor"]),
    ] {
        let port = cage.server.tcp_address().expect("an address").port();
        let foreign = cage.neighbour.path("functions.c").display().to_string();
        let input = match function {
            "connects" => format!("{port} {}", cage.server.socket().display()),
            _ => foreign,
        };
        let open = cage.attempt(function, &input);
        let open: Vec<&str> = open.split(' ').collect();
        for way in ways {
            assert!(
                open.contains(&way),
                "{function}: {way} is not among {open:?}"
            );
        }
    }
    cage.stop();
}

#[test]
fn honest_functions_live_as_before() {
    for level in levels() {
        let cage = Cage::of(level);
        assert_eq!(cage.attempt("lives", ""), "well", "{level}");
        cage.stop();
    }
}

/// The attack itself is that of tests/hostile.rs, which makes it under `none`.
#[test]
fn no_way_leads_to_writing_a_neighbours_region() {
    for level in levels() {
        let app = App::with_functions(
            &format!(
                r#"
[app]
name = "neighbours"
entry = "owns"
source = ["functions.c"]
memory = "64MiB"
executors = {{ min = 2, max = 3 }}
isolation = "{level}"

[functions.owns]
[functions.attacks]
writable = ["."]
[functions.verifies]

[buckets.target]
[[buckets.target.triggers]]
type = "immediate"
function = "attacks"

[buckets.reports]
[[buckets.reports.triggers]]
type = "by_set"
function = "verifies"
keys = ["owner", "target"]
"#
            ),
            HOSTILE,
        );
        let run = app.run_on("x").args(["--timeout", "60s"]).finish();
        run.exits(0).prints("intact");
    }
}

#[test]
fn a_level_that_the_machine_lacks_is_refused_with_what_is_missing() {
    let app = chain_app("strict");
    let run = app.run_on("3").finish();
    if here("isolation") {
        run.exits(0).prints("arrived");
    } else {
        let run = run.exits(1);
        let missing = if here("another uid") {
            "Landlock"
        } else {
            "a user of its own"
        };
        run.complains(&["isolation `strict`", missing, "check --host"]);
    }
}

#[test]
fn without_landlock_standard_goes_on_and_strict_is_refused_and_check_says_so() {
    if !here("seccomp") {
        println!("left out: without_landlock.c needs seccomp filters");
        return;
    }
    let standard = chain_app("standard");
    let launcher = standard.launcher(include_str!("../launchers/without_landlock.c"));

    let run = standard.run_on("3").launched_by(&launcher).finish();
    run.exits(0).prints("arrived");
    let host = standard.command(["check", "--host"]).launched_by(&launcher);
    let host = host.finish().exits(0).text();
    assert!(
        host.contains("not in this kernel, or switched off"),
        "{host}"
    );

    let strict = chain_app("strict");
    let lacks = ["isolation `strict`", "Landlock"];
    let run = strict.run_on("3").launched_by(&launcher).finish();
    run.exits(1).complains(&lacks);
    let check = strict.command(["check", "app.toml"]).launched_by(&launcher);
    check.finish().exits(0).complains(&lacks);
}

#[test]
fn files_that_are_not_there_are_named() {
    let app = App::with_functions(
        r#"
[app]
name = "files"
entry = "hop"
source = ["functions.c"]

[functions.hop]
next = ["hop"]
files = ["no/such/file"]
"#,
        CHAINS,
    );
    app.run_on("3")
        .finish()
        .exits(1)
        .complains(&["no/such/file", "`files`"]);
}

#[test]
fn what_is_switched_on_is_said_at_the_start() {
    let cage = Cage::of("standard");
    let said = cage.server.running().stdout_so_far();
    assert!(
        said.contains("app `hostile` is deployed, isolation standard: "),
        "{said}"
    );
    assert!(said.contains("filtered system calls"), "{said}");
    cage.stop();
}
