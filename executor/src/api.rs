//! The table behind `pheromone.h`, and the door through which a function's calls come in.
//!
//! The files below `api/` hold the calls by the header's sections. Every call that takes a
//! `phr_ctx` passes here first: it must come from the thread that was called, with the invocation
//! that runs now; otherwise it is `PHR_EPERM` and touches nothing. What a function passes is an
//! allegation: strings are read up to their bounds, objects are told by their state.

mod about;
mod deciding;
mod inputs;
mod outputs;
mod responses;
mod steering;

use std::ffi::{c_char, c_int};
use std::os::fd::BorrowedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use pheromone_sdk as sdk;
use pheromone_shm::limits::down;
use pheromone_shm::mapping::Mapping;
use pheromone_shm::message::{GROUP_BYTES_MAX, KEY_BYTES_MAX};

use crate::fault::{Call, Fault};
use crate::objects::{Object, State, why_not_unsent};
use crate::output;
use crate::runtime::Runtime;
use crate::threads;

pub(crate) use about::monotonic_ns;

/// Longest name of a bucket or function that is looked for; longer ones do not exist.
const NAME_BYTES_MAX: usize = 255;
/// A finished invocation's handle comes round again after so many others.
const HANDLES: usize = 64;

static RUNTIME: AtomicPtr<Runtime> = AtomicPtr::new(std::ptr::null_mut());
/// The handle of the invocation that runs; NULL between invocations.
static CURRENT: AtomicPtr<sdk::Ctx> = AtomicPtr::new(std::ptr::null_mut());
static OPENED: AtomicUsize = AtomicUsize::new(0);
static CANCELLING: OnceLock<Mapping> = OnceLock::new();

struct Handles([sdk::Ctx; HANDLES]);

// SAFETY: nobody writes to them; they are addresses that lead to the table.
unsafe impl Sync for Handles {}

static CONTEXTS: Handles = Handles(
    [const {
        sdk::Ctx {
            head: sdk::Head {
                struct_size: size_of::<sdk::Ctx>(),
                api: &raw const TABLE,
            },
        }
    }; HANDLES],
);

static TABLE: sdk::Api = sdk::Api {
    struct_size: size_of::<sdk::Api>(),
    abi_major: sdk::ABI_MAJOR as u32,
    abi_minor: sdk::ABI_MINOR as u32,

    input_count: inputs::input_count,
    input: inputs::input,
    input_named: inputs::input_named,
    request: inputs::request,
    request_header: inputs::request_header,
    request_header_of: inputs::request_header_of,

    data: inputs::data,
    size: inputs::size,
    key: inputs::key,
    bucket: inputs::bucket,
    group: inputs::group,
    object_session: inputs::object_session,
    arrival_ns: inputs::arrival_ns,
    failed_input_count: inputs::failed_input_count,
    failed_input: inputs::failed_input,

    create: outputs::create,
    create_for: outputs::create_for,
    buffer: outputs::buffer,
    truncate: outputs::truncate,
    send: outputs::send,
    put: outputs::put,
    forward: outputs::forward,
    discard: outputs::discard,

    respond: responses::respond,
    respond_data: responses::respond_data,
    respond_parts: responses::respond_parts,
    respond_to: responses::respond_to,
    respond_session: responses::respond_session,
    fail_session: responses::fail_session,
    set_response_type: responses::set_response_type,
    set_response_status: responses::set_response_status,

    get: inputs::get,
    load: inputs::load,
    delete_object: inputs::delete_object,

    join: steering::join,
    redundant: steering::redundant,
    expect_sources: steering::expect_sources,
    close_source: steering::close_source,

    app: about::app,
    function: about::function,
    trigger: about::trigger,
    config: about::config,
    session: about::session,
    invocation: about::invocation,
    deadline_ns: about::deadline_ns,
    now_ns: about::now_ns,
    wall_ns: about::wall_ns,
    attempt: about::attempt,
    parallelism: about::parallelism,
    parent_count: about::parent_count,
    parent: about::parent,
    cancelled: about::cancelled,
    window: about::window,
    arguments: about::arguments,

    log_text: about::log_text,
    fail_text: about::fail_text,
    last_status: about::last_status,
    last_error: about::last_error,
    set_local: about::set_local,
    local: about::local,

    fire: deciding::fire,
    drop: deciding::drop,
    tick_at: deciding::tick_at,
    trigger_state: deciding::trigger_state,
    trigger_config: deciding::trigger_config,
};

/// The table.
pub fn table() -> *const sdk::Api {
    &raw const TABLE
}

/// Calls from here on are about this runtime, which lives as long as the process.
pub fn install(runtime: *mut Runtime) {
    RUNTIME.store(runtime, Ordering::Relaxed);
}

/// Whether an invocation is cancelled is read in this mapping of `down`, by any thread.
///
/// # Errors
/// What the kernel says.
pub fn watch_cancelling(down: BorrowedFd<'_>) -> std::io::Result<()> {
    let mapping = Mapping::read_only(down)?;
    // One executor per process, so there is none before.
    let _ = CANCELLING.set(mapping);
    Ok(())
}

/// Whether the invocation that runs has been cancelled.
fn cancelled_now() -> bool {
    let runs = !CURRENT.load(Ordering::Relaxed).is_null();
    let word = CANCELLING
        .get()
        .map(|mapping| mapping.word(down::CANCELLED));
    runs && word.is_some_and(|word| word.load(Ordering::Relaxed) == output::invocation())
}

/// Opens the invocation that [`output::begin`] has named: the handle for its function.
#[inline(always)]
pub fn open() -> *mut sdk::Ctx {
    // One thread opens invocations, so this needs no atomic addition.
    let at = OPENED.load(Ordering::Relaxed);
    OPENED.store((at + 1) % HANDLES, Ordering::Relaxed);
    let ctx = std::ptr::from_ref(&CONTEXTS.0[at]).cast_mut();
    CURRENT.store(ctx, Ordering::Relaxed);
    ctx
}

/// Its function has returned: its handle is good for nothing.
#[inline(always)]
pub fn close() {
    CURRENT.store(std::ptr::null_mut(), Ordering::Relaxed);
}

/// What the code of a custom trigger is given; one call is open at a time.
struct Decision(sdk::TriggerCtx);

// SAFETY: nobody writes to it; it is an address that leads to the table.
unsafe impl Sync for Decision {}

static DECISION: Decision = Decision(sdk::TriggerCtx {
    head: sdk::Head {
        struct_size: size_of::<sdk::TriggerCtx>(),
        api: &raw const TABLE,
    },
});
/// A custom trigger's code runs.
static DECIDES: AtomicBool = AtomicBool::new(false);

/// Opens a call of a custom trigger: the handle for its code.
pub fn open_decision() -> *mut sdk::TriggerCtx {
    DECIDES.store(true, Ordering::Relaxed);
    std::ptr::from_ref(&DECISION.0).cast_mut()
}

/// Its code has returned: the handle is good for nothing until the next call.
pub fn close_decision() {
    DECIDES.store(false, Ordering::Relaxed);
}

/// Whether a custom trigger's answer may be taken: from the right thread, while its code runs.
fn deciding<'a>(t: *const sdk::TriggerCtx) -> Option<&'a mut Runtime> {
    let is_its = std::ptr::eq(t, &raw const DECISION.0);
    if !is_its || !threads::runs_functions() || !DECIDES.load(Ordering::Relaxed) {
        return None;
    }
    // SAFETY: as in `runtime_now`.
    unsafe { RUNTIME.load(Ordering::Relaxed).as_mut() }
}

/// Whether a call may be answered: the right thread, while an invocation runs.
#[inline]
fn runtime_now<'a>() -> Option<&'a mut Runtime> {
    runtime(CURRENT.load(Ordering::Relaxed))
}

/// The same, for a call that names its invocation.
#[inline(always)]
fn runtime<'a>(ctx: *const sdk::Ctx) -> Option<&'a mut Runtime> {
    let is_current = !ctx.is_null() && std::ptr::eq(ctx, CURRENT.load(Ordering::Relaxed));
    if !is_current || !threads::runs_functions() {
        return None;
    }
    let runtime = RUNTIME.load(Ordering::Relaxed);
    // SAFETY: installed before the first invocation was opened.
    unsafe { std::hint::assert_unchecked(!runtime.is_null()) };
    // SAFETY: it is never freed. One thread comes here, and leaves each call before it makes the
    // next: no call runs user code while it holds the reference.
    Some(unsafe { &mut *runtime })
}

/// What `PHR_INIT` may do is little.
#[inline]
fn refuse_in_init(runtime: &Runtime) -> Call<()> {
    if runtime.attempt.initializing {
        return Err(in_init());
    }
    Ok(())
}

#[cold]
fn in_init() -> Fault {
    Fault::new(
        sdk::EPERM,
        "PHR_INIT runs without an invocation of its own: it may use phr_config, \
         phr_set_local, phr_load, phr_log and phr_fail",
    )
}

#[inline]
fn judged<T>(
    runtime: &mut Runtime,
    call: &'static str,
    body: impl FnOnce(&mut Runtime) -> Call<T>,
) -> Result<T, c_int> {
    refuse_in_init(runtime)
        .and_then(|()| body(runtime))
        .map_err(|fault| noted(runtime, call, fault))
}

/// Keeps a call's failure; its status.
#[cold]
#[inline(never)]
fn noted(runtime: &mut Runtime, call: &'static str, fault: Fault) -> c_int {
    runtime.note_failure(call, fault.status, &fault.sentence);
    fault.status
}

/// A call that gives a status.
#[inline]
fn status(
    ctx: *const sdk::Ctx,
    call: &'static str,
    body: impl FnOnce(&mut Runtime) -> Call<()>,
) -> c_int {
    let Some(runtime) = runtime(ctx) else {
        return sdk::EPERM;
    };
    judged(runtime, call, body).map_or_else(|status| status, |()| sdk::OK)
}

/// A call that gives a pointer, NULL on an error.
#[inline]
fn pointer<T>(
    ctx: *const sdk::Ctx,
    call: &'static str,
    body: impl FnOnce(&mut Runtime) -> Call<*mut T>,
) -> *mut T {
    let Some(runtime) = runtime(ctx) else {
        return std::ptr::null_mut();
    };
    judged(runtime, call, body).unwrap_or(std::ptr::null_mut())
}

/// The bytes of a C string of a function's, up to a bound; `None` for NULL.
fn text<'a>(pointer: *const c_char, bytes_max: usize, what: &str) -> Call<Option<&'a [u8]>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: by the header's contract the function passes a C string; no more than the bound is
    // read of it.
    let length = unsafe { libc::strnlen(pointer, bytes_max + 1) };
    if length > bytes_max {
        return Err(Fault::invalid(format!(
            "{what} is longer than {bytes_max} bytes"
        )));
    }
    // SAFETY: so many bytes were just read; the function does not change them while it waits for
    // this call.
    Ok(Some(unsafe {
        std::slice::from_raw_parts(pointer.cast(), length)
    }))
}

/// As much of a string as there is room for; nothing of NULL.
fn prefix<'a>(pointer: *const c_char, bytes_max: usize) -> &'a [u8] {
    if pointer.is_null() {
        return &[];
    }
    // SAFETY: by the header's contract the function passes a C string; no more than the bound is
    // read of it.
    let length = unsafe { libc::strnlen(pointer, bytes_max) };
    // SAFETY: so many bytes were just read; the function does not change them while it waits for
    // this call.
    unsafe { std::slice::from_raw_parts(pointer.cast(), length) }
}

/// A string that must be there.
fn required_text<'a>(pointer: *const c_char, what: &str) -> Call<&'a [u8]> {
    text(pointer, NAME_BYTES_MAX, what)?.ok_or_else(|| Fault::invalid(format!("{what} is NULL")))
}

/// A key given by a function for an object it publishes; `None`: automatic.
#[inline(always)]
fn new_key<'a>(pointer: *const c_char) -> Call<Option<&'a [u8]>> {
    if pointer.is_null() {
        return Ok(None);
    }
    named_key(pointer).map(Some)
}

#[inline(never)]
fn named_key<'a>(pointer: *const c_char) -> Call<&'a [u8]> {
    let key = text(pointer, KEY_BYTES_MAX, "the key")?.unwrap_or_default();
    match key.first() {
        None => Err(Fault::invalid(
            "the key is empty; NULL asks for an automatic one",
        )),
        Some(b'~') => Err(Fault::invalid(format!(
            "the key `{}` begins with `~`, which marks automatic keys; NULL asks for one",
            String::from_utf8_lossy(key)
        ))),
        Some(_) => Ok(key),
    }
}

/// A key that is looked for: automatic ones are allowed.
fn known_key<'a>(pointer: *const c_char) -> Call<&'a [u8]> {
    match text(pointer, KEY_BYTES_MAX, "the key")? {
        None => Err(Fault::invalid("the key is NULL")),
        Some([]) => Err(Fault::invalid("the key is empty")),
        Some(key) => Ok(key),
    }
}

/// A group; empty for none.
fn group<'a>(pointer: *const c_char) -> Call<&'a [u8]> {
    Ok(text(pointer, GROUP_BYTES_MAX, "the group")?.unwrap_or_default())
}

/// The object behind a function's pointer, where it is one.
#[inline]
fn known_object<'a>(handle: *const sdk::Object) -> Option<&'a Object> {
    // SAFETY: by the header's contract the function passes a pointer that a call gave it.
    unsafe { Object::from_handle(handle, table()) }
}

/// The object behind a function's pointer.
#[inline]
fn object<'a>(handle: *const sdk::Object) -> Call<&'a Object> {
    known_object(handle).ok_or_else(no_object)
}

#[cold]
fn no_object() -> Fault {
    Fault::invalid("the object is NULL, or no object at all")
}

/// An object that has not been sent.
#[inline]
fn unsent<'a>(handle: *const sdk::Object) -> Call<&'a Object> {
    match known_object(handle) {
        Some(object) if object.state.get() == State::Unsent => Ok(object),
        other => Err(not_unsent(other)),
    }
}

#[cold]
fn not_unsent(object: Option<&Object>) -> Fault {
    match object.and_then(|object| why_not_unsent(object.state.get())) {
        Some((status, sentence)) => Fault::new(status, sentence),
        None => no_object(),
    }
}

impl Runtime {
    /// The bucket of this name.
    fn bucket(&self, name: &[u8]) -> Call<u16> {
        self.names.bucket_index(name).ok_or_else(|| {
            Fault::new(
                sdk::ENOENT,
                format!(
                    "the app has no bucket `{}`: it has {}",
                    String::from_utf8_lossy(name),
                    self.names.bucket_list()
                ),
            )
        })
    }

    /// The function that runs.
    #[inline(always)]
    fn own(&self) -> &crate::names::Function {
        &self.names.functions[usize::from(self.frame.function)]
    }

    #[inline]
    fn refuse_if_cancelled(&self) -> Call<()> {
        if self.cancelled() {
            Err(Fault::cancelled())
        } else {
            Ok(())
        }
    }
}
