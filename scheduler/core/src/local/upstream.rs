//! What can still lead to a function: which groups that close `after` it must wait for what.
//!
//! Upstream(F) is F and every function from which F can be reached over `next`, `calls`, `sends`,
//! `on_failure` buckets and triggers. It is computed when an app is deployed; a session then counts
//! what of it is alive, one number for each such group, and the group closes when that is 0.

use crate::event::Sink;
use pheromone_shm::message::Target;

use crate::gather::Gatherer;
use crate::local::app::App;
use crate::local::message::Delivery;
use crate::local::session::Session;
use crate::local::{Local, Tables};
use crate::slab::Ref;
use crate::spec::{AppSpec, GroupClose, OnFailure, Scope, TriggerKind, TriggerSpec};

/// A group that closes after a function.
pub(super) struct AfterPlan {
    /// Its trigger, in the app's numbering.
    pub(super) trigger: u16,
    /// It fires once without inputs where no object has come.
    fire_empty: bool,
    /// What it starts.
    functions: Vec<u16>,
    /// Upstream(F), by function.
    upstream: Box<[bool]>,
}

impl AfterPlan {
    /// Whether a function is upstream of the group's.
    pub(super) fn waits_for(&self, function: u16) -> bool {
        self.upstream[usize::from(function)]
    }

    /// Whether this group, when it fires, is something that another one waits for.
    fn fires_into(&self, other: &Self) -> bool {
        let is_other = self.trigger != other.trigger;
        is_other && self.functions.iter().any(|&to| other.waits_for(to))
    }
}

/// What a session knows of one such group.
#[derive(Clone, Copy, Default)]
pub(super) struct After {
    /// Invocations upstream that are not finally ended, and what is pending that may become one.
    alive: u32,
    /// There has been an invocation upstream: what is merely pending may never become one.
    has_run: bool,
}

/// The groups of a spec that close after a function. Where one can fire into another, it comes
/// first, also when it would fire empty and so has nothing pending that the other could see. Else
/// they are in manifest order, and so are those of a ring, which a manifest should not have.
pub(super) fn afters(spec: &AppSpec) -> Vec<AfterPlan> {
    let triggers = spec.buckets.iter().flat_map(|bucket| &bucket.triggers);
    let after = |(number, trigger): (u16, &TriggerSpec)| match trigger.kind {
        TriggerKind::DynamicGroup {
            close: GroupClose::After(function),
            fire_empty,
            ..
        } if trigger.scope == Scope::Session => Some(AfterPlan {
            trigger: number,
            fire_empty,
            functions: trigger.functions.clone(),
            upstream: upstream(spec, function),
        }),
        _ => None,
    };
    let mut left: Vec<AfterPlan> = (0u16..).zip(triggers).filter_map(after).collect();
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let is_fed = |to: &AfterPlan| left.iter().any(|from| from.fires_into(to));
        let next = left.iter().position(|to| !is_fed(to)).unwrap_or(0);
        ordered.push(left.remove(next));
    }
    ordered
}

/// Upstream of one function, by function: a search against the direction of data.
fn upstream(spec: &AppSpec, of: u16) -> Box<[bool]> {
    let count = spec.functions.len();
    let reached: Vec<Vec<u16>> = (0..count).map(|from| reachable(spec, from)).collect();
    let mut found = vec![false; count];
    found[usize::from(of)] = true;
    let mut is_growing = true;
    while is_growing {
        is_growing = false;
        for from in 0..count {
            let leads_there = |to: &u16| found[usize::from(*to)];
            if !found[from] && reached[from].iter().any(leads_there) {
                found[from] = true;
                is_growing = true;
            }
        }
    }
    found.into()
}

/// The functions that one may cause directly.
fn reachable(spec: &AppSpec, from: usize) -> Vec<u16> {
    let function = &spec.functions[from];
    let mut reached: Vec<u16> = function
        .next
        .iter()
        .chain(&function.calls)
        .copied()
        .collect();
    let mut buckets: Vec<u16> = match &function.sends {
        Some(sends) => sends.clone(),
        None => (0u16..)
            .zip(&spec.buckets)
            .map(|(index, _)| index)
            .collect(),
    };
    if let OnFailure::Bucket(bucket) = function.on_failure {
        buckets.push(bucket);
    }
    for bucket in buckets {
        let triggers = &spec.buckets[usize::from(bucket)].triggers;
        reached.extend(triggers.iter().flat_map(|trigger| &trigger.functions));
    }
    reached.sort_unstable();
    reached.dedup();
    reached
}

impl Session {
    /// Counts something that lives upstream of these groups, or lives no more.
    fn count_upstream(&mut self, groups: &[u16], is_alive: bool) {
        for &group in groups {
            let after = &mut self.afters[usize::from(group)];
            if is_alive {
                after.alive += 1;
            } else {
                after.alive -= 1;
            }
        }
    }

    /// An invocation of a function begins or ends.
    #[inline]
    pub(super) fn count_invocation(&mut self, app: &App, function: u16, is_alive: bool) {
        if !self.afters.is_empty() {
            let groups = &app.plan.functions[usize::from(function)].upstream_of;
            self.count_upstream(groups, is_alive);
            for &group in groups {
                self.afters[usize::from(group)].has_run = true;
            }
        }
    }

    /// An object is on its way, or has arrived.
    pub(super) fn count_delivery(&mut self, app: &App, to: &Delivery, is_alive: bool) {
        if self.afters.is_empty() {
            return;
        }
        match to.target {
            Target::Bucket(bucket) => {
                self.count_upstream(&app.plan.buckets[usize::from(bucket)].feeds, is_alive);
            }
            Target::Function(function) => self.count_invocation(app, function, is_alive),
            Target::Next => {
                for &next in &app.plan.functions[usize::from(to.function)].next {
                    self.count_invocation(app, next, is_alive);
                }
            }
        }
    }

    /// A trigger has something pending, or has it no more.
    pub(super) fn count_pending(&mut self, app: &App, trigger: u16, is_pending: bool) {
        if !self.afters.is_empty() {
            let groups = &app.plan.triggers[usize::from(trigger)].feeds;
            self.count_upstream(groups, is_pending);
        }
    }
}

impl Local {
    /// Closes the groups of a session for which nothing upstream is alive. Whether any has fired.
    #[cold]
    pub(super) fn close_quiet_groups<S: Sink>(
        &mut self,
        session: Ref<Session>,
        sink: &mut S,
    ) -> bool {
        let app = self.tables.sessions[session].app;
        let app = &mut self.apps[app];
        let mut has_fired = false;
        for at in 0..app.plan.afters.len() {
            has_fired |= self.tables.close_if_quiet(app, session, at, sink);
        }
        has_fired
    }
}

impl Tables {
    fn close_if_quiet<S: Sink>(
        &mut self,
        app: &mut App,
        session: Ref<Session>,
        at: usize,
        sink: &mut S,
    ) -> bool {
        let plan = &app.plan.afters[at];
        let (trigger, fires_empty) = (plan.trigger, plan.fire_empty);
        let after = self.sessions[session].afters[at];
        #[cfg(feature = "planted-bugs")]
        let after = match self.planted {
            Some(crate::planted::Planted::ClosesTooEarly) => After {
                alive: after.alive.saturating_sub(1),
                ..after
            },
            _ => after,
        };
        if after.alive > 0 {
            return false;
        }
        let found = self.states.find(self.sessions[session].id, trigger);
        let pending = found.filter(|&state| self.states.get(state).gatherer.is_pending());
        if pending.is_none() && !(fires_empty && after.has_run) {
            return false;
        }
        let state = self.state_of(app, session, trigger);
        self.gather(app, state, None, sink, |gatherer, out| {
            if let Gatherer::Groups(groups) = gatherer {
                match pending {
                    Some(_) => groups.close(out),
                    None => groups.fire_empty(out),
                }
            }
        })
    }
}
