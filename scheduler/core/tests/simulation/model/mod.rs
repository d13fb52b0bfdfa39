//! The naive model: from what happened, in the order in which the core took it, it says what must
//! have fired with which objects, which objects are held, and how and when each session ends.
//!
//! It is told what the core chose where the contract leaves a choice (which executor runs what, and
//! whether memory is granted), and holds everything else against the core after each step. It
//! remembers whole histories and looks through them anew; nothing in it is clever or fast.

mod books;
mod fire;
mod in_place;
mod letters;
mod said;
mod settle;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pheromone_core::event::{AppId, Death, ExecutorId, Refusal, RequestId, SessionId};
use pheromone_core::spec::{AppSpec, Entry, GroupClose, TriggerKind, TriggerSpec};
use pheromone_shm::message::{Extent, NO_BUCKET, NO_TRIGGER, Target};

use crate::history::{Asked, Did, Door, End, Happening, Said, Why};
use crate::rules::{Entry as LogEntry, Item, Verdict, What};
use crate::upstream::upstream;

/// What the ledger charges for an object beside its extent, and for an open session.
const OBJECT_CHARGE_BYTES: u64 = 256;
const SESSION_CHARGE_BYTES: u64 = 1024;
/// From the start of a process to its first message.
const START_TIMEOUT_NS: u64 = 30_000_000_000;
/// Starts that fail in a row before those who wait are told.
const START_FAILURES_MAX: u32 = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
enum ObjectKey {
    Auto(u64, u32),
    /// Of a put from outside: nobody has been told the number.
    AutoOutside,
    Named(String),
}

#[derive(Clone, Debug)]
struct Object {
    app: AppId,
    session: SessionId,
    bucket: u16,
    key: ObjectKey,
    group: String,
    region: u16,
    extent: Extent,
    size_bytes: u64,
    arrival_ns: u64,
    /// Whose memory it is, where it is another's.
    root: Option<Item>,
}

impl Object {
    /// The key as text; one that nobody has been told has none that a key could equal.
    fn key_text(&self) -> String {
        match &self.key {
            ObjectKey::Auto(invocation, ordinal) => format!("~{invocation}.{ordinal}"),
            ObjectKey::AutoOutside => "~outside".to_owned(),
            ObjectKey::Named(name) => name.clone(),
        }
    }
}

/// A trigger of one session: all that has happened to it, and how much of that has been done.
#[derive(Default)]
struct State {
    log: Vec<LogEntry>,
    verdict: Verdict,
}

struct Delayed {
    item: Item,
    target: Target,
    function: u16,
    due_ns: u64,
}

struct Session {
    app: AppId,
    request: RequestId,
    has_caller: bool,
    answered_by: Option<u64>,
    deadline_ns: Option<u64>,
    /// Identities with their author: invocation and attempt.
    names: BTreeMap<(u16, String), (u64, u32)>,
    kept: BTreeMap<(u16, String), Item>,
    states: BTreeMap<u16, State>,
    delayed: Vec<Delayed>,
    /// Functions of which an invocation has been fired.
    fired: BTreeSet<u16>,
    /// `after` triggers at which an object has come, or which have fired without any.
    not_empty: BTreeSet<u16>,
    request_object: Option<Item>,
    response: Vec<Item>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Queued,
    /// Its sender may start it by itself.
    Offered(ExecutorId),
    Running,
    Backoff(u64),
}

#[derive(Debug)]
struct Invocation {
    /// Told with its first dispatch.
    id: Option<u64>,
    app: AppId,
    /// None once the session has ended or does not wait for it any more.
    session: Option<SessionId>,
    function: u16,
    trigger: u16,
    attempt: u32,
    inputs: Vec<Item>,
    window: Option<(u64, u64)>,
    place: Place,
    /// Turns are taken in this order; equals in any.
    order: u64,
    is_call: bool,
    got: Vec<Item>,
    request: Option<Item>,
    parts: Vec<Item>,
    join_keys: Vec<String>,
    /// Sources closed by this attempt and by any, in the order said.
    closes: Vec<u16>,
    ever_closed: Vec<u16>,
    /// Identities sent under automatic numbers, over all attempts.
    sent: BTreeSet<(u16, u32)>,
    /// Steering calls by trigger: of this attempt, and the most of any.
    steered: BTreeMap<u16, (u32, u32)>,
}

/// A process, as the core can know it.
#[derive(Default)]
struct Process {
    incarnation: u32,
    is_ready: bool,
    /// What it adopts and has not been told.
    adopts: Option<VecDeque<Extent>>,
    told_to_exit: bool,
    killed: bool,
    dying: bool,
    running: Option<usize>,
    is_loading: bool,
    loaded: BTreeSet<u16>,
    may_spin: bool,
    /// When it must be killed.
    guard_ns: Option<u64>,
    credit_bytes: u64,
    /// The first of the invocations that it was last granted.
    block: u64,
}

impl Process {
    fn can_start(&self) -> bool {
        self.is_ready
            && self.adopts.is_none()
            && !self.told_to_exit
            && !self.killed
            && !self.dying
            && self.running.is_none()
    }
}

struct App {
    spec: AppSpec,
    /// By app-wide number: bucket and place in it.
    triggers: Vec<(u16, usize)>,
    /// `after` triggers, with what is upstream of their function.
    afters: Vec<(u16, Vec<bool>)>,
    is_removing: bool,
    failed_starts: u32,
    /// By function: how often in a row it has not been loaded, at most.
    failed_loads: BTreeMap<u16, u32>,
    error_events: u64,
    dropped: u64,
    early: u64,
    letters: letters::Letters,
}

impl App {
    fn trigger(&self, number: u16) -> &TriggerSpec {
        let (bucket, place) = self.triggers[usize::from(number)];
        &self.spec.buckets[usize::from(bucket)].triggers[place]
    }
}

/// Left to be done at the end of a step.
enum Afterwards {
    Fail(SessionId),
    CancelRest {
        session: SessionId,
        trigger: u16,
        group: String,
    },
}

/// The model.
#[derive(Default)]
pub struct Model {
    now_ns: u64,
    apps: BTreeMap<AppId, App>,
    sessions: BTreeMap<SessionId, Session>,
    ended: BTreeSet<SessionId>,
    /// Responses of ended sessions that have not been taken.
    untaken: BTreeMap<SessionId, (AppId, RequestId, Vec<Item>)>,
    invocations: BTreeMap<usize, Invocation>,
    invocations_ever: usize,
    orders: u64,
    processes: BTreeMap<ExecutorId, Process>,
    objects: Vec<Object>,
    memory: books::Memory,
    afterwards: VecDeque<Afterwards>,
    /// What the core has done in this step.
    dids: Vec<Did>,
    /// Starts and withdrawals before this one have been accounted for.
    dids_seen: usize,
    ends_seen: Vec<usize>,
    /// The highest number of a block that was ever granted.
    last_granted: u64,
    pub fired_total: u64,
}

impl Model {
    /// Takes a step after the core has taken it, and says how the core has done.
    pub fn step(&mut self, now_ns: u64, happening: &Happening, dids: Vec<Did>) {
        self.now_ns = now_ns;
        self.dids = dids;
        self.dids_seen = 0;
        self.ends_seen.clear();
        self.note_processes(happening);
        self.fire_timers();
        self.happen(happening);
        self.do_afterwards();
        self.sync();
        self.judge_rest();
        self.note_exits();
        self.reconcile();
    }

    pub fn open_sessions(&self) -> Vec<SessionId> {
        self.sessions.keys().copied().collect()
    }

    /// What a session that is still open waits for, in words.
    pub fn waits_for(&self, session: SessionId) -> String {
        let of = &self.sessions[&session];
        let invocations = self.invocations.values();
        let live: Vec<_> = invocations.filter(|i| i.session == Some(session)).collect();
        let pending = of.states.iter().filter(|(_, s)| s.verdict.is_pending);
        let pending: Vec<u16> = pending.map(|(&trigger, _)| trigger).collect();
        let delayed = of.delayed.len();
        format!("invocations {live:?}, pending triggers {pending:?}, delayed objects {delayed}")
    }

    fn happen(&mut self, happening: &Happening) {
        match happening {
            Happening::Deploy(app, spec) => self.deploy(*app, spec),
            Happening::Remove(app) => self.remove(*app),
            Happening::Request(asked) => self.request(asked),
            Happening::Retry(retry) => self.retry(retry),
            Happening::DropLetters(app, letter) => self.drop_letters(*app, *letter),
            Happening::Cancel(session) => {
                if self.sessions.contains_key(session) {
                    self.end(*session, End::Cancelled);
                }
            }
            Happening::ResponseTaken(request, session) => self.response_taken(*request, *session),
            Happening::Started(id, incarnation) => self.started(*id, *incarnation),
            Happening::SpawnFailed(id) => self.start_failed(id.app),
            Happening::Said(id, said) => self.said(*id, said),
            Happening::Dying(id, _) => {
                if let Some(process) = self.processes.get_mut(id) {
                    process.dying = true;
                }
            }
            Happening::Died(id, _, death) => self.died(*id, *death),
            Happening::ReleaseRoom(_) | Happening::Flush(_) | Happening::Tick => {}
        }
    }

    fn deploy(&mut self, id: AppId, spec: &AppSpec) {
        let mut triggers = Vec::new();
        let mut afters = Vec::new();
        for (number, bucket) in (0u16..).zip(&spec.buckets) {
            for (place, trigger) in bucket.triggers.iter().enumerate() {
                if let TriggerKind::DynamicGroup {
                    close: GroupClose::After(function),
                    ..
                } = trigger.kind
                {
                    afters.push((triggers.len() as u16, upstream(spec, function)));
                }
                triggers.push((number, place));
            }
        }
        let app = App {
            spec: spec.clone(),
            triggers,
            afters,
            is_removing: false,
            failed_starts: 0,
            failed_loads: BTreeMap::new(),
            error_events: 0,
            dropped: 0,
            early: 0,
            letters: letters::Letters::default(),
        };
        self.apps.insert(id, app);
        self.memory.own((id, spec.ingress_slot()), &[]);
    }

    fn remove(&mut self, id: AppId) {
        let Some(app) = self.apps.get_mut(&id) else {
            return;
        };
        app.is_removing = true;
        for session in self.open_sessions() {
            if self.sessions[&session].app == id {
                self.end(session, End::Cancelled);
            }
        }
        self.drop_letters(id, None);
    }

    // Requests.

    /// What the core has answered in this step.
    fn answer_to(&self, request: RequestId) -> Result<SessionId, Refusal> {
        let answer = self.dids.iter().find_map(|did| match did {
            Did::Accepted(of, session) if *of == request => Some(Ok(*session)),
            Did::Refused(of, refusal) if *of == request => Some(Err(*refusal)),
            _ => None,
        });
        answer.expect("a request is accepted or refused at once")
    }

    fn request(&mut self, asked: &Asked) {
        let answer = self.answer_to(asked.id);
        // What time has started in this step waits no more.
        self.sync();
        let expected = self.refusal(asked);
        match answer {
            Ok(session) => {
                assert_eq!(expected, None, "the request was let in");
                self.let_in(asked, session);
            }
            Err(Refusal::Memory) => assert!(
                matches!(expected, None | Some(Refusal::Exists)) && self.is_tight(asked.app),
                "refused for want of memory, of which there is enough"
            ),
            Err(refusal) => assert_eq!(expected, Some(refusal), "the request was refused"),
        }
    }

    /// Why a request must be refused, memory aside.
    fn refusal(&self, asked: &Asked) -> Option<Refusal> {
        let Some(app) = self.apps.get(&asked.app).filter(|app| !app.is_removing) else {
            return Some(Refusal::NoApp);
        };
        let limits = &app.spec.limits;
        if let Some(session) = asked.session {
            let is_open = self.sessions.get(&session);
            if is_open.is_none_or(|of| of.app != asked.app) {
                return Some(Refusal::SessionEnded);
            }
        } else if self.count_sessions(asked.app) >= u64::from(limits.sessions) {
            return Some(Refusal::Sessions);
        }
        let door = self.door(asked);
        if matches!(door, Door::Function(_))
            && self.count_calls(asked.app) >= u64::from(limits.calls_waiting)
        {
            return Some(Refusal::CallsWaiting);
        }
        match (asked.session, door) {
            (
                Some(session),
                Door::Bucket {
                    bucket,
                    key: Some(key),
                    ..
                },
            ) if self.sessions[&session]
                .names
                .contains_key(&(bucket, key.clone())) =>
            {
                Some(Refusal::Exists)
            }
            _ => None,
        }
    }

    fn door(&self, asked: &Asked) -> Door {
        match (&asked.door, self.apps[&asked.app].spec.entry) {
            (Door::Entry, Some(Entry::Function(function))) => Door::Function(function),
            (Door::Entry, Some(Entry::Bucket(bucket))) => Door::Bucket {
                bucket,
                key: None,
                group: String::new(),
            },
            (Door::Entry, None) => panic!("plans give every app an entry"),
            (other, _) => other.clone(),
        }
    }

    fn let_in(&mut self, asked: &Asked, session: SessionId) {
        let joins = asked.session.is_some();
        if !joins {
            self.open(asked, session);
        }
        let app = &self.apps[&asked.app];
        let region = app.spec.ingress_slot();
        let keeps_request = app.spec.keep_request && !joins;
        let (bucket, key, group) = match self.door(asked) {
            Door::Function(_) => (NO_BUCKET, ObjectKey::Named("request".into()), String::new()),
            Door::Bucket { bucket, key, group } => (
                bucket,
                key.map_or(ObjectKey::AutoOutside, ObjectKey::Named),
                group,
            ),
            Door::Entry => unreachable!("the entry is a function or a bucket"),
        };
        let body = self.create(Object {
            app: asked.app,
            session,
            bucket,
            key,
            group,
            region,
            extent: asked.body.extent,
            size_bytes: asked.body.size_bytes,
            arrival_ns: self.now_ns,
            root: None,
        });
        if let Door::Function(function) = self.door(asked) {
            let order = self.next_order();
            self.fire(session, function, NO_TRIGGER, vec![body], None, order);
            let fired = self.invocations.values_mut().next_back();
            fired.expect("it has just been fired").is_call = true;
        } else {
            self.enter_name(session, body, (0, 0));
            self.deliver(session, body, Target::Bucket(bucket), 0);
            self.keep_in_bucket(session, body);
        }
        if keeps_request {
            self.session(session).request_object = Some(body);
        }
        self.settle(session);
    }

    fn open(&mut self, asked: &Asked, session: SessionId) {
        let spec = &self.apps[&asked.app].spec;
        let timeouts = [asked.timeout_ns, spec.session_timeout_ns];
        let timeout_ns = timeouts.into_iter().flatten().min();
        let opened = Session {
            app: asked.app,
            request: asked.id,
            has_caller: asked.has_caller,
            answered_by: None,
            deadline_ns: timeout_ns.map(|timeout_ns| self.now_ns + timeout_ns),
            names: BTreeMap::new(),
            kept: BTreeMap::new(),
            states: BTreeMap::new(),
            delayed: Vec::new(),
            fired: BTreeSet::new(),
            not_empty: BTreeSet::new(),
            request_object: None,
            response: Vec::new(),
        };
        assert!(
            !self.ended.contains(&session),
            "session ids are never used twice"
        );
        assert!(self.sessions.insert(session, opened).is_none());
    }

    fn response_taken(&mut self, request: RequestId, session: SessionId) {
        if let Some(of) = self.sessions.get_mut(&session)
            && of.request == request
        {
            of.response.clear();
        }
        self.untaken.remove(&session);
    }

    // Time.

    /// Does what is due, in order of its time; what that makes due comes after it.
    fn fire_timers(&mut self) {
        loop {
            let due = self.due();
            if due.is_empty() {
                return;
            }
            for together in due.chunk_by(|(a_ns, _), (b_ns, _)| a_ns == b_ns) {
                // Between timers that are due at one instant the contract states no order.
                let order = (together.len() > 1).then(|| self.next_order());
                for (due_ns, timer) in together {
                    self.fire_timer(*due_ns, timer, order);
                }
            }
        }
    }

    fn due(&self) -> Vec<(u64, Timer)> {
        let mut due = Vec::new();
        for (&id, session) in &self.sessions {
            due.extend(
                session
                    .deadline_ns
                    .map(|at_ns| (at_ns, Timer::Deadline(id))),
            );
            for (&trigger, state) in &session.states {
                let next_ns = state.verdict.next_ns;
                due.extend(next_ns.map(|at_ns| (at_ns, Timer::Trigger(id, trigger))));
            }
            let delayed = session.delayed.iter();
            due.extend(delayed.map(|delayed| (delayed.due_ns, Timer::Delayed(id, delayed.item))));
        }
        for (&number, invocation) in &self.invocations {
            if let Place::Backoff(due_ns) = invocation.place {
                due.push((due_ns, Timer::Retry(number)));
            }
        }
        due.retain(|&(due_ns, _)| due_ns <= self.now_ns);
        due.sort();
        due
    }

    fn fire_timer(&mut self, due_ns: u64, timer: &Timer, order: Option<u64>) {
        match *timer {
            Timer::Deadline(session) => {
                if self.sessions.contains_key(&session) {
                    self.end(session, End::TimedOut);
                }
            }
            Timer::Trigger(session, trigger) => {
                let state = self
                    .sessions
                    .get(&session)
                    .and_then(|of| of.states.get(&trigger));
                if state.is_some_and(|state| state.verdict.next_ns == Some(due_ns)) {
                    self.happen_in_any_order(session, trigger, What::Tick, order);
                    self.settle(session);
                }
            }
            Timer::Delayed(session, item) => self.publish_delayed(session, item),
            Timer::Retry(number) => {
                let order = order.unwrap_or_else(|| self.next_order());
                if let Some(invocation) = self.invocations.get_mut(&number)
                    && invocation.place == Place::Backoff(due_ns)
                {
                    invocation.place = Place::Queued;
                    invocation.order = order;
                    invocation.is_call = false;
                }
            }
        }
    }

    fn publish_delayed(&mut self, session: SessionId, item: Item) {
        let Some(of) = self.sessions.get_mut(&session) else {
            return;
        };
        let Some(at) = of.delayed.iter().position(|delayed| delayed.item == item) else {
            return;
        };
        let Delayed {
            target, function, ..
        } = of.delayed.remove(at);
        self.objects[item].arrival_ns = self.now_ns;
        self.deliver(session, item, target, function);
        self.keep_in_bucket(session, item);
        self.settle(session);
    }

    // Processes.

    /// What the core says of processes in this step and no other part of the model looks at.
    fn note_processes(&mut self, happening: &Happening) {
        for did in &self.dids {
            match *did {
                Did::Kill(id, ref why) => {
                    assert!(
                        !why.contains("protocol"),
                        "honest executors break no rule: {why}"
                    );
                    let Some(process) = self.processes.get_mut(&id) else {
                        continue;
                    };
                    assert!(!std::mem::replace(&mut process.killed, true), "killed once");
                    let guard_ns = process.guard_ns.take();
                    assert!(
                        guard_ns.is_some_and(|guard_ns| guard_ns <= self.now_ns),
                        "{id:?} is killed before its time ({guard_ns:?}): {why}"
                    );
                }
                Did::Credit(id, total_bytes) => {
                    let process = self.processes.get_mut(&id).expect("it goes to the living");
                    let returns = match happening {
                        Happening::Said(by, Said::Complete { .. }) => *by == id,
                        _ => false,
                    };
                    assert!(
                        total_bytes >= process.credit_bytes || returns,
                        "credit falls only between two dispatches"
                    );
                    process.credit_bytes = total_bytes;
                }
                Did::Spin(id, permitted) => {
                    if let Some(process) = self.processes.get_mut(&id) {
                        let before = std::mem::replace(&mut process.may_spin, permitted);
                        assert_ne!(before, permitted, "only changes are told");
                    }
                }
                Did::Grant(id, first) if first != 0 => {
                    let is_new = first > self.last_granted;
                    self.last_granted = self.last_granted.max(first);
                    let process = self.processes.get_mut(&id).expect("it goes to the living");
                    let again = std::mem::replace(&mut process.block, first) == first;
                    assert!(is_new || again, "{first} is granted to two");
                }
                Did::ErrorEvent(session, ref text) => {
                    assert!(
                        !self.ended.contains(&session),
                        "{session:?} has ended: {text}"
                    );
                }
                _ => {}
            }
        }
    }

    /// Who is told to leave has nothing to do any more, and is killed if it does not go.
    fn note_exits(&mut self) {
        for did in &self.dids {
            if let Did::Exit(id) = did {
                let grace_ns = self.apps[&id.app].spec.limits.cancel_grace_ns;
                let process = self
                    .processes
                    .get_mut(id)
                    .expect("only the living are told");
                assert!(
                    process.running.is_none(),
                    "{id:?} is told to leave its work"
                );
                assert!(!process.told_to_exit, "{id:?} is told twice");
                process.told_to_exit = true;
                process.guard_ns = (!process.killed).then_some(self.now_ns + grace_ns);
            }
        }
    }

    fn started(&mut self, id: ExecutorId, incarnation: u32) {
        let process = Process {
            incarnation,
            guard_ns: Some(self.now_ns + START_TIMEOUT_NS),
            ..Process::default()
        };
        assert!(
            self.processes.insert(id, process).is_none(),
            "one process a slot"
        );
    }

    fn start_failed(&mut self, app: AppId) {
        if let Some(app) = self.apps.get_mut(&app) {
            app.failed_starts += 1;
        }
    }

    fn load_failed(&mut self, app: AppId, number: usize) {
        let function = self.invocations[&number].function;
        if let Some(app) = self.apps.get_mut(&app) {
            *app.failed_loads.entry(function).or_default() += 1;
        }
    }

    fn died(&mut self, id: ExecutorId, _death: Death) {
        let process = self.processes.remove(&id).expect("what dies has lived");
        self.memory.disown(id.app, id.slot);
        if !process.is_ready || process.adopts.is_some() {
            self.start_failed(id.app);
        }
        if !process.killed
            && let Some(offered) = self.offered_by(id)
        {
            self.leave_offer(offered);
        }
        if let Some(number) = process.running {
            if process.is_loading {
                self.load_failed(id.app, number);
            }
            let why = if process.killed {
                Why::TimedOut
            } else {
                Why::Died
            };
            self.attempt_failed(number, why, false);
        }
        if let Some(offered) = self.offered_by(id) {
            self.offer_died(offered);
        }
    }

    fn process(&mut self, id: ExecutorId) -> &mut Process {
        self.processes.get_mut(&id).expect("it is alive")
    }

    fn session(&mut self, id: SessionId) -> &mut Session {
        self.sessions.get_mut(&id).expect("it is open")
    }

    fn app_of(&mut self, session: SessionId) -> &mut App {
        let app = self.sessions[&session].app;
        self.apps
            .get_mut(&app)
            .expect("an app stays while a session of it does")
    }

    fn next_order(&mut self) -> u64 {
        self.orders += 1;
        self.orders
    }
}

/// What is due; in this order where due together, which plans take care does not happen where it
/// would make a difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Deadline(SessionId),
    Trigger(SessionId, u16),
    Delayed(SessionId, Item),
    Retry(usize),
}
