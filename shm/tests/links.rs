//! Links between node and scheduler and between two schedulers: byte messages of every length, both
//! ways, asleep and awake.

mod common;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::child::in_child;
use common::{Random, read_only};
use pheromone_shm::doorbell::{Bell, BellRope};
use pheromone_shm::link::{
    Half, LINK_MESSAGE_BYTES_MAX, Link, LinkEnd, NodeRope, PEER_MESSAGE_BYTES_MAX,
};

const LOST: Duration = Duration::from_secs(60);

struct Wires {
    file: OwnedFd,
    bell: Bell,
    rope: OwnedFd,
}

impl Wires {
    fn new() -> Self {
        Self {
            file: Link::create().expect("a memfd"),
            bell: Bell::create().expect("a memfd"),
            rope: NodeRope::create().expect("a memfd"),
        }
    }

    fn rope(&self) -> NodeRope {
        NodeRope::map(self.rope.as_fd()).expect("a mapping")
    }

    /// The page in a process of its own: control memory is not inherited.
    fn bell_in_child(&self) -> Bell {
        Bell::map(self.bell.fd().try_clone_to_owned().expect("a descriptor")).expect("a mapping")
    }

    fn node(&self) -> LinkEnd {
        let rope = BellRope::map(read_only(self.bell.fd())).expect("a mapping");
        Link::node_end(self.file.as_fd(), rope).expect("a mapping")
    }

    fn scheduler(&self) -> LinkEnd {
        Link::scheduler_end(self.file.as_fd(), self.rope()).expect("a mapping")
    }
}

fn bytes(number: u64) -> Vec<u8> {
    let mut random = Random(number);
    let len = match random.below(20) {
        0 => random.below(20_000),
        1..4 => 540 + random.below(30),
        _ => random.below(300),
    };
    (0..len).map(|_| random.next() as u8).collect()
}

#[test]
fn messages_of_every_length_arrive() {
    let wires = Wires::new();
    let (mut node, mut scheduler) = (wires.node(), wires.scheduler());
    let mut got = vec![9; 100];
    let lens = [0, 1, 7, 8, 47, 48, 49, 551, 552, 553, 560, 4096, 65_537];
    for len in lens.into_iter().chain([LINK_MESSAGE_BYTES_MAX]) {
        let sent: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
        node.try_send(&sent).unwrap();
        assert!(scheduler.has_message());
        assert!(scheduler.receive(&mut got).unwrap());
        assert_eq!(got, sent);
        scheduler.try_send(&sent).unwrap();
        assert!(node.receive(&mut got).unwrap());
        assert_eq!(got, sent);
    }
    assert!(!node.has_message());
    assert_eq!(node.receive(&mut got), Ok(false));
}

#[test]
fn a_full_link_refuses_and_takes_again_what_was_read() {
    let wires = Wires::new();
    let (mut node, mut scheduler) = (wires.node(), wires.scheduler());
    let long = vec![1; 1000];
    node.try_send(&long).unwrap();
    assert!(node.try_send(&long).is_err());
    let short = (0..)
        .take_while(|_| node.try_send(b"short").is_ok())
        .count();
    assert_eq!(short, 4095);
    let mut got = Vec::new();
    assert!(scheduler.receive(&mut got).unwrap());
    assert_eq!(got, long);
    node.try_send(&long).unwrap();
    assert!(node.try_send(b"short").is_err());
}

#[test]
#[should_panic(expected = "a message of 1048577 bytes")]
fn a_message_that_no_link_carries_is_a_bug_of_the_sender() {
    let wires = Wires::new();
    let _ = wires.node().try_send(&vec![0; LINK_MESSAGE_BYTES_MAX + 1]);
}

#[test]
fn requests_and_answers_lose_no_wake_between_processes() {
    const ROUNDS: u64 = 30_000;
    let wires = Wires::new();
    let scheduler = in_child(|| {
        let (mut link, bell) = (wires.scheduler(), wires.bell_in_child());
        let mut got = Vec::new();
        for number in 0..ROUNDS {
            while !link.receive(&mut got).expect("an honest node") {
                let woken = bell.sleep(|| link.has_message(), Some(LOST));
                assert!(woken, "a wake of the scheduler was lost");
            }
            assert_eq!(got, bytes(number));
            link.try_send(&got).expect("room");
            link.wake_peer_if_asleep();
        }
    });
    let (mut link, rope) = (wires.node(), wires.rope());
    let mut got = Vec::new();
    for number in 0..ROUNDS {
        link.try_send(&bytes(number)).expect("room");
        link.wake_peer_if_asleep();
        while !link.receive(&mut got).expect("an honest scheduler") {
            assert!(
                rope.sleep(|| link.has_message(), Some(LOST)),
                "a wake of the node was lost"
            );
        }
        assert_eq!(got, bytes(number));
    }
    scheduler.wait_ok();
}

/// Two schedulers and the link between them.
struct Neighbours {
    file: OwnedFd,
    bells: [Bell; 2],
}

impl Neighbours {
    fn new() -> Self {
        Self {
            file: Link::create_between_schedulers().expect("a memfd"),
            bells: [(); 2].map(|()| Bell::create().expect("a memfd")),
        }
    }

    fn end(&self, half: Half) -> LinkEnd {
        let other = match half {
            Half::First => &self.bells[1],
            Half::Second => &self.bells[0],
        };
        let rope = BellRope::map(read_only(other.fd())).expect("a mapping");
        Link::peer_end(self.file.as_fd(), half, rope).expect("a mapping")
    }

    fn bell_in_child(&self, at: usize) -> Bell {
        let file = self.bells[at].fd().try_clone_to_owned();
        Bell::map(file.expect("a descriptor")).expect("a mapping")
    }
}

#[test]
fn schedulers_say_messages_of_every_length_to_each_other() {
    let neighbours = Neighbours::new();
    let (mut first, mut second) = (neighbours.end(Half::First), neighbours.end(Half::Second));
    let mut got = Vec::new();
    for len in [0, 1, 551, 552, 553, 56 << 10, PEER_MESSAGE_BYTES_MAX] {
        let sent: Vec<u8> = (0..len).map(|at| (at * 3) as u8).collect();
        for _ in 0..600 {
            first.try_send(&sent).unwrap();
            second.try_send(&sent).unwrap();
            for end in [&mut first, &mut second] {
                assert!(end.receive(&mut got).unwrap());
                assert_eq!(got, sent);
            }
        }
    }
}

#[test]
#[should_panic(expected = "a message of 65537 bytes")]
fn a_message_that_is_too_long_between_schedulers_is_a_bug_of_the_sender() {
    let mut end = Neighbours::new().end(Half::First);
    let _ = end.try_send(&vec![0; PEER_MESSAGE_BYTES_MAX + 1]);
}

#[test]
fn schedulers_that_sleep_lose_no_wake_of_each_other() {
    const ROUNDS: u64 = 20_000;
    let neighbours = Neighbours::new();
    let echo = in_child(|| {
        let (mut link, bell) = (neighbours.end(Half::Second), neighbours.bell_in_child(1));
        let mut got = Vec::new();
        for _ in 0..ROUNDS {
            while !link.receive(&mut got).expect("an honest neighbour") {
                let woken = bell.sleep(|| link.has_message(), Some(LOST));
                assert!(woken, "a wake of the second was lost");
            }
            link.try_send(&got).expect("room");
            link.wake_peer_if_asleep();
        }
    });
    let mut link = neighbours.end(Half::First);
    let mut got = Vec::new();
    for number in 0..ROUNDS {
        link.try_send(&bytes(number)).expect("room");
        link.wake_peer_if_asleep();
        while !link.receive(&mut got).expect("an honest neighbour") {
            let woken = neighbours.bells[0].sleep(|| link.has_message(), Some(LOST));
            assert!(woken, "a wake of the first was lost");
        }
        assert_eq!(got, bytes(number));
    }
    echo.wait_ok();
}

#[test]
fn a_rope_wakes_the_nodes_sleeper_from_another_thread() {
    const PULLS: u64 = 20_000;
    let wires = Wires::new();
    let sleeper = wires.rope();
    let news = AtomicU64::new(0);
    let read = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let rope = sleeper.clone();
        scope.spawn(|| {
            let rope = rope;
            for number in 1..=PULLS {
                news.store(number, Ordering::Release);
                rope.ring_if_asleep();
                while read.load(Ordering::Acquire) < number {
                    std::thread::yield_now();
                }
            }
        });
        for number in 1..=PULLS {
            while news.load(Ordering::Acquire) < number {
                let woken = sleeper.sleep(|| news.load(Ordering::Acquire) >= number, Some(LOST));
                assert!(woken, "the pull of a rope was lost");
            }
            read.store(number, Ordering::Release);
        }
    });
}

#[test]
fn a_sleep_ends_when_its_time_is_over() {
    let rope = Wires::new().rope();
    assert!(!rope.sleep(|| false, Some(Duration::from_millis(1))));
}

#[test]
fn ringing_a_bell_whose_scheduler_was_killed_ends() {
    let wires = Wires::new();
    let (ready, say) = rustix::pipe::pipe().unwrap();
    let scheduler = in_child(|| {
        wires.bell_in_child().sleep(
            || {
                rustix::io::write(&say, b"x").unwrap();
                // Killed here: it has said that it sleeps, and never waits.
                loop {
                    std::thread::park();
                }
            },
            None,
        );
    });
    rustix::io::read(&ready, &mut [0]).unwrap();
    scheduler.kill();
    let rope = BellRope::map(read_only(wires.bell.fd())).unwrap();
    rope.ring_if_asleep();
    // The same sleep is not rung for again.
    rope.ring_if_asleep();
}
