//! A table whose slots are used again: the home of sessions, objects, invocations and timers.
//!
//! Values are never moved and never dropped when their slot is given back, so a buffer that a
//! value has grown serves the slot's next user: the steady state allocates nothing. Each slot has
//! a generation, odd while it is in use; a slot whose generations are used up is retired instead
//! of being used under an old one.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

/// Names a slot of a [`Slab`] of `T`, or nothing ([`Ref::NONE`]).
pub(crate) struct Ref<T> {
    slot: u32,
    of: PhantomData<fn() -> T>,
}

impl<T> Ref<T> {
    /// Names nothing.
    pub(crate) const NONE: Self = Self::at(u32::MAX);

    /// Names this slot.
    pub(crate) const fn at(slot: u32) -> Self {
        Self {
            slot,
            of: PhantomData,
        }
    }

    /// The slot's number.
    pub(crate) fn slot(self) -> u32 {
        self.slot
    }

    pub(crate) fn is_none(self) -> bool {
        self.slot == u32::MAX
    }

    pub(crate) fn is_some(self) -> bool {
        !self.is_none()
    }

    /// This, where it names something.
    pub(crate) fn some(self) -> Option<Self> {
        self.is_some().then_some(self)
    }
}

impl<T> Clone for Ref<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ref<T> {}

impl<T> PartialEq for Ref<T> {
    fn eq(&self, other: &Self) -> bool {
        self.slot == other.slot
    }
}

impl<T> Eq for Ref<T> {}

impl<T> Default for Ref<T> {
    fn default() -> Self {
        Self::NONE
    }
}

impl<T> fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.some() {
            Some(_) => write!(f, "#{}", self.slot),
            None => f.write_str("#none"),
        }
    }
}

/// The table.
pub(crate) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Ref<T>,
    live: u32,
}

struct Slot<T> {
    generation: u32,
    next_free: Ref<T>,
    value: T,
}

impl<T: Default> Slab<T> {
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Ref::NONE,
            live: 0,
        }
    }

    /// Takes a slot into use, the last one given back first. Its value is what its last user left,
    /// or the default.
    #[inline(always)]
    pub(crate) fn take(&mut self) -> (Ref<T>, &mut T) {
        self.live += 1;
        if let Some(slot) = self.free.some() {
            let entry = &mut self.slots[slot.slot as usize];
            self.free = entry.next_free;
            entry.generation += 1;
            return (slot, &mut entry.value);
        }
        let slot = self.grow();
        (slot, &mut self[slot])
    }

    #[cold]
    fn grow(&mut self) -> Ref<T> {
        let slot = Ref::at(u32::try_from(self.slots.len()).expect("limits keep tables below 2^32"));
        if self.slots.is_empty() {
            // Most small tables, of which each session may have some, never have a second slot.
            self.slots.reserve_exact(1);
        }
        self.slots.push(Slot {
            generation: 1,
            next_free: Ref::NONE,
            value: T::default(),
        });
        slot
    }

    /// Gives a slot back. Whoever still names it by its generation finds nothing.
    #[inline]
    pub(crate) fn give(&mut self, slot: Ref<T>) {
        let entry = &mut self.slots[slot.slot as usize];
        debug_assert!(entry.generation % 2 == 1, "a slot is given back once");
        self.live -= 1;
        let Some(next) = entry.generation.checked_add(1) else {
            return;
        };
        entry.generation = next;
        if next < u32::MAX - 1 {
            entry.next_free = self.free;
            self.free = slot;
        }
    }

    /// Slots in use.
    pub(crate) fn live(&self) -> u32 {
        self.live
    }

    /// Slots there have been in use at once.
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Whether the next slot taken would be one used before, or there are fewer than `most`.
    pub(crate) fn has_room(&self, most: u32) -> bool {
        self.free.is_some() || self.slots.len() < most as usize
    }

    /// The generation of a slot in use.
    pub(crate) fn generation(&self, slot: Ref<T>) -> u32 {
        self.slots[slot.slot as usize].generation
    }

    /// All slots in use.
    pub(crate) fn refs(&self) -> impl Iterator<Item = Ref<T>> {
        let used = |(_, entry): &(u32, &Slot<T>)| entry.generation % 2 == 1;
        (0u32..)
            .zip(&self.slots)
            .filter(used)
            .map(|(slot, _)| Ref::at(slot))
    }

    /// The slot, where it is in use under this generation.
    pub(crate) fn find(&self, slot: u32, generation: u32) -> Option<Ref<T>> {
        let entry = self.slots.get(slot as usize)?;
        (entry.generation == generation && generation % 2 == 1).then_some(Ref::at(slot))
    }
}

impl<T> Index<Ref<T>> for Slab<T> {
    type Output = T;

    #[inline]
    fn index(&self, slot: Ref<T>) -> &T {
        let entry = &self.slots[slot.slot as usize];
        debug_assert!(entry.generation % 2 == 1, "a slot is used while taken");
        &entry.value
    }
}

impl<T> IndexMut<Ref<T>> for Slab<T> {
    #[inline]
    fn index_mut(&mut self, slot: Ref<T>) -> &mut T {
        let entry = &mut self.slots[slot.slot as usize];
        debug_assert!(entry.generation % 2 == 1, "a slot is used while taken");
        &mut entry.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_slot_given_back_is_taken_first() {
        let mut slab = Slab::<u64>::new();
        let (a, b) = (slab.take().0, slab.take().0);
        slab.give(a);
        slab.give(b);
        assert_eq!(slab.take().0, b);
        assert_eq!(slab.take().0, a);
        assert_eq!(slab.live(), 2);
    }

    #[test]
    fn a_stale_generation_finds_nothing() {
        let mut slab = Slab::<u64>::new();
        let a = slab.take().0;
        let generation = slab.generation(a);
        assert_eq!(slab.find(a.slot(), generation), Some(a));
        slab.give(a);
        assert_eq!(slab.find(a.slot(), generation), None);
        assert_eq!(slab.find(a.slot(), generation + 1), None);
        let again = slab.take().0;
        assert_eq!(slab.find(again.slot(), generation), None);
        assert_eq!(slab.find(7, 1), None);
    }

    #[test]
    fn a_slot_out_of_generations_is_retired() {
        let mut slab = Slab::<u64>::new();
        let a = slab.take().0;
        slab.slots[0].generation = u32::MAX - 4;
        slab.give(a);
        assert_eq!(slab.take().0, a);
        slab.give(a);
        assert_ne!(slab.take().0, a);
    }
}
