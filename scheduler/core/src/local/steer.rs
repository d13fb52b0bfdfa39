//! Steering: what functions tell triggers at run time.
//!
//! The executor has told its function what is wrong with a call; here a number that cannot be is a
//! fault, and what only the scheduler knows (that k and n have been given before, say) an error
//! event. A further attempt's same call is the same call, and does nothing again.

use pheromone_shm::wire::join_keys;

use crate::event::{ExecutorId, Sink};
use crate::gather::outcome::{Outcome, Refusal};
use crate::gather::{Gatherer, Rule};
use crate::local::app::App;
use crate::local::invocation::Invocation;
use crate::local::judge::Fault;
use crate::local::object::Object;
use crate::local::session::Session;
use crate::local::{Local, Tables};
use crate::slab::Ref;
use crate::spec::Scope;

/// A trigger and a step of its gatherer.
type Step<'a> =
    &'a mut dyn FnMut(&mut Gatherer<Ref<Object>>, &mut Outcome<Ref<Object>>) -> Result<(), Refusal>;

impl Local {
    /// `phr_join`: a list of keys, which may come in pieces.
    pub(super) fn join<S: Sink>(
        &mut self,
        id: ExecutorId,
        trigger: u16,
        keys: &[u8],
        more: bool,
        sink: &mut S,
    ) -> Result<(), Fault> {
        let app = &mut self.apps[id.app];
        let open = app.executor(id.slot).open("Join")?;
        let is_join = |rule: &Rule| matches!(rule, Rule::Joins(_));
        app.judge_steered(trigger, is_join)?;
        let most = app.spec.limits.inputs as usize;
        let invocation = &mut self.tables.invocations[open];
        invocation.join_keys.extend_from_slice(keys);
        if join_keys(&invocation.join_keys).count() > most {
            return Err(Fault::JoinKeys { most });
        }
        if more {
            return Ok(());
        }
        let encoded = std::mem::take(&mut invocation.join_keys);
        let keys: Vec<&[u8]> = join_keys(&encoded).collect();
        self.steer(
            id,
            open,
            (trigger, keys.len() as u64 + 1),
            sink,
            &mut |gatherer, out| match gatherer {
                Gatherer::Joins(joins) => joins.join(keys.iter().copied(), out),
                _ => Ok(()),
            },
        );
        Ok(())
    }

    /// `phr_redundant`.
    pub(super) fn redundant<S: Sink>(
        &mut self,
        id: ExecutorId,
        trigger: u16,
        (k, n): (u32, u32),
        sink: &mut S,
    ) -> Result<(), Fault> {
        let app = &mut self.apps[id.app];
        let open = app.executor(id.slot).open("Redundant")?;
        app.judge_steered(trigger, |rule| matches!(rule, Rule::Rounds(_)))?;
        self.steer(
            id,
            open,
            (trigger, 0),
            sink,
            &mut |gatherer, out| match gatherer {
                Gatherer::Rounds(rounds) => rounds.set_k_of_n(k, n, out),
                _ => Ok(()),
            },
        );
        Ok(())
    }

    /// `phr_expect_sources`.
    pub(super) fn expect_sources<S: Sink>(
        &mut self,
        id: ExecutorId,
        trigger: u16,
        sources: u32,
        sink: &mut S,
    ) -> Result<(), Fault> {
        let app = &mut self.apps[id.app];
        let open = app.executor(id.slot).open("ExpectSources")?;
        app.judge_steered(trigger, |rule| matches!(rule, Rule::Groups(_)))?;
        self.steer(
            id,
            open,
            (trigger, 0),
            sink,
            &mut |gatherer, out| match gatherer {
                Gatherer::Groups(groups) => groups.expect(sources, out),
                _ => Ok(()),
            },
        );
        Ok(())
    }

    /// `phr_close_source`: takes effect when the invocation succeeds.
    pub(super) fn close_source(&mut self, id: ExecutorId, trigger: u16) -> Result<(), Fault> {
        let app = &mut self.apps[id.app];
        let open = app.executor(id.slot).open("CloseSource")?;
        app.judge_steered(trigger, |rule| matches!(rule, Rule::Groups(_)))?;
        self.tables.leave_trace(open);
        let invocation = &mut self.tables.invocations[open];
        if !invocation.closes.contains(&trigger) {
            invocation.closes.push(trigger);
        }
        if let Some(done) = invocation.done.some() {
            let closed = &mut self.tables.dones[done].closed;
            if !closed.contains(&trigger) {
                closed.push(trigger);
            }
        }
        Ok(())
    }

    /// Takes a step of the trigger's gatherer in the invocation's session, unless an earlier
    /// attempt has made this call, or it needs more entries than there may be.
    fn steer<S: Sink>(
        &mut self,
        id: ExecutorId,
        open: Ref<Invocation>,
        (trigger, entries): (u16, u64),
        sink: &mut S,
        step: Step<'_>,
    ) {
        let invocation = &self.tables.invocations[open];
        let Some(session) = invocation.session.some() else {
            return;
        };
        self.tables.leave_trace(open);
        let invocation = &self.tables.invocations[open];
        if let Some(done) = invocation.done.some()
            && !self.tables.dones[done].is_new_call(trigger, invocation.attempt)
        {
            return;
        }
        let app = &mut self.apps[id.app];
        if entries > 0 && app.has_too_many_lists(entries) {
            self.fail_by_limit(open, session, id, sink);
            return;
        }
        let state = self.tables.state_of(app, session, trigger);
        let mut refused = None;
        self.tables
            .gather(app, state, Some(id.slot), sink, |gatherer, out| {
                refused = step(gatherer, out).err();
            });
        if let Some(refusal) = refused {
            self.tables
                .steering_refused(app, session, trigger, &refusal, sink);
        }
        self.dispatch_ready(id.app, sink);
    }
}

impl Tables {
    /// A steering call that only the scheduler could find wrong.
    pub(super) fn steering_refused<S: Sink>(
        &mut self,
        app: &mut App,
        session: Ref<Session>,
        trigger: u16,
        refusal: &Refusal,
        sink: &mut S,
    ) {
        let text = |_: &Self, app: &App| {
            let plan = &app.plan.triggers[usize::from(trigger)];
            let bucket = &app.spec.buckets[usize::from(plan.bucket)];
            let name = &bucket.triggers[usize::from(plan.index)].name;
            format!("trigger `{name}` of bucket `{}`: {refusal}", bucket.name)
        };
        self.error_event(app, session, text, sink);
    }
}

impl App {
    /// Whether a list of so many entries is past the limit on objects. One that fires at once
    /// leaves nothing but invocations, for which no object need be new, nor need there be any: so
    /// none is joined while as many wait.
    fn has_too_many_lists(&self, entries: u64) -> bool {
        let waiting = self.stats.queued + self.in_line;
        self.has_too_many_names(entries) || waiting >= u64::from(self.share.limits.objects)
    }

    /// A trigger's number, of a type that can be steered so.
    fn judge_steered(&self, trigger: u16, is_right: impl Fn(&Rule) -> bool) -> Result<(), Fault> {
        let count = self.plan.triggers.len();
        let plan = self.plan.triggers.get(usize::from(trigger));
        let plan = plan.ok_or(Fault::Trigger { trigger, count })?;
        if plan.scope == Scope::Session && plan.rule.as_ref().is_some_and(is_right) {
            Ok(())
        } else {
            Err(Fault::TriggerType { trigger })
        }
    }
}
