//! Judges what executors say: whether a message can be meant, before anything is done about it.
//!
//! Every index, extent, size, key and state is checked here or where it is first used, on the copy
//! that the ring handed over. Whoever breaks a rule is killed, with the rule as the reason.

use pheromone_shm::message::{
    Extent, GROUP_BYTES_MAX, InputKey, KEY_BYTES_MAX, Key, REQUEST_OBJECT, Target,
};

use crate::local::app::App;
use crate::local::executor::{Disk, Executor, State};
use crate::local::invocation::Invocation;
use crate::local::object::Object;
use crate::slab::Ref;

/// A rule that an executor broke; reads after "it".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("sent `{0}` while nothing was dispatched to it")]
    NotOpen(&'static str),
    #[error("sent `{0}` while it waited for an answer")]
    Waiting(&'static str),
    #[error("announced an object for the disk and sent `{0}`")]
    NotPersisted(&'static str),
    #[error("announced an object for the disk and sent one that is in no bucket")]
    PersistedDirect,
    #[error("went on with invocation {0}, which it had not been granted")]
    NotGranted(u64),
    #[error("offered to go on from an object that does not fire exactly one function that it may")]
    NotInPlace,
    #[error("offered a second invocation before the first was decided")]
    OfferedTwice,
    #[error("went on with an invocation that it had not offered, or that had been withdrawn")]
    NothingOffered,
    #[error("said that it is ready a second time")]
    ReadyTwice,
    #[error("said that it has loaded a function that it had loaded before")]
    LoadedTwice,
    #[error("named bucket number {bucket} of {count}")]
    Bucket { bucket: u16, count: usize },
    #[error("published into bucket number {bucket}, which its function's `sends` does not list")]
    NotInSends { bucket: u16 },
    #[error("named function number {function} of {count}")]
    Function { function: u16, count: usize },
    #[error(
        "addressed function number {function}, which is neither in its function's `next` nor `calls`"
    )]
    NotCallable { function: u16 },
    #[error("published a direct object, but its function has no `next`")]
    NoNext,
    #[error(
        "named {len_units} units at {offset_units}, outside of its region of {span_units} units"
    )]
    Extent {
        offset_units: u32,
        len_units: u32,
        span_units: u64,
    },
    #[error("claimed {size_bytes} bytes in an extent of {len_units} units of 64 bytes")]
    Size { size_bytes: u64, len_units: u32 },
    #[error("sent an object of {size_bytes} bytes, more than `object_size` allows ({most_bytes})")]
    ObjectSize { size_bytes: u64, most_bytes: u64 },
    #[error("allocated {bytes} bytes more than it had credit for")]
    Credit { bytes: u64 },
    #[error("gave a key of {0} bytes")]
    KeyLength(usize),
    #[error("gave a key or group with a zero byte")]
    ZeroByte,
    #[error("gave a key that begins with `~`")]
    AutomaticKey,
    #[error("gave a group of {0} bytes")]
    GroupLength(usize),
    #[error("named object number {object} of the {held} that its invocation holds")]
    Object { object: u32, held: usize },
    #[error("named the request of a session that does not keep one")]
    NoRequest,
    #[error("responded with status {0}, which is not from 200 to 599")]
    HttpStatus(u16),
    #[error("sent a list of {0} bytes, which is not one of numbers of 4 bytes")]
    PartList(usize),
    #[error("listed more than {most} parts for a response")]
    Parts { most: u32 },
    #[error("sent an answer of a custom trigger that had not been asked")]
    NotAsked,
    #[error("sent what is no answer while its trigger decided")]
    NoVerdict,
    #[error("fired function number {function}, which is none of its trigger's")]
    NotItsFunction { function: u16 },
    #[error("began another answer within a firing")]
    UnfinishedFire,
    #[error("listed more than {most} objects in one verdict")]
    Verdict { most: usize },
    #[error("steered trigger number {trigger} of {count}")]
    Trigger { trigger: u16, count: usize },
    #[error("steered trigger number {trigger}, which is of another type")]
    TriggerType { trigger: u16 },
    #[error("listed more than {most} keys for one join")]
    JoinKeys { most: usize },
    #[error("asked for input number {first} of {count}")]
    FetchInputs { first: u32, count: u32 },
    #[error("asked for attached object number {first} of {count}")]
    FetchAttached { first: u32, count: u32 },
    #[error("asked for live extents from number {first}, out of turn")]
    FetchExtents { first: u32 },
    #[error("does not take back what is released to it ({unreleased} extents wait)")]
    Releases { unreleased: u32 },
}

/// What a message is called in a fault.
pub(super) type Said = &'static str;

impl Executor {
    /// Its open invocation, for something said that needs one. An executor that waits for credit
    /// or for the disk has nothing to say, and one that has announced an object sends it next.
    #[inline]
    pub(super) fn open(&self, said: Said) -> Result<Ref<Invocation>, Fault> {
        if self.disk == Disk::Announced {
            return Err(Fault::NotPersisted(said));
        }
        self.open_to_send(said)
    }

    /// As [`Self::open`], for what may have been announced for the disk.
    #[inline]
    fn open_to_send(&self, said: Said) -> Result<Ref<Invocation>, Fault> {
        if self.state != State::Busy {
            return Err(if self.state == State::Waiting {
                Fault::Waiting(said)
            } else {
                Fault::NotOpen(said)
            });
        }
        if self.credit.is_wanted() || self.disk == Disk::Asked {
            return Err(Fault::Waiting(said));
        }
        Ok(self.open)
    }

    /// Its open invocation, which sends an object, and whether it had announced that for the disk.
    #[inline]
    pub(super) fn sends(
        &mut self,
        said: Said,
        target: Target,
    ) -> Result<(Ref<Invocation>, bool), Fault> {
        let open = self.open_to_send(said)?;
        let persists = self.disk == Disk::Announced;
        if persists {
            self.disk = Disk::Idle;
            if !matches!(target, Target::Bucket(_)) {
                return Err(Fault::PersistedDirect);
            }
        }
        Ok((open, persists))
    }
}

impl App {
    /// An extent that an executor names as its own, and the size of the payload in it.
    #[inline]
    pub(super) fn judge_payload(
        &self,
        slot: u16,
        extent: Extent,
        size_bytes: u64,
    ) -> Result<(), Fault> {
        let Extent {
            offset_units,
            len_units,
        } = extent;
        if len_units == 0 || extent.end_units() > self.span_units {
            return Err(Fault::Extent {
                offset_units,
                len_units,
                span_units: self.span_units,
            });
        }
        if size_bytes >= extent.len_bytes() {
            return Err(Fault::Size {
                size_bytes,
                len_units,
            });
        }
        let most_bytes = self.spec.limits.object_size_bytes;
        if size_bytes > most_bytes {
            return Err(Fault::ObjectSize {
                size_bytes,
                most_bytes,
            });
        }
        let unreleased = self.regions[usize::from(slot)].unreleased_count;
        if unreleased > self.share.limits.objects {
            return Err(Fault::Releases { unreleased });
        }
        Ok(())
    }
}

impl Invocation {
    /// The object that a message of it names.
    pub(super) fn judge_object(&self, object: u32) -> Result<Ref<Object>, Fault> {
        self.object(object).ok_or(if object == REQUEST_OBJECT {
            Fault::NoRequest
        } else {
            Fault::Object {
                object,
                held: self.held.len(),
            }
        })
    }
}

/// A bucket's number.
pub(super) fn judge_bucket(app: &App, bucket: u16) -> Result<(), Fault> {
    let count = app.plan.buckets.len();
    if usize::from(bucket) >= count {
        return Err(Fault::Bucket { bucket, count });
    }
    Ok(())
}

/// Where a function sends an object.
#[inline]
pub(super) fn judge_target(app: &App, function: u16, target: Target) -> Result<(), Fault> {
    let plan = &app.plan.functions[usize::from(function)];
    match target {
        Target::Bucket(bucket) => {
            judge_bucket(app, bucket)?;
            if !plan.may_send(bucket) {
                return Err(Fault::NotInSends { bucket });
            }
        }
        Target::Next if plan.next.is_empty() => return Err(Fault::NoNext),
        Target::Next => {}
        Target::Function(function) => {
            let count = app.plan.functions.len();
            if usize::from(function) >= count {
                return Err(Fault::Function { function, count });
            }
            if !plan.may_call(function) {
                return Err(Fault::NotCallable { function });
            }
        }
    }
    Ok(())
}

/// A key and a group that a function has given.
#[inline]
pub(super) fn judge_key(key: Key<'_>, group: &[u8]) -> Result<(), Fault> {
    if let Key::Named(named) = key {
        judge_named(named)?;
        if named[0] == b'~' {
            return Err(Fault::AutomaticKey);
        }
    }
    judge_group(group)
}

/// A key as text, automatic ones included.
pub(super) fn judge_named(key: &[u8]) -> Result<(), Fault> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(Fault::KeyLength(key.len()));
    }
    if key.contains(&0) {
        return Err(Fault::ZeroByte);
    }
    Ok(())
}

/// A group; the empty one is none.
#[inline]
pub(super) fn judge_group(group: &[u8]) -> Result<(), Fault> {
    if group.len() > GROUP_BYTES_MAX {
        return Err(Fault::GroupLength(group.len()));
    }
    if group.contains(&0) {
        return Err(Fault::ZeroByte);
    }
    Ok(())
}

/// A key with the invocation that it is unique in.
#[inline]
pub(super) fn full_key(key: Key<'_>, invocation: u64) -> InputKey<'_> {
    match key {
        Key::Auto(ordinal) => InputKey::Auto {
            invocation,
            ordinal,
        },
        Key::Named(named) => InputKey::Named(named),
    }
}
