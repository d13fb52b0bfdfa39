//! What executors say, one function per message: judged first, then done.
//!
//! A message of an invocation whose session has ended is still judged, but does nothing; memory
//! that it names goes back to its owner.

use pheromone_shm::message::{
    Extent, FromExecutor, InputKey, Key, NO_BUCKET, NO_TRIGGER, Target, ToExecutor,
};

use crate::event::{AppId, Cause, ExecutorId, Failure, Sink};
use crate::local::app::App;
use crate::local::dispatch::Completion;
use crate::local::executor::State;
use crate::local::invocation::{Firing, Invocation};
use crate::local::judge::{
    Fault, full_key, judge_bucket, judge_group, judge_key, judge_named, judge_target,
};
use crate::local::name::{Author, AutoText, is_auto_text, key_text};
use crate::local::object::{NewObject, Object, Payload};
use crate::local::respond::Answer;
use crate::local::session::{End, Session};
use crate::local::{Local, Tables};
use crate::slab::Ref;

/// Statuses of `pheromone.h` that the core answers with: the numbers of Linux's errno, negative.
mod status {
    pub(super) const ENOENT: i32 = -2;
    pub(super) const ENOMEM: i32 = -12;
    pub(super) const ENOTSUP: i32 = -95;
    pub(super) const ECANCELED: i32 = -125;
}

/// An object on its way into a session.
#[derive(Clone, Copy)]
pub(super) struct Publication<'a> {
    pub(super) object: NewObject<'a>,
    pub(super) to: Delivery,
    pub(super) author: Author,
}

/// What goes with a payload.
#[derive(Clone, Copy)]
pub(super) struct Label<'a> {
    key: Key<'a>,
    ordinal: u32,
    group: &'a [u8],
    delay_ns: u64,
}

/// Where an object is delivered.
#[derive(Clone, Copy)]
pub(super) struct Delivery {
    pub(super) session: Ref<Session>,
    pub(super) target: Target,
    /// The direct object's functions are this one's `next`.
    pub(super) function: u16,
    pub(super) near: Option<u16>,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            session: Ref::NONE,
            target: Target::Next,
            function: 0,
            near: None,
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
fn bucket_of(target: Target) -> u16 {
    match target {
        Target::Bucket(bucket) => bucket,
        Target::Next | Target::Function(_) => NO_BUCKET,
    }
}

impl Local {
    /// A message; a liar is killed.
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
            State::Starting | State::Adopting | State::Idle | State::Busy | State::Leaving => {}
        }
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
            } => self.complete(
                id,
                &Completion {
                    status,
                    ending,
                    discarded,
                    message,
                },
                sink,
            ),
            ref other => self.rare_message(id, other, sink),
        };
        if let Err(fault) = judged {
            self.fault(id, &fault.to_string(), sink);
            return;
        }
        let app = &mut self.apps[id.app];
        if app.region(id.slot).unreleased.is_some() {
            self.tables.flush_releases(app, id.slot, sink);
        }
    }

    fn rare_message<S: Sink>(
        &mut self,
        id: ExecutorId,
        message: &FromExecutor<'_>,
        sink: &mut S,
    ) -> Result<(), Fault> {
        match *message {
            FromExecutor::Ready => self.ready(id, sink),
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
                extent,
                size_bytes,
                http_status,
                content_type,
            } => {
                let answer = Answer {
                    http_status,
                    content_type,
                };
                self.respond(id, (extent, size_bytes), answer, sink)
            }
            FromExecutor::RespondParts {
                more,
                http_status,
                content_type,
                objects,
            } => {
                let answer = Answer {
                    http_status,
                    content_type,
                };
                self.respond_parts(id, objects, more, answer, sink)
            }
            FromExecutor::Get {
                bucket,
                timeout_ns,
                key,
            } => self.get(id, bucket, key, timeout_ns, sink),
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
            FromExecutor::FetchInputs { first } => self.fetch_inputs(id, first, sink),
            FromExecutor::FetchExtents { first } => self.fetch_extents(id, first, sink),
            FromExecutor::NeedCredit { bytes } => {
                self.apps[id.app].executor(id.slot).open("NeedCredit")?;
                self.need_credit(id, bytes, sink);
                Ok(())
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

    #[inline]
    fn publish<S: Sink>(
        &mut self,
        id: ExecutorId,
        target: Target,
        (extent, size_bytes): (Extent, u64),
        label: Label<'_>,
        sink: &mut S,
    ) -> Result<(), Fault> {
        let app = &mut self.apps[id.app];
        let open = app.executor(id.slot).open("Publish")?;
        app.judge_payload(id.slot, extent, size_bytes)?;
        let invocation = &self.tables.invocations[open];
        judge_target(app, invocation.function, target)?;
        judge_key(label.key, label.group)?;
        app.take_credit(id.slot, extent)?;
        let Some(session) = invocation.session.some() else {
            self.tables.release_extent(app, id.slot, extent, sink);
            return Ok(());
        };
        let payload = Payload {
            region: id.slot,
            extent,
            size_bytes,
            root: Ref::NONE,
        };
        let publication = Publication {
            object: NewObject {
                session: self.tables.sessions[session].id,
                payload,
                bucket: bucket_of(target),
                key: full_key(label.key, invocation.id),
                group: label.group,
            },
            to: invocation.delivery(target, id.slot),
            author: invocation.author(),
        };
        if self
            .tables
            .is_repeated(app, open, &publication, label.ordinal)
        {
            self.tables.release_extent(app, id.slot, extent, sink);
        } else if self.tables.is_taken(&publication) {
            self.tables.release_extent(app, id.slot, extent, sink);
            self.tell_duplicate(open, target, publication.object.key, sink);
        } else if self.tables.names_are_full(app, open, &publication) {
            self.tables.release_extent(app, id.slot, extent, sink);
            self.fail_by_limit(open, session, id, sink);
        } else if label.delay_ns > 0 {
            self.delay(id.app, &publication, label.delay_ns);
        } else {
            let created = self.bring_in(id.app, &publication, sink);
            let app = &mut self.apps[id.app];
            self.tables.drop_hold(app, created, sink);
            app.top_up(id.slot, sink);
            return Ok(());
        }
        self.apps[id.app].top_up(id.slot, sink);
        Ok(())
    }

    fn forward<S: Sink>(
        &mut self,
        id: ExecutorId,
        target: Target,
        object: u32,
        label: Label<'_>,
        sink: &mut S,
    ) -> Result<(), Fault> {
        let app = &mut self.apps[id.app];
        let open = app.executor(id.slot).open("Forward")?;
        let invocation = &self.tables.invocations[open];
        let forwarded = invocation.judge_object(object)?;
        judge_target(app, invocation.function, target)?;
        judge_key(label.key, label.group)?;
        let Some(session) = invocation.session.some() else {
            return Ok(());
        };
        let publication = Publication {
            object: NewObject {
                session: self.tables.sessions[session].id,
                payload: self.tables.objects[forwarded].payload(forwarded),
                bucket: bucket_of(target),
                key: full_key(label.key, invocation.id),
                group: label.group,
            },
            to: invocation.delivery(target, id.slot),
            author: invocation.author(),
        };
        if self
            .tables
            .is_repeated(app, open, &publication, label.ordinal)
        {
            // The first object stands.
        } else if self.tables.is_taken(&publication) {
            self.tell_duplicate(open, target, publication.object.key, sink);
        } else if app.is_out_of_objects() || self.tables.names_are_full(app, open, &publication) {
            // A forwarded object needs no memory, so nothing but this limit ends a loop of them.
            self.fail_by_limit(open, session, id, sink);
        } else if label.delay_ns > 0 {
            self.delay(id.app, &publication, label.delay_ns);
        } else {
            let created = self.bring_in(id.app, &publication, sink);
            self.tables.drop_hold(&mut self.apps[id.app], created, sink);
        }
        Ok(())
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
        self.tables.deliver(app, created, &publication.to, sink);
        self.dispatch_ready(id, sink);
        if let Target::Bucket(bucket) = publication.to.target {
            let app = &mut self.apps[id];
            self.tables.enter_name(app, created, publication);
            let session = publication.to.session;
            self.tables.keep_in_bucket(app, created, bucket, session);
        }
        created
    }

    #[cold]
    fn tell_duplicate<S: Sink>(
        &mut self,
        open: Ref<Invocation>,
        target: Target,
        key: InputKey<'_>,
        sink: &mut S,
    ) {
        let invocation = &self.tables.invocations[open];
        let (session, function) = (invocation.session, invocation.function);
        let (Target::Bucket(bucket), InputKey::Named(key)) = (target, key) else {
            return;
        };
        let text = |_: &Tables, app: &App| {
            format!(
                "function `{}` sent a second object `{}` into bucket `{}`; the first one stands",
                app.function_name(function),
                String::from_utf8_lossy(key),
                app.spec.buckets[usize::from(bucket)].name,
            )
        };
        self.error_event(session, text, sink);
    }

    #[cold]
    fn fail_by_limit<S: Sink>(
        &mut self,
        open: Ref<Invocation>,
        session: Ref<Session>,
        id: ExecutorId,
        sink: &mut S,
    ) {
        let invocation = &self.tables.invocations[open];
        let most = self.apps[id.app].spec.limits.objects;
        let failure = Failure {
            function: Some(invocation.function),
            invocation: invocation.id,
            attempt: invocation.attempt,
            cause: Cause::Limit(format!(
                "limits.objects: the app has as many objects and names as it may ({most}); \
                 publish fewer, release them earlier, or raise the limit"
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
        let most = app.spec.limits.inputs as usize;
        let tables = &mut self.tables;
        let found = match tables.invocations[open].session.some() {
            None => Err(status::ECANCELED),
            Some(session) => match tables.find_kept(app, session, bucket, key) {
                Some(_) if tables.invocations[open].held.len() >= most.saturating_mul(2) => {
                    Err(status::ENOMEM)
                }
                Some(found) => Ok(found),
                None if timeout_ns > 0 => Err(status::ENOTSUP),
                None => Err(status::ENOENT),
            },
        };
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
        let Delivery { session, near, .. } = *to;
        let direct = |function: u16| Firing {
            session,
            function,
            trigger: NO_TRIGGER,
            window: None,
            near,
            is_call: false,
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
    #[inline]
    pub(super) fn enter_name(
        &mut self,
        app: &mut App,
        entered: Ref<Object>,
        publication: &Publication<'_>,
    ) {
        let Target::Bucket(bucket) = publication.to.target else {
            return;
        };
        let key = publication.object.key;
        let of = &mut self.sessions[publication.to.session];
        let named = match key {
            InputKey::Named(_) => true,
            InputKey::Auto { .. } => {
                of.has_auto_names && app.plan.buckets[usize::from(bucket)].keeps
            }
        };
        if named {
            let mut text = AutoText::new();
            let key = key_text(key, &mut text);
            let name = self.names.insert(
                of.id,
                bucket,
                key,
                (entered, publication.author),
                &mut of.names,
            );
            self.objects[entered].name = name;
            app.names += 1;
        }
    }

    /// Has an object's bucket hold it, where the bucket does so.
    #[inline]
    pub(super) fn keep_in_bucket(
        &mut self,
        app: &App,
        kept: Ref<Object>,
        bucket: u16,
        session: Ref<Session>,
    ) {
        if app.plan.buckets[usize::from(bucket)].keeps {
            self.keep(kept, session);
        }
    }

    /// Names stay until their session ends, and what an invocation that may run again has sent
    /// until it ends: they are bounded by the limit on objects.
    #[inline]
    fn names_are_full(
        &self,
        app: &App,
        open: Ref<Invocation>,
        publication: &Publication<'_>,
    ) -> bool {
        let is_remembered = publication.name().is_some() || self.invocations[open].done.is_some();
        is_remembered && app.names >= u64::from(app.spec.limits.objects)
    }

    /// Whether the identity has been taken, which automatic keys never are.
    #[inline]
    pub(super) fn is_taken(&self, publication: &Publication<'_>) -> bool {
        publication.name().is_some_and(|(bucket, key)| {
            let session = publication.object.session;
            self.names.find(session, bucket, key).is_some()
        })
    }

    /// The object of this session that a bucket holds under a key, or the text of an automatic
    /// one. The first question for an automatic key has the session's entered as names.
    fn find_kept(
        &mut self,
        app: &mut App,
        session: Ref<Session>,
        bucket: u16,
        key: &[u8],
    ) -> Option<Ref<Object>> {
        if key[0] == b'~' {
            if !is_auto_text(key) {
                return None;
            }
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
        let mut next = of.kept;
        while let Some(kept) = next.some() {
            let object = &mut self.objects[kept];
            next = object.kept_next;
            let input = object.input();
            if let InputKey::Auto { .. } = input.key
                && object.name.is_none()
            {
                let mut text = AutoText::new();
                let key = key_text(input.key, &mut text);
                let name = self.names.insert(
                    of.id,
                    input.bucket,
                    key,
                    (kept, Author::default()),
                    &mut of.names,
                );
                object.name = name;
                app.names += 1;
            }
        }
    }
}

/// A key and group from outside, which are judged as a function's are.
pub(super) fn judge_outside(key: Option<&[u8]>, group: &[u8]) -> Result<(), Fault> {
    match key {
        Some(key) => judge_key(Key::Named(key), group),
        None => judge_group(group),
    }
}
