//! What an executor process is: its rights, descriptors, name, and how long it lives.

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use pheromone_executor::protocol::{FromZygote, ToZygote};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use crate::Test;
use crate::harness::{AppBuilder, folder, library, single, start_zygote};

pub const TESTS: &[Test] = &[
    (
        "a_function_has_no_descriptor_but_its_own_streams",
        descriptors,
    ),
    ("an_executor_is_another_user_in_the_apps_directory", who),
    ("processes_have_names", names),
    ("an_executor_is_pinned", pinned),
    ("executors_end_with_their_zygote", zygote_dies),
    ("zygote_and_executors_end_with_their_node", node_dies),
    ("the_zygote_ends_when_its_socket_closes", socket_closes),
    ("what_cannot_be_set_up_says_why", cannot_be_set_up),
    ("an_idle_executor_sleeps", idle),
    ("what_a_terminal_says_is_for_the_node", terminal),
];

/// Argument of a process that is a node with one executor, until it is killed.
pub const NODE_ARGUMENT: &str = "__node";

fn descriptors() {
    let (mut world, mut executor) = single(&library("calls.c"), &["descriptors"]);
    let input = world.request(b"x");
    let done = executor.run(0, &[input]).ok();
    let text = done.published()[0].text();
    let mut open: Vec<u32> = text
        .split_whitespace()
        .map(|number| number.parse().expect("a number"))
        .collect();
    open.sort_unstable();
    assert_eq!(open, [0, 1, 2, pheromone_executor::OUTPUT_FD as u32]);
}

fn who() {
    let mut app = AppBuilder::new(&library("calls.c"), &["who"]);
    app.program.directory = folder().to_string_lossy().into_owned();
    let user = app.program.uid;
    let mut world = app.start();
    let mut executor = world.executor(0);
    let done = executor.run(0, &[]).ok();
    let text = done.published()[0].text();
    let fields: Vec<&str> = text.split(' ').collect();
    if let Some(user) = user {
        assert_eq!(
            fields[..3],
            [user.to_string(), user.to_string(), "0".to_owned()]
        );
    }
    let folder = folder().canonicalize().expect("it is there");
    assert_eq!(fields[3], folder.to_string_lossy());
}

fn names() {
    let (world, executor) = single(&library("calls.c"), &["copy"]);
    let command_line = |pid: u32| {
        let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).expect("it lives");
        String::from_utf8_lossy(&bytes)
            .trim_end_matches('\0')
            .to_owned()
    };
    assert_eq!(command_line(executor.pid as u32), "pheromone: test/0");
    assert_eq!(command_line(world.zygote.id()), "pheromone: zygote");
}

fn pinned() {
    let mut world = AppBuilder::new(&library("calls.c"), &["copy"]).start();
    let set = rustix::thread::sched_getaffinity(None).expect("it has one");
    let cpu = (0..1024)
        .rev()
        .find(|cpu| set.is_set(*cpu))
        .expect("some CPU");
    world.cpu = Some(cpu as u32);
    let executor = world.executor(0);
    let pid = Pid::from_raw(executor.pid);
    let its = rustix::thread::sched_getaffinity(pid).expect("it lives");
    assert_eq!((its.count(), its.is_set(cpu)), (1, true));
}

fn zygote_dies() {
    let (mut world, executor) = single(&library("calls.c"), &["copy"]);
    world.zygote.kill().expect("it lives");
    executor.wait_dead();
}

fn dead(pidfd: &OwnedFd) -> bool {
    let mut watched = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    let timeout = Timespec::try_from(Duration::from_secs(20)).expect("it fits");
    poll(&mut watched, Some(&timeout)) == Ok(1)
}

fn node_dies() {
    let mut node = Command::new(std::env::current_exe().expect("this binary has a path"))
        .arg(NODE_ARGUMENT)
        .env("EXECUTOR_TEST_FOLDER", folder())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this binary starts");
    let mut line = String::new();
    let mut said = std::io::BufReader::new(node.stdout.take().expect("it is piped"));
    std::io::BufRead::read_line(&mut said, &mut line).expect("it says something");
    let pidfds: Vec<OwnedFd> = line
        .split_whitespace()
        .map(|pid| Pid::from_raw(pid.parse().expect("a number")).expect("not 0"))
        .map(|pid| pidfd_open(pid, PidfdFlags::empty()).expect("it lives"))
        .collect();
    assert_eq!(pidfds.len(), 2);
    node.kill().expect("it lives");
    node.wait().expect("it was killed");
    assert!(pidfds.iter().all(dead));
}

/// A node with one executor, which says their pids and waits to be killed.
pub fn node() -> ExitCode {
    let (world, executor) = single(&library("calls.c"), &["copy"]);
    println!("{} {}", world.zygote.id(), executor.pid);
    std::thread::sleep(Duration::from_secs(60));
    ExitCode::FAILURE
}

fn socket_closes() {
    let (ours, theirs) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .expect("a socket pair");
    let mut zygote = start_zygote(&theirs);
    drop(theirs);
    let ready = pheromone_executor::packet::receive::<FromZygote>(&ours).expect("a packet");
    assert_eq!(ready.expect("not closed").0, FromZygote::Ready);
    drop(ours);
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(status) = zygote.try_wait().expect("it is a child") {
            assert!(status.success());
            return;
        }
        assert!(Instant::now() < end, "the zygote lives on");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn cannot_be_set_up() {
    let mut app = AppBuilder::new(&library("calls.c"), &["copy"]);
    app.program.directory = "/nonexistent/directory".into();
    let mut world = app.start();
    let executor = world.executor_without_ready(0);
    assert_eq!(world.exit_of(&executor), (Some(70), None));
    let lines = executor.lines();
    assert!(
        lines[0].1.starts_with(
            "the executor could not be set up: the working directory /nonexistent/directory cannot \
             be entered"
        ),
        "{lines:?}"
    );
    world.tell(&ToZygote::Forget { app: 3 }, &[]);
}

fn terminal() {
    let (mut world, mut executor) = single(&library("calls.c"), &["copy"]);
    let zygote = Pid::from_raw(world.zygote.id() as i32).expect("not 0");
    let pid = Pid::from_raw(executor.pid).expect("not 0");
    let session = rustix::process::getsid(Some(zygote)).expect("it lives");
    assert_eq!(session, zygote);
    assert_eq!(rustix::process::getsid(Some(pid)), Ok(session));
    for process in [zygote, pid] {
        for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
            rustix::process::kill_process(process, signal).expect("it lives");
        }
    }
    let input = world.request(b"x");
    executor.run(0, &[input]).ok();
    let status = std::fs::read_to_string(format!("/proc/{}/status", executor.pid));
    let status = status.expect("it lives");
    let blocked = status
        .lines()
        .find(|line| line.starts_with("SigBlk:"))
        .expect("a mask");
    assert!(blocked.ends_with("\t0000000000000000"), "{blocked}");
}

fn idle() {
    let (mut world, mut executor) = single(&library("calls.c"), &["copy"]);
    let input = world.request(b"x");
    executor.run(0, std::slice::from_ref(&input)).ok();
    let ticks = || {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", executor.pid)).expect("it lives");
        let fields: Vec<&str> = stat[stat.rfind(')').expect("a name") + 2..]
            .split_whitespace()
            .collect();
        let number = |at: usize| fields[at].parse::<u64>().expect("a number");
        (fields[0].to_owned(), number(11) + number(12))
    };
    std::thread::sleep(Duration::from_millis(100));
    let before = ticks();
    std::thread::sleep(Duration::from_millis(500));
    let after = ticks();
    assert_eq!(after.0, "S");
    assert_eq!(before.1, after.1, "it used CPU while idle");
    executor.run(0, &[input]).ok();
}
