//! What ties sessions together: one that a trigger has opened across sessions has those of its
//! inputs as parents, and a caller who waits for an answer waits while anything lives that its
//! objects went into.
//!
//! A session that somebody waits for sends tokens along with its objects (`level.rs`). They are
//! with the trigger while the object is pending, then with the session that its firing opens. That
//! session *carries* them: until it has ended, and beyond that until all tokens of its own have
//! come back, which it has sent along with its objects in the same way. So who waits is known
//! without any list of callers that would grow from stage to stage.
//!
//! An answer to a session at home elsewhere takes another way than the tokens, which go back from
//! stage to stage. So that they cannot arrive first and end the session unanswered, they stay until
//! the answer's arrival has been confirmed.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use crate::event::{AppId, Failure, SessionId, Sink};
use crate::level::{Addressed, Gathered, Outgoing, ToCoordinator, ToLocal, home};
use crate::local::app::App;
use crate::local::session::{End, Session};
use crate::local::{Local, Tables};
use crate::slab::Ref;

/// Where a gathering session comes from.
pub(super) struct Lineage {
    /// Sessions of its inputs, in order of first appearance.
    pub(super) parents: Vec<SessionId>,
    /// The same, to be found: each of many callers is answered by itself.
    known: HashSet<SessionId, RandomState>,
    /// The tokens that it carries, by parent; parents for whom nobody waits are not among them.
    carried: Vec<(SessionId, u64)>,
    /// Answers on their way to other homes: until they have arrived, what is carried stays.
    unconfirmed: u32,
    /// The failure with which it then goes back.
    failure: Option<Failure>,
}

/// Whether a session comes from another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ancestry {
    Yes,
    No,
    /// It comes from some that are at home elsewhere, and they may.
    Unknown,
}

impl Lineage {
    /// Of a firing with these inputs.
    pub(super) fn of(inputs: &[Gathered]) -> Self {
        let mut tokens = HashMap::<SessionId, u64, RandomState>::default();
        let mut parents = Vec::new();
        for input in inputs {
            let session = input.object.session;
            let of = tokens.entry(session).or_insert_with(|| {
                parents.push(session);
                0
            });
            *of += u64::from(input.has_token);
        }
        let with_tokens =
            |&session: &SessionId| Some((session, tokens[&session])).filter(|of| of.1 > 0);
        let carried = parents.iter().filter_map(with_tokens).collect();
        Self {
            known: tokens.into_keys().collect(),
            parents,
            carried,
            unconfirmed: 0,
            failure: None,
        }
    }

    /// Of a dead letter's further run: its parent is the session that it has failed in. The inputs'
    /// sessions are known as before, so that answers to them are no stranger's.
    pub(super) fn of_retry(
        parent: SessionId,
        contributors: impl Iterator<Item = SessionId>,
    ) -> Self {
        Self {
            parents: vec![parent],
            known: contributors.chain([parent]).collect(),
            carried: Vec::new(),
            unconfirmed: 0,
            failure: None,
        }
    }
}

impl Session {
    /// Its caller still waits for an answer.
    pub(super) fn is_unanswered(&self) -> bool {
        self.has_caller && self.answered_by == 0 && !self.ended
    }

    /// Somebody waits for it, or for one whose tokens it carries: its objects take tokens along.
    pub(super) fn is_awaited(&self) -> bool {
        let carries = |lineage: &Lineage| !lineage.carried.is_empty();
        self.is_unanswered() || self.lineage.as_deref().is_some_and(carries)
    }

    /// What its objects went into keeps it open.
    pub(super) fn is_held(&self) -> bool {
        self.tokens > 0 && self.is_unanswered()
    }

    /// It passes what it carries on, also after its end.
    pub(super) fn is_carrying(&self) -> bool {
        let carries = |lineage: &Lineage| {
            !lineage.carried.is_empty() && (self.tokens > 0 || lineage.unconfirmed > 0)
        };
        self.lineage.as_deref().is_some_and(carries)
    }

    /// Answers of its invocations that are on their way to other homes.
    pub(super) fn unconfirmed(&self) -> u32 {
        let lineage = self.lineage.as_deref();
        lineage.map_or(0, |lineage| lineage.unconfirmed)
    }

    /// An invocation of it has sent an answer to another home.
    pub(super) fn note_answer(&mut self) {
        if let Some(lineage) = &mut self.lineage {
            lineage.unconfirmed += 1;
        }
    }
}

impl Local {
    /// Tokens come back from what they went into, which has ended in this way.
    pub(super) fn returned<S: Sink>(
        &mut self,
        id: SessionId,
        tokens: u64,
        failure: Option<Failure>,
        sink: &mut S,
    ) {
        let Some(session) = self.tables.session_or_remains(id) else {
            return;
        };
        let of = &mut self.tables.sessions[session];
        debug_assert!(of.tokens >= tokens, "a token comes back once");
        of.tokens = of.tokens.saturating_sub(tokens);
        let app = of.app;
        if let Some(failure) = failure {
            if of.is_unanswered() {
                self.end_session(session, &End::Failed(failure), sink);
                return;
            }
            self.tables.return_carried(session, Some(&failure));
        }
        if self.tables.sessions[session].ended {
            self.tables.give_if_done(&mut self.apps[app], session);
            self.forget_if_empty(app, sink);
        } else {
            self.settle(session, sink);
        }
    }

    /// An answer of a session's invocation has arrived at another home.
    pub(super) fn confirmed<S: Sink>(&mut self, app: AppId, id: SessionId, sink: &mut S) {
        let Some(session) = self.tables.session_or_remains(id) else {
            return;
        };
        let of = &mut self.tables.sessions[session];
        let Some(lineage) = &mut of.lineage else {
            return;
        };
        debug_assert!(lineage.unconfirmed > 0, "an answer arrives once");
        lineage.unconfirmed = lineage.unconfirmed.saturating_sub(1);
        if lineage.unconfirmed == 0
            && let Some(failure) = lineage.failure.take()
        {
            self.tables.return_carried(session, Some(&failure));
        }
        if self.tables.sessions[session].ended {
            self.tables.give_if_done(&mut self.apps[app], session);
            self.forget_if_empty(app, sink);
        }
    }

    /// Whether nothing of an app's sessions here is going on but that objects are pending in
    /// triggers that gather across sessions.
    pub(crate) fn is_quiet(&self, app: AppId) -> bool {
        let sessions = &self.tables.sessions;
        let mut busy = sessions.refs().map(|session| &sessions[session]);
        !busy.any(|session| session.app == app && !session.ended && session.busy > 0)
    }
}

impl Tables {
    /// Gives back what a session carries: it has ended, or failed for this reason. What has failed
    /// waits for the answers that have been given before.
    pub(super) fn return_carried(&mut self, session: Ref<Session>, failure: Option<&Failure>) {
        let of = &mut self.sessions[session];
        let app = of.app;
        let Some(lineage) = &mut of.lineage else {
            return;
        };
        if let Some(failure) = failure
            && lineage.unconfirmed > 0
        {
            lineage.failure.get_or_insert_with(|| failure.clone());
            return;
        }
        #[cfg(feature = "planted-bugs")]
        if self.planted == Some(crate::planted::Planted::ContributorForgotten)
            && !lineage.carried.is_empty()
        {
            lineage.carried.remove(0);
        }
        for (parent, tokens) in std::mem::take(&mut lineage.carried) {
            self.outgoing.push_back(Outgoing {
                to: home(parent),
                message: Addressed::Local(ToLocal::Return {
                    app,
                    session: parent,
                    tokens,
                    failure: failure.cloned(),
                }),
            });
        }
    }

    /// A session has ended: whom else that concerns.
    pub(super) fn pass_end_on(&mut self, of: &App, ended: Ref<Session>, end: &End) {
        if let End::Failed(failure) = end {
            self.return_carried(ended, Some(failure));
        }
        let session = &mut self.sessions[ended];
        let (app, id) = (session.app, session.id);
        let withdraws = std::mem::take(&mut session.withdraws);
        if let End::Quiet = end {
            return;
        }
        for (trigger, bucket) in withdraws {
            self.outgoing.push_back(Outgoing {
                to: of.division.gatherer(bucket),
                message: Addressed::Coordinator(ToCoordinator::Withdraw {
                    app,
                    trigger,
                    session: id,
                }),
            });
        }
    }

    /// Whether a session of this id is among those that another one comes from.
    pub(super) fn ancestry(&self, ancestor: SessionId, of: Ref<Session>) -> Ancestry {
        let mut otherwise = Ancestry::No;
        let mut seen = HashSet::<SessionId, RandomState>::default();
        let mut next: SmallVec<[Ref<Session>; 8]> = SmallVec::from_slice(&[of]);
        while let Some(session) = next.pop() {
            let Some(lineage) = &self.sessions[session].lineage else {
                continue;
            };
            if lineage.known.contains(&ancestor) {
                return Ancestry::Yes;
            }
            for &parent in &lineage.parents {
                if home(parent) != self.scheduler_index {
                    otherwise = Ancestry::Unknown;
                } else if let Some(found) = self.session_or_remains(parent)
                    && self.sessions[found].lineage.is_some()
                    && seen.insert(parent)
                {
                    next.push(found);
                }
            }
        }
        otherwise
    }
}
