//! Work whose outcome does not depend on the order in which things happen: what each function does
//! follows from the objects that led to it alone, nothing fails, and what gathers objects fires
//! functions that only count. So however fast executors and the scheduler are, and whoever starts
//! what, the same seed must come to the same [`Outcomes`].

use std::collections::BTreeMap;

use pheromone_core::event::{RequestId, SessionId};
use pheromone_core::spec::{
    AppSpec, AtEnd, Entry, GroupClose, Keep, Pool, TriggerKind, TriggerSpec,
};
use pheromone_shm::message::Target;

use crate::app;
use crate::history::{End, SeenKey, Start};
use crate::in_place::Program;
use crate::plan::{GROUPS, Misfortunes, Plan};
use crate::process::{Action, Finish, Script, Sent};
use crate::rng::Rng;

const US: u64 = 1_000;
/// Functions: the entry, those that send on, and the one that gets what is gathered.
const ROOT: u16 = 0;
const WALKERS: [u16; 3] = [1, 2, 3];
const LEAF: u16 = 4;
/// Buckets by what their triggers do.
const EACH: u16 = 0;
const BATCHES: u16 = 1;
const PARTS: u16 = 2;
const GROUPED: u16 = 3;
/// Keys of the set in `PARTS`, each sent at most once.
const PART_KEYS: [&str; 3] = ["part-0", "part-1", "part-2"];
/// Objects between a request and the last that it leads to.
const DEPTH_MAX: u32 = 12;

/// What came of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    end: Option<(End, bool)>,
    response_bytes: Vec<u64>,
    /// How often each function has begun, by its trigger and number of inputs.
    begun: BTreeMap<(u16, u16, usize), u64>,
}

/// What came of a history's requests, and what the app counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    requests: BTreeMap<u64, Outcome>,
    pub error_events: u64,
    pub dropped: u64,
    pub fired: u64,
}

impl Outcomes {
    pub fn begins(&mut self, request: u64, start: &Start) {
        let what = (start.function, start.trigger, start.inputs.len());
        *self.of(request).begun.entry(what).or_default() += 1;
    }

    pub fn ends(&mut self, request: u64, end: End, answered: bool) {
        self.of(request).end = Some((end, answered));
    }

    pub fn responds(&mut self, request: u64, bytes: impl Iterator<Item = u64>) {
        self.of(request).response_bytes.extend(bytes);
    }

    fn of(&mut self, request: u64) -> &mut Outcome {
        self.requests.entry(request).or_default()
    }

    pub fn count_begun(&self) -> u64 {
        let outcomes = self.requests.values();
        outcomes.flat_map(|outcome| outcome.begun.values()).sum()
    }
}

/// Where in the tree of objects each invocation is, by which it does what it does.
pub struct Lineage {
    seed: u64,
    requests: BTreeMap<SessionId, u64>,
    places: BTreeMap<u64, Place>,
}

#[derive(Clone, Copy)]
struct Place {
    path: u64,
    depth: u32,
}

impl Place {
    fn child(self, branch: impl IntoIterator<Item = u64>) -> Self {
        let mix = |path: u64, part: u64| Rng::new(path ^ part.wrapping_mul(0x9E37_79B9)).next();
        Self {
            path: branch.into_iter().fold(self.path, mix),
            depth: self.depth + 1,
        }
    }
}

impl Lineage {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            requests: BTreeMap::new(),
            places: BTreeMap::new(),
        }
    }

    pub fn accepted(&mut self, request: RequestId, session: SessionId) {
        self.requests.insert(session, request.0);
    }

    pub fn request_of(&self, session: SessionId) -> u64 {
        self.requests[&session]
    }

    pub fn has_caller(&self, request: u64) -> bool {
        Rng::new(self.seed ^ request).chance(700)
    }

    /// What an invocation does.
    pub fn script(&mut self, start: &Start) -> Script {
        let place = self.place(start);
        self.places.insert(start.invocation, place);
        let mut rng = Rng::new(place.path);
        let mut actions = Vec::new();
        if start.function == ROOT {
            actions.push(Action::Respond(SessionId(0), rng.range(1, 500)));
            let named = rng.some(&PART_KEYS, 800).into_iter();
            let parts = named.map(|key| Sent::named(Target::Bucket(PARTS), key));
            actions.extend(parts.map(|sent| Action::Publish(sent, 8)));
        }
        if start.function != LEAF && place.depth < DEPTH_MAX {
            let most = if start.function == ROOT { 4 } else { 2 };
            for _ in 0..rng.range(u64::from(rng.clone().chance(600)), most) {
                let sent = a_sent(&mut rng);
                actions.push(Action::Publish(sent, rng.duration(3_000)));
            }
        }
        if rng.chance(400) {
            let at = rng.index(actions.len() + 1);
            actions.insert(at, Action::Work(rng.duration(100 * US)));
        }
        Script {
            actions,
            finish: Finish::Return(0),
        }
    }

    fn place(&self, start: &Start) -> Place {
        let origin = Place {
            path: self.seed,
            depth: 0,
        };
        let first = start.inputs.first().expect("everything here has inputs");
        let (parent, branch) = match first.key {
            SeenKey::Auto(by, ordinal) => (self.places[&by], u64::from(ordinal)),
            SeenKey::Named(_) => (origin, self.request_of(start.session)),
        };
        let function = u64::from(start.function);
        parent.child([u64::from(first.bucket), branch, function])
    }
}

fn a_sent(rng: &mut Rng) -> Sent {
    match rng.below(8) {
        0..3 => Sent::plain(Target::Next),
        3 => Sent::plain(Target::Function(*rng.pick(&WALKERS))),
        4 | 5 => Sent::plain(Target::Bucket(EACH)),
        6 => Sent::plain(Target::Bucket(BATCHES)),
        _ => Sent::of_group(Target::Bucket(GROUPED), rng.pick::<&str>(&GROUPS)),
    }
}

impl Plan {
    /// Steady work, with delays and without failures.
    pub fn steady(rng: &mut Rng) -> Self {
        let mut plan = Self::new(rng);
        plan.spec = a_spec(rng);
        plan.misfortunes = Misfortunes {
            deaf: plan.misfortunes.deaf,
            stall: plan.misfortunes.stall,
            slow_client: plan.misfortunes.slow_client,
            ..Misfortunes::default()
        };
        plan.requests = rng.range(1, 8);
        plan.is_replaced = false;
        plan.gathers = false;
        plan.with_continuation(true)
    }

    pub fn with_continuation(mut self, is_on: bool) -> Self {
        self.spec.continuation = is_on;
        self.program = Program::new(&self.spec);
        self
    }
}

fn a_spec(rng: &mut Rng) -> AppSpec {
    let mut spec = app::app(&["root", "walk", "stroll", "run", "leaf"]);
    let max = rng.range(1, 4) as u16;
    spec.executors = Pool { min: 1, max };
    spec.entry = Some(Entry::Function(ROOT));
    spec.limits.forward_delay_ns = *rng.pick(&[0, 5 * US, 50 * US]);
    for function in &mut spec.functions[..usize::from(LEAF)] {
        function.next = vec![*rng.pick(&WALKERS)];
        if rng.chance(150) {
            // Not in place, but two are fired by one object.
            function.next = WALKERS[..2].to_vec();
        }
        function.calls = WALKERS.to_vec();
        if rng.chance(150) {
            function.max_concurrency = Some(1);
        }
        if rng.chance(150) {
            function.priority = -1;
        }
    }
    let keep = |rng: &mut Rng| *rng.pick(&[Keep::Session, Keep::UntilConsumed]);
    // All that send into the groups are upstream of the function that `EACH` fires, so that none
    // closes before the last object has come.
    let after = WALKERS[0];
    let gathered = [
        (EACH, app::immediate(&[after])),
        (BATCHES, a_batch(rng)),
        (
            PARTS,
            TriggerSpec {
                at_end: AtEnd::Drop,
                ..app::by_set(&PART_KEYS, &[LEAF])
            },
        ),
        (GROUPED, a_group(after)),
    ];
    spec.buckets = gathered
        .into_iter()
        .map(|(number, trigger)| app::bucket(&format!("b{number}"), keep(rng), vec![trigger]))
        .collect();
    spec
}

fn a_batch(rng: &mut Rng) -> TriggerSpec {
    let kind = TriggerKind::ByBatchSize {
        count: rng.range(2, 4) as u32,
        linger_ns: None,
        per_group: false,
    };
    TriggerSpec {
        at_end: AtEnd::Fire,
        ..app::trigger("batch", kind, &[LEAF])
    }
}

fn a_group(after: u16) -> TriggerSpec {
    let kind = TriggerKind::DynamicGroup {
        close: GroupClose::After(after),
        fire_empty: false,
        order_by_key: false,
    };
    app::trigger("group", kind, &[LEAF])
}
