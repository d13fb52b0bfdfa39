//! The C SDK: `pheromone.h`, and the same structs, table and constants for Rust.
//!
//! The header in `include/` is the contract with function authors; this crate mirrors its layouts
//! for the executor, which fills the table, and carries its text for whoever compiles functions.
//! Nothing here acts. `tests/layout.rs` compiles the header and compares every size, offset and
//! constant with what stands here.

#![forbid(unsafe_code)]

mod api;

pub use api::{
    Api, Ctx, Event, Failure, FunctionEntry, Head, Mark, Object, SendOptions, TriggerCtx,
    TriggerEntry,
};

/// Major version of the ABI; a library of another one is refused.
pub const ABI_MAJOR: u16 = 1;
/// Minor version: calls added at the end of the table.
pub const ABI_MINOR: u16 = 0;

/// Done.
pub const OK: i32 = 0;
/// Not allowed here: another thread, another bucket, another function.
pub const EPERM: i32 = -1;
/// There is no such thing.
pub const ENOENT: i32 = -2;
/// The disk refused.
pub const EIO: i32 = -5;
/// Larger than a limit of the app.
pub const ETOOBIG: i32 = -7;
/// Not now; the same call may succeed later.
pub const EAGAIN: i32 = -11;
/// The app's memory is full.
pub const ENOMEM: i32 = -12;
/// It is already there, or already done.
pub const EEXIST: i32 = -17;
/// An argument is wrong.
pub const EINVAL: i32 = -22;
/// Not in this build, or switched off.
pub const ENOTSUP: i32 = -95;
/// The time given has passed.
pub const ETIMEDOUT: i32 = -110;
/// The session has ended.
pub const ECANCELED: i32 = -125;

/// Set in a function's return value that forbids another attempt.
pub const PERMANENT: i32 = 0x100;

/// Flag of [`SendOptions`]: return only once it is on disk.
pub const DURABLE: u32 = 1;

/// Level of `phr_log`: `PHR_DEBUG`.
pub const DEBUG: i32 = 0;
/// Level of `phr_log`: `PHR_INFO`.
pub const INFO: i32 = 1;
/// Level of `phr_log`: `PHR_WARN`.
pub const WARN: i32 = 2;
/// Level of `phr_log`: `PHR_ERROR`.
pub const ERROR: i32 = 3;

/// Longest message of `phr_fail` in bytes, with its zero byte.
pub const MESSAGE_MAX: usize = 1025;
/// Longest text of one `phr_log` in bytes, with its zero byte.
pub const LOG_MAX: usize = 4096;

/// `arg_values` holds payloads.
pub const ARGUMENTS_VALUES: i32 = 0;
/// `arg_values` holds keys and payloads in turn.
pub const ARGUMENTS_KEYS_AND_VALUES: i32 = 1;
/// `arg_values` holds keys.
pub const ARGUMENTS_KEYS: i32 = 2;

/// Kind of an [`Event`]: an object has arrived.
pub const EV_OBJECT: u32 = 1;
/// Kind of an [`Event`]: nothing else keeps its session open.
pub const EV_SESSION_END: u32 = 2;
/// Kind of an [`Event`]: the time asked for has come.
pub const EV_TICK: u32 = 3;

/// Kind of an [`Event`]: its session has ended, and what was pending of it is gone.
pub const EV_SESSION_GONE: u32 = 4;

/// Kind of a [`Mark`]: a function.
pub const KIND_FUNCTION: u32 = 1;
/// Kind of a [`Mark`]: a function's initializer.
pub const KIND_INIT: u32 = 2;
/// Kind of a [`Mark`]: a custom trigger.
pub const KIND_TRIGGER: u32 = 3;

/// Symbol `S` has its [`Mark`] in the symbol `phr_abi_S`.
pub const MARK_PREFIX: &str = "phr_abi_";
/// The function `S` is initialized by `phr_init_S`, where there is one.
pub const INIT_PREFIX: &str = "phr_init_";

/// The headers: path below the include directory, and text. A binary that compiles functions
/// writes them where the compiler finds them, and so needs no installation.
pub const HEADERS: [(&str, &str); 2] = [
    ("pheromone.h", include_str!("../include/pheromone.h")),
    (
        "compat/cpp_function.hpp",
        include_str!("../include/compat/cpp_function.hpp"),
    ),
];

/// The name of a status, as `phr_strerror` gives it.
pub fn status_name(status: i32) -> &'static str {
    match status {
        OK => "PHR_OK",
        EPERM => "PHR_EPERM",
        ENOENT => "PHR_ENOENT",
        EIO => "PHR_EIO",
        ETOOBIG => "PHR_ETOOBIG",
        EAGAIN => "PHR_EAGAIN",
        ENOMEM => "PHR_ENOMEM",
        EEXIST => "PHR_EEXIST",
        EINVAL => "PHR_EINVAL",
        ENOTSUP => "PHR_ENOTSUP",
        ETIMEDOUT => "PHR_ETIMEDOUT",
        ECANCELED => "PHR_ECANCELED",
        1.. => "failed",
        _ => "unknown status",
    }
}
