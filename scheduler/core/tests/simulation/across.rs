//! The judge of histories in which triggers gather across sessions. A model of those would be as
//! clever as the core, so this one knows only what must hold of each step by itself: what one
//! firing may have as inputs, who is held open by it, who fails with it, and that each session
//! ends once. That all comes to an end, and nothing is left, the world sees to.

use std::collections::{BTreeMap, BTreeSet};

use pheromone_core::event::{AppId, SessionId};
use pheromone_core::spec::{AppSpec, Scope, TriggerKind, TriggerSpec};
use pheromone_shm::message::NO_DEADLINE;

use crate::history::{Did, End, Happening, Seen, Start};

/// A session that is open, as far as it has been seen.
#[derive(Debug, Default)]
struct Open {
    has_caller: bool,
    is_answered: bool,
    /// Sessions of the inputs of the firing that has opened it.
    parents: BTreeSet<SessionId>,
}

/// An object in one trigger's firing of one function.
type Fired = (AppId, u16, u16, SessionId, String);

#[derive(Default)]
pub struct Across {
    apps: BTreeMap<AppId, AppSpec>,
    open: BTreeMap<SessionId, Open>,
    ended: BTreeSet<SessionId>,
    /// Those that ended without an answer although somebody waited and nothing went wrong.
    given_up: BTreeSet<SessionId>,
    /// What has been in a batch.
    batched: BTreeSet<Fired>,
    /// Batches fire with what they have.
    is_flushed: bool,
    pub fired_total: u64,
}

impl Across {
    /// Takes a step after the core has taken it.
    pub fn step(&mut self, happening: &Happening, dids: &[Did]) {
        match happening {
            Happening::Deploy(app, spec) => {
                self.apps.insert(*app, (**spec).clone());
            }
            Happening::Flush(_) => self.is_flushed = true,
            Happening::Request(asked) => {
                for did in dids {
                    if let Did::Accepted(_, session) = did
                        && asked.session.is_none()
                    {
                        let has_caller = asked.has_caller;
                        let open = Open {
                            has_caller,
                            ..Open::default()
                        };
                        assert!(self.open.insert(*session, open).is_none());
                    }
                }
            }
            _ => {}
        }
        let mut to_fail = BTreeSet::new();
        for did in dids {
            match did {
                Did::Dispatch(id, start) => self.starts(id.app, start),
                Did::Respond(_, session, _) => {
                    let open = self.open.get_mut(session).expect("who is answered is open");
                    assert!(open.has_caller, "somebody waits for the answer");
                    assert!(!open.is_answered, "{session:?} is answered once");
                    open.is_answered = true;
                }
                Did::Ended(session, end, answered) => {
                    let parents = self.ends(*session, *end, *answered);
                    if matches!(end, End::Failed(_)) {
                        to_fail.extend(parents);
                    }
                }
                _ => {}
            }
        }
        for session in to_fail {
            let waits = |open: &Open| open.has_caller && !open.is_answered;
            assert!(
                !self.open.get(&session).is_some_and(waits),
                "{session:?} waits for one that has failed"
            );
        }
    }

    pub fn open_sessions(&self) -> Vec<SessionId> {
        self.open.keys().copied().collect()
    }

    /// What a session that is still open waits for, in words.
    pub fn waits_for(&self, session: SessionId) -> String {
        format!("{:?}", self.open[&session])
    }

    fn ends(&mut self, session: SessionId, end: End, answered: bool) -> BTreeSet<SessionId> {
        assert!(self.ended.insert(session), "{session:?} ends once");
        // One that a trigger has opened may end before anything of it has started.
        let open = self.open.remove(&session).unwrap_or_default();
        assert_eq!(answered, open.is_answered, "how {session:?} ended");
        let gave_up = open.has_caller && !answered && end == End::Completed;
        if gave_up {
            self.given_up.insert(session);
            let mut holders = self.open.iter();
            let holder = holders.find(|(_, open)| open.parents.contains(&session));
            assert!(holder.is_none(), "{session:?} was held by {holder:?}");
        }
        open.parents
    }

    fn starts(&mut self, app: AppId, start: &Start) {
        let session = start.session;
        assert!(!self.ended.contains(&session), "{session:?} has ended");
        let spec = &self.apps[&app];
        let triggers = spec.buckets.iter().flat_map(|bucket| &bucket.triggers);
        let trigger = triggers
            .enumerate()
            .find(|(n, _)| *n == usize::from(start.trigger));
        let gathers = trigger.filter(|(_, trigger)| trigger.scope == Scope::Bucket);
        let open = self.open.entry(session).or_default();
        if let Some((_, trigger)) = gathers {
            assert!(!start.has_caller && start.deadline_ns == NO_DEADLINE);
            open.parents
                .extend(start.inputs.iter().map(|seen| seen.session));
            assert!(
                !open.parents.contains(&session),
                "it is a session of its own"
            );
            if start.attempt == 1 {
                self.fired_total += 1;
                let trigger = trigger.clone();
                self.judge_firing(app, &trigger, start);
            }
        }
    }

    fn judge_firing(&mut self, app: AppId, trigger: &TriggerSpec, start: &Start) {
        let inputs = &start.inputs;
        for seen in inputs {
            assert!(
                !self.given_up.contains(&seen.session),
                "{:?} was not held while its object was pending",
                seen.session
            );
        }
        let arrivals: Vec<u64> = inputs.iter().map(|seen| seen.arrival_ns).collect();
        assert!(arrivals.is_sorted(), "inputs are in order of arrival");
        let is_one_group = inputs.windows(2).all(|two| two[0].group == two[1].group);
        match trigger.kind {
            TriggerKind::ByBatchSize {
                count,
                linger_ns,
                per_group,
            } => {
                let is_whole = inputs.len() == count as usize;
                let may_be_less = linger_ns.is_some() || trigger.skip_ended || self.is_flushed;
                assert!(is_whole || may_be_less && inputs.len() < count as usize);
                assert!(is_one_group || !per_group);
                for seen in inputs {
                    let fired = self.batched.insert(fired(app, start, seen));
                    assert!(fired, "{seen:?} is in two batches");
                }
            }
            TriggerKind::ByTime { per_group, .. } => {
                let (start_ns, end_ns) = start.window.expect("it has a window");
                assert!(
                    arrivals
                        .iter()
                        .all(|at_ns| (start_ns..end_ns).contains(at_ns))
                );
                assert!(!inputs.is_empty() && (is_one_group || !per_group));
            }
            TriggerKind::Redundant { k_of_n, .. } => {
                let (k, _) = k_of_n.expect("it is given");
                let is_whole = inputs.len() == k as usize;
                assert!(is_whole || trigger.skip_ended && inputs.len() < k as usize);
                assert!(is_one_group && !inputs[0].group.is_empty());
            }
            _ => panic!("no other type gathers across sessions"),
        }
    }
}

fn fired(app: AppId, start: &Start, seen: &Seen) -> Fired {
    let (trigger, function) = (start.trigger, start.function);
    (app, trigger, function, seen.session, seen.key_text())
}
