//! Sleeping and waking without losing a wake.
//!
//! A sleeper says so in a word that only it writes, looks once more, and waits on that word. A waker
//! publishes what it has, then looks at the word. Between the two stands a sequentially consistent
//! fence on each side, so that at least one of them sees the other (Dekker).
//!
//! The waker may have the word mapped read-only (an executor waking its scheduler), so it cannot
//! change it, and a wake that falls between the sleeper's last look and its wait finds nobody. So
//! the waker tries again until somebody was woken or the sleeper is up: the window is a few
//! instructions of the sleeper's. The word counts sleeps, so that a waker which has ended this
//! one does not pay for it twice.

use std::time::Duration;

#[cfg(not(loom))]
pub use crate::bell::{Bell, BellRope};
use crate::sync::{AtomicU32, FutexWord, Ordering, fence};

/// State bits of the word; the rest counts sleeps.
const STATE_MASK: u32 = 3;
pub(crate) const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;
/// Its owner never sleeps: nobody needs a fence or a wake.
pub(crate) const NEVER_SLEEPS: u32 = 2;
const ONE_SLEEP: u32 = 4;

/// Sleeps on `word`, which only the caller writes, until woken or `timeout` has passed; not at all
/// if `rescan` finds something once the word says "asleep". False when the time was up.
pub fn sleep(
    word: &FutexWord,
    mut rescan: impl FnMut() -> bool,
    timeout: Option<Duration>,
) -> bool {
    let count = word.value().load(Ordering::Relaxed) & !STATE_MASK;
    let asleep = count.wrapping_add(ONE_SLEEP) | ASLEEP;
    word.value().store(asleep, Ordering::SeqCst);
    fence(Ordering::SeqCst);
    let woken = rescan() || word.wait(asleep, timeout);
    word.value()
        .store(asleep & !STATE_MASK | AWAKE, Ordering::SeqCst);
    woken
}

/// One waker's side of a word: remembers the sleep that it has ended.
#[derive(Debug)]
pub struct Waker {
    ended: AtomicU32,
}

impl Default for Waker {
    fn default() -> Self {
        Self {
            ended: AtomicU32::new(0),
        }
    }
}

impl Waker {
    /// Wakes whoever sleeps on `word`, after the caller has published what there is to find.
    #[inline]
    pub fn wake(&self, word: &FutexWord) {
        if word.value().load(Ordering::Relaxed) & STATE_MASK == NEVER_SLEEPS {
            return;
        }
        fence(Ordering::SeqCst);
        let seen = word.value().load(Ordering::Relaxed);
        if seen & STATE_MASK == ASLEEP && seen != self.ended.load(Ordering::Relaxed) {
            self.end(word, seen);
        }
    }

    #[cold]
    fn end(&self, word: &FutexWord, seen: u32) {
        // Ends: the sleeper either comes to wait, where it is woken, or gets up by itself.
        while word.wake_all() == 0 && word.value().load(Ordering::SeqCst) == seen {
            FutexWord::give_way();
        }
        self.ended.store(seen, Ordering::Relaxed);
    }
}
