//! The books, made anew after each step: which objects something holds, what that costs, and which
//! memory is therefore taken; and the comparison with what the core says and gives back.

use std::collections::{BTreeMap, BTreeSet};

use pheromone_core::event::AppId;
use pheromone_core::{AppStats, Core};
use pheromone_shm::message::Extent;

use super::{Model, OBJECT_CHARGE_BYTES, Place, SESSION_CHARGE_BYTES};
use crate::history::Did;
use crate::rules::{Item, What};

/// A region of an app.
type RegionId = (AppId, u16);

/// What is taken in each region: by offset the length, and whose it is. Memory of nobody has been
/// published and refused, and is on its way back.
#[derive(Default)]
pub struct Memory {
    regions: BTreeMap<RegionId, BTreeMap<u32, (u32, Option<Item>)>>,
    /// Regions whose owner knows what is taken.
    owned: BTreeSet<RegionId>,
}

impl Memory {
    /// A region has an owner, who is told of nothing that is dead by now.
    pub(super) fn own(&mut self, region: RegionId, live: &[bool]) {
        let is_live = |item: Option<Item>| item.is_some_and(|item| live[item]);
        if self.owned.insert(region) {
            let taken = self.regions.entry(region).or_default();
            taken.retain(|_, (_, item)| is_live(*item));
        }
    }

    pub(super) fn disown(&mut self, app: AppId, slot: u16) {
        self.owned.remove(&(app, slot));
    }

    /// Memory is published: it must have been free.
    pub(super) fn fill(&mut self, region: RegionId, extent: Extent, item: Option<Item>) {
        let taken = self.regions.entry(region).or_default();
        let before = taken.range(..=extent.offset_units).next_back();
        let after = taken.range(extent.offset_units..).next();
        let end = extent.offset_units + extent.len_units;
        assert!(
            before.is_none_or(|(&at, &(len, _))| at + len <= extent.offset_units)
                && after.is_none_or(|(&at, _)| at >= end),
            "{extent:?} of {region:?} is given out while it is taken"
        );
        taken.insert(extent.offset_units, (extent.len_units, item));
    }

    /// What a successor must be told of.
    pub(super) fn live_extents(&self, region: RegionId, live: &[bool]) -> Vec<Extent> {
        let taken = self.regions.get(&region).into_iter().flatten();
        taken
            .filter(|(_, (_, item))| item.is_some_and(|item| live[item]))
            .map(|(&offset_units, &(len_units, _))| Extent {
                offset_units,
                len_units,
            })
            .collect()
    }

    fn release(&mut self, region: RegionId, extent: Extent, live: &[bool]) {
        let taken = self.regions.entry(region).or_default();
        let removed = taken.remove(&extent.offset_units);
        let Some((len_units, item)) = removed else {
            panic!("{extent:?} of {region:?} is released, and is not taken");
        };
        assert_eq!(len_units, extent.len_units, "it is released as it was");
        assert!(
            item.is_none_or(|item| !live[item]),
            "{extent:?} of {region:?} is released while something holds its object"
        );
    }

    /// Forgets what nobody need be told of. Answers with how much of an app waits to be told.
    fn sweep(&mut self, app: AppId, live: &[bool]) -> u64 {
        let mut waiting = 0;
        for (region, taken) in self.regions.range_mut((app, 0)..=(app, u16::MAX)) {
            let is_live = |item: Option<Item>| item.is_some_and(|item| live[item]);
            if self.owned.contains(region) {
                waiting += taken.values().filter(|(_, item)| !is_live(*item)).count() as u64;
            } else {
                taken.retain(|_, (_, item)| is_live(*item));
            }
        }
        waiting
    }
}

impl Model {
    /// Whether each object is held by anything.
    pub(super) fn live(&self) -> Vec<bool> {
        let mut live = vec![false; self.objects.len()];
        let mut hold = |item: Item| {
            live[item] = true;
            if let Some(root) = self.objects[item].root {
                live[root] = true;
            }
        };
        for invocation in self.invocations.values() {
            let held = invocation.inputs.iter().chain(&invocation.got);
            held.chain(&invocation.request).for_each(|&item| hold(item));
        }
        for session in self.sessions.values() {
            session.kept.values().for_each(|&item| hold(item));
            session.response.iter().for_each(|&item| hold(item));
            session.request_object.iter().for_each(|&item| hold(item));
            session
                .delayed
                .iter()
                .for_each(|delayed| hold(delayed.item));
            let states = session.states.values();
            states.for_each(|state| state.verdict.held.iter().for_each(|&item| hold(item)));
        }
        let letters = self.apps.values().flat_map(|app| app.letters.held());
        letters.for_each(&mut hold);
        for (_, _, response) in self.untaken.values() {
            response.iter().for_each(|&item| hold(item));
        }
        live
    }

    /// Holds what the core has given back against what is held.
    pub(super) fn reconcile(&mut self) {
        let live = self.live();
        for did in &self.dids {
            if let Did::Release(owner, extent, true) = did {
                self.memory.release((owner.app, owner.slot), *extent, &live);
            }
        }
        for (id, process) in &self.processes {
            assert!(
                process
                    .guard_ns
                    .is_none_or(|guard_ns| guard_ns > self.now_ns),
                "{id:?} should have been killed by now"
            );
        }
    }

    /// Holds the core's counters against the model.
    pub fn compare(&mut self, core: &Core) {
        let live = self.live();
        for did in &self.dids {
            if let Did::Removed(app) = did {
                let app = self.apps.remove(app);
                assert!(
                    app.is_some_and(|app| app.is_removing),
                    "an app goes when it is told to"
                );
            }
        }
        for &id in &self.apps.keys().copied().collect::<Vec<_>>() {
            let stats = core.stats(id).expect("the app is there");
            let expected = self.expected(id, &live);
            let said = AppStats {
                objects_live: stats.objects_live,
                used_bytes: stats.used_bytes,
                sessions_open: stats.sessions_open,
                queued: stats.queued,
                running: stats.running,
                calls_waiting: stats.calls_waiting,
                error_events_total: stats.error_events_total,
                dropped_total: stats.dropped_total,
                early_total: stats.early_total,
                releases_pending: stats.releases_pending,
                dead_letters: stats.dead_letters,
                dead_letters_bytes: stats.dead_letters_bytes,
                dead_letters_total: stats.dead_letters_total,
                dead_letters_pushed_out_total: stats.dead_letters_pushed_out_total,
                dead_letters_retried_total: stats.dead_letters_retried_total,
                dead_letters_dropped_total: stats.dead_letters_dropped_total,
                ..AppStats::default()
            };
            self.apps[&id].letters.compare(core.dead_letters(id));
            if said != expected {
                panic!(
                    "the books of {id:?} differ: {}",
                    difference(&said, &expected)
                );
            }
            let promised_bytes = stats.used_bytes + stats.credit_bytes;
            let slack_bytes = OBJECT_CHARGE_BYTES * stats.objects_live
                + SESSION_CHARGE_BYTES * stats.sessions_open;
            assert!(
                promised_bytes <= self.apps[&id].spec.memory_bytes + slack_bytes,
                "the quota is promised twice"
            );
        }
    }

    fn expected(&mut self, id: AppId, live: &[bool]) -> AppStats {
        let app = &self.apps[&id];
        let (error_events, dropped, early) = (app.error_events, app.dropped, app.early);
        let mut expected = AppStats {
            sessions_open: self.count_sessions(id),
            calls_waiting: self.count_calls(id),
            error_events_total: error_events,
            dropped_total: dropped,
            early_total: early,
            releases_pending: self.memory.sweep(id, live),
            ..self.apps[&id].letters.counted()
        };
        expected.used_bytes = SESSION_CHARGE_BYTES * expected.sessions_open;
        let objects = self.objects.iter().zip(live);
        for (object, _) in objects.filter(|(object, is_live)| **is_live && object.app == id) {
            expected.objects_live += 1;
            expected.used_bytes += OBJECT_CHARGE_BYTES;
            if object.root.is_none() {
                expected.used_bytes += object.extent.len_bytes();
            }
        }
        let invocations = self.invocations.values().filter(|i| i.app == id);
        let waits = |place| matches!(place, Place::Queued | Place::Offered(_));
        expected.queued = invocations.filter(|i| waits(i.place)).count() as u64;
        let processes = self.processes.iter().filter(|(of, _)| of.app == id);
        expected.running = processes.filter(|(_, p)| p.running.is_some()).count() as u64;
        expected
    }

    pub(super) fn count_sessions(&self, app: AppId) -> u64 {
        self.sessions
            .values()
            .filter(|session| session.app == app)
            .count() as u64
    }

    /// Calls that wait to start.
    pub(super) fn count_calls(&self, app: AppId) -> u64 {
        let waits = |i: &&super::Invocation| i.app == app && i.is_call && i.place == Place::Queued;
        self.invocations.values().filter(waits).count() as u64
    }

    /// The most identities that an app could be said to have: what is live, and what is remembered.
    pub(super) fn count_identities(&self, app: AppId) -> u64 {
        let live = self.live();
        let objects = self.objects.iter().zip(&live);
        let objects = objects.filter(|(object, is_live)| **is_live && object.app == app);
        let sessions = self.sessions.values().filter(|session| session.app == app);
        let logged = |session: &super::Session| {
            let entries = session.states.values().flat_map(|state| &state.log);
            // A list with its keys, none of which may be there; a key or a round with its object.
            let remembered = entries.map(|entry| match &entry.what {
                What::Join(keys) => 1 + 2 * keys.len(),
                What::Arrive { .. } => 1,
                _ => 0,
            });
            remembered.sum::<usize>()
        };
        let names =
            |session: &super::Session| session.names.len() + session.kept.len() + logged(session);
        let names = sessions.map(names);
        let invocations = self.invocations.values().filter(|i| i.app == app);
        let sent = invocations.map(|invocation| invocation.sent.len());
        // The object that would pass the limit is one of the objects already.
        (objects.count() + names.sum::<usize>() + sent.sum::<usize>()) as u64
    }

    /// Whether so little memory is left that the edge may refuse.
    pub(super) fn is_tight(&self, app: AppId) -> bool {
        let spec = &self.apps[&app].spec;
        let is_small = spec.memory_bytes < 1 << 20 || spec.limits.objects < 1000;
        let has_objects = self.objects.iter().any(|object| object.app == app);
        is_small && (has_objects || !self.processes.is_empty())
    }
}

fn difference(said: &AppStats, expected: &AppStats) -> String {
    let rows = [
        ("objects_live", said.objects_live, expected.objects_live),
        ("used_bytes", said.used_bytes, expected.used_bytes),
        ("sessions_open", said.sessions_open, expected.sessions_open),
        ("queued", said.queued, expected.queued),
        ("running", said.running, expected.running),
        ("calls_waiting", said.calls_waiting, expected.calls_waiting),
        (
            "error_events",
            said.error_events_total,
            expected.error_events_total,
        ),
        ("dropped", said.dropped_total, expected.dropped_total),
        ("early", said.early_total, expected.early_total),
        (
            "releases_pending",
            said.releases_pending,
            expected.releases_pending,
        ),
    ];
    let letters = [
        ("dead_letters", said.dead_letters, expected.dead_letters),
        (
            "dead_letters_bytes",
            said.dead_letters_bytes,
            expected.dead_letters_bytes,
        ),
        (
            "dead_letters_total",
            said.dead_letters_total,
            expected.dead_letters_total,
        ),
        (
            "pushed_out",
            said.dead_letters_pushed_out_total,
            expected.dead_letters_pushed_out_total,
        ),
        (
            "retried",
            said.dead_letters_retried_total,
            expected.dead_letters_retried_total,
        ),
        (
            "letters dropped",
            said.dead_letters_dropped_total,
            expected.dead_letters_dropped_total,
        ),
    ];
    let differ = rows
        .into_iter()
        .chain(letters)
        .filter(|(_, said, expected)| said != expected);
    let texts = differ.map(|(what, said, expected)| format!("{what} is {said}, not {expected}"));
    texts.collect::<Vec<_>>().join(", ")
}
