//! Priorities are strict: who waits long because of that is counted.

use pheromone_core::limits::STARVED_NS;
use pheromone_core::spec::Pool;

use crate::common::World;
use crate::common::app::app;

/// One executor, which runs `source`; that has sent one object to `low`, then to `high`.
fn waiting(low: i8, high: i8) -> World {
    let mut spec = app(&["source", "low", "high"]);
    spec.executors = Pool { min: 1, max: 1 };
    spec.functions[0].next = vec![1, 2];
    spec.functions[1].priority = low;
    spec.functions[2].priority = high;
    let mut world = World::new(spec);
    world.call("source");
    let source = world.running("source");
    world.next_by(source);
    world.done(source);
    world
}

#[test]
fn who_has_waited_long_while_a_higher_priority_went_first_is_counted_when_it_starts() {
    let mut world = waiting(-1, 1);
    world.pass(STARVED_NS + 1);
    assert_eq!(world.stats().starved_total, 0, "`low` still waits");
    world.run("high");
    assert_eq!(world.stats().starved_total, 1);
    world.run("low");
    assert_eq!(world.stats().starved_total, 1);
    world.assert_empty();
}

#[test]
fn a_wait_no_longer_than_the_limit_is_not_starvation() {
    let mut world = waiting(-1, 1);
    world.pass(STARVED_NS);
    world.run("high");
    world.run("low");
    assert_eq!(world.stats().starved_total, 0);
}

#[test]
fn a_long_wait_for_those_of_equal_priority_is_not_starvation() {
    let mut world = waiting(0, 0);
    let first = world.running("low");
    world.pass(2 * STARVED_NS);
    world.done(first);
    world.run("high");
    assert_eq!(world.stats().starved_total, 0);
}

#[test]
fn a_long_wait_that_no_higher_priority_has_made_longer_is_not_starvation() {
    let mut world = waiting(-1, 1);
    let high = world.running("high");
    world.done(high);
    let low = world.running("low");
    world.pass(1);
    world.call("low");
    world.pass(2 * STARVED_NS);
    world.done(low);
    world.run("low");
    assert_eq!(world.stats().starved_total, 0);
}
