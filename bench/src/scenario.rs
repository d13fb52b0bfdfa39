//! The scenarios, a file each over the common harness.

pub mod call;
pub mod chain;
pub mod durable;
pub mod fan;
pub mod pair;
pub mod peers;
pub mod recover;
pub mod scale;
pub mod start;
pub mod throughput;
pub mod trigger;
pub mod wake;
