//! Processes that die at the wrong moment, told to the real loop over a real link: the slot is
//! always free again and the core never waits for who is dead.

use std::os::fd::{AsFd, OwnedFd};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pheromone_core::spec::{AppSpec, Backoff, FunctionSpec, Isolation, Limits, OnFailure, Pool};
use pheromone_core::{Core, CoreConfig, SpinPolicy};
use pheromone_scheduler::neighbours::Neighbours;
use pheromone_scheduler::protocol::{Control, SchedulerConfig, SpinMessage, ToNode, ToScheduler};
use pheromone_scheduler::turn::Scheduler;
use pheromone_shm::control::ControlFiles;
use pheromone_shm::doorbell::{Bell, BellRope};
use pheromone_shm::file::create_sealed;
use pheromone_shm::limits::BELL_BYTES;
use pheromone_shm::link::{Link, LinkEnd, NodeRope};
use rustix::io::IoSlice;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// A watchdog for everything that must come.
const LONG: Duration = Duration::from_secs(60);

const APP: u16 = 0;

/// The scheduler's loop on a thread, and the node's ends of what leads to it.
struct Node {
    link: LinkEnd,
    sleeper: NodeRope,
    control: OwnedFd,
    scheduler: Option<JoinHandle<()>>,
}

impl Node {
    fn start() -> Self {
        let bell = create_sealed("test:bell", BELL_BYTES).expect("a memfd");
        let rope = BellRope::map(bell.as_fd()).expect("a mapping");
        let file = Link::create().expect("a memfd");
        let link = Link::node_end(file.as_fd(), rope).expect("a mapping");
        let page = NodeRope::create().expect("a memfd");
        let sleeper = NodeRope::map(page.as_fd()).expect("a mapping");
        let waker = sleeper.clone();
        let (control, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("a socket pair");
        let scheduler = thread::spawn(move || {
            let core = Core::new(CoreConfig {
                keeps_on_disk: false,
                first_id: 0,
                scheduler_index: 0,
                schedulers: 1,
                executor_cores: 1,
                spin: SpinPolicy::Never,
            });
            let config = SchedulerConfig {
                index: 0,
                schedulers: 1,
                node: std::process::id(),
                cpu: None,
                executor_cores: 1,
                spin: SpinMessage::Never,
                never_sleeps: false,
                keeps_on_disk: false,
                first_id: 0,
            };
            let link = Link::scheduler_end(file.as_fd(), waker).expect("a mapping");
            let bell = Bell::map(bell).expect("a mapping");
            Scheduler::new(config, core, (link, Neighbours::default()), bell, theirs).run();
        });
        let mut node = Self {
            link,
            sleeper,
            control,
            scheduler: Some(scheduler),
        };
        node.until("it is ready", |message| matches!(message, ToNode::Ready));
        node
    }

    fn tell(&mut self, message: &ToScheduler<'_>) {
        let bytes = postcard::to_allocvec(message).expect("a message");
        self.link.try_send(&bytes).expect("room in the link");
        self.link.wake_peer_if_asleep();
    }

    fn hand_over(&mut self, message: &Control, descriptors: &[&OwnedFd]) {
        let bytes = postcard::to_allocvec(message).expect("a message");
        let borrowed: Vec<_> = descriptors.iter().map(|it| it.as_fd()).collect();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)));
        let parts = [IoSlice::new(&bytes)];
        rustix::net::sendmsg(&self.control, &parts, &mut ancillary, SendFlags::empty())
            .expect("room in the socket");
        self.tell(&ToScheduler::Control);
    }

    fn deploy(&mut self, spec: &AppSpec) {
        let bytes = postcard::to_allocvec(spec).expect("a spec");
        let file = create_sealed("test:spec", bytes.len() as u64).expect("a memfd");
        rustix::io::pwrite(&file, &bytes, 0).expect("room");
        let spec_bytes = bytes.len() as u64;
        self.hand_over(
            &Control::Deploy {
                app: APP,
                spec_bytes,
            },
            &[&file],
        );
    }

    /// Takes what the scheduler says until it is this.
    fn until(&mut self, what: &str, mut is_it: impl FnMut(&ToNode<'_>) -> bool) {
        let since = Instant::now();
        let mut bytes = Vec::new();
        loop {
            while self.link.receive(&mut bytes).expect("no garbage") {
                let message = postcard::from_bytes(&bytes).expect("a message");
                if is_it(&message) {
                    return;
                }
            }
            let left = LONG.checked_sub(since.elapsed());
            let left = left.unwrap_or_else(|| panic!("gave up waiting until {what}"));
            let link = &self.link;
            self.sleeper.sleep(|| link.has_message(), Some(left));
        }
    }

    fn until_asked_for(&mut self) {
        self.until("a process is asked for", |message| {
            matches!(
                message,
                ToNode::Spawn {
                    app: APP,
                    slot: 0,
                    ..
                }
            )
        });
    }

    fn died(&mut self, incarnation: u32) {
        self.tell(&ToScheduler::Died {
            app: APP,
            slot: 0,
            incarnation,
            code: None,
            signal: Some(9),
            detail: "it could not be watched",
        });
    }

    fn deaths(&mut self) -> u64 {
        self.tell(&ToScheduler::Stats { token: 7, app: APP });
        let mut deaths = 0;
        self.until("it tells its counters", |message| {
            let ToNode::Stats { token: 7, stats } = message else {
                return false;
            };
            deaths = stats.as_ref().expect("the app is there").deaths_total;
            true
        });
        deaths
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.tell(&ToScheduler::Shutdown);
            let scheduler = self.scheduler.take().expect("it is joined once");
            scheduler.join().expect("it leaves in order");
        }
    }
}

/// An app of one function and one process.
fn spec() -> AppSpec {
    let function = FunctionSpec {
        name: "f".into(),
        next: Vec::new(),
        calls: Vec::new(),
        sends: None,
        timeout_ns: None,
        init_timeout_ns: 60_000_000_000,
        attempts: 1,
        backoff: Backoff {
            first_ns: 10_000_000,
            max_ns: 1_000_000_000,
            jitter: 0.1,
        },
        on_failure: OnFailure::Fail,
        max_concurrency: None,
        priority: 0,
        serial_by: None,
        serial_width: 1,
        durable: false,
    };
    let spec = AppSpec {
        name: "test".into(),
        entry: None,
        keep_request: false,
        memory_bytes: 64 << 20,
        executors: Pool { min: 1, max: 1 },
        isolation: Isolation::None,
        weight: 1,
        response_required: false,
        session_timeout_ns: None,
        cancel_on_disconnect: false,
        keep_results_ns: 0,
        continuation: true,
        limits: Limits::default(),
        functions: vec![function],
        buckets: Vec::new(),
    };
    spec.validate().expect("a spec that can be deployed");
    spec
}

#[test]
fn a_process_that_dies_before_its_memory_was_handed_over_is_replaced() {
    let mut node = Node::start();
    node.deploy(&spec());
    for incarnation in 1..4 {
        node.until_asked_for();
        node.died(incarnation);
        assert_eq!(node.deaths(), u64::from(incarnation));
    }
    node.until_asked_for();
}

#[test]
fn a_process_that_dies_after_its_memory_was_handed_over_is_replaced() {
    let mut node = Node::start();
    node.deploy(&spec());
    for incarnation in 1..4 {
        node.until_asked_for();
        let files = ControlFiles::create("test").expect("two memfds");
        let message = Control::Executor {
            app: APP,
            slot: 0,
            incarnation,
        };
        node.hand_over(&message, &[&files.up, &files.down]);
        node.died(incarnation);
        assert_eq!(node.deaths(), u64::from(incarnation));
    }
    node.until_asked_for();
}

#[test]
fn an_app_goes_although_its_process_died_before_its_memory_was_handed_over() {
    let mut node = Node::start();
    node.deploy(&spec());
    node.until_asked_for();
    node.tell(&ToScheduler::Remove { app: APP });
    node.died(1);
    node.until("the app is gone", |message| {
        matches!(message, ToNode::Removed { app: APP })
    });
}
