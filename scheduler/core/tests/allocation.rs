//! In the steady state a step allocates nothing, and frees nothing, and what is idle takes little
//! memory: counted by the allocator.

#[allow(dead_code)]
#[path = "behaviour/common/app.rs"]
mod app;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use app::{app, bucket, by_key, by_set, immediate, trigger};
use pheromone_core::event::{
    AppId, Destination, DurableObject, Event, ExecutorId, Failure, HandedLetter, Ingress, Outcome,
    Refusal, Request, RequestId, Response, SessionId, Sink, Ticket,
};
use pheromone_core::spec::{AppSpec, AtEnd, Keep, TriggerKind, TriggerSpec};
use pheromone_core::{Core, CoreConfig, PeerMessage, SpinPolicy};
use pheromone_shm::claim::Granted;
use pheromone_shm::events::TriggerEvent;
use pheromone_shm::message::{
    Dispatch, Ending, Extent, FromExecutor, Input, Key, Target, ToExecutor,
};

const APP: AppId = AppId(0);

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
    /// Allocated and not freed.
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged; counting uses a thread-local
// cell without a destructor, which does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        BYTES.set(BYTES.get().wrapping_add(layout.size()));
        // SAFETY: the caller keeps the contract of `alloc`, which is the system's too.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        CALLS.set(CALLS.get() + 1);
        // What another thread has allocated is freed here, too.
        BYTES.set(BYTES.get().wrapping_sub(layout.size()));
        // SAFETY: the pointer came from `alloc` above, that is, from the system.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Remembers numbers alone, in room made beforehand.
struct Numbers {
    free: Vec<Extent>,
    open: [bool; 8],
    spawns: Vec<ExecutorId>,
    session: SessionId,
    ended: u64,
    dispatched: u64,
    grant: u64,
    granted: Granted,
}

impl Sink for Numbers {
    fn send(&mut self, _: ExecutorId, _: &ToExecutor<'_>) {}

    fn dispatch<'a>(
        &mut self,
        id: ExecutorId,
        _: &Dispatch<'a>,
        inputs: impl Iterator<Item = Input<'a>>,
    ) {
        assert!(inputs.count() > 0);
        self.open[usize::from(id.slot)] = true;
        self.dispatched += 1;
    }

    fn inputs<'a>(&mut self, _: ExecutorId, _: u32, _: impl Iterator<Item = Input<'a>>) {}

    fn extents(&mut self, _: ExecutorId, _: u32, _: impl Iterator<Item = Extent>) {}

    fn events<'a>(
        &mut self,
        _: ExecutorId,
        _: u16,
        _: impl ExactSizeIterator<Item = TriggerEvent<'a>>,
    ) {
        unreachable!("no trigger of these apps is custom");
    }

    fn release(&mut self, _: ExecutorId, extent: Extent) -> bool {
        self.free.push(extent);
        true
    }

    fn credit(&mut self, _: ExecutorId, _: u64) {}

    fn permit_spin(&mut self, _: ExecutorId, _: bool) {}

    fn cancel(&mut self, _: ExecutorId, _: u64) {}

    fn grant(&mut self, _: ExecutorId, first: u64) {
        self.grant = first;
    }

    fn spawn(&mut self, id: ExecutorId, _: u16) {
        self.spawns.push(id);
    }

    fn kill(&mut self, _: ExecutorId, why: &str) {
        panic!("{why}");
    }

    fn accepted(&mut self, _: RequestId, session: SessionId) {
        self.session = session;
    }

    fn refused(&mut self, _: RequestId, refusal: Refusal) {
        panic!("{refusal:?}");
    }

    fn respond(&mut self, _: &Response<'_>) {}

    fn ended(&mut self, _: AppId, _: RequestId, _: SessionId, _: &Outcome<'_>, _: bool) {
        self.ended += 1;
    }

    fn error_event(&mut self, _: AppId, _: SessionId, text: &str) {
        panic!("{text}");
    }

    fn write_failure(&mut self, _: AppId, _: Ticket, failure: &Failure) {
        panic!("{failure:?}");
    }

    fn letter(&mut self, _: AppId, _: &HandedLetter) {
        panic!("no version takes this one's place");
    }

    fn write(&mut self, _: AppId, _: Ticket, _: &DurableObject<'_>) {
        unreachable!("nothing here is durable");
    }

    fn load(&mut self, _: AppId, _: Ticket, _: u16, _: &[u8]) {
        unreachable!("nothing here is on disk");
    }

    fn delete(&mut self, _: AppId, _: u16, _: &[u8]) {
        unreachable!("nothing here is on disk");
    }

    fn peer(&mut self, _: u8, _: &PeerMessage) {
        panic!("there is one scheduler");
    }

    fn removed(&mut self, _: AppId) {}
}

struct Loop {
    core: Core,
    sink: Numbers,
    now_ns: u64,
}

impl Loop {
    fn new(mut spec: AppSpec, spin: SpinPolicy) -> Self {
        spec.session_timeout_ns = Some(3_600_000_000_000);
        let extent = |offset_units| Extent {
            offset_units,
            len_units: 1,
        };
        let mut this = Self {
            core: Core::new(CoreConfig {
                keeps_on_disk: false,
                first_id: 0,
                scheduler_index: 0,
                schedulers: 1,
                executor_cores: 1,
                spin,
            }),
            sink: Numbers {
                free: (0..80).map(extent).collect(),
                open: [false; 8],
                spawns: Vec::with_capacity(8),
                session: SessionId(0),
                ended: 0,
                dispatched: 0,
                grant: 0,
                granted: Granted::default(),
            },
            now_ns: 1,
        };
        this.step(Event::Deploy {
            app: APP,
            spec: Box::new(spec),
        });
        while let Some(executor) = this.sink.spawns.pop() {
            this.step(Event::ExecutorStarted {
                executor,
                incarnation: 1,
            });
            this.say(executor, FromExecutor::Ready);
        }
        this
    }

    fn step(&mut self, event: Event<'_>) {
        self.now_ns += 500;
        self.core.step(event, self.now_ns, &mut self.sink);
    }

    fn say(&mut self, executor: ExecutorId, message: FromExecutor<'_>) {
        self.step(Event::Message { executor, message });
    }

    fn request(&mut self, destination: Destination<'_>) {
        let extent = self.sink.free.pop().expect("memory is flat");
        self.step(Event::Request(Request {
            app: APP,
            id: RequestId(1),
            destination,
            body: Ingress {
                extent,
                size_bytes: 3,
            },
            headers: None,
            session: None,
            has_caller: true,
            timeout_ns: None,
            durable: None,
        }));
    }

    fn running(&self) -> ExecutorId {
        let slot = self
            .sink
            .open
            .iter()
            .position(|&open| open)
            .expect("one runs") as u16;
        ExecutorId { app: APP, slot }
    }

    fn publish(&mut self, executor: ExecutorId, target: Target, key: Key<'_>, group: &[u8]) {
        let extent = self.sink.free.pop().expect("memory is flat");
        self.say(
            executor,
            FromExecutor::Publish {
                ordinal: 0,
                delay_ns: 0,
                target,
                extent,
                size_bytes: 10,
                key,
                group,
            },
        );
    }

    /// An object, and its sender goes on with what it fires.
    fn go_on(&mut self, executor: ExecutorId, target: Target) {
        let extent = self.sink.free.pop().expect("memory is flat");
        let granted = self.sink.granted.next(self.sink.grant);
        self.say(
            executor,
            FromExecutor::Offer {
                target,
                extent,
                size_bytes: 10,
                ordinal: 0,
                invocation: granted.expect("it may go on for ever"),
            },
        );
        self.say(executor, FromExecutor::Continue { discarded: 0 });
    }

    fn done(&mut self, executor: ExecutorId) {
        self.sink.open[usize::from(executor.slot)] = false;
        self.say(
            executor,
            FromExecutor::Complete {
                status: 0,
                ending: Ending::Returned,
                discarded: 0,
                message: b"",
            },
        );
    }

    /// Runs `turn` until everything is warm, then counts what it asks of the allocator.
    fn allocations(&mut self, mut turn: impl FnMut(&mut Self)) -> u64 {
        (0..20_000).for_each(|_| turn(self));
        let before = CALLS.get();
        (0..20_000).for_each(|_| turn(self));
        CALLS.get() - before
    }
}

fn chain(executors: u16) -> AppSpec {
    let mut spec = app(&["f"]);
    spec.executors.min = executors;
    spec.executors.max = executors;
    spec.functions[0].next = vec![0];
    spec.buckets = vec![bucket("b", Keep::UntilConsumed, vec![immediate(&[0])])];
    spec
}

const POLICIES: [SpinPolicy; 3] = [
    SpinPolicy::Never,
    SpinPolicy::Budget(20_000),
    SpinPolicy::Always,
];

#[test]
fn a_hop_in_place_allocates_nothing() {
    for target in [Target::Next, Target::Bucket(0)] {
        let mut this = Loop::new(chain(2), SpinPolicy::Always);
        this.request(Destination::Function(0));
        let f = this.running();
        let allocations = this.allocations(|this| this.go_on(f, target));
        assert_eq!(allocations, 0);
        assert_eq!(this.sink.dispatched, 1);
        assert_eq!(this.core.totals().objects, 1);
    }
}

#[test]
fn a_hop_to_the_next_function_allocates_nothing() {
    for spin in POLICIES {
        let mut spec = chain(2);
        spec.continuation = false;
        let mut this = Loop::new(spec, spin);
        this.request(Destination::Function(0));
        let allocations = this.allocations(|this| {
            let f = this.running();
            this.publish(f, Target::Next, Key::Auto(0), b"");
            this.done(f);
        });
        assert_eq!(allocations, 0);
        assert_eq!(this.sink.dispatched, 40_001);
        assert_eq!(this.core.totals().objects, 1);
    }
}

#[test]
fn a_hop_among_63_others_allocates_nothing() {
    for spin in POLICIES {
        let mut spec = chain(1);
        spec.continuation = false;
        let mut this = Loop::new(spec, spin);
        this.request(Destination::Function(0));
        let f = this.running();
        (0..63).for_each(|_| this.publish(f, Target::Next, Key::Auto(0), b""));
        let allocations = this.allocations(|this| {
            let f = this.running();
            this.publish(f, Target::Next, Key::Auto(0), b"");
            this.done(f);
        });
        assert_eq!(allocations, 0);
        assert_eq!(this.sink.dispatched, 40_001);
        assert_eq!(this.core.totals().objects, 64);
    }
}

#[test]
fn a_hop_through_a_bucket_allocates_nothing() {
    for spin in POLICIES {
        let mut this = Loop::new(chain(2), spin);
        this.request(Destination::Function(0));
        let allocations = this.allocations(|this| {
            let f = this.running();
            this.publish(f, Target::Bucket(0), Key::Auto(0), b"a group");
            this.done(f);
        });
        assert_eq!(allocations, 0);
        assert_eq!(this.core.totals().objects, 1);
    }
}

#[test]
fn a_session_with_its_response_allocates_nothing() {
    let mut this = Loop::new(chain(1), SpinPolicy::Always);
    let allocations = this.allocations(|this| {
        this.request(Destination::Function(0));
        let f = this.running();
        let extent = this.sink.free.pop().expect("memory is flat");
        this.say(
            f,
            FromExecutor::Respond {
                session: 0,
                extent,
                size_bytes: 1,
                http_status: 200,
                content_type: b"text/plain",
            },
        );
        this.done(f);
        let session = this.sink.session;
        this.step(Event::ResponseTaken {
            request: RequestId(1),
            session,
        });
    });
    assert_eq!(allocations, 0);
    assert_eq!(this.sink.ended, 40_000);
    assert_eq!(this.core.totals().sessions, 0);
}

#[test]
fn a_session_with_a_fan_out_and_a_set_allocates_nothing() {
    let mut spec = app(&["source", "merge"]);
    let keys = ["part-0", "part-1", "part-2", "part-3", "part-4"];
    spec.executors.min = 1;
    spec.executors.max = 1;
    spec.buckets = vec![bucket("b", Keep::Session, vec![by_set(&keys, &[1])])];
    let mut this = Loop::new(spec, SpinPolicy::Always);
    let allocations = this.allocations(|this| {
        this.request(Destination::Function(0));
        let source = this.running();
        for key in keys {
            this.publish(source, Target::Bucket(0), Key::Named(key.as_bytes()), b"");
        }
        this.done(source);
        let merge = this.running();
        this.done(merge);
    });
    assert_eq!(allocations, 0);
    assert_eq!(this.sink.ended, 40_000);
    assert_eq!(this.core.totals().names, 0);
}

/// A bucket of ten thousand triggers, of which an object with the key `mine` concerns one.
fn among_ten_thousand(mine: TriggerSpec, others: impl Fn(u32) -> TriggerSpec) -> Loop {
    let mut spec = app(&["source", "target"]);
    spec.executors.min = 1;
    spec.executors.max = 1;
    let mut triggers: Vec<TriggerSpec> = (1..10_000).map(others).collect();
    triggers.insert(5000, mine);
    spec.buckets = vec![bucket("b", Keep::Session, triggers)];
    Loop::new(spec, SpinPolicy::Always)
}

fn fires_once_and_touches_one_of_ten_thousand(mut this: Loop, states: u64) {
    let allocations = this.allocations(|this| {
        this.request(Destination::Function(0));
        let source = this.running();
        this.publish(source, Target::Bucket(0), Key::Named(b"mine"), b"");
        assert_eq!(this.core.totals().trigger_states, states);
        this.done(source);
        let target = this.running();
        this.done(target);
    });
    assert_eq!(allocations, 0);
    assert_eq!(this.sink.ended, 40_000);
    assert_eq!(this.sink.dispatched, 80_000);
}

#[test]
fn an_object_among_ten_thousand_triggers_of_other_keys_touches_none_of_them() {
    let others = |number| by_key(&format!("other-{number}"), &[1]);
    let this = among_ten_thousand(by_key("mine", &[1]), others);
    fires_once_and_touches_one_of_ten_thousand(this, 0);
}

#[test]
fn an_object_among_ten_thousand_sets_of_other_keys_touches_its_own_alone() {
    let others = |number: u32| {
        let keys = [0, 1].map(|key| format!("other-{number}-{key}"));
        by_set(&[&keys[0], &keys[1]], &[1])
    };
    let this = among_ten_thousand(by_set(&["mine"], &[1]), others);
    fires_once_and_touches_one_of_ten_thousand(this, 1);
}

/// Sessions that are opened to see what one takes: a power of two, so that no table has room left.
const IDLE_SESSIONS: u32 = 1 << 15;

/// Bytes that the core keeps for a session with one object, which lies in this trigger.
fn idle_session_bytes(trigger: TriggerSpec) -> usize {
    let mut spec = app(&["source"]);
    spec.executors.min = 0;
    spec.limits.sessions = IDLE_SESSIONS;
    spec.memory_bytes = 1 << 36;
    spec.buckets = vec![bucket("b", Keep::UntilConsumed, vec![trigger])];
    let mut this = Loop::new(spec, SpinPolicy::Never);
    let mut offset_units = 64;
    let mut open = |this: &mut Loop| {
        offset_units += 1;
        this.sink.free.push(Extent {
            offset_units,
            len_units: 1,
        });
        this.request(Destination::Bucket {
            bucket: 0,
            key: None,
            group: b"",
        });
    };
    let before = BYTES.get();
    (0..IDLE_SESSIONS).for_each(|_| open(&mut this));
    let totals = this.core.totals();
    assert_eq!(totals.sessions, u64::from(IDLE_SESSIONS));
    assert_eq!(totals.trigger_states, u64::from(IDLE_SESSIONS));
    BYTES.get().wrapping_sub(before) / IDLE_SESSIONS as usize
}

#[test]
fn an_idle_session_with_an_object_in_a_trigger_takes_this_much() {
    let kept = |kind| TriggerSpec {
        at_end: AtEnd::Wait,
        ..trigger("kept", kind, &[0])
    };
    let hour_ns = 3_600_000_000_000;
    let batch = idle_session_bytes(kept(TriggerKind::ByBatchSize {
        count: 4,
        linger_ns: Some(hour_ns),
        per_group: false,
    }));
    let window = idle_session_bytes(kept(TriggerKind::ByTime {
        window_ns: hour_ns,
        slide_ns: hour_ns,
        fire_empty: false,
        per_group: false,
    }));
    assert!(batch <= 880, "{batch} bytes");
    assert!(window <= 1040, "{window} bytes");
}
