//! One hop of a chain, again and again, through the scheduler's own loop: from two messages in an
//! executor's ring to the next dispatch in its other one, with the real core and all books, to be
//! counted instruction by instruction.
//!
//! There is one thread: it is the node, which deploys an app and asks for a session; the executor,
//! which says what one would say whose function does nothing but send an object; and it has the
//! scheduler turn once for each hop. Nobody waits and nothing is left to chance but the clock, so
//! counts repeat to a few instructions:
//!
//! ```text
//! cargo build --release -p pheromone-scheduler --example turn
//! valgrind --tool=callgrind --toggle-collect=scheduler_turn target/release/examples/turn 10000
//! ```
//!
//! The difference of that and the same with 20000 hops is nothing but hops. With `in-place` behind
//! the number the executor goes on by itself.

#[allow(dead_code)]
#[path = "../../core/tests/behaviour/common/app.rs"]
mod app;

use std::os::fd::{AsFd, OwnedFd};

use pheromone_core::spec::AppSpec;
use pheromone_core::{Core, CoreConfig, SpinPolicy};
use pheromone_scheduler::neighbours::Neighbours;
use pheromone_scheduler::protocol::{
    Control, DestinationMessage, RequestMessage, SchedulerConfig, SpinMessage, ToNode, ToScheduler,
};
use pheromone_scheduler::turn::Scheduler;
use pheromone_shm::control::{ControlFiles, ExecutorEnd};
use pheromone_shm::doorbell::{Bell, BellRope};
use pheromone_shm::file::create_sealed;
use pheromone_shm::limits::BELL_BYTES;
use pheromone_shm::link::{Link, LinkEnd, NodeRope};
use pheromone_shm::message::{Ending, Extent, FromExecutor, Key, Target, ToExecutor};
use pheromone_shm::wire::MessageBuffer;
use rustix::io::IoSlice;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

const APP: u16 = 0;
const SLOT: u16 = 0;
const INCARNATION: u32 = 1;
/// Turns within which an answer of the scheduler comes.
const TURNS_MAX: usize = 1000;
/// Extents that the executor has. Few are out at a time.
const EXTENTS: u32 = 64;

/// Node and scheduler.
struct Node {
    scheduler: Scheduler,
    link: LinkEnd,
    control: OwnedFd,
    bell: OwnedFd,
}

impl Node {
    fn new() -> Self {
        let bell = create_sealed("turn:bell", BELL_BYTES).expect("a memfd");
        let rope = BellRope::map(bell.as_fd()).expect("a mapping");
        let file = Link::create().expect("a memfd");
        let link = Link::node_end(file.as_fd(), rope).expect("a mapping");
        let page = NodeRope::create().expect("a memfd");
        let waker = NodeRope::map(page.as_fd()).expect("a mapping");
        let theirs = Link::scheduler_end(file.as_fd(), waker).expect("a mapping");
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let sockets = rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None);
        let (control, their_control) = sockets.expect("a socket pair");
        let core = Core::new(CoreConfig {
            keeps_on_disk: false,
            first_id: 0,
            scheduler_index: 0,
            schedulers: 1,
            executor_cores: 1,
            spin: SpinPolicy::Always,
        });
        let config = SchedulerConfig {
            index: 0,
            schedulers: 1,
            node: std::process::id(),
            cpu: None,
            executor_cores: 1,
            spin: SpinMessage::Always,
            never_sleeps: true,
            keeps_on_disk: false,
            first_id: 0,
        };
        let page = Bell::map(bell.try_clone().expect("a descriptor")).expect("a mapping");
        page.set_never_sleeps(true);
        let ends = (theirs, Neighbours::default());
        Self {
            scheduler: Scheduler::new(config, core, ends, page, their_control),
            link,
            control,
            bell,
        }
    }

    fn tell(&mut self, message: &ToScheduler<'_>) {
        let bytes = postcard::to_allocvec(message).expect("a message");
        self.link.try_send(&bytes).expect("room in the link");
        self.turn();
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

    fn turn(&mut self) {
        self.scheduler.turn().expect("nobody says nonsense");
    }

    /// Deploys an app and gives it the process that it asks for.
    fn deploy(&mut self, spec: &AppSpec) -> ExecutorEnd {
        let bytes = postcard::to_allocvec(spec).expect("a spec");
        let file = create_sealed("turn:spec", bytes.len() as u64).expect("a memfd");
        rustix::io::pwrite(&file, &bytes, 0).expect("room");
        let spec_bytes = bytes.len() as u64;
        let app = APP;
        self.hand_over(&Control::Deploy { app, spec_bytes }, &[&file]);
        self.until_asked_for();
        let files = ControlFiles::create("turn").expect("two memfds");
        let message = Control::Executor {
            app,
            slot: SLOT,
            incarnation: INCARNATION,
        };
        self.hand_over(&message, &[&files.up, &files.down]);
        let (up, down, bell) = (files.up.as_fd(), files.down.as_fd(), self.bell.as_fd());
        ExecutorEnd::map(up, down, bell, SLOT, INCARNATION).expect("mappings")
    }

    fn until_asked_for(&mut self) {
        let mut bytes = Vec::new();
        for _ in 0..TURNS_MAX {
            while self.link.receive(&mut bytes).expect("no garbage") {
                let message = postcard::from_bytes(&bytes).expect("a message");
                if let ToNode::Spawn { slot: SLOT, .. } = message {
                    return;
                }
            }
            self.turn();
        }
        panic!("the scheduler asks for no process");
    }

    fn request(&mut self) {
        self.tell(&ToScheduler::Request(RequestMessage {
            app: APP,
            request: 1,
            destination: DestinationMessage::Function(0),
            offset_units: 0,
            len_units: 1,
            size_bytes: 8,
            headers: None,
            session: None,
            has_caller: true,
            timeout_ns: None,
            durable: None,
        }));
    }
}

/// The executor, whose function sends the next object.
struct Executor {
    end: ExecutorEnd,
    buffer: MessageBuffer,
    free: Vec<Extent>,
}

impl Executor {
    fn new(end: ExecutorEnd) -> Self {
        let extent = |offset_units| Extent {
            offset_units,
            len_units: 1,
        };
        Self {
            end,
            buffer: MessageBuffer::default(),
            free: (0..EXTENTS).map(extent).collect(),
        }
    }

    /// The dispatch has come.
    fn begin(&mut self) {
        match self.end.receive(&mut self.buffer) {
            Ok(Some(ToExecutor::Dispatch { .. })) => {}
            other => panic!("a dispatch was due, and {other:?} came"),
        }
    }

    fn extent(&mut self) -> Extent {
        let free = &mut self.free;
        self.end
            .take_releases(|released| free.push(released.extent));
        self.free.pop().expect("what has been read comes back")
    }

    /// Sends an object and returns.
    fn hop(&mut self) {
        self.begin();
        let extent = self.extent();
        self.end.send(&FromExecutor::Publish {
            target: Target::Next,
            extent,
            size_bytes: 8,
            key: Key::Auto(0),
            ordinal: 0,
            group: &[],
            delay_ns: 0,
        });
        self.end.send(&FromExecutor::Complete {
            status: 0,
            ending: Ending::Returned,
            discarded: 0,
            message: &[],
        });
    }

    /// Offers an object, returns, and goes on with what it fires.
    fn hop_in_place(&mut self) {
        let extent = self.extent();
        self.end.look_for_room();
        let offer = self.end.next_offer().expect("it may go on");
        let invocation = offer.say(Target::Next, extent, 8, 0);
        let room = self.end.take_offer(invocation);
        room.expect("nobody takes it back")
            .say(&FromExecutor::Continue { discarded: 0 });
        self.end.ring();
    }
}

/// What is counted.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn scheduler_turn(node: &mut Node) {
    node.turn();
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let hops = arguments.next().map_or(Ok(10_000), |text| text.parse());
    let hops: u64 = hops.expect("the first argument is a number of hops");
    let in_place = arguments.next().is_some_and(|text| text == "in-place");

    let mut spec = app::app(&["hop"]);
    (spec.executors.min, spec.executors.max) = (1, 1);
    spec.functions[0].next = vec![0];
    spec.continuation = in_place;
    spec.validate().expect("a spec that can be deployed");

    let mut node = Node::new();
    let mut executor = Executor::new(node.deploy(&spec));
    executor.end.send(&FromExecutor::Ready);
    node.turn();
    node.request();
    if in_place {
        executor.begin();
    }
    for _ in 0..hops {
        if in_place {
            executor.hop_in_place();
        } else {
            executor.hop();
        }
        scheduler_turn(&mut node);
    }
    if !in_place {
        executor.begin();
    }
}
