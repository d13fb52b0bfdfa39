//! What triggers gather until they fire, one type of trigger a file.
//!
//! A gatherer decides when what it holds fires, in which order, and when it lets go of it. It knows
//! nothing of sessions, apps or invocations, so that the local scheduler, which has one per session
//! and trigger, and the coordinator, which has one per trigger that gathers across sessions, fire
//! by the same rules. Objects are handles of its user's; time is what its user brings and never
//! goes back.
//!
//! Three rules hold for all types. An item offered is *released* exactly once, when it can be in no
//! later volley. The cost of an offer does not grow with what is pending, nor with the number of
//! groups, rounds or lists. And a gatherer that is drained and reset behaves as a new one, but
//! allocates nothing for what fits the buffers that it has kept.
//!
//! What is due fires before what comes: an object offered at a window's end, or when a linger has
//! run out, belongs to the next.

mod batch;
mod groups;
pub(crate) mod hand;
mod joins;
pub(crate) mod outcome;
mod queue;
mod roster;
mod rounds;
mod set;
#[cfg(test)]
mod tests;
mod text;
mod windows;

use batch::Batch;
pub(crate) use batch::BatchRule;
pub(crate) use groups::{Groups, GroupsRule, Sources};
use hand::{Hand, HandRule};
pub(crate) use joins::{Joins, JoinsRule};
use outcome::Outcome;
pub(crate) use rounds::{Rounds, RoundsRule};
use set::Set;
use windows::Windows;
pub(crate) use windows::WindowsRule;

use crate::spec::{GroupClose, Keep, Scope, TriggerKind, TriggerSpec};

/// An object as a gatherer sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival<'a, T> {
    /// The user's handle.
    pub(crate) item: T,
    /// The key's place in a set; of no meaning elsewhere.
    pub(crate) position: u32,
    /// Its text; looked at only where [`Rule::wants_key`].
    pub(crate) key: &'a [u8],
    /// Empty for none.
    pub(crate) group: &'a [u8],
    /// When the scheduler took it.
    pub(crate) now_ns: u64,
}

/// How a trigger gathers: what of its spec a gatherer needs, made once per trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// `by_set` of so many keys.
    Set(u32),
    /// `by_batch_size`.
    Batch(BatchRule),
    /// `by_time`.
    Windows(WindowsRule),
    /// `redundant`.
    Rounds(RoundsRule),
    /// `dynamic_join`.
    Joins(JoinsRule),
    /// `dynamic_group`.
    Groups(GroupsRule),
    /// `custom`.
    Hand(HandRule),
}

impl Rule {
    /// Of a trigger that has been found valid, in a bucket with this `keep`. `None`: it keeps no
    /// state.
    pub(crate) fn of(trigger: &TriggerSpec, keep: Keep, inputs_max: u32) -> Option<Self> {
        let rule = match trigger.kind {
            TriggerKind::Immediate | TriggerKind::ByName(_) => return None,
            TriggerKind::Custom { keep, .. } => Self::Hand(HandRule { keep }),
            TriggerKind::BySet { ref keys } => {
                Self::Set(u32::try_from(keys.len()).expect("validated: at most limits.inputs"))
            }
            TriggerKind::ByBatchSize {
                count,
                linger_ns,
                per_group,
            } => Self::Batch(BatchRule {
                count,
                linger_ns,
                per_group,
            }),
            TriggerKind::ByTime {
                window_ns,
                slide_ns,
                fire_empty,
                per_group,
            } => Self::Windows(WindowsRule {
                window_ns,
                slide_ns,
                fire_empty,
                per_group,
                inputs_max,
            }),
            TriggerKind::Redundant {
                k_of_n, expire_ns, ..
            } => Self::Rounds(RoundsRule {
                k_of_n,
                expire_ns,
                group_required: trigger.scope == Scope::Bucket,
                inputs_max,
            }),
            TriggerKind::DynamicJoin => Self::Joins(JoinsRule {
                release_consumed: keep == Keep::UntilConsumed,
            }),
            TriggerKind::DynamicGroup {
                close,
                order_by_key,
                ..
            } => Self::Groups(GroupsRule {
                sources: match close {
                    GroupClose::Sources(sources) => Sources::Known(sources),
                    GroupClose::SourcesAtRunTime => Sources::AtRunTime,
                    GroupClose::After(_) => Sources::None,
                },
                order_by_key,
                inputs_max,
            }),
        };
        Some(rule)
    }

    /// Whether it remembers what it holds no object of any more: see [`Gatherer::remembered`].
    pub(crate) fn remembers(&self) -> bool {
        matches!(self, Self::Joins(_) | Self::Rounds(_))
    }

    /// Whether it needs the text of keys, which automatic ones have only where someone asks.
    pub(crate) fn wants_key(&self) -> bool {
        match self {
            Self::Joins(_) => true,
            Self::Groups(rule) => rule.order_by_key,
            Self::Set(_) | Self::Batch(_) | Self::Windows(_) | Self::Rounds(_) | Self::Hand(_) => {
                false
            }
        }
    }
}

/// What one trigger has gathered. Types longer than a few words are boxed; the box is kept.
pub(crate) enum Gatherer<T> {
    /// `by_set`.
    Set(Set<T>),
    /// `by_batch_size`.
    Batch(Box<Batch<T>>),
    /// `by_time`.
    Windows(Box<Windows<T>>),
    /// `redundant`.
    Rounds(Box<Rounds<T>>),
    /// `dynamic_join`.
    Joins(Box<Joins<T>>),
    /// `dynamic_group`.
    Groups(Box<Groups<T>>),
    /// `custom`.
    Hand(Box<Hand<T>>),
}

impl<T: Copy> Gatherer<T> {
    /// One that has gathered nothing. Windows begin at `now_ns`.
    pub(crate) fn new(rule: &Rule, now_ns: u64) -> Self {
        match *rule {
            Rule::Set(keys) => Self::Set(Set::new(keys)),
            Rule::Batch(rule) => Self::Batch(Box::new(Batch::new(rule))),
            Rule::Windows(rule) => Self::Windows(Box::new(Windows::new(rule, now_ns))),
            Rule::Rounds(rule) => Self::Rounds(Box::new(Rounds::new(rule))),
            Rule::Joins(rule) => Self::Joins(Box::new(Joins::new(rule))),
            Rule::Groups(rule) => Self::Groups(Box::new(Groups::new(rule))),
            Rule::Hand(rule) => Self::Hand(Box::new(Hand::new(rule))),
        }
    }

    /// Makes a drained one as good as new.
    pub(crate) fn reset(&mut self, rule: &Rule, now_ns: u64) {
        debug_assert!(!self.is_pending(), "it is drained before it is reset");
        match (self, *rule) {
            (Self::Set(set), Rule::Set(keys)) => set.reset(keys),
            (Self::Batch(batch), Rule::Batch(rule)) => batch.reset(rule),
            (Self::Windows(windows), Rule::Windows(rule)) => windows.reset(rule, now_ns),
            (Self::Rounds(rounds), Rule::Rounds(rule)) => rounds.reset(rule),
            (Self::Joins(joins), Rule::Joins(rule)) => joins.reset(rule),
            (Self::Groups(groups), Rule::Groups(rule)) => groups.reset(rule),
            (Self::Hand(hand), Rule::Hand(rule)) => hand.reset(rule),
            (other, _) => *other = Self::new(rule, now_ns),
        }
    }

    /// Takes an object. It is held until it is released, which may be at once.
    pub(crate) fn offer(&mut self, arrival: &Arrival<'_, T>, out: &mut Outcome<T>) {
        match self {
            Self::Set(set) => set.offer(arrival.item, arrival.position, out),
            Self::Batch(batch) => batch.offer(arrival, out),
            Self::Windows(windows) => windows.offer(arrival, out),
            Self::Rounds(rounds) => rounds.offer(arrival, out),
            Self::Joins(joins) => joins.offer(arrival.item, arrival.key, out),
            Self::Groups(groups) => groups.offer(arrival, out),
            Self::Hand(hand) => hand.offer(arrival.item),
        }
    }

    /// Does what is due at this time: a linger, the end of a window, the expiry of a round.
    pub(crate) fn tick(&mut self, now_ns: u64, out: &mut Outcome<T>) {
        match self {
            Self::Batch(batch) => batch.tick(now_ns, out),
            Self::Windows(windows) => windows.tick(now_ns, out),
            Self::Rounds(rounds) => rounds.tick(now_ns, out),
            Self::Set(_) | Self::Joins(_) | Self::Groups(_) | Self::Hand(_) => {}
        }
    }

    /// When it wants a tick. `u64::MAX` never comes.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        match self {
            Self::Batch(batch) => batch.next_ns(),
            Self::Windows(windows) => windows.next_ns(),
            Self::Rounds(rounds) => rounds.next_ns(),
            Self::Set(_) | Self::Joins(_) | Self::Groups(_) | Self::Hand(_) => None,
        }
    }

    /// Whether something could still fire that `at_end` is about.
    pub(crate) fn is_pending(&self) -> bool {
        match self {
            Self::Set(set) => set.is_pending(),
            Self::Batch(batch) => batch.is_pending(),
            Self::Windows(windows) => windows.is_pending(),
            Self::Rounds(rounds) => rounds.is_pending(),
            Self::Joins(joins) => joins.is_pending(),
            Self::Groups(groups) => groups.is_pending(),
            Self::Hand(hand) => hand.is_pending(),
        }
    }

    /// Entries beside its objects and the names that these were given: they stay as long as what it
    /// gathers for, or take up memory before any object comes, so its user has to count them.
    pub(crate) fn remembered(&self) -> u64 {
        match self {
            Self::Joins(joins) => joins.remembered(),
            Self::Rounds(rounds) => rounds.remembered(),
            Self::Set(_) | Self::Batch(_) | Self::Windows(_) | Self::Groups(_) | Self::Hand(_) => 0,
        }
    }

    /// Whether somebody outside has yet to decide about something offered: until then whatever it
    /// gathers for is not over.
    pub(crate) fn is_unanswered(&self) -> bool {
        matches!(self, Self::Hand(hand) if hand.is_unanswered())
    }

    /// `at_end = "fire"`: fires now, with what is pending; nothing is pending then.
    pub(crate) fn fire_pending(&mut self, out: &mut Outcome<T>) {
        match self {
            Self::Set(set) => set.fire_pending(out),
            Self::Batch(batch) => batch.fire_pending(out),
            Self::Windows(windows) => windows.fire_pending(out),
            Self::Rounds(rounds) => rounds.fire_pending(out),
            Self::Joins(joins) => joins.fire_pending(out),
            Self::Groups(groups) => groups.close(out),
            // Validated: only its own code knows what to fire.
            Self::Hand(_) => {}
        }
    }

    /// `at_end = "drop"`: drops and counts what is pending; nothing is pending then.
    pub(crate) fn drop_pending(&mut self, out: &mut Outcome<T>) {
        match self {
            Self::Set(set) => set.drop_pending(out),
            Self::Batch(batch) => batch.drop_pending(out),
            Self::Windows(windows) => windows.drop_pending(out),
            Self::Rounds(rounds) => rounds.drop_pending(out),
            Self::Joins(joins) => joins.drop_pending(out),
            Self::Groups(groups) => groups.drop_pending(out),
            Self::Hand(hand) => hand.drop_pending(out),
        }
    }

    /// The end of whatever it gathers for: drops what is pending and releases all else. It keeps
    /// its buffers up to [`BUFFER_ENTRIES_KEPT`](crate::limits::BUFFER_ENTRIES_KEPT), and is
    /// [`reset`](Self::reset) before it is used again.
    pub(crate) fn drain(&mut self, out: &mut Outcome<T>) {
        match self {
            Self::Set(set) => set.drop_pending(out),
            Self::Batch(batch) => batch.drain(out),
            Self::Windows(windows) => windows.drain(out),
            Self::Rounds(rounds) => rounds.drain(out),
            Self::Joins(joins) => joins.drain(out),
            Self::Groups(groups) => groups.drain(out),
            Self::Hand(hand) => hand.drop_pending(out),
        }
    }

    /// `at_end = "fail"`: what is pending and what it lacks, with the trigger as the subject.
    /// `keys`: those of a set.
    pub(crate) fn waiting_for(&self, keys: &[String]) -> String {
        match self {
            Self::Set(set) => set.waiting_for(keys),
            Self::Batch(batch) => batch.waiting_for(),
            Self::Windows(windows) => windows.waiting_for(),
            Self::Rounds(rounds) => rounds.waiting_for(),
            Self::Joins(joins) => joins.waiting_for(),
            Self::Groups(groups) => groups.waiting_for(),
            Self::Hand(hand) => hand.waiting_for(),
        }
    }
}
