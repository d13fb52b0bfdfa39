//! The structs and the call table of `pheromone.h`, field by field.
//!
//! Names and order are the header's. What a function may pass is an allegation: each pointer here
//! is judged by the executor before it is used.

use std::ffi::{c_char, c_int, c_void};

/// One invocation, as its function sees it; begins with a [`Head`].
#[repr(C)]
pub struct Ctx {
    /// Leads to the table.
    pub head: Head,
}

/// An object, as a function sees it; begins with a [`Head`].
#[repr(C)]
pub struct Object {
    /// Leads to the table.
    pub head: Head,
}

/// One call of a custom trigger; begins with a [`Head`].
#[repr(C)]
pub struct TriggerCtx {
    /// Leads to the table.
    pub head: Head,
}

/// How every handle begins (`phr_head`).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Bytes of the whole struct.
    pub struct_size: usize,
    /// The table.
    pub api: *const Api,
}

/// `phr_send_options`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SendOptions {
    /// Bytes of the caller's struct.
    pub struct_size: usize,
    /// [`DURABLE`](crate::DURABLE), or 0.
    pub flags: u32,
    /// 0.
    pub reserved: u32,
    /// NULL or empty: none.
    pub group: *const c_char,
    /// With bucket NULL: to this function only.
    pub function: *const c_char,
    /// Published when this has passed.
    pub delay_ns: u64,
}

/// `phr_event`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Bytes of the struct.
    pub struct_size: u32,
    /// One of the `EV_` constants.
    pub kind: u32,
    /// Names the object.
    pub object: u64,
    /// Its session.
    pub session: u64,
    /// Its payload.
    pub size_bytes: u64,
    /// When it arrived.
    pub time_ns: u64,
    /// Its bucket.
    pub bucket: *const c_char,
    /// Its key.
    pub key: *const c_char,
    /// Its group.
    pub group: *const c_char,
}

/// `phr_failure`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    /// Bytes of the struct.
    pub struct_size: u32,
    /// Which attempt failed last.
    pub attempt: u32,
    /// What it returned.
    pub status: i32,
    /// By which signal it died, or 0.
    pub signal: i32,
    /// Zero-terminated.
    pub function: [c_char; 64],
    /// Zero-terminated.
    pub message: [c_char; 1024],
}

/// Entry of a function or an initializer.
pub type FunctionEntry = unsafe extern "C" fn(*mut Ctx) -> c_int;
/// Entry of a custom trigger.
pub type TriggerEntry = unsafe extern "C" fn(*mut TriggerCtx, *const Event, usize) -> c_int;

/// `phr_mark`: what a library exports beside each function.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// Bytes of the struct.
    pub struct_size: u32,
    /// [`ABI_MAJOR`](crate::ABI_MAJOR) of the header it was compiled with.
    pub abi_major: u16,
    /// [`ABI_MINOR`](crate::ABI_MINOR) of the header it was compiled with.
    pub abi_minor: u16,
    /// One of the `KIND_` constants.
    pub kind: u32,
    /// 0.
    pub reserved: u32,
    /// Of a function or an initializer.
    pub entry: Option<FunctionEntry>,
    /// Of a trigger.
    pub trigger: Option<TriggerEntry>,
}

macro_rules! table {
    ($($name:ident: ($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// `phr_api`: the table that every call of the header goes through. What each member
        /// does is said in the header, at the call of its name.
        #[repr(C)]
        #[derive(Clone, Copy, Debug)]
        pub struct Api {
            /// Bytes of the table.
            pub struct_size: usize,
            /// The executor's [`ABI_MAJOR`](crate::ABI_MAJOR).
            pub abi_major: u32,
            /// The executor's [`ABI_MINOR`](crate::ABI_MINOR).
            pub abi_minor: u32,
            $(
                #[doc = concat!("See the header, `", stringify!($name), "`.")]
                pub $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,
            )*
        }

        impl Api {
            /// The members that are calls, in order, with their offsets.
            pub const CALLS: &'static [(&'static str, usize)] =
                &[$((stringify!($name), std::mem::offset_of!(Api, $name))),*];
        }
    };
}

table! {
    input_count: (*const Ctx) -> usize;
    input: (*const Ctx, usize) -> *const Object;
    input_named: (*const Ctx, *const c_char) -> *const Object;
    request: (*mut Ctx) -> *const Object;
    request_header: (*mut Ctx, *const c_char) -> *const c_char;
    request_header_of: (*mut Ctx, *const Object, *const c_char) -> *const c_char;

    data: (*const Object) -> *const c_void;
    size: (*const Object) -> usize;
    key: (*const Object) -> *const c_char;
    bucket: (*const Object) -> *const c_char;
    group: (*const Object) -> *const c_char;
    object_session: (*const Object) -> u64;
    arrival_ns: (*const Object) -> u64;
    failed_input_count: (*const Object) -> usize;
    failed_input: (*const Object, usize) -> *const Object;

    create: (*mut Ctx, *const c_char, *const c_char, usize) -> *mut Object;
    create_for: (*mut Ctx, *const c_char, usize) -> *mut Object;
    buffer: (*mut Object) -> *mut c_void;
    truncate: (*mut Object, usize) -> c_int;
    send: (*mut Ctx, *mut Object, *const SendOptions) -> c_int;
    put: (*mut Ctx, *const c_char, *const c_char, *const c_void, usize, *const SendOptions)
        -> c_int;
    forward: (*mut Ctx, *const Object, *const c_char, *const c_char, *const SendOptions) -> c_int;
    discard: (*mut Ctx, *mut Object);

    respond: (*mut Ctx, *mut Object) -> c_int;
    respond_data: (*mut Ctx, *const c_void, usize) -> c_int;
    respond_parts: (*mut Ctx, *const *const Object, usize) -> c_int;
    respond_to: (*mut Ctx, *const Object, *mut Object) -> c_int;
    respond_session: (*mut Ctx, u64, *mut Object) -> c_int;
    fail_session: (*mut Ctx, u64, c_int, *const c_char) -> c_int;
    set_response_type: (*mut Ctx, *const c_char) -> c_int;
    set_response_status: (*mut Ctx, c_int) -> c_int;

    get: (*mut Ctx, *const c_char, *const c_char, u64) -> *const Object;
    load: (*mut Ctx, *const c_char, *const c_char) -> *const Object;
    delete_object: (*mut Ctx, *const c_char, *const c_char) -> c_int;

    join: (*mut Ctx, *const c_char, *const c_char, *const *const c_char, usize) -> c_int;
    redundant: (*mut Ctx, *const c_char, *const c_char, u32, u32) -> c_int;
    expect_sources: (*mut Ctx, *const c_char, *const c_char, u32) -> c_int;
    close_source: (*mut Ctx, *const c_char, *const c_char) -> c_int;

    app: (*const Ctx) -> *const c_char;
    function: (*const Ctx) -> *const c_char;
    trigger: (*const Ctx) -> *const c_char;
    config: (*const Ctx, *const c_char) -> *const c_char;
    session: (*const Ctx) -> u64;
    invocation: (*const Ctx) -> u64;
    deadline_ns: (*const Ctx) -> u64;
    now_ns: (*const Ctx) -> u64;
    wall_ns: (*const Ctx, u64) -> u64;
    attempt: (*const Ctx) -> u32;
    parallelism: (*const Ctx) -> u32;
    parent_count: (*const Ctx) -> usize;
    parent: (*const Ctx, usize) -> u64;
    cancelled: (*const Ctx) -> c_int;
    window: (*const Ctx, *mut u64, *mut u64) -> c_int;
    arguments: (*const Ctx) -> c_int;

    log_text: (*const Ctx, c_int, *const c_char, usize);
    fail_text: (*mut Ctx, c_int, *const c_char, usize) -> c_int;
    last_status: (*const Ctx) -> c_int;
    last_error: (*const Ctx) -> *const c_char;
    set_local: (*mut Ctx, *mut c_void, Option<unsafe extern "C" fn(*mut c_void)>) -> c_int;
    local: (*const Ctx) -> *mut c_void;

    fire: (*mut TriggerCtx, *const c_char, *const u64, usize) -> c_int;
    drop: (*mut TriggerCtx, *const u64, usize) -> c_int;
    tick_at: (*mut TriggerCtx, u64) -> c_int;
    trigger_state: (*mut TriggerCtx) -> *mut *mut c_void;
    trigger_config: (*mut TriggerCtx, *const c_char) -> *const c_char;
}
