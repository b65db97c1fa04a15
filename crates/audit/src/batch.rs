//! Events on their way to a backend: at once, or gathered by a task with a bounded buffer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::auditor::{Counts, Sink};
use crate::event::Event;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchConfig {
    /// Events that wait at most.
    pub buffer_events: usize,
    /// Events that one batch holds at most.
    pub batch_events: usize,
    /// How long an event waits for others, in milliseconds.
    pub max_wait_ms: u64,
}

impl BatchConfig {
    /// Upstream's defaults of the log backend.
    pub fn log() -> Self {
        BatchConfig { buffer_events: 10_000, batch_events: 1, max_wait_ms: 0 }
    }

    /// Upstream's defaults of the webhook backend.
    pub fn webhook() -> Self {
        BatchConfig { buffer_events: 10_000, batch_events: 400, max_wait_ms: 30_000 }
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
        counts: Arc<Counts>,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (sender, mut receiver) = mpsc::channel::<Arc<Event>>(config.buffer_events.max(1));
        let task = tokio::spawn(async move {
            let most = config.batch_events.max(1);
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
                deliver(&*sink, &batch, &counts).await;
            }
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
pub(crate) async fn deliver(sink: &dyn Sink, batch: &[Arc<Event>], counts: &Counts) -> bool {
    match sink.deliver(batch).await {
        Ok(()) => true,
        Err(error) => {
            counts.errors.with([sink.name()]).add(batch.len() as u64);
            tracing::error!(%error, events = batch.len(), "audit events were not kept");
            false
        }
    }
}
