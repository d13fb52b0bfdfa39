//! Which entries are written, which have been written already, and which are refused.
//!
//! Decided by the writer alone, entry by entry, against the index and what the batch holds so far,
//! so that of two sends that race one comes first.

use foldhash::{HashMap, HashSet};

use crate::entry::{Entry, InvocationId, Name, Object, Sequence, SessionId};
use crate::error::WriteError;
use crate::index::{Index, Sends};

/// What has become of an entry, once it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// It was written, under this number.
    Written(Sequence),
    /// It repeats what the same invocation or session has written before, under this number;
    /// nothing was written and the first one stands.
    Repeated(Sequence),
    /// There was nothing to delete or to end.
    Needless,
}

impl Receipt {
    /// The number of the entry that stands.
    pub fn sequence(&self) -> Option<Sequence> {
        match self {
            Self::Written(sequence) | Self::Repeated(sequence) => Some(*sequence),
            Self::Needless => None,
        }
    }
}

/// What shall be done with an entry.
#[derive(Debug)]
pub(crate) enum Verdict {
    Write,
    Answer(Result<Receipt, WriteError>),
}

/// What a session does once only.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Deed {
    Request(SessionId),
    Response(SessionId),
    Firing(SessionId, InvocationId),
}

/// The entries of a batch that is not yet durable.
#[derive(Default)]
pub(crate) struct Pending {
    /// What a name will stand for.
    names: HashMap<Name, Option<Sequence>>,
    sends: HashMap<(SessionId, InvocationId, Name), Sends>,
    deeds: HashMap<Deed, Sequence>,
    open: HashSet<SessionId>,
    ended: HashMap<SessionId, Sequence>,
}

impl Pending {
    /// What shall be done with an entry.
    pub(crate) fn judge(&self, index: &Index, entry: &Entry) -> Verdict {
        use Verdict::{Answer, Write};
        if !entry.fits() {
            return Answer(Err(WriteError::TooLarge));
        }
        if let Some(end) = entry.session().and_then(|session| self.end(index, session)) {
            return Answer(match entry {
                Entry::End(_) => Ok(Receipt::Repeated(end)),
                _ => Err(WriteError::SessionEnded),
            });
        }
        let earlier = match entry {
            Entry::Request(entry) => self
                .deed(Deed::Request(entry.session))
                .or_else(|| index.request(entry.session)),
            Entry::Response(entry) => self
                .deed(Deed::Response(entry.session))
                .or_else(|| index.response(entry.session)),
            Entry::Firing(entry) => self
                .deed(Deed::Firing(entry.session, entry.invocation))
                .or_else(|| index.firing(entry.session, entry.invocation)),
            Entry::Object(object) => return self.judge_object(index, object),
            Entry::Success(_) => None,
            Entry::End(entry) => {
                let is_open =
                    self.open.contains(&entry.session) || index.session_is_open(entry.session);
                return if is_open {
                    Write
                } else {
                    Answer(Ok(Receipt::Needless))
                };
            }
            Entry::Delete(entry) => {
                let exists = self.current(index, &entry.name).is_some();
                return if exists {
                    Write
                } else {
                    Answer(Ok(Receipt::Needless))
                };
            }
        };
        earlier.map_or(Write, |sequence| Answer(Ok(Receipt::Repeated(sequence))))
    }

    fn judge_object(&self, index: &Index, object: &Object) -> Verdict {
        let identity = (object.invocation, object.name.clone());
        let stored = index.sends(object.session, &identity);
        let pending = self.sends.get(&(object.session, identity.0, identity.1));
        let mut sends = stored.iter().chain(pending.into_iter().flatten());
        // Without `replace`, an invocation sends a name once. With it, it may send it several
        // times, and what a further attempt repeats is told from what it adds by its ordinal.
        let same = sends.find(|(ordinal, _)| !object.replace || *ordinal == object.ordinal);
        if let Some((_, sequence)) = same {
            return Verdict::Answer(Ok(Receipt::Repeated(*sequence)));
        }
        if !object.replace && self.current(index, &object.name).is_some() {
            let name = object.name.clone();
            return Verdict::Answer(Err(WriteError::Exists { name }));
        }
        Verdict::Write
    }

    /// The object still stands for its name, so that its expiry deletes nothing newer.
    pub(crate) fn is_current(&self, index: &Index, name: &Name, sequence: Sequence) -> bool {
        self.current(index, name) == Some(sequence)
    }

    /// Takes note of an entry that will be written.
    pub(crate) fn note(&mut self, entry: &Entry, sequence: Sequence) {
        if let Some(session) = entry.session() {
            self.open.insert(session);
        }
        let deed = match entry {
            Entry::Request(entry) => Deed::Request(entry.session),
            Entry::Response(entry) => Deed::Response(entry.session),
            Entry::Firing(entry) => Deed::Firing(entry.session, entry.invocation),
            Entry::Success(_) => return,
            Entry::Object(object) => {
                self.names.insert(object.name.clone(), Some(sequence));
                let identity = (object.session, object.invocation, object.name.clone());
                let sends = self.sends.entry(identity).or_default();
                sends.push((object.ordinal, sequence));
                return;
            }
            Entry::End(entry) => {
                self.ended.insert(entry.session, sequence);
                return;
            }
            Entry::Delete(entry) => {
                self.names.insert(entry.name.clone(), None);
                return;
            }
        };
        self.deeds.insert(deed, sequence);
    }

    fn deed(&self, deed: Deed) -> Option<Sequence> {
        self.deeds.get(&deed).copied()
    }

    fn end(&self, index: &Index, session: SessionId) -> Option<Sequence> {
        self.ended
            .get(&session)
            .copied()
            .or_else(|| index.end(session))
    }

    fn current(&self, index: &Index, name: &Name) -> Option<Sequence> {
        match self.names.get(name) {
            Some(current) => *current,
            None => index.current(name),
        }
    }
}
