//! Taking in a request's body: bounded in bytes, in time, and over all clients together.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::Problem;

/// How long a client may send nothing in the middle of a body.
const FRAME_WAIT: Duration = Duration::from_secs(30);
/// Bytes of all bodies on their way in: one of the default largest object's size, and as much for
/// everybody else.
pub const ALL_BODIES_BYTES_MAX: usize = 2 << 30;
/// What a permit of the semaphore stands for.
const PERMIT_BYTES: usize = 64 * 1024;
/// Space reserved at once for a body whose length is announced: the rest must really come.
const RESERVED_AT_ONCE_MAX: usize = 1 << 20;

/// Room for bodies.
#[derive(Clone)]
pub struct Room {
    permits: Arc<Semaphore>,
}

/// A body taken in, and the room that it occupies until this is dropped.
#[derive(Debug)]
pub struct Taken {
    /// The bytes.
    pub bytes: Vec<u8>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(ALL_BODIES_BYTES_MAX / PERMIT_BYTES)),
        }
    }
}

impl Room {
    /// Reads a body of at most `limit` bytes.
    ///
    /// # Errors
    /// Too long, too slow, broken off, or no room among all the others.
    pub async fn take(
        &self,
        headers: &HeaderMap,
        body: Body,
        limit: u64,
    ) -> Result<Taken, Problem> {
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > limit) {
            return Err(too_big(limit));
        }
        let mut bytes = Vec::new();
        let reserved = announced.unwrap_or(0).min(RESERVED_AT_ONCE_MAX as u64);
        bytes.reserve(reserved as usize);
        let mut room: Option<OwnedSemaphorePermit> = None;
        let mut body = body;
        loop {
            let frame = tokio::time::timeout(FRAME_WAIT, body.frame())
                .await
                .map_err(|_| {
                    Problem::new(
                        StatusCode::REQUEST_TIMEOUT,
                        format!("nothing of the body came for {} s", FRAME_WAIT.as_secs()),
                    )
                })?;
            let Some(frame) = frame else {
                return Ok(Taken { bytes, _room: room });
            };
            let frame = frame.map_err(|error| {
                Problem::new(
                    StatusCode::BAD_REQUEST,
                    format!("the body broke off: {error}"),
                )
            })?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if (bytes.len() + data.len()) as u64 > limit {
                return Err(too_big(limit));
            }
            self.make_room(&mut room, bytes.len() + data.len())?;
            bytes.extend_from_slice(&data);
        }
    }

    fn make_room(
        &self,
        room: &mut Option<OwnedSemaphorePermit>,
        bytes: usize,
    ) -> Result<(), Problem> {
        let held = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted = bytes.div_ceil(PERMIT_BYTES).saturating_sub(held);
        if wanted == 0 {
            return Ok(());
        }
        let more = u32::try_from(wanted)
            .ok()
            .and_then(|wanted| {
                Arc::clone(&self.permits)
                    .try_acquire_many_owned(wanted)
                    .ok()
            })
            .ok_or_else(|| {
                Problem::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    format!(
                        "bodies of more than {ALL_BODIES_BYTES_MAX} bytes are on their way in; \
                         try again later"
                    ),
                )
            })?;
        match room {
            Some(room) => room.merge(more),
            None => *room = Some(more),
        }
        Ok(())
    }
}

fn too_big(limit: u64) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("the body is larger than the {limit} bytes that are allowed (limits.object_size)"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(headers: &HeaderMap, body: Vec<u8>, limit: u64) -> Result<Taken, Problem> {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().unwrap();
        runtime.block_on(Room::default().take(headers, Body::from(body), limit))
    }

    #[test]
    fn a_body_up_to_the_limit_is_taken_and_no_more() {
        let none = HeaderMap::new();
        assert_eq!(
            take(&none, vec![7; 100_000], 100_000).unwrap().bytes,
            vec![7; 100_000]
        );
        let problem = take(&none, vec![7; 100_001], 100_000).unwrap_err();
        assert_eq!(problem.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert!(take(&none, Vec::new(), 0).unwrap().bytes.is_empty());
    }

    #[test]
    fn an_announced_length_over_the_limit_is_refused_before_a_byte_is_read() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, "99999999999999".parse().unwrap());
        let problem = take(&headers, Vec::new(), 1 << 30).unwrap_err();
        assert_eq!(problem.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[test]
    fn an_announced_length_alone_takes_no_room() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, "1073741824".parse().unwrap());
        let taken = take(&headers, vec![1], 1 << 30).unwrap();
        assert!(taken.bytes.capacity() <= RESERVED_AT_ONCE_MAX);
    }

    #[test]
    fn room_is_given_back() {
        let room = Room::default();
        let all = room.permits.available_permits();
        let mut held = None;
        room.make_room(&mut held, PERMIT_BYTES * 3).unwrap();
        room.make_room(&mut held, PERMIT_BYTES * 3 + 1).unwrap();
        assert_eq!(room.permits.available_permits(), all - 4);
        let mut other = None;
        let problem = room
            .make_room(&mut other, ALL_BODIES_BYTES_MAX)
            .unwrap_err();
        assert_eq!(problem.status(), StatusCode::TOO_MANY_REQUESTS);
        drop(held);
        assert_eq!(room.permits.available_permits(), all);
    }
}
