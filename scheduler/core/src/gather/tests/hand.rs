//! `custom`: what a hand holds, against a plain list of what is pending.

use proptest::prelude::*;

use super::{Driver, Item, Said};
use crate::gather::hand::{Hand, HandRule, NotPending};
use crate::gather::{Gatherer, Rule};

fn driver(keep: bool) -> Driver {
    Driver::new(Rule::Hand(HandRule { keep }))
}

impl Driver {
    fn hand(&mut self) -> &mut Hand<Item> {
        match &mut self.gatherer {
            Gatherer::Hand(hand) => hand,
            _ => panic!("the driver has a hand"),
        }
    }

    fn sweep(&mut self) -> Said {
        self.step(|gatherer, out| {
            if let Gatherer::Hand(hand) = gatherer {
                hand.sweep(out);
            }
        })
    }
}

#[test]
fn nothing_is_released_before_the_verdict_is_carried_out() {
    let mut hand = driver(false);
    hand.offer_in("");
    hand.offer_in("");
    assert_eq!(hand.hand().fire(1), Ok(1));
    assert_eq!(hand.held(), [0, 1]);
    hand.sweep();
    assert_eq!(hand.held(), [0]);
    assert!(hand.gatherer.is_pending());
}

#[test]
fn what_a_void_verdict_has_spent_is_pending_again() {
    let mut hand = driver(false);
    hand.offer_in("");
    assert_eq!(hand.hand().drop(0), Ok(0));
    assert_eq!(hand.hand().fire(0), Err(NotPending::Unknown));
    hand.hand().restore();
    assert_eq!(hand.hand().fire(0), Ok(0));
    assert_eq!(
        hand.sweep().dropped,
        0,
        "what has fired is not counted as dropped"
    );
    assert!(!hand.gatherer.is_pending());
}

#[test]
fn what_was_withdrawn_is_told_from_what_never_was() {
    let mut hand = driver(false);
    hand.offer_in("");
    hand.drop_pending();
    assert!(hand.hand().owes_word());
    hand.offer_in("");
    assert_eq!(hand.hand().fire(0), Err(NotPending::Withdrawn));
    assert_eq!(hand.hand().fire(2), Err(NotPending::Unknown));
    assert_eq!(hand.hand().fire(1), Ok(1));
}

#[test]
fn the_end_is_told_once_unless_something_has_happened_since() {
    let mut hand = driver(false);
    assert!(!hand.hand().wants_end(0), "nothing is pending");
    hand.offer_in("");
    hand.hand().answered();
    assert!(!hand.gatherer.is_unanswered());
    assert!(hand.hand().wants_end(4));
    hand.hand().tell_end(4);
    assert!(hand.gatherer.is_unanswered());
    hand.hand().answered();
    assert!(!hand.hand().wants_end(4) && hand.hand().wants_end(5));
    hand.offer_in("");
    assert!(
        hand.hand().wants_end(4),
        "it has not decided about the new one"
    );
}

/// One step of a history; numbers are of objects.
#[derive(Clone, Debug)]
enum Step {
    Offer,
    Fire(u64),
    Drop(u64),
    Sweep,
    Restore,
    Withdraw,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Offer),
        6 => (0..40_u64).prop_map(Step::Fire),
        4 => (0..40_u64).prop_map(Step::Drop),
        3 => Just(Step::Sweep),
        1 => Just(Step::Restore),
        1 => Just(Step::Withdraw),
    ]
}

proptest! {
    #[test]
    fn a_hand_holds_what_has_come_and_was_neither_fired_nor_dropped(
        keep in any::<bool>(), steps in prop::collection::vec(step(), 0..200),
    ) {
        let mut hand = driver(keep);
        let (mut pending, mut spent): (Vec<u64>, Vec<u64>) = (Vec::new(), Vec::new());
        for step in &steps {
            match *step {
                Step::Offer => {
                    hand.offer_in("");
                    pending.push(hand.hand().last_number());
                }
                Step::Fire(number) | Step::Drop(number) => {
                    let fires = matches!(step, Step::Fire(_));
                    let taken = if fires { hand.hand().fire(number) } else { hand.hand().drop(number) };
                    prop_assert_eq!(taken.is_ok(), pending.contains(&number));
                    if taken.is_ok() && !(fires && keep) {
                        pending.retain(|&other| other != number);
                        spent.push(number);
                    }
                }
                Step::Sweep => {
                    hand.sweep();
                    spent.clear();
                }
                Step::Restore => {
                    hand.hand().restore();
                    pending.append(&mut spent);
                    pending.sort_unstable();
                }
                Step::Withdraw => {
                    let dropped = hand.drop_pending().dropped;
                    prop_assert_eq!(dropped as usize, pending.len() + spent.len());
                    (pending, spent) = (Vec::new(), Vec::new());
                }
            }
            let mut held: Vec<u64> = pending.iter().chain(&spent).copied().collect();
            held.sort_unstable();
            let listed: Vec<u64> = hand.hand().pending().map(|(number, _)| number).collect();
            prop_assert_eq!(&listed, &held, "in the order of arrival");
            prop_assert_eq!(hand.gatherer.is_pending(), !held.is_empty());
            prop_assert_eq!(hand.held.len(), held.len());
        }
        hand.reuse(Rule::Hand(HandRule { keep }), 0);
        prop_assert!(!hand.gatherer.is_pending() && !hand.gatherer.is_unanswered());
    }
}
