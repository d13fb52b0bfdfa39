//! Loads: durable and retained objects, looked up by name over all sessions.
//!
//! A retained object is in memory and found at once. A durable one is read from disk by the node,
//! into the app's ingress region; who asked waits meanwhile, and holds it like an input.

use pheromone_shm::message::{InputKey, ToExecutor};

use crate::event::{AppId, ExecutorId, FoundObject, NotFound, Sink, Ticket};
use crate::local::Local;
use crate::local::executor::Disk;
use crate::local::invocation::Invocation;
use crate::local::judge::{Fault, judge_bucket, judge_named};
use crate::local::message::status;
use crate::local::object::{NewObject, Object, Payload};
use crate::slab::Ref;

/// A durable object that the node looks for.
#[derive(Default)]
pub(super) struct Load {
    /// Who waits for it: an executor, and which process of it.
    asker: Option<(ExecutorId, u32)>,
    bucket: u16,
    key: Box<[u8]>,
}

impl Local {
    /// `Load`: an executor asks for a durable or retained object.
    pub(super) fn load<S: Sink>(
        &mut self,
        id: ExecutorId,
        bucket: u16,
        key: &[u8],
        sink: &mut S,
    ) -> Result<(), Fault> {
        let app = &mut self.apps[id.app];
        let executor = app.executor(id.slot);
        let incarnation = executor.incarnation;
        let open = executor.open("Load")?;
        judge_bucket(app, bucket)?;
        judge_named(key)?;
        let most = app.held_max();
        let tables = &mut self.tables;
        let invocation = &tables.invocations[open];
        let answer = if invocation.session.is_none() {
            Err(status::ECANCELED)
        } else if invocation.held.len() >= most {
            Err(status::ENOMEM)
        } else if let Some(found) = tables.find_retained(app, bucket, key) {
            tables.objects.hold(found);
            Ok(found)
        } else if tables.keeps_on_disk {
            let (taken, load) = tables.loads.take();
            load.asker = Some((id, incarnation));
            load.bucket = bucket;
            load.key = key.into();
            app.executor(id.slot).disk = Disk::Asked;
            let ticket = Ticket::new(taken.slot(), tables.loads.generation(taken));
            sink.load(id.app, ticket, bucket, key);
            self.withdraw_spin(id, sink);
            return Ok(());
        } else {
            Err(status::ENOENT)
        };
        self.answer_load(id, open, answer, sink);
        Ok(())
    }

    /// The node has read what an executor asked for, or says why not.
    pub(super) fn loaded_from_disk<S: Sink>(
        &mut self,
        id: AppId,
        ticket: Ticket,
        found: Result<FoundObject<'_>, NotFound>,
        sink: &mut S,
    ) {
        let Some(at) = self.tables.loads.find(ticket.slot(), ticket.generation()) else {
            return;
        };
        let load = std::mem::take(&mut self.tables.loads[at]);
        self.tables.loads.give(at);
        // With an app that is gone its ingress memory is gone, too.
        let Some(app) = self.apps.get_mut(id) else {
            return;
        };
        let asker = load.asker.filter(|&(id, incarnation)| {
            let executor = app.executor(id.slot);
            executor.disk == Disk::Asked && executor.incarnation == incarnation
        });
        let slot = app.spec.ingress_slot();
        let Some((asker, _)) = asker else {
            if let Ok(found) = found {
                let extent = found.body.extent;
                self.tables.release_extent(app, slot, extent, sink);
            }
            return;
        };
        let executor = app.executor(asker.slot);
        executor.disk = Disk::Idle;
        let open = executor.open;
        let answer = match found {
            Ok(found) if app.is_out_of_objects() => {
                let extent = found.body.extent;
                self.tables.release_extent(app, slot, extent, sink);
                Err(status::ENOMEM)
            }
            Ok(found) => {
                let new = NewObject {
                    session: found.session,
                    payload: Payload {
                        region: slot,
                        extent: found.body.extent,
                        size_bytes: found.body.size_bytes,
                        root: Ref::NONE,
                    },
                    bucket: load.bucket,
                    key: InputKey::Named(&load.key),
                    group: found.group,
                    labelled: (0, 0),
                };
                Ok(self.tables.create(app, &new))
            }
            Err(NotFound::Missing) => Err(status::ENOENT),
            Err(NotFound::NoMemory) => Err(status::ENOMEM),
            Err(NotFound::Unreadable) => Err(status::EIO),
        };
        self.answer_load(asker, open, answer, sink);
    }

    /// Tells an executor what was found, with a hold that becomes its invocation's.
    fn answer_load<S: Sink>(
        &mut self,
        id: ExecutorId,
        open: Ref<Invocation>,
        answer: Result<Ref<Object>, i32>,
        sink: &mut S,
    ) {
        let tables = &mut self.tables;
        let (status, input) = match answer {
            Ok(found) => {
                tables.invocations[open].held.push(found);
                (0, Some(tables.objects[found].input()))
            }
            Err(status) => (status, None),
        };
        sink.send(id, &ToExecutor::Object { status, input });
    }
}
