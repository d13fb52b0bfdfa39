//! Credit, quotas and the region's books.

use pheromone_executor::protocol::OutputKind;
use pheromone_shm::message::{Extent, ToExecutor};

use crate::Test;
use crate::harness::{AppBuilder, OwnedInput, Said, library, single};

pub const TESTS: &[Test] = &[
    ("credit_bounds_what_is_created", credit),
    ("credit_that_is_granted_on_demand_is_used", granted),
    ("what_is_given_back_can_be_created_again", given_back),
    ("a_full_region_is_no_memory", full_region),
    ("released_extents_are_used_again", released),
    ("a_successor_adopts_the_region", adoption),
];

/// Bytes charged for an object of this size.
fn charge(size: u64) -> u64 {
    Extent::units_for(size) * 64 + 256
}

fn fill(world: &mut crate::harness::World, step: u64) -> OwnedInput {
    world.request(step.to_string().as_bytes())
}

fn credit() {
    let mut world = AppBuilder::new(&library("calls.c"), &["fill"]).start();
    let mut executor = world.executor_without_ready(0);
    assert_eq!(executor.next(), Said::Ready);
    executor
        .end
        .set_credit(10 * charge(1000) + charge(1000) - 1);
    let input = fill(&mut world, 1000);
    let done = executor.run(0, std::slice::from_ref(&input)).ok();
    assert_eq!(done.said, [Said::NeedCredit { bytes: 1 }]);
    assert_eq!(done.discarded, 10);
    assert_eq!(executor.texts(OutputKind::Info), ["10 objects"]);
    // What was discarded has been given back, to the byte.
    let done = executor.run(0, &[input]).ok();
    assert_eq!(
        (done.said, done.discarded),
        (vec![Said::NeedCredit { bytes: 1 }], 10)
    );
}

fn granted() {
    let mut world = AppBuilder::new(&library("calls.c"), &["fill"]).start();
    let mut executor = world.executor_without_ready(0);
    assert_eq!(executor.next(), Said::Ready);
    let input = fill(&mut world, 500);
    let dispatch = executor.dispatch_of(0, 1);
    executor.send(&dispatch, std::slice::from_ref(&input));
    for objects in 0..7 {
        assert_eq!(executor.next(), Said::NeedCredit { bytes: charge(500) });
        executor.end.set_credit((objects + 1) * charge(500));
        executor.answer(&ToExecutor::Credit { granted: true });
    }
    assert_eq!(executor.next(), Said::NeedCredit { bytes: charge(500) });
    // Granted, and nothing came: that is a refusal, not a question without end.
    executor.answer(&ToExecutor::Credit { granted: true });
    let done = executor.finish(&[]).ok();
    assert_eq!((done.discarded, done.said.len()), (7, 0));
}

fn given_back() {
    let mut world = AppBuilder::new(&library("calls.c"), &["outputs", "fill"]).start();
    let mut executor = world.executor_without_ready(0);
    assert_eq!(executor.next(), Said::Ready);
    // `outputs` creates 100 000 bytes, keeps 10 of them, and fails at its first direct object.
    executor.end.set_credit(charge(100_000));
    let input = fill(&mut world, 90_000);
    let done = executor.run(0, std::slice::from_ref(&input));
    let sent: u64 = done
        .published()
        .iter()
        .map(|object| object.extent.len_bytes() + 256)
        .sum();
    assert_eq!(done.published().len(), 2);
    executor.end.set_credit(sent + charge(90_000));
    let done = executor.run(1, &[input]).ok();
    assert_eq!(done.discarded, 1);
    assert_eq!(
        done.said,
        [Said::NeedCredit {
            bytes: charge(90_000)
        }]
    );
}

fn full_region() {
    let (mut world, mut executor) = single(&library("calls.c"), &["fill", "copy"]);
    executor.end.set_credit(1 << 40);
    let input = fill(&mut world, 5 << 20);
    for _ in 0..3 {
        let done = executor.run(0, std::slice::from_ref(&input)).ok();
        assert_eq!((done.said.len(), done.discarded), (0, 3));
    }
    executor.run(1, &[input]).ok();
}

fn released() {
    let (mut world, mut executor) = single(&library("calls.c"), &["copy"]);
    let payload = vec![b'z'; 3 << 20];
    let input = world.request(&payload);
    executor.end.set_credit(u64::MAX);
    // Thirty times the region's size.
    for round in 0..160 {
        let done = executor.run(0, std::slice::from_ref(&input)).ok();
        let object = done.published()[0];
        assert!(object.payload == payload, "round {round}");
        assert!(executor.end.release(object.extent));
        executor.end.flush_releases();
    }
}

fn adoption() {
    let (mut world, mut executor) = single(&library("calls.c"), &["copy"]);
    let mut alive = Vec::new();
    for i in 0..2_000u32 {
        let payload = vec![i as u8; (i % 300) as usize];
        let input = world.request(&payload);
        let done = executor.run(0, &[input]).ok();
        let object = done.published()[0].clone();
        if i % 3 == 0 {
            alive.push(object);
        }
    }
    executor.kill();
    assert_eq!(world.exit_of(&executor), (None, Some(9)));

    let mut successor = world.executor(0);
    let extents: Vec<Extent> = alive.iter().map(|object| object.extent).collect();
    successor.answer(&ToExecutor::Adopt {
        extent_count: extents.len() as u32,
    });
    let mut fetched = 0;
    while fetched < extents.len() {
        assert_eq!(
            successor.next(),
            Said::FetchExtents {
                first: fetched as u32
            }
        );
        let chunk = &extents[fetched..extents.len().min(fetched + 100)];
        let sent = successor
            .end
            .send_extents(fetched as u32, chunk.iter().copied());
        sent.expect("room in the ring");
        successor.end.wake_if_asleep();
        fetched += chunk.len();
    }
    let input = world.request(&[0xee; 200]);
    for _ in 0..3_000 {
        let done = successor.run(0, std::slice::from_ref(&input)).ok();
        let made = done.published()[0].extent;
        let overlaps = |extent: &Extent| {
            u64::from(made.offset_units) < extent.end_units()
                && u64::from(extent.offset_units) < made.end_units()
        };
        assert!(!extents.iter().any(overlaps), "{made:?} was alive");
    }
    let region = world.read(0);
    for object in &alive {
        let at = object.extent.offset_bytes() as usize;
        assert_eq!(region[at..at + object.payload.len()], object.payload);
    }
}
