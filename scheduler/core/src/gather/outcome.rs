//! What follows from a step of a gatherer, told to whoever drives it.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::limits::OUTCOME_ENTRIES_KEPT;

/// What follows from a step. The caller clears it before the next one and uses it again.
#[derive(Debug)]
pub(crate) struct Outcome<T> {
    items: Vec<T>,
    volleys: Vec<(Range<usize>, Shot)>,
    /// No longer held by the gatherer: they are in no later volley. One that is in a volley of
    /// this step may be here too, so the volleys come first.
    pub(crate) released: Vec<T>,
    /// Objects dropped that are to be counted.
    pub(crate) dropped: u64,
    /// What becomes an error event, each with the object that it is about.
    pub(crate) complaints: Vec<(T, Complaint)>,
    /// A firing would have passed `inputs`, and there is no early one for it: the session fails.
    pub(crate) overflow: bool,
}

/// One firing: the inputs of one invocation of each target function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Volley<'a, T> {
    /// The objects, in order. Those of a round or of one group all have its group.
    pub(crate) items: &'a [T],
    /// `phr_window`.
    pub(crate) window: Option<Window>,
    /// The limit `inputs` forced it before the window's end.
    pub(crate) early: bool,
}

/// A stretch of monotonic time: of a window half-open, of a batch from its first object to its
/// last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Window {
    /// First nanosecond.
    pub(crate) start_ns: u64,
    /// First nanosecond after it; of a batch, the arrival of its last object.
    pub(crate) end_ns: u64,
}

#[derive(Clone, Copy, Debug)]
struct Shot {
    window: Option<Window>,
    early: bool,
}

impl<T> Default for Outcome<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            volleys: Vec::new(),
            released: Vec::new(),
            dropped: 0,
            complaints: Vec::new(),
            overflow: false,
        }
    }
}

impl<T: Copy> Outcome<T> {
    /// Makes it ready for the next step.
    pub(crate) fn clear(&mut self) {
        empty(&mut self.items);
        empty(&mut self.volleys);
        empty(&mut self.released);
        empty(&mut self.complaints);
        self.dropped = 0;
        self.overflow = false;
    }

    /// The firings, in their order.
    pub(crate) fn volleys(&self) -> impl ExactSizeIterator<Item = Volley<'_, T>> {
        self.volleys.iter().map(|(range, shot)| Volley {
            items: &self.items[range.clone()],
            window: shot.window,
            early: shot.early,
        })
    }

    /// Fires with these items.
    pub(super) fn fire(&mut self, items: impl Iterator<Item = T>) {
        let shot = Shot {
            window: None,
            early: false,
        };
        self.shoot(items, shot);
    }

    /// Fires with these items of a window.
    pub(super) fn fire_window(
        &mut self,
        items: impl Iterator<Item = T>,
        window: Window,
        early: bool,
    ) {
        let window = Some(window);
        self.shoot(items, Shot { window, early });
    }

    /// Fires with these items and releases them.
    pub(super) fn fire_off(&mut self, items: impl Iterator<Item = T>) {
        let first = self.items.len();
        self.fire(items);
        self.released.extend_from_slice(&self.items[first..]);
    }

    /// Fires with these items of a batch and releases them. `bounds`: the arrivals of the first and
    /// of the last.
    pub(super) fn fire_batch(&mut self, items: impl Iterator<Item = T>, bounds: Window) {
        let first = self.items.len();
        self.fire_window(items, bounds, false);
        self.released.extend_from_slice(&self.items[first..]);
    }

    /// Releases these and counts them as dropped.
    pub(super) fn drop_all(&mut self, items: impl Iterator<Item = T>) {
        let before = self.released.len();
        self.released.extend(items);
        self.dropped += (self.released.len() - before) as u64;
    }

    /// Releases an item about which there is something to say.
    pub(super) fn complain(&mut self, item: T, complaint: Complaint) {
        self.complaints.push((item, complaint));
        self.released.push(item);
    }

    fn shoot(&mut self, items: impl Iterator<Item = T>, shot: Shot) {
        let first = self.items.len();
        self.items.extend(items);
        self.volleys.push((first..self.items.len(), shot));
    }
}

fn empty<E>(buffer: &mut Vec<E>) {
    buffer.clear();
    buffer.shrink_to(OUTCOME_ENTRIES_KEPT);
}

/// What was wrong with an object that a trigger refused: a sentence of which it is the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Complaint {
    /// Its round has had all n.
    RoundFull {
        /// n.
        n: u32,
    },
    /// A round across sessions is named by its group.
    NoGroup,
    /// All sources had closed.
    SourcesClosed {
        /// How many.
        sources: u32,
    },
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::RoundFull { n } => write!(
                f,
                "came after all {n} of its round: raise `n`, or give each round a group of its own"
            ),
            Self::NoGroup => f.write_str(
                "has no group, which names its round across sessions: use `phr_send_in_group`",
            ),
            Self::SourcesClosed { sources } => write!(
                f,
                "came after all {sources} sources had closed: send before `phr_close_source`, or \
                 raise `sources`"
            ),
        }
    }
}

/// Why a steering call was refused: a sentence for whoever made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// `phr_join` names a key twice.
    KeyTwice(String),
    /// `phr_redundant` with numbers that cannot be.
    Impossible {
        /// As asked.
        k: u32,
        /// As asked.
        n: u32,
        /// Inputs of one invocation.
        inputs_max: u32,
    },
    /// `phr_redundant` where k and n are known, and are others.
    RoundKnown {
        /// As known.
        k: u32,
        /// As known.
        n: u32,
    },
    /// `phr_expect_sources` where the number is known, and is another.
    SourcesKnown {
        /// As known.
        sources: u32,
    },
    /// `phr_expect_sources` or `phr_close_source` of a group that its sources do not close.
    NoSources,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyTwice(key) => {
                write!(
                    f,
                    "the key `{key}` is in the list twice: name each key once"
                )
            }
            Self::Impossible { k, n, inputs_max } => write!(
                f,
                "k = {k} of n = {n} cannot be: k is at least 1, at most n and at most `inputs` \
                 ({inputs_max})"
            ),
            Self::RoundKnown { k, n } => write!(
                f,
                "k = {k} and n = {n} are known and hold for all rounds: they are given once"
            ),
            Self::SourcesKnown { sources } => write!(
                f,
                "the number of sources is known to be {sources}: it is given once"
            ),
            Self::NoSources => f.write_str(
                "this group is closed by `after` and not by its sources: leave the call out, or \
                 take `after` out of the manifest",
            ),
        }
    }
}
