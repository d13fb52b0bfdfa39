//! Ends of sessions: told after their responses, and with the last lines of an executor at fault.

use pheromone_core::event::Failure;
use pheromone_scheduler::protocol::OutcomeMessage;

use super::Gateway;
use crate::output::OutputKind;
use crate::request::{FailureReport, Outcome, Reply};
use crate::supervisor::Order;

/// The end of a session, as the scheduler tells it.
pub(super) struct End {
    pub(super) app: u16,
    pub(super) session: u64,
    pub(super) outcome: OutcomeMessage,
    pub(super) answered: bool,
}

#[derive(Clone)]
pub(super) struct Ended {
    pub(super) session: u64,
    pub(super) outcome: Outcome,
    pub(super) answered: bool,
}

impl Gateway {
    pub(super) fn ended(&mut self, request: u64, end: End) {
        let End {
            app,
            session,
            outcome,
            answered,
        } = end;
        let mut tail = None;
        let outcome = match outcome {
            OutcomeMessage::Responded => Outcome::Responded,
            OutcomeMessage::Completed => Outcome::Completed,
            OutcomeMessage::TimedOut => Outcome::TimedOut,
            OutcomeMessage::Cancelled => Outcome::Cancelled,
            OutcomeMessage::Failed(failure) => {
                tail = failure
                    .executor
                    .map(|executor| (executor.slot, failure.invocation));
                Outcome::Failed(self.report(app, failure))
            }
        };
        let mut requests = self.joined.remove(&session).unwrap_or_default();
        if self.pending.contains_key(&request) {
            requests.push(request);
        } else if let Outcome::Failed(report) = &outcome {
            // Nobody waits for it: a gathering session, say. It must not fail in silence.
            let text = format!("session {session} failed: {report}");
            self.event(app, session, OutputKind::Notice, text);
        }
        let ended = Ended {
            session,
            outcome,
            answered,
        };
        for request in requests {
            if let Some(pending) = self.pending.get_mut(&request) {
                pending.ended = Some(Box::new(ended.clone()));
            }
            match tail {
                Some((slot, invocation)) => self.supervisor.tell(Order::Tail {
                    app,
                    slot,
                    invocation,
                    request,
                }),
                None => self.finish_with(request, Vec::new()),
            }
        }
        self.look_at_retiring(app);
    }

    pub(super) fn report(&self, app: u16, failure: Failure) -> FailureReport {
        match self.apps.get(&app) {
            Some(gate) => {
                let (name, functions) = (gate.version.name(), &gate.version.function_names);
                FailureReport::new(name, failure, functions, Vec::new())
            }
            None => FailureReport::new("", failure, &[], Vec::new()),
        }
    }

    /// Tells a request's end, with the last lines of the executor at fault.
    pub(super) fn finish_with(&mut self, request: u64, lines: Vec<String>) {
        let Some(pending) = self.pending.get_mut(&request) else {
            return;
        };
        let Some(mut ended) = pending.ended.take() else {
            return;
        };
        if let Some(cause) = pending.spoilt.take() {
            let app = self.apps.get(&pending.app).map(|gate| gate.version.name());
            ended.outcome = Outcome::Failed(FailureReport {
                cause: *cause,
                ..FailureReport::of_node(app.unwrap_or_default(), String::new())
            });
            ended.answered = false;
        } else if let Outcome::Failed(report) = &mut ended.outcome {
            report.output.extend(lines);
        }
        if let Some(outcome) = self.stopping_outcome(request, &ended.outcome) {
            ended.outcome = outcome;
        } else if self.write_end(request, &ended) {
            if let Some(pending) = self.pending.get_mut(&request) {
                pending.ended = Some(ended);
            }
            return;
        }
        let Some(pending) = self.pending.get_mut(&request) else {
            return;
        };
        (pending.reply)(Reply::Ended {
            session: ended.session,
            outcome: ended.outcome,
            answered: ended.answered,
        });
        self.done(request);
    }
}
