//! Continuation in place: executors that start by themselves what their own objects fire.
//!
//! An executor is *granted* invocations, a block of ids at a time. It *offers* to go on with what
//! an object of its fires, when it publishes that, and does so when its function has returned. In
//! between the offer is noted (`note.rs`), or its invocation entered like any other but not queued:
//! it is *taken back* and queued when it has waited `forward_delay` for its executor, when its
//! sender may wait for something, or when somebody else has waited for an executor so long. Which
//! of the two has it is decided in a word that both of them change (`shm/src/claim.rs`); where it
//! is too late to take it back, what the executor says next tells.
//!
//! A block is a turn's length: while other work is queued it is not renewed, and an executor whose
//! block is used up returns as all do. `crate::in_place` says which functions this is for.

use pheromone_shm::claim::GRANT_HOPS;
use pheromone_shm::message::{FromExecutor, NO_TRIGGER, Target};
use smallvec::SmallVec;

use crate::event::{AppId, Cause, ExecutorId, Sink};
use crate::local::app::App;
use crate::local::attempt::Fate;
use crate::local::executor::State;
use crate::local::invocation::{Invocation, Place};
use crate::local::judge::{Fault, judge_target};
use crate::local::note::{Note, Noted, Plain};
use crate::local::session::Session;
use crate::local::{Local, Tables, Timer};
use crate::slab::Ref;
use crate::timer::TimerId;

/// What an executor may start by itself.
#[derive(Clone, Copy, Default)]
pub(super) struct Grant {
    /// First id of the present block, and of the one before, of which it may know still; 0: none.
    block: u64,
    before: u64,
    /// No id below this one is left.
    next: u64,
    /// Ids of the present block may be used.
    holds: bool,
}

impl Grant {
    /// Whether an executor may use an id.
    #[inline(always)]
    pub(super) fn judge(&self, id: u64) -> Result<(), Fault> {
        let is_of = |block: u64| block != 0 && id.wrapping_sub(block) < GRANT_HOPS;
        if id < self.next || !(is_of(self.block) || is_of(self.before)) {
            return Err(Fault::NotGranted(id));
        }
        Ok(())
    }

    /// An executor uses an id, and none below it any more.
    #[inline(always)]
    pub(super) fn take(&mut self, id: u64) {
        self.next = id + 1;
    }

    /// At least half of the present block has been used, or there is none.
    fn is_low(&self) -> bool {
        self.block == 0 || self.next >= self.block + GRANT_HOPS / 2
    }
}

/// What an app's executors have offered and nobody has decided about.
#[derive(Default)]
pub(super) struct Offers {
    /// Their slots.
    slots: Vec<u16>,
    /// Slots of executors that may start something by themselves.
    granted: Vec<u16>,
    /// One of them may have waited long enough.
    pub(super) timer: TimerId,
}

impl Offers {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    fn revoke(&mut self, slot: u16) {
        if let Some(at) = self.granted.iter().position(|&of| of == slot) {
            self.granted.swap_remove(at);
        }
    }
}

impl App {
    /// The function that an object of a sender for this target fires, and by which trigger, where
    /// that can be gone on with.
    #[inline(always)]
    pub(super) fn judge_successor(&self, sender: u16, target: Target) -> Result<(u16, u16), Fault> {
        let plan = &self.plan.functions[usize::from(sender)];
        let next = match target {
            Target::Next => plan.next_in_place.map(|next| (next, NO_TRIGGER)),
            Target::Bucket(bucket) => {
                let next = self.plan.in_place.of_bucket(sender, bucket);
                let next = next.filter(|_| plan.may_send(bucket));
                next.map(|next| (next.function, next.trigger))
            }
            Target::Function(function) => {
                let next = self.plan.in_place.of_function(sender, function);
                let next = next.filter(|_| plan.may_call(function));
                next.map(|next| (next, NO_TRIGGER))
            }
        };
        next.ok_or_else(|| self.no_successor(sender, target))
    }

    #[cold]
    fn no_successor(&self, sender: u16, target: Target) -> Fault {
        let judged = judge_target(self, sender, target);
        judged.err().unwrap_or(Fault::NotInPlace)
    }
}

impl Local {
    /// `Offer` (a new object, and its sender goes on with what it fires) or `Continue` (the open
    /// attempt has returned with success, and what its executor has offered has begun), where
    /// nothing but these two is heard.
    #[inline(never)]
    pub(super) fn hear_in_place<S: Sink>(
        &mut self,
        id: ExecutorId,
        message: &FromExecutor<'_>,
        sink: &mut S,
    ) {
        let app = self.apps.get_mut(id.app);
        let Some(app) = app.filter(|app| app.is_busy(id.slot)) else {
            return self.message(id, message, sink);
        };
        let judged = match *message {
            FromExecutor::Offer {
                target,
                extent,
                size_bytes,
                ordinal,
                invocation,
            } => {
                let plain = Plain {
                    target,
                    extent,
                    size_bytes,
                    ordinal,
                };
                match self.tables.note_offer(app, id, (plain, invocation), sink) {
                    Ok(Noted::Stays) => return self.tables.flush_any(app, id.slot, sink),
                    Ok(Noted::IsLookedAt) => self.enter_notes(),
                    Ok(Noted::IsInVain) => self.offer_in_vain(id, sink),
                    Ok(Noted::IsPastLimit) => self.offer_past_limit(id, sink),
                    Err(fault) => return self.end_message(id, Err(fault), sink),
                }
                Ok(())
            }
            FromExecutor::Continue { discarded } => {
                let is_low = app.executors[usize::from(id.slot)].grant.is_low();
                match self.tables.turn_into_noted(app, id, discarded, sink) {
                    Ok(true) if !is_low => return self.tables.flush_any(app, id.slot, sink),
                    Ok(true) => {
                        self.renew(id, sink);
                        Ok(())
                    }
                    Ok(false) => self.go_on(id, discarded, sink),
                    Err(fault) => Err(fault),
                }
            }
            _ => return self.message(id, message, sink),
        };
        self.end_message(id, judged, sink);
    }

    /// An offer of one object more than there may be.
    #[cold]
    fn offer_past_limit<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) {
        self.enter_notes();
        let open = self.apps[id.app].executor(id.slot).open;
        let session = self.tables.invocations[open].session;
        self.fail_by_limit(open, session, id, sink);
        self.offer_in_vain(id, sink);
    }

    /// An offer of an invocation that nobody waits for any more. Where its executor may have taken
    /// it already, it runs for nobody.
    #[cold]
    fn offer_in_vain<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) {
        let app = &mut self.apps[id.app];
        let Some(note) = app.executor(id.slot).noted.take() else {
            return;
        };
        if sink.withdraw(id, note.invocation) {
            let extent = note.plain.extent;
            self.tables.release_extent(app, id.slot, extent, sink);
        } else {
            self.tables.enter_orphan(app, id.slot, &note);
        }
        app.top_up(id.slot, sink);
    }

    /// What is offered has begun, the general way: that is entered first, then the books of the
    /// other are closed.
    fn go_on<S: Sink>(
        &mut self,
        id: ExecutorId,
        discarded: u32,
        sink: &mut S,
    ) -> Result<(), Fault> {
        self.enter_notes();
        let app = &mut self.apps[id.app];
        let finished = app.executor(id.slot).open;
        let begun = app.forget_offer(id.slot);
        if begun.is_none() {
            return Err(Fault::NothingOffered);
        }
        let executor = app.executor(id.slot);
        self.tables.timers.cancel(&mut executor.timer);
        executor.completed = executor.completed.saturating_add(1);
        let function = self.tables.invocations[finished].function;
        executor.set_loaded(function);
        app.stopped_running(function);
        if !self.tables.invocations[finished].closes.is_empty() {
            self.tables.close_sources(app, finished, sink);
        }
        let next = self.tables.invocations[begun].function;
        app.executor(id.slot).set_loaded(next);
        let session = self.tables.invocations[begun].session.some();
        let kept = match session {
            Some(session) => {
                let session = &self.tables.sessions[session];
                [session.request_object, session.headers_object]
            }
            // It reads the headers of the one before it, though its session is gone.
            None => [Ref::NONE, self.tables.invocations[finished].headers],
        };
        self.tables.note_start(app, id.slot, begun, kept);
        app.stats.discarded_total += u64::from(discarded);
        app.stats.continued_total += 1;
        if app.pool.has_failed() {
            self.processes_work(id.app, sink);
        }
        let app = &mut self.apps[id.app];
        self.tables.look_at_waiters(app);
        let session = self.tables.leave_session(app, finished);
        self.dispatch_ready(id.app, sink);
        let app = &mut self.apps[id.app];
        #[cfg(feature = "planted-bugs")]
        if self.tables.planted == Some(crate::planted::Planted::ReleasedTwice)
            && let Some(&input) = self.tables.invocations[finished].held.first()
        {
            self.tables.drop_hold(app, input, sink);
        }
        self.tables.finish(app, finished, sink);
        if let Some(session) = session {
            self.settle(session, sink);
        }
        if self.tables.invocations[begun].session.is_none() {
            self.cancel_running(id, sink);
        } else if self.apps[id.app].executor(id.slot).grant.is_low() {
            self.renew(id, sink);
        }
        Ok(())
    }

    /// Lets an executor go on by itself from what is about to be started on it, or no longer.
    #[inline]
    pub(super) fn grant<S: Sink>(
        &mut self,
        id: ExecutorId,
        (function, session): (u16, Ref<Session>),
        sink: &mut S,
    ) {
        let app = &mut self.apps[id.app];
        let may = app.plan.in_place.functions[usize::from(function)];
        let holds = app.executor(id.slot).grant.holds;
        if !may && !holds {
            return;
        }
        let session = &self.tables.sessions[session];
        if may && session.durable.is_none() && session.request_object.is_none() {
            if !holds || app.executor(id.slot).grant.is_low() {
                self.give_block(id, sink);
            }
        } else {
            self.revoke(id, sink);
        }
    }

    /// A further block for an executor that goes on, unless somebody waits.
    #[cold]
    fn renew<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) {
        let app = &mut self.apps[id.app];
        let others_wait = !app.ready.is_empty() || app.has_too_many() || app.in_line > 0;
        if !others_wait && app.executor(id.slot).grant.holds {
            self.give_block(id, sink);
        }
    }

    fn give_block<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) {
        let app = &mut self.apps[id.app];
        if self.fair.is_shared() || app.removing || app.executor(id.slot).dying {
            return self.revoke(id, sink);
        }
        let grant = &mut app.executor(id.slot).grant;
        if grant.is_low() {
            grant.before = grant.block;
            grant.block = self.tables.reserve_invocations(GRANT_HOPS);
        }
        let block = grant.block;
        if !std::mem::replace(&mut grant.holds, true) {
            app.offers.granted.push(id.slot);
        }
        sink.grant(id, block);
    }

    /// Lets an executor start nothing more by itself.
    pub(super) fn revoke<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) {
        let app = &mut self.apps[id.app];
        if std::mem::take(&mut app.executor(id.slot).grant.holds) {
            app.offers.revoke(id.slot);
            sink.grant(id, 0);
        }
    }

    /// Somebody waits: an app's executors start nothing more by themselves, and what they have not
    /// begun is queued.
    #[cold]
    pub(super) fn revoke_all<S: Sink>(&mut self, app: AppId, sink: &mut S) {
        while let Some(&slot) = self.apps[app].offers.granted.last() {
            self.revoke(ExecutorId { app, slot }, sink);
        }
        let offered: SmallVec<[u16; 16]> = self.apps[app].offers.slots.iter().copied().collect();
        for slot in offered {
            self.take_back(ExecutorId { app, slot }, sink);
        }
    }

    /// Takes back what an executor has offered, if it has not begun, and queues it.
    pub(super) fn take_back<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) {
        let offered = self.apps[id.app].executor(id.slot).offer;
        if offered.is_none() {
            return;
        }
        let is_withdrawn = sink.withdraw(id, self.tables.invocations[offered].id);
        #[cfg(feature = "planted-bugs")]
        let is_withdrawn =
            is_withdrawn || self.tables.planted == Some(crate::planted::Planted::TakenBackTooLate);
        if is_withdrawn {
            self.leave_offer(id, sink);
        }
    }

    /// An executor has left what it had offered, or cannot begin it any more.
    #[cold]
    pub(super) fn leave_offer<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) {
        let app = &mut self.apps[id.app];
        let offered = app.forget_offer(id.slot);
        if self.tables.invocations[offered].session.is_some() {
            self.tables.queue_in_order(app, offered);
        } else {
            self.tables.finish(app, offered, sink);
        }
    }

    /// A message may make its sender wait: what it has offered is started elsewhere.
    pub(super) fn before_waiting<S: Sink>(&mut self, id: ExecutorId, sink: &mut S) {
        if self.apps[id.app].executor(id.slot).offer.is_some() {
            self.take_back(id, sink);
            self.dispatch_ready(id.app, sink);
        }
    }

    /// What was offered by an executor that was killed: it has not been heard to the end, and may
    /// have begun it.
    pub(super) fn offer_died<S: Sink>(
        &mut self,
        id: ExecutorId,
        cause: impl FnOnce() -> Cause,
        sink: &mut S,
    ) {
        let app = &mut self.apps[id.app];
        let offered = app.executor(id.slot).offer;
        if offered.is_none() {
            return;
        }
        let is_wanted = self.tables.invocations[offered].session.is_some();
        #[cfg(feature = "planted-bugs")]
        let is_wanted =
            is_wanted && self.tables.planted != Some(crate::planted::Planted::BegunUnheard);
        if !is_wanted {
            return self.leave_offer(id, sink);
        }
        app.forget_offer(id.slot);
        // As if it had run: it has no further attempts.
        if self.attempt_failed(offered, id, cause(), true, sink) == Fate::Ends {
            self.end_attempt(offered, id.app, sink);
        }
    }

    /// Offers that have waited `forward_delay` for their executors are taken back.
    pub(super) fn offers_timer<S: Sink>(&mut self, app: AppId, sink: &mut S) {
        let of = &mut self.apps[app];
        of.offers.timer = TimerId::NONE;
        let delay_ns = of.spec.limits.forward_delay_ns;
        let is_late = |&slot: &u16| {
            let offered = of.executors[usize::from(slot)].offer;
            let queued_ns = self.tables.invocations[offered].queued_ns;
            queued_ns.saturating_add(delay_ns) <= self.tables.now_ns
        };
        let slots = of.offers.slots.iter().copied();
        let late: SmallVec<[u16; 16]> = slots.filter(is_late).collect();
        for slot in late {
            self.take_back(ExecutorId { app, slot }, sink);
        }
        self.tables.watch_offers(&mut self.apps[app]);
        self.start_overdue(app, sink);
    }
}

impl App {
    /// Whether an executor has a dispatch open.
    #[inline(always)]
    fn is_busy(&self, slot: u16) -> bool {
        let executor = self.executors.get(usize::from(slot));
        executor.is_some_and(|executor| executor.state == State::Busy)
    }

    /// Whether somebody looks again after offers that are not gone on with.
    #[inline]
    pub(super) fn watches_offers(&self) -> bool {
        self.offers.timer != TimerId::NONE
    }

    /// Whether an executor may start something by itself.
    #[inline]
    pub(super) fn has_grants(&self) -> bool {
        !self.offers.granted.is_empty()
    }

    /// A process is gone, and what it was granted with it.
    pub(super) fn forget_grant(&mut self, slot: u16) {
        if std::mem::take(&mut self.executor(slot).grant).holds {
            self.offers.revoke(slot);
        }
    }

    /// Nothing is offered by this executor any more. Answers with what was.
    pub(super) fn forget_offer(&mut self, slot: u16) -> Ref<Invocation> {
        self.offers.slots.retain(|&of| of != slot);
        std::mem::take(&mut self.executor(slot).offer)
    }
}

impl Tables {
    /// An executor has offered to start this, which is entered.
    pub(super) fn enter_offer(
        &mut self,
        app: &mut App,
        slot: u16,
        offered: Ref<Invocation>,
        heard_ns: u64,
    ) {
        let invocation = &mut self.invocations[offered];
        invocation.place = Place::Offered(slot);
        invocation.queued_ns = heard_ns;
        app.executor(slot).offer = offered;
        app.offers.slots.push(slot);
        if app.offers.timer == TimerId::NONE {
            self.watch_offers(app);
        }
    }

    /// Looks again when the next offer has waited long enough; where all have, and were not to be
    /// taken back, after as long a time.
    #[cold]
    fn watch_offers(&mut self, app: &mut App) {
        if app.offers.slots.is_empty() {
            return;
        }
        let delay_ns = app.spec.limits.forward_delay_ns.max(1);
        let due_ns = |slot: &u16| {
            let offered = app.executors[usize::from(*slot)].offer;
            self.invocations[offered].queued_ns.saturating_add(delay_ns)
        };
        let waiting = app.offers.slots.iter().map(due_ns);
        let next_ns = waiting.filter(|&due_ns| due_ns > self.now_ns).min();
        let due_ns = next_ns.unwrap_or_else(|| self.now_ns.saturating_add(delay_ns));
        app.offers.timer = self.timers.arm(due_ns, Timer::Offers(app.id));
    }

    /// Enters what is offered for no session any more.
    #[cold]
    fn enter_orphan(&mut self, app: &mut App, slot: u16, note: &Note) {
        let sender = app.executor(slot).open;
        let publication = self.noted_publication(sender, slot, note);
        let input = self.create(app, &publication.object);
        let (entered, invocation) = self.invocations.take();
        invocation.begin(note.invocation, &note.firing(Ref::NONE, slot));
        invocation.request = Ref::NONE;
        invocation.headers = Ref::NONE;
        invocation.session_previous = Ref::NONE;
        invocation.session_next = Ref::NONE;
        // It takes over the creator's hold.
        invocation.held.push(input);
        invocation.input_count = 1;
        self.enter_offer(app, slot, entered, note.heard_ns);
    }

    /// So many ids, of which this is the first, are used up.
    fn reserve_invocations(&mut self, count: u64) -> u64 {
        let first = self.last_invocation + 1;
        self.last_invocation += count;
        first
    }

    /// Queues an invocation behind those that fired before it, and before those that fired after.
    fn queue_in_order(&mut self, app: &mut App, queued: Ref<Invocation>) {
        let fired_ns = self.invocations[queued].queued_ns;
        let index = self.invocations[queued].function;
        let function = &mut app.functions[usize::from(index)];
        let (mut previous, mut next) = (function.last, Ref::NONE);
        while let Some(at) = previous.some()
            && self.invocations[at].queued_ns > fired_ns
        {
            next = at;
            previous = self.invocations[at].queue_previous;
        }
        match previous.some() {
            Some(previous) => self.invocations[previous].queue_next = queued,
            None => function.first = queued,
        }
        match next.some() {
            Some(next) => self.invocations[next].queue_previous = queued,
            None => function.last = queued,
        }
        let invocation = &mut self.invocations[queued];
        invocation.place = Place::Queued;
        invocation.queue_previous = previous;
        invocation.queue_next = next;
        app.stats.queued += 1;
        if previous.is_none() && next.is_none() {
            app.list(index);
        }
    }
}
