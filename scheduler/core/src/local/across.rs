//! What goes to other levels and comes from them: objects for triggers that gather across sessions,
//! and what such a trigger fires.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use pheromone_shm::message::{Extent, InputKey};
use smallvec::SmallVec;

use crate::event::{AppId, RequestId, SessionId, Sink};
use crate::gather::outcome::{Complaint, Window};
use crate::level::{
    Addressed, Description, Gathered, ObjectId, Outgoing, ToCoordinator, ToLocal, WEIGHT, home,
};
use crate::limits::OBJECT_CHARGE_BYTES;
use crate::local::app::App;
use crate::local::lineage::Lineage;
use crate::local::name::{AutoText, key_text};
use crate::local::object::{Home, Object};
use crate::local::session::Session;
use crate::local::{Local, Tables};
use crate::slab::Ref;

/// Objects of other homes that something here holds, with their names there.
pub(super) type Foreign = HashMap<u32, ObjectId, RandomState>;

impl Local {
    /// Takes a message of another level that concerns sessions.
    #[cold]
    pub(super) fn take_across<S: Sink>(&mut self, message: ToLocal, sink: &mut S) {
        match message {
            ToLocal::Gather {
                app,
                trigger,
                window,
                inputs,
            } => self.gathered(app, (trigger, window), &inputs, sink),
            ToLocal::Release {
                app,
                object,
                holds,
                session,
                tokens,
            } => {
                self.let_go(app, object, holds, sink);
                if tokens > 0 {
                    self.returned(session, u64::from(tokens), None, sink);
                }
            }
            ToLocal::Return {
                app: _,
                session,
                tokens,
                failure,
            } => self.returned(session, tokens, failure, sink),
            ToLocal::Complain {
                app,
                object,
                complaint,
            } => self.complained(app, &object, complaint, sink),
            ToLocal::Answer(answer) => {
                let (app, session) = (answer.app, answer.from);
                self.answered_across(*answer, sink);
                self.tables.outgoing.push_back(Outgoing {
                    to: home(session),
                    message: Addressed::Local(ToLocal::Confirm { app, session }),
                });
            }
            ToLocal::Confirm { app, session } => self.confirmed(app, session, sink),
            ToLocal::Want { app, from, wants } => self.wanted(app, from, wants, sink),
            ToLocal::Give { app, gift } => self.given(app, gift, sink),
            ToLocal::Free { app, stay, offset } => self.freed(app, stay, offset, sink),
            ToLocal::Grow { .. } => unreachable!("handled by the caller"),
        }
    }

    /// A trigger has fired: a session opens for it.
    fn gathered<S: Sink>(
        &mut self,
        app: AppId,
        (trigger, window): (u16, Option<Window>),
        inputs: &[Gathered],
        sink: &mut S,
    ) {
        let is_going = self.apps.get(app).is_none_or(|app| app.removing);
        if is_going || !self.has_room_for_session() {
            // Requests are refused long before there are so many sessions.
            for input in inputs {
                self.tables.give_back(app, input);
            }
            return;
        }
        let session = self.open_session(app, RequestId(0), false, None, None);
        self.tables.sessions[session].lineage = Some(Box::new(Lineage::of(inputs)));
        let of = &mut self.apps[app];
        let near = inputs
            .first()
            .map(|first| first.object.region)
            .filter(|&region| region < of.spec.executor_slots());
        let objects: SmallVec<[Ref<Object>; 8]> = inputs
            .iter()
            .filter_map(|input| self.tables.receive(of, &input.object))
            .collect();
        self.tables
            .fire_trigger(of, trigger, session, near, &objects, window);
        for object in objects {
            self.tables.drop_hold(of, object, sink);
        }
        self.dispatch_ready(app, sink);
        self.settle(session, sink);
    }

    fn let_go<S: Sink>(&mut self, app: AppId, object: ObjectId, holds: u32, sink: &mut S) {
        let found = self.tables.objects.find(object.slot, object.generation);
        debug_assert!(found.is_some(), "an object that is held stays");
        if let (Some(found), Some(of)) = (found, self.apps.get_mut(app)) {
            self.tables.drop_holds(of, found, holds, sink);
            self.forget_if_empty(app, sink);
        }
    }

    fn complained<S: Sink>(
        &mut self,
        app: AppId,
        object: &Description,
        complaint: Complaint,
        sink: &mut S,
    ) {
        let Some(of) = self.apps.get_mut(app) else {
            return;
        };
        let Some(session) = self.tables.session(object.session) else {
            of.stats.error_events_total += 1;
            return;
        };
        let text = |_: &Tables, app: &App| {
            let mut room = AutoText::new();
            format!(
                "object `{}` of bucket `{}` {complaint}",
                String::from_utf8_lossy(key_text(object.key(), &mut room)),
                app.spec.buckets[usize::from(object.bucket)].name,
            )
        };
        self.tables.error_event(of, session, text, sink);
    }
}

impl Tables {
    /// Offers an object to those triggers of its bucket that gather across sessions.
    pub(super) fn offer_across(
        &mut self,
        app: &App,
        triggers: SmallVec<[u16; 2]>,
        offered: Ref<Object>,
        session: Ref<Session>,
    ) {
        let object = self.describe(offered);
        let bucket = object.bucket;
        let of = &mut self.sessions[session];
        let has_tokens = of.is_awaited();
        for &trigger in &triggers {
            self.objects.hold_times(offered, WEIGHT);
            if has_tokens {
                of.tokens += u64::from(WEIGHT);
            }
            let place = (trigger, bucket);
            let skips_ended = app.plan.triggers[usize::from(trigger)].skip_ended;
            if skips_ended && !of.withdraws.contains(&place) {
                of.withdraws.push(place);
            }
        }
        let message = ToCoordinator::Offer {
            app: app.id,
            triggers,
            object,
            has_tokens,
        };
        self.outgoing.push_back(Outgoing {
            to: app.division.gatherer(bucket),
            message: Addressed::Coordinator(message),
        });
    }

    /// An object for those who do not have it.
    pub(super) fn describe(&self, described: Ref<Object>) -> Description {
        let object = &self.objects[described];
        let id = if object.home == Home::Elsewhere {
            self.foreign[&described.slot()]
        } else {
            ObjectId {
                home: self.scheduler_index,
                slot: described.slot(),
                generation: self.objects.generation(described),
            }
        };
        object.describe(id)
    }

    /// An object that has come with one hold, which ends by [`Self::drop_hold`].
    pub(super) fn receive(&mut self, app: &mut App, object: &Description) -> Option<Ref<Object>> {
        if object.id.home == self.scheduler_index {
            let found = self.objects.find(object.id.slot, object.id.generation);
            debug_assert!(found.is_some(), "an object that is held stays");
            return found;
        }
        let (received, entry) = self.objects.take();
        entry.become_foreign(object);
        app.ledger.charge(OBJECT_CHARGE_BYTES);
        app.stats.objects_live += 1;
        self.foreign.insert(received.slot(), object.id);
        Some(received)
    }

    /// An object of another home has lost its last hold here.
    #[cold]
    pub(super) fn send_home(&mut self, app: AppId, dead: Ref<Object>) {
        let object = self.foreign.remove(&dead.slot());
        let object = object.expect("a foreign object has a name at its home");
        self.objects.give(dead);
        self.release_at_home(app, object, SessionId(0), 0);
    }

    /// An input that nobody here wants goes back to its home.
    fn give_back(&mut self, app: AppId, input: &Gathered) {
        let tokens = u32::from(input.has_token);
        self.release_at_home(app, input.object.id, input.object.session, tokens);
    }

    pub(super) fn release_at_home(
        &mut self,
        app: AppId,
        object: ObjectId,
        session: SessionId,
        tokens: u32,
    ) {
        let message = ToLocal::Release {
            app,
            object,
            holds: 1,
            session,
            tokens,
        };
        self.outgoing.push_back(Outgoing {
            to: object.home,
            message: Addressed::Local(message),
        });
    }

    /// Work of an app waits, and no executor here sleeps: its coordinator is told.
    pub(super) fn overflow_to_coordinator(&mut self, app: AppId) {
        let at = self.scheduler_index;
        self.outgoing.push_back(Outgoing {
            to: at,
            message: Addressed::Coordinator(ToCoordinator::Overflow { app, at }),
        });
    }
}

impl Description {
    fn key(&self) -> InputKey<'_> {
        if self.key_bytes == 0 {
            let (invocation, ordinal) = self.automatic;
            return InputKey::Auto {
                invocation,
                ordinal,
            };
        }
        InputKey::Named(&self.text[..usize::from(self.key_bytes)])
    }

    pub(super) fn extent(&self) -> Extent {
        Extent {
            offset_units: self.offset_units,
            len_units: self.len_units,
        }
    }
}
