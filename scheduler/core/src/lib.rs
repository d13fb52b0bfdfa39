//! The pure state machine of sessions, buckets, triggers, objects and dispatch.
//!
//! `step(event, now) -> actions`: everything that decides is here, and nothing here makes a system
//! call, reads a clock, or knows a thread, so that the same code runs under the real loop, under
//! property tests and under a seeded simulation.
#![forbid(unsafe_code)]

pub mod event;
pub mod spec;
