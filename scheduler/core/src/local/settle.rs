//! Quiescence: what becomes of a session when nothing keeps it open.
//!
//! Its per-session triggers are settled by `at_end`, in manifest order: every firing before any
//! failing or dropping, and again from the start whenever something has changed. When nothing is
//! pending the session ends.

use smallvec::SmallVec;

use crate::event::{AppId, Cause, Failure, Sink};
use crate::limits::MISSING_KEYS_NAMED;
use crate::local::Local;
use crate::local::session::{End, Session};
use crate::local::trigger::SetState;
use crate::slab::Ref;
use crate::spec::{AtEnd, TriggerKind};

impl Local {
    /// Settles a session that may have become quiet, and starts what that fires.
    #[inline(always)]
    pub(super) fn settle<S: Sink>(&mut self, session: Ref<Session>, sink: &mut S) {
        if self.tables.sessions[session].busy == 0 {
            self.settle_quiet(session, sink);
        }
    }

    fn settle_quiet<S: Sink>(&mut self, session: Ref<Session>, sink: &mut S) {
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
                    self.tables.fire_set(of, state, session, None, sink);
                }
            }
            if self.tables.sessions[session].busy > 0 {
                self.dispatch_ready(app, sink);
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
            of.stats.dropped_total += 1;
            self.tables.drop_set(of, state, sink);
        }
    }

    /// The session's sets that wait for keys, in manifest order.
    fn pending(&mut self, session: Ref<Session>) -> SmallVec<[(u16, Ref<SetState>); 8]> {
        let mut pending = SmallVec::new();
        let mut next = self.tables.sessions[session].states;
        while let Some(state) = next.some() {
            let set = self.tables.states.get(state);
            if !set.fired {
                pending.push((set.trigger, state));
            }
            next = set.next;
        }
        pending.sort_unstable_by_key(|&(trigger, _)| trigger);
        pending
    }

    fn waiting_for(&mut self, app: AppId, state: Ref<SetState>) -> String {
        let set = self.tables.states.get(state);
        let (count, missing) = (set.objects.len(), set.missing as usize);
        let app = &self.apps[app];
        let plan = &app.plan.triggers[usize::from(set.trigger)];
        let bucket = &app.spec.buckets[usize::from(plan.bucket)];
        let spec = &bucket.triggers[usize::from(plan.index)];
        let TriggerKind::BySet { keys } = &spec.kind else {
            unreachable!("only sets have a state");
        };
        let mut absent: Vec<String> = keys
            .iter()
            .zip(&set.objects)
            .filter(|(_, object)| object.is_none())
            .take(MISSING_KEYS_NAMED)
            .map(|(key, _)| format!("`{key}`"))
            .collect();
        if missing > absent.len() {
            absent.push(format!("and {} more", missing - absent.len()));
        }
        format!(
            "waiting for: trigger `{}` of bucket `{}` has {} of its {count} keys; missing: {}",
            spec.name,
            bucket.name,
            count - missing,
            absent.join(", ")
        )
    }
}
