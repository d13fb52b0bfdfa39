//! The other schedulers: messages to and from each over a link of its own.
//!
//! Nobody waits for anybody. What a link has no room for stays in a list here and goes out later,
//! so that two schedulers with much to say to each other can never stand still. A long message
//! travels in pieces: its place in the link is small, and while one piece is read another can be
//! written.

use std::collections::VecDeque;

use pheromone_shm::control::Garbled;
use pheromone_shm::link::{LinkEnd, PEER_MESSAGE_BYTES_MAX};
use serde::Serialize;

/// Bytes of a message that travel in one piece, behind the byte that says whether another follows.
pub const PIECE_BYTES_MAX: usize = 56 << 10;
const _: () = assert!(PIECE_BYTES_MAX < PEER_MESSAGE_BYTES_MAX);

/// A piece of at least so many bytes takes the one place for long ones, for which others may wait.
const LONG_BYTES: usize = 512;
/// Of shorter ones a full ring holds 51 at least: whoever waits for room in it is woken in time.
const TAKEN_NOTED: u64 = 32;

const LAST: u8 = 0;
const MORE: u8 = 1;

/// The links to the other schedulers.
#[derive(Default)]
pub struct Neighbours {
    /// By index; `None` at this scheduler's own.
    links: Vec<Option<Neighbour>>,
    encoded: Vec<u8>,
    piece: Vec<u8>,
}

struct Neighbour {
    link: LinkEnd,
    /// Pieces that have found no room, in order.
    unsent: VecDeque<Vec<u8>>,
    /// Pieces of a message whose last has not come.
    partial: Vec<u8>,
    /// Something was put into the link since the neighbour was last woken.
    written: bool,
    /// Pieces ever taken.
    taken: u64,
    /// So much was taken that the neighbour, if it waits for room, has some.
    made_room: bool,
}

impl Neighbours {
    /// A scheduler's neighbours, by index.
    pub fn new(links: Vec<Option<LinkEnd>>) -> Self {
        let neighbour = |link| Neighbour {
            link,
            unsent: VecDeque::new(),
            partial: Vec::new(),
            written: false,
            taken: 0,
            made_room: false,
        };
        Self {
            links: links.into_iter().map(|link| link.map(neighbour)).collect(),
            ..Self::default()
        }
    }

    /// Says something to a scheduler: now, or as soon as there is room. A message to somebody who
    /// is not there is lost, which only a bug can want.
    pub fn send(&mut self, to: u8, message: &impl Serialize) {
        let Some(Some(neighbour)) = self.links.get_mut(usize::from(to)) else {
            debug_assert!(false, "scheduler {to} is no neighbour");
            return;
        };
        self.encoded.clear();
        let bytes = std::mem::take(&mut self.encoded);
        self.encoded = postcard::to_extend(message, bytes)
            .expect("messages of numbers, bytes and lists always encode");
        let mut pieces = self.encoded.chunks(PIECE_BYTES_MAX).peekable();
        loop {
            let bytes = pieces.next().unwrap_or_default();
            let more = pieces.peek().is_some();
            self.piece.clear();
            self.piece.push(if more { MORE } else { LAST });
            self.piece.extend_from_slice(bytes);
            neighbour.send(&self.piece);
            if !more {
                return;
            }
        }
    }

    /// Whether anybody has said something: a load for each.
    #[inline]
    pub fn any_message(&self) -> bool {
        self.links
            .iter()
            .flatten()
            .any(|neighbour| neighbour.link.has_message())
    }

    /// The schedulers that there are links to.
    pub fn indices(&self) -> impl Iterator<Item = u8> + use<> {
        let there: Vec<u8> = (0u8..)
            .zip(&self.links)
            .filter(|(_, link)| link.is_some())
            .map(|(index, _)| index)
            .collect();
        there.into_iter()
    }

    /// Takes the next message of a scheduler into `into`, replacing what is there. False: there is
    /// none, or none that has come to its end.
    ///
    /// # Errors
    /// [`Garbled`]: a bug at the other end.
    pub fn receive(&mut self, from: u8, into: &mut Vec<u8>) -> Result<bool, Garbled> {
        let Some(Some(neighbour)) = self.links.get_mut(usize::from(from)) else {
            return Ok(false);
        };
        neighbour.receive(into)
    }

    /// Ends a turn: what was kept is tried again, and whoever has something to take, or room to
    /// write, is woken.
    pub fn flush(&mut self) {
        for neighbour in self.links.iter_mut().flatten() {
            neighbour.flush();
        }
    }

    /// Whether something waits for room.
    pub fn has_unsent(&self) -> bool {
        self.links
            .iter()
            .flatten()
            .any(|neighbour| !neighbour.unsent.is_empty())
    }
}

impl Neighbour {
    fn send(&mut self, piece: &[u8]) {
        if !self.unsent.is_empty() || self.link.try_send(piece).is_err() {
            self.unsent.push_back(piece.to_vec());
        } else {
            self.written = true;
        }
    }

    fn receive(&mut self, into: &mut Vec<u8>) -> Result<bool, Garbled> {
        while self.link.receive(into)? {
            self.taken += 1;
            self.made_room |= into.len() > LONG_BYTES || self.taken.is_multiple_of(TAKEN_NOTED);
            let Some((&kind, bytes)) = into.split_first() else {
                return Err(Garbled::Spill(0));
            };
            match kind {
                MORE => self.partial.extend_from_slice(bytes),
                LAST if self.partial.is_empty() => {
                    into.remove(0);
                    return Ok(true);
                }
                LAST => {
                    self.partial.extend_from_slice(bytes);
                    std::mem::swap(into, &mut self.partial);
                    self.partial = Vec::new();
                    return Ok(true);
                }
                kind => return Err(Garbled::Kind(kind)),
            }
        }
        Ok(false)
    }

    fn flush(&mut self) {
        while let Some(piece) = self.unsent.front() {
            if self.link.try_send(piece).is_err() {
                break;
            }
            self.unsent.pop_front();
            self.written = true;
        }
        let news = std::mem::take(&mut self.written) | std::mem::take(&mut self.made_room);
        if news {
            self.link.wake_peer_if_asleep();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use pheromone_shm::doorbell::{Bell, BellRope};
    use pheromone_shm::link::{Half, Link};

    use super::*;

    /// Scheduler 0 and scheduler 1.
    fn pair() -> (Neighbours, Neighbours) {
        let file = Link::create_between_schedulers().expect("a memfd");
        let end = |half| {
            let bell = Bell::create().expect("a memfd");
            let rope = BellRope::map(bell.fd()).expect("a mapping");
            Link::peer_end(file.as_fd(), half, rope).expect("a mapping")
        };
        let (first, second) = (end(Half::First), end(Half::Second));
        (
            Neighbours::new(vec![None, Some(first)]),
            Neighbours::new(vec![Some(second), None]),
        )
    }

    fn opaque(number: usize) -> Vec<u8> {
        let len = match number % 9 {
            0 => number * 7919 % 400_000,
            1 => PIECE_BYTES_MAX - 3 + number % 7,
            _ => number % 600,
        };
        (0..len).map(|at| (at * 31 + number) as u8).collect()
    }

    fn take(neighbours: &mut Neighbours, from: u8) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let came = neighbours.receive(from, &mut bytes).expect("no garbage");
        came.then(|| postcard::from_bytes(&bytes).expect("a list of bytes"))
    }

    #[test]
    fn messages_of_every_length_arrive_whole_and_in_order_both_ways() {
        let (mut first, mut second) = pair();
        let (mut sent, mut came) = (0, [0; 2]);
        while came.iter().any(|&came| came < 300) {
            if sent < 300 {
                first.send(1, &opaque(sent));
                second.send(0, &opaque(sent));
                sent += 1;
            }
            first.flush();
            second.flush();
            while let Some(message) = take(&mut second, 0) {
                assert_eq!(message, opaque(came[0]));
                came[0] += 1;
            }
            while let Some(message) = take(&mut first, 1) {
                assert_eq!(message, opaque(came[1]));
                came[1] += 1;
            }
        }
        assert!(!first.has_unsent() && !second.has_unsent() && !first.any_message());
    }

    #[test]
    fn what_finds_no_room_is_kept_and_goes_out_later_and_nothing_overtakes_it() {
        let (mut first, mut second) = pair();
        for number in 0..5000u32 {
            first.send(1, &number);
        }
        assert!(first.has_unsent());
        let mut bytes = Vec::new();
        for number in 0..5000u32 {
            while !second.receive(0, &mut bytes).expect("no garbage") {
                first.flush();
            }
            assert_eq!(postcard::from_bytes::<u32>(&bytes), Ok(number));
        }
        assert!(!first.has_unsent() && !second.any_message());
    }

    #[test]
    fn a_scheduler_alone_has_nobody_to_hear() {
        let mut alone = Neighbours::default();
        assert!(!alone.any_message() && !alone.has_unsent());
        assert_eq!(alone.indices().count(), 0);
        assert_eq!(alone.receive(0, &mut Vec::new()), Ok(false));
        alone.flush();
    }
}
