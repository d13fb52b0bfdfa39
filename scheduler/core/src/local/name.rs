//! Names: which identities (session, bucket, key) are taken, and by which object.
//!
//! A name is remembered until its session ends, also after its object's memory has been used
//! again, so that a late duplicate is recognised. Names given by functions are here; an automatic
//! key of an invocation that cannot run again cannot repeat, and is entered only once its session
//! has asked for one by its text.

use std::hash::BuildHasher;
use std::io::Write;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use pheromone_shm::message::InputKey;
use smallvec::SmallVec;

use crate::event::SessionId;
use crate::local::object::Object;
use crate::slab::{Ref, Slab};

/// Bytes of the longest text of an automatic key: two signs and two numbers of 20 and 10 digits.
pub(super) const AUTO_TEXT_BYTES_MAX: usize = 32;

/// The text of an automatic key.
pub(super) type AutoText = SmallVec<[u8; AUTO_TEXT_BYTES_MAX]>;

/// A remembered identity.
pub(super) struct Name {
    session: SessionId,
    bucket: u16,
    key: SmallVec<[u8; 32]>,
    hash: u64,
    object: Ref<Object>,
    author: Author,
    /// Neighbours in its session's list.
    previous: Ref<Name>,
    next: Ref<Name>,
}

/// Who has taken an identity: an invocation, in which attempt. The default: somebody outside, or
/// one whose identities cannot be taken again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Author {
    pub(super) invocation: u64,
    pub(super) attempt: u32,
}

impl Default for Name {
    fn default() -> Self {
        Self {
            session: SessionId(0),
            bucket: 0,
            key: SmallVec::new(),
            hash: 0,
            object: Ref::NONE,
            author: Author::default(),
            previous: Ref::NONE,
            next: Ref::NONE,
        }
    }
}

/// All names.
pub(super) struct Names {
    names: Slab<Name>,
    table: HashTable<Ref<Name>>,
    /// Seeded, so that functions cannot choose keys that collide; no decision depends on it.
    hasher: RandomState,
}

impl Names {
    pub(super) fn new() -> Self {
        Self {
            names: Slab::new(),
            table: HashTable::new(),
            hasher: RandomState::default(),
        }
    }

    pub(super) fn live(&self) -> u32 {
        self.names.live()
    }

    /// The name of this identity, where it is taken.
    pub(super) fn find(&self, session: SessionId, bucket: u16, key: &[u8]) -> Option<Ref<Name>> {
        let hash = self.hash(session, bucket, key);
        let same = |&name: &Ref<Name>| {
            let name = &self.names[name];
            name.session == session && name.bucket == bucket && name.key[..] == *key
        };
        self.table.find(hash, same).copied()
    }

    /// Takes an identity that is free for `object`. `list` is the session's list of names.
    pub(super) fn insert(
        &mut self,
        session: SessionId,
        bucket: u16,
        key: &[u8],
        (object, author): (Ref<Object>, Author),
        list: &mut Ref<Name>,
    ) -> Ref<Name> {
        let hash = self.hash(session, bucket, key);
        let (inserted, name) = self.names.take();
        name.session = session;
        name.bucket = bucket;
        name.key.clear();
        name.key.extend_from_slice(key);
        name.hash = hash;
        name.object = object;
        name.author = author;
        name.previous = Ref::NONE;
        name.next = std::mem::replace(list, inserted);
        let next = name.next;
        if next.is_some() {
            self.names[next].previous = inserted;
        }
        let names = &self.names;
        self.table
            .insert_unique(hash, inserted, |&name| names[name].hash);
        inserted
    }

    /// Whether another attempt of this author has taken the identity.
    pub(super) fn is_of_another_attempt(&self, name: Ref<Name>, of: Author) -> bool {
        let author = self.names[name].author;
        author.invocation == of.invocation && author.attempt != of.attempt
    }

    /// Another object has the identity now. Answers with the one before, while it lives.
    pub(super) fn replace(
        &mut self,
        name: Ref<Name>,
        (object, author): (Ref<Object>, Author),
    ) -> Option<Ref<Object>> {
        let name = &mut self.names[name];
        name.author = author;
        std::mem::replace(&mut name.object, object).some()
    }

    /// Whether something has an identity, or had it.
    pub(super) fn has(&self, session: SessionId, bucket: u16, key: &[u8]) -> bool {
        self.find(session, bucket, key).is_some()
    }

    /// The object of a name, while it lives.
    pub(super) fn object(&self, name: Ref<Name>) -> Option<Ref<Object>> {
        self.names[name].object.some()
    }

    /// The object has died; its name stays taken.
    pub(super) fn forget_object(&mut self, name: Ref<Name>) {
        self.names[name].object = Ref::NONE;
    }

    /// Takes the first name off a session's list and frees its identity. Answers with its object
    /// where that lives on.
    pub(super) fn remove_first(&mut self, list: &mut Ref<Name>) -> Option<Ref<Object>> {
        let removed = *list;
        let object = self.names[removed].object;
        self.remove(removed, list);
        object.some()
    }

    /// Takes a name off its session's list and frees its identity.
    pub(super) fn remove(&mut self, removed: Ref<Name>, list: &mut Ref<Name>) {
        let Name {
            hash,
            previous,
            next,
            ..
        } = self.names[removed];
        match previous.some() {
            Some(previous) => self.names[previous].next = next,
            None => *list = next,
        }
        if next.is_some() {
            self.names[next].previous = previous;
        }
        let entry = self
            .table
            .find_entry(hash, |&other| other == removed)
            .expect("a name stays in the table until it is removed");
        entry.remove();
        self.names.give(removed);
    }

    fn hash(&self, session: SessionId, bucket: u16, key: &[u8]) -> u64 {
        self.hasher.hash_one((session.0, bucket, key))
    }
}

/// `~I.N`.
pub(super) fn auto_text(invocation: u64, ordinal: u32) -> AutoText {
    let mut text = [0; AUTO_TEXT_BYTES_MAX];
    let mut rest = &mut text[..];
    write!(rest, "~{invocation}.{ordinal}").expect("two numbers fit 32 bytes");
    let left = rest.len();
    AutoText::from_slice(&text[..AUTO_TEXT_BYTES_MAX - left])
}

/// `~I`, the key of what tells of an invocation's failure.
pub(super) fn failure_text(invocation: u64) -> AutoText {
    let mut text = auto_text(invocation, 0);
    text.truncate(text.len() - 2);
    text
}

/// Whether this is the text of an automatic key, as [`auto_text`] writes it.
pub(super) fn is_auto_text(key: &[u8]) -> bool {
    auto_key(key).is_some()
}

/// The automatic key of this text, as [`auto_text`] writes it.
pub(super) fn auto_key(key: &[u8]) -> Option<InputKey<'static>> {
    let (invocation, ordinal) = std::str::from_utf8(key)
        .ok()?
        .strip_prefix('~')?
        .split_once('.')?;
    let (invocation, ordinal) = (invocation.parse().ok()?, ordinal.parse().ok()?);
    let is_so = auto_text(invocation, ordinal)[..] == *key;
    is_so.then_some(InputKey::Auto {
        invocation,
        ordinal,
    })
}

/// The text of any key.
pub(super) fn key_text<'k>(key: InputKey<'k>, room: &'k mut AutoText) -> &'k [u8] {
    match key {
        InputKey::Named(named) => named,
        InputKey::Auto {
            invocation,
            ordinal,
        } => {
            *room = auto_text(invocation, ordinal);
            room
        }
    }
}
