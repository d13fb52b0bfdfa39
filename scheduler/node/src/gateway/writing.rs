//! Objects that are written to disk and read from there, for schedulers that ask.

use pheromone_core::event::{Failure, NotFound};
use pheromone_journal::{Receipt, WriteError};
use pheromone_scheduler::protocol::{FoundMessage, ToScheduler, WriteMessage, WrittenMessage};

use super::Gateway;
use crate::output::OutputKind;
use crate::{failure, store};

impl Gateway {
    /// Writes what a function is to read of a failure, for the scheduler that asks. Where the app
    /// is gone, nobody waits for it.
    pub(super) fn write_failure(&mut self, asker: u8, app: u16, ticket: u64, failure: Failure) {
        let payload = failure::encode(&self.report(app, failure));
        let Some(gate) = self.apps.get_mut(&app) else {
            return;
        };
        match gate.place(&payload) {
            Ok(extent) => {
                let written = ToScheduler::FailureWritten {
                    app,
                    ticket,
                    offset_units: extent.offset_units,
                    len_units: extent.len_units,
                    size_bytes: payload.len() as u64,
                };
                self.tell(asker, &written);
            }
            Err(refused) => {
                let reason = &refused.to_string();
                let unwritten = ToScheduler::FailureNotWritten {
                    app,
                    ticket,
                    reason,
                };
                self.tell(asker, &unwritten);
            }
        }
    }

    /// Has an object written to disk for the scheduler that asks.
    pub(super) fn write(&mut self, asker: u8, message: &WriteMessage<'_>) {
        let question = store::Question {
            scheduler: asker,
            app: message.app,
            ticket: message.ticket,
        };
        match (&self.store, self.apps.get(&message.app)) {
            (Some(store), Some(gate)) => {
                if message.ordinal.is_none() {
                    self.writers.insert(message.session);
                }
                store.write(question, &gate.version, message, &self.handle);
            }
            _ => self.tell_written(question, WrittenMessage::NothingKept),
        }
    }

    /// A session has ended. What it has written is behind its end in the journal's order.
    pub(super) fn end_writer(&mut self, request: u64, session: u64) {
        let pending = self.pending.get(&request);
        let is_durable = pending.is_some_and(|pending| pending.durable.is_some());
        if self.writers.remove(&session)
            && !is_durable
            && let Some(store) = &self.store
        {
            store.end(session, "");
        }
    }

    pub(super) fn written(
        &mut self,
        question: store::Question,
        result: Result<Receipt, WriteError>,
    ) {
        match result {
            Ok(receipt) => {
                let written = WrittenMessage::Done {
                    sequence: receipt.sequence().unwrap_or(0),
                    is_repeated: matches!(receipt, Receipt::Repeated(_)),
                };
                self.tell_written(question, written);
            }
            Err(WriteError::Exists { .. }) => self.tell_written(question, WrittenMessage::Exists),
            Err(error) => {
                let why = error.to_string();
                self.event(question.app, 0, OutputKind::Notice, why.clone());
                self.tell_written(question, WrittenMessage::Failed(&why));
            }
        }
    }

    fn tell_written(&mut self, question: store::Question, outcome: WrittenMessage<'_>) {
        let store::Question {
            scheduler,
            app,
            ticket,
        } = question;
        let written = ToScheduler::Written {
            app,
            ticket,
            outcome,
        };
        self.tell(scheduler, &written);
    }

    /// Looks for a durable object, and has it read into memory of the app's.
    pub(super) fn load(&mut self, question: store::Question, bucket: u16, key: &[u8]) {
        let Some(gate) = self.apps.get_mut(&question.app) else {
            return;
        };
        let store = self.store.as_ref();
        let Some(stored) = store.and_then(|store| store.find(&gate.version, bucket, key)) else {
            return self.tell_loaded(question, Err(NotFound::Missing));
        };
        let region = gate.version.spec.ingress_slot();
        let place = gate.reserve(stored.payload.size_bytes());
        let file = gate.version.regions.shared(region);
        match (store, place, file) {
            (Some(store), Ok(extent), Some(file)) => store.read(question, stored, file, extent),
            _ => self.tell_loaded(question, Err(NotFound::NoMemory)),
        }
    }

    pub(super) fn loaded(&mut self, question: store::Question, found: &store::Found) {
        let Some(gate) = self.apps.get_mut(&question.app) else {
            return;
        };
        if let Some(why) = &found.failed {
            gate.give_back(found.extent);
            self.event(question.app, 0, OutputKind::Notice, why.clone());
            return self.tell_loaded(question, Err(NotFound::Unreadable));
        }
        let message = FoundMessage {
            offset_units: found.extent.offset_units,
            len_units: found.extent.len_units,
            size_bytes: found.size_bytes,
            session: found.session,
            group: &found.group,
        };
        self.tell_loaded(question, Ok(message));
    }

    fn tell_loaded(
        &mut self,
        question: store::Question,
        found: Result<FoundMessage<'_>, NotFound>,
    ) {
        let store::Question {
            scheduler,
            app,
            ticket,
        } = question;
        self.tell(scheduler, &ToScheduler::Loaded { app, ticket, found });
    }
}
