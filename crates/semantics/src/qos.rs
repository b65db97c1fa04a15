//! The quality-of-service class of a pod, from its cpu and memory requests and limits.

use k8s_openapi::api::core::v1::{Pod, PodSpec, ResourceRequirements};

use crate::resources::{CPU, MEMORY, ResourceList, amounts};

/// A quality-of-service class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QosClass {
    /// Nothing is asked for.
    BestEffort,
    /// Something is.
    Burstable,
    /// Every container has cpu and memory limits, and asks for as much.
    Guaranteed,
}

impl QosClass {
    /// The value of `status.qosClass`.
    pub fn as_str(self) -> &'static str {
        match self {
            QosClass::BestEffort => "BestEffort",
            QosClass::Burstable => "Burstable",
            QosClass::Guaranteed => "Guaranteed",
        }
    }
}

/// The class of `pod`: the one in its status, which never changes, or else the one of its spec.
pub fn qos_class(pod: &Pod) -> QosClass {
    match pod.status.as_ref().and_then(|status| status.qos_class.as_deref()) {
        Some("Guaranteed") => QosClass::Guaranteed,
        Some("Burstable") => QosClass::Burstable,
        Some("BestEffort") => QosClass::BestEffort,
        _ => pod.spec.as_ref().map_or(QosClass::BestEffort, class_of),
    }
}

/// The class that `spec` earns.
pub fn class_of(spec: &PodSpec) -> QosClass {
    let of_list = |list: ResourceList| -> ResourceList {
        list.into_iter().filter(|(name, amount)| (name == CPU || name == MEMORY) && !amount.is_zero()).collect()
    };
    let split = |resources: Option<&ResourceRequirements>| {
        let requests = resources.and_then(|resources| resources.requests.as_ref());
        let limits = resources.and_then(|resources| resources.limits.as_ref());
        (of_list(amounts(requests)), of_list(amounts(limits)))
    };
    let parts: Vec<(ResourceList, ResourceList)> = match &spec.resources {
        Some(pod_level) if pod_level.requests.is_some() || pod_level.limits.is_some() => vec![split(Some(pod_level))],
        _ => spec
            .containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
            .map(|container| split(container.resources.as_ref()))
            .collect(),
    };
    if parts.iter().all(|(requests, limits)| requests.is_empty() && limits.is_empty()) {
        return QosClass::BestEffort;
    }
    // A request that is absent is the limit: the API server's defaulting makes it so.
    let guaranteed = parts.iter().all(|(requests, limits)| {
        limits.len() == 2 && requests.iter().all(|(name, amount)| limits.get(name) == Some(amount))
    });
    if guaranteed { QosClass::Guaranteed } else { QosClass::Burstable }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn check(resources: serde_json::Value, expected: QosClass) {
        let spec = json!({"containers": [{"name": "a", "resources": resources}]});
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        assert_eq!(class_of(&spec), expected);
    }

    #[test]
    fn the_class_follows_requests_and_limits() {
        check(json!({}), QosClass::BestEffort);
        check(json!({"requests": {"cpu": "0"}}), QosClass::BestEffort);
        check(json!({"requests": {"cpu": "1"}}), QosClass::Burstable);
        check(json!({"limits": {"cpu": "1", "memory": "1Gi"}}), QosClass::Guaranteed);
        check(
            json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1000m", "memory": "1024Mi"}}),
            QosClass::Guaranteed,
        );
        check(
            json!({"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}),
            QosClass::Burstable,
        );
    }
}
