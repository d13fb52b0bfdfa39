//! The gate of one version of an app: where its requests enter, and which scheduler is told of
//! them.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;
use pheromone_core::spec::Entry;
use pheromone_scheduler::protocol::{
    AppStatsMessage, DestinationMessage, RequestMessage, ToScheduler,
};
use pheromone_shm::allocator::Allocator;
use pheromone_shm::message::{Extent, GROUP_BYTES_MAX, KEY_BYTES_MAX, UNIT_BYTES};

use super::handle::{Submission, unusable};
use super::handover::Handing;
use super::pending::{Again, Pending};
use super::{Gateway, durable};
use crate::app::Version;
use crate::regions::IngressPages;
use crate::request::{RefusalReason, Reply, Request, To};
use crate::routing::{Homes, Tried, home_of};
use crate::{headers, outgoing, regions};

/// One version of an app.
pub(super) struct Gate {
    pub(super) version: Arc<Version>,
    /// Which scheduler has asked for the last process of a slot.
    pub(super) owners: HashMap<u16, u8>,
    pub(super) ingress: Allocator<IngressPages>,
    pub(super) ingress_bytes: u64,
    /// Requests not yet finished, in all and by scheduler.
    pub(super) requests_open: u64,
    pub(super) homes: Homes,
    pub(super) first_failure: Option<String>,
    /// It goes; then when its sessions are cut off.
    pub(super) retiring: Option<Option<Instant>>,
    /// Another version has taken its place, and takes its dead letters.
    pub(super) handing: Option<Handing>,
    /// It has triggers that gather across sessions and nobody has more for them: then they are
    /// looked at next.
    pub(super) flushing: Option<Instant>,
    /// What its schedulers said last, where nothing went on at any of them.
    pub(super) quiet: Option<AppStatsMessage>,
    /// A question for the sake of retiring is on its way.
    pub(super) asking: bool,
    /// Its schedulers have been told to remove it.
    pub(super) removing: bool,
    /// So many of them have done so.
    pub(super) gone: u8,
    /// Told when it is gone.
    pub(super) removed: Vec<Sender<()>>,
}

impl Gate {
    /// The scheduler that a request goes to: the home of the session it joins, or the one with the
    /// least to do.
    fn home_for(&self, request: &Request) -> Result<u8, RefusalReason> {
        let division = self.version.division;
        match request.session {
            Some(session) if division.is_home(home_of(session)) => Ok(home_of(session)),
            Some(session) => Err(RefusalReason::SessionEnded { session }),
            None => {
                let lightest = self.homes.lightest(Tried::default());
                lightest.ok_or(RefusalReason::Overloaded)
            }
        }
    }

    /// Writes a payload into memory of its own.
    pub(super) fn place(&mut self, payload: &[u8]) -> Result<Extent, RefusalReason> {
        let extent = self.reserve(payload.len() as u64)?;
        if regions::write(self.version.regions.ingress(), extent, payload).is_err() {
            // The machine is out of memory before the app's quota is.
            self.give_back(extent);
            return Err(RefusalReason::Memory);
        }
        Ok(extent)
    }

    /// Memory for a payload of so many bytes.
    pub(super) fn reserve(&mut self, size_bytes: u64) -> Result<Extent, RefusalReason> {
        let units = Extent::units_for(size_bytes);
        // A body as large as the whole memory has a unit more, for its zero byte.
        let limit = self.version.spec.memory_bytes.saturating_add(UNIT_BYTES);
        if self.ingress_bytes + units * UNIT_BYTES > limit {
            return Err(RefusalReason::Memory);
        }
        let extent = self
            .ingress
            .allocate(units)
            .map_err(|_| RefusalReason::Memory)?;
        self.ingress_bytes += extent.len_bytes();
        Ok(extent)
    }

    pub(super) fn give_back(&mut self, extent: Extent) {
        self.ingress_bytes = self.ingress_bytes.saturating_sub(extent.len_bytes());
        self.ingress.free(extent);
    }
}

/// A request that was let in here.
pub(super) struct Admitted {
    pub(super) app: u16,
    pub(super) home: u8,
    pub(super) extents: Vec<Extent>,
    pub(super) again: Option<Again>,
    /// It opens a durable session: it is on disk before its scheduler is told of it.
    pub(super) durable: Option<u64>,
    /// The function that it calls, where it calls one.
    pub(super) function: u16,
    /// What its scheduler is told.
    pub(super) message: Vec<u8>,
}

/// Names turned into indices, and everything checked that can be checked here.
pub(super) fn destination<'a>(
    version: &Version,
    request: &'a Request,
) -> Result<DestinationMessage<'a>, RefusalReason> {
    let app = || request.app.clone();
    let malformed = |reason: &str| RefusalReason::Malformed {
        reason: reason.to_owned(),
    };
    match &request.to {
        To::Entry => match version.spec.entry {
            Some(Entry::Function(_) | Entry::Bucket(_)) => Ok(DestinationMessage::Entry),
            None => Err(RefusalReason::NoEntry { app: app() }),
        },
        To::Function(name) => version
            .functions
            .get(name)
            .map(|index| DestinationMessage::Function(*index))
            .ok_or_else(|| RefusalReason::NoFunction {
                app: app(),
                function: name.clone(),
            }),
        To::DeadLetter(_) => Err(malformed("a dead letter is no place for an object")),
        To::Retained { bucket, key } => Ok(DestinationMessage::Retained {
            bucket: bucket_index(version, bucket)?,
            key,
        }),
        To::Bucket { bucket, key, group } => {
            let index = bucket_index(version, bucket)?;
            if let Some(key) = key {
                if key.is_empty() || key.len() > KEY_BYTES_MAX || key.contains(&0) {
                    return Err(malformed("a key has 1 to 255 bytes, none of them zero"));
                }
                if key[0] == b'~' {
                    return Err(malformed(
                        "a key that begins with `~` is made by the system alone; choose another",
                    ));
                }
            }
            if group.len() > GROUP_BYTES_MAX || group.contains(&0) {
                return Err(malformed(
                    "a group has at most 255 bytes, none of them zero",
                ));
            }
            Ok(DestinationMessage::Bucket {
                bucket: index,
                key: key.as_deref(),
                group,
            })
        }
    }
}

fn bucket_index(version: &Version, bucket: &str) -> Result<u16, RefusalReason> {
    let index = version.buckets.get(bucket).copied();
    index.ok_or_else(|| RefusalReason::NoBucket {
        app: version.name().to_owned(),
        bucket: bucket.to_owned(),
    })
}

impl Gateway {
    pub(super) fn request(&mut self, submission: Submission) {
        let Submission { id, request, reply } = submission;
        let mut reply = reply;
        match self.admit(id, &request) {
            Ok(admitted) => {
                let mut admitted = admitted;
                let extents = mem::take(&mut admitted.extents);
                let mut pending = Pending::new(admitted.app, admitted.home, reply, extents);
                pending.again = admitted.again.take();
                pending.joins = request.session;
                pending.retries = request.to.letter();
                pending.wait = request.wait;
                if admitted.durable.is_some() {
                    let durable = self.write_call(id, request, admitted);
                    pending.durable = Some(Box::new(durable));
                } else {
                    self.ways[usize::from(admitted.home)].tell_bytes(&admitted.message);
                }
                self.pending.insert(id, Box::new(pending));
            }
            Err(reason) => reply(Reply::Refused(reason)),
        }
    }

    /// Judges a request, writes its body and headers, and makes what a scheduler is told.
    fn admit(&mut self, id: u64, request: &Request) -> Result<Admitted, RefusalReason> {
        if self.health.broken().is_some() || self.leaving.is_some() {
            return Err(unusable(&self.health));
        }
        let no_app = || RefusalReason::NoApp {
            app: request.app.clone(),
        };
        let app = *self.routes.get(&request.app).ok_or_else(no_app)?;
        if let To::DeadLetter(letter) = request.to {
            return self.admit_retry(id, request, app, letter);
        }
        let gate = self.apps.get_mut(&app).ok_or_else(no_app)?;
        let version = Arc::clone(&gate.version);
        let destination = destination(&version, request)?;
        let block = headers::encode(&request.headers)?;
        let limit = version.object_bytes_max();
        let size_bytes = request.body.len() as u64;
        if size_bytes > limit {
            return Err(RefusalReason::TooBig {
                size_bytes,
                limit_bytes: limit,
            });
        }
        let home = gate.home_for(request)?;
        let body = gate.place(&request.body)?;
        let mut extents = vec![body];
        let mut header_block = None;
        if let Some(block) = &block {
            let extent = match gate.place(block) {
                Ok(extent) => extent,
                Err(reason) => {
                    gate.give_back(body);
                    return Err(reason);
                }
            };
            extents.push(extent);
            header_block = Some((extent.offset_units, extent.len_units, block.len() as u32));
        }
        gate.requests_open += 1;
        gate.homes.opened(home);
        let durable = self.durable_session(&version, &destination, home);
        let function = durable::called(&version, &destination);
        let message = outgoing::encode(&ToScheduler::Request(RequestMessage {
            app,
            request: id,
            destination,
            offset_units: body.offset_units,
            len_units: body.len_units,
            size_bytes,
            headers: header_block,
            session: request.session,
            // A session has one caller, who opened it; others who wait are told by the gateway.
            has_caller: request.wait && request.session.is_none(),
            timeout_ns: request.timeout_ns(),
            durable,
        }));
        let has_others = request.session.is_none() && version.division.count() > 1;
        Ok(Admitted {
            app,
            home,
            extents,
            again: has_others.then(|| Again {
                message: message.clone(),
                tried: Tried::default(),
            }),
            durable,
            function: function.unwrap_or_default(),
            message,
        })
    }
}
