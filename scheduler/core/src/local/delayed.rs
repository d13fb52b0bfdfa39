//! Delayed objects: sent, and published when their time has come.
//!
//! Such an object has its memory and its identity from the moment it is sent, keeps its session
//! open, and is offered to nobody and found by nobody before.

use pheromone_shm::message::Target;

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
    object: Ref<Object>,
    to: Delivery,
    timer: TimerId,
    previous: Ref<Delayed>,
    next: Ref<Delayed>,
}

impl Local {
    /// Takes an object that is to be published later.
    #[cold]
    pub(super) fn delay(&mut self, id: AppId, publication: &Publication<'_>, delay_ns: u64) {
        let app = &mut self.apps[id];
        let tables = &mut self.tables;
        let object = tables.create(app, &publication.object);
        tables.enter_name(app, object, publication);
        let due_ns = tables.now_ns.saturating_add(delay_ns);
        let to = publication.to;
        let (taken, delayed) = tables.delayed.take();
        delayed.object = object;
        delayed.to = to;
        delayed.timer = tables.timers.arm(due_ns, Timer::Delayed(taken));
        delayed.previous = Ref::NONE;
        let session = &mut tables.sessions[to.session];
        delayed.next = std::mem::replace(&mut session.delayed, taken);
        let next = delayed.next;
        session.busy += 1;
        session.count_delivery(app, &to, true);
        if next.is_some() {
            tables.delayed[next].previous = taken;
        }
    }

    /// The time of a delayed object has come.
    pub(super) fn delayed_timer<S: Sink>(&mut self, due: Ref<Delayed>, sink: &mut S) {
        let Delayed { object, to, .. } = self.tables.delayed[due];
        let id = self.tables.sessions[to.session].app;
        let app = &mut self.apps[id];
        let tables = &mut self.tables;
        tables.unlink_delayed(due);
        tables.delayed.give(due);
        tables.objects[object].arrives(tables.now_ns);
        tables.deliver(app, object, &to, sink);
        tables.sessions[to.session].busy -= 1;
        tables.sessions[to.session].count_delivery(app, &to, false);
        self.dispatch_ready(id, sink);
        let app = &mut self.apps[id];
        if let Target::Bucket(bucket) = to.target {
            self.tables.keep_in_bucket(app, object, bucket, to.session);
        }
        self.tables.drop_hold(app, object, sink);
        self.settle(to.session, sink);
    }
}

impl Tables {
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
