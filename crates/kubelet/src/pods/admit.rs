//! Admission: whether a pod that was given to this node fits it. The reasons are upstream's (OutOfcpu, NodePorts…).

use std::sync::Arc;

use ironkeel_semantics::resources::host_ports;
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};

use crate::resources::{self, ResourceList};

/// Why a pod is refused: `status.reason` and `status.message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) message: String,
}

fn lacking(resource: &str, requested: i128, used: i128, capacity: i128) -> Refusal {
    Refusal {
        reason: format!("OutOf{resource}"),
        message: format!(
            "Pod was rejected: Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, \
             capacity: {capacity}"
        ),
    }
}

/// Whether what the pod asks for is there beside what others ask for.
pub(crate) fn fits(spec: &PodSpec, others: &[Arc<Pod>], allocatable: &ResourceList) -> Result<(), Refusal> {
    for (resource, capacity) in allocatable {
        if resource == "pods" {
            continue;
        }
        // CPU is counted in thousandths, everything else in whole units.
        let unit = if resource == "cpu" { 1 } else { 1000 };
        let requested = resources::pod_request_milli(spec, resource) / unit;
        if requested == 0 {
            continue;
        }
        let used: i128 = others
            .iter()
            .filter_map(|other| other.spec.as_ref())
            .map(|other| resources::pod_request_milli(other, resource) / unit)
            .sum();
        let capacity = resources::milli(capacity) / unit;
        if requested + used > capacity {
            return Err(lacking(resource, requested, used, capacity));
        }
    }
    Ok(())
}

/// Judges a pod beside those that are admitted already.
pub(crate) fn admit(
    pod: &Pod,
    others: &[Arc<Pod>],
    allocatable: &ResourceList,
    max_pods: u32,
    node: Option<&Node>,
) -> Result<(), Refusal> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    if others.len() >= max_pods as usize {
        return Err(lacking("pods", 1, others.len() as i128, i128::from(max_pods)));
    }
    fits(spec, others, allocatable)?;
    let wanted = host_ports(spec);
    let taken = others.iter().filter_map(|other| other.spec.as_ref()).flat_map(host_ports);
    if taken.into_iter().any(|port| wanted.iter().any(|own| own.conflicts(&port))) {
        return Err(Refusal {
            reason: "NodePorts".into(),
            message: "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested \
                      pod ports"
                .into(),
        });
    }
    let labels = node.and_then(|node| node.metadata.labels.as_ref());
    let selected = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| labels.is_some_and(|labels| labels.get(key) == Some(value)) || node.is_none());
    if !selected {
        return Err(Refusal {
            reason: "NodeAffinity".into(),
            message: "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node \
                      affinity/selector"
                .into(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    fn pod(container: &str) -> Arc<Pod> {
        Arc::new(serde_yaml_ng::from_str(&format!("{{spec: {{containers: [{container}]}}}}")).unwrap())
    }

    #[test]
    fn what_does_not_fit_is_refused_with_upstreams_reasons() {
        let allocatable = ResourceList::from([("cpu".into(), Quantity("1".into()))]);
        let check = |new: &str, others: &[&str], expected: Option<&str>| {
            let others: Vec<_> = others.iter().map(|other| pod(other)).collect();
            let result = admit(&pod(new), &others, &allocatable, 2, None);
            assert_eq!(result.err().map(|refusal| refusal.reason).as_deref(), expected, "{new}");
        };
        let half = "{name: a, resources: {requests: {cpu: 600m}}}";
        check(half, &[], None);
        check(half, &[half], Some("OutOfcpu"));
        check("{name: a}", &["{name: a}", "{name: a}"], Some("OutOfpods"));
        let port = "{name: a, ports: [{containerPort: 1, hostPort: 80}]}";
        let port_at = "{name: a, ports: [{containerPort: 1, hostPort: 80, hostIP: 127.0.0.1}]}";
        check(port, &[port_at], Some("NodePorts"));
        check(port, &["{name: a, ports: [{containerPort: 1, hostPort: 80, protocol: UDP}]}"], None);
    }
}
