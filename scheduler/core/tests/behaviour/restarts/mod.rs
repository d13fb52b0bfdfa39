//! Durable sessions: what is on disk before they go on, and what a restart makes of that.
//!
//! `rules.rs` says it one by one. `histories.rs` runs apps drawn from a seed with crashes of the
//! node at any moment, in which all of the core is lost and what had come to disk is restored.

mod disk;
mod histories;
mod rules;
