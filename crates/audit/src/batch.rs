//! Events on their way to a backend: at once, or gathered by a task with a bounded buffer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::auditor::{Counts, Sink};
use crate::event::Event;
use crate::truncate::Truncate;

/// Batches that are on their way at once; one more waits with the buffer behind it.
const PARALLEL_BATCHES: usize = 64;

/// How events reach a backend (`--audit-log-mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In batches, beside the requests. A full buffer drops events.
    Batch,
    /// Before the request goes on; a failure is logged.
    Blocking,
    /// The same, but a failure at RequestReceived refuses the request.
    BlockingStrict,
}

impl Mode {
    /// As the flag says it.
    ///
    /// # Errors
    /// For anything else.
    pub fn parse(text: &str) -> Result<Self, crate::AuditError> {
        match text {
            "batch" => Ok(Mode::Batch),
            "blocking" => Ok(Mode::Blocking),
            "blocking-strict" => Ok(Mode::BlockingStrict),
            other => Err(crate::AuditError::Mode(other.to_owned())),
        }
    }
}

/// `--audit-log-batch-*`, `--audit-webhook-batch-*`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchConfig {
    /// Events that wait at most.
    pub buffer_events: usize,
    /// Events that one batch holds at most.
    pub batch_events: usize,
    /// How long an event waits for others, in milliseconds.
    pub max_wait_ms: u64,
    /// How many batches go out in a time, where that is bounded.
    pub throttle: Option<Throttle>,
    /// Whether a batch may go out while others are still on their way.
    pub parallel: bool,
}

/// `--audit-*-batch-throttle-*`: a bucket of tokens, one a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throttle {
    /// New tokens a second.
    pub per_second: f64,
    /// Tokens that the bucket holds.
    pub burst: u32,
}

impl Default for Throttle {
    fn default() -> Self {
        Throttle { per_second: 10.0, burst: 15 }
    }
}

/// The bucket.
struct Bucket {
    throttle: Throttle,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn new(throttle: Throttle) -> Self {
        Bucket { throttle, tokens: f64::from(throttle.burst), filled: Instant::now() }
    }

    /// Takes a token, when there is one.
    async fn take(&mut self) {
        let now = Instant::now();
        let gained = (now - self.filled).as_secs_f64() * self.throttle.per_second;
        self.tokens = (self.tokens + gained).min(f64::from(self.throttle.burst)) - 1.0;
        self.filled = now;
        if self.tokens < 0.0 {
            tokio::time::sleep(Duration::from_secs_f64(-self.tokens / self.throttle.per_second)).await;
        }
    }
}

impl BatchConfig {
    /// Upstream's defaults of the log backend.
    pub fn log() -> Self {
        BatchConfig { buffer_events: 10_000, batch_events: 1, max_wait_ms: 0, throttle: None, parallel: false }
    }

    /// Upstream's defaults of the webhook backend.
    pub fn webhook() -> Self {
        BatchConfig {
            buffer_events: 10_000,
            batch_events: 400,
            max_wait_ms: 30_000,
            throttle: Some(Throttle::default()),
            parallel: true,
        }
    }
}

/// The sending end of a batching task.
#[derive(Debug)]
pub(crate) struct Batcher {
    sender: mpsc::Sender<Arc<Event>>,
}

impl Batcher {
    /// Starts the task; it ends, with everything delivered, when the batcher is dropped.
    pub(crate) fn start(
        sink: Arc<dyn Sink>,
        config: BatchConfig,
        truncate: Option<Truncate>,
        counts: Arc<Counts>,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (sender, mut receiver) = mpsc::channel::<Arc<Event>>(config.buffer_events.max(1));
        let task = tokio::spawn(async move {
            let most = config.batch_events.max(1);
            let mut bucket = config.throttle.map(Bucket::new);
            let mut going = JoinSet::new();
            while let Some(first) = receiver.recv().await {
                let mut batch = Vec::with_capacity(most.min(64));
                batch.push(first);
                let ends = Instant::now() + Duration::from_millis(config.max_wait_ms);
                while batch.len() < most {
                    match tokio::time::timeout_at(ends, receiver.recv()).await {
                        Ok(Some(event)) => batch.push(event),
                        _ => break,
                    }
                }
                if let Some(bucket) = &mut bucket {
                    bucket.take().await;
                }
                if config.parallel && going.len() < PARALLEL_BATCHES {
                    let (sink, counts) = (sink.clone(), counts.clone());
                    going.spawn(async move { deliver(&*sink, truncate, &batch, &counts).await });
                    while going.try_join_next().is_some() {}
                } else {
                    deliver(&*sink, truncate, &batch, &counts).await;
                }
            }
            while going.join_next().await.is_some() {}
        });
        (Batcher { sender }, task)
    }

    /// Hands an event over; a full buffer drops it.
    pub(crate) fn send(&self, event: Arc<Event>, sink: &dyn Sink, counts: &Counts) {
        if self.sender.try_send(event).is_err() {
            counts.errors.with([sink.name()]).inc();
            tracing::warn!(backend = sink.name(), "the audit buffer is full: an event was dropped");
        }
    }
}

/// Delivers a batch; a failure is counted and logged.
pub(crate) async fn deliver(
    sink: &dyn Sink,
    truncate: Option<Truncate>,
    batch: &[Arc<Event>],
    counts: &Counts,
) -> bool {
    let Some(truncate) = truncate else { return hand_over(sink, batch, counts).await };
    let (batches, dropped) = truncate.fit(batch);
    if dropped > 0 {
        counts.errors.with(["truncate"]).add(dropped);
        tracing::error!(events = dropped, "audit events were too large even without their bodies");
    }
    let mut kept = true;
    for batch in batches {
        kept &= hand_over(sink, &batch, counts).await;
    }
    kept
}

async fn hand_over(sink: &dyn Sink, batch: &[Arc<Event>], counts: &Counts) -> bool {
    match sink.deliver(batch).await {
        Ok(()) => true,
        Err(error) => {
            counts.errors.with([sink.name()]).add(batch.len() as u64);
            tracing::error!(%error, events = batch.len(), "audit events were not kept");
            false
        }
    }
}
