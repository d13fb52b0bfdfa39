//! Dead letters that move on: when another version takes an app's place, its letters become that
//! version's, so that what has failed can run again once it is mended.
//!
//! The versions share no memory, so the node copies what a letter holds. Until it has, the letter
//! stays here, out of everybody's way; it is then another version's alone.

use pheromone_shm::message::{Extent, HeadersRef, InputKey, NO_TRIGGER};
use smallvec::SmallVec;

use crate::event::{AppId, Failure, HandedKey, HandedLetter, HandedObject, HandedRole, Part, Sink};
use crate::gather::outcome::Window;
use crate::local::app::App;
use crate::local::dead::{Inputs, Letter};
use crate::local::object::{Attached, NewObject, Object, Payload};
use crate::local::{Local, Tables};
use crate::slab::Ref;

impl Local {
    /// From here on the letters of an app are told to the node.
    pub(super) fn hand_over<S: Sink>(&mut self, id: AppId, sink: &mut S) {
        let Some(app) = self.apps.get_mut(id).filter(|app| !app.removing) else {
            return;
        };
        app.dead.hands_over = true;
        while let Some(letter) = app.dead.take(0) {
            self.tables.hand_over_letter(app, letter, sink);
        }
    }

    /// The node has done with a letter that it has been told.
    pub(super) fn letter_taken<S: Sink>(&mut self, id: AppId, letter: u64, sink: &mut S) {
        if let Some(app) = self.apps.get_mut(id)
            && let Some(at) = app.dead.given.iter().position(|given| given.id == letter)
        {
            let taken = app.dead.given.swap_remove(at);
            self.tables.let_go_of_letter(app, taken, sink);
        }
    }

    /// A letter comes from the version before.
    pub(super) fn adopt_letter<S: Sink>(&mut self, id: AppId, handed: &HandedLetter, sink: &mut S) {
        // With an app that is gone its ingress memory is gone, too.
        let Some(app) = self.apps.get_mut(id) else {
            return;
        };
        let inputs = handed.objects.as_deref();
        let inputs = inputs.map(|objects| self.tables.adopt_inputs(app, objects));
        let mut letter = Letter {
            id: handed.id,
            function: handed.function,
            trigger: NO_TRIGGER,
            window: handed
                .window
                .map(|(start_ns, end_ns)| Window { start_ns, end_ns }),
            session: handed.session,
            failure: handed.failure.clone(),
            died_ns: handed.died_ns,
            input_count: handed.input_count,
            inputs,
            held: Default::default(),
        };
        if app.removing {
            self.tables.let_go_of_letter(app, letter, sink);
            return self.forget_if_empty(id, sink);
        }
        self.tables.weigh_letter(app, &mut letter, sink);
        self.tables.enter_letter(app, letter, sink);
    }
}

impl Tables {
    /// Tells the node of a letter, and keeps it until the node has done with it.
    pub(super) fn hand_over_letter<S: Sink>(
        &mut self,
        app: &mut App,
        letter: Letter,
        sink: &mut S,
    ) {
        let handed = HandedLetter {
            id: letter.id,
            function: letter.function,
            session: letter.session,
            // Whoever ran it is nobody's executor there.
            failure: Failure {
                executor: None,
                ..letter.failure.clone()
            },
            died_ns: letter.died_ns,
            input_count: letter.input_count,
            window: letter.window.map(|window| (window.start_ns, window.end_ns)),
            objects: letter.inputs.as_ref().map(|inputs| self.handed(inputs)),
        };
        sink.letter(app.id, &handed);
        app.dead.given.push(letter);
    }

    /// What a letter holds, what is attached to an object after it.
    fn handed(&self, inputs: &Inputs) -> Vec<HandedObject> {
        let mut found: Vec<(HandedRole, Ref<Object>)> = Vec::new();
        let objects = inputs.objects.iter();
        found.extend(objects.map(|&object| (HandedRole::Input, object)));
        let kept = [
            (HandedRole::Request, inputs.request),
            (HandedRole::Headers, inputs.headers_object),
        ];
        found.extend(kept.into_iter().filter(|(_, object)| object.is_some()));
        let mut at = 0;
        while let Some(&(_, object)) = found.get(at) {
            let role = HandedRole::Attached { to: at as u32 };
            let attached = self.attached_to(object).iter();
            found.extend(attached.map(|&attached| (role, attached)));
            at += 1;
        }
        let told = |(role, object)| self.objects[object].handed(role);
        found.into_iter().map(told).collect()
    }

    /// Objects as another version has told of them, with their payloads in the ingress region.
    fn adopt_inputs(&mut self, app: &mut App, objects: &[HandedObject]) -> Inputs {
        let mut inputs = Inputs::default();
        let mut created: Vec<(Ref<Object>, Attached)> = Vec::with_capacity(objects.len());
        for handed in objects {
            let object = self.create(app, &handed.as_new(app.spec.ingress_slot()));
            self.objects[object].arrives(handed.arrival_ns);
            created.push((object, SmallVec::new()));
            match handed.role {
                HandedRole::Input => inputs.objects.push(object),
                HandedRole::Request => inputs.request = object,
                HandedRole::Headers => {
                    inputs.headers_object = object;
                    inputs.headers = Some(HeadersRef {
                        region: app.spec.ingress_slot(),
                        offset_units: handed.part.offset_units,
                        size_bytes: handed.part.size_bytes as u32,
                    });
                }
                HandedRole::Attached { to } => created[to as usize].1.push(object),
            }
        }
        for (object, attached) in created {
            self.attach(object, attached);
        }
        inputs
    }
}

impl Object {
    fn handed(&self, role: HandedRole) -> HandedObject {
        let input = self.input();
        HandedObject {
            role,
            part: Part {
                region: self.region,
                offset_units: self.extent.offset_units,
                size_bytes: self.size_bytes,
            },
            len_units: self.extent.len_units,
            bucket: self.bucket,
            key: match input.key {
                InputKey::Auto {
                    invocation,
                    ordinal,
                } => HandedKey::Auto(invocation, ordinal),
                InputKey::Named(key) => HandedKey::Named(key.to_vec()),
            },
            group: input.group.to_vec(),
            session: self.session,
            arrival_ns: input.arrival_ns,
        }
    }
}

impl HandedObject {
    fn as_new(&self, region: u16) -> NewObject<'_> {
        NewObject {
            session: self.session,
            payload: Payload {
                region,
                extent: Extent {
                    offset_units: self.part.offset_units,
                    len_units: self.len_units,
                },
                size_bytes: self.part.size_bytes,
                root: Ref::NONE,
            },
            bucket: self.bucket,
            key: match &self.key {
                HandedKey::Auto(invocation, ordinal) => InputKey::Auto {
                    invocation: *invocation,
                    ordinal: *ordinal,
                },
                HandedKey::Named(key) => InputKey::Named(key),
            },
            group: &self.group,
            labelled: (0, 0),
        }
    }
}
