//! Shared memory with a word for each direction: whoever waits sleeps on it, whoever has written
//! the message counts it up and wakes.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::Result;
use pheromone_shm::mapping::{Mapping, Shared};
use pheromone_shm::sync::{AtomicU64, FutexWord, Ordering};

use crate::exchange::{End, Message, Role};

const FILE: &str = "words";
const FILE_BYTES: usize = 4096;
/// Offsets: each direction has its word in one line and its message in the next.
const THERE: usize = 0;
const BACK: usize = 4 * LINE_BYTES;
const LINE_BYTES: usize = 64;

/// Makes the file.
///
/// # Errors
/// What the kernel says.
pub fn prepare(place: &Path) -> Result<()> {
    Ok(File::create(place.join(FILE))?.set_len(FILE_BYTES as u64)?)
}

/// One direction.
struct Direction {
    count: Shared<FutexWord>,
    words: Shared<AtomicU64>,
}

/// Both of them, from one side.
pub struct Words {
    into: Direction,
    out_of: Direction,
    sent: u32,
    received: u32,
}

impl Words {
    /// Maps the file.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(place: &Path, role: Role) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(place.join(FILE))?;
        let mapping = Mapping::writable_of(file.as_fd(), FILE_BYTES)?;
        let direction = |at| Direction {
            count: mapping.place(at, 1),
            words: mapping.place(at + LINE_BYTES, size_of::<Message>() / 8),
        };
        let (into, out_of) = match role {
            Role::Driver => (THERE, BACK),
            Role::Responder => (BACK, THERE),
        };
        Ok(Self {
            into: direction(into),
            out_of: direction(out_of),
            sent: 0,
            received: 0,
        })
    }
}

impl End for Words {
    fn send(&mut self, message: &Message) -> Result<()> {
        for (word, value) in self.into.words.iter().zip(message) {
            word.store(*value, Ordering::Relaxed);
        }
        self.sent = self.sent.wrapping_add(1);
        let count = &self.into.count[0];
        count.value().store(self.sent, Ordering::Release);
        count.wake_all();
        Ok(())
    }

    fn receive(&mut self) -> Result<Message> {
        let count = &self.out_of.count[0];
        while count.value().load(Ordering::Acquire) == self.received {
            count.wait(self.received, None);
        }
        self.received = self.received.wrapping_add(1);
        Ok(std::array::from_fn(|at| {
            self.out_of.words[at].load(Ordering::Relaxed)
        }))
    }
}
