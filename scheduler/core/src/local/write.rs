//! Objects on their way to disk: sent, and published once they are there.
//!
//! Such an object has its memory and its identity from the moment it is sent, keeps its session
//! open, and is offered to nobody and found by nobody before. The node reads its payload where it
//! lies, so it is held until the node has answered, also when its session has ended. In the
//! durable namespace a send replaces; a name of a session goes over to what has replaced.

use pheromone_shm::message::{InputKey, Target, ToExecutor};

use crate::event::{
    AppId, Cause, DurableObject, ExecutorId, Failure, Refusal, RequestId, SessionId, Sink, Ticket,
    Written,
};
use crate::local::app::App;
use crate::local::executor::Disk;
use crate::local::invocation::Invocation;
use crate::local::message::{Delivery, Publication, status};
use crate::local::name::{Author, AutoText, key_text};
use crate::local::object::Object;
use crate::local::session::{End, Session};
use crate::local::{Local, Tables};
use crate::slab::Ref;
use crate::spec::Retain;

/// One of them.
pub(super) struct Write {
    app: AppId,
    pub(super) object: Ref<Object>,
    /// Its session is none once that has ended.
    to: Delivery,
    session: SessionId,
    author: Author,
    /// It is published when so much time has passed after it has been written.
    delay_ns: u64,
    waiter: Waiter,
    previous: Ref<Write>,
    pub(super) next: Ref<Write>,
}

impl Default for Write {
    fn default() -> Self {
        Self {
            app: AppId(0),
            object: Ref::NONE,
            to: Delivery::default(),
            session: SessionId(0),
            author: Author::default(),
            delay_ns: 0,
            waiter: Waiter::Nobody,
            previous: Ref::NONE,
            next: Ref::NONE,
        }
    }
}

/// How an object is sent that goes to disk first.
#[derive(Clone, Copy, Default)]
pub(super) struct Sending {
    pub(super) delay_ns: u64,
    pub(super) waiter: Waiter,
    /// See [`DurableObject::ordinal`].
    pub(super) ordinal: Option<u32>,
}

/// Who is told when an object is on disk, or cannot be.
#[derive(Clone, Copy, Default)]
pub(super) enum Waiter {
    #[default]
    Nobody,
    /// An executor in `phr_send_durable`, and which process of it.
    Executor(ExecutorId, u32),
    /// An outside party, which is let in once it is.
    Request(RequestId),
}

impl Local {
    /// Has an executor's object written that is published afterwards.
    #[cold]
    pub(super) fn persist<S: Sink>(
        &mut self,
        sender: ExecutorId,
        open: Ref<Invocation>,
        publication: &Publication<'_>,
        (delay_ns, waits): (u64, bool),
        sink: &mut S,
    ) {
        let ordinal = self.tables.send_ordinal(open, publication);
        let app = &mut self.apps[sender.app];
        let object = self.tables.create(app, &publication.object);
        let mut waiter = Waiter::Nobody;
        if waits {
            let executor = app.executor(sender.slot);
            executor.disk = Disk::Asked;
            waiter = Waiter::Executor(sender, executor.incarnation);
            // The disk takes its time, and its writer may need the very core.
            self.withdraw_spin(sender, sink);
        }
        let sending = Sending {
            delay_ns,
            waiter,
            ordinal,
        };
        self.write(sender.app, object, publication, sending, sink);
    }

    /// Has a new object written that is published afterwards. Its creator's hold becomes the
    /// write's.
    pub(super) fn write<S: Sink>(
        &mut self,
        id: AppId,
        object: Ref<Object>,
        publication: &Publication<'_>,
        sending: Sending,
        sink: &mut S,
    ) {
        let app = &mut self.apps[id];
        let tables = &mut self.tables;
        tables.root_begins(publication.to.root);
        tables.objects[object].is_coming = true;
        if !tables.is_taken(publication) {
            tables.enter_name(app, object, publication);
        }
        let to = publication.to;
        let id_of_session = tables.sessions[to.session].id;
        let session = &mut tables.sessions[to.session];
        let (taken, write) = tables.writes.take();
        *write = Write {
            app: id,
            object,
            to,
            session: id_of_session,
            author: publication.author,
            delay_ns: sending.delay_ns,
            waiter: sending.waiter,
            previous: Ref::NONE,
            next: std::mem::replace(&mut session.writes, taken),
        };
        let next = write.next;
        session.busy += 1;
        session.count_delivery(app, &to, true);
        if next.is_some() {
            tables.writes[next].previous = taken;
        }
        let bucket = &app.spec.buckets[usize::from(tables.objects[object].bucket)];
        let durable = DurableObject {
            author: publication.author.invocation,
            ordinal: sending.ordinal,
            object: tables.objects[object].input(),
            retain: match bucket.retain {
                // Sent durable into a bucket that retains nothing.
                Retain::ForNs(0) => Retain::Forever,
                retain => retain,
            },
            replace: bucket.replace,
        };
        let ticket = Ticket::new(taken.slot(), tables.writes.generation(taken));
        sink.write(id, ticket, &durable);
    }

    /// An executor waits in `phr_send_durable` for what needs no writing.
    pub(super) fn persisted<S: Sink>(&mut self, id: ExecutorId, status: i32, sink: &mut S) {
        self.apps[id.app].executor(id.slot).disk = Disk::Idle;
        sink.send(id, &ToExecutor::Persisted { status });
    }

    /// The node has written an object, or says why not.
    pub(super) fn written<S: Sink>(&mut self, ticket: Ticket, outcome: Written<'_>, sink: &mut S) {
        let found = self.tables.writes.find(ticket.slot(), ticket.generation());
        let Some(written) = found else {
            return;
        };
        let write = self.tables.take_write(written);
        let waiter = match write.waiter {
            Waiter::Executor(id, incarnation) => {
                let executor = &self.apps[id.app].executors[usize::from(id.slot)];
                (executor.disk == Disk::Asked && executor.incarnation == incarnation).then_some(id)
            }
            Waiter::Nobody | Waiter::Request(_) => None,
        };
        let session = write.to.session;
        if session.is_some() {
            let app = &self.apps[write.app];
            let of = &mut self.tables.sessions[session];
            of.busy -= 1;
            of.count_delivery(app, &write.to, false);
        }
        let mut failure = None;
        match outcome {
            Written::Done {
                sequence,
                is_repeated,
            } => {
                self.tables.objects[write.object].sequence = sequence;
                self.publish_written(&write, is_repeated, sink);
            }
            refused => {
                failure = self.refuse_write(&write, waiter, refused, sink);
            }
        }
        if let Some(id) = waiter {
            self.persisted(id, outcome.status(), sink);
        }
        if let Waiter::Request(request) = write.waiter {
            match outcome {
                Written::Done { .. } if session.is_some() => sink.accepted(request, write.session),
                Written::Done { .. } => sink.refused(request, Refusal::EndedMeanwhile),
                Written::Exists => sink.refused(request, Refusal::Kept),
                Written::NothingKept | Written::Failed(_) => {
                    sink.refused(request, Refusal::NotWritten);
                }
            }
        }
        if write.to.root.is_some() {
            self.tables.root_ends(write.to.root);
        }
        match (session.some(), failure) {
            (Some(session), Some(failure)) => {
                self.end_session(session, &End::Failed(failure), sink);
            }
            (Some(session), None) => self.settle(session, sink),
            (None, _) => {}
        }
        self.forget_if_empty(write.app, sink);
    }

    fn publish_written<S: Sink>(&mut self, write: &Write, is_repeated: bool, sink: &mut S) {
        let Write { object, to, .. } = *write;
        if is_repeated && self.tables.is_restored(&self.apps[write.app], write) {
            let app = &mut self.apps[write.app];
            self.tables.give_name_back(app, write);
            self.tables.drop_hold(app, object, sink);
        } else if to.session.is_none()
            || !self
                .tables
                .take_name_over(&mut self.apps[write.app], write, sink)
        {
            self.tables
                .drop_hold(&mut self.apps[write.app], object, sink);
        } else if write.delay_ns > 0 {
            let to = Delivery {
                root: Ref::NONE,
                ..to
            };
            self.tables
                .delay_object(&self.apps[write.app], object, to, write.delay_ns);
        } else {
            self.arrive(object, &to, sink);
        }
    }

    /// What could not be written is published nowhere: its sender is told if it waits, and has the
    /// memory again; else its session is. Answers with why that fails.
    fn refuse_write<S: Sink>(
        &mut self,
        write: &Write,
        waiter: Option<ExecutorId>,
        refused: Written<'_>,
        sink: &mut S,
    ) -> Option<Failure> {
        let app = &mut self.apps[write.app];
        let tables = &mut self.tables;
        tables.give_name_back(app, write);
        if let Some(waiter) = waiter {
            let open = app.executor(waiter.slot).open;
            tables.take_send_back(open, write.object);
            tables.unpublish(app, write.object, waiter.slot, sink);
            return None;
        }
        let failure = write
            .to
            .session
            .some()
            .and_then(|session| tables.tell_unwritten(app, (write, session), refused, sink));
        tables.drop_hold(app, write.object, sink);
        failure
    }

    /// An object that was sent earlier arrives now. Its creator's hold ends.
    pub(super) fn arrive<S: Sink>(&mut self, object: Ref<Object>, to: &Delivery, sink: &mut S) {
        let id = self.tables.sessions[to.session].app;
        let app = &mut self.apps[id];
        let tables = &mut self.tables;
        tables.objects[object].arrives(tables.now_ns);
        tables.deliver(app, object, to, sink);
        self.dispatch_ready(id, sink);
        let app = &mut self.apps[id];
        if let Target::Bucket(bucket) = to.target {
            self.tables.keep_in_bucket(app, object, bucket, to.session);
        }
        self.tables.drop_hold(app, object, sink);
    }
}

impl Tables {
    /// Takes a write out of its session's list and frees its slot.
    fn take_write(&mut self, taken: Ref<Write>) -> Write {
        let write = std::mem::take(&mut self.writes[taken]);
        if let Some(session) = write.to.session.some() {
            if write.previous.is_some() {
                self.writes[write.previous].next = write.next;
            } else {
                self.sessions[session].writes = write.next;
            }
            if write.next.is_some() {
                self.writes[write.next].previous = write.previous;
            }
        }
        self.writes.give(taken);
        write
    }

    /// An ending session no longer waits for what is being written; it is written all the same.
    pub(super) fn leave_writes(&mut self, ending: Ref<Session>) {
        let mut next = std::mem::take(&mut self.sessions[ending].writes);
        while next.is_some() {
            let write = &mut self.writes[next];
            write.to.session = Ref::NONE;
            next = std::mem::take(&mut write.next);
        }
    }

    /// A written object has the name of its session that another had, whose bucket lets it go.
    /// False: another attempt of the same invocation has sent it before.
    fn take_name_over<S: Sink>(&mut self, app: &mut App, write: &Write, sink: &mut S) -> bool {
        let session = write.to.session;
        let object = &self.objects[write.object];
        let InputKey::Named(key) = object.input().key else {
            return true;
        };
        let id = self.sessions[session].id;
        let Some(name) = self.names.find(id, object.bucket, key) else {
            // Who had it when this was sent could not be written.
            let list = &mut self.sessions[session].names;
            let taker = (write.object, write.author);
            let name = self.names.insert(id, object.bucket, key, taker, list);
            self.objects[write.object].name = name;
            app.names += 1;
            return true;
        };
        if object.name == name {
            return true;
        }
        // In a durable session those are told by how many there were before.
        let is_durable = self.sessions[session].durable.is_some();
        if !is_durable && self.names.is_of_another_attempt(name, write.author) {
            return false;
        }
        let before = self.names.replace(name, (write.object, write.author));
        self.objects[write.object].name = name;
        if let Some(before) = before {
            self.objects[before].name = Ref::NONE;
            if self.objects[before].kept {
                self.drop_kept(app, before, session, sink);
            }
        }
        true
    }

    /// Whether an object that is on disk already was there when its durable session was restored,
    /// and so has been looked at. In a bucket that is not durable it has not been.
    fn is_restored(&self, app: &App, write: &Write) -> bool {
        let Some(session) = write.to.session.some() else {
            return false;
        };
        let bucket = usize::from(self.objects[write.object].bucket);
        self.sessions[session].durable.is_some() && app.plan.buckets[bucket].is_durable
    }

    /// What could not be written has no name: it is there to be taken again.
    fn give_name_back(&mut self, app: &mut App, write: &Write) {
        let name = std::mem::replace(&mut self.objects[write.object].name, Ref::NONE);
        // The names of a session that has ended went with it.
        if name.is_some() && write.to.session.is_some() {
            let list = &mut self.sessions[write.to.session].names;
            self.names.remove(name, list);
            app.names -= 1;
        }
    }

    /// Tells a session that goes on, or why it fails.
    fn tell_unwritten<S: Sink>(
        &mut self,
        app: &mut App,
        (write, session): (&Write, Ref<Session>),
        refused: Written<'_>,
        sink: &mut S,
    ) -> Option<Failure> {
        let object = self.objects[write.object].input();
        let mut text = AutoText::new();
        let key = String::from_utf8_lossy(key_text(object.key, &mut text)).into_owned();
        let bucket = &app.spec.buckets[usize::from(object.bucket)].name;
        let cause = match refused {
            Written::Done { .. } => return None,
            Written::Failed(why) => Cause::NotWritten(format!(
                "object `{key}` of bucket `{bucket}` could not be written to disk: {why}"
            )),
            Written::NothingKept => Cause::NotWritten(format!(
                "object `{key}` of bucket `{bucket}` is durable, and this node keeps nothing on \
                 disk: start it with `--data DIR`"
            )),
            Written::Exists => {
                let text = format!(
                    "a second object `{key}` was sent into bucket `{bucket}`, which keeps the \
                     first one (`replace = false`); the first one stands"
                );
                self.error_event(app, session, |_, _| text, sink);
                return None;
            }
        };
        let is_from_outside = write.author == Author::default();
        Some(Failure {
            function: (!is_from_outside).then_some(write.to.function),
            invocation: write.author.invocation,
            attempt: write.author.attempt,
            cause,
            executor: None,
        })
    }

    /// Undoes the publication of an object that nobody has heard of: its sender has the memory
    /// again, and the credit for it.
    fn unpublish<S: Sink>(
        &mut self,
        app: &mut App,
        object: Ref<Object>,
        sender: u16,
        sink: &mut S,
    ) {
        if self.objects[object].root.is_some() {
            // Forwarded: the memory is somebody else's.
            self.drop_hold(app, object, sink);
            return;
        }
        app.ledger.refund(self.objects[object].charge_bytes());
        app.stats.objects_live -= 1;
        app.return_credit(sender, self.objects[object].extent);
        self.unlink_from_region(app, object);
        self.objects.give(object);
    }

    /// Whether a publication goes to disk first.
    #[inline]
    pub(super) fn is_durable(app: &App, target: Target, persists: bool) -> bool {
        match target {
            Target::Bucket(bucket) => persists || app.plan.buckets[usize::from(bucket)].is_durable,
            Target::Next | Target::Function(_) => false,
        }
    }
}

impl Written<'_> {
    /// What `phr_send_durable` answers.
    fn status(self) -> i32 {
        match self {
            Written::Done { .. } => 0,
            Written::Exists => status::EEXIST,
            Written::NothingKept => status::ENOTSUP,
            Written::Failed(_) => status::EIO,
        }
    }
}
