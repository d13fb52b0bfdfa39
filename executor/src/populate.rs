//! Faulting large inputs in by one call, the first time that this process reads them.
//!
//! Never an error: reading works without, page by page. What has been seen is remembered, because
//! the call costs time for pages that are there already, too.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::Mutex;

use crate::objects::{Object, State};

/// Smaller inputs are left to page faults.
const FROM_BYTES: u64 = 64 * 1024;
/// At most this much of an input is faulted in ahead (about 1 ms): a function that reads on pays
/// for the rest itself, one that looks at the beginning has not paid for all.
const BYTES_MAX: u64 = 16 << 20;
/// Ranges that are remembered; past that all are forgotten.
const RANGES_MAX: usize = 4096;

static SEEN: Mutex<Ranges> = Mutex::new(Ranges(BTreeMap::new()));

/// Whether an input of this size is worth a call.
pub fn pays_off(size_bytes: u64) -> bool {
    size_bytes >= FROM_BYTES
}

/// Called when a function asks where an object's payload is.
#[inline]
pub fn before_reading(object: &Object) {
    if !object.populated.get() {
        populate(object);
    }
}

#[cold]
fn populate(object: &Object) {
    object.populated.set(true);
    if object.state.get() != State::Held {
        return;
    }
    let page_bytes = rustix::param::page_size();
    let data = object.data.get() as usize;
    let start = data / page_bytes * page_bytes;
    let end = data + object.size_bytes.get().min(BYTES_MAX) as usize;
    // A poisoned lock means a panic in Ranges, and panics abort.
    let Ok(mut seen) = SEEN.lock() else { return };
    if seen.contain(start, end) {
        return;
    }
    let advice = rustix::mm::Advice::LinuxPopulateRead;
    // SAFETY: the payload was found to lie in the window, which stays mapped; populating changes
    // no content. A failure leaves the pages to page faults.
    let _ = unsafe { rustix::mm::madvise(start as *mut c_void, end - start, advice) };
    seen.insert(start, end);
}

/// Disjoint ranges of addresses, end by start.
struct Ranges(BTreeMap<usize, usize>);

impl Ranges {
    fn contain(&self, start: usize, end: usize) -> bool {
        self.0
            .range(..=start)
            .next_back()
            .is_some_and(|(_, seen_end)| *seen_end >= end)
    }

    fn insert(&mut self, mut start: usize, mut end: usize) {
        if self.0.len() >= RANGES_MAX {
            self.0.clear();
        }
        while let Some((other, other_end)) = self.0.range(..=end).next_back() {
            let (other, other_end) = (*other, *other_end);
            if other_end < start {
                break;
            }
            self.0.remove(&other);
            (start, end) = (start.min(other), end.max(other_end));
        }
        self.0.insert(start, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_remembered_and_merged() {
        let mut seen = Ranges(BTreeMap::new());
        seen.insert(10, 20);
        seen.insert(30, 40);
        assert!(seen.contain(10, 20) && seen.contain(12, 13) && !seen.contain(15, 31));
        assert!(!seen.contain(9, 12) && !seen.contain(0, 1));
        seen.insert(20, 30);
        assert_eq!(seen.0.len(), 1);
        assert!(seen.contain(10, 40));
        seen.insert(0, 100);
        assert_eq!(seen.0, BTreeMap::from([(0, 100)]));
        seen.insert(50, 60);
        assert_eq!(seen.0, BTreeMap::from([(0, 100)]));
        for i in 0..10 * RANGES_MAX {
            seen.insert(1000 + 3 * i, 1001 + 3 * i);
        }
        assert!(seen.0.len() <= RANGES_MAX);
    }
}
