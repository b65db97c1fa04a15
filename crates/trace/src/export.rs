//! Spans on their way to a collector: gathered by a task with a bounded buffer, sent in batches over gRPC.
//!
//! The limits are those of OpenTelemetry's batch processor, which upstream uses as it comes.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::config::{Config, ConfigError, Target};
use crate::otlp::{self, ExportRequest, ExportResponse, Resource, ResourceSpans, Scope, ScopeSpans, SpanMessage};

/// Requests that wait to be sent; more are dropped.
const BUFFERED_REQUESTS: usize = 2048;
/// Spans of one batch; a request's are not parted.
const BATCH_SPANS: usize = 512;
/// How long the first span of a batch waits for others, in milliseconds.
const BATCH_WAIT_MS: u64 = 5_000;
/// How long a batch may be on its way, in seconds.
const EXPORT_SECONDS: u64 = 30;
/// How long the last batches may take when the process ends, in seconds.
const FLUSH_SECONDS: u64 = 2;
/// What the spans are told to come from.
const SERVICE: &str = "apiserver";
const SCOPE: &str = "k8s.io/component-base/tracing";
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Decides which requests have spans, and takes these. Cheap to clone.
#[derive(Clone)]
pub struct Tracer(Arc<Inner>);

struct Inner {
    rate_per_million: u32,
    sender: mpsc::Sender<Vec<SpanMessage>>,
    stopping: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracer").field("rate_per_million", &self.0.rate_per_million).finish_non_exhaustive()
    }
}

fn channel(target: &Target) -> Result<Channel, ConfigError> {
    let wrong = || ConfigError::Endpoint(format!("{target:?}"));
    let endpoint = |authority: &str| Endpoint::from_shared(format!("http://{authority}")).map_err(|_| wrong());
    let unix = match target.clone() {
        Target::Host(host) => return Ok(endpoint(&host)?.connect_lazy()),
        unix => unix,
    };
    let connector = tower::service_fn(move |_: http::Uri| {
        let unix = unix.clone();
        async move {
            let stream = match unix {
                Target::Abstract(name) => {
                    use std::os::linux::net::SocketAddrExt;
                    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
                    // Connecting to a local socket does not wait.
                    let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
                    stream.set_nonblocking(true)?;
                    UnixStream::from_std(stream)?
                }
                Target::Unix(path) => UnixStream::connect(path).await?,
                Target::Host(_) => return Err(std::io::Error::from(std::io::ErrorKind::Unsupported)),
            };
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    Ok(endpoint("localhost")?.connect_with_connector_lazy(connector))
}

impl Tracer {
    /// Starts the exporter; needs a runtime. A collector that is not there costs spans, nothing else.
    ///
    /// # Errors
    /// An address that cannot be one.
    pub fn start(config: &Config) -> Result<Self, ConfigError> {
        let channel = channel(&config.target)?;
        let (sender, receiver) = mpsc::channel(BUFFERED_REQUESTS);
        let stopping = CancellationToken::new();
        let exporter = Exporter { channel, instance: config.instance.clone(), stopping: stopping.clone() };
        let task = Mutex::new(Some(tokio::spawn(exporter.run(receiver))));
        Ok(Tracer(Arc::new(Inner { rate_per_million: config.rate_per_million, sender, stopping, task })))
    }

    pub(crate) fn rate_per_million(&self) -> u32 {
        self.0.rate_per_million
    }

    pub(crate) fn send(&self, spans: Vec<SpanMessage>) {
        if self.0.sender.try_send(spans).is_err() {
            tracing::debug!("the buffer of spans is full: those of a request were dropped");
        }
    }

    /// Sends what is buffered, for a short time, and ends.
    pub async fn stop(&self) {
        self.0.stopping.cancel();
        let task = self.0.task.lock().take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the exporter of spans broke down");
        }
    }
}

struct Exporter {
    channel: Channel,
    instance: String,
    stopping: CancellationToken,
}

impl Exporter {
    async fn run(self, mut receiver: mpsc::Receiver<Vec<SpanMessage>>) {
        while let Some(first) = self.next(&mut receiver).await {
            let mut batch = first;
            let ends = Instant::now() + Duration::from_millis(BATCH_WAIT_MS);
            while batch.len() < BATCH_SPANS {
                let more = tokio::time::timeout_at(ends, self.next(&mut receiver)).await;
                match more {
                    Ok(Some(spans)) => batch.extend(spans),
                    _ => break,
                }
            }
            let stopping = self.stopping.is_cancelled();
            let seconds = if stopping { FLUSH_SECONDS } else { EXPORT_SECONDS };
            let sent = tokio::time::timeout(Duration::from_secs(seconds), self.export(batch)).await;
            match sent {
                Ok(Ok(())) => {}
                Ok(Err(status)) => {
                    tracing::warn!(code = ?status.code(), why = status.message(), "spans were not exported");
                }
                Err(_) => tracing::warn!("spans were not exported in time"),
            }
            if stopping && receiver.is_empty() {
                return;
            }
        }
    }

    /// What comes next; at the end only what is there already.
    async fn next(&self, receiver: &mut mpsc::Receiver<Vec<SpanMessage>>) -> Option<Vec<SpanMessage>> {
        tokio::select! {
            biased;
            spans = receiver.recv() => spans,
            () = self.stopping.cancelled() => None,
        }
    }

    async fn export(&self, spans: Vec<SpanMessage>) -> Result<(), tonic::Status> {
        let attributes =
            vec![otlp::text("service.name", SERVICE), otlp::text("service.instance.id", self.instance.as_str())];
        let request = ExportRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource { attributes }),
                scope_spans: vec![ScopeSpans { scope: Some(Scope { name: SCOPE.to_owned() }), spans }],
            }],
        };
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await.map_err(|e| tonic::Status::unavailable(e.to_string()))?;
        let codec = tonic_prost::ProstCodec::<ExportRequest, ExportResponse>::default();
        let path = http::uri::PathAndQuery::from_static(EXPORT);
        client.unary(tonic::Request::new(request), path, codec).await.map(drop)
    }
}
