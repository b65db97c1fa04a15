//! Pods that nobody will clean up: finished ones beyond a number, those of nodes that are gone, those that were deleted
//! before they were bound, and those of nodes out of service.

use std::collections::HashSet;
use std::sync::Arc;

use ironkeel_informer::Informer;
use ironkeel_semantics::well_known::TAINT_OUT_OF_SERVICE;
use ironkeel_semantics::{nodes, pods};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Client, ResourceExt as _};
use serde_json::json;

use crate::context::{Context, now};
use crate::error::{Error, code, unless_gone};

pub(crate) async fn run(context: Context) {
    let collector = Collector {
        pods: context.pods(),
        nodes: context.factory.informer::<Node>(),
        client: context.client("pod-garbage-collector"),
        threshold: context.config.terminated_pod_threshold,
    };
    collector.pods.synced().await;
    collector.nodes.synced().await;
    let mut missing: HashSet<String> = HashSet::new();
    loop {
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(context.config.pod_gc_period) => {}
        }
        collector.finished().await;
        collector.out_of_service().await;
        collector.unscheduled().await;
        missing = collector.orphans(missing, &context).await;
    }
}

struct Collector {
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    client: Client,
    threshold: usize,
}

impl Collector {
    async fn finished(&self) {
        if self.threshold == 0 {
            return;
        }
        let mut finished: Vec<Arc<Pod>> = self.pods.list();
        finished.retain(|pod| pods::is_terminal(pod) && !pods::is_terminating(pod));
        let surplus = finished.len().saturating_sub(self.threshold);
        if surplus == 0 {
            return;
        }
        finished.sort_by(|a, b| a.metadata.creation_timestamp.cmp(&b.metadata.creation_timestamp));
        for pod in finished.into_iter().take(surplus) {
            self.collect(&pod, None).await;
        }
    }

    async fn out_of_service(&self) {
        for pod in self.pods.list() {
            if !pods::is_terminating(&pod) {
                continue;
            }
            let Some(node) = pods::node_name(&pod).and_then(|name| self.nodes.get("", name)) else { continue };
            let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
            if !nodes::is_ready(&node) && taints.iter().any(|taint| taint.key == TAINT_OUT_OF_SERVICE) {
                self.collect(&pod, None).await;
            }
        }
    }

    async fn unscheduled(&self) {
        for pod in self.pods.list() {
            if pods::is_terminating(&pod) && pods::node_name(&pod).is_none() {
                self.collect(&pod, None).await;
            }
        }
    }

    /// Collects the pods of nodes that were missing at the last sweep and are for the API too; returns those missing now.
    async fn orphans(&self, before: HashSet<String>, context: &Context) -> HashSet<String> {
        let mut now_missing = HashSet::new();
        for pod in self.pods.list() {
            if let Some(name) = pods::node_name(&pod)
                && self.nodes.get("", name).is_none()
            {
                now_missing.insert(name.to_owned());
            }
        }
        let due: Vec<_> = now_missing.intersection(&before).cloned().collect();
        if due.is_empty() {
            return now_missing;
        }
        // One period has passed since they were found missing first.
        let rest = context.config.pod_gc_node_grace_period.saturating_sub(context.config.pod_gc_period);
        tokio::select! {
            () = context.shutdown.cancelled() => return now_missing,
            () = tokio::time::sleep(rest) => {}
        }
        let api = Api::<Node>::all(self.client.clone());
        for name in due {
            if !matches!(api.get_opt(&name).await, Ok(None)) {
                continue;
            }
            for pod in self.pods.by_index(crate::context::BY_NODE, &name) {
                self.collect(&pod, Some("PodGC: node no longer exists")).await;
            }
        }
        now_missing
    }

    /// Marks an unfinished pod failed, with the reason for its disruption, and deletes it at once.
    async fn collect(&self, pod: &Pod, disrupted: Option<&str>) {
        if let Err(error) = self.try_collect(pod, disrupted).await {
            tracing::debug!(pod = pod.name_any(), %error, "not collected");
        }
    }

    async fn try_collect(&self, pod: &Pod, disrupted: Option<&str>) -> Result<(), Error> {
        let api = Api::<Pod>::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let name = pod.name_any();
        if !pods::is_terminal(pod) {
            let mut status = json!({"phase": "Failed"});
            if let Some(message) = disrupted {
                status["conditions"] = json!([{
                    "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                    "message": message, "lastTransitionTime": now(),
                }]);
            }
            let patch = Patch::Strategic(json!({"metadata": {"uid": pod.uid()}, "status": status}));
            unless_gone(api.patch_status(&name, &PatchParams::default(), &patch).await)?;
        }
        let same = Preconditions { uid: pod.uid(), resource_version: None };
        let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        match api.delete(&name, &at_once.preconditions(same)).await {
            Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }
}
