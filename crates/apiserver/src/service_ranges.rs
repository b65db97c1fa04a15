//! The ServiceCIDR `kubernetes`: the ranges that the server was started with, as an object. Upstream's
//! default ServiceCIDR controller; other ServiceCIDRs are the controller manager's.

use std::sync::Arc;

use ironkeel_object::{ObjectMeta, Value, object};
use ironkeel_registry::{ApiError, Reason, Registry, WriteRequest};

use crate::bootstrap;
use crate::definitions::Edit;

/// The name of the default ServiceCIDR.
const NAME: &str = "kubernetes";

/// Makes the object if it is not there, gives it a second family that the flags have got, and says that it
/// is ready where nobody has said anything.
pub(crate) async fn ensure(registry: &Arc<Registry>, ranges: &[String]) -> Result<(), ApiError> {
    // `--runtime-config` may switch the version off.
    let Some(row) = registry.row("networking.k8s.io", "v1", "servicecidrs") else { return Ok(()) };
    let wanted = object!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": { "name": NAME },
        "spec": { "cidrs": (ranges.to_vec()) },
    });
    let request = bootstrap::request(&row, &wanted);
    let there = match registry.get(&row, "", NAME) {
        Ok(entry) => entry.tree()?,
        Err(_) => match registry.create(&WriteRequest { name: String::new(), ..request.clone() }, wanted).await {
            Ok(written) => written.entry.tree()?,
            Err(e) if e.reason == Reason::AlreadyExists => {
                // Another server's, which may not have said yet that it is ready.
                registry.fresh().await?;
                let Ok(entry) = registry.get(&row, "", NAME) else { return Ok(()) };
                entry.tree()?
            }
            Err(e) => return Err(e),
        },
    };
    if there.deletion_timestamp().is_some() {
        return Ok(());
    }
    let cidrs: Vec<&str> = there.items_at(&["spec", "cidrs"]).iter().filter_map(Value::as_str).collect();
    if let ([first], [wanted, _]) = (cidrs.as_slice(), ranges)
        && first == wanted
    {
        let both = ranges.to_vec();
        let change = Edit(move |o: &mut Value| *o.slot(&["spec", "cidrs"]) = both.clone().into());
        registry.update(&request, &change).await?;
    } else if cidrs != ranges {
        tracing::warn!(stored = ?cidrs, given = ?ranges, "the default ServiceCIDR is not what the flags say");
        return Ok(());
    }
    let decided = |o: &Value| {
        let conditions = o.items_at(&["status", "conditions"]);
        let said = |c: &Value| matches!(c.str_at(&["status"]), Some("True" | "False"));
        conditions.iter().any(|c| c.str_at(&["type"]) == Some("Ready") && said(c))
    };
    if decided(&there) {
        return Ok(());
    }
    let now = ironkeel_registry::rfc3339(registry.clock().now());
    let change = Edit(move |o: &mut Value| {
        if !decided(o) {
            let message = "Kubernetes default Service CIDR is ready";
            let ready = object!({
                "lastTransitionTime": (now.as_str()), "message": message, "reason": "",
                "status": "True", "type": "Ready",
            });
            *o.slot(&["status", "conditions"]) = vec![ready].into();
        }
    });
    let status = WriteRequest { subresource: "status".to_owned(), ..request };
    registry.update(&status, &change).await.map(drop)
}

/// Keeps the object there, until it is dropped.
pub(crate) async fn run(registry: Arc<Registry>, ranges: Vec<String>) {
    let Some(row) = registry.row("networking.k8s.io", "v1", "servicecidrs") else { return };
    let put_back = async || {
        if let Err(error) = ensure(&registry, &ranges).await {
            tracing::warn!(%error, "the default ServiceCIDR cannot be written");
        }
    };
    while let Some(mut watcher) = registry.follow(&row).await {
        // It may have gone while nobody watched.
        put_back().await;
        let mut events = Vec::new();
        while watcher.next(&mut events).await.is_ok() && !events.is_empty() {
            let about = events.drain(..).filter_map(|e| e.object()).any(|(_, entry)| entry.name() == NAME);
            if about {
                put_back().await;
            }
        }
    }
}
