//! What a readiness is about: a word in the kernel's epoll set.

use super::Key;
use super::process::Stream;

/// What a readiness is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Orders,
    Zygote,
    ZygoteDeath,
    SchedulerDeath(u8),
    Death(Key),
    Output(Key, Stream),
}

impl Source {
    pub(super) fn encode(self) -> u64 {
        let (kind, (app, slot)) = match self {
            Self::Orders => (0, (0, 0)),
            Self::Zygote => (1, (0, 0)),
            Self::ZygoteDeath => (2, (0, 0)),
            Self::SchedulerDeath(index) => (3, (0, u16::from(index))),
            Self::Death(key) => (4, key),
            Self::Output(key, Stream::Tagged) => (5, key),
            Self::Output(key, Stream::Raw) => (6, key),
        };
        kind << 32 | u64::from(app) << 16 | u64::from(slot)
    }

    pub(super) fn decode(word: u64) -> Option<Self> {
        let key = ((word >> 16) as u16, word as u16);
        Some(match word >> 32 {
            0 => Self::Orders,
            1 => Self::Zygote,
            2 => Self::ZygoteDeath,
            3 => Self::SchedulerDeath(key.1 as u8),
            4 => Self::Death(key),
            5 => Self::Output(key, Stream::Tagged),
            6 => Self::Output(key, Stream::Raw),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_survives_the_epoll_word() {
        for source in [
            Source::Orders,
            Source::Zygote,
            Source::ZygoteDeath,
            Source::SchedulerDeath(0),
            Source::SchedulerDeath(15),
            Source::Death((u16::MAX, 0)),
            Source::Output((0, u16::MAX), Stream::Tagged),
            Source::Output((1, 2), Stream::Raw),
        ] {
            assert_eq!(Source::decode(source.encode()), Some(source));
        }
        assert_eq!(Source::decode(u64::MAX), None);
    }
}
