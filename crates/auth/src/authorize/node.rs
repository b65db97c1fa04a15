//! What a kubelet may: its own Node, Lease and CSINode, the pods bound to it, and what those use.
//!
//! Upstream keeps a graph in step by events. Here each check looks through the pods of the one
//! namespace it is about: kubelets ask rarely (they watch), and pods change all the time, so an
//! index by version would be rebuilt far more often than it is read.

use std::borrow::Cow;
use std::sync::Arc;

use ironkeel_object::{FieldSelector, ObjectMeta, ObjectSource, Value};
use ironkeel_schema::{Resource, resource};

use super::{Attributes, PolicyRule};
use crate::bootstrap;

pub(super) struct NodeAuthorizer {
    source: Arc<dyn ObjectSource>,
    rules: Vec<PolicyRule>,
    pods: &'static Resource,
    volumes: &'static Resource,
    attachments: &'static Resource,
    slices: &'static Resource,
    certificates: Option<&'static Resource>,
}

/// A refusal says why, or nothing.
type Answer = Result<(), Cow<'static, str>>;

fn no(why: &'static str) -> Answer {
    Err(Cow::Borrowed(why))
}

fn unrelated(node: &str) -> Answer {
    Err(format!("no relationship found between node '{node}' and this object").into())
}

impl NodeAuthorizer {
    pub(super) fn new(source: Arc<dyn ObjectSource>) -> Self {
        let row = |group, plural| resource(group, "v1", plural).expect("the table has the resources a kubelet uses");
        NodeAuthorizer {
            source,
            rules: bootstrap::node_rules(),
            pods: row("", "pods"),
            volumes: row("", "persistentvolumes"),
            attachments: row("storage.k8s.io", "volumeattachments"),
            slices: row("resource.k8s.io", "resourceslices"),
            certificates: resource("certificates.k8s.io", "v1beta1", "podcertificaterequests"),
        }
    }

    pub(super) fn authorize(&self, node: &str, a: &Attributes<'_>) -> Answer {
        if !a.resource_request {
            return no("");
        }
        match (a.group, a.resource) {
            ("", "secrets" | "configmaps") => self.read_one(node, a),
            ("", "persistentvolumeclaims") if a.subresource == "status" => match a.verb {
                "update" | "patch" => self.ask(node, a),
                _ => no("can only get/update/patch this type"),
            },
            ("", "persistentvolumeclaims" | "persistentvolumes")
            | ("resource.k8s.io", "resourceclaims")
            | ("storage.k8s.io", "volumeattachments") => self.get_one(node, a),
            ("", "serviceaccounts") if a.verb == "get" && a.subresource.is_empty() => self.read_one(node, a),
            ("", "serviceaccounts") => self.token(node, a),
            ("coordination.k8s.io", "leases") => lease(node, a),
            ("storage.k8s.io", "csinodes") => csi_node(node, a),
            ("resource.k8s.io", "resourceslices") => self.slice(node, a),
            ("certificates.k8s.io", "podcertificaterequests") => self.certificate(node, a),
            ("", "nodes") => nodes(node, a),
            ("", "pods") => self.own_pods(node, a),
            _ if self.rules.iter().any(|r| r.allows(a)) => Ok(()),
            _ => no(""),
        }
    }

    fn ask(&self, node: &str, a: &Attributes<'_>) -> Answer {
        if a.name.is_empty() {
            return no("No Object name found");
        }
        if self.related(node, a) { Ok(()) } else { unrelated(node) }
    }

    fn get_one(&self, node: &str, a: &Attributes<'_>) -> Answer {
        if a.verb != "get" {
            return no("can only get individual resources of this type");
        }
        if !a.subresource.is_empty() {
            return no("cannot get subresource");
        }
        self.ask(node, a)
    }

    fn read_one(&self, node: &str, a: &Attributes<'_>) -> Answer {
        if !matches!(a.verb, "get" | "list" | "watch") {
            return no("can only read resources of this type");
        }
        if !a.subresource.is_empty() {
            return no("cannot read subresource");
        }
        if a.namespace.is_empty() {
            return no("can only read namespaced object of this type");
        }
        self.ask(node, a)
    }

    fn token(&self, node: &str, a: &Attributes<'_>) -> Answer {
        if a.verb != "create" || a.name.is_empty() {
            return no("can only create tokens for individual service accounts");
        }
        if a.subresource != "token" {
            return no("can only create token subresource of serviceaccount");
        }
        self.ask(node, a)
    }

    fn own_pods(&self, node: &str, a: &Attributes<'_>) -> Answer {
        match (a.subresource, a.verb) {
            ("", "get") => self.get_one(node, a),
            ("", "list" | "watch") if selects(a, "spec.nodeName", node) => Ok(()),
            ("", "list" | "watch") if !a.name.is_empty() => self.ask(node, a),
            ("", "list" | "watch") => no("can only list/watch pods with spec.nodeName field selector"),
            // NodeRestriction admission narrows these to the node's own pods.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => no(""),
        }
    }

    fn slice(&self, node: &str, a: &Attributes<'_>) -> Answer {
        if !a.subresource.is_empty() {
            return no("cannot authorize ResourceSlice subresources");
        }
        match a.verb {
            // NodeRestriction admission compares the slice's node.
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => self.ask(node, a),
            "list" | "watch" | "deletecollection" if selects(a, "spec.nodeName", node) => Ok(()),
            "list" | "watch" | "deletecollection" => {
                no("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => no(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
            ),
        }
    }

    fn certificate(&self, node: &str, a: &Attributes<'_>) -> Answer {
        if !a.subresource.is_empty() {
            return no("nodes may not access the status subresource of PodCertificateRequests");
        }
        match a.verb {
            // NodeRestriction admission compares the request's node.
            "create" => Ok(()),
            "get" => self.ask(node, a),
            "list" | "watch" if selects(a, "spec.nodeName", node) => Ok(()),
            "list" | "watch" => no("can only list/watch podcertificaterequests with nodeName field selector"),
            verb => Err(format!("nodes may not {verb} podcertificaterequests").into()),
        }
    }

    /// The node's pods in a namespace, as far as they give it anything: mirror pods were made by the node
    /// itself.
    fn pods_of(&self, node: &str, namespace: &str) -> impl Iterator<Item = Arc<Value>> {
        let all = self.source.list(self.pods, namespace).into_iter();
        all.filter(move |p| on_node(p, node) && p.annotation(MIRROR).is_none())
    }

    fn related(&self, node: &str, a: &Attributes<'_>) -> bool {
        let (namespace, name) = (a.namespace, a.name);
        let names_node = |row: &'static Resource, namespace: &str| {
            let found = self.source.get(row, namespace, name);
            found.is_some_and(|o| o.str_at(&["spec", "nodeName"]) == Some(node))
        };
        match a.resource {
            "volumeattachments" => names_node(self.attachments, ""),
            "resourceslices" => names_node(self.slices, ""),
            "podcertificaterequests" => self.certificates.is_some_and(|row| names_node(row, namespace)),
            "persistentvolumes" => {
                self.source.get(self.volumes, "", name).is_some_and(|volume| self.uses_volume(node, &volume))
            }
            _ if namespace.is_empty() => false,
            "pods" => names_node(self.pods, namespace),
            "secrets" => {
                self.pods_of(node, namespace).any(|p| mentions(&p["spec"], SECRET_REFERENCES, name))
                    || self.volume_secret(node, namespace, name)
            }
            "configmaps" => self.pods_of(node, namespace).any(|p| mentions(&p["spec"], CONFIG_MAP_REFERENCES, name)),
            "persistentvolumeclaims" => self.pods_of(node, namespace).any(|p| uses_claim(&p, name)),
            "serviceaccounts" => {
                self.pods_of(node, namespace).any(|p| p.str_at(&["spec", "serviceAccountName"]) == Some(name))
            }
            "resourceclaims" => self.pods_of(node, namespace).any(|p| {
                let named =
                    |path: &[&str]| p.items_at(path).iter().any(|c| c.str_at(&["resourceClaimName"]) == Some(name));
                named(&["spec", "resourceClaims"])
                    || named(&["status", "resourceClaimStatuses"])
                    || p.str_at(&["status", "extendedResourceClaimStatus", "resourceClaimName"]) == Some(name)
            }),
            _ => false,
        }
    }

    /// Whether a pod of the node uses the claim that the volume is bound to.
    fn uses_volume(&self, node: &str, volume: &Value) -> bool {
        let claim = |key| volume.str_at(&["spec", "claimRef", key]).unwrap_or_default();
        let (namespace, claim) = (claim("namespace"), claim("name"));
        !claim.is_empty() && self.pods_of(node, namespace).any(|p| uses_claim(&p, claim))
    }

    /// A secret that volumes mention, wherever it is: the volume's claim says whose it is.
    fn volume_secret(&self, node: &str, namespace: &str, secret: &str) -> bool {
        let volumes = self.source.list(self.volumes, "");
        volumes.iter().any(|v| secret_in_volume(v, namespace, secret) && self.uses_volume(node, v))
    }
}

/// Marks a pod that a kubelet made for a file of its own.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Whether the request's selector narrows `field` to this node.
fn selects(a: &Attributes<'_>, field: &str, node: &str) -> bool {
    FieldSelector::parse(a.field_selector)
        .is_ok_and(|s| s.requirements.iter().any(|r| r.field == field && !r.negated && r.value == node))
}

fn on_node(pod: &Value, node: &str) -> bool {
    pod.str_at(&["spec", "nodeName"]) == Some(node)
}

/// The claim behind a volume; a generic ephemeral volume's is called `<pod>-<volume>`.
fn claim_of(pod: &Value, volume: &Value) -> Option<String> {
    if let Some(name) = volume.str_at(&["persistentVolumeClaim", "claimName"]) {
        return Some(name.to_owned());
    }
    volume.get("ephemeral").filter(|e| !e.is_null())?;
    Some(format!("{}-{}", pod.name(), volume.str_at(&["name"])?))
}

fn uses_claim(pod: &Value, claim: &str) -> bool {
    pod.items_at(&["spec", "volumes"]).iter().any(|v| claim_of(pod, v).as_deref() == Some(claim))
}

/// Members of a pod's spec that name a secret, and the member of each that holds the name.
const SECRET_REFERENCES: &[(&str, &str)] = &[
    ("imagePullSecrets", "name"),
    ("secretKeyRef", "name"),
    ("secretRef", "name"),
    ("secret", "secretName"),
    ("secret", "name"),
    ("nodePublishSecretRef", "name"),
    ("azureFile", "secretName"),
];
const CONFIG_MAP_REFERENCES: &[(&str, &str)] =
    &[("configMapKeyRef", "name"), ("configMapRef", "name"), ("configMap", "name")];

fn mentions(value: &Value, references: &[(&str, &str)], wanted: &str) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|v| mentions(v, references, wanted)),
        Value::Object(members) => members.iter().any(|(key, v)| {
            let here = references.iter().filter(|(k, _)| *k == key.as_ref()).any(|(_, name)| {
                let one = |v: &Value| v.str_at(&[*name]) == Some(wanted);
                one(v) || v.as_array().is_some_and(|a| a.iter().any(one))
            });
            here || mentions(v, references, wanted)
        }),
        _ => false,
    }
}

/// Secrets in a PersistentVolume that kubelets read; a secret without a namespace stands in the claim's.
/// What CSI's controllers read is not for nodes.
fn secret_in_volume(volume: &Value, namespace: &str, secret: &str) -> bool {
    let claims = volume.str_at(&["spec", "claimRef", "namespace"]).unwrap_or_default();
    let is = |name: Option<&str>, at: Option<&str>| {
        name == Some(secret) && at.filter(|n| !n.is_empty()).unwrap_or(claims) == namespace
    };
    let reference = |r: &Value| is(r.str_at(&["name"]), r.str_at(&["namespace"]));
    let Some(spec) = volume.get("spec") else { return false };
    let one = ["cephfs", "cinder", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos"];
    let csi = ["nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"];
    let azure = &spec["azureFile"];
    is(azure.str_at(&["secretName"]), azure.str_at(&["secretNamespace"]))
        || one.iter().any(|kind| reference(&spec[*kind]["secretRef"]))
        || csi.iter().any(|key| reference(&spec["csi"][*key]))
}

fn lease(node: &str, a: &Attributes<'_>) -> Answer {
    if !matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") {
        return no("can only get, create, update, patch, or delete a node lease");
    }
    if a.namespace != "kube-node-lease" {
        return no("can only access leases in the \"kube-node-lease\" system namespace");
    }
    // The name of a create stands in its body; NodeRestriction admission looks at it.
    if a.verb != "create" && a.name != node {
        return no("can only access node lease with the same name as the requesting node");
    }
    Ok(())
}

fn csi_node(node: &str, a: &Attributes<'_>) -> Answer {
    if !matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") {
        return no("can only get, create, update, patch, or delete a CSINode");
    }
    if !a.subresource.is_empty() {
        return no("cannot authorize CSINode subresources");
    }
    if a.verb != "create" && a.name != node {
        return no("can only access CSINode with the same name as the requesting node");
    }
    Ok(())
}

fn nodes(node: &str, a: &Attributes<'_>) -> Answer {
    match (a.subresource, a.verb) {
        // NodeRestriction admission narrows these to the node's own.
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") if a.name == node => Ok(()),
        ("", "get" | "list" | "watch") if a.name.is_empty() => {
            Err(format!("node '{node}' cannot read all nodes, only its own Node object").into())
        }
        ("", "get" | "list" | "watch") => {
            Err(format!("node '{node}' cannot read '{}', only its own Node object", a.name).into())
        }
        _ => no(""),
    }
}
