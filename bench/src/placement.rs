//! How near to each other two cores are, judged by the time a cache line takes there and back.
//!
//! On a virtual machine the distance drifts: the same two CPUs are sibling threads of one core now,
//! cores that share a cache a few seconds later, and cores of different chips after that. Times
//! from different placements are different experiments and never meet in one figure.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Below this round trip the CPUs are threads of one core: they meet in its first-level cache.
/// (54 ns is typical.)
pub const SMT_BELOW_NS: u64 = 75;
/// Below this they share the last-level cache (99 to 187 ns are typical); above, the line
/// crosses between chips (395 to 580 ns).
pub const NEAR_BELOW_NS: u64 = 250;
/// Probes before and after a repetition that differ by more than this factor mean that the CPUs
/// moved meanwhile.
pub const MOVED_FACTOR: f64 = 1.5;

/// Where two CPUs were, seen from each other, during one repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// Two threads of one core.
    Smt,
    /// Two cores of one chip.
    Near,
    /// Two chips.
    Far,
    /// They moved during the repetition, so that its times say nothing.
    Moved,
    /// Not told apart: beside what is measured the cores' distance does not show.
    Any,
}

impl Placement {
    /// Of one probe.
    fn of(round_trip_ns: u64) -> Self {
        if round_trip_ns < SMT_BELOW_NS {
            Self::Smt
        } else if round_trip_ns < NEAR_BELOW_NS {
            Self::Near
        } else {
            Self::Far
        }
    }

    /// Of a repetition, from the line's round trip before and after it.
    pub fn between(before_ns: u64, after_ns: u64) -> Self {
        let (shorter, longer) = (before_ns.min(after_ns), before_ns.max(after_ns));
        let label = Self::of(before_ns);
        if label != Self::of(after_ns) || longer as f64 > shorter as f64 * MOVED_FACTOR {
            Self::Moved
        } else {
            label
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Smt => "smt",
            Self::Near => "near",
            Self::Far => "far",
            Self::Moved => "moved",
            Self::Any => "any",
        })
    }
}

/// Why repetitions of a scenario are not labelled, as a sentence for reports.
pub const NOT_TOLD_APART: &str = "any: the times are so long that the distance of the CPUs does \
                                  not show in them";

/// The thresholds as a sentence, for reports.
pub fn legend() -> String {
    format!(
        "by the line's round trip: smt below {SMT_BELOW_NS} ns (threads of one core), \
         near below {NEAR_BELOW_NS} ns (one cache), else far; moved, and left out, where the \
         probes before and after differ in that or by more than {MOVED_FACTOR} times"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_probes_are_labelled_by_distance() {
        assert_eq!(Placement::between(54, 60), Placement::Smt);
        assert_eq!(Placement::between(99, 130), Placement::Near);
        assert_eq!(Placement::between(395, 540), Placement::Far);
    }

    #[test]
    fn thresholds_belong_to_the_farther_side() {
        assert_eq!(
            Placement::between(SMT_BELOW_NS - 1, SMT_BELOW_NS - 1),
            Placement::Smt
        );
        assert_eq!(
            Placement::between(SMT_BELOW_NS, SMT_BELOW_NS),
            Placement::Near
        );
        assert_eq!(
            Placement::between(NEAR_BELOW_NS, NEAR_BELOW_NS),
            Placement::Far
        );
    }

    #[test]
    fn another_label_or_half_as_much_again_has_moved() {
        assert_eq!(
            Placement::between(SMT_BELOW_NS - 1, SMT_BELOW_NS),
            Placement::Moved
        );
        assert_eq!(Placement::between(100, 150), Placement::Near);
        assert_eq!(Placement::between(100, 151), Placement::Moved);
        assert_eq!(Placement::between(151, 100), Placement::Moved);
        assert_eq!(Placement::between(54, 395), Placement::Moved);
    }
}
