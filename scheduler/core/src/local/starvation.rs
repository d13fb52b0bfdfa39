//! Starvation: priorities are strict, so what others keep from starting for long is counted.

use crate::limits::STARVED_NS;
use crate::local::app::{App, PRIORITIES};

/// When something of a higher priority was the last to start while one of this priority could have,
/// for each priority.
pub(super) type PassedOver = [u64; PRIORITIES];

impl App {
    /// An invocation of a function starts that has been queued since then: notes whom it passes
    /// over, and counts it if it has been passed over itself and has waited long.
    pub(super) fn note_precedence(&mut self, function: u16, queued_ns: u64, now_ns: u64) {
        let Some(passed_over_ns) = &mut self.passed_over_ns else {
            return;
        };
        let class = self.functions[usize::from(function)].class();
        for (lower, passed_ns) in passed_over_ns.iter_mut().enumerate().skip(class + 1) {
            if self.ready.has_class(lower) {
                *passed_ns = now_ns;
            }
        }
        let was_passed_over = passed_over_ns[class] >= queued_ns;
        if was_passed_over && now_ns - queued_ns > STARVED_NS {
            self.stats.starved_total += 1;
        }
    }
}
