//! Deadlines in order, driven by the time that the caller brings: a hierarchical timing wheel.
//!
//! Arming and cancelling cost the same whatever else is armed, because the hot path does both.
//! Levels of 64 slots, each level's slot as long as the level below, the lowest 1 024 ns (Varghese
//! and Lauck, 1987, scheme 6). An entry lies on the level of the highest bit in which its time
//! differs from the wheel's, so a lower level is always nearer than a higher one. No timer fires
//! before its deadline; those due together come out in order of deadline, then of arming.

use crate::slab::{Ref, Slab};

/// Nanoseconds of a slot of the lowest level, as a power of two.
const TICK_SHIFT: u32 = 10;
/// Slots of a level, as a power of two.
const LEVEL_BITS: u32 = 6;
const LEVEL_SLOTS: usize = 1 << LEVEL_BITS;
/// 10 bits of tick and 9 levels of 6 bits are the 64 bits of a time.
const LEVELS: usize = 9;
const _: () = assert!(TICK_SHIFT + LEVELS as u32 * LEVEL_BITS == u64::BITS);

/// `place` of an entry that is due and not yet taken.
const DUE: u16 = u16::MAX;

/// Names an armed timer. After it has fired or been cancelled it names nothing, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerId {
    slot: u32,
    generation: u32,
}

impl TimerId {
    /// No timer.
    pub(crate) const NONE: Self = Self {
        slot: u32::MAX,
        generation: 0,
    };
}

impl Default for TimerId {
    fn default() -> Self {
        Self::NONE
    }
}

/// The wheel. `T` says what a timer is for.
pub(crate) struct Wheel<T> {
    entries: Slab<Entry<T>>,
    heads: [[Ref<Entry<T>>; LEVEL_SLOTS]; LEVELS],
    occupied: [u64; LEVELS],
    tick: u64,
    armed_ever: u64,
    due: Vec<(u64, u64, Ref<Entry<T>>)>,
    due_next: usize,
    next_ns: u64,
}

struct Entry<T> {
    deadline_ns: u64,
    order: u64,
    what: Option<T>,
    previous: Ref<Entry<T>>,
    next: Ref<Entry<T>>,
    place: u16,
}

impl<T> Default for Entry<T> {
    fn default() -> Self {
        Self {
            deadline_ns: 0,
            order: 0,
            what: None,
            previous: Ref::NONE,
            next: Ref::NONE,
            place: 0,
        }
    }
}

impl<T: Copy> Wheel<T> {
    pub(crate) fn new() -> Self {
        Self {
            entries: Slab::new(),
            heads: [[Ref::NONE; LEVEL_SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            tick: 0,
            armed_ever: 0,
            due: Vec::new(),
            due_next: 0,
            next_ns: u64::MAX,
        }
    }

    /// Fires `what` at `deadline_ns`, or as soon as it is looked for if that has passed.
    pub(crate) fn arm(&mut self, deadline_ns: u64, what: T) -> TimerId {
        let (slot, entry) = self.entries.take();
        self.armed_ever += 1;
        entry.deadline_ns = deadline_ns;
        entry.order = self.armed_ever;
        entry.what = Some(what);
        self.link(slot);
        self.next_ns = self.next_ns.min(deadline_ns);
        TimerId {
            slot: slot.slot(),
            generation: self.entries.generation(slot),
        }
    }

    /// Disarms a timer; nothing happens where it has fired or been cancelled before.
    #[inline]
    pub(crate) fn cancel(&mut self, id: &mut TimerId) {
        if *id != TimerId::NONE {
            self.disarm(std::mem::take(id));
        }
    }

    fn disarm(&mut self, named: TimerId) {
        let Some(slot) = self.entries.find(named.slot, named.generation) else {
            return;
        };
        if self.entries[slot].place == DUE {
            self.entries[slot].what = None;
        } else {
            self.unlink(slot);
            self.entries.give(slot);
        }
    }

    /// Armed timers.
    pub(crate) fn armed(&self) -> u32 {
        self.entries.live()
    }

    /// No timer fires before this time; `u64::MAX` where none is armed.
    pub(crate) fn next_ns(&self) -> u64 {
        self.next_ns
    }

    /// Takes the next timer due at `now_ns`. Timers armed meanwhile wait for the next round, which
    /// begins when this has answered `None`.
    pub(crate) fn pop(&mut self, now_ns: u64) -> Option<T> {
        if self.due_next == self.due.len() {
            self.due.clear();
            self.due_next = 0;
            if now_ns >= self.next_ns {
                self.advance(now_ns);
            }
        }
        while let Some(&(_, _, slot)) = self.due.get(self.due_next) {
            self.due_next += 1;
            let what = self.entries[slot].what.take();
            self.entries.give(slot);
            if what.is_some() {
                return what;
            }
        }
        None
    }

    /// Moves what is due at `now_ns` into `due`, in order.
    fn advance(&mut self, now_ns: u64) {
        let target = (now_ns >> TICK_SHIFT).max(self.tick);
        while let Some((level, index)) = self.first() {
            let start = self.slot_start(level, index);
            if start > target {
                break;
            }
            self.tick = self.tick.max(start);
            let mut slot = self.take_list(level, index);
            while let Some(at) = slot.some() {
                slot = self.entries[at].next;
                let deadline_ns = self.entries[at].deadline_ns;
                if level == 0 && deadline_ns <= now_ns {
                    self.entries[at].place = DUE;
                    self.due.push((deadline_ns, self.entries[at].order, at));
                } else {
                    self.link(at);
                }
            }
            if level == 0 && start == target {
                break;
            }
        }
        self.tick = target;
        self.due
            .sort_unstable_by_key(|&(deadline_ns, order, _)| (deadline_ns, order));
        self.next_ns = match self.first() {
            Some((level, index)) => {
                (self.slot_start(level, index) << TICK_SHIFT).max(now_ns.saturating_add(1))
            }
            None => u64::MAX,
        };
    }

    /// The occupied slot that comes first: the lowest level is the nearest.
    fn first(&self) -> Option<(usize, usize)> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        Some((level, self.occupied[level].trailing_zeros() as usize))
    }

    /// First tick of a slot, seen from the wheel's time.
    fn slot_start(&self, level: usize, index: usize) -> u64 {
        let shift = level as u32 * LEVEL_BITS;
        let above = (self.tick >> shift) >> LEVEL_BITS;
        ((above << LEVEL_BITS) | index as u64) << shift
    }

    fn link(&mut self, slot: Ref<Entry<T>>) {
        let at = (self.entries[slot].deadline_ns >> TICK_SHIFT).max(self.tick);
        let differing = (at ^ self.tick) | (LEVEL_SLOTS as u64 - 1);
        let level = ((u64::BITS - 1 - differing.leading_zeros()) / LEVEL_BITS) as usize;
        let index = (at >> (level as u32 * LEVEL_BITS)) as usize % LEVEL_SLOTS;
        let head = std::mem::replace(&mut self.heads[level][index], slot);
        if head.is_some() {
            self.entries[head].previous = slot;
        }
        let entry = &mut self.entries[slot];
        entry.previous = Ref::NONE;
        entry.next = head;
        entry.place = (level * LEVEL_SLOTS + index) as u16;
        self.occupied[level] |= 1 << index;
    }

    fn unlink(&mut self, slot: Ref<Entry<T>>) {
        let entry = &self.entries[slot];
        let (previous, next, place) = (entry.previous, entry.next, usize::from(entry.place));
        if next.is_some() {
            self.entries[next].previous = previous;
        }
        if previous.is_some() {
            self.entries[previous].next = next;
            return;
        }
        let (level, index) = (place / LEVEL_SLOTS, place % LEVEL_SLOTS);
        self.heads[level][index] = next;
        if next.is_none() {
            self.occupied[level] &= !(1 << index);
        }
    }

    fn take_list(&mut self, level: usize, index: usize) -> Ref<Entry<T>> {
        self.occupied[level] &= !(1 << index);
        std::mem::take(&mut self.heads[level][index])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn fired(wheel: &mut Wheel<u32>, now_ns: u64) -> Vec<u32> {
        std::iter::from_fn(|| wheel.pop(now_ns)).collect()
    }

    #[test]
    fn timers_fire_at_their_deadline_and_not_before() {
        let mut wheel = Wheel::new();
        wheel.arm(1_000_000, 1);
        wheel.arm(1_000_001, 2);
        assert_eq!(fired(&mut wheel, 999_999), []);
        assert_eq!(fired(&mut wheel, 1_000_000), [1]);
        assert_eq!(fired(&mut wheel, 1_000_000), []);
        assert_eq!(fired(&mut wheel, 5_000_000), [2]);
        assert_eq!(wheel.next_ns(), u64::MAX);
    }

    #[test]
    fn a_deadline_in_the_past_fires_at_once() {
        let mut wheel = Wheel::new();
        assert_eq!(fired(&mut wheel, 1 << 40), []);
        wheel.arm(7, 1);
        assert_eq!(fired(&mut wheel, 1 << 40), [1]);
    }

    #[test]
    fn a_timer_due_and_not_yet_taken_can_be_cancelled() {
        let mut wheel = Wheel::new();
        wheel.arm(10, 1);
        let mut second = wheel.arm(20, 2);
        assert_eq!(wheel.pop(100), Some(1));
        wheel.cancel(&mut second);
        assert_eq!(wheel.pop(100), None);
        assert_eq!(wheel.armed(), 0);
    }

    #[test]
    fn the_latest_time_there_is_can_be_armed() {
        let mut wheel = Wheel::new();
        wheel.arm(u64::MAX, 1);
        assert_eq!(fired(&mut wheel, u64::MAX - 1), []);
        assert_eq!(fired(&mut wheel, u64::MAX), [1]);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Arm(u64),
        Cancel(prop::sample::Index),
        Advance(u64),
        Sleep,
    }

    fn op() -> impl Strategy<Value = Op> {
        let distance = prop_oneof![0..5_000u64, 0..50_000_000u64, 0..1u64 << 45];
        prop_oneof![
            4 => distance.clone().prop_map(Op::Arm),
            2 => any::<prop::sample::Index>().prop_map(Op::Cancel),
            2 => distance.prop_map(Op::Advance),
            1 => Just(Op::Sleep),
        ]
    }

    proptest! {
        /// The oracle is an ordered map from (deadline, order of arming).
        #[test]
        fn the_wheel_agrees_with_an_ordered_map(
            start in any::<u32>(),
            ops in prop::collection::vec(op(), 1..200),
        ) {
            let mut now_ns = u64::from(start);
            let mut wheel = Wheel::new();
            let mut oracle = BTreeMap::new();
            let mut ids = Vec::new();
            let _ = wheel.pop(now_ns);
            for (number, op) in (0u32..).zip(ops) {
                match op {
                    Op::Arm(distance) => {
                        let deadline_ns = now_ns + distance;
                        ids.push((wheel.arm(deadline_ns, number), (deadline_ns, number)));
                        oracle.insert((deadline_ns, number), number);
                    }
                    Op::Cancel(index) if !ids.is_empty() => {
                        let (mut id, key) = ids.swap_remove(index.index(ids.len()));
                        wheel.cancel(&mut id);
                        oracle.remove(&key);
                    }
                    Op::Cancel(_) => {}
                    Op::Advance(distance) => now_ns += distance,
                    Op::Sleep => {
                        if wheel.next_ns() != u64::MAX {
                            now_ns = now_ns.max(wheel.next_ns());
                        }
                    }
                }
                if let Some((&(deadline_ns, _), _)) = oracle.first_key_value() {
                    prop_assert!(wheel.next_ns() <= deadline_ns.max(now_ns));
                }
                let later = oracle.split_off(&(now_ns + 1, 0));
                let due: Vec<u32> = std::mem::replace(&mut oracle, later).into_values().collect();
                prop_assert_eq!(fired(&mut wheel, now_ns), due);
                prop_assert_eq!(wheel.armed() as usize, oracle.len());
            }
        }
    }
}
