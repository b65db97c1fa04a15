//! Each Node gets its pods' range, `spec.podCIDR`, out of the cluster's.
//!
//! Answers to upstream's nodeipam controller with the range allocator. Which ranges are taken is told by
//! the Nodes alone: a range is free again when its Node is gone. One worker allocates, and remembers what
//! it gave until the cache shows it, so that no range is given twice.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;
use ironkeel_informer::{Delta, EventKind, EventRecorder, Informer, WorkQueue, reference_to, run_workers};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use parking_lot::Mutex;
use serde_json::json;

use crate::context::{Context, NodeIpam};
use crate::error::{Error, unless_gone};

pub(crate) async fn run(context: Context) {
    let Some(config) = context.config.node_ipam.clone() else {
        return context.shutdown.cancelled().await;
    };
    let nodes = context.factory.informer::<Node>();
    let client = context.client("node-controller");
    let recorder = context.recorder(&client, "cidrAllocator");
    let queue: WorkQueue<String> = WorkQueue::new();
    let own = queue.clone();
    let ipam = Arc::new(Ipam { config, nodes: nodes.clone(), client, recorder, given: Mutex::default() });
    let watching = ipam.clone();
    context.feed(&nodes, move |delta| match delta {
        Delta::Added(node) | Delta::Updated { new: node, .. } => own.add(node.name_any()),
        Delta::Deleted(node) => {
            watching.given.lock().remove(&node.name_any());
            // Its range may be what another node waits for.
            let waiting = watching.nodes.list().into_iter().filter(|n| pod_cidr(n).is_none());
            waiting.for_each(|n| own.add(n.name_any()));
        }
        Delta::Synced => {}
    });
    nodes.synced().await;
    // One worker: two could choose the same range.
    run_workers(queue, 1, context.shutdown.clone(), move |name: String| {
        let ipam = ipam.clone();
        async move { ipam.sync(&name).await.map(|()| None) }
    })
    .await;
}

struct Ipam {
    config: NodeIpam,
    nodes: Informer<Node>,
    client: Client,
    recorder: EventRecorder,
    /// What was given and the cache may not show yet.
    given: Mutex<BTreeMap<String, Ipv4Net>>,
}

fn pod_cidr(node: &Node) -> Option<&str> {
    node.spec.as_ref()?.pod_cidr.as_deref().filter(|c| !c.is_empty())
}

impl Ipam {
    async fn sync(&self, name: &str) -> Result<(), Error> {
        let Some(node) = self.nodes.get("", name) else { return Ok(()) };
        if pod_cidr(&node).is_some() || node.metadata.deletion_timestamp.is_some() {
            self.given.lock().remove(name);
            return Ok(());
        }
        let Some(range) = self.choose(name) else {
            let message = format!("Node {name} status is now: CIDRNotAvailable");
            self.recorder.event(reference_to(node.as_ref()), EventKind::Normal, "CIDRNotAvailable", &message);
            tracing::warn!(node = name, cluster = %self.config.cluster_cidr, "no range is left for the node's pods");
            return Ok(());
        };
        self.given.lock().insert(name.to_owned(), range);
        let text = range.to_string();
        let patch = json!({ "spec": { "podCIDR": text, "podCIDRs": [text] } });
        let api = Api::<Node>::all(self.client.clone());
        let outcome = api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        if outcome.is_err() {
            self.given.lock().remove(name);
        }
        unless_gone(outcome)?;
        Ok(())
    }

    /// The range that is kept for this node, or the first free one.
    fn choose(&self, name: &str) -> Option<Ipv4Net> {
        if let Some(kept) = self.config.kept.get(name) {
            return Some(*kept);
        }
        let nodes = self.nodes.list();
        let held = nodes.iter().filter(|n| n.name_any() != name).filter_map(|n| pod_cidr(n)?.parse().ok());
        let mut taken: Vec<Ipv4Net> = held.collect();
        taken.extend(self.given.lock().iter().filter(|(other, _)| *other != name).map(|(_, range)| *range));
        taken.extend(self.config.kept.values());
        free_range(self.config.cluster_cidr, self.config.node_mask_size, &taken)
    }
}

/// The first range of that size that touches none of `taken`.
fn free_range(cluster: Ipv4Net, mask: u8, taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    let mask = mask.clamp(cluster.prefix_len(), 32);
    let size = 1u64 << (32 - mask);
    let count = 1u64 << (mask - cluster.prefix_len());
    let start = u64::from(u32::from(cluster.network()));
    let range = |i: u64| u32::try_from(start + i * size).ok().map(|a| Ipv4Net::new_assert(Ipv4Addr::from(a), mask));
    let free = |net: &Ipv4Net| !taken.iter().any(|t| t.contains(&net.network()) || net.contains(&t.network()));
    (0..count).filter_map(range).find(free)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_first_free_range_is_given_until_none_is_left() {
        let check = |cluster: &str, mask: u8, taken: &[&str], expected: Option<&str>| {
            let taken: Vec<Ipv4Net> = taken.iter().map(|t| t.parse().unwrap()).collect();
            let found = free_range(cluster.parse().unwrap(), mask, &taken).map(|n| n.to_string());
            assert_eq!(found.as_deref(), expected, "{cluster} {taken:?}");
        };
        check("10.42.0.0/16", 24, &[], Some("10.42.0.0/24"));
        check("10.42.0.0/16", 24, &["10.42.0.0/24", "10.42.2.0/24"], Some("10.42.1.0/24"));
        check("10.42.0.0/16", 24, &["10.42.0.0/23"], Some("10.42.2.0/24"));
        check("10.42.0.0/16", 24, &["10.42.0.128/25"], Some("10.42.1.0/24"));
        check("10.42.0.0/26", 26, &[], Some("10.42.0.0/26"));
        check("10.42.0.0/26", 26, &["10.42.0.0/26"], None);
        check("255.255.255.0/24", 25, &["255.255.255.0/25"], Some("255.255.255.128/25"));
    }
}
