//! Notes: publications that are judged and charged, and of which nothing is entered yet.
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
//!
//! What goes through the scheduler is noted in the same way, where it can only wait for its own
//! sender's return: see `follower.rs`.

use pheromone_shm::message::{Extent, Input, InputKey, Target};

use crate::event::{ExecutorId, SessionId, Sink};
use crate::limits::OBJECT_CHARGE_BYTES;
use crate::local::app::App;
use crate::local::invocation::{Firing, Invocation};
use crate::local::judge::Fault;
use crate::local::message::{Publication, bucket_of};
use crate::local::object::{NewObject, Object, Payload};
use crate::local::session::Session;
use crate::local::{Local, Tables};
use crate::slab::Ref;

/// An object with an automatic key and no group, published at once.
#[derive(Clone, Copy)]
pub(super) struct Plain {
    pub(super) target: Target,
    pub(super) extent: Extent,
    pub(super) size_bytes: u64,
    pub(super) ordinal: u32,
}

/// A publication that has been judged, and charged, and fires one invocation.
#[derive(Clone, Copy)]
pub(super) struct Note {
    pub(super) plain: Plain,
    /// What its object fires, under this id, and by which trigger.
    pub(super) invocation: u64,
    pub(super) function: u16,
    pub(super) trigger: u16,
    pub(super) heard_ns: u64,
}

/// What becomes of a note.
pub(super) enum Noted {
    /// It waits for its continuation, or for somebody who looks.
    Stays,
    /// Somebody looks already: notes are to be entered at once.
    IsLookedAt,
    /// Its session is not open any more. Nothing is charged.
    IsInVain,
    /// Its object is one too many. Nothing is charged.
    IsPastLimit,
}

impl Note {
    /// Its object, in this session, sent by this invocation on this executor.
    #[inline(always)]
    fn object(&self, session: SessionId, invocation: u64, slot: u16) -> NewObject<'static> {
        let Plain {
            target,
            extent,
            size_bytes,
            ordinal,
        } = self.plain;
        NewObject {
            session,
            payload: Payload {
                region: slot,
                extent,
                size_bytes,
                root: Ref::NONE,
            },
            bucket: bucket_of(target),
            key: InputKey::Auto {
                invocation,
                ordinal,
            },
            group: &[],
            labelled: (invocation, ordinal),
        }
    }

    /// Its object, as whoever starts what it fires is told of it.
    #[inline(always)]
    pub(super) fn input(&self, session: SessionId, invocation: u64, slot: u16) -> Input<'static> {
        let Plain {
            target,
            extent,
            size_bytes,
            ordinal,
        } = self.plain;
        Input {
            region: slot,
            bucket: bucket_of(target),
            offset_units: extent.offset_units,
            size_bytes,
            session: session.0,
            arrival_ns: self.heard_ns,
            key: InputKey::Auto {
                invocation,
                ordinal,
            },
            group: &[],
            attached: 0,
        }
    }

    /// What it fires, in this session, on this executor.
    #[inline(always)]
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
        if self.tables.follower.is_some() {
            self.enter_follower();
        }
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
                let sender = app.executor(id.slot).open;
                let offered = self.tables.enter_note(app, sender, id.slot, &note);
                self.tables
                    .enter_offer(app, id.slot, offered, note.heard_ns);
            }
        }
        self.tables.noted.clear();
    }
}

impl Tables {
    /// Judges an offer, charges its object and notes it.
    #[inline(always)]
    pub(super) fn note_offer<S: Sink>(
        &mut self,
        app: &mut App,
        id: ExecutorId,
        (plain, invocation): (Plain, u64),
        sink: &mut S,
    ) -> Result<Noted, Fault> {
        let executor = &app.executors[usize::from(id.slot)];
        let open = executor.open("Offer")?;
        if executor.offer.is_some() || executor.noted.is_some() {
            return Err(Fault::OfferedTwice);
        }
        executor.grant.judge(invocation)?;
        let sender = &self.invocations[open];
        let session = sender.session.some().map(|of| &self.sessions[of]);
        if session.is_some_and(|session| session.durable.is_some()) {
            return Err(Fault::NotInPlace);
        }
        app.judge_payload(id.slot, plain.extent, plain.size_bytes)?;
        let (function, trigger) = app.judge_successor(sender.function, plain.target)?;

        let executor = &mut app.executors[usize::from(id.slot)];
        app.ledger.spend(&mut executor.credit, plain.extent)?;
        let is_low = executor.credit.is_low();
        executor.grant.take(invocation);
        executor.noted = Some(Note {
            plain,
            invocation,
            function,
            trigger,
            heard_ns: self.now_ns,
        });
        let Some(session) = session else {
            return Ok(Noted::IsInVain);
        };
        if app.is_at_limit() && self.is_past_limit_with(app, id.slot) {
            return Ok(Noted::IsPastLimit);
        }
        app.charge_object(plain.extent.len_bytes() + OBJECT_CHARGE_BYTES);
        self.noted.push(id);
        // Nobody else counts by function, waits or looks things up in its session, no bucket keeps
        // the object, and there is somebody who looks after offers that take long.
        let stays = session.is_plain() && !app.keeps(plain.target) && app.watches_offers();
        if is_low {
            app.top_up(id.slot, sink);
        }
        Ok(if stays {
            Noted::Stays
        } else {
            Noted::IsLookedAt
        })
    }

    /// Whether the noted object is one too many for an app that is at its limit.
    #[cold]
    fn is_past_limit_with(&self, app: &App, slot: u16) -> bool {
        let executor = &app.executors[usize::from(slot)];
        executor.noted.is_some_and(|note| {
            let publication = self.noted_publication(executor.open, slot, &note);
            self.is_past_limit(app, executor.open, &publication)
        })
    }

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
            to: sender.delivery(note.plain.target, slot),
            author: sender.author(),
            is_durable: false,
        }
    }

    /// Enters the object and the invocation that a note of this sender stands for.
    pub(super) fn enter_note(
        &mut self,
        app: &mut App,
        sender: Ref<Invocation>,
        slot: u16,
        note: &Note,
    ) -> Ref<Invocation> {
        let session = self.invocations[sender].session;
        let publication = self.noted_publication(sender, slot, note);
        let created = self.make(app, &publication.object, note.heard_ns);
        let inputs = std::iter::once(created);
        let entered = self.enter(app, note.firing(session, slot), note.invocation, inputs);
        self.enter_name(app, created, &publication);
        if let Target::Bucket(bucket) = note.plain.target {
            self.keep_in_bucket(app, created, bucket, session);
        }
        self.objects.pass_hold(created);
        entered
    }

    /// The only input of an invocation, and whose memory that is, where the ends of both concern
    /// nothing but their session and that memory.
    #[inline(always)]
    pub(super) fn ends_alone(&self, invocation: &Invocation) -> Option<(Ref<Object>, u16)> {
        let &[input] = invocation.held.as_slice() else {
            return None;
        };
        let object = &self.objects[input];
        let is_alone = invocation.leaves_nothing() && object.dies_alone();
        is_alone.then_some((input, object.region))
    }

    /// An invocation that [ends alone](Self::ends_alone), and its input, turn into what is noted.
    /// It has the same session, and holds that one's request and headers on, and one input. Answers
    /// with the memory that is free.
    #[inline(always)]
    pub(super) fn turn_into(
        &mut self,
        app: &mut App,
        slot: u16,
        (turned, input): (Ref<Invocation>, Ref<Object>),
        note: &Note,
    ) -> (u16, Extent) {
        let invocation = &mut self.invocations[turned];
        let object = &mut self.objects[input];
        let session = &self.sessions[invocation.session];
        let freed = (object.region, object.extent);
        let new = note.object(session.id, invocation.id, slot);
        let is_first = session.invocations == turned;
        invocation.begin(note.invocation, &note.firing(invocation.session, slot));
        invocation.queued_ns = note.heard_ns;
        invocation.input_count = 1;
        if app.regions[usize::from(slot)].live == input {
            object.become_new(&new, note.heard_ns);
        } else {
            self.unlink_from_region(app, input);
            self.objects[input].become_new(&new, note.heard_ns);
            self.link_into_region(app, input);
        }
        if !is_first {
            self.move_to_front_of_session(turned);
        }
        app.refund_object(freed.1.len_bytes() + OBJECT_CHARGE_BYTES);
        app.stats.invocations_total += 1;
        freed
    }

    /// The invocation that an executor has open has returned and turns into what is noted, where
    /// nothing else is concerned. False: something is, or nothing is noted; nothing has been done.
    #[inline(always)]
    pub(super) fn turn_into_noted<S: Sink>(
        &mut self,
        app: &mut App,
        id: ExecutorId,
        discarded: u32,
        sink: &mut S,
    ) -> Result<bool, Fault> {
        let executor = &mut app.executors[usize::from(id.slot)];
        let open = executor.open("Continue")?;
        let Some(note) = executor.noted else {
            return Ok(false);
        };
        let invocation = &self.invocations[open];
        let before = invocation.function;
        let Some((input, region)) = self.ends_alone(invocation) else {
            return Ok(false);
        };
        if region != id.slot || !app.ready.is_empty() || app.pool.has_failed() {
            return Ok(false);
        }

        let (_, freed) = self.turn_into(app, id.slot, (open, input), &note);
        let executor = &mut app.executors[usize::from(id.slot)];
        executor.noted = None;
        executor.completed = executor.completed.saturating_add(1);
        self.timers.cancel(&mut executor.timer);
        // The same function has been loaded before.
        if note.function != before || executor.loading {
            app.runs_on(id.slot, before, note.function);
        }
        if app.passed_over_ns.is_some() {
            app.note_precedence(note.function, note.heard_ns, self.now_ns);
        }
        if let Some(limit_ns) = app.plan.functions[usize::from(note.function)].timeout_ns {
            self.limit_time(app, id.slot, limit_ns);
        }
        app.stats.continued_total += 1;
        app.stats.discarded_total += u64::from(discarded);

        self.forget_note(id);
        self.look_at_waiters(app);
        self.release_extent(app, id.slot, freed, sink);
        Ok(true)
    }

    /// An executor's note is none any more.
    #[inline(always)]
    fn forget_note(&mut self, id: ExecutorId) {
        if self.noted.len() == 1 {
            self.noted.clear();
        } else {
            self.noted.retain(|&of| of != id);
        }
    }

    /// Puts an invocation before the others of its session, as if it had come just now.
    #[cold]
    fn move_to_front_of_session(&mut self, moved: Ref<Invocation>) {
        let session = &mut self.sessions[self.invocations[moved].session];
        let first = std::mem::replace(&mut session.invocations, moved);
        let invocation = &mut self.invocations[moved];
        let previous = std::mem::take(&mut invocation.session_previous);
        let next = std::mem::replace(&mut invocation.session_next, first);
        self.invocations[previous].session_next = next;
        if next.is_some() {
            self.invocations[next].session_previous = previous;
        }
        self.invocations[first].session_previous = moved;
    }
}

impl App {
    /// An executor goes on from a function, which is loaded by now, to another, which is then.
    fn runs_on(&mut self, slot: u16, from: u16, to: u16) {
        let executor = &mut self.executors[usize::from(slot)];
        executor.loading = false;
        executor.set_loaded(from);
        executor.set_loaded(to);
        self.functions[usize::from(from)].running -= 1;
        self.functions[usize::from(to)].running += 1;
    }

    /// Whether the bucket that an object is sent to holds it.
    #[inline(always)]
    pub(super) fn keeps(&self, target: Target) -> bool {
        match target {
            Target::Bucket(bucket) => self.plan.buckets[usize::from(bucket)].keeps,
            Target::Next | Target::Function(_) => false,
        }
    }
}
