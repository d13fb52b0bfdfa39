//! Every capacity and constant of the core, with its arithmetic, in one place.

use pheromone_shm::message::{NO_BUCKET, UNIT_BYTES};

/// Bits of a session id that name its slot; the scheduler has 8, the generation the other 32.
pub const SESSION_SLOT_BITS: u32 = 24;
/// Numbers of sessions and invocations of one scheduler: what is left of an id beside the
/// scheduler's 8 bits.
pub const ID_NUMBERS: u64 = 1 << 56;
/// Sessions open at once in one scheduler, over all apps: 16 M slots of about 256 bytes, 4 GiB.
pub const SESSIONS_MAX: u32 = 1 << SESSION_SLOT_BITS;
/// Executor slots of one app; the region after them is ingress, and all regions are below
/// `u16::MAX`.
pub const EXECUTOR_SLOTS_MAX: u16 = u16::MAX - 1;
/// Functions of one app; `u16::MAX` stays free for "none".
pub const FUNCTIONS_MAX: u16 = NO_BUCKET - 1;

/// Windows of a `by_time` that may lie over one instant: `window` / `slide`.
pub const WINDOWS_MAX: u64 = 1024;

/// What the ledger charges for an object beside its extent: its entries in the core's tables.
pub const OBJECT_CHARGE_BYTES: u64 = 256;
/// What the ledger charges for an open session.
pub const SESSION_CHARGE_BYTES: u64 = 1024;
/// The least that an object costs: one unit and its charge.
pub const OBJECT_CHARGE_BYTES_MIN: u64 = UNIT_BYTES + OBJECT_CHARGE_BYTES;
/// Credit that an executor is kept supplied with where the quota allows; refilled below half.
pub const CREDIT_SLICE_BYTES: u64 = 1 << 20;
/// A refill smaller than this is not worth a store into the executor's page.
pub const CREDIT_REFILL_BYTES_MIN: u64 = 4096;

/// Inputs, keys and sets up to this many entries keep their buffer for the next user of the slot;
/// longer ones are given back to the allocator.
pub const BUFFER_ENTRIES_KEPT: usize = 64;
/// What a trigger's step tells is kept in one buffer per scheduler; up to this many entries of it
/// stay for the next step.
pub const OUTCOME_ENTRIES_KEPT: usize = 1 << 16;
/// Sleeping executors looked at for the best one; the list is in order of last use.
pub const SLEEPERS_LOOKED_AT: usize = 16;
/// Error events of one session that are told in words; the rest is counted.
pub const ERROR_EVENTS_TOLD: u32 = 16;
/// Missing keys that a waiting set names before it says how many more there are.
pub const MISSING_KEYS_NAMED: usize = 8;

/// Dead letters of one app, over all schedulers: 4 096 of about 256 bytes, 1 MiB beside what their
/// inputs hold.
pub const DEAD_LETTERS_MAX: u64 = 4096;
/// Dead letters hold at most one part in so many of an app's memory and objects, however large
/// `limits.dead_letters` is: what has failed must not keep from working what has not.
pub const DEAD_LETTERS_PART: u64 = 4;

/// How long a process may take from its start to its first message.
pub const START_TIMEOUT_NS: u64 = 30_000_000_000;
/// Invocations that waited longer than this, and were passed over by others of higher priority, are
/// counted as starved.
pub const STARVED_NS: u64 = 1_000_000_000;
/// Pause before a process is started after a failed start; doubles with each failure in a row.
pub const START_BACKOFF_NS: u64 = 10_000_000;
/// Longest pause between starts.
pub const START_BACKOFF_NS_MAX: u64 = 1_000_000_000;
/// Failed starts in a row after which, with no executor alive, those who wait are told; and failed
/// loads of one function, after which those who wait for it are.
pub const START_FAILURES_MAX: u32 = 8;
/// Processes in a row that could not load a function and are replaced at once; after that starts
/// back off as after failed starts.
pub const LOAD_FAILURES_FREE: u32 = 2;
/// Pause before a process is started after one that died in its first invocation, from the second
/// in a row. Each such process took an invocation with it and so cannot outrun the work: this only
/// bounds how many processes a second an app can use up.
pub const CRASH_PAUSE_NS: u64 = 1_000_000;
/// Failures in a row from which on an app's trouble is told.
pub const FAILURES_TOLD: u32 = 3;
/// How long an executor beyond the minimum is idle before it leaves.
pub const SURPLUS_IDLE_NS: u64 = 10_000_000_000;
/// Failed calls of a custom trigger in a row that fail the sessions that wait for it.
pub const TRIGGER_FAILURES_MAX: u32 = 3;
/// Sessions and calls are refused when less than one part in so many of memory or objects is left.
pub const RESERVE_PART: u64 = 10;
/// How long what a home wants of others stands before it is looked at again.
pub const WANTS_LOOKED_AT_NS: u64 = 10_000_000;
/// How long who needs memory waits for the answers of other homes, whatever `create_wait` says: as
/// long as the node waits for a scheduler that does not turn.
pub const ANSWER_WAIT_NS: u64 = 10_000_000_000;

/// Pause before a process is started after so many failures in a row.
pub(crate) fn restart_pause_ns(failures: u32) -> u64 {
    match failures {
        0 => 0,
        failed => (START_BACKOFF_NS << (failed - 1).min(16)).min(START_BACKOFF_NS_MAX),
    }
}
