//! Sleeping and waking without losing a wake.
//!
//! A sleeper says that it sleeps, looks once more, and waits. A waker publishes what it has, then
//! looks whether somebody sleeps. Between the two steps of each stands a sequentially consistent
//! fence, so that at least one of them sees the other (Dekker). What is left is a wake that falls
//! between the sleeper's last look and its wait. How it is kept depends on who may write:
//!
//! - [`sleep`] and [`wake_if_asleep`]: the waker has a word of its own that counts wakes. The
//!   sleeper says which count it is going to wait on, so a sleep is ended once and costs one
//!   system call however much is said to it. So an executor sleeps: its `up` says so, `down`
//!   counts. A hostile sleeper costs its waker one needless call a message, never a loop.
//! - [`SleepWord`]: everybody else may only read. A wake that found nobody is repeated until the
//!   sleeper waits or is up again; the word counts sleeps, so that one sleep is not taken for the
//!   next, and a waker remembers which it has ended. So the scheduler sleeps, which executors
//!   trust and cannot write to.
//!
//! A producer that waits for room sleeps in the first way. Its consumer need not look for it after
//! each message: a ring that is full has more than half of its slots waiting to be read, so the
//! consumer passes a multiple of half the ring before it finds the ring empty, and looks then.

use std::time::{Duration, Instant};

#[cfg(not(loom))]
pub use crate::bell::{Bell, BellRope};
use crate::sync::{AtomicU32, FutexWord, Ordering, Waited, fence};

/// What the lowest bits of a sleeper's announcement say: awake. The others are the count of wakes
/// that it waits on.
pub const AWAKE: u32 = 0;
/// Asleep until there is a message.
pub const ASLEEP_IDLE: u32 = 1;
/// Asleep until there is room in a ring that it writes.
pub const ASLEEP_FOR_ROOM: u32 = 2;
const WHY_BITS: u32 = 2;
const WHY_MASK: u32 = (1 << WHY_BITS) - 1;

/// The steps that the protocols rest on. There is one sound set; tests leave one out on purpose to
/// show that the models would find it.
pub trait Steps {
    /// The sleeper fences between saying that it sleeps and its last look.
    const SLEEPER_FENCE: bool = true;
    /// The waker fences between what it publishes and its look for a sleeper.
    const WAKER_FENCE: bool = true;
    /// The waker counts the wake before it wakes.
    const COUNT: bool = true;
    /// A wake that found nobody is repeated.
    const AGAIN: bool = true;
}

/// The steps that are right.
#[derive(Debug)]
pub struct Sound;

impl Steps for Sound {}

/// Sleeps until woken or `timeout` has passed; not at all if `rescan` finds something. False only
/// when the time was over; true may come without news.
///
/// `asleep` is written by this side only, and says `why`; `wakes` is written by wakers only.
pub fn sleep<S: Steps>(
    asleep: &AtomicU32,
    wakes: &FutexWord,
    why: u32,
    rescan: impl FnOnce() -> bool,
    timeout: Option<Duration>,
) -> bool {
    // Acquire: whoever counted has published before, and is not going to wake for it again.
    let count = wakes.value().load(Ordering::Acquire);
    // Release: who reads this count there reads no older one in `wakes`.
    asleep.store(count << WHY_BITS | why, Ordering::Release);
    if S::SLEEPER_FENCE {
        fence(Ordering::SeqCst);
    }
    let woken = rescan() || wakes.wait(count, timeout) != Waited::TimedOut;
    asleep.store(AWAKE, Ordering::Relaxed);
    woken
}

/// Wakes the sleeper behind these two words if it sleeps (for this reason, where one is given),
/// after the caller has published what there is to find. Answers with the time that the wake took
/// its caller, where there was one.
#[inline]
pub fn wake_if_asleep<S: Steps>(
    asleep: &AtomicU32,
    wakes: &FutexWord,
    why: Option<u32>,
) -> Option<Duration> {
    if S::WAKER_FENCE {
        fence(Ordering::SeqCst);
    }
    let says = asleep.load(Ordering::Relaxed);
    let says_why = says & WHY_MASK;
    if says_why != AWAKE && why.is_none_or(|why| why == says_why) {
        return wake::<S>(says, wakes);
    }
    None
}

#[cold]
fn wake<S: Steps>(says: u32, wakes: &FutexWord) -> Option<Duration> {
    fence(Ordering::Acquire);
    let count = wakes.value().load(Ordering::Relaxed);
    if says >> WHY_BITS != count << WHY_BITS >> WHY_BITS {
        // It was woken from that sleep already, and is about to get up.
        return None;
    }
    let began = Instant::now();
    if S::COUNT {
        wakes.value().fetch_add(1, Ordering::Release);
    }
    wakes.wake_all();
    Some(began.elapsed())
}

/// A word that only its sleeper writes and that others watch: odd while it sleeps, and another odd
/// number in each sleep.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct SleepWord(FutexWord);

/// Wakes that found nobody before a waker gives up: with 50 us between most of them, about a
/// second. The sleeper has been killed or stopped between its last look and its wait.
const WAKES_MAX: u32 = 20_000;

impl SleepWord {
    /// Sleeps until woken or `timeout` has passed; not at all if `rescan` finds something. False
    /// only when the time was over; true may come without news.
    pub fn sleep<S: Steps>(
        &self,
        rescan: impl FnOnce() -> bool,
        timeout: Option<Duration>,
    ) -> bool {
        let asleep = self.0.value().load(Ordering::Relaxed) | 1;
        self.0.value().store(asleep, Ordering::Relaxed);
        if S::SLEEPER_FENCE {
            fence(Ordering::SeqCst);
        }
        let woken = rescan() || self.0.wait(asleep, timeout) != Waited::TimedOut;
        let awake = asleep.wrapping_add(1);
        self.0.value().store(awake, Ordering::Relaxed);
        woken
    }

    /// Wakes the sleeper if it sleeps, after the caller has published what there is to find.
    /// `ended` is the caller's memory of the sleep that it has ended last, at first 0.
    #[inline(always)]
    pub fn wake_if_asleep<S: Steps>(&self, ended: &AtomicU32) {
        if S::WAKER_FENCE {
            fence(Ordering::SeqCst);
        }
        let seen = self.0.value().load(Ordering::Relaxed);
        if seen & 1 == 1 {
            self.wake::<S>(seen, ended);
        }
    }

    #[cold]
    #[inline(never)]
    fn wake<S: Steps>(&self, seen: u32, ended: &AtomicU32) {
        if seen != ended.load(Ordering::Relaxed) {
            self.wake_from::<S>(seen);
            ended.store(seen, Ordering::Relaxed);
        }
    }

    /// Wakes the sleeper from this sleep.
    fn wake_from<S: Steps>(&self, seen: u32) {
        for tries in 0..WAKES_MAX {
            if self.0.wake_all() > 0 || !S::AGAIN {
                return;
            }
            if self.0.value().load(Ordering::Relaxed) != seen {
                return;
            }
            FutexWord::give_way(tries);
        }
    }
}
