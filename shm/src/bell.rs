//! The `node` page: whether a scheduler sleeps, written by it alone and read by everybody.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::doorbell::{SleepWord, Sound};
use crate::file::create_sealed;
use crate::limits::{BELL_BYTES, node};
use crate::mapping::{Mapping, One, Shared};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// The `node` page, from the side of the scheduler that writes it.
#[derive(Debug)]
pub struct Bell {
    file: OwnedFd,
    word: Shared<SleepWord>,
    never_sleeps: Shared<AtomicU32>,
    turns: Shared<AtomicU64>,
}

impl Bell {
    /// Makes a page.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn create() -> io::Result<Self> {
        Self::map(create_sealed("pheromone:node", BELL_BYTES)?)
    }

    /// Maps a `node` page (made by [`create_sealed`] with [`BELL_BYTES`]) for its scheduler.
    ///
    /// # Errors
    /// A file that is too short (`InvalidInput`), or what the kernel says.
    pub fn map(file: OwnedFd) -> io::Result<Self> {
        let page = Mapping::writable_of(file.as_fd(), BELL_BYTES as usize)?;
        Ok(Self {
            file,
            word: page.place(node::ASLEEP, 1),
            never_sleeps: page.place(node::NEVER_SLEEPS, 1),
            turns: page.place(node::TURNS, 1),
        })
    }

    /// Counts a turn of the loop, for those who look whether it still turns.
    #[inline(always)]
    pub fn count_turn(&self) {
        let turns = self.turns[0].load(Ordering::Relaxed);
        self.turns[0].store(turns.wrapping_add(1), Ordering::Relaxed);
    }

    /// The page's file. Executors get it through
    /// [`reopen_read_only`](crate::file::reopen_read_only).
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Declares that the scheduler never sleeps, so that nobody pays for a fence (or that it does
    /// again).
    pub fn set_never_sleeps(&self, never: bool) {
        self.never_sleeps[0].store(u32::from(never), Ordering::Release);
    }

    /// Sleeps until somebody pulls a rope or `timeout` has passed; not at all if `rescan` finds
    /// something. False only when the time was over; true may come without news.
    pub fn sleep(&self, rescan: impl FnMut() -> bool, timeout: Option<Duration>) -> bool {
        self.word[0].sleep::<Sound>(rescan, timeout)
    }
}

/// The `node` page, from everybody else's side: read-only.
#[derive(Debug)]
pub struct BellRope {
    word: One<SleepWord>,
    /// The sleep that this rope has ended last.
    ended: AtomicU32,
    never_sleeps: One<AtomicU32>,
    turns: One<AtomicU64>,
}

impl BellRope {
    /// Maps a `node` page read-only.
    ///
    /// # Errors
    /// A file that is too short (`InvalidInput`), or what the kernel says.
    pub fn map(file: impl AsFd) -> io::Result<Self> {
        let page = Mapping::read_only_of(file.as_fd(), BELL_BYTES as usize)?;
        page.populate(0, BELL_BYTES as usize, false);
        Ok(Self {
            word: page.one(node::ASLEEP),
            ended: AtomicU32::new(0),
            never_sleeps: page.one(node::NEVER_SLEEPS),
            turns: page.one(node::TURNS),
        })
    }

    /// Turns that the scheduler's loop has counted.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Wakes the scheduler if it sleeps, after the caller has published something for it. The
    /// page does not say who else could have been woken: a stranger who waits there as well can
    /// hold a wake up until the scheduler looks by itself.
    #[inline(always)]
    pub fn ring_if_asleep(&self) {
        if self.never_sleeps.load(Ordering::Relaxed) == 0 {
            self.word.wake_if_asleep::<Sound>(&self.ended);
        }
    }
}
