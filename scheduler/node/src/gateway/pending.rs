//! Requests that a scheduler has been told of, until it has taken or refused them.

use pheromone_core::event::Refusal;
use pheromone_shm::message::Extent;

use super::Gateway;
use super::durable::Durable;
use super::ending::Ended;
use super::handle::ReplyTo;
use super::response::Incoming;
use crate::request::{FailureCause, FailureReport, Outcome, RefusalReason, Reply};
use crate::routing::Tried;
use crate::way::Way;

/// A request that a scheduler has been told of. There may be a million that wait, so what most do
/// not have is boxed.
pub(super) struct Pending {
    pub(super) app: u16,
    pub(super) home: u8,
    /// Until it is accepted: how to ask another scheduler, where there is another.
    pub(super) again: Option<Again>,
    pub(super) reply: ReplyTo,
    /// Given back where the request is refused.
    pub(super) extents: Vec<Extent>,
    /// The session it joins, where it joins one.
    pub(super) joins: Option<u64>,
    /// The dead letter that it retries, where it does.
    pub(super) retries: Option<u64>,
    pub(super) wait: bool,
    pub(super) accepted: Option<u64>,
    pub(super) answered: bool,
    pub(super) response: Option<Box<Incoming>>,
    /// Why its response cannot be given.
    pub(super) spoilt: Option<Box<FailureCause>>,
    /// Its session is durable.
    pub(super) durable: Option<Box<Durable>>,
    /// How its session ended, while the last lines of the executor at fault are fetched.
    pub(super) ended: Option<Box<Ended>>,
}

impl Pending {
    /// Of a request to this app that a scheduler is or will be told of.
    pub(super) fn new(app: u16, home: u8, reply: ReplyTo, extents: Vec<Extent>) -> Self {
        Self {
            app,
            home,
            again: None,
            reply,
            extents,
            joins: None,
            retries: None,
            wait: false,
            accepted: None,
            answered: false,
            response: None,
            spoilt: None,
            durable: None,
            ended: None,
        }
    }
}

/// What is asked of other schedulers, should one refuse for want of room in its share.
pub(super) struct Again {
    pub(super) message: Vec<u8>,
    pub(super) tried: Tried,
}

impl Gateway {
    pub(super) fn accepted(&mut self, request: u64, session: u64) {
        let Some(pending) = self.pending.get_mut(&request) else {
            return;
        };
        // From here on its memory is the scheduler's to release.
        pending.extents = Vec::new();
        pending.again = None;
        if let Some(durable) = &mut pending.durable {
            durable.accepted();
        }
        pending.accepted = Some(session);
        (pending.reply)(Reply::Accepted { session });
        if pending.joins.is_some() {
            if pending.wait {
                self.joined.entry(session).or_default().push(request);
            } else {
                self.done(request);
            }
        }
    }

    pub(super) fn refused(&mut self, request: u64, refusal: Refusal) {
        let may_be_elsewhere = match refusal {
            // A letter is where it is.
            Refusal::Sessions | Refusal::CallsWaiting | Refusal::Memory => {
                let pending = self.pending.get(&request);
                pending.is_none_or(|pending| pending.retries.is_none())
            }
            Refusal::NoLetter => true,
            _ => false,
        };
        if may_be_elsewhere && self.ask_another(request) {
            return;
        }
        if self.durable_refused(request, refusal) {
            return;
        }
        let Some(mut pending) = self.pending.remove(&request) else {
            return;
        };
        let app = pending.app;
        if matches!(
            refusal,
            Refusal::NotWritten | Refusal::Kept | Refusal::EndedMeanwhile
        ) {
            // Its memory is the scheduler's to release.
            pending.extents.clear();
        }
        if let Some(gate) = self.apps.get_mut(&app) {
            for extent in pending.extents.drain(..) {
                gate.give_back(extent);
            }
            let name = gate.version.name();
            let reason =
                RefusalReason::from_scheduler(refusal, name, (pending.joins, pending.retries));
            gate.requests_open -= 1;
            gate.homes.closed(pending.home);
            (pending.reply)(Reply::Refused(reason));
        }
        self.look_at_retiring(app);
    }

    /// A scheduler's share is used up, or it has not got what is asked for: sends the request to
    /// another, if there is one that has not refused it. So an app's limits are those of all its
    /// schedulers together.
    fn ask_another(&mut self, request: u64) -> bool {
        let Some(pending) = self.pending.get_mut(&request) else {
            return false;
        };
        let known = self.apps.get_mut(&pending.app).zip(pending.again.as_mut());
        let Some((gate, again)) = known else {
            return false;
        };
        again.tried.note(pending.home);
        let Some(next) = gate.homes.lightest(again.tried) else {
            return false;
        };
        gate.homes.closed(pending.home);
        gate.homes.opened(next);
        pending.home = next;
        self.ways[usize::from(next)].tell_bytes(&again.message);
        true
    }

    /// Ends a request that the scheduler will not end: its app is gone, or the node is broken.
    pub(super) fn fail_one(&mut self, request: u64, why: Option<&str>) {
        let Some(mut pending) = self.pending.remove(&request) else {
            return;
        };
        let name = match self.apps.get_mut(&pending.app) {
            Some(gate) => {
                gate.requests_open -= 1;
                gate.homes.closed(pending.home);
                gate.version.name().to_owned()
            }
            None => String::new(),
        };
        let last = match (pending.ended.take(), pending.accepted) {
            // Its end was known; only its executor's last lines were waited for.
            (Some(ended), _) => Reply::Ended {
                session: ended.session,
                outcome: ended.outcome,
                answered: ended.answered,
            },
            (None, Some(session)) => Reply::Ended {
                session,
                outcome: why.map_or(Outcome::Cancelled, |why| {
                    Outcome::Failed(FailureReport::of_node(&name, why.to_owned()))
                }),
                answered: false,
            },
            (None, None) => Reply::Refused(why.map_or_else(
                || RefusalReason::NoApp { app: name.clone() },
                |why| RefusalReason::Unusable {
                    reason: why.to_owned(),
                },
            )),
        };
        (pending.reply)(last);
    }

    /// Nothing will be answered any more: everybody who waits is told so.
    pub(super) fn fail_everything(&mut self) {
        let why = self.health.broken().map_or_else(
            || "the node is stopping".to_owned(),
            |it| it.error().to_string(),
        );
        let left: Vec<u64> = self.pending.keys().copied().collect();
        for request in left {
            self.fail_one(request, Some(&why));
        }
        // Dropped, which whoever waits for one hears.
        self.asked.clear();
        self.asked_letters.clear();
        self.moving.clear();
        self.unread.clear();
        self.joined.clear();
        self.apps.clear();
        self.routes.clear();
        self.ways.iter_mut().for_each(Way::clear);
    }

    /// A request is finished.
    pub(super) fn done(&mut self, request: u64) {
        let Some(pending) = self.pending.remove(&request) else {
            return;
        };
        if let Some(gate) = self.apps.get_mut(&pending.app) {
            gate.requests_open -= 1;
            gate.homes.closed(pending.home);
        }
        self.look_at_retiring(pending.app);
    }
}
