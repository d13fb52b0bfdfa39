//! An executor process that keeps the protocol: its allocator's books, its credit, and the script
//! of the function that it runs. It may crash, hang, return early or late, but it does not lie.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pheromone_core::event::SessionId;
use pheromone_core::spec::{AppSpec, GroupClose, TriggerKind};
use pheromone_shm::claim::Granted;
use pheromone_shm::message::{Extent, REQUEST_OBJECT, Target};

use crate::history::{GivenKey, Label, Seen, Start};
use crate::plan::{GROUPS, KEYS, Plan};
use crate::rng::Rng;

/// What the ledger charges for an object beside its extent.
const OBJECT_CHARGE_BYTES: u64 = 256;

/// The memory of a region, as its owner knows it: what it has given out, and pieces it has back.
#[derive(Default)]
pub struct Allocator {
    taken: BTreeMap<u32, u32>,
    free: BTreeMap<u32, Vec<u32>>,
    end: u32,
}

impl Allocator {
    /// Of a region in which this is taken.
    pub fn adopt(extents: &[Extent]) -> Self {
        let mut adopted = Self::default();
        for extent in extents {
            adopted.taken.insert(extent.offset_units, extent.len_units);
            adopted.end = extent.offset_units + extent.len_units;
        }
        adopted
    }

    pub fn allocate(&mut self, size_bytes: u64) -> Extent {
        let len_units = Extent::units_for(size_bytes) as u32;
        let reused = self.free.get_mut(&len_units).and_then(Vec::pop);
        let offset_units = reused.unwrap_or_else(|| {
            self.end += len_units;
            self.end - len_units
        });
        self.taken.insert(offset_units, len_units);
        Extent {
            offset_units,
            len_units,
        }
    }

    pub fn release(&mut self, extent: Extent) {
        let taken = self.taken.remove(&extent.offset_units);
        assert_eq!(
            taken,
            Some(extent.len_units),
            "{extent:?} is given back once, as it was"
        );
        let free = self.free.entry(extent.len_units).or_default();
        free.push(extent.offset_units);
    }

    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }
}

/// Something that a function does.
#[derive(Clone, Debug)]
pub enum Action {
    Work(u64),
    Publish(Sent, u64),
    Forward(Sent, u32),
    /// To this session; 0: its own.
    Respond(SessionId, u64),
    FailSession(SessionId),
    RespondParts(Vec<u32>),
    Get(u16, String),
    ReleaseHold(u16, String),
    Join(u16, Vec<String>),
    Redundant(u16, u32, u32),
    Expect(u16, u32),
    CloseSource(u16),
    FetchInputs,
}

/// Where an object goes, under which names, and when. Keys that are none are automatic.
#[derive(Clone, Debug)]
pub struct Sent {
    target: Target,
    key: Option<&'static str>,
    group: &'static str,
    delay_ns: u64,
}

impl Sent {
    /// Under an automatic key, in no group and at once.
    pub fn plain(target: Target) -> Self {
        Self {
            target,
            key: None,
            group: "",
            delay_ns: 0,
        }
    }

    pub fn named(target: Target, key: &'static str) -> Self {
        Self {
            key: Some(key),
            ..Self::plain(target)
        }
    }

    pub fn of_group(target: Target, group: &'static str) -> Self {
        Self {
            group,
            ..Self::plain(target)
        }
    }

    /// Where to, if it is plain.
    pub fn plain_target(&self) -> Option<Target> {
        let is_plain = self.key.is_none() && self.group.is_empty() && self.delay_ns == 0;
        is_plain.then_some(self.target)
    }
}

/// How a function ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    Return(i32),
    Crash,
    Hang,
    NotLoaded,
    StrayThreads,
}

/// What a function does and how it ends.
#[derive(Clone, Debug)]
pub struct Script {
    pub actions: Vec<Action>,
    pub finish: Finish,
}

/// A running function.
#[derive(Debug)]
pub struct Run {
    pub start: Start,
    pub todo: VecDeque<Action>,
    pub finish: Finish,
    pub is_cancelled: bool,
    /// It does not look whether it is cancelled.
    pub is_stubborn: bool,
    /// Memory was refused, and the function gives up.
    pub gives_up: bool,
    pub held: u32,
    /// What its process goes on with once it has returned. An attempt offers once.
    pub offered: Option<Start>,
    pub has_offered: bool,
    directs: u32,
    automatic: BTreeMap<u16, u32>,
}

impl Run {
    pub fn new(start: Start, script: Script, is_stubborn: bool) -> Self {
        Self {
            held: start.inputs.len() as u32,
            start,
            todo: script.actions.into(),
            finish: script.finish,
            is_cancelled: false,
            is_stubborn,
            gives_up: false,
            offered: None,
            has_offered: false,
            directs: 0,
            automatic: BTreeMap::new(),
        }
    }

    /// Of a function that is there already, and does not fail to be loaded.
    pub fn of_loaded(mut self) -> Self {
        if self.finish == Finish::NotLoaded {
            self.finish = Finish::Return(0);
        }
        self
    }

    /// The label of the next object, with the numbers that the SDK counts.
    pub fn label(&mut self, sent: &Sent) -> Label {
        let ordinal = match (sent.target, sent.key) {
            (Target::Bucket(_), Some(_)) => 0,
            (Target::Bucket(bucket), None) => {
                let next = self.automatic.entry(bucket).or_default();
                *next += 1;
                *next - 1
            }
            (Target::Next | Target::Function(_), _) => {
                self.directs += 1;
                self.directs - 1
            }
        };
        Label {
            target: sent.target,
            key: match sent.key {
                Some(key) => GivenKey::Named(key.into()),
                None => GivenKey::Auto(ordinal),
            },
            ordinal,
            group: sent.group.into(),
            delay_ns: sent.delay_ns,
        }
    }
}

/// What a process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    Booting,
    Adopting,
    Waiting,
    Running,
    /// It waits for the answer to what it has asked.
    Asking,
    Hanging,
}

/// A process.
pub struct Process {
    pub incarnation: u32,
    pub doing: Doing,
    pub run: Option<Run>,
    pub memory: Allocator,
    pub adopted: Vec<Extent>,
    pub adopts: usize,
    pub loaded: BTreeSet<u16>,
    pub credit_bytes: u64,
    pub used_bytes: u64,
    /// Nothing more that it says, or is told through its ring, arrives before this.
    pub said_ns: u64,
    pub told_ns: u64,
    /// The invocation that its cancel word names.
    pub cancel_word: u64,
    /// Of the invocations granted to it, those it has used.
    pub granted: Granted,
    /// The first of the block from which it has offered last.
    pub block: u64,
    pub is_dead: bool,
}

impl Process {
    pub fn new(incarnation: u32) -> Self {
        Self {
            incarnation,
            doing: Doing::Booting,
            run: None,
            memory: Allocator::default(),
            adopted: Vec::new(),
            adopts: 0,
            loaded: BTreeSet::new(),
            credit_bytes: 0,
            used_bytes: 0,
            said_ns: 0,
            told_ns: 0,
            cancel_word: 0,
            granted: Granted::default(),
            block: 0,
            is_dead: false,
        }
    }

    /// Memory for so many bytes, or what is missing of the credit for it.
    pub fn allocate(&mut self, size_bytes: u64) -> Result<Extent, u64> {
        let cost_bytes = Extent::units_for(size_bytes) * 64 + OBJECT_CHARGE_BYTES;
        let left_bytes = self.credit_bytes - self.used_bytes;
        if cost_bytes > left_bytes {
            return Err(cost_bytes - left_bytes);
        }
        self.used_bytes += cost_bytes;
        Ok(self.memory.allocate(size_bytes))
    }
}

/// What a function does in an attempt that nobody has seen before.
pub fn write_script(rng: &mut Rng, plan: &Plan, start: &Start, actions_left: &mut u64) -> Script {
    let (spec, misfortunes) = (&plan.spec, &plan.misfortunes);
    let walks = plan.walks && rng.chance(950);
    let most = (*actions_left).min(if walks { 1 } else { 7 });
    let count = if walks { most } else { rng.below(most + 1) };
    *actions_left -= count;
    let function = &spec.functions[usize::from(start.function)];
    let mut actions: Vec<Action> = (0..count)
        .filter_map(|_| an_action(rng, plan, start, walks))
        .collect();
    if rng.chance(if walks { 50 } else { 500 }) {
        let at = rng.index(actions.len() + 1);
        actions.insert(at, Action::Work(rng.duration(40_000)));
    }
    if rng.chance(if walks { 2 } else { 30 }) {
        // Long enough for every timer of the plan to fall into it.
        actions.push(Action::Work(rng.range(1_000_000, 4_000_000)));
    }
    let can_be_killed = function.timeout_ns.is_some();
    let finish = if rng.chance(misfortunes.crash) {
        Finish::Crash
    } else if rng.chance(misfortunes.hang) && can_be_killed {
        Finish::Hang
    } else if rng.chance(misfortunes.error) {
        Finish::Return(*rng.pick(&[1, 7, -5]))
    } else if rng.chance(misfortunes.odd_end) {
        *rng.pick(&[
            Finish::Return(0x101),
            Finish::NotLoaded,
            Finish::StrayThreads,
        ])
    } else {
        Finish::Return(0)
    };
    if finish == Finish::NotLoaded {
        actions.clear();
    }
    Script { actions, finish }
}

fn an_action(rng: &mut Rng, plan: &Plan, start: &Start, walks: bool) -> Option<Action> {
    let spec = &plan.spec;
    let action = match rng.below(if walks { 1 } else { 20 }) {
        0..10 => {
            let sent = match plan.program.some_target(rng, spec, start.function) {
                Some(target) if walks || rng.chance(plan.plain) => Sent::plain(target),
                _ => a_sent(rng, spec, start)?,
            };
            Action::Publish(sent, rng.duration(3_000))
        }
        10 | 11 => {
            let sent = a_sent(rng, spec, start)?;
            Action::Forward(sent, an_object(rng, start)?)
        }
        12 => an_answer(rng, start),
        13 => Action::RespondParts(
            (0..rng.below(3))
                .filter_map(|_| an_object(rng, start))
                .collect(),
        ),
        14 => {
            let (bucket, key) = a_name(rng, spec, start);
            if rng.chance(700) {
                Action::Get(bucket, key)
            } else {
                Action::ReleaseHold(bucket, key)
            }
        }
        15 if !start.inputs.is_empty() => Action::FetchInputs,
        _ => return a_steering(rng, spec),
    };
    Some(action)
}

/// A response to its own session or to that of an input, which may be another.
fn an_answer(rng: &mut Rng, start: &Start) -> Action {
    if start.inputs.is_empty() || rng.chance(300) {
        return Action::Respond(SessionId(0), rng.duration(500));
    }
    let to = rng.pick(&start.inputs).session;
    if to != start.session && rng.chance(250) {
        return Action::FailSession(to);
    }
    Action::Respond(to, rng.duration(500))
}

fn a_sent(rng: &mut Rng, spec: &AppSpec, start: &Start) -> Option<Sent> {
    let function = &spec.functions[usize::from(start.function)];
    let all: Vec<u16> = (0..spec.buckets.len() as u16).collect();
    let buckets = function.sends.as_ref().unwrap_or(&all);
    let mut targets: Vec<Target> = buckets
        .iter()
        .map(|&bucket| Target::Bucket(bucket))
        .collect();
    if !targets.is_empty() && rng.chance(800) {
        targets = vec![*rng.pick(&targets)];
    }
    if !function.next.is_empty() {
        targets.push(Target::Next);
    }
    let callable = function.next.iter().chain(&function.calls);
    targets.extend(callable.map(|&function| Target::Function(function)));
    if targets.is_empty() {
        return None;
    }
    Some(Sent {
        target: *rng.pick(&targets),
        key: rng.chance(650).then(|| *rng.pick(&KEYS)),
        group: if rng.chance(500) {
            rng.pick::<&str>(&GROUPS)
        } else {
            ""
        },
        delay_ns: if rng.chance(100) {
            rng.range(1, 500_000)
        } else {
            0
        },
    })
}

fn an_object(rng: &mut Rng, start: &Start) -> Option<u32> {
    if start.request.is_some() && rng.chance(300) {
        return Some(REQUEST_OBJECT);
    }
    let count = start.inputs.len() as u64;
    (count > 0).then(|| rng.below(count) as u32)
}

/// A name to look for: mostly one that could be there.
fn a_name(rng: &mut Rng, spec: &AppSpec, start: &Start) -> (u16, String) {
    let known: Vec<&Seen> = start
        .inputs
        .iter()
        .filter(|seen| usize::from(seen.bucket) < spec.buckets.len())
        .collect();
    if !known.is_empty() && rng.chance(500) {
        let seen = rng.pick(&known);
        return (seen.bucket, seen.key_text());
    }
    let bucket = rng.index(spec.buckets.len()) as u16;
    (bucket, (*rng.pick(&KEYS)).into())
}

/// A call for one of the app's triggers that can be steered.
fn a_steering(rng: &mut Rng, spec: &AppSpec) -> Option<Action> {
    let triggers = spec.buckets.iter().flat_map(|bucket| &bucket.triggers);
    let steered: Vec<(u16, &TriggerKind)> = (0u16..)
        .zip(triggers)
        .map(|(number, trigger)| (number, &trigger.kind))
        .filter(|(_, kind)| {
            matches!(
                kind,
                TriggerKind::DynamicJoin
                    | TriggerKind::Redundant { .. }
                    | TriggerKind::DynamicGroup { .. }
            )
        })
        .collect();
    if steered.is_empty() {
        return None;
    }
    let &(number, kind) = rng.pick(&steered);
    Some(match kind {
        TriggerKind::DynamicJoin => {
            let mut keys = rng.some(&KEYS, 300);
            keys.truncate(spec.limits.inputs as usize);
            Action::Join(number, keys.into_iter().map(Into::into).collect())
        }
        TriggerKind::Redundant { .. } => {
            let k = rng.range(1, 3) as u32;
            Action::Redundant(number, k, k + rng.below(3) as u32)
        }
        TriggerKind::DynamicGroup {
            close: GroupClose::After(_),
            ..
        } if !rng.chance(50) => return None,
        _ if rng.chance(400) => Action::Expect(number, rng.below(4) as u32),
        _ => Action::CloseSource(number),
    })
}
