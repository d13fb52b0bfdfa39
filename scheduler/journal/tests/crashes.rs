//! Random histories of entries, compactions, losses of power and restarts, held against a model
//! that keeps everything ever written in one list and looks through it.
#![forbid(unsafe_code)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use pheromone_journal::{
    Entry, Journal, Name, Object, Payload, Receipt, Recovered, Sequence, WriteError,
};
use support::disk::{Fault, Sim};
use support::{Random, SMALL, delete, end, firing, hand_over, insert, replace, request, response};

/// Histories per run, each of a few restarts.
const HISTORIES: u64 = 150;
/// Restarts of each.
const RESTARTS: u64 = 4;
/// Number of Linux for "input/output error".
const EIO: i32 = 5;

/// One entry that was handed over.
#[derive(Clone, Debug)]
struct Item {
    entry: Entry,
    payload: Vec<u8>,
}

/// Everything ever written, in order.
#[derive(Default)]
struct Model {
    log: BTreeMap<Sequence, Item>,
}

/// What the rules say of an entry.
#[derive(Debug, PartialEq)]
enum Verdict {
    Written,
    Repeated(Sequence),
    Needless,
    Exists,
}

impl Model {
    fn current(&self, name: &Name) -> Option<Sequence> {
        let of_name = self.log.iter().rev().find(|(_, item)| match &item.entry {
            Entry::Object(object) => object.name == *name,
            Entry::Delete(delete) => delete.name == *name,
            _ => false,
        });
        let (sequence, item) = of_name?;
        matches!(item.entry, Entry::Object(_)).then_some(*sequence)
    }

    fn of_session(&self, session: u128) -> impl Iterator<Item = (&Sequence, &Item)> {
        self.log
            .iter()
            .filter(move |(_, item)| item.entry.session() == Some(session))
    }

    fn is_open(&self, session: u128) -> bool {
        let mut entries = self.of_session(session).peekable();
        entries.peek().is_some() && !entries.any(|(_, item)| matches!(item.entry, Entry::End(_)))
    }

    fn judge(&self, entry: &Entry) -> Verdict {
        let repeats = |other: &Entry| match (entry, other) {
            (Entry::Request(_), Entry::Request(_)) => true,
            (Entry::Response(_), Entry::Response(_)) => true,
            (Entry::Firing(a), Entry::Firing(b)) => a.invocation == b.invocation,
            (Entry::Object(a), Entry::Object(b)) => {
                let is_same = a.invocation == b.invocation && a.name == b.name;
                is_same && (!a.replace || a.ordinal == b.ordinal)
            }
            _ => false,
        };
        let same = entry.session().and_then(|session| {
            self.of_session(session)
                .find(|(_, item)| repeats(&item.entry))
        });
        match (same, entry) {
            (Some((sequence, _)), _) => Verdict::Repeated(*sequence),
            (_, Entry::Object(object))
                if !object.replace && self.current(&object.name).is_some() =>
            {
                Verdict::Exists
            }
            (_, Entry::Delete(delete)) if self.current(&delete.name).is_none() => Verdict::Needless,
            (_, Entry::End(end)) if !self.is_open(end.session) => Verdict::Needless,
            _ => Verdict::Written,
        }
    }

    /// What a restart gives back: the entries of every open session, and the firings that took
    /// their objects.
    fn unfinished(&self) -> BTreeMap<u128, BTreeSet<Sequence>> {
        let sessions: BTreeSet<_> = self
            .log
            .values()
            .filter_map(|item| item.entry.session())
            .collect();
        let mut unfinished = BTreeMap::new();
        for session in sessions
            .into_iter()
            .filter(|session| self.is_open(*session))
        {
            let own: BTreeSet<_> = self
                .of_session(session)
                .map(|(sequence, _)| *sequence)
                .collect();
            let takes_one = |item: &&Item| match &item.entry {
                Entry::Firing(firing) => firing.inputs.iter().any(|input| own.contains(input)),
                _ => false,
            };
            let takers = self.log.iter().filter(|(_, item)| takes_one(item));
            let takers: Vec<_> = takers.map(|(sequence, _)| *sequence).collect();
            unfinished.insert(session, own.into_iter().chain(takers).collect());
        }
        unfinished
    }

    /// The inputs of firings that are to run again.
    fn inputs(&self) -> BTreeSet<Sequence> {
        let mut inputs = BTreeSet::new();
        for item in self.log.values() {
            let Entry::Firing(fired) = &item.entry else {
                continue;
            };
            let has_succeeded = self.of_session(fired.session).any(|(_, item)| {
                matches!(&item.entry, Entry::Success(success) if success.invocation == fired.invocation)
            });
            if self.is_open(fired.session) && !has_succeeded {
                inputs.extend(fired.inputs.iter().copied());
            }
        }
        inputs
    }
}

/// A history in the making.
struct History {
    random: Random,
    model: Model,
    next_session: u128,
    open: Vec<u128>,
}

impl History {
    fn key(&mut self) -> String {
        format!("key{}", self.random.below(6))
    }

    fn session(&mut self) -> u128 {
        if self.open.is_empty() || self.random.below(4) == 0 {
            self.next_session += 1;
            self.open.push(self.next_session);
        }
        self.open[self.random.below(self.open.len() as u64) as usize]
    }

    /// Some object of an open session: what a trigger could fire with.
    fn input(&mut self) -> Option<Sequence> {
        let objects = self.model.log.iter().filter(|(_, item)| match &item.entry {
            Entry::Object(object) => self.open.contains(&object.session),
            _ => false,
        });
        let objects: Vec<_> = objects.map(|(sequence, _)| *sequence).collect();
        let chosen = self.random.below(objects.len().max(1) as u64) as usize;
        objects.get(chosen).copied()
    }

    fn item(&mut self) -> Item {
        let (key, session, invocation) = (self.key(), self.session(), self.random.below(3));
        let entry = match self.random.below(16) {
            0..=2 => insert(&key, session, invocation),
            3..=6 => replace(&key, session, invocation, self.random.below(2)),
            7 | 8 => delete(&key),
            9 | 10 => firing(
                session,
                invocation,
                &self.input().into_iter().collect::<Vec<_>>(),
            ),
            11 => support::success(session, invocation),
            12 => request(session),
            13 => response(session),
            _ => {
                self.open.retain(|open| *open != session);
                end(session)
            }
        };
        let length = match self.random.below(8) {
            0 => 0,
            1 => 3000 + self.random.below(3000),
            _ => self.random.below(300),
        };
        Item {
            entry,
            payload: vec![self.random.next() as u8; length as usize],
        }
    }

    /// Writes some entries together; gives those of which nobody knows whether they are on the
    /// disk.
    fn write(&mut self, journal: &Journal) -> Vec<Item> {
        let count = 1 + self.random.below(6);
        let items: Vec<_> = (0..count).map(|_| self.item()).collect();
        let answers: Vec<_> = items
            .iter()
            .map(|item| {
                hand_over(
                    journal,
                    item.entry.clone(),
                    Payload::Bytes(item.payload.clone()),
                )
            })
            .collect();
        let mut unknown = Vec::new();
        for (item, answer) in items.into_iter().zip(answers) {
            let expected = self.model.judge(&item.entry);
            let verdict = match answer.wait() {
                Err(WriteError::Disk(_)) => {
                    unknown.push(item);
                    continue;
                }
                Ok(Receipt::Written(sequence)) => {
                    self.model.log.insert(sequence, item.clone());
                    Verdict::Written
                }
                Ok(Receipt::Repeated(sequence)) => Verdict::Repeated(sequence),
                Ok(Receipt::Needless) => Verdict::Needless,
                Err(WriteError::Exists { .. }) => Verdict::Exists,
                Err(error) => panic!("{error}"),
            };
            assert_eq!(verdict, expected, "{:?}", item.entry);
        }
        unknown
    }

    /// The journal that was opened holds what the model does.
    fn check(&self, journal: &Journal, recovered: Option<&Recovered>) {
        for key in 0..6 {
            let name = support::name(&format!("key{key}"));
            let stored = journal.find(&name.app, &name.bucket, &name.key);
            let found = stored.as_ref().map(|stored| stored.sequence);
            assert_eq!(found, self.model.current(&name), "{name}");
            if let Some(stored) = stored {
                self.check_payload(stored.sequence, &stored.payload.to_vec().expect("sound"));
            }
        }
        for input in self.model.inputs() {
            let stored = journal
                .object(input)
                .expect("an input is kept for its firing");
            self.check_payload(input, &stored.payload.to_vec().expect("sound"));
        }
        let Some(recovered) = recovered else {
            return;
        };
        let mut found = BTreeMap::new();
        for unfinished in &recovered.sessions {
            let entries = &unfinished.entries;
            assert!(
                entries.is_sorted_by_key(|entry| entry.sequence),
                "out of order"
            );
            for entry in entries {
                assert_eq!(entry.entry, self.model.log[&entry.sequence].entry);
                self.check_payload(entry.sequence, &entry.payload.to_vec().expect("sound"));
            }
            let sequences: BTreeSet<_> = entries.iter().map(|entry| entry.sequence).collect();
            found.insert(unfinished.session, sequences);
        }
        assert_eq!(found, self.model.unfinished());
    }

    fn check_payload(&self, sequence: Sequence, payload: &[u8]) {
        let expected = &self.model.log[&sequence].payload;
        assert!(
            payload == expected.as_slice(),
            "another payload of entry {sequence}"
        );
    }

    /// Takes into the model which entries of the last write are on the disk after all.
    fn settle(&mut self, unknown: &[Item], journal: &Journal, recovered: &Recovered) {
        let last_known = self.model.log.keys().last().copied().unwrap_or(0);
        let mut late: BTreeMap<Sequence, Item> = BTreeMap::new();
        let entries = recovered
            .sessions
            .iter()
            .flat_map(|unfinished| &unfinished.entries);
        for entry in entries.filter(|entry| entry.sequence > last_known) {
            let payload = entry.payload.to_vec().expect("sound");
            let entry_found = entry.entry.clone();
            late.insert(
                entry.sequence,
                Item {
                    entry: entry_found,
                    payload,
                },
            );
        }
        for key in 0..6 {
            let name = support::name(&format!("key{key}"));
            let stored = journal.find(&name.app, &name.bucket, &name.key);
            let Some(stored) = stored.filter(|stored| stored.sequence > last_known) else {
                continue;
            };
            let entry = Entry::Object(Object::clone(&stored.object));
            let payload = stored.payload.to_vec().expect("sound");
            late.insert(stored.sequence, Item { entry, payload });
        }
        for item in late.values() {
            let is_of_them = unknown
                .iter()
                .any(|other| other.entry == item.entry && other.payload == item.payload);
            assert!(is_of_them, "nobody has written {:?}", item.entry);
        }
        self.model.log.extend(late);
        // Deletions and ends cannot be seen themselves. Their numbers are among those that nothing
        // else has, behind what they end.
        for item in unknown {
            let (has_happened, behind) = match &item.entry {
                Entry::Delete(delete) => {
                    let name = &delete.name;
                    let is_gone = journal.find(&name.app, &name.bucket, &name.key).is_none();
                    let current = self.model.current(name);
                    (
                        is_gone && current.is_some(),
                        current.unwrap_or(0).max(last_known),
                    )
                }
                Entry::End(end) => {
                    let mut sessions = recovered.sessions.iter();
                    let is_gone = sessions.all(|unfinished| unfinished.session != end.session);
                    (is_gone && self.model.is_open(end.session), last_known)
                }
                _ => (false, 0),
            };
            if has_happened {
                let is_free = |number: &Sequence| !self.model.log.contains_key(number);
                let number = (behind + 1..).find(is_free).expect("numbers do not end");
                self.model.log.insert(number, item.clone());
            }
        }
    }
}

fn run(seed: u64) {
    let mut sim = Sim::new();
    let mut history = History {
        random: Random(seed),
        model: Model::default(),
        next_session: 0,
        open: Vec::new(),
    };
    let mut unknown = Vec::new();
    for _ in 0..RESTARTS {
        let (journal, recovered) = Journal::open_on(sim.disk(), SMALL).expect("recovered");
        history.settle(&unknown, &journal, &recovered);
        history.check(&journal, Some(&recovered));
        let model = &history.model;
        history.open.retain(|session| model.is_open(*session));
        let dies_at = sim.operations() + history.random.below(150);
        sim.set_fault(Fault::From(dies_at, EIO));
        unknown = Vec::new();
        while unknown.is_empty() && sim.operations() < dies_at {
            if history.random.below(4) == 0 {
                // The disk may die meanwhile.
                let _ = journal.compact();
            } else {
                unknown = history.write(&journal);
            }
        }
        history.check(&journal, None);
        drop(journal);
        sim = sim.crash(&mut history.random);
    }
}

#[test]
fn random_histories_survive_losses_of_power() {
    for seed in 0..HISTORIES {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}
