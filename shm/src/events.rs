//! What a custom trigger is told, as values and as bytes.
//!
//! Events travel to a trigger's process as inputs do to a function's: encoded one after the other,
//! each at a multiple of 8 bytes, and judged when they are decoded.

use crate::message::Input;
use crate::wire::{
    ARGS_BYTES, Garbled, INPUT_BYTES_MAX, LIST_HEAD_BYTES, decode_input, encode_input,
};

/// Bytes of an event before its input, at most.
const EVENT_HEAD_BYTES: usize = 24;
/// Bytes of the longest encoded event.
pub const EVENT_BYTES_MAX: usize = EVENT_HEAD_BYTES + INPUT_BYTES_MAX;
/// So many events fit one message, however long their names are.
pub const EVENTS_ALWAYS_FIT: usize = (ARGS_BYTES - LIST_HEAD_BYTES) / EVENT_BYTES_MAX;

/// Kinds of events, in their lowest byte.
mod kind {
    pub const OBJECT: u64 = 1;
    pub const SESSION_END: u64 = 2;
    pub const TICK: u64 = 3;
    pub const SESSION_GONE: u64 = 4;
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TriggerEvent<'a> {
    /// An object is pending in the trigger.
    Object {
        /// Names it, with its session, in [`FromExecutor::Fire`](crate::message::FromExecutor) and
        /// `Drop`.
        number: u64,
        /// The object.
        object: Input<'a>,
    },
    /// Nothing else keeps this session open.
    SessionEnd {
        /// Which.
        session: u64,
        /// Since when, CLOCK_MONOTONIC.
        time_ns: u64,
    },
    /// This session has ended, and what was pending of it is gone.
    SessionGone {
        /// Which.
        session: u64,
    },
    /// The time that the trigger has asked for has come.
    Tick {
        /// That time, CLOCK_MONOTONIC.
        time_ns: u64,
    },
}

impl TriggerEvent<'_> {
    /// Writes it to the start of `out`; `None` when it does not fit. Says how many bytes it takes,
    /// a multiple of 8.
    ///
    /// # Panics
    /// On a key or group of over 255 bytes: objects with such names were never accepted.
    pub(crate) fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let (words, count, object) = match self {
            Self::Object { number, object } => ([kind::OBJECT, *number, 0], 2, Some(object)),
            Self::SessionEnd { session, time_ns } => {
                ([kind::SESSION_END, *session, *time_ns], 3, None)
            }
            Self::SessionGone { session } => ([kind::SESSION_GONE, *session, 0], 2, None),
            Self::Tick { time_ns } => ([kind::TICK, *time_ns, 0], 2, None),
        };
        let (head, rest) = out.split_at_mut_checked(8 * count)?;
        for (bytes, word) in head.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let names = object.map_or(Some(0), |object| encode_input(object, rest))?;
        Some(8 * count + names)
    }
}

/// Judges the event at the start of `bytes` and says how many bytes it took.
fn decode(bytes: &[u8]) -> Result<(TriggerEvent<'_>, usize), Garbled> {
    let words = bytes.as_chunks::<8>().0;
    let word = |at: usize| match words.get(at) {
        Some(word) => Ok(u64::from_le_bytes(*word)),
        None => Err(Garbled::Event),
    };
    Ok(match word(0)? {
        kind::OBJECT => {
            let number = word(1)?;
            let (object, len) = decode_input(&bytes[16..])?;
            (TriggerEvent::Object { number, object }, 16 + len)
        }
        kind::SESSION_END => {
            let (session, time_ns) = (word(1)?, word(2)?);
            (TriggerEvent::SessionEnd { session, time_ns }, 24)
        }
        kind::SESSION_GONE => (TriggerEvent::SessionGone { session: word(1)? }, 16),
        kind::TICK => (TriggerEvent::Tick { time_ns: word(1)? }, 16),
        _ => return Err(Garbled::Event),
    })
}

/// Events of a message, judged, in order: an iterator over them.
#[derive(Clone, Copy, Debug)]
pub struct EventList<'a> {
    bytes: &'a [u8],
    count: u32,
}

impl<'a> EventList<'a> {
    /// Encodes events one after the other, as many as fit `out`, and gives them as a list.
    pub fn encode<'i>(events: impl Iterator<Item = TriggerEvent<'i>>, out: &'a mut [u8]) -> Self {
        let (mut len, mut count) = (0, 0);
        for event in events {
            let Some(bytes) = event.encode(&mut out[len..]) else {
                break;
            };
            len += bytes;
            count += 1;
        }
        let bytes = &out[..len];
        Self { bytes, count }
    }

    /// The encoded events.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Judges `count` encoded events and says how many bytes they took.
    pub(crate) fn decode(bytes: &'a [u8], count: u32) -> Result<(Self, usize), Garbled> {
        let mut len = 0;
        for _ in 0..count {
            len += decode(&bytes[len..])?.1;
        }
        let bytes = &bytes[..len];
        Ok((Self { bytes, count }, len))
    }
}

impl PartialEq for EventList<'_> {
    fn eq(&self, other: &Self) -> bool {
        Iterator::eq(*self, *other)
    }
}

impl Eq for EventList<'_> {}

impl<'a> Iterator for EventList<'a> {
    type Item = TriggerEvent<'a>;

    fn next(&mut self) -> Option<TriggerEvent<'a>> {
        self.count = self.count.checked_sub(1)?;
        // Judged when the list was made, so this ends the list only if that was not so.
        let (event, len) = decode(self.bytes).ok()?;
        self.bytes = &self.bytes[len..];
        Some(event)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count as usize, Some(self.count as usize))
    }
}

impl ExactSizeIterator for EventList<'_> {}
