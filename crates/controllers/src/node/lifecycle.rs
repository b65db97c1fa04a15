//! Watches the nodes' leases and conditions.
//!
//! A node whose lease and status have not changed for the grace period, on our own clock, is Unknown: its conditions say
//! so, its pods are no longer ready, and it is tainted. Answers to upstream's nodelifecycle controller.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ironkeel_informer::{Delta, EventRecorder, Informer, WatchConfig, WorkQueue, run_workers};
use ironkeel_semantics::taints::{NO_EXECUTE, NO_SCHEDULE};
use ironkeel_semantics::{nodes, pods, well_known};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio::time::Instant;

use crate::context::{BY_NODE, Context, now};
use crate::error::{Error, is_conflict, unless_gone};

/// Where kubelets renew their leases.
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// The conditions that a kubelet reports; all become Unknown with it.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
/// Condition, the status that taints, and the taint.
const NO_SCHEDULE_TAINTS: [(&str, &str, &str); 6] = [
    ("Ready", "False", well_known::TAINT_NOT_READY),
    ("Ready", "Unknown", well_known::TAINT_UNREACHABLE),
    ("MemoryPressure", "True", well_known::TAINT_MEMORY_PRESSURE),
    ("DiskPressure", "True", well_known::TAINT_DISK_PRESSURE),
    ("PIDPressure", "True", well_known::TAINT_PID_PRESSURE),
    ("NetworkUnavailable", "True", well_known::TAINT_NETWORK_UNAVAILABLE),
];

pub(crate) async fn run(context: Context) {
    let nodes = context.factory.informer::<Node>();
    let client = context.client("node-controller");
    let leases = Informer::start(
        Api::<Lease>::namespaced(context.factory.client().clone(), LEASE_NAMESPACE),
        WatchConfig::default(),
        context.shutdown.clone(),
    );
    let pods = context.pods();
    let recorder = context.recorder(&client, "node-controller");
    let queue: WorkQueue<String> = WorkQueue::new();
    let own = queue.clone();
    context.feed(&nodes, move |delta| {
        if let Delta::Added(node) | Delta::Updated { new: node, .. } = delta {
            own.add(node.name_any());
        }
    });
    nodes.synced().await;
    leases.synced().await;
    pods.synced().await;
    let controller = Arc::new(Controller { nodes, leases, pods, client, recorder });
    let monitor = controller.clone().monitor(context.clone());
    let workers = run_workers(queue, context.config.workers, context.shutdown.clone(), move |name: String| {
        let controller = controller.clone();
        async move {
            match controller.sync(&name).await {
                Err(Error::Api(error)) if is_conflict(&error) => Ok(Some(Duration::from_millis(5))),
                other => other.map(|()| None),
            }
        }
    });
    tokio::join!(monitor, workers);
}

struct Controller {
    nodes: Informer<Node>,
    leases: Informer<Lease>,
    pods: Informer<Pod>,
    client: Client,
    recorder: EventRecorder,
}

/// What was last seen of a node, and when that changed.
struct Heartbeat {
    lease: Option<String>,
    reported: Option<String>,
    since: Instant,
}

impl Controller {
    /// Looks at every node's heartbeat now and then: only time tells that something did not happen.
    async fn monitor(self: Arc<Self>, context: Context) {
        let mut heartbeats: HashMap<String, Heartbeat> = HashMap::new();
        loop {
            let nodes = self.nodes.list();
            heartbeats.retain(|name, _| self.nodes.get("", name).is_some());
            for node in nodes {
                if let Err(error) = self.check(&context, &node, &mut heartbeats).await {
                    tracing::debug!(node = node.name_any(), %error, "not marked");
                }
            }
            tokio::select! {
                () = context.shutdown.cancelled() => return,
                () = tokio::time::sleep(context.config.node_monitor_period) => {}
            }
        }
    }

    async fn check(
        &self,
        context: &Context,
        node: &Node,
        heartbeats: &mut HashMap<String, Heartbeat>,
    ) -> Result<(), Error> {
        let name = node.name_any();
        let lease = self.leases.get(LEASE_NAMESPACE, &name).and_then(|lease| lease.resource_version());
        let ready = nodes::condition(node, "Ready");
        let reported = ready.map(|ready| format!("{:?} {}", ready.last_heartbeat_time, ready.status));
        let known = heartbeats.entry(name.clone()).or_insert_with(|| Heartbeat {
            lease: lease.clone(),
            reported: reported.clone(),
            since: Instant::now(),
        });
        let unknown_by_us = ready.is_some_and(|ready| ready.status == "Unknown");
        if known.lease != lease || (known.reported != reported && !unknown_by_us) {
            *known = Heartbeat { lease, reported, since: Instant::now() };
        }
        let grace = if ready.is_some() {
            context.config.node_monitor_grace_period
        } else {
            context.config.node_startup_grace_period
        };
        if known.since.elapsed() > grace {
            self.mark_unknown(node).await?;
        }
        if !nodes::is_ready(node) && ready.is_some() {
            self.mark_pods_not_ready(&name).await?;
        }
        Ok(())
    }

    async fn mark_unknown(&self, node: &Node) -> Result<(), Error> {
        let mut changed = Vec::new();
        for type_ in REPORTED {
            let found = nodes::condition(node, type_);
            if found.is_some_and(|condition| condition.status == "Unknown") {
                continue;
            }
            let (reason, message) = match found {
                Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
                None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
            };
            changed.push(NodeCondition {
                type_: type_.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()),
                last_heartbeat_time: found.map_or_else(
                    || node.metadata.creation_timestamp.clone(),
                    |condition| condition.last_heartbeat_time.clone(),
                ),
                last_transition_time: Some(now()),
            });
        }
        if changed.is_empty() {
            return Ok(());
        }
        let name = node.name_any();
        let patch = Patch::Strategic(json!({
            "metadata": {"resourceVersion": node.resource_version()},
            "status": {"conditions": changed},
        }));
        unless_gone(Api::<Node>::all(self.client.clone()).patch_status(&name, &PatchParams::default(), &patch).await)?;
        self.recorder.normal(node, "NodeNotReady", format!("Node {name} status is now: NodeNotReady"));
        Ok(())
    }

    /// Pods on a node that is not ready are not ready either: nothing may be sent to them.
    async fn mark_pods_not_ready(&self, node: &str) -> Result<(), Error> {
        for pod in self.pods.by_index(BY_NODE, node) {
            if !pods::is_ready(&pod) {
                continue;
            }
            let api = Api::<Pod>::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
            let condition = json!({"type": "Ready", "status": "False", "lastTransitionTime": now()});
            let patch =
                Patch::Strategic(json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [condition]}}));
            unless_gone(api.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await)?;
            self.recorder.warning(pod.as_ref(), "NodeNotReady", "Node is not ready");
        }
        Ok(())
    }

    /// Brings the node's taints to its conditions.
    async fn sync(&self, name: &str) -> Result<(), Error> {
        let Some(node) = self.nodes.get("", name) else { return Ok(()) };
        let found = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
        let wanted = wanted_taints(&node, &found);
        if wanted == found {
            return Ok(());
        }
        let patch = Patch::Merge(json!({
            "metadata": {"resourceVersion": node.resource_version()},
            "spec": {"taints": wanted},
        }));
        unless_gone(Api::<Node>::all(self.client.clone()).patch(name, &PatchParams::default(), &patch).await)?;
        Ok(())
    }
}

/// The taints that the node should have: others' as they are, ours by condition.
fn wanted_taints(node: &Node, found: &[Taint]) -> Vec<Taint> {
    let holds = |type_: &str, status: &str| nodes::condition(node, type_).is_some_and(|found| found.status == status);
    let mut ours: Vec<(&str, &str)> = Vec::new();
    for (type_, status, key) in NO_SCHEDULE_TAINTS {
        if holds(type_, status) {
            ours.push((key, NO_SCHEDULE));
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false) {
        ours.push((well_known::TAINT_UNSCHEDULABLE, NO_SCHEDULE));
    }
    if holds("Ready", "False") {
        ours.push((well_known::TAINT_NOT_READY, NO_EXECUTE));
    } else if holds("Ready", "Unknown") {
        ours.push((well_known::TAINT_UNREACHABLE, NO_EXECUTE));
    }
    // A node that never reported keeps the taint that it was registered with.
    let silent = nodes::condition(node, "Ready").is_none();
    let is_ours = |taint: &Taint| {
        let by_condition = NO_SCHEDULE_TAINTS.iter().any(|(_, _, key)| *key == taint.key);
        let scheduling = taint.effect == NO_SCHEDULE && (by_condition || taint.key == well_known::TAINT_UNSCHEDULABLE);
        let executing = taint.effect == NO_EXECUTE
            && (taint.key == well_known::TAINT_NOT_READY || taint.key == well_known::TAINT_UNREACHABLE);
        (scheduling || executing) && !(silent && taint.key == well_known::TAINT_NOT_READY)
    };
    let mut wanted: Vec<Taint> = found
        .iter()
        .filter(|taint| !is_ours(taint) || ours.contains(&(taint.key.as_str(), taint.effect.as_str())))
        .cloned()
        .collect();
    for (key, effect) in ours {
        if !wanted.iter().any(|taint| taint.key == key && taint.effect == effect) {
            wanted.push(Taint { key: key.to_owned(), effect: effect.to_owned(), time_added: Some(now()), value: None });
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(ready: &str, expected: &[(&str, &str)]) {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n"}, "spec": {"taints": [{"key": "mine", "effect": "NoSchedule"}]},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap();
        let found = node.spec.clone().unwrap().taints.unwrap();
        let wanted = wanted_taints(&node, &found);
        let names: Vec<_> = wanted.iter().map(|taint| (taint.key.as_str(), taint.effect.as_str())).collect();
        assert_eq!(names, expected, "Ready={ready}");
    }

    #[test]
    fn conditions_become_taints_and_others_stay() {
        let mine = ("mine", NO_SCHEDULE);
        check("True", &[mine]);
        check("False", &[mine, (well_known::TAINT_NOT_READY, NO_SCHEDULE), (well_known::TAINT_NOT_READY, NO_EXECUTE)]);
        check(
            "Unknown",
            &[mine, (well_known::TAINT_UNREACHABLE, NO_SCHEDULE), (well_known::TAINT_UNREACHABLE, NO_EXECUTE)],
        );
    }
}
