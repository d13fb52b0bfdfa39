//! `custom`: holds every object until the trigger's own code fires or drops it.
//!
//! That code runs in a process of its own, so what it decides comes later, and about objects by
//! their numbers. A verdict is judged as a whole before anything of it is done: what it fires or
//! drops is *spent* while it is judged, and then swept away, or pending again.

use std::collections::VecDeque;

use crate::gather::outcome::Outcome;
use crate::limits::BUFFER_ENTRIES_KEPT;

/// How a custom trigger holds objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HandRule {
    /// What has fired stays pending until it is dropped.
    pub(crate) keep: bool,
}

/// What a custom trigger may decide about.
pub(crate) struct Hand<T> {
    rule: HandRule,
    /// In order of arrival, their numbers ascending.
    entries: VecDeque<Entry<T>>,
    /// Entries of which nothing is left.
    gone: usize,
    /// Of the verdict that is being judged.
    spent: Vec<u64>,
    /// How many of these are dropped and have never fired.
    dropped: u64,
    /// Of the next object.
    next: u64,
    /// What is below this and not here has been withdrawn from the trigger, not fired or dropped.
    withdrawn_until: u64,
    /// Events that the trigger has not answered.
    unanswered: u32,
    /// The trigger's process knows of objects that have been withdrawn.
    owes_word: bool,
    end: End,
}

struct Entry<T> {
    number: u64,
    /// None: nothing is left of it.
    item: Option<T>,
    is_spent: bool,
}

/// Whether the trigger has been told that nothing else keeps the session open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    NotTold,
    /// The session had had so many firings then.
    Told(u32),
}

/// Why a verdict cannot be meant, said of one of its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotPending {
    /// It has been fired, or dropped, or has never been there.
    #[error("is not pending in the trigger")]
    Unknown,
    /// It was withdrawn before the verdict came: that is nobody's fault.
    #[error("has been withdrawn")]
    Withdrawn,
}

impl<T: Copy> Hand<T> {
    pub(super) fn new(rule: HandRule) -> Self {
        Self {
            rule,
            entries: VecDeque::new(),
            gone: 0,
            spent: Vec::new(),
            dropped: 0,
            next: 0,
            withdrawn_until: 0,
            unanswered: 0,
            owes_word: false,
            end: End::NotTold,
        }
    }

    pub(super) fn reset(&mut self, rule: HandRule) {
        let mut entries = std::mem::take(&mut self.entries);
        entries.clear();
        *self = Self {
            entries,
            ..Self::new(rule)
        };
    }

    pub(super) fn offer(&mut self, item: T) {
        self.entries.push_back(Entry {
            number: self.next,
            item: Some(item),
            is_spent: false,
        });
        self.next += 1;
        self.unanswered += 1;
        self.end = End::NotTold;
    }

    /// The number of the last object offered.
    pub(crate) fn last_number(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    pub(super) fn is_pending(&self) -> bool {
        self.entries.len() > self.gone
    }

    /// Whether the trigger has yet to answer for something.
    pub(super) fn is_unanswered(&self) -> bool {
        self.unanswered > 0
    }

    /// One event has been answered, or need not be any more.
    pub(crate) fn answered(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
    }

    /// The pending object of this number.
    pub(crate) fn get(&self, number: u64) -> Option<T> {
        let entry = &self.entries[self.position(number)?];
        entry.item.filter(|_| !entry.is_spent)
    }

    /// An object that has not been released, pending or spent.
    pub(crate) fn held(&self, number: u64) -> Option<T> {
        self.entries[self.position(number)?].item
    }

    /// Pending objects with their numbers, oldest first.
    pub(crate) fn pending(&self) -> impl Iterator<Item = (u64, T)> {
        let entries = self.entries.iter();
        entries.filter_map(|entry| Some((entry.number, entry.item?)))
    }

    /// An object that the verdict fires: it is spent unless it may be fired again.
    pub(crate) fn fire(&mut self, number: u64) -> Result<T, NotPending> {
        let keep = self.rule.keep;
        self.take(number, !keep)
    }

    /// An object that the verdict drops.
    pub(crate) fn drop(&mut self, number: u64) -> Result<T, NotPending> {
        let item = self.take(number, true)?;
        self.dropped += u64::from(!self.rule.keep);
        Ok(item)
    }

    /// The pending object of this number, or why there is none.
    pub(crate) fn find(&self, number: u64) -> Result<T, NotPending> {
        self.get(number).ok_or(if self.is_withdrawn(number) {
            NotPending::Withdrawn
        } else {
            NotPending::Unknown
        })
    }

    /// Whether the object of this number was withdrawn before it was fired or dropped.
    pub(crate) fn is_withdrawn(&self, number: u64) -> bool {
        number < self.withdrawn_until && self.position(number).is_none()
    }

    fn take(&mut self, number: u64, spends: bool) -> Result<T, NotPending> {
        let item = self.find(number)?;
        if spends && let Some(at) = self.position(number) {
            self.entries[at].is_spent = true;
            self.spent.push(number);
        }
        Ok(item)
    }

    /// The verdict is void: what it has spent is pending again.
    pub(crate) fn restore(&mut self) {
        self.dropped = 0;
        while let Some(number) = self.spent.pop() {
            if let Some(at) = self.position(number) {
                self.entries[at].is_spent = false;
            }
        }
    }

    /// The verdict is carried out: what it has spent is released.
    pub(crate) fn sweep(&mut self, out: &mut Outcome<T>) {
        for at in 0..self.spent.len() {
            if let Some(place) = self.position(self.spent[at])
                && let Some(item) = self.entries[place].item.take()
            {
                out.released.push(item);
                self.gone += 1;
            }
        }
        self.spent.clear();
        out.dropped += std::mem::take(&mut self.dropped);
        if self.gone > self.entries.len() / 2 {
            self.entries.retain(|entry| entry.item.is_some());
            self.entries
                .shrink_to(2 * self.entries.len().max(BUFFER_ENTRIES_KEPT));
            self.gone = 0;
        }
    }

    fn position(&self, number: u64) -> Option<usize> {
        let by_number = |entry: &Entry<T>| entry.number.cmp(&number);
        self.entries.binary_search_by(by_number).ok()
    }

    /// Whether the trigger should hear that nothing else keeps the session open, before its
    /// pending objects are dropped. `firings`: how many the session has had.
    pub(crate) fn wants_end(&self, firings: u32) -> bool {
        self.is_pending() && self.end != End::Told(firings)
    }

    /// It will hear of it.
    pub(crate) fn tell_end(&mut self, firings: u32) {
        self.end = End::Told(firings);
        self.unanswered += 1;
    }

    /// A fresh process of the trigger will be told of everything that is pending.
    pub(crate) fn tell_again(&mut self) {
        self.restore();
        // A session has at most 2^32 objects.
        self.unanswered = (self.entries.len() - self.gone) as u32;
        self.owes_word = false;
        self.end = End::NotTold;
    }

    pub(super) fn drop_pending(&mut self, out: &mut Outcome<T>) {
        self.owes_word |= self.is_pending();
        out.drop_all(self.entries.iter().filter_map(|entry| entry.item));
        self.entries.clear();
        self.entries.shrink_to(BUFFER_ENTRIES_KEPT);
        self.gone = 0;
        self.spent.clear();
        self.withdrawn_until = self.next;
    }

    /// Whether the trigger's process may know of objects that it can decide about no more.
    pub(crate) fn owes_word(&self) -> bool {
        self.owes_word
    }

    pub(super) fn waiting_for(&self) -> String {
        let pending = self.entries.len() - self.gone;
        let plural = if pending == 1 { "" } else { "s" };
        format!("has neither fired nor dropped {pending} object{plural}")
    }
}
