//! Executors that go on by themselves, between any two steps of the scheduler: they offer when they
//! publish, take when their function has returned, and the scheduler hears of both later.

use pheromone_core::event::{Death, ExecutorId};
use pheromone_shm::message::{Extent, NO_BUCKET, NO_DEADLINE, Target};

use super::World;
use crate::history::{Said, Seen, SeenKey, Start};
use crate::process::{Doing, Run, Sent};

/// What has come of continuation in place.
#[derive(Clone, Copy, Debug, Default)]
pub struct InPlace {
    pub offered: u64,
    pub continued: u64,
    /// Offers that the scheduler has taken back in time, and too late.
    pub withdrawn: u64,
    pub too_late: u64,
    /// Grants after the first that a process has begun to use.
    pub renewed: u64,
    /// Processes that died with what they had taken and not begun.
    pub died_between: u64,
}

impl InPlace {
    pub fn add(&mut self, other: &Self) {
        self.offered += other.offered;
        self.continued += other.continued;
        self.withdrawn += other.withdrawn;
        self.too_late += other.too_late;
        self.renewed += other.renewed;
        self.died_between += other.died_between;
    }

    pub(super) fn decide(&mut self, is_withdrawn: bool) {
        self.withdrawn += u64::from(is_withdrawn);
        self.too_late += u64::from(!is_withdrawn);
    }

    /// Nothing that matters has failed to happen.
    pub fn is_varied(&self) -> bool {
        let Self {
            offered,
            continued,
            withdrawn,
            too_late,
            renewed,
            died_between,
        } = *self;
        let rarest = withdrawn.min(too_late).min(renewed).min(died_between);
        rarest > 0 && offered > continued && continued > 0
    }
}

impl World<'_> {
    /// Publishes an object, which is in this extent, as an offer to go on with what it fires.
    /// `None`: that may not be, and nothing has been said.
    pub(super) fn offer(
        &mut self,
        id: ExecutorId,
        sent: &Sent,
        extent: Extent,
        size_bytes: u64,
    ) -> Option<Said> {
        let now_ns = self.now_ns();
        let words = self.notes.words.get(&id).expect("it has its words");
        let process = self.processes.get_mut(&id).expect("it is there");
        let run = process.run.as_mut().expect("it runs something");
        let target = sent.plain_target()?;
        let spec = &self.plan.spec;
        let next = self
            .plan
            .program
            .successor(spec, run.start.function, target);
        let (function, trigger) = next?;
        let is_ready = process.loaded.contains(&function) && run.start.request.is_none();
        if !is_ready || run.has_offered || run.is_cancelled {
            return None;
        }
        let invocation = process.granted.next(words.grant)?;
        let before = std::mem::replace(&mut process.block, words.grant);
        let is_renewed = before != 0 && before != words.grant;
        self.summary.in_place.offered += 1;
        self.summary.in_place.renewed += u64::from(is_renewed);
        let ordinal = run.label(sent).ordinal;
        let input = Seen {
            region: id.slot,
            bucket: match target {
                Target::Bucket(bucket) => bucket,
                Target::Next | Target::Function(_) => NO_BUCKET,
            },
            offset_units: extent.offset_units,
            size_bytes,
            session: run.start.session,
            arrival_ns: now_ns,
            key: SeenKey::Auto(run.start.invocation, ordinal),
            group: String::new(),
        };
        let timeout_ns = spec.functions[usize::from(function)].timeout_ns;
        run.has_offered = true;
        run.offered = Some(Start {
            function,
            trigger,
            attempt: 1,
            invocation,
            timeout_ns: timeout_ns.unwrap_or(NO_DEADLINE),
            window: None,
            inputs: vec![input],
            ..run.start.clone()
        });
        words.claim.offer(invocation);
        Some(Said::Offer {
            target,
            ordinal,
            extent,
            size_bytes,
            invocation,
        })
    }

    /// A function has returned with success, and its process goes on with what it has offered, if
    /// that has not been taken back.
    pub(super) fn continue_in_place(&mut self, id: ExecutorId) -> bool {
        let process = self.processes.get_mut(&id).expect("it is there");
        let run = process.run.as_mut().expect("it runs something");
        let Some(next) = run.offered.take() else {
            return false;
        };
        let words = self.notes.words.get(&id).expect("it has its words");
        if run.is_cancelled || !words.claim.take(next.invocation) {
            return false;
        }
        if self.rng.chance(self.plan.misfortunes.crash) {
            // It has taken what it has not begun.
            self.summary.in_place.died_between += 1;
            self.die(id, Death::Signaled(11));
            return true;
        }
        self.say(id, Said::Continue);
        self.tell(|_| format!("    {id:?} goes on with {}", next.invocation));
        self.summary.in_place.continued += 1;
        self.begin_next(id, next);
        true
    }

    fn begin_next(&mut self, id: ExecutorId, start: Start) {
        self.note_start(&start);
        let script = self.script(&start);
        let is_stubborn = self.rng.chance(self.plan.misfortunes.stubborn);
        let process = self.process(id);
        let mut run = Run::new(start, script, is_stubborn);
        run.is_cancelled = run.start.invocation == process.cancel_word;
        process.doing = Doing::Running;
        process.run = Some(run.of_loaded());
        self.act_later(id, 0);
    }
}
