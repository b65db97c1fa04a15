//! Leader election by a coordination.k8s.io Lease.
//!
//! Answers to client-go's `tools/leaderelection`: the holder renews; others take over when the record has not changed
//! for the lease's duration, measured on their own clock. A leader that cannot renew in time stops leading.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Upstream's defaults for the control plane.
const LEASE_DURATION: Duration = Duration::from_secs(15);
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// Which lease, held by whom, for how long.
#[derive(Debug, Clone)]
pub struct LeaderElectorConfig {
    /// Namespace of the lease.
    pub namespace: String,
    /// Name of the lease.
    pub name: String,
    /// Who we are; unique among the candidates.
    pub identity: String,
    /// How long a record that nobody renews keeps others out.
    pub lease_duration: Duration,
    /// How long the leader tries to renew before it gives up.
    pub renew_deadline: Duration,
    /// Time between two tries.
    pub retry_period: Duration,
}

impl LeaderElectorConfig {
    /// Upstream's durations: 15, 10 and 2 seconds.
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            lease_duration: LEASE_DURATION,
            renew_deadline: RENEW_DEADLINE,
            retry_period: RETRY_PERIOD,
        }
    }
}

/// A candidate.
pub struct LeaderElector {
    api: Api<Lease>,
    config: LeaderElectorConfig,
    observed: Option<(LeaseSpec, Instant)>,
}

impl LeaderElector {
    /// A candidate that has seen nothing yet.
    pub fn new(client: Client, config: LeaderElectorConfig) -> Self {
        Self { api: Api::namespaced(client, &config.namespace), config, observed: None }
    }

    /// Waits until we lead, then holds the lease until it is lost or `shutdown`. `acquired` runs once, and its token is
    /// cancelled when we no longer lead. On shutdown the lease is released.
    pub async fn run(mut self, shutdown: CancellationToken, acquired: impl FnOnce(CancellationToken)) {
        loop {
            if self.try_hold().await {
                break;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(self.config.retry_period) => {}
            }
        }
        let leading = shutdown.child_token();
        acquired(leading.clone());
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => {
                    self.release().await;
                    return;
                }
                () = tokio::time::sleep(self.config.retry_period) => {}
            }
            let held = tokio::time::timeout(self.config.retry_period, self.try_hold()).await;
            if held.unwrap_or(false) {
                renewed = Instant::now();
            } else if renewed.elapsed() >= self.config.renew_deadline {
                tracing::warn!(lease = self.config.name, "leadership lost");
                leading.cancel();
                return;
            }
        }
    }

    /// Creates, takes over or renews the lease; whether we hold it now.
    async fn try_hold(&mut self) -> bool {
        match self.hold().await {
            Ok(held) => held,
            Err(error) => {
                tracing::debug!(lease = self.config.name, %error, "lease not reached");
                false
            }
        }
    }

    async fn hold(&mut self) -> kube::Result<bool> {
        let now = MicroTime(Timestamp::now());
        let mut spec = LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: i32::try_from(self.config.lease_duration.as_secs()).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(0),
            ..LeaseSpec::default()
        };
        let Some(mut lease) = self.api.get_opt(&self.config.name).await? else {
            let metadata = ObjectMeta { name: Some(self.config.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(spec.clone()) };
            return match self.api.create(&PostParams::default(), &lease).await {
                Ok(_) => {
                    self.observed = Some((spec, Instant::now()));
                    Ok(true)
                }
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
                Err(error) => Err(error),
            };
        };
        let found = lease.spec.clone().unwrap_or_default();
        let since = match &self.observed {
            Some((seen, since)) if *seen == found => *since,
            _ => Instant::now(),
        };
        self.observed = Some((found.clone(), since));
        let holder = found.holder_identity.as_deref().unwrap_or_default();
        let ours = holder == self.config.identity;
        if !ours && !holder.is_empty() && since.elapsed() < self.config.lease_duration {
            return Ok(false);
        }
        let transitions = found.lease_transitions.unwrap_or(0);
        if ours {
            spec.acquire_time = found.acquire_time;
            spec.lease_transitions = Some(transitions);
        } else {
            spec.lease_transitions = Some(transitions.saturating_add(1));
        }
        lease.spec = Some(spec.clone());
        match self.api.replace(&self.config.name, &PostParams::default(), &lease).await {
            Ok(_) => {
                self.observed = Some((spec, Instant::now()));
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Empties the lease, so that the next candidate need not wait for it to expire.
    async fn release(&mut self) {
        let Ok(Some(mut lease)) = self.api.get_opt(&self.config.name).await else { return };
        let Some(spec) = lease.spec.as_mut() else { return };
        if spec.holder_identity.as_deref() != Some(&self.config.identity) {
            return;
        }
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        if let Err(error) = self.api.replace(&self.config.name, &PostParams::default(), &lease).await {
            tracing::debug!(lease = self.config.name, %error, "lease not released");
        }
    }
}
