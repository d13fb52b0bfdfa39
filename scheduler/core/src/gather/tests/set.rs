//! `by_set`.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Driver, Item, Said};
use crate::gather::Rule;

fn keys(count: u32) -> Vec<String> {
    (0..count).map(|key| format!("k{key}")).collect()
}

#[test]
fn a_set_fires_with_its_last_key_in_the_listed_order() {
    let mut set = Driver::new(Rule::Set(3));
    for position in [2, 0] {
        assert_eq!(set.offer(position, "", ""), Said::default());
        assert!(set.gatherer.is_pending());
    }
    assert_eq!(set.offer(1, "", "").items(), [[1, 2, 0]]);
    assert!(!set.gatherer.is_pending() && set.held.is_empty());
}

#[test]
fn a_key_that_comes_twice_or_after_the_firing_changes_nothing() {
    let mut set = Driver::new(Rule::Set(2));
    set.offer(0, "", "");
    assert_eq!(set.offer(0, "", ""), Said::default());
    assert_eq!(set.held(), [0]);
    assert_eq!(set.offer(1, "", "").items(), [[0, 2]]);
    for position in [0, 1, 7] {
        assert_eq!(set.offer(position, "", ""), Said::default());
        assert!(set.held.is_empty());
    }
    assert_eq!(set.fire_pending(), Said::default());
}

#[test]
fn a_set_without_any_of_its_keys_is_not_pending() {
    let mut set = Driver::new(Rule::Set(2));
    assert!(!set.gatherer.is_pending());
    assert_eq!(set.fire_pending(), Said::default());
    set.offer(1, "", "");
    assert_eq!(set.offer(0, "", "").items(), [[1, 0]]);
}

#[test]
fn a_set_at_its_end_fires_with_what_has_come_or_drops_it_and_is_over() {
    let mut set = Driver::new(Rule::Set(3));
    set.offer(2, "", "");
    set.offer(0, "", "");
    assert_eq!(set.fire_pending().items(), [[1, 0]]);
    set.offer(1, "", "");
    assert!(!set.gatherer.is_pending() && set.held.is_empty());
    set.reuse(Rule::Set(3), 0);
    set.offer(2, "", "");
    assert_eq!(set.drop_pending().dropped, 1);
    set.offer(1, "", "");
    assert!(!set.gatherer.is_pending() && set.held.is_empty());
}

#[test]
fn a_waiting_set_says_which_keys_it_lacks() {
    let mut set = Driver::new(Rule::Set(11));
    set.offer(1, "", "");
    assert_eq!(
        set.gatherer.waiting_for(&keys(11)),
        "has 1 of its 11 keys; missing: `k0`, `k2`, `k3`, `k4`, `k5`, `k6`, `k7`, `k8`, and 2 more"
    );
}

#[derive(Clone, Debug)]
enum Op {
    Offer(u32),
    FirePending,
    DropPending,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        20 => (0u32..6).prop_map(Op::Offer),
        1 => Just(Op::FirePending),
        1 => Just(Op::DropPending),
    ];
    prop::collection::vec(op, 0..30)
}

/// The first object of each key, until something fires or is dropped.
#[derive(Default)]
struct Oracle {
    first: BTreeMap<u32, Item>,
    over: bool,
}

impl Oracle {
    fn offer(&mut self, position: u32, item: Item, keys: u32) -> Said {
        if !self.over && position < keys {
            self.first.entry(position).or_insert(item);
        }
        if self.first.len() == keys as usize {
            return self.end(true);
        }
        Said::default()
    }

    fn end(&mut self, fire: bool) -> Said {
        let mut said = Said::default();
        let items: Vec<Item> = std::mem::take(&mut self.first).into_values().collect();
        if !items.is_empty() {
            self.over = true;
            if fire {
                said.fire(items);
            } else {
                said.dropped = items.len() as u64;
            }
        }
        said
    }
}

proptest! {
    #[test]
    fn a_set_agrees_with_a_map_of_first_objects(
        lives in prop::collection::vec((1u32..6, ops()), 1..3),
    ) {
        let mut set = Driver::new(Rule::Set(1));
        for (keys, ops) in lives {
            set.reuse(Rule::Set(keys), 0);
            let mut oracle = Oracle::default();
            for op in ops {
                let (said, expected) = match op {
                    Op::Offer(position) => {
                        let expected = oracle.offer(position, set.offered, keys);
                        (set.offer(position, "", ""), expected)
                    }
                    Op::FirePending => (set.fire_pending(), oracle.end(true)),
                    Op::DropPending => (set.drop_pending(), oracle.end(false)),
                };
                prop_assert_eq!(said, expected);
                let mut held: Vec<Item> = oracle.first.values().copied().collect();
                held.sort_unstable();
                prop_assert_eq!(set.held(), held);
                prop_assert_eq!(set.gatherer.is_pending(), !oracle.first.is_empty());
            }
        }
    }
}
