//! Continuation in place: going on by itself with what an object of its own fires.
//!
//! The scheduler grants it, the manifest says for which functions, and a word in shared memory
//! decides with the scheduler who has it (`claim`). What is said in the ring is said before it is
//! done, so that a ring drained after a death says where this process stood.

use pheromone_sdk as sdk;
use pheromone_shm::message::{
    Ending, Extent, FromExecutor, Input, InputKey, NO_BUCKET, NO_TRIGGER, Target,
};

use crate::api;
use crate::objects::{Label, Object};
use crate::protocol::InPlace;
use crate::runtime::{Runtime, give_up};

/// What may be gone on with, and what has been offered.
pub struct Continuation {
    program: InPlace,
    offered: Option<Offered>,
    /// The attempt has had its one offer.
    is_spent: bool,
}

/// An invocation that this process starts next, if it is not taken back.
pub struct Offered {
    /// Its id.
    pub invocation: u64,
    /// Its function.
    pub function: u16,
    /// What fired.
    pub trigger: u16,
    /// Of its attempt.
    pub timeout_ns: u64,
    bucket: u16,
    extent: Extent,
    size_bytes: u64,
    arrival_ns: u64,
    sender: u64,
    ordinal: u32,
}

impl Continuation {
    /// Of an app.
    pub fn new(program: &InPlace) -> Self {
        Self {
            program: program.clone(),
            offered: None,
            is_spent: false,
        }
    }

    /// An attempt begins.
    #[inline]
    pub fn begin(&mut self) {
        self.offered = None;
        self.is_spent = false;
    }

    /// The function that an object for this target fires, by which trigger, and its timeout.
    #[inline]
    fn successor(&self, sender: u16, next: &[u16], target: Target) -> Option<(u16, u16, u64)> {
        let timeout_ns = |function: u16| *self.program.functions.get(usize::from(function))?;
        timeout_ns(sender)?;
        let (function, trigger) = match target {
            Target::Bucket(bucket) => {
                let next = (*self.program.buckets.get(usize::from(bucket))?)?;
                (next.function, next.trigger)
            }
            Target::Next => match *next {
                [function] => (function, NO_TRIGGER),
                _ => return None,
            },
            Target::Function(function) => (function, NO_TRIGGER),
        };
        Some((function, trigger, timeout_ns(function)?))
    }
}

impl Offered {
    /// Its input, which is in this region.
    pub fn input(&self, region: u16, session: u64) -> Input<'static> {
        Input {
            region,
            bucket: self.bucket,
            offset_units: self.extent.offset_units,
            size_bytes: self.size_bytes,
            session,
            arrival_ns: self.arrival_ns,
            key: InputKey::Auto {
                invocation: self.sender,
                ordinal: self.ordinal,
            },
            group: b"",
            attached: 0,
        }
    }
}

impl Runtime {
    /// Publishes an object, without group or delay, so that this process goes on with what it
    /// fires. False: nothing has been said, since that cannot be.
    #[inline]
    pub fn offer(&mut self, object: &Object, target: Target) -> bool {
        let continuation = &self.continuation;
        if continuation.is_spent || !self.end.may_offer() || self.attempt.initializing {
            return false;
        }
        let sender = self.frame.function;
        let next = &self.names.functions[usize::from(sender)].next;
        let Some((function, trigger, timeout_ns)) = continuation.successor(sender, next, target)
        else {
            return false;
        };
        let is_automatic = matches!(object.label.get(), Label::Auto { .. });
        if !is_automatic || !self.can_go_on(function) {
            return false;
        }
        let Some(invocation) = self.end.next_offer() else {
            return false;
        };
        let offered = Offered {
            invocation,
            function,
            trigger,
            timeout_ns,
            bucket: match target {
                Target::Bucket(bucket) => bucket,
                Target::Next | Target::Function(_) => NO_BUCKET,
            },
            extent: object.extent.get(),
            size_bytes: object.size_bytes.get(),
            arrival_ns: api::monotonic_ns(),
            sender: self.frame.invocation,
            ordinal: object.ordinal.get(),
        };
        self.end.offer(invocation);
        self.end.send_in_place(&FromExecutor::Offer {
            target,
            extent: offered.extent,
            size_bytes: offered.size_bytes,
            ordinal: offered.ordinal,
            invocation,
        });
        self.continuation.is_spent = true;
        self.continuation.offered = Some(offered);
        true
    }

    /// Goes on with what was offered, if it is still this process's: it is the next frame then, and
    /// the one that has returned is over. Nothing it has created is left unsent.
    pub fn go_on(&mut self) -> bool {
        let Some(offered) = self.continuation.offered.take() else {
            return false;
        };
        if self.is_wanted_elsewhere() || !self.end.take_offer(offered.invocation) {
            return false;
        }
        let discarded = self.discard_unsent();
        self.end
            .send_in_place(&FromExecutor::Continue { discarded });
        if let Err(broken) = self.hold_next(&offered) {
            give_up(&broken.to_string());
        }
        self.forget_attempt();
        true
    }

    /// The function has returned with success, and its process goes on or not.
    pub fn succeed(&mut self) {
        if !self.go_on() {
            self.complete(Ending::Returned, sdk::OK, &[]);
        }
    }
}
