//! Writes pods' statuses to the API: a task a pod, the latest status wins, only what differs is sent, at once. When
//! the pod has ended and its deletion was asked for, the last write is followed by its deletion.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::names;

use super::conditions::OWNED;

/// First wait after a failed write.
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Longest wait between failed writes.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What is to be in the API.
#[derive(Clone, Default)]
pub(crate) struct Desired {
    /// The API's object: the pod itself, or a static pod's mirror.
    pub(crate) target: Option<Arc<Pod>>,
    pub(crate) status: Option<PodStatus>,
    /// Nothing of the pod is left on the node.
    pub(crate) finished: bool,
}

/// Writes until the sender is dropped.
pub(crate) async fn run(client: Client, mut desired: watch::Receiver<Desired>) {
    let mut base: Option<Pod> = None;
    let mut wait = RETRY_FIRST;
    loop {
        let now = desired.borrow_and_update().clone();
        match write(&client, &now, &mut base).await {
            Ok(()) => {
                wait = RETRY_FIRST;
                if desired.changed().await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "pod status not written, will try again");
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    changed = desired.changed() => if changed.is_err() { return },
                }
                wait = (wait * 2).min(RETRY_MAX);
            }
        }
    }
}

fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

async fn write(client: &Client, desired: &Desired, base: &mut Option<Pod>) -> Result<(), kube::Error> {
    let (Some(target), Some(status)) = (&desired.target, &desired.status) else { return Ok(()) };
    if base.as_ref().is_none_or(|base| version(target) > version(base) || base.metadata.uid != target.metadata.uid) {
        *base = Some((**target).clone());
    }
    let Some(known) = base.as_ref() else { return Ok(()) };
    let api: Api<Pod> = Api::namespaced(client.clone(), names::namespace(target));
    let old = known.status.clone().unwrap_or_default();
    if let Some(changes) = difference(&old, status) {
        let patch = json!({"metadata": {"uid": target.metadata.uid}, "status": changes});
        match api.patch_status(names::name(target), &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(pod) => *base = Some(pod),
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) && gone(&answer, target) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    if desired.finished && target.metadata.deletion_timestamp.is_some() {
        let preconditions = Preconditions { uid: target.metadata.uid.clone(), resource_version: None };
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        match api.delete(names::name(target), &parameters).await {
            Ok(_) => {}
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The pod is no more, or another one has its name.
fn gone(answer: &kube::core::Status, target: &Pod) -> bool {
    let uid = target.metadata.uid.as_deref().unwrap_or_default();
    answer.code == 404 || answer.message.contains(uid) || answer.message.contains("uid")
}

/// A strategic merge patch of the status; `None` when nothing differs.
pub(crate) fn difference(old: &PodStatus, new: &PodStatus) -> Option<Value> {
    // By way of text, which the client has to write for any object: trees would need code of their own.
    let tree =
        |status: &PodStatus| serde_json::from_slice::<Map<String, Value>>(&serde_json::to_vec(status).ok()?).ok();
    let (old_map, new_map) = (tree(old)?, tree(new)?);
    let mut changes = Map::new();
    let keys = old_map.keys().chain(new_map.keys().filter(|key| !old_map.contains_key(*key)));
    for key in keys {
        let (before, after) = (old_map.get(key), new_map.get(key));
        // What the scheduler and others wrote is theirs.
        let foreign = matches!(
            key.as_str(),
            "conditions"
                | "nominatedNodeName"
                | "resourceClaimStatuses"
                | "extendedResourceClaimStatus"
                | "resize"
                | "nodeAllocatableResourceClaimStatuses"
        );
        if before == after || foreign {
            continue;
        }
        let value = match (key.as_str(), after) {
            (_, None) => Value::Null,
            ("resources" | "allocatedResources", Some(value)) => with_removals(before.unwrap_or(&Value::Null), value),
            ("podIPs" | "hostIPs", Some(Value::Array(list))) if before.is_some() => {
                let replace = std::iter::once(json!({"$patch": "replace"}));
                Value::Array(replace.chain(list.iter().cloned()).collect())
            }
            (_, Some(value)) => value.clone(),
        };
        changes.insert(key.clone(), value);
    }
    let old_conditions: &[PodCondition] = old.conditions.as_deref().unwrap_or_default();
    let own = new.conditions.iter().flatten().filter(|condition| OWNED.contains(&condition.type_.as_str()));
    let changed: Vec<Value> = own
        .filter(|condition| {
            !old_conditions.iter().any(|old| {
                old.type_ == condition.type_
                    && old.status == condition.status
                    && old.reason == condition.reason
                    && old.message == condition.message
                    && old.observed_generation == condition.observed_generation
            })
        })
        .filter_map(|condition| {
            let mut value = serde_json::to_value(condition).ok()?;
            for field in ["reason", "message"] {
                if value.get(field).is_none() {
                    value[field] = Value::Null;
                }
            }
            Some(value)
        })
        .collect();
    let ended = old_conditions.iter().filter(|old| {
        let ours = OWNED.contains(&old.type_.as_str());
        ours && !new.conditions.iter().flatten().any(|condition| condition.type_ == old.type_)
    });
    let ended = ended.map(|old| json!({"type": old.type_, "$patch": "delete"}));
    let changed: Vec<Value> = changed.into_iter().chain(ended).collect();
    if !changed.is_empty() {
        changes.insert("conditions".into(), Value::Array(changed));
    }
    (!changes.is_empty()).then_some(Value::Object(changes))
}

/// The tree, with a null for each member of the old one that it lacks.
fn with_removals(old: &Value, new: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return new.clone() };
    let gone = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let kept = new.iter().map(|(key, value)| (key.clone(), with_removals(old.get(key).unwrap_or(&Value::Null), value)));
    gone.chain(kept).collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn status(value: Value) -> PodStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_what_differs_is_sent() {
        let old = status(json!({"phase": "Pending", "podIPs": [{"ip": "1"}], "reason": "x", "conditions": [
            {"type": "Ready", "status": "False"}, {"type": "Gate", "status": "True"}]}));
        let new = status(json!({"phase": "Running", "podIPs": [{"ip": "2"}], "conditions": [
            {"type": "Ready", "status": "True"}, {"type": "Gate", "status": "False"}]}));
        let patch = difference(&old, &new).unwrap();
        assert_eq!(patch["phase"], "Running");
        assert_eq!(patch["reason"], Value::Null);
        assert_eq!(patch["podIPs"], json!([{"$patch": "replace"}, {"ip": "2"}]));
        assert_eq!(patch["conditions"].as_array().unwrap().len(), 1);
        assert_eq!(difference(&new, &new), None);
    }

    #[test]
    fn an_amount_that_is_gone_is_taken_out() {
        let of = |limits: Value| status(json!({"resources": {"limits": limits, "requests": {"cpu": "1"}}}));
        let patch = difference(&of(json!({"cpu": "2", "memory": "1Gi"})), &of(json!({"cpu": "3"}))).unwrap();
        assert_eq!(patch["resources"]["limits"], json!({"cpu": "3", "memory": null}));
    }
}
