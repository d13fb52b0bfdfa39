//! What a step leaves to be done at its end: what concerns other invocations or whole sessions, and
//! would pull the ground from under whoever finds that it is due.

use crate::event::{AppId, ExecutorId, Failure, SessionId, Sink, Ticket};
use crate::local::invocation::{Invocation, Place};
use crate::local::session::{End, Session};
use crate::local::{Local, Tables};
use crate::slab::Ref;

/// Something to be done.
pub(super) enum Afterwards {
    /// A session has passed a limit.
    Fail {
        /// Which.
        session: SessionId,
        /// Why.
        failure: Failure,
    },
    /// Somebody who waits for an object has it, and may go on.
    Resume {
        /// Whose.
        app: AppId,
    },
    /// A session has been answered that was open for nothing else.
    Settle {
        /// Which.
        session: SessionId,
    },
    /// A round has fired: what else works for it is cancelled.
    CancelRest {
        /// Whose.
        session: SessionId,
        /// Whose `cancel_rest`.
        trigger: u16,
        /// The round; empty: all invocations of those functions.
        group: Box<[u8]>,
    },
    /// There may be something to tell a custom trigger.
    Tell {
        /// Whose.
        app: AppId,
        /// Which of its custom triggers.
        custom: usize,
    },
    /// A firing of a durable session is to be recorded.
    Record(Ticket),
    /// Nothing of what came of a root is in memory alone any more.
    Succeeded {
        /// Whose.
        session: SessionId,
        /// The root's.
        invocation: u64,
    },
    /// Something of this app can start that could not before.
    Dispatch(AppId),
}

impl Tables {
    /// Whether a session has passed a limit in this step, and fails at its end.
    pub(super) fn is_failing(&self, session: Ref<Session>) -> bool {
        let id = self.sessions[session].id;
        let fails =
            |task: &Afterwards| matches!(task, Afterwards::Fail { session, .. } if *session == id);
        self.afterwards.iter().any(fails)
    }
}

impl Local {
    /// Does what has been left, and what that leaves.
    #[cold]
    pub(super) fn do_afterwards<S: Sink>(&mut self, sink: &mut S) {
        while let Some(task) = self.tables.afterwards.pop_front() {
            match task {
                Afterwards::Fail { session, failure } => {
                    if let Some(session) = self.tables.session(session) {
                        self.end_session(session, &End::Failed(failure), sink);
                    }
                }
                Afterwards::Resume { app } => {
                    if self.apps.get(app).is_some() {
                        self.resume_waiting(app, sink);
                    }
                }
                Afterwards::Settle { session } => {
                    if let Some(session) = self.tables.session(session) {
                        self.settle(session, sink);
                    }
                }
                Afterwards::CancelRest {
                    session,
                    trigger,
                    group,
                } => {
                    if let Some(session) = self.tables.session(session) {
                        self.cancel_round(session, trigger, &group, sink);
                    }
                }
                Afterwards::Tell { app, custom } => self.tell_custom(app, custom, sink),
                Afterwards::Record(ticket) => self.record(ticket, sink),
                Afterwards::Succeeded {
                    session,
                    invocation,
                } => {
                    // An end that is recorded says the same.
                    if let Some(found) = self.tables.session(session) {
                        let app = self.tables.sessions[found].app;
                        sink.record_success(app, session, invocation);
                    }
                }
                Afterwards::Dispatch(app) => {
                    if self.apps.get(app).is_some() {
                        self.dispatch_ready(app, sink);
                    }
                }
            }
        }
    }

    fn cancel_round<S: Sink>(
        &mut self,
        session: Ref<Session>,
        trigger: u16,
        group: &[u8],
        sink: &mut S,
    ) {
        let app = self.tables.sessions[session].app;
        let functions = &self.apps[app].plan.triggers[usize::from(trigger)].cancel_rest;
        let is_of_round = |&invocation: &Ref<Invocation>| {
            let invocation = &self.tables.invocations[invocation];
            let first = invocation
                .held
                .first()
                .filter(|_| invocation.input_count > 0);
            functions.contains(&invocation.function)
                && (group.is_empty()
                    || first
                        .is_some_and(|&first| self.tables.objects[first].input().group == group))
        };
        let cancelled: Vec<Ref<Invocation>> = self
            .tables
            .invocations_of(session)
            .filter(is_of_round)
            .collect();
        for invocation in cancelled {
            self.cancel_invocation(invocation, sink);
        }
        self.dispatch_ready(app, sink);
        self.settle(session, sink);
    }

    /// Ends an invocation that nobody wants any more, without a failure: at once, or when it
    /// returns.
    pub(super) fn cancel_invocation<S: Sink>(&mut self, cancelled: Ref<Invocation>, sink: &mut S) {
        let Some(session) = self.tables.invocations[cancelled].session.some() else {
            return;
        };
        let id = self.tables.sessions[session].app;
        let app = &mut self.apps[id];
        self.tables.leave_session(app, cancelled);
        match self.tables.invocations[cancelled].place {
            Place::Queued => {
                self.tables.unqueue(app, cancelled);
                self.tables.pass_place_later(app, cancelled);
                self.tables.finish(app, cancelled, sink);
            }
            Place::Recording => self.tables.finish(app, cancelled, sink),
            Place::InLine => {
                self.tables.leave_line(app, cancelled);
                self.tables.finish(app, cancelled, sink);
            }
            Place::Backoff(mut timer) => {
                self.tables.timers.cancel(&mut timer);
                self.tables.pass_place_later(app, cancelled);
                self.tables.finish(app, cancelled, sink);
            }
            Place::Resting => {
                self.tables.pass_place_later(app, cancelled);
                self.tables.finish(app, cancelled, sink);
            }
            Place::Offered(slot) => {
                // Where it is too late it runs for nobody.
                let invocation = self.tables.invocations[cancelled].id;
                if sink.withdraw(ExecutorId { app: id, slot }, invocation) {
                    app.forget_offer(slot);
                    self.tables.finish(app, cancelled, sink);
                }
            }
            Place::Running(slot) => self.cancel_running(ExecutorId { app: id, slot }, sink),
        }
    }
}
