//! `dynamic_join`.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{Driver, Item, Said};
use crate::gather::outcome::Refusal;
use crate::gather::{Gatherer, JoinsRule, Rule};

const KEEPING: Rule = Rule::Joins(JoinsRule {
    release_consumed: false,
});

const CONSUMING: Rule = Rule::Joins(JoinsRule {
    release_consumed: true,
});

impl Driver {
    fn try_join(&mut self, keys: &[&str]) -> (Result<(), Refusal>, Said) {
        let mut result = Ok(());
        let said = self.step(|gatherer, out| {
            let Gatherer::Joins(joins) = gatherer else {
                panic!("these are joins");
            };
            result = joins.join(keys.iter().map(|key| key.as_bytes()), out);
        });
        (result, said)
    }

    fn join(&mut self, keys: &[&str]) -> Said {
        let (result, said) = self.try_join(keys);
        assert_eq!(result, Ok(()));
        said
    }
}

#[test]
fn a_list_fires_with_its_last_key_in_the_listed_order() {
    let mut joins = Driver::new(KEEPING);
    assert_eq!(joins.join(&["b", "a"]), Said::default());
    assert!(joins.gatherer.is_pending());
    assert_eq!(joins.offer_key("a"), Said::default());
    assert_eq!(joins.offer_key("x"), Said::default());
    assert_eq!(joins.offer_key("b").items(), [[2, 0]]);
    assert!(!joins.gatherer.is_pending());
}

#[test]
fn objects_that_came_before_a_list_count_for_it() {
    let mut joins = Driver::new(KEEPING);
    joins.offer_key("a");
    joins.offer_key("b");
    assert_eq!(joins.join(&["b", "a"]).items(), [[1, 0]]);
    assert_eq!(joins.join(&["a", "c"]), Said::default());
    assert_eq!(joins.offer_key("c").items(), [[0, 2]]);
}

#[test]
fn a_list_of_nothing_fires_at_once_without_inputs() {
    let mut joins = Driver::new(KEEPING);
    assert_eq!(joins.join(&[]).items(), [[0; 0]]);
    assert!(!joins.gatherer.is_pending());
}

#[test]
fn objects_alone_are_not_pending_and_are_held_to_the_end() {
    let mut joins = Driver::new(KEEPING);
    joins.offer_key("a");
    assert!(!joins.gatherer.is_pending());
    joins.join(&["a"]);
    assert_eq!(joins.held(), [0]);
    assert_eq!(joins.drain(), Said::default());
}

#[test]
fn one_object_fires_all_lists_that_lacked_only_it_in_the_order_in_which_they_were_joined() {
    let mut joins = Driver::new(KEEPING);
    joins.join(&["a", "b"]);
    joins.join(&["c"]);
    joins.join(&["b"]);
    joins.join(&["b", "a"]);
    joins.offer_key("a");
    let said = joins.offer_key("b");
    assert_eq!(said.items(), [&[0, 1][..], &[1], &[1, 0]]);
    assert!(joins.gatherer.is_pending());
}

#[test]
fn a_list_that_names_a_key_twice_is_refused_and_leaves_nothing() {
    let mut joins = Driver::new(KEEPING);
    joins.offer_key("a");
    let (result, said) = joins.try_join(&["b", "a", "c", "b"]);
    assert_eq!(result, Err(Refusal::KeyTwice("b".to_owned())));
    assert_eq!(said, Said::default());
    assert!(!joins.gatherer.is_pending());
    assert_eq!(joins.offer_key("b"), Said::default());
    assert_eq!(joins.join(&["b", "a"]).items(), [[1, 0]]);
}

#[test]
fn a_consumed_object_is_released_with_the_last_list_that_counts_it() {
    let mut joins = Driver::new(CONSUMING);
    joins.join(&["a", "b"]);
    joins.join(&["a", "c"]);
    joins.offer_key("a");
    assert_eq!(joins.offer_key("b").items(), [[0, 1]]);
    assert_eq!(joins.held(), [0]);
    assert_eq!(joins.offer_key("c").items(), [[0, 2]]);
    assert!(joins.held.is_empty());
}

#[test]
fn an_object_that_no_list_has_counted_is_held_to_the_end() {
    let mut joins = Driver::new(CONSUMING);
    joins.offer_key("x");
    joins.join(&["a"]);
    joins.offer_key("a");
    assert_eq!(joins.held(), [0]);
}

#[test]
fn a_list_that_names_a_consumed_key_waits_for_ever_and_says_so() {
    let mut joins = Driver::new(CONSUMING);
    joins.join(&["a"]);
    joins.offer_key("a");
    joins.join(&["a", "b", "c"]);
    joins.offer_key("b");
    let expected = "has 1 of the 3 keys of a list; missing: `c`; consumed by an earlier list: `a`";
    assert_eq!(joins.waiting_for(), expected);
    // A key cannot come again; if it did, it would be let go.
    assert_eq!(joins.offer_key("a"), Said::default());
    assert_eq!(joins.held(), [1]);
}

#[test]
fn a_key_that_comes_twice_changes_nothing() {
    let mut joins = Driver::new(KEEPING);
    joins.join(&["a", "b"]);
    joins.offer_key("a");
    assert_eq!(joins.offer_key("a"), Said::default());
    assert_eq!(joins.held(), [0]);
    assert_eq!(joins.offer_key("b").items(), [[0, 2]]);
}

#[test]
fn at_its_end_each_list_fires_with_what_is_there() {
    let mut joins = Driver::new(CONSUMING);
    joins.join(&["b", "a"]);
    joins.join(&["c"]);
    joins.offer_key("a");
    assert_eq!(joins.fire_pending().items(), [&[0][..], &[]]);
    assert!(joins.held.is_empty());
    // Nobody waits for it any more.
    assert_eq!(joins.offer_key("b"), Said::default());
}

#[test]
fn dropping_drops_lists_and_not_objects() {
    let mut joins = Driver::new(CONSUMING);
    joins.join(&["a", "b"]);
    joins.offer_key("a");
    assert_eq!(joins.drop_pending().dropped, 1);
    assert_eq!(joins.offer_key("b"), Said::default());
    assert_eq!(joins.join(&["b", "a"]).items(), [[1, 0]]);
}

#[test]
fn waiting_joins_name_the_first_list_and_count_the_rest() {
    let mut joins = Driver::new(KEEPING);
    joins.join(&["a", "b", "c"]);
    joins.join(&["d"]);
    joins.offer_key("b");
    assert_eq!(
        joins.waiting_for(),
        "has 1 of the 3 keys of a list; missing: `a`, `c`; and 1 more list"
    );
}

#[derive(Clone, Debug)]
enum Op {
    Offer(u8),
    Join(Vec<u8>),
    FirePending,
    DropPending,
}

fn life() -> impl Strategy<Value = (bool, Vec<Op>)> {
    let op = prop_oneof![
        10 => (0u8..10).prop_map(Op::Offer),
        8 => prop::collection::vec(0u8..10, 0..4).prop_map(Op::Join),
        1 => Just(Op::FirePending),
        1 => Just(Op::DropPending),
    ];
    (any::<bool>(), prop::collection::vec(op, 0..50))
}

/// Every list and every object that has ever come.
#[derive(Default)]
struct Oracle {
    release_consumed: bool,
    first: BTreeMap<String, Item>,
    consumed: BTreeSet<String>,
    /// With whether they are over.
    lists: Vec<(Vec<String>, bool)>,
}

impl Oracle {
    fn there(&self, keys: &[String]) -> Vec<Item> {
        let there = |key: &String| (!self.consumed.contains(key)).then(|| self.first.get(key));
        keys.iter().filter_map(there).flatten().copied().collect()
    }

    fn fire(&mut self, list: usize, said: &mut Said) {
        let keys = self.lists[list].0.clone();
        said.fire(self.there(&keys));
        self.lists[list].1 = true;
        for key in keys.into_iter().filter(|_| self.release_consumed) {
            let counted = self
                .lists
                .iter()
                .any(|(keys, over)| !over && keys.contains(&key));
            if self.first.contains_key(&key) && !counted {
                self.consumed.insert(key);
            }
        }
    }

    fn look(&mut self) -> Said {
        let mut said = Said::default();
        for list in 0..self.lists.len() {
            let (keys, over) = &self.lists[list];
            if !over && self.there(keys).len() == keys.len() {
                self.fire(list, &mut said);
            }
        }
        said
    }

    fn unfired(&self) -> Vec<usize> {
        let lists = 0..self.lists.len();
        lists.filter(|&list| !self.lists[list].1).collect()
    }

    fn held(&self) -> Vec<Item> {
        let live = self
            .first
            .iter()
            .filter(|(key, _)| !self.consumed.contains(*key));
        let mut held: Vec<Item> = live.map(|(_, &item)| item).collect();
        held.sort_unstable();
        held
    }
}

proptest! {
    #[test]
    fn joins_agree_with_a_look_at_all_lists(lives in prop::collection::vec(life(), 1..3)) {
        let mut joins = Driver::new(KEEPING);
        for (release_consumed, ops) in lives {
            joins.reuse(Rule::Joins(JoinsRule { release_consumed }), 0);
            let mut oracle = Oracle { release_consumed, ..Oracle::default() };
            for op in ops {
                let (said, expected) = match op {
                    Op::Offer(key) => {
                        let key = format!("k{key}");
                        oracle.first.entry(key.clone()).or_insert(joins.offered);
                        (joins.offer_key(&key), oracle.look())
                    }
                    Op::Join(keys) => {
                        let keys: Vec<String> = keys.iter().map(|key| format!("k{key}")).collect();
                        let unique = keys.iter().collect::<BTreeSet<_>>().len() == keys.len();
                        let names: Vec<&str> = keys.iter().map(String::as_str).collect();
                        let (result, said) = joins.try_join(&names);
                        prop_assert_eq!(result.is_ok(), unique);
                        if unique {
                            oracle.lists.push((keys, false));
                        }
                        (said, oracle.look())
                    }
                    Op::FirePending => {
                        let mut expected = Said::default();
                        for list in oracle.unfired() {
                            oracle.fire(list, &mut expected);
                        }
                        (joins.fire_pending(), expected)
                    }
                    Op::DropPending => {
                        let dropped = oracle.unfired().len() as u64;
                        oracle.lists.iter_mut().for_each(|list| list.1 = true);
                        (joins.drop_pending(), Said { dropped, ..Said::default() })
                    }
                };
                prop_assert_eq!(said, expected);
                prop_assert_eq!(joins.held(), oracle.held());
                prop_assert_eq!(joins.gatherer.is_pending(), !oracle.unfired().is_empty());
            }
        }
    }
}
