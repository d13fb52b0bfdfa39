//! Answers of calls that nobody waited for, and of calls with an `Idempotency-Key`, kept for a
//! while.
//!
//! Bounded in number and bytes over all apps; the oldest go first. A session that is forgotten goes
//! on as before; only its answer cannot be fetched any more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::answer::Answer;

/// Answers kept at once.
const KEPT_MAX: usize = 1 << 16;
/// Bytes of all of them.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// Whether a session has its answer: `None` while it is open.
pub type Later = watch::Receiver<Option<Answer>>;

/// Names a call of which only one is made: its app and key.
pub type IdempotencyKey = (String, String);

/// Kept answers.
#[derive(Default)]
pub struct Results {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_age: BTreeMap<u64, Entry>,
    by_session: HashMap<u64, u64>,
    by_key: HashMap<IdempotencyKey, u64>,
    by_expiry: BTreeSet<(Instant, u64)>,
    bytes: usize,
    next: u64,
}

struct Entry {
    session: Option<u64>,
    key: Option<IdempotencyKey>,
    keep: Duration,
    sender: watch::Sender<Option<Answer>>,
    /// Once it has its answer.
    expires: Option<Instant>,
    bytes: usize,
}

/// Names an entry to whoever fills it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u64);

/// What a key names.
pub enum Found {
    /// A call that was made before, or is being made.
    Before(Later),
    /// Nothing yet: this call is the one.
    New(Place, Later),
}

impl Results {
    /// Makes a place for the answer of a call; where its key names one already, that one's.
    pub fn place(&self, key: Option<IdempotencyKey>, keep: Duration) -> Found {
        let mut kept = self.lock();
        kept.expire();
        if let Some(before) = key.as_ref().and_then(|key| kept.by_key.get(key)) {
            return Found::Before(kept.by_age[before].sender.subscribe());
        }
        let place = kept.next;
        kept.next += 1;
        let (sender, later) = watch::channel(None);
        if let Some(key) = &key {
            kept.by_key.insert(key.clone(), place);
        }
        let entry = Entry {
            session: None,
            key,
            keep,
            sender,
            expires: None,
            bytes: 0,
        };
        kept.by_age.insert(place, entry);
        kept.shrink();
        Found::New(Place(place), later)
    }

    /// The call's session is known.
    pub fn opened(&self, place: Place, session: u64) {
        let mut kept = self.lock();
        if let Some(entry) = kept.by_age.get_mut(&place.0) {
            entry.session = Some(session);
            kept.by_session.insert(session, place.0);
        }
    }

    /// The call has its answer. The first stands.
    pub fn answered(&self, place: Place, answer: Answer) {
        let mut kept = self.lock();
        let Some(entry) = kept.by_age.get_mut(&place.0) else {
            return;
        };
        if entry.expires.is_some() {
            return;
        }
        let expires = Instant::now() + entry.keep;
        let bytes = answer.size_bytes();
        entry.expires = Some(expires);
        entry.bytes = bytes;
        entry.sender.send_replace(Some(answer));
        kept.by_expiry.insert((expires, place.0));
        kept.bytes += bytes;
        kept.expire();
        kept.shrink();
    }

    /// The call was refused: it has not happened.
    pub fn forget(&self, place: Place) {
        self.lock().remove(place.0);
    }

    /// The answer of a session, if it is kept.
    pub fn of(&self, session: u64) -> Option<Later> {
        let mut kept = self.lock();
        kept.expire();
        let place = kept.by_session.get(&session)?;
        Some(kept.by_age[place].sender.subscribe())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn remove(&mut self, place: u64) {
        let Some(entry) = self.by_age.remove(&place) else {
            return;
        };
        self.bytes -= entry.bytes;
        if let Some(expires) = entry.expires {
            self.by_expiry.remove(&(expires, place));
        }
        if let Some(session) = entry.session {
            self.by_session.remove(&session);
        }
        if let Some(key) = entry.key {
            self.by_key.remove(&key);
        }
    }

    fn expire(&mut self) {
        let now = Instant::now();
        while let Some(&(expires, place)) = self.by_expiry.first()
            && expires <= now
        {
            self.remove(place);
        }
    }

    /// Drops answers, the next to expire first, then the oldest sessions still open, until the
    /// rest fits.
    fn shrink(&mut self) {
        while self.by_age.len() > KEPT_MAX || self.bytes > KEPT_BYTES_MAX {
            let answer = self.by_expiry.first().map(|(_, place)| *place);
            let Some(place) = answer.or_else(|| self.by_age.keys().next().copied()) else {
                return;
            };
            self.remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(1000);

    fn answer(session: u64, size: usize) -> Answer {
        Answer::response(session, 200, String::new(), vec![7; size])
    }

    fn new(results: &Results, key: Option<IdempotencyKey>, keep: Duration) -> Place {
        match results.place(key, keep) {
            Found::New(place, _) => place,
            Found::Before(_) => panic!("it was there before"),
        }
    }

    #[test]
    fn an_answer_can_be_fetched_once_it_is_there_and_until_it_is_forgotten() {
        let results = Results::default();
        let place = new(&results, None, LONG);
        assert!(results.of(5).is_none());
        results.opened(place, 5);
        assert!(results.of(5).unwrap().borrow().is_none());
        results.answered(place, answer(5, 1));
        results.answered(place, answer(5, 2));
        assert_eq!(results.of(5).unwrap().borrow().clone(), Some(answer(5, 1)));
        let brief = new(&results, None, Duration::ZERO);
        results.opened(brief, 6);
        results.answered(brief, answer(6, 1));
        assert!(results.of(6).is_none());
    }

    #[test]
    fn one_key_names_one_call_until_it_is_refused() {
        let results = Results::default();
        let key = || Some(("app".to_owned(), "key".to_owned()));
        let place = new(&results, key(), LONG);
        let Found::Before(later) = results.place(key(), LONG) else {
            panic!("the same key made a second call");
        };
        results.answered(place, answer(5, 1));
        assert_eq!(later.borrow().clone(), Some(answer(5, 1)));
        let other = Some(("other app".to_owned(), "key".to_owned()));
        new(&results, other, LONG);
        results.forget(place);
        new(&results, key(), LONG);
    }

    #[test]
    fn the_oldest_answers_go_when_there_are_too_many_bytes() {
        let results = Results::default();
        let waiting = new(&results, None, LONG);
        results.opened(waiting, 1_000_000);
        let size = KEPT_BYTES_MAX / 4;
        for session in 1..=6 {
            let place = new(&results, None, LONG);
            results.opened(place, session);
            results.answered(place, answer(session, size));
        }
        let kept: Vec<u64> = (1..=6)
            .filter(|session| results.of(*session).is_some())
            .collect();
        assert_eq!(kept, [4, 5, 6]);
        assert!(results.of(1_000_000).is_some());
        assert!(results.lock().bytes <= KEPT_BYTES_MAX);
    }

    #[test]
    fn the_number_kept_is_bounded_also_of_open_sessions() {
        let results = Results::default();
        for session in 0..KEPT_MAX as u64 + 10 {
            let place = new(&results, None, LONG);
            results.opened(place, session);
        }
        let kept = results.lock();
        assert_eq!(
            (kept.by_age.len(), kept.by_session.len()),
            (KEPT_MAX, KEPT_MAX)
        );
    }
}
