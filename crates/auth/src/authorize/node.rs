//! What a kubelet may: its own Node, Lease and CSINode, the pods bound to it, and what those use.
//!
//! Upstream keeps a graph in step by events. Here each check looks through the pods of the one
//! namespace it is about: kubelets ask rarely (they watch), and pods change all the time, so an
//! index by version would be rebuilt far more often than it is read.

use std::sync::Arc;

use ironkeel_object::{ObjectMeta, ObjectSource, Value};
use ironkeel_schema::{Resource, resource};

use super::{Attributes, PolicyRule};
use crate::bootstrap;

pub(super) struct NodeAuthorizer {
    source: Arc<dyn ObjectSource>,
    rules: Vec<PolicyRule>,
    pods: &'static Resource,
    volumes: &'static Resource,
    claims: &'static Resource,
    attachments: &'static Resource,
}

type Answer = Result<(), &'static str>;

const NO_RELATION: &str = "no relationship found between node and this object";

impl NodeAuthorizer {
    pub(super) fn new(source: Arc<dyn ObjectSource>) -> Self {
        let row = |group, plural| resource(group, "v1", plural).expect("the table has the resources a kubelet uses");
        NodeAuthorizer {
            source,
            rules: bootstrap::node_rules(),
            pods: row("", "pods"),
            volumes: row("", "persistentvolumes"),
            claims: row("", "persistentvolumeclaims"),
            attachments: row("storage.k8s.io", "volumeattachments"),
        }
    }

    /// `Err` says why the node authorizer does not allow it.
    pub(super) fn authorize(&self, node: &str, a: &Attributes<'_>) -> Answer {
        if !a.resource_request {
            return Err("");
        }
        match (a.group, a.resource) {
            ("", "secrets" | "configmaps") => self.read_one(node, a, &["get", "list", "watch"]),
            ("", "persistentvolumeclaims") if a.subresource == "status" => self.status(node, a),
            ("", "persistentvolumeclaims" | "persistentvolumes") => self.read_one(node, a, &["get"]),
            ("resource.k8s.io", "resourceclaims") => self.read_one(node, a, &["get"]),
            ("storage.k8s.io", "volumeattachments") => self.read_one(node, a, &["get"]),
            ("", "serviceaccounts") if a.subresource == "token" => self.token(node, a),
            ("", "serviceaccounts") => self.read_one(node, a, &["get"]),
            ("coordination.k8s.io", "leases") => lease(node, a),
            ("storage.k8s.io", "csinodes") => {
                own(node, a, "can only access CSINode with the same name as the requesting node")
            }
            ("resource.k8s.io", "resourceslices") => resource_slices(node, a),
            ("", "nodes") => nodes(node, a, &self.rules),
            ("", "pods") => self.own_pods(node, a),
            _ => by_rules(&self.rules, a),
        }
    }

    fn read_one(&self, node: &str, a: &Attributes<'_>, verbs: &[&str]) -> Answer {
        if !verbs.contains(&a.verb) {
            return Err("can only read this resource");
        }
        if !a.subresource.is_empty() {
            return Err("cannot access subresources of this resource");
        }
        if a.name.is_empty() {
            return Err("No Object name found");
        }
        if self.related(node, a) { Ok(()) } else { Err(NO_RELATION) }
    }

    fn status(&self, node: &str, a: &Attributes<'_>) -> Answer {
        let verb = ["get", "update", "patch"].contains(&a.verb);
        if verb && self.related(node, a) { Ok(()) } else { Err(NO_RELATION) }
    }

    fn token(&self, node: &str, a: &Attributes<'_>) -> Answer {
        if a.verb != "create" {
            return Err("can only create tokens for individual service accounts");
        }
        if self.related(node, a) { Ok(()) } else { Err(NO_RELATION) }
    }

    fn own_pods(&self, node: &str, a: &Attributes<'_>) -> Answer {
        match (a.verb, a.subresource) {
            ("list" | "watch", "") => {
                let own = a.field_selector.split(',').any(|t| {
                    let value = t.strip_prefix("spec.nodeName=").map(|v| v.strip_prefix('=').unwrap_or(v));
                    value == Some(node)
                });
                if own { Ok(()) } else { Err("can only list/watch pods with spec.nodeName field selector") }
            }
            ("get", "") => {
                let pod = self.source.get(self.pods, a.namespace, a.name);
                // A pod that is gone is told as 404, which gives nothing away.
                if pod.is_none_or(|p| on_node(&p, node)) { Ok(()) } else { Err(NO_RELATION) }
            }
            // NodeRestriction admission narrows these to the node's own pods.
            _ => by_rules(&self.rules, a),
        }
    }

    fn pods_of(&self, node: &str, namespace: &str) -> impl Iterator<Item = Arc<Value>> {
        self.source.list(self.pods, namespace).into_iter().filter(move |p| on_node(p, node))
    }

    fn related(&self, node: &str, a: &Attributes<'_>) -> bool {
        let (namespace, name) = (a.namespace, a.name);
        match a.resource {
            "volumeattachments" => {
                let found = self.source.get(self.attachments, "", name);
                found.is_some_and(|v| v.str_at(&["spec", "nodeName"]) == Some(node))
            }
            "persistentvolumes" => {
                let Some(volume) = self.source.get(self.volumes, "", name) else { return false };
                let claim = |key| volume.str_at(&["spec", "claimRef", key]).unwrap_or_default();
                let (claim_namespace, claim) = (claim("namespace"), claim("name"));
                !claim.is_empty() && self.pods_of(node, claim_namespace).any(|p| uses_claim(&p, claim))
            }
            _ if namespace.is_empty() => false,
            "secrets" => self
                .pods_of(node, namespace)
                .any(|p| mentions(&p["spec"], SECRET_REFERENCES, name) || self.volume_secret(&p, namespace, name)),
            "configmaps" => self.pods_of(node, namespace).any(|p| mentions(&p["spec"], CONFIG_MAP_REFERENCES, name)),
            "persistentvolumeclaims" => self.pods_of(node, namespace).any(|p| uses_claim(&p, name)),
            "serviceaccounts" => self
                .pods_of(node, namespace)
                .any(|p| p.str_at(&["spec", "serviceAccountName"]).unwrap_or("default") == name),
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

    /// Whether a volume of the pod's claims needs the secret (CSI, iSCSI, …).
    fn volume_secret(&self, pod: &Value, namespace: &str, secret: &str) -> bool {
        pod.items_at(&["spec", "volumes"]).iter().filter_map(|v| claim_of(pod, v)).any(|claim| {
            let claim = self.source.get(self.claims, namespace, &claim);
            let volume = claim.and_then(|c| self.source.get(self.volumes, "", c.str_at(&["spec", "volumeName"])?));
            volume.is_some_and(|v| secret_in_volume(&v["spec"], namespace, secret))
        })
    }
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

fn secret_in_volume(spec: &Value, namespace: &str, secret: &str) -> bool {
    let Some(members) = spec.as_object() else { return false };
    members.values().filter_map(Value::as_object).flat_map(|source| source.iter()).any(|(key, reference)| {
        let named = key.ends_with("SecretRef") || key == "secretRef";
        named
            && reference.str_at(&["name"]) == Some(secret)
            && reference.str_at(&["namespace"]).is_none_or(|n| n == namespace)
    })
}

fn by_rules(rules: &[PolicyRule], a: &Attributes<'_>) -> Answer {
    if rules.iter().any(|r| r.allows(a)) { Ok(()) } else { Err("") }
}

fn lease(node: &str, a: &Attributes<'_>) -> Answer {
    if !["get", "create", "update", "patch", "delete"].contains(&a.verb) {
        return Err("can only get, create, update, patch, or delete a node lease");
    }
    if a.namespace != "kube-node-lease" {
        return Err("can only access leases in the \"kube-node-lease\" system namespace");
    }
    // The name of a create stands in its body; NodeRestriction admission looks at it.
    if a.verb != "create" && a.name != node {
        return Err("can only access node lease with the same name as the requesting node");
    }
    Ok(())
}

fn own(node: &str, a: &Attributes<'_>, refusal: &'static str) -> Answer {
    let verb = ["get", "create", "update", "patch", "delete"].contains(&a.verb);
    if verb && a.subresource.is_empty() && (a.verb == "create" || a.name == node) { Ok(()) } else { Err(refusal) }
}

fn resource_slices(node: &str, a: &Attributes<'_>) -> Answer {
    let own_selector = a.field_selector.split(',').any(|t| t.strip_prefix("spec.nodeName=") == Some(node));
    match a.verb {
        // NodeRestriction admission compares the slice's node.
        "get" | "create" | "update" | "patch" | "delete" if a.subresource.is_empty() => Ok(()),
        "list" | "watch" | "deletecollection" if own_selector => Ok(()),
        _ => Err("can only list/watch/deletecollection resourceslices with spec.nodeName field selector"),
    }
}

fn nodes(node: &str, a: &Attributes<'_>, rules: &[PolicyRule]) -> Answer {
    match a.verb {
        "get" | "list" | "watch" if a.name != node => Err("node can only read its own Node object"),
        _ => by_rules(rules, a),
    }
}
