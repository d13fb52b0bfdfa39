//! `by_time`.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{Driver, Fired, Item, Said};
use crate::gather::{Rule, WindowsRule};

const ORIGIN_NS: u64 = 1000;

const TUMBLING: WindowsRule = WindowsRule {
    window_ns: 100,
    slide_ns: 100,
    fire_empty: false,
    per_group: false,
    inputs_max: 1 << 20,
};

const SLIDING: WindowsRule = WindowsRule {
    slide_ns: 40,
    ..TUMBLING
};

fn windows(rule: WindowsRule) -> Driver {
    Driver::at(Rule::Windows(rule), ORIGIN_NS)
}

fn fired(window: (u64, u64), items: &[Item]) -> Fired {
    Fired {
        items: items.to_vec(),
        window: Some(window),
        early: false,
    }
}

fn early(window: (u64, u64), items: &[Item]) -> Fired {
    Fired {
        early: true,
        ..fired(window, items)
    }
}

#[test]
fn a_window_fires_at_its_end_whether_or_not_more_arrives() {
    let mut windows = windows(TUMBLING);
    windows.offer_at(1000, "");
    windows.offer_at(1099, "");
    assert_eq!(windows.gatherer.next_ns(), Some(1100));
    assert_eq!(windows.tick(1099), Said::default());
    assert_eq!(windows.tick(1100).volleys, [fired((1000, 1100), &[0, 1])]);
    assert!(windows.held.is_empty());
    assert_eq!(windows.gatherer.next_ns(), None);
}

#[test]
fn an_object_on_a_boundary_belongs_to_the_later_window() {
    let mut windows = windows(TUMBLING);
    windows.offer_at(1050, "");
    let said = windows.offer_at(1100, "");
    assert_eq!(said.volleys, [fired((1000, 1100), &[0])]);
    assert_eq!(windows.tick(1200).volleys, [fired((1100, 1200), &[1])]);
}

#[test]
fn a_sliding_window_shares_its_objects_with_all_that_contain_them() {
    let mut windows = windows(SLIDING);
    // In [1000, 1100) and [1040, 1140), then, on a boundary, in [1080, 1180) too.
    windows.offer_at(1045, "");
    windows.offer_at(1080, "");
    assert_eq!(windows.tick(1100).volleys, [fired((1000, 1100), &[0, 1])]);
    assert_eq!(windows.held(), [0, 1]);
    assert_eq!(windows.tick(1140).volleys, [fired((1040, 1140), &[0, 1])]);
    assert_eq!(windows.held(), [1]);
    assert_eq!(windows.tick(1180).volleys, [fired((1080, 1180), &[1])]);
    assert!(windows.held.is_empty());
}

#[test]
fn of_windows_missed_those_with_objects_all_fire_in_order_of_their_ends() {
    let mut windows = windows(SLIDING);
    windows.offer_at(1045, "");
    windows.offer_at(1090, "");
    let said = windows.tick(9000);
    let expected = [
        fired((1000, 1100), &[0, 1]),
        fired((1040, 1140), &[0, 1]),
        fired((1080, 1180), &[1]),
    ];
    assert_eq!(said.volleys, expected);
}

#[test]
fn of_empty_windows_missed_the_latest_fires() {
    let mut windows = windows(WindowsRule {
        fire_empty: true,
        ..TUMBLING
    });
    assert_eq!(windows.gatherer.next_ns(), Some(1100));
    windows.offer_at(1050, "");
    let said = windows.tick(1520);
    let expected = [fired((1000, 1100), &[0]), fired((1400, 1500), &[])];
    assert_eq!(said.volleys, expected);
    assert_eq!(windows.gatherer.next_ns(), Some(1600));
    assert_eq!(windows.tick(1599), Said::default());
    let said = windows.offer_at(1600, "");
    assert_eq!(said.volleys, [fired((1500, 1600), &[])]);
}

#[test]
fn an_empty_window_keeps_nothing_pending() {
    let mut windows = windows(WindowsRule {
        fire_empty: true,
        ..TUMBLING
    });
    assert!(!windows.gatherer.is_pending());
    windows.offer_at(1000, "");
    assert!(windows.gatherer.is_pending());
    windows.tick(1100);
    assert!(!windows.gatherer.is_pending());
}

#[test]
fn groups_fire_by_themselves_in_the_order_of_their_first_objects() {
    let mut windows = windows(WindowsRule {
        per_group: true,
        ..SLIDING
    });
    windows.offer_at(1010, "b");
    windows.offer_at(1050, "a");
    windows.offer_at(1060, "b");
    let said = windows.tick(1100);
    let expected = [fired((1000, 1100), &[0, 2]), fired((1000, 1100), &[1])];
    assert_eq!(said.volleys, expected);
    // In the next window `a` is first: the first object of `b` is too old for it.
    let said = windows.tick(1140);
    let expected = [fired((1040, 1140), &[1]), fired((1040, 1140), &[2])];
    assert_eq!(said.volleys, expected);
}

#[test]
fn an_empty_window_of_groups_fires_once() {
    let mut windows = windows(WindowsRule {
        per_group: true,
        fire_empty: true,
        ..TUMBLING
    });
    windows.offer_at(1010, "a");
    windows.offer_at(1010, "b");
    windows.tick(1100);
    assert_eq!(windows.tick(1200).volleys, [fired((1100, 1200), &[])]);
}

#[test]
fn a_full_window_fires_early_and_again_at_its_end_with_the_rest() {
    let mut windows = windows(WindowsRule {
        inputs_max: 2,
        ..TUMBLING
    });
    windows.offer_at(1010, "");
    assert_eq!(windows.offer_at(1020, ""), Said::default());
    let said = windows.offer_at(1030, "");
    assert_eq!(said.volleys, [early((1000, 1100), &[0, 1])]);
    assert_eq!(windows.held(), [2]);
    assert_eq!(windows.tick(1100).volleys, [fired((1000, 1100), &[2])]);
}

#[test]
fn a_window_that_is_exactly_full_at_its_end_fires_once() {
    let mut windows = windows(WindowsRule {
        inputs_max: 2,
        ..TUMBLING
    });
    windows.offer_at(1010, "");
    windows.offer_at(1020, "");
    assert_eq!(windows.tick(1100).volleys, [fired((1000, 1100), &[0, 1])]);
}

#[test]
fn each_sliding_window_is_full_by_itself() {
    let mut windows = windows(WindowsRule {
        inputs_max: 2,
        ..SLIDING
    });
    windows.offer_at(1010, "");
    windows.offer_at(1050, "");
    let said = windows.offer_at(1060, "");
    assert_eq!(said.volleys, [early((1000, 1100), &[0, 1])]);
    let said = windows.offer_at(1070, "");
    assert_eq!(said.volleys, [early((1040, 1140), &[1, 2])]);
    assert_eq!(windows.held(), [2, 3]);
    assert_eq!(windows.tick(1100).volleys, [fired((1000, 1100), &[2, 3])]);
    assert_eq!(windows.tick(1140).volleys, [fired((1040, 1140), &[3])]);
}

#[test]
fn at_its_end_a_session_fires_each_window_that_has_something() {
    let mut windows = windows(SLIDING);
    windows.offer_at(1045, "");
    windows.offer_at(1050, "");
    let said = windows.fire_pending();
    let expected = [fired((1000, 1100), &[0, 1]), fired((1040, 1140), &[0, 1])];
    assert_eq!(said.volleys, expected);
    // What comes into the same windows afterwards is their rest.
    windows.offer_at(1060, "");
    assert_eq!(windows.tick(1100).volleys, [fired((1000, 1100), &[2])]);
}

#[test]
fn a_window_that_has_fired_before_its_end_is_not_empty_at_it() {
    let mut windows = windows(WindowsRule {
        fire_empty: true,
        ..TUMBLING
    });
    windows.offer_at(1010, "");
    windows.fire_pending();
    assert_eq!(windows.tick(1100), Said::default());
    assert_eq!(windows.tick(1200).volleys, [fired((1100, 1200), &[])]);
}

#[test]
fn windows_longer_than_time_never_end() {
    for slide_ns in [u64::MAX, u64::MAX / 1024] {
        let mut windows = windows(WindowsRule {
            window_ns: u64::MAX,
            slide_ns,
            fire_empty: true,
            ..TUMBLING
        });
        windows.offer_at(ORIGIN_NS, "");
        windows.offer_at(u64::MAX - 1, "");
        assert_eq!(windows.gatherer.next_ns(), Some(u64::MAX));
        assert_eq!(windows.tick(u64::MAX), Said::default());
        let said = windows.fire_pending();
        assert_eq!(said.volleys[0], fired((ORIGIN_NS, u64::MAX), &[0, 1]));
        assert!(windows.held.is_empty());
    }
}

#[test]
fn the_shortest_windows_end_to_the_end_of_time() {
    let mut windows = windows(WindowsRule {
        window_ns: 1,
        slide_ns: 1,
        fire_empty: true,
        ..TUMBLING
    });
    windows.offer_at(ORIGIN_NS, "");
    let said = windows.offer_at(u64::MAX - 1, "");
    let latest = fired((u64::MAX - 2, u64::MAX - 1), &[]);
    assert_eq!(said.volleys, [fired((1000, 1001), &[0]), latest]);
    let said = windows.tick(u64::MAX);
    assert_eq!(said.volleys, [fired((u64::MAX - 1, u64::MAX), &[1])]);
}

#[test]
fn waiting_windows_say_how_much_they_have() {
    let mut windows = windows(SLIDING);
    windows.offer_at(1010, "");
    windows.offer_at(1050, "");
    let waiting_for = windows.waiting_for();
    assert_eq!(waiting_for, "has 2 objects in windows that have not ended");
}

#[derive(Clone, Debug)]
enum Op {
    Offer(u64, u8),
    Tick(u64),
    Sleep,
    FirePending,
    DropPending,
}

fn life() -> impl Strategy<Value = (WindowsRule, Vec<Op>)> {
    let inputs_max = prop_oneof![2 => 1u32..5, 1 => Just(1000)];
    let rule = (1u64..40, 1u64..40, any::<bool>(), any::<bool>(), inputs_max).prop_map(
        |(a, b, fire_empty, per_group, inputs_max)| WindowsRule {
            window_ns: a.max(b),
            slide_ns: a.min(b),
            fire_empty,
            per_group,
            inputs_max,
        },
    );
    let op = prop_oneof![
        20 => (0u64..8, 0u8..3).prop_map(|(later, group)| Op::Offer(later, group)),
        2 => (0u64..10).prop_map(Op::Tick),
        1 => (0u64..100).prop_map(Op::Tick),
        2 => Just(Op::Sleep),
        1 => Just(Op::FirePending),
        1 => Just(Op::DropPending),
    ];
    (rule, prop::collection::vec(op, 0..60))
}

/// Every object that has ever come, and what each window has fired of them.
struct Oracle {
    rule: WindowsRule,
    history: Vec<(u64, String, Item)>,
    fired: BTreeSet<(u64, Item)>,
    dropped: BTreeSet<Item>,
    /// Windows that have ended.
    ended: u64,
}

impl Oracle {
    fn window(&self, index: u64) -> (u64, u64) {
        let start_ns = ORIGIN_NS + index * self.rule.slide_ns;
        (start_ns, start_ns + self.rule.window_ns)
    }

    fn contains(&self, index: u64, at_ns: u64) -> bool {
        let (start_ns, end_ns) = self.window(index);
        (start_ns..end_ns).contains(&at_ns)
    }

    /// What a window has still to fire, by group.
    fn rest(&self, index: u64) -> Vec<(String, Vec<Item>)> {
        let mut groups: Vec<(String, Vec<Item>)> = Vec::new();
        for (at_ns, group, item) in &self.history {
            let gone = self.dropped.contains(item) || self.fired.contains(&(index, *item));
            if gone || !self.contains(index, *at_ns) {
                continue;
            }
            match groups.iter_mut().find(|(name, _)| name == group) {
                Some((_, items)) => items.push(*item),
                None => groups.push((group.clone(), vec![*item])),
            }
        }
        groups
    }

    fn fire(&mut self, index: u64, items: Vec<Item>, early: bool, said: &mut Said) {
        self.fired.extend(items.iter().map(|&item| (index, item)));
        said.volleys.push(Fired {
            items,
            window: Some(self.window(index)),
            early,
        });
    }

    fn fire_all(&mut self, index: u64, said: &mut Said) {
        for (_, items) in self.rest(index) {
            self.fire(index, items, false, said);
        }
    }

    fn tick(&mut self, now_ns: u64) -> Said {
        let mut said = Said::default();
        let mut empty = None;
        while self.window(self.ended).1 <= now_ns {
            let index = self.ended;
            self.fire_all(index, &mut said);
            if !self
                .history
                .iter()
                .any(|object| self.contains(index, object.0))
            {
                empty = Some(index);
            }
            self.ended += 1;
        }
        if let Some(empty) = empty
            && self.rule.fire_empty
        {
            self.fire(empty, Vec::new(), false, &mut said);
        }
        said
    }

    fn offer(&mut self, now_ns: u64, group: &str, item: Item) -> Said {
        let mut said = self.tick(now_ns);
        let group = if self.rule.per_group { group } else { "" };
        let mut index = self.ended;
        while self.window(index).0 <= now_ns {
            let rest = self.rest(index).into_iter().find(|(name, _)| name == group);
            if let Some((_, items)) = rest
                && items.len() == self.rule.inputs_max as usize
            {
                self.fire(index, items, true, &mut said);
            }
            index += 1;
        }
        self.history.push((now_ns, group.to_owned(), item));
        said
    }

    fn fire_pending(&mut self) -> Said {
        let mut said = Said::default();
        let last_ns = self.history.last().map_or(0, |object| object.0);
        let mut index = self.ended;
        while self.window(index).0 <= last_ns {
            self.fire_all(index, &mut said);
            index += 1;
        }
        said
    }

    fn drop_pending(&mut self) -> Said {
        let held = self.held();
        self.dropped.extend(&held);
        Said {
            dropped: held.len() as u64,
            ..Said::default()
        }
    }

    /// Objects that some window has still to fire.
    fn held(&self) -> Vec<Item> {
        let mut held = BTreeSet::new();
        let last_ns = self.history.last().map_or(0, |object| object.0);
        let mut index = self.ended;
        while self.window(index).0 <= last_ns {
            held.extend(self.rest(index).into_iter().flat_map(|(_, items)| items));
            index += 1;
        }
        held.into_iter().collect()
    }
}

proptest! {
    #[test]
    fn windows_agree_with_a_scan_of_all_objects_ever(
        lives in prop::collection::vec(life(), 1..3),
    ) {
        let mut windows = windows(TUMBLING);
        for (rule, ops) in lives {
            windows.reuse(Rule::Windows(rule), ORIGIN_NS);
            let mut oracle = Oracle {
                rule,
                history: Vec::new(),
                fired: BTreeSet::new(),
                dropped: BTreeSet::new(),
                ended: 0,
            };
            for op in ops {
                let (said, expected) = match op {
                    Op::Offer(later, group) => {
                        let (now_ns, item) = (windows.now_ns + later, windows.offered);
                        let group = format!("g{group}");
                        (windows.offer_at(now_ns, &group), oracle.offer(now_ns, &group, item))
                    }
                    Op::Tick(later) => {
                        let now_ns = windows.now_ns + later;
                        (windows.tick(now_ns), oracle.tick(now_ns))
                    }
                    Op::Sleep => {
                        let now_ns = windows.gatherer.next_ns().unwrap_or(windows.now_ns);
                        (windows.tick(now_ns), oracle.tick(now_ns))
                    }
                    Op::FirePending => (windows.fire_pending(), oracle.fire_pending()),
                    Op::DropPending => (windows.drop_pending(), oracle.drop_pending()),
                };
                prop_assert_eq!(said, expected);
                let held = oracle.held();
                let wants = rule.fire_empty || !held.is_empty();
                let next_ns = wants.then(|| oracle.window(oracle.ended).1);
                prop_assert_eq!(windows.gatherer.next_ns(), next_ns);
                prop_assert_eq!(windows.gatherer.is_pending(), !held.is_empty());
                prop_assert_eq!(windows.held(), held);
            }
        }
    }
}
