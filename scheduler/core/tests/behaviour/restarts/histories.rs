//! Random apps whose functions always do the same for the same inputs, on a node that is killed
//! again and again: each durable object, recorded firing and response takes effect once, and every
//! session ends with everything that was to be done.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use pheromone_core::CoreConfig;
use pheromone_core::event::{Death, ExecutorId, SessionId};
use pheromone_core::spec::{AppSpec, AtEnd, GroupClose, Keep, Retain, TriggerKind};

use super::disk::{Disk, Waiting, acknowledge};
use crate::common::app::{app, batch, bucket, by_set, immediate, trigger};
use crate::common::{CONFIG, Open, Seen, World};

const SEEDS: u64 = 400;
const SESSIONS: u64 = 3;
/// Steps after which a history that has not ended never will.
const STEPS_MAX: u64 = 60_000;
/// Kills of the node in one history.
const KILLS: u64 = 12;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn is_one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

const SPLIT: u16 = 0;
const WORK: u16 = 1;
const RELAY: u16 = 2;
const MERGE: u16 = 3;
const PAIR: u16 = 4;
const LAST: u16 = 5;
const FUNCTIONS: [&str; 6] = ["split", "work", "relay", "merge", "pair", "last"];
const PARTS: u16 = 0;
const RESULTS: u16 = 1;
const PLAIN: u16 = 2;
const PAIRS: u16 = 3;

/// `split` sends parts, `work` makes a result of each: itself, through a direct object, or through
/// one of a plain bucket that `relay` takes. A set of all results goes to `merge`, which responds;
/// pairs of them go to `pair`, whose objects `last` has when all is quiet.
#[derive(Clone, Copy, Debug)]
struct Shape {
    parts: u64,
    has_pairs: bool,
    keeps: Keep,
}

impl Shape {
    fn new(random: &mut Random) -> Self {
        Self {
            parts: 1 + random.below(5),
            has_pairs: random.is_one_in(2),
            keeps: if random.is_one_in(2) {
                Keep::Session
            } else {
                Keep::UntilConsumed
            },
        }
    }

    fn spec(self) -> AppSpec {
        let mut spec = app(&FUNCTIONS);
        for function in &mut spec.functions {
            function.attempts = 1000;
            function.backoff.first_ns = 1;
            function.backoff.max_ns = 1;
        }
        spec.functions[usize::from(SPLIT)].durable = true;
        spec.functions[usize::from(WORK)].next = vec![RELAY];
        let keys: Vec<String> = (0..self.parts).map(|part| format!("r{part}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let mut results = vec![by_set(&keys, &[MERGE])];
        if self.has_pairs {
            let pairs = batch(2, None);
            let mut pairs = trigger("pairs", pairs, &[PAIR]);
            pairs.at_end = AtEnd::Fire;
            results.push(pairs);
        }
        let last = TriggerKind::DynamicGroup {
            close: GroupClose::After(PAIR),
            fire_empty: false,
            order_by_key: true,
        };
        spec.buckets = vec![
            bucket("parts", self.keeps, vec![immediate(&[WORK])]),
            bucket("results", self.keeps, results),
            bucket("plain", self.keeps, vec![immediate(&[RELAY])]),
            bucket("pairs", self.keeps, vec![trigger("last", last, &[LAST])]),
        ];
        for durable in [PARTS, RESULTS, PAIRS] {
            spec.buckets[usize::from(durable)].durable = true;
            spec.buckets[usize::from(durable)].retain = Retain::Forever;
        }
        spec
    }
}

/// What a function does next.
#[derive(Clone, Debug)]
enum Act {
    Put(u16, String),
    Auto(u16),
    Next,
    Respond,
}

/// What a function does for these inputs.
fn script(shape: Shape, open: &Open) -> VecDeque<Act> {
    let first = open.inputs.first();
    let key = first.map(Seen::key_text).unwrap_or_default();
    let part = key.trim_start_matches(['p', 'r', 'x']);
    let result = |part: &str| Act::Put(RESULTS, format!("r{part}"));
    match open.function {
        SPLIT => (0..shape.parts)
            .map(|part| Act::Put(PARTS, format!("p{part}")))
            .collect(),
        WORK => match part.parse::<u64>().expect("a part has a number") % 3 {
            0 => [result(part)].into(),
            1 => [Act::Next].into(),
            _ => [Act::Put(PLAIN, format!("x{part}"))].into(),
        },
        // The label of a direct object says which part it is.
        RELAY => [result(part)].into(),
        MERGE => [Act::Respond].into(),
        PAIR => [Act::Auto(PAIRS)].into(),
        _ => VecDeque::new(),
    }
}

struct History {
    shape: Shape,
    spec: AppSpec,
    random: Random,
    world: World,
    disk: Disk,
    waiting: Waiting,
    /// What is left to be done by what runs, with the dispatches that it has seen.
    scripts: HashMap<ExecutorId, (u64, VecDeque<Act>, String)>,
    lives: u64,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let shape = Shape::new(&mut random);
        let spec = shape.spec();
        let mut history = Self {
            shape,
            world: world(&spec, 0),
            spec,
            random,
            disk: Disk::default(),
            waiting: Waiting::default(),
            scripts: HashMap::new(),
            lives: 1,
        };
        for number in 0..SESSIONS {
            let session = SessionId(2 * number + 1);
            history.disk.request(session, SPLIT);
            history.world.call_durable("split", session);
        }
        history
    }

    /// One step: whether there is anything left to happen.
    fn step(&mut self) -> bool {
        self.waiting.collect(&mut self.world);
        let running = self.running();
        if self.lives <= KILLS && self.random.is_one_in(40) {
            self.crash();
            return true;
        }
        let has_entries = !self.waiting.entries.is_empty();
        if has_entries && (running.is_empty() || self.random.is_one_in(3)) {
            let asked = self.waiting.entries.pop_front().expect("there are some");
            let receipt = self.disk.take(&self.spec, &asked);
            acknowledge(&mut self.world, asked, receipt);
            return true;
        }
        if running.is_empty() {
            self.world.pass(10);
            return self.world.core.next_timer_ns().is_some() || !self.running().is_empty();
        }
        let id = running[self.random.below(running.len() as u64) as usize];
        if self.random.is_one_in(50) {
            self.scripts.remove(&id);
            self.world.die(id, Death::Signaled(11));
            return true;
        }
        self.run(id);
        true
    }

    fn running(&self) -> Vec<ExecutorId> {
        let executors = self.world.sink.executors.iter();
        let running = executors.filter(|(_, executor)| executor.open.is_some());
        running.map(|(&id, _)| id).collect()
    }

    fn run(&mut self, id: ExecutorId) {
        let open = self.world.opened(id).clone();
        let run = open.invocation ^ u64::from(open.attempt);
        let is_new = self.scripts.get(&id).is_none_or(|(of, ..)| *of != run);
        if is_new {
            let key = open.inputs.first().map(Seen::key_text);
            let acts = script(self.shape, &open);
            self.scripts
                .insert(id, (run, acts, key.unwrap_or_default()));
        }
        let (_, acts, key) = self.scripts.get_mut(&id).expect("it has one");
        let key = key.clone();
        match acts.pop_front() {
            Some(Act::Put(bucket, key)) => {
                let bucket = self.spec.buckets[usize::from(bucket)].name.clone();
                self.world.put_by(id, &bucket, &key);
            }
            Some(Act::Auto(bucket)) => {
                let bucket = self.spec.buckets[usize::from(bucket)].name.clone();
                self.world.auto_by(id, &bucket);
            }
            Some(Act::Next) => self.world.label_next_by(id, &key),
            Some(Act::Respond) => self.world.respond_by(id),
            None => {
                self.scripts.remove(&id);
                self.world.done(id);
            }
        }
    }

    /// The node is killed: some of what was on its way has come to disk.
    fn crash(&mut self) {
        let entries = self.random.below(self.waiting.entries.len() as u64 + 1);
        let waiting: Vec<_> = self.waiting.entries.drain(..).collect();
        for asked in waiting.into_iter().take(entries as usize) {
            self.disk.take(&self.spec, &asked);
        }
        assert!(
            self.world.sink.error_events.is_empty(),
            "{:?}",
            self.world.sink.error_events
        );
        self.world = world(&self.spec, self.lives);
        self.lives += 1;
        self.waiting = Waiting::default();
        self.scripts.clear();
        for session in self.disk.unfinished() {
            let restored = self.disk.restored(session, &mut self.world);
            self.world.try_restore(restored).expect("there is room");
        }
    }

    fn run_to_its_end(&mut self) {
        for _ in 0..STEPS_MAX {
            if !self.step() {
                return self.judge();
            }
        }
        panic!("it does not come to an end: {:#?}", self.disk);
    }

    /// Everything has been done, and once.
    fn judge(&mut self) {
        assert!(
            self.world.sink.error_events.is_empty(),
            "{:?}",
            self.world.sink.error_events
        );
        assert_eq!(self.disk.firings_repeated, 0);
        for (id, of) in &self.disk.sessions {
            assert!(of.has_ended, "session {id:?} is open: {of:#?}");
            assert!(of.response.is_some(), "nobody has answered {id:?}");
            let mut named = BTreeMap::<(u16, &str), u32>::new();
            for object in &of.objects {
                *named.entry((object.bucket, &object.key)).or_default() += 1;
            }
            assert!(named.values().all(|&count| count == 1), "{named:?}");
            let count = |bucket| named.keys().filter(|(of, _)| *of == bucket).count() as u64;
            let parts = self.shape.parts;
            assert_eq!((count(PARTS), count(RESULTS)), (parts, parts), "{named:?}");
            let pairs = if self.shape.has_pairs {
                parts.div_ceil(2)
            } else {
                0
            };
            // A batch that fires at the end is made of what is left, which after a restart may be
            // two of what had been three.
            assert_eq!(count(PAIRS), pairs, "{named:?}");
            self.judge_firings(of);
        }
        self.world.assert_empty();
    }

    /// Each object has been taken once by each trigger and function.
    fn judge_firings(&self, of: &super::disk::Session) {
        let mut taken = BTreeSet::new();
        let mut merges = 0;
        for firing in &of.firings {
            merges += u32::from(firing.function == MERGE);
            for &input in &firing.inputs {
                let is_first = taken.insert((firing.trigger, firing.function, input));
                assert!(is_first, "an object is taken twice: {of:#?}");
            }
        }
        assert_eq!(merges, 1);
    }
}

fn world(spec: &AppSpec, life: u64) -> World {
    let config = CoreConfig {
        first_id: (life + 1) << 20,
        ..CONFIG
    };
    World::with_config(spec.clone(), config)
}

#[test]
fn whatever_is_killed_and_when_everything_takes_effect_once() {
    let seeds = std::env::var("PHEROMONE_SEEDS").ok();
    let seeds = seeds.and_then(|text| {
        let (from, to) = text.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    });
    for seed in seeds.unwrap_or(0..SEEDS) {
        let result = std::panic::catch_unwind(|| History::new(seed).run_to_its_end());
        if let Err(panic) = result {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
