//! In the steady state nothing here asks for private memory: a hop is loads and stores.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::{Control, extent};
use pheromone_shm::allocator::{Allocator, Pages, PagesError};
use pheromone_shm::message::{
    Dispatch, Ending, Extent, FromExecutor, Input, InputKey, Key, NO_BUCKET, NO_DEADLINE,
    NO_TRIGGER, Target, ToExecutor,
};
use pheromone_shm::wire::MessageBuffer;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: hands everything to the system's allocator; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are the system allocator's conditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

struct NoPages;
impl Pages for NoPages {
    fn populate(&mut self, _: Extent) -> Result<(), PagesError> {
        Ok(())
    }
    fn punch(&mut self, _: Extent) -> Result<(), PagesError> {
        Ok(())
    }
}

#[test]
fn a_hop_allocates_nothing() {
    let control = Control::new(0, 1);
    let (mut scheduler, mut executor) = (control.scheduler(), control.executor());
    let (mut up, mut down) = (MessageBuffer::default(), MessageBuffer::default());
    let mut allocator = Allocator::new(1 << 20, NoPages);
    let mut hop = |number: u64| {
        let input = Input {
            region: 0,
            bucket: NO_BUCKET,
            offset_units: 1,
            size_bytes: 8,
            session: 1,
            arrival_ns: number,
            key: InputKey::Named(b"a name that needs more than one slot to be said, as it is long"),
            group: b"",
            attached: 0,
        };
        let dispatch = Dispatch {
            function: 0,
            trigger: NO_TRIGGER,
            attempt: 1,
            invocation: number,
            session: 1,
            deadline_ns: NO_DEADLINE,
            timeout_ns: NO_DEADLINE,
            input_count: 1,
            request: None,
            headers: None,
            parallelism: 1,
            has_caller: true,
            window: None,
        };
        scheduler
            .send_dispatch(&dispatch, [input].into_iter())
            .unwrap();
        scheduler.wake_if_asleep();
        let got = executor.receive(&mut down).unwrap();
        assert!(matches!(got, Some(ToExecutor::Dispatch { .. })));
        let object = allocator.allocate(number % 9 + 1).unwrap();
        executor.send(&FromExecutor::Publish {
            target: Target::Next,
            extent: object,
            size_bytes: 8,
            key: Key::Auto(0),
            ordinal: 0,
            group: b"",
            delay_ns: 0,
        });
        let message = &[b'm'; 1024][..if number.is_multiple_of(10) { 1024 } else { 0 }];
        executor.send(&FromExecutor::Complete {
            status: 0,
            ending: Ending::Returned,
            discarded: 0,
            message,
        });
        for _ in 0..2 {
            assert!(scheduler.receive(&mut up).unwrap().is_some());
        }
        scheduler.publish_consumed();
        assert!(scheduler.release(object));
        scheduler.flush_releases();
        executor.take_releases(|released| allocator.free(released.extent));
        if number.is_multiple_of(100) {
            scheduler
                .send_extents(0, (1..1000).map(|at| extent(at, 1)))
                .unwrap();
            assert!(executor.receive(&mut down).unwrap().is_some());
        }
    };
    (0..1000).for_each(&mut hop);
    let before = ALLOCATIONS.with(Cell::get);
    (0..10_000).for_each(&mut hop);
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0);
}
