//! What the tests of shared memory need: other processes, and random numbers that can be repeated.
#![allow(dead_code)]

pub mod child;
pub mod stepped;

use std::os::fd::{AsFd, OwnedFd};

use pheromone_shm::control::{ControlFiles, ExecutorEnd, SchedulerEnd};
use pheromone_shm::doorbell::Bell;
use pheromone_shm::file::reopen_read_only;
use pheromone_shm::message::Extent;

/// Files of one executor process and the page of its scheduler.
pub struct Control {
    pub files: ControlFiles,
    pub bell: Bell,
    pub colour: u16,
    pub generation: u32,
}

impl Control {
    pub fn new(colour: u16, generation: u32) -> Self {
        Self {
            files: ControlFiles::create("test").expect("memfds"),
            bell: Bell::create().expect("a memfd"),
            colour,
            generation,
        }
    }

    pub fn scheduler(&self) -> SchedulerEnd {
        let (up, down) = (self.files.up.as_fd(), self.files.down.as_fd());
        SchedulerEnd::map(up, down, self.colour, self.generation).expect("mappings")
    }

    /// The executor's end, through descriptors that can write no more than an executor's.
    pub fn executor(&self) -> ExecutorEnd {
        let down = read_only(self.files.down.as_fd());
        let node = read_only(self.bell.fd());
        let up = self.files.up.as_fd();
        ExecutorEnd::map(up, down.as_fd(), node.as_fd(), self.colour, self.generation)
            .expect("mappings")
    }
}

pub fn read_only(file: impl AsFd) -> OwnedFd {
    reopen_read_only(file.as_fd()).expect("a descriptor")
}

pub fn extent(offset_units: u32, len_units: u32) -> Extent {
    Extent {
        offset_units,
        len_units,
    }
}

/// Numbers that look random and are the same in every run (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below this number.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}
