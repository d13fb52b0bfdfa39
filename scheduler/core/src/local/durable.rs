//! Durable sessions: what of them is on disk before it goes on, and how they go on after a restart.
//!
//! A trigger of a durable bucket that fires in such a session is recorded before its function is
//! dispatched. What the function then does between two durable points is lost in a crash and done
//! again from there, under the same ids (`identity.rs`), so that what it had sent durable is
//! recognized.
//!
//! *Roots* are the invocations that can run again by themselves: the request's, and each recorded
//! firing's. A root's success is recorded when nothing of what came of it is left in memory alone:
//! when it is finished and what it has sent directly, and what that has sent in turn, and all of
//! their durable objects are on disk and their response is. Then nothing that a crash could take
//! needs it. What goes into a bucket that is not durable, or steers a trigger, stays until the
//! session ends and may be asked for until then; so a root that has led to such *leaves traces*,
//! and is not recorded: in a crash it runs again, whatever has become of it. The session's own end
//! is what ends that.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use pheromone_shm::message::{HeadersRef, InputKey, NO_BUCKET, NO_TRIGGER, Target};
use smallvec::SmallVec;

use crate::event::{
    Cause, Failure, FiredInvocation, Placed, Refusal, RestoredCall, RestoredObject,
    RestoredSession, SessionId, Sink, Ticket,
};
use crate::gather::outcome::Window;
use crate::gather::{Gatherer, Rule};
use crate::identity::{self, Identity};
use crate::local::afterwards::Afterwards;
use crate::local::app::App;
use crate::local::invocation::{Firing, Invocation, Place};
use crate::local::message::Publication;
use crate::local::name::{Author, AutoText, auto_key, key_text};
use crate::local::object::{NewObject, Object, Payload};
use crate::local::request::REQUEST_KEY;
use crate::local::session::{End, Session};
use crate::local::{Local, Tables};
use crate::slab::Ref;

/// What makes a session durable.
#[derive(Default)]
pub(super) struct Durable {
    /// It goes on after a restart: what it does may have been done before.
    pub(super) is_restored: bool,
    /// How often a trigger that may fire with the same inputs again has done so, by the id that
    /// the first such firing has.
    occurrences: HashMap<u64, u32, FixedState>,
}

/// An invocation that a crash makes run again, and what came of it.
#[derive(Default)]
pub(super) struct Root {
    session: SessionId,
    invocation: u64,
    /// What is not finished: attempts of it and of what it has caused directly, objects of these
    /// that are on their way to disk, and their response.
    unfinished: u32,
    /// Something that came of it is in memory alone until its session ends.
    leaves_traces: bool,
}

impl Tables {
    /// As [`Tables::fire`], in a durable session.
    #[cold]
    pub(super) fn fire_durably(
        &mut self,
        app: &mut App,
        mut firing: Firing,
        inputs: &[Ref<Object>],
    ) {
        let is_recorded = self.is_recorded(app, &firing, inputs);
        let id = self.derive_id(app, &firing, inputs);
        if is_recorded || firing.is_call {
            firing.root = self.new_root(firing.session, id);
        }
        let fired = self.enter(app, firing, id, inputs.iter().copied());
        let plan = &app.plan.functions[usize::from(firing.function)];
        self.remember(plan, fired);
        if is_recorded {
            self.invocations[fired].place = Place::Recording;
            let ticket = Ticket::new(fired.slot(), self.invocations.generation(fired));
            self.afterwards.push_back(Afterwards::Record(ticket));
        } else {
            self.wait_for_turn(app, fired);
        }
    }

    /// Whether a firing is on disk before its function is dispatched.
    fn is_recorded(&self, app: &App, firing: &Firing, inputs: &[Ref<Object>]) -> bool {
        if firing.trigger == NO_TRIGGER {
            return false;
        }
        let bucket = app.plan.triggers[usize::from(firing.trigger)].bucket;
        let is_on_disk = |&input: &Ref<Object>| self.objects[input].sequence > 0;
        app.plan.buckets[usize::from(bucket)].is_durable && inputs.iter().all(is_on_disk)
    }

    fn new_root(&mut self, session: Ref<Session>, invocation: u64) -> Ref<Root> {
        let session = self.sessions[session].id;
        let (made, root) = self.roots.take();
        *root = Root {
            session,
            invocation,
            ..Root::default()
        };
        made
    }

    /// Something more that a root waits for.
    #[inline]
    pub(super) fn root_begins(&mut self, root: Ref<Root>) {
        if root.is_some() {
            self.roots[root].unfinished += 1;
        }
    }

    /// Something of a root is finished; with the last of it its success is recorded.
    #[cold]
    pub(super) fn root_ends(&mut self, of: Ref<Root>) {
        let root = &mut self.roots[of];
        debug_assert!(root.unfinished > 0, "what has begun ends once");
        root.unfinished -= 1;
        if root.unfinished > 0 {
            return;
        }
        if !root.leaves_traces {
            let (session, invocation) = (root.session, root.invocation);
            self.afterwards.push_back(Afterwards::Succeeded {
                session,
                invocation,
            });
        }
        self.roots.give(of);
    }

    /// What came of an invocation is in memory alone until its session ends.
    #[inline]
    pub(super) fn leave_trace(&mut self, of: Ref<Invocation>) {
        if let Some(root) = self.invocations[of].root.some() {
            self.roots[root].leaves_traces = true;
        }
    }

    /// An invocation sends an object: one that is in memory alone for longer than it takes to fire
    /// a function with it leaves a trace.
    #[inline]
    pub(super) fn trace(
        &mut self,
        app: &App,
        sender: Ref<Invocation>,
        publication: &Publication<'_>,
        is_delayed: bool,
    ) {
        if self.invocations[sender].root.is_none() {
            return;
        }
        let stays = match publication.to.target {
            Target::Bucket(bucket) => !app.plan.buckets[usize::from(bucket)].is_durable,
            Target::Next | Target::Function(_) => is_delayed,
        };
        if stays {
            self.leave_trace(sender);
        }
    }

    fn derive_id(&mut self, app: &App, firing: &Firing, inputs: &[Ref<Object>]) -> u64 {
        let session = self.sessions[firing.session].id.0;
        let function = app.function_name(firing.function);
        if firing.is_call {
            return identity::request(session, function);
        }
        let derive = |occurrence: u32| {
            let mut identity = Identity::new(session, function);
            if firing.trigger != NO_TRIGGER {
                let (bucket, trigger) = app.trigger_names(firing.trigger);
                identity.name(bucket.as_bytes());
                identity.name(trigger.as_bytes());
            }
            for &input in inputs {
                self.identify(app, input, &mut identity);
            }
            identity.number(occurrence.into());
            identity.finish()
        };
        let id = derive(0);
        if !app.may_fire_alike(firing.trigger) {
            return id;
        }
        let durable = self.sessions[firing.session].durable.as_deref();
        let before = durable.and_then(|durable| durable.occurrences.get(&id));
        let occurrence = before.map_or(0, |before| before + 1);
        let derived = derive(occurrence);
        if let Some(durable) = &mut self.sessions[firing.session].durable {
            durable.occurrences.insert(id, occurrence);
        }
        derived
    }

    /// What tells an object from every other one of its session, also when it is sent again after
    /// a restart.
    fn identify(&self, app: &App, object: Ref<Object>, identity: &mut Identity) {
        let object = &self.objects[object];
        if object.sequence > 0 {
            identity.number(object.sequence);
            return;
        }
        if object.bucket != NO_BUCKET {
            let bucket = &app.spec.buckets[usize::from(object.bucket)].name;
            identity.name(bucket.as_bytes());
            if let InputKey::Named(key) = object.input().key {
                identity.name(key);
                return;
            }
        }
        identity.number(object.producer);
        identity.number(object.ordinal.into());
    }
}

/// A payload in the ingress region.
fn payload(app: &App, placed: Placed) -> Payload {
    Payload {
        region: app.spec.ingress_slot(),
        extent: placed.extent(),
        size_bytes: placed.size_bytes,
        root: Ref::NONE,
    }
}

impl App {
    /// Names of a trigger's bucket and of the trigger.
    pub(super) fn trigger_names(&self, trigger: u16) -> (&str, &str) {
        let plan = &self.plan.triggers[usize::from(trigger)];
        let bucket = &self.spec.buckets[usize::from(plan.bucket)];
        let trigger = &bucket.triggers[usize::from(plan.index)];
        (&bucket.name, &trigger.name)
    }

    /// Whether a trigger of a session may fire several times with the same inputs: windows that
    /// overlap, lists that name the same keys, code of its own. All others take an object once.
    fn may_fire_alike(&self, trigger: u16) -> bool {
        let plan = self.plan.triggers.get(usize::from(trigger));
        let rule = plan.and_then(|plan| plan.rule.as_ref());
        matches!(
            rule,
            Some(Rule::Windows(_) | Rule::Joins(_) | Rule::Hand(_))
        )
    }
}

impl Local {
    /// Has a firing recorded, unless its session has ended since.
    pub(super) fn record<S: Sink>(&mut self, ticket: Ticket, sink: &mut S) {
        let Some(fired) = self.tables.recording(ticket) else {
            return;
        };
        let tables = &self.tables;
        let invocation = &tables.invocations[fired];
        let session = &tables.sessions[invocation.session];
        let inputs: SmallVec<[u64; 8]> = invocation
            .held
            .iter()
            .map(|&input| tables.objects[input].sequence)
            .collect();
        let plan = &self.apps[session.app].plan.triggers[usize::from(invocation.trigger)];
        sink.record_firing(
            session.app,
            ticket,
            &FiredInvocation {
                session: session.id,
                invocation: invocation.id,
                bucket: plan.bucket,
                trigger: plan.index,
                function: invocation.function,
                inputs: &inputs,
                window: invocation.window.map(|of| (of.start_ns, of.end_ns)),
            },
        );
    }

    /// A firing is on disk, or cannot be.
    pub(super) fn recorded<S: Sink>(
        &mut self,
        ticket: Ticket,
        outcome: Result<(), &str>,
        sink: &mut S,
    ) {
        let Some(fired) = self.tables.recording(ticket) else {
            return;
        };
        let invocation = &self.tables.invocations[fired];
        let session = invocation.session;
        let id = self.tables.sessions[session].app;
        let app = &mut self.apps[id];
        if let Err(why) = outcome {
            let (bucket, trigger) = app.trigger_names(invocation.trigger);
            let failure = Failure {
                function: Some(invocation.function),
                invocation: invocation.id,
                attempt: 0,
                cause: Cause::NotWritten(format!(
                    "a firing of trigger `{trigger}` of bucket `{bucket}` could not be written to \
                     disk: {why}"
                )),
                executor: None,
            };
            return self.end_session(session, &End::Failed(failure), sink);
        }
        self.tables.wait_for_turn(app, fired);
        self.dispatch_ready(id, sink);
        self.tell_waits(session, sink);
    }

    /// A durable session goes on after a restart.
    pub(super) fn restore<S: Sink>(&mut self, restored: &RestoredSession, sink: &mut S) {
        if let Err(refusal) = self.admit_restored(restored) {
            return sink.refused(restored.request, refusal);
        }
        let id = restored.app;
        let session = self.open_session(
            id,
            restored.request,
            restored.has_caller,
            restored.timeout_ns,
            Some(restored.session),
        );
        let app = &mut self.apps[id];
        let tables = &mut self.tables;
        tables.sessions[session].durable = Some(Box::new(Durable {
            is_restored: true,
            ..Durable::default()
        }));
        tables.sessions[session].answered_by = restored.answered_by;
        sink.accepted(restored.request, restored.session);
        tables.restore_headers(app, restored, session);
        if let Some(call) = &restored.call {
            tables.restore_call(app, call, session, sink);
        }
        let objects: Vec<Ref<Object>> = restored
            .objects
            .iter()
            .map(|object| tables.restore_object(app, object, session))
            .collect();
        for &trigger in &restored.over {
            let state = tables.state_of(app, session, trigger);
            tables.gather(app, state, None, sink, |gatherer, out| {
                if let Gatherer::Set(set) = gatherer {
                    set.drop_pending(out);
                    set.be_over();
                }
            });
        }
        for firing in &restored.firings {
            let inputs: SmallVec<[Ref<Object>; 8]> = firing
                .inputs
                .iter()
                .map(|&place| objects[place as usize])
                .collect();
            let fires = Firing {
                trigger: firing.trigger,
                window: firing
                    .window
                    .map(|(start_ns, end_ns)| Window { start_ns, end_ns }),
                ..Firing::new(session, firing.function)
            };
            match firing.invocation {
                Some(invocation) => tables.fire_again(app, fires, invocation, &inputs),
                None => tables.fire_durably(app, fires, &inputs),
            }
        }
        for (object, &created) in restored.objects.iter().zip(&objects) {
            tables.offer_to(app, created, session, &object.offers, sink);
        }
        for created in objects {
            tables.keep_restored(app, created, session, sink);
        }
        self.dispatch_ready(id, sink);
        self.settle(session, sink);
    }

    fn admit_restored(&self, restored: &RestoredSession) -> Result<(), Refusal> {
        let app = self.apps.get(restored.app);
        let app = app.filter(|app| !app.removing).ok_or(Refusal::NoApp)?;
        if !self.tables.may_number(restored.session) {
            return Err(Refusal::Malformed);
        }
        if !self.has_room_for_session() {
            return Err(Refusal::Sessions);
        }
        if app.is_short_of_objects() || !app.ledger.admits(restored.cost_bytes()) {
            return Err(Refusal::Memory);
        }
        Ok(())
    }
}

impl Tables {
    /// The invocation of a ticket, while it waits until its firing is on disk.
    fn recording(&self, ticket: Ticket) -> Option<Ref<Invocation>> {
        let found = self.invocations.find(ticket.slot(), ticket.generation())?;
        (self.invocations[found].place == Place::Recording).then_some(found)
    }

    /// Queues an invocation of an earlier life for a further attempt, which is not one of those
    /// that its function has.
    fn fire_again(&mut self, app: &mut App, mut firing: Firing, id: u64, inputs: &[Ref<Object>]) {
        firing.root = self.new_root(firing.session, id);
        let fired = self.enter(app, firing, id, inputs.iter().copied());
        let plan = &app.plan.functions[usize::from(firing.function)];
        self.remember(plan, fired);
        let done = self.invocations[fired].done;
        self.dones[done].begin_again();
        self.invocations[fired].attempt = self.dones[done].latest;
        self.wait_for_turn(app, fired);
    }

    fn restore_headers(
        &mut self,
        app: &mut App,
        restored: &RestoredSession,
        session: Ref<Session>,
    ) {
        let Some(block) = restored.headers else {
            return;
        };
        let new = NewObject {
            session: restored.session,
            payload: payload(app, block),
            bucket: NO_BUCKET,
            key: InputKey::Named(b"headers"),
            group: b"",
            labelled: (0, 0),
        };
        let headers = self.create(app, &new);
        let session = &mut self.sessions[session];
        session.headers = Some(HeadersRef {
            region: app.spec.ingress_slot(),
            offset_units: block.offset_units,
            size_bytes: block.size_bytes as u32,
        });
        session.headers_object = headers;
    }

    fn restore_call<S: Sink>(
        &mut self,
        app: &mut App,
        call: &RestoredCall,
        session: Ref<Session>,
        sink: &mut S,
    ) {
        let new = NewObject {
            session: self.sessions[session].id,
            payload: payload(app, call.body),
            bucket: NO_BUCKET,
            key: InputKey::Named(REQUEST_KEY),
            group: b"",
            labelled: (0, 0),
        };
        let body = self.create(app, &new);
        if app.spec.keep_request {
            self.objects.hold(body);
            self.sessions[session].request_object = body;
        }
        if call.runs_again {
            let function = app.function_name(call.function);
            let id = identity::request(self.sessions[session].id.0, function);
            self.fire_again(app, Firing::new(session, call.function), id, &[body]);
        }
        self.drop_hold(app, body, sink);
    }

    /// Makes an object again, with a hold, under its name.
    fn restore_object(
        &mut self,
        app: &mut App,
        restored: &RestoredObject,
        session: Ref<Session>,
    ) -> Ref<Object> {
        let id = self.sessions[session].id;
        let new = NewObject {
            session: id,
            payload: payload(app, restored.body),
            bucket: restored.bucket,
            key: auto_key(&restored.key).unwrap_or(InputKey::Named(&restored.key)),
            group: &restored.group,
            labelled: (0, 0),
        };
        let created = self.create(app, &new);
        self.objects[created].sequence = restored.sequence;
        let InputKey::Named(key) = new.key else {
            return created;
        };
        let author = Author {
            invocation: restored.author,
            attempt: 0,
        };
        let name = match self.names.find(id, restored.bucket, key) {
            Some(name) => {
                let before = self.names.replace(name, (created, author));
                if let Some(before) = before {
                    self.objects[before].name = Ref::NONE;
                }
                name
            }
            None => {
                let list = &mut self.sessions[session].names;
                let taker = (created, author);
                app.names += 1;
                self.names.insert(id, restored.bucket, key, taker, list)
            }
        };
        self.objects[created].name = name;
        created
    }

    /// Has the bucket of a restored object hold it, and ends its creator's hold.
    fn keep_restored<S: Sink>(
        &mut self,
        app: &mut App,
        restored: Ref<Object>,
        session: Ref<Session>,
        sink: &mut S,
    ) {
        let object = &self.objects[restored];
        let bucket = object.bucket;
        let is_automatic = matches!(object.input().key, InputKey::Auto { .. });
        // One whose name another has taken is found no more.
        if is_automatic || object.name.is_some() {
            self.keep_in_bucket(app, restored, bucket, session);
        }
        self.drop_hold(app, restored, sink);
    }

    /// Offers an object to those of its bucket's triggers that are listed.
    fn offer_to<S: Sink>(
        &mut self,
        app: &mut App,
        offered: Ref<Object>,
        session: Ref<Session>,
        triggers: &[u16],
        sink: &mut S,
    ) {
        let object = &self.objects[offered];
        let mut text = AutoText::new();
        let key = key_text(object.input().key, &mut text);
        let mut matches = std::mem::take(&mut self.scratch.matches);
        let plan = &app.plan.buckets[usize::from(object.bucket)];
        plan.matches(key, &mut self.scratch.globbed, &mut matches);
        for found in matches.drain(..) {
            if triggers.contains(&found.trigger) {
                self.apply(app, found, offered, session, None, sink);
            }
        }
        self.scratch.matches = matches;
    }
}
