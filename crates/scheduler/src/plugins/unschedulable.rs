//! NodeUnschedulable: cordoned nodes take no pods, unless they tolerate it.

use ironkeel_semantics::{taints, well_known};
use k8s_openapi::api::core::v1::Taint;

use crate::cache::{NodeInfo, PodInfo};
use crate::framework::{Plugin, Rejection};
use crate::queue::ClusterEvent;

pub(crate) struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        if !node.node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false) {
            return Ok(());
        }
        let taint = Taint {
            key: well_known::TAINT_UNSCHEDULABLE.to_owned(),
            effect: taints::NO_SCHEDULE.to_owned(),
            ..Taint::default()
        };
        let tolerations = pod.pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
        if taints::tolerated(tolerations, &taint) { Ok(()) } else { Err(Rejection::of("node(s) were unschedulable")) }
    }

    fn hint(&self, event: &ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeAdded | ClusterEvent::NodeChanged { taints: true, .. })
    }
}
