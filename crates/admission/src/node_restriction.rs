//! NodeRestriction: a kubelet changes its own Node, the Pods bound to it, and little else.

use ironkeel_object::{Map, ObjectMeta, Value};
use ironkeel_registry::{ApiError, Attributes, Operation};

use crate::Cluster;

/// Labels in these domains that a kubelet may set on its own Node.
const ALLOWED_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

pub(crate) fn validate(
    c: &Cluster,
    a: &Attributes<'_>,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    let Some(node) = a.user.node() else { return Ok(()) };
    match (a.row.group(), a.row.plural(), a.subresource) {
        ("", "pods", "") => pod(a, node, object, old),
        ("", "pods", "status") => {
            owned(a, node, old, "can only update pod status for pods with spec.nodeName set to itself")
        }
        ("", "pods", "eviction") => {
            let pod = c.get("", "pods", a.namespace, a.name);
            owned(a, node, pod.as_deref(), "can only evict pods with spec.nodeName set to itself")
        }
        ("", "nodes", _) => own_node(a, node, object, old),
        ("", "serviceaccounts", "token") => token(c, a, node, object),
        ("coordination.k8s.io", "leases", _) => {
            if a.namespace != "kube-node-lease" {
                return Err(a.forbidden(&format!(
                    "can only access leases in the \"kube-node-lease\" system namespace, not {:?}",
                    a.namespace
                )));
            }
            let name = object.map_or(a.name, |o| o.name());
            if name == node || name.is_empty() {
                Ok(())
            } else {
                Err(a.forbidden(&format!(
                    "can only access node lease with the same name as the requesting node \"{node}\""
                )))
            }
        }
        ("storage.k8s.io", "csinodes", _) => {
            let name = object.map_or(a.name, |o| o.name());
            if name == node || name.is_empty() {
                Ok(())
            } else {
                Err(a.forbidden(&format!(
                    "can only access CSINode with the same name as the requesting node \"{node}\""
                )))
            }
        }
        _ => Ok(()),
    }
}

fn says(a: &Attributes<'_>, node: &str, why: &str) -> ApiError {
    a.forbidden(&format!("node \"{node}\" {why}"))
}

fn owned(a: &Attributes<'_>, node: &str, pod: Option<&Value>, why: &str) -> Result<(), ApiError> {
    match pod.and_then(|p| p.str_at(&["spec", "nodeName"])) {
        Some(name) if name == node => Ok(()),
        _ => Err(says(a, node, why)),
    }
}

fn pod(a: &Attributes<'_>, node: &str, object: Option<&Value>, old: Option<&Value>) -> Result<(), ApiError> {
    match a.operation {
        Operation::Create => {
            let Some(pod) = object else { return Ok(()) };
            if pod.annotation("kubernetes.io/config.mirror").is_none() {
                return Err(a.forbidden(&format!("pod does not have \"kubernetes.io/config.mirror\" annotation, node \"{node}\" can only create mirror pods")));
            }
            owned(a, node, Some(pod), "can only create pods with spec.nodeName set to itself")
        }
        Operation::Delete => owned(a, node, old, "can only delete pods with spec.nodeName set to itself"),
        Operation::Connect => Ok(()),
        Operation::Update => {
            Err(a.forbidden("unexpected operation \"UPDATE\", node can only create and delete mirror pods"))
        }
    }
}

fn own_node(a: &Attributes<'_>, node: &str, object: Option<&Value>, old: Option<&Value>) -> Result<(), ApiError> {
    let name = object.map_or(a.name, |o| o.name());
    if name != node && !name.is_empty() {
        return Err(says(a, node, &format!("is not allowed to modify node {name:?}")));
    }
    let Some(object) = object else {
        return if a.operation == Operation::Delete { Err(says(a, node, "cannot delete itself")) } else { Ok(()) };
    };
    if a.operation == Operation::Update
        && let Some(old) = old
        && a.subresource.is_empty()
        && old.at(&["spec", "taints"]).filter(|t| !t.is_empty())
            != object.at(&["spec", "taints"]).filter(|t| !t.is_empty())
    {
        return Err(says(a, node, "is not allowed to modify taints"));
    }
    if !object.owner_references().is_empty() && old.is_none_or(|o| o.owner_references() != object.owner_references()) {
        return Err(says(a, node, "is not allowed to modify ownerReferences"));
    }
    let labels = |o: &Value| o.at(&["metadata", "labels"]).and_then(Value::as_object).cloned().unwrap_or_default();
    let before = old.map(labels).unwrap_or_default();
    let after = labels(object);
    let mut refused: Vec<String> = changed(&before, &after).into_iter().filter(|k| !allowed(k)).collect();
    refused.sort();
    if refused.is_empty() {
        return Ok(());
    }
    Err(says(a, node, &format!("is not allowed to modify labels: {}", refused.join(", "))))
}

fn changed(before: &Map, after: &Map) -> Vec<String> {
    let mut keys: Vec<String> = before.keys().chain(after.keys()).map(|k| k.to_string()).collect();
    keys.sort();
    keys.dedup();
    keys.retain(|k| before.get(k) != after.get(k));
    keys
}

fn allowed(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else { return true };
    let within = |suffix: &str| domain == suffix || domain.ends_with(&format!(".{suffix}"));
    if within("node-restriction.kubernetes.io") {
        return false;
    }
    if !within("kubernetes.io") && !within("k8s.io") {
        return true;
    }
    ALLOWED_LABELS.contains(&key) || within("kubelet.kubernetes.io") || within("node.kubernetes.io")
}

fn token(c: &Cluster, a: &Attributes<'_>, node: &str, object: Option<&Value>) -> Result<(), ApiError> {
    let Some(object) = object else { return Ok(()) };
    let reference = |key: &str| object.str_at(&["spec", "boundObjectRef", key]).unwrap_or_default();
    if reference("kind") != "Pod" || reference("name").is_empty() {
        return Err(says(a, node, "requested token not bound to a pod"));
    }
    if reference("uid").is_empty() {
        return Err(says(a, node, "requested token with a pod binding without a uid"));
    }
    let pod = c.get("", "pods", a.namespace, reference("name"));
    let Some(pod) = pod.filter(|p| p.uid() == reference("uid")) else {
        return Err(says(a, node, "requested token bound to a pod that does not exist"));
    };
    owned(a, node, Some(&pod), "requested token bound to a pod scheduled on a different node")
}
