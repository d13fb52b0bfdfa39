//! `dynamic_group`.

use proptest::prelude::*;

use super::{Driver, Item, Said};
use crate::gather::outcome::{Complaint, Outcome, Refusal};
use crate::gather::{Gatherer, Groups, GroupsRule, Rule, Sources};

const AFTER: GroupsRule = GroupsRule {
    sources: Sources::None,
    order_by_key: false,
    inputs_max: 1 << 20,
};

fn groups(rule: GroupsRule) -> Driver {
    Driver::new(Rule::Groups(rule))
}

fn sources(sources: Sources) -> Driver {
    groups(GroupsRule { sources, ..AFTER })
}

impl Driver {
    fn steer<R>(
        &mut self,
        act: impl FnOnce(&mut Groups<Item>, &mut Outcome<Item>) -> R,
    ) -> (R, Said) {
        let mut result = None;
        let said = self.step(|gatherer, out| {
            let Gatherer::Groups(groups) = gatherer else {
                panic!("these are groups");
            };
            result = Some(act(groups, out));
        });
        (result.unwrap(), said)
    }

    fn close(&mut self) -> Said {
        self.steer(Groups::close).1
    }

    fn close_source(&mut self) -> Said {
        let (result, said) = self.steer(Groups::close_source);
        assert_eq!(result, Ok(()));
        said
    }

    fn expect(&mut self, sources: u32) -> (Result<(), Refusal>, Said) {
        self.steer(|groups, out| groups.expect(sources, out))
    }

    fn is_closed(&mut self) -> bool {
        self.steer(|groups, _| groups.is_closed()).0
    }

    fn fire_empty(&mut self) -> Said {
        self.steer(Groups::fire_empty).1
    }
}

#[test]
fn closing_fires_once_per_group_in_order_of_first_appearance() {
    let mut groups = groups(AFTER);
    for group in ["b", "", "a", "b", "a"] {
        assert_eq!(groups.offer_in(group), Said::default());
    }
    assert!(groups.gatherer.is_pending());
    assert_eq!(groups.close().items(), [&[0, 3][..], &[1], &[2, 4]]);
    assert!(!groups.gatherer.is_pending() && groups.held.is_empty());
}

#[test]
fn a_loop_gets_one_firing_per_turn() {
    let mut groups = groups(AFTER);
    for turn in 0..3 {
        groups.offer_in("");
        assert_eq!(groups.close().items(), [[turn]]);
        assert_eq!(groups.close(), Said::default());
    }
}

#[test]
fn objects_of_a_group_fire_in_the_order_of_their_keys_where_that_is_asked() {
    let mut groups = groups(GroupsRule {
        order_by_key: true,
        ..AFTER
    });
    for key in ["b", "a\u{1}", "ab", "a", "B"] {
        groups.offer(0, key, "g");
    }
    assert_eq!(groups.close().items(), [[4, 3, 1, 2, 0]]);
    for key in ["z", "y"] {
        groups.offer(0, key, "g");
    }
    assert_eq!(groups.close().items(), [[6, 5]]);
}

#[test]
fn objects_whose_keys_are_alike_fire_in_arrival_order() {
    let mut groups = groups(GroupsRule {
        order_by_key: true,
        ..AFTER
    });
    for _ in 0..50 {
        groups.offer(0, "b", "g");
        groups.offer(0, "a", "g");
    }
    let (odd, even) = ((1..100).step_by(2), (0..100).step_by(2));
    assert_eq!(
        groups.close().items(),
        [odd.chain(even).collect::<Vec<_>>()]
    );
}

#[test]
fn the_groups_fire_when_the_last_source_has_closed() {
    let mut groups = sources(Sources::Known(2));
    groups.offer_in("a");
    assert_eq!(groups.close_source(), Said::default());
    groups.offer_in("b");
    assert!(!groups.is_closed());
    assert_eq!(groups.close_source().items(), [[0], [1]]);
    assert!(groups.is_closed());
    assert_eq!(groups.close_source(), Said::default());
}

#[test]
fn what_arrives_after_the_last_source_has_closed_is_an_error() {
    let mut groups = sources(Sources::Known(1));
    groups.close_source();
    let said = groups.offer_in("a");
    let closed = Complaint::SourcesClosed { sources: 1 };
    assert_eq!(said.complaints, [(0, closed)]);
    assert!(groups.held.is_empty() && !groups.gatherer.is_pending());
}

#[test]
fn no_sources_close_at_once() {
    let mut fixed = sources(Sources::Known(0));
    assert!(fixed.is_closed());
    assert_eq!(fixed.offer_in("").complaints.len(), 1);
    let mut told = sources(Sources::AtRunTime);
    assert_eq!(told.expect(0), (Ok(()), Said::default()));
    assert!(told.is_closed());
}

#[test]
fn sources_may_close_before_their_number_is_known() {
    let mut groups = sources(Sources::AtRunTime);
    groups.offer_in("a");
    groups.close_source();
    groups.close_source();
    assert!(!groups.is_closed());
    let (result, said) = groups.expect(2);
    assert_eq!(result, Ok(()));
    assert_eq!(said.items(), [[0]]);
    assert!(groups.is_closed());
}

#[test]
fn the_number_of_sources_is_given_once() {
    let mut groups = sources(Sources::AtRunTime);
    assert_eq!(groups.expect(3).0, Ok(()));
    assert_eq!(groups.expect(3).0, Ok(()));
    let known = Refusal::SourcesKnown { sources: 3 };
    assert_eq!(groups.expect(2).0, Err(known));
}

#[test]
fn a_group_without_sources_refuses_to_count_them() {
    let mut groups = groups(AFTER);
    assert_eq!(groups.expect(1).0, Err(Refusal::NoSources));
    assert_eq!(
        groups.steer(Groups::close_source).0,
        Err(Refusal::NoSources)
    );
    assert!(!groups.is_closed());
}

#[test]
fn where_no_object_has_ever_come_an_empty_firing_is_the_only_one() {
    let mut groups = groups(AFTER);
    assert_eq!(groups.fire_empty().items(), [[0; 0]]);
    assert_eq!(groups.fire_empty(), Said::default());
    groups.reuse(Rule::Groups(AFTER), 0);
    groups.offer_in("");
    assert_eq!(groups.fire_empty(), Said::default());
    groups.close();
    assert_eq!(groups.fire_empty(), Said::default());
    groups.reuse(Rule::Groups(AFTER), 0);
    assert_eq!(groups.fire_empty().items(), [[0; 0]]);
}

#[test]
fn a_group_that_would_pass_what_an_invocation_takes_is_an_overflow() {
    let mut groups = groups(GroupsRule {
        inputs_max: 2,
        ..AFTER
    });
    for group in ["a", "a", "b"] {
        assert!(!groups.offer_in(group).overflow);
    }
    let said = groups.offer_in("a");
    assert!(said.overflow);
    assert_eq!(said.dropped, 1);
    assert_eq!(groups.held(), [0, 1, 2]);
}

#[test]
fn waiting_groups_say_what_has_not_closed_them() {
    let mut known = sources(Sources::Known(3));
    known.close_source();
    known.offer_in("a");
    known.offer_in("b");
    assert_eq!(
        known.waiting_for(),
        "has 2 objects in 2 groups, with 1 of 3 sources closed"
    );
    let mut told = sources(Sources::AtRunTime);
    told.offer_in("a");
    assert_eq!(
        told.waiting_for(),
        "has 1 object in 1 group, with 0 sources closed and no `phr_expect_sources` that says of \
         how many"
    );
    let mut after = groups(AFTER);
    after.offer_in("a");
    assert_eq!(
        after.waiting_for(),
        "has 1 object in 1 group, which nothing has closed"
    );
}

#[derive(Clone, Debug)]
enum Op {
    Offer(u16, u8),
    Close,
    CloseSource,
    Expect(u32),
    FireEmpty,
    DropPending,
}

fn life() -> impl Strategy<Value = (GroupsRule, Vec<Op>)> {
    let sources = prop_oneof![
        2 => Just(Sources::None),
        2 => (0u32..4).prop_map(Sources::Known),
        2 => Just(Sources::AtRunTime),
    ];
    let rule = (sources, any::<bool>(), 1u32..8).prop_map(|(sources, order_by_key, inputs_max)| {
        GroupsRule {
            sources,
            order_by_key,
            inputs_max,
        }
    });
    let op = prop_oneof![
        20 => (0u16..300, 0u8..4).prop_map(|(key, group)| Op::Offer(key, group)),
        2 => Just(Op::Close),
        2 => Just(Op::CloseSource),
        1 => (0u32..4).prop_map(Op::Expect),
        1 => Just(Op::FireEmpty),
        1 => Just(Op::DropPending),
    ];
    (rule, prop::collection::vec(op, 0..60))
}

/// Every object that has ever come; the first `settled` of them have fired or been dropped.
struct Oracle {
    rule: GroupsRule,
    history: Vec<(String, String, Item)>,
    settled: usize,
    sources: Option<u32>,
    sources_closed: u32,
    closed: bool,
    fired_empty: bool,
}

impl Oracle {
    fn new(rule: GroupsRule) -> Self {
        let sources = match rule.sources {
            Sources::Known(sources) => Some(sources),
            _ => None,
        };
        Self {
            rule,
            history: Vec::new(),
            settled: 0,
            sources,
            sources_closed: 0,
            closed: sources == Some(0),
            fired_empty: false,
        }
    }

    fn pending(&self) -> &[(String, String, Item)] {
        &self.history[self.settled..]
    }

    fn offer(&mut self, key: &str, group: &str, item: Item) -> Said {
        let mut said = Said::default();
        let of_group = self
            .pending()
            .iter()
            .filter(|object| object.1 == group)
            .count();
        if self.closed {
            let sources = self.sources.unwrap();
            said.complaints
                .push((item, Complaint::SourcesClosed { sources }));
        } else if of_group == self.rule.inputs_max as usize {
            said.overflow = true;
            said.dropped = 1;
        } else {
            self.history.push((key.to_owned(), group.to_owned(), item));
        }
        said
    }

    fn close(&mut self) -> Said {
        let mut said = Said::default();
        let mut seen: Vec<&str> = Vec::new();
        for (_, group, _) in self.pending() {
            if seen.contains(&group.as_str()) {
                continue;
            }
            seen.push(group);
            let objects = self.pending().iter().filter(|object| object.1 == *group);
            let mut objects: Vec<_> = objects.collect();
            if self.rule.order_by_key {
                objects.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
            }
            said.fire(objects.into_iter().map(|object| object.2));
        }
        self.settled = self.history.len();
        said
    }

    fn close_if_complete(&mut self) -> Said {
        match self.sources {
            Some(sources) if self.sources_closed >= sources => {
                self.closed = true;
                self.close()
            }
            _ => Said::default(),
        }
    }

    fn close_source(&mut self) -> (bool, Said) {
        if self.rule.sources == Sources::None {
            return (false, Said::default());
        }
        self.sources_closed += 1;
        (true, self.close_if_complete())
    }

    fn expect(&mut self, sources: u32) -> (bool, Said) {
        if self.rule.sources == Sources::None || self.sources.is_some_and(|known| known != sources)
        {
            return (false, Said::default());
        }
        self.sources = Some(sources);
        (true, self.close_if_complete())
    }

    fn fire_empty(&mut self) -> Said {
        let mut said = Said::default();
        if self.history.is_empty() && !self.fired_empty {
            self.fired_empty = true;
            said.fire([]);
        }
        said
    }

    fn drop_pending(&mut self) -> Said {
        let dropped = self.pending().len() as u64;
        self.settled = self.history.len();
        Said {
            dropped,
            ..Said::default()
        }
    }
}

proptest! {
    #[test]
    fn groups_agree_with_a_list_of_all_objects_ever(lives in prop::collection::vec(life(), 1..3)) {
        let mut groups = groups(AFTER);
        for (rule, ops) in lives {
            groups.reuse(Rule::Groups(rule), 0);
            let mut oracle = Oracle::new(rule);
            for op in ops {
                let (said, expected) = match op {
                    Op::Offer(key, group) => {
                        let (item, key) = (groups.offered, format!("{key}"));
                        let group = ["", "a", "b", "c"][usize::from(group)];
                        (groups.offer(0, &key, group), oracle.offer(&key, group, item))
                    }
                    Op::Close => (groups.close(), oracle.close()),
                    Op::CloseSource => {
                        let (result, said) = groups.steer(Groups::close_source);
                        let (accepted, expected) = oracle.close_source();
                        prop_assert_eq!(result.is_ok(), accepted);
                        (said, expected)
                    }
                    Op::Expect(sources) => {
                        let (result, said) = groups.expect(sources);
                        let (accepted, expected) = oracle.expect(sources);
                        prop_assert_eq!(result.is_ok(), accepted);
                        (said, expected)
                    }
                    Op::FireEmpty => (groups.fire_empty(), oracle.fire_empty()),
                    Op::DropPending => (groups.drop_pending(), oracle.drop_pending()),
                };
                prop_assert_eq!(said, expected);
                let held: Vec<Item> = oracle.pending().iter().map(|object| object.2).collect();
                prop_assert_eq!(groups.gatherer.is_pending(), !held.is_empty());
                prop_assert_eq!(groups.held(), held);
                prop_assert_eq!(groups.is_closed(), oracle.closed);
            }
        }
    }
}
