//! Durable sessions as the gateway handles them: what is on disk before it happens, and what goes
//! on after a restart.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pheromone_core::event::{Refusal, RequestId};
use pheromone_core::spec::Entry;
use pheromone_journal::{Unfinished, WriteError};
use pheromone_scheduler::protocol::{DestinationMessage, ToScheduler, pieces};
use pheromone_shm::message::Extent;

use super::Gateway;
use super::ending::Ended;
use super::gate::Admitted;
use super::pending::Pending;
use super::response::Incoming;
use crate::app::Version;
use crate::http::answer_of_end;
use crate::output::OutputKind;
use crate::request::{FailureCause, FailureReport, Outcome, RefusalReason, Reply, Request};
use crate::routing::Tried;
use crate::store::{self, Call, CallDetails, KeptAnswer, ResponseDetails, Restoring, Source};

/// Sessions of an app that are read from disk at the same time.
const RESTORED_AT_ONCE: usize = 64;
/// How long sessions for which there is no room wait until that is looked at again.
const RESTORE_INTERVAL: Duration = Duration::from_millis(50);

/// What the gateway knows of a request whose session is durable.
#[derive(Default)]
pub(super) struct Durable {
    session: u64,
    /// The request as its scheduler will be told of it, while it is on its way to disk.
    message: Option<Vec<u8>>,
    /// The session of which it is the rest, until a scheduler has taken it.
    unfinished: Option<Arc<Unfinished>>,
    /// What it has answered.
    answer: Option<KeptAnswer>,
    /// Its end is on disk.
    has_ended: bool,
}

/// Sessions of the time before that wait to go on.
#[derive(Default)]
pub(super) struct Restores {
    waiting: VecDeque<(u16, Arc<Unfinished>)>,
    reading: usize,
    /// When those are looked at again for which there was no room.
    pub(super) again: Option<Instant>,
    /// It has been said that some wait.
    is_told: bool,
}

impl Gateway {
    /// The durable session that a request would open at a scheduler.
    pub(super) fn durable_session(
        &self,
        version: &Version,
        destination: &DestinationMessage<'_>,
        home: u8,
    ) -> Option<u64> {
        let function = called(version, destination)?;
        let store = self.store.as_ref()?;
        version.spec.functions[usize::from(function)]
            .durable
            .then(|| store.new_session(home))
    }

    /// Has a request written that opens a durable session; until it is on disk nobody hears of it.
    pub(super) fn write_call(&mut self, id: u64, request: Request, admitted: Admitted) -> Durable {
        let session = admitted.durable.unwrap_or_default();
        let gate = self.apps.get(&admitted.app);
        if let (Some(store), Some(gate)) = (&self.store, gate) {
            let version = &gate.version;
            let timeout_ns = request.timeout_ns();
            let timeouts = [timeout_ns, version.spec.session_timeout_ns];
            let timeout_ns = timeouts.into_iter().flatten().min();
            let call = Call {
                session,
                version,
                function: admitted.function,
                details: CallDetails {
                    headers: request.headers,
                    has_caller: request.wait,
                },
                deadline_ns: timeout_ns.map(|ns| store::now_ns().saturating_add(ns)),
                body: request.body,
            };
            store.write_call(id, call, &self.handle);
        }
        Durable {
            session,
            message: Some(admitted.message),
            ..Durable::default()
        }
    }

    /// A call is on disk, or cannot be.
    pub(super) fn call_written(
        &mut self,
        request: u64,
        session: u64,
        result: Result<(), WriteError>,
    ) {
        let pending = self.pending.get_mut(&request);
        let message = pending.and_then(|pending| {
            let home = pending.home;
            let durable = pending.durable.as_mut()?;
            Some((home, durable.message.take()?))
        });
        match (result, message) {
            (Ok(()), Some((home, message))) => self.ways[usize::from(home)].tell_bytes(&message),
            // Its app has gone meanwhile.
            (Ok(()), None) => self.end_on_disk(session, "its app has gone"),
            (Err(_), None) => {}
            (Err(error), Some(_)) => {
                if let Some(pending) = self.pending.get(&request) {
                    self.event(pending.app, 0, OutputKind::Notice, error.to_string());
                }
                self.refuse(request, RefusalReason::NotWritten);
            }
        }
    }

    /// Lets go of a request that a scheduler has not been told of, or has refused.
    pub(super) fn refuse(&mut self, request: u64, reason: RefusalReason) {
        let Some(mut pending) = self.pending.remove(&request) else {
            return;
        };
        if let Some(gate) = self.apps.get_mut(&pending.app) {
            for extent in pending.extents.drain(..) {
                gate.give_back(extent);
            }
            gate.requests_open -= 1;
            gate.homes.closed(pending.home);
        }
        (pending.reply)(Reply::Refused(reason));
        self.look_at_retiring(pending.app);
    }

    /// Nothing is to be restored of a session.
    pub(super) fn end_on_disk(&self, session: u64, reason: &str) {
        if let Some(store) = &self.store {
            store.end(session, reason);
        }
    }

    /// A firing is on disk, or cannot be.
    pub(super) fn recorded(&mut self, question: store::Question, result: Result<(), WriteError>) {
        let store::Question {
            scheduler,
            app,
            ticket,
        } = question;
        let why = result.err().map(|error| error.to_string());
        if let Some(why) = &why {
            self.event(app, 0, OutputKind::Notice, why.clone());
        }
        let outcome = match &why {
            None => Ok(()),
            Some(why) => Err(why.as_str()),
        };
        let recorded = ToScheduler::Recorded {
            app,
            ticket,
            outcome,
        };
        self.tell(scheduler, &recorded);
    }

    /// A piece of a firing that is to be written.
    pub(super) fn hear_firing(&mut self, from: usize, piece: &[u8], more: bool) {
        let bytes = self.firing_bytes.entry(from).or_default();
        bytes.extend_from_slice(piece);
        if more {
            return;
        }
        let firing: pheromone_scheduler::protocol::FiringMessage =
            match postcard::from_bytes(&mem::take(bytes)) {
                Ok(firing) => firing,
                Err(error) => {
                    let how = format!("it sent what is no firing: {error}");
                    return self.give_up_on_scheduler(how);
                }
            };
        let question = store::Question {
            scheduler: from as u8,
            app: firing.app,
            ticket: firing.ticket,
        };
        if let (Some(store), Some(gate)) = (&self.store, self.apps.get(&firing.app)) {
            store.write_firing(question, &gate.version, firing, &self.handle);
        }
    }

    /// Has a response written that has been read; it is given once it is on disk.
    pub(super) fn write_response(&mut self, request: u64, response: Incoming, body: Vec<u8>) {
        let (Some(store), Some(pending)) = (&self.store, self.pending.get_mut(&request)) else {
            return;
        };
        let details = ResponseDetails {
            by: response.by,
            http_status: response.http_status,
            content_type: response.content_type.clone(),
        };
        if let Some(durable) = &mut pending.durable {
            durable.answer = Some(KeptAnswer {
                http_status: details.http_status,
                content_type: details.content_type.clone(),
                body: body.clone(),
            });
        }
        let session = response.session;
        // Its session's end waits for it.
        pending.response = Some(Box::new(response));
        store.write_response(request, session, (&details, body), &self.handle);
    }

    /// A response is on disk, or cannot be: then its session fails, since it could not be known
    /// after a restart that it had been given.
    pub(super) fn response_written(&mut self, request: u64, result: Result<(), WriteError>) {
        let Some(pending) = self.pending.get_mut(&request) else {
            return;
        };
        let (app, response) = (pending.app, pending.response.take());
        let Some(response) = response else {
            return;
        };
        let durable = pending.durable.as_mut();
        let session = response.session;
        match result {
            Ok(()) => {
                let answer = durable.and_then(|durable| durable.answer.clone());
                if let (Some(store), Some(answer)) = (&self.store, &answer) {
                    store.answered(session, answer);
                }
                self.tell_home(session, &ToScheduler::ResponseTaken { request, session });
                if let Some(answer) = answer {
                    let reply = Reply::Response {
                        session,
                        http_status: answer.http_status,
                        content_type: answer.content_type,
                        body: answer.body,
                    };
                    self.give(request, session, reply);
                }
            }
            Err(error) => {
                let why = format!("the response could not be written to disk: {error}");
                if let Some(durable) = durable {
                    durable.answer = None;
                }
                pending.spoilt = Some(Box::new(FailureCause::NotWritten {
                    message: why.clone(),
                }));
                self.event(app, session, OutputKind::Notice, why);
                self.tell_home(session, &ToScheduler::Cancel { session });
                self.tell_home(session, &ToScheduler::ResponseTaken { request, session });
            }
        }
        if let Some(end) = response.end {
            self.ended(request, end);
        }
    }

    /// Has the end of a durable session written before anybody hears of it. False: it is there, or
    /// the session is not durable.
    pub(super) fn write_end(&mut self, request: u64, ended: &Ended) -> bool {
        let (Some(store), Some(pending)) = (&self.store, self.pending.get_mut(&request)) else {
            return false;
        };
        let Some(durable) = pending.durable.as_mut().filter(|it| !it.has_ended) else {
            return false;
        };
        durable.has_ended = true;
        let answer = durable.answer.take();
        let answer = answer.unwrap_or_else(|| answer_of_end(ended.session, &ended.outcome));
        let gate = self.apps.get(&pending.app);
        let keep_ns = gate.map_or(0, |gate| gate.version.spec.keep_results_ns);
        let reason = match &ended.outcome {
            Outcome::Responded => "responded".to_owned(),
            Outcome::Completed => "completed".to_owned(),
            Outcome::TimedOut => "timed out".to_owned(),
            Outcome::Cancelled => "cancelled".to_owned(),
            Outcome::Failed(report) => report.to_string(),
        };
        let names = (request, ended.session);
        store.write_end(names, &reason, (&answer, keep_ns), &self.handle);
        true
    }

    /// The end of a durable session is on disk; where it cannot be, that is no reason to keep it
    /// from its caller.
    pub(super) fn end_written(&mut self, request: u64, result: Result<(), WriteError>) {
        if let (Err(error), Some(pending)) = (result, self.pending.get(&request)) {
            let text = format!("the end of a durable session is not on disk: {error}");
            self.event(pending.app, 0, OutputKind::Notice, text);
        }
        self.finish_with(request, Vec::new());
    }

    /// What the caller of a durable session is told that is cancelled because the node stops: it
    /// goes on at the next start. `None`: how it has ended.
    pub(super) fn stopping_outcome(&self, request: u64, outcome: &Outcome) -> Option<Outcome> {
        let pending = self.pending.get(&request)?;
        let durable = pending.durable.as_ref()?;
        if !self.is_stopping || durable.has_ended || *outcome != Outcome::Cancelled {
            return None;
        }
        let app = self.apps.get(&pending.app).map(|gate| gate.version.name());
        let message = "the node is stopping; the session goes on at its next start".to_owned();
        let report = FailureReport::of_node(app.unwrap_or_default(), message);
        Some(Outcome::Failed(report))
    }

    /// An app takes requests: what the node before has left of its durable sessions goes on.
    pub(super) fn restore_sessions(&mut self, app: u16) {
        let (Some(store), Some(gate)) = (&self.store, self.apps.get(&app)) else {
            return;
        };
        let sessions = store.take_unfinished(gate.version.name());
        let sessions = sessions.into_iter().map(|session| (app, session));
        self.restores.waiting.extend(sessions);
    }

    /// Has sessions read from disk that go on. Whether there were any.
    pub(super) fn restore_some(&mut self) -> bool {
        if self.restores.waiting.is_empty() || self.is_stopping {
            return false;
        }
        if self.restores.again.is_some_and(|at| at > Instant::now()) {
            return false;
        }
        self.restores.again = None;
        let mut worked = false;
        while self.restores.reading < RESTORED_AT_ONCE
            && self.restores.again.is_none()
            && let Some((app, session)) = self.restores.waiting.pop_front()
        {
            worked = true;
            self.read_session(app, session);
        }
        worked
    }

    fn read_session(&mut self, app: u16, session: Arc<Unfinished>) {
        let gate = self.apps.get_mut(&app);
        let Some(gate) = gate.filter(|gate| gate.retiring.is_none()) else {
            return self.restore_elsewhere(session);
        };
        let version = Arc::clone(&gate.version);
        let mut restoring = match Restoring::new(&session, &version) {
            Ok(restoring) => Box::new(restoring),
            Err(why) => {
                let id = session.session as u64;
                let text = format!(
                    "durable session {id} cannot go on: {why}; it stays on disk until the node is \
                     started with an app that it can go on in"
                );
                return self.event(app, id, OutputKind::Notice, text);
            }
        };
        let mut placed: Vec<Extent> = Vec::new();
        let sizes: Vec<u64> = restoring.payloads.iter().map(Source::size_bytes).collect();
        for (number, size_bytes) in sizes.into_iter().enumerate() {
            match gate.reserve(size_bytes) {
                Ok(extent) => {
                    restoring.place(number, extent);
                    placed.push(extent);
                }
                Err(_) => {
                    placed.into_iter().for_each(|extent| gate.give_back(extent));
                    return self.wait_for_room(app, session);
                }
            }
        }
        let file = gate.version.regions.shared(version.spec.ingress_slot());
        if let (Some(store), Some(file)) = (&self.store, file) {
            self.restores.reading += 1;
            store.read_session(app, session, restoring, file);
        }
    }

    /// The version in which a session was to go on has gone: it does in the one that has taken its
    /// place, or waits for one.
    fn restore_elsewhere(&mut self, session: Arc<Unfinished>) {
        let Some(store) = &self.store else {
            return;
        };
        let name = store.put_back(session);
        let current = self.routes.get(&name).copied();
        if let Some(app) = current {
            self.restore_sessions(app);
        }
    }

    /// There is no room for a session now; there will be once others have ended.
    fn wait_for_room(&mut self, app: u16, session: Arc<Unfinished>) {
        if !mem::replace(&mut self.restores.is_told, true) {
            let text = "durable sessions wait until there is room for them; raise the app's \
                        `memory` if they wait for ever";
            self.event(app, 0, OutputKind::Notice, text.to_owned());
        }
        self.restores.again = Some(Instant::now() + RESTORE_INTERVAL);
        self.restores.waiting.push_front((app, session));
    }

    /// A session has been read into memory, or cannot be.
    pub(super) fn session_read(
        &mut self,
        app: u16,
        unfinished: Arc<Unfinished>,
        restoring: Box<Restoring>,
        failed: Option<String>,
    ) {
        self.restores.reading -= 1;
        let request = self.handle.new_request().0;
        let mut session = restoring.session;
        let extents: Vec<Extent> = session.extents().collect();
        let Some(gate) = self.apps.get_mut(&app) else {
            return self.restore_elsewhere(unfinished);
        };
        let id = session.session.0;
        let home = gate.homes.lightest(Tried::default());
        let (Some(home), None) = (home, &failed) else {
            extents
                .into_iter()
                .for_each(|extent| gate.give_back(extent));
            let why = failed.unwrap_or_default();
            let text = format!("durable session {id} cannot go on: {why}; it stays on disk");
            return self.event(app, id, OutputKind::Notice, text);
        };
        gate.requests_open += 1;
        gate.homes.opened(home);
        session.request = RequestId(request);
        let bytes = postcard::to_allocvec(&session)
            .expect("sessions of numbers, bytes and lists always encode");
        for (bytes, more) in pieces(&bytes) {
            self.tell(home, &ToScheduler::Restore { bytes, more });
        }
        let durable = Durable {
            session: id,
            unfinished: Some(unfinished),
            answer: restoring.answer,
            ..Durable::default()
        };
        // Whoever had called is gone; the answer is fetched by the session's id.
        let mut pending = Pending::new(app, home, Box::new(|_| {}), extents);
        pending.wait = session.has_caller;
        pending.answered = session.answered_by != 0;
        pending.durable = Some(Box::new(durable));
        self.pending.insert(request, Box::new(pending));
    }

    /// A scheduler has refused a durable session: one that goes on waits for room; of a new one
    /// nothing is left.
    pub(super) fn durable_refused(&mut self, request: u64, refusal: Refusal) -> bool {
        let Some(pending) = self.pending.get_mut(&request) else {
            return false;
        };
        let app = pending.app;
        let Some(durable) = &mut pending.durable else {
            return false;
        };
        let (session, unfinished) = (durable.session, durable.unfinished.take());
        let Some(unfinished) = unfinished else {
            self.end_on_disk(session, "it was refused");
            return false;
        };
        self.refuse(request, RefusalReason::Overloaded);
        match refusal {
            Refusal::Memory | Refusal::Sessions => self.wait_for_room(app, unfinished),
            _ => self.restore_elsewhere(unfinished),
        }
        true
    }
}

impl Durable {
    /// A scheduler has taken it.
    pub(super) fn accepted(&mut self) {
        self.unfinished = None;
    }
}

/// The function that a request calls.
pub(super) fn called(version: &Version, destination: &DestinationMessage<'_>) -> Option<u16> {
    match destination {
        DestinationMessage::Function(function) => Some(*function),
        DestinationMessage::Entry => match version.spec.entry? {
            Entry::Function(function) => Some(function),
            Entry::Bucket(_) => None,
        },
        DestinationMessage::Bucket { .. } | DestinationMessage::Retained { .. } => None,
    }
}
