//! On which nodes a DaemonSet's pod should be, and the pod for one node.

use ironkeel_informer::controller_reference;
use ironkeel_semantics::taints::{NO_EXECUTE, NO_SCHEDULE, untolerated};
use ironkeel_semantics::well_known::{
    CONTROLLER_REVISION_HASH_LABEL, TAINT_DISK_PRESSURE, TAINT_MEMORY_PRESSURE, TAINT_NETWORK_UNAVAILABLE,
    TAINT_NOT_READY, TAINT_PID_PRESSURE, TAINT_UNREACHABLE, TAINT_UNSCHEDULABLE,
};
use ironkeel_semantics::{nodes, pods};
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec};
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};
use kube::ResourceExt as _;

/// What a DaemonSet wants of a node.
pub(super) struct Placement {
    /// A pod is to be made there.
    pub(super) run: bool,
    /// A pod that is there may stay.
    pub(super) keep: bool,
}

/// Whether two states of a node differ in what placement looks at.
pub(super) fn differs(old: &Node, new: &Node) -> bool {
    let taints = |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone());
    old.metadata.labels != new.metadata.labels || taints(old) != taints(new)
}

pub(super) fn placement(set: &DaemonSet, spec: &DaemonSetSpec, node: &Node) -> Placement {
    let pod = pod_for(set, spec, &node.name_any(), "");
    if spec
        .template
        .spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .is_some_and(|name| name != node.name_any())
        || !nodes::selected_by(&pod, node)
    {
        return Placement { run: false, keep: false };
    }
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    Placement {
        run: untolerated(taints, tolerations, &[NO_SCHEDULE, NO_EXECUTE]).is_none(),
        keep: untolerated(taints, tolerations, &[NO_EXECUTE]).is_none(),
    }
}

/// The pod for `node`, of the revision `hash`.
pub(super) fn pod_for(set: &DaemonSet, spec: &DaemonSetSpec, node: &str, hash: &str) -> Pod {
    let mut pod = pods::from_template(&spec.template);
    pod.metadata.generate_name = Some(format!("{}-", set.name_any()));
    pod.metadata.owner_references = Some(vec![controller_reference(set)]);
    if !hash.is_empty() {
        pod.metadata.labels.get_or_insert_default().insert(CONTROLLER_REVISION_HASH_LABEL.to_owned(), hash.to_owned());
    }
    let pod_spec = pod.spec.get_or_insert_default();
    pin(pod_spec, node);
    tolerate(pod_spec);
    pod
}

/// Requires the node by name, in every term of the affinity that is there.
fn pin(spec: &mut PodSpec, node: &str) {
    let requirement = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    match &mut affinity.required_during_scheduling_ignored_during_execution {
        // The name replaces other requirements on fields: there is no other field than the name.
        Some(selector) if !selector.node_selector_terms.is_empty() => {
            for term in &mut selector.node_selector_terms {
                term.match_fields = Some(vec![requirement.clone()]);
            }
        }
        required => {
            let term = NodeSelectorTerm { match_fields: Some(vec![requirement]), match_expressions: None };
            *required = Some(NodeSelector { node_selector_terms: vec![term] });
        }
    }
}

/// Daemons stay on nodes in trouble.
fn tolerate(spec: &mut PodSpec) {
    let host_network = spec.host_network.unwrap_or(false);
    let mut wanted = vec![
        (TAINT_NOT_READY, NO_EXECUTE),
        (TAINT_UNREACHABLE, NO_EXECUTE),
        (TAINT_DISK_PRESSURE, NO_SCHEDULE),
        (TAINT_MEMORY_PRESSURE, NO_SCHEDULE),
        (TAINT_PID_PRESSURE, NO_SCHEDULE),
        (TAINT_UNSCHEDULABLE, NO_SCHEDULE),
    ];
    if host_network {
        wanted.push((TAINT_NETWORK_UNAVAILABLE, NO_SCHEDULE));
    }
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in wanted {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn check(taints: serde_json::Value, selector: serde_json::Value, run: bool, keep: bool) {
        let set: DaemonSet = serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": {
            "selector": {}, "template": {"spec": {"containers": [], "nodeSelector": selector}}}}))
        .unwrap();
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n", "labels": {"a": "1"}}, "spec": {"taints": taints}}))
        .unwrap();
        let found = placement(&set, set.spec.as_ref().unwrap(), &node);
        assert_eq!((found.run, found.keep), (run, keep), "{taints} {selector}");
    }

    #[test]
    fn daemons_run_where_selector_and_taints_let_them() {
        check(json!([]), json!({}), true, true);
        check(json!([]), json!({"a": "2"}), false, false);
        check(json!([{"key": "x", "effect": "NoSchedule"}]), json!({}), false, true);
        check(json!([{"key": "x", "effect": "NoExecute"}]), json!({}), false, false);
        check(json!([{"key": TAINT_UNSCHEDULABLE, "effect": "NoSchedule"}]), json!({"a": "1"}), true, true);
    }
}
