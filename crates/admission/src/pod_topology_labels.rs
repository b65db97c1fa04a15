//! PodTopologyLabels: a Pod carries zone and region of the Node that it is bound to. The Binding
//! brings them; a Pod that is created on a Node has them from the start.

use ironkeel_object::{ObjectMeta, Value};
use ironkeel_registry::{Attributes, Operation};

use crate::Cluster;

const LABELS: &[&str] = &["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

pub(crate) fn mutate(c: &Cluster, a: &Attributes<'_>, object: &mut Value) {
    if a.operation != Operation::Create || a.row.plural() != "pods" || !a.row.group().is_empty() {
        return;
    }
    let node = match a.subresource {
        "" => object.str_at(&["spec", "nodeName"]),
        "binding" if object.str_at(&["target", "kind"]) == Some("Node") => object.str_at(&["target", "name"]),
        _ => return,
    };
    let Some(node) = node.filter(|n| !n.is_empty()).and_then(|n| c.get("", "nodes", "", n)) else { return };
    for key in LABELS {
        if let Some(value) = node.label(key) {
            object.meta_mut().object("labels").insert(*key, value);
        }
    }
}
