//! The state of a pod: phase, conditions, readiness and availability.
//!
//! Answers to `pkg/api/v1/pod`. Time is given by the caller.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};

use crate::well_known::MIRROR_POD_ANNOTATION;

/// The pod's phase; `Pending` when it has none yet.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Whether the pod will never run again: it succeeded or failed.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the pod is being deleted.
pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether the pod counts as a replica: neither finished nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_terminating(pod)
}

/// The pod's condition of that type.
pub fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_deref()?.iter().find(|condition| condition.type_ == type_)
}

/// Whether the pod's Ready condition is True.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

/// Whether the pod has been ready for `min_ready_seconds` at `now`.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    is_ready(pod) && available_in(pod, min_ready_seconds, now).is_none()
}

/// How long until a ready pod becomes available; `None` when it is available now or is not ready at all.
pub fn available_in(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    let ready = condition(pod, "Ready").filter(|condition| condition.status == "True")?;
    if min_ready_seconds <= 0 {
        return None;
    }
    let since = ready.last_transition_time.as_ref().map_or(now, |time| time.0);
    let left = i128::from(min_ready_seconds) * 1_000_000_000 - (now.as_nanosecond() - since.as_nanosecond());
    (left > 0).then(|| Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX)))
}

/// The node that the pod is bound to.
pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// Whether the pod shows a static pod of a kubelet.
pub fn is_mirror(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(MIRROR_POD_ANNOTATION))
}

/// The addresses of the pod, the primary one first.
pub fn ips(pod: &Pod) -> Vec<&str> {
    let Some(status) = &pod.status else { return Vec::new() };
    let all: Vec<&str> = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).collect();
    if all.is_empty() { status.pod_ip.as_deref().into_iter().filter(|ip| !ip.is_empty()).collect() } else { all }
}

/// How often the pod's containers were restarted, of the one restarted most.
pub fn most_restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|status| status.restart_count).max().unwrap_or(0)
}

/// A pod made from `template`: its metadata's labels, annotations and finalizers, and its spec.
pub fn from_template(template: &PodTemplateSpec) -> Pod {
    let mut pod = Pod { spec: template.spec.clone(), ..Pod::default() };
    if let Some(meta) = &template.metadata {
        pod.metadata.labels = meta.labels.clone();
        pod.metadata.annotations = meta.annotations.clone();
        pod.metadata.finalizers = meta.finalizers.clone();
    }
    pod
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_is_available_after_min_ready_seconds() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}))
        .unwrap();
        let at = |seconds: i64| Timestamp::from_second(1_767_225_600 + seconds).unwrap();
        assert!(is_available(&pod, 0, at(0)));
        assert!(!is_available(&pod, 10, at(9)));
        assert_eq!(available_in(&pod, 10, at(9)), Some(Duration::from_secs(1)));
        assert!(is_available(&pod, 10, at(10)));
    }
}
