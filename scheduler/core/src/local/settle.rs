//! Quiescence: what becomes of a session when nothing keeps it open.
//!
//! Groups that wait for what is upstream are looked at whenever something of a session has ended.
//! When nothing keeps it open its per-session triggers are settled by `at_end`, in manifest order:
//! every firing before any failing or dropping, and again from the start whenever something has
//! changed. In between, custom triggers decide about what they hold. When nothing is pending the
//! session ends.

use smallvec::SmallVec;

use crate::event::{AppId, Cause, Failure, Sink};
use crate::gather::Gatherer;
use crate::local::Local;
use crate::local::session::{End, Session};
use crate::local::trigger::State;
use crate::slab::Ref;
use crate::spec::{AtEnd, TriggerKind};

impl Local {
    /// Looks at a session of which something has ended, and starts what that fires.
    #[inline(always)]
    pub(super) fn settle<S: Sink>(&mut self, session: Ref<Session>, sink: &mut S) {
        let of = &self.tables.sessions[session];
        if of.busy == 0 || of.waiting > 0 || !of.afters.is_empty() {
            self.settle_slowly(session, sink);
        }
    }

    fn settle_slowly<S: Sink>(&mut self, session: Ref<Session>, sink: &mut S) {
        if !self.tables.sessions[session].afters.is_empty() {
            self.close_quiet_groups(session, sink);
        }
        // What has just closed may have fired somebody who could publish.
        self.tell_waits(session, sink);
        let of = &self.tables.sessions[session];
        if of.busy > 0 || of.is_held() {
            let app = of.app;
            self.dispatch_ready(app, sink);
            return;
        }
        if self.tables.sessions[session].states.is_some() && !self.settle_states(session, sink) {
            return;
        }
        self.end_session(session, &End::Quiet, sink);
    }

    /// Settles per-session triggers; whether the session is quiet and nothing is pending.
    fn settle_states<S: Sink>(&mut self, session: Ref<Session>, sink: &mut S) -> bool {
        let app = self.tables.sessions[session].app;
        loop {
            let pending = self.pending(session);
            let at_end = |local: &Self, trigger: u16| {
                local.apps[app].plan.triggers[usize::from(trigger)].at_end
            };
            for &(trigger, state) in &pending {
                if at_end(self, trigger) == AtEnd::Fire {
                    let of = &mut self.apps[app];
                    self.tables
                        .gather(of, state, None, sink, Gatherer::fire_pending);
                }
            }
            let of = &self.tables.sessions[session];
            if of.busy > 0 || of.is_held() {
                self.dispatch_ready(app, sink);
                return false;
            }
            if self.tables.is_failing(session) {
                return false;
            }
            if self.ask_customs(session, &pending) {
                return false;
            }
            let Some(&(trigger, state)) = pending.first() else {
                return true;
            };
            let answered = self.tables.sessions[session].answered_by != 0;
            if at_end(self, trigger) == AtEnd::Fail && !answered {
                let failure = Failure {
                    function: None,
                    invocation: 0,
                    attempt: 0,
                    cause: Cause::Waiting(self.waiting_for(app, state)),
                    executor: None,
                };
                self.end_session(session, &End::Failed(failure), sink);
                return false;
            }
            let of = &mut self.apps[app];
            self.tables
                .gather(of, state, None, sink, Gatherer::drop_pending);
            if !self.tables.sessions[session].afters.is_empty() {
                self.close_quiet_groups(session, sink);
            }
        }
    }

    /// The session's triggers that have something pending, in manifest order.
    fn pending(&mut self, session: Ref<Session>) -> SmallVec<[(u16, Ref<State>); 8]> {
        let mut pending = SmallVec::new();
        let mut next = self.tables.sessions[session].states;
        while let Some(at) = next.some() {
            let state = self.tables.states.get(at);
            if state.gatherer.is_pending() {
                pending.push((state.trigger, at));
            }
            next = state.next;
        }
        pending.sort_unstable_by_key(|&(trigger, _)| trigger);
        pending
    }

    fn waiting_for(&mut self, app: AppId, state: Ref<State>) -> String {
        let state = self.tables.states.get(state);
        let app = &self.apps[app];
        let plan = &app.plan.triggers[usize::from(state.trigger)];
        let bucket = &app.spec.buckets[usize::from(plan.bucket)];
        let spec = &bucket.triggers[usize::from(plan.index)];
        let keys = match &spec.kind {
            TriggerKind::BySet { keys } => keys.as_slice(),
            _ => &[],
        };
        format!(
            "waiting for: trigger `{}` of bucket `{}` {}",
            spec.name,
            bucket.name,
            state.gatherer.waiting_for(keys)
        )
    }
}
