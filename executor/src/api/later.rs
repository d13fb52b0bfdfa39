//! Calls that are part of the interface, and not of this build: each says so.

use std::ffi::{c_char, c_int, c_void};

use pheromone_sdk as sdk;

use super::{runtime, status};
use crate::fault::Fault;

fn refused(ctx: *const sdk::Ctx, call: &str, what: &str) -> c_int {
    status(ctx, call, |_| Err(Fault::not_in_this_build(what)))
}

pub(super) unsafe extern "C" fn respond_to(
    ctx: *mut sdk::Ctx,
    _input: *const sdk::Object,
    _object: *mut sdk::Object,
) -> c_int {
    refused(ctx, "phr_respond_to", "answers to another session")
}

pub(super) unsafe extern "C" fn respond_session(
    ctx: *mut sdk::Ctx,
    _session: u64,
    _object: *mut sdk::Object,
) -> c_int {
    refused(ctx, "phr_respond_session", "answers to another session")
}

pub(super) unsafe extern "C" fn fail_session(
    ctx: *mut sdk::Ctx,
    _session: u64,
    _status: c_int,
    _message: *const c_char,
) -> c_int {
    refused(ctx, "phr_fail_session", "failures of single sessions")
}

/// Also in `PHR_INIT`, where it is allowed in principle.
pub(super) unsafe extern "C" fn load(
    ctx: *mut sdk::Ctx,
    _bucket: *const c_char,
    _key: *const c_char,
) -> *const sdk::Object {
    if let Some(runtime) = runtime(ctx) {
        let fault = Fault::not_in_this_build("durable and retained objects");
        runtime.note_failure("phr_load", fault.status, &fault.sentence);
    }
    std::ptr::null()
}

/// Custom triggers are not called in this build, so nobody has a `phr_trigger_ctx`.
pub(super) unsafe extern "C" fn fire(
    _t: *mut sdk::TriggerCtx,
    _function: *const c_char,
    _objects: *const u64,
    _count: usize,
) -> c_int {
    sdk::ENOTSUP
}

pub(super) unsafe extern "C" fn drop(
    _t: *mut sdk::TriggerCtx,
    _objects: *const u64,
    _count: usize,
) -> c_int {
    sdk::ENOTSUP
}

pub(super) unsafe extern "C" fn tick_at(_t: *mut sdk::TriggerCtx, _time_ns: u64) -> c_int {
    sdk::ENOTSUP
}

pub(super) unsafe extern "C" fn trigger_state(_t: *mut sdk::TriggerCtx) -> *mut *mut c_void {
    std::ptr::null_mut()
}

pub(super) unsafe extern "C" fn trigger_config(
    _t: *mut sdk::TriggerCtx,
    _name: *const c_char,
) -> *const c_char {
    std::ptr::null()
}
