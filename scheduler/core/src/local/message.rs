//! What executors say, one function per message: judged first, then done.
//!
//! A message of an invocation whose session has ended is still judged, but does nothing; memory
//! that it names goes back to its owner.

use pheromone_shm::message::{FromExecutor, InputKey, Key, NO_BUCKET, Target, ToExecutor};

use crate::event::{ATTACHED_PER_MESSAGE_MAX, AppId, Cause, ExecutorId, Failure, SessionId, Sink};
use crate::local::app::App;
use crate::local::dispatch::Completion;
use crate::local::durable::Root;
use crate::local::executor::{Disk, State};
use crate::local::invocation::{Firing, Invocation};
use crate::local::judge::{Fault, judge_bucket, judge_group, judge_key, judge_named};
use crate::local::name::{Author, AutoText, is_auto_text, key_text};
use crate::local::object::{Attached, NewObject, Object, Payload};
use crate::local::respond::Form;
use crate::local::session::{End, Session};
use crate::local::{Local, Tables};
use crate::slab::Ref;

/// Statuses of `pheromone.h` that the core answers with: the numbers of Linux's errno, negative.
pub(super) mod status {
    pub(in crate::local) const ENOENT: i32 = -2;
    pub(in crate::local) const EIO: i32 = -5;
    pub(in crate::local) const EAGAIN: i32 = -11;
    pub(in crate::local) const ENOMEM: i32 = -12;
    pub(in crate::local) const EEXIST: i32 = -17;
    pub(in crate::local) const ENOTSUP: i32 = -95;
    pub(in crate::local) const ETIMEDOUT: i32 = -110;
    pub(in crate::local) const ECANCELED: i32 = -125;
}

/// An object on its way into a session.
#[derive(Clone, Copy)]
pub(super) struct Publication<'a> {
    pub(super) object: NewObject<'a>,
    pub(super) to: Delivery,
    pub(super) author: Author,
    /// It is on disk before it arrives.
    pub(super) is_durable: bool,
}

/// What goes with a payload.
#[derive(Clone, Copy)]
pub(super) struct Label<'a> {
    pub(super) key: Key<'a>,
    pub(super) ordinal: u32,
    pub(super) group: &'a [u8],
    pub(super) delay_ns: u64,
}

/// Where an object is delivered.
#[derive(Clone, Copy)]
pub(super) struct Delivery {
    pub(super) session: Ref<Session>,
    pub(super) target: Target,
    /// The direct object's functions are this one's `next`.
    pub(super) function: u16,
    pub(super) near: Option<u16>,
    /// What it comes from, in a durable session.
    pub(super) root: Ref<Root>,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            session: Ref::NONE,
            target: Target::Next,
            function: 0,
            near: None,
            root: Ref::NONE,
        }
    }
}

impl Publication<'_> {
    /// The identity that it takes, where somebody has chosen one.
    #[inline]
    fn name(&self) -> Option<(u16, &[u8])> {
        match (self.to.target, self.object.key) {
            (Target::Bucket(bucket), InputKey::Named(key)) => Some((bucket, key)),
            _ => None,
        }
    }
}

/// Where an object for this target is.
pub(super) fn bucket_of(target: Target) -> u16 {
    match target {
        Target::Bucket(bucket) => bucket,
        Target::Next | Target::Function(_) => NO_BUCKET,
    }
}

impl Local {
    /// A message; a liar is killed. Offers and continuations are heard by [`Self::hear_in_place`],
    /// if their senders have something open.
    #[inline]
    pub(super) fn message<S: Sink>(
        &mut self,
        id: ExecutorId,
        message: &FromExecutor<'_>,
        sink: &mut S,
    ) {
        let executor = self.apps.get(id.app);
        let executor = executor.and_then(|app| app.executors.get(usize::from(id.slot)));
        let Some(executor) = executor else {
            return;
        };
        match executor.state {
            // A killed process may go on talking until it is dead.
            State::Vacant | State::Asked | State::Killed => return,
            State::Deciding => {
                self.enter_notes();
                if let Err(fault) = self.custom_says(id, message, sink) {
                    self.fault(id, &fault.to_string(), sink);
                }
                return;
            }
            State::Starting
            | State::Adopting
            | State::Idle
            | State::Busy
            | State::Waiting
            | State::Leaving => {}
        }
        self.enter_notes();
        let judged = match *message {
            FromExecutor::Publish {
                target,
                extent,
                size_bytes,
                key,
                ordinal,
                group,
                delay_ns,
            } => {
                let label = Label {
                    key,
                    ordinal,
                    group,
                    delay_ns,
                };
                self.publish(id, target, (extent, size_bytes), label, sink)
            }
            FromExecutor::Complete {
                status,
                ending,
                discarded,
                message,
            } => {
                let completion = Completion {
                    status,
                    ending,
                    discarded,
                    message,
                };
                self.complete(id, &completion, sink)
            }
            ref rare => self.rare_message(id, rare, sink),
        };
        self.end_message(id, judged, sink);
    }

    /// Kills a liar; else lets its region's owner know what it has had no room for.
    #[inline(always)]
    pub(super) fn end_message<S: Sink>(
        &mut self,
        id: ExecutorId,
        judged: Result<(), Fault>,
        sink: &mut S,
    ) {
        if let Err(fault) = judged {
            self.enter_notes();
            self.fault(id, &fault.to_string(), sink);
            return;
        }
        self.tables.flush_any(&mut self.apps[id.app], id.slot, sink);
    }

    fn rare_message<S: Sink>(
        &mut self,
        id: ExecutorId,
        message: &FromExecutor<'_>,
        sink: &mut S,
    ) -> Result<(), Fault> {
        if let FromExecutor::Get { .. }
        | FromExecutor::Load { .. }
        | FromExecutor::Persist
        | FromExecutor::NeedCredit { .. } = message
        {
            self.before_waiting(id, sink);
        }
        match *message {
            FromExecutor::Ready => self.ready(id, sink),
            FromExecutor::Persist => {
                let executor = self.apps[id.app].executor(id.slot);
                executor.open("Persist")?;
                executor.disk = Disk::Announced;
                Ok(())
            }
            FromExecutor::Loaded => self.tables.loaded(&mut self.apps[id.app], id.slot),
            FromExecutor::Forward {
                target,
                object,
                key,
                ordinal,
                group,
                delay_ns,
            } => {
                let label = Label {
                    key,
                    ordinal,
                    group,
                    delay_ns,
                };
                self.forward(id, target, object, label, sink)
            }
            FromExecutor::Respond {
                session,
                extent,
                size_bytes,
                http_status,
                content_type,
            } => {
                let form = Form {
                    http_status,
                    content_type,
                };
                self.respond(id, SessionId(session), (extent, size_bytes), form, sink)
            }
            FromExecutor::FailSession {
                session,
                status,
                message,
            } => self.fail_session(id, SessionId(session), (status, message), sink),
            FromExecutor::Parent { number } => self.parent(id, number, sink),
            FromExecutor::RespondParts {
                more,
                http_status,
                content_type,
                objects,
            } => {
                let form = Form {
                    http_status,
                    content_type,
                };
                self.respond_parts(id, objects, more, form, sink)
            }
            FromExecutor::Get {
                bucket,
                timeout_ns,
                key,
            } => self.get(id, bucket, key, timeout_ns, sink),
            FromExecutor::Load { bucket, key } => self.load(id, bucket, key, sink),
            FromExecutor::ReleaseHold { bucket, key } => self.release_hold(id, bucket, key, sink),
            FromExecutor::Join {
                trigger,
                more,
                keys,
            } => self.join(id, trigger, keys, more, sink),
            FromExecutor::Redundant { trigger, k, n } => self.redundant(id, trigger, (k, n), sink),
            FromExecutor::ExpectSources { trigger, sources } => {
                self.expect_sources(id, trigger, sources, sink)
            }
            FromExecutor::CloseSource { trigger } => self.close_source(id, trigger),
            FromExecutor::Fire { .. } | FromExecutor::Drop { .. } | FromExecutor::TickAt { .. } => {
                Err(Fault::NotAsked)
            }
            FromExecutor::FetchInputs { first } => self.fetch_inputs(id, first, sink),
            FromExecutor::FetchAttached { object, first } => {
                self.fetch_attached(id, object, first, sink)
            }
            FromExecutor::FetchExtents { first } => self.fetch_extents(id, first, sink),
            FromExecutor::NeedCredit { bytes } => {
                self.apps[id.app].executor(id.slot).open("NeedCredit")?;
                self.need_credit(id, bytes, sink);
                Ok(())
            }
            FromExecutor::Offer { .. } => {
                let executor = self.apps[id.app].executor(id.slot);
                executor.open("Offer").map(drop)
            }
            FromExecutor::Continue { .. } => {
                let executor = self.apps[id.app].executor(id.slot);
                executor.open("Continue").map(drop)
            }
            FromExecutor::Publish { .. } | FromExecutor::Complete { .. } => {
                unreachable!("handled by the caller")
            }
        }
    }

    fn ready<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) -> Result<(), Fault> {
        match self.apps[id.app].executor(id.slot).state {
            State::Starting => {
                self.executor_ready(id, sink);
                Ok(())
            }
            // Told to leave before it was ready.
            State::Leaving => Ok(()),
            _ => Err(Fault::ReadyTwice),
        }
    }

    /// Makes an object of a publication that has been found right and starts what it fires. The
    /// caller ends the creator's hold.
    #[inline(always)]
    pub(super) fn bring_in<S: Sink>(
        &mut self,
        id: AppId,
        publication: &Publication<'_>,
        sink: &mut S,
    ) -> Ref<Object> {
        let app = &mut self.apps[id];
        let created = self.tables.create(app, &publication.object);
        self.bring_created(id, created, publication, sink);
        created
    }

    /// As [`Self::bring_in`], of an object that has been made of its publication.
    #[inline(always)]
    pub(super) fn bring_created<S: Sink>(
        &mut self,
        id: AppId,
        created: Ref<Object>,
        publication: &Publication<'_>,
        sink: &mut S,
    ) {
        let app = &mut self.apps[id];
        self.tables.deliver(app, created, &publication.to, sink);
        self.dispatch_ready(id, sink);
        if let Target::Bucket(bucket) = publication.to.target {
            let app = &mut self.apps[id];
            self.tables.enter_name(app, created, publication);
            let session = publication.to.session;
            self.tables.keep_in_bucket(app, created, bucket, session);
        }
    }

    #[cold]
    pub(super) fn fail_by_limit<S: Sink>(
        &mut self,
        open: Ref<Invocation>,
        session: Ref<Session>,
        id: ExecutorId,
        sink: &mut S,
    ) {
        let invocation = &self.tables.invocations[open];
        let most = self.apps[id.app].share.limits.objects;
        let failure = Failure {
            function: Some(invocation.function),
            invocation: invocation.id,
            attempt: invocation.attempt,
            cause: Cause::Limit(format!(
                "limits.objects: the app has as many objects, names and lists as it may ({most}); \
                 publish and join fewer, release them earlier, or raise the limit"
            )),
            executor: Some(id),
        };
        self.end_session(session, &End::Failed(failure), sink);
    }

    fn fetch_inputs<S: Sink>(
        &mut self,
        id: ExecutorId,
        first: u32,
        sink: &mut S,
    ) -> Result<(), Fault> {
        let open = self.apps[id.app].executor(id.slot).open("FetchInputs")?;
        let invocation = &self.tables.invocations[open];
        let count = invocation.input_count;
        if first >= count {
            return Err(Fault::FetchInputs { first, count });
        }
        let wanted = &invocation.held[first as usize..count as usize];
        let inputs = wanted.iter().map(|&held| self.tables.objects[held].input());
        sink.inputs(id, first, inputs);
        Ok(())
    }

    /// Gives some of what is attached to an object, and has the invocation hold it.
    fn fetch_attached<S: Sink>(
        &mut self,
        id: ExecutorId,
        object: u32,
        first: u32,
        sink: &mut S,
    ) -> Result<(), Fault> {
        let app = &mut self.apps[id.app];
        let open = app.executor(id.slot).open("FetchAttached")?;
        let tables = &mut self.tables;
        let holder = tables.invocations[open].judge_object(object)?;
        let count = tables.objects[holder].attached;
        if first >= count {
            return Err(Fault::FetchAttached { first, count });
        }
        let held = tables.invocations[open].held.len();
        let room = app.held_max().saturating_sub(held);
        let wanted = &tables.attached_to(holder)[first as usize..];
        let given: Attached = wanted
            .iter()
            .take(room.min(ATTACHED_PER_MESSAGE_MAX))
            .copied()
            .collect();
        for &object in &given {
            tables.objects.hold(object);
        }
        tables.invocations[open].held.extend_from_slice(&given);
        let inputs = given.iter().map(|&given| tables.objects[given].input());
        sink.inputs(id, first, inputs);
        Ok(())
    }

    fn get<S: Sink>(
        &mut self,
        id: ExecutorId,
        bucket: u16,
        key: &[u8],
        timeout_ns: u64,
        sink: &mut S,
    ) -> Result<(), Fault> {
        let app = &mut self.apps[id.app];
        let open = app.executor(id.slot).open("Get")?;
        judge_bucket(app, bucket)?;
        judge_named(key)?;
        let most = app.held_max();
        let tables = &mut self.tables;
        let is_out_of_room = tables.invocations[open].held.len() >= most;
        let found = match tables.invocations[open].session.some() {
            None => Err(status::ECANCELED),
            Some(session) => match tables.find_kept(app, session, bucket, key) {
                Some(_) if is_out_of_room => Err(status::ENOMEM),
                Some(found) => Ok(found),
                None if timeout_ns > 0 && !is_out_of_room => {
                    match self.wait(id, (session, bucket, key), timeout_ns, sink) {
                        Ok(()) => return Ok(()),
                        Err(status) => Err(status),
                    }
                }
                None => Err(status::ENOENT),
            },
        };
        let tables = &mut self.tables;
        let (status, input) = match found {
            Ok(found) => {
                tables.objects.hold(found);
                tables.invocations[open].held.push(found);
                (0, Some(tables.objects[found].input()))
            }
            Err(status) => (status, None),
        };
        sink.send(id, &ToExecutor::Object { status, input });
        Ok(())
    }

    fn release_hold<S: Sink>(
        &mut self,
        id: ExecutorId,
        bucket: u16,
        key: &[u8],
        sink: &mut S,
    ) -> Result<(), Fault> {
        let app = &mut self.apps[id.app];
        let open = app.executor(id.slot).open("ReleaseHold")?;
        judge_bucket(app, bucket)?;
        judge_named(key)?;
        if let Some(session) = self.tables.invocations[open].session.some()
            && let Some(kept) = self.tables.find_kept(app, session, bucket, key)
        {
            self.tables.drop_kept(app, kept, session, sink);
        }
        if self.tables.keeps_on_disk {
            sink.delete(id.app, bucket, key);
        }
        Ok(())
    }
}

impl Tables {
    /// Starts what a new object fires: its direct consumers, or the triggers of its bucket.
    #[inline(always)]
    pub(super) fn deliver<S: Sink>(
        &mut self,
        app: &mut App,
        created: Ref<Object>,
        to: &Delivery,
        sink: &mut S,
    ) {
        let Delivery {
            session,
            near,
            root,
            ..
        } = *to;
        let direct = |function: u16| Firing {
            near,
            root,
            ..Firing::new(session, function)
        };
        match to.target {
            Target::Bucket(_) => self.offer(app, created, session, near, sink),
            Target::Function(function) => self.fire_one(app, direct(function), created),
            Target::Next => {
                let sender = usize::from(to.function);
                for at in 0..app.plan.functions[sender].next.len() {
                    let next = app.plan.functions[sender].next[at];
                    self.fire_one(app, direct(next), created);
                }
            }
        }
    }

    /// Remembers the name of an object in a bucket.
    #[inline(always)]
    pub(super) fn enter_name(
        &mut self,
        app: &mut App,
        entered: Ref<Object>,
        publication: &Publication<'_>,
    ) {
        let Target::Bucket(bucket) = publication.to.target else {
            return;
        };
        let session = publication.to.session;
        let named = match publication.object.key {
            InputKey::Named(_) => true,
            InputKey::Auto { .. } => {
                let has_names = self.sessions[session].has_auto_names;
                has_names && app.plan.buckets[usize::from(bucket)].keeps
            }
        };
        if named {
            let author = (entered, publication.author);
            self.remember_name(session, bucket, publication.object.key, author);
            app.names += 1;
        }
    }

    fn remember_name(
        &mut self,
        session: Ref<Session>,
        bucket: u16,
        key: InputKey<'_>,
        author: (Ref<Object>, Author),
    ) {
        let mut text = AutoText::new();
        let key = key_text(key, &mut text);
        let of = &mut self.sessions[session];
        let name = self.names.insert(of.id, bucket, key, author, &mut of.names);
        self.objects[author.0].name = name;
    }

    /// Has an object's bucket hold it, where the bucket does so.
    #[inline]
    pub(super) fn keep_in_bucket(
        &mut self,
        app: &mut App,
        kept: Ref<Object>,
        bucket: u16,
        session: Ref<Session>,
    ) {
        let plan = &app.plan.buckets[usize::from(bucket)];
        if plan.retains() {
            self.retain(app, kept);
        }
        if app.plan.buckets[usize::from(bucket)].keeps {
            self.keep(kept, session);
            if self.sessions[session].waiting > 0 {
                self.answer_waits(app, session, bucket);
            }
        }
    }

    /// Whether an object that an invocation publishes is one too many.
    #[inline]
    pub(super) fn is_past_limit(
        &self,
        app: &App,
        open: Ref<Invocation>,
        publication: &Publication<'_>,
    ) -> bool {
        let Payload { region, root, .. } = publication.object.payload;
        app.is_at_limit() && {
            // A forwarded object needs no memory, so nothing but this limit ends a loop of them.
            let are_too_many = if root.is_some() {
                app.is_out_of_objects()
            } else {
                app.has_too_many_objects(region)
            };
            are_too_many || self.lacks_name(app, open, publication)
        }
    }

    /// Names stay until their session ends, what a trigger remembers of objects as long, and what
    /// an invocation that may run again has sent until it ends: they are bounded by the limit on
    /// objects.
    #[cold]
    fn lacks_name(&self, app: &App, open: Ref<Invocation>, publication: &Publication<'_>) -> bool {
        let is_remembered = || match publication.to.target {
            Target::Next | Target::Function(_) => false,
            Target::Bucket(bucket) => {
                let bucket = &app.plan.buckets[usize::from(bucket)];
                let session = &self.sessions[publication.to.session];
                publication.name().is_some()
                    || bucket.is_remembered
                    || bucket.keeps && session.has_auto_names
            }
        };
        app.has_too_many_names(1) && (self.invocations[open].done.is_some() || is_remembered())
    }

    /// Whether the identity has been taken, which automatic keys never are.
    #[inline]
    pub(super) fn is_taken(&self, publication: &Publication<'_>) -> bool {
        publication.name().is_some_and(|(bucket, key)| {
            let session = publication.object.session;
            self.names.has(session, bucket, key)
        })
    }

    /// The object of this session that a bucket holds under a key, or the text of an automatic
    /// one. The first question for an automatic key has the session's entered as names.
    pub(super) fn find_kept(
        &mut self,
        app: &mut App,
        session: Ref<Session>,
        bucket: u16,
        key: &[u8],
    ) -> Option<Ref<Object>> {
        if key[0] == b'~' && is_auto_text(key) {
            self.name_automatic_keys(app, session);
        }
        let name = self.names.find(self.sessions[session].id, bucket, key)?;
        let found = self.names.object(name)?;
        self.objects[found].kept.then_some(found)
    }

    fn name_automatic_keys(&mut self, app: &mut App, session: Ref<Session>) {
        let of = &mut self.sessions[session];
        if std::mem::replace(&mut of.has_auto_names, true) {
            return;
        }
        let (mut next, mut next_delayed, mut next_write) = (of.kept, of.delayed, of.writes);
        while let Some(kept) = next.some() {
            next = self.objects[kept].kept_next;
            self.name_if_automatic(app, session, kept);
        }
        // Those are kept when their time has come, and will not be looked at again.
        while let Some(delayed) = next_delayed.some() {
            let object = self.delayed[delayed].object;
            next_delayed = self.delayed[delayed].next;
            let bucket = usize::from(self.objects[object].bucket);
            if app.plan.buckets.get(bucket).is_some_and(|of| of.keeps) {
                self.name_if_automatic(app, session, object);
            }
        }
        while let Some(write) = next_write.some() {
            let object = self.writes[write].object;
            next_write = self.writes[write].next;
            let bucket = usize::from(self.objects[object].bucket);
            if app.plan.buckets[bucket].keeps {
                self.name_if_automatic(app, session, object);
            }
        }
    }

    fn name_if_automatic(&mut self, app: &mut App, session: Ref<Session>, named: Ref<Object>) {
        let object = &mut self.objects[named];
        let input = object.input();
        if !matches!(input.key, InputKey::Auto { .. }) || object.name.is_some() {
            return;
        }
        let mut text = AutoText::new();
        let key = key_text(input.key, &mut text);
        let of = &mut self.sessions[session];
        let author = (named, Author::default());
        let name = self
            .names
            .insert(of.id, input.bucket, key, author, &mut of.names);
        object.name = name;
        app.names += 1;
    }
}

/// A key and group from outside, which are judged as a function's are.
pub(super) fn judge_outside(key: Option<&[u8]>, group: &[u8]) -> Result<(), Fault> {
    match key {
        Some(key) => judge_key(Key::Named(key), group),
        None => judge_group(group),
    }
}
