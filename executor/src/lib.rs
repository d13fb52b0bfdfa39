//! The processes that run functions: the zygote, which forks executors, and the executors.
//!
//! The node starts the zygote ([`zygote::main`]) and speaks [`protocol`] with it, in packets
//! ([`packet`]). A forked child becomes an executor (`setup.rs`): it gives up rights, maps the
//! app's memory, closes every descriptor, and only then loads user code. `runtime.rs` is its loop,
//! `api.rs` the table behind `pheromone.h`. [`probe`] looks at a library for `pheromone check`.
//!
//! This crate knows the control memory of [`pheromone_shm`], and nothing of the scheduler.

mod api;
mod crash;
mod fault;
mod fork;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod in_place;
mod library;
mod memory;
mod names;
mod objects;
mod output;
pub mod packet;
mod populate;
pub mod probe;
pub mod protocol;
mod runtime;
pub mod sandbox;
mod setup;
mod strings;
mod threads;
mod title;
pub mod zygote;

pub use library::LoadError;
pub use setup::{App, OUTPUT_FD, Start, serve_here};
