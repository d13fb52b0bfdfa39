//! Several cores in one world, with the messages between them on their way for as long as a test
//! likes: in order from one core to another, in any order otherwise.
//!
//! The world around them is one: processes, memory, callers. What a test does with an executor or
//! a session happens at the core whose it is.

use std::collections::{BTreeMap, VecDeque};

use pheromone_core::event::{AppId, Event, ExecutorId, SessionId};
use pheromone_core::share::Division;
use pheromone_core::spec::AppSpec;
use pheromone_core::{Core, CoreConfig, PeerMessage, SpinPolicy};

use super::{APP, CONFIG, Call, World};

pub struct Cluster {
    /// With the core of `at`.
    world: World,
    /// `None`: in the world.
    cores: Vec<Option<Core>>,
    at: u8,
    /// By sender and receiver.
    on_their_way: BTreeMap<(u8, u8), VecDeque<PeerMessage>>,
    /// Messages that have been delivered.
    pub delivered: u64,
}

impl Cluster {
    /// So many cores, each with its share of the app.
    pub fn new(spec: &AppSpec, schedulers: u8) -> Self {
        let config = |scheduler_index| CoreConfig {
            scheduler_index,
            schedulers,
            spin: SpinPolicy::Never,
            ..CONFIG
        };
        let mut cores: Vec<_> = (1..schedulers)
            .map(|index| Some(Core::new(config(index))))
            .collect();
        cores.insert(0, None);
        let mut cluster = Self {
            world: World::empty(config(0)),
            cores,
            at: 0,
            on_their_way: BTreeMap::new(),
            delivered: 0,
        };
        cluster.deploy(APP, spec);
        cluster
    }

    /// Each core has its share of an app.
    pub fn deploy(&mut self, app: AppId, spec: &AppSpec) {
        let schedulers = self.homes();
        let division = Division::new(spec, app, schedulers);
        assert_eq!(division.count(), schedulers, "every core has a share");
        for index in 0..schedulers {
            self.at(index, |world| world.deploy(app, spec.clone()));
        }
    }

    pub fn homes(&self) -> u8 {
        self.cores.len() as u8
    }

    /// The world, to be looked at.
    pub fn world(&mut self) -> &mut World {
        &mut self.world
    }

    /// Something happens at one core.
    pub fn at<T>(&mut self, index: u8, act: impl FnOnce(&mut World) -> T) -> T {
        if index != self.at {
            let core = self.cores[usize::from(index)].take().expect("such a core");
            let before = std::mem::replace(&mut self.world.core, core);
            self.cores[usize::from(self.at)] = Some(before);
            self.at = index;
            self.world.sink.turn_to(index);
        }
        let result = act(&mut self.world);
        for (to, message) in self.world.sink.peers.drain(..) {
            let way = self.on_their_way.entry((index, to)).or_default();
            way.push_back(message);
        }
        result
    }

    /// Something happens at the core that a process belongs to.
    pub fn with<T>(&mut self, id: ExecutorId, act: impl FnOnce(&mut World) -> T) -> T {
        let owner = self.world.sink.owners[&id];
        self.at(owner, act)
    }

    /// Something happens at the core where a session is at home.
    pub fn home_of<T>(&mut self, session: SessionId, act: impl FnOnce(&mut World) -> T) -> T {
        self.at((session.0 >> 56) as u8, act)
    }

    /// The pairs of cores between which messages are on their way.
    pub fn ways(&self) -> Vec<(u8, u8)> {
        let ways = self.on_their_way.iter();
        ways.filter(|(_, messages)| !messages.is_empty())
            .map(|(&way, _)| way)
            .collect()
    }

    /// How many are on their way from one core to another.
    pub fn count_on(&self, way: (u8, u8)) -> usize {
        self.on_their_way.get(&way).map_or(0, VecDeque::len)
    }

    /// The first message from one core to another arrives.
    pub fn deliver(&mut self, way: (u8, u8)) {
        let messages = self.on_their_way.get_mut(&way);
        let message = messages.and_then(VecDeque::pop_front);
        let message = message.expect("one is on its way");
        self.delivered += 1;
        self.at(way.1, |world| {
            world.event(Event::Peer { message: &message });
        });
    }

    /// All messages arrive, and those that follow from them.
    pub fn deliver_all(&mut self) {
        while let Some(&way) = self.ways().first() {
            self.deliver(way);
        }
    }

    /// Time passes everywhere, a timer at a time.
    pub fn pass(&mut self, ns: u64) {
        let end_ns = self.world.now_ns + ns;
        loop {
            let mut next: Option<(u64, u8)> = None;
            for index in 0..self.homes() {
                let due_ns = self.at(index, |world| world.core.next_timer_ns());
                let due = due_ns.filter(|&due_ns| due_ns <= end_ns);
                next = due
                    .map(|due_ns| (due_ns, index))
                    .into_iter()
                    .chain(next)
                    .min();
            }
            let Some((due_ns, index)) = next else {
                break;
            };
            // A timer that is due now and has been told may be told again a little later.
            self.world.now_ns = due_ns.max(self.world.now_ns + 1);
            self.at(index, |world| world.event(Event::Tick));
        }
        self.world.now_ns = self.world.now_ns.max(end_ns);
    }

    pub fn cancel(&mut self, call: Call) {
        self.home_of(call.session, |world| world.cancel(call));
    }

    /// The node reads whatever has been answered.
    pub fn take_responses(&mut self) {
        let unread: Vec<SessionId> = self.world.sink.unread.keys().copied().collect();
        for session in unread {
            let request = self.world.sink.responses[&session].request;
            let call = Call { request, session };
            self.home_of(session, |world| world.take_response(call));
        }
    }

    /// Nothing is on its way, and once the dead letters are dropped nothing is left of any session
    /// at any core.
    pub fn assert_empty(&mut self) {
        assert_eq!(self.ways(), []);
        for index in 0..self.homes() {
            self.at(index, |world| world.drop_letters(None));
        }
        self.deliver_all();
        for index in 0..self.homes() {
            self.at(index, World::assert_empty);
        }
    }
}
