//! An executor killed after any single machine instruction of going on in place: of what it sends,
//! takes and runs, that has begun which it says, and no more.
//!
//! It is run one instruction at a time, and after each a copy of its memory is judged as what a
//! death there leaves. `shm/tests/killed.rs` says why that is the same, and kills in earnest.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::uio::{pread, pwrite};
use pheromone_executor::protocol::{InPlace, Program};
use pheromone_executor::{App, Start, serve_here};
use pheromone_shm::control::{ControlFiles, SchedulerEnd};
use pheromone_shm::doorbell::Bell;
use pheromone_shm::file::{create_sealed, reopen_read_only};
use pheromone_shm::limits::{PAGE_BYTES, up};
use pheromone_shm::mapping::Mapping;
use pheromone_shm::message::{
    Dispatch, Extent, FromExecutor, Input, InputKey, NO_BUCKET, NO_DEADLINE, NO_TRIGGER, Target,
};
use pheromone_shm::wire::{InputList, MessageBuffer};

use crate::Test;
use crate::harness::{AppBuilder, SESSION, SPAN_BYTES, library};
use crate::stepped::Stepped;

pub const TESTS: &[Test] = &[(
    "an_executor_killed_anywhere_in_a_hop_has_begun_what_it_says_and_no_more",
    hops,
)];

/// The executor's slot and region; the one after it holds the first payload.
const SLOT: u16 = 0;
const FIRST_REGION: u16 = 1;
const INCARNATION: u32 = 1;
/// What is dispatched, and the first of what is gone on with.
const DISPATCHED: u64 = 7;
const GRANTED: u64 = 100;
/// The second goes on from one that was gone on with.
const HOPS: u64 = 2;
/// `step` of `killed.c`.
const STEP_BYTES: usize = 24;
/// More instructions than so many hops have: a watchdog.
const INSTRUCTIONS_MAX: u32 = 100_000;

/// The memory of an executor, and what its functions tell of themselves.
struct Scene {
    control: ControlFiles,
    bell: Bell,
    own: OwnedFd,
    first: OwnedFd,
    begun: OwnedFd,
}

/// What an executor that is killed leaves to its survivors.
#[derive(PartialEq, Eq)]
struct Left {
    /// The bytes of its `up` file.
    up: Vec<u8>,
    /// The last invocation that has made itself known.
    begun: u64,
}

/// How far a killed executor has come, for its scheduler.
#[derive(Debug, PartialEq, Eq)]
struct Standing {
    /// Messages that were said since the first function is watched: an offer and a continuation for
    /// each hop, and the completion.
    said: usize,
    /// The last invocation that was said to have begun is known to have.
    is_known: bool,
    /// What was offered is not to be had any more.
    is_taken: bool,
}

fn program() -> Program {
    let mut program = AppBuilder::new(&library("killed.c"), &["hop"]).program;
    program.functions[0].next = vec![0];
    program.region_count = 2;
    program.in_place = InPlace {
        functions: vec![Some(NO_DEADLINE)],
        buckets: Vec::new(),
    };
    program
}

fn sealed(bytes: u64) -> OwnedFd {
    create_sealed("killed", bytes).expect("a memfd")
}

fn scheduler(control: &ControlFiles) -> SchedulerEnd {
    SchedulerEnd::map(control.up.as_fd(), control.down.as_fd(), SLOT, INCARNATION)
        .expect("control memory maps")
}

fn control() -> ControlFiles {
    ControlFiles::create("killed").expect("two memfds")
}

impl Scene {
    /// The first invocation is dispatched, and more are granted.
    fn new() -> Self {
        let scene = Self {
            control: control(),
            bell: Bell::create().expect("a page"),
            own: sealed(SPAN_BYTES),
            first: sealed(SPAN_BYTES),
            begun: sealed(PAGE_BYTES as u64),
        };
        let mut end = scheduler(&scene.control);
        end.set_credit(SPAN_BYTES);
        end.grant(GRANTED);
        let input = Input {
            region: FIRST_REGION,
            bucket: NO_BUCKET,
            offset_units: 0,
            size_bytes: STEP_BYTES as u64,
            session: SESSION,
            arrival_ns: 1,
            key: InputKey::Auto {
                invocation: DISPATCHED - 1,
                ordinal: 0,
            },
            group: &[],
            attached: 0,
        };
        let dispatch = Dispatch {
            function: 0,
            trigger: NO_TRIGGER,
            attempt: 1,
            invocation: DISPATCHED,
            session: SESSION,
            deadline_ns: NO_DEADLINE,
            timeout_ns: NO_DEADLINE,
            input_count: 1,
            request: None,
            headers: None,
            parallelism: 0,
            has_caller: false,
            window: None,
        };
        end.send_dispatch(&dispatch, InputList::single(input))
            .expect("the ring is empty");
        scene
    }

    /// Becomes the executor, and never returns.
    fn serve(&self, program: Program) {
        let begun = Mapping::writable(self.begun.as_fd()).expect("a mapping");
        let mut payload = [0; STEP_BYTES];
        let words = [std::ptr::from_ref(begun.word(0)) as u64, HOPS, 1];
        for (bytes, word) in payload.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        pwrite(&self.first, &payload, 0).expect("the region has room");
        let read_only = |file: &OwnedFd| reopen_read_only(file.as_fd()).expect("/proc is there");
        let again = |file: &OwnedFd| file.try_clone().expect("a descriptor");
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").expect("it is there"));
        let start = Start {
            slot: SLOT,
            incarnation: INCARNATION,
            cpu: None,
            descriptors: [
                again(&self.own),
                again(&self.control.up),
                read_only(&self.control.down),
                self.bell.fd().try_clone_to_owned().expect("a descriptor"),
                null(),
                null(),
            ],
            zygote: rustix::process::getpid(),
            open_files: rustix::process::getrlimit(rustix::process::Resource::Nofile),
            joins: false,
        };
        let app = App {
            program,
            regions: vec![Some(read_only(&self.own)), Some(read_only(&self.first))],
            group: None,
        };
        serve_here(&app, &start)
    }

    fn left(&self) -> Left {
        let mut left = vec![0; up::BYTES];
        assert_eq!(pread(&self.control.up, &mut left, 0), Ok(up::BYTES));
        let mut begun = [0; 8];
        assert_eq!(pread(&self.begun, &mut begun, 0), Ok(8));
        Left {
            up: left,
            begun: u64::from_ne_bytes(begun),
        }
    }

    /// What is offered is all there when it is.
    fn assert_written(&self, extent: Extent, hops_left: u64) {
        let mut payload = [0; STEP_BYTES];
        let at = extent.offset_bytes() as i64;
        assert_eq!(pread(&self.own, &mut payload, at), Ok(STEP_BYTES));
        let word = |at: usize| u64::from_ne_bytes(payload[at..at + 8].try_into().expect("8"));
        assert!(word(0) != 0);
        assert_eq!((word(8), word(16)), (hops_left, 0));
    }

    /// Takes the part of the scheduler that has lost its executor: what has begun is what was said
    /// to have begun.
    fn judge(&self, left: &Left) -> Standing {
        let control = control();
        assert_eq!(pwrite(&control.up, &left.up, 0), Ok(up::BYTES));
        let mut end = scheduler(&control);
        let mut buffer = MessageBuffer::default();
        let mut said = 0;
        let mut begun = vec![DISPATCHED];
        let mut offered = None;
        let mut is_over = false;
        while let Some(message) = end.receive(&mut buffer).expect("whole messages") {
            assert!(!is_over, "{message:?} after the end");
            match message {
                FromExecutor::Ready | FromExecutor::Loaded => continue,
                FromExecutor::Offer {
                    target: Target::Next,
                    extent,
                    invocation,
                    ..
                } => {
                    let hop = begun.len() as u64 - 1;
                    assert_eq!(offered.replace(invocation), None);
                    assert_eq!(invocation, GRANTED + hop);
                    self.assert_written(extent, HOPS - 1 - hop);
                }
                FromExecutor::Continue { discarded: 0 } => {
                    begun.push(offered.take().expect("something was offered"));
                }
                FromExecutor::Complete { status: 0, .. } => is_over = true,
                other => panic!("it said {other:?}"),
            }
            said += 1;
        }
        // Only the last to be told of can be on its way yet: those before it have said more.
        let last = begun[begun.len() - 1];
        let is_known = left.begun == last;
        let is_starting = said > 0 && offered.is_none() && !is_over;
        assert!(
            is_known || is_starting && left.begun == begun[begun.len() - 2],
            "{} has begun, after {said} messages that say {begun:?}",
            left.begun
        );
        for invocation in begun {
            assert!(!end.withdraw(invocation), "{invocation} has begun");
        }
        // Either it is to be had, once, or it was taken without a word: it has not begun.
        let is_taken = offered.is_some_and(|invocation| !end.withdraw(invocation));
        assert!(offered.is_none_or(|invocation| !end.withdraw(invocation)));
        Standing {
            said,
            is_known,
            is_taken,
        }
    }
}

fn hops() {
    let (scene, program) = (Scene::new(), program());
    let mut child = Stepped::start(|| scene.serve(program));
    let mut left = scene.left();
    assert_eq!(left.begun, DISPATCHED, "it is in its first function");
    let mut seen = vec![scene.judge(&left)];
    let messages = 2 * HOPS as usize + 1;
    for steps in 0.. {
        if seen[seen.len() - 1].said == messages {
            break;
        }
        assert!(steps < INSTRUCTIONS_MAX, "it ends before the watchdog");
        assert!(child.step(), "an executor does not return");
        let now = scene.left();
        if now != left {
            left = now;
            seen.push(scene.judge(&left));
        }
    }
    child.kill();
    seen.dedup();
    let standing = |said, is_known, is_taken| Standing {
        said,
        is_known,
        is_taken,
    };
    let mut expected = vec![standing(0, true, false)];
    for hop in 0..HOPS as usize {
        expected.push(standing(2 * hop + 1, true, false));
        expected.push(standing(2 * hop + 1, true, true));
        expected.push(standing(2 * hop + 2, false, false));
        expected.push(standing(2 * hop + 2, true, false));
    }
    expected.push(standing(messages, true, false));
    assert!(seen == expected, "{seen:?}");
}
