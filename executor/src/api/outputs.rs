//! Outputs: created, filled, sent, forwarded, given back.

use std::ffi::{c_char, c_int, c_void};

use pheromone_sdk as sdk;
use pheromone_shm::allocator::AllocError;
use pheromone_shm::message::{Extent, FromExecutor, Key, NO_BUCKET, Target};

use super::{
    group, judged, known_object, new_key, noted, object, pointer, required_text, runtime,
    runtime_now, status, unsent,
};
use crate::fault::{Call, Fault};
use crate::frame::label_bytes;
use crate::objects::{Label, Object, State};
use crate::runtime::{Answer, Runtime};

/// Bytes of `phr_send_options` that every version has.
const OPTIONS_BYTES_MIN: usize = 16;

/// What a function asks for in `phr_send_options`.
#[derive(Clone, Copy, Default)]
struct Options<'a> {
    group: &'a [u8],
    function: Option<&'a [u8]>,
    delay_ns: u64,
    is_durable: bool,
}

impl Options<'_> {
    /// What a call asks for; without options, nothing.
    #[inline]
    fn of<'a>(pointer: *const sdk::SendOptions) -> Call<Options<'a>> {
        if pointer.is_null() {
            return Ok(Options::default());
        }
        Self::read(pointer)
    }

    /// Reads as much as the caller's struct has.
    fn read<'a>(pointer: *const sdk::SendOptions) -> Call<Options<'a>> {
        // SAFETY: by the header's contract the function passes a struct that begins with its size.
        let size = unsafe { pointer.cast::<usize>().read() };
        if !(OPTIONS_BYTES_MIN..=4096).contains(&size) {
            return Err(Fault::invalid(format!(
                "the options' struct_size is {size}: begin with PHR_SEND_OPTIONS"
            )));
        }
        let mut options = sdk::SendOptions {
            struct_size: size,
            flags: 0,
            reserved: 0,
            group: std::ptr::null(),
            function: std::ptr::null(),
            delay_ns: 0,
        };
        let known = size.min(size_of::<sdk::SendOptions>());
        let into = (&raw mut options).cast::<u8>();
        // SAFETY: the caller's struct has `size` bytes, ours at least `known`; what a caller does
        // not have stays 0 or NULL.
        unsafe { std::ptr::copy_nonoverlapping(pointer.cast::<u8>(), into, known) };
        if options.flags & !sdk::DURABLE != 0 || options.reserved != 0 {
            return Err(Fault::invalid(
                "the options have a flag that this version does not know, or a reserved field \
                 that is not 0: begin with PHR_SEND_OPTIONS",
            ));
        }
        let function = match options.function {
            name if name.is_null() => None,
            name => Some(required_text(name, "the function")?),
        };
        Ok(Options {
            group: group(options.group)?,
            function,
            delay_ns: options.delay_ns,
            is_durable: options.flags & sdk::DURABLE != 0,
        })
    }
}

impl Runtime {
    /// Where an object for this bucket (NULL: direct) goes.
    #[inline(always)]
    fn target(&self, bucket: *const c_char) -> Call<Target> {
        if bucket.is_null() {
            return Ok(Target::Next);
        }
        self.bucket_target(bucket)
    }

    #[inline(never)]
    fn bucket_target(&self, bucket: *const c_char) -> Call<Target> {
        let index = self.bucket(required_text(bucket, "the bucket")?)?;
        let own = self.own();
        if own
            .sends
            .as_ref()
            .is_some_and(|sends| !sends[usize::from(index)])
        {
            return Err(Fault::new(
                sdk::EPERM,
                format!(
                    "function `{}` may not publish into bucket `{}`: add it to its `sends`",
                    own.text(),
                    self.names.bucket_text(index)
                ),
            ));
        }
        Ok(Target::Bucket(index))
    }

    /// A function that this one may address.
    fn addressed(&self, name: &[u8]) -> Call<Target> {
        let own = self.own();
        let index = self.names.function_index(name);
        match index {
            Some(index) if own.next.contains(&index) || own.calls.contains(&index) => {
                Ok(Target::Function(index))
            }
            Some(_) => Err(Fault::new(
                sdk::EPERM,
                format!(
                    "function `{}` may not address `{}`: add it to its `next` or `calls` \
                     (it has {})",
                    own.text(),
                    String::from_utf8_lossy(name),
                    self.names
                        .function_list(own.next.iter().chain(&own.calls).copied())
                ),
            )),
            None => Err(Fault::new(
                sdk::EPERM,
                format!(
                    "function `{}` may not address `{}`: the app has no such function",
                    own.text(),
                    String::from_utf8_lossy(name)
                ),
            )),
        }
    }

    /// The target of a send whose options may name a function.
    #[inline]
    fn final_target(&self, target: Target, options: &Options<'_>) -> Call<Target> {
        let target = match (target, options.function) {
            (target, None) => target,
            (Target::Next, Some(name)) => self.addressed(name)?,
            (Target::Function(index), Some(name)) => {
                if self.names.function_index(name) != Some(index) {
                    return Err(Fault::invalid(
                        "the object was created for one function, and the options name another",
                    ));
                }
                target
            }
            (Target::Bucket(_), Some(_)) => {
                return Err(Fault::invalid(
                    "the options name a function, and the object goes into a bucket: create it \
                     with bucket NULL",
                ));
            }
        };
        if target == Target::Next && self.own().next.is_empty() {
            return Err(Fault::invalid(format!(
                "a direct object goes to the function's `next`, and `{}` has none: name a bucket, \
                 use phr_create_for, or phr_respond for an answer",
                self.own().text()
            )));
        }
        Ok(target)
    }

    /// The ordinal of a new object for this target; counts as docs/model.md says.
    #[inline(always)]
    fn next_ordinal(&mut self, target: Target, has_name: bool) -> u32 {
        match target {
            Target::Bucket(_) if has_name => 0,
            Target::Bucket(bucket) => self.ordinals.next(bucket),
            Target::Next | Target::Function(_) => {
                self.attempt.direct_objects += 1;
                self.attempt.direct_objects - 1
            }
        }
    }

    /// Memory for a payload, charged against the credit.
    fn allocate(&mut self, size: usize) -> Call<Extent> {
        let size_bytes = size as u64;
        if size_bytes > self.object_size_max_bytes {
            return Err(self.too_big(size_bytes));
        }
        self.refuse_if_cancelled()?;
        let units = Extent::units_for(size_bytes);
        if size_bytes <= self.at_hand_bytes_max {
            let credit_bytes = self.end.credit_total_bytes();
            if let Some(extent) = self.memory.allocate_at_hand(units, credit_bytes) {
                return Ok(extent);
            }
        }
        self.allocate_slowly(size_bytes, units)
    }

    #[cold]
    fn too_big(&self, size_bytes: u64) -> Fault {
        Fault::new(
            sdk::ETOOBIG,
            format!(
                "{size_bytes} bytes are more than an object may have (limits.object_size = {})",
                self.object_size_max_bytes
            ),
        )
    }

    /// The same, where nothing of that length is at hand.
    #[inline(never)]
    fn allocate_slowly(&mut self, size_bytes: u64, units: u64) -> Call<Extent> {
        // The ring's line was written by the other side: reading it costs a cache miss.
        self.drain_releases();
        let mut lacking = self
            .memory
            .lacking_bytes(units, self.end.credit_total_bytes());
        while lacking > 0 {
            let question = FromExecutor::NeedCredit { bytes: lacking };
            let Answer::Credit(granted) = self.ask(&question) else {
                crate::runtime::give_up("credit was asked for, and something else came");
            };
            let before = lacking;
            lacking = self
                .memory
                .lacking_bytes(units, self.end.credit_total_bytes());
            // An answer that brings nothing is a refusal, or the question would have no end.
            if lacking > 0 && (!granted || lacking >= before) {
                self.refuse_if_cancelled()?;
                return Err(Fault::new(
                    sdk::ENOMEM,
                    format!(
                        "the app's memory is full, {size_bytes} bytes were asked for (app.memory)"
                    ),
                ));
            }
            self.drain_releases();
        }
        self.memory
            .allocate(units)
            .map_err(|error| out_of_memory(size_bytes, &error))
    }

    fn create(
        &mut self,
        target: Target,
        key: Option<&[u8]>,
        size: usize,
    ) -> Call<*mut sdk::Object> {
        let extent = self.allocate(size)?;
        let ordinal = self.next_ordinal(target, key.is_some());
        let label = match key {
            // Keys have at most 255 bytes.
            Some(key) => Label::Named(self.frame.keep(key), key.len() as u8),
            None => Label::Auto {
                invocation: self.frame.invocation,
                ordinal,
            },
        };
        let data = self.own_address(extent);
        let session = self.frame.chain.session;
        let object = self.outputs.create();
        object.begin_output(data, size, extent, session);
        object.name_output(target, ordinal, label);
        let (bucket, bucket_name) = match target {
            Target::Bucket(index) => (index, self.names.bucket(index).unwrap_or(c"".as_ptr())),
            Target::Next | Target::Function(_) => (NO_BUCKET, c"".as_ptr()),
        };
        object.bucket.set(bucket);
        object.bucket_name.set(bucket_name);
        Ok(object.handle())
    }

    /// A direct object with an automatic key, where all that it takes is at hand; `None` otherwise,
    /// and nothing has happened. Calls nothing, so that it costs its caller no register.
    #[inline(always)]
    fn create_at_hand(&mut self, size: usize) -> Option<*mut sdk::Object> {
        let size_bytes = size as u64;
        if size_bytes > self.at_hand_bytes_max || self.attempt.initializing || self.cancelled() {
            return None;
        }
        let object = self.outputs.fresh()?;
        let units = Extent::units_for(size_bytes);
        let credit_bytes = self.end.credit_total_bytes();
        let extent = self.memory.allocate_at_hand(units, credit_bytes)?;
        let ordinal = self.attempt.direct_objects;
        self.attempt.direct_objects = ordinal + 1;
        let data = self.own_base.wrapping_add(extent.offset_bytes() as usize);
        object.state.set(State::Unsent);
        object.begin_output(data, size, extent, self.frame.chain.session);
        let label = Label::Auto {
            invocation: self.frame.invocation,
            ordinal,
        };
        object.name_output(Target::Next, ordinal, label);
        object.bucket.set(NO_BUCKET);
        object.bucket_name.set(c"".as_ptr());
        let handle = object.handle();
        self.outputs.take_fresh();
        Some(handle)
    }

    fn truncate(&mut self, object: &Object, size: usize) -> Call<()> {
        let size_bytes = size as u64;
        if size_bytes > object.size_bytes.get() {
            return Err(Fault::invalid(format!(
                "{size_bytes} bytes are more than the object has ({}): create it with its largest \
                 size",
                object.size_bytes.get()
            )));
        }
        let extent = object.extent.get();
        let units = Extent::units_for(size_bytes);
        if units < u64::from(extent.len_units) {
            // Fewer than a u32 that has as many.
            object.extent.set(self.memory.shrink(extent, units as u32));
        }
        object.size_bytes.set(size_bytes);
        Ok(())
    }

    /// Sends an object with an automatic key and without options. `None`: something about it is
    /// unusual, and nothing has been said. Calls nothing but at its end, so that it costs its
    /// caller no register.
    #[inline(always)]
    fn send_at_once(&mut self, object: &Object) -> Option<c_int> {
        let Label::Auto { ordinal, .. } = object.label.get() else {
            return None;
        };
        if object.state.get() != State::Unsent || self.cancelled() || !self.outputs.has_room() {
            return None;
        }
        let target = object.target.get();
        seal(object);
        if self.may_offer() {
            return Some(self.send_in_place(object, target, ordinal));
        }
        if target == Target::Next && self.own().next.is_empty() {
            return None;
        }
        let room = self.end.room()?;
        room.say(&published(object, target, ordinal));
        self.outputs.end_at_once(object, State::Sent);
        self.end.ring();
        Some(sdk::OK)
    }

    /// Sends it so that this process goes on with what it fires, if that can be.
    #[inline(never)]
    fn send_in_place(&mut self, object: &Object, target: Target, ordinal: u32) -> c_int {
        if !self.offer(object, target, ordinal) {
            return self.send_judged(object);
        }
        self.outputs.end_at_once(object, State::Sent);
        self.end.ring();
        sdk::OK
    }

    /// Sends it in the way that is always possible.
    #[inline(never)]
    fn send_judged(&mut self, object: &Object) -> c_int {
        let sent = judged(self, "phr_send", |runtime| {
            runtime.send_with(object, &Options::default())
        });
        sent.map_or_else(|status| status, |()| sdk::OK)
    }

    /// Sends an object with options, or in the way that is always possible.
    fn send_with(&mut self, object: &Object, options: &Options<'_>) -> Call<()> {
        let target = self.final_target(object.target.get(), options)?;
        self.refuse_if_cancelled()?;
        seal(object);
        let is_plain = options.group.is_empty() && options.delay_ns == 0 && !options.is_durable;
        if is_plain && let Label::Auto { ordinal, .. } = object.label.get() {
            self.end.look_for_room();
            self.next.frame.make_room();
            if !self.may_offer() || !self.offer(object, target, ordinal) {
                self.end.say_known(&published(object, target, ordinal));
            }
            self.outputs.end(object, State::Sent);
            self.end.ring();
            return Ok(());
        }
        let ordinal = object.ordinal.get();
        let key = match object.label.get() {
            Label::Auto { .. } => Key::Auto(ordinal),
            Label::Named(..) => Key::Named(label_bytes(object)),
        };
        let message = FromExecutor::Publish {
            target,
            extent: object.extent.get(),
            size_bytes: object.size_bytes.get(),
            key,
            ordinal,
            group: options.group,
            delay_ns: options.delay_ns,
        };
        if options.is_durable {
            self.persist(target, &message)?;
        } else {
            self.say(&message);
        }
        self.outputs.end(object, State::Sent);
        Ok(())
    }

    /// Says what publishes an object, and waits until that is on disk.
    #[cold]
    fn persist(&mut self, target: Target, message: &FromExecutor<'_>) -> Call<()> {
        if !matches!(target, Target::Bucket(_)) {
            return Err(Fault::invalid(
                "a direct object has no name by which it could be found on disk: send it into a \
                 bucket",
            ));
        }
        self.say(&FromExecutor::Persist);
        let Answer::Persisted(status) = self.ask_disk(message) else {
            crate::runtime::give_up("an object was to be written, and something else came");
        };
        match status {
            sdk::OK => Ok(()),
            sdk::ECANCELED => Err(Fault::cancelled()),
            status => Err(Fault::new(status, why_not_written(status))),
        }
    }

    /// Creates an object with a copy of the function's bytes.
    pub(super) fn create_copy(
        &mut self,
        target: Target,
        key: Option<&[u8]>,
        data: *const c_void,
        size: usize,
    ) -> Call<*mut sdk::Object> {
        if data.is_null() && size > 0 {
            return Err(Fault::invalid(format!(
                "the data is NULL, and its size {size}"
            )));
        }
        let handle = self.create(target, key, size)?;
        let to = object(handle)?.data.get();
        if size > 0 {
            // SAFETY: the object is new and has `size` bytes in this executor's own region; the
            // function says that its data has as many.
            unsafe { std::ptr::copy(data.cast::<u8>(), to, size) };
        }
        Ok(handle)
    }

    fn forward(
        &mut self,
        held: &Object,
        target: Target,
        key: Option<&[u8]>,
        options: &Options<'_>,
    ) -> Call<()> {
        let target = self.final_target(target, options)?;
        self.refuse_if_cancelled()?;
        let ordinal = self.next_ordinal(target, key.is_some());
        let message = FromExecutor::Forward {
            target,
            object: held.number.get(),
            key: key.map_or(Key::Auto(ordinal), Key::Named),
            ordinal,
            group: options.group,
            delay_ns: options.delay_ns,
        };
        if options.is_durable {
            return self.persist(target, &message);
        }
        self.say(&message);
        Ok(())
    }

    /// Gives an unsent object back; others are left alone.
    pub(super) fn give_back_if_unsent(&mut self, handle: *const sdk::Object) {
        if let Ok(object) = unsent(handle) {
            self.memory.give_back(object.extent.get());
            self.outputs.end(object, State::Discarded);
        }
    }
}

/// What is said of an object with an automatic key and without options.
#[inline(always)]
fn published(object: &Object, target: Target, ordinal: u32) -> FromExecutor<'static> {
    FromExecutor::Publish {
        target,
        extent: object.extent.get(),
        size_bytes: object.size_bytes.get(),
        key: Key::Auto(ordinal),
        ordinal,
        group: &[],
        delay_ns: 0,
    }
}

/// Writes the zero byte that follows every payload.
#[inline]
pub(super) fn seal(object: &Object) {
    let end = object
        .data
        .get()
        .wrapping_add(object.size_bytes.get() as usize);
    // SAFETY: an extent has room for its payload and one byte more, in this executor's own region.
    unsafe { end.write(0) };
}

fn why_not_written(status: i32) -> String {
    match status {
        sdk::EEXIST => "there is an object of this name already, and it stands".into(),
        sdk::EIO => {
            "the disk has not taken the object (the node's log says why); it has not been sent"
                .into()
        }
        sdk::ENOTSUP => {
            "this node keeps nothing on disk: start it with `--data DIR`; the object has not been \
             sent"
                .into()
        }
        status => format!("the scheduler answered {}", sdk::status_name(status)),
    }
}

fn out_of_memory(size_bytes: u64, error: &AllocError) -> Fault {
    Fault::new(
        sdk::ENOMEM,
        format!("there is no room for {size_bytes} bytes: {error}"),
    )
}

/// What is asked for most is at hand; anything else is asked for again from the start.
pub(super) unsafe extern "C" fn create(
    ctx: *mut sdk::Ctx,
    bucket: *const c_char,
    key: *const c_char,
    size: usize,
) -> *mut sdk::Object {
    if bucket.is_null()
        && key.is_null()
        && let Some(runtime) = runtime(ctx)
        && let Some(object) = runtime.create_at_hand(size)
    {
        return object;
    }
    create_slowly(ctx, bucket, key, size)
}

#[inline(never)]
fn create_slowly(
    ctx: *const sdk::Ctx,
    bucket: *const c_char,
    key: *const c_char,
    size: usize,
) -> *mut sdk::Object {
    pointer(ctx, "phr_create", |runtime| {
        let target = runtime.target(bucket)?;
        runtime.create(target, new_key(key)?, size)
    })
}

pub(super) unsafe extern "C" fn create_for(
    ctx: *mut sdk::Ctx,
    function: *const c_char,
    size: usize,
) -> *mut sdk::Object {
    pointer(ctx, "phr_create_for", |runtime| {
        let target = runtime.addressed(required_text(function, "the function")?)?;
        runtime.create(target, None, size)
    })
}

pub(super) unsafe extern "C" fn buffer(handle: *mut sdk::Object) -> *mut c_void {
    match unsent(handle) {
        Ok(object) => object.data.get().cast(),
        Err(fault) => {
            if let Some(runtime) = runtime_now() {
                noted(runtime, "phr_buffer", fault);
            }
            std::ptr::null_mut()
        }
    }
}

pub(super) unsafe extern "C" fn truncate(handle: *mut sdk::Object, size: usize) -> c_int {
    let Some(runtime) = runtime_now() else {
        return sdk::EPERM;
    };
    match unsent(handle).and_then(|object| runtime.truncate(object, size)) {
        Ok(()) => sdk::OK,
        Err(fault) => noted(runtime, "phr_truncate", fault),
    }
}

/// What is sent most goes at once; anything else is looked at again from the start.
pub(super) unsafe extern "C" fn send(
    ctx: *mut sdk::Ctx,
    handle: *mut sdk::Object,
    options: *const sdk::SendOptions,
) -> c_int {
    if options.is_null()
        && let Some(runtime) = runtime(ctx)
        && let Some(object) = known_object(handle)
        && let Some(status) = runtime.send_at_once(object)
    {
        return status;
    }
    send_slowly(ctx, handle, options)
}

#[inline(never)]
fn send_slowly(
    ctx: *const sdk::Ctx,
    handle: *const sdk::Object,
    options: *const sdk::SendOptions,
) -> c_int {
    status(ctx, "phr_send", |runtime| {
        runtime.send_with(unsent(handle)?, &Options::of(options)?)
    })
}

pub(super) unsafe extern "C" fn put(
    ctx: *mut sdk::Ctx,
    bucket: *const c_char,
    key: *const c_char,
    data: *const c_void,
    size: usize,
    options: *const sdk::SendOptions,
) -> c_int {
    status(ctx, "phr_put", |runtime| {
        let options = Options::of(options)?;
        let target = runtime.target(bucket)?;
        // Before memory is taken: nothing but cancelling can refuse the send afterwards.
        runtime.final_target(target, &options)?;
        let handle = runtime.create_copy(target, new_key(key)?, data, size)?;
        let object = unsent(handle)?;
        runtime
            .send_with(object, &options)
            .inspect_err(|_| runtime.give_back_if_unsent(handle))
    })
}

pub(super) unsafe extern "C" fn forward(
    ctx: *mut sdk::Ctx,
    input: *const sdk::Object,
    bucket: *const c_char,
    key: *const c_char,
    options: *const sdk::SendOptions,
) -> c_int {
    status(ctx, "phr_forward", |runtime| {
        let held = runtime.held(input)?;
        let options = Options::of(options)?;
        let target = runtime.target(bucket)?;
        runtime.forward(held, target, new_key(key)?, &options)
    })
}

pub(super) unsafe extern "C" fn discard(ctx: *mut sdk::Ctx, handle: *mut sdk::Object) {
    if let Some(runtime) = runtime(ctx) {
        runtime.give_back_if_unsent(handle);
    }
}
