//! A kubelet's own Node: no taints, no owners, and labels within bounds, so that a node that was
//! broken into cannot draw Pods to itself.

use ironkeel_object::{Map, Value};
use ironkeel_registry::{ApiError, Attributes, Operation};

use super::says;

/// Labels of Kubernetes' own domains that a kubelet may set.
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

pub(super) fn admit(
    a: &Attributes<'_>,
    node: &str,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    if a.name != node {
        return Err(says(a, node, &format!("is not allowed to modify node {:?}", a.name)));
    }
    let Some(new) = object else { return Ok(()) };
    let source = new.at(&["spec", "configSource"]).filter(|s| !s.is_null());
    let labels = |o: &Value| o.at(&["metadata", "labels"]).and_then(Value::as_object).cloned().unwrap_or_default();
    match (a.operation, old) {
        (Operation::Create, _) => {
            if source.is_some() {
                return Err(says(a, node, "is not allowed to create pods with a non-nil configSource"));
            }
            let refused = refused(&Map::new(), &labels(new));
            if !refused.is_empty() {
                let why = format!("is not allowed to set the following labels: {}", refused.join(", "));
                return Err(says(a, node, &why));
            }
        }
        (Operation::Update, Some(old)) => {
            if source.is_some() && source != old.at(&["spec", "configSource"]) {
                return Err(says(a, node, "is not allowed to update configSource to a new non-nil configSource"));
            }
            let list = |o, path: &[&str]| Value::items_at(o, path).to_vec();
            if list(new, &["spec", "taints"]) != list(old, &["spec", "taints"]) {
                return Err(says(a, node, "is not allowed to modify taints"));
            }
            let owners = &["metadata", "ownerReferences"];
            if list(new, owners) != list(old, owners) {
                return Err(says(a, node, "is not allowed to modify ownerReferences"));
            }
            let refused = refused(&labels(old), &labels(new));
            if !refused.is_empty() {
                return Err(a.forbidden(&format!("is not allowed to modify labels: {}", refused.join(", "))));
            }
        }
        _ => {}
    }
    Ok(())
}

/// Labels that were added, removed or changed, and are not a kubelet's to touch.
fn refused(before: &Map, after: &Map) -> Vec<String> {
    let mut keys: Vec<String> = before.keys().chain(after.keys()).map(|k| k.to_string()).collect();
    keys.sort();
    keys.dedup();
    keys.retain(|k| before.get(k) != after.get(k) && !allowed(k));
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
