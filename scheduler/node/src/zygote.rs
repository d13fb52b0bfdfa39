//! The node's side of the zygote: its process, what is said to it, and how often it may die.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use pheromone_executor::protocol::{FromZygote, PACKET_BYTES_MAX, ToZygote};

use crate::child::Child;
use crate::packet::{self, Sent};
use crate::pid_namespace;

/// Zygotes that may die within [`DEATHS_WITHIN`]: with one more the node ends, since whatever kills
/// them will not stop.
const DEATHS_MAX: usize = 5;
/// How long a death counts.
const DEATHS_WITHIN: Duration = Duration::from_secs(60);
/// Pause before the next zygote after the second death that counts; doubles with each further one.
/// After a single death there is none.
const PAUSE: Duration = Duration::from_millis(50);

/// A running zygote.
pub struct Zygote {
    child: Child,
    /// `None` once it is closed.
    socket: Option<OwnedFd>,
    outgoing: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
}

/// What is in the socket.
pub enum Heard {
    /// A message, with its descriptors.
    Word(FromZygote, Vec<OwnedFd>),
    /// Nothing for now.
    Nothing,
    /// It has hung up: its death follows.
    End,
    /// What is no message, as a sentence.
    Nonsense(String),
}

impl Zygote {
    /// Starts one, where it is asked for in a pid namespace of its own. It dies with the thread
    /// that calls this.
    ///
    /// # Errors
    /// No descriptors left, or a program that cannot be executed.
    pub fn start(program: &Path, in_namespace: bool) -> io::Result<Self> {
        let (socket, theirs) = packet::pair()?;
        let start = || Child::start(program, "pheromone: zygote", &["__zygote"], &[&theirs]);
        let child = if in_namespace {
            pid_namespace::around(start)?
        } else {
            start()?
        };
        Ok(Self {
            child,
            socket: Some(socket),
            outgoing: VecDeque::new(),
        })
    }

    /// Its process.
    pub fn child(&self) -> &Child {
        &self.child
    }

    /// Its process, when nothing is to be said to it any more.
    pub fn into_child(self) -> Child {
        self.child
    }

    /// Where it is heard, while it has not hung up.
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// Says something; [`Zygote::flush`] sends it.
    pub fn say(&mut self, message: &ToZygote, descriptors: Vec<OwnedFd>) {
        let bytes = postcard::to_allocvec(message).expect("messages of numbers always encode");
        debug_assert!(bytes.len() <= PACKET_BYTES_MAX);
        self.outgoing.push_back((bytes, descriptors));
    }

    /// Sends what there is room for.
    ///
    /// # Errors
    /// What makes it impossible to speak to it.
    pub fn flush(&mut self) -> io::Result<()> {
        let Some(socket) = &self.socket else {
            self.outgoing.clear();
            return Ok(());
        };
        while let Some((bytes, descriptors)) = self.outgoing.front() {
            let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
            match packet::send(socket, bytes, &borrowed)? {
                Sent::Whole => drop(self.outgoing.pop_front()),
                Sent::NotNow => return Ok(()),
                // Its death is heard of through its pidfd; there is nobody to tell until then.
                Sent::NoPeer => self.outgoing.clear(),
            }
        }
        Ok(())
    }

    /// Whether something waits for room.
    pub fn is_behind(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// The next that it has said. `buffer` has room for a packet.
    pub fn hear(&self, buffer: &mut [u8]) -> Heard {
        let Some(socket) = &self.socket else {
            return Heard::Nothing;
        };
        match packet::receive(socket, buffer) {
            Ok(None) => Heard::Nothing,
            Ok(Some(packet)) if packet.len > 0 => match postcard::from_bytes(&buffer[..packet.len])
            {
                Ok(message) => Heard::Word(message, packet.descriptors),
                Err(error) => Heard::Nonsense(format!("it sent what is no message: {error}")),
            },
            Ok(Some(_)) | Err(_) => Heard::End,
        }
    }

    /// Speaks with it no more.
    pub fn hang_up(&mut self) {
        self.socket = None;
        self.outgoing.clear();
    }
}

/// The deaths of zygotes that still count.
#[derive(Debug, Default)]
pub struct Deaths {
    recent: VecDeque<Instant>,
}

impl Deaths {
    /// One has died: how long the next start is put off. `None`: too many have died.
    pub fn note(&mut self, now: Instant) -> Option<Duration> {
        let counts = |at: &Instant| now.duration_since(*at) < DEATHS_WITHIN;
        self.recent.retain(counts);
        self.recent.push_back(now);
        match self.recent.len() {
            0 | 1 => Some(Duration::ZERO),
            count if count <= DEATHS_MAX => Some(PAUSE * (1 << (count - 2))),
            _ => None,
        }
    }

    /// How many count.
    pub fn count(&self) -> usize {
        self.recent.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deaths_are_paused_after_ever_longer_until_they_are_too_many_within_a_minute() {
        let mut deaths = Deaths::default();
        let start = Instant::now();
        let pauses: Vec<_> = (0..6)
            .map(|at| deaths.note(start + Duration::from_secs(at)))
            .map(|pause| pause.map(|pause| pause.as_millis()))
            .collect();
        assert_eq!(
            pauses,
            [Some(0), Some(50), Some(100), Some(200), Some(400), None]
        );
        assert_eq!(deaths.count(), 6);
        let later = start + Duration::from_secs(5) + DEATHS_WITHIN;
        assert_eq!(deaths.note(later), Some(Duration::ZERO));
    }
}
