//! Custom triggers: the user's own code decides, in a process of its own, what fires.
//!
//! Each has a slot past the pool's, so that it never waits for functions nor they for it. Its
//! process is told of what happens in *calls*, one at a time, each with as many events as there
//! are, and what it answers takes effect when the call has returned 0. A call that fails in any way
//! costs the process; its successor is told of everything that is pending. What is pending is in
//! the sessions' states (`gather/hand.rs`), what is still to be told in the notes here.

use std::collections::VecDeque;
use std::time::Duration;

use pheromone_shm::events::{EVENTS_ALWAYS_FIT, TriggerEvent};
use pheromone_shm::message::{ALL_FUNCTIONS, Ending, FromExecutor};
use smallvec::SmallVec;

use crate::event::{AppId, Cause, Death, ExecutorId, Failure, SessionId, Sink};
use crate::gather::Gatherer;
use crate::gather::hand::Hand;
use crate::limits::{START_TIMEOUT_NS, TRIGGER_FAILURES_MAX, restart_pause_ns};
use crate::local::afterwards::Afterwards;
use crate::local::app::App;
use crate::local::dispatch::Completion;
use crate::local::executor::{KillReason, State};
use crate::local::judge::Fault;
use crate::local::object::Object;
use crate::local::session::{End, Session};
use crate::local::trigger::State as TriggerState;
use crate::local::verdict::Verdict;
use crate::local::{Local, Tables, Timer};
use crate::slab::Ref;
use crate::spec::{AppSpec, TriggerKind};
use crate::timer::TimerId;

/// One custom trigger of an app.
pub(super) struct Custom {
    /// In the app's numbering.
    pub(super) trigger: u16,
    /// Of its process.
    slot: u16,
    /// Of one call.
    timeout_ns: u64,
    /// What its process has not been told, in order.
    notes: VecDeque<Note>,
    /// How many of these are worth a call.
    urgent: usize,
    /// A task of this step looks after it.
    is_listed: bool,
    call: Option<Call>,
    /// It has loaded its code.
    is_loaded: bool,
    /// It was told to leave, and its successor begins afresh.
    is_retiring: bool,
    /// When it wants a tick.
    tick: TimerId,
    tick_ns: u64,
    /// Calls and starts that failed in a row.
    failures: u32,
    /// Those since the last time that its sessions were failed for them.
    counted: u32,
    /// No process is started before this time.
    not_before_ns: u64,
    restart: TimerId,
}

/// Something that its process is to be told.
#[derive(Clone, Copy)]
enum Note {
    Object {
        session: SessionId,
        number: u64,
    },
    SessionEnd {
        session: SessionId,
    },
    /// Not worth a call by itself.
    SessionGone {
        session: SessionId,
    },
    Tick {
        time_ns: u64,
    },
}

/// What its process has been asked and has not answered.
#[derive(Default)]
struct Call {
    /// Sessions of the events that are to be answered, one entry for each.
    told: Vec<SessionId>,
    verdict: Verdict,
}

impl Custom {
    /// Those of a valid spec, in the order of their slots.
    pub(super) fn all(spec: &AppSpec) -> Vec<Self> {
        let triggers = spec.buckets.iter().flat_map(|bucket| &bucket.triggers);
        let customs = (0u16..).zip(triggers).filter_map(|(trigger, spec)| {
            let TriggerKind::Custom { timeout_ns, .. } = spec.kind else {
                return None;
            };
            Some((trigger, timeout_ns))
        });
        (spec.pool_slots()..)
            .zip(customs)
            .map(|(slot, (trigger, timeout_ns))| Self {
                trigger,
                slot,
                timeout_ns,
                notes: VecDeque::new(),
                urgent: 0,
                is_listed: false,
                call: None,
                is_loaded: false,
                is_retiring: false,
                tick: TimerId::NONE,
                tick_ns: u64::MAX,
                failures: 0,
                counted: 0,
                not_before_ns: 0,
                restart: TimerId::NONE,
            })
            .collect()
    }

    fn note(&mut self, note: Note) {
        self.urgent += usize::from(note.is_urgent());
        self.notes.push_back(note);
    }

    fn next_note(&mut self) -> Option<Note> {
        let note = self.notes.pop_front()?;
        self.urgent -= usize::from(note.is_urgent());
        Some(note)
    }

    fn forget_notes(&mut self) {
        self.notes.clear();
        self.urgent = 0;
    }
}

impl Note {
    fn is_urgent(&self) -> bool {
        !matches!(self, Self::SessionGone { .. })
    }
}

impl App {
    /// The custom trigger whose process this slot is for.
    #[inline]
    pub(super) fn custom_of_slot(&self, slot: u16) -> Option<usize> {
        let at = slot.checked_sub(self.pool_slots)?;
        (usize::from(at) < self.customs.len()).then_some(usize::from(at))
    }

    /// The custom trigger of this number, which is one.
    fn custom_of(&mut self, trigger: u16) -> (usize, &mut Custom) {
        let customs = self.customs.iter_mut().enumerate();
        customs
            .into_iter()
            .find(|(_, custom)| custom.trigger == trigger)
            .expect("every trigger with a hand is one of the app's customs")
    }

    /// Whether any custom trigger has a process, or one is asked for.
    pub(super) fn has_custom_process(&self) -> bool {
        let slots = self.executors[usize::from(self.pool_slots)..].iter();
        slots.into_iter().any(|it| it.state != State::Vacant)
    }

    /// A custom trigger in words.
    pub(super) fn custom_text(&self, at: usize) -> String {
        let plan = &self.plan.triggers[usize::from(self.customs[at].trigger)];
        let bucket = &self.spec.buckets[usize::from(plan.bucket)];
        let name = &bucket.triggers[usize::from(plan.index)].name;
        format!("trigger `{name}` of bucket `{}`", bucket.name)
    }

    /// What is said of a custom trigger that has taken too long to load or to decide.
    pub(super) fn over_call_time(&self, at: usize) -> String {
        let custom = &self.customs[at];
        let (what, limit_ns) = if custom.is_loaded {
            ("decided past its timeout", custom.timeout_ns)
        } else {
            ("was not loaded within", START_TIMEOUT_NS)
        };
        let limit = Duration::from_nanos(limit_ns);
        format!(
            "{} {what} of {limit:?} and was killed",
            self.custom_text(at)
        )
    }
}

impl Tables {
    /// Has a custom trigger told of an object that its hand has just been offered.
    pub(super) fn note_object(&mut self, app: &mut App, trigger: u16, state: Ref<TriggerState>) {
        let state = self.states.get(state);
        let Gatherer::Hand(hand) = &state.gatherer else {
            return;
        };
        let number = hand.last_number();
        let session = self.sessions[state.of()].id;
        self.note(app, trigger, Note::Object { session, number });
    }

    /// What a custom trigger held of a session is gone, and its process may have been told of it.
    pub(super) fn note_gone(&mut self, app: &mut App, trigger: u16, session: SessionId) {
        self.note(app, trigger, Note::SessionGone { session });
    }

    fn note(&mut self, app: &mut App, trigger: u16, note: Note) {
        let id = app.id;
        let (at, custom) = app.custom_of(trigger);
        custom.note(note);
        if note.is_urgent() {
            self.look_after_custom(id, at, custom);
        }
    }

    fn look_after_custom(&mut self, app: AppId, at: usize, custom: &mut Custom) {
        if !std::mem::replace(&mut custom.is_listed, true) {
            self.afterwards
                .push_back(Afterwards::Tell { app, custom: at });
        }
    }

    /// The hand of a custom trigger in a session.
    pub(super) fn hand(
        &mut self,
        session: SessionId,
        trigger: u16,
    ) -> Option<(Ref<TriggerState>, &mut Hand<Ref<Object>>)> {
        let found = self.states.find(session, trigger)?;
        match &mut self.states.get(found).gatherer {
            Gatherer::Hand(hand) => Some((found, hand)),
            _ => None,
        }
    }

    /// What its process is told of a note; nothing where that is over.
    fn event_of(&mut self, trigger: u16, note: Note) -> Option<(Note, Ref<Object>)> {
        match note {
            Note::Object { session, number } => {
                let (_, hand) = self.hand(session, trigger)?;
                Some((note, hand.get(number)?))
            }
            Note::SessionEnd { session } => {
                self.session(session)?;
                Some((note, Ref::NONE))
            }
            Note::SessionGone { .. } | Note::Tick { .. } => Some((note, Ref::NONE)),
        }
    }

    /// The states of a custom trigger, of all sessions.
    fn hands_of(&mut self, app: AppId, trigger: u16) -> Vec<Ref<TriggerState>> {
        let all: Vec<Ref<TriggerState>> = self.states.all().collect();
        let is_its = |&state: &Ref<TriggerState>| {
            let state = self.states.get(state);
            state.trigger == trigger && self.sessions[state.of()].app == app
        };
        all.into_iter().filter(is_its).collect()
    }
}

impl Local {
    /// Starts the processes of an app's custom triggers.
    pub(super) fn start_customs<S: Sink>(&mut self, app: AppId, sink: &mut S) {
        for at in 0..self.apps[app].customs.len() {
            self.start_custom(app, at, sink);
        }
    }

    /// Asks for a trigger's process, now or when the pause after failures is over.
    fn start_custom<S: Sink>(&mut self, app: AppId, at: usize, sink: &mut S) {
        let of = &mut self.apps[app];
        let custom = &mut of.customs[at];
        if of.removing || of.executors[usize::from(custom.slot)].state != State::Vacant {
            return;
        }
        if self.tables.now_ns < custom.not_before_ns {
            if custom.restart == TimerId::NONE {
                let timer = Timer::Restart(app, at);
                custom.restart = self.tables.timers.arm(custom.not_before_ns, timer);
            }
            return;
        }
        let slot = custom.slot;
        custom.is_loaded = false;
        custom.is_retiring = false;
        let core = self.spinners.place();
        of.set_state(slot, State::Asked);
        of.executor(slot).core = core;
        sink.spawn(ExecutorId { app, slot }, core);
    }

    /// The pause after failures is over.
    pub(super) fn restart_timer<S: Sink>(&mut self, app: AppId, at: usize, sink: &mut S) {
        let custom = &mut self.apps[app].customs[at];
        custom.restart = TimerId::NONE;
        self.tell_custom(app, at, sink);
    }

    /// The time that a trigger has asked for has come.
    pub(super) fn tick_timer(&mut self, app: AppId, at: usize) {
        let custom = &mut self.apps[app].customs[at];
        custom.tick = TimerId::NONE;
        let time_ns = std::mem::replace(&mut custom.tick_ns, u64::MAX);
        custom.note(Note::Tick { time_ns });
        self.tables.look_after_custom(app, at, custom);
    }

    /// A trigger's process has nothing open: it is told what there is to tell, or rests.
    pub(super) fn custom_is_free<S: Sink>(&mut self, id: ExecutorId, at: usize, sink: &mut S) {
        let app = &mut self.apps[id.app];
        if app.removing {
            self.tell_to_leave(id, sink);
        } else if app.executor(id.slot).dying {
            app.set_state(id.slot, State::Leaving);
        } else {
            app.set_state(id.slot, State::Idle);
            self.tell_custom(id.app, at, sink);
        }
    }

    /// Tells a trigger's process what there is to tell, or starts one that can be told.
    pub(super) fn tell_custom<S: Sink>(&mut self, app: AppId, at: usize, sink: &mut S) {
        let Some(of) = self.apps.get_mut(app) else {
            return;
        };
        let custom = &mut of.customs[at];
        custom.is_listed = false;
        if custom.urgent == 0 {
            return;
        }
        let slot = custom.slot;
        match of.executor(slot).state {
            State::Idle => self.call_custom(ExecutorId { app, slot }, at, sink),
            State::Vacant => self.start_custom(app, at, sink),
            State::Asked
            | State::Starting
            | State::Adopting
            | State::Busy
            | State::Waiting
            | State::Deciding
            | State::Leaving
            | State::Killed => {}
        }
    }

    fn call_custom<S: Sink>(&mut self, id: ExecutorId, at: usize, sink: &mut S) {
        let app = &mut self.apps[id.app];
        let tables = &mut self.tables;
        let trigger = app.customs[at].trigger;
        let mut call = Call::default();
        let mut events: SmallVec<[(Note, Ref<Object>); 8]> = SmallVec::new();
        while events.len() < EVENTS_ALWAYS_FIT
            && let Some(note) = app.customs[at].next_note()
        {
            if let Note::Object { session, .. } | Note::SessionEnd { session } = note {
                call.told.push(session);
            }
            events.extend(tables.event_of(trigger, note));
        }
        if events.is_empty() {
            return self.settle_answered(id.app, at, &call, sink);
        }
        let (now_ns, objects) = (tables.now_ns, &tables.objects);
        let told = events.iter().map(|&(note, object)| match note {
            Note::Object { number, .. } => TriggerEvent::Object {
                number,
                object: objects[object].input(),
            },
            Note::SessionEnd { session } => TriggerEvent::SessionEnd {
                session: session.0,
                time_ns: now_ns,
            },
            Note::SessionGone { session } => TriggerEvent::SessionGone { session: session.0 },
            Note::Tick { time_ns } => TriggerEvent::Tick { time_ns },
        });
        sink.events(id, trigger, told);
        app.set_state(id.slot, State::Deciding);
        let custom = &mut app.customs[at];
        custom.call = Some(call);
        let limit_ns = if custom.is_loaded {
            custom.timeout_ns
        } else {
            START_TIMEOUT_NS
        };
        tables.guard_call(app, id.slot, limit_ns);
    }

    /// Something that a trigger's process says while it has a call open.
    #[cold]
    pub(super) fn custom_says<S: Sink>(
        &mut self,
        id: ExecutorId,
        message: &FromExecutor<'_>,
        sink: &mut S,
    ) -> Result<(), Fault> {
        let app = &mut self.apps[id.app];
        let at = app.custom_of_slot(id.slot).ok_or(Fault::NotAsked)?;
        let most = app.spec.limits.objects as usize;
        let custom = &mut app.customs[at];
        let call = custom.call.as_mut().ok_or(Fault::NotAsked)?;
        let plan = &app.plan.triggers[usize::from(custom.trigger)];
        match *message {
            FromExecutor::Loaded if std::mem::replace(&mut custom.is_loaded, true) => {
                return Err(Fault::LoadedTwice);
            }
            FromExecutor::Loaded => {
                let timeout_ns = custom.timeout_ns;
                self.tables.guard_call(app, id.slot, timeout_ns);
            }
            FromExecutor::Fire {
                function,
                more,
                session,
                objects,
            } => {
                if function != ALL_FUNCTIONS && !plan.functions.contains(&function) {
                    return Err(Fault::NotItsFunction { function });
                }
                let session = SessionId(session);
                call.verdict.fire(session, function, more, objects, most)?;
            }
            FromExecutor::Drop { session, objects } => {
                call.verdict.drop(SessionId(session), objects, most)?;
            }
            FromExecutor::TickAt { time_ns } => call.verdict.tick_ns = Some(time_ns),
            FromExecutor::Complete {
                status,
                ending,
                discarded,
                message,
            } => {
                let completion = Completion {
                    status,
                    ending,
                    discarded,
                    message,
                };
                self.custom_returned(id, at, &completion, sink);
            }
            _ => return Err(Fault::NoVerdict),
        }
        Ok(())
    }

    /// A call has come back: its verdict takes effect, or the process is replaced.
    fn custom_returned<S: Sink>(
        &mut self,
        id: ExecutorId,
        at: usize,
        completion: &Completion<'_>,
        sink: &mut S,
    ) {
        let app = &mut self.apps[id.app];
        let executor = app.executor(id.slot);
        executor.completed = executor.completed.saturating_add(1);
        self.tables.timers.cancel(&mut executor.timer);
        let call = app.customs[at].call.take().unwrap_or_default();
        let judged = match said_of(completion) {
            Some(why) => Err(why),
            None => self.tables.judge_verdict(app, at, &call.verdict),
        };
        if let Err(why) = judged {
            app.customs[at].is_retiring = true;
            self.tell_to_leave(id, sink);
            self.custom_failed(id.app, at, Some(id), &why, sink);
            return;
        }
        self.tables.carry_out_verdict(app, at, &call.verdict, sink);
        let custom = &mut app.customs[at];
        custom.failures = 0;
        custom.counted = 0;
        custom.not_before_ns = 0;
        if let Some(tick_ns) = call.verdict.tick_ns {
            self.tables.timers.cancel(&mut custom.tick);
            custom.tick_ns = tick_ns;
            if tick_ns != u64::MAX {
                custom.tick = self.tables.timers.arm(tick_ns, Timer::Tick(id.app, at));
            }
        }
        app.set_state(id.slot, State::Idle);
        self.settle_answered(id.app, at, &call, sink);
        if completion.ending == Ending::StrayThreads {
            self.apps[id.app].customs[at].is_retiring = true;
            self.tell_to_leave(id, sink);
        } else {
            self.custom_is_free(id, at, sink);
        }
    }

    /// The events of a call have been answered: their sessions need not wait for that any more.
    fn settle_answered<S: Sink>(&mut self, app: AppId, at: usize, call: &Call, sink: &mut S) {
        let of = &mut self.apps[app];
        let trigger = of.customs[at].trigger;
        for &session in &call.told {
            if let Some((_, hand)) = self.tables.hand(session, trigger) {
                hand.answered();
            }
        }
        let mut concerned: Vec<SessionId> = call.told.clone();
        concerned.extend(call.verdict.sessions());
        concerned.sort_unstable();
        concerned.dedup();
        for &session in &concerned {
            if let Some(state) = self.tables.states.find(session, trigger) {
                self.tables.look_after(of, state);
            }
        }
        self.dispatch_ready(app, sink);
        for session in concerned {
            if let Some(session) = self.tables.session(session) {
                self.settle(session, sink);
            }
        }
    }

    /// Has custom triggers decide about what they hold of a session that nothing else keeps open.
    /// Whether one has to.
    pub(super) fn ask_customs(
        &mut self,
        session: Ref<Session>,
        pending: &[(u16, Ref<TriggerState>)],
    ) -> bool {
        let of = &self.tables.sessions[session];
        let (app, id, firings) = (of.app, of.id, of.firings);
        let mut has_asked = false;
        for &(trigger, state) in pending {
            let Gatherer::Hand(hand) = &mut self.tables.states.get(state).gatherer else {
                continue;
            };
            if hand.wants_end(firings) {
                hand.tell_end(firings);
                has_asked = true;
                let of = &mut self.apps[app];
                self.tables.look_after(of, state);
                self.tables
                    .note(of, trigger, Note::SessionEnd { session: id });
            }
        }
        has_asked
    }

    /// A call or a start has failed. With the third in a row so do the sessions that wait for it.
    fn custom_failed<S: Sink>(
        &mut self,
        app: AppId,
        at: usize,
        executor: Option<ExecutorId>,
        why: &str,
        sink: &mut S,
    ) {
        let of = &mut self.apps[app];
        let custom = &mut of.customs[at];
        custom.failures = custom.failures.saturating_add(1);
        custom.counted += 1;
        let pause_ns = restart_pause_ns(custom.failures - 1);
        custom.not_before_ns = self.tables.now_ns.saturating_add(pause_ns);
        let trigger = custom.trigger;
        if custom.counted < TRIGGER_FAILURES_MAX {
            return;
        }
        custom.counted = 0;
        let text = of.custom_text(at);
        let failure = Failure {
            function: None,
            invocation: 0,
            attempt: 0,
            cause: Cause::Trigger(format!(
                "{text} failed {TRIGGER_FAILURES_MAX} times in a row: {why}"
            )),
            executor,
        };
        for state in self.tables.hands_of(app, trigger) {
            let state = self.tables.states.get(state);
            if state.gatherer.is_pending() {
                let session = state.of();
                self.end_session(session, &End::Failed(failure.clone()), sink);
            }
        }
    }

    /// A trigger's process is dead, or could not be started. The next one is told everything.
    pub(super) fn custom_ended<S: Sink>(
        &mut self,
        id: ExecutorId,
        at: usize,
        why: &str,
        sink: &mut S,
    ) {
        let app = &mut self.apps[id.app];
        let custom = &mut app.customs[at];
        let had_call = custom.call.take().is_some();
        let was_told_to_leave = custom.is_retiring || app.removing;
        if had_call || !was_told_to_leave {
            self.custom_failed(id.app, at, Some(id), why, sink);
        }
        self.begin_afresh(id.app, at, sink);
        self.tell_custom(id.app, at, sink);
        self.forget_if_empty(id.app, sink);
    }

    /// All that is pending is to be told again, oldest first.
    fn begin_afresh<S: Sink>(&mut self, app: AppId, at: usize, sink: &mut S) {
        let of = &mut self.apps[app];
        let custom = &mut of.customs[at];
        custom.forget_notes();
        custom.tick_ns = u64::MAX;
        self.tables.timers.cancel(&mut custom.tick);
        let trigger = custom.trigger;
        let mut pending: Vec<(u64, Note)> = Vec::new();
        let states = self.tables.hands_of(app, trigger);
        for &state in &states {
            let state = self.tables.states.get(state);
            let session = self.tables.sessions[state.of()].id;
            if let Gatherer::Hand(hand) = &mut state.gatherer {
                hand.tell_again();
                let objects = &self.tables.objects;
                pending.extend(hand.pending().map(|(number, object)| {
                    let arrival_ns = objects[object].input().arrival_ns;
                    (arrival_ns, Note::Object { session, number })
                }));
            }
        }
        // Those of one session that came at one time stay in their order.
        pending.sort_by_key(|&(arrival_ns, _)| arrival_ns);
        let custom = &mut of.customs[at];
        pending.into_iter().for_each(|(_, note)| custom.note(note));
        let sessions: Vec<SessionId> = states
            .iter()
            .map(|&state| {
                self.tables.look_after(of, state);
                let session = self.tables.states.get(state).of();
                self.tables.sessions[session].id
            })
            .collect();
        for session in sessions {
            if let Some(session) = self.tables.session(session) {
                self.settle(session, sink);
            }
        }
    }

    /// Forgets what an app's custom triggers still want, since the app goes.
    pub(super) fn forget_customs(&mut self, app: AppId) {
        for custom in &mut self.apps[app].customs {
            self.tables.timers.cancel(&mut custom.tick);
            self.tables.timers.cancel(&mut custom.restart);
        }
    }
}

/// What has gone wrong in a call that has come back.
fn said_of(completion: &Completion<'_>) -> Option<String> {
    let message = String::from_utf8_lossy(completion.message);
    match (completion.ending, completion.status) {
        (Ending::Returned | Ending::StrayThreads, 0) => None,
        (Ending::Returned | Ending::StrayThreads, status) if message.is_empty() => {
            Some(format!("it returned {status}"))
        }
        (Ending::Returned | Ending::StrayThreads, status) => {
            Some(format!("it returned {status}: {message}"))
        }
        (Ending::NotLoaded | Ending::InitFailed, _) => Some(message.into_owned()),
    }
}

/// How a process ended, in words that follow "its process".
pub(super) fn end_of(reason: Option<&KillReason>, death: Death, detail: &str) -> String {
    let detail = match detail {
        "" => String::new(),
        detail => format!(": {detail}"),
    };
    match (reason, death) {
        (Some(KillReason::Fault(why) | KillReason::TimedOut(why)), _) => why.clone(),
        (Some(KillReason::NotReady), _) => "its process did not say that it was ready".to_owned(),
        (_, Death::Exited(code)) => format!("its process ended with exit({code}){detail}"),
        (_, Death::Signaled(signal)) => {
            format!("its process was ended by signal {signal}{detail}")
        }
        (_, Death::Unknown) => format!("its process ended in an unknown way{detail}"),
    }
}
