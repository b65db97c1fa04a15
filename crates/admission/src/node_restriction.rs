//! NodeRestriction: a kubelet changes its own Node, the Pods bound to it, and little else.
//!
//! What a kubelet may read is the node authorizer's business (crate `auth`); here is what a write
//! may say. Upstream runs these checks before others change the object, and so does the chain.
//! [`node`] is about the Node, [`tokens`] about service accounts' tokens, [`credentials`] about
//! certificates.

mod credentials;
mod node;
mod tokens;

use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::{ApiError, Attributes, Operation};

use crate::Cluster;

const MIRROR: &str = "kubernetes.io/config.mirror";
const LEASE_NAMESPACE: &str = "kube-node-lease";

pub(crate) fn admit(
    c: &Cluster,
    a: &Attributes<'_>,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    if a.operation == Operation::Connect || !a.user.groups.iter().any(|g| g == "system:nodes") {
        return Ok(());
    }
    let Some(node) = a.user.name.strip_prefix("system:node:") else { return Ok(()) };
    if node.is_empty() {
        return Err(a.forbidden(&format!("could not determine node from user {:?}", a.user.name)));
    }
    let name = match object {
        Some(object) if a.operation == Operation::Create => object.name(),
        _ => a.name,
    };
    match (a.row.group(), a.row.plural(), a.subresource) {
        ("", "pods", "") => pod(c, a, node, object, old),
        ("", "pods", "status") => pod_status(a, node, object, old),
        ("", "pods", "eviction") => eviction(c, a, node),
        ("", "pods", other) => {
            Err(a.forbidden(&format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed")))
        }
        ("", "nodes", _) => node::admit(a, node, object, old),
        ("", "persistentvolumeclaims", "status") => claim_status(a, node, object, old),
        ("", "persistentvolumeclaims", _) => Err(a.forbidden("may only update PVC status")),
        ("", "serviceaccounts", "token") if a.operation == Operation::Create => tokens::admit(c, a, node, object),
        ("coordination.k8s.io", "leases", _) if a.namespace != LEASE_NAMESPACE => {
            Err(a.forbidden(&format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace")))
        }
        ("coordination.k8s.io", "leases", _) if name != node => {
            Err(a.forbidden("can only access node lease with the same name as the requesting node"))
        }
        ("storage.k8s.io", "csinodes", _) if name != node => {
            Err(a.forbidden("can only access CSINode with the same name as the requesting node"))
        }
        ("resource.k8s.io", "resourceslices", _) => slice(a, node, object, old),
        ("certificates.k8s.io", "certificatesigningrequests", _) if a.operation == Operation::Create => {
            credentials::signing_request(a, node, object)
        }
        ("certificates.k8s.io", "podcertificaterequests", _) => credentials::pod_request(c, a, node, object),
        _ => Ok(()),
    }
}

fn says(a: &Attributes<'_>, node: &str, why: &str) -> ApiError {
    a.forbidden(&format!("node {node:?} {why}"))
}

fn unexpected(a: &Attributes<'_>) -> ApiError {
    a.forbidden(&format!("unexpected operation {:?}", a.operation.as_str()))
}

fn is_on(pod: &Value, node: &str) -> bool {
    pod.str_at(&["spec", "nodeName"]) == Some(node)
}

fn pod(
    c: &Cluster,
    a: &Attributes<'_>,
    node: &str,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    match (a.operation, object) {
        (Operation::Create, Some(pod)) => mirror_pod(c, a, node, pod),
        (Operation::Delete, _) if old.is_some_and(|pod| is_on(pod, node)) => Ok(()),
        (Operation::Delete, _) => Err(says(a, node, "can only delete pods with spec.nodeName set to itself")),
        _ => Err(a.forbidden(&format!(
            "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
            a.operation.as_str()
        ))),
    }
}

/// A static Pod shows itself: bound to its node, owned by it, and without a reference to anything
/// that the node authorizer would then let the node read.
fn mirror_pod(c: &Cluster, a: &Attributes<'_>, node: &str, pod: &Value) -> Result<(), ApiError> {
    if pod.annotation(MIRROR).is_none() {
        return Err(a.forbidden(&format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        )));
    }
    if !is_on(pod, node) {
        return Err(says(a, node, "can only create pods with spec.nodeName set to itself"));
    }
    let owner = match pod.items_at(&["metadata", "ownerReferences"]) {
        [owner] => owner,
        [] => return Err(says(a, node, "can only create pods with an owner reference set to itself")),
        _ => return Err(says(a, node, "can only create pods with a single owner reference set to itself")),
    };
    let text = |key: &str| owner.str_at(&[key]).unwrap_or_default();
    let flag = |key: &str| owner.get(key).and_then(Value::as_bool) == Some(true);
    if (text("apiVersion"), text("kind"), text("name")) != ("v1", "Node", node) {
        return Err(says(a, node, "can only create pods with an owner reference set to itself"));
    }
    if !flag("controller") {
        return Err(says(a, node, "can only create pods with a controller owner reference set to itself"));
    }
    if flag("blockOwnerDeletion") {
        return Err(says(a, node, "must not set blockOwnerDeletion on an owner reference"));
    }
    let stored = c.get("", "nodes", "", node).ok_or_else(|| ApiError::not_found("", "nodes", node))?;
    if text("uid") != stored.uid() {
        let (expected, got) = (text("uid"), stored.uid());
        return Err(a.forbidden(&format!("node {node} UID mismatch: expected {expected} got {got}")));
    }
    match referenced(pod) {
        None => Ok(()),
        Some(what) => Err(says(a, node, &format!("can not create pods that reference {what}"))),
    }
}

/// The first sort of API object that a Pod's spec refers to.
fn referenced(pod: &Value) -> Option<&'static str> {
    let set = |o: &Value, key: &str| o.get(key).is_some_and(|v| !v.is_null());
    if pod.str_at(&["spec", "serviceAccountName"]).is_some_and(|n| !n.is_empty()) {
        return Some("serviceaccounts");
    }
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    let containers: Vec<&Value> = lists.iter().flat_map(|l| pod.items_at(&["spec", l])).collect();
    let env = |from: &str, key: &str| {
        containers.iter().any(|c| {
            c.items_at(&["envFrom"]).iter().any(|e| set(e, from))
                || c.items_at(&["env"]).iter().any(|e| e.get("valueFrom").is_some_and(|v| set(v, key)))
        })
    };
    let volumes = pod.items_at(&["spec", "volumes"]);
    let projected =
        |key: &str| volumes.iter().flat_map(|v| v.items_at(&["projected", "sources"])).any(|source| set(source, key));
    let drives =
        |key: &str| volumes.iter().flat_map(|v| v.as_object()).flat_map(|v| v.iter()).any(|(_, s)| set(s, key));
    let any = |key: &str| volumes.iter().any(|v| set(v, key));
    let secrets = !pod.items_at(&["spec", "imagePullSecrets"]).is_empty()
        || env("secretRef", "secretKeyRef")
        || any("secret")
        || any("azureFile")
        || projected("secret")
        || drives("secretRef")
        || drives("nodePublishSecretRef");
    if secrets {
        return Some("secrets");
    }
    if env("configMapRef", "configMapKeyRef") || any("configMap") || projected("configMap") {
        return Some("configmaps");
    }
    if !pod.items_at(&["spec", "resourceClaims"]).is_empty() {
        return Some("resourceclaims");
    }
    let sorts: [(bool, &'static str); 7] = [
        (any("csi"), "csidrivers (via CSI volumes)"),
        (any("glusterfs"), "endpoints (via glusterFS volumes)"),
        (any("persistentVolumeClaim"), "persistentvolumeclaims"),
        (any("ephemeral"), "persistentvolumeclaims (via ephemeral volumes)"),
        (projected("serviceAccountToken"), "serviceaccounts (via projected volumes)"),
        (projected("clusterTrustBundle"), "clustertrustbundles"),
        (projected("podCertificate"), "podcertificates"),
    ];
    sorts.into_iter().find(|(found, _)| *found).map(|(_, what)| what)
}

fn pod_status(a: &Attributes<'_>, node: &str, object: Option<&Value>, old: Option<&Value>) -> Result<(), ApiError> {
    let (Operation::Update, Some(new), Some(old)) = (a.operation, object, old) else { return Err(unexpected(a)) };
    if !is_on(old, node) {
        return Err(says(a, node, "can only update pod status for pods with spec.nodeName set to itself"));
    }
    let same = |path: &[&str]| {
        let full = |o| Value::at(o, path).filter(|v| !v.is_empty()).cloned();
        full(new) == full(old)
    };
    if !same(&["metadata", "labels"]) {
        return Err(says(a, node, "cannot update labels through pod status"));
    }
    if !same(&["status", "resourceClaimStatuses"]) {
        return Err(says(a, node, "cannot update resource claim statues"));
    }
    if !same(&["status", "extendedResourceClaimStatus"]) {
        return Err(says(a, node, "cannot update extended resource claim status"));
    }
    Ok(())
}

fn eviction(c: &Cluster, a: &Attributes<'_>, node: &str) -> Result<(), ApiError> {
    if a.operation != Operation::Create {
        return Err(a.forbidden(&format!("unexpected operation {}", a.operation.as_str())));
    }
    let pod = c.get("", "pods", a.namespace, a.name).ok_or_else(|| ApiError::not_found("", "pods", a.name))?;
    if is_on(&pod, node) {
        return Ok(());
    }
    Err(a.forbidden(&format!("node {node} can only evict pods with spec.nodeName set to itself")))
}

/// Of a claim, a node reports how far its volume has grown.
fn claim_status(a: &Attributes<'_>, node: &str, object: Option<&Value>, old: Option<&Value>) -> Result<(), ApiError> {
    let (Operation::Update, Some(new), Some(old)) = (a.operation, object, old) else { return Err(unexpected(a)) };
    let bare = |o: &Value| {
        let mut bare = o.clone();
        for key in ["resourceVersion", "managedFields"] {
            bare.meta_mut().remove(key);
        }
        if let Some(status) = bare.get_mut("status").and_then(Value::as_object_mut) {
            for key in ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"] {
                status.remove(key);
            }
        }
        bare
    };
    if bare(new) == bare(old) {
        return Ok(());
    }
    Err(says(a, node, "is not allowed to update fields other than status.quantity and status.conditions"))
}

/// Updates are the node authorizer's, which knows the stored slice; a create and each delete of a
/// collection are seen only here.
fn slice(a: &Attributes<'_>, node: &str, object: Option<&Value>, old: Option<&Value>) -> Result<(), ApiError> {
    let own = |slice: Option<&Value>| slice.is_some_and(|s| is_on(s, node));
    match a.operation {
        Operation::Create if !own(object) => {
            Err(a.forbidden("can only create ResourceSlice with the same NodeName as the requesting node"))
        }
        Operation::Delete if !own(old) => {
            Err(a.forbidden("can only delete ResourceSlice with the same NodeName as the requesting node"))
        }
        _ => Ok(()),
    }
}
