//! Requests from outside: calls and puts, judged and limited at the edge, where the caller learns
//! it. What has been let in is never refused inside.

use pheromone_shm::message::{Extent, HeadersRef, InputKey, NO_BUCKET, Target};

use crate::event::{Destination, Ingress, Refusal, Request, Sink};
use crate::limits::{OBJECT_CHARGE_BYTES, SESSION_CHARGE_BYTES};
use crate::local::Local;
use crate::local::app::App;
use crate::local::invocation::Firing;
use crate::local::message::{Delivery, Publication, judge_outside};
use crate::local::name::Author;
use crate::local::object::{NewObject, Object, Payload};
use crate::local::respond::Form;
use crate::local::session::Session;
use crate::local::write::{Sending, Waiter};
use crate::slab::Ref;
use crate::spec::Entry;

/// The key of a request that goes to a function.
pub(super) const REQUEST_KEY: &[u8] = b"request";

/// Where a request goes, found right.
enum Door<'a> {
    Function(u16),
    Bucket {
        bucket: u16,
        key: Option<&'a [u8]>,
        group: &'a [u8],
    },
    /// A retained object is the response.
    Retained(Ref<Object>),
}

impl Local {
    /// Takes a request, or refuses it.
    pub(super) fn request<S: Sink>(&mut self, request: &Request<'_>, sink: &mut S) {
        match self.admit(request) {
            Ok((door, session)) => self.let_in(request, &door, session, sink),
            Err(refusal) => {
                if refusal == Refusal::Memory {
                    self.refused_for_memory(request.app, cost_bytes(request));
                }
                if let Some(app) = self.apps.get_mut(request.app) {
                    app.stats.refused_total += 1;
                }
                sink.refused(request.id, refusal);
            }
        }
    }

    /// Judges a request: where it goes, and the session it joins.
    fn admit<'a>(
        &self,
        request: &Request<'a>,
    ) -> Result<(Door<'a>, Option<Ref<Session>>), Refusal> {
        let app = self.apps.get(request.app);
        let app = app.filter(|app| !app.removing).ok_or(Refusal::NoApp)?;
        let door = match request.destination {
            Destination::Retained { bucket, key } => {
                let found = self.tables.find_retained(app, bucket, key);
                Door::Retained(found.ok_or(Refusal::NoObject)?)
            }
            other => door(app, other)?,
        };
        if !is_payload(app, request.body) || request.headers.is_some_and(|h| !is_block(app, h)) {
            return Err(Refusal::Malformed);
        }
        let is_durable_call = matches!(door, Door::Function(_)) && request.session.is_none();
        if let Some(id) = request.durable
            && !(is_durable_call && self.tables.may_number(id))
        {
            return Err(Refusal::Malformed);
        }
        let joined = match request.session {
            None => None,
            // A session has one caller, who opened it.
            Some(_) if request.has_caller => return Err(Refusal::Malformed),
            Some(id) => {
                let found = self.tables.session(id).ok_or(Refusal::SessionEnded)?;
                if self.tables.sessions[found].app != request.app {
                    return Err(Refusal::SessionEnded);
                }
                Some(found)
            }
        };
        let limits = &app.share.limits;
        if joined.is_none()
            && (app.stats.sessions_open >= u64::from(limits.sessions)
                || !self.has_room_for_session())
        {
            return Err(Refusal::Sessions);
        }
        if matches!(door, Door::Function(_))
            && app.stats.calls_waiting >= u64::from(limits.calls_waiting)
        {
            return Err(Refusal::CallsWaiting);
        }
        if app.is_short_of_objects() || !app.ledger.admits(cost_bytes(request)) {
            return Err(Refusal::Memory);
        }
        if let (Some(session), Door::Bucket { bucket, key, .. }) = (joined, &door) {
            let session = self.tables.sessions[session].id;
            let is_taken = key.is_some_and(|key| self.tables.names.has(session, *bucket, key));
            if is_taken && !app.plan.buckets[usize::from(*bucket)].is_durable {
                return Err(Refusal::Exists);
            }
        }
        Ok((door, joined))
    }

    fn let_in<S: Sink>(
        &mut self,
        request: &Request<'_>,
        door: &Door<'_>,
        joined: Option<Ref<Session>>,
        sink: &mut S,
    ) {
        let session = match joined {
            Some(session) => session,
            None => {
                let timeout_ns = self.apps[request.app].shortened_timeout_ns(request.timeout_ns);
                let (app, id) = (request.app, request.id);
                let opened =
                    self.open_session(app, id, request.has_caller, timeout_ns, request.durable);
                if request.durable.is_some() {
                    self.tables.sessions[opened].durable = Some(Box::default());
                }
                opened
            }
        };
        self.bring_headers(request, session, joined.is_some(), sink);
        let is_written_first = match door {
            Door::Function(_) | Door::Retained(_) => false,
            Door::Bucket { bucket, .. } => {
                self.apps[request.app].plan.buckets[usize::from(*bucket)].is_durable
            }
        };
        self.bring_body(request, door, session, joined.is_some(), sink);
        if !is_written_first {
            sink.accepted(request.id, self.tables.sessions[session].id);
        }
        if let Door::Retained(object) = *door {
            self.tables.sessions[session].answered_by = u64::MAX;
            let form = Form {
                http_status: 200,
                content_type: b"",
            };
            self.tables.give_response(session, &[object], form, sink);
        }
        self.settle(session, sink);
    }

    fn bring_body<S: Sink>(
        &mut self,
        request: &Request<'_>,
        door: &Door<'_>,
        session: Ref<Session>,
        joins: bool,
        sink: &mut S,
    ) {
        let app = &self.apps[request.app];
        let keeps_request = app.spec.keep_request && !joins;
        let payload = Payload {
            region: app.spec.ingress_slot(),
            extent: request.body.extent,
            size_bytes: request.body.size_bytes,
            root: Ref::NONE,
        };
        match *door {
            Door::Retained(_) => {
                let app = &mut self.apps[request.app];
                let slot = app.spec.ingress_slot();
                self.tables
                    .release_extent(app, slot, request.body.extent, sink);
            }
            Door::Function(function) => {
                let app = &mut self.apps[request.app];
                let new = NewObject {
                    session: self.tables.sessions[session].id,
                    payload,
                    bucket: NO_BUCKET,
                    key: InputKey::Named(REQUEST_KEY),
                    group: b"",
                    labelled: (0, 0),
                };
                let body = self.tables.create(app, &new);
                self.keep_request(body, session, keeps_request);
                let firing = Firing {
                    is_call: true,
                    ..Firing::new(session, function)
                };
                let app = &mut self.apps[request.app];
                self.tables.fire_one(app, firing, body);
                self.dispatch_ready(request.app, sink);
                let app = &mut self.apps[request.app];
                self.tables.drop_hold(app, body, sink);
            }
            Door::Bucket { bucket, key, group } => {
                // A put is an invocation of the outside: its automatic key has an id of its own.
                self.tables.last_invocation += 1;
                let key = match key {
                    Some(named) => InputKey::Named(named),
                    None => InputKey::Auto {
                        invocation: self.tables.last_invocation,
                        ordinal: 0,
                    },
                };
                let publication = Publication {
                    object: NewObject {
                        session: self.tables.sessions[session].id,
                        payload,
                        bucket,
                        key,
                        group,
                        labelled: (0, 0),
                    },
                    to: Delivery {
                        session,
                        target: Target::Bucket(bucket),
                        ..Delivery::default()
                    },
                    author: Author::default(),
                    is_durable: app.plan.buckets[usize::from(bucket)].is_durable,
                };
                let app = &mut self.apps[request.app];
                let body = self.tables.create(app, &publication.object);
                // First, since what it fires may start at once and look for the request.
                self.keep_request(body, session, keeps_request);
                if publication.is_durable {
                    let sending = Sending {
                        waiter: Waiter::Request(request.id),
                        ..Sending::default()
                    };
                    return self.write(request.app, body, &publication, sending, sink);
                }
                self.bring_created(request.app, body, &publication, sink);
                let app = &mut self.apps[request.app];
                self.tables.drop_hold(app, body, sink);
            }
        }
    }

    fn keep_request(&mut self, body: Ref<Object>, session: Ref<Session>, keeps: bool) {
        if keeps {
            self.tables.objects.hold(body);
            self.tables.sessions[session].request_object = body;
        }
    }

    /// A session keeps the header block of the call that opened it.
    fn bring_headers<S: Sink>(
        &mut self,
        request: &Request<'_>,
        session: Ref<Session>,
        joins: bool,
        sink: &mut S,
    ) {
        let Some((block, extent)) = request.headers else {
            return;
        };
        let app = &mut self.apps[request.app];
        let new = NewObject {
            session: self.tables.sessions[session].id,
            payload: Payload {
                region: app.spec.ingress_slot(),
                extent,
                size_bytes: u64::from(block.size_bytes),
                root: Ref::NONE,
            },
            bucket: NO_BUCKET,
            key: InputKey::Named(b"headers"),
            group: b"",
            labelled: (0, 0),
        };
        let headers = self.tables.create(app, &new);
        if joins {
            self.tables.drop_hold(app, headers, sink);
        } else {
            let session = &mut self.tables.sessions[session];
            session.headers = Some(block);
            session.headers_object = headers;
        }
    }
}

fn door<'a>(app: &App, destination: Destination<'a>) -> Result<Door<'a>, Refusal> {
    let door = match destination {
        Destination::Entry => match app.spec.entry.ok_or(Refusal::NoEntry)? {
            Entry::Function(function) => Door::Function(function),
            Entry::Bucket(bucket) => Door::Bucket {
                bucket,
                key: None,
                group: b"",
            },
        },
        Destination::Function(function) => Door::Function(function),
        Destination::Bucket { bucket, key, group } => Door::Bucket { bucket, key, group },
        Destination::Retained { .. } => return Err(Refusal::Malformed),
    };
    let exists = match door {
        Door::Function(function) => usize::from(function) < app.plan.functions.len(),
        Door::Bucket { bucket, key, group } => {
            usize::from(bucket) < app.plan.buckets.len() && judge_outside(key, group).is_ok()
        }
        Door::Retained(_) => true,
    };
    exists.then_some(door).ok_or(Refusal::Malformed)
}

/// Whether a body lies in the ingress region and fits its extent.
fn is_payload(app: &App, body: Ingress) -> bool {
    body.extent.end_units() <= app.span_units && body.size_bytes < body.extent.len_bytes()
}

fn is_block(app: &App, (block, extent): (HeadersRef, Extent)) -> bool {
    extent.end_units() <= app.span_units && u64::from(block.size_bytes) <= extent.len_bytes()
}

/// What a request adds to the ledger.
fn cost_bytes(request: &Request<'_>) -> u64 {
    let headers = request
        .headers
        .map_or(0, |(_, extent)| extent.len_bytes() + OBJECT_CHARGE_BYTES);
    request.body.extent.len_bytes() + OBJECT_CHARGE_BYTES + SESSION_CHARGE_BYTES + headers
}
