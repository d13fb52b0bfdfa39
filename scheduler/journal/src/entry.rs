//! What can be written down: plain strings and integers, and payload bytes apart.
//!
//! The journal looks at identities only (sessions, invocations, names, sequence numbers);
//! everything else it keeps for whoever reads it after a restart.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use foldhash::quality::RandomState;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::format;
use crate::limits::NAME_BYTES_MAX;

/// A session, unique over the whole life of a journal, restarts included.
pub type SessionId = u128;

/// An invocation, unique within its session; all its attempts share it.
pub type InvocationId = u64;

/// The number of an entry, given by the journal, growing, never used twice.
pub type Sequence = u64;

/// What a durable object is found by. Copies share their text, and know its hash: a table looks at
/// the text of the one name that is asked for.
#[derive(Clone, PartialEq, Eq)]
pub struct Name {
    hash: u64,
    parts: Arc<NameParts>,
}

/// The parts of a [`Name`].
#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NameParts {
    /// The application.
    pub app: String,
    /// The bucket.
    pub bucket: String,
    /// The key, 1 to 255 bytes.
    pub key: Vec<u8>,
}

impl Name {
    /// The name of these three parts.
    pub fn new(app: &str, bucket: &str, key: &[u8]) -> Self {
        Self::of(NameParts {
            app: app.to_owned(),
            bucket: bucket.to_owned(),
            key: key.to_owned(),
        })
    }

    fn of(parts: NameParts) -> Self {
        // Seeded at random, once in each process.
        static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::default);
        Self {
            hash: HASHER.hash_one(&parts),
            parts: Arc::new(parts),
        }
    }

    fn fits(&self) -> bool {
        !self.key.is_empty()
            && self.key.len() <= NAME_BYTES_MAX
            && self.app.len() <= NAME_BYTES_MAX
            && self.bucket.len() <= NAME_BYTES_MAX
    }
}

impl Deref for Name {
    type Target = NameParts;

    fn deref(&self) -> &NameParts {
        &self.parts
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts.cmp(&other.parts)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.parts.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::of(NameParts::deserialize(deserializer)?))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.fmt(f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.escape_ascii();
        write!(f, "{}/{}/{key}", self.app, self.bucket)
    }
}

/// A request that opens a durable session. Its payload is the body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The session that it opens.
    pub session: SessionId,
    /// The application.
    pub app: String,
    /// The version of the application that took it.
    pub version: String,
    /// The function called.
    pub function: String,
    /// Whatever else of the request must come back, as the caller encodes it.
    pub headers: Vec<u8>,
    /// When the session times out, in nanoseconds of the wall clock.
    pub deadline_ns: Option<u64>,
    /// When it arrived, in nanoseconds of the wall clock.
    pub time_ns: u64,
}

/// A durable object. Its payload is the object's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// What it is found by.
    pub name: Name,
    /// Its group, 0 to 255 bytes.
    pub group: Vec<u8>,
    /// The session in which it was sent.
    pub session: SessionId,
    /// The invocation that sent it.
    pub invocation: InvocationId,
    /// How many objects the invocation's attempt had created before.
    pub ordinal: u64,
    /// It expires when the clock passed to `Journal::expire` reaches this; `None`: never.
    pub retain_until_ns: Option<u64>,
    /// It takes the place of an object of the same name; otherwise it is refused where there is
    /// one.
    pub replace: bool,
}

/// A trigger's firing, written before its function is dispatched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firing {
    /// The session in which the function runs.
    pub session: SessionId,
    /// The invocation that it makes.
    pub invocation: InvocationId,
    /// The application.
    pub app: String,
    /// The bucket of the trigger.
    pub bucket: String,
    /// The trigger.
    pub trigger: String,
    /// The function.
    pub function: String,
    /// The objects chosen, in order, by the sequence numbers of their receipts.
    pub inputs: Vec<Sequence>,
    /// Whatever else a dispatch needs to be repeated (window, group), as the caller encodes it.
    pub details: Vec<u8>,
}

/// An invocation that was recorded as fired has succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Success {
    /// Its session.
    pub session: SessionId,
    /// The invocation.
    pub invocation: InvocationId,
}

/// The response of a session. Its payload is the body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The session answered.
    pub session: SessionId,
    /// Whatever else of the response must come back, as the caller encodes it.
    pub headers: Vec<u8>,
}

/// A session's end, after which nothing more is written for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The session.
    pub session: SessionId,
    /// How it ended, in the caller's numbers.
    pub outcome: u8,
    /// Why, for people.
    pub reason: String,
}

/// An object is no longer wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    /// The object.
    pub name: Name,
}

/// One entry of the journal, without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A session's request.
    Request(Request),
    /// An object.
    Object(Object),
    /// A trigger's firing.
    Firing(Firing),
    /// A fired invocation's success.
    Success(Success),
    /// A session's response.
    Response(Response),
    /// A session's end.
    End(End),
    /// An object's deletion.
    Delete(Delete),
}

impl Entry {
    /// The session to which it belongs; a deletion belongs to none.
    pub fn session(&self) -> Option<SessionId> {
        match self {
            Self::Request(entry) => Some(entry.session),
            Self::Object(entry) => Some(entry.session),
            Self::Firing(entry) => Some(entry.session),
            Self::Success(entry) => Some(entry.session),
            Self::Response(entry) => Some(entry.session),
            Self::End(entry) => Some(entry.session),
            Self::Delete(_) => None,
        }
    }

    /// Its number in a record's header.
    pub(crate) fn kind(&self) -> u8 {
        match self {
            Self::Request(_) => format::REQUEST,
            Self::Object(_) => format::OBJECT,
            Self::Firing(_) => format::FIRING,
            Self::Success(_) => format::SUCCESS,
            Self::Response(_) => format::RESPONSE,
            Self::End(_) => format::END,
            Self::Delete(_) => format::DELETE,
        }
    }

    /// Its bytes, without kind and payload.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let bytes = match self {
            Self::Request(entry) => postcard::to_stdvec(entry),
            Self::Object(entry) => postcard::to_stdvec(entry),
            Self::Firing(entry) => postcard::to_stdvec(entry),
            Self::Success(entry) => postcard::to_stdvec(entry),
            Self::Response(entry) => postcard::to_stdvec(entry),
            Self::End(entry) => postcard::to_stdvec(entry),
            Self::Delete(entry) => postcard::to_stdvec(entry),
        };
        bytes.expect("strings and integers always have an encoding")
    }

    /// The entry of these bytes, unless they are not exactly one of this kind.
    pub(crate) fn decode(kind: u8, bytes: &[u8]) -> Option<Self> {
        fn exactly<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
            let (entry, rest) = postcard::take_from_bytes(bytes).ok()?;
            rest.is_empty().then_some(entry)
        }
        match kind {
            format::REQUEST => exactly(bytes).map(Self::Request),
            format::OBJECT => exactly(bytes).map(Self::Object),
            format::FIRING => exactly(bytes).map(Self::Firing),
            format::SUCCESS => exactly(bytes).map(Self::Success),
            format::RESPONSE => exactly(bytes).map(Self::Response),
            format::END => exactly(bytes).map(Self::End),
            format::DELETE => exactly(bytes).map(Self::Delete),
            _ => None,
        }
    }

    /// Its names and group keep to their limits.
    pub(crate) fn fits(&self) -> bool {
        match self {
            Self::Object(entry) => entry.name.fits() && entry.group.len() <= NAME_BYTES_MAX,
            Self::Delete(entry) => entry.name.fits(),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    //! The encoding of entries, which is on disks and must not change.

    use super::*;

    #[test]
    fn an_entry_comes_back_as_it_was_and_with_a_byte_more_or_less_not_at_all() {
        let entry = Entry::Object(Object {
            name: Name::new("app", "bucket", b"key"),
            group: b"group".to_vec(),
            session: u128::MAX,
            invocation: 7,
            ordinal: 0,
            retain_until_ns: Some(1),
            replace: true,
        });
        let bytes = entry.encode();
        assert_eq!(Entry::decode(entry.kind(), &bytes), Some(entry.clone()));
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(Entry::decode(entry.kind(), &longer), None);
        let shorter = &bytes[..bytes.len() - 1];
        assert_eq!(Entry::decode(entry.kind(), shorter), None);
        assert_eq!(Entry::decode(99, &bytes), None);
    }

    #[test]
    fn the_bytes_of_an_entry_are_pinned() {
        let entry = Entry::End(End {
            session: 300,
            outcome: 2,
            reason: "no".to_owned(),
        });
        assert_eq!(entry.kind(), 6);
        assert_eq!(entry.encode(), [0xac, 0x02, 2, 2, b'n', b'o']);
    }
}
