//! `by_set`: one object for each of its keys, all at once, in the listed order, once.

use crate::gather::outcome::Outcome;
use crate::gather::text;
use crate::limits::BUFFER_ENTRIES_KEPT;

/// What has come of a set.
pub(crate) struct Set<T> {
    /// By place in the set; empty once it is over.
    items: Vec<Option<T>>,
    present: u32,
}

impl<T: Copy> Set<T> {
    pub(super) fn new(keys: u32) -> Self {
        let mut set = Self {
            items: Vec::new(),
            present: 0,
        };
        set.reset(keys);
        set
    }

    pub(super) fn reset(&mut self, keys: u32) {
        self.items.clear();
        self.items.resize(keys as usize, None);
        self.present = 0;
    }

    pub(super) fn offer(&mut self, item: T, position: u32, out: &mut Outcome<T>) {
        let Some(place @ None) = self.items.get_mut(position as usize) else {
            out.released.push(item);
            return;
        };
        *place = Some(item);
        self.present += 1;
        if self.present as usize == self.items.len() {
            self.fire_pending(out);
        }
    }

    pub(super) fn is_pending(&self) -> bool {
        self.present > 0
    }

    pub(super) fn fire_pending(&mut self, out: &mut Outcome<T>) {
        if self.is_pending() {
            out.fire_off(self.items.iter().copied().flatten());
            self.be_over();
        }
    }

    pub(crate) fn drop_pending(&mut self, out: &mut Outcome<T>) {
        if self.is_pending() {
            out.drop_all(self.items.iter().copied().flatten());
            self.be_over();
        }
    }

    /// What comes later changes nothing.
    pub(crate) fn be_over(&mut self) {
        self.items.clear();
        self.items.shrink_to(BUFFER_ENTRIES_KEPT);
        self.present = 0;
    }

    pub(super) fn waiting_for(&self, keys: &[String]) -> String {
        let absent = keys
            .iter()
            .zip(&self.items)
            .filter(|(_, item)| item.is_none())
            .map(|(key, _)| key.as_bytes());
        let missing = text::listed(absent, self.items.len() - self.present as usize);
        let keys = self.items.len();
        format!(
            "has {} of its {keys} keys; missing: {missing}",
            self.present
        )
    }
}
