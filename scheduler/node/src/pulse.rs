//! Whether a scheduler's loop still turns.
//!
//! It counts its turns in its `node` page. One that sleeps need not turn, but does when it is
//! woken; one that neither turns nor gets up is stopped, spins in one place, or has no CPU. Its
//! sessions are in its own memory and nowhere else, so that there is nothing to be saved: it is
//! reported, and after a while the node ends.

use std::time::{Duration, Instant};

use pheromone_shm::doorbell::BellRope;

/// Between two looks.
pub const LOOK: Duration = Duration::from_millis(500);
/// A loop that has not turned for so long is reported.
pub const STUCK_AFTER: Duration = Duration::from_secs(2);
/// One that has not turned for so long is given up, and the node with it.
pub const GIVEN_UP_AFTER: Duration = Duration::from_secs(10);

/// What a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// It turns.
    Fine,
    /// It has not turned for so long.
    Stuck(Duration),
    /// Too long.
    GivenUp(Duration),
}

/// The loop of one scheduler.
pub struct Pulse {
    rope: BellRope,
    rhythm: Rhythm,
}

impl Pulse {
    /// Of the scheduler that writes this page.
    pub fn new(rope: BellRope, now: Instant) -> Self {
        let rhythm = Rhythm::new(rope.turns(), now);
        Self { rope, rhythm }
    }

    /// Looks. A scheduler that sleeps is woken where its last turn is a while ago: that it gets up
    /// is what is asked.
    pub fn look(&mut self, now: Instant) -> Beat {
        let beat = self.rhythm.take(self.rope.turns(), now);
        if now.duration_since(self.rhythm.since) >= LOOK {
            self.rope.ring_if_asleep();
        }
        beat
    }
}

/// When a counter has last moved.
struct Rhythm {
    turns: u64,
    since: Instant,
    looked: Instant,
}

impl Rhythm {
    fn new(turns: u64, now: Instant) -> Self {
        Self {
            turns,
            since: now,
            looked: now,
        }
    }

    fn take(&mut self, turns: u64, now: Instant) -> Beat {
        // Where nobody has looked for long (the whole machine stood still), nobody knows.
        let was_away = now.duration_since(self.looked) >= STUCK_AFTER;
        if turns != self.turns || was_away {
            self.turns = turns;
            self.since = now;
        }
        self.looked = now;
        match now.duration_since(self.since) {
            still if still >= GIVEN_UP_AFTER => Beat::GivenUp(still),
            still if still >= STUCK_AFTER => Beat::Stuck(still),
            _ => Beat::Fine,
        }
    }
}

/// What the kernel says that a process is doing.
pub fn doing(pid: i32) -> &'static str {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may have anything in it.
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    match state {
        Some('T' | 't') => "it is stopped (SIGSTOP, or a debugger)",
        Some('R') => "it runs, or waits for its CPU",
        Some('S') => "it sleeps and does not get up",
        Some('D') => "it waits in the kernel",
        Some('Z' | 'X') => "it is dead",
        _ => "nobody knows what it is doing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_stands_still_is_stuck_and_then_given_up() {
        let start = Instant::now();
        let mut rhythm = Rhythm::new(7, start);
        let mut at = |turns: u64, tenths: u64| {
            rhythm.take(turns, start + Duration::from_millis(100 * tenths))
        };
        assert_eq!(at(7, 15), Beat::Fine);
        assert_eq!(at(7, 20), Beat::Stuck(Duration::from_secs(2)));
        assert_eq!(at(8, 25), Beat::Fine, "it turns again");
        for tenths in (30..45).step_by(5) {
            assert_eq!(at(8, tenths), Beat::Fine);
        }
        for tenths in (45..125).step_by(5) {
            assert!(matches!(at(8, tenths), Beat::Stuck(_)));
        }
        assert_eq!(at(8, 125), Beat::GivenUp(GIVEN_UP_AFTER));
    }

    #[test]
    fn nobody_is_stuck_while_nobody_looks() {
        let start = Instant::now();
        let mut rhythm = Rhythm::new(7, start);
        assert_eq!(rhythm.take(7, start + GIVEN_UP_AFTER), Beat::Fine);
        assert_eq!(rhythm.take(7, start + GIVEN_UP_AFTER + LOOK), Beat::Fine);
    }
}
