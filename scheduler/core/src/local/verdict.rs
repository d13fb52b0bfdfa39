//! Verdicts of custom triggers: what one call has decided, kept until it has returned, then judged
//! as a whole and carried out as a whole.

use std::ops::Range;

use pheromone_shm::message::ALL_FUNCTIONS;
use pheromone_shm::wire::verdict_objects;

use crate::event::{SessionId, Sink};
use crate::gather::Gatherer;
use crate::gather::hand::NotPending;
use crate::local::Tables;
use crate::local::afterwards::Afterwards;
use crate::local::app::App;
use crate::local::invocation::Firing;
use crate::local::judge::Fault;
use crate::local::object::Object;
use crate::local::session::Session;
use crate::slab::Ref;

/// What a call has decided so far.
#[derive(Default)]
pub(super) struct Verdict {
    acts: Vec<Act>,
    numbers: Vec<u64>,
    /// The last act's list goes on.
    is_unfinished: bool,
    /// When it wants a tick, where it has said so.
    pub(super) tick_ns: Option<u64>,
}

/// One `phr_fire` or `phr_drop`.
struct Act {
    session: SessionId,
    /// Which function fires, or all; none: the objects are dropped.
    fires: Option<u16>,
    /// Which of the verdict's numbers.
    numbers: Range<usize>,
}

impl Verdict {
    /// Takes a `Fire`, or the next piece of one.
    pub(super) fn fire(
        &mut self,
        session: SessionId,
        function: u16,
        more: bool,
        objects: &[u8],
        most: usize,
    ) -> Result<(), Fault> {
        let goes_on = std::mem::replace(&mut self.is_unfinished, more);
        match self.acts.last_mut().filter(|_| goes_on) {
            Some(last) if last.session == session && last.fires == Some(function) => {}
            Some(_) => return Err(Fault::UnfinishedFire),
            None => self.begin(session, Some(function)),
        }
        self.extend(objects, most)
    }

    /// Takes a `Drop`.
    pub(super) fn drop(
        &mut self,
        session: SessionId,
        objects: &[u8],
        most: usize,
    ) -> Result<(), Fault> {
        if self.is_unfinished {
            return Err(Fault::UnfinishedFire);
        }
        self.begin(session, None);
        self.extend(objects, most)
    }

    fn begin(&mut self, session: SessionId, fires: Option<u16>) {
        let start = self.numbers.len();
        self.acts.push(Act {
            session,
            fires,
            numbers: start..start,
        });
    }

    fn extend(&mut self, objects: &[u8], most: usize) -> Result<(), Fault> {
        self.numbers.extend(verdict_objects(objects));
        if let Some(last) = self.acts.last_mut() {
            last.numbers.end = self.numbers.len();
        }
        // An act without objects is an entry as well.
        if self.numbers.len() + self.acts.len() > most {
            return Err(Fault::Verdict { most });
        }
        Ok(())
    }

    /// The sessions about whose objects something is said.
    pub(super) fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.acts.iter().map(|act| act.session)
    }
}

impl Tables {
    /// Judges a verdict without carrying anything out but that what it fires or drops is spent. In
    /// a void one it is pending again.
    pub(super) fn judge_verdict(
        &mut self,
        app: &App,
        at: usize,
        verdict: &Verdict,
    ) -> Result<(), String> {
        let trigger = app.customs[at].trigger;
        if verdict.is_unfinished {
            return Err("it returned within a firing".to_owned());
        }
        let judged = verdict
            .acts
            .iter()
            .try_for_each(|act| self.judge_act(app, trigger, act, &verdict.numbers));
        if judged.is_err() {
            for session in verdict.sessions() {
                if let Some((_, hand)) = self.hand(session, trigger) {
                    hand.restore();
                }
            }
        }
        judged
    }

    fn judge_act(
        &mut self,
        app: &App,
        trigger: u16,
        act: &Act,
        numbers: &[u64],
    ) -> Result<(), String> {
        // Of a session that has ended meanwhile there is nothing to judge.
        let Some(session) = self.session(act.session) else {
            return Ok(());
        };
        // Triggers of different apps have the same numbers.
        if self.sessions[session].app != app.id {
            let session = act.session.0;
            return Err(format!(
                "it decided about session {session}, none of whose objects are its to decide about"
            ));
        }
        if act.fires.is_some() && act.numbers.is_empty() {
            return Err("it fired without objects".to_owned());
        }
        let numbers = &numbers[act.numbers.clone()];
        // A firing that lacks a part does not happen, so the rest stays pending.
        let lacks_part = act.fires.is_some()
            && self.hand(act.session, trigger).is_some_and(|(_, hand)| {
                let mut numbers = numbers.iter();
                numbers.any(|&number| hand.is_withdrawn(number))
            });
        for &number in numbers {
            let taken = match self.hand(act.session, trigger) {
                Some((_, hand)) if lacks_part => hand.find(number),
                Some((_, hand)) if act.fires.is_some() => hand.fire(number),
                Some((_, hand)) => hand.drop(number),
                None => Err(NotPending::Unknown),
            };
            if taken == Err(NotPending::Unknown) {
                let what = if act.fires.is_some() {
                    "fired"
                } else {
                    "dropped"
                };
                let session = act.session.0;
                return Err(format!(
                    "it {what} object number {number} of session {session}, which is not pending \
                     in it"
                ));
            }
        }
        Ok(())
    }

    /// Carries out a verdict that has been found right.
    pub(super) fn carry_out_verdict<S: Sink>(
        &mut self,
        app: &mut App,
        at: usize,
        verdict: &Verdict,
        sink: &mut S,
    ) {
        let trigger = app.customs[at].trigger;
        for act in &verdict.acts {
            let (Some(session), Some(function)) = (self.session(act.session), act.fires) else {
                continue;
            };
            let inputs = self.spent_objects(act, trigger, &verdict.numbers);
            if inputs.len() > app.spec.limits.inputs as usize {
                let failure = self.overflow(app, trigger);
                let session = act.session;
                let task = Afterwards::Fail { session, failure };
                self.afterwards.push_back(task);
            } else if inputs.len() == act.numbers.len() {
                self.fire_by_verdict(app, trigger, session, function, &inputs);
            }
        }
        for session in verdict.sessions() {
            if let Some(state) = self.states.find(session, trigger) {
                self.gather(app, state, None, sink, |gatherer, out| {
                    if let Gatherer::Hand(hand) = gatherer {
                        hand.sweep(out);
                    }
                });
            }
        }
    }

    /// The objects of a firing, without those that have been withdrawn.
    fn spent_objects(&mut self, act: &Act, trigger: u16, numbers: &[u64]) -> Vec<Ref<Object>> {
        let Some((_, hand)) = self.hand(act.session, trigger) else {
            return Vec::new();
        };
        let numbers = numbers[act.numbers.clone()].iter();
        numbers.filter_map(|&number| hand.held(number)).collect()
    }

    fn fire_by_verdict(
        &mut self,
        app: &mut App,
        trigger: u16,
        session: Ref<Session>,
        function: u16,
        inputs: &[Ref<Object>],
    ) {
        let plan = &app.plan.triggers[usize::from(trigger)];
        let near = inputs
            .first()
            .map(|&first| self.objects[first].region)
            .filter(|&region| region < app.pool_slots);
        for at in 0..plan.functions.len() {
            let target = app.plan.triggers[usize::from(trigger)].functions[at];
            if function == ALL_FUNCTIONS || function == target {
                let firing = Firing {
                    trigger,
                    near,
                    ..Firing::new(session, target)
                };
                self.fire(app, firing, inputs.iter().copied());
            }
        }
    }
}
