//! What custom triggers answer.

use std::ffi::{CStr, c_char, c_int, c_void};

use pheromone_sdk as sdk;

use super::{deciding, text};
use crate::fault::{Call, Fault};
use crate::runtime::Runtime;

/// Longest name of a function that is looked for.
const NAME_BYTES_MAX: usize = super::NAME_BYTES_MAX;

/// A call that gives a status.
fn status(
    t: *const sdk::TriggerCtx,
    call: &str,
    body: impl FnOnce(&mut Runtime) -> Call<()>,
) -> c_int {
    let Some(runtime) = deciding(t) else {
        return sdk::EPERM;
    };
    match body(runtime) {
        Ok(()) => sdk::OK,
        Err(fault) => {
            runtime.note_failure(call, fault.status, &fault.sentence);
            fault.status
        }
    }
}

/// The objects that the trigger's code names.
fn list<'a>(objects: *const u64, count: usize) -> Call<&'a [u64]> {
    match (objects.is_null(), count) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(Fault::invalid("the objects are NULL")),
        // SAFETY: by the header's contract the trigger passes an array of `count` numbers.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts(objects, count) }),
    }
}

pub(super) unsafe extern "C" fn fire(
    t: *mut sdk::TriggerCtx,
    function: *const c_char,
    objects: *const u64,
    count: usize,
) -> c_int {
    status(t, "phr_fire", |runtime| {
        let function = text(function, NAME_BYTES_MAX, "the function")?;
        runtime.fire(function, list(objects, count)?)
    })
}

pub(super) unsafe extern "C" fn drop(
    t: *mut sdk::TriggerCtx,
    objects: *const u64,
    count: usize,
) -> c_int {
    status(t, "phr_drop", |runtime| {
        runtime.drop_objects(list(objects, count)?)
    })
}

pub(super) unsafe extern "C" fn tick_at(t: *mut sdk::TriggerCtx, time_ns: u64) -> c_int {
    status(t, "phr_tick_at", |runtime| {
        runtime.tick_at(time_ns);
        Ok(())
    })
}

pub(super) unsafe extern "C" fn trigger_state(t: *mut sdk::TriggerCtx) -> *mut *mut c_void {
    deciding(t).map_or(std::ptr::null_mut(), Runtime::trigger_state)
}

pub(super) unsafe extern "C" fn trigger_config(
    t: *mut sdk::TriggerCtx,
    name: *const c_char,
) -> *const c_char {
    let mut value = std::ptr::null();
    status(t, "phr_trigger_config", |runtime| {
        if name.is_null() {
            return Err(Fault::invalid("the name is NULL"));
        }
        // SAFETY: by the header's contract the trigger passes a C string.
        let name = unsafe { CStr::from_ptr(name) };
        value = runtime.trigger_config(name)?;
        Ok(())
    });
    value
}
