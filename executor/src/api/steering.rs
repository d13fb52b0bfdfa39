//! What functions say to triggers at run time.
//!
//! What the manifest decides is judged here, so that a wrong call is told at once: that the trigger
//! is there and of the type, and that the manifest has not said already what the call says. What a
//! session's other invocations have said is the scheduler's to know.

use std::collections::HashMap;
use std::ffi::{c_char, c_int};

use pheromone_sdk as sdk;
use pheromone_shm::message::FromExecutor;
use pheromone_shm::wire::{JOIN_KEYS_BYTES_MAX, put_join_key};

use super::{known_key, required_text, status};
use crate::fault::{Call, Fault};
use crate::protocol::Steering;
use crate::runtime::Runtime;

/// The triggers that count sources, for sentences.
const GROUPS_BY_SOURCES: &str = "`dynamic_group` triggers without `after`";

impl Runtime {
    /// The number of the trigger that a function names.
    fn named_trigger(&self, bucket: *const c_char, trigger: *const c_char) -> Call<u16> {
        let bucket = self.bucket(required_text(bucket, "the bucket")?)?;
        let name = required_text(trigger, "the trigger")?;
        self.names.trigger_index(bucket, name).ok_or_else(|| {
            Fault::new(
                sdk::ENOENT,
                format!(
                    "bucket `{}` has no trigger `{}`: it has {}",
                    self.names.bucket_text(bucket),
                    String::from_utf8_lossy(name),
                    self.names.trigger_list(bucket)
                ),
            )
        })
    }

    /// The call is for triggers of another type.
    fn of_another_type(&self, trigger: u16, wanted: &str) -> Fault {
        let (text, kind) = self.names.trigger_text(trigger);
        Fault::invalid(format!(
            "{text} is of type `{kind}`, and the call is for {wanted}"
        ))
    }

    /// The manifest has said it.
    fn fixed(&self, trigger: u16, what: &str) -> Fault {
        let (text, _) = self.names.trigger_text(trigger);
        Fault::invalid(format!(
            "{text} has {what} in the manifest: leave that out there to say it at run time"
        ))
    }

    fn join(&mut self, trigger: u16, keys: &[*const c_char]) -> Call<()> {
        if self.names.steering(trigger) != Steering::Join {
            return Err(self.of_another_type(trigger, "`dynamic_join` triggers"));
        }
        let keys = judge_keys(keys)?;
        self.refuse_if_cancelled()?;
        let mut piece = Vec::new();
        for key in keys {
            if piece.len() + 1 + key.len() > JOIN_KEYS_BYTES_MAX {
                self.say(&FromExecutor::Join {
                    trigger,
                    more: true,
                    keys: &piece,
                });
                piece.clear();
            }
            put_join_key(&mut piece, key);
        }
        self.say(&FromExecutor::Join {
            trigger,
            more: false,
            keys: &piece,
        });
        Ok(())
    }

    fn redundant(&mut self, trigger: u16, k: u32, n: u32) -> Call<()> {
        match self.names.steering(trigger) {
            Steering::Round { fixed: false } => {}
            Steering::Round { fixed: true } => return Err(self.fixed(trigger, "`k` and `n`")),
            _ => return Err(self.of_another_type(trigger, "`redundant` triggers")),
        }
        if k == 0 || k > n {
            return Err(Fault::invalid(format!(
                "a round of n = {n} objects cannot fire on k = {k}: k is from 1 to n"
            )));
        }
        self.refuse_if_cancelled()?;
        self.say(&FromExecutor::Redundant { trigger, k, n });
        Ok(())
    }

    fn expect_sources(&mut self, trigger: u16, sources: u32) -> Call<()> {
        match self.names.steering(trigger) {
            Steering::Sources { fixed: false } => {}
            Steering::Sources { fixed: true } => return Err(self.fixed(trigger, "`sources`")),
            _ => return Err(self.of_another_type(trigger, GROUPS_BY_SOURCES)),
        }
        self.refuse_if_cancelled()?;
        self.say(&FromExecutor::ExpectSources { trigger, sources });
        Ok(())
    }

    fn close_source(&mut self, trigger: u16) -> Call<()> {
        let Steering::Sources { .. } = self.names.steering(trigger) else {
            return Err(self.of_another_type(trigger, GROUPS_BY_SOURCES));
        };
        self.refuse_if_cancelled()?;
        self.say(&FromExecutor::CloseSource { trigger });
        Ok(())
    }
}

/// The keys of a list: each is one, and none is there twice.
fn judge_keys<'a>(pointers: &[*const c_char]) -> Call<Vec<&'a [u8]>> {
    let mut keys = Vec::with_capacity(pointers.len());
    let mut places = HashMap::with_capacity(pointers.len());
    for (place, pointer) in pointers.iter().enumerate() {
        let key = known_key(*pointer).map_err(|fault| {
            Fault::new(fault.status, format!("keys[{place}]: {}", fault.sentence))
        })?;
        if let Some(before) = places.insert(key, place) {
            return Err(Fault::invalid(format!(
                "keys[{before}] and keys[{place}] are both `{}`: a list names each key once",
                String::from_utf8_lossy(key)
            )));
        }
        keys.push(key);
    }
    Ok(keys)
}

pub(super) unsafe extern "C" fn join(
    ctx: *mut sdk::Ctx,
    bucket: *const c_char,
    trigger: *const c_char,
    keys: *const *const c_char,
    count: usize,
) -> c_int {
    status(ctx, "phr_join", |runtime| {
        let trigger = runtime.named_trigger(bucket, trigger)?;
        let keys = match (keys.is_null(), count) {
            (_, 0) => &[],
            (true, _) => return Err(Fault::invalid("the keys are NULL")),
            // SAFETY: by the header's contract the function passes an array of `count` pointers.
            (false, _) => unsafe { std::slice::from_raw_parts(keys, count) },
        };
        runtime.join(trigger, keys)
    })
}

pub(super) unsafe extern "C" fn redundant(
    ctx: *mut sdk::Ctx,
    bucket: *const c_char,
    trigger: *const c_char,
    k: u32,
    n: u32,
) -> c_int {
    status(ctx, "phr_redundant", |runtime| {
        let trigger = runtime.named_trigger(bucket, trigger)?;
        runtime.redundant(trigger, k, n)
    })
}

pub(super) unsafe extern "C" fn expect_sources(
    ctx: *mut sdk::Ctx,
    bucket: *const c_char,
    trigger: *const c_char,
    sources: u32,
) -> c_int {
    status(ctx, "phr_expect_sources", |runtime| {
        let trigger = runtime.named_trigger(bucket, trigger)?;
        runtime.expect_sources(trigger, sources)
    })
}

pub(super) unsafe extern "C" fn close_source(
    ctx: *mut sdk::Ctx,
    bucket: *const c_char,
    trigger: *const c_char,
) -> c_int {
    status(ctx, "phr_close_source", |runtime| {
        let trigger = runtime.named_trigger(bucket, trigger)?;
        runtime.close_source(trigger)
    })
}
