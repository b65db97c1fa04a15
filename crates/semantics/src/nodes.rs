//! Whether a node is one that a pod asks for: node selector, node affinity, readiness.
//!
//! Answers to component-helpers' nodeaffinity package. An absent selector matches every node, an empty list of terms
//! none, and an empty term none.

use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeCondition, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod,
};

use crate::selectors::{Labels, contains};

/// Whether `node` satisfies the pod's node selector and its required node affinity.
pub fn selected_by(pod: &Pod, node: &Node) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let labels = node.metadata.labels.as_ref();
    if spec.node_selector.as_ref().is_some_and(|wanted| !contains(wanted, labels)) {
        return false;
    }
    required_affinity(spec.affinity.as_ref()).is_none_or(|selector| selector_matches(selector, node))
}

/// The selector that a node must match, when the affinity has one.
pub fn required_affinity(affinity: Option<&Affinity>) -> Option<&NodeSelector> {
    affinity?.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()
}

/// Whether any term of `selector` matches `node`.
pub fn selector_matches(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, node))
}

/// Whether all of `term` holds for `node`.
pub fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let none = Labels::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&none);
    expressions.iter().all(|requirement| holds(requirement, labels.get(&requirement.key).map(String::as_str)))
        && fields
            .iter()
            .all(|requirement| requirement.key == "metadata.name" && holds(requirement, node.metadata.name.as_deref()))
}

fn holds(requirement: &NodeSelectorRequirement, found: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = |value: &str| values.iter().any(|wanted| wanted == value);
    let number = |holds: fn(i64, i64) -> bool| match (found.map(str::parse), values) {
        (Some(Ok(found)), [wanted]) => wanted.parse().is_ok_and(|wanted| holds(found, wanted)),
        _ => false,
    };
    match requirement.operator.as_str() {
        "In" => found.is_some_and(listed),
        "NotIn" => !found.is_some_and(listed),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => number(|found, wanted| found > wanted),
        "Lt" => number(|found, wanted| found < wanted),
        _ => false,
    }
}

/// The node's condition of that type.
pub fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_deref()?.iter().find(|condition| condition.type_ == type_)
}

/// Whether the node's Ready condition is True.
pub fn is_ready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|condition| condition.status == "True")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn check(spec: serde_json::Value, expected: bool) {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n1", "labels": {"zone": "a", "cores": "8"}}
        }))
        .unwrap();
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        assert_eq!(selected_by(&pod, &node), expected, "{spec}");
    }

    fn affinity(terms: serde_json::Value) -> serde_json::Value {
        json!({"containers": [], "affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
    }

    #[test]
    fn nodes_match_selectors_and_affinity() {
        check(json!({"containers": []}), true);
        check(json!({"containers": [], "nodeSelector": {"zone": "a"}}), true);
        check(json!({"containers": [], "nodeSelector": {"zone": "b"}}), false);
        check(affinity(json!([])), false);
        check(affinity(json!([{}])), false);
        check(affinity(json!([{"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["4"]}]}])), true);
        check(affinity(json!([{"matchExpressions": [{"key": "cores", "operator": "Lt", "values": ["4"]}]}])), false);
        check(affinity(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}])), true);
        check(
            affinity(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}])),
            false,
        );
        check(
            affinity(json!([
                {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]},
                {"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]},
            ])),
            true,
        );
    }
}
