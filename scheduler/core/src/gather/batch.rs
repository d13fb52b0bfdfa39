//! `by_batch_size`: every `count` objects in arrival order, and fewer once the oldest of them has
//! waited for `linger`.
//!
//! A group's queue is on the roster from its first pending object until it fires, which takes all
//! of it. So the roster is in the order of the oldest pending objects, and the next linger to run
//! out is that of its first entry, however many groups there are.

use crate::gather::Arrival;
use crate::gather::outcome::{Outcome, Window};
use crate::gather::queue::{Queue, Queues};
use crate::gather::roster::{Place, Roster};
use crate::gather::text;

/// The fields of a `by_batch_size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchRule {
    /// Objects of a batch: no more than one invocation may have as inputs.
    pub(crate) count: u32,
    /// Longest wait of an object.
    pub(crate) linger_ns: Option<u64>,
    /// Each group has its own batches.
    pub(crate) per_group: bool,
}

/// What is pending of batches.
pub(crate) struct Batch<T> {
    rule: BatchRule,
    groups: Roster<Pending>,
    queues: Queues<T>,
}

#[derive(Default)]
struct Pending {
    queue: Queue,
    oldest_ns: u64,
    newest_ns: u64,
}

impl<T: Copy> Batch<T> {
    pub(super) fn new(rule: BatchRule) -> Self {
        Self {
            rule,
            groups: Roster::new(),
            queues: Queues::new(),
        }
    }

    pub(super) fn reset(&mut self, rule: BatchRule) {
        self.rule = rule;
    }

    pub(super) fn offer(&mut self, arrival: &Arrival<'_, T>, out: &mut Outcome<T>) {
        self.tick(arrival.now_ns, out);
        let (place, added) = if self.rule.per_group {
            self.groups.find_or_add(arrival.group)
        } else {
            self.groups.only()
        };
        let pending = &mut self.groups[place];
        if added {
            *pending = Pending {
                queue: Queue::EMPTY,
                oldest_ns: arrival.now_ns,
                newest_ns: arrival.now_ns,
            };
        }
        pending.newest_ns = arrival.now_ns;
        self.queues.push(&mut pending.queue, arrival.item);
        if pending.queue.len() >= self.batch_len() {
            self.fire(place, out);
        }
    }

    /// Objects that fire at once. A linger of nothing makes every object a batch.
    fn batch_len(&self) -> u32 {
        match self.rule.linger_ns {
            Some(0) => 1,
            _ => self.rule.count,
        }
    }

    fn fire(&mut self, place: Place<Pending>, out: &mut Outcome<T>) {
        let pending = &mut self.groups[place];
        let bounds = Window {
            start_ns: pending.oldest_ns,
            end_ns: pending.newest_ns,
        };
        out.fire_batch(self.queues.drain(&mut pending.queue), bounds);
        self.groups.remove(place);
    }

    pub(super) fn tick(&mut self, now_ns: u64, out: &mut Outcome<T>) {
        while let Some(first) = self.groups.first()
            && self.due_ns(first).is_some_and(|due_ns| due_ns <= now_ns)
        {
            self.fire(first, out);
        }
    }

    pub(super) fn next_ns(&self) -> Option<u64> {
        self.due_ns(self.groups.first()?)
    }

    fn due_ns(&self, place: Place<Pending>) -> Option<u64> {
        let oldest_ns = self.groups[place].oldest_ns;
        Some(oldest_ns.saturating_add(self.rule.linger_ns?))
    }

    pub(super) fn is_pending(&self) -> bool {
        !self.groups.is_empty()
    }

    pub(super) fn fire_pending(&mut self, out: &mut Outcome<T>) {
        while let Some(first) = self.groups.first() {
            self.fire(first, out);
        }
    }

    pub(super) fn drop_pending(&mut self, out: &mut Outcome<T>) {
        while let Some(first) = self.groups.first() {
            out.drop_all(self.queues.drain(&mut self.groups[first].queue));
            self.groups.remove(first);
        }
    }

    pub(super) fn drain(&mut self, out: &mut Outcome<T>) {
        self.drop_pending(out);
        self.groups.clear();
        self.queues.clear();
    }

    pub(super) fn waiting_for(&self) -> String {
        let objects = text::counted(u64::from(self.queues.len()), "object");
        let count = self.batch_len();
        if self.rule.per_group {
            let groups = text::counted(u64::from(self.groups.len()), "group");
            format!("has {objects} in {groups}; a batch is {count} of one group")
        } else {
            format!("has {objects} of the {count} of a batch")
        }
    }
}
