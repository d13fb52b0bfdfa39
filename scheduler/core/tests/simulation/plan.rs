//! What a history is about, drawn from its seed: the app, the machine, the clients, and which
//! misfortunes there are in it. Most histories have few of them, each a different few, so that no
//! misfortune hides another.

use pheromone_core::spec::{
    AppSpec, AtEnd, Backoff, BucketSpec, Entry, FunctionSpec, GroupClose, Keep, NameMatch,
    OnFailure, Pool, Scope, TriggerKind, TriggerSpec,
};
use pheromone_core::{CoreConfig, SpinPolicy};

use crate::app;
use crate::in_place::Program;
use crate::rng::Rng;
use crate::upstream::upstream;

const US: u64 = 1_000;
const MS: u64 = 1_000_000;

/// Keys that functions give, so few that they meet.
pub const KEYS: [&str; 6] = ["k0", "k1", "k2", "k3", "l0", "l1"];
/// Groups, of which the first is none.
pub const GROUPS: [&str; 4] = ["", "g1", "g2", "g3"];

/// How often what goes wrong, in a thousand; 0 in histories without it.
#[derive(Clone, Debug, Default)]
pub struct Misfortunes {
    /// A process dies in the middle of a function.
    pub crash: u64,
    /// A function does not return until it is killed.
    pub hang: u64,
    /// A function fails.
    pub error: u64,
    /// A function forbids a further attempt, cannot be loaded, or leaves threads behind.
    pub odd_end: u64,
    /// A process asked for cannot be started, or dies before it is ready.
    pub spawn: u64,
    /// A process does not take what is released to it for a long time.
    pub deaf: u64,
    /// A function does not look whether it is cancelled, and a process does not leave.
    pub stubborn: u64,
    /// The scheduler stands still.
    pub stall: u64,
    /// A client cancels its session.
    pub cancel: u64,
    /// A client does not fetch its response for a long time.
    pub slow_client: u64,
}

/// A history's plan.
#[derive(Clone, Debug)]
pub struct Plan {
    pub config: CoreConfig,
    pub spec: AppSpec,
    pub misfortunes: Misfortunes,
    /// Requests, over so much time.
    pub requests: u64,
    pub span_ns: u64,
    /// What functions may do over the whole history, so that it ends.
    pub actions: u64,
    /// The longest that a message is under way, either way.
    pub latency_ns: u64,
    /// The longest that executors are heard late beside that, so that they run ahead.
    pub behind_ns: u64,
    /// What may be gone on with in place.
    pub program: Program,
    /// How often in a thousand an object is sent so that its sender may go on from it.
    pub plain: u64,
    /// Functions do little but to send the next object: chains are long, and grants run out.
    pub walks: bool,
    /// Entries of a release ring.
    pub ring_slots: usize,
    /// The app is removed in the middle and deployed again under another id.
    pub is_replaced: bool,
    /// Some of its triggers gather across sessions.
    pub gathers: bool,
}

impl Plan {
    pub fn new(rng: &mut Rng) -> Self {
        let mut spec = a_spec(rng);
        spec.continuation = rng.chance(750);
        let walks = spec.continuation && rng.chance(60);
        if walks || rng.chance(300) {
            pave(rng, &mut spec);
        }
        let is_tight = rng.chance(150);
        if is_tight {
            spec.memory_bytes = rng.range(24 << 10, 120 << 10);
            spec.limits.create_wait_ns = *rng.pick(&[0, 200 * US + 3]);
        }
        let mut ring_slots = *rng.pick(&[1, 3, 64, 4096]);
        if rng.chance(100) {
            spec.limits.objects = rng.range(8, 40) as u32;
            // Who lets more than so many releases wait is taken for one that takes none back.
            ring_slots = 4096;
        }
        if rng.chance(100) {
            spec.limits.sessions = rng.range(1, 3) as u32;
            spec.limits.calls_waiting = rng.range(1, 3) as u32;
        }
        let mut misfortunes = a_few_misfortunes(rng);
        if fires_empty_windows(&spec) {
            // They fire while their session is open, and keep it busy where their functions take
            // longer than they do: for seconds while starts fail, and perhaps for ever.
            misfortunes.spawn = 0;
            spec.session_timeout_ns.get_or_insert(20 * MS);
        }
        let gathers = !walks && rng.chance(200) && gather_across(rng, &mut spec);
        Self {
            config: CoreConfig {
                keeps_on_disk: false,
                first_id: 0,
                scheduler_index: 0,
                schedulers: 1,
                executor_cores: rng.below(4) as u16,
                spin: *rng.pick(&[
                    SpinPolicy::Never,
                    SpinPolicy::Budget(20 * US),
                    SpinPolicy::Always,
                ]),
            },
            misfortunes,
            requests: if walks { 1 } else { rng.range(2, 12) },
            span_ns: *rng.pick(&[100 * US, 2 * MS, 20 * MS]),
            actions: if walks { 400 } else { rng.range(20, 160) },
            latency_ns: *rng.pick(&[500, 5 * US, 300 * US]),
            behind_ns: *rng.pick(&[0, 0, 20 * US, MS]),
            program: Program::new(&spec),
            plain: *rng.pick(&[0, 300, 900]),
            walks,
            ring_slots,
            is_replaced: rng.chance(150),
            gathers,
            spec,
        }
    }
}

/// Makes it likely that there is something to go on with.
fn pave(rng: &mut Rng, spec: &mut AppSpec) {
    spec.keep_request = false;
    for function in &mut spec.functions {
        function.priority = 0;
        if rng.chance(800) {
            function.attempts = 1;
            function.max_concurrency = None;
        }
    }
    let functions = spec.functions.len();
    for function in &mut spec.functions {
        if function.next.is_empty() {
            function.next.push(rng.index(functions) as u16);
        }
    }
    let bucket = rng.index(spec.buckets.len());
    let function = rng.index(functions) as u16;
    spec.buckets[bucket].triggers = vec![app::immediate(&[function])];
}

/// Has triggers of the types that can do so gather across sessions. Whether there are any.
fn gather_across(rng: &mut Rng, spec: &mut AppSpec) -> bool {
    let mut gathers = false;
    let buckets = spec.buckets.iter_mut();
    for trigger in buckets.flat_map(|bucket| &mut bucket.triggers) {
        match &mut trigger.kind {
            TriggerKind::ByBatchSize { .. } => {}
            // One that fires empty would do so for as long as its app is there.
            TriggerKind::ByTime { fire_empty, .. } => *fire_empty = false,
            TriggerKind::Redundant {
                k_of_n,
                cancel_rest,
                expire_ns,
            } => {
                k_of_n.get_or_insert((2, 3));
                cancel_rest.clear();
                *expire_ns = Some(rng.range(50 * US, 5 * MS));
            }
            _ => continue,
        }
        trigger.scope = Scope::Bucket;
        trigger.skip_ended = rng.chance(300);
        gathers = true;
    }
    gathers
}

fn fires_empty_windows(spec: &AppSpec) -> bool {
    let is_ticking = |trigger: &TriggerSpec| {
        matches!(
            trigger.kind,
            TriggerKind::ByTime {
                fire_empty: true,
                ..
            }
        )
    };
    let mut triggers = spec.buckets.iter().flat_map(|bucket| &bucket.triggers);
    triggers.any(is_ticking)
}

fn a_few_misfortunes(rng: &mut Rng) -> Misfortunes {
    let mut some = |chance: u64, per_mille: u64| if rng.chance(chance) { per_mille } else { 0 };
    Misfortunes {
        crash: some(350, 80),
        hang: some(200, 40),
        error: some(350, 120),
        odd_end: some(150, 40),
        spawn: some(150, 250),
        deaf: some(200, 200),
        stubborn: some(300, 400),
        stall: some(250, 30),
        cancel: some(300, 150),
        slow_client: some(300, 500),
    }
}

fn a_spec(rng: &mut Rng) -> AppSpec {
    let functions = rng.range(2, 5) as u16;
    let buckets = rng.range(1, 3) as u16;
    let all_functions: Vec<u16> = (0..functions).collect();
    let all_buckets: Vec<u16> = (0..buckets).collect();
    let names: Vec<String> = all_functions.iter().map(|f| format!("f{f}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut spec = app::app(&names);
    let max = rng.range(1, 4) as u16;
    spec.executors = Pool {
        min: rng.below(u64::from(max) + 1) as u16,
        max,
    };
    spec.keep_request = rng.chance(300);
    spec.response_required = rng.chance(150);
    spec.session_timeout_ns = rng.chance(300).then(|| rng.range(500 * US, 20 * MS));
    spec.limits.dead_letters_bytes = *rng.pick(&[0, 700, 3_000, 64 << 20]);
    spec.limits.forward_delay_ns = *rng.pick(&[0, 5 * US, 50 * US]);
    spec.limits.cancel_grace_ns = rng.range(50 * US, 2 * MS);
    if rng.chance(250) {
        spec.limits.inputs = rng.range(3, 5) as u32;
    }
    spec.entry = Some(if rng.chance(800) {
        Entry::Function(*rng.pick(&all_functions))
    } else {
        Entry::Bucket(*rng.pick(&all_buckets))
    });
    for function in &mut spec.functions {
        a_function(rng, function, &all_functions, &all_buckets);
    }
    spec.buckets = all_buckets
        .iter()
        .map(|number| a_bucket(rng, *number, &all_functions, spec.limits.inputs))
        .collect();
    part_mutual_barriers(&mut spec);
    spec
}

fn a_function(rng: &mut Rng, function: &mut FunctionSpec, functions: &[u16], buckets: &[u16]) {
    function.next = rng.some(functions, 200);
    function.calls = rng.some(functions, 150);
    function.sends = rng.chance(600).then(|| rng.some(buckets, 600));
    function.timeout_ns = rng.chance(600).then(|| rng.range(100 * US, 3 * MS));
    function.attempts = if rng.chance(400) {
        rng.range(2, 4) as u32
    } else {
        1
    };
    function.backoff = Backoff {
        first_ns: rng.range(10 * US, 500 * US),
        max_ns: rng.range(500 * US, 2 * MS),
        // Nothing but the core knows the shift; its own tests are about it.
        jitter: 0.0,
    };
    if rng.chance(350) {
        function.on_failure = OnFailure::Continue;
    }
    function.max_concurrency = rng.chance(200).then(|| rng.range(1, 2) as u32);
    function.priority = *rng.pick(&[0, 0, 0, -1, 3]);
}

fn a_bucket(rng: &mut Rng, number: u16, functions: &[u16], inputs_max: u32) -> BucketSpec {
    let keep = *rng.pick(&[Keep::Session, Keep::UntilConsumed]);
    let triggers = (0..rng.range(0, 3))
        .map(|place| {
            let kind = a_kind(rng, functions, inputs_max);
            let at_end = an_end(rng, &kind);
            let mut consumers = rng.some(functions, 250);
            if consumers.is_empty() {
                consumers.push(*rng.pick(functions));
            }
            TriggerSpec {
                at_end,
                ..app::trigger(&format!("t{place}"), kind, &consumers)
            }
        })
        .collect();
    app::bucket(&format!("b{number}"), keep, triggers)
}

fn a_kind(rng: &mut Rng, functions: &[u16], inputs_max: u32) -> TriggerKind {
    let most = u64::from(inputs_max.min(4));
    match rng.below(11) {
        0 => TriggerKind::Immediate,
        1 => TriggerKind::ByName(NameMatch::Key((*rng.pick(&KEYS)).into())),
        2 => TriggerKind::ByName(NameMatch::Pattern(
            (*rng.pick(&["k*", "*1", "~*", "l?", "*"])).into(),
        )),
        3 => {
            let mut keys = rng.some(&KEYS, 400);
            keys.truncate(most as usize);
            if keys.is_empty() {
                keys.push("k0");
            }
            TriggerKind::BySet {
                keys: keys.into_iter().map(Into::into).collect(),
            }
        }
        4 => TriggerKind::ByBatchSize {
            count: rng.range(1, most) as u32,
            linger_ns: rng.chance(500).then(|| rng.range(0, 300 * US)),
            per_group: rng.chance(400),
        },
        5 => {
            let fire_empty = rng.chance(250);
            let window_ns = rng.range(if fire_empty { 300 * US } else { 5 * US }, 3 * MS);
            TriggerKind::ByTime {
                window_ns,
                slide_ns: if rng.chance(500) {
                    window_ns
                } else {
                    rng.range(window_ns / 4 + 1, window_ns)
                },
                fire_empty,
                per_group: rng.chance(400),
            }
        }
        6 => {
            let k = rng.range(1, most) as u32;
            TriggerKind::Redundant {
                k_of_n: rng.chance(600).then(|| (k, k + rng.below(4) as u32)),
                cancel_rest: rng.some(functions, 300),
                expire_ns: None,
            }
        }
        7 => TriggerKind::DynamicJoin,
        8 => a_group(rng, GroupClose::Sources(rng.clone().below(4) as u32)),
        9 => a_group(rng, GroupClose::SourcesAtRunTime),
        _ => {
            let after = *rng.pick(functions);
            a_group(rng, GroupClose::After(after))
        }
    }
}

fn a_group(rng: &mut Rng, close: GroupClose) -> TriggerKind {
    TriggerKind::DynamicGroup {
        close,
        fire_empty: rng.chance(400),
        order_by_key: rng.chance(400),
    }
}

/// Something that the manifest allows for the type.
fn an_end(rng: &mut Rng, kind: &TriggerKind) -> AtEnd {
    let has_timer = matches!(
        kind,
        TriggerKind::ByTime { .. }
            | TriggerKind::ByBatchSize {
                linger_ns: Some(_),
                ..
            }
    );
    let ends = [
        AtEnd::Fire,
        AtEnd::Fire,
        AtEnd::Drop,
        AtEnd::Fail,
        AtEnd::Wait,
        AtEnd::Wait,
    ];
    *rng.pick(&ends[..if has_timer { 6 } else { 4 }])
}

/// Two barriers each upstream of the other are refused by `check`: the second one becomes a batch.
fn part_mutual_barriers(spec: &mut AppSpec) {
    let mut barriers: Vec<(Vec<bool>, Vec<u16>)> = Vec::new();
    for bucket in 0..spec.buckets.len() {
        for place in 0..spec.buckets[bucket].triggers.len() {
            let trigger = &spec.buckets[bucket].triggers[place];
            let TriggerKind::DynamicGroup {
                close: GroupClose::After(after),
                ..
            } = trigger.kind
            else {
                continue;
            };
            let up = upstream(spec, after);
            let functions = trigger.functions.clone();
            let feeds = |into: &[bool], from: &[u16]| from.iter().any(|&f| into[usize::from(f)]);
            let is_mutual = barriers
                .iter()
                .any(|(other, from)| feeds(&up, from) && feeds(other, &functions));
            if is_mutual {
                spec.buckets[bucket].triggers[place].kind = TriggerKind::ByBatchSize {
                    count: 2,
                    linger_ns: None,
                    per_group: false,
                };
            } else {
                barriers.push((up, functions));
            }
        }
    }
}
