//! Dead letters: invocations that are out of attempts, kept with their inputs until somebody has
//! them run again or drops them.
//!
//! A letter holds its inputs, and with them what is attached to those, so the ledger counts them.
//! How many letters there are is bounded, and what they hold is, in bytes and objects: the oldest
//! make room for new ones, and one whose inputs alone are too much is kept without them.

use std::collections::VecDeque;

use smallvec::SmallVec;

use crate::event::{AppId, DeadLetter, Failure, Refusal, Retry, SessionId, Sink};
use crate::gather::outcome::Window;
use crate::limits::{DEAD_LETTERS_MAX, DEAD_LETTERS_PART, OBJECT_CHARGE_BYTES};
use crate::local::app::App;
use crate::local::invocation::{Firing, Invocation};
use crate::local::lineage::Lineage;
use crate::local::object::Object;
use crate::local::{Local, Tables};
use crate::slab::Ref;
use pheromone_shm::message::HeadersRef;

/// The dead letters of an app, the oldest first.
#[derive(Default)]
pub(super) struct Dead {
    letters: VecDeque<Letter>,
    /// What they hold.
    held: Held,
    /// They are another version's (`handover.rs`).
    pub(super) hands_over: bool,
    /// Those that the node has been told of and has not done with.
    pub(super) given: Vec<Letter>,
}

/// An invocation that is out of attempts.
pub(super) struct Letter {
    /// The invocation's id.
    pub(super) id: u64,
    pub(super) function: u16,
    pub(super) trigger: u16,
    pub(super) window: Option<Window>,
    pub(super) session: SessionId,
    pub(super) failure: Failure,
    pub(super) died_ns: u64,
    pub(super) input_count: u32,
    /// None where they were too much: it cannot run again then.
    pub(super) inputs: Option<Inputs>,
    /// What is held for it.
    pub(super) held: Held,
}

/// What an invocation needs to run again, a hold on each.
#[derive(Default)]
pub(super) struct Inputs {
    pub(super) objects: SmallVec<[Ref<Object>; 4]>,
    /// The session's request and header block, where it has kept them.
    pub(super) request: Ref<Object>,
    pub(super) headers_object: Ref<Object>,
    pub(super) headers: Option<HeadersRef>,
}

impl Inputs {
    fn all(&self) -> impl Iterator<Item = Ref<Object>> {
        let kept = [self.request, self.headers_object];
        let kept = kept.into_iter().filter_map(Ref::some);
        self.objects.iter().copied().chain(kept)
    }
}

/// What letters hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    objects: u64,
    bytes: u64,
}

impl Held {
    fn add(&mut self, other: Self) {
        self.objects += other.objects;
        self.bytes += other.bytes;
    }

    fn take(&mut self, other: Self) {
        self.objects -= other.objects;
        self.bytes -= other.bytes;
    }

    fn fits(self, room: Self) -> bool {
        self.objects <= room.objects && self.bytes <= room.bytes
    }
}

impl Dead {
    /// How many there are, those on their way to another version among them.
    pub(super) fn count(&self) -> u64 {
        (self.letters.len() + self.given.len()) as u64
    }

    pub(super) fn held_bytes(&self) -> u64 {
        self.held.bytes
    }

    /// The letters as they are told of, the oldest first.
    pub(super) fn list(&self) -> impl Iterator<Item = DeadLetter<'_>> {
        self.letters.iter().map(|letter| DeadLetter {
            id: letter.id,
            function: letter.function,
            session: letter.session,
            failure: &letter.failure,
            died_ns: letter.died_ns,
            input_count: letter.input_count,
            held_bytes: letter.held.bytes,
            has_inputs: letter.inputs.is_some(),
        })
    }

    fn position(&self, id: u64) -> Option<usize> {
        self.letters.iter().position(|letter| letter.id == id)
    }

    pub(super) fn take(&mut self, at: usize) -> Option<Letter> {
        let letter = self.letters.remove(at)?;
        self.held.take(letter.held);
        Some(letter)
    }

    /// Puts a letter where its age says.
    fn insert(&mut self, letter: Letter) {
        let is_older = |other: &Letter| other.died_ns <= letter.died_ns;
        let at = self.letters.partition_point(is_older);
        self.held.add(letter.held);
        self.letters.insert(at, letter);
    }
}

impl App {
    /// What its dead letters may hold here. A part of memory and objects is the most, so that what
    /// has failed never keeps from working what has not.
    fn room_for_letters(&self) -> Held {
        let part_bytes = self.share.memory_bytes / DEAD_LETTERS_PART;
        Held {
            objects: u64::from(self.share.limits.objects) / DEAD_LETTERS_PART,
            bytes: self.share.limits.dead_letters_bytes.min(part_bytes),
        }
    }

    fn letters_max(&self) -> usize {
        self.share.part_of(DEAD_LETTERS_MAX).max(1) as usize
    }
}

impl Tables {
    /// An invocation is out of attempts: it becomes a dead letter. The caller ends it.
    #[cold]
    pub(super) fn bury<S: Sink>(
        &mut self,
        app: &mut App,
        failed: Ref<Invocation>,
        failure: &Failure,
        sink: &mut S,
    ) {
        let invocation = &self.invocations[failed];
        let session = &self.sessions[invocation.session];
        let inputs = Inputs {
            objects: invocation.held[..invocation.input_count as usize].into(),
            request: session.request_object,
            headers_object: session.headers_object,
            headers: session.headers,
        };
        for object in inputs.all() {
            self.objects.hold(object);
        }
        let mut letter = Letter {
            id: invocation.id,
            function: invocation.function,
            trigger: invocation.trigger,
            window: invocation.window,
            session: session.id,
            failure: failure.clone(),
            died_ns: self.now_ns,
            input_count: invocation.input_count,
            inputs: Some(inputs),
            held: Held::default(),
        };
        app.stats.dead_letters_total += 1;
        self.weigh_letter(app, &mut letter, sink);
        self.enter_letter(app, letter, sink);
    }

    /// Notes what is held for a letter. Where that alone is too much, it is let go of.
    pub(super) fn weigh_letter<S: Sink>(
        &mut self,
        app: &mut App,
        letter: &mut Letter,
        sink: &mut S,
    ) {
        let Some(inputs) = &letter.inputs else {
            return;
        };
        match self.weigh(inputs, app.room_for_letters()) {
            Some(held) => letter.held = held,
            None => self.let_go_of_inputs(app, letter, sink),
        }
    }

    /// Adds a letter; the oldest make room for it. Where letters are another version's it is handed
    /// over.
    pub(super) fn enter_letter<S: Sink>(&mut self, app: &mut App, letter: Letter, sink: &mut S) {
        if app.dead.hands_over {
            return self.hand_over_letter(app, letter, sink);
        }
        app.dead.insert(letter);
        let (most, room) = (app.letters_max(), app.room_for_letters());
        while (app.dead.letters.len() > most || !app.dead.held.fits(room))
            && let Some(oldest) = app.dead.take(0)
        {
            app.stats.dead_letters_pushed_out_total += 1;
            self.let_go_of_letter(app, oldest, sink);
        }
    }

    /// What inputs hold, with all that is attached to them; nothing where that is more than there
    /// is room for.
    fn weigh(&self, inputs: &Inputs, room: Held) -> Option<Held> {
        let mut held = Held::default();
        let mut next: Vec<Ref<Object>> = inputs.all().collect();
        while let Some(object) = next.pop() {
            held.add(Held {
                objects: 1,
                bytes: self.objects[object].extent.len_bytes() + OBJECT_CHARGE_BYTES,
            });
            if !held.fits(room) {
                return None;
            }
            next.extend_from_slice(self.attached_to(object));
        }
        Some(held)
    }

    fn let_go_of_inputs<S: Sink>(&mut self, app: &mut App, letter: &mut Letter, sink: &mut S) {
        let inputs = letter.inputs.take();
        for object in inputs.iter().flat_map(Inputs::all) {
            self.drop_hold(app, object, sink);
        }
    }

    pub(super) fn let_go_of_letter<S: Sink>(
        &mut self,
        app: &mut App,
        mut letter: Letter,
        sink: &mut S,
    ) {
        self.let_go_of_inputs(app, &mut letter, sink);
    }

    /// Drops all letters of an app.
    fn drop_all_letters<S: Sink>(&mut self, app: &mut App, sink: &mut S) {
        while let Some(letter) = app.dead.take(0) {
            app.stats.dead_letters_dropped_total += 1;
            self.let_go_of_letter(app, letter, sink);
        }
    }

    /// Drops the letters of an app that goes, those on their way to another version too.
    pub(super) fn forget_letters<S: Sink>(&mut self, app: &mut App, sink: &mut S) {
        self.drop_all_letters(app, sink);
        for given in std::mem::take(&mut app.dead.given) {
            self.let_go_of_letter(app, given, sink);
        }
    }
}

impl Local {
    /// Drops a letter, or all.
    pub(super) fn drop_letters<S: Sink>(&mut self, id: AppId, letter: Option<u64>, sink: &mut S) {
        let Some(app) = self.apps.get_mut(id) else {
            return;
        };
        let Some(letter) = letter else {
            return self.tables.drop_all_letters(app, sink);
        };
        let found = app.dead.position(letter);
        if let Some(dropped) = found.and_then(|at| app.dead.take(at)) {
            app.stats.dead_letters_dropped_total += 1;
            self.tables.let_go_of_letter(app, dropped, sink);
        }
    }

    /// Has a letter's function run again over the same inputs, in a session whose parent is the
    /// one that it has failed in. The letter is gone then.
    pub(super) fn retry<S: Sink>(&mut self, retry: &Retry, sink: &mut S) {
        match self.letter_to_retry(retry) {
            Ok((letter, inputs)) => self.begin_again(retry, letter, inputs, sink),
            Err(refusal) => {
                if let Some(app) = self.apps.get_mut(retry.app) {
                    app.stats.refused_total += 1;
                }
                sink.refused(retry.id, refusal);
            }
        }
    }

    /// Takes the letter out, where it can run again now.
    fn letter_to_retry(&mut self, retry: &Retry) -> Result<(Letter, Inputs), Refusal> {
        let has_room = self.has_room_for_session();
        let app = self.apps.get_mut(retry.app);
        let app = app.filter(|app| !app.removing).ok_or(Refusal::NoApp)?;
        let at = app.dead.position(retry.letter).ok_or(Refusal::NoLetter)?;
        if app.dead.letters[at].inputs.is_none() {
            return Err(Refusal::NoInputs);
        }
        let limits = &app.share.limits;
        if app.stats.sessions_open >= u64::from(limits.sessions) || !has_room {
            return Err(Refusal::Sessions);
        }
        if app.stats.calls_waiting >= u64::from(limits.calls_waiting) {
            return Err(Refusal::CallsWaiting);
        }
        let mut letter = app.dead.take(at).ok_or(Refusal::NoLetter)?;
        app.stats.dead_letters_retried_total += 1;
        let inputs = letter.inputs.take().ok_or(Refusal::NoInputs)?;
        Ok((letter, inputs))
    }

    fn begin_again<S: Sink>(
        &mut self,
        retry: &Retry,
        letter: Letter,
        inputs: Inputs,
        sink: &mut S,
    ) {
        let timeout_ns = self.apps[retry.app].shortened_timeout_ns(retry.timeout_ns);
        let session = self.open_session(retry.app, retry.id, retry.has_caller, timeout_ns, None);
        let tables = &mut self.tables;
        let contributors = inputs.objects.iter().map(|&at| tables.objects[at].session);
        let lineage = Lineage::of_retry(letter.session, contributors);
        let of = &mut tables.sessions[session];
        of.lineage = Some(Box::new(lineage));
        // The letter's holds become the session's.
        of.request_object = inputs.request;
        of.headers_object = inputs.headers_object;
        of.headers = inputs.headers;
        let firing = Firing {
            trigger: letter.trigger,
            window: letter.window,
            is_call: true,
            ..Firing::new(session, letter.function)
        };
        let app = &mut self.apps[retry.app];
        tables.fire(app, firing, inputs.objects.iter().copied());
        for object in inputs.objects {
            tables.drop_hold(app, object, sink);
        }
        self.dispatch_ready(retry.app, sink);
        sink.accepted(retry.id, self.tables.sessions[session].id);
        self.settle(session, sink);
    }
}
