//! What connects the node with its schedulers, and these with each other: made before they start.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use pheromone_shm::doorbell::BellRope;
use pheromone_shm::file::{create_sealed, reopen_read_only};
use pheromone_shm::limits::BELL_BYTES;
use pheromone_shm::link::{Link, NodeRope};

use crate::packet;
use crate::way::Way;

/// All of it, from the node's side.
pub struct Wiring {
    /// The ways to the schedulers, by index.
    pub ways: Vec<Way>,
    /// What the node sleeps on.
    pub rope: NodeRope,
    /// What each scheduler is started with.
    pub schedulers: Vec<Wires>,
}

/// What one scheduler is started with.
pub struct Wires {
    /// In the order of their numbers: control socket, link, bell, the node's rope, and for each
    /// other scheduler the link to it and its bell's page.
    pub descriptors: Vec<OwnedFd>,
    /// Its bell as executors and others see it.
    pub page: OwnedFd,
}

impl Wiring {
    /// For so many schedulers.
    ///
    /// # Errors
    /// No descriptor or memory left, or no /proc.
    pub fn new(count: u8) -> io::Result<Self> {
        let rope_file = NodeRope::create()?;
        let mut wiring = Self {
            ways: Vec::new(),
            rope: NodeRope::map(rope_file.as_fd())?,
            schedulers: Vec::new(),
        };
        for _ in 0..count {
            let bell = create_sealed("pheromone:node", BELL_BYTES)?;
            let page = reopen_read_only(bell.as_fd())?;
            let link_file = Link::create()?;
            let link = Link::node_end(link_file.as_fd(), BellRope::map(page.as_fd())?)?;
            let (control, theirs) = packet::pair()?;
            wiring.ways.push(Way::new(link, control));
            wiring.schedulers.push(Wires {
                descriptors: vec![theirs, link_file, bell, rope_file.try_clone()?],
                page,
            });
        }
        wiring.connect_schedulers()?;
        Ok(wiring)
    }

    fn connect_schedulers(&mut self) -> io::Result<()> {
        let count = self.schedulers.len();
        // For each its links in order of the other's index.
        let mut links: Vec<Vec<OwnedFd>> = (0..count).map(|_| Vec::new()).collect();
        for second in 0..count {
            for first in 0..second {
                let file = Link::create_between_schedulers()?;
                links[second].push(file.try_clone()?);
                links[first].push(file);
            }
        }
        for (index, links) in links.into_iter().enumerate() {
            let others = (0..count).filter(|&other| other != index);
            for (other, link) in others.zip(links) {
                let page = self.schedulers[other].page.try_clone()?;
                self.schedulers[index].descriptors.extend([link, page]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inode(file: &OwnedFd) -> u64 {
        rustix::fs::fstat(file).unwrap().st_ino
    }

    #[test]
    fn each_pair_of_schedulers_has_one_link_and_the_bell_of_the_other() {
        let wiring = Wiring::new(4).unwrap();
        for (index, wires) in wiring.schedulers.iter().enumerate() {
            let others: Vec<usize> = (0..4).filter(|&other| other != index).collect();
            assert_eq!(wires.descriptors.len(), 4 + 2 * others.len());
            for (place, &other) in others.iter().enumerate() {
                let theirs = &wiring.schedulers[other];
                let my_place = index - usize::from(index > other);
                let link = inode(&wires.descriptors[4 + 2 * place]);
                assert_eq!(link, inode(&theirs.descriptors[4 + 2 * my_place]));
                assert_eq!(
                    inode(&wires.descriptors[5 + 2 * place]),
                    inode(&theirs.descriptors[2])
                );
            }
        }
    }

    #[test]
    fn a_scheduler_alone_is_started_with_nothing_of_others() {
        let wiring = Wiring::new(1).unwrap();
        assert_eq!(
            (wiring.ways.len(), wiring.schedulers[0].descriptors.len()),
            (1, 4)
        );
    }
}
