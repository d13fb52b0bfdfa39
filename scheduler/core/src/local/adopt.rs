//! Adoption: the successor of a dead process learns what is live in the region it takes over.
//!
//! The list is taken when it says that it is ready; what dies afterwards is released to it in the
//! ordinary way. A process may have published the same memory twice; its successor's allocator
//! must not be told so, hence overlapping objects are made one piece of memory first.

use pheromone_shm::message::{Extent, ToExecutor};

use crate::event::{AppId, EXTENTS_PER_MESSAGE_MAX, ExecutorId, Sink};
use crate::limits::START_TIMEOUT_NS;
use crate::local::executor::State;
use crate::local::judge::Fault;
use crate::local::object::Object;
use crate::local::{Local, Timer};
use crate::slab::Ref;

impl Local {
    /// Tells an executor how much it adopts; whether there is nothing, so that it is done.
    pub(super) fn start_adoption<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) -> bool {
        let extents = self.live_extents(id);
        let extent_count =
            u32::try_from(extents.len()).expect("an offset and a length are 64 bits");
        sink.send(id, &ToExecutor::Adopt { extent_count });
        if extents.is_empty() {
            return true;
        }
        let app = &mut self.apps[id.app];
        app.set_state(id.slot, State::Adopting);
        let executor = app.executor(id.slot);
        executor.adoption = extents;
        executor.adopted = 0;
        let deadline_ns = self.tables.now_ns.saturating_add(START_TIMEOUT_NS);
        executor.timer = self.tables.timers.arm(deadline_ns, Timer::Executor(id));
        false
    }

    /// `FetchExtents`: the next piece of the list. After the last the executor is free for work,
    /// which it finds behind that piece in its ring. One that has been told to leave meanwhile may
    /// not have seen that; it is answered like any other, since it waits for the answer.
    pub(super) fn fetch_extents<S: Sink>(
        &mut self,
        id: ExecutorId,
        first: u32,
        sink: &mut S,
    ) -> Result<(), Fault> {
        let executor = self.apps[id.app].executor(id.slot);
        let adopts = matches!(executor.state, State::Adopting | State::Leaving);
        let left = executor.adoption.get(first as usize..).unwrap_or_default();
        if !adopts || left.is_empty() || executor.adopted != first as usize {
            return Err(Fault::FetchExtents { first });
        }
        let piece = &left[..left.len().min(EXTENTS_PER_MESSAGE_MAX)];
        sink.extents(id, first, piece.iter().copied());
        executor.adopted += piece.len();
        if executor.adopted == executor.adoption.len() {
            executor.adoption = Vec::new();
            if executor.state == State::Adopting {
                self.tables.timers.cancel(&mut executor.timer);
                self.take_next(id, sink);
            }
        }
        Ok(())
    }

    /// A vacant slot has memory in its region: all of it may go but what is live. Custom triggers'
    /// processes are always there, or about to be.
    pub(super) fn sweep<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) {
        let Some(app) = self.apps.get_mut(id.app) else {
            return;
        };
        if id.slot >= app.pool_slots || app.removing || !app.executor(id.slot).is_vacant() {
            return;
        }
        app.executor(id.slot).sweeping = true;
        let live = self.live_extents(id);
        sink.sweep(id, &live);
    }

    /// A process may have the slot again.
    pub(super) fn swept<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) {
        let app = self.apps.get_mut(id.app);
        let executor = app.and_then(|app| app.executors.get_mut(usize::from(id.slot)));
        if executor.is_some_and(|executor| std::mem::take(&mut executor.sweeping)) {
            self.give(id.app, sink);
            self.mend_pool(id.app, sink);
            self.dispatch_ready(id.app, sink);
        }
    }

    /// What is live in a region, in order of offset and disjoint.
    pub(super) fn live_extents(&mut self, id: ExecutorId) -> Vec<Extent> {
        let mut live = Vec::new();
        let mut next = self.apps[id.app].regions[usize::from(id.slot)].live;
        while let Some(object) = next.some() {
            live.push((self.tables.objects[object].extent, object));
            next = self.tables.objects[object].region_next;
        }
        live.sort_unstable_by_key(|&(extent, _)| extent);
        let mut disjoint: Vec<(Extent, Ref<Object>)> = Vec::with_capacity(live.len());
        for (extent, object) in live {
            match disjoint.last_mut() {
                Some((last, owner)) if u64::from(extent.offset_units) < last.end_units() => {
                    let end = last.end_units().max(extent.end_units());
                    last.len_units = (end - u64::from(last.offset_units)) as u32;
                    let (merged, owner) = (*last, *owner);
                    self.merge(id.app, owner, merged, object);
                }
                _ => disjoint.push((extent, object)),
            }
        }
        disjoint.into_iter().map(|(extent, _)| extent).collect()
    }

    /// Makes `owner` the owner of `merged`, and `part`, which lies in it, hold it.
    fn merge(&mut self, app: AppId, owner: Ref<Object>, merged: Extent, part: Ref<Object>) {
        self.tables.unlink_from_region(&mut self.apps[app], part);
        let charged = |local: &Self| {
            local.tables.objects[owner].charge_bytes() + local.tables.objects[part].charge_bytes()
        };
        let before_bytes = charged(self);
        self.tables.objects[owner].extent = merged;
        self.tables.objects[part].root = owner;
        self.tables.objects.hold(owner);
        let after_bytes = charged(self);
        let ledger = &mut self.apps[app].ledger;
        ledger.charge(after_bytes);
        ledger.refund(before_bytes);
    }
}
