//! Shared memory between processes that do not trust each other.
//!
//! Regions hold payloads, rings carry messages about them, doorbells wake who sleeps. This crate
//! knows nothing of functions, triggers or processes, and is the only place with shared-memory
//! `unsafe`: what it gives to others are values that have been copied and checked.
//!
//! | file | what |
//! | --- | --- |
//! | [`mod@file`] | sealed memory files, read-only descriptors of them |
//! | [`region`] | regions side by side in a window; a read-only view of the neighbours' |
//! | [`allocator`] | extents within one region |
//! | [`ring`] | single-producer rings of 64-byte slots |
//! | [`doorbell`] | sleeping and waking without losing a wake |
//! | [`message`], [`events`], [`wire`] | what is said, and its bytes |
//! | [`control`] | the control memory of one executor |
//! | [`link`](mod@link) | the ways between node and schedulers, and between schedulers |
//! | [`mapping`], [`sync`] | the doors to mapped words and atomics |

pub mod claim;
pub mod doorbell;
pub mod events;
pub mod limits;
pub mod message;
pub mod ring;
pub mod sync;
pub mod wire;

#[cfg(not(loom))]
pub mod allocator;
#[cfg(not(loom))]
mod bell;
#[cfg(not(loom))]
pub mod control;
#[cfg(not(loom))]
pub mod file;
#[cfg(not(loom))]
pub mod inherit;
#[cfg(not(loom))]
pub mod link;
#[cfg(not(loom))]
pub mod mapping;
#[cfg(not(loom))]
pub mod region;
