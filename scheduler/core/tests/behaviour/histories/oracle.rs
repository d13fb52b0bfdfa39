//! The naive oracle: what triggers.md says, written down without any thought of speed.
//!
//! It knows apps by their specs and histories by what functions did. From that it says which
//! invocations are queued, in which order each function's are started and with which inputs, and
//! when and how each session ends.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use pheromone_core::event::SessionId;
use pheromone_core::spec::{AppSpec, AtEnd, Keep, NameMatch, TriggerKind};
use pheromone_shm::message::NO_TRIGGER;

use crate::common::OwnedKey;

/// An object by identity: session, bucket, key, and a number of its own for those that share
/// these (direct ones).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Object {
    pub session: SessionId,
    pub bucket: u16,
    pub key: OwnedKey,
}

/// An invocation that has fired.
#[derive(Clone, Debug, PartialEq)]
pub struct Fired {
    pub session: SessionId,
    pub trigger: u16,
    pub inputs: Vec<Object>,
}

/// How a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Responded,
    Completed,
    Failed,
    Cancelled,
}

#[derive(Default)]
struct Session {
    names: HashSet<(u16, OwnedKey)>,
    kept: HashMap<(u16, OwnedKey), Object>,
    /// By trigger: what has come; `None` once it has fired or been dropped.
    sets: BTreeMap<u16, Option<BTreeMap<usize, Object>>>,
    running: usize,
    has_caller: bool,
    answered: bool,
}

/// The oracle.
pub struct Oracle {
    spec: AppSpec,
    sessions: HashMap<SessionId, Session>,
    queues: Vec<VecDeque<Fired>>,
    pub ended: HashMap<SessionId, End>,
    pub error_events: u64,
    pub dropped: u64,
    /// Objects whose senders have offered to go on with what they fire.
    offered: Vec<Object>,
}

impl Oracle {
    pub fn new(spec: &AppSpec) -> Self {
        Self {
            spec: spec.clone(),
            sessions: HashMap::new(),
            queues: spec.functions.iter().map(|_| VecDeque::new()).collect(),
            ended: HashMap::new(),
            error_events: 0,
            dropped: 0,
            offered: Vec::new(),
        }
    }

    pub fn is_open(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    pub fn open_sessions(&self) -> usize {
        self.sessions.len()
    }

    pub fn queued(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    pub fn open(&mut self, session: SessionId, has_caller: bool) {
        let state = Session {
            has_caller,
            ..Session::default()
        };
        assert!(self.sessions.insert(session, state).is_none());
    }

    pub fn fire(&mut self, session: SessionId, function: u16, trigger: u16, inputs: Vec<Object>) {
        self.queues[usize::from(function)].push_back(Fired {
            session,
            trigger,
            inputs,
        });
    }

    /// An object comes into a bucket; false: its identity is taken.
    pub fn publish(&mut self, object: &Object) -> bool {
        let Some(state) = self.sessions.get_mut(&object.session) else {
            return true;
        };
        if !state.names.insert((object.bucket, object.key.clone())) {
            self.error_events += 1;
            return false;
        }
        let bucket = self.spec.buckets[usize::from(object.bucket)].clone();
        if bucket.keep == Keep::Session {
            state
                .kept
                .insert((object.bucket, object.key.clone()), object.clone());
        }
        let before = &self.spec.buckets[..usize::from(object.bucket)];
        let first: usize = before.iter().map(|bucket| bucket.triggers.len()).sum();
        for (number, trigger) in (first as u16..).zip(&bucket.triggers) {
            let text = match &object.key {
                OwnedKey::Auto(invocation, ordinal) => format!("~{invocation}.{ordinal}"),
                OwnedKey::Named(key) => String::from_utf8(key.clone()).unwrap(),
            };
            let inputs = match &trigger.kind {
                TriggerKind::Immediate => vec![object.clone()],
                TriggerKind::ByName(NameMatch::Key(key)) if *key == text => vec![object.clone()],
                TriggerKind::ByName(NameMatch::Pattern(pattern))
                    if text.starts_with(pattern.trim_end_matches('*')) =>
                {
                    vec![object.clone()]
                }
                TriggerKind::BySet { keys } => {
                    let Some(place) = keys.iter().position(|key| *key == text) else {
                        continue;
                    };
                    let state = self.sessions.get_mut(&object.session).unwrap();
                    let set = state.sets.entry(number).or_insert(Some(BTreeMap::new()));
                    let Some(come) = set else {
                        continue;
                    };
                    come.insert(place, object.clone());
                    if come.len() < keys.len() {
                        continue;
                    }
                    set.take().unwrap().into_values().collect()
                }
                _ => continue,
            };
            for &function in &trigger.functions {
                self.fire(object.session, function, number, inputs.clone());
            }
        }
        true
    }

    /// A direct object.
    pub fn direct(&mut self, object: &Object, function: u16) {
        if self.is_open(object.session) {
            for next in self.spec.functions[usize::from(function)].next.clone() {
                self.fire(object.session, next, NO_TRIGGER, vec![object.clone()]);
            }
        }
    }

    pub fn get(&self, session: SessionId, bucket: u16, key: &OwnedKey) -> Option<&Object> {
        self.sessions
            .get(&session)?
            .kept
            .get(&(bucket, key.clone()))
    }

    pub fn release_hold(&mut self, session: SessionId, bucket: u16, key: &OwnedKey) {
        if let Some(state) = self.sessions.get_mut(&session) {
            state.kept.remove(&(bucket, key.clone()));
        }
    }

    pub fn respond(&mut self, session: SessionId) {
        if let Some(state) = self.sessions.get_mut(&session) {
            if state.has_caller && !state.answered {
                state.answered = true;
            } else {
                self.error_events += 1;
            }
        }
    }

    /// Who has sent this object has offered to go on with what it fires.
    pub fn offer(&mut self, object: &Object) {
        self.offered.push(object.clone());
    }

    /// The core, or an executor by itself, has started this invocation of a function: it must be
    /// the one whose turn it is. What is gone on with has no turn.
    pub fn started(&mut self, function: u16, fired: &Fired) {
        let queue = &mut self.queues[usize::from(function)];
        let is_offered = |of: &Fired| {
            let mut inputs = of.inputs.iter();
            inputs.any(|input| self.offered.contains(input))
        };
        let at = queue.iter().position(|queued| queued == fired);
        let at = at.unwrap_or_else(|| panic!("function {function} starts {fired:?} unasked"));
        let waits = queue.iter().take(at).find(|queued| !is_offered(queued));
        assert!(
            waits.is_none() || is_offered(fired),
            "function {function} starts {fired:?} before {waits:?}"
        );
        queue.remove(at);
        self.sessions
            .get_mut(&fired.session)
            .expect("it is open")
            .running += 1;
    }

    /// An attempt has come back.
    pub fn returned(&mut self, session: SessionId, succeeded: bool) {
        let Some(state) = self.sessions.get_mut(&session) else {
            return;
        };
        state.running -= 1;
        if succeeded {
            self.settle(session);
        } else {
            self.end(session, End::Failed);
        }
    }

    /// What becomes of a session that may have nothing left to do.
    pub fn settle(&mut self, session: SessionId) {
        loop {
            let Some(state) = self.sessions.get(&session) else {
                return;
            };
            let queued = self
                .queues
                .iter()
                .flatten()
                .any(|fired| fired.session == session);
            if state.running > 0 || queued {
                return;
            }
            let pending: Vec<u16> = state
                .sets
                .iter()
                .filter(|(_, set)| set.is_some())
                .map(|(&trigger, _)| trigger)
                .collect();
            let triggers: Vec<_> = self.spec.buckets.iter().flat_map(|b| &b.triggers).collect();
            let fires: Vec<(u16, Vec<u16>)> = pending
                .iter()
                .filter(|&&trigger| triggers[usize::from(trigger)].at_end == AtEnd::Fire)
                .map(|&trigger| (trigger, triggers[usize::from(trigger)].functions.clone()))
                .collect();
            if !fires.is_empty() {
                for (trigger, functions) in fires {
                    let state = self.sessions.get_mut(&session).unwrap();
                    let set = state.sets.get_mut(&trigger).unwrap().take().unwrap();
                    let inputs: Vec<Object> = set.into_values().collect();
                    for function in functions {
                        self.fire(session, function, trigger, inputs.clone());
                    }
                }
                return;
            }
            let Some(&first) = pending.first() else {
                let end = if state.answered {
                    End::Responded
                } else {
                    End::Completed
                };
                self.end(session, end);
                return;
            };
            if triggers[usize::from(first)].at_end == AtEnd::Fail && !state.answered {
                self.end(session, End::Failed);
                return;
            }
            let state = self.sessions.get_mut(&session).unwrap();
            let set = state.sets.insert(first, None).flatten();
            self.dropped += set.map_or(0, |held| held.len() as u64);
        }
    }

    pub fn end(&mut self, session: SessionId, end: End) {
        if self.sessions.remove(&session).is_some() {
            for queue in &mut self.queues {
                queue.retain(|fired| fired.session != session);
            }
            assert!(self.ended.insert(session, end).is_none());
        }
    }
}
