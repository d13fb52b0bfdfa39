//! Questions about an app, asked of all its schedulers.

use crossbeam_channel::Sender;
use pheromone_scheduler::protocol::{AppStatsMessage, ToScheduler};

use super::Gateway;
use super::handle::Condition;
use crate::status::AppStats;

/// Who wants to know about an app.
pub(super) enum Asked {
    Somebody(u16, Sender<Option<Condition>>),
    /// Whether a retiring app can go.
    Retiring(u16),
    /// Whether an app's triggers can fire with what they have gathered.
    Flushing(u16),
}

/// A question to all schedulers of an app.
pub(super) struct Question {
    pub(super) who: Asked,
    /// So many have not answered.
    pub(super) unanswered: u8,
    /// The sum of the answers.
    pub(super) sum: Option<AppStatsMessage>,
}

impl Gateway {
    pub(super) fn ask(&mut self, who: Asked, app: u16) {
        let token = self.next_token;
        self.next_token += 1;
        let gate = self.apps.get(&app);
        let unanswered = gate.map_or(0, |gate| gate.version.division.count());
        let question = Question {
            who,
            unanswered,
            sum: None,
        };
        if unanswered == 0 {
            self.answered(question);
            return;
        }
        self.asked.insert(token, question);
        self.tell_homes(app, &ToScheduler::Stats { token, app });
    }

    pub(super) fn answer(&mut self, token: u64, stats: Option<AppStatsMessage>) {
        let Some(question) = self.asked.get_mut(&token) else {
            return;
        };
        question.unanswered -= 1;
        if let Some(stats) = stats {
            question.sum.get_or_insert_default().add(&stats);
        }
        if question.unanswered == 0
            && let Some(question) = self.asked.remove(&token)
        {
            self.answered(question);
        }
    }

    /// All schedulers have answered.
    pub(super) fn answered(&mut self, question: Question) {
        let stats = question.sum;
        match question.who {
            Asked::Flushing(app) => self.flush_if_quiet(app, stats),
            Asked::Somebody(app, answer) => {
                let gate = self.apps.get(&app);
                let condition = stats.zip(gate).map(|(stats, gate)| Condition {
                    stats: AppStats {
                        held_bytes: gate.version.regions.held_in_all(),
                        ingress_bytes: gate.ingress_bytes,
                        requests_open: gate.requests_open,
                        ..AppStats::from(stats)
                    },
                    first_failure: gate.first_failure.clone(),
                });
                // Whoever has stopped waiting does not want to know.
                let _ = answer.send(condition);
            }
            Asked::Retiring(app) => {
                let Some(gate) = self.apps.get_mut(&app) else {
                    return;
                };
                gate.asking = false;
                let quiet = stats
                    .as_ref()
                    .is_none_or(|it| it.sessions_open == 0 && it.queued == 0 && it.gathered == 0);
                if !quiet || gate.requests_open > 0 || gate.removing {
                    return;
                }
                let letters = stats.map_or(0, |it| it.dead_letters);
                if letters == 0 || gate.handing.is_none() {
                    self.order_removal(app);
                } else if !self.moves_letters_of(app) {
                    // One is on its way here, or its scheduler has not heard that it is taken.
                    self.look_at_retiring(app);
                }
            }
        }
    }
}
