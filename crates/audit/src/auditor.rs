//! The policy and the backends together: what the server asks, and hands events to.

use std::sync::Arc;

use async_trait::async_trait;
use ironkeel_metrics::{Counter, Family, Labeled, Stability, Text};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::batch::{BatchConfig, Batcher, Mode, deliver};
use crate::config::Config;
use crate::error::AuditError;
use crate::event::{Event, Level, Stage};
use crate::file::LogFile;
use crate::policy::{Attributes, Policy, Verdict};
use crate::truncate::Truncate;

/// Where events go.
#[async_trait]
pub trait Sink: Send + Sync + std::fmt::Debug + 'static {
    /// `log`, `webhook`: its name in metrics.
    fn name(&self) -> &'static str;
    /// Keeps a batch, in order.
    async fn deliver(&self, events: &[Arc<Event>]) -> Result<(), AuditError>;
}

#[async_trait]
impl Sink for LogFile {
    fn name(&self) -> &'static str {
        "log"
    }

    async fn deliver(&self, events: &[Arc<Event>]) -> Result<(), AuditError> {
        let mut lines = Vec::new();
        for event in events {
            lines.extend_from_slice(&event.to_line());
        }
        self.write(&lines).map_err(|e| AuditError::Backend { backend: "log", reason: e.to_string() })
    }
}

/// What auditing has done.
#[derive(Debug)]
pub(crate) struct Counts {
    events: Counter,
    levels: Labeled<1, Counter>,
    refused: Counter,
    pub(crate) errors: Labeled<1, Counter>,
}

const EVENTS: Family =
    Family::counter("apiserver_audit_event_total", Stability::Alpha, "Audit events sent to backends.");
const LEVELS: Family =
    Family::counter("apiserver_audit_level_total", Stability::Alpha, "Requests by the level of their audit policy.")
        .by(&["level"]);
const REFUSED: Family = Family::counter(
    "apiserver_audit_requests_rejected_total",
    Stability::Alpha,
    "Requests that were refused since their audit event was not kept.",
);
const ERRORS: Family =
    Family::counter("apiserver_audit_error_total", Stability::Alpha, "Audit events that were not kept.")
        .by(&["plugin"]);

/// All families.
pub const METRIC_FAMILIES: &[Family] = &[EVENTS, LEVELS, REFUSED, ERRORS];

#[derive(Debug)]
struct Backend {
    sink: Arc<dyn Sink>,
    mode: Mode,
    truncate: Option<Truncate>,
    batcher: Mutex<Option<Batcher>>,
}

/// See the module.
#[derive(Debug)]
pub struct Auditor {
    policy: Policy,
    backends: Vec<Backend>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    counts: Arc<Counts>,
}

impl Auditor {
    /// From the server's flags, with the log backend; `None` where no policy is set. Batching needs a
    /// runtime.
    ///
    /// # Errors
    /// The policy is wrong, or the log cannot be opened.
    pub fn from_config(config: &Config) -> Result<Option<Auditor>, AuditError> {
        let Some(path) = &config.policy_file else { return Ok(None) };
        let fault = |source| AuditError::File { path: path.display().to_string(), source };
        let policy = Policy::read(&std::fs::read(path).map_err(fault)?)?;
        let mut auditor = Auditor::new(policy);
        if let Some(log) = &config.log {
            let file = Arc::new(LogFile::open(log.clone())?);
            auditor = auditor.with_backend(file, log.mode, log.batch, log.truncate);
        }
        Ok(Some(auditor))
    }

    /// With a policy and no backend yet.
    pub fn new(policy: Policy) -> Self {
        let counts = Counts {
            events: Counter::new(),
            levels: Labeled::new(Counter::new),
            refused: Counter::new(),
            errors: Labeled::new(Counter::new),
        };
        Auditor { policy, backends: Vec::new(), tasks: Mutex::default(), counts: Arc::new(counts) }
    }

    /// With one more backend.
    pub fn with_backend(
        mut self,
        sink: Arc<dyn Sink>,
        mode: Mode,
        batch: BatchConfig,
        truncate: Option<Truncate>,
    ) -> Self {
        let batcher = (mode == Mode::Batch).then(|| {
            let (batcher, task) = Batcher::start(sink.clone(), batch, truncate, self.counts.clone());
            self.tasks.lock().push(task);
            batcher
        });
        self.backends.push(Backend { sink, mode, truncate, batcher: Mutex::new(batcher) });
        self
    }

    /// What is recorded of a request.
    pub fn judge(&self, attributes: &Attributes<'_>) -> Verdict {
        let verdict = self.policy.judge(attributes);
        self.counts.levels.with([verdict.level.as_str()]).inc();
        verdict
    }

    /// Records an event. False where the request must not go on.
    pub async fn record(&self, event: Event) -> bool {
        if event.level == Level::None {
            return true;
        }
        self.counts.events.inc();
        let stage = event.stage;
        let event = Arc::new(event);
        let mut goes_on = true;
        for backend in &self.backends {
            if let Some(batcher) = &*backend.batcher.lock() {
                batcher.send(event.clone(), &*backend.sink, &self.counts);
                continue;
            }
            let kept = deliver(&*backend.sink, backend.truncate, std::slice::from_ref(&event), &self.counts).await;
            goes_on &= kept || backend.mode != Mode::BlockingStrict || stage != Stage::RequestReceived;
        }
        if !goes_on {
            self.counts.refused.inc();
        }
        goes_on
    }

    /// Ends the batching tasks when what they hold has been delivered.
    pub async fn stop(&self) {
        for backend in &self.backends {
            backend.batcher.lock().take();
        }
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "an audit backend broke down");
            }
        }
    }

    /// `apiserver_audit_*`.
    pub fn render(&self, text: &mut Text) {
        text.single(&EVENTS, self.counts.events.get() as f64);
        text.counters(&LEVELS, &self.counts.levels);
        text.single(&REFUSED, self.counts.refused.get() as f64);
        text.counters(&ERRORS, &self.counts.errors);
    }
}
