//! What the journal knows without looking at the disk: where every needed record lies, and who
//! needs it.
//!
//! A record is needed while somebody *holds* it:
//!
//! - a name holds the object that it stands for;
//! - a session that has not ended holds its entries, and the firings that took its objects;
//! - a fired invocation that has neither succeeded nor ended with its session holds its inputs;
//! - what says that something earlier is over (a deletion, a session's end) is held while anything
//!   of that is on the disk, needed or not, since a restart would otherwise bring it back.
//!
//! The same changes are made to it by the writer, entry by entry once they are durable, and by
//! recovery, from the records that are left: [`Index::apply`] is all there is of meaning.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use crate::entry::{Entry, Firing, InvocationId, Name, Object, Sequence, SessionId};
use crate::extent::{Extent, Place, Stored};
use crate::segment::Segment;

/// A table with the hash of the core's own, seeded at random.
type HashMap<K, V> = std::collections::HashMap<K, V, RandomState>;

/// Everything that is known.
#[derive(Default)]
pub(crate) struct Index {
    /// By first number. Together they are the log, in this order.
    pub(crate) segments: BTreeMap<u64, Arc<Segment>>,
    /// What is needed, and while recovery reads, also what is not.
    records: HashMap<Sequence, Record>,
    names: HashMap<Name, Standing>,
    sessions: HashMap<SessionId, Session>,
    /// Names that stand for an object.
    pub(crate) objects: u64,
    /// Objects that names stand for and that expire, the next one first.
    expiries: BTreeSet<(u64, Sequence)>,
    /// Recovery reads: what nobody holds may still be asked for by a later record.
    is_recovering: bool,
    /// A sealed segment has come to be mostly dead.
    pub(crate) wants_compaction: bool,
}

struct Record {
    place: Place,
    holds: u32,
    object: Option<Arc<Object>>,
}

/// What a name stands for.
#[derive(Default)]
struct Standing {
    current: Option<Sequence>,
    /// The last deletion, while objects of this name are on the disk and none is current.
    deletion: Option<Sequence>,
    /// Objects of this name on the disk, needed or not.
    on_disk: u64,
}

/// What an invocation has sent under a name: ordinals, nearly always one, and numbers.
pub(crate) type Sends = SmallVec<[(u64, Sequence); 1]>;

/// What a session has done.
#[derive(Default)]
struct Session {
    /// Its records on the disk, needed or not, but objects copied since its end.
    on_disk: u64,
    end: Option<Sequence>,
    /// The records that it holds, in order.
    held: Vec<Sequence>,
    request: Option<Sequence>,
    response: Option<Sequence>,
    /// Its sends, by invocation and name, each with its ordinal.
    sends: HashMap<(InvocationId, Name), Sends>,
    /// Its fired invocations, with the inputs that each holds.
    fired: HashMap<InvocationId, (Sequence, Vec<Sequence>)>,
}

impl Index {
    /// An index to which recovery applies what is on the disk.
    pub(crate) fn recovering() -> Self {
        Self {
            is_recovering: true,
            ..Self::default()
        }
    }

    /// Lets go of everything that nobody holds, now that all has been read.
    pub(crate) fn finish_recovery(&mut self) {
        self.is_recovering = false;
        let unneeded: Vec<_> = self
            .records
            .iter()
            .filter(|(_, record)| record.holds == 0)
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in unneeded {
            self.forget(sequence);
        }
    }

    /// Takes in an entry that is durable at `place`. `has_ended`: its session had ended when
    /// compaction copied it.
    pub(crate) fn apply(&mut self, entry: Entry, place: Place, has_ended: bool) {
        let sequence = place.header.sequence;
        let is_notice = place.header.is_notice();
        place.segment.add(place.header.record_bytes(), is_notice);
        // Held by this function until it returns.
        let mut record = Record {
            place,
            holds: 1,
            object: None,
        };
        if let Entry::Object(object) = entry {
            let object = Arc::new(object);
            record.object = Some(Arc::clone(&object));
            self.records.insert(sequence, record);
            self.apply_object(&object, sequence, has_ended);
        } else {
            self.records.insert(sequence, record);
            self.apply_deed(entry, sequence);
        }
        self.release(sequence);
    }

    fn apply_deed(&mut self, entry: Entry, sequence: Sequence) {
        match entry {
            Entry::Object(_) => unreachable!("an object is no deed"),
            Entry::Request(entry) => self.keep(entry.session, sequence).request = Some(sequence),
            Entry::Response(entry) => self.keep(entry.session, sequence).response = Some(sequence),
            Entry::Firing(entry) => self.apply_firing(entry, sequence),
            Entry::Success(entry) => {
                let session = self.keep(entry.session, sequence);
                let fired = session.fired.get_mut(&entry.invocation);
                let inputs = fired.map(|(_, inputs)| mem::take(inputs));
                self.release_all(inputs.unwrap_or_default());
            }
            Entry::End(entry) => self.apply_end(entry.session, sequence),
            Entry::Delete(entry) => self.apply_delete(&entry.name, sequence),
        }
    }

    fn apply_object(&mut self, object: &Object, sequence: Sequence, has_ended: bool) {
        let standing = self.names.entry(object.name.clone()).or_default();
        standing.on_disk += 1;
        let before = standing.current.replace(sequence);
        let deletion = standing.deletion.take();
        self.hold(sequence);
        self.objects += 1;
        if let Some(before) = before {
            self.unseat(before);
        }
        self.release_all(deletion);
        if let Some(retain_until_ns) = object.retain_until_ns {
            self.expiries.insert((retain_until_ns, sequence));
        }
        if !has_ended {
            let session = self.keep(object.session, sequence);
            let identity = (object.invocation, object.name.clone());
            let sends = session.sends.entry(identity).or_default();
            sends.push((object.ordinal, sequence));
        }
    }

    fn apply_firing(&mut self, firing: Firing, sequence: Sequence) {
        let mut inputs = firing.inputs;
        inputs.retain(|input| self.hold(*input));
        let contributors: BTreeSet<_> = inputs
            .iter()
            .filter_map(|input| self.records.get(input)?.object.as_ref())
            .map(|object| object.session)
            .filter(|session| *session != firing.session)
            .collect();
        for contributor in contributors {
            let is_open = self.session_is_open(contributor);
            if is_open && self.hold(sequence) {
                let session = self.sessions.entry(contributor).or_default();
                session.held.push(sequence);
            }
        }
        let session = self.keep(firing.session, sequence);
        session.fired.insert(firing.invocation, (sequence, inputs));
    }

    fn apply_end(&mut self, session: SessionId, sequence: Sequence) {
        let Some(state) = self.sessions.get_mut(&session) else {
            return;
        };
        if state.end.is_some() || state.on_disk == 0 {
            return;
        }
        state.end = Some(sequence);
        let held = mem::take(&mut state.held);
        let fired = mem::take(&mut state.fired);
        state.sends = HashMap::default();
        self.hold(sequence);
        self.release_all(held);
        self.release_all(fired.into_values().flat_map(|(_, inputs)| inputs));
    }

    fn apply_delete(&mut self, name: &Name, sequence: Sequence) {
        let Some(standing) = self.names.get_mut(name) else {
            return;
        };
        let before = standing.current.take();
        let earlier = standing.deletion.replace(sequence);
        self.hold(sequence);
        if let Some(before) = before {
            self.unseat(before);
        }
        self.release_all(earlier);
    }

    /// A name stands for this object no longer.
    fn unseat(&mut self, sequence: Sequence) {
        self.objects -= 1;
        let object = self
            .records
            .get(&sequence)
            .and_then(|record| record.object.as_ref());
        if let Some(retain_until_ns) = object.and_then(|object| object.retain_until_ns) {
            self.expiries.remove(&(retain_until_ns, sequence));
        }
        self.release(sequence);
    }

    /// Counts a record for its session, which holds it unless it has ended.
    fn keep(&mut self, session: SessionId, sequence: Sequence) -> &mut Session {
        let is_open = self.sessions.get(&session).is_none_or(|s| s.end.is_none());
        if is_open {
            self.hold(sequence);
        }
        let state = self.sessions.entry(session).or_default();
        state.on_disk += 1;
        if is_open {
            state.held.push(sequence);
        }
        state
    }

    /// Holds a record once more; false if there is none.
    fn hold(&mut self, sequence: Sequence) -> bool {
        let record = self.records.get_mut(&sequence);
        record.map(|record| record.holds += 1).is_some()
    }

    fn release(&mut self, sequence: Sequence) {
        let Some(record) = self.records.get_mut(&sequence) else {
            return;
        };
        record.holds -= 1;
        if record.holds == 0 && !self.is_recovering {
            self.forget(sequence);
        }
    }

    fn release_all(&mut self, sequences: impl IntoIterator<Item = Sequence>) {
        for sequence in sequences {
            self.release(sequence);
        }
    }

    fn forget(&mut self, sequence: Sequence) {
        if let Some(record) = self.records.remove(&sequence) {
            let segment = &record.place.segment;
            let header = &record.place.header;
            segment.subtract(header.record_bytes(), header.is_notice());
            self.wants_compaction |= segment.is_sealed() && segment.is_mostly_dead();
        }
    }
}

/// What compaction has done to a record, once that is durable.
pub(crate) enum Moved {
    /// It lies elsewhere now.
    To(Place),
    /// It is no longer on the disk.
    ObjectGone(Name),
    /// One record less on the disk counts for this session.
    SessionLess(SessionId),
}

/// Compaction.
impl Index {
    /// A record with this number is needed.
    pub(crate) fn needs(&self, sequence: Sequence) -> bool {
        self.records.contains_key(&sequence)
    }

    /// Takes in what compaction has done.
    pub(crate) fn moved(&mut self, moved: Moved) {
        match moved {
            Moved::To(place) => self.moved_to(place),
            Moved::ObjectGone(name) => self.object_gone(&name),
            Moved::SessionLess(session) => self.session_less(session),
        }
    }

    fn moved_to(&mut self, place: Place) {
        let Some(record) = self.records.get_mut(&place.header.sequence) else {
            return;
        };
        let (bytes, is_notice) = (place.header.record_bytes(), place.header.is_notice());
        record.place.segment.subtract(bytes, is_notice);
        place.segment.add(bytes, is_notice);
        record.place = place;
    }

    fn object_gone(&mut self, name: &Name) {
        let Some(standing) = self.names.get_mut(name) else {
            return;
        };
        standing.on_disk = standing.on_disk.saturating_sub(1);
        if standing.on_disk == 0 && standing.current.is_none() {
            let deletion = standing.deletion;
            self.names.remove(name);
            self.release_all(deletion);
        }
    }

    fn session_less(&mut self, session: SessionId) {
        let Some(state) = self.sessions.get_mut(&session) else {
            return;
        };
        state.on_disk = state.on_disk.saturating_sub(1);
        if let (0, Some(end)) = (state.on_disk, state.end) {
            self.sessions.remove(&session);
            self.release(end);
        }
    }
}

/// Questions.
impl Index {
    /// The object that a name stands for.
    pub(crate) fn find(&self, name: &Name) -> Option<Stored> {
        self.stored(self.current(name)?)
    }

    /// The object of this number, if it is needed.
    pub(crate) fn stored(&self, sequence: Sequence) -> Option<Stored> {
        let record = self.records.get(&sequence)?;
        Some(Stored {
            sequence,
            object: record.object.clone()?,
            payload: Extent::new(record.place.clone()),
        })
    }

    /// The number of the object that a name stands for.
    pub(crate) fn current(&self, name: &Name) -> Option<Sequence> {
        self.names.get(name)?.current
    }

    /// The bytes of records that are needed for their own sake.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.segments
            .values()
            .map(|segment| segment.live_bytes())
            .sum()
    }

    /// The sends of this identity, each with its ordinal.
    pub(crate) fn sends(
        &self,
        session: SessionId,
        identity: &(InvocationId, Name),
    ) -> &[(u64, Sequence)] {
        let session = self.sessions.get(&session);
        let sends = session.and_then(|session| session.sends.get(identity));
        sends.map_or(&[], SmallVec::as_slice)
    }

    /// The request, the response or the firing that a session has recorded.
    pub(crate) fn request(&self, session: SessionId) -> Option<Sequence> {
        self.sessions.get(&session)?.request
    }

    pub(crate) fn response(&self, session: SessionId) -> Option<Sequence> {
        self.sessions.get(&session)?.response
    }

    pub(crate) fn firing(&self, session: SessionId, invocation: InvocationId) -> Option<Sequence> {
        let fired = self.sessions.get(&session)?.fired.get(&invocation)?;
        Some(fired.0)
    }

    /// It has entries and no end.
    pub(crate) fn session_is_open(&self, session: SessionId) -> bool {
        let session = self.sessions.get(&session);
        session.is_some_and(|session| session.end.is_none())
    }

    /// The end of a session that has ended and of which something is on the disk.
    pub(crate) fn end(&self, session: SessionId) -> Option<Sequence> {
        self.sessions.get(&session)?.end
    }

    /// Up to `most` objects that expire by `now_ns`, the first to expire first.
    pub(crate) fn due(&self, now_ns: u64, most: usize) -> Vec<(Name, Sequence)> {
        self.expiries
            .range(..=(now_ns, Sequence::MAX))
            .filter_map(|(_, sequence)| {
                let object = self.records.get(sequence)?.object.as_ref()?;
                Some((object.name.clone(), *sequence))
            })
            .take(most)
            .collect()
    }

    /// Every session without an end, with the places of what it holds.
    pub(crate) fn unfinished(&self) -> BTreeMap<SessionId, Vec<Place>> {
        let open = self
            .sessions
            .iter()
            .filter(|(_, session)| session.end.is_none());
        open.map(|(id, session)| {
            let held = session
                .held
                .iter()
                .filter_map(|sequence| self.records.get(sequence));
            (*id, held.map(|record| record.place.clone()).collect())
        })
        .collect()
    }
}
