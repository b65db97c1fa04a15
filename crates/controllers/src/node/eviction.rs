//! Evicts pods that do not tolerate the NoExecute taints of their node, at once or when their toleration runs out.
//!
//! Answers to upstream's tainteviction controller. The clock starts with the taint, so that a restart does not give a pod
//! more time.

use std::sync::Arc;
use std::time::Duration;

use ironkeel_informer::{Delta, EventRecorder, Informer, WorkQueue, run_workers};
use ironkeel_semantics::pods;
use ironkeel_semantics::taints::{NO_EXECUTE, Stay, stay};
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Client, ResourceExt as _};
use serde_json::json;

use crate::context::{BY_NODE, Context, key_of, now, since, split};
use crate::error::{Error, code, unless_gone};

pub(crate) async fn run(context: Context) {
    let nodes = context.factory.informer::<Node>();
    let pods = context.pods();
    let client = context.client("node-controller");
    let recorder = context.recorder(&client, "taint-eviction-controller");
    let queue: WorkQueue<String> = WorkQueue::new();
    let (by_node, known) = (queue.clone(), pods.clone());
    context.feed(&nodes, move |delta| {
        let changed = match &delta {
            Delta::Added(node) => Some(node),
            Delta::Updated { old, new } if no_execute(old) != no_execute(new) => Some(new),
            _ => None,
        };
        if let Some(node) = changed {
            for pod in known.by_index(BY_NODE, &node.name_any()) {
                by_node.add(key_of(pod.as_ref()));
            }
        }
    });
    let own = queue.clone();
    context.feed(&pods, move |delta| {
        let changed = match &delta {
            Delta::Added(pod) => Some(pod),
            Delta::Updated { old, new } => {
                let tolerations = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.tolerations.clone());
                let moved = pods::node_name(old) != pods::node_name(new) || tolerations(old) != tolerations(new);
                moved.then_some(new)
            }
            _ => None,
        };
        if let Some(pod) = changed
            && pods::node_name(pod).is_some()
        {
            own.add(key_of(pod.as_ref()));
        }
    });
    nodes.synced().await;
    pods.synced().await;
    let evictor = Arc::new(Evictor { nodes, pods, client, recorder });
    run_workers(queue, context.config.workers, context.shutdown.clone(), move |key: String| {
        let evictor = evictor.clone();
        async move { evictor.sync(&key).await }
    })
    .await;
}

fn no_execute(node: &Node) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == NO_EXECUTE).cloned().collect()
}

struct Evictor {
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    client: Client,
    recorder: EventRecorder,
}

impl Evictor {
    async fn sync(&self, key: &str) -> Result<Option<Duration>, Error> {
        let (namespace, name) = split(key);
        let Some(pod) = self.pods.get(namespace, name) else { return Ok(None) };
        let Some(node) = pods::node_name(&pod).and_then(|name| self.nodes.get("", name)) else { return Ok(None) };
        if pods::is_terminating(&pod) || pods::is_terminal(&pod) {
            return Ok(None);
        }
        let taints = no_execute(&node);
        let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
        match stay(&taints, tolerations) {
            Stay::Forever => return Ok(None),
            Stay::For(time) => {
                let tainted = taints.iter().filter_map(|taint| taint.time_added.as_ref()).max();
                let left = time.saturating_sub(tainted.map(since).unwrap_or_default());
                if !left.is_zero() {
                    return Ok(Some(left));
                }
            }
            Stay::Leave => {}
        }
        self.evict(&pod).await?;
        Ok(None)
    }

    async fn evict(&self, pod: &Pod) -> Result<(), Error> {
        let message = format!("Marking for deletion Pod {}", key_of(pod));
        self.recorder.normal(pod, "TaintManagerEviction", message);
        let api = Api::<Pod>::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let name = pod.name_any();
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": now(),
        });
        let patch = Patch::Strategic(json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [condition]}}));
        unless_gone(api.patch_status(&name, &PatchParams::default(), &patch).await)?;
        let same = Preconditions { uid: pod.uid(), resource_version: None };
        match api.delete(&name, &DeleteParams::default().preconditions(same)).await {
            Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }
}
