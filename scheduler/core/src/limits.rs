//! Every capacity and constant of the core, with its arithmetic, in one place.

use pheromone_shm::message::{NO_BUCKET, UNIT_BYTES};

/// Bits of a session id that name its slot; the scheduler has 8, the generation the other 32.
pub const SESSION_SLOT_BITS: u32 = 24;
/// Sessions open at once in one scheduler, over all apps: 16 M slots of about 256 bytes, 4 GiB.
pub const SESSIONS_MAX: u32 = 1 << SESSION_SLOT_BITS;
/// Executor slots of one app; the region after them is ingress, and all regions are below
/// `u16::MAX`.
pub const EXECUTOR_SLOTS_MAX: u16 = u16::MAX - 1;
/// Functions of one app; `u16::MAX` stays free for "none".
pub const FUNCTIONS_MAX: u16 = NO_BUCKET - 1;

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
