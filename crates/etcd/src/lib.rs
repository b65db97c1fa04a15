//! The store on a real etcd: the v3 API over gRPC, one cluster, several endpoints.
//!
//! [`Etcd`] implements [`Store`]: writes are one conditional transaction each (`write`), reads are
//! linearizable (`read`), all watches share one stream that survives broken connections (`watch`),
//! history is compacted as upstream's API servers agree to do it (`compactor`). Calls go round the
//! endpoints that answer (`endpoints`, over the connections of `connect`). What does not live here: what
//! the bytes mean (`registry`), and the meaning that every engine shares (`ironkeel_store`).

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use ironkeel_store::{
    Condition, KeyValue, LeaseId, Range, RangeAnswer, Revision, Store, StoreError, StoreStatus, WatchRange,
    WatchStream, WriteAnswer,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

mod compactor;
mod connect;
mod endpoints;
mod error;
mod freshness;
mod keys;
mod lease;
mod read;
mod version;
mod watch;
mod write;

#[rustfmt::skip]
#[allow(missing_docs, clippy::all, unreachable_pub, dead_code)]
#[path = "generated/mvccpb.rs"]
mod mvccpb;
#[rustfmt::skip]
#[allow(missing_docs, clippy::all, unreachable_pub, dead_code)]
#[path = "generated/etcdserverpb.rs"]
mod etcdserverpb;

pub use error::EtcdError;

use endpoints::Endpoints;
use freshness::Freshness;
use keys::Keys;
use watch::Hub;

/// Upstream's default of `--etcd-prefix`, and what every key of the registry begins with.
pub const PREFIX: &str = "/registry";
/// Upstream's default of `--etcd-compaction-interval`, in seconds.
pub const COMPACTION_INTERVAL_SECONDS: u64 = 300;
/// etcd's default of `--max-request-bytes`.
pub const MAX_REQUEST_BYTES: usize = 1536 << 10;
/// Events that wait for one slow watcher, at most; then its watch is resumed from where it stands.
pub const WATCH_BUFFER_EVENTS: usize = 10_000;
/// How long a call goes from endpoint to endpoint before it fails, in milliseconds.
pub const CALL_PATIENCE_MS: u64 = 10_000;
/// How long [`Etcd::connect`] waits for a member that answers and knows its leader, in seconds: an etcd may be
/// started together with what uses it (upstream's client waits 20 s, too).
pub const START_PATIENCE_SECONDS: u64 = 20;
/// Pause between two looks for a member at the start, in milliseconds.
const START_PAUSE_MS: u64 = 50;

/// Where the etcd is, and how to speak to it.
#[derive(Clone, Debug)]
pub struct Config {
    /// `https://host:port`, `http://host:port` or `host:port` (plain), one for each member.
    pub endpoints: Vec<String>,
    /// PEM file with the certificates that vouch for the members (`--etcd-cafile`); the system's without it.
    pub ca: Option<PathBuf>,
    /// PEM file with the client certificate (`--etcd-certfile`).
    pub cert: Option<PathBuf>,
    /// PEM file with the client certificate's key (`--etcd-keyfile`).
    pub key: Option<PathBuf>,
    /// What stands in etcd for the `/registry` at the begin of keys (`--etcd-prefix`).
    pub prefix: String,
    /// How often history is compacted, to what it was one interval ago; zero: never by this process.
    pub compaction_interval: Duration,
    /// The members' `--max-request-bytes`.
    pub max_request_bytes: usize,
    /// See [`WATCH_BUFFER_EVENTS`].
    pub watch_buffer_events: usize,
    /// See [`CALL_PATIENCE_MS`].
    pub call_patience: Duration,
    /// See [`START_PATIENCE_SECONDS`].
    pub start_patience: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            endpoints: Vec::new(),
            ca: None,
            cert: None,
            key: None,
            prefix: PREFIX.to_owned(),
            compaction_interval: Duration::from_secs(COMPACTION_INTERVAL_SECONDS),
            max_request_bytes: MAX_REQUEST_BYTES,
            watch_buffer_events: WATCH_BUFFER_EVENTS,
            call_patience: Duration::from_millis(CALL_PATIENCE_MS),
            start_patience: Duration::from_secs(START_PATIENCE_SECONDS),
        }
    }
}

/// What calls, the watch hub and the compactor share.
#[derive(Debug)]
pub(crate) struct Shared {
    config: Config,
    endpoints: Endpoints,
    keys: Keys,
    /// The oldest revision that is known to be readable.
    compacted: AtomicU64,
    freshness: Freshness,
    stop: CancellationToken,
}

impl Shared {
    /// Waits for a member that answers and knows its leader.
    async fn greet(&self) -> Result<(), StoreError> {
        let patience = self.config.start_patience;
        let deadline = Instant::now() + patience;
        let mut reason = StoreError::Unavailable(format!("no leader was elected within {} s", patience.as_secs_f32()));
        loop {
            let greeting = async {
                self.await_leader().await?;
                self.fetch_revision().await
            };
            match tokio::time::timeout_at(deadline, greeting).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error @ StoreError::Unavailable(_))) if Instant::now() < deadline => {
                    tracing::warn!(%error, "waiting for etcd");
                    reason = error;
                    tokio::time::sleep(Duration::from_millis(START_PAUSE_MS)).await;
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(reason),
            }
        }
    }

    /// Remembers a compaction; answers the latest that is known.
    pub(crate) fn compacted(&self, at: Revision) -> Revision {
        self.compacted.fetch_max(at, Ordering::Relaxed).max(at)
    }
}

/// The engine. Dropping it, like [`Etcd::close`], ends its watches and its compactor.
#[derive(Debug)]
pub struct Etcd {
    shared: Arc<Shared>,
    hub: Hub,
}

impl Etcd {
    /// Reads certificates, looks for a member that answers, and starts the compactor. Fails after
    /// [`Config::start_patience`] when none does.
    pub fn connect(config: Config) -> BoxFuture<'static, Result<Arc<Etcd>, EtcdError>> {
        // Boxed, so that the code of it all is made in this crate, not once more where it is awaited.
        Box::pin(Self::open(config))
    }

    async fn open(config: Config) -> Result<Arc<Etcd>, EtcdError> {
        let endpoints = Endpoints::new(&config)?;
        let keys = Keys::new(&config.prefix)?;
        let shared = Arc::new(Shared {
            endpoints,
            keys,
            compacted: AtomicU64::new(0),
            freshness: Freshness::default(),
            stop: CancellationToken::new(),
            config,
        });
        let hub = Hub::start(shared.clone());
        let etcd = Arc::new(Etcd { shared: shared.clone(), hub });
        let greeted = shared.greet().await;
        if let Err(error) = greeted {
            let config = &etcd.shared.config;
            let (endpoints, mut reason) = (config.endpoints.join(", "), error.to_string());
            // All that a server says to a client without a certificate is the end of the connection.
            if config.cert.is_none() && endpoints.contains("https://") {
                reason += " (if it wants a client certificate: pass --etcd-certfile and --etcd-keyfile)";
            }
            return Err(EtcdError::Unreachable { endpoints, reason });
        }
        compactor::start(shared);
        Ok(etcd)
    }

    /// Ends watches and the compactor; later calls fail with `Closed`.
    pub fn close(&self) {
        self.shared.stop.cancel();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.close();
    }
}

#[async_trait]
impl Store for Etcd {
    async fn get(&self, key: &[u8], revision: Revision) -> Result<(Option<KeyValue>, Revision), StoreError> {
        let range = Range { start: Bytes::copy_from_slice(key), revision, ..Range::default() };
        let answer = self.range(range).await?;
        Ok((answer.kvs.into_iter().next(), answer.revision))
    }

    async fn range(&self, range: Range) -> Result<RangeAnswer, StoreError> {
        let requested = range.revision;
        match self.shared.read(range).await {
            Err(error) => Err(self.explain(error, requested, requested).await),
            done => done,
        }
    }

    async fn put(
        &self,
        key: Bytes,
        value: Bytes,
        condition: Condition,
        lease: LeaseId,
    ) -> Result<WriteAnswer, StoreError> {
        self.told(self.shared.put(key, value, condition, lease).await)
    }

    async fn delete(&self, key: Bytes, condition: Condition) -> Result<WriteAnswer, StoreError> {
        self.told(self.shared.delete(key, condition).await)
    }

    async fn watch(&self, range: WatchRange) -> Result<(Revision, WatchStream), StoreError> {
        self.hub.watch(range).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        match self.shared.compact(revision).await {
            // What is compacted already is an error of its own: watches tell it from one before.
            Err(error) => Err(self.explain(error, revision, revision.saturating_sub(1)).await),
            Ok(()) => Ok(()),
        }
    }

    async fn lease_grant(&self, ttl_seconds: i64) -> Result<LeaseId, StoreError> {
        self.shared.lease_grant(ttl_seconds).await
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.shared.lease_keep_alive(lease).await
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.shared.lease_revoke(lease).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        let revision = self.current_revision().await?;
        let keys = self.shared.count_keys().await?;
        let (disk_bytes, live_bytes) = self.shared.sizes().await?;
        let compacted = self.shared.compacted(0);
        Ok(StoreStatus { revision, compacted, disk_bytes, live_bytes, keys, recovery: None })
    }

    fn shared(&self) -> bool {
        true
    }

    async fn current_revision(&self) -> Result<Revision, StoreError> {
        let revision = Freshness::ask(&self.shared).await?;
        self.hub.wanted(revision);
        Ok(revision)
    }
}

impl Etcd {
    /// A write that was not done tells a revision whose own event may be of no watch's range.
    fn told(&self, answer: Result<WriteAnswer, StoreError>) -> Result<WriteAnswer, StoreError> {
        if let Ok(WriteAnswer::Conflict { revision, .. } | WriteAnswer::Done { revision, previous: None }) = &answer {
            self.hub.wanted(*revision);
        }
        answer
    }

    /// etcd's refusals of a revision come without numbers; this asks for them.
    async fn explain(&self, error: StoreError, requested: Revision, watched: Revision) -> StoreError {
        match error {
            StoreError::FutureRevision { .. } => match self.current_revision().await {
                Ok(current) => StoreError::FutureRevision { requested, current },
                Err(error) => error,
            },
            StoreError::Compacted { .. } => {
                let compacted = self.hub.compacted_before(watched).await.unwrap_or(0).max(self.shared.compacted(0));
                StoreError::Compacted { requested, compacted }
            }
            other => other,
        }
    }
}
