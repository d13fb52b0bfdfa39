//! `dynamic_join`: lists of keys made at run time, each of which fires once all its keys are there.
//!
//! A list waits in the queue of each key that it misses and is touched once by each that comes, so
//! an object costs nothing for lists that do not name it.

use std::fmt::Write;

use crate::gather::outcome::{Outcome, Refusal};
use crate::gather::queue::{Queue, Queues};
use crate::gather::roster::{Place, Roster};
use crate::gather::text;
use crate::limits::BUFFER_ENTRIES_KEPT;
use crate::slab::{Ref, Slab};

/// The fields of a `dynamic_join`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JoinsRule {
    /// `keep = "until_consumed"`: an object is released once the lists that count it have fired.
    pub(crate) release_consumed: bool,
}

/// Objects and lists of a join.
pub(crate) struct Joins<T> {
    rule: JoinsRule,
    /// In order of their first mention, by an object or a list.
    keys: Roster<JoinKey<T>>,
    /// Those that have not fired.
    lists: Slab<List<T>>,
    waiting: Queues<Ref<List<T>>>,
    /// Lists ever.
    joined: u64,
    /// Lists that have not fired, and the keys in them.
    listed: u64,
    /// Keys whose object, or the name that this was given, is accounted for elsewhere.
    accounted: u32,
    /// Room to put lists in order.
    order: Vec<(u64, Ref<List<T>>)>,
}

struct JoinKey<T> {
    item: Option<T>,
    /// Its object has been released to a list that has fired.
    is_consumed: bool,
    /// Lists that miss it.
    waiting: Queue,
    /// Lists that name it and have not fired.
    users: u32,
    /// The last list that named it.
    named_by: u64,
}

impl<T> Default for JoinKey<T> {
    fn default() -> Self {
        Self {
            item: None,
            is_consumed: false,
            waiting: Queue::EMPTY,
            users: 0,
            named_by: 0,
        }
    }
}

struct List<T> {
    /// How many were joined before it, and itself.
    number: u64,
    keys: Vec<Place<JoinKey<T>>>,
    missing: usize,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self {
            number: 0,
            keys: Vec::new(),
            missing: 0,
        }
    }
}

impl<T: Copy> Joins<T> {
    pub(super) fn new(rule: JoinsRule) -> Self {
        Self {
            rule,
            keys: Roster::new(),
            lists: Slab::new(),
            waiting: Queues::new(),
            joined: 0,
            listed: 0,
            accounted: 0,
            order: Vec::new(),
        }
    }

    pub(super) fn reset(&mut self, rule: JoinsRule) {
        self.rule = rule;
        self.joined = 0;
    }

    /// `phr_join`: fires once every one of these keys is there, which may be at once. That they are
    /// no more than an invocation's inputs is the caller's to see to.
    pub(crate) fn join<'k>(
        &mut self,
        keys: impl IntoIterator<Item = &'k [u8]>,
        out: &mut Outcome<T>,
    ) -> Result<(), Refusal> {
        self.joined += 1;
        let (joined, _) = self.lists.take();
        let list = &mut self.lists[joined];
        list.number = self.joined;
        list.missing = 0;
        self.listed += 1;
        for key in keys {
            self.listed += 1;
            let place = key_place(&mut self.keys, key);
            let named_by = std::mem::replace(&mut self.keys[place].named_by, self.joined);
            if named_by == self.joined {
                // It is not on the list.
                self.listed -= 1;
                self.take_back(joined);
                return Err(Refusal::KeyTwice(String::from_utf8_lossy(key).into_owned()));
            }
            list.keys.push(place);
        }
        for &place in &list.keys {
            let key = &mut self.keys[place];
            key.users += 1;
            if key.item.is_none() {
                list.missing += 1;
                self.waiting.push(&mut key.waiting, joined);
            }
        }
        if list.missing == 0 {
            self.fire(joined, out);
        }
        Ok(())
    }

    /// Undoes a list that counts nowhere yet.
    fn take_back(&mut self, refused: Ref<List<T>>) {
        for &place in &self.lists[refused].keys {
            let key = &self.keys[place];
            if key.item.is_none() && !key.is_consumed && key.users == 0 {
                self.keys.remove(place);
            }
        }
        self.forget(refused);
    }

    fn forget(&mut self, forgotten: Ref<List<T>>) {
        let keys = &mut self.lists[forgotten].keys;
        self.listed -= keys.len() as u64 + 1;
        keys.clear();
        keys.shrink_to(BUFFER_ENTRIES_KEPT);
        self.lists.give(forgotten);
    }

    pub(super) fn offer(&mut self, item: T, key: &[u8], out: &mut Outcome<T>) {
        let place = key_place(&mut self.keys, key);
        let key = &mut self.keys[place];
        if key.item.is_some() || key.is_consumed {
            out.released.push(item);
            return;
        }
        key.item = Some(item);
        self.accounted += 1;
        while let Some(waiting) = self.waiting.pop(&mut self.keys[place].waiting) {
            let list = &mut self.lists[waiting];
            list.missing -= 1;
            if list.missing == 0 {
                self.fire(waiting, out);
            }
        }
    }

    /// Fires a list with what is there, in the listed order.
    fn fire(&mut self, fired: Ref<List<T>>, out: &mut Outcome<T>) {
        let list = &self.lists[fired];
        out.fire(list.keys.iter().filter_map(|&place| self.keys[place].item));
        for &place in &list.keys {
            let key = &mut self.keys[place];
            key.users -= 1;
            if self.rule.release_consumed
                && key.users == 0
                && let Some(item) = key.item.take()
            {
                key.is_consumed = true;
                // Nobody else remembers an automatic one.
                self.accounted -= u32::from(self.keys.name(place).starts_with(b"~"));
                out.released.push(item);
            }
        }
        self.forget(fired);
    }

    /// Lists with their keys, and keys without an object.
    pub(super) fn remembered(&self) -> u64 {
        self.listed + u64::from(self.keys.len() - self.accounted)
    }

    pub(super) fn is_pending(&self) -> bool {
        self.lists.live() > 0
    }

    /// Fires all lists with what is there, in the order in which they were joined.
    pub(super) fn fire_pending(&mut self, out: &mut Outcome<T>) {
        let mut order = self.take_all();
        for (_, list) in order.drain(..) {
            self.fire(list, out);
        }
        self.order = order;
    }

    /// Drops the lists. The objects stay, for lists that are still to come.
    pub(super) fn drop_pending(&mut self, out: &mut Outcome<T>) {
        let mut order = self.take_all();
        for (_, dropped) in order.drain(..) {
            for &place in &self.lists[dropped].keys {
                self.keys[place].users -= 1;
            }
            self.forget(dropped);
            out.dropped += 1;
        }
        self.order = order;
    }

    /// All lists in order; none waits for a key any more.
    fn take_all(&mut self) -> Vec<(u64, Ref<List<T>>)> {
        let mut order = std::mem::take(&mut self.order);
        order.extend(
            self.lists
                .refs()
                .map(|list| (self.lists[list].number, list)),
        );
        order.sort_unstable_by_key(|&(number, _)| number);
        for &(_, list) in &order {
            for &place in &self.lists[list].keys {
                self.keys[place].waiting = Queue::EMPTY;
            }
        }
        self.waiting.clear();
        order
    }

    pub(super) fn drain(&mut self, out: &mut Outcome<T>) {
        self.drop_pending(out);
        let items = self.keys.places().filter_map(|place| self.keys[place].item);
        out.released.extend(items);
        self.keys.clear();
        self.accounted = 0;
        self.order.shrink_to(BUFFER_ENTRIES_KEPT);
        if self.lists.slots() > BUFFER_ENTRIES_KEPT {
            self.lists = Slab::new();
        }
    }

    pub(super) fn waiting_for(&self) -> String {
        let lists = self.lists.refs().map(|list| &self.lists[list]);
        let Some(list) = lists.min_by_key(|list| list.number) else {
            return "has no list that waits".to_owned();
        };
        let absent = |consumed: bool| {
            list.keys.iter().filter(move |&&place| {
                let key = &self.keys[place];
                key.item.is_none() && key.is_consumed == consumed
            })
        };
        let names = |consumed| {
            let names = absent(consumed).map(|&place| self.keys.name(place));
            text::listed(names, absent(consumed).count())
        };
        let (missing, consumed) = (names(false), names(true));
        let keys = list.keys.len();
        let mut text = format!("has {} of the {keys} keys of a list", keys - list.missing);
        if !missing.is_empty() {
            write!(text, "; missing: {missing}").expect("a string has room");
        }
        if !consumed.is_empty() {
            write!(text, "; consumed by an earlier list: {consumed}").expect("a string has room");
        }
        if let more @ 1.. = self.lists.live() - 1 {
            let lists = text::counted(u64::from(more), "more list");
            write!(text, "; and {lists}").expect("a string has room");
        }
        text
    }
}

fn key_place<T: Copy>(keys: &mut Roster<JoinKey<T>>, key: &[u8]) -> Place<JoinKey<T>> {
    let (place, added) = keys.find_or_add(key);
    if added {
        keys[place] = JoinKey::default();
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_list_leaves_no_key_that_only_it_has_named() {
        let mut joins = Joins::<u32>::new(JoinsRule {
            release_consumed: false,
        });
        let mut out = Outcome::default();
        joins.join([&b"waited for"[..]], &mut out).unwrap();
        joins.offer(0, b"there", &mut out);
        let keys = [&b"there"[..], b"waited for", b"new", b"newer", b"new"];
        joins.join(keys, &mut out).unwrap_err();
        let left: Vec<&[u8]> = joins
            .keys
            .places()
            .map(|place| joins.keys.name(place))
            .collect();
        assert_eq!(left, [&b"waited for"[..], b"there"]);
        assert_eq!(joins.lists.live(), 1);
    }
}
