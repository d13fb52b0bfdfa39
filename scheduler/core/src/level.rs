//! What the two levels say to each other, and local schedulers among themselves: plain values, so
//! that sender and receiver may lie in different processes.
//!
//! A session, its objects and its invocations have a *home*, the local scheduler whose number is in
//! their ids. A bucket has an *owner*, the coordinator that gathers its objects across sessions.
//! Messages from one level of one scheduler to one of another arrive in the order sent; between
//! other pairs there is no order, and nothing here relies on one.
//!
//! What is given away is given by weight (Bevan 1987, Watson and Watson 1987): an object that is
//! offered carries [`WEIGHT`] of its holds with it, each firing takes one of them along, and what
//! is left comes back when the trigger lets go. So nobody has to ask an object's home before
//! passing it on, and a hold that is on its way counts. Tokens, which keep the sessions of waiting
//! callers open, travel in the same way.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::event::{AppId, Failure, SessionId};
use crate::gather::outcome::{Complaint, Window};
use crate::limits::SESSION_SLOT_BITS;

/// Holds of an object, and tokens of its session, that one offer gives away: more than the firings
/// that one object can be in, [`WINDOWS_MAX`](crate::limits::WINDOWS_MAX) and one for what is left.
pub(crate) const WEIGHT: u32 = 2 * crate::limits::WINDOWS_MAX as u32;

/// Bits of a session id below its home.
const HOME_SHIFT: u32 = 32 + SESSION_SLOT_BITS;

/// The scheduler at which a session is at home.
pub(crate) fn home(session: SessionId) -> u8 {
    (session.0 >> HOME_SHIFT) as u8
}

/// Names an object over all schedulers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ObjectId {
    pub(crate) home: u8,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// An object, described for those who do not have it in their tables.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Description {
    pub(crate) id: ObjectId,
    pub(crate) session: SessionId,
    pub(crate) bucket: u16,
    pub(crate) region: u16,
    pub(crate) offset_units: u32,
    pub(crate) len_units: u32,
    pub(crate) size_bytes: u64,
    pub(crate) arrival_ns: u64,
    /// Invocation and ordinal of an automatic key, where `key_bytes` is 0.
    pub(crate) automatic: (u64, u32),
    /// Bytes of `text` that are the key; the rest is the group.
    pub(crate) key_bytes: u8,
    pub(crate) text: SmallVec<[u8; 32]>,
}

impl Description {
    pub(crate) fn group(&self) -> &[u8] {
        &self.text[usize::from(self.key_bytes)..]
    }
}

/// An input of a firing, with one hold of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Gathered {
    pub(crate) object: Description,
    /// A token of its session comes with it.
    pub(crate) has_token: bool,
}

/// To a coordinator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum ToCoordinator {
    /// Work of this app has waited `forward_delay` at this scheduler, and no executor there sleeps.
    Overflow { app: AppId, at: u8 },
    /// An object for the triggers of its bucket that gather across sessions, with [`WEIGHT`] of its
    /// holds for each. One message, so that what the first of them fires cannot send anything to
    /// the others that comes before it.
    Offer {
        app: AppId,
        triggers: SmallVec<[u16; 2]>,
        object: Description,
        /// As many tokens of its session come with it.
        has_tokens: bool,
    },
    /// A session has ended early: this trigger is to leave its objects out.
    Withdraw {
        app: AppId,
        trigger: u16,
        session: SessionId,
    },
}

/// What one home of an app could use of what the others have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wants {
    /// Executor slots.
    pub(crate) executors: u16,
    /// So many of them it has had, and given away: they are due to it.
    pub(crate) due: u16,
    /// Memory.
    pub(crate) bytes: u64,
}

/// What one home of an app gives another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Gift {
    /// An executor slot without a process, with what lives in its region.
    Slot {
        slot: u16,
        /// So many processes more are to be kept: one, or none.
        min: u16,
        /// Names this stay of the region with the receiver, over all schedulers.
        stay: u64,
        /// Offsets and lengths in units, in order and disjoint.
        lodgers: Vec<(u32, u32)>,
    },
    /// Memory that it may grant from now on.
    Memory { bytes: u64 },
    /// That is all for now: a `Want` has been looked at.
    Answer,
}

/// To a local scheduler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum ToLocal {
    /// Work of this app waits, and is yours to place: start another process.
    Grow { app: AppId },
    /// From now on this home wants so much. Answered by what there is, and [`Gift::Answer`].
    Want { app: AppId, from: u8, wants: Wants },
    /// This is yours from now on.
    Give { app: AppId, gift: Gift },
    /// What lodges at this offset, in this stay of a region, is no longer needed.
    Free { app: AppId, stay: u64, offset: u32 },
    /// A trigger has fired: open a session for it.
    Gather {
        app: AppId,
        trigger: u16,
        window: Option<Window>,
        inputs: Vec<Gathered>,
    },
    /// So many holds of an object end, and so many tokens of its session come back.
    Release {
        app: AppId,
        object: ObjectId,
        holds: u32,
        session: SessionId,
        tokens: u32,
    },
    /// So many tokens of a session come back: what they went into has ended, in this way.
    Return {
        app: AppId,
        session: SessionId,
        tokens: u64,
        /// It has failed, and so do the callers that wait for it.
        failure: Option<Failure>,
    },
    /// There is something to say about an object.
    Complain {
        app: AppId,
        object: Description,
        complaint: Complaint,
    },
    /// An invocation at another home answers a session, or fails it.
    Answer(Box<Answer>),
    /// An answer of an invocation of this session has arrived.
    Confirm { app: AppId, session: SessionId },
}

/// What an invocation at home elsewhere says to a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) app: AppId,
    pub(crate) session: SessionId,
    /// The session of the invocation, which is told of its arrival.
    pub(crate) from: SessionId,
    /// That comes from the session which is answered, as its home knows.
    pub(crate) is_of_descendant: bool,
    /// Who says it, and whether another attempt of it may have said it before.
    pub(crate) invocation: u64,
    pub(crate) may_repeat: bool,
    pub(crate) function: u16,
    pub(crate) verdict: Verdict,
}

/// An answer, or a failure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Verdict {
    /// The caller is answered.
    Respond {
        http_status: u16,
        content_type: Vec<u8>,
        /// One hold of each comes with it.
        parts: Vec<Description>,
    },
    /// The session fails.
    Fail(Failure),
}

/// A message to a level of another scheduler. Whoever carries it does not look into it, keeps the
/// order of those from one scheduler to another, and loses none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerMessage(pub(crate) Addressed);

/// What it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Addressed {
    Local(ToLocal),
    Coordinator(ToCoordinator),
}

/// On its way to this scheduler.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) to: u8,
    pub(crate) message: Addressed,
}
