//! The `node` page: whether a scheduler sleeps, written by it alone and read by everybody.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::doorbell::{AWAKE, NEVER_SLEEPS, Waker, sleep};
use crate::file::reopen_read_only;
use crate::mapping::Mapping;
use crate::sync::{FutexWord, Ordering};

/// The `node` page, from the side of the scheduler that writes it.
#[derive(Debug)]
pub struct Bell {
    page: Arc<Mapping>,
}

impl Bell {
    /// Maps a `node` page (made by [`create_sealed`](crate::file::create_sealed) with
    /// [`BELL_BYTES`](crate::limits::BELL_BYTES)) for its scheduler.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn map(file: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            page: Arc::new(Mapping::writable(file.as_fd())?),
        })
    }

    /// Declares that the scheduler never sleeps, so that nobody pays for a fence.
    pub fn set_never_sleeps(&self, never: bool) {
        let state = if never { NEVER_SLEEPS } else { AWAKE };
        self.word().value().store(state, Ordering::SeqCst);
    }

    /// See [`sleep`].
    pub fn sleep(&self, rescan: impl FnMut() -> bool, timeout: Option<Duration>) -> bool {
        sleep(self.word(), rescan, timeout)
    }

    fn word(&self) -> &FutexWord {
        self.page.futex_word(0)
    }
}

/// The `node` page, from everybody else's side: read-only.
#[derive(Debug)]
pub struct BellRope {
    page: Arc<Mapping>,
    waker: Waker,
}

impl BellRope {
    /// Maps a `node` page read-only.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn map(file: impl AsFd) -> io::Result<Self> {
        Ok(Self {
            page: Arc::new(Mapping::read_only(file.as_fd())?),
            waker: Waker::default(),
        })
    }

    /// Maps a `node` page of which only a writable descriptor is at hand, still read-only.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn map_writable_descriptor(file: impl AsFd) -> io::Result<Self> {
        Self::map(reopen_read_only(file.as_fd())?)
    }

    /// Wakes the scheduler if it sleeps, after the caller has published something for it.
    #[inline]
    pub fn ring_if_asleep(&self) {
        self.waker.wake(self.page.futex_word(0));
    }
}
