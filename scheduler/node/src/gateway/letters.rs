//! Dead letters: what others ask about those of an app is asked of all its schedulers, since a
//! letter is with the home of its session.

use crossbeam_channel::Sender;
use pheromone_scheduler::protocol::{LetterMessage, ToScheduler};

use super::Gateway;
use super::gate::{Admitted, Gate};
use super::pending::Again;
use crate::letters::DeadLetter;
use crate::outgoing;
use crate::request::{RefusalReason, Request};
use crate::routing::{Tried, home_of};

/// What is asked about the dead letters of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// All of them, the oldest first.
    List,
    /// Drop this one, or all.
    Drop(Option<u64>),
}

/// The answer of all schedulers.
#[derive(Debug, Default)]
pub struct Letters {
    /// Those asked for.
    pub letters: Vec<DeadLetter>,
    /// How many there were, or were dropped.
    pub count: u64,
}

/// A question to all schedulers of an app.
pub(super) struct LetterQuestion {
    pub(super) app: u16,
    unanswered: u8,
    /// With the time at which each has come to be, on the schedulers' clock.
    letters: Vec<(u64, DeadLetter)>,
    count: u64,
    answer: Sender<Letters>,
}

impl Gateway {
    /// Asks about an app's dead letters. Where there is no such app `answer` is dropped.
    pub(super) fn ask_about_letters(&mut self, app: &str, about: About, answer: Sender<Letters>) {
        let app = self.routes.get(app).copied();
        let Some((app, gate)) = app.and_then(|app| Some((app, self.apps.get(&app)?))) else {
            return;
        };
        let question = LetterQuestion {
            app,
            unanswered: gate.version.division.count(),
            letters: Vec::new(),
            count: 0,
            answer,
        };
        let token = self.next_token;
        self.next_token += 1;
        self.asked_letters.insert(token, question);
        let message = match about {
            About::List => ToScheduler::Letters { token, app },
            About::Drop(letter) => ToScheduler::DropLetters { token, app, letter },
        };
        self.tell_homes(app, &message);
    }

    /// A scheduler tells of a letter.
    pub(super) fn hear_letter(&mut self, token: u64, letter: &LetterMessage) {
        let Some(app) = self.asked_letters.get(&token).map(|question| question.app) else {
            return;
        };
        let report = self.report(app, letter.failure.clone());
        if let Some(question) = self.asked_letters.get_mut(&token) {
            let told = DeadLetter::new(letter, report);
            question.letters.push((letter.died_ns, told));
        }
    }

    /// A scheduler has said all that it has to say.
    pub(super) fn letters_done(&mut self, token: u64, count: u64) {
        let Some(question) = self.asked_letters.get_mut(&token) else {
            return;
        };
        question.count += count;
        question.unanswered -= 1;
        if question.unanswered == 0
            && let Some(mut question) = self.asked_letters.remove(&token)
        {
            question
                .letters
                .sort_by_key(|(died_ns, letter)| (*died_ns, letter.id));
            // Whoever has stopped waiting does not want to know.
            let _ = question.answer.send(Letters {
                letters: question.letters.into_iter().map(|told| told.1).collect(),
                count: question.count,
            });
        }
    }

    /// Lets a retry in: at the letter's home, or at whichever scheduler of the app has it.
    pub(super) fn admit_retry(
        &mut self,
        id: u64,
        request: &Request,
        app: u16,
        letter: u64,
    ) -> Result<Admitted, RefusalReason> {
        let gate = self
            .apps
            .get_mut(&app)
            .ok_or_else(|| RefusalReason::NoApp {
                app: request.app.clone(),
            })?;
        let home = gate.home_of_letter(letter);
        let home = home.ok_or(RefusalReason::Overloaded)?;
        gate.requests_open += 1;
        gate.homes.opened(home);
        let has_others = gate.version.division.count() > 1;
        let message = outgoing::encode(&ToScheduler::Retry {
            app,
            request: id,
            letter,
            has_caller: request.wait,
            timeout_ns: request.timeout_ns(),
        });
        Ok(Admitted {
            app,
            home,
            extents: Vec::new(),
            again: has_others.then(|| Again {
                message: message.clone(),
                tried: Tried::default(),
            }),
            durable: None,
            function: 0,
            message,
        })
    }
}

impl Gate {
    /// Where a letter is in all likelihood: its id is of the scheduler that has made it.
    fn home_of_letter(&self, letter: u64) -> Option<u8> {
        let maker = home_of(letter);
        if self.version.division.is_home(maker) {
            Some(maker)
        } else {
            self.homes.lightest(Tried::default())
        }
    }
}
