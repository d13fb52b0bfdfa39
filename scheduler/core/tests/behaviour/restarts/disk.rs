//! A naive journal, and the node around the core that writes it: what a restart finds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pheromone_core::event::{
    Event, Placed, RequestId, RestoredCall, RestoredObject, RestoredSession, SessionId, Written,
};
use pheromone_core::history::{Future, PastFiring, PastObject};
use pheromone_core::identity;
use pheromone_core::spec::AppSpec;

use crate::common::{APP, Success, ToRecord, ToWrite, World};

/// Something that is on its way to disk.
#[derive(Clone, Debug)]
pub enum Asked {
    Write(ToWrite),
    Firing(ToRecord),
    Success(Success),
    Response(SessionId, u64),
    End(SessionId),
}

/// A durable object on disk.
#[derive(Clone, Debug)]
pub struct Object {
    pub sequence: u64,
    pub author: u64,
    pub ordinal: Option<u32>,
    pub bucket: u16,
    pub key: String,
    pub group: Vec<u8>,
}

/// What is on disk of a session.
#[derive(Clone, Debug, Default)]
pub struct Session {
    pub function: u16,
    pub objects: Vec<Object>,
    pub firings: Vec<PastFiring>,
    pub successes: BTreeSet<u64>,
    /// Who has answered.
    pub response: Option<u64>,
    pub has_ended: bool,
}

/// What is on disk.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub sessions: BTreeMap<SessionId, Session>,
    last_sequence: u64,
    /// Firings that were asked for twice: one of them would have run twice.
    pub firings_repeated: u64,
}

/// What has become of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    New(u64),
    Repeated(u64),
}

impl Disk {
    pub fn request(&mut self, session: SessionId, function: u16) {
        let of = self.sessions.entry(session).or_default();
        of.function = function;
    }

    /// Takes an entry in.
    pub fn take(&mut self, spec: &AppSpec, asked: &Asked) -> Receipt {
        self.last_sequence += 1;
        let sequence = self.last_sequence;
        match asked {
            Asked::Write(write) => self.write(sequence, write),
            Asked::Firing(firing) => {
                let before: usize = spec.buckets[..usize::from(firing.bucket)]
                    .iter()
                    .map(|bucket| bucket.triggers.len())
                    .sum();
                let of = self.open(firing.session);
                if of
                    .firings
                    .iter()
                    .any(|it| it.invocation == firing.invocation)
                {
                    self.firings_repeated += 1;
                    return Receipt::Repeated(sequence);
                }
                of.firings.push(PastFiring {
                    invocation: firing.invocation,
                    trigger: before as u16 + firing.trigger,
                    function: firing.function,
                    inputs: firing.inputs.clone(),
                    window: firing.window,
                    has_succeeded: false,
                });
                Receipt::New(sequence)
            }
            Asked::Success(success) => {
                let of = self.open(success.session);
                of.successes.insert(success.invocation);
                Receipt::New(sequence)
            }
            Asked::Response(session, by) => {
                let of = self.open(*session);
                assert_eq!(
                    of.response, None,
                    "a session answers once, over all restarts"
                );
                of.response = Some(*by);
                Receipt::New(sequence)
            }
            Asked::End(session) => {
                self.open(*session).has_ended = true;
                Receipt::New(sequence)
            }
        }
    }

    fn open(&mut self, session: SessionId) -> &mut Session {
        let of = self
            .sessions
            .get_mut(&session)
            .expect("its request is there");
        assert!(!of.has_ended, "nothing is written after a session's end");
        of
    }

    fn write(&mut self, sequence: u64, write: &ToWrite) -> Receipt {
        let key = write.seen.key_text();
        let bucket = write.seen.bucket;
        let of = self.open(SessionId(write.seen.session));
        let is_same = |object: &&Object| {
            let is_named = (object.bucket, &object.key) == (bucket, &key);
            is_named && (object.author, object.ordinal) == (write.author, write.ordinal)
        };
        if let Some(found) = of.objects.iter().find(is_same) {
            return Receipt::Repeated(found.sequence);
        }
        of.objects.push(Object {
            sequence,
            author: write.author,
            ordinal: write.ordinal,
            bucket,
            key,
            group: write.seen.group.clone(),
        });
        Receipt::New(sequence)
    }

    /// Sessions that go on after a restart.
    pub fn unfinished(&self) -> Vec<SessionId> {
        let open = self.sessions.iter().filter(|(_, of)| !of.has_ended);
        open.map(|(id, _)| *id).collect()
    }

    /// A session as the core is told of it.
    pub fn restored(&self, id: SessionId, world: &mut World) -> RestoredSession {
        let of = &self.sessions[&id];
        let spec = world.sink.apps[&APP].clone();
        let objects: Vec<PastObject> = of
            .objects
            .iter()
            .map(|object| PastObject {
                sequence: object.sequence,
                bucket: object.bucket,
            })
            .collect();
        let firings: Vec<PastFiring> = of
            .firings
            .iter()
            .map(|firing| PastFiring {
                has_succeeded: of.successes.contains(&firing.invocation),
                ..firing.clone()
            })
            .collect();
        let future = Future::new(&spec, &objects, &firings).expect("all inputs are there");
        let mut place = |size_bytes| {
            let body = world.ingress(APP, size_bytes);
            Placed {
                offset_units: body.extent.offset_units,
                len_units: body.extent.len_units,
                size_bytes,
            }
        };
        let request = identity::request(id.0, &spec.functions[usize::from(of.function)].name);
        let runs_again = !of.successes.contains(&request);
        let call = runs_again.then(|| RestoredCall {
            function: of.function,
            body: place(10),
            runs_again,
        });
        let objects = future.objects.iter().zip(future.offers);
        let objects = objects.map(|(&at, offers)| {
            let object = &of.objects[at];
            RestoredObject {
                sequence: object.sequence,
                bucket: object.bucket,
                key: object.key.clone().into_bytes(),
                group: object.group.clone(),
                author: object.author,
                body: place(8),
                offers,
            }
        });
        RestoredSession {
            app: APP,
            request: RequestId(0),
            session: id,
            has_caller: true,
            answered_by: of.response.unwrap_or(0),
            timeout_ns: None,
            headers: None,
            call,
            objects: objects.collect(),
            firings: future.firings,
            over: future.over,
        }
    }
}

/// What the node has been asked to write, in order, and has not.
#[derive(Default)]
pub struct Waiting {
    pub entries: VecDeque<Asked>,
    responded: BTreeSet<SessionId>,
    ended: BTreeSet<SessionId>,
}

impl Waiting {
    /// Takes what the core has asked for since.
    pub fn collect(&mut self, world: &mut World) {
        let sink = &mut world.sink;
        let mut asked: Vec<(u64, Asked)> = Vec::new();
        let writes = sink.writes.drain(..);
        asked.extend(writes.map(|write| (write.asked_before, Asked::Write(write))));
        let firings = sink.firings.drain(..);
        asked.extend(firings.map(|firing| (firing.asked_before, Asked::Firing(firing))));
        let successes = sink.successes.drain(..);
        asked.extend(successes.map(|success| (success.asked_before, Asked::Success(success))));
        asked.sort_by_key(|(at, _)| *at);
        self.entries
            .extend(asked.into_iter().map(|(_, asked)| asked));
        for (&session, response) in &sink.responses {
            if self.responded.insert(session) {
                self.entries
                    .push_back(Asked::Response(session, response.by));
            }
        }
        for &session in sink.ended.keys() {
            if self.ended.insert(session) {
                self.entries.push_back(Asked::End(session));
            }
        }
    }
}

/// Tells the core that an entry is on disk.
pub fn acknowledge(world: &mut World, asked: Asked, receipt: Receipt) {
    let (sequence, is_repeated) = match receipt {
        Receipt::New(sequence) => (sequence, false),
        Receipt::Repeated(sequence) => (sequence, true),
    };
    match asked {
        Asked::Write(write) => world.event(Event::Written {
            app: write.app,
            ticket: write.ticket,
            outcome: Written::Done {
                sequence,
                is_repeated,
            },
        }),
        Asked::Firing(firing) => world.event(Event::Recorded {
            app: firing.app,
            ticket: firing.ticket,
            outcome: Ok(()),
        }),
        Asked::Response(session, _) => {
            let request = world.sink.responses[&session].request;
            world.sink.unread.remove(&session);
            world.event(Event::ResponseTaken { request, session });
        }
        Asked::Success(_) | Asked::End(_) => {}
    }
}
