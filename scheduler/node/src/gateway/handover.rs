//! Dead letters that move from a version of an app to the one that takes its place.
//!
//! The versions share no memory: what a letter holds is read from the old one's regions and written
//! into the new one's ingress region, some of it each turn, so that nobody else waits for it. The
//! names of functions and buckets say what the old one's numbers are in the new one.

use std::sync::Arc;

use crossbeam_channel::Sender;
use pheromone_core::event::HandedLetter;
use pheromone_scheduler::protocol::{ToScheduler, pieces};
use pheromone_shm::message::{Extent, NO_BUCKET};

use super::Gateway;
use super::response::READ_PER_TURN_BYTES;
use crate::app::Version;
use crate::output::OutputKind;
use crate::reading::PART_COST_BYTES;
use crate::routing::Tried;

/// A version whose dead letters another one takes.
pub(super) struct Handing {
    /// Schedulers that have not told of all letters that there were.
    unanswered: u8,
    /// Told when those have moved.
    done: Option<Sender<()>>,
}

/// A letter on its way.
pub(super) struct Moving {
    /// The scheduler that keeps it until it has been copied.
    from: u8,
    app: u16,
    /// The version that takes it; `None`: nobody does.
    to: Option<u16>,
    letter: HandedLetter,
    /// What has been copied of what it holds.
    copied: Vec<Extent>,
}

impl Moving {
    fn is_copied(&self) -> bool {
        let objects = self.letter.objects.as_deref();
        self.to.is_none() || self.copied.len() == objects.map_or(0, <[_]>::len)
    }
}

impl Gateway {
    /// Another version has taken the place of this one.
    pub(super) fn start_handing_over(&mut self, before: u16, done: Sender<()>) {
        if let Some(gate) = self.apps.get_mut(&before) {
            gate.handing = Some(Handing {
                unanswered: gate.version.division.count(),
                done: Some(done),
            });
            self.tell_homes(before, &ToScheduler::HandOver { app: before });
        }
    }

    /// A piece of a letter of a version whose place has been taken.
    pub(super) fn hear_handed(&mut self, from: usize, app: u16, piece: &[u8], more: bool) {
        let bytes = self.handed_bytes.entry(from).or_default();
        bytes.extend_from_slice(piece);
        if more {
            return;
        }
        match postcard::from_bytes(&std::mem::take(bytes)) {
            Ok(letter) => self.hear_whole(from as u8, app, letter),
            Err(error) => {
                self.give_up_on_scheduler(format!("it sent what is no dead letter: {error}"));
            }
        }
    }

    fn hear_whole(&mut self, from: u8, app: u16, mut letter: HandedLetter) {
        let Some(gate) = self.apps.get(&app) else {
            return;
        };
        let source = Arc::clone(&gate.version);
        let current = self.routes.get(source.name()).copied();
        let target = current.and_then(|current| Some((current, self.apps.get(&current)?)));
        let target = target.map(|(current, gate)| (current, Arc::clone(&gate.version)));
        let mut to = None;
        if let Some((current, target)) = target {
            if renumber(&mut letter, &source, &target) {
                to = Some(current);
            } else {
                self.tell_dropped(app, &letter, &source);
            }
        }
        self.moving.push_back(Moving {
            from,
            app,
            to,
            letter,
            copied: Vec::new(),
        });
    }

    fn tell_dropped(&self, app: u16, letter: &HandedLetter, source: &Version) {
        let name = &source.function_names[usize::from(letter.function)];
        let text = format!(
            "dead letter {} is dropped: the app has no function `{name}` any more",
            letter.id
        );
        self.event(app, letter.session.0, OutputKind::Notice, text);
    }

    /// A scheduler has told of all letters that there were.
    pub(super) fn handed_over(&mut self, app: u16) {
        let gate = self.apps.get_mut(&app);
        if let Some(handing) = gate.and_then(|gate| gate.handing.as_mut()) {
            handing.unanswered = handing.unanswered.saturating_sub(1);
        }
        self.tell_if_moved(app);
    }

    /// Moves letters on, as much as one turn has time for. Whether there were any.
    pub(super) fn move_letters(&mut self) -> bool {
        let worked = !self.moving.is_empty();
        let mut budget_bytes = READ_PER_TURN_BYTES;
        while budget_bytes > 0
            && let Some(mut moving) = self.moving.pop_front()
        {
            self.copy(&mut moving, &mut budget_bytes);
            if moving.is_copied() {
                self.give_letter(moving);
            } else {
                self.moving.push_front(moving);
            }
        }
        worked
    }

    /// Copies what a letter holds, until the budget is used up. Where the new version has no room
    /// for it, the letter goes without.
    fn copy(&mut self, moving: &mut Moving, budget_bytes: &mut u64) {
        *budget_bytes = budget_bytes.saturating_sub(PART_COST_BYTES);
        let source = self.apps.get(&moving.app);
        let source = source.map(|gate| Arc::clone(&gate.version));
        let target = moving.to.and_then(|to| self.apps.get_mut(&to));
        let (Some(source), Some(gate)) = (source, target) else {
            moving.to = None;
            return;
        };
        let objects = moving.letter.objects.iter_mut().flatten();
        for object in objects.skip(moving.copied.len()) {
            if *budget_bytes == 0 {
                return;
            }
            let part = &mut object.part;
            *budget_bytes = budget_bytes.saturating_sub(PART_COST_BYTES + part.size_bytes);
            let mut payload = Vec::new();
            let bytes = 0..part.size_bytes;
            let read = source
                .regions
                .read(part.region, part.offset_units, bytes, &mut payload);
            let placed = read.ok().and_then(|()| gate.place(&payload).ok());
            let Some(extent) = placed else {
                for extent in moving.copied.drain(..) {
                    gate.give_back(extent);
                }
                moving.letter.objects = None;
                return;
            };
            part.offset_units = extent.offset_units;
            object.len_units = extent.len_units;
            moving.copied.push(extent);
        }
    }

    /// Gives a copied letter to the version that takes it, and has the one before let go of it.
    fn give_letter(&mut self, moving: Moving) {
        let target = moving.to.and_then(|to| Some((to, self.apps.get(&to)?)));
        let home = target.and_then(|(to, gate)| Some((to, gate.homes.lightest(Tried::default())?)));
        if let Some((app, home)) = home {
            let bytes = postcard::to_allocvec(&moving.letter)
                .expect("letters of numbers, bytes and lists always encode");
            for (bytes, more) in pieces(&bytes) {
                self.tell(home, &ToScheduler::Adopt { app, bytes, more });
            }
        }
        let (app, letter) = (moving.app, moving.letter.id);
        self.tell(moving.from, &ToScheduler::LetterTaken { app, letter });
        self.tell_if_moved(app);
        self.look_at_retiring(app);
    }

    /// Whether letters of a version are being copied.
    pub(super) fn moves_letters_of(&self, app: u16) -> bool {
        self.moving.iter().any(|moving| moving.app == app)
    }

    /// Tells whoever waits for it that the letters of a version have moved.
    fn tell_if_moved(&mut self, app: u16) {
        let is_moving = self.moves_letters_of(app);
        let gate = self.apps.get_mut(&app);
        if let Some(handing) = gate.and_then(|gate| gate.handing.as_mut())
            && handing.unanswered == 0
            && !is_moving
            && let Some(done) = handing.done.take()
        {
            // Whoever has stopped waiting does not mind.
            let _ = done.send(());
        }
    }
}

/// Turns the numbers of one version into those of another. False: the other one does not have the
/// function. A bucket that it does not have is none.
fn renumber(letter: &mut HandedLetter, from: &Version, to: &Version) -> bool {
    let name = &from.function_names[usize::from(letter.function)];
    let Some(&function) = to.functions.get(name) else {
        return false;
    };
    letter.function = function;
    letter.failure.function = Some(function);
    for object in letter.objects.iter_mut().flatten() {
        let bucket = from.spec.buckets.get(usize::from(object.bucket));
        let bucket = bucket.and_then(|bucket| to.buckets.get(&bucket.name));
        object.bucket = bucket.copied().unwrap_or(NO_BUCKET);
    }
    true
}
