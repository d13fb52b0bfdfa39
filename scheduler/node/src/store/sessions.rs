//! What the journal holds of durable sessions: calls, firings, successes, answers and ends.
//!
//! A call is there before anybody hears that it was accepted, a firing before its function runs, a
//! response before its caller has it. Once a session has ended its entries are nobody's, and what
//! it has answered stays as an object of its own, for as long as the app keeps results.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use pheromone_journal::{
    Entry, Extent, Firing, Name, Object, Payload, Request, Response, Success, Unfinished,
    WriteError,
};
use pheromone_scheduler::protocol::FiringMessage;
use serde::{Deserialize, Serialize};

use super::{Question, Store, now_ns};
use crate::app::Version;
use crate::gateway::{Command, GatewayHandle};

/// Bits of a session's id below its home.
const HOME_SHIFT: u32 = 56;
/// App and bucket of answers, which no app and no bucket can be called.
const ANSWERS: &str = "";

/// What comes back of a call beside its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallDetails {
    /// Headers that functions can look up.
    pub headers: Vec<(String, String)>,
    /// Its caller would be answered.
    pub has_caller: bool,
}

/// What comes back of a response beside its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponseDetails {
    /// The invocation that has given it.
    pub by: u64,
    /// 200 to 599.
    pub http_status: u16,
    /// Empty for the default.
    pub content_type: String,
}

/// What a firing needs to be repeated beside its inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FiringDetails {
    /// Start and end, ns.
    pub window: Option<(u64, u64)>,
}

/// What a session has answered, to be fetched later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    /// HTTP status.
    pub http_status: u16,
    /// Empty for the default.
    pub content_type: String,
    /// The body.
    pub body: Vec<u8>,
}

/// What is known of a session's answer.
#[derive(Debug)]
pub enum Fetched {
    /// It is there.
    Answer(KeptAnswer),
    /// The session goes on, or will once its app is deployed.
    Open,
    /// It is on disk, which cannot give it: why.
    Unreadable(String),
}

/// What a session of the time before that has not ended has answered.
#[derive(Debug)]
pub enum Given {
    /// Nothing yet.
    Nothing,
    /// In the time before.
    Before(ResponseDetails, Extent),
    /// In this life of the node.
    Answer(KeptAnswer),
}

impl Given {
    /// Of a session that is about to go on.
    pub fn of(unfinished: &Unfinished) -> Self {
        let mut entries = unfinished.entries.iter();
        let found = entries.find_map(|recorded| match &recorded.entry {
            Entry::Response(response) => {
                let details = postcard::from_bytes(&response.headers).ok()?;
                Some(Self::Before(details, recorded.payload.clone()))
            }
            _ => None,
        });
        found.unwrap_or(Self::Nothing)
    }

    fn fetch(&self) -> Fetched {
        match self {
            Self::Nothing => Fetched::Open,
            Self::Answer(answer) => Fetched::Answer(answer.clone()),
            Self::Before(details, body) => match details.answer(body) {
                Ok(answer) => Fetched::Answer(answer),
                Err(why) => Fetched::Unreadable(why),
            },
        }
    }
}

impl ResponseDetails {
    /// With its body, which is on disk.
    ///
    /// # Errors
    /// Why the disk cannot give it.
    pub fn answer(&self, body: &Extent) -> Result<KeptAnswer, String> {
        Ok(KeptAnswer {
            http_status: self.http_status,
            content_type: self.content_type.clone(),
            body: body.to_vec().map_err(|error| error.to_string())?,
        })
    }
}

/// A durable call on its way to disk.
#[derive(Debug)]
pub struct Call<'a> {
    /// The session that it opens.
    pub session: u64,
    /// Its app.
    pub version: &'a Version,
    /// Its function.
    pub function: u16,
    /// What comes with its body.
    pub details: CallDetails,
    /// When its session times out, of the wall clock.
    pub deadline_ns: Option<u64>,
    /// The body.
    pub body: Vec<u8>,
}

impl Store {
    /// The id of a durable session that is to be opened at this home: an odd one. Schedulers give
    /// the even ones.
    pub fn new_session(&self, home: u8) -> u64 {
        let count = self.sessions_opened.fetch_add(1, Ordering::Relaxed);
        u64::from(home) << HOME_SHIFT | (self.first_id + 2 * count + 1)
    }

    /// Writes a call; the gateway hears of it by [`Command::CallWritten`].
    pub fn write_call(&self, request: u64, call: Call<'_>, gateway: &GatewayHandle) {
        let details = encode(&call.details);
        let entry = Entry::Request(Request {
            session: call.session.into(),
            app: call.version.name().to_owned(),
            version: call.version.number.to_string(),
            function: call.version.function_names[usize::from(call.function)].clone(),
            headers: details,
            deadline_ns: call.deadline_ns,
            time_ns: now_ns(),
        });
        let (gateway, session) = (gateway.clone(), call.session);
        let done = move |result: Result<_, WriteError>| {
            gateway.leave(Command::CallWritten {
                request,
                session,
                result: result.map(|_| ()),
            });
        };
        let payload = Payload::Bytes(call.body);
        self.journal.submit(entry, payload, Box::new(done));
    }

    /// Writes a firing; the gateway hears of it by [`Command::Recorded`].
    pub fn write_firing(
        &self,
        question: Question,
        version: &Version,
        firing: FiringMessage,
        gateway: &GatewayHandle,
    ) {
        let bucket = &version.spec.buckets[usize::from(firing.bucket)];
        let entry = Entry::Firing(Firing {
            session: firing.session.into(),
            invocation: firing.invocation,
            app: version.name().to_owned(),
            bucket: bucket.name.clone(),
            trigger: bucket.triggers[usize::from(firing.trigger)].name.clone(),
            function: version.function_names[usize::from(firing.function)].clone(),
            inputs: firing.inputs,
            details: encode(&FiringDetails {
                window: firing.window,
            }),
        });
        let gateway = gateway.clone();
        let done = move |result: Result<_, WriteError>| {
            gateway.leave(Command::Recorded {
                question,
                result: result.map(|_| ()),
            });
        };
        self.journal.submit(entry, Payload::Empty, Box::new(done));
    }

    /// Writes a success. If that fails the invocation may run again.
    pub fn write_success(&self, session: u64, invocation: u64) {
        let entry = Entry::Success(Success {
            session: session.into(),
            invocation,
        });
        self.journal.submit(entry, Payload::Empty, Box::new(|_| {}));
    }

    /// Writes a response; the gateway hears of it by [`Command::ResponseWritten`].
    pub fn write_response(
        &self,
        request: u64,
        session: u64,
        (details, body): (&ResponseDetails, Vec<u8>),
        gateway: &GatewayHandle,
    ) {
        let entry = Entry::Response(Response {
            session: session.into(),
            headers: encode(details),
        });
        let gateway = gateway.clone();
        let done = move |result: Result<_, WriteError>| {
            gateway.leave(Command::ResponseWritten {
                request,
                result: result.map(|_| ()),
            });
        };
        let payload = Payload::Bytes(body);
        self.journal.submit(entry, payload, Box::new(done));
    }

    /// Writes a session's end, and before it what it has answered, if that is kept for so long; the
    /// gateway hears of it by [`Command::EndWritten`].
    pub fn write_end(
        &self,
        (request, session): (u64, u64),
        reason: &str,
        (answer, keep_ns): (&KeptAnswer, u64),
        gateway: &GatewayHandle,
    ) {
        if keep_ns > 0 {
            let entry = Entry::Object(Object {
                name: answer_name(session),
                group: Vec::new(),
                session: session.into(),
                invocation: 0,
                ordinal: 0,
                retain_until_ns: Some(now_ns().saturating_add(keep_ns)),
                replace: false,
            });
            let payload = Payload::Bytes(answer.encode());
            self.journal.submit(entry, payload, Box::new(|_| {}));
        }
        let (gateway, open) = (gateway.clone(), Arc::clone(&self.open));
        let done = move |result: Result<_, WriteError>| {
            let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
            open.remove(&session);
            drop(open);
            gateway.leave(Command::EndWritten {
                request,
                result: result.map(|_| ()),
            });
        };
        self.submit_end(session.into(), reason, Box::new(done));
    }

    /// What a session has answered, as far as it is on disk.
    pub fn answer_of(&self, session: u64) -> Option<Fetched> {
        let name = answer_name(session);
        if let Some(stored) = self.find_by_name(&name.app, &name.bucket, &name.key) {
            let read = stored.payload.to_vec().map_err(|error| error.to_string());
            let answer = read.and_then(|bytes| {
                KeptAnswer::decode(&bytes).ok_or_else(|| "it is no answer".to_owned())
            });
            return Some(match answer {
                Ok(answer) => Fetched::Answer(answer),
                Err(why) => Fetched::Unreadable(why),
            });
        }
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(&session).map(Given::fetch)
    }

    /// A durable session has answered. Of one that began in this life of the node whoever waits for
    /// it hears otherwise.
    pub fn answered(&self, session: u64, answer: &KeptAnswer) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(given) = open.get_mut(&session) {
            *given = Given::Answer(answer.clone());
        }
    }
}

impl KeptAnswer {
    fn encode(&self) -> Vec<u8> {
        let head = (self.http_status, &self.content_type);
        let mut bytes = encode(&head);
        bytes.extend_from_slice(&self.body);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let ((http_status, content_type), body) = postcard::take_from_bytes(bytes).ok()?;
        Some(Self {
            http_status,
            content_type,
            body: body.to_vec(),
        })
    }
}

fn answer_name(session: u64) -> Name {
    Name::new(ANSWERS, ANSWERS, session.to_string().as_bytes())
}

fn encode(details: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(details).expect("text and numbers always encode")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_comes_back_as_it_was() {
        let answer = KeptAnswer {
            http_status: 201,
            content_type: "text/plain".into(),
            body: b"all right".to_vec(),
        };
        assert_eq!(KeptAnswer::decode(&answer.encode()), Some(answer));
        assert_eq!(KeptAnswer::decode(b""), None);
    }
}
