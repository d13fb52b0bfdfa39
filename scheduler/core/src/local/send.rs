//! What executors send: objects that they publish, and others that they forward.
//!
//! Both are judged apart, since one brings memory and the other names an object. From there on it
//! is one way: what an earlier attempt has sent is absorbed, a second object of an identity is
//! told of, one that is too many ends its session, one for the disk waits for that, one with a
//! delay for its time, and any other arrives.

use pheromone_shm::message::{Extent, InputKey, Key, Target};

use crate::event::{ExecutorId, Sink};
use crate::local::app::App;
use crate::local::invocation::Invocation;
use crate::local::judge::{Fault, full_key, judge_key, judge_target};
use crate::local::message::{Label, Publication, bucket_of, status};
use crate::local::object::{NewObject, Payload};
use crate::local::{Local, Tables};
use crate::slab::Ref;

/// What an invocation sends, judged and, where it brings memory, charged to its executor's credit.
#[derive(Clone, Copy)]
struct Sent<'a> {
    by: Ref<Invocation>,
    target: Target,
    payload: Payload,
    label: Label<'a>,
    /// Its sender waits until it is on disk.
    persists: bool,
}

impl Local {
    /// `Publish`: a new object.
    #[inline]
    pub(super) fn publish<S: Sink>(
        &mut self,
        id: ExecutorId,
        target: Target,
        (extent, size_bytes): (Extent, u64),
        label: Label<'_>,
        sink: &mut S,
    ) -> Result<(), Fault> {
        let app = &mut self.apps[id.app];
        let (open, persists) = app.executor(id.slot).sends("Publish", target)?;
        app.judge_payload(id.slot, extent, size_bytes)?;
        let function = self.tables.invocations[open].function;
        judge_target(app, function, target)?;
        judge_key(label.key, label.group)?;
        app.take_credit(id.slot, extent)?;
        let sent = Sent {
            by: open,
            target,
            payload: Payload {
                region: id.slot,
                extent,
                size_bytes,
                root: Ref::NONE,
            },
            label,
            persists,
        };
        if self.tables.just_arrives(app, &sent) {
            let publication = self.tables.publication(app, id.slot, &sent);
            let created = self.bring_in(id.app, &publication, sink);
            let app = &mut self.apps[id.app];
            self.tables.drop_hold(app, created, sink);
            app.top_up(id.slot, sink);
            return Ok(());
        }
        let is_open = self.tables.invocations[open].session.is_some();
        self.send(id, &sent, sink);
        if is_open {
            self.apps[id.app].top_up(id.slot, sink);
        }
        Ok(())
    }

    /// `Forward`: an object that the sender has, once more under another name.
    pub(super) fn forward<S: Sink>(
        &mut self,
        id: ExecutorId,
        target: Target,
        object: u32,
        label: Label<'_>,
        sink: &mut S,
    ) -> Result<(), Fault> {
        let app = &mut self.apps[id.app];
        let (open, persists) = app.executor(id.slot).sends("Forward", target)?;
        let invocation = &self.tables.invocations[open];
        let forwarded = invocation.judge_object(object)?;
        judge_target(app, invocation.function, target)?;
        judge_key(label.key, label.group)?;
        let sent = Sent {
            by: open,
            target,
            payload: self.tables.objects[forwarded].payload(forwarded),
            label,
            persists,
        };
        self.send(id, &sent, sink);
        Ok(())
    }

    /// Finds out what is to become of something sent, and does it.
    fn send<S: Sink>(&mut self, id: ExecutorId, sent: &Sent<'_>, sink: &mut S) {
        let Sent {
            by: open,
            target,
            persists,
            label: Label { delay_ns, .. },
            ..
        } = *sent;
        let app = &mut self.apps[id.app];
        let Some(session) = self.tables.invocations[open].session.some() else {
            self.tables.discard(app, sent, sink);
            if persists {
                self.persisted(id, status::ECANCELED, sink);
            }
            return;
        };
        let publication = self.tables.publication(app, id.slot, sent);
        let is_durable = publication.is_durable;
        self.tables.trace(app, open, &publication, delay_ns > 0);
        let ordinal = sent.label.ordinal;
        if self.tables.is_repeated(app, open, &publication, ordinal) {
            // The first object stands.
            self.tables.discard(app, sent, sink);
            if persists {
                self.persisted(id, 0, sink);
            }
        } else if !is_durable && self.tables.is_taken(&publication) {
            self.tables.discard(app, sent, sink);
            self.tell_duplicate(open, target, publication.object.key, sink);
        } else if self.tables.is_past_limit(app, open, &publication) {
            self.tables.discard(app, sent, sink);
            self.fail_by_limit(open, session, id, sink);
            if persists {
                self.persisted(id, status::ECANCELED, sink);
            }
        } else if is_durable {
            self.persist(id, open, &publication, (delay_ns, persists), sink);
            self.tables.meet_rules(&self.apps[id.app], open, target);
        } else if delay_ns > 0 {
            self.delay(id.app, &publication, delay_ns);
            self.tables.meet_rules(&self.apps[id.app], open, target);
        } else {
            let created = self.bring_in(id.app, &publication, sink);
            let app = &mut self.apps[id.app];
            self.tables.meet_rules(app, open, target);
            self.tables.drop_hold(app, created, sink);
        }
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
}

impl Tables {
    /// Whether something sent arrives at once and nothing else follows: its session is open and
    /// not durable, its sender is not watched and has one attempt, its identity is new, and there
    /// is room. Most of what is sent is so, and [`Local::send`] would do no more with it.
    #[inline(always)]
    fn just_arrives(&self, app: &App, sent: &Sent<'_>) -> bool {
        let sender = &self.invocations[sent.by];
        let is_plain = sender.session.is_some() && sender.root.is_none() && sender.done.is_none();
        is_plain
            && sent.label.delay_ns == 0
            && matches!(sent.label.key, Key::Auto(_))
            && !app.is_at_limit()
            && !Self::is_durable(app, sent.target, sent.persists)
    }

    #[inline(always)]
    fn publication<'a>(&self, app: &App, slot: u16, sent: &Sent<'a>) -> Publication<'a> {
        let Sent { target, label, .. } = *sent;
        let sender = &self.invocations[sent.by];
        Publication {
            object: NewObject {
                session: self.sessions[sender.session].id,
                payload: sent.payload,
                bucket: bucket_of(target),
                key: full_key(label.key, sender.id),
                group: label.group,
                labelled: (sender.id, label.ordinal),
            },
            to: sender.delivery(target, slot),
            author: sender.author(),
            is_durable: Self::is_durable(app, target, sent.persists),
        }
    }

    /// What was sent becomes no object: the memory that it has brought goes back.
    fn discard<S: Sink>(&mut self, app: &mut App, sent: &Sent<'_>, sink: &mut S) {
        let Payload {
            region,
            extent,
            root,
            ..
        } = sent.payload;
        if root.is_none() {
            self.release_extent(app, region, extent, sink);
        }
    }
}
