//! About the invocation; log, failures, local state.

use std::ffi::{CStr, c_char, c_int, c_void};

use pheromone_sdk as sdk;
use pheromone_shm::message::NO_DEADLINE;
use rustix::time::{ClockId, clock_gettime};

use super::{runtime, status};
use crate::fault::Fault;
use crate::output;
use crate::protocol::{Arguments, OutputKind};
use crate::runtime::Local;

pub(super) unsafe extern "C" fn app(ctx: *const sdk::Ctx) -> *const c_char {
    runtime(ctx).map_or(std::ptr::null(), |runtime| runtime.names.app.as_ptr())
}

pub(super) unsafe extern "C" fn function(ctx: *const sdk::Ctx) -> *const c_char {
    runtime(ctx).map_or(std::ptr::null(), |runtime| runtime.own().name.as_ptr())
}

pub(super) unsafe extern "C" fn trigger(ctx: *const sdk::Ctx) -> *const c_char {
    runtime(ctx).map_or(std::ptr::null(), |runtime| {
        runtime.names.trigger(runtime.frame.trigger)
    })
}

pub(super) unsafe extern "C" fn config(ctx: *const sdk::Ctx, name: *const c_char) -> *const c_char {
    let Some(runtime) = runtime(ctx) else {
        return std::ptr::null();
    };
    if name.is_null() {
        runtime.note_failure("phr_config", sdk::EINVAL, "the name is NULL");
        return std::ptr::null();
    }
    // SAFETY: by the header's contract the function passes a C string.
    let name = unsafe { CStr::from_ptr(name) };
    if let Some(value) = runtime.own().config(name) {
        return value;
    }
    let sentence = format!(
        "function `{}` has no `config` entry `{}`",
        runtime.own().text(),
        name.to_string_lossy()
    );
    runtime.note_failure("phr_config", sdk::ENOENT, &sentence);
    std::ptr::null()
}

pub(super) unsafe extern "C" fn session(ctx: *const sdk::Ctx) -> u64 {
    runtime(ctx).map_or(0, |runtime| runtime.frame.chain.session)
}

pub(super) unsafe extern "C" fn invocation(ctx: *const sdk::Ctx) -> u64 {
    runtime(ctx).map_or(0, |runtime| runtime.frame.invocation)
}

pub(super) unsafe extern "C" fn deadline_ns(ctx: *const sdk::Ctx) -> u64 {
    runtime(ctx).map_or(NO_DEADLINE, |runtime| runtime.frame.deadline_ns)
}

/// CLOCK_MONOTONIC.
pub(crate) fn monotonic_ns() -> u64 {
    clock_ns(ClockId::Monotonic)
}

fn clock_ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    // Both clocks are past 0.
    (now.tv_sec as u64) * 1_000_000_000 + now.tv_nsec as u64
}

/// From any thread.
pub(super) unsafe extern "C" fn now_ns(_ctx: *const sdk::Ctx) -> u64 {
    clock_ns(ClockId::Monotonic)
}

pub(super) unsafe extern "C" fn wall_ns(ctx: *const sdk::Ctx, monotonic_ns: u64) -> u64 {
    if runtime(ctx).is_none() {
        return 0;
    }
    let offset = clock_ns(ClockId::Realtime).wrapping_sub(clock_ns(ClockId::Monotonic));
    monotonic_ns.wrapping_add(offset)
}

pub(super) unsafe extern "C" fn attempt(ctx: *const sdk::Ctx) -> u32 {
    runtime(ctx).map_or(0, |runtime| runtime.frame.attempt)
}

pub(super) unsafe extern "C" fn parallelism(ctx: *const sdk::Ctx) -> u32 {
    runtime(ctx).map_or(0, |runtime| u32::from(runtime.frame.chain.parallelism))
}

pub(super) unsafe extern "C" fn parent_count(ctx: *const sdk::Ctx) -> usize {
    runtime(ctx).map_or(0, |runtime| runtime.parent(0).0 as usize)
}

pub(super) unsafe extern "C" fn parent(ctx: *const sdk::Ctx, number: usize) -> u64 {
    runtime(ctx).map_or(0, |runtime| runtime.parent(number).1)
}

/// From any thread.
pub(super) unsafe extern "C" fn cancelled(_ctx: *const sdk::Ctx) -> c_int {
    c_int::from(super::cancelled_now())
}

pub(super) unsafe extern "C" fn window(
    ctx: *const sdk::Ctx,
    start_ns: *mut u64,
    end_ns: *mut u64,
) -> c_int {
    status(ctx, "phr_window", |runtime| {
        let (start, end) = runtime.frame.window.ok_or_else(|| {
            let sentence = "the invocation was not caused by a window or a batch";
            Fault::new(sdk::ENOENT, sentence)
        })?;
        for (place, time_ns) in [(start_ns, start), (end_ns, end)] {
            // SAFETY: by the header's contract the function passes NULL, or where to write a u64.
            if let Some(place) = unsafe { place.as_mut() } {
                *place = time_ns;
            }
        }
        Ok(())
    })
}

pub(super) unsafe extern "C" fn arguments(ctx: *const sdk::Ctx) -> c_int {
    match runtime(ctx).map(|runtime| runtime.own().arguments) {
        None | Some(Arguments::Values) => sdk::ARGUMENTS_VALUES,
        Some(Arguments::KeysAndValues) => sdk::ARGUMENTS_KEYS_AND_VALUES,
        Some(Arguments::Keys) => sdk::ARGUMENTS_KEYS,
    }
}

/// The bytes that a wrapper of the header has formatted.
fn formatted<'a>(text: *const c_char, length: usize, bytes_max: usize) -> &'a [u8] {
    if text.is_null() {
        return &[];
    }
    // SAFETY: the header's wrappers pass a buffer with `length` bytes of text.
    unsafe { std::slice::from_raw_parts(text.cast(), length.min(bytes_max)) }
}

/// From any thread.
pub(super) unsafe extern "C" fn log_text(
    _ctx: *const sdk::Ctx,
    level: c_int,
    text: *const c_char,
    length: usize,
) {
    let kind = match level {
        ..=sdk::DEBUG => OutputKind::Debug,
        sdk::INFO => OutputKind::Info,
        sdk::WARN => OutputKind::Warn,
        _ => OutputKind::Error,
    };
    output::write(kind, formatted(text, length, sdk::LOG_MAX));
}

pub(super) unsafe extern "C" fn fail_text(
    ctx: *mut sdk::Ctx,
    status: c_int,
    text: *const c_char,
    length: usize,
) -> c_int {
    if let Some(runtime) = runtime(ctx) {
        runtime.note_message(status, formatted(text, length, sdk::MESSAGE_MAX));
    }
    status
}

pub(super) unsafe extern "C" fn last_status(ctx: *const sdk::Ctx) -> c_int {
    runtime(ctx).map_or(sdk::EPERM, |runtime| runtime.attempt.notes().last_status)
}

pub(super) unsafe extern "C" fn last_error(ctx: *const sdk::Ctx) -> *const c_char {
    match runtime(ctx) {
        Some(runtime) => runtime.last_error().as_ptr().cast(),
        None => {
            c"the phr_ctx belongs to another thread, or to an invocation that has returned".as_ptr()
        }
    }
}

pub(super) unsafe extern "C" fn set_local(
    ctx: *mut sdk::Ctx,
    pointer: *mut c_void,
    destructor: Option<unsafe extern "C" fn(*mut c_void)>,
) -> c_int {
    let Some(runtime) = runtime(ctx) else {
        return sdk::EPERM;
    };
    let before = std::mem::replace(
        runtime.local(),
        Local {
            pointer,
            destructor,
        },
    );
    // The same pointer again keeps what it points to. The destructor is user code, and the
    // reference to the runtime has ended.
    if before.pointer != pointer {
        before.destroy();
    }
    sdk::OK
}

pub(super) unsafe extern "C" fn local(ctx: *const sdk::Ctx) -> *mut c_void {
    runtime(ctx).map_or(std::ptr::null_mut(), |runtime| runtime.local().pointer)
}
