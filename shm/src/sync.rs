//! The one door to atomics and futexes, so that loom can stand in for both.
//!
//! A [`FutexWord`] is four bytes of shared memory outside loom, and a model of the kernel's queue
//! inside it. Nothing else in this crate may name an atomic type or a futex call.

#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use std::time::Duration;

/// Why [`FutexWord::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Woken, or interrupted by a signal: look again.
    Woken,
    /// The word had another value already.
    Changed,
    /// The time was over.
    TimedOut,
}

/// A word that a process can sleep on. Zero-filled memory is a valid one.
#[cfg(not(loom))]
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct FutexWord(AtomicU32);

#[cfg(not(loom))]
impl FutexWord {
    /// The word.
    #[inline]
    pub fn value(&self) -> &AtomicU32 {
        &self.0
    }

    /// Sleeps while the word is `expected`, at most `timeout`; may return early. The futex is a
    /// shared one: other processes wake it.
    pub fn wait(&self, expected: u32, timeout: Option<Duration>) -> Waited {
        use rustix::io::Errno;
        use rustix::thread::futex;
        let timeout = timeout.and_then(|t| rustix::time::Timespec::try_from(t).ok());
        match futex::wait(&self.0, futex::Flags::empty(), expected, timeout.as_ref()) {
            Err(Errno::AGAIN) => Waited::Changed,
            Err(Errno::TIMEDOUT) => Waited::TimedOut,
            _ => Waited::Woken,
        }
    }

    /// Wakes everybody who sleeps on the word, and says how many did. All, never one: a process
    /// with a read-only mapping could wait here too and take a single wake for itself.
    pub fn wake_all(&self) -> usize {
        use rustix::thread::futex;
        futex::wake(&self.0, futex::Flags::empty(), i32::MAX as u32).unwrap_or(0)
    }

    /// Gives way to others before the `tries`-th next try of a loop that waits for their next step:
    /// at first they are an instant away, then they may need this core. If they have not come by
    /// then they wait for a core of their own, and many that yield to each other until they have it
    /// would only take time from everybody else.
    pub fn give_way(tries: u32) {
        match tries {
            0..4 => std::hint::spin_loop(),
            4..6 => rustix::thread::sched_yield(),
            _ => std::thread::sleep(Duration::from_micros(50)),
        }
    }
}

/// The model of the same under loom: the kernel compares and queues under a lock.
#[cfg(loom)]
#[derive(Debug)]
pub struct FutexWord {
    value: AtomicU32,
    sleepers: loom::sync::Mutex<usize>,
    woken: loom::sync::Condvar,
}

#[cfg(loom)]
impl Default for FutexWord {
    fn default() -> Self {
        Self {
            value: AtomicU32::new(0),
            sleepers: loom::sync::Mutex::new(0),
            woken: loom::sync::Condvar::new(),
        }
    }
}

#[cfg(loom)]
impl FutexWord {
    /// The word.
    pub fn value(&self) -> &AtomicU32 {
        &self.value
    }

    /// Sleeps while the word is `expected`. A model has no clock, so there is no time limit.
    pub fn wait(&self, expected: u32, _timeout: Option<Duration>) -> Waited {
        let mut sleepers = self.sleepers.lock().unwrap();
        if self.value.load(Ordering::Relaxed) != expected {
            return Waited::Changed;
        }
        *sleepers += 1;
        drop(self.woken.wait(sleepers).unwrap());
        Waited::Woken
    }

    /// Wakes everybody who sleeps on the word, and says how many did.
    pub fn wake_all(&self) -> usize {
        let mut sleepers = self.sleepers.lock().unwrap();
        self.woken.notify_all();
        std::mem::take(&mut *sleepers)
    }

    /// Lets the model run the others.
    pub fn give_way(_tries: u32) {
        loom::thread::yield_now();
    }
}
