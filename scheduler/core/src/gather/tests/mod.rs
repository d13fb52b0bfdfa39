//! The rules of gathering, each type against an oracle that keeps the whole history and looks
//! through it anew at every step.

mod batch;
mod groups;
mod hand;
mod joins;
mod rounds;
mod rule;
mod set;
mod windows;

use std::collections::BTreeSet;

use super::outcome::{Complaint, Outcome};
use super::{Arrival, Gatherer, Rule};

/// Objects are numbered in the order in which they are offered.
type Item = u32;

/// One firing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Fired {
    items: Vec<Item>,
    window: Option<(u64, u64)>,
    early: bool,
}

/// What a step said, beside what it released.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Said {
    volleys: Vec<Fired>,
    dropped: u64,
    complaints: Vec<(Item, Complaint)>,
    overflow: bool,
}

impl Said {
    /// The items of each firing.
    fn items(&self) -> Vec<&[Item]> {
        self.volleys.iter().map(|fired| &fired.items[..]).collect()
    }

    fn fire(&mut self, items: impl IntoIterator<Item = Item>) {
        self.volleys.push(Fired {
            items: items.into_iter().collect(),
            ..Fired::default()
        });
    }
}

/// Drives a gatherer and sees to the rules that all types keep: what fires is held, and what is
/// held is released once.
struct Driver {
    gatherer: Gatherer<Item>,
    out: Outcome<Item>,
    now_ns: u64,
    offered: Item,
    held: BTreeSet<Item>,
}

impl Driver {
    fn new(rule: Rule) -> Self {
        Self::at(rule, 0)
    }

    fn at(rule: Rule, now_ns: u64) -> Self {
        Self {
            gatherer: Gatherer::new(&rule, now_ns),
            out: Outcome::default(),
            now_ns,
            offered: 0,
            held: BTreeSet::new(),
        }
    }

    /// Drains the gatherer and resets it for another use.
    fn reuse(&mut self, rule: Rule, now_ns: u64) {
        self.drain();
        self.gatherer.reset(&rule, now_ns);
        self.now_ns = now_ns;
        self.offered = 0;
    }

    fn step(&mut self, act: impl FnOnce(&mut Gatherer<Item>, &mut Outcome<Item>)) -> Said {
        self.out.clear();
        act(&mut self.gatherer, &mut self.out);
        let mut said = Said {
            dropped: self.out.dropped,
            complaints: self.out.complaints.clone(),
            overflow: self.out.overflow,
            ..Said::default()
        };
        for volley in self.out.volleys() {
            for item in volley.items {
                assert!(self.held.contains(item), "{item} fired after its release");
            }
            said.volleys.push(Fired {
                items: volley.items.to_vec(),
                window: volley.window.map(|window| (window.start_ns, window.end_ns)),
                early: volley.early,
            });
        }
        for item in &self.out.released {
            assert!(self.held.remove(item), "{item} released twice");
        }
        said
    }

    /// Offers the next object.
    fn offer(&mut self, position: u32, key: &str, group: &str) -> Said {
        let arrival = Arrival {
            item: self.offered,
            position,
            key: key.as_bytes(),
            group: group.as_bytes(),
            now_ns: self.now_ns,
        };
        self.held.insert(arrival.item);
        self.offered += 1;
        self.step(|gatherer, out| gatherer.offer(&arrival, out))
    }

    fn offer_in(&mut self, group: &str) -> Said {
        self.offer(0, "", group)
    }

    fn offer_key(&mut self, key: &str) -> Said {
        self.offer(0, key, "")
    }

    fn offer_at(&mut self, now_ns: u64, group: &str) -> Said {
        self.now_ns = now_ns;
        self.offer_in(group)
    }

    fn tick(&mut self, now_ns: u64) -> Said {
        self.now_ns = now_ns;
        let said = self.step(|gatherer, out| gatherer.tick(now_ns, out));
        if let Some(next_ns) = self.gatherer.next_ns() {
            assert!(next_ns > now_ns || next_ns == u64::MAX, "{next_ns} is past");
        }
        said
    }

    fn fire_pending(&mut self) -> Said {
        let said = self.step(Gatherer::fire_pending);
        assert!(!self.gatherer.is_pending());
        said
    }

    fn drop_pending(&mut self) -> Said {
        let said = self.step(Gatherer::drop_pending);
        assert!(!self.gatherer.is_pending());
        assert!(said.volleys.is_empty());
        said
    }

    fn drain(&mut self) -> Said {
        let said = self.step(Gatherer::drain);
        assert!(!self.gatherer.is_pending());
        assert!(said.volleys.is_empty());
        assert!(self.held.is_empty(), "left behind: {:?}", self.held);
        said
    }

    fn waiting_for(&self) -> String {
        self.gatherer.waiting_for(&[])
    }

    fn held(&self) -> Vec<Item> {
        self.held.iter().copied().collect()
    }
}
