//! Ids of invocations that stay the same when a durable session goes on after a restart.
//!
//! An invocation between two durable points runs again from the durable inputs that it comes from.
//! What it sends durable must then have the name and the author that it had before, or it would
//! take effect twice. So in durable sessions an id is not counted but derived: from the session,
//! the function, the trigger and the identities of the inputs in their order. It goes to disk, so
//! the hash is one that never changes, and everything that has a name goes in by it.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

/// Told from those that are counted, which begin with a scheduler's number.
const DERIVED: u64 = 1 << 63;

/// The id of the invocation that a durable session's request has caused.
pub fn request(session: u64, function: &str) -> u64 {
    Identity::new(session, function).finish()
}

/// An id that is being derived.
pub(crate) struct Identity(SipHasher24);

impl Identity {
    /// Of an invocation of this function.
    pub(crate) fn new(session: u64, function: &str) -> Self {
        let mut identity = Self(SipHasher24::new_with_keys(session, DERIVED));
        identity.name(function.as_bytes());
        identity
    }

    /// A name goes in, with its length: what follows cannot be taken for a part of it.
    pub(crate) fn name(&mut self, name: &[u8]) {
        self.number(name.len() as u64);
        self.0.write(name);
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.0.write(&number.to_le_bytes());
    }

    pub(crate) fn finish(self) -> u64 {
        self.0.finish() | DERIVED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_on_disks_and_do_not_change() {
        assert_eq!(request(1, "order"), 0xdba4_b8ab_8fa1_cd2d);
        let mut identity = Identity::new(1, "bill");
        identity.name(b"orders");
        identity.number(7);
        assert_eq!(identity.finish(), 0xfbab_bd4d_82ed_038c);
    }

    #[test]
    fn what_differs_in_anything_has_another_id() {
        let id = |session, function, names: &[&str]| {
            let mut identity = Identity::new(session, function);
            names.iter().for_each(|name| identity.name(name.as_bytes()));
            identity.finish()
        };
        let ids = [
            id(1, "f", &[]),
            id(2, "f", &[]),
            id(1, "g", &[]),
            id(1, "f", &["a", "b"]),
            id(1, "f", &["b", "a"]),
            id(1, "f", &["ab", ""]),
            id(1, "fa", &["b"]),
        ];
        for (at, one) in ids.iter().enumerate() {
            assert!(!ids[..at].contains(one), "{ids:x?}");
        }
    }
}
