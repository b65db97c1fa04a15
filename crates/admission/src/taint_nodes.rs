//! TaintNodesByCondition: a new Node takes no Pods before it is ready.

use ironkeel_object::{Value, object};
use ironkeel_registry::{Attributes, Operation};

use crate::service_account::push;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(crate) fn mutate(a: &Attributes<'_>, node: &mut Value) {
    if a.operation != Operation::Create || !a.is("", "nodes") {
        return;
    }
    let tainted = node
        .items_at(&["spec", "taints"])
        .iter()
        .any(|t| t.str_at(&["key"]) == Some(NOT_READY) && t.str_at(&["effect"]) == Some("NoSchedule"));
    if !tainted {
        push(node.slot(&["spec", "taints"]), object!({ "key": NOT_READY, "effect": "NoSchedule" }));
    }
}
