//! `by_batch_size`.

use proptest::prelude::*;

use super::{Driver, Fired, Item, Said};
use crate::gather::{BatchRule, Rule};

fn rule(count: u32, linger_ns: Option<u64>, per_group: bool) -> BatchRule {
    BatchRule {
        count,
        linger_ns,
        per_group,
    }
}

fn batch(count: u32, linger_ns: Option<u64>, per_group: bool) -> Driver {
    Driver::new(Rule::Batch(rule(count, linger_ns, per_group)))
}

#[test]
fn every_count_objects_fire_in_arrival_order() {
    let mut batch = batch(3, None, false);
    let fired: Vec<_> = (0..7)
        .flat_map(|number| batch.offer_in(["a", "b"][number % 2]).volleys)
        .map(|fired| fired.items)
        .collect();
    assert_eq!(fired, [[0, 1, 2], [3, 4, 5]]);
    assert_eq!(batch.held(), [6]);
    assert_eq!(batch.gatherer.next_ns(), None);
}

#[test]
fn a_batch_fires_when_its_oldest_object_has_waited_for_the_linger() {
    let mut batch = batch(3, Some(10), false);
    batch.offer_at(100, "");
    batch.offer_at(105, "");
    assert_eq!(batch.gatherer.next_ns(), Some(110));
    assert_eq!(batch.tick(109), Said::default());
    assert_eq!(batch.tick(110).items(), [[0, 1]]);
    assert_eq!(batch.gatherer.next_ns(), None);
}

#[test]
fn a_batch_is_bounded_by_the_arrivals_of_its_first_and_its_last_object() {
    let mut batch = batch(3, Some(10), false);
    batch.offer_at(100, "");
    batch.offer_at(105, "");
    assert_eq!(batch.tick(110).volleys[0].window, Some((100, 105)));
    batch.offer_at(120, "");
    assert_eq!(batch.fire_pending().volleys[0].window, Some((120, 120)));
}

#[test]
fn the_linger_begins_anew_with_each_batch() {
    let mut batch = batch(2, Some(10), false);
    batch.offer_at(100, "");
    assert_eq!(batch.offer_at(105, "").items(), [[0, 1]]);
    batch.offer_at(108, "");
    assert_eq!(batch.gatherer.next_ns(), Some(118));
}

#[test]
fn an_object_that_comes_when_the_linger_has_run_out_begins_the_next_batch() {
    let mut batch = batch(2, Some(10), false);
    batch.offer_at(100, "");
    assert_eq!(batch.offer_at(110, "").items(), [[0]]);
    assert_eq!(batch.held(), [1]);
}

#[test]
fn with_a_linger_of_nothing_every_object_fires_at_once() {
    let mut batch = batch(5, Some(0), false);
    assert_eq!(batch.offer_at(7, "").items(), [[0]]);
    assert!(batch.held.is_empty());
}

#[test]
fn groups_have_batches_and_lingers_of_their_own() {
    let mut batch = batch(2, Some(10), true);
    batch.offer_at(100, "a");
    batch.offer_at(101, "b");
    batch.offer_at(102, "c");
    assert_eq!(batch.offer_at(103, "a").items(), [[0, 3]]);
    batch.offer_at(104, "a");
    assert_eq!(batch.gatherer.next_ns(), Some(111));
    assert_eq!(batch.tick(112).items(), [[1], [2]]);
    assert_eq!(batch.gatherer.next_ns(), Some(114));
    assert_eq!(batch.fire_pending().items(), [[4]]);
}

#[test]
fn a_linger_past_the_end_of_time_never_runs_out() {
    let mut batch = batch(2, Some(u64::MAX), false);
    batch.offer_at(100, "");
    assert_eq!(batch.gatherer.next_ns(), Some(u64::MAX));
    assert_eq!(batch.tick(u64::MAX - 1), Said::default());
}

#[test]
fn a_waiting_batch_says_how_much_it_has() {
    let mut one = batch(3, None, false);
    one.offer_in("a");
    assert_eq!(one.waiting_for(), "has 1 object of the 3 of a batch");
    let mut many = batch(3, None, true);
    many.offer_in("a");
    many.offer_in("b");
    assert_eq!(
        many.waiting_for(),
        "has 2 objects in 2 groups; a batch is 3 of one group"
    );
}

#[derive(Clone, Debug)]
enum Op {
    Offer(u64, u8),
    Tick(u64),
    Sleep,
    FirePending,
    DropPending,
}

fn life() -> impl Strategy<Value = (BatchRule, Vec<Op>)> {
    let rule = (1u32..5, prop::option::of(0u64..30), any::<bool>()).prop_map(
        |(count, linger_ns, per_group)| BatchRule {
            count,
            linger_ns,
            per_group,
        },
    );
    let op = prop_oneof![
        20 => (0u64..10, 0u8..4).prop_map(|(later, group)| Op::Offer(later, group)),
        3 => (0u64..40).prop_map(Op::Tick),
        3 => Just(Op::Sleep),
        1 => Just(Op::FirePending),
        1 => Just(Op::DropPending),
    ];
    (rule, prop::collection::vec(op, 0..60))
}

/// All that is pending, looked through at every step.
struct Oracle {
    rule: BatchRule,
    pending: Vec<(u64, String, Item)>,
}

impl Oracle {
    fn group(&self, group: &str) -> String {
        let per_group = self.rule.per_group;
        (if per_group { group } else { "" }).to_owned()
    }

    fn fire(&mut self, group: &str, said: &mut Said) {
        let of = |pending: &&(u64, String, Item)| pending.1 == group;
        let fired: Vec<_> = self.pending.iter().filter(of).collect();
        said.volleys.push(Fired {
            items: fired.iter().map(|pending| pending.2).collect(),
            window: Some((fired[0].0, fired[fired.len() - 1].0)),
            early: false,
        });
        self.pending.retain(|pending| pending.1 != group);
    }

    fn next_ns(&self) -> Option<u64> {
        let (oldest_ns, ..) = self.pending.first()?;
        Some(oldest_ns + self.rule.linger_ns?)
    }

    fn tick(&mut self, now_ns: u64) -> Said {
        let mut said = Said::default();
        while self.next_ns().is_some_and(|next_ns| next_ns <= now_ns) {
            let group = self.pending[0].1.clone();
            self.fire(&group, &mut said);
        }
        said
    }

    fn offer(&mut self, now_ns: u64, group: &str, item: Item) -> Said {
        let mut said = self.tick(now_ns);
        let group = self.group(group);
        self.pending.push((now_ns, group.clone(), item));
        let count = self
            .pending
            .iter()
            .filter(|pending| pending.1 == group)
            .count();
        if count == self.rule.count as usize || self.rule.linger_ns == Some(0) {
            self.fire(&group, &mut said);
        }
        said
    }

    fn end(&mut self, fire: bool) -> Said {
        let mut said = Said::default();
        if !fire {
            said.dropped = self.pending.len() as u64;
            self.pending.clear();
        }
        while let Some((_, group, _)) = self.pending.first().cloned() {
            self.fire(&group, &mut said);
        }
        said
    }
}

proptest! {
    #[test]
    fn batches_agree_with_a_list_of_all_that_is_pending(
        lives in prop::collection::vec(life(), 1..3),
    ) {
        let mut batch = batch(1, None, false);
        for (rule, ops) in lives {
            batch.reuse(Rule::Batch(rule), 1000);
            let mut oracle = Oracle { rule, pending: Vec::new() };
            for op in ops {
                let (said, expected) = match op {
                    Op::Offer(later, group) => {
                        let (now_ns, item) = (batch.now_ns + later, batch.offered);
                        let group = format!("g{group}");
                        (batch.offer_at(now_ns, &group), oracle.offer(now_ns, &group, item))
                    }
                    Op::Tick(later) => {
                        let now_ns = batch.now_ns + later;
                        (batch.tick(now_ns), oracle.tick(now_ns))
                    }
                    Op::Sleep => {
                        let now_ns = batch.gatherer.next_ns().unwrap_or(batch.now_ns);
                        (batch.tick(now_ns), oracle.tick(now_ns))
                    }
                    Op::FirePending => (batch.fire_pending(), oracle.end(true)),
                    Op::DropPending => (batch.drop_pending(), oracle.end(false)),
                };
                prop_assert_eq!(said, expected);
                let held: Vec<Item> = oracle.pending.iter().map(|pending| pending.2).collect();
                prop_assert_eq!(batch.held(), held);
                prop_assert_eq!(batch.gatherer.is_pending(), !oracle.pending.is_empty());
                prop_assert_eq!(batch.gatherer.next_ns(), oracle.next_ns());
            }
        }
    }
}
