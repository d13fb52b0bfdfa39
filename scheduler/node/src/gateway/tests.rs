//! The gateway against a scheduler that a test plays.

use std::os::fd::AsFd;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{bounded, unbounded};
use pheromone_core::spec::{AppSpec, Isolation, Limits, Pool};
use pheromone_shm::doorbell::{Bell, BellRope};
use pheromone_shm::file::create_sealed;
use pheromone_shm::link::Link;

use super::*;
use crate::packet;
use crate::regions::Regions;
use crate::supervisor;

/// A watchdog for everything that must come.
const LONG: Duration = Duration::from_secs(60);
const APP: u16 = 0;
const MEMORY_BYTES: u64 = 1 << 20;

/// The far ends of all that the gateway speaks to.
struct World {
    gateway: GatewayHandle,
    thread: Option<JoinHandle<()>>,
    link: LinkEnd,
    _control: OwnedFd,
    _supervisor: supervisor::Inbox,
    _bell: Bell,
    tell: Sender<(&'static str, Reply)>,
    hear: Receiver<(&'static str, Reply)>,
}

impl World {
    /// A gateway that one app is routed to.
    fn new() -> Self {
        let bell = Bell::create().unwrap();
        let file = Link::create().unwrap();
        let link = Link::node_end(file.as_fd(), BellRope::map(bell.fd()).unwrap()).unwrap();
        let (control, theirs) = packet::pair().unwrap();
        let (supervisor, orders) = SupervisorHandle::new().unwrap();
        let health = Health::default();
        let (gateway, inbox) = GatewayHandle::new(link.rope(), health.clone());
        let setup = Setup {
            link,
            control,
            inbox,
            supervisor,
            outlet: Outlet::default(),
            health,
            ready: bounded(1).0,
        };
        let (tell, hear) = unbounded();
        let mut world = Self {
            gateway,
            thread: Some(thread::spawn(move || run(setup))),
            link: Link::scheduler_end(file.as_fd()).unwrap(),
            _control: theirs,
            _supervisor: orders,
            _bell: bell,
            tell,
            hear,
        };
        world.deploy();
        world
    }

    fn deploy(&mut self) {
        let spec = spec();
        let regions = Regions::create(&spec).unwrap();
        let (done, deployed) = bounded(1);
        self.gateway.tell(Command::Deploy {
            version: Arc::new(Version::new(APP, 1, spec, regions, None)),
            spec: create_sealed("test", 1).unwrap(),
            spec_bytes: 1,
            done,
        });
        deployed.recv_timeout(LONG).unwrap().unwrap();
        self.gateway.tell(Command::Route { app: APP });
        self.until(|message| matches!(message, ToScheduler::Control));
    }

    /// Takes what the gateway says until it is this.
    fn until(&mut self, mut is_it: impl FnMut(&ToScheduler<'_>) -> bool) {
        let since = Instant::now();
        let mut bytes = Vec::new();
        loop {
            if self.link.receive(&mut bytes).unwrap() {
                if is_it(&postcard::from_bytes(&bytes).unwrap()) {
                    return;
                }
            } else {
                assert!(since.elapsed() < LONG, "the gateway does not say it");
                thread::sleep(Duration::from_micros(100));
            }
        }
    }

    fn say(&mut self, message: &ToNode<'_>) {
        let bytes = postcard::to_allocvec(message).unwrap();
        self.link.try_send(&bytes).unwrap();
        self.link.wake_peer_if_asleep();
    }

    /// Submits a call, or a put that joins a session; its replies go to the common list.
    fn submit(&mut self, name: &'static str, session: Option<u64>) -> u64 {
        let tell = self.tell.clone();
        self.submit_to(
            session,
            Box::new(move |reply| drop(tell.send((name, reply)))),
        )
    }

    fn submit_to(&mut self, session: Option<u64>, reply: ReplyTo) -> u64 {
        let request = Request {
            app: "a".into(),
            to: To::Entry,
            body: Vec::new(),
            headers: Vec::new(),
            session,
            wait: true,
            timeout: None,
        };
        self.gateway.submit(request, reply);
        let mut id = 0;
        self.until(|message| {
            let ToScheduler::Request(request) = message else {
                return false;
            };
            id = request.request;
            true
        });
        id
    }

    /// Accepts a request into a session of its own number, unless it joins another.
    fn accept(&mut self, request: u64, session: u64) {
        self.say(&ToNode::Accepted { request, session });
    }

    fn respond(&mut self, request: u64, parts: Vec<Part>) {
        self.say(&ToNode::Response {
            request,
            session: request,
            app: APP,
            http_status: 200,
            content_type: b"",
            parts,
            more: false,
        });
    }

    fn end(&mut self, request: u64) {
        self.say(&ToNode::Ended {
            app: APP,
            request,
            session: request,
            outcome: OutcomeMessage::Responded,
            answered: true,
        });
    }

    /// The next reply: whose, and what.
    fn heard(&self) -> (&'static str, &'static str) {
        let (name, reply) = self.hear.recv_timeout(LONG).expect("no reply comes");
        let what = match reply {
            Reply::Accepted { .. } => "accepted",
            Reply::Response { .. } => "response",
            Reply::Ended {
                outcome: Outcome::Responded,
                ..
            } => "responded",
            Reply::Ended {
                outcome: Outcome::Failed(_),
                ..
            } => "failed",
            other => panic!("{other:?}"),
        };
        (name, what)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.gateway.tell(Command::Shutdown);
            self.thread.take().unwrap().join().unwrap();
        }
    }
}

fn spec() -> AppSpec {
    AppSpec {
        name: "a".into(),
        entry: Some(Entry::Function(0)),
        keep_request: false,
        memory_bytes: MEMORY_BYTES,
        executors: Pool { min: 1, max: 1 },
        isolation: Isolation::None,
        weight: 1,
        response_required: false,
        session_timeout_ns: None,
        cancel_on_disconnect: false,
        keep_results_ns: 0,
        continuation: false,
        limits: Limits::default(),
        functions: Vec::new(),
        buckets: Vec::new(),
    }
}

fn parts(count: usize, size_bytes: u64) -> Vec<Part> {
    vec![
        Part {
            region: 0,
            offset_units: 0,
            size_bytes
        };
        count
    ]
}

#[test]
fn a_long_response_does_not_hold_up_a_short_one_and_each_session_ends_after_its_response() {
    let mut world = World::new();
    let long = world.submit("long", None);
    world.accept(long, long);
    let joined = world.submit("joined", Some(long));
    world.accept(joined, long);
    let short = world.submit("short", None);
    world.accept(short, short);
    for name in ["long", "joined", "short"] {
        assert_eq!(world.heard(), (name, "accepted"));
    }
    // The gateway is held, so that it finds all that follows at once.
    let (held, is_held) = bounded(1);
    let (release, wait) = bounded::<()>(0);
    let holder = world.submit_to(
        None,
        Box::new(move |_| {
            let _ = held.try_send(());
            let _ = wait.recv();
        }),
    );
    world.accept(holder, holder);
    is_held.recv_timeout(LONG).unwrap();
    world.respond(long, parts(4096, 1));
    world.end(long);
    world.respond(short, parts(1, 1));
    world.end(short);
    drop(release);
    let order: Vec<_> = (0..6).map(|_| world.heard()).collect();
    assert_eq!(
        order,
        [
            ("short", "response"),
            ("short", "responded"),
            ("joined", "response"),
            ("long", "response"),
            ("joined", "responded"),
            ("long", "responded"),
        ]
    );
}

#[test]
fn a_response_that_cannot_be_given_fails_and_its_payloads_are_let_go() {
    let mut world = World::new();
    let call = world.submit("call", None);
    world.accept(call, call);
    assert_eq!(world.heard(), ("call", "accepted"));
    world.respond(call, parts(2, MEMORY_BYTES));
    world.end(call);
    let mut told = Vec::new();
    world.until(|message| {
        told.push(match message {
            ToScheduler::Cancel { .. } => "cancel",
            ToScheduler::ResponseTaken { .. } => "taken",
            other => panic!("{other:?}"),
        });
        told.len() == 2
    });
    assert_eq!(told, ["cancel", "taken"]);
    assert_eq!(world.heard(), ("call", "failed"));
}
