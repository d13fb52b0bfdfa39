//! What the core does, one behaviour a file: worlds of honest executors in which a test says what
//! happens, and what must follow.
//!
//! They are one program, because each program has to translate the core, which is generic over its
//! sink, anew. A program of its own is `allocation.rs`, which counts what is allocated, and
//! `simulation`, whose world is another one.

mod common;

mod across;
mod attempts;
mod closing;
mod custom;
mod dead_letters;
mod delayed;
mod dispatch;
mod durable;
mod exchange;
mod executors;
mod failures;
mod faults;
mod flat;
mod gathering;
mod handover;
mod histories;
mod homes;
mod hostile;
mod ids;
mod in_place;
mod lagging;
mod memory;
mod objects;
mod published;
mod reruns;
mod restarts;
mod serial;
mod sessions;
mod shares;
mod spec;
mod speculation;
mod starvation;
mod triggers;
mod waiting;
mod weights;
