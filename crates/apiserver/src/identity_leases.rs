//! Identity leases of API servers that are gone: they are deleted when they have expired (upstream's apiserverleasegc).

use std::sync::Arc;
use std::time::Duration;

use ironkeel_object::{ObjectMeta, ObjectSource, Value};
use ironkeel_registry::{ApiError, DeleteOptions, Reason, Registry};
use jiff::{SignedDuration, Timestamp};

use crate::bootstrap;
use crate::hooks::{Hook, Hooks};
use crate::identity::LABEL;

/// Time between two looks, in seconds (upstream's).
const LOOK_SECONDS: u64 = 3600;
/// Time after which a look that failed is repeated, in seconds.
const RETRY_SECONDS: u64 = 60;
const NAMESPACE: &str = "kube-system";
const COMPONENT: &str = "kube-apiserver";

/// Looks at once and every hour, until it is dropped.
pub(crate) async fn run(registry: Arc<Registry>, hooks: Hooks) {
    loop {
        let looked = collect(&registry).await;
        // Readiness waits for the first look, not for its success.
        hooks.finished(&[Hook::IdentityLeases]);
        let pause = match looked {
            Ok(()) => LOOK_SECONDS,
            Err(error) => {
                tracing::info!(%error, "expired identity leases were not deleted");
                RETRY_SECONDS
            }
        };
        tokio::time::sleep(Duration::from_secs(pause)).await;
    }
}

/// A lease that does not say when it was renewed, or for how long, is nobody's.
fn expired(lease: &Value, now: Timestamp) -> bool {
    let renewed = lease.str_at(&["spec", "renewTime"]).and_then(|t| t.parse::<Timestamp>().ok());
    let seconds = lease.i64_at(&["spec", "leaseDurationSeconds"]);
    match (renewed, seconds) {
        (Some(renewed), Some(seconds)) => {
            renewed.checked_add(SignedDuration::from_secs(seconds)).is_ok_and(|ends| ends < now)
        }
        _ => true,
    }
}

async fn collect(registry: &Arc<Registry>) -> Result<(), ApiError> {
    let Some(resource) = ironkeel_schema::resource("coordination.k8s.io", "v1", "leases") else { return Ok(()) };
    registry.fresh().await?;
    let now = registry.clock().now();
    for lease in ObjectSource::list(&**registry, resource, NAMESPACE) {
        if lease.label(LABEL) != Some(COMPONENT) || !expired(&lease, now) {
            continue;
        }
        let row = bootstrap::row_of(registry, &lease)?;
        let request = bootstrap::request(&row, &lease);
        // One that was renewed meanwhile stays.
        let seen = DeleteOptions {
            uid: Some(lease.uid().to_owned()),
            resource_version: Some(lease.resource_version().to_owned()),
            ..DeleteOptions::default()
        };
        match registry.delete(&request, &seen).await {
            Err(e) if !matches!(e.reason, Reason::NotFound | Reason::Conflict) => return Err(e),
            _ => tracing::info!(lease = lease.name(), "deleted the identity lease of a server that is gone"),
        }
    }
    Ok(())
}
