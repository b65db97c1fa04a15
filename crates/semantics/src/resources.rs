//! What a pod asks for and is limited to.
//!
//! Answers to component-helpers' resource package: containers add up, init containers count by their largest moment,
//! restartable init containers (sidecars) stay and add up, overhead comes on top, and pod-level resources win where set.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerPort, ContainerStatus, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity::Amount;

/// Amounts by resource name.
pub type ResourceList = BTreeMap<String, Amount>;

/// Name of the CPU resource.
pub const CPU: &str = "cpu";
/// Name of the memory resource.
pub const MEMORY: &str = "memory";
/// Name of the ephemeral storage resource.
pub const EPHEMERAL_STORAGE: &str = "ephemeral-storage";
/// Name of the resource that counts pods on a node.
pub const PODS: &str = "pods";

/// Reads a resource list of the API.
pub fn amounts(list: Option<&BTreeMap<String, Quantity>>) -> ResourceList {
    list.into_iter().flatten().map(|(name, quantity)| (name.clone(), Amount::from(quantity))).collect()
}

/// Writes a resource list for the API.
pub fn quantities(list: &ResourceList) -> BTreeMap<String, Quantity> {
    list.iter().map(|(name, amount)| (name.clone(), amount.to_quantity())).collect()
}

/// Adds `more` to `sum`.
pub fn add(sum: &mut ResourceList, more: &ResourceList) {
    for (name, amount) in more {
        *sum.entry(name.clone()).or_default() += *amount;
    }
}

/// Raises `most` to `other` where that is larger.
pub fn raise(most: &mut ResourceList, other: &ResourceList) {
    for (name, amount) in other {
        let known = most.entry(name.clone()).or_insert(*amount);
        if *amount > *known {
            *known = *amount;
        }
    }
}

/// Whether the init container keeps running beside the containers.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// What the pod asks for, as the scheduler counts it: while a resize is under way, the larger of what is wanted and what
/// is allocated.
pub fn requests(pod: &Pod) -> ResourceList {
    let Some(spec) = &pod.spec else { return ResourceList::new() };
    let infeasible =
        pod.status.iter().flat_map(|status| status.conditions.iter().flatten()).any(|condition| {
            condition.type_ == "PodResizePending" && condition.reason.as_deref() == Some("Infeasible")
        });
    let statuses: Vec<&ContainerStatus> = pod
        .status
        .iter()
        .flat_map(|status| {
            status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten())
        })
        .collect();
    let of = |container: &Container| {
        let wanted = container_requests(container);
        let Some(status) = statuses.iter().find(|status| status.name == container.name) else { return wanted };
        let mut held = amounts(status.allocated_resources.as_ref());
        raise(&mut held, &amounts(status.resources.as_ref().and_then(|resources| resources.requests.as_ref())));
        if held.is_empty() {
            return wanted;
        }
        if !infeasible {
            raise(&mut held, &wanted);
        }
        held
    };
    let mut total = sum(spec, of);
    if let Some(pod_level) = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()) {
        total.extend(amounts(Some(pod_level)));
    }
    add(&mut total, &amounts(spec.overhead.as_ref()));
    total
}

/// What the pod's spec asks for, whatever is allocated now.
pub fn spec_requests(spec: &PodSpec) -> ResourceList {
    let mut total = sum(spec, container_requests);
    if let Some(pod_level) = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()) {
        total.extend(amounts(Some(pod_level)));
    }
    add(&mut total, &amounts(spec.overhead.as_ref()));
    total
}

/// What the pod's spec is limited to. A resource that one container does not limit is limited by what the others say,
/// as upstream adds them up.
pub fn spec_limits(spec: &PodSpec) -> ResourceList {
    let mut total =
        sum(spec, |container| amounts(container.resources.as_ref().and_then(|resources| resources.limits.as_ref())));
    if let Some(pod_level) = spec.resources.as_ref().and_then(|resources| resources.limits.as_ref()) {
        total.extend(amounts(Some(pod_level)));
    }
    for (name, amount) in amounts(spec.overhead.as_ref()) {
        if let Some(limit) = total.get_mut(&name) {
            *limit += amount;
        }
    }
    total
}

/// What one container asks for.
pub fn container_requests(container: &Container) -> ResourceList {
    amounts(container.resources.as_ref().and_then(|resources: &ResourceRequirements| resources.requests.as_ref()))
}

fn sum(spec: &PodSpec, of: impl Fn(&Container) -> ResourceList) -> ResourceList {
    let mut total = ResourceList::new();
    for container in &spec.containers {
        add(&mut total, &of(container));
    }
    let mut sidecars = ResourceList::new();
    let mut largest_start = ResourceList::new();
    for container in spec.init_containers.iter().flatten() {
        let mut moment = of(container);
        if is_sidecar(container) {
            add(&mut total, &moment);
            add(&mut sidecars, &moment);
            moment = sidecars.clone();
        } else {
            add(&mut moment, &sidecars);
        }
        raise(&mut largest_start, &moment);
    }
    raise(&mut total, &largest_start);
    total
}

/// A port of the host that the pod wants for itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The host's address; `0.0.0.0` for all.
    pub ip: String,
    /// The port.
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be had at once.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        let any = |ip: &str| ip == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || any(&self.ip) || any(&other.ip))
    }
}

/// The host's ports that the pod wants, sidecars' included.
pub fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|container| is_sidecar(container));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port: &ContainerPort| {
            let number = port.host_port.filter(|number| *number > 0)?;
            Some(HostPort {
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                ip: port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned()),
                port: number,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn cpu(spec: serde_json::Value) -> i64 {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        spec_requests(&spec)[CPU].millis()
    }

    fn container(name: &str, cpu: &str, restart: Option<&str>) -> serde_json::Value {
        json!({"name": name, "resources": {"requests": {"cpu": cpu}}, "restartPolicy": restart})
    }

    #[test]
    fn init_containers_count_by_their_largest_moment_and_sidecars_stay() {
        assert_eq!(cpu(json!({"containers": [container("a", "1", None), container("b", "500m", None)]})), 1500);
        let init = json!([container("i", "3", None)]);
        assert_eq!(cpu(json!({"containers": [container("a", "1", None)], "initContainers": init})), 3000);
        let init = json!([container("s", "1", Some("Always")), container("i", "3", None)]);
        assert_eq!(cpu(json!({"containers": [container("a", "1", None)], "initContainers": init})), 4000);
        let init = json!([container("s", "1", Some("Always"))]);
        let overhead = json!({"cpu": "250m"});
        let spec = json!({"containers": [container("a", "1", None)], "initContainers": init, "overhead": overhead});
        assert_eq!(cpu(spec), 2250);
    }

    #[test]
    fn a_resize_counts_the_larger_of_wanted_and_held() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {},
            "spec": {"containers": [container("a", "1", None)]},
            "status": {"containerStatuses": [{
                "name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "allocatedResources": {"cpu": "2"}
            }]},
        }))
        .unwrap();
        assert_eq!(requests(&pod)[CPU].millis(), 2000);
    }

    #[test]
    fn host_ports_conflict_by_address_and_protocol() {
        let port = |ip: &str, protocol: &str| HostPort { protocol: protocol.into(), ip: ip.into(), port: 80 };
        assert!(port("0.0.0.0", "TCP").conflicts(&port("10.0.0.1", "TCP")));
        assert!(!port("10.0.0.2", "TCP").conflicts(&port("10.0.0.1", "TCP")));
        assert!(!port("0.0.0.0", "UDP").conflicts(&port("0.0.0.0", "TCP")));
    }
}
