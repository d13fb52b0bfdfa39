//! `redundant`.

use proptest::prelude::*;

use super::{Driver, Item, Said};
use crate::gather::outcome::{Complaint, Refusal};
use crate::gather::{Gatherer, RoundsRule, Rule};

const SESSION: RoundsRule = RoundsRule {
    k_of_n: Some((2, 3)),
    expire_ns: None,
    group_required: false,
    inputs_max: 1 << 20,
};

const AT_RUN_TIME: RoundsRule = RoundsRule {
    k_of_n: None,
    ..SESSION
};

const BUCKET: RoundsRule = RoundsRule {
    expire_ns: Some(100),
    group_required: true,
    ..SESSION
};

fn rounds(rule: RoundsRule) -> Driver {
    Driver::new(Rule::Rounds(rule))
}

impl Driver {
    fn set_k_of_n(&mut self, k: u32, n: u32) -> (Result<(), Refusal>, Said) {
        let mut result = Ok(());
        let said = self.step(|gatherer, out| {
            let Gatherer::Rounds(rounds) = gatherer else {
                panic!("these are rounds");
            };
            result = rounds.set_k_of_n(k, n, out);
        });
        (result, said)
    }
}

fn dropped(dropped: u64) -> Said {
    Said {
        dropped,
        ..Said::default()
    }
}

fn complaint(item: Item, complaint: Complaint) -> Said {
    Said {
        complaints: vec![(item, complaint)],
        ..Said::default()
    }
}

#[test]
fn a_round_fires_on_its_kth_object_with_those_k_in_arrival_order() {
    let mut rounds = rounds(SESSION);
    assert_eq!(rounds.offer_in("a"), Said::default());
    assert_eq!(rounds.offer_in("b"), Said::default());
    assert_eq!(rounds.offer_in("a").items(), [[0, 2]]);
    assert_eq!(rounds.held(), [1]);
    assert_eq!(rounds.offer_in("b").items(), [[1, 3]]);
    assert!(!rounds.gatherer.is_pending());
}

#[test]
fn later_objects_up_to_n_are_dropped_and_counted_and_past_n_they_are_errors() {
    let mut rounds = rounds(SESSION);
    rounds.offer_in("");
    rounds.offer_in("");
    assert_eq!(rounds.offer_in(""), dropped(1));
    for item in [3, 4] {
        let full = Complaint::RoundFull { n: 3 };
        assert_eq!(rounds.offer_in(""), complaint(item, full));
    }
    assert!(rounds.held.is_empty());
}

#[test]
fn with_k_equal_to_n_nothing_is_left_for_the_next_round() {
    let mut rounds = rounds(RoundsRule {
        k_of_n: Some((2, 2)),
        ..SESSION
    });
    for turn in 0..3u32 {
        let group = format!("turn {turn}");
        rounds.offer_in(&group);
        assert_eq!(rounds.offer_in(&group).items(), [[2 * turn, 2 * turn + 1]]);
    }
}

#[test]
fn objects_wait_until_k_and_n_are_given() {
    let mut rounds = rounds(AT_RUN_TIME);
    for group in ["b", "a", "b", "c", "b", "a", "b"] {
        assert_eq!(rounds.offer_in(group), Said::default());
    }
    let (result, said) = rounds.set_k_of_n(2, 3);
    assert_eq!(result, Ok(()));
    // Full rounds in order of first appearance; of `b` one is dropped, and one too many.
    assert_eq!(said.items(), [[0, 2], [1, 5]]);
    assert_eq!(said.dropped, 1);
    assert_eq!(said.complaints, [(6, Complaint::RoundFull { n: 3 })]);
    assert_eq!(rounds.held(), [3]);
    assert_eq!(rounds.offer_in("c").items(), [[3, 7]]);
}

#[test]
fn k_and_n_are_given_once() {
    let mut rounds = rounds(AT_RUN_TIME);
    for (k, n) in [(0, 3), (4, 3), (1 << 21, 1 << 22)] {
        let (result, _) = rounds.set_k_of_n(k, n);
        assert!(
            matches!(result, Err(Refusal::Impossible { .. })),
            "{result:?}"
        );
    }
    assert_eq!(rounds.set_k_of_n(2, 3).0, Ok(()));
    assert_eq!(rounds.set_k_of_n(2, 3).0, Ok(()));
    let known = Refusal::RoundKnown { k: 2, n: 3 };
    assert_eq!(rounds.set_k_of_n(1, 3).0, Err(known));
}

#[test]
fn across_sessions_a_round_needs_a_group() {
    let mut rounds = rounds(BUCKET);
    assert_eq!(rounds.offer_in(""), complaint(0, Complaint::NoGroup));
    assert!(!rounds.gatherer.is_pending() && rounds.held.is_empty());
    assert_eq!(rounds.gatherer.next_ns(), None);
}

#[test]
fn a_round_that_has_not_fired_when_it_expires_is_dropped_and_counted() {
    let mut rounds = rounds(BUCKET);
    rounds.offer_at(1000, "a");
    rounds.offer_at(1050, "b");
    assert_eq!(rounds.gatherer.next_ns(), Some(1100));
    assert_eq!(rounds.tick(1099), Said::default());
    assert_eq!(rounds.tick(1100), dropped(1));
    assert_eq!(rounds.held(), [1]);
    assert_eq!(rounds.gatherer.next_ns(), Some(1150));
}

#[test]
fn a_round_that_has_expired_begins_anew() {
    let mut rounds = rounds(BUCKET);
    rounds.offer_at(1000, "a");
    assert_eq!(rounds.offer_at(1090, "a").items(), [[0, 1]]);
    assert_eq!(rounds.offer_at(1099, "a"), dropped(1));
    assert_eq!(rounds.offer_at(1100, "a"), Said::default());
    assert_eq!(rounds.offer_at(1101, "a").items(), [[3, 4]]);
}

#[test]
fn at_its_end_a_round_fires_with_what_has_come_and_is_over() {
    let mut rounds = rounds(SESSION);
    for group in ["b", "a", "a"] {
        rounds.offer_in(group);
    }
    assert_eq!(rounds.fire_pending().items(), [[0]]);
    assert_eq!(rounds.offer_in("b"), dropped(1));
}

#[test]
fn a_round_that_is_dropped_does_not_fire_later() {
    let mut rounds = rounds(SESSION);
    rounds.offer_in("a");
    assert_eq!(rounds.drop_pending(), dropped(1));
    assert_eq!(rounds.offer_in("a"), dropped(1));
    assert_eq!(rounds.offer_in("a"), dropped(1));
    let full = Complaint::RoundFull { n: 3 };
    assert_eq!(rounds.offer_in("a"), complaint(3, full));
}

#[test]
fn a_round_without_k_that_holds_more_than_an_invocation_takes_is_an_overflow() {
    let mut rounds = rounds(RoundsRule {
        inputs_max: 2,
        ..AT_RUN_TIME
    });
    for group in ["a", "b", "a", "a"] {
        rounds.offer_in(group);
    }
    let said = rounds.fire_pending();
    assert!(said.overflow);
    assert_eq!(said.items(), [[1]]);
    assert_eq!(said.dropped, 3);
}

#[test]
fn waiting_rounds_say_which_of_them_lack_objects() {
    let mut rounds = rounds(SESSION);
    for group in ["a", "b", "b", "c"] {
        rounds.offer_in(group);
    }
    let expected = "has 2 rounds with fewer than 2 objects: `a` has 1, `c` has 1";
    assert_eq!(rounds.waiting_for(), expected);
    for number in 0..9 {
        rounds.offer_in(&number.to_string());
    }
    assert!(rounds.waiting_for().ends_with("`5` has 1, and 3 more"));
    rounds.reuse(Rule::Rounds(AT_RUN_TIME), 0);
    rounds.offer_in("a");
    let expected = "has 1 object and no `phr_redundant` that says how many fire";
    assert_eq!(rounds.waiting_for(), expected);
}

#[derive(Clone, Debug)]
enum Op {
    Offer(u64, u8),
    Tick(u64),
    Sleep,
    Set(u32, u32),
    FirePending,
    DropPending,
}

fn life() -> impl Strategy<Value = (RoundsRule, Vec<Op>)> {
    let k_of_n = (1u32..4, 0u32..3).prop_map(|(k, more)| (k, k + more));
    let rule = (
        prop::option::of(k_of_n),
        prop::option::of(1u64..40),
        any::<bool>(),
        prop_oneof![Just(4u32), Just(100)],
    )
        .prop_map(
            |(k_of_n, expire_ns, group_required, inputs_max)| RoundsRule {
                k_of_n,
                expire_ns,
                group_required,
                inputs_max,
            },
        );
    let op = prop_oneof![
        30 => (0u64..6, 0u8..4).prop_map(|(later, group)| Op::Offer(later, group)),
        3 => (0u64..30).prop_map(Op::Tick),
        2 => Just(Op::Sleep),
        2 => (0u32..6, 0u32..6).prop_map(|(k, n)| Op::Set(k, n)),
        1 => Just(Op::FirePending),
        1 => Just(Op::DropPending),
    ];
    (rule, prop::collection::vec(op, 0..60))
}

/// Every object that has ever come, by round; rounds are never taken off the list.
struct Oracle {
    rule: RoundsRule,
    rounds: Vec<Round>,
}

struct Round {
    group: String,
    first_ns: u64,
    items: Vec<Item>,
    over: bool,
    forgotten: bool,
}

impl Oracle {
    fn waits(&self) -> impl Iterator<Item = &Round> {
        self.rounds.iter().filter(|round| !round.over)
    }

    fn next_ns(&self) -> Option<u64> {
        let expire_ns = self.rule.expire_ns?;
        let live = self.rounds.iter().filter(|round| !round.forgotten);
        live.map(|round| round.first_ns + expire_ns).min()
    }

    fn tick(&mut self, now_ns: u64) -> Said {
        let mut said = Said::default();
        for round in &mut self.rounds {
            let age_ns = now_ns - round.first_ns;
            if self
                .rule
                .expire_ns
                .is_some_and(|expire_ns| age_ns >= expire_ns)
            {
                if !round.over {
                    said.dropped += round.items.len() as u64;
                }
                round.over = true;
                round.forgotten = true;
            }
        }
        said
    }

    fn offer(&mut self, now_ns: u64, group: &str, item: Item) -> Said {
        let mut said = self.tick(now_ns);
        if group.is_empty() && self.rule.group_required {
            said.complaints.push((item, Complaint::NoGroup));
            return said;
        }
        let same = |round: &&mut Round| round.group == group && !round.forgotten;
        if self.rounds.iter_mut().find(same).is_none() {
            self.rounds.push(Round {
                group: group.to_owned(),
                first_ns: now_ns,
                items: Vec::new(),
                over: false,
                forgotten: false,
            });
        }
        let round = self.rounds.iter_mut().find(same).unwrap();
        round.items.push(item);
        let number = u32::try_from(round.items.len()).unwrap();
        match self.rule.k_of_n {
            Some((_, n)) if number > n => {
                said.complaints.push((item, Complaint::RoundFull { n }));
            }
            _ if round.over => said.dropped += 1,
            Some((k, _)) if number == k => {
                round.over = true;
                said.fire(round.items.clone());
            }
            _ => {}
        }
        said
    }

    fn set(&mut self, k: u32, n: u32) -> (bool, Said) {
        let mut said = Said::default();
        let possible = k >= 1 && k <= n && k <= self.rule.inputs_max;
        match self.rule.k_of_n {
            Some(known) => return (known == (k, n), said),
            None if !possible => return (false, said),
            None => self.rule.k_of_n = Some((k, n)),
        }
        let (k, n) = (k as usize, n as usize);
        for round in self.rounds.iter_mut().filter(|round| !round.over) {
            if round.items.len() >= k {
                round.over = true;
                said.fire(round.items[..k].to_vec());
                said.dropped += (round.items.len().min(n) - k) as u64;
                let past = round.items.iter().skip(n);
                let full = Complaint::RoundFull {
                    n: u32::try_from(n).unwrap(),
                };
                said.complaints.extend(past.map(|&item| (item, full)));
            }
        }
        (true, said)
    }

    fn end(&mut self, fire: bool) -> Said {
        let mut said = Said::default();
        for round in self.rounds.iter_mut().filter(|round| !round.over) {
            round.over = true;
            let too_many = round.items.len() > self.rule.inputs_max as usize;
            if fire && !too_many {
                said.fire(round.items.clone());
            } else {
                said.overflow |= fire;
                said.dropped += round.items.len() as u64;
            }
        }
        said
    }
}

proptest! {
    #[test]
    fn rounds_agree_with_a_list_of_all_rounds_ever(
        lives in prop::collection::vec(life(), 1..3),
    ) {
        let mut rounds = rounds(SESSION);
        for (rule, ops) in lives {
            rounds.reuse(Rule::Rounds(rule), 1000);
            let mut oracle = Oracle { rule, rounds: Vec::new() };
            for op in ops {
                let (said, expected) = match op {
                    Op::Offer(later, group) => {
                        let (now_ns, item) = (rounds.now_ns + later, rounds.offered);
                        let group = ["", "a", "b", "c"][usize::from(group)];
                        (rounds.offer_at(now_ns, group), oracle.offer(now_ns, group, item))
                    }
                    Op::Tick(later) => {
                        let now_ns = rounds.now_ns + later;
                        (rounds.tick(now_ns), oracle.tick(now_ns))
                    }
                    Op::Sleep => {
                        let now_ns = rounds.gatherer.next_ns().unwrap_or(rounds.now_ns);
                        (rounds.tick(now_ns), oracle.tick(now_ns))
                    }
                    Op::Set(k, n) => {
                        let (result, said) = rounds.set_k_of_n(k, n);
                        let (accepted, expected) = oracle.set(k, n);
                        prop_assert_eq!(result.is_ok(), accepted);
                        (said, expected)
                    }
                    Op::FirePending => (rounds.fire_pending(), oracle.end(true)),
                    Op::DropPending => (rounds.drop_pending(), oracle.end(false)),
                };
                prop_assert_eq!(said, expected);
                let mut held: Vec<Item> =
                    oracle.waits().flat_map(|round| round.items.clone()).collect();
                held.sort_unstable();
                prop_assert_eq!(rounds.held(), held);
                prop_assert_eq!(rounds.gatherer.is_pending(), oracle.waits().count() > 0);
                prop_assert_eq!(rounds.gatherer.next_ns(), oracle.next_ns());
            }
        }
    }
}
