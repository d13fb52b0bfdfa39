//! What becomes of a session: groups that close when what is upstream has fallen quiet, `at_end`,
//! and the one end that it has.

use pheromone_core::event::SessionId;
use pheromone_core::spec::{AtEnd, OnFailure, TriggerKind};
use pheromone_shm::message::Target;

use super::{Afterwards, Model, Place};
use crate::history::{Did, End, Why};
use crate::rules::What;

impl Model {
    /// Looks at a session of which something has ended. The contract says when groups close, not
    /// how soon that is noticed: assumed is here that it is looked at when an invocation is finally
    /// ended, a timer of the session fires, or something comes from outside.
    pub(super) fn settle(&mut self, session: SessionId) {
        if !self.sessions.contains_key(&session) {
            return;
        }
        self.close_groups(session);
        if self.is_busy(session) {
            return;
        }
        loop {
            let pending = self.pending(session);
            for &trigger in &pending {
                if self.at_end(session, trigger) == AtEnd::Fire {
                    self.happen_to(session, trigger, What::FirePending);
                }
            }
            if self.is_busy(session) || self.is_failing(session) {
                return;
            }
            let Some(&trigger) = pending.first() else {
                break;
            };
            let answered = self.sessions[&session].answered_by.is_some();
            if self.at_end(session, trigger) == AtEnd::Fail && !answered {
                self.end(session, End::Failed(Why::Waiting));
                return;
            }
            self.happen_to(session, trigger, What::DropPending);
            self.close_groups(session);
        }
        let of = &self.sessions[&session];
        let end = match (of.answered_by, of.has_caller) {
            (Some(_), _) => End::Responded,
            (None, true) if self.apps[&of.app].spec.response_required => {
                End::Failed(Why::NoResponse)
            }
            (None, _) => End::Completed,
        };
        self.end(session, end);
    }

    fn at_end(&self, session: SessionId, trigger: u16) -> AtEnd {
        self.apps[&self.sessions[&session].app]
            .trigger(trigger)
            .at_end
    }

    /// Triggers with something pending, in manifest order.
    fn pending(&self, session: SessionId) -> Vec<u16> {
        let states = self.sessions[&session].states.iter();
        let pending = states.filter(|(_, state)| state.verdict.is_pending);
        pending.map(|(&trigger, _)| trigger).collect()
    }

    fn is_failing(&self, session: SessionId) -> bool {
        let mut left = self.afterwards.iter();
        left.any(|task| matches!(task, Afterwards::Fail(of) if *of == session))
    }

    /// Whether anything keeps a session open.
    fn is_busy(&self, session: SessionId) -> bool {
        let of = &self.sessions[&session];
        let waits = |&trigger: &u16| self.at_end(session, trigger) == AtEnd::Wait;
        self.invocations
            .values()
            .any(|i| i.session == Some(session))
            || !of.delayed.is_empty()
            || self.pending(session).iter().any(waits)
    }

    /// Closes the groups for which nothing upstream is alive.
    fn close_groups(&mut self, session: SessionId) {
        // Between groups that close together the contract states no order.
        let order = self.next_order();
        while let Some((trigger, what)) = self.closable(session) {
            self.happen_in_any_order(session, trigger, what, Some(order));
        }
    }

    /// A group that closes now. One that would fire empty waits for those that can fire into it.
    fn closable(&self, session: SessionId) -> Option<(u16, What)> {
        let of = &self.sessions[&session];
        let app = &self.apps[&of.app];
        let mut closable: Vec<(u16, What)> = Vec::new();
        for (trigger, upstream) in &app.afters {
            if self.is_alive(session, *trigger, upstream) {
                continue;
            }
            let is_pending = of.states.get(trigger).is_some_and(|s| s.verdict.is_pending);
            let has_run = of
                .fired
                .iter()
                .any(|&function| upstream[usize::from(function)]);
            let fires_empty = matches!(
                app.trigger(*trigger).kind,
                TriggerKind::DynamicGroup {
                    fire_empty: true,
                    ..
                }
            );
            if is_pending {
                closable.push((*trigger, What::Close));
            } else if fires_empty && has_run && !of.not_empty.contains(trigger) {
                closable.push((*trigger, What::CloseEmpty));
            }
        }
        let into = |from: u16, to: u16| {
            let (_, upstream) = app
                .afters
                .iter()
                .find(|(t, _)| *t == to)
                .expect("it is one");
            let functions = &app.trigger(from).functions;
            from != to
                && functions
                    .iter()
                    .any(|&function| upstream[usize::from(function)])
        };
        let first = closable
            .iter()
            .position(|(to, _)| !closable.iter().any(|(from, _)| into(*from, *to)));
        // Of a ring of three or more, which `check` does not refuse, the first in the manifest.
        let first = first.or((!closable.is_empty()).then_some(0));
        first.map(|at| closable.swap_remove(at))
    }

    /// Whether anything is alive that can still fire into the upstream of a group.
    fn is_alive(&self, session: SessionId, group: u16, upstream: &[bool]) -> bool {
        let of = &self.sessions[&session];
        let app = &self.apps[&of.app];
        let is_upstream = |function: &u16| upstream[usize::from(*function)];
        let fires_upstream = |trigger: u16| {
            trigger != group && app.trigger(trigger).functions.iter().any(is_upstream)
        };
        let invocations = self
            .invocations
            .values()
            .filter(|i| i.session == Some(session));
        let mut functions = invocations.map(|invocation| invocation.function);
        let delayed_is_upstream = |target: Target, sender: u16| match target {
            Target::Function(function) => is_upstream(&function),
            Target::Next => {
                let next = &app.spec.functions[usize::from(sender)].next;
                next.iter().any(is_upstream)
            }
            Target::Bucket(bucket) => (0u16..)
                .zip(&app.triggers)
                .any(|(trigger, (of, _))| *of == bucket && fires_upstream(trigger)),
        };
        functions.any(|function| is_upstream(&function))
            || of
                .delayed
                .iter()
                .any(|d| delayed_is_upstream(d.target, d.function))
            || self.pending(session).into_iter().any(fires_upstream)
    }

    // Attempts.

    /// An attempt has failed: the invocation runs again, or what `on_failure` says follows.
    pub(super) fn attempt_failed(&mut self, number: usize, why: Why, is_permanent: bool) {
        let invocation = &self.invocations[&number];
        let Some(session) = invocation.session else {
            self.invocations.remove(&number);
            return;
        };
        let spec = &self.apps[&invocation.app].spec;
        let function = &spec.functions[usize::from(invocation.function)];
        let doubled_ns = function.backoff.first_ns << (invocation.attempt - 1);
        let due_ns = self.now_ns + doubled_ns.min(function.backoff.max_ns);
        let deadline_ns = self.sessions[&session].deadline_ns;
        let in_time = deadline_ns.is_none_or(|deadline_ns| due_ns < deadline_ns);
        if !is_permanent && invocation.attempt < function.attempts && in_time {
            let again = self.invocations.get_mut(&number).expect("it is there");
            again.attempt += 1;
            again.place = Place::Backoff(due_ns);
            again.got.clear();
            again.request = None;
            again.parts.clear();
            again.join_keys.clear();
            again.closes.clear();
            again.steered.values_mut().for_each(|calls| calls.0 = 0);
            return;
        }
        let on_failure = function.on_failure;
        self.bury(number, session);
        match on_failure {
            OnFailure::Continue => {
                self.app_of(session).error_events += 1;
                self.close_sources_of_failed(number, session);
                self.invocations.remove(&number);
                self.settle(session);
            }
            OnFailure::Fail | OnFailure::Bucket(_) => {
                self.invocations.remove(&number);
                self.end(session, End::Failed(why));
            }
        }
    }

    fn close_sources_of_failed(&mut self, number: usize, session: SessionId) {
        let invocation = &self.invocations[&number];
        let app = &self.apps[&invocation.app];
        let closed: Vec<u16> = match &app.spec.functions[usize::from(invocation.function)].sends {
            None => invocation.ever_closed.clone(),
            Some(sends) => {
                let numbers = (0u16..).zip(&app.triggers);
                numbers
                    .filter(|(number, (bucket, _))| {
                        sends.contains(bucket) && app.counts_sources(*number)
                    })
                    .map(|(number, _)| number)
                    .collect()
            }
        };
        for trigger in closed {
            self.happen_to(session, trigger, What::CloseSource);
        }
    }

    // Ends.

    /// A session ends, as the core must have said in this step.
    pub(super) fn end(&mut self, session: SessionId, end: End) {
        self.sync();
        let answered = self.sessions[&session].answered_by.is_some();
        let said = self
            .dids
            .iter()
            .enumerate()
            .find_map(|(at, did)| match did {
                Did::Ended(of, end, answered) if *of == session => Some((at, *end, *answered)),
                _ => None,
            });
        let Some((at, said, said_answered)) = said else {
            panic!("{session:?} has ended ({end:?}), and the core does not say so");
        };
        assert_eq!(
            (said, said_answered),
            (end, answered),
            "how {session:?} ended"
        );
        self.ends_seen.push(at);
        self.let_go(session);
    }

    /// What goes with a session.
    pub(super) fn let_go(&mut self, session: SessionId) {
        let of = self.sessions.remove(&session).expect("it is open");
        assert!(self.ended.insert(session), "a session ends once");
        if !of.response.is_empty() {
            self.untaken
                .insert(session, (of.app, of.request, of.response));
        }
        let of_session = |number: &&usize| self.invocations[*number].session == Some(session);
        let numbers: Vec<usize> = self
            .invocations
            .keys()
            .filter(of_session)
            .copied()
            .collect();
        for number in numbers {
            self.cancel(number);
        }
    }

    /// An invocation that nobody wants any more: it is gone, or goes when it returns.
    fn cancel(&mut self, number: usize) {
        let invocation = &self.invocations[&number];
        match invocation.place {
            Place::Running => self.tell_cancelled(number),
            // Where it is too late it runs for nobody.
            Place::Offered(by) if !self.is_withdrawn(by, invocation.id) => {
                let invocation = self.invocations.get_mut(&number).expect("it is there");
                invocation.session = None;
            }
            Place::Queued | Place::Offered(_) | Place::Backoff(_) => {
                self.invocations.remove(&number);
            }
        }
    }

    /// Who runs what nobody wants any more is told so, and has time to return.
    pub(super) fn tell_cancelled(&mut self, number: usize) {
        let invocation = self.invocations.get_mut(&number).expect("it is there");
        invocation.session = None;
        let (app, told) = (invocation.app, invocation.id);
        let grace_ns = self.apps[&app].spec.limits.cancel_grace_ns;
        let mut processes = self.processes.iter_mut();
        let runner = processes.find(|(_, process)| process.running == Some(number));
        let (&id, process) = runner.expect("it runs");
        if !process.killed {
            process.guard_ns = Some(self.now_ns + grace_ns);
            let is_told =
                |did: &Did| matches!(did, Did::Cancel(to, it) if *to == id && Some(*it) == told);
            assert!(
                self.dids.iter().any(is_told),
                "what runs is told that it is cancelled"
            );
        }
    }

    pub(super) fn do_afterwards(&mut self) {
        while let Some(task) = self.afterwards.pop_front() {
            match task {
                Afterwards::Fail(session) => {
                    if self.sessions.contains_key(&session) {
                        self.end(session, End::Failed(Why::Inputs));
                    }
                }
                Afterwards::CancelRest {
                    session,
                    trigger,
                    group,
                } => {
                    if self.sessions.contains_key(&session) {
                        self.cancel_rest(session, trigger, &group);
                    }
                }
            }
        }
    }

    fn cancel_rest(&mut self, session: SessionId, trigger: u16, group: &str) {
        self.sync();
        let app = &self.apps[&self.sessions[&session].app];
        let TriggerKind::Redundant { cancel_rest, .. } = &app.trigger(trigger).kind else {
            panic!("only rounds cancel the rest");
        };
        let is_of_round = |number: &usize| {
            let invocation = &self.invocations[number];
            let first = invocation.inputs.first();
            let same_group = first.is_some_and(|&item| self.objects[item].group == group);
            invocation.session == Some(session)
                && cancel_rest.contains(&invocation.function)
                && (group.is_empty() || same_group)
        };
        let cancelled: Vec<usize> = self
            .invocations
            .keys()
            .copied()
            .filter(is_of_round)
            .collect();
        for number in cancelled {
            self.cancel(number);
        }
        self.settle(session);
    }

    /// What the core has done in this step and the model has not found out by itself.
    pub(super) fn judge_rest(&mut self) {
        for at in 0..self.dids.len() {
            if let Did::Ended(session, end, _) = self.dids[at]
                && !self.ends_seen.contains(&at)
            {
                let app = self.sessions.get(&session).map(|of| of.app);
                let app = app.unwrap_or_else(|| panic!("{session:?} ended before"));
                let app = &self.apps[&app];
                let failures = app.failed_loads.values().chain([&app.failed_starts]);
                let is_hopeless = failures.max() >= Some(&super::START_FAILURES_MAX);
                assert!(
                    end == End::Failed(Why::NoExecutor) && is_hopeless,
                    "{session:?} ended ({end:?}), and nothing has ended it, but there is {}",
                    self.waits_for(session)
                );
                self.let_go(session);
            }
        }
        if let Some((id, start)) = self.next_start() {
            let queued = self.invocations.values().filter(|i| {
                i.place == Place::Queued && i.app == id.app && i.function == start.function
            });
            let queued: Vec<_> = queued.collect();
            panic!("{id:?} starts {start:?}; of that function are queued: {queued:#?}");
        }
    }
}

impl super::App {
    /// Whether a trigger is a group that its sources close.
    fn counts_sources(&self, number: u16) -> bool {
        use pheromone_core::spec::GroupClose;
        matches!(
            self.trigger(number).kind,
            TriggerKind::DynamicGroup {
                close: GroupClose::Sources(_) | GroupClose::SourcesAtRunTime,
                ..
            }
        )
    }
}
