//! Which pods go first when there are too many.
//!
//! Answers to `pkg/controller`'s ActivePodsWithRanks: what has done least goes first, and copies on one node before
//! single ones.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use ironkeel_semantics::pods;
use ironkeel_semantics::well_known::POD_DELETION_COST_ANNOTATION;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

/// Sorts `candidates` so that those to delete first come first. `related` are the active pods of the same application,
/// the candidates included.
pub(crate) fn sort_for_deletion(candidates: &mut [Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) {
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related {
        if let Some(node) = pods::node_name(pod) {
            *on_node.entry(node).or_default() += 1;
        }
    }
    let crowd = |pod: &Pod| pods::node_name(pod).and_then(|node| on_node.get(node)).copied().unwrap_or(0);
    candidates.sort_by(|a, b| {
        bool_key(pods::node_name(a).is_some())
            .cmp(&bool_key(pods::node_name(b).is_some()))
            .then_with(|| phase_rank(a).cmp(&phase_rank(b)))
            .then_with(|| pods::is_ready(a).cmp(&pods::is_ready(b)))
            .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
            .then_with(|| crowd(b).cmp(&crowd(a)))
            .then_with(|| younger_first(ready_since(a), ready_since(b), now))
            .then_with(|| pods::most_restarts(b).cmp(&pods::most_restarts(a)))
            .then_with(|| younger_first(created(a), created(b), now))
            .then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
    });
}

fn bool_key(value: bool) -> u8 {
    u8::from(value)
}

fn phase_rank(pod: &Pod) -> u8 {
    match pods::phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(POD_DELETION_COST_ANNOTATION)).and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = pods::condition(pod, "Ready").filter(|condition| condition.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// Ages are compared by their order of magnitude (base 2), so that the choice among pods of one rollout is spread.
fn younger_first(a: Option<Timestamp>, b: Option<Timestamp>, now: Timestamp) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => magnitude(now, a).cmp(&magnitude(now, b)),
        // Without a time: the event was not seen yet, so it is the youngest.
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

fn magnitude(now: Timestamp, then: Timestamp) -> u32 {
    let nanos = u64::try_from(now.as_nanosecond() - then.as_nanosecond()).unwrap_or(0);
    nanos.checked_ilog2().map_or(0, |log| log + 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn pod(name: &str, node: &str, phase: &str, ready: Option<&str>, cost: &str) -> Arc<Pod> {
        let conditions = ready.map(|since| json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}]));
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": name, "annotations": {POD_DELETION_COST_ANNOTATION: cost},
                             "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"containers": [], "nodeName": node},
                "status": {"phase": phase, "conditions": conditions},
            }))
            .unwrap(),
        )
    }

    #[test]
    fn what_did_least_goes_first() {
        let old = Some("2026-01-01T00:00:10Z");
        let mut pods = vec![
            pod("old", "n1", "Running", old, "0"),
            pod("cheap", "n2", "Running", old, "-5"),
            pod("crowded", "n3", "Running", old, "0"),
            pod("crowded-too", "n3", "Running", Some("2026-01-01T01:00:00Z"), "0"),
            pod("unready", "n1", "Running", None, "0"),
            pod("pending", "n1", "Pending", None, "0"),
            pod("unbound", "", "Pending", None, "0"),
        ];
        let related = pods.clone();
        sort_for_deletion(&mut pods, &related, "2026-01-01T01:00:05Z".parse().unwrap());
        let names: Vec<_> = pods.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
        assert_eq!(names, ["unbound", "pending", "unready", "cheap", "old", "crowded-too", "crowded"]);
    }
}
