//! Values by name, in the order in which the names came: the groups of a batch, the rounds of a
//! trigger, the keys of a join.
//!
//! Names are chosen by functions, so the hash is seeded, and no order comes from it.

use std::hash::BuildHasher;
use std::ops::{Index, IndexMut};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::limits::BUFFER_ENTRIES_KEPT;
use crate::slab::{Ref, Slab};

/// Where a value is, until it is removed.
pub(super) type Place<V> = Ref<Entry<V>>;

/// A name with its value.
pub(super) struct Entry<V> {
    name: SmallVec<[u8; 32]>,
    hash: u64,
    previous: Place<V>,
    next: Place<V>,
    value: V,
}

impl<V: Default> Default for Entry<V> {
    fn default() -> Self {
        Self {
            name: SmallVec::new(),
            hash: 0,
            previous: Ref::NONE,
            next: Ref::NONE,
            value: V::default(),
        }
    }
}

/// The roster. A value added is what the last user of its place left, or the default.
pub(super) struct Roster<V> {
    entries: Slab<Entry<V>>,
    table: HashTable<Place<V>>,
    hasher: RandomState,
    first: Place<V>,
    last: Place<V>,
}

impl<V: Default> Roster<V> {
    pub(super) fn new() -> Self {
        Self {
            entries: Slab::new(),
            table: HashTable::new(),
            hasher: RandomState::default(),
            first: Ref::NONE,
            last: Ref::NONE,
        }
    }

    pub(super) fn len(&self) -> u32 {
        self.entries.live()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The place of a name.
    #[cfg(test)]
    pub(super) fn find(&self, name: &[u8]) -> Option<Place<V>> {
        self.find_hashed(self.hasher.hash_one(name), name)
    }

    /// The place of a name; where it has none, a new one after all others, and `true`.
    pub(super) fn find_or_add(&mut self, name: &[u8]) -> (Place<V>, bool) {
        let hash = self.hasher.hash_one(name);
        if let Some(found) = self.find_hashed(hash, name) {
            return (found, false);
        }
        let (added, _) = self.entries.take();
        let previous = std::mem::replace(&mut self.last, added);
        let entry = &mut self.entries[added];
        entry.name.clear();
        entry.name.extend_from_slice(name);
        entry.hash = hash;
        entry.previous = previous;
        entry.next = Ref::NONE;
        match previous.some() {
            Some(previous) => self.entries[previous].next = added,
            None => self.first = added,
        }
        let entries = &self.entries;
        self.table
            .insert_unique(hash, added, |&place| entries[place].hash);
        (added, true)
    }

    /// As [`find_or_add`](Self::find_or_add) with the name `""`, of a roster that has no others.
    pub(super) fn only(&mut self) -> (Place<V>, bool) {
        match self.first.some() {
            Some(only) => (only, false),
            None => self.find_or_add(b""),
        }
    }

    /// Frees a place.
    pub(super) fn remove(&mut self, removed: Place<V>) {
        let entry = &self.entries[removed];
        let (hash, previous, next) = (entry.hash, entry.previous, entry.next);
        match previous.some() {
            Some(previous) => self.entries[previous].next = next,
            None => self.first = next,
        }
        match next.some() {
            Some(next) => self.entries[next].previous = previous,
            None => self.last = previous,
        }
        self.table
            .find_entry(hash, |&place| place == removed)
            .expect("an entry stays in the table until it is removed")
            .remove();
        self.entries.give(removed);
    }

    pub(super) fn name(&self, place: Place<V>) -> &[u8] {
        &self.entries[place].name
    }

    /// The earliest place.
    pub(super) fn first(&self) -> Option<Place<V>> {
        self.first.some()
    }

    /// The place that was taken next.
    pub(super) fn after(&self, place: Place<V>) -> Option<Place<V>> {
        self.entries[place].next.some()
    }

    /// All places in order.
    pub(super) fn places(&self) -> impl Iterator<Item = Place<V>> {
        std::iter::successors(self.first(), |&place| self.after(place))
    }

    /// Frees all places.
    pub(super) fn clear(&mut self) {
        if self.entries.slots() > BUFFER_ENTRIES_KEPT {
            *self = Self::new();
        }
        while let Some(first) = self.first() {
            self.remove(first);
        }
    }

    fn find_hashed(&self, hash: u64, name: &[u8]) -> Option<Place<V>> {
        let same = |&place: &Place<V>| self.entries[place].name[..] == *name;
        self.table.find(hash, same).copied()
    }
}

impl<V> Index<Place<V>> for Roster<V>
where
    V: Default,
{
    type Output = V;

    fn index(&self, place: Place<V>) -> &V {
        &self.entries[place].value
    }
}

impl<V> IndexMut<Place<V>> for Roster<V>
where
    V: Default,
{
    fn index_mut(&mut self, place: Place<V>) -> &mut V {
        &mut self.entries[place].value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(roster: &Roster<u32>) -> Vec<&[u8]> {
        let places: Vec<_> = roster.places().collect();
        places.into_iter().map(|place| roster.name(place)).collect()
    }

    #[test]
    fn names_stand_in_the_order_in_which_they_came() {
        let mut roster = Roster::<u32>::new();
        for name in [b"c", b"a", b"d", b"b"] {
            assert!(roster.find_or_add(name).1);
        }
        assert_eq!(names(&roster), [b"c", b"a", b"d", b"b"]);
        let (a, added) = roster.find_or_add(b"a");
        assert!(!added);
        roster.remove(a);
        assert_eq!(names(&roster), [b"c", b"d", b"b"]);
        assert!(roster.find(b"a").is_none());
        assert!(roster.find_or_add(b"a").1);
        assert_eq!(names(&roster), [b"c", b"d", b"b", b"a"]);
        assert_eq!(roster.len(), 4);
        let (first, last) = (roster.find(b"c"), roster.find(b"a"));
        roster.remove(first.unwrap());
        roster.remove(last.unwrap());
        assert_eq!(names(&roster), [b"d", b"b"]);
    }

    #[test]
    fn a_short_roster_keeps_its_places_and_a_long_one_gives_them_back() {
        let mut roster = Roster::<u32>::new();
        for (names, kept) in [(BUFFER_ENTRIES_KEPT, BUFFER_ENTRIES_KEPT), (1000, 0)] {
            for name in 0..names {
                roster.find_or_add(name.to_string().as_bytes());
            }
            roster.clear();
            assert_eq!(names_left(&roster), 0);
            assert_eq!(roster.entries.slots(), kept);
        }
    }

    fn names_left(roster: &Roster<u32>) -> usize {
        roster.places().count() + roster.len() as usize + roster.table.len()
    }
}
