//! Followers: what is published through the scheduler and can only wait for its own sender.
//!
//! In a chain every object fires one invocation, every executor is busy, and the first to come free
//! is the one that has sent the object. To make the object and queue its invocation, then to end
//! the one that has returned, its input and its place in the session, would again leave two records
//! in place of two others. So such a publication is noted as well (`note.rs`): judged, charged, and
//! *held back* while nothing else is heard. When the next thing heard is that its sender has
//! returned, the message for the next function goes out first, made of the note, and then the two
//! records [turn into](Tables::turn_into) what follows. Where others are queued already the records
//! turn first and go to the end of the queue, whose head is started.
//!
//! There is one follower at a time, and nothing happens beside it: whatever else is heard or due
//! has it [entered](Local::enter_notes) before. So all that is asked when it is noted holds when
//! its sender returns.

use pheromone_shm::message::{Dispatch, Ending, FromExecutor, Key, NO_TRIGGER, Target};

use crate::event::{AppId, ExecutorId, Sink};
use crate::limits::OBJECT_CHARGE_BYTES;
use crate::local::app::App;
use crate::local::dispatch::dispatch_in;
use crate::local::executor::Executor;
use crate::local::invocation::Invocation;
use crate::local::note::{Note, Plain};
use crate::local::object::Object;
use crate::local::{Local, Tables, Timer};
use crate::slab::Ref;
use crate::timer::Wheel;

/// What waits for its sender's return, and nothing else.
pub(super) struct Follower {
    /// The executor of its sender.
    id: ExecutorId,
    sender: Ref<Invocation>,
    /// The sender's only input.
    input: Ref<Object>,
    note: Note,
}

impl App {
    /// The simple function that a plain object of a simple sender fires, and by which trigger.
    #[inline(always)]
    fn only_successor(&self, sender: u16, target: Target) -> Option<(u16, u16)> {
        let plan = &self.plan.functions[usize::from(sender)];
        if !plan.is_simple {
            return None;
        }
        match target {
            Target::Next => plan.only_next.map(|next| (next, NO_TRIGGER)),
            Target::Bucket(bucket) => {
                let only = self.plan.buckets.get(usize::from(bucket))?.only?;
                let may = plan.may_send(bucket) && !self.keeps(target);
                may.then_some((only.function, only.trigger))
            }
            Target::Function(function) => {
                let is_simple = self.plan.functions.get(usize::from(function))?.is_simple;
                let may = is_simple && plan.may_call(function);
                may.then_some((function, NO_TRIGGER))
            }
        }
    }

    /// Whether an executor whose function returns stays, and takes the next thing that is queued.
    #[inline(always)]
    fn goes_on_alone(&self) -> bool {
        let has_too_many = self.pool.taken > self.share.executors.max;
        !self.removing && !has_too_many && !self.pool.has_failed()
    }

    /// Whether a follower starts at once where `returned` has run: nothing is queued before it, and
    /// no limit on what runs at the same time holds it up.
    #[inline(always)]
    fn goes_first(&self, function: u16, returned: u16) -> bool {
        let next = &self.functions[usize::from(function)];
        let is_unlimited = |function: u16| {
            let state = &self.functions[usize::from(function)];
            state.running_max == u32::MAX
        };
        self.ready.is_empty()
            && next.first.is_none()
            && (function == returned || is_unlimited(function) && is_unlimited(returned))
    }
}

impl Local {
    /// A message that goes through the scheduler: of a hop, as most are, or any other.
    #[inline(never)]
    pub(super) fn hear_through<S: Sink>(
        &mut self,
        id: ExecutorId,
        message: &FromExecutor<'_>,
        sink: &mut S,
    ) {
        match *message {
            FromExecutor::Publish { .. } if self.hold_back(id, message, sink) => return,
            FromExecutor::Complete {
                status: 0,
                ending: Ending::Returned,
                discarded,
                ..
            } => {
                let follower = self.tables.follower.take_if(|follower| follower.id == id);
                if let Some(follower) = follower {
                    return self.follow(&follower, discarded, sink);
                }
            }
            _ => {}
        }
        self.message(id, message, sink);
    }

    /// `Publish`, as most are. False: it is none of those, and nothing has been done.
    #[inline(always)]
    fn hold_back<S: Sink>(
        &mut self,
        id: ExecutorId,
        message: &FromExecutor<'_>,
        sink: &mut S,
    ) -> bool {
        let &FromExecutor::Publish {
            target,
            extent,
            size_bytes,
            key: Key::Auto(ordinal),
            group: b"",
            delay_ns: 0,
            ..
        } = message
        else {
            return false;
        };
        self.enter_notes();
        if !self.fair.is_only(id.app) {
            return false;
        }
        let Some(app) = self.apps.get_mut(id.app) else {
            return false;
        };
        let plain = Plain {
            target,
            extent,
            size_bytes,
            ordinal,
        };
        let is_noted = self.tables.note_follower(app, id, plain);
        if is_noted {
            app.top_up(id.slot, sink);
            self.tables.flush_any(app, id.slot, sink);
        }
        is_noted
    }

    /// The sender of the follower has returned with success, and its executor goes on with it, or
    /// with what was queued before.
    #[inline(always)]
    fn follow<S: Sink>(&mut self, follower: &Follower, discarded: u32, sink: &mut S) {
        let &Follower {
            id,
            sender,
            input,
            ref note,
        } = follower;
        let (app, tables) = (&mut self.apps[id.app], &mut self.tables);
        let invocation = &tables.invocations[sender];
        let (returned, session) = (invocation.function, invocation.session);
        if !app.goes_first(note.function, returned) {
            return self.follow_others(follower, discarded, sink);
        }
        if app.plan.in_place.is_used() {
            self.grant(id, (note.function, session), sink);
        }
        let (app, tables) = (&mut self.apps[id.app], &mut self.tables);
        // Not once the next function may have begun, and counts on what the word says.
        tables.trim_credit(app, id.slot, sink);
        tables.send_follower(app, id, sender, note, sink);
        let (region, freed) = tables.turn_into(app, id.slot, (sender, input), note);
        let core = tables.note_followed(app, id.slot, returned, note);
        app.stats.discarded_total += u64::from(discarded);
        tables.look_at_waiters(app);
        self.use_core(id, core, sink);
        let (app, tables) = (&mut self.apps[id.app], &mut self.tables);
        tables.release_extent(app, region, freed, sink);
        tables.flush_any(app, id.slot, sink);
    }

    /// The same where others are queued already, or may not start yet.
    #[inline(never)]
    fn follow_others<S: Sink>(&mut self, follower: &Follower, discarded: u32, sink: &mut S) {
        let &Follower {
            id,
            sender,
            input,
            ref note,
        } = follower;
        let (app, tables) = (&mut self.apps[id.app], &mut self.tables);
        let returned = tables.invocations[sender].function;
        let (region, freed) = tables.turn_into(app, id.slot, (sender, input), note);
        tables.queue_turned(app, sender, note, sink);
        let executor = app.executor(id.slot);
        executor.open = Ref::NONE;
        executor.loading = false;
        executor.close(returned, &mut tables.timers);
        app.stopped_running(returned);
        app.stats.discarded_total += u64::from(discarded);
        tables.trim_credit(app, id.slot, sink);
        self.take_next(id, sink);
        let (app, tables) = (&mut self.apps[id.app], &mut self.tables);
        tables.look_at_waiters(app);
        self.dispatch_ready(id.app, sink);
        let (app, tables) = (&mut self.apps[id.app], &mut self.tables);
        tables.release_extent(app, region, freed, sink);
        tables.flush_any(app, id.slot, sink);
    }

    /// Somebody looks: the follower is made an object and an invocation, and queued.
    #[cold]
    pub(super) fn enter_follower(&mut self) {
        if let Some(follower) = self.tables.follower.take() {
            let Follower {
                id, sender, note, ..
            } = follower;
            let app = &mut self.apps[id.app];
            let entered = self.tables.enter_note(app, sender, id.slot, &note);
            self.tables.queue(app, entered);
            self.tables.invocations[entered].queued_ns = note.heard_ns;
        }
    }
}

impl Executor {
    /// What it had open, a function that is loaded, has returned.
    #[inline(always)]
    fn close(&mut self, function: u16, timers: &mut Wheel<Timer>) {
        timers.cancel(&mut self.timer);
        self.completed = self.completed.saturating_add(1);
        self.set_loaded(function);
    }
}

impl Tables {
    /// Whether there is one of this app.
    pub(super) fn has_follower(&self, app: AppId) -> bool {
        let follower = self.follower.as_ref();
        follower.is_some_and(|follower| follower.id.app == app)
    }

    /// Judges and charges a publication and holds it back, where it is a follower. False: it is
    /// none, or wrong; nothing has been done.
    #[inline(always)]
    fn note_follower(&mut self, app: &mut App, id: ExecutorId, plain: Plain) -> bool {
        let Some(executor) = app.executors.get(usize::from(id.slot)) else {
            return false;
        };
        let Ok(sender) = executor.open("Publish") else {
            return false;
        };
        let stays = !executor.dying && executor.offer.is_none();
        if !stays || !app.goes_on_alone() || !app.must_wait() {
            return false;
        }
        let invocation = &self.invocations[sender];
        let successor = app.only_successor(invocation.function, plain.target);
        let (Some((function, trigger)), Some(session)) = (successor, invocation.session.some())
        else {
            return false;
        };
        let session = &self.sessions[session];
        let holds = [session.request_object, session.headers_object];
        if session.durable.is_some()
            || !session.is_plain()
            || [invocation.request, invocation.headers] != holds
        {
            return false;
        }
        let Some((input, region)) = self.ends_alone(invocation) else {
            return false;
        };
        let is_right = app.regions[usize::from(region)].owned
            && !app.is_at_limit()
            && app
                .judge_payload(id.slot, plain.extent, plain.size_bytes)
                .is_ok()
            && app.take_credit(id.slot, plain.extent).is_ok();
        if !is_right {
            return false;
        }
        app.charge_object(plain.extent.len_bytes() + OBJECT_CHARGE_BYTES);
        self.last_invocation += 1;
        self.follower = Some(Follower {
            id,
            sender,
            input,
            note: Note {
                plain,
                invocation: self.last_invocation,
                function,
                trigger,
                heard_ns: self.now_ns,
            },
        });
        true
    }

    /// Tells an executor to start what is noted.
    #[inline(always)]
    fn send_follower<S: Sink>(
        &self,
        app: &App,
        id: ExecutorId,
        sender: Ref<Invocation>,
        note: &Note,
        sink: &mut S,
    ) {
        let sender = &self.invocations[sender];
        let session = &self.sessions[sender.session];
        let dispatch = Dispatch {
            invocation: note.invocation,
            trigger: note.trigger,
            ..dispatch_in(app, session, &self.objects, note.function)
        };
        let input = note.input(session.id, sender.id, id.slot);
        sink.dispatch(id, &dispatch, std::iter::once(input));
    }

    /// The books of a follower that has been started where its sender has returned. Answers with
    /// the core of its executor.
    #[inline(always)]
    fn note_followed(&mut self, app: &mut App, slot: u16, returned: u16, note: &Note) -> u16 {
        let executor = &mut app.executors[usize::from(slot)];
        executor.close(returned, &mut self.timers);
        let core = executor.core;
        let plan = &app.plan.functions[usize::from(note.function)];
        let mut limit_ns = plan.timeout_ns;
        executor.loading = false;
        if note.function != returned {
            if !executor.has_loaded(note.function) {
                executor.loading = true;
                limit_ns = Some(plan.init_timeout_ns);
            }
            app.functions[usize::from(returned)].running -= 1;
            app.functions[usize::from(note.function)].running += 1;
        }
        if app.passed_over_ns.is_some() {
            app.note_precedence(note.function, note.heard_ns, self.now_ns);
        }
        if let Some(limit_ns) = limit_ns {
            self.limit_time(app, slot, limit_ns);
        }
        core
    }

    /// Queues what an invocation that has returned has turned into: it holds no request and no
    /// headers until it is started.
    #[inline(always)]
    fn queue_turned<S: Sink>(
        &mut self,
        app: &mut App,
        turned: Ref<Invocation>,
        note: &Note,
        sink: &mut S,
    ) {
        self.queue(app, turned);
        let invocation = &mut self.invocations[turned];
        invocation.queued_ns = note.heard_ns;
        let request = std::mem::take(&mut invocation.request);
        let headers = std::mem::take(&mut invocation.headers);
        for held in [request, headers] {
            if held.is_some() {
                self.drop_hold(app, held, sink);
            }
        }
    }
}
