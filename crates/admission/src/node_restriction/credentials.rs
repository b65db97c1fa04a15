//! Certificates that a kubelet asks for: its own, and those of Pods on its node.

use std::sync::Arc;

use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::{ApiError, Attributes, Operation};

use super::{MIRROR, is_on};
use crate::Cluster;
use crate::certificates;

const SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";

/// A node's own certificate bears the node's name.
pub(super) fn signing_request(a: &Attributes<'_>, node: &str, object: Option<&Value>) -> Result<(), ApiError> {
    let Some(object) = object else { return Ok(()) };
    let signer = object.str_at(&["spec", "signerName"]).unwrap_or_default();
    if signer != SERVING_SIGNER && signer != CLIENT_SIGNER {
        return Ok(());
    }
    let Some(names) = certificates::common_names(object) else {
        return Err(a.forbidden("unable to parse csr: PEM block type must be CERTIFICATE REQUEST"));
    };
    if names.last().is_some_and(|name| name.strip_prefix("system:node:") == Some(node)) {
        return Ok(());
    }
    Err(a.forbidden(&format!("can only create a node CSR with CN=system:node:{node}")))
}

/// A PodCertificateRequest names this node, and a Pod that runs on it under the account that it
/// says. What may be a cache's delay is no refusal, so that the kubelet tries again.
pub(super) fn pod_request(c: &Cluster, a: &Attributes<'_>, node: &str, object: Option<&Value>) -> Result<(), ApiError> {
    let (Operation::Create, Some(request)) = (a.operation, object) else {
        return Err(a.forbidden(&format!("unexpected operation {}", a.operation.as_str())));
    };
    if !a.subresource.is_empty() {
        return Err(a.forbidden(&format!("unexpected subresource {}", a.subresource)));
    }
    let text = |key: &str| request.str_at(&["spec", key]).unwrap_or_default();
    let named = text("nodeName");
    if named != node {
        return Err(a.forbidden(&format!(
            "PodCertificateRequest.Spec.NodeName={named:?}, which is not the requesting node {node:?}"
        )));
    }
    let found = |plural: &str, what: &str, namespace: &str, name: &str, shown: &str| -> Result<Arc<Value>, ApiError> {
        c.get("", plural, namespace, name).ok_or_else(|| {
            ApiError::internal(format!(
                "while retrieving {what} {shown:?} named in the PodCertificateRequest: {what} {name:?} not found"
            ))
        })
    };
    let stored = found("nodes", "node", "", node, node)?;
    let full = format!("{}/{}", a.namespace, text("podName"));
    if stored.uid() != text("nodeUID") {
        return Err(ApiError::internal(format!(
            "PodCertificateRequest for pod {full:?} names node UID {:?}, inconsistent with the running node ({:?})",
            text("nodeUID"),
            stored.uid()
        )));
    }
    let pod = found("pods", "pod", a.namespace, text("podName"), &full)?;
    if pod.uid() != text("podUID") {
        return Err(ApiError::internal(format!(
            "PodCertificateRequest for pod {full:?} contains pod UID ({:?}) which differs from running pod {:?}",
            text("podUID"),
            pod.uid()
        )));
    }
    if !is_on(&pod, node) {
        let why = format!("pod {full:?} is not running on node {node:?} named in the PodCertificateRequest");
        return Err(a.forbidden(&why));
    }
    if pod.annotation(MIRROR).is_some() {
        return Err(a.forbidden(&format!("pod {full:?} is a mirror pod")));
    }
    let account = text("serviceAccountName");
    let running = pod.str_at(&["spec", "serviceAccountName"]).unwrap_or_default();
    if account != running {
        return Err(a.forbidden(&format!(
            "PodCertificateRequest for pod {full:?} contains serviceAccountName ({account:?}) that differs from running pod ({running:?})"
        )));
    }
    let shown = format!("{}/{account}", a.namespace);
    let stored = found("serviceaccounts", "service account", a.namespace, account, &shown)?;
    if stored.uid() != text("serviceAccountUID") {
        return Err(ApiError::internal(format!(
            "PodCertificateRequest for pod {full:?} names service account UID {:?}, which differs from the running service account ({:?})",
            text("serviceAccountUID"),
            stored.uid()
        )));
    }
    Ok(())
}
