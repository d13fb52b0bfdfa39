//! An executor process as the protocol wants it: an allocator's books, a count of credit, and what
//! its open dispatch gave it.

use std::collections::{BTreeMap, BTreeSet};

use pheromone_core::event::Part;
use pheromone_shm::claim::{Claim, Granted};
use pheromone_shm::events::TriggerEvent;
use pheromone_shm::message::{Dispatch, Extent, Input, InputKey};

/// What the ledger charges for an object beside its extent.
const OBJECT_CHARGE_BYTES: u64 = 256;

/// The live extents of a region, by offset.
#[derive(Default)]
pub struct Memory {
    pub live: BTreeMap<u32, u32>,
    free: BTreeMap<u32, Vec<u32>>,
    end: u32,
}

impl Memory {
    pub fn new() -> Self {
        Self::default()
    }

    /// The last piece of that length given back, or a fresh one.
    pub fn allocate(&mut self, len_units: u32) -> Extent {
        let reused = self.free.get_mut(&len_units).and_then(Vec::pop);
        let offset_units = reused.unwrap_or_else(|| {
            self.end += len_units;
            self.end - len_units
        });
        let extent = Extent {
            offset_units,
            len_units,
        };
        self.insert(extent);
        extent
    }

    pub fn insert(&mut self, extent: Extent) {
        let before = self.live.insert(extent.offset_units, extent.len_units);
        assert_eq!(before, None, "memory is handed out once");
    }

    /// Takes back what was handed out.
    pub fn release(&mut self, extent: Extent) {
        let live = self.live.remove(&extent.offset_units);
        assert_eq!(
            live,
            Some(extent.len_units),
            "{extent:?} is released once, as it was"
        );
        self.free
            .entry(extent.len_units)
            .or_default()
            .push(extent.offset_units);
    }

    /// Fresh memory lies past what was adopted.
    pub fn start_after(&mut self, end: u32) {
        self.end = self.end.max(end);
    }

    pub fn holds(&self, offset_units: u32) -> bool {
        let before = self.live.range(..=offset_units).next_back();
        before.is_some_and(|(&start, &len)| offset_units < start + len)
    }
}

/// An object as an executor sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub region: u16,
    pub bucket: u16,
    pub offset_units: u32,
    pub size_bytes: u64,
    pub session: u64,
    pub key: OwnedKey,
    pub group: Vec<u8>,
    pub attached: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OwnedKey {
    Auto(u64, u32),
    Named(Vec<u8>),
}

impl Seen {
    pub fn new(input: &Input<'_>) -> Self {
        Self {
            region: input.region,
            bucket: input.bucket,
            offset_units: input.offset_units,
            size_bytes: input.size_bytes,
            session: input.session,
            key: match input.key {
                InputKey::Auto {
                    invocation,
                    ordinal,
                } => OwnedKey::Auto(invocation, ordinal),
                InputKey::Named(named) => OwnedKey::Named(named.to_vec()),
            },
            group: input.group.to_vec(),
            attached: input.attached,
        }
    }

    pub fn key_text(&self) -> String {
        match &self.key {
            OwnedKey::Auto(invocation, ordinal) => format!("~{invocation}.{ordinal}"),
            OwnedKey::Named(named) => String::from_utf8_lossy(named).into_owned(),
        }
    }

    pub fn part(&self) -> Part {
        Part {
            region: self.region,
            offset_units: self.offset_units,
            size_bytes: self.size_bytes,
        }
    }
}

/// An open dispatch.
#[derive(Clone, Debug)]
pub struct Open {
    pub function: u16,
    pub trigger: u16,
    pub attempt: u32,
    pub invocation: u64,
    pub session: u64,
    pub deadline_ns: u64,
    pub timeout_ns: u64,
    pub has_caller: bool,
    pub parallelism: u16,
    pub window: Option<(u64, u64)>,
    pub inputs: Vec<Seen>,
    pub request: Option<Seen>,
    pub got: Vec<Seen>,
    pub cancelled: bool,
}

impl Open {
    pub fn new(dispatch: &Dispatch<'_>, inputs: Vec<Seen>) -> Self {
        assert_eq!(dispatch.input_count as usize, inputs.len());
        Self {
            function: dispatch.function,
            trigger: dispatch.trigger,
            attempt: dispatch.attempt,
            invocation: dispatch.invocation,
            session: dispatch.session,
            deadline_ns: dispatch.deadline_ns,
            timeout_ns: dispatch.timeout_ns,
            window: dispatch.window,
            has_caller: dispatch.has_caller,
            parallelism: dispatch.parallelism,
            inputs,
            request: dispatch.request.as_ref().map(Seen::new),
            got: Vec::new(),
            cancelled: false,
        }
    }

    /// All that it may read.
    pub fn reads(&self) -> impl Iterator<Item = &Seen> {
        self.inputs.iter().chain(&self.request).chain(&self.got)
    }
}

/// What a custom trigger's process was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Object(u64, Seen),
    SessionEnd(u64),
    SessionGone(u64),
    Tick(u64),
}

impl Told {
    pub fn new(event: &TriggerEvent<'_>) -> Self {
        match event {
            TriggerEvent::Object { number, object } => Self::Object(*number, Seen::new(object)),
            TriggerEvent::SessionEnd { session, .. } => Self::SessionEnd(*session),
            TriggerEvent::SessionGone { session } => Self::SessionGone(*session),
            TriggerEvent::Tick { time_ns } => Self::Tick(*time_ns),
        }
    }

    /// The key of an object, or what else it is.
    pub fn text(&self) -> String {
        match self {
            Self::Object(_, seen) => seen.key_text(),
            Self::SessionEnd(_) => "end".into(),
            Self::SessionGone(_) => "gone".into(),
            Self::Tick(_) => "tick".into(),
        }
    }
}

/// A process.
#[derive(Default)]
pub struct Executor {
    pub incarnation: u32,
    pub core: u16,
    pub open: Option<Open>,
    /// Of a custom trigger's process: its open call.
    pub call: Option<Vec<Told>>,
    pub may_spin: bool,
    pub told_to_exit: bool,
    pub killed: bool,
    pub credit_total_bytes: u64,
    pub used_bytes: u64,
    pub adopting: Option<u32>,
    pub adopted: Vec<Extent>,
    pub credit_answer: Option<bool>,
    pub persist_answer: Option<i32>,
    pub object_answer: Option<Result<Seen, i32>>,
    pub parent_answer: Option<(u32, u64)>,
    pub refetched: Option<(u32, Vec<Seen>)>,
    pub ordinals: u32,
    /// First of the invocations that it may start by itself now.
    pub grant: u64,
    pub granted: Granted,
    pub claim: Claim,
    /// What it would go on with.
    pub offered: Option<Open>,
    /// What it has gone on from.
    pub passed: BTreeSet<u64>,
    /// Functions that it has loaded.
    pub loaded: BTreeSet<u16>,
}

impl Executor {
    pub fn runs(&self, function: u16) -> bool {
        self.open
            .as_ref()
            .is_some_and(|open| open.function == function)
    }

    pub fn close(&mut self) {
        self.has_loaded();
        self.open = None;
        self.offered = None;
        self.call = None;
        self.ordinals = 0;
    }

    /// Its open function has returned, and it goes on with what it has offered if that is still its
    /// own.
    pub fn goes_on(&mut self) -> bool {
        let offered = self.offered.take();
        let Some(next) = offered.filter(|next| self.claim.take(next.invocation)) else {
            return false;
        };
        self.has_loaded();
        self.passed
            .extend(self.open.as_ref().map(|open| open.invocation));
        self.open = Some(next);
        self.has_loaded();
        self.ordinals = 0;
        true
    }

    /// Its open function is loaded.
    pub fn has_loaded(&mut self) {
        self.loaded
            .extend(self.open.as_ref().map(|open| open.function));
    }

    pub fn next_ordinal(&mut self) -> u32 {
        self.ordinals += 1;
        self.ordinals - 1
    }

    /// Bytes missing for an allocation.
    pub fn lacks_credit(&self, len_units: u32) -> Option<u64> {
        let bytes = u64::from(len_units) * 64 + OBJECT_CHARGE_BYTES;
        let left = self.credit_total_bytes - self.used_bytes;
        (bytes > left).then(|| bytes - left)
    }

    pub fn charge(&mut self, extent: Extent) {
        self.used_bytes += extent.len_bytes() + OBJECT_CHARGE_BYTES;
        assert!(self.used_bytes <= self.credit_total_bytes);
    }

    /// An unsent object is given back before its function returns.
    pub fn discard(&mut self, extent: Extent) {
        self.used_bytes -= extent.len_bytes() + OBJECT_CHARGE_BYTES;
    }

    pub fn take_credit_answer(&mut self) -> Option<bool> {
        self.credit_answer.take()
    }

    pub fn take_parent(&mut self) -> Option<(u32, u64)> {
        self.parent_answer.take()
    }

    pub fn take_object_answer(&mut self) -> Option<Result<Seen, i32>> {
        self.object_answer.take()
    }
}
