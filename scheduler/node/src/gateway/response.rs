//! Responses: read a piece each turn, and given once.

use pheromone_core::event::Part;
use pheromone_scheduler::protocol::ToScheduler;

use super::Gateway;
use super::ending::End;
use crate::reading::Reading;
use crate::request::{FailureCause, Reply};

/// Of responses, at most so much is read per turn as they come, and as much of those that were too
/// long for that: counted as [`Reading`] counts, some 300 us of reading.
pub(super) const READ_PER_TURN_BYTES: u64 = 1 << 20;

/// A response that its scheduler has told of.
#[derive(Default)]
pub(super) struct Incoming {
    pub(super) session: u64,
    pub(super) http_status: u16,
    pub(super) content_type: String,
    /// The invocation that has given it.
    pub(super) by: u64,
    pub(super) reading: Reading,
    /// It stands in the list of those that are read on.
    pub(super) listed: bool,
    /// It cannot be given, and its session has been cancelled for that.
    pub(super) cancelled: bool,
    /// The end of its session, which came while it was read and is told after it.
    pub(super) end: Option<End>,
}

impl Gateway {
    /// Takes the next parts of a response, of which `first` says the rest if they are its first.
    pub(super) fn take_parts(
        &mut self,
        request: u64,
        first: Incoming,
        parts: Vec<Part>,
        more: bool,
    ) {
        let session = first.session;
        let pending = self.pending.get_mut(&request);
        let known = pending.and_then(|it| Some((self.apps.get(&it.app)?, &mut it.response)));
        let Some((gate, response)) = known else {
            // Nobody waits for it any more.
            if !more {
                self.tell_home(session, &ToScheduler::ResponseTaken { request, session });
            }
            return;
        };
        let response = response.get_or_insert_with(|| Box::new(first));
        response.reading.add(parts, gate.version.spec.memory_bytes);
        if !more {
            response.reading.end();
        }
        if !response.listed {
            self.read_left_bytes = self.read(request, self.read_left_bytes);
        }
    }

    /// Reads on in the responses that were too long to be read when they came.
    pub(super) fn read_on(&mut self) -> bool {
        let mut budget_bytes = READ_PER_TURN_BYTES;
        let worked = !self.unread.is_empty();
        while budget_bytes > 0
            && let Some(request) = self.unread.pop_front()
        {
            budget_bytes = self.read(request, budget_bytes);
        }
        worked
    }

    /// Reads on in a response, and gives it if that was its end. What cannot be read fails the
    /// session for its caller. Returns what is left of the budget.
    pub(super) fn read(&mut self, request: u64, mut budget_bytes: u64) -> u64 {
        let pending = self.pending.get_mut(&request);
        let known = pending.and_then(|it| Some((self.apps.get(&it.app)?, it.response.as_mut()?)));
        let Some((gate, response)) = known else {
            return budget_bytes;
        };
        let reading = &mut response.reading;
        reading.read(&gate.version.regions, &mut budget_bytes);
        let is_done = reading.is_done();
        response.listed = reading.has_unread();
        if response.listed {
            self.unread.push_back(request);
        }
        if reading.spoilt().is_some() && !std::mem::replace(&mut response.cancelled, true) {
            let session = response.session;
            self.tell_home(session, &ToScheduler::Cancel { session });
        }
        if is_done {
            self.respond(request);
        }
        budget_bytes
    }

    /// Gives a response that has been read, and tells what has been kept back until then.
    pub(super) fn respond(&mut self, request: u64) {
        let Some(pending) = self.pending.get_mut(&request) else {
            return;
        };
        let Some(response) = pending.response.take().map(|it| *it) else {
            return;
        };
        let session = response.session;
        match response.reading.finish() {
            Ok(body) if pending.durable.is_some() => {
                let response = Incoming {
                    reading: Reading::default(),
                    ..response
                };
                return self.write_response(request, response, body);
            }
            Ok(body) => {
                self.tell_home(session, &ToScheduler::ResponseTaken { request, session });
                let reply = Reply::Response {
                    session,
                    http_status: response.http_status,
                    content_type: response.content_type,
                    body,
                };
                self.give(request, session, reply);
            }
            Err(why) => {
                pending.spoilt = Some(Box::new(FailureCause::Limit { message: why }));
                self.tell_home(session, &ToScheduler::ResponseTaken { request, session });
            }
        }
        if let Some(end) = response.end {
            self.ended(request, end);
        }
    }

    /// Gives a response to whom it is for, and to those who have joined the session.
    pub(super) fn give(&mut self, request: u64, session: u64, response: Reply) {
        let others = self.joined.get(&session).cloned().unwrap_or_default();
        for other in others.iter().filter(|other| **other != request) {
            if let Some(joined) = self.pending.get_mut(other) {
                (joined.reply)(response.clone());
            }
        }
        if let Some(pending) = self.pending.get_mut(&request) {
            pending.answered = true;
            (pending.reply)(response);
        }
    }
}
