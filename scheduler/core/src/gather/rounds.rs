//! `redundant`: the first k of the n objects of a round, which is one group.
//!
//! A round stays on the roster after it has fired, so that its stragglers are known for what they
//! are. The roster is in order of first objects, and so of expiry.

use std::fmt::Write;

use crate::gather::Arrival;
use crate::gather::outcome::{Complaint, Outcome, Refusal};
use crate::gather::queue::{Queue, Queues};
use crate::gather::roster::{Place, Roster};
use crate::gather::text;
use crate::limits::MISSING_KEYS_NAMED;

/// The fields of a `redundant`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RoundsRule {
    /// k and n, or at run time.
    pub(crate) k_of_n: Option<(u32, u32)>,
    /// A round is forgotten this long after its first object.
    pub(crate) expire_ns: Option<u64>,
    /// An object without a group is refused.
    pub(crate) group_required: bool,
    /// Inputs of one invocation.
    pub(crate) inputs_max: u32,
}

/// What has come of rounds.
pub(crate) struct Rounds<T> {
    rule: RoundsRule,
    rounds: Roster<Round>,
    queues: Queues<T>,
    /// Rounds that have not fired.
    unfired: u32,
}

#[derive(Default)]
struct Round {
    /// Empty once it is over.
    queue: Queue,
    /// Objects ever.
    arrived: u64,
    first_ns: u64,
    /// It has fired, or been dropped.
    is_over: bool,
}

impl<T: Copy> Rounds<T> {
    pub(super) fn new(rule: RoundsRule) -> Self {
        Self {
            rule,
            rounds: Roster::new(),
            queues: Queues::new(),
            unfired: 0,
        }
    }

    pub(super) fn reset(&mut self, rule: RoundsRule) {
        self.rule = rule;
    }

    /// `phr_redundant`. Rounds that are full with it fire, in order of first appearance.
    pub(crate) fn set_k_of_n(
        &mut self,
        k: u32,
        n: u32,
        out: &mut Outcome<T>,
    ) -> Result<(), Refusal> {
        let inputs_max = self.rule.inputs_max;
        match self.rule.k_of_n {
            Some(known) if known == (k, n) => return Ok(()),
            Some((k, n)) => return Err(Refusal::RoundKnown { k, n }),
            None if k == 0 || k > n || k > inputs_max => {
                return Err(Refusal::Impossible { k, n, inputs_max });
            }
            None => self.rule.k_of_n = Some((k, n)),
        }
        let mut next = self.rounds.first();
        while let Some(place) = next {
            if !self.rounds[place].is_over && self.rounds[place].arrived >= u64::from(k) {
                self.fire(place, k, out);
                self.judge_stragglers(place, k, n, out);
            }
            next = self.rounds.after(place);
        }
        Ok(())
    }

    /// What waited in a round beside the k that fired.
    fn judge_stragglers(&mut self, place: Place<Round>, k: u32, n: u32, out: &mut Outcome<T>) {
        let queue = &mut self.rounds[place].queue;
        out.drop_all(self.queues.drain(queue).take((n - k) as usize));
        for item in self.queues.drain(queue) {
            out.complain(item, Complaint::RoundFull { n });
        }
    }

    pub(super) fn offer(&mut self, arrival: &Arrival<'_, T>, out: &mut Outcome<T>) {
        self.tick(arrival.now_ns, out);
        if self.rule.group_required && arrival.group.is_empty() {
            out.complain(arrival.item, Complaint::NoGroup);
            return;
        }
        let (place, added) = self.rounds.find_or_add(arrival.group);
        let round = &mut self.rounds[place];
        if added {
            *round = Round {
                first_ns: arrival.now_ns,
                ..Round::default()
            };
            self.unfired += 1;
        }
        round.arrived += 1;
        match self.rule.k_of_n {
            Some((_, n)) if round.arrived > u64::from(n) => {
                out.complain(arrival.item, Complaint::RoundFull { n });
            }
            _ if round.is_over => out.drop_all(std::iter::once(arrival.item)),
            k_of_n => {
                self.queues.push(&mut round.queue, arrival.item);
                if let Some((k, _)) = k_of_n
                    && round.queue.len() >= k
                {
                    self.fire(place, k, out);
                }
            }
        }
    }

    /// Fires a round with the first `count` of its objects.
    fn fire(&mut self, place: Place<Round>, count: u32, out: &mut Outcome<T>) {
        let round = &mut self.rounds[place];
        out.fire_off(self.queues.drain(&mut round.queue).take(count as usize));
        round.is_over = true;
        self.unfired -= 1;
    }

    fn drop_round(&mut self, place: Place<Round>, out: &mut Outcome<T>) {
        let round = &mut self.rounds[place];
        if !round.is_over {
            out.drop_all(self.queues.drain(&mut round.queue));
            round.is_over = true;
            self.unfired -= 1;
        }
    }

    /// Forgets the rounds that have expired.
    pub(super) fn tick(&mut self, now_ns: u64, out: &mut Outcome<T>) {
        while let Some(first) = self.rounds.first()
            && self
                .expiry_ns(first)
                .is_some_and(|expiry_ns| expiry_ns <= now_ns)
        {
            self.drop_round(first, out);
            self.rounds.remove(first);
        }
    }

    pub(super) fn next_ns(&self) -> Option<u64> {
        self.expiry_ns(self.rounds.first()?)
    }

    fn expiry_ns(&self, place: Place<Round>) -> Option<u64> {
        let first_ns = self.rounds[place].first_ns;
        Some(first_ns.saturating_add(self.rule.expire_ns?))
    }

    /// Rounds that are over.
    pub(super) fn remembered(&self) -> u64 {
        u64::from(self.rounds.len() - self.unfired)
    }

    pub(super) fn is_pending(&self) -> bool {
        self.unfired > 0
    }

    /// Fires each round with what has come of it. One that waits for k and n may hold more than an
    /// invocation takes.
    pub(super) fn fire_pending(&mut self, out: &mut Outcome<T>) {
        self.each_unfired(|rounds, place| {
            let held = rounds.rounds[place].queue.len();
            if held > rounds.rule.inputs_max {
                out.overflow = true;
                rounds.drop_round(place, out);
            } else {
                rounds.fire(place, held, out);
            }
        });
    }

    /// Drops the rounds that have not fired. What comes of them later does not fire.
    pub(super) fn drop_pending(&mut self, out: &mut Outcome<T>) {
        self.each_unfired(|rounds, place| rounds.drop_round(place, out));
    }

    pub(super) fn drain(&mut self, out: &mut Outcome<T>) {
        self.drop_pending(out);
        self.rounds.clear();
        self.queues.clear();
    }

    fn each_unfired(&mut self, mut act: impl FnMut(&mut Self, Place<Round>)) {
        let mut next = self.rounds.first();
        while let Some(place) = next
            && self.unfired > 0
        {
            if !self.rounds[place].is_over {
                act(self, place);
            }
            next = self.rounds.after(place);
        }
    }

    pub(super) fn waiting_for(&self) -> String {
        let Some((k, _)) = self.rule.k_of_n else {
            let objects = text::counted(u64::from(self.queues.len()), "object");
            return format!("has {objects} and no `phr_redundant` that says how many fire");
        };
        let rounds = text::counted(u64::from(self.unfired), "round");
        let mut text = format!("has {rounds} with fewer than {k} objects:");
        let unfired = self
            .rounds
            .places()
            .filter(|&place| !self.rounds[place].is_over);
        for (number, place) in unfired.take(MISSING_KEYS_NAMED).enumerate() {
            let comma = if number > 0 { "," } else { "" };
            let group = String::from_utf8_lossy(self.rounds.name(place));
            let held = self.rounds[place].queue.len();
            write!(text, "{comma} `{group}` has {held}").expect("a string has room");
        }
        let named = u32::try_from(MISSING_KEYS_NAMED).unwrap_or(u32::MAX);
        if let Some(more @ 1..) = self.unfired.checked_sub(named) {
            write!(text, ", and {more} more").expect("a string has room");
        }
        text
    }
}
