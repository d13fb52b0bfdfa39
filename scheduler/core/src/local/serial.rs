//! Serial functions (`serial_by`): of the invocations that are alike in key, group or session, at
//! most `serial_width` are under way at once, and they go in order of firing.
//!
//! Those of one function that are alike are a line. Who fires while the line has a free place takes
//! it and is queued as any other; who does not waits here, where dispatch and the pool do not see
//! it. A place is kept over backoff and further attempts until the invocation's final end, and then
//! passes to the first who waits. A line without anybody is forgotten.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::event::AppId;
use crate::local::Tables;
use crate::local::afterwards::Afterwards;
use crate::local::app::App;
use crate::local::invocation::{Invocation, Place};
use crate::local::name::{AutoText, key_text};
use crate::slab::{Ref, Slab};
use crate::spec::SerialBy;

/// What an invocation is compared by.
type Likeness = SmallVec<[u8; 32]>;

/// Invocations of one function that are alike.
pub(super) struct Line {
    app: AppId,
    function: u16,
    likeness: Likeness,
    hash: u64,
    /// How many have a place.
    placed: u32,
    /// Those who wait, in order of firing, linked as in a function's queue.
    first: Ref<Invocation>,
    last: Ref<Invocation>,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            app: AppId(0),
            function: 0,
            likeness: Likeness::new(),
            hash: 0,
            placed: 0,
            first: Ref::NONE,
            last: Ref::NONE,
        }
    }
}

/// The lines of all apps, found by function and likeness.
pub(super) struct Lines {
    lines: Slab<Line>,
    table: HashTable<Ref<Line>>,
    /// Seeded, so that functions cannot choose keys that collide; no decision depends on it.
    hasher: RandomState,
}

impl Lines {
    pub(super) fn new() -> Self {
        Self {
            lines: Slab::new(),
            table: HashTable::new(),
            hasher: RandomState::default(),
        }
    }

    pub(super) fn live(&self) -> u32 {
        self.lines.live()
    }

    /// The line of these; a new one if there is none.
    fn find(&mut self, app: AppId, function: u16, likeness: Likeness) -> Ref<Line> {
        let hash = self.hasher.hash_one((app, function, &likeness[..]));
        let same = |&line: &Ref<Line>| {
            let line = &self.lines[line];
            line.app == app && line.function == function && line.likeness == likeness
        };
        if let Some(&found) = self.table.find(hash, same) {
            return found;
        }
        let (made, line) = self.lines.take();
        line.app = app;
        line.function = function;
        line.likeness = likeness;
        line.hash = hash;
        let lines = &self.lines;
        self.table
            .insert_unique(hash, made, |&line| lines[line].hash);
        made
    }

    fn forget_if_empty(&mut self, forgotten: Ref<Line>) {
        let line = &self.lines[forgotten];
        if line.placed > 0 || line.first.is_some() {
            return;
        }
        let entry = self
            .table
            .find_entry(line.hash, |&other| other == forgotten)
            .expect("a line stays in the table until it is forgotten");
        entry.remove();
        self.lines.give(forgotten);
    }
}

impl Tables {
    /// An invocation of a serial function fires: it takes a place of its line. False: there is none
    /// free, and it waits.
    #[inline(never)]
    pub(super) fn takes_place(&mut self, app: &mut App, fired: Ref<Invocation>) -> bool {
        let function = self.invocations[fired].function;
        let plan = &app.plan.functions[usize::from(function)];
        let by = plan.serial_by.expect("only serial functions have lines");
        let likeness = self.likeness(fired, by);
        let at = self.lines.find(app.id, function, likeness);
        let line = &mut self.lines.lines[at];
        let invocation = &mut self.invocations[fired];
        invocation.line = at;
        if line.placed < plan.serial_width {
            line.placed += 1;
            return true;
        }
        let previous = std::mem::replace(&mut line.last, fired);
        invocation.place = Place::InLine;
        invocation.queue_previous = previous;
        invocation.queue_next = Ref::NONE;
        match previous.some() {
            Some(previous) => self.invocations[previous].queue_next = fired,
            None => line.first = fired,
        }
        app.in_line += 1;
        false
    }

    /// The final end of an invocation that had a place: the first who waits for it is queued.
    /// Whether there was one.
    #[inline(never)]
    pub(super) fn pass_place(&mut self, app: &mut App, ended: Ref<Invocation>) -> bool {
        let at = std::mem::take(&mut self.invocations[ended].line);
        let line = &mut self.lines.lines[at];
        let Some(next) = line.first.some() else {
            line.placed -= 1;
            self.lines.forget_if_empty(at);
            return false;
        };
        self.step_out(app, next);
        self.queue(app, next);
        true
    }

    /// As [`Self::pass_place`], where the invocation has one and whoever ends it does not look for
    /// work afterwards: that is done at the end of the step.
    pub(super) fn pass_place_later(&mut self, app: &mut App, ended: Ref<Invocation>) {
        if self.invocations[ended].line.is_some() && self.pass_place(app, ended) {
            self.afterwards.push_back(Afterwards::Dispatch(app.id));
        }
    }

    /// Takes an invocation that waits in its line off it for good.
    pub(super) fn leave_line(&mut self, app: &mut App, leaving: Ref<Invocation>) {
        self.step_out(app, leaving);
        let invocation = &mut self.invocations[leaving];
        app.stats.calls_waiting -= u64::from(invocation.is_call);
        let at = std::mem::take(&mut invocation.line);
        self.lines.forget_if_empty(at);
    }

    /// Unlinks an invocation from those who wait in its line.
    fn step_out(&mut self, app: &mut App, leaving: Ref<Invocation>) {
        let invocation = &self.invocations[leaving];
        let (previous, next) = (invocation.queue_previous, invocation.queue_next);
        let line = &mut self.lines.lines[invocation.line];
        match previous.some() {
            Some(previous) => self.invocations[previous].queue_next = next,
            None => line.first = next,
        }
        match next.some() {
            Some(next) => self.invocations[next].queue_previous = previous,
            None => line.last = previous,
        }
        app.in_line -= 1;
    }

    /// What an invocation is compared by. One without inputs has the empty key and group. The text
    /// of an automatic key begins with `~`, as no other does, so that each is a key of its own.
    fn likeness(&self, fired: Ref<Invocation>, by: SerialBy) -> Likeness {
        let invocation = &self.invocations[fired];
        if by == SerialBy::Session {
            let session = self.sessions[invocation.session].id;
            return SmallVec::from_slice(&session.0.to_le_bytes());
        }
        let Some(&first) = invocation.held.first() else {
            return SmallVec::new();
        };
        let input = self.objects[first].input();
        let mut text = AutoText::new();
        SmallVec::from_slice(match by {
            SerialBy::Key => key_text(input.key, &mut text),
            SerialBy::Group | SerialBy::Session => input.group,
        })
    }
}
