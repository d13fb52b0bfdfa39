//! What reads bytes that somebody else has written, given any bytes at all.
//!
//! A [`Target`] is a plain function over bytes that must neither panic nor find a promise broken;
//! what it refuses, it refuses in words. Each has seeds, made from real encodings by the code that
//! writes them, and inputs kept in `corpus/`: what has once failed, and what reaches far.
//!
//! - [`targets`]: the targets, one file each.
//! - [`hunt`]: runs one over its inputs and changed ones, makes what fails small, and keeps it.
//! - [`mutate`]: changes inputs.
//! - [`corpus`]: the inputs that are kept.
//!
//! `tests/targets.rs` runs all of them for a moment; the program runs one for as long as you like;
//! `libfuzzer/` runs the same functions guided by what they cover.
#![forbid(unsafe_code)]

pub mod corpus;
pub mod hunt;
pub mod mutate;
pub mod targets;

/// Something that reads bytes.
pub struct Target {
    /// As it is called on the command line, and its folder in `corpus/`.
    pub name: &'static str,
    /// What it gives the bytes to, in a few words.
    pub about: &'static str,
    /// Takes one input. Panics where something is wrong, and only there.
    pub run: fn(&[u8]),
    /// Inputs that are as they should be.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Longest input that is tried.
    pub bytes_max: usize,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target {
        name: "from_executor",
        about: "what an executor writes into its ring, as the scheduler decodes it",
        run: targets::from_executor::run,
        seeds: targets::from_executor::seeds,
        bytes_max: 4096,
    },
    Target {
        name: "to_executor",
        about: "what a scheduler writes into its rings, as the executor decodes it",
        run: targets::to_executor::run,
        seeds: targets::to_executor::seeds,
        bytes_max: 4096,
    },
    Target {
        name: "core",
        about: "a scheduler's core that hears anything from several executors, and from outside",
        run: targets::core::run,
        seeds: targets::core::seeds,
        bytes_max: 8192,
    },
    Target {
        name: "links",
        about: "messages between node and schedulers, and among these",
        run: targets::links::run,
        seeds: targets::links::seeds,
        bytes_max: 2048,
    },
    Target {
        name: "zygote",
        about: "packets between node and zygote, and the program that these carry",
        run: targets::zygote::run,
        seeds: targets::zygote::seeds,
        bytes_max: 2048,
    },
    Target {
        name: "probe",
        about: "what the process reports that has loaded a library",
        run: targets::probe::run,
        seeds: targets::probe::seeds,
        bytes_max: 2048,
    },
    Target {
        name: "output",
        about: "what functions print, cut into records and lines",
        run: targets::output::run,
        seeds: targets::output::seeds,
        bytes_max: 8192,
    },
    Target {
        name: "manifest",
        about: "a manifest, its diagnostics, and its graph in every format",
        run: targets::manifest::run,
        seeds: targets::manifest::seeds,
        bytes_max: 8192,
    },
    Target {
        name: "http",
        about: "paths, headers, durations and hosts of requests",
        run: targets::http::run,
        seeds: targets::http::seeds,
        bytes_max: 2048,
    },
    Target {
        name: "segment",
        about: "a segment of the journal, with its checksums made right again",
        run: targets::segment::run,
        seeds: targets::segment::seeds,
        bytes_max: 8192,
    },
    Target {
        name: "directory",
        about: "a journal that is opened, written and opened again over changed files",
        run: targets::directory::run,
        seeds: targets::directory::seeds,
        bytes_max: 8192,
    },
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
