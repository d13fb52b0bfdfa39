//! `by_time`: what came within each window of time, at its end.
//!
//! Every step first closes the windows that have ended. So whatever is held lies in the *closing*
//! window, the first that has not ended, and nothing is ever looked for. Ranks number a group's
//! objects from the first one held; a window's *cursor* is the rank of the first object that it
//! has still to fire. It is the first object at or after the window's start, except in windows
//! that the limit `inputs` has forced to fire early, whose cursors are kept.

use std::collections::VecDeque;

use crate::gather::Arrival;
use crate::gather::outcome::{Outcome, Window};
use crate::gather::roster::{Place, Roster};
use crate::gather::text;
use crate::limits::BUFFER_ENTRIES_KEPT;

/// The fields of a `by_time`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowsRule {
    /// Length; at least 1.
    pub(crate) window_ns: u64,
    /// Distance of starts; at least 1, at most the length.
    pub(crate) slide_ns: u64,
    /// Windows without objects fire too.
    pub(crate) fire_empty: bool,
    /// Each group fires by itself.
    pub(crate) per_group: bool,
    /// Inputs of one invocation; at least 1.
    pub(crate) inputs_max: u32,
}

/// What is held of windows that have not ended.
pub(crate) struct Windows<T> {
    frame: Frame,
    /// Index of the first window that has not ended.
    closing: u64,
    arrived: u64,
    last_ns: Option<u64>,
    groups: Roster<Lane<T>>,
    /// Room to put groups in order.
    order: Vec<(u64, Place<Lane<T>>)>,
}

/// Where windows lie. Their ends may be past what 64 bits can say, hence the wider numbers.
#[derive(Clone, Copy)]
struct Frame {
    rule: WindowsRule,
    origin_ns: u64,
}

impl Frame {
    fn start_ns(&self, index: u64) -> u128 {
        u128::from(self.origin_ns) + u128::from(index) * u128::from(self.rule.slide_ns)
    }

    fn end_ns(&self, index: u64) -> u128 {
        self.start_ns(index) + u128::from(self.rule.window_ns)
    }

    /// The first window that has not ended at this time.
    fn first_open(&self, now_ns: u64) -> u64 {
        match self.elapsed_ns(now_ns).checked_sub(self.rule.window_ns) {
            Some(past) => past / self.rule.slide_ns + 1,
            None => 0,
        }
    }

    /// The last window that has begun at this time.
    fn last_begun(&self, now_ns: u64) -> u64 {
        self.elapsed_ns(now_ns) / self.rule.slide_ns
    }

    fn elapsed_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.origin_ns)
    }

    fn window(&self, index: u64) -> Window {
        Window {
            start_ns: saturated(self.start_ns(index)),
            end_ns: saturated(self.end_ns(index)),
        }
    }
}

fn saturated(ns: u128) -> u64 {
    u64::try_from(ns).unwrap_or(u64::MAX)
}

/// The objects of one group.
struct Lane<T> {
    held: VecDeque<Held<T>>,
    /// Rank of the first object held.
    first_rank: u64,
    /// Cursors of the closing window and those after it, as far as they have fired early.
    cursors: VecDeque<u64>,
    /// No window is full before an object of this rank comes.
    full_rank: u64,
}

struct Held<T> {
    item: T,
    at_ns: u64,
    /// How many came to the trigger before it.
    arrival: u64,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self {
            held: VecDeque::new(),
            first_rank: 0,
            cursors: VecDeque::new(),
            full_rank: 0,
        }
    }
}

impl<T: Copy> Lane<T> {
    fn begin(&mut self, inputs_max: u32) {
        self.first_rank = 0;
        self.full_rank = u64::from(inputs_max);
    }

    fn end(&mut self) {
        self.held.clear();
        self.held.shrink_to(BUFFER_ENTRIES_KEPT);
        self.cursors.clear();
        self.cursors.shrink_to(BUFFER_ENTRIES_KEPT);
    }

    fn next_rank(&self) -> u64 {
        self.first_rank + self.held.len() as u64
    }

    /// Rank of the first object at or after this time, among those held.
    fn rank_at(&self, start_ns: u128) -> u64 {
        let before = self
            .held
            .partition_point(|held| u128::from(held.at_ns) < start_ns);
        self.first_rank + before as u64
    }

    /// What a window with this cursor has still to fire.
    fn rest(&self, cursor: u64) -> impl Iterator<Item = T> {
        let fired = usize::try_from(cursor - self.first_rank).expect("a cursor lies in `held`");
        self.held.range(fired..).map(|held| held.item)
    }

    /// The least cursor of the closing window and all after it.
    fn least_cursor(&self, frame: &Frame, closing: u64) -> u64 {
        let never_early = closing + self.cursors.len() as u64;
        let rank = self.rank_at(frame.start_ns(never_early));
        self.cursors
            .iter()
            .fold(rank, |least, &cursor| least.min(cursor))
    }

    /// Fires early each window that the next object will be in and that has no room for it.
    fn make_room(&mut self, frame: &Frame, closing: u64, now_ns: u64, out: &mut Outcome<T>) {
        let inputs_max = u64::from(frame.rule.inputs_max);
        let rank = self.next_rank();
        for index in closing..=frame.last_begun(now_ns) {
            let place = (index - closing) as usize;
            let kept = self.cursors.get(place).copied();
            let cursor = kept.unwrap_or_else(|| self.rank_at(frame.start_ns(index)));
            let is_full = rank - cursor >= inputs_max;
            if is_full {
                out.fire_window(self.rest(cursor), frame.window(index), true);
            }
            match kept {
                Some(_) if is_full => self.cursors[place] = rank,
                Some(_) => {}
                None if is_full => self.cursors.push_back(rank),
                // The windows after it began later and have no more objects than it.
                None => break,
            }
        }
        let least = self.release(frame, closing, out);
        self.full_rank = least + inputs_max;
    }

    /// Releases what all windows that have not ended have fired. Answers with the least cursor.
    fn release(&mut self, frame: &Frame, closing: u64, out: &mut Outcome<T>) -> u64 {
        let least = self.least_cursor(frame, closing);
        while self.first_rank < least
            && let Some(held) = self.held.pop_front()
        {
            out.released.push(held.item);
            self.first_rank += 1;
        }
        least
    }
}

impl<T: Copy> Windows<T> {
    pub(super) fn new(rule: WindowsRule, origin_ns: u64) -> Self {
        Self {
            frame: Frame { rule, origin_ns },
            closing: 0,
            arrived: 0,
            last_ns: None,
            groups: Roster::new(),
            order: Vec::new(),
        }
    }

    pub(super) fn reset(&mut self, rule: WindowsRule, origin_ns: u64) {
        self.frame = Frame { rule, origin_ns };
        self.closing = 0;
        self.arrived = 0;
        self.last_ns = None;
    }

    pub(super) fn offer(&mut self, arrival: &Arrival<'_, T>, out: &mut Outcome<T>) {
        self.tick(arrival.now_ns, out);
        let rule = &self.frame.rule;
        let (place, added) = if rule.per_group {
            self.groups.find_or_add(arrival.group)
        } else {
            self.groups.only()
        };
        let lane = &mut self.groups[place];
        if added {
            lane.begin(rule.inputs_max);
        }
        if lane.next_rank() >= lane.full_rank {
            lane.make_room(&self.frame, self.closing, arrival.now_ns, out);
        }
        lane.held.push_back(Held {
            item: arrival.item,
            at_ns: arrival.now_ns,
            arrival: self.arrived,
        });
        self.arrived += 1;
        self.last_ns = Some(arrival.now_ns);
    }

    pub(super) fn tick(&mut self, now_ns: u64, out: &mut Outcome<T>) {
        while self.is_pending() && self.frame.end_ns(self.closing) <= u128::from(now_ns) {
            self.close(out);
        }
        let open = self.frame.first_open(now_ns);
        if self.is_pending() || open <= self.closing {
            return;
        }
        // The windows up to `open` have ended without anything to fire.
        self.closing = open;
        let latest = self.frame.window(open - 1);
        let is_empty = self.last_ns.is_none_or(|last_ns| last_ns < latest.start_ns);
        if self.frame.rule.fire_empty && is_empty {
            out.fire_window(std::iter::empty(), latest, false);
        }
    }

    /// Fires what is left of the closing window, in which everything held lies.
    fn close(&mut self, out: &mut Outcome<T>) {
        let closed = self.frame.window(self.closing);
        self.closing += 1;
        let mut order = std::mem::take(&mut self.order);
        order.extend(self.groups.places().map(|place| {
            let lane = &self.groups[place];
            let cursor = lane.cursors.front().copied().unwrap_or(lane.first_rank);
            // There is one: a group's last object is never fired early.
            let first = &lane.held[(cursor - lane.first_rank) as usize];
            (first.arrival, place)
        }));
        order.sort_unstable_by_key(|&(arrival, _)| arrival);
        for (_, place) in order.drain(..) {
            let lane = &mut self.groups[place];
            let cursor = lane.cursors.pop_front().unwrap_or(lane.first_rank);
            out.fire_window(lane.rest(cursor), closed, false);
            lane.release(&self.frame, self.closing, out);
            if lane.held.is_empty() {
                lane.end();
                self.groups.remove(place);
            }
        }
        self.order = order;
    }

    pub(super) fn next_ns(&self) -> Option<u64> {
        let wants = self.is_pending() || self.frame.rule.fire_empty;
        wants.then(|| saturated(self.frame.end_ns(self.closing)))
    }

    pub(super) fn is_pending(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Fires every window that something held lies in. What comes into one of them later is fired
    /// at its end.
    pub(super) fn fire_pending(&mut self, out: &mut Outcome<T>) {
        let closing = self.closing;
        while self.is_pending() {
            self.close(out);
        }
        self.closing = closing;
    }

    pub(super) fn drop_pending(&mut self, out: &mut Outcome<T>) {
        while let Some(first) = self.groups.first() {
            let lane = &mut self.groups[first];
            out.drop_all(lane.held.drain(..).map(|held| held.item));
            lane.end();
            self.groups.remove(first);
        }
    }

    pub(super) fn drain(&mut self, out: &mut Outcome<T>) {
        self.drop_pending(out);
        self.groups.clear();
        self.order.shrink_to(BUFFER_ENTRIES_KEPT);
    }

    pub(super) fn waiting_for(&self) -> String {
        let held = |place| self.groups[place].held.len() as u64;
        let objects = text::counted(self.groups.places().map(held).sum(), "object");
        format!("has {objects} in windows that have not ended")
    }
}
