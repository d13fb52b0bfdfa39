//! What one trigger gathers across sessions, and the objects that it holds for that.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::event::SessionId;
use crate::gather::{Gatherer, Rule};
use crate::level::{Description, Gathered};
use crate::slab::Ref;
use crate::spec::TriggerSpec;
use crate::timer::TimerId;

/// A trigger's state.
pub(super) struct Gathering {
    pub(super) gatherer: Gatherer<Ref<Proxy>>,
    pub(super) timer: TimerId,
    /// When that fires.
    pub(super) due_ns: Option<u64>,
    /// Whose objects it holds, where those of sessions that end early are left out.
    contributors: Option<HashMap<SessionId, Contributor, RandomState>>,
}

/// A session with objects in a trigger.
#[derive(Default)]
struct Contributor {
    objects: u32,
    has_ended: bool,
}

/// An object that a trigger holds, at home elsewhere.
#[derive(Default)]
pub(super) struct Proxy {
    pub(super) object: Option<Description>,
    /// Holds of it, and tokens of its session, that are here.
    pub(super) holds: u32,
    pub(super) tokens: u32,
}

impl Proxy {
    pub(super) fn object(&self) -> &Description {
        self.object
            .as_ref()
            .expect("a proxy in use describes an object")
    }

    /// As an input of a firing, one hold and one token of those that are here going with it.
    pub(super) fn take_along(&mut self) -> Gathered {
        let has_token = self.tokens > 0;
        self.holds -= 1;
        self.tokens -= u32::from(has_token);
        Gathered {
            object: self.object().clone(),
            has_token,
        }
    }
}

impl Gathering {
    pub(super) fn new(trigger: &TriggerSpec, rule: &Rule, now_ns: u64) -> Self {
        Self {
            gatherer: Gatherer::new(rule, now_ns),
            timer: TimerId::NONE,
            due_ns: None,
            contributors: trigger.skip_ended.then(HashMap::default),
        }
    }

    /// The trigger takes an object of this session.
    pub(super) fn note(&mut self, session: SessionId) {
        if let Some(contributors) = &mut self.contributors {
            contributors.entry(session).or_default().objects += 1;
        }
    }

    /// It lets go of one.
    pub(super) fn forget(&mut self, session: SessionId) {
        let contributors = self.contributors.as_mut();
        if let Some(contributors) = contributors
            && let Some(contributor) = contributors.get_mut(&session)
        {
            contributor.objects -= 1;
            if contributor.objects == 0 {
                contributors.remove(&session);
            }
        }
    }

    /// A session has ended early.
    pub(super) fn withdraw(&mut self, session: SessionId) {
        let contributors = self.contributors.as_mut();
        if let Some(contributor) = contributors.and_then(|all| all.get_mut(&session)) {
            contributor.has_ended = true;
        }
    }

    /// Whether a session's objects are left out.
    pub(super) fn leaves_out(&self, session: SessionId) -> bool {
        let contributors = self.contributors.as_ref();
        contributors
            .and_then(|contributors| contributors.get(&session))
            .is_some_and(|contributor| contributor.has_ended)
    }
}
