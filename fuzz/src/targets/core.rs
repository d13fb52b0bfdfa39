//! A scheduler's core that hears anything, in any state and order: from executors as their rings
//! hold it, from outside, from the disk, from the machine.
//!
//! Input: steps of a kind, a number (who, or which), and so many bytes. What executors say is
//! decoded as the scheduler does it; what does not decode is told to the core as garbled. After the
//! last step the app goes, and nothing may be left.

use std::path::Path;
use std::sync::OnceLock;

use pheromone_core::event::{
    AppId, Death, Destination, Event, ExecutorId, FoundObject, Ingress, NotFound, Request,
    RequestId, Retry, SessionId, Written,
};
use pheromone_core::spec::AppSpec;
use pheromone_core::{Core, CoreConfig, SpinPolicy};
use pheromone_manifest::{Purpose, ReadOptions, parse_with};
use pheromone_shm::message::{Extent, FromExecutor, HeadersRef};
use pheromone_shm::wire::{decode_from_executor, encode_from_executor};

use self::ear::{Asked, Ear};
use super::{from_executor, take, take_byte};

mod ear;

/// The app, as a manifest.
const MANIFEST: &str = include_str!("core.toml");
const APP: AppId = AppId(0);
/// Steps of one input, at most.
const STEPS_MAX: usize = 400;
/// Time that passes in one step, at most: a machine runs for years, and not for centuries.
const STEP_NS_MAX: u64 = 1 << 44;
/// What an object may cost beyond what the quota has promised.
const SLACK_PER_OBJECT: u64 = 256;

/// Kinds of steps.
mod kind {
    pub const SAY: u8 = 0;
    pub const CALL: u8 = 1;
    pub const PUT: u8 = 2;
    pub const JOIN: u8 = 3;
    pub const PASS: u8 = 4;
    pub const DISK: u8 = 5;
    pub const FAILURE: u8 = 6;
    pub const TAKEN: u8 = 7;
    pub const CANCEL: u8 = 8;
    pub const DIE: u8 = 9;
    pub const DYING: u8 = 10;
    pub const SPAWN_FAILS: u8 = 11;
    pub const ROOM: u8 = 12;
    pub const LETTER: u8 = 13;
    pub const SWEEP: u8 = 14;
    pub const FLUSH: u8 = 15;
    pub const COUNT: u8 = 16;
}

/// The spec of the app that all inputs have.
pub(crate) fn spec() -> AppSpec {
    static SPEC: OnceLock<AppSpec> = OnceLock::new();
    let spec = SPEC.get_or_init(|| {
        let options = ReadOptions {
            purpose: Purpose::Look,
            executors_max: Some(3),
        };
        match parse_with(MANIFEST, "core.toml", Path::new("/"), &options) {
            Ok(app) => app.spec,
            Err(wrong) => panic!("{}", wrong.render(false)),
        }
    });
    spec.clone()
}

/// Takes the steps, then everything away.
pub fn run(mut bytes: &[u8]) {
    let mut storm = Storm::new();
    for _ in 0..STEPS_MAX {
        if bytes.is_empty() {
            break;
        }
        let (kind, number) = (take_byte(&mut bytes), take_byte(&mut bytes));
        let count = usize::from(take_byte(&mut bytes));
        storm.apply(kind % kind::COUNT, number, take(&mut bytes, count));
        storm.check();
    }
    storm.end();
}

struct Storm {
    core: Core,
    ear: Ear,
    now_ns: u64,
    requests: u64,
    sequence: u64,
    memory_bytes: u64,
    ingress: u16,
}

impl Storm {
    fn new() -> Self {
        let spec = spec();
        let core = Core::new(CoreConfig {
            scheduler_index: 0,
            schedulers: 1,
            executor_cores: 2,
            spin: SpinPolicy::Budget(20_000),
            keeps_on_disk: true,
            first_id: 1,
        });
        let mut storm = Self {
            core,
            ear: Ear::default(),
            now_ns: 1,
            requests: 0,
            sequence: 0,
            memory_bytes: spec.memory_bytes,
            ingress: spec.executor_slots(),
        };
        let spec = Box::new(spec);
        storm.step(Event::Deploy { app: APP, spec });
        storm.start_and_bury();
        storm
    }

    fn step(&mut self, event: Event<'_>) {
        self.core.step(event, self.now_ns, &mut self.ear);
    }

    fn apply(&mut self, kind: u8, number: u8, bytes: &[u8]) {
        match kind {
            kind::SAY => self.say(number, bytes),
            kind::CALL => self.request(Destination::Entry, None, number & 1 == 0),
            kind::PUT => self.put(number, bytes, None),
            kind::JOIN => {
                let session = self.ear.session(number);
                self.put(number, bytes, session);
            }
            kind::PASS => {
                let ns = number_in(bytes) >> (number % 64);
                self.now_ns += ns.min(STEP_NS_MAX);
                self.step(Event::Tick);
            }
            kind::DISK => self.disk(number, bytes.first().copied().unwrap_or(0)),
            kind::FAILURE => self.write_failure(number, bytes.is_empty()),
            kind::TAKEN => {
                if let Some((request, session)) = self.ear.answered(number) {
                    self.step(Event::ResponseTaken { request, session });
                }
            }
            kind::CANCEL => {
                let session = self.ear.session(number);
                let session = session.unwrap_or(SessionId(number_in(bytes)));
                self.step(Event::Cancel { session });
            }
            kind::DIE => self.die(self.who(number)),
            kind::DYING => self.dying(self.who(number)),
            kind::SPAWN_FAILS => self.ear.refuses = number & 1 == 0,
            kind::ROOM => {
                self.ear.room = u32::from(number);
                let executor = self.who(bytes.first().copied().unwrap_or(0));
                self.step(Event::ReleaseRoom { executor });
            }
            kind::LETTER => self.letter(number, bytes),
            kind::SWEEP => {
                let executor = self.who(number);
                self.step(Event::Sweep { executor });
                if std::mem::take(&mut self.ear.sweeps) {
                    self.step(Event::Swept { executor });
                }
            }
            kind::FLUSH => self.step(Event::Flush { app: APP }),
            _ => {}
        }
        self.start_and_bury();
    }

    /// Processes asked for start, those killed die.
    fn start_and_bury(&mut self) {
        loop {
            if let Some(killed) = self.ear.next_killed() {
                self.die(killed);
            } else if let Some(executor) = self.ear.next_asked() {
                if self.ear.refuses {
                    let reason = "no";
                    self.step(Event::SpawnFailed { executor, reason });
                    continue;
                }
                let incarnation = self.ear.starts(executor);
                self.step(Event::ExecutorStarted {
                    executor,
                    incarnation,
                });
                let message = FromExecutor::Ready;
                self.step(Event::Message { executor, message });
            } else {
                return;
            }
        }
    }

    /// Mostly somebody who works, sometimes anybody.
    fn who(&self, number: u8) -> ExecutorId {
        let busy = self.ear.busy(number / 8);
        let slot = u16::from(number) % (self.ingress + 1);
        let anybody = ExecutorId { app: APP, slot };
        busy.filter(|_| !number.is_multiple_of(8))
            .unwrap_or(anybody)
    }

    fn say(&mut self, number: u8, bytes: &[u8]) {
        let executor = self.who(number);
        match decode_from_executor(bytes) {
            Ok(message) => {
                self.ear.says(executor, &message);
                self.step(Event::Message { executor, message });
            }
            Err(garbled) if self.ear.is_alive(executor) => {
                let reason = &garbled.to_string();
                self.step(Event::Garbled { executor, reason });
            }
            Err(_) => {}
        }
    }

    fn put(&mut self, number: u8, bytes: &[u8], session: Option<SessionId>) {
        let bucket = u16::from(number % 8);
        let (key, group) = bytes.split_at(bytes.len() / 2);
        let key = (!key.is_empty()).then_some(key);
        let destination = match number / 128 {
            0 => Destination::Bucket { bucket, key, group },
            _ => Destination::Retained { bucket, key: bytes },
        };
        self.request(destination, session, false);
    }

    fn body(&self, number: u64, len_units: u32) -> Ingress {
        Ingress {
            extent: Extent {
                offset_units: number as u32 % 1000,
                len_units,
            },
            size_bytes: u64::from(len_units) * 60,
        }
    }

    fn request(&mut self, to: Destination<'_>, session: Option<SessionId>, has_caller: bool) {
        self.requests += 1;
        let body = self.body(self.requests, 1);
        let headers = HeadersRef {
            region: self.ingress,
            offset_units: body.extent.offset_units,
            size_bytes: 9,
        };
        let has_headers = self.requests.is_multiple_of(2);
        // The node gives odd ids to durable sessions, the core even ones to others.
        let is_durable = matches!(to, Destination::Function(_)) && session.is_none();
        let is_durable = is_durable && self.requests.is_multiple_of(3);
        self.step(Event::Request(Request {
            app: APP,
            id: RequestId(self.requests),
            destination: to,
            body,
            headers: has_headers.then_some((headers, body.extent)),
            session,
            has_caller: has_caller && session.is_none(),
            timeout_ns: None,
            durable: is_durable.then_some(SessionId(2 * self.requests + 1)),
        }));
    }

    /// The next number of what is on disk.
    fn sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    fn disk(&mut self, number: u8, outcome: u8) {
        match self.ear.of_disk(number) {
            Some(Asked::Write(ticket)) => {
                let outcome = match outcome % 4 {
                    0 => Written::Done {
                        sequence: self.sequence(),
                        is_repeated: false,
                    },
                    1 => Written::Exists,
                    2 => Written::NothingKept,
                    _ => Written::Failed("no"),
                };
                let app = APP;
                self.step(Event::Written {
                    app,
                    ticket,
                    outcome,
                });
            }
            Some(Asked::Record(ticket)) => {
                let (app, is_failed) = (APP, outcome.is_multiple_of(4));
                self.step(Event::Recorded {
                    app,
                    ticket,
                    outcome: if is_failed { Err("no") } else { Ok(()) },
                });
            }
            Some(Asked::Load(ticket)) => {
                let found = match outcome % 4 {
                    0 => Ok(FoundObject {
                        body: self.body(ticket.0, 1),
                        session: SessionId(7),
                        group: b"g",
                    }),
                    1 => Err(NotFound::Missing),
                    2 => Err(NotFound::NoMemory),
                    _ => Err(NotFound::Unreadable),
                };
                let app = APP;
                self.step(Event::Loaded { app, ticket, found });
            }
            None => {}
        }
    }

    fn write_failure(&mut self, number: u8, succeeds: bool) {
        let Some(ticket) = self.ear.unwritten(number) else {
            return;
        };
        let app = APP;
        self.step(if succeeds {
            let body = self.body(ticket.0, 18);
            Event::FailureWritten { app, ticket, body }
        } else {
            let reason = "no";
            Event::FailureNotWritten {
                app,
                ticket,
                reason,
            }
        });
    }

    fn letter(&mut self, number: u8, bytes: &[u8]) {
        let letters: Vec<u64> = self
            .core
            .dead_letters(APP)
            .map(|letter| letter.id)
            .collect();
        let letter = letters.get(usize::from(number / 2) % letters.len().max(1));
        let letter = letter.copied().unwrap_or(number_in(bytes));
        if number & 1 == 0 {
            self.requests += 1;
            self.step(Event::Retry(Retry {
                app: APP,
                id: RequestId(self.requests),
                letter,
                has_caller: !bytes.is_empty(),
                timeout_ns: None,
            }));
        } else {
            let letter = (!bytes.is_empty()).then_some(letter);
            self.step(Event::DropLetters { app: APP, letter });
        }
    }

    fn dying(&mut self, executor: ExecutorId) {
        if let Some(incarnation) = self.ear.incarnation(executor) {
            self.step(Event::ExecutorDying {
                executor,
                incarnation,
            });
        }
    }

    fn die(&mut self, executor: ExecutorId) {
        if let Some(incarnation) = self.ear.buries(executor) {
            self.step(Event::ExecutorDied {
                executor,
                incarnation,
                death: Death::Signaled(9),
                detail: "",
            });
        }
    }

    /// The ledger adds up.
    fn check(&self) {
        let stats = self.core.stats(APP).expect("the app is there");
        let promised = stats.used_bytes + stats.credit_bytes;
        let most = self.memory_bytes + SLACK_PER_OBJECT * stats.objects_live;
        assert!(promised <= most, "{promised} bytes of {most} are promised");
    }

    /// The app goes, and with it everything.
    fn end(mut self) {
        self.ear.refuses = true;
        self.step(Event::Remove { app: APP });
        for _ in 0..2 {
            for executor in self.ear.all_alive() {
                self.die(executor);
            }
            self.start_and_bury();
        }
        while let Some((request, session)) = self.ear.answered(0) {
            self.step(Event::ResponseTaken { request, session });
        }
        while self.ear.has_unwritten() {
            self.write_failure(0, true);
        }
        while self.ear.has_asked_disk() {
            self.disk(0, 1);
        }
        self.ear.check_end();
        let totals = self.core.totals();
        assert_eq!(totals.sessions + totals.objects + totals.invocations, 0);
        assert_eq!(totals.names + totals.trigger_states + totals.lines, 0);
        assert_eq!(totals.gathered, 0);
        self.now_ns = self.now_ns.saturating_add(3_600_000_000_000);
        self.step(Event::Tick);
        assert_eq!(self.core.totals().timers, 0);
    }
}

/// A number in up to eight little-endian bytes.
fn number_in(bytes: &[u8]) -> u64 {
    let bytes = bytes.iter().take(8).rev();
    bytes.fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// Calls in which every message is said once, after all kinds of other things.
pub fn seeds() -> Vec<Vec<u8>> {
    let messages = from_executor::seeds();
    let all = messages
        .iter()
        .fold(step(kind::CALL, 0, b""), |mut steps, message| {
            steps.extend(step(kind::SAY, 1, message));
            steps.extend(step(kind::CALL, 0, b""));
            steps
        });
    let mut seeds = vec![all];
    for message in &messages {
        seeds.push(
            [
                step(kind::CALL, 0, b""),
                step(kind::SAY, 1, message),
                step(kind::SAY, 1, &done()),
                step(kind::PASS, 0, &5_000_000u32.to_le_bytes()),
                step(kind::SAY, 1, &done()),
            ]
            .concat(),
        );
    }
    for number in 0..kind::COUNT {
        let steps = [
            step(kind::PUT, number % 6, b"k0gg"),
            step(kind::DISK, 0, &[0]),
            step(kind::PUT, 2, b"k1gg"),
            step(number, 1, b"k2gg"),
            step(kind::SAY, 1, &done()),
            step(kind::PASS, 0, &5_000_000u32.to_le_bytes()),
            step(kind::SAY, 9, &done()),
        ];
        seeds.push(steps.concat());
    }
    seeds
}

fn done() -> Vec<u8> {
    let done = FromExecutor::Complete {
        status: 0,
        ending: pheromone_shm::message::Ending::Returned,
        discarded: 0,
        message: b"",
    };
    encode_from_executor(&done).expect("it is right")
}

fn step(kind: u8, number: u8, bytes: &[u8]) -> Vec<u8> {
    let bytes = &bytes[..bytes.len().min(255)];
    [&[kind, number, bytes.len() as u8], bytes].concat()
}
