//! PodTopologyLabels: a Pod carries zone and region of the Node that it is bound to.

use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::Attributes;

use crate::Cluster;

const LABELS: &[&str] = &["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

pub(crate) fn mutate(c: &Cluster, a: &Attributes<'_>, pod: &mut Value) {
    if a.subresource != "binding" || a.row.plural() != "pods" || !a.row.group().is_empty() {
        return;
    }
    let Some(node) = pod.str_at(&["spec", "nodeName"]).and_then(|n| c.get("", "nodes", "", n)) else { return };
    for key in LABELS {
        if let Some(value) = node.label(key) {
            pod.meta_mut().object("labels").insert(*key, value);
        }
    }
}
