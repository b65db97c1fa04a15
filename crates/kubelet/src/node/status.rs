//! The node's status: addresses, capacity, conditions, images.

use ironkeel_cri::v1::Image;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};

use crate::kubelet::Kubelet;

use super::machine;

/// Images that the status names.
const MAX_IMAGES: usize = 50;
/// Names of an image that the status gives.
const MAX_NAMES: usize = 5;
/// What this kubelet can do of the features that nodes declare (KEP-5328), by their names, sorted. Those of 1.36 that
/// it cannot: RestartAllContainersOnContainerExits and UserNamespacesHostNetworkSupport.
const DECLARED_FEATURES: [&str; 3] =
    ["ExtendWebSocketsToKubelet", "InPlacePodLevelResourcesVerticalScaling", "InPlacePodVerticalScalingInitContainers"];

/// Computes the status; conditions that did not change keep their transition time.
pub(crate) fn generate(kubelet: &Kubelet, old: Option<&NodeStatus>, images: &[Image]) -> NodeStatus {
    let now = Timestamp::now();
    let health = kubelet.node.health.read().clone();
    let pressure = kubelet.node.pressure();
    let why: Vec<String> = health.runtime.iter().chain(&health.network).cloned().collect();
    let ready = why.is_empty();
    let conditions = [
        pressure_condition(
            "MemoryPressure",
            pressure.memory,
            ["KubeletHasSufficientMemory", "KubeletHasInsufficientMemory"],
            "memory available",
        ),
        pressure_condition(
            "DiskPressure",
            pressure.disk,
            ["KubeletHasNoDiskPressure", "KubeletHasDiskPressure"],
            "disk pressure",
        ),
        pressure_condition(
            "PIDPressure",
            pressure.pid,
            ["KubeletHasSufficientPID", "KubeletHasInsufficientPID"],
            "PID available",
        ),
        (
            "Ready",
            ready,
            if ready { "KubeletReady" } else { "KubeletNotReady" },
            if ready { "kubelet is posting ready status".to_owned() } else { format!("[{}]", why.join(", ")) },
        ),
    ];
    let previous = old.and_then(|old| old.conditions.as_ref());
    let conditions = conditions
        .into_iter()
        .map(|(kind, holds, reason, message)| {
            let status = if holds { "True" } else { "False" };
            let same = previous.into_iter().flatten().find(|old| old.type_ == kind && old.status == status);
            let since = same.and_then(|old| old.last_transition_time.clone());
            NodeCondition {
                type_: kind.into(),
                status: status.into(),
                reason: Some(reason.into()),
                message: Some(message),
                last_heartbeat_time: Some(Time(now)),
                last_transition_time: Some(since.unwrap_or(Time(now))),
            }
        })
        .collect();
    let address = |kind: &str, address: String| NodeAddress { type_: kind.into(), address };
    let mut addresses: Vec<_> =
        kubelet.config.node_ips.iter().map(|ip| address("InternalIP", ip.to_string())).collect();
    addresses.push(address("Hostname", kubelet.config.hostname.clone()));
    let mut images: Vec<ContainerImage> = images
        .iter()
        .map(|image| ContainerImage {
            names: Some(image.repo_digests.iter().chain(&image.repo_tags).take(MAX_NAMES).cloned().collect()),
            size_bytes: i64::try_from(image.size).ok(),
        })
        .collect();
    images.sort_by_key(|image| std::cmp::Reverse(image.size_bytes));
    images.truncate(MAX_IMAGES);
    let port = i32::from(kubelet.port());
    NodeStatus {
        addresses: Some(addresses),
        capacity: Some(kubelet.node.capacity.clone()),
        allocatable: Some(kubelet.node.allocatable.clone()),
        conditions: Some(conditions),
        declared_features: Some(DECLARED_FEATURES.iter().map(|&feature| feature.to_owned()).collect()),
        daemon_endpoints: Some(NodeDaemonEndpoints { kubelet_endpoint: Some(DaemonEndpoint { port }) }),
        images: (!images.is_empty()).then_some(images),
        node_info: Some(machine::system_info(&kubelet.config.version, &health.version)),
        ..NodeStatus::default()
    }
}

fn pressure_condition(
    kind: &'static str,
    holds: bool,
    reasons: [&'static str; 2],
    what: &str,
) -> (&'static str, bool, &'static str, String) {
    let message = match (kind, holds) {
        ("DiskPressure", true) => "kubelet has disk pressure".to_owned(),
        ("DiskPressure", false) => "kubelet has no disk pressure".to_owned(),
        (_, true) => format!("kubelet has insufficient {what}"),
        (_, false) => format!("kubelet has sufficient {what}"),
    };
    (kind, holds, reasons[usize::from(holds)], message)
}
