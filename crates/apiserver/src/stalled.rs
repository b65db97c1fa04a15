//! Answers that are not read: a request that is not long-running takes no longer than it may, its answer's
//! way to the client included. Upstream resets the stream, or ends the HTTP/1 connection, in the same way.
//!
//! A body cannot do that by itself: nobody asks it for more while its client does not read. So what serves
//! a stream (HTTP/2) or a connection (HTTP/1) runs inside [`watched`], and bodies tell it their time by
//! [`bound`]. Whatever the answer held goes with it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures::StreamExt;
use http::Response;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http_body::Body as _;
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::body::Body;

/// When the answer that is on its way must be there.
type Due = Arc<Mutex<Option<Instant>>>;

tokio::task_local! {
    static DUE: Due;
}

/// Runs what serves a stream or a connection; `None` where an answer was not read in time. Boxed, since what
/// wraps it would hold it more than once.
pub(crate) fn watched<F: Future>(work: F) -> impl Future<Output = Option<F::Output>> {
    let due = Due::default();
    let mut work = Box::pin(DUE.scope(due.clone(), work));
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    poll_fn(move |cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        // It is set and taken back by the work alone.
        let Some(at) = *due.lock() else {
            timer = None;
            return Poll::Pending;
        };
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx).map(|()| None)
    })
}

/// Taken back with the body.
struct Pending(Due);

impl Drop for Pending {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

/// Bytes up to which an answer in one piece is handed over as it is: what a connection buffers anyway.
const WHOLE_BYTES: usize = 128 << 10;
/// Bytes of the pieces that a larger one is cut into: one that was handed over is no longer the body's.
const PIECE_BYTES: usize = 16 << 10;

/// Lets an answer that takes more than one piece be read until `at`.
pub(crate) fn bound(response: Response<Body>, at: std::time::Instant) -> Response<Body> {
    let size = response.body().as_whole().map(Bytes::len);
    if response.body().is_end_stream() || size.is_some_and(|size| size <= WHOLE_BYTES) {
        return response;
    }
    // In-process callers hold what they do not read themselves.
    let Ok(due) = DUE.try_with(Due::clone) else { return response };
    *due.lock() = Some(at.into());
    let pending = Pending(due);
    let (mut parts, body) = response.into_parts();
    let pieces = match body.as_whole().cloned() {
        Some(whole) => {
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(whole.len()));
            let cut = (0..whole.len()).step_by(PIECE_BYTES);
            let piece = move |from| whole.slice(from..whole.len().min(from + PIECE_BYTES));
            futures::stream::iter(cut.map(move |from| Ok(piece(from)))).boxed()
        }
        None => body.into_stream(),
    };
    let held = pieces.inspect(move |_| {
        let _held = &pending;
    });
    Response::from_parts(parts, Body::stream(held))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn endless() -> Response<Body> {
        Response::new(Body::stream(futures::stream::pending()))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_read_in_time_ends() {
        let started = Instant::now();
        let ended = watched(async {
            let _body = bound(endless(), (started + Duration::from_secs(5)).into_std());
            std::future::pending::<()>().await;
        });
        assert!(ended.await.is_none());
        assert_eq!(started.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_leaves_its_connection_alone() {
        let started = Instant::now();
        let ended = watched(async {
            drop(bound(endless(), (started + Duration::from_secs(5)).into_std()));
            tokio::time::sleep(Duration::from_secs(60)).await;
            let _next = bound(endless(), (Instant::now() + Duration::from_secs(5)).into_std());
            tokio::time::sleep(Duration::from_secs(4)).await;
            7
        });
        assert_eq!(ended.await, Some(7));
    }
}
