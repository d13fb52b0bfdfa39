//! Answers to callers: of the invocation's own session, and of those that it comes from.

use std::ffi::{c_char, c_int, c_void};

use pheromone_sdk as sdk;
use pheromone_shm::message::{CONTENT_TYPE_BYTES_MAX, FromExecutor, MESSAGE_BYTES_MAX, Target};

use super::outputs::seal;
use super::{prefix, status, text, unsent};
use crate::fault::{Call, Fault};
use crate::objects::State;
use crate::runtime::{Answer, Runtime};

/// Parts named in one message: 4 bytes each, so that a message is no larger than 16 KiB.
const PARTS_PER_MESSAGE: usize = 4096;

impl Runtime {
    /// Whether a session may be answered now, as far as it is known here.
    fn refuse_answer(&self, session: u64) -> Call<()> {
        self.refuse_if_cancelled()?;
        if session == self.frame.chain.session && !self.frame.chain.has_caller {
            return Err(Fault::new(
                sdk::ENOENT,
                "nobody waits for a response: the session was opened without a caller",
            ));
        }
        self.refuse_second_answer(session)
    }

    fn refuse_second_answer(&self, session: u64) -> Call<()> {
        if self.attempt.notes().answered.contains(&session) {
            return Err(Fault::new(
                sdk::EEXIST,
                "this attempt has answered the session before, and a session has one answer",
            ));
        }
        Ok(())
    }

    /// The number of a session in a message.
    fn addressed_session(&self, session: u64) -> u64 {
        if session == self.frame.chain.session {
            0
        } else {
            session
        }
    }

    fn respond(&mut self, session: u64, handle: *const sdk::Object) -> Call<()> {
        self.refuse_answer(session)?;
        let object = unsent(handle)?;
        seal(object);
        // The type is lent to the message, and comes back.
        let content_type = std::mem::take(&mut self.attempt.note().content_type);
        self.say(&FromExecutor::Respond {
            session: self.addressed_session(session),
            extent: object.extent.get(),
            size_bytes: object.size_bytes.get(),
            http_status: self.attempt.notes().http_status,
            content_type: &content_type,
        });
        self.attempt.note().content_type = content_type;
        self.outputs.end(object, State::Sent);
        self.attempt.note().answered.push(session);
        Ok(())
    }

    fn fail_session(&mut self, session: u64, failed: i32, message: &[u8]) -> Call<()> {
        self.refuse_if_cancelled()?;
        if failed == 0 {
            return Err(Fault::invalid(
                "status 0 is success: a failure has a status of 1 to 255, or a negative one",
            ));
        }
        self.refuse_second_answer(session)?;
        self.say(&FromExecutor::FailSession {
            session: self.addressed_session(session),
            status: failed,
            message,
        });
        self.attempt.note().answered.push(session);
        Ok(())
    }

    /// How many parents the session has, and one of them.
    pub(super) fn parent(&mut self, number: usize) -> (u32, u64) {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        match self.ask(&FromExecutor::Parent { number }) {
            Answer::Parent(count, session) => (count, session),
            _ => crate::runtime::give_up("a parent was asked for, and something else came"),
        }
    }

    fn respond_parts(&mut self, handles: &[*const sdk::Object]) -> Call<()> {
        self.refuse_answer(self.frame.chain.session)?;
        for handle in handles {
            self.held(*handle)?;
        }
        let content_type = std::mem::take(&mut self.attempt.note().content_type);
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
                http_status: self.attempt.notes().http_status,
                content_type: if more { &[] } else { &content_type },
                objects: &objects,
            });
            if !more {
                break;
            }
        }
        self.attempt.note().content_type = content_type;
        self.attempt.note().answered.push(self.frame.chain.session);
        Ok(())
    }
}

pub(super) unsafe extern "C" fn respond(ctx: *mut sdk::Ctx, handle: *mut sdk::Object) -> c_int {
    status(ctx, "phr_respond", |runtime| {
        runtime.respond(runtime.frame.chain.session, handle)
    })
}

pub(super) unsafe extern "C" fn respond_to(
    ctx: *mut sdk::Ctx,
    input: *const sdk::Object,
    handle: *mut sdk::Object,
) -> c_int {
    status(ctx, "phr_respond_to", |runtime| {
        let session = runtime.held(input)?.session.get();
        runtime.respond(session, handle)
    })
}

pub(super) unsafe extern "C" fn respond_session(
    ctx: *mut sdk::Ctx,
    session: u64,
    handle: *mut sdk::Object,
) -> c_int {
    status(ctx, "phr_respond_session", |runtime| {
        runtime.respond(named_session(session)?, handle)
    })
}

pub(super) unsafe extern "C" fn fail_session(
    ctx: *mut sdk::Ctx,
    session: u64,
    failed: c_int,
    message: *const c_char,
) -> c_int {
    status(ctx, "phr_fail_session", |runtime| {
        let message = prefix(message, MESSAGE_BYTES_MAX);
        runtime.fail_session(named_session(session)?, failed, message)
    })
}

/// A session that a function names by its number.
fn named_session(session: u64) -> Call<u64> {
    if session == 0 {
        return Err(Fault::invalid(
            "0 is no session: see phr_object_session and phr_parent",
        ));
    }
    Ok(session)
}

pub(super) unsafe extern "C" fn respond_data(
    ctx: *mut sdk::Ctx,
    data: *const c_void,
    size: usize,
) -> c_int {
    status(ctx, "phr_respond_data", |runtime| {
        // Before memory is taken.
        let session = runtime.frame.chain.session;
        runtime.refuse_answer(session)?;
        let handle = runtime.create_copy(Target::Next, None, data, size)?;
        let given = runtime.respond(session, handle);
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
        let notes = runtime.attempt.note();
        notes.content_type.clear();
        notes.content_type.extend_from_slice(wanted);
        Ok(())
    })
}

pub(super) unsafe extern "C" fn set_response_status(ctx: *mut sdk::Ctx, http: c_int) -> c_int {
    status(
        ctx,
        "phr_set_response_status",
        |runtime| match u16::try_from(http) {
            Ok(http @ 200..=599) => {
                runtime.attempt.note().http_status = http;
                Ok(())
            }
            _ => Err(Fault::invalid(format!(
                "{http} is no HTTP status from 200 to 599"
            ))),
        },
    )
}
