//! Telling the API: bindings, conditions and events.

use std::sync::Arc;

use ironkeel_informer::EventRecorder;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};

use crate::cache::PodInfo;
use crate::framework::Failure;
use crate::queue::QueuedPod;

/// Bindings and status writes under way at once.
const PARALLEL_CALLS: usize = 64;

/// What came of a binding.
pub(crate) enum Bound {
    /// The API has it.
    Done,
    /// The pod is gone, or somebody else bound it.
    Gone { pod: Arc<PodInfo> },
    /// The call failed; the pod comes back.
    Failed { pod: QueuedPod },
}

/// Makes the calls beside the scheduling cycle.
pub(crate) struct Binder {
    client: kube::Client,
    recorder: EventRecorder,
    results: mpsc::UnboundedSender<Bound>,
    limit: Arc<Semaphore>,
}

impl Binder {
    pub(crate) fn new(client: kube::Client, recorder: EventRecorder, results: mpsc::UnboundedSender<Bound>) -> Self {
        Binder { client, recorder, results, limit: Arc::new(Semaphore::new(PARALLEL_CALLS)) }
    }

    /// Binds, and sends what came of it.
    pub(crate) fn bind(&self, queued: QueuedPod, node: String) {
        let (client, recorder, results, limit) =
            (self.client.clone(), self.recorder.clone(), self.results.clone(), self.limit.clone());
        tokio::spawn(async move {
            let permit = limit.acquire_owned().await;
            let pod = queued.info.pod.clone();
            let (namespace, name) = names(&pod);
            let outcome = match call(&client, &pod, namespace, name, &node).await {
                Ok(()) => {
                    recorder.normal(&*pod, "Scheduled", format!("Successfully assigned {namespace}/{name} to {node}"));
                    Bound::Done
                }
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                    tracing::debug!(namespace, name, %node, error = %status.message, "not bound");
                    Bound::Gone { pod: queued.info }
                }
                Err(error) => {
                    tracing::warn!(namespace, name, %node, %error, "binding failed");
                    recorder.warning(&*pod, "FailedScheduling", format!("binding to {node} failed: {error}"));
                    Bound::Failed { pod: queued }
                }
            };
            drop(permit);
            // The scheduler is gone when nobody listens.
            let _ = results.send(outcome);
        });
    }

    /// Tells people why the pod waits, when that is news.
    pub(crate) fn report(&self, pod: &Arc<Pod>, failure: &Failure) {
        let condition = ironkeel_semantics::pods::condition(pod, "PodScheduled");
        if condition.is_some_and(|c| c.message.as_deref() == Some(&failure.message) && c.status == "False") {
            return;
        }
        if failure.reason == "Unschedulable" {
            self.recorder.warning(&**pod, "FailedScheduling", failure.message.clone());
        }
        let (client, pod, limit) = (self.client.clone(), pod.clone(), self.limit.clone());
        let patch = json!({ "status": { "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": failure.reason, "message": failure.message,
            "lastTransitionTime": k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }] } });
        tokio::spawn(async move {
            let _permit = limit.acquire_owned().await;
            let (namespace, name) = names(&pod);
            let api: Api<Pod> = Api::namespaced(client, namespace);
            // Told again at the next attempt if it fails now.
            if let Err(error) = api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                tracing::debug!(namespace, name, %error, "writing the PodScheduled condition");
            }
        });
    }
}

fn names(pod: &Pod) -> (&str, &str) {
    (pod.metadata.namespace.as_deref().unwrap_or_default(), pod.metadata.name.as_deref().unwrap_or_default())
}

async fn call(client: &kube::Client, pod: &Pod, namespace: &str, name: &str, node: &str) -> Result<(), kube::Error> {
    let body = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": { "name": name, "namespace": namespace, "uid": pod.metadata.uid },
        "target": { "apiVersion": "v1", "kind": "Node", "name": node },
    });
    let request = http::Request::post(format!("/api/v1/namespaces/{namespace}/pods/{name}/binding"))
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body.to_string().into_bytes())
        .map_err(kube::Error::HttpError)?;
    client.request::<serde_json::Value>(request).await.map(|_| ())
}
