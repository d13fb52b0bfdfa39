//! Attempts: what follows when one has failed, and how a further one is kept from doing again what
//! an earlier one has done.
//!
//! All attempts of an invocation share its id, so an identity that it sends again is recognized and
//! absorbed, and a steering call made again is the same call. What only an invocation that can run
//! again needs is in a record of its own, so that others pay nothing for it. Attempts that run
//! beside each other (`rerun.rs`) share it.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;

use foldhash::fast::{FixedState, RandomState};
use pheromone_shm::message::{Ending, InputKey, NO_BUCKET, Target};
use smallvec::SmallVec;

use crate::event::{Cause, ExecutorId, Failure, Sink};
use crate::gather::{Gatherer, Rule, Sources};
use crate::local::app::App;
use crate::local::dispatch::Completion;
use crate::local::invocation::{Invocation, Place};
use crate::local::message::Publication;
use crate::local::name::{AutoText, key_text};
use crate::local::object::Object;
use crate::local::plan::FunctionPlan;
use crate::local::rerun::Watch;
use crate::local::session::{End, Session};
use crate::local::{Local, Tables, Timer};
use crate::slab::Ref;
use crate::spec::{Backoff, OnFailure};

/// Bit of a status that forbids a further attempt (`PHR_PERMANENT`).
const PERMANENT: i32 = 0x100;

/// Bucket and key of an object that an invocation sends.
type SentName = (u16, Box<[u8]>);

/// What the attempts of an invocation that may run again have done so far.
#[derive(Default)]
pub(super) struct Done {
    /// Automatic keys by bucket and ordinal, direct objects by ordinal alone.
    sent: HashSet<(u16, u32), RandomState>,
    /// Steering calls of a trigger by an attempt, and by the attempt that has made most.
    steered: HashMap<(u16, u32), u32, RandomState>,
    steered_most: HashMap<u16, u32, RandomState>,
    /// Sources that an attempt has closed, whether or not it succeeded.
    pub(super) closed: Vec<u16>,
    /// The attempts that are not ended: one, but for those that run beside others.
    pub(super) runs: SmallVec<[Ref<Invocation>; 2]>,
    /// The attempt that has begun last.
    pub(super) latest: u32,
    /// Attempts that have ended with an earlier life of the node, which are not counted.
    earlier: u32,
    /// Objects that an attempt has sent to disk under a name, in a durable session, and how many
    /// the attempt has that has sent most.
    persisted: HashMap<(u32, SentName), u32, RandomState>,
    persisted_most: HashMap<SentName, u32, RandomState>,
    /// Rerun rules.
    pub(super) watch: Watch,
}

impl Done {
    /// Identities remembered: they count as names.
    pub(super) fn names(&self) -> u64 {
        (self.sent.len() + self.persisted_most.len()) as u64
    }

    /// Attempts that count as its function's.
    pub(super) fn attempts(&self) -> u32 {
        self.latest - self.earlier
    }

    /// The invocation of an earlier life runs again. How often it had run is not known.
    pub(super) fn begin_again(&mut self) {
        self.latest += 1;
        self.earlier = 1;
    }

    /// Notes that an attempt sends an object to disk. False: another attempt has sent this one.
    fn sends(&mut self, attempt: u32, name: &SentName) -> bool {
        let count = self.persisted.entry((attempt, name.clone())).or_default();
        *count += 1;
        let most = self.persisted_most.entry(name.clone()).or_default();
        let is_new = *count > *most;
        *most = (*most).max(*count);
        is_new
    }

    /// What an attempt has sent last under a name could not be written: it has not been sent.
    fn takes_back(&mut self, attempt: u32, name: &SentName) {
        if let Some(count) = self.persisted.get_mut(&(attempt, name.clone())) {
            *count -= 1;
        }
        if let Some(most) = self.persisted_most.get_mut(name) {
            *most -= 1;
        }
    }

    /// Notes a steering call of an attempt. False: another one has made it.
    pub(super) fn is_new_call(&mut self, trigger: u16, attempt: u32) -> bool {
        let calls = self.steered.entry((trigger, attempt)).or_default();
        *calls += 1;
        let most = self.steered_most.entry(trigger).or_default();
        let is_new = *calls > *most;
        *most = (*most).max(*calls);
        is_new
    }
}

/// What follows from a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Another attempt.
    RunsAgain,
    /// The invocation is finally ended.
    Ends,
}

impl Local {
    /// The attempt that has come back has failed.
    #[cold]
    pub(super) fn attempt_returned<S: Sink>(
        &mut self,
        failed: Ref<Invocation>,
        id: ExecutorId,
        completion: &Completion<'_>,
        sink: &mut S,
    ) -> Fate {
        let message = String::from_utf8_lossy(completion.message).into_owned();
        let cause = match completion.ending {
            Ending::NotLoaded => Cause::NotLoaded(message),
            Ending::InitFailed => Cause::InitFailed(message),
            Ending::Returned | Ending::StrayThreads => Cause::Returned {
                status: completion.status,
                message,
            },
        };
        let is_permanent = completion.status > 0 && completion.status & PERMANENT != 0;
        self.attempt_failed(failed, id, cause, is_permanent, sink)
    }

    /// An attempt has failed for this cause: it is repeated, or `on_failure` says what follows. The
    /// caller finishes an invocation that ends.
    pub(super) fn attempt_failed<S: Sink>(
        &mut self,
        failed: Ref<Invocation>,
        id: ExecutorId,
        cause: Cause,
        is_permanent: bool,
        sink: &mut S,
    ) -> Fate {
        let Some(session) = self.tables.invocations[failed].session.some() else {
            return Fate::Ends;
        };
        if self.tables.has_another(failed) {
            return Fate::Ends;
        }
        let app = &mut self.apps[id.app];
        #[cfg(feature = "planted-bugs")]
        if self.tables.planted == Some(crate::planted::Planted::InputLostInCrash)
            && matches!(cause, Cause::Died(..))
            && self.tables.invocations[failed].input_count > 0
        {
            self.tables.invocations[failed].input_count -= 1;
            let lost = self.tables.invocations[failed].held.remove(0);
            self.tables.drop_hold(app, lost, sink);
        }
        if !is_permanent
            && (self.tables.run_again(app, failed, session, sink)
                || self.tables.waits_for_rule(app, failed, sink))
        {
            return Fate::RunsAgain;
        }
        let invocation = &self.tables.invocations[failed];
        let failure = Failure {
            function: Some(invocation.function),
            invocation: invocation.id,
            attempt: invocation.attempt,
            cause,
            executor: Some(id),
        };
        self.finally_failed(failed, failure, sink);
        Fate::Ends
    }

    /// An invocation is out of attempts: it is recorded, and `on_failure` says what follows.
    /// The caller ends it.
    pub(super) fn finally_failed<S: Sink>(
        &mut self,
        failed: Ref<Invocation>,
        failure: Failure,
        sink: &mut S,
    ) {
        let invocation = &self.tables.invocations[failed];
        let (session, function) = (invocation.session, invocation.function);
        let app = &mut self.apps[self.tables.sessions[session].app];
        self.tables.bury(app, failed, &failure, sink);
        match app.plan.functions[usize::from(function)].on_failure {
            OnFailure::Fail => {
                self.tables.leave_session(app, failed);
                self.end_session(session, &End::Failed(failure), sink);
            }
            OnFailure::Continue => {
                self.tables.tell_failure(app, session, &failure, sink);
                let sources = self.tables.sources_of_failed(app, failed);
                if !sources.is_empty() {
                    self.tables.leave_trace(failed);
                }
                for trigger in sources {
                    self.tables.close_source(app, session, trigger, sink);
                }
            }
            OnFailure::Bucket(bucket) => {
                self.tables.tell_failure(app, session, &failure, sink);
                self.tables.leave_trace(failed);
                self.report(failed, bucket, failure, sink);
            }
        }
    }

    /// The pause before a further attempt is over.
    pub(super) fn retry_timer<S: Sink>(&mut self, again: Ref<Invocation>, sink: &mut S) {
        let session = self.tables.invocations[again].session;
        let id = self.tables.sessions[session].app;
        self.tables.queue_again(&mut self.apps[id], again);
        self.dispatch_ready(id, sink);
        self.tell_waits(session, sink);
    }
}

impl Tables {
    /// Has a failed invocation run again after its pause. False: it must not.
    fn run_again<S: Sink>(
        &mut self,
        app: &mut App,
        failed: Ref<Invocation>,
        session: Ref<Session>,
        sink: &mut S,
    ) -> bool {
        let invocation = &self.invocations[failed];
        let plan = &app.plan.functions[usize::from(invocation.function)];
        if invocation.done.is_none() || self.dones[invocation.done].attempts() >= plan.attempts {
            return false;
        }
        let pause_ns = pause_ns(&plan.backoff, invocation.id, invocation.attempt);
        let due_ns = self.now_ns.saturating_add(pause_ns);
        if due_ns >= self.sessions[session].deadline_ns {
            return false;
        }
        self.forget_attempt(app, failed, sink);
        self.next_attempt(failed);
        let timer = self.timers.arm(due_ns, Timer::Retry(failed));
        self.invocations[failed].place = Place::Backoff(timer);
        true
    }

    /// An attempt has ended that is not the last: what it alone held is let go of.
    pub(super) fn forget_attempt<S: Sink>(
        &mut self,
        app: &mut App,
        ended: Ref<Invocation>,
        sink: &mut S,
    ) {
        let invocation = &mut self.invocations[ended];
        invocation.closes.clear();
        invocation.parts = Vec::new();
        invocation.join_keys = Vec::new();
        let request = std::mem::take(&mut invocation.request);
        let headers = std::mem::take(&mut invocation.headers);
        let inputs = invocation.input_count as usize;
        let mut dropped: Vec<_> = invocation.held.drain(inputs..).collect();
        dropped.extend([request, headers].iter().filter_map(|object| object.some()));
        for object in dropped {
            self.drop_hold(app, object, sink);
        }
    }

    /// An ended attempt's entry becomes the next attempt.
    pub(super) fn next_attempt(&mut self, again: Ref<Invocation>) {
        let at = self.invocations[again].done;
        self.disarm_rules(at);
        let done = &mut self.dones[at];
        done.latest += 1;
        self.invocations[again].attempt = done.latest;
    }

    /// A new invocation may have further attempts.
    #[cold]
    pub(super) fn remember(&mut self, plan: &FunctionPlan, fired: Ref<Invocation>) {
        let (at, done) = self.dones.take();
        *done = Done {
            runs: SmallVec::from_slice(&[fired]),
            latest: 1,
            watch: Watch::new(&plan.reruns),
            ..Done::default()
        };
        self.invocations[fired].done = at;
    }

    /// An attempt has ended for good, and with the last one the record goes. Several attempts are
    /// counted as one invocation.
    #[cold]
    pub(super) fn forget(&mut self, app: &mut App, ended: Ref<Invocation>) {
        let at = std::mem::take(&mut self.invocations[ended].done);
        let done = &mut self.dones[at];
        done.runs.retain(|run| *run != ended);
        if !done.runs.is_empty() {
            app.stats.invocations_total -= 1;
            return;
        }
        app.names -= done.names();
        self.disarm_rules(at);
        self.dones[at] = Done::default();
        self.dones.give(at);
    }

    /// Whether an invocation has begun more than one attempt.
    pub(super) fn has_several_attempts(&self, invocation: Ref<Invocation>) -> bool {
        let done = self.invocations[invocation].done;
        done.is_some() && self.dones[done].latest > 1
    }

    /// Whether another attempt of the sender has sent this identity. Notes it if not.
    pub(super) fn is_repeated(
        &mut self,
        app: &mut App,
        sender: Ref<Invocation>,
        publication: &Publication<'_>,
        ordinal: u32,
    ) -> bool {
        let Some(done) = self.invocations[sender].done.some() else {
            return false;
        };
        if publication.is_durable && self.sessions[publication.to.session].durable.is_some() {
            return self.has_sent_durable(app, sender, publication);
        }
        let place = match (publication.to.target, publication.object.key) {
            (Target::Bucket(bucket), InputKey::Named(key)) => {
                let name = self.names.find(publication.object.session, bucket, key);
                let by = publication.author;
                return name.is_some_and(|name| self.names.is_of_another_attempt(name, by));
            }
            (Target::Bucket(bucket), InputKey::Auto { .. }) => bucket,
            (Target::Next | Target::Function(_), _) => NO_BUCKET,
        };
        let is_new = self.dones[done].sent.insert((place, ordinal));
        app.names += u64::from(is_new);
        #[cfg(feature = "planted-bugs")]
        let is_new = is_new || self.planted == Some(crate::planted::Planted::FiresAgain);
        !is_new
    }

    /// An invocation of a durable session sends an object to disk: whether another attempt has
    /// sent this one, the so manieth of its name.
    fn has_sent_durable(
        &mut self,
        app: &mut App,
        sender: Ref<Invocation>,
        publication: &Publication<'_>,
    ) -> bool {
        let done = &mut self.dones[self.invocations[sender].done];
        let before = done.names();
        let name = sent_name(publication.object.bucket, publication.object.key);
        let is_new = done.sends(publication.author.attempt, &name);
        app.names += done.names() - before;
        !is_new
    }

    /// How many objects of this name the attempt of a durable session had sent to disk before the
    /// last one; `None` in other sessions.
    pub(super) fn send_ordinal(
        &self,
        sender: Ref<Invocation>,
        publication: &Publication<'_>,
    ) -> Option<u32> {
        let _ = self.sessions[publication.to.session].durable.as_ref()?;
        let done = self.invocations[sender].done.some()?;
        let name = sent_name(publication.object.bucket, publication.object.key);
        let sent = (publication.author.attempt, name);
        let count = self.dones[done].persisted.get(&sent)?;
        Some(count.saturating_sub(1))
    }

    /// What an executor's invocation has sent last under an object's name could not be written.
    pub(super) fn take_send_back(&mut self, sender: Ref<Invocation>, sent: Ref<Object>) {
        let invocation = &self.invocations[sender];
        if let Some(done) = invocation.done.some() {
            let object = self.objects[sent].input();
            let name = sent_name(object.bucket, object.key);
            self.dones[done].takes_back(invocation.attempt, &name);
        }
    }

    /// A successful invocation closes the sources that it has said it would.
    #[cold]
    pub(super) fn close_sources<S: Sink>(
        &mut self,
        app: &mut App,
        succeeded: Ref<Invocation>,
        sink: &mut S,
    ) {
        let Some(session) = self.invocations[succeeded].session.some() else {
            return;
        };
        for trigger in std::mem::take(&mut self.invocations[succeeded].closes) {
            self.close_source(app, session, trigger, sink);
        }
    }

    /// The session goes on without a failed invocation, which it is told of.
    fn tell_failure<S: Sink>(
        &mut self,
        app: &mut App,
        session: Ref<Session>,
        failure: &Failure,
        sink: &mut S,
    ) {
        let text = |_: &Self, app: &App| {
            let function = failure
                .function
                .map_or("", |index| app.function_name(index));
            format!(
                "function `{function}` has failed in attempt {} and the session goes on: {}",
                failure.attempt,
                said(&failure.cause)
            )
        };
        self.error_event(app, session, text, sink);
    }

    /// The sources that a failed invocation closes, where its session goes on: each trigger that
    /// its function may feed, where the manifest says so, and else each for which one of its
    /// attempts had closed.
    pub(super) fn sources_of_failed(&mut self, app: &App, failed: Ref<Invocation>) -> Vec<u16> {
        let invocation = &mut self.invocations[failed];
        let function = usize::from(invocation.function);
        let Some(sends) = &app.spec.functions[function].sends else {
            return match invocation.done.some() {
                Some(done) => std::mem::take(&mut self.dones[done].closed),
                None => invocation.closes.to_vec(),
            };
        };
        let has_sources = |rule: &Option<Rule>| matches!(rule, Some(Rule::Groups(rule)) if rule.sources != Sources::None);
        (0u16..)
            .zip(&app.plan.triggers)
            .filter(|(_, plan)| sends.contains(&plan.bucket) && has_sources(&plan.rule))
            .map(|(trigger, _)| trigger)
            .collect()
    }

    pub(super) fn close_source<S: Sink>(
        &mut self,
        app: &mut App,
        session: Ref<Session>,
        trigger: u16,
        sink: &mut S,
    ) {
        let state = self.state_of(app, session, trigger);
        let mut refused = None;
        self.gather(app, state, None, sink, |gatherer, out| {
            if let Gatherer::Groups(groups) = gatherer {
                refused = groups.close_source(out).err();
            }
        });
        if let Some(refusal) = refused {
            self.steering_refused(app, session, trigger, &refusal, sink);
        }
    }
}

fn sent_name(bucket: u16, key: InputKey<'_>) -> SentName {
    let mut text = AutoText::new();
    (bucket, key_text(key, &mut text).into())
}

/// The pause after this attempt: doubling, bounded, and shifted by `jitter` in a way that depends
/// on nothing but the invocation, so that a history can be repeated.
fn pause_ns(backoff: &Backoff, invocation: u64, attempt: u32) -> u64 {
    let doubled = backoff
        .first_ns
        .saturating_mul(1_u64.checked_shl(attempt - 1).unwrap_or(u64::MAX));
    let pause_ns = doubled.min(backoff.max_ns);
    let hash = FixedState::default().hash_one((invocation, attempt));
    // From -1 to 1.
    let shift = (hash >> 11) as f64 / (1_u64 << 52) as f64 - 1.0;
    (pause_ns as f64 * (1.0 + shift * backoff.jitter)) as u64
}

/// A cause in words, for the events of a session that goes on.
pub(super) fn said(cause: &Cause) -> String {
    match cause {
        Cause::Returned { status, message } if message.is_empty() => {
            format!("it returned {status}")
        }
        Cause::Returned { status, message } => format!("it returned {status}: {message}"),
        Cause::Died(death, detail) if detail.is_empty() => format!("its process died ({death:?})"),
        Cause::Died(death, detail) => format!("its process died ({death:?}): {detail}"),
        Cause::NotLoaded(why)
        | Cause::InitFailed(why)
        | Cause::Fault(why)
        | Cause::TimedOut(why)
        | Cause::NothingSent(why)
        | Cause::NoExecutor(why)
        | Cause::Trigger(why)
        | Cause::Waiting(why)
        | Cause::Limit(why)
        | Cause::NotWritten(why) => why.clone(),
        Cause::NoResponse => "there was no response".to_owned(),
    }
}
