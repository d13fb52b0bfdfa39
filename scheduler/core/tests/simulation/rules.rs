//! The rows of the table of triggers, one function a type, each a plain reading of its row over all
//! that has ever happened to one trigger of one session. Nothing is remembered between two
//! readings: the whole log is read again whenever something has been added to it.

use std::collections::{BTreeMap, BTreeSet};

use pheromone_core::spec::{GroupClose, Keep, TriggerKind, TriggerSpec};

/// An object, by its number in the model.
pub type Item = usize;

/// Something that happened to a trigger, at a time.
#[derive(Clone, Debug)]
pub struct Entry {
    pub now_ns: u64,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    Arrive {
        item: Item,
        key: String,
        group: String,
    },
    /// Its timer.
    Tick,
    Join(Vec<String>),
    Redundant(u32, u32),
    Expect(u32),
    CloseSource,
    /// What is upstream has fallen quiet.
    Close,
    /// What is upstream has fallen quiet before any object has come.
    CloseEmpty,
    /// `at_end = "fire"`.
    FirePending,
    /// `at_end = "drop"`.
    DropPending,
}

/// A firing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Volley {
    pub items: Vec<Item>,
    pub window: Option<(u64, u64)>,
    pub early: bool,
    /// Between this one and the one before it the contract states no order.
    pub unordered: bool,
}

/// What follows from a log.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub fired: Vec<Volley>,
    pub dropped: u64,
    /// Objects and calls that become error events.
    pub complaints: u64,
    /// Firings with more inputs than an invocation may have.
    pub overflows: u64,
    /// What it may still fire.
    pub held: Vec<Item>,
    /// Something is pending that `at_end` is about.
    pub is_pending: bool,
    /// When time alone makes a difference.
    pub next_ns: Option<u64>,
}

impl Verdict {
    fn fire(&mut self, items: Vec<Item>) {
        self.fired.push(Volley {
            items,
            ..Volley::default()
        });
    }
}

/// Reads a log. `inputs_max`: `limits.inputs`; `keep`: of the bucket.
pub fn read(spec: &TriggerSpec, keep: Keep, inputs_max: u32, log: &[Entry]) -> Verdict {
    let inputs_max = inputs_max as usize;
    match &spec.kind {
        TriggerKind::BySet { keys } => by_set(keys, log),
        TriggerKind::ByBatchSize {
            count,
            linger_ns,
            per_group,
        } => by_batch_size(*count as usize, *linger_ns, *per_group, log),
        TriggerKind::ByTime {
            window_ns,
            slide_ns,
            fire_empty,
            per_group,
        } => Windows {
            window_ns: *window_ns,
            slide_ns: *slide_ns,
            fire_empty: *fire_empty,
            per_group: *per_group,
            inputs_max,
            origin_ns: log.first().map_or(0, |entry| entry.now_ns),
        }
        .read(log),
        TriggerKind::Redundant { k_of_n, .. } => redundant(*k_of_n, inputs_max, log),
        TriggerKind::DynamicJoin => dynamic_join(keep, log),
        TriggerKind::DynamicGroup {
            close,
            order_by_key,
            ..
        } => dynamic_group(*close, *order_by_key, inputs_max, log),
        TriggerKind::Immediate | TriggerKind::ByName(_) | TriggerKind::Custom { .. } => {
            unreachable!("it gathers nothing")
        }
    }
}

/// When all are there, in the listed order; once per session.
fn by_set(keys: &[String], log: &[Entry]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut come: BTreeMap<usize, Item> = BTreeMap::new();
    let mut is_over = false;
    for entry in log {
        match &entry.what {
            What::Arrive { item, key, .. } if !is_over => {
                if let Some(place) = keys.iter().position(|listed| listed == key) {
                    come.entry(place).or_insert(*item);
                }
                if come.len() == keys.len() {
                    verdict.fire(come.values().copied().collect());
                    is_over = true;
                }
            }
            What::FirePending if !is_over && !come.is_empty() => {
                verdict.fire(come.values().copied().collect());
                is_over = true;
            }
            What::DropPending if !is_over && !come.is_empty() => {
                verdict.dropped += come.len() as u64;
                is_over = true;
            }
            _ => {}
        }
    }
    if !is_over {
        verdict.held = come.values().copied().collect();
        verdict.is_pending = !come.is_empty();
    }
    verdict
}

/// For every `count` objects in arrival order; with a linger also when the oldest pending has
/// waited that long.
fn by_batch_size(count: usize, linger_ns: Option<u64>, per_group: bool, log: &[Entry]) -> Verdict {
    let mut verdict = Verdict::default();
    // By group, in order of the oldest pending object, since a batch takes all of its group.
    let mut pending: Vec<(String, Vec<(Item, u64)>)> = Vec::new();
    let fire = |verdict: &mut Verdict, batch: &[(Item, u64)]| {
        verdict.fired.push(Volley {
            items: batch.iter().map(|&(item, _)| item).collect(),
            window: Some((batch[0].1, batch[batch.len() - 1].1)),
            ..Volley::default()
        });
    };
    for entry in log {
        let is_due = |batch: &[(Item, u64)]| {
            linger_ns.is_some_and(|linger_ns| batch[0].1 + linger_ns <= entry.now_ns)
        };
        if matches!(entry.what, What::Arrive { .. } | What::Tick) {
            while pending.first().is_some_and(|(_, batch)| is_due(batch)) {
                fire(&mut verdict, &pending.remove(0).1);
            }
        }
        match &entry.what {
            What::Arrive { item, group, .. } => {
                let group = if per_group { group.as_str() } else { "" };
                let at = pending.iter().position(|(name, _)| name == group);
                let at = at.unwrap_or_else(|| {
                    pending.push((group.to_owned(), Vec::new()));
                    pending.len() - 1
                });
                pending[at].1.push((*item, entry.now_ns));
                if pending[at].1.len() >= count || linger_ns == Some(0) {
                    fire(&mut verdict, &pending.remove(at).1);
                }
            }
            What::FirePending => {
                for (_, batch) in pending.drain(..) {
                    fire(&mut verdict, &batch);
                }
            }
            What::DropPending => {
                verdict.dropped += pending.drain(..).map(|(_, b)| b.len() as u64).sum::<u64>();
            }
            _ => {}
        }
    }
    verdict.is_pending = !pending.is_empty();
    verdict.next_ns = pending
        .first()
        .and_then(|(_, batch)| Some(batch[0].1 + linger_ns?));
    verdict.held = pending
        .iter()
        .flat_map(|(_, batch)| batch.iter().map(|&(item, _)| item))
        .collect();
    verdict
}

/// At each window's end, by the clock.
struct Windows {
    window_ns: u64,
    slide_ns: u64,
    fire_empty: bool,
    per_group: bool,
    inputs_max: usize,
    origin_ns: u64,
}

/// An object and the windows, by index, in which it has still to fire.
struct Waiting {
    item: Item,
    group: String,
    at_ns: u64,
    windows: BTreeSet<u64>,
}

impl Windows {
    fn bounds(&self, index: u64) -> (u64, u64) {
        let start_ns = self.origin_ns + index * self.slide_ns;
        (start_ns, start_ns + self.window_ns)
    }

    /// The windows with an instant in them.
    fn over(&self, at_ns: u64) -> BTreeSet<u64> {
        let last = (at_ns - self.origin_ns) / self.slide_ns;
        let contains = |&index: &u64| (self.bounds(index).0..self.bounds(index).1).contains(&at_ns);
        (0..=last)
            .rev()
            .take((self.window_ns / self.slide_ns + 1) as usize)
            .filter(contains)
            .collect()
    }

    fn read(&self, log: &[Entry]) -> Verdict {
        let mut verdict = Verdict::default();
        let mut waiting: Vec<Waiting> = Vec::new();
        let mut arrivals: Vec<u64> = Vec::new();
        // Windows before this one have ended.
        let mut closing = 0;
        for entry in log {
            if matches!(entry.what, What::Arrive { .. } | What::Tick) {
                self.end_windows(
                    entry.now_ns,
                    &mut closing,
                    &mut waiting,
                    &arrivals,
                    &mut verdict,
                );
            }
            match &entry.what {
                What::Arrive { item, group, .. } => {
                    let group = if self.per_group { group.as_str() } else { "" };
                    let windows = self.over(entry.now_ns);
                    self.make_room(&windows, group, &mut waiting, &mut verdict);
                    waiting.push(Waiting {
                        item: *item,
                        group: group.to_owned(),
                        at_ns: entry.now_ns,
                        windows,
                    });
                    arrivals.push(entry.now_ns);
                }
                What::FirePending => {
                    let windows: BTreeSet<u64> = waiting
                        .iter()
                        .flat_map(|w| w.windows.iter().copied())
                        .collect();
                    for index in windows {
                        self.fire(index, &mut waiting, &mut verdict);
                    }
                }
                What::DropPending => verdict.dropped += waiting.drain(..).count() as u64,
                _ => {}
            }
        }
        verdict.is_pending = !waiting.is_empty();
        let wants = verdict.is_pending || self.fire_empty;
        verdict.next_ns = wants.then(|| self.bounds(closing).1);
        verdict.held = waiting.iter().map(|waiting| waiting.item).collect();
        verdict
    }

    /// Fires the windows that have ended: those with objects all, of the others the last one.
    fn end_windows(
        &self,
        now_ns: u64,
        closing: &mut u64,
        waiting: &mut Vec<Waiting>,
        arrivals: &[u64],
        verdict: &mut Verdict,
    ) {
        let mut last_empty = None;
        while self.bounds(*closing).1 <= now_ns {
            let index = *closing;
            *closing += 1;
            if waiting
                .iter()
                .any(|waiting| waiting.windows.contains(&index))
            {
                self.fire(index, waiting, verdict);
            } else {
                last_empty = Some(index);
            }
        }
        let Some(index) = last_empty.filter(|_| self.fire_empty) else {
            return;
        };
        let (start_ns, end_ns) = self.bounds(index);
        if !arrivals
            .iter()
            .any(|at_ns| (start_ns..end_ns).contains(at_ns))
        {
            verdict.fired.push(Volley {
                window: Some((start_ns, end_ns)),
                ..Volley::default()
            });
        }
    }

    /// Fires what has still to fire in a window, group by group.
    fn fire(&self, index: u64, waiting: &mut Vec<Waiting>, verdict: &mut Verdict) {
        let mut groups: Vec<(String, Vec<Item>)> = Vec::new();
        for waiting in waiting.iter_mut() {
            if !waiting.windows.remove(&index) {
                continue;
            }
            match groups.iter_mut().find(|(name, _)| *name == waiting.group) {
                Some((_, items)) => items.push(waiting.item),
                None => groups.push((waiting.group.clone(), vec![waiting.item])),
            }
        }
        for (place, (_, items)) in groups.into_iter().enumerate() {
            verdict.fired.push(Volley {
                items,
                window: Some(self.bounds(index)),
                early: false,
                unordered: place > 0,
            });
        }
        waiting.retain(|waiting| !waiting.windows.is_empty());
    }

    /// A window that would pass `inputs` fires early.
    fn make_room(
        &self,
        windows: &BTreeSet<u64>,
        group: &str,
        waiting: &mut Vec<Waiting>,
        verdict: &mut Verdict,
    ) {
        for index in windows {
            let is_in = |w: &Waiting| w.group == group && w.windows.contains(index);
            let items: Vec<Item> = waiting
                .iter()
                .filter(|w| is_in(w))
                .map(|w| w.item)
                .collect();
            if items.len() < self.inputs_max {
                continue;
            }
            verdict.fired.push(Volley {
                items,
                window: Some(self.bounds(*index)),
                early: true,
                unordered: false,
            });
            for waiting in waiting.iter_mut().filter(|waiting| waiting.group == group) {
                waiting.windows.remove(index);
            }
        }
        waiting.retain(|waiting| !waiting.windows.is_empty());
        debug_assert!(
            waiting
                .iter()
                .all(|waiting| waiting.at_ns >= self.origin_ns)
        );
    }
}

/// A round: all that has come of one group.
#[derive(Default)]
struct Round {
    group: String,
    pending: Vec<Item>,
    arrived: usize,
    is_over: bool,
}

/// On the k-th object of a round, with those k; later ones up to n are dropped, past n they are
/// error events. Until k and n are known, objects wait.
fn redundant(known: Option<(u32, u32)>, inputs_max: usize, log: &[Entry]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut rounds: Vec<Round> = Vec::new();
    let mut known = known.map(|(k, n)| (k as usize, n as usize));
    for entry in log {
        match &entry.what {
            What::Arrive { item, group, .. } => {
                let at = rounds.iter().position(|round| round.group == *group);
                let at = at.unwrap_or_else(|| {
                    rounds.push(Round {
                        group: group.clone(),
                        ..Round::default()
                    });
                    rounds.len() - 1
                });
                let round = &mut rounds[at];
                round.arrived += 1;
                if known.is_some_and(|(_, n)| round.arrived > n) {
                    verdict.complaints += 1;
                } else if round.is_over {
                    verdict.dropped += 1;
                } else {
                    round.pending.push(*item);
                }
            }
            What::Redundant(k, n) => {
                let asked = (*k as usize, *n as usize);
                match known {
                    Some(before) => verdict.complaints += u64::from(before != asked),
                    None if asked.0 == 0 || asked.0 > asked.1 || asked.0 > inputs_max => {
                        verdict.complaints += 1;
                    }
                    None => known = Some(asked),
                }
            }
            What::FirePending => {
                for round in rounds.iter_mut().filter(|round| !round.is_over) {
                    round.is_over = true;
                    let pending = std::mem::take(&mut round.pending);
                    if pending.len() > inputs_max {
                        verdict.overflows += 1;
                        verdict.dropped += pending.len() as u64;
                    } else {
                        verdict.fire(pending);
                    }
                }
            }
            What::DropPending => {
                for round in rounds.iter_mut().filter(|round| !round.is_over) {
                    round.is_over = true;
                    verdict.dropped += round.pending.drain(..).count() as u64;
                }
            }
            _ => {}
        }
        let Some((k, n)) = known else {
            continue;
        };
        for round in rounds.iter_mut().filter(|round| !round.is_over) {
            if round.pending.len() >= k {
                round.is_over = true;
                let rest = round.pending.split_off(k);
                verdict.fire(std::mem::take(&mut round.pending));
                let stragglers = rest.len().min(n - k);
                verdict.dropped += stragglers as u64;
                verdict.complaints += (rest.len() - stragglers) as u64;
            }
        }
    }
    verdict.is_pending = rounds.iter().any(|round| !round.is_over);
    verdict.held = rounds
        .iter()
        .flat_map(|round| round.pending.clone())
        .collect();
    verdict
}

/// When every listed key is there, in the listed order, whichever came first; lists are
/// independent. In a bucket that keeps nothing an object is released once a list that counts it has
/// fired and no other that names it is left.
fn dynamic_join(keep: Keep, log: &[Entry]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut there: BTreeMap<String, Item> = BTreeMap::new();
    let mut consumed: BTreeSet<String> = BTreeSet::new();
    let mut lists: Vec<Vec<String>> = Vec::new();
    for entry in log {
        let mut fires: Vec<Vec<String>> = Vec::new();
        match &entry.what {
            What::Arrive { item, key, .. } if !consumed.contains(key) => {
                there.entry(key.clone()).or_insert(*item);
            }
            What::Join(keys) => lists.push(keys.clone()),
            What::FirePending => fires = std::mem::take(&mut lists),
            What::DropPending => verdict.dropped += lists.drain(..).count() as u64,
            _ => {}
        }
        // One at a time, since a list that fires may consume what another has counted no more.
        loop {
            let is_complete = |list: &Vec<String>| list.iter().all(|key| there.contains_key(key));
            let next = if fires.is_empty() {
                match lists.iter().position(is_complete) {
                    Some(at) => lists.remove(at),
                    None => break,
                }
            } else {
                fires.remove(0)
            };
            verdict.fire(
                next.iter()
                    .filter_map(|key| there.get(key).copied())
                    .collect(),
            );
            if keep == Keep::UntilConsumed {
                for key in &next {
                    let is_named = lists.iter().chain(&fires).any(|list| list.contains(key));
                    if !is_named && there.remove(key).is_some() {
                        consumed.insert(key.clone());
                    }
                }
            }
        }
    }
    verdict.is_pending = !lists.is_empty();
    verdict.held = there.values().copied().collect();
    verdict
}

/// When closed: once per group, its objects in order, groups in order of first appearance.
fn dynamic_group(
    close: GroupClose,
    order_by_key: bool,
    inputs_max: usize,
    log: &[Entry],
) -> Verdict {
    let mut verdict = Verdict::default();
    let mut groups: Vec<(String, Vec<(String, Item)>)> = Vec::new();
    let mut sources = match close {
        GroupClose::Sources(sources) => Some(sources),
        GroupClose::SourcesAtRunTime | GroupClose::After(_) => None,
    };
    let counts_sources = !matches!(close, GroupClose::After(_));
    let mut sources_closed = 0;
    let mut is_closed = sources == Some(0);
    let mut has_come = false;
    for entry in log {
        let mut fires = false;
        match &entry.what {
            What::Arrive { .. } if is_closed => verdict.complaints += 1,
            What::Arrive { item, key, group } => {
                has_come = true;
                let at = groups.iter().position(|(name, _)| name == group);
                let at = at.unwrap_or_else(|| {
                    groups.push((group.clone(), Vec::new()));
                    groups.len() - 1
                });
                if groups[at].1.len() >= inputs_max {
                    verdict.overflows += 1;
                    verdict.dropped += 1;
                } else {
                    groups[at].1.push((key.clone(), *item));
                }
            }
            What::CloseSource if counts_sources => sources_closed += 1,
            What::Expect(number) if counts_sources => match sources {
                Some(known) => verdict.complaints += u64::from(known != *number),
                None => sources = Some(*number),
            },
            What::CloseSource | What::Expect(_) => verdict.complaints += 1,
            What::Close | What::FirePending => fires = true,
            What::CloseEmpty if !has_come => verdict.fire(Vec::new()),
            What::DropPending => {
                verdict.dropped += groups.drain(..).map(|(_, g)| g.len() as u64).sum::<u64>();
            }
            _ => {}
        }
        if !is_closed && sources.is_some_and(|sources| sources_closed >= sources) {
            is_closed = true;
            fires = true;
        }
        if fires {
            for (_, mut group) in groups.drain(..) {
                if order_by_key {
                    group.sort_by(|a, b| a.0.cmp(&b.0));
                }
                verdict.fire(group.into_iter().map(|(_, item)| item).collect());
            }
        }
    }
    verdict.is_pending = !groups.is_empty();
    verdict.held = groups
        .iter()
        .flat_map(|(_, group)| group.iter().map(|&(_, item)| item))
        .collect();
    verdict
}
