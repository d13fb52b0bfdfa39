//! What functions leave behind under isolation `none` ends with what it belongs to: the node,
//! however that ends, its app, or the zygote. By a pid namespace or by control groups, where the
//! machine has them; the tests say what they leave out.
#![forbid(unsafe_code)]

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::signal::Signal;
use pheromone_tests::{App, Process, Server, descendants_of, until};
use serde_json::Value;

const FUNCTIONS: &str = include_str!("../functions/daemons.c");

/// A daemon is for a while below no node: other tests of this program must not look for what was
/// left behind meanwhile.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

fn app(name: &str) -> App {
    let manifest = format!(
        r#"
[app]
name = "{name}"
entry = "echo"
source = ["functions.c"]
memory = "4MiB"
executors = {{ min = 1, max = 1 }}
isolation = "none"

[functions.echo]
[functions.leaves_a_daemon]
"#
    );
    App::with_functions(&manifest, FUNCTIONS)
}

/// What `check --host` says is here: control groups that kill, and a pid namespace.
struct Here {
    groups: bool,
    namespace: bool,
}

fn here() -> Here {
    let run = App::new("").command(["check", "--host", "--json"]).finish();
    let findings: Value = serde_json::from_str(&run.exits(0).text()).expect("a list in JSON");
    let has = |what: &str| {
        let mut findings = findings.as_array().expect("a list").iter();
        let found = findings.find(|finding| finding["what"] == what);
        found.unwrap_or_else(|| panic!("nothing of {what}"))["offer"] != "no"
    };
    Here {
        groups: has("control groups"),
        namespace: has("pid namespace"),
    }
}

/// Has a function of the app leave a daemon behind, and finds it.
#[track_caller]
fn leave_daemon(server: &Server, app: &str) -> Process {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let mark = format!("daemon-{}-{number}", std::process::id());
    let path = format!("/v1/apps/{app}/functions/leaves_a_daemon");
    let answer = server.unix().post(&path, mark.as_str()).is(200);
    assert_eq!(answer.text(), "left");
    let own = std::process::id().cast_signed();
    let mut found = None;
    until("the daemon is there", || {
        let all = descendants_of(own);
        found = all.into_iter().find(|it| it.command.ends_with(&mark));
        found.is_some()
    });
    found.expect("found above")
}

#[track_caller]
fn echoes(server: &Server, app: &str) {
    let path = format!("/v1/apps/{app}/functions/echo");
    assert_eq!(server.unix().post(&path, "x").is(200).text(), "x");
}

/// The group of a process, and that of its node around it, where there are any.
fn groups_of(process: &Process, here: &Here) -> Vec<PathBuf> {
    if !here.groups {
        return Vec::new();
    }
    let own = process.control_group().expect("a group");
    let nodes = own.parent().expect("the node's").to_owned();
    for (group, kind) in [(&own, "app-"), (&nodes, "pheromone-")] {
        let name = group.file_name().expect("a name").to_string_lossy();
        assert!(name.starts_with(kind), "{name}");
    }
    vec![own, nodes]
}

fn are_gone(groups: &[PathBuf]) -> bool {
    groups.iter().all(|group| !group.exists())
}

fn nothing_here(here: &Here) -> bool {
    let nothing = !here.groups && !here.namespace;
    if nothing {
        println!("left out: neither a pid namespace nor control groups here");
    }
    nothing
}

#[test]
fn a_daemon_ends_with_a_node_that_stops() {
    let (_alone, here) = (alone(), here());
    if nothing_here(&here) {
        return;
    }
    let app = app("leaver");
    let server = Server::start(&[&app]);
    let daemon = leave_daemon(&server, "leaver");
    let groups = groups_of(&daemon, &here);
    server.stop().exits(0);
    assert!(!daemon.is_alive());
    assert!(are_gone(&groups), "{groups:?}");
}

#[test]
fn a_daemon_ends_at_once_with_a_node_that_is_killed_where_there_is_a_pid_namespace() {
    let (_alone, here) = (alone(), here());
    if !here.namespace {
        println!("left out: no pid namespace here");
        return;
    }
    let app = app("leaver");
    let server = Server::start(&[&app]);
    let daemon = leave_daemon(&server, "leaver");
    let groups = groups_of(&daemon, &here);
    server.running().signal(Signal::SIGKILL);
    let run = server.wait();
    assert_eq!(run.status.signal(), Some(9));
    assert!(!daemon.is_alive());
    // The empty groups are for the next node to find.
    let server = Server::start(&[&app]);
    assert!(are_gone(&groups), "{groups:?}");
    server.stop().exits(0);
}

#[test]
fn a_daemon_of_a_killed_node_is_found_by_the_next_through_its_control_group() {
    let (_alone, here) = (alone(), here());
    if !here.groups {
        println!("left out: no control groups here");
        return;
    }
    let app = app("leaver");
    let launcher = app.launcher(include_str!("../launchers/contained.c"));
    let killed = Server::start_by(&launcher, &[&app]);
    let daemon = leave_daemon(&killed, "leaver");
    let groups = groups_of(&daemon, &here);
    killed.running().signal(Signal::SIGKILL);
    until("its parts are gone", || {
        killed.running().processes().is_empty()
    });
    // So does any other node that happens to start here.
    let next = Server::start(&[&app]);
    until("the next node has ended it", || !daemon.is_alive());
    assert!(are_gone(&groups), "{groups:?}");
    drop(killed.wait());
    next.stop().exits(0);
}

#[test]
fn a_daemon_ends_with_its_app_and_those_of_other_apps_stay() {
    let (_alone, here) = (alone(), here());
    if !here.groups {
        println!("left out: no control groups here");
        return;
    }
    let (going, staying) = (app("going"), app("staying"));
    let server = Server::start(&[&going, &staying]);
    let gone = leave_daemon(&server, "going");
    let stayed = leave_daemon(&server, "staying");
    let groups = groups_of(&gone, &here);
    server.command(&["remove", "going"]).finish().exits(0);
    until("it is gone with its app", || !gone.is_alive());
    until("the group is gone", || !groups[0].exists());
    assert!(stayed.is_alive());
    // The version before ends in the same way.
    server.deploy(&staying).exits(0);
    until("it is gone with its version", || !stayed.is_alive());
    echoes(&server, "staying");
    server.stop().exits(0);
}

#[test]
fn a_daemon_ends_with_the_zygote_and_the_app_goes_on() {
    let (_alone, here) = (alone(), here());
    if nothing_here(&here) {
        return;
    }
    let app = app("leaver");
    let server = Server::start(&[&app]);
    let daemon = leave_daemon(&server, "leaver");
    let groups = groups_of(&daemon, &here);
    let zygote = server.running().zygote();
    zygote.signal(Signal::SIGKILL);
    until("it is gone with the zygote", || !daemon.is_alive());
    until("the app has an executor of another zygote", || {
        !zygote.is_alive()
            && server.running().executors().len() == 1
            && server.counter("leaver", "executors") == 1
    });
    echoes(&server, "leaver");
    let again = leave_daemon(&server, "leaver");
    until("what is dead has no group", || {
        groups.first().is_none_or(|group| !group.exists())
    });
    let groups = groups_of(&again, &here);
    server.stop().exits(0);
    assert!(are_gone(&groups), "{groups:?}");
}

#[test]
fn two_nodes_leave_each_others_processes_alone() {
    let (_alone, here) = (alone(), here());
    if nothing_here(&here) {
        return;
    }
    let (app, other) = (app("leaver"), app("leaver"));
    let staying = Server::start(&[&app]);
    let stayed = leave_daemon(&staying, "leaver");
    let groups = groups_of(&stayed, &here);
    let going = Server::start(&[&other]);
    let gone = leave_daemon(&going, "leaver");
    for group in groups_of(&gone, &here) {
        assert!(!groups.contains(&group), "{}", group.display());
    }
    until("both are there", || stayed.is_alive() && gone.is_alive());
    going.stop().exits(0);
    assert!(!gone.is_alive());
    assert!(stayed.is_alive());
    assert!(groups.iter().all(|group| group.exists()));
    echoes(&staying, "leaver");
    staying.stop().exits(0);
    assert!(are_gone(&groups), "{groups:?}");
}
