//! Responses: a session answers its caller once, whichever invocation does it.

use pheromone_shm::message::{Extent, InputKey, NO_BUCKET};

use crate::event::{ExecutorId, Part, Response, Sink};
use crate::local::app::App;
use crate::local::invocation::Invocation;
use crate::local::judge::Fault;
use crate::local::object::{NewObject, Object, Payload};
use crate::local::session::Session;
use crate::local::{Local, Tables};
use crate::slab::Ref;

/// What goes with a response's body.
#[derive(Clone, Copy)]
pub(super) struct Answer<'a> {
    pub(super) http_status: u16,
    pub(super) content_type: &'a [u8],
}

impl Answer<'_> {
    fn judge(&self) -> Result<(), Fault> {
        if !(200..=599).contains(&self.http_status) {
            return Err(Fault::HttpStatus(self.http_status));
        }
        Ok(())
    }
}

impl Local {
    pub(super) fn respond<S: Sink>(
        &mut self,
        id: ExecutorId,
        (extent, size_bytes): (Extent, u64),
        answer: Answer<'_>,
        sink: &mut S,
    ) -> Result<(), Fault> {
        let app = &mut self.apps[id.app];
        let open = app.executor(id.slot).open("Respond")?;
        app.judge_payload(id.slot, extent, size_bytes)?;
        answer.judge()?;
        app.take_credit(id.slot, extent)?;
        let Some(session) = self.answerable(open, sink) else {
            let app = &mut self.apps[id.app];
            self.tables.release_extent(app, id.slot, extent, sink);
            return Ok(());
        };
        let app = &mut self.apps[id.app];
        let new = NewObject {
            session: self.tables.sessions[session].id,
            payload: Payload {
                region: id.slot,
                extent,
                size_bytes,
                root: Ref::NONE,
            },
            bucket: NO_BUCKET,
            key: InputKey::Auto {
                invocation: self.tables.invocations[open].id,
                ordinal: u32::MAX,
            },
            group: b"",
        };
        let body = self.tables.create(app, &new);
        self.tables.answer(open, session, &[body], answer, sink);
        self.tables.drop_hold(app, body, sink);
        app.top_up(id.slot, sink);
        Ok(())
    }

    pub(super) fn respond_parts<S: Sink>(
        &mut self,
        id: ExecutorId,
        objects: &[u8],
        more: bool,
        answer: Answer<'_>,
        sink: &mut S,
    ) -> Result<(), Fault> {
        let app = &mut self.apps[id.app];
        let open = app.executor(id.slot).open("RespondParts")?;
        answer.judge()?;
        let (indices, rest) = objects.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(Fault::PartList(objects.len()));
        }
        let most = app.spec.limits.inputs;
        let invocation = &mut self.tables.invocations[open];
        for &index in indices {
            let part = invocation.judge_object(u32::from_le_bytes(index))?;
            if invocation.parts.len() >= most as usize {
                return Err(Fault::Parts { most });
            }
            invocation.parts.push(part);
        }
        if more {
            return Ok(());
        }
        let parts = std::mem::take(&mut invocation.parts);
        if let Some(session) = self.answerable(open, sink) {
            self.tables.answer(open, session, &parts, answer, sink);
        }
        Ok(())
    }

    /// The session that an invocation may answer; where it may not, that is an error event.
    fn answerable<S: Sink>(&mut self, open: Ref<Invocation>, sink: &mut S) -> Option<Ref<Session>> {
        let invocation = &self.tables.invocations[open];
        let function = invocation.function;
        let session = invocation.session.some()?;
        let of = &self.tables.sessions[session];
        let why = match (of.has_caller, of.answered_by) {
            (true, 0) => return Some(session),
            // The first answer stands, and an attempt that repeats it has done nothing wrong.
            (true, by) if by == invocation.id && invocation.attempt > 1 => return None,
            (true, _) => "responded, but the session had been answered before",
            (false, _) => "responded in a session without a caller",
        };
        let text =
            |_: &Tables, app: &App| format!("function `{}` {why}", app.function_name(function));
        self.error_event(session, text, sink);
        None
    }
}

impl Tables {
    /// Answers the caller with these payloads, which are held until they have been read.
    fn answer<S: Sink>(
        &mut self,
        open: Ref<Invocation>,
        session: Ref<Session>,
        body: &[Ref<Object>],
        answer: Answer<'_>,
        sink: &mut S,
    ) {
        let mut parts = std::mem::take(&mut self.scratch.parts);
        let of = &mut self.sessions[session];
        of.answered_by = self.invocations[open].id;
        for &part in body {
            self.objects.hold(part);
            of.response.push(part);
            let object = &self.objects[part];
            parts.push(Part {
                region: object.region,
                offset_units: object.extent.offset_units,
                size_bytes: object.size_bytes,
            });
        }
        sink.respond(&Response {
            request: of.request,
            session: of.id,
            app: of.app,
            http_status: answer.http_status,
            content_type: answer.content_type,
            parts: &parts,
        });
        parts.clear();
        parts.shrink_to(crate::limits::BUFFER_ENTRIES_KEPT);
        self.scratch.parts = parts;
    }
}
