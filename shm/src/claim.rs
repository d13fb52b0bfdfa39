//! Who starts an invocation: the executor that has sent its object, or the scheduler elsewhere.
//!
//! An executor that has been granted it may go on by itself with the one function that an object
//! of its fires. It says so when it publishes the object (*offered*), and when its own function has
//! returned it takes the invocation, unless the scheduler has withdrawn it before. The word is
//! changed by compare-exchange from both sides, so exactly one of them has it. It names the
//! invocation: whoever comes late for one finds another there, and changes nothing.
//!
//! The word decides, it carries nothing. What an executor has offered and what it has taken is said
//! in its publish ring, in order, so that a ring drained after a death says how far it has come:
//! what was taken and not said has not begun.

use crate::sync::{AtomicU64, Ordering};

/// Invocations of one grant: so many an executor may start by itself before its scheduler has to
/// grant more. Others who wait let at most these go first.
pub const GRANT_HOPS: u64 = 64;

const OFFERED: u64 = 1;
const TAKEN: u64 = 2;
const WITHDRAWN: u64 = 3;
const STATE_BITS: u32 = 2;

/// The word; in the executor's `up` page, which its scheduler writes here.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Claim(AtomicU64);

impl Claim {
    /// The executor offers an invocation, just before it says so in its ring. The one before has
    /// been decided.
    #[inline]
    pub fn offer(&self, invocation: u64) {
        // Published with the message that says it.
        self.0
            .store(invocation << STATE_BITS | OFFERED, Ordering::Relaxed);
    }

    /// The executor takes what it has offered. False: the scheduler has been there before.
    #[inline]
    pub fn take(&self, invocation: u64) -> bool {
        self.decide(invocation, TAKEN)
    }

    /// The scheduler takes an offer back. False: the executor's next words decide, whether it has
    /// taken the invocation or left it.
    #[inline]
    pub fn withdraw(&self, invocation: u64) -> bool {
        self.decide(invocation, WITHDRAWN)
    }

    #[inline]
    fn decide(&self, invocation: u64, state: u64) -> bool {
        let offered = invocation << STATE_BITS | OFFERED;
        let decided = invocation << STATE_BITS | state;
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        self.0
            .compare_exchange(offered, decided, success, failure)
            .is_ok()
    }
}

/// What an executor has been granted: invocation ids, a block of [`GRANT_HOPS`] at a time.
#[derive(Clone, Copy, Debug)]
pub struct Granted {
    block: u64,
    used: u64,
}

impl Default for Granted {
    /// Nothing: the block that the word for nothing names is used up.
    fn default() -> Self {
        Self {
            block: 0,
            used: GRANT_HOPS,
        }
    }
}

impl Granted {
    /// The next invocation that may be offered. `word`: the first id of the present block, as the
    /// scheduler says it now; 0 where nothing is granted.
    #[inline(always)]
    pub fn next(&mut self, word: u64) -> Option<u64> {
        if word != self.block {
            if word == 0 {
                return None;
            }
            *self = Self {
                block: word,
                used: 0,
            };
        }
        if self.used == GRANT_HOPS {
            return None;
        }
        self.used += 1;
        Some(self.block + self.used - 1)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_offer_is_decided_once() {
        let claim = Claim::default();
        assert!(!claim.take(7) && !claim.withdraw(7), "nothing is offered");
        claim.offer(7);
        assert!(!claim.take(6) && !claim.withdraw(8), "those are others");
        assert!(claim.take(7));
        assert!(!claim.take(7) && !claim.withdraw(7));
        claim.offer(8);
        assert!(claim.withdraw(8));
        assert!(!claim.take(8) && !claim.withdraw(8));
    }

    #[test]
    fn a_block_is_used_up_and_another_begun() {
        let mut granted = Granted::default();
        assert_eq!(granted.next(0), None);
        let ids: Vec<_> = std::iter::from_fn(|| granted.next(100)).collect();
        assert_eq!(ids, (100..100 + GRANT_HOPS).collect::<Vec<_>>());
        assert_eq!(granted.next(300), Some(300));
        assert_eq!(granted.next(0), None, "revoked");
        assert_eq!(
            granted.next(300),
            Some(301),
            "given again: none is used twice"
        );
    }
}
