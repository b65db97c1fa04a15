//! TaintToleration: hard taints keep pods off, soft ones make a node less liked.

use ironkeel_semantics::taints::{self, NO_EXECUTE, NO_SCHEDULE, PREFER_NO_SCHEDULE};
use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::cache::{NodeInfo, PodInfo};
use crate::framework::{Plugin, Rejection, normalize_by_max};
use crate::queue::ClusterEvent;

pub(crate) struct TaintToleration;

fn taints_of(node: &NodeInfo) -> &[Taint] {
    node.node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default()
}

fn tolerations_of(pod: &PodInfo) -> &[Toleration] {
    pod.pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default()
}

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        match taints::untolerated(taints_of(node), tolerations_of(pod), &[NO_SCHEDULE, NO_EXECUTE]) {
            None => Ok(()),
            Some(_) => Err(Rejection::of("node(s) had untolerated taint(s)")),
        }
    }

    /// How many soft taints the pod does not tolerate.
    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let soft = taints_of(node).iter().filter(|t| t.effect == PREFER_NO_SCHEDULE);
        soft.filter(|t| !taints::tolerated(tolerations_of(pod), t)).count() as i64
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize_by_max(scores, true);
    }

    fn weight(&self) -> i64 {
        3
    }

    fn hint(&self, event: &ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeAdded | ClusterEvent::NodeChanged { taints: true, .. })
    }
}
