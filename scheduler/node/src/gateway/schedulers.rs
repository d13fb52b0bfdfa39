//! What schedulers are told and say.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use pheromone_core::event::Trouble;
use pheromone_core::limits::FAILURES_TOLD;
use pheromone_core::share::Division;
use pheromone_scheduler::protocol::{Control, ToNode, ToScheduler};
use pheromone_shm::message::Extent;

use super::ending::End;
use super::response::Incoming;
use super::{Gateway, PER_TURN_MAX};
use crate::app::Version;
use crate::memory::Task;
use crate::output::{Output, OutputKind};
use crate::routing::home_of;
use crate::status::Broken;
use crate::store;
use crate::supervisor::Order;
use crate::way::Way;

impl Gateway {
    pub(super) fn take_messages(&mut self, bytes: &mut Vec<u8>) -> bool {
        let mut worked = false;
        for from in 0..self.ways.len() {
            worked |= self.take_messages_of(from, bytes);
        }
        worked
    }

    fn take_messages_of(&mut self, from: usize, bytes: &mut Vec<u8>) -> bool {
        for taken in 0..PER_TURN_MAX {
            match self.ways[from].receive(bytes) {
                Ok(true) => match postcard::from_bytes(bytes) {
                    Ok(message) => self.hear_scheduler(from, message),
                    Err(error) => {
                        self.give_up_on_scheduler(format!("it sent what is no message: {error}"));
                        return true;
                    }
                },
                Ok(false) => return taken > 0,
                Err(error) => {
                    self.give_up_on_scheduler(format!("it sent what is no message: {error}"));
                    return false;
                }
            }
        }
        true
    }

    /// The scheduler is ours; where it says what makes no sense, or cannot be spoken to, that is a
    /// bug nobody can go on with.
    pub(super) fn give_up_on_scheduler(&mut self, how: String) {
        if self.health.broken().is_none() {
            self.health.give_up(Broken::Scheduler(how));
            self.fail_everything();
        }
    }

    /// Says something to a scheduler; to one that does not exist (a session's id may come from
    /// anybody), nothing.
    pub(super) fn tell(&mut self, scheduler: u8, message: &ToScheduler<'_>) {
        if self.is_broken() {
            return;
        }
        if let Some(way) = self.ways.get_mut(usize::from(scheduler)) {
            way.tell(message);
        }
    }

    /// Says something to the scheduler whose session it concerns.
    pub(super) fn tell_home(&mut self, session: u64, message: &ToScheduler<'_>) {
        self.tell(home_of(session), message);
    }

    /// Says something to all schedulers of an app.
    pub(super) fn tell_homes(&mut self, app: u16, message: &ToScheduler<'_>) {
        let division = self.apps.get(&app).map(|gate| gate.version.division);
        for home in division.into_iter().flat_map(Division::homes) {
            self.tell(home, message);
        }
    }

    /// The scheduler that has asked for a slot's process; `None` where the app is gone.
    pub(super) fn owner_of(&self, app: u16, slot: u16) -> Option<u8> {
        let gate = self.apps.get(&app)?;
        gate.owners.get(&slot).copied()
    }

    /// Says something to the scheduler of an executor slot. With its app everybody forgets it.
    pub(super) fn tell_owner(&mut self, app: u16, slot: u16, message: &ToScheduler<'_>) {
        if let Some(owner) = self.owner_of(app, slot) {
            self.tell(owner, message);
        }
    }

    pub(super) fn tell_with(
        &mut self,
        scheduler: u8,
        message: &Control,
        descriptors: Vec<OwnedFd>,
    ) {
        let Some(way) = self.ways.get_mut(usize::from(scheduler)) else {
            return;
        };
        if let Err(error) = way.tell_with(message, descriptors) {
            self.cannot_be_told(&error);
        }
    }

    pub(super) fn flush(&mut self) {
        if self.is_broken() {
            self.ways.iter_mut().for_each(Way::clear);
            return;
        }
        for at in 0..self.ways.len() {
            if let Err(error) = self.ways[at].flush() {
                self.cannot_be_told(&error);
            }
            self.ways[at].wake();
        }
    }

    fn cannot_be_told(&mut self, error: &io::Error) {
        self.give_up_on_scheduler(format!("it cannot be given descriptors: {error}"));
    }

    fn hear_scheduler(&mut self, from: usize, message: ToNode<'_>) {
        match message {
            ToNode::Ready => {
                self.ways[from].ready = true;
                if self.ways.iter().all(|way| way.ready) {
                    // Nobody waits for it when the start has been given up.
                    let _ = self.ready.send(());
                }
            }
            ToNode::Spawn { app, slot, core } => {
                let scheduler = from as u8;
                if let Some(gate) = self.apps.get_mut(&app) {
                    gate.owners.insert(slot, scheduler);
                }
                self.supervisor.tell(Order::Spawn {
                    app,
                    slot,
                    scheduler,
                    core,
                });
            }
            ToNode::Kill {
                app,
                slot,
                incarnation,
                why,
            } => self.supervisor.tell(Order::Kill {
                app,
                slot,
                incarnation,
                why: why.to_owned(),
            }),
            ToNode::Released { app, extents } => {
                if let Some(gate) = self.apps.get_mut(&app) {
                    for (offset_units, len_units) in extents {
                        gate.give_back(Extent {
                            offset_units,
                            len_units,
                        });
                    }
                }
            }
            ToNode::Accepted { request, session } => self.accepted(request, session),
            ToNode::Refused { request, refusal } => self.refused(request, refusal),
            ToNode::Response {
                request,
                session,
                http_status,
                content_type,
                by,
                parts,
                more,
                ..
            } => {
                let response = Incoming {
                    session,
                    http_status,
                    content_type: String::from_utf8_lossy(content_type).into_owned(),
                    by,
                    ..Incoming::default()
                };
                self.take_parts(request, response, parts, more);
            }
            ToNode::Ended {
                app,
                request,
                session,
                outcome,
                answered,
            } => {
                self.end_writer(request, session);
                let end = End {
                    app,
                    session,
                    outcome,
                    answered,
                };
                let pending = self.pending.get_mut(&request);
                match pending.and_then(|pending| pending.response.as_mut()) {
                    Some(response) => response.end = Some(end),
                    None => self.ended(request, end),
                }
            }
            ToNode::ErrorEvent { app, session, text } => {
                self.event(app, session, OutputKind::ErrorEvent, text.to_owned());
            }
            ToNode::WriteFailure {
                app,
                ticket,
                failure,
            } => self.write_failure(from as u8, app, ticket, failure),
            ToNode::Write(message) => self.write(from as u8, &message),
            ToNode::Firing { bytes, more } => self.hear_firing(from, bytes, more),
            ToNode::Success {
                session,
                invocation,
            } => {
                if let Some(store) = &self.store {
                    store.write_success(session, invocation);
                }
            }
            ToNode::Load {
                app,
                ticket,
                bucket,
                key,
            } => {
                let question = store::Question {
                    scheduler: from as u8,
                    app,
                    ticket,
                };
                self.load(question, bucket, key);
            }
            ToNode::Delete { app, bucket, key } => {
                if let (Some(store), Some(gate)) = (&self.store, self.apps.get(&app)) {
                    store.delete(&gate.version, bucket, key);
                }
            }
            ToNode::Removed { app } => self.removed(app),
            ToNode::Punch {
                app,
                slot,
                incarnation,
                extents,
            } => self.tell_memory(app, |version| Task::Punch {
                version,
                slot,
                incarnation,
                extents,
            }),
            ToNode::Sweep {
                app,
                slot,
                live,
                more,
            } => self.tell_memory(app, |version| Task::Sweep {
                version,
                slot,
                live,
                more,
            }),
            ToNode::Trouble { app, trouble } => self.note_trouble(app, from as u8, trouble),
            ToNode::Stats { token, stats } => self.answer(token, stats),
            ToNode::Letter { token, letter } => self.hear_letter(token, &letter),
            ToNode::Handed { app, bytes, more } => self.hear_handed(from, app, bytes, more),
            ToNode::HandedOver { app } => self.handed_over(app),
            ToNode::LettersDone { token, count } => self.letters_done(token, count),
        }
    }

    pub(super) fn tell_memory(&self, app: u16, task: impl FnOnce(Arc<Version>) -> Task) {
        if let Some(gate) = self.apps.get(&app) {
            // The thread leaves after this one.
            let _ = self.memory.send(task(Arc::clone(&gate.version)));
        }
    }

    /// Keeps what is wrong with an app, and says so when that is news: at first, and whenever as
    /// many have failed again.
    fn note_trouble(&mut self, app: u16, scheduler: u8, trouble: Option<Trouble>) {
        let is_there = self.apps.contains_key(&app);
        let sentence = trouble.filter(|_| is_there).map(|trouble| {
            if trouble.failures == FAILURES_TOLD || trouble.failures.is_power_of_two() {
                self.event(app, 0, OutputKind::Notice, trouble.why.clone());
            }
            trouble.why
        });
        self.troubles.set(app, scheduler, sentence);
    }

    pub(super) fn event(&self, app: u16, session: u64, kind: OutputKind, text: String) {
        let name = self
            .apps
            .get(&app)
            .map(|gate| gate.version.name().to_owned());
        self.outlet.put(Output {
            app: name.unwrap_or_default(),
            function: None,
            session,
            invocation: 0,
            slot: None,
            kind,
            text,
            dropped: 0,
        });
    }
}
