//! Dead letters: who becomes one, what they hold together, and what a retry is.

use pheromone_core::AppStats;
use pheromone_core::event::{AppId, DeadLetter, Ingress, Refusal, Retry, SessionId};
use pheromone_shm::message::Extent;

use super::{Model, OBJECT_CHARGE_BYTES};
use crate::history::{Asked, Door};
use crate::rules::Item;

/// Letters hold at most one part in so many of memory and objects.
const PART: u64 = 4;

/// What one app has of them, the oldest first.
#[derive(Default)]
pub struct Letters {
    letters: Vec<Letter>,
    total: u64,
    pushed_out: u64,
    retried: u64,
    dropped: u64,
}

#[derive(Clone)]
struct Letter {
    id: u64,
    session: SessionId,
    function: u16,
    trigger: u16,
    window: Option<(u64, u64)>,
    inputs: Vec<Item>,
    request: Option<Item>,
    is_kept: bool,
    bytes: u64,
}

impl Letter {
    fn held(&self) -> impl Iterator<Item = Item> {
        let held = self.inputs.iter().chain(&self.request).copied();
        held.filter(|_| self.is_kept)
    }
}

impl Letters {
    pub(super) fn held(&self) -> impl Iterator<Item = Item> {
        self.letters.iter().flat_map(Letter::held)
    }

    fn bytes(&self) -> u64 {
        self.letters.iter().map(|letter| letter.bytes).sum()
    }

    /// Counters that are letters' alone.
    pub(super) fn counted(&self) -> AppStats {
        AppStats {
            dead_letters: self.letters.len() as u64,
            dead_letters_bytes: self.bytes(),
            dead_letters_total: self.total,
            dead_letters_pushed_out_total: self.pushed_out,
            dead_letters_retried_total: self.retried,
            dead_letters_dropped_total: self.dropped,
            ..AppStats::default()
        }
    }

    /// Holds the core's list against the model's.
    pub(super) fn compare<'a>(&self, said: impl Iterator<Item = DeadLetter<'a>>) {
        let said = said.map(|letter| {
            let inputs = letter.input_count as usize;
            (letter.id, letter.session, inputs, letter.has_inputs)
        });
        let expected = self.letters.iter().map(|letter| {
            let inputs = letter.inputs.len();
            (letter.id, letter.session, inputs, letter.is_kept)
        });
        let (said, expected): (Vec<_>, Vec<_>) = (said.collect(), expected.collect());
        assert_eq!(said, expected, "the dead letters");
    }
}

impl Model {
    /// An invocation is out of attempts.
    pub(super) fn bury(&mut self, number: usize, session: SessionId) {
        let invocation = &self.invocations[&number];
        let id = invocation.app;
        let mut letter = Letter {
            id: invocation.id.expect("it has started"),
            session,
            function: invocation.function,
            trigger: invocation.trigger,
            window: invocation.window,
            inputs: invocation.inputs.clone(),
            request: self.sessions[&session].request_object,
            is_kept: true,
            bytes: 0,
        };
        let objects = letter.held();
        let cost = |item: Item| self.objects[item].extent.len_bytes() + OBJECT_CHARGE_BYTES;
        letter.bytes = objects.map(cost).sum();
        let app = self.apps.get_mut(&id).expect("it is there");
        let limits = &app.spec.limits;
        let bytes_max = limits.dead_letters_bytes.min(app.spec.memory_bytes / PART);
        let objects_max = u64::from(limits.objects) / PART;
        let letters = &mut app.letters;
        letters.total += 1;
        if letter.bytes > bytes_max || letter.held().count() as u64 > objects_max {
            letter.is_kept = false;
            letter.bytes = 0;
        }
        letters.letters.push(letter);
        while letters.bytes() > bytes_max || letters.held().count() as u64 > objects_max {
            letters.letters.remove(0);
            letters.pushed_out += 1;
        }
    }

    pub(super) fn drop_letters(&mut self, app: AppId, dropped: Option<u64>) {
        if let Some(app) = self.apps.get_mut(&app) {
            let before = app.letters.letters.len();
            let stays = |letter: &Letter| dropped.is_some_and(|dropped| letter.id != dropped);
            app.letters.letters.retain(stays);
            app.letters.dropped += (before - app.letters.letters.len()) as u64;
        }
    }

    pub(super) fn retry(&mut self, retry: &Retry) {
        let answer = self.answer_to(retry.id);
        // What time has started in this step waits no more.
        self.sync();
        match (answer, self.retried(retry)) {
            (Ok(session), Ok(at)) => self.begin_again(retry, session, at),
            (Err(said), Err(expected)) => assert_eq!(said, expected, "the retry was refused"),
            (said, expected) => panic!("a retry is answered with {said:?}, not {expected:?}"),
        }
    }

    /// The place of the letter, or why it cannot run again now.
    fn retried(&self, retry: &Retry) -> Result<usize, Refusal> {
        let app = self.apps.get(&retry.app).filter(|app| !app.is_removing);
        let app = app.ok_or(Refusal::NoApp)?;
        let mut letters = app.letters.letters.iter();
        let at = letters.position(|letter| letter.id == retry.letter);
        let at = at.ok_or(Refusal::NoLetter)?;
        let limits = &app.spec.limits;
        if !app.letters.letters[at].is_kept {
            Err(Refusal::NoInputs)
        } else if self.count_sessions(retry.app) >= u64::from(limits.sessions) {
            Err(Refusal::Sessions)
        } else if self.count_calls(retry.app) >= u64::from(limits.calls_waiting) {
            Err(Refusal::CallsWaiting)
        } else {
            Ok(at)
        }
    }

    fn begin_again(&mut self, retry: &Retry, session: SessionId, at: usize) {
        let app = self.apps.get_mut(&retry.app).expect("it is there");
        let letter = app.letters.letters.remove(at);
        app.letters.retried += 1;
        let asked = Asked {
            app: retry.app,
            id: retry.id,
            door: Door::Function(letter.function),
            body: Ingress {
                extent: Extent::default(),
                size_bytes: 0,
            },
            session: None,
            has_caller: retry.has_caller,
            timeout_ns: retry.timeout_ns,
        };
        self.open(&asked, session);
        self.session(session).request_object = letter.request;
        let (function, trigger) = (letter.function, letter.trigger);
        let order = self.next_order();
        self.fire(
            session,
            function,
            trigger,
            letter.inputs,
            letter.window,
            order,
        );
        let fired = self.invocations.values_mut().next_back();
        fired.expect("it has just been fired").is_call = true;
        self.settle(session);
    }
}
