//! A durable session of the time before, made ready to go on: names turned into the numbers of the
//! version that is deployed now, and what is still needed of it found on disk.

use std::collections::{BTreeSet, HashMap};

use pheromone_core::event::{
    AppId, Placed, RequestId, RestoredCall, RestoredObject, RestoredSession, SessionId,
};
use pheromone_core::history::{Future, PastFiring, PastObject};
use pheromone_core::identity;
use pheromone_journal::{Entry, Extent, Firing, Object, Recorded, Request, Unfinished};
use pheromone_shm::message;

use super::now_ns;
use super::sessions::{CallDetails, FiringDetails, KeptAnswer, ResponseDetails};
use crate::app::Version;
use crate::headers;

/// A session to be restored, and what its payloads are.
#[derive(Debug)]
pub struct Restoring {
    /// What the core will be told; places of payloads are not known yet.
    pub session: RestoredSession,
    /// Headers of the call, the call's body and the objects', in this order.
    pub payloads: Vec<Source>,
    response: Option<(ResponseDetails, Extent)>,
    /// What it has answered, once that has been read.
    pub answer: Option<KeptAnswer>,
}

/// Where a payload is.
#[derive(Debug)]
pub enum Source {
    /// On disk.
    Stored(Extent),
    /// Here.
    Bytes(Vec<u8>),
}

impl Source {
    /// Payload bytes.
    pub fn size_bytes(&self) -> u64 {
        match self {
            Self::Stored(extent) => extent.size_bytes(),
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }
}

/// What a journal holds of a session, by kind.
struct History<'a> {
    session: u64,
    request: (&'a Request, &'a Extent),
    objects: Vec<(u64, &'a Object, &'a Extent)>,
    firings: Vec<&'a Firing>,
    successes: BTreeSet<u64>,
    response: Option<(ResponseDetails, Extent)>,
}

/// The app of an unfinished session; `None`: it is none that goes on.
pub fn app_of(unfinished: &Unfinished) -> Option<&str> {
    let mut entries = unfinished.entries.iter();
    entries.find_map(|recorded| match &recorded.entry {
        Entry::Request(request) => Some(request.app.as_str()),
        _ => None,
    })
}

impl Restoring {
    /// A session, in this version of its app.
    ///
    /// # Errors
    /// Why it cannot go on in this version, as the end of a sentence.
    pub fn new(unfinished: &Unfinished, version: &Version) -> Result<Self, String> {
        let history = History::new(unfinished)?;
        let numbers = Numbers::new(version);
        let (request, body) = history.request;
        let function = numbers.function(&request.function)?;
        let objects = history.objects_of_durable_buckets(&numbers)?;
        let firings = history.past_firings(&numbers)?;
        let past: Vec<PastObject> = objects
            .iter()
            .map(|&(sequence, bucket, ..)| PastObject { sequence, bucket })
            .collect();
        let future = Future::new(&version.spec, &past, &firings)
            .ok_or("an input of one of its firings is not on disk any more")?;
        let details: CallDetails = postcard::from_bytes(&request.headers)
            .map_err(|_| "its call cannot be read".to_owned())?;
        let block = headers::encode(&details.headers).map_err(|reason| reason.to_string())?;
        let id = identity::request(history.session, &request.function);
        let runs_again = !history.successes.contains(&id);
        let needs_call = runs_again || version.spec.keep_request;
        let mut payloads = Vec::new();
        let mut add = |source: Source| {
            let size_bytes = source.size_bytes();
            payloads.push(source);
            unplaced(size_bytes)
        };
        let headers = block.map(|block| add(Source::Bytes(block)));
        let call = needs_call.then(|| RestoredCall {
            function,
            body: add(Source::Stored(body.clone())),
            runs_again,
        });
        let needed = future.objects.iter().zip(future.offers);
        let needed = needed.map(|(&at, offers)| {
            let (sequence, bucket, object, payload) = objects[at];
            RestoredObject {
                sequence,
                bucket,
                key: object.name.key.clone(),
                group: object.group.clone(),
                author: object.invocation,
                body: add(Source::Stored(payload.clone())),
                offers,
            }
        });
        let session = RestoredSession {
            app: AppId(version.id),
            request: RequestId(0),
            session: SessionId(history.session),
            has_caller: details.has_caller,
            answered_by: history.response.as_ref().map_or(0, |(of, _)| of.by),
            timeout_ns: request
                .deadline_ns
                .map(|deadline_ns| deadline_ns.saturating_sub(now_ns()).max(1)),
            headers,
            call,
            objects: needed.collect(),
            firings: future.firings,
            over: future.over,
        };
        Ok(Self {
            session,
            payloads,
            response: history.response,
            answer: None,
        })
    }

    /// Reads what the session has answered.
    ///
    /// # Errors
    /// The disk cannot give it.
    pub fn read_answer(&mut self) -> Result<(), String> {
        if let Some((details, body)) = &self.response {
            self.answer = Some(details.answer(body)?);
        }
        Ok(())
    }

    /// Says where a payload has been placed, by its number.
    pub fn place(&mut self, number: usize, extent: message::Extent) {
        let session = &mut self.session;
        let headers = session.headers.iter_mut();
        let call = session.call.iter_mut().map(|call| &mut call.body);
        let objects = session.objects.iter_mut().map(|object| &mut object.body);
        if let Some(placed) = headers.chain(call).chain(objects).nth(number) {
            placed.offset_units = extent.offset_units;
            placed.len_units = extent.len_units;
        }
    }
}

fn unplaced(size_bytes: u64) -> Placed {
    Placed {
        offset_units: 0,
        len_units: 0,
        size_bytes,
    }
}

impl<'a> History<'a> {
    fn new(unfinished: &'a Unfinished) -> Result<Self, String> {
        let mut history = None;
        let (mut objects, mut firings) = (Vec::new(), Vec::new());
        let (mut successes, mut response) = (BTreeSet::new(), None);
        for Recorded {
            sequence,
            entry,
            payload,
        } in &unfinished.entries
        {
            match entry {
                Entry::Request(request) => history = Some((request, payload)),
                Entry::Object(object) => objects.push((*sequence, object, payload)),
                // What others have fired with its objects is theirs.
                Entry::Firing(firing) if firing.session == unfinished.session => {
                    firings.push(firing);
                }
                Entry::Success(success) => {
                    successes.insert(success.invocation);
                }
                Entry::Response(found) => {
                    let details = postcard::from_bytes(&found.headers)
                        .map_err(|_| "its response cannot be read".to_owned())?;
                    response = Some((details, payload.clone()));
                }
                Entry::Firing(_) | Entry::End(_) | Entry::Delete(_) => {}
            }
        }
        Ok(Self {
            session: unfinished.session as u64,
            request: history.ok_or("its call is not on disk any more")?,
            objects,
            firings,
            successes,
            response,
        })
    }

    /// What has been sent durable into other buckets is done again by whoever has sent it.
    fn objects_of_durable_buckets(
        &self,
        numbers: &Numbers<'_>,
    ) -> Result<Vec<(u64, u16, &'a Object, &'a Extent)>, String> {
        let mut found = Vec::new();
        for &(sequence, object, payload) in &self.objects {
            let bucket = numbers.bucket(&object.name.bucket)?;
            if numbers.version.spec.buckets[usize::from(bucket)].durable {
                found.push((sequence, bucket, object, payload));
            }
        }
        Ok(found)
    }

    fn past_firings(&self, numbers: &Numbers<'_>) -> Result<Vec<PastFiring>, String> {
        let past = self.firings.iter().map(|firing| {
            let details: FiringDetails = postcard::from_bytes(&firing.details)
                .map_err(|_| "one of its firings cannot be read".to_owned())?;
            Ok(PastFiring {
                invocation: firing.invocation,
                trigger: numbers.trigger(&firing.bucket, &firing.trigger)?,
                function: numbers.function(&firing.function)?,
                inputs: firing.inputs.clone(),
                window: details.window,
                has_succeeded: self.successes.contains(&firing.invocation),
            })
        });
        past.collect()
    }
}

/// Numbers of a version for names.
struct Numbers<'a> {
    version: &'a Version,
    triggers: HashMap<(&'a str, &'a str), u16>,
}

impl<'a> Numbers<'a> {
    fn new(version: &'a Version) -> Self {
        let buckets = version.spec.buckets.iter();
        let triggers = buckets.flat_map(|bucket| {
            let triggers = bucket.triggers.iter();
            triggers.map(|trigger| (bucket.name.as_str(), trigger.name.as_str()))
        });
        Self {
            version,
            triggers: triggers.zip(0u16..).collect(),
        }
    }

    fn function(&self, name: &str) -> Result<u16, String> {
        let found = self.version.functions.get(name).copied();
        found.ok_or_else(|| format!("the app has no function `{name}` any more"))
    }

    fn bucket(&self, name: &str) -> Result<u16, String> {
        let found = self.version.buckets.get(name).copied();
        found.ok_or_else(|| format!("the app has no bucket `{name}` any more"))
    }

    fn trigger(&self, bucket: &str, name: &str) -> Result<u16, String> {
        let at = self.bucket(bucket)?;
        if !self.version.spec.buckets[usize::from(at)].durable {
            return Err(format!(
                "bucket `{bucket}` of the app is not durable any more"
            ));
        }
        let found = self.triggers.get(&(bucket, name)).copied();
        found.ok_or_else(|| format!("bucket `{bucket}` has no trigger `{name}` any more"))
    }
}
