//! This server among its replicas: its identity lease in kube-system, and its address among the
//! endpoints of the `kubernetes` Service. Addresses of replicas stand in the store as upstream's
//! lease reconciler keeps them, under `/registry/masterleases/`, so that both kinds of server may
//! run side by side.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ironkeel_object::{ObjectMeta, Value, object};
use ironkeel_registry::{ApiError, Change, Reason, Registry, WriteRequest};
use ironkeel_store::{Condition, Range, StoreError, prefix_end};
use ring::digest::{SHA256, digest};
use tokio_util::sync::CancellationToken;

use crate::bootstrap;
use crate::hooks::{Hook, Hooks};
use crate::server::Config;

/// Time between two renewals, in seconds (upstream's).
const RENEW_SECONDS: u64 = 10;
/// How long a replica's address outlives its last renewal, in seconds.
const ADDRESS_TTL_SECONDS: i64 = 15;
/// `leaseDurationSeconds` of identity leases (upstream's).
const LEASE_SECONDS: i64 = 3600;
/// How often the endpoints are written again because the replicas changed meanwhile; later changes wait for the next
/// renewal.
const PUBLISH_TRIES: usize = 5;
/// Where replicas' addresses stand.
const ADDRESSES: &[u8] = b"/registry/masterleases/";
/// What tells identity leases from others.
pub(crate) const LABEL: &str = "apiserver.kubernetes.io/identity";

/// Renews until `stop`, and takes the address back then.
pub(crate) async fn run(registry: Arc<Registry>, config: Config, stop: CancellationToken, hooks: Hooks) {
    let shared = registry.store().shared() && config.reconcile_endpoints && !config.advertise_address.is_loopback();
    let named = !config.hostname.is_empty();
    if !shared && !named {
        return;
    }
    let holder = format!("{}_{}", lease_name(&config.hostname), uuid::Uuid::new_v4());
    let mut ticks = tokio::time::interval(Duration::from_secs(RENEW_SECONDS));
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        if named {
            if let Err(error) = renew(&registry, &config.hostname, &holder).await {
                tracing::info!(%error, "the identity lease was not renewed");
            }
            // Readiness waits for the first try, not for its success.
            hooks.finished(&[Hook::IdentityLease]);
        }
        if shared && let Err(error) = announce(&registry, &config).await {
            tracing::warn!(%error, "the endpoints of the kubernetes Service were not reconciled");
        }
    }
    if shared {
        let key = address_key(config.advertise_address);
        let taken = registry.store().delete(key, Condition::Always).await;
        if let Err(error) = taken.map_err(ApiError::from).map(drop) {
            tracing::warn!(%error, "this server's address was left among the replicas'");
        } else if let Err(error) = publish(&registry, &config).await {
            tracing::warn!(%error, "the endpoints of the kubernetes Service were not reconciled");
        }
    }
}

fn address_key(address: IpAddr) -> Bytes {
    Bytes::from([ADDRESSES, address.to_string().as_bytes()].concat())
}

/// Puts this server's address among the replicas', and publishes all of them.
async fn announce(registry: &Arc<Registry>, config: &Config) -> Result<(), ApiError> {
    let store = registry.store();
    let lease = store.lease_grant(ADDRESS_TTL_SECONDS).await?;
    let ip = config.advertise_address.to_string();
    let value = object!({
        "kind": "Endpoints",
        "apiVersion": "v1",
        "metadata": { "generation": (registry.clock().now().as_second()) },
        "subsets": [{ "addresses": [{ "ip": (ip.as_str()) }] }],
    });
    let mut bytes = Vec::new();
    ironkeel_codec::encode_json(&value, &mut bytes);
    store.put(address_key(config.advertise_address), bytes.into(), Condition::Always, lease).await?;
    publish(registry, config).await
}

/// Makes the replicas' addresses the Service's endpoints.
async fn publish(registry: &Arc<Registry>, config: &Config) -> Result<(), ApiError> {
    let mut addresses = replicas(registry, config).await?;
    for _ in 0..PUBLISH_TRIES {
        if addresses.is_empty() {
            break;
        }
        bootstrap::publish(registry, config, &addresses).await?;
        // Another replica may have come or gone meanwhile, and have published before this one.
        let now = replicas(registry, config).await?;
        if now == addresses {
            break;
        }
        addresses = now;
    }
    Ok(())
}

/// The addresses of all replicas, in order.
async fn replicas(registry: &Registry, config: &Config) -> Result<Vec<IpAddr>, ApiError> {
    let range =
        Range { start: Bytes::from_static(ADDRESSES), end: prefix_end(ADDRESSES), keys_only: true, ..Range::default() };
    let found = registry.store().range(range).await.map_err(|e: StoreError| ApiError::from(e))?;
    let mut addresses: Vec<IpAddr> = found
        .kvs
        .iter()
        .filter_map(|kv| std::str::from_utf8(&kv.key[ADDRESSES.len()..]).ok()?.parse().ok())
        .filter(|ip: &IpAddr| ip.is_ipv4() == config.advertise_address.is_ipv4())
        .collect();
    addresses.sort();
    Ok(addresses)
}

/// `apiserver-` and the host's name, hashed as upstream does it: base32 of half a SHA-256.
pub(crate) fn lease_name(hostname: &str) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let hash = digest(&SHA256, hostname.as_bytes());
    let mut out = String::from("apiserver-");
    let (mut bits, mut count) = (0u32, 0);
    for byte in &hash.as_ref()[..16] {
        bits = (bits << 8) | u32::from(*byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            out.push(char::from(ALPHABET[((bits >> count) & 31) as usize]));
        }
    }
    if count > 0 {
        out.push(char::from(ALPHABET[((bits << (5 - count)) & 31) as usize]));
    }
    out
}

struct Renew {
    holder: String,
    now: String,
}

impl Change for Renew {
    fn apply(&self, current: &Value) -> Result<Value, ApiError> {
        let mut out = current.clone();
        *out.slot(&["spec", "holderIdentity"]) = self.holder.as_str().into();
        *out.slot(&["spec", "leaseDurationSeconds"]) = LEASE_SECONDS.into();
        *out.slot(&["spec", "renewTime"]) = self.now.as_str().into();
        Ok(out)
    }
}

async fn renew(registry: &Arc<Registry>, hostname: &str, holder: &str) -> Result<(), ApiError> {
    let name = lease_name(hostname);
    let now = format!("{:.6}", registry.clock().now());
    let mut lease = object!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": { "name": (name.as_str()), "namespace": "kube-system" },
        "spec": { "holderIdentity": holder, "leaseDurationSeconds": (LEASE_SECONDS), "renewTime": (now.as_str()) },
    });
    *lease.slot(&["metadata", "labels", LABEL]) = "kube-apiserver".into();
    *lease.slot(&["metadata", "labels", "kubernetes.io/hostname"]) = hostname.into();
    // Leases are not served where `--runtime-config` says so.
    let Ok(row) = bootstrap::row_of(registry, &lease) else { return Ok(()) };
    let request = bootstrap::request(&row, &lease);
    let change = Renew { holder: holder.to_owned(), now };
    match registry.update(&request, &change).await {
        Err(e) if e.reason == Reason::NotFound => {}
        other => return other.map(drop),
    }
    debug_assert_eq!(lease.name(), name);
    match registry.create(&WriteRequest { name: String::new(), ..request.clone() }, lease).await {
        // Another server on this host (they share the lease, as upstream's do) was first.
        Err(e) if e.reason == Reason::AlreadyExists => {}
        other => return other.map(drop),
    }
    registry.fresh().await?;
    registry.update(&request, &change).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_is_named_as_upstream_names_it() {
        let name = lease_name("kind-control-plane");
        assert_eq!(name.len(), "apiserver-".len() + 26);
        assert_eq!(name, lease_name("kind-control-plane"));
        assert_ne!(name, lease_name("other"));
        // The empty text's SHA-256 begins with e3b0c44298fc1c149afbf4c8996fb924.
        assert_eq!(lease_name(""), "apiserver-4oymiquy7qobjgx36tejs35zeq");
    }
}
