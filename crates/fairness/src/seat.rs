//! The place of a running request, and waiting for one.

use std::sync::Arc;
use std::time::Duration;

use ironkeel_auth::UserInfo;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::level::Level;
use crate::matching::Schema;
use crate::queues::Start;
use crate::width::Width;

/// What the debug endpoints tell of a request.
pub trait Details: Send + Sync + std::fmt::Debug {
    /// Verb, path, namespace, name, `group/version`, resource, subresource.
    fn columns(&self) -> [String; 7];
}

/// A request, for the debug endpoints; shared, so that it costs no copy.
#[derive(Clone, Debug)]
pub struct Work {
    /// Who.
    pub user: Arc<UserInfo>,
    /// The rest.
    pub details: Arc<dyn Details>,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// The queues of its flow are full.
    QueueFull,
    /// The level does not queue, and its seats are taken.
    ConcurrencyLimit,
    /// It has waited too long.
    TimeOut,
}

impl RefusalReason {
    /// As in the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            RefusalReason::QueueFull => "queue-full",
            RefusalReason::ConcurrencyLimit => "concurrency-limit",
            RefusalReason::TimeOut => "time-out",
        }
    }

    pub(crate) const ALL: [RefusalReason; 3] =
        [RefusalReason::QueueFull, RefusalReason::ConcurrencyLimit, RefusalReason::TimeOut];
}

/// A request may not run now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Too many requests, please try again later.")]
pub struct Refusal {
    /// Why.
    pub reason: RefusalReason,
    /// When to try again, in seconds.
    pub retry_after_seconds: u64,
}

/// A running request's seats. Dropping it gives them back: at once, or a while later where a write
/// still wakes watchers.
#[derive(Debug)]
pub struct Seat {
    level: Arc<Level>,
    schema: Arc<Schema>,
    place: usize,
    started: Instant,
    watch: bool,
    /// How long the request waited.
    waited: Duration,
}

impl Seat {
    /// How long the request has waited for it.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Says that this is a watch, whose seats are given back when it has begun.
    pub fn for_watch(mut self) -> Self {
        self.watch = true;
        self
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let now = Instant::now();
        let took = now.saturating_duration_since(self.started).as_secs_f64();
        self.schema.flow.execution[usize::from(self.watch)].observe(took);
        let later = self.level.queues().finish(self.place, now);
        let Some(width) = later else { return };
        let (level, place) = (self.level.clone(), self.place);
        match tokio::runtime::Handle::try_current() {
            Ok(handle) => {
                handle.spawn(async move {
                    tokio::time::sleep(width.extra).await;
                    level.queues().free_seats(place, Instant::now());
                });
            }
            Err(_) => level.queues().free_seats(place, now),
        }
    }
}

/// A request in a queue; dropping it takes it out.
struct Waiting {
    level: Arc<Level>,
    schema: Arc<Schema>,
    receiver: oneshot::Receiver<usize>,
    queue: usize,
    id: u64,
    arrived: Instant,
    over: bool,
}

impl Waiting {
    /// Leaves the queue, unless it was dispatched just now.
    fn leave(&mut self, timed_out: bool) -> Option<Seat> {
        self.over = true;
        let mut queues = self.level.queues();
        if let Ok(place) = self.receiver.try_recv() {
            drop(queues);
            return Some(self.seat(place));
        }
        queues.abandon(self.queue, self.id, timed_out);
        None
    }

    fn seat(&self, place: usize) -> Seat {
        let started = Instant::now();
        let waited = started.saturating_duration_since(self.arrived);
        self.schema.flow.wait[1].observe(waited.as_secs_f64());
        Seat { level: self.level.clone(), schema: self.schema.clone(), place, started, watch: false, waited }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.over {
            self.schema.flow.rejected(RefusalReason::TimeOut);
            drop(self.leave(false));
        }
    }
}

/// Enters a request; waits no longer than `wait_limit`.
pub(crate) async fn enter(
    schema: &Arc<Schema>,
    hash: u64,
    flow: &str,
    width: Width,
    work: Option<Work>,
    wait_limit: Duration,
) -> Result<Seat, Refusal> {
    let level = &schema.level;
    let metrics = &schema.flow;
    metrics.seats.observe(f64::from(width.max()));
    let refuse = |reason| {
        metrics.rejected(reason);
        Err(Refusal { reason, retry_after_seconds: level.dropped() })
    };
    let start = level.queues().start(schema, hash, flow, width, work);
    let mut waiting = match start {
        Start::Now(place) => {
            metrics.wait[1].observe(0.0);
            let (level, schema) = (level.clone(), schema.clone());
            let started = Instant::now();
            return Ok(Seat { level, schema, place, started, watch: false, waited: Duration::ZERO });
        }
        Start::Refused(reason) => {
            metrics.wait[0].observe(0.0);
            return refuse(reason);
        }
        Start::Wait { receiver, queue, id } => Waiting {
            level: level.clone(),
            schema: schema.clone(),
            receiver,
            queue,
            id,
            arrived: Instant::now(),
            over: false,
        },
    };
    match tokio::time::timeout(wait_limit, &mut waiting.receiver).await {
        Ok(Ok(place)) => {
            waiting.over = true;
            Ok(waiting.seat(place))
        }
        _ => match waiting.leave(true) {
            Some(seat) => Ok(seat),
            None => {
                metrics.wait[0].observe(waiting.arrived.elapsed().as_secs_f64());
                refuse(RefusalReason::TimeOut)
            }
        },
    }
}
