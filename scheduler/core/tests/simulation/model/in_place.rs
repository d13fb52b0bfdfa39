//! Continuation in place: what an executor has offered to start itself is queued once it has been
//! taken back or left, and runs there once its executor says that it goes on.

use pheromone_core::event::{ExecutorId, SessionId};
use pheromone_core::spec::{AppSpec, Retain, TriggerKind};
use pheromone_shm::message::{Extent, NO_BUCKET, NO_TRIGGER, Target};

use super::{Invocation, Model, Object, ObjectKey, Place};
use crate::history::{Did, End, Why};
use crate::rules::What;

impl Model {
    /// What an executor has offered and nobody has decided about.
    pub(super) fn offered_by(&self, id: ExecutorId) -> Option<usize> {
        let mut offered = self.invocations.iter();
        let found = offered.find(|(_, invocation)| invocation.place == Place::Offered(id));
        found.map(|(&number, _)| number)
    }

    /// Whether the core has taken back this offer in this step.
    pub(super) fn is_withdrawn(&self, by: ExecutorId, invocation: Option<u64>) -> bool {
        let is_it = |did: &Did| {
            matches!(did, Did::Withdraw(id, offered, true)
                if *id == by && Some(*offered) == invocation)
        };
        self.dids.iter().any(is_it)
    }

    pub(super) fn offered(
        &mut self,
        id: ExecutorId,
        target: Target,
        (extent, size_bytes): (Extent, u64),
        (ordinal, invocation): (u32, u64),
    ) {
        assert!(self.offered_by(id).is_none(), "{id:?} offers one at a time");
        let sender = &self.invocations[&self.running(id)];
        let (author, session) = (sender.id.expect("it has started"), sender.session);
        let spec = &self.apps[&id.app].spec;
        let (function, trigger) = only_fires(spec, sender.function, target);
        assert!(may_go_on(spec, sender.function) && may_go_on(spec, function));
        let is_withdrawn = self.is_withdrawn(id, Some(invocation));
        if session.is_none() && is_withdrawn {
            // Its memory goes back as it came.
            return self.memory.fill((id.app, id.slot), extent, None);
        }
        let item = self.create(Object {
            app: id.app,
            session: session.unwrap_or(SessionId(0)),
            bucket: match target {
                Target::Bucket(bucket) => bucket,
                Target::Next | Target::Function(_) => NO_BUCKET,
            },
            key: ObjectKey::Auto(author, ordinal),
            group: String::new(),
            region: id.slot,
            extent,
            size_bytes,
            arrival_ns: self.now_ns,
            root: None,
        });
        let order = self.next_order();
        let mut fired = Invocation {
            id: Some(invocation),
            place: Place::Offered(id),
            ..Invocation::fired(id.app, session, function, trigger, vec![item], None, order)
        };
        let Some(session) = session else {
            self.enter(fired);
            return;
        };
        if self.is_past_limit(id, session, 0) {
            // Who may have taken it already runs it for nobody.
            if !is_withdrawn {
                fired.session = None;
                self.enter(fired);
            }
            self.end(session, End::Failed(Why::Objects));
            return;
        }
        if is_withdrawn {
            fired.place = Place::Queued;
        }
        self.fired_total += 1;
        self.session(session).fired.insert(function);
        self.enter(fired);
        self.keep_in_bucket(session, item);
    }

    /// An executor has left what it had offered, or it has been taken back.
    pub(super) fn leave_offer(&mut self, number: usize) {
        let invocation = self.invocations.get_mut(&number).expect("it is offered");
        if invocation.session.is_some() {
            invocation.place = Place::Queued;
        } else {
            self.invocations.remove(&number);
        }
    }

    /// The core has taken back an offer. One that is not known is of this step, or of a session
    /// that has ended.
    pub(super) fn taken_back(&mut self, id: ExecutorId, invocation: u64) {
        if let Some(number) = self.offered_by(id)
            && self.invocations[&number].id == Some(invocation)
        {
            self.leave_offer(number);
        }
    }

    /// What an executor runs has returned, and what it had offered runs there now.
    pub(super) fn goes_on(&mut self, id: ExecutorId) {
        let number = self.running(id);
        let begun = self
            .offered_by(id)
            .expect("it goes on with what is its own");
        let (function, session) = {
            let finished = &self.invocations[&number];
            (finished.function, finished.session)
        };
        if let Some(session) = session {
            for trigger in self.invocations[&number].closes.clone() {
                self.happen_to(session, trigger, What::CloseSource);
            }
        }
        let invocation = self.invocations.get_mut(&begun).expect("it is offered");
        invocation.place = Place::Running;
        let (next, is_wanted) = (invocation.function, invocation.session.is_some());
        let spec = &self.apps[&id.app].spec;
        let timeout_ns = spec.functions[usize::from(next)].timeout_ns;
        let guard_ns = timeout_ns.map(|timeout_ns| self.now_ns + timeout_ns);
        let process = self.process(id);
        process.running = Some(begun);
        process.is_loading = false;
        process.loaded.extend([function, next]);
        process.guard_ns = guard_ns;
        self.invocations.remove(&number);
        if !is_wanted {
            self.tell_cancelled(begun);
        }
        if let Some(session) = session {
            self.settle(session);
        }
    }

    /// What a process had offered that has been killed: it has not been heard to the end, and may
    /// have begun it.
    pub(super) fn offer_died(&mut self, number: usize) {
        if self.invocations[&number].session.is_some() {
            self.attempt_failed(number, Why::Died, true);
        } else {
            self.leave_offer(number);
        }
    }
}

/// The one function that an object with an automatic key fires, and by what.
fn only_fires(spec: &AppSpec, sender: u16, target: Target) -> (u16, u16) {
    match target {
        Target::Bucket(number) => {
            let bucket = &spec.buckets[usize::from(number)];
            assert!(!bucket.durable && bucket.retain == Retain::ForNs(0));
            let [trigger] = &bucket.triggers[..] else {
                panic!("other triggers look at it, too");
            };
            assert_eq!(trigger.kind, TriggerKind::Immediate);
            let before = &spec.buckets[..usize::from(number)];
            let before: usize = before.iter().map(|bucket| bucket.triggers.len()).sum();
            (only(&trigger.functions), before as u16)
        }
        Target::Next => {
            let next = &spec.functions[usize::from(sender)].next;
            (only(next), NO_TRIGGER)
        }
        Target::Function(function) => (function, NO_TRIGGER),
    }
}

fn only(functions: &[u16]) -> u16 {
    assert_eq!(functions.len(), 1, "it fires one function");
    functions[0]
}

/// Whether the contract lets a function be gone on from, and gone on with.
fn may_go_on(spec: &AppSpec, function: u16) -> bool {
    let highest = spec
        .functions
        .iter()
        .map(|function| function.priority)
        .max();
    let function = &spec.functions[usize::from(function)];
    spec.continuation
        && function.attempts == 1
        && function.max_concurrency.is_none()
        && Some(function.priority) == highest
}
