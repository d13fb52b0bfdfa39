//! Responses: a session answers its caller once, whichever invocation does it.

use pheromone_shm::message::{Extent, InputKey, NO_BUCKET};

use crate::event::{ExecutorId, Part, Response, Sink};
use crate::local::Local;
use crate::local::invocation::Invocation;
use crate::local::judge::Fault;
use crate::local::object::{NewObject, Object, Payload};
use crate::local::session::Session;
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
        let open = self.open(id, "Respond")?;
        self.judge_payload(id, extent, size_bytes)?;
        answer.judge()?;
        self.take_credit(id, extent)?;
        let Some(session) = self.answerable(open, sink) else {
            self.release_extent(id, extent, sink);
            return Ok(());
        };
        let body = self.create(&NewObject {
            app: id.app,
            session: self.sessions[session].id,
            payload: Payload {
                region: id.slot,
                extent,
                size_bytes,
                root: Ref::NONE,
            },
            bucket: NO_BUCKET,
            key: InputKey::Auto {
                invocation: self.invocations[open].id,
                ordinal: u32::MAX,
            },
            group: b"",
        });
        self.answer(open, session, &[body], answer, sink);
        self.drop_hold(body, sink);
        self.top_up(id, sink);
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
        let open = self.open(id, "RespondParts")?;
        answer.judge()?;
        let (indices, rest) = objects.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(Fault::PartList(objects.len()));
        }
        let most = self.apps[id.app].spec.limits.inputs;
        for &index in indices {
            let part = self.judge_object(open, u32::from_le_bytes(index))?;
            let parts = &mut self.invocations[open].parts;
            if parts.len() >= most as usize {
                return Err(Fault::Parts { most });
            }
            parts.push(part);
        }
        if more {
            return Ok(());
        }
        let parts = std::mem::take(&mut self.invocations[open].parts);
        if let Some(session) = self.answerable(open, sink) {
            self.answer(open, session, &parts, answer, sink);
        }
        Ok(())
    }

    /// The session that an invocation may answer; where it may not, that is an error event.
    fn answerable<S: Sink>(&mut self, open: Ref<Invocation>, sink: &mut S) -> Option<Ref<Session>> {
        let invocation = &self.invocations[open];
        let function = invocation.function;
        let session = self.session(invocation.session)?;
        let of = &self.sessions[session];
        let why = match (of.has_caller, of.answered_by) {
            (true, 0) => return Some(session),
            (true, _) => "responded, but the session had been answered before",
            (false, _) => "responded in a session without a caller",
        };
        let text = |local: &Self| {
            let app = &local.apps[local.sessions[session].app];
            format!("function `{}` {why}", app.function_name(function))
        };
        self.error_event(session, text, sink);
        None
    }

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
