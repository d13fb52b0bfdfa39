//! Rerun rules (`reruns`): a source that sends nothing into a bucket in time runs again.
//!
//! The rules of a function are armed when an attempt of one of its invocations starts, and met by
//! the invocation's first object in their bucket, whichever attempt sends it. What has not been met
//! in time begins the next attempt: in place of the one that runs, which is killed, or beside it
//! where the rule is speculative; or after one that has ended, for which the invocation waits. As
//! often as the rule says; after that the invocation has failed.
//!
//! Attempts that run beside each other are entries of their own that share id, inputs and record
//! ([`Done`]). One that succeeds cancels the others; one that fails leaves them alone, unless it is
//! the last.

use std::time::Duration;

use smallvec::SmallVec;

use crate::event::{Cause, ExecutorId, Failure, Sink};
use crate::local::app::App;
use crate::local::attempt::{Done, Fate};
use crate::local::executor::{KillReason, State};
use crate::local::invocation::{Firing, Invocation, Place};
use crate::local::plan::RerunPlan;
use crate::local::{Local, Tables, Timer};
use crate::slab::Ref;
use crate::timer::TimerId;
use pheromone_shm::message::Target;

/// The rules that watch an invocation.
#[derive(Default)]
pub(super) struct Watch {
    /// Those that no object has met, by their number in the app, in the manifest's order.
    unmet: SmallVec<[u16; 2]>,
    /// When the latest attempt has started; none until it has.
    armed_ns: Option<u64>,
    timer: TimerId,
}

impl Watch {
    pub(super) fn new(rules: &[u16]) -> Self {
        Self {
            unmet: SmallVec::from_slice(rules),
            ..Self::default()
        }
    }

    /// The rule that is due first, and when; the first of several.
    fn next(&self, rules: &[RerunPlan]) -> Option<(u16, u64)> {
        let armed_ns = self.armed_ns?;
        let due = |&rule: &u16| {
            let timeout_ns = rules[usize::from(rule)].timeout_ns;
            (rule, armed_ns.saturating_add(timeout_ns))
        };
        self.unmet.iter().map(due).min_by_key(|&(_, due_ns)| due_ns)
    }
}

impl Tables {
    /// An attempt has started: its rules are armed.
    #[cold]
    pub(super) fn arm_rules(&mut self, app: &App, started: Ref<Invocation>) {
        let at = self.invocations[started].done;
        let watch = &mut self.dones[at].watch;
        if !watch.unmet.is_empty() {
            watch.armed_ns = Some(self.now_ns);
            self.wait_for_rules(app, at);
        }
    }

    /// Arms the timer for the rule that is due first.
    fn wait_for_rules(&mut self, app: &App, at: Ref<Done>) {
        let watch = &mut self.dones[at].watch;
        self.timers.cancel(&mut watch.timer);
        if let Some((_, due_ns)) = watch.next(&app.plan.reruns) {
            watch.timer = self.timers.arm(due_ns, Timer::Rerun(at));
        }
    }

    /// No rule is armed until the next attempt starts.
    pub(super) fn disarm_rules(&mut self, at: Ref<Done>) {
        let watch = &mut self.dones[at].watch;
        watch.armed_ns = None;
        self.timers.cancel(&mut watch.timer);
    }

    /// An object has been sent: it meets the rules of its bucket.
    #[inline]
    pub(super) fn meet_rules(&mut self, app: &App, sender: Ref<Invocation>, target: Target) {
        let at = self.invocations[sender].done;
        if at.is_some()
            && let Target::Bucket(bucket) = target
        {
            self.meet_rules_of(app, at, |rule| rule.bucket == bucket);
        }
    }

    #[cold]
    fn meet_rules_of(&mut self, app: &App, at: Ref<Done>, is_met: impl Fn(&RerunPlan) -> bool) {
        let unmet = &mut self.dones[at].watch.unmet;
        let before = unmet.len();
        unmet.retain(|rule| !is_met(&app.plan.reruns[usize::from(*rule)]));
        if unmet.len() < before {
            self.wait_for_rules(app, at);
        }
    }

    /// Whether a rule may begin another attempt of the invocation by itself.
    pub(super) fn has_armed_rule(&self, watched: Ref<Invocation>) -> bool {
        let at = self.invocations[watched].done;
        at.is_some() && self.dones[at].watch.timer != TimerId::NONE
    }

    /// Whether another attempt of the invocation is queued or runs beside this one.
    pub(super) fn has_another(&self, one: Ref<Invocation>) -> bool {
        let at = self.invocations[one].done;
        at.is_some()
            && self.dones[at]
                .runs
                .iter()
                .any(|&run| run != one && self.invocations[run].session.is_some())
    }

    /// An attempt has succeeded as far as its function is concerned. If no rule waits for what it
    /// has not sent, the invocation has; the caller then cancels other attempts.
    pub(super) fn outlasts_rules<S: Sink>(
        &mut self,
        app: &mut App,
        succeeded: Ref<Invocation>,
        sink: &mut S,
    ) -> Outcome {
        let at = self.invocations[succeeded].done;
        self.meet_rules_of(app, at, |rule| rule.optional);
        if self.dones[at].watch.unmet.is_empty() {
            Outcome::Succeeded
        } else if self.has_another(succeeded) {
            Outcome::LeavesItToOthers
        } else {
            // Its process may never have said that the function was loaded.
            if self.dones[at].watch.armed_ns.is_none() {
                self.arm_rules(app, succeeded);
            }
            self.rest(app, succeeded, sink);
            Outcome::Waits
        }
    }

    /// A failed attempt has no other of its own, but a rule may begin one: whether it is waited
    /// for.
    pub(super) fn waits_for_rule<S: Sink>(
        &mut self,
        app: &mut App,
        failed: Ref<Invocation>,
        sink: &mut S,
    ) -> bool {
        let invocation = &self.invocations[failed];
        let Some(at) = invocation.done.some() else {
            return false;
        };
        let done = &self.dones[at];
        let Some((rule, due_ns)) = done.watch.next(&app.plan.reruns) else {
            return false;
        };
        let is_late = due_ns >= self.sessions[invocation.session].deadline_ns;
        if is_late || done.attempts() >= app.plan.reruns[usize::from(rule)].attempts {
            return false;
        }
        self.rest(app, failed, sink);
        // It may have come due between the kill for another reason and the death.
        if self.dones[at].watch.timer == TimerId::NONE {
            self.wait_for_rules(app, at);
        }
        true
    }

    /// An ended attempt's invocation waits, with its inputs alone, until a rule is due.
    fn rest<S: Sink>(&mut self, app: &mut App, rests: Ref<Invocation>, sink: &mut S) {
        self.invocations[rests].place = Place::Resting;
        self.forget_attempt(app, rests, sink);
    }

    /// Begins the attempt that a rule asks for.
    fn rerun(&mut self, app: &mut App, again: Ref<Invocation>) {
        app.stats.reruns_total += 1;
        self.next_attempt(again);
        self.queue_again(app, again);
    }

    /// Begins an attempt beside those that run.
    fn run_beside(&mut self, app: &mut App, one: Ref<Invocation>) {
        app.stats.reruns_total += 1;
        let invocation = &self.invocations[one];
        let (id, at) = (invocation.id, invocation.done);
        let firing = Firing {
            session: invocation.session,
            function: invocation.function,
            trigger: invocation.trigger,
            window: invocation.window,
            near: None,
            is_call: false,
            root: invocation.root,
        };
        let count = invocation.input_count as usize;
        let inputs: SmallVec<[_; 4]> = invocation.held[..count].into();
        let beside = self.enter(app, firing, id, inputs.into_iter());
        self.disarm_rules(at);
        let done = &mut self.dones[at];
        done.latest += 1;
        done.runs.push(beside);
        let invocation = &mut self.invocations[beside];
        invocation.attempt = done.latest;
        invocation.done = at;
        self.queue(app, beside);
    }
}

/// What a successful attempt is for its invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Its success.
    Succeeded,
    /// Nothing: others are under way.
    LeavesItToOthers,
    /// Not enough: it waits until it runs again.
    Waits,
}

impl Local {
    /// An attempt of an invocation that may run again has succeeded.
    #[cold]
    pub(super) fn watched_succeeded<S: Sink>(
        &mut self,
        succeeded: Ref<Invocation>,
        id: ExecutorId,
        sink: &mut S,
    ) -> Fate {
        if self.tables.invocations[succeeded].session.is_none() {
            return Fate::Ends;
        }
        let app = &mut self.apps[id.app];
        match self.tables.outlasts_rules(app, succeeded, sink) {
            Outcome::Waits => Fate::RunsAgain,
            Outcome::LeavesItToOthers => Fate::Ends,
            Outcome::Succeeded => {
                self.tables.close_sources(app, succeeded, sink);
                self.cancel_others(succeeded, sink);
                Fate::Ends
            }
        }
    }

    /// Cancels the attempts beside one that has decided.
    fn cancel_others<S: Sink>(&mut self, one: Ref<Invocation>, sink: &mut S) {
        let at = self.tables.invocations[one].done;
        if self.tables.dones[at].runs.len() > 1 {
            for run in self.tables.dones[at].runs.clone() {
                if run != one {
                    self.cancel_invocation(run, sink);
                }
            }
        }
    }

    /// A rule has not been met in time.
    pub(super) fn rerun_timer<S: Sink>(&mut self, at: Ref<Done>, sink: &mut S) {
        let done = &mut self.tables.dones[at];
        done.watch.timer = TimerId::NONE;
        let invocations = &self.tables.invocations;
        let is_alive = |run: &Ref<Invocation>| invocations[*run].session.is_some();
        let runs: SmallVec<[Ref<Invocation>; 2]> =
            done.runs.iter().copied().filter(is_alive).collect();
        let Some(&one) = runs.first() else {
            return;
        };
        let session = self.tables.invocations[one].session;
        let id = self.tables.sessions[session].app;
        let app = &mut self.apps[id];
        let Some((rule, _)) = self.tables.dones[at].watch.next(&app.plan.reruns) else {
            return;
        };
        let plan = &app.plan.reruns[usize::from(rule)];
        let may_run = self.tables.dones[at].attempts() < plan.attempts;
        if self.tables.invocations[one].place == Place::Resting {
            if may_run {
                self.tables.rerun(app, one);
            } else {
                self.fail_unmet(one, rule, sink);
                return;
            }
        } else if may_run && plan.speculative {
            self.tables.run_beside(app, one);
        } else {
            self.kill_unmet(&runs, rule, may_run, sink);
        }
        self.dispatch_ready(id, sink);
        self.tell_waits(session, sink);
    }

    /// Kills the attempts that run, so that the next one can begin, or because there is none.
    fn kill_unmet<S: Sink>(
        &mut self,
        runs: &[Ref<Invocation>],
        rule: u16,
        may_run: bool,
        sink: &mut S,
    ) {
        for &run in runs {
            let invocation = &self.tables.invocations[run];
            let Place::Running(slot) = invocation.place else {
                continue;
            };
            let app = self.tables.sessions[invocation.session].app;
            let id = ExecutorId { app, slot };
            // One that is being killed already ends by that.
            let state = self.apps[app].executor(slot).state;
            if state != State::Busy && state != State::Waiting {
                continue;
            }
            let why = self.sent_nothing(run, rule);
            let reason = if may_run {
                KillReason::Overdue(format!("{why}: it is killed and runs again"))
            } else {
                KillReason::OutOfReruns(format!("{why} and was killed"))
            };
            self.kill(id, reason, sink);
        }
    }

    /// The process of an attempt that was overdue is dead.
    pub(super) fn overdue_died<S: Sink>(
        &mut self,
        open: Ref<Invocation>,
        id: ExecutorId,
        sink: &mut S,
    ) {
        let app = &mut self.apps[id.app];
        let is_wanted = self.tables.invocations[open].session.is_some();
        if is_wanted && !self.tables.has_another(open) {
            self.tables.forget_attempt(app, open, sink);
            self.tables.rerun(app, open);
            let session = self.tables.invocations[open].session;
            self.tell_waits(session, sink);
        } else {
            self.end_attempt(open, id.app, sink);
        }
    }

    /// An invocation that has succeeded without having sent, as often as it may run, has failed.
    fn fail_unmet<S: Sink>(&mut self, failed: Ref<Invocation>, rule: u16, sink: &mut S) {
        let invocation = &self.tables.invocations[failed];
        let failure = Failure {
            function: Some(invocation.function),
            invocation: invocation.id,
            attempt: invocation.attempt,
            cause: Cause::NothingSent(self.sent_nothing(failed, rule)),
            executor: None,
        };
        let app = self.tables.sessions[invocation.session].app;
        self.finally_failed(failed, failure, sink);
        self.end_attempt(failed, app, sink);
        self.dispatch_ready(app, sink);
    }

    fn sent_nothing(&self, run: Ref<Invocation>, rule: u16) -> String {
        let invocation = &self.tables.invocations[run];
        let app = &self.apps[self.tables.sessions[invocation.session].app];
        let plan = &app.plan.reruns[usize::from(rule)];
        format!(
            "function `{}` sent nothing into bucket `{}` within {:?} of its start, in attempt {} \
             of {}",
            app.function_name(invocation.function),
            app.spec.buckets[usize::from(plan.bucket)].name,
            Duration::from_nanos(plan.timeout_ns),
            invocation.attempt,
            plan.attempts,
        )
    }
}
