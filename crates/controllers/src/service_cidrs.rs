//! ServiceCIDRs are ready, and stay until no Service has an address of theirs.
//!
//! Answers to upstream's service-cidr-controller. A ServiceCIDR that is being deleted goes when its ranges lie in
//! another one, or when none of their addresses is in use; API servers stop choosing from it at once.

use std::time::Duration;

use ironkeel_informer::{WorkQueue, run_workers};
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::context::Context;
use crate::error::{Error, is_conflict, unless_gone};

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const MANAGER: &str = "service-cidr-controller";
/// Labels of the addresses that API servers give Services.
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");
/// API servers may still choose from a range that is being deleted for so long, in seconds.
const GRACE_SECONDS: i64 = 10;

pub(crate) async fn run(context: Context) {
    let ranges = context.factory.informer::<ServiceCIDR>();
    let addresses = context.factory.informer::<IPAddress>();
    let client = context.client("service-cidrs-controller");
    let queue: WorkQueue<String> = WorkQueue::new();
    // What one may be decided by any other.
    let (own, all) = (queue.clone(), ranges.clone());
    context.feed(&ranges, move |delta| {
        if let Some(range) = delta.object() {
            own.add(range.name_any());
        }
        all.list().iter().for_each(|r| own.add(r.name_any()));
    });
    let (by_address, all) = (queue.clone(), ranges.clone());
    context.feed(&addresses, move |_| {
        let going = all.list().into_iter().filter(|r| r.metadata.deletion_timestamp.is_some());
        going.for_each(|r| by_address.add(r.name_any()));
    });
    ranges.synced().await;
    addresses.synced().await;
    run_workers(queue, 1, context.shutdown.clone(), move |name: String| {
        let (ranges, addresses, client) = (ranges.clone(), addresses.clone(), client.clone());
        async move {
            let Some(range) = ranges.get("", &name) else { return Ok(None) };
            let api = Api::<ServiceCIDR>::all(client);
            let Some(deleted) = &range.metadata.deletion_timestamp else {
                protect(&api, &range, true).await?;
                ready(&api, &range, "True", "", "Kubernetes Service CIDR is ready").await?;
                return Ok(None);
            };
            let others: Vec<_> = ranges.list().into_iter().filter(|r| r.name_any() != name).collect();
            let others: Vec<ipnet::IpNet> = others.iter().flat_map(|r| networks(r)).collect();
            if !is_free(&networks(&range), &others, addresses.list().iter().map(AsRef::as_ref)) {
                let why = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
                ready(&api, &range, "False", "Terminating", why).await?;
                return Ok(None);
            }
            let since = jiff::Timestamp::now().as_second() - deleted.0.as_second();
            if since < GRACE_SECONDS {
                let rest = u64::try_from(GRACE_SECONDS - since).unwrap_or_default();
                return Ok(Some(Duration::from_secs(rest)));
            }
            protect(&api, &range, false).await.map(|()| None)
        }
    })
    .await;
}

fn networks(range: &ServiceCIDR) -> Vec<ipnet::IpNet> {
    let cidrs = range.spec.iter().flat_map(|s| s.cidrs.iter().flatten());
    cidrs.filter_map(|c| c.parse::<ipnet::IpNet>().ok()).collect()
}

/// Whether no address would be without a range when this one goes.
fn is_free<'a>(
    own: &[ipnet::IpNet],
    others: &[ipnet::IpNet],
    mut addresses: impl Iterator<Item = &'a IPAddress>,
) -> bool {
    let covered = |net: &ipnet::IpNet| others.iter().any(|o| o.contains(net));
    if own.iter().all(covered) {
        return true;
    }
    !addresses.any(|a| {
        let Ok(ip) = a.name_any().parse::<std::net::IpAddr>() else { return false };
        let managed = a.labels().get(MANAGED_BY.0).is_some_and(|by| by == MANAGED_BY.1);
        managed && own.iter().any(|n| n.contains(&ip)) && !others.iter().any(|o| o.contains(&ip))
    })
}

async fn protect(api: &Api<ServiceCIDR>, range: &ServiceCIDR, wanted: bool) -> Result<(), Error> {
    if range.finalizers().iter().any(|f| f == FINALIZER) == wanted {
        return Ok(());
    }
    let mut changed = range.clone();
    match wanted {
        true => changed.finalizers_mut().push(FINALIZER.to_owned()),
        false => changed.finalizers_mut().retain(|f| f != FINALIZER),
    }
    match unless_gone(api.replace(&range.name_any(), &PostParams::default(), &changed).await) {
        // The newer state brings us back.
        Err(error) if is_conflict(&error) => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

async fn ready(
    api: &Api<ServiceCIDR>,
    range: &ServiceCIDR,
    status: &str,
    reason: &str,
    message: &str,
) -> Result<(), Error> {
    let conditions = range.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let same = |c: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
        c.type_ == "Ready" && c.status == status && c.reason == reason && c.message == message
    };
    if conditions.into_iter().any(same) {
        return Ok(());
    }
    // The default one says so in words of its own.
    let said = range
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten())
        .any(|c| c.type_ == "Ready" && c.status == status);
    if status == "True" && said {
        return Ok(());
    }
    let applied = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": { "name": range.name_any() },
        "status": { "conditions": [{
            "type": "Ready", "status": status, "reason": reason, "message": message,
            "lastTransitionTime": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }] },
    });
    let parameters = PatchParams::apply(MANAGER).force();
    unless_gone(api.patch_status(&range.name_any(), &parameters, &Patch::Apply(applied)).await)?;
    Ok(())
}
