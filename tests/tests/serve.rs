//! A node that serves: calls, puts, sessions and management over TCP and the Unix socket, and who
//! may do what.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::thread;

use pheromone_tests::{App, Random, Server, until};

const FUNCTIONS: &str = include_str!("../functions/serve.c");

fn app_named(name: &str) -> App {
    let manifest = format!(
        r#"
[app]
name = "{name}"
entry = "echo"
source = ["functions.c"]
memory = "64MiB"
executors = {{ min = 2, max = 2 }}
isolation = "none"

[app.limits]
object_size = "16MiB"

[functions.echo]
[functions.silent]
[functions.fails]
[functions.waits]
[functions.describes]
[functions.pairs]
[functions.reaches_for_the_node]

[buckets.described]
[[buckets.described.triggers]]
type = "immediate"
function = "describes"

[buckets.pair]
[[buckets.pair.triggers]]
type = "by_set"
function = "pairs"
keys = ["left", "right"]
at_end = "drop"

[buckets.slow]
[[buckets.slow.triggers]]
type = "immediate"
function = "waits"
"#
    );
    App::with_functions(&manifest, FUNCTIONS)
}

fn version(answer: &str) -> App {
    let manifest = format!(
        r#"
[app]
name = "versions"
entry = "version"
source = ["functions.c"]
config = {{ answer = "{answer}" }}
isolation = "none"

[functions.version]
"#
    );
    App::with_functions(&manifest, FUNCTIONS)
}

#[test]
fn a_call_is_answered_over_tcp_and_over_the_socket() {
    let app = app_named("served");
    let server = Server::start(&[&app]);
    for mut client in [server.tcp(), server.unix()] {
        for size_bytes in [0, 1, 1000, 1 << 20, 8 << 20] {
            let body = Random::new(7).bytes(size_bytes);
            let answer = client
                .post("/v1/apps/served/functions/echo", body.clone())
                .is(200);
            assert!(answer.body == body, "{size_bytes} bytes came back changed");
            assert!(
                answer
                    .session()
                    .parse::<u64>()
                    .is_ok_and(|session| session > 0)
            );
        }
        assert_eq!(
            client
                .post("/v1/apps/served", "to the entry")
                .is(200)
                .text(),
            "to the entry"
        );
    }
    server.stop().exits(0);
}

#[test]
fn every_end_of_a_session_has_its_http_status() {
    let app = app_named("served");
    let server = Server::start(&[&app]);
    let mut client = server.tcp();
    client.post("/v1/apps/served/functions/silent", "x").is(204);
    let failed = client.post("/v1/apps/served/functions/fails", "x").is(502);
    let reason = failed.json().to_string();
    for text in ["fails", "3", "no \\\"luck\\\""] {
        assert!(reason.contains(text), "no {text:?} in {reason}");
    }
    let late = [("pheromone-timeout", "200ms")];
    client
        .ask("POST", "/v1/apps/served/functions/waits", &late, "x")
        .is(504);
    client.post("/v1/apps/nothing/functions/echo", "x").is(404);
    client
        .post("/v1/apps/served/functions/nothing", "x")
        .is(404);
    client.post("/v1/apps/served/buckets/nothing", "x").is(404);
    client.get("/v1/nothing").is(404);
    client.get("/v1/sessions/123456789/response").is(404);
    let unreadable = [("pheromone-timeout", "soon")];
    client
        .ask("POST", "/v1/apps/served/functions/echo", &unreadable, "x")
        .is(400);
    for path in [
        "/v1/apps/served/functions/echo?wait=maybe",
        "/v1/apps/served/functions/%ff",
    ] {
        let problem = client.post(path, "x").is(400).json();
        assert!(problem["error"].is_string(), "{path}: {problem}");
    }
    let answer = client.post("/v1/apps/served/functions/echo", vec![0; (16 << 20) + 1]);
    assert_eq!(answer.status, 413);
    server.stop().exits(0);
}

/// Sends all of a request and only then looks for the answer, as simple clients do; gives its
/// status line.
fn send_all_then_read(stream: &mut (impl Read + Write), head: &str, body: &[u8]) -> String {
    let head = format!("{head}\r\nhost: localhost\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("room for a head");
    stream.write_all(body).expect("it takes all of the body");
    let mut answer = BufReader::new(stream);
    let mut status = String::new();
    answer.read_line(&mut status).expect("an answer");
    let (mut line, mut body_bytes) = (String::new(), 0);
    while answer.read_line(&mut line).expect("an answer") > 2 {
        if let Some(length) = line.to_lowercase().strip_prefix("content-length:") {
            body_bytes = length.trim().parse().expect("a length");
        }
        line.clear();
    }
    let mut rest = vec![0; body_bytes];
    answer.read_exact(&mut rest).expect("all of the answer");
    status
}

/// Bodies that are refused are sent to their end, whole and in a chunk; then the connection is good
/// for another call.
fn sends_to_the_end<S: Read + Write>(connect: impl Fn() -> S, line: &str, status: &str) {
    let size_bytes = (16 << 20) + 1;
    let body = vec![b'x'; size_bytes];
    let length = format!("{size_bytes:x}\r\n");
    let chunked = [length.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    let mut stream = connect();
    let head = format!("{line} HTTP/1.1\r\ncontent-length: {size_bytes}");
    let answer = send_all_then_read(&mut stream, &head, &body);
    assert!(answer.contains(status), "{line}: {answer}");
    let head = format!("{line} HTTP/1.1\r\ntransfer-encoding: chunked");
    let answer = send_all_then_read(&mut stream, &head, &chunked);
    assert!(answer.contains(status), "{line}, chunked: {answer}");
    let head = "POST /v1/apps/served HTTP/1.1\r\ncontent-length: 5";
    let answer = send_all_then_read(&mut stream, head, b"hello");
    assert!(answer.contains("200"), "{line}, then a good one: {answer}");
}

#[test]
fn a_client_that_sends_a_refused_body_to_its_end_sees_why_and_may_go_on() {
    let app = app_named("served");
    let server = Server::start(&[&app]);
    let tcp = || TcpStream::connect(server.tcp_address().expect("it listens")).expect("room");
    let unix = || UnixStream::connect(server.socket()).expect("room");
    sends_to_the_end(tcp, "POST /v1/apps/served", "413");
    sends_to_the_end(unix, "POST /v1/apps/served", "413");
    sends_to_the_end(tcp, "POST /v1/apps/absent", "404");
    sends_to_the_end(tcp, "PUT /v1/apps/served", "403");
    server.stop().exits(0);
}

#[test]
fn a_call_that_does_not_wait_can_be_fetched_later() {
    let app = app_named("served");
    let server = Server::start(&[&app]);
    let mut client = server.tcp();
    let session = client.post("/v1/apps/served/functions/echo?wait=false", "later");
    let path = format!("/v1/sessions/{}/response", session.is(202).session());
    until("the response is there", || client.get(&path).status != 202);
    assert_eq!(client.get(&path).is(200).text(), "later");
    let waiting = client
        .post("/v1/apps/served/functions/waits?wait=false", "x")
        .is(202);
    let path = format!("/v1/sessions/{}/response", waiting.session());
    client.get(&path).is(202);
    server.unix().ask(
        "DELETE",
        &format!("/v1/sessions/{}", waiting.session()),
        &[],
        "",
    );
    until("the session has been cancelled", || {
        client.get(&path).status != 202
    });
    client.get(&path).is(409);
    server.stop().exits(0);
}

#[test]
fn a_put_triggers_and_may_wait_and_join_a_session() {
    let app = app_named("served");
    let server = Server::start(&[&app]);
    let mut client = server.tcp();
    let group = [("pheromone-group", "of its own")];
    let path = "/v1/apps/served/buckets/described/objects/a-key?wait=true";
    let answer = client.ask("PUT", path, &group, "payload").is(200);
    assert_eq!(answer.text(), "described a-key of its own payload");
    let escaped = "/v1/apps/served/buckets/described/objects/a%7Cb%2Fc%20d?wait=true";
    let answer = client.ask("PUT", escaped, &[], "payload").is(200);
    assert_eq!(answer.text(), "described a|b/c d  payload");
    let bytes = "/v1/apps/served/buckets/described/objects/%ff%01?wait=true";
    let answer = client.ask("PUT", bytes, &[], "x").is(200);
    assert_eq!(answer.body, b"described \xff\x01  x");
    let automatic = client
        .post("/v1/apps/served/buckets/described?wait=true", "x")
        .is(200);
    assert!(
        automatic.text().starts_with("described ~"),
        "{}",
        automatic.text()
    );
    let long = "k".repeat(255);
    let path = format!("/v1/apps/served/buckets/described/objects/{long}?wait=true");
    let answer = client.ask("PUT", &path, &[], "x").is(200);
    assert_eq!(answer.text(), format!("described {long}  x"));
    let longer = format!("/v1/apps/served/buckets/described/objects/{long}k?wait=true");
    client.ask("PUT", &longer, &[], "x").is(400);
    let reserved = "/v1/apps/served/buckets/described/objects/~1.1?wait=true";
    client.ask("PUT", reserved, &[], "x").is(400);

    // A session that is kept open by a function in it takes further objects.
    let slow = client
        .ask("PUT", "/v1/apps/served/buckets/slow/objects/k", &[], "x")
        .is(202);
    let session = slow.session();
    let join = [("pheromone-session", session.as_str())];
    let left = "/v1/apps/served/buckets/pair/objects/left";
    let right = "/v1/apps/served/buckets/pair/objects/right";
    client.ask("PUT", left, &join, "L").is(202);
    client.ask("PUT", left, &join, "L").is(409);
    client.ask("PUT", right, &join, "R").is(202);
    until("the pair has met", || {
        server.running().stderr_so_far().contains("paired L and R")
    });
    server.command(&["cancel", &session]).finish().exits(0);
    until("the session has ended", || {
        server.counter("served", "sessions_open") == 0
    });
    client.ask("PUT", right, &join, "R").is(409);
    server.stop().exits(0);
}

#[test]
fn a_cancelled_session_tells_its_caller_at_once() {
    let app = app_named("served");
    let server = Server::start(&[&app]);
    thread::scope(|scope| {
        let caller = scope.spawn(|| server.tcp().post("/v1/apps/served/functions/waits", "x"));
        until("the function runs", || {
            server.running().stderr_so_far().contains("waiting")
        });
        // A session's id is what the log line of its function is tagged with, and what ps knows.
        let sessions = server.unix().get("/v1/sessions");
        let text = server.running().stderr_so_far();
        let line = text
            .lines()
            .find(|line| line.ends_with("waiting"))
            .expect("the line");
        let id = line
            .split(|c: char| !c.is_ascii_digit())
            .filter(|number| number.len() >= 2)
            .find(|number| server.unix().get(&format!("/v1/sessions/{number}")).status == 200)
            .unwrap_or_else(|| panic!("no session in {line:?} ({})", sessions.text()));
        server.command(&["cancel", id]).finish().exits(0);
        assert_eq!(caller.join().expect("the caller").status, 409);
    });
    until("the function was told", || {
        server.running().stderr_so_far().contains("cancelled")
    });
    server.stop().exits(0);
}

#[test]
fn a_caller_that_leaves_cancels_only_where_the_manifest_says_so() {
    for (setting, cancelled) in [("continue", false), ("cancel", true)] {
        let manifest = format!(
            r#"
[app]
name = "leaving"
entry = "waits"
source = ["functions.c"]
on_disconnect = "{setting}"
isolation = "none"

[functions.waits]
"#
        );
        let app = App::with_functions(&manifest, FUNCTIONS);
        // What is still open at the end is not waited for.
        let server = Server::start_with(&[&app], &["--drain", "1ms"]);
        server.tcp().post_and_leave("/v1/apps/leaving", "x");
        if cancelled {
            until("the session is cancelled", || {
                server.counter("leaving", "sessions_open") == 0
            });
        } else {
            assert_eq!(server.counter("leaving", "sessions_open"), 1);
        }
        let run = server.stop();
        assert!(
            run.files_left.is_empty(),
            "left behind: {:?}",
            run.files_left
        );
    }
}

#[test]
fn many_clients_call_two_apps_at_once() {
    let apps = [app_named("one"), app_named("two")];
    let server = Server::start(&[&apps[0], &apps[1]]);
    thread::scope(|scope| {
        for worker in 0..8 {
            let server = &server;
            scope.spawn(move || {
                let mut client = if worker % 2 == 0 {
                    server.tcp()
                } else {
                    server.unix()
                };
                let app = if worker % 4 < 2 { "one" } else { "two" };
                for i in 0..200 {
                    let body = format!("{worker}: {i}");
                    let answer = client
                        .post(&format!("/v1/apps/{app}"), body.clone())
                        .is(200);
                    assert_eq!(answer.text(), body);
                }
            });
        }
    });
    for app in ["one", "two"] {
        assert_eq!(server.counter(app, "sessions_total"), 800);
        assert_eq!(server.counter(app, "used_bytes"), 0);
    }
    server.stop().exits(0);
}

#[test]
fn apps_are_deployed_replaced_listed_and_removed() {
    let server = Server::start(&[]);
    let first = version("one");
    server.deploy(&first).exits(0);
    let call = |server: &Server| server.command(&["call", "versions"]).finish().exits(0);
    call(&server).prints("one");
    let second = version("two");
    server.deploy(&second).exits(0);
    call(&server).prints("two");
    let ps = server.command(&["ps"]).finish().exits(0).text();
    assert!(ps.contains("versions"), "{ps}");
    let ps = server.command(&["ps", "--json"]).finish().exits(0);
    let json: serde_json::Value = serde_json::from_slice(&ps.stdout).expect("JSON");
    assert!(json.to_string().contains("\"versions\""), "{json}");
    server.command(&["remove", "versions"]).finish().exits(0);
    server
        .command(&["call", "versions"])
        .finish()
        .exits(1)
        .complains(&["versions"]);
    server
        .command(&["remove", "versions"])
        .finish()
        .exits(1)
        .complains(&["versions"]);
    server.stop().exits(0);
}

#[test]
fn an_app_that_cannot_be_loaded_is_refused_and_the_old_version_stays() {
    let server = Server::start(&[]);
    server.deploy(&version("one")).exits(0);
    let broken = App::with_functions(
        r#"
[app]
name = "versions"
entry = "absent"
source = ["functions.c"]
isolation = "none"

[functions.absent]
"#,
        FUNCTIONS,
    );
    let refused = server.deploy(&broken);
    assert!(
        matches!(refused.status.code(), Some(1 | 2)),
        "{}",
        refused.status
    );
    refused.complains(&["absent"]);
    server
        .command(&["call", "versions"])
        .finish()
        .exits(0)
        .prints("one");
    server.stop().exits(0);
}

/// Descriptors of memory that the node and all of its processes hold: memfds, or files on a tmpfs
/// of the app's own.
fn memory_files(server: &Server) -> usize {
    let processes = server.running().processes();
    let all = processes
        .iter()
        .flat_map(pheromone_tests::Process::descriptors);
    all.filter(|target| target.contains("memfd:") || target.starts_with("/pheromone-"))
        .count()
}

#[test]
fn deploying_and_removing_leaves_nothing_in_the_node() {
    let server = Server::start(&[]);
    let app = app_named("passing");
    let cycle = || {
        server.deploy(&app).exits(0);
        let body = Random::new(1).bytes(1 << 20);
        server.unix().post("/v1/apps/passing", body).is(200);
        server.command(&["remove", "passing"]).finish().exits(0);
        until("its executors are gone", || {
            server.running().executors().is_empty()
        });
    };
    cycle();
    cycle();
    let before = memory_files(&server);
    for _ in 0..5 {
        cycle();
    }
    until("the memory of removed apps is gone", || {
        memory_files(&server) <= before
    });
    server.stop().exits(0);
}

#[test]
fn replacing_an_app_leaves_nothing_of_its_old_version_though_nobody_asks() {
    let server = Server::start(&[]);
    server.deploy(&version("first")).exits(0);
    let before = memory_files(&server);
    for _ in 0..5 {
        server.deploy(&version("next")).exits(0);
    }
    until("the memory of old versions is gone", || {
        memory_files(&server) <= before
    });
    server.stop().exits(0);
}

#[test]
fn commands_call_and_put() {
    let app = app_named("served");
    let server = Server::start(&[&app]);
    let called = server
        .command(&["call", "served", "echo", "--input", "-"])
        .input("hello");
    called.finish().exits(0).prints("hello");
    let put = server
        .command(&[
            "put", "served", "pair", "left", "--group", "g", "--input", "-",
        ])
        .input("payload");
    put.finish().exits(0);
    let failed = server.command(&["call", "served", "fails"]).finish();
    failed.exits(1).complains(&["fails", "no \"luck\""]);
    let late = server
        .command(&["call", "served", "waits", "--timeout", "200ms"])
        .finish();
    late.exits(124);
    server
        .command(&["call", "nothing"])
        .finish()
        .exits(1)
        .complains(&["nothing"]);
    server.stop().exits(0);
}

#[test]
fn a_node_can_be_observed() {
    let app = app_named("served");
    let server = Server::start(&[&app]);
    let mut client = server.tcp();
    client.get("/healthz").is(200);
    client.get("/readyz").is(200);
    let metrics = client.get("/metrics").is(200).text();
    assert!(metrics.contains("served"), "{metrics}");
    for line in metrics
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let (_, value) = line.rsplit_once(' ').expect("a name and a value");
        value
            .parse::<f64>()
            .unwrap_or_else(|_| panic!("no number: {line}"));
    }
    server.stop().exits(0);
}

// -------------------------------------------------------------------------- who may do what

const MANAGEMENT: [(&str, &str); 4] = [
    ("GET", "/v1/apps"),
    ("PUT", "/v1/apps/served"),
    ("DELETE", "/v1/apps/served"),
    ("DELETE", "/v1/sessions/1"),
];

#[test]
fn management_is_refused_on_tcp() {
    let app = app_named("served");
    let server = Server::start(&[&app]);
    let mut client = server.tcp();
    for (method, path) in MANAGEMENT {
        let answer = client.ask(method, path, &[], "");
        assert!(
            matches!(answer.status, 401 | 403),
            "{method} {path}: {answer:?}"
        );
    }
    server.unix().get("/v1/apps").is(200);
    client.post("/v1/apps/served", "still there").is(200);
    server.stop().exits(0);
}

#[test]
fn management_on_tcp_takes_the_token_and_no_other() {
    let app = app_named("served").file("token", "a-secret-of-some-length\n");
    fs::set_permissions(app.path("token"), fs::Permissions::from_mode(0o600)).expect("chmod");
    let token = app.path("token");
    let server = Server::start_with(&[&app], &["--token-file", token.to_str().expect("text")]);
    let mut client = server.tcp();
    let right = [("authorization", "Bearer a-secret-of-some-length")];
    let wrong = [("authorization", "Bearer a-secret-of-some-lengtH")];
    client.ask("GET", "/v1/apps", &right, "").is(200);
    for headers in [&wrong[..], &[]] {
        let answer = client.ask("GET", "/v1/apps", headers, "");
        assert!(matches!(answer.status, 401 | 403), "{answer:?}");
    }
    server.stop().exits(0);
}

#[test]
fn foreign_hosts_and_origins_are_refused() {
    let app = app_named("served");
    let server = Server::start(&[&app]);
    let mut client = server.tcp();
    let foreign: [&[(&str, &str)]; 3] = [
        &[("host", "evil.example")],
        &[("host", "127.0.0.1.evil.example:80")],
        &[("origin", "https://evil.example")],
    ];
    for headers in foreign {
        let answer = client.ask("POST", "/v1/apps/served", headers, "x");
        assert!(
            (400..500).contains(&answer.status),
            "{headers:?}: {answer:?}"
        );
    }
    client.post("/v1/apps/served", "x").is(200);
    server.stop().exits(0);
}

#[test]
fn an_executor_cannot_manage_its_node() {
    let (app, victim) = (app_named("served"), app_named("victim"));
    let server = Server::start(&[&app, &victim]);
    let socket = server
        .socket()
        .to_str()
        .expect("a path that is text")
        .to_owned();
    let path = "/v1/apps/served/functions/reaches_for_the_node";
    let statuses = server.unix().post(path, socket).is(200).text();
    for status in statuses.split(' ') {
        let status: u16 = status.parse().expect("a status");
        // 0: it could not even connect, or was hung up on.
        assert!(status == 0 || (400..500).contains(&status), "{statuses}");
    }
    server.unix().post("/v1/apps/victim", "still there").is(200);
    server.stop().exits(0);
}

#[test]
fn the_socket_is_for_its_owner_alone() {
    let server = Server::start(&[]);
    let mode = fs::metadata(server.socket())
        .expect("the socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    server.stop().exits(0);
}

#[test]
fn an_address_beyond_loopback_needs_a_token() {
    let app = app_named("served");
    let run = app.command([
        "serve",
        "app.toml",
        "--listen",
        "0.0.0.0:0",
        "--socket",
        "s",
    ]);
    run.finish().exits(2).complains(&["0.0.0.0", "token"]);
}
