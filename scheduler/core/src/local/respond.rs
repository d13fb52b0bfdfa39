//! Answers: a session answers its caller once, whichever invocation does it, of the session itself
//! or of one that comes from it.

use pheromone_shm::message::{Extent, InputKey, NO_BUCKET, ToExecutor};

use crate::event::{Cause, ExecutorId, Failure, Part, Response, SessionId, Sink};
use crate::level::{Addressed, Answer, Outgoing, ToLocal, Verdict, home};
use crate::local::afterwards::Afterwards;
use crate::local::app::App;
use crate::local::durable::Root;
use crate::local::invocation::Invocation;
use crate::local::judge::Fault;
use crate::local::lineage::Ancestry;
use crate::local::object::{NewObject, Object, Payload};
use crate::local::session::{End, Session};
use crate::local::{Local, Tables};
use crate::slab::Ref;

/// What goes with a response's body.
#[derive(Clone, Copy)]
pub(super) struct Form<'a> {
    pub(super) http_status: u16,
    pub(super) content_type: &'a [u8],
}

/// Said of a function that answers faster than its answers arrive.
const TOO_MANY_ANSWERS: &str = "answered other sessions while as many answers of its session as \
                                `limits.inputs` allows were still on their way; this one is lost";

impl Form<'_> {
    fn judge(&self) -> Result<(), Fault> {
        if !(200..=599).contains(&self.http_status) {
            return Err(Fault::HttpStatus(self.http_status));
        }
        Ok(())
    }
}

/// Whom an invocation answers.
#[derive(Clone, Copy)]
enum Addressee {
    /// A session that is open here.
    Here(Ref<Session>),
    /// One at home elsewhere that its own comes from, or may come from.
    Elsewhere(Ancestry),
    /// One that has ended.
    Gone,
    /// One that it has nothing to do with.
    Stranger,
}

/// Who answers.
#[derive(Clone, Copy)]
struct Respondent {
    invocation: u64,
    /// Another attempt of it may have answered.
    may_repeat: bool,
    root: Ref<Root>,
}

/// Why an answer does not stand.
enum Unanswerable {
    /// The first answer stands, and an attempt that repeats it has done nothing wrong.
    Repeated,
    /// A sentence of which the function is the subject.
    Because(&'static str),
}

impl Local {
    pub(super) fn respond<S: Sink>(
        &mut self,
        id: ExecutorId,
        to: SessionId,
        (extent, size_bytes): (Extent, u64),
        form: Form<'_>,
        sink: &mut S,
    ) -> Result<(), Fault> {
        let app = &mut self.apps[id.app];
        let open = app.executor(id.slot).open("Respond")?;
        app.judge_payload(id.slot, extent, size_bytes)?;
        form.judge()?;
        app.take_credit(id.slot, extent)?;
        let invocation = &self.tables.invocations[open];
        let Some(own) = invocation.session.some() else {
            self.tables.release_extent(app, id.slot, extent, sink);
            return Ok(());
        };
        if app.has_too_many_objects(id.slot) {
            self.tables.release_extent(app, id.slot, extent, sink);
            self.fail_by_limit(open, own, id, sink);
            return Ok(());
        }
        let new = NewObject {
            session: self.tables.sessions[own].id,
            payload: Payload {
                region: id.slot,
                extent,
                size_bytes,
                root: Ref::NONE,
            },
            bucket: NO_BUCKET,
            key: InputKey::Auto {
                invocation: invocation.id,
                ordinal: u32::MAX,
            },
            group: b"",
            labelled: (0, 0),
        };
        let body = self.tables.create(app, &new);
        self.answer(open, own, to, &[body], form, sink);
        let app = &mut self.apps[id.app];
        self.tables.drop_hold(app, body, sink);
        app.top_up(id.slot, sink);
        Ok(())
    }

    pub(super) fn respond_parts<S: Sink>(
        &mut self,
        id: ExecutorId,
        objects: &[u8],
        more: bool,
        form: Form<'_>,
        sink: &mut S,
    ) -> Result<(), Fault> {
        let app = &mut self.apps[id.app];
        let open = app.executor(id.slot).open("RespondParts")?;
        form.judge()?;
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
        if let Some(own) = invocation.session.some() {
            self.answer(open, own, SessionId(0), &parts, form, sink);
        }
        Ok(())
    }

    /// `phr_fail_session`.
    pub(super) fn fail_session<S: Sink>(
        &mut self,
        id: ExecutorId,
        failed: SessionId,
        (status, message): (i32, &[u8]),
        sink: &mut S,
    ) -> Result<(), Fault> {
        let open = self.apps[id.app].executor(id.slot).open("FailSession")?;
        let invocation = &self.tables.invocations[open];
        let Some(own) = invocation.session.some() else {
            return Ok(());
        };
        let failure = Failure {
            function: Some(invocation.function),
            invocation: invocation.id,
            attempt: invocation.attempt,
            cause: Cause::Returned {
                status,
                message: String::from_utf8_lossy(message).into_owned(),
            },
            executor: Some(id),
        };
        match self.tables.addressee(own, failed) {
            Addressee::Here(session) => self.end_session(session, &End::Failed(failure), sink),
            Addressee::Elsewhere(_) if !self.may_send_answer(own) => {
                self.tell_unanswerable(open, own, TOO_MANY_ANSWERS, sink);
            }
            Addressee::Elsewhere(found) => {
                let verdict = Verdict::Fail(failure);
                self.tables.send_answer(open, own, (failed, found), verdict);
            }
            Addressee::Gone => self.apps[id.app].stats.answers_dropped_total += 1,
            Addressee::Stranger => self.tell_stranger(open, own, failed, sink),
        }
        Ok(())
    }

    /// `phr_parent`.
    pub(super) fn parent<S: Sink>(
        &mut self,
        id: ExecutorId,
        number: u32,
        sink: &mut S,
    ) -> Result<(), Fault> {
        let open = self.apps[id.app].executor(id.slot).open("Parent")?;
        let session = self.tables.invocations[open].session.some();
        let lineage = session.and_then(|own| self.tables.sessions[own].lineage.as_ref());
        let parents = lineage.map_or(&[][..], |lineage| &lineage.parents);
        let session = parents.get(number as usize).map_or(0, |parent| parent.0);
        let count = parents.len() as u32;
        sink.send(id, &ToExecutor::Parent { count, session });
        Ok(())
    }

    /// An invocation of the session `own` answers a session with these payloads.
    fn answer<S: Sink>(
        &mut self,
        open: Ref<Invocation>,
        own: Ref<Session>,
        to: SessionId,
        body: &[Ref<Object>],
        form: Form<'_>,
        sink: &mut S,
    ) {
        match self.tables.addressee(own, to) {
            Addressee::Here(session) => {
                let by = self.tables.respondent(open);
                match self.tables.answer(session, by, body, form, sink) {
                    Ok(()) | Err(Unanswerable::Repeated) => {}
                    Err(Unanswerable::Because(why)) => self.tell_unanswerable(open, own, why, sink),
                }
            }
            Addressee::Elsewhere(_) if !self.may_send_answer(own) => {
                self.tell_unanswerable(open, own, TOO_MANY_ANSWERS, sink);
            }
            Addressee::Elsewhere(found) => {
                for &part in body {
                    self.tables.objects.hold(part);
                }
                let verdict = Verdict::Respond {
                    http_status: form.http_status,
                    content_type: form.content_type.to_vec(),
                    parts: body
                        .iter()
                        .map(|&part| self.tables.describe(part))
                        .collect(),
                };
                self.tables.send_answer(open, own, (to, found), verdict);
            }
            Addressee::Gone => {
                let app = self.tables.sessions[own].app;
                self.apps[app].stats.answers_dropped_total += 1;
            }
            Addressee::Stranger => self.tell_stranger(open, own, to, sink),
        }
    }

    /// An invocation at home elsewhere answers a session of ours, or fails it. Where its home does
    /// not know whether it comes from the session, it has no proof but that somebody holds tokens
    /// of that.
    pub(super) fn answered_across<S: Sink>(&mut self, answer: Answer, sink: &mut S) {
        let Some(app) = self.apps.get_mut(answer.app) else {
            self.tables.give_parts_back(&answer);
            return;
        };
        let found = self.tables.session(answer.session);
        let is_right = |session: &Ref<Session>| {
            let session = &self.tables.sessions[*session];
            session.app == answer.app && (answer.is_of_descendant || session.tokens > 0)
        };
        let Some(session) = found.filter(is_right) else {
            app.stats.answers_dropped_total += 1;
            self.tables.give_parts_back(&answer);
            return;
        };
        let (http_status, content_type, parts) = match answer.verdict {
            Verdict::Fail(failure) => {
                return self.end_session(session, &End::Failed(failure), sink);
            }
            Verdict::Respond {
                http_status,
                content_type,
                parts,
            } => (http_status, content_type, parts),
        };
        let body: Vec<Ref<Object>> = parts
            .iter()
            .filter_map(|part| self.tables.receive(app, part))
            .collect();
        let by = Respondent {
            invocation: answer.invocation,
            may_repeat: answer.may_repeat,
            root: Ref::NONE,
        };
        let form = Form {
            http_status,
            content_type: &content_type,
        };
        let answered = self.tables.answer(session, by, &body, form, sink);
        if let Err(Unanswerable::Because(why)) = answered {
            let function = answer.function;
            let text =
                |_: &Tables, app: &App| format!("function `{}` {why}", app.function_name(function));
            self.error_event(session, text, sink);
        }
        let app = &mut self.apps[answer.app];
        for part in body {
            self.tables.drop_hold(app, part, sink);
        }
    }

    /// Whether a session may send another answer to another home: what has not arrived waits in a
    /// sender's memory.
    fn may_send_answer(&self, own: Ref<Session>) -> bool {
        let session = &self.tables.sessions[own];
        session.unconfirmed() < self.apps[session.app].spec.limits.inputs
    }

    fn tell_unanswerable<S: Sink>(
        &mut self,
        open: Ref<Invocation>,
        own: Ref<Session>,
        why: &str,
        sink: &mut S,
    ) {
        let function = self.tables.invocations[open].function;
        let text =
            |_: &Tables, app: &App| format!("function `{}` {why}", app.function_name(function));
        self.error_event(own, text, sink);
    }

    fn tell_stranger<S: Sink>(
        &mut self,
        open: Ref<Invocation>,
        own: Ref<Session>,
        to: SessionId,
        sink: &mut S,
    ) {
        let why = format!(
            "answered session {}, which is neither its own nor one that its own comes from",
            to.0
        );
        self.tell_unanswerable(open, own, &why, sink);
    }
}

impl Tables {
    /// The session that an invocation of `own` means by this id; 0 is its own.
    fn addressee(&self, own: Ref<Session>, to: SessionId) -> Addressee {
        if to.0 == 0 || to == self.sessions[own].id {
            return Addressee::Here(own);
        }
        let is_here = home(to) == self.scheduler_index;
        match self.session(to) {
            Some(session) if self.sessions[session].app != self.sessions[own].app => {
                Addressee::Stranger
            }
            Some(session) => match self.ancestry(to, own) {
                Ancestry::Yes => Addressee::Here(session),
                Ancestry::Unknown if self.sessions[session].tokens > 0 => Addressee::Here(session),
                Ancestry::Unknown | Ancestry::No => Addressee::Stranger,
            },
            None if is_here || home(to) >= self.schedulers => Addressee::Gone,
            None => match self.ancestry(to, own) {
                Ancestry::No => Addressee::Stranger,
                found => Addressee::Elsewhere(found),
            },
        }
    }

    fn respondent(&self, open: Ref<Invocation>) -> Respondent {
        Respondent {
            invocation: self.invocations[open].id,
            may_repeat: self.has_several_attempts(open),
            root: self.invocations[open].root,
        }
    }

    /// An invocation of `own` answers a session at home elsewhere.
    fn send_answer(
        &mut self,
        open: Ref<Invocation>,
        own: Ref<Session>,
        (to, ancestry): (SessionId, Ancestry),
        verdict: Verdict,
    ) {
        let invocation = &self.invocations[open];
        let answer = Answer {
            app: self.sessions[own].app,
            session: to,
            from: self.sessions[own].id,
            is_of_descendant: ancestry == Ancestry::Yes,
            invocation: invocation.id,
            may_repeat: self.has_several_attempts(open),
            function: invocation.function,
            verdict,
        };
        self.sessions[own].note_answer();
        self.outgoing.push_back(Outgoing {
            to: home(to),
            message: Addressed::Local(ToLocal::Answer(Box::new(answer))),
        });
    }

    /// The payloads of an answer that nobody takes go back to their homes.
    fn give_parts_back(&mut self, answer: &Answer) {
        if let Verdict::Respond { parts, .. } = &answer.verdict {
            for part in parts {
                self.release_at_home(answer.app, part.id, SessionId(0), 0);
            }
        }
    }

    /// Answers a session's caller with these payloads, which are held until they have been read.
    fn answer<S: Sink>(
        &mut self,
        session: Ref<Session>,
        by: Respondent,
        body: &[Ref<Object>],
        form: Form<'_>,
        sink: &mut S,
    ) -> Result<(), Unanswerable> {
        let of = &mut self.sessions[session];
        let is_restored = of.durable.as_ref().is_some_and(|it| it.is_restored);
        match (of.has_caller, of.answered_by) {
            (true, 0) => {}
            (true, first) if first == by.invocation && (by.may_repeat || is_restored) => {
                return Err(Unanswerable::Repeated);
            }
            (true, _) => {
                let why = "responded, but the session had been answered before";
                return Err(Unanswerable::Because(why));
            }
            (false, _) => {
                let why = "responded in a session without a caller";
                return Err(Unanswerable::Because(why));
            }
        }
        of.answered_by = by.invocation;
        of.response_root = by.root;
        if of.busy == 0 {
            // It was open for this answer alone.
            let session = of.id;
            self.afterwards.push_back(Afterwards::Settle { session });
        }
        self.root_begins(by.root);
        self.give_response(session, body, form, sink);
        Ok(())
    }

    /// Gives a session's caller these payloads.
    pub(super) fn give_response<S: Sink>(
        &mut self,
        session: Ref<Session>,
        body: &[Ref<Object>],
        form: Form<'_>,
        sink: &mut S,
    ) {
        let of = &mut self.sessions[session];
        let mut parts = std::mem::take(&mut self.scratch.parts);
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
            http_status: form.http_status,
            content_type: form.content_type,
            parts: &parts,
            by: of.answered_by,
        });
        parts.clear();
        parts.shrink_to(crate::limits::BUFFER_ENTRIES_KEPT);
        self.scratch.parts = parts;
    }
}
