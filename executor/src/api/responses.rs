//! Answers to the session's caller.

use std::ffi::{c_char, c_int, c_void};

use pheromone_sdk as sdk;
use pheromone_shm::message::{CONTENT_TYPE_BYTES_MAX, FromExecutor, Target};

use super::outputs::seal;
use super::{status, text, unsent};
use crate::fault::{Call, Fault};
use crate::objects::State;
use crate::runtime::Runtime;

/// Parts named in one message: 4 bytes each, so that a message is no larger than 16 KiB.
const PARTS_PER_MESSAGE: usize = 4096;

impl Runtime {
    fn refuse_answer(&self) -> Call<()> {
        self.refuse_if_cancelled()?;
        if !self.frame.has_caller {
            return Err(Fault::new(
                sdk::ENOENT,
                "nobody waits for a response: the session was opened without a caller",
            ));
        }
        if self.attempt.responded {
            return Err(Fault::new(
                sdk::EEXIST,
                "this attempt has responded before, and a session has one response",
            ));
        }
        Ok(())
    }

    fn respond(&mut self, handle: *const sdk::Object) -> Call<()> {
        self.refuse_answer()?;
        let object = unsent(handle)?;
        seal(object);
        // The type is lent to the message, and comes back.
        let content_type = std::mem::take(&mut self.attempt.content_type);
        self.say(&FromExecutor::Respond {
            extent: object.extent.get(),
            size_bytes: object.size_bytes.get(),
            http_status: self.attempt.http_status,
            content_type: &content_type,
        });
        self.attempt.content_type = content_type;
        self.outputs.end(object, State::Sent);
        self.attempt.responded = true;
        Ok(())
    }

    fn respond_parts(&mut self, handles: &[*const sdk::Object]) -> Call<()> {
        self.refuse_answer()?;
        for handle in handles {
            self.held(*handle)?;
        }
        let content_type = std::mem::take(&mut self.attempt.content_type);
        let mut pieces = handles.chunks(PARTS_PER_MESSAGE).peekable();
        loop {
            let piece = pieces.next().unwrap_or_default();
            let mut objects = Vec::with_capacity(4 * piece.len());
            for handle in piece {
                objects.extend_from_slice(&self.held(*handle)?.number.get().to_le_bytes());
            }
            let more = pieces.peek().is_some();
            self.say(&FromExecutor::RespondParts {
                more,
                http_status: self.attempt.http_status,
                content_type: if more { &[] } else { &content_type },
                objects: &objects,
            });
            if !more {
                break;
            }
        }
        self.attempt.content_type = content_type;
        self.attempt.responded = true;
        Ok(())
    }
}

pub(super) unsafe extern "C" fn respond(ctx: *mut sdk::Ctx, handle: *mut sdk::Object) -> c_int {
    status(ctx, "phr_respond", |runtime| runtime.respond(handle))
}

pub(super) unsafe extern "C" fn respond_data(
    ctx: *mut sdk::Ctx,
    data: *const c_void,
    size: usize,
) -> c_int {
    status(ctx, "phr_respond_data", |runtime| {
        // Before memory is taken.
        runtime.refuse_answer()?;
        let handle = runtime.create_copy(Target::Next, None, data, size)?;
        let given = runtime.respond(handle);
        given.inspect_err(|_| runtime.give_back_if_unsent(handle))
    })
}

pub(super) unsafe extern "C" fn respond_parts(
    ctx: *mut sdk::Ctx,
    inputs: *const *const sdk::Object,
    count: usize,
) -> c_int {
    status(ctx, "phr_respond_parts", |runtime| {
        if count == 0 {
            return runtime.respond_parts(&[]);
        }
        if inputs.is_null() {
            return Err(Fault::invalid("the inputs are NULL"));
        }
        // SAFETY: by the header's contract the function passes an array of `count` pointers.
        let handles = unsafe { std::slice::from_raw_parts(inputs, count) };
        runtime.respond_parts(handles)
    })
}

pub(super) unsafe extern "C" fn set_response_type(
    ctx: *mut sdk::Ctx,
    content_type: *const c_char,
) -> c_int {
    status(ctx, "phr_set_response_type", |runtime| {
        let wanted = text(content_type, CONTENT_TYPE_BYTES_MAX, "the content type")?;
        let wanted = wanted.unwrap_or_default();
        if wanted.iter().any(|byte| !(b' '..=b'~').contains(byte)) {
            return Err(Fault::invalid(
                "a content type is made of visible ASCII characters",
            ));
        }
        runtime.attempt.content_type.clear();
        runtime.attempt.content_type.extend_from_slice(wanted);
        Ok(())
    })
}

pub(super) unsafe extern "C" fn set_response_status(ctx: *mut sdk::Ctx, http: c_int) -> c_int {
    status(
        ctx,
        "phr_set_response_status",
        |runtime| match u16::try_from(http) {
            Ok(http @ 200..=599) => {
                runtime.attempt.http_status = http;
                Ok(())
            }
            _ => Err(Fault::invalid(format!(
                "{http} is no HTTP status from 200 to 599"
            ))),
        },
    )
}
