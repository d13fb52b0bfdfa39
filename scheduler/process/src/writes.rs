//! Objects on their way to disk, and when the node is woken for them.
//!
//! The node writes all that waits with one flush of the disk, so what is sent while a flush is
//! under way waits for its end in any case. It is in the link by then, and the node, which gets up
//! for the answers, finds it there: it need not be woken for each. So the node is woken for the
//! first, and again only when it has answered all that it was woken for.

/// Counts of one scheduler's.
#[derive(Debug, Default)]
pub struct Writes {
    /// In the link or beyond it, and not answered.
    unanswered: u32,
    /// Of these, those that the node has not been woken for. (It may have found them.)
    unannounced: u32,
}

impl Writes {
    /// One more is in the link.
    pub fn told(&mut self) {
        self.unanswered += 1;
        self.unannounced += 1;
    }

    /// The node has said what has become of one.
    pub fn answered(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
    }

    /// Whether the node is to be woken: it may be asleep, and stay so. It answers each, and gets up
    /// to do so; hence it will get up as long as there is one that it was woken for and has not
    /// answered. If it has answered some that it found, it may be woken once too often.
    pub fn are_due(&self) -> bool {
        self.unannounced > 0 && self.unanswered <= self.unannounced
    }

    /// The node is being woken, for whatever reason.
    pub fn announce(&mut self) {
        self.unannounced = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_is_woken_for_the_first_and_then_for_those_that_its_answers_leave() {
        let mut writes = Writes::default();
        assert!(!writes.are_due());
        writes.told();
        assert!(writes.are_due());
        writes.announce();
        assert!(!writes.are_due());
        writes.told();
        writes.told();
        assert!(!writes.are_due(), "it gets up for the first one's answer");
        writes.answered();
        assert!(writes.are_due());
        writes.announce();
        writes.answered();
        writes.answered();
        assert!(!writes.are_due(), "nothing waits");
    }

    /// Whatever is answered, and in which order, nothing stays in the link for ever: if the node
    /// sleeps and is not woken, it still has to answer something that it has been woken for.
    #[test]
    fn nothing_stays_behind() {
        for seed in 0..10_000u64 {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut next = |below: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % below
            };
            let mut writes = Writes::default();
            // In the link, taken by the node, and answered on the way back.
            let (mut linked, mut taken, mut answers) = (0, 0, 0);
            for _ in 0..40 {
                match next(4) {
                    0 => {
                        writes.told();
                        linked += 1;
                    }
                    1 if taken > 0 => {
                        // The node is up to answer, and finds what there is.
                        taken -= 1;
                        answers += 1;
                        if next(2) == 0 {
                            taken += std::mem::take(&mut linked);
                        }
                    }
                    2 if answers > 0 => {
                        answers -= 1;
                        writes.answered();
                    }
                    _ => {}
                }
                if writes.are_due() {
                    writes.announce();
                    taken += std::mem::take(&mut linked);
                }
                assert!(linked == 0 || taken + answers > 0, "seed {seed}");
            }
        }
    }
}
