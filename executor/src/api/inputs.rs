//! Inputs, the request, and what is looked up.

use std::ffi::{c_char, c_void};

use pheromone_sdk as sdk;
use pheromone_shm::message::FromExecutor;

use super::{
    known_key, known_object, object, pointer, required_text, runtime, runtime_now, status,
};
use crate::fault::{Call, Fault};
use crate::frame::{Headers, key_text};
use crate::objects::{Object, State};
use crate::populate;
use crate::runtime::{Answer, Runtime};

impl Runtime {
    /// Fetches the inputs that did not fit the dispatch.
    fn fetch_inputs(&mut self) {
        while self.frame.fetched() < self.frame.input_count {
            let first = self.frame.fetched();
            match self.ask(&FromExecutor::FetchInputs { first }) {
                Answer::Inputs => {}
                _ => crate::runtime::give_up("inputs were asked for, and something else came"),
            }
        }
    }

    #[inline]
    fn input(&mut self, number: usize) -> *const sdk::Object {
        if self.attempt.initializing {
            return std::ptr::null();
        }
        match self.frame.input(number) {
            Some(object) => object.handle(),
            None => self.later_input(number),
        }
    }

    /// One that has not come with the dispatch, if it is one at all.
    #[cold]
    #[inline(never)]
    fn later_input(&mut self, number: usize) -> *const sdk::Object {
        if number >= self.frame.input_count as usize {
            return std::ptr::null();
        }
        self.fetch_inputs();
        self.frame
            .input(number)
            .map_or(std::ptr::null(), |object| object.handle().cast_const())
    }

    fn input_named(&mut self, key: &[u8]) -> *const sdk::Object {
        self.fetch_inputs();
        self.frame
            .named(key)
            .map_or(std::ptr::null(), |object| object.handle().cast_const())
    }

    fn get(&mut self, bucket: &[u8], key: &[u8], timeout_ns: u64) -> Call<*mut sdk::Object> {
        let bucket = self.bucket(bucket)?;
        self.refuse_if_cancelled()?;
        let answer = self.ask(&FromExecutor::Get {
            bucket,
            timeout_ns,
            key,
        });
        match answer {
            Answer::Object(Ok(found)) => Ok(found),
            Answer::Object(Err(sdk::ECANCELED)) => Err(Fault::cancelled()),
            Answer::Object(Err(status)) => {
                Err(self.why_not_found(status, bucket, key, timeout_ns > 0))
            }
            _ => crate::runtime::give_up("an object was asked for, and something else came"),
        }
    }

    fn load_object(&mut self, bucket: &[u8], key: &[u8]) -> Call<*mut sdk::Object> {
        let bucket = self.bucket(bucket)?;
        if !self.attempt.initializing {
            self.refuse_if_cancelled()?;
        }
        let status = match self.ask_disk(&FromExecutor::Load { bucket, key }) {
            Answer::Object(Ok(found)) => return Ok(found),
            Answer::Object(Err(sdk::ECANCELED)) => return Err(Fault::cancelled()),
            Answer::Object(Err(status)) => status,
            _ => crate::runtime::give_up("an object was asked for, and something else came"),
        };
        let what = format!(
            "object `{}` in bucket `{}`",
            String::from_utf8_lossy(key),
            self.names.bucket_text(bucket)
        );
        Err(Fault::new(
            status,
            match status {
                sdk::ENOENT => format!("there is no durable or retained {what}"),
                sdk::ENOMEM => format!("there is no memory left to hold the {what} (app.memory)"),
                sdk::EIO => {
                    format!("the {what} could not be read from disk (the node's log says why)")
                }
                status => format!(
                    "the scheduler answered {} about the {what}",
                    sdk::status_name(status)
                ),
            },
        ))
    }

    /// What the scheduler's answer to a look-up means.
    fn why_not_found(&self, status: i32, bucket: u16, key: &[u8], waited: bool) -> Fault {
        let what = format!(
            "object `{}` in bucket `{}`",
            String::from_utf8_lossy(key),
            self.names.bucket_text(bucket)
        );
        let sentence = match status {
            sdk::ENOENT if waited => {
                format!("this session has no {what}, and nothing is left that could publish it")
            }
            sdk::ENOENT => format!("this session has no {what}"),
            sdk::ETIMEDOUT => {
                format!("no {what} came in the time given, or before the invocation's deadline")
            }
            sdk::EAGAIN => format!(
                "there is no {what} yet, and as many invocations of the app wait as may \
                 (limits.waiters)"
            ),
            sdk::ENOMEM => format!("there is no memory left to hold the {what} (app.memory)"),
            status => format!(
                "the scheduler answered {} about the {what}",
                sdk::status_name(status)
            ),
        };
        Fault::new(status, sentence)
    }

    /// One of what is attached to an object; the first question fetches all of it.
    fn attached(&mut self, failure: &Object, number: u32) -> Call<*const sdk::Object> {
        let object = self.held(failure.handle())?.number.get();
        let (at, here) = match failure.attached_here.get() {
            Some(here) => here,
            None => self.fetch_attached(failure, object),
        };
        if number < here {
            return Ok(self.frame.found(at + number).handle());
        }
        Err(Fault::new(
            sdk::ENOMEM,
            format!(
                "the failure has {} inputs, and the invocation holds as many objects as it may \
                 (limits.inputs, for its inputs and once more for what it gets)",
                failure.attached.get()
            ),
        ))
    }

    /// Fetches what is attached, as much of it as the invocation may hold: where it begins among
    /// what was found, and how many came.
    fn fetch_attached(&mut self, failure: &Object, object: u32) -> (u32, u32) {
        let at = self.frame.found_count();
        let mut here = 0;
        while here < failure.attached.get() {
            self.attached_asked = Some(here);
            match self.ask(&FromExecutor::FetchAttached {
                object,
                first: here,
            }) {
                Answer::Inputs if self.frame.found_count() - at > here => {}
                Answer::Inputs => break,
                _ => crate::runtime::give_up("attached objects were asked for, and others came"),
            }
            here = self.frame.found_count() - at;
        }
        failure.attached_here.set(Some((at, here)));
        (at, here)
    }

    fn delete(&mut self, bucket: &[u8], key: &[u8]) -> Call<()> {
        let bucket = self.bucket(bucket)?;
        self.refuse_if_cancelled()?;
        self.say(&FromExecutor::ReleaseHold { bucket, key });
        Ok(())
    }

    fn header(&self, name: &[u8]) -> Call<*mut c_char> {
        let headers: Option<Headers> = self.frame.chain.headers;
        let found = headers.and_then(|headers| headers.find(name));
        found.map(<*const c_char>::cast_mut).ok_or_else(|| {
            Fault::new(
                sdk::ENOENT,
                format!(
                    "the request had no header `{}`",
                    String::from_utf8_lossy(name)
                ),
            )
        })
    }
}

pub(super) unsafe extern "C" fn input_count(ctx: *const sdk::Ctx) -> usize {
    match runtime(ctx) {
        Some(runtime) if !runtime.attempt.initializing => runtime.frame.input_count as usize,
        _ => 0,
    }
}

pub(super) unsafe extern "C" fn input(ctx: *const sdk::Ctx, number: usize) -> *const sdk::Object {
    runtime(ctx).map_or(std::ptr::null(), |runtime| runtime.input(number))
}

pub(super) unsafe extern "C" fn input_named(
    ctx: *const sdk::Ctx,
    key: *const c_char,
) -> *const sdk::Object {
    pointer(ctx, "phr_input_named", |runtime| {
        Ok(runtime.input_named(known_key(key)?).cast_mut())
    })
}

pub(super) unsafe extern "C" fn request(ctx: *mut sdk::Ctx) -> *const sdk::Object {
    pointer(ctx, "phr_request", |runtime| {
        runtime.frame.request().map(Object::handle).ok_or_else(|| {
            Fault::new(
                sdk::ENOENT,
                "the session was opened without a request, or the app does not say \
                 `keep_request = true`",
            )
        })
    })
}

pub(super) unsafe extern "C" fn request_header(
    ctx: *mut sdk::Ctx,
    name: *const c_char,
) -> *const c_char {
    pointer(ctx, "phr_request_header", |runtime| {
        runtime.header(required_text(name, "the header's name")?)
    })
}

pub(super) unsafe extern "C" fn request_header_of(
    ctx: *mut sdk::Ctx,
    input: *const sdk::Object,
    name: *const c_char,
) -> *const c_char {
    pointer(ctx, "phr_request_header_of", |runtime| {
        let name = required_text(name, "the header's name")?;
        if object(input)?.session.get() != runtime.frame.chain.session {
            return Err(Fault::not_in_this_build(
                "headers of another session's call",
            ));
        }
        runtime.header(name)
    })
}

pub(super) unsafe extern "C" fn get(
    ctx: *mut sdk::Ctx,
    bucket: *const c_char,
    key: *const c_char,
    timeout_ns: u64,
) -> *const sdk::Object {
    pointer(ctx, "phr_get", |runtime| {
        runtime.get(
            required_text(bucket, "the bucket")?,
            known_key(key)?,
            timeout_ns,
        )
    })
}

/// Also in `PHR_INIT`.
pub(super) unsafe extern "C" fn load(
    ctx: *mut sdk::Ctx,
    bucket: *const c_char,
    key: *const c_char,
) -> *const sdk::Object {
    let Some(runtime) = runtime(ctx) else {
        return std::ptr::null();
    };
    let mut found = || runtime.load_object(required_text(bucket, "the bucket")?, known_key(key)?);
    match found() {
        Ok(found) => found,
        Err(fault) => {
            runtime.note_failure("phr_load", fault.status, &fault.sentence);
            std::ptr::null()
        }
    }
}

pub(super) unsafe extern "C" fn delete_object(
    ctx: *mut sdk::Ctx,
    bucket: *const c_char,
    key: *const c_char,
) -> std::ffi::c_int {
    status(ctx, "phr_delete", |runtime| {
        runtime.delete(required_text(bucket, "the bucket")?, known_key(key)?)
    })
}

/// What objects say of themselves may be asked by any thread: it is written before the object is
/// given away.
pub(super) unsafe extern "C" fn data(handle: *const sdk::Object) -> *const c_void {
    let Some(object) = known_object(handle) else {
        return std::ptr::null();
    };
    populate::before_reading(object);
    object.data.get().cast_const().cast()
}

pub(super) unsafe extern "C" fn size(handle: *const sdk::Object) -> usize {
    known_object(handle).map_or(0, |object| object.size_bytes.get() as usize)
}

pub(super) unsafe extern "C" fn key(handle: *const sdk::Object) -> *const c_char {
    known_object(handle).map_or(c"".as_ptr(), key_text)
}

pub(super) unsafe extern "C" fn bucket(handle: *const sdk::Object) -> *const c_char {
    known_object(handle).map_or(c"".as_ptr(), |object| object.bucket_name.get())
}

pub(super) unsafe extern "C" fn group(handle: *const sdk::Object) -> *const c_char {
    known_object(handle).map_or(c"".as_ptr(), |object| object.group.get())
}

pub(super) unsafe extern "C" fn object_session(handle: *const sdk::Object) -> u64 {
    known_object(handle).map_or(0, |object| object.session.get())
}

pub(super) unsafe extern "C" fn arrival_ns(handle: *const sdk::Object) -> u64 {
    known_object(handle).map_or(0, Object::arrival_ns)
}

pub(super) unsafe extern "C" fn failed_input_count(failure: *const sdk::Object) -> usize {
    known_object(failure).map_or(0, |failure| failure.attached.get() as usize)
}

pub(super) unsafe extern "C" fn failed_input(
    failure: *const sdk::Object,
    number: usize,
) -> *const sdk::Object {
    let (Some(runtime), Some(failure)) = (runtime_now(), known_object(failure)) else {
        return std::ptr::null();
    };
    let number = match u32::try_from(number) {
        Ok(number) if number < failure.attached.get() => number,
        _ => return std::ptr::null(),
    };
    match runtime.attached(failure, number) {
        Ok(attached) => attached,
        Err(fault) => {
            runtime.note_failure("phr_failed_input", fault.status, &fault.sentence);
            std::ptr::null()
        }
    }
}

impl Runtime {
    /// An object that this invocation holds, to be named in a message.
    pub(super) fn held<'a>(&self, handle: *const sdk::Object) -> Call<&'a Object> {
        let object = object(handle)?;
        match object.state.get() {
            State::Held => Ok(object),
            State::Unsent => Err(Fault::invalid("the object has not been sent: use phr_send")),
            State::Sent | State::Discarded => Err(Fault::invalid(
                "the object is an output of this function; only inputs, the request and what \
                 phr_get gave can be named again",
            )),
            State::Free => Err(Fault::invalid(
                "the object is of an earlier invocation; objects do not outlive their function's \
                 return",
            )),
        }
    }
}
