//! `dynamic_group`: objects by group, until the groups are closed.

use crate::gather::Arrival;
use crate::gather::outcome::{Complaint, Outcome, Refusal};
use crate::gather::queue::{Queue, Queues};
use crate::gather::roster::{Place, Roster};
use crate::gather::text;
use crate::limits::BUFFER_ENTRIES_KEPT;

/// The fields of a `dynamic_group`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupsRule {
    /// What closes it.
    pub(crate) sources: Sources,
    /// Objects of a group fire in the order of their keys, else of their arrival.
    pub(crate) order_by_key: bool,
    /// Inputs of one invocation.
    pub(crate) inputs_max: u32,
}

/// The sources whose closing closes the groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sources {
    /// None: [`Groups::close`] does, as often as it is called.
    None,
    /// So many.
    Known(u32),
    /// As many as [`Groups::expect`] says.
    AtRunTime,
}

/// What has come of groups that are not closed.
pub(crate) struct Groups<T> {
    rule: GroupsRule,
    groups: Roster<Queue>,
    queues: Queues<Keyed<T>>,
    /// The keys of all that is pending, one after another, where the order is theirs.
    keys: Vec<u8>,
    sources_closed: u32,
    /// By its sources: nothing more may come.
    is_closed: bool,
    /// An object has come, ever.
    has_come: bool,
    has_fired_empty: bool,
    /// Room to put a group in order.
    order: Vec<Keyed<T>>,
}

#[derive(Clone, Copy)]
struct Keyed<T> {
    item: T,
    key_first: usize,
    key_len: usize,
}

impl<T: Copy> Groups<T> {
    pub(super) fn new(rule: GroupsRule) -> Self {
        Self {
            rule,
            groups: Roster::new(),
            queues: Queues::new(),
            keys: Vec::new(),
            sources_closed: 0,
            is_closed: rule.sources == Sources::Known(0),
            has_come: false,
            has_fired_empty: false,
            order: Vec::new(),
        }
    }

    pub(super) fn reset(&mut self, rule: GroupsRule) {
        self.rule = rule;
        self.sources_closed = 0;
        self.is_closed = rule.sources == Sources::Known(0);
        self.has_come = false;
        self.has_fired_empty = false;
    }

    pub(super) fn offer(&mut self, arrival: &Arrival<'_, T>, out: &mut Outcome<T>) {
        if self.is_closed {
            let sources = self.sources().unwrap_or(self.sources_closed);
            out.complain(arrival.item, Complaint::SourcesClosed { sources });
            return;
        }
        self.has_come = true;
        let (place, added) = self.groups.find_or_add(arrival.group);
        let group = &mut self.groups[place];
        if added {
            *group = Queue::EMPTY;
        }
        if group.len() >= self.rule.inputs_max {
            out.overflow = true;
            out.drop_all(std::iter::once(arrival.item));
            return;
        }
        let mut keyed = Keyed {
            item: arrival.item,
            key_first: self.keys.len(),
            key_len: 0,
        };
        if self.rule.order_by_key {
            self.keys.extend_from_slice(arrival.key);
            keyed.key_len = arrival.key.len();
        }
        self.queues.push(group, keyed);
    }

    /// Fires each group, in order of first appearance. What comes later is gathered anew.
    pub(crate) fn close(&mut self, out: &mut Outcome<T>) {
        while let Some(first) = self.groups.first() {
            self.fire(first, out);
        }
        self.keys.clear();
    }

    fn fire(&mut self, place: Place<Queue>, out: &mut Outcome<T>) {
        let pending = self.queues.drain(&mut self.groups[place]);
        if self.rule.order_by_key {
            self.order.extend(pending);
            let rank = |keyed: &Keyed<T>| {
                let key = &self.keys[keyed.key_first..][..keyed.key_len];
                (key, keyed.key_first)
            };
            self.order.sort_unstable_by(|a, b| rank(a).cmp(&rank(b)));
            out.fire_off(self.order.drain(..).map(|keyed| keyed.item));
        } else {
            out.fire_off(pending.map(|keyed| keyed.item));
        }
        self.groups.remove(place);
    }

    /// `fire_empty`: fires once without inputs, if no object has ever come.
    pub(crate) fn fire_empty(&mut self, out: &mut Outcome<T>) {
        if !self.has_come && !std::mem::replace(&mut self.has_fired_empty, true) {
            out.fire(std::iter::empty());
        }
    }

    /// `phr_expect_sources`.
    pub(crate) fn expect(&mut self, sources: u32, out: &mut Outcome<T>) -> Result<(), Refusal> {
        match self.rule.sources {
            Sources::None => Err(Refusal::NoSources),
            Sources::Known(known) if known != sources => {
                Err(Refusal::SourcesKnown { sources: known })
            }
            Sources::Known(_) => Ok(()),
            Sources::AtRunTime => {
                self.rule.sources = Sources::Known(sources);
                self.close_if_complete(out);
                Ok(())
            }
        }
    }

    /// `phr_close_source`, of one more source.
    pub(crate) fn close_source(&mut self, out: &mut Outcome<T>) -> Result<(), Refusal> {
        if self.rule.sources == Sources::None {
            return Err(Refusal::NoSources);
        }
        self.sources_closed = self.sources_closed.saturating_add(1);
        self.close_if_complete(out);
        Ok(())
    }

    fn close_if_complete(&mut self, out: &mut Outcome<T>) {
        if self
            .sources()
            .is_some_and(|sources| self.sources_closed >= sources)
        {
            self.is_closed = true;
            self.close(out);
        }
    }

    fn sources(&self) -> Option<u32> {
        match self.rule.sources {
            Sources::Known(sources) => Some(sources),
            Sources::None | Sources::AtRunTime => None,
        }
    }

    /// Whether all sources have closed.
    #[cfg(test)]
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    pub(super) fn is_pending(&self) -> bool {
        !self.groups.is_empty()
    }

    pub(super) fn drop_pending(&mut self, out: &mut Outcome<T>) {
        while let Some(first) = self.groups.first() {
            let pending = self.queues.drain(&mut self.groups[first]);
            out.drop_all(pending.map(|keyed| keyed.item));
            self.groups.remove(first);
        }
        self.keys.clear();
    }

    pub(super) fn drain(&mut self, out: &mut Outcome<T>) {
        self.drop_pending(out);
        self.groups.clear();
        self.queues.clear();
        self.keys.shrink_to(BUFFER_ENTRIES_KEPT);
        self.order.shrink_to(BUFFER_ENTRIES_KEPT);
    }

    pub(super) fn waiting_for(&self) -> String {
        let objects = text::counted(u64::from(self.queues.len()), "object");
        let groups = text::counted(u64::from(self.groups.len()), "group");
        let closed = self.sources_closed;
        let lacks = match self.rule.sources {
            Sources::None => "which nothing has closed".to_owned(),
            Sources::Known(sources) => format!("with {closed} of {sources} sources closed"),
            Sources::AtRunTime => format!(
                "with {} closed and no `phr_expect_sources` that says of how many",
                text::counted(u64::from(closed), "source")
            ),
        };
        format!("has {objects} in {groups}, {lacks}")
    }
}
