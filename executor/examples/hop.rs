//! One hop of a chain, again and again, in one process and one thread: what an executor and the
//! scheduler's end of its control memory execute for it, to be counted instruction by instruction.
//!
//! The executor is the real one, with a C function that goes through the calls of a hop. That
//! function calls the scheduler itself before it does its own work: so what the hop before has said
//! is taken, and the next dispatch is there when the function returns. Nobody waits and nothing is
//! left to chance, so counts repeat to the instruction:
//!
//! ```text
//! cargo build --release -p pheromone-executor --example hop
//! valgrind --tool=callgrind --toggle-collect=scheduler_turn target/release/examples/hop 10000
//! valgrind --tool=callgrind --toggle-collect=phr_hop target/release/examples/hop 10000
//! valgrind --tool=callgrind target/release/examples/hop 10000
//! ```
//!
//! The first counts the scheduler's end, the second that and the function with its calls; the
//! difference of two runs of the third with 10000 and 20000 hops counts everything. With `in-place`
//! behind the number the executor goes on by itself.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Command;

use pheromone_executor::protocol::{Arguments, FunctionProgram, InPlace, Program};
use pheromone_executor::{App, Start, serve_here};
use pheromone_shm::claim::GRANT_HOPS;
use pheromone_shm::control::{ControlFiles, SchedulerEnd};
use pheromone_shm::doorbell::Bell;
use pheromone_shm::file::{create_sealed, reopen_read_only};
use pheromone_shm::message::{
    Dispatch, Extent, FromExecutor, Input, InputKey, NO_BUCKET, NO_DEADLINE, NO_TRIGGER, Target,
    ToExecutor,
};
use pheromone_shm::wire::{InputList, MessageBuffer};

/// The payload says whom to call before the hop's own work, and with what.
const FUNCTION: &str = "
#include <pheromone.h>
#include <string.h>
typedef struct { void (*turn)(void *); void *scheduler; } step;
PHR_FUNCTION(phr_hop)
{
    step here;
    const phr_object *in = phr_input(ctx, 0);
    if (phr_size(in) != sizeof here)
        return 1;
    memcpy(&here, phr_data(in), sizeof here);
    here.turn(here.scheduler);
    phr_object *next = phr_create(ctx, NULL, NULL, sizeof here);
    if (next == NULL)
        return phr_last_status(ctx);
    memcpy(phr_buffer(next), &here, sizeof here);
    return phr_send(ctx, next);
}
";

const SPAN_BYTES: u64 = 1 << 20;
/// The executor's slot and region; the region after it holds the first payload.
const SLOT: u16 = 0;
const FIRST_REGION: u16 = 1;
const INCARNATION: u32 = 1;
const STEP_BYTES: u64 = 16;

/// The scheduler's end, and what it knows of the chain.
struct Scheduler {
    end: SchedulerEnd,
    buffer: Box<MessageBuffer>,
    hops_left: u64,
    invocation: u64,
    /// What the function that runs reads: given back after it has returned.
    input: Option<Extent>,
    /// The executor goes on by itself: what it has offered, and what has been granted.
    in_place: bool,
    offered: Option<Extent>,
    granted: u64,
}

impl Scheduler {
    /// Takes what the last hop has said, and sends the next.
    fn turn(&mut self) {
        let mut published = None;
        while self.end.has_message() {
            let received = match self.end.receive_plain() {
                Some(message) => Ok(Some(message)),
                None => self.end.receive(&mut self.buffer),
            };
            match received {
                Ok(Some(FromExecutor::Publish { extent, target, .. })) => {
                    assert_eq!(target, Target::Next);
                    published = Some(extent);
                }
                Ok(Some(FromExecutor::Complete { status: 0, .. })) => {}
                Ok(Some(FromExecutor::Offer { extent, .. })) => self.offered = Some(extent),
                Ok(Some(FromExecutor::Continue { .. })) => return self.went_on(),
                Ok(Some(FromExecutor::Ready | FromExecutor::Loaded)) => {}
                other => panic!("the executor said {other:?}"),
            }
        }
        self.end.publish_consumed();
        let (region, extent) = published.map_or((FIRST_REGION, None), |e| (SLOT, Some(e)));
        self.dispatch(region, extent.map_or(0, |extent| extent.offset_units));
        if let Some(read) = std::mem::replace(&mut self.input, extent) {
            assert!(self.end.release(read));
            self.end.flush_releases();
        }
    }

    /// What the executor reads from here on is what it had offered.
    fn went_on(&mut self) {
        self.end.publish_consumed();
        self.hops_left -= 1;
        self.invocation += 1;
        if self.hops_left == 0 {
            self.end.grant(0);
            self.dispatch(SLOT, 0);
        } else if self.invocation.is_multiple_of(GRANT_HOPS / 2) {
            self.grant();
        }
        let read = std::mem::replace(&mut self.input, self.offered.take());
        if let Some(read) = read {
            assert!(self.end.release(read));
            self.end.flush_releases();
        }
    }

    fn grant(&mut self) {
        self.granted += GRANT_HOPS;
        self.end.grant(self.granted);
    }

    fn dispatch(&mut self, region: u16, offset_units: u32) {
        let sent = if self.hops_left == 0 {
            self.end.send(&ToExecutor::Exit)
        } else {
            self.hops_left -= 1;
            self.invocation += 1;
            self.end.send_dispatch(
                &Dispatch {
                    function: 0,
                    trigger: NO_TRIGGER,
                    attempt: 1,
                    invocation: self.invocation,
                    session: 1,
                    deadline_ns: NO_DEADLINE,
                    timeout_ns: NO_DEADLINE,
                    input_count: 1,
                    request: None,
                    headers: None,
                    parallelism: 0,
                    has_caller: true,
                    window: None,
                },
                InputList::single(Input {
                    region,
                    bucket: NO_BUCKET,
                    offset_units,
                    size_bytes: STEP_BYTES,
                    session: 1,
                    arrival_ns: 1,
                    key: InputKey::Auto {
                        invocation: self.invocation - 1,
                        ordinal: 0,
                    },
                    group: &[],
                    attached: 0,
                }),
            )
        };
        assert!(sent.is_ok(), "at most two dispatches are under way");
        self.end.wake_if_asleep();
    }
}

/// Called by the function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn scheduler_turn(scheduler: *mut Scheduler) {
    // SAFETY: the pointer is that of the first payload, made from a leaked box; one thread uses it.
    unsafe { &mut *scheduler }.turn();
}

/// Beside this program.
fn compile() -> String {
    let program = std::env::current_exe().expect("this program has a path");
    let (source, library) = (program.with_extension("c"), program.with_extension("so"));
    std::fs::write(&source, FUNCTION).expect("the folder of this program is writable");
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk-c/include");
    let done = Command::new("cc")
        .args(["-O2", "-g", "-shared", "-fPIC", "-I"])
        .arg(include)
        .arg("-o")
        .args([&library, &source])
        .status()
        .expect("the system has a C compiler");
    assert!(done.success());
    library.to_string_lossy().into_owned()
}

fn program(library: String) -> Program {
    Program {
        app: "chain".into(),
        directory: "/".into(),
        functions: vec![FunctionProgram {
            name: "hop".into(),
            library,
            library_origin: "hop.c".into(),
            symbol: "phr_hop".into(),
            next: vec![0],
            calls: Vec::new(),
            sends: None,
            config: Vec::new(),
            env: Vec::new(),
            init_timeout_ns: 1_000_000_000,
            arguments: Arguments::Values,
        }],
        buckets: Vec::new(),
        triggers: Vec::new(),
        region_count: 2,
        region_span_bytes: SPAN_BYTES,
        object_size_max_bytes: SPAN_BYTES,
        log_bytes: 1 << 20,
        create_wait_ns: 0,
        uid: None,
        sandbox: pheromone_executor::sandbox::Sandbox::default(),
        in_place: InPlace {
            functions: vec![Some(NO_DEADLINE)],
            buckets: Vec::new(),
        },
    }
}

fn main() {
    let hops = std::env::args()
        .nth(1)
        .map_or(Ok(10_000), |text| text.parse());
    let hops: u64 = hops.expect("the first argument is a number of hops");
    let in_place = std::env::args()
        .nth(2)
        .is_some_and(|text| text == "in-place");
    let program = program(compile());

    let files = ControlFiles::create("hop").expect("two memfds");
    let mut end = SchedulerEnd::map(files.up.as_fd(), files.down.as_fd(), SLOT, INCARNATION)
        .expect("control memory maps");
    end.set_credit(u64::MAX);
    end.permit_spin(true);
    let scheduler = Box::leak(Box::new(Scheduler {
        end,
        buffer: Box::default(),
        hops_left: hops,
        invocation: 0,
        input: None,
        in_place,
        offered: None,
        granted: 1 << 32,
    }));
    if scheduler.in_place {
        scheduler.grant();
    }

    let bell = Bell::create().expect("a node page");
    let [own, first] = ["own", "first"].map(|name| create_sealed(name, SPAN_BYTES).expect("room"));
    let turn: extern "C" fn(*mut Scheduler) = scheduler_turn;
    let mut payload = [0; STEP_BYTES as usize];
    payload[..8].copy_from_slice(&(turn as usize).to_ne_bytes());
    payload[8..].copy_from_slice(&(&raw const *scheduler as usize).to_ne_bytes());
    rustix::io::pwrite(&first, &payload, 0).expect("the region has room");
    scheduler.dispatch(FIRST_REGION, 0);

    let read_only = |file: &OwnedFd| reopen_read_only(file.as_fd()).expect("/proc is there");
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").expect("it is there"));
    let regions = vec![Some(read_only(&own)), Some(read_only(&first))];
    let down = read_only(&files.down);
    let node = bell.fd().try_clone_to_owned().expect("a descriptor");
    let start = Start {
        slot: SLOT,
        incarnation: INCARNATION,
        cpu: None,
        descriptors: [own, files.up, down, node, null(), null()],
        zygote: rustix::process::getpid(),
        open_files: rustix::process::getrlimit(rustix::process::Resource::Nofile),
        joins: false,
    };
    let app = App {
        program,
        regions,
        group: None,
    };
    serve_here(&app, &start)
}
