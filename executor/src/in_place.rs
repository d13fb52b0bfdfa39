//! Continuation in place: going on by itself with what an object of its own fires.
//!
//! The scheduler grants it, the manifest says for which functions, and a word in shared memory
//! decides with the scheduler who has it (`claim`). What is said in the ring is said before it is
//! done, so that a ring drained after a death says where this process stood.

use pheromone_sdk as sdk;
use pheromone_shm::message::{FromExecutor, NO_TRIGGER, Target};

use crate::objects::Object;
use crate::protocol::{Program, Successor};
use crate::runtime::Runtime;

/// What may be gone on with.
pub struct Continuation {
    /// By function: what an object that is for it alone fires, where it may be gone on from and
    /// gone on with.
    functions: Vec<Option<Step>>,
    /// By function: what its objects for `next` fire.
    next: Vec<Option<Step>>,
    /// By bucket: what an object with an automatic key fires.
    buckets: Vec<Option<Step>>,
    /// The attempt may still make its one offer.
    is_open: bool,
}

/// The one invocation that an object fires, as far as it is known before.
#[derive(Clone, Copy)]
pub struct Step {
    /// Of this function.
    pub function: u16,
    /// By this trigger.
    pub trigger: u16,
    /// Of its attempt.
    pub timeout_ns: u64,
    /// What is called, once it is loaded and initialized.
    entry: Option<sdk::FunctionEntry>,
}

impl Continuation {
    /// Of an app.
    pub fn new(program: &Program) -> Self {
        let plan = &program.in_place;
        let step = |function: u16, trigger: u16| {
            let timeout_ns = (*plan.functions.get(usize::from(function))?)?;
            Some(Step {
                function,
                trigger,
                timeout_ns,
                entry: None,
            })
        };
        let fired = |next: Successor| step(next.function, next.trigger);
        let only = |next: &[u16]| match *next {
            [function] => step(function, NO_TRIGGER),
            _ => None,
        };
        let functions = &program.functions;
        Self {
            functions: (0..functions.len() as u16)
                .map(|function| step(function, NO_TRIGGER))
                .collect(),
            next: functions.iter().map(|own| only(&own.next)).collect(),
            buckets: (0..program.buckets.len())
                .map(|bucket| plan.buckets.get(bucket).copied().flatten().and_then(fired))
                .collect(),
            is_open: false,
        }
    }

    /// This function is loaded and initialized.
    pub fn note_ready(&mut self, function: u16, entry: sdk::FunctionEntry) {
        let tables = [&mut self.functions, &mut self.next, &mut self.buckets];
        for step in tables.into_iter().flatten().flatten() {
            if step.function == function {
                step.entry = Some(entry);
            }
        }
    }

    /// An attempt of this function begins.
    #[inline(always)]
    pub fn begin(&mut self, function: u16) {
        self.is_open = matches!(self.functions.get(usize::from(function)), Some(Some(_)));
    }

    /// An attempt begins with which nothing is gone on.
    pub fn close(&mut self) {
        self.is_open = false;
    }

    /// What an object of this function for this target fires.
    #[inline(always)]
    fn step(&self, sender: u16, target: Target) -> Option<&Step> {
        let (table, at) = match target {
            Target::Bucket(bucket) => (&self.buckets, bucket),
            Target::Next => (&self.next, sender),
            Target::Function(function) => (&self.functions, function),
        };
        table[usize::from(at)].as_ref()
    }
}

impl Runtime {
    /// Whether the attempt may still make an offer, and something is granted.
    #[inline(always)]
    pub fn may_offer(&self) -> bool {
        self.continuation.is_open && self.end.is_granted()
    }

    /// Publishes an object with an automatic key, without group or delay, so that this process goes
    /// on with what it fires. False: nothing has been said, since that cannot be. The caller has
    /// looked whether the invocation is cancelled and [may offer](Self::may_offer), and rings.
    #[inline(always)]
    pub fn offer(&mut self, object: &Object, target: Target, ordinal: u32) -> bool {
        if self.has_other_work() {
            return false;
        }
        let Some(step) = self.continuation.step(self.frame.function, target) else {
            return false;
        };
        let (Some(entry), Some(input)) = (step.entry, self.next.frame.first_input()) else {
            return false;
        };
        let Some(offer) = self.end.next_offer() else {
            return false;
        };
        let (extent, size_bytes) = (object.extent.get(), object.size_bytes.get());
        let invocation = offer.say(target, extent, size_bytes, ordinal);
        self.next.offered = Some(entry);
        input.continue_output(object, self.frame.chain.session);
        self.next.frame.begin_after(&self.frame, step, invocation);
        self.continuation.is_open = false;
        true
    }

    /// Goes on with what was offered, if it is still this process's: its frame is the present one
    /// then, and the attempt that has returned is over. Nothing it has created is left unsent.
    /// What is to be called.
    #[inline(always)]
    pub fn go_on(&mut self) -> Option<sdk::FunctionEntry> {
        let entry = self.next.offered?;
        if self.has_other_work() || self.cancelled() {
            return None;
        }
        let discarded = self.outputs.unsent() as u32;
        let room = self.end.take_offer(self.next.frame.invocation)?;
        room.say(&FromExecutor::Continue { discarded });
        self.end.ring();
        if discarded > 0 {
            self.discard_unsent();
        }
        self.forget_outputs();
        self.frame.clear();
        std::mem::swap(&mut self.frame, &mut self.next.frame);
        self.next.offered = None;
        self.enter();
        // What may be gone on with may be gone on from.
        self.continuation.is_open = true;
        self.frame.start_time();
        Some(entry)
    }
}
