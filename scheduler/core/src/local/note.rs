//! Notes: offers that are judged and charged, and of which nothing is entered yet.
//!
//! While executors go on in place, all that is heard of them is an offer and a continuation, again
//! and again. So an offer is *noted* with its executor, and entered (its object made, its
//! invocation put into its session) only before anything looks that is not an offer or a
//! continuation of somebody else: any other message or event, any timer, whatever a step leaves to
//! its end. [`Local::enter_notes`] stands before each of these.
//!
//! A continuation that finds its note there takes one step. To enter the offer, start it, end the
//! invocation before it and let that one's input die would leave behind a table with one invocation
//! and one object in place of another, in the same session and region, at the same executor. So the
//! records that are there *turn into* the new ones: what differs is stored, what would be added and
//! taken away again is left alone. Wherever more than these two records is concerned the note is
//! entered and the general way taken ([`Local::go_on`]); an event that does nothing, between any
//! two, makes it so always, which is how tests compare the two.

use pheromone_shm::message::{Extent, InputKey, Target};

use crate::event::{SessionId, Sink};
use crate::local::app::App;
use crate::local::invocation::{Firing, Invocation};
use crate::local::message::{Publication, bucket_of};
use crate::local::object::{NewObject, Payload};
use crate::local::session::Session;
use crate::local::{Local, Tables};
use crate::slab::Ref;

/// An offer.
#[derive(Clone, Copy)]
pub(super) struct Note {
    pub(super) invocation: u64,
    pub(super) target: Target,
    /// What its object fires, and by which trigger.
    pub(super) function: u16,
    pub(super) trigger: u16,
    pub(super) extent: Extent,
    pub(super) size_bytes: u64,
    pub(super) ordinal: u32,
    pub(super) heard_ns: u64,
}

impl Note {
    /// Its object, in this session, sent by this invocation on this executor.
    #[inline(always)]
    fn object(&self, session: SessionId, invocation: u64, slot: u16) -> NewObject<'static> {
        NewObject {
            session,
            payload: Payload {
                region: slot,
                extent: self.extent,
                size_bytes: self.size_bytes,
                root: Ref::NONE,
            },
            bucket: bucket_of(self.target),
            key: InputKey::Auto {
                invocation,
                ordinal: self.ordinal,
            },
            group: &[],
            labelled: (invocation, self.ordinal),
        }
    }

    /// What it fires, in this session, on this executor.
    pub(super) fn firing(&self, session: Ref<Session>, slot: u16) -> Firing {
        Firing {
            trigger: self.trigger,
            near: Some(slot),
            ..Firing::new(session, self.function)
        }
    }
}

impl Local {
    /// Enters what is noted: somebody may look.
    #[inline(always)]
    pub(super) fn enter_notes(&mut self) {
        if !self.tables.noted.is_empty() {
            self.enter_all();
        }
    }

    #[cold]
    fn enter_all(&mut self) {
        for at in 0..self.tables.noted.len() {
            let id = self.tables.noted[at];
            let app = &mut self.apps[id.app];
            if let Some(note) = app.executor(id.slot).noted.take() {
                self.tables.enter_note(app, id.slot, &note);
            }
        }
        self.tables.noted.clear();
    }
}

impl Tables {
    /// The publication that an offer is.
    pub(super) fn noted_publication(
        &self,
        sender: Ref<Invocation>,
        slot: u16,
        note: &Note,
    ) -> Publication<'static> {
        let sender = &self.invocations[sender];
        let session = sender.session.some();
        let session = session.map(|session| self.sessions[session].id);
        Publication {
            object: note.object(session.unwrap_or_default(), sender.id, slot),
            to: sender.delivery(note.target, slot),
            author: sender.author(),
            is_durable: false,
        }
    }

    /// Whether its object is one too many for an app that is at its limit.
    #[cold]
    pub(super) fn is_past_limit_noted(&self, app: &App, slot: u16, note: &Note) -> bool {
        let open = app.executors[usize::from(slot)].open;
        self.is_past_limit(app, open, &self.noted_publication(open, slot, note))
    }

    fn enter_note(&mut self, app: &mut App, slot: u16, note: &Note) {
        let sender = app.executor(slot).open;
        let session = self.invocations[sender].session;
        let publication = self.noted_publication(sender, slot, note);
        let created = self.make(app, &publication.object, note.heard_ns);
        let firing = note.firing(session, slot);
        let inputs = std::iter::once(created);
        let offered = self.enter(app, firing, note.invocation, inputs);
        self.enter_offer(app, slot, offered, note.heard_ns);
        self.enter_name(app, created, &publication);
        if let Target::Bucket(bucket) = note.target {
            self.keep_in_bucket(app, created, bucket, session);
        }
        self.objects.pass_hold(created);
    }

    /// Notes an offer, if nothing but its continuation has to know of it: its session counts
    /// nothing by function, nobody there waits for objects or looks them up by automatic keys, no
    /// bucket keeps it, and its executor is looked after. False: it is to be entered at once.
    #[inline(always)]
    pub(super) fn may_stay_noted(&self, app: &App, session: Ref<Session>, target: Target) -> bool {
        let is_kept = match target {
            Target::Bucket(bucket) => app.plan.buckets[usize::from(bucket)].keeps,
            Target::Next | Target::Function(_) => false,
        };
        !is_kept && self.sessions[session].is_plain() && app.watches_offers()
    }

    /// What has returned on an executor turns into what it has noted, where nothing else is
    /// concerned. False: something is, and nothing has been done.
    #[inline(always)]
    pub(super) fn turn_into<S: Sink>(
        &mut self,
        app: &mut App,
        slot: u16,
        note: &Note,
        sink: &mut S,
    ) -> bool {
        let executor = &mut app.executors[usize::from(slot)];
        let open = executor.open;
        let invocation = &mut self.invocations[open];
        let &[input] = invocation.held.as_slice() else {
            return false;
        };
        let object = &mut self.objects[input];
        let is_alone = invocation.leaves_nothing() && object.dies_alone(slot);
        if !is_alone || !app.ready.is_empty() || app.pool.has_failed() {
            return false;
        }
        let (session, before) = (invocation.session, invocation.function);
        let (freed, freed_bytes) = (object.extent, object.charge_bytes());
        object.become_new(
            &note.object(self.sessions[session].id, invocation.id, slot),
            note.heard_ns,
        );
        // The session's headers are held on, and the one input.
        invocation.begin(note.invocation, &note.firing(session, slot));
        invocation.queued_ns = note.heard_ns;
        invocation.input_count = 1;
        self.move_to_front(session, open);
        if app.regions[usize::from(slot)].live != input {
            self.unlink_from_region(app, input);
            self.link_into_region(app, input);
        }
        app.refund_object(freed_bytes);
        self.hand_executor_on(app, slot, before, note);
        app.stats.invocations_total += 1;
        self.look_at_waiters(app);
        self.release_extent(app, slot, freed, sink);
        true
    }

    /// The executor's own books of the same.
    #[inline(always)]
    fn hand_executor_on(&mut self, app: &mut App, slot: u16, before: u16, note: &Note) {
        let executor = &mut app.executors[usize::from(slot)];
        executor.noted = None;
        executor.completed = executor.completed.saturating_add(1);
        executor.loading = false;
        executor.set_loaded(note.function);
        self.timers.cancel(&mut executor.timer);
        if note.function != before {
            executor.set_loaded(before);
            app.functions[usize::from(before)].running -= 1;
            app.functions[usize::from(note.function)].running += 1;
        }
        if app.passed_over_ns.is_some() {
            app.note_precedence(note.function, note.heard_ns, self.now_ns);
        }
        let limit_ns = app.plan.functions[usize::from(note.function)].timeout_ns;
        self.limit_time(app, slot, limit_ns);
        let id = app.executor_id(slot);
        if self.noted.last() == Some(&id) {
            self.noted.pop();
        } else {
            self.noted.retain(|&of| of != id);
        }
    }
}
