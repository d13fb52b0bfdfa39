//! Every bound on what a manifest may say, with its reason.

use pheromone_core::spec::REGION_SPAN_BYTES_MAX;

/// Bytes of a manifest. A thousand triggers take about 100 KiB.
pub const MANIFEST_BYTES_MAX: u64 = 1 << 20;
/// Diagnostics kept; the rest is counted. More than a person reads at once.
pub const DIAGNOSTICS_MAX: usize = 100;
/// Errors of TOML itself that are told; the rest is counted. One slip has few consequences, and
/// what is no manifest at all has one error a line.
pub const SYNTAX_ERRORS_MAX: usize = 5;
/// Characters of the manifest that one message quotes.
pub const QUOTE_CHARS_MAX: usize = 80;

/// Functions that one message names before it says how many more there are.
pub const FUNCTIONS_NAMED_MAX: usize = 4;

/// Bytes of an app's, function's, bucket's or trigger's name: `phr_failure.function` has 64 with
/// its zero byte.
pub const NAME_BYTES_MAX: usize = 63;
/// Bytes of an exported symbol.
pub const SYMBOL_BYTES_MAX: usize = 255;
/// Bytes of a key (`pheromone.h`).
pub const KEY_BYTES_MAX: usize = 255;

/// Functions of an app: an index is 16 bits; the last two values mean something else.
pub const FUNCTIONS_MAX: usize = u16::MAX as usize - 1;
/// Buckets of an app: likewise.
pub const BUCKETS_MAX: usize = u16::MAX as usize - 1;

/// Executors, and as many waiters, of an app: together an eighth of the 16-bit region indices.
pub const EXECUTORS_MAX: u16 = 4096;
/// Weight beside other apps.
pub const WEIGHT_MAX: u32 = 1_000_000;
/// Quota of an app, bytes: a region's span is twice the quota.
pub const MEMORY_BYTES_MAX: u64 = REGION_SPAN_BYTES_MAX / 2;
/// Least quota, bytes: each executor is kept supplied with credit from it.
pub const MEMORY_BYTES_MIN: u64 = 1 << 20;
/// One object, bytes: the zero byte that follows the payload takes part of a unit of 64.
pub const OBJECT_BYTES_MAX: u64 = REGION_SPAN_BYTES_MAX / 2 - 64;
/// Sessions open at once: 16 Mi, what the session table of one scheduler can name.
pub const SESSIONS_MAX: u32 = 1 << 24;
/// Live objects: 256 Mi, 256 bytes of quota each.
pub const OBJECTS_MAX: u32 = 1 << 28;
/// Inputs of one invocation, keys of one set, objects of one batch.
pub const INPUTS_MAX: u32 = 1 << 24;
/// Keys of all sets of an app, ranges written out: 4 Mi, at about 50 bytes each. A manifest of 1
/// MiB could ask for ten thousand million.
pub const SET_KEYS_MAX: usize = 1 << 22;
/// Attempts of one invocation.
pub const ATTEMPTS_MAX: u32 = 1_000_000;
/// Alike at once, concurrent invocations of a function.
pub const CONCURRENCY_MAX: u32 = 1 << 24;
/// Sources of a group.
pub const SOURCES_MAX: u32 = 1 << 30;
/// Longest duration, ns: a hundred years, so that now + duration never overflows 64 bits.
pub const DURATION_NS_MAX: u64 = 100 * 365 * 24 * 3600 * 1_000_000_000;
/// Shortest distance of two windows, ns: below it a scheduler would do nothing else.
pub const SLIDE_NS_MIN: u64 = 1_000;
/// Windows over one instant.
pub const WINDOWS_MAX: u64 = 1024;
