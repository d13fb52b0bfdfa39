//! Retained objects: held by their bucket for a time of their own, beyond their session, and found
//! by `phr_load` from any session.
//!
//! Of several of one name the last to arrive is found. All of a bucket are retained equally long,
//! so when that one goes no older one is left.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::event::{AppId, Sink};
use crate::local::app::App;
use crate::local::name::{AutoText, key_text};
use crate::local::object::Object;
use crate::local::{Local, Tables, Timer};
use crate::slab::Ref;
use crate::spec::Retain;
use crate::timer::TimerId;

/// The last to arrive of the retained objects of a bucket and key.
pub(super) type RetainedByName = HashMap<(u16, Box<[u8]>), Ref<Retained>, RandomState>;

/// One of them.
#[derive(Default)]
pub(super) struct Retained {
    app: Option<AppId>,
    object: Ref<Object>,
    timer: TimerId,
}

impl Local {
    /// An object has been retained as long as its bucket says.
    pub(super) fn retained_timer<S: Sink>(&mut self, due: Ref<Retained>, sink: &mut S) {
        let Some(id) = self.tables.retained[due].app else {
            return;
        };
        let app = &mut self.apps[id];
        let object = self.tables.objects[self.tables.retained[due].object].input();
        let mut text = AutoText::new();
        let name = (object.bucket, key_text(object.key, &mut text).into());
        if app.retained.get(&name) == Some(&due) {
            app.retained.remove(&name);
        }
        self.tables.let_go(app, due, sink);
        self.forget_if_empty(id, sink);
    }

    /// An app that goes retains nothing.
    pub(super) fn drop_retained<S: Sink>(&mut self, id: AppId, sink: &mut S) {
        let app = &mut self.apps[id];
        app.retained.clear();
        let is_of_app = |&at: &Ref<Retained>| self.tables.retained[at].app == Some(id);
        let all: Vec<Ref<Retained>> = self.tables.retained.refs().filter(is_of_app).collect();
        for retained in all {
            self.tables.let_go(app, retained, sink);
        }
    }
}

impl Tables {
    /// The bucket of an object that arrives holds it for a time.
    #[cold]
    pub(super) fn retain(&mut self, app: &mut App, object: Ref<Object>) {
        self.objects.hold(object);
        let input = self.objects[object].input();
        let retain = app.plan.buckets[usize::from(input.bucket)].retain;
        let (taken, retained) = self.retained.take();
        retained.app = Some(app.id);
        retained.object = object;
        retained.timer = match retain {
            Retain::ForNs(ns) => {
                let due_ns = self.now_ns.saturating_add(ns);
                self.timers.arm(due_ns, Timer::Retained(taken))
            }
            Retain::Forever => TimerId::NONE,
        };
        let mut text = AutoText::new();
        let name = (input.bucket, key_text(input.key, &mut text).into());
        app.retained.insert(name, taken);
    }

    /// The last to arrive of the retained objects of this name.
    pub(super) fn find_retained(&self, app: &App, bucket: u16, key: &[u8]) -> Option<Ref<Object>> {
        // Few buckets retain anything: without one there is no name to make.
        if app.retained.is_empty() {
            return None;
        }
        let found = app.retained.get(&(bucket, Box::from(key)))?;
        Some(self.retained[*found].object)
    }

    fn let_go<S: Sink>(&mut self, app: &mut App, retained: Ref<Retained>, sink: &mut S) {
        let of = &mut self.retained[retained];
        self.timers.cancel(&mut of.timer);
        let object = of.object;
        self.retained.give(retained);
        self.drop_hold(app, object, sink);
    }
}
