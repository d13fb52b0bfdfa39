//! Bodies that nobody wants: a request can be refused before its body has come, and many clients
//! look for an answer only when they have sent all of it.
//!
//! The answer goes out at once; what the client is still sending is taken and thrown away for a
//! while, since a connection closed on unread bytes takes the answer with it (its peer is sent a
//! reset, which discards what it has not read). Whoever sends without end is cut off.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Error;
use axum::body::{Body, Bytes};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::runtime::Handle;

/// Bytes of an unwanted body that are thrown away: as many as the largest object has by default.
const THROWN_AWAY_BYTES_MAX: u64 = 1 << 30;
/// How long that may take.
const THROWN_AWAY_WAIT: Duration = Duration::from_secs(10);

/// A body that, when it is dropped before its end, is taken to its end all the same.
pub struct Unread {
    /// `None` once it has ended or failed.
    body: Option<Body>,
    /// Its client holds it back until it is asked for, which the first look at it does.
    is_held_back: bool,
}

impl Unread {
    /// Of this body; `is_held_back` for a request with `Expect: 100-continue`.
    pub fn new(body: Body, is_held_back: bool) -> Self {
        Self {
            body: Some(body),
            is_held_back,
        }
    }
}

impl HttpBody for Unread {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.is_held_back = false;
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = Pin::new(body).poll_frame(context);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let nothing = SizeHint::with_exact(0);
        self.body.as_ref().map_or(nothing, Body::size_hint)
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let body = self.body.take().filter(|body| !body.is_end_stream());
        // Outside of the runtime the server is gone, and the connection with it.
        if let (Some(body), false, Ok(runtime)) = (body, self.is_held_back, Handle::try_current()) {
            let thrown_away = throw_away(body, THROWN_AWAY_BYTES_MAX);
            // Whether it comes to its end is the client's concern alone.
            runtime.spawn(tokio::time::timeout(THROWN_AWAY_WAIT, thrown_away));
        }
    }
}

/// Takes a body to its end, unless that is more than so many bytes away.
async fn throw_away(mut body: Body, most_bytes: u64) {
    let mut left_bytes = most_bytes;
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
        match left_bytes.checked_sub(bytes) {
            Some(left) => left_bytes = left,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// A body of so many pieces of 1000 bytes, which counts those that were taken.
    struct Pieces {
        left: u64,
        taken: Arc<AtomicU64>,
    }

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.left == 0 {
                return Poll::Ready(None);
            }
            self.left -= 1;
            self.taken.fetch_add(1, Ordering::Relaxed);
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 1000])))))
        }
    }

    fn pieces(left: u64) -> (Body, Arc<AtomicU64>) {
        let taken = Arc::default();
        let body = Pieces {
            left,
            taken: Arc::clone(&taken),
        };
        (Body::new(body), taken)
    }

    /// Runs a test, and what it has left to the runtime.
    fn run(test: impl Future<Output = ()>) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap().block_on(async {
            test.await;
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        });
    }

    #[test]
    fn a_body_dropped_at_its_beginning_or_in_its_middle_is_taken_to_its_end() {
        for looked_at in [0, 1, 3] {
            let (body, taken) = pieces(10);
            run(async {
                let mut body = Unread::new(body, false);
                for _ in 0..looked_at {
                    body.frame().await.unwrap().unwrap();
                }
            });
            assert_eq!(taken.load(Ordering::Relaxed), 10);
        }
    }

    #[test]
    fn a_body_that_its_client_holds_back_is_not_asked_for() {
        let (body, taken) = pieces(10);
        run(async { drop(Unread::new(body, true)) });
        assert_eq!(taken.load(Ordering::Relaxed), 0);
        let (body, taken) = pieces(10);
        run(async {
            let mut body = Unread::new(body, true);
            body.frame().await.unwrap().unwrap();
        });
        assert_eq!(taken.load(Ordering::Relaxed), 10);
    }

    #[test]
    fn a_body_without_end_is_given_up() {
        let (body, taken) = pieces(u64::MAX);
        run(throw_away(body, 5_500));
        assert_eq!(taken.load(Ordering::Relaxed), 6);
    }
}
