//! Delayed objects: sent, and published when their time has come.
//!
//! Such an object has its memory and its identity from the moment it is sent, keeps its session
//! open, and is offered to nobody and found by nobody before.

use crate::event::{AppId, Sink};
use crate::local::app::App;
use crate::local::message::{Delivery, Publication};
use crate::local::object::Object;
use crate::local::session::Session;
use crate::local::{Local, Tables, Timer};
use crate::slab::Ref;
use crate::timer::TimerId;

/// One of them.
#[derive(Default)]
pub(super) struct Delayed {
    pub(super) object: Ref<Object>,
    to: Delivery,
    timer: TimerId,
    previous: Ref<Delayed>,
    pub(super) next: Ref<Delayed>,
}

impl Local {
    /// Takes an object that is to be published later.
    #[cold]
    pub(super) fn delay(&mut self, id: AppId, publication: &Publication<'_>, delay_ns: u64) {
        let app = &mut self.apps[id];
        let tables = &mut self.tables;
        let object = tables.create(app, &publication.object);
        tables.objects[object].is_coming = true;
        tables.enter_name(app, object, publication);
        let to = Delivery {
            // Nothing comes of it until its time has come.
            root: Ref::NONE,
            ..publication.to
        };
        tables.delay_object(app, object, to, delay_ns);
    }

    /// The time of a delayed object has come.
    pub(super) fn delayed_timer<S: Sink>(&mut self, due: Ref<Delayed>, sink: &mut S) {
        let Delayed { object, to, .. } = self.tables.delayed[due];
        self.tables.unlink_delayed(due);
        self.tables.delayed.give(due);
        self.arrive(object, &to, sink);
        let session = &mut self.tables.sessions[to.session];
        session.busy -= 1;
        session.count_delivery(&self.apps[session.app], &to, false);
        self.settle(to.session, sink);
    }
}

impl Tables {
    /// Has an object that is made and named arrive later.
    pub(super) fn delay_object(
        &mut self,
        app: &App,
        object: Ref<Object>,
        to: Delivery,
        delay_ns: u64,
    ) {
        let due_ns = self.now_ns.saturating_add(delay_ns);
        let (taken, delayed) = self.delayed.take();
        delayed.object = object;
        delayed.to = to;
        delayed.timer = self.timers.arm(due_ns, Timer::Delayed(taken));
        delayed.previous = Ref::NONE;
        let session = &mut self.sessions[to.session];
        delayed.next = std::mem::replace(&mut session.delayed, taken);
        let next = delayed.next;
        session.busy += 1;
        session.count_delivery(app, &to, true);
        if next.is_some() {
            self.delayed[next].previous = taken;
        }
    }

    fn unlink_delayed(&mut self, unlinked: Ref<Delayed>) {
        let Delayed {
            to, previous, next, ..
        } = self.delayed[unlinked];
        if previous.is_some() {
            self.delayed[previous].next = next;
        } else {
            self.sessions[to.session].delayed = next;
        }
        if next.is_some() {
            self.delayed[next].previous = previous;
        }
    }

    /// Drops what an ending session has delayed.
    pub(super) fn drop_delayed<S: Sink>(
        &mut self,
        app: &mut App,
        ending: Ref<Session>,
        sink: &mut S,
    ) {
        while let Some(dropped) = self.sessions[ending].delayed.some() {
            let delayed = &mut self.delayed[dropped];
            self.timers.cancel(&mut delayed.timer);
            let object = delayed.object;
            self.sessions[ending].delayed = delayed.next;
            self.delayed.give(dropped);
            self.drop_hold(app, object, sink);
        }
    }
}
