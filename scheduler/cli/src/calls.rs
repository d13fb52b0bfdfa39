//! Calls to an embedded node: so many at once, from the first to the end of the last, whatever
//! becomes of each.
//!
//! A call's replies arrive as messages from the node's thread; that the node has dropped the call
//! is a message too, always the last one. A million calls one after another need the memory of one.

use std::collections::VecDeque;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, never, select, unbounded};
use indicatif::ProgressBar;
use pheromone_node::{Node, Outcome, RefusalReason, Reply, Request, To};

use crate::exit::{Failure, Status};
use crate::responses::Responses;
use crate::terminal;

/// Failures told one by one; the rest is counted.
const FAILURES_TOLD: u64 = 20;
/// How long cancelled sessions may take to end before the node is stopped under them.
const CANCEL_WAIT: Duration = Duration::from_secs(5);

/// Something to be called, once or many times.
#[derive(Clone, Debug)]
pub struct Job {
    /// What it is, in messages and file names: the input's file, or nothing.
    pub name: String,
    /// Where it goes.
    pub to: To,
    /// What it brings.
    pub body: Vec<u8>,
    /// Headers for its functions to look up.
    pub headers: Vec<(String, String)>,
}

/// How the calls are made.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How often each job is called.
    pub repeat: u64,
    /// Calls open at once.
    pub inflight: usize,
    /// Of each call.
    pub timeout: Option<Duration>,
}

/// From the node's thread: what becomes of the call in a slot.
enum Message {
    Reply(usize, Reply),
    /// Nothing more comes.
    Gone(usize),
}

/// Tells that the call is over when the node drops it.
struct Teller {
    slot: usize,
    tell: Sender<Message>,
}

impl Drop for Teller {
    fn drop(&mut self) {
        // Nobody listens once the calls have been given up.
        let _ = self.tell.send(Message::Gone(self.slot));
    }
}

/// A call under way.
#[derive(Debug)]
struct Open {
    number: u64,
    session: Option<u64>,
    /// Its end has been told.
    is_over: bool,
    /// It was refused for now and is to be made again.
    is_refused: bool,
}

/// All calls of a command.
pub struct Calls<'a> {
    node: &'a Node,
    app: &'a str,
    jobs: Vec<Job>,
    pace: Pace,
    responses: &'a mut Responses,
    progress: &'a ProgressBar,
    /// Calls open at once; less than asked for where the node has refused for now.
    inflight: usize,
    next: u64,
    again: VecDeque<u64>,
    open: Vec<Option<Open>>,
    free: Vec<usize>,
    stopping: bool,
    /// The node knows that there are no more calls to come.
    has_told_last: bool,
    status: Status,
    failures: u64,
    tell: Sender<Message>,
    hear: Receiver<Message>,
}

impl<'a> Calls<'a> {
    /// Calls that have not begun.
    pub fn new(
        node: &'a Node,
        app: &'a str,
        jobs: Vec<Job>,
        pace: Pace,
        responses: &'a mut Responses,
        progress: &'a ProgressBar,
    ) -> Self {
        let (tell, hear) = unbounded();
        Self {
            node,
            app,
            jobs,
            pace,
            responses,
            progress,
            inflight: pace.inflight,
            next: 0,
            again: VecDeque::new(),
            open: Vec::new(),
            free: Vec::new(),
            stopping: false,
            has_told_last: false,
            status: Status::Success,
            failures: 0,
            tell,
            hear,
        }
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.jobs.len() as u64 * self.pace.repeat
    }

    /// Makes them all and waits for the end of each; the worst of them is the status. A signal
    /// cancels what is open and ends the rest.
    pub fn make(mut self, signals: &Receiver<Status>) -> Result<Status, Failure> {
        let mut given_up = never();
        let hear = self.hear.clone();
        loop {
            self.fill();
            if self.free.len() == self.open.len() {
                break;
            }
            select! {
                recv(hear) -> message => if let Ok(message) = message {
                    self.take(message)?;
                },
                recv(signals) -> signal => if let Ok(signal) = signal {
                    self.status.worsen(signal);
                    self.cancel_all();
                    given_up = after(CANCEL_WAIT);
                },
                recv(given_up) -> _ => break,
            }
        }
        if self.failures > FAILURES_TOLD {
            let rest = self.failures - FAILURES_TOLD;
            terminal::warn(&format!("{rest} more calls have failed"));
        }
        Ok(self.status)
    }

    /// Makes calls until as many are open as may be.
    fn fill(&mut self) {
        while !self.stopping && self.open.len() - self.free.len() < self.inflight {
            let number = match self.again.pop_front() {
                Some(number) => number,
                None if self.next < self.total() => {
                    self.next += 1;
                    self.next - 1
                }
                None => break,
            };
            self.submit(number);
        }
        if self.next == self.total() && self.again.is_empty() && !self.has_told_last {
            self.has_told_last = true;
            self.node.flush(self.app);
        }
    }

    fn submit(&mut self, number: u64) {
        let call = Open {
            number,
            session: None,
            is_over: false,
            is_refused: false,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.open.push(None);
            self.open.len() - 1
        });
        self.open[slot] = Some(call);
        let (job, is_last) = self.job_of(number);
        let job = &mut self.jobs[job];
        let body = if is_last {
            std::mem::take(&mut job.body)
        } else {
            job.body.clone()
        };
        let request = Request {
            app: self.app.to_owned(),
            to: job.to.clone(),
            body,
            headers: job.headers.clone(),
            session: None,
            wait: true,
            timeout: self.pace.timeout,
        };
        let teller = Teller {
            slot,
            tell: self.tell.clone(),
        };
        self.node.submit(
            request,
            Box::new(move |reply| {
                // Nobody listens once the calls have been given up.
                let _ = teller.tell.send(Message::Reply(teller.slot, reply));
            }),
        );
    }

    /// Which job a call is of, and whether it is that job's only one: then its body is given away
    /// instead of copied. (A call that is refused for now must keep it.)
    fn job_of(&self, number: u64) -> (usize, bool) {
        let job = (number % self.jobs.len() as u64) as usize;
        (job, self.total() == 1)
    }

    fn take(&mut self, message: Message) -> Result<(), Failure> {
        match message {
            Message::Reply(slot, reply) => self.take_reply(slot, reply),
            Message::Gone(slot) => {
                self.take_end(slot);
                Ok(())
            }
        }
    }

    fn take_reply(&mut self, slot: usize, reply: Reply) -> Result<(), Failure> {
        let others = self.open.len() - self.free.len() - 1;
        let Some(call) = self.open[slot].as_mut() else {
            return Ok(());
        };
        match reply {
            Reply::Accepted { session } => {
                call.session = Some(session);
                if self.stopping {
                    self.node.cancel(session);
                }
            }
            Reply::Response { body, .. } => {
                let job = (call.number % self.jobs.len() as u64) as usize;
                let name = &self.jobs[job].name;
                let is_first = call.number < self.jobs.len() as u64;
                self.responses.take(call.number, name, is_first, body)?;
            }
            Reply::Refused(reason) if reason.is_temporary() && others > 0 => {
                call.is_refused = true;
            }
            Reply::Refused(reason) => {
                call.is_over = true;
                let number = call.number;
                if matches!(reason, RefusalReason::Unusable { .. }) {
                    self.stopping = true;
                }
                self.fail(number, Status::of_refusal(&reason), &reason.to_string());
            }
            Reply::Ended { outcome, .. } => {
                call.is_over = true;
                let number = call.number;
                self.judge(number, outcome);
            }
        }
        Ok(())
    }

    fn judge(&mut self, number: u64, outcome: Outcome) {
        let status = Status::of_outcome(&outcome);
        match outcome {
            Outcome::Responded | Outcome::Completed => {}
            // What the person at the keyboard has asked for is no failure to be told.
            Outcome::Cancelled if self.stopping => self.status.worsen(status),
            Outcome::Cancelled => self.fail(number, status, "the session was cancelled"),
            Outcome::TimedOut => self.fail(number, status, "the session's deadline has passed"),
            Outcome::Failed(report) => self.fail(number, status, &report.to_string()),
        }
    }

    /// The node has dropped a call: its slot is free again.
    fn take_end(&mut self, slot: usize) {
        let Some(call) = self.open[slot].take() else {
            return;
        };
        self.free.push(slot);
        if call.is_refused && !self.stopping {
            // Fewer at once from here on, so that the refusals end.
            let others = self.open.len() - self.free.len();
            self.inflight = self.inflight.min(others).max(1);
            self.again.push_back(call.number);
            return;
        }
        if !call.is_over && !self.stopping {
            self.fail(call.number, Status::Failed, "the node has dropped the call");
        }
        self.progress.inc(1);
    }

    fn fail(&mut self, number: u64, status: Status, reason: &str) {
        self.status.worsen(status);
        self.failures += 1;
        if self.failures > FAILURES_TOLD {
            return;
        }
        let job = &self.jobs[(number % self.jobs.len() as u64) as usize];
        let which = match (self.total(), job.name.as_str()) {
            (1, _) => String::new(),
            (_, "") => format!("call {}: ", number + 1),
            (_, name) => format!("call {} ({name}): ", number + 1),
        };
        self.progress
            .suspend(|| Failure::failed(format!("{which}{reason}")).tell());
    }

    fn cancel_all(&mut self) {
        self.stopping = true;
        for call in self.open.iter().flatten() {
            if let (Some(session), false) = (call.session, call.is_over) {
                self.node.cancel(session);
            }
        }
    }
}
