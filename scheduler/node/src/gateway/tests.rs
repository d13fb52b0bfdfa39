//! The gateway against a scheduler that a test plays.

use std::os::fd::{AsFd, OwnedFd};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, bounded, unbounded};
use pheromone_core::event::{Failure, Part};
use pheromone_core::spec::{AppSpec, Entry, Isolation, Limits, Pool};
use pheromone_scheduler::protocol::{AppStatsMessage, OutcomeMessage, ToNode};
use pheromone_shm::doorbell::{Bell, BellRope};
use pheromone_shm::file::create_sealed;
use pheromone_shm::link::{Link, LinkEnd};
use pheromone_shm::message::UNIT_BYTES;

use super::*;
use crate::app::Version;
use crate::failure;
use crate::packet;
use crate::regions::Regions;
use crate::request::{Outcome, Request, To};
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
        let rope = NodeRope::map(NodeRope::create().unwrap().as_fd()).unwrap();
        let (control, theirs) = packet::pair().unwrap();
        let (supervisor, orders) = SupervisorHandle::new().unwrap();
        let health = Health::default();
        let (gateway, inbox) = GatewayHandle::new(rope.clone(), health.clone());
        let setup = Setup {
            ways: vec![Way::new(link, control)],
            rope: rope.clone(),
            inbox,
            supervisor,
            outlet: Outlet::default(),
            health,
            troubles: Troubles::default(),
            memory: unbounded().0,
            store: None,
            handle: gateway.clone(),
            ready: bounded(1).0,
        };
        let (tell, hear) = unbounded();
        let mut world = Self {
            gateway,
            thread: Some(thread::spawn(move || run(setup))),
            link: Link::scheduler_end(file.as_fd(), rope).unwrap(),
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
            version: Arc::new(Version::new(APP, 1, spec, 1, regions, None)),
            spec: create_sealed("test", 1).unwrap(),
            spec_bytes: 1,
            done,
        });
        deployed.recv_timeout(LONG).unwrap().unwrap();
        let (done, _) = bounded(1);
        self.gateway.tell(Command::Route { app: APP, done });
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
            by: 1,
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

#[test]
fn a_failure_is_written_where_the_scheduler_can_hand_it_on_or_refused_with_a_reason() {
    use pheromone_core::event::Cause;
    let mut world = World::new();
    let failure = || Failure {
        function: None,
        invocation: 3,
        attempt: 1,
        cause: Cause::Returned {
            status: 7,
            message: "no".into(),
        },
        executor: None,
    };
    let (mut written, mut extents) = (0, Vec::new());
    for ticket in 0.. {
        world.say(&ToNode::WriteFailure {
            app: APP,
            ticket,
            failure: failure(),
        });
        let mut refused = None;
        world.until(|message| match *message {
            ToScheduler::FailureWritten {
                ticket: of,
                offset_units,
                len_units,
                size_bytes,
                ..
            } => {
                assert_eq!((of, size_bytes), (ticket, failure::FAILURE_BYTES as u64));
                extents.push((offset_units, len_units));
                true
            }
            ToScheduler::FailureNotWritten {
                ticket: of, reason, ..
            } => {
                assert_eq!(of, ticket);
                refused = Some(reason.to_owned());
                true
            }
            ref other => panic!("{other:?}"),
        });
        if let Some(reason) = refused {
            assert!(reason.contains("memory"), "{reason}");
            break;
        }
        written += 1;
    }
    assert_eq!(written, MEMORY_BYTES / (18 * UNIT_BYTES), "as many as fit");
    // What is released makes room again, and what is asked for an app that is gone is left.
    world.say(&ToNode::Released {
        app: APP,
        extents: extents.split_off(extents.len() - 1),
    });
    for app in [APP + 1, APP] {
        world.say(&ToNode::WriteFailure {
            app,
            ticket: u64::from(app),
            failure: failure(),
        });
    }
    world.until(|message| {
        matches!(*message, ToScheduler::FailureWritten { ticket, .. } if ticket == u64::from(APP))
    });
}

#[test]
fn a_version_whose_letters_move_goes_once_its_scheduler_has_none_left() {
    const NEXT: u16 = APP + 1;
    let mut world = World::new();
    let spec = spec();
    let regions = Regions::create(&spec).unwrap();
    world.gateway.tell(Command::Deploy {
        version: Arc::new(Version::new(NEXT, 2, spec, 1, regions, None)),
        spec: create_sealed("test", 1).unwrap(),
        spec_bytes: 1,
        done: bounded(1).0,
    });
    let (done, moved) = bounded(1);
    world.gateway.tell(Command::Route { app: NEXT, done });
    let hand_over = ToScheduler::HandOver { app: APP };
    world.until(|message| *message == hand_over);
    world.say(&ToNode::HandedOver { app: APP });
    moved.recv_timeout(LONG).expect("all letters have moved");
    // The scheduler has answered before it has heard that the last one is taken: it is asked again.
    for dead_letters in [1, 1, 0] {
        let mut asked = 0;
        world.until(|message| match message {
            ToScheduler::Stats { token, app: APP } => {
                asked = *token;
                true
            }
            ToScheduler::Remove { .. } => panic!("a letter is left"),
            _ => false,
        });
        world.say(&ToNode::Stats {
            token: asked,
            stats: Some(AppStatsMessage {
                dead_letters,
                ..AppStatsMessage::default()
            }),
        });
    }
    let remove = ToScheduler::Remove { app: APP };
    world.until(|message| *message == remove);
}

/// What is kept of a request whose session is open, beside its caller's own: a line of the table,
/// where half of them may be empty, and what it points to.
#[test]
fn a_request_that_waits_takes_little() {
    let line = size_of::<(u64, Box<Pending>)>();
    assert!(2 * line + size_of::<Pending>() <= 192);
}
